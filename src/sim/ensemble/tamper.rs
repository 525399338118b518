//! Planted bugs in the packets that servers of an ensemble send each other. Behind them stands the
//! checksum that a server with the bug would send: it is not the checksum that finds them.

use std::collections::BTreeMap;

use bytes::{Bytes, BytesMut};

use super::super::plant::Plant;
use super::World;
use super::network::{End, Parcel};
use crate::model::Zxid;
use crate::wire::quorum::{self, LeaderPacket, LearnerPacket, PacketStream};
use crate::wire::vote::{ElectionStream, Notification};

/// What has passed from each end of a connection of the quorum port, with a bug in packets.
pub(super) type Directions = BTreeMap<End, Direction>;

/// What has passed in one direction.
#[derive(Debug, Default)]
pub(super) struct Direction {
    /// The CRC-32C of everything as it was sent on.
    crc: u32,
    /// Checksums are sent.
    is_checked: bool,
    /// A snapshot's body passes.
    is_body: bool,
}

/// A part of what one turn sends.
#[derive(Debug, PartialEq, Eq)]
enum Piece {
    Packet(Bytes),
    Checksum,
    Body(Bytes),
}

/// What ends a snapshot's body, with its length.
const END_OF_BODY: &[u8] = b"\0\0\0\x0aBenWasHere";

/// Where a vote's frame begins, behind its length.
pub(super) const VOTE_AT: usize = 4;

/// Whether a hand-over on an election port is one vote with a checksum.
pub(super) fn is_vote(bytes: &Bytes) -> bool {
    let mut stream = ElectionStream::default();
    stream.push(bytes.clone());
    let frame = stream.next_frame().ok().flatten();
    frame.is_some_and(|frame| {
        let mut damaged = BytesMut::from(&*frame);
        if let Some(last) = damaged.last_mut() {
            *last ^= 1;
        }
        VOTE_AT + frame.len() == bytes.len() && Notification::decode(&damaged.freeze()).is_err()
    })
}

impl World {
    /// What the planted bug makes of bytes that a server sends another.
    pub(super) fn tamper(&mut self, from: End, bytes: Bytes) -> Bytes {
        if !self.plant.is_in_packets() || self.network.is_of_election(from) {
            return bytes;
        }
        let is_rare = self.prng.one_in(200);
        let mut direction = self.directions.remove(&from).unwrap_or_default();
        let mut out = BytesMut::new();
        for piece in direction.pieces(bytes) {
            match piece {
                Piece::Packet(packet) => {
                    for packet in self.altered(from, &packet, is_rare) {
                        direction.sends(&packet, &mut out);
                    }
                }
                Piece::Checksum => {
                    direction.is_checked = true;
                    quorum::put_checksum(&mut out, direction.crc);
                }
                Piece::Body(body) => direction.sends(&body, &mut out),
            }
        }
        self.directions.insert(from, direction);
        out.freeze()
    }

    /// What the planted bug makes of a packet.
    fn altered(&mut self, from: End, raw: &Bytes, is_rare: bool) -> Vec<Bytes> {
        let mut stream = PacketStream::default();
        stream.push(raw.clone());
        let Ok(Some(packet)) = stream.next_packet() else { return vec![raw.clone()] };
        let leaders = LeaderPacket::decode(&packet).ok().flatten();
        let learners = LearnerPacket::decode(&packet).ok().flatten();
        let unlucky = self.prng.one_in(4);
        match (self.plant, leaders, learners) {
            (Plant::PacketsLost, ..) if is_rare => vec![],
            (Plant::PacketsTwice, ..) if is_rare => vec![raw.clone(), raw.clone()],
            (Plant::CommitBeforeQuorum, Some(LeaderPacket::Proposal { zxid, .. }), _)
                if unlucky =>
            {
                vec![raw.clone(), from_leader(&LeaderPacket::Commit { zxid })]
            }
            (Plant::ProposalAltered, Some(LeaderPacket::Proposal { zxid, txn }), _) if unlucky => {
                let mut altered = BytesMut::from(&*txn);
                if let Some(byte) = altered.get_mut(LAST_OF_TIME) {
                    *byte ^= 1;
                }
                vec![from_leader(&LeaderPacket::Proposal { zxid, txn: altered.freeze() })]
            }
            (Plant::SnapshotAhead, Some(LeaderPacket::Snap { zxid }), _) => {
                vec![from_leader(&LeaderPacket::Snap { zxid: zxid.next() })]
            }
            (Plant::DiffForAll, Some(LeaderPacket::Trunc { zxid }), _) => {
                vec![from_leader(&LeaderPacket::Diff { zxid })]
            }
            (Plant::NewLeaderAckedEarly, Some(LeaderPacket::NewLeader { epoch, .. }), _) => {
                let zxid = Zxid::new(u32::try_from(epoch).unwrap_or_default(), 0);
                self.answer(from, &from_learner(&LearnerPacket::Ack { zxid }));
                vec![raw.clone()]
            }
            (Plant::AckInflated, _, Some(LearnerPacket::Ack { zxid })) if zxid.counter() != 0 => {
                vec![from_learner(&LearnerPacket::Ack { zxid: zxid.next() })]
            }
            (Plant::RequestTwice, _, Some(LearnerPacket::Request(_))) if unlucky => {
                vec![raw.clone(), raw.clone()]
            }
            (Plant::RequestAltered, _, Some(LearnerPacket::Request(mut request))) if unlucky => {
                let mut body = BytesMut::from(&*request.body);
                if let Some(byte) = body.last_mut() {
                    *byte ^= 1;
                }
                request.body = body.freeze();
                vec![from_learner(&LearnerPacket::Request(request))]
            }
            _ => vec![raw.clone()],
        }
    }

