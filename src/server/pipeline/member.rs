//! What the pipeline of an ensemble's member does besides: what it assigns only as leader, what it
//! passes on and logs as learner, whose client a txn answers, and the end of a role.
//!
//! Txns that are logged and not committed wait in flight, whatever becomes of the role: the next
//! leader's word applies them or has them cut. The tree is what is committed, with two exceptions,
//! whose end the next leader's word may cut off as well: behind a start it is all of the log, and a
//! leader that is not established applies all of it before it sends a snapshot.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use bytes::{Buf, BufMut, Bytes, BytesMut};

use super::{InFlight, Pipeline, has_password};
use crate::auth::Identities;
use crate::base::{Duration, FileOps, Instant};
use crate::limits;
use crate::model::{
    EnsembleConfig, ErrorCode, Request, SessionId, ShardId, TxnBody, TxnHeader, WriteRequest, Xid,
    Zxid,
};
use crate::server::audit;
use crate::server::contract::Clock;
use crate::server::fuzzy::{Fuzzy, Unequal};
use crate::server::preparing::Preparing;
use crate::server::recent::RecentTxns;
use crate::server::snap_send::SnapshotSender;
use crate::server::stream::{Address, Attach, Notice, Origin, Submit};
use crate::tree::{Overlay, Tree};
use crate::txnlog::{LogCursor, Position};
use crate::wire::jute::{DecodeError, DecodeErrorKind};
use crate::wire::quorum::{ForwardedRequest, LearnerPacket, Touch};
use crate::wire::request::MultiDecoder;
use crate::wire::{self, opcode};
use crate::zab::leader::LinkId;

/// What this server may do for the order of txns.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Duty {
    /// There is no ensemble: it assigns zxids, and what is flushed is committed.
    Alone,
    /// It assigns zxids; a quorum commits.
    Leading,
    /// It passes requests on to a leader and logs what that one proposes.
    Following,
    /// It has no leader, and no clients.
    Idle,
    /// It has no leader, and clients who only read.
    ReadOnly,
}

impl Duty {
    pub(super) const fn assigns_zxids(self) -> bool {
        matches!(self, Self::Alone | Self::Leading)
    }
}

/// What a leader proposes.
#[derive(Debug)]
pub(crate) struct Proposal {
    pub(crate) zxid: Zxid,
    /// Txn bytes.
    pub(crate) txn: Bytes,
    /// The configuration that the txn is, if it is one.
    pub(crate) config: Option<EnsembleConfig>,
}

/// State that a server which is alone does not need.
#[derive(Debug)]
pub(super) struct Member {
    pub(super) committed: Zxid,
    /// Up to here it may be applied before it is committed.
    ahead: Zxid,
    /// How far the tree is ahead, behind a snapshot of a leader's.
    pub(super) fuzzy: Fuzzy,
    /// The tree was found to be another one than the leader's, and the operator was told.
    pub(super) differs: bool,
    recent: RecentTxns,

    /// Leading: appended to the log and not yet proposed.
    pub(super) proposals: Vec<Proposal>,
    /// Leading: sessions whose creation is in flight for a learner's client, and whether their end
    /// is in flight too.
    pub(super) opening: BTreeMap<SessionId, bool>,
    /// Reading: sessions that are given here meanwhile have this id, or later ones.
    pub(super) reads_from: SessionId,
    /// Leading: the learner to which a session's client has come last; `None` once the client has
    /// come here, or the learner is gone. Until it comes again, whatever is still on its way from
    /// another server is older than what was answered since.
    pub(super) remote: BTreeMap<SessionId, Option<LinkId>>,
    /// Leading: when a learner was asked which sessions it heard of, and has told since.
    reports: BTreeMap<LinkId, Instant>,

