//! Ensembles of election machines on a network that loses, delays, repeats and reorders, with
//! partitions and restarts; what elections promise holds throughout, and once all is well, one
//! leader is found.

use std::collections::{BTreeMap, BinaryHeap};

use super::tests::members;
use super::*;
use crate::base::Prng;

struct World {
    prng: Prng,
    now: Instant,
    peers: Vec<Peer>,
    in_flight: BinaryHeap<Flight>,
    sequence: u64,
    /// `cut[a][b]`: nothing gets from a to b.
    cut: Vec<Vec<bool>>,
    is_healed: bool,
    decisions: usize,
}

struct Peer {
    election: Election,
    durable: HistoryEnd,
    /// Since when it has its leader, or looks.
    since: Instant,
    /// First vote of its present round, and the last that it sent in it.
    cast: Option<(i64, Vote, Vote)>,
    /// Every vote that it cast: round, first vote of that round, vote.
    history: Vec<(i64, Vote, Vote)>,
}

#[derive(PartialEq, Eq)]
struct Flight {
    at: Instant,
    sequence: u64,
    from: usize,
    to: usize,
    notification: Notification,
}

impl Ord for Flight {
    fn cmp(&self, other: &Self) -> std::cmp::Ordering {
        (other.at, other.sequence).cmp(&(self.at, self.sequence))
    }
}

impl PartialOrd for Flight {
    fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}

fn ms(count: u64) -> Duration {
    Duration::from_millis(count)
}

/// The place of a voter.
fn index(sid: ServerId) -> Option<usize> {
    usize::try_from(sid.0.checked_sub(1)?).ok()
}

impl World {
    fn new(seed: u64, count: usize) -> Self {
        let mut prng = Prng::new(seed);
        let voters = i64::try_from(count).expect("few servers");
        let configs = EnsembleConfigs::settled(members(voters, 0));
        let mut world = Self {
            now: Instant(1_000_000_000),
            peers: (1..=voters)
                .map(|sid| Peer {
                    election: Election::new(ServerId(sid), configs.clone(), true),
                    durable: HistoryEnd {
                        current_epoch: prng.below(3) as u32,
                        last_zxid: Zxid(prng.below(4).cast_signed()),
                    },
                    since: Instant(0),
                    cast: None,
                    history: Vec::new(),
                })
                .collect(),
            prng,
            in_flight: BinaryHeap::new(),
            sequence: 0,
            cut: vec![vec![false; count]; count],
            is_healed: false,
            decisions: 0,
        };
        for at in 0..count {
            world.look(at);
        }
        world
    }

    fn look(&mut self, at: usize) {
        let peer = &mut self.peers[at];
        peer.cast = None;
        peer.since = self.now;
        peer.election.look(self.now, Some(peer.durable));
        self.drain(at);
    }

    /// The process ends and starts again; its round is forgotten, its links break.
    fn restart(&mut self, at: usize) {
        let configs = self.peers[at].election.configs().clone();
        let sid = self.peers[at].election.me;
        self.peers[at].election = Election::new(sid, configs, true);
        self.in_flight.retain(|flight| flight.from != at && flight.to != at);
        for other in 0..self.peers.len() {
            if other != at {
                self.peers[other].election.on_disconnected(self.now, sid);
                self.drain(other);
            }
        }
        self.look(at);
    }

    fn drain(&mut self, at: usize) {
        while let Some(output) = self.peers[at].election.poll_output() {
            match output {
                ElectionOutput::Send { to, notification } => self.send(at, to, notification),
                ElectionOutput::Decided(decision) => self.check_decision(at, decision),
                ElectionOutput::Adopted(_) => panic!("all have the same configuration"),
            }
        }
    }

    fn send(&mut self, from: usize, to: ServerId, notification: Notification) {
        if notification.state == ServerState::Looking {
            self.check_vote(from, &notification);
        }
        let to = index(to).expect("a voter");
        let lost = !self.is_healed && (self.cut[from][to] || self.prng.one_in(8));
        let copies = if lost { 0 } else { 1 + u64::from(!self.is_healed && self.prng.one_in(8)) };
        for _ in 0..copies {
            // Without faults, what is sent first arrives first.
            let late = if self.is_healed { 0 } else { self.prng.below(ms(40).0) };
            let at = self.now + Duration(ms(1).0 + late);
            self.sequence += 1;
            let sequence = self.sequence;
            let notification = notification.clone();
            self.in_flight.push(Flight { at, sequence, from, to, notification });
        }
    }

    /// Promise 1: as long as a server is in a round, its vote grows.
    fn check_vote(&mut self, from: usize, notification: &Notification) {
        let Notification { round, vote, .. } = *notification;
        let peer = &mut self.peers[from];
        let first = match peer.cast {
            Some((cast_round, first, last)) if cast_round == round => {
                assert!(last <= vote, "server {from} in round {round}: {last}, then {vote}");
                first
            }
            _ => peer.election.own,
        };
        peer.cast = Some((round, first, vote));
        peer.history.push((round, first, vote));
    }

