//! Ensembles of real processes, also together with Apache ZooKeeper's servers: leaders and
//! followers are killed, stopped and replaced under load, and nothing acknowledged is lost.

use std::collections::BTreeMap;
use std::fs;
use std::io::{self, Read};
use std::net::TcpStream;
use std::path::PathBuf;
use std::process::Child;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use ringkeeper::client::{Client, Hello, Reply};
use ringkeeper::model::{ErrorCode, Request, SessionId, Zxid};

use super::apache::{self, Java};
use super::client::{self, create, get, list, set};
use super::peer::{self, within};

/// Which program a server runs.
#[derive(Clone)]
pub(crate) enum Program {
    Ours,
    Apache(Java),
}

/// For servers that hang and keep their sockets: the others give them up at once. Whose process
/// ends is given up without it.
pub(crate) const QUICK: &str = "ringkeeper.detectMillis=300\n";

/// A server that was not run for a while is not given up, which would end clients' connections.
const PATIENT: &str = "ringkeeper.detectMillis=20000\n";

/// Servers by sid, each with a directory of its own.
pub(crate) struct Ensemble {
    pub(crate) home: PathBuf,
    /// The `server.N` lines of every server.
    pub(crate) lines: String,
    /// Client ports.
    pub(crate) ports: BTreeMap<i64, u16>,
    pub(crate) servers: BTreeMap<i64, Child>,
}

impl Ensemble {
    /// Directories and ports for so many servers; none is started.
    pub(crate) fn new(count: i64) -> Self {
        let home = peer::fresh_directory();
        let mut lines = String::new();
        let mut ports = BTreeMap::new();
        for sid in 1..=count {
            let [quorum, election] = [(); 2].map(|()| peer::free_port());
            lines += &format!("server.{sid}=127.0.0.1:{quorum}:{election}\n");
            ports.insert(sid, peer::free_port());
        }
        Self { home, lines, ports, servers: BTreeMap::new() }
    }

    /// All of them, running the server of this package.
    pub(crate) fn ours(count: i64, extra: &str) -> Self {
        Self::all(count, &Program::Ours, extra)
    }

    /// All of them, running one program.
    pub(crate) fn all(count: i64, program: &Program, extra: &str) -> Self {
        let mut ensemble = Self::new(count);
        for sid in 1..=count {
            ensemble.start(sid, program, extra);
        }
        ensemble
    }

    /// Writes a server's directory and configuration; where they are.
    pub(crate) fn configure(&self, sid: i64, extra: &str) -> PathBuf {
        self.configure_with(sid, &self.lines, extra)
    }

    fn configure_with(&self, sid: i64, lines: &str, extra: &str) -> PathBuf {
        let home = self.home.join(sid.to_string());
        fs::create_dir_all(home.join("data")).expect("the directory is writable");
        fs::write(home.join("data/myid"), sid.to_string()).expect("the directory is writable");
        let extra = format!("initLimit=20\nsyncLimit=10\n{lines}{extra}");
        peer::write_config(&home, self.ports[&sid], &extra);
        home
    }

    /// What is not in `extra` is set so that a slow machine alone makes no election.
    fn configure_for(&self, sid: i64, program: &Program, lines: &str, extra: &str) {
        match program {
            Program::Ours => self.configure_with(sid, lines, &format!("{PATIENT}{extra}")),
            Program::Apache(_) => self.configure_with(sid, lines, extra),
        };
    }

    pub(crate) fn start(&mut self, sid: i64, program: &Program, extra: &str) {
        self.configure_for(sid, program, &self.lines, extra);
        self.run(sid, program);
    }

    /// The same with `server.N` lines of its own.
    pub(crate) fn start_with(&mut self, sid: i64, program: &Program, lines: &str, extra: &str) {
        self.configure_for(sid, program, lines, extra);
        self.run(sid, program);
    }

    /// Starts a server on the configuration that is there.
    pub(crate) fn run(&mut self, sid: i64, program: &Program) {
        let home = self.home.join(sid.to_string());
        let child = match program {
            Program::Ours => peer::spawn(&home.join("zoo.cfg")),
            Program::Apache(java) => java.spawn(&home),
        };
        self.servers.insert(sid, child);
    }

    pub(crate) fn signal(&self, sid: i64, signal: i32) {
        peer::signal(&self.servers[&sid], signal);
    }

