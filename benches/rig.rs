//! The server's machines joined without delay, with a disk that answers at once, for benchmarks.

use std::collections::{BTreeMap, VecDeque};
use std::net::SocketAddr;

use bytes::{Bytes, BytesMut};

use ringkeeper::auth::AuthConfig;
use ringkeeper::base::{Duration, Instant, WallMs};
use ringkeeper::client::requests;
use ringkeeper::limits;
use ringkeeper::model::{ConnId, ExtendedTypes, Request, SessionId, ShardId, Xid, Zxid};
use ringkeeper::server::fuzzy::Fuzzy;
use ringkeeper::server::recent::RecentTxns;
use ringkeeper::server::recovery::Recovered;
use ringkeeper::server::{
    Clock, ConnectionThrottleConfig, Input, LargeRequests, Machine, Output, Published, Reaping,
    RequestThrottle, Satellite, Server, ServerOptions, Slices, WordsAllowed,
};
use ringkeeper::tree::{Tree, TreeOptions};
use ringkeeper::txnlog::LogEnd;
use ringkeeper::wire::client::encode_request;
use ringkeeper::wire::connect::ConnectRequest;

/// The shard of the commit pipeline, and the other one.
pub(crate) const HOME: ShardId = ShardId(0);
pub(crate) const SATELLITE: ShardId = ShardId(1);

/// Requests of one input.
const PIPELINE: u64 = 64;
pub(crate) const VALUE: &[u8] = &[b'x'; 100];

/// CPU time of this thread, nanoseconds.
fn cpu_ns() -> u64 {
    let mut time = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    // SAFETY: the kernel fills the struct it is given.
    unsafe { libc::clock_gettime(libc::CLOCK_THREAD_CPUTIME_ID, &raw mut time) };
    u64::try_from(time.tv_sec * 1_000_000_000 + time.tv_nsec).unwrap_or_default()
}

/// The machines, joined without delay.
pub(crate) struct Rig {
    pub(crate) server: Server,
    satellite: Satellite,
    pub(crate) inputs: VecDeque<(ShardId, Input)>,
    published: Published,
    /// Times every call, under the name of the phase.
    metered: bool,
    pub(crate) phase: &'static str,
    /// The time that the machines are told.
    pub(crate) now: Instant,
    /// Phase, kind and nanoseconds of every call.
    pub(crate) calls: Vec<(&'static str, &'static str, u64)>,
    /// Bytes that each connection was sent and nobody has looked at.
    pub(crate) received: BTreeMap<ConnId, BytesMut>,
}

impl Rig {
    pub(crate) fn new(metered: bool) -> Self {
        let tree = Tree::new(TreeOptions { extended_types: ExtendedTypes::Off, digests: true });
        let recovered = Recovered {
            tree,
            sessions: Vec::new(),
            last_zxid: Zxid::ZERO,
            log_end: LogEnd::empty(Zxid::ZERO),
            snapshots: Vec::new(),
            unread_snapshots: Vec::new(),
            epochs: Default::default(),
            replayed_txn_count: 0,
            installed: None,
            fuzzy: Fuzzy::Over,
            lost: None,
            recent: RecentTxns::new(Zxid::ZERO, 0),
        };
        let (server, mut satellites) = Server::new(options(), recovered, 1, 1, clock(Instant(0)));
        Self {
            server,
            satellite: satellites.remove(0),
            inputs: VecDeque::new(),
            published: Published::default(),
            metered,
            phase: "start",
            now: Instant(0),
            calls: Vec::new(),
            received: BTreeMap::new(),
        }
    }

    /// Calls one machine and carries out what it wants.
    fn call(&mut self, shard: ShardId, input: Option<Input>) {
        let kind = match &input {
            None => "turn_end",
            Some(Input::Received { .. }) => "received",
            Some(Input::FileDone { .. }) => "file done",
            Some(Input::Mesh(_)) => "mesh",
            Some(Input::Published(_)) => "published",
            Some(Input::Closed { .. }) => "closed",
            Some(Input::Timer) => "timer",
            Some(_) => "other",
        };
        let kind = match (shard, kind) {
            (HOME, kind) => kind,
            (_, "turn_end") => "satellite turn_end",
            (_, "timer") => "satellite timer",
            (_, "mesh") => "satellite mesh",
            (_, "published") => "satellite published",
            (_, _) => "satellite other",
        };
        let mut outputs = Vec::new();
        let machine: &mut dyn Machine =
            if shard == HOME { &mut self.server } else { &mut self.satellite };
        let before = if self.metered { cpu_ns() } else { 0 };
        match input {
            Some(input) => machine.step(clock(self.now), input, &mut outputs),
            None => machine.turn_end(clock(self.now), &mut outputs),
        }
        if self.metered {
            self.calls.push((self.phase, kind, cpu_ns() - before));
        }
        outputs.into_iter().for_each(|output| self.carry_out(shard, output));
    }

