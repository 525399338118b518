//! Ends of sessions with many ephemerals: prepared and applied in slices, seen only whole.

use bytes::BytesMut;

use super::tests::{World, create, options};
use super::*;
use crate::model::request::PathWatch;
use crate::model::{ErrorCode, ReadRequest, Request, WriteRequest, Xid};
use crate::wire::client::encode_request;

const EPHEMERALS: usize = 100;
const DELETIONS: usize = 7;

fn list(watch: bool) -> Request {
    Request::Read(ReadRequest::GetChildren(PathWatch { path: "/p".into(), watch }))
}

fn requests(requests: &[Request]) -> bytes::Bytes {
    let mut buf = BytesMut::new();
    requests.iter().for_each(|request| encode_request(Xid(9), request, &mut buf));
    buf.freeze()
}

#[test]
fn the_end_of_a_session_is_made_in_slices_and_seen_whole() {
    let slices = Slices { ops: DELETIONS, ..Slices::default() };
    let mut world = World::new(ServerOptions { slices, ..options() });
    let (owner, reader, idle) =
        (world.connect(1, 10_000), world.connect(2, 10_000), world.connect(3, 10_000));
    world.send(reader, &[create("/p", 0)]);
    world.settle();
    let ephemeral = |number: usize| {
        let mut request = create(&format!("/p/e{number}"), 0);
        if let Request::Write(WriteRequest::Create(create)) = &mut request {
            create.flags = 1;
        }
        request
    };
    world.send(owner, &(0..EPHEMERALS).map(ephemeral).collect::<Vec<_>>());
    world.settle();
    world.send(reader, &[list(true)]);
    assert_eq!(world.codes(reader), [ErrorCode::OK; 2]);

    // The txn is made in slices; a write behind it is judged by what it leaves.
    let bytes = requests(&[Request::Write(WriteRequest::CloseSession)]);
    let mut out = Vec::new();
    world.server.step(world.clock(), Input::Received { conn: owner, bytes }, &mut out);
    let bytes = requests(&[create("/p/e50", 0)]);
    world.server.turn_end(world.clock(), &mut out);
    world.server.step(world.clock(), Input::Received { conn: reader, bytes }, &mut out);
    let mut turns = 1;
    while world.server.pipeline.is_preparing() {
        world.server.turn_end(world.clock(), &mut out);
        turns += 1;
    }
    assert!(EPHEMERALS / DELETIONS <= turns, "{turns} turns");
    world.carry_out(out);

    // It is applied in slices; meanwhile pings are answered and nothing is read.
    let mut done = Vec::new();
    world.finish_a_file(&mut done);
    world.carry_out(done);
    let mut turns = 0;
    while world.server.pipeline.is_applying() {
        turns += 1;
        let shown = world.server.tree().last_zxid();
        let bytes = requests(&[Request::Ping]);
        let mut out = Vec::new();
        world.server.step(world.clock(), Input::Received { conn: idle, bytes }, &mut out);
        if turns == 3 {
            let bytes = requests(&[list(false)]);
            world.server.step(world.clock(), Input::Received { conn: reader, bytes }, &mut out);
        }
        let before = world.server.tree().znode_count();
        world.server.turn_end(world.clock(), &mut out);
        let gone = before - world.server.tree().znode_count();
        assert!(gone <= DELETIONS, "{gone} in one turn");
        world.carry_out(out);
        if world.server.pipeline.is_applying() {
            assert_eq!(world.server.published(), shown);
            assert_eq!(world.codes(idle), [ErrorCode::OK], "a ping");
            assert_eq!(world.codes(reader), [], "neither an event nor a part of the list");
        }
    }
    assert!(EPHEMERALS / DELETIONS <= turns, "{turns} turns");
    world.settle();
    // One event, then the write and the read in their order.
    assert_eq!(world.codes(reader), [ErrorCode::OK; 3]);
    assert_eq!(world.server.tree().get("/p").expect("it stays").child_count(), 1);
    assert!(world.is_closed(owner));
}

/// It may be closed since the tree is replaced, and what was changed by that is told to nobody: a
/// later event would make the client believe that it has heard of everything before it.
#[test]
fn who_is_being_closed_hears_of_nothing_behind_it() {
    let mut world = World::new(options());
    let (leaver, writer) = (world.connect(1, 10_000), world.connect(2, 10_000));
    world.send(writer, &[create("/p", 0)]);
    world.settle();
    world.send(leaver, &[list(true)]);
    assert_eq!(world.codes(leaver), [ErrorCode::OK]);
    let mut out = Vec::new();
    for (conn, request) in
        [(leaver, Request::Write(WriteRequest::CloseSession)), (writer, create("/p/behind", 0))]
    {
        let bytes = requests(&[request]);
        world.server.step(world.clock(), Input::Received { conn, bytes }, &mut out);
    }
    world.server.turn_end(world.clock(), &mut out);
    world.carry_out(out);
    world.settle();
    assert!(world.is_closed(leaver));
    assert_eq!(world.codes(leaver), [ErrorCode::OK], "the answer, and no event");
    assert_eq!(world.codes(writer), [ErrorCode::OK; 2]);
}
