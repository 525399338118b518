//! Applying txns: total, the same for live commits and for replay (`quorum-and-disk.md` 7.4).

use std::sync::Arc;

use super::rules;
use super::store::{SlotId, Tree};
use super::value::{Common, Place, Shared, Value};
use crate::base::{Str, StrList};
use crate::model::{
    Acl, CreateTxn, ErrorCode, SessionId, Stat, StatPersisted, TxnBody, TxnHeader, Xid, Zxid, path,
};

/// What a txn did.
#[derive(Clone, Debug)]
pub struct Applied {
    /// In the order in which events fire.
    pub steps: Vec<Step>,
    /// What the client is told.
    pub outcome: Outcome,
}

/// The result of one op.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// Nothing to tell but success.
    Done,
    /// A znode was created.
    Created {
        /// Its final path.
        path: Str,
        /// As of this op.
        stat: Stat,
    },
    /// Data or ACL was set.
    Set(Stat),
    /// Refused, at prep or by the replay rules.
    Failed(ErrorCode),
    /// One outcome per op; if one failed, all are `Failed`, those before it with `OK`.
    Multi(Vec<Self>),
}

/// One change, with all that watches and replicas need. ACLs are those that filter the events.
#[derive(Clone, Debug)]
pub enum Step {
    /// A znode was created.
    Created {
        /// Where.
        path: Str,
        /// What it is.
        value: Value,
        /// Its ACL.
        acl: Arc<[Acl]>,
        /// The parent's ACL.
        parent_acl: Arc<[Acl]>,
        /// The parent's stat.
        parent_stat: StatPersisted,
    },
    /// Data was set.
    Changed {
        /// Whose.
        path: Str,
        /// What it is now.
        value: Value,
        /// Its ACL.
        acl: Arc<[Acl]>,
    },
    /// The ACL was set; fires nothing.
    AclChanged {
        /// Whose.
        path: Str,
        /// What it is now.
        value: Value,
    },
    /// A znode was deleted.
    Deleted {
        /// Where.
        path: Str,
        /// The ACL it had.
        acl: Arc<[Acl]>,
        /// The parent's ACL.
        parent_acl: Arc<[Acl]>,
        /// The parent's stat.
        parent_stat: StatPersisted,
    },
    /// A session began.
    SessionCreated {
        /// Which.
        session: SessionId,
        /// Its timeout, ms.
        timeout_ms: i32,
    },
    /// A session ended; its ephemerals were deleted in the steps before.
    SessionClosed {
        /// Which.
        session: SessionId,
    },
}

/// A txn that is being applied in slices, by [`Tree::apply_some`].
#[derive(Debug)]
pub struct Partial {
    header: TxnHeader,
    rest: Rest,
}

#[derive(Debug)]
enum Rest {
    /// Of the end of a session.
    Deletions {
        /// What the txn lists and is not yet deleted.
        listed: StrList,
        /// Others up to this one were deleted.
        others_to: Str,
    },
    /// Of a multi: what its first ops have come to.
    Ops(Vec<Outcome>),
}

impl Partial {
    /// A txn of which nothing is applied, if it is one that is applied in slices: the end of a
    /// session, or a multi of more than so many ops that does anything.
    #[must_use]
    pub fn begin(header: &TxnHeader, body: &TxnBody, ops_max: usize) -> Option<Self> {
        let rest = match body {
            TxnBody::CloseSession { paths } => {
                let listed = paths.clone().unwrap_or_default();
                Rest::Deletions { listed, others_to: Str::default() }
            }
            TxnBody::Multi(bodies) if ops_max < bodies.len() => {
                if bodies.iter().any(TxnBody::is_error) {
                    return None;
                }
                Rest::Ops(Vec::with_capacity(bodies.len()))
            }
            _ => return None,
        };
        Some(Self { header: *header, rest })
    }

    /// Whether a txn may be begun with while so many ops are left of a turn that may apply
    /// `ops_max`: a multi that one turn can apply is not cut.
    #[must_use]
    pub fn fits(body: &TxnBody, ops_max: usize, ops_left: usize) -> bool {
        match body {
            TxnBody::CloseSession { .. } => ops_left != 0,
            _ => body.op_count().min(ops_max) <= ops_left,
        }
    }
}

