//! [`ServerOptions`]: what the server machine needs to know of its configuration.

use crate::auth::AuthConfig;
use crate::base::Duration;
use crate::config::reconfig::ReconfigRules;
use crate::limits;
use crate::model::{ClientAddress, EnsembleConfigs, ExtendedTypes, LocalSessions, ServerId};
use crate::wire::vote::ElectionAddress;
use crate::zab::leader::EpochZxids;

use super::throttle::ConnectionThrottleConfig;

/// Settings of one server. Built from a parsed configuration by the driver.
#[derive(Clone, Debug)]
pub struct ServerOptions {
    /// `tickTime`, ms: the granularity of session expiry.
    pub tick_ms: u32,
    /// Lower clamp of session timeouts, ms.
    pub session_timeout_ms_min: i32,
    /// Upper clamp of session timeouts, ms.
    pub session_timeout_ms_max: i32,
    /// `jute.maxbuffer`: longest client frame.
    pub frame_bytes_max: usize,
    /// `jute.maxbuffer` plus `jute.maxbuffer.extrasize`: longest txn, so that every server that may
    /// read it can.
    pub txn_bytes_max: usize,
    /// `globalOutstandingLimit`: requests outstanding on this server above which connections that
    /// already have one outstanding are not read.
    pub outstanding_requests_max: usize,
    /// `largeRequestThreshold`, `largeRequestMaxBytes`.
    pub large_requests: LargeRequests,
    /// `request_throttle_*`, `throttled_op_wait_time`.
    pub request_throttle: RequestThrottle,
    /// `connection_throttle_*`.
    pub connection_throttle: ConnectionThrottleConfig,
    /// Schemes, super user, `skipACL`.
    pub auth: AuthConfig,
    /// `audit.enable`: the name of the user that the server runs as, under which the audit log
    /// tells what the server itself does; `None`: there is no audit log.
    pub audit_user: Option<String>,
    /// Words that are executed; `srvr` always is.
    pub words_allowed: WordsAllowed,
    /// `reconfigEnabled`: a leader makes new configurations; a standalone server says that it
    /// cannot, instead of that it must not.
    pub reconfig_enabled: bool,
    /// `fsync.warningthresholdms`: a flush that takes longer is warned about.
    pub fsync_warning_threshold: Duration,
    /// Whether TTL znodes are offered, and how they are told from ephemerals.
    pub extended_types: ExtendedTypes,
    /// Quotas are enforced, not only kept account of.
    pub enforce_quotas: bool,
    /// When containers and TTL znodes are looked after.
    pub reaping: Reaping,
    /// Txns and snapshots carry the tree's digest.
    pub digests: bool,
    /// A snapshot is due after this many txns at the latest, and after half as many at the
    /// earliest.
    pub snap_txn_count: u64,
    /// The same in bytes of log; 0 switches it off.
    pub snap_log_bytes: u64,
    /// Snapshots kept.
    pub snap_retain_count: usize,
    /// Size of log segments after the first two.
    pub segment_bytes: u64,
    /// Bytes of txns that may wait to be durable here, or to be committed, before the pipeline
    /// takes no more requests and, of a learner, nothing more of its leader's.
    pub inflight_bytes_max: usize,
    /// Connections that do not start a session within this time are closed.
    pub sessionless_timeout: Duration,
    /// The server's id, 1 when standalone; the top byte of session ids.
    pub server_id: u8,
    /// The ensemble that the server is a member of; `None` when standalone.
    pub ensemble: Option<EnsembleOptions>,
    /// What `envi` prints of this machine, by Apache's keys.
    pub environment: Vec<(&'static str, String)>,
    /// What `conf` prints.
    pub conf_text: String,
    /// How much one turn does.
    pub slices: Slices,
}

/// What a member of an ensemble needs to know of the others and of how long to wait for them.
#[derive(Clone, Debug)]
pub struct EnsembleOptions {
    /// This server, as the file `myid` names it.
    pub me: ServerId,
    /// The configuration that is in force, and the one that was last proposed.
    pub configs: EnsembleConfigs,
    /// Where the others can dial this server's election port: what it tells whom it dials.
    pub election_address: ElectionAddress,
    /// `tickTime`: the unit of `init_limit` and `sync_limit`.
    pub tick: Duration,
    /// `initLimit`, ticks: discovery and synchronization together.
    pub init_limit: u64,
    /// `syncLimit`, ticks: a peer that was not heard of for longer is given up.
    pub sync_limit: u64,
    /// `ringkeeper.pingMillis`: from one ping between two servers of our own to the next.
    pub ping_every: Duration,
    /// `ringkeeper.detectMillis`: a server of our own that was not heard of for longer is given up.
    pub detect: Duration,
    /// `cnxTimeout`: how long a dial may take, all addresses together.
    pub connect_within: Duration,
    /// `reconfigEnabled`: configurations that other servers name are adopted, and a leader makes
    /// new ones.
    pub adopts_configs: bool,
    /// `db.autocreate`: an empty database was not lost.
    pub trusts_empty: bool,
    /// Whether new sessions are local.
    pub local_sessions: LocalSessions,
    /// `readonlymode.enabled`: when no leader was found for so long, clients who want no more may
    /// read; `None`: they may not.
    pub read_only_after: Option<Duration>,
    /// What a new configuration may be.
    pub rules: ReconfigRules,
    /// Where clients connect.
    pub client: ClientAddress,
    /// How much of the log a leader sends to a learner at once.
    pub history: HistorySlices,
    /// How many zxids of an epoch a leader uses.
    pub zxids: EpochZxids,
}

/// How much of the log a leader sends to a learner at once.
#[derive(Clone, Copy, Debug)]
pub struct HistorySlices {
    /// Bytes that one turn sends, and that are read from the files at once.
    pub bytes_per_turn: usize,
    /// Bytes of proposals and commits that wait while a learner gets the history.
    pub news_bytes_max: usize,
}

impl Default for HistorySlices {
    fn default() -> Self {
        Self {
            bytes_per_turn: limits::HISTORY_BYTES_PER_TURN,
            news_bytes_max: limits::LEARNER_NEWS_BYTES_MAX,
        }
    }
}

impl ServerOptions {
    /// Whether this server is a member of an ensemble.
    #[must_use]
    pub const fn is_member(&self) -> bool {
        self.ensemble.is_some()
    }

