//! `rk-sim`: runs simulation seeds on all cores, stops at the first that finds something, and
//! prints the command that replays it.

use std::process::ExitCode;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread;

use clap::Parser;
use ringkeeper::sim::{Failure, Plant, Report, run};

/// Runs simulation seeds of the server.
#[derive(Parser)]
struct Arguments {
    /// How many seeds to run.
    #[arg(long, default_value_t = 1000)]
    seeds: u64,
    /// The first of them.
    #[arg(long, default_value_t = 0)]
    start: u64,
    /// Run only this seed and say what it did.
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
        tracing_subscriber::fmt().with_max_level(tracing::Level::TRACE).init();
    }
    if arguments.ensemble {
        return ensembles(&arguments);
    }
    let (first, count) = match arguments.seed {
        Some(seed) => (seed, 1),
        None => (arguments.start, arguments.seeds),
    };
    let next = AtomicU64::new(first);
    let failed = AtomicBool::new(false);
    let outcome: Mutex<(Report, Option<(u64, Failure)>)> = Mutex::default();
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
    println!(
        "requests answered {}, kills {}, power cuts {}, failed operations {}, \
         misdirected writes {}, trace {:08x}",
        total.answered,
        total.kills,
        total.power_cuts,
        total.failures,
        total.misdirected,
        total.trace
    );
    match found {
        None => {
            println!("{count} seeds found nothing");
            ExitCode::SUCCESS
        }
        Some((seed, failure)) => {
            println!("seed {seed}: {failure}\nreplay: cargo run --bin rk-sim -- --seed {seed}");
            ExitCode::FAILURE
        }
    }
}

fn add(total: &mut Report, report: &Report) {
    total.trace ^= report.trace;
    total.answered += report.answered;
    total.kills += report.kills;
    total.power_cuts += report.power_cuts;
    total.failures += report.failures;
    total.misdirected += report.misdirected;
}

fn ensembles(arguments: &Arguments) -> ExitCode {
    let (first, count) = match arguments.seed {
        Some(seed) => (seed, 1),
        None => (arguments.start, arguments.seeds),
    };
    for seed in first..first + count {
        match ringkeeper::sim::ensemble::run(seed) {
            Ok(report) => println!("{seed}: {report:?}"),
            Err(failure) => {
                println!("seed {seed}: {failure}");
                return ExitCode::FAILURE;
            }
        }
    }
    ExitCode::SUCCESS
}
