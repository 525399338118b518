//! How a simulated server starts: from its disk, with settings of which some are chance.

use super::disk::Disk;
use super::plant::Plant;
use super::shards::Shards;
use super::world::Failure;
use crate::auth::AuthConfig;
use crate::base::{Duration, Instant, Prng, WallMs};
use crate::model::ExtendedTypes;
use crate::server::recovery::{Recovered, Recovery};
use crate::server::{
    Clock, ConnectionThrottleConfig, LargeRequests, Published, Reaping, RequestThrottle, Server,
    ServerOptions, Slices, WordsAllowed,
};
use crate::tree::TreeOptions;

/// Satellites of a seed's server, at most.
pub(super) const SATELLITES_MAX: u64 = 3;

/// What is on disk becomes the state to go on from.
pub(super) fn recover(disk: &mut Disk, prng: &mut Prng) -> Result<Recovered, Failure> {
    let options = TreeOptions { extended_types: ExtendedTypes::Off, digests: true };
    let mut notes = Vec::new();
    let recovered = disk.recover(Recovery::new(options, prng.next_u64()), &mut notes);
    let recovered =
        recovered.map_err(|refusal| Failure::new(format!("recovery refused: {refusal}")))?;
    match notes.first() {
        Some(note) => Err(Failure::new(format!("recovery had to fall back: {note}"))),
        None => Ok(recovered),
    }
}

/// A server that goes on from there, with its satellites.
pub(super) fn new_server(
    recovered: Recovered,
    plant: Plant,
    prng: &mut Prng,
    now: Instant,
) -> (Server, Shards) {
    let options = options_of(prng);
    let wall = WallMs(1_700_000_000_000 + i64::try_from(now.as_millis()).unwrap_or(0));
    let published = Published { zxid: recovered.last_zxid, ..Published::default() };
    let satellites = u16::try_from(prng.below(SATELLITES_MAX + 1)).unwrap_or_default();
    let clock = Clock { now, wall };
    let (server, satellites) = Server::new(options, recovered, satellites, prng.next_u64(), clock);
    (server, Shards::new(satellites, published, plant == Plant::StaleReplica))
}

/// Settings of a simulated server, some of them by chance.
pub(super) fn options_of(prng: &mut Prng) -> ServerOptions {
    ServerOptions {
        tick_ms: 500,
        session_timeout_ms_min: 1_000,
        session_timeout_ms_max: 10_000,
        frame_bytes_max: 1 << 20,
        txn_bytes_max: 2 << 20,
        // Sometimes so few that shards live on loans.
        outstanding_requests_max: if prng.one_in(3) { 1 + below(prng, 12) } else { 64 },
        large_requests: LargeRequests { threshold: None, bytes_max: 0 },
        request_throttle: RequestThrottle::default(),
        connection_throttle: ConnectionThrottleConfig::default(),
        auth: AuthConfig::default(),
        words_allowed: WordsAllowed::All,
        reconfig_enabled: false,
        fsync_warning_threshold: Duration::from_millis(1_000),
        audit_user: None,
        extended_types: ExtendedTypes::Off,
        enforce_quotas: false,
        reaping: Reaping {
            every: Duration::from_millis(200),
            spacing: Duration::from_millis(1),
            never_used_ms: 0,
        },
        digests: true,
        // Snapshots and new segments within a seed's few thousand txns.
        snap_txn_count: 50 + prng.below(500),
        snap_log_bytes: 0,
        snap_retain_count: 3,
        segment_bytes: 4 << 20,
        // Sometimes so few that learners stop reading now and then.
        inflight_bytes_max: if prng.one_in(3) { 1 + below(prng, 4_000) } else { 64 << 20 },
        sessionless_timeout: Duration::from_millis(10_000),
        server_id: 1,
        ensemble: None,
        environment: Vec::new(),
        conf_text: String::new(),
        slices: match prng.one_in(2) {
            true => Slices::default(),
            false => Slices {
                watches: 1,
                conns: 1,
                requests_per_conn: 1,
                requests: 2,
                long_steps: 1,
                words: 1,
                commits: 1,
                ops: 1,
                decoded_ops: 2,
                expiries: 1,
                overdue_looks: 1,
                told: 1,
            },
        },
    }
}

fn below(prng: &mut Prng, count: u64) -> usize {
    usize::try_from(prng.below(count)).unwrap_or_default()
}
