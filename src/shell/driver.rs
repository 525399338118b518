//! The driver's loop, one for each shard: what is published and what other shards sent, inputs that
//! came in, one end of the turn, outputs carried out, then the reactor.

use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;
use std::future::poll_fn;
use std::net::{IpAddr, SocketAddr};
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::Poll;
use std::time::{Duration, Instant};

use bytes::Bytes;
use glommio::net::{AcceptedTcpStream, TcpListener, TcpStream};
use signal_hook::consts::{SIGINT, SIGTERM};

use super::StartError;
use super::clock::Clocks;
use super::conn::{self, Conn, End};
use super::descriptors;
use super::files::Files;
use super::listener::ConnLimits;
use super::mesh::{Fabric, Letter};
use super::notify::Notify;
use super::peers::{self, Peers};
use super::ports::{PortSettings, Ports};
use crate::limits::DESCRIPTORS_KEPT_FROM_CLIENTS;
use crate::model::{ConnId, ShardId};
use crate::server::recovery::Refusal;
use crate::server::{Halt, Input, Machine, Output, PeerOutput, PeerPort};

/// glommio needs a timer that always runs; it also looks at the clock and at signals for us.
const HEARTBEAT: Duration = Duration::from_millis(5);
/// Heartbeats from one look at the open files to the next.
const OPEN_FILES_BEATS: u64 = 2_000;
/// The wait that ends a turn in the reactor.
const TURN_END: Duration = Duration::from_micros(1);
/// After a failed accept (no descriptors left) the next is tried this much later.
pub(super) const ACCEPT_RETRY: Duration = Duration::from_millis(100);
/// Clients that are refused for want of descriptors come again and again.
const REFUSAL_WARN_EVERY: Duration = Duration::from_secs(10);

/// How a server ended.
#[derive(Debug)]
pub enum Outcome {
    /// It was asked to stop, and everything in flight is durable.
    Stopped,
    /// It must not go on.
    Halted(Halt),
    /// What is on disk cannot be trusted, as a recovery in its course has found.
    NotRecovered(StartError),
}

/// One executor's driver of one machine.
pub(super) struct Driver {
    pub(super) shard: ShardId,
    machine: RefCell<Box<dyn Machine>>,
    clock: Clocks,
    pub(super) fabric: Arc<Fabric>,
    /// The home shard's; satellites ask nothing of the disk.
    files: Option<Rc<Files>>,
    inputs: RefCell<Vec<Input>>,
    wake: Notify,
    /// The reactor was polled since the last turn: something came that only it can bring.
    polled: Cell<bool>,
    conns: RefCell<BTreeMap<End, Rc<Conn>>>,
    next_conn: Cell<u64>,
    pub(super) peers: Peers,
    /// The home shard's: satellites accept nobody.
    ports: Option<Ports>,
    /// Why the server cannot go on, found beside the machine.
    failure: RefCell<Option<StartError>>,
}

impl Driver {
    pub(super) fn new(
        shard: ShardId,
        machine: Box<dyn Machine>,
        clock: Clocks,
        fabric: Arc<Fabric>,
        files: Option<Rc<Files>>,
        ports: Option<PortSettings>,
    ) -> Self {
        Self {
            shard,
            machine: RefCell::new(machine),
            clock,
            fabric,
            files,
            inputs: RefCell::new(Vec::new()),
            wake: Notify::default(),
            polled: Cell::new(false),
            conns: RefCell::new(BTreeMap::new()),
            next_conn: Cell::new(1),
            peers: Peers::default(),
            ports: ports.map(Ports::new),
            failure: RefCell::new(None),
        }
    }

    /// Drives a satellite; ends with the process.
    pub(super) async fn run_satellite(self: Rc<Self>) {
        let never = Arc::new(AtomicBool::new(false));
        glommio::spawn_local(heartbeat(Rc::clone(&self), never)).detach();
        let outcome = self.turns().await;
        unreachable!("a satellite ends nothing: {outcome:?}");
    }

