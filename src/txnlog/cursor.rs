//! [`LogCursor`]: the records behind one zxid, read in pieces out of a log that is being written,
//! for learners that lack more than is kept in memory.
//!
//! Whoever drives it reads what it asks for, which is never behind what is durable. Every batch
//! must follow on from the one before (chain, number, zxid): whatever becomes of the files
//! meanwhile, no record is left out, and what is no longer there is an error.

use std::collections::VecDeque;

use bytes::{Bytes, BytesMut};

use super::format::{
    BATCH_HEADER_BYTES, BatchHeader, Link, Position, RECORD_FRAME_BYTES, SEGMENT_HEADER_BYTES,
    SegmentHeader, segment_name, take_record,
};
use crate::base::{FileName, FilePart};
use crate::limits::BLOCK_BYTES;
use crate::model::Zxid;

/// A place in a log, and what was read there. See the module's documentation.
#[derive(Debug)]
pub struct LogCursor {
    after: Zxid,
    /// The segment that it began with, and the one that it is in.
    first_segment: u64,
    segment: u64,
    /// Offset in the segment of what is read and not understood yet: the front of a batch.
    offset: u64,
    rest: Bytes,
    /// The segment's, once its header was read.
    nonce: Option<u64>,
    previous_nonce: Option<u64>,
    /// What the next batch must follow on from; `None` before the first one.
    link: Option<Link>,
    /// The last zxid at or before `after` that was met.
    floor: Zxid,
    passed_bytes: u64,
    records: VecDeque<(Zxid, Bytes)>,
}

/// Why the records cannot be read.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum LogUnread {
    /// The log begins behind the zxid.
    #[error("the log goes on behind {0} only")]
    Begins(Zxid),
    /// What is there is not what was written.
    #[error("{} offset {offset}: {what}", segment_name(*.segment))]
    Damaged {
        /// Sequence number of the segment.
        segment: u64,
        /// Where, in bytes.
        offset: u64,
        /// What is wrong.
        what: &'static str,
    },
}

/// Whether the walk can go on with what was read.
enum Step {
    On,
    NeedsBytes,
}

impl LogCursor {
    /// Before the records behind `after`, of which `segment` may hold the first and none before it
    /// does.
    #[must_use]
    pub const fn new(segment: u64, after: Zxid) -> Self {
        Self {
            after,
            first_segment: segment,
            segment,
            offset: 0,
            rest: Bytes::new(),
            nonce: None,
            previous_nonce: None,
            link: None,
            floor: Zxid::ZERO,
            passed_bytes: 0,
            records: VecDeque::new(),
        }
    }

    /// Sequence number of the segment that is read next: it and those behind it are needed.
    #[must_use]
    pub const fn segment(&self) -> u64 {
        self.segment
    }

    /// The last txn of the log at or before the zxid that it was made with, and the bytes of the
    /// records that were passed over up to it, in the order of the log from the cursor's first
    /// segment on. `None` until a record behind that zxid was met.
    #[must_use]
    pub fn found(&self) -> Option<(Zxid, u64)> {
        (!self.records.is_empty()).then_some((self.floor, self.passed_bytes))
    }

    /// Records were read and not taken.
    #[must_use]
    pub fn has_records(&self) -> bool {
        !self.records.is_empty()
    }

    /// Takes the next records, not much more than `bytes` of them and none behind `upto`.
    pub fn take(&mut self, bytes: usize, upto: Zxid) -> Vec<(Zxid, Bytes)> {
        let mut taken = Vec::new();
        let mut len = 0;
        while len < bytes
            && self.records.front().is_some_and(|(zxid, _)| *zxid <= upto)
            && let Some((zxid, txn)) = self.records.pop_front()
        {
            len += txn.len();
            taken.push((zxid, txn));
        }
        taken
    }

    /// What to read next, about `len` bytes, of a log that is durable up to `end`; `None` if
    /// everything up to there was read.
    #[must_use]
    pub fn wants(&self, end: Position, len: u64) -> Option<FilePart> {
        let offset = self.offset + self.rest.len() as u64;
        let here = Position { segment: self.segment, offset };
        if end <= here {
            return None;
        }
        let limit = if self.segment == end.segment { end.offset } else { u64::MAX };
        let batch = BatchHeader::decode(&self.rest).map_or(0, |header| header.padded_bytes());
        let missing = batch.saturating_sub(self.rest.len() as u64);
        let len = len.max(missing).max(SEGMENT_HEADER_BYTES).min(limit - offset);
        Some(FilePart { file: FileName::log(segment_name(self.segment)), offset, len })
    }

