//! rk's recipes and shell on real servers, with servers killed and sessions expired in the middle,
//! and the same transcript on Apache ZooKeeper.

use std::process::Stdio;

use super::apache::{self, Apache};
use super::peer::{self, Server};
use super::rk::{Running, clean, fails, ok, rk};

/// A command that says what it holds and ends with its input.
const HOLD: [&str; 4] = ["--", "sh", "-c", "echo holds $RK_TOKEN; read line; exit 5"];
/// A command that says when it is told to end.
const TOLD: [&str; 4] =
    ["--", "sh", "-c", "trap 'echo told; exit' TERM; echo holds; while :; do sleep 0.05; done"];

fn start(port: u16, options: &[&str], command: &[&str]) -> Running {
    Running::start(rk(port, options).args(command))
}

impl Running {
    fn token(&self) -> i64 {
        let line = self.until("holds");
        line.trim_start_matches("holds ").parse().expect("a number")
    }
}

#[test]
fn one_holds_a_lock_at_a_time() {
    let server = Server::start("");
    let port = server.port;
    let options = ["--session-timeout", "60s", "lock", "/locks/a"];
    let mut first = start(port, &options, &HOLD);
    let token = first.token();
    let mut second = start(port, &options, &HOLD);
    // Who has not reached the server yet ends when there is none.
    peer::within("the second to wait", || {
        (ok(port, &["ls", "/locks/a"]).lines().count() == 2).then_some(())
    });
    let errors = fails(port, 4, &["lock", "/locks/a", "--wait", "0s", "--", "true"]);
    assert!(errors.contains("longer than --wait"), "{errors}");
    // The holder stays the holder when the server is killed and comes back.
    let (home, port) = server.kill();
    let server = Server::start_in(home, port);
    fails(port, 4, &["lock", "/locks/a", "--wait", "100ms", "--", "true"]);
    first.say("");
    assert_eq!(first.end(), Some(5));
    assert!(token < second.token(), "tokens grow");
    second.say("");
    assert_eq!(second.end(), Some(5));
    // What is left is an empty folder.
    assert_eq!(ok(port, &["ls", "/locks/a"]), "");
    assert_eq!(ok(port, &["lock", "/locks/a", "--", "echo", "free"]), "free\n");
    fails(port, 2, &["lock", "/locks/a", "--", "/no/such/program"]);
    clean(server);
}

#[test]
fn a_lock_is_lost_with_its_session() {
    let server = Server::start("");
    let port = server.port;
    let options = ["--session-timeout", "4s", "lock", "/lock"];
    // The program is stopped for longer than its session lives.
    let first = start(port, &options, &TOLD);
    first.until("holds");
    let second = start(port, &options, &TOLD);
    first.signal(libc::SIGSTOP);
    second.until("holds");
    // Somebody else holds it: there is no time left to end by itself.
    first.signal(libc::SIGCONT);
    first.until("ending the command");
    assert_eq!(first.end(), Some(4));
    // Somebody deletes the znode.
    let znodes = ok(port, &["ls", "/lock"]);
    ok(port, &["rm", &format!("/lock/{}", znodes.trim())]);
    second.until("told");
    assert_eq!(second.end(), Some(4));
    // No server is left: the command ends before the session can have expired.
    let third = start(port, &options, &TOLD);
    third.until("holds");
    let (home, _) = server.kill();
    third.until("told");
    assert_eq!(third.end(), Some(4));
    peer::clean(&home);
}

#[test]
fn one_of_several_leads() {
    let server = Server::start("");
    let port = server.port;
    let options = ["--session-timeout", "10s", "elect", "/e", "--id"];
    let first = start(port, &options, &["one"]);
    first.until("leader /e/");
    let second = start(port, &options, &["two"]);
    second.until("candidate /e/");
    assert_eq!(ok(port, &["elect", "/e", "--who"]), "one\n");
    // A leader whose session expires is a candidate again.
    first.signal(libc::SIGSTOP);
    second.until("leader /e/");
    first.signal(libc::SIGCONT);
    first.until("lost");
    first.until("candidate /e/");
    assert_eq!(ok(port, &["elect", "/e", "--who"]), "two\n");
    second.interrupt();
    assert_eq!(second.end(), Some(0));
    first.until("leader /e/");
    let who = ok(port, &["elect", "/e", "--who", "--json"]);
    assert!(who.starts_with("{\"leader\":\"one\",\"path\":\"/e/_c_"), "{who}");
    first.interrupt();
    assert_eq!(first.end(), Some(0));
    fails(port, 1, &["elect", "/e", "--who"]);
    clean(server);
}

