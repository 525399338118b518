//! Requests and replies byte by byte on a real server (`client-protocol.md`).

use std::io::{Read, Write};

use super::client::{self, Client, create, delete, exists, get, list, set};
use super::peer::{self, Server};
use bytes::Bytes;
use ringkeeper::base::Str;
use ringkeeper::model::request::{PathWatch, SetWatches};
use ringkeeper::model::{
    ErrorCode, EventType, ReadRequest, Request, WatchEvent, WriteRequest, Xid, Zxid,
};
use ringkeeper::wire::client::decode_event;

/// Bytes from spaced hex.
fn hex(text: &str) -> Vec<u8> {
    let digits: String = text.split_whitespace().collect();
    let pairs = digits.as_bytes().chunks(2);
    let byte = |pair: &[u8]| {
        let pair = std::str::from_utf8(pair).expect("hex is ASCII");
        u8::from_str_radix(pair, 16).expect("hex")
    };
    pairs.map(byte).collect()
}

fn event(client: &mut Client) -> (WatchEvent, Zxid) {
    let mut reply = client.receive().expect("a notification comes");
    assert_eq!(reply.header.xid, Xid::NOTIFICATION);
    (decode_event(&mut reply.body).expect("it decodes"), reply.header.zxid)
}

fn watched(event_type: EventType, path: &str) -> WatchEvent {
    WatchEvent { event_type, path: path.into() }
}

