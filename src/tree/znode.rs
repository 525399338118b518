//! [`ZnodeRef`]: a znode as readers see it.

use super::store::{NONE, SlotId, Tree};
use super::value::Value;
use crate::model::{Acl, Stat, StatPersisted};

/// A znode as readers see it.
#[derive(Clone, Copy, Debug)]
pub struct ZnodeRef<'a> {
    tree: &'a Tree,
    pub(super) id: SlotId,
    value: &'a Value,
}

impl Tree {
    /// The znode of a slot.
    pub(super) fn znode(&self, id: SlotId) -> Option<ZnodeRef<'_>> {
        Some(ZnodeRef { tree: self, id, value: self.value(id)? })
    }
}

impl<'a> ZnodeRef<'a> {
    /// The stat as clients see it.
    #[must_use]
    pub fn stat(&self) -> Stat {
        let length = i32::try_from(self.value.data_len()).unwrap_or(i32::MAX);
        let children = i32::try_from(self.child_count()).unwrap_or(i32::MAX);
        self.value.stat().visible(length, children, self.tree.options.extended_types)
    }

    /// The stat as stored.
    #[must_use]
    pub fn persisted(&self) -> StatPersisted {
        self.value.stat()
    }

    /// The shared value.
    #[must_use]
    pub const fn value(&self) -> &'a Value {
        self.value
    }

    /// The data; `None` is null.
    #[must_use]
    pub fn data(&self) -> Option<&'a [u8]> {
        self.value.data()
    }

    /// The ACL.
    #[must_use]
    pub fn acl(&self) -> &'a [Acl] {
        self.value.acl()
    }

    /// Number of children.
    #[must_use]
    pub fn child_count(&self) -> usize {
        self.tree.child_count(self.id) as usize
    }

    /// Names of the children, the youngest first.
    pub fn children(&self) -> impl Iterator<Item = &'a str> + use<'a> {
        let tree = self.tree;
        let mut at = tree.first_child(self.id);
        std::iter::from_fn(move || {
            let child = (at != NONE).then_some(at)?;
            at = tree.next_sibling(child);
            Some(child)
        })
        .filter(|child| tree.value(*child).is_some())
        .map(|child| tree.name(child))
    }
}
