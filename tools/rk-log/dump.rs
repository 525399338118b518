//! `dump`: every txn of a log, every session and znode of a snapshot, one on each line.

use ringkeeper::model::{Acl, SessionId, StatPersisted, Txn};
use ringkeeper::snapshot::SnapshotItem;
use ringkeeper::snapshot::inspect::{self, items_of};
use ringkeeper::txnlog::read::{What, records_of};
use ringkeeper::txnlog::scan::Item;
use ringkeeper::txnlog::segment_name;
use ringkeeper::wire;
use serde_json::json;

use super::files::{Files, Kind};
use super::filter::Filter;
use super::place::Trouble;
use super::progress::Progress;
use super::{Ending, Session, show};

/// Dumps the log, or the snapshot if that is all there is.
pub(crate) fn run(
    files: &Files,
    filter: &Filter,
    session: &mut Session<'_>,
) -> Result<Ending, Trouble> {
    let mut ending = Ending::Sound;
    if files.kind == Kind::Snapshot || files.segments.is_empty() {
        for (name, _, bytes) in files.all_snapshots() {
            ending = ending.and(dump_snapshot(&name, bytes, filter, session)?);
        }
        return Ok(ending);
    }
    let mut progress = Progress::new("txns", files.log_bytes());
    for seen in files.logs().into_iter().flat_map(records_of) {
        match &seen.what {
            What::Item(Item::Record { txn, .. }) => match wire::txn::decode(txn) {
                Ok(txn) if filter.admits(&txn) => {
                    self::txn(&txn, filter, &segment_name(seen.segment), seen.offset, session)?;
                }
                Ok(_) => {}
                Err(error) => {
                    ending = Ending::Damaged;
                    let what = format!("the txn does not decode: {error}");
                    damage(&segment_name(seen.segment), seen.offset, &what, session)?;
                }
            },
            What::Item(Item::Batch { header, .. }) => progress.add(header.padded_bytes()),
            What::Item(Item::Torn { .. }) => {
                torn(&segment_name(seen.segment), seen.offset, &seen.words(), session)?;
            }
            _ if seen.is_damage() => {
                ending = Ending::Damaged;
                damage(&segment_name(seen.segment), seen.offset, &seen.words(), session)?;
            }
            _ => {}
        }
    }
    Ok(ending)
}

fn dump_snapshot(
    name: &str,
    bytes: &bytes::Bytes,
    filter: &Filter,
    session: &mut Session<'_>,
) -> Result<Ending, Trouble> {
    let mut ending = Ending::Sound;
    let mut progress = Progress::new("znodes", bytes.len() as u64);
    let mut reader = items_of(bytes.clone());
    let mut position = 0;
    while let Some(seen) = reader.next() {
        progress.add(reader.position() - position);
        position = reader.position();
        match seen.what {
            inspect::What::Item(SnapshotItem::Session { id, timeout_ms }) => {
                session_item(id, timeout_ms, filter, session)?;
            }
            inspect::What::Item(SnapshotItem::Znode { path, data, acl, stat }) => {
                znode_item(&path, data.as_deref(), &acl, &stat, filter, session)?;
            }
            inspect::What::Damage(what) => {
                ending = Ending::Damaged;
                damage(name, seen.offset, what, session)?;
            }
            inspect::What::Header(..) | inspect::What::End(_) => {}
        }
    }
    Ok(ending)
}

/// A txn that the filter admits.
pub(crate) fn txn(
    txn: &Txn,
    filter: &Filter,
    file: &str,
    offset: u64,
    session: &mut Session<'_>,
) -> Result<(), Trouble> {
    if session.json {
        return session.json_line(&show::txn_json(txn, filter.data, file, offset));
    }
    session.line(format_args!("{}", show::txn_text(txn, filter.data)))
}

/// A session of a snapshot, if the filter admits it.
pub(crate) fn session_item(
    id: SessionId,
    timeout_ms: i32,
    filter: &Filter,
    session: &mut Session<'_>,
) -> Result<(), Trouble> {
    if !filter.admits_session(id.0) {
        return Ok(());
    }
    if session.json {
        let object = json!({ "session": id.to_string(), "timeoutMs": timeout_ms });
        return session.json_line(&object);
    }
    session.line(format_args!("session {id} timeout={timeout_ms}"))
}

/// A znode of a snapshot, if the filter admits it.
pub(crate) fn znode_item(
    path: &str,
    data: Option<&[u8]>,
    acl: &[Acl],
    stat: &StatPersisted,
    filter: &Filter,
    session: &mut Session<'_>,
) -> Result<(), Trouble> {
    if !filter.admits_znode(path, stat) {
        return Ok(());
    }
    if session.json {
        return session.json_line(&show::znode_json(path, data, acl, stat, filter.data));
    }
    session.line(format_args!("{}", show::znode_text(path, data, acl, stat, filter.data)))
}

/// Damage stands between the lines where it was met.
pub(crate) fn damage(
    file: &str,
    offset: u64,
    what: &str,
    session: &mut Session<'_>,
) -> Result<(), Trouble> {
    if session.json {
        return session.json_line(&json!({ "file": file, "offset": offset, "damage": what }));
    }
    session.line(format_args!("DAMAGE {file} offset {offset}: {what}"))
}

/// So does the end of a log of which a part is not there.
pub(crate) fn torn(
    file: &str,
    offset: u64,
    what: &str,
    session: &mut Session<'_>,
) -> Result<(), Trouble> {
    if session.json {
        return session.json_line(&json!({ "file": file, "offset": offset, "torn": what }));
    }
    session.line(format_args!("TORN {file} offset {offset}: {what}"))
}
