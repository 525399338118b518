//! Leaders and learners of one ensemble in a world that delays, cuts connections, kills servers and
//! loses what was not flushed. The election is a stand-in that any quorum of looking servers may
//! hold at any time, so that several leaders can be about.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use bytes::Bytes;

use super::Timing;
use super::leader::{self, Abdication, EpochZxids, Leader, LearnerKind, LinkId};
use super::learner::{self, Learner};
use super::paxos::Epochs;
use super::properties_tests::{Process, Record};
use super::synchronization::{History, SyncPlan, SyncWay};
use crate::base::{Duration, Instant, Prng};
use crate::model::{EnsembleConfig, EnsembleConfigs, LearnerType, Member, ServerId, Zxid};
use crate::wire::quorum::{LeaderPacket, LearnerPacket};

/// What the world does wrong on purpose.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Plant {
    None,
    /// A learner is told of flushes that have not completed.
    FlushLies,
    /// Epochs are said to be stored and are not.
    EpochsLost,
    /// The leader counts what it has not flushed.
    LeaderFlushLies,
    /// A log is not cut when it should be.
    CutSkipped,
    /// What a server has is thrown away before the snapshot that replaces it is whole.
    SnapshotOverLog,
    /// Whatever the learner's log, it is taken for a prefix of the leader's.
    AlwaysDiff,
}

const ALL_PLANTS: [Plant; 6] = [
    Plant::FlushLies,
    Plant::EpochsLost,
    Plant::LeaderFlushLies,
    Plant::CutSkipped,
    Plant::SnapshotOverLog,
    Plant::AlwaysDiff,
];

type Log = Vec<(Zxid, Bytes)>;

struct Node {
    sid: ServerId,
    kind: LearnerKind,
    up: bool,
    incarnation: u64,
    epochs: Epochs,
    log: Log,
    /// How much of `log` is durable.
    flushed: usize,
    flushing: bool,
    /// The epochs record is being written.
    storing: bool,
    /// How much of the log is known to be committed and applied.
    applied: usize,
    /// As which it stands in the record, until it crashes.
    process: Process,
    role: Role,
    next_counter: u32,
}

enum Role {
    Looking,
    Leading(Box<Leader>),
    Following { learner: Box<Learner>, link: LinkId },
}

/// One connection; packets wait in order for their time.
struct Wire {
    learner: usize,
    leader: usize,
    to_leader: VecDeque<(Instant, LearnerPacket)>,
    to_learner: VecDeque<(Instant, ToLearner)>,
}

enum ToLearner {
    Packet(LeaderPacket),
    /// The body of a snapshot.
    Body(Log),
}

#[derive(Debug)]
enum Event {
    Flushed { node: usize, incarnation: u64, len: usize },
    Stored { node: usize, incarnation: u64, epochs: Epochs },
    Cut { node: usize, incarnation: u64, zxid: Zxid },
    Installed { node: usize, incarnation: u64, log: Log },
}

struct World {
    prng: Prng,
    plant: Plant,
    now: Instant,
    configs: EnsembleConfigs,
    timing: Timing,
    nodes: Vec<Node>,
    wires: BTreeMap<LinkId, Wire>,
    next_link: u64,
    events: Vec<(Instant, Event)>,
    /// What was ever committed anywhere.
    ledger: Log,
    leaders: BTreeMap<u32, usize>,
    proposed: u64,
    zxids: EpochZxids,
    /// Those that pass for servers of Apache's.
    apaches: BTreeSet<usize>,
    /// Epochs that were begun in place.
    renewals: u64,
    /// Leaders that gave up since their zxids were used up.
    rollovers: u64,
    faults: bool,
    record: Record,
}

/// The committed part of a log.
struct Committed<'a>(&'a [(Zxid, Bytes)]);

