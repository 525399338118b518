//! Sessions against a scripted peer: refusals, broken connections, replies out of turn.

use std::io::Write;
use std::net::{TcpListener, TcpStream};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use bytes::{Bytes, BytesMut};

use super::*;
use crate::client::{read_frame, requests};
use crate::model::{EventType, ReadRequest};
use crate::wire::connect::{ConnectRequest, ConnectResponse};
use crate::wire::{request, response};

/// Nothing takes longer unless it is broken.
const PATIENCE: Duration = Duration::from_secs(20);

/// The server's end of one connection.
struct Peer(TcpStream);

impl Peer {
    fn accept(listener: &TcpListener) -> (Self, ConnectRequest) {
        let (mut stream, _) = listener.accept().expect("the session connects");
        let frame = read_frame(&mut stream).expect("a handshake comes");
        (Self(stream), ConnectRequest::decode(&frame).expect("it is one"))
    }

    fn greet(&mut self, session: i64, timeout_ms: i32) {
        let response = ConnectResponse {
            timeout_ms,
            session: SessionId(session),
            password: [7; 16],
            read_only: false,
            has_read_only: true,
        };
        self.send(|buf| response.encode(buf));
    }

    fn send(&mut self, encode: impl FnOnce(&mut BytesMut)) {
        let mut buf = BytesMut::new();
        encode(&mut buf);
        self.0.write_all(&buf).expect("the session reads");
    }

    /// The next request that is no ping.
    fn request(&mut self) -> (Xid, Request) {
        loop {
            let frame = read_frame(&mut self.0).expect("a request comes");
            let frame = request::decode(&frame).expect("it has a header");
            match frame.request.expect("it decodes") {
                Request::Ping => {
                    self.send(|buf| {
                        response::reply(buf, Xid::PING, Zxid(1), ErrorCode::OK, |_| ());
                    });
                }
                request => return (frame.xid, request),
            }
        }
    }

    fn reply(&mut self, xid: Xid, code: ErrorCode) {
        self.send(|buf| response::reply(buf, xid, Zxid(9), code, |_| ()));
    }
}

/// A session, and a thread that plays the server.
fn play(
    auth: Vec<(Str, Bytes)>,
    script: impl FnOnce(&TcpListener) + Send + 'static,
) -> (Session, Receiver<SessionEvent>, JoinHandle<()>) {
    let listener = TcpListener::bind("127.0.0.1:0").expect("loopback is there");
    let servers = listener.local_addr().expect("it is bound").to_string();
    let peer = std::thread::spawn(move || script(&listener));
    let options = SessionOptions {
        servers: servers.parse().expect("an address"),
        timeout: Duration::from_secs(10),
        auth,
        patient: true,
    };
    let (session, events) = Session::open(options);
    (session, events, peer)
}

fn deadline() -> Instant {
    Instant::now() + PATIENCE
}

#[test]
fn a_session_is_renewed_with_identities_and_watches() {
    let auth = vec![("digest".into(), Bytes::from_static(b"a:b"))];
    let (session, events, peer) = play(auth, |listener| {
        let (mut peer, hello) = Peer::accept(listener);
        assert_eq!((hello.session, hello.last_zxid_seen), (SessionId(0), Zxid::ZERO));
        peer.greet(5, 10_000);
        assert!(matches!(peer.request(), (Xid(-4), Request::Auth { .. })));
        peer.reply(Xid(-4), ErrorCode::OK);
        let (xid, _) = peer.request();
        peer.reply(xid, ErrorCode::NO_NODE);
        // A request is on its way when the connection breaks.
        let (_, request) = peer.request();
        assert_eq!(request, requests::delete("/b"));
        drop(peer);

        let (mut peer, hello) = Peer::accept(listener);
        assert_eq!((hello.session, hello.last_zxid_seen), (SessionId(5), Zxid(9)));
        assert_eq!(hello.password.as_deref(), Some(&[7; 16][..]));
        peer.greet(5, 10_000);
        assert!(matches!(peer.request(), (Xid(-4), Request::Auth { .. })));
        peer.reply(Xid(-4), ErrorCode::OK);
        let (xid, Request::Read(ReadRequest::SetWatches(set))) = peer.request() else {
            panic!("watches before requests")
        };
        assert_eq!((xid, set.relative_zxid), (Xid(-8), Zxid(9)));
        assert!(set.exist.eq(["/a"]));
        peer.send(|buf| {
            let event = WatchEvent { event_type: EventType::NodeCreated, path: "/a".into() };
            response::event(buf, Zxid(-1), &event);
        });
        peer.reply(Xid(-8), ErrorCode::OK);
        let (xid, _) = peer.request();
        peer.reply(xid, ErrorCode::OK);
    });
    let missing = session.call(&requests::exists("/a", true), deadline());
    assert_eq!(missing.err(), Some(CallError::Refused(ErrorCode::NO_NODE)));
    let lost = session.call(&requests::delete("/b"), deadline());
    assert_eq!(lost.err(), Some(CallError::Lost));
    assert!(session.call(&requests::delete("/c"), deadline()).is_ok());
    let kinds: Vec<&str> = std::iter::from_fn(|| events.recv_timeout(PATIENCE).ok())
        .take(4)
        .map(|event| match event {
            SessionEvent::Connected { renewed: false, .. } => "connected",
            SessionEvent::Connected { renewed: true, .. } => "renewed",
            SessionEvent::Disconnected { .. } => "disconnected",
            SessionEvent::Watch { .. } => "watch",
            _ => "other",
        })
        .collect();
    assert_eq!(kinds, ["connected", "disconnected", "renewed", "watch"]);
    peer.join().expect("the script ran to its end");
}

