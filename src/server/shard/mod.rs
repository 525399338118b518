//! The client-facing shard: connections, the request order of their sessions, and their watches.
//!
//! A shard hears bytes from its clients and one ordered stream of deltas from the pipeline. Each
//! connection has one queue of what it was sent and not yet answered:
//!
//! 1. Pings, auth and errors are answers made at receipt, given when their turn comes.
//! 2. Writes go to the pipeline at once; their place in the queue waits for their delta.
//! 3. Reads run when they reach the head of the queue. A read before an own write sees the tree
//!    without that write, a read behind it sees the tree with it: [`Shard::before_delta`] runs
//!    those that must come first, [`Shard::turn_end`] all others.
//!
//! A delta's events are put into the connections' output before any reply that shows its zxid.

mod conn;
mod deltas;
mod eager;
mod intake;
mod load;
mod long;
mod outbox;
mod reads;
mod replies;
mod report;

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::net::SocketAddr;

use bytes::Bytes;

use crate::auth::AuthConfig;
use crate::base::{Duration, Instant};
use crate::limits;
use crate::model::{ConnId, ErrorCode, SessionId, ShardId, Zxid};
use crate::tree::Tree;
use crate::watch::WatchTable;
use crate::wire::connect::{ConnectResponse, session_password};

use super::contract::{Clock, Output, Published};
use super::credit::{Budget, Credit};
use super::options::{LargeRequests, RequestThrottle, ServerOptions, Slices, WordsAllowed};
use super::stats::Latency;
use super::stream::{Ask, Notice, Origin, Service};

pub(crate) use conn::ConnStats;
use conn::{Answer, Conn, Phase, Work, WriteKind};
use deltas::Telling;
use load::abort_if_too_slow;
pub(crate) use report::{Counts, Reporting, Scope, ShardReport};

/// One shard. See the module's documentation.
pub(crate) struct Shard {
    id: ShardId,
    options: ShardOptions,
    /// Boxed: they are taken out and put back for every request.
    conns: BTreeMap<ConnId, Box<Conn>>,
    by_session: BTreeMap<SessionId, ConnId>,
    watches: WatchTable,
    /// Connections that have something to run or to send at the end of the turn, each once.
    dirty: VecDeque<ConnId>,
    /// Connections whose long answers are being made, each once.
    long: VecDeque<ConnId>,
    /// The connection whose multiRead has not read everything: the tree must stay as it is.
    pinning: Option<ConnId>,
    /// Another one may begin in this turn: there was time for txns.
    may_pin: bool,
    /// The txn of which only a part is applied here.
    midway: Option<Zxid>,
    /// Events of the last txn that not all have heard, and how many more may in this turn.
    telling: VecDeque<Telling>,
    told_left: usize,
    /// The tree is not yet the one that is published.
    behind: bool,
    /// Watches of ended connections are left.
    sweeping: bool,
    /// Connections whose received bytes wait because a limit was reached, each once.
    stalled: VecDeque<ConnId>,
    /// How many of them were looked at since anything was answered.
    stalled_looks: usize,
    /// Connections whose requests wait until others' replies are sent.
    muted: Vec<ConnId>,
    /// Connections that were flushed in this turn.
    flushed: Vec<ConnId>,
    /// Connections that are not read, and when it is next told which of their clients live.
    unread: BTreeSet<ConnId>,
    touch_unread_at: Instant,
    budget: Budget,
    large_bytes: usize,
    unsent_bytes: usize,
    /// When to look for slow readers, and for long frames that do not arrive.
    slow_at: Option<Instant>,
    frames_at: Option<Instant>,
    /// When connections that were not taken in are looked at again.
    stalled_at: Option<Instant>,
    /// Stalled connections can go on at once.
    again: bool,
    /// Connections without a session, by deadline.
    sessionless: VecDeque<(Instant, ConnId)>,
    accepting: bool,
    /// A member of an ensemble without a leader answers words only, or reads as well.
    service: Service,
    latency: Latency,
    received: u64,
    sent: u64,
}

struct ShardOptions {
    auth: AuthConfig,
    frame_bytes_max: usize,
    large_requests: LargeRequests,
    request_throttle: RequestThrottle,
    unsent_bytes_max: usize,
    /// Writes may have to be forwarded, and syncs need a leader's word.
    is_member: bool,
    sessionless_timeout: Duration,
    words_allowed: WordsAllowed,
    slices: Slices,
}