impl History for Committed<'_> {
    fn start(&self) -> Zxid {
        Zxid::ZERO
    }

    fn last(&self) -> Zxid {
        last(self.0)
    }

    fn floor(&self, zxid: Zxid) -> Zxid {
        let len = self.0.iter().take_while(|(entry, _)| *entry <= zxid).count();
        last(&self.0[..len])
    }

    fn bytes_after(&self, _: Zxid) -> u64 {
        0
    }
}

type Checked = Result<(), String>;

impl World {
    fn new(seed: u64, plant: Plant, voters: usize, observers: usize) -> Self {
        let member = |learner_type| Member {
            addresses: Vec::new(),
            learner_type,
            client: None,
            secure_client: None,
        };
        let sid = |at: usize| ServerId(at as i64 + 1);
        let members = (0..voters + observers).map(|at| {
            let kind = if at < voters { LearnerType::Participant } else { LearnerType::Observer };
            (sid(at), member(kind))
        });
        let config = EnsembleConfig { members: members.collect(), ..EnsembleConfig::default() };
        let mut record = Record::default();
        let nodes = (0..voters + observers).map(|at| Node {
            sid: sid(at),
            kind: if at < voters { LearnerKind::Follower } else { LearnerKind::Observer },
            up: true,
            incarnation: 0,
            epochs: Epochs::default(),
            log: Vec::new(),
            flushed: 0,
            flushing: false,
            storing: false,
            applied: 0,
            process: record.process(),
            role: Role::Looking,
            next_counter: 1,
        });
        let nodes = nodes.collect();
        Self {
            prng: Prng::new(seed),
            plant,
            now: Instant::default(),
            configs: EnsembleConfigs::settled(config),
            timing: Timing {
                establish_within: Duration::from_millis(200),
                joined_within: Duration::from_millis(100),
                sync_within: Duration::from_millis(60),
                silence_max: Duration::from_millis(60),
                ping_every: Duration::from_millis(10),
            },
            nodes,
            wires: BTreeMap::new(),
            next_link: 1,
            events: Vec::new(),
            ledger: Vec::new(),
            leaders: BTreeMap::new(),
            proposed: 0,
            zxids: EpochZxids::default(),
            apaches: BTreeSet::new(),
            renewals: 0,
            rollovers: 0,
            faults: true,
            record,
        }
    }

    fn later(&mut self, micros: u64) -> Instant {
        self.now + Duration::from_micros(1 + self.prng.below(micros))
    }

    /// One step of one millisecond at most.
    fn step(&mut self) -> Checked {
        self.now = self.later(1_000);
        if self.faults {
            self.fault()?;
        }
        if self.prng.one_in(8) {
            self.elect()?;
        }
        self.deliver()?;
        self.complete()?;
        for at in 0..self.nodes.len() {
            self.tick(at)?;
            self.start_flush(at);
        }
        if self.prng.one_in(3) {
            self.propose()?;
        }
        Ok(())
    }

    fn fault(&mut self) -> Checked {
        let at = self.prng.below(self.nodes.len() as u64) as usize;
        match self.prng.below(400) {
            0..=3 => self.crash(at),
            4..=20 => self.start(at),
            // A connection is cut.
            21..=24 if !self.wires.is_empty() => {
                let nth = self.prng.below(self.wires.len() as u64) as usize;
                let link = self.wires.keys().nth(nth).copied().expect("it was counted");
                self.cut_wire(link)?;
            }
            _ => {}
        }
        Ok(())
    }

    fn crash(&mut self, at: usize) {
        let Self { prng, nodes, record, .. } = self;
        let node = &mut nodes[at];
        if !node.up {
            return;
        }
        node.up = false;
        node.incarnation += 1;
        // What was not flushed may be there in part.
        let unflushed = (node.log.len() - node.flushed) as u64;
        let kept = node.flushed + prng.below(unflushed + 1) as usize;
        node.log.truncate(kept);
        node.flushed = kept;
        node.applied = 0;
        node.process = record.process();
        node.flushing = false;
        node.storing = false;
        node.role = Role::Looking;
        let gone: Vec<LinkId> = self
            .wires
            .iter()
            .filter(|(_, wire)| wire.learner == at || wire.leader == at)
            .map(|(id, _)| *id)
            .collect();
        for link in gone {
            self.cut_wire(link).expect("closing decides nothing");
        }
    }

