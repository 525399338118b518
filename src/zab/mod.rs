//! Layer 2: Zab, the protocol by which the servers of an ensemble agree on one order of txns.
//! Never looks inside a txn; knows nothing of sockets, files and clocks.
//!
#![doc = include_str!("../docs/zab.md")]

pub mod election;
pub mod leader;
pub mod learner;
pub mod links;
pub mod paxos;
pub mod synchronization;
mod timing;

#[cfg(test)]
mod cumulative_tests;
#[cfg(test)]
mod hazards_tests;
#[cfg(test)]
mod leader_tests;
#[cfg(test)]
mod learner_tests;
#[cfg(test)]
mod properties_tests;
#[cfg(test)]
mod reconfig_tests;
#[cfg(test)]
mod renewal_tests;
#[cfg(test)]
mod simulation_tests;
#[cfg(test)]
mod stall_tests;

pub use timing::Timing;
