//! The last txns of the log, kept in memory for learners that lack only those.

use std::collections::VecDeque;

use bytes::{Bytes, BytesMut};

use crate::model::Zxid;
use crate::zab::synchronization::History;

/// Txns in the order of the log, without a gap, as many as the bound in bytes allows.
#[derive(Clone, Debug)]
pub struct RecentTxns {
    /// The last zxid before the first one.
    start: Zxid,
    txns: VecDeque<(Zxid, Bytes)>,
    bytes: u64,
    bytes_max: u64,
    /// What copies are made in: many small ones share one allocation.
    room: BytesMut,
}

/// Bytes that are allocated at once for copies.
const ROOM_BYTES: usize = 64 << 10;

/// Those of them up to one zxid, as a leader looks a learner's log up in them.
#[derive(Clone, Copy, Debug)]
pub struct CommittedTxns<'a> {
    recent: &'a RecentTxns,
    upto: Zxid,
}

impl RecentTxns {
    /// None yet, behind `start`. With a bound of 0 none is ever kept.
    #[must_use]
    pub fn new(start: Zxid, bytes_max: u64) -> Self {
        let room = BytesMut::new();
        Self { start, txns: VecDeque::new(), bytes: 0, bytes_max, room }
    }

    fn push(&mut self, zxid: Zxid, txn: Bytes) {
        self.bytes += txn.len() as u64;
        self.txns.push_back((zxid, txn));
        while self.bytes_max < self.bytes
            && let Some((gone, txn)) = self.txns.pop_front()
        {
            self.bytes -= txn.len() as u64;
            self.start = gone;
        }
    }

    /// Copies the next txn of the log; the oldest ones go if there are too many bytes.
    pub fn push_copy(&mut self, zxid: Zxid, txn: &[u8]) -> Bytes {
        if self.room.capacity() < txn.len() {
            self.room = BytesMut::with_capacity(ROOM_BYTES.max(txn.len()));
        }
        self.room.extend_from_slice(txn);
        let copy = self.room.split().freeze();
        match self.bytes_max {
            0 => self.start = zxid,
            _ => self.push(zxid, copy.clone()),
        }
        copy
    }

    /// Those up to `upto`. None are, if that is before the start: what is not committed can be more
    /// than is kept.
    #[must_use]
    pub const fn committed(&self, upto: Zxid) -> CommittedTxns<'_> {
        CommittedTxns { recent: self, upto }
    }

    /// The txns in (`after`, `upto`]; `None` if some of them are no longer there.
    pub fn between(
        &self,
        after: Zxid,
        upto: Zxid,
    ) -> Option<impl Iterator<Item = &(Zxid, Bytes)> + '_> {
        if after < self.start {
            return None;
        }
        let from = self.txns.partition_point(|(zxid, _)| *zxid <= after);
        Some(self.txns.range(from..).take_while(move |(zxid, _)| *zxid <= upto))
    }
}

impl History for CommittedTxns<'_> {
    fn start(&self) -> Zxid {
        self.recent.start
    }

    fn last(&self) -> Zxid {
        self.upto
    }

    fn floor(&self, zxid: Zxid) -> Zxid {
        let behind = self.recent.txns.partition_point(|(txn, _)| *txn <= zxid.min(self.upto));
        let at = behind.checked_sub(1).and_then(|at| self.recent.txns.get(at));
        at.map_or(self.recent.start, |(txn, _)| *txn)
    }

    fn bytes_after(&self, zxid: Zxid) -> u64 {
        let between = self.recent.between(zxid, self.upto);
        between.map_or(u64::MAX, |txns| txns.map(|(_, txn)| txn.len() as u64).sum())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::zab::synchronization::{SyncPlan, SyncWay};

    fn recent(bytes_max: u64) -> RecentTxns {
        let mut recent = RecentTxns::new(Zxid(4), bytes_max);
        for zxid in 5..10 {
            recent.push_copy(Zxid(zxid), &[0; 10]);
        }
        recent
    }

    #[test]
    fn the_oldest_go_when_there_are_too_many() {
        let all = recent(1000);
        assert_eq!(all.between(Zxid(3), Zxid(9)).map(Iterator::count), None);
        assert_eq!(all.between(Zxid(4), Zxid(9)).map(Iterator::count), Some(5));
        assert_eq!(all.between(Zxid(6), Zxid(8)).map(Iterator::count), Some(2));
        let some = recent(30);
        assert_eq!(some.between(Zxid(5), Zxid(9)).map(Iterator::count), None);
        assert_eq!(some.between(Zxid(6), Zxid(9)).map(Iterator::count), Some(3));
        let none = recent(0);
        assert_eq!(none.between(Zxid(9), Zxid(9)).map(Iterator::count), Some(0));
        assert_eq!(none.between(Zxid(8), Zxid(9)).map(Iterator::count), None);
    }

    #[test]
    fn a_zxid_is_looked_up_among_what_is_committed() {
        let recent = recent(30);
        let history = recent.committed(Zxid(8));
        assert_eq!((history.start(), history.last()), (Zxid(6), Zxid(8)));
        assert_eq!(history.floor(Zxid(6)), Zxid(6));
        assert_eq!(history.floor(Zxid(7)), Zxid(7));
        assert_eq!(history.floor(Zxid(99)), Zxid(8));
        assert_eq!(history.bytes_after(Zxid(7)), 10);
        assert_eq!(history.bytes_after(Zxid(8)), 0);
    }

    #[test]
    fn nothing_is_known_where_more_is_uncommitted_than_is_kept() {
        let recent = recent(30);
        let snap = SyncPlan { way: SyncWay::Snap, after: Zxid(5) };
        for last in 4..10 {
            let history = recent.committed(Zxid(5));
            assert_eq!(SyncPlan::choose(&history, Zxid(last), 1), snap, "{last}");
        }
    }
}
