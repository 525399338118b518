//! Recovery: what is on disk becomes the state to go on from.
//!
//! A pull machine: the driver answers each [`Step`] with an [`Answer`] until `Done` or `Refuse`.
//! The newest whole snapshot is read, then every record of the log behind it is applied, each
//! checked to be the successor of the one before and to lead to the digest it carries.

use std::collections::VecDeque;

use bytes::Bytes;

use super::epochs::{self, Epochs};
use super::recent::RecentTxns;
use super::state::{ReplayError, SnapshotUnfit, State};
use crate::base::{FileDir, FileFailure, FileName, FileOp};
use crate::limits::BLOCK_BYTES;
use crate::model::{SessionId, Zxid};
use crate::snapshot::{SnapshotDamage, SnapshotDecoder, SnapshotItem, SnapshotSummary, catalog};
use crate::tree::{Tree, TreeOptions};
use crate::txnlog::{self, LogDamage, LogEnd, LogRecovery};

/// Bytes of a snapshot read at once.
const PIECE_BYTES: u64 = 1 << 20;

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
}

/// Why the server must not start, and what to do.
#[derive(Debug, thiserror::Error)]
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
    /// Neither slot of the epochs record is whole.
    #[error(
        "file {0}: neither slot is whole, so what this server promised is not known; restore it \
         from a backup, or empty the data directory if other servers hold the data"
    )]
    Epochs(&'static str),
    /// A record of the log is not what can follow.
    #[error(transparent)]
    Replay(#[from] ReplayError),
}

/// The machine. Drive it from [`Answer::Start`] to [`Step::Done`] or [`Step::Refuse`].
#[derive(Debug)]
pub struct Recovery {
    options: TreeOptions,
    /// Entropy for the nonces of rewritten segments.
    seed: u64,
    phase: Phase,
    /// Names in the data directory that are not needed: unfinished files.
    leftovers: VecDeque<String>,
    /// Snapshots not tried, oldest first.
    candidates: Vec<(Zxid, u64)>,
    damaged: Vec<(Zxid, String)>,
    epochs: Epochs,
    has_epochs: bool,
    state: State,
    recent: RecentTxns,
    recent_bytes_max: u64,
    keep: Option<Zxid>,
}

#[derive(Debug)]
enum Phase {
    Listing,
    ReadingEpochs,
    /// Operations that make the epochs record.
    MakingEpochs(VecDeque<FileOp>),
    RemovingLeftovers,
    Snapshot {
        zxid: Zxid,
        offset: u64,
        len: u64,
        decoder: Box<SnapshotDecoder>,
    },
    Log(Box<LogRecovery>),
    Over,
}

impl Recovery {
    /// At the beginning. `seed` is entropy, for the nonces of log segments that are rewritten.
    #[must_use]
    pub fn new(options: TreeOptions, seed: u64) -> Self {
        Self {
            options,
            seed,
            phase: Phase::Listing,
            leftovers: VecDeque::new(),
            candidates: Vec::new(),
            damaged: Vec::new(),
            epochs: Epochs::default(),
            has_epochs: false,
            state: State::new(options),
            recent: RecentTxns::new(Zxid::ZERO, 0),
            recent_bytes_max: 0,
            keep: None,
        }
    }

    /// Keeps the last txns of the log, up to so many bytes, for the learners of an ensemble.
    #[must_use]
    pub const fn keeping_recent(mut self, bytes_max: u64) -> Self {
        self.recent_bytes_max = bytes_max;
        self
    }

    /// Cuts the log: no txn behind `keep` stays (Zab's TRUNC).
    #[must_use]
    pub const fn keep_until(mut self, keep: Zxid) -> Self {
        self.keep = Some(keep);
        self
    }

    /// Takes the driver's answer to the last step and gives the next.
    pub fn step(&mut self, answer: Answer) -> Step {
        if let Answer::Ran(Err(failure)) = answer {
            self.phase = Phase::Over;
            return Step::Refuse(Refusal::File(failure));
        }
        match (&mut self.phase, answer) {
            (Phase::Listing, Answer::Start) => Step::List(FileDir::Data),
            (Phase::Listing, Answer::Listing(files)) => self.on_listing(files),
            (Phase::ReadingEpochs, Answer::Bytes(bytes)) => match Epochs::decode(&bytes) {
                Ok(epochs) => {
                    self.epochs = epochs;
                    self.remove_leftovers()
                }
                Err(_) => self.refuse(Refusal::Epochs(epochs::FILE_NAME)),
            },
            (Phase::MakingEpochs(ops), Answer::Ran(Ok(()))) => match ops.pop_front() {
                Some(op) => Step::Run(op),
                None => self.remove_leftovers(),
            },
            (Phase::RemovingLeftovers, Answer::Ran(Ok(()))) => self.remove_leftovers(),
            (Phase::Snapshot { .. }, Answer::Bytes(bytes)) => self.on_snapshot_bytes(&bytes),
            (Phase::Snapshot { zxid, offset, .. }, Answer::Decoded(decoded)) => {
                let zxid = *zxid;
                *offset += decoded.as_ref().map_or(0, |decoded| decoded.bytes);
                self.on_decoded(zxid, decoded)
            }
            (Phase::Snapshot { .. }, Answer::Next) => self.next_snapshot(),
            (Phase::Log(_), answer) => self.log_step(answer),
            (phase, answer) => unreachable!("the driver answered {answer:?} in {phase:?}"),
        }
    }

    fn refuse(&mut self, refusal: Refusal) -> Step {
        self.phase = Phase::Over;
        Step::Refuse(refusal)
    }

    fn on_listing(&mut self, files: Vec<(String, u64)>) -> Step {
        for (name, len) in files {
            if name.ends_with(catalog::UNFINISHED_SUFFIX)
                && (name.starts_with("snapshot.") || name.starts_with(epochs::FILE_NAME))
            {
                self.leftovers.push_back(name);
            } else if name == epochs::FILE_NAME {
                self.has_epochs = true;
            } else if let Some(zxid) = catalog::zxid_of(&name) {
                self.candidates.push((zxid, len));
            }
        }
        self.candidates.sort_unstable();
        if self.has_epochs {
            self.phase = Phase::ReadingEpochs;
            let file = FileName::data(epochs::FILE_NAME.to_owned());
            return Step::Read { file, offset: 0, len: epochs::FILE_BYTES };
        }
        let mut ops = make_epochs(self.epochs);
        let first = ops.pop_front();
        self.phase = Phase::MakingEpochs(ops);
        first.map_or_else(|| self.remove_leftovers(), Step::Run)
    }

    fn remove_leftovers(&mut self) -> Step {
        self.phase = Phase::RemovingLeftovers;
        match self.leftovers.pop_front() {
            Some(name) => Step::Run(FileOp::Remove { file: FileName::data(name) }),
            None => self.next_snapshot(),
        }
    }

    fn next_snapshot(&mut self) -> Step {
        let Some((zxid, len)) = self.candidates.pop() else {
            return self.begin_log();
        };
        let decoder = Box::new(SnapshotDecoder::new());
        self.state = State::for_restore(self.options);
        self.phase = Phase::Snapshot { zxid, offset: 0, len, decoder };
        self.read_snapshot()
    }

    fn read_snapshot(&mut self) -> Step {
        let Phase::Snapshot { zxid, offset, len, .. } = &self.phase else {
            unreachable!("a snapshot is being read")
        };
        let file = FileName::data(catalog::file_name(*zxid));
        let piece = PIECE_BYTES.min(len.saturating_sub(*offset));
        Step::Read { file, offset: *offset, len: piece }
    }

    fn on_snapshot_bytes(&mut self, bytes: &Bytes) -> Step {
        let Phase::Snapshot { zxid, offset, len, decoder } = &mut self.phase else {
            unreachable!("a snapshot is being read")
        };
        let zxid = *zxid;
        *offset += bytes.len() as u64;
        let is_last = *len <= *offset || bytes.is_empty();
        let taken = self.state.take_snapshot_piece(decoder, bytes, is_last.then_some(zxid));
        match taken {
            Ok(()) if is_last => self.begin_log(),
            Ok(()) => self.read_snapshot(),
            Err(unfit) => self.give_up(zxid, &unfit),
        }
    }

    fn on_decoded(&mut self, zxid: Zxid, decoded: Result<Decoded, SnapshotDamage>) -> Step {
        let taken = decoded.map_err(SnapshotUnfit::from).and_then(|decoded| {
            self.state.tree.make_room(decoded.expected_znodes);
            for item in decoded.items {
                self.state.take_snapshot_item(item)?;
            }
            let Some(summary) = decoded.summary else { return Ok(false) };
            self.state.finish_snapshot(zxid, &summary).map(|()| true)
        });
        match taken {
            Ok(true) => self.begin_log(),
            Ok(false) => self.read_snapshot(),
            Err(unfit) => self.give_up(zxid, &unfit),
        }
    }

    fn give_up(&mut self, zxid: Zxid, unfit: &SnapshotUnfit) -> Step {
        let name = catalog::file_name(zxid);
        self.damaged.push((zxid, unfit.to_string()));
        self.state = State::new(self.options);
        Step::Note(format!("{name} is not used: {unfit}; the one before is tried"))
    }

    fn begin_log(&mut self) -> Step {
        let after = self.state.snapshot.unwrap_or(Zxid::ZERO);
        self.recent = RecentTxns::new(after, self.recent_bytes_max);
        let log = LogRecovery::new(after, self.seed);
        let mut log = Box::new(match self.keep {
            Some(keep) => log.keep_until(keep),
            None => log,
        });
        let step = log.step(txnlog::Answer::Next);
        self.phase = Phase::Log(log);
        self.pass_on(step)
    }

    fn log_step(&mut self, answer: Answer) -> Step {
        let answer = match answer {
            Answer::Start | Answer::Next => txnlog::Answer::Next,
            Answer::Listing(files) => txnlog::Answer::Listing(files),
            Answer::Bytes(bytes) => txnlog::Answer::Bytes(bytes),
            Answer::Ran(Ok(())) => txnlog::Answer::Done,
            Answer::Ran(Err(failure)) => txnlog::Answer::Failed(failure),
            Answer::Decoded(_) => unreachable!("the log is read as bytes"),
        };
        let Phase::Log(log) = &mut self.phase else { unreachable!("the log is being read") };
        let step = log.step(answer);
        self.pass_on(step)
    }

    /// Applies the records that need no driver, and passes on what does.
    fn pass_on(&mut self, mut step: txnlog::Step) -> Step {
        loop {
            match step {
                txnlog::Step::List => return Step::List(FileDir::Log),
                txnlog::Step::Read { file, offset, len } => {
                    return Step::Read { file, offset, len };
                }
                txnlog::Step::Run(op) => return Step::Run(op),
                txnlog::Step::Record { zxid, txn } => {
                    if let Err(error) = self.state.replay(zxid, &txn) {
                        return self.refuse(error.into());
                    }
                    self.recent.push_copy(zxid, &txn);
                    let Phase::Log(log) = &mut self.phase else {
                        unreachable!("the log is being read")
                    };
                    step = log.step(txnlog::Answer::Next);
                }
                txnlog::Step::Done(end) => return self.done(end),
                txnlog::Step::Refuse(damage) => {
                    let no_snapshot = self.state.snapshot.is_none() && !self.damaged.is_empty();
                    return self.refuse(match no_snapshot {
                        true => Refusal::NoSnapshot(damage),
                        false => Refusal::Log(damage),
                    });
                }
            }
        }
    }

    fn done(&mut self, log_end: LogEnd) -> Step {
        self.phase = Phase::Over;
        let state = std::mem::replace(&mut self.state, State::new(self.options));
        Step::Done(Box::new(Recovered {
            last_zxid: state.tree.last_zxid(),
            tree: state.tree,
            sessions: state.sessions.into_iter().collect(),
            log_end,
            snapshots: state.snapshot.into_iter().collect(),
            unread_snapshots: self
                .candidates
                .iter()
                .map(|(zxid, _)| *zxid)
                .chain(self.damaged.iter().map(|(zxid, _)| *zxid))
                .collect(),
            epochs: self.epochs,
            replayed_txn_count: state.replayed,
            recent: std::mem::replace(&mut self.recent, RecentTxns::new(Zxid::ZERO, 0)),
        }))
    }
}

/// Operations that make the epochs record.
pub(super) fn make_epochs(epochs: Epochs) -> VecDeque<FileOp> {
    let name = epochs::FILE_NAME.to_owned();
    let file = FileName::data(format!("{name}{}", catalog::UNFINISHED_SUFFIX));
    let slot = epochs.encode();
    let write = |index: u64| FileOp::Write {
        file: file.clone(),
        offset: index * BLOCK_BYTES as u64,
        bytes: slot.clone(),
        durable: false,
    };
    VecDeque::from([
        FileOp::Create { file: file.clone() },
        write(0),
        write(1),
        FileOp::Flush { file: file.clone() },
        FileOp::Rename { from: file.clone(), to: name },
        FileOp::SyncDir { dir: FileDir::Data },
    ])
}
