//! rk-log on the directories of ensembles: a history that a leader's snapshot is to replace or has
//! replaced, a snapshot that is ahead of its zxid, and the epoch of an old history.

use std::fs;
use std::path::{Path, PathBuf};

use bytes::{Bytes, BytesMut};
use ringkeeper::apache::{self, Compression, names};
use ringkeeper::base::{Str, WallMs};
use ringkeeper::model::{
    Acl, CreateTxn, CreateTxnKind, SessionId, StatPersisted, TxnBody, TxnHeader, Zxid,
};
use ringkeeper::server::install::{self, Install};
use ringkeeper::snapshot::inspect::{What, items_of};
use ringkeeper::snapshot::{SnapshotEncoder, SnapshotItem, catalog};
use ringkeeper::wire;
use serde_json::Value;

use super::client::create;
use super::peer::{self, Server};
use super::rk_log::{
    CONFIG, Filled, Moment, Seen, connect, expect, fill, fingerprint, is_attested, json, moment,
    ok, rk_log, serve, text,
};

/// The exact state at a moment of `data`, as a leader that went on meanwhile would have sent it
/// under an earlier zxid.
fn received(data: &Path, at: Zxid, under: Zxid) -> Bytes {
    let home = peer::fresh_directory();
    let (out, zxid) = (home.join("out"), at.to_string());
    let made = json(0, &["compact", text(data), "--to", &zxid, text(&out)]).remove(0);
    let exact = fs::read(made["snapshot"].as_str().expect("text")).expect("it was written");
    peer::clean(&home);
    let mut encoder = SnapshotEncoder::new(under, WallMs(1));
    let (mut shown, mut digest) = (under, 0);
    for seen in items_of(Bytes::from(exact)) {
        match seen.what {
            What::Item(SnapshotItem::Session { id, timeout_ms }) => encoder.session(id, timeout_ms),
            What::Item(SnapshotItem::Znode { path, data, acl, stat }) => {
                shown = shown.max(stat.czxid).max(stat.mzxid).max(stat.pzxid);
                encoder.znode(&path, data.as_deref(), &acl, &stat);
            }
            What::End(summary) => digest = summary.digest,
            What::Header(..) => {}
            What::Damage(what) => panic!("{what}"),
        }
    }
    encoder.finish_fuzzy(digest, shown)
}

/// The same files, all but those that are not wanted.
fn copy_of(filled: &Filled, is_wanted: impl Fn(&str) -> bool) -> PathBuf {
    let home = peer::fresh_directory();
    let own = home.join("data").join("ringkeeper");
    fs::create_dir_all(&own).expect("the directory is writable");
    for name in filled.files("").iter().filter(|name| is_wanted(name)) {
        fs::copy(filled.own().join(name), own.join(name)).expect("the directory is writable");
    }
    home
}

fn put(home: &Path, name: &str, bytes: &[u8]) {
    let path = home.join("data").join("ringkeeper").join(name);
    fs::write(path, bytes).expect("the directory is writable");
}

/// Builds the state at the moment, starts a server on it, and gives what that serves.
fn replayed(data: &Path, to: &str) -> Seen {
    let home = peer::fresh_directory();
    expect(0, &["replay", text(data), "--to", to, text(&home.join("data"))]);
    let (server, client, tree) = serve(&home);
    drop((client, server));
    peer::clean(&home);
    tree
}

/// It cannot do its work, says why, and makes nothing.
fn refuses(arguments: &[&str], said: &str) {
    let home = peer::fresh_directory();
    let out = home.join("out");
    let output = rk_log(&[arguments, &[text(&out)]].concat());
    let errors = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(3), "{arguments:?}: {errors}");
    assert!(errors.contains(said), "{arguments:?}: {errors}");
    assert!(!out.exists(), "nothing is made");
    peer::clean(&home);
}

fn findings(code: i32, data: &Path) -> Vec<(String, String)> {
    let report = json(code, &["verify", text(data)]).remove(0);
    let findings = report["findings"].as_array().expect("a list").iter();
    let word = |finding: &Value, key: &str| finding[key].as_str().expect("text").to_owned();
    findings.map(|finding| (word(finding, "level"), word(finding, "file"))).collect()
}

