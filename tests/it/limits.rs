//! Limits that operators set, on real servers: what is counted, what is refused, what the log says.

use std::thread;
use std::time::{Duration, Instant};

use super::client::{self, Client, create};
use super::peer::{self, Server};
use ringkeeper::model::ErrorCode;

fn end(server: Server) {
    let home = server.home.clone();
    drop(server);
    peer::clean(&home);
}

/// Connects once those that came before are counted out.
fn connect(server: &Server) -> Client {
    let deadline = Instant::now() + Duration::from_secs(20);
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
    let deadline = Instant::now() + Duration::from_secs(20);
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
