//! Why an Apache data directory is not imported, and what to do.

use crate::apache::{LogDamage, SnapshotDamage};
use crate::base::FileFailure;
use crate::model::Zxid;
use crate::tree::RestoreError;
use crate::wire::jute::DecodeError;

use super::Check;

/// Why the server must not start.
#[derive(Debug, thiserror::Error)]
pub enum ImportRefusal {
    /// Reading, writing or renaming failed.
    #[error("{0}")]
    File(FileFailure),
    /// Our own history and Apache's are both there.
    #[error(
        "{apache} holds a history of Apache ZooKeeper although this server has one of its own in \
         {own}; which one is to live? Move {apache} away to go on here, or move {own} away to \
         import again"
    )]
    TwoHistories {
        /// Apache's directory.
        apache: String,
        /// Our own.
        own: String,
    },
    /// Apache's directory was sealed by an import whose result is gone.
    #[error(
        "{imported} was imported before, and what became of it is no longer in {own}; rename it \
         back to version-2 (the file of that name says how) to import it again, or move both \
         away to start with nothing"
    )]
    ResultGone {
        /// The sealed directory.
        imported: String,
        /// Our own.
        own: String,
    },
    /// The place that the sealed directory would get is taken.
    #[error("{imported} is there from an earlier import and would be replaced; move it away")]
    ImportedExists {
        /// The directory.
        imported: String,
    },
    /// The marker of an unfinished import without anything to import.
    #[error(
        "an import did not finish, and {apache} is no longer there; put it back, or remove {own} \
         to start with nothing"
    )]
    SourcesGone {
        /// Apache's directory.
        apache: String,
        /// Our own.
        own: String,
    },
    /// A snapshot in the log directory, or a log in the snapshot directory, while they are two.
    #[error(
        "{file} is in the wrong directory: dataDir holds snapshots, dataLogDir logs; were the two \
         settings changed? Move the files where they belong"
    )]
    Misplaced {
        /// The file.
        file: String,
    },
    /// Logs without any snapshot.
    #[error(
        "{apache} has txn logs but no snapshot, so what was before them is lost; restore a \
         snapshot from a backup, or let the ensemble synchronize this server with Apache first"
    )]
    LogsAlone {
        /// The log directory.
        apache: String,
    },
    /// No snapshot leads to a state that can be trusted.
    #[error("no snapshot can be used: {}; restore one from a backup", list(.unfit))]
    NoSnapshot {
        /// Which, newest first, and why.
        unfit: Vec<(String, Unfit)>,
    },
    /// A log file is damaged before its end.
    #[error(
        "{file}: {damage}; the last good txn before is {last}. If the machine lost power while \
         this was the newest record, `truncate -s {at} {file}` drops it; otherwise restore the \
         file from a backup", at = .damage.offset
    )]
    Log {
        /// The file.
        file: String,
        /// Where, what.
        damage: LogDamage,
        /// The last txn before it.
        last: Zxid,
    },
    /// Txns are missing.
    #[error(
        "{file}, offset {offset}: txn {found} follows {last}, so txns are missing between them; \
         restore the log file that holds {wanted}", wanted = .last.next()
    )]
    Gap {
        /// The file.
        file: String,
        /// Where the record starts, bytes.
        offset: u64,
        /// The last txn before.
        last: Zxid,
        /// The record's.
        found: Zxid,
    },
    /// A zxid comes a second time with another txn.
    #[error(
        "{file}, offset {offset}: txn {found} comes after {last} and is not what had that zxid; \
         two histories are mixed in this log, restore it from a backup"
    )]
    Repeated {
        /// The file.
        file: String,
        /// Where the record starts, bytes.
        offset: u64,
        /// The last txn before.
        last: Zxid,
        /// The record's.
        found: Zxid,
    },
    /// A record whose checksum is right does not decode.
    #[error("{file}, offset {offset}: txn {zxid} does not decode ({error})")]
    Txn {
        /// The file.
        file: String,
        /// Where the record starts, bytes.
        offset: u64,
        /// The record's.
        zxid: Zxid,
        /// Why.
        error: DecodeError,
    },
    /// An epoch file without a number in it.
    #[error("{file} holds no epoch; restore it from a backup, or from another server's directory")]
    EpochFile {
        /// The file.
        file: String,
    },
    /// The epoch files contradict the history or each other (`quorum-and-disk.md` 3.3).
    #[error(
        "acceptedEpoch {accepted}, currentEpoch {current} and the last txn {zxid} contradict each \
         other; the directory is a mixture, restore it from a backup"
    )]
    Epochs {
        /// What was promised.
        accepted: u32,
        /// The epoch of the history.
        current: u32,
        /// The last txn.
        zxid: Zxid,
    },
    /// TTL znodes, which this server would take for ephemerals of nobody and remove.
    #[error("znode {path} has a TTL; set extendedTypesEnabled=true as it was on Apache's server")]
    Ttl {
        /// One of them.
        path: String,
    },
    /// What was written is not what was read back.
    #[error(
        "what was imported ({expected:?}) is not what was read back ({found:?}); check the disk"
    )]
    ReadBack {
        /// Before.
        expected: Check,
        /// After.
        found: Check,
    },
}

/// Why a snapshot cannot be used.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Unfit {
    /// The file is not whole.
    #[error(transparent)]
    Damage(#[from] SnapshotDamage),
    /// Its znodes are no tree.
    #[error(transparent)]
    Restore(#[from] RestoreError),
    /// The log ends before the snapshot has become exact.
    #[error("it shows txns up to {until}, but the log ends with {last}")]
    Ahead {
        /// The last txn that it may show.
        until: Zxid,
        /// The last txn of the log.
        last: Zxid,
    },
    /// It and the log lead to another tree than Apache's server had.
    #[error(
        "after txn {zxid} the tree's digest is {found:x} and should be {expected:x} (if Apache's \
         digests were not to be trusted, digest.enabled=false imports without them)"
    )]
    Digest {
        /// Which txn.
        zxid: Zxid,
        /// What the file says.
        expected: u64,
        /// What the tree shows.
        found: u64,
    },
}

fn list(unfit: &[(String, Unfit)]) -> String {
    let each: Vec<String> = unfit.iter().map(|(name, why)| format!("{name}: {why}")).collect();
    each.join("; ")
}
