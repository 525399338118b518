//! The world of one seed of an ensemble: several servers with a disk each, the network between
//! them, clients that go from server to server. First faults, then none: a healed ensemble must
//! serve again, all servers must hold the same, and what clients were told must be so.
//!
//! The faults: processes are killed and the power is cut, also at any disk operation, and they
//! start again; single disk operations take a hundred times as long; one server is cut off from all
//! others, one direction between two servers is cut (what was sent arrives when it is healed),
//! connections break. Dials to servers that are down are refused, dials across a cut hang until
//! they time out.

mod network;
#[cfg(test)]
mod tests;

use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet, BinaryHeap};
use std::net::SocketAddr;

use bytes::Bytes;

use self::network::{End, Network, Parcel};
use super::client::Client;
use super::disk::{Crash, Disk};
use super::history::History;
use super::plant::Plant;
use super::replay;
use super::world::{Failure, options_of};
use crate::base::{Duration, FileOp, FileOpId, Instant, Prng, WallMs};
use crate::model::{
    ConnId, EnsembleConfig, EnsembleConfigs, ExtendedTypes, LearnerType, Member as ConfigMember,
    ServerAddress, ServerId, Zxid,
};
use crate::server::epochs::Epochs;
use crate::server::recovery::{Answer, Recovered, Recovery, Step};
use crate::server::{
    Clock, DialId, EnsembleOptions, Input, Machine, Output, PeerAddress, PeerInput, PeerOutput,
    PeerPort, Server,
};
use crate::tree::{Tree, TreeOptions, ZnodeRef};
use crate::wire::vote::ElectionAddress;

/// How long faults are made, and how long a healed ensemble may take, in virtual time.
const FAULTS_FOR: Duration = Duration::from_millis(4_000);
const HEALS_WITHIN: Duration = Duration::from_millis(10_000);
const CLIENTS: usize = 4;
/// From one look at the clock to the next, as the shell's heartbeat.
const HEARTBEAT: Duration = Duration::from_millis(5);

/// What a seed of an ensemble did.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct EnsembleReport {
    /// Hash of everything that happened, in order.
    pub trace: u32,
    /// Requests answered.
    pub answered: u64,
    /// Processes killed.
    pub kills: u64,
    /// Power cuts.
    pub power_cuts: u64,
    /// Partitions made.
    pub partitions: u64,
    /// Connections between servers that were cut.
    pub cut_links: u64,
    /// Logs cut behind a txn, as a leader wanted.
    pub truncations: u64,
    /// Snapshots of leaders that were put in place.
    pub snapshots: u64,
    /// Times that a server began to lead.
    pub leaders: u64,
}

impl EnsembleReport {
    /// Adds what another seed did.
    pub fn add(&mut self, other: &Self) {
        self.trace ^= other.trace;
        self.answered += other.answered;
        self.kills += other.kills;
        self.power_cuts += other.power_cuts;
        self.partitions += other.partitions;
        self.cut_links += other.cut_links;
        self.truncations += other.truncations;
        self.snapshots += other.snapshots;
        self.leaders += other.leaders;
    }
}

/// Runs one seed of an ensemble of 1 to 5 servers to its end, or to the first thing that must not
/// be.
pub fn run(seed: u64, plant: Plant) -> Result<EnsembleReport, Failure> {
    let mut world = World::new(seed, plant)?;
    while world.now < Instant(FAULTS_FOR.0) {
        world.next_event()?;
    }
    world.heal()?;
    let deadline = world.now + HEALS_WITHIN;
    while !world.is_settled() {
        if deadline < world.now {
            return Err(Failure::new(format!("no ensemble again: {}", world.describe())));
        }
        world.next_event()?;
    }
    world.judge()
}

