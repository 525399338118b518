//! Ensembles of the simulator find nothing, do the same thing twice, and find planted bugs.

use std::collections::BTreeSet;

use super::{EnsembleReport, EnsembleRun, Fault, World, run};
use crate::config;
use crate::server::{Clock, Server};
use crate::sim::Plant;

#[test]
fn ensembles_find_nothing() {
    let mut all = EnsembleReport::default();
    let mut seed = 0;
    // What is rare has happened by then.
    let is_rare = |all: &EnsembleReport| {
        [all.read_only, all.truncations, all.renewals, all.rollovers, all.reconfigurations]
            .contains(&0)
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
    assert!(0 < all.renewals && 0 < all.rollovers && 0 < all.reconfigurations, "{all:?}");
}

#[test]
fn the_same_seed_does_the_same() {
    let with = EnsembleRun::default();
    assert_eq!(run(3, &with), run(3, &with));
}

#[test]
fn a_start_keeps_a_configuration_that_is_later_than_its_files() {
    let mut world = World::new(1, &EnsembleRun::default());
    // The last is an operator's list: it is in force until the later one is heard of again.
    for (version, adopts) in [(3, true), (3, false), (0, true)] {
        let mut told = world.told_by_files(0).unwrap().unwrap();
        told.configs.committed.version = version;
        told.configs.last_seen.version = version;
        let mut later = told.configs.committed.clone();
        later.version = 7;
        let shown = if adopts { later.clone() } else { told.configs.committed.clone() };
        let mut recovered = world.recover(0, None).unwrap().unwrap();
        recovered.tree.set_config(&config::ensemble::text(&later), 7);
        let mut options = world.options(told.clone(), told.own());
        options.ensemble.as_mut().unwrap().adopts_configs = adopts;
        let (server, _) = Server::new(options, recovered, 0, 1, Clock::default());
        let shown = config::ensemble::text(&shown);
        assert_eq!(server.tree().config(), Some(shown.as_bytes()), "{version} {adopts}");
    }
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

/// Bugs that take more seeds, and one that finds each: it is tried before all others.
const FOUND_BY: [(Plant, u64); 2] = [(Plant::ConfigsForgotten, 362), (Plant::AckInflated, 984)];

#[test]
fn planted_bugs_of_ensembles_are_found() {
    let not_found = Plant::OF_ENSEMBLES.into_iter().filter(|plant| {
        // A quorum must forget the same txn, members must change: what else is done only takes the
        // time for that.
        let without = match plant {
            Plant::LossForgotten => {
                Fault::ALL.into_iter().filter(|fault| !LOSING.contains(fault)).collect()
            }
            plant if plant.needs_changes() => BTreeSet::new(),
            _ => BTreeSet::from([Fault::Reconfiguration]),
        };
        let with = EnsembleRun { plant: *plant, without, ..EnsembleRun::default() };
        // A planted bug may also show as an assertion of the server's that fails.
        let finds = |seed: &u64| {
            let seed = *seed;
            std::panic::catch_unwind(|| run(seed, &with)).map_or(true, |ran| ran.is_err())
        };
        let known = FOUND_BY.into_iter().filter_map(|(it, seed)| (it == *plant).then_some(seed));
        let found = known.chain(0..SEEDS_MAX).find(finds);
        println!("{plant:?}: {found:?}");
        found.is_none()
    });
    let not_found: Vec<Plant> = not_found.collect();
    assert!(not_found.is_empty(), "{not_found:?} are not found in {SEEDS_MAX} seeds");
}
