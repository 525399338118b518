//! Real processes: killed under load, stopped, misconfigured, started twice.

use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::process::Command;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::{Duration, Instant};

use super::client::{self, create, exists, get, list, set};
use super::peer::{self, Server, within};
use ringkeeper::model::{ErrorCode, Zxid};

/// How often the server is killed.
const KILLS: usize = 50;
const WRITERS: usize = 3;
/// Requests each writer keeps in flight.
const PIPELINE: usize = 16;

/// What is known of one writer's znode: the last value acknowledged and the last one sent.
#[derive(Clone, Copy, Debug, Default)]
struct Known {
    acknowledged: u64,
    sent: u64,
}

/// Writes ever larger numbers to one znode until the server dies.
fn write_until_killed(port: u16, path: &str, known: &Mutex<Known>) -> io::Result<()> {
    let mut client = client::connect(port)?;
    let mut in_flight = std::collections::VecDeque::new();
    loop {
        while in_flight.len() < PIPELINE {
            let value = {
                let mut known = known.lock().expect("no writer panics");
                known.sent += 1;
                known.sent
            };
            in_flight.push_back(value);
            client.send(&set(path, value.to_string().as_bytes()))?;
        }
        let reply = client.receive()?;
        assert_eq!(reply.header.code, ErrorCode::OK);
        let value = in_flight.pop_front().expect("a reply answers a request");
        known.lock().expect("no writer panics").acknowledged = value;
    }
}

#[test]
fn what_was_acknowledged_survives_fifty_kills() {
    // Small limits, so that segments roll and snapshots are taken while the server is killed.
    let mut server = Server::start("snapCount=3000\npreAllocSize=4096");
    let mut client = client::connect(server.port).expect("the server serves");
    let paths: Vec<String> = (0..WRITERS).map(|writer| format!("/writer-{writer}")).collect();
    for path in &paths {
        assert_eq!(client.code(&create(path, b"0", 0)), ErrorCode::OK);
    }
    let known: Vec<Arc<Mutex<Known>>> = paths.iter().map(|_| Arc::default()).collect();
    for round in 0..KILLS {
        let port = server.port;
        let acknowledged = |known: &Mutex<Known>| known.lock().expect("no panic").acknowledged;
        let before: Vec<u64> = known.iter().map(|known| acknowledged(known)).collect();
        let writers: Vec<_> = paths
            .iter()
            .zip(&known)
            .map(|(path, known)| {
                let (path, known) = (path.clone(), Arc::clone(known));
                thread::spawn(move || write_until_killed(port, &path, &known))
            })
            .collect();
        within("load", || {
            let mut pairs = known.iter().zip(&before);
            pairs.any(|(known, before)| *before < acknowledged(known)).then_some(())
        });
        thread::sleep(Duration::from_millis(7 * (round as u64 % 20)));
        let (home, port) = server.kill();
        for writer in writers {
            let ended = writer.join().expect("no writer panics");
            assert!(ended.is_err(), "writers end with their connection");
        }
        server = Server::start_in(home, port);
        let mut client = client::connect(port).expect("the server serves");
        for (path, known) in paths.iter().zip(&known) {
            let mut reply = client.call(&get(path, false)).expect("the server serves");
            assert_eq!(reply.header.code, ErrorCode::OK, "{path} is there");
            let data = reply.body.buffer("data").expect("it decodes").expect("it has data");
            let value: u64 = std::str::from_utf8(&data).expect("text").parse().expect("a number");
            let mut known = known.lock().expect("no writer panics");
            assert!(
                (known.acknowledged..=known.sent).contains(&value),
                "round {round}: {path} is {value}, known {known:?}"
            );
            known.acknowledged = value;
        }
    }
    let written: u64 = known.iter().map(|known| known.lock().expect("no panic").sent).sum();
    assert!(KILLS as u64 * 10 < written, "there was load: {written} writes");
    let (_, home, _) = server.stop();
    peer::clean(&home);
}

#[test]
fn a_planned_stop_keeps_everything_and_exits_with_0() {
    let server = Server::start("");
    let mut client = client::connect(server.port).expect("the server serves");
    let mut sent = BTreeMap::new();
    for number in 0..200 {
        let path = format!("/n{number}");
        sent.insert(client.send(&create(&path, b"x", 0)).expect("it is sent"), path);
    }
    let mut created = Vec::new();
    for _ in 0..200 {
        let reply = client.receive().expect("all are answered");
        assert_eq!(reply.header.code, ErrorCode::OK);
        created.push(sent.remove(&reply.header.xid).expect("an answer to a request"));
    }
    let (status, home, port) = server.stop();
    assert!(status.success(), "{status}");
    let server = Server::start_in(home.clone(), port);
    let mut client = client::connect(port).expect("the server serves");
    for path in created {
        assert_eq!(client.code(&exists(&path, false)), ErrorCode::OK, "{path}");
    }
    drop(server);
    peer::clean(&home);
}

