//! Tests of Apache's formats: whole, in pieces, cut short, with every byte flipped, and golden
//! bytes of real servers.

use std::sync::Arc;

use bytes::{Bytes, BytesMut};

use super::*;
use crate::base::Str;
use crate::model::{Acl, Id, Perms, SessionId, StatPersisted, Zxid};

const RECORD_BYTES_MAX: usize = 1 << 20;
const ALL: [Compression; 3] = [Compression::None, Compression::Gzip, Compression::Snappy];

fn txn(zxid: i64, body: &[u8]) -> Vec<u8> {
    let mut txn = vec![0; 12];
    txn.extend_from_slice(&zxid.to_be_bytes());
    txn.extend_from_slice(&[0; 12]);
    txn.extend_from_slice(body);
    txn
}

fn log(padding: usize) -> Bytes {
    let mut file = BytesMut::new();
    put_log_header(&mut file);
    for (zxid, body) in [(1, &b"\0\0\0\x01"[..]), (2, b""), (3, b"a longer one")] {
        put_log_record(&mut file, &txn(zxid, body));
    }
    file.resize(file.len() + padding, 0);
    file.freeze()
}

fn read_log(file: &Bytes, piece: usize) -> Result<(Vec<LogRecord>, LogEnd), LogDamage> {
    let mut decoder = LogDecoder::new(RECORD_BYTES_MAX);
    let mut records = Vec::new();
    for start in (0..file.len()).step_by(piece) {
        decoder.push(&file.slice(start..file.len().min(start + piece)));
        while let Some(record) = decoder.next_record()? {
            records.push(record);
        }
    }
    Ok((records, decoder.finish()?))
}

#[test]
fn a_log_is_read_as_it_was_written() {
    for padding in [0, 5, 12, 4096] {
        let file = log(padding);
        let (records, end) = read_log(&file, file.len()).unwrap();
        let zxids: Vec<i64> = records.iter().map(|record| record.zxid.0).collect();
        assert_eq!(zxids, [1, 2, 3]);
        assert_eq!(records[0].offset, 16);
        assert_eq!(records[1].offset, 16 + 13 + 36);
        assert_eq!(&*records[2].txn, txn(3, b"a longer one"));
        let kind = if padding == 0 { LogEndKind::EndOfFile } else { LogEndKind::Padding };
        assert_eq!(end, LogEnd { at: (file.len() - padding) as u64, kind });
        for piece in [1, 7, 50] {
            assert_eq!(read_log(&file, piece).unwrap(), (records.clone(), end), "{padding}");
        }
    }
}

#[test]
fn a_golden_record_of_a_real_server() {
    // Create of /a by 3.8.0, with its digest; the record was found at offset 77 of the file.
    let txn = "01000012b55f0000 00000001 0000000100000002 000001a2027f8f8e 00000001 00000002 2f61
        00000005 68656c6c6f 00000001 0000001f 00000005 776f726c64 00000006 616e796f6e65 00
        00000001 00000002 000000016039670c";
    let digits: Vec<u8> = txn.bytes().filter(|byte| !byte.is_ascii_whitespace()).collect();
    let digit = |byte: u8| (byte as char).to_digit(16).unwrap() as u8;
    let txn: Vec<u8> = digits.chunks(2).map(|pair| digit(pair[0]) << 4 | digit(pair[1])).collect();
    let mut file = BytesMut::new();
    put_log_header(&mut file);
    assert_eq!(&file[..], b"ZKLG\0\0\0\x02\0\0\0\0\0\0\0\0");
    put_log_record(&mut file, &txn);
    assert_eq!(file.len(), 16 + 181 - 77);
    let (records, _) = read_log(&file.freeze(), 1000).unwrap();
    assert_eq!(records[0].zxid, Zxid(0x1_0000_0002));
}

