//! How long a follower that is behind, or new, takes to be in sync after it has been started, and
//! what an ensemble does meanwhile; and what it does while one of its followers is dead or stopped.
//!
//! The servers are started here, by a command each, as `failover` does. Probes write to the leader
//! one at a time, so that the longest waits of its clients are seen.

use std::fs;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use clap::{Args, ValueEnum};
use hdrhistogram::Histogram;
use serde_json::json;

use ringkeeper::client::{self, Client, requests};
use ringkeeper::model::ErrorCode;

use crate::cell::Cell;
use crate::failover::{PATIENCE, Servers, Start, TRY_EVERY, mode, start};
use crate::generator::{self, send_all};
use crate::report::Percentiles;
use crate::scenarios::{self, Fill};

/// What probes write to.
const PROBED: &str = "/rk-bench-catchup";
/// For how long probes are watched before a follower is started.
const BEFORE: Duration = Duration::from_secs(3);
/// What an Apache server and one of ours keep under their data directories.
const HISTORY: [&str; 2] = ["ringkeeper", "version-2"];

/// What to measure.
#[derive(Args)]
pub(crate) struct Catchup {
    /// A server: its client address, =, and the command that runs it in the foreground, for
    /// example `127.0.0.1:2181=ringkeeper 1/zoo.cfg`. Once for each server.
    #[arg(long = "start", value_parser = start, required = true)]
    starts: Vec<Start>,
    /// For `new`: a server's client address, =, and its data directory, whose history goes.
    #[arg(long = "data", value_parser = data)]
    data: Vec<(SocketAddr, PathBuf)>,
    /// What happens to a follower.
    #[arg(long, value_enum, value_delimiter = ',', default_value = "behind,dead,stopped")]
    cases: Vec<Case>,
    /// How often each happens.
    #[arg(long, default_value_t = 5)]
    rounds: usize,
    /// Txns that are written while a follower is away.
    #[arg(long, default_value_t = 100_000)]
    txns: u64,
    /// Bytes of each value.
    #[arg(long, default_value_t = 100)]
    size: usize,
    /// For `new`: znodes that there are at least.
    #[arg(long, default_value_t = 1_000_000)]
    znodes: u64,
    /// Probes, one write in flight each.
    #[arg(long, default_value_t = 4)]
    probes: usize,
    /// Microseconds between an answer to a probe and its next write.
    #[arg(long, default_value_t = 1000)]
    think: u64,
    /// Of throughput: sessions, and requests in flight of each.
    #[arg(long, default_value_t = 64)]
    sessions: usize,
    /// Requests that each session keeps in flight.
    #[arg(long, default_value_t = 32)]
    pipeline: usize,
    /// Of throughput: seconds of each measurement.
    #[arg(long, default_value_t = 3.0)]
    seconds: f64,
}

/// What happens to a follower.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Case {
    /// It is started again after it has missed txns.
    Behind,
    /// It is started without its history.
    New,
    /// Throughput while it is dead.
    Dead,
    /// Throughput while it is stopped (SIGSTOP).
    Stopped,
}

fn data(text: &str) -> Result<(SocketAddr, PathBuf), String> {
    let (server, path) = text.split_once('=').ok_or("write ADDRESS=DIRECTORY")?;
    Ok((crate::address(server)?, PathBuf::from(path)))
}

/// What one round found.
struct Round {
    took: Duration,
    before: Histogram<u64>,
    meanwhile: Histogram<u64>,
}

/// Measures and prints.
pub(crate) fn run(catchup: &Catchup, json: bool) -> Result<(), String> {
    if catchup.starts.len() < 3 {
        return Err("an ensemble that loses a server has at least three: --start".to_owned());
    }
    if catchup.rounds == 0 || catchup.probes == 0 {
        return Err("--rounds and --probes must not be 0".to_owned());
    }
    let Catchup { sessions, pipeline, size, seconds, .. } = *catchup;
    Cell::of_set(sessions, pipeline, size, seconds).check()?;
    // Any of them may be the follower.
    if catchup.cases.contains(&Case::New) {
        for Start { server, .. } in &catchup.starts {
            home(catchup, *server)?;
        }
    }
    let mut servers = Servers::new(catchup.starts.clone());
    servers.start_missing()?;
    servers.wait_all_serve()?;
    for case in &catchup.cases {
        match case {
            Case::Behind | Case::New => {
                let mut rounds = Vec::new();
                for _ in 0..catchup.rounds {
                    rounds.push(round(catchup, &mut servers, *case, json)?);
                }
                print_rounds(catchup, *case, &rounds, json)?;
            }
            Case::Dead | Case::Stopped => throughput(catchup, &mut servers, *case, json)?,
        }
    }
    Ok(())
}

/// Where a server's history is.
fn home(catchup: &Catchup, server: SocketAddr) -> Result<&PathBuf, String> {
    let found = catchup.data.iter().find(|(of, _)| *of == server);
    let (_, home) = found.ok_or_else(|| format!("--data {server}=DIRECTORY is missing"))?;
    Ok(home)
}