impl Tree {
    /// Applies a txn. Never fails: what cannot be done is an outcome.
    pub fn apply(&mut self, header: &TxnHeader, body: &TxnBody) -> Applied {
        self.clear_after_listings();
        let mut steps = Vec::with_capacity(1);
        let outcome = match body {
            TxnBody::Multi(bodies) => self.apply_multi(header, bodies, &mut steps),
            single => self.apply_one(header, single, &mut steps),
        };
        self.last_zxid = self.last_zxid.max(header.zxid);
        Applied { steps, outcome }
    }

    fn apply_multi(
        &mut self,
        header: &TxnHeader,
        bodies: &[TxnBody],
        steps: &mut Vec<Step>,
    ) -> Outcome {
        let failing = bodies.iter().position(|body| matches!(body, TxnBody::Error(_)));
        let Some(failing) = failing else {
            return Outcome::Multi(
                bodies.iter().map(|body| self.apply_one(header, body, steps)).collect(),
            );
        };
        let code = |(at, body): (usize, &TxnBody)| match body {
            TxnBody::Error(code) => Outcome::Failed(*code),
            _ if at < failing => Outcome::Failed(ErrorCode::OK),
            _ => Outcome::Failed(ErrorCode::RUNTIME_INCONSISTENCY),
        };
        Outcome::Multi(bodies.iter().enumerate().map(code).collect())
    }

    fn apply_one(&mut self, header: &TxnHeader, body: &TxnBody, steps: &mut Vec<Step>) -> Outcome {
        match body {
            TxnBody::CreateSession { timeout_ms } => {
                let (session, timeout_ms) = (header.session, *timeout_ms);
                steps.push(Step::SessionCreated { session, timeout_ms });
                Outcome::Done
            }
            TxnBody::CloseSession { paths } => {
                let (mut listed, mut others_to) =
                    (paths.clone().unwrap_or_default(), Str::default());
                self.close_some(header, &mut listed, &mut others_to, &mut { usize::MAX }, steps);
                Outcome::Done
            }
            TxnBody::Error(code) => Outcome::Failed(*code),
            TxnBody::Create(create) => self.create(header, create, steps),
            TxnBody::Delete { path } | TxnBody::DeleteContainer { path } => {
                self.delete(header.zxid, path, steps)
            }
            TxnBody::SetData { path, data, version }
            | TxnBody::Reconfig { path, data, version } => {
                self.set_data(header, path, data.as_deref(), *version, steps)
            }
            TxnBody::SetAcl { path, acl, version } => self.set_acl(path, acl, *version, steps),
            // A multi in a multi does not decode.
            TxnBody::Check { .. } | TxnBody::Multi(_) => Outcome::Done,
        }
    }

    /// Gives `/zookeeper/config` the text of the configuration in force; whether it had another.
    /// Every member of an ensemble does that for itself before it serves: it is no txn, though it
    /// leaves the znode as the txn of the configuration does.
    pub fn set_config(&mut self, text: &str, version: i64) -> bool {
        self.restore_built_ins();
        let path = Str::from_static("/zookeeper/config");
        if self.get(&path).is_some_and(|znode| znode.data() == Some(text.as_bytes())) {
            return false;
        }
        let header =
            TxnHeader { session: SessionId(0), cxid: Xid(0), zxid: Zxid(version), time_ms: 0 };
        self.set_data(&header, &path, Some(text.as_bytes()), -1, &mut Vec::new());
        true
    }

    /// What `/zookeeper/config` holds.
    #[must_use]
    pub fn config(&self) -> Option<&[u8]> {
        self.get("/zookeeper/config")?.data()
    }

