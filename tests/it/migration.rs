//! From Apache ZooKeeper to this server and back, with real servers: what was written under load,
//! with fuzzy snapshots, killed, imported, written to, exported, read by Apache, imported again.
//! Tree, stats, ACLs and sessions must be the same at every stop; digests are compared by the
//! importing server after each txn that carries one, and by Apache when it loads the export.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{SystemTime, UNIX_EPOCH};

use bytes::{BufMut, Bytes, BytesMut};
use ringkeeper::apache::{Compression, SnapshotEncoder};
use ringkeeper::base::StrList;
use ringkeeper::model::request::{PathWatch, RawAcl};
use ringkeeper::model::txn::{CreateTxn, CreateTxnKind, TxnBody, TxnHeader};
use ringkeeper::model::{
    Acl, CreateKind, CreateRequest, EphemeralOwner, ErrorCode, Perms, ReadRequest, Request,
    SessionId, Stat, StatPersisted, WriteRequest, Zxid,
};
use ringkeeper::wire;

use super::apache::{self, Apache, Java};
use super::client::{self, Client, Hello, create, delete, exists, set};
use super::peer::{self, Server, within};
use super::rk_log;

/// Txns from one snapshot of Apache's to the next, at most: many snapshots, all under load.
const SNAP_COUNT: &str = "400";
/// Writes of each client that makes the load.
const LOAD: usize = 1500;
/// The id of user u with password p in the digest scheme.
pub(crate) const DIGEST_ID: &str = "u:Jq7wMyA/w2Vd5WIDAKdu4OIIFEQ=";

/// Everything that a client can see, by path.
pub(crate) type Dump = BTreeMap<String, (Option<Bytes>, Stat, Vec<RawAcl>)>;

/// One way of running Apache's servers.
struct Setup {
    jars: &'static str,
    flags: &'static [(&'static str, &'static str)],
    /// Arguments of the export.
    export: &'static [&'static str],
}

fn raw(perms: i32, scheme: &str, id: &str) -> RawAcl {
    RawAcl { perms: Perms(perms), scheme: Some(scheme.into()), id: Some(id.into()) }
}

fn create_kind(kind: CreateKind, path: &str, data: Option<&[u8]>, acl: Vec<RawAcl>) -> Request {
    let flags = match kind {
        CreateKind::Container => 4,
        CreateKind::Ttl { .. } => 5,
        CreateKind::Create | CreateKind::Create2 => 0,
    };
    let data = data.map(Bytes::copy_from_slice);
    let path = path.into();
    Request::Write(WriteRequest::Create(CreateRequest { kind, path, data, acl: Some(acl), flags }))
}

fn open_acl() -> Vec<RawAcl> {
    vec![raw(31, "world", "anyone")]
}

