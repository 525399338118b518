//! A learner's history replaced by a leader's snapshot, or cut: with a crash at every disk
//! operation, of both kinds, it is the one before or the one after, and never anything else.

use std::sync::Arc;

use bytes::{Bytes, BytesMut};

use super::disk::{Crash, Disk};
use crate::base::{FileDir, FileName, FileOp, FileOps, Prng, WallMs};
use crate::limits::RECORD_BYTES_MAX;
use crate::model::{Acl, CreateTxn, CreateTxnKind, StatPersisted, TxnBody, Zxid};
use crate::server::fuzzy::Fuzzy;
use crate::server::install;
use crate::server::random_history::{Model, OPTIONS};
use crate::server::recovery::{Answer, Recovered, Recovery, Refusal, Step};
use crate::server::snap_receive::{ReceiveError, ReceiveProgress, SnapshotReceiver};
use crate::server::snap_send::SnapshotSender;
use crate::snapshot::{SnapshotEncoder, catalog};
use crate::txnlog::{LogConfig, LogWriter, segment_sequence};
use crate::wire::quorum::put_checksum;

/// A disk that a machine may be killed on.
#[derive(Clone)]
pub(super) struct Site {
    pub(super) disk: Disk,
    prng: Prng,
    /// The next operations that run before the crash; behind it none does.
    ops_left: usize,
    crash: Crash,
    notes: Vec<String>,
}

/// The machine was killed.
#[derive(Debug)]
struct Killed;

impl Site {
    fn new(disk: Disk, ops_left: usize, crash: Crash, seed: u64) -> Self {
        Self { disk, prng: Prng::new(seed), ops_left, crash, notes: Vec::new() }
    }

    pub(super) fn whole(disk: Disk) -> Self {
        Self::new(disk, usize::MAX, Crash::Kill, 1)
    }

    fn run(&mut self, op: &FileOp) -> Result<(), Killed> {
        if self.ops_left == 0 {
            self.disk.leave_in_flight(op, self.crash, &mut self.prng);
            self.disk.crash(self.crash, &mut self.prng);
            return Err(Killed);
        }
        self.ops_left -= 1;
        self.disk.run(op).unwrap_or_else(|failure| panic!("{failure}"));
        Ok(())
    }

    fn recover(&mut self, keep: Option<Zxid>) -> Result<Result<Recovered, Refusal>, Killed> {
        let mut recovery = Recovery::new(OPTIONS, self.prng.next_u64());
        if let Some(keep) = keep {
            recovery = recovery.keep_until(keep);
        }
        let mut answer = Answer::Start;
        loop {
            answer = match recovery.step(answer) {
                Step::List(dir) => Answer::Listing(self.disk.list(dir)),
                Step::Read { file, offset, len } => {
                    Answer::Bytes(self.disk.read(&file, offset, len))
                }
                Step::Run(op) => Answer::Ran(Ok(self.run(&op)?)),
                Step::Note(note) => {
                    self.notes.push(note);
                    Answer::Next
                }
                Step::Done(recovered) => return Ok(Ok(*recovered)),
                Step::Refuse(refusal) => return Ok(Err(refusal)),
            };
        }
    }

    fn recovered(&mut self) -> Recovered {
        let recovered = self.recover(None).expect("nobody kills it");
        recovered.unwrap_or_else(|refusal| panic!("{refusal}"))
    }