#[test]
fn entries_are_taken_in_order_and_once() {
    let server = Server::start("");
    let port = server.port;
    fails(port, 1, &["queue", "take", "/q"]);
    for (data, priority) in [("b", "100"), ("c", "100"), ("a", "7")] {
        let put = ok(port, &["queue", "put", "/q", data, "--priority", priority]);
        assert!(put.starts_with("/q/entry-"), "{put}");
    }
    for expected in ["a", "b", "c"] {
        assert_eq!(ok(port, &["queue", "take", "/q"]), expected);
    }
    let errors = fails(port, 4, &["queue", "take", "/q", "--wait", "0s", "--json"]);
    assert!(errors.contains("\"TIMED_OUT\""), "{errors}");
    // Two wait, and each entry goes to one of them, although the server is killed meanwhile.
    let takers =
        [(); 2].map(|()| start(port, &["--json", "--patient", "queue", "take", "/q"], &[]));
    let (home, port) = server.kill();
    let server = Server::start_in(home, port);
    ok(port, &["queue", "put", "/q", "x"]);
    ok(port, &["queue", "put", "/q", "y"]);
    let mut lines = takers.map(|taker| {
        let line = taker.until("\"data\"");
        assert_eq!(taker.end(), Some(0));
        line
    });
    lines.sort_by_key(|line| line.contains("\"y\""));
    assert!(lines[0].contains("\"x\"") && lines[1].contains("\"y\""), "{lines:?}");
    assert_eq!(ok(port, &["ls", "/q"]), "");
    clean(server);
}

#[test]
fn nobody_passes_a_barrier_alone() {
    let server = Server::start("");
    let port = server.port;
    for _ in 0..2 {
        let options = ["barrier", "/b", "-n", "3"];
        let mut one = start(port, &options, &HOLD);
        let mut two = start(port, &options, &HOLD);
        fails(port, 4, &["barrier", "/other", "-n", "2", "--wait", "50ms"]);
        while ok(port, &["count", "/"]).trim() != "7" {
            std::thread::sleep(std::time::Duration::from_millis(10));
        }
        assert_eq!(ok(port, &["ls", "/b"]).lines().count(), 2);
        let mut three = start(port, &options, &HOLD);
        for member in [&mut one, &mut two, &mut three] {
            member.until("holds");
            member.say("");
        }
        for member in [one, two, three] {
            assert_eq!(member.end(), Some(5));
        }
        // It can be used again.
        assert_eq!(ok(port, &["ls", "/b"]), "");
        ok(port, &["rm", "-r", "--yes", "/other"]);
    }
    clean(server);
}

#[test]
fn the_shell_runs_lines() {
    let server = Server::start("");
    let port = server.port;
    let mut shell = start(port, &[], &[]);
    shell.say("create /s 'some data'");
    assert_eq!(shell.line(), "/s");
    shell.say("watch /s");
    shell.say("set /s \"more data\"");
    assert_eq!(shell.line(), "NodeDataChanged /s");
    shell.say("unwatch /s");
    shell.say("set /s third");
    shell.say("get /s --base64");
    assert_eq!(shell.line(), "dGhpcmQ=");
    shell.say("get /no");
    assert_eq!(shell.line(), "! rk: no znode /no (NO_NODE)");
    shell.say("get 'open");
    assert!(shell.line().contains("left open"));
    shell.say("bogus");
    assert!(shell.line().contains("unrecognized subcommand 'bogus'"));
    shell.say("help");
    shell.until("unwatch");
    shell.say("create -e /eph");
    assert_eq!(shell.until("/eph"), "/eph");
    shell.say("ephemerals");
    assert_eq!(shell.line(), "/eph");
    shell.say("addauth digest ann:pw");
    shell.say("whoami");
    assert_eq!(shell.line(), "digest: ann");
    assert_eq!(shell.line(), "ip: 127.0.0.1");
    // The session goes on with another connection: ephemerals and identities, too.
    let (home, port) = server.kill();
    shell.until("connection lost");
    let server = Server::start_in(home, port);
    shell.until("connected again");
    shell.say("ephemerals");
    assert_eq!(shell.line(), "/eph");
    shell.say("whoami");
    assert_eq!(shell.until("digest"), "digest: ann");
    shell.say("lock /l -- echo locked");
    assert_eq!(shell.until("locked"), "locked");
    shell.say("rm /s --version 9");
    shell.until("BAD_VERSION");
    assert_eq!(shell.end(), Some(1));
    fails(port, 1, &["get", "/eph"]);
    clean(server);
}

