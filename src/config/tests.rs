//! Tests of the configuration.

use super::*;

fn parse(text: &str) -> Result<(Config, Vec<ConfigWarning>), ConfigError> {
    Config::parse(text.as_bytes(), "zoo.cfg", &|_| Ok(None))
}

const MINIMAL: &str = "dataDir=/d\nclientPort=2181\n";

#[test]
fn the_syntax_is_that_of_java_properties() {
    let text = "# a\n! b\n\n a = 1 \nb:2\nc 3\nd\\ e = f\\tg\nh = i\\\n   j\na=4\nk=\\u0041\nl\n";
    let parsed = |text: &str| -> Vec<(usize, String, String)> {
        properties::parse(text.as_bytes())
            .into_iter()
            .map(|property| (property.line, property.key, property.value))
            .collect()
    };
    let expected = [
        (5, "b", "2"),
        (6, "c", "3"),
        (7, "d e", "f\tg"),
        (8, "h", "ij"),
        (10, "a", "4"),
        (11, "k", "A"),
        (12, "l", ""),
    ];
    let expected: Vec<(usize, String, String)> = expected
        .into_iter()
        .map(|(line, key, value)| (line, key.to_owned(), value.to_owned()))
        .collect();
    for end in ["\n", "\r", "\r\n"] {
        let text = text.replace('\n', end);
        assert_eq!(parsed(&text), expected, "{end:?}");
        let kept = properties::without(text.as_bytes(), |key| key == "h" || key == "b");
        let others: Vec<_> =
            expected.iter().filter(|(_, key, _)| key != "h" && key != "b").collect();
        let kept = parsed(&String::from_utf8(kept).unwrap());
        assert!(kept.iter().map(|it| &it.1).eq(others.iter().map(|it| &it.1)), "{end:?}");
    }
}

#[test]
fn what_is_switched_off_is_not_asked_for() {
    for line in [
        "secureClientPort=0",
        "metricsProvider.className=org.apache.zookeeper.metrics.impl.DefaultMetricsProvider",
    ] {
        parse(&format!("{MINIMAL}{line}")).unwrap_or_else(|error| panic!("{error}"));
    }
}

#[test]
fn defaults_are_apaches() {
    let (config, warnings) = parse(MINIMAL).unwrap();
    assert_eq!(warnings, []);
    assert_eq!((config.tick_time_ms, config.max_client_cnxns), (3000, 60));
    assert_eq!((config.min_session_timeout_ms, config.max_session_timeout_ms), (6000, 60_000));
    assert_eq!(config.client_port_address, None);
    assert_eq!(config.data_log_dir, config.data_dir);
}

#[test]
fn timeouts_follow_the_tick() {
    let (config, _) = parse(&format!("{MINIMAL}tickTime=2000\nmaxSessionTimeout=90000")).unwrap();
    assert_eq!((config.min_session_timeout_ms, config.max_session_timeout_ms), (4000, 90_000));
}

#[test]
fn wrong_values_name_file_line_and_key() {
    for (line, key) in [
        ("tickTime=0", "tickTime"),
        ("tickTime=often", "tickTime"),
        ("minSessionTimeout=70000", "minSessionTimeout"),
        ("clientPort=99999", "clientPort"),
        ("ringkeeper.shards=65", "ringkeeper.shards"),
        ("ringkeeper.spinMicros=1001", "ringkeeper.spinMicros"),
        ("ringkeeper.ioMemoryKb=1", "ringkeeper.ioMemoryKb"),
        ("secureClientPort=2281", "secureClientPort"),
        ("secureClientPort=${PORT}", "secureClientPort"),
        ("admin.enableServer=true", "admin.enableServer"),
        ("metricsProvider.className=x", "metricsProvider.className"),
        ("ssl.keyStore.location=x", "ssl.keyStore.location"),
        ("connectionDropIncrease=2", "connectionDropIncrease"),
        ("connection_throttle_local_session_weight=0", "connection_throttle_local_session_weight"),
        ("jute.maxbuffer=2000000000", "jute.maxbuffer"),
        ("throttledOpWaitTime=long", "throttledOpWaitTime"),
        ("sessionRequireClientSASLAuth=true", "sessionRequireClientSASLAuth"),
        ("enforce.auth.enabled=true", "enforce.auth.enabled"),
        ("DigestAuthenticationProvider.digestAlg=MD5", "DigestAuthenticationProvider.digestAlg"),
        ("reconfigEnabled=perhaps", "reconfigEnabled"),
        ("authProvider.x=com.example.Own", "authProvider.x"),
        (
            "authProvider.1=org.apache.zookeeper.server.auth.SASLAuthenticationProvider",
            "authProvider.1",
        ),
    ] {
        let error = parse(&format!("{MINIMAL}{line}\n")).unwrap_err();
        assert_eq!((error.file.as_str(), error.line, error.key.as_str()), ("zoo.cfg", 3, key));
    }
    assert_eq!(parse("clientPort=1").unwrap_err().key, "dataDir");
    assert_eq!(parse("dataDir=/d").unwrap_err().key, "clientPort");
}

