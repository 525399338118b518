//! [`Server`]: the commit pipeline and its home shard as one machine, and the satellites' hub.
//!
//! The home shard reads the pipeline's own tree, so it needs no replica: right before a txn is
//! applied the shard runs the reads that its session sent before it, then the txn is applied, then
//! the shard hears the delta. Between two inputs the tree is at `published`. Satellites hear the
//! same deltas through their streams.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::Arc;

use crate::base::{FileFailure, FileOpId, FileOps, Instant, Prng};
use crate::config;
use crate::limits;
use crate::model::{EnsembleConfig, LocalSessions, SessionId, ShardId, Zxid};
use crate::session::SessionTable;
use crate::wire::word::Word;

use super::audit;
use super::contract::{Clock, Halt, Input, Machine, Mesh, MeshBody, Output, Published};
use super::credit::{self, Credit, Lender};
use super::ensemble::{Context, Effect, Ensemble, EnsembleReport};
use super::options::ServerOptions;
use super::pipeline::{Duty, Pipeline};
use super::pulse::Pulse;
use super::recovery::Recovered;
use super::satellite::Satellite;
use super::shard::{Reporting, Scope, Shard, ShardReport, Surroundings};
use super::stream::{Address, Ask, Notice, Ticket, ToShard};
use super::telling::Telling;
use super::words;

/// The home shard's id.
pub(super) const HOME: ShardId = ShardId(0);

/// One server without its I/O. Made from what recovery found; driven as
/// [`contract`](super::contract) says.
pub struct Server {
    pub(super) pipeline: Pipeline,
    shard: Shard,
    satellites: BTreeMap<ShardId, Link>,
    ops: FileOps,
    /// Requests of the home shard that the pipeline has not heard.
    asks: Vec<Ask>,
    /// Requests that wait until the end of a session or a multi is prepared.
    held: VecDeque<(ShardId, Ask)>,
    lender: Lender,
    published: Published,
    /// Words that are being answered; each turn goes on with one.
    questions: VecDeque<Question>,
    next_ticket: u64,
    /// Overdue sessions whose satellites were asked.
    life_asked: BTreeSet<SessionId>,
    stopping: Option<Stopping>,
    pulse: Pulse,
    /// Of a member of an ensemble.
    ensemble: Option<Box<Ensemble>>,
    /// For the pipelines of second recoveries.
    prng: Prng,
    /// Descriptors in use, and how many there may be.
    pub(super) open_files: (u64, u64),
    pub(super) started: Instant,
    pub(super) options: ServerOptions,
}

/// The pipeline's end of a satellite's stream.
#[derive(Debug, Default)]
struct Link {
    /// Items of this turn.
    items: Vec<ToShard>,
    urgent: bool,
    /// Bytes of deltas sent and not yet applied there.
    behind_bytes: usize,
    watching: bool,
    emptied: bool,
}

/// A word that is being answered.
#[derive(Debug)]
struct Question {
    ticket: Ticket,
    from: Address,
    telling: Telling,
    /// What the shards are still to be asked for.
    unasked: Option<Scope>,
    /// The home shard's own report, until it is whole.
    reporting: Option<Reporting>,
    /// Satellites whose reports are not whole.
    missing: usize,
}

impl Question {
    /// Whether it waits for nothing but its turn.
    const fn can_go_on(&self) -> bool {
        self.unasked.is_none() && (self.reporting.is_some() || self.missing == 0)
    }

    /// Whether reports of every connection or watch are held for it.
    fn is_long_under_way(&self) -> bool {
        self.unasked.is_none() && self.telling.scope().is_some_and(Scope::is_long)
    }
}

/// How far a planned stop has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Stopping {
    /// Waits for what is in flight; a member without a quorum not for ever.
    Draining { deadline: Instant },
    /// Replies are out; the end of the log is being attested and connections close.
    Closing { deadline: Instant },
    /// `Stopped` was said.
    Done,
}

impl Link {
    fn push(&mut self, item: ToShard, urgent: bool) {
        self.items.push(item);
        self.urgent |= urgent;
    }
}

