//! `rk-sim`: runs simulation seeds on all cores, stops at the first that finds something, makes
//! what it does smaller unless it was the one seed asked for, and prints the command that replays
//! it.

use std::collections::BTreeMap;
use std::fmt::Debug;
use std::fs::OpenOptions;
use std::io::Write;
use std::panic;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode};
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread;

use clap::Parser;
use ringkeeper::base::Duration;
use ringkeeper::sim::ensemble::{self, EnsembleReport, EnsembleRun, Fault};
use ringkeeper::sim::{self, Plant, Report};

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

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
    /// Faults that are not made in ensembles, by their names in the list that a run prints.
    #[arg(long, value_delimiter = ',', value_parser = fault)]
    without: Vec<Fault>,
    /// For how many milliseconds of virtual time faults are made in ensembles.
    #[arg(long)]
    faults_ms: Option<u64>,
    /// Small histories: each client sends only so many simple requests, and the second oracle
    /// judges, too.
    #[arg(long)]
    requests: Option<u64>,
    /// Put this bug in, by its name in `sim::Plant`: some seed must find it.
    #[arg(long, default_value = "None", value_parser = plant)]
    plant: Plant,
    /// Append a line with the commit, the seeds and the result to this file, and say how many seeds
    /// it tells of that found nothing.
    #[arg(long)]
    record: Option<PathBuf>,
}

/// Seeds between two lines of progress.
const PROGRESS_EVERY: u64 = 500;
/// In so many seeds every kind of fault must have been made.
const SEEDS_WITH_ALL_FAULTS: u64 = 200;

fn fault(name: &str) -> Result<Fault, String> {
    let found = Fault::ALL.into_iter().find(|fault| fault.to_string() == name);
    found.ok_or_else(|| {
        let all: Vec<String> = Fault::ALL.iter().map(Fault::to_string).collect();
        format!("no such fault; there are {}", all.join(", "))
    })
}

fn plant(name: &str) -> Result<Plant, String> {
    let mut all = Plant::ALL.into_iter().chain(Plant::OF_ENSEMBLES).chain([Plant::None]);
    let found = all.find(|plant| format!("{plant:?}") == name);
    found.ok_or_else(|| "no such planted bug".to_owned())
}

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    if arguments.requests.is_some() && arguments.plant != Plant::None && !arguments.ensemble {
        eprintln!("--plant has no effect on one server with --requests: leave one out");
        return ExitCode::from(2);
    }
    if std::env::var_os("RUST_LOG").is_some() {
        let filter = tracing_subscriber::EnvFilter::from_default_env();
        tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr).init();
    }
    let outcome = match arguments.ensemble {
        true => ensembles(&arguments),
        false => {
            let run = |seed| match arguments.requests {
                Some(requests) => sim::run_small(seed, requests),
                None => sim::run(seed, arguments.plant),
            };
            let found = all(&arguments, &run, Report::add);
            let missing = |report: &Report| {
                if arguments.requests.is_some() {
                    return Vec::new();
                }
                let kinds = [
                    ("kills", report.kills),
                    ("power_cuts", report.power_cuts),
                    ("failures", report.failures),
                    ("misdirected", report.misdirected),
                ];
                kinds.into_iter().filter(|(_, count)| *count == 0).map(|(kind, _)| kind).collect()
            };
            let others = others(&arguments);
            found.finish(&arguments, missing, |seed| format!("--seed {seed}{others}"))
        }
    };
    if let Some(file) = &arguments.record
        && let Err(error) = record(file, &arguments, &outcome)
    {
        eprintln!("{}: {error}", file.display());
        return ExitCode::FAILURE;
    }
    match outcome {
        Ok(line) => {
            println!("{line}");
            ExitCode::SUCCESS
        }
        Err(line) => {
            println!("{line}");
            ExitCode::FAILURE
        }
    }
}