fn pair(level: &str, file: &str) -> (String, String) {
    (level.to_owned(), file.to_owned())
}

/// A history, what a leader sent to replace it, and what that shows.
struct Replaced {
    old: Filled,
    new: Moment,
    snapshot: Bytes,
    record: Install,
}

impl Replaced {
    fn make() -> Self {
        let leader = Server::start(CONFIG);
        let mut client = connect(leader.port);
        for number in 0..20 {
            ok(&mut client, &create(&format!("/new-{number}"), b"new", 0));
        }
        let new = moment(&mut client);
        drop(client);
        let (home, _) = leader.kill();
        let snapshot = received(&home.join("data"), new.zxid, new.zxid);
        peer::clean(&home);
        let old = fill();
        let segments = old.files("txnlog.");
        assert!(1 < segments.len(), "{segments:?}");
        let last = segments.iter().filter_map(|name| ringkeeper::txnlog::segment_sequence(name));
        let first_segment = last.max().expect("there are some") + 1;
        let record = Install { zxid: new.zxid, first_segment };
        Self { old, new, snapshot, record }
    }

    /// Right behind the record's renaming.
    fn recorded(&self) -> PathBuf {
        let home = copy_of(&self.old, |_| true);
        put(&home, &catalog::received_name(self.new.zxid), &self.snapshot);
        put(&home, install::FILE_NAME, &self.record.encode());
        home
    }

    /// The snapshot has its name, the others are gone, and so is a part of the log.
    fn half_done(&self) -> PathBuf {
        let oldest = &self.old.files("txnlog.")[0];
        let home = copy_of(&self.old, |name| !name.starts_with("snapshot.") && name != oldest);
        put(&home, &catalog::file_name(self.new.zxid), &self.snapshot);
        put(&home, install::FILE_NAME, &self.record.encode());
        home
    }
}

#[test]
fn a_received_snapshot_that_is_to_replace_all_counts_as_at_a_start() {
    let replaced = Replaced::make();
    let (old, new) = (&replaced.old, &replaced.new);
    for (home, is_named) in [(replaced.recorded(), false), (replaced.half_done(), true)] {
        let data = home.join("data");
        let own = data.join("ringkeeper");
        let before = fingerprint(&own);
        let info = json(0, &["info", text(&data)]).remove(0);
        assert_eq!(info["install"]["zxid"], new.zxid.to_string());
        assert_eq!(info["install"]["firstSegment"], replaced.record.first_segment);
        let name = match is_named {
            true => catalog::file_name(new.zxid),
            false => catalog::received_name(new.zxid),
        };
        let snapshots = info["snapshots"].as_array().expect("a list");
        let it = snapshots.iter().find(|snapshot| snapshot["file"] == name.as_str());
        let it = it.expect("it is shown");
        assert_eq!((&it["whole"], &it["zxid"]), (&Value::Bool(true), &info["install"]["zxid"]));
        assert!(it["fuzzyUntil"].is_string(), "{it}");
        assert!(info["leftovers"].as_array().expect("a list").is_empty(), "{info}");
        let start = &info["start"];
        assert_eq!(start["lastZxid"], new.zxid.to_string());
        assert_eq!(start["znodes"].as_u64(), Some(new.tree.len() as u64));
        let changes = start["changes"].to_string();
        for gone in before.keys().filter(|name| name.starts_with("txnlog.")) {
            assert!(changes.contains(&format!("{gone}\"")), "{gone}: {changes}");
        }
        let printed = expect(0, &["info", text(&data)]);
        assert!(printed.contains("is to take the place of everything else"), "{printed}");

        assert_eq!(findings(0, &data), [pair("note", install::FILE_NAME), pair("note", "")]);
        // What is in the files is shown as long as it is there.
        let segments = before.keys().filter(|name| name.starts_with("txnlog."));
        let of = |name: &String| json(0, &["dump", text(&own.join(name))]).len();
        let records: usize = segments.map(of).sum();
        assert_eq!(json(0, &["dump", text(&data)]).len(), records);
        assert_eq!(replayed(&data, &new.zxid.to_string()), new.tree);
        let beyond = old.last_zxid().to_string();
        refuses(&["replay", text(&data), "--to", &beyond], "cannot be reached");
        refuses(&["compact", text(&data)], "must be done first");
        assert_eq!(fingerprint(&own), before, "nothing was written");

        // The start does what was foretold, and goes on from there.
        let port = peer::free_port();
        peer::write_config(&home, port, CONFIG);
        let server = Server::start_in(home.clone(), port);
        let mut client = connect(port);
        ok(&mut client, &create("/later", b"", 0));
        let later = moment(&mut client);
        peer::within("the last batch to be attested", || is_attested(&own).then_some(()));
        drop(client);
        drop(server);
        let info = json(0, &["info", text(&data)]).remove(0);
        assert!(info["install"].is_null(), "{info}");
        assert_eq!(info["start"]["lastZxid"], later.zxid.to_string());
        assert!(info["start"]["inexact"].is_null(), "a digest was equal: {info}");
        assert_eq!(findings(0, &data), []);
        assert_eq!(replayed(&data, &later.zxid.to_string()), later.tree);
        let out = home.join("out");
        let made = json(0, &["compact", text(&data), text(&out)]).remove(0);
        let made = Path::new(made["snapshot"].as_str().expect("text"));
        let info = json(0, &["info", text(made)]).remove(0);
        assert!(info["snapshots"][0]["fuzzyUntil"].is_null(), "what is compacted is exact");
        peer::clean(&home);
    }
    replaced.old.clean();
}

