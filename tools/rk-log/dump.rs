//! `dump`: every txn of a log, every session and znode of a snapshot, one on each line.

use ringkeeper::snapshot::SnapshotItem;
use ringkeeper::snapshot::inspect::{self, items_of};
use ringkeeper::txnlog::read::{Seen, What, records_of};
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
    if files.kind == Kind::Snapshot {
        for (name, _, bytes) in files.all_snapshots() {
            ending = ending.and(dump_snapshot(&name, bytes, filter, session)?);
        }
        return Ok(ending);
    }
    let mut progress = Progress::new("txns", files.log_bytes());
    for seen in records_of(files.log()) {
        match &seen.what {
            What::Item(Item::Record { txn, .. }) => match wire::txn::decode(txn) {
                Ok(txn) if filter.admits(&txn) => {
                    if session.json {
                        let file = segment_name(seen.segment);
                        let object = show::txn_json(&txn, filter.data, &file, seen.offset);
                        session.json_line(&object)?;
                    } else {
                        let text = show::txn_text(&txn, filter.data);
                        session.line(format_args!("{text}"))?;
                    }
                }
                Ok(_) => {}
                Err(error) => {
                    ending = Ending::Damaged;
                    let what = format!("the txn does not decode: {error}");
                    damage(&segment_name(seen.segment), seen.offset, &what, session)?;
                }
            },
            What::Item(Item::Batch { header, .. }) => progress.add(header.padded_bytes()),
            What::Item(Item::Torn { .. }) => note_torn(&seen, session)?,
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
                if !filter.admits_session(id.0) {
                    continue;
                }
                if session.json {
                    session.json_line(&json!({
                        "session": id.to_string(),
                        "timeoutMs": timeout_ms,
                    }))?;
                } else {
                    session.line(format_args!("session {id} timeout={timeout_ms}"))?;
                }
            }
            inspect::What::Item(SnapshotItem::Znode { path, data, acl, stat }) => {
                if !filter.admits_znode(&path, &stat) {
                    continue;
                }
                let data = data.as_deref();
                if session.json {
                    let object = show::znode_json(&path, data, &acl, &stat, filter.data);
                    session.json_line(&object)?;
                } else {
                    let text = show::znode_text(&path, data, &acl, &stat, filter.data);
                    session.line(format_args!("{text}"))?;
                }
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

/// Damage stands between the lines where it was met.
fn damage(file: &str, offset: u64, what: &str, session: &mut Session<'_>) -> Result<(), Trouble> {
    if session.json {
        return session.json_line(&json!({ "file": file, "offset": offset, "damage": what }));
    }
    session.line(format_args!("DAMAGE {file} offset {offset}: {what}"))
}

fn note_torn(seen: &Seen, session: &mut Session<'_>) -> Result<(), Trouble> {
    let (file, offset) = (segment_name(seen.segment), seen.offset);
    if session.json {
        return session.json_line(&json!({ "file": file, "offset": offset, "torn": seen.words() }));
    }
    session.line(format_args!("TORN {file} offset {offset}: {}", seen.words()))
}
