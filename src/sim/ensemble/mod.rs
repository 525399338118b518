//! The world of one seed of an ensemble: several servers with a disk each, the network between
//! them, clients that go from server to server. First faults, then none: a healed ensemble must
//! serve again, all servers must hold the same, and what clients were told must be so.
//!
//! [`Fault`] lists the faults. Dials to servers that are down are refused, dials across a cut hang
//! until they time out; what was sent across a cut arrives when it is healed.

mod clients;
mod faults;
mod membership;
mod misread;
mod network;
mod peers;
mod servers;
mod tamper;
#[cfg(test)]
mod tests;
mod upgrade;
mod verdict;

use self::faults::Swarm;
pub use self::faults::{Fault, Injected};

use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet, BinaryHeap};

use bytes::Bytes;

use self::membership::{Membership, sid_of};
use self::network::{End, Network};
use self::tamper::Directions;
use self::upgrade::Version;
use super::client::Client;
use super::disk::Disk;
use super::history::History;
use super::plant::Plant;
use super::shards::Shards;
use super::trace;
use super::world::Failure;
use crate::base::{Duration, FileDir, FileOp, FileOpId, FilePart, Instant, Prng, WallMs};
use crate::model::{ClientAddress, ConnId, LocalSessions, ServerAddress, ServerId, ShardId, Zxid};
use crate::server::{Clock, DialId, Input, Mesh, PeerAddress, PeerInput, PeerPort, Server};
use crate::zab::leader::EpochZxids;

/// How long faults are made unless it is said otherwise, and how long a healed ensemble may take,
/// in virtual time.
const FAULTS_FOR: Duration = Duration::from_millis(4_000);
const HEALS_WITHIN: Duration = Duration::from_millis(10_000);
/// From one look whether an ensemble has settled to the next.
const LOOKS_EVERY: Duration = Duration::from_millis(1);
const CLIENTS: usize = 4;
/// From one look at the clock to the next, as the shell's heartbeat.
const HEARTBEAT: Duration = Duration::from_millis(5);
/// A clock is wrong by this at most: parts of a million, and milliseconds of the wall clock.
const DRIFT_PPM_MAX: u64 = 50_000;
const WALL_ERROR_MS_MAX: u64 = 3_600_000;
/// When a server without a leader serves reads: sooner than most partitions end.
const READS_AFTER: Duration = Duration::from_millis(100);
/// Make a seed's number into others, which decide about local sessions, reads without a quorum, the
/// length of epochs, groups of voters, changes of members, and servers of an older version.
const LOCAL_SESSIONS: u64 = 0x6c6f_6361_6c00;
const READ_ONLY: u64 = 0x7265_6164_0000;
const EPOCH_ZXIDS: u64 = 0x7a78_6964_0000;
const GROUPS: u64 = 0x6772_6f75_7073;
const MEMBERS: u64 = 0x6d65_6d62_6572;
const VERSIONS: u64 = 0x7665_7273_696f;
const SWARM: u64 = 0x7377_6172_6d00;

/// What a seed is run with.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EnsembleRun {
    /// The bug that is in it.
    pub plant: Plant,
    /// Faults that are not made.
    pub without: BTreeSet<Fault>,
    /// How long faults are made.
    pub faults_for: Duration,
    /// Each client sends only so many requests, of the kinds that the second oracle knows, and
    /// that oracle judges, too.
    pub requests: Option<u64>,
}

impl Default for EnsembleRun {
    fn default() -> Self {
        Self {
            plant: Plant::None,
            without: BTreeSet::new(),
            faults_for: FAULTS_FOR,
            requests: None,
        }
    }
}

