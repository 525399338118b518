//! Layer 4: the deterministic simulator. One seed decides everything: virtual time, what clients
//! ask, how long disk and network take, and where the server is killed or the power is cut.
//!
//! ```
//! use ringkeeper::sim::{Plant, run};
//! let report = run(7, Plant::None).expect("seed 7 finds nothing");
//! assert_eq!(report.trace, run(7, Plant::None).expect("same").trace);
//! ```
//!
//! The faults it makes:
//!
//! - the process is killed: what was handed to the kernel survives, what is in flight may;
//! - the power is cut: only flushed bytes and flushed directory entries are sure to survive; others
//!   survive in pieces of 512 bytes, or not;
//! - the drive puts a log write where the one before it was: the next start must refuse;
//! - a write or flush fails, dropping what it should have written;
//! - every crash is put between two numbered disk events, so that seeds cover every I/O boundary;
//! - a server has up to three satellites, whose messages and turns are delayed, also between the
//!   message of a txn and its publication;
//! - the server or one shard is not run for up to two minutes, while clients go on;
//! - messages between client and server are delayed and cut into chunks.
//!
//! Of small histories, [`run_small`] and [`ensemble::EnsembleRun::requests`], two oracles judge.
//!
//! [`ensemble`] runs several servers with peers; its own list of faults is there.

mod boot;
mod client;
mod config_dir;
mod content;
mod disk;
pub mod ensemble;
mod history;
mod members;
mod model;
mod plant;
mod replay;
mod search;
mod shards;
mod small;
mod stall;
mod trace;
mod world;

#[cfg(test)]
mod loss_tests;
#[cfg(test)]
mod snap_tests;
#[cfg(test)]
mod tests;

pub use plant::Plant;
pub use small::run as run_small;
pub use world::{Failure, Report, run};