    /// Following: what is to be sent to the leader.
    to_leader: Vec<LearnerPacket>,
    /// Following: requests of each session that the leader has, in order.
    awaited: BTreeMap<SessionId, VecDeque<Awaited>>,
    /// Following: handshakes that wait for the leader's word on their session, in order.
    renewals: BTreeMap<SessionId, VecDeque<(Address, i32)>>,
    /// Following: syncs that the leader has, in order.
    syncs: VecDeque<Origin>,
    /// Following: sessions heard of since the leader was last told.
    touched: BTreeSet<SessionId>,
}

/// A request that was passed on to the leader.
#[derive(Debug)]
struct Awaited {
    cxid: Xid,
    opcode: i32,
    origin: Option<Origin>,
    /// The handshake that waits for the session's creation.
    attach: Option<Address>,
    /// What the audit log will tell of, once it is known what the leader made of it.
    audit: Option<(Identities, WriteRequest)>,
    /// What the client is told if the leader refuses it.
    refusal: Option<ErrorCode>,
}

impl Awaited {
    const fn of(cxid: Xid, opcode: i32) -> Self {
        Self { cxid, opcode, origin: None, attach: None, audit: None, refusal: None }
    }
}

impl Member {
    pub(super) const fn new(committed: Zxid, recent: RecentTxns, fuzzy: Fuzzy) -> Self {
        Self {
            committed,
            ahead: Zxid::ZERO,
            fuzzy,
            differs: false,
            recent,
            proposals: Vec::new(),
            opening: BTreeMap::new(),
            reads_from: SessionId(0),
            remote: BTreeMap::new(),
            reports: BTreeMap::new(),
            to_leader: Vec::new(),
            awaited: BTreeMap::new(),
            renewals: BTreeMap::new(),
            syncs: VecDeque::new(),
            touched: BTreeSet::new(),
        }
    }

    pub(super) fn applicable(&self) -> Zxid {
        self.committed.max(self.ahead)
    }

    pub(super) fn propose(&mut self, zxid: Zxid, txn: &[u8]) {
        let txn = self.recent.push_copy(zxid, txn);
        self.proposals.push(Proposal { zxid, txn, config: None });
    }

    /// A session has ended.
    pub(super) fn forget(&mut self, session: SessionId) {
        self.remote.remove(&session);
        self.awaited.remove(&session);
        self.touched.remove(&session);
    }

    /// The tree is not the leader's. Said once in each role: every txn that follows differs, too.
    fn note(&mut self, Unequal { zxid, expected, found }: Unequal) {
        if !std::mem::replace(&mut self.differs, true) {
            tracing::error!(%zxid, "the tree's digest is {found:x}, the leader's was {expected:x}: \
                the two differ; stop this server, empty its data directory and start it again");
        }
    }

    /// The leader has answered everything.
    pub(super) fn awaits_nothing(&self) -> bool {
        self.awaited.is_empty() && self.renewals.is_empty() && self.syncs.is_empty()
    }

    /// The request that became this txn. Clients choose their xids: an expired session's end, and
    /// what a client asked on an earlier connection, may have the same as a request that waits.
    fn awaits(&mut self, header: &TxnHeader, body: &TxnBody) -> Option<Awaited> {
        let TxnHeader { session, cxid, .. } = *header;
        let queue = self.awaited.get_mut(&session)?;
        let is_next = queue
            .front()
            .is_some_and(|awaited| awaited.cxid == cxid && answers(body, awaited.opcode));
        let awaited = if is_next { queue.pop_front() } else { None };
        if queue.is_empty() {
            self.awaited.remove(&session);
        }
        awaited
    }

    fn request(&mut self, request: ForwardedRequest, awaited: Awaited) {
        self.awaited.entry(request.session).or_default().push_back(awaited);
        self.to_leader.push(LearnerPacket::Request(request));
    }

    /// Asks the leader for the txn that creates a session.
    pub(super) fn create_session(
        &mut self,
        session: SessionId,
        timeout_ms: i32,
        attach: Option<Address>,
    ) {
        let mut body = BytesMut::new();
        body.put_i32(timeout_ms);
        let awaited = Awaited::of(Xid(0), opcode::CREATE_SESSION);
        let request = ForwardedRequest {
            session,
            cxid: awaited.cxid,
            opcode: awaited.opcode,
            body: body.freeze(),
            authinfo: Some(Vec::new()),
        };
        self.request(request, Awaited { attach, ..awaited });
    }
}

