//! Writing a snapshot in bounded chunks.

use std::collections::BTreeMap;
use std::sync::Arc;

use bytes::{BufMut, Bytes, BytesMut};

use super::block::{Kind, seal};
use crate::base::WallMs;
use crate::limits::SNAPSHOT_BLOCK_BYTES_TARGET;
use crate::model::{Acl, SessionId, StatPersisted, Zxid};

/// Turns items into blocks. What is taken with [`SnapshotEncoder::take_chunk`] and
/// [`SnapshotEncoder::finish`], one after the other, is the file.
#[derive(Debug)]
pub struct SnapshotEncoder {
    sealed: BytesMut,
    open: BytesMut,
    acls: BTreeMap<Arc<[Acl]>, u32>,
    session_count: u64,
    znode_count: u64,
    sequence: u32,
    chain: u32,
}

/// Format version written.
pub(super) const VERSION: u32 = 1;
/// Item tags.
pub(super) const SESSION: u8 = 1;
pub(super) const ACL: u8 = 2;
pub(super) const ZNODE: u8 = 3;

impl SnapshotEncoder {
    /// A snapshot of the state at `zxid`.
    #[must_use]
    pub fn new(zxid: Zxid, wall: WallMs) -> Self {
        let mut encoder = Self {
            sealed: BytesMut::new(),
            open: BytesMut::new(),
            acls: BTreeMap::new(),
            session_count: 0,
            znode_count: 0,
            sequence: 0,
            chain: 0,
        };
        encoder.open.put_u32(VERSION);
        encoder.open.put_i64(zxid.0);
        encoder.open.put_i64(wall.0);
        encoder.seal(Kind::Header);
        encoder
    }

    /// Adds a session.
    pub fn session(&mut self, id: SessionId, timeout_ms: i32) {
        self.open.put_u8(SESSION);
        self.open.put_i64(id.0);
        self.open.put_i32(timeout_ms);
        self.session_count += 1;
        self.seal_if_full();
    }

    /// Adds a znode, and its ACL if it is the first with it.
    pub fn znode(
        &mut self,
        path: &str,
        data: Option<&[u8]>,
        acl: &Arc<[Acl]>,
        stat: &StatPersisted,
    ) {
        let number = self.acl_number(acl);
        let open = &mut self.open;
        open.put_u8(ZNODE);
        put_bytes(open, Some(path.as_bytes()));
        put_bytes(open, data);
        open.put_u32(number);
        for long in [stat.czxid.0, stat.mzxid.0, stat.pzxid.0, stat.ctime, stat.mtime] {
            open.put_i64(long);
        }
        for int in [stat.version, stat.cversion, stat.aversion] {
            open.put_i32(int);
        }
        open.put_i64(stat.ephemeral_owner);
        self.znode_count += 1;
        self.seal_if_full();
    }

    /// Whole blocks that are ready, if they are at least `min_bytes` long.
    pub fn take_chunk(&mut self, min_bytes: usize) -> Option<Bytes> {
        let ready = min_bytes <= self.sealed.len() && !self.sealed.is_empty();
        ready.then(|| self.sealed.split().freeze())
    }

    /// Bytes of whole blocks that are ready.
    #[must_use]
    pub fn ready_bytes(&self) -> usize {
        self.sealed.len()
    }

    /// Ends the snapshot: the last blocks. `digest` is the tree's at the cut.
    pub fn finish(&mut self, digest: u64) -> Bytes {
        self.end(digest, None)
    }

    /// Ends a snapshot that may show txns behind its zxid, and shows some up to `until`. `digest`
    /// is that of the znodes that were added.
    pub fn finish_fuzzy(&mut self, digest: u64, until: Zxid) -> Bytes {
        self.end(digest, Some(until))
    }

    fn end(&mut self, digest: u64, fuzzy_until: Option<Zxid>) -> Bytes {
        if !self.open.is_empty() {
            self.seal(Kind::Items);
        }
        self.open.put_u64(self.session_count);
        self.open.put_u64(self.acls.len() as u64);
        self.open.put_u64(self.znode_count);
        self.open.put_u64(digest);
        if let Some(until) = fuzzy_until {
            self.open.put_i64(until.0);
        }
        self.seal(Kind::End);
        self.sealed.split().freeze()
    }

    fn acl_number(&mut self, acl: &Arc<[Acl]>) -> u32 {
        if let Some(number) = self.acls.get(acl) {
            return *number;
        }
        let number = u32::try_from(self.acls.len()).expect("ACLs are fewer than znodes");
        self.acls.insert(Arc::clone(acl), number);
        let open = &mut self.open;
        open.put_u8(ACL);
        open.put_u32(number);
        open.put_i32(i32::try_from(acl.len()).expect("ACLs fit a frame"));
        for entry in acl.iter() {
            open.put_i32(entry.perms.0);
            put_bytes(open, Some(entry.id.scheme.as_bytes()));
            put_bytes(open, Some(entry.id.id.as_bytes()));
        }
        number
    }

    fn seal_if_full(&mut self) {
        if SNAPSHOT_BLOCK_BYTES_TARGET <= self.open.len() {
            self.seal(Kind::Items);
        }
    }

    fn seal(&mut self, kind: Kind) {
        self.chain = seal(&mut self.sealed, kind, self.sequence, self.chain, &self.open);
        self.sequence += 1;
        self.open.clear();
    }
}

fn put_bytes(buf: &mut BytesMut, bytes: Option<&[u8]>) {
    match bytes {
        Some(bytes) => {
            buf.put_i32(i32::try_from(bytes.len()).expect("values fit a frame"));
            buf.put_slice(bytes);
        }
        None => buf.put_i32(-1),
    }
}