    pub(crate) fn kill(&mut self, sid: i64) {
        let mut child = self.servers.remove(&sid).expect("it was started");
        child.kill().expect("the child is ours");
        child.wait().expect("the child is ours");
    }

    /// Whether a process has ended by itself.
    pub(crate) fn has_ended(&mut self, sid: i64) -> bool {
        let child = self.servers.get_mut(&sid).expect("it was started");
        child.try_wait().expect("the child is ours").is_some()
    }

    /// It has ended.
    pub(crate) fn forget(&mut self, sid: i64) {
        self.servers.remove(&sid);
    }

    /// SIGTERM, and whether the process ended well.
    pub(crate) fn stop(&mut self, sid: i64) -> bool {
        self.signal(sid, libc::SIGTERM);
        let mut child = self.servers.remove(&sid).expect("it was started");
        child.wait().expect("the child is ours").success()
    }

    pub(crate) fn mode(&self, sid: i64) -> String {
        let text = peer::word(self.ports[&sid], "srvr");
        let mode = text.lines().find_map(|line| line.strip_prefix("Mode: "));
        mode.unwrap_or_default().to_owned()
    }

    /// The one server that leads.
    pub(crate) fn leader(&self) -> i64 {
        within("a leader", || self.servers.keys().copied().find(|sid| self.mode(*sid) == "leader"))
    }

    /// Waits until every server that was started serves.
    pub(crate) fn all_serve(&self) {
        for sid in self.servers.keys() {
            within(&format!("server {sid} to serve ({})", self.log(*sid)), || {
                (!self.mode(*sid).is_empty()).then_some(())
            });
        }
    }

    pub(crate) fn log(&self, sid: i64) -> String {
        let home = self.home.join(sid.to_string());
        let read = |name: &str| fs::read_to_string(home.join(name)).unwrap_or_default();
        let all = read("log") + &read("apache.log");
        let lines: Vec<&str> = all.lines().collect();
        lines[lines.len().saturating_sub(15)..].join("\n")
    }

    fn zxids(&self) -> Vec<String> {
        let zxid = |port: &u16| {
            let text = peer::word(*port, "srvr");
            text.lines().find_map(|line| line.strip_prefix("Zxid: ").map(str::to_owned))
        };
        self.servers.keys().filter_map(|sid| zxid(&self.ports[sid])).collect()
    }

    /// Every server shows `value` at `path`.
    pub(crate) fn all_show(&self, path: &str, value: &str) {
        for sid in self.servers.keys() {
            within(&format!("server {sid} to show {value} at {path}"), || {
                let mut client = client::connect(self.ports[sid]).ok()?;
                let mut reply = client.call(&get(path, false)).ok()?;
                let data = reply.body.buffer("data").ok()??;
                (data.as_ref() == value.as_bytes()).then_some(())
            });
        }
    }
}

impl Drop for Ensemble {
    fn drop(&mut self) {
        for child in self.servers.values_mut() {
            let _ended = child.kill();
            let _status = child.wait();
        }
        if !thread::panicking() {
            peer::clean(&self.home);
        }
    }
}

/// A client that goes on with its session from server to server.
pub(crate) struct Wanderer {
    ports: Vec<u16>,
    at: usize,
    hello: Hello,
    client: Option<Client>,
}

impl Wanderer {
    pub(crate) fn new(ports: Vec<u16>) -> Self {
        let hello = Hello { timeout_ms: 300_000, ..Hello::default() };
        Self { ports, at: 0, hello, client: None }
    }

    /// One attempt: `None` if the connection was lost, or there was none.
    pub(crate) fn attempt(&mut self, request: &Request) -> Option<ErrorCode> {
        self.reply(request).map(|reply| reply.header.code)
    }

    /// The number at a path, no older than this call.
    fn synced_number(&mut self, path: &str) -> Option<u64> {
        if self.attempt(&Request::Sync { path: path.into() })? != ErrorCode::OK {
            return None;
        }
        // It was answered, so this goes the same way.
        let mut reply = self.reply(&get(path, false))?;
        let data = reply.body.buffer("data").ok()??;
        std::str::from_utf8(&data).ok()?.parse().ok()
    }

