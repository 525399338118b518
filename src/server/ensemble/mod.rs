//! A server's part in its ensemble: it elects, then leads or learns, then elects again. Joins the
//! machines of [`zab`](crate::zab) with the commit pipeline and with the connections to the others.
//!
//! ```text
//! Settling --all on disk--> Looking --election--> Leading, Learning --anything wrong--> Settling
//! ```
//!
//! A role ends as a whole: its connections are closed, clients are let go, and the next one begins
//! only when all of the log and the epochs record are on disk, so that what a vote says is true.

mod checked;
mod config_files;
mod history;
#[cfg(test)]
mod history_tests;
#[cfg(test)]
mod holes_tests;
mod leading;
mod learning;
#[cfg(test)]
mod pacing_tests;
mod peers;
mod read_only;
mod reconfig;
#[cfg(test)]
mod reconfig_tests;
mod report;
mod snapshots;
mod stall;
#[cfg(test)]
mod testing;

use std::collections::{BTreeMap, VecDeque};

use bytes::BytesMut;

use self::config_files::ConfigFiles;
use self::leading::Leading;
use self::learning::Learning;
use self::peers::{Dialled, Peers};
use self::reconfig::Leaving;
pub(crate) use self::report::EnsembleReport;
use super::contract::{Clock, Halt, PeerAddress, PeerInput, PeerLink, PeerOutput, PeerPort};
use super::epochs::{self, Epochs};
use super::options::EnsembleOptions;
use super::pipeline::Pipeline;
use super::recovery::Refusal;
use super::snap_receive::{ReceiveError, ReceiveProgress, SnapshotReceiver};
use super::stream::{Notice, Service};
use crate::base::{Duration, FileFailure, FileName, FileOp, FileOpId, FileOps, Instant};
use crate::limits::{self, BLOCK_BYTES};
use crate::model::{
    ClientAddress, EnsembleConfig, EnsembleConfigs, ServerAddress, ServerId, ServerState, ShardId,
    Zxid,
};
use crate::wire::jute::DecodeErrorKind;
use crate::wire::vote::Notification;
use crate::zab::Timing;
use crate::zab::election::{Decision, Election, ElectionOutput};
use crate::zab::links::{self, LinkOutput, Links};
use crate::zab::paxos::{self, HistoryEnd};

/// One member's part. Lives as long as the process.
#[derive(Debug)]
pub(crate) struct Ensemble {
    options: EnsembleOptions,
    configs: EnsembleConfigs,
    timing: Timing,
    election: Election,
    links: Links,
    peers: Peers,
    role: Role,
    epochs: Epochs,
    storing: Option<(FileOpId, Epochs)>,
    files: ConfigFiles,
    /// Where other servers connect, and clients.
    addresses: Vec<ServerAddress>,
    client: ClientAddress,
    /// The configuration that the history shows, where the operator's list holds against it.
    of_history: Option<EnsembleConfig>,
    /// Who leads next without an election, as a reconfiguration has it, and its txn's zxid.
    designated: Option<(ServerId, Zxid)>,
    /// A second recovery is needed, or under way.
    recovering: Option<Recovering>,
    /// A leader's snapshot on its way in. It outlives its role until it is put in place or removed.
    receiving: Option<Box<SnapshotReceiver>>,
    /// The log could not be cut as a leader wanted it, or what an Apache leader sent did not follow
    /// on from it; until a leader is followed.
    cannot_cut: bool,
    /// Why the history here is lost: nothing is said of it, and nothing written, until a leader has
    /// sent everything.
    lost: Option<Refusal>,
    /// Connections to the quorum port that wait for this server to lead, with when they came.
    waiting: BTreeMap<PeerLink, Instant>,
    service: Service,
    /// The last epoch in which clients were served.
    served_epoch: u32,
    /// Since when a leader is looked for, and clients are not served meanwhile although they may
    /// be.
    grace_since: Option<Instant>,
    /// When clients were let in the last time.
    serving_since: Instant,
    /// Txns and requests of other servers, and values of a leader's snapshot, that are longer are
    /// taken for damage.
    record_bytes_max: usize,
    /// How long to wait before an elected leader is dialled: the last ones wanted epochs before one
    /// that is promised here.
    dial_after: Duration,
    /// A planned stop: the role that ends is the last one.
    stopping: bool,
    effects: VecDeque<Effect>,
}

