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

/// Who keeps a session.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SessionKind {
    /// This server alone, for as long as its role lasts: no other knows of it.
    Local,
    /// Every server, from the txn that creates it to the txn that ends it.
    Global,
}

/// All live sessions of this server.
#[derive(Debug)]
pub struct SessionTable {
    config: SessionConfig,
    sessions: BTreeMap<SessionId, Session>,
    local: Buckets,
    global: Buckets,
    /// Those of them that are local.
    local_count: usize,
    next_id: i64,
    next_generation: u64,
}

/// Sessions by expiry instant, which is a multiple of the tick.
#[derive(Debug, Default)]
struct Buckets(BTreeMap<Instant, BTreeSet<SessionId>>);

#[derive(Debug)]
struct Session {
    kind: SessionKind,
    /// The txn that creates it is not applied here: a local session was made global, or the leader
    /// knows of it.
    is_ahead: bool,
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
            local: Buckets::default(),
            global: Buckets::default(),
            local_count: 0,
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

    /// Adds a session whose creation is applied.
    pub fn open(&mut self, id: SessionId, timeout_ms: i32, now: Instant) {
        self.make_global(id);
        let Some(session) = self.sessions.get_mut(&id) else {
            return self.add(id, SessionKind::Global, timeout_ms, now);
        };
        session.is_ahead = false;
        // Its client was attached before its creation was applied.
        self.touch(id, now);
    }

    /// Adds a session of which the leader says that it lives, whose creation is not applied here.
    /// With that leader its creation may be lost.
    pub fn open_ahead(&mut self, id: SessionId, timeout_ms: i32, now: Instant) {
        self.add(id, SessionKind::Global, timeout_ms, now);
        if let Some(session) = self.sessions.get_mut(&id) {
            session.is_ahead = true;
        }
    }

    /// Adds a session that only this server knows.
    pub fn open_local(&mut self, id: SessionId, timeout_ms: i32, now: Instant) {
        self.add(id, SessionKind::Local, timeout_ms, now);
        self.local_count += 1;
    }

    fn add(&mut self, id: SessionId, kind: SessionKind, timeout_ms: i32, now: Instant) {
        let expires = self.expiry(timeout_ms, now);
        self.buckets_mut(kind).insert(expires, id);
        let session = Session {
            kind,
            is_ahead: false,
            timeout_ms,
            expires,
            owner: None,
            generation: Generation(0),
            closing: false,
        };
        self.sessions.insert(id, session);
    }

    /// Makes a local session global, before the txn that creates it is asked for. Its timeout in
    /// ms; `None` if it is no local session.
    pub fn upgrade(&mut self, id: SessionId) -> Option<i32> {
        self.make_global(id).then(|| self.timeout_ms(id)).flatten()
    }

    /// Whether it was a local session, which is global now.
    fn make_global(&mut self, id: SessionId) -> bool {
        let session = self.sessions.get_mut(&id);
        let Some(session) = session.filter(|session| session.kind == SessionKind::Local) else {
            return false;
        };
        (session.kind, session.is_ahead) = (SessionKind::Global, true);
        let (expires, closing) = (session.expires, session.closing);
        self.local_count -= 1;
        self.local.remove(expires, id);
        if !closing {
            self.global.insert(expires, id);
        }
        true
    }

    /// Known, and local.
    #[must_use]
    pub fn is_local(&self, id: SessionId) -> bool {
        self.sessions.get(&id).is_some_and(|session| session.kind == SessionKind::Local)
    }

