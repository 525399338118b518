//! From received bytes to queued requests: four-letter words, handshakes, requests.

use bytes::{Bytes, BytesMut};

use crate::auth::{self, AuthRefusal};
use crate::model::{Acl, ConnId, CreateKind, ErrorCode, Request, WriteRequest, Xid, Zxid};
use crate::tree::Tree;
use crate::wire::connect::ConnectRequest;
use crate::wire::frame::Framed;
use crate::wire::jute::DecodeError;
use crate::wire::opcode;
use crate::wire::request::{self, Decoded, RequestFault, RequestFrame};
use crate::wire::response;
use crate::wire::word::Word;

use super::conn::{Answer, Conn, Pending, Phase, Work, WriteKind};
use super::eager;
use super::{Shard, Surroundings, mark_dirty};
use crate::base::{Duration, Instant, Str};
use crate::limits;
use crate::server::options::{LargeRequests, RequestThrottle};
use crate::server::stream::{Address, Ask, Attach, Origin, Service, Submit};

impl Shard {
    /// Takes in as many complete frames as the limits allow.
    pub(super) fn take_in(&mut self, id: ConnId, around: Surroundings<'_>, asks: &mut Vec<Ask>) {
        let Some(mut conn) = self.conns.remove(&id) else { return };
        self.take_in_frames(id, &mut conn, around, asks);
        mark_dirty(&mut self.dirty, id, &mut conn);
        self.conns.insert(id, conn);
    }

    fn take_in_frames(
        &mut self,
        id: ConnId,
        conn: &mut Conn,
        around: Surroundings<'_>,
        asks: &mut Vec<Ask>,
    ) {
        if conn.phase == Phase::Fresh && self.is_word(id, conn, asks) {
            return;
        }
        loop {
            if conn.ends {
                drop(conn.deframer.take_rest());
                return;
            }
            if matches!(conn.phase, Phase::Attaching { .. } | Phase::Word | Phase::Closing { .. }) {
                return;
            }
            if let Some(decoding) = conn.decoding.take() {
                let (frame, decoder) = *decoding;
                let decoded = decoder.go_on(self.options.slices.decoded_ops);
                if !self.decoded(id, conn, frame, Ok(decoded), around, asks) {
                    return;
                }
                continue;
            }
            if self.is_held_back(conn, around) {
                self.hold(id, conn, around.now, asks);
                return;
            }
            match conn.deframer.next_framed() {
                Ok(Some(Framed::Frame(frame))) if conn.phase == Phase::Fresh => {
                    conn.reserved_bytes = 0;
                    self.handshake(id, conn, &frame, around, asks);
                    self.recount(conn);
                }
                Ok(Some(Framed::Frame(frame))) => {
                    let decoded = request::decode_some(&frame, self.options.slices.decoded_ops);
                    if !self.decoded(id, conn, frame, decoded, around, asks) {
                        return;
                    }
                }
                Ok(Some(Framed::Skipped { len, head })) => {
                    self.refuse_too_long(conn, len, &head, around.now);
                    self.recount(conn);
                }
                Ok(None) if self.reserve(conn) => {
                    conn.held_since = None;
                    return;
                }
                Ok(None) => {
                    self.frames_at.get_or_insert(around.now + limits::FRAME_STALLED_AFTER);
                    self.hold(id, conn, around.now, asks);
                    return;
                }
                Err(error) => {
                    let peer = conn.stats.peer;
                    tracing::warn!(%peer, %error, "closed: frame refused");
                    conn.begin_close();
                }
            }
        }
    }

    /// A part of a request's frame was read, or all of it. Whether the next one may be: others go
    /// on before the rest is read.
    fn decoded(
        &mut self,
        id: ConnId,
        conn: &mut Conn,
        frame: Bytes,
        decoded: Result<Decoded, DecodeError>,
        around: Surroundings<'_>,
        asks: &mut Vec<Ask>,
    ) -> bool {
        let decoded = match decoded {
            Ok(Decoded::Part(decoder)) => {
                conn.reserved_bytes = frame.len();
                conn.decoding = Some(Box::new((frame, decoder)));
                self.recount(conn);
                self.hold(id, conn, around.now, asks);
                self.stalled_looks = 0;
                return false;
            }
            Ok(Decoded::Whole(decoded)) => Ok(decoded),
            Err(error) => Err(error),
        };
        conn.reserved_bytes = 0;
        self.request(id, conn, &frame, decoded, around, asks);
        self.recount(conn);
        true
    }