/// What the server does for the order of txns.
#[derive(Debug)]
enum Role {
    /// What the last role has left is on its way to the disk.
    Settling,
    /// An election is held.
    Looking,
    Leading(Box<Leading>),
    Learning(Box<Learning>),
}

/// A second recovery.
#[derive(Clone, Copy, Debug)]
struct Recovering {
    /// The last txn that stays, if the log is to be cut.
    keep_until: Option<Zxid>,
    /// The driver was asked.
    asked: bool,
}

/// What the server is to do besides.
#[derive(Debug)]
pub(crate) enum Effect {
    /// Take clients.
    Serve(Service),
    /// Let clients go.
    Suspend,
    /// Give the other shards new replicas: the tree was not exact so far.
    Replace,
    /// Listen for clients there, and no longer where it was.
    Listen(ClientAddress),
    /// Tell a shard.
    Notice(ShardId, Notice),
    /// Ask the driver for a recovery.
    Recover {
        /// The last txn that stays, if the log is to be cut.
        keep_until: Option<Zxid>,
    },
}

/// What a call may use.
pub(crate) struct Context<'a> {
    pub(crate) clock: Clock,
    pub(crate) pipeline: &'a mut Pipeline,
    pub(crate) ops: &'a mut FileOps,
}

impl Ensemble {
    /// A member that has just recovered. What other servers send of txns may be as long as what
    /// this one makes, `txn_bytes_max`, and never less than by default.
    pub(crate) fn new(
        options: EnsembleOptions,
        epochs: Epochs,
        lost: Option<Refusal>,
        txn_bytes_max: usize,
    ) -> Self {
        let record_bytes_max = limits::RECORD_BYTES_MAX.max(txn_bytes_max);
        let configs = options.configs.clone();
        let own = configs.committed.members.get(&options.me);
        let timing = Timing {
            establish_within: Duration(options.tick.0.saturating_mul(options.init_limit)),
            joined_within: Duration(options.connect_within.0.saturating_add(options.tick.0)),
            sync_within: Duration(options.tick.0.saturating_mul(options.sync_limit)),
            silence_max: options.detect,
            ping_every: options.ping_every,
        };
        Self {
            election: Election::new(options.me, configs.clone(), options.adopts_configs),
            links: Links::new(options.me, options.election_address.clone(), &configs),
            peers: Peers::new(record_bytes_max),
            role: Role::Settling,
            epochs,
            storing: None,
            files: ConfigFiles::default(),
            addresses: own.map(|own| own.addresses.clone()).unwrap_or_default(),
            client: options.client.clone(),
            of_history: None,
            designated: None,
            recovering: None,
            receiving: None,
            cannot_cut: false,
            lost,
            waiting: BTreeMap::new(),
            service: Service::Nothing,
            served_epoch: 0,
            grace_since: None,
            serving_since: Instant::default(),
            record_bytes_max,
            dial_after: Duration::default(),
            stopping: false,
            effects: VecDeque::new(),
            configs,
            timing,
            options,
        }
    }

