//! rk-log on directories as Apache's servers leave them, made here so that every damage can be
//! planted: what is sound stays so, and what is not is named.

use std::fs;
use std::path::{Path, PathBuf};

use bytes::{Bytes, BytesMut};
use ringkeeper::apache::{
    Compression, SnapshotDigest, SnapshotEncoder, names, put_log_header, put_log_record,
};
use ringkeeper::base::Str;
use ringkeeper::model::txn::{CreateTxn, CreateTxnKind, TxnBody, TxnHeader};
use ringkeeper::model::{Acl, ExtendedTypes, SessionId, Txn, Zxid};
use ringkeeper::server::state::State;
use ringkeeper::tree::{Tree, TreeOptions};
use ringkeeper::wire;
use serde_json::Value;

use super::peer;
use super::rk_log::{json, text};

const OPTIONS: TreeOptions = TreeOptions { extended_types: ExtendedTypes::On, digests: true };
const COMPRESSIONS: [Compression; 3] = [Compression::None, Compression::Gzip, Compression::Snappy];
/// Txns of the history: a session, six znodes, and data for each in turn.
const TXNS: i64 = 60;

/// What the servers wrote and how.
#[derive(Clone, Copy)]
struct Style {
    /// In txns and snapshots.
    digests: bool,
    /// The section of 3.9.
    last_zxid: bool,
    compression: Compression,
}

const STYLES: [Style; 4] = [
    Style { digests: true, last_zxid: true, compression: Compression::None },
    Style { digests: true, last_zxid: false, compression: Compression::Gzip },
    Style { digests: false, last_zxid: true, compression: Compression::Snappy },
    Style { digests: false, last_zxid: false, compression: Compression::None },
];

fn body(number: i64) -> TxnBody {
    let path = |number: i64| Str::from(format!("/z{}", number % 6));
    match number {
        1 => TxnBody::CreateSession { timeout_ms: 9000 },
        2..=7 => TxnBody::Create(CreateTxn {
            kind: CreateTxnKind::Create { ephemeral: number == 7 },
            path: path(number),
            data: Some(Bytes::from_static(b"new")),
            acl: vec![Acl::open()],
            parent_cversion: i32::try_from(number).expect("it is small") - 1,
        }),
        _ => TxnBody::SetData {
            path: path(number),
            // Random enough for a compressed snapshot to have a middle.
            data: Some((0..400).map(|at| (number * 31 + at * at * 7) as u8).collect()),
            version: i32::try_from(number / 6).expect("it is small"),
        },
    }
}

/// The state behind the txn, and its bytes.
fn state_at(zxid: i64, style: Style) -> (State, Vec<Bytes>) {
    let mut state = State::new(OPTIONS);
    let mut txns = Vec::new();
    for number in 1..=zxid {
        let header = TxnHeader {
            session: SessionId(7),
            zxid: Zxid(number),
            time_ms: 1_000_000 + number,
            ..TxnHeader::default()
        };
        let txn = Txn { header, body: body(number), digest: None };
        state.apply(&txn);
        let digest = style.digests.then(|| state.tree.digest());
        let mut bytes = BytesMut::new();
        wire::txn::encode(&txn.header, &txn.body, digest, &mut bytes);
        txns.push(bytes.freeze());
    }
    (state, txns)
}

fn log(txns: &[Bytes]) -> Vec<u8> {
    let mut file = BytesMut::new();
    put_log_header(&mut file);
    txns.iter().for_each(|txn| put_log_record(&mut file, txn));
    file.resize(file.len() + 100, 0);
    file.to_vec()
}

