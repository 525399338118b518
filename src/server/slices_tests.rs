//! What takes many turns, seen by clients of two shards while others write: a multi is seen whole
//! or not at all, a multiRead shows one state, nobody reads the past, and an event comes before
//! what has changed.

use std::collections::{BTreeMap, VecDeque};
use std::net::SocketAddr;

use bytes::{Bytes, BytesMut};

use super::tests::{nothing_on_disk, options};
use super::*;
use crate::base::{FileOpId, Instant, Prng, Str, WallMs};
use crate::client::requests;
use crate::model::request::MultiReadKind;
use crate::model::{ConnId, ErrorCode, ReadRequest, Request, SessionId, WriteRequest, Xid, Zxid};
use crate::wire::client::{decode_reply_header, encode_request};
use crate::wire::connect::ConnectRequest;
use crate::wire::frame::Deframer;
use crate::wire::jute::Reader;

/// Znodes that every multi gives the same value.
const ZNODES: usize = 12;

/// A server and a satellite whose turns come in any order, and their clients.
struct Pair {
    server: Server,
    satellite: Satellite,
    inputs: [VecDeque<Input>; 2],
    clients: BTreeMap<ConnId, Client>,
    now: Instant,
    prng: Prng,
    /// The latest value that anybody has seen.
    seen: u64,
}

#[derive(Default)]
struct Client {
    shard: usize,
    deframer: Option<Deframer>,
    /// What was asked and is not answered, with the latest value that anybody had seen.
    asked: VecDeque<(Request, u64)>,
    /// The latest value that it has read.
    read: u64,
    /// Paths on which it waits for an event.
    watching: BTreeMap<String, u64>,
    pings: usize,
    reads: usize,
    writes: usize,
}

fn path(number: usize) -> String {
    format!("/n{number}")
}

fn value(data: &[u8]) -> u64 {
    std::str::from_utf8(data).expect("a number").parse().expect("a number")
}

impl Pair {
    fn new(slices: Slices, seed: u64) -> Self {
        let now = Instant(1_000_000_000);
        let clock = Clock { now, wall: WallMs(1_700_000_000_000) };
        let options = ServerOptions { slices, ..options() };
        let (server, mut satellites) = Server::new(options, nothing_on_disk(), 1, seed, clock);
        Self {
            server,
            satellite: satellites.remove(0),
            inputs: Default::default(),
            clients: BTreeMap::new(),
            now,
            prng: Prng::new(seed),
            seen: 0,
        }
    }

    fn clock(&self) -> Clock {
        Clock { now: self.now, wall: WallMs(1_700_000_000_000) }
    }

    /// One machine takes some of its inputs and ends its turn.
    fn turn(&mut self, shard: usize) {
        let clock = self.clock();
        let mut out = Vec::new();
        let inputs = self.inputs.get_mut(shard).expect("there are two");
        let count = self.prng.below(inputs.len() as u64 + 1) as usize;
        let machine: &mut dyn Machine =
            if shard == 0 { &mut self.server } else { &mut self.satellite };
        for input in inputs.drain(..count) {
            machine.step(clock, input, &mut out);
        }
        machine.turn_end(clock, &mut out);
        for output in out {
            match output {
                Output::File { id, .. } => self.push(0, Input::FileDone { id, result: Ok(()) }),
                Output::Mesh { to, message, .. } => self.push(to.0.into(), Input::Mesh(message)),
                Output::Publish(published) => self.push(1, Input::Published(published)),
                Output::Send { conn, bytes } => {
                    self.push(shard, Input::Sent { conn, bytes: bytes.len() });
                    self.receive(conn, bytes);
                }
                Output::PauseReading { .. } | Output::ResumeReading { .. } => {}
                _ => panic!("nothing of this kind is wanted: {output:?}"),
            }
        }
    }

    fn push(&mut self, shard: usize, input: Input) {
        // Others overtake the disk.
        let inputs = self.inputs.get_mut(shard).expect("there are two");
        inputs.push_back(input);
    }

