//! [`Satellite`]: a shard away from the pipeline, with a replica of the tree that follows the
//! pipeline's stream.
//!
//! The replica is never ahead of `published`, and is caught up with it before anything is read, so
//! that clients of all shards see one order of events: whoever hears of a txn, every later read on
//! any shard shows it.

use std::collections::VecDeque;
use std::sync::Arc;

use crate::base::Instant;
use crate::limits;
use crate::model::ShardId;
use crate::tree::{Partial, Tree};

use super::contract::{Clock, Input, Machine, Mesh, MeshBody, Output, Published};
use super::credit::Credit;
use super::machine::HOME;
use super::options::{ServerOptions, Slices};
use super::pulse::Pulse;
use super::shard::{Reporting, Shard, Surroundings};
use super::stream::{Ask, Delta, Ticket, ToShard};

/// One shard that is not the home shard. Made by [`Server::new`](super::Server::new); driven as
/// [`contract`](super::contract) says, on any thread.
pub struct Satellite {
    id: ShardId,
    shard: Shard,
    replica: Tree,
    /// Not yet taken in: what follows a delta that is not published.
    stream: VecDeque<ToShard>,
    /// The txn of which only a part is applied; the stream waits.
    applying: Option<(Arc<Delta>, usize, Partial)>,
    slices: Slices,
    asks: Vec<Ask>,
    /// Words that wait for what is told of this shard.
    reports: VecDeque<(Ticket, Reporting)>,
    published: Published,
    /// Bytes of deltas applied and not yet told of.
    passed_bytes: usize,
    /// What the pipeline knows.
    watching: bool,
    closing: bool,
    pulse: Pulse,
}

impl Satellite {
    pub(super) fn new(
        id: ShardId,
        options: &ServerOptions,
        (share, shards): (Credit, usize),
        replica: Tree,
        published: Published,
        now: Instant,
    ) -> Self {
        Self {
            id,
            shard: Shard::new(id, options, share, shards),
            replica,
            stream: VecDeque::new(),
            applying: None,
            slices: options.slices,
            asks: Vec::new(),
            reports: VecDeque::new(),
            published,
            passed_bytes: 0,
            watching: false,
            closing: false,
            pulse: Pulse::new(now),
        }
    }

    /// Its number.
    #[must_use]
    pub const fn id(&self) -> ShardId {
        self.id
    }

    /// The replica, for checks by the simulator.
    #[must_use]
    pub const fn tree(&self) -> &Tree {
        &self.replica
    }

    /// Takes in the stream up to what is published, or as much of it as one turn should take.
    fn catch_up(&mut self, clock: Clock) {
        self.follow_some(clock);
        self.shard.set_behind(self.is_behind());
    }

    /// Whether there is more to take in.
    fn is_behind(&self) -> bool {
        let waits = |item: &ToShard| match item {
            ToShard::Delta(delta, _) => self.published.zxid < delta.header.zxid,
            _ => false,
        };
        self.applying.is_some() || self.stream.front().is_some_and(|item| !waits(item))
    }

    fn follow_some(&mut self, clock: Clock) {
        let (mut ops_left, mut commits_left) = (self.slices.ops, self.slices.commits);
        if self.shard.holds_tree() || !self.go_on_applying(clock, &mut ops_left) {
            return;
        }
        while self.is_behind() && !self.shard.holds_tree() && commits_left != 0 {
            commits_left -= 1;
            let Some(item) = self.stream.pop_front() else { return };
            match item {
                ToShard::Delta(delta, bytes) => {
                    let fits = Partial::fits(&delta.body, self.slices.ops, ops_left);
                    if !fits || !self.may_follow(&delta, clock) {
                        self.stream.push_front(ToShard::Delta(delta, bytes));
                        return;
                    }
                    self.follow(delta, bytes, clock, &mut ops_left);
                    if !self.go_on_applying(clock, &mut ops_left) {
                        return;
                    }
                }
                ToShard::Notice(notice) => self.shard.on_notice(notice),
                ToShard::WordText(conn, text, is_last) => {
                    self.shard.answer_word(conn, &text, is_last);
                }
                ToShard::AskLife(session) => {
                    let heard = self.shard.last_heard(session, clock.now);
                    self.asks.push(Ask::Life(session, heard));
                }
                ToShard::Report(ticket, scope) => {
                    self.reports.push_back((ticket, Reporting::new(scope)));
                }
                ToShard::Lend(credit) => self.shard.lend(credit),
                ToShard::ResetStats => self.shard.reset_stats(),
                ToShard::ResetConnStats => self.shard.reset_conn_stats(),
                ToShard::StopAccepting => self.shard.stop_accepting(),
                ToShard::Suspend => self.shard.suspend(),
                ToShard::Resume(service) => self.shard.resume(service),
                ToShard::Replace(tree) => {
                    self.replica = *tree;
                    self.shard.tree_replaced();
                }
                ToShard::CloseAll => {
                    self.shard.close_all();
                    self.closing = true;
                }
            }
        }
    }

