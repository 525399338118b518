//! The network between the servers of one ensemble: connections that keep their bytes in order,
//! dials, and directions that are cut.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use bytes::Bytes;

use crate::base::Instant;
use crate::server::{PeerLink, PeerPort};

/// One end of a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct End {
    pub(super) member: usize,
    pub(super) link: PeerLink,
}

/// What is on its way to one end.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Parcel {
    Bytes(Bytes),
    Close,
}

/// All connections between the members.
#[derive(Debug, Default)]
pub(super) struct Network {
    /// The other end of each.
    pairs: BTreeMap<End, End>,
    /// The ends of connections between election ports.
    elections: BTreeSet<End>,
    /// The ends of connections that have damaged something.
    damaged: BTreeSet<End>,
    /// On the way to each end, in order.
    parcels: BTreeMap<End, VecDeque<Parcel>>,
    next_link: u64,
    /// Directions in which nothing passes.
    cut: BTreeSet<(usize, usize)>,
    /// Until when nothing that is sent to a member arrives.
    clogged: BTreeMap<usize, Instant>,
}

impl Network {
    /// A connection between two members.
    pub(super) fn connect(&mut self, from: usize, to: usize, port: PeerPort) -> (End, End) {
        let mut end = |member| {
            self.next_link += 1;
            End { member, link: PeerLink(self.next_link) }
        };
        let (near, far) = (end(from), end(to));
        self.pairs.insert(near, far);
        self.pairs.insert(far, near);
        if port == PeerPort::Election {
            self.elections.extend([near, far]);
        }
        (near, far)
    }

    /// Whether votes pass there.
    pub(super) fn is_of_election(&self, end: End) -> bool {
        self.elections.contains(&end)
    }

    /// The name of a connection whose other end is none of the members.
    pub(super) const fn stranger(&mut self) -> PeerLink {
        self.next_link += 1;
        PeerLink(self.next_link)
    }

    /// The first time that something is damaged on a connection.
    pub(super) fn damage(&mut self, end: End) -> bool {
        let ends = [Some(end), self.other(end)];
        ends.into_iter().flatten().all(|end| self.damaged.insert(end))
    }

    /// The other end.
    pub(super) fn other(&self, end: End) -> Option<End> {
        self.pairs.get(&end).copied()
    }

    /// Sends something to the other end, which is told when it arrives.
    pub(super) fn post(&mut self, from: End, parcel: Parcel) -> Option<End> {
        let to = self.other(from)?;
        self.parcels.entry(to).or_default().push_back(parcel);
        Some(to)
    }

    /// Takes what arrives next at an end, unless the way is cut: `Err` if it is.
    pub(super) fn arrive(&mut self, to: End) -> Result<Option<Parcel>, ()> {
        let Some(from) = self.other(to) else { return Ok(None) };
        if self.is_cut(from.member, to.member) {
            return Err(());
        }
        Ok(self.parcels.get_mut(&to).and_then(VecDeque::pop_front))
    }

    /// One end is closed: what it would have received is lost. The other end hears of it when it
    /// arrives there.
    pub(super) fn close(&mut self, end: End) -> Option<End> {
        self.parcels.remove(&end);
        self.post(end, Parcel::Close)
    }

    /// Both ends are gone.
    pub(super) fn forget(&mut self, end: End) {
        if let Some(other) = self.pairs.remove(&end) {
            self.pairs.remove(&other);
            self.parcels.remove(&other);
        }
        self.parcels.remove(&end);
    }

    /// Every end of a member.
    pub(super) fn ends_of(&self, member: usize) -> Vec<End> {
        self.pairs.keys().filter(|end| end.member == member).copied().collect()
    }

    pub(super) fn is_cut(&self, from: usize, to: usize) -> bool {
        self.cut.contains(&(from, to))
    }

    pub(super) fn cut(&mut self, from: usize, to: usize) {
        self.cut.insert((from, to));
    }

    /// What is sent to a member from here on arrives no earlier.
    pub(super) fn clog(&mut self, member: usize, until: Instant) {
        self.clogged.insert(member, until);
    }

    pub(super) fn clogged_until(&self, member: usize) -> Instant {
        self.clogged.get(&member).copied().unwrap_or_default()
    }

    pub(super) fn heal(&mut self) {
        self.cut.clear();
        self.clogged.clear();
    }
}
