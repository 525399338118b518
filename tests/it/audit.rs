//! The audit log: the lines that Apache ZooKeeper writes for the same requests, in the same order.

use std::fs;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use super::apache::{self, Apache, Java};
use super::client::{self, create, exists};
use super::clients::{script, transcript};
use super::peer::{self, Server};
use ringkeeper::model::ErrorCode;

const SETTINGS: &str =
    "audit.enable=true\nextendedTypesEnabled=true\nznode.container.checkIntervalMs=200";

fn requests() -> Command {
    let mut command = Command::new("python3");
    command.arg(script("audit_surface.py"));
    command
}

/// The lines of the audit log among those of a server's log. Failures are errors.
fn audit_lines(log: &str) -> Vec<String> {
    let lines = log.lines().filter_map(|line| line.split_once(" audit: "));
    lines
        .map(|(front, line)| {
            assert_eq!(front.ends_with("ERROR"), line.ends_with("failure"), "{front} {line}");
            line.to_owned()
        })
        .collect()
}

/// Sessions by number; users of one connection sorted, since Apache has them in no order.
fn normal(lines: &[String]) -> Vec<String> {
    let mut sessions: Vec<&str> = Vec::new();
    let mut field = |field: &str| match field.split_once('=') {
        Some(("user", users)) => {
            let mut users: Vec<&str> = users.split(',').collect();
            users.sort_unstable();
            format!("user={}", users.join(","))
        }
        _ => field.to_owned(),
    };
    let mut normal = Vec::new();
    for line in lines {
        let (front, rest) = line.split_once('\t').expect("there are several fields");
        let front = match front.strip_prefix("session=") {
            Some(session) => {
                let known = sessions.iter().position(|known| *known == session);
                let number = known.unwrap_or_else(|| {
                    sessions.push(session);
                    sessions.len() - 1
                });
                format!("session={number}")
            }
            None => field(front),
        };
        let rest: Vec<String> = rest.split('\t').map(&mut field).collect();
        normal.push(format!("{front}\t{}", rest.join("\t")));
    }
    normal
}

fn on_apache(jars: &Path) -> Option<Vec<String>> {
    let classes = peer::fresh_directory();
    let mut compiler = Command::new("javac");
    compiler.arg("-cp").arg(jars.join("*")).arg("-d").arg(&classes).arg(script("AuditSink.java"));
    if !apache::runs(&mut compiler) {
        return None;
    }
    let log = classes.join("audit.log");
    let java = Java::new(jars)
        .with_classes(&classes)
        .with("zookeeper.audit.impl.class", "AuditSink")
        .with("audit.sink", &log.display().to_string());
    let mut apache = Apache::start_as(java, SETTINGS);
    let port = apache.port;
    transcript(&mut requests(), port, || ());
    apache.stop();
    let lines =
        fs::read_to_string(log).expect("there is a log").lines().map(str::to_owned).collect();
    peer::clean(&classes);
    Some(lines)
}

fn ended(server: Server) -> Vec<String> {
    let (status, home, _) = server.stop();
    assert!(status.success(), "{status}");
    let log = fs::read_to_string(home.join("log")).expect("there is a log");
    peer::clean(&home);
    audit_lines(&log)
}

#[test]
fn changes_are_told_of_as_apache_tells_of_them() {
    if !apache::runs(Command::new("python3").arg("--version").stdin(Stdio::null())) {
        return apache::skip("the audit log", "no python3");
    }
    let server = Server::start(SETTINGS);
    transcript(&mut requests(), server.port, || ());
    let ours = ended(server);
    assert!(80 < ours.len(), "{ours:?}");
    let Some(theirs) = apache::jars().and_then(|jars| on_apache(&jars)) else {
        return apache::skip("the audit log", "no java or no Apache ZooKeeper to compare with");
    };
    let (ours, theirs) = (normal(&ours), normal(&theirs));
    for (ours, theirs) in ours.iter().zip(&theirs) {
        assert_eq!(ours, theirs, "ours left, Apache's right");
    }
    assert_eq!(ours.len(), theirs.len(), "{ours:?}");
}

#[test]
fn who_sends_and_goes_is_told_of() {
    let server = Server::start("audit.enable=true");
    let mut client = client::connect(server.port).expect("it serves");
    client.send(&create("/left", b"", 0)).expect("it is sent");
    drop(client);
    let mut other = client::connect(server.port).expect("it serves");
    let deadline = Instant::now() + Duration::from_secs(20);
    while other.code(&exists("/left", false)) != ErrorCode::OK {
        assert!(Instant::now() < deadline, "it is created all the same");
    }
    drop(other);
    let lines = ended(server);
    let line = lines.iter().find(|line| line.contains("\tznode=/left\t"));
    let line = line.unwrap_or_else(|| panic!("{lines:?}"));
    assert!(line.contains("\tuser=127.0.0.1\tip=127.0.0.1\toperation=create\t"), "{line}");
}

#[test]
fn it_is_off_unless_asked_for_and_tells_of_failed_starts() {
    let server = Server::start("");
    let mut client = client::connect(server.port).expect("it serves");
    assert_eq!(client.code(&create("/a", b"", 0)), ErrorCode::OK);
    drop(client);
    assert_eq!(ended(server), [""; 0]);
    // The port is another's.
    let held = Server::start("");
    let home = peer::fresh_directory();
    peer::write_config(&home, held.port, "audit.enable=true");
    let status = peer::spawn(&home.join("zoo.cfg")).wait().expect("the child is ours");
    assert!(!status.success());
    let log = fs::read_to_string(home.join("log")).expect("there is a log");
    let lines = audit_lines(&log);
    assert_eq!(lines.len(), 1, "{log}");
    assert!(lines[0].ends_with("\toperation=serverStart\tresult=failure"), "{lines:?}");
    peer::clean(&home);
    ended(held);
}
