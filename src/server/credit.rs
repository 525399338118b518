//! How much may be outstanding on this server, and the shards' shares of it.
//!
//! Half of the whole belongs to the shards in equal shares, the rest is lent to those that need
//! more. A shard without room stops reading from connections that already have something
//! outstanding; what it borrowed goes back once its own share is enough again. So a share is always
//! there, and many connections cannot exhaust the memory of the server.

use std::collections::BTreeSet;

use crate::limits;
use crate::model::ShardId;

/// Requests, and bytes of their frames.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Credit {
    pub(crate) requests: usize,
    pub(crate) bytes: usize,
}

impl Credit {
    const fn plus(self, other: Self) -> Self {
        Self { requests: self.requests + other.requests, bytes: self.bytes + other.bytes }
    }

    const fn minus(self, other: Self) -> Self {
        Self {
            requests: self.requests.saturating_sub(other.requests),
            bytes: self.bytes.saturating_sub(other.bytes),
        }
    }

    fn min(self, other: Self) -> Self {
        Self { requests: self.requests.min(other.requests), bytes: self.bytes.min(other.bytes) }
    }

    const fn is_zero(self) -> bool {
        self.requests == 0 && self.bytes == 0
    }

    const fn fits_into(self, other: Self) -> bool {
        self.requests <= other.requests && self.bytes <= other.bytes
    }
}

/// Each shard's own share of `requests` in all, on a server of so many shards: enough for one frame
/// of the longest kind.
pub(crate) fn share(requests: usize, frame_bytes_max: usize, shards: usize) -> Credit {
    let bytes = limits::OUTSTANDING_BYTES_MAX;
    let parts = if shards == 1 { 1 } else { 2 * shards };
    Credit {
        requests: (requests / parts).max(1),
        bytes: (bytes / parts).max(frame_bytes_max).max(limits::FRAME_BYTES_SMALL),
    }
}

/// The pipeline's side: what is not lent.
#[derive(Debug)]
pub(crate) struct Lender {
    free: Credit,
    /// Of one loan, at most.
    loan: Credit,
    /// Shards that asked when nothing was left.
    waiting: BTreeSet<ShardId>,
}

impl Lender {
    pub(crate) fn new(requests: usize, share: Credit, shards: usize) -> Self {
        let shares = Credit { requests: share.requests * shards, bytes: share.bytes * shards };
        let all = Credit { requests, bytes: limits::OUTSTANDING_BYTES_MAX };
        let free = all.minus(shares);
        let loan = Credit {
            requests: free.requests.div_ceil(2).max(1),
            bytes: free.bytes.div_ceil(2).max(1),
        };
        Self { free, loan, waiting: BTreeSet::new() }
    }

    /// A shard asks for more; it hears of it again when something is free.
    pub(crate) fn lend(&mut self, shard: ShardId) -> Option<Credit> {
        let credit = self.free.min(self.loan);
        if credit.requests == 0 || credit.bytes == 0 {
            self.waiting.insert(shard);
            return None;
        }
        self.free = self.free.minus(credit);
        Some(credit)
    }

    /// A loan comes back; perhaps somebody waits for it.
    pub(crate) fn take_back(&mut self, from: ShardId, credit: Credit) -> Option<(ShardId, Credit)> {
        self.free = self.free.plus(credit);
        self.waiting.remove(&from);
        let shard = self.waiting.pop_first()?;
        self.lend(shard).map(|credit| (shard, credit))
    }
}

/// A shard's side.
#[derive(Debug)]
pub(crate) struct Budget {
    share: Credit,
    lent: Credit,
    used: Credit,
    asked: bool,
}

impl Budget {
    pub(crate) const fn new(share: Credit) -> Self {
        let none = Credit { requests: 0, bytes: 0 };
        Self { share, lent: none, used: none, asked: false }
    }

    pub(crate) const fn used(&self) -> Credit {
        self.used
    }

    /// What a connection has outstanding has changed.
    pub(crate) const fn change(&mut self, from: Credit, to: Credit) {
        self.used = self.used.minus(from).plus(to);
    }

    /// Whether connections that have something outstanding may send more.
    pub(crate) const fn has_room(&self) -> bool {
        let limit = self.share.plus(self.lent);
        self.used.requests < limit.requests && self.used.bytes < limit.bytes
    }

    /// Whether a frame of this length may be received.
    pub(crate) const fn has_bytes(&self, bytes: usize) -> bool {
        self.used.bytes + bytes <= self.share.plus(self.lent).bytes
    }

    /// Whether to ask for a loan, now that there was no room.
    pub(crate) const fn asks(&mut self) -> bool {
        !std::mem::replace(&mut self.asked, true)
    }

    pub(crate) const fn lent(&mut self, credit: Credit) {
        self.lent = self.lent.plus(credit);
        self.asked = false;
    }

    /// What is lent and no longer needed.
    pub(crate) fn give_back(&mut self) -> Option<Credit> {
        let enough = !self.lent.is_zero() && self.used.fits_into(self.share) && self.has_room();
        enough.then(|| std::mem::take(&mut self.lent))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_lent_comes_back() {
        let share = share(100, 1000, 2);
        assert_eq!(share.requests, 25);
        let mut lender = Lender::new(100, share, 2);
        let mut budgets = [Budget::new(share), Budget::new(share)];
        let used = |requests| Credit { requests, bytes: 0 };
        budgets[0].change(Credit::default(), used(25));
        assert!(!budgets[0].has_room());
        let mut lent = 0;
        while let Some(credit) = lender.lend(ShardId(0)) {
            lent += credit.requests;
            budgets[0].lent(credit);
        }
        assert_eq!(lent, 50, "the other half");
        assert!(budgets[0].has_room());
        budgets[0].change(used(25), used(75));
        assert!(!budgets[0].has_room());
        // The other one has its share all the same, and waits for more.
        assert!(budgets[1].has_room());
        budgets[1].change(Credit::default(), used(25));
        assert!(budgets[1].asks() && !budgets[1].asks());
        assert_eq!(lender.lend(ShardId(1)), None);
        assert_eq!(budgets[0].give_back(), None);
        budgets[0].change(used(75), used(20));
        let back = budgets[0].give_back().expect("it is no longer needed");
        let (shard, credit) = lender.take_back(ShardId(0), back).expect("somebody waits");
        assert_eq!((shard, credit.requests), (ShardId(1), 25));
        budgets[1].lent(credit);
        assert!(budgets[1].has_room());
    }

    #[test]
    fn small_limits_leave_every_shard_something() {
        let share = share(1, 1 << 20, 8);
        assert_eq!((share.requests, share.bytes >= 1 << 20), (1, true));
        assert_eq!(Lender::new(1, share, 8).lend(ShardId(3)), None);
        let alone = super::share(1000, 1 << 20, 1);
        assert_eq!(Lender::new(1000, alone, 1).lend(ShardId(0)), None);
    }
}
