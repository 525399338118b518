//! `info`: what is in a directory or file, in short, and what a start would make of it.

use bytes::Bytes;
use ringkeeper::model::Zxid;
use ringkeeper::server::epochs::Epochs;
use ringkeeper::server::install::Install;
use ringkeeper::snapshot::inspect::{self, items_of};
use ringkeeper::txnlog::read::{What, records_of};
use ringkeeper::txnlog::scan::Item;
use ringkeeper::txnlog::segment_name;
use ringkeeper::wire;
use serde::Serialize;

use super::files::{Files, Kind};
use super::place::Trouble;
use super::progress::Progress;
use super::time::rfc3339;
use super::{Ending, Session, install, start};

/// Everything there is to say. Zxids, nonces and digests are hexadecimal text.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Info {
    kind: &'static str,
    data_dir: String,
    log_dir: String,
    /// The process that is running on the directory.
    #[serde(skip_serializing_if = "Option::is_none")]
    server: Option<u32>,
    segments: Vec<Segment>,
    snapshots: Vec<Snapshot>,
    #[serde(skip_serializing_if = "Option::is_none")]
    epochs: Option<EpochsInfo>,
    #[serde(skip_serializing_if = "Option::is_none")]
    install: Option<InstallInfo>,
    leftovers: Vec<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    start: Option<StartInfo>,
}

#[derive(Serialize, Default)]
#[serde(rename_all = "camelCase")]
struct Segment {
    file: String,
    bytes: u64,
    /// Up to the end of the last batch.
    used_bytes: u64,
    batches: u64,
    records: u64,
    first_zxid: Option<String>,
    last_zxid: Option<String>,
    first_time: Option<String>,
    last_time: Option<String>,
    first_batch: Option<u64>,
    last_batch: Option<u64>,
    nonce: Option<String>,
    previous_nonce: Option<String>,
    /// Chain value of the last batch.
    chain: Option<String>,
    damage: Vec<String>,
    /// What is behind the end, if it is not zeros.
    torn: Option<String>,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Snapshot {
    file: String,
    bytes: u64,
    zxid: Option<String>,
    taken: Option<String>,
    sessions: u64,
    acls: u64,
    znodes: u64,
    digest: String,
    /// It was received from a leader that went on meanwhile, and shows txns up to here.
    #[serde(skip_serializing_if = "Option::is_none")]
    fuzzy_until: Option<String>,
    whole: bool,
    damage: Option<String>,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct EpochsInfo {
    accepted: u32,
    current: u32,
    whole: bool,
}

/// The record of a snapshot that is to take the place of everything.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct InstallInfo {
    zxid: Option<String>,
    first_segment: Option<u64>,
    whole: bool,
}

/// What a start would do.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct StartInfo {
    /// Row of the log's recovery table.
    row: Option<String>,
    refused: Option<String>,
    snapshot: Option<String>,
    last_zxid: Option<String>,
    replayed_txns: Option<u64>,
    sessions: Option<usize>,
    znodes: Option<usize>,
    digest: Option<String>,
    /// Why the tree may be ahead of the zxid.
    #[serde(skip_serializing_if = "Option::is_none")]
    inexact: Option<String>,
    notes: Vec<String>,
    changes: Vec<String>,
}

/// Says what is there.
pub(crate) fn run(files: &Files, session: &mut Session<'_>) -> Result<Ending, Trouble> {
    let info = gather(files);
    if session.json {
        session.json_line(&info)?;
    } else {
        print(&info, session)?;
    }
    let sound = info.segments.iter().all(|segment| segment.damage.is_empty())
        && info.snapshots.iter().all(|snapshot| snapshot.whole)
        && info.epochs.as_ref().is_none_or(|epochs| epochs.whole)
        && info.install.as_ref().is_none_or(|install| install.whole)
        && info.start.as_ref().is_none_or(|start| start.refused.is_none());
    Ok(if sound { Ending::Sound } else { Ending::Damaged })
}

fn gather(files: &Files) -> Info {
    let snapshots = files.all_snapshots().map(|(name, _, bytes)| (name, bytes));
    let received = files.received().map(|(name, _, bytes)| (name, bytes));
    let snapshots = snapshots.chain(received);
    let snapshots = snapshots.map(|(name, bytes)| snapshot(name, bytes)).collect();
    let install = files.install.as_ref().map(|_| match files.install_record() {
        Some(Install { zxid, first_segment }) => InstallInfo {
            zxid: Some(zxid.to_string()),
            first_segment: Some(first_segment),
            whole: true,
        },
        None => InstallInfo { zxid: None, first_segment: None, whole: false },
    });
    let epochs = files.epochs.as_ref().map(|bytes| match Epochs::decode(bytes) {
        Ok(Epochs { accepted, current, .. }) => EpochsInfo { accepted, current, whole: true },
        Err(_) => EpochsInfo { accepted: 0, current: 0, whole: false },
    });
    Info {
        kind: match files.kind {
            Kind::Directory => "directory",
            Kind::Segment => "segment",
            Kind::Snapshot => "snapshot",
            Kind::Apache | Kind::ApacheFile => "apache",
        },
        data_dir: files.data_dir.display().to_string(),
        log_dir: files.log_dir.display().to_string(),
        server: files.server,
        segments: segments(files),
        snapshots,
        epochs,
        install,
        leftovers: files.leftovers.iter().map(|(name, _)| name.clone()).collect(),
        start: (files.kind == Kind::Directory).then(|| start_info(start::think(files))),
    }
}

