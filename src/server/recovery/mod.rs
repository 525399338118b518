//! Recovery: what is on disk becomes the state to go on from.
//!
//! A pull machine: the driver answers each [`Step`] with an [`Answer`] until `Done` or `Refuse`.
//! The newest whole snapshot is read, then every record of the log behind it is applied, each
//! checked to be the successor of the one before and to lead to the digest it carries.
//!
//! A snapshot that was received from a leader ([`Install`]) takes the place of everything once it
//! has been read and found to make a tree. A cut ([`Recovery::keep_until`]) is made once everything
//! that stays has been read.
//!
//! A member of an ensemble whose history is damaged goes on without it
//! ([`Recovery::repaired_by_a_leader`]): nothing is touched until a leader's snapshot is there.

mod contract;
mod refusal;

pub use self::contract::{Answer, Decoded, Recovered, Step};
pub use self::refusal::Refusal;

use std::collections::VecDeque;

use super::epochs::{self, Epochs};
use super::install::{self, Install};
use super::recent::RecentTxns;
use super::state::{SnapshotUnfit, State};
use crate::base::{FileDir, FileName, FileOp};
use crate::limits::BLOCK_BYTES;
use crate::model::Zxid;
use crate::snapshot::{SnapshotDamage, SnapshotDecoder, catalog};
use crate::tree::TreeOptions;
use crate::txnlog::{self, LogEnd, LogRecovery};

/// Bytes of a snapshot read at once.
const PIECE_BYTES: u64 = 1 << 20;

/// The machine. Drive it from [`Answer::Start`] to [`Step::Done`] or [`Step::Refuse`].
#[derive(Debug)]
pub struct Recovery {
    options: TreeOptions,
    /// Entropy for the nonces of rewritten segments.
    seed: u64,
    /// The last txn that stays.
    keep: Option<Zxid>,
    phase: Phase,
    /// Names in the data directory that are not needed, with their lengths: unfinished files.
    leftovers: VecDeque<(String, u64)>,
    /// The received snapshot that is to take the place of everything.
    install: Option<Install>,
    /// The length of its file, until it has its name.
    received: Option<u64>,
    /// Snapshots not tried, oldest first.
    candidates: Vec<(Zxid, u64)>,
    /// Snapshots behind the cut that are to go, oldest first.
    behind_cut: Vec<Zxid>,
    damaged: Vec<Zxid>,
    epochs: Epochs,
    state: State,
    recent: RecentTxns,
    recent_bytes_max: u64,
    /// A leader can send what is damaged here.
    is_repairable: bool,
    /// An empty database is a lost one.
    is_empty_lost: bool,
    lost: Option<Refusal>,
}

/// Name of the file in the data directory that says that an empty database was expected: what
/// became of Apache's marker `initialize`.
pub const EXPECTED_EMPTY: &str = "initialized";

#[derive(Debug)]
enum Phase {
    Listing,
    ReadingInstall {
        has_epochs: bool,
    },
    ReadingEpochs,
    /// Operations that make the epochs record.
    MakingEpochs(VecDeque<FileOp>),
    RemovingLeftovers,
    Snapshot {
        zxid: Zxid,
        file: FileName,
        offset: u64,
        len: u64,
        decoder: Box<SnapshotDecoder>,
    },
    /// The record goes: its snapshot is not used.
    Abandoning(VecDeque<FileOp>),
    /// The received snapshot takes the place of the others.
    ReplacingSnapshots(VecDeque<FileOp>),
    ListingOldLog,
    /// The history is lost; the operator is told, then the log's names are asked for.
    Losing,
    /// The log that was there before goes, and the record.
    ReplacingLog(VecDeque<FileOp>),
    Log(Box<LogRecovery>),
    /// Snapshots behind the cut go; then the step that the log has asked for.
    Cutting(VecDeque<FileOp>, Box<LogRecovery>, Box<txnlog::Step>),
    Over,
}

