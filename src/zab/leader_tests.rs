//! A leader in Zab's three phases, step by step as the paper names them ("Zab: High-performance
//! broadcast for primary-backup systems", section IV): what it waits for, and what it says then.

use bytes::Bytes;

use super::Timing;
use super::leader::{self, Abdication, CloseReason, EpochZxids, Leader, LinkId, Output};
use super::paxos::Epochs;
use super::synchronization::{SyncPlan, SyncWay};
use crate::base::{Duration, Instant};
use crate::config;
use crate::limits;
use crate::model::{EnsembleConfigs, ServerId, Zxid};
use crate::wire::quorum::{LeaderPacket, LearnerInfo, LearnerPacket, PROTOCOL_VERSION};

pub(super) const NOW: Instant = Instant(0);
pub(super) const TIMING: Timing = Timing {
    establish_within: Duration(1_000),
    joined_within: Duration(1_000),
    sync_within: Duration(1_000),
    silence_max: Duration(1_000),
    ping_every: Duration(100),
};
/// What the leader and its history start with.
pub(super) const BEFORE: Epochs = Epochs { accepted: 1, current: 1 };
pub(super) const LAST: Zxid = Zxid::new(1, 2);

pub(super) fn txn() -> Bytes {
    Bytes::from_static(b"txn")
}

/// A txn of the epoch that is established here.
pub(super) fn zxid(counter: u32) -> Zxid {
    Zxid::new(2, counter)
}

/// Server 1, elected by the ensemble of 1, 2 and 3. Links are named by their servers.
pub(super) struct Led {
    pub(super) leader: Leader,
    pub(super) out: Vec<Output>,
    /// Whether learners say that they are Ringkeepers.
    pub(super) of_ringkeepers: bool,
}

impl Led {
    pub(super) fn new() -> Self {
        Self::timed(TIMING)
    }

    pub(super) fn timed(timing: Timing) -> Self {
        let lines = "server.1=a:1:2\nserver.2=b:1:2\nserver.3=c:1:2\nserver.9=d:1:2:observer";
        let start = leader::Start {
            me: ServerId(1),
            configs: EnsembleConfigs::settled(config::ensemble::parse(lines, "f").unwrap()),
            adopts_configs: false,
            timing,
            epochs: BEFORE,
            last_zxid: LAST,
            news_bytes_max: limits::LEARNER_NEWS_BYTES_MAX,
            zxids: EpochZxids::default(),
        };
        let mut out = Vec::new();
        let leader = Leader::new(start, NOW, &mut out);
        Self { leader, out, of_ringkeepers: false }
    }

    /// Established by server 2.
    pub(super) fn established() -> Self {
        Self::new().establish()
    }

    pub(super) fn establish(mut self) -> Self {
        self.greets(2, 1);
        self.stored();
        self.promises(2, LAST, 1);
        self.stored();
        self.synchronize(2);
        self.acks(2, zxid(0));
        assert!(self.leader.is_established());
        self.out.clear();
        self
    }

    /// Established, behind so many proposals of its epoch.
    pub(super) fn established_with(proposed: u32) -> Self {
        let mut led = Self::established();
        if proposed != 0 {
            led.leader.skip_to(zxid(proposed));
        }
        led
    }

    pub(super) fn hears(&mut self, sid: i64, packet: LearnerPacket) {
        self.leader.received(NOW, LinkId(sid.cast_unsigned()), packet, &mut self.out);
    }

    pub(super) fn greets(&mut self, sid: i64, accepted_epoch: i32) {
        self.leader.opened(LinkId(sid.cast_unsigned()), NOW, &mut self.out);
        let info = Some(LearnerInfo {
            sid: ServerId(sid),
            protocol_version: PROTOCOL_VERSION,
            config_version: Some(0),
            is_ringkeeper: self.of_ringkeepers,
            has_checksums: self.of_ringkeepers,
        });
        let packet = match sid {
            9 => LearnerPacket::ObserverInfo { accepted_epoch, info },
            _ => LearnerPacket::FollowerInfo { accepted_epoch, info },
        };
        self.hears(sid, packet);
    }

