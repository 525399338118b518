//! What a member of an ensemble may do with sessions, by itself.

use super::member::Duty;
use super::*;
use crate::base::Duration;
use crate::config::reconfig::ReconfigRules;
use crate::model::{ClientAddress, EnsembleConfig, EnsembleConfigs, ServerId};
use crate::server::EnsembleOptions;
use crate::server::tests::{nothing_on_disk, options};
use crate::wire::quorum::Touch;
use crate::wire::vote::ElectionAddress;
use crate::zab::leader::LinkId;

const SESSION: SessionId = SessionId(0x0200_0000_0000_0001);
const LINK: LinkId = LinkId(7);

fn clock(ms: u64) -> Clock {
    Clock { now: Instant::default() + Duration::from_millis(ms), wall: WallMs(1_000_000) }
}

/// A member that was restarted with one session of 4 seconds.
fn member() -> Pipeline {
    let ensemble = EnsembleOptions {
        me: ServerId(1),
        configs: EnsembleConfigs::settled(EnsembleConfig::default()),
        election_address: ElectionAddress { host: "here".to_owned(), port: 1 },
        tick: Duration::from_millis(100),
        init_limit: 10,
        sync_limit: 5,
        ping_every: Duration::from_millis(50),
        detect: Duration::from_millis(300),
        connect_within: Duration::from_millis(1_000),
        adopts_configs: false,
        trusts_empty: true,
        rules: ReconfigRules { standalone_enabled: true, multi_address: false },
        client: ClientAddress { host: "here".to_owned(), port: 3 },
    };
    let options = ServerOptions { ensemble: Some(ensemble), ..options() };
    let mut recovered = nothing_on_disk();
    recovered.sessions.push((SESSION, 4_000));
    Pipeline::new(options, recovered, 1, clock(0), &mut FileOps::default())
}

#[test]
fn only_a_leader_ends_sessions() {
    for duty in [Duty::Idle, Duty::Following, Duty::Leading] {
        let mut pipeline = member();
        match duty {
            Duty::Leading => pipeline.lead(1, clock(0).now),
            Duty::Following => pipeline.follow(),
            Duty::Idle | Duty::Alone => {}
        }
        // A shard's late answer to a question of an earlier leadership.
        pipeline.expire(clock(10_000), SESSION, None);
        assert_eq!(pipeline.outstanding(), usize::from(duty == Duty::Leading), "{duty:?}");
    }
}

#[test]
fn the_timeout_that_another_server_granted_counts() {
    let touch = |timeout_ms| Touch { session: SESSION, timeout_ms };
    let mut pipeline = member();
    pipeline.lead(1, clock(0).now);
    assert!(pipeline.revalidate(LINK, touch(20_000), clock(1_000).now).0, "it lives");
    // The learner has told since that it heard of no session.
    pipeline.touched(LINK, &[], clock(19_000).now);
    assert_eq!(pipeline.overdue(clock(19_000).now), Vec::new());
    pipeline.touched(LINK, &[touch(8_000)], clock(19_500).now);
    pipeline.touched(LINK, &[], clock(26_000).now);
    assert_eq!(pipeline.overdue(clock(26_000).now), Vec::new());
    pipeline.touched(LINK, &[], clock(29_000).now);
    assert_eq!(pipeline.overdue(clock(29_000).now), vec![(SESSION, None)]);
}

#[test]
fn a_session_at_a_learner_ends_only_after_its_report() {
    let mut pipeline = member();
    pipeline.lead(1, clock(0).now);
    let touch = Touch { session: SESSION, timeout_ms: 4_000 };
    assert!(pipeline.revalidate(LINK, touch, clock(0).now).0, "it lives");
    pipeline.touched(LINK, &[], clock(3_900).now);
    assert_eq!(pipeline.overdue(clock(60_000).now), Vec::new(), "it has not been heard of since");
    pipeline.touched(LINK, &[], clock(4_300).now);
    assert_eq!(pipeline.overdue(clock(4_300).now), vec![(SESSION, None)]);
    pipeline.touched(LINK, &[touch], clock(4_400).now);
    assert_eq!(pipeline.overdue(clock(4_400).now), Vec::new(), "it was heard of after all");
    pipeline.link_gone(LINK);
    assert_eq!(pipeline.overdue(clock(9_000).now), vec![(SESSION, None)]);
}
