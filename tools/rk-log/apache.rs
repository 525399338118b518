//! Apache ZooKeeper's directories and files: read, checked, and imported without being sealed.

use std::collections::BTreeMap;
use std::fs::{self, OpenOptions};
use std::io;
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use bytes::Bytes;
use ringkeeper::apache::{
    Compression, LogDecoder, LogEndKind, LogRecord, SnapshotDamage, SnapshotDecoder, SnapshotItem,
    SnapshotSummary, names,
};
use ringkeeper::base::{FileFailure, FileOp, WallMs};
use ringkeeper::model::Zxid;
use ringkeeper::server::import::{
    Answer, Check, Entry, Import, Place, PlaceSurvey, Step, Survey, Unfit,
};
use ringkeeper::snapshot::catalog;

use super::files;
use super::map;
use super::place::{self, Trouble, unreadable};
use super::progress::Progress;
use super::start::{self, OPTIONS};

/// The longest frame that a server may have been configured for: nothing that received bytes do
/// not back is ever allocated for it.
const FRAME_BYTES_MAX: usize = 64 << 20;
pub(crate) const RECORD_BYTES_MAX: usize = 2 * FRAME_BYTES_MAX;
/// Bytes of a snapshot decoded at once.
pub(crate) const PIECE_BYTES: usize = 1 << 20;

/// The files of one server, or one of them.
#[derive(Clone, Debug, Default)]
pub(crate) struct Apache {
    /// Where snapshots and epochs are.
    pub(crate) data_dir: PathBuf,
    /// Where logs are.
    pub(crate) log_dir: PathBuf,
    data: BTreeMap<String, Bytes>,
    log: BTreeMap<String, Bytes>,
}

/// What a walk over the logs meets.
#[derive(Debug)]
pub(crate) enum Seen {
    /// A record.
    Record(LogRecord),
    /// Something is wrong here, in words.
    Damage(u64, String),
    /// The file ends with a part of a record.
    Torn(u64),
}

/// What an import would do, or did.
#[derive(Debug, Default)]
pub(crate) struct Imported {
    /// Why it would not.
    pub(crate) refused: Option<String>,
    /// Snapshots that it would pass over.
    pub(crate) passed_over: Vec<(String, Unfit)>,
    /// What else it would tell the operator.
    pub(crate) notes: Vec<String>,
    /// The zxid of the snapshot that it would write.
    pub(crate) zxid: Option<Zxid>,
}

impl Imported {
    /// Everything that it would tell the operator.
    pub(crate) fn all_notes(&self) -> Vec<String> {
        let passed_over = self.passed_over.iter();
        let passed_over = passed_over.map(|(name, unfit)| format!("{name} is not used: {unfit}"));
        passed_over.chain(self.notes.iter().cloned()).collect()
    }
}

impl Apache {
    /// Opens a server's `version-2` directories.
    pub(crate) fn open(data: &Path, log: &Path) -> Result<Self, Trouble> {
        let mut found =
            Self { data_dir: data.to_owned(), log_dir: log.to_owned(), ..Self::default() };
        for (name, _) in files::list(data)? {
            let path = data.join(&name);
            if (names::EPOCHS.contains(&name.as_str()) || names::snapshot_zxid(&name).is_some())
                && let Some(bytes) = files::still_there(&path, map::map(&path))?
            {
                found.data.insert(name, bytes);
            }
        }
        let mut logs: Vec<(Zxid, String)> = Vec::new();
        for (name, _) in files::list(log)? {
            logs.extend(names::log_zxid(&name).map(|zxid| (zxid, name)));
        }
        logs.sort_unstable();
        // The newest is the one that a server may be writing to.
        for (at, (_, name)) in logs.iter().enumerate() {
            let path = log.join(name);
            let is_newest = at + 1 == logs.len();
            let read = if is_newest { settled(&path) } else { map::map(&path) };
            if let Some(bytes) = files::still_there(&path, read)? {
                found.log.insert(name.clone(), bytes);
            }
        }
        Ok(found)
    }

