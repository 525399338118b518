//! The machine that writes the log: records into batches, batches into segments, one durable
//! write in flight, and only its completion moves what is flushed.

use std::collections::VecDeque;

use bytes::{Bytes, BytesMut};

use super::cursor::LogCursor;
use super::format::{
    BATCH_HEADER_BYTES, BatchHeader, Position, SEGMENT_HEADER_BYTES, SegmentInfo, padded,
    put_record, segment_name,
};
use super::prepare::{Flushed, Preparation};
use super::verdict::LogEnd;
use crate::base::{FileDir, FileFailure, FileName, FileOp, FileOpId, FileOps, Prng};
use crate::limits::{
    BATCH_BODY_BYTES_TARGET, BLOCK_BYTES, SEGMENT_BYTES_FIRST, SEGMENT_BYTES_SECOND,
};
use crate::model::Zxid;

/// What can be chosen about the log.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LogConfig {
    /// Bytes of the third and every later segment that this writer makes (`preAllocSize`);
    /// rounded up to whole blocks and to at least the first segment's size.
    pub segment_bytes_default: u64,
}

/// What a completion changed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LogProgress {
    /// The operation was the log's.
    pub mine: bool,
    /// Everything up to and including this zxid is durable.
    pub flushed: Zxid,
}

/// Writes the log. Driven by one owner: [`LogWriter::start`] once, [`LogWriter::append`] per txn,
/// [`LogWriter::submit`] once per turn, [`LogWriter::on_done`] per completion. After the first
/// failure of a write or flush nothing is asked any more and `on_done` returns that failure for
/// ever.
#[derive(Debug)]
pub struct LogWriter {
    accepted: Zxid,
    submitted: Zxid,
    flushed: Zxid,
    flushed_to: Position,
    chain: u32,
    next_number: u64,
    attested: bool,

    /// Closed batches first; only the last one still takes records.
    waiting: VecDeque<OpenBatch>,
    in_flight: Option<InFlight>,
    /// Room that the next batch is given: what the last one took, so that it need not grow.
    batch_bytes: usize,
    appended_bytes: u64,

    current: Option<OpenSegment>,
    next: Option<OpenSegment>,
    preparation: Option<Preparation>,
    prepare_failure: Option<FileFailure>,
    next_sequence: u64,
    previous_nonce: u64,
    made_count: u32,

    /// Oldest first; the last ones are `current` and perhaps `next`.
    segments: VecDeque<SegmentInfo>,
    remove_upto: Zxid,
    /// Somebody reads this segment, and will read those behind it.
    read_from: Option<u64>,
    removal: Option<Removal>,

    /// Nothing new is asked: another history is about to take this one's place.
    is_frozen: bool,
    failure: Option<FileFailure>,
    prng: Prng,
    config: LogConfig,
}

/// A batch that records are encoded into. The header's place is kept free in front.
#[derive(Debug)]
struct OpenBatch {
    buf: BytesMut,
    first: Zxid,
    last: Zxid,
    record_count: u32,
}

#[derive(Debug)]
struct InFlight {
    id: FileOpId,
    end: Position,
    last: Zxid,
    attests: bool,
    body: Bytes,
}

/// A segment with room behind `offset`.
#[derive(Clone, Copy, Debug)]
struct OpenSegment {
    sequence: u64,
    nonce: u64,
    bytes: u64,
    offset: u64,
}

/// The oldest segment is going: first the file, then the directory is flushed.
#[derive(Clone, Copy, Debug)]
enum Removal {
    File(FileOpId),
    Directory(FileOpId),
}

impl LogWriter {
    /// A writer that goes on where `end` says. `seed` feeds the nonces and must be unpredictable
    /// in production. Nothing is asked before [`LogWriter::start`].
    #[must_use]
    pub fn new(config: LogConfig, end: LogEnd, seed: u64) -> Self {
        Self {
            accepted: end.last_zxid,
            submitted: end.last_zxid,
            flushed: end.last_zxid,
            flushed_to: end.flushed_to,
            chain: end.chain,
            next_number: end.next_number,
            attested: true,
            waiting: VecDeque::new(),
            in_flight: None,
            batch_bytes: BLOCK_BYTES,
            appended_bytes: end.replayed_bytes,
            current: None,
            next: None,
            preparation: None,
            prepare_failure: None,
            next_sequence: end.next_sequence,
            previous_nonce: end.previous_nonce,
            made_count: 0,
            segments: end.segments.into(),
            remove_upto: Zxid(i64::MIN),
            read_from: None,
            removal: None,
            is_frozen: false,
            failure: None,
            prng: Prng::new(seed),
            config,
        }
    }

