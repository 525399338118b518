//! Quorums: which sets of voters may decide, for one configuration and while two are in force.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use super::{EnsembleConfig, ServerId};

/// When a set of voters is a quorum. Any two quorums of one rule share a voter.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum QuorumRule {
    /// More than half of the voters.
    #[default]
    Majority,
    /// `group.N` and `weight.N`: more than half of the groups that have weight, each with more than
    /// half of its weight.
    Hierarchical {
        /// The group of each server that is in one; every voter is.
        groups: BTreeMap<ServerId, i64>,
        /// The weight of each voter and of each other server that was given one.
        weights: BTreeMap<ServerId, u32>,
    },
}

/// The two configurations that every server holds. They differ while a reconfiguration is under
/// way; then elections, synchronization, commits and liveness need a quorum in both
/// (`quorum-and-disk.md` 6.3, ZOOKEEPER-1699).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EnsembleConfigs {
    /// The last one that took effect.
    pub committed: EnsembleConfig,
    /// The last one that was proposed; the committed one when nothing newer was.
    pub last_seen: EnsembleConfig,
}

impl EnsembleConfig {
    /// Whether the voters for which `has_acked` is true are a quorum. Observers and strangers are
    /// never asked for.
    #[must_use]
    pub fn is_quorum(&self, has_acked: impl Fn(ServerId) -> bool) -> bool {
        match &self.quorum {
            QuorumRule::Majority => {
                let acked = self.voters().filter(|sid| has_acked(*sid)).count();
                self.voters().count() / 2 < acked
            }
            QuorumRule::Hierarchical { .. } => {
                let groups = self.group_weights(has_acked);
                let counted = groups.values().filter(|group| group.total != 0).count();
                let won = groups.values().filter(|group| group.is_won()).count();
                counted / 2 < won
            }
        }
    }

    /// The weight of a server's vote; a server without weight never leads.
    #[must_use]
    pub fn weight(&self, sid: ServerId) -> u32 {
        match &self.quorum {
            QuorumRule::Majority => 1,
            QuorumRule::Hierarchical { weights, .. } => weights.get(&sid).copied().unwrap_or(0),
        }
    }

    /// One line that shows who has acked and what is missing, for logs and admin words:
    /// `majority 2/3: +1 +2 -3`, or `groups 1/3: g1 2/3 +1 +2 -3, g2 ...`.
    #[must_use]
    pub fn describe(&self, has_acked: impl Fn(ServerId) -> bool) -> String {
        let mark = |sid: ServerId| format!("{}{}", if has_acked(sid) { '+' } else { '-' }, sid.0);
        let marks = |sids: Vec<ServerId>| {
            sids.into_iter().fold(String::new(), |text, sid| format!("{text} {}", mark(sid)))
        };
        let QuorumRule::Hierarchical { groups, .. } = &self.quorum else {
            let acked = self.voters().filter(|sid| has_acked(*sid)).count();
            let all = marks(self.voters().collect());
            return format!("majority {acked}/{}:{all}", self.voters().count());
        };
        let weights = self.group_weights(&has_acked);
        let won = weights.values().filter(|group| group.is_won()).count();
        let counted = weights.values().filter(|group| group.total != 0).count();
        let mut text = format!("groups {won}/{counted}:");
        for (at, (gid, group)) in weights.iter().enumerate() {
            let comma = if at == 0 { "" } else { "," };
            let members = self.voters().filter(|sid| groups.get(sid) == Some(gid)).collect();
            let members = marks(members);
            let _ = write!(text, "{comma} g{gid} {}/{}{members}", group.acked, group.total);
        }
        text
    }

    /// Acked and whole weight of each group. A group's whole weight includes members that cannot
    /// vote, as Apache's QuorumHierarchical counts it.
    fn group_weights(&self, has_acked: impl Fn(ServerId) -> bool) -> BTreeMap<i64, GroupWeight> {
        let mut found: BTreeMap<i64, GroupWeight> = BTreeMap::new();
        let QuorumRule::Hierarchical { groups, .. } = &self.quorum else { return found };
        for (sid, gid) in groups {
            let group = found.entry(*gid).or_default();
            let weight = u64::from(self.weight(*sid));
            group.total += weight;
            if self.is_voter(*sid) && has_acked(*sid) {
                group.acked += weight;
            }
        }
        found
    }
}

#[derive(Clone, Copy, Debug, Default)]
struct GroupWeight {
    acked: u64,
    total: u64,
}

impl GroupWeight {
    const fn is_won(self) -> bool {
        self.total / 2 < self.acked
    }
}

impl EnsembleConfigs {
    /// Nothing is under way.
    #[must_use]
    pub fn settled(config: EnsembleConfig) -> Self {
        Self { committed: config.clone(), last_seen: config }
    }

    /// The configuration whose quorum is needed as well, if a newer one was proposed.
    #[must_use]
    pub fn pending(&self) -> Option<&EnsembleConfig> {
        (self.committed.version < self.last_seen.version).then_some(&self.last_seen)
    }

    /// A quorum in the committed configuration and, while one is pending, in that one, too.
    #[must_use]
    pub fn is_quorum(&self, has_acked: impl Fn(ServerId) -> bool) -> bool {
        self.committed.is_quorum(&has_acked)
            && self.pending().is_none_or(|pending| pending.is_quorum(&has_acked))
    }

    /// A voter of either configuration.
    #[must_use]
    pub fn is_voter(&self, sid: ServerId) -> bool {
        self.committed.is_voter(sid) || self.last_seen.is_voter(sid)
    }

