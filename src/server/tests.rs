//! The server machine by itself, with a disk and a clock that do what a test says.

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;

use bytes::{BufMut, Bytes, BytesMut};

use super::recovery::{Answer, Recovered, Recovery, Step};
use super::*;
use crate::auth::AuthConfig;
use crate::base::{Duration, FileDir, FileFailure, FileOp, FileOpId, Instant, Str, WallMs};
use crate::limits;
use crate::model::request::{PathWatch, RawAcl};
use crate::model::{
    ConnId, CreateKind, CreateRequest, ErrorCode, ExtendedTypes, Perms, ReadRequest, Request,
    SessionId, WriteRequest, Xid, Zxid,
};
use crate::tree::TreeOptions;
use crate::wire::client::{decode_reply_header, encode_request};
use crate::wire::connect::{ConnectRequest, ConnectResponse};
use crate::wire::frame::Deframer;
use crate::wire::jute::Reader;

pub(super) fn options() -> ServerOptions {
    ServerOptions {
        tick_ms: 100,
        session_timeout_ms_min: 200,
        session_timeout_ms_max: 60_000,
        frame_bytes_max: 1 << 20,
        txn_bytes_max: 2 << 20,
        outstanding_requests_max: 1000,
        large_requests: LargeRequests { threshold: None, bytes_max: 0 },
        request_throttle: RequestThrottle::default(),
        connection_throttle: ConnectionThrottleConfig::default(),
        auth: AuthConfig::default(),
        words_allowed: WordsAllowed::All,
        reconfig_enabled: false,
        fsync_warning_threshold: Duration::from_millis(1_000_000),
        audit_user: None,
        extended_types: ExtendedTypes::Off,
        enforce_quotas: false,
        reaping: Reaping {
            every: Duration::from_millis(1_000_000),
            spacing: Duration::from_millis(1),
            never_used_ms: 0,
        },
        digests: true,
        snap_txn_count: 1 << 40,
        snap_log_bytes: 0,
        snap_retain_count: 3,
        segment_bytes: 4 << 20,
        inflight_bytes_max: limits::PIPELINE_INFLIGHT_BYTES_MAX,
        sessionless_timeout: Duration::from_millis(10_000),
        server_id: 1,
        ensemble: None,
        environment: Vec::new(),
        conf_text: String::new(),
        slices: Slices::default(),
    }
}

/// What an empty disk is recovered to.
pub(super) fn nothing_on_disk() -> Recovered {
    let tree = TreeOptions { extended_types: ExtendedTypes::Off, digests: true };
    let mut recovery = Recovery::new(tree, 1);
    let mut answer = Answer::Start;
    loop {
        answer = match recovery.step(answer) {
            Step::List(_) => Answer::Listing(Vec::new()),
            Step::Run(_) => Answer::Ran(Ok(())),
            Step::Done(recovered) => return *recovered,
            _ => unreachable!("there is nothing on this disk"),
        };
    }
}

/// The clock's first time, in nanoseconds.
const START: u64 = 1_000_000_000;

/// A server with one shard, its disk and its clients.
pub(super) struct World {
    pub(super) server: Server,
    pub(super) now: Instant,
    /// File operations that have not ended.
    files: Vec<FileOpId>,
    clients: BTreeMap<ConnId, Client>,
    /// How many snapshots were begun.
    pub(super) snapshots: usize,
    /// No file can be made: the disk is full.
    full: bool,
    /// Those of `files` that fail for that.
    failing: BTreeSet<FileOpId>,
    stopped: bool,
}

#[derive(Default)]
struct Client {
    deframer: Option<Deframer>,
    session: SessionId,
    /// Bytes that were sent to it, and not yet told to be.
    unsent: usize,
    paused: bool,
    closed: bool,
    answers: Vec<(Xid, ErrorCode)>,
}

impl World {
    pub(super) fn new(options: ServerOptions) -> Self {
        Self::with_satellites(options, 0)
    }

    /// Satellites that do nothing, but have their share of the limits.
    fn with_satellites(options: ServerOptions, satellites: u16) -> Self {
        let recovered = nothing_on_disk();
        let now = Instant(START);
        let clock = Clock { now, wall: WallMs(1_700_000_000_000) };
        let (server, _) = Server::new(options, recovered, satellites, 7, clock);
        let (files, clients) = (Vec::new(), BTreeMap::new());
        let mut world = Self {
            server,
            now,
            files,
            clients,
            snapshots: 0,
            full: false,
            failing: BTreeSet::new(),
            stopped: false,
        };
        world.settle();
        world
    }

