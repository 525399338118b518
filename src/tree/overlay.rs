//! [`Overlay`]: the tree as it will be once everything in flight is applied. Requests are judged
//! against it, so that those behind a change see it before it is durable.

use std::collections::{BTreeMap, VecDeque};
use std::ops::Bound;
use std::sync::Arc;

use bytes::Bytes;
use foldhash::fast::FixedState;
use hashbrown::HashMap;
use hashbrown::hash_map::Entry;

use super::rules;
use super::store::Tree;
use super::value::{self, Value};
use crate::base::Str;
use crate::model::{
    Acl, CreateTxn, EphemeralOwner, SessionId, StatPersisted, TxnBody, TxnHeader, Zxid, path,
};

/// Changes that are staged and not applied, by path.
#[derive(Debug)]
pub struct Overlay {
    pending: HashMap<Str, Pending, FixedState>,
    /// What was staged, in order; retired from the front.
    staged: VecDeque<Staged>,
    /// Ephemerals created in `staged`, with how often.
    ephemerals: BTreeMap<(SessionId, Str), u32>,
    digest: u64,
    /// What to put back if the multi being staged fails, latest last.
    undo: Option<Vec<(Str, Option<Pending>)>>,
}

#[derive(Clone, Debug)]
struct Pending {
    /// `None`: it will be gone.
    znode: Option<Foreseen>,
    last_zxid: Zxid,
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
    path: Str,
    ephemeral_of: Option<SessionId>,
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

/// A point to return to if a multi fails.
#[derive(Debug)]
pub struct Savepoint {
    staged: usize,
    digest: u64,
}

impl Overlay {
    /// Nothing in flight over `tree`.
    #[must_use]
    pub fn new(tree: &Tree) -> Self {
        Self {
            pending: HashMap::default(),
            staged: VecDeque::new(),
            ephemerals: BTreeMap::new(),
            digest: tree.digest(),
            undo: None,
        }
    }

    /// The znode at `path` as it will be.
    #[must_use]
    pub fn look(&self, tree: &Tree, path: &str) -> Option<PendingZnode> {
        if let Some(pending) = self.pending.get(path) {
            let znode = pending.znode.as_ref()?;
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

    /// Marks the point before a multi's first op. One at a time.
    pub fn savepoint(&mut self) -> Savepoint {
        self.undo = Some(Vec::new());
        Savepoint { staged: self.staged.len(), digest: self.digest }
    }

    /// Takes back everything staged since the savepoint.
    #[expect(clippy::needless_pass_by_value, reason = "a savepoint is used once")]
    pub fn rollback(&mut self, to: Savepoint) {
        for (path, before) in self.undo.take().unwrap_or_default().into_iter().rev() {
            match before {
                Some(before) => self.pending.insert(path, before),
                None => self.pending.remove(&path),
            };
        }
        while to.staged < self.staged.len() {
            if let Some(staged) = self.staged.pop_back() {
                self.forget_ephemeral(&staged);
            }
        }
        self.digest = to.digest;
    }

    /// Keeps everything staged since the savepoint.
    #[expect(clippy::needless_pass_by_value, reason = "a savepoint is used once")]
    pub fn release(&mut self, from: Savepoint) {
        debug_assert!(from.staged <= self.staged.len(), "nothing retires during a multi");
        self.undo = None;
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
        for _ in 0..changes_max {
            if !self.staged.front().is_some_and(is_past) {
                break;
            }
            let Some(staged) = self.staged.pop_front() else { break };
            self.forget_ephemeral(&staged);
            if let Entry::Occupied(pending) = self.pending.entry(staged.path)
                && pending.get().last_zxid <= applied
            {
                pending.remove();
            }
        }
        self.staged.front().is_some_and(is_past)
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
            && let Some(pending) = self.pending.get_mut(parent_path)
            && let Some(parent) = pending.znode.as_mut().filter(|it| it.stat.pzxid == zxid)
            && pending.last_zxid == zxid
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
        if let Some(pending) = self.pending.get(path) {
            return pending.znode.clone();
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
        let old = self.pending.insert(path.clone(), Pending { znode, last_zxid: zxid });
        self.staged.push_back(Staged { zxid, path: path.clone(), ephemeral_of });
        if let Some(undo) = &mut self.undo {
            undo.push((path.clone(), old));
        }
    }

    fn forget_ephemeral(&mut self, staged: &Staged) {
        let Some(session) = staged.ephemeral_of else { return };
        let key = (session, staged.path.clone());
        if let Some(count) = self.ephemerals.get_mut(&key) {
            *count -= 1;
            if *count == 0 {
                self.ephemerals.remove(&key);
            }
        }
    }
}
