//! The driver's loop: inputs that came in, one end of the turn, outputs carried out, then the
//! reactor.

use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;
use std::os::fd::{FromRawFd, IntoRawFd};
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use glommio::net::{TcpListener, TcpStream};
use signal_hook::consts::{SIGINT, SIGTERM};

use super::StartError;
use super::clock::Clocks;
use super::conn::{self, Conn};
use super::files::Files;
use super::listener::{ConnCounts, ConnLimits};
use super::notify::Notify;
use crate::model::ConnId;
use crate::server::{Halt, Input, Machine, Output};

/// glommio needs a timer that always runs; it also looks at the clock and at signals for us.
const HEARTBEAT: Duration = Duration::from_millis(5);
/// The wait that ends each turn in the reactor.
const TURN_END: Duration = Duration::from_micros(1);
/// After a failed accept (no descriptors left) the next is tried this much later.
const ACCEPT_RETRY: Duration = Duration::from_millis(100);

/// How a server ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// It was asked to stop, and everything in flight is durable.
    Stopped,
    /// It must not go on.
    Halted(Halt),
}

/// One executor's driver of one machine.
pub(super) struct Driver {
    machine: RefCell<Box<dyn Machine>>,
    clock: Clocks,
    files: Rc<Files>,
    inputs: RefCell<Vec<Input>>,
    wake: Notify,
    conns: RefCell<BTreeMap<ConnId, Rc<Conn>>>,
    counts: ConnCounts,
    next_conn: Cell<u64>,
}

impl Driver {
    pub(super) fn new(machine: Box<dyn Machine>, clock: Clocks, files: Rc<Files>) -> Self {
        Self {
            machine: RefCell::new(machine),
            clock,
            files,
            inputs: RefCell::new(Vec::new()),
            wake: Notify::default(),
            conns: RefCell::new(BTreeMap::new()),
            counts: ConnCounts::default(),
            next_conn: Cell::new(1),
        }
    }

    /// Serves until the machine says that it is over.
    pub(super) async fn run(
        self: Rc<Self>,
        listener: socket2::Socket,
        limits: ConnLimits,
    ) -> Result<Outcome, StartError> {
        let stop = Arc::new(AtomicBool::new(false));
        for signal in [SIGTERM, SIGINT] {
            // A second signal ends the process at once.
            signal_hook::flag::register_conditional_shutdown(signal, 1, Arc::clone(&stop))
                .and_then(|_| signal_hook::flag::register(signal, Arc::clone(&stop)))
                .map_err(|error| StartError::Machine(format!("signals: {error}")))?;
        }
        // SAFETY: the descriptor is taken out of its owner and given to the new one.
        let listener = unsafe { TcpListener::from_raw_fd(listener.into_raw_fd()) };
        let accepting = glommio::spawn_local(accept(Rc::clone(&self), listener, limits));
        glommio::spawn_local(heartbeat(Rc::clone(&self), stop)).detach();
        self.wake.notify();
        let outcome = self.turns().await;
        accepting.cancel().await;
        Ok(outcome)
    }

    async fn turns(self: &Rc<Self>) -> Outcome {
        let mut outputs = Vec::new();
        loop {
            self.wake.notified().await;
            let clock = self.clock.now();
            let inputs = std::mem::take(&mut *self.inputs.borrow_mut());
            let mut read_from = Vec::new();
            {
                let mut machine = self.machine.borrow_mut();
                for input in inputs {
                    if let Input::Received { conn, .. } = &input {
                        read_from.push(*conn);
                    }
                    machine.step(clock, input, &mut outputs);
                }
                machine.turn_end(clock, &mut outputs);
            }
            for output in outputs.drain(..) {
                if let Some(outcome) = self.carry_out(output) {
                    return outcome;
                }
            }
            for id in read_from {
                if let Some(conn) = self.conns.borrow().get(&id) {
                    conn.open_gate();
                }
            }
            glommio::timer::sleep(TURN_END).await;
        }
    }

