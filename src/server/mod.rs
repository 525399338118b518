//! Layer 3: the whole server without I/O: the commit pipeline and the client-facing shard, each a
//! pure machine, joined by one ordered stream.

pub mod contract;
pub mod epochs;
mod machine;
pub mod options;
mod pipeline;
mod prep;
pub mod recovery;
mod shard;
mod snapshotter;
mod stats;
mod stream;
mod words;

pub use contract::{Clock, Halt, Input, Machine, Output};
pub use machine::Server;
pub use options::{ServerOptions, WordsAllowed};
