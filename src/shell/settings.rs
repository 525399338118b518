//! What the shell needs to know of the configuration.

use std::net::SocketAddr;
use std::path::PathBuf;

use crate::config::Pin;
use crate::server::ServerOptions;

/// Settings of one server process.
#[derive(Clone, Debug)]
pub struct Settings {
    /// Where clients connect.
    pub listen: SocketAddr,
    /// Length of the queue of connections not yet accepted.
    pub listen_backlog: i32,
    /// `clientTcpKeepAlive`: the kernel probes connections that are silent.
    pub tcp_keep_alive: bool,
    /// Connections from one address; 0 is no limit.
    pub conns_per_address_max: usize,
    /// Connections in all; 0 is no limit.
    pub conns_max: usize,
    /// `dataDir`.
    pub data_dir: PathBuf,
    /// `dataLogDir`.
    pub log_dir: PathBuf,
    /// `ringkeeper.shards`; 0 is one for each core of the process, up to four.
    pub shards: u16,
    /// Where the shards' executors run.
    pub pin: Pin,
    /// How long an executor with a core of its own looks for news before it sleeps; `None` leaves
    /// it to the number of shards.
    pub spin: Option<std::time::Duration>,
    /// Registered memory per executor, bytes.
    pub io_memory_bytes: usize,
    /// Whether log writes go past the page cache where the file system can.
    pub direct_io: bool,
    /// The machine's own settings.
    pub server: ServerOptions,
}
