//! No session dies for the server's fault: real servers that are stopped, restarted, or not read.

use std::thread;
use std::time::Duration;

use super::client::{self, Client, create, exists, get};
use super::peer::{self, Server};
use ringkeeper::client::Hello;
use ringkeeper::model::{ErrorCode, Request, SessionId, Zxid};

const SETTINGS: &str = "tickTime=100\nringkeeper.shards=3";
/// Timeout of the sessions, ms.
const TIMEOUT_MS: i32 = 10_000;
/// Longer than that.
const STOPPED_FOR: Duration = Duration::from_secs(12);

fn connect(server: &Server, session: SessionId, password: [u8; 16]) -> Client {
    let hello = Hello { session, password, timeout_ms: TIMEOUT_MS, ..Hello::default() };
    let client = Client::attach(("127.0.0.1", server.port), &hello).expect("the server serves");
    assert_eq!(client.session.timeout_ms, TIMEOUT_MS, "the session lives");
    client
}

/// One session with an ephemeral on each shard.
fn sessions(server: &Server) -> Vec<Client> {
    let mut clients: Vec<Client> = (0..3).map(|_| connect(server, SessionId(0), [0; 16])).collect();
    for (number, client) in clients.iter_mut().enumerate() {
        assert_eq!(client.code(&create(&format!("/e{number}"), b"", 1)), ErrorCode::OK);
    }
    clients
}

#[test]
fn a_server_that_is_stopped_for_longer_than_a_timeout_keeps_its_sessions() {
    let server = Server::start(SETTINGS);
    let mut clients = sessions(&server);
    for _ in 0..2 {
        server.signal(libc::SIGSTOP);
        thread::sleep(STOPPED_FOR);
        server.signal(libc::SIGCONT);
        for (number, client) in clients.iter_mut().enumerate() {
            assert_eq!(client.code(&Request::Ping), ErrorCode::OK, "{}", server.log());
            assert_eq!(client.code(&exists(&format!("/e{number}"), false)), ErrorCode::OK);
        }
    }
    // Who stays silent on a server that runs is gone.
    let mut other = client::connect_for_long(server.port).expect("the server serves");
    for number in 0..3 {
        peer::within("a session to expire", || {
            let code = other.code(&exists(&format!("/e{number}"), false));
            (code == ErrorCode::NO_NODE).then_some(())
        });
    }
    let home = server.home.clone();
    drop(server);
    peer::clean(&home);
}

#[test]
fn a_restart_gives_every_session_its_whole_timeout() {
    let server = Server::start(SETTINGS);
    let held: Vec<_> = sessions(&server).iter().map(|client| client.session.clone()).collect();
    let (home, port) = server.kill();
    thread::sleep(STOPPED_FOR);
    let server = Server::start_in(home, port);
    thread::sleep(Duration::from_millis(300));
    for (number, held) in held.iter().enumerate() {
        let mut client = connect(&server, held.session, held.password);
        assert_eq!(client.session.session, held.session);
        assert_eq!(client.code(&exists(&format!("/e{number}"), false)), ErrorCode::OK);
    }
    let refused = client::attach(server.port, SessionId(7), [0; 16], Zxid::ZERO);
    assert_eq!(refused.expect("it is answered").session.timeout_ms, 0);
    let home = server.home.clone();
    drop(server);
    peer::clean(&home);
}

/// A server of one shard with a large znode, and how many descriptors it has open.
fn with_large_znode() -> (Server, usize) {
    let server = Server::start("tickTime=100\nmaxSessionTimeout=600000\nringkeeper.shards=1");
    let mut client = connect(&server, SessionId(0), [0; 16]);
    assert_eq!(client.code(&create("/large", &[b'x'; 900_000], 0)), ErrorCode::OK);
    drop(client);
    let connections = |server: &Server| server.word("srvr").contains("Connections: 1\n");
    peer::within("the client to be gone", || connections(&server).then_some(()));
    // The last word's connection, and files that are being made, have some for a while.
    let looks = (0..20).map(|_| {
        thread::sleep(Duration::from_millis(100));
        descriptors(&server)
    });
    let idle = looks.min().expect("it was looked");
    (server, idle)
}

fn descriptors(server: &Server) -> usize {
    let path = format!("/proc/{}/fd", server.pid());
    std::fs::read_dir(path).map_or(0, Iterator::count)
}

/// A client that is read no more, since it takes no replies, ends: that is noticed at once.
#[test]
fn who_ends_with_replies_that_it_did_not_take_leaves_nothing() {
    let (server, idle) = with_large_znode();
    let mut client = client::connect_for_long(server.port).expect("the server serves");
    for _ in 0..30 {
        client.send(&get("/large", false)).expect("the server serves");
    }
    // The ping behind them is not read any more.
    thread::sleep(Duration::from_millis(500));
    client.send(&Request::Ping).expect("the server serves");
    thread::sleep(Duration::from_millis(200));
    drop(client);
    peer::within("its descriptors to be closed", || (descriptors(&server) <= idle).then_some(()));
    let home = server.home.clone();
    drop(server);
    peer::clean(&home);
}

/// A client that closes its sending half and reads nothing is not waited for.
#[test]
fn who_closes_its_sending_half_and_takes_no_replies_leaves_nothing() {
    let (server, idle) = with_large_znode();
    let connect = |_| client::connect_for_long(server.port).expect("the server serves");
    let mut clients: Vec<Client> = (0..5).map(connect).collect();
    for client in &mut clients {
        for _ in 0..8 {
            client.send(&get("/large", false)).expect("the server serves");
        }
    }
    thread::sleep(Duration::from_millis(500));
    clients.iter().for_each(|client| client.end_sending().expect("it is open"));
    peer::within("the descriptors to be closed", || (descriptors(&server) <= idle).then_some(()));
    let home = server.home.clone();
    drop((clients, server));
    peer::clean(&home);
}