/// What a turn is told about the world outside the shard.
#[derive(Clone, Copy)]
pub(crate) struct Surroundings<'a> {
    pub(crate) now: Instant,
    /// The tree. Only pings are answered while it does not show all that is published.
    pub(crate) view: &'a Tree,
    /// What is published: handshakes may have seen so much.
    pub(crate) published: Published,
    /// The pipeline takes no writes for the moment.
    pub(crate) pipeline_full: bool,
    /// What makes the tree larger, or might, is refused.
    pub(crate) low_on_disk: bool,
}

impl Shard {
    /// One of so many shards, with its own share of what may be outstanding.
    pub(crate) fn new(id: ShardId, options: &ServerOptions, share: Credit, shards: usize) -> Self {
        let LargeRequests { threshold, bytes_max } = options.large_requests;
        let throttle = options.request_throttle;
        Self {
            id,
            options: ShardOptions {
                auth: options.auth.clone(),
                frame_bytes_max: options.frame_bytes_max,
                large_requests: LargeRequests { threshold, bytes_max: bytes_max / shards },
                request_throttle: RequestThrottle {
                    requests_max: throttle.requests_max.div_ceil(shards),
                    ..throttle
                },
                unsent_bytes_max: limits::UNSENT_BYTES_MAX / shards,
                is_member: options.is_member(),
                sessionless_timeout: options.sessionless_timeout,
                words_allowed: options.words_allowed.clone(),
                slices: options.slices,
            },
            conns: BTreeMap::new(),
            by_session: BTreeMap::new(),
            watches: WatchTable::new(),
            dirty: VecDeque::new(),
            long: VecDeque::new(),
            pinning: None,
            may_pin: true,
            midway: None,
            telling: VecDeque::new(),
            told_left: options.slices.told,
            behind: false,
            sweeping: false,
            stalled: VecDeque::new(),
            stalled_looks: 0,
            muted: Vec::new(),
            flushed: Vec::new(),
            unread: BTreeSet::new(),
            touch_unread_at: Instant::default(),
            budget: Budget::new(share),
            large_bytes: 0,
            unsent_bytes: 0,
            slow_at: None,
            frames_at: None,
            stalled_at: None,
            again: false,
            sessionless: VecDeque::new(),
            accepting: true,
            service: if options.is_member() { Service::Nothing } else { Service::Full },
            latency: Latency::default(),
            received: 0,
            sent: 0,
        }
    }

    pub(crate) fn opened(&mut self, id: ConnId, peer: SocketAddr, clock: Clock) {
        let conn = Box::new(Conn::new(peer, self.options.frame_bytes_max, clock));
        let earlier = self.conns.insert(id, conn);
        assert!(earlier.is_none(), "connection ids are never reused");
        self.sessionless.push_back((clock.now + self.options.sessionless_timeout, id));
        if !self.accepting {
            self.close(id);
        }
    }

    pub(crate) fn received(
        &mut self,
        id: ConnId,
        bytes: Bytes,
        around: Surroundings<'_>,
        asks: &mut Vec<Ask>,
    ) {
        let Some(conn) = self.conns.get_mut(&id) else { return };
        if conn.phase.is_closing() {
            return;
        }
        conn.heard = around.now;
        conn.deframer.push(bytes);
        self.take_in(id, around, asks);
    }

    pub(crate) fn sent(&mut self, id: ConnId, bytes: usize, now: Instant) {
        if let Some(conn) = self.conns.get_mut(&id) {
            conn.unsent_bytes = conn.unsent_bytes.saturating_sub(bytes);
            conn.sent_at = now;
            mark_dirty(&mut self.dirty, id, conn);
        }
    }

    pub(crate) fn closed(&mut self, id: ConnId, asks: &mut Vec<Ask>) {
        let Some(mut conn) = self.conns.remove(&id) else { return };
        self.unread.remove(&id);
        conn.begin_close();
        self.recount(&mut conn);
        self.watches.remove_conn(id);
        self.sweeping = true;
        if let Some((session, generation)) = conn.attachment() {
            if self.by_session.get(&session) == Some(&id) {
                self.by_session.remove(&session);
            }
            asks.push(Ask::Detach(session, generation, conn.heard));
        }
    }

