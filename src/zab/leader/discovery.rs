//! The first two phases of a leader: from the greeting of the first learner to the quorum that has
//! its history. What counts is decided by [`Proposer`](crate::zab::paxos::Proposer).

use super::Leader;
use super::link::{LearnerKind, Link, LinkId, Stage};
use super::output::{Abdication, CloseReason, Output};
use crate::model::{EnsembleConfigs, ServerId, Zxid};
use crate::wire::quorum::{LeaderPacket, LearnerInfo, PROTOCOL_VERSION};
use crate::zab::paxos::{Answer, DurableHistory, HistoryEnd, Phase, Said, Verdict};

impl Leader {
    pub(super) fn on_info(
        &mut self,
        id: LinkId,
        kind: LearnerKind,
        accepted_epoch: i32,
        info: Option<LearnerInfo>,
        out: &mut Vec<Output>,
    ) {
        let Some(info) = info else {
            return self.drop_link(id, CloseReason::Illegal("a greeting without a sid"), out);
        };
        if info.sid == self.me {
            return self.drop_link(id, CloseReason::Illegal("the leader's own sid"), out);
        }
        if info.protocol_version < PROTOCOL_VERSION {
            return self.drop_link(id, CloseReason::Protocol(info.protocol_version), out);
        }
        let ours = self.configs.committed.version;
        if let Some(theirs) = info.config_version.filter(|theirs| ours < *theirs) {
            return self.drop_link(id, CloseReason::NewerConfig { theirs, ours }, out);
        }
        let older = self.links.iter().find(|(other, link)| {
            **other != id && link.sid == info.sid && !matches!(link.stage, Stage::Fresh)
        });
        if let Some((older, _)) = older {
            self.drop_link(*older, CloseReason::Replaced, out);
        }
        let Some(link) = self.links.get_mut(&id) else { return };
        if !matches!(link.stage, Stage::Fresh) {
            return self.drop_link(id, CloseReason::Illegal("a second greeting"), out);
        }
        link.sid = info.sid;
        link.kind = kind;
        link.is_ringkeeper = info.is_ringkeeper;
        link.has_checksums = info.has_checksums;
        link.stage = Stage::Greeted;
        // -1 comes from a server that has promised nothing.
        let accepted_epoch = u32::try_from(accepted_epoch).unwrap_or(0);
        if info.has_checksums && self.configs.committed.members.contains_key(&info.sid) {
            self.outbid = self.outbid.max(accepted_epoch);
        }
        self.hello(info.sid, accepted_epoch, out);
        self.inform_greeted(out);
    }

    pub(super) fn hello(&mut self, sid: ServerId, accepted_epoch: u32, out: &mut Vec<Output>) {
        let was_choosing = self.proposer.phase() == Phase::Choosing;
        if let Err(exhausted) = self.proposer.on_hello(&self.configs, sid, accepted_epoch) {
            return self.abdicate(Abdication::NoEpoch(exhausted), out);
        }
        if let Phase::Discovering { epoch } = self.proposer.phase()
            && was_choosing
        {
            self.stamp(epoch, out);
            let answer = self.acceptor.on_leader_info(epoch);
            self.own_step(answer, out);
        }
    }

    /// The first leader gives the configuration of the ensemble a version, so that it precedes the
    /// lists that other servers start with (ZOOKEEPER-1783).
    fn stamp(&mut self, epoch: u32, out: &mut Vec<Output>) {
        let EnsembleConfigs { committed, last_seen } = &mut self.configs;
        if self.adopts_configs && committed.version == 0 && last_seen.version == 0 {
            last_seen.clone_from(committed);
            last_seen.version = Zxid::new(epoch, 0).0;
            out.push(Output::Config(last_seen.clone()));
        }
    }

    /// Carries out what the own acceptor wants.
    fn own_step(&mut self, answer: Answer, out: &mut Vec<Output>) {
        match answer {
            Answer::Store(epochs) => out.push(Output::Store(epochs)),
            Answer::Say(said) => self.own_answer(said, out),
            Answer::Refused { accepted } => {
                unreachable!("the own epoch is above {accepted}, which this server promised")
            }
        }
    }

    pub(super) fn own_answer(&mut self, said: Said, out: &mut Vec<Output>) {
        match said {
            Said::Promised(promise) => {
                let own = promise
                    .current_epoch()
                    .map(|current_epoch| HistoryEnd { current_epoch, last_zxid: self.own_last });
                self.promised(self.me, own, out);
                self.inform_greeted(out);
            }
            Said::Accepted(accept) => self.accepted(self.me, accept.epoch(), out),
        }
    }

