//! rk-log on the files of real servers: whole, damaged and in use.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

use bytes::Bytes;
use ringkeeper::base::{Str, WallMs};
use ringkeeper::model::request::{PathWatch, RawAcl};
use ringkeeper::model::{
    Acl, CreateKind, CreateRequest, ErrorCode, Perms, ReadRequest, Request, Stat, StatPersisted,
    WriteRequest, Zxid,
};
use ringkeeper::snapshot::{SnapshotEncoder, catalog};
use ringkeeper::wire::connect::ConnectResponse;
use serde_json::Value;

use super::apache::{self, Apache, Java};
use super::client::{self, Client, Hello, create, delete, set};
use super::peer::{self, Server};

/// A tree as a client sees it: data, stat and ACL by path.
pub(super) type Seen = BTreeMap<String, (Option<Bytes>, Stat, String)>;

/// What a server held at one zxid.
pub(super) struct Moment {
    pub(super) zxid: Zxid,
    pub(super) tree: Seen,
}

/// A data directory that a real server filled.
pub(super) struct Filled {
    pub(super) home: PathBuf,
    pub(super) moments: Vec<Moment>,
    /// A session that is alive at the end.
    session: ConnectResponse,
}

pub(super) const CONFIG: &str = "extendedTypesEnabled=true\nsnapCount=60\npreAllocSize=4096\n\
                      autopurge.snapRetainCount=20";

/// Txns in front of the interesting ones: enough for a snapshot.
const FILLERS: usize = 70;

pub(super) fn rk_log(arguments: &[&str]) -> Output {
    let output = Command::new(env!("CARGO_BIN_EXE_rk-log")).args(arguments).output();
    output.expect("the program was built")
}

fn stdout(output: &Output) -> String {
    String::from_utf8(output.stdout.clone()).expect("output is UTF-8")
}

/// Runs it, expects the exit code, gives the output.
pub(super) fn expect(code: i32, arguments: &[&str]) -> String {
    let output = rk_log(arguments);
    let text = stdout(&output);
    let errors = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(code), "{arguments:?}: {text}{errors}");
    text
}

pub(super) fn json(code: i32, arguments: &[&str]) -> Vec<Value> {
    let arguments = [&["--json"], arguments].concat();
    let text = expect(code, &arguments);
    let parse = |line| serde_json::from_str(line).expect("every line is JSON");
    text.lines().map(parse).collect()
}

pub(super) fn text(path: &Path) -> &str {
    path.to_str().expect("test directories are UTF-8")
}

fn with_kind(kind: CreateKind, path: &str, data: Option<&[u8]>, flags: i32) -> Request {
    Request::Write(create_of(kind, path, data, flags))
}

fn create_of(kind: CreateKind, path: &str, data: Option<&[u8]>, flags: i32) -> WriteRequest {
    let acl = |perms, scheme, id| RawAcl { perms, scheme: Some(Str::from_static(scheme)), id };
    WriteRequest::Create(CreateRequest {
        kind,
        path: path.into(),
        data: data.map(Bytes::copy_from_slice),
        acl: Some(vec![acl(Perms::ALL, "world", Some("anyone".into()))]),
        flags,
    })
}

fn read_acl(client: &mut Client, path: &str) -> String {
    let request = Request::Read(ReadRequest::GetAcl { path: path.into() });
    let mut reply = client.call(&request).expect("it is answered");
    format!("{:?}", reply.body.acls().expect("it decodes"))
}

/// The whole tree.
fn look(client: &mut Client) -> Seen {
    let mut seen = Seen::new();
    let mut waiting = vec!["/".to_owned()];
    while let Some(path) = waiting.pop() {
        let of = |path: &str| PathWatch { path: path.into(), watch: false };
        let get = Request::Read(ReadRequest::GetData(of(&path)));
        let mut reply = client.call(&get).expect("it is answered");
        assert_eq!(reply.header.code, ErrorCode::OK, "{path}");
        let data = reply.body.buffer("data").expect("it decodes");
        let stat = reply.body.stat().expect("it decodes");
        let children = Request::Read(ReadRequest::GetChildren(of(&path)));
        let mut reply = client.call(&children).expect("it is answered");
        let names = reply.body.vector("children", |reader| reader.some_str("child"));
        for name in names.expect("it decodes").expect("it is there") {
            let separator = if path == "/" { "" } else { "/" };
            waiting.push(format!("{path}{separator}{name}"));
        }
        let acl = read_acl(client, &path);
        seen.insert(path, (data, stat, acl));
    }
    seen
}

/// The state now. Nobody else writes.
pub(super) fn moment(client: &mut Client) -> Moment {
    let tree = look(client);
    let request = Request::Read(ReadRequest::Exists(PathWatch { path: "/".into(), watch: false }));
    let zxid = client.call(&request).expect("it is answered").header.zxid;
    Moment { zxid, tree }
}

pub(super) fn ok(client: &mut Client, request: &Request) {
    assert_eq!(client.code(request), ErrorCode::OK, "{request:?}");
}

