//! info, dump and replay on Apache ZooKeeper's files.

use std::path::Path;
use std::time::{SystemTime, UNIX_EPOCH};

use ringkeeper::apache::{LogRecord, SnapshotItem, names};
use ringkeeper::base::WallMs;
use ringkeeper::model::Zxid;
use ringkeeper::server::import::Unfit;
use ringkeeper::wire;
use serde_json::{Value, json};

use super::apache::{Apache, Imported, Seen, is_unfinished, read_snapshot, walk};
use super::filter::Filter;
use super::place::Trouble;
use super::progress::Progress;
use super::rebuild::{self, Moment};
use super::time::rfc3339;
use super::{Ending, Session, dump};

/// `dump`: the txns of the logs, or a single snapshot's items.
pub(crate) fn dump(
    apache: &Apache,
    filter: &Filter,
    session: &mut Session<'_>,
) -> Result<Ending, Trouble> {
    let mut ending = Ending::Sound;
    let mut progress = Progress::new("txns", apache.log_bytes());
    for (name, bytes) in apache.logs() {
        let mut position = 0;
        for seen in walk(bytes) {
            match seen {
                Seen::Record(record) => {
                    progress.add(record.offset - position);
                    position = record.offset;
                    ending = ending.and(dump_record(name, &record, filter, session)?);
                }
                Seen::Damage(offset, what) => {
                    ending = Ending::Damaged;
                    dump::damage(name, offset, &what, session)?;
                }
                Seen::Torn(offset) => dump::torn(name, offset, TORN, session)?,
            }
        }
    }
    if !apache.logs().is_empty() {
        return Ok(ending);
    }
    for (name, bytes) in apache.snapshots() {
        let read = read_snapshot(name, bytes, &mut |item| dump_item(&item, filter, session))?;
        if let Err(damage) = read {
            ending = Ending::Damaged;
            dump::damage(name, 0, &damage.to_string(), session)?;
        }
    }
    Ok(ending)
}

/// What Apache's server leaves when it is killed.
pub(super) const TORN: &str = "a part of a record: a write that never completed";

fn dump_record(
    name: &str,
    record: &LogRecord,
    filter: &Filter,
    session: &mut Session<'_>,
) -> Result<Ending, Trouble> {
    match wire::txn::decode(&record.txn) {
        Ok(txn) => {
            if filter.admits(&txn) {
                dump::txn(&txn, filter, name, record.offset, session)?;
            }
            Ok(Ending::Sound)
        }
        Err(error) => {
            let what = format!("the txn does not decode: {error}");
            dump::damage(name, record.offset, &what, session)?;
            Ok(Ending::Damaged)
        }
    }
}

fn dump_item(
    item: &SnapshotItem,
    filter: &Filter,
    session: &mut Session<'_>,
) -> Result<(), Trouble> {
    match item {
        SnapshotItem::Session { id, timeout_ms } => {
            dump::session_item(*id, *timeout_ms, filter, session)
        }
        SnapshotItem::Znode { path, data, acl, stat } => {
            dump::znode_item(path, data.as_deref(), acl, stat, filter, session)
        }
    }
}

/// What is known of a log.
#[derive(Default)]
struct Log {
    records: u64,
    first: Option<(Zxid, Option<i64>)>,
    last: Option<(Zxid, Option<i64>)>,
    damage: Vec<String>,
    torn: Option<u64>,
}

impl Log {
    fn of(bytes: &bytes::Bytes) -> Self {
        let mut log = Self::default();
        let mut last = None;
        for seen in walk(bytes) {
            match seen {
                Seen::Record(record) => {
                    log.records += 1;
                    if log.first.is_none() {
                        log.first = Some((record.zxid, time_of(&record)));
                    }
                    last = Some(record);
                }
                Seen::Damage(offset, what) => log.damage.push(format!("offset {offset}: {what}")),
                Seen::Torn(offset) => log.torn = Some(offset),
            }
        }
        log.last = last.map(|record| (record.zxid, time_of(&record)));
        log
    }
}

fn time_of(record: &LogRecord) -> Option<i64> {
    wire::txn::decode(&record.txn).ok().map(|txn| txn.header.time_ms)
}

