//! Reading a snapshot piece by piece. Nothing of it may be used before [`SnapshotDecoder::finish`]
//! has said that all of it is there and whole.

use bytes::{Bytes, BytesMut};

use super::block::{BLOCK_HEADER_BYTES, Block, BlockFault, Kind, open};
use super::item::{
    END_BYTES, ItemDecoder, SnapshotItem, SnapshotSummary, ZNODE_BYTES_MIN, decode_header,
};
use crate::base::WallMs;
use crate::model::Zxid;

/// A snapshot that is not whole: where, and what is wrong.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("offset {offset}: {what}")]
pub struct SnapshotDamage {
    /// Byte offset of the block in the file.
    pub offset: u64,
    /// What is wrong with it.
    pub what: &'static str,
}

/// Turns the bytes of a snapshot into items.
#[derive(Debug, Default)]
pub struct SnapshotDecoder {
    /// What was pushed and is not yet taken.
    received: Bytes,
    /// The front of a block of which the rest is still to come, never more than the block.
    partial: BytesMut,
    /// Items of the present block that were not handed out.
    items: Bytes,
    header: Option<(Zxid, WallMs)>,
    end: Option<SnapshotSummary>,
    decoder: ItemDecoder,
    sequence: u32,
    chain: u32,
    offset: u64,
    /// How long `partial` must be before it is looked at again.
    needed: usize,
}

/// About how many znodes a snapshot of `len` bytes holds, by the last block of its file.
/// Nothing proves it: it is for making room, and never more than the file can hold.
#[must_use]
pub fn expected_znodes(last_block: &[u8], len: u64) -> u64 {
    let payload = last_block.get(BLOCK_HEADER_BYTES..BLOCK_HEADER_BYTES + END_BYTES);
    let said = SnapshotSummary::decode((Zxid::ZERO, WallMs(0)), payload.unwrap_or_default());
    said.map_or(0, |summary| summary.znode_count.min(len / ZNODE_BYTES_MIN))
}

impl SnapshotDecoder {
    /// At the start of a file.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Takes the next piece of the file. Nothing is copied if all items of the one before were
    /// taken, but for a block that lies in both.
    pub fn push(&mut self, bytes: &Bytes) {
        if self.received.is_empty() {
            self.received = bytes.clone();
        } else {
            self.received = [&self.received[..], &bytes[..]].concat().into();
        }
    }

    /// The next item; `None` when more bytes are needed or the end was read.
    pub fn next_item(&mut self) -> Result<Option<SnapshotItem>, SnapshotDamage> {
        loop {
            if !self.items.is_empty() {
                let item = self.decoder.next_item(&mut self.items);
                let item = item.ok_or_else(|| self.damage("item does not decode"))?;
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
        let Some(summary) = self.end else {
            return Err(self.damage("the file ends before its end block"));
        };
        if !self.received.is_empty() || !self.partial.is_empty() {
            return Err(self.damage("bytes behind the end block"));
        }
        if !self.decoder.counted(&summary) {
            return Err(self.damage("the end block counts other items"));
        }
        Ok(summary)
    }

    const fn damage(&self, what: &'static str) -> SnapshotDamage {
        SnapshotDamage { offset: self.offset, what }
    }

    fn next_block(&mut self) -> Result<bool, SnapshotDamage> {
        if self.end.is_some() {
            return Ok(false);
        }
        let Some(block) = self.open_block()? else { return Ok(false) };
        match (block.kind, self.header) {
            (Kind::Header, None) => {
                let header = decode_header(&block.payload).map_err(|what| self.damage(what))?;
                self.header = Some(header);
            }
            (Kind::Items, Some(_)) => self.items = block.payload.clone(),
            (Kind::End, Some(header)) => {
                let end = SnapshotSummary::decode(header, &block.payload);
                self.end = Some(end.map_err(|what| self.damage(what))?);
            }
            _ => return Err(self.damage("block in the wrong place")),
        }
        self.sequence += 1;
        self.chain = block.chain;
        self.offset += block.len as u64;
        Ok(true)
    }

    /// The next block, where it lies or put together from the pieces that it lies in; `None` if
    /// more bytes are needed.
    fn open_block(&mut self) -> Result<Option<Block>, SnapshotDamage> {
        loop {
            let lies_in_one = self.partial.is_empty();
            let bytes = if lies_in_one {
                std::mem::take(&mut self.received)
            } else {
                let missing = self.needed.saturating_sub(self.partial.len());
                let more = self.received.split_to(missing.min(self.received.len()));
                self.partial.extend_from_slice(&more);
                if self.partial.len() < self.needed {
                    return Ok(None);
                }
                std::mem::take(&mut self.partial).freeze()
            };
            if bytes.is_empty() {
                return Ok(None);
            }
            match open(&bytes, self.sequence, self.chain) {
                Ok(block) => {
                    if lies_in_one {
                        self.received = bytes.slice(block.len..);
                    }
                    return Ok(Some(block));
                }
                Err(BlockFault::Short(needed)) => {
                    self.needed = needed;
                    self.partial = BytesMut::from(bytes);
                }
                Err(BlockFault::Damaged(what)) => return Err(self.damage(what)),
            }
        }
    }
}
