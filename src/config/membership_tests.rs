//! Tests of the keys of an ensemble.

use std::collections::BTreeMap;
use std::path::Path;

use super::*;
use crate::model::{EnsembleConfig, LearnerType, ServerId};

const MINIMAL: &str = "dataDir=/d\nclientPort=2181\ninitLimit=10\nsyncLimit=5\n";
const THREE: &str = "server.1=a:1:2\nserver.2=b:1:2\nserver.3=c:1:2\n";

/// Parses with files that are there.
fn parse_with(
    text: &str,
    files: &[(&str, &str)],
) -> Result<(Config, Vec<ConfigWarning>), ConfigError> {
    let files: BTreeMap<&Path, &str> =
        files.iter().map(|(path, text)| (Path::new(*path), *text)).collect();
    let read = |path: &Path| match files.get(path) {
        Some(&"unreadable") => Err("permission denied".to_owned()),
        found => Ok(found.map(|text| text.as_bytes().to_vec())),
    };
    Config::parse(text.as_bytes(), "zoo.cfg", &read)
}

/// Parses a member numbered 2.
fn member(lines: &str) -> Result<(Ensemble, Vec<String>), ConfigError> {
    let parsed = parse_with(&format!("{MINIMAL}{lines}"), &[("/d/myid", "2\n")]);
    parsed.map(|(config, warnings)| {
        let warnings = warnings.into_iter().map(|warning| warning.0).collect();
        (config.ensemble.expect("it is a member"), warnings)
    })
}

fn sids(config: &EnsembleConfig) -> Vec<i64> {
    config.members.keys().map(|sid| sid.0).collect()
}

#[test]
fn a_member_has_apaches_defaults() {
    let (ensemble, warnings) = member(THREE).unwrap();
    assert_eq!(warnings, [""; 0]);
    assert_eq!((ensemble.me, ensemble.is_observer()), (ServerId(2), false));
    assert_eq!(sids(&ensemble.configs.committed), [1, 2, 3]);
    assert_eq!(ensemble.configs.committed, ensemble.configs.last_seen);
    assert_eq!((ensemble.init_limit, ensemble.sync_limit), (10, 5));
    assert_eq!(ensemble.connection_timeout_ms, 5000);
    assert_eq!((ensemble.bind_tries, ensemble.listens_on_all_ips), (3, false));
    assert_eq!((ensemble.ping_ms, ensemble.detect_ms), (50, 300));
    assert_eq!(ensemble.epoch_txns, 0xfeff_ffff);
    assert_eq!(ensemble.own().addresses[0].host, "b");
}

#[test]
fn keys_of_a_member_have_their_meaning() {
    let lines = "cnxTimeout=700\nquorumListenOnAllIPs=True\nelectionPortBindRetry=0\n\
                 db.autocreate=false\n\
                 zookeeper.tcpKeepAlive=true\nringkeeper.pingMillis=20\n\
                 ringkeeper.detectMillis=90\nringkeeper.epochTxns=7\n\
                 electionAlg=3\nleaderServes=yes\n\
                 observerMasterPort=0\nsyncEnabled=false\nsslQuorum=false\n\
                 quorum.auth.enableSasl=false\n";
    let (ensemble, warnings) = member(&format!("{THREE}{lines}")).unwrap();
    assert_eq!(ensemble.connection_timeout_ms, 700);
    assert!(ensemble.listens_on_all_ips && ensemble.tcp_keep_alive);
    assert!(!ensemble.trusts_empty);
    assert_eq!((ensemble.bind_tries, ensemble.ping_ms, ensemble.detect_ms), (0, 20, 90));
    assert_eq!(ensemble.epoch_txns, 7);
    assert_eq!(warnings.len(), 1, "the prefix alone is worth a word: {warnings:?}");
}

#[test]
fn one_voter_is_standalone_unless_told_otherwise() {
    const ONE: &str = "server.2=b:1:2;[::]:2182\n";
    let myid = [("/d/myid", "2")];
    for lines in ["", "server.1=a:1:2\n", "server.2=b:1:2;2181\n", "standaloneEnabled=true\n"] {
        let (config, _) = parse_with(&format!("{MINIMAL}{lines}"), &myid).unwrap();
        assert_eq!((config.ensemble, config.client_port), (None, 2181), "{lines}");
    }
    let (config, _) = parse_with(&format!("{MINIMAL}server.1=a:1:2\n"), &[]).unwrap();
    assert_eq!(config.ensemble, None, "a standalone server needs no myid");
    // As the official image writes it: the line alone says where clients connect.
    let (config, warnings) = parse_with(&format!("dataDir=/d\n{ONE}"), &myid).unwrap();
    assert_eq!(config.client_port_address.as_deref(), Some("0:0:0:0:0:0:0:0"));
    assert_eq!((config.client_port, warnings.len()), (2182, 1));

    let text = format!("dataDir=/d\ninitLimit=1\nsyncLimit=1\nstandaloneEnabled=false\n{ONE}");
    let (config, _) = parse_with(&text, &myid).unwrap();
    assert_eq!(sids(&config.ensemble.unwrap().configs.committed), [2]);
}