/// What a seed of an ensemble did.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct EnsembleReport {
    /// Hash of everything that happened, in order.
    pub trace: u32,
    /// Requests answered.
    pub answered: u64,
    /// Faults made.
    pub injected: Injected,
    /// Logs cut behind a txn, as a leader wanted.
    pub truncations: u64,
    /// Snapshots of leaders that were put in place.
    pub snapshots: u64,
    /// Times that a server began to lead.
    pub leaders: u64,
    /// Times that a leader began the next epoch without an election.
    pub renewals: u64,
    /// Leaders that gave up since their epoch's zxids were used up.
    pub rollovers: u64,
    /// Parts of logs that were read for learners.
    pub log_reads: u64,
    /// Times that a learner stopped reading what its leader sent.
    pub pauses: u64,
    /// Local sessions that became global.
    pub upgrades: u64,
    /// Servers that stopped as planned.
    pub planned_stops: u64,
    /// Requests answered by servers without a quorum.
    pub read_only: u64,
    /// Changes of the members that were committed.
    pub reconfigurations: u64,
    /// Members that were given the present list, since theirs was too old to find the others.
    pub repaired_lists: u64,
}

impl EnsembleReport {
    /// Adds what another seed did.
    pub fn add(&mut self, other: &Self) {
        self.trace ^= other.trace;
        self.answered += other.answered;
        for (fault, count) in &other.injected {
            *self.injected.entry(*fault).or_default() += count;
        }
        self.truncations += other.truncations;
        self.snapshots += other.snapshots;
        self.leaders += other.leaders;
        self.renewals += other.renewals;
        self.rollovers += other.rollovers;
        self.log_reads += other.log_reads;
        self.pauses += other.pauses;
        self.upgrades += other.upgrades;
        self.planned_stops += other.planned_stops;
        self.read_only += other.read_only;
        self.reconfigurations += other.reconfigurations;
        self.repaired_lists += other.repaired_lists;
    }
}

