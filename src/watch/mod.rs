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
use links::{ALL, Links, PERSISTENT, Place, RECURSIVE, STANDARD, Side};

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

/// One event, and all connections that hear of it if they may know.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Firing {
    /// To whom, each once; at least one.
    pub conns: Vec<ConnId>,
    /// What happened.
    pub event_type: EventType,
    /// Where: the changed znode or, for its children's list, the parent.
    pub path: Str,
    /// Whose ACL decides.
    pub filter: Filter,
}

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
    pub fn created(&mut self, path: &Str, out: &mut Vec<Firing>) {
        self.fire_data(path, EventType::NodeCreated, out);
        self.fire_parent(path, out);
    }

    /// Data was set: NodeDataChanged to data watches.
    pub fn changed(&mut self, path: &Str, out: &mut Vec<Firing>) {
        self.fire_data(path, EventType::NodeDataChanged, out);
    }

    /// A znode was deleted: NodeDeleted to data watches, to those child watches whose connection
    /// was not just told, then NodeChildrenChanged to the parent's child watches.
    pub fn deleted(&mut self, path: &Str, out: &mut Vec<Firing>) {
        let mut conns = self.fire_data_side(path);
        let mut of_list = self.fire_child_side(path);
        if !conns.is_empty() && !of_list.is_empty() {
            let told: BTreeSet<ConnId> = conns.iter().copied().collect();
            of_list.retain(|conn| !told.contains(conn));
        }
        conns.append(&mut of_list);
        push(out, conns, EventType::NodeDeleted, path, Filter::Own);
        self.fire_parent(path, out);
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

    fn fire_data(&mut self, path: &Str, event_type: EventType, out: &mut Vec<Firing>) {
        let conns = self.fire_data_side(path);
        push(out, conns, event_type, path, Filter::Own);
    }

    /// The data table on `path`: every mode on it, recursive ones on its ancestors. Those that
    /// watch the path itself come in the order in which they did, then the others by their ids.
    fn fire_data_side(&mut self, path: &str) -> Vec<ConnId> {
        let at = self.links.path(path);
        let above = self.recursive_above(path, at);
        let mut conns = Vec::new();
        if let Some(at) = at {
            self.links.fire(at, Side::Data, &mut |conn| conns.push(conn));
        }
        conns.extend(above);
        conns
    }

    /// The child table on exactly `path`.
    fn fire_child_side(&mut self, path: &str) -> Vec<ConnId> {
        let mut conns = Vec::new();
        if let Some(at) = self.links.path(path) {
            self.links.fire(at, Side::Child, &mut |conn| conns.push(conn));
        }
        conns
    }

    /// Connections with recursive watches on ancestors and none on the path itself.
    fn recursive_above(&self, path: &str, at: Option<Place>) -> BTreeSet<ConnId> {
        let mut found = BTreeSet::new();
        if self.links.recursive_count() == 0 {
            return found;
        }
        let mut above = path;
        while above != "/" {
            let Some(parent) = path::parent(above) else { break };
            above = parent;
            if let Some(above) = self.links.path(above) {
                found.extend(self.links.watchers(above, Side::Data, RECURSIVE));
            }
        }
        if let Some(at) = at {
            found.retain(|conn| self.links.modes(*conn, at, Side::Data) == 0);
        }
        found
    }

    fn fire_parent(&mut self, path: &Str, out: &mut Vec<Firing>) {
        let Some(parent) = path::parent(path).filter(|_| **path != *"/") else { return };
        let conns = self.fire_child_side(parent);
        let parent = path.slice_ref(parent);
        push(out, conns, EventType::NodeChildrenChanged, &parent, Filter::Parent);
    }
}

fn push(
    out: &mut Vec<Firing>,
    conns: Vec<ConnId>,
    event_type: EventType,
    path: &Str,
    filter: Filter,
) {
    if !conns.is_empty() {
        out.push(Firing { conns, event_type, path: path.clone(), filter });
    }
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