    pub(super) fn clock(&self) -> Clock {
        let passed = self.now.since(Instant(START)).as_millis();
        Clock { now: self.now, wall: WallMs(1_700_000_000_000 + passed.cast_signed()) }
    }

    /// Hands over inputs, then ends turns until there is nothing left to do.
    fn turn(&mut self, inputs: Vec<Input>) {
        let mut out = Vec::new();
        for input in inputs {
            self.server.step(self.clock(), input, &mut out);
        }
        self.server.turn_end(self.clock(), &mut out);
        while self.server.wants_turn() {
            self.server.turn_end(self.clock(), &mut out);
        }
        self.carry_out(out);
    }

    pub(super) fn carry_out(&mut self, out: Vec<Output>) {
        for output in out {
            match output {
                Output::Send { conn, bytes } => self.client(conn).receive(bytes),
                Output::PauseReading { conn } => self.client(conn).paused = true,
                Output::ResumeReading { conn } => self.client(conn).paused = false,
                Output::Close { conn } | Output::Abort { conn } => self.client(conn).closed = true,
                Output::File { id, op } => {
                    self.files.push(id);
                    if self.full && matches!(op, FileOp::Create { .. }) {
                        self.failing.insert(id);
                    }
                    let is_snapshot =
                        matches!(op, FileOp::Create { file } if file.dir == FileDir::Data);
                    self.snapshots += usize::from(is_snapshot);
                }
                Output::Publish(_) | Output::Mesh { .. } => {}
                Output::Stopped => self.stopped = true,
                Output::Halt(halt) => panic!("{halt}"),
                Output::Peer(_)
                | Output::Listen(_)
                | Output::Recover { .. }
                | Output::Read { .. } => {
                    panic!("it is alone")
                }
            }
        }
    }

    /// Lets every file operation end, those that follow included.
    pub(super) fn settle(&mut self) {
        while let Some(id) = self.files.pop() {
            let result = match self.failing.remove(&id) {
                true => Err(FileFailure {
                    no_space: true,
                    no_descriptor: false,
                    text: "the disk is full".into(),
                }),
                false => Ok(()),
            };
            self.turn(vec![Input::FileDone { id, result }]);
        }
    }

    /// Lets one file operation end, and nothing else happen.
    pub(super) fn finish_a_file(&mut self, out: &mut Vec<Output>) {
        let id = self.files.pop().expect("something is under way");
        self.server.step(self.clock(), Input::FileDone { id, result: Ok(()) }, out);
    }

    pub(super) fn is_closed(&self, conn: ConnId) -> bool {
        self.clients.get(&conn).is_some_and(|client| client.closed)
    }

    /// Time passes, and timers that are due are run.
    pub(super) fn pass(&mut self, ms: u64) {
        let until = self.now + Duration::from_millis(ms);
        while self.now < until {
            self.now = self.now + Duration::from_millis(5).min(until.since(self.now));
            if self.server.next_timer().is_some_and(|due| due <= self.now) {
                self.turn(vec![Input::Timer]);
            }
        }
    }

    fn client(&mut self, conn: ConnId) -> &mut Client {
        self.clients.get_mut(&conn).expect("it is connected")
    }

    /// A connection on which nothing is sent.
    pub(super) fn open(&mut self, number: u64) -> ConnId {
        let conn = ConnId(number);
        self.clients.insert(conn, Client::default());
        self.turn(vec![Input::Opened { conn, peer: SocketAddr::from(([127, 0, 0, 1], 1)) }]);
        conn
    }

    fn hello(&mut self, number: u64, timeout_ms: i32) -> ConnId {
        let conn = self.open(number);
        let hello = ConnectRequest {
            protocol_version: 0,
            last_zxid_seen: Zxid::ZERO,
            timeout_ms,
            session: SessionId(0),
            password: None,
            read_only: false,
            has_read_only: true,
        };
        let mut buf = BytesMut::new();
        hello.encode(&mut buf);
        self.turn(vec![Input::Received { conn, bytes: buf.freeze() }]);
        conn
    }

    pub(super) fn connect(&mut self, number: u64, timeout_ms: i32) -> ConnId {
        let conn = self.hello(number, timeout_ms);
        self.settle();
        assert_ne!(self.client(conn).session, SessionId(0), "it is attached");
        conn
    }

