//! Layer 2: client sessions: their ids, owners and expiry (`client-protocol.md` 2.5 and part 10).
//!
//! A session expires at the first multiple of the tick that is at least its timeout after it was
//! last heard of; sessions of one instant expire together, in the order of their ids.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::Bound;

use crate::base::{Duration, Instant, WallMs};
use crate::model::{ConnId, Generation, SessionId, ShardId};

#[cfg(test)]
mod tests;

/// Bounds of session timeouts.
#[derive(Clone, Copy, Debug)]
pub struct SessionConfig {
    /// Granularity of expiry, ms.
    pub tick_ms: u32,
    /// Smallest timeout granted, ms.
    pub min_ms: i32,
    /// Largest timeout granted, ms.
    pub max_ms: i32,
}

/// All live sessions of this server.
#[derive(Debug)]
pub struct SessionTable {
    config: SessionConfig,
    sessions: BTreeMap<SessionId, Session>,
    /// Sessions by expiry instant, which is a multiple of the tick.
    buckets: BTreeMap<Instant, BTreeSet<SessionId>>,
    next_id: i64,
    next_generation: u64,
}

#[derive(Debug)]
struct Session {
    timeout_ms: i32,
    expires: Instant,
    owner: Option<(ShardId, ConnId)>,
    generation: Generation,
    closing: bool,
}

impl SessionTable {
    /// An empty table. Ids start at Apache's seed: the server's id, 40 bits of the clock, 16 zeros.
    #[must_use]
    pub fn new(config: SessionConfig, server_id: u8, clock_ms: WallMs) -> Self {
        let clock = (clock_ms.0.cast_unsigned() << 24) >> 8;
        let seed = (u64::from(server_id) << 56) | clock;
        let seed = if seed == 1 << 63 { seed + 1 } else { seed };
        Self {
            config,
            sessions: BTreeMap::new(),
            buckets: BTreeMap::new(),
            next_id: seed.cast_signed(),
            next_generation: 1,
        }
    }

    /// Ids and attachments that `earlier` has given are not given again.
    pub const fn go_on_from(&mut self, earlier: &Self) {
        self.next_id = earlier.next_id;
        self.next_generation = earlier.next_generation;
    }

    /// An id that no session has.
    pub fn next_id(&mut self) -> SessionId {
        loop {
            let id = SessionId(self.next_id);
            self.next_id = self.next_id.wrapping_add(1);
            if id.0 != 0 && !self.sessions.contains_key(&id) {
                return id;
            }
        }
    }

    /// The timeout granted for the one requested, ms.
    #[must_use]
    pub fn negotiate(&self, requested_ms: i32) -> i32 {
        requested_ms.min(self.config.max_ms).max(self.config.min_ms)
    }

    /// Adds a session that has begun.
    pub fn open(&mut self, id: SessionId, timeout_ms: i32, now: Instant) {
        if self.sessions.contains_key(&id) {
            // Its client was attached on the leader's word before its creation was applied.
            return self.touch(id, now);
        }
        let expires = self.expiry(timeout_ms, now);
        let session =
            Session { timeout_ms, expires, owner: None, generation: Generation(0), closing: false };
        self.buckets.entry(expires).or_default().insert(id);
        self.sessions.insert(id, session);
    }

    /// Every session has its full time again and no connection, and none is closing: what was asked
    /// of a leader that is gone does not count.
    pub fn reset(&mut self, now: Instant) {
        self.buckets.clear();
        let sessions = std::mem::take(&mut self.sessions);
        let timeouts = sessions.into_iter().map(|(id, session)| (id, session.timeout_ms));
        self.restore(timeouts.collect(), now);
    }

    /// Adds the sessions of a restart, each with its full timeout.
    pub fn restore(&mut self, sessions: Vec<(SessionId, i32)>, now: Instant) {
        for (id, timeout_ms) in sessions {
            self.open(id, timeout_ms, now);
        }
    }

    /// Makes a connection the session's owner. Requests of earlier attachments no longer count.
    pub fn attach(
        &mut self,
        id: SessionId,
        shard: ShardId,
        conn: ConnId,
        timeout_ms: i32,
        now: Instant,
    ) -> Generation {
        let generation = Generation(self.next_generation);
        self.next_generation += 1;
        if let Some(session) = self.sessions.get_mut(&id) {
            session.owner = Some((shard, conn));
            session.generation = generation;
            session.timeout_ms = timeout_ms;
        }
        self.set_expiry(id, self.expiry(timeout_ms, now));
        generation
    }

    /// The session's connection.
    #[must_use]
    pub fn owner(&self, id: SessionId) -> Option<(ShardId, ConnId, Generation)> {
        let session = self.sessions.get(&id)?;
        session.owner.map(|(shard, conn)| (shard, conn, session.generation))
    }

    /// The connection of an attachment is gone; whether it was the session's.
    pub fn detach(&mut self, id: SessionId, generation: Generation) -> bool {
        let session = self.sessions.get_mut(&id);
        let Some(session) = session.filter(|session| session.generation == generation) else {
            return false;
        };
        session.owner = None;
        true
    }

    /// The session was heard of at `at`, which may lie in the past: its life is never shortened.
    pub fn touch(&mut self, id: SessionId, at: Instant) {
        let Some(session) = self.sessions.get(&id) else { return };
        let expires = self.expiry(session.timeout_ms, at);
        if session.expires < expires {
            self.set_expiry(id, expires);
        }
    }

    /// The session was heard of at another server, which has granted it this timeout.
    pub fn touch_with(&mut self, id: SessionId, timeout_ms: i32, at: Instant) {
        let timeout_ms = self.negotiate(timeout_ms);
        if let Some(session) = self.sessions.get_mut(&id) {
            session.timeout_ms = timeout_ms;
        }
        self.touch(id, at);
    }

