//! A leader, from the election it won to the end of its leadership: discovery, synchronization and
//! broadcast over the connections of its learners (`quorum-and-disk.md` parts 3 to 5).
//!
//! | phase | it waits for | then |
//! |---|---|---|
//! | discovery | a quorum of FOLLOWERINFO | its own promise is written, LEADERINFO goes out |
//! | | a quorum of ACKEPOCH | its own acceptance is written, learners are synchronized |
//! | synchronization | a quorum of ACK(NEWLEADER) | UPTODATE, [`Output::Established`] |
//! | broadcast | a quorum of ACKs for each proposal | COMMIT to followers, INFORM to observers |
//!
//! The driver hands in packets, completions and time, and carries out the outputs in order. What
//! learners ask on behalf of clients is handed on: this machine never looks into a txn or request.
//!
//! The order of what a learner hears is the same whatever the way of its synchronization:
//! DIFF, TRUNC or SNAP; committed history as PROPOSAL and COMMIT; NEWLEADER; everything that was
//! proposed meanwhile; UPTODATE (`quorum-and-disk.md` 4.7, ZOOKEEPER-3104 and 4394).
//!
//! A txn that is a configuration comes with it ([`Leader::propose_config`]): until it is committed
//! a quorum of both is needed, and with its commit it is in force, here and at the learners.
//!
//! When the zxids of the epoch run out the first three phases may be gone through once more, over
//! the same connections ([`Leader::renew`]).

mod activation;
mod broadcast;
mod discovery;
mod link;
mod output;
mod renewal;

use std::collections::{BTreeMap, VecDeque};

use bytes::Bytes;

use self::broadcast::{Broadcast, Proposal};
use self::link::{Awaited, Link, News, Stage, Waiting};
pub use self::link::{LearnerKind, LinkId};
pub use self::output::{Abdication, CloseReason, Output};
pub use self::renewal::EpochZxids;

use super::Timing;
use super::paxos::{Acceptor, Epochs, HistoryEnd, Phase, Proposer};
use super::synchronization::{SyncPlan, SyncWay};
use crate::base::{Duration, Instant, Str};
use crate::config;
use crate::limits::QUORUM_WAITING_MAX;
use crate::model::{EnsembleConfigs, ServerId, Zxid};
use crate::wire::quorum::{LeaderPacket, LearnerPacket};

/// What a leader starts with.
#[derive(Clone, Debug)]
pub struct Start {
    /// Its number.
    pub me: ServerId,
    /// Who decides.
    pub configs: EnsembleConfigs,
    /// `reconfigEnabled`: an ensemble whose configuration has no version is given one.
    pub adopts_configs: bool,
    /// How long things may take.
    pub timing: Timing,
    /// What is on disk about epochs.
    pub epochs: Epochs,
    /// The last zxid of its log. All of its log is durable: a server does not campaign with less.
    pub last_zxid: Zxid,
    /// Bytes of proposals and commits that wait for a learner while it gets the history.
    pub news_bytes_max: usize,
    /// How many zxids of an epoch it uses.
    pub zxids: EpochZxids,
}

/// The machine. See the module's documentation.
#[derive(Debug)]
pub struct Leader {
    me: ServerId,
    configs: EnsembleConfigs,
    adopts_configs: bool,
    timing: Timing,
    acceptor: Acceptor,
    proposer: Proposer,
    /// The last zxid of the log when it was elected, or began the next epoch: the history that
    /// establishes it.
    own_last: Zxid,
    news_bytes_max: usize,
    zxids: EpochZxids,
    /// The highest epoch that a member has promised, of those whose greetings have a checksum.
    outbid: u32,
    broadcast: Broadcast,
    established: bool,
    /// It was established, and the next epoch is not.
    renewing: bool,
    links: BTreeMap<LinkId, Link>,
    /// When it began to lead, or to renew.
    started: Instant,
    ping_at: Instant,
    /// A proposal that the own log is not known to have.
    own_awaited: Awaited,
    syncs: VecDeque<PendingSync>,
    over: bool,
}

