//! Histories made by hand, with the log that the first oracle wants. What a right server answers
//! comes from the server's own tree; what a wrong one answers is written by the test.

use bytes::{Bytes, BytesMut};

use super::{Verdict, Zxids, search};
use crate::base::Str;
use crate::model::request::PathWatch;
use crate::model::txn::CreateTxnKind;
use crate::model::{
    ConnId, CreateKind, CreateRequest, CreateTxn, ErrorCode, EventType, ExtendedTypes, ReadRequest,
    Request, SessionId, Stat, Txn, TxnBody, TxnHeader, WatchEvent, WriteRequest, Xid, Zxid,
};
use crate::sim::history::{Answer, History, Received};
use crate::sim::replay;
use crate::tree::{Tree, TreeOptions};
use crate::wire::response;

/// Two connections, each of its own session.
pub(super) const A: u64 = 1;
pub(super) const B: u64 = 2;

/// A history in the making.
pub(super) struct Tale {
    pub(super) history: History,
    tree: Tree,
    /// The last txn's.
    pub(super) last: Zxid,
}

/// A request that was sent.
#[derive(Clone, Copy)]
pub(super) struct Sent {
    conn: u64,
    index: usize,
}

impl Tale {
    /// Connections A and B have begun their sessions.
    pub(super) fn new() -> Self {
        let options = TreeOptions { extended_types: ExtendedTypes::Off, digests: true };
        let tree = Tree::new(options);
        let mut tale = Self { history: History::default(), tree, last: Zxid::ZERO };
        for conn in [A, B] {
            tale.connects(conn, conn);
            tale.logs(conn, Xid(0), TxnBody::CreateSession { timeout_ms: 10_000 });
        }
        tale
    }

    /// A connection of the session that connection `of` has begun.
    pub(super) fn connects(&mut self, conn: u64, of: u64) {
        self.history.conns.entry(ConnId(conn)).or_default().session = session(of);
    }

    pub(super) fn sends(&mut self, conn: u64, request: Request) -> Sent {
        let at = self.history.step();
        let log = self.history.conns.entry(ConnId(conn)).or_default();
        let index = log.exchanges.len();
        log.ask(at, xid(conn, index), request, &mut BytesMut::new());
        Sent { conn, index }
    }

    /// A txn that is applied.
    pub(super) fn logs(&mut self, conn: u64, cxid: Xid, body: TxnBody) -> Zxid {
        let header = self.notes(conn, cxid, body.clone());
        self.tree.apply(&header, &body);
        self.last
    }

    /// A txn in the log that no tree would take.
    pub(super) fn notes(&mut self, conn: u64, cxid: Xid, body: TxnBody) -> TxnHeader {
        self.last = self.last.next();
        let (zxid, session) = (self.last, self.history.conns[&ConnId(conn)].session);
        let header = TxnHeader { session, cxid, zxid, time_ms: 1_000 + zxid.0 };
        self.history.txns.insert(zxid, Txn { header, body, digest: None });
        header
    }

    pub(super) fn answers(&mut self, sent: Sent, zxid: Zxid, code: ErrorCode, body: Bytes) {
        let at = self.history.step();
        let log = self.history.conns.get_mut(&ConnId(sent.conn)).expect("it was opened");
        log.exchanges[sent.index].answer = Some(Answer { zxid, code, body });
        log.receive(at, Received::Reply(sent.index));
    }

    pub(super) fn event(&mut self, conn: u64, zxid: Zxid, event_type: EventType, path: &str) {
        let at = self.history.step();
        let event = WatchEvent { event_type, path: path.into() };
        let log = self.history.conns.get_mut(&ConnId(conn)).expect("it was opened");
        log.receive(at, Received::Event(zxid, event));
    }

    /// The stat of a znode that is there.
    pub(super) fn stat(&self, path: &str) -> Stat {
        self.tree.get(path).expect("it is there").stat()
    }

    /// What getData answers now.
    pub(super) fn data(&self, path: &str) -> Bytes {
        let znode = self.tree.get(path).expect("it is there");
        data_body(znode.data(), &znode.stat())
    }

    /// A write, carried out and answered.
    pub(super) fn does(&mut self, conn: u64, request: Request, body: TxnBody) -> Zxid {
        let sent = self.sends(conn, request.clone());
        let zxid = self.logs(conn, xid(conn, sent.index), body.clone());
        let (code, answer) = match (&request, &body) {
            (_, TxnBody::Error(code)) => (*code, Bytes::new()),
            (_, TxnBody::Create(create)) => (ErrorCode::OK, path_body(&create.path)),
            (_, TxnBody::SetData { path, .. }) => (ErrorCode::OK, stat_body(&self.stat(path))),
            _ => (ErrorCode::OK, Bytes::new()),
        };
        self.answers(sent, zxid, code, answer);
        zxid
    }

    pub(super) fn creates(&mut self, conn: u64, path: &str) -> Zxid {
        self.does(conn, create(path), created(path))
    }

