//! Layer 1: Apache ZooKeeper's own files: bytes in, values out, and back. No file handles.
//!
//! [`LogDecoder`] and [`SnapshotDecoder`] take a file piece by piece and never hold more of it than
//! one item and one piece; what they hand out has passed its checksum. The decoders say where a
//! file ends and how; whether that end can be believed is for those who see all files together.
#![doc = include_str!("../docs/apache.md")]

mod compression;
mod log;
pub mod names;
mod read;
mod write;

#[cfg(test)]
mod tests;

pub use compression::Compression;
pub use log::{
    LogDamage, LogDamageKind, LogDecoder, LogEnd, LogEndKind, LogRecord, put_log_header,
    put_log_record,
};
pub use read::{SnapshotDamage, SnapshotDecoder, SnapshotDigest, SnapshotItem, SnapshotSummary};
pub use write::SnapshotEncoder;
