//! Ports, accepts and dials of a member of an ensemble. A connection that is made is driven as any
//! other (`conn`).
//!
//! Each dial has a thread of its own, and each name that is looked up ([`super::names`]): it may
//! take longer than the dial may, and the executor's blocking threads have files to see to.

use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;
use std::io;
use std::net::{IpAddr, SocketAddr, TcpStream, ToSocketAddrs};
use std::os::fd::{AsRawFd, FromRawFd, IntoRawFd};
use std::rc::Rc;
use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};

use glommio::Task;
use glommio::net::{TcpListener, TcpStream as LocalStream};
use socket2::{SockRef, Socket};

use super::conn::End;
use super::descriptors::is_reserved;
use super::driver::{ACCEPT_RETRY, Driver};
use super::mesh::Letter;
use super::names::Names;
use super::{PeerSettings, StartError, listener};
use crate::limits::{DESCRIPTORS_KEPT_FOR_FILES, DIALS_MAX, PEER_LINKS_MAX};
use crate::server::{DialId, Input, PeerAddress, PeerInput, PeerLink, PeerPort};

/// From one try to bind a port to the next.
const BIND_EVERY: Duration = Duration::from_secs(1);
const LISTEN_BACKLOG: i32 = 128;

/// What the driver knows of other servers.
#[derive(Default)]
pub(super) struct Peers {
    keep_alive: Cell<bool>,
    last_link: Cell<u64>,
    links: Cell<usize>,
    /// Dials that were not reported yet, with their alarms.
    dials: RefCell<BTreeMap<DialId, Task<()>>>,
    /// Every dialling thread has one, also those that come too late.
    dialling: Arc<()>,
    names: Arc<Names>,
}

impl Peers {
    pub(super) fn set_keep_alive(&self, keep_alive: bool) {
        self.keep_alive.set(keep_alive);
    }

    /// A connection has ended.
    pub(super) fn lost(&self) {
        self.links.set(self.links.get() - 1);
    }
}

/// Listens for the other servers. Names are looked up and ports tried again as often as is set:
/// where names come with the machines, they may come later than the server.
pub(super) fn bind(settings: &PeerSettings) -> Result<Vec<(PeerPort, Socket)>, StartError> {
    let bound = settings.listen.iter().map(|(port, address)| {
        let mut tries = 1;
        loop {
            let PeerAddress { host, port: number } = address;
            match try_bind(address, settings.tcp_keep_alive) {
                Ok(socket) => return Ok((*port, socket)),
                Err(error) if tries == settings.bind_tries => {
                    return Err(StartError::PeerPort(format!(
                        "cannot listen on {host}:{number} for other servers after {tries} tries \
                         ({error}): see this server's own server.N line, quorumListenOnAllIPs and \
                         electionPortBindRetry"
                    )));
                }
                Err(error) => {
                    tracing::warn!("cannot listen on {host}:{number} yet: {error}");
                    tries = tries.saturating_add(1);
                    thread::sleep(BIND_EVERY);
                }
            }
        }
    });
    bound.collect()
}

pub(super) fn try_bind(address: &PeerAddress, keep_alive: bool) -> io::Result<Socket> {
    let address = listener::listen_address(&address.host, address.port)?;
    listener::listen(address, LISTEN_BACKLOG, keep_alive)
}

/// Accepts on one port for ever.
pub(super) async fn accept(driver: Rc<Driver>, port: PeerPort, listener: TcpListener) {
    loop {
        match listener.accept().await {
            Ok(stream) if is_reserved(stream.as_raw_fd(), DESCRIPTORS_KEPT_FOR_FILES) => {
                tracing::warn!("too few descriptors are left for a connection of another server");
                drop(stream);
                glommio::timer::sleep(ACCEPT_RETRY).await;
            }
            Ok(stream) if driver.peers.links.get() < PEER_LINKS_MAX => {
                if let Err(error) = stream.set_nodelay(true) {
                    tracing::debug!(%error, "TCP_NODELAY was refused");
                }
                welcome(&driver, stream, |link| PeerInput::Accepted { port, link });
            }
            Ok(_) => tracing::warn!("more than {PEER_LINKS_MAX} connections of other servers"),
            Err(error) => {
                tracing::warn!(%error, "a connection of another server was not accepted");
                glommio::timer::sleep(ACCEPT_RETRY).await;
            }
        }
    }
}

/// Gives a connection its name. `false` if it is gone already.
fn welcome(
    driver: &Rc<Driver>,
    stream: LocalStream,
    named: impl FnOnce(PeerLink) -> PeerInput,
) -> bool {
    let Ok(address) = stream.peer_addr() else { return false };
    let peers = &driver.peers;
    let link = PeerLink(peers.last_link.get() + 1);
    peers.last_link.set(link.0);
    peers.links.set(peers.links.get() + 1);
    driver.input(Input::Peer(named(link)));
    driver.start_reading(End::Peer(link), address.ip().to_canonical(), stream);
    true
}