    fn is_idle(&self) -> bool {
        let wants = self.server.wants_turn() || self.satellite.wants_turn();
        !wants && self.inputs.iter().all(VecDeque::is_empty)
    }

    fn settle(&mut self) {
        for _ in 0..1_000_000 {
            if self.is_idle() {
                return;
            }
            let shard = self.prng.below(2) as usize;
            self.turn(shard);
        }
        panic!("it never ends");
    }

    fn connect(&mut self, shard: usize) -> ConnId {
        let conn = ConnId(self.clients.len() as u64 + 1);
        self.clients.insert(conn, Client { shard, ..Client::default() });
        let hello = ConnectRequest {
            protocol_version: 0,
            last_zxid_seen: Zxid::ZERO,
            timeout_ms: 60_000,
            session: SessionId(0),
            password: None,
            read_only: false,
            has_read_only: true,
        };
        let mut buf = BytesMut::new();
        hello.encode(&mut buf);
        let peer = SocketAddr::from(([127, 0, 0, 1], 1));
        self.push(shard, Input::Opened { conn, peer });
        self.push(shard, Input::Received { conn, bytes: buf.freeze() });
        self.settle();
        conn
    }

    fn ask(&mut self, conn: ConnId, request: Request) {
        let mut buf = BytesMut::new();
        encode_request(Xid(1), &request, &mut buf);
        let client = self.clients.get_mut(&conn).expect("it is connected");
        client.asked.push_back((request, self.seen));
        let (shard, bytes) = (client.shard, buf.freeze());
        self.push(shard, Input::Received { conn, bytes });
    }

    fn receive(&mut self, conn: ConnId, bytes: Bytes) {
        let client = self.clients.get_mut(&conn).expect("it is connected");
        let attached = client.deframer.is_some();
        let deframer = client.deframer.get_or_insert_with(|| Deframer::new(1 << 30));
        deframer.push(bytes);
        let mut frames = Vec::new();
        while let Some(frame) = deframer.next_frame().expect("frames are whole") {
            frames.push(frame);
        }
        let seen = &mut self.seen;
        for frame in frames.into_iter().skip(usize::from(!attached)) {
            client.hear(&frame, seen);
        }
    }
}

impl Client {
    fn hear(&mut self, frame: &Bytes, seen: &mut u64) {
        let mut reader = Reader::new(frame);
        let header = decode_reply_header(&mut reader).expect("it decodes");
        if header.xid == Xid::NOTIFICATION {
            reader.i32("type").expect("it is there");
            reader.i32("state").expect("it is there");
            let path = reader.some_str("path").expect("it is there");
            assert!(self.watching.remove(path.as_str()).is_some(), "it watches {path}");
            return;
        }
        let (request, floor) = self.asked.pop_front().expect("it has asked");
        match request {
            Request::Ping => self.pings += 1,
            Request::Write(WriteRequest::Multi(ops)) => {
                self.writes += 1;
                assert_eq!(header.code, ErrorCode::OK);
                let error = reader.i32("type").expect("it is there") == -1;
                let fails = matches!(ops.last(), Some(WriteRequest::Check { .. }));
                assert_eq!(error, fails);
                if let Some(WriteRequest::SetData { data: Some(data), .. }) = ops.first()
                    && !fails
                {
                    self.found("", value(data), floor, seen);
                }
            }
            Request::Write(_) => assert_eq!(header.code, ErrorCode::OK),
            Request::Read(ReadRequest::MultiRead(items)) => {
                let mut values = Vec::new();
                for (_, path) in &items {
                    reader.i32("type").expect("it is there");
                    reader.bool("done").expect("it is there");
                    reader.i32("err").expect("it is there");
                    let data = reader.buffer("data").expect("it is there").expect("it has some");
                    reader.stat().expect("it is there");
                    values.push(value(&data));
                    self.found(path, value(&data), floor, seen);
                }
                assert!(values.windows(2).all(|two| two[0] == two[1]), "{values:?}");
                self.reads += 1;
            }
            Request::Read(ReadRequest::GetData(target)) => {
                let data = reader.buffer("data").expect("it is there").expect("it has some");
                self.found(&target.path, value(&data), floor, seen);
                if target.watch {
                    self.watching.insert(target.path.to_string(), value(&data));
                }
                self.reads += 1;
            }
            _ => unreachable!("nobody asks this"),
        }
    }

