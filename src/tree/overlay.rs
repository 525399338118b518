//! [`Overlay`]: the tree as it will be once everything in flight is applied. Requests are judged
//! against it, so that those behind a change see it before it is durable.

use std::collections::{BTreeMap, VecDeque};
use std::hash::BuildHasher;
use std::ops::Bound;
use std::sync::Arc;

use bytes::Bytes;
use foldhash::fast::FixedState;

use super::rules;
use super::store::Tree;
use super::value::{self, Value};
use crate::base::{Arena, Index, Str};
use crate::model::{
    Acl, CreateTxn, EphemeralOwner, SessionId, StatPersisted, TxnBody, TxnHeader, Zxid, path,
};

/// Changes that are staged and not applied, by path. Nothing large is moved when it grows.
#[derive(Debug)]
pub struct Overlay {
    pending: Arena<Option<Pending>>,
    index: Index,
    /// What was staged, in order; retired from the front.
    staged: VecDeque<Staged>,
    /// Ephemerals created in `staged`, with how often.
    ephemerals: BTreeMap<(SessionId, Str), u32>,
    digest: u64,
    /// A multi is being staged, and may fail.
    undo: Option<Undo>,
}

/// What one path will be.
#[derive(Debug)]
struct Pending {
    path: Str,
    hash: u64,
    /// How often it stands in `staged`.
    staged: u32,
    change: Change,
}

#[derive(Clone, Debug)]
struct Change {
    /// `None`: it will be gone.
    znode: Option<Foreseen>,
    zxid: Zxid,
}

/// Where to return to if a multi fails.
#[derive(Debug)]
struct Undo {
    /// Length of `staged`.
    staged: usize,
    digest: u64,
}

#[derive(Clone, Debug)]
struct Foreseen {
    stat: StatPersisted,
    child_count: usize,
    acl: Arc<[Acl]>,
    data: ForeseenData,
    digest: u32,
}

#[derive(Clone, Debug)]
enum ForeseenData {
    /// That of the znode as it is.
    Kept(Value),
    New(Option<Bytes>),
}

impl ForeseenData {
    fn bytes(&self) -> Option<&[u8]> {
        match self {
            Self::Kept(value) => value.data(),
            Self::New(data) => data.as_deref(),
        }
    }
}

#[derive(Debug)]
struct Staged {
    zxid: Zxid,
    /// Its place in `pending`.
    at: u32,
    ephemeral_of: Option<SessionId>,
    /// By an op of a multi: what was pending before, if anything was.
    before: Option<Box<Change>>,
}

/// A znode as it will be.
#[derive(Clone, Debug)]
pub struct PendingZnode {
    /// Stored stat.
    pub stat: StatPersisted,
    /// Number of children.
    pub child_count: usize,
    /// ACL.
    pub acl: Arc<[Acl]>,
    /// Length of the data in bytes.
    pub data_len: usize,
}

impl Overlay {
    /// Nothing in flight over `tree`.
    #[must_use]
    pub fn new(tree: &Tree) -> Self {
        Self {
            pending: Arena::default(),
            index: Index::default(),
            staged: VecDeque::new(),
            ephemerals: BTreeMap::new(),
            digest: tree.digest(),
            undo: None,
        }
    }

    /// The znode at `path` as it will be.
    #[must_use]
    pub fn look(&self, tree: &Tree, path: &str) -> Option<PendingZnode> {
        if let Some(change) = self.change(path) {
            let znode = change.znode.as_ref()?;
            return Some(PendingZnode {
                stat: znode.stat,
                child_count: znode.child_count,
                acl: Arc::clone(&znode.acl),
                data_len: znode.data.bytes().map_or(0, <[u8]>::len),
            });
        }
        let znode = tree.get(path)?;
        let value = znode.value();
        Some(PendingZnode {
            stat: value.stat(),
            child_count: znode.child_count(),
            acl: Arc::clone(value.acl()),
            data_len: value.data().map_or(0, <[u8]>::len),
        })
    }

    /// The first ephemeral behind a path that the session will have, in order. Nothing changes the
    /// answers but what is staged, so that they can be asked for while txns are applied.
    #[must_use]
    pub fn next_ephemeral(&self, tree: &Tree, session: SessionId, behind: &Str) -> Option<Str> {
        let mut behind = behind.clone();
        loop {
            let from = Bound::Excluded((session, behind.clone()));
            let pending = self.ephemerals.range((from, Bound::Unbounded)).next();
            let pending = pending.filter(|((owner, _), _)| *owner == session);
            let pending = pending.map(|((_, path), _)| path);
            let applied = tree.next_ephemeral(session, &behind);
            behind = pending.into_iter().chain(applied).min()?.clone();
            let znode = self.foresee(tree, &behind);
            if znode.is_some_and(|znode| znode.stat.ephemeral_owner == session.0) {
                return Some(behind);
            }
        }
    }

    /// Paths of the ephemerals that the session will have, sorted.
    #[must_use]
    pub fn ephemerals_of(&self, tree: &Tree, session: SessionId) -> Vec<Str> {
        let next = |behind: &Str| self.next_ephemeral(tree, session, behind);
        std::iter::successors(next(&Str::default()), next).collect()
    }

