//! `replay`: a new data directory with the state at one zxid or time.

use std::io::Write;
use std::path::Path;

use ringkeeper::server::epochs::{self, Epochs};
use serde_json::json;

use super::files::{self, Files};
use super::place::{Place, Trouble, unreadable};
use super::rebuild::{self, Moment};
use super::{Ending, Session, start};

/// Builds the directory `out`, from which a server starts.
pub(crate) fn run(
    files: &Files,
    to: Moment,
    out: &Path,
    session: &mut Session<'_>,
) -> Result<Ending, Trouble> {
    let (mut state, ending) = rebuild::state_at(&files.that_count()?, to)?;
    rebuild::make_empty(out, [&files.data_dir, &files.log_dir])?;
    let own = out.join("ringkeeper");
    rebuild::make_directory(&own)?;
    let snapshot = rebuild::write_snapshot(&own, &mut state)?;
    write_epochs(files, &own, state.tree.last_zxid().epoch())?;
    let made = files::open(&Place::Directory { data: own.clone(), log: own })?;
    let recovered = start::think(&made).outcome.map_err(|refusal| {
        let out = out.display();
        Trouble::Unreadable(format!("{out}: a server would refuse it; do not use it: {refusal}"))
    })?;
    if recovered.tree.digest() != state.tree.digest()
        || recovered.last_zxid != state.tree.last_zxid()
    {
        let out = out.display();
        return Err(Trouble::Unreadable(format!("{out}: a server would see another tree")));
    }
    let (zxid, znodes) = (recovered.last_zxid, recovered.tree.znode_count());
    let (sessions, digest) = (recovered.sessions.len(), recovered.tree.digest());
    if session.json {
        session.json_line(&json!({
            "dataDir": out.display().to_string(),
            "snapshot": snapshot.display().to_string(),
            "zxid": zxid.to_string(),
            "znodes": znodes,
            "sessions": sessions,
            "digest": format!("0x{digest:x}"),
        }))?;
    } else {
        let out = out.display();
        session.line(format_args!(
            "{out}: zxid {zxid}, {znodes} znodes, {sessions} sessions, digest 0x{digest:x}; read \
             back and compared; start a server with dataDir={out}"
        ))?;
    }
    Ok(ending)
}

/// The epoch of the history is that of its last txn, so that an old history never wins an election
/// over a newer one; what was promised stays promised.
fn write_epochs(files: &Files, own: &Path, current: u32) -> Result<(), Trouble> {
    let before = files.epochs.as_ref().and_then(|bytes| Epochs::decode(bytes).ok());
    let accepted = before.unwrap_or_default().accepted.max(current);
    let slot = Epochs { accepted, current, sequence: 1 }.encode();
    let path = own.join(epochs::FILE_NAME);
    rebuild::write_file(&path, |file| file.write_all(&slot).and_then(|()| file.write_all(&slot)))
        .map_err(|error| unreadable(&path, &error))
}
