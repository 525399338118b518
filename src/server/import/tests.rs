//! Tests of the import: the plan's rows, random histories under fuzzy snapshots, a crash at every
//! step, and each refusal.

use bytes::{Bytes, BytesMut};

use super::*;
use crate::apache::{Compression, names};
use crate::model::{CreateTxnKind, ErrorCode, TxnBody, TxnHeader};
use crate::server::random_history::{Files, Model, OPTIONS};
use crate::server::recovery::{self, Recovery};
use crate::wire;

/// `dataDir` as far as it matters here.
#[derive(Clone, Debug, Default)]
struct World {
    own: Files,
    /// `version-2` as a directory.
    live: Option<Files>,
    /// `version-2` as a file.
    sealed: bool,
    imported: Option<Files>,
    notes: Vec<String>,
}

impl World {
    fn of(files: Files) -> Self {
        Self { live: Some(files), ..Self::default() }
    }

    fn survey(&self) -> Survey {
        let list = |files: &Files| {
            files.iter().map(|(name, bytes)| (name.clone(), bytes.len() as u64)).collect()
        };
        let live = match &self.live {
            Some(files) => Entry::Directory(list(files)),
            None if self.sealed => Entry::File,
            None => Entry::Absent,
        };
        let imported = self.imported.as_ref().map(|files| Entry::Directory(list(files)));
        Survey {
            own_path: "data/ringkeeper".to_owned(),
            own: list(&self.own),
            data: PlaceSurvey {
                path: "data/version-2".to_owned(),
                live,
                imported: imported.unwrap_or_default(),
            },
            log: None,
        }
    }

    fn run_op(&mut self, op: &FileOp) {
        match op {
            FileOp::Create { file } => {
                self.own.insert(file.name.clone(), Vec::new());
            }
            FileOp::Write { file, offset, bytes, .. } => {
                let content = self.own.get_mut(&file.name).expect("it was created");
                let start = usize::try_from(*offset).unwrap();
                content.resize(content.len().max(start + bytes.len()), 0);
                content[start..start + bytes.len()].copy_from_slice(bytes);
            }
            FileOp::Rename { from, to } => {
                let content = self.own.remove(&from.name).expect("it was created");
                self.own.insert(to.clone(), content);
            }
            FileOp::Remove { file } => {
                self.own.remove(&file.name);
            }
            FileOp::Zero { .. } | FileOp::Flush { .. } | FileOp::SyncDir { .. } => {}
            FileOp::WriteNextConfig { .. } | FileOp::WriteConfig { .. } => panic!("{op:?}"),
        }
    }

    fn read(files: &Files, name: &str, offset: u64, len: u64) -> Bytes {
        let bytes = files.get(name).map(Vec::as_slice).unwrap_or_default();
        let start = bytes.len().min(usize::try_from(offset).unwrap());
        let end = bytes.len().min(start + usize::try_from(len).unwrap());
        Bytes::copy_from_slice(&bytes[start..end])
    }

    fn recover(&mut self) -> Recovered {
        let mut machine = Recovery::new(OPTIONS, 5);
        let mut answer = recovery::Answer::Start;
        loop {
            answer = match machine.step(answer) {
                recovery::Step::List(_) => {
                    let own = self.own.iter();
                    let own = own.map(|(name, bytes)| (name.clone(), bytes.len() as u64));
                    recovery::Answer::Listing(own.collect())
                }
                recovery::Step::Read { file, offset, len } => {
                    recovery::Answer::Bytes(Self::read(&self.own, &file.name, offset, len))
                }
                recovery::Step::Run(op) => {
                    self.run_op(&op);
                    recovery::Answer::Ran(Ok(()))
                }
                recovery::Step::Note(note) => panic!("{note}"),
                recovery::Step::Done(recovered) => return *recovered,
                recovery::Step::Refuse(refusal) => panic!("{refusal}"),
            };
        }
    }

    fn is_own_live(&self) -> bool {
        !self.own.contains_key(MARKER) && self.own.keys().any(|name| name.contains("snapshot"))
    }