    /// Above the sequence number of every segment that there is or that is being made.
    #[must_use]
    pub const fn sequence_above(&self) -> u64 {
        // A file with the next number may be there without a batch, or be being made.
        self.next_sequence + 1
    }

    /// From here on nothing new is asked; what is under way ends. For a log that is about to be cut
    /// or replaced.
    pub const fn freeze(&mut self) {
        self.is_frozen = true;
    }

    /// It stays after all.
    pub fn thaw(&mut self, ops: &mut FileOps) {
        self.is_frozen = false;
        if self.next.is_none() && self.prepare_failure.is_none() {
            self.prepare(ops);
        }
    }

    /// Asks for the first segment. Its header attests the end of the log that was recovered.
    pub fn start(&mut self, ops: &mut FileOps) {
        assert!(self.made_count == 0, "a log is started once");
        self.prepare(ops);
    }

    /// Takes a txn: `encode` writes its bytes (header, record, digest) into the open batch.
    ///
    /// # Panics
    /// If `zxid` is not higher than every one accepted before.
    pub fn append(&mut self, zxid: Zxid, encode: impl FnOnce(&mut BytesMut)) {
        assert!(self.accepted < zxid, "zxids of one log grow");
        if self.failure.is_some() {
            return;
        }
        let full = |batch: &OpenBatch| BATCH_BODY_BYTES_TARGET <= batch.body_bytes();
        if self.waiting.back().is_none_or(full) {
            self.waiting.push_back(OpenBatch::new(self.accepted, self.batch_bytes));
        }
        let batch = self.waiting.back_mut().expect("a batch was just made sure of");
        let before = batch.buf.len();
        put_record(&mut batch.buf, zxid, encode);
        self.appended_bytes += (batch.buf.len() - before) as u64;
        if batch.record_count == 0 {
            batch.first = zxid;
        }
        batch.last = zxid;
        batch.record_count += 1;
        self.accepted = zxid;
    }

    /// Once per turn: writes the next batch if none is in flight and a segment has room.
    pub fn submit(&mut self, ops: &mut FileOps) {
        if self.failure.is_some() || self.in_flight.is_some() || self.is_frozen {
            return;
        }
        let Some(need) = self.waiting.front().map(OpenBatch::padded_bytes) else {
            return;
        };
        if !self.make_room(need, ops) {
            return;
        }
        let batch = self.waiting.pop_front().expect("a batch waits");
        self.write(batch, ops);
        self.check();
    }

    /// Takes the completion of an operation.
    ///
    /// # Errors
    /// The first failure that makes the log unusable, from then on for ever.
    pub fn on_done(
        &mut self,
        id: FileOpId,
        result: Result<(), FileFailure>,
        ops: &mut FileOps,
    ) -> Result<LogProgress, FileFailure> {
        if let Some(failure) = &self.failure {
            return Err(failure.clone());
        }
        let mine = self.on_batch_done(id, &result)
            || self.on_prepare_done(id, &result, ops)
            || self.on_removal_done(id, &result, ops);
        self.check();
        match &self.failure {
            Some(failure) => Err(failure.clone()),
            None => Ok(LogProgress { mine, flushed: self.flushed }),
        }
    }

    /// When idle and the last batch is not attested: writes an empty batch behind it. At a clean
    /// stop, the log is complete once [`LogWriter::needs_attest`] is false.
    pub fn attest(&mut self, ops: &mut FileOps) {
        if self.needs_attest() {
            self.waiting.push_back(OpenBatch::new(self.accepted, BLOCK_BYTES));
            self.submit(ops);
        }
    }

    /// Everything accepted is flushed and the last batch is one that nothing on disk proves yet.
    #[must_use]
    pub fn needs_attest(&self) -> bool {
        self.failure.is_none() && self.is_idle() && !self.attested
    }

    /// The failure that ended this log, if one did.
    #[must_use]
    pub const fn failure(&self) -> Option<&FileFailure> {
        self.failure.as_ref()
    }