    pub(super) fn promises(&mut self, sid: i64, last_zxid: Zxid, current_epoch: i32) {
        self.hears(sid, LearnerPacket::AckEpoch { last_zxid, current_epoch, cannot_cut: false });
    }

    pub(super) fn acks(&mut self, sid: i64, zxid: Zxid) {
        self.hears(sid, LearnerPacket::Ack { zxid });
    }

    /// What the leader wanted to be written is on disk.
    pub(super) fn stored(&mut self) {
        let at = self.out.iter().position(|output| matches!(output, Output::Store(_)));
        self.out.remove(at.expect("it wants something to be written"));
        self.leader.stored(&mut self.out);
    }

    /// The driver answers the leader's question how to synchronize a learner: it has all.
    pub(super) fn synchronize(&mut self, sid: i64) {
        let link = LinkId(sid.cast_unsigned());
        let asked = self
            .out
            .iter()
            .position(|output| matches!(output, Output::Choose { link: of, .. } if *of == link));
        self.out.remove(asked.expect("it asks how"));
        let plan = SyncPlan { way: SyncWay::Diff, after: self.leader.committed() };
        self.leader.synchronize(link, plan, &mut self.out);
    }

    pub(super) fn propose(&mut self, counter: u32) {
        self.leader.propose(NOW, zxid(counter), &txn(), &mut self.out);
    }

    pub(super) fn flushed(&mut self, counter: u32) {
        self.leader.flushed(NOW, zxid(counter), &mut self.out);
    }

    /// What was said to a server since the last look.
    pub(super) fn said(&mut self, sid: i64) -> Vec<LeaderPacket> {
        let link = LinkId(sid.cast_unsigned());
        let mut said = Vec::new();
        self.out.retain(|output| match output {
            Output::Send(to, packet) if *to == link => {
                said.push(packet.clone());
                false
            }
            _ => true,
        });
        said
    }

    pub(super) fn closed(&self, sid: i64) -> Option<&CloseReason> {
        self.out.iter().find_map(|output| match output {
            Output::Close(link, reason) if link.0 == sid.cast_unsigned() => Some(reason),
            _ => None,
        })
    }

    pub(super) fn wants_to_store(&self) -> Option<Epochs> {
        self.out.iter().find_map(|output| match output {
            Output::Store(epochs) => Some(*epochs),
            _ => None,
        })
    }
}

/// Step l.1.1: a new epoch is later than all that a quorum has promised.
#[test]
fn a_quorum_of_greetings_chooses_an_epoch_above_all_of_theirs() {
    let mut led = Led::new();
    assert_eq!(led.leader.epoch(), None, "one of three is no quorum");
    led.greets(9, 5);
    assert_eq!(led.leader.epoch(), None, "observers are none of it");
    led.greets(2, 7);
    assert_eq!(led.leader.epoch(), Some(8));
    led.greets(3, 20);
    assert_eq!(led.leader.epoch(), Some(8), "who comes later is asked for this one");
}

/// Step l.1.1: NEWEPOCH (LEADERINFO) goes out once the leader itself has promised the epoch.
#[test]
fn the_leader_asks_for_the_promise_that_it_has_given_itself() {
    let mut led = Led::new();
    led.greets(2, 1);
    assert_eq!(led.wants_to_store(), Some(Epochs { accepted: 2, current: 1 }));
    assert_eq!(led.said(2), [], "it is not on disk yet");
    led.stored();
    assert!(matches!(led.said(2)[..], [LeaderPacket::LeaderInfo { epoch: 2, .. }]));
    led.greets(3, 1);
    assert!(matches!(led.said(3)[..], [LeaderPacket::LeaderInfo { epoch: 2, .. }]));
}

/// A stranger's.
#[test]
fn nobody_else_greets_with_the_leaders_own_sid() {
    let mut led = Led::new();
    led.greets(1, 0);
    assert_eq!(led.closed(1), Some(&CloseReason::Illegal("the leader's own sid")));
}

