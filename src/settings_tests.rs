//! Every key of the configuration that is used changes its own fields of the settings, by the
//! value that was written, and no other field.

use std::path::Path;

use ringkeeper::config::keys::{self, Key, Status};
use ringkeeper::config::{Config, ConfigError, ensemble};

use super::settings;

/// A configuration in which a key is tried.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Base {
    Alone,
    Member,
}

use Base::{Alone, Member};

impl Base {
    const fn text(self) -> &'static str {
        match self {
            Alone => "dataDir=/d\nclientPort=2181\n",
            Member => {
                "dataDir=/d\nclientPort=2181\ninitLimit=10\nsyncLimit=5\nserver.1=a:1:2\n\
                 server.2=b:3:4\nserver.3=c:5:6\n"
            }
        }
    }
}

/// A key, and what it does to the settings.
struct Row {
    base: Base,
    /// What it needs in order to do something.
    with: &'static str,
    key: &'static str,
    value: &'static str,
    /// Every field that is another one then, by its path; `None`: the value is refused.
    gives: Option<&'static [&'static str]>,
}

const fn row(key: &'static str, value: &'static str, gives: &'static [&'static str]) -> Row {
    Row { base: Alone, with: "", key, value, gives: Some(gives) }
}

impl Row {
    const fn with(mut self, lines: &'static str) -> Self {
        self.with = lines;
        self
    }

    const fn of_member(mut self) -> Self {
        self.base = Member;
        self
    }

    const fn refused(mut self) -> Self {
        self.gives = None;
        self
    }
}

const WEIGHTS: &str = "connection_throttle_weight_enabled=true\n";
const STALE: &str = "request_throttle_max_requests=1\nrequest_stale_latency_check=true\n";
const PROVIDER: &str = "authProvider.1=org.apache.zookeeper.server.auth.\
                        EnsembleAuthenticationProvider\n";