    /// The own promise is on disk: whoever has introduced itself is asked for its promise.
    fn inform_greeted(&mut self, out: &mut Vec<Output>) {
        let Some(epoch) = self.epoch().filter(|epoch| *epoch <= self.acceptor.stored().accepted)
        else {
            return;
        };
        for (id, link) in &mut self.links {
            if matches!(link.stage, Stage::Greeted) {
                link.stage = Stage::Informed;
                let epoch = i32::try_from(epoch).expect("epochs are bounded by the proposer");
                let Link { is_ringkeeper, has_checksums, .. } = *link;
                let packet = LeaderPacket::leader_info(epoch, is_ringkeeper, has_checksums);
                out.push(Output::Send(*id, packet));
            }
        }
    }

    /// Those who elected this server look for another leader. One that is established hears it from
    /// its followers.
    pub fn deserted(&mut self, out: &mut Vec<Output>) {
        if !self.established && !self.renewing {
            let missing = self.proposer.describe(&self.configs);
            self.abdicate(Abdication::NotEstablished(missing), out);
        }
    }

    /// Whether a server has introduced itself, and is still connected.
    pub fn has_joined(&self, sid: ServerId) -> bool {
        self.links.values().any(|link| link.sid == sid && !matches!(link.stage, Stage::Fresh))
    }

    pub(super) fn on_ack_epoch(
        &mut self,
        id: LinkId,
        last_zxid: Zxid,
        current_epoch: i32,
        out: &mut Vec<Output>,
    ) {
        let Some(link) = self.links.get_mut(&id) else { return };
        if !matches!(link.stage, Stage::Informed) {
            return self.drop_link(id, CloseReason::Illegal("ACKEPOCH"), out);
        }
        link.stage = Stage::Promised;
        link.log_end = last_zxid;
        let sid = link.sid;
        let history = HistoryEnd::of_ack_epoch(last_zxid, current_epoch);
        // Once established the leader's history is longer than it was: who comes later is judged
        // by the way of its synchronization.
        if self.established {
            self.choose(id, out);
        } else if self.promised(sid, history, out) == Verdict::Ahead {
            self.drop_link(id, CloseReason::Ahead, out);
        } else if matches!(self.proposer.phase(), Phase::Synchronizing { .. }) {
            self.choose(id, out);
        }
    }

    fn promised(
        &mut self,
        sid: ServerId,
        history: Option<HistoryEnd>,
        out: &mut Vec<Output>,
    ) -> Verdict {
        let before = self.proposer.phase();
        let verdict = self.proposer.on_promise(&self.configs, sid, history);
        if let (Phase::Discovering { .. }, Phase::Synchronizing { epoch }) =
            (before, self.proposer.phase())
        {
            // The whole log is durable: a server does not campaign with less.
            let answer = self.acceptor.on_history(DurableHistory { epoch });
            self.own_step(answer, out);
            let waiting: Vec<LinkId> = self
                .links
                .iter()
                .filter(|(_, link)| matches!(link.stage, Stage::Promised) && link.sid != sid)
                .map(|(id, _)| *id)
                .collect();
            for id in waiting {
                self.choose(id, out);
            }
        }
        verdict
    }

    pub(super) fn accepted(&mut self, sid: ServerId, epoch: u32, out: &mut Vec<Output>) {
        self.proposer.on_accepted(&self.configs, sid, epoch);
        if self.established || !matches!(self.proposer.phase(), Phase::Established { .. }) {
            return;
        }
        self.established = true;
        self.renewing = false;
        self.broadcast.durable(self.me, self.own_last);
        out.push(Output::Established { epoch });
        let ready: Vec<LinkId> = self
            .links
            .iter()
            .filter(|(_, link)| matches!(link.stage, Stage::Following))
            .map(|(id, _)| *id)
            .collect();
        for id in ready {
            self.serve(id, out);
        }
        // What was last seen, perhaps without a word from those who proposed it, is in force.
        let stays = self.stays_voter();
        self.configs = EnsembleConfigs::settled(self.configs.last_seen.clone());
        if !stays {
            self.abdicate(Abdication::NoVoter, out);
        }
    }

    pub(super) fn serve(&mut self, id: LinkId, out: &mut Vec<Output>) {
        // The acknowledgement that established the leader has served its sender already.
        if let Some(link) = self.links.get_mut(&id)
            && matches!(link.stage, Stage::Following)
        {
            link.stage = Stage::Serving;
            link.is_renewing = false;
            out.push(Output::Send(id, LeaderPacket::UpToDate));
            // Whoever was to confirm a sync may be gone: who comes confirms it as well.
            let next = link.pings_sent + 1;
            for sync in &mut self.syncs {
                sync.pings.insert(id, next);
            }
        }
    }
}