    /// Has the other end say something.
    fn answer(&mut self, to: End, packet: &Bytes) {
        let Some(other) = self.network.other(to) else { return };
        let direction = self.directions.entry(other).or_default();
        let mut out = BytesMut::new();
        direction.sends(packet, &mut out);
        if direction.is_checked {
            quorum::put_checksum(&mut out, direction.crc);
        }
        self.post(other, Parcel::Bytes(out.freeze()));
    }
}

/// Offset of the last byte of the time in a txn's header.
const LAST_OF_TIME: usize = 27;

fn from_leader(packet: &LeaderPacket) -> Bytes {
    let mut bytes = BytesMut::new();
    packet.encode(&mut bytes);
    bytes.freeze()
}

fn from_learner(packet: &LearnerPacket) -> Bytes {
    let mut bytes = BytesMut::new();
    packet.encode(&mut bytes);
    bytes.freeze()
}

impl Direction {
    /// What one hand-over consists of. A turn ends with whole packets.
    fn pieces(&mut self, mut bytes: Bytes) -> Vec<Piece> {
        let mut pieces = Vec::new();
        while !bytes.is_empty() {
            if self.is_body {
                let end = bytes.windows(END_OF_BODY.len()).position(|part| part == END_OF_BODY);
                self.is_body = end.is_none();
                let len = end.map_or(bytes.len(), |at| at + END_OF_BODY.len());
                pieces.push(Piece::Body(bytes.split_to(len)));
                continue;
            }
            let mut stream = PacketStream::default();
            stream.push(bytes.clone());
            let Ok(Some(packet)) = stream.next_packet() else {
                pieces.push(Piece::Body(bytes));
                break;
            };
            let len = bytes.len() - stream.buffered();
            let raw = bytes.split_to(len);
            if packet.checksum().is_some() {
                pieces.push(Piece::Checksum);
                continue;
            }
            pieces.push(Piece::Packet(raw));
            if let Ok(Some(LeaderPacket::Snap { .. })) = LeaderPacket::decode(&packet) {
                // Between the packet and the body stands its checksum.
                if let Ok(Some(next)) = stream.next_packet()
                    && next.checksum().is_some()
                {
                    pieces.push(Piece::Checksum);
                    bytes = stream.take_rest();
                }
                self.is_body = true;
            }
        }
        pieces
    }

    /// A packet, or a part of a body, goes on.
    fn sends(&mut self, packet: &[u8], out: &mut BytesMut) {
        self.crc = crc32c::crc32c_append(self.crc, packet);
        out.extend_from_slice(packet);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn packets_and_bodies_are_told_apart() {
        let zxid = Zxid::new(1, 1);
        let (snap, commit) = (
            from_leader(&LeaderPacket::Snap { zxid }),
            from_leader(&LeaderPacket::Commit { zxid }),
        );
        let mut checksum = BytesMut::new();
        quorum::put_checksum(&mut checksum, 7);
        for checksum in [&checksum[..], &[]] {
            let mut direction = Direction::default();
            let begin = [&snap[..], checksum, b"ZKSNbody"].concat();
            let mut expected = vec![Piece::Packet(snap.clone())];
            expected.extend((!checksum.is_empty()).then_some(Piece::Checksum));
            expected.push(Piece::Body(Bytes::from_static(b"ZKSNbody")));
            assert_eq!(direction.pieces(begin.into()), expected);
            let end = [b"\0\0\0\x03 more", END_OF_BODY, &commit[..], checksum].concat();
            let mut expected = vec![
                Piece::Body([b"\0\0\0\x03 more", END_OF_BODY].concat().into()),
                Piece::Packet(commit.clone()),
            ];
            expected.extend((!checksum.is_empty()).then_some(Piece::Checksum));
            assert_eq!(direction.pieces(end.into()), expected);
        }
    }
}
