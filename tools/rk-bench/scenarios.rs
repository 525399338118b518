//! Measurements that are no stream of equal requests: watch fan-out, session churn, filling,
//! restart.

use std::net::SocketAddr;
use std::process::{Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use hdrhistogram::Histogram;
use serde_json::json;

use ringkeeper::client::{self, Client, requests};
use ringkeeper::model::{ErrorCode, Request, WriteRequest};

use crate::generator::{ROOT, send_all};
use crate::process;
use crate::report::Percentiles;

/// A restart that takes longer is given up.
const RESTART_MAX: Duration = Duration::from_secs(600);
/// An event that takes longer is lost.
const EVENT_MAX: Duration = Duration::from_secs(20);

fn failed(server: SocketAddr) -> impl Fn(std::io::Error) -> String {
    move |error| format!("{server}: {error}")
}

fn histogram() -> Histogram<u64> {
    Histogram::new_with_bounds(1, 60_000_000_000, 3).expect("the bounds are in order")
}

fn record(histogram: &mut Histogram<u64>, since: Instant) {
    histogram.saturating_record(u64::try_from(since.elapsed().as_nanos()).unwrap_or(u64::MAX));
}

/// What a server's process spent on a scenario.
struct Meter {
    pid: Option<u32>,
    before: Option<process::Usage>,
}

impl Meter {
    fn start(pid: Option<u32>) -> Result<Self, String> {
        Ok(Self { pid, before: pid.map(process::usage).transpose()? })
    }

    /// Prints the latencies, and the server's processor time for each and its memory.
    fn print(&self, name: &str, histogram: &Histogram<u64>, json: bool) -> Result<(), String> {
        let latency = Percentiles::of(histogram);
        let after = self.pid.map(process::usage).transpose()?;
        #[expect(clippy::cast_precision_loss, reason = "figures for people")]
        let cpu_us = self.before.zip(after).map(|(before, after)| {
            let spent = after.cpu.saturating_sub(before.cpu);
            spent.as_secs_f64() * 1e6 / histogram.len().max(1) as f64
        });
        let resident = after.map(|after| after.resident);
        if json {
            println!(
                "{}",
                json!({ "scenario": name, "count": histogram.len(), "latency_us": latency,
                        "server_cpu_us": cpu_us, "server_resident": resident })
            );
            return Ok(());
        }
        println!(
            "{name}: p50 {:.0} us, p99 {:.0} us, max {:.0} us",
            latency.p50, latency.p99, latency.max
        );
        if let (Some(cpu), Some(resident)) = (cpu_us, resident) {
            println!("  server: {cpu:.0} us of processor each, {} KiB", resident / 1024);
        }
        Ok(())
    }
}

/// From sending a change until the last of `sessions` watchers has its event.
pub(crate) fn fanout(
    server: SocketAddr,
    sessions: usize,
    changes: usize,
    pid: Option<u32>,
    json: bool,
) -> Result<(), String> {
    let failed = failed(server);
    let mut writer = Client::connect(server).map_err(&failed)?;
    let made = [ErrorCode::OK, ErrorCode::NODE_EXISTS];
    send_all(&mut writer, std::iter::once(requests::create(ROOT, b"", 0)), &made)
        .map_err(&failed)?;
    let mut watchers = Vec::new();
    for _ in 0..sessions {
        watchers.push(Client::connect(server).map_err(&failed)?);
    }
    let mut all = histogram();
    let meter = Meter::start(pid)?;
    for _ in 0..changes {
        for watcher in &mut watchers {
            watcher.call(&requests::get(ROOT, true)).map_err(&failed)?;
        }
        let began = Instant::now();
        writer.call(&requests::set(ROOT, b"")).map_err(&failed)?;
        for watcher in &mut watchers {
            let event = watcher.next_event(EVENT_MAX).map_err(&failed)?;
            event.ok_or_else(|| format!("{server}: an event did not come"))?;
        }
        record(&mut all, began);
    }
    meter.print(&format!("fan-out to {sessions} sessions"), &all, json)?;
    for client in watchers.iter_mut().chain([&mut writer]) {
        client.call(&Request::Write(WriteRequest::CloseSession)).map_err(&failed)?;
    }
    Ok(())
}

/// Connects, creates an ephemeral, closes.
pub(crate) fn churn(
    server: SocketAddr,
    sessions: usize,
    pid: Option<u32>,
    json: bool,
) -> Result<(), String> {
    let failed = failed(server);
    let meter = Meter::start(pid)?;
    let mut all = histogram();
    for number in 0..sessions {
        let began = Instant::now();
        let mut client = Client::connect(server).map_err(&failed)?;
        let path = format!("/rk-bench-churn-{number}");
        let reply = client.call(&requests::create(&path, b"", 1)).map_err(&failed)?;
        if reply.header.code != ErrorCode::OK {
            return Err(format!("{server}: {path}: answered with {}", reply.header.code.name()));
        }
        client.call(&Request::Write(WriteRequest::CloseSession)).map_err(&failed)?;
        record(&mut all, began);
    }
    meter.print("connect, create an ephemeral, close", &all, json)
}

/// What to fill a server with.
pub(crate) struct Fill {
    /// How many znodes.
    pub(crate) znodes: u64,
    /// Bytes of each.
    pub(crate) size: usize,
    /// Children of each parent; 0 puts all below one.
    pub(crate) children: u64,
}

/// Creates znodes and leaves them.
pub(crate) fn fill(
    server: SocketAddr,
    fill: &Fill,
    pid: Option<u32>,
    json: bool,
) -> Result<(), String> {
    let failed = failed(server);
    let resident = || pid.map(process::usage).transpose().map(|u| u.map(|u| u.resident));
    let mut client = Client::connect(server).map_err(&failed)?;
    let before = resident()?;
    let began = Instant::now();
    let value = vec![b'x'; fill.size];
    let per_parent = if fill.children == 0 { fill.znodes } else { fill.children };
    let root = std::iter::once(requests::create("/fill", b"", 0));
    let all = root.chain((0..fill.znodes).flat_map(|number| {
        let parent = number / per_parent;
        let first = number.is_multiple_of(per_parent);
        let parent_path = format!("/fill/p{parent}");
        let make_parent = first.then(|| requests::create(&parent_path, b"", 0));
        let child = requests::create(&format!("{parent_path}/n{number:010}"), &value, 0);
        make_parent.into_iter().chain([child])
    }));
    let count = send_all(&mut client, all, &[ErrorCode::OK]).map_err(&failed)?;
    let seconds = began.elapsed().as_secs_f64();
    let after = resident()?;
    client.call(&Request::Write(WriteRequest::CloseSession)).map_err(&failed)?;
    let each = before.zip(after).map(|(before, after)| after.saturating_sub(before) / count.max(1));
    if json {
        println!(
            "{}",
            json!({ "scenario": "fill", "znodes": count, "seconds": seconds,
                    "resident": after, "bytes_per_znode": each })
        );
    } else {
        println!("filled {count} znodes in {seconds:.1} s");
        if let (Some(after), Some(each)) = (after, each) {
            println!("  resident {} MiB, {each} bytes more for each znode", after >> 20);
        }
    }
    Ok(())
}

/// From SIGKILL and the start of `start` until the server answers.
pub(crate) fn restart(
    server: SocketAddr,
    pid: u32,
    start: &[String],
    json: bool,
) -> Result<(), String> {
    let (program, arguments) = start.split_first().ok_or("no command was given")?;
    let number = i32::try_from(pid).map_err(|_| format!("--pid {pid} is no process"))?;
    // SAFETY: a signal to the process that the caller named.
    if unsafe { libc::kill(number, libc::SIGKILL) } != 0 {
        return Err(format!("--pid {pid}: {}", std::io::Error::last_os_error()));
    }
    while process::usage(pid).is_ok_and(|usage| usage.resident != 0) {
        thread::sleep(Duration::from_millis(1));
    }
    let began = Instant::now();
    let child = Command::new(program)
        .args(arguments)
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .map_err(|error| format!("{program}: {error}"))?;
    // Not `ruok`, and no handshake before it serves: Apache answers the one and leaves the other
    // unanswered while it loads.
    let serves = || {
        client::word(server, "srvr").is_ok_and(|text| text.contains("Mode: "))
            && Client::connect(server).is_ok_and(|client| client.session.timeout_ms != 0)
    };
    while !serves() {
        if RESTART_MAX < began.elapsed() {
            return Err(format!("{server}: no session within {RESTART_MAX:?}"));
        }
        thread::sleep(Duration::from_millis(2));
    }
    let seconds = began.elapsed().as_secs_f64();
    let znodes = client::word(server, "srvr").unwrap_or_default();
    let znodes = znodes.lines().find_map(|line| line.strip_prefix("Node count: "));
    if json {
        let znodes: Option<u64> = znodes.and_then(|text| text.parse().ok());
        println!(
            "{}",
            json!({ "scenario": "restart", "seconds": seconds, "pid": child.id(),
                    "znodes": znodes })
        );
    } else {
        let znodes = znodes.unwrap_or("?");
        println!("serves {znodes} znodes after {seconds:.2} s as process {}", child.id());
    }
    Ok(())
}
