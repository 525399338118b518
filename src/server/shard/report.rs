//! What a shard contributes to the four-letter words.

use std::collections::{BTreeMap, BTreeSet};

use super::{ConnStats, Shard};
use crate::base::Str;
use crate::model::SessionId;
use crate::server::stats::Latency;

/// A shard's connections, counts and watches at one moment.
#[derive(Clone, Debug, Default)]
pub(crate) struct ShardReport {
    /// Every connection, by id.
    pub(crate) conns: Vec<(ConnStats, Option<SessionId>)>,
    /// Of all requests since the last reset.
    pub(crate) latency: Latency,
    /// Requests taken in.
    pub(crate) received: u64,
    /// Replies and events given.
    pub(crate) sent: u64,
    /// Data watches, which are those that `wchs` counts.
    pub(crate) data_watch_count: usize,
    /// Child watches, which only `mntr` counts too.
    pub(crate) child_watch_count: usize,
    /// Sessions by the path they watch, if that was asked for.
    pub(crate) watches_by_path: BTreeMap<Str, BTreeSet<SessionId>>,
}

impl ShardReport {
    /// Adds what another shard says.
    pub(crate) fn add(&mut self, other: Self) {
        self.conns.extend(other.conns);
        self.latency.add(&other.latency);
        self.received += other.received;
        self.sent += other.sent;
        self.data_watch_count += other.data_watch_count;
        self.child_watch_count += other.child_watch_count;
        for (path, sessions) in other.watches_by_path {
            self.watches_by_path.entry(path).or_default().extend(sessions);
        }
    }

    /// Paths by the session that watches them.
    pub(crate) fn watches_by_session(&self) -> BTreeMap<SessionId, BTreeSet<&Str>> {
        let mut all: BTreeMap<SessionId, BTreeSet<&Str>> = BTreeMap::new();
        for (path, sessions) in &self.watches_by_path {
            for session in sessions {
                all.entry(*session).or_default().insert(path);
            }
        }
        all
    }
}

impl Shard {
    /// What the words tell of this shard.
    pub(crate) fn report(&self, with_watches: bool) -> ShardReport {
        let session_of = |conn| {
            let conn = self.conns.get(&conn)?;
            conn.attachment().map(|(session, _)| session)
        };
        let by_path = if with_watches { self.watches.data_by_path() } else { BTreeMap::default() };
        ShardReport {
            conns: self
                .conns
                .iter()
                .filter(|(_, conn)| !conn.phase.is_closing())
                .map(|(id, conn)| (conn.stats.clone(), session_of(*id)))
                .collect(),
            latency: self.latency.clone(),
            received: self.received,
            sent: self.sent,
            data_watch_count: self.watches.data_count(),
            child_watch_count: self.watches.child_count(),
            watches_by_path: by_path
                .into_iter()
                .map(|(path, conns)| (path, conns.into_iter().filter_map(session_of).collect()))
                .collect(),
        }
    }

    /// Counts from zero again.
    pub(crate) fn reset_stats(&mut self) {
        self.latency = Latency::default();
        self.received = 0;
        self.sent = 0;
    }

    /// Counts each connection's requests from zero again.
    pub(crate) fn reset_conn_stats(&mut self) {
        for conn in self.conns.values_mut() {
            conn.stats.reset();
        }
    }
}
