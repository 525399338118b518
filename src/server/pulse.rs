//! [`Pulse`]: notices that a machine was not run.

use crate::base::{Duration, Instant};
use crate::limits;

/// When the machine was last run. It asks for a timer often, so a long gap means that its thread or
/// process was stalled or stopped: no client could be heard meanwhile, and none is to blame for it.
#[derive(Clone, Copy, Debug)]
pub(super) struct Pulse {
    last: Instant,
}

impl Pulse {
    pub(super) const fn new(now: Instant) -> Self {
        Self { last: now }
    }

    /// Called at every step: how long the machine was stalled before it, if it was.
    pub(super) fn beat(&mut self, now: Instant) -> Option<Duration> {
        let gap = now.since(self.last);
        self.last = self.last.max(now);
        (limits::STALL_NOTICED_AFTER < gap).then_some(gap)
    }

    /// When the machine must be run again.
    pub(super) fn next(&self) -> Instant {
        self.last + limits::PULSE_EVERY
    }
}
