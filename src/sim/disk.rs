//! An in-memory disk with a write-back cache, torn writes and directory entries of their own
//! durability.

use std::collections::{BTreeMap, BTreeSet};

use bytes::Bytes;

use super::config_dir::ConfigDir;
use super::content::Content;
use super::plant::Plant;
use crate::base::{FileDir, FileFailure, FileName, FileOp, Prng};
use crate::limits::BLOCK_BYTES;
use crate::server::recovery::{Answer, EXPECTED_EMPTY, Recovered, Recovery, Refusal, Step};
use crate::snapshot::catalog;
use crate::txnlog;

/// The unit that a device writes whole or not at all.
const SECTOR_BYTES: usize = 512;

/// How a machine ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Crash {
    /// The process dies, the kernel lives.
    Kill,
    /// Everything that was not flushed is at risk.
    PowerCut,
}

/// The files of one server.
#[derive(Clone, Debug, Default)]
pub(super) struct Disk {
    live: BTreeMap<FileName, usize>,
    durable: BTreeMap<FileName, usize>,
    inodes: Vec<Inode>,
    /// Of a member of an ensemble.
    pub(super) config: ConfigDir,
    /// The planted bugs of writes that stay in the cache, and of files that lose their names.
    plant: Plant,
}

#[derive(Clone, Debug, Default)]
struct Inode {
    cached: Content,
    flushed: Content,
    /// Ranges written since the last flush.
    dirty: Vec<(usize, usize)>,
    /// Where anything was ever written. In a log, batches begin there.
    starts: BTreeSet<usize>,
}

impl Inode {
    fn write(&mut self, offset: usize, bytes: &[u8]) {
        self.cached.write(offset, bytes);
        self.dirty.push((offset, bytes.len()));
        self.starts.insert(offset);
    }

    fn write_zeros(&mut self, offset: usize, len: usize) {
        self.cached.write_zeros(offset, len);
        self.dirty.push((offset, len));
    }

    fn flush(&mut self) {
        self.flushed = self.cached.clone();
        self.dirty.clear();
    }

    /// Some sectors of what is dirty reach the medium.
    fn tear(&mut self, prng: &mut Prng) {
        for (offset, len) in std::mem::take(&mut self.dirty) {
            let all = prng.below(3);
            for start in (offset..offset + len).step_by(SECTOR_BYTES) {
                let end = (offset + len).min(start + SECTOR_BYTES);
                if all == 0 || (all == 1 && prng.one_in(2)) {
                    let sector = self.cached.read(start, end - start);
                    self.flushed.write(start, &sector);
                }
            }
        }
        self.cached = self.flushed.clone();
    }
}

fn failure(text: String) -> FileFailure {
    FileFailure { no_space: false, no_descriptor: false, text }
}

impl Disk {
    /// An empty one.
    pub(super) fn new(plant: Plant) -> Self {
        Self { plant, ..Self::default() }
    }

    /// The disk is another, empty one; the configuration is written anew as it was.
    pub(super) fn lose(&mut self) {
        let config = std::mem::take(&mut self.config);
        *self = Self { config, ..Self::new(self.plant) };
    }

    /// Name and length of every file of a directory.
    pub(super) fn list(&self, dir: FileDir) -> Vec<(String, u64)> {
        let files = self.live.iter().filter(|(file, _)| file.dir == dir);
        files
            .filter_map(|(file, inode)| {
                let len = self.inodes.get(*inode)?.cached.len();
                Some((file.name.clone(), len as u64))
            })
            .collect()
    }

    /// The bytes of a part of a file, fewer at its end.
    pub(super) fn read(&self, file: &FileName, offset: u64, len: u64) -> Bytes {
        let inode = self.live.get(file).and_then(|inode| self.inodes.get(*inode));
        let offset = usize::try_from(offset).unwrap_or(usize::MAX);
        let len = usize::try_from(len).unwrap_or(usize::MAX);
        inode.map(|inode| Bytes::from(inode.cached.read(offset, len))).unwrap_or_default()
    }