impl Pipeline {
    pub(crate) const fn duty(&self) -> Duty {
        self.duty
    }

    /// The last zxid in the log.
    pub(crate) const fn last_logged(&self) -> Zxid {
        self.log.accepted_zxid()
    }

    /// The log is durable up to here.
    pub(crate) const fn flushed(&self) -> Zxid {
        self.log.flushed_zxid()
    }

    /// All of the log is durable.
    pub(crate) fn is_flushed(&self) -> bool {
        self.log.is_idle()
    }

    /// Whether so much waits for the own disk that a learner is to read nothing more of its leader.
    pub(crate) fn log_lags(&self) -> bool {
        self.options.inflight_bytes_max <= self.log.unflushed_bytes()
    }

    /// Whether it may go on reading.
    pub(crate) fn log_has_caught_up(&self) -> bool {
        self.log.unflushed_bytes() <= self.options.inflight_bytes_max / 2
    }

    /// No file operation is under way.
    pub(crate) fn is_quiet(&self) -> bool {
        self.log.is_quiet() && self.snapshotter.is_quiet()
    }

    /// Another pipeline takes this one's place. Closing connections of the old one may still be
    /// heard of, so that no attachment may have the number of an old one.
    pub(crate) fn hand_over_to(self, next: &mut Self) {
        next.sessions.go_on_from(&self.sessions);
    }

    /// The log is durable up to this place.
    pub(crate) const fn log_end(&self) -> Position {
        self.log.flushed_to()
    }

    /// As [`LogWriter::cursor`](crate::txnlog::LogWriter::cursor).
    pub(crate) fn log_cursor(&self, after: Zxid) -> Option<(LogCursor, u64)> {
        self.log.cursor(after)
    }

    /// Segments from this one on are read: they are not purged.
    pub(crate) fn read_log_from(&mut self, segment: Option<u64>, ops: &mut FileOps) {
        self.log.read_from(segment, ops);
    }

    /// The last txns of the log.
    pub(crate) const fn recent(&self) -> &RecentTxns {
        &self.member.recent
    }

    /// Everything in the log is committed, or nothing is known of what is not: the role is over.
    /// Clients are gone, and sessions have their full time from here on.
    pub(crate) fn idle(&mut self, now: Instant) {
        self.duty = Duty::Idle;
        self.preparing = None;
        self.reconfiguring = None;
        self.awaits_epoch = false;
        self.sessions.reset(now);
        let recent = std::mem::replace(&mut self.member.recent, RecentTxns::new(Zxid::ZERO, 0));
        self.member = Member::new(self.member.committed, recent, self.member.fuzzy);
        self.forget_overdue();
    }

    /// If the next epoch is due nothing more is prepared before [`Pipeline::lead`] begins it.
    /// Whether everything of this one is applied.
    pub(crate) fn await_epoch(&mut self, is_due: bool) -> bool {
        self.awaits_epoch = is_due;
        is_due && self.outstanding() == 0
    }

    /// The whole log is committed and applied, and this server leads `epoch`. Sessions have their
    /// full time and come again, unless it has led the epoch before as well.
    pub(crate) fn lead(&mut self, epoch: u32, now: Instant) {
        assert!(self.in_flight.is_empty(), "a new leader's history is applied before it leads on");
        if self.duty != Duty::Leading {
            self.sessions.reset(now);
        }
        self.duty = Duty::Leading;
        self.awaits_epoch = false;
        self.assigned = Zxid::new(epoch, 0);
        self.overlay = Overlay::new(&self.tree);
    }

    /// The history is the leader's, and clients are served.
    pub(crate) fn follow(&mut self) {
        self.duty = Duty::Following;
    }

    /// There is no leader; clients may read what there is.
    pub(crate) fn serve_reads(&mut self) {
        self.duty = Duty::ReadOnly;
        self.member.reads_from = self.sessions.next_id();
    }