/// Runs one seed of an ensemble that begins with 1 to 7 voters and up to 2 observers to its end, or
/// to the first thing that must not be.
pub fn run(seed: u64, with: &EnsembleRun) -> Result<EnsembleReport, Failure> {
    let mut world = World::new(seed, with);
    while world.now < Instant(with.faults_for.0) {
        world.next_event()?;
    }
    world.heal()?;
    let deadline = world.now + HEALS_WITHIN;
    while !world.is_settled() {
        if deadline < world.now {
            return Err(Failure::new(format!("no ensemble again: {}", world.describe())));
        }
        let next_look = world.now + LOOKS_EVERY;
        while world.now < next_look {
            world.next_event()?;
        }
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
    FileRead(usize, FileOpId, FilePart),
    Recovered(usize, Option<Zxid>),
    /// A message to the home shard.
    Mesh(usize, Mesh),
    /// A satellite looks around.
    ShardTurn(usize, ShardId),
    Dial(usize, DialId, Vec<PeerAddress>),
    Accepted(End, PeerPort),
    Arrives(End),
    Took(End, usize),
    Closed(End),
    Act(usize),
    /// The administrator looks around.
    Administer,
    /// The operator looks around.
    Operate,
    Turn(usize),
    Heartbeat(usize),
    Fault,
    /// The power of all servers fails.
    Blackout,
    Flap(usize, u64),
    Upgrade(usize),
    Start(usize),
}

struct Member {
    sid: ServerId,
    server: Option<Server>,
    shards: Shards,
    /// Earliest time of the next message of a satellite to the home shard.
    mesh: BTreeMap<ShardId, Instant>,
    /// Which shard has a connection.
    homes: BTreeMap<ConnId, ShardId>,
    /// Events of an earlier life of the process do not count.
    incarnation: u64,
    /// The program's, and the one that is installed for the next start.
    version: Version,
    next_version: Version,
    disk: Disk,
    /// Where it listens for other servers, and where for clients.
    ports: Vec<ServerAddress>,
    client_port: Option<ClientAddress>,
    in_flight: BTreeMap<FileOpId, FileOp>,
    turn_waits: bool,
    /// The txns in its log.
    log: BTreeSet<Zxid>,
    /// Highest zxid that a client of this server was shown.
    seen: Zxid,
    was_leading: bool,
    /// Epochs that it has proposed in since it began to lead, and the last of them.
    epochs_led: (u64, u32),
    /// The clocks are wrong by this: parts of a million, and milliseconds of the wall clock.
    drift_ppm: i64,
    wall_error_ms: i64,
    paused_until: Instant,
    slow_until: Instant,
    /// Which of its directories is slow then; `None`: both are.
    slow_dir: Option<FileDir>,
    full_until: Instant,
    /// An operation has failed in this life: the server may halt.
    disk_failed: bool,
    /// It may have lost its history: until it has a snapshot, no leader counts it.
    is_uncounted: bool,
    /// It does not come back.
    is_dead: bool,
}

impl Member {
    fn new(sid: ServerId, disk: Disk) -> Self {
        Self {
            sid,
            server: None,
            shards: Shards::none(),
            mesh: BTreeMap::new(),
            homes: BTreeMap::new(),
            incarnation: 0,
            version: Version::default(),
            next_version: Version::default(),
            disk,
            ports: Vec::new(),
            client_port: None,
            in_flight: BTreeMap::new(),
            turn_waits: false,
            log: BTreeSet::new(),
            seen: Zxid::ZERO,
            was_leading: false,
            epochs_led: (0, 0),
            drift_ppm: 0,
            wall_error_ms: 0,
            paused_until: Instant::default(),
            slow_until: Instant::default(),
            slow_dir: None,
            full_until: Instant::default(),
            disk_failed: false,
            is_uncounted: false,
            is_dead: false,
        }
    }
}

struct World {
    prng: Prng,
    plant: Plant,
    without: BTreeSet<Fault>,
    now: Instant,
    sequence: u64,
    queue: BinaryHeap<Reverse<(Instant, u64)>>,
    events: BTreeMap<u64, (Option<(usize, u64)>, Event)>,
    streams: BTreeMap<(ConnId, bool), Instant>,
    members: Vec<Member>,
    membership: Membership,
    /// What stands before each txn that was ever logged.
    before: BTreeMap<Zxid, Zxid>,
    /// Txns that a server keeps in memory for learners.
    recent_bytes_max: u64,
    /// An empty database is a lost one (`db.autocreate=false`).
    is_careful: bool,
    local_sessions: LocalSessions,
    /// Servers without a quorum serve reads, and some clients want no more.
    reads_without_quorum: bool,
    /// How many zxids of an epoch its leader uses: of some ensembles few.
    zxids: EpochZxids,
    network: Network,
    /// Which faults begin by themselves, and how often.
    swarm: Swarm,
    /// What has passed between servers, where the planted bug is in that.
    directions: Directions,
    /// The next bytes between two servers are damaged.
    corrupts: Option<PeerPort>,
    /// A rolling upgrade is under way.
    upgrading: bool,
    clients: Vec<Client>,
    conns: BTreeMap<ConnId, (usize, usize)>,
    next_conn: u64,
    history: History,
    /// What a server has applied because a quorum had it.
    committed: BTreeSet<Zxid>,
    /// The last txn before each epoch in which a server has served.
    before_epochs: BTreeMap<u32, Zxid>,
    healed: bool,
    /// The second oracle judges, too.
    is_small: bool,
    report: EnsembleReport,
}

impl World {
    fn new(seed: u64, with: &EnsembleRun) -> Self {
        let mut prng = Prng::new(seed);
        let voters = match prng.below(12) {
            0 => 1,
            1 => 2,
            2 => 4,
            3 | 4 => 5,
            5 => 7,
            _ => 3_usize,
        };
        let observers = match prng.one_in(3) {
            true => 1 + prng.below(2) as usize,
            false if with.plant == Plant::ObserversCounted => 2,
            false => 0,
        };
        let disk = || {
            let mut disk = Disk::new(with.plant);
            disk.expect_empty();
            disk
        };
        // Drawn apart, so that the seeds without them stay what they were.
        let has_local_sessions = Prng::new(seed ^ LOCAL_SESSIONS).one_in(4);
        let reads_without_quorum = with.requests.is_none() && Prng::new(seed ^ READ_ONLY).one_in(4);
        let mut others = Prng::new(seed ^ GROUPS);
        let has_groups = others.one_in(6) || with.plant == Plant::WeightsIgnored;
        let mut changes = Prng::new(seed ^ MEMBERS);
        let is_dynamic = with.requests.is_none()
            && !with.without.contains(&Fault::Reconfiguration)
            && (changes.one_in(3) || with.plant.needs_changes());
        let spares = if is_dynamic { changes.below(3) as usize } else { 0 };
        let servers = voters + observers + spares;
        let groups = 2 < voters && has_groups;
        let groups = groups.then(|| membership::groups(&mut others, servers));
        let mut membership = Membership::new(voters, observers, groups);
        if is_dynamic {
            membership.change(&mut changes, servers);
        }
        let is_older = Prng::new(seed ^ VERSIONS).one_in(4);
        let members = (0..servers).map(|at| Member::new(sid_of(at), disk()));
        let mut world = Self {
            plant: with.plant,
            without: with.without.clone(),
            now: Instant::default(),
            sequence: 0,
            queue: BinaryHeap::new(),
            events: BTreeMap::new(),
            streams: BTreeMap::new(),
            members: members.collect(),
            membership,
            before: BTreeMap::new(),
            recent_bytes_max: match prng.one_in(3) || with.plant == Plant::HistoryGap {
                // Fewer than are proposed and not committed at times.
                true => 400,
                false => 1 << 30,
            },
            is_careful: prng.one_in(2),
            local_sessions: match has_local_sessions {
                true => LocalSessions::Upgradable,
                false => LocalSessions::Off,
            },
            zxids: zxids(seed),
            network: Network::default(),
            swarm: Swarm::any(&mut Prng::new(seed ^ SWARM)),
            directions: Directions::default(),
            corrupts: None,
            upgrading: false,
            // The last one is the administrator.
            clients: (0..CLIENTS + usize::from(is_dynamic)).map(Client::new).collect(),
            conns: BTreeMap::new(),
            next_conn: 1,
            reads_without_quorum,
            history: History::default(),
            committed: BTreeSet::new(),
            before_epochs: BTreeMap::new(),
            healed: false,
            is_small: with.requests.is_some(),
            report: EnsembleReport::default(),
            prng,
        };
        world.history.has_local_sessions = has_local_sessions;
        for at in 0..world.members.len() {
            world.install(at);
            if is_older && !world.without.contains(&Fault::Upgrade) {
                world.member(at).next_version = Version::any(&mut others);
            }
            if world.prng.one_in(4) && world.inject(Fault::Drift) {
                let drift_ppm = world.around_zero(DRIFT_PPM_MAX);
                let wall_error_ms = world.around_zero(WALL_ERROR_MS_MAX);
                let member = world.member(at);
                (member.drift_ppm, member.wall_error_ms) = (drift_ppm, wall_error_ms);
            }
            world.after_micros(50_000, None, Event::Start(at));
        }
        for number in 0..CLIENTS {
            if let Some(requests) = with.requests {
                world.client(number).keep_small(requests);
            }
            world.after_micros(100_000, None, Event::Act(number));
        }
        world.after_micros(800_000, None, Event::Fault);
        if is_dynamic {
            world.after_micros(800_000, None, Event::Administer);
        }
        world
    }

    fn around_zero(&mut self, max: u64) -> i64 {
        let magnitude = i64::try_from(self.prng.below(max)).unwrap_or_default();
        if self.prng.one_in(2) { -magnitude } else { magnitude }
    }

    /// The clocks of a member.
    fn clock(&self, at: usize) -> Clock {
        let (ppm, error) =
            self.members.get(at).map_or((0, 0), |member| (member.drift_ppm, member.wall_error_ms));
        let drifted = i128::from(self.now.0) * i128::from(1_000_000 + ppm) / 1_000_000;
        let ms = i64::try_from(self.now.as_millis()).unwrap_or(i64::MAX);
        Clock {
            now: Instant(u64::try_from(drifted).unwrap_or_default()),
            wall: WallMs(1_700_000_000_000 + ms + error),
        }
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

    /// Until when the process that an event is for is stopped.
    fn paused_until(&self, of: Option<(usize, u64)>, event: &Event) -> Instant {
        let whose = match event {
            Event::ToServer(conn, _) => self.conns.get(conn).map(|(member, _)| *member),
            _ => of.map(|(member, _)| member),
        };
        let member = whose.and_then(|at| self.members.get(at));
        member.map_or(Instant::default(), |member| member.paused_until)
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
        let paused_until = self.paused_until(of, &event);
        if self.now < paused_until {
            self.queue.push(Reverse((paused_until, sequence)));
            self.events.insert(sequence, (of, event));
            return Ok(());
        }
        let (now, trace) = (self.now, &mut self.report.trace);
        match &event {
            Event::ToServer(conn, bytes) => trace::take(trace, now, &("to server", conn), bytes),
            Event::ToClient(conn, bytes) => trace::take(trace, now, &("to client", conn), bytes),
            Event::Mesh(member, mesh) => trace::take(trace, now, &(member, mesh.sender()), &[]),
            event => trace::take(trace, now, event, &[]),
        }
        match event {
            Event::ToServer(conn, bytes) => self.received(conn, bytes),
            Event::ToClient(conn, bytes) => self.receive(conn, bytes),
            Event::ServerClosed(conn) => self.client_closed(conn),
            Event::Sent(member, conn, bytes) => {
                self.conn_input(member, conn, Input::Sent { conn, bytes })
            }
            Event::FileDone(member, id) => self.file_done(member, id),
            Event::FileRead(member, id, part) => self.file_read(member, id, &part),
            Event::Recovered(member, keep_until) => self.recover_again(member, keep_until),
            Event::Mesh(member, mesh) => self.step(member, Input::Mesh(mesh)),
            Event::ShardTurn(member, shard) => self.shard_turn(member, shard),
            Event::Dial(member, dial, addresses) => self.dial(member, dial, &addresses),
            Event::Accepted(end, port) => {
                self.peer(end.member, PeerInput::Accepted { port, link: end.link })
            }
            Event::Arrives(end) => self.arrives(end),
            Event::Took(end, bytes) => {
                self.peer(end.member, PeerInput::Sent { link: end.link, bytes })
            }
            Event::Closed(end) => self.peer(end.member, PeerInput::Closed { link: end.link }),
            Event::Act(client) => self.act(client),
            Event::Administer => self.administer(),
            Event::Operate => {
                self.repair();
                Ok(())
            }
            Event::Turn(member) => {
                self.member(member).turn_waits = false;
                self.turn(member)
            }
            Event::Heartbeat(member) => self.heartbeat(member),
            Event::Fault => self.fault(),
            Event::Blackout => {
                if self.inject(Fault::Blackout) {
                    self.black_out();
                }
                Ok(())
            }
            Event::Flap(member, left) => {
                if !self.healed {
                    self.flap(member, left);
                }
                Ok(())
            }
            Event::Upgrade(member) => self.upgrade(member),
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
}

/// Half of the ensembles have short epochs. Where they end the next one begins in place, or, as
/// with Apache's servers, the leader gives up.
fn zxids(seed: u64) -> EpochZxids {
    let mut prng = Prng::new(seed ^ EPOCH_ZXIDS);
    let few = 20 + u32::try_from(prng.below(200)).unwrap_or_default();
    let default = EpochZxids::default();
    match prng.below(4) {
        0 | 1 => default,
        2 => EpochZxids { renew_at: few, ..default },
        _ => EpochZxids { renew_at: u32::MAX, last: few },
    }
}
