//! The commit pipeline: requests in, one total order of txns out.
//!
//! It owns the tree, the sessions and the log. A request becomes a txn in [`Pipeline::submit`],
//! which stages it in the overlay and encodes it, into the open batch of the log. When the
//! batch's flush has completed, and only then, [`Pipeline::next_commit`] and
//! [`Pipeline::apply_next`] hand the txns out as deltas, one at a time and in zxid order.
//!
//! The end of a session with many ephemerals, and a multi of many ops, is prepared in slices, while
//! nothing else is, and applied in slices, while nobody reads the tree.
//!
//! Cursors, always true while clients are served: applied <= committed <= assigned. Alone, what is
//! flushed is committed; in an ensemble a quorum decides, and what a member of it does, and when it
//! applies what may not be committed, is in [`member`].

mod disk;
mod local;
mod member;
#[cfg(test)]
pub(super) mod member_tests;
mod reconfig;
mod time;

use std::collections::VecDeque;
use std::sync::Arc;

use self::local::Ended;
use self::member::Member;
pub(crate) use self::member::{Duty, Proposal};
use self::reconfig::Reconfiguring;
use self::time::OverdueLook;
use crate::base::{Duration, FileOpId, FileOps, Instant, Prng, Str, WallMs};
use crate::limits;
use crate::model::{
    ErrorCode, Generation, LocalSessions, SessionId, ShardId, TxnBody, TxnHeader, WriteRequest,
    Xid, Zxid,
};
use crate::session::{SessionConfig, SessionTable};
use crate::tree::{Applied, Outcome, Overlay, Partial, Step, Tree};
use crate::txnlog::{LogConfig, LogWriter};
use crate::wire;

use super::audit;
use super::contract::Clock;
use super::options::ServerOptions;
use super::prep::{Made, Prep, QuotaWarnings};
use super::preparing::Preparing;
use super::recovery::Recovered;
use super::snapshotter::Snapshotter;
use super::stream::{Address, Attach, Delta, Notice, Origin, Submit};
use super::throttle::{ConnectionThrottle, Handshake};

/// The write side of a server. See the module's documentation for the order of calls.
pub(crate) struct Pipeline {
    options: ServerOptions,
    tree: Tree,
    overlay: Overlay,
    sessions: SessionTable,
    overdue_global: OverdueLook,
    overdue_local: OverdueLook,
    /// Sessions that have ended lately, of which others may ask as if they were local.
    ended: Ended,
    log: LogWriter,
    snapshotter: Snapshotter,

    /// Logged or about to be, not yet applied; in zxid order.
    in_flight: VecDeque<InFlight>,
    in_flight_bytes: usize,
    assigned: Zxid,
    /// When the last zxid was assigned.
    prepared_at: WallMs,
    quota_warnings: QuotaWarnings,
    duty: Duty,
    member: Member,
    /// The end of a session or the multi that is being prepared.
    preparing: Option<Preparing>,
    /// How many ephemerals this turn may still find, and ops judge.
    preparing_left: usize,
    /// A change of the ensemble's members that is not in the log yet.
    reconfiguring: Option<Reconfiguring>,
    /// The epoch's zxids are used up: nothing is prepared before the next one begins.
    awaits_epoch: bool,
    /// The txn of which only a part is applied.
    applying: Option<(InFlight, Partial)>,
    /// The overlay keeps what is applied.
    retiring: bool,

    snapshot_due: SnapshotDue,
    prng: Prng,
    connection_throttle: ConnectionThrottle,
    /// When an idle log's last batch is attested.
    attest_at: Option<Instant>,
    prepare_retry_at: Option<Instant>,
    prepare_retry_after: Duration,
    /// What was done last for want of room was a snapshot.
    frees_room: bool,
    low_on_disk: bool,
    /// The flush under way, and since when.
    flushing: Option<(FileOpId, Instant)>,
    slow_flush_count: u64,
    /// The tree's digest at every 128th zxid.
    digest_log: VecDeque<(Zxid, u64)>,
    /// Containers and TTL znodes found overdue, and when the next is deleted or looked for.
    overdue: VecDeque<Str>,
    /// A look for more is under way, and has come to this path.
    looked_to: Option<Str>,
    reap_at: Instant,
    look_at: Instant,
}

