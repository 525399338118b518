//! A small disk in memory, the writer over it, and every row of the recovery table.

use std::collections::BTreeMap;

use bytes::Bytes;

use super::format::{BATCH_HEADER_BYTES, new_name};
use super::scan::{Item, Scanner};
use super::*;
use crate::base::{FileFailure, FileOp, FileOpId, FileOps};
use crate::limits::BLOCK_BYTES;
use crate::model::Zxid;

/// Files as they are on the device; operations run in the order asked.
#[derive(Clone, Default)]
pub(super) struct Disk {
    pub(super) files: BTreeMap<String, Vec<u8>>,
}

impl Disk {
    fn run(&mut self, op: FileOp) {
        match op {
            FileOp::Create { file } => drop(self.files.insert(file.name, Vec::new())),
            FileOp::Write { file, offset, bytes, .. } => {
                assert!(offset.is_multiple_of(4096) && bytes.len().is_multiple_of(4096));
                self.put(&file.name, offset as usize, &bytes);
            }
            FileOp::Zero { file, offset, len } => {
                self.put(&file.name, offset as usize, &vec![0; len as usize]);
            }
            FileOp::Rename { from, to } => {
                let bytes = self.files.remove(&from.name).unwrap();
                self.files.insert(to, bytes);
            }
            FileOp::Remove { file } => drop(self.files.remove(&file.name).unwrap()),
            FileOp::Flush { .. } | FileOp::SyncDir { .. } => {}
            FileOp::WriteNextConfig { .. } | FileOp::WriteConfig { .. } => panic!("{op:?}"),
        }
    }

    fn put(&mut self, name: &str, at: usize, bytes: &[u8]) {
        let file = self.files.get_mut(name).unwrap();
        file.resize(file.len().max(at + bytes.len()), 0);
        file[at..at + bytes.len()].copy_from_slice(bytes);
    }

    pub(super) fn segment(&mut self, sequence: u64) -> &mut Vec<u8> {
        self.files.get_mut(&segment_name(sequence)).unwrap()
    }
}

type Outcome = Result<(LogEnd, Vec<(Zxid, Bytes)>), LogDamage>;

fn recover_with(disk: &mut Disk, mut recovery: LogRecovery, ops_max: usize) -> Option<Outcome> {
    let mut records = Vec::new();
    let mut ops = 0;
    let mut answer = Answer::Next;
    loop {
        answer = match recovery.step(answer) {
            Step::List => Answer::Listing(
                disk.files.iter().map(|(name, bytes)| (name.clone(), bytes.len() as u64)).collect(),
            ),
            Step::Read { file, offset, len } => {
                let range = offset as usize..(offset + len) as usize;
                Answer::Bytes(Bytes::copy_from_slice(&disk.files[&file.name][range]))
            }
            Step::Run(_) if ops == ops_max => return None,
            Step::Run(op) => {
                ops += 1;
                disk.run(op);
                Answer::Done
            }
            Step::Record { zxid, txn } => {
                records.push((zxid, txn));
                Answer::Next
            }
            Step::Done(end) => return Some(Ok((end, records))),
            Step::Refuse(damage) => return Some(Err(damage)),
        };
    }
}

fn recover(disk: &mut Disk, after: i64) -> Outcome {
    recover_with(disk, LogRecovery::new(Zxid(after), 99), usize::MAX).unwrap()
}

fn row(disk: &mut Disk, after: i64) -> RecoveryRow {
    match recover(disk, after) {
        Ok((end, _)) => end.row,
        Err(damage) => damage.row,
    }
}

/// A writer over the disk.
pub(super) struct Log {
    pub(super) writer: LogWriter,
    pub(super) ops: FileOps,
    pub(super) disk: Disk,
}

const CONFIG: LogConfig = LogConfig { segment_bytes_default: 4 << 20 };

