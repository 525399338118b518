//! Tests of the snapshot format: whole, cut short, and with every byte flipped.

use std::sync::Arc;

use bytes::{Bytes, BytesMut};

use super::inspect::{What, items_of};
use super::*;
use crate::base::WallMs;
use crate::model::{Acl, Perms, SessionId, StatPersisted, Zxid};

fn sample() -> Bytes {
    let mut file = BytesMut::new();
    let mut encoder = SnapshotEncoder::new(Zxid(7), WallMs(99));
    encoder.session(SessionId(5), 4000);
    let open: Arc<[Acl]> = Arc::new([Acl::open()]);
    let read: Arc<[Acl]> = Arc::new([Acl::world(Perms::READ)]);
    let stat = StatPersisted { czxid: Zxid(3), ephemeral_owner: 5, ..StatPersisted::default() };
    encoder.znode("/a/b", Some(b"data"), &read, &stat);
    encoder.znode("/a", None, &open, &stat);
    encoder.znode("/", Some(b""), &open, &stat);
    while let Some(chunk) = encoder.take_chunk(1) {
        file.extend_from_slice(&chunk);
    }
    file.extend_from_slice(&encoder.finish(42));
    file.freeze()
}

fn read(
    file: &Bytes,
    piece: usize,
) -> Result<(Vec<SnapshotItem>, SnapshotSummary), SnapshotDamage> {
    let mut decoder = SnapshotDecoder::new();
    let mut items = Vec::new();
    let mut at = 0;
    while at < file.len() {
        let end = file.len().min(at + piece);
        decoder.push(&file.slice(at..end));
        at = end;
        while let Some(item) = decoder.next_item()? {
            items.push(item);
        }
    }
    decoder.finish().map(|summary| (items, summary))
}

#[test]
fn what_was_written_is_read() {
    let file = sample();
    assert_eq!(file.len() % crate::limits::BLOCK_BYTES, 0);
    let (items, summary) = read(&file, file.len()).unwrap();
    assert_eq!(items.len(), 4);
    assert_eq!(items[0], SnapshotItem::Session { id: SessionId(5), timeout_ms: 4000 });
    let SnapshotItem::Znode { path, data, acl, stat } = &items[1] else { panic!() };
    assert_eq!((path.as_str(), data.as_deref()), ("/a/b", Some(&b"data"[..])));
    assert_eq!((acl[0].perms, stat.czxid, stat.ephemeral_owner), (Perms::READ, Zxid(3), 5));
    assert_eq!((summary.zxid, summary.wall, summary.digest), (Zxid(7), WallMs(99), 42));
    assert_eq!((summary.session_count, summary.znode_count), (1, 3));
    for piece in [1, 7, 4096, 5000] {
        assert_eq!(read(&file, piece).unwrap().0, items);
    }
}

#[test]
fn every_cut_is_noticed() {
    let file = sample();
    for len in 0..file.len() {
        assert!(read(&file.slice(..len), 4096).is_err(), "cut to {len} bytes");
    }
}

#[test]
fn every_flipped_byte_is_noticed() {
    let file = sample();
    for at in 0..file.len() {
        let mut bytes = file.to_vec();
        bytes[at] ^= 0x40;
        assert!(read(&Bytes::from(bytes), 1 << 20).is_err(), "byte {at} flipped");
    }
}

/// Header, five blocks of up to about 100 znodes each, end.
fn seven_blocks() -> Bytes {
    let mut encoder = SnapshotEncoder::new(Zxid(7), WallMs(99));
    let stat = StatPersisted::default();
    for number in 0..400 {
        let acl: Arc<[Acl]> = Arc::new([Acl::world(Perms(number / 100))]);
        encoder.znode(&format!("/{number}"), Some(&[1; 2700]), &acl, &stat);
    }
    encoder.finish(42)
}

