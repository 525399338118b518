//! What a shard contributes to the four-letter words, a piece at a time.

use std::ops::Bound;

use super::{ConnStats, Shard};
use crate::base::Str;
use crate::model::{ConnId, SessionId};
use crate::server::stats::Latency;

/// What a word wants to know besides counts.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Scope {
    /// Every connection.
    pub(crate) conns: bool,
    /// Who watches what.
    pub(crate) watches: bool,
}

impl Scope {
    /// Whether a report grows with connections or watches.
    pub(crate) const fn is_long(self) -> bool {
        self.conns || self.watches
    }
}

/// How far a shard has come with its report.
#[derive(Debug)]
pub(crate) struct Reporting {
    scope: Scope,
    at: At,
}

#[derive(Clone, Copy, Debug)]
enum At {
    Start,
    /// Connections up to this one were told of.
    Conns(ConnId),
    /// Watches at places below this one were told of.
    Watches(u32),
    End,
}

/// A piece of a shard's report: everything as it is when the piece is made.
#[derive(Debug, Default)]
pub(crate) struct ShardReport {
    /// In the first piece.
    pub(crate) counts: Counts,
    /// Connections, by id.
    pub(crate) conns: Vec<(ConnStats, Option<SessionId>)>,
    /// Data watches, which are those that the words tell of, with the session that watches.
    pub(crate) watches: Vec<(Str, SessionId)>,
    /// Nothing follows.
    pub(crate) is_last: bool,
}

/// Counts of one shard, or of all.
#[derive(Clone, Debug, Default)]
pub(crate) struct Counts {
    /// Of all requests since the last reset.
    pub(crate) latency: Latency,
    /// Requests taken in.
    pub(crate) received: u64,
    /// Replies and events given.
    pub(crate) sent: u64,
    /// Connections that are not closing.
    pub(crate) conns: usize,
    /// Data watches, which are those that `wchs` counts.
    pub(crate) data_watches: usize,
    /// Child watches, which only `mntr` counts too.
    pub(crate) child_watches: usize,
}

impl Counts {
    /// Adds what another shard says.
    pub(crate) fn add(&mut self, other: &Self) {
        self.latency.add(&other.latency);
        self.received += other.received;
        self.sent += other.sent;
        self.conns += other.conns;
        self.data_watches += other.data_watches;
        self.child_watches += other.child_watches;
    }
}

impl Reporting {
    pub(crate) const fn new(scope: Scope) -> Self {
        Self { scope, at: At::Start }
    }
}

impl Shard {
    /// The next piece.
    pub(crate) fn report(&self, reporting: &mut Reporting) -> ShardReport {
        let steps_max = self.options.slices.words;
        let mut report = ShardReport::default();
        reporting.at = match reporting.at {
            At::Start => {
                report.counts = Counts {
                    latency: self.latency.clone(),
                    received: self.received,
                    sent: self.sent,
                    conns: 0,
                    data_watches: self.watches.data_count(),
                    child_watches: self.watches.child_count(),
                };
                self.report_conns(reporting.scope, Bound::Unbounded, steps_max, &mut report)
            }
            At::Conns(to) => {
                self.report_conns(reporting.scope, Bound::Excluded(to), steps_max, &mut report)
            }
            At::Watches(to) => self.report_watches(to, steps_max, &mut report),
            At::End => At::End,
        };
        report.is_last = matches!(reporting.at, At::End);
        report
    }

    fn report_conns(
        &self,
        scope: Scope,
        mut behind: Bound<ConnId>,
        steps_max: usize,
        report: &mut ShardReport,
    ) -> At {
        let mut rest = self.conns.range((behind, Bound::Unbounded));
        for (id, conn) in rest.by_ref().take(steps_max) {
            if !conn.phase.is_closing() {
                report.counts.conns += 1;
                if scope.conns {
                    let session = conn.attachment().map(|(session, _)| session);
                    report.conns.push((conn.stats.clone(), session));
                }
            }
            behind = Bound::Excluded(*id);
        }
        match (rest.next(), behind) {
            (Some(_), Bound::Excluded(to)) => At::Conns(to),
            _ if scope.watches => At::Watches(0),
            _ => At::End,
        }
    }

    fn report_watches(&self, from: u32, steps_max: usize, report: &mut ShardReport) -> At {
        let places = u32::try_from(steps_max).unwrap_or(u32::MAX);
        let next = self.watches.data_some(from, places, &mut |path, conn| {
            let conn = self.conns.get(&conn);
            if let Some((session, _)) = conn.and_then(|conn| conn.attachment()) {
                report.watches.push((Str::from(path), session));
            }
        });
        next.map_or(At::End, At::Watches)
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
