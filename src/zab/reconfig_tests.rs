//! What leader and learner do with configurations, packet by packet.

use bytes::Bytes;

use super::Timing;
use super::election::{Election, ElectionOutput};
use super::leader::{self, CloseReason, EpochZxids, Leader, LearnerKind, LinkId, Output};
use super::learner::{self, Learner};
use super::paxos::Epochs;
use super::synchronization::{SyncPlan, SyncWay};
use crate::base::{Duration, Instant};
use crate::config;
use crate::model::{EnsembleConfig, EnsembleConfigs, ServerId, ServerState, Zxid};
use crate::wire::quorum::{LeaderPacket, LearnerInfo, LearnerPacket, PROTOCOL_VERSION};

pub(super) const NOW: Instant = Instant(0);
pub(super) const TIMING: Timing = Timing {
    establish_within: Duration(1_000),
    joined_within: Duration(1_000),
    sync_within: Duration(1_000),
    silence_max: Duration(500),
    ping_every: Duration(100),
};

/// Members by sid: voters as they are, observers below zero.
pub(super) fn config(members: &[i64], version: i64) -> EnsembleConfig {
    let line = |member: &i64| match *member {
        sid if sid < 0 => format!("server.{0}=h{0}:1:2:observer\n", -sid),
        sid => format!("server.{sid}=h{sid}:1:2\n"),
    };
    let text: String = members.iter().map(line).collect();
    config::ensemble::parse(&format!("{text}version={version:x}"), "f").unwrap()
}

pub(super) fn zxid(counter: u32) -> Zxid {
    Zxid::new(1, counter)
}

/// A leader with sid 1, the learners of which are those that are named.
pub(super) struct Led {
    pub(super) leader: Leader,
    /// Txns of its history.
    txns: Vec<(Zxid, Bytes)>,
    /// What was said to whom, since the last look.
    pub(super) said: Vec<(i64, LeaderPacket)>,
    pub(super) other: Vec<Output>,
    /// What it proposes is durable at once.
    pub(super) flushes: bool,
    /// Epochs are written at once.
    pub(super) stores: bool,
}

impl Led {
    pub(super) fn new(configs: EnsembleConfigs, adopts_configs: bool) -> Self {
        Self::with_zxids(configs, adopts_configs, EpochZxids::default())
    }

    pub(super) fn with_zxids(
        configs: EnsembleConfigs,
        adopts_configs: bool,
        zxids: EpochZxids,
    ) -> Self {
        let start = leader::Start {
            me: ServerId(1),
            configs,
            adopts_configs,
            timing: TIMING,
            epochs: Epochs::default(),
            last_zxid: Zxid::ZERO,
            news_bytes_max: usize::MAX,
            zxids,
        };
        let mut out = Vec::new();
        let leader = Leader::new(start, NOW, &mut out);
        let (txns, said, other) = (Vec::new(), Vec::new(), Vec::new());
        let mut led = Self { leader, txns, said, other, flushes: true, stores: true };
        led.take(out);
        led
    }

    /// A leader that is established by these followers.
    fn established(configs: EnsembleConfigs, followers: &[i64]) -> Self {
        let mut led = Self::new(configs, false);
        led.join(followers, LearnerKind::Follower);
        assert!(led.leader.is_established());
        led
    }

    /// Writes what is to be written at once, sends histories whole, and keeps the rest.
    pub(super) fn take(&mut self, outputs: Vec<Output>) {
        for output in outputs {
            let mut more = Vec::new();
            match output {
                Output::Send(link, packet) => self.said.push((link.0.cast_signed(), packet)),
                Output::Store(_) if self.stores => self.leader.stored(&mut more),
                Output::Choose { link, last, .. } => {
                    let plan = SyncPlan { way: SyncWay::Diff, after: last };
                    self.leader.synchronize(link, plan, &mut more);
                }
                Output::ReadHistory { link, after, upto } => {
                    let txns = self.txns.iter().filter(|(zxid, _)| after < *zxid && *zxid <= upto);
                    let txns = txns.cloned().collect();
                    self.leader.history(link, txns, &mut more);
                }
                other => self.other.push(other),
            }
            self.take(more);
        }
    }

    pub(super) fn hears(&mut self, sid: i64, packet: LearnerPacket) {
        let mut out = Vec::new();
        self.leader.received(NOW, LinkId(sid.cast_unsigned()), packet, &mut out);
        self.take(out);
    }

    /// Connects learners and has them synchronized. Names of links are sids.
    pub(super) fn join(&mut self, sids: &[i64], kind: LearnerKind) {
        self.join_as(sids, kind, false);
    }

