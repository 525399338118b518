//! Every interleaving of three servers within small bounds: messages that are lost, late, repeated
//! or out of order, writes that are lost or not when a server crashes, leaders at the same time.
//!
//! The network is a set of all messages ever sent; a step delivers any of them to anybody who may
//! receive it, so loss, delay, repetition and reordering need no steps of their own. Each epoch's
//! leader proposes at most one txn: a history is a set of epochs, written as bits. The search sees
//! each state once, up to renumbering of the servers.
//!
//! Where the members change, the txn of the first epoch proposes the other configuration. Everybody
//! has heard of it from the beginning; that it is in force, at any time once it is committed.

use std::collections::{BTreeSet, HashSet};

use super::world_tests::{
    Asked, CHANGE, Leading, Log, Message, ORDERS, SERVERS, Server, World, after_crash, end,
    is_prefix,
};
use super::*;
use crate::model::{EnsembleConfig, LearnerType, Member, ServerAddress};

/// How far the search goes, and which rule is left out.
#[derive(Clone, Copy)]
struct Bounds {
    epochs: u32,
    crashes: u8,
    broken: Option<Broken>,
    members: Members,
}

/// Who votes.
#[derive(Clone, Copy, Debug)]
struct Members {
    in_force: &'static [usize],
    proposed: Option<&'static [usize]>,
}

/// All three, for ever.
const ALL: Members = Members { in_force: &[0, 1, 2], proposed: None };

/// Members come, go, and take each other's place.
const CHANGES: [Members; 3] = [
    Members { in_force: &[0], proposed: Some(&[0, 1, 2]) },
    Members { in_force: &[0, 1, 2], proposed: Some(&[2]) },
    Members { in_force: &[0, 1], proposed: Some(&[1, 2]) },
];

/// A rule that is left out.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Broken {
    /// Promises and accepts leave before they are on disk.
    SaysBeforeStored,
    /// A repeated promise counts.
    CountsRepeatedPromises,
    /// Half of the servers, rounded down, are enough.
    QuorumOfHalf,
    /// `currentEpoch` is on disk before the history.
    EpochBeforeHistory,
    /// The history of a promise is not compared with the leader's.
    IgnoresHistories,
    /// An acceptor takes the history of an epoch earlier than the one it promised.
    AcceptsEarlierEpochs,
    /// Who has a proposed configuration in its history asks for a quorum of the one in force only.
    AsksInForceOnly,
    /// Who has a proposed configuration in its history asks for a quorum of that one only.
    AsksProposedOnly,
}

/// The configuration of these voters.
fn config(servers: &[usize], version: Zxid) -> EnsembleConfig {
    let address = ServerAddress { host: "h".into(), quorum_port: 1, election_port: 2 };
    let member = Member {
        addresses: vec![address],
        learner_type: LearnerType::Participant,
        client: None,
        secure_client: None,
    };
    let members = servers.iter().map(|at| (sid(*at), member.clone())).collect();
    EnsembleConfig { members, version: version.0, ..Default::default() }
}

pub(super) fn sid(at: usize) -> ServerId {
    ServerId(i64::try_from(at).expect("three servers"))
}

/// The search.
struct Search {
    bounds: Bounds,
    /// The configuration in force and the proposed one.
    configs: EnsembleConfigs,
    alone: [EnsembleConfigs; SERVERS],
    /// Ways to number the servers that make no difference to the configurations.
    orders: Vec<[usize; SERVERS]>,
    seen: HashSet<u128>,
    todo: Vec<World>,
    violation: Option<String>,
}

impl Search {
    fn run(bounds: Bounds) -> (usize, Option<String>) {
        let Members { in_force, proposed } = bounds.members;
        let proposed_at = proposed.map_or(Zxid::ZERO, |_| Zxid::new(1, 1));
        let proposed = proposed.unwrap_or(in_force);
        let keeps = |places: &[usize; SERVERS], voters: &[usize]| {
            voters.iter().all(|at| voters.contains(&places[*at]))
        };
        let orders = ORDERS.iter().filter(|it| keeps(it, in_force) && keeps(it, proposed));
        let mut search = Self {
            bounds,
            configs: EnsembleConfigs {
                committed: config(in_force, Zxid::ZERO),
                last_seen: config(proposed, proposed_at),
            },
            alone: [0, 1, 2].map(|at| EnsembleConfigs::settled(config(&[at], Zxid::ZERO))),
            orders: orders.copied().collect(),
            seen: HashSet::new(),
            todo: Vec::new(),
            violation: None,
        };
        let server = Server {
            acceptor: Acceptor::new(Epochs::default()),
            log: 0,
            writing: None,
            storing_for: 0,
            leading: None,
            is_changed: false,
        };
        let epochs = bounds.epochs as usize + 1;
        search.add(World {
            servers: [server.clone(), server.clone(), server],
            sent: BTreeSet::new(),
            crashes: 0,
            established: vec![None; epochs],
        });
        while let Some(world) = search.todo.pop() {
            search.expand(&world);
            if search.violation.is_some() {
                break;
            }
        }
        (search.seen.len(), search.violation)
    }

