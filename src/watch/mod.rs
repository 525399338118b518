//! Layer 2: who wants to hear about what (`client-protocol.md` part 7). Watches belong to
//! connections. Knows nothing of znodes, ACLs or packets: it is told what changed where and says
//! whom to notify, in order; whether they may know is the caller's to judge.

mod links;
mod listing;

#[cfg(test)]
mod tests;

use std::collections::BTreeSet;

use crate::base::Str;
use crate::model::request::{WatcherSelection, WatcherType};
use crate::model::{ConnId, EventType, path};
use links::{ALL, Links, Modes, PERSISTENT, Place, RECURSIVE, STANDARD, Side, Walk};

/// How a watch was set.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum WatchKind {
    /// One-shot, by getData or exists.
    Data,
    /// One-shot, by getChildren.
    Child,
    /// Data and child events of one path until removed.
    Persistent,
    /// Data events of a path and everything below it until removed.
    PersistentRecursive,
}

/// One event for all connections that watch, if they may know. They are found one after the other,
/// by [`WatchTable::next_of`].
#[derive(Debug)]
pub struct Firing {
    /// What happened.
    pub event_type: EventType,
    /// Where: the changed znode or, for its children's list, the parent.
    pub path: Str,
    /// Whose ACL decides.
    pub filter: Filter,
    /// Where the others are found, the first one last, and in which modes they watch.
    walks: Vec<(Walk, Modes)>,
    /// Who was found, if there were several walks: each is told once.
    found: Option<BTreeSet<ConnId>>,
    /// Those who heard of it before their turn.
    told_first: Vec<ConnId>,
}

impl Firing {
    /// Whether it is known that all were found.
    #[must_use]
    pub const fn is_over(&self) -> bool {
        self.walks.is_empty()
    }
}

/// One-shot watches that firings will have consumed before others, as far as one connection is
/// concerned.
#[derive(Debug, Default)]
pub struct Foreseen(BTreeSet<(Place, bool)>);

/// Whose READ permission an event needs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Filter {
    /// The changed znode's.
    Own,
    /// Its parent's.
    Parent,
}

/// All watches of one shard.
#[derive(Debug, Default)]
pub struct WatchTable {
    links: Links,
}

impl WatchTable {
    /// No watches.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Sets a watch. Setting it again changes nothing.
    pub fn add(&mut self, conn: ConnId, path: &str, kind: WatchKind) {
        let (data, child) = match kind {
            WatchKind::Data => (STANDARD, 0),
            WatchKind::Child => (0, STANDARD),
            WatchKind::Persistent => (PERSISTENT, PERSISTENT),
            WatchKind::PersistentRecursive => (RECURSIVE, 0),
        };
        for (side, mode) in [(Side::Data, data), (Side::Child, child)] {
            if mode != 0 {
                self.links.add(conn, path, side, mode);
            }
        }
    }

    /// A znode was created: NodeCreated to data watches, NodeChildrenChanged to the parent's child
    /// watches.
    ///
    /// Of this and the next two: while the firings are not over, none but them may change the
    /// table, apart from [`WatchTable::remove_conn`], and each must be over before the next is gone
    /// on with.
    pub fn created(&self, path: &Str, out: &mut Vec<Firing>) {
        self.fire_data(path, EventType::NodeCreated, out);
        self.fire_parent(path, out);
    }

    /// Data was set: NodeDataChanged to data watches.
    pub fn changed(&self, path: &Str, out: &mut Vec<Firing>) {
        self.fire_data(path, EventType::NodeDataChanged, out);
    }

    /// A znode was deleted: NodeDeleted to data watches, to those child watches whose connection
    /// was not just told, then NodeChildrenChanged to the parent's child watches.
    pub fn deleted(&self, path: &Str, out: &mut Vec<Firing>) {
        let at = self.links.path(path);
        let child = at.map(|at| (Walk::new(at, Side::Child, true), ALL));
        let walks = self.data_walks(path, at).chain(child);
        self.push(out, walks, EventType::NodeDeleted, path, Filter::Own);
        self.fire_parent(path, out);
    }

    /// Goes on with a firing by one watch: who is told of the event for it, if anybody is; `None`
    /// once it is over.
    pub fn next_of(&mut self, firing: &mut Firing) -> Option<Option<ConnId>> {
        let Firing { walks, found, told_first, .. } = firing;
        loop {
            let (walk, wanted) = walks.last_mut()?;
            let visited = self.links.walk(walk);
            let wanted = *wanted;
            if walk.is_over() {
                walks.pop();
            }
            if let Some((modes, conn)) = visited {
                let is_new = |conn: &ConnId| {
                    let is_first = found.as_mut().is_none_or(|found| found.insert(*conn));
                    is_first && !told_first.contains(conn)
                };
                return Some(conn.filter(|_| modes & wanted != 0).filter(is_new));
            }
        }
    }

