//! The sequential tree of the second oracle: what simple requests make of it, and whom it tells.

use std::collections::{BTreeMap, BTreeSet};

use bytes::Bytes;

use super::story::{Ask, OpId};
use crate::model::{ErrorCode, EventType};

/// A znode. What changed it is known by the request, as its zxid need not be known.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Node {
    pub(super) data: Option<Bytes>,
    pub(super) created: OpId,
    pub(super) modified: OpId,
    pub(super) children_changed: OpId,
    pub(super) version: i32,
    /// Children ever created: the number of the next sequential one.
    pub(super) births: i32,
    /// Children ever deleted.
    pub(super) deaths: i32,
}

/// All znodes but the root and what the server keeps.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Tree {
    nodes: BTreeMap<String, Node>,
}

/// The two kinds of one-shot watches.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum WatchOn {
    Data,
    Children,
}

/// A watch that a change fires, and what it is told.
pub(super) struct Change {
    pub(super) on: WatchOn,
    pub(super) path: String,
    pub(super) event: EventType,
}

/// What became of a write.
pub(super) struct Outcome {
    pub(super) code: ErrorCode,
    /// The znode's path, with its number if it has one.
    pub(super) path: String,
    pub(super) changes: Vec<Change>,
}

impl Tree {
    pub(super) fn get(&self, path: &str) -> Option<&Node> {
        self.nodes.get(path)
    }

    /// Names of the children.
    pub(super) fn children(&self, path: &str) -> BTreeSet<String> {
        let below = |other: &String| {
            let name = other.strip_prefix(path)?.strip_prefix('/')?;
            (!name.contains('/')).then(|| name.to_owned())
        };
        self.nodes.keys().filter_map(below).collect()
    }

    /// Carries out a write.
    pub(super) fn write(&mut self, by: OpId, ask: &Ask) -> Outcome {
        let done = match ask {
            Ask::Create { path, data, sequential } => self.create(by, path, data, *sequential),
            Ask::Delete { path, version } => self.delete(by, path, *version),
            Ask::Set { path, data, version } => self.set(by, path, data, *version),
            _ => Ok((String::new(), Vec::new())),
        };
        let (code, path, changes) = match done {
            Ok((path, changes)) => (ErrorCode::OK, path, changes),
            Err(code) => (code, String::new(), Vec::new()),
        };
        let changes = changes.into_iter();
        let changes = changes.map(|(on, path, event)| Change { on, path, event }).collect();
        Outcome { code, path, changes }
    }

    fn create(&mut self, by: OpId, path: &str, data: &Option<Bytes>, numbered: bool) -> Done {
        let over = parent(path);
        let mut path = path.to_owned();
        if !over.is_empty() {
            let over = self.nodes.get(over).ok_or(ErrorCode::NO_NODE)?;
            if numbered {
                path = format!("{path}{:010}", over.births);
            }
        }
        if self.nodes.contains_key(&path) {
            return Err(ErrorCode::NODE_EXISTS);
        }
        if let Some(over) = self.nodes.get_mut(over) {
            over.births += 1;
            over.children_changed = by;
        }
        let node = Node {
            data: data.clone(),
            created: by,
            modified: by,
            children_changed: by,
            version: 0,
            births: 0,
            deaths: 0,
        };
        self.nodes.insert(path.clone(), node);
        let changes = vec![
            (WatchOn::Data, path.clone(), EventType::NodeCreated),
            (WatchOn::Children, over.to_owned(), EventType::NodeChildrenChanged),
        ];
        Ok((path, changes))
    }

    fn delete(&mut self, by: OpId, path: &str, version: i32) -> Done {
        let node = self.nodes.get(path).ok_or(ErrorCode::NO_NODE)?;
        if ![-1, node.version].contains(&version) {
            return Err(ErrorCode::BAD_VERSION);
        }
        if !self.children(path).is_empty() {
            return Err(ErrorCode::NOT_EMPTY);
        }
        self.nodes.remove(path);
        let over = parent(path);
        if let Some(over) = self.nodes.get_mut(over) {
            over.deaths += 1;
            over.children_changed = by;
        }
        let changes = vec![
            (WatchOn::Data, path.to_owned(), EventType::NodeDeleted),
            (WatchOn::Children, path.to_owned(), EventType::NodeDeleted),
            (WatchOn::Children, over.to_owned(), EventType::NodeChildrenChanged),
        ];
        Ok((path.to_owned(), changes))
    }

    fn set(&mut self, by: OpId, path: &str, data: &Option<Bytes>, version: i32) -> Done {
        let node = self.nodes.get_mut(path).ok_or(ErrorCode::NO_NODE)?;
        if ![-1, node.version].contains(&version) {
            return Err(ErrorCode::BAD_VERSION);
        }
        node.version += 1;
        node.data = data.clone();
        node.modified = by;
        let changes = vec![(WatchOn::Data, path.to_owned(), EventType::NodeDataChanged)];
        Ok((path.to_owned(), changes))
    }
}

/// A path and what fires, or the refusal.
type Done = Result<(String, Vec<(WatchOn, String, EventType)>), ErrorCode>;

/// The path above; empty for the root.
pub(super) fn parent(path: &str) -> &str {
    path.rsplit_once('/').map_or("", |(over, _)| over)
}
