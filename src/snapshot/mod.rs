//! Layer 1: the snapshot's format: items to blocks and back. No file handles.
#![doc = include_str!("../docs/snapshot.md")]

mod block;
pub mod catalog;
pub mod read;
pub mod write;

#[cfg(test)]
mod tests;

pub use read::{SnapshotDamage, SnapshotDecoder, SnapshotItem, SnapshotSummary};
pub use write::SnapshotEncoder;
