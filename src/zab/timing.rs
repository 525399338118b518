//! How long the phases of Zab may take, and how often a leader asks after its learners.

use crate::base::Duration;

/// The times of one server.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Timing {
    /// `initLimit` ticks: discovery and synchronization together, from the first connection to
    /// UPTODATE.
    pub establish_within: Duration,
    /// `syncLimit` ticks: a peer that was not heard of for longer is given up.
    pub silence_max: Duration,
    /// From one ping to the next.
    pub ping_every: Duration,
}

impl Timing {
    /// As Apache ZooKeeper derives them: pings every half tick.
    #[must_use]
    pub const fn of_ticks(tick: Duration, init_limit: u64, sync_limit: u64) -> Self {
        Self {
            establish_within: Duration(tick.0.saturating_mul(init_limit)),
            silence_max: Duration(tick.0.saturating_mul(sync_limit)),
            ping_every: Duration(tick.0 / 2),
        }
    }
}
