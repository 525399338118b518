//! Local sessions (`client-protocol.md` 10.5): no txn creates or ends them, so that the coming and
//! going of clients costs the ensemble nothing. One that wants to own an ephemeral becomes global
//! first: what deletes the ephemeral is the txn that ends its session.

use std::collections::{BTreeSet, VecDeque};

use super::{ErrorCode, LocalSessions, Pipeline};
use crate::base::Instant;
use crate::limits;
use crate::model::{CreateKind, SessionId, ShardId, TxnBody, WriteRequest, Xid};
use crate::server::contract::Clock;
use crate::server::stream::{Address, Notice, Submit};

/// Global sessions whose end was applied here lately. A learner that has not applied it yet may
/// still ask for one of them, and is not to be taken for the server of a local session.
#[derive(Debug, Default)]
pub(super) struct Ended {
    known: BTreeSet<SessionId>,
    order: VecDeque<SessionId>,
}

impl Ended {
    pub(super) fn note(&mut self, session: SessionId) {
        if self.known.insert(session) {
            self.order.push_back(session);
        }
        if limits::ENDED_SESSIONS_MAX < self.order.len()
            && let Some(oldest) = self.order.pop_front()
        {
            self.known.remove(&oldest);
        }
    }
}

impl Pipeline {
    /// Whether new sessions are local.
    pub(super) fn makes_local_sessions(&self) -> bool {
        self.options.local_sessions() != LocalSessions::Off
    }

    /// A handshake that asks for a new session.
    pub(super) fn open_local(&mut self, to: Address, timeout_ms: i32, now: Instant) -> Notice {
        let session = self.sessions.next_id();
        self.sessions.open_local(session, timeout_ms, now);
        self.attached(to, session, timeout_ms, now)
    }

    /// The client ends its local session. What it asked before is answered first.
    pub(super) fn close_local(&mut self, submit: &Submit) -> (ShardId, Notice) {
        self.sessions.remove(submit.session);
        (submit.origin.address.shard, Notice::Answered(submit.origin, ErrorCode::OK))
    }

    /// Ends a local session if its time has come; its connection, if it has one, is to be closed.
    pub(super) fn expire_local(
        &mut self,
        now: Instant,
        session: SessionId,
        heard: Option<Instant>,
    ) -> Option<(ShardId, Notice)> {
        if let Some(heard) = heard {
            self.sessions.touch(session, heard);
        }
        if !self.sessions.is_due(session, now) {
            return None;
        }
        tracing::info!(%session, "local session expired");
        let owner = self.sessions.owner(session);
        self.sessions.remove(session);
        owner.map(|(shard, conn, _)| (shard, Notice::Drop { conn }))
    }

    /// A write of a client of this server, which makes txns: whether its session may own
    /// ephemerals. A local session that wants to becomes global.
    pub(super) fn claim_ephemerals(
        &mut self,
        clock: Clock,
        session: SessionId,
        request: &Result<WriteRequest, ErrorCode>,
    ) -> Result<(), ErrorCode> {
        if !self.sessions.is_local(session) {
            return Ok(());
        }
        if !request.as_ref().is_ok_and(wants_ephemeral) {
            return Err(ErrorCode::SESSION_EXPIRED);
        }
        let Some(timeout_ms) = self.upgrade(session) else {
            return Err(ErrorCode::EPHEMERAL_ON_LOCAL_SESSION);
        };
        let header = self.next_header(session, Xid(0), clock.wall);
        let body = TxnBody::CreateSession { timeout_ms };
        self.overlay.stage(&self.tree, &header, &body);
        self.log_txn(header, body, None, None);
        Ok(())
    }

    /// The same of a learner, which asks the leader: what the client is told if the leader refuses,
    /// if not what the leader says.
    pub(super) fn claim_ephemerals_as_learner(
        &mut self,
        session: SessionId,
        request: &WriteRequest,
    ) -> Option<ErrorCode> {
        if !self.sessions.is_local(session) || !wants_ephemeral(request) {
            return None;
        }
        if let Some(timeout_ms) = self.upgrade(session) {
            self.member.create_session(session, timeout_ms, None);
            return None;
        }
        let is_multi = matches!(request, WriteRequest::Multi(_));
        (!is_multi).then_some(ErrorCode::EPHEMERAL_ON_LOCAL_SESSION)
    }

    fn upgrade(&mut self, session: SessionId) -> Option<i32> {
        let may = self.options.local_sessions() == LocalSessions::Upgradable;
        let timeout_ms = may.then(|| self.sessions.upgrade(session)).flatten()?;
        tracing::info!(%session, "a local session is made global");
        Some(timeout_ms)
    }

    /// Whether a session began at this server.
    pub(super) fn is_own(&self, session: SessionId) -> bool {
        let [server, ..] = session.0.to_be_bytes();
        server == self.options.server_id
    }

    /// Whether a session is new, or was begun here since only reads are served, or as a local one:
    /// no other server has ever known of it.
    pub(super) fn is_for_reads(&self, session: SessionId) -> bool {
        let was_local = self.makes_local_sessions() || self.member.reads_from <= session;
        session.0 == 0 || (self.is_own(session) && was_local && !self.is_global(session))
    }

    /// A learner asks for a session that is unknown here: whether it can be one of its own.
    pub(super) fn may_be_local_elsewhere(&self, session: SessionId) -> bool {
        self.makes_local_sessions()
            && !self.is_own(session)
            && !self.sessions.is_closing(session)
            && !self.member.opening.contains_key(&session)
            && !self.ended.known.contains(&session)
    }
}

/// Whether a request creates an ephemeral with an op that makes Apache's servers upgrade a session.
fn wants_ephemeral(request: &WriteRequest) -> bool {
    let ops = match request {
        WriteRequest::Multi(ops) => ops.as_slice(),
        single => std::slice::from_ref(single),
    };
    for op in ops {
        let WriteRequest::Create(create) = op else { continue };
        if !matches!(create.kind, CreateKind::Create | CreateKind::Create2) {
            continue;
        }
        match create.flags {
            1 | 3 => return true,
            0..=6 => {}
            // Refused before an op behind it counts.
            _ => return false,
        }
    }
    false
}
