//! [`SnapshotReceiver`]: the tree that follows a leader's SNAP packet, written beside what the
//! server has, and then the record that puts it in its place.
//!
//! ```text
//! bytes -> Apache's decoder -> our encoder -> snapshot.<zxid>.received.new -> flush -> `install`
//! ```
//!
//! A leader of ours puts a checksum behind it, without which nothing is put in place.
//!
//! Until the record is durable the server has what it had. From then on recovery makes the switch,
//! once it has read the snapshot back and found that it makes a tree; if it does not, the record
//! goes and the server still has what it had.
//!
//! Apache's leaders go on applying txns while they send, and nothing in the stream says how far, so
//! every received snapshot is taken to be fuzzy ([`Fuzzy`](super::fuzzy::Fuzzy)).

use std::collections::VecDeque;

use bytes::Bytes;

use super::install::Install;
use crate::apache::{SnapshotDamage, SnapshotDecoder, SnapshotItem};
use crate::base::{FileFailure, FileOp, FileOpId, FileOps, WallMs};
use crate::limits::SNAPSHOT_BLOCK_BYTES_TARGET;
use crate::model::Zxid;
use crate::snapshot::SnapshotEncoder;
use crate::tree::znode_digest;
use crate::wire::jute::Reader;
use crate::wire::quorum::{CHECKSUM_BYTES, QuorumPacket};

/// One snapshot on its way in. It is over once an operation's end has led to
/// [`ReceiveProgress::Done`] or [`ReceiveProgress::Failed`]; no operation is under way then.
#[derive(Debug)]
pub struct SnapshotReceiver {
    install: Install,
    encoder: SnapshotEncoder,
    /// Of the znodes so far.
    digest: u64,
    /// The highest zxid that a znode shows.
    shown: Zxid,
    /// Bytes of the file so far.
    offset: u64,
    /// Set where a checksum follows.
    cover: Option<Cover>,
    stage: Stage,
    under_way: Option<FileOpId>,
    failure: Option<ReceiveError>,
}

/// The CRC-32C of what has come.
#[derive(Debug)]
struct Cover {
    /// Of what surely belongs to the snapshot.
    crc: u32,
    /// What came behind that.
    unsure: Vec<Bytes>,
}

impl Cover {
    /// All but the last `rest` bytes belong to the snapshot.
    fn take(&mut self, rest: usize) {
        let len: usize = self.unsure.iter().map(Bytes::len).sum();
        let mut left = len.saturating_sub(rest);
        for piece in self.unsure.drain(..) {
            let taken = piece.get(..left.min(piece.len())).unwrap_or_default();
            self.crc = crc32c::crc32c_append(self.crc, taken);
            left -= taken.len();
        }
    }
}

#[derive(Debug)]
enum Stage {
    /// Bytes come and are written.
    Receiving {
        decoder: Box<SnapshotDecoder>,
        /// The decoder has no whole item left.
        is_starving: bool,
    },
    /// All bytes have come; the last of our own are still to be written.
    Writing { tail: Option<Bytes>, leftover: Vec<Bytes> },
    /// The snapshot is made durable, then the record.
    Recording { ops: VecDeque<FileOp>, leftover: Vec<Bytes> },
    /// The file goes.
    Removing,
}

/// What an operation's end meant.
#[derive(Debug, PartialEq, Eq)]
pub enum ReceiveProgress {
    /// Not an operation of this machine.
    NotMine,
    /// Noted.
    Going,
    /// The record is durable: run recovery, before anything else is written.
    Done {
        /// What was pushed behind the snapshot: packets.
        leftover: Bytes,
    },
    /// Given up.
    Failed(ReceiveError),
}

/// Why a snapshot was not received.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ReceiveError {
    /// The bytes are no snapshot. What the server had stays.
    #[error("the leader's snapshot is damaged: {0}")]
    Damage(SnapshotDamage),
    /// The connection ended inside it. What the server had stays.
    #[error("the connection ended inside the leader's snapshot")]
    Ended,
    /// It could not be written. What the server had stays.
    #[error("the leader's snapshot was not written: {0}")]
    File(FileFailure),
    /// The last steps failed. Which of the two histories is on disk is not known: only recovery can
    /// tell, and nothing may be written before.
    #[error("the leader's snapshot may or may not be in place: {0}")]
    Unknown(FileFailure),
}