/// A sync that waits for commits and for a quorum to confirm that this server still leads.
#[derive(Debug)]
struct PendingSync {
    number: u64,
    /// Committed at least up to here.
    zxid: Zxid,
    /// Answered pings of each learner that confirm it.
    pings: BTreeMap<LinkId, u64>,
}

impl Leader {
    /// Begins to lead.
    pub fn new(start: Start, now: Instant, out: &mut Vec<Output>) -> Self {
        let Start { me, configs, adopts_configs, timing, epochs, last_zxid, .. } = start;
        let own = HistoryEnd { current_epoch: epochs.current, last_zxid };
        let mut leader = Self {
            me,
            configs,
            adopts_configs,
            timing,
            acceptor: Acceptor::new(epochs),
            proposer: Proposer::new(me, own, epochs.accepted),
            own_last: last_zxid,
            news_bytes_max: start.news_bytes_max,
            zxids: start.zxids,
            outbid: 0,
            broadcast: Broadcast::new(last_zxid),
            established: false,
            renewing: false,
            links: BTreeMap::new(),
            started: now,
            ping_at: now + timing.ping_every,
            own_awaited: Awaited::default(),
            syncs: VecDeque::new(),
            over: false,
        };
        leader.hello(me, epochs.accepted, out);
        leader
    }

    /// The epoch it leads or tries to lead, once chosen.
    #[must_use]
    pub const fn epoch(&self) -> Option<u32> {
        match self.proposer.phase() {
            Phase::Choosing => None,
            Phase::Discovering { epoch }
            | Phase::Synchronizing { epoch }
            | Phase::Established { epoch } => Some(epoch),
        }
    }

    /// Requests may be prepared.
    #[must_use]
    pub const fn is_established(&self) -> bool {
        self.established && !self.over
    }

    /// The end of the history: the last zxid that is committed. Before the leader is established,
    /// the end of its log, all of which a quorum commits then.
    #[must_use]
    pub const fn committed(&self) -> Zxid {
        self.broadcast.committed()
    }

    /// A learner's number and kind, once it has introduced itself.
    #[must_use]
    pub fn learner(&self, link: LinkId) -> Option<(ServerId, LearnerKind)> {
        let link = self.links.get(&link)?;
        (!matches!(link.stage, Stage::Fresh)).then_some((link.sid, link.kind))
    }