/// A txn between prep and apply.
struct InFlight {
    header: TxnHeader,
    body: TxnBody,
    origin: Option<Origin>,
    bytes: usize,
    /// Set for the creation of a session: the handshake that waits for it.
    attach: Option<Address>,
    /// What the audit log will tell of it.
    audit: Option<audit::Entry>,
    /// The tree's digest behind it, as the leader told it.
    digest: Option<u64>,
    /// What the client is told if it is refused, instead of what the txn says.
    refusal: Option<ErrorCode>,
}

/// When the next snapshot starts: a random point in the second half of each interval, so that
/// members of an ensemble do not snapshot together.
struct SnapshotDue {
    txns_left: u64,
    log_bytes_at: u64,
}

/// What [`Pipeline::apply_next`] applied of a txn that is not yet whole.
pub(crate) struct Part {
    pub(crate) zxid: Zxid,
    pub(crate) steps: Vec<Step>,
}

/// What [`Pipeline::apply_next`] applied.
pub(crate) struct Commit {
    pub(crate) delta: Arc<Delta>,
    /// The handshake that the txn completes.
    pub(crate) notice: Option<(ShardId, Notice)>,
    /// Size of the txn in the log.
    pub(crate) bytes: usize,
}

impl Pipeline {
    pub(crate) fn new(
        options: ServerOptions,
        recovered: Recovered,
        seed: u64,
        clock: Clock,
        ops: &mut FileOps,
    ) -> Self {
        let mut prng = Prng::new(seed);
        let overlay = Overlay::new(&recovered.tree);
        let config = SessionConfig {
            tick_ms: options.tick_ms,
            min_ms: options.session_timeout_ms_min,
            max_ms: options.session_timeout_ms_max,
        };
        let mut sessions = SessionTable::new(config, options.server_id, clock.wall);
        sessions.restore(recovered.sessions, clock.now);
        let log_config = LogConfig { segment_bytes_default: options.segment_bytes };
        let mut log = LogWriter::new(log_config, recovered.log_end, prng.next_u64());
        match recovered.lost {
            // Nothing may be written over or behind what is damaged.
            Some(_) => log.freeze(),
            None => log.start(ops),
        }
        let duty = if options.is_member() { Duty::Idle } else { Duty::Alone };
        let member = Member::new(recovered.last_zxid, recovered.recent, recovered.fuzzy);
        let mut pipeline = Self {
            tree: recovered.tree,
            overlay,
            sessions,
            overdue_global: OverdueLook::default(),
            overdue_local: OverdueLook::default(),
            ended: Ended::default(),
            log,
            snapshotter: Snapshotter::new(recovered.snapshots, recovered.unread_snapshots),
            in_flight: VecDeque::new(),
            in_flight_bytes: 0,
            assigned: recovered.last_zxid,
            prepared_at: clock.wall,
            quota_warnings: QuotaWarnings::default(),
            duty,
            member,
            preparing: None,
            preparing_left: options.slices.ops,
            reconfiguring: None,
            awaits_epoch: false,
            applying: None,
            retiring: false,
            snapshot_due: SnapshotDue { txns_left: 0, log_bytes_at: 0 },
            prng,
            connection_throttle: ConnectionThrottle::new(options.connection_throttle, clock.now),
            attest_at: None,
            prepare_retry_at: None,
            prepare_retry_after: limits::PREPARE_RETRY_AFTER,
            frees_room: false,
            low_on_disk: false,
            flushing: None,
            slow_flush_count: 0,
            digest_log: VecDeque::new(),
            overdue: VecDeque::new(),
            looked_to: None,
            reap_at: clock.now,
            look_at: clock.now + options.reaping.every,
            options,
        };
        pipeline.schedule_snapshot();
        let replayed = recovered.replayed_txn_count;
        pipeline.snapshot_due.txns_left =
            pipeline.snapshot_due.txns_left.saturating_sub(replayed).max(1);
        pipeline
    }

