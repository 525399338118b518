//! The state at a zxid or time, rebuilt from snapshot and log, and written as a snapshot.

use std::collections::BTreeMap;
use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::time::{SystemTime, UNIX_EPOCH};

use bytes::Bytes;
use ringkeeper::base::WallMs;
use ringkeeper::model::{Acl, SessionId, StatPersisted, Zxid};
use ringkeeper::server::fuzzy::Fuzzy;
use ringkeeper::server::state::State;
use ringkeeper::snapshot::inspect::{What as SnapshotWhat, items_of};
use ringkeeper::snapshot::{SnapshotEncoder, SnapshotItem, catalog};
use ringkeeper::tree::Tree;
use ringkeeper::txnlog::read::{What, records_of};
use ringkeeper::txnlog::scan::Item;
use ringkeeper::wire;

use super::Ending;
use super::files::Files;
use super::install::inexact;
use super::map;
use super::place::{Trouble, unreadable};
use super::progress::Progress;
use super::replayer::load;
use super::start::OPTIONS;
use super::time::{parse_id, parse_time, rfc3339};

/// The moment that is asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Moment {
    /// Behind the txn of this zxid.
    Zxid(Zxid),
    /// Before the first txn later than this, ms since 1970.
    Time(i64),
    /// Behind everything there is.
    End,
}

/// Bytes of a tree encoded at once.
const SLICE_BYTES: usize = 1 << 20;

/// A zxid, or a time in RFC 3339: what has a `-` behind its first character is a time.
pub(crate) fn parse_moment(text: &str) -> Result<Moment, String> {
    if text.get(1..).is_some_and(|rest| rest.contains('-')) {
        return parse_time(text).map(Moment::Time);
    }
    parse_id(text).map(|zxid| Moment::Zxid(Zxid(zxid)))
}

/// The state at the moment, every record checked on the way, and whether damage was met.
pub(crate) fn state_at(files: &Files, moment: Moment) -> Result<(State, Ending), Trouble> {
    let wanted = match moment {
        Moment::Zxid(zxid) => zxid,
        Moment::Time(time_ms) => zxid_at(files, time_ms)?,
        Moment::End => Zxid(i64::MAX),
    };
    let (mut state, mut ending) = base(files, wanted);
    let mut damage: Option<String> = None;
    let mut beyond = moment == Moment::End || state.tree.last_zxid() == wanted;
    let mut progress = Progress::new("replay", files.log_bytes());
    for seen in records_of(files.log()) {
        match &seen.what {
            What::Item(Item::Batch { header, .. }) => progress.add(header.padded_bytes()),
            What::Item(Item::Record { zxid, txn, .. }) => {
                let last = state.tree.last_zxid();
                if wanted < *zxid {
                    // Whatever is absent between here and there was never wanted.
                    beyond |= zxid.follows(last);
                    break;
                }
                if last < *zxid {
                    state.replay(*zxid, txn).map_err(|error| {
                        let damage = damage.take().map(|damage| format!(" ({damage})"));
                        let damage = damage.unwrap_or_default();
                        Trouble::Unreadable(format!("the way there is broken: {error}{damage}"))
                    })?;
                    beyond |= *zxid == wanted;
                }
                if let Some(damage) = damage.take() {
                    eprintln!("{damage}: nothing is missing for it");
                    ending = Ending::Damaged;
                }
            }
            _ if seen.is_damage() => damage = Some(seen.to_string()),
            _ => {}
        }
    }
    if !beyond || (moment == Moment::End && damage.is_some()) {
        let last = state.tree.last_zxid();
        let damage = damage.map(|damage| format!("; {damage}")).unwrap_or_default();
        let wanted = match moment {
            Moment::End => "the end of the log".to_owned(),
            _ => format!("zxid {wanted}"),
        };
        return Err(Trouble::Unreadable(format!(
            "{wanted} cannot be reached: what is whole ends at zxid {last}{damage}"
        )));
    }
    settle(&mut state)?;
    Ok((state, ending))
}

/// A state behind a snapshot that was received is fit to be written once nothing says that it is
/// ahead, as for a start without an ensemble.
fn settle(state: &mut State) -> Result<(), Trouble> {
    let Some(why) = inexact(state.fuzzy) else { return Ok(()) };
    let zxid = state.tree.last_zxid();
    if matches!(state.fuzzy, Fuzzy::Until(..)) || state.fuzzy.passed(&mut state.tree).is_err() {
        return Err(Trouble::Unreadable(format!("the state at zxid {zxid} is not known: {why}")));
    }
    eprintln!("zxid {zxid}: {why}; neither does anything show that it is not");
    Ok(())
}

