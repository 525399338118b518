//! What is read from disk: txns, log segments, whole logs, snapshots, the epochs record, and Apache
//! ZooKeeper's files.

use std::collections::BTreeMap;
use std::sync::Arc;

use bytes::{Bytes, BytesMut};
use ringkeeper::apache::{self, Compression};
use ringkeeper::base::{FileOp, FileOps, Str, WallMs};
use ringkeeper::model::{
    Acl, CreateTxn, CreateTxnKind, ErrorCode, ExtendedTypes, Perms, SessionId, StatPersisted,
    TxnBody, TxnHeader, Xid, Zxid,
};
use ringkeeper::server::epochs::Epochs;
use ringkeeper::server::recovery::{self, Recovery};
use ringkeeper::server::snap_receive::{ReceiveProgress, SnapshotReceiver};
use ringkeeper::snapshot::{SnapshotDecoder, SnapshotEncoder, catalog};
use ringkeeper::tree::TreeOptions;
use ringkeeper::txnlog::read::records_of;
use ringkeeper::txnlog::{
    Answer, LogConfig, LogDamage, LogEnd, LogRecovery, LogWriter, Step, segment_name,
    segment_sequence,
};
use ringkeeper::wire::txn;

use super::{Target, pieces, seal};

const BYTES_PER_BYTE: usize = 64;
/// Deflate makes at most 1,032 bytes of one, and a buffer doubles.
const GZIP_BYTES_PER_BYTE: usize = 2 * 1032 + BYTES_PER_BYTE;
/// Longest record of Apache's files that is read.
const RECORD_BYTES_MAX: usize = 2 << 20;

pub(crate) const TARGETS: &[Target] = &[
    Target { name: "txn", run: one_txn, seeds: txns, bytes_per_byte: BYTES_PER_BYTE },
    Target { name: "segment", run: segment, seeds: segments, bytes_per_byte: BYTES_PER_BYTE },
    Target { name: "log", run: log, seeds: segments, bytes_per_byte: BYTES_PER_BYTE },
    Target { name: "snapshot", run: snapshot, seeds: snapshots, bytes_per_byte: BYTES_PER_BYTE },
    Target { name: "epochs", run: epochs, seeds: epochs_seeds, bytes_per_byte: BYTES_PER_BYTE },
    Target { name: "names", run: names, seeds: name_seeds, bytes_per_byte: BYTES_PER_BYTE },
    Target {
        name: "apache-log",
        run: apache_log,
        seeds: apache_logs,
        bytes_per_byte: BYTES_PER_BYTE,
    },
    Target {
        name: "apache-snapshot",
        run: |input| apache_snapshot(input, Compression::None),
        seeds: || apache_snapshots(Compression::None),
        bytes_per_byte: BYTES_PER_BYTE,
    },
    Target {
        name: "received-snapshot",
        run: received_snapshot,
        seeds: streams,
        bytes_per_byte: 2 * BYTES_PER_BYTE,
    },
    Target {
        name: "apache-snapshot-gzip",
        run: |input| apache_snapshot(input, Compression::Gzip),
        seeds: || apache_snapshots(Compression::Gzip),
        bytes_per_byte: GZIP_BYTES_PER_BYTE,
    },
    Target {
        name: "apache-snapshot-snappy",
        run: |input| apache_snapshot(input, Compression::Snappy),
        seeds: || apache_snapshots(Compression::Snappy),
        bytes_per_byte: BYTES_PER_BYTE,
    },
];

fn one_txn(input: &[u8]) {
    let Ok(decoded) = txn::decode(&Bytes::copy_from_slice(input)) else { return };
    let mut buf = BytesMut::new();
    txn::encode(&decoded.header, &decoded.body, decoded.digest, &mut buf);
    assert_eq!(txn::decode(&buf.freeze()), Ok(decoded));
}

