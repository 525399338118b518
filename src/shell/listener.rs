//! The listening socket and the limits on connections.

use std::collections::BTreeMap;
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, ToSocketAddrs};
use std::sync::Mutex;
use std::time::Duration;

use socket2::{Domain, Protocol, Socket, Type};

use super::{Settings, StartError};

/// Limits on connections; 0 is none.
#[derive(Clone, Copy, Debug)]
pub(super) struct ConnLimits {
    pub(super) per_address: usize,
    pub(super) total: usize,
}

/// A limit that a new connection would break. The texts are those that operators search Apache's
/// logs for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub(super) enum TooManyConns {
    #[error("Too many connections from /{0} - max is {1} (maxClientCnxns)")]
    OfAddress(IpAddr, usize),
    #[error("Too many connections max allowed is {0} (maxCnxns)")]
    InAll(usize),
}

/// Connections that are open, by address; taken by any shard when one opens or closes.
#[derive(Debug, Default)]
pub(super) struct ConnCounts {
    by_address: Mutex<BTreeMap<IpAddr, usize>>,
}

impl ConnCounts {
    /// Counts a connection in, if the limits allow.
    pub(super) fn admit(&self, address: IpAddr, limits: ConnLimits) -> Result<(), TooManyConns> {
        let mut by_address = self.by_address.lock().expect("no holder panics");
        if limits.total != 0 && limits.total <= by_address.values().sum() {
            return Err(TooManyConns::InAll(limits.total));
        }
        let count = by_address.get(&address).copied().unwrap_or_default();
        if limits.per_address != 0 && limits.per_address <= count {
            return Err(TooManyConns::OfAddress(address, limits.per_address));
        }
        by_address.insert(address, count + 1);
        Ok(())
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

/// Listens for clients.
pub(super) fn bind(settings: &Settings) -> Result<Socket, StartError> {
    let address = settings.listen;
    let socket = listen(address, settings.listen_backlog, settings.tcp_keep_alive);
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

/// The address to listen on that is meant by a host: of a name the first one, IPv4 before IPv6,
/// since Java prefers it and so clients and servers of Apache's dial it. "Everywhere" is IPv6 and
/// IPv4, however it is written, as it is where Java listens.
pub fn listen_address(host: &str, port: u16) -> io::Result<SocketAddr> {
    let found = (host, port).to_socket_addrs()?.min_by_key(SocketAddr::is_ipv6);
    let found = found.ok_or(io::ErrorKind::NotFound)?;
    Ok(match found.ip().is_unspecified() {
        true => SocketAddr::from((Ipv6Addr::UNSPECIFIED, port)),
        false => found,
    })
}

/// Binds and listens. SO_REUSEADDR lets a restarted server have its port back at once; without
/// SO_REUSEPORT a second server on the same port fails here. Without IPv6 "everywhere" is IPv4
/// alone.
///
/// What keep-alive is set to is inherited by the connections.
pub(super) fn listen(address: SocketAddr, backlog: i32, keep_alive: bool) -> io::Result<Socket> {
    let mut waited = Duration::ZERO;
    let is_everywhere = address.ip() == Ipv6Addr::UNSPECIFIED;
    loop {
        let bound = match try_listen(address, backlog, keep_alive) {
            Err(error) if is_everywhere && error.kind() != io::ErrorKind::AddrInUse => {
                let address = SocketAddr::from((Ipv4Addr::UNSPECIFIED, address.port()));
                try_listen(address, backlog, keep_alive)
            }
            other => other,
        };
        match bound {
            Err(error) if error.kind() == io::ErrorKind::AddrInUse && waited < BIND_WAIT => {
                std::thread::sleep(BIND_RETRY);
                waited += BIND_RETRY;
            }
            result => return result,
        }
    }
}

fn try_listen(address: SocketAddr, backlog: i32, keep_alive: bool) -> io::Result<Socket> {
    let socket = Socket::new(Domain::for_address(address), Type::STREAM, Some(Protocol::TCP))?;
    socket.set_reuse_address(true)?;
    if address.is_ipv6() {
        socket.set_only_v6(false)?;
    }
    socket.set_keepalive(keep_alive)?;
    socket.bind(&address.into())?;
    socket.listen(backlog)?;
    Ok(socket)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_wildcard_is_everywhere_and_another_address_itself() {
        let address = |host| listen_address(host, 5).unwrap().to_string();
        assert_eq!(address("0.0.0.0"), "[::]:5");
        assert_eq!(address("::"), "[::]:5");
        assert_eq!(address("127.0.0.2"), "127.0.0.2:5");
        assert_eq!(address("::1"), "[::1]:5");
        assert_eq!(address("localhost"), "127.0.0.1:5");
        assert!(listen_address("no-such-host.invalid", 5).is_err());
    }
}
