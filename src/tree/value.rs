//! [`Value`]: what a znode is at one moment, immutable and shared.

use std::sync::Arc;

/// Shares values and their data. Without a count of weak owners, which nothing here needs, it is 8
/// bytes smaller than the standard library's, each.
pub use triomphe::Arc as Shared;

use crate::model::{Acl, StatPersisted};

/// Data, ACL and stat of a znode. A change makes a new value.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Value {
    /// Stored stat.
    pub stat: StatPersisted,
    /// CRC-32 of path, data and stat, if digests are on and the path counts; otherwise 0.
    pub digest: u32,
    /// The ACL, shared by all znodes with the same one.
    pub acl: Arc<[Acl]>,
    /// The data; `None` is null, which is not empty.
    pub data: Option<Shared<[u8]>>,
}

impl Value {
    /// Bytes of data; 0 for null.
    pub(super) fn data_len(&self) -> i64 {
        self.data.as_ref().map_or(0, |data| data.len() as i64)
    }
}

/// The digest of one znode (`quorum-and-disk.md` part 10); 0 below `/zookeeper/`. The root counts
/// with an empty path.
#[must_use]
pub(super) fn digest(path: &str, data: Option<&[u8]>, stat: &StatPersisted) -> u32 {
    if path.starts_with("/zookeeper/") {
        return 0;
    }
    let mut crc = crc32fast::Hasher::new();
    crc.update(if path == "/" { b"" } else { path.as_bytes() });
    crc.update(data.unwrap_or_default());
    let mut fields = [0; 60];
    let longs = [stat.czxid.0, stat.mzxid.0, stat.pzxid.0, stat.ctime, stat.mtime];
    let ints = [stat.version, stat.cversion, stat.aversion];
    let bytes = longs
        .iter()
        .flat_map(|long| long.to_be_bytes())
        .chain(ints.iter().flat_map(|int| int.to_be_bytes()))
        .chain(stat.ephemeral_owner.to_be_bytes());
    fields.iter_mut().zip(bytes).for_each(|(to, from)| *to = from);
    crc.update(&fields);
    crc.finalize()
}
