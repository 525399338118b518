//! Makes one segment, an operation at a time: create under a temporary name, zero, flush, header,
//! flush the header, rename, flush the directory. Only then does it count.

use super::format::{Position, SegmentHeader, new_name, segment_name};
use crate::base::{FileDir, FileName, FileOp, FileOpId, FileOps};
use crate::limits::BLOCK_BYTES;
use crate::model::Zxid;

/// A segment being made.
#[derive(Debug)]
pub(super) struct Preparation {
    pub(super) sequence: u64,
    pub(super) nonce: u64,
    pub(super) bytes: u64,
    previous_nonce: u64,

    step: PrepareStep,
    id: FileOpId,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum PrepareStep {
    Create,
    Zero { at: u64 },
    Flush,
    Header,
    Rename,
    SyncDir,
    GiveBack,
}

/// What the header says was durable when it was built.
#[derive(Clone, Copy, Debug)]
pub(super) struct Flushed {
    pub(super) zxid: Zxid,
    pub(super) to: Position,
}

impl Preparation {
    pub(super) fn start(
        sequence: u64,
        nonce: u64,
        bytes: u64,
        previous_nonce: u64,
        ops: &mut FileOps,
    ) -> Self {
        assert!(bytes.is_multiple_of(BLOCK_BYTES as u64));
        let id = ops.ask(FileOp::Create { file: FileName::log(new_name(sequence)) });
        Self { sequence, nonce, bytes, previous_nonce, step: PrepareStep::Create, id }
    }

    pub(super) fn owns(&self, id: FileOpId) -> bool {
        self.id == id
    }

    /// The operation under way is done; asks for the next. True when the segment is ready.
    pub(super) fn advance(&mut self, flushed: Flushed, ops: &mut FileOps) -> bool {
        let file = FileName::log(new_name(self.sequence));
        let (step, op) = match self.step {
            PrepareStep::Create => self.zero(0, file),
            PrepareStep::Zero { at } => self.zero(at + ZERO_BYTES, file),
            PrepareStep::Flush => (
                PrepareStep::Header,
                FileOp::Write { file, offset: 0, bytes: self.header(flushed), durable: true },
            ),
            PrepareStep::Header => (
                PrepareStep::Rename,
                FileOp::Rename { from: file, to: segment_name(self.sequence) },
            ),
            PrepareStep::Rename => (PrepareStep::SyncDir, FileOp::SyncDir { dir: FileDir::Log }),
            PrepareStep::SyncDir | PrepareStep::GiveBack => return true,
        };
        self.step = step;
        self.id = ops.ask(op);
        false
    }

    /// It does not fit on the disk: what it has taken up is given back, which may be all that was
    /// free.
    pub(super) fn give_back(&mut self, ops: &mut FileOps) {
        self.step = PrepareStep::GiveBack;
        self.id = ops.ask(FileOp::Remove { file: FileName::log(new_name(self.sequence)) });
    }

    /// Whether that was what it did last. How it ended changes nothing.
    pub(super) fn is_given_back(&self) -> bool {
        self.step == PrepareStep::GiveBack
    }

    fn zero(&self, at: u64, file: FileName) -> (PrepareStep, FileOp) {
        if self.bytes <= at {
            return (PrepareStep::Flush, FileOp::Flush { file });
        }
        let len = ZERO_BYTES.min(self.bytes - at);
        (PrepareStep::Zero { at }, FileOp::Zero { file, offset: at, len })
    }

    fn header(&self, flushed: Flushed) -> bytes::Bytes {
        let header = SegmentHeader {
            sequence: self.sequence,
            nonce: self.nonce,
            bytes: self.bytes,
            previous_nonce: self.previous_nonce,
            flushed_zxid: flushed.zxid,
            flushed_to: flushed.to,
        };
        header.encode()
    }
}

/// Zeroing competes with the batches of the open segment for the device: small pieces, one at a
/// time, so that a batch never waits for more than one of them.
const ZERO_BYTES: u64 = 1 << 20;