#[test]
fn a_cut_log_ends_before_the_cut_record_and_nowhere_else() {
    let file = log(0);
    let (records, _) = read_log(&file, file.len()).unwrap();
    for len in 0..file.len() {
        let (found, end) = read_log(&file.slice(..len), 64).unwrap();
        let whole = records.iter().take(found.len()).eq(&found);
        let ends: Vec<usize> = (0..=3).map(|count| log_len(&records[..count])).collect();
        assert!(whole && ends[found.len()] <= len.max(16), "cut to {len}");
        assert!(found.len() == 3 || len < ends[found.len() + 1], "cut to {len}");
        let clean = len == 0 || ends.contains(&len);
        assert_eq!(end.kind == LogEndKind::EndOfFile, clean, "cut to {len}");
    }
}

fn log_len(records: &[LogRecord]) -> usize {
    16 + records.iter().map(|record| 13 + record.txn.len()).sum::<usize>()
}

#[test]
fn no_flipped_byte_of_a_log_changes_or_hides_a_record_in_silence() {
    let file = log(64);
    let (records, whole) = read_log(&file, file.len()).unwrap();
    let end = usize::try_from(whole.at).unwrap();
    let last_start = usize::try_from(records[2].offset).unwrap();
    for at in 0..file.len() {
        for flip in [0x01, 0x40, 0xff] {
            let mut bytes = file.to_vec();
            bytes[at] ^= flip;
            match read_log(&Bytes::from(bytes), 1 << 20) {
                Err(_) => {}
                // Version and database id are believed, and what is behind a whole log is not.
                Ok((found, _)) if (4..16).contains(&at) || end <= at => {
                    assert_eq!(found, records, "byte {at}");
                }
                // The last record alone can be taken for one that was cut short.
                Ok((found, found_end)) => {
                    assert!(last_start <= at, "byte {at}");
                    assert_eq!(found, records[..2], "byte {at}");
                    assert_eq!(found_end.at, last_start as u64, "byte {at}");
                }
            }
        }
    }
}

#[test]
fn a_zeroed_length_or_end_byte_does_not_hide_the_rest() {
    let file = log(64);
    let (records, _) = read_log(&file, file.len()).unwrap();
    let second = usize::try_from(records[1].offset).unwrap();
    let hidden = |bytes: Vec<u8>, at: u64, found: u64| {
        let kind = LogDamageKind::HiddenRecord { found };
        for piece in [1, 30, 1 << 20] {
            let read = read_log(&Bytes::from(bytes.clone()), piece);
            assert_eq!(read, Err(LogDamage { offset: at, kind }));
        }
    };
    let mut bytes = file.to_vec();
    bytes[second + 8..second + 12].fill(0);
    hidden(bytes, records[1].offset, records[2].offset);
    let mut bytes = file.to_vec();
    bytes[second - 1] = 0;
    hidden(bytes, records[0].offset, records[1].offset);
}

fn acl(scheme: &'static str, id: &'static str, perms: i32) -> Arc<[Acl]> {
    let id = Id { scheme: Str::from_static(scheme), id: Str::from_static(id) };
    Arc::new([Acl { perms: Perms(perms), id }])
}

fn snapshot(compression: Compression, digest: bool, last_zxid: bool) -> Bytes {
    let open: Arc<[Acl]> = Arc::new([Acl::open()]);
    let others = [acl("digest", "u:p", 31), acl("ip", "10.0.0.0/8", 1)];
    let acls = [Arc::clone(&open), Arc::clone(&others[0]), Arc::clone(&others[1])];
    let sessions = [(SessionId(5), 4000), (SessionId(-7), 9)];
    let mut encoder = SnapshotEncoder::new(compression, &sessions, acls);
    let stat = StatPersisted { czxid: Zxid(3), mtime: 8, version: 2, ..StatPersisted::default() };
    let mut file = BytesMut::new();
    encoder.znode("/", Some(b""), &open, &stat);
    encoder.znode("/a", None, &others[0], &stat);
    encoder.znode("/a/b", Some(&[7; 300]), &others[1], &stat);
    if let Some(chunk) = encoder.take_chunk(1) {
        file.extend_from_slice(&chunk);
    }
    let section = SnapshotDigest { zxid: Zxid(9), version: 2, digest: 77 };
    file.extend_from_slice(
        &encoder.finish(digest.then_some(section), last_zxid.then_some(Zxid(10))),
    );
    file.freeze()
}

type Snapshot = (Vec<SnapshotItem>, SnapshotSummary);