    fn create(&mut self, header: &TxnHeader, create: &CreateTxn, steps: &mut Vec<Step>) -> Outcome {
        // What was damaged on its way from a leader may decode. Of the paths whose parent is found
        // these are none.
        let is_plain = !create.path.ends_with('/') && !create.path.starts_with("//");
        let Some((parent, parent_path)) = self.parent_of(&create.path).filter(|_| is_plain) else {
            return Outcome::Failed(ErrorCode::NO_NODE);
        };
        if let Some(id) = self.find(&create.path) {
            return self.create_again(id, parent, parent_path, header, create);
        }
        let interned = self.intern(&create.acl);
        let data = create.data.as_deref();
        let bytes = data.map_or(0, |data| data.len() as i64);
        let id = self.add(&create.path, data, &interned, rules::created(header, create));
        // Before a statistics node is given its text.
        let stat = self.get(&create.path).expect("it was added").stat();
        let (parent_acl, parent_stat) =
            self.touch_parent(parent, parent_path, header.zxid, Some(create.parent_cversion));
        self.quota_node_created(&create.path);
        self.account(&create.path, 1, bytes);
        let value = self.value(id).expect("it was added").clone();
        let (path, acl) = (create.path.clone(), Arc::clone(&interned.acl));
        steps.push(Step::Created { path: path.clone(), value, acl, parent_acl, parent_stat });
        Outcome::Created { path, stat }
    }

    /// Replay over a snapshot that already shows the znode.
    fn create_again(
        &mut self,
        id: SlotId,
        parent: SlotId,
        parent_path: &str,
        header: &TxnHeader,
        create: &CreateTxn,
    ) -> Outcome {
        if let Some(value) = self.value(id).cloned() {
            let common = self.with_acl(&value, &create.acl);
            self.replace(id, &create.path, value.stat(), common, value.here());
        }
        // The parent may have been written before the child came. Apache makes up for that only
        // when the txn is of type 1, and its tree is then not what it was.
        self.touch_parent(parent, parent_path, header.zxid, Some(create.parent_cversion));
        Outcome::Failed(ErrorCode::NODE_EXISTS)
    }

    fn delete(&mut self, zxid: Zxid, path: &Str, steps: &mut Vec<Step>) -> Outcome {
        let Some((parent, parent_path)) = self.parent_of(path) else {
            return Outcome::Failed(ErrorCode::NO_NODE);
        };
        let found = self.find(path).filter(|id| self.child_count(*id) == 0 && **path != *"/");
        let value = found.and_then(|id| self.value(id));
        let bytes = value.map_or(0, |value| value.data_len() as i64);
        let acl = value.map(|value| Arc::clone(value.acl()));
        if let Some(id) = found {
            self.remove(id, path);
            self.quota_node_deleted(path);
            self.account(path, -1, -bytes);
        }
        let (parent_acl, parent_stat) = self.touch_parent(parent, parent_path, zxid, None);
        let Some(acl) = acl else { return Outcome::Failed(ErrorCode::NO_NODE) };
        steps.push(Step::Deleted { path: path.clone(), acl, parent_acl, parent_stat });
        Outcome::Done
    }

    fn set_data(
        &mut self,
        header: &TxnHeader,
        path: &Str,
        data: Option<&[u8]>,
        version: i32,
        steps: &mut Vec<Step>,
    ) -> Outcome {
        let Some((id, old)) = self.find_value(path) else {
            return Outcome::Failed(ErrorCode::NO_NODE);
        };
        let stat = rules::data_set(&old.stat(), header, version);
        let acl = Arc::clone(old.acl());
        let bytes = old.data_len() as i64;
        let interned = match old.common().place {
            Place::Here => Shared::clone(old.common()),
            _ => self.intern(&acl),
        };
        let common = Common::of(&interned, data);
        drop((old, interned));
        let value = self.replace(id, path, stat, common, data.unwrap_or_default());
        self.account(path, 0, value.data_len() as i64 - bytes);
        steps.push(Step::Changed { path: path.clone(), value, acl });
        self.set_outcome(id)
    }

    fn set_acl(&mut self, path: &Str, acl: &[Acl], version: i32, steps: &mut Vec<Step>) -> Outcome {
        let Some((id, old)) = self.find_value(path) else {
            return Outcome::Failed(ErrorCode::NO_NODE);
        };
        let stat = rules::acl_set(&old.stat(), version);
        let (common, here) = (self.with_acl(&old, acl), old.here().to_vec());
        // The last user of the old ACL, perhaps.
        drop(old);
        let value = self.replace(id, path, stat, common, &here);
        steps.push(Step::AclChanged { path: path.clone(), value });
        self.set_outcome(id)
    }

