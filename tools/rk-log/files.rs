//! The files of a place, opened for reading and nothing else.

use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::thread;
use std::time::Duration;

use bytes::Bytes;
use ringkeeper::limits::BLOCK_BYTES;
use ringkeeper::model::Zxid;
use ringkeeper::server::install;
use ringkeeper::snapshot::catalog;
use ringkeeper::txnlog::scan::{Item, Scanner};
use ringkeeper::txnlog::segment_sequence;

use super::apache::Apache;
use super::map;
use super::place::{Place, Trouble, unreadable};

/// What kind of place the files are from.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum Kind {
    /// A data directory.
    #[default]
    Directory,
    /// One segment.
    Segment,
    /// One snapshot.
    Snapshot,
    /// Apache ZooKeeper's directory.
    Apache,
    /// One of Apache's files.
    ApacheFile,
}

/// Files by name. What a server never changes again is mapped, what it may be writing to copied.
#[derive(Clone, Debug, Default)]
pub(crate) struct Files {
    /// What was opened.
    pub(crate) kind: Kind,
    /// Apache's files, if it is one of these kinds; then all else is empty.
    pub(crate) apache: Option<Apache>,
    /// Where snapshots are.
    pub(crate) data_dir: PathBuf,
    /// Where segments are.
    pub(crate) log_dir: PathBuf,
    /// Segments.
    pub(crate) segments: BTreeMap<String, Bytes>,
    /// Snapshots.
    pub(crate) snapshots: BTreeMap<Zxid, Bytes>,
    /// The epochs record.
    pub(crate) epochs: Option<Bytes>,
    /// The install record, while it is yet to be carried out.
    pub(crate) install: Option<Bytes>,
    /// The snapshot that the install record names, before a start gives it its name.
    pub(crate) received: Option<(Zxid, Bytes)>,
    /// Unfinished files: name and length.
    pub(crate) leftovers: Vec<(String, u64)>,
    /// The process that has the directory open.
    pub(crate) server: Option<u32>,
    /// A single snapshot's file under a name that is none.
    pub(crate) nameless_snapshot: Option<(String, Bytes)>,
}

/// How often a segment that a server may be writing to is read until two readings agree, and a
/// directory until nothing that counts was removed meanwhile.
const READINGS_MAX: u32 = 20;

/// Opens everything at a place.
pub(crate) fn open(place: &Place) -> Result<Files, Trouble> {
    match place {
        Place::Directory { data, log } => open_directory(data, log),
        Place::Apache { data, log } => {
            let apache = Some(Apache::open(data, log)?);
            Ok(Files { kind: Kind::Apache, apache, ..Files::default() })
        }
        Place::ApacheLog(path) => {
            let apache = Some(Apache::open_log(path)?);
            Ok(Files { kind: Kind::ApacheFile, apache, ..Files::default() })
        }
        Place::ApacheSnapshot(path) => {
            let apache = Some(Apache::open_snapshot(path)?);
            Ok(Files { kind: Kind::ApacheFile, apache, ..Files::default() })
        }
        Place::Segment(path) => {
            let kind = Kind::Segment;
            let mut files = Files { kind, log_dir: path.clone(), ..Files::default() };
            let name = name_of(path);
            let bytes = settled(path, is_damaged).map_err(|error| unreadable(path, &error))?;
            // A renamed segment is read under the name that its header gives it.
            let own = Scanner::new(bytes.clone(), None).map(|scanner| scanner.header().sequence);
            let name = match (segment_sequence(&name), own) {
                (None, Ok(sequence)) => ringkeeper::txnlog::segment_name(sequence),
                _ => name,
            };
            files.segments.insert(name, bytes);
            Ok(files)
        }
        Place::Snapshot(path) => {
            let kind = Kind::Snapshot;
            let mut files = Files { kind, data_dir: path.clone(), ..Files::default() };
            let name = name_of(path);
            let bytes = map::map(path).map_err(|error| unreadable(path, &error))?;
            match catalog::zxid_of(&name) {
                Some(zxid) => drop(files.snapshots.insert(zxid, bytes)),
                None => files.nameless_snapshot = Some((name, bytes)),
            }
            Ok(files)
        }
    }
}

