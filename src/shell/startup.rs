//! What must be there before anything else: io_uring, locked memory, entropy. What is missing is
//! said in one line, with how to get it.

use std::io;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::time::Duration;

use signal_hook::consts::{SIGINT, SIGTERM};

use super::{Settings, StartError, descriptors};

/// glommio panics below this.
const LOCKED_BYTES_MIN: u64 = 512 * 1024;

/// As process 1 of a container a server would hear nothing of SIGTERM and SIGINT before it serves:
/// the kernel passes over signals for which process 1 has no handler. They end it while the value
/// is true, with the exit codes of a JVM.
pub(super) fn heed_signals() -> Result<Arc<AtomicBool>, StartError> {
    let starting = Arc::new(AtomicBool::new(true));
    if std::process::id() == 1 {
        for (signal, code) in [(SIGTERM, 143), (SIGINT, 130)] {
            signal_hook::flag::register_conditional_shutdown(signal, code, Arc::clone(&starting))
                .map_err(|error| StartError::Machine(format!("signals: {error}")))?;
        }
    }
    Ok(starting)
}

/// Checks the machine; bytes of registered memory that the executor may have.
pub(super) fn check(settings: &Settings) -> Result<usize, StartError> {
    check_io_uring()?;
    descriptors::raise_limit();
    let limit = locked_memory_limit()?;
    if limit < LOCKED_BYTES_MIN {
        return Err(StartError::Machine(format!(
            "only {} KiB of memory may be locked and 512 KiB are needed: raise the limit with \
             `ulimit -l 8192` or LimitMEMLOCK=8M",
            limit / 1024
        )));
    }
    Ok(settings.io_memory_bytes)
}

fn check_io_uring() -> Result<(), StartError> {
    // Room for struct io_uring_params; all zeros asks for nothing special.
    let mut params = [0_u64; 15];
    // SAFETY: the kernel reads and writes 120 bytes behind the pointer, which are there.
    let fd = unsafe { libc::syscall(libc::SYS_io_uring_setup, 1_u32, params.as_mut_ptr()) };
    if fd < 0 {
        let error = io::Error::last_os_error();
        let how = match error.raw_os_error() {
            Some(libc::ENOSYS) => "the kernel has none; Linux 5.8 or later is needed",
            Some(libc::EPERM | libc::EACCES) => {
                "it is forbidden here; allow the system calls io_uring_setup, io_uring_enter and \
                 io_uring_register in the container's seccomp profile, and see sysctl \
                 kernel.io_uring_disabled"
            }
            Some(libc::ENOMEM) => "no memory may be locked; raise `ulimit -l` to 8192",
            _ => "see the error",
        };
        return Err(StartError::Machine(format!("io_uring cannot be used ({error}): {how}")));
    }
    let fd = i32::try_from(fd).expect("descriptors are 32 bits");
    // SAFETY: the descriptor was just made and nobody else has it.
    unsafe { libc::close(fd) };
    Ok(())
}

fn locked_memory_limit() -> Result<u64, StartError> {
    let mut limit = libc::rlimit { rlim_cur: 0, rlim_max: 0 };
    // SAFETY: the pointer is to a whole rlimit.
    if unsafe { libc::getrlimit(libc::RLIMIT_MEMLOCK, &raw mut limit) } != 0 {
        let error = io::Error::last_os_error();
        return Err(StartError::Machine(format!("RLIMIT_MEMLOCK cannot be read: {error}")));
    }
    Ok(limit.rlim_cur)
}

/// Unpredictable bits: log nonces depend on them.
pub(super) fn entropy() -> u64 {
    let mut bytes = [0_u8; 8];
    // SAFETY: the pointer is to as many bytes as are asked for.
    let got = unsafe { libc::getrandom(bytes.as_mut_ptr().cast(), bytes.len(), 0) };
    assert_eq!(got, 8, "the kernel gives up to 256 bytes at once");
    u64::from_ne_bytes(bytes)
}

/// The first sleep of an executor takes 30 to 80 ms; it is spent before anybody waits.
pub(super) async fn warm_up() {
    glommio::timer::sleep(Duration::from_micros(1)).await;
}