    /// Runs a start; `None` when it was killed after so many operations.
    fn start(&mut self, mut ops: usize) -> Option<Result<Recovered, ImportRefusal>> {
        let mut machine = Import::new(OPTIONS, 1 << 20, WallMs(1));
        let mut recovered = None;
        let mut answer = Answer::Start;
        loop {
            assert!(!(self.is_own_live() && self.live.is_some()), "two histories live");
            assert!(self.is_own_live() || self.live.is_some() || self.own.contains_key(MARKER));
            answer = match machine.step(answer) {
                Step::Survey => Answer::Surveyed(self.survey()),
                Step::Read { place: Place::Data, name, offset, len } => {
                    let live = self.live.as_ref().expect("it is read before it is sealed");
                    // Short pieces, so that items span them.
                    Answer::Bytes(Self::read(live, &name, offset, len.min(1000)))
                }
                Step::Read { place: Place::Log, .. } => panic!("there is one directory"),
                Step::Note(note) => {
                    self.notes.push(note);
                    Answer::Next
                }
                Step::PassOver { name, unfit } => {
                    self.notes.push(format!("{name} is not used: {unfit}"));
                    Answer::Next
                }
                Step::Recover { check } => {
                    let found = self.recover();
                    let check = check.then(|| Check::of(&found));
                    recovered = Some(found);
                    Answer::Recovered(check)
                }
                Step::Run(_) | Step::Seal { .. } if ops == 0 => return None,
                Step::Run(op) => {
                    ops -= 1;
                    self.run_op(&op);
                    Answer::Ran(Ok(()))
                }
                Step::Seal { .. } => {
                    ops -= 1;
                    if let Some(live) = self.live.take() {
                        self.imported = Some(live);
                    }
                    if ops == 0 {
                        // Where names cannot be swapped, a kill can come between the two.
                        return None;
                    }
                    self.sealed = true;
                    Answer::Ran(Ok(()))
                }
                Step::Done => return recovered.map(Ok),
                Step::Refuse(refusal) => return Some(Err(refusal)),
            };
        }
    }

    fn import(&mut self) -> Recovered {
        self.start(usize::MAX).expect("nobody kills it").unwrap_or_else(|why| panic!("{why}"))
    }

    fn refusal(&mut self) -> ImportRefusal {
        let before = self.live.clone();
        let refused = self.start(usize::MAX).expect("nobody kills it");
        assert_eq!(self.live, before, "a refused import leaves Apache's directory alone");
        refused.expect_err("it is refused")
    }
}

fn put(files: &mut Files, (zxid, snapshot): (Zxid, Vec<u8>)) {
    files.insert(names::snapshot_name(zxid, Compression::None), snapshot);
}

/// A model with a snapshot at zxid 20 and logs of 7 records up to 50 txns.
fn sample() -> (Model, Files) {
    let mut model = Model::new(3);
    while model.txns.len() < 20 {
        model.act();
    }
    let snapshot = model.snapshot(0, true, true);
    while model.txns.len() < 50 {
        model.act();
    }
    let mut files = model.logs(0, 7);
    put(&mut files, snapshot);
    (model, files)
}

#[test]
fn random_histories_come_out_exact_from_fuzzy_snapshots() {
    for seed in 0..400 {
        let mut model = Model::new(seed);
        model.digests = seed % 5 != 4;
        for _ in 0..40 {
            model.act();
        }
        let (digest, last_zxid) = (model.digests && seed % 3 != 0, seed % 2 == 0);
        let snapshot = model.snapshot(60, digest, last_zxid);
        for _ in 0..model.prng.below(3) * 20 {
            model.act();
        }
        if model.txns.is_empty() {
            continue;
        }
        let mut files = model.logs(0, 9);
        put(&mut files, snapshot);
        let mut world = World::of(files);
        let recovered = world.start(usize::MAX).expect("nobody kills it");
        let recovered = recovered.unwrap_or_else(|why| panic!("seed {seed}: {why}"));
        model.assert_same(&recovered, &format!("seed {seed}"));
        let refused = world.notes.iter().any(|note| note.contains("not used"));
        assert!(!refused, "seed {seed}: {:?}", world.notes);
        assert_eq!(world.start(usize::MAX).unwrap().unwrap().last_zxid, recovered.last_zxid);
    }
}

#[test]
fn a_kill_after_any_operation_leaves_one_history_and_the_next_start_goes_on() {
    let (model, files) = sample();
    let mut kills = 0;
    for first in 0.. {
        let mut world = World::of(files.clone());
        if world.start(first).is_some() {
            break;
        }
        kills += 1;
        for second in 0.. {
            let mut again = world.clone();
            match again.start(second) {
                None => continue,
                Some(recovered) => {
                    let recovered = recovered.unwrap_or_else(|why| panic!("{first}: {why}"));
                    model.assert_same(&recovered, "after kills");
                    assert!(again.sealed && again.imported.is_some() && again.is_own_live());
                    break;
                }
            }
        }
    }
    assert!(15 < kills, "{kills} places to kill at");
}

