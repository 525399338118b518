//! Fast leader election (`quorum-and-disk.md` part 2): servers exchange votes until a quorum votes
//! for one of them, the one whose history is the furthest among that quorum.
//!
//! An election proposes a leader; it does not make one. A voter may change to a better vote after
//! another server has counted the earlier one, so two servers can come out of one round as leaders;
//! discovery ([`paxos`](super::paxos)) lets at most one of them through. What elections do promise:
//!
//! 1. As long as a server is in a round, its vote only grows.
//! 2. Who is elected out of a round had the votes of a quorum, and its vote is at least the first
//!    vote of each of them.
//! 3. A server joins a leader that others follow only if a quorum follows it and it says itself
//!    that it leads.
//!
//! Results are Apache's; times are ours. Apache waits 200 ms for better votes once it has a quorum;
//! here the wait ends when every voter with a live connection has voted, or nothing new came for
//! [`ELECTION_QUIET`]. A vote is repeated to a live connection no more often than
//! [`ELECTION_RESEND_AFTER`], since every message makes Apache's servers wait for another 200 ms.
//! A server without a vote that looks is told once what this one votes for, and what changes after
//! that. One that has a leader is not answered, and earlier rounds are not answered without a vote:
//! Apache's servers answer all of that, and a voter and an observer of theirs may answer each other
//! without end.
//!
//! Driven by notifications, connections that come and go, and time; drained through
//! [`Election::poll_output`]. Knows nothing of sockets: that a vote reaches a server without a
//! connection is the business of [`links`](super::links).

mod counted;

#[cfg(test)]
mod proposed_tests;
#[cfg(test)]
mod simulation_tests;
#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use self::counted::{CountedVote, Votes};
use super::paxos::HistoryEnd;
use crate::base::{Duration, Instant, Str};
use crate::config;
use crate::limits::{
    ELECTION_QUIET, ELECTION_RESEND_AFTER, ELECTION_RESEND_AFTER_MAX, ELECTION_STANDS_AT,
};
use crate::model::{
    EnsembleConfig, EnsembleConfigs, LearnerType, ServerId, ServerState, Vote, Zxid,
};
use crate::wire::vote::Notification;

/// One server's part in elections, for as long as the process lives.
#[derive(Clone, Debug)]
pub struct Election {
    me: ServerId,
    configs: EnsembleConfigs,
    /// Text of the committed configuration; every notification carries it.
    config_text: Str,
    /// Text of the pending one; notifications carry it as well.
    proposed_text: Option<Str>,
    /// The latest proposed configuration that voters have told of. No quorum of it is asked for,
    /// but its voters may be elected: one of them may be the only one with all of the history.
    heard: Option<EnsembleConfig>,
    /// `reconfigEnabled`: newer configurations of others are adopted.
    adopts_configs: bool,

    state: ServerState,
    /// The round (Apache's logical clock). Lives in memory only; who joins a leader takes the round
    /// in which that one was elected.
    round: i64,
    /// Where its history ended when it began to look; `None`: it does not know.
    durable: Option<HistoryEnd>,
    /// This server's vote for itself.
    own: Vote,
    /// What it votes for in this round. Meaningful while looking.
    proposal: Vote,
    /// The result of the last election, told to others while not looking.
    current: Decision,

    /// Votes of this round.
    received: Votes,
    /// What servers that have a leader say, of whatever round.
    outside: Votes,
    /// The last votes for the next leader that came while the server was not looking, with when.
    early: BTreeMap<ServerId, (Instant, Notification)>,
    /// Servers without a vote that have asked for a leader, and have not said that they have one.
    asking: BTreeSet<ServerId>,
    /// Servers to which there is a live connection.
    connected: BTreeSet<ServerId>,

    resend_at: Option<Instant>,
    resend_after: Duration,
    /// When a quorum's vote becomes final if nothing new comes. `None` without a quorum.
    quiet_at: Option<Instant>,
    outputs: VecDeque<ElectionOutput>,
}

/// What an election asks of its driver.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ElectionOutput {
    /// Send this; if there is no connection, make one.
    Send {
        /// To whom.
        to: ServerId,
        /// What.
        notification: Notification,
    },
    /// The election is over.
    Decided(Decision),
    /// A server has a newer committed configuration; it is in force here, too.
    Adopted(EnsembleConfig),
}

/// The result of an election.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Decision {
    /// What this server is to do: lead, follow or observe.
    pub state: ServerState,
    /// Whom it elected, with the position that spoke for it.
    pub vote: Vote,
    /// In which round.
    pub round: i64,
}

