//! What Apache ZooKeeper does wrong and this server does not (`src/docs/differences.md`): requests
//! that end an Apache server, corrupt it, or are answered misleadingly.

use std::io::ErrorKind;
use std::thread;
use std::time::{Duration, Instant};

use bytes::BytesMut;

use super::client::{self, Client, Hello, create, exists, get, list, set};
use super::differential::{put_buffer, put_i32};
use super::ensemble::Ensemble;
use super::peer::{self, Server};
use ringkeeper::model::request::{PathWatch, RawAcl};
use ringkeeper::model::{
    CreateKind, CreateRequest, ErrorCode, EventType, Perms, ReadRequest, Request, WriteRequest,
    Xid, Zxid,
};
use ringkeeper::wire::client::{ReplyHeader, decode_event, encode_request};
use ringkeeper::wire::connect::ConnectResponse;
use ringkeeper::wire::opcode;

fn open_acl() -> Vec<RawAcl> {
    vec![RawAcl { perms: Perms::ALL, scheme: Some("world".into()), id: Some("anyone".into()) }]
}

fn create_as(kind: CreateKind, path: &str, flags: i32) -> Request {
    let (path, acl) = (path.into(), Some(open_acl()));
    Request::Write(WriteRequest::Create(CreateRequest { kind, path, data: None, acl, flags }))
}

/// Sends a request as raw bytes; the header of its answer.
fn raw(client: &mut Client, opcode: i32, body: &[u8]) -> ReplyHeader {
    let mut frame = Vec::new();
    put_i32(&mut frame, i32::try_from(8 + body.len()).expect("short"));
    put_i32(&mut frame, 77);
    put_i32(&mut frame, opcode);
    frame.extend_from_slice(body);
    client.send_raw(&frame).expect("the connection stays");
    client.receive().expect("answered").header
}

fn data(client: &mut Client, path: &str) -> String {
    let mut reply = client.call(&get(path, false)).expect("answered");
    assert_eq!(reply.header.code, ErrorCode::OK, "{path}");
    let data = reply.body.buffer("data").expect("it decodes").unwrap_or_default();
    String::from_utf8(data.to_vec()).expect("text")
}

fn end(server: Server) {
    let home = server.home.clone();
    let (status, ..) = server.stop();
    assert!(status.success(), "{status}");
    peer::clean(&home);
}

#[test]
fn a_ttl_create_without_a_ttl_flag_is_refused() {
    for settings in ["", "extendedTypesEnabled=true"] {
        let server = Server::start(settings);
        let mut client = client::connect(server.port).expect("it serves");
        for ttl_ms in [-1, i64::MIN, 5] {
            let request = create_as(CreateKind::Ttl { ttl_ms }, "/a", 0);
            assert_eq!(client.code(&request), ErrorCode::BAD_ARGUMENTS, "{ttl_ms}");
        }
        assert_eq!(client.code(&exists("/a", false)), ErrorCode::NO_NODE);
        end(server);
    }
}

#[test]
fn only_the_server_deletes_containers_and_makes_sessions() {
    let server = Server::start("");
    let mut client = client::connect(server.port).expect("it serves");
    assert_eq!(client.code(&create("/a", b"", 0)), ErrorCode::OK);
    let mut body = Vec::new();
    put_buffer(&mut body, Some(b"/a"));
    let header = raw(&mut client, opcode::DELETE_CONTAINER, &body);
    assert_eq!(header.code, ErrorCode::UNIMPLEMENTED);
    assert_eq!(client.code(&exists("/a", false)), ErrorCode::OK);
    let header = raw(&mut client, opcode::CREATE_SESSION, &[0, 0, 0x27, 0x10]);
    assert_eq!(header.code, ErrorCode::UNIMPLEMENTED);
    assert!(client.is_closed());
    end(server);
}

