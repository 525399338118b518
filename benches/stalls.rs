//! The longest single operation of the server's machines while they grow, and while they answer
//! what is long: `cargo bench --bench stalls -- --znodes 10000000 --children 1000000`.
//!
//! Every call of a machine is timed on the thread's own CPU clock. Several processes make the same
//! calls, and of each call the shortest time counts: the rest is what the computer did besides. The
//! disk answers at once; one satellite follows.

mod rig;

use std::collections::BTreeMap;
use std::io::{self, BufRead, BufReader, Write};
use std::net::SocketAddr;
use std::process::{Command, Stdio};

use bytes::{Buf, Bytes};
use clap::Parser;
use hdrhistogram::Histogram;

use ringkeeper::base::{Duration, Str};
use ringkeeper::client::requests;
use ringkeeper::model::request::{MultiReadKind, SetWatches};
use ringkeeper::model::{ConnId, ReadRequest, Request, WriteRequest, Zxid};
use ringkeeper::server::{Input, Machine};

use rig::{HOME, Rig, SATELLITE, VALUE};

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// Ops of a multi and of a multiRead.
const MULTI_OPS: u64 = 10_000;
/// Ops of a multi of short ones: more than a MiB, the usual `jute.maxbuffer`, does not hold.
const SHORT_OPS: usize = 45_000;
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
    /// Ephemerals of one session, watches of another, and clients that watch one znode.
    #[arg(long, default_value_t = 20_000)]
    owned: u64,
    /// Processes that make the same calls.
    #[arg(long, default_value_t = 3)]
    runs: u32,
    /// Prints the times of all calls: what each of the processes does.
    #[arg(long, hide = true)]
    raw: bool,
    /// What cargo says to every benchmark.
    #[arg(long, hide = true)]
    bench: bool,
}

fn main() {
    let arguments = Arguments::parse();
    match arguments.raw {
        true => {
            print_calls(&drive(&arguments)).expect("the parent reads");
            // Without taking everything down first.
            std::process::exit(0);
        }
        false => report(&compare(arguments.runs)),
    }
}

/// Makes all calls.
fn drive(arguments: &Arguments) -> Rig {
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
    eprintln!("{changed} rounds of others while {count} children were listed");

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
    rig.phase = "multi";
    let path = |number: u64| watched(number % FILL_CHILDREN);
    let set = |number| WriteRequest::SetData {
        path: path(number),
        data: Some(Bytes::from_static(b"x")),
        version: -1,
    };
    let multi = WriteRequest::Multi((0..MULTI_OPS).map(set).collect());
    rig.ask(HOME, writer, std::iter::once(Request::Write(multi)));
    rig.settle();
    rig.phase = "short ops";
    rig.create(writer, 1, 0, |_| "/b".to_owned());
    let set = || WriteRequest::SetData { path: "/b".into(), data: Some(Bytes::new()), version: -1 };
    let multi = WriteRequest::Multi(std::iter::repeat_with(set).take(SHORT_OPS).collect());
    rig.ask(HOME, writer, std::iter::once(Request::Write(multi)));
    rig.settle();
    rig.phase = "multiRead";
    let read = |number| (MultiReadKind::GetData, path(number));
    let read = ReadRequest::MultiRead((0..MULTI_OPS).map(read).collect());
    rig.ask(HOME, reader, std::iter::once(Request::Read(read)));
    rig.settle();
    many_clients(&mut rig, arguments.owned);
    rig
}

