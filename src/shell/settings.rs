//! What the shell needs to know of the configuration.

use std::net::SocketAddr;
use std::path::PathBuf;

use crate::server::ServerOptions;

/// Settings of one server process.
#[derive(Clone, Debug)]
pub struct Settings {
    /// Where clients connect.
    pub listen: SocketAddr,
    /// Length of the queue of connections not yet accepted.
    pub listen_backlog: i32,
    /// Connections from one address; 0 is no limit.
    pub conns_per_address_max: usize,
    /// Connections in all; 0 is no limit.
    pub conns_max: usize,
    /// `dataDir`.
    pub data_dir: PathBuf,
    /// `dataLogDir`.
    pub log_dir: PathBuf,
    /// The core that the executor is pinned to; `None` leaves it free.
    pub pin_to_cpu: Option<usize>,
    /// Registered memory per executor, bytes.
    pub io_memory_bytes: usize,
    /// Whether log writes go past the page cache where the file system can.
    pub direct_io: bool,
    /// The machine's own settings.
    pub server: ServerOptions,
}
