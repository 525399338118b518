//! Reading a snapshot piece by piece. Nothing of it may be used before [`SnapshotDecoder::finish`]
//! has said that all of it is there and whole.

use bytes::{Buf, Bytes, BytesMut};

use super::block::{BlockFault, Kind, open};
use super::write::{ACL, SESSION, VERSION, ZNODE};
use crate::base::{Str, WallMs};
use crate::model::{Acl, Id, Perms, SessionId, StatPersisted, Zxid};

/// A snapshot that is not whole: where, and what is wrong.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("offset {offset}: {what}")]
pub struct SnapshotDamage {
    /// Byte offset of the block in the file.
    pub offset: u64,
    /// What is wrong with it.
    pub what: &'static str,
}

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
        acl: std::sync::Arc<[Acl]>,
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
    /// Znodes in it.
    pub znode_count: u64,
    /// Digest of the tree; 0 if digests were off.
    pub digest: u64,
}

/// Turns the bytes of a snapshot into items.
#[derive(Debug, Default)]
pub struct SnapshotDecoder {
    received: BytesMut,
    /// Items of the present block that were not handed out.
    items: Bytes,
    header: Option<(Zxid, WallMs)>,
    end: Option<[u64; 4]>,
    acls: Vec<std::sync::Arc<[Acl]>>,
    session_count: u64,
    znode_count: u64,
    sequence: u32,
    chain: u32,
    offset: u64,
    needed: usize,
}

impl SnapshotDecoder {
    /// At the start of a file.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Takes the next piece of the file.
    pub fn push(&mut self, bytes: &Bytes) {
        self.received.extend_from_slice(bytes);
    }

    /// The next item; `None` when more bytes are needed or the end was read.
    pub fn next_item(&mut self) -> Result<Option<SnapshotItem>, SnapshotDamage> {
        loop {
            if !self.items.is_empty() {
                let item = self.item().ok_or_else(|| self.damage("item does not decode"))?;
                if let Some(item) = item {
                    return Ok(Some(item));
                }
            } else if !self.next_block()? {
                return Ok(None);
            }
        }
    }

    /// Says what was read, if it was all and whole.
    pub fn finish(&mut self) -> Result<SnapshotSummary, SnapshotDamage> {
        let (Some((zxid, wall)), Some(end)) = (self.header, self.end) else {
            return Err(self.damage("the file ends before its end block"));
        };
        if !self.received.is_empty() {
            return Err(self.damage("bytes behind the end block"));
        }
        let [session_count, acl_count, znode_count, digest] = end;
        let counted = [self.session_count, self.acls.len() as u64, self.znode_count];
        if counted != [session_count, acl_count, znode_count] {
            return Err(self.damage("the end block counts other items"));
        }
        Ok(SnapshotSummary { zxid, wall, session_count, znode_count, digest })
    }

    const fn damage(&self, what: &'static str) -> SnapshotDamage {
        SnapshotDamage { offset: self.offset, what }
    }

    fn next_block(&mut self) -> Result<bool, SnapshotDamage> {
        if self.end.is_some() || self.received.len() < self.needed.max(1) {
            return Ok(false);
        }
        let bytes = std::mem::take(&mut self.received).freeze();
        let opened = open(&bytes, self.sequence, self.chain);
        let block = match opened {
            Ok(block) => block,
            Err(BlockFault::Short(needed)) => {
                self.needed = needed;
                self.received = BytesMut::from(bytes);
                return Ok(false);
            }
            Err(BlockFault::Damaged(what)) => return Err(self.damage(what)),
        };
        self.needed = 0;
        match (block.kind, self.header) {
            (Kind::Header, None) => self.read_header(&block.payload)?,
            (Kind::Items, Some(_)) => self.items = block.payload.clone(),
            (Kind::End, Some(_)) => self.read_end(&block.payload)?,
            _ => return Err(self.damage("block in the wrong place")),
        }
        self.sequence += 1;
        self.chain = block.chain;
        self.offset += block.len as u64;
        let mut rest = BytesMut::with_capacity(bytes.len() - block.len);
        rest.extend_from_slice(bytes.get(block.len..).unwrap_or_default());
        self.received = rest;
        Ok(true)
    }

    fn read_header(&mut self, payload: &Bytes) -> Result<(), SnapshotDamage> {
        let mut payload = payload.clone();
        if payload.len() != 20 {
            return Err(self.damage("the header has another length"));
        }
        if payload.get_u32() != VERSION {
            return Err(self.damage("the format version is another one"));
        }
        self.header = Some((Zxid(payload.get_i64()), WallMs(payload.get_i64())));
        Ok(())
    }

    fn read_end(&mut self, payload: &Bytes) -> Result<(), SnapshotDamage> {
        let mut payload = payload.clone();
        if payload.len() != 32 {
            return Err(self.damage("the end block has another length"));
        }
        self.end = Some(std::array::from_fn(|_| payload.get_u64()));
        Ok(())
    }

    /// `None`: does not decode. `Some(None)`: an ACL, which is kept.
    fn item(&mut self) -> Option<Option<SnapshotItem>> {
        match take_u8(&mut self.items)? {
            SESSION => {
                self.session_count += 1;
                let id = SessionId(take_i64(&mut self.items)?);
                Some(Some(SnapshotItem::Session { id, timeout_ms: take_i32(&mut self.items)? }))
            }
            ACL => {
                let number = take_i32(&mut self.items)?;
                if usize::try_from(number).ok()? != self.acls.len() {
                    return None;
                }
                let count = take_i32(&mut self.items)?;
                let mut acl = Vec::new();
                for _ in 0..count {
                    let perms = Perms(take_i32(&mut self.items)?);
                    let scheme = Str::from_utf8_lossy(take_bytes(&mut self.items)??);
                    let id = Str::from_utf8_lossy(take_bytes(&mut self.items)??);
                    // Copied: ACLs live on, the block does not.
                    let id = Id { scheme: Str::from(&*scheme), id: Str::from(&*id) };
                    acl.push(Acl { perms, id });
                }
                self.acls.push(acl.into());
                Some(None)
            }
            ZNODE => self.znode().map(Some),
            _ => None,
        }
    }

    fn znode(&mut self) -> Option<SnapshotItem> {
        self.znode_count += 1;
        let items = &mut self.items;
        let path = Str::from_utf8_lossy(take_bytes(items)??);
        let data = take_bytes(items)?;
        let number = usize::try_from(take_i32(items)?).ok()?;
        let acl = self.acls.get(number)?.clone();
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