impl Server {
    /// A server that goes on where `recovered` ends, with as many satellites as asked for; their
    /// numbers follow the home shard's. `seed` is entropy: log nonces and the randomised snapshot
    /// interval come from it.
    #[must_use]
    pub fn new(
        options: ServerOptions,
        recovered: Recovered,
        satellites: u16,
        seed: u64,
        clock: Clock,
    ) -> (Self, Vec<Satellite>) {
        let mut ops = FileOps::default();
        let mut recovered = recovered;
        let mut prng = Prng::new(seed);
        let mut ensemble = options.ensemble.clone().map(|it| {
            let lost = recovered.lost.clone();
            Box::new(Ensemble::new(it, recovered.epochs, lost, options.txn_bytes_max))
        });
        if let Some(ensemble) = &mut ensemble {
            take_up_config(ensemble, &mut recovered, &mut ops);
        }
        let published = Published { zxid: recovered.last_zxid, ..Published::default() };
        let ids: Vec<ShardId> = (1..=satellites).map(ShardId).collect();
        let shards = usize::from(satellites) + 1;
        let requests = options.outstanding_requests_max.max(1);
        let share = credit::share(requests, options.frame_bytes_max, shards);
        let replica = |id: &ShardId| {
            let tree = recovered.tree.replica();
            Satellite::new(*id, &options, (share, shards), tree, published, clock.now)
        };
        let others = ids.iter().map(replica).collect();
        let shard = Shard::new(HOME, &options, share, shards);
        let seed = prng.next_u64();
        let pipeline = Pipeline::new(options.clone(), recovered, seed, clock, &mut ops);
        let server = Self {
            pipeline,
            shard,
            satellites: ids.into_iter().map(|id| (id, Link::default())).collect(),
            ops,
            asks: Vec::new(),
            held: VecDeque::new(),
            lender: Lender::new(requests, share, shards),
            published,
            questions: VecDeque::new(),
            next_ticket: 0,
            life_asked: BTreeSet::new(),
            stopping: None,
            pulse: Pulse::new(clock.now),
            ensemble,
            prng,
            open_files: (0, 0),
            started: clock.now,
            options,
        };
        (server, others)
    }

    /// Last zxid that clients of this server can see.
    #[must_use]
    pub const fn published(&self) -> Zxid {
        self.published.zxid
    }

    /// The tree as clients see it, for checks by the simulator.
    #[must_use]
    pub const fn tree(&self) -> &crate::tree::Tree {
        self.pipeline.tree()
    }

    /// What a member of an ensemble knows to be committed, for checks by the simulator. While it
    /// serves clients the tree has nothing else.
    #[must_use]
    pub const fn committed(&self) -> Zxid {
        self.pipeline.committed_zxid()
    }

    fn dispatch(&mut self, clock: Clock, input: Input, out: &mut Vec<Output>) {
        match input {
            Input::Opened { conn, peer } => self.shard.opened(conn, peer, clock),
            Input::Received { conn, bytes } => {
                let around = surroundings(&self.pipeline, self.published, clock);
                self.shard.received(conn, bytes, around, &mut self.asks);
            }
            Input::Sent { conn, bytes } => self.shard.sent(conn, bytes, clock.now),
            Input::Closed { conn } => self.shard.closed(conn, &mut self.asks),
            Input::Mesh(Mesh { from, body: MeshBody::ToPipeline(asks) }) => {
                for ask in asks {
                    self.hear(clock, from, ask);
                }
            }
            // The home shard says what is published, and has no stream.
            Input::Mesh(_) | Input::Published(_) => {}
            Input::FileDone { id, result } => {
                match self.ensemble_file_done(clock, id, &result) {
                    Some(Ok(())) => return,
                    Some(Err(halt)) => return out.push(Output::Halt(halt)),
                    None => {}
                }
                match self.pipeline.on_file_done(clock.now, id, result, &mut self.ops) {
                    Ok(()) => self.commit(clock, out),
                    Err(failure) => out.push(Output::Halt(Halt::LogFailed(failure))),
                }
            }
            Input::FileRead { id, result } => {
                self.with_ensemble(clock, |ensemble, cx| ensemble.on_file_read(cx, id, result));
            }
            Input::Timer => {
                self.expire_sessions(clock);
                if !self.is_recovering() {
                    self.pipeline.on_timer(clock, &mut self.ops);
                }
                self.shard.on_timer(clock.now);
                self.with_ensemble(clock, |ensemble, cx| ensemble.on_timer(cx));
            }
            Input::OpenFiles { count, max } => self.open_files = (count, max),
            Input::Peer(input) => {
                self.with_ensemble(clock, |ensemble, cx| ensemble.on_peer(cx, input));
            }
            Input::Recovered(recovered) => self.recovered(clock, *recovered),
            Input::NotCut => self.with_ensemble(clock, |ensemble, cx| ensemble.on_not_cut(cx)),
            Input::Stop => {
                self.shard.stop_accepting();
                self.tell_all(|| ToShard::StopAccepting);
                if let Some(user) =
                    self.options.audit_user.as_ref().filter(|_| self.stopping.is_none())
                {
                    audit::server_stop(user);
                }
                let deadline = clock.now + limits::STOP_WAITS_FOR_COMMITS;
                self.stopping.get_or_insert(Stopping::Draining { deadline });
                if let Some(ensemble) = &mut self.ensemble {
                    ensemble.stop();
                }
            }
        }
    }