    /// Sends requests in one chunk; their xids count from 1.
    pub(super) fn send(&mut self, conn: ConnId, requests: &[Request]) {
        let mut buf = BytesMut::new();
        for (number, request) in requests.iter().enumerate() {
            let xid = Xid(i32::try_from(number).expect("few") + 1);
            encode_request(xid, request, &mut buf);
        }
        self.turn(vec![Input::Received { conn, bytes: buf.freeze() }]);
    }

    pub(super) fn codes(&mut self, conn: ConnId) -> Vec<ErrorCode> {
        self.client(conn).answers.drain(..).map(|(_, code)| code).collect()
    }

    /// The client takes what was sent to it.
    fn take(&mut self, conn: ConnId) {
        let bytes = std::mem::take(&mut self.client(conn).unsent);
        self.turn(vec![Input::Sent { conn, bytes }]);
    }
}

impl Client {
    fn receive(&mut self, bytes: Bytes) {
        self.unsent += bytes.len();
        let attached = self.deframer.is_some();
        let deframer = self.deframer.get_or_insert_with(|| Deframer::new(1 << 30));
        deframer.push(bytes);
        if !attached {
            let frame = deframer.next_frame().expect("frames are whole").expect("it is there");
            self.session = ConnectResponse::decode(&frame).expect("it decodes").session;
        }
        while let Some(frame) = deframer.next_frame().expect("frames are whole") {
            let header = decode_reply_header(&mut Reader::new(&frame)).expect("it decodes");
            self.answers.push((header.xid, header.code));
        }
    }
}

pub(super) fn create(path: &str, data: usize) -> Request {
    let (world, anyone) = (Some(Str::from_static("world")), Some(Str::from_static("anyone")));
    Request::Write(WriteRequest::Create(CreateRequest {
        kind: CreateKind::Create,
        path: path.into(),
        data: Some(Bytes::from(vec![b'x'; data])),
        acl: Some(vec![RawAcl { perms: Perms::ALL, scheme: world, id: anyone }]),
        flags: 0,
    }))
}

fn get(path: &str) -> Request {
    Request::Read(ReadRequest::GetData(PathWatch { path: path.into(), watch: false }))
}

#[test]
fn requests_that_waited_too_long_are_not_executed() {
    for (op_wait_ms, expected) in [(100, ErrorCode::THROTTLED_OP), (500, ErrorCode::OK)] {
        let throttle = RequestThrottle {
            requests_max: 1,
            op_wait: Duration::from_millis(op_wait_ms),
            ..RequestThrottle::default()
        };
        let mut world = World::new(ServerOptions { request_throttle: throttle, ..options() });
        let (first, second) = (world.connect(1, 10_000), world.connect(2, 10_000));
        world.send(first, &[create("/a", 1)]);
        world.send(second, &[get("/a"), Request::Ping, get("/a")]);
        world.pass(200);
        assert_eq!(world.codes(second), []);
        assert!(world.client(second).paused, "it is not read");
        world.settle();
        assert_eq!(world.codes(first), [ErrorCode::OK]);
        assert_eq!(world.codes(second), [expected, ErrorCode::OK, expected]);
        assert!(!world.client(second).paused);
        world.send(second, &[get("/a")]);
        assert_eq!(world.codes(second), [ErrorCode::OK], "what comes later is not late");
    }
}

#[test]
fn stale_requests_close_their_connection() {
    let throttle =
        RequestThrottle { requests_max: 1, drops_stale: true, ..RequestThrottle::default() };
    let mut world = World::new(ServerOptions { request_throttle: throttle, ..options() });
    let (first, second) = (world.connect(1, 10_000), world.connect(2, 300));
    world.send(first, &[create("/a", 1)]);
    world.send(second, &[get("/a")]);
    world.pass(400);
    world.settle();
    assert_eq!(world.codes(first), [ErrorCode::OK]);
    assert_eq!(world.codes(second), []);
    assert!(world.client(second).closed);
}

#[test]
fn what_is_outstanding_in_all_is_bounded() {
    let mut world = World::new(ServerOptions { outstanding_requests_max: 4, ..options() });
    let conns: Vec<ConnId> = (0..5).map(|number| world.connect(number, 10_000)).collect();
    for conn in &conns {
        let requests: Vec<Request> =
            (0..4).map(|number| create(&format!("/{}-{number}", conn.0), 1)).collect();
        world.send(*conn, &requests);
    }
    // Who has nothing outstanding may always send one.
    assert_eq!(world.server.pipeline.outstanding(), 4 + 4);
    for conn in conns.iter().skip(1) {
        assert!(world.client(*conn).paused, "{conn:?}");
    }
    world.settle();
    for conn in conns {
        assert_eq!(world.codes(conn), [ErrorCode::OK; 4], "{conn:?}");
        assert!(!world.client(conn).paused, "{conn:?}");
    }
}