fn segments(files: &Files) -> Vec<Segment> {
    let mut progress = Progress::new("log", files.log_bytes());
    let mut found: Vec<Segment> = Vec::new();
    let mut last: Option<Bytes> = None;
    for seen in files.logs().into_iter().flat_map(records_of) {
        let file = segment_name(seen.segment);
        if found.last().is_none_or(|segment| segment.file != file) {
            end_segment(found.last_mut(), last.take());
            let bytes = files.segments.get(&file).map_or(0, |bytes| bytes.len() as u64);
            found.push(Segment { file, bytes, ..Segment::default() });
        }
        let Some(segment) = found.last_mut() else { continue };
        match &seen.what {
            What::Segment(header) => {
                segment.nonce = Some(format!("0x{:x}", header.nonce));
                segment.previous_nonce = Some(format!("0x{:x}", header.previous_nonce));
            }
            What::Item(Item::Batch { offset, header }) => {
                progress.add(header.padded_bytes());
                segment.used_bytes = offset + header.padded_bytes();
                segment.batches += 1;
                segment.first_batch.get_or_insert(header.number);
                segment.last_batch = Some(header.number);
                segment.chain = Some(format!("0x{:x}", header.chain));
            }
            What::Item(Item::Record { zxid, txn, .. }) => {
                segment.records += 1;
                segment.last_zxid = Some(zxid.to_string());
                if segment.first_zxid.is_none() {
                    segment.first_zxid = Some(zxid.to_string());
                    segment.first_time = time_of(txn);
                }
                last = Some(txn.clone());
            }
            What::Item(Item::End { .. }) => {}
            What::Item(Item::Torn { .. }) => segment.torn = Some(seen.to_string()),
            What::Item(Item::Corrupt { .. }) | What::Fault(_) => {
                segment.damage.push(seen.to_string());
            }
        }
    }
    end_segment(found.last_mut(), last);
    found
}

fn end_segment(segment: Option<&mut Segment>, last: Option<Bytes>) {
    if let (Some(segment), Some(txn)) = (segment, last) {
        segment.last_time = time_of(&txn);
    }
}

fn time_of(txn: &Bytes) -> Option<String> {
    wire::txn::decode(txn).ok().map(|txn| rfc3339(txn.header.time_ms))
}

fn snapshot(file: String, bytes: &Bytes) -> Snapshot {
    let mut progress = Progress::new("snapshot", bytes.len() as u64);
    let mut found = Snapshot {
        file,
        bytes: bytes.len() as u64,
        zxid: None,
        taken: None,
        sessions: 0,
        acls: 0,
        znodes: 0,
        digest: "0x0".to_owned(),
        fuzzy_until: None,
        whole: true,
        damage: None,
    };
    let mut reader = items_of(bytes.clone());
    let mut position = 0;
    while let Some(seen) = reader.next() {
        progress.add(reader.position() - position);
        position = reader.position();
        match seen.what {
            inspect::What::Header(zxid, wall) => {
                found.zxid = Some(zxid.to_string());
                found.taken = Some(rfc3339(wall.0));
            }
            inspect::What::End(summary) => {
                found.sessions = summary.session_count;
                found.acls = summary.acl_count;
                found.znodes = summary.znode_count;
                found.digest = format!("0x{:x}", summary.digest);
                found.fuzzy_until = summary.fuzzy_until.map(|zxid| zxid.to_string());
            }
            inspect::What::Damage(what) => {
                found.whole = false;
                found.damage.get_or_insert_with(|| format!("offset {}: {what}", seen.offset));
            }
            inspect::What::Item(_) => {}
        }
    }
    found
}

fn start_info(start: start::Start) -> StartInfo {
    let text = |zxid: Zxid| zxid.to_string();
    let mut info = StartInfo {
        row: None,
        refused: None,
        snapshot: None,
        last_zxid: None,
        replayed_txns: None,
        sessions: None,
        znodes: None,
        digest: None,
        inexact: None,
        notes: start.notes,
        changes: start.changes,
    };
    match start.outcome {
        Ok(recovered) => {
            info.row = Some(format!("{:?}", recovered.log_end.row));
            info.snapshot = recovered.snapshots.last().copied().map(text);
            info.last_zxid = Some(text(recovered.last_zxid));
            info.replayed_txns = Some(recovered.replayed_txn_count);
            info.sessions = Some(recovered.sessions.len());
            info.znodes = Some(recovered.tree.znode_count());
            info.digest = Some(format!("0x{:x}", recovered.tree.digest()));
            info.inexact = install::inexact(recovered.fuzzy);
        }
        Err(refusal) => info.refused = Some(refusal.to_string()),
    }
    info
}

