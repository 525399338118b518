//! The event loop that drives all sessions of a measurement from one thread.
//!
//! Closed loop: each answer starts the session's next request. Open loop: requests start on a
//! schedule, and latencies count from the scheduled moment, so that a stalled server is charged for
//! every request that had to wait (no coordinated omission).

use std::collections::VecDeque;
use std::io::{self, Read, Write};
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use bytes::{Buf, Bytes, BytesMut};
use hdrhistogram::Histogram;
use mio::net::TcpStream;
use mio::{Events, Interest, Poll, Token};

use ringkeeper::base::{Prng, Str};
use ringkeeper::client::Client;
use ringkeeper::client::requests;
use ringkeeper::model::{CreateRequest, ErrorCode, Request, WriteRequest, Xid};
use ringkeeper::wire::client::encode_request;
use ringkeeper::wire::connect::ConnectRequest;

use crate::cell::{Cell, Op};
use crate::process;
use crate::report::{Percentiles, Report};

/// Where measurements put their znodes.
pub(crate) const ROOT: &str = "/rk-bench";
/// Requests that set up or clean up keep in flight.
const SETUP_PIPELINE: usize = 256;
/// A server that answers nothing for this long is given up.
const SILENCE_MAX: Duration = Duration::from_secs(20);
/// Before a request that is due sooner than this the loop does not sleep.
const SPIN_BEFORE_DUE: Duration = Duration::from_millis(2);
const READ_BYTES: usize = 256 * 1024;

/// Runs one measurement.
pub(crate) fn measure(server: SocketAddr, cell: &Cell, pid: Option<u32>) -> Result<Report, String> {
    cell.check()?;
    set_up(server, cell).map_err(|error| format!("{server}: setting up: {error}"))?;
    let result = Generator::new(server, cell).and_then(|mut generator| generator.run(pid));
    let report = result.map_err(|error| format!("{server}: {error}"))?;
    clean_up(server, cell).map_err(|error| format!("{server}: cleaning up: {error}"))?;
    Ok(report)
}

/// Runs one measurement whose figures say nothing unless every request succeeds.
pub(crate) fn measure_sound(
    server: SocketAddr,
    cell: &Cell,
    pid: Option<u32>,
) -> Result<Report, String> {
    let report = measure(server, cell, pid)?;
    let (errors, requests) = (report.errors, report.requests);
    match errors {
        0 => Ok(report),
        _ => Err(format!("{server}: {}: {errors} of {requests} requests failed", cell.name())),
    }
}

/// Sends many requests, deep pipelined; the answers must be among `accepted`.
pub(crate) fn send_all(
    client: &mut Client,
    all: impl Iterator<Item = Request>,
    accepted: &[ErrorCode],
) -> io::Result<u64> {
    let mut waiting = VecDeque::new();
    let mut count = 0;
    let receive = |client: &mut Client, waiting: &mut VecDeque<Option<Str>>| {
        let code = client.receive()?.header.code;
        let path = waiting.pop_front().flatten();
        if accepted.contains(&code) {
            return Ok(());
        }
        let path = path.map(|path| format!("{path}: ")).unwrap_or_default();
        Err(io::Error::other(format!("{path}answered with {}", code.name())))
    };
    for request in all {
        if waiting.len() == SETUP_PIPELINE {
            receive(client, &mut waiting)?;
        }
        client.send(&request)?;
        waiting.push_back(path_of(&request));
        count += 1;
    }
    while !waiting.is_empty() {
        receive(client, &mut waiting)?;
    }
    Ok(count)
}

/// What a write is about, for messages.
fn path_of(request: &Request) -> Option<Str> {
    match request {
        Request::Write(
            WriteRequest::Create(CreateRequest { path, .. })
            | WriteRequest::SetData { path, .. }
            | WriteRequest::Delete { path, .. },
        ) => Some(path.clone()),
        _ => None,
    }
}

fn znode(number: usize) -> String {
    format!("{ROOT}/n{number}")
}

