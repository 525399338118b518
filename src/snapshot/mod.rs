//! Layer 1: the snapshot's format: items to blocks and back. No file handles.
#![doc = include_str!("../docs/snapshot.md")]

mod block;
pub mod catalog;
pub mod inspect;
mod item;
pub mod read;
pub mod write;

#[cfg(test)]
mod tests;

pub use block::MAGIC;
pub use item::{SnapshotItem, SnapshotSummary};
pub use read::{SnapshotDamage, SnapshotDecoder, expected_znodes};
pub use write::SnapshotEncoder;