    /// Learners that serve clients, for admin words.
    pub fn serving(&self) -> impl Iterator<Item = (ServerId, LearnerKind)> + '_ {
        let serving = self.links.values().filter(|link| link.is_serving());
        serving.map(|link| (link.sid, link.kind))
    }

    /// Learners that are connected, however far they are.
    #[must_use]
    pub fn learner_count(&self) -> usize {
        self.links.len()
    }

    /// Syncs that are not confirmed.
    #[must_use]
    pub fn pending_sync_count(&self) -> usize {
        self.syncs.len()
    }

    /// How many txns each follower that serves clients is not known to have durably.
    pub fn lags(&self) -> impl Iterator<Item = (ServerId, u64)> + '_ {
        let followers = self.links.values().filter(|link| link.kind == LearnerKind::Follower);
        followers
            .filter(|link| link.is_serving())
            .map(|link| (link.sid, self.broadcast.lag(link.sid, link.history_to)))
    }

    /// A learner has connected. Of those that have not said who they are so many are kept, the
    /// newest: silent ones must not take the place of learners until they are given up.
    pub fn opened(&mut self, link: LinkId, now: Instant, out: &mut Vec<Output>) {
        self.links.insert(link, Link::new(now));
        let mut silent = self.links.iter().filter(|(_, link)| matches!(link.stage, Stage::Fresh));
        if let Some((oldest, _)) = silent.next().filter(|_| QUORUM_WAITING_MAX <= silent.count()) {
            self.drop_link(*oldest, CloseReason::Crowded, out);
        }
    }

    /// A learner's connection is gone.
    pub fn closed(&mut self, link: LinkId) {
        if let Some(gone) = self.links.remove(&link) {
            self.forget(&gone);
        }
    }

    /// A learner's connection has taken some of what was sent: it is alive, however long the
    /// history that it is getting (ZOOKEEPER-1697).
    pub fn sent(&mut self, link: LinkId, now: Instant) {
        if let Some(link) = self.links.get_mut(&link)
            && matches!(link.stage, Stage::Synchronizing { .. })
        {
            link.heard = now;
        }
    }

    /// This server was stalled for so long.
    pub fn credit(&mut self, stalled: Duration) {
        self.own_awaited.credit(stalled);
        self.links.values_mut().for_each(|link| link.credit(stalled));
    }

    /// A packet came.
    pub fn received(
        &mut self,
        now: Instant,
        id: LinkId,
        packet: LearnerPacket,
        out: &mut Vec<Output>,
    ) {
        if self.over {
            return;
        }
        let Some(link) = self.links.get_mut(&id) else { return };
        link.heard = now;
        match packet {
            LearnerPacket::FollowerInfo { accepted_epoch, info } => {
                self.on_info(id, LearnerKind::Follower, accepted_epoch, info, out);
            }
            LearnerPacket::ObserverInfo { accepted_epoch, info } => {
                self.on_info(id, LearnerKind::Observer, accepted_epoch, info, out);
            }
            LearnerPacket::AckEpoch { last_zxid, current_epoch, cannot_cut } => {
                link.cannot_cut = cannot_cut;
                self.on_ack_epoch(id, last_zxid, current_epoch, out);
            }
            LearnerPacket::Ack { zxid } => self.on_ack(now, id, zxid, out),
            LearnerPacket::Ping { touches, .. } => {
                // None is a report, too: what the learner did not hear of may expire. It tells of
                // the time when it was asked at the least, however long the answer took.
                let asked = link.unanswered.pop_front().unwrap_or(now);
                out.push(Output::Touched { link: id, asked, touches });
                self.commit(out);
            }
            LearnerPacket::Request(request) if self.established || link.is_renewing => {
                out.push(Output::Request(id, request));
            }
            LearnerPacket::Revalidate(touch) if self.established || link.is_renewing => {
                out.push(Output::Revalidate(id, touch));
            }
            LearnerPacket::Request(_) => self.drop_link(id, CloseReason::Illegal("REQUEST"), out),
            LearnerPacket::Revalidate(_) => {
                self.drop_link(id, CloseReason::Illegal("REVALIDATE"), out);
            }
        }
    }

    /// The epochs record asked for with [`Output::Store`] is durable.
    pub fn stored(&mut self, out: &mut Vec<Output>) {
        let said = self.acceptor.on_stored();
        self.own_answer(said, out);
    }

    /// This server's log is durable up to `zxid`. Called in each turn: others may have established
    /// the epoch before it is accepted on disk here, and until then the own log does not count. It
    /// would be that of an earlier epoch after a power cut, behind any that has accepted this one.
    pub fn flushed(&mut self, now: Instant, zxid: Zxid, out: &mut Vec<Output>) {
        if self.over || !self.established {
            return;
        }
        self.own_awaited.has(zxid, self.broadcast.proposed(), now);
        if self.has_accepted() {
            self.broadcast.durable(self.me, zxid);
            self.commit(out);
        }
    }

    /// Whether the own acceptance of the epoch is on disk.
    fn has_accepted(&self) -> bool {
        Some(self.acceptor.stored().current) == self.epoch()
    }

    /// Sends a txn that was appended to the log to the learners. It need not be durable here.
    ///
    /// # Panics
    /// Before the leader is established, or with a zxid that does not follow.
    pub fn propose(&mut self, now: Instant, zxid: Zxid, txn: &Bytes, out: &mut Vec<Output>) {
        assert!(self.established, "only an established leader proposes");
        assert!(Some(zxid.epoch()) == self.epoch(), "proposals belong to the leader's epoch");
        self.broadcast.propose(zxid, txn.clone());
        self.own_awaited.proposed(zxid, now);
        for link in self.links.values_mut().filter(|link| link.is_live()) {
            // Observers acknowledge nothing.
            if link.kind == LearnerKind::Follower {
                link.awaited.proposed(zxid, now);
            }
        }
        self.spread(&News::Proposal(Proposal { zxid, txn: txn.clone() }), out);
        if zxid.counter() == self.zxids.last {
            self.abdicate(Abdication::Rollover, out);
        }
    }

    /// The driver has chosen how to synchronize a learner.
    pub fn synchronize(&mut self, id: LinkId, plan: SyncPlan, out: &mut Vec<Output>) {
        let Some(link) = self.links.get_mut(&id) else { return };
        if !matches!(link.stage, Stage::Promised) {
            return;
        }
        let upto = self.broadcast.committed();
        assert!(plan.after <= upto, "what a learner is told to have is committed");
        link.stage = Stage::Synchronizing { upto, waiting: outstanding(link, &self.broadcast) };
        match plan.way {
            SyncWay::Trunc if link.cannot_cut => out.push(Output::SendSnapshot { link: id, upto }),
            SyncWay::Diff | SyncWay::Trunc => {
                out.push(Output::Send(id, plan.opening(upto)));
                self.ask_history(id, plan.after, out);
            }
            SyncWay::Snap => out.push(Output::SendSnapshot { link: id, upto }),
        }
    }

    /// Part of the history that was asked for.
    pub fn history(&mut self, id: LinkId, txns: Vec<(Zxid, Bytes)>, out: &mut Vec<Output>) {
        let Some(link) = self.links.get(&id) else { return };
        let Stage::Synchronizing { upto, .. } = link.stage else { return };
        let Some((last, _)) = txns.last() else { return };
        let last = *last;
        for (zxid, txn) in txns {
            out.push(Output::Send(id, LeaderPacket::Proposal { zxid, txn }));
            // One COMMIT stands for many.
            if zxid == last || !link.is_ringkeeper {
                out.push(Output::Send(id, LeaderPacket::Commit { zxid }));
            }
        }
        if last == upto {
            self.ask_history(id, upto, out);
        }
    }

    /// The zxid under which a learner takes the snapshot of the tree at `zxid`. Apache's keep their
    /// logs, and at their next start apply again what is there behind a snapshot's zxid. If that
    /// is of earlier epochs, which no quorum had, the beginning of the last `established` epoch is
    /// above it; what a leader of Apache's calls its last zxid.
    #[must_use]
    pub fn snapshot_zxid(&self, id: LinkId, zxid: Zxid, established: u32) -> Zxid {
        let keeps_more = |link: &Link| !link.is_ringkeeper && zxid < link.log_end;
        match self.links.get(&id).is_some_and(keeps_more) {
            true => zxid.max(Zxid::new(established, 0)),
            false => zxid,
        }
    }

    /// The snapshot's body was handed to the connection; it contains everything up to `zxid`. What
    /// of that was to follow is not sent: Apache's learners would log and apply it once more.
    ///
    /// # Panics
    /// If it lacks some of the history that it was asked for.
    pub fn snapshot_sent(&mut self, id: LinkId, zxid: Zxid, out: &mut Vec<Output>) {
        let Some(link) = self.links.get_mut(&id) else { return };
        let Stage::Synchronizing { upto, waiting } = &mut link.stage else { return };
        assert!(*upto <= zxid, "a snapshot has all of the history");
        *upto = zxid;
        waiting.news.retain(|news| zxid < news.proposal().zxid);
        self.ask_history(id, zxid, out);
    }

    /// What kind of learner is at the other end; `None` if the connection is gone.
    #[must_use]
    pub fn kind_of(&self, id: LinkId) -> Option<LearnerKind> {
        self.links.get(&id).map(|link| link.kind)
    }

    /// A sync was asked for on this server, under a number that the caller chooses.
    pub fn sync(&mut self, now: Instant, number: u64, out: &mut Vec<Output>) {
        let zxid = self.broadcast.proposed();
        let mut pings = BTreeMap::new();
        for (id, link) in self.links.iter().filter(|(_, link)| link.is_serving()) {
            pings.insert(*id, link.pings_sent + 1);
        }
        self.syncs.push_back(PendingSync { number, zxid, pings });
        self.ping(now, out);
        self.confirm_syncs(out);
    }

    /// The time that `next_timer` gave has come; an early call is harmless.
    pub fn timer(&mut self, now: Instant, out: &mut Vec<Output>) {
        if self.over {
            return;
        }
        self.close_silent(now, out);
        let established = self.established;
        let patience = match self.proposer.phase() {
            // Its clients' writes wait, as if it were silent.
            _ if self.renewing => self.timing.silence_max,
            Phase::Choosing => self.timing.joined_within.min(self.timing.establish_within),
            _ => self.timing.establish_within,
        };
        if !established && patience < now.since(self.started) {
            let missing = self.proposer.describe(&self.configs);
            self.abdicate(Abdication::NotEstablished(missing), out);
            return;
        }
        if established && !self.has_quorum() {
            let left = self.configs.describe(|sid| self.hears(sid));
            self.abdicate(Abdication::QuorumLost(left), out);
            return;
        }
        if self.own_awaited.exceeds(self.timing.sync_within, now) {
            self.abdicate(Abdication::OwnLogStalls, out);
            return;
        }
        if self.ping_at <= now {
            self.ping(now, out);
        }
    }

    /// When `timer` is due.
    #[must_use]
    pub fn next_timer(&self) -> Instant {
        self.ping_at
    }

    fn choose(&mut self, id: LinkId, out: &mut Vec<Output>) {
        let Some(link) = self.links.get(&id) else { return };
        if !matches!(link.stage, Stage::Promised) {
            return;
        }
        let last = link.log_end;
        if link.is_renewing {
            return self.go_on_with(id, last, out);
        }
        out.push(Output::Choose { link: id, last });
    }

    fn ask_history(&mut self, id: LinkId, after: Zxid, out: &mut Vec<Output>) {
        let Some(link) = self.links.get_mut(&id) else { return };
        let Stage::Synchronizing { upto, waiting } = &link.stage else { return };
        let mut upto = *upto;
        if after == upto && waiting.is_history {
            upto = upto.max(self.broadcast.committed());
            link.stage = Stage::Synchronizing { upto, waiting: outstanding(link, &self.broadcast) };
        }
        if after < upto {
            out.push(Output::ReadHistory { link: id, after, upto });
        } else {
            self.tell_new_leader(id, out);
        }
    }

    /// The history was sent: NEWLEADER, and what happened meanwhile.
    fn tell_new_leader(&mut self, id: LinkId, out: &mut Vec<Output>) {
        let Some(epoch) = self.epoch() else { return };
        let Some(link) = self.links.get_mut(&id) else { return };
        let Stage::Synchronizing { waiting, upto } =
            std::mem::replace(&mut link.stage, Stage::Told)
        else {
            return;
        };
        link.history_to = upto;
        let epoch = i32::try_from(epoch).expect("epochs are bounded by the proposer");
        // What a quorum accepts with the history comes into force with it. A later configuration is
        // proposed behind it: told here, it would come into force before it is committed.
        let config = match self.established {
            true => &self.configs.committed,
            false => &self.configs.last_seen,
        };
        let config = Some(Str::from(config::ensemble::text(config).as_str()));
        out.push(Output::Send(id, LeaderPacket::NewLeader { epoch, config }));
        for news in waiting.news {
            tell(id, link, &news, out);
        }
    }

    fn on_ack(&mut self, now: Instant, id: LinkId, zxid: Zxid, out: &mut Vec<Output>) {
        let epoch = self.epoch();
        let Some(link) = self.links.get_mut(&id) else { return };
        let sid = link.sid;
        let says_epoch = zxid.counter() == 0;
        match link.stage {
            Stage::Told if says_epoch && Some(zxid.epoch()) == epoch => {
                link.stage = Stage::Following;
                // Its log is timed from here on: Apache's acknowledges what was proposed meanwhile
                // only when it serves.
                let proposed = self.broadcast.proposed();
                link.awaited = Awaited::default();
                if self.broadcast.committed() < proposed && link.kind == LearnerKind::Follower {
                    link.awaited.proposed(proposed, now);
                }
                self.accepted(sid, zxid.epoch(), out);
                if self.established {
                    self.serve(id, out);
                }
            }
            // ZOOKEEPER-4685: the acknowledgement of a txn may overtake that of NEWLEADER.
            Stage::Told => {}
            Stage::Following | Stage::Serving if says_epoch => {}
            Stage::Following | Stage::Serving => {
                if self.broadcast.proposed() < zxid {
                    return self.drop_link(id, CloseReason::Illegal("an ACK of the future"), out);
                }
                if link.kind == LearnerKind::Follower {
                    self.broadcast.durable(sid, zxid);
                    link.awaited.has(zxid, self.broadcast.proposed(), now);
                    self.commit(out);
                }
            }
            // Of the epoch before.
            _ if link.is_renewing => {}
            _ => self.drop_link(id, CloseReason::Illegal("ACK"), out),
        }
    }

    /// Commits what can be, and answers syncs. An Apache learner takes the writes and syncs of its
    /// clients for answered in their order, and one that is not for another server's: so nothing
    /// that was proposed behind a sync is committed before the sync is answered.
    fn commit(&mut self, out: &mut Vec<Output>) {
        loop {
            self.confirm_syncs(out);
            let before = self.broadcast.committed();
            let upto = self.syncs.front().map(|sync| sync.zxid);
            let may_be = |zxid: Zxid| upto.is_none_or(|upto| zxid <= upto);
            while !self.over
                && self.broadcast.outstanding().next().is_some_and(|next| may_be(next.zxid))
                && let Some(proposal) = self.broadcast.commit_next(&self.configs)
            {
                let pending = self.configs.pending();
                match pending.is_some_and(|config| config.version == proposal.zxid.0) {
                    true => self.activate(proposal, out),
                    false => self.spread(&News::Commit(proposal), out),
                }
            }
            let zxid = self.broadcast.committed();
            if before == zxid {
                return;
            }
            for (id, _) in self.links.iter().filter(|(_, link)| link.hears_last_commit()) {
                out.push(Output::Send(*id, LeaderPacket::Commit { zxid }));
            }
            out.push(Output::Committed(zxid));
        }
    }

    /// Tells every learner that hears live news, and keeps it for those that get the history.
    fn spread(&mut self, news: &News, out: &mut Vec<Output>) {
        for (id, link) in &mut self.links {
            if link.is_live() {
                if !(link.hears_last_commit() && matches!(news, News::Commit(_))) {
                    tell(*id, link, news, out);
                }
            } else if let Stage::Synchronizing { waiting, .. } = &mut link.stage
                && (link.kind == LearnerKind::Follower || !matches!(news, News::Proposal(_)))
            {
                waiting.push(news.clone(), self.news_bytes_max);
            }
        }
    }

    fn ping(&mut self, now: Instant, out: &mut Vec<Output>) {
        self.ping_at = now + self.timing.ping_every;
        let zxid = self.broadcast.proposed();
        for (id, link) in &mut self.links {
            if link.is_live() {
                if link.is_serving() {
                    // It has waited for UPTODATE in silence.
                    link.heard = if link.answers_pings() { link.heard } else { now };
                    link.asked(now);
                }
                out.push(Output::Send(*id, LeaderPacket::Ping { zxid }));
            }
        }
    }

    fn confirm_syncs(&mut self, out: &mut Vec<Output>) {
        while self.syncs.front().is_some_and(|sync| self.is_confirmed(sync)) {
            out.extend(self.syncs.pop_front().map(|sync| Output::Synced(sync.number)));
        }
    }

    /// What was proposed before the sync is committed, and a quorum has answered a ping that was
    /// sent after it was asked for.
    fn is_confirmed(&self, sync: &PendingSync) -> bool {
        let confirms = |sid: ServerId| {
            sid == self.me
                || self.links.iter().any(|(id, link)| {
                    link.sid == sid
                        && link.kind == LearnerKind::Follower
                        && sync.pings.get(id).is_some_and(|at| *at <= link.pings_answered())
                })
        };
        sync.zxid <= self.broadcast.committed() && self.configs.is_quorum(confirms)
    }

    fn close_silent(&mut self, now: Instant, out: &mut Vec<Output>) {
        let mut closing = Vec::new();
        for (id, link) in &self.links {
            let patience = match link.answers_pings() {
                true if link.is_ringkeeper => self.timing.silence_max,
                true => self.timing.sync_within,
                false => self.timing.establish_within,
            };
            let is_slow = link.awaited.exceeds(self.timing.sync_within, now);
            if patience < now.since(link.heard) {
                closing.push((*id, CloseReason::Silent));
            } else if link.has_accepted() && is_slow {
                closing.push((*id, CloseReason::Slow));
            }
        }
        for (id, reason) in closing {
            self.drop_link(id, reason, out);
        }
    }

    fn hears(&self, sid: ServerId) -> bool {
        sid == self.me
            || self.links.values().any(|link| {
                link.sid == sid && link.has_accepted() && link.kind == LearnerKind::Follower
            })
    }

    /// Followers that are heard of, and this server, are a quorum.
    fn has_quorum(&self) -> bool {
        self.configs.is_quorum(|sid| self.hears(sid))
    }

    fn drop_link(&mut self, id: LinkId, reason: CloseReason, out: &mut Vec<Output>) {
        if let Some(gone) = self.links.remove(&id) {
            self.forget(&gone);
            out.push(Output::Close(id, reason));
        }
    }

    /// A learner is gone. Its log has what it has, but it may come back truncated or wiped.
    fn forget(&mut self, gone: &Link) {
        let has_other = self.links.values().any(|link| link.sid == gone.sid);
        if gone.has_accepted() && !has_other && gone.sid != self.me {
            self.broadcast.forget(gone.sid);
        }
    }

    fn abdicate(&mut self, why: Abdication, out: &mut Vec<Output>) {
        if !self.over {
            self.over = true;
            out.push(Output::Abdicate(why));
        }
    }
}