#[test]
fn features_that_are_switched_off_are_fine() {
    let text = format!("{MINIMAL}admin.enableServer=false\nadmin.serverPort=8080\n");
    assert!(parse(&text).is_ok());
}

#[test]
fn unknown_keys_are_warned_about_with_the_nearest_known_one() {
    let (_, warnings) = parse(&format!("{MINIMAL}tickTme=2000\nentirely.different=1\n")).unwrap();
    assert_eq!(
        warnings,
        [
            "zoo.cfg:3: tickTme: unknown key, ignored, did you mean tickTime?",
            "zoo.cfg:4: entirely.different: unknown key, ignored",
        ]
        .map(|text| ConfigWarning(text.to_owned()))
    );
    let (config, warnings) = parse(&format!("{MINIMAL}zookeeper.snapCount=7\n")).unwrap();
    assert_eq!((config.snap_count, warnings.len()), (7, 1));
}

#[test]
fn every_key_stands_once() {
    let mut all: Vec<&str> = keys::KEYS.iter().flat_map(|key| key.names).copied().collect();
    let count = all.len();
    all.sort_unstable();
    all.dedup();
    assert_eq!(all.len(), count);
}

#[test]
fn throttles_have_two_spellings() {
    for (line, expected) in [
        ("connectionMaxTokens=5", Throttle { tokens: 5, ..Throttle::default() }),
        ("connection_throttle_fill_time=0", Throttle::default()),
        ("connectionFreezeTime=7", Throttle { freeze_time_ms: 7, ..Throttle::default() }),
        ("requestThrottleLimit=-1", Throttle::default()),
        ("request_throttle_max_requests=9", Throttle { max_requests: 9, ..Throttle::default() }),
        (
            "connection_throttle_local_session_weight=9",
            Throttle {
                global_session_weight: 9,
                renew_session_weight: 9,
                local_session_weight: 9,
                ..Throttle::default()
            },
        ),
    ] {
        let (config, warnings) = parse(&format!("{MINIMAL}{line}\n")).unwrap();
        assert_eq!((config.throttle, warnings), (expected, vec![]), "{line}");
    }
    let (config, _) = parse(&format!("{MINIMAL}jute.maxbuffer=4000000\n")).unwrap();
    assert_eq!(config.jute_maxbuffer + config.jute_maxbuffer_extrasize, 8_000_000);
    for (value, expected) in [("-1", None), ("0", None), ("100", Some(100))] {
        let (config, _) = parse(&format!("{MINIMAL}largeRequestThreshold={value}\n")).unwrap();
        assert_eq!(config.large_request_threshold, expected);
    }
}

#[test]
fn keys_of_authentication() {
    let parsed = |text: &str| parse(&format!("{MINIMAL}{text}"));
    let (config, warnings) = parsed(
        "authProvider.a=org.apache.zookeeper.server.auth.EnsembleAuthenticationProvider\n\
         ensembleAuthName=red, blue\nenforce.auth.enabled=true\n\
         enforce.auth.schemes=digest, ip\nDigestAuthenticationProvider.digestAlg=SHA-512\n",
    )
    .unwrap();
    assert_eq!(warnings, []);
    assert_eq!(config.ensemble_auth_names.unwrap(), ["red", "blue"]);
    assert_eq!(config.enforced_auth_schemes, ["digest", "ip"]);
    assert_eq!(config.digest_algorithm, DigestAlgorithm::Sha512);
    let (config, _) = parsed("enforce.auth.schemes=digest\nensembleAuthName=red\n").unwrap();
    assert_eq!(config.enforced_auth_schemes, [""; 0]);
    assert_eq!(config.ensemble_auth_names, None);
    for schemes in ["sasl", "x509", "world", "ensemble", "digest,"] {
        let text = format!("enforce.auth.enabled=true\nenforce.auth.schemes={schemes}\n");
        assert_eq!(parsed(&text).unwrap_err().key, "enforce.auth.schemes", "{schemes}");
    }
}
