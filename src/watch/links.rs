//! [`Links`]: which connection watches which path, found from both sides.
//!
//! ```text
//! link (24 bytes):  modes and connection | path and side | neighbours on the path's ring
//!                   | neighbours on the connection's ring
//! path:             text, head of the ring of each side's links, oldest first
//! connection:       id, head of the ring of its links
//! index:            (connection, path, side) -> link
//! ```
//!
//! A link costs 24 bytes and its entry in the index, at most 12. Nothing is moved when any of it
//! grows, and a connection that ends is let go of a slice at a time.

use std::collections::{BTreeMap, VecDeque};
use std::hash::{BuildHasher, Hasher};

use foldhash::quality::FixedState;

use crate::base::{Arena, Index};
use crate::model::ConnId;

/// Which of the two tables (`client-protocol.md` 7.1).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Side {
    /// Events of the znode itself.
    Data,
    /// Events of its list of children.
    Child,
}

/// How a connection watches: a set.
pub(super) type Modes = u32;
pub(super) const STANDARD: Modes = 1;
pub(super) const PERSISTENT: Modes = 2;
pub(super) const RECURSIVE: Modes = 4;
pub(super) const ALL: Modes = STANDARD | PERSISTENT | RECURSIVE;

/// Place of a path, a connection or a link in its arena.
pub(super) type Place = u32;
const NONE: Place = u32::MAX;
const MODE_BITS: u32 = 3;

#[derive(Debug, Default)]
pub(super) struct Links {
    links: Arena<Link>,
    index: Index,
    paths: Arena<Path>,
    path_index: Index,
    conns: Arena<Conn>,
    by_id: BTreeMap<ConnId, Place>,
    /// Connections that ended and are not yet swept.
    ended: VecDeque<Place>,
    /// Links, those of ended connections not counted.
    counts: PerSide<usize>,
    /// Links with a recursive mode: without any, ancestors are not looked up.
    recursive_count: usize,
}

#[derive(Debug)]
struct Link {
    conn_and_modes: u32,
    path_and_side: u32,
    on_path: Ring,
    on_conn: Ring,
}

const _: () = assert!(size_of::<Link>() == 24);

/// A link's neighbours. The last one's next is the first.
#[derive(Clone, Copy, Debug)]
struct Ring {
    next: Place,
    prev: Place,
}

/// A walk around the ring of a path and a side, link by link.
#[derive(Clone, Debug)]
pub(super) struct Walk {
    pub(super) path: Place,
    pub(super) side: Side,
    /// One-shot watches are consumed.
    pub(super) fires: bool,
    rest: Rest,
}

#[derive(Clone, Copy, Debug)]
enum Rest {
    All,
    /// From this link to that one; `NONE`: nothing is left.
    From(Place, Place),
}

impl Walk {
    pub(super) const fn new(path: Place, side: Side, fires: bool) -> Self {
        Self { path, side, fires, rest: Rest::All }
    }

    /// Whether it is known that nothing is left.
    pub(super) const fn is_over(&self) -> bool {
        matches!(self.rest, Rest::From(NONE, _))
    }
}

#[derive(Debug)]
struct Path {
    text: Box<str>,
    heads: PerSide<Place>,
}

#[derive(Debug)]
struct Conn {
    id: ConnId,
    head: Place,
    counts: PerSide<u32>,
    ended: bool,
}

#[derive(Clone, Copy, Debug, Default)]
struct PerSide<T> {
    data: T,
    child: T,
}

impl<T: Copy> PerSide<T> {
    const fn get(&self, side: Side) -> T {
        match side {
            Side::Data => self.data,
            Side::Child => self.child,
        }
    }

    const fn get_mut(&mut self, side: Side) -> &mut T {
        match side {
            Side::Data => &mut self.data,
            Side::Child => &mut self.child,
        }
    }
}

impl Link {
    const fn conn(&self) -> Place {
        self.conn_and_modes >> MODE_BITS
    }

    const fn modes(&self) -> Modes {
        self.conn_and_modes & ALL
    }

    const fn path(&self) -> Place {
        self.path_and_side >> 1
    }

    const fn side(&self) -> Side {
        if self.path_and_side & 1 == 0 { Side::Data } else { Side::Child }
    }

    fn hash(&self) -> u64 {
        hash(self.conn(), self.path_and_side)
    }

    const fn on_path(&mut self) -> &mut Ring {
        &mut self.on_path
    }

    const fn on_conn(&mut self) -> &mut Ring {
        &mut self.on_conn
    }
}

impl Links {
    pub(super) const fn count(&self, side: Side) -> usize {
        self.counts.get(side)
    }

    pub(super) const fn recursive_count(&self) -> usize {
        self.recursive_count
    }

