//! Small histories: a seed whose clients send a few simple requests each, judged by both oracles.

use super::plant::Plant;
use super::world::{Failure, Report, World};
use super::{replay, search};

/// What the oracles say of one history.
#[derive(Debug)]
pub(super) struct Verdicts {
    /// The replay of the log's order.
    pub(super) replay: Result<(), Failure>,
    /// The search for an order.
    pub(super) search: Result<(), Failure>,
    pub(super) report: Report,
}

/// Runs one seed of one server, each of whose clients sends up to `requests` requests of the kinds
/// that the second oracle knows, to its end, or to the first thing that must not be.
///
/// # Errors
///
/// What was found, by the world itself or by one of the oracles.
pub fn run(seed: u64, requests: u64) -> Result<Report, Failure> {
    let Verdicts { replay, search, report } = verdicts(seed, Plant::None, requests)?;
    replay?;
    search?;
    Ok(report)
}

/// Runs one seed; the error is one that the world itself has found.
pub(super) fn verdicts(seed: u64, plant: Plant, requests: u64) -> Result<Verdicts, Failure> {
    let mut world = World::new(seed, plant)?;
    world.keep_small(requests);
    world.run()?;
    Ok(Verdicts {
        replay: replay::check(&world.history, world.server.tree()),
        search: search::check(&world.history),
        report: world.report,
    })
}