impl Log {
    pub(super) fn open(mut disk: Disk, after: i64, seed: u64) -> Self {
        let (end, _) = recover(&mut disk, after).unwrap();
        let mut log =
            Self { writer: LogWriter::new(CONFIG, end, seed), ops: FileOps::default(), disk };
        log.writer.start(&mut log.ops);
        log.settle();
        log
    }

    pub(super) fn settle(&mut self) {
        loop {
            let asked = self.ops.take();
            if asked.is_empty() {
                break;
            }
            for (id, op) in asked {
                self.disk.run(op);
                assert!(self.writer.on_done(id, Ok(()), &mut self.ops).unwrap().mine);
                self.writer.submit(&mut self.ops);
            }
        }
    }

    pub(super) fn append(&mut self, zxid: i64, len: usize) {
        self.writer.append(Zxid(zxid), |buf| buf.extend_from_slice(&txn(zxid, len)));
    }

    /// One batch per zxid, each flushed.
    pub(super) fn write(&mut self, zxids: std::ops::RangeInclusive<i64>, len: usize) {
        for zxid in zxids {
            self.append(zxid, len);
            self.writer.submit(&mut self.ops);
            self.settle();
            assert_eq!(self.writer.flushed_zxid(), Zxid(zxid));
        }
    }
}

pub(super) fn txn(zxid: i64, len: usize) -> Vec<u8> {
    (0..len).map(|index| (zxid as usize * 31 + index) as u8).collect()
}

fn expect_records(records: &[(Zxid, Bytes)], zxids: std::ops::RangeInclusive<i64>, len: usize) {
    let expected: Vec<_> = zxids.map(|zxid| (Zxid(zxid), Bytes::from(txn(zxid, len)))).collect();
    assert_eq!(records, expected);
}

/// A log of `count` one-record batches in one segment, shortened to `blocks` blocks in all so that
/// tests over every byte stay fast.
fn small_log(count: i64, blocks: usize) -> Disk {
    let mut log = Log::open(Disk::default(), 0, 5);
    log.write(1..=count, 100);
    let mut disk = log.disk;
    disk.files.remove(&segment_name(2)).unwrap();
    let file = disk.segment(1);
    file.truncate(blocks * BLOCK_BYTES);
    let mut header = SegmentHeader::decode(file).unwrap();
    header.bytes = file.len() as u64;
    file[..BLOCK_BYTES].copy_from_slice(&header.encode());
    disk
}

/// A log over three segments: records 1..=8, of which 1..=3, 4..=6, 7..=8.
pub(super) fn three_segments() -> Disk {
    let mut disk = Disk::default();
    for zxids in [1..=3, 4..=6, 7..=8] {
        let mut log = Log::open(disk, 0, 7 + *zxids.start() as u64);
        log.write(zxids, 50);
        disk = log.disk;
    }
    disk
}

/// Where batch `number` (from 1) of a small log starts: every batch is one block.
const fn batch_at(number: usize) -> usize {
    number * BLOCK_BYTES
}

#[test]
fn empty_directory() {
    let (end, records) = recover(&mut Disk::default(), 7).unwrap();
    assert_eq!(end, LogEnd::empty(Zxid(7)));
    assert!(records.is_empty());
}

#[test]
fn empty_log() {
    let mut disk = Log::open(Disk::default(), 3, 1).disk;
    assert_eq!(row(&mut disk, 3), RecoveryRow::EmptyLog);
    assert_eq!(row(&mut disk, 2), RecoveryRow::ZxidGap);
    let mut log = Log::open(disk, 3, 2);
    log.write(4..=5, 10);
    let (end, records) = recover(&mut log.disk, 3).unwrap();
    assert_eq!((end.last_zxid, end.row), (Zxid(5), RecoveryRow::CleanEnd));
    expect_records(&records, 4..=5, 10);
}