fn set_up(server: SocketAddr, cell: &Cell) -> io::Result<()> {
    let mut client = Client::connect(server)?;
    let value = vec![b'x'; cell.size];
    let made = [ErrorCode::OK, ErrorCode::NODE_EXISTS];
    send_all(&mut client, std::iter::once(requests::create(ROOT, b"", 0)), &made)?;
    if cell.op != Op::Create {
        let all = (0..cell.znodes).map(|number| requests::create(&znode(number), &value, 0));
        send_all(&mut client, all, &made)?;
        // One that was there already may have a value of another size.
        let all = (0..cell.znodes).map(|number| requests::set(&znode(number), &value));
        send_all(&mut client, all, &[ErrorCode::OK])?;
    }
    client.call(&Request::Write(WriteRequest::CloseSession))?;
    Ok(())
}

fn clean_up(server: SocketAddr, cell: &Cell) -> io::Result<()> {
    let mut client = Client::connect(server)?;
    let gone = [ErrorCode::OK, ErrorCode::NO_NODE];
    match cell.op {
        Op::Create => {
            let all = (0..cell.sessions).flat_map(|session| {
                (0..cell.pipeline).map(move |slot| requests::delete(&own_path(session, slot)))
            });
            send_all(&mut client, all, &gone)?;
        }
        _ => {
            let all = (0..cell.znodes).map(|number| requests::delete(&znode(number)));
            send_all(&mut client, all, &gone)?;
        }
    }
    let root = [ErrorCode::OK, ErrorCode::NO_NODE, ErrorCode::NOT_EMPTY];
    send_all(&mut client, std::iter::once(requests::delete(ROOT)), &root)?;
    client.call(&Request::Write(WriteRequest::CloseSession))?;
    Ok(())
}

fn own_path(session: usize, slot: usize) -> String {
    format!("{ROOT}/s{session}-{slot}")
}

struct Generator<'a> {
    cell: &'a Cell,
    poll: Poll,
    sessions: Vec<Session>,
    /// Encoded requests that differ only in their xid.
    templates: Vec<Bytes>,
    prng: Prng,
    started: Instant,
    scratch: Vec<u8>,
}

struct Session {
    stream: TcpStream,
    phase: Phase,
    input: BytesMut,
    output: BytesMut,
    /// When each request in flight started, nanoseconds since the measurement's start.
    in_flight: VecDeque<u64>,
    next_xid: i32,
    /// Counts the requests made, for operations that alternate.
    made: u64,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Phase {
    Handshake,
    Live,
    Closing,
    Closed,
}

/// What is counted.
struct Tally {
    histogram: Histogram<u64>,
    answered: u64,
    errors: u64,
    unanswered: u64,
}

impl<'a> Generator<'a> {
    fn new(server: SocketAddr, cell: &'a Cell) -> io::Result<Self> {
        let poll = Poll::new()?;
        let mut sessions = Vec::with_capacity(cell.sessions);
        for number in 0..cell.sessions {
            // Connected one after the other, so that no listen queue overflows.
            let stream = std::net::TcpStream::connect(server)?;
            stream.set_nodelay(true)?;
            stream.set_nonblocking(true)?;
            let mut stream = TcpStream::from_std(stream);
            let interest = Interest::READABLE | Interest::WRITABLE;
            poll.registry().register(&mut stream, Token(number), interest)?;
            let mut output = BytesMut::new();
            let hello = ConnectRequest {
                protocol_version: 0,
                last_zxid_seen: ringkeeper::model::Zxid::ZERO,
                timeout_ms: 30_000,
                session: ringkeeper::model::SessionId(0),
                password: Some(Bytes::from_static(&[0; 16])),
                read_only: false,
                has_read_only: true,
            };
            hello.encode(&mut output);
            sessions.push(Session {
                stream,
                phase: Phase::Handshake,
                input: BytesMut::new(),
                output,
                in_flight: VecDeque::new(),
                next_xid: 1,
                made: 0,
            });
        }
        Ok(Self {
            cell,
            poll,
            sessions,
            templates: templates(cell),
            prng: Prng::new(1),
            started: Instant::now(),
            scratch: vec![0; READ_BYTES],
        })
    }