fn read(file: &Bytes, compression: Compression, piece: usize) -> Result<Snapshot, SnapshotDamage> {
    let mut decoder = SnapshotDecoder::new(compression, RECORD_BYTES_MAX);
    let mut items = Vec::new();
    for start in (0..file.len()).step_by(piece) {
        decoder.push(&file.slice(start..file.len().min(start + piece)));
        while let Some(item) = decoder.next_item()? {
            items.push(item);
        }
    }
    Ok((items, decoder.finish()?))
}

#[test]
fn a_snapshot_is_read_as_it_was_written_whatever_its_sections_and_compression() {
    for compression in ALL {
        for (digest, last_zxid) in [(false, false), (true, false), (false, true), (true, true)] {
            let file = snapshot(compression, digest, last_zxid);
            let (items, summary) = read(&file, compression, file.len()).unwrap();
            assert_eq!(items[1], SnapshotItem::Session { id: SessionId(-7), timeout_ms: 9 });
            let SnapshotItem::Znode { path, data, acl, stat } = &items[4] else { panic!() };
            assert_eq!((path.as_str(), data.as_deref()), ("/a/b", Some(&[7; 300][..])));
            assert_eq!((&*acl[0].id.scheme, stat.mtime, stat.version), ("ip", 8, 2));
            assert!(matches!(&items[3], SnapshotItem::Znode { data: None, .. }));
            assert_eq!((summary.session_count, summary.acl_count), (2, 2));
            assert_eq!(summary.znode_count, 3);
            assert_eq!(summary.digest.map(|digest| digest.digest), digest.then_some(77));
            assert_eq!(summary.last_zxid, last_zxid.then_some(Zxid(10)));
            for piece in [1, 13, 100] {
                assert_eq!(read(&file, compression, piece).unwrap(), (items.clone(), summary));
            }
        }
    }
}

#[test]
fn every_cut_of_a_snapshot_is_noticed() {
    for compression in ALL {
        for (digest, last_zxid) in [(false, false), (true, true)] {
            let file = snapshot(compression, digest, last_zxid);
            for len in 0..file.len() {
                let cut = read(&file.slice(..len), compression, 64);
                // A cut right between two sections is a snapshot of an older server.
                let older = compression == Compression::None
                    && digest
                    && [54, 21].contains(&(file.len() - len));
                assert_eq!(cut.is_ok(), older, "{compression:?} cut to {len}");
            }
        }
    }
}

#[test]
fn every_flipped_byte_of_a_snapshot_is_noticed() {
    for compression in ALL {
        let file = snapshot(compression, true, true);
        let whole = read(&file, compression, 1 << 20).unwrap();
        for at in 0..file.len() {
            let mut bytes = file.to_vec();
            bytes[at] ^= 0x21;
            if let Ok(found) = read(&Bytes::from(bytes), compression, 1 << 20) {
                // Compressed bytes may differ and still mean the same.
                assert_ne!(compression, Compression::None, "byte {at}");
                assert_eq!(found, whole, "{compression:?} byte {at}");
            }
        }
    }
}

/// A number that was given while the snapshot was written; others never were.
#[test]
fn a_znode_whose_acl_came_into_use_meanwhile_grants_nothing() {
    let file = snapshot(Compression::None, false, false);
    for (number, is_known) in [(3, true), (1 << 20, true), (1 << 30, false), (0, false)] {
        // The count of ACLs follows the header and two sessions; without the table, numbers dangle.
        let mut bytes = file[..16 + 4 + 24].to_vec();
        bytes.extend_from_slice(&0_i32.to_be_bytes());
        bytes.extend_from_slice(&[0; 4]);
        bytes.extend_from_slice(&[0xff; 4]);
        bytes.extend_from_slice(&i64::to_be_bytes(number));
        bytes.extend_from_slice(&[0; 60]);
        let mut decoder = SnapshotDecoder::new(Compression::None, RECORD_BYTES_MAX);
        decoder.push(&Bytes::from(bytes));
        let items: Result<Vec<_>, _> =
            std::iter::from_fn(|| decoder.next_item().transpose()).take(3).collect();
        match items {
            Ok(items) => {
                let [_, _, SnapshotItem::Znode { acl, .. }] = &items[..] else {
                    panic!("{items:?}")
                };
                assert!(is_known && **acl == [Acl::unknown()], "{number}: {acl:?}");
            }
            Err(damage) => assert!(!is_known && damage.what.contains("ACL"), "{number}: {damage}"),
        }
    }
}

