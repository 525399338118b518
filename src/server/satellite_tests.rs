//! A satellite by itself: the pipeline's part of the stream is what a test says.

use std::net::SocketAddr;

use bytes::BytesMut;

use super::contract::MeshBody;
use super::stream::{Ask, Delta, Notice, Origin, ToShard};
use super::tests::{World, options};
use super::*;
use crate::base::Duration;
use crate::model::{
    ConnId, ErrorCode, Generation, Request, SessionId, ShardId, TxnBody, TxnHeader, WriteRequest,
    Xid, Zxid,
};
use crate::wire::client::{decode_reply_header, encode_request};
use crate::wire::connect::ConnectRequest;
use crate::wire::frame::Deframer;
use crate::wire::jute::Reader;

const CONN: ConnId = ConnId(5);
const SESSION: SessionId = SessionId(77);

/// The other shard of a server that has two.
fn satellite_of(world: &World) -> Satellite {
    let tree = world.server.tree().replica();
    let share = credit::share(1000, 1 << 20, 2);
    let published = Published { zxid: tree.last_zxid(), ..Published::default() };
    Satellite::new(ShardId(1), &options(), (share, 2), tree, published, world.now)
}

/// A client connects there, and has seen this zxid.
fn greet(
    satellite: &mut Satellite,
    clock: Clock,
    (conn, session): (ConnId, SessionId),
    last_zxid_seen: Zxid,
) -> Vec<Output> {
    let mut hello = BytesMut::new();
    ConnectRequest {
        protocol_version: 0,
        last_zxid_seen,
        timeout_ms: 300,
        session,
        password: None,
        read_only: false,
        has_read_only: true,
    }
    .encode(&mut hello);
    let peer = SocketAddr::from(([127, 0, 0, 1], 1));
    let mut out = Vec::new();
    satellite.step(clock, Input::Opened { conn, peer }, &mut out);
    satellite.step(clock, Input::Received { conn, bytes: hello.freeze() }, &mut out);
    out
}

/// Apache's servers show it as their zxid until the epoch's first txn.
#[test]
fn a_client_that_has_seen_the_beginning_of_the_epoch_is_taken() {
    let world = World::new(options());
    let mut satellite = satellite_of(&world);
    let zxid = world.server.tree().last_zxid();
    let beginning = Zxid::new(3, 0);
    let mut is_refused = |conn: u64, epoch, seen| {
        let mut out = Vec::new();
        let published = Published { zxid, epoch, ..Published::default() };
        satellite.step(world.clock(), Input::Published(published), &mut out);
        let ids = (ConnId(conn), SessionId(7));
        out.extend(greet(&mut satellite, world.clock(), ids, seen));
        satellite.turn_end(world.clock(), &mut out);
        out.iter().any(|output| matches!(output, Output::Close { .. }))
    };
    assert!(is_refused(1, 2, beginning));
    assert!(!is_refused(2, 3, beginning));
    assert!(is_refused(3, 3, beginning.next()));
    assert!(is_refused(4, 3, Zxid::new(2, 9)), "seen at a server without a quorum, and cut off");
    assert!(!is_refused(5, 3, Zxid::new(2, 0)));
    assert!(!is_refused(6, 2, zxid));
}

/// The pipeline may be slow to answer it.
#[test]
fn a_connection_that_waits_for_its_session_is_not_read_on_for_ever() {
    let world = World::new(options());
    let mut satellite = satellite_of(&world);
    greet(&mut satellite, world.clock(), (CONN, SESSION), Zxid::ZERO);
    let mut pings = BytesMut::new();
    (0..1_000).for_each(|_| encode_request(Xid(1), &Request::Ping, &mut pings));
    let bytes = pings.freeze();
    let mut pauses = || {
        let (mut out, bytes) = (Vec::new(), bytes.clone());
        satellite.step(world.clock(), Input::Received { conn: CONN, bytes }, &mut out);
        satellite.turn_end(world.clock(), &mut out);
        out.iter().any(|output| matches!(output, Output::PauseReading { conn: CONN }))
    };
    assert!(!pauses());
    assert!(pauses());
    let mut out = attached(&mut satellite, world.clock());
    while satellite.wants_turn() {
        out.extend(hears(&mut satellite, world.clock(), Vec::new()));
    }
    assert!(out.iter().any(|output| matches!(output, Output::ResumeReading { conn: CONN })));
}

/// It hears this of the pipeline, and ends its turn.
fn hears(satellite: &mut Satellite, clock: Clock, items: Vec<ToShard>) -> Vec<Output> {
    let mut out = Vec::new();
    let body = MeshBody::ToShard(items);
    satellite.step(clock, Input::Mesh(Mesh { from: ShardId(0), body }), &mut out);
    satellite.turn_end(clock, &mut out);
    out
}

/// What it asks of the pipeline.
fn asked(outputs: Vec<Output>) -> Vec<Ask> {
    let asks = outputs.into_iter().filter_map(|output| match output {
        Output::Mesh { message: Mesh { body: MeshBody::ToPipeline(asks), .. }, .. } => Some(asks),
        _ => None,
    });
    asks.flatten().collect()
}

/// A client's session begins on a connection.
fn attach(satellite: &mut Satellite, clock: Clock) {
    greet(satellite, clock, (CONN, SESSION), Zxid::ZERO);
    attached(satellite, clock);
}

