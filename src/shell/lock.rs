//! The server's directories, and the lock that keeps a second server out of them.
//!
//! A killed process's log writes may land seconds after its death, and they hold the description
//! of the segment they go to. So besides `lock`, every segment is locked through the descriptor
//! that is used for its I/O, and a start waits for all of them.

use std::collections::BTreeSet;
use std::ffi::OsString;
use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io::{self, Read, Write};
use std::os::fd::AsRawFd;
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::time::Duration;

use super::{Settings, StartError};
use crate::base::FileDir;
use crate::server::epochs;
use crate::snapshot::catalog;
use crate::txnlog;

/// Name of our directory below `dataDir` and `dataLogDir`.
const DIRECTORY_NAME: &str = "ringkeeper";
const LOCK_NAME: &str = "lock";
/// Says in the data directory where the log is, if it is in another one.
const LOG_PLACE_NAME: &str = "log-directory";
/// How long a start waits for another process to let go, with a message each second.
const WAIT_SECONDS: u32 = 10;

/// Paths of the two directories.
#[derive(Clone, Debug)]
pub(super) struct Paths {
    data: PathBuf,
    log: PathBuf,
}

/// The directories, locked as long as this lives.
#[derive(Debug)]
pub(super) struct Directories {
    paths: Paths,
    direct_io: bool,
    _locks: Vec<File>,
}

impl Paths {
    /// Our directories below `dataDir` and `dataLogDir`, which may be one by two names.
    pub(super) fn below(data_dir: &Path, log_dir: &Path) -> Self {
        let which = |path| fs::metadata(path).map(|found| (found.dev(), found.ino()));
        let is_one = which(data_dir).is_ok_and(|data| which(log_dir).is_ok_and(|log| data == log));
        let log_dir = if is_one { data_dir } else { log_dir };
        Self { data: data_dir.join(DIRECTORY_NAME), log: log_dir.join(DIRECTORY_NAME) }
    }

    /// Where files of `dir` are.
    pub(super) fn of(&self, dir: FileDir) -> &Path {
        match dir {
            FileDir::Data => &self.data,
            FileDir::Log => &self.log,
        }
    }
}

impl Directories {
    pub(super) fn paths(&self) -> Paths {
        self.paths.clone()
    }

    /// Notes where the log is, for the next start, once it was read. A start that is refused leaves
    /// no trace of a dataLogDir that was wrong.
    pub(super) fn note_log_place(&self) -> Result<(), StartError> {
        note_log_place(&self.paths)
    }

    /// Whether log writes can go past the page cache.
    pub(super) const fn direct_io(&self) -> bool {
        self.direct_io
    }
}

/// Makes the directories where they are missing and locks them.
pub(super) fn open(settings: &Settings) -> Result<Directories, StartError> {
    let (data_dir, log_dir) = (&settings.data_dir, &settings.log_dir);
    check_places(&Paths::below(data_dir, log_dir))?;
    make(&data_dir.join(DIRECTORY_NAME))?;
    make(&log_dir.join(DIRECTORY_NAME))?;
    let paths = Paths::below(data_dir, log_dir);
    let mut locks = vec![lock_directory(&paths.data)?];
    if paths.data != paths.log {
        locks.push(lock_directory(&paths.log)?);
        wait_for_writes(&paths.data)?;
    }
    wait_for_writes(&paths.log)?;
    let direct_io = settings.direct_io && offers_direct_io(&paths.log);
    Ok(Directories { paths, direct_io, _locks: locks })
}

