//! A checksum of what happens, of mail between shards only whose it is: two runs of one seed are
//! the same if theirs are.

use std::fmt::Debug;

use crate::base::Instant;

/// Takes an event in. What it carries is given as `bytes`: to print that takes much longer.
pub(super) fn take(trace: &mut u32, now: Instant, event: &impl Debug, bytes: &[u8]) {
    let line = format!("{} {event:?}", now.0);
    *trace = crc32c::crc32c_append(crc32c::crc32c_append(*trace, line.as_bytes()), bytes);
}