    /// Everything up to `zxid` is committed. It must be in the log.
    pub(crate) fn commit_to(&mut self, zxid: Zxid) {
        self.member.committed = self.member.committed.max(zxid.min(self.last_logged()));
    }

    /// Applies all of the log, whatever of it is committed: a leader that is not established sends
    /// it as history. Nobody is answered for what a quorum may not have, and the audit log is not
    /// told of it.
    pub(crate) fn apply_ahead(&mut self) {
        self.member.ahead = self.last_logged();
        let committed = self.member.committed;
        for txn in self.in_flight.iter_mut().filter(|txn| committed < txn.header.zxid) {
            (txn.origin, txn.attach, txn.audit) = (None, None, None);
        }
    }

    /// The last zxid that is known to be committed.
    pub(crate) const fn committed_zxid(&self) -> Zxid {
        self.member.committed
    }

    /// The log is about to be cut or replaced: nothing new is asked of it. A number above all of
    /// its segments.
    pub(crate) fn freeze(&mut self) -> u64 {
        self.log.freeze();
        self.log.sequence_above()
    }

    /// The log stays as it is.
    pub(crate) fn thaw(&mut self, ops: &mut FileOps) {
        self.log.thaw(ops);
    }

    /// Begins to send a learner what is applied.
    pub(crate) fn begin_snapshot_for_learner(&mut self) -> SnapshotSender {
        let sessions: Vec<_> = self.sessions.iter().collect();
        SnapshotSender::begin(&mut self.tree, &sessions)
    }

    /// The tree, for what is being sent to a learner.
    pub(crate) const fn tree_mut(&mut self) -> &mut Tree {
        &mut self.tree
    }

    /// In place of [`Pipeline::turn_end`] before a second recovery: what is under way ends, nothing
    /// new begins.
    pub(crate) fn turn_end_in_wait(&mut self, ops: &mut FileOps) {
        if self.snapshotter.wants_items() {
            self.snapshotter.feed(&mut self.tree, ops);
        }
    }

    /// A txn of the leader's, for the log.
    ///
    /// # Errors
    /// It does not decode: nothing was taken.
    pub(crate) fn append(&mut self, zxid: Zxid, txn: &Bytes) -> Result<(), DecodeError> {
        let decoded = wire::txn::decode(txn)?;
        if decoded.header.zxid != zxid {
            let (at, field) = (wire::txn::ZXID_AT, "zxid");
            return Err(DecodeError { at, field, kind: DecodeErrorKind::Damaged });
        }
        self.log.append(zxid, |buf| buf.put_slice(txn));
        self.member.recent.push_copy(zxid, txn);
        self.assigned = zxid;
        let header = decoded.header;
        let awaited = self.member.awaits(&header, &decoded.body);
        let (origin, attach, audit, refusal) = match awaited {
            Some(Awaited { origin, attach, audit, refusal, .. }) => {
                (origin, attach, audit, refusal)
            }
            None => (None, None, None, None),
        };
        let audit = audit.map(|(identities, request)| {
            audit::Entry::of(header.session, &identities, &Ok(request), &decoded.body)
        });
        self.in_flight_bytes += txn.len();
        self.in_flight.push_back(InFlight {
            header,
            body: decoded.body,
            origin,
            bytes: txn.len(),
            attach,
            audit,
            digest: decoded.digest,
            refusal,
        });
        Ok(())
    }

    /// Compares the tree with what the leader said of it behind this txn.
    pub(super) fn compare(&mut self, said: Option<u64>) {
        if let Err(unequal) = self.member.fuzzy.applied(&mut self.tree, said) {
            self.member.note(unequal);
        }
    }

    /// Everything that a leader's snapshot can show was applied: the tree is exact. Whether it was
    /// not known to be before.
    pub(crate) fn pass_fuzzy(&mut self) -> bool {
        let was_fuzzy = self.member.fuzzy != Fuzzy::Over;
        if let Err(unequal) = self.member.fuzzy.passed(&mut self.tree) {
            self.member.note(unequal);
        }
        was_fuzzy
    }

