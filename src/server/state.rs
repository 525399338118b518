//! [`State`]: what a server's files stand for, tree and sessions, as a snapshot is read and the
//! log's records are applied behind it. Recovery and offline tools build it the same way.

use std::collections::BTreeMap;

use bytes::Bytes;

use super::fuzzy::{Fuzzy, Unequal};
use crate::model::{SessionId, Txn, TxnBody, Zxid};
use crate::snapshot::{SnapshotDamage, SnapshotDecoder, SnapshotItem, SnapshotSummary};
use crate::tree::{RestoreError, Tree, TreeOptions};
use crate::wire;

/// Tree and sessions right behind one txn.
#[derive(Debug)]
pub struct State {
    /// The tree; its last zxid is the state's.
    pub tree: Tree,
    /// Live sessions with their timeouts in ms.
    pub sessions: BTreeMap<SessionId, i32>,
    /// The snapshot it began with, once that was read to its end.
    pub snapshot: Option<Zxid>,
    /// Txns applied behind the snapshot.
    pub replayed: u64,
    /// How far the tree may be ahead of its zxid.
    pub fuzzy: Fuzzy,
}

/// Why a snapshot cannot be used.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SnapshotUnfit {
    /// The file is not whole.
    #[error(transparent)]
    Damage(#[from] SnapshotDamage),
    /// Its znodes are no tree.
    #[error(transparent)]
    Restore(#[from] RestoreError),
    /// Its name says something else.
    #[error("it says zxid {0}")]
    OtherZxid(Zxid),
    /// Its end block says something else.
    #[error("its digest is {expected:x}, its znodes have {found:x}")]
    Digest {
        /// What the end block says.
        expected: u64,
        /// What the tree shows.
        found: u64,
    },
}

/// Why a record of the log is not what can follow the state.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ReplayError {
    /// A record whose checksum is right does not decode.
    #[error("txn {zxid} of the log does not decode ({error}): was it written by a newer version?")]
    Txn {
        /// The record's zxid.
        zxid: Zxid,
        /// Why.
        error: wire::jute::DecodeError,
    },
    /// The record does not follow the one before.
    #[error("txn {found} of the log follows {last}: txns are missing between them")]
    Gap {
        /// The last one applied.
        last: Zxid,
        /// The next one found.
        found: Zxid,
    },
    /// The tree's digest is not the one that the txn carries.
    #[error(
        "after txn {zxid} the tree's digest is {found:x}, the log says {expected:x}: snapshot and \
         log do not belong together, or one is damaged; restore both from a backup"
    )]
    Digest {
        /// Which txn.
        zxid: Zxid,
        /// What the txn carries.
        expected: u64,
        /// What the tree shows.
        found: u64,
    },
}

impl State {
    /// Before every txn.
    #[must_use]
    pub fn new(options: TreeOptions) -> Self {
        let tree = Tree::new(options);
        Self { tree, sessions: BTreeMap::new(), snapshot: None, replayed: 0, fuzzy: Fuzzy::Over }
    }

    /// Nothing yet, to be filled with [`State::take_snapshot_piece`].
    #[must_use]
    pub fn for_restore(options: TreeOptions) -> Self {
        let tree = Tree::for_restore(options);
        Self { tree, sessions: BTreeMap::new(), snapshot: None, replayed: 0, fuzzy: Fuzzy::Over }
    }

    /// Takes the next bytes of a snapshot's file. `last` is the zxid in the file's name when these
    /// are its last bytes; only then is the state fit for use.
    ///
    /// # Errors
    /// [`SnapshotUnfit`]; the state is then of no use.
    pub fn take_snapshot_piece(
        &mut self,
        decoder: &mut SnapshotDecoder,
        bytes: &Bytes,
        last: Option<Zxid>,
    ) -> Result<(), SnapshotUnfit> {
        decoder.push(bytes);
        while let Some(item) = decoder.next_item()? {
            self.take_snapshot_item(item)?;
        }
        match last {
            Some(zxid) => self.finish_snapshot(zxid, &decoder.finish()?),
            None => Ok(()),
        }
    }

