//! Connections to the other servers, of both ports: dials under way, packets that wait for the end
//! of the turn, and what the sockets have not taken.

use std::collections::BTreeMap;

use bytes::{Bytes, BytesMut};

use super::checked::{self, Checked};
use crate::base::Duration;
use crate::model::ServerId;
use crate::server::contract::{DialId, PeerAddress, PeerLink, PeerOutput, PeerPort};
use crate::wire::jute::DecodeError;
use crate::wire::quorum::QuorumPacket;

/// All connections to other servers.
#[derive(Debug)]
pub(super) struct Peers {
    /// Txns and requests are no longer.
    record_bytes_max: usize,
    conns: BTreeMap<PeerLink, Conn>,
    dials: BTreeMap<DialId, Dialled>,
    next_dial: u64,
    out: Vec<PeerOutput>,
}

/// Whom a dial is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Dialled {
    /// A server's election port.
    Election(ServerId),
    /// The quorum port of the leader.
    Leader,
}

#[derive(Debug)]
struct Conn {
    port: PeerPort,
    /// What passes, of the quorum port.
    checked: Checked,
    /// Handed over and not taken by the socket.
    unsent_bytes: usize,
    is_reading: bool,
}

impl Peers {
    /// None yet, for txns and requests of at most so many bytes.
    pub(super) const fn new(record_bytes_max: usize) -> Self {
        Self {
            record_bytes_max,
            conns: BTreeMap::new(),
            dials: BTreeMap::new(),
            next_dial: 0,
            out: Vec::new(),
        }
    }

    /// A connection is there.
    pub(super) fn opened(&mut self, port: PeerPort, link: PeerLink) {
        let checked = Checked::new(self.record_bytes_max);
        let conn = Conn { port, checked, unsent_bytes: 0, is_reading: true };
        self.conns.insert(link, conn);
    }

    /// Asks for a connection.
    pub(super) fn dial(
        &mut self,
        whom: Dialled,
        addresses: Vec<PeerAddress>,
        within: Duration,
    ) -> DialId {
        let dial = DialId(self.next_dial);
        self.next_dial += 1;
        self.dials.insert(dial, whom);
        self.out.push(PeerOutput::Dial { dial, addresses, within });
        dial
    }

    /// A dial has ended: whom it was for.
    pub(super) fn dialled(&mut self, dial: DialId) -> Option<Dialled> {
        self.dials.remove(&dial)
    }

    /// Which port a connection belongs to.
    pub(super) fn port(&self, link: PeerLink) -> Option<PeerPort> {
        self.conns.get(&link).map(|conn| conn.port)
    }

    /// Bytes of the quorum port have come.
    pub(super) fn push(&mut self, link: PeerLink, bytes: Bytes) {
        if let Some(conn) = self.conns.get_mut(&link) {
            conn.checked.push(bytes);
        }
    }

    /// Bytes received and not taken.
    pub(super) fn buffered(&self, link: PeerLink) -> usize {
        self.conns.get(&link).map_or(0, |conn| conn.checked.buffered())
    }

    /// The next packet of a connection.
    pub(super) fn next_packet(
        &mut self,
        link: PeerLink,
    ) -> Result<Option<QuorumPacket>, DecodeError> {
        self.conns.get_mut(&link).map_or(Ok(None), |conn| conn.checked.next_packet())
    }

    /// Everything received and not taken: what stands behind a SNAP packet is no packet.
    pub(super) fn take_rest(&mut self, link: PeerLink) -> Bytes {
        self.conns.get_mut(&link).map(|conn| conn.checked.take_rest()).unwrap_or_default()
    }

    /// The body of a snapshot begins, as [`Checked::body_begins`].
    pub(super) fn body_begins(&self, link: PeerLink) -> Option<u32> {
        self.conns.get(&link).and_then(|conn| conn.checked.body_begins())
    }

    /// It is over, as [`Checked::body_ended`].
    pub(super) fn body_ended(&mut self, link: PeerLink, crc: u32) {
        if let Some(conn) = self.conns.get_mut(&link) {
            conn.checked.body_ended(crc);
        }
    }

    /// Whether the connection is to be read.
    pub(super) fn set_reading(&mut self, link: PeerLink, reading: bool) {
        if let Some(conn) = self.conns.get_mut(&link)
            && std::mem::replace(&mut conn.is_reading, reading) != reading
        {
            self.out.push(match reading {
                true => PeerOutput::ResumeReading { link },
                false => PeerOutput::PauseReading { link },
            });
        }
    }

    /// Puts a packet behind the others of this turn. Whether the connection can still be used: one
    /// whose socket takes nothing is not kept for ever.
    #[must_use]
    pub(super) fn packet(&mut self, link: PeerLink, encode: impl FnOnce(&mut BytesMut)) -> bool {
        let max = checked::unsent_bytes_max(self.record_bytes_max);
        let Some(conn) = self.conns.get_mut(&link) else { return true };
        conn.checked.packet(encode) + conn.unsent_bytes <= max
    }