/// Starts a dial; its end is an input, at the latest after `within`.
pub(super) fn dial(
    driver: &Rc<Driver>,
    dial: DialId,
    addresses: Vec<PeerAddress>,
    within: crate::base::Duration,
) {
    let within = Duration::from_nanos(within.0);
    let late = Rc::clone(driver);
    let alarm = glommio::spawn_local(async move {
        glommio::timer::sleep(within).await;
        if let Some(alarm) = late.peers.dials.borrow_mut().remove(&dial) {
            alarm.detach();
            late.input(Input::Peer(PeerInput::DialFailed { dial }));
        }
    });
    driver.peers.dials.borrow_mut().insert(dial, alarm);
    let dialling = Arc::clone(&driver.peers.dialling);
    if DIALS_MAX < Arc::strong_count(&dialling) - 1 {
        return dialled(driver, dial, Err(io::ErrorKind::QuotaExceeded.into()));
    }
    let (fabric, home) = (Arc::clone(&driver.fabric), driver.shard);
    let (keep_alive, names) = (driver.peers.keep_alive.get(), Arc::clone(&driver.peers.names));
    let thread = thread::Builder::new().name("dial".to_owned()).spawn(move || {
        let deadline = Instant::now() + within;
        let stream = connect(&addresses, deadline, keep_alive, |address, within| {
            names.addresses(address, within, look_up)
        });
        fabric.post(home, Letter::Dialled { dial, stream });
        fabric.call(home);
        drop(dialling);
    });
    if let Err(error) = thread {
        dialled(driver, dial, Err(error));
    }
}

/// A dial has ended; if it was given up before, a connection that it made is closed.
pub(super) fn dialled(driver: &Rc<Driver>, dial: DialId, stream: io::Result<TcpStream>) {
    if driver.peers.dials.borrow_mut().remove(&dial).is_none() {
        return;
    }
    let made = match stream {
        Ok(stream) => {
            // SAFETY: the descriptor is taken out of its owner and given to the new one.
            let stream = unsafe { LocalStream::from_raw_fd(stream.into_raw_fd()) };
            welcome(driver, stream, |link| PeerInput::Dialled { dial, link })
        }
        Err(error) => {
            tracing::debug!(%error, "another server was not reached");
            false
        }
    };
    if !made {
        driver.input(Input::Peer(PeerInput::DialFailed { dial }));
    }
}

/// Tries the addresses in order, those that are no names first: looking up a name may take all the
/// time there is. Each has an equal part of what is left, so that one that does not answer does not
/// take the turn of the others.
pub(super) fn connect(
    addresses: &[PeerAddress],
    deadline: Instant,
    keep_alive: bool,
    names: impl Fn(&PeerAddress, Duration) -> io::Result<Vec<SocketAddr>>,
) -> io::Result<TcpStream> {
    let left = |turns: usize| {
        let turns = u32::try_from(turns).unwrap_or(u32::MAX);
        deadline.saturating_duration_since(Instant::now()) / turns
    };
    let mut last = io::Error::from(io::ErrorKind::NotFound);
    let is_name = |address: &&PeerAddress| address.host.parse::<IpAddr>().is_err();
    let mut turns: Vec<&PeerAddress> = addresses.iter().collect();
    turns.sort_by_key(is_name);
    let mut turns = turns.into_iter();
    while let Some(address) = turns.next() {
        let found = match is_name(&address) {
            true => names(address, left(1 + turns.len())),
            false => look_up(address),
        };
        let found = found.unwrap_or_else(|error| {
            last = error;
            Vec::new()
        });
        for (at, address) in found.iter().enumerate() {
            let left = left(found.len() - at + turns.len());
            if left.is_zero() {
                return Err(io::ErrorKind::TimedOut.into());
            }
            match connect_one(address, left, keep_alive) {
                Ok(stream) => return Ok(stream),
                Err(error) => last = error,
            }
        }
    }
    Err(last)
}

fn look_up(address: &PeerAddress) -> io::Result<Vec<SocketAddr>> {
    Ok((address.host.as_str(), address.port).to_socket_addrs()?.collect())
}

fn connect_one(address: &SocketAddr, within: Duration, keep_alive: bool) -> io::Result<TcpStream> {
    let stream = TcpStream::connect_timeout(address, within)?;
    // Nobody listened, and the kernel happened to choose the port dialled as ours.
    if stream.local_addr()? == stream.peer_addr()? {
        return Err(io::ErrorKind::ConnectionRefused.into());
    }
    stream.set_nodelay(true)?;
    SockRef::from(&stream).set_keepalive(keep_alive)?;
    stream.set_nonblocking(true)?;
    Ok(stream)
}