/// `info`: logs, snapshots, epochs, and what an import would make of them.
pub(crate) fn info(
    apache: &Apache,
    is_directory: bool,
    session: &mut Session<'_>,
) -> Result<Ending, Trouble> {
    let mut sound = true;
    let mut logs = Vec::new();
    let mut progress = Progress::new("log", apache.log_bytes());
    for (name, bytes) in apache.logs() {
        let log = Log::of(bytes);
        progress.add(bytes.len() as u64);
        sound &= log.damage.is_empty();
        let zxid = |place: Option<(Zxid, Option<i64>)>| place.map(|(zxid, _)| zxid.to_string());
        let time = |place: Option<(Zxid, Option<i64>)>| place.and_then(|(_, ms)| ms).map(rfc3339);
        logs.push(json!({
            "file": name,
            "bytes": bytes.len(),
            "records": log.records,
            "firstZxid": zxid(log.first),
            "lastZxid": zxid(log.last),
            "firstTime": time(log.first),
            "lastTime": time(log.last),
            "tornAt": log.torn,
            "damage": log.damage,
        }));
    }
    drop(progress);
    let mut snapshots = Vec::new();
    for (name, bytes) in apache.snapshots() {
        let read = read_snapshot(name, bytes, &mut |_| Ok(()))?;
        sound &= read.as_ref().map_or_else(|damage| is_unfinished(name, bytes, damage), |_| true);
        snapshots.push(match read {
            Ok(summary) => json!({
                "file": name,
                "bytes": bytes.len(),
                "begun": names::snapshot_zxid(name).map(|(zxid, _)| zxid.to_string()),
                "ended": summary.last_zxid.map(|zxid| zxid.to_string()),
                "sessions": summary.session_count,
                "acls": summary.acl_count,
                "znodes": summary.znode_count,
                "digest": summary.digest.map(|section| format!("0x{:x}", section.digest)),
                "whole": true,
            }),
            Err(damage) => json!({
                "file": name,
                "bytes": bytes.len(),
                "whole": false,
                "unfinished": is_unfinished(name, bytes, &damage),
                "damage": damage.to_string(),
            }),
        });
    }
    let imported = is_directory.then(|| apache.import(None, WallMs(0)));
    sound &= imported.as_ref().is_none_or(|imported| {
        let is_cut = |(_, unfit): &_| matches!(unfit, Unfit::Damage(damage) if damage.is_cut);
        imported.refused.is_none() && imported.passed_over.iter().all(is_cut)
    });
    let object = json!({
        "kind": "apache",
        "dataDir": apache.data_dir.display().to_string(),
        "logDir": apache.log_dir.display().to_string(),
        "logs": logs,
        "snapshots": snapshots,
        "acceptedEpoch": apache.epoch(names::ACCEPTED_EPOCH),
        "currentEpoch": apache.epoch(names::CURRENT_EPOCH),
        "import": imported.as_ref().map(imported_json),
    });
    if session.json {
        session.json_line(&object)?;
    } else {
        print(&object, session)?;
    }
    Ok(if sound { Ending::Sound } else { Ending::Damaged })
}

fn imported_json(imported: &Imported) -> Value {
    json!({
        "refused": imported.refused,
        "lastZxid": imported.zxid.map(|zxid| zxid.to_string()),
        "notes": imported.all_notes(),
    })
}

/// Name and value pairs, a line for each file.
fn print(object: &Value, session: &mut Session<'_>) -> Result<(), Trouble> {
    for (key, value) in object.as_object().into_iter().flatten() {
        match value {
            Value::Null => {}
            Value::Array(files) => {
                for file in files {
                    session.line(format_args!("{}", pairs(file)))?;
                }
            }
            Value::Object(_) => session.line(format_args!("{key}  {}", pairs(value)))?,
            plain => session.line(format_args!("{key}  {}", word(plain)))?,
        }
    }
    Ok(())
}

fn pairs(object: &Value) -> String {
    let shown = object.as_object().into_iter().flatten();
    let shown = shown.filter(|(_, value)| !value.is_null() && **value != json!([]));
    let pair = |(key, value): (&String, &Value)| match key.as_str() {
        "file" => word(value),
        _ => format!("{key}={}", word(value)),
    };
    shown.map(pair).collect::<Vec<_>>().join("  ")
}

fn word(value: &Value) -> String {
    value.as_str().map_or_else(|| value.to_string(), str::to_owned)
}

/// `replay`: an import of the files as they were at the moment, into a new directory.
pub(crate) fn replay(
    apache: &Apache,
    to: Moment,
    out: &Path,
    session: &mut Session<'_>,
) -> Result<Ending, Trouble> {
    let zxid = wanted_zxid(apache, to)?;
    rebuild::make_empty(out, [&apache.data_dir, &apache.log_dir])?;
    let ending = import_at(apache, zxid, &out.join("ringkeeper"), out)?;
    if session.json {
        session.json_line(&json!({
            "dataDir": out.display().to_string(),
            "zxid": zxid.to_string(),
        }))?;
    } else {
        let out = out.display();
        session.line(format_args!(
            "{out}: zxid {zxid}; read back and compared; start a server with dataDir={out}"
        ))?;
    }
    Ok(ending)
}