    fn start(&mut self, at: usize) {
        self.nodes[at].up = true;
    }

    fn cut_wire(&mut self, link: LinkId) -> Checked {
        let Some(wire) = self.wires.remove(&link) else { return Ok(()) };
        if let Role::Leading(leader) = &mut self.nodes[wire.leader].role {
            leader.closed(link);
        }
        let mut out = Vec::new();
        if let Role::Following { learner, link: own } = &mut self.nodes[wire.learner].role
            && *own == link
        {
            learner.closed(&mut out);
        }
        self.learner_outputs(wire.learner, out)
    }

    /// Ready for a role: nothing of an earlier one is under way.
    fn is_ready(&self, at: usize) -> bool {
        let node = &self.nodes[at];
        node.up
            && matches!(node.role, Role::Looking)
            && node.flushed == node.log.len()
            && !node.flushing
            && !node.storing
            && !self.events.iter().any(|(_, event)| match event {
                Event::Cut { node, .. } | Event::Installed { node, .. } => *node == at,
                _ => false,
            })
    }

    fn elect(&mut self) -> Checked {
        let looking: Vec<usize> =
            (0..self.nodes.len()).filter(|at| self.is_ready(*at) && !self.prng.one_in(4)).collect();
        let votes = |node: &Node| node.kind == LearnerKind::Follower;
        let voting: Vec<usize> =
            looking.iter().copied().filter(|at| votes(&self.nodes[*at])).collect();
        let sids: Vec<ServerId> = voting.iter().map(|at| self.nodes[*at].sid).collect();
        if self.configs.is_quorum(|sid| sids.contains(&sid)) {
            let key = |at: &usize| {
                let node = &self.nodes[*at];
                (node.epochs.current, last(&node.log), node.sid)
            };
            let best = voting.iter().copied().max_by_key(key).expect("a quorum is not empty");
            self.lead(best)?;
            for at in looking.into_iter().filter(|at| *at != best) {
                self.follow(at, best)?;
            }
            return Ok(());
        }
        // A leader that others know of is joined.
        let leaders: Vec<usize> = (0..self.nodes.len())
            .filter(|at| matches!(self.nodes[*at].role, Role::Leading(_)))
            .collect();
        if !leaders.is_empty() && !looking.is_empty() {
            let leader = leaders[self.prng.below(leaders.len() as u64) as usize];
            let at = looking[self.prng.below(looking.len() as u64) as usize];
            self.follow(at, leader)?;
        }
        Ok(())
    }

    fn lead(&mut self, at: usize) -> Checked {
        let start = leader::Start {
            me: self.nodes[at].sid,
            configs: self.configs.clone(),
            adopts_configs: false,
            timing: self.timing,
            epochs: self.nodes[at].epochs,
            last_zxid: last(&self.nodes[at].log),
            news_bytes_max: if self.prng.one_in(2) { 200 } else { usize::MAX },
            zxids: self.zxids,
        };
        let mut out = Vec::new();
        let leader = Leader::new(start, self.now, &mut out);
        self.nodes[at].role = Role::Leading(Box::new(leader));
        self.leader_outputs(at, out)
    }

    fn follow(&mut self, at: usize, leader: usize) -> Checked {
        let link = LinkId(self.next_link);
        self.next_link += 1;
        let node = &self.nodes[at];
        let start = learner::Start {
            me: node.sid,
            kind: node.kind,
            config_version: 0,
            timing: self.timing,
            epochs: node.epochs,
            last_zxid: Some(last(&node.log)),
            cannot_cut: false,
        };
        let wire =
            Wire { learner: at, leader, to_leader: VecDeque::new(), to_learner: VecDeque::new() };
        self.wires.insert(link, wire);
        if let Role::Leading(machine) = &mut self.nodes[leader].role {
            machine.opened(link, self.now, &mut Vec::new());
        }
        let mut out = Vec::new();
        let learner = Learner::new(start, self.now, &mut out);
        self.nodes[at].role = Role::Following { learner: Box::new(learner), link };
        self.learner_outputs(at, out)
    }

