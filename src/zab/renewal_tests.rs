//! The next epoch in place, packet by packet: what leader and learner say, when it does not begin,
//! and what ends it.

use bytes::Bytes;

use super::leader::{Abdication, CloseReason, EpochZxids, LearnerKind, LinkId, Output};
use super::learner::{self, Learner};
use super::paxos::Epochs;
use super::reconfig_tests::{Led, NOW, TIMING, config, zxid};
use crate::base::Instant;
use crate::limits;
use crate::model::{EnsembleConfigs, ServerId, SessionId, Xid, Zxid};
use crate::wire::opcode;
use crate::wire::quorum::{
    ForwardedRequest, LeaderPacket, LearnerInfo, LearnerPacket, PROTOCOL_VERSION, Touch,
};

/// Where the next epoch is due, and where the leader gives up.
const RENEW_AT: u32 = 3;
const LAST: u32 = 6;

#[test]
fn there_is_time_to_renew_before_the_leader_gives_up() {
    let EpochZxids { renew_at, last } = EpochZxids::default();
    assert_eq!((renew_at, last), (limits::RENEW_AT, limits::LAST_COUNTER));
    assert!(1 << 23 < last - renew_at && 2 * limits::PIPELINE_INFLIGHT_TXNS_MAX as u32 <= !last);
    assert_eq!(EpochZxids::renewed_at(1_000), EpochZxids { renew_at: 1_000, last: 1_004 });
}

fn new() -> Led {
    let configs = EnsembleConfigs::settled(config(&[1, 2, 3], 0));
    Led::with_zxids(configs, false, EpochZxids { renew_at: RENEW_AT, last: LAST })
}

/// A leader of three, whose followers have everything up to where the next epoch is due.
fn due(followers: &[i64]) -> Led {
    let mut led = new();
    led.join_as(followers, LearnerKind::Follower, true);
    for counter in 1..=RENEW_AT {
        assert!(!led.leader.wants_renewal());
        led.propose(counter, None);
        followers.iter().for_each(|sid| led.acked(*sid, counter));
    }
    led.said.clear();
    led.other.clear();
    led
}

fn renew(led: &mut Led) -> bool {
    let mut out = Vec::new();
    let has_begun = led.leader.renew(NOW, &mut out);
    led.take(out);
    has_begun
}

fn heard(led: &mut Led) -> Vec<(i64, &'static str)> {
    let name = |packet: &LeaderPacket| match packet {
        LeaderPacket::LeaderInfo { .. } => "LEADERINFO",
        LeaderPacket::Diff { .. } => "DIFF",
        LeaderPacket::NewLeader { .. } => "NEWLEADER",
        LeaderPacket::UpToDate => "UPTODATE",
        LeaderPacket::Proposal { .. } => "PROPOSAL",
        _ => "another",
    };
    led.said.drain(..).map(|(sid, packet)| (sid, name(&packet))).collect()
}

fn promise() -> LearnerPacket {
    LearnerPacket::AckEpoch { last_zxid: zxid(RENEW_AT), current_epoch: 1, cannot_cut: false }
}

fn established(led: &Led) -> bool {
    led.other.iter().any(|output| matches!(output, Output::Established { epoch: 2 }))
}

#[test]
fn a_quorum_takes_the_next_epoch_over_the_connections_that_there_are() {
    let mut led = due(&[2, 3]);
    assert!(led.leader.wants_renewal() && renew(&mut led));
    assert_eq!(heard(&mut led), [(2, "LEADERINFO"), (3, "LEADERINFO")]);
    assert!(!led.leader.is_established() && !led.leader.wants_renewal());
    led.hears(2, promise());
    assert_eq!(heard(&mut led), [(2, "DIFF"), (2, "NEWLEADER")]);
    led.hears(2, LearnerPacket::Ack { zxid: Zxid::new(2, 0) });
    assert!(established(&led) && led.leader.epoch() == Some(2));
    assert_eq!(heard(&mut led), [(2, "UPTODATE")]);
    // The slower one hears what is proposed meanwhile behind NEWLEADER.
    let (txn, mut out) = (Bytes::from_static(b"txn"), Vec::new());
    led.leader.propose(NOW, Zxid::new(2, 1), &txn, &mut out);
    led.take(out);
    assert_eq!(heard(&mut led), [(2, "PROPOSAL")]);
    led.hears(3, promise());
    assert_eq!(heard(&mut led), [(3, "DIFF"), (3, "NEWLEADER"), (3, "PROPOSAL")]);
    led.hears(3, LearnerPacket::Ack { zxid: Zxid::new(2, 0) });
    assert_eq!(heard(&mut led), [(3, "UPTODATE")]);
}