/// Makes the directory `own`, within `out`, from the files as they were behind this txn. Says
/// whether a snapshot was passed over that is damaged.
pub(super) fn import_at(
    apache: &Apache,
    wanted: Zxid,
    own: &Path,
    out: &Path,
) -> Result<Ending, Trouble> {
    rebuild::make_directory(own)?;
    let wall = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_millis();
    let wall = WallMs(i64::try_from(wall).unwrap_or(i64::MAX));
    let imported = apache.until(wanted).import(Some(own), wall);
    for (name, unfit) in &imported.passed_over {
        eprintln!("{} is not used: {unfit}", apache.data_dir.join(name).display());
    }
    for note in &imported.notes {
        eprintln!("{note}");
    }
    let out = out.display();
    if let Some(refused) = imported.refused {
        return Err(Trouble::Unreadable(format!("{out}: do not use it: {refused}")));
    }
    let zxid = imported.zxid.unwrap_or_default();
    if zxid != wanted {
        let text = format!("{out}: do not use it: zxid {wanted} cannot be reached, only {zxid}");
        return Err(Trouble::Unreadable(text));
    }
    let is_damaged = imported.passed_over.iter().any(|(_, unfit)| match unfit {
        Unfit::Damage(damage) => !damage.is_cut,
        // The moment may be one at which it is not yet exact.
        Unfit::Ahead { until, .. } => last_zxid(apache) < Some(*until),
        Unfit::Restore(_) | Unfit::Digest { .. } => true,
    });
    Ok(if is_damaged { Ending::Damaged } else { Ending::Sound })
}

fn last_zxid(apache: &Apache) -> Option<Zxid> {
    let records = apache.logs().into_iter().flat_map(|(_, bytes)| walk(bytes));
    let zxids = records.filter_map(|seen| match seen {
        Seen::Record(record) => Some(record.zxid),
        _ => None,
    });
    zxids.max()
}

/// The last zxid that is not behind the moment, if log or snapshots reach it.
pub(super) fn wanted_zxid(apache: &Apache, to: Moment) -> Result<Zxid, Trouble> {
    let is_later = |record: &LogRecord| match to {
        Moment::Zxid(zxid) => zxid < record.zxid,
        Moment::Time(time_ms) => time_of(record).is_some_and(|ms| time_ms < ms),
        Moment::End => false,
    };
    let (mut before, mut later) = (None, None);
    let mut progress = Progress::new("log", apache.log_bytes());
    'logs: for (_, bytes) in apache.logs() {
        for seen in walk(bytes) {
            let Seen::Record(record) = seen else { continue };
            if is_later(&record) {
                later = Some(record.zxid);
                break 'logs;
            }
            before = before.max(Some(record.zxid));
        }
        progress.add(bytes.len() as u64);
    }
    drop(progress);
    let last = before.max(newest_snapshot(apache, to, before, later)?);
    let unreachable = |text: String| Err(Trouble::Unreadable(text));
    match (to, last, later) {
        (Moment::Zxid(zxid), Some(last), _) if zxid == last => Ok(last),
        (_, Some(last), Some(later)) if later.follows(last) => Ok(last),
        (_, Some(last), Some(later)) => {
            unreachable(format!("the txns between zxid {last} and zxid {later} are absent"))
        }
        (Moment::Zxid(zxid), Some(last), None) => {
            unreachable(format!("zxid {zxid}: log and snapshots end at zxid {last}"))
        }
        (_, Some(last), None) => Ok(last),
        (_, None, Some(later)) => unreachable(format!(
            "the log begins at zxid {later}, behind the moment, and no whole snapshot is older"
        )),
        (_, None, None) => unreachable(
            "there is no txn in the logs, and no whole snapshot that is not behind the moment"
                .to_owned(),
        ),
    }
}

/// The newest whole snapshot behind the log's part up to the moment, itself not behind it.
fn newest_snapshot(
    apache: &Apache,
    to: Moment,
    before: Option<Zxid>,
    later: Option<Zxid>,
) -> Result<Option<Zxid>, Trouble> {
    for (name, bytes) in apache.snapshots().into_iter().rev() {
        let Some((begun, _)) = names::snapshot_zxid(name) else { continue };
        let is_behind = match to {
            Moment::Zxid(zxid) => zxid < begun,
            Moment::Time(_) | Moment::End => later.is_some_and(|later| later <= begun),
        };
        if is_behind || Some(begun) <= before {
            continue;
        }
        // Of its txns only the times that znodes bear are known.
        let mut latest_ms = i64::MIN;
        let read = read_snapshot(name, bytes, &mut |item| {
            if let SnapshotItem::Znode { stat, .. } = item {
                latest_ms = latest_ms.max(stat.mtime).max(stat.ctime);
            }
            Ok(())
        })?;
        if read.is_ok() && !matches!(to, Moment::Time(time_ms) if time_ms < latest_ms) {
            return Ok(Some(begun));
        }
    }
    Ok(None)
}