    /// The same, as Ringkeepers or Apache's servers.
    pub(super) fn join_as(&mut self, sids: &[i64], kind: LearnerKind, is_ringkeeper: bool) {
        self.learn_as(sids, kind, is_ringkeeper);
        for sid in sids {
            self.hears(*sid, LearnerPacket::Ack { zxid: zxid(0) });
        }
    }

    /// Connects learners and has them told the history, and NEWLEADER.
    fn learn_as(&mut self, sids: &[i64], kind: LearnerKind, is_ringkeeper: bool) {
        for sid in sids {
            self.leader.opened(LinkId(sid.cast_unsigned()), NOW, &mut Vec::new());
            let info = Some(LearnerInfo {
                sid: ServerId(*sid),
                protocol_version: PROTOCOL_VERSION,
                config_version: Some(0),
                is_ringkeeper,
                has_checksums: false,
            });
            self.hears(
                *sid,
                match kind {
                    LearnerKind::Follower => {
                        LearnerPacket::FollowerInfo { accepted_epoch: 0, info }
                    }
                    LearnerKind::Observer => {
                        LearnerPacket::ObserverInfo { accepted_epoch: 0, info }
                    }
                },
            );
        }
        for sid in sids {
            self.hears(
                *sid,
                LearnerPacket::AckEpoch {
                    last_zxid: Zxid::ZERO,
                    current_epoch: 0,
                    cannot_cut: false,
                },
            );
        }
    }

    pub(super) fn propose(&mut self, counter: u32, config: Option<EnsembleConfig>) {
        let (at, txn) = (zxid(counter), Bytes::from_static(b"txn"));
        self.txns.push((at, txn.clone()));
        let mut out = Vec::new();
        match config {
            Some(config) => self.leader.propose_config(NOW, at, &txn, config, &mut out),
            None => self.leader.propose(NOW, at, &txn, &mut out),
        }
        if self.flushes {
            self.leader.flushed(NOW, at, &mut out);
        }
        self.take(out);
    }

    pub(super) fn acked(&mut self, sid: i64, counter: u32) {
        self.hears(sid, LearnerPacket::Ack { zxid: zxid(counter) });
    }

    /// Commits that were said since the last call, by whom they were said to.
    fn commits(&mut self) -> Vec<(i64, u32, Option<i64>)> {
        let said = std::mem::take(&mut self.said);
        let commits = said.into_iter().filter_map(|(sid, packet)| match packet {
            LeaderPacket::Commit { zxid } | LeaderPacket::Inform { zxid, .. } => {
                Some((sid, zxid.counter(), None))
            }
            LeaderPacket::CommitAndActivate { zxid, designated_leader }
            | LeaderPacket::InformAndActivate { zxid, designated_leader, .. } => {
                Some((sid, zxid.counter(), Some(designated_leader.0)))
            }
            _ => None,
        });
        commits.collect()
    }

    /// The version that NEWLEADER told this learner.
    fn told_version(&self, sid: i64) -> Option<i64> {
        self.said.iter().rev().find_map(|(to, packet)| match packet {
            LeaderPacket::NewLeader { config: Some(text), .. } if *to == sid => {
                Some(config::ensemble::parse(text, "NEWLEADER").unwrap().version)
            }
            _ => None,
        })
    }
}

fn settled(members: &[i64]) -> EnsembleConfigs {
    EnsembleConfigs::settled(config(members, 0))
}

#[test]
fn a_reconfiguration_needs_a_quorum_of_both_and_what_follows_one_of_the_new() {
    let mut led = Led::established(settled(&[1, 2, 3]), &[2, 3]);
    led.join(&[4, 5], LearnerKind::Follower);
    led.join(&[9], LearnerKind::Observer);
    led.commits();
    let new = config(&[1, 4, 5], zxid(1).0);
    led.propose(1, Some(new));
    led.propose(2, None);
    // A majority of the old one: not of the new one.
    led.acked(2, 2);
    led.acked(3, 2);
    assert_eq!(led.commits(), []);
    // With one of the new one both have a quorum; the second txn needs the new one's alone.
    led.acked(4, 1);
    let all = [2, 3, 4, 5, 9];
    assert_eq!(led.commits(), all.map(|sid| (sid, 1, Some(1))));
    led.acked(4, 2);
    assert_eq!(led.commits(), all.map(|sid| (sid, 2, None)));
    // Those of the old one count no more.
    led.propose(3, None);
    led.acked(2, 3);
    led.acked(3, 3);
    assert_eq!(led.commits(), []);
    led.acked(5, 3);
    assert_eq!(led.commits().len(), 5);
    assert!(led.leader.is_established());
}