#[test]
fn quota_nodes_hold_any_text() {
    let server = Server::start("enforceQuota=true");
    let mut client = client::connect(server.port).expect("it serves");
    // A quota on the root is none.
    for name in ["zookeeper_limits", "zookeeper_stats"] {
        let path = format!("/zookeeper/quota/{name}");
        assert_eq!(client.code(&create(&path, b"count=0", 0)), ErrorCode::OK, "{path}");
    }
    assert_eq!(client.code(&create("/a", b"", 0)), ErrorCode::OK);
    let quota = "/zookeeper/quota/a";
    let (limits, stats) = (format!("{quota}/zookeeper_limits"), format!("{quota}/zookeeper_stats"));
    assert_eq!(client.code(&create(quota, b"", 0)), ErrorCode::OK);
    assert_eq!(client.code(&create(&limits, b"nonsense", 0)), ErrorCode::OK);
    assert_eq!(client.code(&create(&stats, b"", 0)), ErrorCode::OK);
    // Limits that cannot be read do not limit, statistics that cannot be read begin anew.
    assert_eq!(client.code(&create("/a/b", b"12", 0)), ErrorCode::OK);
    assert_eq!(data(&mut client, &stats), "count=2,bytes=2");
    for text in [b"nonsense".as_slice(), b"count=", b"=", b"count=x,bytes=1", b"\xff"] {
        assert_eq!(client.code(&set(&stats, text)), ErrorCode::OK);
        assert_eq!(client.code(&set("/a/b", b"123")), ErrorCode::OK);
        assert!(data(&mut client, &stats).starts_with("count="), "{text:?}");
    }
    // And all of it is read again at the next start.
    let before = data(&mut client, &stats);
    let (home, port) = server.kill();
    let server = Server::start_in(home, port);
    let mut client = client::connect(server.port).expect("it serves");
    assert_eq!(data(&mut client, &stats), before);
    assert_eq!(client.code(&set("/a/b", b"1234")), ErrorCode::OK);
    end(server);
}

#[test]
fn an_undecodable_write_consumes_no_zxid() {
    let server = Server::start("");
    let mut client = client::connect(server.port).expect("it serves");
    let before = client.call(&create("/a", b"", 0)).expect("answered").header.zxid;
    for opcode in [opcode::CREATE, opcode::DELETE, opcode::SET_DATA, opcode::SET_ACL] {
        let header = raw(&mut client, opcode, &[0, 0, 0, 9, b'/']);
        assert_eq!((header.code, header.zxid), (ErrorCode::MARSHALLING_ERROR, before), "{opcode}");
    }
    let after = client.call(&set("/a", b"")).expect("answered").header.zxid;
    assert_eq!(after, before.next());
    end(server);
}

#[test]
fn a_multi_with_a_null_leaves_nothing_behind() {
    let server = Server::start("");
    let mut client = client::connect(server.port).expect("it serves");
    let null_id = vec![RawAcl { id: None, ..open_acl().remove(0) }];
    let acls = [open_acl(), null_id];
    let creates = acls.into_iter().map(|acl| {
        let (kind, path) = (CreateKind::Create, "/a".into());
        WriteRequest::Create(CreateRequest { kind, path, data: None, acl: Some(acl), flags: 2 })
    });
    let multi = Request::Write(WriteRequest::Multi(creates.collect()));
    // What is sent right behind it sees nothing of it, and takes its sequence number.
    client.send(&multi).expect("sent");
    client.send(&create("/a", b"", 2)).expect("sent");
    let header = client.receive().expect("answered").header;
    assert_eq!(header.code, ErrorCode::MARSHALLING_ERROR);
    let mut reply = client.receive().expect("answered");
    let path = reply.body.some_str("path").expect("it decodes");
    assert!(path.ends_with("0000000000"), "{path}");
    let mut reply = client.call(&list("/", false)).expect("answered");
    assert_eq!(reply.body.i32("count"), Ok(2));
    end(server);
}

#[test]
fn a_request_in_flight_counts_for_those_behind_it() {
    let server = Server::start("");
    let mut client = client::connect(server.port).expect("it serves");
    for round in 0..50 {
        let path = format!("/a{round}");
        assert_eq!(client.code(&create(&path, b"", 0)), ErrorCode::OK);
        let read_only = RawAcl { perms: Perms::READ, ..open_acl().remove(0) };
        let (acl, at) = (Some(vec![read_only]), path.as_str().into());
        client.send(&Request::Write(WriteRequest::SetAcl { path: at, acl, version: -1 })).unwrap();
        client.send(&set(&path, b"x")).unwrap();
        // A container is one from the start, whatever its flags.
        client.send(&create_as(CreateKind::Container, &format!("/c{round}"), 1)).unwrap();
        client.send(&create(&format!("/c{round}/d"), b"", 0)).unwrap();
        let mut code = || client.receive().expect("answered").header.code;
        assert_eq!([code(), code()], [ErrorCode::OK, ErrorCode::NO_AUTH], "round {round}");
        assert_eq!([code(), code()], [ErrorCode::OK, ErrorCode::OK], "round {round}");
    }
    end(server);
}