/// The kinds of things that a server may hold. The clients returned own ephemerals.
fn fill(port: u16, with_ttl: bool) -> Vec<Client> {
    let mut client = client::connect(port).expect("the server serves");
    let mut ok = |request: &Request| assert_eq!(client.code(request), ErrorCode::OK, "{request:?}");
    for path in ["/a", "/a/b", "/load", "/gone", "/seq", "/q"] {
        ok(&create(path, path.as_bytes(), 0));
    }
    ok(&create_kind(CreateKind::Create, "/null", None, open_acl()));
    ok(&create_kind(CreateKind::Create2, "/empty", Some(b""), open_acl()));
    let digest = raw(31, "digest", DIGEST_ID);
    ok(&create_kind(CreateKind::Create, "/acl", Some(b"1"), vec![digest.clone()]));
    let several = vec![raw(1, "world", "anyone"), raw(31, "ip", "127.0.0.0/8"), digest.clone()];
    ok(&create_kind(CreateKind::Create, "/acls", Some(b"2"), several.clone()));
    ok(&create("/set-acl", b"3", 0));
    ok(&Request::Write(WriteRequest::SetAcl {
        path: "/set-acl".into(),
        acl: Some(several),
        version: -1,
    }));
    ok(&create_kind(CreateKind::Container, "/container", None, open_acl()));
    ok(&create("/container/child", b"", 0));
    if with_ttl {
        let ttl = CreateKind::Ttl { ttl_ms: 86_400_000 };
        ok(&create_kind(ttl, "/ttl", Some(b"ttl"), open_acl()));
    }
    for _ in 0..3 {
        ok(&create("/seq/n-", b"s", 2));
    }
    ok(&delete("/seq/n-0000000001"));
    ok(&create("/zookeeper/quota/q", b"", 0));
    ok(&create("/zookeeper/quota/q/zookeeper_limits", b"count=100,bytes=-1", 0));
    ok(&create("/zookeeper/quota/q/zookeeper_stats", b"count=0,bytes=0", 0));
    ok(&create("/q/inside", b"12345", 0));
    ok(&set("/a/b", b"set"));
    ok(&delete("/gone"));
    let WriteRequest::Create(made) = (match create("/multi", b"m", 0) {
        Request::Write(write) => write,
        _ => unreachable!("it is a write"),
    }) else {
        unreachable!("it is a create")
    };
    let set = WriteRequest::SetData { path: "/multi".into(), data: None, version: 0 };
    ok(&Request::Write(WriteRequest::Multi(vec![WriteRequest::Create(made), set])));
    assert_eq!(client.code(&delete("/a")), ErrorCode::NOT_EMPTY, "a refusal is a txn, too");
    let mut owners = Vec::new();
    for number in 0..2 {
        // Nobody sends heartbeats for it, and the machine may be slow.
        let hello = Hello { timeout_ms: 600_000, ..Hello::default() };
        let server = ("127.0.0.1", port);
        let mut owner = Client::attach(server, &hello).expect("the server serves");
        assert_eq!(owner.code(&create(&format!("/e{number}"), b"e", 1)), ErrorCode::OK);
        assert_eq!(owner.code(&create("/seq/e-", b"e", 3)), ErrorCode::OK);
        owners.push(owner);
    }
    owners
}

/// Znodes come, change and go in a few places, sessions too, until all clients are through.
fn load(port: u16) {
    let ended = AtomicBool::new(false);
    thread::scope(|scope| {
        // Sessions that end while snapshots are written take their ephemerals along.
        let sessions = scope.spawn(|| {
            let mut count = 0;
            while !ended.load(Ordering::Relaxed) {
                let mut client = client::connect(port).expect("the server serves");
                let _made = client.code(&create(&format!("/load/e{}", count % 3), b"", 1));
                let _closed = client.code(&Request::Write(WriteRequest::CloseSession));
                count += 1;
            }
        });
        let writers: Vec<_> = (0..3_usize)
            .map(|writer| {
                scope.spawn(move || {
                    let mut client = client::connect(port).expect("the server serves");
                    for number in 0..LOAD {
                        let parent = format!("/load/{}", (number / 7 + writer) % 5);
                        let child = format!("{parent}/{}", number % 4);
                        let data = vec![b'x'; number % 300];
                        // Refusals are part of it.
                        for request in [
                            create(&parent, &data, 0),
                            create_kind(CreateKind::Create2, &child, Some(&data), open_acl()),
                            set(&child, &data),
                            delete(&child),
                        ] {
                            client.send(&request).expect("the server serves");
                        }
                        if number % 3 == 0 {
                            client.send(&delete(&parent)).expect("the server serves");
                            client.receive().expect("the server serves");
                        }
                        for _ in 0..4 {
                            client.receive().expect("the server serves");
                        }
                    }
                })
            })
            .collect();
        for writer in writers {
            writer.join().expect("no writer panics");
        }
        ended.store(true, Ordering::Relaxed);
        sessions.join().expect("sessions come and go");
    });
}