/// Refuses a log directory that is not the one where the log was: without its log a database is an
/// older one, and nothing else would show that (ZooKeeper's `LogDirContentCheck`).
fn check_places(paths: &Paths) -> Result<(), StartError> {
    let (data, log) = (paths.data.display(), paths.log.display());
    let found = |directory: &Path, is_one: fn(&str) -> bool| {
        let names = fs::read_dir(directory).into_iter().flatten().flatten();
        names.filter_map(|entry| entry.file_name().into_string().ok()).find(|name| is_one(name))
    };
    let refuse = |text: String| Err(StartError::Directory(text));
    let is_segment = |name: &str| txnlog::segment_sequence(name).is_some();
    let is_apart = paths.data != paths.log;
    if let Some(name) = found(&paths.data, is_segment).filter(|_| is_apart) {
        return refuse(format!(
            "{data} has the log ({name}), and dataLogDir says that it is in {log}: move its \
             txnlog.* files there, or remove the key"
        ));
    }
    let is_snapshot = |name: &str| catalog::zxid_of(name).is_some();
    if let Some(name) = found(&paths.log, is_snapshot).filter(|_| is_apart) {
        return refuse(format!(
            "{log} has snapshots ({name}), and dataDir says that they are in {data}: are dataDir \
             and dataLogDir exchanged?"
        ));
    }
    if paths.data.join(LOCK_NAME).exists() && !paths.log.exists() {
        return refuse(format!(
            "{log} is missing, and with it the log of the database in {data}: is dataLogDir right, \
             and mounted? To start with the last snapshot alone, make that directory"
        ));
    }
    if let Some(place) = log_place(paths)?.filter(|place| *place != real(&paths.log))
        && found(&paths.log, is_segment).is_none()
        && (!place.exists() || found(&place, is_segment).is_some())
    {
        return refuse(format!(
            "{log} has no log, and that of the database in {data} was in {place}: is dataLogDir \
             right? Move the txnlog.* files if it is. To start with the last snapshot alone, \
             remove {mark}",
            place = place.display(),
            mark = paths.data.join(LOG_PLACE_NAME).display(),
        ));
    }
    Ok(())
}

/// Where the log of the database was at its last start, if not beside it.
fn log_place(paths: &Paths) -> Result<Option<PathBuf>, StartError> {
    let path = paths.data.join(LOG_PLACE_NAME);
    match fs::read(&path) {
        Ok(place) => Ok(Some(PathBuf::from(OsString::from_vec(place)))),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(directory_error("cannot be read", &path, &error)),
    }
}

/// Notes where the log is, for [`check_places`].
fn note_log_place(paths: &Paths) -> Result<(), StartError> {
    let path = paths.data.join(LOG_PLACE_NAME);
    let place = (paths.data != paths.log).then(|| real(&paths.log));
    if log_place(paths)? == place {
        return Ok(());
    }
    let noted = match place {
        // A part of it would be no directory's name: it takes the name when it is whole.
        Some(place) => {
            let whole = path.with_extension("tmp");
            File::create(&whole)
                .and_then(|mut file| {
                    file.write_all(place.as_os_str().as_bytes())?;
                    file.sync_all()
                })
                .and_then(|()| fs::rename(&whole, &path))
        }
        None => fs::remove_file(&path),
    };
    let noted = noted.and_then(|()| File::open(&paths.data)?.sync_all());
    noted.map_err(|error| directory_error("cannot be written", &path, &error))
}

/// The path without links, if it is there.
fn real(path: &Path) -> PathBuf {
    fs::canonicalize(path).unwrap_or_else(|_| path.to_owned())
}

/// Opens the lock file as a log segment would be opened.
fn offers_direct_io(directory: &Path) -> bool {
    let flags = libc::O_DIRECT | libc::O_DSYNC;
    let opened = OpenOptions::new().write(true).custom_flags(flags).open(directory.join(LOCK_NAME));
    if let Err(error) = &opened {
        tracing::warn!(
            "{}: no direct I/O on this file system ({error}): log writes are buffered and flushed",
            directory.display()
        );
    }
    opened.is_ok()
}

fn make(path: &Path) -> Result<(), StartError> {
    let made = DirBuilder::new().recursive(true).mode(0o700).create(path);
    made.map_err(|error| directory_error("cannot be made", path, &error))?;
    // The entry in the parent must survive a power cut as well.
    let parent = path.parent().unwrap_or(path);
    let synced = File::open(parent).and_then(|parent| parent.sync_all());
    synced.map_err(|error| directory_error("cannot be made durable", path, &error))
}

fn lock_directory(directory: &Path) -> Result<File, StartError> {
    let path = directory.join(LOCK_NAME);
    let opened = OpenOptions::new()
        .read(true)
        .write(true)
        .create(true)
        .truncate(false)
        .mode(0o600)
        .open(&path);
    let mut file = opened.map_err(|error| directory_error("cannot be opened", &path, &error))?;
    wait_for(&file, directory, &mut || holder(&path))?;
    let pid = std::process::id().to_string();
    let written = file.set_len(0).and_then(|()| file.write_all(pid.as_bytes()));
    written.map_err(|error| directory_error("cannot be written", &path, &error))?;
    Ok(file)
}

