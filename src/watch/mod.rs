//! Layer 2: who wants to hear about what (`client-protocol.md` part 7). Watches belong to
//! connections. Knows nothing of znodes, ACLs or packets: it is told what changed where and says
//! whom to notify, in order; whether they may know is the caller's to judge.

mod listing;

#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, BTreeSet};

use hashbrown::HashMap;

use crate::base::Str;
use crate::model::request::{WatcherSelection, WatcherType};
use crate::model::{ConnId, EventType, path};

type PathMap<V> = HashMap<Str, V, std::hash::BuildHasherDefault<std::hash::DefaultHasher>>;

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

/// One notification to be sent if the connection may know.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Firing {
    /// To whom.
    pub conn: ConnId,
    /// What happened.
    pub event_type: EventType,
    /// Where: the changed znode or, for its children's list, the parent.
    pub path: Str,
    /// Whose ACL decides.
    pub filter: Filter,
}

/// Whose READ permission a notification needs.
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
    data: Side,
    child: Side,
    /// Paths each connection watches, so that its end need not search.
    by_conn: BTreeMap<ConnId, BTreeSet<Str>>,
    /// Recursive watches anywhere: without any, ancestors are not looked up.
    recursive_count: usize,
}

/// One of the two tables. A path's watchers are sorted by connection.
#[derive(Debug, Default)]
struct Side {
    paths: PathMap<Vec<Watcher>>,
    count: usize,
}

/// A connection's modes on one path.
#[derive(Clone, Copy, Debug)]
struct Watcher {
    conn: ConnId,
    modes: u8,
}

const STANDARD: u8 = 1;
const PERSISTENT: u8 = 2;
const RECURSIVE: u8 = 4;

impl Side {
    fn add(&mut self, conn: ConnId, path: &Str, mode: u8) -> bool {
        let watchers = match self.paths.get_mut(path) {
            Some(watchers) => watchers,
            None => self.paths.entry(Str::from(path.as_str())).or_default(),
        };
        match watchers.binary_search_by_key(&conn, |watcher| watcher.conn) {
            Ok(at) => {
                let Some(watcher) = watchers.get_mut(at) else { return false };
                let new = watcher.modes & mode == 0;
                watcher.modes |= mode;
                new
            }
            Err(at) => {
                watchers.insert(at, Watcher { conn, modes: mode });
                self.count += 1;
                true
            }
        }
    }

    fn modes(&self, conn: ConnId, path: &str) -> u8 {
        let watchers = self.paths.get(path).map(Vec::as_slice).unwrap_or_default();
        match watchers.binary_search_by_key(&conn, |watcher| watcher.conn) {
            Ok(at) => watchers.get(at).map_or(0, |watcher| watcher.modes),
            Err(_) => 0,
        }
    }

    /// Takes modes away; what was taken.
    fn remove(&mut self, conn: ConnId, path: &str, modes: u8) -> u8 {
        let Some(watchers) = self.paths.get_mut(path) else { return 0 };
        let Ok(at) = watchers.binary_search_by_key(&conn, |watcher| watcher.conn) else { return 0 };
        let Some(watcher) = watchers.get_mut(at) else { return 0 };
        let taken = watcher.modes & modes;
        watcher.modes &= !modes;
        if watcher.modes == 0 {
            watchers.remove(at);
            self.count -= 1;
            if watchers.is_empty() {
                self.paths.remove(path);
            }
        }
        taken
    }
}