fn bodies() -> Vec<TxnBody> {
    let path = Str::from_static("/a/b");
    let data = Some(Bytes::from_static(b"data"));
    let create = |kind| {
        TxnBody::Create(CreateTxn {
            kind,
            path: path.clone(),
            data: data.clone(),
            acl: vec![Acl::open()],
            parent_cversion: 3,
        })
    };
    let single = vec![
        create(CreateTxnKind::Create { ephemeral: true }),
        create(CreateTxnKind::Create2 { ephemeral: false }),
        create(CreateTxnKind::Container),
        create(CreateTxnKind::Ttl { ttl_ms: 1000 }),
        TxnBody::Delete { path: path.clone() },
        TxnBody::DeleteContainer { path: path.clone() },
        TxnBody::SetData { path: path.clone(), data: data.clone(), version: 2 },
        TxnBody::SetAcl { path: path.clone(), acl: vec![Acl::open()], version: 2 },
        TxnBody::Check { path: path.clone(), version: 2 },
        TxnBody::Error(ErrorCode::NO_NODE),
    ];
    let mut all = vec![
        TxnBody::CreateSession { timeout_ms: 9000 },
        TxnBody::CloseSession { paths: Some([path.clone(), path.clone()].into_iter().collect()) },
        TxnBody::CloseSession { paths: None },
        TxnBody::Reconfig { path, data, version: 1 },
        TxnBody::Multi(single.clone()),
    ];
    all.extend(single.into_iter().filter(|body| !matches!(body, TxnBody::Check { .. })));
    all
}

fn txns() -> Vec<Vec<u8>> {
    let header = TxnHeader { session: SessionId(1), cxid: Xid(2), zxid: Zxid(3), time_ms: 4 };
    let encoded = |body: &TxnBody| {
        let mut buf = BytesMut::new();
        let digest = (!matches!(body, TxnBody::CloseSession { paths: None })).then_some(77);
        txn::encode(&header, body, digest, &mut buf);
        buf.to_vec()
    };
    bodies().iter().map(encoded).collect()
}

/// A segment as it is, and with its checksums put right.
fn segment(input: &[u8]) {
    let mut sealed = input.to_vec();
    seal::segment(&mut sealed);
    for bytes in [Bytes::copy_from_slice(input), Bytes::from(sealed)] {
        let files = vec![(segment_name(1), bytes.clone()), (segment_name(2), bytes.clone())];
        let seen = records_of(files).count();
        assert!(seen <= 2 * bytes.len() + 4, "every item but the last takes bytes");
    }
}

/// The files of a directory; operations are carried out in the order asked.
#[derive(Default)]
struct Directory(BTreeMap<String, Vec<u8>>);

impl Directory {
    fn run(&mut self, op: FileOp) {
        match op {
            FileOp::Create { file } => drop(self.0.insert(file.name, Vec::new())),
            FileOp::Write { file, offset, bytes, .. } => self.put(&file.name, offset, &bytes),
            FileOp::Zero { file, offset, len } => {
                let zeros = vec![0; usize::try_from(len).expect("it is small")];
                self.put(&file.name, offset, &zeros);
            }
            FileOp::Rename { from, to } => {
                let bytes = self.0.remove(&from.name).expect("what is renamed is there");
                self.0.insert(to, bytes);
            }
            FileOp::Remove { file } => drop(self.0.remove(&file.name)),
            FileOp::Flush { .. } | FileOp::SyncDir { .. } => {}
            FileOp::WriteNextConfig { .. } | FileOp::WriteConfig { .. } => panic!("{op:?}"),
        }
    }

    fn put(&mut self, name: &str, offset: u64, bytes: &[u8]) {
        let file = self.0.get_mut(name).expect("what is written to is there");
        let at = usize::try_from(offset).expect("it is small");
        file.resize(file.len().max(at + bytes.len()), 0);
        file[at..at + bytes.len()].copy_from_slice(bytes);
    }

    fn recover(&mut self) -> Result<LogEnd, LogDamage> {
        let mut recovery = LogRecovery::new(Zxid(0), 99);
        let mut answer = Answer::Next;
        let steps_max = 100 + self.0.values().map(Vec::len).sum::<usize>();
        for _ in 0..steps_max {
            answer = match recovery.step(answer) {
                Step::List => {
                    let files = self.0.iter();
                    Answer::Listing(
                        files.map(|(name, bytes)| (name.clone(), bytes.len() as u64)).collect(),
                    )
                }
                Step::Read { file, offset, len } => {
                    let bytes = self.0.get(&file.name).map(Vec::as_slice).unwrap_or_default();
                    let start = usize::try_from(offset).unwrap_or(usize::MAX).min(bytes.len());
                    let len = usize::try_from(len).unwrap_or(usize::MAX);
                    let end = start.saturating_add(len).min(bytes.len());
                    Answer::Bytes(Bytes::copy_from_slice(&bytes[start..end]))
                }
                Step::Run(op) => {
                    self.run(op);
                    Answer::Done
                }
                Step::Record { .. } => Answer::Next,
                Step::Done(end) => return Ok(end),
                Step::Refuse(damage) => return Err(damage),
            };
        }
        panic!("recovery takes more steps than there are bytes");
    }
}