    /// Receives what comes behind a SNAP packet.
    fn receive(&mut self, sent: &Sent, piece: usize) -> Result<ReceiveProgress, Killed> {
        let mut ops = FileOps::default();
        let mut pieces = sent.stream.chunks(piece);
        let sequences = self.disk.list(FileDir::Log);
        let last = sequences.iter().filter_map(|(name, _)| segment_sequence(name)).max();
        let first_segment = last.unwrap_or(0) + 1;
        let (zxid, bytes_max) = (sent.zxid, RECORD_BYTES_MAX);
        let mut receiver =
            SnapshotReceiver::begin(zxid, WallMs(1), bytes_max, first_segment, &mut ops)
                .covered(sent.cover);
        loop {
            while receiver.wants_bytes() {
                match pieces.next() {
                    Some(piece) => receiver.push(&Bytes::copy_from_slice(piece), &mut ops),
                    None => receiver.closed(&mut ops),
                }
            }
            for (id, op) in ops.take() {
                self.run(&op)?;
                // Packets come behind the snapshot before it is installed.
                if receiver.is_whole() && self.prng.one_in(2) {
                    let piece = pieces.next().unwrap_or_default();
                    receiver.push(&Bytes::copy_from_slice(piece), &mut ops);
                }
                match receiver.on_done(id, Ok(()), &mut ops) {
                    ReceiveProgress::Going => {}
                    ReceiveProgress::Done { leftover } => {
                        let mut all = leftover.to_vec();
                        pieces.for_each(|piece| all.extend_from_slice(piece));
                        return Ok(ReceiveProgress::Done { leftover: all.into() });
                    }
                    other => return Ok(other),
                }
            }
        }
    }

    /// Writes the txns of one life to a log of its own segments.
    fn log(&mut self, txns: &[(Zxid, Bytes)]) {
        let recovered = self.recovered();
        let config = LogConfig { segment_bytes_default: 4 << 20 };
        let mut log = LogWriter::new(config, recovered.log_end, self.prng.next_u64());
        let mut ops = FileOps::default();
        log.start(&mut ops);
        for (zxid, txn) in txns {
            log.append(*zxid, |buf| buf.extend_from_slice(txn));
            log.submit(&mut ops);
            while log.flushed_zxid() < *zxid {
                for (id, op) in ops.take() {
                    self.disk.run(&op).unwrap();
                    log.on_done(id, Ok(()), &mut ops).unwrap();
                }
                log.submit(&mut ops);
            }
        }
    }

    fn snapshot(&mut self, model: &mut Model) {
        let (zxid, digest) = (model.state.tree.last_zxid(), model.state.tree.digest());
        let mut encoder = SnapshotEncoder::new(zxid, WallMs(1));
        for (id, timeout_ms) in &model.state.sessions {
            encoder.session(*id, *timeout_ms);
        }
        let tree = &mut model.state.tree;
        let cut = tree.begin_cut();
        tree.cut_items(cut, usize::MAX, &mut |item| {
            encoder.znode(item.path, item.data, item.acl, item.stat);
        });
        tree.end_cut(cut);
        self.write(FileName::data(catalog::file_name(zxid)), encoder.finish(digest));
    }

    fn write(&mut self, file: FileName, bytes: Bytes) {
        let dir = file.dir;
        for op in [
            FileOp::Create { file: file.clone() },
            FileOp::Write { file: file.clone(), offset: 0, bytes, durable: false },
            FileOp::Flush { file },
            FileOp::SyncDir { dir },
        ] {
            self.disk.run(&op).unwrap();
        }
    }

    /// Only what is in use, everything durable.
    fn compact(&self) -> Disk {
        let mut compact = Self::whole(Disk::default());
        for dir in [FileDir::Log, FileDir::Data] {
            for (name, len) in self.disk.list(dir) {
                let file = FileName { dir, name };
                let bytes = self.disk.read(&file, 0, len);
                compact.write(file, bytes);
            }
        }
        compact.disk
    }

    pub(super) fn names(&self, dir: FileDir) -> Vec<String> {
        self.disk.list(dir).into_iter().map(|(name, _)| name).collect()
    }
}

/// What a leader has sent.
struct Sent {
    zxid: Zxid,
    stream: Vec<u8>,
    /// The packets behind it.
    behind: Vec<u8>,
    /// What its checksum goes on from.
    cover: Option<u32>,
}

impl Sent {
    /// With the checksum of a leader of ours.
    fn covered(self) -> Self {
        let before = crc32c::crc32c(b"packets");
        let mut checksum = BytesMut::new();
        put_checksum(&mut checksum, crc32c::crc32c_append(before, &self.stream));
        Self { cover: Some(before), ..self.behind(&checksum) }
    }