pub(crate) fn dump(port: u16) -> Dump {
    let mut client = client::connect(port).expect("the server serves");
    let auth =
        Request::Auth { scheme: Some("digest".into()), auth: Some(Bytes::from_static(b"u:p")) };
    assert_eq!(client.code(&auth), ErrorCode::OK);
    let mut found = Dump::new();
    let mut open = vec!["/".to_owned()];
    while let Some(path) = open.pop() {
        let at = PathWatch { path: path.as_str().into(), watch: false };
        let get = Request::Read(ReadRequest::GetData(at.clone()));
        let mut reply = client.call(&get).expect("the server serves");
        assert_eq!(reply.header.code, ErrorCode::OK, "{path}");
        let data = reply.body.buffer("data").expect("it decodes");
        let stat = reply.body.stat().expect("it decodes");
        let get_acl = Request::Read(ReadRequest::GetAcl { path: at.path.clone() });
        let mut reply = client.call(&get_acl).expect("the server serves");
        assert_eq!(reply.header.code, ErrorCode::OK, "{path}");
        let acl = reply.body.raw_acls().expect("it decodes").expect("there is one");
        let list = Request::Read(ReadRequest::GetChildren(at));
        let mut reply = client.call(&list).expect("the server serves");
        let names = reply.body.vector("children", |reader| reader.some_str("child"));
        let base = if path == "/" { "" } else { path.as_str() };
        let names = names.expect("it decodes").expect("there is a list");
        open.extend(names.iter().map(|name| format!("{base}/{name}")));
        found.insert(path, (data, stat, acl));
    }
    found
}

fn assert_same(before: &Dump, after: &Dump, what: &str) {
    for (path, znode) in before {
        assert_eq!(after.get(path), Some(znode), "{what}: {path}");
    }
    let more: Vec<&String> = after.keys().filter(|path| !before.contains_key(*path)).collect();
    assert!(more.is_empty(), "{what}: {more:?} came from nowhere");
}

fn snapshots(data: &Path) -> usize {
    let names = fs::read_dir(data).expect("the directory is there").flatten();
    names.filter(|entry| entry.file_name().to_string_lossy().starts_with("snapshot.")).count()
}

