//! `compact` on Apache ZooKeeper's files: a log range folded into a snapshot of Apache's format,
//! and what is no longer needed then.

use std::fs;
use std::io::Write;
use std::path::{Path, PathBuf};

use bytes::Bytes;
use ringkeeper::apache::{Compression, SnapshotItem, names};
use ringkeeper::base::WallMs;
use ringkeeper::model::Zxid;
use ringkeeper::server::export::{Export, Sections};
use ringkeeper::server::recovery::Recovered;

use super::apache::{Apache, read_snapshot};
use super::apache_commands::{import_at, wanted_zxid};
use super::compact::tell;
use super::place::{Place, Trouble, unreadable};
use super::rebuild::{self, Moment, ReadBack};
use super::{Ending, Session, files, map, start};

/// What is imported on the way, within the new directory.
const IMPORTED: &str = "imported";

/// Writes the snapshot into `out`, then lists files. Removes nothing.
pub(crate) fn run(
    apache: &Apache,
    to: Moment,
    out: &Path,
    session: &mut Session<'_>,
) -> Result<Ending, Trouble> {
    let zxid = wanted_zxid(apache, to)?;
    let (compression, sections) = form(apache)?;
    rebuild::make_empty(out, [&apache.data_dir, &apache.log_dir])?;
    let own = out.join(IMPORTED);
    let ending = import_at(apache, zxid, &own, out)?;
    let recovered = recovered(&own)?;
    let path = out.join(names::snapshot_name(zxid, compression));
    let written = rebuild::write_file(&path, |file| {
        Export::new(&recovered, compression, sections).try_for_each(|chunk| file.write_all(&chunk))
    });
    written.map_err(|error| unreadable(&path, &error))?;
    fs::remove_dir_all(&own).map_err(|error| unreadable(&own, &error))?;
    let bytes = map::map(&path).map_err(|error| unreadable(&path, &error))?;
    compare(&path, &bytes, &recovered)?;
    let spare = spare_files(apache, zxid);
    prove(apache, &spare, &path, bytes)?;
    let spare: Vec<PathBuf> =
        spare.into_iter().map(|(directory, name)| directory.join(name)).collect();
    tell(&path, (zxid, recovered.tree.digest()), &apache.data_dir, &spare, session)?;
    Ok(ending)
}

/// As the newest whole snapshot is: a server expects what its own version and settings would write.
fn form(apache: &Apache) -> Result<(Compression, Sections), Trouble> {
    for (name, bytes) in apache.snapshots().into_iter().rev() {
        let Some((_, compression)) = names::snapshot_zxid(name) else { continue };
        if let Ok(summary) = read_snapshot(name, bytes, &mut |_| Ok(()))? {
            let (digest, last_zxid) = (summary.digest.is_some(), summary.last_zxid.is_some());
            return Ok((compression, Sections { digest, last_zxid }));
        }
    }
    let text = "there is no whole snapshot, so that it is not known what its server writes";
    Err(Trouble::Unreadable(format!("{}: {text}", apache.data_dir.display())))
}

fn recovered(own: &Path) -> Result<Box<Recovered>, Trouble> {
    let made = files::open(&Place::Directory { data: own.to_owned(), log: own.to_owned() })?;
    start::think(&made).outcome.map_err(|refusal| Trouble::Unreadable(refusal.to_string()))
}

fn compare(path: &Path, bytes: &Bytes, recovered: &Recovered) -> Result<(), Trouble> {
    let mut read = ReadBack::new(path, &recovered.tree, recovered.sessions.iter().copied());
    let summary = read_snapshot(&files::name_of(path), bytes, &mut |item| match item {
        SnapshotItem::Session { id, timeout_ms } => read.session(id, timeout_ms),
        SnapshotItem::Znode { path, data, acl, stat } => {
            read.znode(&path, data.as_deref(), &acl, stat)
        }
    })?;
    summary.map_err(|damage| read.wrong(&format!("is damaged: {damage}")))?;
    read.end()
}

/// Snapshots that are older, and logs in front of the last one that may hold the next txn: a start
/// reads from the last log on whose name is not behind the snapshot's.
fn spare_files(apache: &Apache, zxid: Zxid) -> Vec<(PathBuf, String)> {
    let logs = apache.logs();
    let begun = |name: &str| names::log_zxid(name).unwrap_or_default();
    let first = logs.iter().map(|(name, _)| begun(name)).filter(|begun| *begun <= zxid).max();
    let logs = logs.iter().filter(|(name, _)| Some(begun(name)) < first);
    let logs = logs.map(|(name, _)| (apache.log_dir.clone(), (*name).to_owned()));
    let is_older = |name: &str| names::snapshot_zxid(name).is_some_and(|(begun, _)| begun < zxid);
    let snapshots = apache.snapshots().into_iter().filter(|(name, _)| is_older(name));
    let snapshots = snapshots.map(|(name, _)| (apache.data_dir.clone(), name.to_owned()));
    logs.chain(snapshots).collect()
}

/// Imports what would be left, and all there is now.
fn prove(
    apache: &Apache,
    spare: &[(PathBuf, String)],
    path: &Path,
    bytes: Bytes,
) -> Result<(), Trouble> {
    let name = files::name_of(path);
    let names = spare.iter().map(|(_, name)| name.as_str());
    let left = apache.without(names).with_snapshot(&name, bytes);
    let (before, after) = (apache.import(None, WallMs(0)), left.import(None, WallMs(0)));
    let refused = |text: String| Trouble::Unreadable(format!("the snapshot is whole, but {text}"));
    if let Some(refusal) = after.refused {
        return Err(refused(format!("what would be left leads nowhere: {refusal}")));
    }
    if let Some((_, unfit)) = after.passed_over.iter().find(|(unfit, _)| *unfit == name) {
        return Err(refused(format!("with the log behind it, it cannot be used: {unfit}")));
    }
    // What could not be read before need not be read any longer.
    if before.refused.is_none() && before.zxid != after.zxid {
        let zxid = after.zxid.unwrap_or_default();
        return Err(refused(format!("what would be left ends at zxid {zxid}")));
    }
    Ok(())
}