/// Step l.1.2: the history that is synchronized is the latest of a quorum's; the election has seen
/// to it that it is the leader's, and discovery makes sure: later current epoch, then later zxid.
#[test]
fn whose_history_is_later_is_not_counted() {
    for (last, current, is_later) in [
        (LAST, 1, false),
        (Zxid::new(1, 1), 1, false),
        (Zxid::new(1, 9), 0, false),
        (Zxid::new(1, 3), 1, true),
        (Zxid::ZERO, 2, true),
    ] {
        let mut led = Led::new();
        led.greets(2, 1);
        led.stored();
        led.promises(2, last, current);
        let of = format!("{last} of epoch {current}");
        assert_eq!(led.closed(2).is_some(), is_later, "{of}");
        // With a quorum the leader accepts its own epoch.
        let accepts = led.wants_to_store() == Some(Epochs { accepted: 2, current: 2 });
        assert_eq!(accepts, !is_later, "{of}");
        if is_later {
            assert_eq!(led.closed(2), Some(&CloseReason::Ahead));
        }
    }
}

/// Others may establish the epoch before the leader's own acceptance is on disk. Its log would be
/// of an earlier epoch after a power cut, and what it holds behind the others' logs.
#[test]
fn the_own_log_counts_once_the_epoch_is_accepted_on_disk() {
    let mut led = Led::new();
    led.greets(2, 1);
    led.stored();
    led.promises(2, LAST, 1);
    led.greets(3, 1);
    led.promises(3, LAST, 1);
    for sid in [2, 3] {
        led.synchronize(sid);
        led.acks(sid, zxid(0));
    }
    assert!(led.leader.is_established());
    led.propose(1);
    led.acks(2, zxid(1));
    led.flushed(1);
    assert_eq!(led.leader.committed(), LAST);
    led.stored();
    led.flushed(1);
    assert_eq!(led.leader.committed(), zxid(1));
}

/// Step l.1.2: without a quorum of promises there is no history to synchronize.
#[test]
fn repeated_promises_and_those_of_servers_that_know_nothing_do_not_count() {
    for (last, current) in [(LAST, -1), (Zxid(-1), 1)] {
        let mut led = Led::new();
        led.greets(2, 1);
        led.stored();
        led.promises(2, last, current);
        assert_eq!(led.wants_to_store(), None);
        assert!(!led.out.iter().any(|output| matches!(output, Output::Choose { .. })));
    }
}

/// What no quorum had is replaced where it cannot be cut off; what it has promised counts.
#[test]
fn who_cannot_cut_is_counted_and_gets_a_snapshot() {
    for cannot_cut in [true, false] {
        let mut led = Led::new();
        led.greets(2, 1);
        led.stored();
        let (last_zxid, current_epoch) = (Zxid::new(1, 9), 0);
        led.hears(2, LearnerPacket::AckEpoch { last_zxid, current_epoch, cannot_cut });
        assert_eq!(led.wants_to_store(), Some(Epochs { accepted: 2, current: 2 }), "it counts");
        led.said(2);
        let plan = SyncPlan { way: SyncWay::Trunc, after: LAST };
        led.leader.synchronize(LinkId(2), plan, &mut led.out);
        let gets_snapshot =
            led.out.iter().any(|output| matches!(output, Output::SendSnapshot { .. }));
        assert_eq!(gets_snapshot, cannot_cut);
        assert_eq!(led.said(2).is_empty(), cannot_cut);
    }
}

/// Apache's servers keep their logs beside a snapshot and apply what is there behind its zxid.
#[test]
fn a_snapshot_is_above_what_an_apache_server_keeps_of_earlier_epochs() {
    let (of_before, more_of_this) = (Zxid::new(1, 9), zxid(5));
    for (of_ringkeepers, log_end, tree, shown) in [
        (false, of_before, LAST, zxid(0)),
        (true, of_before, LAST, LAST),
        (false, LAST, LAST, LAST),
        (false, Zxid::ZERO, LAST, LAST),
        (false, more_of_this, zxid(3), zxid(3)),
    ] {
        let mut led = Led::established();
        led.of_ringkeepers = of_ringkeepers;
        led.greets(3, 1);
        led.promises(3, log_end, 1);
        let given = led.leader.snapshot_zxid(LinkId(3), tree, 2);
        assert_eq!(given, shown, "{of_ringkeepers} {log_end} {tree}");
    }
}

