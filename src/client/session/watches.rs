//! Which watches a session has, so that they can be set again on its next connection.

use std::collections::BTreeSet;

use crate::base::Str;
use crate::model::request::{SetWatches, WatcherSelection, WatcherType};
use crate::model::{ErrorCode, EventType, ReadRequest, Request, WatchEvent, Zxid};

/// Bytes of paths in one setWatches: a server's limit on frames must not be met.
const SET_WATCHES_BYTES_MAX: usize = 128 << 10;

/// The five tables of setWatches2.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Table {
    Data,
    Exist,
    Child,
    Persistent,
    Recursive,
}

/// A change to the watches that takes effect if the request's reply says so.
#[derive(Clone, Debug)]
pub(super) enum Change {
    /// exists: in one table or the other, by the reply.
    Exists(Str),
    Set(Table, Str),
    Remove(WatcherSelection),
}

/// The watches that the server is believed to keep for this session.
#[derive(Debug, Default)]
pub(super) struct Watches(BTreeSet<(Table, Str)>);

impl Change {
    /// What a request would change.
    pub(super) fn of(request: &Request) -> Option<Self> {
        let Request::Read(read) = request else { return None };
        Some(match read {
            ReadRequest::Exists(target) if target.watch => Self::Exists(target.path.clone()),
            ReadRequest::GetData(target) if target.watch => {
                Self::Set(Table::Data, target.path.clone())
            }
            ReadRequest::GetChildren(target) | ReadRequest::GetChildren2(target)
                if target.watch =>
            {
                Self::Set(Table::Child, target.path.clone())
            }
            ReadRequest::AddWatch { path, recursive: false } => {
                Self::Set(Table::Persistent, path.clone())
            }
            ReadRequest::AddWatch { path, recursive: true } => {
                Self::Set(Table::Recursive, path.clone())
            }
            ReadRequest::RemoveWatches(selection) => Self::Remove(selection.clone()),
            _ => return None,
        })
    }
}

impl Watches {
    /// The reply to the request behind `change` has come.
    pub(super) fn on_reply(&mut self, change: Change, code: ErrorCode) {
        match (change, code) {
            (Change::Exists(path), ErrorCode::NO_NODE) => self.0.insert((Table::Exist, path)),
            (Change::Exists(path), ErrorCode::OK) => self.0.insert((Table::Data, path)),
            (Change::Set(table, path), ErrorCode::OK) => self.0.insert((table, path)),
            (Change::Remove(selection), ErrorCode::OK) => self.remove(selection),
            _ => false,
        };
    }

    fn remove(&mut self, WatcherSelection { path, watcher_type }: WatcherSelection) -> bool {
        let tables: &[Table] = match watcher_type {
            WatcherType::Children => &[Table::Child],
            WatcherType::Data => &[Table::Data, Table::Exist],
            WatcherType::Persistent => &[Table::Persistent],
            WatcherType::PersistentRecursive => &[Table::Recursive],
            WatcherType::Any => {
                &[Table::Data, Table::Exist, Table::Child, Table::Persistent, Table::Recursive]
            }
        };
        let before = self.0.len();
        self.0.retain(|(table, watched)| !(tables.contains(table) && *watched == path));
        self.0.len() < before
    }

    /// An event has come: one-shot watches are used up.
    pub(super) fn on_event(&mut self, event: &WatchEvent) {
        let tables: &[Table] = match event.event_type {
            EventType::NodeCreated | EventType::NodeDataChanged => &[Table::Data, Table::Exist],
            EventType::NodeChildrenChanged => &[Table::Child],
            EventType::NodeDeleted => &[Table::Data, Table::Exist, Table::Child],
        };
        for table in tables {
            self.0.remove(&(*table, event.path.clone()));
        }
    }

