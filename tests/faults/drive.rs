//! A drive with a volatile write cache, as a file of a FUSE file system that this module serves.
//!
//! What is written is in the cache until a flush puts it on the platter (a sparse file). A power
//! cut loses the cache, or keeps any of its sectors. Writes and flushes can fail or take long. A
//! loop device over the file and ext4 on it make a disk of it, see `disk`.

use std::collections::BTreeMap;
use std::fs::{self, File, OpenOptions};
use std::io::{self, Read, Write};
use std::os::fd::AsRawFd;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard};
use std::thread;
use std::time::Duration;

use ringkeeper::base::prng::Prng;

use crate::net::run;

/// What is written whole or not at all.
const SECTOR: usize = 512;
/// The most that the kernel sends in one request, and room for its header.
const WRITE_BYTES_MAX: usize = 128 * 1024;
const REQUEST_BYTES_MAX: usize = WRITE_BYTES_MAX + 4096;

/// What a drive does with writes and flushes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Mood {
    Well,
    FailsWrites,
    FailsFlushes,
    /// Each takes so long.
    Slow(Duration),
    /// Nothing is answered but errors.
    Off,
}

/// What is on the platter, what is in the cache.
struct Inner {
    platter: File,
    bytes: u64,
    cache: BTreeMap<u64, [u8; SECTOR]>,
    mood: Mood,
    flushes: u64,
}

/// One drive, unmounted with this value.
pub(crate) struct Drive {
    inner: Arc<Mutex<Inner>>,
    folder: PathBuf,
}

impl Drive {
    /// Serves the file `platter` as `FOLDER/disk`.
    ///
    /// # Errors
    /// The machine has no FUSE, or does not let us.
    pub(crate) fn new(platter: &Path, folder: PathBuf) -> io::Result<Self> {
        fs::create_dir_all(&folder)?;
        let platter = OpenOptions::new().read(true).write(true).open(platter)?;
        let bytes = platter.metadata()?.len();
        let device = OpenOptions::new().read(true).write(true).open("/dev/fuse")?;
        mount(&device, &folder)?;
        let inner = Inner { platter, bytes, cache: BTreeMap::new(), mood: Mood::Well, flushes: 0 };
        let inner = Arc::new(Mutex::new(inner));
        let served = Arc::clone(&inner);
        thread::spawn(move || serve(device, &served));
        Ok(Self { inner, folder })
    }

    /// The file that is the drive.
    pub(crate) fn file(&self) -> PathBuf {
        self.folder.join("disk")
    }

    pub(crate) fn set_mood(&self, mood: Mood) {
        self.lock().mood = mood;
    }

    /// How many flushes there were.
    pub(crate) fn flushes(&self) -> u64 {
        self.lock().flushes
    }

    /// Cuts the power: of the cache, nothing or any of its sectors stay. How many are lost.
    pub(crate) fn cut_power(&self, prng: &mut Prng) -> usize {
        let mut inner = self.lock();
        inner.mood = Mood::Off;
        let kept_of_four = [0, 0, 1, 3][prng.below(4) as usize];
        let mut lost = 0;
        for (sector, bytes) in std::mem::take(&mut inner.cache) {
            if prng.below(4) < kept_of_four {
                let at = sector * SECTOR as u64;
                inner.platter.write_all_at(&bytes, at).expect("there is room");
            } else {
                lost += 1;
            }
        }
        lost
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().expect("the drive's thread does not panic")
    }
}

impl Drop for Drive {
    fn drop(&mut self) {
        let _gone = run("umount", &["-l", &self.folder.display().to_string()]);
    }
}

impl Inner {
    fn read(&self, at: u64, len: usize) -> io::Result<Vec<u8>> {
        let len = len.min(usize::try_from(self.bytes.saturating_sub(at)).unwrap_or(usize::MAX));
        let mut bytes = vec![0; len];
        self.platter.read_exact_at(&mut bytes, at)?;
        for (chunk, sector) in bytes.chunks_mut(SECTOR).zip(at / SECTOR as u64..) {
            if let Some(cached) = self.cache.get(&sector) {
                let len = chunk.len();
                chunk.copy_from_slice(&cached[..len]);
            }
        }
        Ok(bytes)
    }