#[derive(Debug)]
enum Event {
    ToServer(ConnId, Bytes),
    ToClient(ConnId, Bytes),
    ServerClosed(ConnId),
    Sent(usize, ConnId, usize),
    FileDone(usize, FileOpId),
    Recovered(usize, Option<Zxid>),
    Dial(usize, DialId, Vec<PeerAddress>),
    Arrives(End),
    Took(End, usize),
    Closed(End),
    Act(usize),
    Turn(usize),
    Heartbeat(usize),
    Fault,
    Start(usize),
}

struct Member {
    sid: ServerId,
    server: Option<Server>,
    /// Events of an earlier life of the process do not count.
    incarnation: u64,
    disk: Disk,
    in_flight: BTreeMap<FileOpId, FileOp>,
    turn_waits: bool,
    /// The txns in its log.
    log: BTreeSet<Zxid>,
    /// Highest zxid that a client of this server was shown.
    seen: Zxid,
    was_leading: bool,
}

struct World {
    prng: Prng,
    plant: Plant,
    now: Instant,
    sequence: u64,
    queue: BinaryHeap<Reverse<(Instant, u64)>>,
    events: BTreeMap<u64, (Option<(usize, u64)>, Event)>,
    streams: BTreeMap<(ConnId, bool), Instant>,
    members: Vec<Member>,
    config: EnsembleConfig,
    network: Network,
    clients: Vec<Client>,
    conns: BTreeMap<ConnId, (usize, usize)>,
    next_conn: u64,
    history: History,
    /// What a server has applied because a quorum had it.
    committed: BTreeSet<Zxid>,
    healed: bool,
    report: EnsembleReport,
}

impl World {
    fn new(seed: u64, plant: Plant) -> Result<Self, Failure> {
        let mut prng = Prng::new(seed);
        let count = match prng.below(6) {
            0 => 1,
            1 => 2,
            2..=4 => 3,
            _ => 5,
        };
        let disk = || {
            let mut disk = Disk::default();
            disk.skips_flushes = plant == Plant::FlushSkipped;
            disk
        };
        let members = (0..count).map(|at| Member {
            sid: ServerId(at as i64 + 1),
            server: None,
            incarnation: 0,
            disk: disk(),
            in_flight: BTreeMap::new(),
            turn_waits: false,
            log: BTreeSet::new(),
            seen: Zxid::ZERO,
            was_leading: false,
        });
        let mut world = Self {
            plant,
            now: Instant::default(),
            sequence: 0,
            queue: BinaryHeap::new(),
            events: BTreeMap::new(),
            streams: BTreeMap::new(),
            members: members.collect(),
            config: config(count),
            network: Network::default(),
            clients: (0..CLIENTS).map(Client::new).collect(),
            conns: BTreeMap::new(),
            next_conn: 1,
            history: History::default(),
            committed: BTreeSet::new(),
            healed: false,
            report: EnsembleReport::default(),
            prng,
        };
        for at in 0..count {
            world.after_micros(50_000, None, Event::Start(at));
        }
        for number in 0..CLIENTS {
            world.after_micros(100_000, None, Event::Act(number));
        }
        world.after_micros(800_000, None, Event::Fault);
        Ok(world)
    }

    fn clock(&self) -> Clock {
        let ms = i64::try_from(self.now.as_millis()).unwrap_or(i64::MAX);
        Clock { now: self.now, wall: WallMs(1_700_000_000_000 + ms) }
    }

    fn after_micros(&mut self, up_to: u64, of: Option<usize>, event: Event) {
        let at = self.now + Duration::from_micros(1 + self.prng.below(up_to));
        self.at(at, of, event);
    }

    /// Arranges an event; one of a member does not outlive its process.
    fn at(&mut self, at: Instant, of: Option<usize>, event: Event) {
        let of = of.and_then(|at| Some((at, self.members.get(at)?.incarnation)));
        self.sequence += 1;
        self.queue.push(Reverse((at, self.sequence)));
        self.events.insert(self.sequence, (of, event));
    }