/// Whether nothing is being made, and the last batch is attested: it is once the log was idle for a
/// while. A running server may go on meanwhile, so that what is read may make no sense.
pub(super) fn is_attested(directory: &Path) -> bool {
    let output = rk_log(&["--json", "info", text(directory)]);
    let info: Option<Value> = serde_json::from_slice(&output.stdout).ok();
    let row = info.is_some_and(|info| info["start"]["row"] == "AttestedEnd");
    row && !fingerprint(directory).keys().any(|name| name.ends_with(".new"))
}

/// The fingerprint once the server is idle: the next segment is made, the last batch attested.
fn settled(directory: &Path) -> BTreeMap<String, (Vec<u8>, std::time::SystemTime)> {
    peer::within("the server to come to rest", || {
        is_attested(directory).then_some(())?;
        let before = fingerprint(directory);
        std::thread::sleep(std::time::Duration::from_millis(500));
        (is_attested(directory) && fingerprint(directory) == before).then_some(before)
    })
}

/// A session that outlives a slow test.
pub(super) fn connect(port: u16) -> Client {
    let hello = Hello { timeout_ms: 600_000, ..Hello::default() };
    Client::attach(("127.0.0.1", port), &hello).expect("the server serves")
}

fn wait_for_snapshot(home: &Path) {
    let own = home.join("data").join("ringkeeper");
    let deadline = std::time::Instant::now() + peer::WITHIN;
    let is_one = |name: &String| name.starts_with("snapshot.") && !name.ends_with(".new");
    while !fingerprint(&own).keys().any(is_one) {
        assert!(std::time::Instant::now() < deadline, "the server takes a snapshot");
        std::thread::sleep(std::time::Duration::from_millis(10));
    }
}

/// Every kind of txn, over two lives of a server, of which each ends with a kill.
pub(super) fn fill() -> Filled {
    let server = Server::start(CONFIG);
    let mut client = connect(server.port);
    let mut moments = vec![moment(&mut client)];
    // The first segment stays as long as the oldest snapshot is inside it.
    ok(&mut client, &create("/filler", b"", 0));
    for _ in 0..FILLERS {
        ok(&mut client, &set("/filler", b"f"));
    }
    wait_for_snapshot(&server.home);
    ok(&mut client, &create("/a", b"one", 0));
    ok(&mut client, &create("/a/b c", b"with a \"space\"", 0));
    ok(&mut client, &with_kind(CreateKind::Create, "/null", None, 0));
    ok(&mut client, &with_kind(CreateKind::Create2, "/a/second", Some(b"2"), 0));
    ok(&mut client, &with_kind(CreateKind::Create, "/a/seq-", Some(&[0xff, 0]), 2));
    ok(&mut client, &with_kind(CreateKind::Container, "/container", Some(b""), 4));
    ok(&mut client, &with_kind(CreateKind::Ttl { ttl_ms: 86_400_000 }, "/ttl", Some(b"t"), 5));
    moments.push(moment(&mut client));
    ok(&mut client, &set("/a", b"two"));
    assert_eq!(client.code(&delete("/a")), ErrorCode::NOT_EMPTY);
    ok(&mut client, &delete("/a/second"));
    let acl = vec![
        RawAcl { perms: Perms::READ, scheme: Some("world".into()), id: Some("anyone".into()) },
        RawAcl { perms: Perms::ALL, scheme: Some("ip".into()), id: Some("127.0.0.1".into()) },
    ];
    let set_acl = WriteRequest::SetAcl { path: "/null".into(), acl: Some(acl), version: -1 };
    ok(&mut client, &Request::Write(set_acl));
    moments.push(moment(&mut client));
    // A session that ends with its ephemerals.
    let mut other = connect(server.port);
    ok(&mut other, &create("/gone", b"", 1));
    ok(&mut other, &Request::Write(WriteRequest::CloseSession));
    let good = vec![
        create_of(CreateKind::Create, "/multi", Some(b"m"), 0),
        WriteRequest::Check { path: "/a".into(), version: 1 },
        WriteRequest::SetData { path: "/a".into(), data: Some("three".into()), version: 1 },
        WriteRequest::Delete { path: "/a/b c".into(), version: -1 },
    ];
    ok(&mut client, &Request::Write(WriteRequest::Multi(good)));
    let bad = vec![
        create_of(CreateKind::Create, "/never", Some(b""), 0),
        WriteRequest::Delete { path: "/nowhere".into(), version: -1 },
    ];
    client.call(&Request::Write(WriteRequest::Multi(bad))).expect("it is answered");
    moments.push(moment(&mut client));
    let (home, port) = server.kill();

    let server = Server::start_in(home, port);
    let mut client = connect(port);
    ok(&mut client, &create("/ephemeral", b"e", 1));
    // Enough for a snapshot or two.
    for number in 0..100 {
        ok(&mut client, &create(&format!("/a/n{number}"), &[b'x'; 300], 0));
    }
    moments.push(moment(&mut client));
    for number in 0..100 {
        ok(&mut client, &set(&format!("/a/n{number}"), &[b'y'; 200]));
    }
    moments.push(moment(&mut client));
    let session = client.session.clone();
    let own = server.home.join("data").join("ringkeeper");
    peer::within("the last batch to be attested", || is_attested(&own).then_some(()));
    let (home, _) = server.kill();
    Filled { home, moments, session }
}

