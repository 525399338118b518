//! Planted bugs in the packets that servers of an ensemble send each other. Behind them stands the
//! checksum that a server with the bug would send: it is not the checksum that finds them.

use std::collections::BTreeMap;

use bytes::{Bytes, BytesMut};

use super::super::plant::Plant;
use super::World;
use super::network::End;
use crate::wire::quorum::{self, LeaderPacket, LearnerPacket, PacketStream};

/// What has passed from each end of a connection of the quorum port, with a bug in packets.
pub(super) type Directions = BTreeMap<End, Direction>;

/// What has passed in one direction.
#[derive(Debug, Default)]
pub(super) struct Direction {
    /// The CRC-32C of all packets as they were sent on.
    crc: u32,
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

/// Whether a hand-over is nothing but packets, and no snapshot begins there.
pub(super) fn is_packets(bytes: &Bytes) -> bool {
    let mut stream = PacketStream::default();
    stream.push(bytes.clone());
    if bytes.is_empty() {
        return false;
    }
    while stream.buffered() != 0 {
        let Ok(Some(packet)) = stream.next_packet() else { return false };
        let leaders = LeaderPacket::decode(&packet);
        let is_known = packet.checksum().is_some()
            || matches!(leaders, Ok(Some(_)))
            || matches!(LearnerPacket::decode(&packet), Ok(Some(_)));
        if !is_known || matches!(leaders, Ok(Some(LeaderPacket::Snap { .. }))) {
            return false;
        }
    }
    true
}

impl World {
    /// What the planted bug makes of bytes that a server sends another.
    pub(super) fn tamper(&mut self, from: End, bytes: Bytes) -> Bytes {
        if !self.plant.is_in_packets() || self.network.is_of_election(from) {
            return bytes;
        }
        let copies = match self.plant {
            Plant::PacketsLost if self.prng.one_in(200) => 0,
            Plant::PacketsTwice if self.prng.one_in(200) => 2,
            _ => 1,
        };
        let direction = self.directions.entry(from).or_default();
        let mut out = BytesMut::new();
        for piece in direction.pieces(bytes) {
            match piece {
                Piece::Packet(packet) => {
                    (0..copies).for_each(|_| direction.packet(&packet, &mut out));
                }
                Piece::Checksum => quorum::put_checksum(&mut out, direction.crc),
                Piece::Body(bytes) => out.extend_from_slice(&bytes),
            }
        }
        out.freeze()
    }
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

    /// A packet goes on.
    fn packet(&mut self, packet: &[u8], out: &mut BytesMut) {
        self.crc = crc32c::crc32c_append(self.crc, packet);
        out.extend_from_slice(packet);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::Zxid;

    fn encoded(packet: &LeaderPacket) -> Bytes {
        let mut bytes = BytesMut::new();
        packet.encode(&mut bytes);
        bytes.freeze()
    }

    #[test]
    fn packets_and_bodies_are_told_apart() {
        let zxid = Zxid::new(1, 1);
        let (snap, commit) =
            (encoded(&LeaderPacket::Snap { zxid }), encoded(&LeaderPacket::Commit { zxid }));
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