    /// The place of a path that is watched.
    pub(super) fn path(&self, text: &str) -> Option<Place> {
        self.path_index.find(hash_text(text), |at| *self.paths.get(*at).text == *text)
    }

    /// The modes in which a connection watches.
    pub(super) fn modes(&self, conn: ConnId, path: Place, side: Side) -> Modes {
        let conn = self.by_id.get(&conn).copied();
        let found = conn.and_then(|conn| self.find(conn, path, side));
        found.map_or(0, |at| self.links.get(at).modes())
    }

    /// Adds a mode.
    pub(super) fn add(&mut self, conn: ConnId, text: &str, side: Side, mode: Modes) {
        let conn = self.conn_or_new(conn);
        let path = self.path(text).unwrap_or_else(|| self.new_path(text));
        let at = self.find(conn, path, side).unwrap_or_else(|| self.link(conn, path, side));
        let link = self.links.get_mut(at);
        let new = mode & !link.modes();
        link.conn_and_modes |= mode;
        if new & RECURSIVE != 0 {
            self.recursive_count += 1;
        }
    }

    /// Takes modes away; what was taken.
    pub(super) fn remove(&mut self, conn: ConnId, text: &str, side: Side, modes: Modes) -> Modes {
        let conn = self.by_id.get(&conn).copied();
        let found = conn.zip(self.path(text)).and_then(|(conn, path)| self.find(conn, path, side));
        found.map_or(0, |at| self.take_modes(at, modes))
    }

    /// Ends a connection: from now on it is not there. [`Links::sweep`] lets go of its links.
    pub(super) fn end(&mut self, conn: ConnId) {
        let Some(at) = self.by_id.remove(&conn) else { return };
        let conn = self.conns.get_mut(at);
        conn.ended = true;
        self.counts.data -= conn.counts.data as usize;
        self.counts.child -= conn.counts.child as usize;
        self.ended.push_back(at);
    }

    /// Lets go of links of connections that ended, at most so many; whether there are more.
    pub(super) fn sweep(&mut self, links_max: usize) -> bool {
        for _ in 0..links_max {
            let Some(conn) = self.ended.front().copied() else { return false };
            match self.conns.get(conn).head {
                NONE => {
                    self.ended.pop_front();
                    self.conns.release(conn);
                }
                head => {
                    self.take_modes(head, ALL);
                }
            }
        }
        !self.ended.is_empty()
    }

    /// Whether anybody may watch exactly this path.
    pub(super) fn is_watched(&self, path: Place, side: Side) -> bool {
        self.paths.get(path).heads.get(side) != NONE
    }

    /// The next who watches, the oldest watch first: in which modes, and who, unless that
    /// connection has ended. If the walk fires, a one-shot watch is consumed. Between the calls
    /// nothing else changes the ring.
    pub(super) fn walk(&mut self, walk: &mut Walk) -> Option<(Modes, Option<ConnId>)> {
        let (at, last) = match walk.rest {
            Rest::All => match self.paths.get(walk.path).heads.get(walk.side) {
                NONE => (NONE, NONE),
                head => (head, self.links.get(head).on_path.prev),
            },
            Rest::From(at, last) => (at, last),
        };
        walk.rest = Rest::From(NONE, NONE);
        if at == NONE {
            return None;
        }
        let link = self.links.get(at);
        if at != last {
            walk.rest = Rest::From(link.on_path.next, last);
        }
        let modes = link.modes();
        let conn = self.conns.get(link.conn());
        let found = (modes, (!conn.ended).then_some(conn.id));
        if walk.fires && modes & STANDARD != 0 {
            self.take_modes(at, STANDARD);
        }
        Some(found)
    }

    /// Bound of all links' places.
    pub(super) fn bound(&self) -> Place {
        self.links.bound()
    }

    /// The link at a place below the bound: what is watched by whom, if it is the znode itself.
    pub(super) fn data_watch(&self, at: Place) -> Option<(&str, ConnId)> {
        let link = self.links.get(at);
        let conn = self.conns.get(link.conn());
        // Links that are not in use have no modes.
        let counts = link.modes() != 0 && link.side() == Side::Data && !conn.ended;
        counts.then(|| (&*self.paths.get(link.path()).text, conn.id))
    }

    fn find(&self, conn: Place, path: Place, side: Side) -> Option<Place> {
        let path_and_side = (path << 1) | side as u32;
        let is_it = |at: &Place| {
            let link = self.links.get(*at);
            link.path_and_side == path_and_side && link.conn() == conn
        };
        self.index.find(hash(conn, path_and_side), is_it)
    }

    fn conn_or_new(&mut self, id: ConnId) -> Place {
        if let Some(at) = self.by_id.get(&id) {
            return *at;
        }
        let at = self.conns.put(Conn { id, head: NONE, counts: PerSide::default(), ended: false });
        assert!(at < 1 << (u32::BITS - MODE_BITS), "a shard has fewer than 2^29 connections");
        self.by_id.insert(id, at);
        at
    }