/// The pipeline answers the handshake.
fn attached(satellite: &mut Satellite, clock: Clock) -> Vec<Output> {
    let attached = Notice::Attached {
        conn: CONN,
        session: SESSION,
        generation: Generation(1),
        timeout_ms: 300,
    };
    hears(satellite, clock, vec![ToShard::Notice(attached)])
}

/// The client sends these; where they came from, as the pipeline is told.
fn submits(satellite: &mut Satellite, clock: Clock, frames: BytesMut) -> Vec<Origin> {
    let mut out = Vec::new();
    let bytes = frames.freeze();
    satellite.step(clock, Input::Received { conn: CONN, bytes }, &mut out);
    satellite.turn_end(clock, &mut out);
    let asks = asked(out).into_iter().filter_map(|ask| match ask {
        Ask::Submit(submit) => Some(submit.origin),
        _ => None,
    });
    asks.collect()
}

/// Xids and codes of the replies.
fn replies(outputs: &[Output]) -> Vec<(Xid, ErrorCode)> {
    let mut deframer = Deframer::new(1 << 20);
    for output in outputs {
        if let Output::Send { bytes, .. } = output {
            deframer.push(bytes.clone());
        }
    }
    let mut replies = Vec::new();
    while let Some(frame) = deframer.next_frame().unwrap() {
        let header = decode_reply_header(&mut Reader::new(&frame)).unwrap();
        replies.push((header.xid, header.code));
    }
    replies
}

fn write_as(xid: i32, frames: &mut BytesMut) {
    encode_request(Xid(xid), &Request::Write(WriteRequest::Multi(vec![])), frames);
}

/// Clients number their requests as they like. An answer is its request's, whatever others there
/// are with the same number.
#[test]
fn requests_with_the_same_xid_are_told_apart() {
    let world = World::new(options());
    let mut satellite = satellite_of(&world);
    attach(&mut satellite, world.clock());
    let mut frames = BytesMut::new();
    [5, 6, 5, 5].into_iter().for_each(|xid| write_as(xid, &mut frames));
    let origins = submits(&mut satellite, world.clock(), frames);
    let [first, second, third, _] = origins[..] else { panic!("{origins:?}") };
    let mut answer = |origin, code| {
        let answered = ToShard::Notice(Notice::Answered(origin, code));
        replies(&hears(&mut satellite, world.clock(), vec![answered]))
    };
    assert_eq!(answer(third, ErrorCode::MARSHALLING_ERROR), []);
    assert_eq!(answer(first, ErrorCode::NO_AUTH), [(Xid(5), ErrorCode::NO_AUTH)]);
    let rest = [(Xid(6), ErrorCode::NO_NODE), (Xid(5), ErrorCode::MARSHALLING_ERROR)];
    assert_eq!(answer(second, ErrorCode::NO_NODE), rest);
}

/// An Apache leader says in an op of a multi that the session's client is elsewhere.
#[test]
fn a_connection_whose_session_has_moved_ends_without_a_reply() {
    let error = TxnBody::Error(ErrorCode::SESSION_MOVED);
    let of_multi = TxnBody::Multi(vec![error.clone(), TxnBody::Error(ErrorCode::OK)]);
    for body in [error, of_multi] {
        let world = World::new(options());
        let mut satellite = satellite_of(&world);
        attach(&mut satellite, world.clock());
        let mut frames = BytesMut::new();
        write_as(1, &mut frames);
        let origins = submits(&mut satellite, world.clock(), frames);
        let zxid = world.server.tree().last_zxid().next();
        let header = TxnHeader { session: SESSION, cxid: Xid(1), zxid, time_ms: 1 };
        let applied = world.server.tree().replica().apply(&header, &body);
        let delta = Delta { header, body, applied, origin: origins.first().copied() };
        let mut out = Vec::new();
        let published = Published { zxid, ..Published::default() };
        satellite.step(world.clock(), Input::Published(published), &mut out);
        out.extend(hears(&mut satellite, world.clock(), vec![ToShard::Delta(delta.into(), 1)]));
        assert_eq!(replies(&out), []);
        assert!(out.iter().any(|output| matches!(output, Output::Close { conn: CONN })));
    }
}

#[test]
fn a_stalled_satellite_keeps_its_sessions() {
    let mut world = World::new(options());
    let mut satellite = satellite_of(&world);
    attach(&mut satellite, world.clock());
    let heard_at = |satellite: &mut Satellite, clock: Clock| {
        let out = hears(satellite, clock, vec![ToShard::AskLife(SESSION)]);
        asked(out).into_iter().find_map(|ask| match ask {
            Ask::Life(SESSION, heard) => heard,
            _ => None,
        })
    };
    let start = world.now;
    // A satellite that runs says when it really heard of the session.
    for _ in 0..20 {
        world.now = world.now + Duration::from_millis(50);
        assert_eq!(heard_at(&mut satellite, world.clock()), Some(start));
    }
    // One that was stalled does not count that time.
    world.now = world.now + Duration::from_millis(5_000);
    let heard = heard_at(&mut satellite, world.clock());
    assert_eq!(heard, Some(start + Duration::from_millis(5_000)));
}
