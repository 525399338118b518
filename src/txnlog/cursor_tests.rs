//! A cursor finds what is behind any zxid, whatever the pieces in which it reads, and never leaves
//! anything out when files are gone or damaged.

use bytes::Bytes;

use super::tests::{Disk, Log, three_segments, txn};
use super::*;
use crate::model::Zxid;

/// All records that a cursor reads up to the end of what is durable, and where it found the zxid.
#[derive(Debug, PartialEq)]
struct Read {
    floor: Option<Zxid>,
    bytes_after: u64,
    records: Vec<(Zxid, Bytes)>,
}

fn read(log: &Log, after: i64, len: u64) -> Result<Read, LogUnread> {
    let end = log.writer.flushed_to();
    let (mut cursor, record_bytes) = log.writer.cursor(Zxid(after)).expect("the log is not empty");
    let mut read = Read { floor: None, bytes_after: record_bytes, records: Vec::new() };
    while let Some(part) = cursor.wants(end, len) {
        let file = log.disk.files.get(&part.file.name).map(Vec::as_slice).unwrap_or_default();
        let from = file.len().min(part.offset as usize);
        let to = file.len().min((part.offset + part.len) as usize);
        cursor.push(&part, Bytes::copy_from_slice(&file[from..to]), end)?;
        if let (None, Some((floor, passed_bytes))) = (read.floor, cursor.found()) {
            read.floor = Some(floor);
            read.bytes_after = record_bytes - passed_bytes;
        }
        read.records.extend(cursor.take(usize::MAX, Zxid(i64::MAX)));
        assert!(!cursor.has_records());
    }
    Ok(read)
}

fn records(zxids: impl Iterator<Item = i64>, len: usize) -> Vec<(Zxid, Bytes)> {
    zxids.map(|zxid| (Zxid(zxid), Bytes::from(txn(zxid, len)))).collect()
}

/// Three segments of earlier runs, and one that is written to: 1..=8, and 10 to 20 by twos.
fn log() -> Log {
    let mut log = Log::open(three_segments(), 0, 1);
    for zxid in (10..=20).step_by(2) {
        log.append(zxid, 50);
        if zxid % 4 == 0 {
            log.writer.submit(&mut log.ops);
            log.settle();
        }
    }
    log
}

#[test]
fn what_is_behind_a_zxid_is_found_whatever_the_pieces() {
    let log = log();
    let all: Vec<i64> = (1..=8).chain((10..=20).step_by(2)).collect();
    for len in [1, 4096, 10_000, 1 << 30] {
        for after in 0..20 {
            let behind = all.iter().copied().filter(|zxid| after < *zxid);
            let expected = records(behind, 50);
            let floor = all.iter().copied().filter(|zxid| *zxid <= after).max().unwrap_or(0);
            let read = read(&log, after, len).unwrap();
            assert_eq!(
                (read.floor, &read.records),
                (Some(Zxid(floor)), &expected),
                "{after} {len}"
            );
            let frames = (expected.len() * (50 + 20)) as u64;
            assert!(frames <= read.bytes_after, "{frames} bytes, not {}", read.bytes_after);
            if 6 < after {
                assert_eq!(read.bytes_after, frames, "what this run has read or written is known");
            }
        }
    }
    assert_eq!(read(&log, 20, 4096).unwrap().records, []);
}

#[test]
fn what_is_not_durable_is_not_read() {
    let mut log = log();
    log.append(22, 50);
    log.writer.submit(&mut log.ops);
    let is_read = read(&log, 18, 4096).unwrap();
    assert_eq!(is_read.records, records([20].into_iter(), 50));
    log.settle();
    assert_eq!(read(&log, 18, 4096).unwrap().records, records([20, 22].into_iter(), 50));
}

#[test]
fn a_cursor_goes_on_where_the_log_does() {
    let mut log = Log::open(Disk::default(), 0, 1);
    log.write(1..=3, 100);
    let (mut cursor, _) = log.writer.cursor(Zxid(1)).unwrap();
    let mut found = Vec::new();
    // Each record fills most of a segment, so that the log goes on in others.
    for zxid in 4..=12 {
        let end = log.writer.flushed_to();
        while let Some(part) = cursor.wants(end, 1 << 20) {
            let file = &log.disk.files[&part.file.name];
            let to = file.len().min((part.offset + part.len) as usize);
            let bytes = Bytes::copy_from_slice(&file[part.offset as usize..to]);
            cursor.push(&part, bytes, end).unwrap();
        }
        found.extend(cursor.take(usize::MAX, Zxid(i64::MAX)).into_iter().map(|(zxid, _)| zxid.0));
        log.write(zxid..=zxid, 3 << 20);
    }
    assert_eq!(found, (2..=11).collect::<Vec<_>>());
    assert!(2 < cursor.segment());
}

#[test]
fn a_log_that_begins_later_says_so() {
    let mut log = Log::open(Disk::default(), 5, 1);
    assert!(log.writer.cursor(Zxid(5)).is_none(), "nothing is durable");
    log.write(6..=9, 50);
    assert_eq!(read(&log, 4, 4096), Err(LogUnread::Begins(Zxid(5))));
    assert_eq!(read(&log, 5, 4096).unwrap().records, records(6..=9, 50));
}

#[test]
fn nothing_is_left_out_of_a_damaged_log() {
    let whole = log();
    let expected = read(&whole, 2, 4096).unwrap().records;
    let mut failed = 0;
    for segment in 1..=4 {
        for at in (0..8 * 4096).step_by(199) {
            let mut damaged = log();
            damaged.disk.segment(segment)[at] ^= 0x10;
            match read(&damaged, 2, 4096) {
                Ok(read) => assert_eq!(read.records, expected, "segment {segment} byte {at}"),
                Err(LogUnread::Damaged { .. }) => failed += 1,
                Err(other) => panic!("{other}"),
            }
        }
        let mut short = log();
        short.disk.files.remove(&segment_name(segment)).unwrap();
        assert!(matches!(read(&short, 2, 4096), Err(LogUnread::Damaged { .. })));
    }
    assert!(100 < failed, "only {failed} places are looked at");
}

#[test]
fn a_segment_that_is_read_is_not_removed() {
    let mut log = log();
    let sequences = |log: &Log| log.writer.segments().map(|it| it.sequence).collect::<Vec<_>>();
    let all = sequences(&log);
    let (cursor, _) = log.writer.cursor(Zxid(5)).unwrap();
    assert_eq!(cursor.segment(), 2);
    log.writer.read_from(Some(cursor.segment()), &mut log.ops);
    log.writer.remove_before(Zxid(20), &mut log.ops);
    log.settle();
    assert_eq!(sequences(&log), all[1..]);
    // While the oldest one is going, nobody begins in it.
    log.writer.read_from(None, &mut log.ops);
    assert_eq!(log.writer.cursor(Zxid(5)).unwrap().0.segment(), 3);
    log.settle();
    assert_eq!(sequences(&log), all[3..]);
}