/// `USER` is the user that the tests run as.
const ROWS: &[Row] = &[
    row(
        "dataDir",
        "/e",
        &[
            "conf.dataDir: /e/version-2",
            "conf.dataLogDir: /e/version-2",
            "data_dir: \"/e\"",
            "log_dir: \"/e\"",
        ],
    ),
    row("dataLogDir", "/l", &["conf.dataLogDir: /l/version-2", "log_dir: \"/l\""]),
    row("clientPort", "2182", &["conf.clientPort: 2182", "listen: [::]:2182"]),
    row(
        "clientPort",
        "2182",
        &["conf.clientPort: 2182", "listen: [::]:2182", "server.ensemble.client.port: 2182"],
    )
    .of_member(),
    row("clientPortAddress", "127.0.0.9", &["listen: 127.0.0.9:2181"]),
    row(
        "clientPortAddress",
        "127.0.0.9",
        &["listen: 127.0.0.9:2181", "server.ensemble.client.host: \"127.0.0.9\""],
    )
    .of_member(),
    row("clientPortListenBacklog", "7", &["conf.clientPortListenBacklog: 7", "listen_backlog: 7"]),
    row(
        "tickTime",
        "1500",
        &[
            "conf.maxSessionTimeout: 30000",
            "conf.minSessionTimeout: 3000",
            "conf.tickTime: 1500",
            "server.session_timeout_ms_max: 30000",
            "server.session_timeout_ms_min: 3000",
            "server.tick_ms: 1500",
        ],
    ),
    row(
        "tickTime",
        "1500",
        &["conf.tickTime: 1500", "server.ensemble.tick: 1500000000", "server.tick_ms: 1500"],
    )
    .with("minSessionTimeout=5000\nmaxSessionTimeout=50000\n")
    .of_member(),
    row(
        "minSessionTimeout",
        "7001",
        &["conf.minSessionTimeout: 7001", "server.session_timeout_ms_min: 7001"],
    ),
    row(
        "maxSessionTimeout",
        "50001",
        &["conf.maxSessionTimeout: 50001", "server.session_timeout_ms_max: 50001"],
    ),
    row("maxClientCnxns", "61", &["conf.maxClientCnxns: 61", "conns_per_address_max: 61"]),
    row("maxCnxns", "62", &["conns_max: 62"]),
    row("4lw.commands.whitelist", "*", &["server.words_allowed: All"]),
    row(
        "4lw.commands.whitelist",
        "ruok, mntr",
        &["server.words_allowed: \"mntr\"", "server.words_allowed: \"ruok\""],
    ),
    row("snapCount", "99", &["server.snap_txn_count: 99"]),
    row("snapSizeLimitInKb", "98", &["server.snap_log_bytes: 100352"]),
    row("preAllocSize", "97", &["server.segment_bytes: 99328"]),
    row("autopurge.snapRetainCount", "5", &["server.snap_retain_count: 5"]),
    row(
        "jute.maxbuffer",
        "900000",
        &["server.frame_bytes_max: 900000", "server.txn_bytes_max: 1800000"],
    ),
    row("jute.maxbuffer.extrasize", "2000", &["server.txn_bytes_max: 1050575"]),
    row("globalOutstandingLimit", "96", &["server.outstanding_requests_max: 96"]),
    row("extendedTypesEnabled", "true", &["server.extended_types: On"]),
    row("emulate353TTLNodes", "true", &["server.extended_types: Emulate353"])
        .with("extendedTypesEnabled=true\n"),
    row("znode.container.checkIntervalMs", "95", &["server.reaping.every: 95000000"]),
    row("znode.container.maxPerMinute", "94", &["server.reaping.spacing: 638000000"]),
    row("znode.container.maxNeverUsedIntervalMs", "93", &["server.reaping.never_used_ms: 93"]),
    row("enforceQuota", "true", &["server.enforce_quotas: true"]),
    row("audit.enable", "true", &["server.audit_user: \"USER\""]),
    row("digest.enabled", "false", &["server.digests: false"]),
    row("skipACL", "yes", &["server.auth.skip_acl: true"]),
    row(
        "DigestAuthenticationProvider.superDigest",
        "super:x",
        &["server.auth.super_digest: \"super:x\""],
    ),
    row("DigestAuthenticationProvider.enabled", "false", &["server.auth.digest_enabled: false"]),
    row(
        "DigestAuthenticationProvider.digestAlg",
        "SHA-256",
        &["server.auth.digest_algorithm: Sha256"],
    ),
    row("enforce.auth.enabled", "true", &["server.auth.enforced_schemes: \"ip\""])
        .with("enforce.auth.schemes=ip\n"),
    row("enforce.auth.schemes", "ip", &["server.auth.enforced_schemes: \"ip\""])
        .with("enforce.auth.enabled=true\nenforce.auth.schemes=digest\n"),
    row("ensembleAuthName", "red", &["server.auth.ensemble_names: \"red\""]).with(PROVIDER),
    row(
        "authProvider.1",
        "org.apache.zookeeper.server.auth.EnsembleAuthenticationProvider",
        &["server.auth.ensemble_names: \"red\""],
    )
    .with("ensembleAuthName=red\n"),
    row("reconfigEnabled", "true", &["server.reconfig_enabled: true"]),
    row(
        "reconfigEnabled",
        "true",
        &[
            "backs_up_config: true",
            "config_file: \"zoo.cfg\"",
            "server.ensemble.adopts_configs: true",
            "server.reconfig_enabled: true",
        ],
    )
    .of_member(),
    row("readonlymode.enabled", "true", &["server.words_allowed: \"isro\""]),
    row(
        "readonlymode.enabled",
        "true",
        &["server.ensemble.read_only_after: 3000000000", "server.words_allowed: \"isro\""],
    )
    .of_member(),
    row("fsync.warningthresholdms", "92", &["server.fsync_warning_threshold: 92000000"]),
    row("clientTcpKeepAlive", "true", &["tcp_keep_alive: true"]),
    row("nio.sessionlessCnxnTimeout", "91", &["server.sessionless_timeout: 91000000"]),
    row("largeRequestThreshold", "90", &["server.large_requests.threshold: 90"]),
    row("largeRequestMaxBytes", "89", &["server.large_requests.bytes_max: 89"]),
    row("connection_throttle_tokens", "88", &["server.connection_throttle.tokens: 88"]),
    row("connection_throttle_fill_time", "87", &["server.connection_throttle.fill_time_ms: 87"]),
    row("connection_throttle_fill_count", "86", &["server.connection_throttle.fill_count: 86"]),
    row(
        "connection_throttle_freeze_time",
        "85",
        &["server.connection_throttle.freeze_time_ms: 85"],
    ),
    row(
        "connection_throttle_drop_increase",
        "0.25",
        &["server.connection_throttle.drop_increase: 0.25"],
    ),
    row(
        "connection_throttle_drop_decrease",
        "0.125",
        &["server.connection_throttle.drop_decrease: 0.125"],
    ),
    row(
        "connection_throttle_decrease_ratio",
        "0.5",
        &["server.connection_throttle.decrease_ratio: 0.5"],
    ),
    row(
        "connection_throttle_weight_enabled",
        "true",
        &[
            "server.connection_throttle.weights.global: 3",
            "server.connection_throttle.weights.local: 1",
            "server.connection_throttle.weights.renew: 2",
        ],
    ),
    row(
        "connection_throttle_global_session_weight",
        "84",
        &["server.connection_throttle.weights.global: 84"],
    )
    .with(WEIGHTS),
    row(
        "connection_throttle_renew_session_weight",
        "83",
        &["server.connection_throttle.weights.renew: 83"],
    )
    .with(WEIGHTS),
    row(
        "connection_throttle_local_session_weight",
        "2",
        &["server.connection_throttle.weights.local: 2"],
    )
    .with(WEIGHTS),
    row("request_throttle_max_requests", "81", &["server.request_throttle.requests_max: 81"]),
    row("request_throttle_drop_stale", "false", &["server.request_throttle.drops_stale: false"])
        .with(STALE),
    row("request_stale_latency_check", "true", &["server.request_throttle.drops_stale: true"])
        .with("request_throttle_max_requests=1\n"),
    row("throttled_op_wait_time", "80", &["server.request_throttle.op_wait: 80000000"]),
    row("ringkeeper.shards", "2", &["shards: 2"]),
    row("ringkeeper.pin", "off", &["pin: Off"]),
    row("ringkeeper.spinMicros", "79", &["spin: 79\u{b5}s"]),
    row("ringkeeper.ioMemoryKb", "600", &["io_memory_bytes: 614400"]),
    row("ringkeeper.directIo", "false", &["direct_io: false"]),
    row("electionAlg", "3", &[]),
    row("electionAlg", "2", &[]).refused(),
    // A member.
    row("initLimit", "11", &["server.ensemble.init_limit: 11"]).of_member(),
    row("syncLimit", "6", &["server.ensemble.sync_limit: 6"]).of_member(),
    // What counts is the role in the `server.N` line.
    row("peerType", "observer", &[]).of_member(),
    row("peerType", "leader", &[]).refused().of_member(),
    row(
        "quorumListenOnAllIPs",
        "true",
        &["peers.listen.host: \"::\"", "peers.listen.host: \"::\"", "peers.on_all_ips: true"],
    )
    .of_member(),
    row("cnxTimeout", "78", &["server.ensemble.connect_within: 78000000"]).of_member(),
    row("tcpKeepAlive", "true", &["peers.tcp_keep_alive: true"]).of_member(),
    row("syncEnabled", "false", &[]).of_member(),
    row("syncEnabled", "false", &[])
        .refused()
        .with("server.2=b:3:4:observer\npeerType=observer\n")
        .of_member(),
    row("db.autocreate", "false", &["server.ensemble.trusts_empty: false"]).of_member(),
    row("electionPortBindRetry", "77", &["peers.bind_tries: 77"]).of_member(),
    row("multiAddress.enabled", "true", &["server.ensemble.rules.multi_address: true"]).of_member(),
    row("standaloneEnabled", "false", &["server.ensemble.rules.standalone_enabled: false"])
        .of_member(),
    row("version", "1f", &["committed.version: 1f", "last_seen.version: 1f"]).of_member(),
    row("ringkeeper.pingMillis", "21", &["server.ensemble.ping_every: 21000000"]).of_member(),
    row("ringkeeper.detectMillis", "1000", &["server.ensemble.detect: 1000000000"]).of_member(),
    row(
        "ringkeeper.epochTxns",
        "20",
        &["server.ensemble.zxids.last: 21", "server.ensemble.zxids.renew_at: 20"],
    )
    .of_member(),
    row("enableEagerACLCheck", "true", &["server.auth.eager: true"]).of_member(),
    row("localSessionsEnabled", "true", &["server.ensemble.local_sessions: WithoutEphemerals"])
        .of_member(),
    row("localSessionsUpgradingEnabled", "true", &["server.ensemble.local_sessions: Upgradable"])
        .with("localSessionsEnabled=true\n")
        .of_member(),
    row(
        "server.3",
        "c:5:7",
        &["committed.server.3: c:5:7:participant", "last_seen.server.3: c:5:7:participant"],
    )
    .of_member(),
    row(
        "group.1",
        "1:2:3",
        &[
            "committed.group.1: 1:2:3",
            "committed.weight.1: 1",
            "committed.weight.2: 1",
            "committed.weight.3: 1",
            "last_seen.group.1: 1:2:3",
            "last_seen.weight.1: 1",
            "last_seen.weight.2: 1",
            "last_seen.weight.3: 1",
        ],
    )
    .of_member(),
    row("weight.3", "2", &["committed.weight.3: 2", "last_seen.weight.3: 2"])
        .with("group.1=1:2:3\n")
        .of_member(),
];

