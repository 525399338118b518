//! A learner in Zab's three phases, step by step as the paper names them ("Zab: High-performance
//! broadcast for primary-backup systems", section IV): what it waits for, and what it says then.

use super::leader::LearnerKind;
use super::leader_tests::{BEFORE, LAST, NOW, TIMING, txn, zxid};
use super::learner::{Learner, Output, Reason, Start};
use super::paxos::Epochs;
use crate::base::Instant;
use crate::model::{ServerId, Zxid};
use crate::wire::quorum::{LeaderPacket, LearnerPacket};

/// A follower, 2, that has `LAST` and has promised epoch 1.
pub(super) struct Following {
    pub(super) learner: Learner,
    pub(super) out: Vec<Output>,
}

impl Following {
    pub(super) fn new() -> Self {
        Self::with(false)
    }

    fn with(cannot_cut: bool) -> Self {
        let start = Start {
            me: ServerId(2),
            kind: LearnerKind::Follower,
            config_version: 0,
            timing: TIMING,
            epochs: BEFORE,
            last_zxid: Some(LAST),
            cannot_cut,
        };
        let mut out = Vec::new();
        let learner = Learner::new(start, NOW, &mut out);
        Self { learner, out }
    }

    /// It has promised epoch 2 and nothing else.
    pub(super) fn promised() -> Self {
        Self::promised_to(false)
    }

    /// The same to a leader that says that it is a Ringkeeper, or does not.
    fn promised_to(is_ringkeeper: bool) -> Self {
        let mut following = Self::new();
        following.hears(LeaderPacket::leader_info(2, is_ringkeeper, false));
        following.stored();
        following.out.clear();
        following
    }

    /// It has the leader's history and serves.
    pub(super) fn serving() -> Self {
        Self::serving_under(false)
    }

    /// The same under a leader that says that it is a Ringkeeper, or does not.
    pub(super) fn serving_under(is_ringkeeper: bool) -> Self {
        let mut following = Self::promised_to(is_ringkeeper);
        following.hears(LeaderPacket::Diff { zxid: LAST });
        following.hears(LeaderPacket::NewLeader { epoch: 2, config: None });
        following.stored();
        following.hears(LeaderPacket::UpToDate);
        assert!(following.learner.is_serving());
        following.out.clear();
        following
    }

    pub(super) fn hears(&mut self, packet: LeaderPacket) {
        self.learner.received(NOW, packet, &mut self.out);
    }

    pub(super) fn proposed(&mut self, zxid: Zxid) {
        self.hears(LeaderPacket::Proposal { zxid, txn: txn() });
    }

    pub(super) fn stored(&mut self) {
        let at = self.out.iter().position(|output| matches!(output, Output::Store(_)));
        self.out.remove(at.expect("it wants something to be written"));
        self.learner.stored(&mut self.out);
    }

    pub(super) fn take(&mut self) -> Vec<Output> {
        std::mem::take(&mut self.out)
    }
}

pub(super) fn ack(zxid: Zxid) -> Output {
    Output::Send(LearnerPacket::Ack { zxid })
}

/// Step f.1.1: CEPOCH (FOLLOWERINFO) tells the last promise.
#[test]
fn a_follower_greets_with_its_last_promise() {
    let said = Following::new().take();
    assert!(matches!(
        said[..],
        [Output::Send(LearnerPacket::FollowerInfo { accepted_epoch: 1, .. })]
    ));
}

/// Step f.1.2: an epoch above the last promise is promised, on disk before it is said, with the
/// epoch and the end of the history; a lower one is not.
#[test]
fn only_a_ringkeeper_is_told_of_a_log_that_cannot_be_cut() {
    let told = |is_ringkeeper| {
        let mut following = Following::with(true);
        following.take();
        following.hears(LeaderPacket::leader_info(2, is_ringkeeper, false));
        following.stored();
        following.take()
    };
    let promise = LearnerPacket::AckEpoch { last_zxid: LAST, current_epoch: 1, cannot_cut: true };
    assert_eq!(told(true), [Output::Send(promise)]);
    let (last_zxid, cannot_cut) = (Zxid(-1), false);
    let promise = LearnerPacket::AckEpoch { last_zxid, current_epoch: 1, cannot_cut };
    assert_eq!(told(false), [Output::Send(promise)], "it would send TRUNC again");
}

