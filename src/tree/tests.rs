//! Tests of the tree against `client-protocol.md` part 5 and `quorum-and-disk.md` parts 7 and 10.

use std::collections::BTreeMap;

use bytes::Bytes;
use proptest::prelude::*;

use super::*;
use crate::base::Str;
use crate::model::{
    Acl, CreateTxn, CreateTxnKind, ErrorCode, ExtendedTypes, Perms, SessionId, StatPersisted,
    TxnBody, TxnHeader, Xid, Zxid,
};

const OPTIONS: TreeOptions = TreeOptions { extended_types: ExtendedTypes::Off, digests: true };

fn header(zxid: i64) -> TxnHeader {
    TxnHeader { session: SessionId(9), cxid: Xid(1), zxid: Zxid(zxid), time_ms: 1000 + zxid }
}

fn create(path: &str, data: &str, parent_cversion: i32, ephemeral: bool) -> TxnBody {
    TxnBody::Create(CreateTxn {
        kind: CreateTxnKind::Create { ephemeral },
        path: path.into(),
        data: Some(Bytes::copy_from_slice(data.as_bytes())),
        acl: vec![Acl::open()],
        parent_cversion,
    })
}

#[test]
fn digests_are_apaches() {
    let mut tree = Tree::new(OPTIONS);
    assert_eq!(tree.digest(), 1_371_985_504);
    let header = TxnHeader {
        session: SessionId(0x0100_0012_b55f_0000),
        cxid: Xid(1),
        zxid: Zxid(0x1_0000_0002),
        time_ms: 0x1a2_027f_8f8e,
    };
    tree.apply(&header, &create("/a", "hello", 1, false));
    assert_eq!(tree.digest(), 0x1_6039_670c);
}

#[test]
fn stats_follow_the_table() {
    let mut tree = Tree::new(OPTIONS);
    assert_eq!(tree.get("/").unwrap().stat().cversion, -1);
    assert_eq!(tree.get("/zookeeper").unwrap().stat().cversion, -2);
    tree.apply(&header(1), &create("/a", "x", 1, false));
    tree.apply(&header(2), &create("/a/b", "", 1, true));
    let stat = tree.get("/a").unwrap().stat();
    assert_eq!((stat.czxid, stat.mzxid, stat.pzxid), (Zxid(1), Zxid(1), Zxid(2)));
    assert_eq!((stat.version, stat.cversion, stat.num_children), (0, 1, 1));
    assert_eq!(tree.get("/a/b").unwrap().stat().ephemeral_owner, 9);
    tree.apply(&header(3), &TxnBody::Delete { path: "/a/b".into() });
    let stat = tree.get("/a").unwrap().stat();
    assert_eq!((stat.cversion, stat.num_children, stat.pzxid), (2, 0, Zxid(3)));
    let data = Some(Bytes::from_static(b"longer"));
    let set = TxnBody::SetData { path: "/a".into(), data, version: 1 };
    let applied = tree.apply(&header(4), &set);
    let Outcome::Set(stat) = applied.outcome else { panic!("{applied:?}") };
    assert_eq!((stat.version, stat.mzxid, stat.mtime, stat.data_length), (1, Zxid(4), 1004, 6));
    let acl = TxnBody::SetAcl { path: "/a".into(), acl: vec![Acl::open()], version: 1 };
    tree.apply(&header(5), &acl);
    let stat = tree.get("/a").unwrap().stat();
    assert_eq!((stat.aversion, stat.mzxid, stat.version), (1, Zxid(4), 1));
}

#[test]
fn replay_over_a_newer_tree_is_harmless() {
    let mut tree = Tree::new(OPTIONS);
    tree.apply(&header(1), &create("/a", "x", 1, false));
    tree.apply(&header(2), &create("/a/b", "", 1, false));
    let again = tree.apply(&header(2), &create("/a/b", "", 1, false));
    assert_eq!(again.outcome, Outcome::Failed(ErrorCode::NODE_EXISTS));
    let gone = tree.apply(&header(3), &TxnBody::Delete { path: "/a/c".into() });
    assert_eq!(gone.outcome, Outcome::Failed(ErrorCode::NO_NODE));
    let stat = tree.get("/a").unwrap().persisted();
    assert_eq!((stat.cversion, stat.pzxid), (1, Zxid(3)));
    let orphan = tree.apply(&header(4), &create("/x/y", "", 1, false));
    assert_eq!(orphan.outcome, Outcome::Failed(ErrorCode::NO_NODE));
}

