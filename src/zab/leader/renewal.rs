//! The next epoch in place: where the zxids of an epoch run out, or a member has promised a later
//! epoch and follows nobody in this one, and every learner is a Ringkeeper, the leader is
//! established anew over the connections that it has, and nobody elects.
//!
//! A proposer of Paxos may take a higher ballot whenever it likes; an election only finds who does.
//! So this is discovery and synchronization once more, by the same [`Proposer`] and
//! [`Acceptor`](crate::zab::paxos::Acceptor)s: LEADERINFO, ACKEPOCH, DIFF, NEWLEADER, ACK,
//! UPTODATE. Why it is safe:
//!
//! 1. Whatever is said of an epoch is on disk before, by the same code as after an election.
//!    Another server that wants the same epoch, or a later one, is refused or wins by the same
//!    promises.
//! 2. It begins when everything proposed is committed and durable here. So no proposal is left
//!    between the epochs: all that the epoch before has brought about is history that a quorum
//!    has, and nothing of it can be committed, or lost, later.
//! 3. Until a quorum has accepted the next epoch nothing is proposed and nothing committed, and
//!    what a log was known to hold counts no more: ACKs of the epoch before are passed over.
//! 4. A learner that serves has applied a prefix of that history. It may be sent what it lacks at
//!    its end, but nothing may be cut off or replaced; one of which that is not known comes again.
//!
//! Learners serve their clients meanwhile; what those ask the leader waits. If the next epoch is
//! not established within the time after which a silent server is given up, the leader gives up,
//! and an election follows, as it does where Apache's servers are among the learners.

use super::Leader;
use super::link::{Awaited, LinkId, Stage};
use super::output::{CloseReason, Output};
use crate::base::Instant;
use crate::limits;
use crate::model::{ServerId, Zxid};
use crate::zab::paxos::{EPOCH_MAX, HistoryEnd, Proposer};
use crate::zab::synchronization::{SyncPlan, SyncWay};

/// How many zxids of an epoch a leader uses, by their counters.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct EpochZxids {
    /// From this one on the next epoch is due, where it can begin in place.
    pub renew_at: u32,
    /// With this one the leader gives up.
    pub last: u32,
}

impl Default for EpochZxids {
    fn default() -> Self {
        Self::renewed_at(limits::RENEW_AT)
    }
}

impl EpochZxids {
    /// The next epoch is due after so many txns, and the leader gives up after a 256th more.
    #[must_use]
    pub const fn renewed_at(renew_at: u32) -> Self {
        let last = renew_at.saturating_add(renew_at / 256 + 1);
        match last < limits::LAST_COUNTER {
            true => Self { renew_at, last },
            false => Self { renew_at, last: limits::LAST_COUNTER },
        }
    }
}

impl Leader {
    /// Whether the next epoch is due and can begin in place: nothing is to be proposed any more
    /// until [`Leader::renew`] has begun it.
    #[must_use]
    pub fn wants_renewal(&self) -> bool {
        let (proposed, epoch) = (self.broadcast.proposed(), self.epoch());
        let runs_out = Some(proposed.epoch()) == epoch && self.zxids.renew_at <= proposed.counter();
        let is_outbid = epoch.is_some_and(|epoch| epoch < self.outbid) && self.outbid < EPOCH_MAX;
        self.is_established()
            && (runs_out || is_outbid)
            && self.links.values().all(|link| !link.is_live() || link.is_ringkeeper)
    }

    /// Begins the next epoch, if everything proposed is durable here and committed, and this epoch
    /// is: others may have established it while it is still being written here. Whether it has:
    /// then [`Output::Established`] follows, or the end of this leader.
    pub fn renew(&mut self, now: Instant, out: &mut Vec<Output>) -> bool {
        let (epochs, committed) = (self.acceptor.stored(), self.broadcast.committed());
        let promised = epochs.accepted.max(self.outbid);
        let is_durable =
            self.has_accepted() && self.broadcast.durable_of(self.me) == Some(committed);
        let is_whole = committed == self.broadcast.proposed() && self.configs.pending().is_none();
        if !self.wants_renewal() || !is_durable || !is_whole {
            return false;
        }
        let others = self.links.iter().filter(|(_, link)| !link.is_serving());
        for id in others.map(|(id, _)| *id).collect::<Vec<LinkId>>() {
            self.drop_link(id, CloseReason::Renewal, out);
        }
        let own = HistoryEnd { current_epoch: epochs.current, last_zxid: committed };
        self.own_last = committed;
        self.proposer = Proposer::new(self.me, own, promised);
        self.established = false;
        self.renewing = true;
        self.started = now;
        self.broadcast.forget_all();
        for link in self.links.values_mut() {
            link.stage = Stage::Greeted;
            link.is_renewing = true;
            link.heard = now;
            link.awaited = Awaited::default();
        }
        // Who serves has accepted this epoch; one that has promised another since has left, and
        // does not hear the question.
        let sids: Vec<ServerId> = self.links.values().map(|link| link.sid).collect();
        for sid in sids.into_iter().chain([self.me]) {
            self.hello(sid, promised, out);
        }
        true
    }

    /// A learner that serves has promised the next epoch: its log must be the history with which
    /// that begins, and is only added to.
    pub(super) fn go_on_with(&mut self, id: LinkId, last: Zxid, out: &mut Vec<Output>) {
        match last == self.own_last {
            true => self.synchronize(id, SyncPlan { way: SyncWay::Diff, after: last }, out),
            false => self.drop_link(id, CloseReason::Renewal, out),
        }
    }
}
