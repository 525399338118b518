//! How many shards there are, and which core each is pinned to.
//!
//! Servers that share a machine must not pin their shards to the same cores: a core is claimed by
//! an abstract socket of its name, which is gone with the process. It is seen within one network
//! namespace.

use std::os::linux::net::SocketAddrExt;
use std::os::unix::net::{SocketAddr, UnixListener};

use super::Settings;
use crate::config::Pin;
use crate::limits;

/// Where shards run.
pub(super) struct Placements {
    /// The core of each shard; `None` leaves its executor free.
    pub(super) cores: Vec<Option<usize>>,
    /// While they live, no other server takes these cores by itself.
    _claims: Vec<UnixListener>,
}

/// Chooses the number of shards and their cores.
pub(super) fn choose(settings: &Settings) -> Placements {
    let mut claims = Vec::new();
    let cores = place(settings.shards, &settings.pin, &cores(), |core| {
        let name = format!("ringkeeper-core-{core}");
        let claim =
            SocketAddr::from_abstract_name(name).and_then(|it| UnixListener::bind_addr(&it));
        claims.extend(claim.ok());
        claims.len()
    });
    if cores.iter().all(Option::is_none) {
        claims.clear();
    }
    Placements { cores, _claims: claims }
}

/// `claim` tries to claim a core, and tells how many have been.
fn place(
    shards: u16,
    pin: &Pin,
    cores: &[usize],
    mut claim: impl FnMut(usize) -> usize,
) -> Vec<Option<usize>> {
    let shards = match shards {
        0 => (cores.len() / 2).clamp(1, usize::from(limits::SHARDS_DEFAULT_MAX)),
        given => usize::from(given),
    };
    match pin {
        Pin::Auto => claimed(shards, cores, &mut claim),
        Pin::Off => vec![None; shards],
        Pin::Cores(list) => (0..shards).map(|at| list.get(at).copied()).collect(),
    }
}

/// Cores of the shards' own, the last ones first: interrupts tend to the first. With a single one
/// left over, all else would have to share that one, so that free shards do better.
fn claimed(
    shards: usize,
    cores: &[usize],
    claim: &mut impl FnMut(usize) -> usize,
) -> Vec<Option<usize>> {
    let mut own = Vec::new();
    if cores.len().checked_sub(shards).is_some_and(|rest| rest != 1) {
        for core in cores.iter().rev().copied() {
            if own.len() == shards {
                break;
            }
            if claim(core) == own.len() + 1 {
                own.push(Some(core));
            }
        }
    }
    if own.len() == shards { own } else { vec![None; shards] }
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

    fn placed(shards: u16, pin: &Pin, cores: &[usize], taken: &[usize]) -> Vec<Option<usize>> {
        let mut claims = 0;
        place(shards, pin, cores, |core| {
            claims += usize::from(!taken.contains(&core));
            claims
        })
    }

    #[test]
    fn shards_get_cores_of_their_own_where_there_are_enough() {
        let many: Vec<usize> = (0..16).collect();
        for (shards, pin, cores, expected) in [
            (0, Pin::Auto, &[2, 3][..], vec![None]),
            (0, Pin::Auto, &[2, 3, 4], vec![Some(4)]),
            (0, Pin::Auto, &[5], vec![Some(5)]),
            (0, Pin::Auto, &many, vec![Some(15), Some(14), Some(13), Some(12)]),
            (0, Pin::Auto, &[], vec![None]),
            (2, Pin::Auto, &[0, 1], vec![Some(1), Some(0)]),
            (4, Pin::Auto, &[0, 1], vec![None; 4]),
            (2, Pin::Off, &[0, 1], vec![None; 2]),
            (3, Pin::Cores(vec![7, 1]), &[0, 1], vec![Some(7), Some(1), None]),
        ] {
            assert_eq!(placed(shards, &pin, cores, &[]), expected, "{shards} {pin:?} {cores:?}");
        }
    }

    #[test]
    fn cores_of_other_servers_are_left_to_them() {
        let cores = [0, 1, 2, 3];
        assert_eq!(placed(2, &Pin::Auto, &cores, &[3]), [Some(2), Some(1)]);
        assert_eq!(placed(2, &Pin::Auto, &cores, &[3, 1, 0]), [None, None]);
        assert_eq!(placed(2, &Pin::Cores(vec![3, 1]), &cores, &[3, 1]), [Some(3), Some(1)]);
    }
}
