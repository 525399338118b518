//! What a member of an ensemble may do with sessions, by itself.

use bytes::{Bytes, BytesMut};

use super::member::Duty;
use super::*;
use crate::auth::Identities;
use crate::base::{Duration, FileDir, FileFailure, FileOp};
use crate::config::reconfig::ReconfigRules;
use crate::model::request::RawAcl;
use crate::model::{
    ClientAddress, ConnId, CreateKind, CreateRequest, EnsembleConfig, EnsembleConfigs, Perms,
    ServerId,
};
use crate::server::tests::{nothing_on_disk, options};
use crate::server::{EnsembleOptions, HistorySlices};
use crate::snapshot::catalog;
use crate::wire::opcode;
use crate::wire::quorum::{ForwardedRequest, LearnerPacket, Touch};
use crate::wire::vote::ElectionAddress;
use crate::zab::leader::{EpochZxids, LinkId};

const SESSION: SessionId = SessionId(0x0200_0000_0000_0001);
const LINK: LinkId = LinkId(7);

fn clock(ms: u64) -> Clock {
    Clock { now: Instant::default() + Duration::from_millis(ms), wall: WallMs(1_000_000) }
}

/// A member that was restarted with one session of 4 seconds.
fn member() -> Pipeline {
    member_with(LocalSessions::Off)
}

fn member_with(local_sessions: LocalSessions) -> Pipeline {
    let options = options_of_member(local_sessions);
    let mut recovered = nothing_on_disk();
    recovered.sessions.push((SESSION, 4_000));
    Pipeline::new(options, recovered, 1, clock(0), &mut FileOps::default())
}

/// A member of an ensemble without anybody else.
pub(in crate::server) fn options_of_member(local_sessions: LocalSessions) -> ServerOptions {
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
        local_sessions,
        read_only_after: None,
        rules: ReconfigRules { standalone_enabled: true, multi_address: false },
        client: ClientAddress { host: "here".to_owned(), port: 3 },
        history: HistorySlices::default(),
        zxids: EpochZxids::default(),
    };
    ServerOptions { ensemble: Some(ensemble), ..options() }
}

