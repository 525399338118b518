//! What a path on the command line is: a data directory, one of its parts, or a single file.

use std::fs;
use std::io::{self, Read};
use std::path::{Path, PathBuf};

use ringkeeper::apache::names;
use ringkeeper::config::Config;
use ringkeeper::snapshot::{self, catalog};
use ringkeeper::txnlog;

/// Why a command cannot do its work, and the exit code that says so.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Trouble {
    /// The arguments make no sense here.
    #[error("{0}")]
    Usage(String),
    /// Something cannot be read or written.
    #[error("{0}")]
    Unreadable(String),
}

/// What is inspected.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Place {
    /// Ringkeeper's directories of snapshots and of log segments; often one.
    Directory {
        /// Where snapshots and epochs are.
        data: PathBuf,
        /// Where segments are.
        log: PathBuf,
    },
    /// Apache ZooKeeper's directories of snapshots and of logs; often one.
    Apache {
        /// Where snapshots and epochs are.
        data: PathBuf,
        /// Where logs are.
        log: PathBuf,
    },
    /// One of Apache's logs.
    ApacheLog(PathBuf),
    /// One of Apache's snapshots.
    ApacheSnapshot(PathBuf),
    /// One log segment.
    Segment(PathBuf),
    /// One snapshot.
    Snapshot(PathBuf),
}

/// Name of Ringkeeper's directory below `dataDir` and `dataLogDir`.
const DIRECTORY_NAME: &str = "ringkeeper";

/// A failure to read `path`.
pub(crate) fn unreadable(path: &Path, error: &io::Error) -> Trouble {
    Trouble::Unreadable(format!("{}: {error}", path.display()))
}

/// Finds out what `path` is. `log_dir` is where the log is, if elsewhere.
pub(crate) fn locate(path: &Path, log_dir: Option<&Path>) -> Result<Place, Trouble> {
    let metadata = fs::metadata(path).map_err(|error| unreadable(path, &error))?;
    if metadata.is_dir() {
        return locate_directory(path, log_dir);
    }
    if log_dir.is_some() {
        return Err(Trouble::Usage("--log-dir goes with a directory, not with a file".into()));
    }
    if path.extension().is_some_and(|extension| extension == "cfg") {
        return locate_config(path);
    }
    locate_file(path)
}

fn locate_directory(path: &Path, log_dir: Option<&Path>) -> Result<Place, Trouble> {
    let is_apaches = apache_directory(path)?.is_some();
    let find = if is_apaches { apache_directory } else { own_directory };
    let data = find(path)?;
    let log = log_dir.map(find).transpose()?.flatten();
    let (data, log) = match (data, log) {
        (Some(data), Some(log)) => (data, log),
        (Some(data), None) if log_dir.is_none() => (data.clone(), data),
        (data, _) => {
            let path = if data.is_some() { log_dir.unwrap_or(path) } else { path };
            return Err(Trouble::Unreadable(format!(
                "{}: neither a data directory (with `{DIRECTORY_NAME}` or `version-2` in it) nor \
                 one with logs or snapshots",
                path.display()
            )));
        }
    };
    Ok(match is_apaches {
        true => Place::Apache { data, log },
        false => Place::Directory { data, log },
    })
}

/// The directory that holds our files, be it `path` itself or below it.
fn own_directory(path: &Path) -> Result<Option<PathBuf>, Trouble> {
    let below = path.join(DIRECTORY_NAME);
    if below.is_dir() {
        return Ok(Some(below));
    }
    let is_ours = |name: &str| {
        txnlog::segment_sequence(name).is_some()
            || catalog::zxid_of(name).is_some()
            || name == ringkeeper::server::epochs::FILE_NAME
    };
    if holds(path, is_ours)? {
        return Ok(Some(path.to_owned()));
    }
    let is_named_so = path.file_name().is_some_and(|name| name == DIRECTORY_NAME);
    Ok(is_named_so.then(|| path.to_owned()))
}

/// The directory that holds Apache's files, be it `path` itself or below it; `None` where ours are.
fn apache_directory(path: &Path) -> Result<Option<PathBuf>, Trouble> {
    if own_directory(path)?.is_some() {
        return Ok(None);
    }
    let below = path.join(names::DIRECTORY);
    if below.is_dir() {
        return Ok(Some(below));
    }
    let is_apaches =
        |name: &str| names::log_zxid(name).is_some() || names::snapshot_zxid(name).is_some();
    Ok(holds(path, is_apaches)?.then(|| path.to_owned()))
}

/// Whether a file of the directory has such a name.
fn holds(path: &Path, is_wanted: impl Fn(&str) -> bool) -> Result<bool, Trouble> {
    let failed = |error: io::Error| unreadable(path, &error);
    for entry in fs::read_dir(path).map_err(failed)? {
        if is_wanted(&entry.map_err(failed)?.file_name().to_string_lossy()) {
            return Ok(true);
        }
    }
    Ok(false)
}

fn locate_config(path: &Path) -> Result<Place, Trouble> {
    let text = fs::read(path).map_err(|error| unreadable(path, &error))?;
    let name = path.display().to_string();
    let parsed = Config::parse(&text, &name, &ringkeeper::shell::read_if_there);
    let (config, _) = parsed.map_err(|error| Trouble::Unreadable(error.to_string()))?;
    locate_directory(&config.data_dir, Some(&config.data_log_dir))
}

fn locate_file(path: &Path) -> Result<Place, Trouble> {
    let name = path.file_name().map(|name| name.to_string_lossy().into_owned());
    let name = name.unwrap_or_default();
    if txnlog::segment_sequence(&name).is_some() {
        return Ok(Place::Segment(path.to_owned()));
    }
    let mut front = Vec::new();
    let file = fs::File::open(path).map_err(|error| unreadable(path, &error))?;
    let read = file.take(8).read_to_end(&mut front);
    read.map_err(|error| unreadable(path, &error))?;
    if front == txnlog::SEGMENT_MAGIC {
        return Ok(Place::Segment(path.to_owned()));
    }
    if front.starts_with(b"ZKLG") || names::log_zxid(&name).is_some() {
        return Ok(Place::ApacheLog(path.to_owned()));
    }
    let is_ours = front.starts_with(snapshot::MAGIC);
    if front.starts_with(b"ZKSN") || (!is_ours && is_apache_snapshot(&name)) {
        return Ok(Place::ApacheSnapshot(path.to_owned()));
    }
    if front.starts_with(snapshot::MAGIC) || catalog::zxid_of(&name).is_some() {
        return Ok(Place::Snapshot(path.to_owned()));
    }
    Err(Trouble::Unreadable(format!("{}: neither a log nor a snapshot", path.display())))
}

/// Apache never pads the zxid to the sixteen digits of our names, and compresses.
fn is_apache_snapshot(name: &str) -> bool {
    names::snapshot_zxid(name).is_some() && catalog::zxid_of(name).is_none()
}
