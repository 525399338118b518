//! What the words `wchs`, `wchc` and `wchp` tell. They count data watches, as Apache's do.

use super::WatchTable;
use super::links::Side;
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

    /// Hands over the data watches at the next so many places from `from` on, which is 0 at first;
    /// where to go on, if there are more. Each watch that is there all the time is met once.
    #[must_use]
    pub fn data_some(
        &self,
        from: u32,
        places_max: u32,
        sink: &mut dyn FnMut(&str, ConnId),
    ) -> Option<u32> {
        let bound = self.links.bound();
        let to = from.saturating_add(places_max).min(bound);
        for at in from..to {
            if let Some((path, conn)) = self.links.data_watch(at) {
                sink(path, conn);
            }
        }
        (to < bound).then_some(to)
    }

    /// Whether nobody watches anything.
    #[must_use]
    pub const fn is_empty(&self) -> bool {
        self.data_count() == 0 && self.child_count() == 0
    }
}
