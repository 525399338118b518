//! Does the faults to an ensemble, and undoes them.

use std::collections::{BTreeMap, BTreeSet};
use std::io::Write;
use std::net::TcpStream;
use std::thread;
use std::time::Duration;

use ringkeeper::base::prng::Prng;

use crate::clients::within;
use crate::drive::Mood;
use crate::fault::Fault;
use crate::net::at;
use crate::servers::{CLIENT_PORT, ELECTION_PORT, QUORUM_PORT, Servers};

/// An election among those that see each other takes less.
const ELECTED_WITHIN: Duration = Duration::from_secs(3);
const STARTED_WITHIN: Duration = Duration::from_secs(60);
/// Half-open connections to each port.
const HALF_OPEN: usize = 20;

/// What was done, and what has to be undone.
pub(crate) struct Nemesis {
    pub(crate) prng: Prng,
    pub(crate) counts: BTreeMap<Fault, u64>,
    /// Sectors that drives have lost from their caches.
    pub(crate) sectors_lost: usize,
    full: BTreeSet<i64>,
    /// Servers whose disk works again only once it is mounted anew.
    broken: BTreeSet<i64>,
    slow: BTreeSet<i64>,
    half_open: Vec<TcpStream>,
    /// Servers that may end by themselves, since their disk is not what it was.
    pub(crate) may_end: BTreeSet<i64>,
}

impl Nemesis {
    pub(crate) fn new(seed: u64) -> Self {
        Self {
            prng: Prng::new(seed),
            counts: BTreeMap::new(),
            sectors_lost: 0,
            full: BTreeSet::new(),
            broken: BTreeSet::new(),
            slow: BTreeSet::new(),
            half_open: Vec::new(),
            may_end: BTreeSet::new(),
        }
    }

    /// A time in milliseconds from `from` on, below `to`.
    pub(crate) fn time(&mut self, from: u64, to: u64) -> Duration {
        Duration::from_millis(from + self.prng.below(to - from))
    }

    fn any(&mut self, sids: &[i64]) -> i64 {
        sids[self.prng.below(sids.len() as u64) as usize]
    }

    fn leader(&mut self, servers: &Servers) -> i64 {
        servers.leader_within(ELECTED_WITHIN).unwrap_or_else(|| self.any(&servers.sids()))
    }

    fn follower(&mut self, servers: &Servers) -> i64 {
        let leader = self.leader(servers);
        let others: Vec<i64> = servers.sids().into_iter().filter(|sid| *sid != leader).collect();
        self.any(&others)
    }

    fn victim(&mut self, servers: &Servers) -> i64 {
        if self.prng.one_in(2) { self.leader(servers) } else { self.any(&servers.sids()) }
    }

    /// The servers in a random order.
    fn shuffled(&mut self, servers: &Servers) -> Vec<i64> {
        let mut sids = servers.sids();
        for at in (1..sids.len()).rev() {
            sids.swap(at, self.prng.below(at as u64 + 1) as usize);
        }
        sids
    }

    /// Does one.
    pub(crate) fn inject(&mut self, fault: Fault, servers: &mut Servers) {
        *self.counts.entry(fault).or_default() += 1;
        match fault {
            Fault::KillLeader
            | Fault::KillFollower
            | Fault::KillMinority
            | Fault::KillAll
            | Fault::KillRecovering
            | Fault::StopLeader
            | Fault::RollingRestart
            | Fault::PauseLeader
            | Fault::PauseFollower
            | Fault::PauseAll => self.processes(fault, servers),
            Fault::FullDisk
            | Fault::FailedWrites
            | Fault::FailedFlushes
            | Fault::SlowDisk
            | Fault::PowerCut
            | Fault::Blackout => self.disks(fault, servers),
            Fault::Garbage | Fault::HalfOpen => {
                for sid in servers.awake() {
                    for port in [CLIENT_PORT, QUORUM_PORT, ELECTION_PORT] {
                        self.strangers(fault, sid, port);
                    }
                }
                let leader = self.leader(servers);
                servers.kill(leader);
            }
            _ => self.network(fault, servers),
        }
    }