#[test]
fn unread_input_counts_as_life() {
    let mut world = World::new(ServerOptions { outstanding_requests_max: 1, ..options() });
    let conn = world.connect(1, 300);
    let silent = world.connect(2, 300);
    // Its write waits for the disk, its pings are not read.
    world.send(conn, &[create("/a", 1), Request::Ping]);
    assert!(world.client(conn).paused);
    world.pass(3_000);
    assert!(
        world.client(silent).closed
            || !world.server.pipeline.sessions().is_live(world.clients[&silent].session),
        "a silent client's session ends"
    );
    world.settle();
    assert_eq!(world.codes(conn), [ErrorCode::OK, ErrorCode::OK]);
    assert!(!world.client(conn).closed);
}

#[test]
fn the_time_of_a_stall_is_nobodys_fault() {
    let mut world = World::new(options());
    let conn = world.connect(1, 300);
    let session = world.client(conn).session;
    let is_live = |world: &World| world.server.pipeline.sessions().is_live(session);
    for stall_ms in [200, 1_000, 60_000] {
        world.send(conn, &[Request::Ping]);
        world.pass(250);
        // Nothing runs, then the timers that were due run before the input that has come.
        world.now = world.now + Duration::from_millis(stall_ms);
        world.turn(vec![Input::Timer]);
        world.turn(vec![Input::Timer]);
        assert!(is_live(&world), "{stall_ms} ms");
        world.send(conn, &[Request::Ping]);
        world.pass(250);
        assert!(is_live(&world), "{stall_ms} ms");
    }
    world.pass(1_000);
    assert!(!is_live(&world), "silence is its own fault");
}

#[test]
fn a_client_that_does_not_read_is_not_served_more() {
    let mut world = World::new(options());
    let conn = world.connect(1, 60_000);
    world.send(conn, &[create("/big", 1_000_000)]);
    world.settle();
    world.take(conn);
    world.codes(conn);
    world.send(conn, &vec![get("/big"); 100]);
    let served = world.codes(conn).len();
    assert!(served * 1_000_000 <= limits::CONN_UNSENT_BYTES_MAX + 1_100_000, "{served}");
    assert!(world.client(conn).paused);
    let mut all = served;
    while all < 100 {
        world.take(conn);
        let more = world.codes(conn).len();
        assert_ne!(more, 0, "it goes on");
        all += more;
    }
    world.take(conn);
    assert!(!world.client(conn).paused && !world.client(conn).closed);
}

#[test]
fn reads_before_a_write_run_before_it_or_not_at_all() {
    let mut world = World::new(options());
    let conn = world.connect(1, 60_000);
    world.send(conn, &[create("/big", 1_000_000)]);
    world.settle();
    world.take(conn);
    world.codes(conn);
    // Each read waits for the write before it, and must run before the one behind it.
    let reads = |count| vec![get("/big"); count];
    let write = || vec![create("/other", 1)];
    world.send(conn, &[write(), reads(30), write()].concat());
    world.settle();
    assert_eq!(world.codes(conn).len(), 32);
    world.take(conn);
    world.send(conn, &[write(), reads(300), write()].concat());
    world.settle();
    assert!(world.client(conn).closed, "300 MB are not kept for one client");
}

#[test]
fn slow_readers_are_closed_when_all_they_owe_is_too_much() {
    let mut world = World::with_satellites(options(), limits::SHARDS_MAX - 1);
    let max = limits::UNSENT_BYTES_MAX / usize::from(limits::SHARDS_MAX);
    let reader = world.connect(0, 60_000);
    world.send(reader, &[create("/big", 900_000)]);
    world.settle();
    world.take(reader);
    world.codes(reader);
    let slow: Vec<ConnId> = (1..=8).map(|number| world.connect(number, 60_000)).collect();
    for conn in &slow {
        world.take(*conn);
        world.send(*conn, &[get("/big"), get("/big")]);
    }
    let owed = |world: &World| slow.iter().map(|conn| world.clients[conn].unsent).sum::<usize>();
    assert!((max..max + 3_000_000).contains(&owed(&world)), "{}", owed(&world));
    world.send(reader, &[get("/big")]);
    assert_eq!(world.codes(reader), [], "there is no room for its reply");
    // They take nothing at all.
    world.pass(5_000);
    assert!(slow.iter().any(|conn| world.clients[conn].closed), "somebody must go");
    assert_eq!(world.codes(reader), [ErrorCode::OK], "others are served");
}