    /// Every global session has its full time again and no connection, and none is closing: what
    /// was asked of a leader that is gone does not count. The others are gone.
    pub fn reset(&mut self, now: Instant) {
        (self.local, self.global) = (Buckets::default(), Buckets::default());
        self.local_count = 0;
        let timeouts: Vec<_> = self.iter().collect();
        self.sessions.clear();
        self.restore(timeouts, now);
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

    /// The timeout that another server has granted, ms: its bounds may be others than ours, while
    /// an operator changes them server by server, and the client was told.
    #[must_use]
    pub fn granted(&self, timeout_ms: i32) -> i32 {
        if 0 < timeout_ms { timeout_ms } else { self.negotiate(timeout_ms) }
    }

    /// The session was heard of at another server, which has granted it this timeout.
    pub fn touch_with(&mut self, id: SessionId, timeout_ms: i32, at: Instant) {
        let timeout_ms = self.granted(timeout_ms);
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
        let kind = session.kind;
        let buckets = self.buckets_mut(kind);
        buckets.remove(before, id);
        buckets.insert(expires, id);
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
        let (kind, expires) = (session.kind, session.expires);
        self.buckets_mut(kind).remove(expires, id);
    }

    /// The session has ended.
    pub fn remove(&mut self, id: SessionId) {
        if let Some(session) = self.sessions.remove(&id) {
            self.local_count -= usize::from(session.kind == SessionKind::Local);
            self.buckets_mut(session.kind).remove(session.expires, id);
        }
    }

    /// Sessions of a kind whose time has come and that are not closing, with that time: the first
    /// of them, or those behind one of them. They stay until removed.
    pub fn due(
        &self,
        kind: SessionKind,
        now: Instant,
        behind: Option<(Instant, SessionId)>,
    ) -> impl Iterator<Item = (Instant, SessionId)> + '_ {
        let from = behind.map_or(Instant::default(), |(at, _)| at.min(now));
        self.buckets(kind).0.range(from..=now).flat_map(move |(at, ids)| {
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

    /// When the next session of a kind expires unless it is heard of.
    #[must_use]
    pub fn next_deadline(&self, kind: SessionKind) -> Option<Instant> {
        self.buckets(kind).0.keys().next().copied()
    }

    /// Gives every session more time: the server could not hear its clients for `stalled`.
    pub fn credit(&mut self, stalled: Duration) {
        for kind in [SessionKind::Local, SessionKind::Global] {
            let buckets = std::mem::take(self.buckets_mut(kind));
            for (expires, ids) in buckets.0 {
                let later = self.round_up(expires + stalled);
                for id in &ids {
                    if let Some(session) = self.sessions.get_mut(id) {
                        session.expires = later;
                    }
                }
                self.buckets_mut(kind).0.entry(later).or_default().extend(ids);
            }
        }
    }

    /// Every global session whose creation is applied with its timeout in ms, by id; those that are
    /// closing too, since their end is not yet applied.
    pub fn iter(&self) -> impl Iterator<Item = (SessionId, i32)> + '_ {
        let applied = self.sessions.iter().filter(|(_, session)| session.is_applied());
        applied.map(|(id, session)| (*id, session.timeout_ms))
    }

    /// The global session that comes next behind another one by id, with its timeout in ms, for
    /// `dump`.
    #[must_use]
    pub fn behind(&self, id: Option<SessionId>) -> Option<(SessionId, i32)> {
        let from = id.map_or(Bound::Unbounded, Bound::Excluded);
        let mut behind = self.sessions.range((from, Bound::Unbounded));
        let (id, session) = behind.find(|(_, session)| session.kind == SessionKind::Global)?;
        Some((*id, session.timeout_ms))
    }

    /// Number of sessions of a kind.
    #[must_use]
    pub fn count(&self, kind: SessionKind) -> usize {
        match kind {
            SessionKind::Local => self.local_count,
            SessionKind::Global => self.sessions.len() - self.local_count,
        }
    }

    /// The session of a kind that expires next behind another one, with the number of those that
    /// expire with it, for `dump`.
    #[must_use]
    pub fn expiring_behind(
        &self,
        kind: SessionKind,
        at: Instant,
        id: SessionId,
    ) -> Option<(Instant, SessionId, usize)> {
        self.buckets(kind).0.range(at..).find_map(|(expires, ids)| {
            let from = if *expires == at { Bound::Excluded(id) } else { Bound::Unbounded };
            let next = ids.range((from, Bound::Unbounded)).next()?;
            Some((*expires, *next, ids.len()))
        })
    }

    /// Number of instants at which sessions of a kind expire.
    #[must_use]
    pub fn expiry_count(&self, kind: SessionKind) -> usize {
        self.buckets(kind).0.len()
    }

    const fn buckets(&self, kind: SessionKind) -> &Buckets {
        match kind {
            SessionKind::Local => &self.local,
            SessionKind::Global => &self.global,
        }
    }

    const fn buckets_mut(&mut self, kind: SessionKind) -> &mut Buckets {
        match kind {
            SessionKind::Local => &mut self.local,
            SessionKind::Global => &mut self.global,
        }
    }

    fn expiry(&self, timeout_ms: i32, now: Instant) -> Instant {
        let timeout = u64::try_from(timeout_ms).unwrap_or_default();
        self.round_up(now + Duration::from_millis(timeout))
    }

    fn round_up(&self, at: Instant) -> Instant {
        let tick = Duration::from_millis(u64::from(self.config.tick_ms.max(1))).0;
        Instant(at.0.div_ceil(tick).saturating_mul(tick))
    }
}

impl Session {
    fn is_applied(&self) -> bool {
        self.kind == SessionKind::Global && !self.is_ahead
    }
}

impl Buckets {
    fn insert(&mut self, at: Instant, id: SessionId) {
        self.0.entry(at).or_default().insert(id);
    }

    fn remove(&mut self, at: Instant, id: SessionId) {
        if let Some(ids) = self.0.get_mut(&at) {
            ids.remove(&id);
            if ids.is_empty() {
                self.0.remove(&at);
            }
        }
    }
}