    /// Whether new sessions are local; never when standalone.
    pub(crate) fn local_sessions(&self) -> LocalSessions {
        self.ensemble.as_ref().map_or(LocalSessions::Off, |ensemble| ensemble.local_sessions)
    }
}

/// How much work of each kind one turn does before others have theirs, so that no handler runs
/// longer than two milliseconds. The rest waits for the turns that follow at once.
#[derive(Clone, Copy, Debug)]
pub struct Slices {
    /// Watches of ended connections that are let go of.
    pub watches: usize,
    /// Connections that are answered.
    pub conns: usize,
    /// Requests of one connection that are executed.
    pub requests_per_conn: usize,
    /// Requests that are executed.
    pub requests: usize,
    /// Steps of long answers that are made, results of multis and multiReads included; what has
    /// more is a long answer.
    pub long_steps: usize,
    /// Connections or watches that a four-letter word is told of, or lines of its text.
    pub words: usize,
    /// Committed txns that are applied.
    pub commits: usize,
    /// Ephemerals of ending sessions that are found or deleted, and ops of multis that are judged
    /// or applied. What has more is seen whole all the same. A multi of more ops is growth where
    /// the disk is nearly full.
    pub ops: usize,
    /// Ops of a multi that are read out of its frame.
    pub decoded_ops: usize,
    /// Overdue sessions that are looked at.
    pub expiries: usize,
    /// Containers and TTL znodes that are looked at.
    pub overdue_looks: usize,
    /// Watches that are gone through to tell connections of an event.
    pub told: usize,
}

impl Default for Slices {
    fn default() -> Self {
        Self {
            watches: limits::WATCHES_SWEPT_PER_TURN,
            conns: limits::CONNS_PER_TURN,
            requests_per_conn: limits::REQUESTS_PER_CONN_AND_TURN,
            requests: limits::REQUESTS_PER_TURN,
            long_steps: limits::LONG_STEPS_PER_TURN,
            words: limits::WORD_STEPS_PER_TURN,
            commits: limits::COMMITS_PER_TURN,
            ops: limits::OPS_PER_TURN,
            decoded_ops: limits::OPS_DECODED_AT_ONCE,
            expiries: limits::EXPIRIES_PER_TURN,
            overdue_looks: limits::OVERDUE_LOOKS_PER_TURN,
            told: limits::TOLD_PER_TURN,
        }
    }
}

/// The guard against many large requests at once.
#[derive(Clone, Copy, Debug)]
pub struct LargeRequests {
    /// Frames longer than this are large; `None` switches the guard off.
    pub threshold: Option<usize>,
    /// Bytes of large frames that may be outstanding; each shard has an equal part. Who sends more
    /// is closed.
    pub bytes_max: usize,
}

/// What becomes of requests that wait to be taken in.
#[derive(Clone, Copy, Debug, Default)]
pub struct RequestThrottle {
    /// `request_throttle_max_requests`: with so many outstanding nothing is taken in at all; 0 is
    /// no limit. Each shard has an equal part.
    pub requests_max: usize,
    /// A connection whose request has waited for longer than the session's timeout is closed
    /// (`request_stale_latency_check` with `request_throttle_drop_stale`).
    pub drops_stale: bool,
    /// `throttled_op_wait_time`: a request that has waited longer is answered with THROTTLEDOP;
    /// zero switches it off.
    pub op_wait: Duration,
}

/// When containers and TTL znodes are looked after.
#[derive(Clone, Copy, Debug)]
pub struct Reaping {
    /// `znode.container.checkIntervalMs`: from one look to the next.
    pub every: Duration,
    /// From one deletion to the next: a minute over `znode.container.maxPerMinute`.
    pub spacing: Duration,
    /// `znode.container.maxNeverUsedIntervalMs`: how long a container may wait for its first child;
    /// 0 is for ever.
    pub never_used_ms: i64,
}

/// Which four-letter words are executed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum WordsAllowed {
    /// Every word.
    All,
    /// These and `srvr`.
    Listed(Vec<String>),
}

impl WordsAllowed {
    /// Whether `name` is executed.
    #[must_use]
    pub fn allows(&self, name: &str) -> bool {
        name == "srvr"
            || match self {
                Self::All => true,
                Self::Listed(names) => names.iter().any(|listed| listed == name),
            }
    }
}
