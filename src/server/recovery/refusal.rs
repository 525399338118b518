//! [`Refusal`]: why a server must not start on what is on disk.

use super::super::state::{ReplayError, SnapshotUnfit};
use crate::base::FileFailure;
use crate::model::Zxid;
use crate::txnlog::LogDamage;

/// Why the server must not start, and what to do.
#[derive(Clone, Debug, thiserror::Error)]
pub enum Refusal {
    /// Reading or writing failed.
    #[error("{0}")]
    File(FileFailure),
    /// The log cannot be read to its end.
    #[error("{0}")]
    Log(LogDamage),
    /// Every snapshot is damaged and the log does not reach back to the beginning.
    #[error(
        "no whole snapshot is left and the log does not begin at the first txn ({0}); restore a \
         snapshot and the log behind it from a backup, or start with an empty directory"
    )]
    NoSnapshot(LogDamage),
    /// A damaged snapshot shows that there was more than what can be read.
    #[error(
        "snapshot {snapshot} is damaged, and what older snapshots and the log make up ends at \
         {last}; restore the log behind it or a snapshot from a backup"
    )]
    Behind {
        /// The newest of the damaged ones.
        snapshot: Zxid,
        /// The last txn that can be read.
        last: Zxid,
    },
    /// The log cannot be cut there. Nothing was changed.
    #[error("the history cannot be cut behind {keep}: {why}")]
    Cut {
        /// The last txn that was to stay.
        keep: Zxid,
        /// What is missing.
        why: String,
    },
    /// The install record is damaged.
    #[error(
        "file {0} is damaged, so which of two histories counts is not known; restore it from a \
         backup, or empty the data directory but for the file `epochs` if other servers hold the \
         data"
    )]
    InstallRecord(&'static str),
    /// The received snapshot has its name, what was there before is gone at least in part, and it
    /// is damaged.
    #[error(
        "snapshot {zxid} of the leader was put in place and is damaged now: {unfit}; empty the \
         data directory but for the file `epochs`"
    )]
    Installed {
        /// Which.
        zxid: Zxid,
        /// What is wrong with it.
        unfit: SnapshotUnfit,
    },
    /// The server was alone before it had all that a leader's snapshot shows a part of.
    #[error(
        "the tree came from a leader's snapshot that shows txns up to {until}, and the log ends at \
         {zxid}: start the server as a member of its ensemble, which has the rest"
    )]
    Inexact {
        /// The last txn of the log.
        zxid: Zxid,
        /// The last one that the snapshot shows.
        until: Zxid,
    },
    /// Neither slot of the epochs record is whole.
    #[error(
        "file {0}: neither slot is whole, so what this server promised is not known; restore it \
         from a backup, or empty the data directory if other servers hold the data"
    )]
    Epochs(&'static str),
    /// A record of the log is not what can follow.
    #[error(transparent)]
    Replay(#[from] ReplayError),
    /// Nothing is there, and that is not what is expected.
    #[error(
        "the database is empty and db.autocreate=false: this server may have lost what it knew; if \
         the ensemble is new, put an empty file `initialize` into dataDir of each server"
    )]
    Empty,
}

impl Refusal {
    /// Only the history is lost, and what was promised is known: a leader's snapshot can take its
    /// place.
    #[must_use]
    pub const fn is_of_history(&self) -> bool {
        match self {
            Self::Log(_)
            | Self::NoSnapshot(_)
            | Self::Behind { .. }
            | Self::Installed { .. }
            | Self::Replay(_)
            | Self::Empty => true,
            Self::File(_)
            | Self::Cut { .. }
            | Self::InstallRecord(_)
            | Self::Inexact { .. }
            | Self::Epochs(_) => false,
        }
    }
}