/// Steps l.2.1 and l.2.2: NEWLEADER behind the history; with a quorum of ACKs, the leader's own
/// among them, UPTODATE, and only then proposals.
#[test]
fn a_leader_is_established_by_a_quorum_that_has_its_history() {
    let mut led = Led::new();
    led.greets(2, 1);
    led.greets(3, 1);
    led.stored();
    led.promises(2, Zxid::new(1, 1), 1);
    led.promises(3, LAST, 1);
    led.said(2);
    led.said(3);
    let link = LinkId(2);
    let plan = SyncPlan { way: SyncWay::Diff, after: Zxid::new(1, 1) };
    led.leader.synchronize(link, plan, &mut led.out);
    led.leader.history(link, vec![(LAST, txn())], &mut led.out);
    let said = led.said(2);
    assert!(
        matches!(
            &said[..],
            [
                LeaderPacket::Diff { zxid: LAST },
                LeaderPacket::Proposal { zxid: LAST, .. },
                LeaderPacket::Commit { zxid: LAST },
                LeaderPacket::NewLeader { epoch: 2, .. },
            ]
        ),
        "{said:?}"
    );
    led.synchronize(3);
    led.said(3);
    led.acks(2, zxid(0));
    assert!(!led.leader.is_established(), "its own history and epoch are not accepted yet");
    led.stored();
    assert!(led.leader.is_established());
    assert_eq!(led.said(2), [LeaderPacket::UpToDate]);
    assert_eq!(led.said(3), [], "it has not acknowledged NEWLEADER");
    led.acks(3, zxid(0));
    assert_eq!(led.said(3), [LeaderPacket::UpToDate]);
}

/// Step l.2.2: an acknowledgement of another epoch establishes nobody.
#[test]
fn only_acknowledgements_of_this_epoch_count() {
    let mut led = Led::new();
    led.greets(2, 1);
    led.stored();
    led.promises(2, LAST, 1);
    led.stored();
    led.synchronize(2);
    led.acks(2, Zxid::new(1, 0));
    led.acks(2, Zxid::new(3, 0));
    led.acks(2, LAST);
    assert!(!led.leader.is_established());
    led.acks(2, zxid(0));
    assert!(led.leader.is_established());
}

/// Step l.3.1: proposals are in the order of their zxids.
#[test]
#[should_panic(expected = "proposals leave no gap")]
fn proposals_follow_one_another() {
    let mut led = Led::established();
    led.propose(1);
    led.propose(3);
}

/// Step l.3.2: a proposal is committed with a quorum of ACKs, and none before those before it.
#[test]
fn commits_need_a_quorum_and_are_in_order() {
    let mut led = Led::established();
    led.propose(1);
    led.propose(2);
    let proposed = [1, 2].map(|counter| LeaderPacket::Proposal { zxid: zxid(counter), txn: txn() });
    assert_eq!(led.said(2), proposed);
    led.flushed(2);
    assert_eq!((led.said(2), led.leader.committed()), (Vec::new(), LAST), "one of three");
    led.acks(2, zxid(2));
    let commits = [1, 2].map(|counter| LeaderPacket::Commit { zxid: zxid(counter) });
    assert_eq!(led.said(2), commits);
    assert_eq!(led.leader.committed(), zxid(2));
}

/// Step l.3.2: the leader's disk is one of the quorum, not more; observers are none of it.
#[test]
fn the_leaders_own_flush_is_one_voice_and_an_observers_none() {
    let mut led = Led::established();
    for sid in [3, 9] {
        led.greets(sid, 1);
        led.promises(sid, LAST, 1);
        led.synchronize(sid);
        led.acks(sid, zxid(0));
    }
    led.propose(1);
    led.acks(9, zxid(1));
    led.acks(2, zxid(1));
    assert_eq!(led.leader.committed(), LAST);
    led.acks(3, zxid(1));
    assert_eq!(led.leader.committed(), zxid(1), "two followers, without the leader's own disk");
    assert!(led.said(9).contains(&LeaderPacket::Inform { zxid: zxid(1), txn: txn() }));
}

