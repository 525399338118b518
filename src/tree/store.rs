//! [`Tree`]: slots, lookup, and the few primitives by which everything changes.

use std::collections::{BTreeMap, BTreeSet};
use std::hash::{BuildHasher, Hasher};
use std::sync::Arc;

use ecow::EcoString;
use foldhash::quality::FixedState;

use super::cut::Cuts;
use super::listing::Listings;
use super::restore::LastRestored;
use super::value::{self, Common, Place, Shared, Value};
use super::znode::ZnodeRef;
use crate::base::{Index, Pages, Str, StrSet};
use crate::model::{
    Acl, EphemeralOwner, ExtendedTypes, Perms, SessionId, StatPersisted, Zxid, path,
};

/// Settings that change what the tree stores or shows.
#[derive(Clone, Copy, Debug)]
pub struct TreeOptions {
    /// TTL owners are recognised.
    pub extended_types: ExtendedTypes,
    /// Keep the tree's digest.
    pub digests: bool,
}

/// The data tree. Between two calls it shows the state right behind `last_zxid`.
#[derive(Debug)]
pub struct Tree {
    pub(super) options: TreeOptions,
    slots: Pages<Slot>,
    free: Pages<SlotId>,
    pub(super) index: Index,
    pub(super) ephemerals: BTreeMap<SessionId, StrSet>,
    /// What values of short data with the same ACL share.
    acls: BTreeMap<Arc<[Acl]>, Interned>,
    /// Roots of the subtrees that have a quota.
    pub(super) quotas: BTreeSet<Str>,
    /// Containers and TTL znodes.
    pub(super) reapable: BTreeSet<Str>,
    pub(super) cuts: Cuts,
    pub(super) listings: Listings,
    pub(super) last_restored: LastRestored,

    pub(super) last_zxid: Zxid,
    pub(super) is_whole: bool,
    digest: u64,
    znode_count: usize,
    pub(super) ephemerals_count: usize,
    data_bytes: u64,
}

/// Place of a znode in the arena.
pub(super) type SlotId = u32;

/// No slot.
pub(super) const NONE: SlotId = u32::MAX;

/// The root's slot.
pub(super) const ROOT: SlotId = 0;

/// One znode's place among the others.
#[derive(Clone, Debug)]
struct Slot {
    parent: SlotId,
    next: SlotId,
    prev: SlotId,
    first_child: SlotId,
    child_count: u32,
    descendant_count: u32,
    /// Up to 15 bytes stand in the slot itself.
    name: EcoString,
    /// `None` while free, while it is kept for a listing, and for a parent that a restore has not
    /// met yet.
    value: Option<Value>,
}

const _: () = assert!(size_of::<Slot>() == 48);

impl Tree {
    /// A tree with the built-in znodes (`client-protocol.md` 5.11).
    #[must_use]
    pub fn new(options: TreeOptions) -> Self {
        let mut tree = Self::empty(options);
        let open = tree.intern(&[Acl::open()]);
        let read = tree.intern(&[Acl::world(Perms::READ)]);
        let zero = StatPersisted::default();
        for path in ["/", "/zookeeper", "/zookeeper/quota"] {
            tree.add(path, Some(&[]), &open, zero);
        }
        let config = StatPersisted { aversion: -1, ..zero };
        tree.add("/zookeeper/config", Some(&[]), &read, config);
        tree
    }

    /// A tree without even a root, for a restore.
    pub(super) fn empty(options: TreeOptions) -> Self {
        Self {
            options,
            slots: Pages::default(),
            free: Pages::default(),
            index: Index::default(),
            ephemerals: BTreeMap::new(),
            acls: BTreeMap::new(),
            quotas: BTreeSet::new(),
            reapable: BTreeSet::new(),
            cuts: Cuts::default(),
            listings: Listings::default(),
            last_restored: LastRestored::default(),
            last_zxid: Zxid::ZERO,
            is_whole: true,
            digest: 0,
            znode_count: 0,
            ephemerals_count: 0,
            data_bytes: 0,
        }
    }

