//! Learning: finds the leader, and carries the outputs of [`Learner`] to the pipeline and to the
//! leader's connection.

use std::collections::VecDeque;

use bytes::Bytes;

use super::reconfig::Leaving;
use super::{Context, Dialled, Effect, Ensemble, Recovering, Role};
use crate::base::{Duration, Instant};
use crate::config;
use crate::limits;
use crate::model::{EnsembleConfig, EnsembleConfigs, ServerId, TxnBody, Zxid};
use crate::server::contract::{DialId, PeerLink};
use crate::server::snap_receive::SnapshotReceiver;
use crate::server::stream::Notice;
use crate::wire;
use crate::wire::quorum::{LeaderPacket, LearnerPacket};
use crate::zab::leader::LearnerKind;
use crate::zab::learner::{Learner, Output, Reason, Start};

/// The role of a follower or an observer.
#[derive(Debug)]
pub(super) struct Learning {
    pub(super) leader: ServerId,
    stage: Stage,
    /// Until then a connection that ends before the leader has said anything is made again.
    patient_until: Option<Instant>,
    /// Clients are served in this epoch once this is applied.
    serves: Option<(Zxid, u32)>,
    /// What follows behind a configuration that is being written down, in order.
    held: VecDeque<Output>,
    holds: bool,
    /// The leader has told its configuration.
    has_config: bool,
    /// Another server leads from here on, or this one has another role.
    leaving: Option<Leaving>,
    /// Syncs that the leader has answered, by what must be applied before the client hears of it.
    synced: VecDeque<Zxid>,
    /// The own disk does not keep up, and nothing is read of the leader: what was durable last.
    paused: Option<Zxid>,
}

#[derive(Debug)]
enum Stage {
    /// No connection yet.
    Dialling {
        dial: Option<DialId>,
        /// When to dial again, and how long to wait after that.
        retry_at: Instant,
        retry_after: Duration,
        give_up_at: Instant,
    },
    Connected {
        link: PeerLink,
        learner: Box<Learner>,
    },
}

impl Learning {
    pub(super) fn next_timer(&self) -> Instant {
        match &self.stage {
            Stage::Dialling { dial: None, retry_at, .. } => *retry_at,
            Stage::Dialling { give_up_at, .. } => *give_up_at,
            Stage::Connected { learner, .. } => learner.next_timer(),
        }
    }

    /// The leader could not be heard for this long.
    pub(super) fn credit(&mut self, stalled: Duration) {
        if let Stage::Connected { learner, .. } = &mut self.stage {
            learner.credit(stalled);
        }
    }

    /// Who leads next.
    pub(super) const fn leaving(&self) -> Option<Leaving> {
        self.leaving
    }
}

impl Ensemble {
    /// Begins to learn from `leader`. One that a reconfiguration has appointed may not know of that
    /// yet.
    pub(super) fn learn(&mut self, cx: &mut Context<'_>, leader: ServerId, is_appointed: bool) {
        for link in std::mem::take(&mut self.waiting).into_keys() {
            self.peers.close(link);
        }
        let now = cx.clock.now;
        let stage = Stage::Dialling {
            dial: None,
            retry_at: now + self.dial_after,
            retry_after: limits::LEADER_DIAL_RETRY_AFTER,
            give_up_at: now + self.options.connect_within,
        };
        self.role = Role::Learning(Box::new(Learning {
            leader,
            stage,
            patient_until: is_appointed.then(|| now + self.options.connect_within),
            serves: None,
            held: VecDeque::new(),
            holds: false,
            has_config: false,
            leaving: None,
            synced: VecDeque::new(),
            paused: None,
        }));
        if self.dial_after == Duration::default() {
            self.dial_leader();
        }
    }

    fn learning(&mut self) -> Option<&mut Learning> {
        match &mut self.role {
            Role::Learning(learning) => Some(learning),
            _ => None,
        }
    }

    fn dial_leader(&mut self) {
        let Some(leader) = self.learning().map(|learning| learning.leader) else { return };
        let addresses = self.quorum_addresses(leader);
        let within = self.options.connect_within;
        let id = self.peers.dial(Dialled::Leader, addresses, within);
        if let Some(Learning { stage: Stage::Dialling { dial, .. }, .. }) = self.learning() {
            *dial = Some(id);
        }
    }