    fn write(&mut self, at: u64, bytes: &[u8]) {
        for (chunk, sector) in bytes.chunks_exact(SECTOR).zip(at / SECTOR as u64..) {
            self.cache.insert(sector, chunk.try_into().expect("a sector"));
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        self.flushes += 1;
        // Neighbours in one write.
        let mut run: (u64, Vec<u8>) = (0, Vec::new());
        for (sector, bytes) in std::mem::take(&mut self.cache) {
            let at = sector * SECTOR as u64;
            if run.0 + run.1.len() as u64 != at {
                self.platter.write_all_at(&run.1, run.0)?;
                run = (at, Vec::new());
            }
            run.1.extend_from_slice(&bytes);
        }
        self.platter.write_all_at(&run.1, run.0)
    }
}

fn mount(device: &File, folder: &Path) -> io::Result<()> {
    let options = format!("fd={},rootmode=40000,user_id=0,group_id=0\0", device.as_raw_fd());
    let folder = format!("{}\0", folder.display());
    let flags = libc::MS_NOSUID | libc::MS_NODEV;
    // SAFETY: all texts end with a zero byte.
    let mounted = unsafe {
        libc::mount(
            c"drive".as_ptr(),
            folder.as_ptr().cast(),
            c"fuse".as_ptr(),
            flags,
            options.as_ptr().cast(),
        )
    };
    if mounted == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

/// Operations of the FUSE protocol (`linux/fuse.h`, 7.31).
mod op {
    pub(super) const LOOKUP: u32 = 1;
    pub(super) const FORGET: u32 = 2;
    pub(super) const GETATTR: u32 = 3;
    pub(super) const OPEN: u32 = 14;
    pub(super) const READ: u32 = 15;
    pub(super) const WRITE: u32 = 16;
    pub(super) const RELEASE: u32 = 18;
    pub(super) const FSYNC: u32 = 20;
    pub(super) const FLUSH: u32 = 25;
    pub(super) const INIT: u32 = 26;
    pub(super) const INTERRUPT: u32 = 36;
    pub(super) const BATCH_FORGET: u32 = 42;
}

const REQUEST_HEADER_BYTES: usize = 40;
const ROOT: u64 = 1;
const DISK: u64 = 2;

fn u32_at(bytes: &[u8], at: usize) -> u32 {
    u32::from_ne_bytes(bytes[at..at + 4].try_into().expect("four bytes"))
}

fn u64_at(bytes: &[u8], at: usize) -> u64 {
    u64::from_ne_bytes(bytes[at..at + 8].try_into().expect("eight bytes"))
}

/// Answers requests until the file system is unmounted.
fn serve(mut device: File, inner: &Mutex<Inner>) {
    let mut buf = vec![0; REQUEST_BYTES_MAX];
    loop {
        let len = match device.read(&mut buf) {
            Ok(len) => len,
            Err(error) if error.raw_os_error() == Some(libc::ENODEV) => return,
            Err(_) => continue,
        };
        let request = &buf[..len];
        let op = u32_at(request, 4);
        if [op::FORGET, op::BATCH_FORGET, op::INTERRUPT].contains(&op) {
            continue;
        }
        let node = u64_at(request, 16);
        let answer = answer(inner, op, node, &request[REQUEST_HEADER_BYTES..]);
        let (error, body) = match answer {
            Ok(body) => (0, body),
            Err(error) => (-error, Vec::new()),
        };
        let mut reply = Vec::with_capacity(16 + body.len());
        reply.extend((16 + body.len() as u32).to_ne_bytes());
        reply.extend(error.to_ne_bytes());
        reply.extend(u64_at(request, 8).to_ne_bytes());
        reply.extend(body);
        // A request that was given up takes no answer.
        let _taken = device.write(&reply);
    }
}

/// The body of an answer, or an error number.
fn answer(inner: &Mutex<Inner>, op: u32, node: u64, body: &[u8]) -> Result<Vec<u8>, i32> {
    let lock = || inner.lock().expect("nobody panics with it");
    let mood = lock().mood;
    if let (Mood::Slow(time), op::WRITE | op::FSYNC) = (mood, op) {
        thread::sleep(time);
    }
    let mut inner = lock();
    let fails = match inner.mood {
        Mood::Off => [op::READ, op::WRITE, op::FSYNC].contains(&op),
        Mood::FailsWrites => op == op::WRITE,
        Mood::FailsFlushes => op == op::FSYNC,
        Mood::Well | Mood::Slow(_) => false,
    };
    if fails {
        return Err(libc::EIO);
    }
    let failed = |_| libc::EIO;
    match op {
        op::INIT => Ok(init(body)),
        op::LOOKUP if body == b"disk\0" => {
            let mut entry = [DISK.to_ne_bytes(), 0_u64.to_ne_bytes()].concat();
            // Both are valid for an hour.
            entry.extend([3600_u64.to_ne_bytes(), 3600_u64.to_ne_bytes(), [0; 8]].concat());
            entry.extend(attributes(DISK, inner.bytes));
            Ok(entry)
        }
        op::LOOKUP => Err(libc::ENOENT),
        op::GETATTR => {
            let valid = [3600_u64.to_ne_bytes(), [0; 8]].concat();
            Ok([valid, attributes(node, inner.bytes)].concat())
        }
        // Past the page cache.
        op::OPEN => Ok([0_u64.to_ne_bytes(), 1_u64.to_le_bytes()].concat()),
        op::READ => {
            let len = usize::try_from(u32_at(body, 16)).map_err(|_| libc::EINVAL)?;
            inner.read(u64_at(body, 8), len).map_err(failed)
        }
        op::WRITE => {
            let data = &body[40..];
            inner.write(u64_at(body, 8), data);
            Ok([(data.len() as u32).to_ne_bytes(), [0; 4]].concat())
        }
        op::FSYNC => inner.flush().map(|()| Vec::new()).map_err(failed),
        op::FLUSH | op::RELEASE => Ok(Vec::new()),
        _ => Err(libc::ENOSYS),
    }
}

/// The answer to INIT: version 7.31, no features.
fn init(body: &[u8]) -> Vec<u8> {
    let readahead = u32_at(body, 8);
    let mut words = [0_u32; 16];
    words[..4].copy_from_slice(&[7, 31, readahead, 0]);
    words[5] = WRITE_BYTES_MAX as u32;
    words[6] = 1;
    words.iter().flat_map(|word| word.to_ne_bytes()).collect()
}

fn attributes(node: u64, bytes: u64) -> Vec<u8> {
    let mode = if node == ROOT { libc::S_IFDIR | 0o755 } else { libc::S_IFREG | 0o600 };
    let mut longs = vec![node, bytes, bytes / SECTOR as u64];
    longs.resize(6, 0);
    let mut all: Vec<u8> = longs.iter().flat_map(|long| long.to_ne_bytes()).collect();
    // Nanoseconds of three times, mode, links, owner, group, device, block, flags.
    for word in [0, 0, 0, mode, 1, 0, 0, 0, 4096, 0_u32] {
        all.extend(word.to_ne_bytes());
    }
    all
}
