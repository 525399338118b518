//! Configurations at the leader: proposed as a txn, in force with its commit, and who leads then.

use bytes::Bytes;

use super::Leader;
use super::broadcast::Proposal;
use super::link::{LearnerKind, Link, LinkId, News, Stage};
use super::output::{CloseReason, Output};
use crate::base::Instant;
use crate::model::{EnsembleConfig, EnsembleConfigs, ServerId, Zxid};

impl Leader {
    /// Whether this server follows and has the whole history.
    #[must_use]
    pub fn has_synced(&self, sid: ServerId) -> bool {
        sid != self.me && self.hears(sid)
    }

    /// As [`Leader::propose`], for the txn of a configuration: from here on a quorum of it is
    /// needed, too. Only when the one before is in force.
    ///
    /// # Panics
    /// If another one is pending, or the version is not the zxid.
    pub fn propose_config(
        &mut self,
        now: Instant,
        zxid: Zxid,
        txn: &Bytes,
        config: EnsembleConfig,
        out: &mut Vec<Output>,
    ) {
        assert!(self.configs.pending().is_none(), "one reconfiguration at a time");
        assert!(config.version == zxid.0, "the version of a configuration is its txn's zxid");
        self.configs.last_seen = config;
        self.propose(now, zxid, txn, out);
    }

    /// A configuration is committed: it takes effect at once, here and where the commit is heard.
    ///
    /// Before UPTODATE an Apache follower passes over the commit of a configuration that is not the
    /// first proposal behind NEWLEADER (3.9's `Learner.syncWithLeader`): it is to come again, and
    /// gets it with NEWLEADER.
    pub(super) fn activate(&mut self, proposal: Proposal, out: &mut Vec<Output>) {
        let is_deaf = |link: &Link| {
            matches!(link.stage, Stage::Told)
                && !link.is_ringkeeper
                && link.kind == LearnerKind::Follower
        };
        let deaf = self.links.iter().filter(|(_, link)| is_deaf(link));
        for id in deaf.map(|(id, _)| *id).collect::<Vec<LinkId>>() {
            self.drop_link(id, CloseReason::Activation, out);
        }
        let zxid = proposal.zxid;
        let designated = self.designated_leader(zxid);
        self.configs = EnsembleConfigs::settled(self.configs.last_seen.clone());
        out.push(Output::Activated { zxid, designated });
        self.spread(&News::Activate(proposal, designated), out);
        self.over = designated != self.me;
    }

    /// Who leads in the configuration that was last seen: this server, if it is a voter of it where
    /// it is now; else the voter that is known to have the most of what was proposed since.
    fn designated_leader(&self, zxid: Zxid) -> ServerId {
        if self.stays_voter() {
            return self.me;
        }
        let next = &self.configs.last_seen;
        let voters = next.voters().filter(|sid| *sid != self.me && next.weight(*sid) != 0);
        let has = |sid| self.broadcast.durable_of(sid).map(|durable| (durable, sid));
        let having = voters.filter_map(has).filter(|(durable, _)| zxid <= *durable);
        // Without another voter this one moves alone.
        having.max().map_or(self.me, |(_, sid)| sid)
    }

    /// Whether this server is a voter of the last seen configuration, where it is now.
    pub(super) fn stays_voter(&self) -> bool {
        let quorum_addresses = |config: &EnsembleConfig| {
            let addresses = config.members.get(&self.me).map(|member| member.addresses.iter());
            let addresses = addresses.into_iter().flatten();
            addresses.map(|it| (it.host.clone(), it.quorum_port)).collect::<Vec<_>>()
        };
        let EnsembleConfigs { committed, last_seen } = &self.configs;
        last_seen.is_voter(self.me) && quorum_addresses(committed) == quorum_addresses(last_seen)
    }
}
