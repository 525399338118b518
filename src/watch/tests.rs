//! Tests of watches against `client-protocol.md` part 7.

use super::*;

const A: ConnId = ConnId(1);
const B: ConnId = ConnId(2);

fn fired(
    table: &mut WatchTable,
    run: impl FnOnce(&WatchTable, &mut Vec<Firing>),
) -> Vec<(u64, i32, String)> {
    let mut out = Vec::new();
    run(table, &mut out);
    let mut told = Vec::new();
    for mut firing in out {
        while let Some(conn) = table.next_of(&mut firing) {
            let (event_type, path) = (firing.event_type as i32, firing.path.to_string());
            told.extend(conn.map(|conn| (conn.0, event_type, path)));
        }
        assert!(firing.is_over());
    }
    told
}

fn event(conn: ConnId, event_type: i32, path: &str) -> (u64, i32, String) {
    (conn.0, event_type, path.to_owned())
}

fn selection(path: &str, watcher_type: WatcherType) -> WatcherSelection {
    WatcherSelection { path: path.into(), watcher_type }
}

#[test]
fn one_shot_watches_fire_once() {
    let mut table = WatchTable::new();
    table.add(A, "/a", WatchKind::Data);
    table.add(A, "/a", WatchKind::Data);
    assert_eq!(table.data_count(), 1);
    assert_eq!(
        fired(&mut table, |table, out| table.changed(&"/a".into(), out)),
        [event(A, 3, "/a")]
    );
    assert_eq!(fired(&mut table, |table, out| table.changed(&"/a".into(), out)), []);
    assert_eq!(table.data_count(), 0);
    assert!(table.links.is_swept());
}

#[test]
fn a_deletion_tells_each_connection_once_and_then_the_parents_watchers() {
    let mut table = WatchTable::new();
    table.add(A, "/p/a", WatchKind::Data);
    table.add(A, "/p/a", WatchKind::Child);
    table.add(B, "/p/a", WatchKind::Child);
    table.add(A, "/p", WatchKind::Child);
    let events = fired(&mut table, |table, out| table.deleted(&"/p/a".into(), out));
    assert_eq!(events, [event(A, 2, "/p/a"), event(B, 2, "/p/a"), event(A, 4, "/p")]);
    assert_eq!((table.data_count(), table.child_count()), (0, 0));
}

#[test]
fn recursive_watches_hear_of_descendants_and_never_of_children_lists() {
    let mut table = WatchTable::new();
    table.add(A, "/", WatchKind::PersistentRecursive);
    table.add(B, "/p", WatchKind::Persistent);
    let created =
        |table: &mut WatchTable| fired(table, |table, out| table.created(&"/p/a".into(), out));
    let expected = [event(A, 1, "/p/a"), event(B, 4, "/p")];
    assert_eq!(created(&mut table), expected);
    assert_eq!(created(&mut table), expected, "persistent watches stay");
    table.add(A, "/p/a", WatchKind::Data);
    assert_eq!(
        fired(&mut table, |table, out| table.changed(&"/p/a".into(), out)),
        [event(A, 3, "/p/a")]
    );
}

#[test]
fn children_of_the_root() {
    let mut table = WatchTable::new();
    table.add(A, "/", WatchKind::Child);
    assert_eq!(
        fired(&mut table, |table, out| table.created(&"/a".into(), out)),
        [event(A, 4, "/")]
    );
}

#[test]
fn removal_is_by_kind() {
    let kinds = [
        (WatchKind::Data, WatcherType::Data),
        (WatchKind::Child, WatcherType::Children),
        (WatchKind::Persistent, WatcherType::Persistent),
        (WatchKind::PersistentRecursive, WatcherType::PersistentRecursive),
    ];
    for (kind, own) in kinds {
        for (_, asked) in kinds.into_iter().chain([(WatchKind::Data, WatcherType::Any)]) {
            let mut table = WatchTable::new();
            table.add(A, "/a", kind);
            let hit = asked == own || asked == WatcherType::Any;
            assert_eq!(table.contains(A, &selection("/a", asked)), hit, "{kind:?} {asked:?}");
            assert_eq!(table.remove(A, &selection("/a", asked)), hit, "{kind:?} {asked:?}");
            assert!(!table.remove(B, &selection("/a", asked)));
            table.remove_conn(A);
            assert_eq!((table.data_count(), table.child_count()), (0, 0));
            assert!(!table.sweep(100));
            assert!(table.links.is_swept());
        }
    }
}

