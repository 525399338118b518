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

    /// Data watches by connection, sorted.
    #[must_use]
    pub fn data_by_conn(&self) -> BTreeMap<ConnId, BTreeSet<Str>> {
        let mut all: BTreeMap<ConnId, BTreeSet<Str>> = BTreeMap::new();
        for (path, watchers) in &self.data.paths {
            for watcher in watchers {
                all.entry(watcher.conn).or_default().insert(path.clone());
            }
        }
        all
    }
}