    fn is_broken(&self, rule: Broken) -> bool {
        self.bounds.broken == Some(rule)
    }

    /// What a server that begins to lead asks for.
    fn asked(&self, server: &Server) -> Asked {
        let own = end(&server.acceptor, server.log);
        match self.configs.pending() {
            Some(_) if server.is_changed => Asked::Proposed,
            Some(next) if !own.lacks(next) => self.asked_with_change(),
            _ => Asked::InForce,
        }
    }

    /// What is asked for by whoever has the proposed configuration in its history.
    fn asked_with_change(&self) -> Asked {
        match self.bounds.broken {
            Some(Broken::AsksInForceOnly) => Asked::InForce,
            Some(Broken::AsksProposedOnly) => Asked::Proposed,
            _ => Asked::Both,
        }
    }

    fn configs(&self, leader: usize, asked: Asked) -> EnsembleConfigs {
        let EnsembleConfigs { committed, last_seen } = &self.configs;
        match asked {
            _ if self.is_broken(Broken::QuorumOfHalf) => self.alone[leader].clone(),
            Asked::InForce => EnsembleConfigs::settled(committed.clone()),
            Asked::Both => self.configs.clone(),
            Asked::Proposed => EnsembleConfigs::settled(last_seen.clone()),
        }
    }

    fn add(&mut self, mut world: World) {
        world.forget_what_is_over(self.is_broken(Broken::CountsRepeatedPromises));
        if self.seen.insert(world.canonical(&self.orders)) {
            self.todo.push(world);
        }
    }

    /// All worlds one step on.
    fn expand(&mut self, world: &World) {
        for at in 0..SERVERS {
            self.start_leading(world, at);
            self.complete_a_write(world, at);
            self.propose(world, at);
            self.hear_of_change(world, at);
            self.crash(world, at);
        }
        for message in &world.sent {
            for at in 0..SERVERS {
                let mut next = world.clone();
                if self.deliver(&mut next, at, *message) && next != *world {
                    self.add(next);
                }
            }
        }
    }

    /// A server that won an election hears from others, perhaps something old.
    fn start_leading(&mut self, world: &World, at: usize) {
        let server = &world.servers[at];
        if server.leading.is_some() || !server.is_idle() {
            return;
        }
        let own = end(&server.acceptor, server.log);
        let accepted = server.acceptor.stored.accepted;
        let asked = self.asked(server);
        let configs = self.configs(at, asked);
        let others: Vec<usize> = (0..SERVERS).filter(|other| *other != at).collect();
        let mut greeted = vec![Proposer::new(sid(at), own, accepted)];
        while let Some(proposer) = greeted.pop() {
            if let Phase::Discovering { epoch } = proposer.phase() {
                if self.bounds.epochs < epoch {
                    continue;
                }
                let mut next = world.clone();
                let log = server.log;
                let (proposed, acks) = (false, BTreeSet::new());
                next.servers[at].leading = Some(Leading { asked, proposer, log, proposed, acks });
                let answer = next.servers[at].acceptor.on_leader_info(epoch);
                self.act(&mut next, at, at, answer);
                self.add(next);
                continue;
            }
            for other in others.iter().filter(|other| !proposer.hellos.contains_key(&sid(**other)))
            {
                for heard in 0..=world.servers[*other].acceptor.stored.accepted {
                    let mut proposer = proposer.clone();
                    proposer.on_hello(&configs, sid(*other), heard).expect("few epochs");
                    greeted.push(proposer);
                }
            }
        }
    }

    /// A server that does not lead hears that the proposed configuration is in force.
    fn hear_of_change(&mut self, world: &World, at: usize) {
        let server = &world.servers[at];
        let changes = self.configs.pending().is_some() && world.is_changed();
        if changes && server.leading.is_none() && !server.is_changed {
            let mut next = world.clone();
            next.servers[at].is_changed = true;
            self.add(next);
        }
    }