    /// Foresees one txn, or one op of a multi.
    pub fn stage(&mut self, tree: &Tree, header: &TxnHeader, body: &TxnBody) {
        match body {
            TxnBody::Create(create) => self.stage_create(tree, header, create),
            TxnBody::Delete { path } | TxnBody::DeleteContainer { path } => {
                self.stage_delete(tree, header.zxid, path);
            }
            TxnBody::SetData { path, data, version }
            | TxnBody::Reconfig { path, data, version } => {
                let Some(mut znode) = self.foresee(tree, path) else { return };
                let before = znode.digest;
                znode.stat = rules::data_set(&znode.stat, header, *version);
                znode.data = ForeseenData::New(data.clone());
                self.put(tree, header.zxid, path, before, Some(znode));
            }
            TxnBody::SetAcl { path, acl, version } => {
                let Some(mut znode) = self.foresee(tree, path) else { return };
                let before = znode.digest;
                znode.stat = rules::acl_set(&znode.stat, *version);
                znode.acl = Arc::from(acl.as_slice());
                self.put(tree, header.zxid, path, before, Some(znode));
            }
            TxnBody::CloseSession { paths } => {
                for path in paths.clone().unwrap_or_default() {
                    self.stage_delete(tree, header.zxid, &path);
                }
            }
            TxnBody::Multi(bodies) => {
                if bodies.iter().all(|body| !matches!(body, TxnBody::Error(_))) {
                    for body in bodies.iter().filter(|body| !matches!(body, TxnBody::Multi(_))) {
                        self.stage(tree, header, body);
                    }
                }
            }
            TxnBody::CreateSession { .. } | TxnBody::Error(_) | TxnBody::Check { .. } => {}
        }
    }

    /// Call before a multi's first op. Until it is kept or taken back, nothing else is staged and
    /// nothing is retired.
    pub fn begin_multi(&mut self) {
        debug_assert!(self.undo.is_none(), "one multi at a time");
        self.undo = Some(Undo { staged: self.staged.len(), digest: self.digest });
    }

    /// Keeps what was staged of the multi.
    pub fn keep_multi(&mut self) {
        self.undo = None;
    }

    /// Takes back what was staged of the multi, the last change first; whether all is taken back.
    /// `left` says how many changes may still be.
    pub fn take_back_multi(&mut self, left: &mut usize) -> bool {
        let Some(undo) = self.undo.take() else { return true };
        while undo.staged < self.staged.len() {
            if *left == 0 {
                self.undo = Some(undo);
                return false;
            }
            *left -= 1;
            if let Some(mut staged) = self.staged.pop_back() {
                self.forget_ephemeral(&staged);
                if let (Some(pending), Some(before)) =
                    (self.pending.get_mut(staged.at), staged.before.take())
                {
                    pending.change = *before;
                }
                self.let_go(staged.at);
            }
        }
        self.digest = undo.digest;
        true
    }

    /// The tree's digest once everything staged is applied.
    #[must_use]
    pub const fn digest(&self) -> u64 {
        self.digest
    }

    /// Forgets what `tree` shows by itself since `applied`, at most so many changes; whether there
    /// are more. It does no harm if they stay: they show what the tree shows.
    pub fn retire(&mut self, applied: Zxid, changes_max: usize) -> bool {
        let is_past = |staged: &Staged| staged.zxid <= applied;
        if self.undo.is_some() {
            return false;
        }
        for _ in 0..changes_max {
            if !self.staged.front().is_some_and(is_past) {
                break;
            }
            let Some(staged) = self.staged.pop_front() else { break };
            self.forget_ephemeral(&staged);
            self.let_go(staged.at);
        }
        self.staged.front().is_some_and(is_past)
    }

    /// Whether nothing is kept.
    #[cfg(test)]
    pub(super) fn is_empty(&self) -> bool {
        let pending = (0..self.pending.bound()).filter(|at| self.pending.get(*at).is_some());
        self.staged.is_empty() && self.ephemerals.is_empty() && pending.count() == 0
    }

    fn stage_create(&mut self, tree: &Tree, header: &TxnHeader, create: &CreateTxn) {
        let stat = rules::created(header, create);
        let data = ForeseenData::New(create.data.clone());
        let acl = Arc::from(create.acl.as_slice());
        let znode = Foreseen { stat, child_count: 0, acl, data, digest: 0 };
        let before = self.foresee(tree, &create.path).map_or(0, |znode| znode.digest);
        self.put(tree, header.zxid, &create.path, before, Some(znode));
        let Some(parent_path) = path::parent(&create.path) else { return };
        let Some(mut parent) = self.foresee(tree, parent_path) else { return };
        let before = parent.digest;
        parent.child_count += 1;
        let stat = rules::parent_after_create(&parent.stat, create.parent_cversion, header.zxid);
        parent.stat = stat.unwrap_or(parent.stat);
        self.put(tree, header.zxid, &create.path.slice_ref(parent_path), before, Some(parent));
    }