#[test]
fn nulls_are_answered() {
    let server = Server::start("");
    let mut client = client::connect(server.port).expect("it serves");
    let mut null = vec![0xff; 4];
    put_i32(&mut null, 1);
    for opcode in [opcode::CHECK_WATCHES, opcode::REMOVE_WATCHES, opcode::ADD_WATCH] {
        let header = raw(&mut client, opcode, &null);
        assert_eq!(header.code, ErrorCode::MARSHALLING_ERROR, "{opcode}");
    }
    // No string in an answer is null.
    client.send_raw(&[0, 0, 0, 12, 0, 0, 0, 1, 0, 0, 0, 9, 0xff, 0xff, 0xff, 0xff]).unwrap();
    let mut reply = client.receive().expect("answered");
    assert_eq!(reply.body.buffer("path"), Ok(Some(bytes::Bytes::new())));
    let mut body = null.clone();
    body.truncate(4);
    for number in [-1, -1, 99] {
        put_i32(&mut body, number);
    }
    let header = raw(&mut client, opcode::CREATE, &body);
    assert_eq!(header.code, ErrorCode::MARSHALLING_ERROR);
    let header = client.call(&Request::Sasl { token: None }).expect("answered").header;
    assert_eq!(header.code, ErrorCode::AUTH_FAILED);
    assert!(client.is_closed());
    end(server);
}

#[test]
fn answers_are_utf_8_and_errors_have_no_body() {
    let server = Server::start("");
    let mut client = client::connect(server.port).expect("it serves");
    let sync = Request::Sync { path: "/\u{1f600}".into() };
    let mut reply = client.call(&sync).expect("answered");
    assert_eq!(reply.body.buffer("path").unwrap().unwrap(), "/\u{1f600}".as_bytes());
    // A multiRead whose second item is none: Apache's error is followed by the first item.
    let mut body = Vec::new();
    for number in [opcode::GET_DATA, opcode::EXISTS] {
        put_i32(&mut body, number);
        body.push(0);
        put_i32(&mut body, -1);
        put_buffer(&mut body, Some(b"/"));
        body.push(0);
    }
    put_i32(&mut body, -1);
    body.push(1);
    put_i32(&mut body, -1);
    let mut frame = Vec::new();
    put_i32(&mut frame, i32::try_from(8 + body.len()).expect("short"));
    put_i32(&mut frame, 5);
    put_i32(&mut frame, opcode::MULTI_READ);
    frame.extend_from_slice(&body);
    client.send_raw(&frame).expect("sent");
    let reply = client.receive().expect("answered");
    assert_eq!(reply.header.code, ErrorCode::MARSHALLING_ERROR);
    assert_eq!(reply.body.remaining(), 0);
    // The empty path is another name of the root, and has as many descendants.
    let mut count = |path: &str| {
        let request = Request::Read(ReadRequest::GetAllChildrenNumber { path: path.into() });
        client.call(&request).expect("answered").body.i32("number")
    };
    assert_eq!(count(""), count("/"));
    end(server);
}

