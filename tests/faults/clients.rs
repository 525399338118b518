//! The clients of an ensemble: writers that note what was sent and what was answered, readers that
//! look for it at other servers, guests whose sessions end.
//!
//! A writer creates numbered znodes below a znode of its own, some in flight at a time, and goes on
//! with its session at another server when a connection is lost. It never writes a number twice.

use std::collections::btree_map::Entry;
use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::io;
use std::sync::{Arc, Condvar, Mutex, MutexGuard};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use ringkeeper::base::prng::Prng;
use ringkeeper::client::requests::{create, exists, list};
use ringkeeper::client::{Client, Hello, replies};
use ringkeeper::model::{ErrorCode, Request, WriteRequest, Zxid};

use crate::net::at;
use crate::servers::CLIENT_PORT;

pub(crate) const WRITERS: usize = 4;
const READERS: usize = 2;
/// Writes that a writer has in flight.
const PIPELINE: usize = 4;
/// Between the answers to a writer.
const PACE: Duration = Duration::from_millis(8);
/// What connecting and an answer may take before a client tries the next server.
const PATIENCE: Duration = Duration::from_secs(1);
/// Longer than any outage here: no session of a writer may expire.
const SESSION_MS: i32 = 60_000;
/// The sessions of guests who leave without a word expire soon.
const GUEST_SESSION_MS: i32 = 1_000;
const EPHEMERAL: i32 = 1;

/// What is known of a write.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Outcome {
    /// Sent; the connection was lost.
    Unknown,
    /// Acknowledged, or seen.
    There,
    Refused(ErrorCode),
}

/// What a writer knows of its writes by number, each with the connection it was sent on.
pub(crate) struct Journal {
    pub(crate) session: i64,
    pub(crate) known: BTreeMap<u64, (u32, Outcome)>,
    /// All below are deleted.
    pub(crate) floor: u64,
    next: u64,
    connection: u32,
    acknowledged: u64,
    last: u64,
}

impl Journal {
    /// Compares with what a server shows that knows all that was acknowledged.
    pub(crate) fn judge(&mut self, shown: &BTreeSet<u64>) -> Result<(), String> {
        if let Some(back) = shown.range(..self.floor).next() {
            return Err(format!("{back} is there, but all below {} were deleted", self.floor));
        }
        for (number, (_, outcome)) in &mut self.known {
            match (*outcome, shown.contains(number)) {
                (Outcome::There, false) => return Err(format!("{number} is lost")),
                (Outcome::Refused(code), true) => {
                    return Err(format!("{number} is there, but was refused with {code:?}"));
                }
                (Outcome::Unknown, true) => *outcome = Outcome::There,
                _ => {}
            }
        }
        match shown.iter().find(|number| !self.known.contains_key(number)) {
            Some(number) => Err(format!("{number} is there, but was never sent")),
            None => Ok(()),
        }
    }
}

/// How a guest left.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Leave {
    /// The end of the session was acknowledged.
    Closed,
    Silent,
}

#[derive(Default)]
struct Gate {
    is_shut: bool,
    ends: bool,
    waiting: usize,
}

struct Shared {
    servers: i64,
    gate: Mutex<Gate>,
    changed: Condvar,
    journals: Vec<Mutex<Journal>>,
    guests: Mutex<BTreeMap<String, Leave>>,
    failures: Mutex<Vec<String>>,
    reads: Mutex<u64>,
}

/// All clients, each in a thread.
pub(crate) struct Crowd {
    shared: Arc<Shared>,
    threads: Vec<JoinHandle<()>>,
}