impl Election {
    /// A server that is not looking yet; until it does, it says nothing.
    #[must_use]
    pub fn new(me: ServerId, configs: EnsembleConfigs, adopts_configs: bool) -> Self {
        let (config_text, proposed_text) = texts(&configs);
        Self {
            me,
            configs,
            config_text,
            proposed_text,
            heard: None,
            adopts_configs,
            state: ServerState::Looking,
            round: 0,
            durable: None,
            own: Vote::NONE,
            proposal: Vote::NONE,
            current: Decision { state: ServerState::Looking, vote: Vote::NONE, round: 0 },
            received: Votes::default(),
            outside: Votes::default(),
            early: BTreeMap::new(),
            asking: BTreeSet::new(),
            connected: BTreeSet::new(),
            resend_at: None,
            resend_after: ELECTION_RESEND_AFTER,
            quiet_at: None,
            outputs: VecDeque::new(),
        }
    }

    /// What the server is doing.
    #[must_use]
    pub const fn state(&self) -> ServerState {
        self.state
    }

    /// The round of the present or last election.
    #[must_use]
    pub const fn round(&self) -> i64 {
        self.round
    }

    /// The configurations in force.
    #[must_use]
    pub const fn configs(&self) -> &EnsembleConfigs {
        &self.configs
    }

    /// Those whose voters may be elected: the two, and one that is proposed to others only.
    pub fn known(&self) -> impl Iterator<Item = &EnsembleConfig> {
        [&self.configs.committed, &self.configs.last_seen].into_iter().chain(&self.heard)
    }

    /// The next thing to do, in order.
    pub fn poll_output(&mut self) -> Option<ElectionOutput> {
        self.outputs.pop_front()
    }

    /// When [`Election::on_timeout`] is to be called.
    #[must_use]
    pub fn next_timeout(&self) -> Option<Instant> {
        self.resend_at.into_iter().chain(self.quiet_at).min()
    }

    /// The server has no leader (any more): a new round begins. `durable` is where its history ends
    /// on disk; `None` if its database was lost, so that it does not know what it knew.
    pub fn look(&mut self, now: Instant, durable: Option<HistoryEnd>) {
        self.durable = durable;
        self.own = self.first_vote();
        self.state = ServerState::Looking;
        self.heard = None;
        self.start_round(now);
        // Whoever sent them does not repeat them before. Older ones were repeated, or are over.
        for (from, (came, notification)) in std::mem::take(&mut self.early) {
            if now.since(came) < ELECTION_RESEND_AFTER {
                self.on_notification(now, from, &notification);
            }
        }
    }

    /// The server has no leader any more, and cannot vote yet. It says nothing until it looks: who
    /// heard that it leads or follows would join a leader that is none.
    pub fn rest(&mut self) {
        self.state = ServerState::Looking;
        self.resend_at = None;
        self.quiet_at = None;
    }

    /// The server and a quorum are synchronized in this epoch: answers carry it, so that late
    /// joiners see the same from everybody (ZOOKEEPER-1732). Who asked before is told as well: it
    /// would count the epochs before and after each by itself, and find a quorum for neither.
    pub fn on_established(&mut self, epoch: u32) {
        let epoch = i64::from(epoch);
        if std::mem::replace(&mut self.current.vote.peer_epoch, epoch) == epoch {
            return;
        }
        let voters = self.early.keys().filter(|sid| self.connected.contains(sid));
        for to in voters.chain(&self.asking).copied().collect::<BTreeSet<_>>() {
            self.tell(to);
        }
    }

    /// A committed reconfiguration names the leader: no election is held. Discovery decides, as
    /// after every election, whether it leads.
    pub fn appoint(&mut self, leader: ServerId, zxid: Zxid) {
        // ZooKeeper: QuorumPeer.updateVote has neither round nor epoch for such a vote.
        self.decide(Vote { peer_epoch: -1, zxid, leader }, -1);
    }

    /// Configurations have changed.
    pub fn set_configs(&mut self, configs: EnsembleConfigs) {
        (self.config_text, self.proposed_text) = texts(&configs);
        self.configs = configs;
        self.heard = self.heard.take().filter(|heard| self.is_news(heard));
    }

    /// There is a connection to a server. What was last sent to it goes over it by itself.
    pub fn on_connected(&mut self, sid: ServerId) {
        self.connected.insert(sid);
    }

    /// The connection to a server is gone; its vote is no longer waited for.
    pub fn on_disconnected(&mut self, now: Instant, sid: ServerId) {
        self.connected.remove(&sid);
        self.asking.remove(&sid);
        if self.quiet_at.is_some() {
            self.maybe_decide(now);
        }
    }