    fn processes(&mut self, fault: Fault, servers: &mut Servers) {
        match fault {
            Fault::KillLeader => {
                let leader = self.leader(servers);
                servers.kill(leader);
            }
            Fault::KillFollower => {
                let follower = self.follower(servers);
                servers.kill(follower);
            }
            Fault::KillMinority => {
                let sids = self.shuffled(servers);
                sids[..(sids.len() - 1) / 2].iter().for_each(|sid| servers.kill(*sid));
            }
            Fault::KillRecovering => {
                let victim = self.victim(servers);
                for _ in 0..3 {
                    servers.kill(victim);
                    servers.start(victim);
                    thread::sleep(self.time(1, 120));
                }
                servers.kill(victim);
            }
            Fault::StopLeader => {
                let leader = self.leader(servers);
                self.stop(leader, servers);
            }
            Fault::RollingRestart => {
                for sid in servers.sids() {
                    self.stop(sid, servers);
                    servers.start(sid);
                    within(STARTED_WITHIN, || !servers.mode(sid).is_empty());
                }
            }
            Fault::PauseLeader => {
                let leader = self.leader(servers);
                servers.pause(leader);
            }
            Fault::PauseFollower => {
                let follower = self.follower(servers);
                servers.pause(follower);
            }
            Fault::PauseAll => servers.sids().iter().for_each(|sid| servers.pause(*sid)),
            _ => servers.sids().iter().for_each(|sid| servers.kill(*sid)),
        }
    }

    fn stop(&self, sid: i64, servers: &mut Servers) {
        let status = servers.stop(sid);
        let is_well = status.is_none_or(|status| status.success());
        assert!(is_well || self.may_end.contains(&sid), "server {sid} stopped with {status:?}");
    }

    fn network(&mut self, fault: Fault, servers: &mut Servers) {
        let sids = self.shuffled(servers);
        let both = |a: i64, b: i64| [(a, b), (b, a)];
        let apart = |one: &[i64], other: &[i64]| -> Vec<(i64, i64)> {
            one.iter().flat_map(|a| other.iter().flat_map(move |b| both(*a, *b))).collect()
        };
        let others =
            |sid: i64| -> Vec<i64> { sids.iter().copied().filter(|s| *s != sid).collect() };
        match fault {
            Fault::LeaderAlone => {
                let leader = self.leader(servers);
                servers.net.cut_also(apart(&[leader], &others(leader)));
            }
            Fault::FollowerAlone => {
                let follower = self.follower(servers);
                servers.net.cut_also(apart(&[follower], &others(follower)));
            }
            Fault::Halves => {
                let (one, other) = sids.split_at((sids.len() - 1) / 2);
                servers.net.cut_also(apart(one, other));
            }
            Fault::OneWay => servers.net.cut_also([(sids[0], sids[1])]),
            Fault::DeafLeader => {
                let leader = self.leader(servers);
                servers.net.cut_also(others(leader).into_iter().map(|other| (other, leader)));
            }
            Fault::MuteLeader => {
                let leader = self.leader(servers);
                servers.net.cut_also(others(leader).into_iter().map(|other| (leader, other)));
            }
            Fault::Bridge => {
                let half = (sids.len() - 1) / 2;
                servers.net.cut_also(apart(&sids[..half], &sids[half + 1..]));
            }
            Fault::Ring => {
                for (at, one) in sids.iter().enumerate() {
                    let far = (2..sids.len() - 1).map(|step| sids[(at + step) % sids.len()]);
                    servers.net.cut_also(far.map(|other| (*one, other)));
                }
            }
            Fault::Pair => servers.net.cut_also(both(sids[0], sids[1])),
            Fault::Flapping => {
                let victim = self.victim(servers);
                for _ in 0..3 {
                    servers.net.cut_also(apart(&[victim], &others(victim)));
                    thread::sleep(self.time(100, 600));
                    servers.net.cut(BTreeSet::new());
                    thread::sleep(self.time(50, 400));
                }
            }
            Fault::Loss => {
                let percent = 5 + self.prng.below(25) as u32;
                servers.net.lose(percent);
            }
            Fault::SlowNet => {
                let victim = self.victim(servers);
                servers.net.slow(victim);
                self.slow.insert(victim);
            }
            Fault::Vanished => {
                let victim = self.victim(servers);
                servers.net.cut_also(apart(&[victim], &others(victim)));
                servers.kill(victim);
            }
            _ => sids.iter().for_each(|sid| servers.net.cut_also(apart(&[*sid], &others(*sid)))),
        }
    }