#[test]
fn only_a_leader_ends_sessions() {
    for duty in [Duty::Idle, Duty::ReadOnly, Duty::Following, Duty::Leading] {
        let mut pipeline = member();
        match duty {
            Duty::Leading => pipeline.lead(1, clock(0).now),
            Duty::Following => pipeline.follow(),
            Duty::ReadOnly => pipeline.serve_reads(),
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
    pipeline.touched(LINK, clock(19_000).now, &[], clock(19_000).now);
    assert_eq!(pipeline.overdue(clock(19_000).now), Vec::new());
    pipeline.touched(LINK, clock(19_500).now, &[touch(8_000)], clock(19_500).now);
    pipeline.touched(LINK, clock(26_000).now, &[], clock(26_000).now);
    assert_eq!(pipeline.overdue(clock(26_000).now), Vec::new());
    pipeline.touched(LINK, clock(29_000).now, &[], clock(29_000).now);
    assert_eq!(pipeline.overdue(clock(29_000).now), vec![(SESSION, None)]);
}

#[test]
fn a_session_at_a_learner_ends_only_after_its_report() {
    let mut pipeline = member();
    pipeline.lead(1, clock(0).now);
    let touch = Touch { session: SESSION, timeout_ms: 4_000 };
    assert!(pipeline.revalidate(LINK, touch, clock(0).now).0, "it lives");
    pipeline.touched(LINK, clock(3_900).now, &[], clock(3_900).now);
    assert_eq!(pipeline.overdue(clock(60_000).now), Vec::new(), "it has not been heard of since");
    // An answer that was on its way for long.
    pipeline.touched(LINK, clock(3_950).now, &[], clock(4_250).now);
    assert_eq!(pipeline.overdue(clock(60_000).now), Vec::new(), "it tells of the time before");
    pipeline.touched(LINK, clock(4_300).now, &[], clock(4_300).now);
    assert_eq!(pipeline.overdue(clock(4_300).now), vec![(SESSION, None)]);
    pipeline.touched(LINK, clock(4_400).now, &[touch], clock(4_400).now);
    assert_eq!(pipeline.overdue(clock(4_400).now), Vec::new(), "it was heard of after all");
    pipeline.link_gone(LINK);
    assert_eq!(pipeline.overdue(clock(9_000).now), vec![(SESSION, None)]);
}

/// While the next epoch is waited for nothing is prepared, and it changes nothing for clients.
#[test]
fn between_two_epochs_of_one_leader_sessions_stay_and_nothing_is_prepared() {
    let mut pipeline = member_with(LocalSessions::Upgradable);
    pipeline.lead(1, clock(0).now);
    let (local, generation) = arrive(&mut pipeline);
    assert!(!pipeline.await_epoch(false) && !pipeline.is_preparing());
    assert!(pipeline.await_epoch(true) && pipeline.is_preparing() && pipeline.is_busy());
    pipeline.expire(clock(5_000), SESSION, None);
    assert_eq!(pipeline.outstanding(), 0, "it must wait");
    pipeline.lead(2, clock(5_000).now);
    assert!(!pipeline.is_preparing());
    let owner = pipeline.sessions().owner(local).map(|(_, _, generation)| generation);
    assert_eq!(owner, Some(generation), "its connection is the one that it was");
    pipeline.expire(clock(5_000), SESSION, None);
    assert_eq!(pipeline.in_flight.back().map(|it| it.header.zxid), Some(Zxid::new(2, 1)));
    assert!(!pipeline.await_epoch(true), "something is in flight");
    pipeline.idle(clock(5_000).now);
    assert!(!pipeline.is_preparing(), "the role is over");
}

const HERE: Address = Address { shard: ShardId(0), conn: ConnId(1) };

/// A client with a new session.
fn arrive(pipeline: &mut Pipeline) -> (SessionId, Generation) {
    let attach = Attach { to: HERE, session: SessionId(0), password: None, timeout_ms: 4_000 };
    let mut out = Vec::new();
    pipeline.attach(clock(0), &attach, &mut out);
    match out.as_slice() {
        [(_, Notice::Attached { session, generation, timeout_ms: 4_000, .. })] => {
            (*session, *generation)
        }
        other => panic!("a local session begins at once: {other:?}"),
    }
}

fn ask(
    pipeline: &mut Pipeline,
    (session, generation): (SessionId, Generation),
    xid: i32,
    request: WriteRequest,
) -> Option<Notice> {
    let origin = Origin { address: HERE, generation, xid: Xid(xid), number: 0 };
    let opcode = match request {
        WriteRequest::CloseSession => opcode::CLOSE_SESSION,
        _ => opcode::CREATE,
    };
    let request = Ok(request);
    let identities = Identities::default();
    let raw = Some((opcode, bytes::Bytes::new()));
    let submit = Submit { origin, session, identities, request, raw };
    pipeline.submit(clock(0), submit).map(|(_, notice)| notice)
}

fn create(flags: i32) -> WriteRequest {
    WriteRequest::Create(CreateRequest {
        kind: CreateKind::Create,
        path: "/e".into(),
        data: None,
        acl: None,
        flags,
    })
}

fn to_leader(pipeline: &mut Pipeline) -> Vec<i32> {
    let opcode = |packet| match packet {
        LearnerPacket::Request(ForwardedRequest { opcode, .. }) => opcode,
        other => panic!("{other:?}"),
    };
    pipeline.take_to_leader().into_iter().map(opcode).collect()
}

#[test]
fn a_learner_tells_nobody_of_a_local_session_until_it_wants_an_ephemeral() {
    let mut pipeline = member_with(LocalSessions::Upgradable);
    pipeline.follow();
    let client = arrive(&mut pipeline);
    assert_eq!(ask(&mut pipeline, client, 1, create(0)).map(drop), None);
    assert_eq!(to_leader(&mut pipeline), [opcode::CREATE], "writes are passed on");
    pipeline.touch(client.0, clock(10).now);
    assert!(pipeline.take_touches().is_empty() && pipeline.sessions().is_local(client.0));

    let multi = WriteRequest::Multi(vec![create(0), create(3)]);
    ask(&mut pipeline, client, 2, multi);
    assert_eq!(to_leader(&mut pipeline), [opcode::CREATE_SESSION, opcode::CREATE]);
    ask(&mut pipeline, client, 3, create(1));
    assert_eq!(to_leader(&mut pipeline), [opcode::CREATE], "once");
    pipeline.touch(client.0, clock(20).now);
    assert_eq!(pipeline.take_touches(), [Touch { session: client.0, timeout_ms: 4_000 }]);
    ask(&mut pipeline, client, 4, WriteRequest::CloseSession);
    assert_eq!(to_leader(&mut pipeline), [opcode::CLOSE_SESSION], "it is global");
}

#[test]
fn a_local_session_ends_where_it_began() {
    for duty in [Duty::Following, Duty::Leading] {
        let mut pipeline = member_with(LocalSessions::WithoutEphemerals);
        match duty {
            Duty::Leading => pipeline.lead(1, clock(0).now),
            _ => pipeline.follow(),
        }
        let client = arrive(&mut pipeline);
        let closed = ask(&mut pipeline, client, 1, WriteRequest::CloseSession);
        assert!(matches!(closed, Some(Notice::Answered(_, ErrorCode::OK))), "{closed:?}");
        assert!(!pipeline.sessions().is_live(client.0));

        let (session, _) = arrive(&mut pipeline);
        assert_eq!(pipeline.overdue(clock(3_900).now), Vec::new());
        assert!(pipeline.overdue(clock(4_100).now).contains(&(session, Some(HERE.shard))));
        assert!(pipeline.expire(clock(4_100), session, Some(clock(200).now)).is_none());
        let ended = pipeline.expire(clock(4_200), session, Some(clock(200).now));
        assert!(matches!(ended, Some((_, Notice::Drop { .. }))), "{duty:?}: {ended:?}");
        assert!(!pipeline.sessions().is_live(session));
        assert_eq!((pipeline.outstanding(), pipeline.take_to_leader()), (0, Vec::new()));

        let (session, _) = arrive(&mut pipeline);
        pipeline.idle(clock(5_000).now);
        assert!(!pipeline.sessions().is_live(session), "{duty:?}: it ends with the role");
    }
}

#[test]
fn without_upgrading_a_local_session_owns_no_ephemeral() {
    let refused = |pipeline: &Pipeline| {
        let last = pipeline.in_flight.back().expect("it is a txn");
        let TxnBody::Error(code) = last.body else { panic!("{:?}", last.body) };
        (code, last.refusal)
    };
    let local = ErrorCode::EPHEMERAL_ON_LOCAL_SESSION;
    let mut leader = member_with(LocalSessions::WithoutEphemerals);
    leader.lead(1, clock(0).now);
    let client = arrive(&mut leader);
    ask(&mut leader, client, 1, create(1));
    assert_eq!(refused(&leader), (local, None));

    let mut learner = member_with(LocalSessions::WithoutEphemerals);
    learner.follow();
    let client = arrive(&mut learner);
    ask(&mut learner, client, 1, create(1));
    let header = TxnHeader { session: client.0, cxid: Xid(1), zxid: Zxid::new(1, 1), time_ms: 0 };
    let mut txn = BytesMut::new();
    wire::txn::encode(&header, &TxnBody::Error(ErrorCode::SESSION_EXPIRED), None, &mut txn);
    learner.append(header.zxid, &txn.freeze()).expect("it decodes");
    assert_eq!(refused(&learner), (ErrorCode::SESSION_EXPIRED, Some(local)));
}

#[test]
fn a_leader_hears_of_other_servers_local_sessions_but_they_own_nothing_there() {
    let mut pipeline = member_with(LocalSessions::Upgradable);
    pipeline.lead(1, clock(0).now);
    let (own, _) = arrive(&mut pipeline);
    let forwarded = |pipeline: &mut Pipeline, session, opcode, flags: Option<i32>| {
        let mut body = BytesMut::new();
        if let Some(flags) = flags {
            let open = crate::model::request::RawAcl {
                perms: crate::model::Perms::ALL,
                scheme: Some("world".into()),
                id: Some("anyone".into()),
            };
            let WriteRequest::Create(mut made) = create(flags) else { panic!("it is one") };
            made.acl = Some(vec![open]);
            let mut frame = BytesMut::new();
            let request = crate::model::Request::Write(WriteRequest::Create(made));
            wire::client::encode_request(Xid(1), &request, &mut frame);
            body.extend_from_slice(frame.get(12..).expect("length, xid and opcode"));
        }
        let body = body.freeze();
        let request = ForwardedRequest { session, cxid: Xid(1), opcode, body, authinfo: None };
        pipeline.submit_forwarded(clock(0), LINK, request);
        match &pipeline.in_flight.back().expect("it is a txn").body {
            TxnBody::Error(code) => Err(*code),
            _ => Ok(()),
        }
    };
    let mut ask = |session, opcode, flags| forwarded(&mut pipeline, session, opcode, flags);
    let (theirs, expired) = (SessionId(0x0300_0000_0000_0009), Err(ErrorCode::SESSION_EXPIRED));
    assert_eq!(ask(theirs, opcode::CREATE, Some(1)), expired);
    assert_eq!(ask(theirs, opcode::CREATE, Some(0)), Ok(()));
    assert_eq!(ask(theirs, opcode::CLOSE_SESSION, None), expired);
    assert_eq!(ask(own, opcode::CREATE, Some(2)), expired, "it lives here only");
    assert_eq!(ask(SESSION, opcode::CLOSE_SESSION, None), Ok(()));
    assert_eq!(ask(SESSION, opcode::CREATE, Some(2)), expired);
    let ours = Touch { session: own, timeout_ms: 4_000 };
    assert!(!pipeline.revalidate(LINK, ours, clock(0).now).0, "it does not move");
    pipeline.ended.note(theirs);
    assert!(!pipeline.may_be_local_elsewhere(theirs), "it was global and has ended");
}

/// A learner passes on a session's creation, its end and a late request of its before the creation
/// is committed.
#[test]
fn a_session_that_ends_before_it_is_open_accepts_nothing() {
    for local_sessions in [LocalSessions::Off, LocalSessions::Upgradable] {
        let mut pipeline = member_with(local_sessions);
        pipeline.lead(1, clock(0).now);
        let session = SessionId(0x0300_0000_0000_0009);
        let mut ask = |opcode, body: &[u8]| {
            let body = Bytes::copy_from_slice(body);
            let request = ForwardedRequest { session, cxid: Xid(1), opcode, body, authinfo: None };
            pipeline.submit_forwarded(clock(0), LINK, request);
            pipeline.in_flight.back().expect("it is a txn").body.clone()
        };
        let made = ask(opcode::CREATE_SESSION, &4_000_i32.to_be_bytes());
        assert!(matches!(made, TxnBody::CreateSession { .. }));
        assert!(matches!(ask(opcode::CLOSE_SESSION, &[]), TxnBody::CloseSession { .. }));
        for opcode in [opcode::CREATE, opcode::CLOSE_SESSION] {
            let refused = TxnBody::Error(ErrorCode::SESSION_EXPIRED);
            assert_eq!(ask(opcode, &[]), refused, "{local_sessions:?}");
        }
        let touch = Touch { session, timeout_ms: 4_000 };
        assert!(!pipeline.revalidate(LINK, touch, clock(0).now).0, "it does not move");
        pipeline.commit_to(Zxid::new(1, 1));
        assert_eq!(pipeline.next_commit(), Some(None), "the creation is committed");
        assert!(pipeline.apply_next(clock(0).now, &mut 1).is_ok());
        assert!(!pipeline.sessions().is_live(session), "its end is in flight");
    }
}

/// The answer to the handshake of a client that has this session.
fn renew(pipeline: &mut Pipeline, session: SessionId) -> Option<Notice> {
    let password = wire::connect::session_password(session);
    let password = Some(bytes::Bytes::copy_from_slice(&password));
    let mut out = Vec::new();
    let attach = Attach { to: HERE, session, password, timeout_ms: 4_000 };
    pipeline.attach(clock(0), &attach, &mut out);
    out.pop().map(|(_, notice)| notice)
}

/// A leader lets a session's client in at another server as soon as its creation is proposed.
#[test]
fn a_session_that_is_ahead_of_its_creation_lasts_as_long_as_the_leader() {
    let session = SessionId(0x0300_0000_0000_0009);
    let create = || TxnBody::CreateSession { timeout_ms: 4_000 };
    for is_created in [false, true] {
        let mut pipeline = member();
        pipeline.follow();
        assert!(renew(&mut pipeline, session).is_none(), "the leader is asked");
        let told = pipeline.revalidated(session, true, clock(0).now);
        assert!(matches!(told[..], [(_, Notice::Attached { .. })]), "{told:?}");
        assert!(pipeline.sessions().is_live(session));
        if is_created {
            let header = TxnHeader { session, cxid: Xid(0), zxid: Zxid::new(1, 1), time_ms: 0 };
            let mut txn = BytesMut::new();
            wire::txn::encode(&header, &create(), None, &mut txn);
            pipeline.append(header.zxid, &txn.freeze()).expect("it decodes");
            pipeline.commit_to(header.zxid);
            assert!(pipeline.apply_next(clock(0).now, &mut 1).is_ok());
        }
        let known = |pipeline: &Pipeline| pipeline.sessions().iter().any(|(id, _)| id == session);
        assert_eq!(known(&pipeline), is_created, "what a snapshot would hold");
        pipeline.idle(clock(0).now);
        assert_eq!(pipeline.sessions().is_live(session), is_created);
    }
}

/// A learner may have applied a session's creation, and told its client, before the leader does.
#[test]
fn who_comes_with_a_session_that_is_being_opened_is_not_refused() {
    let mut pipeline = member();
    pipeline.lead(1, clock(0).now);
    let session = SessionId(0x0300_0000_0000_0009);
    assert!(matches!(renew(&mut pipeline, session), Some(Notice::Refused { .. })));
    let body = Bytes::copy_from_slice(&4_000_i32.to_be_bytes());
    let opcode = opcode::CREATE_SESSION;
    let request = ForwardedRequest { session, cxid: Xid(0), opcode, body, authinfo: None };
    pipeline.submit_forwarded(clock(0), LINK, request);
    assert!(matches!(renew(&mut pipeline, session), Some(Notice::Drop { .. })), "it comes again");
}

#[test]
fn without_a_quorum_only_sessions_of_that_time_are_known() {
    let mut pipeline = member();
    pipeline.serve_reads();
    let (reader, _) = arrive(&mut pipeline);
    assert!(matches!(renew(&mut pipeline, reader), Some(Notice::Attached { .. })));
    // One began here when there was a quorum, and is not in the log: power was cut.
    let before = SessionId(0x0100_0000_0000_0009);
    for elsewhere in [SESSION, SessionId(0x0300_0000_0000_0009), before] {
        let told = renew(&mut pipeline, elsewhere);
        assert!(matches!(told, Some(Notice::Drop { .. })), "it may live on: {told:?}");
    }
    let ended = SessionId(reader.0 + 1);
    assert!(matches!(renew(&mut pipeline, ended), Some(Notice::Refused { .. })));
    pipeline.idle(clock(1_000).now);
    assert!(!pipeline.sessions().is_live(reader) && pipeline.sessions().is_live(SESSION));
}

/// A request that a learner passes on for the client of the one global session.
fn forwarded(pipeline: &mut Pipeline, request: WriteRequest) -> TxnBody {
    let (opcode, body) = match request {
        WriteRequest::CloseSession => (opcode::CLOSE_SESSION, Bytes::new()),
        request => {
            let mut frame = BytesMut::new();
            let request = crate::model::Request::Write(request);
            wire::client::encode_request(Xid(1), &request, &mut frame);
            (opcode::CREATE, frame.split_off(4 + 4 + 4).freeze())
        }
    };
    let request = ForwardedRequest { session: SESSION, cxid: Xid(1), opcode, body, authinfo: None };
    pipeline.submit_forwarded(clock(0), LINK, request);
    while pipeline.is_preparing() {
        pipeline.prepare_some();
    }
    pipeline.in_flight.back().expect("it is a txn").body.clone()
}

fn create_with(path: &str, data_bytes: usize, flags: i32) -> WriteRequest {
    WriteRequest::Create(CreateRequest {
        kind: CreateKind::Create,
        path: path.into(),
        data: Some(Bytes::from(vec![0; data_bytes])),
        acl: Some(vec![RawAcl {
            perms: Perms::ALL,
            scheme: Some("world".into()),
            id: Some("anyone".into()),
        }]),
        flags,
    })
}

/// ZOOKEEPER-3496, 2101, 4306: what a learner asks for makes no txn that it could not read.
#[test]
fn no_txn_of_a_learners_client_is_longer_than_servers_read() {
    const LIMIT: usize = 10_000;
    let mut options = options_of_member(LocalSessions::Off);
    options.txn_bytes_max = LIMIT;
    let mut recovered = nothing_on_disk();
    recovered.sessions.push((SESSION, 4_000));
    let mut leader = Pipeline::new(options, recovered, 1, clock(0), &mut FileOps::default());
    leader.lead(1, clock(0).now);
    let refused = TxnBody::Error(ErrorCode::BAD_ARGUMENTS);
    assert_eq!(forwarded(&mut leader, create_with("/a", LIMIT, 0)), refused);
    let taken = forwarded(&mut leader, create_with("/a", LIMIT - 200, 0));
    assert!(matches!(taken, TxnBody::Create(_)));
    for number in 0..400 {
        let taken = forwarded(&mut leader, create_with(&format!("/ephemeral-{number:0>30}"), 0, 1));
        assert!(matches!(taken, TxnBody::Create(_)), "{taken:?}");
    }
    let TxnBody::CloseSession { paths: Some(paths) } =
        forwarded(&mut leader, WriteRequest::CloseSession)
    else {
        panic!("it closes the session");
    };
    assert!(paths.iter().next().is_none(), "the list is left out");
    let proposals = leader.take_proposals();
    assert!(proposals.iter().all(|proposal| proposal.txn.len() <= LIMIT));
}

/// A tree that is not the leader's is noticed with the first txn that says so, and only then.
#[test]
fn a_learner_notices_that_its_tree_is_another_one() {
    for (tampers, differs) in [(None, false), (Some(0), true), (Some(2), true)] {
        let (mut leader, mut learner) = (member(), member());
        leader.lead(1, clock(0).now);
        learner.follow();
        for path in ["/a", "/b", "/c"] {
            forwarded(&mut leader, create_with(path, 10, 0));
        }
        let proposals = leader.take_proposals();
        assert_eq!(proposals.len(), 3);
        for (number, Proposal { zxid, txn, .. }) in proposals.into_iter().enumerate() {
            let mut bytes = BytesMut::from(&txn[..]);
            if tampers == Some(number) {
                *bytes.last_mut().expect("a digest stands at the end") ^= 1;
            }
            learner.append(zxid, &bytes.freeze()).expect("it decodes");
            learner.commit_to(zxid);
            assert!(learner.apply_next(clock(0).now, &mut 9).is_ok());
            let noticed = tampers.is_some_and(|at| at <= number);
            assert_eq!(learner.member.differs, noticed, "{tampers:?} {number}");
        }
        assert_eq!(learner.member.differs, differs);
        learner.idle(clock(0).now);
        assert!(!learner.member.differs, "each role tells of it");
    }
}

#[test]
fn a_forwarded_multi_is_read_in_slices_as_at_once() {
    let ops = vec![WriteRequest::Check { path: "/".into(), version: -1 }; 7];
    let mut frame = BytesMut::new();
    let multi = crate::model::Request::Write(WriteRequest::Multi(ops));
    wire::client::encode_request(Xid(1), &multi, &mut frame);
    let body = frame.freeze().slice(12..);
    let judged = |decoded_ops, body: Bytes| {
        let mut options = options_of_member(LocalSessions::Off);
        options.slices.decoded_ops = decoded_ops;
        let mut recovered = nothing_on_disk();
        recovered.sessions.push((SESSION, 4_000));
        let mut leader = Pipeline::new(options, recovered, 1, clock(0), &mut FileOps::default());
        leader.lead(1, clock(0).now);
        let authinfo = Some(Vec::new());
        let request =
            ForwardedRequest { session: SESSION, cxid: Xid(1), opcode: 14, body, authinfo };
        leader.submit_forwarded(clock(0), LINK, request);
        let mut turns = 0;
        while leader.is_preparing() {
            turns += 1;
            leader.prepare_some();
        }
        (turns, leader.in_flight.back().expect("it is a txn").body.clone())
    };
    let (turns, at_once) = judged(100, body.clone());
    assert!(turns == 0 && matches!(&at_once, TxnBody::Multi(made) if made.len() == 7));
    assert_eq!(judged(2, body.clone()), (3, at_once));
    let damaged = body.slice(..body.len() - 20);
    let refused = TxnBody::Error(ErrorCode::MARSHALLING_ERROR);
    assert_eq!(judged(100, damaged.clone()), (0, refused.clone()));
    assert_eq!(judged(2, damaged).1, refused);
}

/// Clients choose their xids: an expired session's end has the number 0, and who counts anew on
/// each connection asks for something with a number that an earlier request had.
#[test]
fn a_txn_that_cannot_be_the_answer_leaves_the_request_waiting() {
    let mut learner = member();
    learner.follow();
    assert!(renew(&mut learner, SESSION).is_none(), "the leader is asked");
    let told = learner.revalidated(SESSION, true, clock(0).now);
    let [(_, Notice::Attached { generation, .. })] = told[..] else { panic!("{told:?}") };
    assert!(ask(&mut learner, (SESSION, generation), 1, create(0)).is_none());
    let mut counter = 0;
    let mut append = |learner: &mut Pipeline, body: TxnBody| {
        counter += 1;
        let zxid = Zxid::new(1, counter);
        let header = TxnHeader { session: SESSION, cxid: Xid(1), zxid, time_ms: 0 };
        let mut txn = BytesMut::new();
        wire::txn::encode(&header, &body, None, &mut txn);
        learner.append(zxid, &txn.freeze()).expect("it decodes");
        learner.in_flight.back().expect("it is there").origin.map(|origin| origin.xid)
    };
    let data = || Some(Bytes::new());
    for other in [
        TxnBody::CloseSession { paths: None },
        TxnBody::CreateSession { timeout_ms: 1 },
        TxnBody::DeleteContainer { path: "/c".into() },
        TxnBody::SetData { path: "/c".into(), data: data(), version: 1 },
        TxnBody::Multi(Vec::new()),
    ] {
        assert_eq!(append(&mut learner, other.clone()), None, "{other:?}");
    }
    let mut leader = member();
    leader.lead(1, clock(0).now);
    let created = forwarded(&mut leader, create_with("/a", 1, 0));
    assert!(matches!(created, TxnBody::Create(_)), "{created:?}");
    assert_eq!(append(&mut learner, created), Some(Xid(1)));
}

/// What a client asked on a connection that it has left may arrive after what was answered since.
#[test]
fn what_a_session_asked_elsewhere_before_is_refused_until_its_client_comes_again() {
    let other = LinkId(8);
    let touch = Touch { session: SESSION, timeout_ms: 4_000 };
    let moved = TxnBody::Error(ErrorCode::SESSION_MOVED);
    let late = |pipeline: &mut Pipeline| forwarded(pipeline, create_with("/late", 1, 0));
    let mut pipeline = member();
    pipeline.lead(1, clock(0).now);
    // It moves to another server, which is lost.
    assert!(pipeline.revalidate(LINK, touch, clock(0).now).0, "it lives");
    assert!(pipeline.revalidate(other, touch, clock(0).now).0, "it lives");
    assert_eq!(late(&mut pipeline), moved);
    pipeline.link_gone(other);
    assert_eq!(late(&mut pipeline), moved);
    assert_eq!(pipeline.overdue(clock(5_000).now), vec![(SESSION, None)], "nobody reports");
    // It comes here, and leaves.
    let told = renew(&mut pipeline, SESSION);
    let Some(Notice::Attached { generation, .. }) = told else { panic!("{told:?}") };
    assert_eq!(late(&mut pipeline), moved);
    pipeline.detach(SESSION, generation, clock(0).now);
    assert_eq!(late(&mut pipeline), moved);
    assert!(pipeline.revalidate(LINK, touch, clock(0).now).0, "it lives");
    assert!(matches!(late(&mut pipeline), TxnBody::Create(_)));
}

/// `quorum-and-disk.md` 5.4: the end of a session is not refused for where it was asked.
#[test]
fn a_session_may_be_closed_from_where_it_was() {
    let mut pipeline = member();
    pipeline.lead(1, clock(0).now);
    let touch = Touch { session: SESSION, timeout_ms: 4_000 };
    assert!(pipeline.revalidate(LinkId(8), touch, clock(0).now).0, "it lives");
    let closed = forwarded(&mut pipeline, WriteRequest::CloseSession);
    assert!(matches!(closed, TxnBody::CloseSession { .. }), "{closed:?}");
}

/// What was found overdue in one leadership may be needed again by the next.
#[test]
fn containers_found_overdue_are_forgotten_with_the_role_and_looked_at_again() {
    let container = WriteRequest::Create(CreateRequest {
        kind: CreateKind::Container,
        path: "/c".into(),
        data: None,
        acl: Some(vec![RawAcl {
            perms: Perms::ALL,
            scheme: Some("world".into()),
            id: Some("anyone".into()),
        }]),
        flags: 4,
    });
    let mut options = options_of_member(LocalSessions::Off);
    options.reaping.never_used_ms = 1_000;
    let mut recovered = nothing_on_disk();
    recovered.sessions.push((SESSION, 4_000));
    let mut pipeline = Pipeline::new(options, recovered, 1, clock(0), &mut FileOps::default());
    pipeline.lead(1, clock(0).now);
    let header = TxnHeader { session: SESSION, cxid: Xid(1), zxid: Zxid::new(1, 1), time_ms: 0 };
    let made = pipeline.prep(Ok(())).prepare(&header, &container, &Identities::default());
    pipeline.assigned = header.zxid;
    pipeline.log_txn(header, made, None, None);
    pipeline.commit_to(Zxid::new(1, 1));
    assert!(pipeline.apply_next(clock(0).now, &mut 1).is_ok());
    let look = |pipeline: &mut Pipeline| {
        pipeline.looked_to = Some(Str::default());
        pipeline.look_for_overdue(WallMs(5_000));
        assert_eq!(pipeline.overdue, ["/c"]);
    };
    look(&mut pipeline);
    pipeline.idle(clock(0).now);
    assert!(pipeline.overdue.is_empty(), "the role is over");
    pipeline.lead(2, clock(0).now);
    for (wall, reaped) in [(900, false), (5_000, true)] {
        look(&mut pipeline);
        let clock = Clock { wall: WallMs(wall), ..clock(wall.cast_unsigned()) };
        pipeline.on_timer(clock, &mut FileOps::default());
        assert_eq!(pipeline.outstanding(), usize::from(reaped), "at {wall}");
    }
}

/// A leader that is not established sends all of its log. A quorum may not have the end of it.
#[test]
fn what_is_applied_ahead_is_neither_committed_nor_answered() {
    let arrive = |pipeline: &mut Pipeline| {
        let attach = Attach { to: HERE, session: SessionId(0), password: None, timeout_ms: 4_000 };
        pipeline.attach(clock(0), &attach, &mut Vec::new());
    };
    let apply = |pipeline: &mut Pipeline| {
        let commit = pipeline.apply_next(clock(0).now, &mut 1);
        commit.unwrap_or_else(|part| panic!("{} is short", part.zxid))
    };
    let mut pipeline = member();
    pipeline.lead(1, clock(0).now);
    arrive(&mut pipeline);
    pipeline.commit_to(Zxid::new(1, 1));
    let Some((_, Notice::Attached { session, generation, .. })) = apply(&mut pipeline).notice
    else {
        panic!("it is answered")
    };
    ask(&mut pipeline, (session, generation), 1, create_with("/a", 1, 0));
    arrive(&mut pipeline);
    pipeline.idle(clock(0).now);
    assert!(pipeline.next_commit().is_none(), "nobody wants it");
    pipeline.apply_ahead();
    for counter in [2, 3] {
        assert_eq!(pipeline.next_commit().map(|origin| origin.is_some()), Some(false));
        let commit = apply(&mut pipeline);
        assert!(commit.notice.is_none() && commit.delta.origin.is_none());
        assert_eq!(pipeline.tree().last_zxid(), Zxid::new(1, counter));
    }
    assert_eq!(pipeline.committed_zxid(), Zxid::new(1, 1));
    assert!(pipeline.next_commit().is_none());
}

#[test]
fn the_audit_log_is_told_of_deletions_that_are_committed_only() {
    for is_ahead in [false, true] {
        let mut options = options_of_member(LocalSessions::Off);
        options.audit_user = Some("me".to_owned());
        let mut recovered = nothing_on_disk();
        recovered.sessions.push((SESSION, 4_000));
        let mut pipeline = Pipeline::new(options, recovered, 1, clock(0), &mut FileOps::default());
        pipeline.lead(1, clock(0).now);
        forwarded(&mut pipeline, create_with("/e", 1, 1));
        forwarded(&mut pipeline, WriteRequest::CloseSession);
        match is_ahead {
            true => pipeline.apply_ahead(),
            false => pipeline.commit_to(pipeline.last_logged()),
        }
        let (told, teller) = std::io::pipe().unwrap();
        let writer = move || teller.try_clone().unwrap();
        let subscriber = tracing_subscriber::fmt().with_writer(writer).finish();
        tracing::subscriber::with_default(subscriber, || {
            while pipeline.next_commit().is_some() {
                assert!(pipeline.apply_next(clock(0).now, &mut 9).is_ok());
            }
        });
        assert!(pipeline.tree().get("/e").is_none());
        let told = std::io::read_to_string(told).unwrap();
        assert_eq!(told.contains("znode=/e"), !is_ahead, "{told}");
    }
}

/// The log may grow while nothing is applied. Of two snapshots of one name, the purge of the first
/// would remove both.
#[test]
fn a_tree_that_stands_still_has_one_snapshot() {
    let mut options = options_of_member(LocalSessions::Off);
    options.snap_log_bytes = 10_000;
    let mut recovered = nothing_on_disk();
    recovered.sessions.push((SESSION, 4_000));
    let mut ops = FileOps::default();
    let mut pipeline = Pipeline::new(options, recovered, 1, clock(0), &mut ops);
    let mut snapshots = 0;
    let mut settle = |pipeline: &mut Pipeline| {
        loop {
            pipeline.turn_end(clock(0), &mut ops);
            let asked = ops.take();
            if asked.is_empty() {
                return;
            }
            for (id, op) in asked {
                snapshots += usize::from(matches!(op, FileOp::Rename { to, .. }
                    if catalog::is_snapshot(&to)));
                pipeline.on_file_done(clock(0).now, id, Ok(()), &mut ops).expect("nothing fails");
            }
        }
    };
    settle(&mut pipeline);
    pipeline.lead(1, clock(0).now);
    forwarded(&mut pipeline, create_with("/a", 8_000, 0));
    pipeline.commit_to(pipeline.last_logged());
    assert!(pipeline.apply_next(clock(0).now, &mut 1).is_ok());
    for number in 0..20 {
        forwarded(&mut pipeline, create_with(&format!("/{number}"), 8_000, 0));
        settle(&mut pipeline);
    }
    assert_eq!(snapshots, 1);
}

/// A snapshot lets the oldest one go, and with it a part of the log.
#[test]
fn for_want_of_room_snapshots_and_segments_are_tried_by_turns() {
    let mut options = options_of_member(LocalSessions::Off);
    options.snap_retain_count = 0;
    let mut recovered = nothing_on_disk();
    recovered.sessions.push((SESSION, 4_000));
    let mut ops = FileOps::default();
    let mut pipeline = Pipeline::new(options, recovered, 1, clock(0), &mut ops);
    let mut tried = Vec::new();
    for second in 0..20 {
        pipeline.on_timer(clock(second * 1_000), &mut ops);
        if second == 1 {
            pipeline.lead(1, clock(0).now);
            // The next segment is wanted, and what is applied is no snapshot yet.
            for number in 0..5 {
                forwarded(&mut pipeline, create_with(&format!("/{number}"), 900_000, 0));
            }
            pipeline.commit_to(pipeline.last_logged());
            while pipeline.next_commit().is_some() {
                assert!(pipeline.apply_next(clock(0).now, &mut 1).is_ok());
            }
        }
        loop {
            pipeline.turn_end(clock(second * 1_000), &mut ops);
            let asked = ops.take();
            if asked.is_empty() {
                break;
            }
            for (id, op) in asked {
                let is_full = 1 <= second && matches!(op, FileOp::Create { .. });
                if let FileOp::Create { file } = op
                    && is_full
                {
                    tried.push(if file.dir == FileDir::Data { 's' } else { 'l' });
                }
                let failure =
                    || FileFailure { no_space: true, no_descriptor: false, text: String::new() };
                let result = if is_full { Err(failure()) } else { Ok(()) };
                pipeline.on_file_done(clock(0).now, id, result, &mut ops).expect("it goes on");
            }
        }
    }
    let tried = String::from_iter(tried);
    assert!(tried.starts_with("lslsls"), "{tried}");
}

/// What an Apache leader sends has no checksum.
#[test]
fn a_proposal_whose_txn_has_another_zxid_is_not_taken() {
    let mut pipeline = member();
    pipeline.follow();
    let zxid = pipeline.last_logged().next();
    let header = TxnHeader { session: SESSION, cxid: Xid(1), zxid: zxid.next(), time_ms: 1 };
    let mut txn = BytesMut::new();
    wire::txn::encode(&header, &TxnBody::Error(ErrorCode::OK), None, &mut txn);
    let error = pipeline.append(zxid, &txn.freeze()).unwrap_err();
    assert_eq!((error.field, error.at), ("zxid", 12));
    assert_eq!(pipeline.last_logged().next(), zxid);
}
