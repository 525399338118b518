//! Limits that operators set, on real servers: what is counted, what is refused, what the log says.

use std::fs;
use std::thread;
use std::time::{Duration, Instant};

use super::client::{self, Client, create, get, set};
use super::ensemble::{Ensemble, Program};
use super::peer::{self, Server, WITHIN, within};
use ringkeeper::limits::CONN_IDENTITIES_MAX;
use ringkeeper::model::{ErrorCode, Request, WriteRequest};

fn end(server: Server) {
    let home = server.home.clone();
    drop(server);
    peer::clean(&home);
}

/// Connects once those that came before are counted out.
fn connect(server: &Server) -> Client {
    let deadline = Instant::now() + WITHIN;
    loop {
        match client::connect(server.port) {
            Ok(client) => return client,
            Err(error) => assert!(Instant::now() < deadline, "{error}"),
        }
        thread::sleep(Duration::from_millis(10));
    }
}

/// Waits for a line of the log.
fn wait_for_log(server: &Server, text: &str) {
    let deadline = Instant::now() + WITHIN;
    while !server.log().contains(text) {
        assert!(Instant::now() < deadline, "no {text:?} in {}", server.log());
        thread::sleep(Duration::from_millis(10));
    }
}

/// The value of a key that `mntr` prints.
fn mntr(server: &Server, key: &str) -> String {
    let text = server.word("mntr");
    let line = text.lines().find_map(|line| line.strip_prefix(key)?.strip_prefix('\t'));
    line.unwrap_or_else(|| panic!("no {key} in {text}")).to_owned()
}

#[test]
fn a_connection_proves_so_many_identities_and_no_more() {
    let server = Server::start("");
    let mut client = connect(&server);
    let auth = |user: usize| {
        let auth = Some(format!("user{user}:secret").into_bytes().into());
        Request::Auth { scheme: Some("digest".into()), auth }
    };
    // The address is one.
    for user in 1..CONN_IDENTITIES_MAX {
        assert_eq!(client.code(&auth(user)), ErrorCode::OK, "{user}");
    }
    assert_eq!(client.code(&auth(1)), ErrorCode::OK);
    assert_eq!(client.code(&create("/a", b"", 0)), ErrorCode::OK);
    assert_eq!(client.code(&auth(CONN_IDENTITIES_MAX)), ErrorCode::AUTH_FAILED);
    assert!(client.is_closed());
    wait_for_log(&server, "closed: a connection may prove 1024 identities");
    let mut other = connect(&server);
    assert_eq!(other.code(&auth(0)), ErrorCode::OK);
    end(server);
}

#[test]
fn connections_over_a_limit_are_closed_with_apaches_words() {
    let server = Server::start("maxClientCnxns=2");
    let held = [connect(&server), connect(&server)];
    assert!(client::connect(server.port).is_err());
    wait_for_log(&server, "Too many connections from /127.0.0.1 - max is 2");
    drop(held);
    connect(&server);
    end(server);
    let server = Server::start("maxCnxns=1");
    let _held = connect(&server);
    assert!(client::connect(server.port).is_err());
    wait_for_log(&server, "Too many connections max allowed is 1");
    end(server);
}

#[test]
fn slow_flushes_are_warned_about_and_counted() {
    let server = Server::start("fsync.warningthresholdms=0");
    let mut client = client::connect(server.port).expect("the server serves");
    assert_eq!(client.code(&create("/a", b"", 0)), ErrorCode::OK);
    wait_for_log(&server, "fsync-ing the write ahead log in ");
    wait_for_log(&server, "ms which will adversely effect operation latency. File size is ");
    assert_ne!(mntr(&server, "zk_fsync_threshold_exceed_count"), "0");
    end(server);
    let server = Server::start("fsync.warningthresholdms=100000");
    let mut client = client::connect(server.port).expect("the server serves");
    assert_eq!(client.code(&create("/a", b"", 0)), ErrorCode::OK);
    assert_eq!(mntr(&server, "zk_fsync_threshold_exceed_count"), "0");
    end(server);
}

#[test]
fn a_request_that_is_too_long_is_answered_and_the_connection_stays() {
    let server = Server::start("ringkeeper.shards=2");
    let mut clients = [connect(&server), connect(&server)];
    for (number, client) in clients.iter_mut().enumerate() {
        let path = format!("/big{number}");
        assert_eq!(
            client.code(&create(&path, &vec![b'x'; 2_000_000], 0)),
            ErrorCode::BAD_ARGUMENTS
        );
        assert_eq!(client.code(&create(&path, b"small", 0)), ErrorCode::OK);
        let words = format!("path={path} size=2000");
        wait_for_log(&server, &words);
        wait_for_log(&server, "limit=1048575");
    }
    let [mut client, _] = clients;
    client.send_raw(&(17_u32 << 20).to_be_bytes()).expect("it is sent");
    assert!(client.is_closed(), "there is an end to it");
    end(server);
}