    pub(crate) const fn tree(&self) -> &Tree {
        &self.tree
    }

    pub(crate) const fn sessions(&self) -> &SessionTable {
        &self.sessions
    }

    pub(crate) fn outstanding(&self) -> usize {
        let halves =
            [self.preparing.is_some(), self.reconfiguring.is_some(), self.applying.is_some()];
        self.in_flight.len() + halves.into_iter().filter(|half| *half).count()
    }

    /// Whether the end of a session, a multi or a reconfiguration is being prepared, or the next
    /// epoch waited for. Handshakes, writes and ends of connections must wait until that is over.
    pub(crate) const fn is_preparing(&self) -> bool {
        self.preparing.is_some() || self.reconfiguring.is_some() || self.awaits_epoch
    }

    /// Whether a txn is applied in part, so that nobody may read the tree.
    pub(crate) const fn is_applying(&self) -> bool {
        self.applying.is_some()
    }

    /// Whether [`Pipeline::turn_end`] left work over.
    pub(crate) const fn wants_turn(&self) -> bool {
        self.preparing.is_some() || self.retiring || self.looked_to.is_some()
    }

    /// Nothing that was accepted waits: a planned stop may go on.
    pub(crate) fn is_drained(&self) -> bool {
        match self.duty {
            Duty::Alone | Duty::Leading => self.outstanding() == 0,
            Duty::Following => self.log.is_idle() && self.member.awaits_nothing(),
            Duty::Idle | Duty::ReadOnly => self.log.is_idle(),
        }
    }

    /// The chance of a handshake to be refused by the connection throttle.
    pub(crate) const fn drop_probability(&self) -> f64 {
        self.connection_throttle.drop_probability()
    }

    /// What the word `hash` prints, oldest first.
    pub(crate) fn digest_log(&self) -> impl Iterator<Item = (Zxid, u64)> {
        self.digest_log.iter().copied()
    }

    fn note_digest(&mut self, zxid: Zxid) {
        if self.options.digests && zxid.0 % limits::DIGEST_LOG_EVERY == 0 {
            if limits::DIGEST_LOG_MAX <= self.digest_log.len() {
                self.digest_log.pop_front();
            }
            self.digest_log.push_back((zxid, self.tree.digest()));
        }
    }

    /// Flushes that took longer than `fsync.warningthresholdms`.
    pub(crate) const fn slow_flush_count(&self) -> u64 {
        self.slow_flush_count
    }

    /// Bytes of all log segments.
    pub(crate) fn log_bytes(&self) -> u64 {
        self.log.segments().map(|segment| segment.bytes).sum()
    }

    /// Bytes of the last snapshot written in this run.
    pub(crate) const fn snapshot_bytes(&self) -> u64 {
        self.snapshotter.last_bytes()
    }

    /// Whether writes must wait outside. Heartbeats and reads go on. In an ensemble others may
    /// commit what the own log does not take, so that both have a bound.
    pub(crate) fn is_full(&self) -> bool {
        self.in_flight_bytes >= self.options.inflight_bytes_max
            || self.in_flight.len() >= limits::PIPELINE_INFLIGHT_TXNS_MAX
            || self.options.inflight_bytes_max <= self.log.unflushed_bytes()
            || self.waits_for_room()
    }

    /// Whether what learners ask must wait.
    pub(crate) fn is_busy(&self) -> bool {
        self.is_full() || self.is_preparing()
    }

    /// The next segment is being made, what was accepted may need it, and whether the disk has
    /// space for it is not known yet. What is accepted now and finds no space would hold up
    /// everything behind it, deletions included.
    fn waits_for_room(&self) -> bool {
        let need = self.log.unflushed_bytes() as u64 + limits::LOG_RESERVE_BYTES;
        !self.low_on_disk && !self.log.has_reserve() && self.log.room_bytes() < need
    }

