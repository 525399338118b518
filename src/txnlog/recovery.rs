//! The machine that finds the end of a log: it pulls listings and bytes, hands out records, and
//! writes only after it has decided, and only to cut.

use std::collections::VecDeque;

use bytes::Bytes;

use super::format::{
    BatchHeader, Link, Position, SEGMENT_HEADER_BYTES, SegmentHeader, SegmentInfo, is_new_name,
    segment_name, segment_sequence,
};
use super::rewrite::{Cut, rewrite};
use super::scan::{Corruption, Item, Scanner, is_zero};
use super::verdict::{LogDamage, LogEnd, RecoveryRow};
use crate::base::{FileDir, FileFailure, FileName, FileOp, Prng};
use crate::limits::BLOCK_BYTES;
use crate::model::Zxid;

/// What the caller must do next, in answer to which it calls [`LogRecovery::step`] again.
#[derive(Clone, Debug, PartialEq)]
pub enum Step {
    /// List the log directory: [`Answer::Listing`].
    List,
    /// Read exactly these bytes: [`Answer::Bytes`]. The whole segment at most; a memory map or a
    /// buffer, which the records of that segment then share.
    Read {
        /// The file.
        file: FileName,
        /// Where, in bytes.
        offset: u64,
        /// How many bytes.
        len: u64,
    },
    /// Run the operation: [`Answer::Done`].
    Run(FileOp),
    /// A record after the snapshot, in order, each once: [`Answer::Next`]. It is part of the log
    /// whatever follows, unless recovery ends with `Refuse`.
    Record {
        /// Its place in the order.
        zxid: Zxid,
        /// The txn's bytes. Shares the segment's buffer: copy what is kept.
        txn: Bytes,
    },
    /// The log is in order and ends here. The machine is over.
    Done(LogEnd),
    /// The log cannot be trusted. The machine is over.
    Refuse(LogDamage),
}

/// The caller's answer to a [`Step`].
#[derive(Clone, Debug)]
pub enum Answer {
    /// The first call, and after each record.
    Next,
    /// Every file of the log directory with its length, in any order.
    Listing(Vec<(String, u64)>),
    /// The bytes asked for.
    Bytes(Bytes),
    /// The operation succeeded.
    Done,
    /// The listing, read or operation failed.
    Failed(FileFailure),
}

/// Recovers one log. Pure: see [`Step`] and [`Answer`].
#[derive(Debug)]
pub struct LogRecovery {
    after: Zxid,
    keep: Option<Zxid>,
    first_segment: u64,
    cuts: bool,
    prng: Prng,

    phase: Phase,
    leftovers: Vec<String>,
    heads: Vec<Head>,

    /// Last zxid of snapshot and log so far.
    zxid: Zxid,
    /// End of the last batch so far.
    end: Position,
    link: Link,
    /// The last segment that keeps a batch.
    last_used: Option<usize>,
    last_is_empty: bool,
    cut: Option<Cut>,
    replayed_bytes: u64,
}

#[derive(Debug)]
enum Phase {
    Start,
    Listing,
    Head { files: Vec<(u64, u64)> },
    Segment { index: usize },
    Scan { index: usize, scanner: Scanner },
    Ops { ops: VecDeque<FileOp>, end: LogEnd },
    Over,
}

/// The front of a segment.
#[derive(Debug)]
struct Head {
    header: SegmentHeader,
    /// The first batch's header, if it is undamaged and of this incarnation.
    first: Option<BatchHeader>,
    /// Bytes of the records that were read; `None` before any was.
    record_bytes: Option<u64>,
}

impl LogRecovery {
    /// Recovers the log over a snapshot that holds everything up to `after`. `seed` feeds the
    /// nonce of a segment that is cut and must be unpredictable in production.
    #[must_use]
    pub const fn new(after: Zxid, seed: u64) -> Self {
        Self {
            after,
            keep: None,
            first_segment: 1,
            cuts: false,
            prng: Prng::new(seed),
            phase: Phase::Start,
            leftovers: Vec::new(),
            heads: Vec::new(),
            zxid: after,
            end: Position { segment: 0, offset: 0 },
            link: Link { chain: 0, number: 1, zxid: after },
            last_used: None,
            last_is_empty: false,
            cut: None,
            replayed_bytes: 0,
        }
    }