/// The newest whole snapshot that is not later; before the first, nothing. And whether one is
/// damaged.
fn base(files: &Files, wanted: Zxid) -> (State, Ending) {
    let mut ending = Ending::Sound;
    for (zxid, bytes) in files.snapshots.range(..=wanted).rev() {
        match load(*zxid, bytes) {
            Ok(state) => return (state, ending),
            Err(unfit) => {
                let path = files.data_dir.join(catalog::file_name(*zxid));
                eprintln!("{} is not used: {unfit}", path.display());
                ending = Ending::Damaged;
            }
        }
    }
    (State::new(OPTIONS), ending)
}

/// The last zxid in front of the first txn that is later than the time.
fn zxid_at(files: &Files, time_ms: i64) -> Result<Zxid, Trouble> {
    let (mut before, mut later) = (None, None);
    for seen in records_of(files.log()) {
        let What::Item(Item::Record { zxid, txn, .. }) = &seen.what else { continue };
        let Ok(txn) = wire::txn::decode(txn) else { continue };
        if time_ms < txn.header.time_ms {
            later = Some(*zxid);
            break;
        }
        before = before.max(Some(*zxid));
    }
    let time = rfc3339(time_ms);
    let is_between = |zxid: Zxid| before < Some(zxid) && later.is_none_or(|later| zxid < later);
    let newest = files.snapshots.iter().rfind(|(zxid, _)| is_between(**zxid));
    if let Some((zxid, bytes)) = newest
        && !is_known_by(bytes, time_ms)
    {
        let path = files.data_dir.join(catalog::file_name(*zxid));
        return Err(Trouble::Unreadable(format!(
            "{time} cannot be reached: the log does not lead up to {}, which is later or damaged",
            path.display()
        )));
    }
    let last = newest.map(|(zxid, _)| *zxid).or(before).unwrap_or(Zxid::ZERO);
    match later {
        Some(later) if !later.follows(last) => Err(Trouble::Unreadable(format!(
            "{time} cannot be reached: neither log nor snapshot has what is in front of zxid \
             {later}"
        ))),
        _ => Ok(last),
    }
}

/// Whether a snapshot is whole and nothing in it is later than the time. Of its txns only the
/// times that znodes bear are known.
fn is_known_by(bytes: &Bytes, time_ms: i64) -> bool {
    items_of(bytes.clone()).all(|seen| match seen.what {
        SnapshotWhat::Item(SnapshotItem::Znode { stat, .. }) => {
            stat.ctime.max(stat.mtime) <= time_ms
        }
        SnapshotWhat::Damage(_) => false,
        _ => true,
    })
}

/// Makes a directory that must not be there, or be empty, and not among what is inspected.
pub(crate) fn make_empty(out: &Path, inspected: [&Path; 2]) -> Result<(), Trouble> {
    let failed = |error: io::Error| unreadable(out, &error);
    let parent = out.parent().filter(|parent| !parent.as_os_str().is_empty());
    let parent = fs::canonicalize(parent.unwrap_or_else(|| Path::new("."))).map_err(failed)?;
    let place = fs::canonicalize(out).unwrap_or(parent);
    for inspected in inspected {
        let inspected = fs::canonicalize(inspected);
        if inspected.is_ok_and(|inspected| place.starts_with(inspected)) {
            let out = out.display();
            return Err(Trouble::Usage(format!("{out} is inside what is inspected")));
        }
    }
    match fs::read_dir(out) {
        Ok(mut entries) => match entries.next() {
            None => Ok(()),
            Some(_) => Err(Trouble::Usage(format!("{} is not empty", out.display()))),
        },
        Err(error) if error.kind() == io::ErrorKind::NotFound => make_directory(out),
        Err(error) => Err(failed(error)),
    }
}

/// Makes a directory, durably.
pub(crate) fn make_directory(path: &Path) -> Result<(), Trouble> {
    let made = DirBuilder::new().mode(0o700).create(path);
    made.and_then(|()| sync_directory(path.parent().unwrap_or(path)))
        .map_err(|error| unreadable(path, &error))
}

