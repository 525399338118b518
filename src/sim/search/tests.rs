//! Both oracles agree on small histories, accept good ones made by hand, and reject planted bad
//! ones; those that the log's order cannot betray, the second alone.

use bytes::Bytes;

use super::tale::{
    A, B, Tale, create, create_with, created, data_body, delete, exists, get, list, names_body,
    path_body, set, set_to, stat_body, sync, watch, xid,
};
use super::{Verdict, Zxids};
use crate::model::{ErrorCode, EventType, Request, TxnBody, WriteRequest};
use crate::sim::ensemble::{self, EnsembleRun};
use crate::sim::small::{self, Verdicts};
use crate::sim::{Plant, run_small};

const OK: ErrorCode = ErrorCode::OK;

#[test]
fn both_explain_small_histories() {
    let mut answered = 0;
    for seed in 0..60 {
        let report = run_small(seed, 10).unwrap_or_else(|failure| panic!("{seed}: {failure}"));
        answered += report.answered;
    }
    assert!(60 * 15 < answered, "{answered} requests were answered");
}

#[test]
fn both_explain_small_histories_of_ensembles() {
    let with = EnsembleRun { requests: Some(10), ..EnsembleRun::default() };
    let mut answered = 0;
    for seed in 0..12 {
        let report = ensemble::run(seed, &with).unwrap_or_else(|failure| {
            panic!("rk-sim --ensemble --requests 10 --seed {seed}: {failure}");
        });
        answered += report.answered;
    }
    assert!(12 * 15 < answered, "{answered} requests were answered");
}

/// Bugs that show in what clients see, and seeds within which both must have rejected each.
const SHOWN: [Plant; 5] = [
    Plant::WatchAfterReply,
    Plant::EventLost,
    Plant::EventTwice,
    Plant::EventOfAnotherTxn,
    Plant::ReplyAltered,
];
const SEEDS_MAX: u64 = 40;

#[test]
fn both_reject_planted_bugs() {
    let mut missed = Vec::new();
    for plant in SHOWN {
        let (mut both, mut first, mut good) = (0, 0, 0);
        for seed in 0..SEEDS_MAX {
            // What the world itself finds leaves no history to judge.
            let Ok(Verdicts { replay, search, .. }) = small::verdicts(seed, plant, 10) else {
                continue;
            };
            match (replay, search) {
                (Ok(()), Ok(())) => good += 1,
                (Err(_), Err(_)) => both += 1,
                (Err(_), Ok(())) => first += 1,
                // Only the second looks into the answers to syncs.
                (Ok(()), Err(_)) if plant == Plant::ReplyAltered => {}
                (Ok(()), Err(failure)) => panic!("{plant:?}, seed {seed}: {failure}"),
            }
        }
        println!("{plant:?}: both reject {both}, the first alone {first}, accepted {good}");
        if both == 0 {
            missed.push(plant);
        }
    }
    assert!(missed.is_empty(), "{missed:?} are not found in {SEEDS_MAX} seeds");
}

/// Accepted by both, and by the search without the zxids' order.
fn accepted(name: &str, tale: &Tale) {
    assert_eq!(tale.replay(), Ok(()), "{name}");
    assert_eq!(tale.search(Zxids::OfAll), Verdict::Explained, "{name}");
    assert_eq!(tale.search(Zxids::OfEachConnection), Verdict::Explained, "{name}");
}

/// Rejected by the search.
fn rejected(name: &str, tale: &Tale) {
    for zxids in [Zxids::OfAll, Zxids::OfEachConnection] {
        let verdict = tale.search(zxids);
        assert!(matches!(verdict, Verdict::Contradiction(_)), "{name}, {zxids:?}: {verdict:?}");
    }
}

/// Rejected by both.
fn rejected_by_both(name: &str, tell: fn(&mut Tale)) {
    let mut tale = Tale::new();
    tell(&mut tale);
    assert!(tale.replay().is_err(), "{name}");
    rejected(name, &tale);
}

/// Rejected by the search; the log's order does not betray it.
fn rejected_by_search(name: &str, tell: fn(&mut Tale)) {
    let mut tale = Tale::new();
    tell(&mut tale);
    assert_eq!(tale.replay(), Ok(()), "{name}");
    rejected(name, &tale);
}

#[test]
fn good_histories_are_explained() {
    let mut tale = Tale::new();
    tale.asks(B, exists("/a"));
    let zxid = tale.creates(A, "/a");
    tale.event(B, zxid, EventType::NodeCreated, "/a");
    tale.does(A, create("/a"), TxnBody::Error(ErrorCode::NODE_EXISTS));
    tale.asks(B, list("/a"));
    tale.asks(B, watch("/a"));
    let number = "/a/q-0000000000";
    let zxid = tale.does(A, create_with("/a/q-", 2), created(number));
    tale.event(B, zxid, EventType::NodeChildrenChanged, "/a");
    tale.does(A, delete("/a"), TxnBody::Error(ErrorCode::NOT_EMPTY));
    let zxid = tale.sets(A, "/a", "more");
    tale.event(B, zxid, EventType::NodeDataChanged, "/a");
    tale.asks(B, list("/a"));
    tale.asks(B, watch(number));
    tale.asks(B, list(number));
    let zxid = tale.deletes(A, number);
    // Of the deletion two watches tell once.
    tale.event(B, zxid, EventType::NodeDeleted, number);
    tale.event(B, zxid, EventType::NodeChildrenChanged, "/a");
    tale.asks(B, sync("/a"));
    tale.asks(B, get("/a"));
    accepted("events and refusals", &tale);
}