    /// The requests that set them all again for a client that has seen `seen`.
    pub(super) fn to_requests(&self, seen: Zxid) -> Vec<Request> {
        let mut sets = vec![Vec::new()];
        let mut bytes = 0;
        for watch in &self.0 {
            if SET_WATCHES_BYTES_MAX < bytes {
                bytes = 0;
                sets.push(Vec::new());
            }
            bytes += watch.1.len();
            if let Some(set) = sets.last_mut() {
                set.push(watch);
            }
        }
        sets.retain(|set| !set.is_empty());
        let request = |set: Vec<&(Table, Str)>| {
            let of = |table| set.iter().filter(move |it| it.0 == table).map(|it| it.1.as_str());
            Request::Read(ReadRequest::SetWatches(SetWatches {
                relative_zxid: seen,
                data: of(Table::Data).collect(),
                exist: of(Table::Exist).collect(),
                child: of(Table::Child).collect(),
                persistent: of(Table::Persistent).collect(),
                persistent_recursive: of(Table::Recursive).collect(),
                cut_short: false,
            }))
        };
        sets.into_iter().map(request).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::client::requests;

    fn sets(watches: &Watches) -> Vec<SetWatches> {
        let requests = watches.to_requests(Zxid(7)).into_iter();
        let sets = requests.filter_map(|request| match request {
            Request::Read(ReadRequest::SetWatches(set)) => Some(set),
            _ => None,
        });
        sets.collect()
    }

    #[test]
    fn watches_are_kept_by_table_until_used_up() {
        let mut watches = Watches::default();
        let mut reply = |request: Request, code| {
            if let Some(change) = Change::of(&request) {
                watches.on_reply(change, code);
            }
        };
        let add = |path: &str, recursive| {
            Request::Read(ReadRequest::AddWatch { path: path.into(), recursive })
        };
        reply(requests::get("/data", true), ErrorCode::OK);
        reply(requests::get("/missing", true), ErrorCode::NO_NODE);
        reply(requests::get("/unwatched", false), ErrorCode::OK);
        reply(requests::exists("/there", true), ErrorCode::OK);
        reply(requests::exists("/not", true), ErrorCode::NO_NODE);
        reply(requests::list("/parent", true), ErrorCode::OK);
        reply(add("/p", false), ErrorCode::OK);
        reply(add("/r", true), ErrorCode::OK);
        let expected = SetWatches {
            relative_zxid: Zxid(7),
            data: ["/data", "/there"].into_iter().collect(),
            exist: ["/not"].into_iter().collect(),
            child: ["/parent"].into_iter().collect(),
            persistent: ["/p"].into_iter().collect(),
            persistent_recursive: ["/r"].into_iter().collect(),
            cut_short: false,
        };
        assert_eq!(sets(&watches), [expected]);
        for (event_type, path) in [
            (EventType::NodeDataChanged, "/data"),
            (EventType::NodeDeleted, "/there"),
            (EventType::NodeCreated, "/not"),
            (EventType::NodeChildrenChanged, "/parent"),
            (EventType::NodeDataChanged, "/p"),
            (EventType::NodeDeleted, "/r"),
        ] {
            watches.on_event(&WatchEvent { event_type, path: path.into() });
        }
        let left = &sets(&watches)[0];
        assert_eq!((left.data.len(), left.exist.len(), left.child.len()), (0, 0, 0));
        assert_eq!((left.persistent.len(), left.persistent_recursive.len()), (1, 1));
        let selection =
            WatcherSelection { path: "/p".into(), watcher_type: WatcherType::Persistent };
        watches.on_reply(Change::Remove(selection), ErrorCode::OK);
        let selection = WatcherSelection { path: "/r".into(), watcher_type: WatcherType::Any };
        watches.on_reply(Change::Remove(selection), ErrorCode::OK);
        assert!(sets(&watches).is_empty());
    }

    #[test]
    fn many_watches_are_set_by_several_requests() {
        let mut watches = Watches::default();
        for number in 0..300 {
            let path = format!("/{}{number}", "x".repeat(1000));
            watches.on_reply(Change::Set(Table::Persistent, path.into()), ErrorCode::OK);
        }
        let sets = sets(&watches);
        assert_eq!(sets.len(), 3);
        assert_eq!(sets.iter().map(|set| set.persistent.len()).sum::<usize>(), 300);
    }
}
