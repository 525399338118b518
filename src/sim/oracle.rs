//! What must hold of everything that clients saw, whatever happened to the server.

use std::collections::{BTreeMap, BTreeSet};

use super::world::Failure;
use crate::model::{SessionId, Zxid};
use crate::tree::Tree;

/// The facts that clients were told.
#[derive(Debug, Default)]
pub(super) struct Oracle {
    /// Highest zxid in any reply or event.
    pub(super) seen: Zxid,
    /// A write failed for want of space: growth may be refused.
    pub(super) disk_was_full: bool,
    /// Successful writes by zxid: which session.
    writes: BTreeMap<Zxid, SessionId>,
    /// Last acknowledged fact about each path.
    paths: BTreeMap<String, Fact>,
    /// Paths whose deletion was asked for and not answered.
    maybe_deleted: BTreeSet<String>,
    /// Names given out by sequential creates.
    sequential: BTreeSet<String>,
}

/// What is known of a path.
#[derive(Clone, Debug)]
enum Fact {
    /// It had this data at this zxid.
    Set(Zxid, Vec<u8>),
    /// It was deleted at this zxid.
    Deleted(Zxid),
}

impl Oracle {
    /// A reply or event showed this zxid.
    pub(super) fn saw(&mut self, zxid: Zxid) {
        self.seen = self.seen.max(zxid);
    }

    /// A write was acknowledged.
    pub(super) fn wrote(&mut self, zxid: Zxid, session: SessionId) -> Result<(), Failure> {
        self.saw(zxid);
        match self.writes.insert(zxid, session) {
            None => Ok(()),
            Some(other) => {
                Err(Failure::new(format!("{zxid} acknowledged to {session} and before to {other}")))
            }
        }
    }

    /// A path was acknowledged to hold `data`.
    pub(super) fn set(&mut self, path: &str, zxid: Zxid, data: &[u8]) {
        self.learn(path, zxid, Fact::Set(zxid, data.to_vec()));
    }

    /// A path was acknowledged to be gone.
    pub(super) fn deleted(&mut self, path: &str, zxid: Zxid) {
        self.learn(path, zxid, Fact::Deleted(zxid));
    }

    fn learn(&mut self, path: &str, zxid: Zxid, fact: Fact) {
        let known = match self.paths.get(path) {
            Some(Fact::Set(known, _) | Fact::Deleted(known)) => *known,
            None => Zxid::ZERO,
        };
        if known < zxid {
            self.maybe_deleted.remove(path);
            self.paths.insert(path.to_owned(), fact);
        }
    }

    /// The answer to a deletion was lost with its connection.
    pub(super) fn maybe_deleted(&mut self, path: &str) {
        self.maybe_deleted.insert(path.to_owned());
    }

    /// A sequential create was acknowledged.
    pub(super) fn named(&mut self, path: &str) -> Result<(), Failure> {
        if self.sequential.insert(path.to_owned()) {
            return Ok(());
        }
        Err(Failure::new(format!("the sequential name {path} was given out twice")))
    }

    /// Checks a server's state, after a restart and at the end.
    pub(super) fn check(&self, tree: &Tree, sessions: &BTreeSet<SessionId>) -> Result<(), Failure> {
        if tree.last_zxid() < self.seen {
            return Err(Failure::new(format!(
                "a client saw {}, the server has only {}",
                self.seen,
                tree.last_zxid()
            )));
        }
        for (path, fact) in &self.paths {
            let znode = tree.get(path);
            let holds = match (fact, znode) {
                (Fact::Set(zxid, data), Some(znode)) => {
                    let stat = znode.persisted();
                    *zxid < stat.mzxid
                        || (*zxid == stat.mzxid && znode.data() == Some(data.as_slice()))
                }
                // Its session may have ended since; that is checked by the owner.
                (Fact::Set(..), None) => {
                    path.starts_with("/e") || self.maybe_deleted.contains(path)
                }
                (Fact::Deleted(zxid), Some(znode)) => *zxid < znode.persisted().czxid,
                (Fact::Deleted(_), None) => true,
            };
            if !holds {
                let found = znode.map(|znode| (znode.persisted().mzxid, znode.data()));
                return Err(Failure::new(format!(
                    "{path} was acknowledged as {fact:?}, found {found:?}"
                )));
            }
        }
        for owner in tree.ephemeral_sessions() {
            if !sessions.contains(&owner) {
                return Err(Failure::new(format!("ephemerals of the ended session {owner}")));
            }
        }
        Ok(())
    }
}