    /// A reply shows this value of a znode, or of all.
    fn found(&mut self, path: &str, value: u64, floor: u64, seen: &mut u64) {
        assert!(floor <= value, "{value} was read after somebody had seen {floor}");
        assert!(self.read <= value, "{value} was read after {}", self.read);
        self.read = value;
        *seen = value.max(*seen);
        for (watched, before) in &self.watching {
            let concerns = path.is_empty() || path == watched;
            assert!(!concerns || value <= *before, "{watched} changed without an event");
        }
    }
}

fn multi(value: u64, fails: bool) -> Request {
    let data = Some(Bytes::from(value.to_string().into_bytes()));
    let set = |number| WriteRequest::SetData {
        path: Str::from(path(number)),
        data: data.clone(),
        version: -1,
    };
    let mut ops: Vec<WriteRequest> = (0..ZNODES).map(set).collect();
    if fails {
        ops.push(WriteRequest::Check { path: Str::from(path(0)), version: 1_000_000 });
    }
    Request::Write(WriteRequest::Multi(ops))
}

fn multi_read() -> Request {
    let read = |number| (MultiReadKind::GetData, Str::from(path(number)));
    Request::Read(ReadRequest::MultiRead((0..ZNODES).map(read).collect()))
}

fn small() -> Slices {
    Slices { long_steps: 9, told: 2, ops: 5, decoded_ops: 3, ..Slices::default() }
}

#[test]
fn half_a_multi_is_seen_nowhere_and_a_multi_read_shows_one_state() {
    for seed in 0..40 {
        let slices = if seed % 4 == 0 { Slices::default() } else { small() };
        let mut pair = Pair::new(slices, seed);
        let conns: Vec<ConnId> = (0..6).map(|number| pair.connect(number % 2)).collect();
        let writer = conns[0];
        for number in 0..ZNODES {
            pair.ask(writer, requests::create(&path(number), b"0", 0));
        }
        pair.settle();
        let mut value = 0;
        for _ in 0..400 {
            let conn = conns[pair.prng.below(conns.len() as u64) as usize];
            let number = pair.prng.below(ZNODES as u64) as usize;
            match pair.prng.below(12) {
                0 => {
                    let fails = pair.prng.one_in(3);
                    value += u64::from(!fails);
                    // One session writes: values grow in the order of its requests.
                    pair.ask(writer, multi(value, fails));
                }
                1 | 2 => pair.ask(conn, multi_read()),
                3 => pair.ask(conn, requests::get(&path(number), false)),
                4 => pair.ask(conn, requests::get(&path(number), true)),
                5 => pair.ask(conn, Request::Ping),
                shard => pair.turn((shard % 2) as usize),
            }
        }
        pair.settle();
        for client in pair.clients.values() {
            assert!(client.asked.is_empty() && client.reads != 0, "everything is answered");
        }
        assert!(pair.clients.values().any(|client| client.writes != 0 && client.pings != 0));
        assert_eq!(pair.seen, value, "seed {seed}");
    }
}

