//! What has harmed ensembles elsewhere, one test for each: who says what in which order, who is
//! given up, and when.

use super::Timing;
use super::leader::{Abdication, CloseReason, LinkId, Output};
use super::leader_tests::{LAST, Led, NOW, TIMING, txn, zxid};
use super::learner;
use super::learner_tests::{Following, ack};
use super::synchronization::{SyncPlan, SyncWay};
use crate::base::{Duration, Instant};
use crate::limits::{self, LAST_COUNTER};
use crate::model::Zxid;
use crate::wire::quorum::{LeaderPacket, LearnerPacket};

use bytes::Bytes;

fn abdicates(led: &Led, why: fn(&Abdication) -> bool) -> bool {
    led.out.iter().any(|output| matches!(output, Output::Abdicate(reason) if why(reason)))
}

/// ZOOKEEPER-4685: an ACK of a txn may reach the leader before that of NEWLEADER.
#[test]
fn an_acknowledgement_that_overtakes_newleaders_harms_nobody() {
    let mut led = Led::established();
    led.propose(1);
    led.greets(3, 1);
    led.promises(3, LAST, 1);
    led.synchronize(3);
    led.acks(3, zxid(1));
    assert_eq!(led.closed(3), None);
    led.acks(3, zxid(0));
    assert!(led.said(3).contains(&LeaderPacket::UpToDate));
}

/// ZOOKEEPER-4685, on the other side: NEWLEADER's goes out first.
#[test]
fn newleaders_acknowledgement_goes_before_those_of_txns() {
    let mut following = Following::promised();
    following.hears(LeaderPacket::Diff { zxid: LAST });
    following.hears(LeaderPacket::NewLeader { epoch: 2, config: None });
    following.proposed(zxid(1));
    following.learner.flushed(zxid(1), &mut following.out);
    let acks = |output: &learner::Output| {
        matches!(output, learner::Output::Send(LearnerPacket::Ack { .. }))
    };
    assert!(!following.out.iter().any(acks), "its epoch is not on disk");
    following.stored();
    let said: Vec<learner::Output> = following.take().into_iter().filter(acks).collect();
    assert_eq!(said, [ack(zxid(0)), ack(zxid(1))]);
}

/// ZOOKEEPER-4394: proposals of before NEWLEADER are committed behind it.
#[test]
fn a_commit_behind_newleader_of_a_proposal_before_it_is_taken() {
    let mut following = Following::promised();
    let new = Zxid::new(1, 3);
    following.hears(LeaderPacket::Diff { zxid: new });
    following.proposed(new);
    following.hears(LeaderPacket::NewLeader { epoch: 2, config: None });
    following.learner.flushed(new, &mut following.out);
    following.stored();
    assert!(following.take().contains(&ack(new)), "it is not committed yet, and counts");
    following.hears(LeaderPacket::UpToDate);
    assert!(following.take().contains(&learner::Output::Committed(LAST)), "and not the new one");
    following.hears(LeaderPacket::Commit { zxid: new });
    assert_eq!(following.take(), [learner::Output::Committed(new)]);
}

/// ZOOKEEPER-3104: NEWLEADER comes behind everything that belongs to the snapshot.
#[test]
fn newleader_comes_behind_the_snapshot_and_what_was_committed_since() {
    let mut led = Led::established();
    led.greets(3, 1);
    led.promises(3, Zxid::ZERO, 0);
    led.said(3);
    for counter in [1, 2] {
        led.propose(counter);
        led.flushed(counter);
        led.acks(2, zxid(counter));
    }
    let link = LinkId(3);
    let plan = SyncPlan { way: SyncWay::Snap, after: zxid(2) };
    led.leader.synchronize(link, plan, &mut led.out);
    let wanted = led.out.iter().any(|output| {
        matches!(output, Output::SendSnapshot { link: LinkId(3), upto } if *upto == zxid(2))
    });
    assert!(wanted);
    assert_eq!(led.said(3), [], "the driver sends SNAP with the snapshot");
    // What is proposed and committed while the snapshot goes.
    for counter in [3, 4] {
        led.propose(counter);
        led.flushed(counter);
        led.acks(2, zxid(counter));
    }
    assert_eq!(led.said(3), []);
    // It was taken behind the third txn, which is not sent once more.
    led.leader.snapshot_sent(link, zxid(3), &mut led.out);
    let said = led.said(3);
    assert!(
        matches!(
            &said[..],
            [
                LeaderPacket::NewLeader { epoch: 2, .. },
                LeaderPacket::Proposal { zxid: fourth, .. },
                LeaderPacket::Commit { zxid: committed },
            ] if (*fourth, *committed) == (zxid(4), zxid(4))
        ),
        "{said:?}"
    );
}

