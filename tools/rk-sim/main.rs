//! `rk-sim`: runs simulation seeds on all cores, stops at the first that finds something, and
//! prints the command that replays it.

use std::fmt::Debug;
use std::process::ExitCode;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread;

use clap::Parser;
use ringkeeper::sim::ensemble::{self, EnsembleReport};
use ringkeeper::sim::{self, Failure, Plant, Report};

/// Runs simulation seeds of one server, or of ensembles.
#[derive(Parser)]
struct Arguments {
    /// How many seeds to run.
    #[arg(long, default_value_t = 1000)]
    seeds: u64,
    /// The first of them.
    #[arg(long, default_value_t = 0)]
    start: u64,
    /// Run only this seed and say what it did; RUST_LOG=info shows what the servers say.
    #[arg(long)]
    seed: Option<u64>,
    /// Ensembles of several servers instead of one server.
    #[arg(long)]
    ensemble: bool,
}

/// Seeds between two lines of progress.
const PROGRESS_EVERY: u64 = 500;

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    if std::env::var_os("RUST_LOG").is_some() {
        tracing_subscriber::fmt().with_writer(std::io::stderr).init();
    }
    match arguments.ensemble {
        true => all(&arguments, ensemble::run, EnsembleReport::add, "--ensemble "),
        false => all(&arguments, sim::run, Report::add, ""),
    }
}

/// Runs the seeds that were asked for, on all cores.
fn all<R: Default + Debug + Send>(
    arguments: &Arguments,
    run: fn(u64, Plant) -> Result<R, Failure>,
    add: fn(&mut R, &R),
    flags: &str,
) -> ExitCode {
    let (first, count) = match arguments.seed {
        Some(seed) => (seed, 1),
        None => (arguments.start, arguments.seeds),
    };
    let next = AtomicU64::new(first);
    let failed = AtomicBool::new(false);
    let outcome: Mutex<(R, Option<(u64, Failure)>)> = Mutex::default();
    let cores = thread::available_parallelism().map_or(1, std::num::NonZero::get);
    thread::scope(|scope| {
        for _ in 0..cores {
            scope.spawn(|| {
                while !failed.load(Ordering::Relaxed) {
                    let seed = next.fetch_add(1, Ordering::Relaxed);
                    if first + count <= seed {
                        break;
                    }
                    let result = run(seed, Plant::None);
                    let mut outcome = outcome.lock().expect("no worker panics while it counts");
                    match result {
                        Ok(report) => add(&mut outcome.0, &report),
                        Err(failure) => {
                            failed.store(true, Ordering::Relaxed);
                            if outcome.1.as_ref().is_none_or(|(earlier, _)| seed < *earlier) {
                                outcome.1 = Some((seed, failure));
                            }
                        }
                    }
                    if (seed - first + 1).is_multiple_of(PROGRESS_EVERY) {
                        eprintln!("{} of {count} seeds", seed - first + 1);
                    }
                }
            });
        }
    });
    let (total, found) = outcome.into_inner().expect("no worker panics while it counts");
    println!("{total:?}");
    match found {
        None => {
            println!("{count} seeds found nothing");
            ExitCode::SUCCESS
        }
        Some((seed, failure)) => {
            println!("seed {seed}: {failure}");
            println!("replay: cargo run --bin rk-sim -- {flags}--seed {seed}");
            ExitCode::FAILURE
        }
    }
}
