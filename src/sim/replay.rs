//! The oracle: replays the log's order through the sequential [`Model`] and compares every answer,
//! every event and the final tree with it. ZooKeeper's replies carry zxids, so that nothing needs
//! to be searched (`DESIGN`: every read at zxid Z sees the model exactly at Z).
//!
//! 1. The log has no gap. Each of its txns answers a request that a client sent, begins a session,
//!    or is the server's own; no txn of a session follows its end. Where sessions may be local, one
//!    that no txn created has neither an end in the log nor an ephemeral.
//! 2. A write that was acknowledged is in the log at the zxid that the client was told, and its
//!    answer is the model's.
//! 3. A read that shows zxid Z is answered as the model answers right behind Z.
//! 4. Each connection hears of every change that its watches are for, once, before anything that
//!    shows the change, and of nothing else.
//! 5. At the end the server's tree is the model's.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::ops::Bound;

use super::history::{Answer, ConnHistory, Exchange, History, Received};
use super::members;
use super::model::{Change, Model, Outcome, parent};
use super::world::Failure;
use crate::model::{
    ConnId, CreateTxnKind, ErrorCode, EventType, ReadRequest, Request, SessionId, Txn, TxnBody,
    WatchEvent, WriteRequest, Xid, Zxid,
};
use crate::tree::Tree;
use crate::wire::jute::{DecodeError, Reader};

/// Judges a whole history against the tree that the server ended with.
pub(super) fn check(history: &History, tree: &Tree) -> Result<(), Failure> {
    let mut replay = Replay::new(history)?;
    replay.run(tree.last_zxid())?;
    for (id, conn) in &history.conns {
        Watcher::default().check(conn, &replay.changes).map_err(|text| at_conn(*id, &text))?;
    }
    match replay.model.difference(tree) {
        Some(difference) => Err(Failure::new(format!("at the end, {difference}"))),
        None => Ok(()),
    }
}

type Reads<'a> = BTreeMap<Zxid, Vec<(SessionId, &'a Exchange, &'a Answer)>>;

struct Replay<'a> {
    history: &'a History,
    model: Model,
    /// Requests by session and xid.
    asked: BTreeMap<(SessionId, Xid), &'a Exchange>,
    /// Answered requests that are no writes, by the zxid they show.
    reads: Reads<'a>,
    /// What each txn changed.
    changes: BTreeMap<Zxid, Vec<Change>>,
    live: BTreeSet<SessionId>,
    ended: BTreeSet<SessionId>,
}

impl<'a> Replay<'a> {
    fn new(history: &'a History) -> Result<Self, Failure> {
        let mut asked = BTreeMap::new();
        let created = |txn: &&Txn| matches!(txn.body, TxnBody::CreateSession { .. });
        let global: BTreeSet<SessionId> =
            history.txns.values().filter(created).map(|txn| txn.header.session).collect();
        // No txn ends a local session.
        let needs_txn = |session: SessionId, request: &Request| match request {
            Request::Write(WriteRequest::CloseSession) => {
                !history.has_local_sessions || global.contains(&session)
            }
            Request::Write(_) => true,
            _ => false,
        };
        let mut reads = Reads::new();
        for (id, conn) in &history.conns {
            if conn.is_read_only {
                without_quorum(conn, history, &mut reads).map_err(|text| at_conn(*id, &text))?;
                continue;
            }
            for exchange in &conn.exchanges {
                asked.insert((conn.session, exchange.xid), exchange);
                let Some(answer) = &exchange.answer else { continue };
                if !needs_txn(conn.session, &exchange.request) {
                    let read = (conn.session, exchange, answer);
                    reads.entry(answer.zxid).or_default().push(read);
                } else if !is_refused_for_space(history, answer) {
                    acknowledged(history, conn, exchange, answer)
                        .map_err(|text| at_conn(*id, &text))?;
                }
            }
        }
        Ok(Self {
            history,
            model: Model::new(),
            asked,
            reads,
            changes: BTreeMap::new(),
            live: BTreeSet::new(),
            ended: BTreeSet::new(),
        })
    }

    fn run(&mut self, end: Zxid) -> Result<(), Failure> {
        let mut last = Zxid::ZERO;
        self.reads_at(last)?;
        for (zxid, txn) in &self.history.txns {
            if !zxid.follows(last) || txn.header.zxid != *zxid {
                return Err(Failure::new(format!("the log goes from {last} to {zxid}")));
            }
            last = *zxid;
            self.txn(txn).map_err(|text| Failure::new(format!("txn {zxid}: {text}")))?;
            self.reads_at(last)?;
        }
        // The beginning of an epoch without a txn is where the one before ends.
        if last != end && (end < last || end.counter() != 0) {
            return Err(Failure::new(format!("the log ends at {last}, the tree at {end}")));
        }
        match self.reads.keys().next() {
            Some(zxid) => Err(Failure::new(format!("a reply shows {zxid}, which never was"))),
            None => Ok(()),
        }
    }

