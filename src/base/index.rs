//! [`Index`]: a hash index that grows a little at a time: extendible hashing over small tables.
//! Doubling one large table would stall every shard at the same zxid (1.4 s at seven million
//! entries); here a split moves at most one bucket.

use hashbrown::HashTable;

/// Entries of one bucket before it is split: three quarters of what its table holds at 1,024.
const BUCKET_ENTRIES_MAX: usize = 768;
/// Splitting stops here, so that equal hashes cannot make it go on for ever.
const DEPTH_MAX: u32 = 26;
/// The directory uses other bits than the tables' own.
const DIRECTORY_SHIFT: u32 = 16;

/// Maps hashes to ids of things that the caller keeps. Equality and hashes are the caller's.
#[derive(Clone, Debug)]
pub struct Index {
    directory: Vec<u32>,
    depth: u32,
    buckets: Vec<Bucket>,
}

#[derive(Clone, Debug, Default)]
struct Bucket {
    table: HashTable<u32>,
    depth: u32,
}

impl Default for Index {
    fn default() -> Self {
        Self { directory: vec![0], depth: 0, buckets: vec![Bucket::default()] }
    }
}

impl Index {
    /// The id with this hash for which `eq` holds.
    pub fn find(&self, hash: u64, eq: impl FnMut(&u32) -> bool) -> Option<u32> {
        self.buckets.get(self.bucket_of(hash))?.table.find(hash, eq).copied()
    }

    /// Adds an entry that is not there yet. `rehash` gives the hash of any entry.
    pub fn insert(&mut self, hash: u64, id: u32, rehash: impl Fn(&u32) -> u64) {
        while self.is_full(hash) {
            self.split(hash, &rehash);
        }
        let at = self.bucket_of(hash);
        if let Some(bucket) = self.buckets.get_mut(at) {
            bucket.table.insert_unique(hash, id, rehash);
        }
    }

    /// Removes the entry with this hash for which `eq` holds, if there is one.
    pub fn remove(&mut self, hash: u64, eq: impl FnMut(&u32) -> bool) {
        let at = self.bucket_of(hash);
        let Some(bucket) = self.buckets.get_mut(at) else { return };
        if let Ok(entry) = bucket.table.find_entry(hash, eq) {
            entry.remove();
        }
    }

    fn bucket_of(&self, hash: u64) -> usize {
        self.directory.get(low_bits(hash, self.depth)).map_or(0, |bucket| *bucket as usize)
    }

    fn is_full(&self, hash: u64) -> bool {
        let bucket = self.buckets.get(self.bucket_of(hash));
        bucket.is_some_and(|bucket| {
            BUCKET_ENTRIES_MAX <= bucket.table.len() && bucket.depth < DEPTH_MAX
        })
    }

    /// Splits the bucket of `hash`. Both halves get tables that fit them.
    fn split(&mut self, hash: u64, rehash: &impl Fn(&u32) -> u64) {
        let at = self.bucket_of(hash);
        let new = u32::try_from(self.buckets.len()).expect("far fewer buckets than entries");
        let Some(bucket) = self.buckets.get_mut(at) else { return };
        if bucket.depth == self.depth {
            self.directory.extend_from_within(..);
            self.depth += 1;
        }
        let bit = 1_usize << bucket.depth;
        let goes = |id: &u32| low_bits(rehash(id), DEPTH_MAX) & bit != 0;
        let moved: Vec<u32> = bucket.table.extract_if(|id| goes(id)).collect();
        bucket.table.shrink_to(0, rehash);
        let first = low_bits(hash, bucket.depth) | bit;
        bucket.depth += 1;
        let depth = bucket.depth;
        let mut table = HashTable::with_capacity(moved.len());
        for id in moved {
            table.insert_unique(rehash(&id), id, rehash);
        }
        self.buckets.push(Bucket { table, depth });
        for entry in self.directory.iter_mut().skip(first).step_by(1 << depth) {
            *entry = new;
        }
    }
}

/// The directory's bits of a hash, `count` of them.
fn low_bits(hash: u64, count: u32) -> usize {
    let mask = (1_u64 << count) - 1;
    usize::try_from((hash >> DIRECTORY_SHIFT) & mask).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_grows_a_bucket_at_a_time() {
        let mut index = Index::default();
        let hash = |id: &u32| u64::from(*id).wrapping_mul(0x9e37_79b9_7f4a_7c15);
        let bounded = |index: &Index| {
            index.buckets.iter().all(|bucket| bucket.table.len() <= BUCKET_ENTRIES_MAX)
        };
        for id in 0..50_000 {
            index.insert(hash(&id), id, hash);
            assert!(bounded(&index), "at {id}");
        }
        for id in 0..50_000 {
            assert_eq!(index.find(hash(&id), |other| *other == id), Some(id));
            index.remove(hash(&id), |other| *other == id);
            assert_eq!(index.find(hash(&id), |other| *other == id), None);
        }
    }
}
