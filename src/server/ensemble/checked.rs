//! One connection of the quorum port: packets out and in, and the checksums that two Ringkeepers
//! put behind what they send in a turn. TCP's own are 16 bits wide, and not every machine between
//! two servers keeps them.
//!
//! The CRC-32C goes on over everything of a direction, the first packet included. A leader begins
//! when the learner's greeting says that it understands checksums, a learner when the leader's
//! first one has come. From there on a packet is heard only when a checksum behind it is right.
//! Right behind the body of a snapshot stands one as well: whoever receives the body looks at it.

use std::collections::VecDeque;

use bytes::{Bytes, BytesMut};

use crate::limits;
use crate::wire::jute::{DecodeError, DecodeErrorKind, Reader};
use crate::wire::quorum::{self, PacketStream, QuorumPacket};

/// Both directions of a connection.
#[derive(Debug)]
pub(super) struct Checked {
    /// Received and not taken.
    stream: PacketStream,
    /// Packets of this turn, and how much of them the checksum covers.
    packets: BytesMut,
    covered: usize,
    /// Of everything so far.
    crc_out: u32,
    crc_in: u32,
    /// The other end is a Ringkeeper that knows us for one.
    is_checked: bool,
    /// Packets were sent without a checksum: a learner's, before it knew.
    owes: bool,
    /// A snapshot's body is being sent.
    is_raw: bool,
    /// Received, and not known to be whole.
    held: VecDeque<QuorumPacket>,
    held_bytes: usize,
    held_bytes_max: usize,
    /// Known to be whole.
    whole: VecDeque<QuorumPacket>,
}

impl Checked {
    /// Nothing has passed yet. Txns and requests are no longer than `record_bytes_max`.
    pub(super) fn new(record_bytes_max: usize) -> Self {
        Self {
            stream: PacketStream::new(record_bytes_max),
            packets: BytesMut::new(),
            covered: 0,
            crc_out: 0,
            crc_in: 0,
            is_checked: false,
            owes: false,
            is_raw: false,
            held: VecDeque::new(),
            held_bytes: 0,
            held_bytes_max: unsent_bytes_max(record_bytes_max),
            whole: VecDeque::new(),
        }
    }

    /// The other end is a Ringkeeper: what it says counts when its checksum has come.
    pub(super) const fn check(&mut self) {
        self.is_checked = true;
    }

    /// Bytes have come.
    pub(super) fn push(&mut self, bytes: Bytes) {
        self.stream.push(bytes);
    }

    /// Bytes received and not taken.
    pub(super) fn buffered(&self) -> usize {
        self.stream.buffered() + self.held_bytes
    }

    /// Everything received behind the last packet.
    pub(super) fn take_rest(&mut self) -> Bytes {
        self.stream.take_rest()
    }

    /// What the checksum behind the body of a snapshot goes on from, if there is to be one. The
    /// body begins here.
    pub(super) fn body_begins(&self) -> Option<u32> {
        self.is_checked.then_some(self.crc_in)
    }

    /// The checksum of everything up to the end of the body.
    pub(super) const fn body_ended(&mut self, crc: u32) {
        self.crc_in = crc;
    }

    /// The next packet that may be heard.
    pub(super) fn next_packet(&mut self) -> Result<Option<QuorumPacket>, DecodeError> {
        loop {
            if let Some(packet) = self.whole.pop_front() {
                return Ok(Some(packet));
            }
            let Some(bytes) = self.stream.next_bytes()? else { return Ok(None) };
            let packet = QuorumPacket::decode(&mut Reader::new(&bytes))?;
            match packet.checksum() {
                Some(crc) if crc == i64::from(self.crc_in) => {
                    self.is_checked = true;
                    self.held_bytes = 0;
                    self.whole.append(&mut self.held);
                }
                Some(_) => return Err(damaged()),
                None => {
                    self.crc_in = crc32c::crc32c_append(self.crc_in, &bytes);
                    if !self.is_checked {
                        return Ok(Some(packet));
                    }
                    self.held_bytes += bytes.len();
                    if self.held_bytes_max < self.held_bytes {
                        return Err(damaged());
                    }
                    self.held.push_back(packet);
                }
            }
        }
    }

    /// Puts a packet behind the others of this turn; how many bytes wait for its end.
    pub(super) fn packet(&mut self, encode: impl FnOnce(&mut BytesMut)) -> usize {
        encode(&mut self.packets);
        self.packets.len()
    }

    /// Puts a part of a snapshot's body there.
    pub(super) fn raw(&mut self, bytes: &[u8]) -> usize {
        self.seal();
        self.is_raw = true;
        self.packets.extend_from_slice(bytes);
        self.seal();
        self.covered
    }

    /// The body is over: its checksum is the next that the learner reads.
    pub(super) fn raw_ends(&mut self) {
        self.is_raw = false;
        self.seal();
    }

    /// Bytes that wait for the end of the turn.
    pub(super) fn unsent_bytes(&self) -> usize {
        self.packets.len()
    }

    /// What this turn has sent.
    pub(super) fn flush(&mut self) -> Bytes {
        self.seal();
        self.covered = 0;
        self.packets.split().freeze()
    }

    fn seal(&mut self) {
        let new = self.packets.get(self.covered..).unwrap_or_default();
        self.crc_out = crc32c::crc32c_append(self.crc_out, new);
        self.owes |= !new.is_empty();
        if self.is_checked && self.owes && !self.is_raw {
            quorum::put_checksum(&mut self.packets, self.crc_out);
            self.owes = false;
        }
        self.covered = self.packets.len();
    }
}

