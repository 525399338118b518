//! [`Reading`]: pieces of long files in order, with a line for the operator every few seconds.

use std::collections::{BTreeSet, VecDeque};
use std::fs::File;
use std::io;
use std::os::fd::AsRawFd;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::thread;
use std::time::{Duration, Instant};

use bytes::{Bytes, BytesMut};

use super::files;
use crate::base::FileFailure;

/// From one line to the next.
const EVERY: Duration = Duration::from_secs(3);

/// From a failed try to read to the next.
const AGAIN_AFTER: Duration = Duration::from_secs(1);

/// The kernel heeds no more of one piece of advice on most disks.
const ADVICE_BYTES: usize = 128 << 10;

/// The file that was read from last, kept open, and when to speak next.
#[derive(Debug, Default)]
pub(super) struct Reading {
    open: Option<(PathBuf, File)>,
    /// What was read last. Once nobody else has it, its buffer serves again.
    last: Bytes,
    spoke: Option<Instant>,
    /// Files whose cached pages were dropped; what was cached since came from the disk.
    dropped: BTreeSet<PathBuf>,
}

impl Reading {
    /// `[offset, offset + len)` of the file at `path`, fewer bytes only at its end. From the disk:
    /// cached pages may show what a failed flush never wrote.
    pub(super) fn read(
        &mut self,
        path: &Path,
        offset: u64,
        len: u64,
    ) -> Result<Bytes, FileFailure> {
        let read = self.try_read(path, offset, len);
        read.map_err(|error| files::failure("reading", path, &error))
    }

    /// The same, with the system's error. What the disk cannot read is read once more: an error
    /// that passes is no damage.
    pub(super) fn try_read(&mut self, path: &Path, offset: u64, len: u64) -> io::Result<Bytes> {
        match self.read_once(path, offset, len) {
            Err(error) if is_of_medium(&error) => {
                tracing::warn!("{}: {error}; it is read once more", path.display());
                thread::sleep(AGAIN_AFTER);
                self.read_once(path, offset, len)
            }
            read => read,
        }
    }

    fn read_once(&mut self, path: &Path, offset: u64, len: u64) -> io::Result<Bytes> {
        let file = match self.open.take() {
            Some((open, file)) if open == path && offset != 0 => file,
            _ => {
                self.drop_cached(path)?;
                File::open(path)?
            }
        };
        let total = file.metadata()?.len();
        let wanted = usize::try_from(len.min(total.saturating_sub(offset)));
        let mut bytes = self.buffer(wanted.expect("addresses are 64 bits"));
        let mut filled = 0;
        while filled < bytes.len() {
            let rest = bytes.get_mut(filled..).unwrap_or_default();
            match file.read_at(rest, offset + filled as u64) {
                Ok(0) => break,
                Ok(count) => filled += count,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        bytes.truncate(filled);
        self.speak(path, offset, total);
        self.open = Some((path.to_owned(), file));
        self.last = bytes.freeze();
        Ok(self.last.clone())
    }

    /// Drops the cached pages of the file, unless this was done before.
    pub(super) fn drop_cached(&mut self, path: &Path) -> io::Result<()> {
        if !self.dropped.contains(path) {
            let file = File::open(path)?;
            // SAFETY: the descriptor is open; the call only drops clean cached pages.
            unsafe { libc::posix_fadvise(file.as_raw_fd(), 0, 0, libc::POSIX_FADV_DONTNEED) };
            self.dropped.insert(path.to_owned());
        }
        Ok(())
    }

    /// A buffer of this length that holds anything.
    fn buffer(&mut self, len: usize) -> BytesMut {
        match std::mem::take(&mut self.last).try_into_mut() {
            Ok(mut bytes) if len <= bytes.capacity() => {
                bytes.resize(len, 0);
                bytes
            }
            _ => BytesMut::zeroed(len),
        }
    }

    fn speak(&mut self, path: &Path, offset: u64, total: u64) {
        let spoke = *self.spoke.get_or_insert_with(Instant::now);
        if EVERY <= spoke.elapsed() {
            self.spoke = Some(Instant::now());
            let percent = offset * 100 / total.max(1);
            tracing::info!("reading {}: {percent} % of {} MiB", path.display(), total >> 20);
        }
    }
}

/// The whole of a small file, `None` if there is none: what a configuration names.
pub fn read_if_there(path: &Path) -> Result<Option<Vec<u8>>, String> {
    match std::fs::read(path) {
        Ok(bytes) => Ok(Some(bytes)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error.to_string()),
    }
}

/// Files that will be read soon: the kernel is asked to read them into its cache, a piece now and
/// a piece then, so that what is read first is not kept waiting.
#[derive(Debug)]
pub(super) struct Soon {
    files: VecDeque<File>,
    offset: u64,
}

impl Soon {
    /// Those of the files that can be opened; the others fail when they are read.
    pub(super) fn new(paths: &[PathBuf]) -> Self {
        Self { files: paths.iter().filter_map(|path| File::open(path).ok()).collect(), offset: 0 }
    }

    /// Asks for the next `len` bytes.
    pub(super) fn advance(&mut self, len: u64) {
        let Some(file) = self.files.front() else { return };
        for offset in (self.offset..self.offset + len).step_by(ADVICE_BYTES) {
            let (from, len) = (offset.cast_signed(), ADVICE_BYTES as i64);
            // SAFETY: the descriptor is open; the call only fills the cache.
            unsafe { libc::posix_fadvise(file.as_raw_fd(), from, len, libc::POSIX_FADV_WILLNEED) };
        }
        self.offset += len;
        if file.metadata().map_or(0, |metadata| metadata.len()) <= self.offset {
            self.files.pop_front();
            self.offset = 0;
        }
    }
}
/// Whether the disk has lost what was written there; any other error is not the file's.
pub(super) fn is_of_medium(error: &io::Error) -> bool {
    matches!(error.raw_os_error(), Some(libc::EIO | libc::EBADMSG | libc::EUCLEAN))
}
