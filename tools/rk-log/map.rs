//! Files as bytes: memory maps that survive the file being cut short, and copies of what a server
//! may be writing to.
//!
//! A page of a map that lies behind the end of its file raises SIGBUS when it is touched. Checking
//! lengths before is never enough: the file can shrink between check and touch. So the signal is
//! caught: the rest of the map becomes zeros, the file is remembered, and the program says at its
//! end which files shrank (`shrunk`).

use std::fs::File;
use std::io::{self, Read};
use std::path::{Path, PathBuf};
use std::ptr;
use std::sync::Once;
use std::sync::atomic::{AtomicBool, AtomicPtr, Ordering};

use bytes::Bytes;
use memmap2::{Advice, Mmap};

/// A map that the signal handler knows. Never freed: the handler may look at any time.
struct Range {
    start: usize,
    len: usize,
    path: PathBuf,
    shrunk: AtomicBool,
    next: *const Self,
}

static RANGES: AtomicPtr<Range> = AtomicPtr::new(ptr::null_mut());

/// The file's bytes as a memory map, as long as it is now. For files that are complete: closed
/// segments and snapshots under their final names, which no server ever changes.
pub(crate) fn map(path: &Path) -> io::Result<Bytes> {
    static HANDLER: Once = Once::new();
    HANDLER.call_once(install);
    let file = File::open(path)?;
    if file.metadata()?.len() == 0 {
        return Ok(Bytes::new());
    }
    // SAFETY: servers only replace or remove such files, which leaves the map as it was. If
    // anything else writes to the file, the bytes seen change between checks, which the decoders
    // withstand; if it shrinks, the handler puts zeros in place of what is gone.
    let map = unsafe { Mmap::map(&file)? };
    // Advice alone; reading works without.
    let _unheeded = map.advise(Advice::Sequential);
    register(&map, path);
    Ok(Bytes::from_owner(map))
}

/// The file's bytes as a copy: what a server may be writing to must not change under a decoder.
pub(crate) fn copy(path: &Path) -> io::Result<Bytes> {
    let mut file = File::open(path)?;
    let len = usize::try_from(file.metadata()?.len()).map_err(io::Error::other)?;
    let mut bytes = Vec::with_capacity(len);
    file.by_ref().take(len as u64).read_to_end(&mut bytes)?;
    Ok(Bytes::from(bytes))
}

/// The files that became shorter while they were read.
pub(crate) fn shrunk() -> Vec<PathBuf> {
    let mut found = Vec::new();
    let mut at = RANGES.load(Ordering::Acquire).cast_const();
    // SAFETY: ranges are leaked, so every pointer in the list stays valid.
    while let Some(range) = unsafe { at.as_ref() } {
        if range.shrunk.load(Ordering::Relaxed) {
            found.push(range.path.clone());
        }
        at = range.next;
    }
    found
}

fn register(map: &Mmap, path: &Path) {
    let next = RANGES.load(Ordering::Relaxed).cast_const();
    let (start, len) = (map.as_ptr() as usize, map.len());
    let shrunk = AtomicBool::new(false);
    let range = Box::leak(Box::new(Range { start, len, path: path.to_owned(), shrunk, next }));
    RANGES.store(range, Ordering::Release);
}

fn install() {
    let handler: extern "C" fn(libc::c_int, *mut libc::siginfo_t, *mut libc::c_void) = on_sigbus;
    // SAFETY: the action is zeroed and filled as sigaction asks; the handler only makes system
    // calls that are safe in signal handlers and reads memory that is never freed.
    unsafe {
        let mut action: libc::sigaction = std::mem::zeroed();
        action.sa_sigaction = handler as libc::sighandler_t;
        action.sa_flags = libc::SA_SIGINFO;
        libc::sigaction(libc::SIGBUS, &raw const action, ptr::null_mut());
    }
}

/// Puts zeros in place of the rest of the map that was touched; any other SIGBUS ends the program
/// as it would have without this handler.
extern "C" fn on_sigbus(
    signal: libc::c_int,
    info: *mut libc::siginfo_t,
    _context: *mut libc::c_void,
) {
    // SAFETY: the kernel passes a valid siginfo; ranges are leaked; the mapping replaced is ours
    // and stays readable.
    unsafe {
        let touched = (*info).si_addr() as usize;
        let mut at = RANGES.load(Ordering::Acquire).cast_const();
        while let Some(range) = at.as_ref() {
            let end = range.start + range.len;
            if (range.start..end).contains(&touched) {
                let page_bytes = libc::sysconf(libc::_SC_PAGESIZE) as usize;
                let page = touched / page_bytes * page_bytes;
                let flags = libc::MAP_PRIVATE | libc::MAP_ANONYMOUS | libc::MAP_FIXED;
                let place = page as *mut libc::c_void;
                let zeros = libc::mmap(place, end - page, libc::PROT_READ, flags, -1, 0);
                if zeros != libc::MAP_FAILED {
                    range.shrunk.store(true, Ordering::Relaxed);
                    return;
                }
            }
            at = range.next;
        }
        libc::signal(signal, libc::SIG_DFL);
    }
}
