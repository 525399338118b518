//! Consistent cuts of the tree, each at one zxid, while txns go on being applied.
//!
//! A cursor walks the slots. A slot ahead of the cursor that is about to change for the first time
//! since the cut began leaves what it was in a side table; when the cursor gets there, the side
//! table is believed before the slot. Starting costs nothing; memory grows with what changes.
//!
//! A slot's parent may be ahead of the cursor, in a slot that was free before: it is then handed
//! out before its turn. So parents come before their children, and the order is otherwise that of
//! the slots.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use super::store::{NONE, SlotId, Tree};
use super::value::Value;
use crate::model::{Acl, StatPersisted};

/// Names a cut of one tree, from [`Tree::begin_cut`] to [`Tree::end_cut`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CutId(u64);

/// The cuts under way.
#[derive(Debug, Default)]
pub(super) struct Cuts {
    under_way: Vec<(CutId, Cut)>,
    begun: u64,
}

#[derive(Debug)]
struct Cut {
    /// Slots below it were emitted.
    cursor: SlotId,
    /// Slots from here on did not exist when the cut began.
    end: SlotId,
    /// Slots from the cursor on that were emitted before their turn.
    ahead: BTreeSet<SlotId>,
    /// Slots that were not emitted and have changed: what they were; `None` if they were free.
    saved: BTreeMap<SlotId, Option<Saved>>,
}

#[derive(Clone, Debug)]
struct Saved {
    path: String,
    parent: SlotId,
    value: Value,
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
    /// Begins a cut of the tree as it is now. Any number may be under way; each costs what changes
    /// before it is through, and a look-up for every change.
    pub fn begin_cut(&mut self) -> CutId {
        assert!(self.is_whole, "no cut shows a part of a txn");
        let id = CutId(self.cuts.begun);
        self.cuts.begun += 1;
        let end = self.slot_count();
        let cut = Cut { cursor: 0, end, ahead: BTreeSet::new(), saved: BTreeMap::new() };
        self.cuts.under_way.push((id, cut));
        id
    }

    /// Hands the next znodes to `sink`, parents before their children, until about `budget_bytes`
    /// were handed over. Whether there are more.
    pub fn cut_items(
        &mut self,
        cut: CutId,
        budget_bytes: usize,
        sink: &mut dyn FnMut(CutItem<'_>),
    ) -> bool {
        let mut cuts = std::mem::take(&mut self.cuts);
        let found = cuts.under_way.iter_mut().find(|(id, _)| *id == cut);
        let more = found.is_some_and(|(_, cut)| {
            let mut handed_bytes = 0;
            while cut.cursor < cut.end && handed_bytes < budget_bytes {
                // Even a free slot costs a little, so that a sparse arena is walked in slices too.
                handed_bytes += 16;
                if let Some(Saved { path, value, .. }) = cut.next(self) {
                    handed_bytes += path.len() + value.data_len() + 64;
                    sink(CutItem {
                        path: &path,
                        data: value.data(),
                        acl: value.acl(),
                        stat: &value.stat(),
                    });
                }
            }
            cut.cursor < cut.end
        });
        self.cuts = cuts;
        more
    }

    /// Ends the cut, finished or not. Of a cut that has ended it does nothing.
    pub fn end_cut(&mut self, cut: CutId) {
        self.cuts.under_way.retain(|(id, _)| *id != cut);
    }

    /// Must be called before a slot changes in any way.
    pub(super) fn save_for_cuts(&mut self, id: SlotId) {
        if self.cuts.under_way.is_empty() {
            return;
        }
        let mut cuts = std::mem::take(&mut self.cuts);
        for (_, cut) in &mut cuts.under_way {
            if cut.is_owed(id) {
                cut.saved.insert(id, self.saved(id));
            }
        }
        self.cuts = cuts;
    }

    /// What a slot is; `None` if it is free.
    fn saved(&self, id: SlotId) -> Option<Saved> {
        let value = self.value(id)?.clone();
        Some(Saved { path: self.path_of(id), parent: self.parent_slot(id), value })
    }
}

impl Cut {
    /// The slot belongs to the cut, is not emitted and has not changed.
    fn is_owed(&self, id: SlotId) -> bool {
        let is_emitted = id < self.cursor || self.ahead.contains(&id);
        id < self.end && !is_emitted && !self.saved.contains_key(&id)
    }

    /// Takes one step: the slot at the cursor, or the highest ancestor of it that was not emitted.
    fn next(&mut self, tree: &Tree) -> Option<Saved> {
        if self.ahead.remove(&self.cursor) {
            self.cursor += 1;
            return None;
        }
        let mut id = self.cursor;
        loop {
            let parent = match self.saved.get(&id) {
                Some(saved) => saved.as_ref().map_or(NONE, |saved| saved.parent),
                None => tree.value(id).map_or(NONE, |_| tree.parent_slot(id)),
            };
            if parent == NONE || parent < self.cursor || self.ahead.contains(&parent) {
                break;
            }
            id = parent;
        }
        let saved = self.saved.remove(&id).unwrap_or_else(|| tree.saved(id));
        if id == self.cursor {
            self.cursor += 1;
        } else {
            self.ahead.insert(id);
        }
        saved
    }
}