impl Files {
    /// The segments, for a reader.
    pub(crate) fn log(&self) -> Vec<(String, Bytes)> {
        self.segments.iter().map(|(name, bytes)| (name.clone(), bytes.clone())).collect()
    }

    /// The segments of each history: while a received snapshot is yet to take the place of
    /// everything, those before it and those behind it have nothing to do with each other.
    pub(crate) fn logs(&self) -> Vec<Vec<(String, Bytes)>> {
        let Some(install) = self.install_record() else { return vec![self.log()] };
        let is_old = |(name, _): &(String, Bytes)| install.replaces(name);
        let (old, new) = self.log().into_iter().partition(is_old);
        vec![old, new]
    }

    /// Bytes of all segments.
    pub(crate) fn log_bytes(&self) -> u64 {
        self.segments.values().map(|bytes| bytes.len() as u64).sum()
    }

    /// Every snapshot with its file's name, oldest first.
    pub(crate) fn all_snapshots(&self) -> impl Iterator<Item = (String, Option<Zxid>, &Bytes)> {
        let named = self.snapshots.iter();
        let named = named.map(|(zxid, bytes)| (catalog::file_name(*zxid), Some(*zxid), bytes));
        let other = self.nameless_snapshot.iter();
        named.chain(other.map(|(name, bytes)| (name.clone(), None, bytes)))
    }

    /// Says on standard error what a reader of the output must know of the files.
    pub(crate) fn warn(&self) {
        if let Some(pid) = self.server {
            eprintln!(
                "{}: process {pid} is running on it: this is the view of one moment",
                self.data_dir.display()
            );
        }
    }
}

/// The files as a server that removes old ones meanwhile could have left them at one moment.
fn open_directory(data: &Path, log: &Path) -> Result<Files, Trouble> {
    let mut readings = 0;
    loop {
        let (files, is_whole) = read_directory(data, log)?;
        readings += 1;
        if is_whole {
            return Ok(files);
        }
        if readings == READINGS_MAX {
            eprintln!(
                "{}: files went while it was read, {READINGS_MAX} times: what is said of them may \
                 be of no one moment; read it again once its server writes less",
                data.display()
            );
            return Ok(files);
        }
    }
}

/// One reading, and whether it is whole: the newest snapshot it found is still there, so every
/// segment behind that was kept, and nothing that it was to read is gone, so none was read
/// empty before the one in front of it was filled and removed.
fn read_directory(data: &Path, log: &Path) -> Result<(Files, bool), Trouble> {
    let mut files =
        Files { data_dir: data.to_owned(), log_dir: log.to_owned(), ..Files::default() };
    files.server = server_of(data);
    // Snapshots before the log, the log's last segment before the ones before it: what is read
    // earlier never knows more than what is read later.
    for (name, len) in list(data)? {
        let path = data.join(&name);
        if let Some(zxid) = catalog::zxid_of(&name) {
            if let Some(bytes) = still_there(&path, map::map(&path))? {
                files.snapshots.insert(zxid, bytes);
            }
        } else if name == ringkeeper::server::epochs::FILE_NAME {
            files.epochs = still_there(&path, map::copy(&path))?;
        } else if name == install::FILE_NAME {
            files.install = still_there(&path, map::copy(&path))?;
        } else if is_leftover(&name) {
            files.leftovers.push((name, len));
        }
    }
    let mut is_whole = files.find_received()?;
    let mut later_is_used = false;
    for (name, len) in list(log)?.into_iter().rev() {
        let path = log.join(&name);
        if segment_sequence(&name).is_some() {
            let read = if later_is_used { map::map(&path) } else { settled(&path, is_damaged) };
            if let Some(bytes) = still_there(&path, read)? {
                let first = bytes.get(BLOCK_BYTES..2 * BLOCK_BYTES).unwrap_or_default();
                later_is_used |= first.iter().any(|byte| *byte != 0);
                files.segments.insert(name, bytes);
            } else {
                is_whole = false;
            }
        } else if is_leftover(&name) && data != log {
            files.leftovers.push((name, len));
        }
    }
    let newest = files.snapshots.last_key_value().map(|(zxid, _)| *zxid);
    let now: Vec<_> = list(data)?.iter().filter_map(|(name, _)| catalog::zxid_of(name)).collect();
    is_whole &= newest.map_or(now.is_empty(), |newest| now.contains(&newest));
    Ok((files, is_whole))
}