#[test]
fn clean_end() {
    let mut disk = small_log(4, 8);
    let (end, records) = recover(&mut disk, 1).unwrap();
    assert_eq!(end.row, RecoveryRow::CleanEnd);
    assert_eq!(end.flushed_to, Position { segment: 1, offset: 5 * 4096 });
    assert_eq!((end.next_sequence, end.next_number), (2, 5));
    expect_records(&records, 2..=4, 100);
}

#[test]
fn attested_end() {
    let mut log = Log::open(Disk::default(), 0, 1);
    log.write(1..=2, 10);
    assert!(log.writer.needs_attest());
    log.writer.attest(&mut log.ops);
    log.settle();
    assert!(!log.writer.needs_attest());
    assert_eq!(row(&mut log.disk, 0), RecoveryRow::AttestedEnd);
    // The attested batch is acknowledged: damage to it is refused.
    log.disk.segment(1)[batch_at(2) + 99] ^= 1;
    assert_eq!(row(&mut log.disk, 0), RecoveryRow::DamagedAcknowledged);
}

#[test]
fn torn_tail() {
    let mut disk = small_log(3, 8);
    disk.segment(1)[batch_at(3) + 200] ^= 4;
    disk.files.insert(segment_name(1) + ".new", vec![1]);
    let (end, records) = recover(&mut disk, 0).unwrap();
    assert_eq!((end.row, end.last_zxid), (RecoveryRow::TornTail, Zxid(2)));
    expect_records(&records, 1..=2, 100);
    assert_eq!(disk.files.len(), 1);
    assert_eq!(disk.segment(1).len(), batch_at(3));
    assert_eq!(row(&mut disk, 0), RecoveryRow::AttestedEnd);
    let mut log = Log::open(disk, 0, 77);
    log.write(3..=9, 100);
    expect_records(&recover(&mut log.disk, 0).unwrap().1, 1..=9, 100);
}

/// A cut may be interrupted between any two of its operations and is then repeated.
#[test]
fn torn_tail_cut_survives_a_crash_at_every_operation() {
    let mut torn = three_segments();
    torn.segment(3)[batch_at(2)] ^= 1;
    for ops_max in 0.. {
        let mut disk = torn.clone();
        let whole = recover_with(&mut disk, LogRecovery::new(Zxid(0), 1), ops_max).is_some();
        let (end, records) = recover(&mut disk, 0).unwrap();
        assert_eq!(end.last_zxid, Zxid(7));
        expect_records(&records, 1..=7, 50);
        if whole {
            break;
        }
    }
}

#[test]
fn stale_bytes() {
    let old = small_log(5, 8);
    let mut log = Log::open(Disk::default(), 0, 1234);
    log.write(1..=2, 100);
    let mut disk = log.disk;
    // Batches of another incarnation behind the end, whole and with the right numbers.
    let stale = &old.files[&segment_name(1)][batch_at(3)..batch_at(6)];
    disk.segment(1)[batch_at(3)..batch_at(6)].copy_from_slice(stale);
    let (end, records) = recover(&mut disk, 0).unwrap();
    assert_eq!((end.row, end.last_zxid), (RecoveryRow::StaleBytes, Zxid(2)));
    expect_records(&records, 1..=2, 100);
}

/// Bytes that a dead process writes behind a cut never become part of the log again.
#[test]
fn stale_batch_behind_a_cut_never_revives() {
    let whole = small_log(4, 8);
    let mut disk = whole.clone();
    let cut = LogRecovery::new(Zxid(0), 9).keep_until(Zxid(2));
    let (end, _) = recover_with(&mut disk, cut, usize::MAX).unwrap().unwrap();
    assert_eq!((end.row, end.last_zxid), (RecoveryRow::Truncated, Zxid(2)));
    let mut log = Log::open(disk, 0, 10);
    log.write(3..=3, 20);
    let late = whole.files[&segment_name(1)][batch_at(2)..batch_at(4)].to_vec();
    let mut disk = log.disk;
    disk.put(&segment_name(2), batch_at(2), &late);
    let (end, records) = recover(&mut disk, 0).unwrap();
    assert_eq!(end.last_zxid, Zxid(3));
    assert_eq!(records[2].1, txn(3, 20));
}