    pub(super) fn leader_dialled(&mut self, cx: &mut Context<'_>, id: DialId, link: PeerLink) {
        let is_wanted = matches!(self.learning().map(|learning| &learning.stage),
            Some(Stage::Dialling { dial: Some(dial), .. }) if *dial == id);
        if !is_wanted {
            return self.peers.close(link);
        }
        let kind = match self.is_observer() {
            true => LearnerKind::Observer,
            false => LearnerKind::Follower,
        };
        let start = Start {
            me: self.options.me,
            kind,
            config_version: self.configs.committed.version,
            timing: self.timing,
            epochs: self.stored_epochs(),
            last_zxid: self.lost.is_none().then(|| cx.pipeline.last_logged()),
            cannot_cut: self.cannot_cut,
        };
        let mut out = Vec::new();
        let learner = Box::new(Learner::new(start, cx.clock.now, &mut out));
        if let Some(learning) = self.learning() {
            learning.stage = Stage::Connected { link, learner };
        }
        self.learner_outputs(cx, out);
    }

    pub(super) fn leader_dial_failed(&mut self, cx: &mut Context<'_>, id: DialId) {
        let now = cx.clock.now;
        if let Some(Learning { stage: Stage::Dialling { dial, retry_at, retry_after, .. }, .. }) =
            self.learning()
            && *dial == Some(id)
        {
            *dial = None;
            *retry_at = now + *retry_after;
            let longer = Duration(2 * retry_after.0);
            *retry_after = longer.min(limits::LEADER_DIAL_RETRY_AFTER_MAX);
        }
    }

    pub(super) fn leader_closed(&mut self, cx: &mut Context<'_>, closed: PeerLink) {
        let now = cx.clock.now;
        let mut out = Vec::new();
        let Some(learning) = self.learning() else { return };
        let Stage::Connected { link, learner } = &mut learning.stage else { return };
        if *link != closed {
            return;
        }
        match learning.patient_until {
            Some(until) if now < until && learner.is_unheard() => {
                learning.stage = Stage::Dialling {
                    dial: None,
                    retry_at: now + Duration(limits::LEADER_DIAL_RETRY_AFTER_MAX.0 / 10),
                    retry_after: limits::LEADER_DIAL_RETRY_AFTER_MAX,
                    give_up_at: until,
                };
            }
            _ => learner.closed(&mut out),
        }
        self.learner_outputs(cx, out);
    }

    pub(super) fn learner_timer(&mut self, cx: &mut Context<'_>) {
        let now = cx.clock.now;
        let mut out = Vec::new();
        let Some(learning) = self.learning() else { return };
        match &mut learning.stage {
            Stage::Dialling { give_up_at, .. } if *give_up_at <= now => {
                let leader = learning.leader;
                tracing::warn!(%leader, "the leader cannot be reached");
                return self.end_role(cx);
            }
            Stage::Dialling { dial: None, retry_at, .. } if *retry_at <= now => {
                return self.dial_leader();
            }
            Stage::Dialling { .. } => {}
            Stage::Connected { learner, .. } => learner.timer(now, &mut out),
        }
        self.learner_outputs(cx, out);
    }

    pub(super) fn learner_stored(&mut self, cx: &mut Context<'_>) {
        let mut out = Vec::new();
        if let Some(Learning { stage: Stage::Connected { learner, .. }, .. }) = self.learning() {
            learner.stored(&mut out);
        }
        self.learner_outputs(cx, out);
    }

    /// Takes the packets that the leader has sent.
    pub(super) fn read_leader(&mut self, cx: &mut Context<'_>) {
        loop {
            let Some(Learning { stage: Stage::Connected { link, .. }, holds: false, .. }) =
                self.learning()
            else {
                return;
            };
            let link = *link;
            if self.receiving.is_some() {
                return self.feed_receiver(cx);
            }
            // What stands behind TRUNC or SNAP waits until that is done.
            if self.recovering.is_some() {
                return;
            }
            if cx.pipeline.log_lags() {
                return self.pause_leader(cx, link);
            }
            let packet = match self.peers.next_packet(link) {
                Ok(Some(packet)) => LeaderPacket::decode(&packet),
                Ok(None) => return,
                Err(error) => Err(error),
            };
            let mut out = Vec::new();
            match packet {
                // A type that leaders do not send is passed over, as Apache does.
                Ok(None) => {}
                Ok(Some(packet)) => {
                    if let Some(Learning { stage: Stage::Connected { learner, .. }, .. }) =
                        self.learning()
                    {
                        learner.received(cx.clock.now, packet, &mut out);
                    }
                }
                Err(error) => {
                    tracing::warn!(%error, "the leader's packet does not decode");
                    return self.end_role(cx);
                }
            }
            self.learner_outputs(cx, out);
        }
    }