    /// Cuts the log: no record after `keep` stays (Zab's TRUNC). The snapshot must not be later.
    #[must_use]
    pub const fn keep_until(mut self, keep: Zxid) -> Self {
        self.keep = Some(keep);
        self
    }

    /// Takes no notice of segments below this sequence number: the caller has removed them.
    #[must_use]
    pub const fn from_segment(mut self, first_segment: u64) -> Self {
        self.first_segment = first_segment;
        self
    }

    /// Records behind the cut were met: the log reached to it. Known with the first [`Step::Run`].
    #[must_use]
    pub const fn cuts(&self) -> bool {
        self.cuts
    }

    /// Goes on with the answer to the last step; [`Answer::Next`] at first. After `Done` or
    /// `Refuse`, every call refuses.
    pub fn step(&mut self, answer: Answer) -> Step {
        let phase = std::mem::replace(&mut self.phase, Phase::Over);
        let next = match (phase, answer) {
            (_, Answer::Failed(failure)) => Err(self.unusable(failure.text)),
            (Phase::Start, Answer::Next) => {
                self.phase = Phase::Listing;
                Ok(Step::List)
            }
            (Phase::Listing, Answer::Listing(files)) => self.on_listing(files),
            (Phase::Head { files }, Answer::Bytes(bytes)) => self.on_head(files, &bytes),
            (Phase::Segment { index }, Answer::Bytes(bytes)) => self.on_segment(index, bytes),
            (Phase::Scan { index, scanner }, Answer::Next) => self.scan(index, scanner),
            (Phase::Ops { ops, end }, Answer::Done) => Ok(self.next_op(ops, end)),
            _ => Err(self.unusable("recovery was given an answer to another question".into())),
        };
        next.unwrap_or_else(|damage| {
            self.phase = Phase::Over;
            Step::Refuse(damage)
        })
    }

    fn on_listing(&mut self, files: Vec<(String, u64)>) -> Result<Step, LogDamage> {
        let mut segments = Vec::new();
        for (name, len) in files {
            if let Some(sequence) = segment_sequence(&name) {
                if self.first_segment <= sequence {
                    segments.push((sequence, len));
                }
            } else if is_new_name(&name) {
                self.leftovers.push(name);
            }
        }
        segments.sort_unstable();
        self.leftovers.sort_unstable();
        for pair in segments.windows(2) {
            if pair[0].0 + 1 != pair[1].0 {
                let file = segment_name(pair[0].0 + 1);
                return Err(self.damage(RecoveryRow::MissingSegment, file, 0, "no such file"));
            }
        }
        if segments.is_empty() {
            let next_sequence = self.first_segment;
            let end = LogEnd { next_sequence, ..LogEnd::empty(self.after) };
            let ops = self.leftover_removals();
            return Ok(self.next_op(ops, end));
        }
        self.read_head(segments)
    }

    fn read_head(&mut self, files: Vec<(u64, u64)>) -> Result<Step, LogDamage> {
        let (sequence, len) = files[self.heads.len()];
        if len < SEGMENT_HEADER_BYTES {
            let file = segment_name(sequence);
            return Err(self.damage(RecoveryRow::SegmentLength, file, len, "no header block"));
        }
        self.phase = Phase::Head { files };
        let file = FileName::log(segment_name(sequence));
        Ok(Step::Read { file, offset: 0, len: len.min(HEAD_BYTES) })
    }

    fn on_head(&mut self, files: Vec<(u64, u64)>, bytes: &[u8]) -> Result<Step, LogDamage> {
        let (sequence, len) = files[self.heads.len()];
        let name = segment_name(sequence);
        let header = match SegmentHeader::decode(bytes) {
            Ok(header) if header.sequence == sequence => header,
            Ok(_) => {
                let detail = "the header is another segment's";
                return Err(self.damage(RecoveryRow::SegmentHeaderDamaged, name, 0, detail));
            }
            Err(error) => {
                let row = RecoveryRow::SegmentHeaderDamaged;
                return Err(self.damage(row, name, 0, error.to_string()));
            }
        };
        if header.bytes != len {
            let detail = format!("{len} bytes long, its header says {}", header.bytes);
            return Err(self.damage(RecoveryRow::SegmentLength, name, len, detail));
        }
        if self.heads.last().is_some_and(|head| head.header.nonce != header.previous_nonce) {
            let detail = "the segment does not follow on from the one before";
            return Err(self.damage(RecoveryRow::ChainBroken, name, 0, detail));
        }
        let first = bytes.get(BLOCK_BYTES..).and_then(|rest| BatchHeader::decode(rest).ok());
        let first = first.filter(|batch| batch.nonce == header.nonce);
        self.heads.push(Head { header, first, record_bytes: None });
        if self.heads.len() < files.len() { self.read_head(files) } else { self.begin() }
    }

