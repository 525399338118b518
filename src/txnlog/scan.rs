//! Walks one segment's bytes: batches and records in order, then how they end.

use bytes::Bytes;

use super::format::{
    BATCH_HEADER_BYTES, BatchHeader, HeaderError, Link, Position, RECORD_HEAD_BYTES, SegmentHeader,
    take_record,
};
use crate::limits::BLOCK_BYTES;
use crate::model::Zxid;

/// A walk over one segment. The bytes may be a memory map (`Bytes::from_owner`); nothing is
/// copied. It ends after the first of `End`, `Torn`, `Corrupt`, unless told to
/// [`Scanner::skip_damage`].
#[derive(Clone, Debug)]
pub struct Scanner {
    bytes: Bytes,
    header: SegmentHeader,
    link: Option<Link>,
    at: usize,
    body: Bytes,
    body_at: usize,
    over: bool,
}

/// One step of the walk.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Item {
    /// A whole and undamaged batch that follows on from the one before. Its records come next.
    Batch {
        /// Where it starts, in bytes.
        offset: u64,
        /// Its header.
        header: BatchHeader,
    },
    /// A record.
    Record {
        /// Its place in the order.
        zxid: Zxid,
        /// Where its frame starts, in bytes.
        offset: u64,
        /// The txn's bytes: header, record, digest.
        txn: Bytes,
    },
    /// Only zeros follow, or nothing.
    End {
        /// The end of the last batch.
        at: u64,
    },
    /// What follows is not whole and nothing in this segment proves that it ever was.
    Torn {
        /// The end of the last batch.
        at: u64,
        /// What is there.
        found: BatchFault,
    },
    /// What follows was durable and is damaged.
    Corrupt {
        /// Where the damage starts.
        at: u64,
        /// How it is known.
        why: Corruption,
    },
}

/// How damage is told from a torn tail.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Corruption {
    /// A later batch was built when this place was known durable.
    #[error("{found}, and the header at offset {proof} was written after it had been flushed")]
    Acknowledged {
        /// Offset of that batch, or 0 for the segment's own header.
        proof: u64,
        /// What is there.
        found: BatchFault,
    },
    /// The batch is undamaged but does not follow on from the one before.
    #[error("the batch does not follow on from the one before (chain, number or zxid)")]
    ChainBroken,
    /// The checksums hold but the records inside make no sense: a bug of the writer.
    #[error("the batch's records contradict its header")]
    Records,
}

/// Why no whole batch is at a place.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum BatchFault {
    /// There is no undamaged batch header.
    #[error("no batch header: {0}")]
    Header(HeaderError),
    /// The header is one of another incarnation of the segment, left from before.
    #[error("the batch is of another incarnation of this segment (its nonce differs)")]
    Nonce,
    /// The file ends before the batch does.
    #[error("the file ends inside the batch")]
    Cut,
    /// The checksum of the records does not match.
    #[error("the checksum of the batch's records does not match")]
    Body,
}

impl Scanner {
    /// Starts at the front of a segment. With `expected`, the first batch must follow on from it.
    ///
    /// # Errors
    /// [`HeaderError`] if the segment's header block is damaged.
    pub fn new(segment: Bytes, expected: Option<Link>) -> Result<Self, HeaderError> {
        let header = SegmentHeader::decode(&segment)?;
        Ok(Self::with_header(segment, header, expected))
    }

    /// Starts in segment `sequence` whose header block is damaged, under the nonce of the first
    /// undamaged batch header in it. For inspection only. `None` if there is no such header.
    #[must_use]
    pub fn without_header(segment: Bytes, sequence: u64) -> Option<Self> {
        let starts = (BLOCK_BYTES..segment.len()).step_by(BLOCK_BYTES);
        let first = starts.filter_map(|at| BatchHeader::decode(&segment[at..]).ok()).next()?;
        let header = SegmentHeader {
            sequence,
            nonce: first.nonce,
            bytes: segment.len() as u64,
            previous_nonce: 0,
            flushed_zxid: Zxid::ZERO,
            flushed_to: Position::default(),
        };
        Some(Self::with_header(segment, header, None))
    }

    const fn with_header(bytes: Bytes, header: SegmentHeader, link: Option<Link>) -> Self {
        let body = Bytes::new();
        Self { bytes, header, link, at: BLOCK_BYTES, body, body_at: 0, over: false }
    }

    /// The segment's header.
    #[must_use]
    pub const fn header(&self) -> &SegmentHeader {
        &self.header
    }

    /// What the next batch must follow on from; `None` before the first batch of a walk that
    /// expected nothing.
    #[must_use]
    pub const fn link(&self) -> Option<Link> {
        self.link
    }

    /// The segment's bytes.
    #[must_use]
    pub const fn bytes(&self) -> &Bytes {
        &self.bytes
    }