    fn deliver(&mut self) -> Checked {
        let links: Vec<LinkId> = self.wires.keys().copied().collect();
        for link in links {
            loop {
                let now = self.now;
                let Some(wire) = self.wires.get_mut(&link) else { break };
                let at = wire.leader;
                let due = |at: &Instant| *at <= now;
                if wire.to_leader.front().is_some_and(|(at, _)| due(at)) {
                    let (_, packet) = wire.to_leader.pop_front().expect("it is there");
                    let mut out = Vec::new();
                    if let Role::Leading(leader) = &mut self.nodes[at].role {
                        leader.received(now, link, packet, &mut out);
                    }
                    self.leader_outputs(at, out)?;
                    continue;
                }
                let at = wire.learner;
                let preparing = self.events.iter().any(|(_, event)| match event {
                    Event::Cut { node, .. } | Event::Installed { node, .. } => *node == at,
                    _ => false,
                });
                let wire = self.wires.get_mut(&link).expect("it was there");
                if !preparing && wire.to_learner.front().is_some_and(|(at, _)| due(at)) {
                    let (_, message) = wire.to_learner.pop_front().expect("it is there");
                    match message {
                        ToLearner::Packet(packet) => {
                            let mut out = Vec::new();
                            if let Role::Following { learner, link: own } = &mut self.nodes[at].role
                                && *own == link
                            {
                                learner.received(now, packet, &mut out);
                            }
                            self.learner_outputs(at, out)?;
                        }
                        ToLearner::Body(log) => {
                            let when = self.later(20_000);
                            let incarnation = self.nodes[at].incarnation;
                            self.events
                                .push((when, Event::Installed { node: at, incarnation, log }));
                        }
                    }
                    continue;
                }
                break;
            }
        }
        Ok(())
    }

    fn complete(&mut self) -> Checked {
        let now = self.now;
        let (due, waiting) =
            std::mem::take(&mut self.events).into_iter().partition(|(at, _)| *at <= now);
        self.events = waiting;
        let due: Vec<(Instant, Event)> = due;
        for (_, event) in due {
            self.happen(event)?;
        }
        Ok(())
    }

    fn happen(&mut self, event: Event) -> Checked {
        let now = self.now;
        match event {
            Event::Flushed { node: at, incarnation, len } => {
                let node = &mut self.nodes[at];
                if node.incarnation != incarnation {
                    return Ok(());
                }
                node.flushing = false;
                node.flushed = node.flushed.max(len.min(node.log.len()));
                self.tell_flushed(at)
            }
            Event::Stored { node: at, incarnation, epochs } => {
                let plant = self.plant;
                let node = &mut self.nodes[at];
                // A write that was under way when the server was killed may take place.
                if node.incarnation != incarnation {
                    return Ok(());
                }
                if plant != Plant::EpochsLost {
                    node.epochs = epochs;
                }
                node.storing = false;
                match &mut node.role {
                    Role::Leading(leader) => {
                        let mut out = Vec::new();
                        leader.stored(&mut out);
                        self.leader_outputs(at, out)?;
                        self.tell_flushed(at)
                    }
                    Role::Following { learner, .. } => {
                        let mut out = Vec::new();
                        learner.stored(&mut out);
                        self.learner_outputs(at, out)
                    }
                    Role::Looking => Ok(()),
                }
            }
            Event::Cut { node: at, incarnation, zxid } => {
                let skips = self.plant == Plant::CutSkipped;
                let node = &mut self.nodes[at];
                if node.incarnation != incarnation {
                    return Ok(());
                }
                if !skips {
                    node.log.retain(|(entry, _)| *entry <= zxid);
                }
                node.flushed = node.log.len();
                let end = if skips { zxid } else { last(&node.log) };
                if let Role::Following { learner, .. } = &mut node.role {
                    learner.cut(now, end);
                }
                Ok(())
            }
            Event::Installed { node: at, incarnation, log } => {
                let node = &mut self.nodes[at];
                if node.incarnation != incarnation {
                    return Ok(());
                }
                node.log = log;
                node.flushed = node.log.len();
                let end = last(&node.log);
                if let Role::Following { learner, .. } = &mut node.role {
                    learner.installed(now, end);
                }
                Ok(())
            }
        }
    }

