//! [`Fuzzy`]: how far a state may be ahead of its zxid, and how txns are applied meanwhile.
//!
//! Apache's servers write a snapshot, to a file or to a learner, while txns go on: a part of it may
//! show any txn of that time. Applying those txns over effects that are already there makes it
//! exact again: the tree's rules for that are Apache's, and a znode that is deleted takes children
//! from its future with it. Digests tell when: they are compared as soon as the known part of the
//! fuzzy range is passed, the first that is equal ends it, and from then on all must be.
//!
//! No snapshot of our own is taken before the end, and nothing is served.

use crate::model::{TxnBody, Zxid};
use crate::tree::Tree;

/// What is known of the fuzzy range.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fuzzy {
    /// At least up to this txn; with it, the tree has this digest, if one is known.
    Until(Zxid, Option<u64>),
    /// Nobody knows whether it is over. What the last comparison found.
    Unknown(Option<Unequal>),
    /// The state is exact.
    Over,
}

/// A digest that is not the one expected.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Unequal {
    /// After which txn.
    pub zxid: Zxid,
    /// What the txn carries.
    pub expected: u64,
    /// What the tree shows.
    pub found: u64,
}

impl Fuzzy {
    /// Call before a txn is applied. Children of a znode that is being deleted were created later,
    /// and their creation is yet to be applied. With them the deletion would be passed over, and
    /// what is set before the new creation would stay.
    pub fn prepare(&self, tree: &mut Tree, body: &TxnBody) {
        if *self == Self::Over {
            return;
        }
        match body {
            TxnBody::Delete { path } | TxnBody::DeleteContainer { path } => tree.clear_below(path),
            TxnBody::CloseSession { paths: Some(paths) } => {
                paths.iter().for_each(|path| tree.clear_below(&path));
            }
            TxnBody::Multi(bodies) if !bodies.iter().any(TxnBody::is_error) => {
                bodies.iter().for_each(|body| self.prepare(tree, body));
            }
            _ => {}
        }
    }

    /// Call after a txn was applied, with the digest that it carries. Whether it was compared.
    ///
    /// # Errors
    /// The state was exact, and the digest is another one.
    pub fn applied(&mut self, tree: &mut Tree, expected: Option<u64>) -> Result<bool, Unequal> {
        self.reach(tree);
        expected.map_or(Ok(false), |expected| self.compare(tree, expected))
    }

    /// The tree has come to a txn: the known range may be over.
    pub fn reach(&mut self, tree: &mut Tree) {
        let Self::Until(until, expected) = *self else { return };
        if tree.last_zxid() < until {
            return;
        }
        *self = Self::Unknown(None);
        if let Some(expected) = expected {
            // Not the last word: Apache's server writes the section while a txn is being applied,
            // so the tree may be one ahead.
            let _unequal = self.compare(tree, expected);
        }
    }

    /// Call when every txn that the snapshot can show was applied: a learner's at the latest when
    /// everything committed before UPTODATE is.
    ///
    /// # Errors
    /// The last digest that was compared was another one.
    pub fn passed(&mut self, tree: &mut Tree) -> Result<(), Unequal> {
        if let Self::Unknown(Some(unequal)) = *self {
            return Err(unequal);
        }
        self.end(tree);
        Ok(())
    }

    /// The state is exact: only what subtrees use may have been counted twice.
    fn end(&mut self, tree: &mut Tree) {
        if *self != Self::Over {
            *self = Self::Over;
            tree.recount_quotas();
            let count = tree.unknown_acls();
            if count != 0 {
                tracing::error!(
                    count,
                    "no ACL is known of znodes: set them as super, they grant nothing"
                );
            }
        }
    }

    fn compare(&mut self, tree: &mut Tree, expected: u64) -> Result<bool, Unequal> {
        let found = tree.digest();
        if found == 0 || matches!(self, Self::Until(..)) {
            return Ok(false);
        }
        let unequal = Unequal { zxid: tree.last_zxid(), expected, found };
        match self {
            _ if found == expected => self.end(tree),
            Self::Over => return Err(unequal),
            _ => *self = Self::Unknown(Some(unequal)),
        }
        Ok(true)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::{Str, StrList};
    use crate::model::{CreateTxnKind, SessionId};
    use crate::server::random_history::{Model, OPTIONS};
    use crate::server::state::State;

    /// What `model` holds, under a zxid that it passed long ago.
    fn ahead_of(zxid: Zxid, model: &Model) -> State {
        let mut state = State::for_restore(OPTIONS);
        for path in model.paths() {
            let path = if path.is_empty() { "/" } else { &path };
            let znode = model.state.tree.get(path).expect("it was listed");
            let (data, acl) = (znode.data(), znode.acl().into());
            state.tree.restore_znode(path, data, &acl, znode.persisted()).expect("it is a tree");
        }
        state.tree.restore_built_ins();
        state.tree.finish_restore(zxid).expect("it is a tree");
        state.fuzzy = Fuzzy::Until(model.state.tree.last_zxid(), None);
        state
    }

    #[test]
    fn a_session_ends_before_its_znode_comes_back_with_a_child() {
        let session = 0x10_0007;
        let path = Str::from_static("/e");
        let mut model = Model::new(1);
        model.commit(session, TxnBody::CreateSession { timeout_ms: 4_000 });
        let ephemeral = model.create("/e", CreateTxnKind::Create { ephemeral: true });
        model.commit(session, ephemeral);
        let begun = model.state.tree.last_zxid();
        let data = Some(bytes::Bytes::from_static(b"of the session"));
        model.commit(session, TxnBody::SetData { path: path.clone(), data, version: 1 });
        let paths: StrList = [path].into_iter().collect();
        model.commit(session, TxnBody::CloseSession { paths: Some(paths) });
        for path in ["/e", "/e/child"] {
            let create = model.create(path, CreateTxnKind::Create { ephemeral: false });
            model.commit(7, create);
        }
        let mut state = ahead_of(begun, &model);
        for (zxid, txn) in model.txns.iter().filter(|(zxid, _)| begun < *zxid) {
            state.replay(*zxid, txn).expect("no digest is wrong once the state is exact");
        }
        assert_eq!(state.fuzzy, Fuzzy::Over, "the last digest is the tree's");
        assert!(state.sessions.keys().all(|id| *id != SessionId(session)));
        for path in model.paths() {
            let path = if path.is_empty() { "/" } else { &path };
            let [ours, theirs] = [&state, &model.state].map(|state| state.tree.get(path));
            let (ours, theirs) = (ours.expect(path), theirs.expect(path));
            assert_eq!(ours.data(), theirs.data(), "{path}");
            assert_eq!(ours.persisted(), theirs.persisted(), "{path}");
            assert_eq!(ours.acl(), theirs.acl(), "{path}");
        }
        assert_eq!(state.tree.znode_count(), model.state.tree.znode_count());
    }
}