/// An observer hears only what is committed, and nothing twice either.
#[test]
fn an_observer_hears_what_is_not_in_its_snapshot() {
    let mut led = Led::established();
    led.greets(9, 1);
    led.promises(9, Zxid::ZERO, 0);
    led.said(9);
    let (link, plan) = (LinkId(9), SyncPlan { way: SyncWay::Snap, after: LAST });
    led.leader.synchronize(link, plan, &mut led.out);
    for counter in [1, 2] {
        led.propose(counter);
        led.flushed(counter);
        led.acks(2, zxid(counter));
    }
    led.leader.snapshot_sent(link, zxid(1), &mut led.out);
    let said = led.said(9);
    assert!(
        matches!(
            &said[..],
            [LeaderPacket::NewLeader { .. }, LeaderPacket::Inform { zxid: second, .. }]
                if *second == zxid(2)
        ),
        "{said:?}"
    );
}

/// ZOOKEEPER-1277: the leader gives up before the counter is used up, and the next epoch begins
/// with a counter of 1.
#[test]
fn a_leader_gives_up_before_its_zxids_are_used_up() {
    let mut led = Led::established_with(LAST_COUNTER - 2);
    let rolls = |why: &Abdication| *why == Abdication::Rollover;
    led.propose(LAST_COUNTER - 1);
    assert!(!abdicates(&led, rolls));
    led.propose(LAST_COUNTER);
    assert!(abdicates(&led, rolls));
    // What was prepared in the same turn.
    led.propose(LAST_COUNTER + 1);
    led.propose(LAST_COUNTER + 2);
    // And who follows takes the first txn of the next epoch behind it.
    let mut following = Following::serving();
    following.proposed(zxid(1));
    following.proposed(Zxid::new(3, 1));
    let appended = following.take();
    assert!(matches!(
        appended[..],
        [learner::Output::Append { .. }, learner::Output::Append { .. }]
    ));
}

/// ZOOKEEPER-2247: heartbeats go on while the leader's log takes nothing.
#[test]
fn a_leader_whose_log_stalls_gives_up() {
    let mut led = Led::established();
    led.propose(1);
    led.acks(2, zxid(1));
    let later = |nanos: u64| Instant(nanos);
    for at in [600, 1_000, 1_001] {
        led.leader.received(later(at), LinkId(2), ping(), &mut led.out);
        led.leader.timer(later(at), &mut led.out);
        let stalls = abdicates(&led, |why| *why == Abdication::OwnLogStalls);
        assert_eq!(stalls, at == 1_001, "at {at}");
    }
}

fn ping() -> LearnerPacket {
    LearnerPacket::Ping { zxid: LAST, touches: Vec::new() }
}

/// A learner that answers pings and takes no txn is not waited for.
#[test]
fn a_learner_whose_log_stalls_is_dropped() {
    let mut led = Led::established();
    led.propose(1);
    led.flushed(1);
    for at in [600, 1_000, 1_001] {
        led.leader.received(Instant(at), LinkId(2), ping(), &mut led.out);
        led.leader.timer(Instant(at), &mut led.out);
        let dropped = led.closed(2) == Some(&CloseReason::Slow);
        assert_eq!(dropped, at == 1_001, "at {at}");
    }
}

/// Under load there is always a proposal that a log does not have: one is timed after the other.
#[test]
fn logs_that_go_on_are_not_taken_for_stalled() {
    let mut led = Led::established();
    led.greets(9, 1);
    led.promises(9, LAST, 1);
    led.synchronize(9);
    led.acks(9, zxid(0));
    for counter in 1..=500 {
        let now = Instant(10 * u64::from(counter));
        led.leader.propose(now, zxid(counter), &txn(), &mut led.out);
        led.leader.flushed(now, zxid(counter - 1), &mut led.out);
        let acks = LearnerPacket::Ack { zxid: zxid(counter - 1) };
        led.leader.received(now, LinkId(2), acks, &mut led.out);
        led.leader.received(now, LinkId(9), ping(), &mut led.out);
        led.leader.timer(now, &mut led.out);
        assert_eq!(led.closed(2), None, "at {now:?}");
        assert_eq!(led.closed(9), None, "an observer acknowledges nothing: at {now:?}");
        let gives_up = led.out.iter().any(|output| matches!(output, Output::Abdicate(_)));
        assert!(!gives_up, "at {now:?}");
    }
    assert_eq!(led.leader.committed(), zxid(499));
}

