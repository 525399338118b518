//! [`LongAnswer`]: an answer that is too long for one turn, made a slice at a time while other
//! connections go on.
//!
//! To its session it is made at the moment it begins: it carries that moment's zxid, a list of
//! children shows the tree as it was then, and whatever the connection is owed later is put behind
//! it ([`super::outbox`]). Watches are set one after the other, each against the tree of its own
//! slice: what changes before is told at once, what changes after fires, and both reach the client
//! before it can read what has changed.
//!
//! A multiRead shows one state of the tree: until it has read everything, no txn is applied here.

use std::sync::Arc;

use bytes::{Bytes, BytesMut};

use crate::auth::{self, AuthConfig, Identities};
use crate::base::{Str, StrList, str_set};
use crate::limits;
use crate::model::request::{MultiReadKind, SetWatches};
use crate::model::{ConnId, ErrorCode, EventType, Perms, SessionId, Stat, WatchEvent, Xid, Zxid};
use crate::server::stream::Delta;
use crate::tree::{Listing, Outcome, Tree, ZnodeRef};
use crate::watch::{WatchKind, WatchTable};
use crate::wire::response;

use super::replies;

/// Setting a watch again looks a path up twice: it costs about as much as so many names of a list.
const WATCH_STEPS: usize = 8;

/// The same of one op of a multiRead, and how many bytes of data cost as much as one step.
const READ_STEPS: usize = 4;
const STEP_BYTES: usize = 512;

/// Bytes of one piece of a long answer.
const CHUNK_BYTES: usize = 64 * 1024;

/// An answer that is being made.
#[derive(Debug)]
pub(super) enum LongAnswer {
    /// getChildren and getChildren2.
    Children(Children),
    /// getEphemerals.
    Ephemerals(Ephemerals),
    /// setWatches and setWatches2.
    Rewatch(Rewatch),
    /// multiRead, carried on by [`MultiRead::go_on`].
    MultiRead(MultiRead),
    /// multi.
    Results(Results),
}

impl LongAnswer {
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
            Self::Ephemerals(ephemerals) => ephemerals.go_on(steps_max),
            Self::Rewatch(rewatch) => {
                rewatch.go_on(view, watches, conn, (steps_max / WATCH_STEPS).max(1));
                rewatch.is_done().then(|| vec![rewatch.answer()])
            }
            Self::MultiRead(read) => read.is_done().then(|| read.answer()),
            Self::Results(results) => results.go_on(steps_max),
        }
    }

    /// About how many bytes there will be of what needs no reading.
    pub(super) fn owed_bytes(&self) -> usize {
        match self {
            Self::Results(results) => results.owed_bytes(),
            _ => 0,
        }
    }
}

/// A reply that is made in pieces.
#[derive(Debug)]
struct Pieces {
    xid: Xid,
    zxid: Zxid,
    full: Vec<BytesMut>,
    full_bytes: usize,
    /// Where the next bytes are appended.
    open: BytesMut,
}

impl Pieces {
    const fn new(xid: Xid, zxid: Zxid, first: BytesMut) -> Self {
        Self { xid, zxid, full: Vec::new(), full_bytes: 0, open: first }
    }

    /// Something was appended.
    fn cut(&mut self) {
        if CHUNK_BYTES <= self.open.len() {
            let next = BytesMut::with_capacity(CHUNK_BYTES);
            self.full_bytes += self.open.len();
            self.full.push(std::mem::replace(&mut self.open, next));
        }
    }

    /// Whether there is more already than a connection is sent at once.
    const fn is_too_long(&self) -> bool {
        limits::CONN_UNSENT_BYTES_HARD_MAX < self.full_bytes
    }

