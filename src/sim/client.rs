//! A simulated client: real bytes both ways, and what it expects of every answer.

use std::collections::{BTreeMap, VecDeque};

use bytes::{Bytes, BytesMut};

use super::oracle::Oracle;
use super::world::Failure;
use crate::base::{Prng, Str};
use crate::model::request::{PathWatch, RawAcl};
use crate::model::{
    ConnId, CreateKind, CreateRequest, ErrorCode, Perms, ReadRequest, Request, SessionId,
    WriteRequest, Xid, Zxid,
};
use crate::wire::client::{decode_event, decode_reply_header, encode_request};
use crate::wire::connect::{ConnectRequest, ConnectResponse};
use crate::wire::frame::Deframer;
use crate::wire::jute::Reader;

/// Requests a client keeps in flight.
const PIPELINE: usize = 8;

/// One client. Its own znode `/c<number>` is written by nobody else.
#[derive(Debug)]
pub(super) struct Client {
    pub(super) number: usize,
    /// Its connection, while it has one.
    pub(super) conn: Option<ConnId>,
    attached: bool,
    session: SessionId,
    password: Bytes,
    next_xid: i32,
    deframer: Deframer,
    in_flight: VecDeque<InFlight>,
    last_zxid: Zxid,
    /// Last value of its own znode that was acknowledged, and last one sent.
    acknowledged: u64,
    sent: u64,
    created: bool,
    next_name: u64,
    /// One-shot data watches that were set, by path: the mzxid seen then.
    watches: BTreeMap<Str, Zxid>,
    pub(super) answered: u64,
}

/// What a request in flight was.
#[derive(Clone, Debug)]
enum Asked {
    CreateOwn,
    SetOwn(u64),
    /// The value that must be found if no earlier write is unknown.
    GetOwn(u64),
    CreateSequential,
    CreateEphemeral(Str),
    Delete(Str),
    /// setData of the own znode and creation of another in one.
    Multi(u64, Str),
    Watch(Str),
    Ping,
    Close,
}

/// A request without its answer.
#[derive(Clone, Debug)]
struct InFlight {
    xid: Xid,
    asked: Asked,
    /// The highest zxid that any client had seen when it was sent.
    seen: Zxid,
}

impl Client {
    pub(super) fn new(number: usize) -> Self {
        Self {
            number,
            conn: None,
            attached: false,
            session: SessionId(0),
            password: Bytes::from_static(&[0; 16]),
            next_xid: 1,
            deframer: Deframer::new(1 << 20),
            in_flight: VecDeque::new(),
            last_zxid: Zxid::ZERO,
            acknowledged: 0,
            sent: 0,
            created: false,
            next_name: 0,
            watches: BTreeMap::new(),
            answered: 0,
        }
    }

    fn path(&self) -> String {
        format!("/c{}", self.number)
    }

    /// Begins a connection: the handshake's bytes.
    pub(super) fn connect(&mut self, conn: ConnId) -> Bytes {
        self.conn = Some(conn);
        self.attached = false;
        self.deframer = Deframer::new(1 << 20);
        let hello = ConnectRequest {
            protocol_version: 0,
            last_zxid_seen: self.last_zxid,
            timeout_ms: 10_000,
            session: self.session,
            password: Some(self.password.clone()),
            read_only: false,
            has_read_only: true,
        };
        let mut buf = BytesMut::new();
        hello.encode(&mut buf);
        buf.freeze()
    }

    /// The connection is gone: what was in flight may or may not have happened.
    pub(super) fn disconnected(&mut self, oracle: &mut Oracle) {
        self.conn = None;
        self.attached = false;
        for InFlight { asked, .. } in self.in_flight.drain(..) {
            if let Asked::Delete(path) = asked {
                oracle.maybe_deleted(&path);
            }
        }
        self.watches.clear();
    }

    /// The next requests, if any: bytes.
    pub(super) fn act(&mut self, prng: &mut Prng, clients: usize, seen: Zxid) -> Option<Bytes> {
        if !self.attached {
            return None;
        }
        let mut buf = BytesMut::new();
        let burst = 1 + prng.below(PIPELINE as u64);
        for _ in 0..burst {
            if PIPELINE <= self.in_flight.len() {
                break;
            }
            if self.in_flight.back().is_some_and(|last| matches!(last.asked, Asked::Close)) {
                break;
            }
            let (asked, request) = self.choose(prng, clients);
            let xid = Xid(self.next_xid);
            self.next_xid += 1;
            encode_request(xid, &request, &mut buf);
            self.in_flight.push_back(InFlight { xid, asked, seen });
        }
        (!buf.is_empty()).then(|| buf.freeze())
    }

