//! `verify` on Apache ZooKeeper's files: every record, every snapshot, and what they lead to
//! together.

use ringkeeper::apache::{Compression, LogRecord, SnapshotDamage, names};
use ringkeeper::base::WallMs;
use ringkeeper::model::{Txn, Zxid};
use ringkeeper::server::import::Unfit;
use ringkeeper::wire;

use super::apache::{Apache, Seen, compression_of, is_unfinished, read_snapshot, walk};
use super::apache_commands::TORN;
use super::apache_replayer::{Complaint, Replayer};
use super::place::Trouble;
use super::progress::Progress;
use super::verify::Report;
use super::{Ending, Session};

/// Checks everything.
pub(crate) fn run(
    apache: &Apache,
    is_directory: bool,
    session: &mut Session<'_>,
) -> Result<Ending, Trouble> {
    let mut report = Report::default();
    let whole = check_snapshots(apache, &mut report)?;
    let newest = whole.iter().map(|name| begun(name)).max().unwrap_or_default();
    let snapshots = apache.snapshots().into_iter().filter(|(name, _)| whole.contains(name));
    let snapshots = snapshots.map(|(name, bytes)| (name, begun(name), bytes)).collect();
    let mut replayer = Replayer::new(snapshots, is_directory);
    check_logs(apache, newest, &mut replayer, &mut report);
    let complaints = replayer.finish();
    complain(&complaints, None, &mut report);
    report.checked.replayed = replayer.replayed();
    drop(replayer);
    if is_directory {
        check_import(apache, &mut report);
    }
    report.end(session)
}

fn begun(name: &str) -> Zxid {
    names::snapshot_zxid(name).map(|(zxid, _)| zxid).unwrap_or_default()
}

/// Reads every snapshot; the names of those that are whole.
fn check_snapshots<'a>(apache: &'a Apache, report: &mut Report) -> Result<Vec<&'a str>, Trouble> {
    let snapshots = apache.snapshots();
    let bytes = snapshots.iter().map(|(_, bytes)| bytes.len() as u64).sum();
    let mut progress = Progress::new("snapshots", bytes);
    let mut whole = Vec::new();
    for (name, bytes) in snapshots {
        report.checked.snapshots += 1;
        match read_snapshot(name, bytes, &mut |_| Ok(()))? {
            Ok(_) => whole.push(name),
            Err(damage) if is_unfinished(name, bytes, &damage) => {
                let meaning = "its writing was cut short or is going on; a start passes it over";
                let words = ["the file is unfinished", meaning];
                report.add("note", name, bytes.len() as u64, begun(name), words);
            }
            Err(damage) => {
                let is_plain = compression_of(name, bytes) == Compression::None;
                add_damage(name, is_plain, &damage, report);
            }
        }
        progress.add(bytes.len() as u64);
    }
    Ok(whole)
}

/// The place in a compressed file is not known, only that in what it unpacks to.
fn add_damage(name: &str, is_plain: bool, damage: &SnapshotDamage, report: &mut Report) {
    let what = match is_plain {
        true => damage.what.to_owned(),
        false => format!("{}, at offset {} of what it unpacks to", damage.what, damage.offset),
    };
    let offset = is_plain.then_some(damage.offset);
    report.add("damage", name, offset, begun(name), [&what, PASSED_OVER]);
}

fn check_logs(apache: &Apache, newest: Zxid, replayer: &mut Replayer<'_>, report: &mut Report) {
    let mut last: Option<Zxid> = None;
    let mut progress = Progress::new("log", apache.log_bytes());
    for (name, bytes) in apache.logs() {
        report.checked.segments += 1;
        let mut position = 0;
        for seen in walk(bytes) {
            let before = last.unwrap_or_default();
            match seen {
                Seen::Record(record) => {
                    progress.add(record.offset - position);
                    position = record.offset;
                    report.checked.records += 1;
                    if let Some(txn) = check_record(name, &record, last, newest, report) {
                        let complaints = replayer.take(&record, &txn);
                        complain(&complaints, Some((name, &record)), report);
                    } else {
                        replayer.lose();
                    }
                    last = Some(record.zxid.max(before));
                }
                Seen::Damage(offset, what) => {
                    replayer.lose();
                    let meaning = format!("txns behind {before} are damaged or hidden");
                    report.add("damage", name, offset, before, [&what, &meaning]);
                }
                Seen::Torn(offset) => {
                    let meaning = "nothing here was acknowledged";
                    report.add("note", name, offset, before, [TORN, meaning]);
                }
            }
        }
        progress.add(bytes.len() as u64 - position);
    }
}

/// Decodes a record, and looks whether it follows the one before.
fn check_record(
    name: &str,
    record: &LogRecord,
    last: Option<Zxid>,
    newest: Zxid,
    report: &mut Report,
) -> Option<Txn> {
    let (offset, zxid) = (record.offset, record.zxid);
    let txn = wire::txn::decode(&record.txn).map_err(|error| {
        let what = format!("the txn does not decode: {error}");
        let meaning = "written by a newer version, or by a defect";
        report.add("damage", name, offset, zxid, [&what, meaning]);
    });
    if let Some(last) = last.filter(|last| *last < zxid && !zxid.follows(*last)) {
        let what = format!("the records after zxid {last} are absent");
        let covered = zxid.0 <= newest.next().0;
        let (level, meaning) = match covered {
            true => ("note", "a snapshot holds what they did"),
            false => ("damage", "these txns are lost, unless another server has them"),
        };
        report.add(level, name, offset, last, [&what, meaning]);
    }
    txn.ok()
}

/// `record` is the one that showed it.
fn complain(complaints: &[Complaint], record: Option<(&str, &LogRecord)>, report: &mut Report) {
    for complaint in complaints {
        let what = complaint.to_string();
        match complaint {
            Complaint::Digest { .. } => {
                let place = record.map(|(log, record)| (log, record.offset, record.zxid));
                let (log, offset, zxid) = place.unwrap_or_default();
                let meaning = "snapshot and log do not belong together, or a defect of the server \
                               that wrote them";
                report.add("damage", log, offset, zxid, [&what, meaning]);
            }
            Complaint::Unfit(name, unfit) => add_unfit(name, unfit, report),
            Complaint::Other { name, begun, .. } => {
                let meaning = "one of the snapshots or the log is not what the server had";
                report.add("damage", name, None, *begun, [&what, meaning]);
            }
        }
    }
}

fn add_unfit(name: &str, unfit: &Unfit, report: &mut Report) {
    let zxid = match unfit {
        Unfit::Ahead { until, .. } => *until,
        Unfit::Digest { zxid, .. } => *zxid,
        Unfit::Damage(_) | Unfit::Restore(_) => begun(name),
    };
    report.add("damage", name, None, zxid, [&unfit.to_string(), PASSED_OVER]);
}

const PASSED_OVER: &str = "the snapshot is not used; the one before is";

/// What this server's own import would make of the files.
fn check_import(apache: &Apache, report: &mut Report) {
    let imported = apache.import(None, WallMs(0));
    if let Some(refused) = imported.refused {
        let what = format!("an import would be refused: {refused}");
        let meaning = "restore the files from a backup or another server";
        report.add("damage", "", 0, Zxid::ZERO, [&what, meaning]);
    }
    for (name, unfit) in &imported.passed_over {
        if !report.is_found(name) {
            add_unfit(name, unfit, report);
        }
    }
    for note in imported.notes {
        report.add("note", "", 0, Zxid::ZERO, [&note, "an import would say so"]);
    }
}