    /// Opens one log.
    pub(crate) fn open_log(path: &Path) -> Result<Self, Trouble> {
        let bytes = settled(path).map_err(|error| unreadable(path, &error))?;
        let log = BTreeMap::from([(files::name_of(path), bytes)]);
        Ok(Self { log_dir: path.to_owned(), log, ..Self::default() })
    }

    /// Opens one snapshot.
    pub(crate) fn open_snapshot(path: &Path) -> Result<Self, Trouble> {
        let bytes = map::map(path).map_err(|error| unreadable(path, &error))?;
        let data = BTreeMap::from([(files::name_of(path), bytes)]);
        Ok(Self { data_dir: path.to_owned(), data, ..Self::default() })
    }

    /// The logs in the order of their zxids.
    pub(crate) fn logs(&self) -> Vec<(&str, &Bytes)> {
        let mut logs: Vec<_> =
            self.log.iter().map(|(name, bytes)| (name.as_str(), bytes)).collect();
        logs.sort_by_key(|(name, _)| names::log_zxid(name));
        logs
    }

    /// The snapshots in the order of their zxids.
    pub(crate) fn snapshots(&self) -> Vec<(&str, &Bytes)> {
        let is_epoch = |name: &str| names::EPOCHS.contains(&name);
        let all = self.data.iter().map(|(name, bytes)| (name.as_str(), bytes));
        let mut snapshots: Vec<_> = all.filter(|(name, _)| !is_epoch(name)).collect();
        snapshots.sort_by_key(|(name, _)| names::snapshot_zxid(name).map(|(zxid, _)| zxid));
        snapshots
    }

    /// Bytes of all logs.
    pub(crate) fn log_bytes(&self) -> u64 {
        self.log.values().map(|bytes| bytes.len() as u64).sum()
    }

    /// What an epoch file says; `None` if there is none or it makes no sense.
    pub(crate) fn epoch(&self, name: &str) -> Option<u32> {
        self.data.get(name).and_then(|bytes| names::parse_epoch(bytes))
    }

    /// The files as they were behind the txn `zxid`: later snapshots and records are left out. The
    /// epoch of the history is then that of its last txn: an old one must win no election over a
    /// newer one.
    pub(crate) fn until(&self, zxid: Zxid) -> Self {
        let mut view = self.clone();
        view.data.remove(names::CURRENT_EPOCH);
        view.data
            .retain(|name, _| names::snapshot_zxid(name).is_none_or(|(begun, _)| begun <= zxid));
        view.log.clear();
        for (name, bytes) in self.logs() {
            let later = walk(bytes).find_map(|seen| match seen {
                Seen::Record(record) if zxid < record.zxid => Some(record.offset),
                _ => None,
            });
            let end = later.map_or(bytes.len(), |offset| offset as usize);
            view.log.insert(name.to_owned(), bytes.slice(..end));
            if later.is_some() {
                break;
            }
        }
        view
    }