/// A server that follows.
fn follower(servers: &Servers, leader: usize) -> usize {
    (0..servers.starts.len()).rev().find(|at| *at != leader).unwrap_or_default()
}

fn address(servers: &Servers, at: usize) -> Result<SocketAddr, String> {
    servers.starts.get(at).map(|start| start.server).ok_or("no such server".to_owned())
}

/// Takes a follower away, lets it miss something, and starts it again.
fn round(
    catchup: &Catchup,
    servers: &mut Servers,
    case: Case,
    json: bool,
) -> Result<Round, String> {
    let leader = servers.wait_leader(None)?;
    let away = follower(servers, leader);
    let (to, of) = (address(servers, leader)?, address(servers, away)?);
    if case == Case::New {
        fill(catchup, to, json)?;
    }
    servers.signal(away, libc::SIGKILL)?;
    servers.wait(away)?;
    match case {
        Case::New => {
            let home = home(catchup, of)?;
            for name in HISTORY {
                let path = home.join(name);
                if path.exists() {
                    fs::remove_dir_all(&path).map_err(|it| format!("{}: {it}", path.display()))?;
                }
            }
        }
        _ => write(catchup, to)?,
    }
    let probes = Probes::start(catchup, to)?;
    thread::sleep(BEFORE);
    let target = zxid(to).ok_or_else(|| format!("{to} tells no zxid"))?;
    let began = Instant::now();
    servers.start_missing()?;
    while zxid(of).is_none_or(|zxid| zxid < target) || mode(of).is_none() {
        servers.check()?;
        if PATIENCE < began.elapsed() {
            return Err(format!("{of} is not in sync within {PATIENCE:?}"));
        }
        thread::sleep(TRY_EVERY);
    }
    let ended = Instant::now();
    let answers = probes.end()?;
    let within = |from: Instant, to: Instant| {
        let mut histogram = Histogram::<u64>::new(3).map_err(|error| error.to_string())?;
        for (at, latency) in &answers {
            // A write that began before and ended after counts as well.
            if from <= *at && at.checked_sub(*latency).is_none_or(|sent| sent <= to) {
                let nanos = u64::try_from(latency.as_nanos()).unwrap_or(u64::MAX);
                histogram.record(nanos.max(1)).map_err(|error| error.to_string())?;
            }
        }
        Ok::<_, String>(histogram)
    };
    let before = within(began.checked_sub(BEFORE).unwrap_or(began), began)?;
    let meanwhile = within(began, ended)?;
    servers.wait_all_serve()?;
    Ok(Round { took: ended - began, before, meanwhile })
}

/// Znodes for a new server to get, once.
fn fill(catchup: &Catchup, server: SocketAddr, json: bool) -> Result<(), String> {
    let text = client::word(server, "mntr").map_err(|error| format!("{server}: {error}"))?;
    let count = text.lines().find_map(|line| line.strip_prefix("zk_znode_count\t"));
    let count = count.and_then(|count| count.trim().parse::<u64>().ok()).ok_or_else(|| {
        format!("{server} does not answer mntr: its 4lw.commands.whitelist must have it")
    })?;
    if catchup.znodes <= count {
        return Ok(());
    }
    let fill = Fill { znodes: catchup.znodes, size: catchup.size, children: 1000 };
    scenarios::fill(server, &fill, None, json)
}

/// The txns that a follower misses.
fn write(catchup: &Catchup, server: SocketAddr) -> Result<(), String> {
    let failed = |error: std::io::Error| format!("{server}: {error}");
    let mut client = Client::connect(server).map_err(failed)?;
    let value = vec![b'x'; catchup.size];
    let create = requests::create(PROBED, &value, 0);
    client.call(&create).map_err(failed)?;
    let sets = (0..catchup.txns).map(|_| requests::set(PROBED, &value));
    send_all(&mut client, sets, &[ErrorCode::OK]).map(drop).map_err(failed)
}

/// The last zxid that a server shows, while it serves.
fn zxid(server: SocketAddr) -> Option<u64> {
    let text = client::word(server, "srvr").ok()?;
    let hex = text.lines().find_map(|line| line.strip_prefix("Zxid: 0x"))?;
    u64::from_str_radix(hex.trim(), 16).ok()
}

/// When an answer came, and how long it took.
type Answers = Vec<(Instant, Duration)>;

/// Sessions that write one after the other and note how long each write takes.
struct Probes {
    ends: Arc<AtomicBool>,
    answers: Arc<Mutex<Answers>>,
    threads: Vec<JoinHandle<Result<(), String>>>,
}

