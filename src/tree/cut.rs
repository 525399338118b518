//! A consistent cut of the tree at one zxid while txns go on being applied.
//!
//! A cursor walks the slots. A slot ahead of the cursor that is about to change for the first time
//! since the cut began leaves what it was in a side table; when the cursor gets there, the side
//! table is believed before the slot. Starting costs nothing; memory grows with what changes.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::store::{SlotId, Tree};
use super::value::{Shared, Value};
use crate::model::{Acl, StatPersisted};

/// The state of a cut under way.
#[derive(Debug)]
pub(super) struct Cut {
    /// Slots below it were emitted.
    cursor: SlotId,
    /// Slots from here on did not exist when the cut began.
    end: SlotId,
    /// Slots in `[cursor, end)` that changed: what they were; `None` if they were free.
    saved: BTreeMap<SlotId, Option<(String, Shared<Value>)>>,
}

/// One znode of the cut.
#[derive(Clone, Copy, Debug)]
pub struct CutItem<'a> {
    /// Full path.
    pub path: &'a str,
    /// Data; `None` is null.
    pub data: Option<&'a [u8]>,
    /// ACL.
    pub acl: &'a Arc<[Acl]>,
    /// Stored stat.
    pub stat: &'a StatPersisted,
}

impl Tree {
    /// Begins a cut of the tree as it is now.
    pub fn begin_cut(&mut self) {
        let end = self.slot_count();
        self.cut = Some(Cut { cursor: 0, end, saved: BTreeMap::new() });
    }

    /// Whether a cut is under way.
    #[must_use]
    pub const fn is_cutting(&self) -> bool {
        self.cut.is_some()
    }

    /// Hands the next znodes to `sink`, in no particular order, until about `budget_bytes` were
    /// handed over. Whether there are more.
    pub fn cut_items(&mut self, budget_bytes: usize, sink: &mut dyn FnMut(CutItem<'_>)) -> bool {
        let Some(mut cut) = self.cut.take() else { return false };
        let mut handed_bytes = 0;
        while cut.cursor < cut.end && handed_bytes < budget_bytes {
            let id = cut.cursor;
            cut.cursor += 1;
            let item = match cut.saved.remove(&id) {
                Some(saved) => saved,
                None => self.value(id).map(|value| (self.path_of(id), Shared::clone(value))),
            };
            // Even a free slot costs a little, so that a sparse arena is walked in slices too.
            handed_bytes += 16;
            if let Some((path, value)) = item {
                handed_bytes += path.len() + value.data.as_ref().map_or(0, |data| data.len()) + 64;
                sink(CutItem {
                    path: &path,
                    data: value.data.as_deref(),
                    acl: &value.acl,
                    stat: &value.stat,
                });
            }
        }
        let more = cut.cursor < cut.end;
        self.cut = Some(cut);
        more
    }

    /// Ends the cut, finished or not.
    pub fn end_cut(&mut self) {
        self.cut = None;
    }

    /// Must be called before a slot changes in any way.
    pub(super) fn save_for_cut(&mut self, id: SlotId) {
        let Some(cut) = &self.cut else { return };
        if id < cut.cursor || cut.end <= id || cut.saved.contains_key(&id) {
            return;
        }
        let was = self.value(id).map(|value| (self.path_of(id), Shared::clone(value)));
        if let Some(cut) = &mut self.cut {
            cut.saved.insert(id, was);
        }
    }
}
