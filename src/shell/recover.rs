//! Drives recovery with plain files, before the executor serves.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use super::ahead::Ahead;
use super::files;
use super::lock::Paths;
use super::reading::{Reading, is_of_medium};
use super::{StartError, startup};
use crate::base::{FileDir, FileFailure, FileName, FileOp};
use crate::limits::RECENT_TXNS_BYTES_MAX;
use crate::model::Zxid;
use crate::server::ServerOptions;
use crate::server::recovery::{Answer, EXPECTED_EMPTY, Recovered, Recovery, Refusal, Step};
use crate::snapshot::catalog;
use crate::tree::TreeOptions;
use crate::txnlog;

/// A snapshot is due after about one segment.
const SEGMENTS_AHEAD: usize = 2;

/// What recovery is to make of the disk.
#[derive(Clone, Copy, Debug)]
pub(super) struct RecoverOptions {
    pub(super) tree: TreeOptions,
    /// Bytes of the last txns that are kept for learners.
    pub(super) recent_bytes_max: u64,
    /// The server is a member of an ensemble.
    pub(super) is_member: bool,
    /// `db.autocreate=false`.
    pub(super) is_empty_lost: bool,
}

impl RecoverOptions {
    pub(super) fn of(options: &ServerOptions) -> Self {
        let tree = TreeOptions { extended_types: options.extended_types, digests: options.digests };
        let is_member = options.is_member();
        let recent_bytes_max = if is_member { RECENT_TXNS_BYTES_MAX } else { 0 };
        let ensemble = options.ensemble.as_ref();
        let is_empty_lost = ensemble.is_some_and(|ensemble| !ensemble.trusts_empty);
        Self { tree, recent_bytes_max, is_member, is_empty_lost }
    }
}

/// Apache's marker of an empty database that is trusted: it counts once.
const INITIALIZE: &str = "initialize";

/// Makes Apache's marker, beside our directories, ours: what was written for one empty database
/// must not be believed of a later one.
fn take_marker(paths: &Paths) -> Result<(), FileFailure> {
    for dir in [FileDir::Data, FileDir::Log] {
        let Some(parent) = paths.of(dir).parent() else { continue };
        let marker = parent.join(INITIALIZE);
        let failed = |error: io::Error| files::failure("moving", &marker, &error);
        match fs::rename(&marker, paths.of(FileDir::Data).join(EXPECTED_EMPTY)) {
            Ok(()) => {}
            Err(error) if error.kind() == io::ErrorKind::NotFound => continue,
            // Two file systems.
            Err(error) if error.kind() == io::ErrorKind::CrossesDevices => {
                let file = FileName::data(EXPECTED_EMPTY.to_owned());
                files::run_blocking(paths, &FileOp::Create { file })?;
                fs::remove_file(&marker).map_err(failed)?;
            }
            Err(error) => return Err(failed(error)),
        }
        files::run_blocking(paths, &FileOp::SyncDir { dir: FileDir::Data })?;
    }
    Ok(())
}

/// Runs recovery to its end, without the log behind `keep_until` if that is given.
pub(super) fn run(
    paths: &Paths,
    options: RecoverOptions,
    keep_until: Option<Zxid>,
) -> Result<Recovered, StartError> {
    if options.is_member {
        take_marker(paths).map_err(Refusal::File)?;
    }
    let recovery = Recovery::new(options.tree, startup::entropy());
    let recovery = recovery.keeping_recent(options.recent_bytes_max);
    let recovery = match options.is_member {
        true => recovery.repaired_by_a_leader(),
        false => recovery,
    };
    let recovery = match options.is_empty_lost {
        true => recovery.losing_what_is_empty(),
        false => recovery,
    };
    let recovery = match keep_until {
        Some(zxid) => recovery.keep_until(zxid),
        None => recovery,
    };
    drive(paths, recovery, &mut |op| files::run_blocking(paths, op))
}

/// Runs recovery without writing: what it would make good stays as it is. Everything that it reads
/// comes before what it would write.
pub(super) fn inspect(paths: &Paths, options: TreeOptions) -> Result<Recovered, StartError> {
    drive(paths, Recovery::new(options, 0), &mut |_| Ok(()))
}

fn drive(
    paths: &Paths,
    mut recovery: Recovery,
    run: &mut dyn FnMut(&FileOp) -> Result<(), FileFailure>,
) -> Result<Recovered, StartError> {
    let mut reading = Reading::default();
    let mut ahead = None;
    let mut answer = Answer::Start;
    loop {
        answer = match recovery.step(answer) {
            Step::List(dir) => Answer::Listing(list(paths, dir).map_err(Refusal::File)?),
            Step::Read { file, offset, .. } if catalog::is_snapshot(&file.name) => {
                if offset == 0 {
                    let then = last_segments(paths);
                    for path in &then {
                        reading.drop_cached(path).map_err(|error| unread(path, &error))?;
                    }
                    ahead = Some(Ahead::start(&paths.of(file.dir).join(&file.name), &then));
                }
                let pieces = ahead.as_ref().expect("a snapshot is read from its start");
                Answer::Decoded(pieces.next().map_err(Refusal::File)?)
            }
            Step::Read { file, offset, len } => {
                let path = paths.of(file.dir).join(&file.name);
                match reading.try_read(&path, offset, len) {
                    Ok(bytes) => Answer::Bytes(bytes),
                    Err(error) if is_of_medium(&error) => {
                        Answer::Unread(files::failure("reading", &path, &error))
                    }
                    Err(error) => return Err(unread(&path, &error).into()),
                }
            }
            Step::Run(op) => Answer::Ran(run(&op)),
            Step::Note(note) => {
                tracing::warn!("{note}");
                Answer::Next
            }
            Step::Done(recovered) => return Ok(*recovered),
            Step::Refuse(refusal) => return Err(refusal.into()),
        };
    }
}

fn unread(path: &Path, error: &io::Error) -> Refusal {
    Refusal::File(files::failure("reading", path, error))
}

/// The segments that are read behind a snapshot, as far as can be said before: the last ones.
fn last_segments(paths: &Paths) -> Vec<PathBuf> {
    let files = list(paths, FileDir::Log).unwrap_or_default();
    let segments = files.iter().filter(|(name, _)| txnlog::segment_sequence(name).is_some());
    let mut segments: Vec<&String> = segments.map(|(name, _)| name).collect();
    let others = segments.len().saturating_sub(SEGMENTS_AHEAD);
    let last = segments.drain(others..);
    last.map(|name| paths.of(FileDir::Log).join(name)).collect()
}

/// Name and length of every file in one of our directories.
pub(super) fn list(paths: &Paths, dir: FileDir) -> Result<Vec<(String, u64)>, FileFailure> {
    list_path(paths.of(dir))
}

/// Name and length of every file in a directory.
pub(super) fn list_path(path: &Path) -> Result<Vec<(String, u64)>, FileFailure> {
    let failed = |error: io::Error| files::failure("listing", path, &error);
    let mut found = Vec::new();
    for entry in fs::read_dir(path).map_err(failed)? {
        let entry = entry.map_err(failed)?;
        let metadata = entry.metadata().map_err(failed)?;
        if let (true, Ok(name)) = (metadata.is_file(), entry.file_name().into_string()) {
            found.push((name, metadata.len()));
        }
    }
    found.sort_unstable();
    Ok(found)
}