    /// The whole reply. `finish` does what is left to do in the first piece, if that can be done.
    fn answer(&mut self, finish: impl FnOnce(&mut BytesMut) -> bool) -> Vec<Bytes> {
        let mut pieces = std::mem::take(&mut self.full);
        pieces.push(std::mem::take(&mut self.open));
        let bytes: usize = pieces.iter().map(BytesMut::len).sum();
        let first = pieces.first_mut();
        let closed = first.is_some_and(|first| finish(first) && response::close(first, bytes));
        if !closed {
            let mut refusal = BytesMut::new();
            response::reply(&mut refusal, self.xid, self.zxid, ErrorCode::SYSTEM_ERROR, |_| {});
            return vec![refusal.freeze()];
        }
        pieces.into_iter().map(BytesMut::freeze).collect()
    }
}

/// A reply that begins with a list of strings.
#[derive(Debug)]
struct Strings {
    pieces: Pieces,
    count: usize,
}

impl Strings {
    fn begin(xid: Xid, zxid: Zxid) -> Self {
        let mut first = BytesMut::with_capacity(CHUNK_BYTES);
        response::open_strings(&mut first, xid, zxid);
        Self { pieces: Pieces::new(xid, zxid, first), count: 0 }
    }

    fn push(&mut self, string: &str) {
        response::path(&mut self.pieces.open, string);
        self.count += 1;
        self.pieces.cut();
    }

    fn answer(&mut self, stat: Option<&Stat>) -> Vec<Bytes> {
        if let Some(stat) = stat {
            response::stat(&mut self.pieces.open, stat);
        }
        let count = self.count;
        self.pieces.answer(|first| response::count_strings(first, count))
    }
}

/// Several reads of one state of the tree: as long as it is not done, the tree must stay as it is.
#[derive(Debug)]
pub(super) struct MultiRead {
    left: std::vec::IntoIter<(MultiReadKind, Str)>,
    identities: Identities,
    /// Of the last op: names that are left.
    listing: Option<Listing>,
    pieces: Pieces,
    done: bool,
}

impl MultiRead {
    pub(super) fn begin(
        items: Vec<(MultiReadKind, Str)>,
        identities: Identities,
        xid: Xid,
        zxid: Zxid,
    ) -> Self {
        let mut first = BytesMut::new();
        response::open(&mut first, xid, zxid);
        let pieces = Pieces::new(xid, zxid, first);
        Self { left: items.into_iter(), identities, listing: None, pieces, done: false }
    }

    /// Does at most about so many steps; whether it is done.
    pub(super) fn go_on(&mut self, view: &Tree, config: &AuthConfig, steps_max: usize) -> bool {
        let mut steps = 0;
        loop {
            if let Some(listing) = &mut self.listing {
                let before = listing.left();
                let names_max = u32::try_from(steps_max.saturating_sub(steps)).unwrap_or(u32::MAX);
                let pieces = &mut self.pieces;
                view.list_some(listing, names_max.max(1), &mut |name| {
                    response::path(&mut pieces.open, name);
                    pieces.cut();
                });
                steps += (before - listing.left()) as usize;
                if listing.left() != 0 && !self.pieces.is_too_long() {
                    return false;
                }
                self.listing = None;
            }
            if self.pieces.is_too_long() {
                let limit = limits::CONN_UNSENT_BYTES_HARD_MAX;
                tracing::warn!(limit, "refused: a multiRead asks for more than a reply may have");
                self.done = true;
                return true;
            }
            if self.left.as_slice().is_empty() && !self.done {
                response::multi_end(&mut self.pieces.open);
                self.done = true;
            }
            if self.done || steps_max <= steps {
                return self.done;
            }
            steps +=
                self.left.next().map_or(0, |(kind, path)| self.read(view, config, kind, &path));
        }
    }