fn ensembles(arguments: &Arguments) -> Result<String, String> {
    let mut with = EnsembleRun {
        without: arguments.without.iter().copied().collect(),
        requests: arguments.requests,
        plant: arguments.plant,
        ..EnsembleRun::default()
    };
    if let Some(ms) = arguments.faults_ms {
        with.faults_for = Duration::from_millis(ms);
    }
    let run = |seed| ensemble::run(seed, &with);
    let found = all(arguments, &run, EnsembleReport::add);
    let missing = |report: &EnsembleReport| {
        let made = |fault: &Fault| report.injected.contains_key(fault);
        let promised = Fault::ALL.into_iter().filter(|fault| !with.without.contains(fault));
        promised.filter(|fault| !made(fault)).map(|fault| fault.to_string()).collect()
    };
    found.finish(arguments, missing, |seed| {
        // A planted bug is known, and a replay is one run.
        let is_new = with.plant == Plant::None && arguments.seed.is_none();
        let with = if is_new { smaller(seed, with.clone()) } else { with.clone() };
        let EnsembleRun { without, faults_for, .. } = with;
        let names: Vec<String> = without.iter().map(Fault::to_string).collect();
        let without = match names.is_empty() {
            true => String::new(),
            false => format!(" --without {}", names.join(",")),
        };
        let ms = faults_for.0 / Duration::from_millis(1).0;
        let others = others(arguments);
        format!("--ensemble --seed {seed} --faults-ms {ms}{without}{others}")
    })
}

/// What a replay needs besides.
fn others(arguments: &Arguments) -> String {
    let requests = arguments.requests.map(|requests| format!(" --requests {requests}"));
    let plant = (arguments.plant != Plant::None).then(|| format!(" --plant {:?}", arguments.plant));
    [requests, plant].into_iter().flatten().collect()
}

/// A run that still finds something, with as few kinds of faults and as little time as can be.
fn smaller(seed: u64, mut run: EnsembleRun) -> EnsembleRun {
    let finds = |run: &EnsembleRun| ran(|| ensemble::run(seed, run)).is_err();
    for fault in Fault::ALL {
        let mut fewer = run.clone();
        if fewer.without.insert(fault) && finds(&fewer) {
            run = fewer;
        }
    }
    let mut step = run.faults_for.0 / 2;
    while Duration::from_millis(10).0 < step {
        let mut shorter = run.clone();
        // Whole milliseconds, which is what the command that replays it says.
        shorter.faults_for =
            Duration::from_millis((run.faults_for.0 - step) / Duration::from_millis(1).0);
        if finds(&shorter) {
            run = shorter;
        }
        step /= 2;
    }
    run
}

/// Runs a seed; an assertion of the server's that fails is something found, too.
fn ran<R>(run: impl FnOnce() -> Result<R, sim::Failure>) -> Result<R, String> {
    match panic::catch_unwind(panic::AssertUnwindSafe(run)) {
        Ok(result) => result.map_err(|failure| failure.to_string()),
        Err(_) => Err("an assertion failed (see above)".to_owned()),
    }
}

/// What all seeds did, and the first that found something.
#[derive(Default)]
struct Found<R> {
    report: R,
    failure: Option<(u64, String)>,
}

impl<R: Debug> Found<R> {
    /// Says what was done, and how to do again what found something.
    fn finish<K: AsRef<str>>(
        self,
        arguments: &Arguments,
        missing: impl FnOnce(&R) -> Vec<K>,
        smallest: impl FnOnce(u64) -> String,
    ) -> Result<String, String> {
        println!("{:#?}", self.report);
        if let Some((seed, failure)) = self.failure {
            let replay = smallest(seed);
            let replay = format!("cargo run --bin rk-sim -- {replay}");
            return Err(format!("seed {seed}: {failure}\nreplay: {replay}"));
        }
        let missing = missing(&self.report);
        if SEEDS_WITH_ALL_FAULTS <= arguments.seeds
            && arguments.seed.is_none()
            && let Some(kind) = missing.first()
        {
            return Err(format!("no fault of the kind {} was made", kind.as_ref()));
        }
        let count = if arguments.seed.is_some() { 1 } else { arguments.seeds };
        Ok(format!("{count} seeds found nothing"))
    }
}