    // Leading.

    /// What was appended since the last call.
    pub(crate) fn take_proposals(&mut self) -> Vec<Proposal> {
        std::mem::take(&mut self.member.proposals)
    }

    /// A request that a learner passes on for its client.
    pub(crate) fn submit_forwarded(
        &mut self,
        clock: Clock,
        link: LinkId,
        request: ForwardedRequest,
    ) {
        let ForwardedRequest { session, cxid, opcode: number, body, authinfo } = request;
        if number == opcode::CREATE_SESSION {
            return self.open_for(clock, link, session, cxid, &body);
        }
        let header = self.next_header(session, cxid, clock.wall);
        // Who closes a session is its owner or was: nothing can be asked for it behind that.
        if number == opcode::CLOSE_SESSION && self.is_global(session) {
            return self.close_session(Preparing::close(header, None, None));
        }
        let body = match self.may_ask(session, link) {
            Err(code) => TxnBody::Error(code),
            Ok(may_own) => {
                let identities = Identities::of_forwarded(authinfo.unwrap_or_default());
                if number == opcode::MULTI {
                    let ops_max = self.options.slices.decoded_ops;
                    let rest = (MultiDecoder::of_body(&body), ops_max);
                    let by = (header, identities);
                    return self.prepare(Preparing::undecoded(by, rest, may_own));
                }
                match judge(number, &body) {
                    // Its end is its own server's affair.
                    Ok(WriteRequest::CloseSession) => TxnBody::Error(ErrorCode::SESSION_EXPIRED),
                    Ok(WriteRequest::Reconfig(asked)) => {
                        return self.begin_reconfig(header, asked, identities, None);
                    }
                    Ok(write) => self.prep(may_own).prepare(&header, &write, &identities),
                    Err(code) => TxnBody::Error(code),
                }
            }
        };
        self.log_txn(header, body, None, None);
    }

    /// Whether a learner may ask something for a session, and then whether that session may own
    /// ephemerals.
    fn may_ask(
        &mut self,
        session: SessionId,
        link: LinkId,
    ) -> Result<Result<(), ErrorCode>, ErrorCode> {
        if !self.is_global(session) {
            self.member.remote.remove(&session);
            return match self.may_be_local_elsewhere(session) {
                true => Ok(Err(ErrorCode::SESSION_EXPIRED)),
                false => Err(ErrorCode::SESSION_EXPIRED),
            };
        }
        if self.sessions.owner(session).is_some() {
            return Err(ErrorCode::SESSION_MOVED);
        }
        let owner = *self.member.remote.entry(session).or_insert(Some(link));
        if owner == Some(link) { Ok(Ok(())) } else { Err(ErrorCode::SESSION_MOVED) }
    }

    /// Whether a session is live and in a txn, or about to be.
    pub(crate) fn is_global(&self, session: SessionId) -> bool {
        let is_known = self.sessions.is_live(session) && !self.sessions.is_local(session);
        is_known || self.is_opening(session)
    }

    /// Whether a session's creation is in flight for a learner's client, and its end is not.
    pub(super) fn is_opening(&self, session: SessionId) -> bool {
        self.member.opening.get(&session) == Some(&false)
    }

    fn open_for(
        &mut self,
        clock: Clock,
        link: LinkId,
        session: SessionId,
        cxid: Xid,
        body: &Bytes,
    ) {
        let timeout_ms = if 4 <= body.len() { body.clone().get_i32() } else { 0 };
        let header = self.next_header(session, cxid, clock.wall);
        let body = TxnBody::CreateSession { timeout_ms: self.sessions.granted(timeout_ms) };
        self.overlay.stage(&self.tree, &header, &body);
        self.member.opening.insert(session, false);
        self.member.remote.insert(session, Some(link));
        self.log_txn(header, body, None, None);
    }