#[test]
fn acknowledgements_of_the_new_one_alone_do_not_commit_it() {
    let mut led = Led::established(settled(&[1, 2, 3]), &[2, 3]);
    led.join(&[4, 5], LearnerKind::Follower);
    led.commits();
    led.propose(1, Some(config(&[3, 4, 5], zxid(1).0)));
    led.acked(4, 1);
    led.acked(5, 1);
    assert_eq!(led.commits(), [], "nobody of the old one but the leader itself");
    led.acked(2, 1);
    assert_eq!(led.commits().len(), 4);
}

#[test]
fn a_leader_that_is_no_voter_any_more_names_the_one_who_has_the_most() {
    let mut led = Led::established(settled(&[1, 2, 3]), &[2, 3]);
    led.commits();
    led.propose(1, Some(config(&[2, 3], zxid(1).0)));
    led.propose(2, None);
    led.acked(3, 1);
    assert_eq!(led.commits(), []);
    led.acked(2, 2);
    assert_eq!(led.commits(), [(2, 1, Some(2)), (3, 1, Some(2))], "2 has the second txn");
    let activated = led.other.iter().any(|output| {
        matches!(output, Output::Activated { designated: ServerId(2), zxid } if zxid.counter() == 1)
    });
    assert!(activated, "{:?}", led.other);
    // It commits nothing more: the next leader does.
    led.acked(3, 2);
    assert_eq!(led.commits(), []);
    assert!(!led.leader.is_established());
}

#[test]
fn a_leader_that_moves_or_observes_does_not_go_on() {
    let moved = |sid: i64| {
        let text = format!("server.1=h1:{}:2\nserver.2=h2:1:2\nversion=100000001", 7 + sid);
        config::ensemble::parse(&text, "f").unwrap()
    };
    for next in [moved(1), config(&[-1, 2], zxid(1).0)] {
        let mut led = Led::established(settled(&[1, 2, 3]), &[2, 3]);
        led.propose(1, Some(next));
        led.acked(2, 1);
        led.acked(3, 1);
        assert!(led.commits().contains(&(2, 1, Some(2))));
    }
}

#[test]
fn the_first_leader_gives_the_configuration_a_version() {
    let mut led = Led::new(settled(&[1, 2, 3]), true);
    led.join(&[2], LearnerKind::Follower);
    let version = zxid(0).0;
    let stamped = led.other.iter().find_map(|output| match output {
        Output::Config(config) => Some(config.version),
        _ => None,
    });
    assert_eq!((stamped, led.told_version(2)), (Some(version), Some(version)));
    // Not one that has a version, and not where configurations do not change.
    let versioned = EnsembleConfigs::settled(config(&[1, 2, 3], 7));
    for (configs, adopts, told) in [(versioned, true, 7), (settled(&[1, 2, 3]), false, 0)] {
        let mut led = Led::new(configs, adopts);
        led.join(&[2], LearnerKind::Follower);
        assert!(!led.other.iter().any(|output| matches!(output, Output::Config(_))));
        assert_eq!(led.told_version(2), Some(told));
    }
}

#[test]
fn what_was_last_seen_needs_both_quorums_and_is_in_force_with_the_leader() {
    let configs =
        EnsembleConfigs { committed: config(&[1, 2, 3], 0), last_seen: config(&[1, 4, 5], 9) };
    let mut led = Led::new(configs.clone(), true);
    led.join(&[2, 3], LearnerKind::Follower);
    assert_eq!(led.leader.epoch(), None, "a quorum of the old one alone chooses no epoch");
    let mut led = Led::new(configs, true);
    led.join(&[2, 4], LearnerKind::Follower);
    assert!(led.leader.is_established());
    assert_eq!(led.told_version(2), Some(9));
    led.commits();
    // From here on the old one does not count.
    led.propose(1, None);
    led.acked(2, 1);
    assert_eq!(led.commits(), []);
    led.acked(4, 1);
    assert_eq!(led.commits().len(), 2);
}

#[test]
fn who_comes_while_a_reconfiguration_is_pending_is_told_of_the_one_before() {
    let mut led = Led::established(settled(&[1, 2, 3]), &[2]);
    led.propose(1, Some(config(&[1, 2, 3, 4], zxid(1).0)));
    led.join(&[4], LearnerKind::Follower);
    assert_eq!(led.told_version(4), Some(0), "told with NEWLEADER it would come into force");
    let proposed = led.said.iter().any(|(to, packet)| {
        *to == 4 && matches!(packet, LeaderPacket::Proposal { zxid, .. } if zxid.counter() == 1)
    });
    assert!(proposed);
    led.acked(2, 1);
    assert_eq!(led.commits(), [], "two of four");
    led.acked(4, 1);
    assert_eq!(led.commits(), [(2, 1, Some(1)), (4, 1, Some(1))]);
    led.join(&[3], LearnerKind::Follower);
    assert_eq!(led.told_version(3), Some(zxid(1).0));
}

