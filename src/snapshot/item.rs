//! What blocks hold, decoded: header, items, end. The layouts are drawn in `src/docs/snapshot.md`.

use std::collections::BTreeMap;
use std::sync::Arc;

use bytes::{Buf, Bytes};

use super::write::{ACL, SESSION, VERSION, ZNODE};
use crate::base::{Str, WallMs};
use crate::model::{Acl, Id, Perms, SessionId, StatPersisted, Zxid};

/// Length of the end block's payload.
pub(super) const END_BYTES: usize = 32;
/// That of a fuzzy snapshot.
const FUZZY_END_BYTES: usize = END_BYTES + 8;
/// Length of a znode without path and data: tag, two lengths, ACL, stat.
pub(super) const ZNODE_BYTES_MIN: u64 = 1 + 4 + 4 + 4 + 60;

/// One item.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum SnapshotItem {
    /// A session.
    Session {
        /// Its id.
        id: SessionId,
        /// Its timeout, ms.
        timeout_ms: i32,
    },
    /// A znode.
    Znode {
        /// Its path.
        path: Str,
        /// Its data.
        data: Option<Bytes>,
        /// Its ACL.
        acl: Arc<[Acl]>,
        /// Its stored stat.
        stat: StatPersisted,
    },
}

/// What the snapshot says of itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SnapshotSummary {
    /// The state's zxid.
    pub zxid: Zxid,
    /// When it was taken.
    pub wall: WallMs,
    /// Sessions in it.
    pub session_count: u64,
    /// Different ACLs in it.
    pub acl_count: u64,
    /// Znodes in it.
    pub znode_count: u64,
    /// Digest of the tree; 0 if digests were off.
    pub digest: u64,
    /// It was received from a server that went on meanwhile: it may show txns behind its zxid, and
    /// shows some up to here. `None` if it is exact.
    pub fuzzy_until: Option<Zxid>,
}

impl SnapshotSummary {
    /// Reads the end block's payload.
    pub(super) fn decode(
        (zxid, wall): (Zxid, WallMs),
        mut payload: &[u8],
    ) -> Result<Self, &'static str> {
        if payload.len() != END_BYTES && payload.len() != FUZZY_END_BYTES {
            return Err("the end block has another length");
        }
        Ok(Self {
            zxid,
            wall,
            session_count: payload.get_u64(),
            acl_count: payload.get_u64(),
            znode_count: payload.get_u64(),
            digest: payload.get_u64(),
            fuzzy_until: payload.has_remaining().then(|| Zxid(payload.get_i64())),
        })
    }
}

/// Reads the header block's payload.
pub(super) fn decode_header(mut payload: &[u8]) -> Result<(Zxid, WallMs), &'static str> {
    if payload.len() != 20 {
        return Err("the header has another length");
    }
    if payload.get_u32() != VERSION {
        return Err("the format version is another one");
    }
    Ok((Zxid(payload.get_i64()), WallMs(payload.get_i64())))
}

/// Takes items off payloads, and remembers the ACLs that later znodes refer to.
#[derive(Debug, Default)]
pub(super) struct ItemDecoder {
    acls: BTreeMap<i32, Arc<[Acl]>>,
    session_count: u64,
    znode_count: u64,
    /// Blocks were passed over: ACLs may be absent.
    pub(super) lenient: bool,
}

impl ItemDecoder {
    /// Whether what was taken is what the end block counts.
    pub(super) fn counted(&self, summary: &SnapshotSummary) -> bool {
        self.session_count == summary.session_count
            && self.acls.len() as u64 == summary.acl_count
            && self.znode_count == summary.znode_count
    }

    /// `None`: does not decode. `Some(None)`: an ACL, which is kept.
    pub(super) fn next_item(&mut self, items: &mut Bytes) -> Option<Option<SnapshotItem>> {
        match take_u8(items)? {
            SESSION => {
                self.session_count += 1;
                let id = SessionId(take_i64(items)?);
                Some(Some(SnapshotItem::Session { id, timeout_ms: take_i32(items)? }))
            }
            ACL => self.acl(items).map(|()| None),
            ZNODE => self.znode(items).map(Some),
            _ => None,
        }
    }

    fn acl(&mut self, items: &mut Bytes) -> Option<()> {
        let number = take_i32(items)?;
        if usize::try_from(number).ok()? != self.acls.len() && !self.lenient {
            return None;
        }
        let count = take_i32(items)?;
        let mut acl = Vec::new();
        for _ in 0..count {
            let perms = Perms(take_i32(items)?);
            let scheme = Str::from_utf8_lossy(take_bytes(items)??);
            let id = Str::from_utf8_lossy(take_bytes(items)??);
            // Copied: ACLs live on, the block does not.
            let id = Id { scheme: Str::from(&*scheme), id: Str::from(&*id) };
            acl.push(Acl { perms, id });
        }
        self.acls.insert(number, acl.into());
        Some(())
    }

    fn znode(&mut self, items: &mut Bytes) -> Option<SnapshotItem> {
        self.znode_count += 1;
        let path = Str::from_utf8_lossy(take_bytes(items)??);
        let data = take_bytes(items)?;
        let acl = match self.acls.get(&take_i32(items)?) {
            Some(acl) => Arc::clone(acl),
            None if self.lenient => Arc::new([]),
            None => return None,
        };
        let stat = StatPersisted {
            czxid: Zxid(take_i64(items)?),
            mzxid: Zxid(take_i64(items)?),
            pzxid: Zxid(take_i64(items)?),
            ctime: take_i64(items)?,
            mtime: take_i64(items)?,
            version: take_i32(items)?,
            cversion: take_i32(items)?,
            aversion: take_i32(items)?,
            ephemeral_owner: take_i64(items)?,
        };
        Some(SnapshotItem::Znode { path, data, acl, stat })
    }
}

fn take_u8(bytes: &mut Bytes) -> Option<u8> {
    (!bytes.is_empty()).then(|| bytes.get_u8())
}

fn take_i32(bytes: &mut Bytes) -> Option<i32> {
    (4 <= bytes.len()).then(|| bytes.get_i32())
}

fn take_i64(bytes: &mut Bytes) -> Option<i64> {
    (8 <= bytes.len()).then(|| bytes.get_i64())
}

/// `Some(None)` is null.
fn take_bytes(bytes: &mut Bytes) -> Option<Option<Bytes>> {
    let len = take_i32(bytes)?;
    if len == -1 {
        return Some(None);
    }
    let len = usize::try_from(len).ok()?;
    (len <= bytes.len()).then(|| Some(bytes.split_to(len)))
}