impl SnapshotReceiver {
    /// Behind a SNAP packet with this zxid. Values longer than `record_bytes_max` are taken for
    /// damage. `first_segment` is above the sequence number of every segment of the log that there
    /// is or that is being made ([`LogWriter::sequence_above`]); nothing is appended to the log
    /// until recovery has run.
    ///
    /// [`LogWriter::sequence_above`]: crate::txnlog::LogWriter::sequence_above
    pub fn begin(
        zxid: Zxid,
        wall: WallMs,
        record_bytes_max: usize,
        first_segment: u64,
        ops: &mut FileOps,
    ) -> Self {
        let install = Install { zxid, first_segment };
        let what = "its zxid is below zero";
        let below_zero = SnapshotDamage { offset: 0, what, is_cut: false };
        Self {
            install,
            encoder: SnapshotEncoder::new(zxid, wall),
            digest: 0,
            shown: zxid,
            offset: 0,
            cover: None,
            stage: Stage::Receiving {
                decoder: Box::new(SnapshotDecoder::for_stream(record_bytes_max)),
                is_starving: true,
            },
            under_way: Some(ops.ask(FileOp::Create { file: install.received() })),
            failure: (zxid < Zxid::ZERO).then_some(ReceiveError::Damage(below_zero)),
        }
    }

    /// Behind the snapshot stands the checksum of all that the connection has brought, which goes
    /// on from `crc`; or none.
    #[must_use]
    pub fn covered(mut self, crc: Option<u32>) -> Self {
        self.cover = crc.map(|crc| Cover { crc, unsure: Vec::new() });
        self
    }

    /// The checksum of everything up to the snapshot's end, once it is whole.
    #[must_use]
    pub fn crc(&self) -> Option<u32> {
        self.cover.as_ref().map(|cover| cover.crc)
    }

    /// Whether it takes more bytes now. What is pushed nevertheless is kept; one piece at a time
    /// bounds what it holds to that, one znode and a few blocks.
    #[must_use]
    pub fn wants_bytes(&self) -> bool {
        let wants = match &self.stage {
            Stage::Receiving { is_starving, .. } => *is_starving,
            Stage::Writing { leftover, .. } => self.is_right(leftover).is_none(),
            Stage::Recording { .. } | Stage::Removing => false,
        };
        wants && self.failure.is_none()
    }

    /// The snapshot's last byte has come: what follows are packets.
    #[must_use]
    pub const fn is_whole(&self) -> bool {
        matches!(self.stage, Stage::Writing { .. } | Stage::Recording { .. })
    }

    /// Takes the next bytes of the connection.
    pub fn push(&mut self, bytes: &Bytes, ops: &mut FileOps) {
        match &mut self.stage {
            Stage::Receiving { decoder, .. } => {
                decoder.push(bytes);
                if let Some(cover) = &mut self.cover {
                    cover.unsure.push(bytes.clone());
                }
                self.decode();
                self.go_on(ops);
            }
            Stage::Writing { leftover, .. } => {
                leftover.push(bytes.clone());
                self.go_on(ops);
            }
            Stage::Recording { leftover, .. } => leftover.push(bytes.clone()),
            Stage::Removing => {}
        }
    }

    /// The connection has ended. A snapshot that is whole, with its checksum, is put in place
    /// nevertheless.
    pub fn closed(&mut self, ops: &mut FileOps) {
        let lacks_some = match &self.stage {
            Stage::Receiving { .. } => true,
            Stage::Writing { leftover, .. } => self.is_right(leftover).is_none(),
            Stage::Recording { .. } | Stage::Removing => false,
        };
        if lacks_some {
            self.failure.get_or_insert(ReceiveError::Ended);
            self.go_on(ops);
        }
    }

    /// An operation ended.
    pub fn on_done(
        &mut self,
        id: FileOpId,
        result: Result<(), FileFailure>,
        ops: &mut FileOps,
    ) -> ReceiveProgress {
        if self.under_way != Some(id) {
            return ReceiveProgress::NotMine;
        }
        self.under_way = None;
        if let Stage::Removing = self.stage {
            // If it could not be removed, the next start does it.
            let failure = self.failure.take().unwrap_or(ReceiveError::Ended);
            return ReceiveProgress::Failed(failure);
        }
        if let Err(failure) = result {
            // Behind the renaming of the record only the flush of its name is left.
            if matches!(&self.stage, Stage::Recording { ops, .. } if ops.len() <= 1) {
                return ReceiveProgress::Failed(ReceiveError::Unknown(failure));
            }
            self.failure.get_or_insert(ReceiveError::File(failure));
        }
        if let Stage::Recording { ops: left, leftover } = &mut self.stage
            && left.is_empty()
        {
            let leftover = Bytes::from(leftover.concat());
            return ReceiveProgress::Done { leftover };
        }
        self.decode();
        self.go_on(ops);
        ReceiveProgress::Going
    }