/// There, on, back, and there again.
fn round_trip(test: &str, setup: &Setup) {
    let Some(jars) = apache::jars_of(setup.jars) else {
        return apache::skip(test, "no java or no Apache ZooKeeper");
    };
    let extended = setup.flags.contains(&("extendedTypesEnabled", "true"));
    let home = peer::fresh_directory();
    let port = peer::free_port();
    let extra = format!("maxSessionTimeout=600000\nextendedTypesEnabled={extended}");
    peer::write_config(&home, port, &extra);

    let flags = setup.flags.iter().chain(&[("snapCount", SNAP_COUNT)]);
    let java = flags.fold(Java::new(&jars), |java, (name, value)| {
        java.with(&format!("zookeeper.{name}"), value)
    });
    let server = Apache::start_in(&java, &home, port);
    let owners = fill(port, extended);
    load(port);
    let before = dump(port);
    server.kill();
    let taken = snapshots(&home.join("data/version-2"));
    assert!(3 < taken, "{test}: {taken} snapshots were taken under load");
    let checked = rk_log::json(0, &["verify", rk_log::text(&home.join("data"))]).remove(0);
    let checked = &checked["checked"];
    assert_eq!(checked["replayed"], checked["records"], "{test}: every txn is compared");

    let server = Server::start_in(home.clone(), port);
    assert_same(&before, &dump(port), &format!("{test}: imported"));
    assert!(!server.log().contains("is not used"), "{test}: {}", server.log());
    let held = owners[0].session.clone();
    let mut owner =
        client::attach(port, held.session, held.password, Zxid::ZERO).expect("it serves");
    assert_eq!(owner.session.session, held.session, "{test}: the session goes on");
    assert_eq!(owner.code(&exists("/e0", false)), ErrorCode::OK);
    assert_eq!(owner.code(&create("/ours", b"written here", 0)), ErrorCode::OK);
    assert_eq!(owner.code(&set("/a", b"changed here")), ErrorCode::OK);
    assert_eq!(owner.code(&delete("/multi")), ErrorCode::OK);
    assert_eq!(owner.code(&create("/seq/n-", b"", 2)), ErrorCode::OK);
    let written = dump(port);
    let (status, home, _) = server.stop();
    assert!(status.success());
    apache::assert_refuses(&jars, &home);

    let back = peer::fresh_directory();
    let export = |source: &Path| {
        let mut command = Command::new(env!("CARGO_BIN_EXE_ringkeeper"));
        command.arg("export").arg(source).arg(back.join("data")).args(setup.export);
        command.stdin(Stdio::null()).output().expect("the program was built")
    };
    let exported = export(&home.join("zoo.cfg"));
    let errors = String::from_utf8_lossy(&exported.stderr);
    assert!(exported.status.success(), "{test}: {errors}");
    let info = rk_log::json(0, &["info", rk_log::text(&back.join("data"))]).remove(0);
    let zxid = info["snapshots"][0]["begun"].as_str().expect("there is one");
    let (from, to) = (back.join("data"), home.join("replayed"));
    rk_log::expect(0, &["replay", rk_log::text(&from), "--to", zxid, rk_log::text(&to)]);
    let again = export(&home.join("zoo.cfg"));
    assert!(!again.status.success(), "{test}: nothing is written over");
    let port = peer::free_port();
    peer::write_config(&back, port, &extra);
    let server = Apache::start_in(&java, &back, port);
    assert_same(&written, &dump(port), &format!("{test}: exported"));
    let mut owner =
        client::attach(port, held.session, held.password, Zxid::ZERO).expect("it serves");
    assert_eq!(owner.session.session, held.session, "{test}: the session goes on at Apache");
    assert_eq!(owner.code(&create("/theirs", b"written there", 0)), ErrorCode::OK);
    if let Some(mismatches) = server.metric("zk_digest_mismatches_count") {
        assert_eq!(mismatches, "0", "{test}: Apache found our digest right");
    }
    let theirs = dump(port);
    server.kill();

    let server = Server::start_in(back.clone(), port);
    assert_same(&theirs, &dump(port), &format!("{test}: imported again"));
    let refused = Command::new(env!("CARGO_BIN_EXE_ringkeeper"))
        .args(["export".as_ref(), back.join("data").as_os_str(), home.join("x").as_os_str()])
        .output()
        .expect("the program was built");
    let text = String::from_utf8_lossy(&refused.stderr);
    assert!(!refused.status.success() && text.contains("stop it first"), "{test}: {text}");
    drop(server);
    peer::clean(&home);
    peer::clean(&back);
}

#[test]
fn from_apache_3_9_and_back_with_ttl_znodes() {
    round_trip(
        "3.9",
        &Setup { jars: "zookeeper", flags: &[("extendedTypesEnabled", "true")], export: &[] },
    );
}

#[test]
fn from_apache_3_9_and_back_with_snappy_and_without_digests() {
    let flags = &[("snapshot.compression.method", "snappy"), ("digest.enabled", "false")];
    let export = &["--compression", "snappy", "--no-digest"];
    round_trip("3.9 with snappy", &Setup { jars: "zookeeper", flags, export });
}

#[test]
fn from_apache_3_8_and_back_with_gzip() {
    let flags = &[("snapshot.compression.method", "gz")];
    let export = &["--compression", "gz", "--apache", "3.8"];
    round_trip("3.8 with gzip", &Setup { jars: "zookeeper-3.8", flags, export });
}