    fn tell_flushed(&mut self, at: usize) -> Checked {
        let node = &mut self.nodes[at];
        let Some((zxid, _)) = node.flushed.checked_sub(1).and_then(|end| node.log.get(end)) else {
            return Ok(());
        };
        let zxid = *zxid;
        let mut out = Vec::new();
        match &mut node.role {
            Role::Leading(leader) => {
                let mut out = Vec::new();
                leader.flushed(self.now, zxid, &mut out);
                return self.leader_outputs(at, out);
            }
            Role::Following { learner, .. } => learner.flushed(zxid, &mut out),
            Role::Looking => {}
        }
        self.learner_outputs(at, out)
    }

    fn start_flush(&mut self, at: usize) {
        let node = &self.nodes[at];
        if node.up && !node.flushing && node.flushed < node.log.len() {
            let (incarnation, len) = (node.incarnation, node.log.len());
            self.nodes[at].flushing = true;
            let when = self.later(3_000);
            self.events.push((when, Event::Flushed { node: at, incarnation, len }));
        }
    }

    fn tick(&mut self, at: usize) -> Checked {
        let now = self.now;
        match &mut self.nodes[at].role {
            Role::Leading(leader) if leader.next_timer() <= now => {
                let mut out = Vec::new();
                leader.timer(now, &mut out);
                self.leader_outputs(at, out)
            }
            Role::Following { learner, .. } if learner.next_timer() <= now => {
                let mut out = Vec::new();
                learner.timer(now, &mut out);
                self.learner_outputs(at, out)
            }
            _ => Ok(()),
        }
    }

    fn propose(&mut self) -> Checked {
        let leading: Vec<usize> = (0..self.nodes.len())
            .filter(|at| matches!(&self.nodes[*at].role, Role::Leading(l) if l.is_established()))
            .collect();
        for at in leading {
            self.proposed += 1;
            let now = self.now;
            let txn = Bytes::from(self.proposed.to_string());
            let node = &mut self.nodes[at];
            let Role::Leading(leader) = &mut node.role else { continue };
            let mut out = Vec::new();
            if leader.renew(now, &mut out) {
                self.renewals += 1;
                self.leader_outputs(at, out)?;
                continue;
            }
            // It waits until everything is committed, and does not always wait.
            if leader.wants_renewal() && !self.prng.one_in(8) {
                continue;
            }
            let epoch = leader.epoch().expect("an established leader has an epoch");
            let zxid = Zxid::new(epoch, node.next_counter);
            node.next_counter += 1;
            node.log.push((zxid, txn.clone()));
            self.record.broadcast(node.process, zxid, txn.clone());
            leader.propose(now, zxid, &txn, &mut out);
            if self.plant == Plant::LeaderFlushLies {
                leader.flushed(self.now, zxid, &mut out);
            }
            self.leader_outputs(at, out)?;
        }
        Ok(())
    }

    fn send(&mut self, link: LinkId, message: ToLearner) {
        let when = self.later(2_000);
        if let Some(wire) = self.wires.get_mut(&link) {
            let when = wire.to_learner.back().map_or(when, |(at, _)| when.max(*at));
            wire.to_learner.push_back((when, message));
        }
    }

