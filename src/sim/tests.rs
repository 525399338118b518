//! The simulator finds nothing, does the same thing twice, and finds every planted bug.

use super::{Plant, Report, run};

#[test]
fn seeds_find_nothing() {
    let mut all = Report::default();
    for seed in 0..60 {
        let report = run(seed, Plant::None).unwrap_or_else(|failure| {
            panic!("rk-sim --seed {seed}: {failure}");
        });
        all.kills += report.kills;
        all.power_cuts += report.power_cuts;
        all.misdirected += report.misdirected;
        all.stalls += report.stalls;
    }
    assert!(0 < all.kills && 0 < all.power_cuts && 0 < all.misdirected, "{all:?}");
    assert!(0 < all.stalls, "{all:?}");
}

#[test]
fn the_same_seed_does_the_same() {
    for seed in 0..5 {
        assert_eq!(run(seed, Plant::None), run(seed, Plant::None));
    }
    assert_ne!(run(1, Plant::None), run(2, Plant::None));
}

/// Seeds within which each planted bug must be found.
const SEEDS_MAX: u64 = 10;

#[test]
fn planted_bugs_are_found() {
    for plant in Plant::ALL {
        let found = (0..SEEDS_MAX).find(|seed| run(*seed, plant).is_err());
        assert!(found.is_some(), "{plant:?} is not found in {SEEDS_MAX} seeds");
    }
}
