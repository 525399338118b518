//! The table of keys that ZooKeeper's configuration knows, with what each does here.

/// One key.
#[derive(Debug)]
pub struct Key {
    /// How it is spelt, the usual spelling first.
    pub names: &'static [&'static str],
    /// What it does on a standalone server.
    pub alone: Status,
    /// What it does on a member of an ensemble.
    pub in_ensemble: Status,
}

/// What a key does here.
#[derive(Clone, Copy, Debug)]
pub enum Status {
    /// It has its meaning.
    Used,
    /// Accepted, does nothing, for this reason.
    NoEffect(&'static str),
    /// Belongs to something not built yet.
    NotBuilt {
        /// What.
        feature: &'static str,
        /// Whether a value switches it on.
        switches_on: fn(&str) -> bool,
    },
}

const JVM: Status = Status::NoEffect("it tunes a part that this server does not have");
const SYNC: &str = "what learners lack is found and sent in another way";
const TIMES: &str = "connections and elections have times of their own";
const ALL_GLOBAL: Status = Status::NoEffect("every session of a standalone server is global");
const OF_ENSEMBLE: Status = Status::NoEffect("it belongs to an ensemble");

fn is_true(value: &str) -> bool {
    value.eq_ignore_ascii_case("true")
}

fn always(_: &str) -> bool {
    true
}

fn is_no(value: &str) -> bool {
    value == "no"
}

/// Anything but a port that is switched off: what is no number is not.
fn is_port(value: &str) -> bool {
    value.parse().map_or(true, |port: i64| 0 < port)
}

/// A metrics provider that tells somebody else of them.
fn has_provider(class: &str) -> bool {
    let name = class.strip_prefix("org.apache.zookeeper.metrics.impl.");
    !matches!(name, Some("DefaultMetricsProvider" | "NullMetricsProvider"))
}

const fn both(names: &'static [&'static str], status: Status) -> Key {
    Key { names, alone: status, in_ensemble: status }
}

const fn used(names: &'static [&'static str]) -> Key {
    both(names, Status::Used)
}

const fn jvm(names: &'static [&'static str]) -> Key {
    both(names, JVM)
}

const fn without(names: &'static [&'static str], why: &'static str) -> Key {
    both(names, Status::NoEffect(why))
}

/// Belongs to an ensemble, and there it is used.
const fn member(names: &'static [&'static str]) -> Key {
    Key { names, alone: OF_ENSEMBLE, in_ensemble: Status::Used }
}

/// Belongs to an ensemble, and does nothing there either.
const fn member_without(names: &'static [&'static str], why: &'static str) -> Key {
    Key { names, alone: OF_ENSEMBLE, in_ensemble: Status::NoEffect(why) }
}

/// Belongs to an ensemble, and is not built.
const fn member_not_built(
    names: &'static [&'static str],
    feature: &'static str,
    switches_on: fn(&str) -> bool,
) -> Key {
    Key { names, alone: OF_ENSEMBLE, in_ensemble: Status::NotBuilt { feature, switches_on } }
}

const fn not_built(
    names: &'static [&'static str],
    feature: &'static str,
    switches_on: fn(&str) -> bool,
) -> Key {
    both(names, Status::NotBuilt { feature, switches_on })
}

