//! Replays Apache ZooKeeper's logs over its snapshots, all of which are fuzzy, and compares what
//! they lead to: with the digests that txns carry, and with one another.

use std::collections::VecDeque;

use bytes::Bytes;
use ringkeeper::apache::{LogRecord, SnapshotDecoder, SnapshotItem, SnapshotSummary};
use ringkeeper::model::{Txn, Zxid};
use ringkeeper::server::fuzzy::{Fuzzy, Unequal};
use ringkeeper::server::import::{Unfit, fuzzy_range};
use ringkeeper::server::state::{ReplayError, State};
use ringkeeper::tree::Tree;

use super::apache::{PIECE_BYTES, RECORD_BYTES_MAX, compression_of};
use super::start::OPTIONS;

/// What replaying shows to be wrong.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Complaint {
    /// The txn under way shows it.
    #[error("the tree's digest is {found:x}, the txn says {expected:x}")]
    Digest {
        /// What the txn says, as far as it concerns this txn alone.
        expected: u64,
        /// What the tree has.
        found: u64,
    },
    /// The snapshot of this name cannot be used.
    #[error("{1}")]
    Unfit(String, Unfit),
    /// No digest tells which of two is wrong.
    #[error("it and the log lead to another tree than {other} and the log: {path} differs")]
    Other {
        /// The snapshot.
        name: String,
        /// The zxid in its name.
        begun: Zxid,
        /// The snapshot before.
        other: String,
        /// A znode that is not the same.
        path: String,
    },
}

/// A snapshot and the records behind it, as far as they were applied.
#[derive(Debug)]
struct Track {
    name: String,
    begun: Zxid,
    state: State,
    /// The last txn that it may show, but for the one that was being applied; if it says so.
    ended: Option<Zxid>,
    /// Every txn has its part in `ended`, not only those that carry a digest.
    is_every_txn: bool,
}

/// Replays. Give it the records in order; at most a few trees are held at once: that of the oldest
/// snapshot, and those of later ones until they are known to be the same.
pub(crate) struct Replayer<'a> {
    /// Snapshots to come: name, the zxid in it, and bytes.
    waiting: VecDeque<(&'a str, Zxid, &'a Bytes)>,
    /// Whether all of the server's files are there.
    is_directory: bool,
    main: Option<Track>,
    /// Expected digest minus found one of the main track: what an earlier txn already showed.
    drift: u64,
    young: Vec<Track>,
    replayed: u64,
}

impl Track {
    fn load(name: &str, begun: Zxid, bytes: &Bytes) -> Result<Self, Unfit> {
        let mut state = State::for_restore(OPTIONS);
        let mut decoder = SnapshotDecoder::new(compression_of(name, bytes), RECORD_BYTES_MAX);
        let mut rest = bytes.clone();
        while !rest.is_empty() {
            decoder.push(&rest.split_to(rest.len().min(PIECE_BYTES)));
            while let Some(item) = decoder.next_item()? {
                match item {
                    SnapshotItem::Session { id, timeout_ms } => {
                        state.sessions.insert(id, timeout_ms);
                    }
                    SnapshotItem::Znode { path, data, acl, stat } => {
                        state.tree.restore_znode(&path, data.as_deref(), &acl, stat)?;
                    }
                }
            }
        }
        let summary = decoder.finish()?;
        state.tree.restore_built_ins();
        state.tree.finish_restore(begun)?;
        state.snapshot = Some(begun);
        state.fuzzy = fuzzy_range(begun, &summary);
        let ended = ended(begun, &summary, state.fuzzy);
        let is_every_txn = summary.last_zxid.is_some();
        state.fuzzy.reach(&mut state.tree);
        Ok(Self { name: name.to_owned(), begun, state, ended, is_every_txn })
    }

    fn is_exact(&self) -> bool {
        self.state.fuzzy == Fuzzy::Over
    }

    fn digest(&self) -> u64 {
        self.state.tree.digest()
    }

    fn last(&self) -> Zxid {
        self.state.tree.last_zxid()
    }

    /// Whether everything that the snapshot can show was applied with this txn.
    fn is_past(&self, txn: &Txn) -> bool {
        let counts = self.is_every_txn || txn.digest.is_some();
        counts && self.ended.is_some_and(|ended| ended < txn.header.zxid)
    }

    /// Why it cannot be used, if no txn comes any more.
    fn unfit(&self) -> Option<Complaint> {
        let unfit = match self.state.fuzzy {
            Fuzzy::Until(until, _) => Unfit::Ahead { until, last: self.last() },
            Fuzzy::Unknown(Some(Unequal { zxid, expected, found })) => {
                Unfit::Digest { zxid, expected, found }
            }
            Fuzzy::Unknown(None) | Fuzzy::Over => return None,
        };
        Some(Complaint::Unfit(self.name.clone(), unfit))
    }

    /// That it is another tree than `other`'s, or has another ACL somewhere.
    fn differs(&self, other: &Self) -> Option<Complaint> {
        let path = first_difference(&self.state.tree, &other.state.tree)?;
        let (name, begun, other) = (self.name.clone(), self.begun, other.name.clone());
        Some(Complaint::Other { name, begun, other, path })
    }
}

/// The last txn that the snapshot may show.
fn ended(begun: Zxid, summary: &SnapshotSummary, fuzzy: Fuzzy) -> Option<Zxid> {
    let last = summary.last_zxid.filter(|last| begun <= *last);
    match fuzzy {
        Fuzzy::Until(until, _) => last.max(Some(until)),
        Fuzzy::Unknown(_) | Fuzzy::Over => last,
    }
}