    /// Whether nothing is being written for want of room on the disk.
    pub(crate) fn lacks_room(&self) -> bool {
        self.low_on_disk && self.is_quiet()
    }

    /// Whether the log's reserve must be kept for what frees space: the next segment does not fit
    /// on the disk.
    pub(crate) const fn is_low_on_disk(&self) -> bool {
        self.low_on_disk
    }

    /// Nothing is in flight and everything logged is durable and attested.
    pub(crate) fn is_settled(&self) -> bool {
        self.is_drained() && self.log.is_idle() && !self.log.needs_attest()
    }

    /// A handshake. New sessions are answered when their txn is applied, renewals at once; the
    /// password is checked before anything happens to the session's present connection.
    pub(crate) fn attach(
        &mut self,
        clock: Clock,
        attach: &Attach,
        out: &mut Vec<(ShardId, Notice)>,
    ) {
        let is_new_local =
            attach.session.0 == 0 && (self.makes_local_sessions() || self.duty == Duty::ReadOnly);
        let handshake = match attach.session {
            _ if is_new_local => Handshake::NewLocal,
            SessionId(0) => Handshake::New,
            _ => Handshake::Renewal,
        };
        if !self.connection_throttle.admit(handshake, clock.now, &mut self.prng) {
            tracing::info!("a handshake was refused (connection_throttle_tokens)");
            out.push((attach.to.shard, Notice::Drop { conn: attach.to.conn }));
            return;
        }
        let timeout_ms = self.sessions.negotiate(attach.timeout_ms);
        match self.duty {
            Duty::Idle => {
                out.push((attach.to.shard, Notice::Drop { conn: attach.to.conn }));
                return;
            }
            // It may live on where there is a quorum, whatever is known of it here.
            Duty::ReadOnly if !self.is_for_reads(attach.session) => {
                out.push((attach.to.shard, Notice::Drop { conn: attach.to.conn }));
                return;
            }
            _ if is_new_local => {
                let notice = self.open_local(attach.to, timeout_ms, clock.now);
                out.push((attach.to.shard, notice));
                return;
            }
            Duty::Following if !self.sessions.is_local(attach.session) => {
                return self.attach_as_learner(clock.now, attach, timeout_ms, out);
            }
            Duty::Alone | Duty::Leading | Duty::Following | Duty::ReadOnly => {}
        }
        if attach.session.0 == 0 {
            let session = self.sessions.next_id();
            let body = TxnBody::CreateSession { timeout_ms };
            let header = self.next_header(session, Xid(0), clock.wall);
            self.overlay.stage(&self.tree, &header, &body);
            self.log_txn(header, body, None, Some(attach.to));
            return;
        }
        // Its client may have been told of it elsewhere; it will come again.
        if has_password(attach) && self.is_opening(attach.session) {
            out.push((attach.to.shard, Notice::Drop { conn: attach.to.conn }));
            return;
        }
        if !has_password(attach) || !self.sessions.is_live(attach.session) {
            out.push((attach.to.shard, Notice::Refused { conn: attach.to.conn }));
            return;
        }
        if self.duty == Duty::Leading && !self.sessions.is_local(attach.session) {
            self.member.remote.insert(attach.session, None);
        }
        if let Some((shard, old, _)) = self.sessions.owner(attach.session) {
            out.push((shard, Notice::Drop { conn: old }));
        }
        let notice = self.attached(attach.to, attach.session, timeout_ms, clock.now);
        out.push((attach.to.shard, notice));
    }