    /// Everything up to and including this zxid is durable. Never decreases.
    #[must_use]
    pub const fn flushed_zxid(&self) -> Zxid {
        self.flushed
    }

    /// The last zxid appended.
    #[must_use]
    pub const fn accepted_zxid(&self) -> Zxid {
        self.accepted
    }

    /// Nothing waits and nothing is in flight.
    #[must_use]
    pub fn is_idle(&self) -> bool {
        self.waiting.is_empty() && self.in_flight.is_none()
    }

    /// No operation is under way.
    #[must_use]
    pub const fn is_quiet(&self) -> bool {
        self.in_flight.is_none() && self.preparation.is_none() && self.removal.is_none()
    }

    /// A segment is open: batches can be written.
    #[must_use]
    pub const fn is_ready(&self) -> bool {
        self.current.is_some()
    }

    /// Bytes of records appended and not yet durable.
    #[must_use]
    pub fn unflushed_bytes(&self) -> usize {
        let in_flight = self.in_flight.as_ref().map_or(0, |batch| batch.body.len());
        in_flight + self.waiting.iter().map(OpenBatch::body_bytes).sum::<usize>()
    }

    /// Bytes of records appended so far, counting those that recovery replayed. Never decreases.
    #[must_use]
    pub const fn appended_bytes(&self) -> u64 {
        self.appended_bytes
    }

    /// The records of the batch in flight, as PROPOSAL packets: the byte stream for learners.
    #[must_use]
    pub fn in_flight_body(&self) -> Option<&Bytes> {
        self.in_flight.as_ref().map(|batch| &batch.body)
    }

    /// The write of the batch in flight, with the size of its segment in bytes.
    #[must_use]
    pub fn flushing(&self) -> Option<(FileOpId, u64)> {
        let segment = self.current.as_ref()?;
        self.in_flight.as_ref().map(|batch| (batch.id, segment.bytes))
    }

    /// Why no segment is ready for what comes next, if the disk was full when one was to be made.
    #[must_use]
    pub const fn prepare_failure(&self) -> Option<&FileFailure> {
        self.prepare_failure.as_ref()
    }

    /// Whether a segment behind the open one is ready.
    #[must_use]
    pub const fn has_reserve(&self) -> bool {
        self.next.is_some()
    }

    /// Bytes that can be written without another segment.
    #[must_use]
    pub fn room_bytes(&self) -> u64 {
        let open = [self.current, self.next].into_iter().flatten();
        open.map(|segment| segment.bytes - segment.offset).sum()
    }

    /// Called by a timer: tries again to make the next segment if the disk was full.
    pub fn retry_prepare(&mut self, ops: &mut FileOps) {
        if self.prepare_failure.is_some() {
            self.prepare(ops);
        }
    }

    /// The segments of the log, oldest first.
    pub fn segments(&self) -> impl Iterator<Item = &SegmentInfo> {
        self.segments.iter()
    }

    /// Asks the removal of the segments that hold no record after `zxid`, oldest first, each
    /// one's removal made durable before the next. The segment that holds the flushed position
    /// always stays.
    pub fn remove_before(&mut self, zxid: Zxid, ops: &mut FileOps) {
        self.remove_upto = self.remove_upto.max(zxid);
        if self.removal.is_none() {
            self.remove_oldest(ops);
        }
    }

    /// The log is durable up to here.
    #[must_use]
    pub const fn flushed_to(&self) -> Position {
        self.flushed_to
    }

    /// A cursor for the records behind `after`, and bytes of the records from its first segment on:
    /// an upper bound. It begins with the oldest segment where the log does not reach as far;
    /// `None` if nothing is durable in any.
    #[must_use]
    pub fn cursor(&self, after: Zxid) -> Option<(LogCursor, u64)> {
        let going = usize::from(matches!(self.removal, Some(Removal::File(_))));
        let durable = |info: &&SegmentInfo| info.sequence <= self.flushed_to.segment;
        let mut record_bytes = 0;
        let mut sequence = None;
        for info in self.segments.iter().skip(going).filter(durable).rev() {
            record_bytes += info.record_bytes;
            sequence = Some(info.sequence);
            if info.first <= after {
                break;
            }
        }
        Some((LogCursor::new(sequence?, after), record_bytes))
    }

