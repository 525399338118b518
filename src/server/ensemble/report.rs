//! What the four-letter words tell of a member's part in its ensemble.

use super::{Ensemble, Role};
use crate::base::Instant;
use crate::model::ServerId;
use crate::server::stats::ProposalSizes;
use crate::zab::leader::LearnerKind;

/// A member that serves clients.
#[derive(Debug)]
pub(crate) struct EnsembleReport {
    /// What `mntr` calls the state of the peer.
    pub(crate) peer_state: &'static str,
    /// Voters of the configuration.
    pub(crate) quorum_size: usize,
    /// When its role began.
    pub(crate) since: Instant,
    /// Whom an observer follows.
    pub(crate) observer_master: Option<ServerId>,
    /// What only a leader knows.
    pub(crate) leader: Option<LeaderReport>,
}

/// A leader and its learners.
#[derive(Debug)]
pub(crate) struct LeaderReport {
    /// Connected, however far they are.
    pub(crate) learners: usize,
    /// Followers that serve clients.
    pub(crate) followers: usize,
    /// Those of them that have no vote.
    pub(crate) followers_without_vote: usize,
    /// Observers that serve clients.
    pub(crate) observers: usize,
    /// Syncs that are not confirmed.
    pub(crate) pending_syncs: usize,
    /// Txns that each follower is not known to have on disk.
    pub(crate) lags: Vec<(ServerId, u64)>,
    /// Sizes of what it has proposed.
    pub(crate) sizes: ProposalSizes,
}

impl Ensemble {
    /// `None` while there is no quorum.
    pub(crate) fn report(&self) -> Option<EnsembleReport> {
        let mut report = EnsembleReport {
            peer_state: match self.mode()? {
                "read-only" => return None,
                "leader" => "leading - broadcast",
                "observer" => "observing - broadcast",
                _ => "following - broadcast",
            },
            quorum_size: self.configs.committed.voters().count(),
            since: self.serving_since,
            observer_master: None,
            leader: None,
        };
        match &self.role {
            Role::Leading(leading) => {
                let leader = &leading.leader;
                let has_vote = |sid: ServerId| self.configs.committed.is_voter(sid);
                let of = |kind: LearnerKind| {
                    leader.serving().filter(move |(_, is)| *is == kind).map(|(sid, _)| sid)
                };
                report.leader = Some(LeaderReport {
                    learners: leader.learner_count(),
                    followers: of(LearnerKind::Follower).count(),
                    followers_without_vote: of(LearnerKind::Follower)
                        .filter(|sid| !has_vote(*sid))
                        .count(),
                    observers: of(LearnerKind::Observer).count(),
                    pending_syncs: leader.pending_sync_count(),
                    lags: leader.lags().collect(),
                    sizes: leading.sizes,
                });
            }
            Role::Learning(learning) if self.is_observer() => {
                report.observer_master = Some(learning.leader);
            }
            Role::Learning(_) | Role::Settling | Role::Looking => {}
        }
        Some(report)
    }

    /// Counts proposals from the beginning again.
    pub(crate) fn reset_stats(&mut self) {
        if let Role::Leading(leading) = &mut self.role {
            leading.sizes = ProposalSizes::default();
        }
    }
}
