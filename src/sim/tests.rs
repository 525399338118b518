//! The simulator finds nothing, does the same thing twice, and finds every planted bug.

use super::{Plant, run};

#[test]
fn seeds_find_nothing() {
    for seed in 0..60 {
        let report = run(seed, Plant::None).unwrap_or_else(|failure| {
            panic!("rk-sim --seed {seed}: {failure}");
        });
        assert!(0 < report.power_cuts);
    }
}

#[test]
fn the_same_seed_does_the_same() {
    for seed in 0..10 {
        assert_eq!(run(seed, Plant::None), run(seed, Plant::None));
    }
    assert_ne!(run(1, Plant::None), run(2, Plant::None));
}

/// Seeds within which each planted bug must be found.
const SEEDS_MAX: u64 = 50;

#[test]
fn planted_bugs_are_found() {
    for plant in [Plant::FlushSkipped, Plant::AckBeforeFlush, Plant::WatchAfterReply] {
        let found = (0..SEEDS_MAX).find(|seed| run(*seed, plant).is_err());
        assert!(found.is_some(), "{plant:?} is not found in {SEEDS_MAX} seeds");
    }
}