#[test]
fn a_watch_that_may_not_be_told_is_used_up() {
    // As Apache does it: clients depend on the order of what they are told, not on this.
    let server = Server::start("");
    let mut client = client::connect(server.port).expect("it serves");
    let mut other = client::connect(server.port).expect("it serves");
    assert_eq!(client.code(&create("/a", b"", 0)), ErrorCode::OK);
    let watch = PathWatch { path: "/a".into(), watch: true };
    assert_eq!(client.code(&Request::Read(ReadRequest::GetData(watch))), ErrorCode::OK);
    let acl = |perms| {
        let acl = Some(vec![RawAcl { perms, ..open_acl().remove(0) }]);
        Request::Write(WriteRequest::SetAcl { path: "/a".into(), acl, version: -1 })
    };
    assert_eq!(other.code(&acl(Perms(31 & !1))), ErrorCode::OK);
    assert_eq!(other.code(&set("/a", b"1")), ErrorCode::OK);
    assert_eq!(other.code(&acl(Perms::ALL)), ErrorCode::OK);
    assert_eq!(other.code(&set("/a", b"2")), ErrorCode::OK);
    assert_eq!(client.code(&exists("/b", true)), ErrorCode::NO_NODE);
    assert_eq!(other.code(&create("/b", b"", 0)), ErrorCode::OK);
    let mut told = client.receive().expect("it is told");
    assert_eq!(told.header.xid, Xid::NOTIFICATION);
    let event = decode_event(&mut told.body).expect("it decodes");
    assert_eq!((event.event_type, event.path.as_str()), (EventType::NodeCreated, "/b"));
    end(server);
}

/// A reply, or the end of the connection: anything but silence.
fn is_heard(client: &mut Client) -> bool {
    match client.receive() {
        Ok(_) => true,
        Err(error) => {
            let silent = matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut);
            assert!(!silent, "the server says nothing");
            false
        }
    }
}

#[test]
fn a_request_of_a_session_that_goes_is_answered_or_its_connection_closed() {
    let server = Server::start("ringkeeper.shards=2");
    let hello = Hello { timeout_ms: 4000, ..Hello::default() };
    let address = ("127.0.0.1", server.port);
    let born = Instant::now();
    let mut silent: Vec<Client> =
        (0..100).map(|_| Client::attach(address, &hello).expect("it serves")).collect();
    // A session that another connection takes over while its requests are on their way.
    for round in 0..30 {
        let mut old = client::connect(server.port).expect("it serves");
        for number in 0..20 {
            let sent = old.send(&create(&format!("/{round}-{number}"), b"", 0));
            assert!(sent.is_ok(), "{sent:?}");
        }
        let ConnectResponse { session, password, .. } = old.session;
        let mut new = client::attach(server.port, session, password, Zxid::ZERO).expect("taken");
        let answered = (0..).take_while(|_| is_heard(&mut old)).count();
        assert!(answered <= 20, "{answered}");
        assert_eq!(new.code(&exists("/", false)), ErrorCode::OK);
    }
    // Sessions of clients that are silent end in the instant of a request, or around it: with
    // ticks of two seconds, four to six seconds after they were last heard of.
    // A busy machine credits them more: then fewer of them have ended, or none.
    for (number, client) in silent.iter_mut().enumerate() {
        let at = Duration::from_millis(3900 + 25 * number as u64);
        thread::sleep((born + at).saturating_duration_since(Instant::now()));
        let _sent = client.send(&set("/0-0", b""));
        let _answered_or_closed = is_heard(client);
    }
    end(server);
}

/// Clients number their requests as they like. A follower answers one that it does not pass on
/// itself, while others with the same number are with the leader.
#[test]
fn requests_with_the_same_xid_are_answered_each_by_a_follower() {
    let ensemble = Ensemble::ours(3, "");
    ensemble.all_serve();
    let leader = ensemble.leader();
    let follower = (1..=3).find(|sid| *sid != leader).expect("there are three");
    let mut client = client::connect_for_long(ensemble.ports[&follower]).expect("it serves");
    let mut frames = BytesMut::new();
    encode_request(Xid(5), &create("/a", b"", 0), &mut frames);
    encode_request(Xid(6), &create("/b", b"", 0), &mut frames);
    let mut without_path = Vec::new();
    for word in [16, 5, opcode::DELETE, -1, -1] {
        put_i32(&mut without_path, word);
    }
    frames.extend_from_slice(&without_path);
    encode_request(Xid(5), &set("/a", b"1"), &mut frames);
    encode_request(Xid(5), &create("/a", b"", 0), &mut frames);
    client.send_raw(&frames).expect("the connection stays");
    for (xid, code) in [
        (5, ErrorCode::OK),
        (6, ErrorCode::OK),
        (5, ErrorCode::MARSHALLING_ERROR),
        (5, ErrorCode::OK),
        (5, ErrorCode::NODE_EXISTS),
    ] {
        let header = client.receive().expect("it is answered").header;
        assert_eq!((header.xid, header.code), (Xid(xid), code));
    }
}
