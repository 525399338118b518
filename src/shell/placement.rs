//! How many shards there are, and which core each is pinned to.

use super::Settings;
use crate::config::Pin;
use crate::limits;

/// The core of each shard; `None` leaves its executor free.
pub(super) fn choose(settings: &Settings) -> Vec<Option<usize>> {
    place(settings.shards, &settings.pin, &cores())
}

fn place(shards: u16, pin: &Pin, cores: &[usize]) -> Vec<Option<usize>> {
    let shards = match shards {
        0 => cores.len().clamp(1, usize::from(limits::SHARDS_DEFAULT_MAX)),
        given => usize::from(given),
    };
    let place = |at: usize| match pin {
        Pin::Auto if shards <= cores.len() => cores.get(at).copied(),
        Pin::Auto | Pin::Off => None,
        Pin::Cores(list) => list.get(at).copied(),
    };
    (0..shards).map(place).collect()
}

/// The cores that this process may use, in order.
fn cores() -> Vec<usize> {
    // SAFETY: an all-zero set is a valid one, and the call writes at most its size.
    let (set, got) = unsafe {
        let mut set: libc::cpu_set_t = std::mem::zeroed();
        let got = libc::sched_getaffinity(0, size_of::<libc::cpu_set_t>(), &raw mut set);
        (set, got)
    };
    if got != 0 {
        return Vec::new();
    }
    // SAFETY: the set is whole, and the core's number is within it.
    (0..libc::CPU_SETSIZE as usize).filter(|core| unsafe { libc::CPU_ISSET(*core, &set) }).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shards_get_cores_of_their_own_where_there_are_enough() {
        for (shards, pin, cores, expected) in [
            (0, Pin::Auto, vec![2, 3], vec![Some(2), Some(3)]),
            (0, Pin::Auto, vec![5], vec![Some(5)]),
            (0, Pin::Auto, (0..16).collect(), vec![Some(0), Some(1), Some(2), Some(3)]),
            (0, Pin::Auto, vec![], vec![None]),
            (4, Pin::Auto, vec![0, 1], vec![None; 4]),
            (2, Pin::Off, vec![0, 1], vec![None; 2]),
            (3, Pin::Cores(vec![7, 1]), vec![0, 1], vec![Some(7), Some(1), None]),
        ] {
            assert_eq!(place(shards, &pin, &cores), expected, "{shards} {pin:?} {cores:?}");
        }
    }
}
