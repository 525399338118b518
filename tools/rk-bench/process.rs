//! Processor time and memory of a process, from procfs; and pinning of this one.

use std::fs;
use std::io;
use std::time::Duration;

/// What procfs tells of a process at one moment.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Usage {
    /// Processor time of all its threads, user and system.
    pub(crate) cpu: Duration,
    /// Resident memory, bytes.
    pub(crate) resident: u64,
}

/// Reads it.
pub(crate) fn usage(pid: u32) -> Result<Usage, String> {
    let path = format!("/proc/{pid}/stat");
    let text = fs::read_to_string(&path).map_err(|error| format!("{path}: {error}"))?;
    // The name in parentheses may hold spaces.
    let rest = text.rsplit_once(')').map_or("", |(_, rest)| rest);
    let fields: Vec<&str> = rest.split_whitespace().collect();
    let number = |at: usize| -> Result<u64, String> {
        let field = fields.get(at).ok_or_else(|| format!("{path}: too few fields"))?;
        field.parse().map_err(|_| format!("{path}: {field:?} is not a number"))
    };
    // SAFETY: the calls have no preconditions.
    let (ticks, page) =
        unsafe { (libc::sysconf(libc::_SC_CLK_TCK), libc::sysconf(libc::_SC_PAGESIZE)) };
    let ticks = u64::try_from(ticks).unwrap_or(100).max(1);
    let page = u64::try_from(page).unwrap_or(4096);
    let cpu = Duration::from_millis((number(11)? + number(12)?) * 1000 / ticks);
    Ok(Usage { cpu, resident: number(21)? * page })
}

/// Binds this process to one core.
pub(crate) fn pin(cpu: usize) -> io::Result<()> {
    if 1024 <= cpu {
        return Err(io::Error::from(io::ErrorKind::InvalidInput));
    }
    // SAFETY: an all-zero set is a valid one, and the call reads exactly its size.
    let done = unsafe {
        let mut set: libc::cpu_set_t = std::mem::zeroed();
        libc::CPU_SET(cpu, &mut set);
        libc::sched_setaffinity(0, size_of::<libc::cpu_set_t>(), &raw const set)
    };
    if done == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}
