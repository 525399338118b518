//! Layer 1: the transaction log's format: bytes in, records out; no file handles.
//!
//! [`writer`] turns txns into batches and asks for their writes, [`recovery`] finds the end of a
//! log and cuts what was never flushed, [`scan`] and [`read`] look and never write, [`LogCursor`]
//! reads behind the writer. None of them knows what a txn means. It lives on shard 0.
//!
//! Invariants:
//! 1. flushed <= submitted <= accepted, and only a completed durable write moves flushed.
//! 2. One batch is in flight; the next is written behind it only after its completion.
//! 3. No byte is ever appended to a segment of an earlier incarnation.
//! 4. The end of the log is proved: a break before a position known as flushed is a refusal.
#![doc = include_str!("../docs/txnlog.md")]

mod cursor;
mod format;
mod prepare;
pub mod read;
pub mod recovery;
mod rewrite;
pub mod scan;
mod verdict;
pub mod writer;

pub use self::cursor::{LogCursor, LogUnread};
pub(crate) use self::format::batch_records;
pub use self::format::{
    BATCH_HEADER_BYTES, BatchHeader, HeaderError, Link, Position, SEGMENT_MAGIC, SegmentHeader,
    SegmentInfo, segment_name, segment_sequence,
};
pub use self::recovery::{Answer, LogRecovery, Step};
pub use self::verdict::{LogDamage, LogEnd, RecoveryRow};
pub use self::writer::{LogConfig, LogProgress, LogWriter};

#[cfg(test)]
mod cursor_tests;
#[cfg(test)]
mod tests;