    /// An answer of the pipeline to a handshake.
    pub(crate) fn on_notice(&mut self, notice: Notice) {
        match notice {
            Notice::Attached { conn: id, session, generation, timeout_ms } => {
                let Some(conn) = self.conns.get_mut(&id) else { return };
                let Phase::Attaching { has_read_only } = conn.phase else { return };
                conn.phase = Phase::Live { session, generation };
                conn.deframer.skip_up_to(limits::FRAME_BYTES_SKIPPED_MAX);
                conn.stats.timeout_ms = timeout_ms;
                let password = session_password(session);
                let response = ConnectResponse {
                    timeout_ms,
                    session,
                    password,
                    read_only: self.service == Service::ReadOnly,
                    has_read_only,
                };
                response.encode(conn.out.tail());
                self.by_session.insert(session, id);
                if !std::mem::replace(&mut conn.in_stalled, true) {
                    self.stalled.push_front(id);
                }
                mark_dirty(&mut self.dirty, id, conn);
            }
            Notice::Refused { conn: id } => {
                let Some(conn) = self.conns.get_mut(&id) else { return };
                let Phase::Attaching { has_read_only } = conn.phase else { return };
                let read_only = self.service == Service::ReadOnly;
                let refused = ConnectResponse::refused(has_read_only);
                ConnectResponse { read_only, ..refused }.encode(conn.out.tail());
                self.close(id);
            }
            Notice::Drop { conn } => self.close(conn),
            Notice::Answered(origin, code) => self.answered(origin, code),
            Notice::Synced(origin) => self.synced(origin),
        }
    }

    /// The next piece of a four-letter word's text; the connection is closed behind the last.
    pub(crate) fn answer_word(&mut self, id: ConnId, text: &str, is_last: bool) {
        if let Some(conn) = self.conns.get_mut(&id) {
            conn.out.tail().extend_from_slice(text.as_bytes());
            mark_dirty(&mut self.dirty, id, conn);
            if is_last {
                self.sent += 1;
                self.close(id);
            }
        }
    }

    /// When a session was last heard of.
    pub(crate) fn last_heard(&self, session: SessionId, now: Instant) -> Option<Instant> {
        let conn = self.by_session.get(&session).and_then(|id| self.conns.get(id))?;
        Some(conn.last_alive(now))
    }

    /// Who is not read cannot be heard: whoever counts the sessions' time is told that they live.
    fn touch_unread(&mut self, now: Instant, asks: &mut Vec<Ask>) {
        if self.unread.is_empty() || now < self.touch_unread_at {
            return;
        }
        self.touch_unread_at = now + limits::TOUCH_EVERY;
        for id in &self.unread {
            let Some(conn) = self.conns.get_mut(id) else { continue };
            let Phase::Live { session, .. } = conn.phase else { continue };
            let alive = conn.last_alive(now);
            if conn.touched.is_none_or(|at| at < alive) {
                conn.touched = Some(alive);
                asks.push(Ask::Touch(session));
            }
        }
    }

    /// No client could be heard for this long.
    pub(crate) fn credit_time(&mut self, stalled: Duration) {
        for conn in self.conns.values_mut() {
            conn.heard = conn.heard + stalled;
            conn.sent_at = conn.sent_at + stalled;
        }
    }

    /// Whether any connection watches anything.
    pub(crate) fn is_watching(&self) -> bool {
        !self.watches.is_empty()
    }

    /// Call at the beginning of a turn's end, before txns are applied: where multiReads wait, they
    /// and the txns take turns.
    pub(crate) fn begin_turn(&mut self) {
        self.may_pin = self.pinning.is_none();
    }