#[test]
fn truncated_at_every_zxid() {
    let mut log = Log::open(three_segments(), 0, 55);
    (9..=12).for_each(|zxid| log.append(zxid, 50));
    log.writer.submit(&mut log.ops);
    log.settle();
    for keep in 0..=12 {
        let mut disk = log.disk.clone();
        let cut = LogRecovery::new(Zxid(0), 9).keep_until(Zxid(keep));
        let (end, records) = recover_with(&mut disk, cut, usize::MAX).unwrap().unwrap();
        assert_eq!(end.last_zxid, Zxid(keep));
        expect_records(&records, 1..=keep, 50);
        let mut log = Log::open(disk, 0, 56);
        log.write(keep + 1..=keep + 2, 50);
        let (end, records) = recover(&mut log.disk, 0).unwrap();
        expect_records(&records, 1..=keep + 2, 50);
        assert!(end.segments.iter().is_sorted_by_key(|info| info.sequence));
    }
}

#[test]
fn damaged_acknowledged() {
    let mut disk = small_log(4, 8);
    disk.segment(1)[batch_at(2) + 200] ^= 1;
    let damage = recover(&mut disk, 0).unwrap_err();
    assert_eq!(damage.row, RecoveryRow::DamagedAcknowledged);
    assert_eq!((damage.file, damage.offset), (segment_name(1), batch_at(2) as u64));
    assert_eq!(damage.zxid, Zxid(1));
    // The last batch of a segment is proved by the header of the next.
    let mut disk = three_segments();
    disk.segment(2)[batch_at(3)..batch_at(4)].fill(0);
    assert_eq!(row(&mut disk, 0), RecoveryRow::DamagedAcknowledged);
}

/// A later segment is used only after everything before it is flushed.
#[test]
fn damage_before_a_torn_first_batch_is_no_torn_tail() {
    let mut log = Log::open(Disk::default(), 0, 5);
    log.write(1..=2, 100);
    log.disk.segment(2)[2 * BLOCK_BYTES + 7] = 1;
    assert_eq!(row(&mut log.disk.clone(), 0), RecoveryRow::TornTail);
    log.disk.segment(1)[batch_at(2) + 200] ^= 1;
    assert_eq!(row(&mut log.disk, 0), RecoveryRow::DamagedAcknowledged);
}

#[test]
fn missing_segment() {
    for (sequence, expected) in [
        (1, RecoveryRow::ZxidGap),
        (2, RecoveryRow::MissingSegment),
        (3, RecoveryRow::MissingSegment),
    ] {
        let mut disk = three_segments();
        disk.files.remove(&segment_name(sequence)).unwrap();
        assert_eq!(row(&mut disk, 0), expected, "segment {sequence}");
    }
}

#[test]
fn chain_broken() {
    let mut disk = three_segments();
    let mut other = three_segments();
    let mut header = SegmentHeader::decode(other.segment(2)).unwrap();
    header.nonce ^= 1;
    disk.segment(2)[..BLOCK_BYTES].copy_from_slice(&header.encode());
    assert_eq!(row(&mut disk, 0), RecoveryRow::ChainBroken);
    let mut disk = small_log(2, 8);
    let batch = &mut disk.segment(1)[batch_at(2)..batch_at(3)];
    let mut header = BatchHeader::decode(batch).unwrap();
    header.previous_chain ^= 1;
    header.seal(batch);
    assert_eq!(row(&mut disk, 0), RecoveryRow::ChainBroken);
    // The same batch twice.
    let mut disk = small_log(2, 8);
    disk.segment(1).copy_within(batch_at(2)..batch_at(3), batch_at(3));
    assert_eq!(row(&mut disk, 0), RecoveryRow::ChainBroken);
}

