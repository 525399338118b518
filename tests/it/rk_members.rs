//! rk's config and reconfig, on an ensemble of ours and on one of Apache ZooKeeper's.

use std::fs;

use serde_json::Value;

use super::apache::{self, Java};
use super::ensemble::{Ensemble, Program};
use super::peer::{self, Server, within};
use super::rk::{fails, ok, rk};

/// Nobody needs to be the super user.
const RECONFIG: &str = "reconfigEnabled=true\nskipACL=yes\nstandaloneEnabled=false\n";

fn version(port: u16) -> String {
    let text = ok(port, &["config", "-c"]);
    text.split(' ').next().expect("the version").to_owned()
}

/// The numbers of the servers in a configuration's text.
fn members(text: &str) -> Vec<&str> {
    let lines = text.lines().filter_map(|line| line.strip_prefix("server."));
    lines.filter_map(|line| line.split('=').next()).collect()
}

fn members_come_and_go(program: &Program) {
    let mut ensemble = Ensemble::new(3);
    let lines: Vec<String> = ensemble
        .lines
        .lines()
        .zip(1_i64..)
        .map(|(line, sid)| format!("{line}:participant;127.0.0.1:{}", ensemble.ports[&sid]))
        .collect();
    for sid in 1..=3_usize {
        let known = if sid == 1 { vec![1] } else { vec![1, sid] };
        let known: String = known.iter().map(|at| format!("{}\n", lines[at - 1])).collect();
        ensemble.start_with(sid as i64, program, &known, RECONFIG);
    }
    let port = ensemble.ports[&1];
    within("the first server", || (!ensemble.mode(1).is_empty()).then_some(()));
    let connect = |sids: &[i64]| -> String {
        let all = sids.iter().map(|sid| format!("127.0.0.1:{}", ensemble.ports[sid]));
        all.collect::<Vec<_>>().join(",")
    };
    assert!(ok(port, &["config", "--client"]).ends_with(&format!(" {}\n", connect(&[1]))));
    // A server that comes must have the history first.
    let add = |list: &str| {
        within("a server to join", || {
            let asked = rk(port, &["reconfig", "--add", list]).output().expect("it was built");
            let text = String::from_utf8_lossy(&asked.stdout).into_owned();
            if asked.status.success() {
                return Some(text);
            }
            let said = String::from_utf8_lossy(&asked.stderr);
            assert_eq!(asked.status.code(), Some(1), "{said}");
            assert!(said.contains("(NEW_CONFIG_NO_QUORUM)"), "{said}");
            None
        })
    };
    assert_eq!(members(&add(&lines[1])), ["1", "2"]);
    assert_eq!(members(&add(&lines[2])), ["1", "2", "3"]);
    assert_eq!(members(&ok(port, &["config"])), ["1", "2", "3"]);
    // Another version than is meant: nothing happens.
    let before = version(port);
    let refused = fails(port, 1, &["reconfig", "--remove", "3", "-v", "1"]);
    assert!(refused.contains("BAD_VERSION"), "{refused}");
    assert_eq!(version(port), before);
    let text = ok(port, &["reconfig", "--remove", "3", "--version", &before, "--stat"]);
    assert_eq!(members(&text), ["1", "2"]);
    assert!(text.contains("\ndataVersion = "), "{text}");
    assert_ne!(version(port), before);
    // The whole list, in JSON.
    let text = ok(port, &["--json", "reconfig", "--members", &lines.join(",")]);
    let value: Value = serde_json::from_str(&text).expect("JSON");
    assert_eq!(members(value["config"].as_str().expect("text")), ["1", "2", "3"]);
    let zxid = value["stat"]["mzxid"].as_str().expect("text").trim_start_matches("0x").to_owned();
    assert_eq!(version(port), zxid, "the version is the zxid of the change");
    // And from a file, such as a server writes it.
    let file = ensemble.home.join("members");
    let observer = lines[2].replace("participant", "observer");
    let text = format!("{}\n{}\n{observer}\nversion=1\n", lines[0], lines[1]);
    fs::write(&file, text).expect("it is writable");
    let file = file.display().to_string();
    let text = ok(port, &["reconfig", "--file", &file]);
    assert_eq!(members(&text), ["1", "2", "3"]);
    assert!(text.contains(":observer;"), "{text}");
    // Come and go in one change.
    let text = ok(port, &["reconfig", "--add", &lines[1], "--remove", "3"]);
    assert_eq!(members(&text), ["1", "2"]);
    let text = ok(port, &["config", "-s"]);
    assert!(text.contains("\nmZxid = "), "{text}");
    let refused = fails(port, 1, &["reconfig", "--add", "server.2=nonsense"]);
    assert!(refused.contains("BAD_ARGUMENTS"), "{refused}");
    // The next change is waited for.
    let watch = rk(port, &["config", "-w"])
        .stdout(std::process::Stdio::piped())
        .spawn()
        .expect("it was built");
    within("the watch to be set", || {
        peer::word(port, "wchs").contains("Total watches:1").then_some(())
    });
    ok(port, &["reconfig", "--remove", "2"]);
    let said = watch.wait_with_output().expect("the child is ours").stdout;
    let said = String::from_utf8_lossy(&said).into_owned();
    assert!(said.contains("/zookeeper/config"), "{said}");
    assert_eq!(ok(port, &["config", "-c"]), format!("{} {}\n", version(port), connect(&[1])));
}

#[test]
fn members_of_an_ensemble_of_ours_come_and_go() {
    members_come_and_go(&Program::Ours);
}

#[test]
fn members_of_an_ensemble_of_apaches_come_and_go() {
    let Some(jars) = apache::jars() else {
        let test = "members_of_an_ensemble_of_apaches_come_and_go";
        return apache::skip(test, "Apache ZooKeeper's jars or Java are missing");
    };
    members_come_and_go(&Program::Apache(Java::new(&jars)));
}

#[test]
fn what_is_no_change_is_refused() {
    let server = Server::start("");
    let port = server.port;
    for arguments in [
        &["reconfig"][..],
        &["reconfig", "-s"],
        &["reconfig", "--add", "server.2=a:1:2;3", "--members", "server.1=a:1:2;3"],
        &["reconfig", "--file", "/nowhere/at/all"],
        &["reconfig", "--file", "/dev/null"],
        &["reconfig", "--remove", "1", "-v", "x"],
    ] {
        fails(port, 2, arguments);
    }
    let refused = fails(port, 1, &["reconfig", "--remove", "1"]);
    assert!(refused.contains("reconfigEnabled=false (RECONFIG_DISABLED)"), "{refused}");
    let refused = fails(port, 1, &["--json", "reconfig", "--remove", "1"]);
    let value: Value = serde_json::from_str(&refused).expect("JSON");
    assert_eq!(value["error"], "RECONFIG_DISABLED", "{value}");
    let (_, home, _) = server.stop();
    peer::clean(&home);
}
