//! Drives recovery with plain files, before the executor serves.

use std::fs::{self, File, OpenOptions};
use std::io;
use std::os::fd::AsRawFd;
use std::os::unix::fs::FileExt;

use bytes::Bytes;

use super::StartError;
use super::files;
use super::lock::{Directories, Paths};
use crate::base::{FileFailure, FileName};
use crate::server::recovery::{Answer, Recovered, Recovery, Refusal, Step};
use crate::tree::TreeOptions;

/// Runs recovery to its end.
pub(super) fn run(
    directories: &Directories,
    options: TreeOptions,
    seed: u64,
) -> Result<Recovered, StartError> {
    let paths = directories.paths();
    let mut recovery = Recovery::new(options, seed);
    let mut answer = Answer::Start;
    loop {
        answer = match recovery.step(answer) {
            Step::List(dir) => {
                let listed = list(&paths, dir);
                Answer::Listing(listed.map_err(Refusal::File)?)
            }
            Step::Read { file, offset, len } => {
                let read = read(&paths, &file, offset, len);
                Answer::Bytes(read.map_err(Refusal::File)?)
            }
            Step::Run(op) => Answer::Ran(files::run_blocking(&paths, &op)),
            Step::Note(note) => {
                tracing::warn!("{note}");
                Answer::Next
            }
            Step::Done(recovered) => return Ok(*recovered),
            Step::Refuse(refusal) => return Err(refusal.into()),
        };
    }
}

fn list(paths: &Paths, dir: crate::base::FileDir) -> Result<Vec<(String, u64)>, FileFailure> {
    let path = paths.of(dir);
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

/// Reads from the disk: cached pages may show what a failed flush never wrote.
fn read(paths: &Paths, file: &FileName, offset: u64, len: u64) -> Result<Bytes, FileFailure> {
    let path = paths.of(file.dir).join(&file.name);
    let failed = |error: io::Error| files::failure("reading", &path, &error);
    let opened: File = OpenOptions::new().read(true).open(&path).map_err(failed)?;
    if offset == 0 {
        // SAFETY: the descriptor is open; the call only drops clean cached pages.
        unsafe { libc::posix_fadvise(opened.as_raw_fd(), 0, 0, libc::POSIX_FADV_DONTNEED) };
    }
    let wanted = usize::try_from(len).expect("addresses are 64 bits");
    let mut bytes = vec![0; wanted];
    let mut filled = 0;
    while filled < wanted {
        let rest = bytes.get_mut(filled..).unwrap_or_default();
        match opened.read_at(rest, offset + filled as u64) {
            Ok(0) => break,
            Ok(count) => filled += count,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(failed(error)),
        }
    }
    bytes.truncate(filled);
    Ok(Bytes::from(bytes))
}