/// A data directory as a server 3.5.3 leaves it: its TTL znodes have no tag in their owners.
fn write_353(data: &Path) {
    let open: Arc<[Acl]> = Arc::new([Acl::open()]);
    let mut snapshot = SnapshotEncoder::new(Compression::None, &[], []);
    let ttl = |ttl_ms: i64| i64::MIN | ttl_ms;
    let far = 86_400_000;
    for (path, owner) in [
        ("/", 0),
        ("/container", i64::MIN),
        ("/kept", ttl(far)),
        ("/kept/child", 0),
        ("/overdue", ttl(1)),
        // Only the low 40 bits count.
        ("/wide", ttl(far | (1 << 50))),
        ("/tagged", EphemeralOwner::ttl_to_stored(far)),
        ("/zookeeper", 0),
        ("/zookeeper/config", 0),
        ("/zookeeper/quota", 0),
    ] {
        let mtime = SystemTime::now().duration_since(UNIX_EPOCH).expect("it is after 1970");
        let mtime = i64::try_from(mtime.as_millis()).expect("it is not far away");
        let stat = StatPersisted { mtime, ephemeral_owner: owner, ..StatPersisted::default() };
        snapshot.znode(path, Some(path.as_bytes()), &open, &stat);
    }
    write_file(data, "snapshot.5", &snapshot.finish(None, Some(Zxid(5))));
}

fn write_file(data: &Path, name: &str, bytes: &[u8]) {
    let directory = data.join("version-2");
    fs::create_dir_all(&directory).expect("the directory is writable");
    fs::write(directory.join(name), bytes).expect("the directory is writable");
}

/// What there is once what is overdue has gone.
fn reaped(port: u16) -> Dump {
    let mut client = client::connect(port).expect("the server serves");
    within("what is overdue to be reaped", || {
        (client.code(&exists("/overdue", false)) == ErrorCode::NO_NODE).then_some(())
    });
    let mut found = dump(port);
    // Sessions of this test take zxids, some before it goes and some after.
    let (_, root, _) = found.get_mut("/").expect("there is a root");
    root.pzxid = Zxid::ZERO;
    found
}

#[test]
fn ttl_znodes_of_3_5_3_are_known_if_asked_for() {
    let test = "TTL znodes of 3.5.3";
    let Some(jars) = apache::jars() else {
        return apache::skip(test, "no java or no Apache ZooKeeper");
    };
    let settings = "extendedTypesEnabled=true\nemulate353TTLNodes=true\ndigest.enabled=false\n\
                    znode.container.checkIntervalMs=200";
    let (ours, theirs) = (peer::fresh_directory(), peer::fresh_directory());
    write_353(&ours.join("data"));
    Command::new("cp").arg("-r").arg(ours.join("data")).arg(&theirs).status().expect("it is there");
    let (our_port, their_port) = (peer::free_port(), peer::free_port());
    peer::write_config(&ours, our_port, settings);
    peer::write_config(&theirs, their_port, settings);
    let java = Java::new(&jars).with("znode.container.checkIntervalMs", "200");
    let apache = Apache::start_in(&java, &theirs, their_port);
    let there = reaped(their_port);
    apache.kill();
    let server = Server::start_in(ours.clone(), our_port);
    let here = reaped(our_port);
    assert_same(&there, &here, test);
    assert!(here.contains_key("/wide") && !here.contains_key("/overdue"), "{here:?}");
    // They are ephemerals of nobody to a server that is not told.
    let (status, ..) = server.stop();
    assert!(status.success());
    peer::write_config(&ours, our_port, "extendedTypesEnabled=true");
    let server = Server::start_in(ours.clone(), our_port);
    let mut client = client::connect(our_port).expect("it serves");
    let ephemerals = Request::Read(ReadRequest::GetEphemerals { prefix: None });
    let mut reply = client.call(&ephemerals).expect("the server serves");
    assert_eq!(reply.body.i32("count"), Ok(0), "{test}: of this session");
    assert!(server.word("dump").contains("\t/wide\n"), "{}", server.word("dump"));
    drop(server);
    peer::clean(&ours);
    peer::clean(&theirs);
}