    fn carry_out(&mut self, from: ShardId, output: Output) {
        match output {
            Output::File { id, .. } => {
                self.inputs.push_back((from, Input::FileDone { id, result: Ok(()) }));
            }
            Output::Mesh { to, message, .. } => self.inputs.push_back((to, Input::Mesh(message))),
            Output::Publish(published) => {
                self.published = published;
                self.inputs.push_back((SATELLITE, Input::Published(published)));
            }
            Output::Send { conn, bytes } => {
                self.received.entry(conn).or_default().extend_from_slice(&bytes);
                self.inputs.push_back((from, Input::Sent { conn, bytes: bytes.len() }));
            }
            Output::Close { conn } | Output::Abort { conn } => {
                self.inputs.push_back((from, Input::Closed { conn }));
            }
            Output::Halt(halt) => panic!("{halt}"),
            Output::PauseReading { .. } | Output::ResumeReading { .. } | Output::Stopped => {}
            Output::Peer(_) | Output::Listen(_) | Output::Recover { .. } | Output::Read { .. } => {
                unreachable!("it is alone")
            }
        }
    }

    /// One round: the inputs at hand, then the turns.
    pub(crate) fn round(&mut self) {
        for _ in 0..self.inputs.len() {
            if let Some((shard, input)) = self.inputs.pop_front() {
                self.call(shard, Some(input));
            }
        }
        self.call(HOME, None);
        self.call(SATELLITE, None);
    }

    /// Rounds until nothing is left to do.
    pub(crate) fn settle(&mut self) {
        loop {
            self.round();
            let wanted = self.server.wants_turn() || self.satellite.wants_turn();
            if self.inputs.is_empty() && !wanted {
                return;
            }
        }
    }

    /// A connection of one shard with a session.
    pub(crate) fn open(&mut self, shard: ShardId, conn: ConnId) {
        let peer = SocketAddr::from(([127, 0, 0, 1], 1));
        self.inputs.push_back((shard, Input::Opened { conn, peer }));
        let mut buf = BytesMut::new();
        let hello = ConnectRequest {
            protocol_version: 0,
            last_zxid_seen: Zxid::ZERO,
            timeout_ms: 30_000,
            session: SessionId(0),
            password: Some(Bytes::from_static(&[0; 16])),
            read_only: false,
            has_read_only: true,
        };
        hello.encode(&mut buf);
        self.inputs.push_back((shard, Input::Received { conn, bytes: buf.freeze() }));
        self.settle();
        self.received.clear();
    }

    /// Requests of one connection, in one input.
    pub(crate) fn ask(&mut self, shard: ShardId, conn: ConnId, all: impl Iterator<Item = Request>) {
        let mut buf = BytesMut::new();
        for request in all {
            encode_request(Xid(1), &request, &mut buf);
        }
        self.inputs.push_back((shard, Input::Received { conn, bytes: buf.freeze() }));
    }

    /// Creates paths, a batch at a time.
    pub(crate) fn create(
        &mut self,
        conn: ConnId,
        count: u64,
        flags: i32,
        path: impl Fn(u64) -> String,
    ) {
        for first in (0..count).step_by(usize::try_from(PIPELINE).expect("it is small")) {
            let batch = first..count.min(first + PIPELINE);
            self.ask(HOME, conn, batch.map(|number| requests::create(&path(number), VALUE, flags)));
            self.settle();
            self.received.clear();
        }
    }
}

const fn clock(now: Instant) -> Clock {
    Clock { now, wall: WallMs(1_700_000_000_000) }
}

fn options() -> ServerOptions {
    ServerOptions {
        environment: Vec::new(),
        tick_ms: 2_000,
        session_timeout_ms_min: 4_000,
        session_timeout_ms_max: 40_000,
        frame_bytes_max: 16 << 20,
        txn_bytes_max: 32 << 20,
        large_requests: LargeRequests { threshold: None, bytes_max: 0 },
        request_throttle: RequestThrottle::default(),
        connection_throttle: ConnectionThrottleConfig::default(),
        outstanding_requests_max: 1_000,
        auth: AuthConfig::default(),
        words_allowed: WordsAllowed::All,
        audit_user: None,
        extended_types: ExtendedTypes::Off,
        enforce_quotas: false,
        reaping: Reaping {
            every: Duration::from_millis(60_000),
            spacing: Duration::from_millis(6),
            never_used_ms: 0,
        },
        digests: true,
        snap_txn_count: 1_000_000,
        snap_log_bytes: 0,
        snap_retain_count: 3,
        segment_bytes: 64 << 20,
        inflight_bytes_max: limits::PIPELINE_INFLIGHT_BYTES_MAX,
        sessionless_timeout: Duration::from_millis(10_000),
        server_id: 1,
        ensemble: None,
        conf_text: String::new(),
        slices: Slices::default(),
        fsync_warning_threshold: Duration::from_millis(1_000),
        reconfig_enabled: false,
    }
}
