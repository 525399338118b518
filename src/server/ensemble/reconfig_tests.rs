//! Which configuration a member takes to be in force, and what it forgets of one that is not.

use super::testing::{Following, SHORT};
use super::{Effect, Ensemble};
use crate::base::{Duration, WallMs};
use crate::config;
use crate::model::{EnsembleConfigs, ErrorCode, LocalSessions, ReconfigRequest, Zxid};
use crate::server::contract::Clock;
use crate::server::pipeline::Pipeline;
use crate::server::pipeline::member_tests::options_of_member;
use crate::server::tests::nothing_on_disk;
use crate::wire::quorum::LeaderPacket;

/// A history can hold one configuration that came into force there, and be followed by the proposal
/// of the next before it is shown to clients.
#[test]
fn the_configuration_of_the_history_is_in_force_beside_a_proposed_one() {
    let mut following = Following::new();
    let text = |version| format!("server.1=h:1:2\nserver.2=g:1:2\nversion={version:x}");
    let of_history = Zxid::new(1, 1).0;
    following.ensemble.options.adopts_configs = true;
    following.learns(Duration::default());
    following.hears(&LeaderPacket::leader_info(2, true, false));
    following.write_all();
    following.hears(&LeaderPacket::Diff { zxid: Zxid::ZERO });
    let config = Some(text(of_history).as_str().into());
    following.hears(&LeaderPacket::NewLeader { epoch: 2, config });
    following.write_all();
    let next = config::ensemble::parse(&text(Zxid::new(2, 1).0), "list").unwrap();
    following.step(|ensemble, cx| ensemble.see_config(next.clone(), cx.ops));
    following.write_all();
    following.hears(&LeaderPacket::UpToDate);
    let configs = following.ensemble.configs();
    assert_eq!((configs.committed.version, configs.pending()), (of_history, Some(&next)));
}

#[test]
fn an_operators_list_holds_whatever_the_history_has() {
    let mut following = Following::new();
    let text = |version: i64| format!("server.1=h:1:2\nserver.2=g:1:2\nversion={version:x}");
    following.ensemble.options.adopts_configs = true;
    let of_history = text(Zxid::new(1, 1).0);
    following.step(|ensemble, cx| {
        ensemble.learn_from_tree(Some(of_history.as_bytes()), cx.ops);
    });
    following.learns(Duration::default());
    following.hears(&LeaderPacket::leader_info(2, true, false));
    following.write_all();
    following.hears(&LeaderPacket::Diff { zxid: Zxid::ZERO });
    let config = Some(text(0).as_str().into());
    following.hears(&LeaderPacket::NewLeader { epoch: 2, config });
    following.write_all();
    following.hears(&LeaderPacket::UpToDate);
    assert_eq!(following.ensemble.configs().committed.version, 0);
}

/// What the leader has cut off is forgotten on disk as well before anything stands in its place: it
/// would count again where the log has become longer.
#[test]
fn a_configuration_that_is_cut_off_is_forgotten_before_the_log_goes_on() {
    let mut following = Following::new();
    following.proposed(SHORT);
    let text = "server.1=h:1:2\nversion=100000001";
    let config = config::ensemble::parse(text, "list").unwrap();
    following.step(|ensemble, cx| ensemble.see_config(config, cx.ops));
    following.write_all();
    following.step(Ensemble::end_role);
    assert!(following.ensemble.configs().pending().is_some(), "its txn is in the log");
    following.learns(Duration::default());
    following.hears(&LeaderPacket::leader_info(2, true, false));
    following.write_all();
    following.hears(&LeaderPacket::Trunc { zxid: Zxid::ZERO });
    let effects = std::iter::from_fn(|| following.ensemble.next_effect());
    assert!(effects.into_iter().any(|effect| matches!(effect, Effect::Recover { .. })));
    let options = options_of_member(LocalSessions::Off);
    let clock = Clock { now: following.now, wall: WallMs(0) };
    following.pipeline = Pipeline::new(options, nothing_on_disk(), 1, clock, &mut following.ops);
    following.step(|ensemble, cx| {
        ensemble.learn_from_tree(None, cx.ops);
        ensemble.on_recovered(cx, None, None);
    });
    assert_eq!(following.ensemble.configs().pending(), None);
    following.sent = 0;
    following.proposed(SHORT);
    assert_eq!(following.pipeline.last_logged(), Zxid::ZERO);
    following.write_all();
    assert_eq!(following.pipeline.last_logged(), Zxid::new(1, 1));
}

/// Servers read a configuration back as text, from the log and from their files.
#[test]
fn what_its_text_does_not_say_is_no_configuration() {
    let mut following = Following::new();
    let lines = "server.1=h:1:2;3\nserver.2=g:1:2;3\nserver.3=i:1:2;3\nversion=0";
    let config = config::ensemble::parse(lines, "list").unwrap();
    following.ensemble.configs = EnsembleConfigs::settled(config);
    let judged = |joining: &str| {
        let request = ReconfigRequest {
            joining: Some(joining.into()),
            leaving: None,
            new_members: None,
            from_config: -1,
        };
        following.ensemble.judge(&request, Zxid::new(1, 1))
    };
    let refused = Err(ErrorCode::NEW_CONFIG_NO_QUORUM);
    assert_eq!(judged("server.4=a:1:2;h:3"), refused, "it is one, and nobody is synchronized");
    for name in ["a\nb", "a\r", "a\\nb", "a:1:2;h:3\nserver.5=b"] {
        let refused = judged(&format!("server.4={name}:1:2;h:3"));
        assert_eq!(refused, Err(ErrorCode::BAD_ARGUMENTS), "{name:?}");
    }
}