/// A data directory of Apache's with these txns in its log, and the snapshot of an empty tree.
fn write_history(data: &Path, txns: &[(TxnHeader, TxnBody)]) {
    let mut file = BytesMut::from(&b"ZKLG\0\0\0\x02\0\0\0\0\0\0\0\0"[..]);
    for (header, body) in txns {
        let mut txn = BytesMut::new();
        wire::txn::encode(header, body, None, &mut txn);
        file.put_u64(u64::from(adler2::adler32_slice(&txn)));
        file.put_i32(i32::try_from(txn.len()).expect("it is short"));
        file.put_slice(&txn);
        file.put_u8(b'B');
    }
    write_file(data, "log.1", &file);
    let mut snapshot = SnapshotEncoder::new(Compression::None, &[], []);
    for path in ["/", "/zookeeper", "/zookeeper/config", "/zookeeper/quota"] {
        snapshot.znode(path, Some(b""), &[Acl::open()], &StatPersisted::default());
    }
    write_file(data, "snapshot.0", &snapshot.finish(None, Some(Zxid::ZERO)));
}

/// A session with more ephemerals than a txn can list ends with a txn that lists none (the list of
/// differences); whoever replays it removes what the session has.
#[test]
fn the_end_of_a_session_without_a_list_is_understood_by_apache() {
    let test = "closeSession without a list";
    let Some(jars) = apache::jars() else {
        return apache::skip(test, "no java or no Apache ZooKeeper");
    };
    let header = |zxid, session| TxnHeader {
        session: SessionId(session),
        zxid: Zxid(zxid),
        time_ms: 1_700_000_000_000,
        ..TxnHeader::default()
    };
    let begin = || TxnBody::CreateSession { timeout_ms: 600_000 };
    let create = |path: String, ephemeral| {
        TxnBody::Create(CreateTxn {
            kind: CreateTxnKind::Create { ephemeral },
            path: path.into(),
            data: None,
            acl: vec![Acl::open()],
            parent_cversion: -1,
        })
    };
    let (dying, living) = (0x77, 0x88);
    let mut txns = vec![(header(1, dying), begin()), (header(2, living), begin())];
    for (number, session) in [(3, dying), (4, living), (5, dying), (6, dying)] {
        txns.push((header(number, session), create(format!("/e{number}"), true)));
    }
    txns.push((header(7, dying), create("/stays".to_owned(), false)));
    txns.push((header(8, dying), TxnBody::CloseSession { paths: Some(StrList::default()) }));
    let mut dumps = Vec::new();
    for ours in [false, true] {
        let (home, port) = (peer::fresh_directory(), peer::free_port());
        peer::write_config(&home, port, "digest.enabled=false");
        write_history(&home.join("data"), &txns);
        if ours {
            let server = Server::start_in(home.clone(), port);
            dumps.push(dump(port));
            drop(server);
        } else {
            let apache = Apache::start_in(&Java::new(&jars), &home, port);
            dumps.push(dump(port));
            apache.kill();
        }
        peer::clean(&home);
    }
    let paths: Vec<&str> = dumps[0].keys().map(String::as_str).collect();
    assert_eq!(
        paths,
        ["/", "/e4", "/stays", "/zookeeper", "/zookeeper/config", "/zookeeper/quota"]
    );
    assert_same(&dumps[0], &dumps[1], test);
}

/// Names of the files in a directory.
fn names(directory: &Path) -> Vec<String> {
    let entries = fs::read_dir(directory).expect("it is there").flatten();
    entries.map(|entry| entry.file_name().to_string_lossy().into_owned()).collect()
}