impl Directory {
    /// Runs a server's recovery; it must not refuse.
    fn recover_all(&mut self) {
        let options = TreeOptions { extended_types: ExtendedTypes::Off, digests: true };
        let mut recovery = Recovery::new(options, 3);
        let mut answer = recovery::Answer::Start;
        loop {
            answer = match recovery.step(answer) {
                recovery::Step::List(_) => {
                    let files = self.0.iter();
                    let files = files.map(|(name, bytes)| (name.clone(), bytes.len() as u64));
                    recovery::Answer::Listing(files.collect())
                }
                recovery::Step::Read { file, offset, len } => {
                    let bytes = self.0.get(&file.name).map(Vec::as_slice).unwrap_or_default();
                    let start = usize::try_from(offset).unwrap_or(usize::MAX).min(bytes.len());
                    let len = usize::try_from(len).unwrap_or(usize::MAX);
                    let end = start.saturating_add(len).min(bytes.len());
                    recovery::Answer::Bytes(Bytes::copy_from_slice(&bytes[start..end]))
                }
                recovery::Step::Run(op) => {
                    self.run(op);
                    recovery::Answer::Ran(Ok(()))
                }
                recovery::Step::Note(_) => recovery::Answer::Next,
                recovery::Step::Done(_) => return,
                recovery::Step::Refuse(refusal) => panic!("{refusal}"),
            };
        }
    }
}

/// What recovery makes of one segment; what it leaves behind is whole and ends at the same txn.
fn log(input: &[u8]) {
    let mut sealed = input.to_vec();
    seal::segment(&mut sealed);
    for bytes in [input.to_vec(), sealed] {
        let mut directory = Directory::default();
        directory.0.insert(segment_name(1), bytes);
        let Ok(end) = directory.recover() else { continue };
        let again = directory.recover().expect("what recovery leaves is whole");
        assert_eq!(again.last_zxid, end.last_zxid);
    }
}

fn segments() -> Vec<Vec<u8>> {
    let mut directory = Directory::default();
    let config = LogConfig { segment_bytes_default: 64 << 10 };
    let mut ops = FileOps::default();
    let mut writer = LogWriter::new(config, LogEnd::empty(Zxid(0)), 5);
    let mut settle = |writer: &mut LogWriter, ops: &mut FileOps| loop {
        let asked = ops.take();
        if asked.is_empty() {
            return;
        }
        for (id, op) in asked {
            directory.run(op);
            writer.on_done(id, Ok(()), ops).expect("the log is sound");
            writer.submit(ops);
        }
    };
    writer.start(&mut ops);
    settle(&mut writer, &mut ops);
    let mut sizes = Vec::new();
    for (number, txn) in (1..).zip(txns()) {
        writer.append(Zxid(number), |buf| buf.extend_from_slice(&txn));
        // Two records in a batch.
        if number % 2 == 0 {
            writer.submit(&mut ops);
            settle(&mut writer, &mut ops);
            sizes.push(4096 * (1 + sizes.len()));
        }
    }
    writer.attest(&mut ops);
    settle(&mut writer, &mut ops);
    let whole = directory.0.remove(&segment_name(1)).unwrap_or_default();
    // Whole, and short ones, for which most mutations hit something.
    [4096 * 12, 4096 * 4, 4096 * 3]
        .into_iter()
        .filter_map(|len| whole.get(..len))
        .map(|front| {
            let mut front = front.to_vec();
            seal::segment(&mut front);
            front
        })
        .collect()
}

/// A snapshot as it is, and with its checksums put right, whole and in pieces.
fn snapshot(input: &[u8]) {
    let mut sealed = input.to_vec();
    seal::snapshot(&mut sealed);
    for bytes in [input, &sealed] {
        let whole = read_snapshot(bytes, bytes.len());
        assert_eq!(whole, read_snapshot(bytes, 1000));
    }
}