    fn behind(mut self, packets: &[u8]) -> Self {
        self.behind = packets.to_vec();
        self.stream.extend_from_slice(packets);
        self
    }
}

/// Sends the leader's tree, while up to `ahead` txns go on being applied.
fn send(leader: &mut Model, ahead: u64, bytes: usize) -> Sent {
    let sessions: Vec<_> = leader.state.sessions.iter().map(|(id, ms)| (*id, *ms)).collect();
    let mut sender = SnapshotSender::begin(&mut leader.state.tree, &sessions);
    let (zxid, mut stream) = (sender.zxid(), Vec::new());
    assert_eq!(zxid, leader.state.tree.last_zxid());
    let mut left = ahead;
    while let Some(chunk) = sender.next_chunk(&mut leader.state.tree, bytes) {
        stream.extend_from_slice(&chunk);
        while 0 < left && leader.prng.one_in(2) {
            leader.act();
            left -= 1;
        }
    }
    sender.end(&mut leader.state.tree);
    Sent { zxid, stream, behind: Vec::new(), cover: None }
}

/// A history of two lives and a snapshot in each, from epoch `epoch` on.
pub(super) fn learner(seed: u64, epoch: u32) -> (Model, Disk) {
    let mut model = Model::new(seed);
    let session = TxnBody::CreateSession { timeout_ms: 9000 };
    model.commit_at(Zxid::new(epoch, 1), 5, session);
    let mut site = Site::whole(Disk::default());
    let mut from = 0;
    for upto in [14, 30] {
        while model.txns.len() < upto {
            model.act();
        }
        site.log(&model.txns[from..]);
        site.snapshot(&mut model.at(model.txns[upto - 7].0));
        from = upto;
    }
    (model, site.compact())
}

/// A leader with quotas, ephemerals, ACLs and a long value.
fn leader(seed: u64, epoch: u32) -> Model {
    let mut model = Model::new(seed);
    model.commit_at(Zxid::new(epoch, 1), 6, TxnBody::CreateSession { timeout_ms: 9000 });
    let create = |model: &Model, path: &str, data: Vec<u8>| {
        let parent = crate::model::path::parent(path).unwrap();
        let parent = model.state.tree.get(parent).unwrap();
        TxnBody::Create(CreateTxn {
            kind: CreateTxnKind::Create { ephemeral: false },
            path: path.into(),
            data: Some(data.into()),
            acl: vec![Acl::open()],
            parent_cversion: parent.persisted().cversion + 1,
        })
    };
    for (path, data) in [
        ("/long", vec![7; 700_000]),
        ("/0", b"x".to_vec()),
        ("/zookeeper/quota/0", Vec::new()),
        ("/zookeeper/quota/0/zookeeper_limits", b"count=5,bytes=100".to_vec()),
        ("/zookeeper/quota/0/zookeeper_stats", b"count=1,bytes=1".to_vec()),
    ] {
        let body = create(&model, path, data);
        model.commit(6, body);
    }
    for _ in 0..60 {
        model.act();
    }
    model
}

fn quotas(recovered: &Recovered) -> Option<Vec<u8>> {
    let stats = recovered.tree.get("/zookeeper/quota/0/zookeeper_stats")?;
    stats.data().map(<[u8]>::to_vec)
}