#[test]
fn closing_a_session_deletes_its_ephemerals_in_the_same_txn() {
    let mut tree = Tree::new(OPTIONS);
    for (zxid, path) in [(1, "/e1"), (2, "/e2")] {
        tree.apply(&header(zxid), &create(path, "", i32::try_from(zxid).unwrap(), true));
    }
    assert_eq!(tree.ephemerals_count(), 2);
    let close = TxnBody::CloseSession { paths: Some(["/e1"].into_iter().collect()) };
    let applied = tree.apply(&header(3), &close);
    assert_eq!(applied.steps.len(), 3);
    assert!(matches!(applied.steps[2], Step::SessionClosed { session: SessionId(9) }));
    assert_eq!((tree.ephemerals_count(), tree.znode_count()), (0, 4));
    assert_eq!(tree.get("/").unwrap().persisted().pzxid, Zxid(3));
}

#[test]
fn a_failed_multi_changes_nothing_but_the_zxid() {
    let mut tree = Tree::new(OPTIONS);
    let before = tree.digest();
    let multi = TxnBody::Multi(vec![
        create("/a", "", 1, false),
        TxnBody::Error(ErrorCode::NO_NODE),
        TxnBody::Error(ErrorCode::RUNTIME_INCONSISTENCY),
    ]);
    let applied = tree.apply(&header(1), &multi);
    let codes = [ErrorCode::OK, ErrorCode::NO_NODE, ErrorCode::RUNTIME_INCONSISTENCY];
    assert_eq!(applied.outcome, Outcome::Multi(codes.map(Outcome::Failed).to_vec()));
    assert_eq!((tree.digest(), tree.last_zxid()), (before, Zxid(1)));
    assert!(tree.get("/a").is_none());
}

#[test]
fn descendants_are_counted() {
    let mut tree = Tree::new(OPTIONS);
    let paths = ["/a", "/a/b", "/a/b/c", "/a/d", "/e"];
    for (zxid, path) in (1..).zip(paths) {
        tree.apply(&header(zxid), &create(path, "", -1, false));
    }
    let count = |path| tree.descendant_count(path);
    assert_eq!(count("/a"), Some(3));
    assert_eq!(count("/a/b/c"), Some(0));
    assert_eq!(count("/"), Some(8));
    assert_eq!(count("/nowhere"), None);
}

/// One change of a random history: what, where.
#[derive(Clone, Debug)]
enum Change {
    Create(bool),
    Delete,
    Set(u8),
    SetAcl(bool),
    CloseSession,
}

fn change() -> impl Strategy<Value = (Change, Str)> {
    let change = prop_oneof![
        4 => any::<bool>().prop_map(Change::Create),
        2 => Just(Change::Delete),
        2 => any::<u8>().prop_map(Change::Set),
        1 => any::<bool>().prop_map(Change::SetAcl),
        1 => Just(Change::CloseSession),
    ];
    let path = prop::collection::vec(0..3_u8, 1..4);
    (change, path.prop_map(|names| names.iter().map(|n| format!("/{n}")).collect::<String>()))
        .prop_map(|(change, path)| (change, Str::from(path)))
}

/// The txn that prep would make, judged on the overlay.
fn txn(tree: &Tree, overlay: &Overlay, change: &Change, path: &Str) -> Option<TxnBody> {
    let parent = overlay.look(tree, crate::model::path::parent(path)?);
    let znode = overlay.look(tree, path);
    Some(match change {
        Change::Create(ephemeral) => {
            let parent = parent.filter(|parent| parent.stat.ephemeral_owner == 0)?;
            if znode.is_some() {
                return None;
            }
            create(path, "data", parent.stat.cversion + 1, *ephemeral)
        }
        Change::Delete => {
            znode.filter(|znode| znode.child_count == 0)?;
            TxnBody::Delete { path: path.clone() }
        }
        Change::Set(byte) => {
            let version = znode?.stat.version + 1;
            let data = Some(Bytes::from(vec![*byte; usize::from(*byte)]));
            TxnBody::SetData { path: path.clone(), data, version }
        }
        Change::SetAcl(open) => {
            let version = znode?.stat.aversion + 1;
            let perms = if *open { Acl::open() } else { Acl::world(crate::model::Perms::READ) };
            TxnBody::SetAcl { path: path.clone(), acl: vec![perms], version }
        }
        Change::CloseSession => {
            let paths = overlay.ephemerals_of(tree, SessionId(9));
            TxnBody::CloseSession { paths: Some(paths.into_iter().collect()) }
        }
    })
}