#[test]
fn it_begins_only_when_everything_is_committed() {
    let mut led = due(&[2, 3]);
    led.propose(RENEW_AT + 1, None);
    assert!(!renew(&mut led), "not committed");
    led.acked(2, RENEW_AT + 1);
    assert!(renew(&mut led));
}

/// A ping that was sent before the renewal is answered in it: who answers has promised no other.
#[test]
fn a_sync_that_was_asked_for_before_is_answered_meanwhile() {
    let mut led = due(&[2, 3]);
    let mut out = Vec::new();
    led.leader.sync(NOW, 7, &mut out);
    led.take(out);
    assert!(renew(&mut led));
    let synced = |led: &Led| led.other.iter().any(|it| matches!(it, Output::Synced(7)));
    assert!(!synced(&led));
    led.hears(2, LearnerPacket::Ping { zxid: zxid(RENEW_AT), touches: Vec::new() });
    assert!(synced(&led));
}

/// One that is asked for meanwhile needs a ping of the next epoch.
#[test]
fn a_sync_that_is_asked_for_meanwhile_waits_for_the_next_epoch() {
    let mut led = due(&[2, 3]);
    assert!(renew(&mut led));
    let mut out = Vec::new();
    led.leader.sync(NOW, 7, &mut out);
    led.take(out);
    let ping = || LearnerPacket::Ping { zxid: zxid(RENEW_AT), touches: Vec::new() };
    led.hears(2, promise());
    led.hears(2, LearnerPacket::Ack { zxid: Zxid::new(2, 0) });
    assert!(established(&led));
    let synced = |led: &Led| led.other.iter().any(|it| matches!(it, Output::Synced(7)));
    assert!(!synced(&led));
    let mut out = Vec::new();
    led.leader.timer(Instant(NOW.0 + TIMING.ping_every.0), &mut out);
    led.take(out);
    led.hears(2, ping());
    assert!(synced(&led));
}

#[test]
fn not_with_a_server_of_apaches() {
    let mut led = new();
    led.join_as(&[2], LearnerKind::Follower, false);
    for counter in 1..=RENEW_AT {
        led.propose(counter, None);
        led.acked(2, counter);
    }
    assert!(!led.leader.wants_renewal() && !renew(&mut led));
    for counter in RENEW_AT + 1..=LAST {
        led.propose(counter, None);
        led.acked(2, counter);
    }
    let given_up = |output: &Output| matches!(output, Output::Abdicate(Abdication::Rollover));
    assert!(led.other.iter().any(given_up), "{:?}", led.other);
}

#[test]
fn it_begins_when_the_last_of_apaches_has_left() {
    let mut led = due(&[2]);
    led.join_as(&[3], LearnerKind::Follower, false);
    assert!(!led.leader.wants_renewal());
    led.leader.closed(LinkId(3));
    assert!(renew(&mut led));
}

/// Its own promise tells the end of a log that is durable.
#[test]
fn not_before_the_own_log_is_durable() {
    let mut led = new();
    led.join_as(&[2, 3], LearnerKind::Follower, true);
    led.flushes = false;
    for counter in 1..=RENEW_AT {
        led.propose(counter, None);
        led.acked(2, counter);
        led.acked(3, counter);
    }
    assert_eq!(led.leader.committed(), zxid(RENEW_AT));
    assert!(led.leader.wants_renewal() && !renew(&mut led));
    let mut out = Vec::new();
    led.leader.flushed(NOW, zxid(RENEW_AT), &mut out);
    led.take(out);
    assert!(renew(&mut led));
}