#[test]
fn a_log_that_a_snapshot_has_replaced_can_be_cut() {
    let mut following = Following::with(true);
    following.hears(LeaderPacket::leader_info(2, true, false));
    following.stored();
    following.hears(LeaderPacket::Snap { zxid: LAST });
    following.learner.installed(NOW, LAST);
    following.hears(LeaderPacket::NewLeader { epoch: 2, config: None });
    following.stored();
    following.hears(LeaderPacket::UpToDate);
    following.take();
    // The leader's next epoch.
    following.hears(LeaderPacket::leader_info(3, true, false));
    following.stored();
    let promise = LearnerPacket::AckEpoch { last_zxid: LAST, current_epoch: 2, cannot_cut: false };
    assert_eq!(following.take(), [Output::Send(promise)]);
}

#[test]
fn an_epoch_is_promised_if_it_is_later_and_only_once() {
    let mut following = Following::new();
    following.take();
    following.hears(LeaderPacket::leader_info(2, false, false));
    let promise = Epochs { accepted: 2, current: 1 };
    assert_eq!(following.take(), [Output::Store(promise)]);
    following.learner.stored(&mut following.out);
    let said = LearnerPacket::AckEpoch { last_zxid: LAST, current_epoch: 1, cannot_cut: false };
    assert_eq!(following.take(), [Output::Send(said)]);
    // The same epoch as promised: an answer that is not counted.
    let mut following = Following::new();
    following.take();
    following.hears(LeaderPacket::leader_info(1, false, false));
    let said = LearnerPacket::AckEpoch { last_zxid: LAST, current_epoch: -1, cannot_cut: false };
    assert_eq!(following.take(), [Output::Send(said)]);
    for epoch in [0, -1] {
        let mut following = Following::new();
        following.take();
        following.hears(LeaderPacket::leader_info(epoch, false, false));
        let refused = Reason::Epoch { epoch: i64::from(epoch), accepted: 1 };
        assert_eq!(following.take(), [Output::GiveUp(refused)]);
    }
}

/// Step f.2.1: the history is accepted durably, then the epoch, then the ACK is said. Whoever leads
/// another epoch than was promised is left.
#[test]
fn newleader_is_acknowledged_behind_the_history_and_the_epoch() {
    let mut following = Following::promised();
    following.hears(LeaderPacket::Diff { zxid: zxid(0) });
    let new = Zxid::new(1, 3);
    following.proposed(new);
    following.hears(LeaderPacket::Commit { zxid: new });
    following.hears(LeaderPacket::NewLeader { epoch: 2, config: None });
    assert_eq!(following.take(), [Output::Append { zxid: new, txn: txn() }]);
    following.learner.flushed(new, &mut following.out);
    assert_eq!(following.take(), [Output::Store(Epochs { accepted: 2, current: 2 })]);
    following.learner.stored(&mut following.out);
    assert_eq!(following.take(), [ack(zxid(0))]);
    for epoch in [1, 3, -1] {
        let mut following = Following::promised();
        following.hears(LeaderPacket::Diff { zxid: LAST });
        following.hears(LeaderPacket::NewLeader { epoch, config: None });
        assert!(matches!(following.take()[..], [Output::GiveUp(Reason::Illegal(_))]));
    }
}

/// Step f.2.2: nothing is delivered before UPTODATE, which delivers the whole history.
#[test]
fn nothing_is_delivered_before_up_to_date() {
    let mut following = Following::promised();
    following.hears(LeaderPacket::Diff { zxid: LAST });
    following.hears(LeaderPacket::NewLeader { epoch: 2, config: None });
    following.stored();
    following.proposed(zxid(1));
    following.hears(LeaderPacket::Commit { zxid: zxid(1) });
    let delivers = |output: &Output| matches!(output, Output::Committed(_) | Output::Serve { .. });
    assert!(!following.take().iter().any(delivers));
    following.hears(LeaderPacket::UpToDate);
    let delivered: Vec<Output> = following.take().into_iter().filter(delivers).collect();
    let all = [Output::Committed(zxid(1)), Output::Serve { epoch: 2 }];
    assert_eq!(delivered, all);
}