impl Recovery {
    /// At the beginning. `seed` is entropy, for the nonces of log segments that are rewritten.
    #[must_use]
    pub fn new(options: TreeOptions, seed: u64) -> Self {
        Self {
            options,
            seed,
            keep: None,
            phase: Phase::Listing,
            leftovers: VecDeque::new(),
            install: None,
            received: None,
            candidates: Vec::new(),
            behind_cut: Vec::new(),
            damaged: Vec::new(),
            epochs: Epochs::default(),
            state: State::new(options),
            recent: RecentTxns::new(Zxid::ZERO, 0),
            recent_bytes_max: 0,
            is_repairable: false,
            is_empty_lost: false,
            lost: None,
        }
    }

    /// For a member of an ensemble: where the history is damaged, recovery ends with an empty tree
    /// and [`Recovered::lost`] instead of a refusal. What is on disk stays as it is.
    #[must_use]
    pub const fn repaired_by_a_leader(mut self) -> Self {
        self.is_repairable = true;
        self
    }

    /// With `db.autocreate=false` a member whose database is empty has lost it, unless
    /// [`EXPECTED_EMPTY`] is there.
    #[must_use]
    pub const fn losing_what_is_empty(mut self) -> Self {
        self.is_empty_lost = true;
        self
    }

    /// Keeps the last txns of the log, up to so many bytes, for the learners of an ensemble.
    #[must_use]
    pub const fn keeping_recent(mut self, bytes_max: u64) -> Self {
        self.recent_bytes_max = bytes_max;
        self
    }

