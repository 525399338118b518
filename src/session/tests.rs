//! Tests of sessions.

use super::*;

const CONFIG: SessionConfig = SessionConfig { tick_ms: 2000, min_ms: 4000, max_ms: 40_000 };

fn at(ms: u64) -> Instant {
    Instant(ms * 1_000_000)
}

fn table() -> SessionTable {
    SessionTable::new(CONFIG, 1, WallMs(0x0ff_7f80_1234))
}

fn due(table: &SessionTable, now: Instant) -> Vec<SessionId> {
    table.due(SessionKind::Global, now, None).map(|(_, id)| id).collect()
}

#[test]
fn timeouts_are_clamped() {
    for (asked, granted) in [(10_000, 10_000), (-1, 4000), (0, 4000), (i32::MAX, 40_000)] {
        assert_eq!(table().negotiate(asked), granted);
    }
}

/// Its bounds may be others while an operator changes them, and the client was told.
#[test]
fn what_another_server_has_granted_stays() {
    let mut table = table();
    table.open(SessionId(7), 40_000, at(0));
    for (granted, timeout_ms) in [(300_000, 300_000), (1000, 1000), (0, 4000), (-5, 4000)] {
        table.touch_with(SessionId(7), granted, at(0));
        assert_eq!(table.timeout_ms(SessionId(7)), Some(timeout_ms));
    }
}

#[test]
fn ids_carry_server_and_clock() {
    let mut table = table();
    let first = table.next_id().0;
    assert_eq!(first >> 56, 1);
    assert_eq!(first & 0xffff, 0);
    assert_eq!((first >> 16) & 0xff_ffff_ffff, 0x0ff_7f80_1234);
    assert_eq!(table.next_id().0, first + 1);
    let negative = SessionTable::new(CONFIG, 200, WallMs(1)).next_id().0;
    assert!(negative < 0);
}

#[test]
fn expiry_is_at_least_the_timeout_and_at_most_a_tick_more() {
    for heard in [0, 1, 999, 1999, 2000, 2001, 3777] {
        let mut table = table();
        table.open(SessionId(7), 4000, at(heard));
        let deadline = table.next_deadline(SessionKind::Global).unwrap();
        assert_eq!(deadline.0 % (2000 * 1_000_000), 0);
        assert!(at(heard + 4000) <= deadline && deadline < at(heard + 6000));
        assert_eq!(due(&table, Instant(deadline.0 - 1)), []);
        assert_eq!(due(&table, deadline), [SessionId(7)]);
    }
}

#[test]
fn touching_and_crediting_postpone() {
    let mut table = table();
    table.open(SessionId(7), 4000, at(0));
    table.open(SessionId(8), 4000, at(0));
    table.touch(SessionId(7), at(3000));
    assert_eq!(due(&table, at(4000)), [SessionId(8)]);
    assert_eq!(due(&table, at(8000)), [SessionId(8), SessionId(7)]);
    table.credit(Duration::from_millis(3000));
    assert_eq!(due(&table, at(7999)), []);
    assert_eq!(due(&table, at(8000)), [SessionId(8)]);
    table.remove(SessionId(8));
    table.mark_closing(SessionId(7));
    assert!(!table.is_live(SessionId(7)));
    table.touch(SessionId(7), at(9000));
    assert_eq!(table.next_deadline(SessionKind::Global), None);
}

#[test]
fn only_the_latest_attachment_owns_the_session() {
    let mut table = table();
    table.open(SessionId(7), 4000, at(0));
    let first = table.attach(SessionId(7), ShardId(0), ConnId(1), 4000, at(0));
    let second = table.attach(SessionId(7), ShardId(1), ConnId(2), 8000, at(0));
    assert_ne!(first, second);
    table.detach(SessionId(7), first);
    assert_eq!(table.owner(SessionId(7)), Some((ShardId(1), ConnId(2), second)));
    table.detach(SessionId(7), second);
    assert_eq!(table.owner(SessionId(7)), None);
    assert_eq!(table.next_deadline(SessionKind::Global), Some(at(8000)));
}