fn inspect(file: &Bytes) -> (Vec<SnapshotItem>, Vec<u64>, bool) {
    let (mut items, mut damages, mut ended) = (Vec::new(), Vec::new(), false);
    for seen in items_of(file.clone()) {
        match seen.what {
            What::Item(item) => items.push(item),
            What::Damage(_) => damages.push(seen.offset),
            What::End(summary) => ended = (summary.znode_count, summary.digest) == (400, 42),
            What::Header(..) => {}
        }
    }
    (items, damages, ended)
}

#[test]
fn inspection_goes_on_behind_damage() {
    let file = seven_blocks();
    let (whole, damages, ended) = inspect(&file);
    assert_eq!((whole.len(), damages, ended), (400, Vec::new(), true));
    assert_eq!(read(&file, 1 << 20).unwrap().0, whole);
    let starts: Vec<usize> = (0..file.len())
        .step_by(crate::limits::BLOCK_BYTES)
        .filter(|at| &file[*at..at + 4] == b"RKSB")
        .collect();
    let items_block = |start: usize| file[start + 7] == 2;
    for (at, start) in starts.iter().copied().enumerate() {
        let end = starts.get(at + 1).copied().unwrap_or(file.len());
        // Every byte of the frame, and some of payload and padding.
        for byte in (start..start + 24).chain((start + 24..end).step_by(1013)) {
            let mut bytes = file.to_vec();
            bytes[byte] ^= 0x40;
            let (items, damages, ended) = inspect(&Bytes::from(bytes));
            assert_eq!(damages[0], start as u64, "byte {byte}");
            assert!(items.iter().all(|item| !is_invented(item, &whole)), "byte {byte}");
            if start + 20 < byte {
                let lost = if items_block(start) { 10..120 } else { 0..1 };
                assert!(lost.contains(&(400 - items.len())), "byte {byte}: {}", items.len());
                assert_eq!(ended, start != *starts.last().unwrap(), "byte {byte}");
            }
        }
        // A block that is gone altogether takes the one behind it along.
        let mut bytes = file.to_vec();
        bytes[start..end].fill(0);
        let (items, damages, _) = inspect(&Bytes::from(bytes));
        assert_eq!(damages[0], start as u64);
        assert!(200 <= items.len(), "{} items", items.len());
    }
}

/// Whether it is in no way an item of the snapshot; its ACL may be lost.
fn is_invented(item: &SnapshotItem, whole: &[SnapshotItem]) -> bool {
    let SnapshotItem::Znode { path, data, acl, .. } = item else { return true };
    let same = |other: &SnapshotItem| {
        matches!(other, SnapshotItem::Znode { path: p, data: d, acl: a, .. }
            if p == path && d == data && (acl.is_empty() || a == acl))
    };
    !whole.iter().any(same)
}

proptest::proptest! {
    #[test]
    fn inspection_accepts_any_bytes(
        noise in proptest::collection::vec(proptest::num::u8::ANY, 0..9000),
        at in 0usize..20000,
    ) {
        let mut file = sample().to_vec();
        let end = file.len().min(at + noise.len());
        let at = at.min(end);
        file[at..end].copy_from_slice(&noise[..end - at]);
        proptest::prop_assert!(items_of(Bytes::from(file)).count() < 100);
        proptest::prop_assert!(items_of(Bytes::from(noise)).count() < 100);
    }
}

#[test]
fn names_and_purge() {
    assert_eq!(catalog::file_name(Zxid(0x1_0000_000a)), "snapshot.000000010000000a");
    assert_eq!(catalog::zxid_of("snapshot.000000010000000a"), Some(Zxid(0x1_0000_000a)));
    for other in ["snapshot.a", "snapshot.000000010000000a.new", "snapshot.00000001000000_a", "log"]
    {
        assert_eq!(catalog::zxid_of(other), None);
    }
    let all = [Zxid(1), Zxid(2), Zxid(3), Zxid(4)];
    assert_eq!(catalog::split_for_purge(&all, 3).0, [Zxid(1)]);
    assert_eq!(catalog::split_for_purge(&all, 9).0, []);
    assert_eq!(catalog::split_for_purge(&all, 0).1, [Zxid(4)]);
}