/// As many clients as `owned` says watch one znode, hear of a change, and are gone; then their
/// sessions expire together.
fn many_clients(rig: &mut Rig, owned: u64) {
    let (writer, first) = (ConnId(1), 1_000);
    let clients = || (first..first + owned).map(ConnId);
    rig.phase = "connect";
    clients().for_each(|conn| rig.open(HOME, conn));
    rig.phase = "watch";
    for conn in clients() {
        rig.ask(HOME, conn, std::iter::once(requests::get("/fill-00000", true)));
    }
    rig.settle();
    rig.received.clear();
    rig.phase = "fan-out";
    rig.ask(HOME, writer, std::iter::once(requests::set("/fill-00000", VALUE)));
    rig.settle();
    let told = clients().filter(|conn| rig.received.contains_key(conn)).count();
    assert_eq!(u64::try_from(told).expect("a count"), owned);
    rig.phase = "leave";
    clients().for_each(|conn| rig.inputs.push_back((HOME, Input::Closed { conn })));
    rig.settle();
    rig.phase = "expiry";
    let before = rig.server.published();
    pass(rig, Duration::from_millis(34_000));
    let expired = rig.server.published().0 - before.0;
    assert!(i64::try_from(owned).expect("a count") <= expired, "{expired} sessions expired");
}

/// So much time passes, in steps in which nobody is stalled.
fn pass(rig: &mut Rig, time: Duration) {
    let end = rig.now + time;
    while rig.now < end {
        rig.now = rig.now + Duration::from_millis(100);
        for shard in [HOME, SATELLITE] {
            rig.inputs.push_back((shard, Input::Timer));
        }
        rig.settle();
        while rig.server.next_timer().is_some_and(|due| due <= rig.now) {
            rig.inputs.push_back((HOME, Input::Timer));
            rig.settle();
        }
    }
}

fn print_calls(rig: &Rig) -> io::Result<()> {
    let mut out = io::BufWriter::new(io::stdout().lock());
    for (phase, kind, ns) in &rig.calls {
        writeln!(out, "{phase},{kind},{ns}")?;
    }
    out.flush()
}

/// Lets so many processes make the calls; the shortest time of each call, by phase and kind.
fn compare(runs: u32) -> Vec<(String, u64)> {
    let mut shortest: Vec<(String, u64)> = Vec::new();
    for _ in 0..runs.max(1) {
        let program = std::env::current_exe().expect("this program has a path");
        let mut child = Command::new(program)
            .args(std::env::args_os().skip(1))
            .arg("--raw")
            .stdout(Stdio::piped())
            .spawn()
            .expect("this program can be started again");
        let stdout = child.stdout.take().expect("it is piped");
        for (at, line) in BufReader::new(stdout).lines().enumerate() {
            let line = line.expect("it is text");
            let (call, ns) = line.rsplit_once(',').expect("a call and its time");
            let ns = ns.parse().expect("a number");
            match shortest.get_mut(at) {
                None => shortest.push((call.to_owned(), ns)),
                Some((same, least)) => {
                    assert_eq!(same, call, "all processes make the same calls");
                    *least = ns.min(*least);
                }
            }
        }
        assert!(child.wait().expect("it ends").success());
    }
    shortest
}

fn report(calls: &[(String, u64)]) {
    let mut meters: BTreeMap<&str, Histogram<u64>> = BTreeMap::new();
    for (call, ns) in calls {
        let meter = meters.entry(call).or_insert_with(|| {
            Histogram::new_with_bounds(1, 600_000_000_000, 3).expect("the bounds are in order")
        });
        meter.saturating_record(*ns);
    }
    let heads = ["phase", "call", "calls", "mean us", "p99.9 us", "max us"];
    let [phase, call, count, mean, high, max] = heads;
    println!("{phase:<13} {call:<19} {count:>10} {mean:>10} {high:>10} {max:>10}");
    for (call, meter) in &meters {
        let (phase, kind) = call.split_once(',').unwrap_or((call, ""));
        let us = |ns: u64| ns as f64 / 1000.0;
        let (high, max) = (us(meter.value_at_quantile(0.999)), us(meter.max()));
        let (count, mean) = (meter.len(), meter.mean() / 1000.0);
        println!("{phase:<13} {kind:<19} {count:>10} {mean:>10.1} {high:>10.1} {max:>10.1}");
    }
}