#[test]
fn a_session_and_its_ephemerals_survive_a_kill_until_the_session_ends() {
    let server = Server::start("");
    let mut client = client::connect(server.port).expect("the server serves");
    assert_eq!(client.code(&create("/e", b"", 1)), ErrorCode::OK);
    let held = client.session.clone();
    let (home, port) = server.kill();
    let server = Server::start_in(home.clone(), port);
    let mut client = client::attach(port, held.session, held.password, Zxid(2)).expect("it serves");
    assert_eq!(client.session.session, held.session);
    assert_eq!(client.code(&exists("/e", false)), ErrorCode::OK);
    let close = ringkeeper::model::Request::Write(ringkeeper::model::WriteRequest::CloseSession);
    assert_eq!(client.code(&close), ErrorCode::OK);
    assert!(client.is_closed());
    let mut other = client::connect(port).expect("the server serves");
    assert_eq!(other.code(&exists("/e", false)), ErrorCode::NO_NODE);
    let refused = client::attach(port, held.session, held.password, Zxid::ZERO);
    assert_eq!(refused.expect("it is answered").session.timeout_ms, 0, "the session is over");
    drop(server);
    peer::clean(&home);
}

#[test]
fn snapshots_bound_the_log_and_are_recovered_from() {
    let server = Server::start("snapCount=500\npreAllocSize=4096");
    let mut client = client::connect(server.port).expect("the server serves");
    assert_eq!(client.code(&create("/a", &[b'x'; 2000], 0)), ErrorCode::OK);
    for _ in 0..60 {
        for _ in 0..100 {
            client.send(&set("/a", &[b'y'; 2000])).expect("it is sent");
        }
        for _ in 0..100 {
            assert_eq!(client.receive().expect("answered").header.code, ErrorCode::OK);
        }
    }
    let folder = server.home.join("data").join("ringkeeper");
    let names = || -> Vec<String> {
        let entries = fs::read_dir(&folder).expect("it is there");
        entries.map(|entry| entry.expect("readable").file_name().display().to_string()).collect()
    };
    // As many as autopurge.snapRetainCount, when nothing is being made or purged any more.
    within("three snapshots", || {
        let names = names();
        let count = names.iter().filter(|name| name.starts_with("snapshot.")).count();
        (count == 3 && !names.iter().any(|name| name.ends_with(".new"))).then_some(())
    });
    let (home, port) = server.kill();
    let server = Server::start_in(home.clone(), port);
    let mut client = client::connect(port).expect("the server serves");
    let mut reply = client.call(&get("/a", false)).expect("answered");
    assert_eq!(reply.body.buffer("data").expect("decodes").expect("data").as_ref(), [b'y'; 2000]);
    assert_eq!(reply.body.stat().expect("decodes").version, 6000);
    drop(server);
    peer::clean(&home);
}

#[test]
fn wrong_configurations_are_refused_with_file_line_and_key() {
    for (line, code, text) in [
        ("tickTime=0", 2, "zoo.cfg:8: tickTime: must not be 0"),
        ("secureClientPort=2281", 2, "zoo.cfg:8: secureClientPort: TLS is not built yet"),
        ("server.1=a:1:2\nserver.2=b:1:2", 2, "zoo.cfg: myid: "),
        ("dataDir=/proc/nowhere", 3, "/proc/nowhere"),
    ] {
        let home = peer::fresh_directory();
        peer::write_config(&home, peer::free_port(), line);
        let mut child = peer::spawn(&home.join("zoo.cfg"));
        let status = child.wait().expect("the child is ours");
        let log = fs::read_to_string(home.join("log")).expect("it has a log");
        assert_eq!(status.code(), Some(code), "{line}: {log}");
        assert!(log.contains(text), "{line}: {log}");
        peer::clean(&home);
    }
}

#[test]
fn a_second_server_finds_port_and_directory_taken() {
    let server = Server::start("");
    let home = peer::fresh_directory();
    peer::write_config(&home, server.port, "");
    let status = peer::spawn(&home.join("zoo.cfg")).wait().expect("the child is ours");
    let log = fs::read_to_string(home.join("log")).expect("it has a log");
    assert_eq!(status.code(), Some(1), "{log}");
    assert!(log.contains("another server has the port"), "{log}");
    peer::clean(&home);

    // The same directory: it waits, says who holds it, and goes on when the holder is gone.
    let port = peer::free_port();
    let config = server.home.join("second.cfg");
    let text = fs::read_to_string(server.home.join("zoo.cfg")).expect("it was written");
    let text = text.replace(&server.port.to_string(), &port.to_string());
    fs::write(&config, text).expect("the directory is writable");
    let mut second = peer::spawn(&config);
    let deadline = Instant::now() + Duration::from_secs(9);
    let holder = format!("is held by process {}", pid_of(&server));
    while !server.log().contains(&holder) {
        assert!(Instant::now() < deadline, "{}", server.log());
        thread::sleep(Duration::from_millis(20));
    }
    let (home, _) = server.kill();
    within("the second server to take over", || client::connect(port).ok());
    second.kill().expect("the child is ours");
    second.wait().expect("the child is ours");
    peer::clean(&home);
}