#[test]
fn what_a_leader_sends_is_what_a_learner_recovers_whatever_is_applied_meanwhile() {
    for seed in 0..40 {
        let (_, disk) = learner(seed, 3);
        // The leader's epoch may be the earlier one: the learner's snapshots have higher zxids.
        let mut leader = leader(seed + 1000, if seed % 2 == 0 { 5 } else { 2 });
        let sent = send(&mut leader, 80, [1, 100, 5000, 1 << 20][seed as usize % 4]);
        let sent = sent.behind(b"packets");
        let at_cut = leader.at(sent.zxid);
        let mut site = Site::whole(disk);
        let piece = [1000, 77, 1 << 16, 1 << 30][seed as usize / 4 % 4];
        let progress = site.receive(&sent, piece).unwrap();
        assert_eq!(progress, ReceiveProgress::Done { leftover: Bytes::from(sent.behind.clone()) });
        let recovered = site.recovered();
        at_cut.assert_same(&recovered, &format!("seed {seed}"));
        assert_eq!(recovered.installed, Some(sent.zxid));
        assert_eq!(recovered.snapshots, [sent.zxid]);
        assert!(recovered.unread_snapshots.is_empty());
        assert_eq!(site.names(FileDir::Data), ["epochs", &catalog::file_name(sent.zxid)]);
        assert!(site.names(FileDir::Log).is_empty());
        // What the subtree uses is counted, not copied.
        let mut again = leader.at(sent.zxid);
        again.state.tree.recount_quotas();
        let expected = again.state.tree.get("/zookeeper/quota/0/zookeeper_stats");
        let expected = expected.and_then(|znode| znode.data()).map(<[u8]>::to_vec);
        assert_eq!(quotas(&recovered), expected);
        // The log goes on behind it, and the switch is over.
        let behind: Vec<_> = leader.txns.iter().filter(|(txn, _)| sent.zxid < *txn).collect();
        site.log(&behind.into_iter().cloned().collect::<Vec<_>>());
        let recovered = site.recovered();
        leader.assert_same(&recovered, &format!("seed {seed}, later"));
        assert_eq!(recovered.installed, None);
    }
}

#[test]
fn the_fuzzy_snapshots_of_apaches_leaders_become_exact() {
    let mut ahead = 0;
    for seed in 0..60 {
        let (_, disk) = learner(seed, 1);
        let mut leader = leader(seed + 500, 4);
        let (zxid, file) = leader.snapshot(60, false, false);
        // The body of the file without header and seal is what Apache's leader sends.
        let body = &file[16..file.len() - 13];
        let stream = [body, &b"\0\0\0\x0aBenWasHere"[..]].concat();
        let sent = Sent { zxid, stream, behind: Vec::new(), cover: None };
        let mut site = Site::whole(disk);
        let progress = site.receive(&sent, 4000).unwrap();
        assert_eq!(progress, ReceiveProgress::Done { leftover: Bytes::new() });
        let recovered = site.recovered();
        assert_ne!(recovered.fuzzy, Fuzzy::Over);
        ahead += u32::from(recovered.tree.digest() != leader.at(zxid).state.tree.digest());
        // A leader whose last txn is a refusal: no digest tells that the end is reached.
        while leader.txns.last().is_some_and(|(_, txn)| {
            crate::wire::txn::decode(txn).is_ok_and(|txn| txn.digest.is_none())
        }) {
            leader.act();
        }
        let behind: Vec<_> = leader.txns.iter().filter(|(txn, _)| zxid < *txn).cloned().collect();
        site.log(&behind);
        let mut recovered = site.recovered();
        leader.assert_same(&recovered, &format!("seed {seed}"));
        assert_eq!(recovered.fuzzy.passed(&mut recovered.tree), Ok(()), "seed {seed}");
    }
    assert!(20 < ahead, "{ahead} snapshots were ahead of their zxid");
}