#[test]
fn zxid_gap() {
    let mut log = Log::open(small_log(2, 8), 5, 3);
    log.write(6..=7, 10);
    assert_eq!(row(&mut log.disk, 1), RecoveryRow::ZxidGap);
    let (end, records) = recover(&mut log.disk, 5).unwrap();
    assert_eq!(end.last_zxid, Zxid(7));
    expect_records(&records, 6..=7, 10);
}

#[test]
fn segment_header_damaged() {
    let mut disk = small_log(1, 4);
    disk.segment(1)[3000] = 1;
    assert_eq!(row(&mut disk, 0), RecoveryRow::SegmentHeaderDamaged);
    let mut disk = small_log(1, 4);
    let file = disk.files.remove(&segment_name(1)).unwrap();
    disk.files.insert(segment_name(2), file);
    assert_eq!(row(&mut disk, 0), RecoveryRow::SegmentHeaderDamaged);
}

#[test]
fn segment_length() {
    for len in (0..8 * BLOCK_BYTES).step_by(512) {
        let mut disk = small_log(5, 8);
        disk.segment(1).truncate(len);
        assert_eq!(row(&mut disk, 0), RecoveryRow::SegmentLength, "{len} bytes");
    }
}

#[test]
fn records_damaged() {
    let mut disk = small_log(1, 4);
    let batch = &mut disk.segment(1)[batch_at(1)..batch_at(2)];
    let mut header = BatchHeader::decode(batch).unwrap();
    header.record_count = 2;
    header.seal(batch);
    assert_eq!(row(&mut disk, 0), RecoveryRow::RecordsDamaged);
}

#[test]
fn unusable() {
    let mut recovery = LogRecovery::new(Zxid(0), 1);
    assert_eq!(recovery.step(Answer::Next), Step::List);
    let Step::Refuse(damage) = recovery.step(Answer::Failed(failure(false))) else { panic!() };
    assert_eq!(damage.row, RecoveryRow::Unusable);
    assert!(matches!(recovery.step(Answer::Next), Step::Refuse(_)));
}

/// The log is either refused, or no record is lost that a `flushed_to` on disk proves: all but
/// the last batch.
fn check_damaged(disk: &mut Disk, count: i64, what: &str) {
    if let Ok((end, records)) = recover(disk, 0) {
        let kept = records.len() as i64;
        assert!(count - 1 <= kept, "{what}: {kept} records kept by {:?}", end.row);
        expect_records(&records, 1..=kept, 100);
        assert_eq!(end.last_zxid, Zxid(kept));
    }
}

#[test]
fn every_flipped_byte_is_noticed() {
    let clean = small_log(3, 5);
    for at in 0..5 * BLOCK_BYTES {
        let mut disk = clean.clone();
        disk.segment(1)[at] ^= 1 << (at % 8);
        check_damaged(&mut disk, 3, &format!("flip at {at}"));
    }
}

#[test]
fn every_zeroed_word_is_noticed() {
    let clean = small_log(3, 5);
    for at in (0..5 * BLOCK_BYTES).step_by(4) {
        let mut disk = clean.clone();
        disk.segment(1)[at..at + 4].fill(0);
        check_damaged(&mut disk, 3, &format!("zeros at {at}"));
    }
}

/// Each batch of a long write may be on the device in any of its blocks or sectors.
#[test]
fn every_torn_write_keeps_the_batches_before_it() {
    let mut log = Log::open(Disk::default(), 0, 5);
    log.write(1..=2, 100);
    let before = log.disk.clone();
    let start = batch_at(3);
    (3..=120).for_each(|zxid| log.append(zxid, 100));
    log.writer.submit(&mut log.ops);
    log.settle();
    let end = start + 4 * BLOCK_BYTES;
    let written = log.disk.segment(1)[start..end].to_vec();
    for hole in 0..written.len() / 512 {
        let mut disk = before.clone();
        for (sector, bytes) in written.chunks(512).enumerate().filter(|(sector, _)| *sector != hole)
        {
            disk.put(&segment_name(1), start + sector * 512, bytes);
        }
        let (end, records) = recover(&mut disk, 0).unwrap();
        let whole = disk.segment(1).len() != start;
        assert_eq!(end.last_zxid, if whole { Zxid(120) } else { Zxid(2) });
        assert_eq!(records.len(), if whole { 120 } else { 2 });
    }
}