    /// Serves until the machine says that it is over.
    pub(super) async fn run(
        self: Rc<Self>,
        listener: socket2::Socket,
        peers: Vec<(PeerPort, socket2::Socket)>,
        starting: &AtomicBool,
    ) -> Result<Outcome, StartError> {
        let stop = Arc::new(AtomicBool::new(false));
        for signal in [SIGTERM, SIGINT] {
            // A second signal ends the process at once.
            signal_hook::flag::register_conditional_shutdown(signal, 1, Arc::clone(&stop))
                .and_then(|_| signal_hook::flag::register(signal, Arc::clone(&stop)))
                .map_err(|error| StartError::Machine(format!("signals: {error}")))?;
        }
        starting.store(false, Ordering::Relaxed);
        let ports = self.ports.as_ref().expect("only the home shard is run");
        ports.start(&self, listener, peers);
        glommio::spawn_local(heartbeat(Rc::clone(&self), stop)).detach();
        self.wake.notify();
        let outcome = self.turns().await;
        ports.stop().await;
        outcome
    }

    async fn turns(self: &Rc<Self>) -> Result<Outcome, StartError> {
        let mut outputs = Vec::new();
        let mut calls = Vec::new();
        loop {
            self.news().await;
            if let Some(failure) = self.failure.take() {
                return Ok(Outcome::NotRecovered(failure));
            }
            let clock = self.clock.now();
            let inputs = std::mem::take(&mut *self.inputs.borrow_mut());
            let mut read_from = Vec::new();
            let wants_turn;
            // Read before the letters: everything up to it is among them.
            let published = self.fabric.published();
            let letters: Vec<Letter> =
                std::iter::from_fn(|| self.fabric.next(self.shard)).collect();
            {
                let mut machine = self.machine.borrow_mut();
                let mut clients = Vec::new();
                for letter in letters {
                    match letter {
                        Letter::Mesh(mesh) => {
                            machine.step(clock, Input::Mesh(mesh), &mut outputs);
                        }
                        Letter::Client { conn, address, stream } => {
                            clients.push((conn, address, stream));
                        }
                        Letter::Dialled { dial, stream } => peers::dialled(self, dial, stream),
                    }
                }
                machine.step(clock, Input::Published(published), &mut outputs);
                for input in inputs {
                    read_from.extend(End::of_received(&input));
                    machine.step(clock, input, &mut outputs);
                }
                machine.turn_end(clock, &mut outputs);
                wants_turn = machine.wants_turn();
                if wants_turn {
                    self.wake.notify();
                }
                drop(machine);
                for (conn, address, stream) in clients {
                    self.welcome(conn, address, stream.bind_to_executor());
                }
            }
            for output in outputs.drain(..) {
                if let Some(outcome) = self.carry_out(output, &mut calls) {
                    return Ok(outcome);
                }
            }
            // After what was published, so that whoever wakes sees it.
            for shard in calls.drain(..) {
                self.fabric.call(shard);
            }
            for id in read_from {
                if let Some(conn) = self.conns.borrow().get(&id) {
                    conn.open_gate();
                }
            }
            // Tasks that feed each other could go on for ever without the reactor, which carries
            // out log writes. What it has brought itself needs no such wait, which costs more
            // than the turn.
            if wants_turn || !self.polled.replace(false) {
                glommio::timer::sleep(TURN_END).await;
            }
        }
    }

    /// Waits for an input of this executor or for a call of another.
    async fn news(&self) {
        poll_fn(|context| {
            let called = self.fabric.was_called(self.shard, context);
            match self.wake.take_or_wait(context) | called {
                true => Poll::Ready(()),
                false => Poll::Pending,
            }
        })
        .await;
    }