    /// Takes the next item of a snapshot.
    ///
    /// # Errors
    /// A znode that makes no tree; the state is then of no use.
    pub fn take_snapshot_item(&mut self, item: SnapshotItem) -> Result<(), SnapshotUnfit> {
        match item {
            SnapshotItem::Session { id, timeout_ms } => {
                self.sessions.insert(id, timeout_ms);
            }
            SnapshotItem::Znode { path, data, acl, stat } => {
                self.tree.restore_znode(&path, data.as_deref(), &acl, stat)?;
            }
        }
        Ok(())
    }

    /// All items of the snapshot whose name says `zxid` were taken.
    ///
    /// # Errors
    /// [`SnapshotUnfit`]; the state is then of no use.
    pub fn finish_snapshot(
        &mut self,
        zxid: Zxid,
        summary: &SnapshotSummary,
    ) -> Result<(), SnapshotUnfit> {
        if summary.zxid != zxid {
            return Err(SnapshotUnfit::OtherZxid(summary.zxid));
        }
        self.tree.finish_restore(zxid)?;
        let (expected, found) = (summary.digest, self.tree.digest());
        if expected != 0 && found != 0 && expected != found {
            return Err(SnapshotUnfit::Digest { expected, found });
        }
        self.snapshot = Some(zxid);
        if let Some(until) = summary.fuzzy_until {
            self.fuzzy = Fuzzy::Until(until, None);
            self.fuzzy.reach(&mut self.tree);
        }
        Ok(())
    }

    /// Applies the next record of the log and compares digests.
    ///
    /// # Errors
    /// [`ReplayError`]. A record whose digest differs is applied; any other is not.
    pub fn replay(&mut self, zxid: Zxid, bytes: &Bytes) -> Result<(), ReplayError> {
        let txn = wire::txn::decode(bytes).map_err(|error| ReplayError::Txn { zxid, error })?;
        let last = self.tree.last_zxid();
        if txn.header.zxid != zxid || !zxid.follows(last) {
            return Err(ReplayError::Gap { last, found: zxid });
        }
        self.apply(&txn);
        match self.fuzzy.applied(&mut self.tree, txn.digest) {
            Ok(_) => Ok(()),
            Err(Unequal { zxid, expected, found }) => {
                Err(ReplayError::Digest { zxid, expected, found })
            }
        }
    }

    /// Applies a txn unchecked, whatever is missing before it. For inspection.
    pub fn apply(&mut self, txn: &Txn) {
        self.fuzzy.prepare(&mut self.tree, &txn.body);
        self.tree.apply(&txn.header, &txn.body);
        match txn.body {
            TxnBody::CreateSession { timeout_ms } => {
                self.sessions.insert(txn.header.session, timeout_ms);
            }
            TxnBody::CloseSession { .. } => {
                self.sessions.remove(&txn.header.session);
            }
            _ => {}
        }
        self.replayed += 1;
    }
}

#[cfg(test)]
mod tests {
    use bytes::BytesMut;

    use super::*;
    use crate::model::CreateTxnKind;
    use crate::server::random_history::{Model, OPTIONS};

    /// Where a replay of three txns ends, if their bytes are changed before.
    fn replayed(change: impl Fn(&mut Vec<(Zxid, Bytes)>)) -> (u64, Result<(), ReplayError>) {
        let mut model = Model::new(1);
        for path in ["/a", "/b", "/c"] {
            let create = model.create(path, CreateTxnKind::Create { ephemeral: false });
            model.commit(7, create);
        }
        let mut txns = model.txns.clone();
        change(&mut txns);
        let mut state = State::new(OPTIONS);
        let result = txns.iter().try_for_each(|(zxid, txn)| state.replay(*zxid, txn));
        (state.replayed, result)
    }

    #[test]
    fn a_replay_ends_where_a_digest_differs() {
        assert_eq!(replayed(|_| {}), (3, Ok(())));
        for at in 0..3 {
            let (replayed, result) = replayed(|txns| {
                let mut txn = BytesMut::from(&txns[at].1[..]);
                *txn.last_mut().unwrap() ^= 1;
                txns[at].1 = txn.freeze();
            });
            assert_eq!(replayed, at as u64 + 1);
            assert!(matches!(result, Err(ReplayError::Digest { .. })), "{result:?}");
        }
    }

    #[test]
    fn a_replay_ends_where_txns_are_missing() {
        let (replayed, result) = replayed(|txns| drop(txns.remove(1)));
        assert_eq!(replayed, 1);
        assert!(matches!(result, Err(ReplayError::Gap { .. })), "{result:?}");
    }
}