fn greets(led: &mut Led, sid: i64, accepted_epoch: i32, has_checksums: bool) {
    let info = LearnerInfo {
        sid: ServerId(sid),
        protocol_version: PROTOCOL_VERSION,
        config_version: Some(0),
        is_ringkeeper: true,
        has_checksums,
    };
    led.leader.opened(LinkId(sid.cast_unsigned()), NOW, &mut Vec::new());
    led.hears(sid, LearnerPacket::FollowerInfo { accepted_epoch, info: Some(info) });
}

/// A leader that came to nothing has its promise: in no earlier epoch can it follow.
#[test]
fn it_begins_above_what_a_member_has_promised_to_another() {
    let mut led = new();
    led.join_as(&[2], LearnerKind::Follower, true);
    greets(&mut led, 3, 7, true);
    led.said.clear();
    assert!(renew(&mut led));
    assert!(matches!(led.said[..], [(2, LeaderPacket::LeaderInfo { epoch: 8, .. })]));
    assert!(matches!(led.other.last(), Some(Output::Close(LinkId(3), CloseReason::Renewal))));
    led.said.clear();
    greets(&mut led, 3, 7, true);
    assert!(matches!(led.said[..], [(3, LeaderPacket::LeaderInfo { epoch: 8, .. })]));
    let promise =
        LearnerPacket::AckEpoch { last_zxid: Zxid::ZERO, current_epoch: 1, cannot_cut: false };
    led.hears(2, promise);
    led.hears(2, LearnerPacket::Ack { zxid: Zxid::new(8, 0) });
    assert!(led.leader.is_established() && !led.leader.wants_renewal());
}

/// Others can establish an epoch that the leader itself is still writing down.
#[test]
fn it_begins_only_when_the_leader_itself_has_accepted_this_epoch() {
    let configs = EnsembleConfigs::settled(config(&[1, 2, 3, 4, 5], 0));
    let mut led = Led::with_zxids(configs, false, EpochZxids::default());
    for sid in 2..=5 {
        greets(&mut led, sid, if sid == 5 { 7 } else { 0 }, true);
    }
    led.stores = false;
    let promise =
        LearnerPacket::AckEpoch { last_zxid: Zxid::ZERO, current_epoch: 0, cannot_cut: false };
    (2..=4).for_each(|sid| led.hears(sid, promise.clone()));
    (2..=4).for_each(|sid| led.hears(sid, LearnerPacket::Ack { zxid: Zxid::new(1, 0) }));
    assert!(led.leader.is_established() && led.leader.wants_renewal());
    assert!(!renew(&mut led));
    let mut out = Vec::new();
    led.leader.stored(&mut out);
    led.take(out);
    assert!(renew(&mut led));
}

#[test]
fn not_for_what_is_unchecked_or_of_a_stranger_or_the_last_of_all() {
    for (sid, accepted_epoch, has_checksums) in
        [(3, 7, false), (4, 7, true), (3, i32::MAX, true), (3, 1, true)]
    {
        let mut led = new();
        led.join_as(&[2], LearnerKind::Follower, true);
        greets(&mut led, sid, accepted_epoch, has_checksums);
        assert!(!led.leader.wants_renewal(), "{sid} {accepted_epoch} {has_checksums}");
    }
}

/// Nothing may be cut off, or put in the place of, what clients have been shown.
#[test]
fn a_learner_with_another_log_than_the_leaders_comes_again() {
    let mut led = due(&[2, 3]);
    assert!(renew(&mut led));
    let short = LearnerPacket::AckEpoch {
        last_zxid: zxid(RENEW_AT - 1),
        current_epoch: 1,
        cannot_cut: false,
    };
    led.hears(2, short);
    led.hears(3, promise());
    assert!(matches!(led.other[..], [Output::Close(LinkId(2), CloseReason::Renewal)]));
    assert!(!established(&led));
}

