//! No session dies for the server's fault: real servers that are stopped, restarted, or not read.

use std::thread;
use std::time::Duration;

use super::client::{self, Client, create, exists};
use super::peer::{self, Server};
use ringkeeper::client::Hello;
use ringkeeper::model::{ErrorCode, Request, SessionId, Zxid};

const SETTINGS: &str = "tickTime=100\nringkeeper.shards=3";
/// Timeout of the sessions, ms.
const TIMEOUT_MS: i32 = 1_500;

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

fn signal(server: &Server, signal: i32) {
    let pid = i32::try_from(server.pid()).expect("process ids are positive");
    // SAFETY: signals a child that has not been waited for.
    assert_eq!(unsafe { libc::kill(pid, signal) }, 0);
}

#[test]
fn a_server_that_is_stopped_for_longer_than_a_timeout_keeps_its_sessions() {
    let server = Server::start(SETTINGS);
    let mut clients = sessions(&server);
    for _ in 0..2 {
        signal(&server, libc::SIGSTOP);
        thread::sleep(Duration::from_millis(3_500));
        signal(&server, libc::SIGCONT);
        for (number, client) in clients.iter_mut().enumerate() {
            assert_eq!(client.code(&Request::Ping), ErrorCode::OK, "{}", server.log());
            assert_eq!(client.code(&exists(&format!("/e{number}"), false)), ErrorCode::OK);
        }
    }
    // Who stays silent on a server that runs is gone.
    thread::sleep(Duration::from_millis(4_000));
    let mut other = client::connect(server.port).expect("the server serves");
    for number in 0..3 {
        let code = other.code(&exists(&format!("/e{number}"), false));
        assert_eq!(code, ErrorCode::NO_NODE, "{}", server.log());
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
    thread::sleep(Duration::from_millis(3_500));
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
