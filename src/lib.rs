//! Ringkeeper: a coordination server that speaks Apache ZooKeeper's protocols.
//!
//! The modules below are in reading order; each knows only those above it (`tests/it/tidy.rs`
//! enforces this).
#![doc = include_str!("docs/architecture.md")]

// Layer 0: words.
pub mod base;
pub mod limits;
pub mod model;
// Layer 1: bytes.
pub mod apache;
pub mod config;
pub mod snapshot;
pub mod txnlog;
pub mod wire;
// Layer 2: machines.
pub mod auth;
pub mod session;
pub mod tree;
pub mod watch;
pub mod zab;
// Layer 3: the server as pure machines.
pub mod server;
// Layer 4: drivers, and the other end of the connection.
pub mod client;
pub mod shell;
pub mod sim;
// Layer 5: programs.
pub mod trial;

/// The documents of `src/docs` that belong to no module.
pub mod docs {
    #[doc = include_str!("docs/differences.md")]
    pub mod differences {}
    #[doc = include_str!("docs/migration.md")]
    pub mod migration {}
    #[doc = include_str!("docs/performance.md")]
    pub mod performance {}
    #[doc = include_str!("docs/rk.md")]
    pub mod rk {}
    #[doc = include_str!("docs/rk-log.md")]
    pub mod rk_log {}
    #[doc = include_str!("docs/rules.md")]
    pub mod rules {}
    #[doc = include_str!("docs/sharding.md")]
    pub mod sharding {}
    #[doc = include_str!("docs/testing.md")]
    pub mod testing {}
}