#[test]
fn a_record_that_cannot_be_carried_out_leaves_what_was_there() {
    let replaced = Replaced::make();
    let old = &replaced.old;
    let last = old.last_zxid().to_string();
    let tree = &old.moments.last().expect("there are some").tree;
    let received = catalog::received_name(replaced.new.zxid);

    let home = replaced.recorded();
    let data = home.join("data");
    let mut damaged = replaced.snapshot.to_vec();
    damaged[4096 + 30] ^= 1;
    put(&home, &received, &damaged);
    let info = json(1, &["info", text(&data)]).remove(0);
    assert_eq!(info["start"]["lastZxid"], last.as_str());
    assert!(findings(1, &data).contains(&pair("damage", install::FILE_NAME)));
    assert_eq!(&replayed(&data, &last), tree);
    // Neither would a start remove a snapshot of before, nor may one be put there.
    refuses(&["compact", text(&data)], "must be done first");

    // A record without its snapshot says nothing.
    fs::remove_file(data.join("ringkeeper").join(&received)).expect("it is there");
    assert_eq!(findings(0, &data), [pair("note", install::FILE_NAME)]);
    assert_eq!(json(0, &["info", text(&data)])[0]["start"]["lastZxid"], last.as_str());
    assert_eq!(&replayed(&data, &last), tree);
    peer::clean(&home);

    // A record that does not decode leaves two histories, and nobody knows which counts.
    let home = replaced.recorded();
    let data = home.join("data");
    let mut damaged = replaced.record.encode().to_vec();
    damaged[9] ^= 1;
    put(&home, install::FILE_NAME, &damaged);
    let info = json(1, &["info", text(&data)]).remove(0);
    assert_eq!(info["install"]["whole"], false);
    assert!(info["start"]["refused"].is_string(), "{info}");
    let damage = [pair("damage", install::FILE_NAME), pair("damage", "")];
    assert_eq!(findings(1, &data), damage);
    refuses(&["replay", text(&data), "--to", &last], "is not known");
    refuses(&["compact", text(&data)], "must be done first");
    peer::clean(&home);
    replaced.old.clean();
}