    fn carry_out(self: &Rc<Self>, output: Output, calls: &mut Vec<ShardId>) -> Option<Outcome> {
        match output {
            Output::Send { conn, bytes } => self.send(End::Client(conn), bytes),
            Output::PauseReading { conn } => self.set_paused(End::Client(conn), true),
            Output::ResumeReading { conn } => self.set_paused(End::Client(conn), false),
            Output::Close { conn } => self.close(End::Client(conn)),
            Output::Abort { conn } => {
                if let Some(conn) = self.conn(End::Client(conn)) {
                    conn::abort(&conn);
                }
            }
            Output::File { id, op } => {
                let driver = Rc::clone(self);
                let files = self.files.clone().expect("only the home shard has files");
                let work = async move {
                    let result = files.run(op).await;
                    driver.was_polled();
                    driver.input(Input::FileDone { id, result });
                };
                glommio::spawn_local(work).detach();
            }
            Output::Read { id, part } => {
                let driver = Rc::clone(self);
                let files = self.files.clone().expect("only the home shard has files");
                let work = async move {
                    let result = files.read(part).await;
                    driver.was_polled();
                    driver.input(Input::FileRead { id, result });
                };
                glommio::spawn_local(work).detach();
            }
            Output::Mesh { to, message, urgent } => {
                self.fabric.post(to, Letter::Mesh(message));
                if urgent {
                    calls.push(to);
                }
            }
            Output::Publish(published) => self.fabric.publish(published),
            Output::Listen(address) => {
                if let Some(ports) = &self.ports {
                    ports.move_clients(self, address);
                }
            }
            Output::Peer(PeerOutput::Listen { addresses }) => {
                if let Some(ports) = &self.ports {
                    ports.move_peers(self, &addresses);
                }
            }
            Output::Peer(PeerOutput::Dial { dial, addresses, within }) => {
                peers::dial(self, dial, addresses, within);
            }
            Output::Peer(PeerOutput::Send { link, bytes }) => self.send(End::Peer(link), bytes),
            Output::Peer(PeerOutput::PauseReading { link }) => {
                self.set_paused(End::Peer(link), true);
            }
            Output::Peer(PeerOutput::ResumeReading { link }) => {
                self.set_paused(End::Peer(link), false);
            }
            Output::Peer(PeerOutput::Close { link }) => self.close(End::Peer(link)),
            Output::Recover { keep_until } => {
                let driver = Rc::clone(self);
                let files = self.files.clone().expect("only the home shard has files");
                let work = async move {
                    match files.recover(keep_until).await {
                        Ok(recovered) => driver.input(Input::Recovered(Box::new(recovered))),
                        Err(StartError::Refused(refusal @ Refusal::Cut { .. })) => {
                            tracing::warn!("{refusal}; it is asked for whole");
                            driver.input(Input::NotCut);
                        }
                        Err(failure) => {
                            *driver.failure.borrow_mut() = Some(failure);
                            driver.wake.notify();
                        }
                    }
                };
                glommio::spawn_local(work).detach();
            }
            Output::Halt(halt) => return Some(Outcome::Halted(halt)),
            Output::Stopped => return Some(Outcome::Stopped),
        }
        None
    }

    fn conn(&self, end: End) -> Option<Rc<Conn>> {
        self.conns.borrow().get(&end).map(Rc::clone)
    }

    fn send(self: &Rc<Self>, end: End, bytes: Bytes) {
        if let Some(conn) = self.conn(end) {
            conn::send(self, end, &conn, bytes);
        }
    }

    fn set_paused(&self, end: End, paused: bool) {
        if let Some(conn) = self.conn(end) {
            conn.set_paused(paused);
        }
    }

    fn close(&self, end: End) {
        if let Some(conn) = self.conn(end) {
            glommio::spawn_local(conn::close(end, conn)).detach();
        }
    }

    /// Hands an input to the machine in the next turn.
    pub(super) fn input(&self, input: Input) {
        self.inputs.borrow_mut().push(input);
        self.wake.notify();
    }

    /// What comes next could not have come without the reactor.
    pub(super) fn was_polled(&self) {
        self.polled.set(true);
    }

    /// Bytes went out. `news` is whether that alone is worth a turn.
    pub(super) fn sent(&self, end: End, bytes: usize, news: bool) {
        self.inputs.borrow_mut().push(end.sent(bytes));
        if news {
            self.wake.notify();
        }
    }

    /// The connection's stream is about to be dropped.
    pub(super) fn forget(&self, end: End) {
        let conn = self.conns.borrow_mut().remove(&end);
        match (conn, end) {
            (Some(conn), End::Client(_)) => {
                self.fabric.counts.release(conn.address);
                self.fabric.client_gone(self.shard);
            }
            (Some(_), End::Peer(_)) => self.peers.lost(),
            (None, _) => {}
        }
    }