impl Filled {
    pub(super) fn data(&self) -> PathBuf {
        self.home.join("data")
    }

    pub(super) fn own(&self) -> PathBuf {
        self.data().join("ringkeeper")
    }

    /// Names of its files that begin so, sorted.
    pub(super) fn files(&self, prefix: &str) -> Vec<String> {
        let entries = fs::read_dir(self.own()).expect("it is there");
        let name = |entry: fs::DirEntry| entry.file_name().display().to_string();
        let mut names: Vec<_> = entries.map(|entry| name(entry.expect("readable"))).collect();
        names.retain(|name| name.starts_with(prefix));
        names.sort();
        names
    }

    pub(super) fn last_zxid(&self) -> Zxid {
        self.moments.last().expect("there are some").zxid
    }

    pub(super) fn clean(self) {
        peer::clean(&self.home);
    }
}

/// Bytes and times of every file.
pub(super) fn fingerprint(directory: &Path) -> BTreeMap<String, (Vec<u8>, std::time::SystemTime)> {
    let entries = fs::read_dir(directory).expect("it is there");
    // What a running server renames meanwhile is not there.
    let file = |entry: fs::DirEntry| {
        let modified = entry.metadata().ok()?.modified().expect("there are times");
        let bytes = fs::read(entry.path()).ok()?;
        Some((entry.file_name().display().to_string(), (bytes, modified)))
    };
    entries.filter_map(|entry| file(entry.expect("readable"))).collect()
}

#[test]
fn info_and_dump_show_what_the_server_did() {
    let filled = fill();
    let data = filled.data();
    let before = fingerprint(&filled.own());

    let info = json(0, &["info", text(&data)]).remove(0);
    assert_eq!(info["kind"], "directory");
    let segments = info["segments"].as_array().expect("a list");
    assert_eq!(segments.len(), filled.files("txnlog.").len());
    let records: u64 = segments.iter().filter_map(|segment| segment["records"].as_u64()).sum();
    let snapshots = info["snapshots"].as_array().expect("a list");
    assert_eq!(snapshots.len(), filled.files("snapshot.").len());
    assert!(!snapshots.is_empty(), "the server took snapshots");
    assert!(snapshots.iter().all(|snapshot| snapshot["whole"] == true), "{info}");
    assert_eq!(info["start"]["lastZxid"], filled.last_zxid().to_string());
    assert_eq!(info["start"]["row"], "AttestedEnd");
    assert_eq!(info["epochs"]["current"], 0);
    let last_tree = &filled.moments.last().expect("there are some").tree;
    assert_eq!(info["start"]["znodes"].as_u64(), Some(last_tree.len() as u64));
    let printed = expect(0, &["info", text(&data)]);
    let end = format!("a start would serve (AttestedEnd): zxid {}", filled.last_zxid());
    assert!(printed.contains(&end), "{printed}");

    let txns = json(0, &["dump", text(&data), "--data", "text"]);
    assert_eq!(txns.len() as u64, records);
    let zxids: Vec<_> = txns.iter().map(|txn| txn["zxid"].as_str().expect("text")).collect();
    let expected: Vec<_> = (1..=filled.last_zxid().0).map(|zxid| Zxid(zxid).to_string()).collect();
    assert_eq!(zxids, expected, "every txn once, in order");
    for (kind, count) in [
        ("createSession", 3),
        ("closeSession", 1),
        ("error", 1),
        ("create2", 1),
        ("createContainer", 1),
        ("createTTL", 1),
        ("setACL", 1),
        ("delete", 1),
        ("multi", 2),
        ("setData", 101 + FILLERS),
    ] {
        assert_eq!(txns.iter().filter(|txn| txn["type"] == kind).count(), count, "{kind}");
        let mut by_type = json(0, &["dump", text(&data), "--type", kind]);
        by_type.retain(|txn| txn["type"] != "multi" || kind == "multi");
        assert_eq!(by_type.len(), count, "{kind}");
    }
    let multi = txns.iter().find(|txn| txn["type"] == "multi").expect("there are two");
    assert_eq!(multi["ops"][0]["path"], "/multi");
    assert_eq!(multi["ops"][1], serde_json::json!({"type": "check", "path": "/a", "version": 2}));
    assert_eq!(multi["ops"][2]["data"], "three");
    let null = txns.iter().find(|txn| txn["path"] == "/null").expect("it was created");
    assert_eq!((&null["data"], &null["dataBytes"]), (&Value::Null, &Value::Null));
    let ttl = txns.iter().find(|txn| txn["type"] == "createTTL").expect("it was created");
    assert_eq!(ttl["ttlMs"], 86_400_000);
    let closed = txns.iter().find(|txn| txn["type"] == "closeSession").expect("one ended");
    assert_eq!(closed["paths"], serde_json::json!(["/gone"]));
    let binary = txns.iter().find(|txn| txn["dataBase64"].is_string()).expect("not UTF-8");
    assert_eq!(binary["dataBase64"], "/wA=");

    filters(&data, &txns);
    dump_of_snapshots(&filled);
    assert_eq!(fingerprint(&filled.own()), before, "nothing was written");
    filled.clean();
}