    /// A client of this session has come to the learner: whether the session lives. Its connection
    /// here, if it has one, is to be closed.
    pub(crate) fn revalidate(
        &mut self,
        link: LinkId,
        touch: Touch,
        now: Instant,
    ) -> (bool, Option<(ShardId, Notice)>) {
        let session = touch.session;
        if !self.is_global(session) {
            return (false, None);
        }
        let drop = self.sessions.owner(session).map(|(shard, conn, generation)| {
            self.sessions.detach(session, generation);
            (shard, Notice::Drop { conn })
        });
        self.member.remote.insert(session, Some(link));
        self.sessions.touch_with(session, touch.timeout_ms, now);
        (true, drop)
    }

    /// A learner was asked at `asked` which sessions it heard of, and has told now.
    pub(crate) fn touched(
        &mut self,
        link: LinkId,
        asked: Instant,
        touches: &[Touch],
        now: Instant,
    ) {
        self.member.reports.insert(link, asked);
        for Touch { session, timeout_ms } in touches {
            self.sessions.touch_with(*session, *timeout_ms, now);
        }
    }

    /// A learner's connection is gone; its clients will come elsewhere.
    pub(crate) fn link_gone(&mut self, link: LinkId) {
        self.member.reports.remove(&link);
        for owner in self.member.remote.values_mut().filter(|owner| **owner == Some(link)) {
            *owner = None;
        }
    }

    /// Whether an overdue session may be closed: the learner that has its connection, if one has,
    /// must have reported without it since.
    pub(super) fn may_expire(&self, session: SessionId, now: Instant) -> bool {
        let Some(Some(link)) = self.member.remote.get(&session) else { return true };
        let Some(reported) = self.member.reports.get(link) else { return false };
        let slack = Duration(limits::TOUCH_EVERY.0 * 2);
        let due = self.sessions.expires(session).map(|due| due + slack);
        due.is_some_and(|due| due <= *reported && due <= now)
    }

    // Following.

    /// What is to be sent to the leader.
    pub(crate) fn take_to_leader(&mut self) -> Vec<LearnerPacket> {
        std::mem::take(&mut self.member.to_leader)
    }

    /// A write of a client: passed on if it is well-formed. What is not is answered here, since a
    /// leader of Apache's cannot take it (`quorum-and-disk.md` 5.2).
    pub(super) fn forward(&mut self, submit: Submit) -> Option<(ShardId, Notice)> {
        let Submit { origin, session, identities, request, raw } = submit;
        let failed = |code| Some((origin.address.shard, Notice::Answered(origin, code)));
        let request = match request {
            Ok(request) => request,
            Err(code) => return failed(code),
        };
        let Some((opcode, body)) = raw else { return failed(ErrorCode::MARSHALLING_ERROR) };
        let is_close = matches!(request, WriteRequest::CloseSession);
        let refusal = self.claim_ephemerals_as_learner(session, &request);
        let audit = self.options.audit_user.is_some().then_some(request);
        if is_close {
            self.sessions.mark_closing(session);
        }
        let authinfo = Some(identities.iter().cloned().collect());
        let body = if is_close { Bytes::new() } else { body };
        let request = ForwardedRequest { session, cxid: origin.xid, opcode, body, authinfo };
        let audit = audit.map(|write| (identities, write));
        let awaited =
            Awaited { origin: Some(origin), audit, refusal, ..Awaited::of(origin.xid, opcode) };
        self.member.request(request, awaited);
        None
    }

    pub(super) fn attach_as_learner(
        &mut self,
        now: Instant,
        attach: &Attach,
        timeout_ms: i32,
        out: &mut Vec<(ShardId, Notice)>,
    ) {
        if attach.session.0 == 0 {
            let session = self.sessions.next_id();
            return self.member.create_session(session, timeout_ms, Some(attach.to));
        }
        if !has_password(attach) || self.sessions.is_closing(attach.session) {
            out.push((attach.to.shard, Notice::Refused { conn: attach.to.conn }));
            return;
        }
        self.sessions.touch(attach.session, now);
        let session = attach.session;
        self.member.renewals.entry(session).or_default().push_back((attach.to, timeout_ms));
        let touch = Touch { session, timeout_ms };
        self.member.to_leader.push(LearnerPacket::Revalidate(touch));
    }

