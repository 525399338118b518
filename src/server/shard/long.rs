//! [`LongRead`]: an answer that is too long for one turn, made a slice at a time while other
//! connections go on.
//!
//! To its session it is made at the moment it begins: it carries that moment's zxid, a list of
//! children shows the tree as it was then, and whatever the connection is owed later is put behind
//! it ([`super::outbox`]). Watches are set one after the other, each against the tree of its own
//! slice: what changes before is told at once, what changes after fires, and both reach the client
//! before it can read what has changed.

use bytes::{Bytes, BytesMut};

use crate::base::Str;
use crate::model::request::SetWatches;
use crate::model::{ConnId, ErrorCode, EventType, Stat, WatchEvent, Xid, Zxid};
use crate::tree::{Listing, Tree, ZnodeRef};
use crate::watch::{WatchKind, WatchTable};
use crate::wire::response;

/// Setting a watch again looks a path up twice: it costs about as much as so many names of a list.
const WATCH_STEPS: usize = 8;

/// Bytes of one piece of a long answer.
const CHUNK_BYTES: usize = 64 * 1024;

/// A read under way.
#[derive(Debug)]
pub(super) enum LongRead {
    /// getChildren and getChildren2.
    Children(Children),
    /// setWatches and setWatches2.
    Rewatch(Rewatch),
}

impl LongRead {
    /// Does at most so many steps; the whole answer once it is made.
    pub(super) fn go_on(
        &mut self,
        view: &Tree,
        watches: &mut WatchTable,
        conn: ConnId,
        steps_max: usize,
    ) -> Option<Vec<Bytes>> {
        match self {
            Self::Children(children) => children.go_on(view, steps_max),
            Self::Rewatch(rewatch) => {
                rewatch.go_on(view, watches, conn, (steps_max / WATCH_STEPS).max(1));
                rewatch.is_done().then(|| vec![rewatch.answer()])
            }
        }
    }
}

/// The names of a znode's children at one zxid.
#[derive(Debug)]
pub(super) struct Children {
    xid: Xid,
    zxid: Zxid,
    listing: Listing,
    /// Put behind the names by getChildren2.
    stat: Option<Stat>,
    chunks: Vec<BytesMut>,
    open: BytesMut,
}

impl Children {
    pub(super) fn begin(view: &Tree, znode: &ZnodeRef<'_>, xid: Xid, with_stat: bool) -> Self {
        let listing = view.list(znode);
        let zxid = view.last_zxid();
        let mut open = BytesMut::with_capacity(CHUNK_BYTES);
        response::open_reply(&mut open, xid, zxid);
        response::int(&mut open, i32::try_from(listing.left()).unwrap_or(i32::MAX));
        let stat = with_stat.then(|| znode.stat());
        Self { xid, zxid, listing, stat, chunks: Vec::new(), open }
    }

    fn go_on(&mut self, view: &Tree, names_max: usize) -> Option<Vec<Bytes>> {
        let Self { listing, chunks, open, .. } = self;
        let names_max = u32::try_from(names_max).unwrap_or(u32::MAX);
        view.list_some(listing, names_max, &mut |name| {
            response::path(open, name);
            if CHUNK_BYTES <= open.len() {
                chunks.push(std::mem::replace(open, BytesMut::with_capacity(CHUNK_BYTES)));
            }
        });
        (listing.left() == 0).then(|| self.answer())
    }

    fn answer(&mut self) -> Vec<Bytes> {
        if let Some(stat) = &self.stat {
            response::stat(&mut self.open, stat);
        }
        let mut chunks = std::mem::take(&mut self.chunks);
        chunks.push(std::mem::take(&mut self.open));
        let bytes: usize = chunks.iter().map(BytesMut::len).sum();
        let closed = chunks.first_mut().is_some_and(|first| response::close_reply(first, bytes));
        if !closed {
            let mut refusal = BytesMut::new();
            response::reply(&mut refusal, self.xid, self.zxid, ErrorCode::SYSTEM_ERROR, |_| {});
            return vec![refusal.freeze()];
        }
        chunks.into_iter().map(BytesMut::freeze).collect()
    }
}

