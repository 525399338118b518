//! Layer 3: the whole server without I/O: the commit pipeline and the client-facing shard, each a
//! pure machine, joined by one ordered stream.

pub mod contract;

pub use contract::{Clock, Halt, Input, Machine, Output};