fn filters(data: &Path, txns: &[Value]) {
    let count = |arguments: &[&str]| json(0, &[&["dump", text(data)], arguments].concat()).len();
    // The create, the deletion inside the multi.
    assert_eq!(count(&["--path", "/a/b c"]), 2);
    assert_eq!(count(&["--path", "/multi", "--exact"]), 1);
    // The create, two sets of which one is inside the multi.
    assert_eq!(count(&["--path", "/a", "--exact"]), 3);
    assert_eq!(count(&["--path", "/a"]), count(&["--path", "/a/"]));
    assert!(200 < count(&["--path", "/a"]), "those below count");
    assert_eq!(count(&["--path", "/gone"]), 2, "create and close");
    assert_eq!(count(&["--path", "/"]), count(&["--path", "/", "--zxid", "0x1.."]));
    assert_eq!(count(&["--zxid", "0x3..5"]), 3);
    assert_eq!(count(&["--zxid", "..0x2"]), 2);
    assert_eq!(count(&["--zxid", "7"]), 1);
    let session = txns[0]["session"].as_str().expect("text");
    let of_session = txns.iter().filter(|txn| txn["session"] == session).count();
    assert_eq!(count(&["--session", session]), of_session);
    let (time, ms) = (txns[9]["time"].as_str().expect("text"), txns[9]["timeMs"].to_string());
    let expected = txns.iter().filter(|txn| txn["timeMs"].as_i64() <= txns[9]["timeMs"].as_i64());
    let expected = expected.count();
    assert_eq!(count(&["--time", &format!("..{time}")]), expected);
    assert_eq!(count(&["--time", &format!("..{ms}")]), expected);
    assert_eq!(count(&["--time", "..2001-01-01T00:00:00Z"]), 0);
    let line = expect(0, &["dump", text(data), "--data", "text", "--path", "/a/b c"]);
    let line = line.lines().next().expect("two lines").to_owned();
    let txn = txns.iter().find(|txn| txn["path"] == "/a/b c").expect("it was created");
    let field = |key: &str| txn[key].as_str().expect("text");
    assert!(line.starts_with(field("time")), "{line}");
    let zxid = field("zxid");
    assert!(line.contains(&format!(" zxid {zxid} create \"/a/b c\" data=\"with a \\\"")), "{line}");
    assert!(line.contains(" acl=[world:anyone:cdrwa] ephemeral=false "), "{line}");
}

fn dump_of_snapshots(filled: &Filled) {
    for name in filled.files("snapshot.") {
        let path = filled.own().join(&name);
        let lines = json(0, &["dump", text(&path), "--data", "base64"]);
        let znodes: Vec<_> = lines.iter().filter(|line| line["path"].is_string()).collect();
        let info = json(0, &["info", text(&path)]).remove(0);
        assert_eq!(info["snapshots"][0]["znodes"].as_u64(), Some(znodes.len() as u64), "{name}");
        assert!(lines.iter().any(|line| line["session"].is_string()), "{name}");
        let printed = expect(0, &["dump", text(&path), "--path", "/ttl"]);
        let is_there = znodes.iter().any(|znode| znode["path"] == "/ttl");
        assert_eq!(printed.lines().count(), usize::from(is_there), "{printed}");
        assert_eq!(printed.starts_with("znode /ttl bytes=1 acl="), is_there, "{printed}");
        assert_eq!(printed.contains(" ttl=86400000 "), is_there, "{printed}");
        expect(0, &["verify", text(&path)]);
    }
    for name in filled.files("txnlog.") {
        let path = filled.own().join(&name);
        expect(0, &["info", text(&path)]);
        expect(0, &["dump", text(&path)]);
    }
}

/// Where batches and records are, as the tool itself says.
fn places(filled: &Filled) -> Vec<(String, u64, u64)> {
    let txns = json(0, &["dump", text(&filled.data())]);
    let place = |txn: &Value| {
        let number = |key: &str| txn[key].as_u64().expect("a number");
        let zxid = txn["zxid"].as_str().and_then(|zxid| zxid.strip_prefix("0x")).expect("hex");
        let zxid = u64::from_str_radix(zxid, 16).expect("hex");
        (txn["file"].as_str().expect("text").to_owned(), number("offset"), zxid)
    };
    txns.iter().map(place).collect()
}

/// The same directory with one file changed; the others are shared, since nothing writes to them.
fn damaged(filled: &Filled, file: &str, change: impl FnOnce(&mut Vec<u8>)) -> PathBuf {
    let copy = peer::fresh_directory();
    for name in filled.files("").iter().filter(|name| *name != file) {
        fs::hard_link(filled.own().join(name), copy.join(name)).expect("one file system");
    }
    let mut bytes = fs::read(filled.own().join(file)).expect("it is there");
    change(&mut bytes);
    fs::write(copy.join(file), bytes).expect("the directory is writable");
    copy
}

/// Whether verify finds damage at exactly this place.
fn finds(directory: &Path, file: &str, offset: u64) -> bool {
    let report = json(1, &["verify", text(directory)]).remove(0);
    assert_eq!(report["sound"], false);
    let findings = report["findings"].as_array().expect("a list");
    let is_it = |finding: &Value| {
        finding["level"] == "damage" && finding["file"] == file && finding["offset"] == offset
    };
    assert!(findings.iter().all(|finding| finding["meaning"].is_string()), "{report}");
    findings.iter().any(is_it)
}