    /// The leader's word on the oldest handshake that asks for this session.
    pub(crate) fn revalidated(
        &mut self,
        session: SessionId,
        is_valid: bool,
        now: Instant,
    ) -> Vec<(ShardId, Notice)> {
        let Some(queue) = self.member.renewals.get_mut(&session) else { return Vec::new() };
        let Some((to, timeout_ms)) = queue.pop_front() else { return Vec::new() };
        if queue.is_empty() {
            self.member.renewals.remove(&session);
        }
        if !is_valid || self.sessions.is_closing(session) {
            return vec![(to.shard, Notice::Refused { conn: to.conn })];
        }
        if !self.sessions.is_live(session) {
            self.sessions.open_ahead(session, timeout_ms, now);
        }
        let old = self.sessions.owner(session);
        let drop = old.map(|(shard, conn, _)| (shard, Notice::Drop { conn }));
        let notice = self.attached(to, session, timeout_ms, now);
        drop.into_iter().chain([(to.shard, notice)]).collect()
    }

    /// A sync of a client, to be passed on to the leader.
    pub(crate) fn forward_sync(&mut self, session: SessionId, origin: Origin) {
        self.member.syncs.push_back(origin);
        self.member.to_leader.push(LearnerPacket::Request(ForwardedRequest {
            session,
            cxid: origin.xid,
            opcode: opcode::SYNC,
            body: Bytes::new(),
            authinfo: Some(Vec::new()),
        }));
    }

    /// The leader has answered the oldest sync.
    pub(crate) fn synced(&mut self) -> Option<Origin> {
        self.member.syncs.pop_front()
    }

    pub(super) fn touch_as_learner(&mut self, session: SessionId) {
        self.member.touched.insert(session);
    }

    /// Sessions heard of since the last call, for the answer to the leader's ping.
    pub(crate) fn take_touches(&mut self) -> Vec<Touch> {
        let touched = std::mem::take(&mut self.member.touched);
        let timeout = |session| self.sessions.timeout_ms(session);
        touched
            .into_iter()
            .filter_map(|session| Some(Touch { session, timeout_ms: timeout(session)? }))
            .collect()
    }
}

/// Whether a leader may make this txn of a request.
const fn answers(body: &TxnBody, opcode: i32) -> bool {
    match body {
        TxnBody::Error(_) => true,
        TxnBody::CreateSession { .. } => opcode == opcode::CREATE_SESSION,
        TxnBody::CloseSession { .. } => opcode == opcode::CLOSE_SESSION,
        TxnBody::Create(_) => matches!(
            opcode,
            opcode::CREATE | opcode::CREATE2 | opcode::CREATE_CONTAINER | opcode::CREATE_TTL
        ),
        TxnBody::Delete { .. } => opcode == opcode::DELETE,
        TxnBody::SetData { .. } => opcode == opcode::SET_DATA,
        TxnBody::SetAcl { .. } => opcode == opcode::SET_ACL,
        TxnBody::Reconfig { .. } => opcode == opcode::RECONFIG,
        TxnBody::Check { .. } => opcode == opcode::CHECK,
        TxnBody::Multi(_) => opcode == opcode::MULTI,
        // The leader's own.
        TxnBody::DeleteContainer { .. } => false,
    }
}

/// What a forwarded request asks for, or the error that its txn carries.
fn judge(number: i32, body: &Bytes) -> Result<WriteRequest, ErrorCode> {
    match number {
        opcode::CLOSE_SESSION => Ok(WriteRequest::CloseSession),
        _ => match wire::request::decode_body(number, body) {
            Ok(Request::Write(write)) => Ok(write),
            Ok(_) => Err(ErrorCode::UNIMPLEMENTED),
            Err(_) => Err(ErrorCode::MARSHALLING_ERROR),
        },
    }
}
