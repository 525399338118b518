//! What settings do to the machine: connections without a session, snapshots by bytes, containers,
//! the longest frame and the longest txn at the defaults.

use bytes::BytesMut;

use super::tests::{World, create, options};
use super::*;
use crate::base::{Duration, Str};
use crate::client::requests;
use crate::limits::{FRAME_BYTES_MAX_DEFAULT, RECORD_BYTES_MAX};
use crate::model::{CreateKind, ErrorCode, Request, TxnBody, WriteRequest, Xid};
use crate::wire::client::encode_request;
use crate::wire::txn::encoded_bytes;

#[test]
fn connections_that_start_no_session_are_closed_in_time() {
    for timeout_ms in [300, 2_000] {
        let sessionless_timeout = Duration::from_millis(timeout_ms);
        let mut world = World::new(ServerOptions { sessionless_timeout, ..options() });
        let silent = world.open(1);
        let attached = world.connect(2, 10_000);
        world.pass(timeout_ms - 50);
        assert!(!world.is_closed(silent), "{timeout_ms} ms");
        let later = world.open(3);
        world.pass(100);
        assert!(world.is_closed(silent), "{timeout_ms} ms");
        assert!(!world.is_closed(later) && !world.is_closed(attached), "{timeout_ms} ms");
        world.pass(timeout_ms);
        assert!(world.is_closed(later), "{timeout_ms} ms");
        assert!(!world.is_closed(attached), "{timeout_ms} ms");
    }
}

#[test]
fn snapshots_begin_when_the_log_has_grown_by_so_much() {
    const VALUE: usize = 100_000;
    // Records are padded, and a snapshot begins behind the write that makes it due.
    const MARGIN: u64 = 2 * VALUE as u64;
    for (limit, writes, least) in [(1 << 20, 60, 5), (3 << 20, 60, 1), (0, 60, 0)] {
        let mut world = World::new(ServerOptions { snap_log_bytes: limit, ..options() });
        let conn = world.connect(1, 60_000);
        world.send(conn, &[create("/a", 0)]);
        world.settle();
        let (mut grown, mut begun) = (0, 0);
        for _ in 0..writes {
            world.send(conn, &[requests::set("/a", &[b'x'; VALUE])]);
            world.settle();
            grown += VALUE as u64;
            if begun < world.snapshots {
                begun = world.snapshots;
                let due = limit / 2 - MARGIN..limit + MARGIN;
                assert!(limit != 0 && due.contains(&grown), "of {limit}: after {grown}");
                grown = 0;
            }
        }
        assert!(least <= begun, "of {limit}: {begun}");
        assert!(limit == 0 || grown < limit + MARGIN, "of {limit}: none after {grown}");
    }
}

fn container(path: &str) -> Request {
    let Request::Write(WriteRequest::Create(mut request)) = create(path, 0) else {
        unreachable!("it is a create")
    };
    request.kind = CreateKind::Container;
    request.flags = 4;
    Request::Write(WriteRequest::Create(request))
}

fn is_there(world: &World, path: &str) -> bool {
    world.server.tree().get(path).is_some()
}

/// Time passes and files are written.
fn pass(world: &mut World, ms: u64) {
    for _ in 0..ms / 10 {
        world.pass(10);
        world.settle();
    }
}

#[test]
fn containers_that_nobody_uses_go_when_their_time_is_over() {
    for never_used_ms in [0, 1_000, 5_000] {
        let reaping = Reaping {
            every: Duration::from_millis(100),
            spacing: Duration::from_millis(1),
            never_used_ms,
        };
        let mut world = World::new(ServerOptions { reaping, ..options() });
        let conn = world.connect(1, 60_000);
        world.send(conn, &[container("/idle"), container("/used"), create("/used/a", 0)]);
        world.settle();
        assert_eq!(world.codes(conn), [ErrorCode::OK; 3]);
        pass(&mut world, 800);
        assert!(is_there(&world, "/idle"), "{never_used_ms} ms");
        if never_used_ms == 5_000 {
            pass(&mut world, 4_000);
            assert!(is_there(&world, "/idle"), "{never_used_ms} ms");
        }
        pass(&mut world, 600);
        assert_eq!(is_there(&world, "/idle"), never_used_ms == 0, "{never_used_ms} ms");
        assert!(is_there(&world, "/used"), "it has a child");
    }
}

#[test]
fn containers_go_one_by_one() {
    const COUNT: usize = 6;
    for spacing_ms in [200, 600] {
        let reaping = Reaping {
            every: Duration::from_millis(100),
            spacing: Duration::from_millis(spacing_ms),
            never_used_ms: 50,
        };
        let mut world = World::new(ServerOptions { reaping, ..options() });
        let conn = world.connect(1, 60_000);
        let paths: Vec<String> = (0..COUNT).map(|number| format!("/c{number}")).collect();
        let creates: Vec<Request> = paths.iter().map(|path| container(path)).collect();
        world.send(conn, &creates);
        world.settle();
        let mut went_at = Vec::new();
        for at in (0..10_000).step_by(10) {
            pass(&mut world, 10);
            let left = paths.iter().filter(|path| is_there(&world, path)).count();
            let gone = COUNT - left;
            assert!(gone <= went_at.len() + 1, "two at once after {at} ms");
            if went_at.len() < gone {
                went_at.push(at);
            }
        }
        assert_eq!(went_at.len(), COUNT, "{spacing_ms} ms");
        for pair in went_at.windows(2) {
            let between = pair[1] - pair[0];
            let wanted = spacing_ms..=spacing_ms + 30;
            assert!(wanted.contains(&between), "{spacing_ms} ms: {went_at:?}");
        }
    }
}

#[test]
fn the_longest_frame_and_txn_at_the_defaults_are_taken_and_no_longer_ones() {
    // As the default configuration makes them.
    let limits = ServerOptions {
        frame_bytes_max: FRAME_BYTES_MAX_DEFAULT,
        txn_bytes_max: RECORD_BYTES_MAX,
        ..options()
    };
    let mut world = World::new(limits.clone());
    let conn = world.connect(1, 60_000);
    let mut empty = BytesMut::new();
    encode_request(Xid(1), &requests::set("/a", b""), &mut empty);
    let longest = FRAME_BYTES_MAX_DEFAULT - (empty.len() - 4);
    let set = |len: usize| requests::set("/a", &vec![b'x'; len]);
    world.send(conn, &[create("/a", 0), set(longest)]);
    world.settle();
    assert_eq!(world.codes(conn), [ErrorCode::OK; 2]);
    world.send(conn, &[set(longest + 1), set(1)]);
    world.settle();
    assert_eq!(world.codes(conn), [ErrorCode::BAD_ARGUMENTS, ErrorCode::OK]);
    // Longer frames, so that the txn decides.
    let mut world = World::new(ServerOptions { frame_bytes_max: 4 << 20, ..limits });
    let conn = world.connect(1, 60_000);
    let path = Str::from_static("/a");
    let empty = TxnBody::SetData { path, data: Some(bytes::Bytes::new()), version: 1 };
    let longest = RECORD_BYTES_MAX - encoded_bytes(&empty, Some(0));
    world.send(conn, &[create("/a", 0), set(longest), set(longest + 1), set(1)]);
    world.settle();
    let refused = ErrorCode::BAD_ARGUMENTS;
    assert_eq!(world.codes(conn), [ErrorCode::OK, ErrorCode::OK, refused, ErrorCode::OK]);
}