    /// Applies what has become durable, one txn at a time, and publishes it. What is more than a
    /// turn should take is left to the next one.
    fn commit(&mut self, clock: Clock, out: &mut Vec<Output>) {
        let mut ops_left = self.options.slices.ops;
        for _ in 0..self.options.slices.commits {
            if self.shard.holds_tree() {
                break;
            }
            let Some(origin) = self.pipeline.next_commit() else { break };
            if !self.pipeline.may_apply(ops_left) {
                break;
            }
            let around = surroundings(&self.pipeline, self.published, clock);
            let origin = origin.map(|origin| (origin, origin.address.shard));
            if let Some((origin, HOME)) = origin.filter(|_| !self.pipeline.is_applying())
                && !self.shard.before_delta(origin, around)
            {
                break;
            }
            let commit = match self.pipeline.apply_next(clock.now, &mut ops_left) {
                Ok(commit) => commit,
                Err(part) => {
                    self.shard.on_part(part.zxid, &part.steps);
                    break;
                }
            };
            let around = surroundings(&self.pipeline, self.published, clock);
            self.shard.on_delta(&commit.delta, &commit.delta.applied.steps, around);
            for (id, link) in &mut self.satellites {
                let urgent = link.watching || origin.is_some_and(|(_, shard)| shard == *id);
                link.behind_bytes += commit.bytes;
                link.push(ToShard::Delta(Arc::clone(&commit.delta), commit.bytes), urgent);
            }
            if let Some((shard, notice)) = commit.notice {
                self.deliver(shard, notice);
            }
        }
        self.flush_mesh(out);
        self.publish(out);
    }

    fn publish(&mut self, out: &mut Vec<Output>) {
        let now = Published {
            zxid: self.pipeline.tree().last_zxid(),
            epoch: self.ensemble.as_ref().map_or(0, |it| it.served_epoch()),
            pipeline_full: self.pipeline.is_full() || self.is_a_satellite_behind(),
            low_on_disk: self.pipeline.is_low_on_disk(),
        };
        if self.published != now {
            self.published = now;
            out.push(Output::Publish(now));
        }
    }

    fn is_a_satellite_behind(&self) -> bool {
        self.satellites.values().any(|link| limits::STREAM_BYTES_MAX / 2 < link.behind_bytes)
    }

    /// Lets the pipeline hear what the home shard asked, in order.
    fn hear_home(&mut self, clock: Clock) {
        for ask in std::mem::take(&mut self.asks) {
            self.hear(clock, HOME, ask);
        }
    }

    /// Handshakes, writes and ends of connections are heard in their order, and not while the end
    /// of a session or a multi is prepared.
    fn hear(&mut self, clock: Clock, from: ShardId, ask: Ask) {
        let in_order =
            matches!(ask, Ask::Attach(_) | Ask::Submit(_) | Ask::Detach(..) | Ask::Sync(..));
        match in_order && (self.pipeline.is_preparing() || !self.held.is_empty()) {
            true => self.held.push_back((from, ask)),
            false => self.heed(clock, from, ask),
        }
    }

    /// Hears what has waited.
    fn hear_held(&mut self, clock: Clock) {
        for _ in 0..self.options.slices.requests {
            if self.pipeline.is_preparing() {
                return;
            }
            let Some((from, ask)) = self.held.pop_front() else { return };
            self.heed(clock, from, ask);
        }
    }

