//! A follower that is 100,000 txns behind, more than its leader has in memory, gets them from the
//! files of the leader's log: one of ours, and one of Apache's.

use std::fs;

use ringkeeper::client::Client;
use ringkeeper::model::{ErrorCode, Request};

use super::apache::{self, Java};
use super::client::{self, create, get, set};
use super::ensemble::{Ensemble, Program};
use super::peer::within;

const TXNS: usize = 100_000;
/// Bytes of each value: together more than is kept in memory.
const VALUE_BYTES: usize = 400;
/// Large znodes, so that a snapshot is more than the txns.
const LARGE: usize = 70;
const IN_FLIGHT: usize = 500;
/// Requests of a session on each znode: the last value of each is looked at.
const PATHS: usize = 100;

fn pipelined(client: &mut Client, requests: impl Iterator<Item = Request>) {
    let mut waiting = 0;
    let receive = |client: &mut Client| {
        assert_eq!(client.receive().expect("it serves").header.code, ErrorCode::OK);
    };
    for request in requests {
        client.send(&request).expect("it serves");
        waiting += 1;
        if IN_FLIGHT <= waiting {
            receive(client);
            waiting -= 1;
        }
    }
    (0..waiting).for_each(|_| receive(client));
}

fn value(number: usize) -> Vec<u8> {
    let mut value = format!("{number:010}").into_bytes();
    value.resize(VALUE_BYTES, b'x');
    value
}

fn path(number: usize) -> String {
    format!("/n{}", number % PATHS)
}

/// Two servers of ours lead and follow; `behind` comes back when much was written without it.
fn far_behind(behind: &Program) {
    let mut ensemble = Ensemble::new(3);
    let extra = "snapCount=10000000\nsnapSizeLimitInKb=4194304";
    for sid in [2, 3] {
        ensemble.start(sid, &Program::Ours, extra);
    }
    ensemble.all_serve();
    let leader = ensemble.leader();
    ensemble.start(1, behind, extra);
    ensemble.all_serve();
    let mut client = client::connect_for_long(ensemble.ports[&leader]).expect("it serves");
    let large = vec![b'x'; 1_000_000];
    (0..LARGE).for_each(|number| {
        assert_eq!(client.code(&create(&format!("/large{number}"), &large, 0)), ErrorCode::OK);
    });
    pipelined(&mut client, (0..PATHS).map(|number| create(&path(number), b"", 0)));
    ensemble.all_show(&path(PATHS - 1), "");
    ensemble.kill(1);
    pipelined(&mut client, (0..TXNS).map(|number| set(&path(number), &value(number))));
    let log = ensemble.home.join(leader.to_string()).join("log");
    let log = || fs::read_to_string(&log).expect("it was written");
    let before = log().len();
    ensemble.run(1, behind);
    ensemble.all_serve();
    let mut client = within("a session", || client::connect_for_long(ensemble.ports[&1]).ok());
    assert_eq!(client.code(&Request::Sync { path: "/".into() }), ErrorCode::OK);
    for number in TXNS - PATHS..TXNS {
        let mut reply = client.call(&get(&path(number), false)).expect("it serves");
        let data = reply.body.buffer("data").expect("it decodes").expect("not null");
        assert_eq!(data.as_ref(), value(number), "{}", path(number));
    }
    within("it to be told how", || {
        let log = log().split_off(before);
        let mut lines = log.lines().filter(|line| line.contains("a learner is synchronized"));
        let is_it = |line: &str| line.contains("way=Diff") && line.contains("from_files=true");
        lines.any(is_it).then_some(())
    });
}

#[test]
fn a_follower_of_ours_gets_what_it_lacks_from_the_log() {
    far_behind(&Program::Ours);
}

#[test]
fn a_follower_of_apaches_gets_what_it_lacks_from_the_log() {
    let Some(jars) = apache::jars() else {
        let test = "a_follower_of_apaches_gets_what_it_lacks_from_the_log";
        return apache::skip(test, "Apache ZooKeeper's jars or Java are missing");
    };
    far_behind(&Program::Apache(Java::new(&jars)));
}