    fn set_outcome(&self, id: SlotId) -> Outcome {
        self.znode(id)
            .map_or(Outcome::Failed(ErrorCode::NO_NODE), |znode| Outcome::Set(znode.stat()))
    }

    /// Applies some of the txn that `partial` was begun with; the outcome once it is whole. `left`
    /// says how many deletions or ops there may still be. Until it is whole, the tree shows some of
    /// them, and `last_zxid` is the one before: nobody may read it, and no cut may begin.
    pub fn apply_some(
        &mut self,
        partial: &mut Partial,
        body: &TxnBody,
        left: &mut usize,
        steps: &mut Vec<Step>,
    ) -> Option<Outcome> {
        self.clear_after_listings();
        let Partial { header, rest } = partial;
        let outcome = match (rest, body) {
            (Rest::Deletions { listed, others_to }, _) => {
                let is_whole = self.close_some(header, listed, others_to, left, steps);
                is_whole.then_some(Outcome::Done)
            }
            (Rest::Ops(outcomes), TxnBody::Multi(bodies)) => {
                let rest = bodies.get(outcomes.len()..).unwrap_or_default();
                for body in rest.iter().take(*left) {
                    outcomes.push(self.apply_one(header, body, steps));
                    *left -= 1;
                }
                let is_whole = outcomes.len() == bodies.len();
                is_whole.then(|| Outcome::Multi(std::mem::take(outcomes)))
            }
            (Rest::Ops(_), _) => unreachable!("the body is the one that it was begun with"),
        };
        self.is_whole = outcome.is_some();
        if self.is_whole {
            self.last_zxid = self.last_zxid.max(header.zxid);
        }
        outcome
    }

    /// The deletion of the listed ephemerals, then of any others that the session has; whether
    /// there are no more.
    fn close_some(
        &mut self,
        header: &TxnHeader,
        listed: &mut StrList,
        others_to: &mut Str,
        left: &mut usize,
        steps: &mut Vec<Step>,
    ) -> bool {
        let TxnHeader { session, zxid, .. } = *header;
        while *left != 0 {
            let path = match listed.next() {
                Some(path) => path,
                None => match self.next_ephemeral(session, others_to).cloned() {
                    Some(path) => {
                        *others_to = path.clone();
                        path
                    }
                    None => {
                        steps.push(Step::SessionClosed { session });
                        return true;
                    }
                },
            };
            *left -= 1;
            self.delete(zxid, &path, steps);
        }
        false
    }

    /// Takes note of a child's creation or deletion in its parent.
    fn touch_parent(
        &mut self,
        parent: SlotId,
        path: &str,
        zxid: Zxid,
        created: Option<i32>,
    ) -> (Arc<[Acl]>, StatPersisted) {
        let value = self.value(parent).expect("parents are checked before").clone();
        let before = value.stat();
        let stat = match created {
            Some(cversion) => rules::parent_after_create(&before, cversion, zxid),
            None => rules::parent_after_delete(&before, zxid),
        };
        let acl = Arc::clone(value.acl());
        let Some(stat) = stat else { return (acl, before) };
        self.replace(parent, path, stat, Shared::clone(value.common()), value.here());
        (acl, stat)
    }

    /// What a value with the same data and this ACL shares.
    fn with_acl(&mut self, value: &Value, acl: &[Acl]) -> Shared<Common> {
        let interned = self.intern(acl);
        match &value.common().place {
            Place::Here => interned,
            place => Shared::new(Common { acl: Arc::clone(&interned.acl), place: place.clone() }),
        }
    }

    fn parent_of<'p>(&self, path: &'p str) -> Option<(SlotId, &'p str)> {
        let parent_path = path::parent(path)?;
        let parent = self.find(parent_path)?;
        self.value(parent).map(|_| (parent, parent_path))
    }

    fn find_value(&self, path: &str) -> Option<(SlotId, Value)> {
        let id = self.find(path)?;
        self.value(id).map(|value| (id, value.clone()))
    }
}