/// What every watch is, kept in the simplest way: (connection, path, side is child, mode).
#[derive(Default)]
struct Naive(BTreeSet<(ConnId, String, bool, links::Modes)>);

impl Naive {
    fn add(&mut self, conn: ConnId, path: &str, kind: WatchKind) {
        let all: &[(bool, links::Modes)] = match kind {
            WatchKind::Data => &[(false, STANDARD)],
            WatchKind::Child => &[(true, STANDARD)],
            WatchKind::Persistent => &[(false, PERSISTENT), (true, PERSISTENT)],
            WatchKind::PersistentRecursive => &[(false, RECURSIVE)],
        };
        self.0.extend(all.iter().map(|(child, mode)| (conn, path.to_owned(), *child, *mode)));
    }

    /// Whom a change of `path` tells on one side; one-shot watches go.
    fn fire(&mut self, path: &str, child: bool) -> BTreeSet<ConnId> {
        let is_above = |above: &str| above == "/" || path.starts_with(&format!("{above}/"));
        let hears = |(_, at, side, mode): &&(ConnId, String, bool, links::Modes)| {
            *side == child && (at == path || (*mode == RECURSIVE && is_above(at)))
        };
        let told = self.0.iter().filter(hears).map(|(conn, ..)| *conn).collect();
        self.0.retain(|(_, at, side, mode)| *side != child || at != path || *mode != STANDARD);
        told
    }
}

#[test]
fn the_table_agrees_with_a_list_of_watches_whatever_happens() {
    let paths = ["/", "/a", "/a/b", "/a/b/c", "/ab", "/d", "/d/e"];
    let kinds =
        [WatchKind::Data, WatchKind::Child, WatchKind::Persistent, WatchKind::PersistentRecursive];
    let mut prng = crate::base::Prng::new(7);
    let mut table = WatchTable::new();
    let mut naive = Naive::default();
    for _ in 0..20_000 {
        let conn = ConnId(prng.below(6));
        let path = paths[prng.below(paths.len() as u64) as usize];
        match prng.below(12) {
            0 => {
                table.remove_conn(conn);
                naive.0.retain(|(other, ..)| *other != conn);
            }
            1 => {
                table.sweep(prng.below(4) as usize);
            }
            2 => {
                let any = selection(path, WatcherType::Any);
                let had = naive.0.iter().any(|(other, at, ..)| *other == conn && at == path);
                assert_eq!(table.contains(conn, &any), had);
                assert_eq!(table.remove(conn, &any), had);
                naive.0.retain(|(other, at, ..)| *other != conn || at != path);
            }
            3..6 => {
                let out = fired(&mut table, |table, out| table.changed(&path.into(), out));
                let all: Vec<ConnId> = out.iter().map(|(conn, ..)| ConnId(*conn)).collect();
                let told: BTreeSet<ConnId> = all.iter().copied().collect();
                assert_eq!(told.len(), all.len(), "one packet for each connection");
                assert_eq!(told, naive.fire(path, false));
            }
            6 => {
                let out = fired(&mut table, |table, out| table.deleted(&path.into(), out));
                let own = naive.fire(path, false);
                let of_list = naive.fire(path, true);
                let told = |event_type: EventType| -> BTreeSet<ConnId> {
                    let all = out.iter().filter(|(_, of_type, _)| *of_type == event_type as i32);
                    all.map(|(conn, ..)| ConnId(*conn)).collect()
                };
                assert_eq!(told(EventType::NodeDeleted), own.union(&of_list).copied().collect());
                let parent = path::parent(path).filter(|_| path != "/");
                let of_parent = parent.map(|parent| naive.fire(parent, true)).unwrap_or_default();
                assert_eq!(told(EventType::NodeChildrenChanged), of_parent);
            }
            _ => {
                let kind = kinds[prng.below(4) as usize];
                table.add(conn, path, kind);
                naive.add(conn, path, kind);
            }
        }
        let count = |child| {
            let all = naive.0.iter().filter(|(_, _, side, _)| *side == child);
            all.map(|(conn, path, ..)| (conn, path)).collect::<BTreeSet<_>>().len()
        };
        assert_eq!((table.data_count(), table.child_count()), (count(false), count(true)));
    }
    for conn in 0..6 {
        table.remove_conn(ConnId(conn));
    }
    while table.sweep(3) {}
    assert!(table.links.is_swept());
}

