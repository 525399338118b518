//! The listening socket and the limits on connections.

use std::collections::BTreeMap;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::sync::Mutex;
use std::time::Duration;

use socket2::{Domain, Protocol, Socket, Type};

use super::StartError;

/// Limits on connections; 0 is none.
#[derive(Clone, Copy, Debug)]
pub(super) struct ConnLimits {
    pub(super) per_address: usize,
    pub(super) total: usize,
}

/// Connections that are open, by address; taken by any shard when one opens or closes.
#[derive(Debug, Default)]
pub(super) struct ConnCounts {
    by_address: Mutex<BTreeMap<IpAddr, usize>>,
}

impl ConnCounts {
    /// Counts a connection in, if the limits allow.
    pub(super) fn admit(&self, address: IpAddr, limits: ConnLimits) -> bool {
        let mut by_address = self.by_address.lock().expect("no holder panics");
        let total: usize = by_address.values().sum();
        let count = by_address.entry(address).or_default();
        let full = (limits.per_address != 0 && limits.per_address <= *count)
            || (limits.total != 0 && limits.total <= total);
        if !full {
            *count += 1;
        } else if *count == 0 {
            by_address.remove(&address);
        }
        !full
    }

    /// Counts a connection out.
    pub(super) fn release(&self, address: IpAddr) {
        let mut by_address = self.by_address.lock().expect("no holder panics");
        if let Some(count) = by_address.get_mut(&address) {
            *count -= 1;
            if *count == 0 {
                by_address.remove(&address);
            }
        }
    }
}

/// The ring of a killed server holds its listening socket until the kernel has taken it apart.
const BIND_WAIT: Duration = Duration::from_secs(3);
const BIND_RETRY: Duration = Duration::from_millis(10);

/// Binds and listens. SO_REUSEADDR lets a restarted server have its port back at once; without
/// SO_REUSEPORT a second server on the same port fails here.
pub(super) fn bind(address: SocketAddr, backlog: i32) -> Result<Socket, StartError> {
    let mut waited = Duration::ZERO;
    let socket = loop {
        match try_bind(address, backlog) {
            Err(error) if error.kind() == io::ErrorKind::AddrInUse && waited < BIND_WAIT => {
                std::thread::sleep(BIND_RETRY);
                waited += BIND_RETRY;
            }
            result => break result,
        }
    };
    socket.map_err(|error| {
        let how = match error.kind() {
            io::ErrorKind::AddrInUse => {
                ": another server has the port; stop it or set another clientPort"
            }
            io::ErrorKind::PermissionDenied => ": ports below 1024 need CAP_NET_BIND_SERVICE",
            io::ErrorKind::AddrNotAvailable => ": clientPortAddress is not of this machine",
            _ => "",
        };
        StartError::Port(format!("cannot listen on {address} ({error}){how}"))
    })
}

fn try_bind(address: SocketAddr, backlog: i32) -> io::Result<Socket> {
    let socket = Socket::new(Domain::for_address(address), Type::STREAM, Some(Protocol::TCP))?;
    socket.set_reuse_address(true)?;
    if address.is_ipv6() {
        socket.set_only_v6(false)?;
    }
    socket.bind(&address.into())?;
    socket.listen(backlog)?;
    Ok(socket)
}