#[test]
fn what_was_acknowledged_in_the_epoch_before_commits_nothing_of_the_next() {
    let mut led = due(&[2, 3]);
    assert!(renew(&mut led));
    led.hears(2, promise());
    led.hears(2, LearnerPacket::Ack { zxid: Zxid::new(2, 0) });
    let (txn, mut out) = (Bytes::from_static(b"txn"), Vec::new());
    led.leader.propose(NOW, Zxid::new(2, 1), &txn, &mut out);
    led.leader.flushed(NOW, Zxid::new(2, 1), &mut out);
    led.take(out);
    led.acked(3, RENEW_AT);
    assert_eq!(led.leader.committed(), zxid(RENEW_AT));
    led.hears(2, LearnerPacket::Ack { zxid: Zxid::new(2, 1) });
    assert_eq!(led.leader.committed(), Zxid::new(2, 1));
}

#[test]
fn what_clients_ask_meanwhile_is_handed_on_and_late_acknowledgements_do_no_harm() {
    let mut led = due(&[2]);
    led.join_as(&[3], LearnerKind::Follower, true);
    assert!(renew(&mut led));
    led.acked(3, RENEW_AT);
    led.acked(3, 0);
    let request = ForwardedRequest {
        session: SessionId(1),
        cxid: Xid(1),
        opcode: opcode::SYNC,
        body: Bytes::new(),
        authinfo: None,
    };
    led.hears(3, LearnerPacket::Request(request));
    led.hears(3, LearnerPacket::Revalidate(Touch { session: SessionId(1), timeout_ms: 5 }));
    let asked = |output: &Output| matches!(output, Output::Request(..) | Output::Revalidate(..));
    assert_eq!(led.other.iter().filter(|output| asked(output)).count(), 2);
    let closed = |output: &Output| matches!(output, Output::Close(..));
    assert!(!led.other.iter().any(closed), "{:?}", led.other);
}

#[test]
fn a_learner_that_is_being_synchronized_comes_again() {
    let mut led = due(&[2]);
    led.leader.opened(LinkId(9), NOW, &mut Vec::new());
    assert!(renew(&mut led));
    assert!(matches!(led.other[..], [Output::Close(LinkId(9), _)]), "{:?}", led.other);
}

#[test]
fn a_leader_that_is_not_established_again_in_time_gives_up() {
    let mut led = due(&[2, 3]);
    // It has led for longer than it may take.
    let now = Instant(10 * TIMING.establish_within.0);
    let mut out = Vec::new();
    assert!(led.leader.renew(now, &mut out));
    led.take(out);
    led.hears(2, promise());
    let mut out = Vec::new();
    led.leader.timer(now + TIMING.silence_max, &mut out);
    assert!(!out.iter().any(|output| matches!(output, Output::Abdicate(_))));
    led.leader.timer(Instant(now.0 + TIMING.silence_max.0 + 1), &mut out);
    let given_up = |it: &Output| matches!(it, Output::Abdicate(Abdication::NotEstablished(_)));
    assert!(out.iter().any(given_up), "{out:?}");
}

/// A learner that serves, and what it was asked to do since.
struct Learning {
    learner: Learner,
    done: Vec<learner::Output>,
}

impl Learning {
    fn serving() -> Self {
        let start = learner::Start {
            me: ServerId(2),
            kind: LearnerKind::Follower,
            config_version: 0,
            timing: TIMING,
            epochs: Epochs::default(),
            last_zxid: Some(Zxid::ZERO),
            cannot_cut: false,
        };
        let mut out = Vec::new();
        let learner = Learner::new(start, NOW, &mut out);
        let mut learning = Self { learner, done: Vec::new() };
        learning.hears(LeaderPacket::leader_info(1, true, false));
        learning.hears(LeaderPacket::Diff { zxid: Zxid::ZERO });
        learning.hears(LeaderPacket::NewLeader { epoch: 1, config: None });
        learning.hears(LeaderPacket::UpToDate);
        assert!(learning.learner.is_serving());
        learning.done.clear();
        learning
    }

    fn take(&mut self, mut out: Vec<learner::Output>) {
        while !out.is_empty() {
            for output in std::mem::take(&mut out) {
                match output {
                    learner::Output::Store(_) => self.learner.stored(&mut out),
                    other => self.done.push(other),
                }
            }
        }
    }

    fn hears(&mut self, packet: LeaderPacket) {
        let mut out = Vec::new();
        self.learner.received(NOW, packet, &mut out);
        self.take(out);
    }