/// Creates so many ephemerals, ends their session, and starts the server again.
fn close_with_ephemerals(server: Server, count: usize, name_bytes: usize) -> Server {
    let mut client = client::connect_for_long(server.port).expect("the server serves");
    let mut answered = 0;
    for number in 0..count {
        let path = format!("/e{number:0>name_bytes$}");
        client.send(&create(&path, b"", 1)).expect("it is sent");
        while answered + 500 < number {
            assert_eq!(client.receive().expect("answered").header.code, ErrorCode::OK);
            answered += 1;
        }
    }
    while answered < count {
        assert_eq!(client.receive().expect("answered").header.code, ErrorCode::OK);
        answered += 1;
    }
    assert_eq!(mntr(&server, "zk_ephemerals_count"), count.to_string());
    let close = Request::Write(WriteRequest::CloseSession);
    assert_eq!(client.code(&close), ErrorCode::OK);
    let counts =
        |server: &Server| (mntr(server, "zk_ephemerals_count"), mntr(server, "zk_znode_count"));
    let before = counts(&server);
    assert_eq!(before.0, "0");
    let (home, port) = server.kill();
    let server = Server::start_in(home, port);
    assert_eq!(counts(&server), before);
    let mut client = client::connect_for_long(server.port).expect("the server serves");
    assert_eq!(client.code(&create(&format!("/after-{count}"), b"", 0)), ErrorCode::OK);
    server
}

#[test]
fn a_session_with_very_many_ephemerals_ends_and_the_server_starts_again() {
    // Paths of a million bytes are listed in the txn, those of 2.6 million are not.
    let server = close_with_ephemerals(Server::start(""), 20_000, 50);
    end(close_with_ephemerals(server, 100_000, 21));
}

/// Every server shows the same long value at a path.
fn all_show_long(ensemble: &Ensemble, path: &str, value: &[u8]) {
    ensemble.all_serve();
    for (sid, port) in &ensemble.ports {
        within(&format!("server {sid} to show {path} ({})", ensemble.log(*sid)), || {
            let mut reply = client::connect(*port).ok()?.call(&get(path, false)).ok()?;
            let data = reply.body.buffer("data").ok()??;
            (data.as_ref() == value).then_some(())
        });
    }
}

/// Waits for the leader's log to tell, behind so many bytes, how a learner was synchronized.
fn synchronized(ensemble: &Ensemble, before: usize, way: &str) {
    within(&format!("a learner to be synchronized by {way}"), || {
        let log = leaders_log(ensemble).split_off(before);
        let mut lines = log.lines().filter(|line| line.contains("a learner is synchronized"));
        lines.any(|line| line.contains(way)).then_some(())
    });
}

fn leaders_log(ensemble: &Ensemble) -> String {
    let home = ensemble.home.join(ensemble.leader().to_string());
    fs::read_to_string(home.join("log")).expect("it was written")
}

/// What `jute.maxbuffer` lets in passes between the servers in every way: as a request and a
/// proposal, in what a server lacks, in a snapshot, and from disk. The longest value is longer than
/// the first segment of a log.
#[test]
fn long_values_that_the_settings_allow_reach_every_server() {
    let extra = "jute.maxbuffer=8388608";
    let mut ensemble = Ensemble::ours(3, extra);
    ensemble.all_serve();
    let leader = ensemble.leader();
    let follower = leader % 3 + 1;
    let behind = follower % 3 + 1;
    let mut clients = [leader, follower]
        .map(|sid| client::connect_for_long(ensemble.ports[&sid]).expect("it serves"));
    let (short, long) = (vec![b's'; 3 << 20], vec![b'l'; 7 << 20]);
    for (client, path) in clients.iter_mut().zip(["/leader", "/follower"]) {
        assert_eq!(client.code(&create(path, &short, 0)), ErrorCode::OK, "{path}");
        all_show_long(&ensemble, path, &short);
    }
    let [client, _] = &mut clients;
    ensemble.kill(behind);
    assert_eq!(client.code(&create("/behind", &long, 0)), ErrorCode::OK);
    let before = leaders_log(&ensemble).len();
    ensemble.run(behind, &Program::Ours);
    all_show_long(&ensemble, "/behind", &long);
    synchronized(&ensemble, before, "way=Diff");
    ensemble.kill(behind);
    fs::remove_dir_all(ensemble.home.join(behind.to_string())).expect("it is ours");
    // So many that a snapshot is less.
    for _ in 0..2 {
        assert_eq!(client.code(&set("/behind", &long)), ErrorCode::OK);
    }
    let before = leaders_log(&ensemble).len();
    ensemble.start(behind, &Program::Ours, extra);
    all_show_long(&ensemble, "/behind", &long);
    synchronized(&ensemble, before, "way=Snap");
    (1..=3).for_each(|sid| ensemble.kill(sid));
    (1..=3).for_each(|sid| ensemble.run(sid, &Program::Ours));
    for (path, value) in [("/leader", &short), ("/follower", &short), ("/behind", &long)] {
        all_show_long(&ensemble, path, value);
    }
}