/// Items and end of a snapshot, printed.
fn read_snapshot(bytes: &[u8], piece: usize) -> (usize, String) {
    let mut decoder = SnapshotDecoder::new();
    let mut items = 0;
    for piece in pieces(bytes, piece) {
        decoder.push(&piece);
        loop {
            match decoder.next_item() {
                Ok(Some(_)) => items += 1,
                Ok(None) => break,
                Err(damage) => return (items, damage.to_string()),
            }
            assert!(items <= bytes.len(), "every item takes bytes");
        }
    }
    (items, format!("{:?}", decoder.finish()))
}

fn stat() -> StatPersisted {
    StatPersisted { czxid: Zxid(1), mzxid: Zxid(2), pzxid: Zxid(3), ..StatPersisted::default() }
}

fn snapshots() -> Vec<Vec<u8>> {
    let acl: Arc<[Acl]> = Arc::from([Acl::open()]);
    let mut encoder = SnapshotEncoder::new(Zxid(9), WallMs(5));
    encoder.session(SessionId(1), 9000);
    for path in ["/", "/a", "/a/b"] {
        encoder.znode(path, Some(b"data"), &acl, &stat());
    }
    let small = encoder.finish(4).to_vec();
    vec![small, SnapshotEncoder::new(Zxid(0), WallMs(0)).finish(0).to_vec()]
}

/// What follows a SNAP packet, in pieces; recovery puts in place or leaves what came whole.
fn received_snapshot(input: &[u8]) {
    for piece in [7, 1000, input.len()] {
        let mut directory = Directory::default();
        let mut ops = FileOps::default();
        let mut pieces = pieces(input, piece);
        let (zxid, wall) = (Zxid(9), WallMs(0));
        let covered = (piece == 7).then_some(0);
        let mut receiver =
            SnapshotReceiver::begin(zxid, wall, RECORD_BYTES_MAX, 5, &mut ops).covered(covered);
        let whole = loop {
            while receiver.wants_bytes() {
                match pieces.next() {
                    Some(piece) => receiver.push(&piece, &mut ops),
                    None => receiver.closed(&mut ops),
                }
            }
            let (id, op) = ops.take().pop().expect("one operation is under way");
            directory.run(op);
            match receiver.on_done(id, Ok(()), &mut ops) {
                ReceiveProgress::Going => {}
                ReceiveProgress::Done { leftover } => {
                    let rest: usize = pieces.by_ref().map(|piece| piece.len()).sum();
                    assert!(leftover.len() + rest <= input.len());
                    break true;
                }
                ReceiveProgress::Failed(_) => break false,
                ReceiveProgress::NotMine => panic!("the operation is the receiver's"),
            }
        };
        assert_eq!(directory.0.len(), if whole { 2 } else { 0 }, "{:?}", directory.0.keys());
        if whole {
            directory.recover_all();
        }
    }
}

fn streams() -> Vec<Vec<u8>> {
    let acl: Arc<[Acl]> = Arc::from([Acl::world(Perms::READ)]);
    let sessions = [(SessionId(1), 9000)];
    let mut encoder = apache::SnapshotEncoder::for_stream(&sessions, [Arc::clone(&acl)]);
    for path in ["/", "/a", "/a/b"] {
        encoder.znode(path, Some(b"data"), &acl, &stat());
    }
    let small = encoder.finish_stream().to_vec();
    vec![[&small[..], b"packets"].concat(), small]
}

fn epochs(input: &[u8]) {
    let Ok(epochs) = Epochs::decode(input) else { return };
    assert_eq!(Epochs::decode(&epochs.encode()), Ok(epochs));
}

fn epochs_seeds() -> Vec<Vec<u8>> {
    let slot = |sequence| Epochs { accepted: 3, current: 2, sequence }.encode().to_vec();
    vec![slot(1), [slot(1), slot(2)].concat()]
}

fn names(input: &[u8]) {
    let name = String::from_utf8_lossy(input);
    if let Some(sequence) = segment_sequence(&name) {
        assert_eq!(segment_name(sequence), name);
    }
    if let Some(zxid) = catalog::zxid_of(&name) {
        assert_eq!(catalog::file_name(zxid), name);
    }
    if let Some(zxid) = apache::names::log_zxid(&name) {
        assert_eq!(apache::names::log_zxid(&apache::names::log_name(zxid)), Some(zxid));
    }
    if let Some((zxid, compression)) = apache::names::snapshot_zxid(&name) {
        let again = apache::names::snapshot_name(zxid, compression);
        assert_eq!(apache::names::snapshot_zxid(&again), Some((zxid, compression)));
    }
    let _epoch = apache::names::parse_epoch(input);
}