    /// Runs the reads in front of a txn; whether it may be applied now.
    fn may_follow(&mut self, delta: &Delta, clock: Clock) -> bool {
        let around = surroundings(&self.replica, self.published, clock);
        let origin = delta.origin.filter(|origin| origin.address.shard == self.id);
        origin.is_none_or(|origin| self.shard.before_delta(origin, around))
    }

    fn follow(&mut self, delta: Arc<Delta>, bytes: usize, clock: Clock, ops_left: &mut usize) {
        if let Some(partial) = Partial::begin(&delta.header, &delta.body, self.slices.ops) {
            self.applying = Some((delta, bytes, partial));
            return;
        }
        *ops_left = ops_left.saturating_sub(delta.body.op_count());
        self.replica.apply(&delta.header, &delta.body);
        self.passed_bytes += bytes;
        let around = surroundings(&self.replica, self.published, clock);
        self.shard.on_delta(&delta, &delta.applied.steps, around);
    }

    /// Goes on with the txn that is applied in part; whether nothing of it is left.
    fn go_on_applying(&mut self, clock: Clock, ops_left: &mut usize) -> bool {
        let Some((delta, bytes, mut partial)) = self.applying.take() else { return true };
        let mut steps = Vec::new();
        let body = &delta.body;
        if self.replica.apply_some(&mut partial, body, ops_left, &mut steps).is_none() {
            self.shard.on_part(delta.header.zxid, &steps);
            self.applying = Some((delta, bytes, partial));
            return false;
        }
        self.passed_bytes += bytes;
        let around = surroundings(&self.replica, self.published, clock);
        self.shard.on_delta(&delta, &steps, around);
        true
    }

    /// The next piece of the report that is due.
    fn go_on_reporting(&mut self) {
        let Some((ticket, reporting)) = self.reports.front_mut() else { return };
        let report = self.shard.report(reporting);
        let is_last = report.is_last;
        self.asks.push(Ask::Report(*ticket, Box::new(report)));
        if is_last {
            self.reports.pop_front();
        }
    }

    /// What the pipeline should know of this turn.
    fn take_stock(&mut self) {
        if limits::STREAM_BYTES_MAX / 8 < self.passed_bytes {
            self.asks.push(Ask::Passed(std::mem::take(&mut self.passed_bytes)));
        }
        let watching = self.shard.is_watching();
        if self.watching != watching {
            self.watching = watching;
            self.asks.push(Ask::Watching(watching));
        }
        if self.closing && self.shard.is_empty() {
            self.closing = false;
            self.asks.push(Ask::Emptied);
        }
    }
}

impl Machine for Satellite {
    fn step(&mut self, clock: Clock, input: Input, _out: &mut Vec<Output>) {
        if let Some(stalled) = self.pulse.beat(clock.now) {
            self.shard.credit_time(stalled);
        }
        match input {
            Input::Opened { conn, peer } => self.shard.opened(conn, peer, clock),
            Input::Received { conn, bytes } => {
                let around = surroundings(&self.replica, self.published, clock);
                self.shard.received(conn, bytes, around, &mut self.asks);
            }
            Input::Sent { conn, bytes } => self.shard.sent(conn, bytes, clock.now),
            Input::Closed { conn } => self.shard.closed(conn, &mut self.asks),
            Input::Mesh(Mesh { body: MeshBody::ToShard(items), .. }) => {
                self.stream.extend(items);
                self.catch_up(clock);
            }
            Input::Published(published) => {
                // It goes back where a leader has the log cut, and then no delta waits that is
                // later: deltas are of committed txns.
                self.published = published;
                self.catch_up(clock);
            }
            Input::Timer => self.shard.on_timer(clock.now),
            // A stop reaches this shard through the pipeline; it asks nothing of the disk.
            Input::Stop
            | Input::FileDone { .. }
            | Input::OpenFiles { .. }
            | Input::Mesh(_)
            | Input::Peer(_)
            | Input::Recovered(_)
            | Input::FileRead { .. }
            | Input::NotCut => {}
        }
    }

    fn turn_end(&mut self, clock: Clock, out: &mut Vec<Output>) {
        self.shard.begin_turn();
        if self.is_behind() {
            self.catch_up(clock);
        }
        let around = surroundings(&self.replica, self.published, clock);
        self.shard.turn_end(around, &mut self.asks, out);
        self.go_on_reporting();
        self.take_stock();
        if !self.asks.is_empty() {
            let body = MeshBody::ToPipeline(std::mem::take(&mut self.asks));
            let message = Mesh { from: self.id, body };
            out.push(Output::Mesh { to: HOME, message, urgent: true });
        }
    }

    fn wants_turn(&self) -> bool {
        self.shard.wants_turn() || !self.reports.is_empty() || self.is_behind()
    }

    fn next_timer(&self) -> Option<Instant> {
        [self.shard.next_timer(), Some(self.pulse.next())].into_iter().flatten().min()
    }
}

fn surroundings(replica: &Tree, published: Published, clock: Clock) -> Surroundings<'_> {
    Surroundings {
        now: clock.now,
        view: replica,
        published,
        pipeline_full: published.pipeline_full,
        low_on_disk: published.low_on_disk,
    }
}
