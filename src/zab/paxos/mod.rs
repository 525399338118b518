//! Establishing a leader: Paxos over epochs.
//!
//! | Paxos | here |
//! |---|---|
//! | ballot | epoch; a new leader takes one that no quorum has heard of |
//! | prepare, promise (phase 1) | discovery: LEADERINFO, ACKEPOCH |
//! | highest ballot promised | `acceptedEpoch` |
//! | accept, accepted (phase 2) | synchronization: history and NEWLEADER, its ACK |
//! | ballot and value accepted | `currentEpoch` and the log under it |
//! | value | the leader's whole history; the broadcast of its epoch only appends to it |
//!
//! Where Paxos lets a proposer take over the value of the highest ballot among its promises, here
//! the election has found a server that has it, and promises of servers that are ahead of the
//! leader do not count.
//!
//! 1. A promise leaves an acceptor when it is on disk, and keeps it from accepting anything of an
//!    earlier epoch.
//! 2. An acceptor promises an epoch once: who hears of the promise again must not count it, since
//!    another server may have chosen the same epoch.
//! 3. `currentEpoch` follows the history onto the disk, never the other way round (ZOOKEEPER-4643),
//!    and what says "accepted" leaves when both are there (ZOOKEEPER-3911).
//! 4. A leader is established, and its history committed, once a quorum has accepted both.
//! 5. While a configuration is proposed, whoever has its txn in its history needs a quorum of both;
//!    [who lacks it](HistoryEnd::lacks), of the one in force.
//!
//! From 1 and 2: of each epoch there is at most one established leader. From 1 and 3: its history
//! contains everything that was committed before. `tests.rs` tries this on every interleaving of
//! three servers within small bounds, also while their configuration changes, and that it breaks
//! when one of the rules is left out.
//!
//! Knows nothing of connections, logs and disks. What is to be written is handed out; that it has
//! been written is an input. A leader is an acceptor like any other, its own included.

#[cfg(test)]
mod tests;
#[cfg(test)]
mod world_tests;

use std::collections::{BTreeMap, BTreeSet};

use crate::model::{EnsembleConfig, EnsembleConfigs, ServerId, Zxid};

/// What a server has on disk about epochs.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Epochs {
    /// The highest epoch promised.
    pub accepted: u32,
    /// The epoch of its history. Never above `accepted`.
    pub current: u32,
}

/// Where a history ends. Of two histories the greater contains everything that was committed and
/// that the other contains.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct HistoryEnd {
    /// The epoch in which it was accepted.
    pub current_epoch: u32,
    /// Its last zxid that is on disk.
    pub last_zxid: Zxid,
}

/// The part of a server that promises and accepts. It does one thing at a time: while it
/// [is storing](Acceptor::is_storing), it is asked for nothing.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Acceptor {
    /// What is on disk.
    stored: Epochs,
    /// What is being written, and what may be said afterwards.
    storing: Option<(Epochs, Said)>,
}

/// What an acceptor does about an epoch.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Answer {
    /// Write this; what may be said comes from [`Acceptor::on_stored`].
    Store(Epochs),
    /// It is on disk already.
    Say(Said),
    /// A higher epoch was promised: the connection is of no use.
    Refused {
        /// That epoch.
        accepted: u32,
    },
}

/// What is true on disk, and may therefore be said. Only acceptors make such values.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Said {
    /// ACKEPOCH.
    Promised(Promise),
    /// ACK of NEWLEADER.
    Accepted(Accept),
}

/// A promise that is on disk.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Promise {
    epoch: u32,
    current_epoch: Option<u32>,
}

/// A history that is on disk with its epoch.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Accept {
    epoch: u32,
}

/// Proof that the whole history of an epoch's leader is on disk. Made where the completion of a
/// flush is handled, nowhere else.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct DurableHistory {
    /// Whose history.
    pub epoch: u32,
}

impl Acceptor {
    /// An acceptor with what its disk holds.
    #[must_use]
    pub fn new(stored: Epochs) -> Self {
        assert!(stored.current <= stored.accepted, "recovery has put the epochs in order");
        Self { stored, storing: None }
    }