    fn next_event(&mut self) -> Result<(), Failure> {
        let Some(Reverse((at, sequence))) = self.queue.pop() else {
            return Err(Failure::new("nothing happens any more".to_owned()));
        };
        let Some((of, event)) = self.events.remove(&sequence) else { return Ok(()) };
        self.now = self.now.max(at);
        if let Some((member, incarnation)) = of
            && self.members.get(member).is_none_or(|it| it.incarnation != incarnation)
        {
            return Ok(());
        }
        let line = format!("{} {event:?}", self.now.0);
        self.report.trace = crc32c::crc32c_append(self.report.trace, line.as_bytes());
        match event {
            Event::ToServer(conn, bytes) => match self.conns.get(&conn) {
                Some((member, _)) => self.step(*member, Input::Received { conn, bytes }),
                None => Ok(()),
            },
            Event::ToClient(conn, bytes) => self.receive(conn, bytes),
            Event::ServerClosed(conn) => {
                let Some((member, client)) = self.conns.remove(&conn) else { return Ok(()) };
                self.client(client).disconnected();
                self.step(member, Input::Closed { conn })
            }
            Event::Sent(member, conn, bytes) => self.step(member, Input::Sent { conn, bytes }),
            Event::FileDone(member, id) => self.file_done(member, id),
            Event::Recovered(member, keep_until) => {
                let keep_until = keep_until.filter(|_| self.plant != Plant::CutIgnored);
                let recovered = self.recover(member, keep_until)?;
                self.step(member, Input::Recovered(Box::new(recovered)))
            }
            Event::Dial(member, dial, addresses) => self.dial(member, dial, &addresses),
            Event::Arrives(end) => self.arrives(end),
            Event::Took(end, bytes) => {
                self.peer(end.member, PeerInput::Sent { link: end.link, bytes })
            }
            Event::Closed(end) => self.peer(end.member, PeerInput::Closed { link: end.link }),
            Event::Act(client) => self.act(client),
            Event::Turn(member) => {
                self.member(member).turn_waits = false;
                self.turn(member)
            }
            Event::Heartbeat(member) => {
                self.at(self.now + HEARTBEAT, Some(member), Event::Heartbeat(member));
                let due = self.server(member).and_then(|server| server.next_timer());
                match due.is_some_and(|due| due <= self.now) {
                    true => self.step(member, Input::Timer),
                    false => Ok(()),
                }
            }
            Event::Fault => self.fault(),
            Event::Start(member) => self.start(member),
        }
    }

    fn member(&mut self, at: usize) -> &mut Member {
        self.members.get_mut(at).expect("members are numbered")
    }

    fn server(&mut self, at: usize) -> Option<&mut Server> {
        self.member(at).server.as_mut()
    }

    fn client(&mut self, number: usize) -> &mut Client {
        self.clients.get_mut(number).expect("clients are numbered")
    }

    // Servers.

    fn start(&mut self, at: usize) -> Result<(), Failure> {
        if self.member(at).server.is_some() {
            return Ok(());
        }
        let mut recovered = self.recover(at, None)?;
        match self.plant {
            Plant::EpochsForgotten => recovered.epochs = Epochs::default(),
            Plant::SessionForgotten => drop(recovered.sessions.pop()),
            _ => {}
        }
        let clock = self.clock();
        let seed = self.prng.next_u64();
        let me = self.member(at).sid;
        let configs = EnsembleConfigs::settled(self.config.clone());
        let host = format!("s{at}");
        let mut options = options_of(&mut self.prng);
        options.server_id = u8::try_from(me.0).unwrap_or_default();
        options.ensemble = Some(EnsembleOptions {
            me,
            configs,
            election_address: ElectionAddress { host, port: ELECTION_PORT },
            tick: Duration::from_millis(500),
            init_limit: 4,
            sync_limit: 2,
            ping_every: Duration::from_millis(50),
            detect: Duration::from_millis(300),
            connect_within: Duration::from_millis(1_000),
            adopts_configs: false,
            is_observer: false,
        });
        let (server, _) = Server::new(options, recovered, 0, seed, clock);
        let member = self.member(at);
        member.server = Some(server);
        member.turn_waits = false;
        member.was_leading = false;
        member.seen = Zxid::ZERO;
        self.at(self.now + HEARTBEAT, Some(at), Event::Heartbeat(at));
        self.turn(at)
    }