/// Beside `zoo.cfg`: the second member is this server.
fn read(path: &Path) -> Result<Option<Vec<u8>>, String> {
    let text = match path.to_str() {
        Some("/d/myid" | "/e/myid") => "2\n",
        Some("zoo.cfg.dynamic") => "server.1=a:1:2\nserver.2=b:3:4\nserver.3=c:5:6\n",
        _ => return Ok(None),
    };
    Ok(Some(text.as_bytes().to_vec()))
}

/// Every field that a configuration makes, as `path: value`, and its warnings.
fn fields(text: &str) -> Result<(Vec<String>, Vec<String>), ConfigError> {
    let (config, warnings) = Config::parse(text.as_bytes(), "zoo.cfg", &read)?;
    let mut settings =
        settings(&config, Some(&"zoo.cfg".to_owned())).expect("addresses are numbers");
    let conf_text = std::mem::take(&mut settings.server.conf_text);
    settings.server.environment.clear();
    let mut texts = vec![("conf", conf_text)];
    if let Some(member) = &mut settings.server.ensemble {
        let configs = [&mut member.configs.committed, &mut member.configs.last_seen];
        let configs = configs.map(|config| ensemble::text(&std::mem::take(config)));
        texts.extend(["committed", "last_seen"].into_iter().zip(configs));
    }
    let mut all = leaves(&format!("{settings:#?}"));
    for (name, text) in texts {
        all.extend(text.lines().map(|line| format!("{name}.{}", line.replacen('=', ": ", 1))));
    }
    all.sort_unstable();
    Ok((all, warnings.into_iter().map(|warning| warning.0).collect()))
}