    fn flushed(&mut self, zxid: Zxid) {
        let mut out = Vec::new();
        self.learner.flushed(zxid, &mut out);
        self.take(out);
    }

    fn has_said(&self, packet: &LearnerPacket) -> bool {
        self.done.contains(&learner::Output::Send(packet.clone()))
    }
}

#[test]
fn a_learner_promises_the_next_epoch_with_a_log_that_is_durable_and_serves_on() {
    let mut learning = Learning::serving();
    let txn = Bytes::from_static(b"txn");
    learning.hears(LeaderPacket::Proposal { zxid: zxid(1), txn });
    learning.hears(LeaderPacket::Commit { zxid: zxid(1) });
    learning.hears(LeaderPacket::leader_info(2, true, false));
    let promise =
        LearnerPacket::AckEpoch { last_zxid: zxid(1), current_epoch: 1, cannot_cut: false };
    assert!(!learning.has_said(&promise), "its log is not durable");
    learning.flushed(zxid(1));
    assert!(learning.has_said(&promise));
    let answer = LeaderPacket::Revalidate { session: SessionId(5), is_valid: true };
    learning.hears(answer);
    learning.hears(LeaderPacket::Diff { zxid: zxid(1) });
    learning.hears(LeaderPacket::NewLeader { epoch: 2, config: None });
    assert!(learning.has_said(&LearnerPacket::Ack { zxid: Zxid::new(2, 0) }));
    learning.hears(LeaderPacket::UpToDate);
    assert!(learning.learner.is_serving());
    let given_up = |output: &learner::Output| matches!(output, learner::Output::GiveUp(_));
    assert!(!learning.done.iter().any(given_up), "{:?}", learning.done);
    let answered = learner::Output::Revalidated { session: SessionId(5), is_valid: true };
    assert!(learning.done.contains(&answered));
}

#[test]
fn a_learner_does_not_go_back_to_an_epoch() {
    let mut learning = Learning::serving();
    learning.hears(LeaderPacket::leader_info(1, true, false));
    assert!(matches!(learning.done[..], [learner::Output::GiveUp(_)]), "{:?}", learning.done);
}

#[test]
fn a_learner_that_serves_lets_nothing_be_cut_off_or_replaced() {
    for opening in [LeaderPacket::Trunc { zxid: Zxid::ZERO }, LeaderPacket::Snap { zxid: zxid(1) }]
    {
        let mut learning = Learning::serving();
        learning.hears(LeaderPacket::leader_info(2, true, false));
        learning.done.clear();
        learning.hears(opening);
        assert!(matches!(learning.done[..], [learner::Output::GiveUp(_)]), "{:?}", learning.done);
    }
}

#[test]
fn a_learner_leaves_a_renewal_as_it_leaves_a_silent_leader() {
    let mut learning = Learning::serving();
    learning.hears(LeaderPacket::Ping { zxid: Zxid::ZERO });
    learning.hears(LeaderPacket::leader_info(2, true, false));
    assert_eq!(learning.learner.next_timer(), Instant(NOW.0 + TIMING.silence_max.0 + 1));
}

/// The leader's answer may overtake what others have committed in the next epoch before it.
#[test]
fn a_sync_that_is_answered_in_a_renewal_is_told_behind_what_was_committed_before() {
    let next = Zxid::new(2, 1);
    let answer = |at: usize| {
        let mut learning = Learning::serving();
        let packets = [
            LeaderPacket::leader_info(2, true, false),
            LeaderPacket::Diff { zxid: next },
            LeaderPacket::Proposal { zxid: next, txn: Bytes::from_static(b"txn") },
            LeaderPacket::Commit { zxid: next },
            LeaderPacket::NewLeader { epoch: 2, config: None },
            LeaderPacket::UpToDate,
        ];
        for (number, packet) in packets.into_iter().enumerate() {
            learning.hears(packet);
            learning.flushed(next);
            if number == at {
                learning.hears(LeaderPacket::Sync);
            }
        }
        let place = |what: &learner::Output| learning.done.iter().position(|it| it == what);
        let committed = place(&learner::Output::Committed(next));
        assert!(committed.is_some() && committed < place(&learner::Output::Synced), "{at}");
    };
    (0..=5).for_each(answer);
}