    /// Puts a part of a snapshot there, otherwise as [`Peers::packet`].
    #[must_use]
    pub(super) fn raw(&mut self, link: PeerLink, bytes: &[u8]) -> bool {
        let max = checked::unsent_bytes_max(self.record_bytes_max);
        let Some(conn) = self.conns.get_mut(&link) else { return true };
        conn.checked.raw(bytes) + conn.unsent_bytes <= max
    }

    /// The snapshot is over: packets follow.
    pub(super) fn raw_ends(&mut self, link: PeerLink) {
        if let Some(conn) = self.conns.get_mut(&link) {
            conn.checked.raw_ends();
        }
    }

    /// The other end is a Ringkeeper: checksums go both ways.
    pub(super) fn check(&mut self, link: PeerLink) {
        if let Some(conn) = self.conns.get_mut(&link) {
            conn.checked.check();
        }
    }

    /// Hands bytes over at once.
    pub(super) fn send(&mut self, link: PeerLink, bytes: Bytes) {
        if let Some(conn) = self.conns.get_mut(&link) {
            conn.unsent_bytes += bytes.len();
            self.out.push(PeerOutput::Send { link, bytes });
        }
    }

    /// The socket took some bytes: whether it has taken all.
    pub(super) fn sent(&mut self, link: PeerLink, bytes: usize) -> bool {
        self.conns.get_mut(&link).is_some_and(|conn| {
            conn.unsent_bytes = conn.unsent_bytes.saturating_sub(bytes);
            conn.unsent_bytes == 0
        })
    }

    /// Bytes that wait for the socket.
    pub(super) fn unsent_bytes(&self, link: PeerLink) -> usize {
        self.conns.get(&link).map_or(0, |conn| conn.unsent_bytes + conn.checked.unsent_bytes())
    }

    /// Asks the driver for something besides.
    pub(super) fn ask(&mut self, output: PeerOutput) {
        self.out.push(output);
    }

    /// Ends a connection behind what was sent; nothing more is heard of it.
    pub(super) fn close(&mut self, link: PeerLink) {
        if let Some(mut conn) = self.conns.remove(&link) {
            self.out.extend(conn.flush(link));
            self.out.push(PeerOutput::Close { link });
        }
    }

    /// The other end is gone: which port it was, if the connection was in use.
    pub(super) fn closed(&mut self, link: PeerLink) -> Option<PeerPort> {
        self.conns.remove(&link).map(|conn| conn.port)
    }

    /// All connections of the quorum port.
    pub(super) fn quorum_links(&self) -> Vec<PeerLink> {
        let conns = self.conns.iter().filter(|(_, conn)| conn.port == PeerPort::Quorum);
        conns.map(|(link, _)| *link).collect()
    }

    /// What the driver owes, in order; once in each turn.
    pub(super) fn take(&mut self) -> Vec<PeerOutput> {
        for (link, conn) in &mut self.conns {
            self.out.extend(conn.flush(*link));
        }
        std::mem::take(&mut self.out)
    }
}

impl Conn {
    /// Hands over the packets of this turn.
    fn flush(&mut self, link: PeerLink) -> Option<PeerOutput> {
        let bytes = self.checked.flush();
        self.unsent_bytes += bytes.len();
        (!bytes.is_empty()).then_some(PeerOutput::Send { link, bytes })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::limits;
    use crate::model::Zxid;
    use crate::wire::quorum::LeaderPacket;

    /// One txn that the settings allow is not too much, however long it is, nor is it with what
    /// goes with it.
    #[test]
    fn the_longest_txn_passes() {
        let (link, longest) = (PeerLink(1), limits::PEER_UNSENT_BYTES_MAX);
        let [mut leader, mut learner] = [(); 2].map(|()| {
            let mut peers = Peers::new(longest);
            peers.opened(PeerPort::Quorum, link);
            peers.check(link);
            peers
        });
        let zxid = Zxid::new(1, 1);
        let proposal = LeaderPacket::Proposal { zxid, txn: vec![0; longest].into() };
        assert!(leader.packet(link, |buf| proposal.encode(buf)));
        assert!(leader.packet(link, |buf| LeaderPacket::Commit { zxid }.encode(buf)));
        for output in leader.take() {
            let PeerOutput::Send { bytes, .. } = output else { panic!("{output:?}") };
            learner.push(link, bytes);
        }
        let heard: Vec<_> = std::iter::from_fn(|| learner.next_packet(link).unwrap()).collect();
        assert_eq!(heard.len(), 2);
        assert_eq!(heard[0].data.as_ref().map(Bytes::len), Some(longest));
    }
}