/// Every crash of both kinds while a snapshot is received and put in place, and a second one while
/// the next start goes on.
#[test]
fn a_crash_leaves_the_old_history_or_the_new_one() {
    let (old, disk) = learner(7, 3);
    let (mut befores, mut afters) = (0, 0);
    for epoch in [2, 5] {
        let mut leader = leader(8, epoch);
        let sent = send(&mut leader, 0, 1 << 16);
        for crash in [Crash::Kill, Crash::PowerCut] {
            let mut is_over = false;
            for ops_left in 0.. {
                for seed in 0..3 {
                    let mut site = Site::new(disk.clone(), ops_left, crash, seed);
                    let received = site.receive(&sent, 1 << 16);
                    let is_done = matches!(received, Ok(ReceiveProgress::Done { .. }));
                    assert!(is_done || received.is_err(), "{received:?}");
                    let mut is_in_place = false;
                    if is_done && matches!(site.recover(None), Ok(Ok(_))) {
                        (is_over, is_in_place) = (true, true);
                    }
                    // The second one.
                    site.ops_left = usize::try_from(site.prng.below(12)).unwrap();
                    let second = site.recover(None);
                    assert!(!matches!(second, Ok(Err(_))), "{second:?}");
                    site.ops_left = usize::MAX;
                    let recovered = site.recovered();
                    let what = format!("{crash:?} after {ops_left}, seed {seed}");
                    if recovered.last_zxid == sent.zxid {
                        leader.assert_same(&recovered, &what);
                        afters += 1;
                    } else {
                        assert!(!is_in_place, "{what}: it was in place");
                        old.assert_same(&recovered, &what);
                        befores += 1;
                    }
                    // A directory that is not flushed may lose a renamed file under both names.
                    let lost = site.notes.iter().all(|note| note.contains("it is not there"));
                    assert!(lost, "{what}: {:?}", site.notes);
                    assert!(crash == Crash::PowerCut || site.notes.is_empty(), "{what}");
                    let names = site.names(FileDir::Data);
                    let known =
                        |name: &String| name == "epochs" || catalog::zxid_of(name).is_some();
                    assert!(names.iter().all(known), "{what}: {names:?}");
                    if seed != 0 {
                        continue;
                    }
                    // It can go on.
                    let next = recovered.last_zxid.next();
                    let mut model = if recovered.last_zxid == sent.zxid {
                        leader.at(sent.zxid)
                    } else {
                        old.at(recovered.last_zxid)
                    };
                    model.commit_at(next, 6, TxnBody::CreateSession { timeout_ms: 4000 });
                    site.log(&model.txns[model.txns.len() - 1..]);
                    model.assert_same(&site.recovered(), &what);
                }
                if is_over {
                    break;
                }
            }
        }
    }
    assert!(20 < befores && 20 < afters, "{befores} {afters}");
}

#[test]
fn a_stream_that_ends_or_is_damaged_leaves_everything_as_it_was() {
    let (old, disk) = learner(9, 3);
    let mut leader = leader(10, 4);
    let whole = send(&mut leader, 0, 1 << 20);
    let len = whole.stream.len();
    let fails = |stream: Vec<u8>| {
        let mut site = Site::whole(disk.clone());
        let sent = Sent { zxid: whole.zxid, stream, behind: Vec::new(), cover: None };
        let progress = site.receive(&sent, 1 << 16).unwrap();
        let ReceiveProgress::Failed(error) = progress else { panic!("{progress:?}") };
        let names = site.names(FileDir::Data);
        assert!(names.iter().all(|name| !name.contains("received")), "{names:?}");
        old.assert_same(&site.recovered(), "after a failure");
        error
    };
    for cut in [0, 3, 4, 100, len / 2, len - 1] {
        assert_eq!(fails(whole.stream[..cut].to_vec()), ReceiveError::Ended);
    }
    let mut other = whole.stream.clone();
    other[len - 1] = b'E';
    let error = fails(other);
    assert!(matches!(error, ReceiveError::Damage(_)), "{error}");
    let mut negative = whole.stream.clone();
    negative[..4].fill(0xff);
    let error = fails(negative);
    assert!(error.to_string().contains("negative count"), "{error}");
}

