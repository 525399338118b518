//! The world of one seed: virtual time, its events, one server, its disk and its clients.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet, BinaryHeap};
use std::fmt::Display;
use std::net::SocketAddr;

use bytes::Bytes;

pub(super) use super::boot::{SATELLITES_MAX, options_of};
use super::boot::{new_server, recover};
use super::client::Client;
use super::disk::{Crash, Disk};
use super::history::History;
use super::plant::Plant;
use super::replay;
use super::shards::Shards;
use super::stall::{Stalls, judge_expiries};
use super::trace;
use crate::base::{Duration, FileFailure, FileName, FileOp, FileOpId, Instant, Prng, WallMs};
use crate::model::{ConnId, ShardId};
use crate::server::{Clock, Input, Machine, Mesh, Output, Server};

/// How long a seed runs, in virtual time.
const RUN_FOR: Duration = Duration::from_millis(4_000);
const CLIENTS: usize = 4;
/// Crashes per seed.
const CRASHES_MAX: u64 = 4;
/// Disk events within which the first crash of a small history comes.
const DISK_EVENTS_OF_SMALL: u64 = 60;
/// One of so many seeds has a drive that misdirects a log write.
const SEEDS_PER_MISDIRECTION: u64 = 8;

/// What a seed that found nothing did.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Report {
    /// Hash of everything that happened, in order.
    pub trace: u32,
    /// Requests answered.
    pub answered: u64,
    /// Processes killed.
    pub kills: u64,
    /// Power cuts.
    pub power_cuts: u64,
    /// Failed writes and flushes.
    pub failures: u64,
    /// Log writes that the drive put where an earlier one was; the next start must refuse.
    pub misdirected: u64,
    /// Times that the server or a shard was not run for a while.
    pub stalls: u64,
    /// Sessions that expired: those that no client knew of.
    pub expired: u64,
}

impl Report {
    /// Adds what another seed did.
    pub fn add(&mut self, other: &Self) {
        self.trace ^= other.trace;
        self.answered += other.answered;
        self.kills += other.kills;
        self.power_cuts += other.power_cuts;
        self.failures += other.failures;
        self.misdirected += other.misdirected;
        self.stalls += other.stalls;
        self.expired += other.expired;
    }
}

/// What a seed found.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct Failure(String);

impl Failure {
    pub(super) const fn new(text: String) -> Self {
        Self(text)
    }

    pub(super) fn because(error: impl Display) -> Self {
        Self(error.to_string())
    }
}

/// Runs one seed to its end, or to the first thing that must not be.
pub fn run(seed: u64, plant: Plant) -> Result<Report, Failure> {
    let mut world = World::new(seed, plant)?;
    world.run()?;
    if !world.refused {
        replay::check(&world.history, world.server.tree())?;
    }
    Ok(world.report)
}

#[derive(Debug)]
enum Event {
    ToServer(ConnId, Bytes),
    ToClient(ConnId, Bytes),
    ServerClosed(ConnId),
    /// A client has dialled.
    Opened(ConnId),
    /// The server hears that a connection is gone.
    Closed(ConnId),
    FileDone(FileOpId),
    /// A message to the home shard.
    Mesh(Mesh),
    /// A satellite looks around.
    ShardTurn(ShardId),
    Act(usize),
    /// The home shard goes on with what it left over.
    Turn,
    Timer,
}

pub(super) struct World {
    prng: Prng,
    plant: Plant,
    now: Instant,
    sequence: u64,
    queue: BinaryHeap<Reverse<(Instant, u64)>>,
    events: BTreeMap<u64, Event>,
    /// Earliest time of the next message each way, so that a stream stays in order.
    streams: BTreeMap<(ConnId, bool), Instant>,
    pub(super) server: Server,
    /// An [`Event::Turn`] is on its way.
    turn_waits: bool,
    shards: Shards,
    /// Earliest time of the next message of a satellite to the home shard.
    mesh: BTreeMap<ShardId, Instant>,
    /// Which shard has a connection.
    homes: BTreeMap<ConnId, ShardId>,
    disk: Disk,
    in_flight: BTreeMap<FileOpId, FileOp>,
    conns: BTreeMap<ConnId, usize>,
    next_conn: u64,
    clients: Vec<Client>,
    pub(super) history: History,
    /// Disk events left before the next crash.
    crash_in: u64,
    crashes_left: u64,
    incarnation: u64,
    misdirection: Misdirection,
    stalls: Stalls,
    /// A start was refused, as it had to be.
    refused: bool,
    pub(super) report: Report,
}