#[test]
fn what_a_member_must_not_start_with_is_named() {
    for (lines, line, key, what) in [
        ("initLimit=0", 8, "initLimit", "above 0"),
        ("syncLimit=-1", 8, "syncLimit", "not a number"),
        ("electionAlg=0", 8, "electionAlg", "only 3"),
        ("peerType=leader", 8, "peerType", "participant or observer"),
        ("quorumListenOnAllIPs=yes", 8, "quorumListenOnAllIPs", "true or false"),
        ("standaloneEnabled=1", 8, "standaloneEnabled", "true or false"),
        ("ringkeeper.detectMillis=99", 8, "ringkeeper.detectMillis", "at least twice"),
        ("ringkeeper.pingMillis=0", 8, "ringkeeper.pingMillis", "above 0"),
        ("ringkeeper.epochTxns=0", 8, "ringkeeper.epochTxns", "from 1 to 4278190079"),
        ("ringkeeper.epochTxns=4278190080", 8, "ringkeeper.epochTxns", "from 1"),
        ("leaderServes=no", 8, "leaderServes", "not built"),
        ("observerMasterPort=2191", 8, "observerMasterPort", "not built"),
        ("oraclePath=/o", 8, "oraclePath", "not built"),
        ("db.autocreate=no", 8, "db.autocreate", "true or false"),
        ("quorum.auth.enableSasl=true", 8, "quorum.auth.enableSasl", "SASL"),
        ("quorum.auth.serverRequireSasl=true", 8, "quorum.auth.serverRequireSasl", "SASL"),
        ("localSessionsEnabled=yes", 8, "localSessionsEnabled", "true or false"),
        ("sslQuorum=true", 8, "sslQuorum", "TLS"),
        ("ssl.quorum.keyStore.location=/k", 8, "ssl.quorum.keyStore.location", "TLS"),
        ("server.4=d:1:1", 8, "server.4", "must differ"),
        ("server.4=d:1:2|e:1:2", 0, "multiAddress.enabled", "server.4"),
        ("server.2=b:1:2:observer\nsyncEnabled=false", 9, "syncEnabled", "not built"),
        ("server.2=b:1:2;2182", 2, "clientPort", "names port 2182"),
        (
            "server.2=b:1:2;10.0.0.1:2181\nclientPortAddress=10.0.0.2",
            9,
            "clientPortAddress",
            "names 10.0.0.1",
        ),
    ] {
        let error = member(&format!("{THREE}{lines}")).unwrap_err();
        assert_eq!((error.line, error.key.as_str()), (line, key), "{lines}: {error}");
        assert!(error.what.contains(what), "{lines}: {error}");
    }
    for (text, key, what) in [
        ("server.1=a:1:2\nserver.2=b:1:2:observer", "server.2", "observers"),
        ("server.2=b:1:2:observer", "server.", "participant"),
        ("standaloneEnabled=false", "standaloneEnabled", "needs server.N"),
        ("group.1=1", "server.", "participant"),
    ] {
        let error = parse_with(&format!("{MINIMAL}{text}\n"), &[]).unwrap_err();
        assert_eq!(error.key, key, "{text}: {error}");
        assert!(error.what.contains(what), "{text}: {error}");
    }
    for key in ["initLimit", "syncLimit"] {
        let text = format!("{MINIMAL}{THREE}").replace(key, "snapCount");
        assert_eq!(parse_with(&text, &[("/d/myid", "1")]).unwrap_err().key, key);
    }
}

#[test]
fn myid_is_a_number_of_a_member() {
    for (myid, extra, what) in [
        (None, "", "/d/myid is missing"),
        (Some(""), "", "is empty"),
        (Some("\n2\n"), "", "is empty"),
        (Some("two"), "", "is not a number"),
        (Some("0"), "", "0 is not in 1..=255"),
        (Some("256"), "", "256 is not in 1..=255"),
        (Some("255"), "extendedTypesEnabled=true\n", "255 is not in 1..=254"),
        (Some("4"), "", "there is no server.4 line"),
        (Some("unreadable"), "", "permission denied"),
    ] {
        let files: Vec<_> = myid.iter().map(|text| ("/d/myid", *text)).collect();
        let error = parse_with(&format!("{MINIMAL}{THREE}{extra}"), &files).unwrap_err();
        assert_eq!(error.key, "myid", "{myid:?}");
        assert!(error.what.contains(what), "{myid:?}: {error}");
    }
    for text in ["3", "3\n", " 3 \r\nmore"] {
        let (config, _) = parse_with(&format!("{MINIMAL}{THREE}"), &[("/d/myid", text)]).unwrap();
        assert_eq!(config.ensemble.unwrap().me, ServerId(3), "{text:?}");
    }
}

