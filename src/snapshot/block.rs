//! Blocks: framing, checksums, padding. The layout is drawn in `src/docs/snapshot.md`.

use bytes::{BufMut, Bytes, BytesMut};

use crate::limits::BLOCK_BYTES;

/// Bytes in front of the payload.
pub(super) const BLOCK_HEADER_BYTES: usize = 20;
/// The first bytes of every block, and so of every snapshot.
pub const MAGIC: &[u8; 4] = b"RKSB";
const CHAIN_AT: usize = 16;

/// What a block holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    Header = 1,
    Items = 2,
    End = 3,
}

/// Why bytes are not the next block.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum BlockFault {
    /// More bytes are needed, this many in all.
    Short(usize),
    /// What is wrong.
    Damaged(&'static str),
}

impl BlockFault {
    /// In words, when no more bytes will come.
    pub(super) const fn text(&self) -> &'static str {
        match self {
            Self::Short(_) => "the file ends inside the block",
            Self::Damaged(what) => what,
        }
    }
}

/// What a block's header says, unchecked.
#[derive(Clone, Copy, Debug)]
pub(super) struct Frame {
    pub(super) sequence: u32,
    /// Length with padding; within the bytes given.
    pub(super) len: usize,
    /// The chain value that the block holds.
    pub(super) chain: u32,
}

impl Frame {
    /// Of the bytes at a place, if something like a block is there.
    pub(super) fn of(bytes: &[u8]) -> Option<Self> {
        let len = padded(field(bytes, 12) as usize);
        let is_block = bytes.get(..4) == Some(MAGIC) && len <= bytes.len();
        is_block.then(|| Self { sequence: field(bytes, 8), len, chain: field(bytes, CHAIN_AT) })
    }

    /// What the chain value in front of the next block may be when the block here is damaged and
    /// follows `before`: the one it holds, or the one it yields.
    pub(super) fn befores(bytes: &[u8], before: u32) -> Vec<u32> {
        let payload_len = field(bytes, 12) as usize;
        let payload = bytes.get(BLOCK_HEADER_BYTES..BLOCK_HEADER_BYTES.saturating_add(payload_len));
        let head = bytes.get(..CHAIN_AT);
        let computed = head.zip(payload).map(|(head, payload)| chain(before, head, payload));
        [field(bytes, CHAIN_AT)].into_iter().chain(computed).collect()
    }
}

/// The integer at `at`; 0 if there is none.
fn field(bytes: &[u8], at: usize) -> u32 {
    let field = bytes.get(at..at + 4).and_then(|field| field.try_into().ok());
    u32::from_be_bytes(field.unwrap_or_default())
}

/// A block taken apart.
#[derive(Debug)]
pub(super) struct Block {
    pub(super) kind: Kind,
    pub(super) payload: Bytes,
    pub(super) chain: u32,
    /// Length with padding.
    pub(super) len: usize,
}

/// Appends a block; its chain value.
pub(super) fn seal(
    out: &mut BytesMut,
    kind: Kind,
    sequence: u32,
    before: u32,
    payload: &[u8],
) -> u32 {
    let start = out.len();
    out.put_slice(MAGIC);
    out.put_u32(kind as u32);
    out.put_u32(sequence);
    out.put_u32(u32::try_from(payload.len()).expect("blocks are bounded"));
    let head = out.get(start..).unwrap_or_default();
    let chain = chain(before, head, payload);
    out.put_u32(chain);
    out.put_slice(payload);
    out.resize(start + padded(payload.len()), 0);
    chain
}

/// Reads the block at the start of `bytes`.
pub(super) fn open(bytes: &Bytes, sequence: u32, before: u32) -> Result<Block, BlockFault> {
    if bytes.len() < BLOCK_HEADER_BYTES {
        return Err(BlockFault::Short(BLOCK_BYTES));
    }
    let field = |at: usize| field(bytes, at);
    if bytes.get(..4) != Some(MAGIC) {
        return Err(BlockFault::Damaged("no block starts here"));
    }
    let kind = match field(4) {
        1 => Kind::Header,
        2 => Kind::Items,
        3 => Kind::End,
        _ => return Err(BlockFault::Damaged("unknown kind of block")),
    };
    if field(8) != sequence {
        return Err(BlockFault::Damaged("block out of sequence"));
    }
    let payload_len = field(12) as usize;
    let len = padded(payload_len);
    if bytes.len() < len {
        return Err(BlockFault::Short(len));
    }
    let payload = bytes.slice(BLOCK_HEADER_BYTES..BLOCK_HEADER_BYTES + payload_len);
    let expected = chain(before, bytes.get(..CHAIN_AT).unwrap_or_default(), &payload);
    if field(CHAIN_AT) != expected {
        return Err(BlockFault::Damaged("checksum does not match"));
    }
    let padding = bytes.get(BLOCK_HEADER_BYTES + payload_len..len).unwrap_or_default();
    if padding.iter().any(|byte| *byte != 0) {
        return Err(BlockFault::Damaged("padding is not zero"));
    }
    Ok(Block { kind, payload, chain: expected, len })
}

fn chain(before: u32, head: &[u8], payload: &[u8]) -> u32 {
    let crc = crc32c::crc32c(&before.to_be_bytes());
    crc32c::crc32c_append(crc32c::crc32c_append(crc, head), payload)
}

const fn padded(payload_len: usize) -> usize {
    (BLOCK_HEADER_BYTES + payload_len).next_multiple_of(BLOCK_BYTES)
}