fn print(info: &Info, session: &mut Session<'_>) -> Result<(), Trouble> {
    if info.kind == "directory" {
        session.line(format_args!("data directory  {}", info.data_dir))?;
        session.line(format_args!("log directory   {}", info.log_dir))?;
    }
    if let Some(pid) = info.server {
        session.line(format_args!("server          process {pid} is running on it"))?;
    }
    for segment in &info.segments {
        print_segment(segment, session)?;
    }
    for snapshot in &info.snapshots {
        print_snapshot(snapshot, session)?;
    }
    match &info.epochs {
        Some(EpochsInfo { whole: false, .. }) => session.line(format_args!("epochs  DAMAGED"))?,
        Some(EpochsInfo { accepted, current, .. }) => {
            session.line(format_args!("epochs  accepted {accepted}, current {current}"))?;
        }
        None => {}
    }
    match &info.install {
        Some(InstallInfo { zxid: Some(zxid), first_segment: Some(first), .. }) => {
            session.line(format_args!(
                "install  snapshot {zxid} of a leader with the segments from {first} on is to \
                 take the place of everything else"
            ))?;
        }
        Some(_) => session.line(format_args!("install  DAMAGED"))?,
        None => {}
    }
    for name in &info.leftovers {
        session.line(format_args!("{name}  unfinished; the next start removes it"))?;
    }
    match &info.start {
        Some(start) => print_start(start, session),
        None => Ok(()),
    }
}

fn print_segment(segment: &Segment, session: &mut Session<'_>) -> Result<(), Trouble> {
    let Segment { file, bytes, used_bytes, batches, records, .. } = segment;
    let or = |text: &Option<String>| text.clone().unwrap_or_else(|| "-".to_owned());
    session.line(format_args!(
        "{file}  {used_bytes} of {bytes} bytes used, {batches} batches, {records} records"
    ))?;
    if let (Some(first), Some(last)) = (&segment.first_zxid, &segment.last_zxid) {
        let times = (or(&segment.first_time), or(&segment.last_time));
        session.line(format_args!("    zxid {first}..{last}, {}..{}", times.0, times.1))?;
    }
    session.line(format_args!(
        "    nonce {}, previous {}, batches {}..{}, chain {}",
        or(&segment.nonce),
        or(&segment.previous_nonce),
        segment.first_batch.unwrap_or_default(),
        segment.last_batch.unwrap_or_default(),
        or(&segment.chain)
    ))?;
    for damage in &segment.damage {
        session.line(format_args!("    DAMAGED: {damage}"))?;
    }
    match &segment.torn {
        Some(torn) => session.line(format_args!("    torn: {torn}")),
        None => Ok(()),
    }
}

fn print_snapshot(snapshot: &Snapshot, session: &mut Session<'_>) -> Result<(), Trouble> {
    let Snapshot { file, bytes, sessions, acls, znodes, digest, .. } = snapshot;
    session.line(format_args!(
        "{file}  {bytes} bytes, taken {}, {sessions} sessions, {acls} ACLs, {znodes} znodes, \
         digest {digest}, {}",
        snapshot.taken.as_deref().unwrap_or("-"),
        if snapshot.whole { "whole" } else { "DAMAGED" }
    ))?;
    if let Some(until) = &snapshot.fuzzy_until {
        session.line(format_args!(
            "    received from a leader that went on: it may show txns behind its zxid, and shows \
             some up to {until}"
        ))?;
    }
    match &snapshot.damage {
        Some(damage) => session.line(format_args!("    {damage}")),
        None => Ok(()),
    }
}

/// What a start would do, as text.
pub(crate) fn print_start(start: &StartInfo, session: &mut Session<'_>) -> Result<(), Trouble> {
    for note in &start.notes {
        session.line(format_args!("a start would warn: {note}"))?;
    }
    for change in &start.changes {
        session.line(format_args!("a start would {change}"))?;
    }
    if let Some(refused) = &start.refused {
        return session.line(format_args!("a start would be refused: {refused}"));
    }
    let or = |text: &Option<String>| text.clone().unwrap_or_else(|| "none".to_owned());
    session.line(format_args!(
        "a start would serve ({}): zxid {}, snapshot {}, {} txns replayed, {} sessions, {} znodes, \
         digest {}",
        or(&start.row),
        or(&start.last_zxid),
        or(&start.snapshot),
        start.replayed_txns.unwrap_or_default(),
        start.sessions.unwrap_or_default(),
        start.znodes.unwrap_or_default(),
        or(&start.digest)
    ))?;
    match &start.inexact {
        Some(why) => session.line(format_args!("    {why}")),
        None => Ok(()),
    }
}