/// Every known key. `server.N`, `ssl.*` and other families are in [`FAMILIES`].
pub static KEYS: &[Key] = &[
    used(&["dataDir"]),
    used(&["dataLogDir"]),
    used(&["clientPort"]),
    used(&["clientPortAddress"]),
    used(&["clientPortListenBacklog"]),
    used(&["tickTime"]),
    used(&["minSessionTimeout"]),
    used(&["maxSessionTimeout"]),
    used(&["maxClientCnxns"]),
    used(&["maxCnxns"]),
    used(&["4lw.commands.whitelist"]),
    used(&["snapCount"]),
    used(&["snapSizeLimitInKb"]),
    used(&["preAllocSize"]),
    used(&["autopurge.snapRetainCount"]),
    used(&["jute.maxbuffer"]),
    used(&["globalOutstandingLimit"]),
    used(&["extendedTypesEnabled"]),
    used(&["emulate353TTLNodes"]),
    used(&["znode.container.checkIntervalMs"]),
    used(&["znode.container.maxPerMinute"]),
    used(&["znode.container.maxNeverUsedIntervalMs"]),
    used(&["enforceQuota"]),
    used(&["audit.enable"]),
    used(&["digest.enabled"]),
    used(&["skipACL"]),
    used(&["DigestAuthenticationProvider.superDigest"]),
    used(&["DigestAuthenticationProvider.enabled"]),
    used(&["DigestAuthenticationProvider.digestAlg"]),
    used(&["enforce.auth.enabled"]),
    used(&["enforce.auth.schemes"]),
    used(&["ensembleAuthName"]),
    used(&["reconfigEnabled"]),
    used(&["readonlymode.enabled"]),
    used(&["fsync.warningthresholdms"]),
    used(&["clientTcpKeepAlive"]),
    used(&["nio.sessionlessCnxnTimeout"]),
    used(&["jute.maxbuffer.extrasize"]),
    used(&["largeRequestThreshold"]),
    used(&["largeRequestMaxBytes"]),
    used(&["connection_throttle_tokens", "connectionMaxTokens"]),
    used(&["connection_throttle_fill_time", "connectionTokenFillTime"]),
    used(&["connection_throttle_fill_count", "connectionTokenFillCount"]),
    used(&["connection_throttle_freeze_time", "connectionFreezeTime"]),
    used(&["connection_throttle_drop_increase", "connectionDropIncrease"]),
    used(&["connection_throttle_drop_decrease", "connectionDropDecrease"]),
    used(&["connection_throttle_decrease_ratio", "connectionDecreaseRatio"]),
    used(&["connection_throttle_weight_enabled"]),
    used(&["connection_throttle_global_session_weight"]),
    used(&["connection_throttle_renew_session_weight"]),
    used(&["connection_throttle_local_session_weight"]),
    used(&["request_throttle_max_requests", "requestThrottleLimit"]),
    used(&["request_throttle_drop_stale", "requestThrottleDropStale"]),
    used(&["request_stale_latency_check", "requestStaleLatencyCheck"]),
    used(&["throttled_op_wait_time", "throttledOpWaitTime"]),
    without(
        &["request_throttle_stall_time", "requestThrottleStallTime"],
        "requests go on as soon as others are answered",
    ),
    without(
        &["request_stale_connection_check", "requestStaleConnectionCheck"],
        "requests of closed connections are always dropped",
    ),
    used(&["ringkeeper.shards"]),
    used(&["ringkeeper.pin"]),
    used(&["ringkeeper.spinMicros"]),
    used(&["ringkeeper.ioMemoryKb"]),
    used(&["ringkeeper.directIo"]),
    without(&["autopurge.purgeInterval"], "old snapshots and logs go after each new snapshot"),
    without(&["forceSync"], "writes are always flushed before they are acknowledged"),
    member(&["initLimit"]),
    member(&["syncLimit"]),
    member_without(
        &["connectToLearnerMasterLimit"],
        "connecting takes up to cnxTimeout, and counts towards initLimit",
    ),
    used(&["electionAlg"]),
    member(&["peerType"]),
    member_not_built(&["leaderServes"], "a leader without clients", is_no),
    member(&["quorumListenOnAllIPs"]),
    member(&["cnxTimeout"]),
    member_without(&["commitLogCount"], SYNC),
    member_without(&["snapshotSizeFactor"], SYNC),
    member(&["tcpKeepAlive"]),
    member(&["syncEnabled", "observer.syncEnabled"]),
    without(&["flushDelay"], "a flush starts as soon as the one before has ended"),
    without(&["maxWriteQueuePollTime"], "a flush starts as soon as the one before has ended"),
    without(&["maxBatchSize"], "batches are bounded in bytes"),
    without(&["txnLogSizeLimitInKb"], "segments have the size preAllocSize"),
    without(&["snapshot.trust.empty"], "missing snapshots are never trusted"),
    without(&["snapshot.compression.method"], "our snapshots are not compressed"),
    without(&["serializeLastProcessedZxid.enabled"], "snapshots always carry their zxid"),
    without(&["closeSessionTxn.enabled"], "closeSession txns always list their paths"),
    without(&["datadir.autocreate"], "missing directories are always made"),
    member(&["db.autocreate"]),
    member_without(&["forceSnapshotSync"], SYNC),
    member(&["electionPortBindRetry"]),
    member_without(&["leaderConnectDelayDuringRetryMs"], TIMES),
    member_not_built(&["observerMasterPort"], "an observer master", is_port),
    member_without(&["quorumCnxnTimeoutMs"], TIMES),
    member_not_built(&["oraclePath"], "the oracle", always),
    member_without(
        &["leader.maxTimeToWaitForEpoch", "maxTimeToWaitForEpoch"],
        "the learners are waited for as long as initLimit says",
    ),
    member_without(&["leader.maxConcurrentSnapSyncs", "maxConcurrentSnapSyncs"], SYNC),
    member_without(&["leader.maxConcurrentDiffSyncs", "maxConcurrentDiffSyncs"], SYNC),
    member_without(&["leader.nodelay"], "it is always on"),
    member_without(&["follower.nodelay"], "it is always on"),
    used(&["multiAddress.enabled"]),
    used(&["version"]),
    used(&["dynamicConfigFile"]),
    member(&["ringkeeper.pingMillis"]),
    member(&["ringkeeper.detectMillis"]),
    member(&["ringkeeper.epochTxns"]),
    without(&["admin.serverPort"], "there is no admin server yet"),
    without(&["admin.serverAddress"], "there is no admin server yet"),
    without(&["admin.commandURL"], "there is no admin server yet"),
    without(&["admin.idleTimeout"], "there is no admin server yet"),
    member(&["enableEagerACLCheck"]),
    without(&["IPAuthenticationProvider.usexforwardedfor"], "there is no admin server yet"),
    Key { names: &["localSessionsEnabled"], alone: ALL_GLOBAL, in_ensemble: Status::Used },
    Key { names: &["localSessionsUpgradingEnabled"], alone: ALL_GLOBAL, in_ensemble: Status::Used },
    used(&["standaloneEnabled"]),
    jvm(&["serverCnxnFactory"]),
    jvm(&["nio.numSelectorThreads"]),
    jvm(&["nio.numWorkerThreads"]),
    jvm(&["nio.directBufferBytes"]),
    jvm(&["nio.shutdownTimeout"]),
    jvm(&["netty.server.outstandingHandshake.limit", "outstandingHandshake.limit"]),
    jvm(&["netty.server.earlyDropSecureConnectionHandshakes"]),
    jvm(&["netty.advancedFlowControl.enabled", "advancedFlowControlEnabled"]),
    jvm(&["maxResponseCacheSize"]),
    jvm(&["maxGetChildrenResponseCacheSize"]),
    jvm(&["commitProcessor.numWorkerThreads"]),
    jvm(&["commitProcessor.maxReadBatchSize"]),
    jvm(&["commitProcessor.maxCommitBatchSize"]),
    jvm(&["commitProcessor.shutdownTimeout"]),
    jvm(&["watchManagerName"]),
    jvm(&["watcherCleanThreadsNum"]),
    jvm(&["watcherCleanIntervalInSeconds"]),
    jvm(&["watcherCleanThreshold"]),
    jvm(&["maxInProcessingDeadWatchers"]),
    jvm(&["bitHashCacheSize"]),
    jvm(&["intBufferStartingSizeBytes"]),
    jvm(&["request_throttler.shutdownTimeout"]),
    jvm(&["fips-mode"]),
    not_built(&["secureClientPort"], "TLS", is_port),
    not_built(&["secureClientPortAddress"], "TLS", always),
    not_built(&["client.portUnification"], "TLS", is_true),
    not_built(&["sslQuorum"], "TLS", is_true),
    not_built(&["portUnification"], "TLS", is_true),
    not_built(&["admin.enableServer"], "the HTTP admin server", is_true),
    not_built(&["metricsProvider.className"], "the metrics provider", has_provider),
    not_built(&["sessionRequireClientSASLAuth"], "SASL", is_true),
    not_built(&["allowSaslFailedClients"], "SASL", is_true),
    not_built(&["java.security.auth.login.config"], "SASL", always),
    not_built(&["quorum.auth.enableSasl"], "SASL", is_true),
    not_built(&["quorum.auth.serverRequireSasl"], "SASL", is_true),
    not_built(&["quorum.auth.learnerRequireSasl"], "SASL", is_true),
];