#[test]
fn verify_finds_every_damage_where_it_is() {
    const BLOCK: u64 = 4096;
    let filled = fill();
    let report = json(0, &["verify", text(&filled.data())]).remove(0);
    assert_eq!(report["sound"], true);
    assert_eq!(report["checked"]["replayed"], report["checked"]["records"], "{report}");
    assert!(expect(0, &["verify", text(&filled.data())]).ends_with("sound\n"));

    // Batches start on blocks; a flip in any header, a zeroed record, for one batch in a few.
    let places = places(&filled);
    let mut tried = 0;
    for (file, offset, zxid) in places.iter().step_by(9).chain(places.last()) {
        let batch = offset / BLOCK * BLOCK;
        let in_header = [0, 5, 9, 17, 25, 29, 33, 57, 73, 77, 81][tried % 11];
        let copy = damaged(&filled, file, |bytes| bytes[batch as usize + in_header] ^= 1);
        assert!(finds(&copy, file, batch), "zxid {zxid}, header byte {in_header}");
        peer::clean(&copy);
        let copy = damaged(&filled, file, |bytes| {
            bytes[*offset as usize..*offset as usize + 40].fill(0);
        });
        assert!(finds(&copy, file, batch), "zxid {zxid}, zeroed record");
        let left = json(1, &["dump", text(&copy)]);
        let shown = left.iter().filter(|line| line["zxid"].is_string()).count();
        assert!(places.len() - 20 <= shown, "{shown} of {} txns are shown", places.len());
        assert!(left.iter().any(|line| line["damage"].is_string()), "the damage is shown");
        peer::clean(&copy);
        tried += 1;
    }
    assert!(20 < tried, "{tried} places");

    let first = &filled.files("txnlog.")[0];
    let copy = damaged(&filled, first, |bytes| bytes[40] ^= 1);
    assert!(finds(&copy, first, 0), "a segment's header");
    expect(1, &["info", text(&copy)]);
    peer::clean(&copy);
    let copy = damaged(&filled, first, |bytes| bytes.truncate(2 << 20));
    assert!(finds(&copy, first, 0), "a segment cut short");
    peer::clean(&copy);
    for name in filled.files("snapshot.") {
        let len = fs::metadata(filled.own().join(&name)).expect("it is there").len();
        for block in 0..len / BLOCK {
            let at = block * BLOCK + 30;
            let copy = damaged(&filled, &name, |bytes| bytes[at as usize] ^= 1);
            let text = expect(1, &["verify", text(&copy)]);
            assert!(text.contains(&format!("DAMAGE {name} offset ")), "{at}: {text}");
            peer::clean(&copy);
        }
    }
    let copy = damaged(&filled, "epochs", |bytes| bytes.fill(7));
    assert!(finds(&copy, "epochs", 0), "the epochs record");
    peer::clean(&copy);
    filled.clean();
}

/// Starts a server on `home`, whose `data` is there, and gives the tree it serves.
pub(super) fn serve(home: &Path) -> (Server, Client, Seen) {
    let port = peer::free_port();
    peer::write_config(home, port, CONFIG);
    let server = Server::start_in(home.to_owned(), port);
    let mut client = client::connect(port).expect("the server serves");
    let tree = look(&mut client);
    (server, client, tree)
}

/// The same with Apache's server, on the history in `data/version-2`.
fn serve_apache(jars: &Path, home: &Path) -> (Apache, Seen) {
    let port = peer::free_port();
    peer::write_config(home, port, "");
    let server = Apache::start_in(&Java::new(jars), home, port);
    let mut client = client::connect(port).expect("the server serves");
    let tree = look(&mut client);
    (server, tree)
}