/// Locks the directories without writing to them, or waiting.
pub(super) fn lock_for_reading(paths: &Paths) -> Result<Vec<File>, StartError> {
    let mut locks = Vec::new();
    for directory in BTreeSet::from([&paths.data, &paths.log]) {
        let path = directory.join(LOCK_NAME);
        let file = File::open(&path).map_err(|error| {
            let text = format!("{} holds no data of this server's: {error}", directory.display());
            StartError::Directory(text)
        })?;
        try_lock(&file).map_err(|_| {
            let who = holder(&path);
            let text = format!("{} is held by {who}: stop it first", directory.display());
            StartError::Directory(text)
        })?;
        locks.push(file);
        wait_for_writes(directory)?;
    }
    Ok(locks)
}

/// Segments and the epochs record are locked only while something can still write to them.
fn wait_for_writes(directory: &Path) -> Result<(), StartError> {
    let unreadable = |error| directory_error("cannot be read", directory, &error);
    for entry in fs::read_dir(directory).map_err(unreadable)? {
        let entry = entry.map_err(unreadable)?;
        let name = entry.file_name();
        let is_locked =
            |name: &str| txnlog::segment_sequence(name).is_some() || name == epochs::FILE_NAME;
        if !name.to_str().is_some_and(is_locked) {
            continue;
        }
        let path = entry.path();
        let file = File::open(&path)
            .map_err(|error| directory_error("cannot be opened", &path, &error))?;
        let mut dying = || "a write of a process that was killed".to_owned();
        wait_for(&file, &path, &mut dying)?;
    }
    Ok(())
}

fn wait_for(
    file: &File,
    what: &Path,
    holder: &mut dyn FnMut() -> String,
) -> Result<(), StartError> {
    for waited in 0..=WAIT_SECONDS {
        match try_lock(file) {
            Ok(()) => return Ok(()),
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                tracing::warn!(waited, "{} is held by {}, waiting", what.display(), holder());
                std::thread::sleep(Duration::from_secs(1));
            }
            Err(error) => return Err(directory_error("cannot be locked", what, &error)),
        }
    }
    let who = holder();
    Err(StartError::Directory(format!(
        "{} is held by {who}: stop it, or give this server another dataDir",
        what.display()
    )))
}

/// Takes the lock on exactly this descriptor's file description.
pub(super) fn try_lock(file: &impl AsRawFd) -> io::Result<()> {
    // SAFETY: the descriptor is open as long as `file` is borrowed.
    match unsafe { libc::flock(file.as_raw_fd(), libc::LOCK_EX | libc::LOCK_NB) } {
        0 => Ok(()),
        _ => Err(io::Error::last_os_error()),
    }
}

/// Who wrote its process id into the lock file.
fn holder(path: &Path) -> String {
    let mut pid = String::new();
    let read = File::open(path).and_then(|mut file| file.read_to_string(&mut pid));
    let pid = pid.trim();
    if read.is_err() || pid.is_empty() {
        return "another process".to_owned();
    }
    let command = fs::read_to_string(format!("/proc/{pid}/comm")).unwrap_or_default();
    format!("process {pid} {}", command.trim())
}