    /// Whether a limit is reached: then frames stay where they are, and reading is paused.
    fn is_held_back(&self, conn: &Conn, around: Surroundings<'_>) -> bool {
        let throttle = self.options.request_throttle.requests_max;
        // What a client has seen is compared with whole txns.
        (self.midway.is_some() && conn.phase == Phase::Fresh)
            || conn.is_over_limits()
            || (!conn.queue.is_empty() && !self.budget.has_room())
            || (throttle != 0 && throttle <= self.budget.used().requests)
            || (around.pipeline_full && next_is_write(conn))
    }

    fn hold(&mut self, id: ConnId, conn: &mut Conn, now: Instant, asks: &mut Vec<Ask>) {
        if !std::mem::replace(&mut conn.in_stalled, true) {
            self.stalled.push_back(id);
        }
        conn.held_since.get_or_insert(now);
        if !self.budget.has_room() && self.budget.asks() {
            asks.push(Ask::Borrow);
        }
    }

    /// A frame over `jute.maxbuffer` went by. Apache closes the connection without a word, which
    /// clients take for a lost connection and try again.
    fn refuse_too_long(&mut self, conn: &mut Conn, len: usize, head: &Bytes, now: Instant) {
        let Phase::Live { session, .. } = conn.phase else { return };
        self.received += 1;
        conn.stats.received += 1;
        let (peer, limit) = (conn.stats.peer, self.options.frame_bytes_max);
        let Ok(RequestFrame { xid, opcode, .. }) = request::decode(head) else {
            conn.begin_close();
            return;
        };
        let path = request::leading_path(head).unwrap_or_default();
        tracing::warn!(%peer, %session, op = opcode::short_name(opcode), %path, size = len, limit,
            "a request is longer than jute.maxbuffer allows and was refused");
        let work = Work::Answer(Answer::error(ErrorCode::BAD_ARGUMENTS));
        enqueue(conn, Pending { xid, bytes: 0, large: false, since: now, opcode, work });
    }

    /// Whether the guard against large requests lets a frame pass.
    fn is_large(&self, conn: &Conn, len: usize) -> Result<bool, ()> {
        let LargeRequests { threshold, bytes_max } = self.options.large_requests;
        let large = threshold.is_some_and(|threshold| threshold < len);
        if large && bytes_max < self.large_bytes + len {
            tracing::warn!(peer = %conn.stats.peer, size = len, outstanding = self.large_bytes,
                "closed: too many bytes of large requests (largeRequestMaxBytes)");
            return Err(());
        }
        Ok(large)
    }

    /// The answer to a request that has waited for too long, if it has.
    fn throttled(&self, conn: &Conn, opcode: i32, waited: Duration) -> Option<Answer> {
        let RequestThrottle { op_wait, drops_stale, .. } = self.options.request_throttle;
        let exempt = [opcode::AUTH, opcode::SASL, opcode::CLOSE_SESSION];
        if exempt.contains(&opcode) {
            return None;
        }
        let timeout = u64::try_from(conn.stats.timeout_ms).unwrap_or_default();
        if drops_stale && Duration::from_millis(timeout) < waited {
            tracing::warn!(peer = %conn.stats.peer, waited_ms = waited.as_millis(),
                "closed: a request has waited for longer than the session's timeout");
            return Some(Answer { silent: true, ..Answer::refusal(ErrorCode::OK) });
        }
        let throttled = op_wait != Duration::ZERO && op_wait < waited && opcode != opcode::PING;
        throttled.then(|| Answer::error(ErrorCode::THROTTLED_OP))
    }

