//! The ports on which a server accepts, also when a reconfiguration has it move to others.

use std::cell::RefCell;
use std::io;
use std::os::fd::{FromRawFd, IntoRawFd};
use std::rc::Rc;
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::Duration;

use glommio::Task;
use glommio::net::TcpListener;
use socket2::Socket;

use super::driver::{self, Driver};
use super::listener::{self, ConnLimits};
use super::peers;
use super::settings::PeerSettings;
use crate::model::{ClientAddress, ServerAddress};
use crate::server::PeerPort;

/// From one try to have a port to the next, and from one look at a try to the next.
const BIND_EVERY: Duration = Duration::from_secs(1);
const LOOK_EVERY: Duration = Duration::from_millis(5);

/// How the server listens, wherever that is.
#[derive(Clone, Debug)]
pub(super) struct PortSettings {
    pub(super) limits: ConnLimits,
    pub(super) backlog: i32,
    pub(super) keep_alive: bool,
    /// Of a member of an ensemble.
    pub(super) peers: Option<PeerSettings>,
}

/// What accepts now.
pub(super) struct Ports {
    settings: PortSettings,
    clients: RefCell<Option<Task<()>>>,
    peers: RefCell<Vec<Task<()>>>,
}

impl Ports {
    pub(super) const fn new(settings: PortSettings) -> Self {
        Self { settings, clients: RefCell::new(None), peers: RefCell::new(Vec::new()) }
    }

    /// Begins to accept on sockets that are bound.
    pub(super) fn start(
        &self,
        driver: &Rc<Driver>,
        clients: Socket,
        peers: Vec<(PeerPort, Socket)>,
    ) {
        let limits = self.settings.limits;
        let accepting = driver::accept(Rc::clone(driver), listening(clients), limits);
        *self.clients.borrow_mut() = Some(glommio::spawn_local(accepting));
        let tasks = peers.into_iter().map(|(port, socket)| {
            glommio::spawn_local(peers::accept(Rc::clone(driver), port, listening(socket)))
        });
        self.peers.borrow_mut().extend(tasks);
    }

    /// Accepts clients there, and no longer where it was.
    pub(super) fn move_clients(&self, driver: &Rc<Driver>, address: ClientAddress) {
        let (driver, old) = (Rc::clone(driver), self.clients.borrow_mut().take());
        let PortSettings { limits, backlog, keep_alive, .. } = self.settings;
        tracing::info!("clients connect at {}:{} from now on", address.host, address.port);
        let bind = move || {
            let address = listener::listen_address(&address.host, address.port)?;
            listener::listen(address, backlog, keep_alive)
        };
        let moving = async move {
            if let Some(old) = old {
                old.cancel().await;
            }
            let socket = bind_beside("for clients", bind).await;
            driver::accept(driver, listening(socket), limits).await;
        };
        *self.clients.borrow_mut() = Some(glommio::spawn_local(moving));
    }

    /// Accepts other servers there, and no longer where it was.
    pub(super) fn move_peers(&self, driver: &Rc<Driver>, addresses: &[ServerAddress]) {
        let Some(settings) = &self.settings.peers else { return };
        let keep_alive = settings.tcp_keep_alive;
        let old = Rc::new(RefCell::new(self.peers.take()));
        let tasks = PeerSettings::ports(addresses, settings.on_all_ips).into_iter().map(
            |(port, address)| {
                let (driver, old) = (Rc::clone(driver), Rc::clone(&old));
                glommio::spawn_local(async move {
                    let all = old.take();
                    for task in all {
                        task.cancel().await;
                    }
                    let bind = move || peers::try_bind(&address, keep_alive);
                    let socket = bind_beside("for other servers", bind).await;
                    peers::accept(driver, port, listening(socket)).await;
                })
            },
        );
        *self.peers.borrow_mut() = tasks.collect();
    }

    /// Accepts no more clients.
    pub(super) async fn stop(&self) {
        let accepting = self.clients.borrow_mut().take();
        if let Some(accepting) = accepting {
            accepting.cancel().await;
        }
    }
}

fn listening(socket: Socket) -> TcpListener {
    // SAFETY: the descriptor is taken out of its owner and given to the new one.
    unsafe { TcpListener::from_raw_fd(socket.into_raw_fd()) }
}

/// Binds on a thread of its own, since looking up a name takes time; again and again.
async fn bind_beside(
    what: &str,
    bind: impl Fn() -> io::Result<Socket> + Clone + Send + 'static,
) -> Socket {
    loop {
        let slot = Arc::new(Mutex::new(None));
        let (there, bind) = (Arc::clone(&slot), bind.clone());
        let thread = thread::Builder::new().name("bind".to_owned()).spawn(move || {
            let bound = bind();
            *there.lock().expect("no holder panics") = Some(bound);
        });
        let bound = match thread {
            Ok(_) => loop {
                if let Some(bound) = slot.lock().expect("no holder panics").take() {
                    break bound;
                }
                glommio::timer::sleep(LOOK_EVERY).await;
            },
            Err(error) => Err(error),
        };
        match bound {
            Ok(socket) => return socket,
            Err(error) => tracing::warn!(%error, "cannot listen {what} yet"),
        }
        glommio::timer::sleep(BIND_EVERY).await;
    }
}