/// A client that takes no replies cannot be heard. It lives as long as it takes some of them.
#[test]
fn who_takes_no_replies_lives_no_longer_than_its_timeout() {
    for takes_some in [false, true] {
        let mut world = World::new(options());
        let conn = world.connect(1, 4_000);
        world.send(conn, &[create("/big", 900_000)]);
        world.settle();
        world.take(conn);
        let reads: Vec<Request> = (0..30).map(|_| get("/big")).collect();
        world.send(conn, &reads);
        assert!(world.client(conn).paused, "it is not read");
        for _ in 0..10 {
            world.pass(1_000);
            if takes_some {
                world.client(conn).unsent -= 1_000;
                world.turn(vec![Input::Sent { conn, bytes: 1_000 }]);
            }
            world.settle();
        }
        assert_eq!(world.client(conn).closed, !takes_some);
    }
}

/// Who is not read for want of room is not silent: whoever counts the time hears of it.
#[test]
fn who_is_not_read_for_want_of_room_is_told_to_live() {
    let mut world = World::new(ServerOptions { outstanding_requests_max: 1, ..options() });
    let (first, second) = (world.connect(1, 4_000), world.connect(2, 4_000));
    world.send(first, &[create("/a", 1)]);
    world.send(second, &[create("/b", 1), create("/c", 1)]);
    assert!(world.client(second).paused, "it is not read");
    let session = world.client(second).session;
    for _ in 0..10 {
        world.pass(1_000);
        let expires = world.server.pipeline.sessions().expires(session).expect("it lives");
        assert!(world.now + Duration::from_millis(3_000) <= expires);
    }
}

/// What waits for room was promised to nobody: it does not keep the server from ending.
#[test]
fn a_server_without_room_for_its_log_stops() {
    for is_stuck in [false, true] {
        let mut world = World::new(options());
        let conn = world.connect(1, 60_000);
        world.full = true;
        for number in 0..6 {
            world.send(conn, &[create(&format!("/{number}"), 900_000)]);
            world.settle();
        }
        let delete = Request::Write(WriteRequest::Delete { path: "/none".into(), version: -1 });
        world.codes(conn);
        let mut is_answered = is_stuck;
        while is_answered {
            world.send(conn, std::slice::from_ref(&delete));
            world.settle();
            is_answered = !world.codes(conn).is_empty();
        }
        world.turn(vec![Input::Stop]);
        world.settle();
        for _ in 0..20 {
            world.pass(1_000);
            world.settle();
        }
        assert!(world.stopped, "stuck: {is_stuck}");
    }
}

#[test]
fn many_beginnings_of_long_frames_do_not_fill_the_memory() {
    let mut world = World::new(options());
    let room = limits::OUTSTANDING_BYTES_MAX / 1_000_000;
    let conns: Vec<ConnId> =
        (0..room as u64 + 5).map(|number| world.connect(number, 60_000)).collect();
    let beginning = Bytes::from_static(&[0, 0x0f, 0x42, 0x40, 0, 0, 0, 1, 0, 0, 0, 1]);
    for conn in &conns {
        world.turn(vec![Input::Received { conn: *conn, bytes: beginning.clone() }]);
    }
    let paused = |world: &World| conns.iter().filter(|conn| world.clients[conn].paused).count();
    assert_eq!(paused(&world), 5, "the last ones wait for room");
    // Those that have it send nothing more: they are closed, the others go on.
    world.pass(11_000);
    let closed = conns.iter().filter(|conn| world.clients[conn].closed).count();
    assert_eq!(closed, room);
    for conn in conns.iter().take(room) {
        world.turn(vec![Input::Closed { conn: *conn }]);
    }
    assert_eq!(paused(&world), 0);
}

#[test]
fn large_requests_beyond_their_limit_close_their_connection() {
    let guard = LargeRequests { threshold: Some(1_000), bytes_max: 5_000 };
    let mut world = World::new(ServerOptions { large_requests: guard, ..options() });
    let (first, second) = (world.connect(1, 10_000), world.connect(2, 10_000));
    world.send(first, &[create("/a", 900), create("/b", 2_000), create("/c", 2_000)]);
    world.send(second, &[create("/d", 2_000)]);
    assert!(world.client(second).closed && !world.client(first).closed);
    world.settle();
    assert_eq!(world.codes(first), [ErrorCode::OK; 3]);
    let third = world.connect(3, 10_000);
    world.send(third, &[create("/d", 2_000)]);
    world.settle();
    assert_eq!(world.codes(third), [ErrorCode::OK]);
}

