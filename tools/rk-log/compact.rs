//! `compact`: a log range folded into a snapshot, and what is no longer needed then.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use ringkeeper::model::Zxid;
use ringkeeper::server::install;
use ringkeeper::snapshot::catalog;
use ringkeeper::txnlog::read::{What, records_of};
use ringkeeper::txnlog::scan::Item;
use ringkeeper::txnlog::segment_name;
use serde_json::json;

use super::files::Files;
use super::place::{Trouble, unreadable};
use super::rebuild::{self, Moment};
use super::{Ending, Session, map, start};

/// Writes the snapshot into `out`, then lists files. Removes nothing.
pub(crate) fn run(
    files: &Files,
    to: Moment,
    out: &Path,
    session: &mut Session<'_>,
) -> Result<Ending, Trouble> {
    if files.install.is_some() {
        return Err(Trouble::Unreadable(format!(
            "{}: what it says must be done first, by a start: that removes every other snapshot",
            files.data_dir.join(install::FILE_NAME).display()
        )));
    }
    let (mut state, ending) = rebuild::state_at(files, to)?;
    let (zxid, digest) = (state.tree.last_zxid(), state.tree.digest());
    rebuild::make_empty(out, [&files.data_dir, &files.log_dir])?;
    let snapshot = rebuild::write_snapshot(out, &mut state)?;
    drop(state);
    let spare = spare_files(files, zxid);
    prove(files, &spare, zxid, &snapshot)?;
    tell(&snapshot, (zxid, digest), &files.data_dir, &spare, session)?;
    Ok(ending)
}

/// Says what was written, for which directory, and which files are spare then.
pub(super) fn tell(
    snapshot: &Path,
    (zxid, digest): (Zxid, u64),
    data_dir: &Path,
    spare: &[PathBuf],
    session: &mut Session<'_>,
) -> Result<(), Trouble> {
    let paths: Vec<String> = spare.iter().map(|path| path.display().to_string()).collect();
    if session.json {
        return session.json_line(&json!({
            "snapshot": snapshot.display().to_string(),
            "zxid": zxid.to_string(),
            "digest": format!("0x{digest:x}"),
            "noLongerNeeded": paths,
        }));
    }
    session.line(format_args!(
        "{}: zxid {zxid}, digest 0x{digest:x}; read back and compared",
        snapshot.display()
    ))?;
    let data = data_dir.display();
    session
        .line(format_args!("once it is in {data}, and no server runs, not needed any longer:"))?;
    paths.iter().try_for_each(|path| session.line(format_args!("{path}")))
}

/// Segments in front of the one in which a start behind `zxid` begins to read, and older
/// snapshots.
fn spare_files(files: &Files, zxid: Zxid) -> Vec<PathBuf> {
    let mut first_previous: BTreeMap<u64, Zxid> = BTreeMap::new();
    for seen in records_of(files.log()) {
        if let What::Item(Item::Batch { header, .. }) = &seen.what {
            first_previous.entry(seen.segment).or_insert(header.previous_zxid);
        }
    }
    let holds = |entry: &(&u64, &Zxid)| *entry.1 <= zxid;
    let begin = first_previous.iter().rfind(holds).map_or(0, |(segment, _)| *segment);
    let segments = first_previous.keys().filter(|segment| **segment < begin);
    let segments = segments.map(|segment| files.log_dir.join(segment_name(*segment)));
    let older = files.snapshots.range(..zxid);
    let older = older.map(|(zxid, _)| files.data_dir.join(catalog::file_name(*zxid)));
    segments.chain(older).collect()
}

/// Runs a start over what would be left.
fn prove(files: &Files, spare: &[PathBuf], zxid: Zxid, snapshot: &Path) -> Result<(), Trouble> {
    let stays = |directory: &Path, name: &str| !spare.contains(&directory.join(name));
    let mut left = Files { epochs: files.epochs.clone(), ..Files::default() };
    let segments = files.segments.iter().filter(|(name, _)| stays(&files.log_dir, name));
    left.segments = segments.map(|(name, bytes)| (name.clone(), bytes.clone())).collect();
    let newer = files.snapshots.range(zxid..);
    left.snapshots = newer.map(|(zxid, bytes)| (*zxid, bytes.clone())).collect();
    let bytes = map::map(snapshot).map_err(|error| unreadable(snapshot, &error))?;
    left.snapshots.insert(zxid, bytes);
    let refused = |text: String| Trouble::Unreadable(format!("the snapshot is whole, but {text}"));
    let after = start::think(&left).outcome;
    let after =
        after.map_err(|refusal| refused(format!("a start over it is refused: {refusal}")))?;
    match start::think(files).outcome {
        Ok(mut before) => {
            // As `after` was settled when it was written.
            let _settled = before.fuzzy.passed(&mut before.tree);
            if before.tree.digest() == after.tree.digest() {
                return Ok(());
            }
            Err(refused("a start over it leads to another tree".to_owned()))
        }
        // What a start could not read before, it need not read any longer.
        Err(_) => Ok(()),
    }
}