fn is_damaged(segment: &Bytes) -> bool {
    match Scanner::new(segment.clone(), None) {
        Ok(mut scanner) => scanner.any(|item| matches!(item, Item::Corrupt { .. })),
        Err(_) => true,
    }
}

/// A copy of a log that a server may be writing to: a write that is half seen looks like damage,
/// so what shows damage is read again until two readings agree.
pub(crate) fn settled(path: &Path, is_damaged: impl Fn(&Bytes) -> bool) -> io::Result<Bytes> {
    let mut bytes = map::copy(path)?;
    for _ in 0..READINGS_MAX {
        if !is_damaged(&bytes) {
            break;
        }
        thread::sleep(Duration::from_millis(5));
        let again = map::copy(path)?;
        if again == bytes {
            break;
        }
        bytes = again;
    }
    Ok(bytes)
}

/// A file that was removed behind the listing is none: its server had no more use for it.
pub(crate) fn still_there(path: &Path, read: io::Result<Bytes>) -> Result<Option<Bytes>, Trouble> {
    match read {
        Ok(bytes) => Ok(Some(bytes)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(unreadable(path, &error)),
    }
}

/// Names and lengths of the directory's files, sorted.
pub(crate) fn list(directory: &Path) -> Result<Vec<(String, u64)>, Trouble> {
    let failed = |error: io::Error| unreadable(directory, &error);
    let mut found = Vec::new();
    for entry in fs::read_dir(directory).map_err(failed)? {
        let entry = entry.map_err(failed)?;
        let Ok(metadata) = entry.metadata() else { continue };
        if let (true, Ok(name)) = (metadata.is_file(), entry.file_name().into_string()) {
            found.push((name, metadata.len()));
        }
    }
    found.sort_unstable();
    Ok(found)
}

fn is_leftover(name: &str) -> bool {
    name.ends_with(catalog::UNFINISHED_SUFFIX)
}

/// The file's own name.
pub(crate) fn name_of(path: &Path) -> String {
    path.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default()
}

/// The part of the bytes, as far as there are any.
pub(crate) fn part(bytes: &Bytes, offset: u64, len: u64) -> Bytes {
    let start = usize::try_from(offset).unwrap_or(usize::MAX).min(bytes.len());
    let len = usize::try_from(len).unwrap_or(usize::MAX).min(bytes.len() - start);
    bytes.slice(start..start + len)
}

/// Who holds the directory's lock, without touching it: a lock of ours, however short, could keep
/// a server from starting.
fn server_of(directory: &Path) -> Option<u32> {
    let inode = fs::metadata(directory.join("lock")).ok()?.ino().to_string();
    let locks = fs::read_to_string("/proc/locks").ok()?;
    locks.lines().find_map(|line| {
        // 1: FLOCK  ADVISORY  WRITE 4242 08:01:131074 0 EOF
        let fields: Vec<&str> = line.split_whitespace().collect();
        let [_, "FLOCK", _, "WRITE", pid, place, ..] = fields[..] else { return None };
        if place.rsplit(':').next() != Some(inode.as_str()) {
            return None;
        }
        pid.parse().ok()
    })
}