    /// What is on disk.
    #[must_use]
    pub const fn stored(&self) -> Epochs {
        self.stored
    }

    /// A write is under way.
    #[must_use]
    pub const fn is_storing(&self) -> bool {
        self.storing.is_some()
    }

    /// A leader asks for the promise of an epoch.
    pub fn on_leader_info(&mut self, epoch: u32) -> Answer {
        let Epochs { accepted, current } = self.stored;
        if epoch < accepted {
            return Answer::Refused { accepted };
        }
        if epoch == accepted {
            return Answer::Say(Said::Promised(Promise { epoch, current_epoch: None }));
        }
        let promise = Promise { epoch, current_epoch: Some(current) };
        self.store(Epochs { accepted: epoch, current }, Said::Promised(promise))
    }

    /// The history of an epoch's leader is complete and on disk.
    pub fn on_history(&mut self, history: DurableHistory) -> Answer {
        let DurableHistory { epoch } = history;
        let Epochs { accepted, current } = self.stored;
        if epoch != accepted {
            return Answer::Refused { accepted };
        }
        let said = Said::Accepted(Accept { epoch });
        if epoch == current {
            return Answer::Say(said);
        }
        self.store(Epochs { accepted, current: epoch }, said)
    }

    /// The write has completed.
    pub fn on_stored(&mut self) -> Said {
        let (stored, said) = self.storing.take().expect("a completion belongs to a write");
        self.stored = stored;
        said
    }

    fn store(&mut self, epochs: Epochs, said: Said) -> Answer {
        assert!(self.storing.is_none(), "an acceptor does one thing at a time");
        self.storing = Some((epochs, said));
        Answer::Store(epochs)
    }
}

impl Promise {
    /// The epoch promised.
    #[must_use]
    pub const fn epoch(self) -> u32 {
        self.epoch
    }

    /// The epoch of the history when the promise was first given; `None` (-1 on the wire) if it is
    /// repeated, and must not be counted.
    #[must_use]
    pub const fn current_epoch(self) -> Option<u32> {
        self.current_epoch
    }
}

impl Accept {
    /// The epoch accepted.
    #[must_use]
    pub const fn epoch(self) -> u32 {
        self.epoch
    }
}

impl HistoryEnd {
    /// What an ACKEPOCH says of its sender's history; `None` if it must not be counted: the promise
    /// is a repeated one, or the database was lost and the server does not know what it knew.
    #[must_use]
    pub fn of_ack_epoch(last_zxid: Zxid, current_epoch: i32) -> Option<Self> {
        let current_epoch = u32::try_from(current_epoch).ok()?;
        (0 <= last_zxid.0).then_some(Self { current_epoch, last_zxid })
    }

    /// Whether the txn of a proposed configuration is not in this history, so that it does not
    /// count here: this server has not acknowledged it. If it was committed all the same, a quorum
    /// of the configuration in force has it, and is ahead of this history.
    ///
    /// One of an earlier epoch than the history's counts: it came with the NEWLEADER of that epoch,
    /// from a leader of Apache's perhaps without its txn. One that begins an epoch has no txn.
    #[must_use]
    pub fn lacks(self, next: &EnsembleConfig) -> bool {
        let zxid = Zxid(next.version);
        zxid.counter() != 0 && self.current_epoch <= zxid.epoch() && self.last_zxid < zxid
    }
}

/// The part of a server that has won an election and wants to be established. Its own acceptor
/// answers it like the others'.
///
/// The driver calls `on_hello` until an epoch is chosen, has that promised by its own acceptor and
/// sends LEADERINFO; then `on_promise` until a quorum has promised, has its own history accepted
/// and sends history and NEWLEADER; then `on_accepted` until it is established.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Proposer {
    own: HistoryEnd,
    phase: Phase,
    /// The accepted epochs that were heard of; empty once the epoch is chosen.
    hellos: BTreeMap<ServerId, u32>,
    /// Whose promises of the epoch count; empty once they are a quorum.
    promised: BTreeSet<ServerId>,
    /// Who has accepted the epoch.
    accepted: BTreeSet<ServerId>,
}

