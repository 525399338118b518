//! The world that the search walks through: three servers, their disks, and the network.

use std::collections::BTreeSet;
use std::hash::{DefaultHasher, Hash, Hasher};

use super::tests::sid;
use super::*;

pub(super) const SERVERS: usize = 3;

/// A history: bit `e` is the one txn of epoch `e`.
pub(super) type Log = u8;

/// The txn of epoch 1, which proposes the other configuration where there is one.
pub(super) const CHANGE: Log = 1 << 1;

/// All ways to number the servers.
pub(super) const ORDERS: [[usize; SERVERS]; 6] =
    [[0, 1, 2], [0, 2, 1], [1, 0, 2], [1, 2, 0], [2, 0, 1], [2, 1, 0]];

#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub(super) enum Message {
    LeaderInfo {
        leader: usize,
        epoch: u32,
    },
    AckEpoch {
        from: usize,
        leader: usize,
        epoch: u32,
        history: Option<HistoryEnd>,
    },
    /// The whole history, then NEWLEADER.
    History {
        leader: usize,
        epoch: u32,
        log: Log,
    },
    /// The txn of the epoch, behind this history.
    Proposal {
        leader: usize,
        epoch: u32,
        log: Log,
    },
    /// The ACK of NEWLEADER or, with the epoch's own txn in the log, of the proposal.
    Ack {
        from: usize,
        leader: usize,
        epoch: u32,
        log: Log,
    },
}

#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub(super) struct Server {
    pub(super) acceptor: Acceptor,
    /// On disk.
    pub(super) log: Log,
    /// Being written, for the leader to whom it will be acknowledged.
    pub(super) writing: Option<(Log, u32, usize)>,
    /// To whom what is being stored will be said.
    pub(super) storing_for: usize,
    pub(super) leading: Option<Leading>,
    /// It has heard that the proposed configuration is in force.
    pub(super) is_changed: bool,
}

/// Of which configurations a quorum is needed.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub(super) enum Asked {
    InForce,
    Both,
    Proposed,
}

#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub(super) struct Leading {
    pub(super) asked: Asked,
    pub(super) proposer: Proposer,
    /// The history with which it was elected, and the epoch's txn once it is proposed.
    pub(super) log: Log,
    pub(super) proposed: bool,
    pub(super) acks: BTreeSet<usize>,
}

#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub(super) struct World {
    pub(super) servers: [Server; SERVERS],
    pub(super) sent: BTreeSet<Message>,
    pub(super) crashes: u8,
    /// By epoch: who was established, with what, and what was committed.
    pub(super) established: Vec<Option<(usize, Log, Log)>>,
}

pub(super) fn end(acceptor: &Acceptor, log: Log) -> HistoryEnd {
    let last_epoch = log.checked_ilog2().unwrap_or_default();
    let last_zxid = Zxid::new(last_epoch, u32::from(log != 0));
    HistoryEnd { current_epoch: acceptor.stored.current, last_zxid }
}

pub(super) const fn is_prefix(short: Log, long: Log) -> bool {
    let up_to_its_end = if short == 0 { 0 } else { Log::MAX >> short.leading_zeros() };
    long & up_to_its_end == short
}

/// What a crash may leave of a log that was being replaced: what it was, or the part that both have
/// and some of what follows.
pub(super) fn after_crash(old: Log, new: Log) -> Vec<Log> {
    let prefixes = (0..=Log::BITS).map(|bits| new & ((1u16 << bits) - 1) as Log);
    let shared = prefixes.clone().filter(|log| is_prefix(*log, old)).max().unwrap_or_default();
    let mut found: Vec<Log> = prefixes.filter(|log| shared <= *log).chain([old]).collect();
    found.sort_unstable();
    found.dedup();
    found
}

impl Server {
    pub(super) const fn is_idle(&self) -> bool {
        self.writing.is_none() && !self.acceptor.is_storing()
    }
}