#[test]
fn handshakes() {
    let server = Server::start("");
    // 44 bytes without readOnly: the answer has 36.
    let old = hex("0000002c 00000000 0000000000000000 00002710 0000000000000000 00000010
                   00000000000000000000000000000000");
    let mut stream = Client::dial(("127.0.0.1", server.port)).expect("it serves");
    stream.write_all(&old).expect("sent");
    let mut answer = [0; 40];
    stream.read_exact(&mut answer).expect("answered");
    assert_eq!(answer[..12], hex("00000024 00000000 00002710"));
    // 45 bytes: 37, and the timeout is clamped.
    let new = hex("0000002d 00000000 0000000000000000 ffffffff 0000000000000000 ffffffff 00");
    let mut stream = Client::dial(("127.0.0.1", server.port)).expect("it serves");
    stream.write_all(&new[..new.len()]).expect("sent");
    // The announced length is longer than the frame with a null password: pad as clients may.
    stream.write_all(&[0; 16]).expect("sent");
    let mut answer = [0; 41];
    stream.read_exact(&mut answer).expect("answered");
    assert_eq!(answer[..12], hex("00000025 00000000 00000fa0"));
    // A wrong password is refused with zeros, then the connection is closed.
    let mut client = client::connect(server.port).expect("it serves");
    let held = client.session.clone();
    let refused = client::attach(server.port, held.session, [7; 16], Zxid::ZERO);
    let mut refused = refused.expect("answered");
    assert_eq!((refused.session.timeout_ms, refused.session.session.0), (0, 0));
    assert!(refused.is_closed());
    assert_eq!(client.code(&exists("/", false)), ErrorCode::OK, "the live connection stays");
    // The right one moves the session: the old connection is closed.
    let mut moved = client::attach(server.port, held.session, held.password, Zxid::ZERO);
    let moved = moved.as_mut().expect("answered");
    assert_eq!(moved.session.session, held.session);
    assert!(client.is_closed());
    assert_eq!(moved.code(&exists("/", false)), ErrorCode::OK);
    // A client from the future is sent away without a word.
    assert!(client::attach(server.port, held.session, held.password, Zxid(1 << 40)).is_err());
    // A frame over the limit, and one that is shorter than a header.
    let mut client = client::connect(server.port).expect("it serves");
    client.send_raw(&hex("01000001")).expect("sent");
    assert!(client.is_closed());
    let mut client = client::connect(server.port).expect("it serves");
    client.send_raw(&hex("00000004 00000001")).expect("sent");
    assert!(client.is_closed());
    peer::clean(&server.home.clone());
}

#[test]
fn special_xids_and_unknown_opcodes() {
    let server = Server::start("");
    let mut client = client::connect(server.port).expect("it serves");
    client.send_raw(&hex("00000008 fffffffe 0000000b")).expect("sent");
    assert_eq!(client.receive().expect("answered").header.xid, Xid(-2));
    client.send_raw(&hex("00000008 00000077 0000000b")).expect("sent");
    let reply = client.receive().expect("answered");
    assert_eq!((reply.header.xid, reply.header.code), (Xid(-2), ErrorCode::OK));
    // A body that does not decode.
    client.send_raw(&hex("00000009 00000005 00000001 00")).expect("sent");
    let reply = client.receive().expect("answered");
    assert_eq!(reply.header.code, ErrorCode::MARSHALLING_ERROR);
    // deleteContainer is for servers; the connection stays.
    client.send_raw(&hex("0000000e 00000006 00000014 00000002 2f61")).expect("sent");
    assert_eq!(client.receive().expect("answered").header.code, ErrorCode::UNIMPLEMENTED);
    // Unknown: answered with zxid -1, then closed.
    for opcode in ["00000000", "0000000d", "00000017", "000003e7", "fffffff6"] {
        let mut client = client::connect(server.port).expect("it serves");
        client.send_raw(&hex(&format!("00000008 00000001 {opcode}"))).expect("sent");
        let header = client.receive().expect("answered").header;
        assert_eq!((header.code, header.zxid), (ErrorCode::UNIMPLEMENTED, Zxid(-1)), "{opcode}");
        assert!(client.is_closed());
    }
    peer::clean(&server.home.clone());
}

#[test]
fn a_pipelined_read_sees_the_writes_before_it_and_none_behind_it() {
    let server = Server::start("");
    let mut client = client::connect(server.port).expect("it serves");
    assert_eq!(client.code(&create("/a", b"0", 0)), ErrorCode::OK);
    for round in 0..200 {
        let value = |number: i32| format!("{round}-{number}");
        for number in 0..8 {
            client.send(&set("/a", value(number).as_bytes())).expect("sent");
            client.send(&get("/a", false)).expect("sent");
        }
        for number in 0..8 {
            assert_eq!(client.receive().expect("answered").header.code, ErrorCode::OK);
            let mut reply = client.receive().expect("answered");
            let data = reply.body.buffer("data").expect("decodes").expect("data");
            assert_eq!(data, Bytes::from(value(number)));
        }
    }
    peer::clean(&server.home.clone());
}

#[test]
fn events_come_before_replies_that_show_the_change() {
    let server = Server::start("");
    let mut writer = client::connect(server.port).expect("it serves");
    let mut watcher = client::connect(server.port).expect("it serves");
    assert_eq!(watcher.code(&exists("/a", true)), ErrorCode::NO_NODE);
    assert_eq!(watcher.code(&list("/", true)), ErrorCode::OK);
    let created = writer.call(&create("/a", b"", 0)).expect("answered").header.zxid;
    assert_eq!(event(&mut watcher), (watched(EventType::NodeCreated, "/a"), created));
    assert_eq!(event(&mut watcher), (watched(EventType::NodeChildrenChanged, "/"), created));
    // On one connection: its own events precede the reply to its own write.
    assert_eq!(watcher.code(&get("/a", true)), ErrorCode::OK);
    let xid = watcher.send(&delete("/a")).expect("sent");
    let (told, zxid) = event(&mut watcher);
    assert_eq!(told, watched(EventType::NodeDeleted, "/a"));
    let header = watcher.receive().expect("answered").header;
    assert_eq!((header.xid, header.zxid), (xid, zxid));
    // One-shot: nothing more comes.
    assert_eq!(writer.code(&create("/a", b"", 0)), ErrorCode::OK);
    assert_eq!(watcher.code(&exists("/a", false)), ErrorCode::OK);
    peer::clean(&server.home.clone());
}

#[test]
fn set_watches_tells_what_was_missed() {
    let server = Server::start("");
    let mut client = client::connect(server.port).expect("it serves");
    let before = client.call(&create("/a", b"", 0)).expect("answered").header.zxid;
    assert_eq!(client.code(&create("/b", b"", 0)), ErrorCode::OK);
    let paths = |names: &[&str]| names.iter().map(|name| Str::from(*name)).collect();
    let set_watches = Request::Read(ReadRequest::SetWatches(SetWatches {
        relative_zxid: before,
        data: paths(&["/a", "/gone"]),
        exist: paths(&["/b", "/later"]),
        child: paths(&["/", "/a"]),
        ..SetWatches::default()
    }));
    let xid = client.send(&set_watches).expect("sent");
    for (event_type, path) in [
        (EventType::NodeDeleted, "/gone"),
        (EventType::NodeCreated, "/b"),
        (EventType::NodeChildrenChanged, "/"),
    ] {
        assert_eq!(event(&mut client), (watched(event_type, path), Zxid(-1)));
    }
    assert_eq!(client.receive().expect("answered").header.xid, xid);
    client.send(&set("/a", b"x")).expect("sent");
    assert_eq!(event(&mut client).0, watched(EventType::NodeDataChanged, "/a"));
    assert_eq!(client.receive().expect("answered").header.code, ErrorCode::OK);
    client.send(&create("/later", b"", 0)).expect("sent");
    assert_eq!(event(&mut client).0, watched(EventType::NodeCreated, "/later"));
    peer::clean(&server.home.clone());
}

#[test]
fn refused_writes_consume_a_zxid_and_reads_do_not() {
    let server = Server::start("");
    let mut client = client::connect(server.port).expect("it serves");
    let first = client.call(&create("/a", b"", 0)).expect("answered").header.zxid;
    let refused = client.call(&create("/a", b"", 0)).expect("answered").header;
    assert_eq!((refused.code, refused.zxid), (ErrorCode::NODE_EXISTS, first.next()));
    let read = client.call(&get("/a", false)).expect("answered").header;
    assert_eq!(read.zxid, first.next());
    let empty = Request::Write(WriteRequest::Multi(Vec::new()));
    let empty = client.call(&empty).expect("answered").header;
    assert_eq!((empty.code, empty.zxid), (ErrorCode::OK, first.next().next()));
    peer::clean(&server.home.clone());
}

#[test]
fn sequence_numbers_count_child_creations() {
    let server = Server::start("");
    let mut client = client::connect(server.port).expect("it serves");
    let mut created = |path: &str, flags| -> Result<String, ErrorCode> {
        let mut reply = client.call(&create(path, b"", flags)).expect("answered");
        match reply.header.code {
            ErrorCode::OK => Ok(reply.body.some_str("path").expect("decodes").to_string()),
            code => Err(code),
        }
    };
    assert_eq!(created("/s", 0), Ok("/s".to_owned()));
    assert_eq!(created("/s/", 2), Ok("/s/0000000000".to_owned()));
    assert_eq!(created("/s/plain", 0), Ok("/s/plain".to_owned()));
    assert_eq!(created("/s/plain", 0), Err(ErrorCode::NODE_EXISTS));
    assert_eq!(created("/s/q-", 3), Ok("/s/q-0000000002".to_owned()));
    assert_eq!(created("/", 2), Ok("/0000000001".to_owned()));
    assert_eq!(created("/s/q-0000000002/child", 0), Err(ErrorCode::NO_CHILDREN_FOR_EPHEMERALS));
    for (path, flags, code) in [
        ("/", 0, ErrorCode::NODE_EXISTS),
        ("a/b", 0, ErrorCode::NO_NODE),
        ("ab", 0, ErrorCode::BAD_ARGUMENTS),
        ("/x/", 0, ErrorCode::NO_NODE),
        ("/s/", 0, ErrorCode::BAD_ARGUMENTS),
        ("/s/.", 0, ErrorCode::BAD_ARGUMENTS),
        ("/y", 7, ErrorCode::BAD_ARGUMENTS),
        ("/y", 5, ErrorCode::UNIMPLEMENTED),
    ] {
        assert_eq!(created(path, flags), Err(code), "{path} {flags}");
    }
    peer::clean(&server.home.clone());
}

#[test]
fn words_are_answered() {
    let server = Server::start("");
    let mut client = client::connect(server.port).expect("it serves");
    let watch = PathWatch { path: "/".into(), watch: true };
    assert_eq!(client.code(&Request::Read(ReadRequest::GetData(watch))), ErrorCode::OK);
    assert_eq!(server.word("ruok\n"), "imok");
    let srvr = server.word("srvr");
    let starts: Vec<&str> =
        srvr.lines().map(|line| line.split(':').next().unwrap_or_default()).collect();
    assert_eq!(
        starts,
        [
            "Zookeeper version",
            "Latency min/avg/max",
            "Received",
            "Sent",
            "Connections",
            "Outstanding",
            "Zxid",
            "Mode",
            "Node count"
        ]
    );
    for line in server.word("mntr").lines() {
        let (key, value) = line.split_once('\t').expect("a tab");
        let plain = |c: char| c.is_ascii_alphanumeric() || c == '_';
        assert!(key.starts_with("zk_") && key.chars().all(plain), "{line}");
        assert!(!value.is_empty(), "{line}");
    }
    assert!(server.word("conf").starts_with("clientPort="));
    assert_eq!(server.word("wchs"), "1 connections watching 1 paths\nTotal watches:1\n");
    assert!(server.word("cons").contains(",sid=0x"));
    assert!(server.word("stat").contains("Clients:\n /127.0.0.1:"));
    assert_eq!(server.word("isro"), "rw");
    let strict = Server::start("4lw.commands.whitelist=ruok");
    assert_eq!(strict.word("mntr"), "mntr is not executed because it is not in the whitelist.\n");
    assert!(strict.word("srvr").contains("Mode: standalone"));
    for home in [server.home.clone(), strict.home.clone()] {
        peer::clean(&home);
    }
}