#[test]
fn replay_builds_what_the_server_held_at_each_zxid() {
    let filled = fill();
    let before = fingerprint(&filled.own());
    let data = filled.data();
    for (at, moment) in filled.moments.iter().enumerate() {
        let home = peer::fresh_directory();
        let out = home.join("data");
        let zxid = moment.zxid.to_string();
        let made = json(0, &["replay", text(&data), "--to", &zxid, text(&out)]).remove(0);
        assert_eq!(made["zxid"], zxid);
        assert_eq!(made["znodes"].as_u64(), Some(moment.tree.len() as u64));
        let (server, client, tree) = serve(&home);
        assert_eq!(tree, moment.tree, "moment {at}, zxid {zxid}");
        drop(client);
        if at + 1 == filled.moments.len() {
            let ConnectResponse { session, password, .. } = filled.session;
            let attached = client::attach(server.port, session, password, Zxid::ZERO);
            assert_eq!(attached.expect("the server serves").session.session, session);
        }
        drop(server);
        peer::clean(&home);
    }
    // By time: as far as the txns that are not later.
    let txns = json(0, &["dump", text(&data)]);
    let time = txns[txns.len() / 2]["timeMs"].as_i64().expect("a time");
    let later = |txn: &&Value| time < txn["timeMs"].as_i64().expect("a time");
    let upto = txns.iter().position(|txn| later(&txn)).expect("some are later") - 1;
    let home = peer::fresh_directory();
    let rfc = txns[txns.len() / 2]["time"].as_str().expect("text");
    let out = home.join("out");
    let made = json(0, &["replay", text(&data), "--to", rfc, text(&out)]).remove(0);
    assert_eq!(made["zxid"], txns[upto]["zxid"]);

    let own = filled.own();
    let beyond = Zxid(filled.last_zxid().0 + 1).to_string();
    let new = home.join("new");
    for (code, arguments, said) in [
        (2, ["replay", text(&data), "--to", "5", text(&out)], "is not empty"),
        (2, ["replay", text(&data), "--to", "5", text(&own.join("x"))], "inside what is inspected"),
        (2, ["replay", text(&own.join("epochs")), "--to", "5", text(&new)], ""),
        (3, ["replay", text(&data), "--to", &beyond, text(&new)], "cannot be reached"),
        (2, ["replay", text(&data), "--to", "soon", text(&new)], "is no number"),
    ] {
        let output = rk_log(&arguments);
        let errors = String::from_utf8_lossy(&output.stderr);
        let code = if said.is_empty() { 3 } else { code };
        assert_eq!(output.status.code(), Some(code), "{arguments:?}: {errors}");
        assert!(errors.contains(said), "{arguments:?}: {errors}");
        assert!(!new.exists(), "nothing is made");
    }
    // A way that is broken.
    let (file, offset, zxid) = places(&filled).pop().expect("there are some");
    let copy = damaged(&filled, &file, |bytes| bytes[offset as usize] ^= 1);
    let _none_there = fs::remove_file(copy.join(format!("snapshot.{zxid:016x}")));
    let zxid = format!("0x{zxid:x}");
    expect(3, &["replay", text(&copy), "--to", &zxid, text(&new)]);
    peer::clean(&copy);
    peer::clean(&home);
    assert_eq!(fingerprint(&filled.own()), before, "nothing was written");
    filled.clean();
}

#[test]
fn compact_leaves_what_a_server_needs() {
    let filled = fill();
    let before = fingerprint(&filled.own());
    let data = filled.data();
    let middle = filled.moments[filled.moments.len() - 2].zxid.to_string();
    for to in [None, Some(middle.as_str())] {
        let home = peer::fresh_directory();
        let out = home.join("out");
        let to = to.map(|zxid| vec!["--to", zxid]).unwrap_or_default();
        let arguments = [&["compact", text(&data)], &to[..], &[text(&out)]].concat();
        let made = json(0, &arguments).remove(0);
        assert_eq!(fingerprint(&filled.own()), before, "nothing was removed");
        let spare = made["noLongerNeeded"].as_array().expect("a list");
        let names: Vec<_> =
            spare.iter().filter_map(|path| path.as_str()?.rsplit('/').next()).collect();
        assert!(names.iter().any(|name| name.starts_with("txnlog.")), "{made}");
        assert!(names.iter().any(|name| name.starts_with("snapshot.")), "{made}");
        // As an operator does it.
        let own = home.join("data").join("ringkeeper");
        fs::create_dir_all(&own).expect("the directory is writable");
        for (name, (bytes, _)) in before.iter().filter(|(name, _)| !names.contains(&name.as_str()))
        {
            fs::write(own.join(name), bytes).expect("the directory is writable");
        }
        let snapshot = Path::new(made["snapshot"].as_str().expect("text"));
        let name = snapshot.file_name().expect("it has a name");
        fs::copy(snapshot, own.join(name)).expect("the directory is writable");
        let (server, client, tree) = serve(&home);
        assert_eq!(&tree, &filled.moments.last().expect("there are some").tree);
        drop((client, server));
        peer::clean(&home);
    }
    filled.clean();
}

/// Sets `/a` to long values, twenty on the way at a time.
fn write(client: &mut Client, count: usize) {
    for _ in 0..count / 20 {
        for _ in 0..20 {
            client.send(&set("/a", &[b'z'; 3000])).expect("it is sent");
        }
        for _ in 0..20 {
            client.receive().expect("it is answered");
        }
    }
}

#[test]
fn a_running_servers_files_are_read_and_not_touched() {
    let server = Server::start(CONFIG);
    let mut client = connect(server.port);
    ok(&mut client, &create("/a", b"x", 0));
    let own = server.home.join("data").join("ringkeeper");
    let before = settled(&own);
    let data = server.home.join("data");
    for command in ["info", "dump", "verify"] {
        let output = rk_log(&[command, text(&data)]);
        assert!(output.status.success(), "{command}");
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        let running = format!("process {} is running on it", server.pid());
        assert!(said.contains(&running), "{command}: {said}");
    }
    assert_eq!(fingerprint(&own), before);
    // While it writes, every look is a moment's, and sound.
    let port = server.port;
    let stop = std::sync::Arc::new(std::sync::atomic::AtomicBool::new(false));
    let stopping = std::sync::Arc::clone(&stop);
    let writer = std::thread::spawn(move || {
        let mut client = client::connect(port).expect("the server serves");
        while !stopping.load(std::sync::atomic::Ordering::Relaxed) {
            write(&mut client, 20);
        }
    });
    for _ in 0..10 {
        expect(0, &["verify", text(&data)]);
    }
    stop.store(true, std::sync::atomic::Ordering::Relaxed);
    writer.join().expect("the writer ends");
    let home = server.home.clone();
    drop(server);
    peer::clean(&home);
}

