//! Changes of the ensemble's members: which configurations this server knows, what it writes down
//! about them before it says or does anything, and what it does when one takes effect
//! (`quorum-and-disk.md` 6.4).
//!
//! | what | when it is on disk |
//! |---|---|
//! | a configuration that is proposed | before its txn is in the log |
//! | the leader's, told with NEWLEADER | before NEWLEADER is acknowledged |
//! | that it is in force | later: until then a quorum of both is needed, which is safe |
//!
//! So whoever has a configuration's txn in its log asks for a quorum of that configuration as well,
//! whatever has become of the process meanwhile.

use super::{Context, Ensemble, Role};
use crate::base::FileOps;
use crate::config;
use crate::model::{
    ClientAddress, EnsembleConfig, EnsembleConfigs, ErrorCode, LearnerType, ReconfigRequest,
    ServerAddress, ServerId, Zxid,
};
use crate::server::contract::{PeerAddress, PeerOutput};
use crate::wire::vote::ElectionAddress;
use crate::zab::paxos::HistoryEnd;

/// Where this server goes when what it still has to answer is answered.
#[derive(Clone, Copy, Debug)]
pub(super) struct Leaving {
    /// Once this is applied.
    pub(super) after: Zxid,
    /// Who leads then; `None`: an election is held.
    pub(super) leader: Option<ServerId>,
}

impl Ensemble {
    /// The configurations.
    pub(crate) const fn configs(&self) -> &EnsembleConfigs {
        &self.configs
    }

    /// Whether this server does not vote, by the configuration in force. One that is not in it
    /// follows without a vote.
    pub(super) fn is_observer(&self) -> bool {
        let own = self.configs.committed.members.get(&self.options.me);
        own.is_some_and(|own| own.learner_type == LearnerType::Observer)
    }

    /// Where a server is joined: as the configuration in force has it, or else a proposed one.
    pub(super) fn quorum_addresses(&self, sid: ServerId) -> Vec<PeerAddress> {
        let members = self.election.known().filter_map(|it| it.members.get(&sid));
        let mut found = Vec::new();
        for address in members.flat_map(|member| &member.addresses) {
            let address = PeerAddress { host: address.host.clone(), port: address.quorum_port };
            if !found.contains(&address) {
                found.push(address);
            }
        }
        found
    }

    /// What the tree that was recovered tells of its configuration: a leader's snapshot may have
    /// brought one that is in no file yet. An operator's list without a version holds until a list
    /// with one takes its place. Whether there is one that counts, or may come to. A proposed one
    /// behind it is not in the history.
    pub(crate) fn learn_from_tree(&mut self, text: Option<&[u8]>, ops: &mut FileOps) -> bool {
        let text = text.and_then(|text| std::str::from_utf8(text).ok()).unwrap_or_default();
        let config = config::ensemble::parse(text, "/zookeeper/config").ok();
        let shown = Zxid(config.as_ref().map_or(0, |config| config.version));
        self.of_history = config.filter(|_| self.options.adopts_configs);
        let may_count = self.of_history.is_some();
        if self.configs.committed.version != 0 {
            self.ask_history(ops);
        }
        if self.lost.is_none() {
            let history = HistoryEnd { current_epoch: self.epochs.current, last_zxid: shown };
            self.forget_unlogged(history, ops);
        }
        may_count
    }

    /// A later configuration of this server's own history counts beside the one in force.
    fn ask_history(&mut self, ops: &mut FileOps) {
        let seen = self.configs.last_seen.version;
        if let Some(config) = self.of_history.take_if(|config| seen < config.version) {
            self.see_config(config, ops);
        }
    }

    /// A configuration takes the place of the one that was last seen; it is being written down.
    pub(super) fn see_config(&mut self, config: EnsembleConfig, ops: &mut FileOps) {
        tracing::info!("a configuration is proposed: version {:x}", config.version);
        self.files.propose(&config, ops);
        // A history that is being received may hold several that are not in force here yet.
        if let Some(next) = self.configs.pending().filter(|next| next.version < config.version) {
            self.of_history = Some(next.clone());
        }
        self.configs.last_seen = config;
        self.tell_configs();
    }

