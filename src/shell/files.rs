//! Carries out file operations. Log writes go through direct, synchronous I/O on the ring; all
//! else, and log writes where the file system has no direct I/O, runs on the executor's blocking
//! thread, in bounded pieces.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::fs::{self, File, OpenOptions as StdOpenOptions};
use std::io;
use std::os::fd::AsRawFd;
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::rc::Rc;
use std::time::Duration;

use bytes::Bytes;
use glommio::GlommioError;
use glommio::io::{DmaFile, OpenOptions};
use memmap2::MmapOptions;

use super::StartError;
use super::config_files;
use super::lock::{self, Paths};
use super::recover::{self, RecoverOptions};
use crate::base::{FileFailure, FileName, FileOp, FilePart};
use crate::model::Zxid;
use crate::server::recovery::Recovered;

/// Log segments kept open; older ones are closed when new ones are written to.
const OPEN_FILES_MAX: usize = 3;

/// From one try to have a descriptor to the next, and the tries from one warning to the next.
const DESCRIPTOR_RETRY: Duration = Duration::from_millis(100);
const DESCRIPTOR_WARN_TRIES: u32 = 100;

/// The files of one server.
pub(super) struct Files {
    paths: Paths,
    /// Whether log writes go past the page cache; else they are buffered and then flushed.
    direct: bool,
    recover: RecoverOptions,
    /// The file that the server was started with, if it may be rewritten.
    config: Option<PathBuf>,
    /// Segments open for durable writes, with their locks.
    open: RefCell<BTreeMap<FileName, Rc<DmaFile>>>,
}

impl Files {
    pub(super) const fn new(
        paths: Paths,
        direct: bool,
        recover: RecoverOptions,
        config: Option<PathBuf>,
    ) -> Self {
        Self { paths, direct, recover, config, open: RefCell::new(BTreeMap::new()) }
    }

    /// Recovers from what is on disk while nothing else is asked of it. No segment stays open, so
    /// that none that is cut off is written to; who writes next opens and locks again.
    pub(super) async fn recover(&self, keep_until: Option<Zxid>) -> Result<Recovered, StartError> {
        let open = self.open.take();
        for file in open.into_values() {
            close(file).await;
        }
        let (paths, options) = (self.paths.clone(), self.recover);
        let work = move || recover::run(&paths, options, keep_until);
        glommio::executor().spawn_blocking(work).await
    }

    /// Carries out one operation.
    pub(super) async fn run(&self, op: FileOp) -> Result<(), FileFailure> {
        patiently(|| self.run_once(&op)).await
    }

    /// Reads a part of a file, on another thread.
    pub(super) async fn read(&self, part: FilePart) -> Result<Bytes, FileFailure> {
        patiently(|| self.read_once(&part)).await
    }

    async fn run_once(&self, op: &FileOp) -> Result<(), FileFailure> {
        match op {
            FileOp::Write { file, offset, bytes, durable: true } if self.direct => {
                self.write_durably(file, *offset, bytes).await
            }
            FileOp::Zero { file, offset, len } if self.direct => {
                let (offset, len) = (*offset, *len);
                let path = self.paths.of(file.dir).join(&file.name);
                let work = move || {
                    zero_directly(&path, offset, len)
                        .map_err(|error| failure("zeroing", &path, &error))
                };
                glommio::executor().spawn_blocking(work).await
            }
            other => {
                if let FileOp::Rename { from: file, .. } | FileOp::Remove { file } = other {
                    self.forget(file).await;
                }
                let (paths, config) = (self.paths.clone(), self.config.clone());
                let op = other.clone();
                let work = move || {
                    let written = config_files::run(config.as_deref(), &op);
                    written.unwrap_or_else(|| run_blocking(&paths, &op))
                };
                glommio::executor().spawn_blocking(work).await
            }
        }
    }