    /// Takes what was read of `part`, which it asked for.
    ///
    /// # Errors
    /// [`LogUnread`]; the cursor is of no more use then.
    pub fn push(&mut self, part: &FilePart, bytes: Bytes, end: Position) -> Result<(), LogUnread> {
        let is_last = (bytes.len() as u64) < part.len;
        self.rest = match self.rest.is_empty() {
            true => bytes,
            false => {
                let mut both = BytesMut::with_capacity(self.rest.len() + bytes.len());
                both.extend_from_slice(&self.rest);
                both.extend_from_slice(&bytes);
                both.freeze()
            }
        };
        loop {
            match self.step()? {
                Some(Step::On) => {}
                Some(Step::NeedsBytes) if !is_last => return Ok(()),
                // No whole batch is here: the log goes on in the next segment, whose first batch
                // tells whether this was the last one.
                _ if self.segment < end.segment => {
                    self.previous_nonce = self.nonce.take();
                    (self.segment, self.offset, self.rest) = (self.segment + 1, 0, Bytes::new());
                    return Ok(());
                }
                Some(Step::NeedsBytes) | None => {
                    // What is durable may end right here.
                    let at_end = self.rest.is_empty() && self.position() == end;
                    return if at_end { Ok(()) } else { Err(self.damaged("no batch is here")) };
                }
            }
        }
    }

    fn position(&self) -> Position {
        Position { segment: self.segment, offset: self.offset }
    }

    /// Walks over the segment's header or over one batch; `None` if neither is here.
    fn step(&mut self) -> Result<Option<Step>, LogUnread> {
        let Some(nonce) = self.nonce else {
            if self.rest.len() < BLOCK_BYTES {
                return Ok(Some(Step::NeedsBytes));
            }
            let Ok(header) = SegmentHeader::decode(&self.rest) else {
                return Err(self.damaged("the segment's header is damaged"));
            };
            let follows = self.previous_nonce.is_none_or(|nonce| nonce == header.previous_nonce);
            if header.sequence != self.segment || !follows {
                return Err(self.damaged("it is another segment"));
            }
            self.nonce = Some(header.nonce);
            self.pass(BLOCK_BYTES);
            return Ok(Some(Step::On));
        };
        if self.rest.len() < BATCH_HEADER_BYTES {
            return Ok(Some(Step::NeedsBytes));
        }
        let header = BatchHeader::decode(&self.rest).ok().filter(|header| header.nonce == nonce);
        let Some(header) = header else { return Ok(None) };
        let len = usize::try_from(header.padded_bytes()).unwrap_or(usize::MAX);
        let Some(body) = self.rest.get(BATCH_HEADER_BYTES..len) else {
            return Ok(Some(Step::NeedsBytes));
        };
        if header.body_crc != crc32c::crc32c(body) {
            return Ok(None);
        }
        match self.link {
            Some(link) if link != header.own_link() => {
                return Err(self.damaged("the batch does not follow on from the one before"));
            }
            None if self.after < header.previous_zxid => {
                return Err(match self.segment == self.first_segment {
                    true => LogUnread::Begins(header.previous_zxid),
                    false => self.damaged("the segment before has no batch"),
                });
            }
            None => self.floor = header.previous_zxid,
            Some(_) => {}
        }
        let end = BATCH_HEADER_BYTES + header.body_bytes as usize;
        let mut body = self.rest.slice(BATCH_HEADER_BYTES..end);
        while let Some((zxid, txn)) = take_record(&mut body) {
            if zxid <= self.after {
                self.floor = zxid;
                self.passed_bytes += (RECORD_FRAME_BYTES + txn.len()) as u64;
            } else {
                self.records.push_back((zxid, txn));
            }
        }
        if !body.is_empty() {
            return Err(self.damaged("the batch's records contradict its header"));
        }
        self.link = Some(header.next_link());
        self.pass(len);
        Ok(Some(Step::On))
    }

    fn pass(&mut self, len: usize) {
        self.offset += len as u64;
        self.rest = self.rest.slice(len..);
    }

    const fn damaged(&self, what: &'static str) -> LogUnread {
        LogUnread::Damaged { segment: self.segment, offset: self.offset, what }
    }
}