    /// The first four bytes of a connection may be an operator's word.
    fn is_word(&mut self, id: ConnId, conn: &mut Conn, asks: &mut Vec<Ask>) -> bool {
        let Some(word) = conn.deframer.peek_word().and_then(Word::parse) else { return false };
        conn.phase = Phase::Word;
        self.received += 1;
        conn.stats.received += 1;
        if word == Word::Stmk && self.options.words_allowed.allows(word.name()) {
            // The mask that follows is answered with itself; without a whole one nothing is said.
            let mask = conn.deframer.peek_long(4).map(|mask| mask.to_string());
            conn.out.tail().extend_from_slice(mask.unwrap_or_default().as_bytes());
            conn.begin_close();
        } else if self.options.words_allowed.allows(word.name()) {
            asks.push(Ask::Word(id, word));
        } else {
            let refusal =
                format!("{} is not executed because it is not in the whitelist.\n", word.name());
            conn.out.tail().extend_from_slice(refusal.as_bytes());
            conn.begin_close();
        }
        true
    }

    /// `client-protocol.md` 2.4. The tree shows all that is published, so the check of lastZxidSeen
    /// is made against everything any client of this server can have seen.
    fn handshake(
        &self,
        id: ConnId,
        conn: &mut Conn,
        frame: &Bytes,
        around: Surroundings<'_>,
        asks: &mut Vec<Ask>,
    ) {
        let peer = conn.stats.peer;
        let hello = match ConnectRequest::decode(frame) {
            Ok(hello) => hello,
            Err(error) => {
                tracing::debug!(%peer, %error, "closed: handshake does not decode");
                conn.begin_close();
                return;
            }
        };
        let is_served = match self.service {
            Service::Nothing => false,
            Service::ReadOnly => hello.read_only,
            Service::Full => true,
        };
        if !is_served {
            tracing::debug!(%peer, "closed: this server has no leader");
            conn.begin_close();
            return;
        }
        if !around.published.shows(hello.last_zxid_seen) || !self.accepting {
            tracing::info!(%peer, seen = %hello.last_zxid_seen, ours = %around.published.zxid,
                "closed: the client has seen a later zxid");
            conn.begin_close();
            return;
        }
        conn.phase = Phase::Attaching { has_read_only: hello.has_read_only };
        asks.push(Ask::Attach(Attach {
            to: Address { shard: self.id, conn: id },
            session: hello.session,
            password: hello.password,
            timeout_ms: hello.timeout_ms,
        }));
    }

