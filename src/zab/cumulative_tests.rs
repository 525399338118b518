//! Between two Ringkeepers one ACK and one COMMIT stand for all txns before them; Apache's servers
//! are told of each.

use bytes::Bytes;

use super::Timing;
use super::leader::{self, Leader, LearnerKind, LinkId};
use super::learner::{self, Learner};
use super::paxos::Epochs;
use super::synchronization::{SyncPlan, SyncWay};
use crate::base::{Duration, Instant};
use crate::config;
use crate::model::{EnsembleConfigs, ServerId, Zxid};
use crate::wire::quorum::{LeaderPacket, LearnerInfo, LearnerPacket, PROTOCOL_VERSION};

const NOW: Instant = Instant(0);
const TIMING: Timing = Timing {
    establish_within: Duration(1_000),
    joined_within: Duration(1_000),
    sync_within: Duration(1_000),
    silence_max: Duration(1_000),
    ping_every: Duration(100),
};

fn zxid(counter: u32) -> Zxid {
    Zxid::new(1, counter)
}

/// The zxids that a leader commits to its one follower, three txns being acknowledged by one ACK.
fn told_commits(is_ringkeeper: bool) -> Vec<Zxid> {
    let config = config::ensemble::parse("server.1=a:1:2\nserver.2=b:1:2\nversion=0", "f").unwrap();
    let start = leader::Start {
        me: ServerId(1),
        configs: EnsembleConfigs::settled(config),
        adopts_configs: false,
        timing: TIMING,
        epochs: Epochs::default(),
        last_zxid: Zxid::ZERO,
        news_bytes_max: usize::MAX,
    };
    let link = LinkId(2);
    let mut told = Vec::new();
    let mut out = Vec::new();
    let mut leader = Leader::new(start, NOW, &mut out);
    leader.opened(link, NOW);
    let info = Some(LearnerInfo {
        sid: ServerId(2),
        protocol_version: PROTOCOL_VERSION,
        config_version: Some(0),
        is_ringkeeper,
    });
    let mut inputs = vec![
        LearnerPacket::Ack { zxid: zxid(3) },
        LearnerPacket::Ack { zxid: zxid(0) },
        LearnerPacket::AckEpoch { last_zxid: Zxid::ZERO, current_epoch: 0 },
        LearnerPacket::FollowerInfo { accepted_epoch: 0, info },
    ];
    loop {
        for output in std::mem::take(&mut out) {
            match output {
                leader::Output::Send(_, LeaderPacket::Commit { zxid }) => told.push(zxid),
                leader::Output::Store(_) => leader.stored(&mut out),
                leader::Output::Choose { link, last, .. } => {
                    let plan = SyncPlan { way: SyncWay::Diff, after: last };
                    leader.synchronize(link, plan, &mut out);
                }
                leader::Output::ReadHistory { link, .. } => {
                    leader.history(link, Vec::new(), &mut out);
                }
                _ => {}
            }
        }
        if !out.is_empty() {
            continue;
        }
        let Some(packet) = inputs.pop() else { return told };
        if inputs.is_empty() {
            for counter in 1..=3 {
                leader.propose(NOW, zxid(counter), &Bytes::new(), &mut out);
            }
            leader.flushed(zxid(3), &mut out);
        }
        leader.received(NOW, link, packet, &mut out);
    }
}

#[test]
fn a_leader_tells_ringkeepers_only_the_last_commit() {
    assert_eq!(told_commits(false), [zxid(1), zxid(2), zxid(3)]);
    assert_eq!(told_commits(true), [zxid(3)]);
}

/// The zxids that a follower acknowledges when three txns have become durable at once.
fn acknowledged(is_ringkeeper: bool) -> Vec<Zxid> {
    let start = learner::Start {
        me: ServerId(2),
        kind: LearnerKind::Follower,
        config_version: 0,
        timing: TIMING,
        epochs: Epochs::default(),
        last_zxid: Some(Zxid::ZERO),
    };
    let mut out = Vec::new();
    let mut learner = Learner::new(start, NOW, &mut out);
    learner.received(NOW, LeaderPacket::leader_info(1, is_ringkeeper), &mut out);
    learner.stored(&mut out);
    for packet in [
        LeaderPacket::Diff { zxid: Zxid::ZERO },
        LeaderPacket::NewLeader { epoch: 1, config: None },
    ] {
        learner.received(NOW, packet, &mut out);
    }
    learner.stored(&mut out);
    learner.received(NOW, LeaderPacket::UpToDate, &mut out);
    out.clear();
    for counter in 1..=3 {
        let proposal = LeaderPacket::Proposal { zxid: zxid(counter), txn: Bytes::new() };
        learner.received(NOW, proposal, &mut out);
    }
    learner.flushed(zxid(3), &mut out);
    let acks = out.into_iter().filter_map(|output| match output {
        learner::Output::Send(LearnerPacket::Ack { zxid }) => Some(zxid),
        _ => None,
    });
    acks.collect()
}

#[test]
fn a_learner_acknowledges_only_the_last_txn_to_a_ringkeeper() {
    assert_eq!(acknowledged(false), [zxid(1), zxid(2), zxid(3)]);
    assert_eq!(acknowledged(true), [zxid(3)]);
}