    /// Drives recovery to its end, as the shell does; what it notes goes into `notes`.
    pub(super) fn recover(
        &mut self,
        mut recovery: Recovery,
        notes: &mut Vec<String>,
    ) -> Result<Recovered, Refusal> {
        let mut answer = Answer::Start;
        loop {
            answer = match recovery.step(answer) {
                Step::List(dir) => Answer::Listing(self.list(dir)),
                Step::Read { file, offset, len } => Answer::Bytes(self.read(&file, offset, len)),
                Step::Run(op) => Answer::Ran(self.run(&op)),
                Step::Note(note) => {
                    notes.push(note);
                    Answer::Next
                }
                Step::Done(recovered) => return Ok(*recovered),
                Step::Refuse(refusal) => return Err(refusal),
            };
        }
    }

    /// Carries out an operation whole.
    pub(super) fn run(&mut self, op: &FileOp) -> Result<(), FileFailure> {
        match op {
            FileOp::Create { file } => {
                self.live.insert(file.clone(), self.inodes.len());
                self.inodes.push(Inode::default());
            }
            FileOp::Write { file, offset, bytes, durable } => {
                let stays = self.plant.leaves_in_cache(file);
                let inode = self.inode(file)?;
                inode.write(usize::try_from(*offset).unwrap_or_default(), bytes);
                if *durable && !stays {
                    let before = std::mem::take(&mut inode.dirty);
                    let offset = usize::try_from(*offset).unwrap_or_default();
                    inode.flushed.write(offset, bytes);
                    inode.dirty = before
                        .into_iter()
                        .filter(|range| *range != (offset, bytes.len()))
                        .collect();
                }
            }
            FileOp::Zero { file, offset, len } => {
                let offset = usize::try_from(*offset).unwrap_or_default();
                let len = usize::try_from(*len).unwrap_or_default();
                self.inode(file)?.write_zeros(offset, len);
            }
            FileOp::Flush { file } if self.plant.leaves_in_cache(file) => {}
            FileOp::Flush { file } => self.inode(file)?.flush(),
            FileOp::Rename { from, to } => {
                let inode = self.live.remove(from);
                let inode = inode.ok_or_else(|| failure(format!("{from} is not there")))?;
                self.live.insert(FileName { dir: from.dir, name: to.clone() }, inode);
            }
            FileOp::Remove { file } => {
                self.live.remove(file);
            }
            FileOp::WriteNextConfig { .. } | FileOp::WriteConfig { .. } => {
                self.config.run(op, self.plant);
            }
            FileOp::SyncDir { .. } if self.plant == Plant::DirectoryNotFlushed => {}
            FileOp::SyncDir { dir } => {
                self.durable.retain(|file, _| file.dir != *dir);
                let live = self.live.iter().filter(|(file, _)| file.dir == *dir);
                self.durable.extend(live.map(|(file, inode)| (file.clone(), *inode)));
            }
        }
        Ok(())
    }

    /// An empty database is what its owner expects.
    pub(super) fn expect_empty(&mut self) {
        let marker = FileName::data(EXPECTED_EMPTY.to_owned());
        for op in [FileOp::Create { file: marker }, FileOp::SyncDir { dir: FileDir::Data }] {
            self.run(&op).expect("a new disk takes a file");
        }
    }

    /// Changes a byte of a snapshot, of the first block of a log, which is its header, or where
    /// batches were written behind it: the last ones look the same torn and changed. Whether there
    /// was one.
    pub(super) fn rot(&mut self, prng: &mut Prng) -> bool {
        let is_history = |file: &&FileName| {
            catalog::zxid_of(&file.name).is_some() || txnlog::segment_sequence(&file.name).is_some()
        };
        let files: Vec<FileName> = self.live.keys().filter(is_history).cloned().collect();
        let nth = usize::try_from(prng.below(files.len() as u64)).unwrap_or_default();
        let Some(file) = files.get(nth) else { return false };
        let Ok(inode) = self.inode(file) else { return false };
        let written = inode.cached.last_written().unwrap_or_default();
        let mut end = written / 2;
        if catalog::zxid_of(&file.name).is_none() {
            let last_but_one = inode.starts.range(..written).nth_back(1);
            end = end.min(last_but_one.copied().unwrap_or_default().max(BLOCK_BYTES));
        }
        let at = usize::try_from(prng.below(end as u64)).unwrap_or_default();
        if end == 0 {
            return false;
        }
        for content in [&mut inode.cached, &mut inode.flushed] {
            content.flip(at, 0x40);
        }
        true
    }

