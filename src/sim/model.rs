//! A sequential model of ZooKeeper's tree, written without the server's: a map of paths, the rules
//! of `client-protocol.md` part 5, and nothing that is fast. The replay checks the server against
//! it.

use std::collections::{BTreeMap, BTreeSet};

use bytes::Bytes;

use crate::model::{
    CreateKind, CreateRequest, ErrorCode, EventType, SessionId, Stat, TxnHeader, WriteRequest,
};
use crate::tree::Tree;

/// One znode of the model. `creations` is the stored cversion.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct Znode {
    data: Option<Bytes>,
    stat: Stat,
    creations: i32,
    children: BTreeSet<String>,
}

/// The model.
#[derive(Clone, Debug)]
pub(super) struct Model {
    znodes: BTreeMap<String, Znode>,
}

/// What a write answers when it succeeds.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Outcome {
    /// delete, check, closeSession.
    Done,
    /// create.
    Created(String),
    /// create2.
    CreatedWithStat(String, Stat),
    /// setData.
    Set(Stat),
    /// multi: one for each op.
    Multi(Vec<Self>),
    /// A multi that failed: the code of each op.
    MultiFailed(Vec<ErrorCode>),
}

/// A change, in the order in which watches hear of it.
pub(super) type Change = (EventType, String);

/// The state that a failed multi goes back to: znodes as they were before, newest last. `None`
/// outside of multis.
type Undo = Option<Vec<(String, Option<Znode>)>>;

type Judged = Result<Outcome, ErrorCode>;

impl Model {
    /// A fresh server's tree. The subtree of `/zookeeper` is not modelled.
    pub(super) fn new() -> Self {
        let mut root = Znode { data: Some(Bytes::new()), ..Znode::default() };
        root.children.insert("zookeeper".to_owned());
        Self { znodes: BTreeMap::from([("/".to_owned(), root)]) }
    }

    /// Executes a write at its place in the order. What it refuses changes nothing.
    pub(super) fn execute(
        &mut self,
        header: &TxnHeader,
        write: &WriteRequest,
        changes: &mut Vec<Change>,
    ) -> Judged {
        match write {
            WriteRequest::Multi(writes) => {
                let mut undo = Some(Vec::new());
                let before = changes.len();
                let mut outcomes = Vec::new();
                for (at, write) in writes.iter().enumerate() {
                    match self.single(header, write, changes, &mut undo) {
                        Ok(outcome) => outcomes.push(outcome),
                        Err(code) => {
                            changes.truncate(before);
                            self.go_back(undo.unwrap_or_default());
                            return Ok(Outcome::MultiFailed(failed(writes.len(), at, code)));
                        }
                    }
                }
                Ok(Outcome::Multi(outcomes))
            }
            WriteRequest::CloseSession => {
                self.close(header, changes);
                Ok(Outcome::Done)
            }
            single => self.single(header, single, changes, &mut None),
        }
    }

    /// The end of the header's session.
    pub(super) fn close(&mut self, header: &TxnHeader, changes: &mut Vec<Change>) {
        for path in self.ephemerals_of(header.session) {
            self.remove(header, &path, changes, &mut None);
        }
    }

    /// Paths of a session's ephemerals.
    pub(super) fn ephemerals_of(&self, session: SessionId) -> Vec<String> {
        let owned = self.znodes.iter().filter(|(_, z)| z.stat.ephemeral_owner == session.0);
        owned.map(|(path, _)| path.clone()).collect()
    }

    fn single(
        &mut self,
        header: &TxnHeader,
        write: &WriteRequest,
        changes: &mut Vec<Change>,
        undo: &mut Undo,
    ) -> Judged {
        match write {
            WriteRequest::Create(create) => self.create(header, create, changes, undo),
            WriteRequest::Delete { path, version } => {
                let znode = self.znodes.get(path.as_str()).ok_or(ErrorCode::NO_NODE)?;
                matches(*version, znode.stat.version)?;
                if !znode.children.is_empty() {
                    return Err(ErrorCode::NOT_EMPTY);
                }
                self.remove(header, path, changes, undo);
                Ok(Outcome::Done)
            }
            WriteRequest::SetData { path, data, version } => {
                let znode = self.znodes.get_mut(path.as_str()).ok_or(ErrorCode::NO_NODE)?;
                matches(*version, znode.stat.version)?;
                if let Some(undo) = undo {
                    undo.push((path.to_string(), Some(znode.clone())));
                }
                znode.data.clone_from(data);
                znode.stat.version += 1;
                znode.stat.mzxid = header.zxid;
                znode.stat.mtime = header.time_ms;
                changes.push((EventType::NodeDataChanged, path.to_string()));
                Ok(Outcome::Set(znode.visible()))
            }
            WriteRequest::Check { path, version } => {
                let znode = self.znodes.get(path.as_str()).ok_or(ErrorCode::NO_NODE)?;
                matches(*version, znode.stat.version)?;
                Ok(Outcome::Done)
            }
            other => unreachable!("simulated clients do not send {other:?} here"),
        }
    }

