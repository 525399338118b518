//! Filling a tree from a snapshot, whose znodes come in any order.

use std::sync::Arc;

use super::store::{NONE, ROOT, SlotId, Tree, TreeOptions, hash};
use super::value::{Common, Shared};
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

/// Parent and ACL of the znode that was restored last: mostly the next one has the same.
#[derive(Clone, Debug)]
pub(super) struct LastRestored {
    parent_path: String,
    parent: SlotId,
    acl: Option<GivenAcl>,
}

/// An ACL as it was given, and as the tree has it.
#[derive(Clone, Debug)]
struct GivenAcl {
    given: Arc<[Acl]>,
    interned: Shared<Common>,
}

impl Default for LastRestored {
    /// The root, which every tree has; its children's paths have nothing before the last slash.
    fn default() -> Self {
        Self { parent_path: String::new(), parent: ROOT, acl: None }
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

    /// Says how many znodes will come, so that the index need not grow on the way.
    pub fn make_room(&mut self, znodes: u64) {
        self.index.reserve(usize::try_from(znodes).unwrap_or_default());
    }

    /// Adds a znode of a snapshot, in any order, to a tree that nothing is removed from before
    /// [`Tree::finish_restore`].
    ///
    /// # Errors
    /// The path is none, or was there before.
    pub fn restore_znode(
        &mut self,
        path: &str,
        data: Option<&[u8]>,
        acl: &Arc<[Acl]>,
        stat: StatPersisted,
    ) -> Result<(), RestoreError> {
        let id = self.find_or_make(path)?;
        if self.value(id).is_some() {
            return Err(RestoreError::Twice(path.to_owned()));
        }
        let interned = match &self.last_restored.acl {
            Some(last) if Arc::ptr_eq(&last.given, acl) => Shared::clone(&last.interned),
            _ => {
                let interned = self.intern(acl);
                let (given, interned_too) = (Arc::clone(acl), Shared::clone(&interned));
                self.last_restored.acl = Some(GivenAcl { given, interned: interned_too });
                interned
            }
        };
        self.fill(id, path, data, &interned, stat);
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
        self.last_restored = LastRestored::default();
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
        if self.last_restored.parent_path != parent_path {
            let names = parent_path.split('/').skip(1);
            let parent = names.fold(ROOT, |parent, name| self.child_or_new(parent, name));
            parent_path.clone_into(&mut self.last_restored.parent_path);
            self.last_restored.parent = parent;
        }
        Ok(self.child_or_new(self.last_restored.parent, name))
    }

    fn child_or_new(&mut self, parent: SlotId, name: &str) -> SlotId {
        let hash = hash(parent, name);
        self.child_of_hash(hash, parent, name)
            .unwrap_or_else(|| self.make_child(hash, parent, name))
    }
}