    fn step(&mut self, at: usize, input: Input) -> Result<(), Failure> {
        let clock = self.clock();
        let is_new = matches!(input, Input::Recovered(_));
        let mut outputs = Vec::new();
        let Some(server) = self.server(at) else { return Ok(()) };
        let before = server.tree().last_zxid();
        server.step(clock, input, &mut outputs);
        let after = server.tree().last_zxid();
        if !is_new {
            self.applied(at, before, after);
        }
        self.carry_out(at, outputs)?;
        self.turn(at)
    }

    fn turn(&mut self, at: usize) -> Result<(), Failure> {
        let clock = self.clock();
        let mut outputs = Vec::new();
        let Some(server) = self.server(at) else { return Ok(()) };
        let before = server.tree().last_zxid();
        server.turn_end(clock, &mut outputs);
        let after = server.tree().last_zxid();
        let wants_turn = server.wants_turn();
        let leads = server.mode() == Some("leader");
        self.applied(at, before, after);
        let member = self.member(at);
        let began = leads && !std::mem::replace(&mut member.was_leading, leads);
        let waits = wants_turn && !std::mem::replace(&mut member.turn_waits, true);
        self.report.leaders += u64::from(began);
        if waits {
            self.after_micros(50, Some(at), Event::Turn(at));
        }
        self.carry_out(at, outputs)
    }

    /// What a server applies in its course is committed.
    fn applied(&mut self, at: usize, before: Zxid, after: Zxid) {
        let Some(member) = self.members.get(at) else { return };
        let behind = (std::ops::Bound::Excluded(before), std::ops::Bound::Included(after));
        if before < after {
            self.committed.extend(member.log.range(behind));
        }
    }

    fn carry_out(&mut self, at: usize, outputs: Vec<Output>) -> Result<(), Failure> {
        let incarnation = self.member(at).incarnation;
        for output in outputs {
            if self.member(at).incarnation != incarnation {
                // The server that asked for it is dead.
                return Ok(());
            }
            match output {
                Output::Send { conn, bytes } => {
                    let sent = bytes.len();
                    let client = self.conns.get(&conn).and_then(|(_, at)| self.clients.get(*at));
                    let greeted = client.is_some_and(Client::is_attached);
                    let bytes = self.plant.tamper(bytes, greeted, &mut self.prng);
                    self.stream(conn, false, Event::ToClient(conn, bytes));
                    self.after_micros(100, Some(at), Event::Sent(at, conn, sent));
                }
                Output::Close { conn } | Output::Abort { conn } => {
                    self.stream(conn, false, Event::ServerClosed(conn));
                }
                Output::File { id, op } => self.file(at, id, op)?,
                Output::Peer(output) => self.peer_output(at, output),
                Output::Recover { keep_until } => {
                    self.report.truncations += u64::from(keep_until.is_some());
                    self.after_micros(20_000, Some(at), Event::Recovered(at, keep_until));
                }
                Output::Halt(halt) => {
                    return Err(Failure::new(format!("server {at} halts: {halt}")));
                }
                Output::Mesh { .. }
                | Output::Publish(_)
                | Output::PauseReading { .. }
                | Output::ResumeReading { .. }
                | Output::Stopped => {}
            }
        }
        Ok(())
    }

    // Disks.