impl Crowd {
    /// Makes the clients' znodes and lets the clients go. The ensemble serves.
    pub(crate) fn new(servers: i64, seed: u64) -> Self {
        let paths = ["/w", "/e"].map(|path| create(path, b"", 0));
        make(servers, &mut Hello::default(), &paths);
        let writers: Vec<Writer> =
            (0..WRITERS).map(|number| Writer::enrol(number, servers)).collect();
        let journal = |writer: &Writer| {
            Mutex::new(Journal {
                session: writer.hello.session.0,
                known: BTreeMap::new(),
                floor: 1,
                next: 1,
                connection: 0,
                acknowledged: 0,
                last: 0,
            })
        };
        let shared = Arc::new(Shared {
            servers,
            gate: Mutex::default(),
            changed: Condvar::new(),
            journals: writers.iter().map(journal).collect(),
            guests: Mutex::default(),
            failures: Mutex::default(),
            reads: Mutex::default(),
        });
        let mut threads = Vec::new();
        for mut writer in writers {
            let shared = Arc::clone(&shared);
            threads.push(thread::spawn(move || while writer.step(&shared) {}));
        }
        for reader in 0..READERS {
            let shared = Arc::clone(&shared);
            let prng = Prng::new(seed ^ (reader as u64 + 1));
            threads.push(thread::spawn(move || shared.read(prng)));
        }
        let also = Arc::clone(&shared);
        threads.push(thread::spawn(move || also.visit(Prng::new(seed ^ 77))));
        Self { shared, threads }
    }

    /// Waits until no client does anything, and keeps them so.
    pub(crate) fn hold(&self) {
        let mut gate = lock(&self.shared.gate);
        gate.is_shut = true;
        while gate.waiting < self.threads.len() {
            assert!(self.threads.iter().all(|thread| !thread.is_finished()), "a client has ended");
            let woken = self.shared.changed.wait_timeout(gate, PATIENCE);
            gate = woken.expect("nobody panics with it").0;
        }
    }

    /// Lets them go on.
    pub(crate) fn release(&self) {
        lock(&self.shared.gate).is_shut = false;
        self.shared.changed.notify_all();
    }

    /// Ends them.
    pub(crate) fn end(self) {
        lock(&self.shared.gate).ends = true;
        self.release();
        for thread in self.threads {
            thread.join().expect("no client panics");
        }
    }

    /// What has gone wrong.
    pub(crate) fn failures(&self) -> Vec<String> {
        lock(&self.shared.failures).clone()
    }

    pub(crate) fn journal(&self, writer: usize) -> MutexGuard<'_, Journal> {
        lock(&self.shared.journals[writer])
    }

    /// Acknowledged writes of each writer.
    pub(crate) fn progress(&self) -> Vec<u64> {
        self.shared.journals.iter().map(|journal| lock(journal).acknowledged).collect()
    }

    /// Reads that were answered after a sync.
    pub(crate) fn reads(&self) -> u64 {
        *lock(&self.shared.reads)
    }

    /// The ephemerals of guests, and how each left.
    pub(crate) fn guests(&self) -> MutexGuard<'_, BTreeMap<String, Leave>> {
        lock(&self.shared.guests)
    }
}

/// Creates znodes in one session, however often its connection is lost.
fn make(servers: i64, hello: &mut Hello, requests: &[Request]) {
    let mut sid = 0;
    let made = within(PATIENCE * 20, || {
        sid = sid % servers + 1;
        let mut attempt = || -> io::Result<bool> {
            let mut client = Client::attach_within(at(sid, CLIENT_PORT), hello, PATIENCE)?;
            assert_eq!(client.session.timeout_ms, hello.timeout_ms);
            hello.session = client.session.session;
            hello.password = client.session.password;
            for request in requests {
                let reply = client.call(request)?;
                hello.last_zxid_seen = hello.last_zxid_seen.max(reply.header.zxid);
                if ![ErrorCode::OK, ErrorCode::NODE_EXISTS].contains(&reply.header.code) {
                    return Ok(false);
                }
            }
            Ok(true)
        };
        attempt().unwrap_or(false)
    });
    assert!(made, "the ensemble serves");
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
}

/// The numbers of znodes by the names that a server lists.
pub(crate) fn numbers(client: &mut Client, path: &str) -> io::Result<(BTreeSet<u64>, Zxid)> {
    let (names, zxid) = names(client, path)?;
    let numbers: io::Result<_> =
        names.iter().map(|name| name.parse().map_err(io::Error::other)).collect();
    Ok((numbers?, zxid))
}

/// The names of children, and how far the server was.
pub(crate) fn names(client: &mut Client, path: &str) -> io::Result<(Vec<String>, Zxid)> {
    let mut reply = client.call(&list(path, false))?;
    if reply.header.code != ErrorCode::OK {
        return Err(io::Error::other(format!("{path}: {:?}", reply.header.code)));
    }
    let names = replies::strings(&mut reply.body).map_err(io::Error::other)?;
    Ok((names.iter().map(ToString::to_string).collect(), reply.header.zxid))
}

