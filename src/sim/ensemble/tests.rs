//! Ensembles of the simulator find nothing, and do the same thing twice.

use super::{EnsembleReport, run};

#[test]
fn ensembles_find_nothing() {
    let mut all = EnsembleReport::default();
    for seed in 0..12 {
        let report = run(seed).unwrap_or_else(|failure| panic!("seed {seed}: {failure}"));
        all.kills += report.kills;
        all.power_cuts += report.power_cuts;
        all.partitions += report.partitions;
        all.leaders += report.leaders;
        all.truncations += report.truncations;
        all.answered += report.answered;
        all.snapshots += report.snapshots;
    }
    println!("{all:?}");
    assert!(0 < all.kills && 0 < all.power_cuts && 0 < all.partitions, "{all:?}");
    assert!(0 < all.snapshots && 0 < all.truncations && 0 < all.answered, "{all:?}");
}
