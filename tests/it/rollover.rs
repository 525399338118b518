//! The zxids of an epoch run out under load: servers of ours begin the next epoch in place, and
//! with one of Apache ZooKeeper's among them an election does.

use std::collections::BTreeSet;
use std::thread;
use std::time::{Duration, Instant};

use ringkeeper::model::{ErrorCode, Request};

use super::apache::{self, Java};
use super::client::{self, create, get, set};
use super::ensemble::{Ensemble, Program, Writer};
use super::peer::{self, within};

/// A client of one server: writes, each answered on the one connection. The epochs it was told of,
/// and how long the longest write took.
fn write(port: u16, path: &str, count: u32) -> (BTreeSet<u32>, Duration) {
    let mut client = client::connect_for_long(port).expect("it serves");
    assert_eq!(client.code(&create(path, b"", 1)), ErrorCode::OK);
    let (mut epochs, mut longest) = (BTreeSet::new(), Duration::ZERO);
    for number in 0..count {
        let begin = Instant::now();
        let reply = client.call(&set(path, number.to_string().as_bytes()));
        let reply = reply.unwrap_or_else(|error| panic!("{path} {number}: {error}"));
        assert_eq!(reply.header.code, ErrorCode::OK);
        epochs.insert(reply.header.zxid.epoch());
        longest = longest.max(begin.elapsed());
        if number % 16 == 0 {
            assert_eq!(client.code(&Request::Sync { path: "/".into() }), ErrorCode::OK);
        }
    }
    assert_eq!(client.code(&get(path, false)), ErrorCode::OK, "the ephemeral is still there");
    (epochs, longest)
}

#[test]
fn the_next_epoch_begins_in_place_and_no_connection_ends() {
    let ensemble = Ensemble::ours(3, "ringkeeper.epochTxns=200\n");
    ensemble.all_serve();
    let leader = ensemble.leader();
    let writers = ensemble
        .ports
        .clone()
        .into_iter()
        .map(|(sid, port)| thread::spawn(move || write(port, &format!("/w{sid}"), 700)));
    let writers: Vec<_> = writers.collect();
    for writer in writers {
        let (epochs, longest) = writer.join().expect("every write is answered");
        println!("{} epochs, the longest write took {longest:?}", epochs.len());
        assert!(5 < epochs.len(), "{epochs:?}");
    }
    assert_eq!(ensemble.leader(), leader, "{}", ensemble.log(leader));
}

#[test]
fn with_a_server_of_apaches_elections_begin_the_next_epochs() {
    let Some(jars) = apache::jars_of("zookeeper") else {
        let test = "with_a_server_of_apaches_elections_begin_the_next_epochs";
        return apache::skip(test, "Apache ZooKeeper's jars or Java are missing");
    };
    let apache = Program::Apache(Java::new(&jars));
    let mut ensemble = Ensemble::new(3);
    for sid in 2..=3 {
        ensemble.start(sid, &Program::Ours, "ringkeeper.epochTxns=200\n");
    }
    ensemble.all_serve();
    ensemble.start(1, &apache, "");
    ensemble.all_serve();
    let writer = Writer::start("/w", ensemble.ports.values().copied().collect());
    let log = |ensemble: &Ensemble| {
        // Any of the two may lead by then.
        let read = |of| std::fs::read_to_string(ensemble.home.join(of)).unwrap_or_default();
        let log = read("2/log") + &read("3/log");
        let count = |text: &str| log.matches(text).count();
        (count("the epoch's zxids are used up"), count("the next epoch begins in place"))
    };
    // Epochs are so short that it may not come again between two: one election is sure.
    within("an election", || (1 <= log(&ensemble).0).then_some(()));
    ensemble.kill(1);
    let renewed = log(&ensemble).1;
    within("epochs that begin in place", || (renewed + 2 < log(&ensemble).1).then_some(()));
    let zxid = peer::word(ensemble.ports[&3], "srvr");
    println!("{:?} elections and renewals, then {zxid}", log(&ensemble));
    writer.end(&ensemble);
}
