//! What only a restore from another server's files needs of the tree.

use std::hash::{DefaultHasher, Hash, Hasher};

use super::store::Tree;

impl Tree {
    /// Adds the built-in znodes that a snapshot of an older server does not have.
    pub fn restore_built_ins(&mut self) {
        let built_in = Self::new(self.options);
        for path in ["/zookeeper", "/zookeeper/quota", "/zookeeper/config"] {
            let (None, Some(znode)) = (self.get(path), built_in.get(path)) else { continue };
            let acl = znode.acl().into();
            self.restore_znode(path, znode.data(), &acl, znode.persisted())
                .expect("it is a path and was absent");
        }
    }

    /// A digest of all ACLs and whose they are, which [`Tree::digest`] leaves out; the same in one
    /// process only.
    #[must_use]
    pub fn acl_digest(&self) -> u64 {
        let mut digest = 0_u64;
        let mut open = vec!["/".to_owned()];
        while let Some(path) = open.pop() {
            let Some(znode) = self.get(&path) else { continue };
            let mut hasher = DefaultHasher::new();
            (path.as_str(), znode.acl()).hash(&mut hasher);
            digest = digest.wrapping_add(hasher.finish());
            let base = if path == "/" { "" } else { path.as_str() };
            open.extend(znode.children().map(|name| format!("{base}/{name}")));
        }
        digest
    }

    /// Removes everything below `path` and leaves no trace in any stat: what is there comes from
    /// the future of the txn that is being replayed.
    pub fn clear_below(&mut self, path: &str) {
        // Parents come before their children.
        for below in self.paths_below(path).into_iter().rev() {
            let Some(id) = self.find(&below) else { continue };
            self.remove(id, &below);
            self.quota_node_deleted(&below);
        }
    }

    /// Counts anew what the subtrees with a quota use.
    pub fn recount_quotas(&mut self) {
        self.restore_quotas();
    }
}