    fn heed(&mut self, clock: Clock, from: ShardId, ask: Ask) {
        match ask {
            Ask::Attach(attach) => {
                let mut notices = Vec::new();
                self.pipeline.attach(clock, &attach, &mut notices);
                for (shard, notice) in notices {
                    self.deliver(shard, notice);
                }
            }
            Ask::Submit(submit) => {
                if let Some((shard, notice)) = self.pipeline.submit(clock, submit) {
                    self.deliver(shard, notice);
                }
            }
            Ask::Sync(session, origin) => match self.pipeline.duty() {
                Duty::Following => self.pipeline.forward_sync(session, origin),
                Duty::Leading => self.with_ensemble(clock, |it, cx| it.sync(cx, origin)),
                Duty::Alone | Duty::Idle | Duty::ReadOnly => {}
            },
            Ask::Touch(session) => self.pipeline.touch(session, clock.now),
            Ask::Detach(session, generation, heard) => {
                self.pipeline.detach(session, generation, heard);
            }
            Ask::Word(conn, word) => self.ask(Address { shard: from, conn }, word),
            Ask::Life(session, heard) => {
                self.life_asked.remove(&session);
                self.expire(clock, session, heard);
            }
            Ask::Report(ticket, report) => self.take_report(ticket, *report),
            Ask::Watching(watching) => self.with_link(from, |link| link.watching = watching),
            Ask::Passed(bytes) => {
                self.with_link(from, |link| {
                    link.behind_bytes = link.behind_bytes.saturating_sub(bytes);
                });
            }
            Ask::Borrow => {
                if let Some(credit) = self.lender.lend(from) {
                    self.lend(from, credit);
                }
            }
            Ask::GiveBack(credit) => {
                if let Some((shard, credit)) = self.lender.take_back(from, credit) {
                    self.lend(shard, credit);
                }
            }
            Ask::Emptied => self.with_link(from, |link| link.emptied = true),
        }
    }

    fn with_link(&mut self, shard: ShardId, change: impl FnOnce(&mut Link)) {
        if let Some(link) = self.satellites.get_mut(&shard) {
            change(link);
        }
    }

    fn deliver(&mut self, shard: ShardId, notice: Notice) {
        if shard == HOME {
            self.shard.on_notice(notice);
        } else {
            self.with_link(shard, |link| link.push(ToShard::Notice(notice), true));
        }
    }

    fn lend(&mut self, shard: ShardId, credit: Credit) {
        if shard == HOME {
            self.shard.lend(credit);
        } else {
            self.with_link(shard, |link| link.push(ToShard::Lend(credit), true));
        }
    }

    fn tell_all(&mut self, item: impl Fn() -> ToShard) {
        for link in self.satellites.values_mut() {
            link.push(item(), true);
        }
    }

    /// The shard that owns an overdue session's connection is asked before the session expires; a
    /// shard that does not answer keeps its sessions alive.
    fn expire_sessions(&mut self, clock: Clock) {
        for (session, owner) in self.pipeline.overdue(clock.now) {
            match owner {
                None => self.expire(clock, session, None),
                Some(HOME) => {
                    let heard = self.shard.last_heard(session, clock.now);
                    self.expire(clock, session, heard);
                }
                Some(shard) => {
                    if self.life_asked.insert(session) {
                        self.with_link(shard, |link| link.push(ToShard::AskLife(session), true));
                    }
                }
            }
        }
    }

    fn expire(&mut self, clock: Clock, session: SessionId, heard: Option<Instant>) {
        if let Some((shard, notice)) = self.pipeline.expire(clock, session, heard) {
            self.deliver(shard, notice);
        }
    }

    /// Begins to answer a word.
    fn ask(&mut self, from: Address, word: Word) {
        match word {
            Word::Srst => {
                self.shard.reset_stats();
                self.tell_all(|| ToShard::ResetStats);
                if let Some(ensemble) = &mut self.ensemble {
                    ensemble.reset_stats();
                }
            }
            Word::Crst => {
                self.shard.reset_conn_stats();
                self.tell_all(|| ToShard::ResetConnStats);
            }
            _ => {}
        }
        if self.mode().is_none() {
            let text = words::without_leader(self, word);
            return self.answer_word(from, text, true);
        }
        let ticket = Ticket(self.next_ticket);
        self.next_ticket += 1;
        let telling = Telling::new(word);
        let unasked = telling.scope();
        let question = Question { ticket, from, telling, unasked, reporting: None, missing: 0 };
        self.questions.push_back(question);
        self.begin_reports();
    }