    /// Whether a connection is to be told of the event. If so, [`WatchTable::next_of`] does not
    /// name it. Only before anything of the firing was gone on with; `foreseen` is what those
    /// before it will have consumed.
    pub fn tells(&self, conn: ConnId, firing: &mut Firing, foreseen: &mut Foreseen) -> bool {
        let mut tells = false;
        for (walk, wanted) in &firing.walks {
            let key = (walk.path, walk.side == Side::Child);
            let mut modes = self.links.modes(conn, walk.path, walk.side);
            if foreseen.0.contains(&key) {
                modes &= !STANDARD;
            }
            if walk.fires && modes & STANDARD != 0 {
                foreseen.0.insert(key);
            }
            tells |= modes & wanted != 0;
        }
        if tells && !firing.told_first.contains(&conn) {
            firing.told_first.push(conn);
            return true;
        }
        false
    }

    /// Removes watches of one kind on one path; whether there were any.
    pub fn remove(&mut self, conn: ConnId, selection: &WatcherSelection) -> bool {
        let (data, child) = selected(selection.watcher_type);
        let data = self.links.remove(conn, &selection.path, Side::Data, data);
        let child = self.links.remove(conn, &selection.path, Side::Child, child);
        data | child != 0
    }

    /// Whether there are watches of one kind on one path.
    #[must_use]
    pub fn contains(&self, conn: ConnId, selection: &WatcherSelection) -> bool {
        let Some(at) = self.links.path(&selection.path) else { return false };
        let (data, child) = selected(selection.watcher_type);
        let modes = |side| self.links.modes(conn, at, side);
        (modes(Side::Data) & data) | (modes(Side::Child) & child) != 0
    }

    /// Removes every watch of a connection. It hears of nothing more; memory is given back by
    /// [`WatchTable::sweep`].
    pub fn remove_conn(&mut self, conn: ConnId) {
        self.links.end(conn);
    }

    /// Gives back the memory of removed connections' watches, of at most `watches_max` of them;
    /// whether there are more.
    pub fn sweep(&mut self, watches_max: usize) -> bool {
        self.links.sweep(watches_max)
    }

    fn fire_data(&self, path: &Str, event_type: EventType, out: &mut Vec<Firing>) {
        let walks = self.data_walks(path, self.links.path(path));
        self.push(out, walks, event_type, path, Filter::Own);
    }

    /// The data table on `path`: every mode on it, then recursive ones on its ancestors.
    fn data_walks(&self, path: &str, at: Option<Place>) -> impl Iterator<Item = (Walk, Modes)> {
        let own = at.map(|at| (Walk::new(at, Side::Data, true), ALL));
        let first = Some(path).filter(|_| self.links.recursive_count() != 0);
        let parents = std::iter::successors(first, |path| above(path));
        let watched = parents.skip(1).filter_map(|above| self.links.path(above));
        own.into_iter().chain(watched.map(|at| (Walk::new(at, Side::Data, false), RECURSIVE)))
    }

    fn fire_parent(&self, path: &Str, out: &mut Vec<Firing>) {
        let Some(parent) = above(path) else { return };
        let walk = self.links.path(parent).map(|at| (Walk::new(at, Side::Child, true), ALL));
        let parent = path.slice_ref(parent);
        let (walk, children) = (walk.into_iter(), EventType::NodeChildrenChanged);
        self.push(out, walk, children, &parent, Filter::Parent);
    }

    fn push(
        &self,
        out: &mut Vec<Firing>,
        walks: impl Iterator<Item = (Walk, Modes)>,
        event_type: EventType,
        path: &Str,
        filter: Filter,
    ) {
        let is_watched = |(walk, _): &(Walk, Modes)| self.links.is_watched(walk.path, walk.side);
        let mut walks: Vec<(Walk, Modes)> = walks.filter(is_watched).collect();
        if walks.is_empty() {
            return;
        }
        walks.reverse();
        let found = (1 < walks.len()).then(BTreeSet::new);
        let path = path.clone();
        out.push(Firing { event_type, path, filter, walks, found, told_first: Vec::new() });
    }
}

/// The parent's path; the root has none.
fn above(path: &str) -> Option<&str> {
    path::parent(path).filter(|_| path != "/")
}

/// What removeWatches and checkWatches mean by a type: modes of the data and of the child side.
const fn selected(watcher_type: WatcherType) -> (links::Modes, links::Modes) {
    match watcher_type {
        WatcherType::Children => (0, STANDARD),
        WatcherType::Data => (STANDARD, 0),
        WatcherType::Any => (ALL, ALL),
        WatcherType::Persistent => (PERSISTENT, PERSISTENT),
        WatcherType::PersistentRecursive => (RECURSIVE, 0),
    }
}
