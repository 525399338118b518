//! Filling a tree from a snapshot, whose znodes come in any order.

use bytes::Bytes;

use super::store::{NONE, ROOT, SlotId, Tree, TreeOptions, hash};
use super::value::Shared;
use crate::model::{Acl, StatPersisted, Zxid};

/// A snapshot that does not make a tree.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum RestoreError {
    /// The same path twice.
    #[error("znode {0} stands twice in the snapshot")]
    Twice(String),
    /// Not an absolute path.
    #[error("{0:?} is not a path")]
    BadPath(String),
    /// A child without its parent.
    #[error("znode {0} has children in the snapshot but is not there itself")]
    MissingParent(String),
}

/// Where the last znode was restored: mostly the next one goes there, too.
#[derive(Clone, Debug)]
pub(super) struct LastParent {
    path: String,
    id: SlotId,
}

impl Default for LastParent {
    /// Above the children of the root, which every tree has.
    fn default() -> Self {
        Self { path: String::new(), id: ROOT }
    }
}

impl Tree {
    /// A tree to be filled with [`Tree::restore_znode`].
    #[must_use]
    pub fn for_restore(options: TreeOptions) -> Self {
        let mut tree = Self::empty(options);
        let root = tree.take_slot(NONE, "");
        assert_eq!(root, ROOT, "the first slot is the root's");
        tree
    }

    /// Adds a znode of a snapshot, in any order, to a tree that nothing is removed from before
    /// [`Tree::finish_restore`].
    ///
    /// # Errors
    /// The path is none, or was there before.
    pub fn restore_znode(
        &mut self,
        path: &str,
        data: Option<&Bytes>,
        acl: &[Acl],
        stat: StatPersisted,
    ) -> Result<(), RestoreError> {
        let id = self.find_or_make(path)?;
        if self.value(id).is_some() {
            return Err(RestoreError::Twice(path.to_owned()));
        }
        let acl = self.intern(acl);
        let data = data.map(|data| Shared::from(data.as_ref()));
        self.fill(id, path, data, acl, stat);
        Ok(())
    }

    /// Ends a restore: every parent must have come.
    ///
    /// # Errors
    /// One did not.
    pub fn finish_restore(&mut self, last_zxid: Zxid) -> Result<(), RestoreError> {
        for id in 0..self.slot_count() {
            if self.value(id).is_none() {
                return Err(RestoreError::MissingParent(self.path_of(id)));
            }
        }
        self.last_parent = LastParent::default();
        self.last_zxid = last_zxid;
        self.restore_quotas();
        Ok(())
    }

    fn find_or_make(&mut self, path: &str) -> Result<SlotId, RestoreError> {
        if path == "/" {
            return Ok(ROOT);
        }
        let (parent_path, name) = path
            .rsplit_once('/')
            .filter(|_| path.starts_with('/'))
            .ok_or_else(|| RestoreError::BadPath(path.to_owned()))?;
        if self.last_parent.path != parent_path {
            let names = parent_path.split('/').skip(1);
            let id = names.fold(ROOT, |parent, name| self.child_or_new(parent, name));
            self.last_parent = LastParent { path: parent_path.to_owned(), id };
        }
        Ok(self.child_or_new(self.last_parent.id, name))
    }

    fn child_or_new(&mut self, parent: SlotId, name: &str) -> SlotId {
        let hash = hash(parent, name);
        self.child_of_hash(hash, parent, name)
            .unwrap_or_else(|| self.make_child(hash, parent, name))
    }
}
