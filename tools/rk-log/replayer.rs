//! Replays a log record by record, over the snapshots that are whole, and compares every digest.

use std::collections::BTreeMap;

use bytes::Bytes;
use ringkeeper::model::Zxid;
use ringkeeper::server::fuzzy::Fuzzy;
use ringkeeper::server::state::{ReplayError, State};
use ringkeeper::snapshot::SnapshotDecoder;
use ringkeeper::snapshot::inspect::{What, items_of};

use super::files::Files;
use super::start::OPTIONS;

/// Bytes of a snapshot decoded at once.
const PIECE_BYTES: usize = 1 << 20;

/// What replaying shows to be wrong.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Complaint {
    /// No state to go on from.
    #[error("the record cannot be replayed: no whole snapshot leads up to it")]
    NoBase,
    /// The record's bytes are whole but make no sense.
    #[error("{0}")]
    Undecodable(ReplayError),
    /// The tree is another than the one that the server had.
    #[error("the tree's digest is {found:x}, the txn says {expected:x}")]
    Digest {
        /// What the txn says, as far as it concerns this txn alone.
        expected: u64,
        /// What the tree has.
        found: u64,
    },
    /// A snapshot is not what the log leads to.
    #[error("snapshot {zxid} has digest {found:x}, the log leads to {expected:x}")]
    Snapshot {
        /// Which.
        zxid: Zxid,
        /// Digest of the replayed tree.
        expected: u64,
        /// Digest of the snapshot.
        found: u64,
    },
}

impl Complaint {
    /// What it means.
    pub(crate) const fn meaning(&self) -> &'static str {
        match self {
            Self::NoBase => "digests from here to the next snapshot are not compared",
            Self::Undecodable(_) => {
                "written by a newer version, or by a defect; a start that needs it is refused"
            }
            Self::Digest { .. } => {
                "snapshot and log do not belong together, or a defect of the server that wrote them"
            }
            Self::Snapshot { .. } => {
                "the snapshot was made of another tree: by a defect, or on another machine"
            }
        }
    }
}

/// Replays.
pub(crate) struct Replayer<'a> {
    files: &'a Files,
    /// Snapshots that are whole, with their digests unless they are fuzzy.
    whole: BTreeMap<Zxid, Option<u64>>,
    state: Option<State>,
    /// A record was met for which there is no state; said once.
    lost: bool,
    /// Expected digest minus found one: what an earlier txn already showed.
    drift: u64,
    replayed: u64,
}

impl<'a> Replayer<'a> {
    /// Before the first record. Snapshots count once they were checked.
    pub(crate) const fn new(files: &'a Files) -> Self {
        let whole = BTreeMap::new();
        Self { files, whole, state: None, lost: false, drift: 0, replayed: 0 }
    }

    /// Records applied.
    pub(crate) const fn replayed(&self) -> u64 {
        self.replayed
    }

    /// Whether a whole snapshot holds what txns up to `zxid` did.
    pub(crate) fn covers(&self, zxid: Zxid) -> bool {
        self.whole.range(zxid..).next().is_some()
    }

    /// Checks a snapshot; every damage with its offset.
    pub(crate) fn check_snapshot(
        &mut self,
        zxid: Option<Zxid>,
        bytes: &Bytes,
    ) -> Vec<(u64, String)> {
        // A file without a name of ours is checked against what it says itself.
        let said = items_of(bytes.clone()).find_map(|seen| match seen.what {
            What::Header(zxid, _) => Some(zxid),
            _ => None,
        });
        let wanted = zxid.or(said).unwrap_or_default();
        match load(wanted, bytes) {
            Ok(state) => {
                let is_exact = state.fuzzy == Fuzzy::Over;
                self.whole.insert(wanted, is_exact.then(|| state.tree.digest()));
                Vec::new()
            }
            Err(unfit) => {
                let damage = items_of(bytes.clone()).filter_map(|seen| match seen.what {
                    What::Damage(what) => Some((seen.offset, what.to_owned())),
                    _ => None,
                });
                let damage: Vec<_> = damage.collect();
                if damage.is_empty() { vec![(0, unfit)] } else { damage }
            }
        }
    }

    /// Applies a record. What it shows to be wrong.
    pub(crate) fn take(&mut self, zxid: Zxid, txn: &Bytes) -> Vec<Complaint> {
        let mut complaints = Vec::new();
        if !self.make_ready(zxid) {
            if !std::mem::replace(&mut self.lost, true) {
                complaints.push(Complaint::NoBase);
            }
            return complaints;
        }
        self.lost = false;
        let Some(state) = self.state.as_mut() else { return complaints };
        if zxid <= state.tree.last_zxid() {
            return complaints;
        }
        match state.replay(zxid, txn) {
            Ok(()) => self.replayed += 1,
            Err(ReplayError::Digest { expected, found, .. }) => {
                self.replayed += 1;
                let drift = expected.wrapping_sub(found);
                if drift != self.drift {
                    complaints.push(Complaint::Digest {
                        expected: expected.wrapping_sub(self.drift),
                        found,
                    });
                }
                self.drift = drift;
            }
            Err(error) => {
                complaints.push(Complaint::Undecodable(error));
                self.state = None;
                self.lost = true;
                return complaints;
            }
        }
        if let Some(found) = self.whole.get(&zxid).copied().flatten()
            && self.drift == 0
        {
            // The server that took it knew its tree to be exact, though no digest may have told.
            let _shown_by_the_digests = state.fuzzy.passed(&mut state.tree);
            let expected = state.tree.digest();
            if found != expected {
                complaints.push(Complaint::Snapshot { zxid, expected, found });
            }
        }
        complaints
    }

    /// Makes sure of a state that the record can follow, or that is later: from the txn before,
    /// from nothing, or from the earliest whole snapshot that holds everything before it.
    fn make_ready(&mut self, zxid: Zxid) -> bool {
        if let Some(state) = &self.state {
            let last = state.tree.last_zxid();
            if zxid <= last || zxid.follows(last) {
                return true;
            }
        } else if zxid.follows(Zxid::ZERO) {
            self.state = Some(State::new(OPTIONS));
            return true;
        }
        self.state = None;
        self.drift = 0;
        let before = Zxid(zxid.0 - 1);
        let earlier = self.whole.range(..zxid).next_back().filter(|(base, _)| zxid.follows(**base));
        let base = earlier.or_else(|| self.whole.range(before..).next());
        let Some(base) = base.map(|(base, _)| *base) else { return false };
        self.state = self.files.snapshots.get(&base).and_then(|bytes| load(base, bytes).ok());
        self.state.is_some()
    }
}

/// The state in a snapshot's bytes.
pub(crate) fn load(zxid: Zxid, bytes: &Bytes) -> Result<State, String> {
    let mut state = State::for_restore(OPTIONS);
    let mut decoder = SnapshotDecoder::new();
    let mut at = 0;
    loop {
        let end = bytes.len().min(at + PIECE_BYTES);
        let last = (end == bytes.len()).then_some(zxid);
        let taken = state.take_snapshot_piece(&mut decoder, &bytes.slice(at..end), last);
        taken.map_err(|unfit| unfit.to_string())?;
        if last.is_some() {
            return Ok(state);
        }
        at = end;
    }
}