    async fn read_once(&self, part: &FilePart) -> Result<Bytes, FileFailure> {
        let path = self.paths.of(part.file.dir).join(&part.file.name);
        let (offset, len) = (part.offset, part.len);
        let work = move || {
            let bytes = read_part(&path, offset, len);
            bytes.map_err(|error| failure("reading", &path, &error))
        };
        glommio::executor().spawn_blocking(work).await
    }

    async fn write_durably(
        &self,
        name: &FileName,
        offset: u64,
        bytes: &Bytes,
    ) -> Result<(), FileFailure> {
        let path = self.paths.of(name.dir).join(&name.name);
        let failed = |error: io::Error| failure("writing", &path, &error);
        let file = self.open_for_log(name, &path).await.map_err(failed)?;
        let mut buffer = file.alloc_dma_buffer(bytes.len());
        buffer.as_bytes_mut().copy_from_slice(bytes);
        let written = file.write_at(buffer, offset).await;
        let written = written.map_err(|error| failed(to_io(error)))?;
        if written != bytes.len() {
            return Err(failed(io::Error::from(io::ErrorKind::WriteZero)));
        }
        Ok(())
    }

    async fn open_for_log(&self, name: &FileName, path: &Path) -> io::Result<Rc<DmaFile>> {
        if let Some(file) = self.open.borrow().get(name) {
            return Ok(Rc::clone(file));
        }
        let mut options = OpenOptions::new();
        options.read(true).write(true).custom_flags(libc::O_DSYNC);
        let file = Rc::new(options.dma_open(path).await.map_err(to_io)?);
        lock::try_lock(&*file)?;
        let oldest = {
            let mut open = self.open.borrow_mut();
            open.insert(name.clone(), Rc::clone(&file));
            if OPEN_FILES_MAX < open.len() { open.pop_first() } else { None }
        };
        if let Some((_, file)) = oldest {
            close(file).await;
        }
        Ok(file)
    }

    /// A file under this name is going.
    async fn forget(&self, name: &FileName) {
        let file = self.open.borrow_mut().remove(name);
        if let Some(file) = file {
            close(file).await;
        }
    }
}

/// Tries until there is a descriptor. Without one nothing has reached the disk, so that the lack of
/// it says nothing about the files, and may pass: it may even be another process's doing.
async fn patiently<T, F>(attempt: impl Fn() -> F) -> Result<T, FileFailure>
where
    F: Future<Output = Result<T, FileFailure>>,
{
    let mut tries = 0_u32;
    loop {
        match attempt().await {
            Err(failure) if failure.no_descriptor => {
                if tries.is_multiple_of(DESCRIPTOR_WARN_TRIES) {
                    tracing::warn!("{failure}: it is tried again");
                }
                tries = tries.wrapping_add(1);
                glommio::timer::sleep(DESCRIPTOR_RETRY).await;
            }
            other => return other,
        }
    }
}

async fn close(file: Rc<DmaFile>) {
    if let Err(error) = file.close_rc().await {
        tracing::warn!(%error, "a log segment was not closed cleanly");
    }
}

/// Carries out one operation on the calling thread.
pub(super) fn run_blocking(paths: &Paths, op: &FileOp) -> Result<(), FileFailure> {
    let path = |file: &FileName| paths.of(file.dir).join(&file.name);
    let on = |what, path: &Path, result: io::Result<()>| {
        result.map_err(|error| failure(what, path, &error))
    };
    match op {
        FileOp::Create { file } => {
            let path = path(file);
            let mut options = StdOpenOptions::new();
            options.write(true).create(true).truncate(true).mode(0o600);
            on("creating", &path, options.open(&path).map(drop))
        }
        FileOp::Write { file, offset, bytes, durable } => {
            let path = path(file);
            let written = open_to_write(&path).and_then(|file| {
                file.write_all_at(bytes, *offset)?;
                if *durable { file.sync_data() } else { write_out(&file, *offset, bytes.len()) }
            });
            on("writing", &path, written)
        }
        FileOp::Zero { file, offset, len } => {
            let path = path(file);
            let zeros = vec![0; usize::try_from(*len).expect("addresses are 64 bits")];
            let written = open_to_write(&path).and_then(|file| file.write_all_at(&zeros, *offset));
            on("zeroing", &path, written)
        }
        FileOp::Flush { file } => {
            let path = path(file);
            on("flushing", &path, open_to_write(&path).and_then(|file| file.sync_all()))
        }
        FileOp::Rename { from, to } => {
            let path = path(from);
            on("renaming", &path, fs::rename(&path, paths.of(from.dir).join(to)))
        }
        FileOp::Remove { file } => {
            let path = path(file);
            match fs::remove_file(&path) {
                Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
                other => on("removing", &path, other),
            }
        }
        FileOp::WriteNextConfig { .. } | FileOp::WriteConfig { .. } => {
            unreachable!("neither recovery nor import changes the configuration")
        }
        FileOp::SyncDir { dir } => {
            let path = paths.of(*dir);
            on("flushing", path, File::open(path).and_then(|dir| dir.sync_all()))
        }
    }
}

