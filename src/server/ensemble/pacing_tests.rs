//! A member whose own disk does not keep up with what others commit: what it stops reading or
//! hearing, when it goes on, and what is a sign of the leader's life meanwhile. And how often it
//! comes to a leader that it cannot follow.

use bytes::Bytes;

use super::Role;
use super::testing::{Following, LIMIT, SHORT};
use crate::base::{Duration, FileOps, Instant, WallMs};
use crate::model::{LocalSessions, SessionId, Xid, Zxid};
use crate::server::contract::Clock;
use crate::server::pipeline::Pipeline;
use crate::server::pipeline::member_tests::options_of_member;
use crate::server::tests::nothing_on_disk;
use crate::wire::opcode;
use crate::wire::quorum::{ForwardedRequest, LeaderPacket};
use crate::zab::leader::LinkId;

/// What is told to the disk while nothing is under way is written by itself, the rest together: so
/// the first record is durable first, and the others at once behind it.
#[test]
fn a_learner_reads_no_more_at_the_limit_and_again_when_half_is_durable() {
    for (what, first, second, reads, reads_behind_the_first) in [
        ("below the limit it reads on", LIMIT / 2, LIMIT / 2 - 1, &[][..], &[][..]),
        ("at the limit it stops", LIMIT / 2 - 1, LIMIT / 2 + 1, &[false], &[false]),
        ("with half of it durable it goes on", LIMIT / 2, LIMIT / 2, &[false], &[false, true]),
        ("one that is longer than the limit stops it, too", SHORT, 2 * LIMIT, &[false], &[false]),
    ] {
        let mut following = Following::new();
        following.proposed(first);
        following.proposed(second);
        // It is what comes next that is not read.
        following.hears(&LeaderPacket::Ping { zxid: Zxid::ZERO });
        assert_eq!(following.reads, reads, "{what}");
        following.write();
        assert_eq!(following.reads, reads_behind_the_first, "{what}");
        following.write_all();
        assert!(following.reads.last().is_none_or(|reads| *reads), "{what}");
    }
}

/// What had come before it stopped is taken in order once it goes on.
#[test]
fn nothing_is_lost_of_what_came_while_it_did_not_read() {
    let mut following = Following::new();
    for _ in 0..4 {
        following.proposed(LIMIT);
    }
    assert_eq!(following.pipeline.last_logged(), Zxid::new(1, 1));
    for logged in 2..=4 {
        following.write();
        assert_eq!(following.pipeline.last_logged(), Zxid::new(1, logged));
    }
    following.write_all();
    assert_eq!(following.pipeline.flushed(), Zxid::new(1, 4));
}

/// The leader's pings are among what is not read: each flush counts for one, and nothing else.
#[test]
fn a_learner_that_does_not_read_lives_by_its_flushes() {
    let mut following = Following::new();
    following.proposed(SHORT);
    following.proposed(LIMIT);
    following.hears(&LeaderPacket::Ping { zxid: Zxid::ZERO });
    let patience = Duration::from_millis(300);
    following.now = following.now + patience;
    following.step(|ensemble, cx| ensemble.on_timer(cx));
    following.write();
    assert_eq!(following.reads, [false], "the second is not durable");
    following.now = following.now + patience;
    following.step(|ensemble, cx| ensemble.on_timer(cx));
    assert!(matches!(following.ensemble.role, Role::Learning(_)));
    following.now = following.now + Duration(1);
    following.step(|ensemble, cx| ensemble.on_timer(cx));
    assert!(!matches!(following.ensemble.role, Role::Learning(_)), "its disk does nothing");
}

/// Others commit what a leader's own disk does not take, so that nothing is in flight; it takes no
/// requests all the same.
#[test]
fn a_leader_takes_no_requests_while_its_disk_lags() {
    let mut options = options_of_member(LocalSessions::Off);
    options.inflight_bytes_max = LIMIT;
    let (now, mut ops) = (Instant::default(), FileOps::default());
    let clock = Clock { now, wall: WallMs(0) };
    let mut pipeline = Pipeline::new(options, nothing_on_disk(), 1, clock, &mut ops);
    let run = |pipeline: &mut Pipeline, ops: &mut FileOps| {
        pipeline.turn_end(clock, ops);
        let asked = ops.take();
        for (id, _) in &asked {
            pipeline.on_file_done(now, *id, Ok(()), ops).expect("nothing failed");
        }
        !asked.is_empty()
    };
    while run(&mut pipeline, &mut ops) {}
    pipeline.lead(1, now);
    while !pipeline.is_full() {
        let request = ForwardedRequest {
            session: SessionId(1),
            cxid: Xid(1),
            opcode: opcode::CREATE_SESSION,
            body: Bytes::from_static(&[0, 0, 0, 9]),
            authinfo: None,
        };
        pipeline.submit_forwarded(clock, LinkId(7), request);
        assert!(pipeline.outstanding() < LIMIT, "a txn has more than a byte");
    }
    pipeline.commit_to(pipeline.last_logged());
    while pipeline.next_commit().is_some() {
        assert!(pipeline.apply_next(now, &mut usize::MAX.clone()).is_ok());
    }
    assert!(pipeline.outstanding() == 0 && pipeline.is_full());
    while run(&mut pipeline, &mut ops) {}
    assert!(!pipeline.is_full());
}

/// Its election ends at once, again and again, with the leader that the others follow.
#[test]
fn a_leader_of_an_epoch_before_the_promised_one_is_dialled_ever_more_rarely() {
    let mut following = Following::new();
    for waits_ms in [0, 1, 2, 4, 8, 16, 32, 64, 100, 100] {
        following.learns(Duration::from_millis(waits_ms));
        following.hears(&LeaderPacket::leader_info(0, true, true));
        assert!(!matches!(following.ensemble.role, Role::Learning(_)), "{waits_ms}");
    }
    following.learns(Duration::from_millis(100));
    following.is_led_in(2);
    following.learns(Duration::default());
}

/// It is a leader for a while, and then the failover to another must not wait.
#[test]
fn who_has_led_dials_the_next_leader_at_once() {
    let mut following = Following::new();
    following.learns(Duration::default());
    following.hears(&LeaderPacket::leader_info(0, true, true));
    following.ensemble.serve(following.now, 1, false);
    following.learns(Duration::default());
}