/// Step f.3.1: a proposal is acknowledged when it is durable, in order, each once.
#[test]
fn proposals_are_acknowledged_in_order_once_they_are_flushed() {
    let mut following = Following::serving();
    for counter in 1..=3 {
        following.proposed(zxid(counter));
    }
    let appended: Vec<Output> =
        (1..=3).map(|counter| Output::Append { zxid: zxid(counter), txn: txn() }).collect();
    assert_eq!(following.take(), appended);
    following.learner.flushed(zxid(2), &mut following.out);
    assert_eq!(following.take(), [ack(zxid(1)), ack(zxid(2))]);
    following.learner.flushed(zxid(2), &mut following.out);
    assert_eq!(following.take(), []);
    following.learner.flushed(zxid(3), &mut following.out);
    assert_eq!(following.take(), [ack(zxid(3))]);
}

/// Step f.3.1: what was accepted already is dropped; what leaves a gap ends the following.
#[test]
fn a_repeated_proposal_is_dropped_and_a_gap_is_not_accepted() {
    let mut following = Following::serving();
    following.proposed(zxid(1));
    following.take();
    following.proposed(zxid(1));
    following.proposed(LAST);
    assert_eq!(following.take(), []);
    for found in [zxid(3), Zxid::new(3, 2)] {
        let mut following = Following::serving();
        following.proposed(zxid(1));
        following.take();
        following.proposed(found);
        let gap = Reason::Gap { last: zxid(1), found };
        assert_eq!(following.take(), [Output::GiveUp(gap)]);
    }
}

/// Step f.3.2: a COMMIT delivers everything up to it, and nothing that was not proposed.
#[test]
fn a_commit_delivers_all_before_it_and_nothing_unknown() {
    let mut following = Following::serving();
    following.proposed(zxid(1));
    following.proposed(zxid(2));
    following.take();
    following.hears(LeaderPacket::Commit { zxid: zxid(2) });
    assert_eq!(following.take(), [Output::Committed(zxid(2))]);
    following.hears(LeaderPacket::Commit { zxid: zxid(1) });
    assert_eq!(following.take(), [], "it is delivered once");
    following.hears(LeaderPacket::Commit { zxid: zxid(3) });
    let unknown = Reason::UnknownCommit(zxid(3));
    assert_eq!(following.take(), [Output::GiveUp(unknown)]);
}

/// Section IV.A: a follower that does not hear of its leader looks for another.
#[test]
fn a_follower_of_a_silent_leader_gives_up() {
    let mut following = Following::serving();
    following.learner.timer(Instant(1_000), &mut following.out);
    assert_eq!(following.take(), [], "the limit itself is in time");
    following.learner.timer(Instant(1_001), &mut following.out);
    assert_eq!(following.take(), [Output::GiveUp(Reason::Silent)]);
}

/// Only the messages of a phase are legal in it.
#[test]
fn what_is_not_of_a_phase_ends_the_following() {
    let early = [
        LeaderPacket::Diff { zxid: LAST },
        LeaderPacket::Proposal { zxid: zxid(1), txn: txn() },
        LeaderPacket::Commit { zxid: LAST },
        LeaderPacket::NewLeader { epoch: 2, config: None },
        LeaderPacket::UpToDate,
    ];
    // Before LEADERINFO, and before DIFF, TRUNC or SNAP.
    for packet in &early {
        let mut following = Following::new();
        following.take();
        following.hears(packet.clone());
        assert!(matches!(following.take()[..], [Output::GiveUp(Reason::Illegal(_))]));
    }
    for packet in &early[1..] {
        let mut following = Following::promised();
        following.hears(packet.clone());
        assert!(matches!(following.take()[..], [Output::GiveUp(Reason::Illegal(_))]));
    }
    // While it serves, what belongs before.
    for packet in [
        LeaderPacket::leader_info(3, false, false),
        LeaderPacket::Diff { zxid: LAST },
        LeaderPacket::Trunc { zxid: LAST },
        LeaderPacket::Snap { zxid: LAST },
        LeaderPacket::NewLeader { epoch: 2, config: None },
        LeaderPacket::UpToDate,
    ] {
        let mut following = Following::serving();
        following.hears(packet);
        assert!(matches!(following.take()[..], [Output::GiveUp(Reason::Illegal(_))]));
    }
    // UPTODATE before the acceptance was said.
    let mut following = Following::promised();
    following.hears(LeaderPacket::Diff { zxid: LAST });
    following.hears(LeaderPacket::UpToDate);
    assert!(matches!(following.take()[..], [Output::GiveUp(Reason::Illegal(_))]));
}