fn directory_error(what: &str, path: &Path, error: &io::Error) -> StartError {
    let how = match error.kind() {
        io::ErrorKind::PermissionDenied => "; give the user of this process access to it",
        io::ErrorKind::StorageFull => "; make room on its file system",
        _ => "",
    };
    StartError::Directory(format!("{} {what}: {error}{how}", path.display()))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A directory of this test's own, empty.
    fn home(name: &str) -> PathBuf {
        let home = std::env::temp_dir().join(format!("rk-lock-{}-{name}", std::process::id()));
        let _ = fs::remove_dir_all(&home);
        fs::create_dir_all(&home).unwrap();
        home
    }

    #[test]
    fn a_log_directory_that_is_not_the_logs_is_refused() {
        let home = home("places");
        let (one, two) = (home.join("data"), home.join("log"));
        let paths = |data: &PathBuf, log: &PathBuf| Paths::below(data, log);
        let put = |directory: &Path, name: &str| {
            fs::create_dir_all(directory).unwrap();
            File::create(directory.join(name)).unwrap();
        };
        let refused = |data, log, why: &str| {
            let text = check_places(&paths(data, log)).unwrap_err().to_string();
            assert!(text.contains(why), "{text}");
        };
        check_places(&paths(&one, &two)).expect("the first start");
        let (data, log) = (one.join(DIRECTORY_NAME), two.join(DIRECTORY_NAME));
        put(&data, LOCK_NAME);
        refused(&one, &two, "and mounted?");
        put(&data, &txnlog::segment_name(1));
        check_places(&paths(&one, &one)).expect("one directory");
        refused(&one, &two, "move its txnlog.* files there");
        fs::create_dir(&two).unwrap();
        fs::rename(&data, &log).unwrap();
        put(&data, &catalog::file_name(crate::model::Zxid(7)));
        check_places(&paths(&one, &two)).expect("each in its place");
        refused(&two, &one, "dataLogDir");
        fs::remove_file(log.join(txnlog::segment_name(1))).unwrap();
        refused(&two, &one, "exchanged?");
        fs::remove_dir_all(home).unwrap();
    }

    #[test]
    fn a_directory_without_a_log_is_refused_where_the_log_was_elsewhere() {
        let home = home("elsewhere");
        let (data, log, other) = (home.join("data"), home.join("log"), home.join("other"));
        let own = |directory: &Path| directory.join(DIRECTORY_NAME);
        [&data, &log, &other].iter().for_each(|directory| make(&own(directory)).unwrap());
        let (apart, beside) = (Paths::below(&data, &log), Paths::below(&data, &data));
        let elsewhere = Paths::below(&data, &other);
        note_log_place(&apart).unwrap();
        check_places(&beside).expect("there was no log yet");
        File::create(own(&log).join(txnlog::segment_name(1))).unwrap();
        check_places(&apart).expect("where it was");
        for paths in [&beside, &elsewhere] {
            let text = check_places(paths).unwrap_err().to_string();
            assert!(text.contains(&format!("was in {}", own(&log).display())), "{text}");
        }
        let name = txnlog::segment_name(1);
        fs::rename(own(&log).join(&name), own(&other).join(&name)).unwrap();
        check_places(&elsewhere).expect("its files were moved");
        note_log_place(&elsewhere).unwrap();
        assert!(check_places(&apart).is_err());
        fs::rename(own(&other), home.join("gone")).unwrap();
        assert!(check_places(&apart).is_err(), "it may be there, and is not mounted");
        fs::rename(home.join("gone"), own(&other)).unwrap();
        fs::rename(own(&other).join(&name), own(&data).join(&name)).unwrap();
        check_places(&beside).expect("it is beside the snapshots");
        note_log_place(&beside).unwrap();
        assert_eq!(log_place(&beside).unwrap(), None);
        fs::remove_dir_all(home).unwrap();
    }

    /// A killed process's writes of them may land later, and hold them until then.
    #[test]
    fn a_start_waits_for_segments_and_the_epochs_record() {
        let home = home("writes");
        for name in [&txnlog::segment_name(1), epochs::FILE_NAME] {
            let held = File::create(home.join(name)).unwrap();
            try_lock(&held).unwrap();
            let (done, is_done) = std::sync::mpsc::channel();
            let directory = home.clone();
            let waiting = std::thread::spawn(move || {
                wait_for_writes(&directory).expect("it is let go");
                done.send(()).unwrap();
            });
            assert!(is_done.recv_timeout(Duration::from_millis(100)).is_err(), "{name}");
            drop(held);
            is_done.recv().expect("it goes on");
            waiting.join().unwrap();
        }
        let held = File::create(home.join("snapshot.1")).unwrap();
        try_lock(&held).unwrap();
        wait_for_writes(&home).expect("nothing is written to a snapshot");
        fs::remove_dir_all(home).unwrap();
    }

    #[test]
    fn one_directory_by_two_names_is_one() {
        let home = home("names");
        let (one, other) = (home.join("one"), home.join("other"));
        fs::create_dir(&one).unwrap();
        std::os::unix::fs::symlink(&one, &other).unwrap();
        let paths = Paths::below(&one, &other);
        assert_eq!(paths.of(FileDir::Log), paths.of(FileDir::Data));
        fs::remove_dir_all(home).unwrap();
    }
}
