//! The faults by name, and the deck that they are drawn from.

use ringkeeper::base::prng::Prng;

/// One fault. A victim is the leader half of the time, where the name does not say whom it meets.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Fault {
    /// SIGKILL, of the leader.
    KillLeader,
    /// Of a follower.
    KillFollower,
    /// Of as many as can be missed, at once.
    KillMinority,
    /// Of all at once.
    KillAll,
    /// One server is killed and started, and killed again while it recovers.
    KillRecovering,
    /// SIGTERM: the leader hands over.
    StopLeader,
    /// Each in turn is stopped and started.
    RollingRestart,
    /// SIGSTOP of the leader, and SIGCONT later.
    PauseLeader,
    PauseFollower,
    PauseAll,
    /// The leader sees nobody, and nobody the leader.
    LeaderAlone,
    FollowerAlone,
    /// A minority and a majority.
    Halves,
    /// One direction between two servers.
    OneWay,
    /// The leader hears nobody; all hear it.
    DeafLeader,
    /// Nobody hears the leader; it hears all.
    MuteLeader,
    /// Two groups, and one server that sees both.
    Bridge,
    /// Each sees its two neighbours.
    Ring,
    /// Two servers do not see each other.
    Pair,
    /// Nobody sees anybody.
    Shattered,
    /// A server is cut off and comes back, again and again.
    Flapping,
    /// Packets between servers are lost.
    Loss,
    /// What one server sends waits in a slow queue.
    SlowNet,
    /// A server is cut off, then killed: nobody's connection to it is closed.
    Vanished,
    /// No room on one server's disk.
    FullDisk,
    /// A disk whose writes fail.
    FailedWrites,
    /// A disk whose flushes fail.
    FailedFlushes,
    /// A disk whose writes and flushes take long.
    SlowDisk,
    /// One machine's power is cut: what its drive had not flushed is lost.
    PowerCut,
    /// The power of all machines is cut at once.
    Blackout,
    /// What is no protocol comes to every port of every server; then the leader is killed.
    Garbage,
    /// Connections to every port that say half a sentence stay open while the leader is killed.
    HalfOpen,
}

impl Fault {
    /// All of them.
    pub(crate) const ALL: [Self; 32] = [
        Self::KillLeader,
        Self::KillFollower,
        Self::KillMinority,
        Self::KillAll,
        Self::KillRecovering,
        Self::StopLeader,
        Self::RollingRestart,
        Self::PauseLeader,
        Self::PauseFollower,
        Self::PauseAll,
        Self::LeaderAlone,
        Self::FollowerAlone,
        Self::Halves,
        Self::OneWay,
        Self::DeafLeader,
        Self::MuteLeader,
        Self::Bridge,
        Self::Ring,
        Self::Pair,
        Self::Shattered,
        Self::Flapping,
        Self::Loss,
        Self::SlowNet,
        Self::Vanished,
        Self::FullDisk,
        Self::FailedWrites,
        Self::FailedFlushes,
        Self::SlowDisk,
        Self::PowerCut,
        Self::Blackout,
        Self::Garbage,
        Self::HalfOpen,
    ];

    /// Those that mean something else among three servers than another fault does.
    pub(crate) fn for_ensemble(count: i64) -> Vec<Self> {
        let needs_five = |fault: Self| [Self::KillMinority, Self::Ring].contains(&fault);
        Self::ALL.into_iter().filter(|fault| 3 < count || !needs_five(*fault)).collect()
    }
}

/// Every kind comes once before any comes again.
pub(crate) struct Deck {
    kinds: Vec<Fault>,
    left: Vec<Fault>,
}

impl Deck {
    pub(crate) fn new(kinds: Vec<Fault>) -> Self {
        Self { kinds, left: Vec::new() }
    }

    pub(crate) fn draw(&mut self, prng: &mut Prng) -> Fault {
        if self.left.is_empty() {
            self.left.clone_from(&self.kinds);
        }
        let at = prng.below(self.left.len() as u64) as usize;
        self.left.swap_remove(at)
    }
}