#[test]
fn names_are_apaches() {
    assert_eq!(names::log_name(Zxid(0x1_0000_000a)), "log.10000000a");
    assert_eq!(names::log_zxid("log.10000000a"), Some(Zxid(0x1_0000_000a)));
    assert_eq!(names::snapshot_name(Zxid(0), Compression::Snappy), "snapshot.0.snappy");
    for (name, found) in [
        ("snapshot.1f", Some((Zxid(0x1f), Compression::None))),
        ("snapshot.1f.gz", Some((Zxid(0x1f), Compression::Gzip))),
        ("snapshot.1f.snappy", Some((Zxid(0x1f), Compression::Snappy))),
        ("snapshot.1f.tmp", None),
        ("snapshot.", None),
        ("snapshot.+1", None),
        ("log.1", None),
    ] {
        assert_eq!(names::snapshot_zxid(name), found, "{name}");
    }
    for name in ["log.", "log.1.tmp", "log.g", "snapshot.1", "log.11111111111111111"] {
        assert_eq!(names::log_zxid(name), None, "{name}");
    }
    for (text, epoch) in
        [("7", Some(7)), ("12\njunk", Some(12)), ("", None), ("-1", None), ("2147483648", None)]
    {
        assert_eq!(names::parse_epoch(text.as_bytes()), epoch, "{text}");
    }
}

/// Everything of a stream that comes in pieces, and what is behind it.
fn read_stream(stream: &[u8], piece: usize) -> Result<(Vec<SnapshotItem>, Bytes), SnapshotDamage> {
    let mut decoder = SnapshotDecoder::for_stream(RECORD_BYTES_MAX);
    let mut items = Vec::new();
    for piece in stream.chunks(piece) {
        decoder.push(&Bytes::copy_from_slice(piece));
        while let Some(item) = decoder.next_item()? {
            items.push(item);
        }
    }
    let (summary, rest) = decoder.finish_stream()?;
    assert_eq!(summary.plain_bytes, (stream.len() - rest.len()) as u64);
    Ok((items, rest))
}

#[test]
fn a_stream_ends_where_its_text_ends_however_it_is_cut() {
    let sessions = [(SessionId(5), 4000)];
    let acl = acl("digest", "u:h", 3);
    let stat = StatPersisted { czxid: Zxid(3), version: 7, ..StatPersisted::default() };
    let mut encoder = SnapshotEncoder::for_stream(&sessions, [Arc::clone(&acl)]);
    encoder.znode("/", None, &[Acl::open()], &stat);
    encoder.znode("/long", Some(&[7; 3000]), &acl, &stat);
    let stream = encoder.finish_stream();
    // Part 4.4 of the reference: no header in front, the text and nothing else behind.
    assert_eq!(&stream[..16], b"\0\0\0\x01\0\0\0\0\0\0\0\x05\0\0\x0f\xa0");
    assert!(stream.ends_with(b"\0\0\0\x01/\0\0\0\x0aBenWasHere"));
    let (items, _) = read_stream(&stream, stream.len()).unwrap();
    assert_eq!(items.len(), 3);
    for behind in [0, 1, 50] {
        let bytes = [&*stream, &vec![9; behind]].concat();
        for piece in [1, 7, 1000, bytes.len()] {
            let (found, rest) = read_stream(&bytes, piece).unwrap();
            assert_eq!((found, rest.len()), (items.clone(), behind), "pieces of {piece}");
        }
    }
    for len in 0..stream.len() {
        let damage = read_stream(&stream[..len], 64).unwrap_err();
        assert!(damage.what.contains("ends inside"), "{damage}");
    }
    let mut other = stream.to_vec();
    other[stream.len() - 1] ^= 1;
    assert!(read_stream(&other, 64).unwrap_err().what.contains("text behind"));
}