#[test]
fn an_expired_session_ends() {
    let (session, events, peer) = play(Vec::new(), |listener| {
        let (mut peer, _) = Peer::accept(listener);
        peer.greet(5, 10_000);
        drop(peer);
        let (mut peer, _) = Peer::accept(listener);
        peer.greet(0, 0);
    });
    let ended = events.iter().find(|event| *event == SessionEvent::Expired);
    assert!(ended.is_some());
    let refused = session.call(&requests::delete("/a"), deadline());
    assert_eq!(refused.err(), Some(CallError::Expired));
    assert_eq!(session.phase(), Phase::Expired);
    peer.join().expect("the script ran to its end");
}

#[test]
fn refused_identities_end_a_session() {
    let auth = vec![("x".into(), Bytes::new())];
    let (session, _, peer) = play(auth, |listener| {
        let (mut peer, _) = Peer::accept(listener);
        peer.greet(5, 10_000);
        let (xid, _) = peer.request();
        peer.reply(xid, ErrorCode::AUTH_FAILED);
    });
    while session.phase() != Phase::AuthFailed {
        std::thread::yield_now();
    }
    let refused = session.call(&requests::delete("/a"), deadline());
    assert_eq!(refused.err(), Some(CallError::AuthFailed));
    peer.join().expect("the script ran to its end");
}

#[test]
fn a_reply_out_of_turn_breaks_the_connection() {
    let (session, _, peer) = play(Vec::new(), |listener| {
        let (mut peer, _) = Peer::accept(listener);
        peer.greet(5, 10_000);
        let (xid, _) = peer.request();
        peer.reply(Xid(xid.0 + 1), ErrorCode::OK);
        let (mut peer, _) = Peer::accept(listener);
        peer.greet(5, 10_000);
        let (xid, _) = peer.request();
        peer.reply(xid, ErrorCode::OK);
    });
    let lost = session.call(&requests::delete("/a"), deadline());
    assert_eq!(lost.err(), Some(CallError::Lost));
    assert!(session.call(&requests::delete("/b"), deadline()).is_ok());
    peer.join().expect("the script ran to its end");
}

#[test]
fn a_silent_server_is_left() {
    let (session, events, peer) = play(Vec::new(), |listener| {
        let (mut silent, _) = Peer::accept(listener);
        silent.greet(5, 300);
        let (mut peer, hello) = Peer::accept(listener);
        assert_eq!(hello.session, SessionId(5));
        peer.greet(5, 10_000);
        let (xid, _) = peer.request();
        peer.reply(xid, ErrorCode::OK);
        drop(silent);
    });
    let why = events.iter().find_map(|event| match event {
        SessionEvent::Disconnected { why } => Some(why),
        _ => None,
    });
    assert!(why.is_some_and(|why| why.contains("nothing heard for 200 ms")));
    assert!(session.call(&requests::delete("/a"), deadline()).is_ok());
    peer.join().expect("the script ran to its end");
}

#[test]
fn a_call_ends_at_its_deadline() {
    let (done, wait) = mpsc::channel::<()>();
    let (session, _, peer) = play(Vec::new(), move |listener| {
        let (mut peer, _) = Peer::accept(listener);
        peer.greet(5, 10_000);
        let (_, request) = peer.request();
        assert_eq!(request, requests::delete("/a"));
        let _told = wait.recv();
    });
    session.wait_connected(deadline()).expect("the peer greets");
    let late = session.call(&requests::delete("/a"), Instant::now() + Duration::from_secs(2));
    assert_eq!(late.err(), Some(CallError::TimedOut));
    drop(done);
    peer.join().expect("the script ran to its end");
}

#[test]
fn nobody_there_is_said_at_once_without_patience() {
    let listener = TcpListener::bind("127.0.0.1:0").expect("loopback is there");
    let servers = listener.local_addr().expect("it is bound").to_string();
    drop(listener);
    let options = SessionOptions {
        servers: servers.parse().expect("an address"),
        timeout: Duration::from_secs(10),
        auth: Vec::new(),
        patient: false,
    };
    let (session, _events) = Session::open(options);
    let error = session.call(&requests::delete("/a"), deadline()).err();
    assert!(matches!(error, Some(CallError::NotConnected(why)) if why.contains(&servers)));
}