    fn create(
        &mut self,
        header: &TxnHeader,
        create: &CreateRequest,
        changes: &mut Vec<Change>,
        undo: &mut Undo,
    ) -> Judged {
        let parent_path = parent(&create.path).to_owned();
        let parent = self.znodes.get_mut(&parent_path).ok_or(ErrorCode::NO_NODE)?;
        let path = match create.flags {
            2 | 3 => format!("{}{:010}", create.path, parent.creations),
            _ => create.path.to_string(),
        };
        let name = path.rsplit('/').next().unwrap_or_default().to_owned();
        if parent.children.contains(&name) {
            return Err(ErrorCode::NODE_EXISTS);
        }
        if parent.stat.ephemeral_owner != 0 {
            return Err(ErrorCode::NO_CHILDREN_FOR_EPHEMERALS);
        }
        if let Some(undo) = undo {
            undo.push((parent_path.clone(), Some(parent.clone())));
            undo.push((path.clone(), None));
        }
        parent.children.insert(name);
        parent.creations += 1;
        parent.stat.pzxid = header.zxid;
        let owner = if matches!(create.flags, 1 | 3) { header.session.0 } else { 0 };
        let stat = Stat {
            czxid: header.zxid,
            mzxid: header.zxid,
            pzxid: header.zxid,
            ctime: header.time_ms,
            mtime: header.time_ms,
            ephemeral_owner: owner,
            ..Stat::default()
        };
        let znode = Znode { data: create.data.clone(), stat, ..Znode::default() };
        let visible = znode.visible();
        self.znodes.insert(path.clone(), znode);
        changes.push((EventType::NodeCreated, path.clone()));
        changes.push((EventType::NodeChildrenChanged, parent_path));
        Ok(match create.kind {
            CreateKind::Create => Outcome::Created(path),
            _ => Outcome::CreatedWithStat(path, visible),
        })
    }

    fn remove(
        &mut self,
        header: &TxnHeader,
        path: &str,
        changes: &mut Vec<Change>,
        undo: &mut Undo,
    ) {
        let Some(znode) = self.znodes.remove(path) else { return };
        let parent_path = parent(path).to_owned();
        if let Some(parent) = self.znodes.get_mut(&parent_path) {
            if let Some(undo) = undo {
                undo.push((path.to_owned(), Some(znode)));
                undo.push((parent_path.clone(), Some(parent.clone())));
            }
            parent.children.remove(path.rsplit('/').next().unwrap_or_default());
            parent.stat.pzxid = header.zxid;
        }
        changes.push((EventType::NodeDeleted, path.to_owned()));
        changes.push((EventType::NodeChildrenChanged, parent_path));
    }

    fn go_back(&mut self, undo: Vec<(String, Option<Znode>)>) {
        for (path, before) in undo.into_iter().rev() {
            match before {
                Some(znode) => self.znodes.insert(path, znode),
                None => self.znodes.remove(&path),
            };
        }
    }

    /// Data and stat of a znode.
    pub(super) fn get(&self, path: &str) -> Option<(Option<Bytes>, Stat)> {
        self.znodes.get(path).map(|znode| (znode.data.clone(), znode.visible()))
    }

    /// Names of a znode's children, sorted.
    pub(super) fn children(&self, path: &str) -> Option<impl Iterator<Item = &str>> {
        self.znodes.get(path).map(|znode| znode.children.iter().map(String::as_str))
    }

    /// The first difference to a server's tree, `/zookeeper` left out.
    pub(super) fn difference(&self, tree: &Tree) -> Option<String> {
        for (path, znode) in &self.znodes {
            let Some(found) = tree.get(path) else {
                return Some(format!("{path} is missing"));
            };
            let mut names: Vec<&str> = found.children().collect();
            names.sort_unstable();
            if !znode.children.iter().map(String::as_str).eq(names.iter().copied()) {
                return Some(format!("{path} has the children {names:?}"));
            }
            if found.data() != znode.data.as_deref() {
                return Some(format!("{path} holds {:?}, not {:?}", found.data(), znode.data));
            }
            if found.stat() != znode.visible() {
                let (found, wanted) = (found.stat(), znode.visible());
                return Some(format!("{path} has {found:?}, not {wanted:?}"));
            }
        }
        None
    }
}

impl Znode {
    fn visible(&self) -> Stat {
        let data_length = self.data.as_ref().map_or(0, Bytes::len);
        let num_children = i32::try_from(self.children.len()).unwrap_or(i32::MAX);
        Stat {
            cversion: self.creations.wrapping_mul(2).wrapping_sub(num_children),
            data_length: i32::try_from(data_length).unwrap_or(i32::MAX),
            num_children,
            ..self.stat
        }
    }
}

/// The codes of a failed multi's ops.
fn failed(ops: usize, at: usize, code: ErrorCode) -> Vec<ErrorCode> {
    let code_of = |op: usize| match op.cmp(&at) {
        std::cmp::Ordering::Less => ErrorCode::OK,
        std::cmp::Ordering::Equal => code,
        std::cmp::Ordering::Greater => ErrorCode::RUNTIME_INCONSISTENCY,
    };
    (0..ops).map(code_of).collect()
}

const fn matches(expected: i32, version: i32) -> Result<(), ErrorCode> {
    if expected == -1 || expected == version { Ok(()) } else { Err(ErrorCode::BAD_VERSION) }
}

pub(super) fn parent(path: &str) -> &str {
    match path.rfind('/') {
        None | Some(0) => "/",
        Some(at) => path.get(..at).unwrap_or("/"),
    }
}