    fn leader_outputs(&mut self, at: usize, out: Vec<leader::Output>) -> Checked {
        let mut out = VecDeque::from(out);
        while let Some(output) = out.pop_front() {
            let mut more = Vec::new();
            match output {
                leader::Output::Send(link, packet) => self.send(link, ToLearner::Packet(packet)),
                leader::Output::Close(link, _) => self.cut_wire(link)?,
                leader::Output::Store(epochs) => self.store(at, epochs),
                leader::Output::Choose { link, last } => {
                    let Role::Leading(leader) = &self.nodes[at].role else { continue };
                    let upto = leader.committed();
                    let plan = self.choose(at, last, upto);
                    if let Role::Leading(leader) = &mut self.nodes[at].role {
                        leader.synchronize(link, plan, &mut more);
                    }
                }
                leader::Output::ReadHistory { link, after, upto } => {
                    let node = &mut self.nodes[at];
                    let wanted = |(zxid, _): &&(Zxid, Bytes)| after < *zxid && *zxid <= upto;
                    let txns = node.log.iter().filter(wanted).cloned().collect();
                    if let Role::Leading(leader) = &mut node.role {
                        leader.history(link, txns, &mut more);
                    }
                }
                leader::Output::SendSnapshot { link, upto } => {
                    let node = &self.nodes[at];
                    let Role::Leading(leader) = &node.role else { continue };
                    let upto = if self.prng.one_in(2) { upto } else { leader.committed() };
                    let log: Log =
                        node.log.iter().filter(|(zxid, _)| *zxid <= upto).cloned().collect();
                    self.send(link, ToLearner::Packet(LeaderPacket::Snap { zxid: upto }));
                    self.send(link, ToLearner::Body(log));
                    if let Role::Leading(leader) = &mut self.nodes[at].role {
                        leader.snapshot_sent(link, upto, &mut more);
                    }
                }
                leader::Output::Established { epoch } => {
                    let node = &mut self.nodes[at];
                    node.next_counter = 1;
                    let sid = node.sid;
                    if let Some(other) = self.leaders.insert(epoch, at) {
                        return Err(format!("{other} and {sid} both lead epoch {epoch}"));
                    }
                    if !self.nodes[at].log.starts_with(&self.ledger) {
                        return Err(format!("{sid} leads epoch {epoch} without what is committed"));
                    }
                    let end = last(&self.nodes[at].log);
                    self.committed(at, end)?;
                }
                leader::Output::Committed(zxid) => self.committed(at, zxid)?,
                leader::Output::Abdicate(why) => {
                    self.rollovers += u64::from(why == Abdication::Rollover);
                    self.nodes[at].role = Role::Looking;
                    let links: Vec<LinkId> = self
                        .wires
                        .iter()
                        .filter(|(_, wire)| wire.leader == at)
                        .map(|(id, _)| *id)
                        .collect();
                    for link in links {
                        self.cut_wire(link)?;
                    }
                }
                leader::Output::Request(..)
                | leader::Output::Revalidate(..)
                | leader::Output::Touched { .. }
                | leader::Output::Config(_)
                | leader::Output::Activated { .. }
                | leader::Output::Synced(_) => {}
            }
            for output in more.into_iter().rev() {
                out.push_front(output);
            }
        }
        Ok(())
    }

    /// How a learner with this last zxid is synchronized with what is committed.
    fn choose(&mut self, at: usize, theirs: Zxid, upto: Zxid) -> SyncPlan {
        // A snapshot is always legal.
        if self.plant != Plant::AlwaysDiff && self.prng.one_in(4) {
            return SyncPlan { way: SyncWay::Snap, after: upto };
        }
        match self.plant {
            Plant::AlwaysDiff => SyncPlan { way: SyncWay::Diff, after: theirs },
            _ => {
                let log = &self.nodes[at].log;
                let len = log.iter().take_while(|(zxid, _)| *zxid <= upto).count();
                SyncPlan::choose(&Committed(&log[..len]), theirs, u64::MAX)
            }
        }
    }