#[test]
fn a_snapshot_that_is_ahead_is_made_exact_or_refused() {
    let filled = fill();
    let (from, to) = (&filled.moments[1], &filled.moments[4]);
    let fuzzy = received(&filled.data(), to.zxid, from.zxid);
    let home = copy_of(&filled, |name| !name.starts_with("snapshot."));
    put(&home, &catalog::file_name(from.zxid), &fuzzy);
    let data = home.join("data");
    let before = fingerprint(&data.join("ringkeeper"));
    let info = json(0, &["info", text(&data)]).remove(0);
    assert_eq!(info["start"]["lastZxid"], filled.last_zxid().to_string());
    assert!(info["snapshots"][0]["fuzzyUntil"].is_string(), "{info}");
    assert!(info["start"]["inexact"].is_null(), "{info}");
    assert_eq!(findings(0, &data), []);
    for zxid in [from.zxid, from.zxid.next(), Zxid(to.zxid.0 - 20)] {
        let zxid = zxid.to_string();
        refuses(&["replay", text(&data), "--to", &zxid], "the tree is ahead");
        refuses(&["compact", text(&data), "--to", &zxid], "the tree is ahead");
    }
    assert_eq!(replayed(&data, &to.zxid.to_string()), to.tree);
    let last = filled.moments.last().expect("there are some");
    assert_eq!(replayed(&data, &last.zxid.to_string()), last.tree);
    assert_eq!(fingerprint(&data.join("ringkeeper")), before, "nothing was written");
    peer::clean(&home);

    // The log ends before what the snapshot shows: only an ensemble can go on from here.
    let home = copy_of(&filled, |name| name == "epochs");
    put(&home, &catalog::file_name(from.zxid), &fuzzy);
    let data = home.join("data");
    let info = json(0, &["info", text(&data)]).remove(0);
    assert!(info["start"]["inexact"].to_string().contains("the tree is ahead"), "{info}");
    let printed = expect(0, &["info", text(&data)]);
    assert!(printed.contains("the tree is ahead"), "{printed}");
    assert_eq!(findings(0, &data), [pair("note", "")]);
    refuses(&["replay", text(&data), "--to", &from.zxid.to_string()], "the tree is ahead");
    refuses(&["compact", text(&data)], "the tree is ahead");
    peer::clean(&home);
    filled.clean();
}

/// A log of Apache's over two epochs.
fn apaches_directory(home: &Path) {
    let own = home.join(names::DIRECTORY);
    fs::create_dir_all(&own).expect("the directory is writable");
    let write = |name: &str, bytes: &[u8]| {
        fs::write(own.join(name), bytes).expect("the directory is writable");
    };
    let mut encoder = apache::SnapshotEncoder::new(Compression::None, &[], []);
    encoder.znode("/", Some(b""), &[Acl::open()], &StatPersisted::default());
    let bytes = encoder.finish(None, None);
    write(&names::snapshot_name(Zxid::ZERO, Compression::None), &bytes);
    for (epoch, paths) in [(1_i64, ["/a", "/b"]), (3, ["/c", "/d"])] {
        let mut file = BytesMut::new();
        apache::put_log_header(&mut file);
        for (path, counter) in paths.into_iter().zip(1..) {
            let zxid = Zxid(epoch << 32 | counter);
            let header = TxnHeader { session: SessionId(7), zxid, ..TxnHeader::default() };
            let body = TxnBody::Create(CreateTxn {
                kind: CreateTxnKind::Create { ephemeral: false },
                path: Str::from(path),
                data: None,
                acl: vec![Acl::open()],
                parent_cversion: i32::try_from(epoch + counter).expect("it is small"),
            });
            let mut txn = BytesMut::new();
            wire::txn::encode(&header, &body, None, &mut txn);
            apache::put_log_record(&mut file, &txn);
        }
        file.resize(file.len() + 100, 0);
        write(&names::log_name(Zxid(epoch << 32 | 1)), &file);
    }
    write(names::CURRENT_EPOCH, b"3");
    write(names::ACCEPTED_EPOCH, b"4");
}

#[test]
fn an_old_history_of_apaches_has_an_old_epoch() {
    let home = peer::fresh_directory();
    let from = home.join("from");
    apaches_directory(&from);
    for (zxid, current) in [("0x100000002", 1), ("0x300000001", 3), ("0x300000002", 3)] {
        let out = home.join(zxid);
        let made = json(0, &["replay", text(&from), "--to", zxid, text(&out)]).remove(0);
        assert_eq!(made["zxid"], zxid);
        let info = json(0, &["info", text(&out)]).remove(0);
        assert_eq!(info["start"]["lastZxid"], zxid, "{info}");
        assert_eq!(info["epochs"]["current"], current, "an old history wins no election");
        assert_eq!(info["epochs"]["accepted"], 4, "what was promised stays promised");
        let files = fingerprint(&out.join("ringkeeper"));
        assert!(files.keys().all(|name| !name.contains("Epoch")), "{:?}", files.keys());
    }
    peer::clean(&home);
}
