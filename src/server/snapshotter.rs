//! Writes snapshots while commits go on: file operations one after another, the tree's cut fed in
//! bounded slices between them. A failure never harms an older snapshot.

use bytes::Bytes;

use crate::base::{FileDir, FileFailure, FileName, FileOp, FileOpId, FileOps, WallMs};
use crate::limits::SNAPSHOT_BLOCK_BYTES_TARGET;
use crate::model::{SessionId, Zxid};
use crate::snapshot::{SnapshotEncoder, catalog};
use crate::tree::{CutId, Tree};

/// At most one snapshot at a time, and removals of old ones.
#[derive(Debug)]
pub(crate) struct Snapshotter {
    /// Snapshots known to be whole, oldest first.
    verified: Vec<Zxid>,
    /// Snapshots of earlier runs that nobody read. They stay, with the log behind them, until
    /// enough verified ones are there.
    unread: Vec<Zxid>,
    work: Option<Work>,
    /// Operations whose outcome changes nothing: removals.
    ignored: Vec<FileOpId>,
    last_bytes: u64,
}

#[derive(Debug)]
struct Work {
    zxid: Zxid,
    cut: CutId,
    encoder: SnapshotEncoder,
    digest: u64,
    offset: u64,
    stage: Stage,
    under_way: Option<FileOpId>,
    /// The tree has no more items.
    fed: bool,
    /// The last blocks, once the tree has no more items.
    tail: Option<Bytes>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Stage {
    Writing,
    Flushing,
    Renaming,
    SyncingDir,
}

/// What a completion meant.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum SnapshotProgress {
    /// Not an operation of this machine.
    NotMine,
    /// Noted.
    Going,
    /// The snapshot is durable under its name.
    Finished(Zxid),
    /// Given up.
    Failed(FileFailure),
}

impl Snapshotter {
    pub(crate) const fn new(verified: Vec<Zxid>, unread: Vec<Zxid>) -> Self {
        Self { verified, unread, work: None, ignored: Vec::new(), last_bytes: 0 }
    }

    pub(crate) const fn is_busy(&self) -> bool {
        self.work.is_some()
    }

    /// The last snapshot that is known to be whole.
    pub(crate) fn newest(&self) -> Option<Zxid> {
        self.verified.last().copied()
    }

    /// How many are known to be whole.
    pub(crate) const fn count(&self) -> usize {
        self.verified.len()
    }

    /// No operation is under way.
    pub(crate) fn is_quiet(&self) -> bool {
        self.work.is_none() && self.ignored.is_empty()
    }

    /// Length of the last snapshot that was finished.
    pub(crate) const fn last_bytes(&self) -> u64 {
        self.last_bytes
    }

    /// Begins the snapshot of the tree as it is now, with the sessions at that moment.
    pub(crate) fn begin(
        &mut self,
        tree: &mut Tree,
        wall: WallMs,
        sessions: Vec<(SessionId, i32)>,
        ops: &mut FileOps,
    ) {
        assert!(self.work.is_none(), "one snapshot at a time");
        let zxid = tree.last_zxid();
        let mut encoder = SnapshotEncoder::new(zxid, wall);
        for (id, timeout_ms) in sessions {
            encoder.session(id, timeout_ms);
        }
        let create = ops.ask(FileOp::Create { file: unfinished(zxid) });
        self.work = Some(Work {
            zxid,
            cut: tree.begin_cut(),
            encoder,
            digest: tree.digest(),
            offset: 0,
            stage: Stage::Writing,
            under_way: Some(create),
            fed: false,
            tail: None,
        });
    }

    /// Whether [`Snapshotter::feed`] would take more of the tree.
    pub(crate) fn wants_items(&self) -> bool {
        self.work.as_ref().is_some_and(|work| {
            !work.fed && work.encoder.ready_bytes() < 2 * SNAPSHOT_BLOCK_BYTES_TARGET
        })
    }