    /// Takes items while there is room for them.
    fn decode(&mut self) {
        let Stage::Receiving { decoder, is_starving } = &mut self.stage else { return };
        if self.failure.is_some() {
            return;
        }
        *is_starving = false;
        while self.encoder.ready_bytes() < 2 * SNAPSHOT_BLOCK_BYTES_TARGET {
            match decoder.next_item() {
                Ok(Some(SnapshotItem::Session { id, timeout_ms })) => {
                    self.encoder.session(id, timeout_ms);
                }
                Ok(Some(SnapshotItem::Znode { path, data, acl, stat })) => {
                    let data = data.as_deref();
                    let digest = u64::from(znode_digest(&path, data, &stat));
                    self.digest = self.digest.wrapping_add(digest);
                    self.shown = self.shown.max(stat.czxid).max(stat.mzxid).max(stat.pzxid);
                    self.encoder.znode(&path, data, &acl, &stat);
                }
                Ok(None) if decoder.is_over() => return self.end(),
                Ok(None) => {
                    *is_starving = true;
                    if let Some(cover) = &mut self.cover {
                        cover.take(0);
                    }
                    return;
                }
                Err(damage) => {
                    self.failure.get_or_insert(ReceiveError::Damage(damage));
                    return;
                }
            }
        }
    }

    /// The stream is over.
    fn end(&mut self) {
        let Stage::Receiving { decoder, .. } = std::mem::replace(&mut self.stage, Stage::Removing)
        else {
            return;
        };
        match decoder.finish_stream() {
            Ok((_, rest)) => {
                if let Some(cover) = &mut self.cover {
                    cover.take(rest.len());
                }
                let tail = Some(self.encoder.finish_fuzzy(self.digest, self.shown));
                self.stage = Stage::Writing { tail, leftover: vec![rest] };
            }
            Err(damage) => self.failure = Some(ReceiveError::Damage(damage)),
        }
    }

    /// Asks for the next operation, if none is under way.
    fn go_on(&mut self, ops: &mut FileOps) {
        if self.under_way.is_some() {
            return;
        }
        if self.failure.is_some() {
            self.stage = Stage::Removing;
            self.under_way = Some(ops.ask(FileOp::Remove { file: self.install.received() }));
            return;
        }
        if let Some(bytes) = self.next_bytes() {
            let offset = self.offset;
            self.offset += bytes.len() as u64;
            let file = self.install.received();
            let write = FileOp::Write { file, offset, bytes, durable: false };
            self.under_way = Some(ops.ask(write));
            return;
        }
        if let Stage::Writing { leftover, .. } = &self.stage {
            match self.is_right(leftover) {
                None => return,
                Some(true) => {
                    let leftover = leftover.clone();
                    self.stage = Stage::Recording { ops: self.install.write(), leftover };
                }
                Some(false) => {
                    let (offset, what) = (self.offset, "its checksum is another one");
                    let damage = SnapshotDamage { offset, what, is_cut: false };
                    self.failure = Some(ReceiveError::Damage(damage));
                    return self.go_on(ops);
                }
            }
        }
        if let Stage::Recording { ops: left, .. } = &mut self.stage {
            self.under_way = left.pop_front().map(|op| ops.ask(op));
        }
    }

    /// Whether what stands behind the snapshot is its checksum; `None` if that has not come yet.
    fn is_right(&self, leftover: &[Bytes]) -> Option<bool> {
        let Some(cover) = &self.cover else { return Some(true) };
        let behind = leftover.iter().flatten().copied().take(CHECKSUM_BYTES);
        let behind = Bytes::from(behind.collect::<Vec<u8>>());
        if behind.len() < CHECKSUM_BYTES {
            return None;
        }
        let packet = QuorumPacket::decode(&mut Reader::new(&behind));
        Some(packet.is_ok_and(|packet| packet.checksum() == Some(i64::from(cover.crc))))
    }

    /// Our own bytes that are to be written.
    fn next_bytes(&mut self) -> Option<Bytes> {
        match &mut self.stage {
            Stage::Receiving { .. } => self.encoder.take_chunk(SNAPSHOT_BLOCK_BYTES_TARGET),
            Stage::Writing { tail, .. } => tail.take(),
            Stage::Recording { .. } | Stage::Removing => None,
        }
    }
}