/// A snapshot begun at one txn and ended at another: every second znode is as it was then.
/// `changed` is given other data than it ever had.
fn snapshot(begun: i64, ended: i64, style: Style, changed: Option<&str>) -> Vec<u8> {
    let [(early, _), (late, _)] = [begun, ended].map(|zxid| state_at(zxid, style));
    let sessions: Vec<_> = early.sessions.into_iter().collect();
    let acls = early.tree.acls().chain(late.tree.acls()).cloned();
    let mut encoder = SnapshotEncoder::new(style.compression, &sessions, acls);
    let mut open = vec!["/".to_owned()];
    let mut count = 0;
    while let Some(path) = open.pop() {
        let tree: &Tree = if count % 2 == 0 { &early.tree } else { &late.tree };
        count += 1;
        let znode = tree.get(&path).expect("it was listed");
        let data = if changed == Some(path.as_str()) { Some(&b"other"[..]) } else { znode.data() };
        encoder.znode(&path, data, znode.acl(), &znode.persisted());
        let base = if path == "/" { "" } else { path.as_str() };
        open.extend(znode.children().map(|name| format!("{base}/{name}")));
    }
    let digest = SnapshotDigest { zxid: Zxid(ended), version: 2, digest: late.tree.digest() };
    let last = style.last_zxid.then_some(Zxid(ended));
    encoder.finish(style.digests.then_some(digest), last).to_vec()
}

/// A directory with all txns in logs of 20, and four snapshots, two of them fuzzy.
fn directory(style: Style) -> PathBuf {
    let home = peer::fresh_directory();
    let own = home.join("version-2");
    fs::create_dir(&own).expect("the directory is writable");
    let (_, txns) = state_at(TXNS, style);
    for (at, part) in txns.chunks(20).enumerate() {
        let zxid = Zxid(i64::try_from(at).expect("it is small") * 20 + 1);
        fs::write(own.join(names::log_name(zxid)), log(part)).expect("it is writable");
    }
    for (begun, ended) in [(0, 0), (20, 23), (40, 43), (50, 50)] {
        put_snapshot(&own, begun, style, &snapshot(begun, ended, style, None));
    }
    home
}

fn snapshot_name(begun: i64, style: Style) -> String {
    names::snapshot_name(Zxid(begun), style.compression)
}

fn put_snapshot(own: &Path, begun: i64, style: Style, bytes: &[u8]) {
    fs::write(own.join(snapshot_name(begun, style)), bytes).expect("it is writable");
}

/// What verify says of a file: the findings about it, all of which are damage.
fn damage_of(home: &Path, file: &str) -> Vec<Value> {
    let report = json(1, &["verify", text(home)]).remove(0);
    let findings = report["findings"].as_array().expect("a list").clone();
    assert!(findings.iter().all(|finding| finding["meaning"].is_string()), "{report}");
    let damage: Vec<_> =
        findings.into_iter().filter(|finding| finding["level"] == "damage").collect();
    assert!(damage.iter().all(|finding| finding["file"] == file), "only {file}: {report}");
    assert!(!damage.is_empty(), "{report}");
    damage
}

#[test]
fn sound_directories_are_sound_whatever_their_style() {
    for style in STYLES {
        let home = directory(style);
        let report = json(0, &["verify", text(&home)]).remove(0);
        assert_eq!(report["checked"]["replayed"], TXNS, "{report}");
        assert_eq!(report["checked"]["snapshots"], 4, "{report}");
        // A purge leaves the newest snapshots and the log in front of them.
        let own = home.join("version-2");
        for name in [snapshot_name(0, style), snapshot_name(20, style), names::log_name(Zxid(1))] {
            fs::remove_file(own.join(name)).expect("it is there");
        }
        let report = json(0, &["verify", text(&home)]).remove(0);
        assert_eq!(report["checked"]["replayed"], 20, "{report}");
        peer::clean(&home);
    }
}

#[test]
fn a_snapshot_whose_writing_was_cut_short_is_a_note() {
    for compression in COMPRESSIONS {
        let style = Style { compression, ..STYLES[0] };
        let home = directory(style);
        let own = home.join("version-2");
        let whole = snapshot(55, 58, style, None);
        let mut cuts = 0;
        for len in (0..whole.len()).step_by(whole.len() / 16 + 1) {
            put_snapshot(&own, 55, style, &whole[..len]);
            let report = json(0, &["verify", text(&home)]).remove(0);
            let is_it = |finding: &&Value| finding["file"] == snapshot_name(55, style);
            let found = report["findings"].as_array().expect("a list").iter().find(is_it);
            assert_eq!(found.expect("it is told")["level"], "note", "cut to {len}: {report}");
            json(0, &["info", text(&home)]);
            cuts += 1;
        }
        assert!(10 < cuts, "{cuts} cuts");
        peer::clean(&home);
    }
}