/// Keys by prefix.
pub static FAMILIES: &[Key] = &[
    used(&["server."]),
    used(&["group."]),
    used(&["weight."]),
    not_built(&["ssl."], "TLS", always),
    used(&["authProvider."]),
    not_built(&["quorum.auth."], "SASL", |_| false),
    without(&["metricsProvider."], "there is no metrics provider yet"),
    member_without(&["fastleader."], TIMES),
    jvm(&["leader."]),
    jvm(&["learner."]),
    member_without(&["observer."], TIMES),
    member_without(&["observerMaster."], "there is no observer master yet"),
    jvm(&["quorum."]),
    jvm(&["follower."]),
    jvm(&["forward_learner_requests_to_commit_processor_disabled"]),
    member_without(&["multiAddress."], "the addresses of a server are tried in order"),
    without(&["X509AuthenticationProvider."], "there is no TLS yet"),
    without(&["client.certReload"], "there is no TLS yet"),
    without(&["sslQuorumReloadCertFiles"], "there is no TLS yet"),
    without(&["SASLAuthenticationProvider."], "there is no SASL yet"),
    without(&["superUser"], "there is no SASL yet"),
    without(&["letAnySaslUserDoX"], "there is no SASL yet"),
    without(&["kerberos."], "there is no SASL yet"),
    without(&["security.auth_to_local"], "there is no SASL yet"),
    without(&["sasl.serverconfig"], "there is no SASL yet"),
    without(&["admin."], "there is no admin server yet"),
    without(&["audit."], "the audit log goes where the server's log goes"),
    without(&["prometheusMetricsSummaryRotateIntervalSeconds"], "there are no metrics yet"),
    jvm(&["jvm.pause."]),
    jvm(&["pathStats."]),
    jvm(&["messageTracker."]),
];