    /// The voters of both configurations, ascending.
    #[must_use]
    pub fn voters(&self) -> Vec<ServerId> {
        let mut voters: Vec<_> = self.committed.voters().chain(self.last_seen.voters()).collect();
        voters.sort_unstable();
        voters.dedup();
        voters
    }

    /// [`EnsembleConfig::describe`] of both.
    #[must_use]
    pub fn describe(&self, has_acked: impl Fn(ServerId) -> bool) -> String {
        let committed = self.committed.describe(&has_acked);
        match self.pending() {
            Some(pending) => format!("{committed}; pending {}", pending.describe(&has_acked)),
            None => committed,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::{LearnerType, Member, ServerAddress};

    fn config(voters: i64, observers: i64) -> EnsembleConfig {
        let member = |learner_type| Member {
            addresses: vec![ServerAddress { host: "h".into(), quorum_port: 1, election_port: 2 }],
            learner_type,
            client: None,
            secure_client: None,
        };
        let kind = |n| if n < voters { LearnerType::Participant } else { LearnerType::Observer };
        let members = (0..voters + observers).map(|n| (ServerId(n), member(kind(n)))).collect();
        EnsembleConfig { members, ..Default::default() }
    }

    /// Three groups of three; the weights in the order of the servers.
    fn hierarchical(weights: [u32; 9]) -> EnsembleConfig {
        let mut config = config(9, 0);
        config.quorum = QuorumRule::Hierarchical {
            groups: (0..9).map(|n| (ServerId(n), n / 3)).collect(),
            weights: (0..9).map(ServerId).zip(weights).collect(),
        };
        config
    }

    /// All subsets of `count` servers as bit masks, and those that are quorums.
    fn quorums(config: &EnsembleConfig, count: u32) -> Vec<u32> {
        (0..1 << count).filter(|set| config.is_quorum(|sid| set >> sid.0 & 1 == 1)).collect()
    }

    #[test]
    fn a_majority_is_more_than_half_of_the_voters() {
        for voters in 1..8 {
            let found = quorums(&config(voters, 2), 9);
            let mask = (1u32 << voters) - 1;
            let expected = |set: &u32| voters as u32 / 2 < (set & mask).count_ones();
            assert_eq!(found, (0..1 << 9).filter(expected).collect::<Vec<u32>>());
        }
        assert!(!EnsembleConfig::default().is_quorum(|_| true));
    }

    #[test]
    fn any_two_quorums_of_one_rule_share_a_voter() {
        let all = [
            config(5, 1),
            hierarchical([1; 9]),
            hierarchical([1, 2, 3, 0, 0, 0, 5, 5, 1]),
            hierarchical([4, 0, 0, 1, 1, 1, 0, 0, 7]),
        ];
        for config in all {
            let found = quorums(&config, 9);
            assert!(!found.is_empty());
            for one in &found {
                assert!(found.iter().all(|other| one & other != 0), "{config:?}");
            }
        }
    }

    #[test]
    fn a_hierarchical_quorum_is_a_majority_of_weight_in_a_majority_of_groups() {
        let even = hierarchical([1; 9]);
        assert!(even.is_quorum(|sid| [0, 1, 3, 4].contains(&sid.0)));
        assert!(!even.is_quorum(|sid| [0, 1, 2, 3, 6].contains(&sid.0)));
        // The middle group has no weight: both others are needed.
        let two = hierarchical([1, 1, 1, 0, 0, 0, 1, 1, 1]);
        assert!(!two.is_quorum(|sid| sid.0 < 6));
        assert!(two.is_quorum(|sid| [0, 1, 7, 8].contains(&sid.0)));
        assert_eq!((two.weight(ServerId(3)), two.weight(ServerId(1))), (0, 1));
    }

    #[test]
    fn the_weight_of_members_that_do_not_vote_counts_against_their_group() {
        let mut config = hierarchical([1, 1, 5, 1, 1, 1, 1, 1, 1]);
        config.members.get_mut(&ServerId(2)).unwrap().learner_type = LearnerType::Observer;
        assert!(!config.is_quorum(|sid| sid.0 < 4));
        assert!(config.is_quorum(|sid| 3 <= sid.0));
    }

    #[test]
    fn while_a_reconfiguration_is_pending_both_quorums_are_needed() {
        let mut next = config(5, 0);
        next.version = 7;
        let mut both = EnsembleConfigs { committed: config(3, 0), last_seen: next };
        assert!(!both.is_quorum(|sid| [0, 1].contains(&sid.0)));
        assert!(!both.is_quorum(|sid| [0, 3, 4].contains(&sid.0)));
        assert!(both.is_quorum(|sid| [0, 1, 4].contains(&sid.0)));
        assert_eq!(both.voters(), (0..5).map(ServerId).collect::<Vec<_>>());
        assert!(both.is_voter(ServerId(4)));
        both.last_seen.version = 0;
        assert!(both.is_quorum(|sid| [0, 1].contains(&sid.0)));
    }

    #[test]
    fn descriptions_show_who_is_missing() {
        let acked = |sid: ServerId| sid.0 != 1;
        assert_eq!(config(3, 1).describe(acked), "majority 2/3: +0 -1 +2");
        assert_eq!(
            hierarchical([1, 1, 1, 0, 0, 0, 2, 2, 2]).describe(acked),
            "groups 2/2: g0 2/3 +0 -1 +2, g1 0/0 +3 +4 +5, g2 6/6 +6 +7 +8"
        );
        let next = EnsembleConfig { version: 1, ..config(1, 0) };
        let both = EnsembleConfigs { committed: config(2, 0), last_seen: next };
        assert_eq!(both.describe(acked), "majority 1/2: +0 -1; pending majority 1/1: +0");
    }
}