    fn store(&mut self, at: usize, epochs: Epochs) {
        let incarnation = self.nodes[at].incarnation;
        self.nodes[at].storing = true;
        let when = self.later(2_000);
        self.events.push((when, Event::Stored { node: at, incarnation, epochs }));
    }

    fn learner_outputs(&mut self, at: usize, out: Vec<learner::Output>) -> Checked {
        for output in out {
            match output {
                learner::Output::Send(mut packet) => {
                    self.check_promise(at, &packet)?;
                    self.disguise(at, &mut packet);
                    let when = self.later(2_000);
                    let Role::Following { link, .. } = &self.nodes[at].role else { continue };
                    if let Some(wire) = self.wires.get_mut(link) {
                        let when = wire.to_leader.back().map_or(when, |(at, _)| when.max(*at));
                        wire.to_leader.push_back((when, packet));
                    }
                }
                learner::Output::Store(epochs) => self.store(at, epochs),
                learner::Output::Cut(zxid) => {
                    let node = &self.nodes[at];
                    let incarnation = node.incarnation;
                    let when = self.later(5_000);
                    self.events.push((when, Event::Cut { node: at, incarnation, zxid }));
                }
                // It is received beside what is there, which stays until the switch.
                learner::Output::Install(_) if self.plant != Plant::SnapshotOverLog => {}
                learner::Output::Install(_) => {
                    let node = &mut self.nodes[at];
                    node.log.clear();
                    node.flushed = 0;
                    if self.prng.one_in(2) {
                        self.crash(at);
                        return Ok(());
                    }
                }
                learner::Output::Append { zxid, txn } => {
                    let plant = self.plant;
                    let node = &mut self.nodes[at];
                    node.log.push((zxid, txn));
                    if plant == Plant::FlushLies {
                        let mut more = Vec::new();
                        if let Role::Following { learner, .. } = &mut node.role {
                            learner.flushed(zxid, &mut more);
                        }
                        self.learner_outputs(at, more)?;
                    }
                }
                learner::Output::Committed(zxid) => self.committed(at, zxid)?,
                learner::Output::AnswerPing(zxid) => {
                    let answer = LearnerPacket::Ping { zxid, touches: Vec::new() };
                    self.learner_outputs(at, vec![learner::Output::Send(answer)])?;
                }
                learner::Output::GiveUp(_) => {
                    let Role::Following { link, .. } = &self.nodes[at].role else { continue };
                    let link = *link;
                    self.nodes[at].role = Role::Looking;
                    self.cut_wire(link)?;
                }
                learner::Output::Serve { .. }
                | learner::Output::Config(_)
                | learner::Output::Activate { .. }
                | learner::Output::Synced
                | learner::Output::Revalidated { .. } => {}
            }
        }
        Ok(())
    }

    /// Of some servers leaders believe that they are Apache's.
    fn disguise(&self, at: usize, packet: &mut LearnerPacket) {
        if let LearnerPacket::FollowerInfo { info: Some(info), .. }
        | LearnerPacket::ObserverInfo { info: Some(info), .. } = packet
        {
            info.is_ringkeeper &= !self.apaches.contains(&at);
        }
    }

    /// What a learner says must be true on its disk.
    fn check_promise(&self, at: usize, packet: &LearnerPacket) -> Checked {
        if self.plant != Plant::None {
            return Ok(());
        }
        let node = &self.nodes[at];
        let durable = last(&node.log[..node.flushed]);
        let holds = match packet {
            LearnerPacket::Ack { zxid } if zxid.counter() == 0 => {
                node.epochs.current == zxid.epoch()
            }
            LearnerPacket::Ack { zxid } => *zxid <= durable,
            LearnerPacket::AckEpoch { last_zxid, .. } => *last_zxid <= durable,
            _ => true,
        };
        if holds { Ok(()) } else { Err(format!("{} says {packet:?} too early", node.sid)) }
    }

