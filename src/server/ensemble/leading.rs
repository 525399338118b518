//! Leading: carries the outputs of [`Leader`] to the pipeline and to the learners' connections, and
//! what those ask back to it.

use std::collections::{BTreeMap, VecDeque};

use super::history::Histories;
use super::reconfig::Leaving;
use super::snapshots::Snapshots;
use super::{Context, Effect, Ensemble, Role};
use crate::base::Instant;
use crate::limits;
use crate::model::{ServerId, SessionId, Zxid};
use crate::server::contract::PeerLink;
use crate::server::pipeline::{Duty, Proposal};
use crate::server::stats::ProposalSizes;
use crate::server::stream::{Notice, Origin};
use crate::wire::opcode;
use crate::wire::quorum::{ForwardedRequest, LeaderPacket, LearnerPacket, Touch};
use crate::zab::leader::{Leader, LearnerKind, LinkId, Output, Start};

/// The role of a leader.
#[derive(Debug)]
pub(super) struct Leading {
    pub(super) leader: Leader,
    /// The epoch, once a quorum has the history.
    established: Option<u32>,
    /// The whole history is applied, and requests are prepared.
    leads: bool,
    /// What learners asked before that, while the end of a session is prepared, or while as much is
    /// in flight as may be; in order. Their clients have bounds of their own.
    waiting: VecDeque<(LinkId, Asked)>,
    /// Some of it waits for nothing but its turn.
    can_hear: bool,
    syncs: BTreeMap<u64, Sync>,
    next_sync: u64,
    pub(super) snapshots: Snapshots,
    /// Parts of the log on their way to learners.
    pub(super) histories: Histories,
    /// Syncs of this server's clients that may be answered once this is applied.
    synced: VecDeque<(Zxid, Origin)>,
    pub(super) sizes: ProposalSizes,
    /// What follows behind a configuration that is being written down, in order.
    held: VecDeque<Output>,
    holds: bool,
    /// Since when a client's reconfiguration waits for the disk; nothing else is prepared.
    writing_since: Option<Instant>,
    /// Another server leads from here on.
    leaving: Option<Leaving>,
}

/// What a learner asks on behalf of a client.
#[derive(Debug)]
enum Asked {
    Request(ForwardedRequest),
    Revalidate(Touch),
}

/// Whose sync it is.
#[derive(Clone, Copy, Debug)]
enum Sync {
    Learner(LinkId),
    /// The answer to an observer's question whether a session lives.
    Revalidation(LinkId, SessionId),
    Client(Origin),
}

impl Leading {
    pub(super) fn next_timer(&self) -> Instant {
        let timer = self.leader.next_timer();
        self.snapshots.next_due().map_or(timer, |due| due.min(timer))
    }

    /// The epoch, once a quorum has the history. It still does when the leader has given up.
    pub(super) const fn established(&self) -> Option<u32> {
        self.established
    }

    /// Who leads next.
    pub(super) const fn leaving(&self) -> Option<Leaving> {
        self.leaving
    }

    /// Whether this server follows, with the whole history.
    pub(super) fn has_synced(&self, sid: ServerId) -> bool {
        self.leader.has_synced(sid)
    }
}

impl Ensemble {
    /// Begins to lead.
    pub(super) fn lead(&mut self, cx: &mut Context<'_>) {
        let start = Start {
            me: self.options.me,
            configs: self.configs.clone(),
            adopts_configs: self.options.adopts_configs,
            timing: self.timing,
            epochs: self.stored_epochs(),
            last_zxid: cx.pipeline.last_logged(),
            news_bytes_max: self.options.history.news_bytes_max,
            zxids: self.options.zxids,
        };
        let mut out = Vec::new();
        let leader = Leader::new(start, cx.clock.now, &mut out);
        self.role = Role::Leading(Box::new(Leading {
            leader,
            established: None,
            leads: false,
            waiting: VecDeque::new(),
            can_hear: false,
            syncs: BTreeMap::new(),
            next_sync: 0,
            snapshots: Snapshots::default(),
            histories: Histories::default(),
            synced: VecDeque::new(),
            sizes: ProposalSizes::default(),
            held: VecDeque::new(),
            holds: false,
            writing_since: None,
            leaving: None,
        }));
        self.leader_outputs(cx, out);
        for link in std::mem::take(&mut self.waiting).into_keys() {
            self.learner_opened(cx, link);
            self.read_learner(cx, link);
        }
    }

