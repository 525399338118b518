//! Every decoder on mutated bytes: no panic, no allocation that received bytes do not back, no
//! hang. The same mutations each time (`src/docs/testing.md`).

/// Counts what a target allocates.
mod allocation;
/// The driver: mutates seeds and runs targets.
mod drive;
/// What is run.
mod targets;

#[global_allocator]
static ALLOCATOR: allocation::Counting = allocation::Counting;

#[test]
fn the_wire() {
    drive::run(targets::wire::TARGETS);
}

#[test]
fn other_servers() {
    drive::run(targets::peers::TARGETS);
}

#[test]
fn files() {
    drive::run(targets::files::TARGETS);
}

#[test]
fn texts() {
    drive::run(targets::texts::TARGETS);
}

#[test]
fn the_driver_notices_what_a_target_must_not_do() {
    drive::notices();
}