/// Writes the state as a snapshot into the directory, reads it back and compares every item.
pub(crate) fn write_snapshot(directory: &Path, state: &mut State) -> Result<PathBuf, Trouble> {
    let zxid = state.tree.last_zxid();
    let path = directory.join(catalog::file_name(zxid));
    let wall = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_millis();
    let wall = WallMs(i64::try_from(wall).unwrap_or(i64::MAX));
    write_file(&path, |file| {
        let mut encoder = SnapshotEncoder::new(zxid, wall);
        for (id, timeout_ms) in &state.sessions {
            encoder.session(*id, *timeout_ms);
        }
        let cut = state.tree.begin_cut();
        loop {
            let more = state.tree.cut_items(cut, SLICE_BYTES, &mut |item| {
                encoder.znode(item.path, item.data, item.acl, item.stat);
            });
            if let Some(chunk) = encoder.take_chunk(1) {
                file.write_all(&chunk)?;
            }
            if !more {
                break;
            }
        }
        state.tree.end_cut(cut);
        file.write_all(&encoder.finish(state.tree.digest()))
    })
    .map_err(|error| unreadable(&path, &error))?;
    let written = map::map(&path).map_err(|error| unreadable(&path, &error))?;
    compare(&path, &written, state)?;
    Ok(path)
}

/// Writes a file under a temporary name, flushes it, gives it its name, flushes the directory.
pub(crate) fn write_file(
    path: &Path,
    fill: impl FnOnce(&mut File) -> io::Result<()>,
) -> io::Result<()> {
    let mut unfinished = path.as_os_str().to_owned();
    unfinished.push(catalog::UNFINISHED_SUFFIX);
    let mut file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(&unfinished)?;
    fill(&mut file)?;
    file.sync_all()?;
    fs::rename(&unfinished, path)?;
    sync_directory(path.parent().unwrap_or(path))
}

fn sync_directory(path: &Path) -> io::Result<()> {
    let path = if path.as_os_str().is_empty() { Path::new(".") } else { path };
    File::open(path)?.sync_all()
}

/// What was written, read back beside what was to be written.
pub(crate) struct ReadBack<'a> {
    path: &'a Path,
    tree: &'a Tree,
    sessions: BTreeMap<SessionId, i32>,
    seen: (usize, usize),
}

impl<'a> ReadBack<'a> {
    pub(crate) fn new(
        path: &'a Path,
        tree: &'a Tree,
        sessions: impl IntoIterator<Item = (SessionId, i32)>,
    ) -> Self {
        Self { path, tree, sessions: sessions.into_iter().collect(), seen: (0, 0) }
    }

    pub(crate) fn session(&mut self, id: SessionId, timeout_ms: i32) -> Result<(), Trouble> {
        self.seen.0 += 1;
        match self.sessions.get(&id) == Some(&timeout_ms) {
            true => Ok(()),
            false => Err(self.wrong("has another session")),
        }
    }

    pub(crate) fn znode(
        &mut self,
        path: &str,
        data: Option<&[u8]>,
        acl: &[Acl],
        stat: StatPersisted,
    ) -> Result<(), Trouble> {
        self.seen.1 += 1;
        let is_same = self.tree.get(path).is_some_and(|znode| {
            znode.data() == data && *znode.acl() == *acl && znode.persisted() == stat
        });
        if is_same { Ok(()) } else { Err(self.wrong("has another znode")) }
    }

    /// All of it was read.
    pub(crate) fn end(self) -> Result<(), Trouble> {
        let whole = self.seen == (self.sessions.len(), self.tree.znode_count());
        if whole { Ok(()) } else { Err(self.wrong("lacks items")) }
    }

    pub(crate) fn wrong(&self, what: &str) -> Trouble {
        let path = self.path.display();
        Trouble::Unreadable(format!("{path}: read back, it {what}; do not use it"))
    }
}

fn compare(path: &Path, written: &Bytes, state: &State) -> Result<(), Trouble> {
    let sessions = state.sessions.iter().map(|(id, timeout_ms)| (*id, *timeout_ms));
    let mut read = ReadBack::new(path, &state.tree, sessions);
    for seen in items_of(written.clone()) {
        match seen.what {
            SnapshotWhat::Item(SnapshotItem::Session { id, timeout_ms }) => {
                read.session(id, timeout_ms)?;
            }
            SnapshotWhat::Item(SnapshotItem::Znode { path, data, acl, stat }) => {
                read.znode(&path, data.as_deref(), &acl, stat)?;
            }
            SnapshotWhat::Damage(what) => return Err(read.wrong(what)),
            SnapshotWhat::Header(..) | SnapshotWhat::End(_) => {}
        }
    }
    read.end()
}