    pub(super) fn leading(&mut self) -> Option<&mut Leading> {
        match &mut self.role {
            Role::Leading(leading) => Some(leading),
            _ => None,
        }
    }

    pub(super) fn learner_opened(&mut self, cx: &mut Context<'_>, link: PeerLink) {
        let mut out = Vec::new();
        if let Some(leading) = self.leading() {
            leading.leader.opened(LinkId(link.0), cx.clock.now, &mut out);
        }
        self.leader_outputs(cx, out);
    }

    pub(super) fn learner_closed(&mut self, cx: &mut Context<'_>, link: PeerLink) {
        self.forget_learner(cx, LinkId(link.0));
        if let Some(leading) = self.leading() {
            leading.leader.closed(LinkId(link.0));
        }
    }

    /// A learner's connection is gone. What it asked and was not heard is gone, too: heard later,
    /// it would make the learner the owner of sessions again.
    fn forget_learner(&mut self, cx: &mut Context<'_>, gone: LinkId) {
        cx.pipeline.link_gone(gone);
        self.end_snapshots(cx, Some(gone));
        self.forget_history(gone);
        if let Some(leading) = self.leading() {
            leading.waiting.retain(|(link, _)| *link != gone);
        }
    }

    /// A learner's socket has taken some bytes.
    pub(super) fn learner_took(&mut self, cx: &Context<'_>, link: PeerLink) {
        if let Some(leading) = self.leading() {
            leading.leader.sent(LinkId(link.0), cx.clock.now);
        }
    }

    /// Takes the packets that a learner has sent.
    pub(super) fn read_learner(&mut self, cx: &mut Context<'_>, link: PeerLink) {
        let id = LinkId(link.0);
        let mut out = Vec::new();
        let failure = loop {
            let packet = match self.peers.next_packet(link) {
                Ok(Some(packet)) => packet,
                Ok(None) => break None,
                Err(error) => break Some(error),
            };
            match LearnerPacket::decode(&packet) {
                // A type that learners do not send is passed over, as Apache does.
                Ok(None) => {}
                Ok(Some(packet)) => {
                    if packet.has_checksums() {
                        self.peers.check(link);
                    }
                    let Some(leading) = self.leading() else { break None };
                    leading.leader.received(cx.clock.now, id, packet, &mut out);
                }
                Err(error) => break Some(error),
            }
            // Order: what one packet makes the leader do is done before the next one is heard.
            self.leader_outputs(cx, std::mem::take(&mut out));
        };
        if let Some(error) = failure {
            tracing::warn!(%error, "a learner's packet does not decode: its connection is closed");
            self.learner_closed(cx, link);
            self.peers.close(link);
        }
    }

    pub(super) fn leader_stored(&mut self, cx: &mut Context<'_>) {
        let mut out = Vec::new();
        if let Some(leading) = self.leading() {
            leading.leader.stored(&mut out);
        }
        self.leader_outputs(cx, out);
    }

    pub(super) fn leader_timer(&mut self, cx: &mut Context<'_>) {
        let (now, patience) = (cx.clock.now, self.timing.sync_within);
        let since = self.leading().and_then(|leading| leading.writing_since);
        if since.is_some_and(|since| patience < now.since(since)) {
            tracing::warn!(
                "a configuration is not written down in time: this server leads no more"
            );
            return self.end_role(cx);
        }
        let is_deserted = matches!(&self.role, Role::Leading(leading)
            if self.election.is_deserted(|sid| leading.leader.has_joined(sid)));
        let mut out = Vec::new();
        if let Some(leading) = self.leading() {
            if is_deserted {
                leading.leader.deserted(&mut out);
            }
            leading.leader.timer(cx.clock.now, &mut out);
        }
        self.leader_outputs(cx, out);
    }