    fn run(&mut self, pid: Option<u32>) -> io::Result<Report> {
        let mut idle = Tally::new();
        self.turns(Until::AllLive, &mut idle)?;
        self.started = Instant::now();
        if self.cell.rate.is_none() {
            for number in 0..self.sessions.len() {
                for _ in 0..self.cell.pipeline {
                    self.start_request(number, 0);
                }
                self.write(number)?;
            }
        }
        let warm = self.cell.warmup();
        let end = warm + self.cell.counted();
        self.turns(Until::Elapsed(warm), &mut idle)?;
        let usage = |pid: Option<u32>| pid.map(process::usage).transpose();
        let before = usage(pid).map_err(io::Error::other)?;
        let own_before = process::usage(std::process::id()).map_err(io::Error::other)?;
        let began = self.started.elapsed();
        let mut tally = Tally::new();
        self.turns(Until::Elapsed(end), &mut tally)?;
        if self.cell.rate.is_some() {
            self.count_unanswered(&mut tally);
        }
        let seconds = (self.started.elapsed() - began).as_secs_f64();
        let after = usage(pid).map_err(io::Error::other)?;
        let own_after = process::usage(std::process::id()).map_err(io::Error::other)?;
        self.close(&mut idle)?;
        #[expect(clippy::cast_precision_loss, reason = "figures for people")]
        let (requests, per_request) = {
            let requests = tally.answered.max(1) as f64;
            (requests, move |cpu: Duration| cpu.as_secs_f64() * 1e6 / requests)
        };
        Ok(Report {
            cell: self.cell.clone(),
            requests: tally.answered,
            errors: tally.errors,
            unanswered: tally.unanswered,
            seconds,
            rate: requests / seconds,
            latency_us: Percentiles::of(&tally.histogram),
            server_cpu_us: before
                .zip(after)
                .map(|(before, after)| per_request(after.cpu.saturating_sub(before.cpu))),
            server_resident: after.map(|after| after.resident),
            generator_cpu_us: per_request(own_after.cpu.saturating_sub(own_before.cpu)),
        })
    }

    /// What an open loop has not had answered at its end has waited for as long as it has: without
    /// it a server that stopped answering would look fast.
    fn count_unanswered(&self, tally: &mut Tally) {
        let now = nanos(self.started.elapsed());
        for start in self.sessions.iter().flat_map(|session| &session.in_flight) {
            tally.histogram.saturating_record(now.saturating_sub(*start));
            tally.unanswered += 1;
        }
    }

    /// Lets what is in flight end, and ends the sessions.
    fn close(&mut self, idle: &mut Tally) -> io::Result<()> {
        for number in 0..self.sessions.len() {
            let session = &mut self.sessions[number];
            session.phase = Phase::Closing;
            let close = Request::Write(WriteRequest::CloseSession);
            encode_request(Xid(session.next_xid), &close, &mut session.output);
            session.in_flight.push_back(0);
            self.write(number)?;
        }
        self.turns(Until::AllClosed, idle)
    }

    fn turns(&mut self, until: Until, tally: &mut Tally) -> io::Result<()> {
        let mut events = Events::with_capacity(1024);
        let mut last_news = Instant::now();
        let mut next_due = self.next_due(self.started.elapsed());
        loop {
            let elapsed = self.started.elapsed();
            let mut wait = Duration::from_millis(200);
            match until {
                Until::AllLive if self.all(Phase::Live) => return Ok(()),
                Until::AllClosed if self.all(Phase::Closed) => return Ok(()),
                Until::Elapsed(end) if end <= elapsed => return Ok(()),
                Until::Elapsed(end) => {
                    wait = wait.min(end - elapsed);
                    if let Some(due) = &mut next_due {
                        self.start_due(due, elapsed)?;
                        let left = Duration::from_nanos(due.at).saturating_sub(elapsed);
                        wait = wait.min(left);
                        if left < SPIN_BEFORE_DUE {
                            wait = Duration::ZERO;
                        }
                    }
                }
                _ => {}
            }
            match self.poll.poll(&mut events, Some(wait)) {
                Err(error) if error.kind() != io::ErrorKind::Interrupted => return Err(error),
                _ => {}
            }
            if !events.is_empty() {
                last_news = Instant::now();
            } else if SILENCE_MAX < last_news.elapsed() {
                return Err(io::Error::new(io::ErrorKind::TimedOut, "the server is silent"));
            }
            let closed = matches!(until, Until::Elapsed(_)) && self.cell.rate.is_none();
            for event in &events {
                let Token(number) = event.token();
                if event.is_readable() {
                    self.read(number, closed, tally)?;
                }
                self.write(number)?;
            }
        }
    }

