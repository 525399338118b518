//! A member whose own disk does not keep up with what others commit: what it stops reading or
//! hearing, when it goes on, and what is a sign of the leader's life meanwhile. And how often it
//! comes to a leader that it cannot follow.

use std::collections::VecDeque;

use bytes::{Bytes, BytesMut};

use super::{Context, Effect, Ensemble, Role};
use crate::base::{Duration, FileOp, FileOpId, FileOps, Instant, WallMs};
use crate::config;
use crate::model::{LocalSessions, ServerId, SessionId, TxnBody, TxnHeader, Xid, Zxid};
use crate::server::contract::{Clock, DialId, PeerInput, PeerLink, PeerOutput};
use crate::server::epochs::Epochs;
use crate::server::pipeline::Pipeline;
use crate::server::pipeline::member_tests::options_of_member;
use crate::server::tests::nothing_on_disk;
use crate::wire::quorum::{ForwardedRequest, LeaderPacket};
use crate::wire::{self, opcode};
use crate::zab::leader::LinkId;

/// Bytes that may wait for the disk.
const LIMIT: usize = 10_000;
/// Length of a short record, and what a record has around its txn.
const SHORT: usize = 100;
const FRAME_BYTES: usize = 20;
const LINK: PeerLink = PeerLink(9);

/// A member that follows, with a disk that does something only when it is told to.
struct Following {
    ensemble: Ensemble,
    pipeline: Pipeline,
    ops: FileOps,
    now: Instant,
    disk: VecDeque<(FileOpId, FileOp)>,
    /// What it asked of the connection to its leader: whether to read.
    reads: Vec<bool>,
    sent: u32,
    dial: Option<DialId>,
}

impl Following {
    fn new() -> Self {
        let mut options = options_of_member(LocalSessions::Off);
        options.inflight_bytes_max = LIMIT;
        let member = options.ensemble.clone().expect("it is one");
        let (now, mut ops) = (Instant::default(), FileOps::default());
        let clock = Clock { now, wall: WallMs(0) };
        let pipeline = Pipeline::new(options, nothing_on_disk(), 1, clock, &mut ops);
        let ensemble = Ensemble::new(member, Epochs::default(), None, usize::MAX);
        let (disk, reads) = (VecDeque::new(), Vec::new());
        let mut following = Self { ensemble, pipeline, ops, now, disk, reads, sent: 0, dial: None };
        following.learns(Duration::default());
        following.is_led_in(1);
        following
    }

    /// Another server is elected, and is dialled after this time.
    fn learns(&mut self, after: Duration) {
        self.dial = None;
        self.step(|ensemble, cx| ensemble.learn(cx, ServerId(2), false));
        if after != Duration::default() {
            self.now = Instant(self.now.0 + after.0 - 1);
            self.step(Ensemble::on_timer);
            assert_eq!(self.dial, None);
            self.now = Instant(self.now.0 + 1);
            self.step(Ensemble::on_timer);
        }
        let dial = self.dial.expect("it dials its leader");
        self.step(|ensemble, cx| ensemble.on_peer(cx, PeerInput::Dialled { dial, link: LINK }));
        self.write_all();
    }

    /// The leader that it has dialled is established in this epoch, and has nothing to send.
    fn is_led_in(&mut self, epoch: i32) {
        self.hears(&LeaderPacket::leader_info(epoch, true, false));
        self.write_all();
        self.hears(&LeaderPacket::Diff { zxid: Zxid::ZERO });
        self.hears(&LeaderPacket::NewLeader { epoch, config: None });
        self.write_all();
        self.hears(&LeaderPacket::UpToDate);
        self.hears(&LeaderPacket::Ping { zxid: Zxid::ZERO });
    }

    /// One input, and what follows from it by the end of the turn.
    fn step(&mut self, input: impl FnOnce(&mut Ensemble, &mut Context<'_>)) {
        let clock = Clock { now: self.now, wall: WallMs(0) };
        let (pipeline, ops) = (&mut self.pipeline, &mut self.ops);
        let mut cx = Context { clock, pipeline, ops };
        input(&mut self.ensemble, &mut cx);
        self.ensemble.go_on(&mut cx);
        self.pipeline.turn_end(clock, &mut self.ops);
        self.disk.extend(self.ops.take());
        for output in self.ensemble.take_outputs() {
            match output {
                PeerOutput::Dial { dial, .. } => self.dial = Some(dial),
                PeerOutput::PauseReading { link: LINK } => self.reads.push(false),
                PeerOutput::ResumeReading { link: LINK } => self.reads.push(true),
                _ => {}
            }
        }
    }

    fn hears(&mut self, packet: &LeaderPacket) {
        let mut bytes = BytesMut::new();
        packet.encode(&mut bytes);
        let input = PeerInput::Received { link: LINK, bytes: bytes.freeze() };
        self.step(|ensemble, cx| ensemble.on_peer(cx, input));
    }

    /// A txn whose record has so many bytes.
    fn proposed(&mut self, len: usize) {
        self.sent += 1;
        let zxid = Zxid::new(1, self.sent);
        let header = TxnHeader { session: SessionId(1), cxid: Xid(1), zxid, time_ms: 0 };
        let encoded = |data: usize| {
            let (path, data) = ("/p".into(), Some(Bytes::from(vec![0; data])));
            let mut txn = BytesMut::new();
            wire::txn::encode(
                &header,
                &TxnBody::SetData { path, data, version: 1 },
                None,
                &mut txn,
            );
            txn.freeze()
        };
        let txn = encoded(len - FRAME_BYTES - encoded(0).len());
        assert_eq!(FRAME_BYTES + txn.len(), len);
        self.hears(&LeaderPacket::Proposal { zxid, txn });
    }

    /// The disk does the next thing that it was asked.
    fn write(&mut self) {
        let (id, _) = self.disk.pop_front().expect("something was asked");
        self.step(|ensemble, cx| {
            if ensemble.on_file_done(cx, id, &Ok(())).is_none() {
                let now = cx.clock.now;
                cx.pipeline.on_file_done(now, id, Ok(()), cx.ops).expect("nothing failed");
            }
        });
    }

    fn write_all(&mut self) {
        while !self.disk.is_empty() {
            self.write();
        }
    }
}

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
    following.ensemble.serve(following.now, false);
    following.learns(Duration::default());
}

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