    fn new_path(&mut self, text: &str) -> Place {
        let heads = PerSide { data: NONE, child: NONE };
        let at = self.paths.put(Path { text: Box::from(text), heads });
        assert!(at < 1 << 31, "2^31 paths do not fit into memory");
        let Self { path_index, paths, .. } = self;
        path_index.insert(hash_text(text), at, |at| hash_text(&paths.get(*at).text));
        at
    }

    /// A new link without modes, at the end of both rings.
    fn link(&mut self, conn: Place, path: Place, side: Side) -> Place {
        let alone = Ring { next: NONE, prev: NONE };
        let at = self.links.put(Link {
            conn_and_modes: conn << MODE_BITS,
            path_and_side: (path << 1) | side as u32,
            on_path: alone,
            on_conn: alone,
        });
        assert!(at != NONE, "2^32 watches do not fit into memory");
        let head = self.paths.get_mut(path).heads.get_mut(side);
        *head = join(&mut self.links, Link::on_path, at, *head);
        let conn = self.conns.get_mut(conn);
        conn.head = join(&mut self.links, Link::on_conn, at, conn.head);
        *conn.counts.get_mut(side) += 1;
        *self.counts.get_mut(side) += 1;
        let Self { index, links, .. } = self;
        index.insert(links.get(at).hash(), at, |at| links.get(*at).hash());
        at
    }

    /// Takes modes away; what was taken. A link without modes goes, and with the last one its path
    /// and its connection.
    fn take_modes(&mut self, at: Place, modes: Modes) -> Modes {
        let link = self.links.get_mut(at);
        let taken = link.modes() & modes;
        link.conn_and_modes &= !taken;
        if taken & RECURSIVE != 0 {
            self.recursive_count -= 1;
        }
        if link.modes() == 0 {
            self.unlink(at);
        }
        taken
    }

    fn unlink(&mut self, at: Place) {
        let link = self.links.get(at);
        let (conn_at, path_at, side) = (link.conn(), link.path(), link.side());
        self.index.remove(link.hash(), |other| *other == at);
        let conn = self.conns.get_mut(conn_at);
        conn.head = leave(&mut self.links, Link::on_conn, at, conn.head);
        *conn.counts.get_mut(side) -= 1;
        if !conn.ended {
            *self.counts.get_mut(side) -= 1;
            if conn.head == NONE {
                self.by_id.remove(&conn.id);
                self.conns.release(conn_at);
            }
        }
        let path = self.paths.get_mut(path_at);
        let head = path.heads.get_mut(side);
        *head = leave(&mut self.links, Link::on_path, at, *head);
        if path.heads.data == NONE && path.heads.child == NONE {
            let text = std::mem::take(&mut path.text);
            self.path_index.remove(hash_text(&text), |other| *other == path_at);
            self.paths.release(path_at);
        }
        self.links.release(at);
    }

    /// Whether everything that was taken up was let go of.
    #[cfg(test)]
    pub(super) fn is_swept(&self) -> bool {
        let unused = |at| self.path(&self.paths.get(at).text).is_none();
        self.by_id.is_empty()
            && self.ended.is_empty()
            && self.recursive_count == 0
            && (0..self.paths.bound()).all(unused)
    }
}

/// Puts a link at the end of a ring; the ring's head from now on.
fn join(
    links: &mut Arena<Link>,
    ring: fn(&mut Link) -> &mut Ring,
    at: Place,
    head: Place,
) -> Place {
    if head == NONE {
        *ring(links.get_mut(at)) = Ring { next: at, prev: at };
        return at;
    }
    let last = std::mem::replace(&mut ring(links.get_mut(head)).prev, at);
    ring(links.get_mut(last)).next = at;
    *ring(links.get_mut(at)) = Ring { next: head, prev: last };
    head
}

/// Takes a link out of a ring; the ring's head from now on.
fn leave(
    links: &mut Arena<Link>,
    ring: fn(&mut Link) -> &mut Ring,
    at: Place,
    head: Place,
) -> Place {
    let Ring { next, prev } = *ring(links.get_mut(at));
    if next == at {
        return NONE;
    }
    ring(links.get_mut(prev)).next = next;
    ring(links.get_mut(next)).prev = prev;
    if head == at { next } else { head }
}

fn hash(conn: Place, path_and_side: u32) -> u64 {
    let mut hasher = FixedState::default().build_hasher();
    hasher.write_u64((u64::from(conn) << 32) | u64::from(path_and_side));
    hasher.finish()
}

fn hash_text(text: &str) -> u64 {
    let mut hasher = FixedState::default().build_hasher();
    hasher.write(text.as_bytes());
    hasher.finish()
}
