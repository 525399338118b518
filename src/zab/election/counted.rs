//! Votes as they are counted, and when two of them are for the same.

use std::collections::BTreeMap;

use crate::model::{EnsembleConfigs, ServerId, ServerState, Vote};
use crate::wire::vote::Notification;

/// A vote with what decides whether another agrees with it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct CountedVote {
    pub(super) vote: Vote,
    pub(super) round: i64,
    pub(super) state: ServerState,
    pub(super) format_version: i32,
}

/// The last vote of each server.
#[derive(Clone, Debug, Default)]
pub(super) struct Votes(BTreeMap<ServerId, CountedVote>);

impl CountedVote {
    /// The vote of a server that is looking. Its format's version does not matter.
    pub(super) const fn looking(vote: Vote, round: i64) -> Self {
        Self { vote, round, state: ServerState::Looking, format_version: 0 }
    }

    /// What a server that has a leader says.
    pub(super) const fn settled(notification: &Notification) -> Self {
        let Notification { state, vote, round, format_version, .. } = *notification;
        Self { vote, round, state, format_version }
    }

    /// ZooKeeper: Vote.equals. Members of one ensemble tell different zxids and rounds of the same
    /// election (ZOOKEEPER-1805), and servers without a version another epoch (ZOOKEEPER-1732).
    fn agrees_with(&self, other: &Self) -> bool {
        if self.state == ServerState::Looking || other.state == ServerState::Looking {
            return self.vote == other.vote && self.round == other.round;
        }
        let same_leader = self.vote.leader == other.vote.leader;
        let comparable = (0 < self.format_version) == (0 < other.format_version);
        same_leader && (!comparable || self.vote.peer_epoch == other.vote.peer_epoch)
    }
}

impl Votes {
    /// Counts a vote; whether it is another than this server's last.
    pub(super) fn insert(&mut self, from: ServerId, vote: CountedVote) -> bool {
        self.0.insert(from, vote) != Some(vote)
    }

    pub(super) fn clear(&mut self) {
        self.0.clear();
    }

    pub(super) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    pub(super) fn contains(&self, sid: ServerId) -> bool {
        self.0.contains_key(&sid)
    }

    pub(super) fn state_of(&self, sid: ServerId) -> Option<ServerState> {
        self.0.get(&sid).map(|counted| counted.state)
    }

    /// Whether a quorum agrees with this vote.
    pub(super) fn is_quorum(&self, configs: &EnsembleConfigs, vote: &CountedVote) -> bool {
        configs.is_quorum(|sid| self.agrees(sid, vote))
    }

    /// Whether a quorum of one configuration does.
    pub(super) fn is_quorum_of_either(
        &self,
        configs: &EnsembleConfigs,
        vote: &CountedVote,
    ) -> bool {
        let configs = [&configs.committed, &configs.last_seen];
        configs.iter().any(|config| config.is_quorum(|sid| self.agrees(sid, vote)))
    }

    fn agrees(&self, sid: ServerId, vote: &CountedVote) -> bool {
        self.0.get(&sid).is_some_and(|counted| counted.agrees_with(vote))
    }
}
