//! How long an ensemble acknowledges no write when its leader is killed, paused or stopped as
//! planned.
//!
//! The servers are started here, by a command each, and started again after they have ended.
//! Writers on every server write all the time and renew their sessions as fast as they are let in;
//! a gap is a time in which none of them has an acknowledgement. At the end each server must show
//! what was acknowledged last.

use std::net::SocketAddr;
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use clap::{Args, ValueEnum};
use serde::Serialize;
use serde_json::json;

use ringkeeper::client::{self, Client, Hello, requests};
use ringkeeper::model::{ErrorCode, Request};

/// Nothing an ensemble does takes longer.
pub(crate) const PATIENCE: Duration = Duration::from_secs(120);
/// How often a lost connection, or who leads, is tried.
pub(crate) const TRY_EVERY: Duration = Duration::from_millis(2);
/// Between the servers' being whole again and the next fault.
const SETTLE: Duration = Duration::from_millis(500);

/// What to measure.
#[derive(Args)]
pub(crate) struct Failover {
    /// A server: its client address, =, and the command that runs it in the foreground, for
    /// example `127.0.0.1:2181=ringkeeper 1/zoo.cfg`. Once for each server.
    #[arg(long = "start", value_parser = start, required = true)]
    starts: Vec<Start>,
    /// What happens to the leader.
    #[arg(long, value_enum, value_delimiter = ',', default_value = "kill,pause,terminate")]
    faults: Vec<Fault>,
    /// How often each happens.
    #[arg(long, default_value_t = 10)]
    rounds: usize,
    /// Writers on each server, one write in flight each.
    #[arg(long, default_value_t = 1)]
    sessions: usize,
    /// Microseconds between an acknowledgement and the next write.
    #[arg(long, default_value_t = 1000)]
    think: u64,
}

/// A server that is not running.
#[derive(Clone, Debug)]
pub(crate) struct Start {
    pub(crate) server: SocketAddr,
    command: Vec<String>,
}

/// What happens to a leader.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, ValueEnum)]
#[serde(rename_all = "lowercase")]
enum Fault {
    /// SIGKILL.
    Kill,
    /// SIGSTOP; SIGCONT when another one leads.
    Pause,
    /// SIGTERM.
    Terminate,
}

/// A server as the command line names it.
pub(crate) fn start(text: &str) -> Result<Start, String> {
    let (server, command) = text.split_once('=').ok_or("write ADDRESS=COMMAND")?;
    let words = shlex::split(command).filter(|words| !words.is_empty());
    let command = words.ok_or_else(|| format!("{command:?} is no command"))?;
    Ok(Start { server: crate::address(server)?, command })
}

/// The servers. They end with it.
pub(crate) struct Servers {
    pub(crate) starts: Vec<Start>,
    running: Vec<Option<Child>>,
}

impl Servers {
    /// None of them runs.
    pub(crate) fn new(starts: Vec<Start>) -> Self {
        let running = starts.iter().map(|_| None).collect();
        Self { starts, running }
    }

    /// Starts those that do not run.
    pub(crate) fn start_missing(&mut self) -> Result<(), String> {
        for (Start { command, .. }, running) in self.starts.iter().zip(&mut self.running) {
            if running.is_none() {
                let mut words = command.iter();
                let program = words.next().map_or("", String::as_str);
                let child = Command::new(program)
                    .args(words)
                    .stdin(Stdio::null())
                    .stdout(Stdio::null())
                    .stderr(Stdio::null())
                    .spawn();
                *running = Some(child.map_err(|error| format!("{program}: {error}"))?);
            }
        }
        Ok(())
    }

    /// Signals a server.
    pub(crate) fn signal(&self, at: usize, signal: i32) -> Result<(), String> {
        let child = self.running.get(at).and_then(Option::as_ref).ok_or("it does not run")?;
        let pid = i32::try_from(child.id()).map_err(|error| error.to_string())?;
        // SAFETY: signals a child that has not been waited for.
        match unsafe { libc::kill(pid, signal) } {
            0 => Ok(()),
            _ => Err(format!("process {pid}: {}", std::io::Error::last_os_error())),
        }
    }

    /// Waits for the end of a server.
    pub(crate) fn wait(&mut self, at: usize) -> Result<(), String> {
        let deadline = Instant::now() + PATIENCE;
        let Some(running) = self.running.get_mut(at) else { return Ok(()) };
        let Some(child) = running else { return Ok(()) };
        while child.try_wait().map_err(|error| error.to_string())?.is_none() {
            if deadline < Instant::now() {
                return Err(format!("process {} does not end", child.id()));
            }
            thread::sleep(TRY_EVERY);
        }
        *running = None;
        Ok(())
    }

    /// A server that ends by itself ends the measurement.
    pub(crate) fn check(&mut self) -> Result<(), String> {
        for (start, running) in self.starts.iter().zip(&mut self.running) {
            if let Some(child) = running
                && let Ok(Some(status)) = child.try_wait()
            {
                return Err(format!("{}: {} ended: {status}", start.server, start.command[0]));
            }
        }
        Ok(())
    }