    /// The same, with all that is answered.
    fn reply(&mut self, request: &Request) -> Option<Reply> {
        if self.client.is_none() {
            self.at += 1;
            let port = self.ports[self.at % self.ports.len()];
            let client = Client::attach(("127.0.0.1", port), &self.hello).ok()?;
            self.hello.session = client.session.session;
            self.hello.password = client.session.password;
            self.client = Some(client);
        }
        let reply = self.client.as_mut()?.call(request);
        match reply {
            Ok(reply) => {
                assert_ne!(reply.header.code, ErrorCode::SESSION_MOVED, "nobody is told");
                self.hello.last_zxid_seen = self.hello.last_zxid_seen.max(reply.header.zxid);
                Some(reply)
            }
            Err(_) => {
                self.client = None;
                None
            }
        }
    }

    /// Tries until there is an answer.
    pub(crate) fn insist(&mut self, request: &Request) -> ErrorCode {
        within("an answer", || self.attempt(request))
    }
}

/// Writes ever larger numbers to a znode of its own until told to end.
pub(crate) struct Writer {
    path: String,
    /// The last number that was acknowledged.
    acknowledged: Arc<Mutex<u64>>,
    ends: Arc<AtomicBool>,
    thread: JoinHandle<SessionId>,
}

impl Writer {
    pub(crate) fn start(path: &str, ports: Vec<u16>) -> Self {
        let path = path.to_owned();
        let acknowledged = Arc::new(Mutex::new(0));
        let ends = Arc::new(AtomicBool::new(false));
        let mut wanderer = Wanderer::new(ports);
        let created = wanderer.insist(&create(&path, b"0", 0));
        assert!(matches!(created, ErrorCode::OK | ErrorCode::NODE_EXISTS), "{created:?}");
        let (to, told, own) = (Arc::clone(&acknowledged), Arc::clone(&ends), path.clone());
        let thread = thread::spawn(move || {
            for number in 1_u64.. {
                let request = set(&own, number.to_string().as_bytes());
                let code = within("an answer", || {
                    if wanderer.client.is_none() {
                        // Before it is written over: what was acknowledged is there, and what is
                        // there stays.
                        let shown = wanderer.synced_number(&own)?;
                        let mut acknowledged = to.lock().expect("nobody panics");
                        assert!(
                            *acknowledged <= shown && shown <= number,
                            "{own} is {shown} after {acknowledged} was acknowledged, {number} sent"
                        );
                        *acknowledged = shown;
                    }
                    wanderer.attempt(&request)
                });
                if code == ErrorCode::OK {
                    *to.lock().expect("nobody panics") = number;
                }
                if told.load(Ordering::Relaxed) {
                    break;
                }
            }
            wanderer.hello.session
        });
        Self { path, acknowledged, ends, thread }
    }

    pub(crate) fn count(&self) -> u64 {
        *self.acknowledged.lock().expect("nobody panics")
    }

    /// Waits until writes are acknowledged again.
    pub(crate) fn goes_on(&self) {
        let before = self.count();
        within("writes to go on", || (before + 3 < self.count()).then_some(()));
    }

    /// Ends, and checks that every server shows the last acknowledged number.
    pub(crate) fn end(self, ensemble: &Ensemble) -> SessionId {
        self.ends.store(true, Ordering::Relaxed);
        let session = self.thread.join().expect("the writer does not panic");
        let last = *self.acknowledged.lock().expect("nobody panics");
        ensemble.all_show(&self.path, &last.to_string());
        session
    }
}

#[test]
fn every_server_serves_reads_and_writes() {
    let ensemble = Ensemble::ours(3, "");
    ensemble.all_serve();
    for (number, port) in ensemble.ports.values().enumerate() {
        let mut client = client::connect_for_long(*port).expect("it serves");
        assert_eq!(client.code(&create(&format!("/n{number}"), b"x", 0)), ErrorCode::OK);
        assert_eq!(client.code(&create(&format!("/n{number}"), b"x", 0)), ErrorCode::NODE_EXISTS);
        assert_eq!(client.code(&Request::Sync { path: "/".into() }), ErrorCode::OK);
        let mut reply = client.call(&list("/", false)).expect("it serves");
        let names = reply.body.vector("children", |reader| reader.some_str("child"));
        let names = names.expect("it decodes").expect("not null");
        assert_eq!(names.len(), number + 2, "a sync shows what other servers were told: {names:?}");
    }
    let modes: Vec<String> = ensemble.servers.keys().map(|sid| ensemble.mode(*sid)).collect();
    assert_eq!(modes.iter().filter(|mode| *mode == "leader").count(), 1, "{modes:?}");
    assert_eq!(modes.iter().filter(|mode| *mode == "follower").count(), 2, "{modes:?}");
}