#[test]
fn a_dynamic_file_holds_the_members_and_its_name_the_version() {
    let text = |name: &str| format!("{MINIMAL}dynamicConfigFile={name}\n");
    let myid = ("/d/myid", "2");
    for (name, version) in
        [("/c/zoo.cfg.dynamic.10000002a", 0x1_0000_002a), ("/c/zoo.cfg.dynamic", 0), ("/c/x", 0)]
    {
        let (config, _) = parse_with(&text(name), &[myid, (name, THREE)]).unwrap();
        let configs = config.ensemble.unwrap().configs;
        assert_eq!((configs.committed.version, sids(&configs.committed).len()), (version, 3));
        assert_eq!(configs.pending(), None);
    }
    let next = "server.2=b:1:2\nversion=30\n";
    let files = [myid, ("/c/d.1f", THREE), ("zoo.cfg.dynamic.next", next)];
    let parsed = |lines: &str| parse_with(&format!("{}{lines}", text("/c/d.1f")), &files);
    let (config, _) = parsed("").unwrap();
    assert_eq!(config.ensemble.unwrap().configs.pending(), None, "without reconfigEnabled");
    let (config, _) = parsed("reconfigEnabled=true\n").unwrap();
    let configs = config.ensemble.unwrap().configs;
    assert_eq!((configs.committed.version, configs.last_seen.version), (0x1f, 0x30));
    assert_eq!(sids(&configs.last_seen), [2]);

    for (lines, dynamic, file, key) in [
        (THREE, "server.1=a:1:2", "zoo.cfg", "server.1"),
        ("weight.1=1\n", "server.1=a:1:2", "zoo.cfg", "weight.1"),
        ("", "server.1=a:1:2\nversion=3", "/c/d", "version"),
        ("", "server.1=a:1:2\ntickTime=3", "/c/d", "tickTime"),
        ("", "server.1=a", "/c/d", "server.1"),
        ("", "", "/c/d", "server."),
        ("", "unreadable", "zoo.cfg", "dynamicConfigFile"),
    ] {
        let text = format!("{}{lines}", text("/c/d"));
        let error = parse_with(&text, &[myid, ("/c/d", dynamic)]).unwrap_err();
        assert_eq!((error.file.as_str(), error.key.as_str()), (file, key), "{error}");
    }
    assert_eq!(parse_with(&text("/c/d"), &[myid]).unwrap_err().key, "dynamicConfigFile");
}

#[test]
fn roles_groups_and_addresses_come_from_the_lines() {
    let (ensemble, warnings) = member(
        "server.1=a:1:2\nserver.2=b:1:2:observer\nserver.3=c:1:2\nserver.4=d:1:2\n\
         peerType=observer\n",
    )
    .unwrap();
    assert!(ensemble.is_observer() && warnings.is_empty(), "{warnings:?}");
    let (ensemble, warnings) = member(&format!("{THREE}peerType=observer\n")).unwrap();
    assert_eq!(ensemble.own().learner_type, LearnerType::Participant);
    assert!(warnings[0].contains("peerType"), "{warnings:?}");
    let four = format!("{THREE}server.4=d:1:2\n");
    for (lines, count) in [("server.1=a:1:2\nserver.2=b:1:2\n", 1), (THREE, 0), (&four, 1)] {
        assert_eq!(member(lines).unwrap().1.len(), count, "{lines}");
    }
    let groups = "group.1=1\ngroup.2=2:3\nweight.3=2\n";
    let (ensemble, _) = member(&format!("{THREE}{groups}")).unwrap();
    assert_eq!(ensemble.configs.committed.weight(ServerId(3)), 2);
    let (ensemble, _) =
        member(&format!("{THREE}server.2=b:1:2|b2:3:4\nmultiAddress.enabled=true\n")).unwrap();
    assert_eq!(ensemble.own().addresses.len(), 2);
}

#[test]
fn a_standalone_server_names_the_keys_of_ensembles() {
    let lines = "peerType=observer\nleaderServes=no\noraclePath=/o\nobserverMasterPort=1\n";
    let (_, warnings) = parse_with(&format!("{MINIMAL}{lines}"), &[]).unwrap();
    assert_eq!(warnings.len(), 6, "{warnings:?}");
    for ConfigWarning(text) in warnings {
        assert!(text.ends_with("has no effect: it belongs to an ensemble"), "{text}");
    }
}

#[test]
fn a_port_for_tls_in_the_own_line_is_refused() {
    let lines = THREE.replace("server.2=b:1:2", "server.2=b:1:2;2181;2281");
    let error = member(&lines).unwrap_err().to_string();
    assert!(error.contains("zoo.cfg:6") && error.contains("server.2"), "{error}");
    assert!(error.contains("TLS"), "{error}");
    member(&THREE.replace("server.1=a:1:2", "server.1=a:1:2;2181;2281")).expect("not its own");
}