    /// Begins one op; how many steps that was.
    fn read(&mut self, view: &Tree, config: &AuthConfig, kind: MultiReadKind, path: &str) -> usize {
        let buf = &mut self.pieces.open;
        let may_read = |znode: &ZnodeRef<'_>| {
            auth::allowed(config, znode.acl(), Perms::READ, &self.identities)
        };
        let mut steps = READ_STEPS;
        match (view.get(path), kind) {
            (None, _) => response::multi_error(buf, ErrorCode::NO_NODE),
            (Some(znode), _) if !may_read(&znode) => {
                response::multi_error(buf, ErrorCode::NO_AUTH);
            }
            (Some(znode), MultiReadKind::GetData) => {
                response::multi_read_data(buf, znode.data(), &znode.stat());
                steps += znode.data().map_or(0, <[u8]>::len) / STEP_BYTES;
            }
            (Some(znode), MultiReadKind::GetChildren) => {
                response::multi_read_children(buf, znode.child_count());
                self.listing = (znode.child_count() != 0).then(|| view.list(&znode));
            }
        }
        self.pieces.cut();
        steps
    }

    pub(super) const fn is_done(&self) -> bool {
        self.done
    }

    /// The reply, once it is done.
    pub(super) fn answer(&mut self) -> Vec<Bytes> {
        let fits = !self.pieces.is_too_long();
        self.pieces.answer(|_| fits)
    }
}

/// The results of a multi, which all stand in its delta.
#[derive(Debug)]
pub(super) struct Results {
    delta: Arc<Delta>,
    failed: bool,
    /// How many are in `pieces`.
    made: usize,
    pieces: Pieces,
}

impl Results {
    /// If it is a multi of more than so many ops.
    pub(super) fn begin(delta: &Arc<Delta>, xid: Xid, ops_max: usize) -> Option<Self> {
        let Outcome::Multi(outcomes) = &delta.applied.outcome else { return None };
        if outcomes.len() <= ops_max {
            return None;
        }
        let mut first = BytesMut::with_capacity(CHUNK_BYTES);
        response::open(&mut first, xid, delta.header.zxid);
        let pieces = Pieces::new(xid, delta.header.zxid, first);
        let failed = replies::has_failed(outcomes);
        Some(Self { delta: Arc::clone(delta), failed, made: 0, pieces })
    }

    /// The delta takes more room than the reply.
    fn owed_bytes(&self) -> usize {
        const RESULT_BYTES: usize = 200;
        match &self.delta.applied.outcome {
            Outcome::Multi(outcomes) => outcomes.len() * RESULT_BYTES,
            _ => 0,
        }
    }

    fn go_on(&mut self, results_max: usize) -> Option<Vec<Bytes>> {
        let Outcome::Multi(outcomes) = &self.delta.applied.outcome else {
            unreachable!("it was begun with a multi's")
        };
        let results = replies::ops(&self.delta.body, outcomes);
        for (body, outcome) in results.skip(self.made).take(results_max) {
            replies::op(&mut self.pieces.open, body, outcome, self.failed);
            self.pieces.cut();
            self.made += 1;
        }
        if self.made != outcomes.len() {
            return None;
        }
        response::multi_end(&mut self.pieces.open);
        Some(self.pieces.answer(|_| true))
    }
}

/// The names of a znode's children at one zxid.
#[derive(Debug)]
pub(super) struct Children {
    listing: Listing,
    /// Put behind the names by getChildren2.
    stat: Option<Stat>,
    strings: Strings,
}

impl Children {
    pub(super) fn begin(view: &Tree, znode: &ZnodeRef<'_>, xid: Xid, with_stat: bool) -> Self {
        let stat = with_stat.then(|| znode.stat());
        Self { listing: view.list(znode), stat, strings: Strings::begin(xid, view.last_zxid()) }
    }

    fn go_on(&mut self, view: &Tree, names_max: usize) -> Option<Vec<Bytes>> {
        let Self { listing, strings, .. } = self;
        let names_max = u32::try_from(names_max).unwrap_or(u32::MAX);
        view.list_some(listing, names_max, &mut |name| strings.push(name));
        (listing.left() == 0).then(|| strings.answer(self.stat.as_ref()))
    }
}

/// The paths of a session's ephemerals at one zxid.
#[derive(Debug)]
pub(super) struct Ephemerals {
    left: str_set::IntoIter,
    wanted: Wanted,
    strings: Strings,
}