#[test]
fn many_that_are_due_are_looked_at_a_few_at_a_time() {
    let mut table = table();
    for number in 0..50 {
        table.open(SessionId(number), 4000 + 2000 * i32::try_from(number % 3).unwrap(), at(0));
    }
    table.mark_closing(SessionId(7));
    let all = due(&table, at(8000));
    assert_eq!(all.len(), 49);
    assert!(all.iter().all(|id| table.is_due(*id, at(8000))));
    assert!(!table.is_due(SessionId(7), at(8000)) && !table.is_due(SessionId(2), at(7999)));
    let (mut looked, mut behind) = (Vec::new(), None);
    loop {
        let some: Vec<_> = table.due(SessionKind::Global, at(8000), behind).take(4).collect();
        looked.extend(some.iter().map(|(_, id)| *id));
        // Those that are looked at may end.
        some.iter().step_by(2).for_each(|(_, id)| table.remove(*id));
        match some.last() {
            Some(last) => behind = Some(*last),
            None => break,
        }
    }
    assert_eq!(looked, all);
    assert_eq!(table.due(SessionKind::Global, at(0), behind).count(), 0);
}

#[test]
fn local_sessions_are_kept_apart_until_they_are_upgraded() {
    let (one, two, three) = (SessionId(1), SessionId(2), SessionId(3));
    let mut table = table();
    table.open_local(one, 4000, at(0));
    table.open_local(two, 4000, at(0));
    table.open(three, 4000, at(0));
    let globals = |table: &SessionTable| table.iter().map(|(id, _)| id).collect::<Vec<_>>();
    let locals = |table: &SessionTable, now| {
        table.due(SessionKind::Local, now, None).map(|(_, id)| id).collect::<Vec<_>>()
    };
    assert_eq!((globals(&table), due(&table, at(4000))), (vec![three], vec![three]));
    assert_eq!(locals(&table, at(4000)), [one, two]);
    let owner = table.attach(one, ShardId(0), ConnId(1), 4000, at(0));

    assert_eq!((table.upgrade(three), table.upgrade(SessionId(9))), (None, None));
    assert_eq!((table.upgrade(one), table.upgrade(one)), (Some(4000), None));
    assert_eq!(table.owner(one), Some((ShardId(0), ConnId(1), owner)), "its client stays");
    assert!(!table.is_local(one) && table.is_local(two) && table.is_live(one));
    assert_eq!(globals(&table), [three], "the txn is not applied");
    assert_eq!((due(&table, at(4000)), locals(&table, at(4000))), (vec![one, three], vec![two]));
    table.open(one, 4000, at(0));
    assert_eq!(globals(&table), [one, three]);
    let counts =
        |table: &SessionTable| (table.count(SessionKind::Local), table.count(SessionKind::Global));
    assert_eq!(counts(&table), (1, 2));

    // The txn of a session that seemed local.
    table.open(two, 4000, at(0));
    assert_eq!((counts(&table), globals(&table)), ((0, 3), vec![one, two, three]));
    table.open_local(SessionId(4), 4000, at(0));
    table.upgrade(SessionId(4));
    table.open_local(SessionId(5), 4000, at(0));
    table.reset(at(1000));
    assert_eq!(globals(&table), [one, two, three]);
    assert_eq!((counts(&table), table.is_live(SessionId(4))), ((0, 3), false));
    assert_eq!(locals(&table, at(90_000)), []);
}

#[test]
fn local_sessions_are_touched_credited_and_removed() {
    let mut table = table();
    table.open_local(SessionId(7), 4000, at(0));
    table.touch(SessionId(7), at(1000));
    assert_eq!(table.next_deadline(SessionKind::Local), Some(at(6000)));
    table.credit(Duration::from_millis(2000));
    assert_eq!(table.next_deadline(SessionKind::Local), Some(at(8000)));
    assert_eq!(table.next_deadline(SessionKind::Global), None);
    table.remove(SessionId(7));
    assert_eq!(
        (table.next_deadline(SessionKind::Local), table.count(SessionKind::Local)),
        (None, 0)
    );
}
