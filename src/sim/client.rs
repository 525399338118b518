//! A simulated client: real bytes both ways. It writes down what it asked and what it was told for
//! the replay, and judges at once what needs no model: the order of answers, and that nothing
//! shows the past.

use std::collections::VecDeque;

use bytes::{Bytes, BytesMut};

use super::history::{Answer, History, Received};
use super::world::Failure;
use crate::base::{Prng, Str};
use crate::model::request::{PathWatch, RawAcl};
use crate::model::{
    ConnId, CreateKind, CreateRequest, ErrorCode, Perms, ReadRequest, Request, SessionId,
    WriteRequest, Xid, Zxid,
};
use crate::wire::client::{decode_event, decode_reply_header};
use crate::wire::connect::{ConnectRequest, ConnectResponse};
use crate::wire::frame::Deframer;
use crate::wire::jute::Reader;

/// Requests a client keeps in flight.
const PIPELINE: usize = 8;
/// What it asks for unless it is told otherwise, longer than a seed runs.
const TIMEOUT_MS: i32 = 10_000;
/// Looks around between two bursts of requests in a small history, on average.
const ACTS_PER_BURST: u64 = 8;
/// Names of sequential znodes that a client remembers, to delete them.
const NAMES_MAX: usize = 20;

/// One client.
#[derive(Debug)]
pub(super) struct Client {
    number: usize,
    /// Its connection, while it has one.
    pub(super) conn: Option<ConnId>,
    attached: bool,
    /// A server without a quorum will do.
    reads: bool,
    /// Its server has no quorum, and may show what is cut off later.
    is_read_only: bool,
    session: SessionId,
    password: Bytes,
    /// The session timeout that it asks for, ms.
    pub(super) timeout_ms: i32,
    next_xid: i32,
    deframer: Deframer,
    in_flight: VecDeque<InFlight>,
    /// The zxid of its last reply.
    last_zxid: Zxid,
    /// The last txn that it was shown the effects of.
    shown: Zxid,
    /// Sequential znodes that it was told of.
    names: VecDeque<Str>,
    /// In a small history: the simple requests that it may still send.
    left: Option<u64>,
    pub(super) answered: u64,
}

/// A request without its answer.
#[derive(Clone, Debug)]
struct InFlight {
    xid: Xid,
    /// Its place among the connection's exchanges.
    index: usize,
    /// The highest zxid that had been seen when it was sent: by any client of its server, or, for
    /// a sync, by any client at all.
    seen: Zxid,
    asked: Asked,
}

/// What the client itself must know of a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Asked {
    Sequential,
    Close,
    Ping,
    Sync,
    Other,
}

impl Client {
    pub(super) fn new(number: usize) -> Self {
        Self {
            number,
            conn: None,
            attached: false,
            reads: false,
            is_read_only: false,
            session: SessionId(0),
            password: Bytes::from_static(&[0; 16]),
            timeout_ms: TIMEOUT_MS,
            next_xid: 1,
            deframer: Deframer::new(1 << 20),
            in_flight: VecDeque::new(),
            last_zxid: Zxid::ZERO,
            shown: Zxid::ZERO,
            names: VecDeque::new(),
            left: None,
            answered: 0,
        }
    }

    /// Its session; 0 if it has none that it knows of.
    pub(super) const fn session(&self) -> SessionId {
        self.session
    }

    /// Makes it send only so many requests, slowly, of kinds that the second oracle knows.
    pub(super) const fn keep_small(&mut self, requests: u64) {
        self.left = Some(requests);
        self.timeout_ms = TIMEOUT_MS;
    }

    /// Whether the handshake was answered.
    pub(super) const fn is_attached(&self) -> bool {
        self.attached
    }

    /// Begins a connection: the handshake's bytes.
    pub(super) fn connect(&mut self, conn: ConnId) -> Bytes {
        self.connect_for(conn, false)
    }