#[test]
fn epochs_go_on() {
    let (mut model, _) = sample();
    model.commit_at(Zxid::new(3, 1), 7, TxnBody::Error(ErrorCode::NO_NODE));
    let snapshot = model.snapshot(0, true, true);
    let with = |epochs: &[(&str, &str)]| {
        let mut files = Files::new();
        put(&mut files, snapshot.clone());
        for (name, text) in epochs {
            files.insert((*name).to_owned(), text.as_bytes().to_vec());
        }
        World::of(files)
    };
    for (epochs, accepted, current) in [
        (&[][..], 3, 3),
        (&[("acceptedEpoch", "5"), ("currentEpoch", "4")][..], 5, 4),
        (&[("acceptedEpoch", "3"), ("currentEpoch", "2"), ("currentEpoch.tmp", "3")][..], 3, 3),
        (&[("acceptedEpoch", "3"), ("currentEpoch", "3"), ("currentEpoch.tmp", "")][..], 3, 3),
    ] {
        let found = with(epochs).import().epochs;
        assert_eq!((found.accepted, found.current), (accepted, current), "{epochs:?}");
    }
    for epochs in [
        &[("acceptedEpoch", "5"), ("currentEpoch", "2")][..],
        &[("acceptedEpoch", "3"), ("currentEpoch", "4")][..],
    ] {
        let refusal = with(epochs).refusal();
        assert!(matches!(refusal, ImportRefusal::Epochs { .. }), "{refusal}");
    }
    let refusal = with(&[("currentEpoch", "x")]).refusal();
    assert!(matches!(refusal, ImportRefusal::EpochFile { .. }), "{refusal}");
}

#[test]
fn a_damaged_newest_snapshot_falls_back_and_a_damaged_log_does_not() {
    let (mut model, mut files) = sample();
    let mut newer = model.snapshot(0, true, true);
    newer.1[40] ^= 1;
    put(&mut files, newer.clone());
    let mut world = World::of(files.clone());
    model.assert_same(&world.import(), "the older snapshot");
    assert!(world.notes[0].contains("not used"), "{:?}", world.notes);

    // The log that the older snapshot needs is damaged in the middle.
    let log = names::log_name(Zxid(29));
    let mut damaged = files.clone();
    damaged.get_mut(&log).unwrap()[16 + 12 + 40] ^= 1;
    let refusal = World::of(damaged).refusal();
    assert!(matches!(&refusal, ImportRefusal::Log { file, .. } if *file == log), "{refusal}");
    assert!(refusal.to_string().contains("offset 16"), "{refusal}");

    let mut absent = files.clone();
    absent.remove(&log);
    let refusal = World::of(absent).refusal();
    let ImportRefusal::Gap { last, found, .. } = refusal else { panic!("{refusal}") };
    assert_eq!((last, found), (Zxid(28), Zxid(36)));

    let mut only_newer = Files::new();
    put(&mut only_newer, newer);
    let refusal = World::of(only_newer).refusal();
    assert!(matches!(&refusal, ImportRefusal::NoSnapshot { unfit } if unfit.len() == 1));
}

#[test]
fn the_last_record_may_be_cut_short_and_no_other() {
    let (model, files) = sample();
    let last = names::log_name(Zxid(50));
    let mut torn = files.clone();
    let len = 16 + 12 + model.txns[49].1.len();
    torn.get_mut(&last).unwrap().truncate(len);
    let mut world = World::of(torn);
    assert_eq!(world.import().last_zxid, Zxid(49));
    assert!(world.notes.iter().any(|note| note.contains("cut short")), "{:?}", world.notes);

    let before = names::log_name(Zxid(43));
    let mut torn = files;
    let file = torn.get_mut(&before).unwrap();
    let end = file.len() - 100 - 1;
    file.truncate(end);
    let refusal = World::of(torn).refusal();
    assert!(matches!(refusal, ImportRefusal::Gap { last: Zxid(48), .. }), "{refusal}");
}

