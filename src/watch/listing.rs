//! What the words `wchs`, `wchc` and `wchp` tell. They count data watches, as Apache's do.

use std::collections::{BTreeMap, BTreeSet};

use super::WatchTable;
use crate::base::Str;
use crate::model::ConnId;

impl WatchTable {
    /// Number of watches in the data table.
    #[must_use]
    pub const fn data_count(&self) -> usize {
        self.data.count
    }

    /// Number of watches in the child table.
    #[must_use]
    pub const fn child_count(&self) -> usize {
        self.child.count
    }

    /// Data watches by path, sorted.
    #[must_use]
    pub fn data_by_path(&self) -> BTreeMap<Str, BTreeSet<ConnId>> {
        let conns = |(path, watchers): (&Str, &Vec<super::Watcher>)| {
            (path.clone(), watchers.iter().map(|watcher| watcher.conn).collect())
        };
        self.data.paths.iter().map(conns).collect()
    }

    /// Whether nobody watches anything.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.data.count == 0 && self.child.count == 0
    }
}
