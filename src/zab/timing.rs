//! How long the phases of Zab may take, and how often a leader asks after its learners.

use crate::base::Duration;

/// The times of one server.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Timing {
    /// `initLimit` ticks: discovery and synchronization together, from the first connection to
    /// UPTODATE.
    pub establish_within: Duration,
    /// `cnxTimeout` and a tick: those who elected a leader try for the former to reach it, so that
    /// nobody else is to be expected later.
    pub joined_within: Duration,
    /// `syncLimit` ticks: a peer that was not heard of, or did not acknowledge, for longer is given
    /// up.
    pub sync_within: Duration,
    /// The same for the silence of a peer that is a Ringkeeper, too.
    pub silence_max: Duration,
    /// From one ping to the next.
    pub ping_every: Duration,
}