    /// A server takes everything up to `zxid` for committed: it must be what others took.
    fn committed(&mut self, at: usize, zxid: Zxid) -> Checked {
        let node = &mut self.nodes[at];
        let len = node.log.iter().take_while(|(entry, _)| *entry <= zxid).count();
        node.applied = node.applied.max(len);
        let prefix = &node.log[..len];
        self.record.deliver_all(node.process, prefix);
        let shared = prefix.len().min(self.ledger.len());
        if prefix[..shared] != self.ledger[..shared] {
            return Err(format!("{} has committed something else up to {zxid}", node.sid));
        }
        if self.ledger.len() < prefix.len() {
            self.ledger.extend_from_slice(&prefix[shared..]);
        }
        Ok(())
    }

    /// All serve the same, and nothing is missing.
    fn is_settled(&self) -> bool {
        let leader = self.nodes.iter().find_map(|node| match &node.role {
            Role::Leading(leader) if leader.is_established() => Some(leader),
            _ => None,
        });
        let serves = |node: &Node| match &node.role {
            Role::Leading(leader) => leader.is_established(),
            Role::Following { learner, .. } => learner.is_serving(),
            Role::Looking => false,
        };
        leader.is_some_and(|leader| leader.serving().count() + 1 == self.nodes.len())
            && self.nodes.iter().all(serves)
    }
}

fn last(log: &[(Zxid, Bytes)]) -> Zxid {
    log.last().map_or(Zxid::ZERO, |(zxid, _)| *zxid)
}

/// What came of runs.
#[derive(Debug, Default)]
struct Ran {
    committed: usize,
    /// Epochs that a leader was established in; how many of them began in place, and how many ended
    /// since their zxids were used up.
    epochs: usize,
    renewals: u64,
    rollovers: u64,
}

/// A run with faults, then one without in which the ensemble must settle.
fn run(seed: u64, plant: Plant) -> Result<Ran, String> {
    let mut shape = Prng::new(seed);
    let voters = [1, 3, 3, 3, 5][shape.below(5) as usize];
    let observers = shape.below(2) as usize;
    let mut world = World::new(seed, plant, voters, observers);
    // In half of the ensembles epochs are short, and in half of those one server of Apache's is.
    match shape.below(4) {
        0 | 1 => {}
        2 => world.zxids.renew_at = 5,
        _ => {
            world.zxids = EpochZxids { renew_at: 5, last: 9 };
            world.apaches.insert(shape.below(voters as u64) as usize);
        }
    }
    for _ in 0..4_000 {
        world.step()?;
    }
    world.faults = false;
    for at in 0..world.nodes.len() {
        world.start(at);
    }
    let deadline = world.now + Duration::from_millis(10_000);
    while world.now < deadline && !world.is_settled() {
        world.step()?;
    }
    if !world.is_settled() {
        return Err("the healed ensemble does not settle".to_owned());
    }
    world.record.check()?;
    Ok(Ran {
        committed: world.ledger.len(),
        epochs: world.leaders.len(),
        renewals: world.renewals,
        rollovers: world.rollovers,
    })
}

#[test]
fn no_fault_breaks_it() {
    let mut all = Ran::default();
    for seed in 0..200 {
        let ran = run(seed, Plant::None).unwrap_or_else(|text| panic!("{seed}: {text}"));
        all.committed += ran.committed;
        all.epochs += ran.epochs;
        all.renewals += ran.renewals;
        all.rollovers += ran.rollovers;
    }
    println!("{all:?}");
    assert!(20_000 < all.committed && 600 < all.epochs, "{all:?}");
    assert!(500 < all.renewals && 100 < all.rollovers, "{all:?}");
}

/// Seeds within which each planted bug must be found.
const SEEDS_MAX: u64 = 200;

#[test]
fn planted_bugs_are_found() {
    for plant in ALL_PLANTS {
        let found = (0..SEEDS_MAX).find(|seed| run(*seed, plant).is_err());
        assert!(found.is_some(), "{plant:?} is not found in {SEEDS_MAX} seeds");
    }
}
