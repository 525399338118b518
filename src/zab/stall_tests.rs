//! A server that was itself stalled does not take others' silence for their death.

use super::Timing;
use super::leader::{self, CloseReason, Leader, LearnerKind, LinkId};
use super::learner::{self, Learner};
use super::paxos::Epochs;
use crate::base::{Duration, Instant};
use crate::config;
use crate::model::{EnsembleConfigs, ServerId, Zxid};

const PATIENCE: Duration = Duration::from_millis(300);
const TIMING: Timing = Timing {
    establish_within: PATIENCE,
    joined_within: PATIENCE,
    sync_within: PATIENCE,
    silence_max: PATIENCE,
    ping_every: Duration::from_millis(50),
};
/// Behind a stall of twice the patience.
const LATER: Instant = Instant(2 * PATIENCE.0);

#[test]
fn a_leader_that_was_stalled_goes_on_hearing_its_learners() {
    let closed = |stalled: Duration| {
        let text = "server.1=h1:1:2\nserver.2=h2:1:2\nversion=0";
        let config = config::ensemble::parse(text, "f").unwrap();
        let start = leader::Start {
            me: ServerId(1),
            configs: EnsembleConfigs { committed: config.clone(), last_seen: config },
            adopts_configs: false,
            timing: Timing { establish_within: Duration(10 * PATIENCE.0), ..TIMING },
            epochs: Epochs::default(),
            last_zxid: Zxid::ZERO,
            news_bytes_max: usize::MAX,
        };
        let mut out = Vec::new();
        let mut leader = Leader::new(start, Instant(0), &mut out);
        leader.opened(LinkId(1), Instant(0));
        out.clear();
        leader.credit(stalled);
        leader.timer(Instant(11 * PATIENCE.0), &mut out);
        let is_close = |it: &leader::Output| {
            matches!(it, leader::Output::Close(LinkId(1), CloseReason::Silent))
        };
        out.iter().any(is_close)
    };
    assert!(closed(Duration(0)));
    assert!(!closed(Duration(2 * PATIENCE.0)));
}

#[test]
fn a_learner_that_was_stalled_goes_on_hearing_its_leader() {
    let gives_up = |stalled: Duration| {
        let start = learner::Start {
            me: ServerId(2),
            kind: LearnerKind::Follower,
            config_version: 0,
            timing: TIMING,
            epochs: Epochs::default(),
            last_zxid: Some(Zxid::ZERO),
        };
        let mut out = Vec::new();
        let mut learner = Learner::new(start, Instant(0), &mut out);
        out.clear();
        learner.credit(stalled);
        learner.timer(LATER, &mut out);
        !out.is_empty()
    };
    assert!(gives_up(Duration(0)));
    assert!(!gives_up(Duration(2 * PATIENCE.0)));
}
