//! Layer 3: the whole server without I/O: the commit pipeline and the client-facing shards, pure
//! machines joined by one ordered stream for each shard.

pub mod audit;
#[cfg(test)]
mod closing_tests;
pub mod contract;
mod credit;
mod ensemble;
pub mod epochs;
pub mod export;
pub mod fuzzy;
pub mod import;
pub mod install;
mod machine;
pub mod options;
mod pipeline;
mod prep;
mod preparing;
mod pulse;
pub mod recent;
pub mod recovery;
mod satellite;
#[cfg(test)]
mod satellite_tests;
#[cfg(test)]
mod settings_tests;
mod shard;
#[cfg(test)]
mod slices_tests;
pub mod snap_receive;
pub mod snap_send;
mod snapshotter;
pub mod state;
mod stats;
mod stream;
mod telling;
#[cfg(test)]
mod telling_tests;
mod throttle;
mod words;

#[cfg(test)]
pub(crate) mod random_history;
#[cfg(test)]
mod tests;

pub use contract::{
    Clock, DialId, Halt, Input, Machine, Mesh, Output, PeerAddress, PeerInput, PeerLink,
    PeerOutput, PeerPort, Published,
};
pub use machine::Server;
pub use options::{EnsembleOptions, HistorySlices, LargeRequests, Reaping, RequestThrottle};
pub use options::{ServerOptions, Slices, WordsAllowed};
pub use satellite::Satellite;
pub use throttle::{ConnectionThrottleConfig, SessionWeights};