/// What only the whole shows, recovery finds before anything is replaced.
#[test]
fn a_snapshot_that_makes_no_tree_is_not_put_in_place() {
    let (old, disk) = learner(11, 3);
    let stat = StatPersisted::default();
    let open: Arc<[Acl]> = Arc::new([Acl::open()]);
    for (paths, why) in [
        (&["/", "/a/b"][..], "znode /a has children"),
        (&["/", "/a", "/a"], "znode /a stands twice"),
        (&["/", "a"], "is not a path"),
        (&[], "znode / has children"),
    ] {
        let mut encoder = crate::apache::SnapshotEncoder::for_stream(&[], []);
        paths.iter().for_each(|path| encoder.znode(path, None, &open, &stat));
        let stream = encoder.finish_stream().to_vec();
        let sent = Sent { zxid: Zxid::new(9, 9), stream, behind: Vec::new(), cover: None };
        for ops_left in 0..6 {
            let mut site = Site::whole(disk.clone());
            let progress = site.receive(&sent, 1000).unwrap();
            assert!(matches!(progress, ReceiveProgress::Done { .. }), "{progress:?}");
            (site.ops_left, site.crash) = (ops_left, Crash::PowerCut);
            let first = site.recover(None);
            assert!(site.notes[0].contains(why), "{:?}", site.notes);
            site.ops_left = usize::MAX;
            let recovered = first.map_or_else(|Killed| site.recovered(), Result::unwrap);
            old.assert_same(&recovered, why);
            assert_eq!(recovered.installed, None);
            old.assert_same(&site.recovered(), why);
            assert!(!site.names(FileDir::Data).contains(&install::FILE_NAME.to_owned()));
        }
    }
}

#[test]
fn a_damaged_record_and_a_damaged_installed_snapshot_are_refused() {
    let (_, disk) = learner(12, 3);
    let sent = send(&mut leader(13, 4), 0, 1 << 20);
    let mut site = Site::whole(disk);
    site.receive(&sent, 1 << 20).unwrap();
    let damage = |site: &Site, name: &str, at: usize| {
        let mut site = site.clone();
        let file = FileName::data(name.to_owned());
        let mut bytes = site.disk.read(&file, 0, 1 << 30).to_vec();
        bytes[at] ^= 1;
        site.write(file, bytes.into());
        site
    };
    let mut damaged = damage(&site, install::FILE_NAME, 9);
    let refused = damaged.recover(None).unwrap().unwrap_err();
    assert!(matches!(refused, Refusal::InstallRecord(_)), "{refused}");
    // The first two operations give the snapshot its name.
    site.ops_left = 2;
    site.recover(None).unwrap_err();
    let mut damaged = damage(&site, &catalog::file_name(sent.zxid), 5000);
    damaged.ops_left = usize::MAX;
    let refused = damaged.recover(None).unwrap().unwrap_err();
    assert!(matches!(refused, Refusal::Installed { .. }), "{refused}");
}

/// The history cut behind each of its txns, with a crash at every operation: what is found is the
/// history up to the cut, or up to where it ended, or to something between that was cut first.
#[test]
fn a_cut_keeps_the_history_up_to_a_txn_whenever_it_crashes() {
    let (old, disk) = learner(21, 3);
    let last = old.txns.last().unwrap().0;
    // Around the two snapshots, the end of the first life, and the end.
    for at in [0, 6, 7, 8, 13, 14, 22, 23, 24, 28, 29] {
        let keep = old.txns[at].0;
        for crash in [Crash::Kill, Crash::PowerCut] {
            let mut is_over = false;
            for ops_left in 0.. {
                let seed = (at * 100 + ops_left) as u64;
                let mut site = Site::new(disk.clone(), ops_left, crash, seed);
                let what = format!("keep {keep}, {crash:?} after {ops_left}");
                if let Ok(cut) = site.recover(Some(keep)) {
                    let cut = cut.unwrap_or_else(|refusal| panic!("{what}: {refusal}"));
                    old.at(keep).assert_same(&cut, &what);
                    assert!(cut.snapshots.iter().all(|zxid| *zxid <= keep), "{what}");
                    assert!(cut.unread_snapshots.iter().all(|zxid| *zxid <= keep), "{what}");
                    is_over = true;
                }
                site.ops_left = usize::MAX;
                let recovered = site.recovered();
                assert!(keep <= recovered.last_zxid && recovered.last_zxid <= last, "{what}");
                assert!(!is_over || recovered.last_zxid == keep, "{what}");
                old.at(recovered.last_zxid).assert_same(&recovered, &what);
                // The cut is made again after the crash.
                let again = site.recover(Some(keep)).unwrap().unwrap();
                old.at(keep).assert_same(&again, &what);
                old.at(keep).assert_same(&site.recovered(), &what);
                if is_over {
                    break;
                }
            }
        }
    }
}