#[test]
fn writer_acknowledges_only_completed_writes() {
    let mut log = Log::open(Disk::default(), 0, 1);
    log.append(1, 10);
    assert_eq!(log.writer.flushed_zxid(), Zxid(0));
    log.writer.submit(&mut log.ops);
    log.append(2, 10);
    log.writer.submit(&mut log.ops);
    let asked = log.ops.take();
    assert_eq!(asked.len(), 1, "one batch in flight");
    assert!(matches!(asked[0].1, FileOp::Write { durable: true, .. }));
    assert_eq!(log.writer.flushed_zxid(), Zxid(0));
    assert_eq!(log.writer.unflushed_bytes(), 60);
    let other = log.writer.on_done(FileOpId(u64::MAX), Ok(()), &mut log.ops).unwrap();
    assert_eq!(other, LogProgress { mine: false, flushed: Zxid(0) });
    let progress = log.writer.on_done(asked[0].0, Ok(()), &mut log.ops).unwrap();
    assert_eq!(progress, LogProgress { mine: true, flushed: Zxid(1) });
    assert!(!log.writer.is_idle());
}

#[test]
fn writer_is_poisoned_by_the_first_failure() {
    let mut log = Log::open(Disk::default(), 0, 1);
    log.append(1, 10);
    log.writer.submit(&mut log.ops);
    let id = log.ops.take()[0].0;
    assert_eq!(log.writer.on_done(id, Err(failure(true)), &mut log.ops), Err(failure(true)));
    log.append(2, 10);
    log.writer.submit(&mut log.ops);
    log.writer.attest(&mut log.ops);
    log.writer.retry_prepare(&mut log.ops);
    log.writer.remove_before(Zxid(9), &mut log.ops);
    assert!(log.ops.take().is_empty());
    assert_eq!(log.writer.on_done(id, Ok(()), &mut log.ops), Err(failure(true)));
    assert_eq!(log.writer.flushed_zxid(), Zxid(0));
}

#[test]
fn writer_waits_for_space_for_the_next_segment() {
    let mut log = Log::open(Disk::default(), 0, 1);
    // Segments 1 (4 MiB) and 2 (16 MiB) are made; fail the making of 3 when 2 is opened.
    let mut zxid = 0;
    let mut failed = false;
    while log.writer.segments().count() < 3 && zxid < 60 {
        zxid += 1;
        log.append(zxid, 1 << 20);
        log.writer.submit(&mut log.ops);
        for (id, op) in log.ops.take() {
            let zero = matches!(&op, FileOp::Zero { file, .. } if file.name == new_name(3));
            if zero {
                failed = true;
                log.writer.on_done(id, Err(failure(true)), &mut log.ops).unwrap();
            } else {
                log.disk.run(op);
                log.writer.on_done(id, Ok(()), &mut log.ops).unwrap();
            }
        }
    }
    assert!(failed && log.writer.prepare_failure().is_some());
    assert!(!log.writer.is_idle());
    assert!(!log.disk.files.contains_key(&new_name(3)), "what it took up is given back");
    log.writer.retry_prepare(&mut log.ops);
    log.settle();
    log.writer.submit(&mut log.ops);
    log.settle();
    assert_eq!(log.writer.flushed_zxid(), Zxid(zxid));
    expect_records(&recover(&mut log.disk, 0).unwrap().1, 1..=zxid, 1 << 20);
}

#[test]
fn writer_makes_room_for_a_record_longer_than_a_segment() {
    let mut log = Log::open(Disk::default(), 0, 1);
    log.write(1..=2, 20 << 20);
    expect_records(&recover(&mut log.disk, 0).unwrap().1, 1..=2, 20 << 20);
}