fn name_seeds() -> Vec<Vec<u8>> {
    let ours = [segment_name(77), catalog::file_name(Zxid(0xabc))];
    let apaches = ["log.1f", "snapshot.2a", "snapshot.2a.gz", "snapshot.2a.snappy", "17\n"];
    let apaches = apaches.map(str::to_owned);
    ours.into_iter().chain(apaches).map(String::into_bytes).collect()
}

/// Apache's log as it is, and with its checksums put right, whole and in pieces.
fn apache_log(input: &[u8]) {
    let mut sealed = input.to_vec();
    seal::apache_log(&mut sealed);
    for bytes in [input, &sealed] {
        let whole = read_apache_log(bytes, bytes.len());
        assert_eq!(whole, read_apache_log(bytes, 100));
    }
}

fn read_apache_log(bytes: &[u8], piece: usize) -> (usize, String) {
    let mut decoder = apache::LogDecoder::new(RECORD_BYTES_MAX);
    let mut records = 0;
    for piece in pieces(bytes, piece) {
        decoder.push(&piece);
        loop {
            match decoder.next_record() {
                Ok(Some(record)) => {
                    records += 1;
                    let _txn = txn::decode(&record.txn);
                }
                Ok(None) => break,
                Err(damage) => return (records, damage.to_string()),
            }
            assert!(records <= bytes.len(), "every record takes bytes");
        }
    }
    (records, format!("{:?}", decoder.finish()))
}

fn apache_logs() -> Vec<Vec<u8>> {
    let mut file = BytesMut::new();
    apache::put_log_header(&mut file);
    let mut all = vec![file.to_vec()];
    for txn in txns() {
        apache::put_log_record(&mut file, &txn);
    }
    all.push(file.to_vec());
    file.resize(file.len() + 300, 0);
    all.push(file.to_vec());
    all
}

fn apache_snapshot(input: &[u8], compression: Compression) {
    let whole = read_apache_snapshot(input, input.len(), compression);
    let cut = read_apache_snapshot(input, 100, compression);
    // Where exactly a damaged stream is given up depends on the pieces it comes in.
    assert_eq!(whole.1.is_ok(), cut.1.is_ok());
    if whole.1.is_ok() {
        assert_eq!(whole, cut);
    }
}

fn read_apache_snapshot(
    bytes: &[u8],
    piece: usize,
    compression: Compression,
) -> (usize, Result<String, String>) {
    let mut decoder = apache::SnapshotDecoder::new(compression, RECORD_BYTES_MAX);
    let mut items = 0;
    for piece in pieces(bytes, piece) {
        decoder.push(&piece);
        loop {
            match decoder.next_item() {
                Ok(Some(_)) => items += 1,
                Ok(None) => break,
                Err(damage) => return (items, Err(damage.to_string())),
            }
        }
    }
    let end = decoder.finish().map(|summary| format!("{summary:?}"));
    (items, end.map_err(|damage| damage.to_string()))
}

fn apache_snapshots(compression: Compression) -> Vec<Vec<u8>> {
    let acl: Arc<[Acl]> = Arc::from([Acl::open()]);
    let sessions = [(SessionId(1), 9000), (SessionId(2), 100)];
    let digest = apache::SnapshotDigest { zxid: Zxid(9), version: 2, digest: 77 };
    [(None, None), (Some(digest), None), (Some(digest), Some(Zxid(9)))]
        .into_iter()
        .map(|(digest, last_zxid)| {
            let mut encoder =
                apache::SnapshotEncoder::new(compression, &sessions, [Arc::clone(&acl)]);
            for path in ["", "/zookeeper", "/a", "/a/b"] {
                encoder.znode(path, Some(b"data"), &acl, &stat());
            }
            let mut file = encoder.take_chunk(0).unwrap_or_default().to_vec();
            file.extend_from_slice(&encoder.finish(digest, last_zxid));
            file
        })
        .collect()
}
