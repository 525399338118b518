//! Planted bugs of ensembles in what a start finds in a server's files, and in where a log is cut.

use super::super::plant::Plant;
use super::World;
use super::membership::{at_of, line};
use crate::config::Ensemble;
use crate::model::{EnsembleConfig, LearnerType, QuorumRule, ServerId, Zxid};

impl World {
    /// What the planted bug makes of the members that a start finds.
    pub(super) fn misread(&self, told: &mut Ensemble) {
        let me = told.me;
        let configs = &mut told.configs;
        if self.plant == Plant::ProposedTakenForCommitted {
            configs.committed = configs.last_seen.clone();
        }
        for config in [&mut configs.committed, &mut configs.last_seen] {
            match self.plant {
                Plant::RemovedStillVotes if config.version != 0 => {
                    for sid in self.membership.first.members.keys() {
                        let line = || line(at_of(*sid), LearnerType::Participant, 0);
                        config.members.entry(*sid).or_insert_with(line);
                    }
                }
                Plant::MinorityIsQuorum => {
                    config.members.retain(|sid, _| (sid.0 + me.0) % 2 == 0);
                }
                Plant::WeightsIgnored if me.0 % 2 == 0 => config.quorum = QuorumRule::Majority,
                Plant::ObserversCounted if me.0 % 2 == 0 || !config.is_voter(me) => {
                    all_vote(config);
                }
                _ => {}
            }
        }
    }

    /// Where a log is cut, by a leader's word or by the planted bug.
    pub(super) fn cut_where_told(&mut self, at: usize, keep_until: Option<Zxid>) -> Option<Zxid> {
        let plant = self.plant;
        let log = &self.member(at).log;
        let before = |zxid: Zxid| log.range(..zxid).next_back().copied();
        match (plant, keep_until) {
            (Plant::CutIgnored, _) => None,
            (Plant::CutTooFar, Some(zxid)) => before(zxid).or(keep_until),
            _ => keep_until,
        }
    }

    /// The last txn but one of a server's log, if a start is to lose the last one.
    pub(super) fn end_forgotten(&mut self, at: usize) -> Option<Zxid> {
        let log = &self.member(at).log;
        let last_but_one = log.iter().nth_back(1).copied();
        last_but_one.filter(|_| self.plant == Plant::LastTxnForgotten)
    }
}

fn all_vote(config: &mut EnsembleConfig) {
    for member in config.members.values_mut() {
        member.learner_type = LearnerType::Participant;
    }
    if let QuorumRule::Hierarchical { groups, weights } = &mut config.quorum {
        let missing = |sid: &ServerId| !groups.contains_key(sid);
        for sid in config.members.keys().copied().filter(missing).collect::<Vec<_>>() {
            groups.insert(sid, 1);
            weights.insert(sid, 1);
        }
    }
}
