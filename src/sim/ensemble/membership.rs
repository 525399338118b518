//! Who the members of a simulated ensemble are: the list in their configuration files, with or
//! without groups and weights.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use super::super::world::Failure;
use super::World;
use crate::base::Prng;
use crate::config;
use crate::config::Ensemble;
use crate::model::{
    ClientAddress, EnsembleConfig, LearnerType, Member as ConfigMember, QuorumRule, ServerAddress,
    ServerId,
};

/// The ports of every member.
pub(super) const QUORUM_PORT: u16 = 1;
pub(super) const ELECTION_PORT: u16 = 2;

/// The sid of a member.
pub(super) fn sid_of(at: usize) -> ServerId {
    ServerId(i64::try_from(at + 1).unwrap_or_default())
}

/// A server's line.
fn line(at: usize, learner_type: LearnerType) -> ConfigMember {
    let address = ServerAddress {
        host: format!("s{at}"),
        quorum_port: QUORUM_PORT,
        election_port: ELECTION_PORT,
    };
    let client = ClientAddress { host: "0.0.0.0".to_owned(), port: 2181 };
    ConfigMember {
        addresses: vec![address],
        learner_type,
        client: Some(client),
        secure_client: None,
    }
}

/// The list that all start with.
pub(super) fn first(voters: usize, observers: usize, quorum: QuorumRule) -> EnsembleConfig {
    let members = (0..voters + observers).map(|at| {
        let learner_type = match at < voters {
            true => LearnerType::Participant,
            false => LearnerType::Observer,
        };
        (sid_of(at), line(at, learner_type))
    });
    EnsembleConfig { members: members.collect(), quorum, ..EnsembleConfig::default() }
}

/// Up to three groups of voters, and weights up to three.
pub(super) fn groups(prng: &mut Prng, voters: usize) -> QuorumRule {
    let count = 1 + prng.below(3);
    let (mut groups, mut weights) = (BTreeMap::new(), BTreeMap::new());
    for at in 0..voters {
        groups.insert(sid_of(at), i64::try_from(at as u64 % count).unwrap_or_default());
        weights.insert(sid_of(at), u32::try_from(1 + prng.below(3)).unwrap_or_default());
    }
    QuorumRule::Hierarchical { groups, weights }
}

/// `zoo.cfg` with this list.
pub(super) fn zoo_cfg(config: &EnsembleConfig) -> String {
    let mut text = "dataDir=/d\ntickTime=500\ninitLimit=4\nsyncLimit=2\ncnxTimeout=1000\n\
                    standaloneEnabled=false\n"
        .to_owned();
    for line in config::ensemble::text(config).lines() {
        if !line.starts_with("version=") {
            let _ = writeln!(text, "{line}");
        }
    }
    text
}

impl World {
    /// What a server's files tell it.
    pub(super) fn told_by_files(&mut self, at: usize) -> Result<Ensemble, Failure> {
        let config = self.member(at).disk.config.parse().map_err(Failure::because)?;
        config.ensemble.ok_or_else(|| Failure::new(format!("{at} is alone")))
    }
}