#[test]
fn stale_reads_and_lost_answers_are_explained() {
    let mut tale = Tale::new();
    let before = tale.creates(A, "/a");
    let old = tale.data("/a");
    tale.sets(A, "/a", "more");
    let read = tale.sends(B, get("/a"));
    tale.answers(read, before, OK, old);
    tale.asks(B, get("/a"));
    accepted("a replica that lags", &tale);

    // A's write happened, and another did not: it had no answer either.
    tale.sends(A, set("/a", "unsure"));
    tale.logs(A, xid(A, 2), set_to("/a", "unsure", 2));
    tale.sends(A, set("/a", "never"));
    tale.asks(B, watch("/a"));
    tale.asks(B, get("/a"));
    accepted("a write without an answer", &tale);

    // The session goes on with another connection; B does not live to hear of it.
    tale.connects(3, A);
    tale.asks(3, get("/a"));
    tale.sets(3, "/a", "last");
    accepted("a session on its second connection", &tale);
}

#[test]
fn other_requests_are_left_undecided() {
    let mut tale = Tale::new();
    tale.sends(A, Request::Write(WriteRequest::Multi(Vec::new())));
    assert!(matches!(tale.search(Zxids::OfAll), Verdict::Undecided(_)));
}

#[test]
fn lost_and_invented_writes_are_rejected() {
    rejected_by_both("an acknowledged write is lost", |tale| {
        let (sent, next) = (tale.sends(A, create("/a")), tale.last.next());
        tale.answers(sent, next, OK, path_body("/a"));
        let sent = tale.sends(B, sync("/a"));
        tale.answers(sent, next, OK, path_body("/a"));
        let sent = tale.sends(B, exists("/a"));
        tale.answers(sent, next, ErrorCode::NO_NODE, Bytes::new());
    });
    rejected_by_both("the answer of a write that never was", |tale| {
        tale.creates(A, "/a");
        let (was, next) = (tale.stat("/a"), tale.last.next());
        let sent = tale.sends(A, set("/a", "never"));
        let mut stat = was;
        (stat.version, stat.mzxid, stat.data_length) = (1, next, 5);
        stat.mtime += 1;
        tale.answers(sent, next, OK, stat_body(&stat));
        let sent = tale.sends(A, exists("/a"));
        tale.answers(sent, next, OK, stat_body(&was));
    });
    rejected_by_both("data that nobody wrote", |tale| {
        tale.creates(A, "/a");
        let (sent, stat) = (tale.sends(B, get("/a")), tale.stat("/a"));
        tale.answers(sent, tale.last, OK, data_body(Some(b"who"), &stat));
    });
    rejected_by_both("a child that is not listed", |tale| {
        tale.creates(A, "/a");
        tale.creates(A, "/a/b");
        let (sent, stat) = (tale.sends(B, list("/a")), tale.stat("/a"));
        tale.answers(sent, tale.last, OK, names_body(&[], &stat));
    });
}

#[test]
fn wrong_outcomes_are_rejected() {
    rejected_by_both("two creates of one path", |tale| {
        tale.creates(A, "/a");
        let sent = tale.sends(B, create("/a"));
        tale.notes(B, xid(B, 0), created("/a"));
        tale.answers(sent, tale.last, OK, path_body("/a"));
    });
    rejected_by_both("two sequential znodes with one number", |tale| {
        tale.creates(A, "/a");
        let number = "/a/q-0000000000";
        tale.does(A, create_with("/a/q-", 2), created(number));
        let sent = tale.sends(B, create_with("/a/q-", 2));
        tale.notes(B, xid(B, 0), created(number));
        tale.answers(sent, tale.last, OK, path_body(number));
    });
    rejected_by_both("a delete of a znode with children", |tale| {
        tale.creates(A, "/a");
        tale.creates(A, "/a/b");
        let sent = tale.sends(B, delete("/a"));
        tale.notes(B, xid(B, 0), TxnBody::Delete { path: "/a".into() });
        tale.answers(sent, tale.last, OK, Bytes::new());
    });
    rejected_by_both("a wrong version in the answer to setData", |tale| {
        tale.creates(A, "/a");
        let sent = tale.sends(A, set("/a", "more"));
        tale.logs(A, xid(A, 1), set_to("/a", "more", 1));
        let mut stat = tale.stat("/a");
        stat.version = 2;
        tale.answers(sent, tale.last, OK, stat_body(&stat));
    });
    rejected_by_both("a refusal without a reason", |tale| {
        tale.creates(A, "/a");
        tale.does(B, set("/a", "more"), TxnBody::Error(ErrorCode::BAD_VERSION));
    });
    rejected_by_both("a znode with two times", |tale| {
        tale.creates(A, "/a");
        tale.asks(B, exists("/a"));
        let (sent, mut stat) = (tale.sends(B, exists("/a")), tale.stat("/a"));
        stat.ctime += 1;
        tale.answers(sent, tale.last, OK, stat_body(&stat));
    });
}