/// Watches being set again on a new connection (`client-protocol.md` 7.4).
#[derive(Debug)]
pub(super) struct Rewatch {
    xid: Xid,
    zxid: Zxid,
    since: Zxid,
    /// What the reply says: the request may end with what cannot be set.
    code: ErrorCode,
    /// What is left, each list from its end.
    left: Vec<(Kind, Vec<Str>)>,
    /// Events that are told at once; they go out before the reply and carry zxid -1.
    events: BytesMut,
}

#[derive(Clone, Copy, Debug)]
enum Kind {
    Data,
    Exist,
    Child,
    Persistent,
    PersistentRecursive,
}

impl Rewatch {
    pub(super) fn begin(set: SetWatches, xid: Xid, zxid: Zxid) -> Self {
        let lists = [
            (Kind::Data, set.data),
            (Kind::Exist, set.exist),
            (Kind::Child, set.child),
            (Kind::Persistent, set.persistent),
            (Kind::PersistentRecursive, set.persistent_recursive),
        ];
        let mut left: Vec<_> = lists.into_iter().filter(|(_, paths)| !paths.is_empty()).collect();
        left.reverse();
        left.iter_mut().for_each(|(_, paths)| paths.reverse());
        let code = if set.cut_short { ErrorCode::MARSHALLING_ERROR } else { ErrorCode::OK };
        Self { xid, zxid, since: set.relative_zxid, code, left, events: BytesMut::new() }
    }

    pub(super) fn go_on(
        &mut self,
        view: &Tree,
        watches: &mut WatchTable,
        conn: ConnId,
        paths_max: usize,
    ) {
        for _ in 0..paths_max {
            let Some((kind, paths)) = self.left.last_mut() else { return };
            let kind = *kind;
            let path = paths.pop();
            if paths.is_empty() {
                self.left.pop();
            }
            if let Some(path) = path {
                self.set(view, watches, conn, kind, &path);
            }
        }
    }

    pub(super) const fn is_done(&self) -> bool {
        self.left.is_empty()
    }

    /// Events and reply, once everything is set.
    pub(super) fn answer(&mut self) -> Bytes {
        let mut out = std::mem::take(&mut self.events);
        response::reply(&mut out, self.xid, self.zxid, self.code, |_| {});
        out.freeze()
    }

    fn set(&mut self, view: &Tree, watches: &mut WatchTable, conn: ConnId, kind: Kind, path: &Str) {
        let stat = || view.get(path).map(|znode| *znode.persisted());
        let newer = |zxid: Zxid| self.since < zxid;
        let told = match kind {
            Kind::Data => match stat().map(|stat| newer(stat.mzxid)) {
                None => Err(EventType::NodeDeleted),
                Some(true) => Err(EventType::NodeDataChanged),
                Some(false) => Ok(WatchKind::Data),
            },
            Kind::Exist => match stat() {
                Some(_) => Err(EventType::NodeCreated),
                None => Ok(WatchKind::Data),
            },
            Kind::Child => match stat().map(|stat| newer(stat.pzxid)) {
                None => Err(EventType::NodeDeleted),
                Some(true) => Err(EventType::NodeChildrenChanged),
                Some(false) => Ok(WatchKind::Child),
            },
            Kind::Persistent => Ok(WatchKind::Persistent),
            Kind::PersistentRecursive => Ok(WatchKind::PersistentRecursive),
        };
        match told {
            Ok(watch) => watches.add(conn, path, watch),
            Err(event_type) => {
                let event = WatchEvent { event_type, path: path.clone() };
                response::event(&mut self.events, Zxid(-1), &event);
            }
        }
    }
}
