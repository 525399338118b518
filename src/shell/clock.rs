//! The process's clocks. The only place that reads them.

use std::time::{Instant as StdInstant, SystemTime, UNIX_EPOCH};

use crate::base::{Instant, WallMs};
use crate::server::Clock;

/// Monotonic time counted from the start of the process, and wall time.
#[derive(Clone, Copy, Debug)]
pub(super) struct Clocks {
    origin: StdInstant,
}

impl Clocks {
    pub(super) fn start() -> Self {
        Self { origin: StdInstant::now() }
    }

    pub(super) fn now(&self) -> Clock {
        let now = u64::try_from(self.origin.elapsed().as_nanos()).unwrap_or(u64::MAX);
        let wall = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        let wall = i64::try_from(wall.as_millis()).unwrap_or(i64::MAX);
        Clock { now: Instant(now), wall: WallMs(wall) }
    }
}
