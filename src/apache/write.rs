//! Writing a snapshot as Apache's servers read it, in bounded chunks.

use std::collections::BTreeMap;
use std::sync::Arc;

use adler2::Adler32;
use bytes::{BufMut, Bytes, BytesMut};

use super::compression::{Compression, Deflate};
use super::read::{END_OF_ZNODES, MAGIC, OPEN_ACL, SIGNATURE, SnapshotDigest};
use crate::model::{Acl, SessionId, StatPersisted, Zxid};

/// Turns items into bytes. What is taken with [`SnapshotEncoder::take_chunk`] and
/// [`SnapshotEncoder::finish`], one after the other, is the file.
#[derive(Debug)]
pub struct SnapshotEncoder {
    deflate: Deflate,
    /// The item being written.
    plain: BytesMut,
    /// Of everything written so far.
    adler: Adler32,
    acls: BTreeMap<Arc<[Acl]>, i64>,
}

impl SnapshotEncoder {
    /// Begins with the sessions and with every ACL that a znode will have.
    #[must_use]
    pub fn new(
        compression: Compression,
        sessions: &[(SessionId, i32)],
        acls: impl IntoIterator<Item = Arc<[Acl]>>,
    ) -> Self {
        let mut encoder = Self::empty(compression);
        encoder.plain.put_slice(MAGIC);
        encoder.plain.put_i32(VERSION);
        encoder.plain.put_i64(DATABASE_ID);
        encoder.begin(sessions, acls);
        encoder
    }

    /// Begins what follows a SNAP packet. End it with [`SnapshotEncoder::finish_stream`].
    #[must_use]
    pub fn for_stream(
        sessions: &[(SessionId, i32)],
        acls: impl IntoIterator<Item = Arc<[Acl]>>,
    ) -> Self {
        let mut encoder = Self::empty(Compression::None);
        encoder.begin(sessions, acls);
        encoder
    }

    fn empty(compression: Compression) -> Self {
        Self {
            deflate: Deflate::new(compression),
            plain: BytesMut::new(),
            adler: Adler32::new(),
            acls: BTreeMap::new(),
        }
    }

    fn begin(&mut self, sessions: &[(SessionId, i32)], acls: impl IntoIterator<Item = Arc<[Acl]>>) {
        let plain = &mut self.plain;
        put_len(plain, sessions.len());
        for (id, timeout_ms) in sessions {
            plain.put_i64(id.0);
            plain.put_i32(*timeout_ms);
        }
        let mut next = 1;
        for acl in acls {
            if *acl != [Acl::open()] && !self.acls.contains_key(&acl) {
                self.acls.insert(acl, next);
                next += 1;
            }
        }
        put_len(plain, self.acls.len());
        for (acl, number) in &self.acls {
            plain.put_i64(*number);
            put_len(plain, acl.len());
            for entry in acl.iter() {
                plain.put_i32(entry.perms.0);
                put_buffer(plain, Some(entry.id.scheme.as_bytes()));
                put_buffer(plain, Some(entry.id.id.as_bytes()));
            }
        }
        self.flush();
    }

    /// Adds a znode: the root first, parents before their children.
    ///
    /// # Panics
    /// If its ACL is not among those given at the start.
    pub fn znode(&mut self, path: &str, data: Option<&[u8]>, acl: &[Acl], stat: &StatPersisted) {
        let number = match self.acls.get(acl) {
            Some(number) => *number,
            None => {
                assert_eq!(acl, [Acl::open()], "every ACL is given at the start");
                OPEN_ACL
            }
        };
        let plain = &mut self.plain;
        let path = if path == "/" { "" } else { path };
        put_buffer(plain, Some(path.as_bytes()));
        put_buffer(plain, data);
        plain.put_i64(number);
        for long in [stat.czxid.0, stat.mzxid.0, stat.ctime, stat.mtime] {
            plain.put_i64(long);
        }
        for int in [stat.version, stat.cversion, stat.aversion] {
            plain.put_i32(int);
        }
        plain.put_i64(stat.ephemeral_owner);
        plain.put_i64(stat.pzxid.0);
        self.flush();
    }

    /// Bytes that are ready, if they are at least so many.
    pub fn take_chunk(&mut self, min_bytes: usize) -> Option<Bytes> {
        (min_bytes.max(1) <= self.deflate.ready_bytes()).then(|| self.deflate.take())
    }

    /// Ends the snapshot: the last bytes. Which sections a server expects depends on its version
    /// and settings (the module's documentation).
    #[must_use]
    pub fn finish(mut self, digest: Option<SnapshotDigest>, last_zxid: Option<Zxid>) -> Bytes {
        put_buffer(&mut self.plain, Some(END_OF_ZNODES.as_bytes()));
        self.seal();
        if let Some(digest) = digest {
            self.plain.put_i64(digest.zxid.0);
            self.plain.put_i32(digest.version);
            self.plain.put_u64(digest.digest);
            self.seal();
        }
        if let Some(zxid) = last_zxid {
            self.plain.put_i64(zxid.0);
            self.seal();
        }
        self.deflate.finish()
    }

    /// Ends what follows a SNAP packet: the last bytes.
    #[must_use]
    pub fn finish_stream(mut self) -> Bytes {
        put_buffer(&mut self.plain, Some(END_OF_ZNODES.as_bytes()));
        put_buffer(&mut self.plain, Some(SIGNATURE.as_bytes()));
        self.flush();
        self.deflate.finish()
    }

    fn seal(&mut self) {
        self.flush();
        self.plain.put_i64(i64::from(self.adler.checksum()));
        put_buffer(&mut self.plain, Some(END_OF_ZNODES.as_bytes()));
        self.flush();
    }

    fn flush(&mut self) {
        self.adler.write_slice(&self.plain);
        self.deflate.feed(&self.plain);
        self.plain.clear();
    }
}

fn put_len(buf: &mut BytesMut, len: usize) {
    buf.put_i32(i32::try_from(len).expect("counts and accepted values are below 2 GiB"));
}

fn put_buffer(buf: &mut BytesMut, bytes: Option<&[u8]>) {
    match bytes {
        Some(bytes) => {
            put_len(buf, bytes.len());
            buf.put_slice(bytes);
        }
        None => buf.put_i32(-1),
    }
}

const VERSION: i32 = 2;
const DATABASE_ID: i64 = -1;
