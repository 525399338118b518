//! A hash index that grows a little at a time: extendible hashing over small tables. Doubling one
//! large table would stall every shard at the same zxid (1.4 s at seven million entries); here a
//! split moves at most one bucket.

use hashbrown::HashTable;

/// Entries of one bucket before it is split: three quarters of what its table holds at 1,024.
const BUCKET_ENTRIES_MAX: usize = 768;
/// Splitting stops here, so that equal hashes cannot make it go on for ever.
const DEPTH_MAX: u32 = 26;
/// The directory uses other bits than the tables' own.
const DIRECTORY_SHIFT: u32 = 16;

/// Maps hashes to slot ids. Equality and hashes are the caller's.
#[derive(Clone, Debug)]
pub(super) struct Index {
    directory: Vec<u32>,
    depth: u32,
    buckets: Vec<Bucket>,
}

#[derive(Clone, Debug, Default)]
struct Bucket {
    table: HashTable<u32>,
    depth: u32,
}

impl Index {
    pub(super) fn new() -> Self {
        Self { directory: vec![0], depth: 0, buckets: vec![Bucket::default()] }
    }

    pub(super) fn find(&self, hash: u64, eq: impl FnMut(&u32) -> bool) -> Option<u32> {
        self.buckets.get(self.bucket_of(hash))?.table.find(hash, eq).copied()
    }

    /// Adds an entry that is not there yet. `rehash` gives the hash of any entry.
    pub(super) fn insert(&mut self, hash: u64, id: u32, rehash: impl Fn(&u32) -> u64) {
        while self.is_full(hash) {
            self.split(self.bucket_of(hash), &rehash);
        }
        let at = self.bucket_of(hash);
        if let Some(bucket) = self.buckets.get_mut(at) {
            bucket.table.insert_unique(hash, id, rehash);
        }
    }

    pub(super) fn remove(&mut self, hash: u64, eq: impl FnMut(&u32) -> bool) {
        let at = self.bucket_of(hash);
        let Some(bucket) = self.buckets.get_mut(at) else { return };
        if let Ok(entry) = bucket.table.find_entry(hash, eq) {
            entry.remove();
        }
    }

    fn bucket_of(&self, hash: u64) -> usize {
        let mask = (1_u64 << self.depth) - 1;
        let at = usize::try_from((hash >> DIRECTORY_SHIFT) & mask).unwrap_or_default();
        self.directory.get(at).map_or(0, |bucket| *bucket as usize)
    }

    fn is_full(&self, hash: u64) -> bool {
        let bucket = self.buckets.get(self.bucket_of(hash));
        bucket.is_some_and(|bucket| {
            BUCKET_ENTRIES_MAX <= bucket.table.len() && bucket.depth < DEPTH_MAX
        })
    }

    fn split(&mut self, at: usize, rehash: &impl Fn(&u32) -> u64) {
        let Some(bucket) = self.buckets.get_mut(at) else { return };
        if bucket.depth == self.depth {
            self.directory.extend_from_within(..);
            self.depth += 1;
        }
        let bit = 1_u64 << bucket.depth;
        let depth = bucket.depth + 1;
        bucket.depth = depth;
        let goes = |id: &u32| (rehash(id) >> DIRECTORY_SHIFT) & bit != 0;
        let moved: Vec<u32> = bucket.table.extract_if(|id| goes(id)).collect();
        let mut table = HashTable::with_capacity(moved.len());
        for id in moved {
            table.insert_unique(rehash(&id), id, rehash);
        }
        let new = u32::try_from(self.buckets.len()).expect("far fewer buckets than slots");
        self.buckets.push(Bucket { table, depth });
        for (position, entry) in self.directory.iter_mut().enumerate() {
            if *entry as usize == at && position as u64 & bit != 0 {
                *entry = new;
            }
        }
    }

    /// Whether no bucket holds more than one operation may move.
    #[cfg(test)]
    pub(super) fn largest_bucket_bounded(&self) -> bool {
        self.buckets.iter().all(|bucket| bucket.table.len() <= BUCKET_ENTRIES_MAX)
    }
}