/// What stands in the text of a value, each with the names of the fields that it is in.
fn leaves(text: &str) -> Vec<String> {
    let (mut names, mut leaves) = (Vec::<String>::new(), Vec::new());
    for line in text.lines() {
        let mut line = line.trim();
        if line.starts_with(['}', ')', ']']) {
            names.pop().expect("what is closed was opened");
            line = line.get(1..).expect("it is one byte").trim_start_matches([':', ' ', ',']);
        }
        let (name, value) = line.split_once(": ").unwrap_or(("", line));
        if value.ends_with(['{', '(', '[']) {
            names.push(name.to_owned());
        } else if !value.is_empty() {
            let path = names.iter().map(String::as_str).chain([name]);
            let path: Vec<&str> = path.filter(|name| !name.is_empty()).collect();
            leaves.push(format!("{}: {}", path.join("."), value.trim_end_matches(',')));
        }
    }
    leaves
}

/// What is in `left` and not in `right`.
fn without(left: &[String], right: &[String]) -> Vec<String> {
    let mut rest = right.to_vec();
    let is_new = |line: &&String| match rest.iter().position(|other| other == *line) {
        Some(at) => {
            rest.remove(at);
            false
        }
        None => true,
    };
    left.iter().filter(is_new).cloned().collect()
}