/// What was proposed and is not committed: it follows the history, if it concerns the learner.
fn outstanding(link: &Link, broadcast: &Broadcast) -> Waiting {
    let mut waiting = Waiting::default();
    if link.kind == LearnerKind::Follower {
        for proposal in broadcast.outstanding() {
            waiting.push(News::Proposal(proposal.clone()), usize::MAX);
        }
    }
    waiting
}

/// Tells a live learner what concerns it.
fn tell(id: LinkId, link: &Link, news: &News, out: &mut Vec<Output>) {
    let packet = match (link.kind, news) {
        (LearnerKind::Follower, News::Proposal(Proposal { zxid, txn })) => {
            LeaderPacket::Proposal { zxid: *zxid, txn: txn.clone() }
        }
        (LearnerKind::Follower, News::Commit(Proposal { zxid, .. })) => {
            LeaderPacket::Commit { zxid: *zxid }
        }
        (LearnerKind::Follower, News::Activate(Proposal { zxid, .. }, leader)) => {
            LeaderPacket::CommitAndActivate { zxid: *zxid, designated_leader: *leader }
        }
        (LearnerKind::Observer, News::Activate(Proposal { zxid, txn }, leader)) => {
            let (zxid, designated_leader, txn) = (*zxid, *leader, txn.clone());
            LeaderPacket::InformAndActivate { zxid, designated_leader, txn }
        }
        (LearnerKind::Observer, News::Commit(Proposal { zxid, txn })) => {
            LeaderPacket::Inform { zxid: *zxid, txn: txn.clone() }
        }
        (LearnerKind::Observer, News::Proposal(_)) => return,
    };
    out.push(Output::Send(id, packet));
}