    /// After damage: goes on at the next undamaged batch of this segment, if there is one; that is
    /// the batch itself if it only does not follow on. For inspection only: records may be missing
    /// between.
    pub fn skip_damage(&mut self) -> bool {
        let from = self.at;
        let Some(offset) = self.later_headers(from).map(|(offset, _)| offset).find(|offset| {
            self.batch_at(*offset).is_ok_and(|header| self.records_agree(*offset, &header))
        }) else {
            return false;
        };
        self.at = offset;
        self.link = None;
        self.over = false;
        true
    }

    fn next_batch(&mut self) -> Item {
        let at = self.at as u64;
        if self.bytes.len() <= self.at {
            let here = Position { segment: self.header.sequence, offset: at };
            if self.header.flushed_to > here {
                let found = BatchFault::Cut;
                return Item::Corrupt { at, why: Corruption::Acknowledged { proof: 0, found } };
            }
            return Item::End { at };
        }
        let header = match self.batch_at(self.at) {
            Ok(header) => header,
            Err(found) => return self.broken(found),
        };
        let follows = self.link.is_none_or(|link| {
            (header.previous_chain, header.number) == (link.chain, link.number)
                && link.zxid <= header.previous_zxid
        });
        if !follows {
            return Item::Corrupt { at, why: Corruption::ChainBroken };
        }
        if !self.records_agree(self.at, &header) {
            return Item::Corrupt { at, why: Corruption::Records };
        }
        self.body_at = self.at + BATCH_HEADER_BYTES;
        self.body = self.bytes.slice(self.body_at..self.body_at + header.body_bytes as usize);
        self.link = Some(header.next_link());
        self.at += header.padded_bytes() as usize;
        Item::Batch { offset: at, header }
    }

    fn broken(&self, found: BatchFault) -> Item {
        let at = self.at as u64;
        let here = Position { segment: self.header.sequence, offset: at };
        let own = (self.header.flushed_to > here).then_some(0);
        let later = || self.later_headers(self.at).find(|(_, header)| header.flushed_to > here);
        match own.or_else(|| later().map(|(proof, _)| proof as u64)) {
            Some(proof) => Item::Corrupt { at, why: Corruption::Acknowledged { proof, found } },
            None if is_zero(&self.bytes[self.at..]) => Item::End { at },
            None => Item::Torn { at, found },
        }
    }

    /// Undamaged headers of this incarnation at or behind `from`, whatever their bodies.
    fn later_headers(&self, from: usize) -> impl Iterator<Item = (usize, BatchHeader)> + '_ {
        (from..self.bytes.len()).step_by(BLOCK_BYTES).filter_map(|offset| {
            let header = BatchHeader::decode(&self.bytes[offset..]).ok()?;
            (header.nonce == self.header.nonce).then_some((offset, header))
        })
    }

    /// The header of the whole and undamaged batch at `offset`.
    fn batch_at(&self, offset: usize) -> Result<BatchHeader, BatchFault> {
        let rest = self.bytes.get(offset..).ok_or(BatchFault::Cut)?;
        let header = BatchHeader::decode(rest).map_err(BatchFault::Header)?;
        if header.nonce != self.header.nonce {
            return Err(BatchFault::Nonce);
        }
        let end = usize::try_from(header.padded_bytes()).map_err(|_| BatchFault::Cut)?;
        let body = rest.get(BATCH_HEADER_BYTES..end).ok_or(BatchFault::Cut)?;
        if header.body_crc != crc32c::crc32c(body) {
            return Err(BatchFault::Body);
        }
        Ok(header)
    }

    fn records_agree(&self, offset: usize, header: &BatchHeader) -> bool {
        let start = offset + BATCH_HEADER_BYTES;
        let mut body = self.bytes.slice(start..start + header.body_bytes as usize);
        let mut last = header.previous_zxid;
        let mut count = 0u32;
        while !body.is_empty() {
            let Some((zxid, _)) = take_record(&mut body) else {
                return false;
            };
            if zxid <= last || (count == 0 && zxid != header.first_zxid) {
                return false;
            }
            last = zxid;
            count += 1;
        }
        count == header.record_count && last == header.last_zxid
    }
}

impl Iterator for Scanner {
    type Item = Item;

    fn next(&mut self) -> Option<Item> {
        if let Some((zxid, txn)) = take_record(&mut self.body) {
            let offset = self.body_at as u64;
            self.body_at += RECORD_HEAD_BYTES + txn.len() + 4;
            return Some(Item::Record { zxid, offset, txn });
        }
        if self.over {
            return None;
        }
        let item = self.next_batch();
        self.over = !matches!(item, Item::Batch { .. });
        Some(item)
    }
}

/// Whether every byte is zero.
pub(crate) fn is_zero(bytes: &[u8]) -> bool {
    let (words, rest) = bytes.as_chunks::<16>();
    words.iter().all(|word| u128::from_ne_bytes(*word) == 0) && rest.iter().all(|byte| *byte == 0)
}