    /// The segments from this one on are not removed until another one, or none, is named here.
    pub fn read_from(&mut self, segment: Option<u64>, ops: &mut FileOps) {
        self.read_from = segment;
        if self.removal.is_none() {
            self.remove_oldest(ops);
        }
    }

    /// Opens the next segment if the current one has no room for `need` bytes.
    fn make_room(&mut self, need: u64, ops: &mut FileOps) -> bool {
        if self.current.is_some_and(|segment| segment.has_room(need)) {
            return true;
        }
        match self.next {
            Some(next) if next.has_room(need) => self.open(next, ops),
            // A record longer than any configured segment: one as long as it takes replaces it.
            Some(next) if self.current.is_some() && self.preparation.is_none() => {
                self.segments.pop_back();
                self.next = None;
                self.next_sequence = next.sequence;
                self.prepare(ops);
                return false;
            }
            _ => return false,
        }
        true
    }

    fn open(&mut self, segment: OpenSegment, ops: &mut FileOps) {
        self.current = Some(segment);
        self.next = None;
        self.previous_nonce = segment.nonce;
        let (first, last) = (self.submitted.next(), self.submitted);
        let info = self.info_mut(segment.sequence);
        (info.first, info.last) = (first, last);
        self.prepare(ops);
    }

    fn info_mut(&mut self, sequence: u64) -> &mut SegmentInfo {
        let info = self.segments.iter_mut().find(|info| info.sequence == sequence);
        info.expect("the open segment is listed")
    }

    fn write(&mut self, batch: OpenBatch, ops: &mut FileOps) {
        let segment = self.current.as_mut().expect("room was made in an open segment");
        let OpenBatch { mut buf, first, last, record_count } = batch;
        let body_bytes = buf.len() - BATCH_HEADER_BYTES;
        let mut header = BatchHeader {
            nonce: segment.nonce,
            number: self.next_number,
            body_bytes: u32::try_from(body_bytes).expect("a batch is far below 4 GiB"),
            record_count,
            previous_zxid: self.submitted,
            first_zxid: first,
            last_zxid: last,
            flushed_to: self.flushed_to,
            body_crc: 0,
            previous_chain: self.chain,
            chain: 0,
        };
        buf.resize(buf.len().next_multiple_of(BLOCK_BYTES), 0);
        header.seal(&mut buf);
        self.batch_bytes = buf.len();
        let bytes = buf.freeze();
        let body = bytes.slice(BATCH_HEADER_BYTES..BATCH_HEADER_BYTES + body_bytes);
        let offset = segment.offset;
        segment.offset += bytes.len() as u64;
        assert!(segment.offset <= segment.bytes);
        let end = Position { segment: segment.sequence, offset: segment.offset };
        let file = FileName::log(segment_name(segment.sequence));
        let id = ops.ask(FileOp::Write { file, offset, bytes, durable: true });
        self.chain = header.chain;
        self.next_number += 1;
        self.submitted = last;
        self.in_flight = Some(InFlight { id, end, last, attests: record_count == 0, body });
        let info = self.info_mut(end.segment);
        info.last = last;
        info.record_bytes += body_bytes as u64;
    }

    fn on_batch_done(&mut self, id: FileOpId, result: &Result<(), FileFailure>) -> bool {
        let Some(batch) = self.in_flight.take_if(|batch| batch.id == id) else {
            return false;
        };
        match result {
            Ok(()) => {
                self.flushed = batch.last;
                self.flushed_to = batch.end;
                self.attested = batch.attests;
            }
            Err(failure) => self.failure = Some(failure.clone()),
        }
        true
    }

    fn on_prepare_done(
        &mut self,
        id: FileOpId,
        result: &Result<(), FileFailure>,
        ops: &mut FileOps,
    ) -> bool {
        let Some(mut preparation) = self.preparation.take_if(|preparation| preparation.owns(id))
        else {
            return false;
        };
        if preparation.is_given_back() {
            return true;
        }
        if let Err(failure) = result {
            if failure.no_space && self.current.is_some() {
                self.prepare_failure = Some(failure.clone());
                preparation.give_back(ops);
                self.preparation = Some(preparation);
            } else {
                self.failure = Some(failure.clone());
            }
            return true;
        }
        let flushed = Flushed { zxid: self.flushed, to: self.flushed_to };
        if preparation.advance(flushed, ops) {
            self.on_prepared(&preparation, ops);
        } else {
            self.preparation = Some(preparation);
        }
        true
    }