#[test]
fn a_multi_read_is_made_in_slices_and_holds_back_what_comes_behind() {
    let mut pair = Pair::new(small(), 1);
    let (writer, reader, other) = (pair.connect(0), pair.connect(0), pair.connect(0));
    for number in 0..ZNODES {
        pair.ask(writer, requests::create(&path(number), b"0", 0));
    }
    pair.settle();
    // The writer's own multiRead stands in front of its write.
    for conn in [reader, writer] {
        pair.ask(conn, multi_read());
    }
    pair.ask(writer, multi(1, false));
    let mut out = Vec::new();
    for input in std::mem::take(&mut pair.inputs[0]) {
        pair.server.step(pair.clock(), input, &mut out);
    }
    let mut turns = 0;
    loop {
        pair.server.turn_end(pair.clock(), &mut out);
        turns += 1;
        let done = |id: &FileOpId| Input::FileDone { id: *id, result: Ok(()) };
        let ids: Vec<FileOpId> = out
            .iter()
            .filter_map(|output| match output {
                Output::File { id, .. } => Some(*id),
                _ => None,
            })
            .collect();
        for id in &ids {
            pair.server.step(pair.clock(), done(id), &mut out);
        }
        let answers: Vec<Output> = std::mem::take(&mut out)
            .into_iter()
            .filter(|output| matches!(output, Output::Send { .. }))
            .collect();
        for answer in answers {
            if let Output::Send { conn, bytes } = answer {
                pair.receive(conn, bytes);
            }
        }
        if turns == 2 {
            // Others read meanwhile, and see what the two see.
            assert!(pair.server.wants_turn());
            pair.ask(other, requests::get(&path(0), false));
            for input in std::mem::take(&mut pair.inputs[0]) {
                pair.server.step(pair.clock(), input, &mut out);
            }
        }
        if turns == 4 {
            assert_eq!(pair.clients[&other].reads, 1);
            assert_eq!(pair.clients[&writer].writes, 0);
        }
        if !pair.server.wants_turn() {
            break;
        }
    }
    // Three ops in a slice; two slices in a turn, and the writer's come behind the reader's.
    assert!(5 <= turns, "{turns} turns");
    assert_eq!(pair.clients[&reader].reads, 1);
    assert_eq!((pair.clients[&writer].reads, pair.clients[&writer].writes), (1, 1));
    assert_eq!(pair.clients[&reader].read, 0);
    assert_eq!(pair.seen, 1);
}

/// Znodes that have this value.
fn changed(pair: &Pair, value: u64) -> usize {
    let tree = pair.server.tree();
    let data = |number| tree.get(&path(number)).and_then(|znode| znode.data().map(<[u8]>::to_vec));
    (0..ZNODES).filter(|number| data(*number) == Some(value.to_string().into_bytes())).count()
}

#[test]
fn a_multi_is_read_in_slices_while_others_go_on() {
    let mut pair = Pair::new(small(), 1);
    let (writer, idle) = (pair.connect(0), pair.connect(0));
    for number in 0..ZNODES {
        pair.ask(writer, requests::create(&path(number), b"0", 0));
    }
    pair.settle();
    pair.ask(writer, multi(1, true));
    pair.ask(writer, multi(2, false));
    let (mut out, mut turns) = (Vec::new(), 0);
    for input in std::mem::take(&mut pair.inputs[0]) {
        pair.server.step(pair.clock(), input, &mut out);
    }
    while pair.server.pipeline.outstanding() < 2 {
        pair.ask(idle, Request::Ping);
        for input in std::mem::take(&mut pair.inputs[0]) {
            pair.server.step(pair.clock(), input, &mut out);
        }
        assert!(pair.server.wants_turn());
        pair.server.turn_end(pair.clock(), &mut out);
        turns += 1;
        for output in std::mem::take(&mut out) {
            match output {
                Output::Send { conn, bytes } => pair.receive(conn, bytes),
                Output::File { id, .. } => pair.push(0, Input::FileDone { id, result: Ok(()) }),
                _ => {}
            }
        }
        assert_eq!(pair.clients[&idle].pings, turns, "others are answered");
    }
    // 13 ops and their end, then 12 and theirs, 3 at once, at most twice a turn.
    assert!(5 <= turns, "{turns} turns");
    pair.settle();
    assert_eq!(pair.clients[&writer].writes, 2);
    assert_eq!(changed(&pair, 2), ZNODES);
}