/// How far a proposer has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Phase {
    /// It waits for a quorum of accepted epochs.
    Choosing,
    /// It waits for a quorum of promises.
    Discovering {
        /// The new epoch.
        epoch: u32,
    },
    /// It waits until a quorum has its history.
    Synchronizing {
        /// The new epoch.
        epoch: u32,
    },
    /// It leads.
    Established {
        /// Its epoch.
        epoch: u32,
    },
}

/// What became of an answer to LEADERINFO.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// The sender can be synchronized once the phase is past discovery.
    Welcome,
    /// The sender's history is ahead: its connection is dropped.
    Ahead,
}

/// No epoch is left: the high half of a zxid is used up.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("no epoch is left after {0}")]
pub struct EpochsExhausted(pub u32);

impl Proposer {
    /// The proposer of server `me` with its history and the epoch that its own acceptor promised.
    #[must_use]
    pub fn new(me: ServerId, own: HistoryEnd, accepted_epoch: u32) -> Self {
        Self {
            own,
            phase: Phase::Choosing,
            hellos: BTreeMap::from([(me, accepted_epoch)]),
            promised: BTreeSet::new(),
            accepted: BTreeSet::new(),
        }
    }

    /// How far it has come.
    #[must_use]
    pub const fn phase(&self) -> Phase {
        self.phase
    }

    /// A server tells the last epoch that it promised. Once a quorum has, the epoch is chosen.
    pub fn on_hello(
        &mut self,
        configs: &EnsembleConfigs,
        from: ServerId,
        accepted_epoch: u32,
    ) -> Result<(), EpochsExhausted> {
        if self.phase != Phase::Choosing {
            return Ok(());
        }
        self.hellos.insert(from, accepted_epoch);
        if configs.is_quorum(|sid| self.hellos.contains_key(&sid)) {
            let highest = self.hellos.values().copied().max().unwrap_or_default();
            if EPOCH_MAX <= highest {
                return Err(EpochsExhausted(highest));
            }
            self.hellos.clear();
            self.phase = Phase::Discovering { epoch: highest + 1 };
        }
        Ok(())
    }

    /// A server has promised our epoch. `history` is [`HistoryEnd::of_ack_epoch`].
    pub fn on_promise(
        &mut self,
        configs: &EnsembleConfigs,
        from: ServerId,
        history: Option<HistoryEnd>,
    ) -> Verdict {
        let Some(history) = history else { return Verdict::Welcome };
        if self.own < history {
            return Verdict::Ahead;
        }
        if let Phase::Discovering { epoch } = self.phase {
            self.promised.insert(from);
            if configs.is_quorum(|sid| self.promised.contains(&sid)) {
                self.promised.clear();
                self.phase = Phase::Synchronizing { epoch };
            }
        }
        Verdict::Welcome
    }

    /// A server has our history and epoch on disk. An ACK that says another epoch is ignored
    /// (ZOOKEEPER-4685).
    pub fn on_accepted(&mut self, configs: &EnsembleConfigs, from: ServerId, said_epoch: u32) {
        match self.phase {
            Phase::Synchronizing { epoch } if epoch == said_epoch => {
                self.accepted.insert(from);
                if configs.is_quorum(|sid| self.accepted.contains(&sid)) {
                    self.phase = Phase::Established { epoch };
                }
            }
            Phase::Choosing
            | Phase::Discovering { .. }
            | Phase::Synchronizing { .. }
            | Phase::Established { .. } => {}
        }
    }

    /// Who is missing, for logs and admin words.
    #[must_use]
    pub fn describe(&self, configs: &EnsembleConfigs) -> String {
        match self.phase {
            Phase::Choosing => configs.describe(|sid| self.hellos.contains_key(&sid)),
            Phase::Discovering { .. } => configs.describe(|sid| self.promised.contains(&sid)),
            Phase::Synchronizing { .. } | Phase::Established { .. } => {
                configs.describe(|sid| self.accepted.contains(&sid))
            }
        }
    }
}

/// Apache's epochs are signed.
pub(super) const EPOCH_MAX: u32 = i32::MAX as u32;