    fn on_prepared(&mut self, made: &Preparation, ops: &mut FileOps) {
        let &Preparation { sequence, nonce, bytes, .. } = made;
        let segment = OpenSegment { sequence, nonce, bytes, offset: SEGMENT_HEADER_BYTES };
        let first = self.submitted.next();
        // A segment without a batch that recovery listed is replaced by the rename.
        self.segments.retain(|info| info.sequence < sequence);
        let last = self.submitted;
        self.segments.push_back(SegmentInfo { sequence, first, last, bytes, record_bytes: 0 });
        self.made_count += 1;
        self.next_sequence = sequence + 1;
        if self.current.is_none() {
            self.open(segment, ops);
        } else {
            self.next = Some(segment);
        }
    }

    fn prepare(&mut self, ops: &mut FileOps) {
        if self.failure.is_some() || self.preparation.is_some() || self.is_frozen {
            return;
        }
        let nonce = loop {
            match self.prng.next_u64() {
                0 => {}
                nonce => break nonce,
            }
        };
        let ladder = match self.made_count {
            0 => SEGMENT_BYTES_FIRST,
            1 => SEGMENT_BYTES_SECOND,
            _ => self.config.segment_bytes_default.max(SEGMENT_BYTES_FIRST),
        };
        let need = self.waiting.front().map_or(0, OpenBatch::padded_bytes);
        let bytes = ladder.max(SEGMENT_HEADER_BYTES + need).next_multiple_of(BLOCK_BYTES as u64);
        self.prepare_failure = None;
        let (sequence, previous) = (self.next_sequence, self.previous_nonce);
        self.preparation = Some(Preparation::start(sequence, nonce, bytes, previous, ops));
    }

    fn remove_oldest(&mut self, ops: &mut FileOps) {
        if self.failure.is_some() || self.is_frozen {
            return;
        }
        let Some(oldest) = self.segments.front() else { return };
        let is_read = self.read_from.is_some_and(|segment| segment <= oldest.sequence);
        if oldest.last <= self.remove_upto && oldest.sequence < self.flushed_to.segment && !is_read
        {
            let file = FileName::log(segment_name(oldest.sequence));
            self.removal = Some(Removal::File(ops.ask(FileOp::Remove { file })));
        }
    }

    fn on_removal_done(
        &mut self,
        id: FileOpId,
        result: &Result<(), FileFailure>,
        ops: &mut FileOps,
    ) -> bool {
        match self.removal {
            Some(Removal::File(mine)) if mine == id => {
                // A file that cannot be removed harms nothing: the next purge tries again.
                self.removal = None;
                if result.is_ok() {
                    self.segments.pop_front();
                    let id = ops.ask(FileOp::SyncDir { dir: FileDir::Log });
                    self.removal = Some(Removal::Directory(id));
                }
                true
            }
            Some(Removal::Directory(mine)) if mine == id => {
                self.removal = None;
                match result {
                    Ok(()) => self.remove_oldest(ops),
                    Err(failure) => self.failure = Some(failure.clone()),
                }
                true
            }
            _ => false,
        }
    }

    /// The invariants between calls.
    pub fn check(&self) {
        assert!(self.flushed <= self.submitted);
        assert!(self.submitted <= self.accepted);
        assert!(
            self.in_flight.is_some() || self.flushed == self.submitted || self.failure.is_some()
        );
        assert!(!self.waiting.is_empty() || self.submitted == self.accepted);
        assert!(self.segments.iter().is_sorted_by_key(|info| info.sequence));
    }
}

impl OpenBatch {
    fn new(previous: Zxid, capacity: usize) -> Self {
        let mut buf = BytesMut::with_capacity(capacity);
        buf.resize(BATCH_HEADER_BYTES, 0);
        Self { buf, first: previous, last: previous, record_count: 0 }
    }

    fn body_bytes(&self) -> usize {
        self.buf.len() - BATCH_HEADER_BYTES
    }

    fn padded_bytes(&self) -> u64 {
        padded(self.body_bytes() as u64)
    }
}

impl OpenSegment {
    const fn has_room(&self, need: u64) -> bool {
        need <= self.bytes - self.offset
    }
}
