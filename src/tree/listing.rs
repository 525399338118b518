//! [`Listing`]: the children of a znode as they were at one zxid, read in slices while txns go on.
//!
//! Children that come later stand in front of where the listing began, so it never meets them. A
//! child that goes while its parent is listed stays among its siblings, without a value, until
//! every listing that began before has ended: to the listing it is still there, to everybody else
//! it is gone.

use std::cell::RefCell;
use std::collections::{BTreeMap, VecDeque};
use std::sync::{Arc, Weak};

use super::store::{NONE, SlotId, Tree};
use super::znode::ZnodeRef;

/// Remains that one txn clears away, at most.
const CLEARED_PER_TXN: usize = 64;

/// One reading of a znode's children. Dropping it ends it.
#[derive(Debug)]
pub struct Listing {
    next: SlotId,
    /// The moment it began, in `Listings::moment`.
    began: u64,
    /// Names not yet handed out.
    left: u32,
    _pin: Arc<Pin>,
}

#[derive(Debug)]
struct Pin {
    parent: SlotId,
    began: u64,
}

/// Listings under way, and what is kept for them.
#[derive(Debug, Default)]
pub(super) struct Listings {
    pins: RefCell<Vec<Weak<Pin>>>,
    /// Counts removals of children, to order them and the beginnings of listings.
    moment: u64,
    /// Slots that were removed and are kept: when, and whether they still stand among siblings.
    kept: BTreeMap<SlotId, Kept>,
    /// The same, the oldest first.
    order: VecDeque<SlotId>,
}

#[derive(Clone, Copy, Debug)]
struct Kept {
    since: u64,
    among_siblings: bool,
}

impl Listing {
    /// Number of names that were not handed out yet.
    #[must_use]
    pub const fn left(&self) -> u32 {
        self.left
    }
}

impl Listings {
    /// When the oldest of those listings began that `of` selects.
    fn oldest(&self, of: impl Fn(&Pin) -> bool) -> Option<u64> {
        let mut pins = self.pins.borrow_mut();
        pins.retain(|pin| pin.strong_count() != 0);
        let live = pins.iter().filter_map(Weak::upgrade);
        live.filter(|pin| of(pin)).map(|pin| pin.began).min()
    }

    fn is_listed(&self, parent: SlotId) -> bool {
        !self.pins.borrow().is_empty() && self.oldest(|pin| pin.parent == parent).is_some()
    }

    fn keep(&mut self, id: SlotId, among_siblings: bool) {
        self.moment += 1;
        self.kept.insert(id, Kept { since: self.moment, among_siblings });
        self.order.push_back(id);
    }
}

impl Tree {
    /// Begins to list the children of a znode of this tree as they are now.
    #[must_use]
    pub fn list(&self, znode: &ZnodeRef<'_>) -> Listing {
        let began = self.listings.moment;
        let pin = Arc::new(Pin { parent: znode.id, began });
        let mut pins = self.listings.pins.borrow_mut();
        if pins.len() == pins.capacity() {
            pins.retain(|pin| pin.strong_count() != 0);
        }
        pins.push(Arc::downgrade(&pin));
        drop(pins);
        let left = self.child_count(znode.id);
        let mut listing = Listing { next: self.first_child(znode.id), began, left, _pin: pin };
        self.skip_remains(&mut listing);
        listing
    }

    /// Hands the next names to `sink`, the youngest first, at most so many.
    pub fn list_some(&self, listing: &mut Listing, names_max: u32, sink: &mut dyn FnMut(&str)) {
        let mut visits = 0;
        while listing.left != 0 && visits < names_max {
            assert!(listing.next != NONE, "as many children were kept as there were");
            let id = listing.next;
            listing.next = self.next_sibling(id);
            if self.was_there(id, listing.began) {
                sink(self.name(id));
                listing.left -= 1;
            }
            visits += 1;
        }
        self.skip_remains(listing);
    }

    /// What went before a listing began may be cleared away at any time: it must not rest there.
    fn skip_remains(&self, listing: &mut Listing) {
        while listing.left != 0 && !self.was_there(listing.next, listing.began) {
            listing.next = self.next_sibling(listing.next);
        }
    }

    /// How many listings are remembered.
    #[cfg(test)]
    pub(super) fn remembered_listings(&self) -> usize {
        self.listings.pins.borrow().len()
    }

    /// Whether everything that was kept for listings has been cleared away.
    #[cfg(test)]
    pub(super) fn keeps_nothing(&self) -> bool {
        self.listings.kept.is_empty() && self.listings.order.is_empty()
    }

    fn was_there(&self, id: SlotId, began: u64) -> bool {
        self.value(id).is_some()
            || self.listings.kept.get(&id).is_some_and(|kept| began < kept.since)
    }

    /// Whether a slot that is being removed must stay for a listing, of its siblings or of its own
    /// children, which have gone before it. It is cleared away later.
    pub(super) fn keep_for_listings(&mut self, id: SlotId, parent: SlotId) -> Removal {
        let has_remains = self.first_child(id) != NONE;
        let among_siblings = self.listings.is_listed(parent);
        if among_siblings || has_remains {
            self.listings.keep(id, among_siblings);
        }
        Removal { stays_among_siblings: among_siblings, stays: among_siblings || has_remains }
    }

    /// Clears away some of what no listing needs any longer.
    pub(super) fn clear_after_listings(&mut self) {
        if self.listings.order.is_empty() {
            return;
        }
        let oldest = self.listings.oldest(|_| true);
        for _ in 0..CLEARED_PER_TXN {
            let Some(id) = self.listings.order.front().copied() else { return };
            let Some(kept) = self.listings.kept.get(&id).copied() else { return };
            if oldest.is_some_and(|began| began < kept.since) {
                return;
            }
            self.listings.order.pop_front();
            self.listings.kept.remove(&id);
            self.let_go(id, kept.among_siblings);
        }
    }
}

/// What becomes of a removed slot.
#[derive(Clone, Copy, Debug)]
pub(super) struct Removal {
    pub(super) stays_among_siblings: bool,
    pub(super) stays: bool,
}
