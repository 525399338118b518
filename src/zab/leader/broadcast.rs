//! The leader's ledger of proposals: what was proposed, who has it durably, what is committed.
//!
//! Always true: committed <= proposed, and every zxid in between is outstanding, in order, without
//! a gap. A zxid is committed when a quorum of every configuration in force has it durably; the
//! leader's own flush is one voice among others, so that commits wait for no single disk.

use std::collections::{BTreeMap, VecDeque};

use bytes::Bytes;

use crate::model::{EnsembleConfigs, ServerId, Zxid};

/// The ledger of one epoch.
#[derive(Debug)]
pub(super) struct Broadcast {
    committed: Zxid,
    proposed: Zxid,
    outstanding: VecDeque<Proposal>,
    /// Up to where each server's log is durable.
    durable: BTreeMap<ServerId, Zxid>,
}

/// A proposal that is not committed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Proposal {
    /// Its place in the order.
    pub(super) zxid: Zxid,
    /// Txn bytes: header, record, digest.
    pub(super) txn: Bytes,
}

impl Broadcast {
    /// The ledger of a leader whose whole history is committed and ends at `last`.
    #[must_use]
    pub(super) const fn new(last: Zxid) -> Self {
        Self {
            committed: last,
            proposed: last,
            outstanding: VecDeque::new(),
            durable: BTreeMap::new(),
        }
    }

    /// The last zxid that is committed.
    #[must_use]
    pub(super) const fn committed(&self) -> Zxid {
        self.committed
    }

    /// The last zxid that was proposed.
    #[must_use]
    pub(super) const fn proposed(&self) -> Zxid {
        self.proposed
    }

    /// What was proposed and is not committed, in order.
    pub(super) fn outstanding(&self) -> impl Iterator<Item = &Proposal> {
        self.outstanding.iter()
    }

    /// Takes a proposal in.
    ///
    /// # Panics
    /// If its zxid is not the next of the epoch, or the first of a later one.
    pub(super) fn propose(&mut self, zxid: Zxid, txn: Bytes) {
        let starts_epoch = self.proposed.epoch() < zxid.epoch() && zxid.counter() == 1;
        assert!(zxid == self.proposed.next() || starts_epoch, "proposals leave no gap");
        self.proposed = zxid;
        self.outstanding.push_back(Proposal { zxid, txn });
    }

    /// A server's log is durable up to `zxid`. Reports may be repeated and never take back.
    pub(super) fn durable(&mut self, sid: ServerId, zxid: Zxid) {
        let known = self.durable.entry(sid).or_insert(zxid);
        *known = zxid.max(*known);
    }

    /// Up to where a server's log is known to be durable.
    pub(super) fn durable_of(&self, sid: ServerId) -> Option<Zxid> {
        self.durable.get(&sid).copied()
    }

    /// What a server said on a connection that is gone counts no more for proposals that follow;
    /// what it has durably, it has.
    pub(super) fn forget(&mut self, sid: ServerId) {
        self.durable.remove(&sid);
    }

    /// Nothing that was said so far counts for proposals that follow.
    pub(super) fn forget_all(&mut self) {
        self.durable.clear();
    }

    /// How many txns a server is not known to have durably, one that has everything up to
    /// `history_to`.
    pub(super) fn lag(&self, sid: ServerId, history_to: Zxid) -> u64 {
        let durable = self.durable.get(&sid).map_or(history_to, |durable| history_to.max(*durable));
        let proposed = self.proposed.counter();
        match durable.epoch() == self.proposed.epoch() {
            true => u64::from(proposed.saturating_sub(durable.counter())),
            false => u64::from(proposed),
        }
    }

    /// The next proposal that has become committed; call until `None`.
    pub(super) fn commit_next(&mut self, configs: &EnsembleConfigs) -> Option<Proposal> {
        let zxid = self.outstanding.front()?.zxid;
        let has_it = |sid: ServerId| self.durable.get(&sid).is_some_and(|durable| zxid <= *durable);
        if !configs.is_quorum(has_it) {
            return None;
        }
        self.committed = zxid;
        self.outstanding.pop_front()
    }
}

#[cfg(test)]
impl super::Leader {
    /// As if everything up to `zxid` had been proposed and committed.
    pub(in crate::zab) fn skip_to(&mut self, zxid: Zxid) {
        self.broadcast = Broadcast::new(zxid);
    }
}