    fn request(
        &mut self,
        id: ConnId,
        conn: &mut Conn,
        frame: &Bytes,
        decoded: Result<RequestFrame, DecodeError>,
        around: Surroundings<'_>,
        asks: &mut Vec<Ask>,
    ) {
        let Phase::Live { session, generation } = conn.phase else { return };
        self.received += 1;
        conn.stats.received += 1;
        let Ok(RequestFrame { xid, opcode, request }) = decoded else {
            tracing::debug!(peer = %conn.stats.peer, "closed: frame shorter than a request header");
            conn.begin_close();
            return;
        };
        let Ok(large) = self.is_large(conn, frame.len()) else {
            conn.begin_close();
            return;
        };
        let since = conn.held_since.unwrap_or(around.now);
        let proves_identity = matches!(opcode, opcode::AUTH | opcode::SASL);
        if !proves_identity {
            conn.heard = around.now;
            if conn.touched.is_none_or(|at| limits::TOUCH_EVERY <= around.now.since(at)) {
                conn.touched = Some(around.now);
                asks.push(Ask::Touch(session));
            }
        }
        let bytes = frame.len();
        let is_admitted =
            proves_identity || auth::is_admitted(&self.options.auth, &conn.identities);
        let throttled = self.throttled(conn, opcode, around.now.since(since));
        if let Some(answer) = throttled.filter(|_| is_admitted) {
            let work = Work::Answer(answer);
            enqueue(conn, Pending { xid, bytes, large, since, opcode, work });
            return;
        }
        let checks_eagerly = self.options.auth.eager && self.options.is_member;
        if let Ok(Request::Write(write)) = &request
            && checks_eagerly
            && is_admitted
            && self.service == Service::Full
            && let Some(code) =
                eager::refusal(&self.options.auth, around.view, write, &conn.identities)
        {
            let work = Work::Answer(Answer { zxid: Some(Zxid::ZERO), ..Answer::error(code) });
            enqueue(conn, Pending { xid, bytes, large, since, opcode, work });
            return;
        }
        let address = Address { shard: self.id, conn: id };
        let origin = Origin { address, generation, xid, number: conn.next_number() };
        // The body stands behind xid and opcode.
        let raw = self.options.is_member.then(|| (opcode, frame.slice(8..)));
        let work = match request {
            _ if !is_admitted => {
                tracing::warn!(peer = %conn.stats.peer, "closed: the client has none of the \
                    identities that are demanded (enforce.auth.schemes)");
                Work::Answer(Answer::refusal(ErrorCode::SESSION_CLOSED_REQUIRE_SASL_AUTH))
            }
            _ if self.service == Service::ReadOnly && opcode::needs_quorum(opcode) => {
                Work::Answer(Answer::error(ErrorCode::NOT_READ_ONLY))
            }
            Ok(Request::Write(write))
                if around.low_on_disk && grows(&write, around.view, self.options.slices.ops) =>
            {
                Work::Answer(Answer::error(ErrorCode::SYSTEM_ERROR))
            }
            Ok(Request::Write(write)) => {
                let kind = write_kind(&write);
                let identities = conn.identities.clone();
                let request = Ok(write);
                asks.push(Ask::Submit(Submit { origin, session, identities, request, raw }));
                Work::Write(kind)
            }
            Ok(Request::Read(read)) => Work::Read(read, conn.identities.clone()),
            Ok(Request::Sync { path }) => {
                let awaited = self.options.is_member;
                if awaited {
                    asks.push(Ask::Sync(session, origin));
                }
                Work::Sync { path, awaited }
            }
            Ok(Request::Ping) => Work::Answer(Answer::ok()),
            Ok(Request::WhoAmI) => Work::WhoAmI(conn.identities.clone()),
            Ok(Request::Auth { scheme, auth }) => {
                Work::Answer(self.authenticate(conn, scheme.as_deref(), auth.as_deref()))
            }
            Ok(Request::Sasl { token: Some(_) }) => Work::Answer(no_sasl()),
            Ok(Request::Sasl { token: None }) => {
                Work::Answer(Answer::refusal(ErrorCode::AUTH_FAILED))
            }
            Err(fault) if fault.consumes_zxid(opcode) => {
                let request = Err(ErrorCode::MARSHALLING_ERROR);
                let identities = conn.identities.clone();
                asks.push(Ask::Submit(Submit { origin, session, identities, request, raw }));
                Work::Write(WriteKind::Delete)
            }
            Err(RequestFault::Undecodable(error)) if proves_identity => {
                tracing::info!(peer = %conn.stats.peer, %error, "closed: no authentication packet");
                Work::Answer(Answer { silent: true, ..Answer::refusal(ErrorCode::OK) })
            }
            Err(RequestFault::Undecodable(_)) => {
                Work::Answer(Answer::error(ErrorCode::MARSHALLING_ERROR))
            }
            Err(RequestFault::Refused) => Work::Answer(Answer::error(ErrorCode::UNIMPLEMENTED)),
            Err(RequestFault::Unknown) => Work::Answer(Answer {
                zxid: Some(Zxid(-1)),
                close: true,
                ..Answer::error(ErrorCode::UNIMPLEMENTED)
            }),
        };
        let xid = if opcode == opcode::PING { Xid::PING } else { xid };
        enqueue(conn, Pending { xid, bytes, large, since, opcode, work });
    }

    fn authenticate(&self, conn: &mut Conn, scheme: Option<&str>, data: Option<&[u8]>) -> Answer {
        let scheme = scheme.unwrap_or_default();
        match auth::authenticate(&self.options.auth, scheme, data, &conn.identities) {
            Ok(identities) => {
                conn.identities = identities;
                Answer { zxid: Some(Zxid::ZERO), ..Answer::ok() }
            }
            Err(AuthRefusal::Failed) => {
                tracing::info!(peer = %conn.stats.peer, scheme, "authentication refused");
                Answer::refusal(ErrorCode::AUTH_FAILED)
            }
            Err(AuthRefusal::TooMany) => {
                let (count, bytes) =
                    (limits::CONN_IDENTITIES_MAX, limits::CONN_IDENTITIES_BYTES_MAX);
                tracing::warn!(peer = %conn.stats.peer, scheme, "closed: a connection may prove \
                    {count} identities of {bytes} bytes together");
                Answer::refusal(ErrorCode::AUTH_FAILED)
            }
            Err(AuthRefusal::OtherEnsemble) => {
                tracing::warn!(peer = %conn.stats.peer, "closed: the client looks for another \
                    ensemble (ensembleAuthName)");
                Answer { silent: true, ..Answer::refusal(ErrorCode::OK) }
            }
        }
    }
}

