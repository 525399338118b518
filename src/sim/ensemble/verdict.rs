//! When an ensemble has settled, and what must be so at the end.

use std::collections::BTreeSet;

use super::super::replay;
use super::super::search;
use super::super::shards::difference;
use super::super::world::Failure;
use super::{EnsembleReport, Event, Member, World};
use crate::model::{EnsembleConfig, SessionId, Txn, TxnBody, Zxid};
use crate::server::Server;

impl World {
    /// Members, by the configuration in force, that came back when the faults were over.
    fn living<'a>(&'a self, config: &'a EnsembleConfig) -> impl Iterator<Item = &'a Member> {
        let members = self.members.iter().filter(|member| !member.is_dead);
        members.filter(|member| config.members.contains_key(&member.sid))
    }

    /// Every living server serves, clients have stopped, and everybody has everything.
    pub(super) fn is_settled(&self) -> bool {
        if self.events.values().any(|(_, event)| matches!(event, Event::Act(_))) {
            return false;
        }
        let config = self.in_force();
        let serves = |member: &Member| {
            let Some(server) = &member.server else { return false };
            server.mode().is_some_and(|mode| mode != "read-only")
                && member.log.last().is_none_or(|last| Some(*last) == self.last_applied(member))
                && member.shards.have_followed(server.tree())
        };
        let applied = self.living(&config).filter_map(|member| self.last_applied(member));
        applied.collect::<BTreeSet<Zxid>>().len() == 1 && self.living(&config).all(serves)
    }

    pub(super) fn describe(&self) -> String {
        let line = |member: &Member| {
            let server = member.server.as_ref();
            let mode = server.and_then(Server::mode).unwrap_or("not serving");
            let zxid = server.map(|server| server.tree().last_zxid());
            let follows = server.is_none_or(|server| member.shards.have_followed(server.tree()));
            format!(
                "server {} is {mode} at {zxid:?}, log ends {:?}, its shards have {}",
                member.sid,
                member.log.last(),
                if follows { "followed" } else { "not followed" }
            )
        };
        self.living(&self.in_force()).map(line).collect::<Vec<_>>().join("; ")
    }

    /// All living servers hold the same, nothing that was ever applied is lost, and what clients
    /// were told is what the order of txns in the logs makes of their requests.
    pub(super) fn judge(mut self) -> Result<EnsembleReport, Failure> {
        let config = self.in_force();
        self.judge_members(&config)?;
        let all: Vec<(&Member, &Server)> =
            self.living(&config).filter_map(|it| Some((it, it.server.as_ref()?))).collect();
        let Some((first, server)) = all.first() else {
            return Err(Failure::new("no server".to_owned()));
        };
        let tree = server.tree();
        let sessions = |server: &Server| -> Vec<_> { server.sessions().iter().collect() };
        if let Some(lost) = self.committed.iter().find(|zxid| !first.log.contains(zxid)) {
            return Err(Failure::new(format!("{lost} was committed and is lost")));
        }
        for (member, other) in &all {
            let (one, two) = (first.sid, member.sid);
            let place = difference(tree, other.tree(), "/");
            if other.tree().digest() != tree.digest() || place.is_some() {
                let place = place.unwrap_or_else(|| "their digests".to_owned());
                return Err(Failure::new(format!(
                    "the trees of servers {one} and {two} differ at {place}"
                )));
            }
            let (one_has, two_has) = (sessions(server), sessions(other));
            if one_has != two_has {
                let only = |these: &[(SessionId, i32)], those: &[(SessionId, i32)]| -> Vec<_> {
                    these.iter().filter(|it| !those.contains(it)).copied().collect()
                };
                return Err(Failure::new(format!(
                    "of the sessions, only server {one} has {:?}, only {two} has {:?}",
                    only(&one_has, &two_has),
                    only(&two_has, &one_has),
                )));
            }
            if let Some(zxid) = member.log.symmetric_difference(&first.log).next() {
                let holder = if first.log.contains(zxid) { one } else { two };
                return Err(Failure::new(format!(
                    "of the logs of {one} and {two}, only that of {holder} has {zxid}"
                )));
            }
            let owners = other.tree().ephemeral_sessions();
            let known: BTreeSet<_> = other.sessions().iter().map(|(id, _)| id).collect();
            if let Some(owner) = owners.into_iter().find(|owner| !known.contains(owner)) {
                return Err(Failure::new(format!("server {two} does not know {owner}, an owner")));
            }
            member.shards.check(other.tree())?;
        }
        let log = first.log.clone();
        let used_up = log.iter().filter(|zxid| zxid.counter() == self.zxids.last);
        self.report.rollovers = used_up.count() as u64;
        self.history.txns.retain(|zxid, _| log.contains(zxid));
        let is_change = |txn: &&Txn| matches!(txn.body, TxnBody::Reconfig { .. });
        self.report.reconfigurations = self.history.txns.values().filter(is_change).count() as u64;
        let server = self.living(&config).find_map(|it| it.server.as_ref());
        if let Some(server) = server {
            replay::check(&self.history, server.tree())?;
        }
        if self.is_small {
            search::check(&self.history)?;
        }
        if self.history.has_local_sessions {
            let created = |txn: &&Txn| matches!(txn.body, TxnBody::CreateSession { .. });
            self.report.upgrades = self.history.txns.values().filter(created).count() as u64;
        }
        let reading = self.history.conns.values().filter(|conn| conn.is_read_only);
        let answers = reading.flat_map(|conn| &conn.exchanges).filter(|it| it.answer.is_some());
        self.report.read_only = answers.count() as u64;
        self.report.answered = self.clients.iter().map(|client| client.answered).sum();
        Ok(self.report)
    }
}