/// What becomes of a seed's misdirected write.
#[derive(Debug)]
enum Misdirection {
    /// None in this seed.
    Never,
    /// After so many log writes; then the last one before it.
    After(u64, Option<(FileName, u64)>),
    /// Nothing from here on follows what is before it.
    Done(FileName, u64),
}

impl World {
    pub(super) fn new(seed: u64, plant: Plant) -> Result<Self, Failure> {
        let mut prng = Prng::new(seed);
        let mut disk = Disk::new(plant);
        let recovered = recover(&mut disk, &mut prng)?;
        let (server, shards) = new_server(recovered, plant, &mut prng, Instant::default());
        let crashes_left = 1 + prng.below(CRASHES_MAX);
        let crash_in = prng.below(400);
        let misdirects = match plant {
            Plant::None => prng.one_in(SEEDS_PER_MISDIRECTION),
            other => other == Plant::ChainIgnored,
        };
        let misdirection = match misdirects {
            true => Misdirection::After(prng.below(300), None),
            false => Misdirection::Never,
        };
        let stalls = Stalls::new(seed, plant, CLIENTS, RUN_FOR);
        let mut world = Self {
            plant,
            now: Instant::default(),
            sequence: 0,
            queue: BinaryHeap::new(),
            events: BTreeMap::new(),
            streams: BTreeMap::new(),
            server,
            turn_waits: false,
            shards,
            mesh: BTreeMap::new(),
            homes: BTreeMap::new(),
            disk,
            in_flight: BTreeMap::new(),
            conns: BTreeMap::new(),
            next_conn: 1,
            clients: (0..CLIENTS).map(Client::new).collect(),
            history: History::default(),
            crash_in,
            crashes_left,
            incarnation: 0,
            misdirection,
            stalls,
            refused: false,
            report: Report::default(),
            prng,
        };
        for number in 0..CLIENTS {
            world.after_micros(1_000, Event::Act(number));
        }
        if let Some(timeout_ms) = world.stalls.timeout_ms() {
            world.clients.iter_mut().for_each(|client| client.timeout_ms = timeout_ms);
        }
        world.after_micros(5_000, Event::Timer);
        world.turn()?;
        Ok(world)
    }

    /// Makes each client send only so many simple requests, and lets crashes come early.
    pub(super) fn keep_small(&mut self, requests: u64) {
        for client in &mut self.clients {
            client.keep_small(requests);
        }
        self.stalls.clear();
        self.misdirection = Misdirection::Never;
        self.crash_in %= DISK_EVENTS_OF_SMALL;
    }

    /// Goes on to the end, which is a crash, or to the first thing that must not be.
    pub(super) fn run(&mut self) -> Result<(), Failure> {
        while self.now < Instant(RUN_FOR.0) + self.stalls.total && !self.refused {
            if !self.next_event()? {
                break;
            }
        }
        if !self.refused {
            self.crash_and_recover(Crash::PowerCut)?;
        }
        self.report.answered = self.clients.iter().map(|client| client.answered).sum();
        Ok(())
    }

    fn clock(&self) -> Clock {
        let ms = i64::try_from(self.now.as_millis()).unwrap_or(i64::MAX);
        Clock { now: self.now, wall: WallMs(1_700_000_000_000 + ms) }
    }

    fn after_micros(&mut self, up_to: u64, event: Event) -> Instant {
        let at = self.now + Duration::from_micros(1 + self.prng.below(up_to));
        self.at(at, event);
        at
    }

    fn at(&mut self, at: Instant, event: Event) {
        self.sequence += 1;
        self.queue.push(Reverse((at, self.sequence)));
        self.events.insert(self.sequence, event);
    }

    /// A message on a stream: behind everything sent before on the same stream.
    fn stream(&mut self, conn: ConnId, to_server: bool, event: Event) {
        let earliest = self.streams.get(&(conn, to_server)).copied().unwrap_or_default();
        let at = self.now + Duration::from_micros(1 + self.prng.below(300));
        let at = at.max(earliest);
        self.streams.insert((conn, to_server), at);
        self.at(at, event);
    }