/// The key of this spelling.
#[must_use]
pub fn find(name: &str) -> Option<&'static Key> {
    let exact = KEYS.iter().find(|key| key.names.contains(&name));
    exact.or_else(|| FAMILIES.iter().find(|key| key.names.iter().any(|n| name.starts_with(n))))
}

/// The known spelling nearest to an unknown one, if any is near.
#[must_use]
pub fn nearest(name: &str) -> Option<&'static str> {
    let all = KEYS.iter().flat_map(|key| key.names);
    let near = all.map(|known| (distance(name, known), *known));
    near.filter(|(distance, _)| *distance * 3 <= name.len()).min().map(|(_, known)| known)
}

/// Edit distance, letter case not counted.
fn distance(left: &str, right: &str) -> usize {
    let right: Vec<char> = right.to_lowercase().chars().collect();
    let mut row: Vec<usize> = (0..=right.len()).collect();
    for (above, l) in left.to_lowercase().chars().enumerate() {
        let mut diagonal = above;
        let mut before = above + 1;
        let mut next = vec![before];
        for (r, up) in right.iter().zip(row.iter().skip(1)) {
            let replaced = diagonal + usize::from(l != *r);
            before = replaced.min(before + 1).min(up + 1);
            diagonal = *up;
            next.push(before);
        }
        row = next;
    }
    row.last().copied().unwrap_or_default()
}