#[test]
fn reads_of_the_past_are_rejected() {
    rejected_by_both("a stale read behind a sync", |tale| {
        tale.creates(A, "/a");
        let old = tale.data("/a");
        tale.sets(A, "/a", "more");
        tale.asks(B, sync("/a"));
        let sent = tale.sends(B, get("/a"));
        tale.answers(sent, tale.last, OK, old);
    });
    rejected_by_both("a read that goes back", |tale| {
        tale.creates(A, "/a");
        let old = tale.data("/a");
        tale.sets(A, "/a", "more");
        tale.asks(B, get("/a"));
        let sent = tale.sends(B, get("/a"));
        tale.answers(sent, tale.last, OK, old);
    });
    // Zxids agree with the values here, so that the order of the log has nothing against it.
    rejected_by_search("a sync that does not wait", |tale| {
        let before = tale.creates(A, "/a");
        let old = tale.data("/a");
        tale.sets(A, "/a", "more");
        let sent = tale.sends(B, sync("/a"));
        tale.answers(sent, before, OK, path_body("/a"));
        let sent = tale.sends(B, get("/a"));
        tale.answers(sent, before, OK, old);
    });
    rejected_by_search("a read of what is yet to be written", |tale| {
        tale.creates(A, "/a");
        tale.logs(A, xid(A, 1), set_to("/a", "more", 1));
        tale.asks(B, get("/a"));
        let sent = tale.sends(A, set("/a", "more"));
        let stat = tale.stat("/a");
        tale.answers(sent, tale.last, OK, stat_body(&stat));
    });
    rejected_by_search("a write before one that was answered when it was sent", |tale| {
        tale.creates(A, "/a");
        let one = tale.sends(A, set("/a", "one"));
        let zxid = tale.logs(B, xid(B, 0), set_to("/a", "two", 1));
        let two = stat_body(&tale.stat("/a"));
        tale.logs(A, xid(A, 1), set_to("/a", "one", 2));
        let stat = tale.stat("/a");
        tale.answers(one, tale.last, OK, stat_body(&stat));
        let sent = tale.sends(B, set("/a", "two"));
        tale.answers(sent, zxid, OK, two);
    });
    rejected_by_search("answers in another order", |tale| {
        tale.creates(A, "/a");
        let (first, second) = (tale.sends(B, get("/a")), tale.sends(B, get("/a")));
        let body = tale.data("/a");
        tale.answers(second, tale.last, OK, body.clone());
        tale.answers(first, tale.last, OK, body);
    });
}

#[test]
fn wrong_events_are_rejected() {
    rejected_by_both("an event is lost", |tale| {
        tale.creates(A, "/a");
        tale.asks(B, watch("/a"));
        tale.sets(A, "/a", "more");
        tale.asks(B, get("/a"));
    });
    rejected_by_both("an event behind the data", |tale| {
        tale.creates(A, "/a");
        tale.asks(B, watch("/a"));
        let zxid = tale.sets(A, "/a", "more");
        tale.asks(B, get("/a"));
        tale.event(B, zxid, EventType::NodeDataChanged, "/a");
    });
    rejected_by_both("an event comes twice", |tale| {
        tale.creates(A, "/a");
        tale.asks(B, watch("/a"));
        let zxid = tale.sets(A, "/a", "more");
        tale.event(B, zxid, EventType::NodeDataChanged, "/a");
        tale.event(B, zxid, EventType::NodeDataChanged, "/a");
    });
    rejected_by_both("a one-shot watch tells of two changes", |tale| {
        tale.creates(A, "/a");
        tale.asks(B, watch("/a"));
        for data in ["one", "two"] {
            let zxid = tale.sets(A, "/a", data);
            tale.event(B, zxid, EventType::NodeDataChanged, "/a");
        }
    });
    rejected_by_both("an event of another txn", |tale| {
        tale.creates(A, "/a");
        tale.asks(B, watch("/a"));
        let zxid = tale.sets(A, "/a", "one");
        tale.sets(A, "/a", "two");
        tale.event(B, zxid.next(), EventType::NodeDataChanged, "/a");
    });
    rejected_by_both("an event of another kind", |tale| {
        tale.creates(A, "/a");
        tale.asks(B, watch("/a"));
        let zxid = tale.sets(A, "/a", "more");
        tale.event(B, zxid, EventType::NodeDeleted, "/a");
    });
}