    /// Starts at the last segment whose first batch comes right after something the snapshot
    /// holds (and the cut keeps); those before are not read.
    fn begin(&mut self) -> Result<Step, LogDamage> {
        let floor = self.after.min(self.keep.unwrap_or(self.after));
        let holds = |head: &Head| head.first.is_some_and(|first| first.previous_zxid <= floor);
        let start = self.heads.iter().rposition(holds).unwrap_or(0);
        let Head { header, first, .. } = &self.heads[start];
        if let Some(first) = first {
            self.link = first.own_link();
            self.end = first.flushed_to;
        } else if start == 0 && header.flushed_to != Position::default() {
            let detail = "the segment before the first one is absent, or the first batch damaged";
            let name = segment_name(header.sequence);
            return Err(self.damage(RecoveryRow::MissingSegment, name, 0, detail));
        } else {
            self.link.zxid = header.flushed_zxid;
        }
        self.check_gap(start, SEGMENT_HEADER_BYTES, self.link.zxid)?;
        self.last_used = start.checked_sub(1);
        Ok(self.read_segment(start))
    }

    fn read_segment(&mut self, index: usize) -> Step {
        self.phase = Phase::Segment { index };
        let header = &self.heads[index].header;
        let file = FileName::log(segment_name(header.sequence));
        Step::Read { file, offset: 0, len: header.bytes }
    }

    fn on_segment(&mut self, index: usize, bytes: Bytes) -> Result<Step, LogDamage> {
        if bytes.len() as u64 != self.heads[index].header.bytes {
            return Err(self.damage_at(RecoveryRow::SegmentLength, index, 0, "short read"));
        }
        if let Some(cut) = &self.cut {
            // Only one batch is ever in flight: bytes here prove that the batch there was flushed.
            if !is_zero(&bytes[BLOCK_BYTES..]) {
                let (index, offset) = (cut.index, cut.offset);
                let detail = "damaged, and a later segment was written to";
                return Err(self.damage_at(
                    RecoveryRow::DamagedAcknowledged,
                    index,
                    offset,
                    detail,
                ));
            }
            return self.after_segment(index);
        }
        match Scanner::new(bytes, Some(self.link)) {
            Ok(scanner) => self.scan(index, scanner),
            Err(error) => {
                let row = RecoveryRow::SegmentHeaderDamaged;
                Err(self.damage_at(row, index, 0, error.to_string()))
            }
        }
    }

    fn scan(&mut self, index: usize, mut scanner: Scanner) -> Result<Step, LogDamage> {
        while let Some(item) = scanner.next() {
            match item {
                Item::Batch { offset, header } => {
                    self.check_gap(index, offset, header.previous_zxid)?;
                    let Some(keep) = self.keep.filter(|keep| *keep < header.last_zxid) else {
                        self.on_batch(index, offset, &header);
                        continue;
                    };
                    let bytes = scanner.bytes().clone();
                    let partial = (header.first_zxid <= keep).then_some(keep);
                    self.cut = Some(Cut { index, offset, partial, asked: true, bytes });
                    if partial.is_none() {
                        return Ok(self.conclude());
                    }
                }
                Item::Record { zxid, .. } if self.keep.is_some_and(|keep| keep < zxid) => {
                    return Ok(self.conclude());
                }
                Item::Record { zxid, txn, .. } if self.after < zxid => {
                    self.zxid = self.zxid.max(zxid);
                    self.replayed_bytes += txn.len() as u64;
                    self.phase = Phase::Scan { index, scanner };
                    return Ok(Step::Record { zxid, txn });
                }
                Item::Record { .. } => {}
                Item::End { .. } => break,
                Item::Torn { at, .. } => {
                    if !self.next_follows(index) {
                        let bytes = scanner.bytes().clone();
                        self.cut =
                            Some(Cut { index, offset: at, partial: None, asked: false, bytes });
                    }
                    break;
                }
                Item::Corrupt { at, why } => {
                    let row = match why {
                        Corruption::Acknowledged { .. } => RecoveryRow::DamagedAcknowledged,
                        Corruption::ChainBroken => RecoveryRow::ChainBroken,
                        Corruption::Records => RecoveryRow::RecordsDamaged,
                    };
                    return Err(self.damage_at(row, index, at, why.to_string()));
                }
            }
        }
        if self.cut.is_some() || !self.next_follows(index) {
            self.check_proofs(index)?;
        }
        self.after_segment(index)
    }