    fn file(&mut self, at: usize, id: FileOpId, op: FileOp) -> Result<(), Failure> {
        self.history.logged(&op)?;
        let records = super::history::records(&op).into_iter().map(|(zxid, _)| zxid);
        let member = self.member(at);
        member.log.extend(records);
        member.in_flight.insert(id, op);
        let slow = self.prng.one_in(200);
        self.after_micros(if slow { 50_000 } else { 400 }, Some(at), Event::FileDone(at, id));
        if self.plant == Plant::AckBeforeFlush {
            self.step(at, Input::FileDone { id, result: Ok(()) })?;
        }
        if !self.healed && self.prng.one_in(2_000) {
            let crash = if self.prng.one_in(2) { Crash::Kill } else { Crash::PowerCut };
            self.crash(at, crash);
        }
        Ok(())
    }

    fn file_done(&mut self, at: usize, id: FileOpId) -> Result<(), Failure> {
        let member = self.member(at);
        let Some(op) = member.in_flight.remove(&id) else { return Ok(()) };
        let result = member.disk.run(&op);
        if self.plant == Plant::AckBeforeFlush {
            return Ok(());
        }
        self.step(at, Input::FileDone { id, result })
    }

    fn crash(&mut self, at: usize, crash: Crash) {
        match crash {
            Crash::Kill => self.report.kills += 1,
            Crash::PowerCut => self.report.power_cuts += 1,
        }
        let Self { prng, members, .. } = self;
        let Some(member) = members.get_mut(at) else { return };
        for op in std::mem::take(&mut member.in_flight).into_values() {
            member.disk.leave_in_flight(&op, crash, prng);
        }
        member.disk.crash(crash, prng);
        member.incarnation += 1;
        member.server = None;
        let gone: Vec<ConnId> = self
            .conns
            .iter()
            .filter(|(_, (member, _))| *member == at)
            .map(|(conn, _)| *conn)
            .collect();
        for conn in gone {
            if let Some((_, client)) = self.conns.remove(&conn) {
                self.client(client).disconnected();
            }
        }
        for end in self.network.ends_of(at) {
            if let Some(other) = self.network.close(end) {
                self.after_micros(500, Some(other.member), Event::Arrives(other));
            }
        }
        self.after_micros(600_000, None, Event::Start(at));
    }

    fn recover(&mut self, at: usize, keep_until: Option<Zxid>) -> Result<Recovered, Failure> {
        let seed = self.prng.next_u64();
        let member = self.member(at);
        let options = TreeOptions { extended_types: ExtendedTypes::Off, digests: true };
        let mut recovery = Recovery::new(options, seed).keeping_recent(1 << 30);
        if let Some(keep) = keep_until {
            recovery = recovery.keep_until(keep);
        }
        let mut answer = Answer::Start;
        let disk = &mut member.disk;
        let recovered = loop {
            answer = match recovery.step(answer) {
                Step::List(dir) => Answer::Listing(disk.list(dir)),
                Step::Read { file, offset, len } => Answer::Bytes(disk.read(&file, offset, len)),
                Step::Run(op) => Answer::Ran(disk.run(&op)),
                Step::Note(note) => {
                    return Err(Failure::new(format!("server {at} had to fall back: {note}")));
                }
                Step::Done(recovered) => break *recovered,
                Step::Refuse(refusal) => {
                    return Err(Failure::new(format!("server {at} refused: {refusal}")));
                }
            };
        };
        let last = recovered.last_zxid;
        if last != Zxid::ZERO && !member.log.contains(&last) {
            // A leader's snapshot is in place. Logs that share a txn share all before it.
            self.report.snapshots += 1;
            let other = self.members.iter().find(|other| other.log.contains(&last));
            let log = other.map(|other| other.log.clone()).unwrap_or_default();
            self.member(at).log = log;
        }
        self.member(at).log.retain(|zxid| *zxid <= last);
        Ok(recovered)
    }

    // Between servers.

    fn peer(&mut self, at: usize, input: PeerInput) -> Result<(), Failure> {
        self.step(at, Input::Peer(input))
    }

