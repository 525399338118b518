//! [`Zxid`]: the position of a txn in the one total order.

use std::fmt;

/// Transaction id: the high 32 bits are the epoch, the low 32 the counter within it. Signed as on
/// the wire; a client may send any value, our own are never negative.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Zxid(pub i64);

impl Zxid {
    /// Before every txn.
    pub const ZERO: Self = Self(0);

    /// The zxid of `counter` in `epoch`.
    #[must_use]
    pub const fn new(epoch: u32, counter: u32) -> Self {
        Self(((epoch as i64) << 32) | counter as i64)
    }

    /// The epoch of the leader that proposed it; 0 on a standalone server.
    #[must_use]
    pub const fn epoch(self) -> u32 {
        (self.0 >> 32) as u32
    }

    /// The counter within the epoch.
    #[must_use]
    pub const fn counter(self) -> u32 {
        self.0 as u32
    }

    /// The zxid that follows. A standalone server's counter carries into the epoch, as Apache's
    /// does.
    #[must_use]
    pub const fn next(self) -> Self {
        Self(self.0.wrapping_add(1))
    }

    /// Whether the txn right behind `last` can have this zxid: the next one, or the first of a
    /// later epoch.
    #[must_use]
    pub const fn follows(self, last: Self) -> bool {
        self.0 == last.next().0 || (last.epoch() < self.epoch() && self.counter() == 1)
    }
}

impl fmt::Display for Zxid {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "0x{:x}", self.0)
    }
}