    /// Reads nothing more of the leader until the own log has caught up.
    fn pause_leader(&mut self, cx: &Context<'_>, link: PeerLink) {
        self.peers.set_reading(link, false);
        let flushed = cx.pipeline.flushed();
        if let Some(learning) = self.learning() {
            learning.paused.get_or_insert(flushed);
        }
    }

    /// Reads of the leader again once the own log has caught up. Until then each flush counts as a
    /// sign of life: the leader's are among what is not read.
    fn resume_leader(&mut self, cx: &mut Context<'_>) {
        let (now, flushed) = (cx.clock.now, cx.pipeline.flushed());
        let Some(Learning { stage: Stage::Connected { link, learner }, paused, .. }) =
            self.learning()
        else {
            return;
        };
        let Some(before) = paused else { return };
        if *before < flushed {
            *before = flushed;
            learner.progressed(now);
        }
        if cx.pipeline.log_has_caught_up() {
            let link = *link;
            *paused = None;
            self.peers.set_reading(link, true);
            self.read_leader(cx);
        }
    }

    /// Tells the learner what is durable, and the leader what clients want.
    pub(super) fn learner_goes_on(&mut self, cx: &mut Context<'_>) {
        self.release_learner(cx);
        self.resume_leader(cx);
        let flushed = cx.pipeline.flushed();
        let is_recovering = self.recovering.is_some();
        let mut out = Vec::new();
        let Some(learning) = self.learning() else { return };
        if let Stage::Connected { learner, .. } = &mut learning.stage
            && !is_recovering
        {
            learner.flushed(flushed, &mut out);
        }
        let applied = cx.pipeline.tree().last_zxid();
        let is_whole = !cx.pipeline.is_applying();
        if let Some((_, epoch)) = learning.serves.take_if(|(zxid, _)| is_whole && *zxid <= applied)
        {
            let leader = learning.leader;
            tracing::info!(epoch, %leader, zxid = %applied, "following");
            let was_fuzzy = cx.pipeline.pass_fuzzy();
            cx.pipeline.follow();
            let had_another = self.show_config(cx);
            self.serve(cx.clock.now, epoch, was_fuzzy || had_another);
        }
        let Some(learning) = self.learning() else { return };
        let answered = learning.synced.partition_point(|zxid| *zxid <= applied);
        learning.synced.drain(..answered);
        for origin in (0..answered).filter_map(|_| cx.pipeline.synced()) {
            let notice = Notice::Synced(origin);
            self.effects.push_back(Effect::Notice(origin.address.shard, notice));
        }
        self.learner_outputs(cx, out);
        for packet in cx.pipeline.take_to_leader() {
            self.tell_leader(cx, &packet);
        }
        let leaving = self.learning().and_then(|learning| learning.leaving);
        if leaving.is_some_and(|leaving| leaving.after <= applied) && is_whole {
            self.end_role(cx);
        }
    }

    /// What waited for a configuration to be on disk goes on.
    fn release_learner(&mut self, cx: &mut Context<'_>) {
        let is_proposing = self.files.is_proposing();
        let Some(learning) = self.learning() else { return };
        if learning.holds && !is_proposing {
            learning.holds = false;
            let held = std::mem::take(&mut learning.held);
            self.learner_outputs(cx, held.into());
            self.read_leader(cx);
        }
    }

    /// The connection to the leader, if there is one.
    fn leader_link(&self) -> Option<PeerLink> {
        match &self.role {
            Role::Learning(learning) => match &learning.stage {
                Stage::Connected { link, .. } => Some(*link),
                Stage::Dialling { .. } => None,
            },
            _ => None,
        }
    }

