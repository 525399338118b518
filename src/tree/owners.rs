//! Who keeps a znode: ephemerals by session; containers and TTL znodes, and when nobody needs them.

use std::ops::Bound;

use super::store::Tree;
use crate::base::{Str, StrSet};
use crate::model::{EphemeralOwner, SessionId, StatPersisted};

/// Whether nobody needs a znode without children any longer.
#[must_use]
pub const fn is_overdue(
    owner: EphemeralOwner,
    stat: &StatPersisted,
    wall_ms: i64,
    never_used_ms: i64,
) -> bool {
    let age_ms = wall_ms.saturating_sub(stat.mtime);
    match owner {
        EphemeralOwner::Container => {
            0 < stat.cversion || (0 < never_used_ms && never_used_ms < age_ms)
        }
        EphemeralOwner::Ttl(ttl_ms) => ttl_ms < age_ms,
        _ => false,
    }
}

impl Tree {
    /// Paths of a session's ephemerals, sorted.
    pub fn ephemerals_of(&self, session: SessionId) -> impl Iterator<Item = &Str> {
        self.ephemerals.get(&session).into_iter().flat_map(StrSet::iter)
    }

    /// The same as they are now, to be read in slices.
    #[must_use]
    pub fn ephemerals_now(&self, session: SessionId) -> StrSet {
        self.ephemerals.get(&session).cloned().unwrap_or_default()
    }

    /// The first of a session's ephemerals behind a path.
    #[must_use]
    pub fn next_ephemeral(&self, session: SessionId, behind: &str) -> Option<&Str> {
        self.ephemerals.get(&session)?.next_behind(behind)
    }

    /// Number of a session's ephemerals.
    #[must_use]
    pub fn ephemerals_count_of(&self, session: SessionId) -> usize {
        self.ephemerals.get(&session).map_or(0, StrSet::len)
    }

    /// Sessions that own ephemerals, sorted.
    pub fn ephemeral_sessions(&self) -> impl Iterator<Item = SessionId> + '_ {
        self.ephemerals.keys().copied()
    }

    /// Number of sessions that own ephemerals.
    #[must_use]
    pub fn ephemeral_session_count(&self) -> usize {
        self.ephemerals.len()
    }

    /// The next session that owns ephemerals, behind another one or the first.
    #[must_use]
    pub fn ephemeral_session_behind(&self, session: Option<SessionId>) -> Option<SessionId> {
        let from = session.map_or(Bound::Unbounded, Bound::Excluded);
        self.ephemerals.range((from, Bound::Unbounded)).next().map(|(next, _)| *next)
    }

    /// Containers and TTL znodes that nobody needs any longer (`client-protocol.md` 5.9), among the
    /// next `looked_max` of them behind a path; the path up to which they were looked at, if there
    /// may be more. `never_used_ms` is how long a container may wait for its first child; 0 is for
    /// ever.
    #[must_use]
    pub fn overdue_behind(
        &self,
        behind: &str,
        looked_max: usize,
        wall_ms: i64,
        never_used_ms: i64,
    ) -> (Vec<Str>, Option<Str>) {
        let (mut found, mut looked, mut last) = (Vec::new(), 0, None);
        let rest = self.reapable.range::<str, _>((Bound::Excluded(behind), Bound::Unbounded));
        for path in rest.take(looked_max) {
            looked += 1;
            last = Some(path);
            if self.is_overdue(path, wall_ms, never_used_ms) {
                found.push(path.clone());
            }
        }
        (found, last.filter(|_| looked == looked_max).cloned())
    }

    fn is_overdue(&self, path: &str, wall_ms: i64, never_used_ms: i64) -> bool {
        self.get(path).is_some_and(|znode| {
            let stat = znode.persisted();
            znode.child_count() == 0 && is_overdue(self.owner(&stat), &stat, wall_ms, never_used_ms)
        })
    }

    /// A znode with this stat is gone, or another one in its place.
    pub(super) fn forget_owner(&mut self, path: &str, stat: &StatPersisted) {
        let EphemeralOwner::Session(session) = self.owner(stat) else {
            self.reapable.remove(path);
            return;
        };
        self.ephemerals_count -= 1;
        if let Some(paths) = self.ephemerals.get_mut(&session) {
            paths.remove(path);
            if paths.is_empty() {
                self.ephemerals.remove(&session);
            }
        }
    }

    pub(super) const fn owner(&self, stat: &StatPersisted) -> EphemeralOwner {
        EphemeralOwner::of(stat.ephemeral_owner, self.options.extended_types)
    }
}