    fn complete_a_write(&mut self, world: &World, at: usize) {
        let mut next = world.clone();
        let server = &mut next.servers[at];
        if let Some((log, epoch, leader)) = server.writing.take() {
            server.log = log;
            let has_txn = log & (1 << epoch) != 0;
            if has_txn || self.is_broken(Broken::EpochBeforeHistory) {
                self.on_ack(&mut next, at, leader, epoch, log);
            } else {
                let answer = self.on_history(server, epoch);
                self.act(&mut next, at, leader, answer);
            }
            self.add(next);
        } else if server.acceptor.is_storing() {
            let leader = server.storing_for;
            let said = server.acceptor.on_stored();
            if !self.is_broken(Broken::SaysBeforeStored) {
                self.say(&mut next, at, leader, said);
            }
            self.add(next);
        }
    }

    fn propose(&mut self, world: &World, at: usize) {
        let server = &world.servers[at];
        let Some(leading) = &server.leading else { return };
        let Phase::Established { epoch } = leading.proposer.phase() else { return };
        if leading.proposed || server.writing.is_some() || server.acceptor.is_storing() {
            return;
        }
        let mut next = world.clone();
        let log = leading.log | 1 << epoch;
        next.servers[at].writing = Some((log, epoch, at));
        let asked = match self.configs.pending() {
            Some(_) if 1 << epoch == CHANGE => self.asked_with_change(),
            _ => leading.asked,
        };
        let proposer = leading.proposer.clone();
        let acks = BTreeSet::new();
        let leading = Leading { asked, proposer, log, proposed: true, acks };
        next.servers[at].leading = Some(leading);
        next.sent.insert(Message::Proposal { leader: at, epoch, log });
        self.add(next);
    }

    fn crash(&mut self, world: &World, at: usize) {
        if world.crashes == self.bounds.crashes {
            return;
        }
        let server = &world.servers[at];
        let logs = match server.writing {
            Some((new, ..)) => after_crash(server.log, new),
            None => vec![server.log],
        };
        for log in logs {
            let mut next = world.clone();
            next.crashes += 1;
            next.servers[at] = Server {
                // A write that is not lost is one that completed before the crash.
                acceptor: Acceptor::new(server.acceptor.stored),
                log,
                writing: None,
                storing_for: 0,
                leading: None,
                // It may not have been written down yet.
                is_changed: false,
            };
            self.add(next);
        }
    }

    /// Whether the message can be received now.
    fn deliver(&mut self, world: &mut World, at: usize, message: Message) -> bool {
        match message {
            Message::LeaderInfo { leader, epoch } => {
                if at == leader || !world.servers[at].is_idle() {
                    return false;
                }
                world.servers[at].leading = None;
                let answer = world.servers[at].acceptor.on_leader_info(epoch);
                self.act(world, at, leader, answer);
            }
            Message::AckEpoch { from, leader, epoch, history } => {
                return at == leader && self.on_promise(world, at, from, epoch, history);
            }
            Message::History { leader, epoch, log } => {
                let server = &mut world.servers[at];
                let promised = server.acceptor.stored.accepted;
                let fits = epoch == promised
                    || (epoch < promised && self.is_broken(Broken::AcceptsEarlierEpochs));
                // What the epoch has brought since is behind the history, and stays.
                let has_more = server.acceptor.stored.current == epoch && server.log != log;
                if at == leader || !server.is_idle() || !fits || has_more {
                    return false;
                }
                server.leading = None;
                self.take_history(world, at, leader, epoch, log);
            }
            Message::Proposal { leader, epoch, log } => {
                let server = &mut world.servers[at];
                let Epochs { accepted, current } = server.acceptor.stored;
                let follows = current == epoch && accepted == epoch;
                let fits = server.log == log & !(1 << epoch);
                if at == leader || !server.is_idle() || !follows || !fits {
                    return false;
                }
                server.writing = Some((log, epoch, leader));
            }
            Message::Ack { from, leader, epoch, log } => {
                if at == leader {
                    self.on_ack(world, from, leader, epoch, log);
                }
            }
        }
        true
    }

    /// Writes a history; its epoch follows.
    fn take_history(&mut self, world: &mut World, at: usize, leader: usize, epoch: u32, log: Log) {
        let server = &mut world.servers[at];
        if self.is_broken(Broken::EpochBeforeHistory) {
            let _ = self.on_history(server, epoch);
            if server.acceptor.is_storing() {
                server.acceptor.on_stored();
            }
        }
        world.servers[at].writing = Some((log, epoch, leader));
    }