    fn all(&self, phase: Phase) -> bool {
        self.sessions.iter().all(|session| session.phase == phase)
    }

    fn next_due(&self, elapsed: Duration) -> Option<Due> {
        let rate = self.cell.rate?;
        let at = nanos(elapsed);
        Some(Due { at, origin: at, count: 0, rate, session: 0 })
    }

    fn start_due(&mut self, due: &mut Due, elapsed: Duration) -> io::Result<()> {
        let now = nanos(elapsed);
        while due.at <= now {
            self.start_request(due.session, due.at);
            self.write(due.session)?;
            due.advance(self.sessions.len());
        }
        Ok(())
    }

    /// Puts a request into a session's output. `start` is when its latency begins.
    fn start_request(&mut self, number: usize, start: u64) {
        let session = &mut self.sessions[number];
        let index = pick(self.cell, number, session.made, &mut self.prng);
        let template = &self.templates[index];
        let at = session.output.len();
        session.output.extend_from_slice(template);
        session.output[at + 4..at + 8].copy_from_slice(&session.next_xid.to_be_bytes());
        session.next_xid = session.next_xid.wrapping_add(1).max(1);
        session.made += 1;
        session.in_flight.push_back(start);
    }

    fn read(&mut self, number: usize, closed: bool, tally: &mut Tally) -> io::Result<()> {
        loop {
            let session = &mut self.sessions[number];
            let got = match session.stream.read(&mut self.scratch) {
                Ok(0) if matches!(session.phase, Phase::Closing | Phase::Closed) => {
                    session.phase = Phase::Closed;
                    return Ok(());
                }
                Ok(0) => return Err(io::Error::from(io::ErrorKind::ConnectionReset)),
                Ok(got) => got,
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(()),
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                Err(_) if matches!(session.phase, Phase::Closing | Phase::Closed) => {
                    session.phase = Phase::Closed;
                    return Ok(());
                }
                Err(error) => return Err(error),
            };
            session.input.extend_from_slice(&self.scratch[..got]);
            let now = nanos(self.started.elapsed());
            let answered = session.take_answers(now, tally)?;
            if closed {
                for _ in 0..answered {
                    self.start_request(number, now);
                }
            }
            self.write(number)?;
            if got < self.scratch.len() {
                return Ok(());
            }
        }
    }