    /// The files but for these.
    pub(crate) fn without<'a>(&self, spare: impl Iterator<Item = &'a str>) -> Self {
        let mut view = self.clone();
        for name in spare {
            view.data.remove(name);
            view.log.remove(name);
        }
        view
    }

    /// The files and this snapshot.
    pub(crate) fn with_snapshot(mut self, name: &str, bytes: Bytes) -> Self {
        self.data.insert(name.to_owned(), bytes);
        self
    }

    /// Runs an import over the files. With `out`, what it writes goes there; else nowhere.
    pub(crate) fn import(&self, out: Option<&Path>, wall: WallMs) -> Imported {
        let mut import = Import::new(OPTIONS, FRAME_BYTES_MAX, wall);
        let mut imported = Imported::default();
        let data_bytes: u64 = self.data.values().map(|bytes| bytes.len() as u64).sum();
        let mut progress = Progress::new("import", data_bytes + self.log_bytes());
        let mut answer = Answer::Start;
        loop {
            answer = match import.step(answer) {
                Step::Survey => Answer::Surveyed(self.survey()),
                Step::Read { place, name, offset, len } => {
                    let bytes = self.read(place, &name, offset, len);
                    progress.add(bytes.len() as u64);
                    Answer::Bytes(bytes)
                }
                Step::Run(op) => {
                    if let FileOp::Rename { to, .. } = &op {
                        imported.zxid = catalog::zxid_of(to).or(imported.zxid);
                    }
                    Answer::Ran(out.map_or(Ok(()), |out| carry_out(out, &op)))
                }
                Step::Note(note) => {
                    imported.notes.push(note);
                    Answer::Next
                }
                Step::PassOver { name, unfit } => {
                    imported.passed_over.push((name, unfit));
                    Answer::Next
                }
                Step::Recover { .. } => match out.map(recover) {
                    None => return imported,
                    Some(Ok(check)) => Answer::Recovered(Some(check)),
                    Some(Err(refused)) => {
                        imported.refused = Some(refused);
                        return imported;
                    }
                },
                // What is inspected stays as it is.
                Step::Seal { .. } => Answer::Ran(Ok(())),
                Step::Done => return imported,
                Step::Refuse(refusal) => {
                    imported.refused = Some(refusal.to_string());
                    return imported;
                }
            };
        }
    }

    fn survey(&self) -> Survey {
        let listing = |files: &BTreeMap<String, Bytes>| {
            let file = |(name, bytes): (&String, &Bytes)| (name.clone(), bytes.len() as u64);
            Entry::Directory(files.iter().map(file).collect())
        };
        let place = |path: &Path, live| PlaceSurvey {
            path: path.display().to_string(),
            live,
            imported: Entry::Absent,
        };
        let shared = self.data_dir == self.log_dir;
        let both = self.data.iter().chain(&self.log);
        let both = both.map(|(name, bytes)| (name.clone(), bytes.clone())).collect();
        Survey {
            own_path: String::new(),
            own: Vec::new(),
            data: place(&self.data_dir, listing(if shared { &both } else { &self.data })),
            log: (!shared).then(|| place(&self.log_dir, listing(&self.log))),
        }
    }

    fn read(&self, _place: Place, name: &str, offset: u64, len: u64) -> Bytes {
        let bytes = self.data.get(name).or_else(|| self.log.get(name)).cloned().unwrap_or_default();
        files::part(&bytes, offset, len)
    }
}

/// A copy of a log that a server may be writing to.
fn settled(path: &Path) -> io::Result<Bytes> {
    files::settled(path, |log| walk(log).any(|seen| matches!(seen, Seen::Damage(..))))
}

/// Walks one log, and goes on behind damage.
pub(crate) fn walk(bytes: &Bytes) -> impl Iterator<Item = Seen> + use<> {
    let mut decoder = Some(LogDecoder::new(RECORD_BYTES_MAX));
    if let Some(decoder) = &mut decoder {
        decoder.push(bytes);
    }
    let mut behind_damage = false;
    std::iter::from_fn(move || {
        let mut now = decoder.take()?;
        if std::mem::take(&mut behind_damage) && !now.skip_damage() {
            return None;
        }
        match now.next_record() {
            Ok(Some(record)) => {
                decoder = Some(now);
                Some(Seen::Record(record))
            }
            Ok(None) => match now.finish() {
                Ok(end) if end.kind == LogEndKind::Torn => Some(Seen::Torn(end.at)),
                Ok(_) => None,
                Err(damage) => Some(Seen::Damage(damage.offset, damage.kind.to_string())),
            },
            Err(damage) => {
                behind_damage = true;
                decoder = Some(now);
                Some(Seen::Damage(damage.offset, damage.kind.to_string()))
            }
        }
    })
}

