//! The read-only mode: the last of three servers goes on serving reads, beside Apache ZooKeeper's,
//! and everything when another one comes back.

use std::process::Command;
use std::thread;

use bytes::Bytes;
use ringkeeper::client::{Client, Hello};
use ringkeeper::model::request::{PathWatch, RawAcl, SetWatches};
use ringkeeper::model::{ErrorCode, Perms, ReadRequest, Request, WriteRequest, Zxid};

use super::apache::{self, Java};
use super::client::{self, create, delete, exists, get, list, set};
use super::clients;
use super::ensemble::{Ensemble, Program};
use super::peer::{self, within};

const SETTINGS: &str = "readonlymode.enabled=true\nlocalSessionsEnabled=true\n\
                        localSessionsUpgradingEnabled=true";

fn attach(port: u16, hello: &Hello) -> Option<Client> {
    Client::attach(("127.0.0.1", port), hello).ok()
}

/// A handshake of a client that only wants to read.
fn reader() -> Hello {
    Hello { read_only: true, ..Hello::default() }
}

fn writes() -> Vec<(&'static str, Request)> {
    let write = |request: WriteRequest| Request::Write(request);
    let open =
        RawAcl { perms: Perms::ALL, scheme: Some("world".into()), id: Some("anyone".into()) };
    let Request::Write(made) = create("/new", b"", 0) else { unreachable!("it is a write") };
    vec![
        ("create", create("/new", b"", 0)),
        ("create of an ephemeral", create("/new", b"", 1)),
        ("delete", delete("/a")),
        ("setData", set("/a", b"new")),
        (
            "setACL",
            write(WriteRequest::SetAcl { path: "/a".into(), acl: Some(vec![open]), version: -1 }),
        ),
        ("multi", write(WriteRequest::Multi(vec![made]))),
        ("sync", Request::Sync { path: "/a".into() }),
    ]
}

fn reads() -> Vec<(&'static str, Request)> {
    let target = |path: &str| PathWatch { path: path.into(), watch: true };
    vec![
        ("getData", get("/a", true)),
        ("getData of nothing", get("/none", false)),
        ("exists", exists("/none", true)),
        ("getChildren", list("/", true)),
        ("getChildren2", Request::Read(ReadRequest::GetChildren2(target("/")))),
        ("getACL", Request::Read(ReadRequest::GetAcl { path: "/a".into() })),
        ("getEphemerals", Request::Read(ReadRequest::GetEphemerals { prefix: None })),
        (
            "getAllChildrenNumber",
            Request::Read(ReadRequest::GetAllChildrenNumber { path: "/".into() }),
        ),
        ("addWatch", Request::Read(ReadRequest::AddWatch { path: "/a".into(), recursive: true })),
        (
            "setWatches",
            Request::Read(ReadRequest::SetWatches(SetWatches {
                relative_zxid: Zxid::ZERO,
                data: std::iter::once("/a").collect(),
                ..SetWatches::default()
            })),
        ),
        (
            "auth",
            Request::Auth { scheme: Some("digest".into()), auth: Some(Bytes::from_static(b"u:p")) },
        ),
        ("whoAmI", Request::WhoAmI),
        ("ping", Request::Ping),
    ]
}

/// What is told of a reply: the code, and the body if it holds neither zxids nor times, nor names
/// in any order.
fn shown(client: &mut Client, name: &str, request: &Request) -> String {
    let before = client.call(request);
    let Ok(mut reply) = before else { return format!("{name}: closed") };
    let rest = reply.body.remaining();
    let bytes = reply.body.take("rest", rest).unwrap_or_default();
    let has_stat = matches!(name, "getData" | "getACL" | "getChildren" | "getChildren2");
    let bytes = if has_stat { format!("{} bytes", bytes.len()) } else { format!("{bytes:?}") };
    format!("{name}: {:?} {bytes}", reply.header.code)
}

fn without_numbers(line: &str) -> String {
    let mut parts = line.split("0x");
    let mut plain = parts.next().unwrap_or_default().to_owned();
    for part in parts {
        plain += "0x";
        plain += part.trim_start_matches(|c: char| c.is_ascii_hexdigit());
    }
    plain.retain(|c| !c.is_ascii_digit());
    plain
}