/// However long the answer was on its way: what was heard since may be in the next one.
#[test]
fn a_report_of_sessions_is_of_the_time_when_it_was_asked_for() {
    let mut led = Led::established();
    led.leader.timer(NOW, &mut led.out);
    led.out.clear();
    let asked = [1, 2].map(|count| Instant(NOW.0 + count * TIMING.ping_every.0));
    asked.iter().for_each(|at| led.leader.timer(*at, &mut led.out));
    let late = Instant(NOW.0 + 5 * TIMING.ping_every.0);
    for _ in 0..3 {
        led.leader.received(late, LinkId(2), ping(), &mut led.out);
    }
    let told = led.out.iter().filter_map(|output| match output {
        Output::Touched { asked, .. } => Some(*asked),
        _ => None,
    });
    assert_eq!(told.collect::<Vec<_>>(), [asked[0], asked[1], late]);
}

/// ZOOKEEPER-2201 and its like: what waits for a learner has a bound, and nobody waits for it. What
/// is committed meanwhile is sent as history.
#[test]
fn what_waits_for_a_learner_has_a_bound() {
    let mut led = Led::established();
    led.greets(3, 1);
    led.promises(3, LAST, 1);
    led.propose(1);
    led.flushed(1);
    led.acks(2, zxid(1));
    let link = LinkId(3);
    led.leader.synchronize(link, SyncPlan { way: SyncWay::Diff, after: LAST }, &mut led.out);
    let big = Bytes::from(vec![0; limits::LEARNER_NEWS_BYTES_MAX / 2]);
    let last = 20;
    for counter in 2..=last {
        led.leader.propose(Instant(0), zxid(counter), &big, &mut led.out);
        led.flushed(counter);
        led.acks(2, zxid(counter));
    }
    led.leader.history(link, vec![(zxid(1), txn())], &mut led.out);
    let asked = led.out.iter().rev().find_map(|output| match output {
        Output::ReadHistory { link: LinkId(3), after, upto } => Some((*after, *upto)),
        _ => None,
    });
    assert_eq!(asked, Some((zxid(1), zxid(last))));
    let tells = |led: &mut Led| {
        led.said(3).iter().any(|packet| matches!(packet, LeaderPacket::NewLeader { .. }))
    };
    assert!(!tells(&mut led) && led.closed(3).is_none());
    let txns = (2..=last).map(|counter| (zxid(counter), big.clone())).collect();
    led.leader.history(link, txns, &mut led.out);
    assert!(tells(&mut led));
    assert!(led.leader.is_established());
}

/// ZOOKEEPER-1697: a long history is no silence.
#[test]
fn a_learner_that_takes_its_history_is_alive() {
    let mut led = Led::established();
    led.propose(1);
    led.flushed(1);
    led.acks(2, zxid(1));
    led.greets(3, 1);
    led.promises(3, LAST, 1);
    let plan = SyncPlan { way: SyncWay::Diff, after: LAST };
    led.leader.synchronize(LinkId(3), plan, &mut led.out);
    for at in (500..10_000).step_by(500) {
        led.leader.received(Instant(at), LinkId(2), ping(), &mut led.out);
        led.leader.sent(LinkId(3), Instant(at));
        led.leader.timer(Instant(at), &mut led.out);
        assert_eq!(led.closed(3), None, "at {at}");
    }
    led.leader.received(Instant(10_600), LinkId(2), ping(), &mut led.out);
    led.leader.timer(Instant(10_600), &mut led.out);
    assert_eq!(led.closed(3), Some(&CloseReason::Silent));
}

/// ZOOKEEPER-1675: a leader that was replaced and does not know it answers no sync.
#[test]
fn a_sync_is_confirmed_by_a_quorum_that_was_asked_behind_it() {
    let mut led = Led::established();
    let synced = |led: &Led| led.out.iter().any(|output| matches!(output, Output::Synced(7)));
    // A ping that is answered, and one that was asked for before the sync.
    led.leader.timer(Instant(0) + TIMING.ping_every, &mut led.out);
    led.hears(2, ping());
    led.leader.timer(Instant(0) + Duration(2 * TIMING.ping_every.0), &mut led.out);
    led.leader.sync(Instant(250), 7, &mut led.out);
    assert!(!synced(&led), "nobody has confirmed it");
    led.hears(2, ping());
    assert!(!synced(&led), "it was asked for before the sync");
    led.hears(2, ping());
    assert!(synced(&led));
    led.out.clear();
    led.propose(1);
    led.leader.sync(Instant(260), 7, &mut led.out);
    led.hears(2, ping());
    assert!(!synced(&led), "what was proposed before is not committed");
    led.flushed(1);
    led.acks(2, zxid(1));
    assert!(synced(&led));
}

