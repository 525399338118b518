//! What each txn does to stats: one place for the tree and for the overlay that foresees it
//! (`client-protocol.md` 5.5, `quorum-and-disk.md` 7.3 and 7.4).

use crate::model::{CreateTxn, CreateTxnKind, EphemeralOwner, StatPersisted, TxnHeader, Zxid};

/// The stat of a znode that `create` makes.
pub(super) const fn created(header: &TxnHeader, create: &CreateTxn) -> StatPersisted {
    StatPersisted {
        czxid: header.zxid,
        mzxid: header.zxid,
        pzxid: header.zxid,
        ctime: header.time_ms,
        mtime: header.time_ms,
        version: 0,
        cversion: 0,
        aversion: 0,
        ephemeral_owner: owner(header, create),
    }
}

const fn owner(header: &TxnHeader, create: &CreateTxn) -> i64 {
    match create.kind {
        CreateTxnKind::Create { ephemeral: true } | CreateTxnKind::Create2 { ephemeral: true } => {
            header.session.0
        }
        CreateTxnKind::Create { .. } | CreateTxnKind::Create2 { .. } => 0,
        CreateTxnKind::Container => EphemeralOwner::CONTAINER,
        CreateTxnKind::Ttl { ttl_ms } => EphemeralOwner::ttl_to_stored(ttl_ms),
    }
}

/// The parent's stat after a child's creation; `None` when it stays: a smaller number never
/// replaces a larger one (replay over a snapshot that already shows the txn), except at the
/// documented wrap of the sequence.
pub(super) const fn parent_after_create(
    parent: &StatPersisted,
    parent_cversion: i32,
    zxid: Zxid,
) -> Option<StatPersisted> {
    let next = match parent_cversion {
        -1 => parent.cversion.wrapping_add(1),
        given => given,
    };
    let wraps = parent.cversion == i32::MAX && next == i32::MIN;
    if next <= parent.cversion && !wraps {
        return None;
    }
    Some(StatPersisted { cversion: next, pzxid: zxid, ..*parent })
}

/// The parent's stat after a child's deletion.
pub(super) const fn parent_after_delete(
    parent: &StatPersisted,
    zxid: Zxid,
) -> Option<StatPersisted> {
    if zxid.0 <= parent.pzxid.0 {
        return None;
    }
    Some(StatPersisted { pzxid: zxid, ..*parent })
}

/// The stat after data was set.
pub(super) const fn data_set(
    stat: &StatPersisted,
    header: &TxnHeader,
    version: i32,
) -> StatPersisted {
    StatPersisted { mzxid: header.zxid, mtime: header.time_ms, version, ..*stat }
}

/// The stat after the ACL was set.
pub(super) const fn acl_set(stat: &StatPersisted, version: i32) -> StatPersisted {
    StatPersisted { aversion: version, ..*stat }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sequence_numbers_wrap() {
        let at = |cversion| StatPersisted { cversion, ..StatPersisted::default() };
        for (from, given, to) in [
            (0, 1, Some(1)),
            (i32::MAX - 1, i32::MAX, Some(i32::MAX)),
            (i32::MAX, i32::MIN, Some(i32::MIN)),
            (i32::MIN, i32::MIN + 1, Some(i32::MIN + 1)),
            (-2, -1, Some(-1)),
            // A replay over what already shows it.
            (5, 5, None),
            (5, 3, None),
        ] {
            let after = parent_after_create(&at(from), given, Zxid(9));
            assert_eq!(after.map(|stat| stat.cversion), to, "{from} {given}");
        }
    }
}