/// Data, stat and ACL by path.
type Shown = BTreeMap<String, (Option<Vec<u8>>, StatPersisted, Vec<Acl>)>;

/// Everything a tree shows.
fn shown(tree: &mut Tree) -> Shown {
    let mut all = BTreeMap::new();
    let cut = tree.begin_cut();
    tree.cut_items(cut, usize::MAX, &mut |item| collect(&mut all, item));
    tree.end_cut(cut);
    all
}

fn collect(all: &mut Shown, item: CutItem<'_>) {
    let value = (item.data.map(<[u8]>::to_vec), *item.stat, item.acl.to_vec());
    assert!(all.insert(item.path.to_owned(), value).is_none(), "{} twice", item.path);
    let parent = crate::model::path::parent(item.path);
    assert!(
        parent.is_none_or(|parent| all.contains_key(parent)),
        "{} before its parent",
        item.path
    );
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(200))]

    /// What the overlay foresees is what the tree shows once everything is applied, however far
    /// the application lags behind.
    #[test]
    fn the_overlay_foresees_the_tree(
        changes in prop::collection::vec(change(), 1..60),
        lag in 0..20_usize,
    ) {
        let mut tree = Tree::new(OPTIONS);
        let mut overlay = Overlay::new(&tree);
        let mut in_flight = std::collections::VecDeque::new();
        let mut zxid = 0;
        for (change, path) in &changes {
            if let Some(body) = txn(&tree, &overlay, change, path) {
                zxid += 1;
                overlay.stage(&tree, &header(zxid), &body);
                in_flight.push_back((header(zxid), body, overlay.digest()));
            }
            while lag < in_flight.len() {
                let (header, body, digest) = in_flight.pop_front().unwrap();
                let applied = tree.apply(&header, &body);
                prop_assert!(!matches!(applied.outcome, Outcome::Failed(_)), "{:?}", applied);
                prop_assert_eq!(tree.digest(), digest);
                overlay.retire(header.zxid, usize::MAX);
            }
        }
        for (header, body, digest) in in_flight {
            tree.apply(&header, &body);
            prop_assert_eq!(tree.digest(), digest);
            overlay.retire(header.zxid, usize::MAX);
        }
        for (path, (data, stat, acl)) in shown(&mut tree) {
            prop_assert!(overlay.is_empty());
            let foreseen = overlay.look(&tree, &path).unwrap();
            prop_assert_eq!((foreseen.stat, foreseen.acl.to_vec()), (stat, acl));
            prop_assert_eq!(foreseen.data_len, data.map_or(0, |data| data.len()));
        }
    }

    /// A rolled-back multi leaves no trace.
    #[test]
    fn a_rollback_leaves_no_trace(
        before in prop::collection::vec(change(), 0..20),
        multi in prop::collection::vec(change(), 0..20),
    ) {
        let tree = Tree::new(OPTIONS);
        let mut overlay = Overlay::new(&tree);
        let mut zxid = 0;
        let mut stage = |overlay: &mut Overlay, changes: &[(Change, Str)]| {
            zxid += 1;
            for (change, path) in changes {
                if let Some(body) = txn(&tree, overlay, change, path) {
                    overlay.stage(&tree, &header(zxid), &body);
                }
            }
        };
        stage(&mut overlay, &before);
        let looks = |overlay: &Overlay| -> Vec<String> {
            let paths = before.iter().chain(&multi).map(|(_, path)| path);
            paths.map(|path| format!("{:?}", overlay.look(&tree, path))).collect()
        };
        let (digest, looked) = (overlay.digest(), looks(&overlay));
        let ephemerals = overlay.ephemerals_of(&tree, SessionId(9));
        overlay.begin_multi();
        stage(&mut overlay, &multi);
        // A slice at a time.
        while !overlay.take_back_multi(&mut { 3 }) {}
        prop_assert_eq!(overlay.digest(), digest);
        prop_assert_eq!(looks(&overlay), looked);
        prop_assert_eq!(overlay.ephemerals_of(&tree, SessionId(9)), ephemerals);
    }

    /// A cut shows the tree as it was when it began, whatever is applied and however many others
    /// there are meanwhile, parents before their children, and makes the same tree again.
    #[test]
    fn a_cut_is_consistent(
        before in prop::collection::vec(change(), 0..60),
        during in prop::collection::vec((change(), 0..400_usize), 0..60),
    ) {
        let mut tree = Tree::new(OPTIONS);
        let mut zxid = 0;
        let mut apply = |tree: &mut Tree, (change, path): &(Change, Str)| {
            let overlay = Overlay::new(tree);
            if let Some(body) = txn(tree, &overlay, change, path) {
                zxid += 1;
                tree.apply(&header(zxid), &body);
            }
        };
        for change in &before {
            apply(&mut tree, change);
        }
        let expected = shown(&mut tree);
        let (digest, last_zxid) = (tree.digest(), tree.last_zxid());
        let mut found = BTreeMap::new();
        let mut others = Vec::new();
        let cut = tree.begin_cut();
        for (change, budget) in &during {
            if budget % 5 == 0 {
                let expected = shown(&mut tree);
                others.push((tree.begin_cut(), expected, BTreeMap::new()));
            }
            apply(&mut tree, change);
            tree.cut_items(cut, *budget, &mut |item| collect(&mut found, item));
            for (other, _, found) in &mut others {
                tree.cut_items(*other, budget / 2, &mut |item| collect(found, item));
            }
        }
        while tree.cut_items(cut, 64, &mut |item| collect(&mut found, item)) {}
        tree.end_cut(cut);
        prop_assert_eq!(&found, &expected);
        for (other, expected, mut found) in others {
            while tree.cut_items(other, 64, &mut |item| collect(&mut found, item)) {}
            tree.end_cut(other);
            prop_assert_eq!(found, expected);
        }
        let mut restored = Tree::for_restore(OPTIONS);
        for (path, (data, stat, acl)) in found.iter().rev() {
            let data = data.clone().map(Bytes::from);
            restored.restore_znode(path, data.as_deref(), &acl[..].into(), *stat).unwrap();
        }
        restored.finish_restore(last_zxid).unwrap();
        prop_assert_eq!(restored.digest(), digest);
        prop_assert_eq!(shown(&mut restored), expected);
    }
}