    /// Begins the next epoch without an election, when the zxids of this one run out or a member
    /// has promised a later one. Nothing more is prepared until everything prepared is applied;
    /// clients wait, and are not let go.
    fn renew(&mut self, cx: &mut Context<'_>) {
        let is_stopping = self.stopping;
        let Some(leading) = self.leading().filter(|leading| leading.leads) else { return };
        let may = leading.leaving.is_none() && !is_stopping;
        let is_due = may && leading.leader.wants_renewal();
        let mut out = Vec::new();
        if cx.pipeline.await_epoch(is_due) && leading.leader.renew(cx.clock.now, &mut out) {
            tracing::info!("the next epoch begins in place");
            leading.leads = false;
            leading.established = None;
            self.leader_outputs(cx, out);
        }
    }

    /// A sync of a client of this server, which leads.
    pub(crate) fn sync(&mut self, cx: &mut Context<'_>, origin: Origin) {
        self.begin_sync(cx, Sync::Client(origin));
    }

    fn begin_sync(&mut self, cx: &mut Context<'_>, whose: Sync) {
        let mut out = Vec::new();
        if let Some(leading) = self.leading() {
            let number = leading.next_sync;
            leading.next_sync += 1;
            leading.syncs.insert(number, whose);
            leading.leader.sync(cx.clock.now, number, &mut out);
        }
        self.leader_outputs(cx, out);
    }

    /// Proposes what was prepared, tells the leader what is durable, and begins to prepare once the
    /// history is applied.
    pub(super) fn leader_goes_on(&mut self, cx: &mut Context<'_>) {
        self.release_leader(cx);
        self.reconfigure(cx);
        self.propose(cx);
        let flushed = cx.pipeline.flushed();
        let mut out = Vec::new();
        let Some(leading) = self.leading() else { return };
        leading.leader.flushed(cx.clock.now, flushed, &mut out);
        self.leader_outputs(cx, out);
        self.lead_on(cx);
        self.hear_waiting(cx);
        self.answer_syncs(cx);
        // What is found there may be that a snapshot is wanted.
        self.send_histories(cx);
        self.send_snapshots(cx);
        self.renew(cx);
        if self.stopping && cx.pipeline.is_drained() {
            tracing::info!("the lead is given up for a planned stop");
            return self.end_role(cx);
        }
        let applied = cx.pipeline.tree().last_zxid();
        let Some(leading) = self.leading() else { return };
        if leading.leaving.is_some_and(|leaving| leaving.after <= applied)
            && !cx.pipeline.is_applying()
        {
            self.end_role(cx);
        }
    }

    /// What waited for a configuration to be on disk goes on.
    fn release_leader(&mut self, cx: &mut Context<'_>) {
        let is_proposing = self.files.is_proposing();
        let Some(leading) = self.leading() else { return };
        if leading.holds && !is_proposing {
            leading.holds = false;
            let held = std::mem::take(&mut leading.held);
            self.leader_outputs(cx, held.into());
        }
    }

    /// Carries on a client's reconfiguration: judged, written down, then a txn like others.
    fn reconfigure(&mut self, cx: &mut Context<'_>) {
        let Some(leading) = self.leading() else { return };
        if !leading.leads || leading.leaving.is_some() {
            return;
        }
        if let Some((request, zxid)) = cx.pipeline.reconfig_asked() {
            let judged = self.judge(&request, zxid);
            if let Some(config) = cx.pipeline.judge_reconfig(judged) {
                self.see_config(config, cx.ops);
            }
        }
        let is_proposing = self.files.is_proposing();
        if !is_proposing {
            cx.pipeline.log_reconfig();
        }
        if let Some(leading) = self.leading() {
            let since = leading.writing_since.unwrap_or(cx.clock.now);
            leading.writing_since = is_proposing.then_some(since);
        }
    }

    fn lead_on(&mut self, cx: &mut Context<'_>) {
        let applied = cx.pipeline.tree().last_zxid();
        let Some(leading) = self.leading() else { return };
        let Some(epoch) = leading.established.filter(|_| !leading.leads) else { return };
        if applied < cx.pipeline.last_logged() {
            return;
        }
        leading.leads = true;
        cx.pipeline.lead(epoch, cx.clock.now);
        tracing::info!(epoch, zxid = %applied, "leading");
        let was_fuzzy = cx.pipeline.pass_fuzzy();
        let had_another = self.show_config(cx);
        self.serve(cx.clock.now, epoch, was_fuzzy || had_another);
    }

