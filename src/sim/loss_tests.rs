//! What recovery makes of a disk that has lost a part of its history, or all of it.

use super::disk::Disk;
use super::snap_tests::learner;
use crate::base::{FileDir, FileFailure, FileName, FileOp, Prng};
use crate::server::random_history::OPTIONS;
use crate::server::recovery::{Answer, EXPECTED_EMPTY, Recovered, Recovery, Refusal, Step};
use crate::snapshot::catalog;
use crate::txnlog;

/// As a member of an ensemble with `db.autocreate=false`.
fn as_member(disk: &mut Disk) -> Recovered {
    let recovery = Recovery::new(OPTIONS, 1).repaired_by_a_leader().losing_what_is_empty();
    let recovered = disk.recover(recovery, &mut Vec::new());
    recovered.unwrap_or_else(|refusal| panic!("{refusal}"))
}

fn alone(disk: &mut Disk) -> Result<Recovered, Refusal> {
    disk.recover(Recovery::new(OPTIONS, 1), &mut Vec::new())
}

fn remove(disk: &mut Disk, dir: FileDir, which: impl Fn(&str) -> bool) {
    for (name, _) in disk.list(dir) {
        if which(&name) {
            disk.run(&FileOp::Remove { file: FileName { dir, name } }).unwrap();
        }
    }
}

fn is_segment(name: &str) -> bool {
    txnlog::segment_sequence(name).is_some()
}

fn is_snapshot(name: &str) -> bool {
    catalog::zxid_of(name).is_some()
}

#[test]
fn a_marker_is_believed_of_one_empty_database() {
    let has_marker =
        |disk: &Disk| disk.list(FileDir::Data).iter().any(|(name, _)| name == EXPECTED_EMPTY);
    let mut new = Disk::default();
    assert!(matches!(as_member(&mut new).lost, Some(Refusal::Empty)), "nothing says it is new");
    new.expect_empty();
    assert!(as_member(&mut new).lost.is_none() && as_member(&mut new).lost.is_none());
    // It has a snapshot by now: the marker goes, and what is emptied then is lost.
    let (model, mut disk) = learner(3, 1);
    disk.expect_empty();
    assert_eq!(as_member(&mut disk).last_zxid, model.state.tree.last_zxid());
    assert!(!has_marker(&disk));
    remove(&mut disk, FileDir::Data, is_snapshot);
    remove(&mut disk, FileDir::Log, is_segment);
    assert!(matches!(as_member(&mut disk).lost, Some(Refusal::Empty)));
}

#[test]
fn a_damaged_snapshot_shows_that_there_was_more() {
    let (_, mut disk) = learner(4, 1);
    remove(&mut disk, FileDir::Log, is_segment);
    let newest = alone(&mut disk.clone()).unwrap().last_zxid;
    let names: Vec<String> = disk.list(FileDir::Data).into_iter().map(|(name, _)| name).collect();
    for name in names.into_iter().filter(|name| is_snapshot(name)) {
        let file = FileName::data(name);
        let bytes = bytes::Bytes::from_static(b"damage");
        disk.run(&FileOp::Write { file, offset: 100, bytes, durable: true }).unwrap();
    }
    match alone(&mut disk.clone()) {
        Err(Refusal::Behind { snapshot, last }) => {
            assert_eq!((snapshot, last.0), (newest, 0));
        }
        other => panic!("it begins with {other:?}"),
    }
    let before = disk.list(FileDir::Data);
    let lost = as_member(&mut disk);
    assert!(matches!(lost.lost, Some(Refusal::Behind { .. })) && lost.last_zxid.0 == 0);
    assert_eq!(disk.list(FileDir::Data), before, "nothing is touched");
}

#[test]
fn a_damaged_log_is_lost_whole_and_left_as_it_is() {
    let mut met = 0;
    for seed in 0..20 {
        let (_, mut disk) = learner(seed, 1);
        alone(&mut disk).unwrap();
        if !disk.rot(&mut Prng::new(seed)) || alone(&mut disk.clone()).is_ok() {
            continue;
        }
        met += 1;
        let before = disk.list(FileDir::Log);
        let lost = as_member(&mut disk);
        assert!(!matches!(lost.lost, None | Some(Refusal::Empty)), "the damage is what is named");
        assert!(lost.last_zxid.0 == 0 && lost.snapshots.is_empty());
        let last = before.iter().filter_map(|(name, _)| txnlog::segment_sequence(name)).max();
        assert!(last.unwrap_or_default() < lost.log_end.next_sequence);
        assert_eq!(disk.list(FileDir::Log), before);
    }
    assert!(met != 0, "no seed has met damage");
}

/// A sector that cannot be read is damage: a snapshot is passed over, a log repaired by a leader.
#[test]
fn what_the_disk_does_not_read_is_damaged() {
    let (model, disk) = learner(6, 1);
    let recover = |recovery: Recovery, is_unread: &dyn Fn(&FileName) -> bool| {
        let (mut recovery, mut answer, mut notes) = (recovery, Answer::Start, Vec::new());
        let mut disk = disk.clone();
        loop {
            answer = match recovery.step(answer) {
                Step::List(dir) => Answer::Listing(disk.list(dir)),
                Step::Read { file, .. } if is_unread(&file) => Answer::Unread(FileFailure {
                    no_space: false,
                    no_descriptor: false,
                    text: format!("reading {file}: EIO"),
                }),
                Step::Read { file, offset, len } => Answer::Bytes(disk.read(&file, offset, len)),
                Step::Run(op) => Answer::Ran(disk.run(&op)),
                Step::Note(note) => {
                    notes.push(note);
                    Answer::Next
                }
                Step::Done(recovered) => return (Ok(recovered), notes.join("; ")),
                Step::Refuse(refusal) => return (Err(refusal), notes.join("; ")),
            };
        }
    };
    let mut snapshots: Vec<String> = disk.list(FileDir::Data).into_iter().map(|it| it.0).collect();
    snapshots.retain(|name| is_snapshot(name));
    let newest = snapshots.into_iter().max().expect("there are two");
    let (recovered, notes) = recover(Recovery::new(OPTIONS, 1), &|file| file.name == newest);
    assert_eq!(recovered.unwrap().last_zxid, model.state.tree.last_zxid());
    assert!(notes.contains(&newest) && notes.contains("cannot read it"), "{notes}");
    let in_log = |file: &FileName| is_segment(&file.name);
    let (refused, _) = recover(Recovery::new(OPTIONS, 1), &in_log);
    assert!(matches!(refused, Err(Refusal::Log(_))), "{refused:?}");
    let (lost, _) = recover(Recovery::new(OPTIONS, 1).repaired_by_a_leader(), &in_log);
    assert!(matches!(lost.unwrap().lost, Some(Refusal::Log(_))));
    let (refused, _) = recover(Recovery::new(OPTIONS, 1), &|file| file.name == "epochs");
    assert!(matches!(refused, Err(Refusal::File(_))), "{refused:?}");
}