/// Puts a request into its connection's queue.
fn enqueue(conn: &mut Conn, pending: Pending) {
    let ends = match &pending.work {
        Work::Write(kind) => *kind == WriteKind::Close,
        Work::Answer(answer) => answer.close,
        _ => false,
    };
    let opcode = pending.opcode;
    conn.enqueue(pending);
    if ends {
        // The close follows its answer.
        conn.ends = true;
        conn.stats.last_opcode = Some(opcode);
    }
}

impl Answer {
    fn ok() -> Self {
        Self { zxid: None, code: ErrorCode::OK, body: Bytes::new(), close: false, silent: false }
    }

    pub(super) fn error(code: ErrorCode) -> Self {
        Self { code, ..Self::ok() }
    }

    /// The connection ends because of who the client is, or is not.
    fn refusal(code: ErrorCode) -> Self {
        Self { zxid: Some(Zxid::ZERO), close: true, ..Self::error(code) }
    }
}

/// Without SASL configured, Apache answers a token with a null token.
fn no_sasl() -> Answer {
    let mut body = BytesMut::new();
    response::buffer(&mut body, None);
    Answer { zxid: Some(Zxid::ZERO), body: body.freeze(), ..Answer::ok() }
}

fn write_kind(write: &WriteRequest) -> WriteKind {
    match write {
        WriteRequest::Create(create) if create.kind == CreateKind::Create => WriteKind::Create,
        WriteRequest::Create(_) => WriteKind::CreateStat,
        WriteRequest::Delete { .. } | WriteRequest::Check { .. } => WriteKind::Delete,
        WriteRequest::SetData { .. } | WriteRequest::SetAcl { .. } => WriteKind::Stat,
        WriteRequest::Multi(_) => WriteKind::Multi,
        WriteRequest::Reconfig(_) => WriteKind::Config,
        WriteRequest::CloseSession => WriteKind::Close,
    }
}

/// Whether a write makes the tree larger. A multi of more than so many ops does, too, unless it
/// only deletes and checks: it is long in the log, and to look so many up takes long.
fn grows(write: &WriteRequest, view: &Tree, ops_max: usize) -> bool {
    match write {
        WriteRequest::Create(_) => true,
        WriteRequest::SetData { path, data, .. } => {
            let len = data.as_ref().map_or(0, Bytes::len);
            view.get(path).is_some_and(|znode| znode.data().map_or(0, <[u8]>::len) < len)
        }
        WriteRequest::SetAcl { path, acl, .. } => {
            let text = |text: &Option<Str>| text.as_ref().map_or(0, |text| text.len());
            let entries = acl.iter().flatten();
            let new: usize = entries.map(|entry| text(&entry.scheme) + text(&entry.id)).sum();
            let bytes = |acl: &Acl| acl.id.scheme.len() + acl.id.id.len();
            view.get(path).is_some_and(|znode| znode.acl().iter().map(bytes).sum::<usize>() < new)
        }
        WriteRequest::Multi(writes) if ops_max < writes.len() => {
            let may_grow = |write: &WriteRequest| {
                !matches!(write, WriteRequest::Delete { .. } | WriteRequest::Check { .. })
            };
            writes.iter().any(may_grow)
        }
        WriteRequest::Multi(writes) => writes.iter().any(|write| grows(write, view, ops_max)),
        _ => false,
    }
}

/// Whether the next complete frame holds a write.
fn next_is_write(conn: &Conn) -> bool {
    conn.deframer.peek_opcode().is_some_and(opcode::is_write)
}