    /// The same; if it `reads`, a server without a quorum will do.
    pub(super) fn connect_for(&mut self, conn: ConnId, reads: bool) -> Bytes {
        (self.reads, self.is_read_only) = (reads, false);
        self.conn = Some(conn);
        self.attached = false;
        self.deframer = Deframer::new(1 << 20);
        let hello = ConnectRequest {
            protocol_version: 0,
            last_zxid_seen: self.last_zxid,
            timeout_ms: self.timeout_ms,
            session: self.session,
            password: Some(self.password.clone()),
            read_only: reads,
            has_read_only: true,
        };
        let mut buf = BytesMut::new();
        hello.encode(&mut buf);
        buf.freeze()
    }

    /// It knows of no session any longer.
    pub(super) fn forget(&mut self) {
        self.session = SessionId(0);
        self.password = Bytes::from_static(&[0; 16]);
    }

    /// The connection is gone: what was in flight may or may not have happened.
    pub(super) fn disconnected(&mut self) {
        self.conn = None;
        self.attached = false;
        self.in_flight.clear();
    }

    /// The next requests, if any: bytes.
    pub(super) fn act(
        &mut self,
        prng: &mut Prng,
        clients: usize,
        history: &mut History,
    ) -> Option<Bytes> {
        let conn = self.conn.filter(|_| self.attached)?;
        let mut buf = BytesMut::new();
        let burst = match self.left {
            None => 1 + prng.below(PIPELINE as u64),
            Some(left) if prng.one_in(ACTS_PER_BURST) => left.min(1 + prng.below(3)),
            Some(_) => 0,
        };
        for _ in 0..burst {
            let closing = self.in_flight.back().is_some_and(|last| last.asked == Asked::Close);
            if PIPELINE <= self.in_flight.len() || closing {
                break;
            }
            let (asked, request) = match &mut self.left {
                None => self.choose(prng, clients),
                Some(left) => {
                    *left -= 1;
                    choose_simple(prng)
                }
            };
            self.send(conn, asked, request, history, &mut buf);
        }
        (!buf.is_empty()).then(|| buf.freeze())
    }

    /// One request of the caller's choice, when everything before is answered: bytes.
    pub(super) fn ask(&mut self, request: Request, history: &mut History) -> Option<Bytes> {
        let conn = self.conn.filter(|_| self.is_idle())?;
        let mut buf = BytesMut::new();
        self.send(conn, Asked::Other, request, history, &mut buf);
        Some(buf.freeze())
    }

    /// Whether it waits for nothing.
    pub(super) fn is_idle(&self) -> bool {
        self.attached && self.in_flight.is_empty()
    }

    fn send(
        &mut self,
        conn: ConnId,
        asked: Asked,
        request: Request,
        history: &mut History,
        buf: &mut BytesMut,
    ) {
        let xid = Xid(self.next_xid);
        self.next_xid += 1;
        let sent_at = history.step();
        let log = history.conns.entry(conn).or_default();
        let index = log.exchanges.len();
        log.ask(sent_at, xid, request, buf);
        let seen = if asked == Asked::Sync { history.latest } else { history.seen };
        self.in_flight.push_back(InFlight { xid, index, seen, asked });
    }

