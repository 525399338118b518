//! What clients saw, made ready for the search: requests of the kinds that it knows, answers taken
//! apart, and of each what must come before it. What no order could explain is refused here.

use std::collections::{BTreeMap, BTreeSet};

use bytes::Bytes;

use super::Verdict;
use super::tree::parent;
use crate::base::Str;
use crate::model::request::PathWatch;
use crate::model::{
    CreateKind, ErrorCode, ReadRequest, Request, SessionId, Stat, WatchEvent, WriteRequest, Zxid,
};
use crate::sim::history::{self, Exchange, History, Received};
use crate::wire::jute::{DecodeError, Reader};

/// A request's place in [`Story::ops`].
pub(super) type OpId = usize;

/// Everything that clients saw.
#[derive(Debug, Default)]
pub(super) struct Story {
    pub(super) ops: Vec<Op>,
    pub(super) conns: Vec<Conn>,
    /// The writes that were answered, by the zxids of their answers.
    pub(super) answered: BTreeMap<Zxid, OpId>,
}

/// A request.
#[derive(Debug)]
pub(super) struct Op {
    pub(super) conn: usize,
    pub(super) ask: Ask,
    pub(super) told: Option<Told>,
    /// How much of what each connection received must have been explained before this.
    pub(super) behind: Vec<usize>,
}

/// What is asked.
#[derive(Clone, Debug)]
pub(super) enum Ask {
    Create {
        path: String,
        data: Option<Bytes>,
        sequential: bool,
    },
    Delete {
        path: String,
        version: i32,
    },
    Set {
        path: String,
        data: Option<Bytes>,
        version: i32,
    },
    CloseSession,
    Exists {
        path: String,
        watch: bool,
    },
    Data {
        path: String,
        watch: bool,
    },
    Children {
        path: String,
        watch: bool,
    },
    Sync {
        path: String,
    },
    /// A ping, and what is not carried out.
    Nothing,
}

/// An answer, taken apart.
#[derive(Debug)]
pub(super) struct Told {
    pub(super) zxid: Zxid,
    pub(super) code: ErrorCode,
    pub(super) path: Option<String>,
    pub(super) data: Option<Bytes>,
    pub(super) children: BTreeSet<String>,
    pub(super) stat: Option<Stat>,
}

/// A connection.
#[derive(Debug)]
pub(super) struct Conn {
    session: SessionId,
    /// What came, in order.
    pub(super) items: Vec<Item>,
    /// How much of it there is up to the last answer.
    pub(super) answers_end: usize,
    /// Its writes without answers, in order.
    pub(super) unsure: Vec<OpId>,
}

/// Something that came.
#[derive(Debug)]
pub(super) enum Item {
    Told(OpId),
    Event(Zxid, WatchEvent),
}

impl Ask {
    pub(super) const fn is_write(&self) -> bool {
        matches!(
            self,
            Self::Create { .. } | Self::Delete { .. } | Self::Set { .. } | Self::CloseSession
        )
    }

    /// `None`: of a kind that the search does not know.
    fn of(request: &Request) -> Option<Self> {
        let known = |path: &Str| (1 < path.len()).then(|| path.to_string());
        let target = |it: &PathWatch| Some((known(&it.path)?, it.watch));
        Some(match request {
            Request::Write(WriteRequest::Create(create)) => {
                let plain = matches!(create.kind, CreateKind::Create | CreateKind::Create2);
                let sequential = create.flags == 2;
                // Of the root it is not known how many children it has had.
                if !plain || ![0, 2].contains(&create.flags) {
                    return None;
                }
                if sequential && parent(&create.path).is_empty() {
                    return None;
                }
                Self::Create { path: known(&create.path)?, data: create.data.clone(), sequential }
            }
            Request::Write(WriteRequest::Delete { path, version }) => {
                Self::Delete { path: known(path)?, version: *version }
            }
            Request::Write(WriteRequest::SetData { path, data, version }) => {
                Self::Set { path: known(path)?, data: data.clone(), version: *version }
            }
            Request::Write(WriteRequest::CloseSession) => Self::CloseSession,
            Request::Read(ReadRequest::Exists(it)) => {
                let (path, watch) = target(it)?;
                Self::Exists { path, watch }
            }
            Request::Read(ReadRequest::GetData(it)) => {
                let (path, watch) = target(it)?;
                Self::Data { path, watch }
            }
            Request::Read(ReadRequest::GetChildren(it) | ReadRequest::GetChildren2(it)) => {
                let (path, watch) = target(it)?;
                Self::Children { path, watch }
            }
            Request::Sync { path } => Self::Sync { path: path.to_string() },
            Request::Ping => Self::Nothing,
            _ => return None,
        })
    }
}

impl Told {
    fn of(request: &Request, answer: &history::Answer) -> Result<Self, DecodeError> {
        let mut body = Reader::new(&answer.body);
        let mut told = Self {
            zxid: answer.zxid,
            code: answer.code,
            path: None,
            data: None,
            children: BTreeSet::new(),
            stat: None,
        };
        if answer.code != ErrorCode::OK {
            return Ok(told);
        }
        let names = |body: &mut Reader| -> Result<BTreeSet<String>, DecodeError> {
            let names = body.vector("children", |body| body.some_str("child"))?;
            Ok(names.unwrap_or_default().iter().map(Str::to_string).collect())
        };
        match request {
            Request::Write(WriteRequest::Create(create)) => {
                told.path = Some(body.some_str("path")?.to_string());
                if create.kind == CreateKind::Create2 {
                    told.stat = Some(body.stat()?);
                }
            }
            Request::Write(WriteRequest::SetData { .. })
            | Request::Read(ReadRequest::Exists(_)) => told.stat = Some(body.stat()?),
            Request::Read(ReadRequest::GetData(_)) => {
                told.data = body.buffer("data")?;
                told.stat = Some(body.stat()?);
            }
            Request::Read(ReadRequest::GetChildren(_)) => told.children = names(&mut body)?,
            Request::Read(ReadRequest::GetChildren2(_)) => {
                told.children = names(&mut body)?;
                told.stat = Some(body.stat()?);
            }
            Request::Sync { .. } => told.path = Some(body.some_str("path")?.to_string()),
            _ => {}
        }
        Ok(told)
    }
}