#[test]
fn a_flipped_byte_of_a_snapshot_has_its_place_where_that_is_known() {
    for compression in COMPRESSIONS {
        let style = Style { compression, ..STYLES[0] };
        let name = snapshot_name(40, style);
        let home = directory(style);
        let mut bytes = snapshot(40, 43, style, None);
        let middle = bytes.len() / 2;
        bytes[middle] ^= 0x21;
        put_snapshot(&home.join("version-2"), 40, style, &bytes);
        let found = damage_of(&home, &name);
        assert_eq!(found[0]["offset"].is_u64(), compression == Compression::None, "{found:?}");
        peer::clean(&home);
    }
}

#[test]
fn a_changed_znode_under_a_right_seal_is_found_in_every_snapshot() {
    for style in STYLES {
        // The newest one is what a start would have used; the others are checked as well.
        for (begun, ended) in [(20, 23), (40, 43), (50, 50)] {
            let home = directory(style);
            let name = snapshot_name(begun, style);
            // The one that is not set anew for the longest time.
            let path = format!("/z{}", begun % 6);
            let bytes = snapshot(begun, ended, style, Some(&path));
            put_snapshot(&home.join("version-2"), begun, style, &bytes);
            if style.digests || style.last_zxid {
                let found = damage_of(&home, &name);
                assert_eq!((found.len(), &found[0]["offset"]), (1, &Value::Null), "{found:?}");
            } else {
                // Nothing says when the snapshot should be exact, and at the end it is.
                json(0, &["verify", text(&home)]);
            }
            peer::clean(&home);
        }
    }
}

#[test]
fn a_log_that_ends_below_what_a_snapshot_shows_is_damage() {
    for style in STYLES.iter().filter(|style| style.digests || style.last_zxid) {
        let home = directory(*style);
        let own = home.join("version-2");
        put_snapshot(&own, 55, *style, &snapshot(55, 58, *style, None));
        json(0, &["verify", text(&home)]);
        let (_, txns) = state_at(56, *style);
        fs::write(own.join(names::log_name(Zxid(41))), log(&txns[40..])).expect("it is writable");
        let found = damage_of(&home, &snapshot_name(55, *style));
        assert_eq!(found[0]["zxid"], Zxid(58).to_string(), "{found:?}");
        assert!(found[0]["what"].as_str().is_some_and(|what| what.contains("log ends with 0x38")));
        peer::clean(&home);
    }
}

#[test]
fn a_txn_of_another_history_is_found_in_front_of_every_snapshot_too() {
    let style = STYLES[0];
    let home = directory(style);
    let (_, mut txns) = state_at(TXNS, style);
    // With a right checksum, and its digest as it was.
    let (header, digest) = {
        let txn = wire::txn::decode(&txns[9]).expect("it was encoded");
        (txn.header, txn.digest)
    };
    let mut bytes = BytesMut::new();
    let path = Str::from_static("/z3");
    let body = TxnBody::SetData { path, data: None, version: 9 };
    wire::txn::encode(&header, &body, digest, &mut bytes);
    let offset: usize = 16 + txns[..9].iter().map(|txn| txn.len() + 13).sum::<usize>();
    txns[9] = bytes.freeze();
    let name = names::log_name(Zxid(1));
    fs::write(home.join("version-2").join(&name), log(&txns[..20])).expect("it is writable");
    let found = damage_of(&home, &name);
    assert_eq!(found[0]["offset"], offset, "{found:?}");
    assert_eq!(found[0]["zxid"], Zxid(10).to_string(), "{found:?}");
    peer::clean(&home);
}