    fn set_expiry(&mut self, id: SessionId, expires: Instant) {
        let Some(session) = self.sessions.get_mut(&id) else { return };
        let before = session.expires;
        if session.closing || expires == before {
            return;
        }
        session.expires = expires;
        self.buckets.entry(expires).or_default().insert(id);
        self.leave_bucket(id, before, expires);
    }

    /// Known and not closing.
    #[must_use]
    pub fn is_live(&self, id: SessionId) -> bool {
        self.sessions.get(&id).is_some_and(|session| !session.closing)
    }

    /// Known, and its end is asked for.
    #[must_use]
    pub fn is_closing(&self, id: SessionId) -> bool {
        self.sessions.get(&id).is_some_and(|session| session.closing)
    }

    /// When the session expires unless it is heard of.
    #[must_use]
    pub fn expires(&self, id: SessionId) -> Option<Instant> {
        self.sessions.get(&id).map(|session| session.expires)
    }

    /// The timeout granted, ms.
    #[must_use]
    pub fn timeout_ms(&self, id: SessionId) -> Option<i32> {
        self.sessions.get(&id).map(|session| session.timeout_ms)
    }

    /// From here on the session accepts nothing.
    pub fn mark_closing(&mut self, id: SessionId) {
        let Some(session) = self.sessions.get_mut(&id) else { return };
        session.closing = true;
        let expires = session.expires;
        self.leave_bucket(id, expires, Instant::default());
    }

    /// The session has ended.
    pub fn remove(&mut self, id: SessionId) {
        if let Some(session) = self.sessions.remove(&id) {
            self.leave_bucket(id, session.expires, Instant::default());
        }
    }

    /// Sessions whose time has come and that are not closing, with that time: the first of them, or
    /// those behind one of them. They stay until removed.
    pub fn due(
        &self,
        now: Instant,
        behind: Option<(Instant, SessionId)>,
    ) -> impl Iterator<Item = (Instant, SessionId)> + '_ {
        let from = behind.map_or(Instant::default(), |(at, _)| at.min(now));
        self.buckets.range(from..=now).flat_map(move |(at, ids)| {
            let start = match behind {
                Some((behind, id)) if behind == *at => Bound::Excluded(id),
                _ => Bound::Unbounded,
            };
            ids.range((start, Bound::Unbounded)).map(move |id| (*at, *id))
        })
    }

    /// Whether the session's time has come, and it is not closing.
    #[must_use]
    pub fn is_due(&self, id: SessionId, now: Instant) -> bool {
        self.sessions.get(&id).is_some_and(|session| !session.closing && session.expires <= now)
    }

    /// When the next session expires unless it is heard of.
    #[must_use]
    pub fn next_deadline(&self) -> Option<Instant> {
        self.buckets.keys().next().copied()
    }

    /// Gives every session more time: the server could not hear its clients for `stalled`.
    pub fn credit(&mut self, stalled: Duration) {
        let buckets = std::mem::take(&mut self.buckets);
        for (expires, ids) in buckets {
            let later = self.round_up(expires + stalled);
            for id in &ids {
                if let Some(session) = self.sessions.get_mut(id) {
                    session.expires = later;
                }
            }
            self.buckets.entry(later).or_default().extend(ids);
        }
    }

    /// Every session with its timeout in ms, by id; those that are closing too, since their end is
    /// not yet applied.
    pub fn iter(&self) -> impl Iterator<Item = (SessionId, i32)> + '_ {
        self.sessions.iter().map(|(id, session)| (*id, session.timeout_ms))
    }

    /// The session that comes next behind another one by id, with its timeout in ms, for `dump`.
    #[must_use]
    pub fn behind(&self, id: Option<SessionId>) -> Option<(SessionId, i32)> {
        let from = id.map_or(Bound::Unbounded, Bound::Excluded);
        let (id, session) = self.sessions.range((from, Bound::Unbounded)).next()?;
        Some((*id, session.timeout_ms))
    }

    /// Number of sessions.
    #[must_use]
    pub fn len(&self) -> usize {
        self.sessions.len()
    }

    /// Whether there is none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.sessions.is_empty()
    }

    /// The session that expires next behind another one, with the number of those that expire with
    /// it, for `dump`.
    #[must_use]
    pub fn expiring_behind(
        &self,
        at: Instant,
        id: SessionId,
    ) -> Option<(Instant, SessionId, usize)> {
        self.buckets.range(at..).find_map(|(expires, ids)| {
            let from = if *expires == at { Bound::Excluded(id) } else { Bound::Unbounded };
            let next = ids.range((from, Bound::Unbounded)).next()?;
            Some((*expires, *next, ids.len()))
        })
    }

    /// Expiry instants with their sessions.
    pub fn buckets(&self) -> impl Iterator<Item = (Instant, &BTreeSet<SessionId>)> {
        self.buckets.iter().map(|(expires, ids)| (*expires, ids))
    }

    fn expiry(&self, timeout_ms: i32, now: Instant) -> Instant {
        let timeout = u64::try_from(timeout_ms).unwrap_or_default();
        self.round_up(now + Duration::from_millis(timeout))
    }

    fn round_up(&self, at: Instant) -> Instant {
        let tick = Duration::from_millis(u64::from(self.config.tick_ms.max(1))).0;
        Instant(at.0.div_ceil(tick).saturating_mul(tick))
    }

    fn leave_bucket(&mut self, id: SessionId, from: Instant, to: Instant) {
        if from == to {
            return;
        }
        if let Some(ids) = self.buckets.get_mut(&from) {
            ids.remove(&id);
            if ids.is_empty() {
                self.buckets.remove(&from);
            }
        }
    }
}