    fn write(&mut self, number: usize) -> io::Result<()> {
        let session = &mut self.sessions[number];
        while !session.output.is_empty() {
            match session.stream.write(&session.output) {
                Ok(count) => session.output.advance(count),
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(()),
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }
}

/// When a phase of a measurement ends.
#[derive(Clone, Copy)]
enum Until {
    AllLive,
    AllClosed,
    Elapsed(Duration),
}

/// The schedule of an open loop.
struct Due {
    /// When the next request starts, nanoseconds since the measurement's start.
    at: u64,
    origin: u64,
    count: u64,
    rate: u64,
    session: usize,
}

impl Due {
    fn advance(&mut self, sessions: usize) {
        self.count += 1;
        let offset = u128::from(self.count) * 1_000_000_000 / u128::from(self.rate);
        self.at = self.origin + u64::try_from(offset).unwrap_or(u64::MAX);
        self.session = (self.session + 1) % sessions;
    }
}

impl Session {
    fn take_answers(&mut self, now: u64, tally: &mut Tally) -> io::Result<usize> {
        let mut count = 0;
        while let Some(len) = self.input.first_chunk::<4>() {
            let len = u32::from_be_bytes(*len) as usize;
            if self.input.len() < 4 + len {
                break;
            }
            let frame = self.input.split_to(4 + len).split_off(4);
            if self.phase == Phase::Handshake {
                self.phase = Phase::Live;
                continue;
            }
            let (Some(xid), Some(code)) = (int(&frame, 0), int(&frame, 12)) else {
                return Err(io::Error::other("a reply without a header"));
            };
            if xid < 0 {
                continue;
            }
            let start = self
                .in_flight
                .pop_front()
                .ok_or_else(|| io::Error::other(format!("a reply to {xid}, which was not sent")))?;
            tally.record(now.saturating_sub(start), code);
            count += 1;
            if self.phase == Phase::Closing && self.in_flight.is_empty() {
                self.phase = Phase::Closed;
            }
        }
        Ok(count)
    }
}

impl Tally {
    fn new() -> Self {
        let histogram = Histogram::new_with_bounds(1, 60_000_000_000, 3);
        let histogram = histogram.expect("the bounds are in order");
        Self { histogram, answered: 0, errors: 0, unanswered: 0 }
    }

    fn record(&mut self, nanos: u64, code: i32) {
        self.histogram.saturating_record(nanos);
        self.answered += 1;
        self.errors += u64::from(code != 0);
    }
}

fn int(frame: &[u8], at: usize) -> Option<i32> {
    let bytes = frame.get(at..at + 4)?;
    Some(i32::from_be_bytes(bytes.try_into().ok()?))
}

fn nanos(duration: Duration) -> u64 {
    u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX)
}

/// Every request that a measurement makes, encoded once: sets first, then gets, for each znode; for
/// `create` one create and one delete for each slot of each session.
fn templates(cell: &Cell) -> Vec<Bytes> {
    let value = vec![b'x'; cell.size];
    let encode = |request: &Request| {
        let mut buf = BytesMut::new();
        encode_request(Xid(0), request, &mut buf);
        buf.freeze()
    };
    let all = |make: &dyn Fn(&str) -> Request| -> Vec<Bytes> {
        (0..cell.znodes).map(|number| encode(&make(&znode(number)))).collect()
    };
    match cell.op {
        Op::Set => all(&|path| requests::set(path, &value)),
        Op::Get => all(&|path| requests::get(path, false)),
        Op::Exists => all(&|path| requests::exists(path, false)),
        Op::List => vec![encode(&requests::list(ROOT, false))],
        Op::Mix => {
            let mut both = all(&|path| requests::set(path, &value));
            both.extend(all(&|path| requests::get(path, false)));
            both
        }
        Op::Multi => {
            let write = |path: &str| WriteRequest::SetData {
                path: Str::from(path),
                data: Some(Bytes::copy_from_slice(&value)),
                version: -1,
            };
            let starts = (0..cell.znodes).step_by(cell.ops());
            let multi = |start: usize| {
                let numbers = start..start + cell.ops();
                let writes = numbers.map(|number| write(&znode(number % cell.znodes))).collect();
                encode(&Request::Write(WriteRequest::Multi(writes)))
            };
            starts.map(multi).collect()
        }
        Op::Create => {
            let mut both = Vec::new();
            for session in 0..cell.sessions {
                for slot in 0..cell.pipeline {
                    let path = own_path(session, slot);
                    both.push(encode(&requests::create(&path, &value, 0)));
                    both.push(encode(&requests::delete(&path)));
                }
            }
            both
        }
    }
}

/// Which template a session's next request is.
fn pick(cell: &Cell, session: usize, made: u64, prng: &mut Prng) -> usize {
    let below = |prng: &mut Prng, bound: usize| {
        usize::try_from(prng.below(bound as u64)).expect("it is below a usize")
    };
    match cell.op {
        Op::Set | Op::Get | Op::Exists => below(prng, cell.znodes),
        Op::List => 0,
        Op::Mix => {
            let read = prng.below(100) < u64::from(cell.reads());
            below(prng, cell.znodes) + if read { cell.znodes } else { 0 }
        }
        Op::Multi => below(prng, cell.znodes.div_ceil(cell.ops())),
        Op::Create => {
            // A round of creates, then a round of deletes of the same paths.
            let slots = cell.pipeline as u64;
            let slot = usize::try_from(made % slots).expect("it is below a usize");
            let deletes = usize::from(made / slots % 2 == 1);
            (session * cell.pipeline + slot) * 2 + deletes
        }
    }
}