    fn tell_leader(&mut self, cx: &mut Context<'_>, packet: &LearnerPacket) {
        let Some(link) = self.leader_link() else { return };
        if !self.peers.packet(link, |buf| packet.encode(buf)) {
            tracing::warn!("the leader's connection takes nothing");
            self.end_role(cx);
        }
    }

    /// The log was cut or replaced, and the pipeline made anew.
    pub(super) fn learner_recovered(&mut self, cx: &mut Context<'_>, keep_until: Option<Zxid>) {
        let now = cx.clock.now;
        let last = cx.pipeline.last_logged();
        // A proposed configuration that was cut off is forgotten before anything stands there.
        let forgets = self.files.is_proposing();
        if let Some(Learning { stage: Stage::Connected { learner, .. }, holds, .. }) =
            self.learning()
        {
            *holds |= forgets;
            match keep_until {
                Some(_) => learner.cut(now, last),
                None => learner.installed(now, last),
            }
            self.read_leader(cx);
        }
    }

    /// Does what the learner wants, in order.
    fn learner_outputs(&mut self, cx: &mut Context<'_>, outputs: Vec<Output>) {
        for output in outputs {
            let Some(learning) = self.learning() else { return };
            match learning.holds {
                true => learning.held.push_back(output),
                false => self.learner_output(cx, output),
            }
        }
    }

    fn learner_output(&mut self, cx: &mut Context<'_>, output: Output) {
        match output {
            Output::Send(packet) => self.tell_leader(cx, &packet),
            Output::Store(epochs) => self.store(cx, epochs),
            Output::Cut(zxid) => {
                tracing::warn!(%zxid, "the log is cut behind this txn, as the leader wants");
                cx.pipeline.freeze();
                self.recovering = Some(Recovering { keep_until: Some(zxid), asked: false });
            }
            Output::Install(zxid) => {
                tracing::info!(%zxid, "a snapshot is on its way");
                let above = cx.pipeline.freeze();
                let (wall, longest) = (cx.clock.wall, self.record_bytes_max);
                let receiver = SnapshotReceiver::begin(zxid, wall, longest, above, cx.ops);
                let crc = self.leader_link().and_then(|link| self.peers.body_begins(link));
                self.receiving = Some(Box::new(receiver.covered(crc)));
            }
            Output::Append { zxid, txn } if self.must_hold(cx, &txn) => {
                if let Some(learning) = self.learning() {
                    learning.held.push_back(Output::Append { zxid, txn });
                }
            }
            Output::Append { zxid, txn } => {
                if let Err(error) = cx.pipeline.append(zxid, &txn) {
                    tracing::error!(%zxid, %error, "a proposal does not decode: is the leader of a \
                        newer version?");
                    self.end_role(cx);
                }
            }
            Output::Committed(zxid) => {
                cx.pipeline.commit_to(zxid);
                self.on_activate(cx, zxid, None);
            }
            Output::Activate { upto, designated } => self.on_activate(cx, upto, designated),
            Output::Serve { epoch } => {
                self.election.on_established(epoch);
                self.cannot_cut = false;
                let committed = cx.pipeline.committed_zxid();
                if let Some(learning) = self.learning() {
                    learning.serves = Some((committed, epoch));
                }
            }
            Output::Config(text) => self.on_config(cx, &text),
            Output::AnswerPing(zxid) => {
                let touches = cx.pipeline.take_touches();
                self.tell_leader(cx, &LearnerPacket::Ping { zxid, touches });
            }
            Output::Synced => {
                let committed = cx.pipeline.committed_zxid();
                if let Some(learning) = self.learning() {
                    learning.synced.push_back(committed);
                }
            }
            Output::Revalidated { session, is_valid } => {
                let notices = cx.pipeline.revalidated(session, is_valid, cx.clock.now);
                let effects = notices.into_iter().map(|(to, notice)| Effect::Notice(to, notice));
                self.effects.extend(effects);
            }
            Output::GiveUp(reason) => {
                tracing::warn!(%reason, "this server follows no more");
                // What an Apache leader keeps in memory can have holes. It is asked for everything.
                self.cannot_cut |= matches!(reason, Reason::Gap { .. });
                if let Reason::Epoch { .. } = reason {
                    let longer = Duration(2 * self.dial_after.0);
                    self.dial_after = longer.clamp(
                        limits::LEADER_DIAL_RETRY_AFTER,
                        limits::LEADER_DIAL_RETRY_AFTER_MAX,
                    );
                }
                self.end_role(cx);
            }
        }
    }