    fn choose(&mut self, prng: &mut Prng, clients: usize) -> (Asked, Request) {
        let own = format!("/c{}", self.number);
        let top = format!("/c{}", prng.below(clients as u64));
        let kid = format!("{top}/k{}", prng.below(4));
        let watch = prng.one_in(2);
        let target = |path: &str| PathWatch { path: path.into(), watch };
        let version = if prng.one_in(4) { below(prng, 4) } else { -1 };
        let request = match prng.below(40) {
            0..=2 => Request::Write(create(&own, 0, CreateKind::Create, b"own")),
            3..=8 => Request::Write(set(&top, prng, version)),
            9 | 10 => Request::Write(set(&kid, prng, version)),
            11..=13 => Request::Write(create(&kid, 0, CreateKind::Create2, b"kid")),
            14 => Request::Write(create(&kid, 1, CreateKind::Create, b"ephemeral")),
            15 | 16 => {
                let (path, flags) = (format!("{top}/q-"), if watch { 2 } else { 3 });
                let create = create(&path, flags, CreateKind::Create, b"queued");
                return (Asked::Sequential, Request::Write(create));
            }
            17 | 18 => Request::Write(delete(&kid, version)),
            19 => match self.names.pop_front() {
                Some(path) => Request::Write(delete(&path, -1)),
                None => Request::Write(delete(&top, version)),
            },
            20..=22 => Request::Write(WriteRequest::Multi(vec![
                set(&own, prng, -1),
                WriteRequest::Check { path: top.as_str().into(), version },
                create(&kid, 0, CreateKind::Create2, b"multi"),
                delete(&kid, -1),
                create(&kid, 0, CreateKind::Create, b"again"),
            ])),
            23..=26 => Request::Read(ReadRequest::GetData(target(&top))),
            27..=29 => Request::Read(ReadRequest::GetData(target(&kid))),
            30 | 31 => Request::Read(ReadRequest::Exists(target(&kid))),
            32 | 33 => Request::Read(ReadRequest::GetChildren2(target(&top))),
            34 => Request::Read(ReadRequest::GetEphemerals { prefix: None }),
            35 => {
                let path = if watch { top } else { kid };
                let path = Str::from(path);
                Request::Read(ReadRequest::AddWatch { path, recursive: prng.one_in(3) })
            }
            36 => return (Asked::Sync, Request::Sync { path: Str::from(top) }),
            _ if prng.one_in(12) => {
                return (Asked::Close, Request::Write(WriteRequest::CloseSession));
            }
            _ => return (Asked::Ping, Request::Ping),
        };
        (Asked::Other, request)
    }

    /// Bytes arrived from the server. `last_txn` tells the last txn of a history that is shown
    /// under a zxid.
    pub(super) fn receive(
        &mut self,
        bytes: Bytes,
        history: &mut History,
        last_txn: impl Fn(Zxid) -> Zxid,
    ) -> Result<(), Failure> {
        self.deframer.push(bytes);
        while let Some(frame) = self.deframer.next_frame().map_err(Failure::because)? {
            let Some(conn) = self.conn else { return Ok(()) };
            if !self.attached {
                self.attach(&frame)?;
                let log = history.conns.entry(conn).or_default();
                (log.session, log.is_read_only) = (self.session, self.is_read_only);
                continue;
            }
            let mut body = Reader::new(&frame);
            let header = decode_reply_header(&mut body).map_err(Failure::because)?;
            let zxid = last_txn(header.zxid);
            if !self.is_read_only {
                history.saw(zxid);
            }
            let at = history.step();
            let log = history.conns.entry(conn).or_default();
            if header.xid == Xid::NOTIFICATION {
                let event = decode_event(&mut body).map_err(Failure::because)?;
                log.receive(at, Received::Event(zxid, event));
                continue;
            }
            let rest = body.remaining();
            let body = body.take("body", rest).map_err(Failure::because)?;
            let answer = Answer { zxid, code: header.code, body };
            let index = self.reply(header.xid, &answer)?;
            self.last_zxid = header.zxid;
            log.receive(at, Received::Reply(index));
            if let Some(exchange) = log.exchanges.get_mut(index) {
                exchange.answer = Some(answer);
            }
        }
        Ok(())
    }

    fn attach(&mut self, frame: &Bytes) -> Result<(), Failure> {
        let response = ConnectResponse::decode(frame).map_err(Failure::because)?;
        if response.timeout_ms == 0 {
            // Expired: a new session next time.
            self.session = SessionId(0);
            return Ok(());
        }
        if response.read_only && !self.reads {
            let session = response.session;
            return Err(Failure::new(format!("{session} began without a quorum, unasked")));
        }
        self.attached = true;
        self.is_read_only = response.read_only;
        self.session = response.session;
        self.password = Bytes::copy_from_slice(&response.password);
        Ok(())
    }