#[test]
fn a_look_is_begun_anew_where_what_it_found_was_removed_meanwhile() {
    let server = Server::start(CONFIG);
    let mut client = connect(server.port);
    ok(&mut client, &create("/a", b"x", 0));
    let data = server.home.join("data");
    for pause_us in (600..3000).step_by(80) {
        let mut look = Command::new(env!("CARGO_BIN_EXE_rk-log"));
        look.args(["verify", text(&data)]).stdout(Stdio::piped()).stderr(Stdio::piped());
        let look = look.spawn().expect("the program was built");
        std::thread::sleep(std::time::Duration::from_micros(pause_us));
        peer::signal(&look, libc::SIGSTOP);
        // Enough for snapshots and segments to be removed.
        write(&mut client, 2600);
        peer::signal(&look, libc::SIGCONT);
        let output = look.wait_with_output().expect("it ends");
        let said = String::from_utf8_lossy(&output.stdout);
        assert!(output.status.success(), "stopped after {pause_us} us: {said}");
    }
    let home = server.home.clone();
    drop((client, server));
    peer::clean(&home);
}

#[test]
fn apaches_directories_are_shown_checked_and_replayed() {
    let Some(jars) = apache::jars() else {
        return apache::skip("rk-log on Apache's files", "no java or no Apache ZooKeeper");
    };
    let server = Apache::start(&jars, "");
    let mut client = client::connect(server.port).expect("it serves");
    let mut moments = Vec::new();
    ok(&mut client, &create("/a", b"one", 0));
    ok(&mut client, &create("/a/b", b"two", 0));
    moments.push(moment(&mut client));
    for number in 0..30 {
        ok(&mut client, &create(&format!("/a/n{number}"), &[b'x'; 300], 0));
    }
    assert_eq!(client.code(&delete("/a")), ErrorCode::NOT_EMPTY);
    moments.push(moment(&mut client));
    ok(&mut client, &delete("/a/b"));
    ok(&mut client, &set("/a", b"three"));
    moments.push(moment(&mut client));
    let home = server.home.clone();
    let data = home.join("data");
    let own = data.join("version-2");
    // While it runs, too.
    let before = fingerprint(&own);
    let info = json(0, &["info", text(&data)]).remove(0);
    assert_eq!(info["kind"], "apache");
    assert_eq!(info["import"]["lastZxid"], moments[2].zxid.to_string(), "{info}");
    let txns = json(0, &["dump", text(&data), "--data", "text"]);
    assert_eq!(txns.len() as i64, moments[2].zxid.0, "{txns:?}");
    assert!(txns.iter().any(|txn| txn["type"] == "error" && txn["error"] == "NOT_EMPTY"));
    assert_eq!(json(0, &["dump", text(&data), "--path", "/a/b"]).len(), 2);
    expect(0, &["verify", text(&data)]);
    for (at, moment) in moments.iter().enumerate() {
        let home = peer::fresh_directory();
        let out = home.join("data");
        let zxid = moment.zxid.to_string();
        let made = json(0, &["replay", text(&data), "--to", &zxid, text(&out)]).remove(0);
        assert_eq!(made["zxid"], zxid);
        let (server, client, tree) = serve(&home);
        assert_eq!(tree, moment.tree, "moment {at}, zxid {zxid}");
        drop((client, server));
        peer::clean(&home);
    }
    // A server of Apache's starts from a compacted directory.
    let compacted = peer::fresh_directory();
    let out = compacted.join("out");
    let made = json(0, &["compact", text(&data), text(&out)]).remove(0);
    let snapshot = Path::new(made["snapshot"].as_str().expect("a path"));
    let place = compacted.join("data").join("version-2");
    fs::create_dir_all(&place).expect("it is writable");
    fs::copy(snapshot, place.join(snapshot.file_name().expect("it has one"))).expect("writable");
    let (from_it, tree) = serve_apache(&jars, &compacted);
    assert_eq!(tree, moments[2].tree, "compacted");
    drop(from_it);
    peer::clean(&compacted);
    assert_eq!(fingerprint(&own), before, "nothing was written");
    // Every record, zeroed or flipped, is found, and those behind it are shown.
    for txn in txns.iter().step_by(5) {
        let (file, offset) = (txn["file"].as_str().expect("text"), txn["offset"].as_u64());
        let offset = offset.expect("a number");
        let copy = peer::fresh_directory();
        for (name, (mut bytes, _)) in fingerprint(&own) {
            if name == file {
                bytes[offset as usize + 20] ^= 1;
            }
            fs::write(copy.join(name), bytes).expect("the directory is writable");
        }
        assert!(finds(&copy, file, offset), "offset {offset}");
        let left = json(1, &["dump", text(&copy)]);
        assert_eq!(left.len(), txns.len(), "one is damaged, the others are shown");
        peer::clean(&copy);
    }
    for name in before.keys().filter(|name| name.contains('.')) {
        expect(0, &["info", text(&own.join(name))]);
        expect(0, &["dump", text(&own.join(name))]);
        expect(0, &["verify", text(&own.join(name))]);
    }
    drop(server);
    peer::clean(&home);
}