    fn next_event(&mut self) -> Result<bool, Failure> {
        let Some(Reverse((at, sequence))) = self.queue.pop() else { return Ok(false) };
        let Some(event) = self.events.remove(&sequence) else { return Ok(true) };
        self.now = self.now.max(at);
        let began = self.stalls.tick(self.now, self.shards.count(), self.plant);
        self.report.stalls += u64::from(began);
        if let Some(until) = self.stalled_until(&event) {
            self.at(until, event);
            return Ok(true);
        }
        let (now, trace) = (self.now, &mut self.report.trace);
        match &event {
            Event::ToServer(conn, bytes) => trace::take(trace, now, &("to server", conn), bytes),
            Event::ToClient(conn, bytes) => trace::take(trace, now, &("to client", conn), bytes),
            Event::Mesh(mesh) => trace::take(trace, now, &mesh.sender(), &[]),
            event => trace::take(trace, now, event, &[]),
        }
        match event {
            Event::ToServer(conn, bytes) => {
                if self.conns.contains_key(&conn) || self.stalls.has_left(conn) {
                    self.conn_input(conn, Input::Received { conn, bytes })?;
                }
            }
            Event::ToClient(conn, bytes) => {
                let number = self.conns.get(&conn).copied().unwrap_or(CLIENTS);
                if let Some(client) = self.clients.get_mut(number) {
                    client.receive(bytes, &mut self.history, |zxid| zxid)?;
                    self.stalls.heard(number, self.now);
                }
            }
            Event::ServerClosed(conn) => {
                if let Some(client) =
                    self.conns.remove(&conn).and_then(|at| self.clients.get_mut(at))
                {
                    client.disconnected();
                }
                self.tell(conn, Event::Closed(conn))?;
            }
            Event::Opened(_) | Event::Closed(_) => self.conn_event(&event)?,
            Event::Mesh(mesh) => self.step(Input::Mesh(mesh))?,
            Event::ShardTurn(shard) => self.shard_turn(shard)?,
            Event::FileDone(id) => self.file_done(id)?,
            Event::Act(number) => self.act(number)?,
            Event::Turn => self.turn_waits = false,
            Event::Timer => {
                let is_stalled = |shard| self.stalls.until(shard, false).is_some();
                let mut waiting = self.shards.waiting(self.now);
                waiting.retain(|shard| !is_stalled(*shard));
                let is_due = self.server.next_timer().is_some_and(|due| due <= self.now);
                if is_due && !is_stalled(ShardId(0)) {
                    self.step(Input::Timer)?;
                }
                for shard in waiting {
                    self.call(shard);
                }
                let up_to = if self.stalls.is_stalled() { 50_000 } else { 5_000 };
                self.after_micros(up_to, Event::Timer);
            }
        }
        self.turn()?;
        Ok(true)
    }

    /// Until when an event waits because the shard that it is for is not run.
    fn stalled_until(&self, event: &Event) -> Option<Instant> {
        let home = |conn: &ConnId| self.homes.get(conn).copied().unwrap_or_default();
        match event {
            Event::ToServer(conn, _) | Event::Opened(conn) | Event::Closed(conn) => {
                self.stalls.until(home(conn), true)
            }
            Event::FileDone(_) | Event::Mesh(_) | Event::Turn => {
                self.stalls.until(ShardId(0), false)
            }
            Event::ShardTurn(shard) => self.stalls.until(*shard, false),
            Event::ToClient(..) | Event::ServerClosed(_) | Event::Act(_) | Event::Timer => None,
        }
    }

    /// Something happened to a connection: the server hears of it, once it is run.
    fn tell(&mut self, conn: ConnId, event: Event) -> Result<(), Failure> {
        match self.stalled_until(&event).is_some() || self.stalls.has_left(conn) {
            true => {
                self.stream(conn, true, event);
                Ok(())
            }
            false => self.conn_event(&event),
        }
    }

    fn conn_event(&mut self, event: &Event) -> Result<(), Failure> {
        match *event {
            Event::Opened(conn) => {
                let peer = SocketAddr::from(([127, 0, 0, 1], 1000));
                self.conn_input(conn, Input::Opened { conn, peer })
            }
            Event::Closed(conn) => self.conn_input(conn, Input::Closed { conn }),
            _ => Ok(()),
        }
    }

    /// A client that has waited too long for anything leaves its connection.
    fn leave(&mut self, number: usize) -> Result<(), Failure> {
        let Some(client) = self.clients.get_mut(number) else { return Ok(()) };
        let Some(conn) = client.conn.filter(|_| self.stalls.gives_up(number, self.now)) else {
            return Ok(());
        };
        client.disconnected();
        self.conns.remove(&conn);
        if self.stalls.leave(conn) {
            client.forget();
        }
        self.tell(conn, Event::Closed(conn))
    }