    fn on_history(&self, server: &mut Server, epoch: u32) -> Answer {
        if self.is_broken(Broken::AcceptsEarlierEpochs) && epoch < server.acceptor.stored.accepted {
            return Answer::Say(Said::Accepted(Accept { epoch }));
        }
        server.acceptor.on_history(DurableHistory { epoch })
    }

    /// Does what an acceptor wants.
    fn act(&mut self, world: &mut World, at: usize, leader: usize, answer: Answer) {
        match answer {
            Answer::Store(_) => {
                world.servers[at].storing_for = leader;
                let storing = world.servers[at].acceptor.storing;
                if let (true, Some((_, said))) = (self.is_broken(Broken::SaysBeforeStored), storing)
                {
                    self.say(world, at, leader, said);
                }
            }
            Answer::Say(said) => self.say(world, at, leader, said),
            Answer::Refused { .. } => {}
        }
    }

    fn say(&mut self, world: &mut World, at: usize, leader: usize, said: Said) {
        match said {
            Said::Promised(promise) => {
                let epoch = promise.epoch();
                let now = end(&world.servers[at].acceptor, world.servers[at].log);
                let counts = self.is_broken(Broken::CountsRepeatedPromises)
                    || promise.current_epoch().is_some();
                let history = counts.then_some(now);
                if at == leader {
                    world.sent.insert(Message::LeaderInfo { leader, epoch });
                    self.on_promise(world, at, at, epoch, history);
                } else if counts {
                    world.sent.insert(Message::AckEpoch { from: at, leader, epoch, history });
                }
            }
            Said::Accepted(accept) => {
                let log = world.servers[at].log;
                self.on_ack(world, at, leader, accept.epoch(), log);
            }
        }
    }

    fn on_promise(
        &mut self,
        world: &mut World,
        at: usize,
        from: usize,
        epoch: u32,
        history: Option<HistoryEnd>,
    ) -> bool {
        let Some(leading) = &mut world.servers[at].leading else { return false };
        if leading.proposer.phase() != (Phase::Discovering { epoch }) {
            return false;
        }
        let own = leading.proposer.own;
        let blind = self.bounds.broken == Some(Broken::IgnoresHistories);
        let history = if blind { history.and(Some(own)) } else { history };
        let asked = leading.asked;
        let configs = self.configs(at, asked);
        let Some(leading) = &mut world.servers[at].leading else { return false };
        leading.proposer.on_promise(&configs, sid(from), history);
        if let Phase::Synchronizing { epoch } = leading.proposer.phase() {
            let log = leading.log;
            world.sent.insert(Message::History { leader: at, epoch, log });
            // The leader's own history is on disk already.
            let answer = world.servers[at].acceptor.on_history(DurableHistory { epoch });
            self.act(world, at, at, answer);
        }
        true
    }

    /// An ACK, the leader's own included.
    fn on_ack(&mut self, world: &mut World, from: usize, leader: usize, epoch: u32, log: Log) {
        if from != leader {
            world.sent.insert(Message::Ack { from, leader, epoch, log });
        }
        let Some(leading) = &mut world.servers[leader].leading else { return };
        let configs = self.configs(leader, leading.asked);
        let before = leading.proposer.phase();
        let history = leading.log & !(1 << epoch);
        if log == history {
            leading.proposer.on_accepted(&configs, sid(from), epoch);
        }
        let phase = leading.proposer.phase();
        if before != phase {
            self.take_effect(leading, history);
            self.check_established(world, leader, epoch, history);
        } else if log & (1 << epoch) != 0 && log == leading.log {
            leading.acks.insert(from);
            if configs.is_quorum(|sid| leading.acks.iter().any(|at| self::sid(*at) == sid)) {
                leading.acks.clear();
                self.take_effect(leading, log);
                self.check_committed(world, epoch, log);
            }
        }
    }

    /// The leader has committed this; with the proposed configuration, that is in force.
    fn take_effect(&self, leading: &mut Leading, committed: Log) {
        if self.configs.pending().is_some() && committed & CHANGE != 0 {
            leading.asked = Asked::Proposed;
        }
    }