    pub(super) fn sets(&mut self, conn: u64, path: &str, data: &'static str) -> Zxid {
        let version = self.stat(path).version + 1;
        self.does(conn, set(path, data), set_to(path, data, version))
    }

    pub(super) fn deletes(&mut self, conn: u64, path: &str) -> Zxid {
        self.does(conn, delete(path), TxnBody::Delete { path: path.into() })
    }

    /// A read or sync, answered as it has to be now.
    pub(super) fn asks(&mut self, conn: u64, request: Request) {
        let znode = |path: &Str| self.tree.get(path);
        let missing = (ErrorCode::NO_NODE, Bytes::new());
        let (code, body) = match &request {
            Request::Sync { path } => (ErrorCode::OK, path_body(path)),
            Request::Read(ReadRequest::GetData(it)) => match znode(&it.path) {
                Some(_) => (ErrorCode::OK, self.data(&it.path)),
                None => missing,
            },
            Request::Read(ReadRequest::Exists(it)) => match znode(&it.path) {
                Some(znode) => (ErrorCode::OK, stat_body(&znode.stat())),
                None => missing,
            },
            Request::Read(ReadRequest::GetChildren2(it)) => match znode(&it.path) {
                Some(znode) => {
                    let names: Vec<&str> = znode.children().collect();
                    (ErrorCode::OK, names_body(&names, &znode.stat()))
                }
                None => missing,
            },
            other => panic!("{other:?} is no read"),
        };
        let sent = self.sends(conn, request);
        self.answers(sent, self.last, code, body);
    }

    /// What the first oracle says.
    pub(super) fn replay(&self) -> Result<(), String> {
        replay::check(&self.history, &self.tree).map_err(|failure| failure.to_string())
    }

    /// What the search says.
    pub(super) fn search(&self, zxids: Zxids) -> Verdict {
        search(&self.history, zxids)
    }
}

const fn session(of: u64) -> SessionId {
    SessionId(of.cast_signed())
}

/// The xid of a connection's request.
pub(super) fn xid(conn: u64, index: usize) -> Xid {
    let number = 100 * conn + 1 + index as u64;
    Xid(i32::try_from(number).expect("tales are short"))
}

pub(super) fn create(path: &str) -> Request {
    create_with(path, 0)
}

pub(super) fn create_with(path: &str, flags: i32) -> Request {
    let data = Some(Bytes::from_static(b"new"));
    let acl = Some(Vec::new());
    let kind = CreateKind::Create;
    Request::Write(WriteRequest::Create(CreateRequest {
        kind,
        path: path.into(),
        data,
        acl,
        flags,
    }))
}

pub(super) fn created(path: &str) -> TxnBody {
    TxnBody::Create(CreateTxn {
        kind: CreateTxnKind::Create { ephemeral: false },
        path: path.into(),
        data: Some(Bytes::from_static(b"new")),
        acl: Vec::new(),
        parent_cversion: -1,
    })
}

pub(super) fn set(path: &str, data: &'static str) -> Request {
    let data = Some(Bytes::from_static(data.as_bytes()));
    Request::Write(WriteRequest::SetData { path: path.into(), data, version: -1 })
}

pub(super) fn set_to(path: &str, data: &'static str, version: i32) -> TxnBody {
    let data = Some(Bytes::from_static(data.as_bytes()));
    TxnBody::SetData { path: path.into(), data, version }
}

pub(super) fn delete(path: &str) -> Request {
    Request::Write(WriteRequest::Delete { path: path.into(), version: -1 })
}

pub(super) fn get(path: &str) -> Request {
    Request::Read(ReadRequest::GetData(target(path, false)))
}

/// getData that leaves a watch.
pub(super) fn watch(path: &str) -> Request {
    Request::Read(ReadRequest::GetData(target(path, true)))
}

/// exists that leaves a watch.
pub(super) fn exists(path: &str) -> Request {
    Request::Read(ReadRequest::Exists(target(path, true)))
}

/// getChildren2 that leaves a watch.
pub(super) fn list(path: &str) -> Request {
    Request::Read(ReadRequest::GetChildren2(target(path, true)))
}

pub(super) fn sync(path: &str) -> Request {
    Request::Sync { path: path.into() }
}

fn target(path: &str, watch: bool) -> PathWatch {
    PathWatch { path: path.into(), watch }
}

pub(super) fn path_body(path: &str) -> Bytes {
    let mut buf = BytesMut::new();
    response::path(&mut buf, path);
    buf.freeze()
}

pub(super) fn stat_body(stat: &Stat) -> Bytes {
    let mut buf = BytesMut::new();
    response::stat(&mut buf, stat);
    buf.freeze()
}

pub(super) fn data_body(data: Option<&[u8]>, stat: &Stat) -> Bytes {
    let mut buf = BytesMut::new();
    response::data_and_stat(&mut buf, data, stat);
    buf.freeze()
}

pub(super) fn names_body(names: &[&str], stat: &Stat) -> Bytes {
    let mut buf = BytesMut::new();
    response::children_and_stat(&mut buf, names.iter().copied(), stat);
    buf.freeze()
}
