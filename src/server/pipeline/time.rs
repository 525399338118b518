//! What time makes the pipeline do: sessions that end, containers and TTLs that are over.

use super::super::contract::Clock;
use super::super::options::Reaping;
use super::super::preparing::Preparing;
use super::super::stream::Notice;
use super::{Duty, Pipeline};
use crate::base::{FileOps, Instant, Str, WallMs};
use crate::limits;
use crate::model::{SessionId, ShardId, TxnHeader, Xid};
use crate::session::{SessionKind, SessionTable};

/// How far the look at overdue sessions of one kind has come.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct OverdueLook {
    /// The one that was looked at last, if there may be more.
    to: Option<(Instant, SessionId)>,
    /// When those that were due and did not end are looked at again.
    again_at: Instant,
}

impl OverdueLook {
    fn look(
        &mut self,
        sessions: &SessionTable,
        kind: SessionKind,
        now: Instant,
        most: usize,
    ) -> Vec<SessionId> {
        let due: Vec<_> = sessions.due(kind, now, self.to).take(most).collect();
        self.to = due.last().copied().filter(|_| due.len() == most);
        self.again_at = now + limits::OVERDUE_AGAIN_AFTER;
        due.into_iter().map(|(_, session)| session).collect()
    }

    /// Those that are due and wait for somebody's word are not looked at without a pause.
    fn next(&self, sessions: &SessionTable, kind: SessionKind) -> Option<Instant> {
        sessions.next_deadline(kind).map(|due| match self.to {
            Some(_) => due,
            None => due.max(self.again_at),
        })
    }
}

impl Pipeline {
    /// Any request but auth counts as life.
    pub(crate) fn touch(&mut self, session: SessionId, now: Instant) {
        self.sessions.touch(session, now);
        if self.duty == Duty::Following && !self.sessions.is_local(session) {
            self.touch_as_learner(session);
        }
    }

    /// Time in which this server could not hear its clients does not count against them.
    pub(crate) fn credit(&mut self, stalled: crate::base::Duration) {
        self.sessions.credit(stalled);
    }

    /// Sessions whose time has come, with the shards that own their connections: each call looks at
    /// the next few, and at the first again behind the last.
    pub(crate) fn overdue(&mut self, now: Instant) -> Vec<(SessionId, Option<ShardId>)> {
        let most = self.options.slices.expiries;
        let mut due = Vec::new();
        if self.duty != Duty::Idle {
            due = self.overdue_local.look(&self.sessions, SessionKind::Local, now, most);
        }
        if self.duty.assigns_zxids() {
            let global = self.overdue_global.look(&self.sessions, SessionKind::Global, now, most);
            due.extend(global.into_iter().filter(|session| self.may_expire(*session, now)));
        }
        due.into_iter()
            .map(|session| (session, self.sessions.owner(session).map(|(shard, _, _)| shard)))
            .collect()
    }

    /// The owner of an overdue session has been asked when it last heard of it; `None`: there is no
    /// owner. Closes the session if its time has come all the same; its connection, if there is one
    /// that no txn will tell of it.
    pub(crate) fn expire(
        &mut self,
        clock: Clock,
        session: SessionId,
        heard: Option<Instant>,
    ) -> Option<(ShardId, Notice)> {
        if self.sessions.is_local(session) {
            return self.expire_local(clock.now, session, heard);
        }
        // The answer of a shard may come when the role in which it was asked is over.
        if !self.duty.assigns_zxids() {
            return None;
        }
        if let Some(heard) = heard {
            self.sessions.touch(session, heard);
        }
        // One that must wait stays due.
        if self.is_preparing() || !self.sessions.is_due(session, clock.now) {
            return None;
        }
        tracing::info!(%session, "session expired");
        let header = self.next_header(session, Xid(0), clock.wall);
        self.close_session(Preparing::close(header, None, None));
        None
    }

    /// Deletes overdue containers and TTL znodes, one at a time.
    fn reap(&mut self, clock: Clock) {
        if !self.duty.assigns_zxids() {
            return;
        }
        let Reaping { every, spacing, never_used_ms, .. } = self.options.reaping;
        if self.look_at <= clock.now {
            self.look_at = clock.now + every;
            if self.overdue.is_empty() && self.looked_to.is_none() {
                self.looked_to = Some(Str::default());
            }
        }
        while self.reap_at <= clock.now
            && !self.is_preparing()
            && let Some(path) = self.overdue.pop_front()
        {
            self.reap_at = self.reap_at.max(clock.now) + spacing;
            // A zxid is taken only for what is really deleted.
            let header = TxnHeader {
                session: SessionId(0),
                cxid: Xid(0),
                zxid: self.assigned.next(),
                time_ms: clock.wall.0,
            };
            if let Some(body) = self.prep(Ok(())).reap(&header, &path, never_used_ms) {
                self.assigned = header.zxid;
                self.log_txn(header, body, None, None);
            }
        }
    }

    /// The role is over in which they were found: by the time of the next, other znodes may be
    /// where they were.
    pub(super) fn forget_overdue(&mut self) {
        self.overdue.clear();
        self.looked_to = None;
    }

    /// Once per turn: goes on with the look for overdue containers and TTL znodes.
    pub(crate) fn look_for_overdue(&mut self, wall: WallMs) {
        // No part of a txn may be seen.
        if self.is_applying() {
            return;
        }
        let Some(behind) = self.looked_to.take().filter(|_| self.duty.assigns_zxids()) else {
            return;
        };
        let never_used_ms = self.options.reaping.never_used_ms;
        let most = self.options.slices.overdue_looks;
        let (found, to) = self.tree.overdue_behind(&behind, most, wall.0, never_used_ms);
        self.overdue.extend(found);
        self.looked_to = to;
    }

    /// Work that waits for time.
    pub(crate) fn on_timer(&mut self, clock: Clock, ops: &mut FileOps) {
        let now = clock.now;
        self.reap(clock);
        if self.attest_at.is_some_and(|at| at <= now) {
            self.attest_at = None;
            self.log.attest(ops);
        }
        if self.prepare_retry_at.is_some_and(|at| at <= now) {
            self.prepare_retry_at = None;
            self.retry_for_room(ops);
        }
    }

    pub(crate) fn next_timer(&self) -> Option<Instant> {
        let may_reap = !self.overdue.is_empty() && !self.is_preparing();
        let reap_at = may_reap.then_some(self.reap_at);
        let look_at = Some(self.look_at);
        let expiry = self.overdue_global.next(&self.sessions, SessionKind::Global);
        let local_expiry = self.overdue_local.next(&self.sessions, SessionKind::Local);
        let (expiry, reap_at, look_at) = match self.duty.assigns_zxids() {
            true => (expiry, reap_at, look_at),
            false => (None, None, None),
        };
        [local_expiry, expiry, self.attest_at, self.prepare_retry_at, reap_at, look_at]
            .into_iter()
            .flatten()
            .min()
    }
}