#[test]
fn a_cut_without_a_base_is_refused_and_changes_nothing() {
    let (old, disk) = learner(22, 3);
    let refused = |mut site: Site, keep: Zxid| {
        let before = (site.names(FileDir::Log), site.names(FileDir::Data));
        let refusal = site.recover(Some(keep)).unwrap().unwrap_err();
        assert!(matches!(refusal, Refusal::Cut { .. }), "{refusal}");
        assert_eq!(before, (site.names(FileDir::Log), site.names(FileDir::Data)));
        old.assert_same(&site.recovered(), "a refused cut");
    };
    let snapshots: Vec<_> = old.txns.iter().map(|(zxid, _)| *zxid).collect();
    let (first, second) = (snapshots[7], snapshots[23]);
    // The log begins behind the first snapshot, which is the one that is needed and damaged.
    let mut site = Site::whole(disk.clone());
    let segment = site.names(FileDir::Log)[0].clone();
    for file in [FileName::log(segment), FileName::data(catalog::file_name(first))] {
        site.disk.run(&FileOp::Remove { file }).unwrap();
    }
    refused(site.clone(), snapshots[15]);
    // No log at all, and a snapshot behind the cut.
    let mut only = Site::whole(Disk::default());
    only.snapshot(&mut old.at(second));
    let refusal = only.recover(Some(first)).unwrap().unwrap_err();
    assert!(matches!(refusal, Refusal::Cut { .. }), "{refusal}");
    assert_eq!(only.recovered().last_zxid, second);
    // Behind a snapshot that took the place of everything.
    let mut leader = leader(23, 4);
    let sent = send(&mut leader, 0, 1 << 20);
    let mut site = Site::whole(disk);
    site.receive(&sent, 1 << 20).unwrap();
    let refusal = site.recover(Some(Zxid(sent.zxid.0 - 1))).unwrap().unwrap_err();
    assert!(matches!(refusal, Refusal::Cut { .. }), "{refusal}");
    leader.assert_same(&site.recovered(), "all the same");
}

/// The checksum is whole or nothing is put in place, however the bytes come.
#[test]
fn a_body_with_another_checksum_is_never_put_in_place() {
    let (before, disk) = learner(1, 3);
    let sent = send(&mut leader(2, 5), 0, 1 << 16).covered();
    let mut prng = Prng::new(3);
    let leaves_all = |mut site: Site| {
        assert!(site.names(FileDir::Data).iter().all(|name| !name.contains("received")));
        before.assert_same(&site.recovered(), "what it had");
    };
    for piece in [500, 1 << 16, 1 << 30] {
        let mut site = Site::whole(disk.clone());
        let progress = site.receive(&sent, piece).unwrap();
        assert_eq!(progress, ReceiveProgress::Done { leftover: Bytes::from(sent.behind.clone()) });
        for _ in 0..20 {
            let mut damaged = Sent { stream: sent.stream.clone(), behind: Vec::new(), ..sent };
            let at = prng.below(sent.stream.len() as u64 - 8) as usize;
            damaged.stream[at] ^= 1 << prng.below(8);
            let mut site = Site::whole(disk.clone());
            let progress = site.receive(&damaged, piece).unwrap();
            assert!(matches!(progress, ReceiveProgress::Failed(_)), "{at}: {progress:?}");
            leaves_all(site);
        }
        let mut cut = Sent { stream: sent.stream.clone(), behind: Vec::new(), ..sent };
        cut.stream.pop();
        let mut site = Site::whole(disk.clone());
        let progress = site.receive(&cut, piece).unwrap();
        assert_eq!(progress, ReceiveProgress::Failed(ReceiveError::Ended));
        leaves_all(site);
    }
}