    /// Waits until all of them serve.
    pub(crate) fn wait_all_serve(&mut self) -> Result<(), String> {
        let deadline = Instant::now() + PATIENCE;
        while !self.starts.iter().all(|start| mode(start.server).is_some()) {
            self.check()?;
            if deadline < Instant::now() {
                return Err(format!("not all servers serve within {PATIENCE:?}"));
            }
            thread::sleep(10 * TRY_EVERY);
        }
        Ok(())
    }

    /// Waits until a server other than `without` leads.
    pub(crate) fn wait_leader(&self, without: Option<usize>) -> Result<usize, String> {
        let deadline = Instant::now() + PATIENCE;
        loop {
            for (at, start) in self.starts.iter().enumerate() {
                if Some(at) != without && mode(start.server).is_some_and(|mode| mode == "leader") {
                    return Ok(at);
                }
            }
            if deadline < Instant::now() {
                return Err(format!("no server leads within {PATIENCE:?}"));
            }
            thread::sleep(TRY_EVERY);
        }
    }
}

impl Drop for Servers {
    fn drop(&mut self) {
        for child in self.running.iter_mut().flatten() {
            let _ended = child.kill();
            let _status = child.wait();
        }
    }
}

/// What a server says it is, while it serves.
pub(crate) fn mode(server: SocketAddr) -> Option<String> {
    let text = client::word(server, "srvr").ok()?;
    let mode = text.lines().find_map(|line| line.strip_prefix("Mode: "));
    mode.filter(|mode| !mode.is_empty()).map(str::to_owned)
}

/// Acknowledgements of all writers.
#[derive(Debug)]
struct Acks {
    count: u64,
    last: Instant,
    /// The longest time without one since it was last asked for.
    longest: Duration,
}

type Shared = Arc<Mutex<Acks>>;

fn lock(acks: &Shared) -> MutexGuard<'_, Acks> {
    acks.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Acks {
    fn take_note(&mut self) {
        let now = Instant::now();
        self.longest = self.longest.max(now - self.last);
        self.last = now;
        self.count += 1;
    }
}

/// Writes ever larger numbers to a znode of its own.
struct Writer {
    path: String,
    thread: JoinHandle<u64>,
}

struct Writing {
    server: SocketAddr,
    path: String,
    hello: Hello,
    client: Option<Client>,
}

impl Writing {
    /// One attempt. `None`: there is no connection, or it was lost.
    fn attempt(&mut self, request: &Request) -> Option<ErrorCode> {
        if self.client.is_none() {
            let client = Client::attach(self.server, &self.hello).ok()?;
            if client.session.timeout_ms == 0 {
                // The session is over: a new one, next time.
                self.hello = Hello::default();
                return None;
            }
            self.hello.session = client.session.session;
            self.hello.password = client.session.password;
            self.client = Some(client);
        }
        match self.client.as_mut()?.call(request) {
            Ok(reply) if reply.header.code != ErrorCode::SESSION_MOVED => {
                self.hello.last_zxid_seen = self.hello.last_zxid_seen.max(reply.header.zxid);
                Some(reply.header.code)
            }
            _ => {
                self.client = None;
                None
            }
        }
    }

    /// Until `ends`; the last number that was acknowledged.
    fn run(mut self, think: Duration, acks: &Shared, ends: &AtomicBool) -> u64 {
        let mut acknowledged = 0;
        let mut number: u64 = 0;
        while !ends.load(Ordering::Relaxed) {
            let request = match number {
                0 => requests::create(&self.path, b"0", 0),
                _ => requests::set(&self.path, number.to_string().as_bytes()),
            };
            match self.attempt(&request) {
                Some(ErrorCode::OK) => {
                    acknowledged = number;
                    lock(acks).take_note();
                    number += 1;
                    thread::sleep(think);
                }
                Some(ErrorCode::NODE_EXISTS) => number += 1,
                // What was lost may have happened; the next number tells.
                Some(_) | None => {
                    number += u64::from(number != 0);
                    thread::sleep(TRY_EVERY);
                }
            }
        }
        acknowledged
    }
}

