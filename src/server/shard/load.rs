//! What connections cost, and who is closed so that others can go on.

use super::conn::{Conn, Load, Phase};
use super::{Shard, mark_dirty};
use crate::base::Instant;
use crate::limits;
use crate::model::ConnId;
use crate::server::contract::Output;
use crate::server::credit::Credit;

impl Shard {
    /// More may be outstanding here.
    pub(crate) const fn lend(&mut self, credit: Credit) {
        self.budget.lent(credit);
    }

    /// Takes note of what a connection costs now.
    pub(super) fn recount(&mut self, conn: &mut Conn) {
        let Load { outstanding, large_bytes, unsent_bytes } = conn.load();
        self.budget.change(conn.counted.outstanding, outstanding);
        self.large_bytes = self.large_bytes - conn.counted.large_bytes + large_bytes;
        self.unsent_bytes = self.unsent_bytes - conn.counted.unsent_bytes + unsent_bytes;
        conn.counted = Load { outstanding, large_bytes, unsent_bytes };
    }

    /// Whether more replies may be made for a connection, as far as all others are concerned.
    pub(super) fn may_reply(&self, conn: &Conn) -> bool {
        let max = self.options.unsent_bytes_max;
        self.unsent_bytes < max / 2 || (conn.owed_bytes() == 0 && self.unsent_bytes < max)
    }

    /// Whether the frame that has begun to arrive may be received. Long ones need room beforehand,
    /// since many connections could each hold most of one.
    pub(super) fn reserve(&mut self, conn: &mut Conn) -> bool {
        let Some(len) = conn.deframer.announced() else { return true };
        if len <= limits::FRAME_BYTES_SMALL || conn.reserved_bytes != 0 {
            return true;
        }
        if !self.budget.has_bytes(len) {
            return false;
        }
        conn.reserved_bytes = len;
        self.recount(conn);
        true
    }

    /// While too much waits for sockets, those that take nothing are closed, the worst first.
    pub(super) fn close_slow_readers(&mut self, now: Instant, out: &mut Vec<Output>) {
        if self.unsent_bytes < self.options.unsent_bytes_max {
            self.slow_at = None;
            return;
        }
        if self.slow_at.is_some_and(|at| now < at) {
            return;
        }
        let is_slow = |conn: &Conn| {
            conn.unsent_bytes != 0 && limits::SLOW_READER_AFTER <= now.since(conn.sent_at)
        };
        let mut slow: Vec<(usize, ConnId)> = self
            .conns
            .iter()
            .filter(|(_, conn)| is_slow(conn))
            .map(|(id, conn)| (conn.counted.unsent_bytes, *id))
            .collect();
        slow.sort_unstable();
        while self.options.unsent_bytes_max <= self.unsent_bytes
            && let Some((unsent_bytes, id)) = slow.pop()
        {
            let Some(mut conn) = self.conns.remove(&id) else { continue };
            tracing::warn!(peer = %conn.stats.peer, unsent_bytes, "closed: the client does not \
                read, and what waits for all clients has reached its limit");
            conn.abort();
            self.flush(id, &mut conn, now, out);
            self.recount(&mut conn);
            self.conns.insert(id, conn);
        }
        self.slow_at = Some(now + limits::SLOW_READER_AFTER);
    }

    /// While connections wait for room for a long frame, those that have it must go on sending.
    pub(super) fn close_stalled_frames(&mut self, now: Instant) {
        if self.frames_at.is_none_or(|at| now < at) {
            return;
        }
        self.frames_at = None;
        let after = limits::FRAME_STALLED_AFTER;
        for (id, conn) in &mut self.conns {
            let waits = conn.reserved_bytes != 0 && conn.decoding.is_none() && !conn.paused;
            if waits && after <= now.since(conn.heard) {
                tracing::warn!(peer = %conn.stats.peer, bytes = conn.reserved_bytes, "closed: the \
                    rest of a long request does not come, and others wait for its room");
                conn.begin_close();
                mark_dirty(&mut self.dirty, *id, conn);
            }
        }
    }
}

/// Events come whether the client reads or not.
pub(super) fn abort_if_too_slow(conn: &mut Conn) {
    let unsent_bytes = conn.kept_bytes();
    let is_word = conn.phase == Phase::Word;
    if limits::CONN_UNSENT_BYTES_HARD_MAX < unsent_bytes && !conn.phase.is_closing() && !is_word {
        tracing::warn!(peer = %conn.stats.peer, unsent_bytes, "closed: the client does not read");
        conn.abort();
    }
}