    fn peer_output(&mut self, at: usize, output: PeerOutput) {
        match output {
            PeerOutput::Dial { dial, addresses, .. } => {
                self.after_micros(500, Some(at), Event::Dial(at, dial, addresses));
            }
            PeerOutput::Send { link, bytes } => {
                let end = End { member: at, link };
                let sent = bytes.len();
                let copies = match self.plant {
                    Plant::PeerBytesLost if self.prng.one_in(200) => 0,
                    Plant::PeerBytesTwice if self.prng.one_in(200) => 2,
                    _ => 1,
                };
                for _ in 0..copies {
                    let parcel = Parcel::Bytes(bytes.clone());
                    if let Some(other) = self.network.post(end, parcel) {
                        self.after_micros(300, Some(other.member), Event::Arrives(other));
                    }
                }
                self.after_micros(100, Some(at), Event::Took(end, sent));
            }
            PeerOutput::Close { link } => {
                let end = End { member: at, link };
                if let Some(other) = self.network.close(end) {
                    self.after_micros(300, Some(other.member), Event::Arrives(other));
                }
                self.after_micros(300, Some(at), Event::Closed(end));
            }
            PeerOutput::PauseReading { .. } | PeerOutput::ResumeReading { .. } => {}
        }
    }

    fn dial(&mut self, at: usize, dial: DialId, addresses: &[PeerAddress]) -> Result<(), Failure> {
        let found = addresses.first().and_then(|address| {
            let to = address.host.strip_prefix('s')?.parse::<usize>().ok()?;
            let port = match address.port {
                ELECTION_PORT => PeerPort::Election,
                _ => PeerPort::Quorum,
            };
            Some((to, port))
        });
        let Some((to, port)) = found else {
            return Err(Failure::new(format!("server {at} dials {addresses:?}")));
        };
        if self.network.is_cut(at, to) || self.network.is_cut(to, at) {
            // Nobody answers; the dial ends when the system gives up.
            let until = self.now + Duration::from_millis(1_000);
            self.at(until, Some(at), Event::Dial(at, dial, addresses.to_vec()));
            return Ok(());
        }
        if self.server(to).is_none() {
            return self.peer(at, PeerInput::DialFailed { dial });
        }
        let (near, far) = self.network.connect(at, to);
        self.peer(to, PeerInput::Accepted { port, link: far.link })?;
        self.peer(at, PeerInput::Dialled { dial, link: near.link })
    }

    fn arrives(&mut self, end: End) -> Result<(), Failure> {
        match self.network.arrive(end) {
            // It is sent again until it comes through.
            Err(()) => {
                self.after_micros(20_000, Some(end.member), Event::Arrives(end));
                Ok(())
            }
            Ok(None) => Ok(()),
            Ok(Some(Parcel::Bytes(bytes))) => {
                self.peer(end.member, PeerInput::Received { link: end.link, bytes })
            }
            Ok(Some(Parcel::Close)) => {
                self.network.forget(end);
                self.peer(end.member, PeerInput::Closed { link: end.link })
            }
        }
    }

    // Clients.

    /// A message on a stream: behind everything sent before on the same stream.
    fn stream(&mut self, conn: ConnId, to_server: bool, event: Event) {
        let earliest = self.streams.get(&(conn, to_server)).copied().unwrap_or_default();
        let at = self.now + Duration::from_micros(1 + self.prng.below(300));
        let at = at.max(earliest);
        self.streams.insert((conn, to_server), at);
        self.at(at, None, event);
    }

    fn act(&mut self, number: usize) -> Result<(), Failure> {
        if self.healed && self.prng.one_in(60) {
            // It stops, so that the ensemble can settle.
            return Ok(());
        }
        self.after_micros(8_000, None, Event::Act(number));
        let Some(conn) = self.client(number).conn else { return self.connect(number) };
        let Some((member, _)) = self.conns.get(&conn).copied() else { return Ok(()) };
        self.history.seen = self.member(member).seen;
        let Self { clients, prng, history, .. } = self;
        let bytes = clients.get_mut(number).and_then(|it| it.act(prng, CLIENTS, history));
        if let Some(bytes) = bytes {
            self.send(conn, &bytes);
        }
        Ok(())
    }