    fn reads_at(&mut self, zxid: Zxid) -> Result<(), Failure> {
        for (session, exchange, answer) in self.reads.remove(&zxid).unwrap_or_default() {
            self.read(session, exchange, answer).map_err(|text| {
                let request = &exchange.request;
                Failure::new(format!("{request:?} of {session} at {zxid}: {text}"))
            })?;
        }
        Ok(())
    }

    fn txn(&mut self, txn: &Txn) -> Result<(), String> {
        let (session, header) = (txn.header.session, &txn.header);
        if let TxnBody::CreateSession { .. } = txn.body {
            self.live.insert(session);
            return Ok(());
        }
        if let TxnBody::Error(ErrorCode::SESSION_EXPIRED | ErrorCode::SESSION_MOVED) = txn.body {
            return Ok(());
        }
        let may_be_local = self.history.has_local_sessions && !self.ended.contains(&session);
        let needs_global =
            matches!(txn.body, TxnBody::CloseSession { .. }) || owns_ephemeral(&txn.body);
        if !self.live.contains(&session) && (!may_be_local || needs_global) {
            return Err(format!("{session} has no session: {:?}", txn.body));
        }
        let mut changes = Vec::new();
        if matches!(txn.body, TxnBody::CloseSession { .. }) {
            self.live.remove(&session);
            self.ended.insert(session);
        }
        if matches!(txn.body, TxnBody::CloseSession { .. }) && header.cxid == Xid(0) {
            self.model.close(header, &mut changes);
        } else {
            let Some(exchange) = self.asked.get(&(session, header.cxid)) else {
                return Err(format!("nobody asked for {:?}", txn.body));
            };
            let Request::Write(write) = &exchange.request else {
                return Err(format!("{:?} became a txn", exchange.request));
            };
            if let WriteRequest::Reconfig(request) = write {
                members::judge(&self.history.configs, request, txn, exchange.answer.as_ref())?;
                self.changes.insert(header.zxid, changes);
                return Ok(());
            }
            let judged = self.model.execute(header, write, &mut changes);
            if judged.as_ref().err().copied() != refusal(&txn.body) {
                return Err(format!("{write:?} became {:?}, not {judged:?}", txn.body));
            }
            if let Some(answer) = &exchange.answer {
                let wanted = judged.as_ref().err().copied().unwrap_or(ErrorCode::OK);
                if answer.code != wanted {
                    return Err(format!("{write:?} was answered {:?}", answer.code));
                }
                if let Ok(outcome) = &judged
                    && !is_outcome(outcome, answer).map_err(|error| error.to_string())?
                {
                    return Err(format!("{write:?} was answered {answer:?}, not {outcome:?}"));
                }
            }
        }
        self.changes.insert(header.zxid, changes);
        Ok(())
    }

    fn read(&self, session: SessionId, exchange: &Exchange, answer: &Answer) -> Result<(), String> {
        let (wanted, found) = match &exchange.request {
            Request::Read(read) => (self.expected(session, read)?, shown(read, answer)),
            Request::Ping | Request::Sync { .. } | Request::Write(WriteRequest::CloseSession) => {
                (Shown::Code(ErrorCode::OK), Ok(Shown::Code(answer.code)))
            }
            other => return Err(format!("{other:?} is not judged")),
        };
        let found = found.map_err(|error| error.to_string())?;
        if wanted == found { Ok(()) } else { Err(format!("{found:?}, not {wanted:?}")) }
    }

    fn expected(&self, session: SessionId, read: &ReadRequest) -> Result<Shown, String> {
        let znode = |path: &str| self.model.get(path);
        let missing = Shown::Code(ErrorCode::NO_NODE);
        let names = |path: &str| -> Option<Vec<String>> {
            Some(self.model.children(path)?.map(str::to_owned).collect())
        };
        Ok(match read {
            ReadRequest::GetData(target) => {
                znode(&target.path).map_or(missing, |(data, stat)| Shown::Data(data, stat))
            }
            ReadRequest::Exists(target) => {
                znode(&target.path).map_or(missing, |(_, stat)| Shown::Stat(stat))
            }
            ReadRequest::GetChildren2(target) => match (names(&target.path), znode(&target.path)) {
                (Some(names), Some((_, stat))) => Shown::Children(names, stat),
                _ => missing,
            },
            ReadRequest::GetEphemerals { .. } => Shown::Names(self.model.ephemerals_of(session)),
            ReadRequest::AddWatch { .. } => Shown::Code(ErrorCode::OK),
            other => return Err(format!("{other:?} is not judged")),
        })
    }
}