    /// Hears what learners asked and had to wait, some of it in each turn.
    fn hear_waiting(&mut self, cx: &mut Context<'_>) {
        for _ in 0..limits::REQUESTS_PER_TURN {
            let Some(leading) = self.leading().filter(|it| it.leads) else { return };
            leading.can_hear = false;
            if cx.pipeline.is_busy() {
                return;
            }
            let Some((link, asked)) = leading.waiting.pop_front() else { return };
            leading.can_hear = !leading.waiting.is_empty();
            self.asked(cx, link, asked);
        }
    }

    /// Whether something waits for nothing but its turn.
    pub(super) fn has_waiting(&self) -> bool {
        matches!(&self.role, Role::Leading(leading) if leading.can_hear)
    }

    fn answer_syncs(&mut self, cx: &Context<'_>) {
        let applied = cx.pipeline.tree().last_zxid();
        let Role::Leading(leading) = &mut self.role else { return };
        while leading.synced.front().is_some_and(|(zxid, _)| *zxid <= applied)
            && let Some((_, origin)) = leading.synced.pop_front()
        {
            let notice = Notice::Synced(origin);
            self.effects.push_back(Effect::Notice(origin.address.shard, notice));
        }
    }

    /// Does what the leader wants, in order, and what follows from that.
    pub(super) fn leader_outputs(&mut self, cx: &mut Context<'_>, outputs: Vec<Output>) {
        let mut outputs = VecDeque::from(outputs);
        while let Some(output) = outputs.pop_front() {
            if let Some(leading) = self.leading().filter(|leading| leading.holds) {
                leading.held.push_back(output);
                continue;
            }
            let mut more = Vec::new();
            self.leader_output(cx, output, &mut more);
            for output in more.into_iter().rev() {
                outputs.push_front(output);
            }
        }
    }

    fn leader_output(&mut self, cx: &mut Context<'_>, output: Output, more: &mut Vec<Output>) {
        match output {
            Output::Send(link, packet) => self.tell_learner(cx, link, &packet),
            Output::Close(link, reason) => {
                tracing::warn!(link = link.0, %reason, "a learner's connection is closed");
                self.forget_learner(cx, link);
                self.peers.close(PeerLink(link.0));
            }
            Output::Store(epochs) => self.store(cx, epochs),
            Output::Config(config) => {
                self.see_config(config, cx.ops);
                if let Some(leading) = self.leading() {
                    leading.holds = true;
                }
            }
            Output::Activated { zxid, designated } => {
                let config = self.configs.last_seen.clone();
                self.activate(config, cx.ops);
                if designated != self.options.me {
                    tracing::info!(leader = %designated, "the reconfiguration makes another \
                        server lead");
                    if let Some(leading) = self.leading() {
                        leading.leaving = Some(Leaving { after: zxid, leader: Some(designated) });
                    }
                }
            }
            Output::Choose { link, last } => self.choose_way(cx, link, last, more),
            Output::ReadHistory { link, after, upto } => self.begin_history(link, after, upto),
            Output::SendSnapshot { link, upto } => {
                self.forget_history(link);
                if let Some(leading) = self.leading() {
                    leading.snapshots.want(link, upto);
                }
            }
            Output::Established { epoch } => {
                self.election.on_established(epoch);
                cx.pipeline.commit_to(cx.pipeline.last_logged());
                if self.configs.pending().is_some() {
                    let config = self.configs.last_seen.clone();
                    self.activate(config, cx.ops);
                }
                if let Some(leading) = self.leading() {
                    leading.established = Some(epoch);
                }
            }
            Output::Committed(zxid) => cx.pipeline.commit_to(zxid),
            Output::Request(link, request) => {
                self.ask_leader(cx, link, Asked::Request(request));
            }
            Output::Revalidate(link, touch) => {
                self.ask_leader(cx, link, Asked::Revalidate(touch));
            }
            Output::Touched { link, asked, touches } => {
                cx.pipeline.touched(link, asked, &touches, cx.clock.now);
            }
            Output::Synced(number) => self.on_synced(cx, number),
            Output::Abdicate(why) => {
                tracing::warn!(%why, "this server leads no more");
                self.end_role(cx);
            }
        }
    }