/// Steps l.3.3 and l.3.4: who comes later is asked for its promise, gets what is committed before
/// NEWLEADER and what is not behind it, and counts for those.
#[test]
fn who_comes_later_gets_the_history_and_what_is_proposed() {
    let mut led = Led::established();
    led.propose(1);
    led.acks(2, zxid(1));
    led.flushed(1);
    led.propose(2);
    led.greets(3, 1);
    assert!(matches!(led.said(3)[..], [LeaderPacket::LeaderInfo { epoch: 2, .. }]));
    led.promises(3, LAST, 1);
    let plan = SyncPlan { way: SyncWay::Diff, after: LAST };
    led.leader.synchronize(LinkId(3), plan, &mut led.out);
    led.propose(3);
    led.leader.history(LinkId(3), vec![(zxid(1), txn())], &mut led.out);
    let said = led.said(3);
    let names: Vec<(&str, u32)> = said
        .iter()
        .map(|packet| match packet {
            LeaderPacket::Diff { zxid } => ("diff", zxid.counter()),
            LeaderPacket::Proposal { zxid, .. } => ("proposal", zxid.counter()),
            LeaderPacket::Commit { zxid } => ("commit", zxid.counter()),
            LeaderPacket::NewLeader { .. } => ("newleader", 0),
            _ => ("?", 0),
        })
        .collect();
    assert_eq!(
        names,
        [
            ("diff", 1),
            ("proposal", 1),
            ("commit", 1),
            ("newleader", 0),
            ("proposal", 2),
            ("proposal", 3)
        ]
    );
    led.acks(3, zxid(0));
    assert!(led.said(3).contains(&LeaderPacket::UpToDate));
    led.flushed(3);
    assert_eq!(led.leader.committed(), zxid(1));
    led.acks(3, zxid(3));
    assert_eq!(led.leader.committed(), zxid(3));
}

/// Section IV.A: a leader that does not hear of a quorum gives up.
#[test]
fn a_leader_that_hears_no_quorum_gives_up() {
    let mut led = Led::established();
    // From this ping on the follower must answer.
    led.leader.timer(Instant(100), &mut led.out);
    led.leader.timer(Instant(1_100), &mut led.out);
    assert!(led.leader.is_established(), "the limit itself is in time");
    led.leader.timer(Instant(1_101), &mut led.out);
    let gave_up = |output: &Output| matches!(output, Output::Abdicate(Abdication::QuorumLost(_)));
    assert!(led.out.iter().any(gave_up), "{:?}", led.out);
    assert!(!led.leader.is_established());
    // And one that nobody joins.
    let mut led = Led::new();
    led.leader.timer(Instant(1_001), &mut led.out);
    assert!(matches!(led.out[..], [Output::Abdicate(Abdication::NotEstablished(_))]));
}

/// Only the messages of a phase are legal in it. Their sender is dropped, the others stay.
#[test]
fn what_is_not_of_a_phase_ends_the_connection_and_not_the_leader() {
    for packet in [
        LearnerPacket::AckEpoch { last_zxid: LAST, current_epoch: 1, cannot_cut: false },
        LearnerPacket::Ack { zxid: zxid(1) },
        LearnerPacket::FollowerInfo { accepted_epoch: 2, info: None },
    ] {
        let mut led = Led::established();
        led.greets(3, 1);
        led.hears(3, packet.clone());
        let illegal = matches!(led.closed(3), Some(CloseReason::Illegal(_)));
        // A promise is what it is asked for.
        assert_eq!(illegal, !matches!(packet, LearnerPacket::AckEpoch { .. }), "{packet:?}");
        led.hears(2, packet);
        assert!(matches!(led.closed(2), Some(CloseReason::Illegal(_))));
        assert!(led.leader.is_established());
    }
}

/// Those that say nothing take no learner's place, and learners are not among them.
#[test]
fn silent_connections_are_bounded() {
    let mut led = Led::established();
    led.greets(3, 1);
    for link in 10..1_000 {
        led.leader.opened(LinkId(link), NOW, &mut led.out);
    }
    let closed: Vec<u64> = led
        .out
        .iter()
        .filter_map(|output| match output {
            Output::Close(link, CloseReason::Crowded) => Some(link.0),
            _ => None,
        })
        .collect();
    let kept = limits::QUORUM_WAITING_MAX as u64;
    assert_eq!(closed, (10..1_000 - kept).collect::<Vec<_>>(), "the oldest go, one for one");
    assert_eq!(led.leader.learner_count(), limits::QUORUM_WAITING_MAX + 2);
}
