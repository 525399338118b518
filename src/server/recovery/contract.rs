//! What recovery asks of its driver, what it is answered, and what it makes of the disk.

use bytes::Bytes;

use super::super::epochs::Epochs;
use super::super::fuzzy::{Fuzzy, Unequal};
use super::super::recent::RecentTxns;
use super::super::state::ReplayError;
use super::Refusal;
use crate::base::{FileDir, FileFailure, FileName, FileOp};
use crate::model::{SessionId, Zxid};
use crate::snapshot::{SnapshotDamage, SnapshotDecoder, SnapshotItem, SnapshotSummary};
use crate::tree::Tree;
use crate::txnlog::LogEnd;

/// What the driver is to do next.
#[derive(Debug)]
pub enum Step {
    /// List the directory: name and length of every file.
    List(FileDir),
    /// Read `[offset, offset + len)` of the file; fewer bytes only at its end.
    Read {
        /// The file.
        file: FileName,
        /// From where, bytes.
        offset: u64,
        /// How many bytes.
        len: u64,
    },
    /// Run the operation and wait for its end.
    Run(FileOp),
    /// Tell the operator, then answer `Next`.
    Note(String),
    /// The state.
    Done(Box<Recovered>),
    /// The server must not start.
    Refuse(Refusal),
}

/// What the driver did.
#[derive(Debug)]
pub enum Answer {
    /// The first call.
    Start,
    /// To `List`.
    Listing(Vec<(String, u64)>),
    /// To `Read`.
    Bytes(Bytes),
    /// To `Read` of a snapshot, instead of the bytes: the next items, decoded elsewhere in the
    /// order of the file. Their bytes need not be those that were asked for.
    Decoded(Result<Decoded, SnapshotDamage>),
    /// To `Read`: the disk does not give back what was written there.
    Unread(FileFailure),
    /// To `Run`.
    Ran(Result<(), FileFailure>),
    /// To `Note`.
    Next,
}

/// Items of a snapshot in the order of its file.
#[derive(Debug)]
pub struct Decoded {
    /// About how many znodes the whole snapshot has, if the driver looked; 0 if not.
    pub expected_znodes: u64,
    /// Those that the bytes held.
    pub items: Vec<SnapshotItem>,
    /// How many bytes of the file they were made from.
    pub bytes: u64,
    /// Set behind the last.
    pub summary: Option<SnapshotSummary>,
}

impl Decoded {
    /// Decodes the next bytes of the file; none at its end.
    ///
    /// # Errors
    /// The snapshot is damaged.
    pub fn take(decoder: &mut SnapshotDecoder, bytes: &Bytes) -> Result<Self, SnapshotDamage> {
        if bytes.is_empty() {
            let summary = Some(decoder.finish()?);
            return Ok(Self { expected_znodes: 0, items: Vec::new(), bytes: 0, summary });
        }
        decoder.push(bytes);
        let mut items = Vec::new();
        while let Some(item) = decoder.next_item()? {
            items.push(item);
        }
        Ok(Self { expected_znodes: 0, items, bytes: bytes.len() as u64, summary: None })
    }
}

/// The state on disk.
#[derive(Debug)]
pub struct Recovered {
    /// The tree right behind `last_zxid`.
    pub tree: Tree,
    /// Live sessions with their timeouts in ms.
    pub sessions: Vec<(SessionId, i32)>,
    /// The last txn of the log.
    pub last_zxid: Zxid,
    /// Where the log goes on.
    pub log_end: LogEnd,
    /// Snapshots that were read and found whole, oldest first.
    pub snapshots: Vec<Zxid>,
    /// Snapshots that were not read, or found damaged.
    pub unread_snapshots: Vec<Zxid>,
    /// What was promised to other servers.
    pub epochs: Epochs,
    /// Txns applied behind the snapshot.
    pub replayed_txn_count: u64,
    /// The last of them.
    pub recent: RecentTxns,
    /// The snapshot that took the place of everything, if one did.
    pub installed: Option<Zxid>,
    /// How far the tree may be ahead of `last_zxid`: only behind a snapshot that was received.
    /// Whoever applies txns to it heeds that.
    pub fuzzy: Fuzzy,
    /// Why the history is lost: nothing may be written and nothing said of it until a leader's
    /// snapshot has taken its place.
    pub lost: Option<Refusal>,
}

impl Recovered {
    /// Without an ensemble nothing more will come: whatever a leader's snapshot can show must have
    /// been applied. The tree is exact afterwards.
    ///
    /// # Errors
    /// It is known not to be.
    pub fn settle_alone(&mut self) -> Result<(), Refusal> {
        match self.fuzzy {
            Fuzzy::Until(until, _) => Err(Refusal::Inexact { zxid: self.last_zxid, until }),
            _ => self.fuzzy.passed(&mut self.tree).map_err(|Unequal { zxid, expected, found }| {
                Refusal::Replay(ReplayError::Digest { zxid, expected, found })
            }),
        }
    }
}