    pub(super) fn tell_learner(
        &mut self,
        cx: &mut Context<'_>,
        link: LinkId,
        packet: &LeaderPacket,
    ) {
        if !self.peers.packet(PeerLink(link.0), |buf| packet.encode(buf)) {
            tracing::warn!(link = link.0, "a learner's connection takes nothing and is closed");
            self.drop_learner(cx, link);
        }
    }

    pub(super) fn drop_learner(&mut self, cx: &mut Context<'_>, link: LinkId) {
        self.learner_closed(cx, PeerLink(link.0));
        self.peers.close(PeerLink(link.0));
    }

    fn ask_leader(&mut self, cx: &mut Context<'_>, link: LinkId, asked: Asked) {
        let is_stopping = self.stopping;
        let Some(leading) = self.leading() else { return };
        match asked {
            // Its client hears of the end of the connection, and asks the next leader.
            _ if is_stopping => {}
            asked if !leading.leads || cx.pipeline.is_busy() || !leading.waiting.is_empty() => {
                leading.waiting.push_back((link, asked));
            }
            asked => self.asked(cx, link, asked),
        }
    }

    fn asked(&mut self, cx: &mut Context<'_>, link: LinkId, asked: Asked) {
        if cx.pipeline.duty() != Duty::Leading {
            return;
        }
        match asked {
            Asked::Request(request) if request.opcode == opcode::SYNC => {
                self.begin_sync(cx, Sync::Learner(link));
            }
            Asked::Request(request) => {
                cx.pipeline.submit_forwarded(cx.clock, link, request);
                // A sync behind it waits for it.
                self.propose(cx);
            }
            Asked::Revalidate(touch) => {
                let (is_valid, drop) = cx.pipeline.revalidate(link, touch, cx.clock.now);
                self.effects.extend(drop.map(|(shard, notice)| Effect::Notice(shard, notice)));
                let session = touch.session;
                // A follower has heard of all that the session asked for elsewhere. An observer
                // hears of it behind the commit, and would take it for answers to what the client
                // asks there.
                if is_valid && self.hears_later(cx, link) {
                    self.propose(cx);
                    return self.begin_sync(cx, Sync::Revalidation(link, session));
                }
                self.tell_learner(cx, link, &LeaderPacket::Revalidate { session, is_valid });
            }
        }
    }

    /// Whether a learner is an observer that has not heard of everything in the log, or is to be
    /// told something before.
    fn hears_later(&mut self, cx: &Context<'_>, link: LinkId) -> bool {
        self.leading().is_some_and(|leading| {
            let observes = leading.leader.kind_of(link) == Some(LearnerKind::Observer);
            let lacks_some = leading.leader.committed() < cx.pipeline.last_logged();
            observes && (lacks_some || !leading.syncs.is_empty())
        })
    }

    /// Proposes what was prepared.
    fn propose(&mut self, cx: &mut Context<'_>) {
        let mut out = Vec::new();
        let proposals = cx.pipeline.take_proposals();
        if let Some(leading) = self.leading() {
            for Proposal { zxid, txn, config } in proposals {
                let now = cx.clock.now;
                leading.sizes.record(txn.len());
                match config {
                    Some(config) => {
                        leading.leader.propose_config(now, zxid, &txn, config, &mut out);
                    }
                    None => leading.leader.propose(now, zxid, &txn, &mut out),
                }
            }
        }
        self.leader_outputs(cx, out);
    }

    fn on_synced(&mut self, cx: &mut Context<'_>, number: u64) {
        let Some(leading) = self.leading() else { return };
        match leading.syncs.remove(&number) {
            Some(Sync::Learner(link)) => self.tell_learner(cx, link, &LeaderPacket::Sync),
            Some(Sync::Revalidation(link, session)) => {
                let is_valid = cx.pipeline.is_global(session);
                self.tell_learner(cx, link, &LeaderPacket::Revalidate { session, is_valid });
            }
            Some(Sync::Client(origin)) => {
                let committed = leading.leader.committed();
                leading.synced.push_back((committed, origin));
            }
            None => {}
        }
    }
}