    fn disks(&mut self, fault: Fault, servers: &mut Servers) {
        let victims =
            if fault == Fault::Blackout { servers.sids() } else { vec![self.victim(servers)] };
        let usable: Vec<i64> =
            victims.into_iter().filter(|sid| !self.broken.contains(sid)).collect();
        self.may_end.extend(&usable);
        match fault {
            Fault::FullDisk => {
                for sid in usable {
                    if self.full.insert(sid) {
                        servers.disks[&sid].fill();
                    }
                }
            }
            Fault::PowerCut | Fault::Blackout => {
                // Nobody acts between the cut of its power and its end.
                usable.iter().for_each(|sid| servers.pause(*sid));
                for sid in &usable {
                    self.sectors_lost += servers.disks[sid].cut_power(&mut self.prng);
                    self.full.remove(sid);
                }
                usable.iter().for_each(|sid| servers.kill(*sid));
                self.broken.extend(usable);
            }
            other => {
                let mood = match other {
                    Fault::FailedWrites => Mood::FailsWrites,
                    Fault::FailedFlushes => Mood::FailsFlushes,
                    _ => Mood::Slow(self.time(5, 300)),
                };
                for sid in usable {
                    servers.disks[&sid].drive.set_mood(mood);
                    if !matches!(mood, Mood::Slow(_)) {
                        self.broken.insert(sid);
                    }
                }
            }
        }
    }

    fn strangers(&mut self, fault: Fault, sid: i64, port: u16) {
        let patience = Duration::from_millis(200);
        let connect = || TcpStream::connect_timeout(&at(sid, port), patience).ok();
        if fault == Fault::HalfOpen {
            // A frame of 44 bytes, a packet of the quorum's port, and the greeting of an election
            // begin with these; more never comes.
            let beginnings: [&[u8]; 4] =
                [b"", &[0, 0, 0], &[0, 0, 0, 44, 0, 0], &[0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0]];
            for count in 0..HALF_OPEN {
                let Some(mut stream) = connect() else { continue };
                let _sent = stream.write_all(beginnings[count % beginnings.len()]);
                self.half_open.push(stream);
            }
            return;
        }
        let mut noise = vec![0; 1 + self.prng.below(5_000) as usize];
        noise.fill_with(|| self.prng.next_u64() as u8);
        let mut announced = vec![0x7f, 0xff, 0xff, 0xff];
        announced.extend(&noise);
        // The greeting of an election from a server that there is, with an absurd address.
        let mut greeting = (-65_535_i64).to_be_bytes().to_vec();
        greeting.extend(sid.to_be_bytes());
        greeting.extend(64_i32.to_be_bytes());
        greeting.extend([0xff; 64]);
        let words: [&[u8]; 6] = [
            &noise,
            &announced,
            &greeting,
            b"GET / HTTP/1.1\r\nHost: a\r\n\r\n",
            b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03",
            &[0xff; 64],
        ];
        for word in words {
            if let Some(mut stream) = connect() {
                let _sent = stream.write_all(word);
            }
        }
    }

    /// Undoes all of it. Half-open connections stay until [`Nemesis::hang_up`].
    pub(crate) fn heal(&mut self, servers: &mut Servers) {
        servers.net.heal();
        for sid in std::mem::take(&mut self.slow) {
            servers.net.hasten(sid);
        }
        for sid in std::mem::take(&mut self.full).difference(&self.broken) {
            servers.disks[sid].free();
        }
        for sid in std::mem::take(&mut self.broken) {
            servers.kill(sid);
            let disk = servers.disks.get_mut(&sid).expect("every server has one");
            disk.remount();
        }
        for sid in servers.sids() {
            servers.resume(sid);
            servers.disks[&sid].drive.set_mood(Mood::Well);
            if !servers.runs(sid) {
                servers.start(sid);
            }
        }
    }

    pub(crate) fn hang_up(&mut self) {
        self.half_open.clear();
        self.may_end.clear();
    }
}