/// Has what was written go to the drive now, and waits for it: a snapshot that waits in the page
/// cache for its flush is written all at once then, in the way of the log. Promises nothing; where
/// the kernel cannot do it, the flush does.
fn write_out(file: &File, offset: u64, len: usize) -> io::Result<()> {
    let signed = |number: u64| libc::off64_t::try_from(number).map_err(io::Error::other);
    let flags = libc::SYNC_FILE_RANGE_WRITE | libc::SYNC_FILE_RANGE_WAIT_AFTER;
    let (offset, len) = (signed(offset)?, signed(len as u64)?);
    // SAFETY: the descriptor is open; no memory is passed.
    if unsafe { libc::sync_file_range(file.as_raw_fd(), offset, len, flags) } == 0 {
        return Ok(());
    }
    let error = io::Error::last_os_error();
    match error.raw_os_error() {
        Some(libc::ENOSYS | libc::EINVAL | libc::EPERM) => Ok(()),
        _ => Err(error),
    }
}

/// Writes zeros past the page cache: through it they would be copied, and all of a segment written
/// at its flush, in the way of the log.
fn zero_directly(path: &Path, offset: u64, len: u64) -> io::Result<()> {
    let len = usize::try_from(len).expect("addresses are 64 bits");
    let zeros = MmapOptions::new().len(len).map_anon()?;
    let mut options = StdOpenOptions::new();
    let file = options.write(true).custom_flags(libc::O_DIRECT).open(path)?;
    file.write_all_at(&zeros, offset)
}

/// Fewer bytes only at the end of the file. What is read is checked by whoever reads: direct writes
/// may go past what the kernel has cached, and nothing is read ahead that may still be written.
fn read_part(path: &Path, offset: u64, len: u64) -> io::Result<Bytes> {
    let file = File::open(path)?;
    // SAFETY: the descriptor is open; the call only changes what is read ahead.
    unsafe { libc::posix_fadvise(file.as_raw_fd(), 0, 0, libc::POSIX_FADV_RANDOM) };
    let there = file.metadata()?.len().saturating_sub(offset);
    let mut bytes = vec![0; usize::try_from(len.min(there)).expect("addresses are 64 bits")];
    file.read_exact_at(&mut bytes, offset)?;
    Ok(Bytes::from(bytes))
}

fn open_to_write(path: &Path) -> io::Result<File> {
    StdOpenOptions::new().write(true).open(path)
}

fn to_io(error: GlommioError<()>) -> io::Error {
    match error {
        GlommioError::IoError(error) | GlommioError::EnhancedIoError { source: error, .. } => error,
        other => io::Error::other(other.to_string()),
    }
}

/// A failure with what was being done, where.
pub(super) fn failure(what: &str, path: &Path, error: &io::Error) -> FileFailure {
    let error_number = error.raw_os_error();
    FileFailure {
        no_space: matches!(error_number, Some(libc::ENOSPC | libc::EDQUOT | libc::EFBIG)),
        no_descriptor: matches!(error_number, Some(libc::EMFILE | libc::ENFILE)),
        text: format!("{what} {}: {error}", path.display()),
    }
}