/// Snapshots below dataDir and logs below dataLogDir, ours and Apache's: imported, restarted,
/// looked into, exported.
#[test]
fn logs_may_have_a_directory_of_their_own() {
    let test = "dataLogDir";
    let Some(jars) = apache::jars() else {
        return apache::skip(test, "no java or no Apache ZooKeeper");
    };
    let (home, port) = (peer::fresh_directory(), peer::free_port());
    let (data, logs) = (home.join("data"), home.join("logs"));
    let settings = format!("dataLogDir={}\nmaxSessionTimeout=600000", logs.display());
    peer::write_config(&home, port, &settings);
    let apache = Apache::start_in(&Java::new(&jars), &home, port);
    let _owners = fill(port, false);
    let before = dump(port);
    apache.kill();
    assert!(names(&logs.join("version-2")).iter().any(|name| name.starts_with("log.")));

    let server = Server::start_in(home.clone(), port);
    assert_same(&before, &dump(port), "imported");
    let mut client = client::connect(port).expect("it serves");
    assert_eq!(client.code(&create("/ours", b"here", 0)), ErrorCode::OK);
    let (home, port) = server.kill();
    for sealed in [&data, &logs] {
        assert!(sealed.join("version-2").is_file(), "{} is sealed", sealed.display());
    }
    let (in_data, in_logs) = (names(&data.join("ringkeeper")), names(&logs.join("ringkeeper")));
    let count =
        |names: &[String], start: &str| names.iter().filter(|name| name.starts_with(start)).count();
    assert_eq!(count(&in_data, "txnlog"), 0, "{in_data:?}");
    assert_ne!(count(&in_data, "snapshot"), 0, "{in_data:?}");
    assert_ne!(count(&in_logs, "txnlog"), 0, "{in_logs:?}");
    assert_eq!(count(&in_logs, "snapshot"), 0, "{in_logs:?}");
    let server = Server::start_in(home, port);
    let written = dump(port);
    assert!(written.contains_key("/ours"), "it is there after a restart");
    let (status, home, _) = server.stop();
    assert!(status.success());

    let rk_log = |arguments: &[&Path]| {
        let mut command = Command::new(env!("CARGO_BIN_EXE_rk-log"));
        command.arg("verify").args(arguments).stdin(Stdio::null());
        let output = command.output().expect("the program was built");
        let text = [output.stdout, output.stderr].concat();
        (output.status.code(), String::from_utf8_lossy(&text).into_owned())
    };
    let (code, text) = rk_log(&[&data, Path::new("--log-dir"), &logs]);
    assert_eq!(code, Some(0), "{text}");
    assert_eq!(rk_log(&[&home.join("zoo.cfg")]).0, Some(0), "the configuration names both");

    let export = |source: &Path, out: &str| {
        let mut command = Command::new(env!("CARGO_BIN_EXE_ringkeeper"));
        command.arg("export").arg(source).arg(home.join(out)).stdin(Stdio::null());
        command.output().expect("the program was built")
    };
    let refused = export(&data, "none");
    let text = String::from_utf8_lossy(&refused.stderr);
    assert!(!refused.status.success() && text.contains("dataLogDir"), "{text}");
    peer::write_config(&home, port, "");
    let status = peer::spawn(&home.join("zoo.cfg")).wait().expect("the child is ours");
    let log = fs::read_to_string(home.join("log")).expect("it was started");
    let refusal = format!("was in {}", logs.join("ringkeeper").display());
    assert!(status.code() == Some(3) && log.contains(&refusal), "{status}: {log}");
    peer::write_config(&home, port, &settings);
    let exported = export(&home.join("zoo.cfg"), "back");
    assert!(exported.status.success(), "{}", String::from_utf8_lossy(&exported.stderr));
    let back = peer::fresh_directory();
    fs::rename(home.join("back"), back.join("data")).expect("the directory is writable");
    peer::write_config(&back, port, "maxSessionTimeout=600000");
    let apache = Apache::start_in(&Java::new(&jars), &back, port);
    assert_same(&written, &dump(port), "exported");
    apache.kill();
    peer::clean(&home);
    peer::clean(&back);
}
