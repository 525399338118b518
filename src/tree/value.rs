//! [`Value`]: what a znode is at one moment, immutable and shared.

use std::sync::Arc;

use bytes::BufMut;
/// Shares what is long of a value. Without a count of weak owners, which nothing here needs, it is
/// 8 bytes smaller than the standard library's, each.
pub use triomphe::Arc as Shared;
use triomphe::ThinArc;

use crate::model::{Acl, StatPersisted, Zxid};

/// Data of at most this many bytes stand in the value itself. A change of the stat copies them;
/// longer ones are shared by all values of a znode that have the same.
const HERE_BYTES_MAX: usize = 512;

/// Data, ACL and stat of a znode: one pointer to one allocation, unless the data is long. A change
/// makes a new value.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Value(ThinArc<Head, u8>);

/// A stat and a digest without gaps, so that a value with 100 bytes of data takes 192.
#[derive(Debug, PartialEq, Eq)]
struct Head {
    czxid: Zxid,
    mzxid: Zxid,
    pzxid: Zxid,
    ctime: i64,
    mtime: i64,
    ephemeral_owner: i64,
    version: i32,
    cversion: i32,
    aversion: i32,
    digest: u32,
    common: Shared<Common>,
}

const _: () = assert!(size_of::<Head>() == 72);

/// What a value shares with others: that of short data with all that have its ACL.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Common {
    pub(super) acl: Arc<[Acl]>,
    pub(super) place: Place,
}

/// Where a value's data is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Place {
    /// It is null, which is not empty.
    Null,
    /// In the value.
    Here,
    /// Somewhere else, since it is long.
    There(Shared<[u8]>),
}

impl Common {
    /// For a value with this data, and the ACL of `interned`, which is shared if the data is short.
    pub(super) fn of(interned: &Shared<Self>, data: Option<&[u8]>) -> Shared<Self> {
        let place = match data {
            None => Place::Null,
            Some(short) if short.len() <= HERE_BYTES_MAX => return Shared::clone(interned),
            Some(long) => Place::There(Shared::from(long)),
        };
        Shared::new(Self { acl: Arc::clone(&interned.acl), place })
    }

    /// The data of a value whose own bytes are `here`.
    pub(super) fn data<'a>(&'a self, here: &'a [u8]) -> Option<&'a [u8]> {
        match &self.place {
            Place::Null => None,
            Place::Here => Some(here),
            Place::There(data) => Some(data),
        }
    }
}

impl Value {
    /// `here` is the data if that is its place, and else not looked at.
    pub(super) fn new(
        stat: &StatPersisted,
        digest: u32,
        common: Shared<Common>,
        here: &[u8],
    ) -> Self {
        let here = if common.place == Place::Here { here } else { &[] };
        let head = Head {
            czxid: stat.czxid,
            mzxid: stat.mzxid,
            pzxid: stat.pzxid,
            ctime: stat.ctime,
            mtime: stat.mtime,
            ephemeral_owner: stat.ephemeral_owner,
            version: stat.version,
            cversion: stat.cversion,
            aversion: stat.aversion,
            digest,
            common,
        };
        Self(ThinArc::from_header_and_slice(head, here))
    }

    fn head(&self) -> &Head {
        &self.0.header.header
    }

    /// Stored stat.
    #[must_use]
    pub fn stat(&self) -> StatPersisted {
        let head = self.head();
        StatPersisted {
            czxid: head.czxid,
            mzxid: head.mzxid,
            pzxid: head.pzxid,
            ctime: head.ctime,
            mtime: head.mtime,
            version: head.version,
            cversion: head.cversion,
            aversion: head.aversion,
            ephemeral_owner: head.ephemeral_owner,
        }
    }

    /// The ACL, shared by all znodes with the same one.
    #[must_use]
    pub fn acl(&self) -> &Arc<[Acl]> {
        &self.head().common.acl
    }

    /// The data; `None` is null, which is not empty.
    #[must_use]
    pub fn data(&self) -> Option<&[u8]> {
        self.head().common.data(self.here())
    }

    /// CRC-32 of path, data and stat, if digests are on and the path counts; otherwise 0.
    pub(super) fn digest(&self) -> u32 {
        self.head().digest
    }

    pub(super) fn common(&self) -> &Shared<Common> {
        &self.head().common
    }

    /// The bytes that stand in the value itself.
    pub(super) fn here(&self) -> &[u8] {
        &self.0.slice
    }

    /// Bytes of data; 0 for null.
    pub(super) fn data_len(&self) -> usize {
        self.data().map_or(0, <[u8]>::len)
    }
}

/// The digest of one znode (`quorum-and-disk.md` part 10); 0 below `/zookeeper/`. The root counts
/// with an empty path. A tree's digest is the sum, modulo 2^64, of those of its znodes.
#[must_use]
pub fn digest(path: &str, data: Option<&[u8]>, stat: &StatPersisted) -> u32 {
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
