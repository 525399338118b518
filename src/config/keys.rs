//! The table of keys that ZooKeeper's configuration knows, with what each does here.

/// One key.
#[derive(Debug)]
pub struct Key {
    /// How it is spelt, the usual spelling first.
    pub names: &'static [&'static str],
    /// What it does here.
    pub status: Status,
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

fn is_true(value: &str) -> bool {
    value.eq_ignore_ascii_case("true")
}

fn always(_: &str) -> bool {
    true
}

const fn used(names: &'static [&'static str]) -> Key {
    Key { names, status: Status::Used }
}

const fn jvm(names: &'static [&'static str]) -> Key {
    Key { names, status: JVM }
}

const fn without(names: &'static [&'static str], why: &'static str) -> Key {
    Key { names, status: Status::NoEffect(why) }
}

const fn not_built(
    names: &'static [&'static str],
    feature: &'static str,
    switches_on: fn(&str) -> bool,
) -> Key {
    Key { names, status: Status::NotBuilt { feature, switches_on } }
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
    without(&["initLimit"], "it belongs to an ensemble"),
    without(&["syncLimit"], "it belongs to an ensemble"),
    without(&["connectToLearnerMasterLimit"], "it belongs to an ensemble"),
    without(&["electionAlg"], "it belongs to an ensemble"),
    without(&["peerType"], "it belongs to an ensemble"),
    without(&["leaderServes"], "it belongs to an ensemble"),
    without(&["quorumListenOnAllIPs"], "it belongs to an ensemble"),
    without(&["cnxTimeout"], "it belongs to an ensemble"),
    without(&["commitLogCount"], "it belongs to an ensemble"),
    without(&["snapshotSizeFactor"], "it belongs to an ensemble"),
    without(&["tcpKeepAlive"], "it belongs to an ensemble"),
    without(&["syncEnabled"], "it belongs to an ensemble"),
    without(&["flushDelay"], "a flush starts as soon as the one before has ended"),
    without(&["maxWriteQueuePollTime"], "a flush starts as soon as the one before has ended"),
    without(&["maxBatchSize"], "batches are bounded in bytes"),
    without(&["txnLogSizeLimitInKb"], "segments have the size preAllocSize"),
    without(&["snapshot.trust.empty"], "missing snapshots are never trusted"),
    without(&["snapshot.compression.method"], "our snapshots are not compressed"),
    without(&["serializeLastProcessedZxid.enabled"], "snapshots always carry their zxid"),
    without(&["closeSessionTxn.enabled"], "closeSession txns always list their paths"),
    without(&["datadir.autocreate"], "missing directories are always made"),
    without(&["db.autocreate"], "it belongs to an ensemble"),
    without(&["forceSnapshotSync"], "it belongs to an ensemble"),
    without(&["electionPortBindRetry"], "it belongs to an ensemble"),
    without(&["leaderConnectDelayDuringRetryMs"], "it belongs to an ensemble"),
    without(&["observerMasterPort"], "it belongs to an ensemble"),
    without(&["quorumCnxnTimeoutMs"], "it belongs to an ensemble"),
    without(&["oraclePath"], "it belongs to an ensemble"),
    without(&["maxTimeToWaitForEpoch"], "it belongs to an ensemble"),
    without(&["maxConcurrentSnapSyncs"], "it belongs to an ensemble"),
    without(&["maxConcurrentDiffSyncs"], "it belongs to an ensemble"),
    without(&["admin.serverPort"], "there is no admin server yet"),
    without(&["admin.serverAddress"], "there is no admin server yet"),
    without(&["admin.commandURL"], "there is no admin server yet"),
    without(&["admin.idleTimeout"], "there is no admin server yet"),
    without(&["enableEagerACLCheck"], "a standalone server checks ACLs once, in order"),
    without(&["IPAuthenticationProvider.usexforwardedfor"], "there is no admin server yet"),
    without(&["standaloneEnabled"], "a server without server.N lines is standalone"),
    without(&["localSessionsEnabled"], "every session of a standalone server is global"),
    without(&["localSessionsUpgradingEnabled"], "every session of a standalone server is global"),
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
    not_built(&["secureClientPort"], "TLS", always),
    not_built(&["secureClientPortAddress"], "TLS", always),
    not_built(&["client.portUnification"], "TLS", is_true),
    not_built(&["sslQuorum"], "TLS", is_true),
    not_built(&["portUnification"], "TLS", is_true),
    not_built(&["admin.enableServer"], "the HTTP admin server", is_true),
    not_built(&["metricsProvider.className"], "the metrics provider", always),
    not_built(&["dynamicConfigFile"], "an ensemble", always),
    not_built(&["sessionRequireClientSASLAuth"], "SASL", is_true),
    not_built(&["allowSaslFailedClients"], "SASL", is_true),
    not_built(&["java.security.auth.login.config"], "SASL", always),
    not_built(&["quorum.auth.enableSasl"], "SASL", is_true),
];

/// Keys by prefix.
pub static FAMILIES: &[Key] = &[
    not_built(&["server."], "an ensemble", always),
    not_built(&["group."], "an ensemble", always),
    not_built(&["weight."], "an ensemble", always),
    not_built(&["ssl."], "TLS", always),
    used(&["authProvider."]),
    not_built(&["quorum.auth."], "SASL", |_| false),
    without(&["metricsProvider."], "there is no metrics provider yet"),
    without(&["fastleader."], "it belongs to an ensemble"),
    without(&["leader."], "it belongs to an ensemble"),
    without(&["learner."], "it belongs to an ensemble"),
    without(&["observer."], "it belongs to an ensemble"),
    without(&["quorum."], "it belongs to an ensemble"),
    without(&["follower."], "it belongs to an ensemble"),
    without(&["multiAddress."], "it belongs to an ensemble"),
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