impl WatchTable {
    /// No watches.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Sets a watch. Setting it again changes nothing.
    #[expect(clippy::needless_pass_by_value, reason = "the table keeps its own compact copy")]
    pub fn add(&mut self, conn: ConnId, path: Str, kind: WatchKind) {
        match kind {
            WatchKind::Data => {
                self.data.add(conn, &path, STANDARD);
            }
            WatchKind::Child => {
                self.child.add(conn, &path, STANDARD);
            }
            WatchKind::Persistent => {
                self.data.add(conn, &path, PERSISTENT);
                self.child.add(conn, &path, PERSISTENT);
            }
            WatchKind::PersistentRecursive => {
                if self.data.add(conn, &path, RECURSIVE) {
                    self.recursive_count += 1;
                }
            }
        }
        let paths = self.by_conn.entry(conn).or_default();
        if !paths.contains(&path) {
            paths.insert(Str::from(path.as_str()));
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
        let before = out.len();
        self.fire_data(path, EventType::NodeDeleted, out);
        let told: Vec<ConnId> = out.iter().skip(before).map(|firing| firing.conn).collect();
        for conn in self.take_exact_child(path) {
            if !told.contains(&conn) {
                let (event_type, filter) = (EventType::NodeDeleted, Filter::Own);
                out.push(Firing { conn, event_type, path: path.clone(), filter });
            }
        }
        self.fire_parent(path, out);
    }

    /// Removes watches of one kind on one path; whether there were any.
    pub fn remove(&mut self, conn: ConnId, selection: &WatcherSelection) -> bool {
        let path = &selection.path;
        let (data, child) = match selection.watcher_type {
            WatcherType::Children => (0, STANDARD),
            WatcherType::Data => (STANDARD, 0),
            WatcherType::Any => (STANDARD | PERSISTENT | RECURSIVE, STANDARD | PERSISTENT),
            WatcherType::Persistent => (PERSISTENT, PERSISTENT),
            WatcherType::PersistentRecursive => (RECURSIVE, 0),
        };
        let data = self.data.remove(conn, path, data);
        let child = self.child.remove(conn, path, child);
        if data & RECURSIVE != 0 {
            self.recursive_count -= 1;
        }
        self.forget_if_unwatched(conn, path);
        data | child != 0
    }

    /// Whether there are watches of one kind on one path.
    #[must_use]
    pub fn contains(&self, conn: ConnId, selection: &WatcherSelection) -> bool {
        let data = self.data.modes(conn, &selection.path);
        let child = self.child.modes(conn, &selection.path);
        match selection.watcher_type {
            WatcherType::Children => child & STANDARD != 0,
            WatcherType::Data => data & STANDARD != 0,
            WatcherType::Any => data | child != 0,
            WatcherType::Persistent => data & PERSISTENT != 0,
            WatcherType::PersistentRecursive => data & RECURSIVE != 0,
        }
    }

    /// Removes every watch of a connection.
    pub fn remove_conn(&mut self, conn: ConnId) {
        for path in self.by_conn.remove(&conn).unwrap_or_default() {
            let taken = self.data.remove(conn, &path, u8::MAX);
            if taken & RECURSIVE != 0 {
                self.recursive_count -= 1;
            }
            self.child.remove(conn, &path, u8::MAX);
        }
    }

    /// The data table on `path`: every mode on it, recursive ones on its ancestors. One packet for
    /// each connection, in the order of their ids.
    fn fire_data(&mut self, path: &Str, event_type: EventType, out: &mut Vec<Firing>) {
        let mut told = BTreeSet::new();
        let exact = self.data.paths.get(path).map(Vec::as_slice).unwrap_or_default();
        told.extend(exact.iter().map(|watcher| watcher.conn));
        let consumed: Vec<ConnId> = exact
            .iter()
            .filter(|watcher| watcher.modes & STANDARD != 0)
            .map(|watcher| watcher.conn)
            .collect();
        if self.recursive_count != 0 {
            let mut at = path.as_str();
            while at != "/" {
                let Some(parent) = path::parent(at) else { break };
                at = parent;
                let watchers = self.data.paths.get(at).map(Vec::as_slice).unwrap_or_default();
                let recursive = watchers.iter().filter(|watcher| watcher.modes & RECURSIVE != 0);
                told.extend(recursive.map(|watcher| watcher.conn));
            }
        }
        for conn in consumed {
            self.data.remove(conn, path, STANDARD);
            self.forget_if_unwatched(conn, path);
        }
        let firing = |conn| Firing { conn, event_type, path: path.clone(), filter: Filter::Own };
        out.extend(told.into_iter().map(firing));
    }

    fn fire_parent(&mut self, path: &Str, out: &mut Vec<Firing>) {
        let Some(parent) = path::parent(path).filter(|_| **path != *"/") else { return };
        let parent = path.slice_ref(parent);
        for conn in self.take_exact_child(&parent) {
            let (event_type, filter) = (EventType::NodeChildrenChanged, Filter::Parent);
            out.push(Firing { conn, event_type, path: parent.clone(), filter });
        }
    }

    /// Who watches the children of exactly this path; one-shot watches are consumed.
    fn take_exact_child(&mut self, path: &Str) -> Vec<ConnId> {
        let exact = self.child.paths.get(path).map(Vec::as_slice).unwrap_or_default();
        let told: Vec<ConnId> = exact.iter().map(|watcher| watcher.conn).collect();
        for conn in &told {
            if self.child.remove(*conn, path, STANDARD) != 0 {
                self.forget_if_unwatched(*conn, path);
            }
        }
        told
    }

    fn forget_if_unwatched(&mut self, conn: ConnId, path: &str) {
        if self.data.modes(conn, path) | self.child.modes(conn, path) != 0 {
            return;
        }
        if let Some(paths) = self.by_conn.get_mut(&conn) {
            paths.remove(path);
            if paths.is_empty() {
                self.by_conn.remove(&conn);
            }
        }
    }
}
