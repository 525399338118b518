//! A server on several shards: events come before what they tell of on every shard, storms of
//! handshakes leave every session with one connection, and a busy shard keeps nobody else waiting.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Barrier};
use std::thread;
use std::time::{Duration, Instant};

use super::client::{self, Client, Hello, create, delete, exists, get, list, set};
use super::peer::{self, Server};
use ringkeeper::client::Reply;
use ringkeeper::model::{ErrorCode, Xid};
use ringkeeper::wire::client::decode_event;

/// Changes in the test of events.
const CHANGES: u64 = 300;

/// The next reply; paths of events that come before it are put into `told`.
fn next_reply(client: &mut Client, told: &mut Vec<String>) -> Reply {
    loop {
        let mut reply = client.receive().expect("the server serves");
        if reply.header.xid != Xid::NOTIFICATION {
            return reply;
        }
        let event = decode_event(&mut reply.body).expect("it decodes");
        told.push(event.path.to_string());
    }
}

#[test]
fn an_event_comes_before_the_changed_data_on_every_shard() {
    let server = Server::start("ringkeeper.shards=3");
    let mut clients: Vec<Client> =
        (0..3).map(|_| client::connect_for_long(server.port).expect("it serves")).collect();
    assert_eq!(clients[0].code(&create("/a", b"0", 0)), ErrorCode::OK);
    let mut early = 0;
    for change in 1..=CHANGES {
        let value = change.to_string();
        for client in &mut clients {
            client.send(&get("/a", true)).expect("it is sent");
            assert_eq!(next_reply(client, &mut Vec::new()).header.code, ErrorCode::OK);
        }
        let writer = usize::try_from(change % 3).expect("it is small");
        clients[writer].send(&set("/a", value.as_bytes())).expect("it is sent");
        // The others ask while the write is under way: old data, or the event and then new data.
        for (number, client) in clients.iter_mut().enumerate() {
            let mut told = Vec::new();
            if number == writer {
                assert_eq!(next_reply(client, &mut told).header.code, ErrorCode::OK);
            }
            loop {
                client.send(&get("/a", false)).expect("it is sent");
                let mut reply = next_reply(client, &mut told);
                let data = reply.body.buffer("data").expect("it decodes").expect("it has data");
                if data == value.as_bytes() {
                    break;
                }
                assert!(
                    told.is_empty(),
                    "change {change}, client {number}: an event, then the past"
                );
                early += 1;
            }
            assert_eq!(told, ["/a"], "change {change}, client {number}");
        }
    }
    println!("{early} reads came before the event");
    let home = server.home.clone();
    drop(server);
    peer::clean(&home);
}

/// Threads and rounds of a storm: each round of a thread is a handshake and a move.
const STORM_THREADS: usize = 32;
const STORM_ROUNDS: usize = 40;

#[test]
fn a_storm_of_handshakes_leaves_every_session_with_its_last_connection() {
    let server = Server::start("ringkeeper.shards=4\nmaxClientCnxns=0");
    let port = server.port;
    let start = Arc::new(Barrier::new(STORM_THREADS));
    let threads: Vec<_> = (0..STORM_THREADS)
        .map(|number| {
            let start = Arc::clone(&start);
            thread::spawn(move || {
                start.wait();
                let mut client = client::connect_for_long(port).expect("the server serves");
                let (session, password) = (client.session.session, client.session.password);
                let hello = Hello { session, password, timeout_ms: 600_000, ..Hello::default() };
                let path = format!("/storm-{number}");
                assert_eq!(client.code(&create(&path, b"", 1)), ErrorCode::OK);
                for round in 0..STORM_ROUNDS {
                    // Still queued when the session moves on.
                    for _ in 0..3 {
                        client.send(&set(&path, b"x")).expect("it is sent");
                    }
                    let mut next = Client::attach(("127.0.0.1", port), &hello).expect("it serves");
                    assert_eq!(next.session.session, session, "round {round}");
                    assert_eq!(next.code(&exists(&path, false)), ErrorCode::OK);
                    client = next;
                }
                client
            })
        })
        .collect();
    let mut clients: Vec<Client> =
        threads.into_iter().map(|thread| thread.join().expect("it ends well")).collect();
    for (number, client) in clients.iter_mut().enumerate() {
        assert_eq!(client.code(&set(&format!("/storm-{number}"), b"y")), ErrorCode::OK);
    }
    // Connections that lost their session go by themselves.
    let alive = format!("Connections: {}\n", STORM_THREADS + 1);
    let deadline = Instant::now() + Duration::from_secs(300);
    while !server.word("srvr").contains(&alive) {
        assert!(Instant::now() < deadline, "{}", server.word("srvr"));
        thread::sleep(Duration::from_millis(20));
    }
    drop(clients);
    let home = server.home.clone();
    drop(server);
    peer::clean(&home);
}

/// The timeout of the sessions on the other shards, which are not busy.
const SHORT_MS: i32 = 8_000;
/// How long one shard is kept busy: longer than those.
const BUSY_FOR: Duration = Duration::from_secs(20);

#[test]
fn a_busy_shard_costs_nobody_on_other_shards_the_session() {
    let server = Server::start("ringkeeper.shards=3\ntickTime=1000");
    let port = server.port;
    // One after the other, so that each is on a shard of its own.
    let mut busy = client::connect_for_long(port).expect("the server serves");
    assert_eq!(busy.code(&create("/big", b"", 0)), ErrorCode::OK);
    for number in 0..20_000 {
        busy.send(&create(&format!("/big/n{number:06}"), b"", 0)).expect("it is sent");
        if number % 100 == 99 {
            for _ in 0..100 {
                assert_eq!(busy.receive().expect("answered").header.code, ErrorCode::OK);
            }
        }
    }
    let mut others: Vec<Client> = (0..2)
        .map(|_| {
            let hello = Hello { timeout_ms: SHORT_MS, ..Hello::default() };
            Client::attach(("127.0.0.1", port), &hello).expect("the server serves")
        })
        .collect();
    for (number, other) in others.iter_mut().enumerate() {
        assert_eq!(other.session.timeout_ms, SHORT_MS);
        assert_eq!(other.code(&create(&format!("/e{number}"), b"", 1)), ErrorCode::OK);
    }
    let stop = Arc::new(AtomicBool::new(false));
    let stopping = Arc::clone(&stop);
    let flood = thread::spawn(move || {
        let mut lists = 0;
        while !stopping.load(Ordering::Relaxed) {
            for _ in 0..16 {
                busy.send(&list("/big", false)).expect("it is sent");
            }
            for _ in 0..16 {
                let mut reply = busy.receive().expect("answered");
                assert_eq!(reply.body.i32("count").expect("it decodes"), 20_000);
                lists += 1;
            }
        }
        (busy, lists)
    });
    let until = Instant::now() + BUSY_FOR;
    while Instant::now() < until {
        for other in &mut others {
            other.call(&ringkeeper::model::Request::Ping).expect("its shard answers");
        }
        thread::sleep(Duration::from_millis(300));
    }
    for (number, other) in others.iter_mut().enumerate() {
        assert_eq!(other.code(&delete(&format!("/e{number}"))), ErrorCode::OK);
    }
    stop.store(true, Ordering::Relaxed);
    let (mut busy, lists) = flood.join().expect("it ends well");
    println!("{lists} lists of 20,000 children");
    assert_eq!(busy.code(&exists("/big", false)), ErrorCode::OK);
    let home = server.home.clone();
    drop(server);
    peer::clean(&home);
}