#[test]
fn repetitions_are_passed_over_and_other_txns_with_their_zxids_are_not() {
    let (mut model, _) = sample();
    let snapshot = model.snapshot(0, true, true);
    model.commit(7, TxnBody::CreateSession { timeout_ms: 5000 });
    let mut repeated = model.txns.clone();
    repeated.extend_from_slice(&model.txns[50..]);
    // Apache gives a request that does not decode the zxid of the txn before.
    let header = TxnHeader { zxid: Zxid(51), ..TxnHeader::default() };
    let mut error = BytesMut::new();
    let body = TxnBody::Error(ErrorCode::NO_NODE);
    wire::txn::encode(&header, &body, None, &mut error);
    repeated.push((Zxid(51), error.freeze()));
    let mut other = Model { txns: repeated, ..Model::new(1) };
    let mut files = other.logs(49, 99);
    put(&mut files, snapshot.clone());
    model.assert_same(&World::of(files).import(), "repeated");

    let mut bytes = BytesMut::new();
    let body = TxnBody::CreateSession { timeout_ms: 1 };
    wire::txn::encode(&header, &body, None, &mut bytes);
    other.txns.push((Zxid(51), bytes.freeze()));
    let mut files = other.logs(49, 99);
    put(&mut files, snapshot);
    let refusal = World::of(files).refusal();
    assert!(matches!(refusal, ImportRefusal::Repeated { found: Zxid(51), .. }), "{refusal}");
}

#[test]
fn a_snapshot_ahead_of_the_log_and_a_wrong_digest_are_not_used() {
    let mut model = Model::new(9);
    while model.txns.len() < 20 {
        model.act();
    }
    let (begun, file) = model.snapshot(30, true, true);
    let known = model.txns.len();
    assert!(21 < known);
    let mut files = model.logs(0, known - 1);
    files.remove(&names::log_name(model.txns[known - 1].0));
    put(&mut files, (begun, file));
    let refusal = World::of(files).refusal();
    let ImportRefusal::NoSnapshot { unfit } = &refusal else { panic!("{refusal}") };
    assert!(matches!(unfit[0].1, Unfit::Ahead { .. }), "{refusal}");

    let (mut model, mut files) = sample();
    model.txns.truncate(49);
    let wrong = TxnHeader { zxid: Zxid(50), ..TxnHeader::default() };
    let mut bytes = BytesMut::new();
    wire::txn::encode(&wrong, &TxnBody::CreateSession { timeout_ms: 1 }, Some(1), &mut bytes);
    model.txns.push((Zxid(50), bytes.freeze()));
    files.extend(model.logs(49, 7));
    let refusal = World::of(files).refusal();
    let ImportRefusal::NoSnapshot { unfit } = &refusal else { panic!("{refusal}") };
    assert!(matches!(unfit[0].1, Unfit::Digest { zxid: Zxid(50), .. }), "{refusal}");
}

/// Servers before 3.6 do not write how far a snapshot may be ahead; its znodes show some of it.
#[test]
fn a_snapshot_that_does_not_tell_is_ahead_as_far_as_its_znodes_are() {
    let mut model = Model::new(9);
    while model.txns.len() < 20 {
        model.act();
    }
    let begun = model.txns.len();
    let snapshot = model.snapshot(30, false, false);
    let files = |upto: usize| {
        let model = Model { txns: model.txns[..upto].to_vec(), ..Model::new(9) };
        let mut files = model.logs(0, 7);
        put(&mut files, snapshot.clone());
        files
    };
    let refusal = World::of(files(begun)).refusal();
    let ImportRefusal::NoSnapshot { unfit } = &refusal else { panic!("{refusal}") };
    assert!(matches!(unfit[0].1, Unfit::Ahead { .. }), "{refusal}");
    let recovered = World::of(files(model.txns.len())).import();
    model.assert_same(&recovered, "with all of the log");

    // The configuration's znode shows its version.
    let (mut model, mut files) = sample();
    let text = "server.1=a:1:2:participant\nversion=500000003";
    model.state.tree.set_config(text, Zxid::new(5, 3).0);
    let (zxid, with_config) = model.snapshot(0, false, false);
    put(&mut files, (zxid, with_config));
    let mut world = World::of(files);
    world.import();
    assert!(!world.notes.iter().any(|note| note.contains("not used")), "{:?}", world.notes);
}