    /// Counts a new client in and finds a shard for it.
    fn admit(self: &Rc<Self>, accepted: AcceptedTcpStream, limits: ConnLimits) {
        // An error closes the descriptor.
        let Ok(peer) = accepted.peer_addr() else { return };
        let address = peer.ip().to_canonical();
        if let Err(refusal) = self.fabric.counts.admit(address, limits) {
            tracing::warn!("{refusal}");
            drop(accepted.bind_to_executor());
            return;
        }
        let conn = ConnId(self.next_conn.get());
        self.next_conn.set(conn.0 + 1);
        let shard = self.fabric.place_client();
        if shard == self.shard {
            self.welcome(conn, address, accepted.bind_to_executor());
        } else {
            self.fabric.post(shard, Letter::Client { conn, address, stream: accepted });
            self.fabric.call(shard);
        }
    }

    /// Takes a client that was counted in.
    fn welcome(self: &Rc<Self>, id: ConnId, address: IpAddr, stream: TcpStream) {
        if let Err(error) = stream.set_nodelay(true) {
            tracing::debug!(%address, %error, "TCP_NODELAY was refused");
        }
        match stream.peer_addr() {
            Ok(peer) => {
                // Where IPv6 and IPv4 come in at one port, IPv4 looks like a part of IPv6.
                let peer = SocketAddr::new(address, peer.port());
                self.input(Input::Opened { conn: id, peer });
                self.start_reading(End::Client(id), address, stream);
            }
            // It is gone already.
            Err(_) => {
                self.fabric.counts.release(address);
                self.fabric.client_gone(self.shard);
            }
        }
    }

    /// Takes a connection whose beginning is among the inputs.
    pub(super) fn start_reading(self: &Rc<Self>, end: End, address: IpAddr, stream: TcpStream) {
        let conn = Rc::new(Conn::new(address, &stream));
        self.conns.borrow_mut().insert(end, Rc::clone(&conn));
        glommio::spawn_local(conn::read(Rc::clone(self), end, conn, stream)).detach();
    }
}

/// Accepts clients for ever.
pub(super) async fn accept(driver: Rc<Driver>, listener: TcpListener, limits: ConnLimits) {
    let mut warned: Option<Instant> = None;
    loop {
        match listener.shared_accept().await {
            Ok(accepted) if descriptors::next_is_reserved(DESCRIPTORS_KEPT_FROM_CLIENTS) => {
                drop(accepted.bind_to_executor());
                let now = Instant::now();
                if warned.is_none_or(|warned| REFUSAL_WARN_EVERY < now - warned) {
                    warned = Some(now);
                    tracing::warn!(
                        "a client was refused: {DESCRIPTORS_KEPT_FROM_CLIENTS} descriptors are \
                         kept for files and other servers (raise `ulimit -n` or LimitNOFILE)"
                    );
                }
            }
            Ok(accepted) => driver.admit(accepted, limits),
            Err(error) => {
                tracing::warn!(%error, "a connection was not accepted");
                glommio::timer::sleep(ACCEPT_RETRY).await;
            }
        }
    }
}

async fn heartbeat(driver: Rc<Driver>, stop: Arc<AtomicBool>) {
    let mut stopping = false;
    for beat in 0_u64.. {
        glommio::timer::sleep(HEARTBEAT).await;
        if driver.files.is_some() && beat % OPEN_FILES_BEATS == 0 {
            let (count, max) = descriptors::in_use();
            driver.input(Input::OpenFiles { count, max });
        }
        let due = driver.machine.borrow().next_timer();
        if due.is_some_and(|due| due <= driver.clock.now().now) {
            driver.input(Input::Timer);
        }
        if driver.fabric.has_letters(driver.shard) {
            driver.wake.notify();
        }
        if stop.load(Ordering::Relaxed) && !stopping {
            stopping = true;
            driver.input(Input::Stop);
        }
    }
}