/// An Apache follower hears of it before UPTODATE only if it is the first proposal.
#[test]
fn an_apache_follower_that_is_not_served_comes_again_for_a_configuration() {
    for (of_ringkeepers, kind, is_closed) in [
        (false, LearnerKind::Follower, true),
        (false, LearnerKind::Observer, false),
        (true, LearnerKind::Follower, false),
    ] {
        let mut led = Led::established(settled(&[1, 2, 3]), &[2]);
        led.learn_as(&[3], kind, of_ringkeepers);
        led.propose(1, None);
        led.propose(2, Some(config(&[1, 2, 3], zxid(2).0)));
        led.acked(2, 2);
        let closed = led
            .other
            .iter()
            .any(|output| matches!(output, Output::Close(LinkId(3), CloseReason::Activation)));
        assert_eq!(closed, is_closed, "{of_ringkeepers} {kind:?}");
        let heard = led.commits().contains(&(3, 2, Some(1)));
        assert_eq!(heard, !is_closed, "{of_ringkeepers} {kind:?}");
        led.join_as(&[3], kind, of_ringkeepers);
        assert_eq!(led.told_version(3), Some(zxid(2).0));
    }
}

/// A learner that has the leader's history, with what it was told of configurations.
fn learner(said: Vec<LeaderPacket>) -> Vec<learner::Output> {
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
    let mut learner = Learner::new(start, NOW, &mut out);
    let text = config::ensemble::text(&config(&[1, 2], 5));
    let greeting = [
        LeaderPacket::leader_info(1, false, false),
        LeaderPacket::Diff { zxid: Zxid::ZERO },
        LeaderPacket::NewLeader { epoch: 1, config: Some(text.as_str().into()) },
    ];
    let mut done = Vec::new();
    for packet in greeting.into_iter().chain(said) {
        learner.received(NOW, packet, &mut out);
        while !out.is_empty() {
            for output in std::mem::take(&mut out) {
                match output {
                    learner::Output::Store(_) => learner.stored(&mut out),
                    other => done.push(other),
                }
            }
        }
    }
    done.retain(|output| {
        matches!(output, learner::Output::Config(_) | learner::Output::Activate { .. })
    });
    done
}

#[test]
fn a_learner_hears_when_a_configuration_is_in_force() {
    let proposal =
        |counter| LeaderPacket::Proposal { zxid: zxid(counter), txn: Bytes::from_static(b"t") };
    let activate = |counter, designated: Option<i64>| learner::Output::Activate {
        upto: zxid(counter),
        designated: designated.map(ServerId),
    };
    let designated_leader = ServerId(3);
    let commit = LeaderPacket::CommitAndActivate { zxid: zxid(1), designated_leader };
    // With UPTODATE: what the leader has told, but nothing that is only proposed.
    let heard = learner(vec![proposal(1), LeaderPacket::UpToDate]);
    assert!(
        matches!(&heard[..], [learner::Output::Config(_), second] if *second == activate(0, None))
    );
    let heard =
        learner(vec![proposal(1), LeaderPacket::Commit { zxid: zxid(1) }, LeaderPacket::UpToDate]);
    assert_eq!(heard[1..], [activate(1, None)]);
    // With its commit, before UPTODATE and behind it.
    let heard = learner(vec![proposal(1), commit.clone(), LeaderPacket::UpToDate]);
    assert_eq!(heard[1..], [activate(1, Some(3)), activate(1, None)]);
    let heard = learner(vec![LeaderPacket::UpToDate, proposal(1), commit.clone()]);
    assert_eq!(heard[1..], [activate(0, None), activate(1, Some(3))]);
    // Of what was not proposed here nothing is known.
    assert_eq!(learner(vec![LeaderPacket::UpToDate, commit])[1..], [activate(0, None)]);
}

#[test]
fn a_designated_leader_is_followed_without_an_election() {
    let configs = EnsembleConfigs::settled(config(&[1, 2, -3], 7));
    for (me, state) in [
        (1, ServerState::Leading),
        (2, ServerState::Following),
        (3, ServerState::Observing),
        (4, ServerState::Following),
    ] {
        let mut election = Election::new(ServerId(me), configs.clone(), true);
        election.appoint(ServerId(1), zxid(5));
        let Some(ElectionOutput::Decided(decision)) = election.poll_output() else { panic!() };
        assert_eq!((decision.state, decision.round), (state, -1));
        assert_eq!((decision.vote.leader, decision.vote.peer_epoch), (ServerId(1), -1));
        election.on_established(2);
        assert_eq!(election.poll_output(), None);
    }
}