    /// Takes in what waited, runs the reads at the heads of the queues, and hands each
    /// connection's output over in one piece.
    pub(crate) fn turn_end(
        &mut self,
        around: Surroundings<'_>,
        asks: &mut Vec<Ask>,
        out: &mut Vec<Output>,
    ) {
        let before = (self.received, self.sent);
        self.told_left = self.options.slices.told;
        self.tell_some();
        for id in std::mem::take(&mut self.muted) {
            if let Some(conn) = self.conns.get_mut(&id) {
                mark_dirty(&mut self.dirty, id, conn);
            }
        }
        let slices = self.options.slices;
        for _ in 0..slices.conns.min(self.stalled.len()) {
            let Some(id) = self.stalled.pop_front() else { break };
            self.stalled_looks += 1;
            if let Some(conn) = self.conns.get_mut(&id) {
                conn.in_stalled = false;
            }
            self.take_in(id, around, asks);
        }
        let mut requests = slices.requests;
        for _ in 0..slices.conns.min(self.dirty.len()) {
            if requests == 0 {
                break;
            }
            let Some(id) = self.dirty.pop_front() else { break };
            let Some(mut conn) = self.conns.remove(&id) else { continue };
            if self.midway.is_some() && conn.told_midway == self.midway {
                self.dirty.push_back(id);
                self.conns.insert(id, conn);
                continue;
            }
            conn.dirty = false;
            let most = requests.min(slices.requests_per_conn);
            requests = requests.saturating_sub(self.run_some(id, &mut conn, around, most));
            self.flush(id, &mut conn, around.now, out);
            self.recount(&mut conn);
            self.flushed.push(id);
            if conn.can_run() && !conn.must_wait() {
                match self.may_reply(&conn) {
                    true => mark_dirty(&mut self.dirty, id, &mut conn),
                    false => self.muted.push(id),
                }
            }
            if conn.can_go_on() && !std::mem::replace(&mut conn.in_long, true) {
                self.long.push_back(id);
            }
            self.conns.insert(id, conn);
        }
        self.go_on_long(around.view);
        // Nothing moves in the table while it is found out who watches.
        if self.sweeping && !self.is_telling() {
            self.sweeping = self.watches.sweep(slices.watches);
        }
        self.close_slow_readers(around.now, out);
        self.pause_and_resume(out);
        self.touch_unread(around.now, asks);
        asks.extend(self.budget.give_back().map(Ask::GiveBack));
        // What was answered may let stalled connections go on.
        if before != (self.received, self.sent) {
            self.stalled_looks = 0;
        }
        self.again = self.stalled_looks < self.stalled.len();
        self.stalled_at =
            (!self.stalled.is_empty()).then(|| around.now + limits::STALLED_RETRY_AFTER);
    }

    /// Makes a slice of the long answer whose turn it is; of those that read nothing, in any case.
    fn go_on_long(&mut self, view: &Tree) {
        if let Some(id) = self.pinning {
            self.go_on_multi_read(id, view);
        }
        let may_read = self.pinning.is_none() && !self.is_held_up();
        for _ in 0..self.options.slices.conns.min(self.long.len()) {
            let Some(id) = self.long.pop_front() else { return };
            let Some(conn) = self.conns.get_mut(&id) else { continue };
            if !may_read && conn.out.is_at_read() {
                self.long.push_back(id);
                continue;
            }
            let (watches, steps_max) = (&mut self.watches, self.options.slices.long_steps);
            conn.out.go_on(|answer| answer.go_on(view, watches, id, steps_max));
            conn.in_long = conn.can_go_on();
            if conn.in_long {
                self.long.push_back(id);
            }
            return mark_dirty(&mut self.dirty, id, conn);
        }
    }

    /// Reads more, whatever the connection's socket takes: others wait for it. It shows a state
    /// that was published when it began.
    fn go_on_multi_read(&mut self, id: ConnId, view: &Tree) {
        let (auth, steps_max) = (&self.options.auth, self.options.slices.long_steps);
        // The connection may have ended meanwhile.
        let read = self.conns.get_mut(&id).and_then(|conn| conn.out.multi_read());
        if read.is_none_or(|read| read.go_on(view, auth, steps_max)) {
            self.pinning = None;
            if let Some(conn) = self.conns.get_mut(&id) {
                mark_dirty(&mut self.dirty, id, conn);
            }
        }
    }

    /// Whether [`Shard::turn_end`] left work over.
    pub(crate) fn wants_turn(&self) -> bool {
        let has_work = !self.dirty.is_empty() || !self.long.is_empty() || self.sweeping;
        self.again || has_work || self.holds_tree()
    }

    /// Closes connections that never started a session, or that keep others waiting.
    pub(crate) fn on_timer(&mut self, now: Instant) {
        self.close_stalled_frames(now);
        if self.stalled_at.is_some_and(|at| at <= now) {
            self.stalled_looks = 0;
        }
        while let Some((deadline, id)) = self.sessionless.front().copied() {
            if now < deadline {
                break;
            }
            self.sessionless.pop_front();
            let silent = self.conns.get(&id).is_some_and(|conn| matches!(conn.phase, Phase::Fresh));
            if silent {
                tracing::debug!(conn = id.0, "closed: no session was started in time");
                self.close(id);
            }
        }
    }

    pub(crate) fn next_timer(&self) -> Option<Instant> {
        let sessionless = self.sessionless.front().map(|(deadline, _)| *deadline);
        let waits = [sessionless, self.slow_at, self.frames_at, self.stalled_at];
        waits.into_iter().flatten().min()
    }