/// Words without their numbers; those of the JVM are left out.
fn words(port: u16, home: &str) -> Vec<String> {
    let mut said = Vec::new();
    for word in ["isro", "ruok", "srvr", "stat", "dump", "wchs", "conf"] {
        let text = peer::word(port, word);
        let lines = text.lines().filter(|line| !line.contains("expire at"));
        let plain: Vec<String> = lines
            .map(|line| {
                let line = match line.split_once("ersion: ") {
                    Some((front, _)) => format!("{front}ersion"),
                    None => line.replace(home, "HOME"),
                };
                let line =
                    if line.starts_with("data") { line.split('=').next() } else { Some(&*line) };
                without_numbers(line.unwrap_or_default())
            })
            .map(|line: String| match line.starts_with("\tx") || line.starts_with(" /") {
                true => line.chars().take(2).collect(),
                false => line,
            })
            .collect();
        said.push(format!("{word}: {plain:#?}"));
    }
    let mntr = peer::word(port, "mntr");
    for key in [
        "server_state",
        "peer_state",
        "quorum_size",
        "znode_count",
        "watch_count",
        "local_sessions",
        "global_sessions",
        "num_alive_connections",
    ] {
        let value = mntr.lines().find_map(|line| line.strip_prefix(&format!("zk_{key}\t")));
        said.push(format!("mntr {key}: {value:?}"));
    }
    said
}

/// The life of the last server of three, which led if `led`.
fn transcript(program: &Program, led: bool) -> Vec<String> {
    let mut said = Vec::new();
    let mut ensemble = Ensemble::all(3, program, SETTINGS);
    ensemble.all_serve();
    let leader = ensemble.leader();
    let left = if led { leader } else { (1..=3).find(|sid| *sid != leader).expect("three") };
    let port = ensemble.ports[&left];
    let home = ensemble.home.display().to_string();
    let mut owner = client::connect_for_long(port).expect("it serves");
    for path in ["/a", "/a/b"] {
        assert_eq!(owner.code(&create(path, b"data", 0)), ErrorCode::OK);
    }
    assert_eq!(owner.code(&create("/e", b"mine", 1)), ErrorCode::OK);
    said.push(format!("isro of a server with a quorum: {}", peer::word(port, "isro")));
    let held = owner.session.clone();
    let mut plain = attach(port, &reader()).expect("it serves");
    said.push(format!("read-only: {}", plain.session.read_only));
    said.push(shown(&mut plain, "a write", &create("/by-reader", b"", 0)));
    let plain = plain.session;

    let others: Vec<i64> = (1..=3).filter(|sid| *sid != left).collect();
    others.iter().for_each(|sid| ensemble.kill(*sid));
    within("reads to be served", || (peer::word(port, "isro") == "ro").then_some(()));
    assert!(owner.is_closed());
    said.extend(words(port, &home));
    said.push(format!("a writer is let in: {}", attach(port, &Hello::default()).is_some()));
    let renewed = Hello { session: held.session, password: held.password, ..reader() };
    said.push(format!("a global session is let in: {}", attach(port, &renewed).is_some()));
    let ended = Hello { session: plain.session, password: plain.password, ..reader() };
    let timeout = attach(port, &ended).map(|it| (it.session.timeout_ms, it.session.read_only));
    said.push(format!("a local session of before: {timeout:?}"));

    let mut reading = attach(port, &reader()).expect("reads are served");
    let session = reading.session.clone();
    said.push(format!("read-only: {}, {} ms", session.read_only, session.timeout_ms));
    for (name, request) in reads().iter().chain(&writes()) {
        said.push(shown(&mut reading, name, request));
    }
    let zxids = [&set("/a", b""), &get("/a", false)]
        .map(|request| reading.call(request).map(|reply| reply.header.zxid).ok());
    said.push(format!("a refusal shows the last zxid: {}", zxids[0] == zxids[1]));
    said.extend(words(port, &home));
    let again = Hello { session: session.session, password: session.password, ..reader() };
    let mut reading = attach(port, &again).expect("reads are served");
    said.push(format!("renewed here: {}", reading.session.session == session.session));
    let mut second = attach(port, &reader()).expect("reads are served");
    said.push(shown(&mut second, "close", &Request::Write(WriteRequest::CloseSession)));
    said.push(format!("closed: {}", second.is_closed()));

    ensemble.start(others[0], program, SETTINGS);
    within("a quorum", || (peer::word(port, "isro") == "rw").then_some(()));
    said.push(format!("the reader's connection is closed: {}", reading.is_closed()));
    let timeout = attach(port, &again).map(|it| (it.session.timeout_ms, it.session.read_only));
    said.push(format!("the session of the reader: {timeout:?}"));
    let mut owner = within("the session to go on", || attach(port, &renewed));
    said.push(format!("the writer's session: {}", owner.session.session == held.session));
    said.push(format!("read-only: {}", owner.session.read_only));
    said.push(shown(&mut owner, "its ephemeral", &exists("/e", false)).chars().take(30).collect());
    said.push(shown(&mut owner, "a write", &create("/more", b"", 0)));
    said
}