/// Listings begin, go on and are given up at any time while children come and go: each hands out
/// exactly the children that were there when it began, and nothing is kept once all have ended.
#[test]
fn a_listing_shows_the_children_of_its_beginning_whatever_happens() {
    let mut prng = crate::base::Prng::new(3);
    let mut tree = Tree::new(OPTIONS);
    let mut zxid = 0;
    let mut apply = |tree: &mut Tree, body: &TxnBody| {
        zxid += 1;
        tree.apply(&header(zxid), body);
    };
    let parents = ["/p", "/p/q", "/r"];
    let mut under_way: Vec<(Listing, Vec<String>, Vec<String>)> = Vec::new();
    let mut finished = 0;
    for _ in 0..30_000 {
        let parent = parents[prng.below(3) as usize];
        let child = format!("{parent}/{}", prng.below(12));
        match prng.below(10) {
            0..=3 => {
                apply(&mut tree, &create(parent, "", -1, false));
                apply(&mut tree, &create(&child, "", -1, false));
            }
            4..=6 => {
                apply(&mut tree, &TxnBody::Delete { path: child.as_str().into() });
                // Parents go as well, as soon as they are empty.
                apply(&mut tree, &TxnBody::Delete { path: parent.into() });
            }
            7 if under_way.len() < 5 => {
                if let Some(znode) = tree.get(parent) {
                    let names = znode.children().map(str::to_owned).collect();
                    under_way.push((tree.list(&znode), names, Vec::new()));
                }
            }
            8 if prng.one_in(20) => under_way.clear(),
            _ if !under_way.is_empty() => {
                let at = prng.below(under_way.len() as u64) as usize;
                let (listing, names, seen) = &mut under_way[at];
                let names_max = prng.below(4) as u32;
                tree.list_some(listing, names_max, &mut |name| seen.push(name.to_owned()));
                if listing.left() == 0 {
                    assert_eq!(names, seen);
                    under_way.remove(at);
                    finished += 1;
                }
            }
            _ => {}
        }
    }
    assert!(500 < finished, "{finished}");
    under_way.clear();
    for _ in 0..10 {
        apply(&mut tree, &create("/last", "", -1, false));
        apply(&mut tree, &TxnBody::Delete { path: "/last".into() });
    }
    assert!(tree.keeps_nothing());
}