fn pid_of(server: &Server) -> String {
    let lock = server.home.join("data").join("ringkeeper").join("lock");
    fs::read_to_string(lock).expect("a running server has its lock")
}

#[test]
fn a_silent_client_delays_nobody() {
    let server = Server::start("");
    let stop = Arc::new(AtomicBool::new(false));
    let (port, stopping) = (server.port, Arc::clone(&stop));
    let mut client = client::connect_for_long(port).expect("the server serves");
    assert_eq!(client.code(&create("/big", &vec![b'x'; 500_000], 0)), ErrorCode::OK);
    // A client that asks for far more than it reads.
    let greedy = thread::spawn(move || {
        let mut greedy = client::connect_for_long(port).expect("the server serves");
        for _ in 0..200 {
            greedy.send(&get("/big", false)).expect("it is sent");
        }
        while !stopping.load(Ordering::Relaxed) {
            thread::sleep(Duration::from_millis(5));
        }
        for _ in 0..200 {
            assert_eq!(greedy.receive().expect("answered").header.code, ErrorCode::OK);
        }
    });
    for _ in 0..200 {
        assert_eq!(client.code(&list("/", false)), ErrorCode::OK);
        assert_eq!(client.code(&set("/big", b"y")), ErrorCode::OK);
    }
    stop.store(true, Ordering::Relaxed);
    greedy.join().expect("every request is answered in the end");
    let home = server.home.clone();
    drop(server);
    peer::clean(&home);
}

/// How many reads follow a write on another shard; `RINGKEEPER_READS` lengthens it.
const READS_BEHIND_WRITES: u64 = 10_000;

#[test]
fn a_read_on_another_shard_never_shows_the_past() {
    let server = Server::start("ringkeeper.shards=3");
    let rounds = std::env::var("RINGKEEPER_READS").ok();
    let rounds = rounds.and_then(|text| text.parse().ok()).unwrap_or(READS_BEHIND_WRITES);
    // One connection on each shard: each new one goes to the shard with the fewest.
    let mut clients: Vec<_> =
        (0..3).map(|_| client::connect_for_long(server.port).expect("it serves")).collect();
    assert_eq!(clients[0].code(&create("/a", b"0", 0)), ErrorCode::OK);
    for round in 1..=rounds {
        let writer = usize::try_from(round % 3).expect("it is small");
        let value = round.to_string();
        assert_eq!(clients[writer].code(&set("/a", value.as_bytes())), ErrorCode::OK);
        for reader in [(writer + 1) % 3, (writer + 2) % 3] {
            let mut reply = clients[reader].call(&get("/a", false)).expect("the server serves");
            let data = reply.body.buffer("data").expect("it decodes").expect("it has data");
            assert_eq!(data, value.as_bytes(), "round {round}, {writer} wrote, {reader} read");
        }
    }
    // The words count connections of all shards.
    assert!(server.word("srvr").contains("Connections: 4\n"), "{}", server.word("srvr"));
    let (status, home, _) = server.stop();
    assert!(status.success(), "{status}");
    peer::clean(&home);
}

#[test]
fn a_session_moves_between_shards() {
    let server = Server::start("ringkeeper.shards=4");
    let mut first = client::connect_for_long(server.port).expect("the server serves");
    let (session, password) = (first.session.session, first.session.password);
    assert_eq!(first.code(&create("/e", b"", 1)), ErrorCode::OK);
    for round in 0..40 {
        // Writes that are still queued when the session moves on.
        for number in 0..10 {
            first.send(&create(&format!("/r{round}-{number}"), b"", 0)).expect("it is sent");
        }
        let mut second =
            client::attach(server.port, session, password, Zxid::ZERO).expect("the server serves");
        assert_eq!(second.session.session, session, "round {round}");
        assert_eq!(second.code(&create(&format!("/s{round}"), b"", 0)), ErrorCode::OK);
        // Nothing of the old connection comes after this.
        let count = |client: &mut client::Client| {
            let mut reply = client.call(&list("/", false)).expect("the server serves");
            reply.body.i32("count").expect("it decodes")
        };
        let before = count(&mut second);
        thread::sleep(Duration::from_millis(5));
        assert_eq!(count(&mut second), before, "round {round}");
        assert_eq!(second.code(&exists("/e", false)), ErrorCode::OK);
        first = second;
    }
    let home = server.home.clone();
    drop(server);
    peer::clean(&home);
}

#[test]
fn help_and_version_are_told_and_no_errors() {
    for (flags, tells) in
        [(["--help", "-h"], "usage: ringkeeper [zoo.cfg]"), (["--version", "-V"], "ringkeeper 0.")]
    {
        for flag in flags {
            let mut command = Command::new(env!("CARGO_BIN_EXE_ringkeeper"));
            let output = command.arg(flag).output().expect("the program was built");
            let text = String::from_utf8_lossy(&output.stdout);
            assert!(output.status.success() && text.starts_with(tells), "{flag}: {output:?}");
            assert!(output.stderr.is_empty(), "{flag}: {output:?}");
        }
    }
}
