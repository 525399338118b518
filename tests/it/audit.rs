//! The audit log: the lines that Apache ZooKeeper writes for the same requests, in the same order.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use super::apache::{self, Apache, Java};
use super::client::{self, create, exists};
use super::clients::{script, transcript};
use super::ensemble::{Ensemble, Program};
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

/// Where the class is that writes Apache's lines to a file.
fn audit_sink(jars: &Path) -> Option<PathBuf> {
    let classes = peer::fresh_directory();
    let mut compiler = Command::new("javac");
    compiler.arg("-cp").arg(jars.join("*")).arg("-d").arg(&classes).arg(script("AuditSink.java"));
    apache::runs(&mut compiler).then_some(classes)
}

/// A server of Apache's with its lines in `log`.
fn java(jars: &Path, classes: &Path, log: &Path) -> Java {
    Java::new(jars)
        .with_classes(classes)
        .with("zookeeper.audit.impl.class", "AuditSink")
        .with("audit.sink", &log.display().to_string())
}

fn on_apache(jars: &Path) -> Option<Vec<String>> {
    let classes = audit_sink(jars)?;
    let log = classes.join("audit.log");
    let java = java(jars, &classes, &log);
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

/// The lines of a leader, of the follower that has the clients, and of the other follower.
fn of_ensemble(
    start: impl Fn(&mut Ensemble, i64),
    lines: impl Fn(&Ensemble, i64) -> Vec<String>,
) -> Vec<(&'static str, Vec<String>)> {
    let mut ensemble = Ensemble::new(3);
    (1..=3).for_each(|sid| start(&mut ensemble, sid));
    ensemble.all_serve();
    let leader = ensemble.leader();
    let followers: Vec<i64> = (1..=3).filter(|sid| *sid != leader).collect();
    transcript(&mut requests(), ensemble.ports[&followers[0]], || ());
    let kinds = [("leader", leader), ("follower", followers[0]), ("other", followers[1])];
    for (_, sid) in kinds {
        peer::within("the last change", || {
            let mut client = client::connect(ensemble.ports[&sid]).ok()?;
            (client.code(&exists("/e-d", false)) == ErrorCode::NO_NODE).then_some(())
        });
    }
    let told = |(kind, sid)| {
        ensemble.stop(sid);
        (kind, lines(&ensemble, sid))
    };
    kinds.map(told).to_vec()
}

#[test]
fn a_follower_tells_of_its_clients_changes_as_apaches_does() {
    let test = "the audit log of a follower";
    if !apache::runs(Command::new("python3").arg("--version").stdin(Stdio::null())) {
        return apache::skip(test, "no python3");
    }
    let ours = of_ensemble(
        |ensemble, sid| ensemble.start(sid, &Program::Ours, SETTINGS),
        |ensemble, sid| {
            let log = ensemble.home.join(sid.to_string()).join("log");
            audit_lines(&fs::read_to_string(log).expect("there is a log"))
        },
    );
    let of_follower = &ours[1].1;
    assert!(70 < of_follower.len(), "{of_follower:?}");
    let classes = apache::jars().and_then(|jars| Some((audit_sink(&jars)?, jars)));
    let Some((classes, jars)) = classes else {
        return apache::skip(test, "no java or no Apache ZooKeeper to compare with");
    };
    let log = |sid: i64| classes.join(format!("audit-{sid}.log"));
    let theirs = of_ensemble(
        |ensemble, sid| {
            let java = java(&jars, &classes, &log(sid));
            let java = java.with("znode.container.checkIntervalMs", "200");
            ensemble.start(sid, &Program::Apache(java), SETTINGS);
        },
        |_, sid| {
            let text = fs::read_to_string(log(sid)).unwrap_or_default();
            text.lines().map(str::to_owned).collect()
        },
    );
    let all = |of: &[(&str, Vec<String>)]| -> Vec<String> {
        let lines = of.iter().flat_map(|(kind, lines)| {
            normal(lines).into_iter().map(move |line| format!("{kind}: {line}"))
        });
        lines.collect()
    };
    let (ours, theirs) = (all(&ours), all(&theirs));
    for (ours, theirs) in ours.iter().zip(&theirs) {
        assert_eq!(ours, theirs, "ours left, Apache's right\n{ours:#?}\n{theirs:#?}");
    }
    assert_eq!(ours.len(), theirs.len(), "{ours:#?}\n{theirs:#?}");
    peer::clean(&classes);
}

#[test]
fn who_sends_and_goes_is_told_of() {
    let server = Server::start("audit.enable=true");
    let mut client = client::connect(server.port).expect("it serves");
    client.send(&create("/left", b"", 0)).expect("it is sent");
    drop(client);
    let mut other = client::connect(server.port).expect("it serves");
    let deadline = Instant::now() + Duration::from_secs(60);
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