    /// Gives up the proposed configuration if it is not in this server's history: its txn was cut
    /// off, or lost with the power. The one before it in the history counts again. `history` ends
    /// where that does, or with its last configuration. True while that is being written down.
    pub(super) fn forget_unlogged(&mut self, history: HistoryEnd, ops: &mut FileOps) -> bool {
        let forgets = self.configs.pending().is_some_and(|next| history.lacks(next));
        if forgets {
            let EnsembleConfigs { committed, last_seen } = &mut self.configs;
            tracing::info!(version = %Zxid(last_seen.version), end = %history.last_zxid,
                "a proposed configuration is not in the history and counts no more");
            let is_pending = |before: &EnsembleConfig| {
                committed.version < before.version && !history.lacks(before)
            };
            let before = self.of_history.take().filter(is_pending);
            *last_seen = before.unwrap_or_else(|| committed.clone());
            self.files.propose(last_seen, ops);
            self.tell_configs();
        }
        forgets
    }

    /// The configuration that comes into force with what is committed up to here, if any does: the
    /// pending one, or else the one before it in the history. While none is pending, an operator's
    /// list holds, whatever the history has.
    pub(super) fn next_upto(&mut self, upto: Zxid) -> Option<EnsembleConfig> {
        let pending = self.configs.pending()?;
        if pending.version <= upto.0 {
            return Some(pending.clone());
        }
        let committed = self.configs.committed.version;
        self.of_history.take_if(|it| committed < it.version && it.version <= upto.0)
    }

    /// This configuration is in force; the one before.
    pub(super) fn activate(&mut self, config: EnsembleConfig, ops: &mut FileOps) -> EnsembleConfig {
        let before = std::mem::replace(&mut self.configs.committed, config);
        self.took_effect(ops);
        before
    }

    /// Another server's notification has told of a configuration that is in force. The other may
    /// have missed later ones: a server that was removed and starts with a new list would form an
    /// ensemble of the past with it.
    pub(super) fn adopt(&mut self, ops: &mut FileOps) {
        self.configs = self.election.configs().clone();
        self.took_effect(ops);
        self.ask_history(ops);
    }

    fn took_effect(&mut self, ops: &mut FileOps) {
        let EnsembleConfigs { committed, last_seen } = &self.configs;
        tracing::info!(
            "a configuration is in force: {}",
            config::ensemble::text(committed).replace('\n', ", ")
        );
        let me = self.options.me;
        let own = committed.members.get(&me);
        let client = own.and_then(|own| own.client.clone());
        let is_last = committed.version == last_seen.version;
        self.files.commit(committed, client.is_some(), is_last, ops);
        let addresses = own.map(|own| own.addresses.clone());
        if let Some(addresses) = addresses.filter(|addresses| *addresses != self.addresses) {
            self.move_to(addresses);
        }
        if let Some(client) = client.filter(|client| *client != self.client) {
            self.listen_for_clients(client);
        }
        self.tell_configs();
    }

    fn move_to(&mut self, addresses: Vec<ServerAddress>) {
        if let Some(own) = addresses.first() {
            let address = ElectionAddress { host: own.host.clone(), port: own.election_port };
            self.links.set_address(address);
        }
        self.addresses.clone_from(&addresses);
        self.peers.ask(PeerOutput::Listen { addresses });
    }

    fn listen_for_clients(&mut self, client: ClientAddress) {
        self.client = client.clone();
        self.effects.push_back(super::Effect::Listen(client));
    }

    fn tell_configs(&mut self) {
        self.election.set_configs(self.configs.clone());
        self.links.set_configs(&self.configs);
    }

    /// Puts the configuration in force where clients read it; whether another was there.
    pub(super) fn show_config(&self, cx: &mut Context<'_>) -> bool {
        let config = &self.configs.committed;
        let text = config::ensemble::text(config);
        cx.pipeline.tree_mut().set_config(&text, config.version)
    }

    /// What a client's request makes of the configuration, in Apache's order of checks; all but the
    /// ACL, which comes last.
    pub(super) fn judge(
        &self,
        request: &ReconfigRequest,
        zxid: Zxid,
    ) -> Result<EnsembleConfig, ErrorCode> {
        let current = &self.configs.last_seen;
        if self.configs.pending().is_some() {
            return Err(ErrorCode::RECONFIG_IN_PROGRESS);
        }
        if request.from_config != -1 && request.from_config != current.version {
            return Err(ErrorCode::BAD_VERSION);
        }
        let next = config::reconfig::next(current, request, self.options.rules, zxid.0)?;
        // All servers read it back, from the log and from their files.
        let text = config::ensemble::text(&next);
        if !config::ensemble::parse(&text, "reconfig").is_ok_and(|read| read == next) {
            tracing::warn!(?text, "a reconfiguration was refused: its text says something else");
            return Err(ErrorCode::BAD_ARGUMENTS);
        }
        let is_synced = |sid| sid == self.options.me || self.has_synced(sid);
        match next.is_quorum(is_synced) {
            true => Ok(next),
            false => {
                let voters = next.describe(is_synced);
                tracing::warn!(
                    "a reconfiguration was refused: not enough of its voters are \
                    synchronized followers: {voters}"
                );
                Err(ErrorCode::NEW_CONFIG_NO_QUORUM)
            }
        }
    }