    fn act(&mut self, number: usize) -> Result<(), Failure> {
        let up_to = if self.stalls.is_stalled() { 400_000 } else { 4_000 };
        self.after_micros(up_to, Event::Act(number));
        self.leave(number)?;
        let Some(client) = self.clients.get_mut(number) else { return Ok(()) };
        let (conn, bytes) = match client.conn {
            Some(conn) => match client.act(&mut self.prng, CLIENTS, &mut self.history) {
                Some(bytes) => (conn, bytes),
                None => return Ok(()),
            },
            None => {
                let conn = ConnId(self.next_conn);
                self.next_conn += 1;
                let hello = client.connect(conn);
                self.conns.insert(conn, number);
                self.stalls.heard(number, self.now);
                let home = self.prng.below(u64::from(self.shards.count()) + 1);
                self.homes.insert(conn, ShardId(u16::try_from(home).unwrap_or_default()));
                self.tell(conn, Event::Opened(conn))?;
                (conn, hello)
            }
        };
        // The network cuts the stream where it likes.
        let cut = usize::try_from(self.prng.below(bytes.len() as u64)).unwrap_or(0);
        for part in [bytes.slice(..cut), bytes.slice(cut..)] {
            if !part.is_empty() {
                self.stream(conn, true, Event::ToServer(conn, part));
            }
        }
        Ok(())
    }

    /// Something happened on a connection.
    fn conn_input(&mut self, conn: ConnId, input: Input) -> Result<(), Failure> {
        match self.homes.get(&conn).copied().unwrap_or_default() {
            ShardId(0) => self.step(input),
            shard => {
                self.shards.input(shard, input);
                self.call(shard);
                Ok(())
            }
        }
    }

    /// Wakes a satellite, which takes its time.
    fn call(&mut self, shard: ShardId) {
        if self.shards.call(shard) {
            let slow = self.prng.one_in(20);
            self.after_micros(if slow { 20_000 } else { 200 }, Event::ShardTurn(shard));
        }
    }

    fn shard_turn(&mut self, shard: ShardId) -> Result<(), Failure> {
        let outputs = self.shards.turn(shard, self.clock());
        if self.shards.wants_turn(shard) {
            self.call(shard);
        }
        self.carry_out(outputs)
    }

    fn step(&mut self, input: Input) -> Result<(), Failure> {
        let mut outputs = Vec::new();
        self.server.step(self.clock(), input, &mut outputs);
        self.carry_out(outputs)
    }

    fn turn(&mut self) -> Result<(), Failure> {
        if self.stalls.until(ShardId(0), false).is_some() {
            return Ok(());
        }
        let mut outputs = Vec::new();
        self.server.turn_end(self.clock(), &mut outputs);
        if self.server.wants_turn() && !std::mem::replace(&mut self.turn_waits, true) {
            self.after_micros(50, Event::Turn);
        }
        self.carry_out(outputs)
    }

    fn carry_out(&mut self, outputs: Vec<Output>) -> Result<(), Failure> {
        let incarnation = self.incarnation;
        for output in outputs {
            if incarnation != self.incarnation {
                // The server that asked for it is dead.
                return Ok(());
            }
            match output {
                Output::Send { conn, bytes } => {
                    let sent = bytes.len();
                    let client = self.conns.get(&conn).and_then(|at| self.clients.get(*at));
                    let greeted = client.is_some_and(Client::is_attached);
                    let bytes = self.plant.tamper(bytes, greeted, &mut self.prng);
                    self.stream(conn, false, Event::ToClient(conn, bytes));
                    self.conn_input(conn, Input::Sent { conn, bytes: sent })?;
                }
                Output::Close { conn } | Output::Abort { conn } => {
                    self.stream(conn, false, Event::ServerClosed(conn));
                }
                Output::File { id, op } => {
                    self.history.logged(&op)?;
                    self.report.expired += judge_expiries(&op, &self.clients)?;
                    self.in_flight.insert(id, op);
                    self.after_micros(400, Event::FileDone(id));
                    if self.plant == Plant::AckBeforeFlush {
                        let result = Ok(());
                        self.step(Input::FileDone { id, result })?;
                    }
                    if self.crash_is_due()? {
                        return Ok(());
                    }
                }
                Output::Halt(_) => {
                    return self.crash_and_recover(Crash::Kill);
                }
                Output::Mesh { to: ShardId(0), message, .. } => {
                    let earliest = self.mesh.get(&message.sender()).copied().unwrap_or_default();
                    let at = self.now + Duration::from_micros(1 + self.prng.below(300));
                    let at = at.max(earliest);
                    self.mesh.insert(message.sender(), at);
                    self.at(at, Event::Mesh(message));
                }
                Output::Mesh { to, message, urgent } => {
                    self.shards.post(to, message);
                    if urgent {
                        self.call(to);
                    }
                    // It may look between the message and the publication.
                    if self.prng.one_in(4) && self.stalls.until(to, false).is_none() {
                        self.shard_turn(to)?;
                    }
                }
                Output::Publish(published) => self.shards.publish(published),
                Output::PauseReading { .. } | Output::ResumeReading { .. } | Output::Stopped => {}
                Output::Peer(_)
                | Output::Listen(_)
                | Output::Recover { .. }
                | Output::Read { .. } => {
                    return Err(Failure::new(format!(
                        "a server that is alone asks for {output:?}"
                    )));
                }
            }
        }
        Ok(())
    }