/// What a read answers.
#[derive(Debug, PartialEq, Eq)]
enum Shown {
    Code(ErrorCode),
    Data(Option<bytes::Bytes>, crate::model::Stat),
    Stat(crate::model::Stat),
    Children(Vec<String>, crate::model::Stat),
    Names(Vec<String>),
}

fn shown(read: &ReadRequest, answer: &Answer) -> Result<Shown, DecodeError> {
    if answer.code != ErrorCode::OK {
        return Ok(Shown::Code(answer.code));
    }
    let mut body = Reader::new(&answer.body);
    let names = |body: &mut Reader| -> Result<Vec<String>, DecodeError> {
        let names = body.vector("children", |reader| reader.some_str("child"))?;
        let mut names: Vec<String> =
            names.unwrap_or_default().iter().map(ToString::to_string).collect();
        names.sort_unstable();
        Ok(names)
    };
    Ok(match read {
        ReadRequest::GetData(_) => Shown::Data(body.buffer("data")?, body.stat()?),
        ReadRequest::Exists(_) => Shown::Stat(body.stat()?),
        ReadRequest::GetChildren2(_) => Shown::Children(names(&mut body)?, body.stat()?),
        ReadRequest::GetEphemerals { .. } => Shown::Names(names(&mut body)?),
        _ => Shown::Code(answer.code),
    })
}

/// Whether an acknowledgement says what the model says.
fn is_outcome(outcome: &Outcome, answer: &Answer) -> Result<bool, DecodeError> {
    let mut body = Reader::new(&answer.body);
    Ok(match outcome {
        Outcome::Multi(outcomes) => {
            for outcome in outcomes {
                let head = (body.i32("type")?, body.bool("done")?, body.i32("err")?);
                let number = match outcome {
                    Outcome::Created(_) => 1,
                    Outcome::CreatedWithStat(..) => 15,
                    Outcome::Set(_) => 5,
                    // delete or check.
                    _ if matches!(head.0, 2 | 13) => head.0,
                    _ => return Ok(false),
                };
                if head != (number, false, 0) || !is_record(outcome, &mut body)? {
                    return Ok(false);
                }
            }
            is_end(&mut body)?
        }
        Outcome::MultiFailed(codes) => {
            for code in codes {
                let head = (body.i32("type")?, body.bool("done")?, body.i32("err")?);
                if head != (-1, false, code.0) || body.i32("code")? != code.0 {
                    return Ok(false);
                }
            }
            is_end(&mut body)?
        }
        single => is_record(single, &mut body)? && body.remaining() == 0,
    })
}

fn is_record(outcome: &Outcome, body: &mut Reader) -> Result<bool, DecodeError> {
    Ok(match outcome {
        Outcome::Created(path) => *body.some_str("path")? == **path,
        Outcome::CreatedWithStat(path, stat) => {
            *body.some_str("path")? == **path && body.stat()? == *stat
        }
        Outcome::Set(stat) => body.stat()? == *stat,
        _ => true,
    })
}

fn is_end(body: &mut Reader) -> Result<bool, DecodeError> {
    let end = (body.i32("type")?, body.bool("done")?, body.i32("err")?);
    Ok(end == (-1, true, -1) && body.remaining() == 0)
}

fn refusal(body: &TxnBody) -> Option<ErrorCode> {
    match body {
        TxnBody::Error(code) => Some(*code),
        _ => None,
    }
}

/// Whether a txn creates an ephemeral.
fn owns_ephemeral(body: &TxnBody) -> bool {
    match body {
        TxnBody::Create(create) => matches!(
            create.kind,
            CreateTxnKind::Create { ephemeral: true } | CreateTxnKind::Create2 { ephemeral: true }
        ),
        TxnBody::Multi(bodies) => bodies.iter().any(owns_ephemeral),
        _ => false,
    }
}

/// What a server without a quorum has answered: no write was done, and reads are judged if what
/// they show was not cut off later.
fn without_quorum<'a>(
    conn: &'a ConnHistory,
    history: &History,
    reads: &mut Reads<'a>,
) -> Result<(), String> {
    for exchange in &conn.exchanges {
        let Some(answer) = &exchange.answer else { continue };
        let is_refused = match &exchange.request {
            Request::Write(WriteRequest::CloseSession) => false,
            Request::Write(_) | Request::Sync { .. } => true,
            _ => false,
        };
        if is_refused && answer.code != ErrorCode::NOT_READ_ONLY {
            let request = &exchange.request;
            return Err(format!("{request:?} was answered {:?} without a quorum", answer.code));
        }
        if !is_refused && (answer.zxid == Zxid::ZERO || history.txns.contains_key(&answer.zxid)) {
            reads.entry(answer.zxid).or_default().push((conn.session, exchange, answer));
        }
    }
    Ok(())
}