    fn choose(&mut self, prng: &mut Prng, clients: usize) -> (Asked, Request) {
        let own = self.path();
        if !self.created {
            self.created = true;
            return (Asked::CreateOwn, create(&own, 0, b"0"));
        }
        match prng.below(20) {
            0..=5 => {
                self.sent += 1;
                (Asked::SetOwn(self.sent), set(&own, self.sent))
            }
            6..=9 => {
                let target = PathWatch { path: own.into(), watch: false };
                (Asked::GetOwn(self.sent), Request::Read(ReadRequest::GetData(target)))
            }
            10 | 11 => (Asked::CreateSequential, create("/q-", 2, b"q")),
            12 => {
                self.next_name += 1;
                let path = format!("/e{}-{}", self.number, self.next_name);
                (Asked::CreateEphemeral(path.as_str().into()), create(&path, 1, b"e"))
            }
            13 => {
                let path = Str::from(format!("/m{}-{}", self.number, prng.below(8)));
                (Asked::Delete(path.clone()), delete(path))
            }
            14 | 15 => {
                self.sent += 1;
                let path = Str::from(format!("/m{}-{}", self.number, prng.below(8)));
                let writes = [set(&own, self.sent), create(&path, 0, b"m")];
                let writes = writes.into_iter().filter_map(|request| match request {
                    Request::Write(write) => Some(write),
                    _ => None,
                });
                let multi = Request::Write(WriteRequest::Multi(writes.collect()));
                (Asked::Multi(self.sent, path), multi)
            }
            16..=18 => {
                let other = prng.below(clients as u64);
                let path = Str::from(format!("/c{other}"));
                let target = PathWatch { path: path.clone(), watch: true };
                (Asked::Watch(path), Request::Read(ReadRequest::GetData(target)))
            }
            _ if prng.one_in(12) => (Asked::Close, Request::Write(WriteRequest::CloseSession)),
            _ => (Asked::Ping, Request::Ping),
        }
    }