    fn check_established(&mut self, world: &mut World, leader: usize, epoch: u32, log: Log) {
        if let Some((other, ..)) = world.established[epoch as usize].filter(|e| e.0 != leader) {
            self.violation = Some(format!("epoch {epoch} has leaders {other} and {leader}"));
        }
        let committed = world.established[epoch as usize].map_or(log, |earlier| earlier.2);
        world.established[epoch as usize] = Some((leader, log, committed));
        self.check_histories(world);
    }

    fn check_committed(&mut self, world: &mut World, epoch: u32, log: Log) {
        let committed =
            world.established[epoch as usize].map_or((0, log, log), |e| (e.0, e.1, log));
        world.established[epoch as usize] = Some(committed);
        self.check_histories(world);
    }

    /// What was committed in an epoch is in the history of every later leader.
    fn check_histories(&mut self, world: &World) {
        let epochs = world.established.iter().flatten();
        for (at, (_, _, committed)) in epochs.clone().enumerate() {
            for (leader, log, _) in epochs.clone().skip(at + 1) {
                if !is_prefix(*committed, *log) {
                    self.violation =
                        Some(format!("{committed:b} is not in {log:b} of leader {leader}"));
                }
            }
        }
    }
}

#[test]
fn a_history_lacks_a_proposal_of_its_own_epoch_behind_its_end() {
    let history = HistoryEnd { current_epoch: 3, last_zxid: Zxid::new(3, 7) };
    for (version, lacks) in [
        (Zxid::new(3, 7), false),
        (Zxid::new(3, 8), true),
        (Zxid::new(4, 1), true),
        // The beginning of an epoch is no txn.
        (Zxid::new(4, 0), false),
    ] {
        assert_eq!(history.lacks(&config(&[0], version)), lacks, "{version}");
    }
    // It came with the NEWLEADER of epoch 3.
    let history = HistoryEnd { current_epoch: 3, last_zxid: Zxid::new(2, 7) };
    assert!(!history.lacks(&config(&[0], Zxid::new(2, 8))));
}

#[test]
fn no_interleaving_of_three_servers_breaks_an_epoch_or_loses_a_commit() {
    for (epochs, crashes) in [(2, 2), (3, 0)] {
        let bounds = Bounds { epochs, crashes, broken: None, members: ALL };
        let (states, violation) = Search::run(bounds);
        println!("{epochs} epochs, {crashes} crashes: {states} states");
        assert_eq!(violation, None);
        assert!(20_000 < states, "only {states} states");
    }
}

#[test]
fn no_interleaving_breaks_them_while_members_change() {
    // Three epochs of the first two are some two million states each, and sound as well.
    for (members, epochs, crashes) in
        [(CHANGES[0], 2, 2), (CHANGES[1], 2, 2), (CHANGES[2], 2, 2), (CHANGES[2], 3, 0)]
    {
        let bounds = Bounds { epochs, crashes, broken: None, members };
        let (states, violation) = Search::run(bounds);
        println!("{members:?}, {epochs} epochs, {crashes} crashes: {states} states");
        assert_eq!(violation, None, "{members:?}");
        assert!(100_000 < states, "only {states} states");
    }
}

#[test]
fn each_rule_is_needed() {
    for rule in [
        Broken::SaysBeforeStored,
        Broken::CountsRepeatedPromises,
        Broken::QuorumOfHalf,
        Broken::EpochBeforeHistory,
        Broken::IgnoresHistories,
        Broken::AcceptsEarlierEpochs,
    ] {
        // To lose what was committed behind its back takes a third leader (ZOOKEEPER-4643).
        let (epochs, crashes) = match rule {
            Broken::EpochBeforeHistory => (3, 1),
            Broken::AcceptsEarlierEpochs => (3, 0),
            _ => (2, 1),
        };
        let bounds = Bounds { epochs, crashes, broken: Some(rule), members: ALL };
        let (states, violation) = Search::run(bounds);
        println!("{rule:?}: {states} states, {violation:?}");
        assert!(violation.is_some(), "without its rule, {rule:?} does no harm in {states} states");
    }
    for rule in [Broken::AsksInForceOnly, Broken::AsksProposedOnly] {
        // Of the third change the one in the middle is in every quorum.
        for members in &CHANGES[..2] {
            let members = *members;
            let bounds = Bounds { epochs: 2, crashes: 1, broken: Some(rule), members };
            let (states, violation) = Search::run(bounds);
            println!("{rule:?}, {members:?}: {states} states, {violation:?}");
            assert!(violation.is_some(), "{rule:?} does no harm in {states} states: {members:?}");
        }
    }
}