    fn connect(&mut self, number: usize) -> Result<(), Failure> {
        let count = self.members.len() as u64;
        let member = usize::try_from(self.prng.below(count)).unwrap_or_default();
        if self.server(member).is_none() {
            return Ok(());
        }
        let conn = ConnId(self.next_conn);
        self.next_conn += 1;
        let hello = self.client(number).connect(conn);
        self.conns.insert(conn, (member, number));
        let peer = SocketAddr::from(([127, 0, 0, 1], 1000));
        self.step(member, Input::Opened { conn, peer })?;
        self.send(conn, &hello);
        Ok(())
    }

    /// The network cuts the stream where it likes.
    fn send(&mut self, conn: ConnId, bytes: &Bytes) {
        let cut = usize::try_from(self.prng.below(bytes.len() as u64)).unwrap_or_default();
        for part in [bytes.slice(..cut), bytes.slice(cut..)] {
            if !part.is_empty() {
                self.stream(conn, true, Event::ToServer(conn, part));
            }
        }
    }

    fn receive(&mut self, conn: ConnId, bytes: Bytes) -> Result<(), Failure> {
        let Some((member, client)) = self.conns.get(&conn).copied() else { return Ok(()) };
        let Self { clients, history, members, .. } = self;
        let (Some(client), Some(member)) = (clients.get_mut(client), members.get_mut(member))
        else {
            return Ok(());
        };
        history.seen = member.seen;
        client.receive(bytes, history)?;
        member.seen = history.seen;
        Ok(())
    }

    // Faults.

    fn fault(&mut self) -> Result<(), Failure> {
        if self.healed {
            return Ok(());
        }
        self.after_micros(300_000, None, Event::Fault);
        let count = self.members.len() as u64;
        let mut any = || usize::try_from(self.prng.below(count)).unwrap_or_default();
        let (one, other) = (any(), any());
        match self.prng.below(8) {
            0 => self.crash(one, Crash::Kill),
            1 => self.crash(one, Crash::PowerCut),
            2 => self.network.heal(),
            3 => {
                // One server alone.
                self.report.partitions += 1;
                for at in (0..self.members.len()).filter(|at| *at != one) {
                    self.network.cut(one, at);
                    self.network.cut(at, one);
                }
            }
            4 if one != other => {
                // One direction.
                self.report.partitions += 1;
                self.network.cut(one, other);
            }
            5 => {
                self.report.cut_links += 1;
                let ends = self.network.ends_of(one);
                let nth = self.prng.below(ends.len().max(1) as u64);
                if let Some(end) = ends.get(usize::try_from(nth).unwrap_or_default()).copied() {
                    let other = self.network.other(end);
                    self.network.forget(end);
                    self.peer(one, PeerInput::Closed { link: end.link })?;
                    if let Some(other) = other {
                        self.peer(other.member, PeerInput::Closed { link: other.link })?;
                    }
                }
            }
            _ => self.network.heal(),
        }
        Ok(())
    }

    fn heal(&mut self) -> Result<(), Failure> {
        self.healed = true;
        self.network.heal();
        for at in 0..self.members.len() {
            self.start(at)?;
        }
        Ok(())
    }

    // The end.