    fn file_done(&mut self, id: FileOpId) -> Result<(), Failure> {
        let Some(op) = self.in_flight.remove(&id) else { return Ok(()) };
        if self.crash_is_due()? {
            return Ok(());
        }
        let fails = self.plant == Plant::None && self.prng.one_in(20_000);
        let result = if fails {
            self.report.failures += 1;
            let no_space = self.prng.one_in(2);
            self.history.disk_was_full |= no_space;
            Err(FileFailure { no_space, no_descriptor: false, text: "simulated".to_owned() })
        } else {
            let op = self.misdirect(op);
            self.disk.run(&op)
        };
        if self.plant == Plant::AckBeforeFlush {
            return Ok(());
        }
        self.step(Input::FileDone { id, result })
    }

    /// What the drive makes of an operation: one batch of the log may land on the batch before it.
    fn misdirect(&mut self, op: FileOp) -> FileOp {
        let Misdirection::After(left, last) = &mut self.misdirection else { return op };
        let FileOp::Write { file, offset, bytes, durable: true } = &op else { return op };
        if !file.name.starts_with("txnlog.") || file.name.ends_with(".new") {
            return op;
        }
        match last {
            Some((before, at)) if *left == 0 && before == file => {
                let (at, bytes) = (*at, bytes.clone());
                self.misdirection = Misdirection::Done(file.clone(), at);
                self.report.misdirected += 1;
                self.crashes_left += 1;
                self.crash_in = self.prng.below(40);
                FileOp::Write { file: file.clone(), offset: at, bytes, durable: true }
            }
            _ => {
                *left = left.saturating_sub(1);
                *last = Some((file.clone(), *offset));
                op
            }
        }
    }

    /// Counts a disk event; crashes when its number has come.
    fn crash_is_due(&mut self) -> Result<bool, Failure> {
        if self.crashes_left == 0 {
            return Ok(false);
        }
        if self.crash_in != 0 {
            self.crash_in -= 1;
            return Ok(false);
        }
        self.crashes_left -= 1;
        self.crash_in = self.prng.below(600);
        let crash = if self.prng.one_in(2) { Crash::Kill } else { Crash::PowerCut };
        self.crash_and_recover(crash)?;
        Ok(true)
    }

    fn crash_and_recover(&mut self, crash: Crash) -> Result<(), Failure> {
        match crash {
            Crash::Kill => self.report.kills += 1,
            Crash::PowerCut => self.report.power_cuts += 1,
        }
        for op in std::mem::take(&mut self.in_flight).into_values() {
            self.disk.leave_in_flight(&op, crash, &mut self.prng);
        }
        self.disk.crash(crash, &mut self.prng);
        self.incarnation += 1;
        self.stalls.crashed();
        // Bytes on the wire are lost with the connections.
        self.conns.clear();
        self.streams.clear();
        self.mesh.clear();
        self.homes.clear();
        self.shards.check(self.server.tree())?;
        for client in &mut self.clients {
            client.disconnected();
        }
        self.events.retain(|_, event| matches!(event, Event::Act(_) | Event::Timer));
        if let Misdirection::Done(file, at) = &self.misdirection
            && self.plant == Plant::ChainIgnored
        {
            self.disk.forget_behind(file, *at);
        }
        let recovered = recover(&mut self.disk, &mut self.prng);
        if matches!(self.misdirection, Misdirection::Done(..)) && self.plant == Plant::None {
            self.refused = true;
            return match recovered {
                Ok(_) => Err(Failure::new("a misdirected log write was not noticed".to_owned())),
                Err(_) => Ok(()),
            };
        }
        let mut recovered = recovered?;
        if self.plant == Plant::SessionForgotten {
            recovered.sessions.pop();
        }
        let sessions: BTreeSet<_> = recovered.sessions.iter().map(|(id, _)| *id).collect();
        if let Some(owner) = recovered.tree.ephemeral_sessions().find(|id| !sessions.contains(id)) {
            return Err(Failure::new(format!("ephemerals of the ended session {owner}")));
        }
        self.history.ends_at(recovered.last_zxid);
        (self.server, self.shards) = new_server(recovered, self.plant, &mut self.prng, self.now);
        self.turn()
    }
}