/// Bytes that may wait for the socket of another server, and of which one turn of its may consist.
/// One packet of the longest alone does not make it one that takes too little.
pub(super) const fn unsent_bytes_max(record_bytes_max: usize) -> usize {
    limits::PEER_UNSENT_BYTES_MAX.saturating_add(record_bytes_max)
}

const fn damaged() -> DecodeError {
    DecodeError { at: 0, field: "checksum", kind: DecodeErrorKind::Damaged }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::Zxid;
    use crate::wire::quorum::LeaderPacket;

    fn conn() -> Checked {
        Checked::new(limits::RECORD_BYTES_MAX)
    }

    fn commit(conn: &mut Checked, counter: u32) {
        let commit = LeaderPacket::Commit { zxid: Zxid::new(1, counter) };
        conn.packet(|buf| commit.encode(buf));
    }

    /// What is heard until nothing is left: counters, or the damage.
    fn heard(conn: &mut Checked) -> Result<Vec<u32>, DecodeError> {
        let mut heard = Vec::new();
        while let Some(packet) = conn.next_packet()? {
            heard.push(packet.zxid.counter());
        }
        Ok(heard)
    }

    #[test]
    fn without_the_mark_the_bytes_are_those_of_apache() {
        let (mut one, mut plain) = (conn(), BytesMut::new());
        commit(&mut one, 1);
        LeaderPacket::Commit { zxid: Zxid::new(1, 1) }.encode(&mut plain);
        assert_eq!(one.flush(), plain.freeze());
        assert!(one.flush().is_empty());
    }

    #[test]
    fn both_ends_check_from_the_first_checksum_on() {
        let (mut leader, mut learner) = (conn(), conn());
        commit(&mut learner, 1);
        leader.push(learner.flush());
        assert_eq!(heard(&mut leader).unwrap(), [1], "the greeting is heard at once");
        leader.check();
        commit(&mut leader, 2);
        let sent = leader.flush();
        learner.push(sent.slice(..sent.len() - 1));
        assert_eq!(heard(&mut learner).unwrap(), [2]);
        learner.push(sent.slice(sent.len() - 1..));
        assert_eq!(heard(&mut learner).unwrap(), []);
        // From here on everything waits for its checksum.
        commit(&mut leader, 3);
        commit(&mut leader, 4);
        let sent = leader.flush();
        learner.push(sent.slice(..sent.len() - 1));
        assert_eq!(heard(&mut learner).unwrap(), []);
        learner.push(sent.slice(sent.len() - 1..));
        assert_eq!(heard(&mut learner).unwrap(), [3, 4]);
        commit(&mut learner, 5);
        leader.push(learner.flush());
        assert_eq!(heard(&mut leader).unwrap(), [5], "its greeting is covered, too");
        assert!(learner.flush().is_empty(), "nothing is owed");
    }

    #[test]
    fn what_was_said_before_the_first_checksum_came_is_covered_when_it_comes() {
        let (mut leader, mut learner) = (conn(), conn());
        leader.check();
        commit(&mut leader, 1);
        let sent = leader.flush();
        learner.push(sent.slice(..sent.len() - 1));
        assert_eq!(heard(&mut learner).unwrap(), [1]);
        commit(&mut learner, 2);
        leader.push(learner.flush());
        assert_eq!(heard(&mut leader).unwrap(), [], "nobody vouches for it");
        learner.push(sent.slice(sent.len() - 1..));
        assert_eq!(heard(&mut learner).unwrap(), []);
        leader.push(learner.flush());
        assert_eq!(heard(&mut leader).unwrap(), [2]);
    }

    #[test]
    fn one_changed_bit_is_noticed_wherever_it_is() {
        let mut leader = conn();
        leader.check();
        commit(&mut leader, 1);
        commit(&mut leader, 2);
        let covered = leader.unsent_bytes();
        let sent = leader.flush();
        for bit in 0..8 * sent.len() {
            let mut damaged = sent.to_vec();
            damaged[bit / 8] ^= 1 << (bit % 8);
            let mut learner = conn();
            learner.check();
            learner.push(damaged.into());
            let heard = heard(&mut learner);
            // Fields of the checksum's own packet that say nothing may differ.
            let is_whole = covered <= bit / 8 && heard.as_ref().is_ok_and(|it| *it == [1, 2]);
            let is_silent = heard.as_ref().is_ok_and(Vec::is_empty);
            assert!(is_whole || is_silent || heard.is_err(), "{bit}: {heard:?}");
        }
    }

    #[test]
    fn a_body_is_covered() {
        let (mut leader, mut learner) = (conn(), conn());
        leader.check();
        learner.check();
        commit(&mut leader, 1);
        leader.raw(b"some of");
        let first = leader.flush();
        leader.raw(b" a body");
        leader.raw_ends();
        commit(&mut leader, 2);
        let body = b"some of a body";
        learner.push([first, leader.flush()].concat().into());
        assert_eq!(learner.next_packet().unwrap().unwrap().zxid.counter(), 1);
        let crc = crc32c::crc32c_append(learner.body_begins().unwrap(), body);
        let rest = learner.take_rest();
        assert_eq!(rest[..body.len()], *body);
        let behind = QuorumPacket::decode(&mut Reader::new(&rest.slice(body.len()..))).unwrap();
        assert_eq!(behind.checksum(), Some(i64::from(crc)));
        learner.push(rest.slice(body.len()..));
        learner.body_ended(crc);
        assert_eq!(heard(&mut learner).unwrap(), [2]);
    }
}