    /// Bytes arrived from the server.
    pub(super) fn receive(&mut self, bytes: Bytes, oracle: &mut Oracle) -> Result<(), Failure> {
        self.deframer.push(bytes);
        while let Some(frame) = self.deframer.next_frame().map_err(Failure::because)? {
            if !self.attached {
                self.attach(&frame)?;
                continue;
            }
            let mut body = Reader::new(&frame);
            let header = decode_reply_header(&mut body).map_err(Failure::because)?;
            if header.xid == Xid::NOTIFICATION {
                oracle.saw(header.zxid);
                let event = decode_event(&mut body).map_err(Failure::because)?;
                if self.watches.remove(&event.path).is_none() {
                    return Err(Failure::new(format!("event without a watch: {event:?}")));
                }
                continue;
            }
            self.reply(header.xid, header.zxid, header.code, &mut body, oracle)?;
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
        self.attached = true;
        self.session = response.session;
        self.password = Bytes::copy_from_slice(&response.password);
        Ok(())
    }

    fn reply(
        &mut self,
        xid: Xid,
        zxid: Zxid,
        code: ErrorCode,
        body: &mut Reader,
        oracle: &mut Oracle,
    ) -> Result<(), Failure> {
        let Some(InFlight { xid: expected, asked, seen }) = self.in_flight.pop_front() else {
            return Err(Failure::new(format!("a reply to nothing: {xid:?}")));
        };
        if xid != expected && !matches!(asked, Asked::Ping) {
            return Err(Failure::new(format!("reply {xid:?} where {expected:?} is due")));
        }
        if zxid < self.last_zxid {
            return Err(Failure::new(format!("zxid went back from {} to {zxid}", self.last_zxid)));
        }
        if zxid < seen {
            return Err(Failure::new(format!(
                "{asked:?} shows {zxid}, but {seen} was seen by some client before it was sent"
            )));
        }
        self.last_zxid = zxid;
        self.answered += 1;
        oracle.saw(zxid);
        self.judge(asked, zxid, code, body, oracle)
    }

    fn judge(
        &mut self,
        asked: Asked,
        zxid: Zxid,
        code: ErrorCode,
        body: &mut Reader,
        oracle: &mut Oracle,
    ) -> Result<(), Failure> {
        let good = code == ErrorCode::OK;
        match asked {
            Asked::CreateOwn if good => {
                oracle.wrote(zxid, self.session)?;
                oracle.set(&self.path(), zxid, b"0");
            }
            // An earlier attempt, whose answer was lost, has made it.
            Asked::CreateOwn if code == ErrorCode::NODE_EXISTS => {}
            // What grows the tree is refused while the disk is full.
            Asked::CreateOwn if code == ErrorCode::SYSTEM_ERROR && oracle.disk_was_full => {
                self.created = false;
            }
            Asked::SetOwn(_)
            | Asked::CreateSequential
            | Asked::CreateEphemeral(_)
            | Asked::Multi(..)
                if code == ErrorCode::SYSTEM_ERROR && oracle.disk_was_full => {}
            Asked::SetOwn(value) if good => {
                oracle.wrote(zxid, self.session)?;
                self.set_own(value, zxid, oracle);
            }
            // The creation was lost with its connection: it comes again.
            Asked::SetOwn(_) | Asked::GetOwn(_) if code == ErrorCode::NO_NODE => {
                self.created = false;
            }
            Asked::GetOwn(sent) if good => self.check_own(sent, body)?,
            Asked::CreateSequential if good => {
                oracle.wrote(zxid, self.session)?;
                let path = body.some_str("path").map_err(Failure::because)?;
                oracle.named(&path)?;
                oracle.set(&path, zxid, b"q");
            }
            Asked::CreateEphemeral(path) if good => {
                oracle.wrote(zxid, self.session)?;
                oracle.set(&path, zxid, b"e");
            }
            Asked::Delete(path) => match code {
                ErrorCode::OK => {
                    oracle.wrote(zxid, self.session)?;
                    oracle.deleted(&path, zxid);
                }
                ErrorCode::NO_NODE => oracle.deleted(&path, zxid),
                other => return Err(Failure::new(format!("delete {path}: {other:?}"))),
            },
            Asked::Multi(value, path) if good => {
                oracle.wrote(zxid, self.session)?;
                let number = body.i32("type").map_err(Failure::because)?;
                if number != -1 {
                    self.set_own(value, zxid, oracle);
                    oracle.set(&path, zxid, b"m");
                }
            }
            Asked::Watch(path) => self.watched(path, code, body)?,
            Asked::Ping if good => {}
            Asked::Close if good => {
                self.session = SessionId(0);
                self.password = Bytes::from_static(&[0; 16]);
            }
            other => return Err(Failure::new(format!("{other:?} answered with {code:?}"))),
        }
        Ok(())
    }

    fn set_own(&mut self, value: u64, zxid: Zxid, oracle: &mut Oracle) {
        self.acknowledged = value;
        oracle.set(&self.path(), zxid, value.to_string().as_bytes());
    }

    /// Nobody else writes the own znode: a read finds the last acknowledged value or one sent after
    /// it, and never one that was sent behind the read.
    fn check_own(&self, sent: u64, body: &mut Reader) -> Result<(), Failure> {
        let data = body.buffer("data").map_err(Failure::because)?.unwrap_or_default();
        let text = String::from_utf8_lossy(&data);
        let value: u64 = text.parse().map_err(Failure::because)?;
        if (self.acknowledged..=sent).contains(&value) {
            return Ok(());
        }
        Err(Failure::new(format!(
            "{} is {value}, acknowledged {}, sent before the read {sent}",
            self.path(),
            self.acknowledged
        )))
    }

    /// A read of a watched znode that shows a newer state must come behind the event.
    fn watched(&mut self, path: Str, code: ErrorCode, body: &mut Reader) -> Result<(), Failure> {
        if code == ErrorCode::NO_NODE {
            return Ok(());
        }
        body.buffer("data").map_err(Failure::because)?;
        let stat = body.stat().map_err(Failure::because)?;
        match self.watches.get(&path) {
            Some(seen) if *seen < stat.mzxid => Err(Failure::new(format!(
                "{path} shows {} before the event of the watch set at {seen}",
                stat.mzxid
            ))),
            _ => {
                self.watches.insert(path, stat.mzxid);
                Ok(())
            }
        }
    }
}

fn create(path: &str, flags: i32, data: &'static [u8]) -> Request {
    let world = Some(Str::from_static("world"));
    let open = RawAcl { perms: Perms::ALL, scheme: world, id: Some(Str::from_static("anyone")) };
    Request::Write(WriteRequest::Create(CreateRequest {
        kind: CreateKind::Create,
        path: path.into(),
        data: Some(Bytes::from_static(data)),
        acl: Some(vec![open]),
        flags,
    }))
}

fn set(path: &str, value: u64) -> Request {
    let data = Some(Bytes::from(value.to_string()));
    Request::Write(WriteRequest::SetData { path: path.into(), data, version: -1 })
}

fn delete(path: Str) -> Request {
    Request::Write(WriteRequest::Delete { path, version: -1 })
}