#[test]
fn handshakes_beyond_the_bucket_are_refused() {
    let throttle = ConnectionThrottleConfig {
        tokens: 2,
        fill_time_ms: 1_000,
        ..ConnectionThrottleConfig::default()
    };
    let mut world = World::new(ServerOptions { connection_throttle: throttle, ..options() });
    world.connect(1, 10_000);
    world.connect(2, 10_000);
    let third = world.hello(3, 10_000);
    world.settle();
    assert!(world.client(third).closed);
    assert_eq!(world.client(third).session, SessionId(0), "without a word");
    world.pass(1_100);
    world.connect(4, 10_000);
}

#[test]
fn txns_that_nobody_could_read_are_refused() {
    let mut world = World::new(ServerOptions { txn_bytes_max: 10_000, ..options() });
    let conn = world.connect(1, 10_000);
    let multi = |count: usize| {
        let ops = (0..count).map(|number| create(&format!("/m{number}"), 1_000));
        let ops = ops.filter_map(|op| match op {
            Request::Write(write) => Some(write),
            _ => None,
        });
        Request::Write(WriteRequest::Multi(ops.collect()))
    };
    world.send(conn, &[create("/a", 9_900), create("/b", 9_990), multi(10), multi(9), get("/m8")]);
    world.settle();
    let refused = ErrorCode::BAD_ARGUMENTS;
    assert_eq!(world.codes(conn), [ErrorCode::OK, refused, refused, ErrorCode::OK, ErrorCode::OK]);
}

/// What an identity stands for may be long, and is written down for each entry.
#[test]
fn an_acl_that_would_be_longer_than_a_txn_is_refused_before_it_is_written() {
    let mut world = World::new(options());
    let conn = world.connect(1, 60_000);
    let (scheme, user) = (Some(Str::from_static("digest")), format!("{}:p", "u".repeat(60_000)));
    let auth = Some(Bytes::from(user));
    let entry = |perms| RawAcl { perms: Perms(perms), scheme: Some("auth".into()), id: None };
    let create = |entries| {
        WriteRequest::Create(CreateRequest {
            kind: CreateKind::Create,
            path: "/a".into(),
            data: None,
            acl: Some((0..entries).map(entry).collect()),
            flags: 0,
        })
    };
    world.send(
        conn,
        &[
            Request::Auth { scheme, auth },
            // More than 2 GiB.
            Request::Write(WriteRequest::Multi(vec![create(40_000)])),
            Request::Write(WriteRequest::Multi(vec![create(2)])),
        ],
    );
    world.settle();
    assert_eq!(world.codes(conn), [ErrorCode::OK, ErrorCode::BAD_ARGUMENTS, ErrorCode::OK]);
}

/// What is behind it may be the rest of a frame of which the first half was thrown away.
#[test]
fn nothing_is_taken_in_behind_a_request_that_ends_its_connection() {
    let mut world = World::new(options());
    let conn = world.connect(1, 60_000);
    world.send(conn, &[create("/a", 1)]);
    let mut unknown = BytesMut::new();
    for word in [8, 2, 999] {
        unknown.put_i32(word);
    }
    world.turn(vec![Input::Received { conn, bytes: unknown.freeze() }]);
    world.send(conn, &[create("/b", 1)]);
    world.settle();
    assert_eq!(world.codes(conn), [ErrorCode::OK, ErrorCode::UNIMPLEMENTED]);
    assert!(world.server.tree().get("/b").is_none());
}

#[test]
fn a_multi_read_has_no_more_than_a_reply_may_have() {
    let mut world = World::new(options());
    let conn = world.connect(1, 60_000);
    world.send(conn, &[create("/a", 900_000)]);
    world.settle();
    let read = |count| {
        Request::Read(ReadRequest::MultiRead(vec![
            (
                crate::model::request::MultiReadKind::GetData,
                "/a".into()
            );
            count
        ]))
    };
    world.send(conn, &[read(80)]);
    world.settle();
    assert_eq!(world.codes(conn), [ErrorCode::OK, ErrorCode::SYSTEM_ERROR]);
    world.send(conn, &[read(2)]);
    world.settle();
    assert_eq!(world.codes(conn), [ErrorCode::OK]);
}