    /// Whether no quorum is left that may follow this server, since it was elected: voters look in
    /// a later round, or have no connection to it and have not joined it.
    pub fn is_deserted(&self, has_joined: impl Fn(ServerId) -> bool) -> bool {
        let elected_in = self.current.round;
        let has_gone = |sid: ServerId| {
            self.early.get(&sid).is_some_and(|(_, notification)| elected_in < notification.round)
        };
        let may_follow = |sid: ServerId| {
            let is_near = self.connected.contains(&sid) || has_joined(sid);
            sid == self.me || (is_near && !has_gone(sid))
        };
        // A vote in no round is that of a reconfiguration.
        self.state == ServerState::Leading
            && 0 <= elected_in
            && self.early.keys().any(|sid| has_gone(*sid))
            && !self.configs.is_quorum(may_follow)
    }

    /// A notification has arrived.
    pub fn on_notification(&mut self, now: Instant, from: ServerId, notification: &Notification) {
        let is_idle = self.state == ServerState::Looking && self.resend_at.is_none();
        if is_idle || self.state != ServerState::Looking {
            self.keep(now, from, notification);
        }
        if from == self.me || (!is_idle && self.maybe_adopt(now, notification)) {
            return;
        }
        if self.state == ServerState::Looking && !is_idle {
            self.hear_proposed(from, notification);
        }
        if !self.configs.is_voter(from) {
            self.on_asked(from, notification, is_idle);
            if self.state != ServerState::Looking || !self.is_voter(from) {
                return;
            }
        }
        if is_idle {
            return;
        }
        match (self.state, notification.state) {
            (ServerState::Looking, ServerState::Looking) => {
                if notification.round < self.round {
                    self.answer_earlier_round(now, from);
                }
                if self.is_voter(notification.vote.leader) {
                    self.on_looking(now, from, notification);
                } else {
                    self.join_round(now, notification.round);
                }
            }
            (ServerState::Looking, ServerState::Following | ServerState::Leading) => {
                if self.is_voter(notification.vote.leader) {
                    self.on_settled(from, notification);
                }
            }
            (ServerState::Looking, ServerState::Observing) => {}
            (_, ServerState::Looking) => self.tell(from),
            (_, ServerState::Following | ServerState::Leading | ServerState::Observing) => {}
        }
    }

    /// A timer has fired.
    pub fn on_timeout(&mut self, now: Instant) {
        if self.quiet_at.is_some_and(|at| at <= now) {
            self.decide(self.proposal, self.round);
        }
        if self.resend_at.is_some_and(|at| at <= now) {
            self.resend_after = Duration(2 * self.resend_after.0).min(ELECTION_RESEND_AFTER_MAX);
            self.resend_at = Some(now + self.resend_after);
            if ELECTION_STANDS_AT <= self.resend_after && self.is_only_proposed() {
                self.stand_by_turns(now);
            } else {
                self.tell_all();
            }
        }
    }

    /// A voter of the proposed configuration only, which knows its history.
    fn is_only_proposed(&self) -> bool {
        let is_known = self.own != Vote::NONE && self.knows_its_history();
        is_known && !self.configs.committed.is_voter(self.me) && self.configs.is_voter(self.me)
    }

    /// Nobody may be elected without this server's vote, and its history is ahead of all others.
    /// Then it may lead, by quorums of both configurations. At first it stands for nobody: those
    /// who know only the one in force pass over votes for it, and may need each other's.
    fn stand_by_turns(&mut self, now: Instant) {
        let stands = self.own.leader == self.me;
        self.own.leader = if stands { ServerId::NONE } else { self.me };
        self.start_round(now);
    }

    /// Observers and servers that want to join ask for a leader; they are never counted. Who looks
    /// does not answer each of their notifications, since some answer each of its own.
    fn on_asked(&mut self, from: ServerId, notification: &Notification, is_idle: bool) {
        if notification.state != ServerState::Looking {
            self.asking.remove(&from);
            return;
        }
        let is_new = self.asking.insert(from);
        let is_behind = notification.round < self.round;
        if !is_idle && (is_new || is_behind || self.state != ServerState::Looking) {
            self.tell(from);
        }
    }

    /// A voter tells its vote. Who has none would be answered in turn; it repeats itself sooner, so
    /// that its round is known.
    fn answer_earlier_round(&mut self, now: Instant, from: ServerId) {
        if self.configs.is_voter(self.me) {
            return self.tell(from);
        }
        let soon = now + ELECTION_RESEND_AFTER;
        self.resend_at = self.resend_at.map(|at| at.min(soon));
    }

