//! Ensembles of the simulator find nothing, do the same thing twice, and find planted bugs.

use std::collections::BTreeSet;

use super::{EnsembleReport, EnsembleRun, Fault, run};
use crate::sim::Plant;

#[test]
fn ensembles_find_nothing() {
    let mut all = EnsembleReport::default();
    let mut seed = 0;
    // What is rare has happened by then.
    let is_rare = |all: &EnsembleReport| {
        [all.read_only, all.truncations, all.renewals, all.rollovers].contains(&0)
    };
    while seed < 12 || (seed < 60 && is_rare(&all)) {
        let report = run(seed, &EnsembleRun::default()).unwrap_or_else(|failure| {
            panic!("rk-sim --ensemble --seed {seed}: {failure}");
        });
        all.add(&report);
        seed += 1;
    }
    assert!(0 < all.upgrades && 0 < all.read_only, "{all:?}");
    assert!(0 < all.snapshots && 0 < all.truncations && 0 < all.answered, "{all:?}");
    assert!(0 < all.log_reads && 0 < all.pauses && 0 < all.planned_stops, "{all:?}");
    assert!(0 < all.renewals && 0 < all.rollovers, "{all:?}");
}

#[test]
fn the_same_seed_does_the_same() {
    let with = EnsembleRun::default();
    assert_eq!(run(3, &with), run(3, &with));
}

/// Seeds within which each planted bug must be found.
const SEEDS_MAX: u64 = 240;

/// Faults that may leave those who have lost something without those who have it.
const LOSING: [Fault; 10] = [
    Fault::Kill,
    Fault::PowerCut,
    Fault::Blackout,
    Fault::Alone,
    Fault::Halves,
    Fault::OneWay,
    Fault::Clogged,
    Fault::Pause,
    Fault::BitRot,
    Fault::LostDisk,
];

#[test]
fn planted_bugs_of_ensembles_are_found() {
    for plant in Plant::OF_ENSEMBLES {
        // A quorum must forget the same txn: other faults only take the time for that.
        let without = match plant {
            Plant::LossForgotten => {
                Fault::ALL.into_iter().filter(|fault| !LOSING.contains(fault)).collect()
            }
            _ => BTreeSet::new(),
        };
        let with = EnsembleRun { plant, without, ..EnsembleRun::default() };
        // A planted bug may also show as an assertion of the server's that fails.
        let finds = |seed: &u64| {
            let seed = *seed;
            std::panic::catch_unwind(|| run(seed, &with)).map_or(true, |ran| ran.is_err())
        };
        let found = (0..SEEDS_MAX).find(finds);
        println!("{plant:?}: {found:?}");
        assert!(found.is_some(), "{plant:?} is not found in {SEEDS_MAX} seeds");
    }
}
