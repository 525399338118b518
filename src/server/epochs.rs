//! The epochs record: accepted and current epoch in one checksummed record with two slots
//! (reliability rows 19 and 20: two files that are replaced one after the other can contradict each
//! other after a crash).
//!
//! ```text
//! file `epochs`, two slots of 4096 bytes, written in turn
//! offset  size
//!      0     4  magic "RKEP"
//!      4     8  sequence number; the slot with the higher one counts
//!     12     4  accepted epoch
//!     16     4  current epoch
//!     20     4  CRC-32C of bytes 0..20
//! ```

use std::collections::VecDeque;

use bytes::{BufMut, Bytes, BytesMut};

use crate::base::{FileDir, FileName, FileOp};
use crate::limits::BLOCK_BYTES;
use crate::model::Zxid;
use crate::snapshot::catalog;

/// Name of the file in the data directory.
pub const FILE_NAME: &str = "epochs";
/// Length of the file.
pub const FILE_BYTES: u64 = 2 * BLOCK_BYTES as u64;

const MAGIC: &[u8; 4] = b"RKEP";
const CHECKED_BYTES: usize = 20;

/// What a server has promised and what it lives in. A standalone server stays at 0.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Epochs {
    /// Never follows a leader of an earlier epoch.
    pub accepted: u32,
    /// The epoch of its history.
    pub current: u32,
    /// How often the record was written.
    pub sequence: u64,
}

/// Neither slot is whole: what the server promised is not known.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("neither slot is whole")]
pub struct EpochsDamaged;

impl Epochs {
    /// One slot.
    #[must_use]
    pub fn encode(self) -> Bytes {
        let mut slot = BytesMut::with_capacity(BLOCK_BYTES);
        slot.put_slice(MAGIC);
        slot.put_u64(self.sequence);
        slot.put_u32(self.accepted);
        slot.put_u32(self.current);
        let crc = crc32c::crc32c(&slot);
        slot.put_u32(crc);
        slot.resize(BLOCK_BYTES, 0);
        slot.freeze()
    }

    /// The slot that counts.
    ///
    /// # Errors
    /// [`EpochsDamaged`] if neither slot is whole.
    pub fn decode(file: &[u8]) -> Result<Self, EpochsDamaged> {
        let slots = file.chunks(BLOCK_BYTES).take(2).filter_map(Self::decode_slot);
        slots.max_by_key(|epochs| epochs.sequence).ok_or(EpochsDamaged)
    }

    /// What a server has promised and lives in whose history ends at `last`. A log that holds a txn
    /// of an epoch holds the whole history with which that began; the record may be older where a
    /// server stopped while it was brought to the leader's history, where a slot has rotted, and
    /// where the file was lost (ZooKeeper: QuorumPeer.loadDataBase makes lost files so).
    #[must_use]
    pub fn of_history(self, last: Zxid) -> Self {
        let epoch = last.epoch();
        Self { accepted: self.accepted.max(epoch), current: self.current.max(epoch), ..self }
    }

    /// Operations that make the file.
    pub(super) fn make(self) -> VecDeque<FileOp> {
        let file = FileName::data(format!("{FILE_NAME}{}", catalog::UNFINISHED_SUFFIX));
        let slot = self.encode();
        let write = |index: u64| FileOp::Write {
            file: file.clone(),
            offset: index * BLOCK_BYTES as u64,
            bytes: slot.clone(),
            durable: false,
        };
        VecDeque::from([
            FileOp::Create { file: file.clone() },
            write(0),
            write(1),
            FileOp::Flush { file: file.clone() },
            FileOp::Rename { from: file.clone(), to: FILE_NAME.to_owned() },
            FileOp::SyncDir { dir: FileDir::Data },
        ])
    }

    fn decode_slot(slot: &[u8]) -> Option<Self> {
        let checked = slot.get(..CHECKED_BYTES)?;
        let crc = slot.get(CHECKED_BYTES..CHECKED_BYTES + 4)?.try_into().ok()?;
        if checked.get(..4)? != MAGIC || crc32c::crc32c(checked) != u32::from_be_bytes(crc) {
            return None;
        }
        let sequence = u64::from_be_bytes(checked.get(4..12)?.try_into().ok()?);
        let accepted = u32::from_be_bytes(checked.get(12..16)?.try_into().ok()?);
        let current = u32::from_be_bytes(checked.get(16..20)?.try_into().ok()?);
        Some(Self { accepted, current, sequence })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn file(first: Epochs, second: Epochs) -> Vec<u8> {
        [first.encode(), second.encode()].concat()
    }

    #[test]
    fn a_record_that_is_older_than_the_log_says_what_the_log_shows() {
        let of = |accepted, current| Epochs { accepted, current, sequence: 8 };
        for (record, raised) in [
            (Epochs::default(), Epochs { sequence: 0, ..of(5, 5) }),
            (of(5, 4), of(5, 5)),
            (of(7, 4), of(7, 5)),
            (of(6, 6), of(6, 6)),
        ] {
            assert_eq!(record.of_history(Zxid::new(5, 100)), raised);
        }
    }

    #[test]
    fn the_later_slot_counts_and_a_torn_one_does_not() {
        let old = Epochs { accepted: 3, current: 2, sequence: 8 };
        let new = Epochs { accepted: 4, current: 4, sequence: 9 };
        let good = file(new, old);
        assert_eq!(Epochs::decode(&good), Ok(new));
        for at in 0..CHECKED_BYTES + 4 {
            let mut torn = good.clone();
            torn[at] ^= 1;
            assert_eq!(Epochs::decode(&torn), Ok(old), "byte {at}");
            torn[BLOCK_BYTES + at] ^= 1;
            assert_eq!(Epochs::decode(&torn), Err(EpochsDamaged), "byte {at} of both");
        }
        assert_eq!(Epochs::decode(&[]), Err(EpochsDamaged));
    }
}