    /// Gives the receiver what has come, if it takes any.
    pub(super) fn feed_receiver(&mut self, cx: &mut Context<'_>) {
        let now = cx.clock.now;
        let Some(Learning { stage: Stage::Connected { link, learner }, .. }) = self.learning()
        else {
            return;
        };
        let link = *link;
        learner.progressed(now);
        let Some(receiver) = &mut self.receiving else { return };
        if receiver.wants_bytes() || receiver.is_whole() {
            let bytes = self.peers.take_rest(link);
            if !bytes.is_empty() {
                receiver.push(&bytes, cx.ops);
            }
        }
        self.peers.set_reading(link, receiver.wants_bytes());
    }

    /// The snapshot is durable; `leftover` are the packets that came behind it.
    pub(super) fn snapshot_received(&mut self, leftover: Bytes, crc: Option<u32>) {
        if let Some(link) = self.leader_link() {
            if let Some(crc) = crc {
                self.peers.body_ended(link, crc);
            }
            let rest = self.peers.take_rest(link);
            self.peers.push(link, leftover);
            self.peers.push(link, rest);
            self.peers.set_reading(link, true);
        }
    }

    /// The leader's configuration takes the place of the one that was last seen, also where that is
    /// later: its txn was cut off.
    fn on_config(&mut self, cx: &mut Context<'_>, text: &str) {
        if !self.options.adopts_configs {
            return;
        }
        match config::ensemble::parse(text, "NEWLEADER") {
            Ok(config) => self.take_config(cx, config),
            Err(error) => tracing::warn!(%error, "the leader's configuration is not understood"),
        }
    }

    /// Whether a txn must wait: it is a configuration that is not on disk yet, whose writing has
    /// begun, or one that is not understood, which ends the role.
    fn must_hold(&mut self, cx: &mut Context<'_>, txn: &Bytes) -> bool {
        if !self.options.adopts_configs || !wire::txn::is_reconfig(txn) {
            return false;
        }
        let body = wire::txn::decode(txn).map(|txn| txn.body);
        // What does not decode is found out when it is appended.
        let Ok(TxnBody::Reconfig { data: Some(text), .. }) = body else { return false };
        match config::ensemble::parse(&String::from_utf8_lossy(&text), "/zookeeper/config") {
            Ok(config) => {
                self.take_config(cx, config);
                self.learning().is_some_and(|learning| learning.holds)
            }
            Err(error) => {
                tracing::error!(%error, "a proposed configuration is not understood: is the \
                    leader of a newer version?");
                self.end_role(cx);
                true
            }
        }
    }

    fn take_config(&mut self, cx: &mut Context<'_>, config: EnsembleConfig) {
        let EnsembleConfigs { committed, last_seen } = &self.configs;
        let is_new = committed.version <= config.version && last_seen.version != config.version;
        if is_new {
            self.see_config(config, cx.ops);
        }
        if let Some(learning) = self.learning() {
            learning.holds |= is_new;
            learning.has_config = true;
        }
    }

    /// The last configuration that is not later than `upto` is in force.
    fn on_activate(&mut self, cx: &mut Context<'_>, upto: Zxid, designated: Option<ServerId>) {
        let Some(learning) = self.learning() else { return };
        let leader = learning.leader;
        if !learning.has_config {
            return;
        }
        let Some(config) = self.next_upto(upto) else { return };
        let before = self.activate(config, cx.ops);
        let Some(to) = self.leaves_for(&before, leader, designated) else { return };
        tracing::info!("the reconfiguration ends this role");
        let Some(learning) = self.learning() else { return };
        learning.leaving = Some(Leaving { after: upto, leader: to });
        // Who is served hears of what was committed first.
        let serves = matches!(&learning.stage, Stage::Connected { learner, .. }
            if learner.is_serving() && designated.is_some());
        if !serves {
            self.end_role(cx);
        }
    }
}