#[test]
fn the_last_server_serves_what_apaches_does() {
    let test = "the_last_server_serves_what_apaches_does";
    let jars = apache::jars();
    for led in [false, true] {
        let (ours, theirs) = thread::scope(|scope| {
            let theirs = jars.as_ref().map(|jars| {
                let java = Java::new(jars).with("readonlymode.enabled", "true");
                scope.spawn(move || transcript(&Program::Apache(java), led))
            });
            let ours = transcript(&Program::Ours, led);
            (ours, theirs.map(|thread| thread.join().expect("it does not panic")))
        });
        let Some(theirs) = theirs else {
            return apache::skip(test, "no java or no Apache ZooKeeper to compare with");
        };
        apache::assert_same("ours", &ours, &theirs);
    }
}

/// An observer, and no local sessions: Apache's server answers such a handshake with what clients
/// do not understand.
#[test]
fn an_observer_serves_reads_without_local_sessions_too() {
    let settings = "readonlymode.enabled=true\nringkeeper.shards=2";
    let mut ensemble = Ensemble::new(4);
    ensemble.lines = format!("{}:observer\n", ensemble.lines.trim_end());
    for sid in 1..=4 {
        ensemble.start(sid, &Program::Ours, settings);
    }
    ensemble.all_serve();
    let port = ensemble.ports[&4];
    let mut client = client::connect(port).expect("it serves");
    assert_eq!(client.code(&create("/a", b"a", 0)), ErrorCode::OK);
    for sid in 1..=2 {
        ensemble.kill(sid);
    }
    for sid in 3..=4 {
        let port = ensemble.ports[&sid];
        within("reads to be served", || (peer::word(port, "isro") == "ro").then_some(()));
        assert!(client::connect(port).is_err(), "who wants to write is not let in");
        // On each shard.
        for _ in 0..2 {
            let mut client = attach(port, &reader()).expect("reads are served");
            assert!(client.session.read_only && client.session.timeout_ms != 0);
            assert_eq!(client.code(&get("/a", false)), ErrorCode::OK);
            assert_eq!(client.code(&set("/a", b"b")), ErrorCode::NOT_READ_ONLY);
        }
    }
    assert!(ensemble.stop(3), "a planned stop: {}", ensemble.log(3));
    ensemble.start(1, &Program::Ours, settings);
    ensemble.start(2, &Program::Ours, settings);
    within("the observer to follow", || (ensemble.mode(4) == "observer").then_some(()));
    let mut client = client::connect(port).expect("it serves");
    assert_eq!(client.code(&set("/a", b"b")), ErrorCode::OK);
    assert!(!client.session.read_only);
}

#[test]
fn without_the_key_nothing_is_read() {
    let mut ensemble = Ensemble::ours(2, "");
    ensemble.all_serve();
    ensemble.kill(1);
    let port = ensemble.ports[&2];
    within("the quorum to be lost", || (peer::word(port, "isro") == "null").then_some(()));
    thread::sleep(std::time::Duration::from_millis(2_500));
    assert!(attach(port, &reader()).is_none());
    assert_eq!(peer::word(port, "isro"), "null");
}

/// A client connects to what there is, is refused writes, and goes on with a quorum.
fn reads_and_then_writes(mut command: Command) {
    let mut ensemble = Ensemble::ours(3, "readonlymode.enabled=true");
    ensemble.all_serve();
    let mut client = client::connect(ensemble.ports[&1]).expect("it serves");
    assert_eq!(client.code(&create("/a", b"here", 0)), ErrorCode::OK);
    let (leader, home) = (ensemble.leader(), ensemble.home.clone());
    let left = (1..=3).find(|sid| *sid != leader).expect("there are three");
    let others: Vec<i64> = (1..=3).filter(|sid| *sid != left).collect();
    others.iter().for_each(|sid| ensemble.kill(*sid));
    let port = ensemble.ports[&left];
    within("reads to be served", || (peer::word(port, "isro") == "ro").then_some(()));
    let servers: Vec<String> =
        ensemble.ports.values().map(|port| format!("127.0.0.1:{port}")).collect();
    let told = home.join("reading");
    command.arg(servers.join(",")).arg(&told);
    let mut child = command.spawn().expect("it was found before");
    within("the client to have read", || told.exists().then_some(()));
    ensemble.start(others[0], &Program::Ours, "readonlymode.enabled=true");
    assert!(child.wait().expect("the child is ours").success(), "{}", ensemble.log(left));
    ensemble.all_show("/a", "there");
}

#[test]
fn kazoo_reads_and_then_writes() {
    let Some(python) = clients::python() else {
        return apache::skip("kazoo_reads_and_then_writes", "no python3 with kazoo");
    };
    let mut command = Command::new(python);
    command.arg(clients::script("kazoo_read_only.py"));
    reads_and_then_writes(command);
}

#[test]
fn a_java_client_reads_and_then_writes() {
    let Some(jars) = apache::jars() else {
        return apache::skip("a_java_client_reads_and_then_writes", "no java or no jars");
    };
    let mut command = Command::new("java");
    command.arg("-cp").arg(jars.join("*")).arg(clients::script("JavaReadOnly.java"));
    reads_and_then_writes(command);
}