#[test]
fn purge_keeps_what_is_needed() {
    let mut log = Log::open(three_segments(), 0, 70);
    log.write(9..=9, 50);
    log.writer.remove_before(Zxid(5), &mut log.ops);
    log.settle();
    let first = log.writer.segments().next().copied().unwrap();
    assert_eq!((first.sequence, first.first, first.last), (2, Zxid(4), Zxid(6)));
    expect_records(&recover(&mut log.disk.clone(), 5).unwrap().1, 6..=9, 50);
    assert_eq!(row(&mut log.disk.clone(), 2), RecoveryRow::ZxidGap);
    log.writer.remove_before(Zxid(9), &mut log.ops);
    log.settle();
    assert_eq!(log.writer.segments().next().unwrap().sequence, 4);
    assert!(recover(&mut log.disk, 9).unwrap().1.is_empty());
}

/// A learner is sent the log from segment 2 on.
#[test]
fn purge_leaves_what_is_being_read() {
    let mut log = Log::open(three_segments(), 0, 70);
    log.write(9..=9, 50);
    let oldest = |log: &Log| log.writer.segments().next().unwrap().sequence;
    log.writer.read_from(Some(2), &mut log.ops);
    log.writer.remove_before(Zxid(9), &mut log.ops);
    log.settle();
    assert_eq!(oldest(&log), 2);
    expect_records(&recover(&mut log.disk.clone(), 3).unwrap().1, 4..=9, 50);
    log.writer.read_from(Some(3), &mut log.ops);
    log.settle();
    assert_eq!(oldest(&log), 3);
    log.writer.read_from(None, &mut log.ops);
    log.settle();
    assert_eq!(oldest(&log), 4);
}

/// What the reader finds: records, and damage as segment, offset and text.
fn inspect(disk: &Disk) -> (usize, Vec<(u64, u64, String)>) {
    let files = disk.files.iter().map(|(name, file)| (name.clone(), file.clone().into()));
    let (mut records, mut damage) = (0, Vec::new());
    for seen in read::records_of(files.collect()) {
        records += usize::from(matches!(seen.what, read::What::Item(Item::Record { .. })));
        if seen.is_damage() {
            damage.push((seen.segment, seen.offset, seen.to_string()));
        }
    }
    (records, damage)
}

#[test]
fn reader_sees_every_record_and_goes_on_behind_damage() {
    let whole = three_segments();
    assert_eq!(inspect(&whole), (8, Vec::new()));
    // Any one batch, in header or body: it alone is missing, and is what is reported first. The
    // last batch of all is proved by nothing.
    for (segment, batches) in [(1, 3), (2, 3), (3, 1)] {
        for number in 1..=batches {
            for byte in [0, 4, 8, 20, 60, 96, 110, 200] {
                let mut disk = whole.clone();
                disk.segment(segment)[batch_at(number) + byte] ^= 1;
                let (records, damage) = inspect(&disk);
                let at = batch_at(number) as u64;
                assert_eq!(records, 7, "{segment} {number} {byte}");
                assert_eq!((damage[0].0, damage[0].1), (segment, at), "{damage:?}");
                assert!(damage.len() <= 2, "{damage:?}");
            }
        }
    }
    // A segment's header.
    let mut disk = whole.clone();
    disk.segment(2)[20] ^= 1;
    let (records, damage) = inspect(&disk);
    assert_eq!((records, damage[0].0, damage[0].1), (8, 2, 0), "{damage:?}");
    // A segment that is gone, one that is cut short, one from elsewhere.
    let mut disk = whole.clone();
    disk.files.remove(&segment_name(2)).unwrap();
    let (records, damage) = inspect(&disk);
    assert_eq!((records, damage[0].0), (5, 3));
    assert!(damage[0].2.contains("txnlog.0000000000000002 on, are absent"), "{damage:?}");
    assert!(damage[1].2.contains("after zxid 0x3 up to 0x6 are absent"), "{damage:?}");
    let mut disk = whole.clone();
    disk.segment(1).truncate(batch_at(3));
    let (records, damage) = inspect(&disk);
    assert_eq!(records, 7);
    assert!(damage[0].2.contains("12288 bytes long"), "{damage:?}");
    assert_eq!((damage[1].0, damage[1].1), (1, batch_at(3) as u64));
    let mut disk = whole;
    let copy = disk.segment(1).clone();
    disk.files.insert(segment_name(2), copy);
    let (_, damage) = inspect(&disk);
    assert!(damage[0].2.contains("header says that this is segment 1"), "{damage:?}");
}