    /// Keeps a vote for the next leader: its sender may have noticed earlier than this server that
    /// there is none, and does not repeat it soon.
    fn keep(&mut self, now: Instant, from: ServerId, notification: &Notification) {
        if notification.state != ServerState::Looking {
            self.early.remove(&from);
        } else if self.configs.is_voter(from) {
            self.early.insert(from, (now, notification.clone()));
        }
    }

    /// Apache's initial vote: only participants speak for a history, only voters for themselves.
    fn first_vote(&self) -> Vote {
        if self.learner_type() == LearnerType::Observer {
            return Vote::NONE;
        }
        let is_voter = self.configs.committed.is_voter(self.me);
        let leader = if is_voter { self.me } else { ServerId::NONE };
        match self.durable {
            Some(HistoryEnd { current_epoch, last_zxid }) => {
                Vote { peer_epoch: i64::from(current_epoch), zxid: last_zxid, leader }
            }
            None => Vote { peer_epoch: -1, zxid: UNKNOWN, leader },
        }
    }

    fn learner_type(&self) -> LearnerType {
        let member = self.configs.committed.members.get(&self.me);
        member.map_or(LearnerType::Participant, |member| member.learner_type)
    }

    fn start_round(&mut self, now: Instant) {
        self.round += 1;
        self.received.clear();
        self.outside.clear();
        self.quiet_at = None;
        self.resend_after = ELECTION_RESEND_AFTER;
        self.resend_at = Some(now + self.resend_after);
        self.propose(self.own);
        self.maybe_decide(now);
    }

    /// Changes the vote, counts it, and tells all voters.
    fn propose(&mut self, vote: Vote) {
        assert!(self.received.is_empty() || self.proposal < vote, "within a round a vote grows");
        self.proposal = vote;
        self.quiet_at = None;
        if self.configs.is_voter(self.me) && self.knows_its_history() {
            self.received.insert(self.me, CountedVote::looking(vote, self.round));
        }
        self.tell_all();
    }

    /// A server that lost its database neither votes nor counts votes: it joins a leader that
    /// others have (ZOOKEEPER-261).
    fn knows_its_history(&self) -> bool {
        self.own.zxid != UNKNOWN
    }

    fn on_looking(&mut self, now: Instant, from: ServerId, notification: &Notification) {
        let Notification { vote, round, .. } = *notification;
        if !self.knows_its_history() || vote.zxid == UNKNOWN || round < self.round {
            return;
        }
        if self.round < round {
            self.round = round;
            self.received.clear();
            self.propose(if self.beats(vote, self.own) { vote } else { self.own });
        } else if self.beats(vote, self.proposal) {
            self.propose(vote);
        }
        let is_news = self.received.insert(from, CountedVote::looking(vote, round));
        if is_news || self.quiet_at.is_none() {
            self.maybe_decide(now);
        }
    }

    /// A voter of the proposed configuration may not know that it is one. It votes for nobody, and
    /// is heard by nobody until it hears the votes of a round that is not earlier than its own.
    fn join_round(&mut self, now: Instant, round: i64) {
        if self.round < round && self.knows_its_history() {
            self.round = round;
            self.received.clear();
            self.propose(self.own);
            self.maybe_decide(now);
        }
    }

    /// A server without weight never leads.
    fn beats(&self, vote: Vote, other: Vote) -> bool {
        let config = self.known().find(|config| config.is_voter(vote.leader));
        other < vote && config.is_some_and(|config| config.weight(vote.leader) != 0)
    }

    /// A voter of any configuration that this server knows.
    fn is_voter(&self, sid: ServerId) -> bool {
        self.known().any(|config| config.is_voter(sid))
    }

    fn is_news(&self, proposed: &EnsembleConfig) -> bool {
        self.configs.last_seen.version.max(self.configs.committed.version) < proposed.version
    }

    /// Takes note of a proposed configuration that a voter has in its history.
    fn hear_proposed(&mut self, from: ServerId, notification: &Notification) {
        let Some(text) = notification.proposed.as_ref().filter(|_| self.adopts_configs) else {
            return;
        };
        if self.configs.is_voter(from)
            && let Ok(config) = config::ensemble::parse(text, "notification")
            && self.is_news(&config)
            && self.heard.as_ref().is_none_or(|heard| heard.version < config.version)
        {
            self.heard = Some(config);
        }
    }

    /// Once a quorum agrees with the proposal, better votes are waited for, but not for long.
    fn maybe_decide(&mut self, now: Instant) {
        let proposal = CountedVote::looking(self.proposal, self.round);
        if !self.received.is_quorum(&self.configs, &proposal) {
            self.quiet_at = None;
            return;
        }
        let mut voters = self.voters().into_iter();
        let awaits = |sid: ServerId| self.connected.contains(&sid) && !self.received.contains(sid);
        if voters.any(awaits) {
            self.quiet_at = Some(now + ELECTION_QUIET);
        } else {
            self.decide(self.proposal, self.round);
        }
    }

