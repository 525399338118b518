//! [`Value`]: what a znode is at one moment, immutable and shared.

use std::sync::Arc;

use bytes::BufMut;
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
    let path = if path == "/" { "" } else { path };
    let data = data.unwrap_or_default();
    // At once if it is short, as it mostly is: the checksum of many bytes is the quicker one.
    let mut joined = [0; 512];
    let mut crc = crc32fast::Hasher::new();
    let used = STAT_BYTES + path.len() + data.len();
    match joined.get_mut(..used) {
        Some(mut rest) => {
            rest.put_slice(path.as_bytes());
            rest.put_slice(data);
            put_stat(&mut rest, stat);
            crc.update(joined.get(..used).unwrap_or_default());
        }
        None => {
            crc.update(path.as_bytes());
            crc.update(data);
            put_stat(&mut &mut joined[..], stat);
            crc.update(&joined[..STAT_BYTES]);
        }
    }
    crc.finalize()
}

/// Bytes of a stat in a digest.
const STAT_BYTES: usize = 60;

fn put_stat(out: &mut &mut [u8], stat: &StatPersisted) {
    for long in [stat.czxid.0, stat.mzxid.0, stat.pzxid.0, stat.ctime, stat.mtime] {
        out.put_i64(long);
    }
    for int in [stat.version, stat.cversion, stat.aversion] {
        out.put_i32(int);
    }
    out.put_i64(stat.ephemeral_owner);
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::Zxid;

    #[test]
    fn a_digest_is_the_crc_32_of_path_data_and_stat() {
        let stat = StatPersisted { czxid: Zxid(1), version: 2, ..StatPersisted::default() };
        let fields: Vec<u8> = [&1_i64.to_be_bytes()[..], &[0; 35], &[2], &[0; 16]].concat();
        for len in [0, 1, 100, 449, 450, 451, 512, 5000] {
            let data = vec![7; len];
            let whole = [b"/a", &data[..], &fields].concat();
            assert_eq!(digest("/a", Some(&data), &stat), crc32fast::hash(&whole), "{len} bytes");
        }
        assert_eq!(digest("/", None, &stat), crc32fast::hash(&fields));
        assert_eq!(digest("/zookeeper/quota", None, &stat), 0);
    }
}