#[test]
fn a_multi_is_judged_and_applied_in_slices_and_seen_whole() {
    let decoded_ops = Slices::default().decoded_ops;
    let mut pair = Pair::new(Slices { decoded_ops, ..small() }, 1);
    let (writer, reader, idle) = (pair.connect(0), pair.connect(0), pair.connect(0));
    let behind = pair.connect(0);
    for number in 0..ZNODES {
        pair.ask(writer, requests::create(&path(number), b"0", 0));
    }
    pair.ask(reader, requests::get(&path(0), true));
    pair.settle();
    // It is judged in slices; a write behind it waits, and is judged by what it leaves.
    pair.ask(writer, multi(1, true));
    pair.ask(writer, multi(2, false));
    let after = WriteRequest::SetData { path: path(0).into(), data: Some("2".into()), version: 1 };
    pair.ask(behind, Request::Write(after));
    let mut out = Vec::new();
    let mut turns = 0;
    for input in std::mem::take(&mut pair.inputs[0]) {
        pair.server.step(pair.clock(), input, &mut out);
    }
    while pair.server.pipeline.is_preparing() || pair.server.pipeline.wants_turn() {
        pair.server.turn_end(pair.clock(), &mut out);
        turns += 1;
    }
    // 13 ops are judged and 12 changes taken back, then 12 ops are judged.
    assert!((13 + 12 + 12) / 5 <= turns, "{turns} turns");
    assert_eq!(pair.server.pipeline.outstanding(), 3);

    // It is applied in slices; meanwhile pings are answered and nothing is read.
    let (mut turns, before) = (0, pair.server.published());
    while pair.server.published().0 < before.0 + 3 {
        for output in std::mem::take(&mut out) {
            match output {
                Output::File { id, .. } => {
                    let input = Input::FileDone { id, result: Ok(()) };
                    pair.server.step(pair.clock(), input, &mut out);
                }
                Output::Send { conn, bytes } => pair.receive(conn, bytes),
                _ => {}
            }
        }
        let was = changed(&pair, 2);
        pair.ask(idle, Request::Ping);
        if changed(&pair, 2) == 5 {
            pair.ask(reader, multi_read());
        }
        for input in std::mem::take(&mut pair.inputs[0]) {
            pair.server.step(pair.clock(), input, &mut out);
        }
        pair.server.turn_end(pair.clock(), &mut out);
        let is = changed(&pair, 2);
        assert!(is <= was + 5, "{was} and then {is} are changed in one turn");
        if pair.server.pipeline.is_applying() {
            assert_eq!(pair.server.published().0, before.0 + 1);
            assert_eq!(pair.clients[&reader].reads, 1, "nobody reads a part");
            assert_eq!(pair.clients[&reader].watching.len(), 1, "nor hears of it");
            assert!(turns <= pair.clients[&idle].pings, "pings are answered");
            turns += 1;
        }
    }
    assert_eq!(turns, 1, "a slice when the disk has it, and one in each of two turns");
    for output in out {
        if let Output::Send { conn, bytes } = output {
            pair.receive(conn, bytes);
        }
    }
    pair.settle();
    assert_eq!(pair.clients[&writer].writes, 2);
    assert!(pair.clients[&reader].watching.is_empty(), "it has heard");
    assert!(pair.clients.values().all(|client| client.asked.is_empty()));
    assert_eq!(changed(&pair, 2), ZNODES);
}

#[test]
fn a_long_reply_is_made_while_long_multis_of_others_are_applied() {
    let mut pair = Pair::new(Slices { long_steps: 1, ..small() }, 1);
    let (one, others) = (pair.connect(0), pair.connect(0));
    for number in 0..ZNODES {
        pair.ask(one, requests::create(&path(number), b"0", 0));
    }
    pair.settle();
    pair.ask(one, multi(1, false));
    (2..100).for_each(|value| pair.ask(others, multi(value, false)));
    while pair.clients[&one].writes == 0 {
        assert!(!pair.is_idle(), "it is answered");
        pair.turn(0);
    }
    let answered_at = pair.server.published();
    pair.settle();
    assert_eq!(pair.clients[&others].writes, 98);
    // Twelve slices, one in each turn. If they were made only between txns, it would be 76.
    let behind = pair.server.published().0 - answered_at.0;
    assert!(85 < behind, "it came {behind} txns before the last");
}
