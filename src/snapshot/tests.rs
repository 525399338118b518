//! Tests of the snapshot format: whole, cut short, and with every byte flipped.

use std::sync::Arc;

use bytes::{Bytes, BytesMut};

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
