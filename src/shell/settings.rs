//! What the shell needs to know of the configuration.

use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::path::PathBuf;

use crate::config::Pin;
use crate::model::ServerAddress;
use crate::server::{PeerAddress, PeerPort, ServerOptions};

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
    /// The file that the server was started with, if it is one whose members can change.
    pub config_file: Option<PathBuf>,
    /// That file holds the list of members itself, and is kept as it is beside itself.
    pub backs_up_config: bool,
    /// Where the other servers of the ensemble connect; `None` when standalone.
    pub peers: Option<PeerSettings>,
    /// The machine's own settings.
    pub server: ServerOptions,
}

/// Where a member of an ensemble listens for the others.
#[derive(Clone, Debug)]
pub struct PeerSettings {
    /// The ports of each address of its own `server.N` line.
    pub listen: Vec<(PeerPort, PeerAddress)>,
    /// How often each of them is tried, a second apart; 0 is for ever.
    pub bind_tries: u32,
    /// `quorumListenOnAllIPs`.
    pub on_all_ips: bool,
    /// The kernel probes connections that are silent.
    pub tcp_keep_alive: bool,
}

impl PeerSettings {
    /// The ports of these addresses.
    #[must_use]
    pub fn ports(addresses: &[ServerAddress], on_all_ips: bool) -> Vec<(PeerPort, PeerAddress)> {
        let all = |host: &String| match on_all_ips {
            true => "::".to_owned(),
            false => host.clone(),
        };
        // A set: "everywhere" is one place, however many addresses the line has.
        let ports: BTreeSet<(PeerPort, PeerAddress)> = addresses
            .iter()
            .flat_map(|address| {
                let ports = [
                    (PeerPort::Election, address.election_port),
                    (PeerPort::Quorum, address.quorum_port),
                ];
                ports.map(|(is, port)| (is, PeerAddress { host: all(&address.host), port }))
            })
            .collect();
        ports.into_iter().collect()
    }
}