/// Which ephemerals are asked for.
#[derive(Clone, Debug)]
pub(super) struct Wanted(Option<Str>);

impl Wanted {
    /// Null, blank and `/` mean all.
    pub(super) fn new(prefix: Option<&Str>) -> Self {
        // Blank is what Java trims.
        let names_some = |prefix: &&Str| !matches!(prefix.trim_matches(|c| c <= ' '), "" | "/");
        Self(prefix.filter(names_some).cloned())
    }

    pub(super) fn has(&self, path: &str) -> bool {
        self.0.as_ref().is_none_or(|prefix| path.starts_with(prefix.as_str()))
    }
}

impl Ephemerals {
    pub(super) fn begin(view: &Tree, session: SessionId, xid: Xid, wanted: Wanted) -> Self {
        let left = view.ephemerals_now(session).into_iter();
        Self { left, wanted, strings: Strings::begin(xid, view.last_zxid()) }
    }

    fn go_on(&mut self, paths_max: usize) -> Option<Vec<Bytes>> {
        for _ in 0..paths_max {
            let Some(path) = self.left.next() else { return Some(self.strings.answer(None)) };
            if self.wanted.has(&path) {
                self.strings.push(&path);
            }
        }
        None
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
    /// What is left, the list that comes next at the end.
    left: Vec<(Kind, StrList)>,
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
            let path = paths.next();
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
        let stat = || view.get(path).map(|znode| znode.persisted());
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::{CreateTxn, CreateTxnKind, TxnBody, TxnHeader};
    use crate::server::shard::conn::WriteKind;
    use crate::tree::Applied;

    #[test]
    fn a_multi_is_answered_in_slices_as_at_once() {
        let path = Str::from_static("/a");
        let stat = Stat { version: 3, ..Stat::default() };
        let create = |kind| {
            let (path, acl) = (path.clone(), Vec::new());
            TxnBody::Create(CreateTxn { kind, path, data: None, acl, parent_cversion: 1 })
        };
        let created = || Outcome::Created { path: path.clone(), stat };
        let set = TxnBody::SetData { path: path.clone(), data: None, version: 3 };
        let kinds = [
            (create(CreateTxnKind::Create { ephemeral: false }), created()),
            (create(CreateTxnKind::Container), created()),
            (set, Outcome::Set(stat)),
            (TxnBody::Check { path: path.clone(), version: 3 }, Outcome::Done),
            (TxnBody::Delete { path: path.clone() }, Outcome::Done),
        ];
        let (bodies, outcomes): (Vec<_>, Vec<_>) = kinds.into_iter().cycle().take(3_000).unzip();
        let mut refused = outcomes.clone();
        *refused.last_mut().expect("there are some") = Outcome::Failed(ErrorCode::NO_NODE);
        let header = TxnHeader { session: SessionId(1), cxid: Xid(5), zxid: Zxid(9), time_ms: 0 };
        for outcomes in [outcomes, refused] {
            let applied = Applied { steps: Vec::new(), outcome: Outcome::Multi(outcomes) };
            let body = TxnBody::Multi(bodies.clone());
            let delta = Arc::new(Delta { header, body, applied, origin: None });
            let mut at_once = BytesMut::new();
            replies::write(&mut at_once, WriteKind::Multi, Xid(5), &delta);
            for results_max in [1, 7, 999, 2_999, 3_000] {
                let mut results = Results::begin(&delta, Xid(5), 2_999).expect("it is long");
                let slices = 3_000_usize.div_ceil(results_max);
                assert!((1..slices).all(|_| results.go_on(results_max).is_none()));
                assert!(at_once.len() <= results.owed_bytes(), "the client is owed them");
                let answer = results.go_on(results_max).expect("that was the last");
                assert_eq!(answer.concat(), at_once, "{results_max}");
            }
            assert!(Results::begin(&delta, Xid(5), 3_000).is_none(), "it is not long");
        }
    }
}