    /// Judges the place of an answer in the order; the exchange it belongs to.
    fn reply(&mut self, xid: Xid, answer: &Answer) -> Result<usize, Failure> {
        let Some(InFlight { xid: expected, index, seen, asked }) = self.in_flight.pop_front()
        else {
            return Err(Failure::new(format!("a reply to nothing: {xid:?}")));
        };
        if xid != expected && asked != Asked::Ping {
            return Err(Failure::new(format!("reply {xid:?} where {expected:?} is due")));
        }
        let zxid = answer.zxid;
        if zxid < self.shown {
            return Err(Failure::new(format!("zxid went back from {} to {zxid}", self.shown)));
        }
        // A ping reads nothing, and is answered while a shard applies a part of a txn.
        if zxid < seen && asked != Asked::Ping && !self.is_read_only {
            return Err(Failure::new(format!(
                "{asked:?} shows {zxid}, but {seen} was seen by some client before it was sent"
            )));
        }
        self.shown = zxid;
        self.answered += 1;
        if answer.code == ErrorCode::OK {
            match asked {
                Asked::Sequential => {
                    let path = Reader::new(&answer.body).some_str("path");
                    self.names.push_back(path.map_err(Failure::because)?);
                    self.names.truncate(NAMES_MAX);
                }
                Asked::Close => self.forget(),
                Asked::Ping | Asked::Sync | Asked::Other => {}
            }
        }
        Ok(index)
    }
}

/// A request of a small history: three znodes, and what is queued below one of them.
fn choose_simple(prng: &mut Prng) -> (Asked, Request) {
    let kid = if prng.one_in(3) { "/c/k1" } else { "/c/k0" };
    let path = if prng.one_in(2) { "/c" } else { kid };
    let watch = prng.one_in(2);
    let target = |path: &str| PathWatch { path: path.into(), watch };
    let version = if prng.one_in(3) { below(prng, 3) } else { -1 };
    let request = match prng.below(30) {
        0..=3 => Request::Write(create("/c", 0, CreateKind::Create, b"top")),
        4..=7 => Request::Write(create(kid, 0, CreateKind::Create2, b"kid")),
        8 | 9 => Request::Write(create("/c/q-", 2, CreateKind::Create, b"queued")),
        10..=14 => Request::Write(set(path, prng, version)),
        15 | 16 => Request::Write(delete(kid, version)),
        17 => Request::Write(delete("/c", version)),
        18..=21 => Request::Read(ReadRequest::GetData(target(path))),
        22..=24 => Request::Read(ReadRequest::Exists(target(path))),
        25..=27 => Request::Read(ReadRequest::GetChildren2(target("/c"))),
        _ => return (Asked::Sync, Request::Sync { path: Str::from_static("/c") }),
    };
    (Asked::Other, request)
}

fn below(prng: &mut Prng, bound: u64) -> i32 {
    i32::try_from(prng.below(bound)).unwrap_or_default()
}

fn create(path: &str, flags: i32, kind: CreateKind, data: &'static [u8]) -> WriteRequest {
    let world = Some(Str::from_static("world"));
    let open = RawAcl { perms: Perms::ALL, scheme: world, id: Some(Str::from_static("anyone")) };
    WriteRequest::Create(CreateRequest {
        kind,
        path: path.into(),
        data: Some(Bytes::from_static(data)),
        acl: Some(vec![open]),
        flags,
    })
}

fn set(path: &str, prng: &mut Prng, version: i32) -> WriteRequest {
    let data = match prng.below(8) {
        0 => None,
        _ => Some(Bytes::from(prng.next_u64().to_string())),
    };
    WriteRequest::SetData { path: path.into(), data, version }
}

fn delete(path: &str, version: i32) -> WriteRequest {
    WriteRequest::Delete { path: path.into(), version }
}