#[test]
fn nothing_acknowledged_is_lost_when_servers_end() {
    let settings = format!("{QUICK}snapCount=500\npreAllocSize=4096");
    let mut ensemble = Ensemble::ours(3, &settings);
    ensemble.all_serve();
    let ports: Vec<u16> = ensemble.ports.values().copied().collect();
    let writers = ["/a", "/b"].map(|path| Writer::start(path, ports.clone()));
    for round in 0..6 {
        let leader = ensemble.leader();
        let follower = ensemble.ports.keys().copied().find(|sid| *sid != leader).unwrap_or(leader);
        writers[0].goes_on();
        match round {
            0 | 3 => ensemble.kill(leader),
            1 => assert!(ensemble.stop(leader), "{}", ensemble.log(leader)),
            2 | 4 => ensemble.kill(follower),
            _ => ensemble.signal(leader, libc::SIGSTOP),
        }
        writers.iter().for_each(Writer::goes_on);
        for sid in 1..=3 {
            if !ensemble.servers.contains_key(&sid) {
                ensemble.start(sid, &Program::Ours, &settings);
            }
        }
        if round == 5 {
            ensemble.signal(leader, libc::SIGCONT);
        }
        ensemble.all_serve();
    }
    for writer in writers {
        writer.end(&ensemble);
    }
    within("all servers to have the same", || {
        let zxids = ensemble.zxids();
        (zxids.len() == 3 && zxids.windows(2).all(|pair| pair[0] == pair[1])).then_some(())
    });
}

#[test]
fn sessions_and_ephemerals_outlive_a_rolling_restart() {
    let mut ensemble = Ensemble::ours(3, "");
    ensemble.all_serve();
    let ports: Vec<u16> = ensemble.ports.values().copied().collect();
    let mut owner = Wanderer::new(ports.clone());
    assert_eq!(owner.insist(&create("/mine", b"", 1)), ErrorCode::OK);
    let session = owner.hello.session;
    let writer = Writer::start("/w", ports);
    for sid in 1..=3 {
        assert!(ensemble.stop(sid), "{}", ensemble.log(sid));
        writer.goes_on();
        ensemble.start(sid, &Program::Ours, "");
        ensemble.all_serve();
        assert_eq!(owner.insist(&get("/mine", false)), ErrorCode::OK);
    }
    assert_eq!(owner.hello.session, session, "the session is the one that it was");
    writer.end(&ensemble);
    ensemble.all_show("/mine", "");
}

#[test]
fn a_server_without_data_and_one_far_behind_are_brought_up() {
    let mut ensemble = Ensemble::ours(3, "snapCount=200\npreAllocSize=4096");
    ensemble.all_serve();
    let ports: Vec<u16> = ensemble.ports.values().copied().collect();
    let behind = ensemble.ports.keys().copied().find(|sid| *sid != ensemble.leader()).unwrap_or(1);
    ensemble.kill(behind);
    let writer = Writer::start("/w", ports);
    within("many writes", || (300 < writer.count()).then_some(()));
    // Those that stay restart, so that what they keep in memory begins with a snapshot.
    for sid in ensemble.servers.keys().copied().collect::<Vec<_>>() {
        ensemble.kill(sid);
        ensemble.start(sid, &Program::Ours, "snapCount=200\npreAllocSize=4096");
        writer.goes_on();
    }
    ensemble.start(behind, &Program::Ours, "snapCount=200\npreAllocSize=4096");
    ensemble.all_serve();
    ensemble.kill(behind);
    fs::remove_dir_all(ensemble.home.join(behind.to_string())).expect("it is ours");
    ensemble.start(behind, &Program::Ours, "");
    ensemble.all_serve();
    writer.end(&ensemble);
}

#[test]
fn observers_and_servers_on_several_shards_serve_too() {
    let mut ensemble = Ensemble::new(4);
    ensemble.lines = format!("{}:observer\n", ensemble.lines.trim_end());
    for sid in 1..=4 {
        ensemble.start(sid, &Program::Ours, "ringkeeper.shards=2");
    }
    ensemble.all_serve();
    assert_eq!(ensemble.mode(4), "observer");
    let writer = Writer::start("/w", vec![ensemble.ports[&4]]);
    writer.goes_on();
    ensemble.kill(ensemble.leader());
    writer.goes_on();
    writer.end(&ensemble);
}