    fn on_batch(&mut self, index: usize, offset: u64, header: &BatchHeader) {
        self.zxid = self.zxid.max(header.last_zxid);
        self.link = header.next_link();
        self.last_used = Some(index);
        self.last_is_empty = header.record_count == 0;
        let head = &mut self.heads[index];
        *head.record_bytes.get_or_insert(0) += u64::from(header.body_bytes);
        let segment = head.header.sequence;
        self.end = Position { segment, offset: offset + header.padded_bytes() };
    }

    fn after_segment(&mut self, index: usize) -> Result<Step, LogDamage> {
        if index + 1 < self.heads.len() {
            return Ok(self.read_segment(index + 1));
        }
        Ok(self.conclude())
    }

    /// The next segment's first batch follows on from the last batch: this segment is complete,
    /// whatever is behind its end.
    fn next_follows(&self, index: usize) -> bool {
        self.heads.get(index + 1).and_then(|head| head.first).is_some_and(|first| {
            (first.previous_chain, first.number) == (self.link.chain, self.link.number)
        })
    }

    /// No later header may say that more was flushed than was found.
    fn check_proofs(&self, index: usize) -> Result<(), LogDamage> {
        for head in &self.heads[index + 1..] {
            let first = head.first.map(|first| first.flushed_to);
            if first.unwrap_or_default().max(head.header.flushed_to) <= self.end {
                continue;
            }
            let proof = segment_name(head.header.sequence);
            let detail = format!("damaged, and {proof} was written after it had been flushed");
            let offset = match self.end.segment == self.heads[index].header.sequence {
                true => self.end.offset,
                false => SEGMENT_HEADER_BYTES,
            };
            return Err(self.damage_at(RecoveryRow::DamagedAcknowledged, index, offset, detail));
        }
        if self.heads.get(index + 1).is_some_and(|head| head.first.is_some())
            && !self.next_follows(index)
        {
            let detail = "the first batch does not follow on from the segment before";
            let row = RecoveryRow::ChainBroken;
            return Err(self.damage_at(row, index + 1, SEGMENT_HEADER_BYTES, detail));
        }
        Ok(())
    }

    fn check_gap(&self, index: usize, offset: u64, previous: Zxid) -> Result<(), LogDamage> {
        if previous <= self.zxid {
            return Ok(());
        }
        let detail = format!("the log goes on after zxid {previous}; those before it are absent");
        Err(self.damage_at(RecoveryRow::ZxidGap, index, offset, detail))
    }

    /// Everything is read and judged: asks for the writes of a cut, if there is one.
    fn conclude(&mut self) -> Step {
        let mut ops = self.leftover_removals();
        let cut = self.cut.take();
        self.cuts = cut.as_ref().is_some_and(|cut| cut.asked);
        let row = self.row(cut.as_ref());
        let rewritten =
            cut.filter(|cut| cut.partial.is_some() || SEGMENT_HEADER_BYTES < cut.offset);
        if let Some(cut) = &rewritten {
            self.last_used = Some(cut.index);
        }
        // The first segment without a batch may attest the end: it stays until it is replaced.
        let attests = rewritten.is_none() && row != RecoveryRow::Truncated;
        let kept = self.last_used.map_or(0, |index| index + 1) + usize::from(attests);
        for head in self.heads.iter().skip(kept).rev() {
            remove(segment_name(head.header.sequence), &mut ops);
        }
        if let Some(cut) = &rewritten {
            let nonce = self.prng.next_u64() | 1;
            let header = &mut self.heads[cut.index].header;
            let rewritten = rewrite(cut, header, nonce);
            (header.nonce, header.bytes) = (nonce, rewritten.end.offset);
            self.heads[cut.index].record_bytes = None;
            (self.end, self.link) = (rewritten.end, rewritten.link);
            ops.extend(rewritten.ops);
        }
        let end = self.log_end(row);
        self.next_op(ops, end)
    }