    /// A server that has a leader says so.
    fn on_settled(&mut self, from: ServerId, notification: &Notification) {
        let said = CountedVote::settled(notification);
        if notification.round == self.round {
            // ZooKeeper: FastLeaderElection, votes of this round are kept without their version.
            self.received.insert(from, CountedVote { format_version: 0, ..said });
            if self.received.is_quorum(&self.configs, &said) && self.leads(&self.received, &said) {
                return self.decide(said.vote, said.round);
            }
        }
        self.outside.insert(from, said);
        // Whoever joins promises nothing by it. The voters of a proposed configuration may be
        // elsewhere, and the leader may never have heard of it: one of the two will do.
        let has_followers = match said.vote.leader == self.me {
            true => self.outside.is_quorum(&self.configs, &said),
            false => self.outside.is_quorum_of_either(&self.configs, &said),
        };
        if has_followers && self.leads(&self.outside, &said) {
            self.round = said.round;
            self.decide(said.vote, said.round);
        }
    }

    /// Whether the leader that others follow says itself that it leads; without this, servers would
    /// elect a crashed one over and over.
    fn leads(&self, votes: &Votes, said: &CountedVote) -> bool {
        if said.vote.leader == self.me {
            // Whoever followed it followed what it has lost.
            return self.round == said.round && self.knows_its_history();
        }
        votes.state_of(said.vote.leader) == Some(ServerState::Leading)
    }

    fn decide(&mut self, vote: Vote, round: i64) {
        self.state = match self.learner_type() {
            _ if vote.leader == self.me => ServerState::Leading,
            LearnerType::Participant => ServerState::Following,
            LearnerType::Observer => ServerState::Observing,
        };
        self.current = Decision { state: self.state, vote, round };
        self.received.clear();
        self.outside.clear();
        self.resend_at = None;
        self.quiet_at = None;
        for to in self.asking.clone() {
            self.tell(to);
        }
        self.outputs.push_back(ElectionOutput::Decided(self.current));
    }

    /// Takes over a newer committed configuration while looking; true if the election starts again
    /// because its members differ.
    fn maybe_adopt(&mut self, now: Instant, notification: &Notification) -> bool {
        let Some(text) = &notification.config else { return false };
        let may = self.adopts_configs && self.state == ServerState::Looking;
        if !may || *text == self.config_text {
            return false;
        }
        // What does not parse is not adopted, and the vote still counts.
        let Ok(config) = config::ensemble::parse(text, "notification") else { return false };
        if config.version <= self.configs.committed.version {
            return false;
        }
        let committed = &self.configs.committed;
        let differs = (&committed.members, &committed.quorum) != (&config.members, &config.quorum);
        self.outputs.push_back(ElectionOutput::Adopted(config.clone()));
        let mut last_seen = self.configs.last_seen.clone();
        if last_seen.version < config.version {
            last_seen.clone_from(&config);
        }
        self.set_configs(EnsembleConfigs { committed: config, last_seen });
        if differs {
            self.own = self.first_vote();
            self.start_round(now);
        }
        differs
    }

    /// Tells all voters, and who has asked.
    fn tell_all(&mut self) {
        let mut all = self.voters();
        all.extend(&self.asking);
        all.remove(&self.me);
        for to in all {
            self.tell(to);
        }
    }

    /// The voters of all configurations that this server knows.
    fn voters(&self) -> BTreeSet<ServerId> {
        self.known().flat_map(EnsembleConfig::voters).collect()
    }

    /// What this server votes for, or has elected.
    fn tell(&mut self, to: ServerId) {
        let (vote, round) = match self.state {
            ServerState::Looking => (self.proposal, self.round),
            _ => (self.current.vote, self.current.round),
        };
        let notification = Notification {
            state: self.state,
            vote,
            round,
            format_version: Notification::FORMAT_VERSION,
            config: Some(self.config_text.clone()),
            proposed: self.proposed_text.clone(),
        };
        self.outputs.push_back(ElectionOutput::Send { to, notification });
    }
}

/// The committed configuration as text, and the pending one.
fn texts(configs: &EnsembleConfigs) -> (Str, Option<Str>) {
    let text = |config: &EnsembleConfig| Str::from(config::ensemble::text(config).as_str());
    (text(&configs.committed), configs.pending().map(text))
}

/// The zxid of a server whose database is empty and not trusted.
const UNKNOWN: Zxid = Zxid(-1);