/// Measures and prints.
pub(crate) fn run(failover: &Failover, json: bool) -> Result<(), String> {
    let starts = failover.starts.clone();
    if starts.len() < 3 {
        return Err("an ensemble that loses a server has at least three: --start".to_owned());
    }
    if failover.rounds == 0 || failover.sessions == 0 {
        return Err("--rounds and --sessions must not be 0".to_owned());
    }
    let mut servers = Servers::new(starts);
    servers.start_missing()?;
    servers.wait_all_serve()?;
    let acks = Acks { count: 0, last: Instant::now(), longest: Duration::ZERO };
    let acks = Arc::new(Mutex::new(acks));
    let ends = Arc::new(AtomicBool::new(false));
    let writers = begin_writers(failover, &acks, &ends);
    let mut failed = Ok(());
    for fault in &failover.faults {
        let gaps: Result<Vec<Duration>, String> =
            (0..failover.rounds).map(|_| round(&mut servers, *fault, &acks)).collect();
        match gaps {
            Ok(gaps) => print(*fault, gaps, failover.sessions, json),
            Err(error) => {
                failed = Err(error);
                break;
            }
        }
    }
    ends.store(true, Ordering::Relaxed);
    let mut acknowledged = Vec::new();
    for Writer { path, thread } in writers {
        let last = thread.join().map_err(|_| "a writer failed".to_owned())?;
        acknowledged.push((path, last));
    }
    failed?;
    for (path, last) in &acknowledged {
        for start in &servers.starts {
            check_shows(start.server, path, *last)?;
        }
    }
    let count = lock(&acks).count;
    if json {
        println!("{}", json!({ "scenario": "failover", "acknowledged": count, "lost": 0 }));
    } else {
        println!("{count} writes acknowledged, none lost");
    }
    Ok(())
}

fn begin_writers(failover: &Failover, acks: &Shared, ends: &Arc<AtomicBool>) -> Vec<Writer> {
    let think = Duration::from_micros(failover.think);
    let numbered = failover.starts.iter().enumerate();
    let of_all = numbered.flat_map(|(at, start)| {
        (0..failover.sessions).map(move |number| (start.server, at, number))
    });
    of_all
        .map(|(server, at, number)| {
            let path = format!("/rk-bench-failover-{at}-{number}");
            let (acks, ends) = (Arc::clone(acks), Arc::clone(ends));
            let writing =
                Writing { server, path: path.clone(), hello: Hello::default(), client: None };
            Writer { path, thread: thread::spawn(move || writing.run(think, &acks, &ends)) }
        })
        .collect()
}

/// One fault, and what is needed to be whole again. The longest gap between the fault and the time
/// when writes go on under another leader.
fn round(servers: &mut Servers, fault: Fault, acks: &Shared) -> Result<Duration, String> {
    let leader = servers.wait_leader(None)?;
    wait_acks(acks)?;
    lock(acks).longest = Duration::ZERO;
    servers.signal(
        leader,
        match fault {
            Fault::Kill => libc::SIGKILL,
            Fault::Pause => libc::SIGSTOP,
            Fault::Terminate => libc::SIGTERM,
        },
    )?;
    servers.wait_leader(Some(leader))?;
    wait_acks(acks)?;
    let gap = lock(acks).longest;
    match fault {
        Fault::Pause => servers.signal(leader, libc::SIGCONT)?,
        Fault::Kill | Fault::Terminate => servers.wait(leader)?,
    }
    servers.start_missing()?;
    servers.wait_all_serve()?;
    thread::sleep(SETTLE);
    Ok(gap)
}

/// Waits for some acknowledgements.
fn wait_acks(acks: &Shared) -> Result<(), String> {
    let enough = lock(acks).count + 10;
    let deadline = Instant::now() + PATIENCE;
    while lock(acks).count < enough {
        if deadline < Instant::now() {
            return Err(format!("no writes are acknowledged within {PATIENCE:?}"));
        }
        thread::sleep(TRY_EVERY);
    }
    Ok(())
}

/// A server shows at least what was acknowledged.
fn check_shows(server: SocketAddr, path: &str, last: u64) -> Result<(), String> {
    let failed = |error: std::io::Error| format!("{server}: {path}: {error}");
    let mut client = Client::connect(server).map_err(failed)?;
    client.call(&Request::Sync { path: "/".into() }).map_err(failed)?;
    let mut reply = client.call(&requests::get(path, false)).map_err(failed)?;
    let data = reply.body.buffer("data").ok().flatten().unwrap_or_default();
    let shown = std::str::from_utf8(&data).ok().and_then(|text| text.parse::<u64>().ok());
    match shown {
        Some(shown) if last <= shown => Ok(()),
        _ => Err(format!("{server}: {path}: {last} was acknowledged, {shown:?} is shown")),
    }
}

fn print(fault: Fault, mut gaps: Vec<Duration>, sessions: usize, json: bool) {
    gaps.sort_unstable();
    let ms: Vec<f64> = gaps.iter().map(|gap| gap.as_secs_f64() * 1e3).collect();
    let p50 = ms.get(ms.len() / 2).copied().unwrap_or_default();
    let max = ms.last().copied().unwrap_or_default();
    if json {
        println!(
            "{}",
            json!({ "scenario": "failover", "fault": fault, "rounds": ms.len(),
                    "sessions": sessions, "p50_ms": p50, "max_ms": max, "gaps_ms": ms })
        );
        return;
    }
    let name = match fault {
        Fault::Kill => "killed (SIGKILL)",
        Fault::Pause => "paused (SIGSTOP)",
        Fault::Terminate => "stopped (SIGTERM)",
    };
    let rounds = ms.len();
    println!("leader {name}: longest gap p50 {p50:.1} ms, max {max:.1} ms ({rounds} rounds)");
}