#[test]
fn a_connection_that_ended_hears_nothing_before_it_is_swept() {
    let mut table = WatchTable::new();
    for number in 0..10 {
        table.add(A, &format!("/{number}"), WatchKind::Data);
    }
    table.add(B, "/3", WatchKind::Data);
    table.remove_conn(A);
    assert_eq!(table.data_count(), 1);
    assert_eq!(
        fired(&mut table, |table, out| table.changed(&"/3".into(), out)),
        [event(B, 3, "/3")]
    );
    let mut met = Vec::new();
    let next = table.data_some(0, u32::MAX, &mut |path, conn| met.push((path.to_owned(), conn)));
    assert_eq!((next, met.len()), (None, 0));
    assert!(table.sweep(4), "watches are left");
    assert!(!table.sweep(100));
    assert!(table.links.is_swept());
}

/// What is told when some connections hear everything before their turn.
fn told_with_firsts(
    table: &mut WatchTable,
    firsts: &[ConnId],
    mut out: Vec<Firing>,
) -> BTreeSet<(usize, ConnId)> {
    let mut told = BTreeSet::new();
    for first in firsts {
        let mut foreseen = Foreseen::default();
        for (number, firing) in out.iter_mut().enumerate() {
            if table.tells(*first, firing, &mut foreseen) {
                assert!(told.insert((number, *first)));
            }
        }
    }
    for (number, firing) in out.iter_mut().enumerate() {
        while let Some(conn) = table.next_of(firing) {
            assert!(conn.is_none_or(|conn| told.insert((number, conn))), "{conn:?} hears twice");
        }
    }
    told
}

#[test]
fn who_hears_first_hears_what_all_others_do() {
    let paths = ["/", "/a", "/a/b"];
    let kinds =
        [WatchKind::Data, WatchKind::Child, WatchKind::Persistent, WatchKind::PersistentRecursive];
    let mut prng = crate::base::Prng::new(3);
    for _ in 0..2_000 {
        let mut tables = [WatchTable::new(), WatchTable::new()];
        for _ in 0..prng.below(12) {
            let (conn, path) = (ConnId(prng.below(4)), paths[prng.below(3) as usize]);
            let kind = kinds[prng.below(4) as usize];
            tables.iter_mut().for_each(|table| table.add(conn, path, kind));
        }
        // Several changes of one txn, on the same paths.
        let changes: Vec<(u64, &str)> =
            (0..3).map(|_| (prng.below(3), paths[prng.below(3) as usize])).collect();
        let firsts = [ConnId(prng.below(4)), ConnId(prng.below(4))];
        let [plain, firsts] = [(&[][..], 0), (&firsts[..], 1)].map(|(firsts, at)| {
            let table = &mut tables[at];
            let mut out = Vec::new();
            for (kind, path) in &changes {
                let path = Str::from(*path);
                match kind {
                    0 => table.created(&path, &mut out),
                    1 => table.changed(&path, &mut out),
                    _ => table.deleted(&path, &mut out),
                }
            }
            (told_with_firsts(table, firsts, out), table.data_count(), table.child_count())
        });
        assert_eq!(plain, firsts);
    }
}

#[test]
fn who_watches_is_found_one_after_the_other() {
    let mut table = WatchTable::new();
    for number in 0..1_000 {
        table.add(ConnId(number), "/a", WatchKind::Data);
    }
    let mut out = Vec::new();
    table.changed(&"/a".into(), &mut out);
    assert_eq!((out.len(), table.data_count()), (1, 1_000), "nobody is looked for yet");
    for number in 0..1_000 {
        assert!(!out[0].is_over());
        // One of them ends before its turn.
        table.remove_conn(ConnId(7));
        let expected = Some(ConnId(number)).filter(|conn| *conn != ConnId(7));
        assert_eq!(table.next_of(&mut out[0]), Some(expected));
    }
    assert!(out[0].is_over() && table.next_of(&mut out[0]).is_none());
    assert!(!table.sweep(1_000) && table.links.is_swept());
}