struct Writer {
    number: usize,
    path: String,
    hello: Hello,
    client: Option<Client>,
    at: i64,
    in_flight: VecDeque<u64>,
}

impl Writer {
    /// A session with its ephemeral and its znode.
    fn enrol(number: usize, servers: i64) -> Self {
        let mut hello = Hello { timeout_ms: SESSION_MS, ..Hello::default() };
        let path = format!("/w/{number}");
        let ephemeral = create(&format!("/e/w{number}"), b"", EPHEMERAL);
        make(servers, &mut hello, &[create(&path, b"", 0), ephemeral]);
        let at_first = number as i64 % servers;
        Self { number, path, hello, client: None, at: at_first, in_flight: VecDeque::new() }
    }

    /// One answer, or one attempt to connect. Whether there is more to do.
    fn step(&mut self, shared: &Shared) -> bool {
        let journal = &shared.journals[self.number];
        if shared.is_shut() {
            while let Some(client) = self.client.as_mut().filter(|_| !self.in_flight.is_empty()) {
                let taken = Self::take(client, &mut self.in_flight, &mut self.hello, journal);
                self.judge(shared, taken);
            }
            return shared.pass();
        }
        if self.client.is_none() {
            let connected = self.connect(journal);
            if !self.judge(shared, connected) {
                thread::sleep(PACE);
            }
            return true;
        }
        let Some(client) = &mut self.client else { return true };
        let mut done = Ok(());
        while done.is_ok() && self.in_flight.len() < PIPELINE {
            let number = {
                let mut journal = lock(journal);
                let number = journal.next;
                journal.next += 1;
                let connection = journal.connection;
                journal.known.insert(number, (connection, Outcome::Unknown));
                number
            };
            self.in_flight.push_back(number);
            let path = format!("{}/{number:010}", self.path);
            done = client
                .send(&create(&path, number.to_string().as_bytes(), 0))
                .map(drop)
                .map_err(|_| None);
        }
        let done =
            done.and_then(|()| Self::take(client, &mut self.in_flight, &mut self.hello, journal));
        self.judge(shared, done);
        thread::sleep(PACE);
        true
    }

    /// An error without text is a lost connection, one with text a failure of the ensemble.
    fn judge(&mut self, shared: &Shared, done: Result<(), Option<String>>) -> bool {
        let Err(why) = done else { return true };
        if let Some(why) = why {
            shared.fail(format!("writer {} at server {}: {why}", self.number, self.at + 1));
        }
        self.client = None;
        self.in_flight.clear();
        self.at = (self.at + 1) % shared.servers;
        false
    }

    fn connect(&mut self, journal: &Mutex<Journal>) -> Result<(), Option<String>> {
        let lost = |_| None;
        let server = at(1 + self.at, CLIENT_PORT);
        let mut client = Client::attach_within(server, &self.hello, PATIENCE).map_err(lost)?;
        if client.session.session != self.hello.session {
            return Err(Some(format!("session {:x} is over", self.hello.session.0)));
        }
        // What this session was told of, a server shows it without a sync.
        let (shown, zxid) = numbers(&mut client, &self.path).map_err(lost)?;
        self.hello.last_zxid_seen = self.hello.last_zxid_seen.max(zxid);
        let mut journal = lock(journal);
        journal.connection += 1;
        journal.judge(&shown).map_err(Some)?;
        self.client = Some(client);
        drop(journal);
        Ok(())
    }

    fn take(
        client: &mut Client,
        in_flight: &mut VecDeque<u64>,
        hello: &mut Hello,
        journal: &Mutex<Journal>,
    ) -> Result<(), Option<String>> {
        let reply = client.receive().map_err(|_| None)?;
        let number = in_flight.pop_front().ok_or_else(|| Some("an answer too many".to_owned()))?;
        hello.last_zxid_seen = hello.last_zxid_seen.max(reply.header.zxid);
        let mut journal = lock(journal);
        let code = reply.header.code;
        let outcome = if code == ErrorCode::OK { Outcome::There } else { Outcome::Refused(code) };
        if let Some((_, known)) = journal.known.get_mut(&number) {
            *known = outcome;
        }
        match code {
            ErrorCode::OK => {
                journal.acknowledged += 1;
                journal.last = number;
                Ok(())
            }
            // The session is thought to be elsewhere: a connection that was given up.
            ErrorCode::SESSION_MOVED => Err(None),
            ErrorCode::SYSTEM_ERROR => Ok(()),
            other => Err(Some(format!("{number} was answered with {other:?}"))),
        }
    }
}