    fn row(&self, cut: Option<&Cut>) -> RecoveryRow {
        if let Some(cut) = cut {
            let stale = |header: BatchHeader| header.nonce != self.heads[cut.index].header.nonce;
            let rest = &cut.bytes[cut.offset as usize..];
            return match BatchHeader::decode(rest) {
                _ if cut.asked => RecoveryRow::Truncated,
                Ok(header) if stale(header) => RecoveryRow::StaleBytes,
                _ => RecoveryRow::TornTail,
            };
        }
        if self.end == Position::default() {
            return RecoveryRow::EmptyLog;
        }
        let from = self.last_used.unwrap_or(0);
        let said = self.heads[from..].iter().any(|head| head.header.flushed_to == self.end);
        if said || self.last_is_empty { RecoveryRow::AttestedEnd } else { RecoveryRow::CleanEnd }
    }

    fn log_end(&self, row: RecoveryRow) -> LogEnd {
        let used = self.last_used.map_or(0, |index| index + 1);
        let next_sequence = match self.last_used {
            Some(index) => self.heads[index].header.sequence.saturating_add(1),
            None => self.heads[0].header.sequence,
        };
        let previous_nonce = match self.last_used {
            Some(index) => self.heads[index].header.nonce,
            None => self.heads[0].header.previous_nonce,
        };
        LogEnd {
            row,
            last_zxid: self.zxid,
            flushed_to: self.end,
            chain: self.link.chain,
            next_number: self.link.number,
            next_sequence,
            previous_nonce,
            segments: (0..used).map(|index| self.segment_info(index, used)).collect(),
            replayed_bytes: self.replayed_bytes,
        }
    }

    fn segment_info(&self, index: usize, used: usize) -> SegmentInfo {
        let next_first = self.heads[index + 1..used].iter().find_map(|head| head.first);
        let last = next_first.map_or(self.zxid, |first| first.previous_zxid);
        let Head { header, first, record_bytes } = &self.heads[index];
        let first = first.map_or(last.next(), |first| first.first_zxid);
        let (sequence, bytes) = (header.sequence, header.bytes);
        SegmentInfo { sequence, first, last, bytes, record_bytes: record_bytes.unwrap_or(bytes) }
    }

    fn next_op(&mut self, mut ops: VecDeque<FileOp>, end: LogEnd) -> Step {
        match ops.pop_front() {
            Some(op) => {
                self.phase = Phase::Ops { ops, end };
                Step::Run(op)
            }
            None => Step::Done(end),
        }
    }

    fn leftover_removals(&mut self) -> VecDeque<FileOp> {
        let mut ops = VecDeque::new();
        for name in self.leftovers.drain(..) {
            remove(name, &mut ops);
        }
        ops
    }

    fn unusable(&self, detail: String) -> LogDamage {
        self.damage(RecoveryRow::Unusable, String::new(), 0, detail)
    }

    fn damage_at(
        &self,
        row: RecoveryRow,
        index: usize,
        offset: u64,
        detail: impl Into<String>,
    ) -> LogDamage {
        self.damage(row, segment_name(self.heads[index].header.sequence), offset, detail)
    }

    fn damage(
        &self,
        row: RecoveryRow,
        file: String,
        offset: u64,
        detail: impl Into<String>,
    ) -> LogDamage {
        LogDamage { row, file, offset, zxid: self.zxid, detail: detail.into() }
    }
}

/// Removals are made durable one by one: were they lost out of order, a gap would be left.
fn remove(name: String, ops: &mut VecDeque<FileOp>) {
    ops.push_back(FileOp::Remove { file: FileName::log(name) });
    ops.push_back(FileOp::SyncDir { dir: FileDir::Log });
}

/// What is read of every segment: its header block and the block with its first batch's header.
const HEAD_BYTES: u64 = 2 * SEGMENT_HEADER_BYTES;