/// Decodes a snapshot; its items go to `sink`.
pub(crate) fn read_snapshot(
    name: &str,
    bytes: &Bytes,
    sink: &mut dyn FnMut(SnapshotItem) -> Result<(), Trouble>,
) -> Result<Result<SnapshotSummary, SnapshotDamage>, Trouble> {
    let compression = compression_of(name, bytes);
    let mut decoder = SnapshotDecoder::new(compression, RECORD_BYTES_MAX);
    let mut at = 0;
    while at < bytes.len() {
        let end = bytes.len().min(at + PIECE_BYTES);
        decoder.push(&bytes.slice(at..end));
        at = end;
        loop {
            match decoder.next_item() {
                Ok(Some(item)) => sink(item)?,
                Ok(None) => break,
                Err(damage) => return Ok(Err(damage)),
            }
        }
    }
    Ok(decoder.finish())
}

/// Whether the file is what a server leaves that is killed while it writes a snapshot. Apache's
/// servers pass such a file over when they start, plain ones by the look of their last bytes.
pub(crate) fn is_unfinished(name: &str, bytes: &Bytes, damage: &SnapshotDamage) -> bool {
    let is_plain = compression_of(name, bytes) == Compression::None;
    damage.is_cut && !(is_plain && bytes.ends_with(SEAL_END))
}

/// What every seal, and so every whole snapshot, ends with.
const SEAL_END: &[u8] = b"\0\0\0\x01/";

/// As the name says; a renamed file shows it by its first bytes.
pub(crate) fn compression_of(name: &str, bytes: &[u8]) -> Compression {
    match names::snapshot_zxid(name) {
        Some((_, compression)) => compression,
        None if bytes.starts_with(&[0x1f, 0x8b]) => Compression::Gzip,
        None if bytes.starts_with(b"\x82SNAPPY\0") => Compression::Snappy,
        None => Compression::None,
    }
}

fn recover(out: &Path) -> Result<Check, String> {
    let place = place::Place::Directory { data: out.to_owned(), log: out.to_owned() };
    let made = files::open(&place).map_err(|trouble| trouble.to_string())?;
    let outcome = start::think(&made).outcome;
    outcome.map(|recovered| Check::of(&recovered)).map_err(|refusal| refusal.to_string())
}

/// Carries out an operation in the new directory.
fn carry_out(directory: &Path, op: &FileOp) -> Result<(), FileFailure> {
    let at = |name: &str| directory.join(name);
    let open = |name: &str| OpenOptions::new().write(true).open(at(name));
    let done: io::Result<()> = match op {
        FileOp::Create { file } => {
            let mut options = OpenOptions::new();
            options.write(true).create(true).truncate(true).mode(0o600);
            options.open(at(&file.name)).map(drop)
        }
        FileOp::Write { file, offset, bytes, durable } => open(&file.name).and_then(|file| {
            file.write_all_at(bytes, *offset)?;
            if *durable { file.sync_data() } else { Ok(()) }
        }),
        FileOp::Zero { file, offset, len } => {
            let zeros = vec![0; usize::try_from(*len).unwrap_or_default()];
            open(&file.name).and_then(|file| file.write_all_at(&zeros, *offset))
        }
        FileOp::Flush { file } => open(&file.name).and_then(|file| file.sync_all()),
        FileOp::Rename { from, to } => fs::rename(at(&from.name), at(to)),
        FileOp::Remove { file } => match fs::remove_file(at(&file.name)) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
            other => other,
        },
        // What is made here holds a history and no configuration.
        FileOp::WriteNextConfig { .. } | FileOp::WriteConfig { .. } => {
            Err(io::ErrorKind::Unsupported.into())
        }
        FileOp::SyncDir { .. } => fs::File::open(directory).and_then(|file| file.sync_all()),
    };
    done.map_err(|error| FileFailure {
        no_space: error.kind() == io::ErrorKind::StorageFull,
        no_descriptor: false,
        text: format!("{}: {error}", directory.display()),
    })
}