/// Snapshots alone, as an export makes them, or one in front of a log that begins later.
#[test]
fn replay_begins_with_a_snapshot_where_no_log_is() {
    let style = STYLES[0];
    let home = peer::fresh_directory();
    let own = home.join("version-2");
    fs::create_dir(&own).expect("the directory is writable");
    put_snapshot(&own, 30, style, &snapshot(30, 30, style, None));
    let made = |to: &str| {
        let out = peer::fresh_directory();
        let made = json(0, &["replay", text(&home), "--to", to, text(&out)]).remove(0);
        let info = json(0, &["info", text(&out)]).remove(0);
        assert_eq!(info["start"]["lastZxid"], made["zxid"], "{info}");
        let lines = json(0, &["dump", text(&out.join("ringkeeper/snapshot.000000000000001e"))]);
        assert_eq!(lines.iter().filter(|line| line["path"].is_string()).count(), 6 + 4);
        peer::clean(&out);
        made["zxid"].clone()
    };
    let none = home.join("none");
    let refused = |to: &str| {
        json(3, &["replay", text(&home), "--to", to, text(&none)]);
        assert!(!none.exists(), "nothing is made");
    };
    for logs in [false, true] {
        if logs {
            let (_, txns) = state_at(TXNS, style);
            fs::write(own.join(names::log_name(Zxid(41))), log(&txns[40..])).expect("writable");
        } else {
            // Every znode is of the first hours of 1970.
            assert_eq!(made("2030-01-01T00:00:00Z"), "0x1e");
            refused("1970-01-01T00:00:01Z");
        }
        assert_eq!(made("0x1e"), "0x1e");
        refused("0x1d");
        refused("0x23");
    }
    // A snapshot that shows what no log has is none of a moment.
    fs::remove_file(own.join(names::log_name(Zxid(41)))).expect("it is there");
    put_snapshot(&own, 35, style, &snapshot(35, 38, style, None));
    json(3, &["replay", text(&home), "--to", "0x23", text(&none)]);
    peer::clean(&home);
}

#[test]
fn compact_leaves_what_apaches_server_needs() {
    for style in STYLES {
        for (to, spare_count) in [(Some("0x2d"), 5), (Some("0x13"), 1), (None, 6)] {
            let home = directory(style);
            let own = home.join("version-2");
            let all = fs::read_dir(&own).expect("it is there").count();
            let place = peer::fresh_directory();
            let out = place.join("out");
            let to = to.map(|zxid| vec!["--to", zxid]).unwrap_or_default();
            let arguments = [&["compact", text(&home)], &to[..], &[text(&out)]].concat();
            let made = json(0, &arguments).remove(0);
            assert_eq!(made["zxid"], *to.last().unwrap_or(&"0x3c"));
            let spare = made["noLongerNeeded"].as_array().expect("a list");
            assert_eq!(spare.len(), spare_count, "{made}");
            assert_eq!(fs::read_dir(&own).expect("it is there").count(), all, "none is removed");
            assert_eq!(fs::read_dir(&out).expect("it is there").count(), 1, "one snapshot");
            let snapshot = Path::new(made["snapshot"].as_str().expect("a path"));
            let name = snapshot.file_name().expect("it has one");
            fs::copy(snapshot, own.join(name)).expect("it is writable");
            for path in spare {
                fs::remove_file(path.as_str().expect("a path")).expect("it was there");
            }
            // The same txns lead from it to the same digests and snapshots as before.
            json(0, &["verify", text(&home)]);
            let last = json(0, &["info", text(&home)]).remove(0);
            assert_eq!(last["import"]["lastZxid"], "0x3c", "{last}");
            peer::clean(&home);
            peer::clean(&place);
        }
    }
}

#[test]
fn a_damaged_snapshot_that_was_not_needed_is_told_of() {
    let style = STYLES[0];
    let home = directory(style);
    let own = home.join("version-2");
    let name = snapshot_name(50, style);
    let mut bytes = fs::read(own.join(&name)).expect("it is there");
    let middle = bytes.len() / 2;
    bytes[middle] ^= 1;
    fs::write(own.join(&name), bytes).expect("it is writable");
    for (command, to, code) in [
        ("replay", "0x3c", 1),
        ("compact", "0x3c", 1),
        ("replay", "0x15", 0),
        ("replay", "0x2d", 0),
    ] {
        let place = peer::fresh_directory();
        let out = place.join("out");
        let output = super::rk_log::rk_log(&[command, text(&home), "--to", to, text(&out)]);
        let said = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(code), "{command} {to}: {said}");
        let named = format!("{} is not used", own.join(&name).display());
        assert_eq!(said.contains(&named), code == 1, "{said}");
        peer::clean(&place);
    }
    peer::clean(&home);
}