    /// Has the shards report for the questions that wait for it. What tells of every connection or
    /// watch is gathered for one question at a time: the others wait, and cost nothing meanwhile.
    fn begin_reports(&mut self) {
        let mut is_long_under_way = self.questions.iter().any(Question::is_long_under_way);
        let satellites = self.satellites.len();
        let mut asked = Vec::new();
        for question in &mut self.questions {
            let Some(scope) = question.unasked else { continue };
            if scope.is_long() && std::mem::replace(&mut is_long_under_way, true) {
                continue;
            }
            question.unasked = None;
            question.reporting = Some(Reporting::new(scope));
            question.missing = satellites;
            asked.push((question.ticket, scope));
        }
        for (ticket, scope) in asked {
            self.tell_all(|| ToShard::Report(ticket, scope));
        }
    }

    fn take_report(&mut self, ticket: Ticket, report: ShardReport) {
        let question = self.questions.iter_mut().find(|question| question.ticket == ticket);
        let Some(question) = question else { return };
        question.missing -= usize::from(report.is_last);
        question.telling.gather(report);
    }

    /// Makes the next piece of the answer to a word.
    fn go_on_answering(&mut self, clock: Clock) {
        let Some(at) = self.questions.iter().position(Question::can_go_on) else { return };
        let Some(mut question) = self.questions.remove(at) else { return };
        if let Some(reporting) = &mut question.reporting {
            let report = self.shard.report(reporting);
            if report.is_last {
                question.reporting = None;
            }
            question.telling.gather(report);
        }
        let mut is_whole = false;
        if question.reporting.is_none() && question.missing == 0 {
            let mut text = String::new();
            is_whole = question.telling.go_on(self, clock, self.options.slices.words, &mut text);
            self.answer_word(question.from, text, is_whole);
        }
        match is_whole {
            true => self.begin_reports(),
            false => self.questions.push_back(question),
        }
    }

    fn answer_word(&mut self, to: Address, text: String, is_whole: bool) {
        match to.shard {
            HOME => self.shard.answer_word(to.conn, &text, is_whole),
            shard => {
                let item = ToShard::WordText(to.conn, text, is_whole);
                self.with_link(shard, |link| link.push(item, true));
            }
        }
    }

    pub(crate) const fn sessions(&self) -> &SessionTable {
        self.pipeline.sessions()
    }

    fn ensemble_file_done(
        &mut self,
        clock: Clock,
        id: FileOpId,
        result: &Result<(), FileFailure>,
    ) -> Option<Result<(), Halt>> {
        let ensemble = self.ensemble.as_mut()?;
        let (pipeline, ops) = (&mut self.pipeline, &mut self.ops);
        ensemble.on_file_done(&mut Context { clock, pipeline, ops }, id, result)
    }

    fn is_recovering(&self) -> bool {
        self.ensemble.as_ref().is_some_and(|ensemble| ensemble.is_recovering())
    }

