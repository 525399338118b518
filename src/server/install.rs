//! The install record: a snapshot that was received from a leader takes the place of the whole
//! history, in one step that a crash cannot divide. Its layout is drawn in `src/docs/snapshot.md`.
//!
//! The record is there from the moment that it has its name durably until recovery has done what it
//! says. Without it a received snapshot is an unfinished file.

use std::collections::VecDeque;

use bytes::{BufMut, Bytes, BytesMut};

use crate::base::{FileDir, FileName, FileOp};
use crate::limits::BLOCK_BYTES;
use crate::model::Zxid;
use crate::snapshot::catalog;
use crate::txnlog;

/// Name of the file in the data directory.
pub const FILE_NAME: &str = "install";

const MAGIC: &[u8; 4] = b"RKIN";
const VERSION: u32 = 1;
const CHECKED_BYTES: usize = 24;

/// The history is the snapshot at `zxid`, and the log from segment `first_segment` on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Install {
    /// The received snapshot's.
    pub zxid: Zxid,
    /// Sequence number; every segment below it goes.
    pub first_segment: u64,
}

impl Install {
    /// The file.
    #[must_use]
    pub fn encode(self) -> Bytes {
        let mut file = BytesMut::with_capacity(BLOCK_BYTES);
        file.put_slice(MAGIC);
        file.put_u32(VERSION);
        file.put_i64(self.zxid.0);
        file.put_u64(self.first_segment);
        let crc = crc32c::crc32c(&file);
        file.put_u32(crc);
        file.resize(BLOCK_BYTES, 0);
        file.freeze()
    }

    /// What the file says; `None` if it is damaged.
    #[must_use]
    pub fn decode(file: &[u8]) -> Option<Self> {
        let checked = file.get(..CHECKED_BYTES)?;
        let crc = file.get(CHECKED_BYTES..CHECKED_BYTES + 4)?.try_into().ok()?;
        if crc32c::crc32c(checked) != u32::from_be_bytes(crc) || checked.get(..4)? != MAGIC {
            return None;
        }
        if checked.get(4..8)? != VERSION.to_be_bytes() {
            return None;
        }
        Some(Self {
            zxid: Zxid(i64::from_be_bytes(checked.get(8..16)?.try_into().ok()?)),
            first_segment: u64::from_be_bytes(checked.get(16..24)?.try_into().ok()?),
        })
    }

    /// Whether this file of the log goes.
    #[must_use]
    pub fn replaces(self, name: &str) -> bool {
        txnlog::segment_sequence(name).is_some_and(|sequence| sequence < self.first_segment)
    }

    /// The received snapshot's file, before recovery gives it its name.
    pub(super) fn received(self) -> FileName {
        FileName::data(catalog::received_name(self.zxid))
    }

    /// Operations that write the record of a received snapshot whose every byte was written. The
    /// snapshot's name is durable before the record has its own: a record without its snapshot
    /// means nothing.
    pub(super) fn write(self) -> VecDeque<FileOp> {
        let file = FileName::data(format!("{FILE_NAME}{}", catalog::UNFINISHED_SUFFIX));
        let bytes = self.encode();
        VecDeque::from([
            FileOp::Flush { file: self.received() },
            FileOp::SyncDir { dir: FileDir::Data },
            FileOp::Create { file: file.clone() },
            FileOp::Write { file: file.clone(), offset: 0, bytes, durable: false },
            FileOp::Flush { file: file.clone() },
            FileOp::Rename { from: file, to: FILE_NAME.to_owned() },
            FileOp::SyncDir { dir: FileDir::Data },
        ])
    }

    /// Operations that put the received snapshot in the place of the others.
    pub(super) fn replace_snapshots(
        self,
        is_received: bool,
        others: impl Iterator<Item = Zxid>,
    ) -> VecDeque<FileOp> {
        let mut ops = VecDeque::new();
        if is_received {
            let to = catalog::file_name(self.zxid);
            ops.push_back(FileOp::Rename { from: self.received(), to });
            ops.push_back(FileOp::SyncDir { dir: FileDir::Data });
        }
        for zxid in others.filter(|zxid| *zxid != self.zxid) {
            ops.push_back(FileOp::Remove { file: FileName::data(catalog::file_name(zxid)) });
        }
        ops.push_back(FileOp::SyncDir { dir: FileDir::Data });
        ops
    }

    /// Operations that remove these files of the log, and then the record.
    pub(super) fn replace_log(self, files: impl Iterator<Item = String>) -> VecDeque<FileOp> {
        let remove = |name| FileOp::Remove { file: FileName::log(name) };
        let mut ops: VecDeque<FileOp> = files.map(remove).collect();
        ops.push_back(FileOp::SyncDir { dir: FileDir::Log });
        ops.extend(Self::remove());
        ops
    }

    /// Operations that remove the record.
    pub(super) fn remove() -> [FileOp; 2] {
        let file = FileName::data(FILE_NAME.to_owned());
        [FileOp::Remove { file }, FileOp::SyncDir { dir: FileDir::Data }]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_written_is_read_and_nothing_else() {
        let install = Install { zxid: Zxid(0x5_0000_0007), first_segment: 12 };
        let file = install.encode();
        assert_eq!(Install::decode(&file), Some(install));
        for at in 0..CHECKED_BYTES + 4 {
            let mut damaged = file.to_vec();
            damaged[at] ^= 1;
            assert_eq!(Install::decode(&damaged), None, "byte {at}");
            assert_eq!(Install::decode(&file[..at]), None);
        }
    }
}
