//! Members of an ensemble whose disk has lost something: the others make it good, and where they
//! cannot, nobody serves what is not whole.

use std::fs;
use std::path::PathBuf;
use std::thread;
use std::time::Duration;

use super::client::{self, create};
use super::ensemble::{Ensemble, Program, Writer};
use super::peer::within;
use ringkeeper::model::ErrorCode;

const SMALL: &str = "snapCount=500\npreAllocSize=64";

/// Files of a server's own directory whose names begin so, oldest first.
fn files(ensemble: &Ensemble, sid: i64, start: &str) -> Vec<PathBuf> {
    let own = ensemble.home.join(format!("{sid}/data/ringkeeper"));
    let entries = fs::read_dir(own).expect("the server has made it");
    let paths = entries.map(|entry| entry.expect("it is readable").path());
    // What is still being made counts for nothing.
    let is_one = |path: &PathBuf| {
        let name = path.file_name().unwrap_or_default().to_string_lossy();
        name.starts_with(start) && !name.ends_with(".new")
    };
    let mut found: Vec<PathBuf> = paths.filter(is_one).collect();
    found.sort();
    found
}

/// Changes a byte in the first half of what was written to a file.
fn rot(path: &PathBuf) {
    let mut bytes = fs::read(path).expect("it is readable");
    let written = bytes.iter().rposition(|byte| *byte != 0).unwrap_or_default();
    bytes[written / 2] ^= 0x40;
    fs::write(path, bytes).expect("it is writable");
}

/// The whole of what a server has said.
fn said(ensemble: &Ensemble, sid: i64) -> String {
    fs::read_to_string(ensemble.home.join(format!("{sid}/log"))).unwrap_or_default()
}

#[test]
fn what_a_minority_has_lost_comes_from_the_others() {
    let mut ensemble = Ensemble::ours(3, SMALL);
    ensemble.all_serve();
    let ports: Vec<u16> = ensemble.ports.values().copied().collect();
    let writer = Writer::start("/a", ports);
    for round in 0..4 {
        writer.goes_on();
        let leader = ensemble.leader();
        let other = ensemble.ports.keys().copied().find(|sid| *sid != leader).unwrap_or(leader);
        let victim = if round == 3 { leader } else { other };
        ensemble.kill(victim);
        writer.goes_on();
        match round {
            // A record of the log that others follow.
            0 => rot(files(&ensemble, victim, "txnlog.").last().expect("it has written")),
            // A part of the log.
            1 => {
                let all = files(&ensemble, victim, "txnlog.");
                fs::remove_file(&all[0]).expect("it is there");
                files(&ensemble, victim, "snapshot.").iter().for_each(rot);
            }
            // Every snapshot, and the log that reaches back behind them.
            2 => {
                files(&ensemble, victim, "snapshot.").iter().for_each(rot);
                files(&ensemble, victim, "txnlog.").iter().for_each(rot);
            }
            _ => files(&ensemble, victim, "txnlog.").iter().for_each(rot),
        }
        let before = said(&ensemble, victim).len();
        ensemble.start(victim, &Program::Ours, SMALL);
        ensemble.all_serve();
        within(&format!("round {round}: {}", ensemble.log(victim)), || {
            let told = said(&ensemble, victim)[before..].contains("a leader is to send everything");
            told.then_some(())
        });
        writer.goes_on();
    }
    writer.end(&ensemble);
}

#[test]
fn what_a_majority_has_lost_is_named_and_nobody_serves() {
    let mut ensemble = Ensemble::ours(3, SMALL);
    ensemble.all_serve();
    let writer = Writer::start("/a", ensemble.ports.values().copied().collect());
    writer.goes_on();
    let whole = ensemble.leader();
    let others: Vec<i64> = ensemble.ports.keys().copied().filter(|sid| *sid != whole).collect();
    writer.end(&ensemble);
    for sid in 1..=3 {
        ensemble.kill(sid);
    }
    let damaged: Vec<PathBuf> =
        others.iter().map(|sid| files(&ensemble, *sid, "txnlog.")[0].clone()).collect();
    let kept: Vec<Vec<u8>> =
        damaged.iter().map(|path| fs::read(path).expect("it is readable")).collect();
    damaged.iter().for_each(rot);
    for sid in 1..=3 {
        ensemble.start(sid, &Program::Ours, SMALL);
    }
    for (sid, path) in others.iter().zip(&damaged) {
        let name = path.file_name().expect("it has one").to_string_lossy().into_owned();
        within("the damage to be named", || {
            let said = said(&ensemble, *sid);
            (said.contains(&name) && said.contains("offset") && said.contains("votes for nobody"))
                .then_some(())
        });
    }
    thread::sleep(Duration::from_millis(1_500));
    for sid in 1..=3 {
        assert_eq!(ensemble.mode(sid), "", "server {sid} serves what a quorum may not have");
    }
    // One of them is mended: what was there was left alone.
    ensemble.kill(others[0]);
    fs::write(&damaged[0], &kept[0]).expect("it is writable");
    ensemble.start(others[0], &Program::Ours, SMALL);
    ensemble.all_serve();
}

#[test]
fn an_emptied_server_does_not_vote_as_if_it_knew() {
    let careful = "db.autocreate=false";
    let mut ensemble = Ensemble::new(3);
    for sid in 1..=3 {
        let data = ensemble.home.join(format!("{sid}/data"));
        fs::create_dir_all(&data).expect("the directory is writable");
        fs::write(data.join("initialize"), "").expect("the directory is writable");
        ensemble.start(sid, &Program::Ours, careful);
    }
    ensemble.all_serve();
    let mut client = client::connect(ensemble.ports[&1]).expect("it serves");
    assert_eq!(client.code(&create("/kept", b"x", 0)), ErrorCode::OK);
    drop(client);
    for sid in 1..=3 {
        assert!(!ensemble.home.join(format!("{sid}/data/initialize")).exists(), "it counts once");
        ensemble.kill(sid);
    }
    for sid in [1, 2] {
        let own = ensemble.home.join(format!("{sid}/data/ringkeeper"));
        fs::rename(&own, ensemble.home.join(format!("{sid}/kept"))).expect("it is there");
        ensemble.start(sid, &Program::Ours, careful);
    }
    for sid in [1, 2] {
        within("the loss to be named", || {
            said(&ensemble, sid).contains("db.autocreate=false").then_some(())
        });
    }
    thread::sleep(Duration::from_millis(1_500));
    assert_eq!((ensemble.mode(1), ensemble.mode(2)), (String::new(), String::new()));
    // One comes back with what it had: the third server and it are a quorum that knows.
    ensemble.kill(2);
    let own = ensemble.home.join("2/data/ringkeeper");
    fs::remove_dir_all(&own).expect("it is there");
    fs::rename(ensemble.home.join("2/kept"), &own).expect("it is there");
    ensemble.start(2, &Program::Ours, careful);
    ensemble.start(3, &Program::Ours, careful);
    ensemble.all_serve();
    ensemble.all_show("/kept", "x");
}