#[test]
fn orphans_go_and_ttl_znodes_are_not_taken_for_orphans() {
    let mut model = Model::new(1);
    let body = model.create("/e", CreateTxnKind::Create { ephemeral: true });
    model.commit(99, body);
    let mut files = Files::new();
    put(&mut files, model.snapshot(0, true, true));
    let mut world = World::of(files);
    assert!(world.import().tree.get("/e").is_none());
    assert!(world.notes.iter().any(|note| note.contains("1 ephemerals")), "{:?}", world.notes);

    let body = model.create("/t", CreateTxnKind::Ttl { ttl_ms: 100 });
    model.commit(7, body);
    let mut files = Files::new();
    put(&mut files, model.snapshot(0, true, true));
    let refusal = World::of(files).refusal();
    assert!(matches!(&refusal, ImportRefusal::Ttl { path } if path == "/t"), "{refusal}");
}

#[test]
fn every_row_of_the_plan() {
    let apache = |name: &str| Entry::Directory(vec![(name.to_owned(), 9)]);
    let survey = |own: &[&str], live: Entry, imported: Entry| Survey {
        own: own.iter().map(|name| ((*name).to_owned(), 1)).collect(),
        data: PlaceSurvey { live, imported, ..PlaceSurvey::default() },
        ..Survey::default()
    };
    let live = || apache("snapshot.0");
    let (own, marked) = (&["txnlog.0000000000000001"][..], &["epochs", MARKER][..]);
    let aside = || apache("snapshot.0");
    type Row<'a> = (&'a str, &'a [&'a str], Entry, Entry);
    let rows: [Row<'_>; 13] = [
        ("start", &[], Entry::Absent, Entry::Absent),
        ("start", &[], apache("other"), Entry::Absent),
        ("start", own, Entry::File, aside()),
        ("start", own, Entry::Absent, aside()),
        ("two histories", own, live(), Entry::Absent),
        ("import", &["lock"], live(), Entry::File),
        ("taken", &[], live(), aside()),
        ("gone", &[], Entry::File, aside()),
        ("logs alone", &[], apache("log.1"), Entry::Absent),
        ("import", marked, live(), Entry::File),
        ("sources gone", marked, Entry::Absent, Entry::Absent),
        ("finish", marked, Entry::Absent, aside()),
        ("finished", marked, Entry::File, aside()),
    ];
    for (expected, own, live, imported) in rows {
        let text = format!("{expected}: {own:?} {live:?} {imported:?}");
        let found = match plan::plan(&survey(own, live, imported)) {
            Ok(Plan::Start) => "start",
            Ok(Plan::Import { unsealed, stale, .. }) => {
                assert_eq!(unsealed, [Place::Data]);
                assert_eq!(
                    stale,
                    own.iter().filter(|n| **n == "epochs").copied().collect::<Vec<_>>()
                );
                "import"
            }
            Ok(Plan::Finish(unsealed)) if unsealed.is_empty() => "finished",
            Ok(Plan::Finish(_)) => "finish",
            Err(ImportRefusal::TwoHistories { .. }) => "two histories",
            Err(ImportRefusal::ResultGone { .. }) => "gone",
            Err(ImportRefusal::ImportedExists { .. }) => "taken",
            Err(ImportRefusal::SourcesGone { .. }) => "sources gone",
            Err(ImportRefusal::LogsAlone { .. }) => "logs alone",
            Err(other) => panic!("{text}: {other}"),
        };
        assert_eq!(found, expected, "{text}");
    }
}

#[test]
fn files_in_the_wrong_one_of_two_directories_are_named() {
    let directory = |name: &str| PlaceSurvey {
        path: format!("{name}/version-2"),
        live: Entry::Directory(vec![(name.to_owned(), 9)]),
        imported: Entry::Absent,
    };
    let survey = |data: &str, log: &str| Survey {
        data: directory(data),
        log: Some(directory(log)),
        ..Survey::default()
    };
    for (data, log, file) in
        [("log.1", "log.2", "log.1"), ("snapshot.0", "snapshot.1", "snapshot.1")]
    {
        let refusal = plan::plan(&survey(data, log)).expect_err("they are in the wrong place");
        let ImportRefusal::Misplaced { file: found } = refusal else { panic!("{refusal}") };
        assert!(found.ends_with(file), "{found}");
    }
    let plan = plan::plan(&survey("snapshot.0", "log.1"));
    let Ok(Plan::Import { sources, unsealed, .. }) = plan else { panic!("{plan:?}") };
    assert_eq!(unsealed, [Place::Data, Place::Log]);
    assert_eq!(sources.logs, [(Zxid(1), "log.1".to_owned())]);
}