impl Probes {
    fn start(catchup: &Catchup, server: SocketAddr) -> Result<Self, String> {
        let failed = move |error: std::io::Error| format!("{server}: {error}");
        let ends = Arc::new(AtomicBool::new(false));
        let answers = Arc::new(Mutex::new(Vec::new()));
        let think = Duration::from_micros(catchup.think);
        let mut threads = Vec::new();
        for number in 0..catchup.probes {
            let path = format!("{PROBED}-{number}");
            let value = vec![b'x'; catchup.size];
            let mut client = Client::connect(server).map_err(failed)?;
            client.call(&requests::create(&path, &value, 0)).map_err(failed)?;
            let (ends, answers) = (Arc::clone(&ends), Arc::clone(&answers));
            threads.push(thread::spawn(move || {
                let set = requests::set(&path, &value);
                while !ends.load(Ordering::Relaxed) {
                    let sent = Instant::now();
                    client.call(&set).map_err(failed)?;
                    let came = Instant::now();
                    let mut answers = answers.lock().unwrap_or_else(PoisonError::into_inner);
                    answers.push((came, came - sent));
                    drop(answers);
                    thread::sleep(think);
                }
                Ok(())
            }));
        }
        Ok(Self { ends, answers, threads })
    }

    fn end(self) -> Result<Answers, String> {
        self.ends.store(true, Ordering::Relaxed);
        for thread in self.threads {
            thread.join().map_err(|_| "a probe failed".to_owned())??;
        }
        let mut answers = self.answers.lock().unwrap_or_else(PoisonError::into_inner);
        Ok(std::mem::take(&mut answers))
    }
}

fn median(values: &mut [f64]) -> f64 {
    values.sort_unstable_by(f64::total_cmp);
    values.get(values.len() / 2).copied().unwrap_or_default()
}

fn print_rounds(catchup: &Catchup, case: Case, rounds: &[Round], json: bool) -> Result<(), String> {
    let mut ms: Vec<f64> = rounds.iter().map(|round| round.took.as_secs_f64() * 1e3).collect();
    let all = |which: fn(&Round) -> &Histogram<u64>| {
        let mut all = Histogram::<u64>::new(3).map_err(|error| error.to_string())?;
        for round in rounds {
            all.add(which(round)).map_err(|error| error.to_string())?;
        }
        Ok::<_, String>(Percentiles::of(&all))
    };
    let (before, meanwhile) = (all(|round| &round.before)?, all(|round| &round.meanwhile)?);
    let (p50, max) = (median(&mut ms), ms.last().copied().unwrap_or_default());
    let ratio = meanwhile.p999 / before.p999.max(1.0);
    let what = match case {
        Case::New => format!("a follower without history, {} znodes", catchup.znodes),
        _ => format!("a follower {} txns behind", catchup.txns),
    };
    if json {
        println!(
            "{}",
            json!({ "scenario": "catchup", "case": what, "in_sync_ms": ms,
                    "before_us": before, "meanwhile_us": meanwhile, "p999_ratio": ratio })
        );
        return Ok(());
    }
    println!("{what}: in sync p50 {p50:.0} ms, max {max:.0} ms ({} rounds)", ms.len());
    println!(
        "  writes at the leader, us: p50 {:.0} -> {:.0}, p99 {:.0} -> {:.0}, p99.9 {:.0} -> {:.0} \
         ({ratio:.2} x), max {:.0} -> {:.0}",
        before.p50,
        meanwhile.p50,
        before.p99,
        meanwhile.p99,
        before.p999,
        meanwhile.p999,
        before.max,
        meanwhile.max
    );
    Ok(())
}

/// Writes at the leader with all servers and without one, by turns.
fn throughput(
    catchup: &Catchup,
    servers: &mut Servers,
    case: Case,
    json: bool,
) -> Result<(), String> {
    let Catchup { sessions, pipeline, size, seconds, .. } = *catchup;
    let cell = Cell::of_set(sessions, pipeline, size, seconds);
    let (mut all, mut without) = (Vec::new(), Vec::new());
    for _ in 0..catchup.rounds {
        let leader = servers.wait_leader(None)?;
        let away = follower(servers, leader);
        let to = address(servers, leader)?;
        all.push(generator::measure_sound(to, &cell, None)?.rate);
        let signal = if case == Case::Dead { libc::SIGKILL } else { libc::SIGSTOP };
        servers.signal(away, signal)?;
        let measured = generator::measure_sound(to, &cell, None);
        match case {
            Case::Dead => servers.wait(away)?,
            _ => servers.signal(away, libc::SIGCONT)?,
        }
        without.push(measured?.rate);
        servers.start_missing()?;
        servers.wait_all_serve()?;
    }
    let ratios = all.iter().zip(&without).map(|(all, without)| without / all.max(1.0));
    let ratio = median(&mut ratios.collect::<Vec<_>>());
    let (all, without) = (median(&mut all), median(&mut without));
    let what = if case == Case::Dead { "dead" } else { "stopped" };
    if json {
        println!(
            "{}",
            json!({ "scenario": "catchup", "case": what, "all_per_s": all,
                    "without_per_s": without, "ratio": ratio })
        );
    } else {
        println!(
            "{}: all alive {all:.0}/s, one follower {what} {without:.0}/s, ratio {ratio:.2} \
             ({} rounds)",
            cell.name(),
            catchup.rounds
        );
    }
    Ok(())
}
