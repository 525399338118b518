//! [`Index`]: a hash index that grows a little at a time: linear hashing over small tables.
//! Doubling one large table would stall every shard at the same zxid (1.4 s at seven million
//! entries). Here the buckets are split one after the other, each time a bucket's worth of entries
//! has come, whichever bucket they went into: so splits never come together either.

use hashbrown::HashTable;

use super::Pages;

/// Entries for each bucket. A bucket that waits for its split has up to twice as many, give or
/// take 100, which a table of 512 places holds.
const BUCKET_ENTRIES: usize = 175;
/// Buckets are chosen by other bits of a hash than places in their tables.
const BUCKET_SHIFT: u32 = 16;

/// Maps hashes to ids of things that the caller keeps. Equality and hashes are the caller's.
#[derive(Clone, Debug)]
pub struct Index {
    buckets: Pages<HashTable<u32>>,
    len: usize,
}

impl Default for Index {
    fn default() -> Self {
        let mut buckets = Pages::default();
        buckets.push(HashTable::new());
        Self { buckets, len: 0 }
    }
}

impl Index {
    /// The id with this hash for which `eq` holds.
    pub fn find(&self, hash: u64, eq: impl FnMut(&u32) -> bool) -> Option<u32> {
        self.buckets.get(self.bucket_of(hash))?.find(hash, eq).copied()
    }

    /// Adds an entry that is not there yet. `rehash` gives the hash of any entry; it is asked for
    /// those entries that are moved.
    pub fn insert(&mut self, hash: u64, id: u32, rehash: impl Fn(&u32) -> u64) {
        if self.buckets.len() as usize * BUCKET_ENTRIES <= self.len {
            self.split_next(&rehash);
        }
        let at = self.bucket_of(hash);
        if let Some(table) = self.buckets.get_mut(at) {
            table.insert_unique(hash, id, rehash);
            self.len += 1;
        }
    }

    /// Makes the buckets that this many entries will need, so that none of them is split or grows
    /// on the way there. Only if there is no entry yet.
    pub fn reserve(&mut self, count: usize) {
        let wanted = u32::try_from(count / BUCKET_ENTRIES).unwrap_or(u32::MAX);
        if self.len != 0 || wanted <= self.buckets.len() {
            return;
        }
        let whole = 1 << wanted.ilog2();
        let waiting = wanted - whole..whole;
        self.buckets = Pages::default();
        for at in 0..wanted {
            let share = count / whole as usize;
            let share = if waiting.contains(&at) { share } else { share / 2 };
            self.buckets.push(HashTable::with_capacity(share + share / 8));
        }
    }

    /// Removes the entry with this hash for which `eq` holds, if there is one.
    pub fn remove(&mut self, hash: u64, eq: impl FnMut(&u32) -> bool) {
        let at = self.bucket_of(hash);
        let Some(table) = self.buckets.get_mut(at) else { return };
        if let Ok(entry) = table.find_entry(hash, eq) {
            entry.remove();
            self.len -= 1;
        }
    }

    /// With 2^n + k buckets, the first k and the last k have been told apart by one bit more than
    /// the others, which wait for their split.
    fn bucket_of(&self, hash: u64) -> u32 {
        let count = self.buckets.len();
        let bits = (hash >> BUCKET_SHIFT) as u32 & (count.next_power_of_two() - 1);
        if bits < count { bits } else { bits & ((count.next_power_of_two() >> 1) - 1) }
    }

    /// Splits the bucket whose turn it is. Both halves get tables that fit them.
    fn split_next(&mut self, rehash: &impl Fn(&u32) -> u64) {
        let new = self.buckets.len();
        let split = new & !(1 << new.ilog2());
        let Some(table) = self.buckets.get_mut(split).map(std::mem::take) else { return };
        self.buckets.push(HashTable::new());
        let hashed = table.into_iter().map(|id| (rehash(&id), id));
        let (stay, go): (Vec<_>, Vec<_>) =
            hashed.partition(|(hash, _)| self.bucket_of(*hash) == split);
        for (at, entries) in [(split, stay), (new, go)] {
            let mut table = HashTable::with_capacity(entries.len());
            for (hash, id) in entries {
                table.insert_unique(hash, id, rehash);
            }
            if let Some(place) = self.buckets.get_mut(at) {
                *place = table;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::cell::Cell;

    use super::*;

    fn hash(id: u32) -> u64 {
        let mixed = u64::from(id).wrapping_mul(0x9e37_79b9_7f4a_7c15);
        (mixed ^ (mixed >> 32)).wrapping_mul(0xd6e8_feb8_6659_fd93)
    }

    #[test]
    fn what_was_added_is_found_until_it_is_removed() {
        let mut index = Index::default();
        let has = |index: &Index, id| index.find(hash(id), |other| *other == id) == Some(id);
        for id in 0..50_000 {
            index.insert(hash(id), id, |id| hash(*id));
            assert!(has(&index, id) && has(&index, id / 2), "at {id}");
        }
        for id in 0..50_000 {
            assert!(has(&index, id));
            index.remove(hash(id), |other| *other == id);
            assert!(!has(&index, id));
        }
        assert_eq!(index.len, 0);
    }

    #[test]
    fn what_was_reserved_is_not_moved() {
        for count in [0, 1, 174, 175, 1_000, 100_000, 179_200, 179_199, 250_000] {
            let (mut index, moved) = (Index::default(), Cell::new(0));
            index.reserve(count);
            for id in 0..count as u32 {
                index.insert(hash(id), id, |id| {
                    moved.set(moved.get() + 1);
                    hash(*id)
                });
            }
            assert!(moved.get() <= 2 * BUCKET_ENTRIES + count / 20, "{} of {count}", moved.get());
            index.reserve(2 * count);
            let found = |id| index.find(hash(id), |other| *other == id) == Some(id);
            assert!((0..count as u32).all(found) && index.len == count, "{count}");
        }
    }

    #[test]
    fn no_insertion_moves_a_thousand_entries_and_no_turn_much_more() {
        let (mut index, moved) = (Index::default(), Cell::new(0));
        let mut turn = std::collections::VecDeque::from(vec![0; 512]);
        for id in 0..1_000_000 {
            moved.set(0);
            index.insert(hash(id), id, |id| {
                moved.set(moved.get() + 1);
                hash(*id)
            });
            assert!(moved.get() <= 1_000, "{} at {id}", moved.get());
            turn.push_back(moved.get());
            turn.pop_front();
            let of_turn: usize = if id % 64 == 0 { turn.iter().sum() } else { 0 };
            assert!(of_turn <= 10_000, "{of_turn} at {id}");
        }
    }

    #[test]
    fn equal_hashes_are_told_apart_by_the_caller() {
        let mut index = Index::default();
        for id in 0..5_000 {
            index.insert(7, id, |_| 7);
        }
        assert_eq!(index.find(7, |other| *other == 4_321), Some(4_321));
        index.remove(7, |other| *other == 4_321);
        assert_eq!(index.find(7, |other| *other == 4_321), None);
    }
}