    /// A copy that shares every value, to follow the same txns on another shard, without digests.
    #[must_use]
    pub fn replica(&self) -> Self {
        Self {
            options: TreeOptions { digests: false, ..self.options },
            slots: self.slots.clone(),
            free: self.free.clone(),
            index: self.index.clone(),
            ephemerals: self.ephemerals.clone(),
            acls: self.acls.clone(),
            quotas: self.quotas.clone(),
            reapable: self.reapable.clone(),
            cuts: Cuts::default(),
            listings: Listings::default(),
            last_restored: LastRestored::default(),
            last_zxid: self.last_zxid,
            is_whole: self.is_whole,
            digest: 0,
            znode_count: self.znode_count,
            ephemerals_count: self.ephemerals_count,
            data_bytes: self.data_bytes,
        }
    }

    /// The znode at `path`; the empty path is an alias of the root's.
    #[must_use]
    pub fn get(&self, path: &str) -> Option<ZnodeRef<'_>> {
        self.znode(self.find(path)?)
    }

    /// Zxid of the last applied txn.
    #[must_use]
    pub const fn last_zxid(&self) -> Zxid {
        self.last_zxid
    }

    /// Whether no txn is applied in part ([`Tree::apply_some`]).
    #[must_use]
    pub const fn is_whole(&self) -> bool {
        self.is_whole
    }

    /// Digest of the whole tree (`quorum-and-disk.md` part 10); 0 when digests are off.
    #[must_use]
    pub const fn digest(&self) -> u64 {
        self.digest
    }

    /// Number of znodes, built-in ones included.
    #[must_use]
    pub const fn znode_count(&self) -> usize {
        self.znode_count
    }

    /// Number of ephemerals.
    #[must_use]
    pub const fn ephemerals_count(&self) -> usize {
        self.ephemerals_count
    }

    /// Bytes of all paths and all data.
    #[must_use]
    pub const fn data_bytes(&self) -> u64 {
        self.data_bytes
    }

    /// Every ACL in use, in an order that does not depend on chance; some that were may be among
    /// them.
    pub fn acls(&self) -> impl Iterator<Item = &Arc<[Acl]>> {
        self.acls.keys()
    }

    /// Number of descendants of `path`, itself not counted.
    #[must_use]
    pub fn descendant_count(&self, path: &str) -> Option<i32> {
        let count = self.slot(self.find(path)?).descendant_count;
        Some(i32::try_from(count).unwrap_or(i32::MAX))
    }

    /// Bound of all slot ids in use.
    pub(super) fn slot_count(&self) -> SlotId {
        self.slots.len()
    }

    pub(super) fn value(&self, id: SlotId) -> Option<&Value> {
        self.slot(id).value.as_ref()
    }

    pub(super) fn parent_slot(&self, id: SlotId) -> SlotId {
        self.slot(id).parent
    }

    pub(super) fn child_count(&self, id: SlotId) -> u32 {
        self.slot(id).child_count
    }

    /// The full path of a slot.
    pub(super) fn path_of(&self, id: SlotId) -> String {
        if id == ROOT {
            return "/".to_owned();
        }
        let mut names = Vec::new();
        let mut at = id;
        while at != ROOT && at != NONE {
            names.push(&*self.slot(at).name);
            at = self.slot(at).parent;
        }
        let mut path = String::new();
        for name in names.into_iter().rev() {
            path.push('/');
            path.push_str(name);
        }
        path
    }

    pub(super) fn find(&self, path: &str) -> Option<SlotId> {
        if self.slots.is_empty() {
            return None;
        }
        if path.is_empty() || path == "/" {
            return Some(ROOT);
        }
        let mut at = ROOT;
        for name in path.strip_prefix('/')?.split('/') {
            at = self.child(at, name)?;
        }
        Some(at)
    }

    fn child(&self, parent: SlotId, name: &str) -> Option<SlotId> {
        self.child_of_hash(hash(parent, name), parent, name)
    }

    /// The child `name`, whose [`hash`] is known.
    pub(super) fn child_of_hash(&self, hash: u64, parent: SlotId, name: &str) -> Option<SlotId> {
        let is_it = |id: &SlotId| {
            let slot = self.slot(*id);
            slot.parent == parent && *slot.name == *name
        };
        self.index.find(hash, is_it)
    }

    /// What values with this ACL and short data share. It stays while a value uses it.
    pub(super) fn intern(&mut self, acl: &[Acl]) -> Shared<Common> {
        if let Some(interned) = self.acls.get(acl) {
            return Shared::clone(&interned.common);
        }
        let acl: Arc<[Acl]> = acl.iter().map(Acl::detached).collect();
        let common = Shared::new(Common { acl: Arc::clone(&acl), place: Place::Here });
        self.acls.insert(acl, Interned { common: Shared::clone(&common), uses: 0 });
        common
    }

    /// How many znodes have an ACL that a snapshot of Apache's did not tell.
    pub fn unknown_acls(&self) -> usize {
        self.acls.get(&[Acl::unknown()][..]).map_or(0, |interned| interned.uses)
    }

    /// A value has this ACL, which was interned before.
    fn use_acl(&mut self, acl: &Arc<[Acl]>) {
        if let Some(interned) = self.acls.get_mut(acl) {
            interned.uses += 1;
        }
    }

    /// Adds a znode whose parent exists and which does not.
    pub(super) fn add(
        &mut self,
        path: &str,
        data: Option<&[u8]>,
        interned: &Shared<Common>,
        stat: StatPersisted,
    ) -> SlotId {
        let parent = path::parent(path).and_then(|parent| self.find(parent));
        let id = match parent {
            Some(parent) if path != "/" => {
                let name = path::name(path);
                self.make_child(hash(parent, name), parent, name)
            }
            _ => self.take_slot(NONE, ""),
        };
        self.fill(id, path, data, interned, stat);
        id
    }

    /// Replaces what a znode is. `path` is its path; `here` is the data if `common` says so.
    pub(super) fn replace(
        &mut self,
        id: SlotId,
        path: &str,
        stat: StatPersisted,
        common: Shared<Common>,
        here: &[u8],
    ) -> Value {
        self.save_for_cuts(id);
        let digest = self.digest_of(path, common.data(here), &stat);
        let new = Value::new(&stat, digest, common, here);
        let old = self.slot_mut(id).value.replace(new.clone());
        if let Some(old) = old {
            self.digest = self.digest.wrapping_sub(u64::from(old.digest()));
            self.data_bytes -= old.data_len() as u64;
            if !Arc::ptr_eq(old.acl(), new.acl()) {
                self.use_acl(new.acl());
                self.release(old.acl());
            }
        }
        self.digest = self.digest.wrapping_add(u64::from(new.digest()));
        self.data_bytes += new.data_len() as u64;
        new
    }

    /// Removes a znode without children.
    pub(super) fn remove(&mut self, id: SlotId, path: &str) {
        assert_eq!(self.slot(id).child_count, 0, "only childless znodes are removed: {path}");
        self.save_for_cuts(id);
        let slot = self.slot(id);
        let parent = slot.parent;
        let hashed = hash(parent, &slot.name);
        self.index.remove(hashed, |other| *other == id);
        self.slot_mut(parent).child_count -= 1;
        self.count_descendant(parent, false);
        let removal = self.keep_for_listings(id, parent);
        if !removal.stays_among_siblings {
            self.leave_siblings(id);
        }
        let slot = self.slot_mut(id);
        let value = slot.value.take();
        self.znode_count -= 1;
        self.data_bytes -= path.len() as u64;
        if let Some(value) = value {
            self.digest = self.digest.wrapping_sub(u64::from(value.digest()));
            self.data_bytes -= value.data_len() as u64;
            self.forget_owner(path, &value.stat());
            self.release(value.acl());
        }
        if !removal.stays {
            self.let_go(id, false);
        }
    }

    /// Gives a removed slot back.
    pub(super) fn let_go(&mut self, id: SlotId, among_siblings: bool) {
        if among_siblings {
            self.leave_siblings(id);
        }
        self.slot_mut(id).name = EcoString::new();
        self.free.push(id);
    }

    fn leave_siblings(&mut self, id: SlotId) {
        let slot = self.slot(id);
        let (parent, next, prev) = (slot.parent, slot.next, slot.prev);
        if prev == NONE {
            self.slot_mut(parent).first_child = next;
        } else {
            self.slot_mut(prev).next = next;
        }
        if next != NONE {
            self.slot_mut(next).prev = prev;
        }
    }

    /// One descendant more or less of a slot and everything above it.
    fn count_descendant(&mut self, parent: SlotId, more: bool) {
        let mut at = parent;
        while at != NONE {
            let slot = self.slot_mut(at);
            let count = slot.descendant_count;
            slot.descendant_count = if more { count + 1 } else { count - 1 };
            at = slot.parent;
        }
    }

    pub(super) fn first_child(&self, id: SlotId) -> SlotId {
        self.slot(id).first_child
    }

    pub(super) fn next_sibling(&self, id: SlotId) -> SlotId {
        self.slot(id).next
    }

    pub(super) fn name(&self, id: SlotId) -> &str {
        &self.slot(id).name
    }

    fn slot(&self, id: SlotId) -> &Slot {
        self.slots.get(id).expect("slot ids come from this tree")
    }

    fn slot_mut(&mut self, id: SlotId) -> &mut Slot {
        self.slots.get_mut(id).expect("slot ids come from this tree")
    }

    pub(super) fn take_slot(&mut self, parent: SlotId, name: &str) -> SlotId {
        let slot = Slot {
            parent,
            next: NONE,
            prev: NONE,
            first_child: NONE,
            child_count: 0,
            descendant_count: 0,
            name: EcoString::from(name),
            value: None,
        };
        if let Some(id) = self.free.pop() {
            self.save_for_cuts(id);
            *self.slot_mut(id) = slot;
            return id;
        }
        let id = self.slots.push(slot);
        assert!(id < NONE, "slot ids are 32 bits");
        id
    }

    /// A new slot for a child that is not there; `hash` is its [`hash`].
    pub(super) fn make_child(&mut self, hashed: u64, parent: SlotId, name: &str) -> SlotId {
        let id = self.take_slot(parent, name);
        let first = self.slot(parent).first_child;
        if first != NONE {
            self.slot_mut(first).prev = id;
        }
        self.slot_mut(id).next = first;
        let slot = self.slot_mut(parent);
        slot.first_child = id;
        slot.child_count += 1;
        self.count_descendant(parent, true);
        let Self { index, slots, .. } = self;
        index.insert(hashed, id, |id| {
            let slot = slots.get(*id).expect("indexed slots exist");
            hash(slot.parent, &slot.name)
        });
        id
    }

    pub(super) fn fill(
        &mut self,
        id: SlotId,
        path: &str,
        data: Option<&[u8]>,
        interned: &Shared<Common>,
        stat: StatPersisted,
    ) {
        let digest = self.digest_of(path, data, &stat);
        self.digest = self.digest.wrapping_add(u64::from(digest));
        self.znode_count += 1;
        self.data_bytes += data.as_ref().map_or(0, |data| data.len() as u64);
        self.data_bytes += path.len() as u64;
        match self.owner(&stat) {
            EphemeralOwner::Session(session) => {
                self.ephemerals_count += 1;
                self.ephemerals.entry(session).or_default().insert(Str::from(path));
            }
            EphemeralOwner::Container | EphemeralOwner::Ttl(_) => {
                self.reapable.insert(Str::from(path));
            }
            EphemeralOwner::Persistent => {}
        }
        let common = Common::of(interned, data);
        self.use_acl(&common.acl);
        let value = Value::new(&stat, digest, common, data.unwrap_or_default());
        self.slot_mut(id).value = Some(value);
    }

    fn digest_of(&self, path: &str, data: Option<&[u8]>, stat: &StatPersisted) -> u32 {
        if self.options.digests { value::digest(path, data, stat) } else { 0 }
    }

    /// A value with this ACL is gone; it leaves the table with the last one.
    fn release(&mut self, acl: &Arc<[Acl]>) {
        let Some(interned) = self.acls.get_mut(acl) else { return };
        interned.uses -= 1;
        if interned.uses == 0 {
            self.acls.remove(acl);
        }
    }
}

/// An ACL in the table.
#[derive(Clone, Debug)]
pub(super) struct Interned {
    common: Shared<Common>,
    /// How many values have it, of whatever place.
    uses: usize,
}

/// With a fixed seed: the same on every run, since nothing visible depends on it.
pub(super) fn hash(parent: SlotId, name: &str) -> u64 {
    let mut hasher = FixedState::default().build_hasher();
    hasher.write_u32(parent);
    hasher.write(name.as_bytes());
    hasher.finish()
}