/// Growth that is refused while the disk is full is no txn.
fn is_refused_for_space(history: &History, answer: &Answer) -> bool {
    history.disk_was_full && answer.code == ErrorCode::SYSTEM_ERROR
}

/// The txn that a client was told of is in the log.
fn acknowledged(
    history: &History,
    conn: &ConnHistory,
    exchange: &Exchange,
    answer: &Answer,
) -> Result<(), String> {
    let txn = history.txns.get(&answer.zxid);
    let mine = txn
        .is_some_and(|txn| txn.header.session == conn.session && txn.header.cxid == exchange.xid);
    if mine {
        return Ok(());
    }
    Err(format!(
        "{:?} of {} was acknowledged at {}, where the log has {:?}",
        exchange.request, conn.session, answer.zxid, txn
    ))
}

fn at_conn(id: ConnId, text: &str) -> Failure {
    Failure::new(format!("connection {}: {text}", id.0))
}

/// The watches of one connection, and the events that are due.
#[derive(Debug, Default)]
struct Watcher {
    data: BTreeSet<String>,
    child: BTreeSet<String>,
    persistent: BTreeSet<String>,
    recursive: BTreeSet<String>,
    due: VecDeque<(Zxid, WatchEvent)>,
    /// Everything up to here is taken into account.
    at: Option<Zxid>,
}

impl Watcher {
    fn check(
        mut self,
        conn: &ConnHistory,
        changes: &BTreeMap<Zxid, Vec<Change>>,
    ) -> Result<(), String> {
        for received in &conn.received {
            match received {
                Received::Event(zxid, event) => {
                    self.advance(*zxid, changes);
                    let of_txn = self.due.iter().take_while(|(due, _)| due == zxid);
                    let Some(at) = of_txn.map(|(_, due)| due).position(|due| due == event) else {
                        let due = self.due.front();
                        return Err(format!("{event:?} of {zxid} came, due was {due:?}"));
                    };
                    self.due.remove(at);
                }
                Received::Reply(index) => {
                    let Some(exchange) = conn.exchanges.get(*index) else { continue };
                    let Some(answer) = &exchange.answer else { continue };
                    self.advance(answer.zxid, changes);
                    if let Some((zxid, event)) = self.due.front() {
                        let (request, shown) = (&exchange.request, answer.zxid);
                        return Err(format!(
                            "the answer to {request:?} shows {shown}, but {event:?} of {zxid} has \
                             not come"
                        ));
                    }
                    self.set(&exchange.request, answer.code);
                }
            }
        }
        Ok(())
    }

    fn set(&mut self, request: &Request, code: ErrorCode) {
        let good = code == ErrorCode::OK;
        match request {
            Request::Read(ReadRequest::GetData(target)) if target.watch && good => {
                self.data.insert(target.path.to_string());
            }
            Request::Read(ReadRequest::Exists(target))
                if target.watch && (good || code == ErrorCode::NO_NODE) =>
            {
                self.data.insert(target.path.to_string());
            }
            Request::Read(ReadRequest::GetChildren2(target)) if target.watch && good => {
                self.child.insert(target.path.to_string());
            }
            Request::Read(ReadRequest::AddWatch { path, recursive }) if good => {
                let set = if *recursive { &mut self.recursive } else { &mut self.persistent };
                set.insert(path.to_string());
            }
            _ => {}
        }
    }

    /// Takes the changes up to `zxid` into account.
    fn advance(&mut self, zxid: Zxid, changes: &BTreeMap<Zxid, Vec<Change>>) {
        let Some(at) = self.at.replace(zxid) else { return };
        if zxid <= at {
            self.at = Some(at);
            return;
        }
        for (zxid, changes) in changes.range((Bound::Excluded(at), Bound::Included(zxid))) {
            for (event_type, path) in changes {
                if self.wants(*event_type, path) {
                    let event = WatchEvent { event_type: *event_type, path: path.as_str().into() };
                    self.due.push_back((*zxid, event));
                }
            }
        }
    }

    /// Whether a change is told; takes the one-shot watches that tell it.
    fn wants(&mut self, event_type: EventType, path: &str) -> bool {
        if event_type == EventType::NodeChildrenChanged {
            return self.child.remove(path) | self.persistent.contains(path);
        }
        let mut told = self.data.remove(path) | self.persistent.contains(path);
        let mut at = path;
        loop {
            told |= self.recursive.contains(at);
            if at == "/" {
                break;
            }
            at = parent(at);
        }
        if event_type == EventType::NodeDeleted {
            told |= self.child.remove(path);
        }
        told
    }
}
