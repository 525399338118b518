//! The longest single operation of the server's machines while they grow, and while they answer
//! what is long: `cargo bench --bench stalls -- --znodes 10000000 --children 1000000`.
//!
//! Every call of a machine is timed on the thread's own CPU clock, so that other load on the
//! computer does not count. The disk answers at once; one satellite follows.

mod rig;

use std::net::SocketAddr;

use bytes::{Buf, Bytes};
use clap::Parser;

use ringkeeper::base::Str;
use ringkeeper::client::requests;
use ringkeeper::model::request::SetWatches;
use ringkeeper::model::{ConnId, ReadRequest, Request, WriteRequest, Zxid};
use ringkeeper::server::{Input, Machine};

use rig::{HOME, Rig, VALUE};

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// Znodes of one parent while the tree is filled.
const FILL_CHILDREN: u64 = 10_000;

#[derive(Parser)]
struct Arguments {
    /// Znodes of the tree.
    #[arg(long, default_value_t = 100_000)]
    znodes: u64,
    /// Children of one parent.
    #[arg(long, default_value_t = 100_000)]
    children: u64,
    /// Ephemerals of one session, and watches of another.
    #[arg(long, default_value_t = 20_000)]
    owned: u64,
    /// What cargo says to every benchmark.
    #[arg(long, hide = true)]
    bench: bool,
}

fn main() {
    let arguments = Arguments::parse();
    let mut rig = Rig::new(true);
    let (writer, reader, owner, watcher) = (ConnId(1), ConnId(2), ConnId(3), ConnId(4));
    for conn in [writer, reader, owner, watcher] {
        rig.open(HOME, conn);
    }
    rig.phase = "fill";
    let parents = arguments.znodes.div_ceil(FILL_CHILDREN);
    rig.create(writer, parents, 0, |number| format!("/fill-{number:05}"));
    rig.create(writer, arguments.znodes, 0, |number| {
        format!("/fill-{:05}/n{number:08}", number / FILL_CHILDREN)
    });
    rig.phase = "children";
    rig.create(writer, 1, 0, |_| "/big".to_owned());
    let child = |number| format!("/big/n{number:08}");
    rig.create(writer, arguments.children, 0, child);

    rig.phase = "list";
    rig.ask(HOME, reader, std::iter::once(requests::list("/big", true)));
    // Others go on meanwhile, and change what is being listed.
    let mut changed = 0;
    loop {
        rig.ask(
            HOME,
            writer,
            [
                requests::delete(&child(changed * 7 % arguments.children)),
                requests::create(&format!("/big/late-{changed}"), VALUE, 0),
            ]
            .into_iter(),
        );
        changed += 1;
        rig.round();
        let listed = rig.received.get(&reader).is_some_and(|bytes| 24 <= bytes.len());
        if listed && !rig.server.wants_turn() {
            break;
        }
    }
    rig.settle();
    let answer = rig.received.remove(&reader).expect("it was answered").freeze();
    let count = answer.slice(20..).get_i32();
    assert_eq!(u64::try_from(count).expect("a count"), arguments.children);
    println!("{changed} rounds of others while {count} children were listed");

    rig.phase = "count";
    let path = Str::from("/");
    rig.ask(
        HOME,
        reader,
        std::iter::once(Request::Read(ReadRequest::GetAllChildrenNumber { path })),
    );
    rig.settle();

    rig.phase = "setWatches";
    let watched = |number| {
        let number = number % arguments.znodes;
        Str::from(format!("/fill-{:05}/n{number:08}", number / FILL_CHILDREN).as_str())
    };
    let data = (0..arguments.owned).map(watched).collect();
    let relative_zxid = Zxid(i64::MAX);
    let set = SetWatches { relative_zxid, data, ..SetWatches::default() };
    rig.ask(HOME, watcher, std::iter::once(Request::Read(ReadRequest::SetWatches(set))));
    rig.settle();
    rig.phase = "words";
    for (number, word) in (100..).zip(["mntr", "wchs", "wchp", "dump"]) {
        let (conn, peer) = (ConnId(number), SocketAddr::from(([127, 0, 0, 1], 1)));
        rig.inputs.push_back((HOME, Input::Opened { conn, peer }));
        let bytes = Bytes::from_static(word.as_bytes());
        rig.inputs.push_back((HOME, Input::Received { conn, bytes }));
        rig.settle();
    }
    rig.phase = "watches end";
    rig.inputs.push_back((HOME, Input::Closed { conn: watcher }));
    rig.settle();

    rig.phase = "ephemerals";
    rig.create(owner, arguments.owned, 1, |number| format!("/fill-00000/e{number:08}"));
    rig.phase = "getEphemerals";
    rig.ask(
        HOME,
        owner,
        std::iter::once(Request::Read(ReadRequest::GetEphemerals { prefix: None })),
    );
    rig.settle();
    rig.phase = "close";
    rig.ask(HOME, owner, std::iter::once(Request::Write(WriteRequest::CloseSession)));
    rig.settle();
    rig.report();
}