    /// From here on nothing new is taken in; what waits for the pipeline is still answered.
    pub(crate) fn stop_accepting(&mut self) {
        self.accepting = false;
    }

    /// There is no leader: sessions' connections are closed and no session is begun.
    pub(crate) fn suspend(&mut self) {
        self.service = Service::Nothing;
        let has_session =
            |conn: &Conn| matches!(conn.phase, Phase::Attaching { .. } | Phase::Live { .. });
        let ids = self.conns.iter().filter(|(_, conn)| has_session(conn)).map(|(id, _)| *id);
        for id in ids.collect::<Vec<ConnId>>() {
            self.close(id);
        }
    }

    /// Sessions may begin and go on.
    pub(crate) fn resume(&mut self, service: Service) {
        self.service = service;
    }

    /// A write of an attachment is answered in its turn with no zxid of its own.
    fn answered(&mut self, origin: Origin, code: ErrorCode) {
        self.settle(origin, |work| match work {
            Work::Write(kind) => {
                let close = *kind == WriteKind::Close;
                *work = Work::Answer(Answer { close, ..Answer::error(code) });
                true
            }
            _ => false,
        });
    }

    /// A sync that waited for the leader's word is answered in its turn.
    fn synced(&mut self, origin: Origin) {
        self.settle(origin, |work| match work {
            Work::Sync { awaited, .. } => std::mem::replace(awaited, false),
            _ => false,
        });
    }

    /// Settles the request of this origin, if it is still to be answered.
    fn settle(&mut self, origin: Origin, settle: impl FnOnce(&mut Work) -> bool) {
        let id = origin.address.conn;
        let Some(conn) = self.conns.get_mut(&id) else { return };
        let is_current = conn.attachment().is_some_and(|(_, now)| now == origin.generation);
        let pending = conn.pending(origin.number).filter(|_| is_current);
        if pending.is_some_and(|pending| settle(&mut pending.work)) {
            mark_dirty(&mut self.dirty, id, conn);
        }
    }

    /// Closes every connection, for a planned stop.
    pub(crate) fn close_all(&mut self) {
        let ids: Vec<ConnId> = self.conns.keys().copied().collect();
        for id in ids {
            self.close(id);
        }
    }

    /// Whether all connections are gone.
    pub(crate) fn is_empty(&self) -> bool {
        self.conns.is_empty()
    }

    /// Ends a connection: what was put into its output is still sent, nothing more is taken in.
    fn close(&mut self, id: ConnId) {
        if let Some(conn) = self.conns.get_mut(&id) {
            conn.begin_close();
            mark_dirty(&mut self.dirty, id, conn);
        }
    }

    fn flush(&mut self, id: ConnId, conn: &mut Conn, now: Instant, out: &mut Vec<Output>) {
        abort_if_too_slow(conn);
        while !conn.close_asked
            && let Some(bytes) = conn.out.take(conn.has_window())
        {
            if conn.unsent_bytes == 0 {
                conn.sent_at = now;
            }
            conn.unsent_bytes += bytes.len();
            out.push(Output::Send { conn: id, bytes });
        }
        if conn.phase.is_closing() && !conn.close_asked && !conn.out.is_holding() {
            conn.close_asked = true;
            self.watches.remove_conn(id);
            self.sweeping = true;
            out.push(match conn.aborted {
                true => Output::Abort { conn: id },
                false => Output::Close { conn: id },
            });
        }
    }

    /// Connections that wait for room are not read.
    fn pause_and_resume(&mut self, out: &mut Vec<Output>) {
        for id in std::mem::take(&mut self.flushed) {
            let Some(conn) = self.conns.get_mut(&id).filter(|conn| !conn.close_asked) else {
                continue;
            };
            let full =
                conn.held_since.is_some() || conn.is_over_limits() || conn.waits_with_bytes();
            if full != conn.paused {
                conn.paused = full;
                match full {
                    true => self.unread.insert(id),
                    false => self.unread.remove(&id),
                };
                out.push(match full {
                    true => Output::PauseReading { conn: id },
                    false => Output::ResumeReading { conn: id },
                });
            }
        }
    }
}

fn mark_dirty(dirty: &mut VecDeque<ConnId>, id: ConnId, conn: &mut Conn) {
    if !conn.dirty {
        conn.dirty = true;
        dirty.push_back(id);
    }
}