    /// Every server serves, clients have stopped, and everybody has everything.
    fn is_settled(&self) -> bool {
        let acts = self.events.values().any(|(_, event)| matches!(event, Event::Act(_)));
        let zxids: BTreeSet<Zxid> = self
            .members
            .iter()
            .filter_map(|member| member.server.as_ref())
            .map(|server| server.tree().last_zxid())
            .collect();
        let serving =
            |member: &Member| member.server.as_ref().is_some_and(|server| server.mode().is_some());
        let logs: BTreeSet<Option<&Zxid>> =
            self.members.iter().map(|member| member.log.last()).collect();
        let is_one = zxids.len() == 1
            && logs.len() == 1
            && logs.iter().flatten().all(|zxid| zxids.contains(zxid));
        !acts && is_one && self.members.iter().all(serving)
    }

    fn describe(&self) -> String {
        let line = |member: &Member| {
            let server = member.server.as_ref();
            let mode = server.and_then(Server::mode).unwrap_or("not serving");
            let zxid = server.map(|server| server.tree().last_zxid());
            format!("server {} is {mode} at {zxid:?}, log ends {:?}", member.sid, member.log.last())
        };
        self.members.iter().map(line).collect::<Vec<_>>().join("; ")
    }

    fn judge(mut self) -> Result<EnsembleReport, Failure> {
        let trees: Vec<&Tree> = self
            .members
            .iter()
            .filter_map(|member| member.server.as_ref().map(Server::tree))
            .collect();
        let Some(first) = trees.first() else { return Err(Failure::new("no server".to_owned())) };
        for (at, tree) in trees.iter().enumerate() {
            if tree.digest() != first.digest() || !same(tree, first, "/") {
                return Err(Failure::new(format!("the trees of servers 0 and {at} differ")));
            }
        }
        let sessions = |member: &Member| -> Vec<_> {
            member.server.iter().flat_map(|server| server.sessions().iter()).collect()
        };
        let all = self.members.first().map(sessions).unwrap_or_default();
        for member in &self.members {
            if sessions(member) != all {
                return Err(Failure::new(format!("the sessions of 1 and {} differ", member.sid)));
            }
        }
        let log = self.members.first().map(|member| member.log.clone()).unwrap_or_default();
        if let Some(lost) = self.committed.iter().find(|zxid| !log.contains(zxid)) {
            return Err(Failure::new(format!("{lost} was committed and is lost")));
        }
        for member in &self.members {
            if let Some(zxid) = member.log.symmetric_difference(&log).next() {
                let holder = if log.contains(zxid) { ServerId(1) } else { member.sid };
                return Err(Failure::new(format!(
                    "of the logs of 1 and {}, only that of {holder} has {zxid}",
                    member.sid
                )));
            }
        }
        self.history.txns.retain(|zxid, _| log.contains(zxid));
        replay::check(&self.history, first)?;
        self.report.answered = self.clients.iter().map(|client| client.answered).sum();
        Ok(self.report)
    }
}

const QUORUM_PORT: u16 = 1;
const ELECTION_PORT: u16 = 2;

fn config(count: usize) -> EnsembleConfig {
    let member = |at: usize| ConfigMember {
        addresses: vec![ServerAddress {
            host: format!("s{at}"),
            quorum_port: QUORUM_PORT,
            election_port: ELECTION_PORT,
        }],
        learner_type: LearnerType::Participant,
        client: None,
        secure_client: None,
    };
    let members = (0..count).map(|at| (ServerId(at as i64 + 1), member(at)));
    EnsembleConfig { members: members.collect(), ..EnsembleConfig::default() }
}

/// Whether two trees hold the same below `path`; the order of children is nobody's business.
fn same(left: &Tree, right: &Tree, path: &str) -> bool {
    let (Some(a), Some(b)) = (left.get(path), right.get(path)) else { return false };
    let names = |znode: &ZnodeRef<'_>| -> BTreeSet<String> {
        znode.children().map(str::to_owned).collect()
    };
    let children = names(&a);
    let base = if path == "/" { "" } else { path };
    a.persisted() == b.persisted()
        && a.data() == b.data()
        && a.acl() == b.acl()
        && children == names(&b)
        && children.iter().all(|name| same(left, right, &format!("{base}/{name}")))
}