/// An Apache learner answers its clients' writes and syncs in their order: the first of them waits
/// for ever, and all behind it, if a later one is committed before (its `CommitProcessor`).
#[test]
fn a_sync_is_answered_before_anything_later_is_committed() {
    let mut led = Led::established();
    led.propose(1);
    led.leader.sync(NOW, 7, &mut led.out);
    led.propose(2);
    led.propose(3);
    led.out.clear();
    led.hears(2, ping());
    for counter in 1..=3 {
        led.acks(2, zxid(counter));
    }
    let told = |led: &mut Led| -> Vec<String> {
        let told = std::mem::take(&mut led.out).into_iter().filter_map(|output| match output {
            Output::Send(LinkId(2), LeaderPacket::Commit { zxid }) => {
                Some(format!("COMMIT {}", zxid.counter()))
            }
            Output::Synced(number) => Some(format!("SYNC {number}")),
            _ => None,
        });
        told.collect()
    };
    // The own flush is the last voice that all three lack.
    led.flushed(3);
    assert_eq!(told(&mut led), ["COMMIT 1", "SYNC 7", "COMMIT 2", "COMMIT 3"]);
    // Nobody has confirmed the next one, though all is on disk.
    led.leader.sync(NOW, 8, &mut led.out);
    led.propose(4);
    led.acks(2, zxid(4));
    led.flushed(4);
    assert_eq!(told(&mut led), [""; 0]);
    led.hears(2, ping());
    assert_eq!(told(&mut led), ["SYNC 8", "COMMIT 4"]);
}

/// Apache's SyncLimitCheck times what is proposed behind the acknowledgement of NEWLEADER only:
/// what was proposed before it is acknowledged when the learner serves.
#[test]
fn the_time_that_a_learner_takes_for_its_history_is_not_its_logs() {
    let mut led = Led::established();
    led.greets(3, 1);
    led.promises(3, LAST, 1);
    led.synchronize(3);
    led.propose(1);
    let late = NOW + Duration(2 * TIMING.sync_within.0);
    led.leader.flushed(late, zxid(1), &mut led.out);
    led.leader.received(late, LinkId(2), ping(), &mut led.out);
    led.leader.received(late, LinkId(2), LearnerPacket::Ack { zxid: zxid(1) }, &mut led.out);
    led.leader.received(late, LinkId(3), LearnerPacket::Ack { zxid: zxid(0) }, &mut led.out);
    led.leader.timer(late, &mut led.out);
    assert_eq!(led.closed(3), None);
}

/// A leader may lose its followers for a moment and keep its leadership: syncs that were asked for
/// before are confirmed by those that come back, and hold up none that is asked for later.
#[test]
fn a_sync_outlives_the_followers_that_were_to_confirm_it() {
    let mut led = Led::established();
    led.leader.sync(Instant(10), 7, &mut led.out);
    led.leader.closed(LinkId(2));
    let link = 3;
    led.greets(link, 1);
    led.promises(link, LAST, 1);
    led.synchronize(link);
    led.acks(link, zxid(0));
    led.leader.sync(Instant(20), 8, &mut led.out);
    led.leader.timer(Instant(0) + TIMING.ping_every, &mut led.out);
    let synced = |led: &Led| -> Vec<u64> {
        let of = |output: &Output| match output {
            Output::Synced(number) => Some(*number),
            _ => None,
        };
        led.out.iter().filter_map(of).collect()
    };
    assert_eq!(synced(&led), []);
    led.hears(link, ping());
    assert_eq!(synced(&led), [7, 8]);
}

/// Before UPTODATE a learner answers no pings, and others may take long to get the history.
#[test]
fn who_waits_for_uptodate_is_not_taken_for_silent() {
    let mut led = Led::timed(Timing { silence_max: Duration(300), ..TIMING });
    led.of_ringkeepers = true;
    for sid in [2, 9] {
        led.greets(sid, 1);
    }
    led.stored();
    for sid in [2, 9] {
        led.promises(sid, LAST, 1);
    }
    led.stored();
    led.synchronize(9);
    led.acks(9, zxid(0));
    for at in (100..=900).step_by(100) {
        led.leader.timer(Instant(at), &mut led.out);
        assert_eq!(led.closed(9), None, "at {at}");
    }
    led.synchronize(2);
    led.acks(2, zxid(0));
    assert!(led.leader.is_established());
    assert!(led.said(9).contains(&LeaderPacket::UpToDate));
    for at in (1_000..=1_300).step_by(100) {
        led.leader.timer(Instant(at), &mut led.out);
        assert_eq!(led.closed(9), None, "at {at}");
    }
    led.leader.timer(Instant(1_400), &mut led.out);
    assert_eq!(led.closed(9), Some(&CloseReason::Silent), "it answers pings now");
}