#[test]
fn a_session_expires_though_its_follower_hears_of_no_other() {
    let ensemble = Ensemble::ours(3, "");
    ensemble.all_serve();
    let leader = ensemble.leader();
    let follower = (1..=3).find(|sid| *sid != leader).expect("there are three");
    let hello = Hello { timeout_ms: 4_000, ..Hello::default() };
    let mut owner = Client::attach(("127.0.0.1", ensemble.ports[&follower]), &hello);
    let owner = owner.as_mut().expect("it serves");
    assert_eq!(owner.code(&create("/mine", b"", 1)), ErrorCode::OK);
    let mut other = client::connect_for_long(ensemble.ports[&leader]).expect("it serves");
    assert_eq!(other.code(&get("/mine", false)), ErrorCode::OK);
    // Its client is silent; the connection stays.
    within("the session to expire", || {
        (other.code(&get("/mine", false)) == ErrorCode::NO_NODE).then_some(())
    });
    assert!(owner.is_closed(), "its client is told");
}

/// Where a session was before it moved, a write ends the connection without a reply: its client is
/// to come again.
#[test]
fn a_session_that_has_moved_is_answered_nothing_where_it_was() {
    let mut ensemble = Ensemble::new(4);
    ensemble.lines = format!("{}:observer\n", ensemble.lines.trim_end());
    for sid in 1..=4 {
        ensemble.start(sid, &Program::Ours, "");
    }
    ensemble.all_serve();
    let leader = ensemble.leader();
    let follower = (1..=3).find(|sid| *sid != leader).expect("there are three");
    let attach = |sid: i64, hello: &Hello| {
        Client::attach(("127.0.0.1", ensemble.ports[&sid]), hello).expect("it serves")
    };
    let long = Hello { timeout_ms: 600_000, ..Hello::default() };
    let mut first = attach(follower, &long);
    assert_eq!(first.code(&create("/moves", b"", 1)), ErrorCode::OK);
    let (session, password) = (first.session.session, first.session.password);
    let hello = Hello { session, password, ..long.clone() };
    let mut second = attach(4, &hello);
    assert_eq!(second.code(&create("/there", b"", 1)), ErrorCode::OK);
    assert!(first.call(&create("/late", b"", 0)).is_err(), "it is no answer for a client");
    assert_eq!(second.code(&get("/late", false)), ErrorCode::NO_NODE);
    let mut third = attach(follower, &hello);
    assert_eq!(third.code(&get("/moves", false)), ErrorCode::OK, "it lives");
}

/// A server that was elected and restarted leads no more: who comes to follow it must look again at
/// once, not when the init limit is over.
#[test]
fn nobody_is_kept_waiting_at_a_server_that_does_not_lead() {
    let mut ensemble = Ensemble::new(3);
    ensemble.start(1, &Program::Ours, QUICK);
    let quorum: u16 = ensemble.lines.split(':').nth(1).expect("a port").parse().expect("a port");
    let mut stream = within("the port", || TcpStream::connect(("127.0.0.1", quorum)).ok());
    let since = Instant::now();
    stream.set_read_timeout(Some(Duration::from_secs(30))).expect("it is open");
    assert!(matches!(stream.read(&mut [0]), Ok(0) | Err(_)));
    // The init limit is 40 s.
    assert!(since.elapsed() < Duration::from_secs(25), "{:?}", since.elapsed());
}

#[test]
fn without_a_quorum_nobody_is_served() {
    let mut ensemble = Ensemble::ours(3, "");
    ensemble.all_serve();
    let leader = ensemble.leader();
    for sid in (1..=3).filter(|sid| *sid != leader) {
        ensemble.kill(sid);
    }
    within("the leader to give up", || ensemble.mode(leader).is_empty().then_some(()));
    let text = peer::word(ensemble.ports[&leader], "stat");
    assert_eq!(text, "This ZooKeeper instance is not currently serving requests\n");
    assert!(client::connect(ensemble.ports[&leader]).is_err(), "no session begins");
    assert!(ensemble.stop(leader), "it stops as planned all the same");
}