    /// Promise 2: a quorum had voted for who is elected, none of them with a better first vote.
    fn check_decision(&mut self, at: usize, decision: Decision) {
        self.decisions += 1;
        self.peers[at].since = self.now;
        let supports = |sid: ServerId| {
            let peer = &self.peers[index(sid).expect("a voter")];
            peer.history.iter().any(|(round, first, vote)| {
                *round == decision.round && vote.leader == decision.vote.leader && *first <= *vote
            })
        };
        let configs = self.peers[at].election.configs();
        assert!(configs.is_quorum(supports), "{decision:?}: {}", configs.describe(supports));
        let leader = index(decision.vote.leader).expect("a voter");
        let durable = self.peers[leader].durable;
        assert_eq!(decision.vote.zxid, durable.last_zxid, "the leader's own position");
        assert_eq!(decision.vote.peer_epoch, i64::from(durable.current_epoch));
    }

    /// The next message or timer.
    fn step(&mut self) {
        let timers = self.peers.iter().enumerate();
        let timers = timers.filter_map(|(at, peer)| Some((peer.election.next_timeout()?, at)));
        let timer = timers.min();
        let message = self.in_flight.peek().map(|flight| flight.at);
        match (timer, message) {
            (Some((at, peer)), next) if next.is_none_or(|next| at < next) => {
                self.now = self.now.max(at);
                self.peers[peer].election.on_timeout(self.now);
                self.drain(peer);
            }
            (_, Some(_)) => {
                let Some(flight) = self.in_flight.pop() else { return };
                self.now = self.now.max(flight.at);
                let from = ServerId(i64::try_from(flight.from + 1).expect("few servers"));
                let election = &mut self.peers[flight.to].election;
                election.on_connected(from);
                election.on_notification(self.now, from, &flight.notification);
                self.drain(flight.to);
            }
            _ => self.now = self.now + ms(10),
        }
        self.give_up();
    }

    /// What the phases after an election do: who follows a server that does not lead, or leads
    /// without a quorum, looks again.
    fn give_up(&mut self) {
        let states: Vec<_> =
            self.peers.iter().map(|peer| (peer.election.state, peer.election.current)).collect();
        for at in 0..self.peers.len() {
            let (state, current) = states[at];
            let leader = index(current.vote.leader);
            let is_overdue = ms(300) < self.now.since(self.peers[at].since);
            let is_lost = match state {
                ServerState::Looking | ServerState::Observing => false,
                ServerState::Following => {
                    leader.is_none_or(|leader| states[leader].0 != ServerState::Leading)
                }
                ServerState::Leading => {
                    let follows = |sid: ServerId| {
                        let peer = states[index(sid).expect("a voter")];
                        peer.0 != ServerState::Looking && peer.1.vote.leader == current.vote.leader
                    };
                    !self.peers[at].election.configs().is_quorum(follows)
                }
            };
            if is_lost && is_overdue {
                self.look(at);
            }
        }
    }

    fn disturb(&mut self) {
        let count = self.peers.len() as u64;
        let at = self.prng.below(count) as usize;
        match self.prng.below(6) {
            0 => self.restart(at),
            1 => self.look(at),
            2 => self.cut.iter_mut().for_each(|row| row.fill(false)),
            _ => {
                let to = self.prng.below(count) as usize;
                self.cut[at][to] ^= true;
                if self.prng.one_in(2) {
                    self.cut[to][at] = self.cut[at][to];
                }
            }
        }
    }

    /// Everybody has the same leader, which leads.
    fn is_settled(&self) -> bool {
        let leaders: BTreeMap<ServerId, usize> =
            self.peers.iter().fold(BTreeMap::new(), |mut leaders, peer| {
                *leaders.entry(peer.election.current.vote.leader).or_default() += 1;
                leaders
            });
        let leading = |peer: &Peer| peer.election.state == ServerState::Leading;
        leaders.len() == 1
            && self.peers.iter().filter(|peer| leading(peer)).count() == 1
            && self.peers.iter().all(|peer| peer.election.state != ServerState::Looking)
    }
}

#[test]
fn elections_keep_their_promises_and_end() {
    let mut decisions = 0;
    for seed in 0..300 {
        for count in [3, 5, 7] {
            let mut world = World::new(seed, count);
            for step in 0..400 {
                world.step();
                if step % 20 == 0 {
                    world.disturb();
                }
            }
            world.is_healed = true;
            let healed = world.now;
            while !world.is_settled() {
                assert!(
                    world.now.since(healed) < ms(30_000),
                    "seed {seed}, {count} servers: no leader within 30 s"
                );
                world.step();
            }
            decisions += world.decisions;
        }
    }
    assert!(5_000 < decisions, "only {decisions} decisions");
}

/// Without faults the best server is elected by all, within a few round trips.
#[test]
fn without_faults_the_best_leads() {
    for seed in 0..100 {
        let mut world = World::new(seed, 5);
        world.in_flight.clear();
        world.is_healed = true;
        for at in 0..5 {
            for other in 1..6 {
                world.peers[at].election.on_connected(ServerId(other));
            }
        }
        let start = world.now;
        (0..5).for_each(|at| world.look(at));
        while !world.is_settled() {
            world.step();
        }
        let best = world.peers.iter().map(|peer| peer.election.own).max().expect("five");
        assert!(world.peers.iter().all(|peer| peer.election.current.vote.leader == best.leader));
        assert!(world.now.since(start) < ms(20), "{:?}", world.now.since(start));
    }
}