/// Commands whose output must not depend on who made the server.
const TRANSCRIPT: &[&[&str]] = &[
    &["create", "/a", "hello"],
    &["create", "/a", "again"],
    &["create", "-p", "/b/c/d", "x"],
    &["create", "-s", "/b/s-"],
    &["create", "-c", "/cont"],
    &["create", "/t", "--ttl", "1h"],
    &["get", "/a"],
    &["get", "-s", "/a"],
    &["--json", "get", "/a"],
    &["stat", "/b"],
    &["--json", "stat", "/b"],
    &["set", "/a", "x", "--version", "0", "-s"],
    &["set", "/a", "x", "--version", "0"],
    &["ls"],
    &["ls", "-s", "/b"],
    &["ls", "-R"],
    &["--json", "ls", "/b"],
    &["count", "/"],
    &["rm", "/b"],
    &["getacl", "/a"],
    &["setacl", "/a", "world:anyone:cdrwa,ip:10.0.0.0/8:r"],
    &["--json", "getacl", "/a"],
    &["setacl", "/a", "digest:x:r"],
    &["--auth", "digest:ann:pw", "whoami"],
    &["--auth", "nonsense:x", "whoami"],
    &["--auth", "digest:ann:pw", "create", "/own", "--acl", "auth::cdrwa"],
    &["get", "/own"],
    &["--auth", "digest:ann:pw", "getacl", "/own"],
    &["multi", "create /m\nset /m data\ncheck /m --version 1\ncreate /m/s- -s"],
    &["multi", "create /n\nrm /nothing\nset /m x"],
    &["--json", "multi", "set /m y\nrm /m/s-0000000000"],
    &["quota", "set", "/m", "--count", "3", "--hard-bytes", "100"],
    &["quota", "list"],
    &["--json", "quota", "list", "/m"],
    &["get", "/zookeeper/quota/m/zookeeper_limits"],
    &["quota", "delete", "/m"],
    &["ls", "-R", "/zookeeper"],
    &["dump", "/b"],
    &["sync", "/"],
    &["ephemerals"],
    &["config"],
    &["word", "ruok"],
    &["create", "-e", "/e", "--", "true"],
    &["lock", "/lock", "--", "echo", "held"],
    &["queue", "put", "/queue", "entry"],
    &["queue", "take", "/queue"],
    &["queue", "take", "/queue", "--wait", "0s"],
    &["barrier", "/barrier", "-n", "1"],
    &["rm", "-r", "--yes", "/b"],
    &["ls"],
];

/// Commands, what they print, and how they end.
fn transcript(port: u16) -> Vec<String> {
    let run = |command: &&[&str]| {
        let output = rk(port, command).stdin(Stdio::null()).output().expect("it was built");
        let text = [output.stdout, output.stderr].concat();
        let text = normalised(&String::from_utf8_lossy(&text));
        format!("{command:?}: {:?}\n{text}", output.status.code())
    };
    TRANSCRIPT.iter().map(run).collect()
}

/// Numbers of more than nine digits or in hexadecimal are ids and times, which differ.
fn normalised(text: &str) -> String {
    let is_word = |c: char| c.is_ascii_alphanumeric() || "-:.".contains(c);
    let mut out = String::new();
    for word in text.split_inclusive(|c| !is_word(c)) {
        let bare = word.trim_end_matches(|c| !is_word(c));
        let lead = bare.len() - bare.trim_start_matches(':').len();
        let (lead, bare) = bare.split_at(lead);
        let is_time = bare.ends_with('Z') && bare.contains('T');
        let is_long = 10 < bare.len() && bare.bytes().all(|byte| byte.is_ascii_digit());
        let is_uuid = 36 < bare.len() && 4 < bare.matches('-').count();
        if bare.starts_with("0x") || is_time || is_long || is_uuid {
            out.push_str(lead);
            out.push('#');
            out.push_str(&word[lead.len() + bare.len()..]);
        } else {
            out.push_str(word);
        }
    }
    out
}

#[test]
fn rk_shows_on_apache_what_it_shows_here() {
    let settings = "extendedTypesEnabled=true";
    let server = Server::start(settings);
    let ours = transcript(server.port);
    clean(server);
    assert!(ours[0].ends_with("Some(0)\n/a\n"), "{}", ours[0]);
    let Some(jars) = apache::jars() else {
        return apache::skip("rk", "no java or no Apache ZooKeeper to compare with");
    };
    let apache = Apache::start(&jars, settings);
    for (ours, theirs) in ours.iter().zip(transcript(apache.port)) {
        assert_eq!(*ours, theirs, "ours left, Apache's right");
    }
}