/// Apache's servers of one version, one of them for each of ours, in every mixture that has both.
fn mixed(test: &str, jars: &str) {
    let Some(jars) = apache::jars_of(jars) else {
        return apache::skip(test, "Apache ZooKeeper's jars or Java are missing");
    };
    let apache = Program::Apache(Java::new(&jars));
    let mut ensemble = Ensemble::new(3);
    for sid in 1..=3 {
        ensemble.start(sid, &apache, "");
    }
    ensemble.all_serve();
    let ports: Vec<u16> = ensemble.ports.values().copied().collect();
    let writer = Writer::start("/w", ports.clone());
    let mut owner = Wanderer::new(ports);
    assert_eq!(owner.insist(&create("/mine", b"", 1)), ErrorCode::OK);
    let session = owner.hello.session;
    // One server at a time to ours, the leader last or not, as the sids have it; then back.
    for program in [&Program::Ours, &apache] {
        for sid in 1..=3 {
            ensemble.kill(sid);
            // What an Apache server leaves is imported; what one of ours leaves it cannot read.
            if sid != 2 || matches!(program, Program::Apache(_)) {
                fs::remove_dir_all(ensemble.home.join(sid.to_string())).expect("it is ours");
            }
            ensemble.start(sid, program, "");
            ensemble.all_serve();
            writer.goes_on();
            assert_eq!(owner.insist(&get("/mine", false)), ErrorCode::OK);
        }
    }
    assert_eq!(owner.hello.session, session, "the session is the one that it was");
    writer.end(&ensemble);
}

#[test]
fn an_ensemble_of_apache_3_9_migrates_one_by_one_and_back() {
    mixed("an_ensemble_of_apache_3_9_migrates_one_by_one_and_back", "zookeeper");
}

#[test]
fn an_ensemble_of_apache_3_8_migrates_one_by_one_and_back() {
    mixed("an_ensemble_of_apache_3_8_migrates_one_by_one_and_back", "zookeeper-3.8");
}

/// An Apache learner takes the writes and syncs of its clients for answered in their order: once
/// one is not, it answers nobody any more.
#[test]
fn writes_and_syncs_at_an_apache_follower_are_answered_in_their_order() {
    let test = "writes_and_syncs_at_an_apache_follower_are_answered_in_their_order";
    let Some(jars) = apache::jars_of("zookeeper") else {
        return apache::skip(test, "Apache ZooKeeper's jars or Java are missing");
    };
    let mut ensemble = Ensemble::new(3);
    ensemble.start(1, &Program::Apache(Java::new(&jars)), "");
    for sid in [2, 3] {
        ensemble.start(sid, &Program::Ours, "");
    }
    ensemble.all_serve();
    assert_ne!(ensemble.leader(), 1, "of equal histories the largest number leads");
    let port = ensemble.ports[&1];
    let mut first = client::connect_for_long(port).expect("it serves");
    assert_eq!(first.code(&create("/s", b"", 0)), ErrorCode::OK);
    let sync = Request::Sync { path: "/s".into() };
    let clients = (0..4).map(|_| {
        let sync = sync.clone();
        thread::spawn(move || {
            let mut client = client::connect_for_long(port).expect("it serves");
            for _ in 0..40 {
                for _ in 0..10 {
                    for request in [&set("/s", b"1"), &sync, &set("/s", b"2")] {
                        client.send(request).expect("it is open");
                    }
                }
                for _ in 0..30 {
                    assert_eq!(client.receive().expect("an answer").header.code, ErrorCode::OK);
                }
            }
        })
    });
    for client in clients.collect::<Vec<_>>() {
        client.join().expect("everything is answered");
    }
}

/// Two servers of ours, and an Apache server that has logged `/alone`, which nobody else has, in an
/// epoch of its own: none of them runs. And the session that all of them know.
struct Alone {
    ensemble: Ensemble,
    apache: Program,
    session: Hello,
}