    /// Takes the next slice of the cut.
    pub(crate) fn feed(&mut self, tree: &mut Tree, ops: &mut FileOps) {
        let Some(work) = &mut self.work else { return };
        let encoder = &mut work.encoder;
        let more = tree.cut_items(work.cut, SNAPSHOT_BLOCK_BYTES_TARGET, &mut |item| {
            encoder.znode(item.path, item.data, item.acl, item.stat);
        });
        if !more {
            tree.end_cut(work.cut);
            work.fed = true;
            work.tail = Some(work.encoder.finish(work.digest));
        }
        if work.under_way.is_none() {
            work.go_on(ops);
        }
    }

    /// An operation ended. The tree is the one that the snapshot is of.
    pub(crate) fn on_done(
        &mut self,
        id: FileOpId,
        result: &Result<(), FileFailure>,
        tree: &mut Tree,
        ops: &mut FileOps,
    ) -> SnapshotProgress {
        if let Some(at) = self.ignored.iter().position(|ignored| *ignored == id) {
            self.ignored.swap_remove(at);
            return SnapshotProgress::Going;
        }
        let Some(work) = self.work.as_mut().filter(|work| work.under_way == Some(id)) else {
            return SnapshotProgress::NotMine;
        };
        work.under_way = None;
        if let Err(failure) = result {
            let file = unfinished(work.zxid);
            tree.end_cut(work.cut);
            self.work = None;
            self.ignored.push(ops.ask(FileOp::Remove { file }));
            return SnapshotProgress::Failed(failure.clone());
        }
        if work.stage == Stage::SyncingDir {
            let zxid = work.zxid;
            self.last_bytes = work.offset;
            self.work = None;
            // It may have replaced a damaged one of its name.
            self.unread.retain(|unread| *unread != zxid);
            self.verified.push(zxid);
            return SnapshotProgress::Finished(zxid);
        }
        work.go_on(ops);
        SnapshotProgress::Going
    }

    /// Removes all but the newest `keep_count` snapshots. The oldest that stays: the log is needed
    /// from there on.
    pub(crate) fn purge(&mut self, keep_count: usize, ops: &mut FileOps) -> Zxid {
        let (go, keep) = catalog::split_for_purge(&self.verified, keep_count);
        let mut go = go.to_vec();
        self.verified = keep.to_vec();
        if keep_count <= self.verified.len() {
            go.append(&mut self.unread);
        }
        for zxid in go {
            let file = FileName::data(catalog::file_name(zxid));
            self.ignored.push(ops.ask(FileOp::Remove { file }));
        }
        self.verified.iter().chain(&self.unread).min().copied().unwrap_or(Zxid::ZERO)
    }
}

impl Work {
    /// Asks the next operation, if it does not wait for the tree.
    fn go_on(&mut self, ops: &mut FileOps) {
        let min = if self.fed { 1 } else { SNAPSHOT_BLOCK_BYTES_TARGET };
        if self.stage == Stage::Writing {
            let chunk = self.encoder.take_chunk(min).or_else(|| self.tail.take());
            if let Some(bytes) = chunk {
                let offset = self.offset;
                self.offset += bytes.len() as u64;
                let file = unfinished(self.zxid);
                let write = FileOp::Write { file, offset, bytes, durable: false };
                self.under_way = Some(ops.ask(write));
                return;
            }
            if !self.fed {
                return;
            }
        }
        let (stage, op) = match self.stage {
            Stage::Writing => (Stage::Flushing, FileOp::Flush { file: unfinished(self.zxid) }),
            Stage::Flushing => {
                let from = unfinished(self.zxid);
                (Stage::Renaming, FileOp::Rename { from, to: catalog::file_name(self.zxid) })
            }
            Stage::Renaming | Stage::SyncingDir => {
                (Stage::SyncingDir, FileOp::SyncDir { dir: FileDir::Data })
            }
        };
        self.stage = stage;
        self.under_way = Some(ops.ask(op));
    }
}

fn unfinished(zxid: Zxid) -> FileName {
    FileName::data(format!("{}{}", catalog::file_name(zxid), catalog::UNFINISHED_SUFFIX))
}