#[test]
fn a_file_that_shrinks_while_it_is_read_ends_nothing() {
    use std::io::Read;
    // A snapshot whose dump is far longer than a pipe holds, so that it waits in the middle of it.
    let home = peer::fresh_directory();
    let path = home.join(catalog::file_name(Zxid(9)));
    let mut encoder = SnapshotEncoder::new(Zxid(9), WallMs(0));
    for number in 0..1000 {
        let (data, acl) = ([number as u8; 20_000], [Acl::open()].into());
        encoder.znode(&format!("/{number}"), Some(&data), &acl, &StatPersisted::default());
    }
    fs::write(&path, encoder.finish(0)).expect("the directory is writable");
    let mut child = Command::new(env!("CARGO_BIN_EXE_rk-log"))
        .args(["dump", text(&path), "--data", "base64"])
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("the program was built");
    let mut out = child.stdout.take().expect("it is piped");
    out.read_exact(&mut [0]).expect("it prints");
    let file = fs::OpenOptions::new().write(true).open(&path).expect("the file is ours");
    file.set_len(4096).expect("the file is ours");
    let mut rest = String::new();
    out.read_to_string(&mut rest).expect("it prints");
    assert!(rest.contains("DAMAGE snapshot.0000000000000009 offset "), "zeros are damage");
    let output = child.wait_with_output().expect("it ends");
    assert_eq!(output.status.code(), Some(1), "it ends by itself");
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(said.contains("became shorter while it was read"), "{said}");
    peer::clean(&home);
}

#[test]
fn wrong_usage_and_unreadable_places_have_their_codes() {
    let empty = peer::fresh_directory();
    let file = empty.join("file");
    fs::write(&file, b"nothing of ours").expect("the directory is writable");
    for (code, arguments, said) in [
        (3, &["info", "/nowhere/at/all"][..], "/nowhere/at/all"),
        (3, &["verify", text(&empty)], "neither a data directory"),
        (3, &["dump", text(&file)], "neither a log nor a snapshot"),
        (2, &["dump", text(&empty), "--zxid", "x..y"], "is no number"),
        (2, &["dump", text(&empty), "--type", "nothing"], "is none of createSession"),
        (2, &["dump", text(&empty), "--time", "noon.."], "neither a time"),
        (2, &["dump", text(&empty), "--path", "a"], "must begin with /"),
        (2, &["nothing"], "unrecognized subcommand"),
        (2, &["info", text(&file), "--log-dir", text(&empty)], "--log-dir"),
    ] {
        let output = rk_log(arguments);
        let errors = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(code), "{arguments:?}: {errors}");
        assert!(errors.contains(said), "{arguments:?}: {errors}");
    }
    peer::clean(&empty);
}

/// Where no log leads up to a snapshot, or one is damaged.
#[test]
fn a_snapshot_counts_as_far_as_it_is_known() {
    let filled = fill();
    let newest = filled.files("snapshot.").pop().expect("there are some");
    let home = peer::fresh_directory();
    let alone = home.join("ringkeeper");
    fs::create_dir(&alone).expect("the directory is writable");
    fs::copy(filled.own().join(&newest), alone.join(&newest)).expect("it is writable");
    let out = home.join("out");
    for command in ["replay", "compact"] {
        let before = ["1970-01-02T00:00:00Z", "2020-01-01T00:00:00Z"];
        for time in before {
            let output = rk_log(&[command, text(&alone), "--to", time, text(&out)]);
            let said = String::from_utf8_lossy(&output.stderr);
            assert_eq!(output.status.code(), Some(3), "{command} {time}: {said}");
            assert!(said.contains("cannot be reached") && said.contains(&newest), "{said}");
            assert!(!out.exists(), "nothing is made");
        }
    }
    let arguments = ["replay", text(&alone), "--to", "2100-01-01T00:00:00Z", text(&out)];
    let made = json(0, &arguments).remove(0);
    let digits = made["zxid"].as_str().expect("text").trim_start_matches("0x").to_owned();
    assert!(newest.ends_with(&digits), "{made}");
    let shown = json(0, &["dump", text(&alone)]);
    assert!(shown.iter().any(|line| line["path"] == "/a"), "the snapshot is shown");
    // The one before the damaged one does, and that is said.
    let copy = damaged(&filled, &newest, |bytes| {
        let middle = bytes.len() / 2;
        bytes[middle] ^= 1;
    });
    let zxid = filled.last_zxid().to_string();
    for command in ["replay", "compact"] {
        let out = home.join(command);
        let output = rk_log(&[command, text(&copy), "--to", &zxid, text(&out)]);
        let said = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(1), "{command}: {said}");
        let named = format!("{} is not used", copy.join(&newest).display());
        assert!(said.contains(&named), "{said}");
    }
    let config = home.join("zoo.cfg");
    fs::write(&config, "dataDir=/nowhere\n").expect("it is writable");
    expect(2, &["info", text(&config), "--log-dir", text(&home)]);
    peer::clean(&copy);
    peer::clean(&home);
    filled.clean();
}