fn path(line: &str) -> &str {
    line.split_once(": ").map_or(line, |(path, _)| path)
}

fn is_used(key: &Key) -> bool {
    [key.alone, key.in_ensemble].iter().any(|status| matches!(status, Status::Used))
}

#[test]
fn every_key_changes_its_own_fields() {
    let user = super::user_name();
    for Row { base, with, key, value, gives } in ROWS {
        let before = format!("{}{with}", base.text());
        let (was, _) = fields(&before).expect("it is right without the key");
        let names = &keys::find(key).expect("it is in the table").names;
        let names = if names.contains(key) { names } else { std::slice::from_ref(key) };
        for name in names.iter().flat_map(|name| [(*name).to_owned(), format!("zookeeper.{name}")])
        {
            let line = format!("{name}={value}");
            let found = fields(&format!("{before}{line}\n"));
            let Some(gives) = gives else {
                let error = found.expect_err(&line);
                assert_eq!(error.key, name.trim_start_matches("zookeeper."), "{line}");
                continue;
            };
            let (is, warnings) = found.unwrap_or_else(|error| panic!("{line}: {error}"));
            let wanted: Vec<String> =
                gives.iter().map(|field| field.replace("USER", &user)).collect();
            assert_eq!(without(&is, &was), wanted, "{line}");
            for gone in without(&was, &is) {
                let is_its_own = wanted.iter().any(|field| path(field).starts_with(path(&gone)));
                assert!(is_its_own, "{line}: {gone} is gone");
            }
            for what in ["unknown key", "has no effect"] {
                assert!(!warnings.iter().any(|text| text.contains(what)), "{line}: {warnings:?}");
            }
        }
    }
}

#[test]
fn every_key_that_is_used_has_a_row() {
    for key in keys::KEYS.iter().chain(keys::FAMILIES).filter(|key| is_used(key)) {
        let has_row = ROWS.iter().any(|row| {
            let found = keys::find(row.key).expect("it is in the table");
            found.names == key.names
        });
        assert!(has_row || key.names == ["dynamicConfigFile"], "{key:?}");
    }
}

#[test]
fn members_of_a_dynamic_file_are_those_of_the_lines() {
    let lines = format!("{}reconfigEnabled=true\n", Member.text());
    let (was, _) = fields(&lines).expect("it is right");
    let others = lines.lines().filter(|line| !line.starts_with("server."));
    let text: String = others.map(|line| format!("{line}\n")).collect();
    let (is, _) =
        fields(&format!("{text}dynamicConfigFile=zoo.cfg.dynamic\n")).expect("it is right");
    assert_eq!(without(&is, &was), ["backs_up_config: false"]);
    assert_eq!(without(&was, &is), ["backs_up_config: true"]);
}

/// Numbers have no end.
#[test]
fn the_largest_numbers_are_taken_or_refused() {
    let mut taken = 0;
    // A host of that name would be looked up.
    for Row { base, with, key, .. } in ROWS.iter().filter(|row| row.key != "clientPortAddress") {
        for value in [i64::MAX.to_string(), u64::MAX.to_string(), i32::MAX.to_string()] {
            taken += usize::from(fields(&format!("{}{with}{key}={value}\n", base.text())).is_ok());
        }
    }
    assert!(ROWS.len() < taken, "{taken}");
}