    /// A write. Requests of a session that is closing, or of an attachment that is no longer the
    /// session's, are dropped: their connection is being closed.
    pub(crate) fn submit(&mut self, clock: Clock, submit: Submit) -> Option<(ShardId, Notice)> {
        let current = self.sessions.owner(submit.session).map(|(_, _, generation)| generation);
        if !self.sessions.is_live(submit.session) || current != Some(submit.origin.generation) {
            return None;
        }
        if matches!(submit.request, Ok(WriteRequest::CloseSession))
            && self.sessions.is_local(submit.session)
        {
            return Some(self.close_local(&submit));
        }
        match self.duty {
            Duty::Alone | Duty::Leading => {}
            Duty::Following => return self.forward(submit),
            Duty::Idle | Duty::ReadOnly => return None,
        }
        let Submit { origin, session, identities, request, .. } = submit;
        let may_own = self.claim_ephemerals(clock, session, &request);
        let header = self.next_header(session, origin.xid, clock.wall);
        let audit = self.options.audit_user.is_some();
        if matches!(request, Ok(WriteRequest::CloseSession)) {
            let body = TxnBody::CloseSession { paths: None };
            let audit = audit.then(|| audit::Entry::of(session, &identities, &request, &body));
            self.close_session(Preparing::close(header, Some(origin), audit));
            return None;
        }
        let request = match request {
            Ok(WriteRequest::Reconfig(asked)) => {
                self.begin_reconfig(header, asked, identities, Some(origin));
                return None;
            }
            Ok(WriteRequest::Multi(requests)) => {
                let by = (header, Some(origin));
                self.prepare(Preparing::multi(by, requests, identities, may_own, audit));
                return None;
            }
            request => request,
        };
        let body = match &request {
            Ok(request) => self.prep(may_own).prepare(&header, request, &identities),
            Err(code) => TxnBody::Error(*code),
        };
        let audit = audit.then(|| audit::Entry::of(session, &identities, &request, &body));
        self.log_txn(header, body, Some(origin), None);
        if let Some(logged) = self.in_flight.back_mut() {
            logged.audit = audit;
        }
        None
    }

    /// The connection of an attachment is gone; the session lives on until it expires. `heard` is
    /// when the connection last proved its life, of which its shard cannot be asked any longer.
    pub(crate) fn detach(&mut self, session: SessionId, generation: Generation, heard: Instant) {
        if self.sessions.detach(session, generation) {
            self.sessions.touch(session, heard);
        }
    }

    /// From here on the session accepts nothing.
    fn close_session(&mut self, preparing: Preparing) {
        let session = preparing.header.session;
        self.sessions.mark_closing(session);
        if let Some(is_ending) = self.member.opening.get_mut(&session) {
            *is_ending = true;
        }
        self.prepare(preparing);
    }

    fn prepare(&mut self, preparing: Preparing) {
        self.preparing = Some(preparing);
        self.go_on_preparing();
    }

    /// Once per turn: goes on with what is being prepared.
    pub(crate) fn prepare_some(&mut self) {
        self.preparing_left = self.options.slices.ops;
        self.go_on_preparing();
    }

    fn go_on_preparing(&mut self) {
        let Some(mut preparing) = self.preparing.take() else { return };
        let mut left = self.preparing_left;
        let made = preparing.go_on(&mut self.prep(preparing.may_own), &mut left);
        self.preparing_left = left;
        let Some(made) = made else {
            self.preparing = Some(preparing);
            return;
        };
        let Preparing { header, origin, audit, .. } = preparing;
        self.log_txn(header, made, origin, None);
        if let Some(logged) = self.in_flight.back_mut() {
            logged.audit = audit;
        }
    }

    /// The origin of the next txn that is durable and not yet applied: `Some(None)` for a txn of
    /// the server's own.
    pub(crate) fn next_commit(&self) -> Option<Option<Origin>> {
        if let Some((applying, _)) = &self.applying {
            return Some(applying.origin);
        }
        let next = self.in_flight.front()?;
        (next.header.zxid <= self.applicable()).then_some(next.origin)
    }

    /// What may be applied: alone, what is durable; in an ensemble, what a quorum has, or what must
    /// be applied ahead.
    fn applicable(&self) -> Zxid {
        match self.duty {
            Duty::Alone => self.log.flushed_zxid(),
            _ => self.member.applicable(),
        }
    }

