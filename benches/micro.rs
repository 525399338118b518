//! What the parts cost by themselves: codec, tree, log, watches, hand-over between shards.
//! `cargo bench --bench micro`.

mod rig;

use bytes::{Bytes, BytesMut};
use divan::Bencher;

use ringkeeper::base::{FileOps, Prng, Str};
use ringkeeper::client::requests;
use ringkeeper::model::txn::CreateTxn;
use ringkeeper::model::{
    Acl, ConnId, CreateTxnKind, ErrorCode, ExtendedTypes, Id, Perms, SessionId, TxnBody, TxnHeader,
    Xid, Zxid,
};
use ringkeeper::tree::{Overlay, Tree, TreeOptions};
use ringkeeper::txnlog::{LogConfig, LogEnd, LogWriter};
use ringkeeper::watch::{WatchKind, WatchTable};
use ringkeeper::wire;

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// Znodes of the tree under test.
const ZNODES: u64 = 100_000;
/// Bytes of each value.
const VALUE_BYTES: usize = 100;

fn main() {
    divan::main();
}

fn path(number: u64) -> Str {
    Str::from(format!("/n{number:08}").as_str())
}

fn header(zxid: i64) -> TxnHeader {
    TxnHeader { session: SessionId(1), cxid: Xid(1), zxid: Zxid(zxid), time_ms: 1 }
}

fn value() -> Bytes {
    Bytes::from(vec![b'x'; VALUE_BYTES])
}

fn create(number: u64, children_before: u64) -> TxnBody {
    let anyone = Id { scheme: Str::from("world"), id: Str::from("anyone") };
    let open = Acl { perms: Perms::ALL, id: anyone };
    TxnBody::Create(CreateTxn {
        kind: CreateTxnKind::Create { ephemeral: false },
        path: path(number),
        data: Some(value()),
        acl: vec![open],
        parent_cversion: i32::try_from(children_before + 1).expect("it is small"),
    })
}

fn set(number: u64, version: i32) -> TxnBody {
    TxnBody::SetData { path: path(number), data: Some(value()), version }
}

fn filled() -> Tree {
    let mut tree = Tree::new(TreeOptions { extended_types: ExtendedTypes::Off, digests: true });
    for number in 0..ZNODES {
        let zxid = i64::try_from(number + 1).expect("it is small");
        tree.apply(&header(zxid), &create(number, number));
    }
    tree
}

/// Decoding a setData request out of its frame.
#[divan::bench]
fn decode_set_request(bencher: Bencher<'_, '_>) {
    let mut buf = BytesMut::new();
    wire::client::encode_request(
        Xid(1),
        &requests::set("/some/path/of/usual/length", &value()),
        &mut buf,
    );
    let frame = buf.freeze().slice(4..);
    bencher.bench(|| wire::request::decode(divan::black_box(&frame)).map(|frame| frame.xid));
}

/// Encoding the reply to a getData.
#[divan::bench]
fn encode_get_reply(bencher: Bencher<'_, '_>) {
    let tree = filled();
    let znode = tree.get(&path(7)).expect("it was created");
    let mut buf = BytesMut::with_capacity(1 << 16);
    bencher.bench_local(|| {
        buf.clear();
        wire::response::reply(&mut buf, Xid(1), Zxid(1), ErrorCode::OK, |body| {
            wire::response::data_and_stat(body, znode.data(), &znode.stat());
        });
        buf.len()
    });
}

/// A lookup by path among 100,000 znodes.
#[divan::bench]
fn tree_get(bencher: Bencher<'_, '_>) {
    let tree = filled();
    let mut prng = Prng::new(1);
    let paths: Vec<Str> = (0..4096).map(|_| path(prng.below(ZNODES))).collect();
    let mut next = 0;
    bencher.bench_local(|| {
        next = (next + 1) % paths.len();
        tree.get(&paths[next]).map(|znode| znode.child_count())
    });
}

/// Staging and applying a setData.
#[divan::bench]
fn tree_set(bencher: Bencher<'_, '_>) {
    let mut tree = filled();
    let mut overlay = Overlay::new(&tree);
    let mut prng = Prng::new(1);
    let mut zxid = i64::try_from(ZNODES).expect("it is small");
    bencher.bench_local(|| {
        zxid += 1;
        let body = set(prng.below(ZNODES), 1);
        overlay.stage(&tree, &header(zxid), &body);
        tree.apply(&header(zxid), &body);
        overlay.retire(Zxid(zxid), usize::MAX);
    });
}

/// Framing 64 txns into a batch and sealing it.
#[divan::bench]
fn log_batch_of_64(bencher: Bencher<'_, '_>) {
    let config = LogConfig { segment_bytes_default: 1 << 30 };
    let mut log = LogWriter::new(config, LogEnd::empty(Zxid(0)), 1);
    let mut ops = FileOps::default();
    log.start(&mut ops);
    finish(&mut log, &mut ops);
    let body = set(1, 1);
    let mut zxid = 0;
    bencher.bench_local(|| {
        for _ in 0..64 {
            zxid += 1;
            log.append(Zxid(zxid), |buf| wire::txn::encode(&header(zxid), &body, Some(1), buf));
        }
        log.submit(&mut ops);
        finish(&mut log, &mut ops);
        log.flushed_zxid()
    });
}

/// Completes whatever was asked of the disk.
fn finish(log: &mut LogWriter, ops: &mut FileOps) {
    loop {
        let asked = ops.take();
        if asked.is_empty() {
            return;
        }
        for (id, _) in asked {
            log.on_done(id, Ok(()), ops).expect("nothing fails here");
        }
    }
}

/// A one-shot watch set and fired.
#[divan::bench]
fn watch_and_fire(bencher: Bencher<'_, '_>) {
    let mut watches = WatchTable::new();
    let paths: Vec<Str> = (0..4096).map(path).collect();
    let mut firings = Vec::new();
    let mut next = 0;
    bencher.bench_local(|| {
        next = (next + 1) % paths.len();
        watches.add(ConnId(1), &paths[next], WatchKind::Data);
        watches.changed(&paths[next], &mut firings);
        let mut told = 0;
        for mut firing in firings.drain(..) {
            while watches.next_of(&mut firing).is_some() {
                told += 1;
            }
        }
        told
    });
}

/// A setData of a client of another shard: to the pipeline, through the log, back as a delta, and
/// into the replica.
#[divan::bench]
fn hand_over_set(bencher: Bencher<'_, '_>) {
    let mut rig = rig::Rig::new(false);
    let (home, away) = (ConnId(1), ConnId(2));
    rig.open(rig::HOME, home);
    rig.open(rig::SATELLITE, away);
    rig.create(home, 1, 0, |_| "/a".to_owned());
    bencher.bench_local(|| {
        rig.ask(rig::SATELLITE, away, std::iter::once(requests::set("/a", rig::VALUE)));
        rig.settle();
        rig.received.clear();
    });
}

/// The same for 64 requests at once.
#[divan::bench]
fn hand_over_64_sets(bencher: Bencher<'_, '_>) {
    let mut rig = rig::Rig::new(false);
    let (home, away) = (ConnId(1), ConnId(2));
    rig.open(rig::HOME, home);
    rig.open(rig::SATELLITE, away);
    rig.create(home, 1, 0, |_| "/a".to_owned());
    bencher.bench_local(|| {
        let all = (0..64).map(|_| requests::set("/a", rig::VALUE));
        rig.ask(rig::SATELLITE, away, all);
        rig.settle();
        rig.received.clear();
    });
}