/// A znode that only one of them has, or that is not the same; those below `/zookeeper` are each
/// server's own.
fn first_difference(one: &Tree, other: &Tree) -> Option<String> {
    let mut open = vec!["/".to_owned()];
    while let Some(path) = open.pop() {
        let (Some(left), Some(right)) = (one.get(&path), other.get(&path)) else {
            return Some(path);
        };
        let same = left.data() == right.data()
            && left.acl() == right.acl()
            && left.persisted() == right.persisted();
        if !same {
            return Some(path);
        }
        if path == "/zookeeper" {
            continue;
        }
        let base = if path == "/" { "" } else { path.as_str() };
        let below = |name: &str| format!("{base}/{name}");
        let absent = right.children().map(below).find(|path| one.get(path).is_none());
        if absent.is_some() {
            return absent;
        }
        open.extend(left.children().map(below));
    }
    None
}

impl<'a> Replayer<'a> {
    /// Before the first record, with the snapshots that are whole, oldest first.
    pub(crate) const fn new(
        snapshots: VecDeque<(&'a str, Zxid, &'a Bytes)>,
        is_directory: bool,
    ) -> Self {
        let young = Vec::new();
        Self { waiting: snapshots, is_directory, main: None, drift: 0, young, replayed: 0 }
    }

    /// Records applied.
    pub(crate) const fn replayed(&self) -> u64 {
        self.replayed
    }

    /// Records are missing: nothing that was before leads to what comes.
    pub(crate) fn lose(&mut self) {
        self.main = None;
        self.young.clear();
        self.drift = 0;
    }

    /// Applies a record to every track.
    pub(crate) fn take(&mut self, record: &LogRecord, txn: &Txn) -> Vec<Complaint> {
        let mut complaints = Vec::new();
        self.begin_before(Some(record.zxid), &mut complaints);
        let Some(main) = &mut self.main else { return complaints };
        if record.zxid <= main.last() {
            return complaints;
        }
        match main.state.replay(record.zxid, &record.txn) {
            Ok(()) if txn.digest.is_some() => self.drift = 0,
            Ok(()) => {}
            Err(ReplayError::Digest { expected, found, .. }) => {
                let drift = expected.wrapping_sub(found);
                if drift != self.drift {
                    let expected = expected.wrapping_sub(self.drift);
                    complaints.push(Complaint::Digest { expected, found });
                }
                self.drift = drift;
            }
            Err(ReplayError::Gap { .. } | ReplayError::Txn { .. }) => {
                self.lose();
                return complaints;
            }
        }
        self.replayed += 1;
        for mut track in std::mem::take(&mut self.young) {
            // Where the main track can go on, all can; a digest is judged below.
            let _judged_below = track.state.replay(record.zxid, &record.txn);
            let is_past = track.is_past(txn);
            complaints.extend(self.judge(track, is_past));
        }
        complaints
    }

    /// Behind the last record: what is wrong with snapshots that no txn made exact.
    pub(crate) fn finish(&mut self) -> Vec<Complaint> {
        let mut complaints = Vec::new();
        self.begin_before(None, &mut complaints);
        if !self.is_directory {
            return complaints;
        }
        for track in std::mem::take(&mut self.young) {
            match track.unfit() {
                Some(unfit) => complaints.push(unfit),
                None => complaints.extend(self.judge(track, true)),
            }
        }
        complaints.extend(self.main.take().and_then(|main| main.unfit()));
        complaints
    }

    /// Begins with the snapshots in front of a record, or with all that are left.
    fn begin_before(&mut self, zxid: Option<Zxid>, complaints: &mut Vec<Complaint>) {
        let is_before = |begun: Zxid| zxid.is_none_or(|zxid| begun < zxid);
        while let Some((name, begun, bytes)) = self.waiting.front().copied()
            && is_before(begun)
        {
            self.waiting.pop_front();
            match Track::load(name, begun, bytes) {
                Ok(track) => complaints.extend(self.join(track)),
                Err(unfit) => complaints.push(Complaint::Unfit(name.to_owned(), unfit)),
            }
        }
    }

    fn join(&mut self, track: Track) -> Option<Complaint> {
        match &self.main {
            Some(main) if main.last() == track.begun => self.judge(track, false),
            // Txns in front of it are in no log, so nothing else leads here.
            main => {
                let unfit = main.as_ref().filter(|main| main.ended < Some(track.begun));
                let unfit = unfit.and_then(Track::unfit);
                self.lose();
                self.main = Some(track);
                unfit
            }
        }
    }

    /// Compares a track with the main one. `is_past`: it should be exact by now.
    fn judge(&mut self, track: Track, is_past: bool) -> Option<Complaint> {
        let main = self.main.as_mut()?;
        if track.digest() == main.digest() && self.drift == 0 {
            return track.differs(main);
        }
        if track.is_exact() {
            // The txn's digest speaks for it, and against the main one.
            let before = std::mem::replace(main, track);
            if !before.is_exact() {
                self.young.push(before);
            }
            self.drift = 0;
            return None;
        }
        let is_main_fuzzy = matches!(main.state.fuzzy, Fuzzy::Until(..));
        if !is_past || is_main_fuzzy {
            self.young.push(track);
            return None;
        }
        if main.is_exact() && self.drift == 0 {
            return track.unfit().or_else(|| track.differs(main));
        }
        if matches!(track.state.fuzzy, Fuzzy::Unknown(Some(_))) {
            return track.unfit();
        }
        let complaint = (self.drift == 0).then(|| track.differs(main)).flatten();
        *main = track;
        self.drift = 0;
        complaint
    }
}