impl Shared {
    fn is_shut(&self) -> bool {
        let gate = lock(&self.gate);
        gate.is_shut || gate.ends
    }

    /// Waits while the gate is shut; false at the end.
    fn pass(&self) -> bool {
        let mut gate = lock(&self.gate);
        gate.waiting += 1;
        self.changed.notify_all();
        while gate.is_shut && !gate.ends {
            gate = self.changed.wait(gate).expect("nobody panics with it");
        }
        gate.waiting -= 1;
        !gate.ends
    }

    fn fail(&self, what: String) {
        lock(&self.failures).push(what);
    }

    /// Looks for the last acknowledged write of any writer at any server, behind a sync.
    fn read(&self, mut prng: Prng) {
        let mut clients: BTreeMap<i64, Client> = BTreeMap::new();
        while self.pass() {
            let sid = 1 + prng.below(self.servers as u64) as i64;
            let writer = prng.below(WRITERS as u64) as usize;
            if self.look(sid, writer, &mut clients).is_err() {
                clients.remove(&sid);
            }
            thread::sleep(PACE);
        }
    }

    fn look(&self, sid: i64, writer: usize, clients: &mut BTreeMap<i64, Client>) -> io::Result<()> {
        let client = match clients.entry(sid) {
            Entry::Occupied(there) => there.into_mut(),
            Entry::Vacant(none) => {
                let hello = Hello { timeout_ms: 5_000, ..Hello::default() };
                none.insert(Client::attach_within(at(sid, CLIENT_PORT), &hello, PATIENCE)?)
            }
        };
        let last = lock(&self.journals[writer]).last;
        if last == 0 {
            return Ok(());
        }
        client.send(&Request::Sync { path: "/".into() })?;
        client.send(&exists(&format!("/w/{writer}/{last:010}"), false))?;
        let synced = client.receive()?.header.code;
        let found = client.receive()?.header.code;
        if synced == ErrorCode::OK && found == ErrorCode::NO_NODE {
            self.fail(format!(
                "server {sid} does not show {last} of writer {writer} behind a sync"
            ));
        }
        *lock(&self.reads) += 1;
        Ok(())
    }

    /// Short sessions with an ephemeral each.
    fn visit(&self, mut prng: Prng) {
        let mut number = 0_u64;
        while self.pass() {
            number += 1;
            let name = format!("g{number}");
            let sid = 1 + prng.below(self.servers as u64) as i64;
            let is_polite = prng.one_in(2);
            lock(&self.guests).insert(name.clone(), Leave::Silent);
            if let Ok(true) = Self::stay(sid, &name, is_polite) {
                lock(&self.guests).insert(name, Leave::Closed);
            }
            thread::sleep(PACE * 10);
        }
    }

    /// Whether the session was closed.
    fn stay(sid: i64, name: &str, is_polite: bool) -> io::Result<bool> {
        let hello = Hello { timeout_ms: GUEST_SESSION_MS, ..Hello::default() };
        let mut client = Client::attach_within(at(sid, CLIENT_PORT), &hello, PATIENCE)?;
        client.call(&create(&format!("/e/{name}"), b"", EPHEMERAL))?;
        if !is_polite {
            return Ok(false);
        }
        let close = Request::Write(WriteRequest::CloseSession);
        Ok(client.call(&close)?.header.code == ErrorCode::OK)
    }
}

/// Waits until something has come true; false after `limit`.
pub(crate) fn within(limit: Duration, mut is_true: impl FnMut() -> bool) -> bool {
    let deadline = Instant::now() + limit;
    while !is_true() {
        if deadline < Instant::now() {
            return false;
        }
        thread::sleep(Duration::from_millis(5));
    }
    true
}