impl Alone {
    fn new(test: &str) -> Option<Self> {
        let Some(jars) = apache::jars_of("zookeeper") else {
            apache::skip(test, "Apache ZooKeeper's jars or Java are missing");
            return None;
        };
        let apache = Program::Apache(Java::new(&jars));
        let mut ensemble = Ensemble::new(3);
        for sid in [1, 2] {
            ensemble.start(sid, &Program::Ours, "");
        }
        ensemble.start(3, &apache, "");
        ensemble.all_serve();
        let client = client::connect_for_long(ensemble.ports[&1]).expect("it serves");
        let (session, password) = (client.session.session, client.session.password);
        let session = Hello { session, password, timeout_ms: 600_000, ..Hello::default() };
        drop(client);
        within("all servers to have the session", || {
            let zxids = ensemble.zxids();
            (zxids.len() == 3 && zxids.windows(2).all(|pair| pair[0] == pair[1])).then_some(())
        });
        (1..=3).for_each(|sid| ensemble.kill(sid));
        // Of equal histories the largest number leads. The other one is made to take nothing.
        ensemble.run(3, &apache);
        ensemble.run(1, &Program::Ours);
        within("Apache's server to lead", || (ensemble.mode(3) == "leader").then_some(()));
        let mut alone = Self { ensemble, apache, session };
        let mut client = within("the session", || alone.attach(3, Zxid::ZERO).ok());
        alone.ensemble.signal(1, libc::SIGSTOP);
        client.send(&create("/alone", b"", 0)).expect("it is open");
        let log = alone.ensemble.home.join("3/data/version-2/log.200000001");
        let has_logged = || {
            let log = fs::read(&log).unwrap_or_default();
            log.windows(6).any(|bytes| bytes == b"/alone").then_some(())
        };
        within("it to log what nobody else does", has_logged);
        [3, 1].into_iter().for_each(|sid| alone.ensemble.kill(sid));
        Some(alone)
    }

    /// The session's client goes there, and has seen so much.
    fn attach(&self, sid: i64, seen: Zxid) -> io::Result<Client> {
        let hello = Hello { last_zxid_seen: seen, ..self.session.clone() };
        Client::attach(("127.0.0.1", self.ensemble.ports[&sid]), &hello)
    }

    /// What a server answers a client that reads `/alone`.
    fn read(&self, sid: i64) -> ErrorCode {
        let mut client = within("the session", || self.attach(sid, Zxid::ZERO).ok());
        client.code(&get("/alone", false))
    }

    /// A txn later the Apache server starts again.
    fn goes_on(&mut self) {
        let mut client = within("the session", || self.attach(1, Zxid::ZERO).ok());
        assert_eq!(client.code(&create("/after", b"", 0)), ErrorCode::OK);
        self.ensemble.all_show("/after", "");
        self.ensemble.kill(3);
        self.ensemble.run(3, &self.apache);
        self.ensemble.all_show("/after", "");
    }
}

/// An Apache server keeps its log beside a leader's snapshot, and applies again what stands there
/// behind the snapshot's zxid: its own txns that nobody else had must not be there. They stand
/// before the beginning of the epoch, which it shows as its zxid until the first txn; whoever has
/// seen that is served here, too.
#[test]
fn what_an_apache_server_alone_has_logged_does_not_come_back() {
    let test = "what_an_apache_server_alone_has_logged_does_not_come_back";
    let Some(mut alone) = Alone::new(test) else { return };
    for sid in [1, 2] {
        alone.ensemble.run(sid, &Program::Ours);
    }
    alone.ensemble.all_serve();
    alone.ensemble.run(3, &alone.apache);
    alone.ensemble.all_serve();
    let mut client = within("the session", || alone.attach(3, Zxid::ZERO).ok());
    let seen = client.call(&get("/", false)).expect("it serves").header.zxid;
    assert_eq!(seen, Zxid::new(3, 0), "the epoch's beginning");
    for sid in [1, 2] {
        let mut client = alone.attach(sid, seen).expect("it has all that was seen");
        assert_eq!(client.code(&get("/alone", false)), ErrorCode::NO_NODE);
    }
    alone.goes_on();
    assert_eq!([1, 2, 3].map(|sid| alone.read(sid)), [ErrorCode::NO_NODE; 3]);
}

/// A leader that needs that server to be established has served in an epoch behind its txns.
#[test]
fn nor_does_it_where_that_server_is_needed() {
    let test = "nor_does_it_where_that_server_is_needed";
    let Some(mut alone) = Alone::new(test) else { return };
    for sid in [1, 2] {
        alone.ensemble.run(sid, &Program::Ours);
    }
    alone.ensemble.all_serve();
    alone.ensemble.kill(2);
    alone.ensemble.run(3, &alone.apache);
    within("it to serve", || (alone.ensemble.mode(3) == "follower").then_some(()));
    alone.ensemble.all_serve();
    alone.goes_on();
    assert_eq!([1, 3].map(|sid| alone.read(sid)), [ErrorCode::NO_NODE; 2]);
}