    /// Whether the txn that `next_commit` announced, or a part of it, may be applied while so many
    /// ops are left of the turn.
    pub(crate) fn may_apply(&self, ops_left: usize) -> bool {
        let next = self.in_flight.front().filter(|_| self.applying.is_none());
        next.map_or(ops_left != 0, |next| {
            Partial::fits(&next.body, self.options.slices.ops, ops_left)
        })
    }

    /// Applies the txn that `next_commit` announced, or the next part of it: only so many deletions
    /// of the end of a session, or ops of a multi.
    pub(crate) fn apply_next(
        &mut self,
        now: Instant,
        ops_left: &mut usize,
    ) -> Result<Commit, Part> {
        let (mut next, partial) = match self.applying.take() {
            Some((next, partial)) => (next, Some(partial)),
            None => self.begin_next(),
        };
        let mut applied = match partial {
            None => {
                *ops_left = ops_left.saturating_sub(next.body.op_count());
                self.tree.apply(&next.header, &next.body)
            }
            Some(mut partial) => {
                let (mut steps, before) = (Vec::new(), *ops_left);
                let outcome = self.tree.apply_some(&mut partial, &next.body, ops_left, &mut steps);
                if matches!(next.body, TxnBody::CloseSession { .. }) {
                    self.audit_deletions(&next.header, &steps);
                } else if let Some(entry) = &mut next.audit {
                    entry.tell(before - *ops_left);
                }
                let Some(outcome) = outcome else {
                    let zxid = next.header.zxid;
                    self.applying = Some((next, partial));
                    return Err(Part { zxid, steps });
                };
                Applied { steps, outcome }
            }
        };
        if let Some(entry) = &mut next.audit {
            entry.tell(usize::MAX);
        }
        let InFlight { header, body, origin, attach, bytes, digest, refusal, .. } = next;
        if let (Some(code), Outcome::Failed(told)) = (refusal, &mut applied.outcome) {
            *told = code;
        }
        self.compare(digest);
        self.retire();
        self.note_digest(header.zxid);
        self.snapshot_due.txns_left = self.snapshot_due.txns_left.saturating_sub(1);
        let mut notice = None;
        match &body {
            TxnBody::CreateSession { timeout_ms } => {
                let is_ending = self.member.opening.remove(&header.session) == Some(true);
                self.sessions.open(header.session, *timeout_ms, now);
                if is_ending {
                    self.sessions.mark_closing(header.session);
                }
                notice = attach
                    .map(|to| (to.shard, self.attached(to, header.session, *timeout_ms, now)));
            }
            TxnBody::CloseSession { .. } => {
                self.member.forget(header.session);
                self.sessions.remove(header.session);
                if self.makes_local_sessions() {
                    self.ended.note(header.session);
                }
            }
            _ => {}
        }
        let delta = Arc::new(Delta { header, body, applied, origin });
        Ok(Commit { delta, notice, bytes })
    }

    /// Lets the overlay forget some of what is applied.
    fn retire(&mut self) {
        self.retiring = self.duty.assigns_zxids()
            && self.overlay.retire(self.tree.last_zxid(), limits::RETIRED_PER_TURN);
    }

    fn begin_next(&mut self) -> (InFlight, Option<Partial>) {
        let next = self.in_flight.pop_front().expect("next_commit has announced it");
        assert!(next.header.zxid <= self.applicable(), "only what may be applied is");
        assert!(self.tree.last_zxid() < next.header.zxid, "txns are applied in order, once");
        self.in_flight_bytes -= next.bytes;
        self.member.fuzzy.prepare(&mut self.tree, &next.body);
        let partial = Partial::begin(&next.header, &next.body, self.options.slices.ops);
        (next, partial)
    }