    /// What `srvr` calls the mode; `None` while clients are not served.
    pub(crate) fn mode(&self) -> Option<&'static str> {
        match &self.role {
            _ if self.service == Service::Nothing => None,
            _ if self.service == Service::ReadOnly => Some("read-only"),
            Role::Leading(_) => Some("leader"),
            Role::Learning(_) if self.is_observer() => Some("observer"),
            Role::Learning(_) => Some("follower"),
            Role::Settling | Role::Looking => None,
        }
    }

    /// Where it listens for clients.
    pub(crate) const fn client_port(&self) -> u16 {
        self.client.port
    }

    /// The last epoch in which clients were served; zero if there was none. Everything before it is
    /// in the tree.
    pub(crate) const fn served_epoch(&self) -> u32 {
        self.served_epoch
    }

    /// A planned stop. A leader takes no more requests, and leaves as soon as what it has proposed
    /// is committed: the others see their connections end and elect at once.
    pub(crate) const fn stop(&mut self) {
        self.stopping = true;
    }

    /// Something happened between the servers.
    pub(crate) fn on_peer(&mut self, cx: &mut Context<'_>, input: PeerInput) {
        let now = cx.clock.now;
        match input {
            PeerInput::Accepted { port, link } => {
                self.peers.opened(port, link);
                match (port, &self.role) {
                    (PeerPort::Election, _) => self.links.on_accepted(now, links_link(link)),
                    (PeerPort::Quorum, Role::Leading(_)) => self.learner_opened(cx, link),
                    (PeerPort::Quorum, Role::Learning(_)) => self.peers.close(link),
                    (PeerPort::Quorum, _) => {
                        self.waiting.insert(link, now);
                        if limits::QUORUM_WAITING_MAX < self.waiting.len()
                            && let Some((oldest, _)) = self.waiting.pop_first()
                        {
                            self.peers.close(oldest);
                        }
                    }
                }
            }
            PeerInput::Dialled { dial, link } => match self.peers.dialled(dial) {
                Some(Dialled::Election(sid)) => {
                    self.peers.opened(PeerPort::Election, link);
                    self.links.on_dialled(now, sid, links_link(link));
                }
                Some(Dialled::Leader) => {
                    self.peers.opened(PeerPort::Quorum, link);
                    self.leader_dialled(cx, dial, link);
                }
                None => {}
            },
            PeerInput::DialFailed { dial } => match self.peers.dialled(dial) {
                Some(Dialled::Election(sid)) => self.links.on_dial_failed(now, sid),
                Some(Dialled::Leader) => self.leader_dial_failed(cx, dial),
                None => {}
            },
            PeerInput::Received { link, bytes } => match self.peers.port(link) {
                Some(PeerPort::Election) => self.links.on_bytes(now, links_link(link), bytes),
                Some(PeerPort::Quorum) => {
                    self.peers.push(link, bytes);
                    self.read_quorum(cx, link);
                }
                None => {}
            },
            PeerInput::Sent { link, bytes } => {
                let all = self.peers.sent(link, bytes);
                match self.peers.port(link) {
                    Some(PeerPort::Election) if all => self.links.on_written(links_link(link)),
                    Some(PeerPort::Quorum) => self.learner_took(cx, link),
                    _ => {}
                }
            }
            PeerInput::Closed { link } => match self.peers.closed(link) {
                Some(PeerPort::Election) => self.links.on_closed(now, links_link(link)),
                Some(PeerPort::Quorum) => self.quorum_closed(cx, link),
                None => {}
            },
        }
    }

    /// A file operation has ended. `None`: it is none of this machine's.
    pub(crate) fn on_file_done(
        &mut self,
        cx: &mut Context<'_>,
        id: FileOpId,
        result: &Result<(), FileFailure>,
    ) -> Option<Result<(), Halt>> {
        if let Some((_, epochs)) = self.storing.take_if(|(storing, _)| *storing == id) {
            return Some(match result {
                Ok(()) => {
                    self.on_stored(cx, epochs);
                    Ok(())
                }
                Err(failure) => Err(Halt::EpochsFailed(failure.clone())),
            });
        }
        if self.files.on_done(id, cx.ops) {
            return Some(result.clone().map_err(Halt::ConfigFailed));
        }
        let receiver = self.receiving.as_mut()?;
        match receiver.on_done(id, result.clone(), cx.ops) {
            ReceiveProgress::NotMine => return None,
            ReceiveProgress::Going => self.feed_receiver(cx),
            ReceiveProgress::Done { leftover } => {
                let crc = receiver.crc();
                self.receiving = None;
                self.recovering = Some(Recovering { keep_until: None, asked: false });
                self.snapshot_received(leftover, crc);
            }
            ReceiveProgress::Failed(ReceiveError::Unknown(failure)) => {
                return Some(Err(Halt::InstallFailed(failure)));
            }
            ReceiveProgress::Failed(error) => {
                tracing::warn!(%error, "the leader's snapshot is given up");
                self.receiving = None;
                self.thaw(cx);
                if let Role::Learning(_) = self.role {
                    self.end_role(cx);
                }
            }
        }
        Some(Ok(()))
    }

    fn on_stored(&mut self, cx: &mut Context<'_>, epochs: Epochs) {
        self.epochs = epochs;
        match &self.role {
            Role::Leading(_) => self.leader_stored(cx),
            Role::Learning(_) => self.learner_stored(cx),
            // The role that wanted it is over; the promise holds all the same.
            Role::Settling | Role::Looking => {}
        }
    }

    /// The pipeline was made anew from what is on disk.
    /// `installed` is the snapshot that took the place of everything, if one did; `lost` says why
    /// the history is lost.
    pub(crate) fn on_recovered(
        &mut self,
        cx: &mut Context<'_>,
        installed: Option<Zxid>,
        lost: Option<Refusal>,
    ) {
        let Some(Recovering { keep_until, asked: true }) = self.recovering.take() else { return };
        self.lost = lost;
        if self.lost.is_some() {
            self.served_epoch = 0;
            return self.end_role(cx);
        }
        if keep_until.is_none() && installed.is_none() && matches!(self.role, Role::Learning(_)) {
            tracing::warn!("the leader's snapshot makes no tree; what was there stays");
            return self.end_role(cx);
        }
        self.cannot_cut &= installed.is_none();
        self.learner_recovered(cx, keep_until);
    }

    /// The log cannot be cut where the leader wants it: all snapshots of before are gone. A leader
    /// that is told so sends its tree whole.
    pub(crate) fn on_not_cut(&mut self, cx: &mut Context<'_>) {
        self.recovering = None;
        self.cannot_cut = true;
        self.end_role(cx);
    }

    /// Time has passed.
    pub(crate) fn on_timer(&mut self, cx: &mut Context<'_>) {
        let now = cx.clock.now;
        if self.links.next_timeout().is_some_and(|at| at <= now) {
            self.links.on_timeout(now);
        }
        if self.election.next_timeout().is_some_and(|at| at <= now) {
            self.election.on_timeout(now);
        }
        match &self.role {
            Role::Leading(_) => self.leader_timer(cx),
            Role::Learning(_) => self.learner_timer(cx),
            Role::Settling | Role::Looking => {
                let is_late = |since: Instant| limits::QUORUM_WAITING_FOR <= now.since(since);
                let late = self.waiting.iter().filter(|(_, since)| is_late(**since));
                for link in late.map(|(link, _)| *link).collect::<Vec<_>>() {
                    self.waiting.remove(&link);
                    self.peers.close(link);
                }
                self.serve_reads(cx);
            }
        }
    }

    /// When [`Ensemble::on_timer`] is due.
    pub(crate) fn next_timer(&self) -> Option<Instant> {
        let role = match &self.role {
            Role::Leading(leading) => Some(leading.next_timer()),
            Role::Learning(learning) => Some(learning.next_timer()),
            Role::Settling | Role::Looking => {
                self.waiting.values().min().map(|since| *since + limits::QUORUM_WAITING_FOR)
            }
        };
        [self.links.next_timeout(), self.election.next_timeout(), role, self.reads_from()]
            .into_iter()
            .flatten()
            .min()
    }

    /// Carries on what the last input and the pipeline have made possible; after each input and at
    /// the end of each turn.
    pub(crate) fn go_on(&mut self, cx: &mut Context<'_>) {
        match &self.role {
            Role::Leading(_) => self.leader_goes_on(cx),
            Role::Learning(_) => self.learner_goes_on(cx),
            Role::Settling => self.settle(cx),
            Role::Looking => {}
        }
        if let Some(recovering) = &mut self.recovering
            && !recovering.asked
            && cx.pipeline.is_quiet()
            && self.storing.is_none()
            && self.files.is_idle()
        {
            recovering.asked = true;
            self.effects.push_back(Effect::Recover { keep_until: recovering.keep_until });
        }
        self.drain(cx);
    }

    /// Whether work was left over for the next turn.
    pub(crate) fn wants_turn(&self) -> bool {
        self.has_snapshot_to_send() || self.has_history_to_send() || self.has_waiting()
    }

    /// Nothing new may be asked of the disk: a second recovery is about to read it.
    pub(crate) const fn is_recovering(&self) -> bool {
        self.recovering.is_some() || self.receiving.is_some()
    }

    /// What the server is to do, in order.
    pub(crate) fn next_effect(&mut self) -> Option<Effect> {
        self.effects.pop_front()
    }

    /// What the driver owes the other servers; once in each turn.
    pub(crate) fn take_outputs(&mut self) -> Vec<PeerOutput> {
        self.peers.take()
    }

    /// Everything of the last role is on disk: an election begins.
    fn settle(&mut self, cx: &mut Context<'_>) {
        let is_settled = cx.pipeline.is_flushed()
            && self.storing.is_none()
            && self.files.is_idle()
            && !self.is_recovering();
        if !is_settled || self.stopping {
            return;
        }
        let last_zxid = cx.pipeline.last_logged();
        let durable = HistoryEnd { current_epoch: self.epochs.current, last_zxid };
        if self.lost.is_none() && self.forget_unlogged(durable, cx.ops) {
            return;
        }
        self.role = Role::Looking;
        self.grace_since = Some(cx.clock.now);
        if let Some((leader, zxid)) = self.designated.take() {
            tracing::info!(%leader, "the reconfiguration says who leads");
            return self.election.appoint(leader, zxid);
        }
        if let Some(lost) = &self.lost {
            tracing::warn!(%lost, "this server votes for nobody until a leader sends everything");
        } else {
            tracing::info!(round = self.election.round() + 1, zxid = %last_zxid,
                epoch = self.epochs.current, "looking for a leader");
        }
        let durable = self.lost.is_none().then_some(durable);
        self.election.look(cx.clock.now, durable);
    }

    /// Does what election and links want, until they want nothing.
    fn drain(&mut self, cx: &mut Context<'_>) {
        loop {
            if let Some(output) = self.election.poll_output() {
                match output {
                    ElectionOutput::Send { to, notification } => {
                        let Notification { state, vote, round, .. } = &notification;
                        tracing::debug!(%to, ?state, round, %vote, "tells its vote");
                        let mut frame = BytesMut::new();
                        notification.encode(&mut frame);
                        self.links.send(to, frame.freeze());
                    }
                    ElectionOutput::Decided(decision) => self.begin(cx, decision),
                    ElectionOutput::Adopted(_) => self.adopt(cx.ops),
                }
            } else if let Some(output) = self.links.poll_output() {
                self.link_output(cx.clock.now, output);
            } else {
                return;
            }
        }
    }

    fn link_output(&mut self, now: Instant, output: LinkOutput) {
        match output {
            LinkOutput::Dial { sid, addresses } => {
                tracing::debug!(%sid, ?addresses, "dials the election port");
                let addresses = addresses
                    .into_iter()
                    .map(|it| PeerAddress { host: it.host, port: it.port })
                    .collect();
                self.peers.dial(Dialled::Election(sid), addresses, self.options.connect_within);
            }
            LinkOutput::Write { link, bytes } => self.peers.send(PeerLink(link.0), bytes),
            LinkOutput::WriteAndClose { link, bytes } => {
                self.peers.send(PeerLink(link.0), bytes);
                self.peers.close(PeerLink(link.0));
            }
            LinkOutput::Close { link } => self.peers.close(PeerLink(link.0)),
            LinkOutput::Connected(sid) => {
                tracing::debug!(%sid, "votes can pass");
                self.election.on_connected(sid);
            }
            LinkOutput::Disconnected(sid) => {
                tracing::debug!(%sid, "votes cannot pass any more");
                self.election.on_disconnected(now, sid);
            }
            LinkOutput::Received { from, frame } => match Notification::decode(&frame) {
                Ok(notification) => {
                    let Notification { state, vote, round, .. } = &notification;
                    tracing::debug!(%from, ?state, round, %vote, "a vote came");
                    self.election.on_notification(now, from, &notification);
                }
                Err(error) => {
                    tracing::warn!(%from, %error, "a vote does not decode and was ignored");
                    if error.kind == DecodeErrorKind::Damaged && self.links.on_damaged(now, from) {
                        tracing::info!(%from, "its connection is made again");
                    }
                }
            },
        }
    }

    /// The election is over.
    fn begin(&mut self, cx: &mut Context<'_>, decision: Decision) {
        let Decision { state, vote, round } = decision;
        tracing::info!(leader = %vote.leader, round, "elected");
        self.end_reads(cx);
        match state {
            ServerState::Leading => self.lead(cx),
            // A vote in no round is that of a reconfiguration.
            _ => self.learn(cx, vote.leader, round < 0),
        }
    }

    /// A role is over.
    fn end_role(&mut self, cx: &mut Context<'_>) {
        let leaving = match &self.role {
            Role::Leading(leading) => leading.leaving(),
            Role::Learning(learning) => learning.leaving(),
            Role::Settling | Role::Looking => None,
        };
        self.designated = leaving.and_then(|Leaving { after, leader }| Some((leader?, after)));
        self.end_snapshots(cx, None);
        cx.pipeline.read_log_from(None, cx.ops);
        for link in self.peers.quorum_links() {
            self.peers.close(link);
        }
        self.waiting.clear();
        // A snapshot whose record is durable is put in place, whoever leads by then.
        self.recovering = self.recovering.filter(|it| it.asked || it.keep_until.is_none());
        if !self.is_recovering() {
            self.thaw(cx);
        }
        if let Some(receiver) = &mut self.receiving {
            receiver.closed(cx.ops);
        }
        self.role = Role::Settling;
        self.election.rest();
        cx.pipeline.idle(cx.clock.now);
        self.suspend();
    }

    /// The log goes on, unless there is nothing that could.
    fn thaw(&self, cx: &mut Context<'_>) {
        if self.lost.is_none() {
            cx.pipeline.thaw(cx.ops);
        }
    }

    /// Clients are served from here on. They were before if only the leader's epoch is another one.
    /// The tree has everything that was committed before it.
    fn serve(&mut self, now: Instant, epoch: u32, was_fuzzy: bool) {
        self.served_epoch = epoch;
        self.dial_after = Duration::default();
        if was_fuzzy {
            self.effects.push_back(Effect::Replace);
        }
        if self.service != Service::Full {
            self.service = Service::Full;
            self.serving_since = now;
            self.effects.push_back(Effect::Serve(Service::Full));
        }
    }

    fn suspend(&mut self) {
        if std::mem::take(&mut self.service) != Service::Nothing {
            self.effects.push_back(Effect::Suspend);
        }
    }

    /// Asks for the epochs record to be written.
    fn store(&mut self, cx: &mut Context<'_>, stored: paxos::Epochs) {
        let sequence = self.epochs.sequence + 1;
        let epochs = Epochs { accepted: stored.accepted, current: stored.current, sequence };
        let id = cx.ops.ask(FileOp::Write {
            file: FileName::data(epochs::FILE_NAME.to_owned()),
            offset: sequence % 2 * BLOCK_BYTES as u64,
            bytes: epochs.encode(),
            durable: true,
        });
        assert!(self.storing.is_none(), "an acceptor stores one thing at a time");
        self.storing = Some((id, epochs));
    }

    /// What is on disk about epochs.
    const fn stored_epochs(&self) -> paxos::Epochs {
        paxos::Epochs { accepted: self.epochs.accepted, current: self.epochs.current }
    }

    /// Packets of the quorum port have come.
    fn read_quorum(&mut self, cx: &mut Context<'_>, link: PeerLink) {
        match &self.role {
            Role::Leading(_) => self.read_learner(cx, link),
            Role::Learning(_) => self.read_leader(cx),
            Role::Settling | Role::Looking => {
                if limits::QUORUM_WAITING_BYTES_MAX < self.peers.buffered(link) {
                    self.waiting.remove(&link);
                    self.peers.close(link);
                }
            }
        }
    }

    fn quorum_closed(&mut self, cx: &mut Context<'_>, link: PeerLink) {
        self.waiting.remove(&link);
        match &self.role {
            Role::Leading(_) => self.learner_closed(cx, link),
            Role::Learning(_) => self.leader_closed(cx, link),
            Role::Settling | Role::Looking => {}
        }
    }
}

fn links_link(link: PeerLink) -> links::LinkId {
    links::LinkId(link.0)
}