impl Story {
    /// What is judged: all that clients saw, or at once the verdict.
    pub(super) fn of(history: &History) -> Result<Self, Verdict> {
        let mut story = Self::default();
        for log in history.conns.values() {
            let first = story.ops.len();
            let mut conn = Conn {
                session: log.session,
                items: Vec::new(),
                answers_end: 0,
                unsure: Vec::new(),
            };
            for exchange in &log.exchanges {
                let op = story.op(exchange, history.disk_was_full)?;
                if op.told.is_none() && op.ask.is_write() {
                    conn.unsure.push(story.ops.len());
                }
                story.ops.push(op);
            }
            for received in &log.received {
                conn.items.push(match received {
                    Received::Reply(index) => Item::Told(first + index),
                    Received::Event(zxid, event) => Item::Event(*zxid, event.clone()),
                });
                if let Received::Reply(_) = received {
                    conn.answers_end = conn.items.len();
                }
            }
            story.conns.push(conn);
        }
        story.put_in_order(history);
        story.check_answers()?;
        story.check_zxids()?;
        Ok(story)
    }

    fn op(&self, exchange: &Exchange, disk_was_full: bool) -> Result<Op, Verdict> {
        let request = &exchange.request;
        let Some(ask) = Ask::of(request) else {
            return Err(Verdict::Undecided(format!("{request:?} is not known")));
        };
        let told = exchange.answer.as_ref().map(|answer| Told::of(request, answer));
        let told = told.transpose().map_err(|error| no(format!("{request:?}: {error}")))?;
        // What is refused for want of a session or of space has not come to the tree.
        let is_void = |code: ErrorCode| match code {
            ErrorCode::SESSION_EXPIRED | ErrorCode::SESSION_MOVED => ask.is_write(),
            ErrorCode::SYSTEM_ERROR => disk_was_full,
            _ => false,
        };
        let ask = match &told {
            Some(told) if is_void(told.code) => Ask::Nothing,
            _ => ask,
        };
        Ok(Op { conn: self.conns.len(), ask, told, behind: Vec::new() })
    }

    /// Writes and syncs are behind all that any client had received when they were sent, reads
    /// behind what their own session had.
    fn put_in_order(&mut self, history: &History) {
        let logs: Vec<_> = history.conns.values().collect();
        let sent = logs.iter().flat_map(|log| log.exchanges.iter().map(|it| it.sent_at));
        for (op, sent_at) in self.ops.iter_mut().zip(sent) {
            let of_all = op.ask.is_write() || matches!(op.ask, Ask::Sync { .. });
            let own = self.conns.get(op.conn).map(|conn| conn.session);
            let received = |(conn, log): (&Conn, &&history::ConnHistory)| {
                let before = log.received_at.partition_point(|at| *at < sent_at);
                if of_all || own == Some(conn.session) { before } else { 0 }
            };
            op.behind = self.conns.iter().zip(&logs).map(received).collect();
        }
    }

    /// Answers come in the order of the requests, each once.
    fn check_answers(&self) -> Result<(), Verdict> {
        for (number, conn) in self.conns.iter().enumerate() {
            let asked = (0..self.ops.len()).filter(|at| self.ops[*at].conn == number);
            let told = conn.items.iter().filter_map(|item| match item {
                Item::Told(op) => Some(*op),
                Item::Event(..) => None,
            });
            let answered = asked.filter(|at| self.ops[*at].told.is_some());
            if !answered.eq(told) {
                return Err(no(format!("connection {number} has answers in another order")));
            }
            let mut last = Zxid::ZERO;
            for item in &conn.items {
                let Item::Told(op) = item else { continue };
                let Some(Told { zxid, .. }) = self.ops[*op].told else { continue };
                if zxid < last {
                    return Err(no(format!("connection {number} is shown {zxid} behind {last}")));
                }
                last = zxid;
            }
        }
        Ok(())
    }

    /// A zxid is one write's, and has one time.
    fn check_zxids(&mut self) -> Result<(), Verdict> {
        let mut times: BTreeMap<Zxid, i64> = BTreeMap::new();
        for (at, op) in self.ops.iter().enumerate() {
            let Some(told) = &op.told else { continue };
            if op.ask.is_write() && self.answered.insert(told.zxid, at).is_some() {
                return Err(no(format!("{} is the zxid of two writes", told.zxid)));
            }
            let Some(stat) = &told.stat else { continue };
            for (zxid, time) in [(stat.czxid, stat.ctime), (stat.mzxid, stat.mtime)] {
                if *times.entry(zxid).or_insert(time) != time {
                    return Err(no(format!("{zxid} has two times")));
                }
            }
        }
        Ok(())
    }
}

fn no(why: String) -> Verdict {
    Verdict::Contradiction(why)
}