    /// Cuts the history (Zab's TRUNC): no txn behind `keep` stays, in the log or in a snapshot.
    /// Snapshots behind it go first, and nothing at all goes before it is known that what stays
    /// reaches back to the beginning or to a whole snapshot. The last txn that stays may be an
    /// earlier one than `keep`: [`Recovered::last_zxid`].
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
            (Phase::ReadingInstall { has_epochs }, Answer::Bytes(bytes)) => {
                let has_epochs = *has_epochs;
                match Install::decode(&bytes) {
                    Some(install) => self.on_install(install, has_epochs),
                    None => self.refuse(Refusal::InstallRecord(install::FILE_NAME)),
                }
            }
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
            (Phase::Snapshot { decoder, .. }, Answer::Bytes(bytes)) => {
                let decoded = Decoded::take(decoder, &bytes);
                self.on_decoded(decoded)
            }
            (Phase::Snapshot { .. }, Answer::Decoded(decoded)) => self.on_decoded(decoded),
            (Phase::Snapshot { offset, .. }, Answer::Unread(_)) => {
                let damage = SnapshotDamage { offset: *offset, what: "the disk cannot read it" };
                self.on_decoded(Err(damage))
            }
            (Phase::Snapshot { .. }, Answer::Next) => self.next_snapshot(),
            (Phase::Abandoning(ops), Answer::Next | Answer::Ran(Ok(()))) => match ops.pop_front() {
                Some(op) => Step::Run(op),
                None => self.next_snapshot(),
            },
            (Phase::ReplacingSnapshots(ops), Answer::Ran(Ok(()))) => match ops.pop_front() {
                Some(op) => Step::Run(op),
                None => {
                    self.phase = Phase::ListingOldLog;
                    Step::List(FileDir::Log)
                }
            },
            (Phase::ListingOldLog, Answer::Listing(files)) => self.on_old_log(files),
            (Phase::ReplacingLog(ops), Answer::Ran(Ok(()))) => match ops.pop_front() {
                Some(op) => Step::Run(op),
                None => self.begin_log(),
            },
            (Phase::Losing, Answer::Next) => Step::List(FileDir::Log),
            (Phase::Losing, Answer::Listing(files)) => self.begin_behind(&files),
            (Phase::Log(_), answer) => self.log_step(answer),
            (_, Answer::Unread(failure)) => self.refuse(Refusal::File(failure)),
            (Phase::Cutting(..), Answer::Ran(Ok(()))) => self.cut_snapshots(),
            (phase, answer) => unreachable!("the driver answered {answer:?} in {phase:?}"),
        }
    }

    fn refuse(&mut self, refusal: Refusal) -> Step {
        if self.is_repairable && refusal.is_of_history() {
            self.phase = Phase::Losing;
            let note = format!("{refusal}; a leader is to send everything");
            self.lost = Some(refusal);
            return Step::Note(note);
        }
        self.phase = Phase::Over;
        Step::Refuse(refusal)
    }

    fn on_listing(&mut self, files: Vec<(String, u64)>) -> Step {
        let (mut has_epochs, mut has_install, mut has_marker) = (false, false, None);
        for (name, len) in files {
            let is_ours = |prefix: &str| name.starts_with(prefix);
            if name.ends_with(catalog::UNFINISHED_SUFFIX)
                && (is_ours("snapshot.")
                    || is_ours(epochs::FILE_NAME)
                    || is_ours(install::FILE_NAME))
            {
                self.leftovers.push_back((name, len));
            } else if name == epochs::FILE_NAME {
                has_epochs = true;
            } else if name == install::FILE_NAME {
                has_install = true;
            } else if name == EXPECTED_EMPTY {
                has_marker = Some((name, len));
            } else if let Some(zxid) = catalog::zxid_of(&name) {
                self.candidates.push((zxid, len));
            }
        }
        self.candidates.sort_unstable();
        match self.candidates.is_empty() {
            true => self.is_empty_lost &= has_marker.is_none(),
            // It is not to be believed when all this is gone.
            false => self.leftovers.extend(has_marker),
        }
        if has_install {
            self.phase = Phase::ReadingInstall { has_epochs };
            let file = FileName::data(install::FILE_NAME.to_owned());
            return Step::Read { file, offset: 0, len: BLOCK_BYTES as u64 };
        }
        self.read_epochs(has_epochs)
    }

    fn on_install(&mut self, install: Install, has_epochs: bool) -> Step {
        let name = catalog::received_name(install.zxid);
        if let Some(at) = self.leftovers.iter().position(|(leftover, _)| *leftover == name) {
            self.received = self.leftovers.remove(at).map(|(_, len)| len);
        }
        self.install = Some(install);
        self.read_epochs(has_epochs)
    }

    fn read_epochs(&mut self, has_epochs: bool) -> Step {
        if has_epochs {
            self.phase = Phase::ReadingEpochs;
            let file = FileName::data(epochs::FILE_NAME.to_owned());
            return Step::Read { file, offset: 0, len: epochs::FILE_BYTES };
        }
        let mut ops = self.epochs.make();
        let first = ops.pop_front();
        self.phase = Phase::MakingEpochs(ops);
        first.map_or_else(|| self.remove_leftovers(), Step::Run)
    }

    fn remove_leftovers(&mut self) -> Step {
        self.phase = Phase::RemovingLeftovers;
        match self.leftovers.pop_front() {
            Some((name, _)) => Step::Run(FileOp::Remove { file: FileName::data(name) }),
            None => self.first_snapshot(),
        }
    }

    fn first_snapshot(&mut self) -> Step {
        let Some(install) = self.install else { return self.next_snapshot() };
        let named = self.candidates.iter().find(|(zxid, _)| *zxid == install.zxid);
        match (self.received, named) {
            (Some(len), _) => self.try_snapshot(install.zxid, install.received(), len),
            (None, Some((zxid, len))) => {
                self.try_snapshot(*zxid, FileName::data(catalog::file_name(*zxid)), *len)
            }
            (None, None) => self.abandon("it is not there"),
        }
    }

    fn next_snapshot(&mut self) -> Step {
        let Some((zxid, len)) = self.candidates.pop() else { return self.begin_log() };
        if self.keep.is_some_and(|keep| keep < zxid) {
            self.behind_cut.insert(0, zxid);
            return self.next_snapshot();
        }
        self.try_snapshot(zxid, FileName::data(catalog::file_name(zxid)), len)
    }

    fn try_snapshot(&mut self, zxid: Zxid, file: FileName, len: u64) -> Step {
        let decoder = Box::new(SnapshotDecoder::new());
        self.state = State::for_restore(self.options);
        self.phase = Phase::Snapshot { zxid, file, offset: 0, len, decoder };
        self.read_snapshot()
    }

    fn read_snapshot(&mut self) -> Step {
        let Phase::Snapshot { file, offset, len, .. } = &self.phase else {
            unreachable!("a snapshot is being read")
        };
        let piece = PIECE_BYTES.min(len.saturating_sub(*offset));
        Step::Read { file: file.clone(), offset: *offset, len: piece }
    }

    fn on_decoded(&mut self, decoded: Result<Decoded, SnapshotDamage>) -> Step {
        let Phase::Snapshot { zxid, offset, .. } = &mut self.phase else {
            unreachable!("a snapshot is being read")
        };
        let zxid = *zxid;
        *offset += decoded.as_ref().map_or(0, |decoded| decoded.bytes);
        let taken = decoded.map_err(SnapshotUnfit::from).and_then(|decoded| {
            self.state.tree.make_room(decoded.expected_znodes);
            for item in decoded.items {
                self.state.take_snapshot_item(item)?;
            }
            let Some(summary) = decoded.summary else { return Ok(false) };
            self.state.finish_snapshot(zxid, &summary).map(|()| true)
        });
        match taken {
            Ok(true) => self.on_whole_snapshot(),
            Ok(false) => self.read_snapshot(),
            Err(unfit) => self.give_up(zxid, unfit),
        }
    }

    fn give_up(&mut self, zxid: Zxid, unfit: SnapshotUnfit) -> Step {
        self.state = State::new(self.options);
        match (self.install, self.received) {
            (Some(_), Some(_)) => self.abandon(&unfit.to_string()),
            (Some(_), None) => self.refuse(Refusal::Installed { zxid, unfit }),
            (None, _) => {
                let name = catalog::file_name(zxid);
                self.damaged.push(zxid);
                Step::Note(format!("{name} is not used: {unfit}; the one before is tried"))
            }
        }
    }

    /// The received snapshot is of no use: what was there before stays.
    fn abandon(&mut self, why: &str) -> Step {
        let Some(install) = self.install.take() else { return self.next_snapshot() };
        let mut ops = VecDeque::from(Install::remove());
        if self.received.take().is_some() {
            ops.push_back(FileOp::Remove { file: install.received() });
        }
        self.phase = Phase::Abandoning(ops);
        let zxid = install.zxid;
        Step::Note(format!("snapshot {zxid} of the leader is not used: {why}; all stays as it was"))
    }

    fn on_whole_snapshot(&mut self) -> Step {
        let Some(install) = self.install else { return self.begin_log() };
        let others = std::mem::take(&mut self.candidates).into_iter().map(|(zxid, _)| zxid);
        let mut ops = install.replace_snapshots(self.received.is_some(), others);
        let first = ops.pop_front().expect("the directory is flushed in any case");
        self.phase = Phase::ReplacingSnapshots(ops);
        Step::Run(first)
    }

    fn on_old_log(&mut self, files: Vec<(String, u64)>) -> Step {
        let Some(install) = self.install else { return self.begin_log() };
        let names = files.into_iter().map(|(name, _)| name);
        let mut ops = install.replace_log(names.filter(|name| install.replaces(name)));
        let first = ops.pop_front().expect("the directory is flushed in any case");
        self.phase = Phase::ReplacingLog(ops);
        Step::Run(first)
    }

    fn begin_log(&mut self) -> Step {
        let after = self.state.snapshot.unwrap_or(Zxid::ZERO);
        self.recent = RecentTxns::new(after, self.recent_bytes_max);
        let mut log = LogRecovery::new(after, self.seed);
        if let Some(install) = self.install {
            log = log.from_segment(install.first_segment);
        }
        if let Some(keep) = self.keep {
            if keep < after {
                let why = format!("snapshot {after} of a leader took the place of what was before");
                return self.refuse(Refusal::Cut { keep, why });
            }
            log = log.keep_until(keep);
        }
        let mut log = Box::new(log);
        let step = log.step(txnlog::Answer::Next);
        self.phase = Phase::Log(log);
        self.pass_on(step)
    }

    /// The history is lost: a log would begin behind every segment that is there.
    fn begin_behind(&mut self, files: &[(String, u64)]) -> Step {
        let sequences = files.iter().filter_map(|(name, _)| txnlog::segment_sequence(name));
        let first = sequences.max().unwrap_or_default() + 1;
        self.state = State::new(self.options);
        self.install = None;
        self.candidates.clear();
        self.damaged.clear();
        self.recent = RecentTxns::new(Zxid::ZERO, self.recent_bytes_max);
        let mut log = Box::new(LogRecovery::new(Zxid::ZERO, self.seed).from_segment(first));
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
            Answer::Unread(failure) | Answer::Ran(Err(failure)) => txnlog::Answer::Failed(failure),
            Answer::Decoded(_) => unreachable!("the log is read as bytes"),
        };
        let Phase::Log(log) = &mut self.phase else { unreachable!("the log is being read") };
        let step = log.step(answer);
        self.pass_on(step)
    }

    /// Applies the records that need no driver, and passes on what does.
    fn pass_on(&mut self, mut step: txnlog::Step) -> Step {
        loop {
            if !self.behind_cut.is_empty()
                && matches!(step, txnlog::Step::Run(_) | txnlog::Step::Done(_))
            {
                return self.begin_cut(step);
            }
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
                    return self.refuse(match self.keep {
                        Some(keep) => Refusal::Cut { keep, why: damage.to_string() },
                        None if no_snapshot => Refusal::NoSnapshot(damage),
                        None => Refusal::Log(damage),
                    });
                }
            }
        }
    }

    /// All that stays is read and nothing is written: snapshots behind the cut go before the log is
    /// cut, or the next start would find what is cut off in them.
    fn begin_cut(&mut self, step: txnlog::Step) -> Step {
        let Phase::Log(log) = std::mem::replace(&mut self.phase, Phase::Over) else {
            unreachable!("the log is being read")
        };
        let (keep, last) = (self.keep.unwrap_or_default(), self.state.tree.last_zxid());
        if !log.cuts() && last != keep {
            let base = self.state.snapshot.map_or("the log".to_owned(), catalog::file_name);
            let why = format!("what is on disk from {base} on ends at {last}");
            return self.refuse(Refusal::Cut { keep, why });
        }
        let remove = |zxid| FileOp::Remove { file: FileName::data(catalog::file_name(zxid)) };
        let mut ops: VecDeque<FileOp> = self.behind_cut.drain(..).rev().map(remove).collect();
        ops.push_back(FileOp::SyncDir { dir: FileDir::Data });
        self.phase = Phase::Cutting(ops, log, Box::new(step));
        self.cut_snapshots()
    }

    fn cut_snapshots(&mut self) -> Step {
        match std::mem::replace(&mut self.phase, Phase::Over) {
            Phase::Cutting(mut ops, log, step) => match ops.pop_front() {
                Some(op) => {
                    self.phase = Phase::Cutting(ops, log, step);
                    Step::Run(op)
                }
                None => {
                    self.phase = Phase::Log(log);
                    self.pass_on(*step)
                }
            },
            phase => unreachable!("snapshots are removed in {phase:?}"),
        }
    }

    fn done(&mut self, log_end: LogEnd) -> Step {
        // A snapshot shows only what was in the log, durably.
        let last = self.state.tree.last_zxid();
        let behind = self.damaged.iter().copied().filter(|zxid| last < *zxid).max();
        if let Some(snapshot) = behind {
            return self.refuse(Refusal::Behind { snapshot, last });
        }
        let is_empty = log_end.segments.is_empty() && self.state.snapshot.is_none();
        if is_empty && self.is_empty_lost && self.lost.is_none() {
            return self.refuse(Refusal::Empty);
        }
        self.phase = Phase::Over;
        let state = std::mem::replace(&mut self.state, State::new(self.options));
        let epochs = self.epochs.of_history(last);
        if self.epochs.accepted < epochs.accepted {
            tracing::warn!(%last, "the file {} is missing or older than the log: what this server \
                has promised beyond the log's epoch is not known", epochs::FILE_NAME);
        }
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
                .chain(self.damaged.iter().copied())
                .collect(),
            epochs,
            replayed_txn_count: state.replayed,
            recent: std::mem::replace(&mut self.recent, RecentTxns::new(Zxid::ZERO, 0)),
            installed: self.install.map(|install| install.zxid),
            fuzzy: state.fuzzy,
            lost: self.lost.take(),
        }))
    }
}