#[test]
fn body_is_a_stream_of_proposals() {
    let disk = small_log(1, 4);
    let file = &disk.files[&segment_name(1)];
    let record = &file[batch_at(1) + BATCH_HEADER_BYTES..][..120];
    let mut expected = vec![0, 0, 0, 2, 0, 0, 0, 0, 0, 0, 0, 1, 0, 0, 0, 100];
    expected.extend(txn(1, 100));
    expected.extend([255; 4]);
    assert_eq!(record, expected);
    let items: Vec<_> = Scanner::new(Bytes::from(file.clone()), None).unwrap().collect();
    assert_eq!(items.len(), 3);
    assert_eq!(items[2], Item::End { at: batch_at(2) as u64 });
}

/// Crashes at every operation of a life with rotation, attestation and purge: what was reported
/// flushed is always there, and what is there is a prefix of what was appended.
#[test]
fn every_crash_keeps_what_was_flushed() {
    const LEN: usize = 900_000;
    for crash_at in 0.. {
        let mut log = Log::open(Disk::default(), 0, 1);
        let (mut ran, mut zxid) = (0, 0);
        'life: while zxid < 12 || !log.writer.is_idle() {
            if zxid < 12 {
                zxid += 1;
                log.append(zxid, LEN);
            }
            log.writer.attest(&mut log.ops);
            log.writer.submit(&mut log.ops);
            for (id, op) in log.ops.take() {
                if ran == crash_at {
                    tear(&mut log.disk, op);
                    break 'life;
                }
                ran += 1;
                log.disk.run(op);
                log.writer.on_done(id, Ok(()), &mut log.ops).unwrap();
            }
        }
        let flushed = log.writer.flushed_zxid();
        let (end, records) = recover(&mut log.disk, 0).unwrap();
        assert!(flushed <= end.last_zxid, "crash at {crash_at}");
        expect_records(&records, 1..=end.last_zxid.0, LEN);
        if ran < crash_at {
            break;
        }
    }
}

/// Every second sector of a write reaches the device.
fn tear(disk: &mut Disk, op: FileOp) {
    if let FileOp::Write { file, offset, bytes, .. } = op {
        for (sector, chunk) in bytes.chunks(512).enumerate().step_by(2) {
            disk.put(&file.name, offset as usize + sector * 512, chunk);
        }
    }
}

proptest::proptest! {
    /// Any bytes behind a whole header are walked to an end.
    #[test]
    fn scanner_accepts_any_bytes(
        noise in proptest::collection::vec(proptest::num::u8::ANY, 0..9000),
        at in 4096usize..16384,
    ) {
        let mut file = small_log(2, 4).files.remove(&segment_name(1)).unwrap();
        let end = file.len().min(at + noise.len());
        file[at..end].copy_from_slice(&noise[..end - at]);
        let mut scanner = Scanner::new(Bytes::from(file), None).unwrap();
        loop {
            proptest::prop_assert!(scanner.by_ref().count() < 10);
            if !scanner.skip_damage() {
                break;
            }
        }
    }
}

fn failure(no_space: bool) -> FileFailure {
    FileFailure { no_space, no_descriptor: false, text: "the disk said no".into() }
}