/// Runs the seeds that were asked for, on all cores.
fn all<R: Default + Send>(
    arguments: &Arguments,
    run: &(dyn Fn(u64) -> Result<R, sim::Failure> + Sync),
    add: fn(&mut R, &R),
) -> Found<R> {
    let (first, count) = match arguments.seed {
        Some(seed) => (seed, 1),
        None => (arguments.start, arguments.seeds),
    };
    let next = AtomicU64::new(first);
    let failed = AtomicBool::new(false);
    let outcome: Mutex<Found<R>> = Mutex::default();
    let cores = thread::available_parallelism().map_or(1, std::num::NonZero::get);
    thread::scope(|scope| {
        for _ in 0..cores {
            scope.spawn(|| {
                while !failed.load(Ordering::Relaxed) {
                    let seed = next.fetch_add(1, Ordering::Relaxed);
                    if first + count <= seed {
                        break;
                    }
                    let result = ran(|| run(seed));
                    let mut outcome = outcome.lock().expect("no worker panics while it counts");
                    match result {
                        Ok(report) => add(&mut outcome.report, &report),
                        Err(failure) => {
                            failed.store(true, Ordering::Relaxed);
                            if outcome.failure.as_ref().is_none_or(|(earlier, _)| seed < *earlier) {
                                outcome.failure = Some((seed, failure));
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
    outcome.into_inner().expect("no worker panics while it counts")
}

/// Appends a line: the commit, the kind of seeds, the first of them, how many, what came of them.
/// Then says how many of each kind the file tells of that found nothing.
fn record(
    path: &Path,
    arguments: &Arguments,
    outcome: &Result<String, String>,
) -> std::io::Result<()> {
    let git = |arguments: &[&str]| {
        let output = Command::new("git").args(arguments).output().ok()?;
        output.status.success().then(|| String::from_utf8_lossy(&output.stdout).trim().to_owned())
    };
    let commit = git(&["rev-parse", "--short", "HEAD"]).unwrap_or_else(|| "unknown".to_owned());
    // The file itself changes with every line; it may be outside of what git knows.
    let others = format!(":(exclude){}", path.display());
    let status = ["status", "--porcelain", "--untracked-files=no"];
    let is_changed = git(&[&status[..], &["--", ":(top)", &others]].concat())
        .or_else(|| git(&status))
        .is_none_or(|changes| !changes.is_empty());
    let changed = if is_changed { "+changes" } else { "" };
    let (first, count) = match arguments.seed {
        Some(seed) => (seed, 1),
        None => (arguments.start, arguments.seeds),
    };
    let result = match outcome {
        Ok(_) => NOTHING.to_owned(),
        Err(line) => line.replace(['\n', '\t'], "; "),
    };
    let before = std::fs::read_to_string(path).unwrap_or_default();
    let mut file = OpenOptions::new().create(true).append(true).open(path)?;
    if before.is_empty() {
        writeln!(file, "commit\tkind\tfirst\tcount\tresult")?;
    }
    let line = format!("{commit}{changed}\t{}\t{first}\t{count}\t{result}", kind(arguments));
    writeln!(file, "{line}")?;
    for (kind, count) in totals(&format!("{before}\n{line}")) {
        println!("{}: {count} seeds of the kind {kind:?} found nothing so far", path.display());
    }
    Ok(())
}

/// What a line says of seeds that found nothing.
const NOTHING: &str = "nothing";

/// What seeds of this run do, as they are counted.
fn kind(arguments: &Arguments) -> String {
    let mut kind = if arguments.ensemble { "ensemble" } else { "one server" }.to_owned();
    if let Some(requests) = arguments.requests {
        kind += &format!(", {requests} requests");
    }
    if !arguments.without.is_empty() || arguments.faults_ms.is_some() {
        kind += ", not all faults";
    }
    if arguments.plant != Plant::None {
        kind += &format!(", {:?}", arguments.plant);
    }
    kind
}

/// How many seeds of each kind found nothing.
fn totals(lines: &str) -> BTreeMap<&str, u64> {
    let mut totals = BTreeMap::new();
    for line in lines.lines() {
        let fields: Vec<&str> = line.split('\t').collect();
        if let [_, kind, _, count, NOTHING] = fields[..] {
            *totals.entry(kind).or_default() += count.parse::<u64>().unwrap_or_default();
        }
    }
    totals
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn seeds_that_found_nothing_are_added_up() {
        let lines = "commit\tkind\tfirst\tcount\tresult\n\
            a1\tensemble\t0\t200\tnothing\nb2\tensemble\t200\t50\tseed 207: lost\n\
            b2\tone server\t0\t7\tnothing\nc3+changes\tensemble\t200\t50\tnothing\n";
        assert_eq!(totals(lines), BTreeMap::from([("ensemble", 250), ("one server", 7)]));
    }
}