impl World {
    /// Leaves out messages that can change nothing any more: what is meant for a leader of an epoch
    /// that it does not lead (and never will again), what it has counted, what all are past.
    pub(super) fn forget_what_is_over(&mut self, repeated_promises_count: bool) {
        let Self { servers, sent, established, .. } = self;
        let lowest = servers.iter().map(|server| server.acceptor.stored.accepted).min();
        let lowest = lowest.unwrap_or_default();
        sent.retain(|message| match *message {
            Message::LeaderInfo { epoch, .. } => {
                lowest < epoch || (repeated_promises_count && lowest == epoch)
            }
            Message::History { epoch, .. } | Message::Proposal { epoch, .. } => lowest <= epoch,
            Message::AckEpoch { from, leader, epoch, .. } => {
                servers[leader].leading.as_ref().is_some_and(|leading| {
                    leading.proposer.phase == Phase::Discovering { epoch }
                        && !leading.proposer.promised.contains(&sid(from))
                })
            }
            Message::Ack { from, leader, epoch, log } => {
                let committed = established[epoch as usize].map(|epoch| epoch.2);
                servers[leader].leading.as_ref().is_some_and(|leading| {
                    let has_txn = log & (1 << epoch) != 0;
                    match leading.proposer.phase {
                        Phase::Synchronizing { epoch: own } => {
                            own == epoch && !leading.proposer.accepted.contains(&sid(from))
                        }
                        Phase::Established { epoch: own } => {
                            let is_new = !leading.acks.contains(&from);
                            own == epoch && has_txn && is_new && committed != Some(log)
                        }
                        _ => false,
                    }
                })
            }
        });
    }

    /// A hash that is the same however the servers are numbered in one of these ways.
    pub(super) fn canonical(&self, orders: &[[usize; SERVERS]]) -> u128 {
        orders.iter().map(|places| self.hash_as(places)).min().unwrap_or_default()
    }

    /// Whether the configuration that epoch 1 proposes is committed.
    pub(super) fn is_changed(&self) -> bool {
        self.established.iter().flatten().any(|(.., committed)| committed & CHANGE != 0)
    }

    /// The hash of the world in which server `at` is called `places[at]`.
    fn hash_as(&self, places: &[usize; SERVERS]) -> u128 {
        let mut first = DefaultHasher::new();
        for place in 0..SERVERS {
            let at = places.iter().position(|p| *p == place).unwrap_or_default();
            let server = &self.servers[at];
            (server.acceptor.stored, server.acceptor.storing, server.log).hash(&mut first);
            server.is_changed.hash(&mut first);
            server.writing.map(|(log, epoch, to)| (log, epoch, places[to])).hash(&mut first);
            server.acceptor.storing.map(|_| places[server.storing_for]).hash(&mut first);
            let Some(leading) = &server.leading else { continue };
            (leading.proposer.own, leading.proposer.phase, leading.log).hash(&mut first);
            leading.asked.hash(&mut first);
            let sets = [&leading.proposer.promised, &leading.proposer.accepted];
            for set in sets {
                let renamed = set.iter().map(|sid| 1u8 << places[sid.0 as usize]);
                renamed.sum::<u8>().hash(&mut first);
            }
            let acks = leading.acks.iter().map(|at| 1u8 << places[*at]);
            (leading.proposed, acks.sum::<u8>()).hash(&mut first);
        }
        let mut sent: Vec<Message> = self.sent.iter().map(|m| m.renamed(places)).collect();
        sent.sort_unstable();
        (sent, self.crashes).hash(&mut first);
        for epoch in &self.established {
            epoch.map(|(leader, log, committed)| (places[leader], log, committed)).hash(&mut first);
        }
        let mut second = first.clone();
        0x5bu8.hash(&mut second);
        u128::from(first.finish()) << 64 | u128::from(second.finish())
    }
}

impl Message {
    fn renamed(self, places: &[usize; SERVERS]) -> Self {
        match self {
            Self::LeaderInfo { leader, epoch } => {
                Self::LeaderInfo { leader: places[leader], epoch }
            }
            Self::AckEpoch { from, leader, epoch, history } => {
                Self::AckEpoch { from: places[from], leader: places[leader], epoch, history }
            }
            Self::History { leader, epoch, log } => {
                Self::History { leader: places[leader], epoch, log }
            }
            Self::Proposal { leader, epoch, log } => {
                Self::Proposal { leader: places[leader], epoch, log }
            }
            Self::Ack { from, leader, epoch, log } => {
                Self::Ack { from: places[from], leader: places[leader], epoch, log }
            }
        }
    }
}
