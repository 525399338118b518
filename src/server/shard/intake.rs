//! From received bytes to queued requests: four-letter words, handshakes, requests.

use bytes::{Bytes, BytesMut};

use crate::auth::{self, AuthRefusal};
use crate::model::{ConnId, CreateKind, ErrorCode, Request, WriteRequest, Zxid};
use crate::tree::Tree;
use crate::wire::connect::ConnectRequest;
use crate::wire::opcode;
use crate::wire::request::{self, RequestFault, RequestFrame};
use crate::wire::response;
use crate::wire::word::Word;

use super::conn::{Answer, Conn, Pending, Phase, Work, WriteKind};
use super::{Shard, Surroundings, mark_dirty};
use crate::limits;
use crate::server::stream::{Address, Ask, Attach, Origin, Submit};

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
            if matches!(conn.phase, Phase::Attaching { .. } | Phase::Word | Phase::Closing { .. }) {
                return;
            }
            if conn.is_over_limits(&self.options) {
                self.stalled.push(id);
                return;
            }
            if around.pipeline_full && next_is_write(conn) {
                self.stalled.push(id);
                return;
            }
            match conn.deframer.next_frame() {
                Ok(Some(frame)) if conn.phase == Phase::Fresh => {
                    self.handshake(id, conn, &frame, around, asks);
                }
                Ok(Some(frame)) => self.request(id, conn, &frame, around, asks),
                Ok(None) => return,
                Err(error) => {
                    let peer = conn.stats.peer;
                    tracing::warn!(%peer, %error, "closed: frame refused");
                    conn.begin_close();
                }
            }
        }
    }

    /// The first four bytes of a connection may be an operator's word.
    fn is_word(&mut self, id: ConnId, conn: &mut Conn, asks: &mut Vec<Ask>) -> bool {
        let Some(word) = conn.deframer.peek_word().and_then(Word::parse) else { return false };
        conn.phase = Phase::Word;
        if self.options.words_allowed.allows(word.name()) {
            asks.push(Ask::Word(id, word));
        } else {
            let refusal =
                format!("{} is not executed because it is not in the whitelist.\n", word.name());
            conn.out.tail().extend_from_slice(refusal.as_bytes());
            conn.begin_close();
        }
        true
    }

    /// `client-protocol.md` 2.4. The tree is at `published`, so the check of lastZxidSeen is made
    /// against everything any client of this server can have seen.
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
        if around.view.last_zxid() < hello.last_zxid_seen || !self.accepting {
            tracing::info!(%peer, seen = %hello.last_zxid_seen, ours = %around.view.last_zxid(),
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
        around: Surroundings<'_>,
        asks: &mut Vec<Ask>,
    ) {
        let Phase::Live { session, generation } = conn.phase else { return };
        self.received += 1;
        conn.stats.received += 1;
        let Ok(RequestFrame { xid, opcode, request }) = request::decode(frame) else {
            tracing::debug!(peer = %conn.stats.peer, "closed: frame shorter than a request header");
            conn.begin_close();
            return;
        };
        let proves_identity = matches!(opcode, opcode::AUTH | opcode::SASL);
        if !proves_identity {
            conn.heard = around.now;
            if conn.touched.is_none_or(|at| limits::TOUCH_EVERY <= around.now.since(at)) {
                conn.touched = Some(around.now);
                asks.push(Ask::Touch(session));
            }
        }
        let address = Address { shard: self.id, conn: id };
        let origin = Origin { address, generation, xid };
        let work = match request {
            _ if !proves_identity && !auth::is_admitted(&self.options.auth, &conn.identities) => {
                tracing::warn!(peer = %conn.stats.peer, "closed: the client has none of the \
                    identities that are demanded (enforce.auth.schemes)");
                Work::Answer(Answer::refusal(ErrorCode::SESSION_CLOSED_REQUIRE_SASL_AUTH))
            }
            Ok(Request::Write(write)) if around.low_on_disk && grows(&write, around.view) => {
                Work::Answer(Answer::error(ErrorCode::SYSTEM_ERROR))
            }
            Ok(Request::Write(write)) => {
                let kind = write_kind(&write);
                let identities = conn.identities.clone();
                asks.push(Ask::Submit(Submit { origin, session, identities, request: Ok(write) }));
                Work::Write(kind)
            }
            Ok(Request::Read(read)) => Work::Read(read, conn.identities.clone()),
            Ok(Request::Sync { path }) => Work::Sync(path),
            Ok(Request::Ping) => Work::Answer(Answer::ok()),
            Ok(Request::WhoAmI) => Work::WhoAmI(conn.identities.clone()),
            Ok(Request::Auth { scheme, auth }) => {
                Work::Answer(self.authenticate(conn, scheme.as_deref(), auth.as_deref()))
            }
            Ok(Request::Sasl { .. }) => Work::Answer(no_sasl()),
            Ok(Request::Reconfig) => {
                let request = Err(match self.options.reconfig_enabled {
                    true => ErrorCode::UNIMPLEMENTED,
                    false => ErrorCode::RECONFIG_DISABLED,
                });
                let identities = conn.identities.clone();
                asks.push(Ask::Submit(Submit { origin, session, identities, request }));
                Work::Write(WriteKind::Delete)
            }
            Err(fault) if fault.consumes_zxid(opcode) => {
                let request = Err(ErrorCode::MARSHALLING_ERROR);
                let identities = conn.identities.clone();
                asks.push(Ask::Submit(Submit { origin, session, identities, request }));
                Work::Write(WriteKind::Delete)
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
        let ends = matches!(work, Work::Write(WriteKind::Close))
            || matches!(&work, Work::Answer(answer) if answer.close);
        conn.enqueue(Pending { xid, bytes: frame.len(), since: around.now, opcode, work });
        if ends {
            // Nothing behind it is taken in; the close follows its answer.
            drop(conn.deframer.take_rest());
            conn.stats.last_opcode = Some(opcode);
        }
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
            Err(AuthRefusal::OtherEnsemble) => {
                tracing::warn!(peer = %conn.stats.peer, "closed: the client looks for another \
                    ensemble (ensembleAuthName)");
                Answer { silent: true, ..Answer::refusal(ErrorCode::OK) }
            }
        }
    }
}

impl Answer {
    fn ok() -> Self {
        Self { zxid: None, code: ErrorCode::OK, body: Bytes::new(), close: false, silent: false }
    }

    fn error(code: ErrorCode) -> Self {
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
        WriteRequest::CloseSession => WriteKind::Close,
    }
}

/// Whether a write makes the tree larger.
fn grows(write: &WriteRequest, view: &Tree) -> bool {
    match write {
        WriteRequest::Create(_) => true,
        WriteRequest::SetData { path, data, .. } => {
            let len = data.as_ref().map_or(0, Bytes::len);
            view.get(path).is_some_and(|znode| znode.data().map_or(0, <[u8]>::len) < len)
        }
        WriteRequest::Multi(writes) => writes.iter().any(|write| grows(write, view)),
        _ => false,
    }
}

/// Whether the next complete frame holds a write.
fn next_is_write(conn: &Conn) -> bool {
    conn.deframer.peek_opcode().is_some_and(opcode::is_write)
}
