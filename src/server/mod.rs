//! Layer 3: the whole server without I/O: the commit pipeline and the client-facing shards, pure
//! machines joined by one ordered stream for each shard.

pub mod contract;
pub mod epochs;
pub mod export;
pub mod import;
mod machine;
pub mod options;
mod pipeline;
mod prep;
pub mod recovery;
mod satellite;
mod shard;
mod snapshotter;
pub mod state;
mod stats;
mod stream;
mod words;

pub use contract::{Clock, Halt, Input, Machine, Mesh, Output, Published};
pub use machine::Server;
pub use options::{Reaping, ServerOptions, Slices, WordsAllowed};
pub use satellite::Satellite;
