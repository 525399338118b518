//! What the words `wchs`, `wchc` and `wchp` tell. They count data watches, as Apache's do.

use std::collections::{BTreeMap, BTreeSet};

use super::WatchTable;
use super::links::{ALL, Side};
use crate::base::Str;
use crate::model::ConnId;

impl WatchTable {
    /// Number of watches in the data table.
    #[must_use]
    pub const fn data_count(&self) -> usize {
        self.links.count(Side::Data)
    }

    /// Number of watches in the child table.
    #[must_use]
    pub const fn child_count(&self) -> usize {
        self.links.count(Side::Child)
    }

    /// Data watches by path, sorted.
    #[must_use]
    pub fn data_by_path(&self) -> BTreeMap<Str, BTreeSet<ConnId>> {
        let conns = |at| -> BTreeSet<ConnId> { self.links.watchers(at, Side::Data, ALL).collect() };
        (0..self.links.path_bound())
            .map(|at| (Str::from(self.links.text(at)), conns(at)))
            .filter(|(_, conns)| !conns.is_empty())
            .collect()
    }

    /// Whether nobody watches anything.
    #[must_use]
    pub const fn is_empty(&self) -> bool {
        self.data_count() == 0 && self.child_count() == 0
    }
}
