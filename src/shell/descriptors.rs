//! Descriptors: as many as the system allows, and some that clients cannot have. A server without
//! any could neither begin a log segment nor hear the other servers.

use std::io;
use std::os::fd::{FromRawFd, OwnedFd, RawFd};

/// Raises the soft limit to the hard one, as the JVM does.
pub(super) fn raise_limit() {
    let limit = limit();
    let raised = libc::rlimit { rlim_cur: limit.rlim_max, ..limit };
    // SAFETY: the pointer is to a whole rlimit.
    if unsafe { libc::setrlimit(libc::RLIMIT_NOFILE, &raw const raised) } != 0 {
        let error = io::Error::last_os_error();
        tracing::warn!(%error, "no more than {} descriptors are to be had", limit.rlim_cur);
    }
}

/// Descriptors in use, and how many there may be; zeros where the system does not tell.
pub(super) fn in_use() -> (u64, u64) {
    // Linux tells the number since 6.2; older ones show no size, and the entries are counted.
    let count = match std::fs::metadata("/proc/self/fd") {
        Ok(dir) if dir.len() != 0 => dir.len(),
        _ => std::fs::read_dir("/proc/self/fd").map_or(0, Iterator::count) as u64,
    };
    (count, limit().rlim_cur)
}

/// Whether whoever was given this descriptor leaves fewer than `reserve` to others. A descriptor's
/// number is the lowest that is free, so that nothing need be counted.
pub(super) fn is_reserved(fd: RawFd, reserve: u64) -> bool {
    is_above(fd, limit().rlim_cur, reserve)
}

/// The same of the next descriptor that will be given.
pub(super) fn next_is_reserved(reserve: u64) -> bool {
    // SAFETY: no memory is passed.
    let fd = unsafe { libc::eventfd(0, libc::EFD_CLOEXEC) };
    if fd < 0 {
        return true;
    }
    // SAFETY: the descriptor was just made and nobody else has it.
    let _closed = unsafe { OwnedFd::from_raw_fd(fd) };
    is_reserved(fd, reserve)
}

/// Where there are few, no more than half of them are kept.
fn is_above(fd: RawFd, limit: u64, reserve: u64) -> bool {
    limit - reserve.min(limit / 2) <= u64::try_from(fd).unwrap_or_default()
}

fn limit() -> libc::rlimit {
    let mut limit = libc::rlimit { rlim_cur: 0, rlim_max: 0 };
    // SAFETY: the pointer is to a whole rlimit.
    let known = unsafe { libc::getrlimit(libc::RLIMIT_NOFILE, &raw mut limit) } == 0;
    assert!(known, "every system that has io_uring has this limit");
    limit
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_descriptors_are_reserved() {
        assert!(!is_above(895, 1024, 128));
        assert!(is_above(896, 1024, 128));
        assert!(!is_above(99, 200, 128), "clients have half");
        assert!(is_above(100, 200, 128));
        assert!(!is_above(RawFd::MAX, libc::RLIM_INFINITY, 128));
        assert!(is_above(3, 0, 128));
    }
}