/// Nothing is deleted meanwhile.
#[test]
fn listings_that_are_over_are_forgotten() {
    let tree = Tree::new(OPTIONS);
    for _ in 0..1000 {
        let _listing = tree.list(&tree.get("/zookeeper").unwrap());
    }
    assert!(tree.remembered_listings() < 10);
}

/// Whoever else still has it.
#[test]
fn an_acl_leaves_with_the_last_znode_that_has_it() {
    let mut tree = Tree::new(OPTIONS);
    let acls = tree.acls().count();
    let mut zxid = 0;
    let mut applied = Vec::new();
    let mut apply = |tree: &mut Tree, body: TxnBody| {
        zxid += 1;
        applied.push(tree.apply(&header(zxid), &body));
    };
    for number in 40..60 {
        let with_acl = |path: &str, data: Option<Bytes>, number| {
            let acl = vec![Acl { perms: Perms(number), ..Acl::open() }];
            let kind = CreateTxnKind::Create { ephemeral: false };
            let path = path.into();
            TxnBody::Create(CreateTxn { kind, path, data, acl, parent_cversion: -1 })
        };
        // Of all places that data has.
        apply(&mut tree, with_acl("/a", None, number));
        apply(&mut tree, with_acl("/b", Some(Bytes::new()), number));
        apply(&mut tree, with_acl("/c", Some(Bytes::from(vec![0; 10_000])), number));
        let replica = tree.replica();
        let long = Some(Bytes::from(vec![1; 10_000]));
        apply(&mut tree, TxnBody::SetData { path: "/b".into(), data: long, version: 1 });
        let acl = vec![Acl { perms: Perms(100 + number), ..Acl::open() }];
        apply(&mut tree, TxnBody::SetAcl { path: "/c".into(), acl, version: 1 });
        assert_eq!(tree.acls().count(), acls + 2);
        for path in ["/a", "/b", "/c"] {
            apply(&mut tree, TxnBody::Delete { path: path.into() });
        }
        assert_eq!(tree.acls().count(), acls);
        assert_eq!(replica.acls().count(), acls + 1);
    }
}

/// A txn that was damaged on its way, and decodes.
#[test]
fn a_path_that_is_none_makes_no_znode() {
    let mut tree = Tree::new(OPTIONS);
    for (zxid, path) in (1..).zip(["//x", "/", "", "x", "/zookeeper/", "/zookeeper//x"]) {
        let applied = tree.apply(&header(zxid), &create(path, "", 1, false));
        assert!(matches!(applied.outcome, Outcome::Failed(_)), "{path}");
    }
}

#[test]
fn acl_digests_tell_whose_an_acl_is() {
    let tree_with = |acls: [Acl; 2]| {
        let mut tree = Tree::new(OPTIONS);
        for (zxid, path) in (1..).zip(["/a", "/b"]) {
            tree.apply(&header(zxid), &create(path, "", i32::try_from(zxid).unwrap(), false));
        }
        let before = tree.digest();
        for (zxid, (path, acl)) in (3..).zip(["/a", "/b"].into_iter().zip(acls)) {
            let body = TxnBody::SetAcl { path: path.into(), acl: vec![acl], version: 1 };
            tree.apply(&header(zxid), &body);
        }
        assert_ne!(tree.digest(), before, "aversion counts");
        (tree.digest(), tree.acl_digest())
    };
    let (read, write) = (Acl::world(Perms::READ), Acl::world(Perms::WRITE));
    let (digest, acl_digest) = tree_with([read.clone(), write.clone()]);
    assert_eq!(tree_with([read.clone(), write.clone()]), (digest, acl_digest));
    let (swapped, acl_swapped) = tree_with([write, read.clone()]);
    assert_eq!(swapped, digest, "the tree's digest leaves ACLs out");
    assert_ne!(acl_swapped, acl_digest);
    assert_ne!(tree_with([read.clone(), read]).1, acl_digest);
}