    /// What the word `srvr` calls the mode; `None` while clients are not served.
    #[must_use]
    pub fn mode(&self) -> Option<&'static str> {
        self.ensemble.as_ref().map_or(Some("standalone"), |ensemble| ensemble.mode())
    }

    /// Another server decides when sessions expire.
    pub(super) fn is_learner(&self) -> bool {
        matches!(self.pipeline.duty(), Duty::Following | Duty::ReadOnly)
    }

    /// There is no quorum, and clients may only read.
    pub(super) fn is_read_only(&self) -> bool {
        self.pipeline.duty() == Duty::ReadOnly
    }

    /// New sessions are local.
    pub(super) fn has_local_sessions(&self) -> bool {
        self.is_read_only() || self.options.local_sessions() != LocalSessions::Off
    }

    /// When clients were let in the last time.
    pub(super) fn serving_since(&self) -> Instant {
        self.ensemble.as_ref().map_or(self.started, |ensemble| ensemble.serving_since())
    }

    /// What words tell of a member that serves clients.
    pub(super) fn ensemble_report(&self) -> Option<EnsembleReport> {
        self.ensemble.as_ref().and_then(|ensemble| ensemble.report())
    }

    /// The configuration in force; `None` when standalone.
    pub(super) fn config(&self) -> Option<&EnsembleConfig> {
        self.ensemble.as_ref().map(|ensemble| &ensemble.configs().committed)
    }

    /// Where a member listens for clients now.
    pub(super) fn client_port(&self) -> Option<u16> {
        self.ensemble.as_ref().map(|ensemble| ensemble.client_port())
    }

    /// Lets the ensemble's part do something with the pipeline.
    fn with_ensemble(&mut self, clock: Clock, act: impl FnOnce(&mut Ensemble, &mut Context<'_>)) {
        if let Some(ensemble) = &mut self.ensemble {
            let (pipeline, ops) = (&mut self.pipeline, &mut self.ops);
            act(ensemble, &mut Context { clock, pipeline, ops });
        }
    }

    /// Carries on the ensemble's part, and does what it wants of the server.
    fn go_on_with_ensemble(&mut self, clock: Clock, out: &mut Vec<Output>) {
        self.with_ensemble(clock, |ensemble, cx| ensemble.go_on(cx));
        while let Some(effect) = self.ensemble.as_mut().and_then(|it| it.next_effect()) {
            match effect {
                Effect::Serve(service) => {
                    self.shard.resume(service);
                    self.tell_all(|| ToShard::Resume(service));
                }
                Effect::Suspend => {
                    self.shard.suspend();
                    self.tell_all(|| ToShard::Suspend);
                }
                Effect::Replace => self.replace_replicas(),
                Effect::Listen(address) => out.push(Output::Listen(address)),
                Effect::Notice(shard, notice) => self.deliver(shard, notice),
                Effect::Recover { keep_until } => out.push(Output::Recover { keep_until }),
            }
        }
    }

    /// The state was made anew from what is on disk.
    fn recovered(&mut self, clock: Clock, mut recovered: Recovered) {
        if let Some(ensemble) = &mut self.ensemble {
            take_up_config(ensemble, &mut recovered, &mut self.ops);
        }
        let (installed, lost) = (recovered.installed, recovered.lost.clone());
        self.shard.tree_replaced();
        let seed = self.prng.next_u64();
        let options = self.options.clone();
        let pipeline = Pipeline::new(options, recovered, seed, clock, &mut self.ops);
        std::mem::replace(&mut self.pipeline, pipeline).hand_over_to(&mut self.pipeline);
        self.replace_replicas();
        self.with_ensemble(clock, |ensemble, cx| ensemble.on_recovered(cx, installed, lost));
    }

    fn replace_replicas(&mut self) {
        for link in self.satellites.values_mut() {
            let replica = self.pipeline.tree().replica();
            link.push(ToShard::Replace(Box::new(replica)), true);
        }
    }

    fn go_on_stopping(&mut self, now: Instant, out: &mut Vec<Output>) {
        match self.stopping {
            Some(Stopping::Draining { deadline })
                if (self.pipeline.is_drained() && self.held.is_empty())
                    || (deadline <= now
                        && (self.ensemble.is_some() || self.pipeline.lacks_room())) =>
            {
                self.shard.close_all();
                self.tell_all(|| ToShard::CloseAll);
                self.pipeline.attest_now(&mut self.ops);
                let deadline = now + limits::STOP_WAITS_FOR_CLIENTS;
                self.stopping = Some(Stopping::Closing { deadline });
            }
            Some(Stopping::Closing { deadline }) => {
                let emptied = self.satellites.values().all(|link| link.emptied);
                let closed = (self.shard.is_empty() && emptied) || deadline <= now;
                // What waits for room on the disk was promised to nobody.
                let is_settled = self.pipeline.is_settled()
                    || (self.ensemble.is_some() && self.pipeline.is_flushed())
                    || (deadline <= now && self.pipeline.lacks_room());
                if closed && is_settled {
                    self.stopping = Some(Stopping::Done);
                    out.push(Output::Stopped);
                }
            }
            _ => {}
        }
    }

    fn flush_mesh(&mut self, out: &mut Vec<Output>) {
        for (id, link) in &mut self.satellites {
            if !link.items.is_empty() {
                let body = MeshBody::ToShard(std::mem::take(&mut link.items));
                let urgent = std::mem::take(&mut link.urgent);
                out.push(Output::Mesh { to: *id, message: Mesh { from: HOME, body }, urgent });
            }
        }
    }

    fn hand_over_ops(&mut self, out: &mut Vec<Output>) {
        out.extend(self.ops.take().into_iter().map(|(id, op)| Output::File { id, op }));
        out.extend(self.ops.take_reads().into_iter().map(|(id, part)| Output::Read { id, part }));
    }
}

