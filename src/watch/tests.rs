//! Tests of watches against `client-protocol.md` part 7.

use super::*;

const A: ConnId = ConnId(1);
const B: ConnId = ConnId(2);

fn fired(run: impl FnOnce(&mut Vec<Firing>)) -> Vec<(u64, i32, String)> {
    let mut out = Vec::new();
    run(&mut out);
    out.into_iter()
        .map(|firing| (firing.conn.0, firing.event_type as i32, firing.path.to_string()))
        .collect()
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
    table.add(A, "/a".into(), WatchKind::Data);
    table.add(A, "/a".into(), WatchKind::Data);
    assert_eq!(table.data_count(), 1);
    assert_eq!(fired(|out| table.changed(&"/a".into(), out)), [event(A, 3, "/a")]);
    assert_eq!(fired(|out| table.changed(&"/a".into(), out)), []);
    assert_eq!((table.data_count(), table.by_conn.len()), (0, 0));
}

#[test]
fn a_deletion_tells_each_connection_once_and_then_the_parents_watchers() {
    let mut table = WatchTable::new();
    table.add(A, "/p/a".into(), WatchKind::Data);
    table.add(A, "/p/a".into(), WatchKind::Child);
    table.add(B, "/p/a".into(), WatchKind::Child);
    table.add(A, "/p".into(), WatchKind::Child);
    let events = fired(|out| table.deleted(&"/p/a".into(), out));
    assert_eq!(events, [event(A, 2, "/p/a"), event(B, 2, "/p/a"), event(A, 4, "/p")]);
    assert_eq!((table.data_count(), table.child_count()), (0, 0));
}

#[test]
fn recursive_watches_hear_of_descendants_and_never_of_children_lists() {
    let mut table = WatchTable::new();
    table.add(A, "/".into(), WatchKind::PersistentRecursive);
    table.add(B, "/p".into(), WatchKind::Persistent);
    let created = |table: &mut WatchTable| fired(|out| table.created(&"/p/a".into(), out));
    let expected = [event(A, 1, "/p/a"), event(B, 4, "/p")];
    assert_eq!(created(&mut table), expected);
    assert_eq!(created(&mut table), expected, "persistent watches stay");
    table.add(A, "/p/a".into(), WatchKind::Data);
    assert_eq!(fired(|out| table.changed(&"/p/a".into(), out)), [event(A, 3, "/p/a")]);
}

#[test]
fn children_of_the_root() {
    let mut table = WatchTable::new();
    table.add(A, "/".into(), WatchKind::Child);
    assert_eq!(fired(|out| table.created(&"/a".into(), out)), [event(A, 4, "/")]);
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
            table.add(A, "/a".into(), kind);
            let hit = asked == own || asked == WatcherType::Any;
            assert_eq!(table.contains(A, &selection("/a", asked)), hit, "{kind:?} {asked:?}");
            assert_eq!(table.remove(A, &selection("/a", asked)), hit, "{kind:?} {asked:?}");
            assert!(!table.remove(B, &selection("/a", asked)));
            table.remove_conn(A);
            assert_eq!((table.data_count(), table.child_count()), (0, 0));
            assert_eq!((table.recursive_count, table.by_conn.len()), (0, 0));
        }
    }
}