    fn has_synced(&self, sid: ServerId) -> bool {
        matches!(&self.role, Role::Leading(leading) if leading.has_synced(sid))
    }

    /// Where a learner goes when a configuration has taken the place of `before`; `None`: it stays.
    /// `designated` is who leads, if the leader has said so.
    pub(super) fn leaves_for(
        &self,
        before: &EnsembleConfig,
        leader: ServerId,
        designated: Option<ServerId>,
    ) -> Option<Option<ServerId>> {
        let now = &self.configs.committed;
        if (&before.members, &before.quorum) == (&now.members, &now.quorum) {
            return None;
        }
        let observes = |config: &EnsembleConfig| {
            let own = config.members.get(&self.options.me);
            own.is_some_and(|own| own.learner_type == LearnerType::Observer)
        };
        let changes_role = observes(before) != observes(now);
        match designated {
            Some(designated) => (changes_role || designated != leader).then_some(Some(designated)),
            None => {
                let place = |config: &EnsembleConfig| {
                    let member = config.members.get(&leader)?;
                    let places =
                        member.addresses.iter().map(|it| (it.host.clone(), it.quorum_port));
                    config.is_voter(leader).then(|| places.collect::<Vec<_>>())
                };
                let leader_stays = place(now).is_some() && place(before) == place(now);
                (changes_role || !leader_stays).then_some(None)
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::{FileOp, Instant, Str, WallMs};
    use crate::model::{LocalSessions, ServerState, Vote};
    use crate::server::EnsembleOptions;
    use crate::server::contract::Clock;
    use crate::server::epochs::Epochs;
    use crate::server::pipeline::Pipeline;
    use crate::server::pipeline::member_tests::options_of_member;
    use crate::server::tests::nothing_on_disk;
    use crate::wire::vote::Notification;

    /// A server that was removed starts with a list of the operator's and finds one that has slept
    /// since: together they are a quorum of a list that both have left behind.
    #[test]
    fn a_list_that_is_adopted_counts_beside_a_later_one_of_the_history() {
        let list = |sids: [i64; 3], version: i64| {
            let lines = sids.map(|sid| format!("server.{sid}=h:1:2:participant\n")).concat();
            format!("{lines}version={version:x}")
        };
        let parse = |text: &str| config::ensemble::parse(text, "list").unwrap();
        for (adopted, seen) in [(3, 7), (9, 9)] {
            let member = options_of_member(LocalSessions::Off).ensemble.unwrap();
            let configs = EnsembleConfigs::settled(parse(&list([1, 2, 3], 0)));
            let options = EnsembleOptions { configs, adopts_configs: true, ..member };
            let (mut ensemble, mut ops) =
                (Ensemble::new(options, Epochs::default(), None, usize::MAX), FileOps::default());
            ensemble.learn_from_tree(Some(list([2, 3, 4], 7).as_bytes()), &mut ops);
            assert_eq!(ensemble.configs().last_seen.version, 0, "the operator's list holds");
            let durable = HistoryEnd { current_epoch: 1, last_zxid: Zxid::new(1, 9) };
            ensemble.election.look(Instant::default(), Some(durable));
            let told = Notification {
                state: ServerState::Looking,
                vote: Vote { peer_epoch: 1, zxid: Zxid::new(1, 2), leader: ServerId(2) },
                round: 1,
                format_version: Notification::FORMAT_VERSION,
                config: Some(Str::from(list([1, 2, 3], adopted).as_str())),
                proposed: None,
            };
            ensemble.election.on_notification(Instant::default(), ServerId(2), &told);
            ensemble.adopt(&mut ops);
            let EnsembleConfigs { committed, last_seen } = ensemble.configs();
            assert_eq!((committed.version, last_seen.version), (adopted, seen));
            let pair = [ServerId(1), ServerId(2)];
            let is_quorum = ensemble.configs().is_quorum(|sid| pair.contains(&sid));
            assert_eq!(is_quorum, seen == adopted, "a quorum of each list is needed");
        }
    }

    /// Power was cut before the proposal's txn was on disk. The voter that it adds is needed no
    /// more: it may be ahead of this server, and not know that it is to be one.
    #[test]
    fn a_proposed_configuration_that_is_not_in_the_history_counts_no_more() {
        let options = options_of_member(LocalSessions::Off);
        let member = options.ensemble.clone().unwrap();
        let committed = config::ensemble::parse("server.1=h:1:2\nversion=0", "list").unwrap();
        let both = "server.1=h:1:2\nserver.4=h:1:2\nversion=100000004";
        let last_seen = config::ensemble::parse(both, "list").unwrap();
        let configs = EnsembleConfigs { committed: committed.clone(), last_seen };
        let member = EnsembleOptions { me: ServerId(1), configs, adopts_configs: true, ..member };
        let clock = Clock { now: Instant::default(), wall: WallMs(0) };
        let mut ops = FileOps::default();
        let mut pipeline = Pipeline::new(options, nothing_on_disk(), 1, clock, &mut ops);
        let epochs = Epochs { accepted: 1, current: 1, sequence: 0 };
        let mut ensemble = Ensemble::new(member, epochs, None, usize::MAX);
        let mut cx = Context { clock, pipeline: &mut pipeline, ops: &mut ops };
        cx.ops.take();
        ensemble.go_on(&mut cx);
        let asked = cx.ops.take();
        let text = config::ensemble::text(&committed);
        let [(id, FileOp::WriteNextConfig { text: written })] = &asked[..] else {
            panic!("{asked:?}")
        };
        assert_eq!(*written, text, "a server of Apache's would count what is there");
        assert_eq!(*ensemble.configs(), EnsembleConfigs::settled(committed));
        assert!(matches!(ensemble.role, Role::Settling), "it is not on disk yet");
        assert!(matches!(ensemble.on_file_done(&mut cx, *id, &Ok(())), Some(Ok(()))));
        ensemble.go_on(&mut cx);
        assert!(matches!(ensemble.role, Role::Leading(_)), "it is alone, and elects itself");
    }

    /// A history that is being received has two changes of members, and breaks off between them:
    /// the first is in the history, and its quorum is needed.
    #[test]
    fn behind_one_that_is_not_in_the_history_the_one_before_counts() {
        let list = |sid: i64, version: Zxid| {
            let text = format!("server.1=h:1:2\nserver.{sid}=h:1:2\nversion={:x}", version.0);
            config::ensemble::parse(&text, "list").unwrap()
        };
        let (first, second) = (list(3, Zxid::new(1, 5)), list(4, Zxid::new(1, 9)));
        let end = |counter| HistoryEnd { current_epoch: 1, last_zxid: Zxid::new(1, counter) };
        for (counter, is_restarted, seen) in [
            (4, false, 0x1_0000_0000),
            (6, false, first.version),
            (6, true, first.version),
            (9, false, second.version),
            // A snapshot of later than all of it has taken the place of the log.
            (99, true, first.version),
            (9, true, second.version),
        ] {
            let member = options_of_member(LocalSessions::Off).ensemble.unwrap();
            let configs = EnsembleConfigs::settled(list(2, Zxid::new(1, 0)));
            let options = EnsembleOptions { configs, adopts_configs: true, ..member };
            let (mut ensemble, mut ops) =
                (Ensemble::new(options, Epochs::default(), None, usize::MAX), FileOps::default());
            if is_restarted {
                ensemble.configs.last_seen = second.clone();
                let shown = if counter == 9 { &second } else { &first };
                let text = config::ensemble::text(shown);
                assert!(ensemble.learn_from_tree(Some(text.as_bytes()), &mut ops));
            } else {
                ensemble.see_config(first.clone(), &mut ops);
                ensemble.see_config(second.clone(), &mut ops);
            }
            let forgets = ensemble.forget_unlogged(end(counter), &mut ops);
            assert_eq!(forgets, seen != second.version && !is_restarted);
            assert_eq!(ensemble.configs().last_seen.version, seen, "{counter} {is_restarted}");
            assert!(!ensemble.forget_unlogged(end(counter), &mut ops));
        }
    }
}