impl Machine for Server {
    fn step(&mut self, clock: Clock, input: Input, out: &mut Vec<Output>) {
        if let Some(stalled) = self.pulse.beat(clock.now) {
            self.pipeline.credit(stalled);
            self.shard.credit_time(stalled);
            self.with_ensemble(clock, |ensemble, _| ensemble.credit(stalled));
        }
        self.dispatch(clock, input, out);
        self.hear_home(clock);
        self.go_on_with_ensemble(clock, out);
        self.hand_over_ops(out);
    }

    fn turn_end(&mut self, clock: Clock, out: &mut Vec<Output>) {
        self.shard.begin_turn();
        if self.pipeline.next_commit().is_some() {
            self.commit(clock, out);
        }
        self.pipeline.prepare_some();
        self.pipeline.look_for_overdue(clock.wall);
        self.hear_held(clock);
        self.go_on_answering(clock);
        // Twice: answers that the pipeline gave to what the first pass took in go out in the same
        // turn.
        for _ in 0..2 {
            let around = surroundings(&self.pipeline, self.published, clock);
            self.shard.turn_end(around, &mut self.asks, out);
            self.hear_home(clock);
        }
        // What was prepared leaves for the learners before it is written here.
        self.go_on_with_ensemble(clock, out);
        if let Some(ensemble) = &mut self.ensemble {
            out.extend(ensemble.take_outputs().into_iter().map(Output::Peer));
        }
        match self.is_recovering() {
            true => self.pipeline.turn_end_in_wait(&mut self.ops),
            false => self.pipeline.turn_end(clock, &mut self.ops),
        }
        self.go_on_stopping(clock.now, out);
        self.flush_mesh(out);
        self.publish(out);
        self.hand_over_ops(out);
    }

    fn wants_turn(&self) -> bool {
        self.shard.wants_turn()
            || self.pipeline.next_commit().is_some()
            || self.pipeline.wants_turn()
            || (!self.held.is_empty() && !self.pipeline.is_preparing())
            || self.questions.iter().any(Question::can_go_on)
            || self.ensemble.as_ref().is_some_and(|ensemble| ensemble.wants_turn())
    }

    fn next_timer(&self) -> Option<Instant> {
        let stop = match self.stopping {
            Some(Stopping::Closing { deadline }) => Some(deadline),
            Some(Stopping::Draining { deadline }) if self.ensemble.is_some() => Some(deadline),
            _ => None,
        };
        let pulse = Some(self.pulse.next());
        let ensemble = self.ensemble.as_ref().and_then(|ensemble| ensemble.next_timer());
        [self.pipeline.next_timer(), self.shard.next_timer(), ensemble, stop, pulse]
            .into_iter()
            .flatten()
            .min()
    }
}

fn surroundings(pipeline: &Pipeline, published: Published, clock: Clock) -> Surroundings<'_> {
    let zxid = pipeline.tree().last_zxid();
    Surroundings {
        now: clock.now,
        view: pipeline.tree(),
        published: Published { zxid, ..published },
        pipeline_full: published.pipeline_full || pipeline.is_full(),
        low_on_disk: pipeline.is_low_on_disk(),
    }
}

/// The ensemble's part takes note of the configuration in the tree, and the tree shows the one that
/// is in force. One that is later than that stays as its txn has left it, if it counts or may come
/// to: all servers show the same then.
fn take_up_config(ensemble: &mut Ensemble, recovered: &mut Recovered, ops: &mut FileOps) {
    let may_count = ensemble.learn_from_tree(recovered.tree.config(), ops);
    let configs = ensemble.configs();
    let shown = version_of(recovered.tree.config());
    let is_later = shown.is_some_and(|shown| configs.committed.version < shown);
    if !is_later || !may_count {
        let text = config::ensemble::text(&configs.committed);
        recovered.tree.set_config(&text, configs.committed.version);
    }
}

/// The version of a configuration's text.
fn version_of(text: Option<&[u8]>) -> Option<i64> {
    let text = std::str::from_utf8(text?).ok()?;
    config::ensemble::parse(text, "/zookeeper/config").ok().map(|config| config.version)
}