    fn audit_deletions(&self, header: &TxnHeader, steps: &[Step]) {
        let is_ahead = self.duty != Duty::Alone && self.member.committed < header.zxid;
        let Some(user) = self.options.audit_user.as_ref().filter(|_| !is_ahead) else { return };
        for step in steps {
            if let Step::Deleted { path, .. } = step {
                audit::ephemeral_deleted(user, header.session, path);
            }
        }
    }

    /// Once per turn: submits the open batch, feeds a snapshot under way, starts one that is due.
    pub(crate) fn turn_end(&mut self, clock: Clock, ops: &mut FileOps) {
        self.retire();
        self.log.submit(ops);
        self.notice_flush(clock.now);
        if self.log.prepare_failure().is_some() && self.prepare_retry_at.is_none() {
            self.prepare_retry_at = Some(clock.now + self.prepare_retry_after);
            let longer = Duration(2 * self.prepare_retry_after.0);
            self.prepare_retry_after = longer.min(limits::PREPARE_RETRY_AFTER_MAX);
        }
        self.drive_snapshot(clock.wall, ops);
        let idle = self.log.is_idle() && self.log.needs_attest();
        match self.attest_at {
            None if idle => self.attest_at = Some(clock.now + limits::ATTEST_AFTER_IDLE),
            Some(_) if !idle => self.attest_at = None,
            _ => {}
        }
    }

    fn attached(
        &mut self,
        to: Address,
        session: SessionId,
        timeout_ms: i32,
        now: Instant,
    ) -> Notice {
        let generation = self.sessions.attach(session, to.shard, to.conn, timeout_ms, now);
        Notice::Attached { conn: to.conn, session, generation, timeout_ms }
    }

    /// `may_own`: whether the session that asks may own ephemerals, or how it is refused.
    fn prep(&mut self, may_own: Result<(), ErrorCode>) -> Prep<'_> {
        Prep {
            tree: &self.tree,
            overlay: &mut self.overlay,
            auth: &self.options.auth,
            extended_types: self.options.extended_types,
            enforce_quotas: self.options.enforce_quotas,
            txn_bytes_max: self.options.txn_bytes_max,
            may_own,
            now_ms: self.prepared_at.0,
            warnings: &self.quota_warnings,
        }
    }

    /// The only place where zxids are assigned.
    fn next_header(&mut self, session: SessionId, cxid: Xid, wall: WallMs) -> TxnHeader {
        self.assigned = self.assigned.next();
        self.prepared_at = wall;
        TxnHeader { session, cxid, zxid: self.assigned, time_ms: wall.0 }
    }

    /// Appends a txn to the log, with its header.
    fn log_txn(
        &mut self,
        header: TxnHeader,
        made: impl Into<Made>,
        origin: Option<Origin>,
        attach: Option<Address>,
    ) {
        let Made { body, encoded_ops } = made.into();
        assert!(self.duty.assigns_zxids(), "only who assigns zxids makes txns");
        let carries_digest = self.options.digests && !matches!(body, TxnBody::Error(_));
        let digest = carries_digest.then(|| self.overlay.digest());
        let mut bytes = 0;
        let (duty, member) = (self.duty, &mut self.member);
        self.log.append(header.zxid, |buf| {
            let before = buf.len();
            match &body {
                TxnBody::Multi(ops) => {
                    wire::txn::encode_multi(&header, &encoded_ops, ops.len(), digest, buf);
                }
                single => wire::txn::encode(&header, single, digest, buf),
            }
            bytes = buf.len() - before;
            if duty == Duty::Leading {
                member.propose(header.zxid, buf.get(before..).unwrap_or_default());
            }
        });
        self.in_flight_bytes += bytes;
        self.in_flight.push_back(InFlight {
            header,
            body,
            origin,
            bytes,
            attach,
            audit: None,
            digest: None,
            refusal: None,
        });
    }
}

/// Whether a handshake proves that the session is the client's.
fn has_password(attach: &Attach) -> bool {
    let expected = wire::connect::session_password(attach.session);
    attach.password.as_deref() == Some(&expected[..])
}