    /// Whether an operation needs space that its file does not have yet.
    pub(super) fn grows(&self, op: &FileOp) -> bool {
        let (file, end) = match op {
            FileOp::Write { file, offset, bytes, .. } => (file, offset + bytes.len() as u64),
            FileOp::Zero { file, offset, len } => (file, offset + len),
            _ => return false,
        };
        let inode = self.live.get(file).and_then(|inode| self.inodes.get(*inode));
        inode.is_none_or(|inode| (inode.cached.len() as u64) < end)
    }

    /// An operation fails: a failed flush drops what it should have written, as Linux does.
    pub(super) fn fail(&mut self, op: &FileOp) {
        if let FileOp::Flush { file } = op
            && let Ok(inode) = self.inode(file)
        {
            inode.cached = inode.flushed.clone();
            inode.dirty.clear();
        }
    }

    /// An operation that had begun when the machine ended: it may still take place, whole or, when
    /// the power went, in part.
    pub(super) fn leave_in_flight(&mut self, op: &FileOp, crash: Crash, prng: &mut Prng) {
        if prng.one_in(2) {
            return;
        }
        let cut_short = match op {
            FileOp::Write { file, offset, bytes, .. } if crash == Crash::PowerCut => {
                FileOp::Write {
                    file: file.clone(),
                    offset: *offset,
                    bytes: bytes.clone(),
                    durable: false,
                }
            }
            FileOp::Flush { .. } | FileOp::SyncDir { .. } if crash == Crash::PowerCut => return,
            FileOp::WriteNextConfig { .. } | FileOp::WriteConfig { .. } => {
                return self.config.run_partly(op, self.plant, prng);
            }
            other => other.clone(),
        };
        // A file that is already gone takes no more writes.
        let _landed = self.run(&cut_short);
    }

    /// What is left when the machine starts again.
    pub(super) fn crash(&mut self, crash: Crash, prng: &mut Prng) {
        if crash == Crash::Kill {
            return;
        }
        self.config.lose_power(prng);
        for inode in &mut self.inodes {
            inode.tear(prng);
        }
        // Each entry that was changed and not flushed is as before or as after.
        let mut names: Vec<FileName> =
            self.live.keys().chain(self.durable.keys()).cloned().collect();
        names.sort();
        names.dedup();
        let mut survived = BTreeMap::new();
        for name in names {
            let (after, before) = (self.live.get(&name), self.durable.get(&name));
            let chosen = if after == before || prng.one_in(2) { after } else { before };
            if let Some(inode) = chosen {
                survived.insert(name, *inode);
            }
        }
        self.live = survived.clone();
        self.durable = survived;
    }

    /// The planted bug of a scanner that takes what does not follow for a torn end: it sees nothing
    /// from `at` on.
    pub(super) fn forget_behind(&mut self, file: &FileName, at: u64) {
        let at = usize::try_from(at).unwrap_or(usize::MAX);
        if let Ok(inode) = self.inode(file) {
            for content in [&mut inode.cached, &mut inode.flushed] {
                content.write_zeros(at, content.len().saturating_sub(at));
            }
        }
    }

    fn inode(&mut self, file: &FileName) -> Result<&mut Inode, FileFailure> {
        let inode = self.live.get(file).and_then(|inode| self.inodes.get_mut(*inode));
        inode.ok_or_else(|| failure(format!("{file} is not there")))
    }
}