    fn carry_out(self: &Rc<Self>, output: Output) -> Option<Outcome> {
        match output {
            Output::Send { conn: id, bytes } => {
                if let Some(conn) = self.conn(id) {
                    conn::send(self, id, &conn, bytes);
                }
            }
            Output::PauseReading { conn: id } => {
                if let Some(conn) = self.conn(id) {
                    conn.set_paused(true);
                }
            }
            Output::ResumeReading { conn: id } => {
                if let Some(conn) = self.conn(id) {
                    conn.set_paused(false);
                }
            }
            Output::Close { conn: id } => {
                if let Some(conn) = self.conn(id) {
                    glommio::spawn_local(conn::close(conn)).detach();
                }
            }
            Output::File { id, op } => {
                let driver = Rc::clone(self);
                let work = async move {
                    let result = driver.files.run(op).await;
                    driver.input(Input::FileDone { id, result });
                };
                glommio::spawn_local(work).detach();
            }
            // One shard: it has heard of everything that is published.
            Output::Publish(_) => {}
            Output::Halt(halt) => return Some(Outcome::Halted(halt)),
            Output::Stopped => return Some(Outcome::Stopped),
        }
        None
    }

    fn conn(&self, id: ConnId) -> Option<Rc<Conn>> {
        self.conns.borrow().get(&id).map(Rc::clone)
    }

    /// Hands an input to the machine in the next turn.
    pub(super) fn input(&self, input: Input) {
        self.inputs.borrow_mut().push(input);
        self.wake.notify();
    }

    /// Bytes went out. `news` is whether that alone is worth a turn.
    pub(super) fn sent(&self, conn: ConnId, bytes: usize, news: bool) {
        self.inputs.borrow_mut().push(Input::Sent { conn, bytes });
        if news {
            self.wake.notify();
        }
    }

    /// The connection's stream is about to be dropped.
    pub(super) fn forget(&self, id: ConnId) {
        if let Some(conn) = self.conns.borrow_mut().remove(&id) {
            self.counts.release(conn.address);
        }
    }

    fn admit(self: &Rc<Self>, stream: TcpStream, limits: ConnLimits) {
        let Ok(peer) = stream.peer_addr() else { return };
        let address = peer.ip().to_canonical();
        if !self.counts.admit(address, limits) {
            tracing::warn!(%address, "closed: too many connections (maxClientCnxns, maxCnxns)");
            return;
        }
        if let Err(error) = stream.set_nodelay(true) {
            tracing::debug!(%peer, %error, "TCP_NODELAY was refused");
        }
        let id = ConnId(self.next_conn.get());
        self.next_conn.set(id.0 + 1);
        let conn = Rc::new(Conn::new(address, &stream));
        self.conns.borrow_mut().insert(id, Rc::clone(&conn));
        self.input(Input::Opened { conn: id, peer });
        glommio::spawn_local(conn::read(Rc::clone(self), id, conn, stream)).detach();
    }
}

async fn accept(driver: Rc<Driver>, listener: TcpListener, limits: ConnLimits) {
    loop {
        match listener.shared_accept().await {
            Ok(accepted) => driver.admit(accepted.bind_to_executor(), limits),
            Err(error) => {
                tracing::warn!(%error, "a connection was not accepted");
                glommio::timer::sleep(ACCEPT_RETRY).await;
            }
        }
    }
}

async fn heartbeat(driver: Rc<Driver>, stop: Arc<AtomicBool>) {
    let mut stopping = false;
    loop {
        glommio::timer::sleep(HEARTBEAT).await;
        let due = driver.machine.borrow().next_timer();
        if due.is_some_and(|due| due <= driver.clock.now().now) {
            driver.input(Input::Timer);
        }
        if stop.load(Ordering::Relaxed) && !stopping {
            stopping = true;
            driver.input(Input::Stop);
        }
    }
}