    /// Foresees one deletion.
    pub fn stage_delete(&mut self, tree: &Tree, zxid: Zxid, path: &Str) {
        let Some(znode) = self.foresee(tree, path) else { return };
        self.put(tree, zxid, path, znode.digest, None);
        let Some(parent_path) = path::parent(path) else { return };
        // Of several children that the same txn deletes, only the first changes the stat.
        if self.undo.is_none()
            && let Some(change) = self.change_mut(parent_path)
            && change.zxid == zxid
            && let Some(parent) = change.znode.as_mut().filter(|it| it.stat.pzxid == zxid)
        {
            parent.child_count = parent.child_count.saturating_sub(1);
            return;
        }
        let Some(mut parent) = self.foresee(tree, parent_path) else { return };
        let before = parent.digest;
        parent.child_count = parent.child_count.saturating_sub(1);
        parent.stat = rules::parent_after_delete(&parent.stat, zxid).unwrap_or(parent.stat);
        self.put(tree, zxid, &path.slice_ref(parent_path), before, Some(parent));
    }

    fn foresee(&self, tree: &Tree, path: &str) -> Option<Foreseen> {
        if let Some(change) = self.change(path) {
            return change.znode.clone();
        }
        let znode = tree.get(path)?;
        let value = znode.value();
        Some(Foreseen {
            stat: value.stat(),
            child_count: znode.child_count(),
            acl: Arc::clone(value.acl()),
            data: ForeseenData::Kept(value.clone()),
            digest: value.digest(),
        })
    }

    /// Stages what is foreseen in place of what has the digest `before`, 0 for nothing.
    fn put(
        &mut self,
        tree: &Tree,
        zxid: Zxid,
        path: &Str,
        before: u32,
        mut znode: Option<Foreseen>,
    ) {
        let mut ephemeral_of = None;
        if let Some(znode) = &mut znode {
            if tree.options.digests {
                znode.digest = value::digest(path, znode.data.bytes(), &znode.stat);
            }
            let extended = tree.options.extended_types;
            if let EphemeralOwner::Session(session) =
                EphemeralOwner::of(znode.stat.ephemeral_owner, extended)
            {
                ephemeral_of = Some(session);
                *self.ephemerals.entry((session, path.clone())).or_default() += 1;
            }
        }
        let after = znode.as_ref().map_or(0, |znode| znode.digest);
        self.digest = self.digest.wrapping_sub(u64::from(before)).wrapping_add(u64::from(after));
        let (at, old) = self.change_to(path, Change { znode, zxid });
        let before = if self.undo.is_some() { old.map(Box::new) } else { None };
        self.staged.push_back(Staged { zxid, at, ephemeral_of, before });
    }

    fn find(&self, hash: u64, path: &str) -> Option<u32> {
        let is_it = |at: &u32| {
            self.pending.get(*at).as_ref().is_some_and(|pending| pending.path.as_str() == path)
        };
        self.index.find(hash, is_it)
    }

    fn change(&self, path: &str) -> Option<&Change> {
        let at = self.find(hash(path), path)?;
        self.pending.get(at).as_ref().map(|pending| &pending.change)
    }

    fn change_mut(&mut self, path: &str) -> Option<&mut Change> {
        let at = self.find(hash(path), path)?;
        self.pending.get_mut(at).as_mut().map(|pending| &mut pending.change)
    }

    /// Notes one more change of a path: its place, and what was pending there.
    fn change_to(&mut self, path: &Str, change: Change) -> (u32, Option<Change>) {
        let hash = hash(path);
        if let Some(at) = self.find(hash, path)
            && let Some(pending) = self.pending.get_mut(at)
        {
            pending.staged += 1;
            return (at, Some(std::mem::replace(&mut pending.change, change)));
        }
        let pending = Pending { path: path.clone(), hash, staged: 1, change };
        let at = self.pending.put(Some(pending));
        let Self { index, pending, .. } = self;
        index.insert(hash, at, |at| pending.get(*at).as_ref().map_or(0, |pending| pending.hash));
        (at, None)
    }

    /// A path stands in `staged` once less.
    fn let_go(&mut self, at: u32) {
        let Some(pending) = self.pending.get_mut(at) else { return };
        pending.staged -= 1;
        if pending.staged == 0 {
            let hash = pending.hash;
            self.index.remove(hash, |other| *other == at);
            *self.pending.get_mut(at) = None;
            self.pending.release(at);
        }
    }

    fn forget_ephemeral(&mut self, staged: &Staged) {
        let Some(session) = staged.ephemeral_of else { return };
        let Some(pending) = self.pending.get(staged.at) else { return };
        let key = (session, pending.path.clone());
        if let Some(count) = self.ephemerals.get_mut(&key) {
            *count -= 1;
            if *count == 0 {
                self.ephemerals.remove(&key);
            }
        }
    }
}

/// With a fixed seed: nothing visible depends on it.
fn hash(path: &str) -> u64 {
    FixedState::default().hash_one(path)
}
