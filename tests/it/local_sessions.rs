//! Local sessions: an ensemble of ours, one of Apache ZooKeeper's, and mixtures show the same of
//! sessions that begin, move, want ephemerals, are closed and expire, and of the zxids all this
//! takes.

use std::path::Path;
use std::thread;

use ringkeeper::client::{Client, Hello};
use ringkeeper::model::{ErrorCode, Request, WriteRequest};

use super::apache::{self, Java};
use super::client::{self, create, exists, get, set};
use super::ensemble::{Ensemble, Program};
use super::peer::{self, within};

/// Which servers there are: the program of the leader, that of the member that is looked at, and
/// that of a third one.
struct Mixture {
    name: &'static str,
    leader: Program,
    asked: Program,
    third: Program,
}

/// The server with the highest sid leads, since it takes part in the first election and no history
/// is longer than another.
const LEADER: i64 = 3;
const ASKED: i64 = 2;

fn start(mixture: &Mixture, settings: &str) -> Ensemble {
    let mut ensemble = Ensemble::new(4);
    ensemble.lines = format!("{}:observer\n", ensemble.lines.trim_end());
    ensemble.start(LEADER, &mixture.leader, settings);
    ensemble.start(ASKED, &mixture.asked, settings);
    ensemble.all_serve();
    ensemble.start(1, &mixture.third, settings);
    ensemble.start(4, &mixture.asked, settings);
    ensemble.all_serve();
    assert_eq!(ensemble.leader(), LEADER, "{}", mixture.name);
    // Before the first txn, servers show different zxids.
    let mut client = client::connect(ensemble.ports[&LEADER]).expect("it serves");
    assert_eq!(client.code(&create("/first", b"first", 0)), ErrorCode::OK);
    ensemble.all_show("/first", "first");
    assert_eq!(client.code(&Request::Write(WriteRequest::CloseSession)), ErrorCode::OK);
    ensemble
}

struct Asking<'a> {
    ensemble: &'a Ensemble,
    sid: i64,
    /// A server that the client goes to.
    other: i64,
    said: Vec<String>,
    zxid: u64,
}

impl Asking<'_> {
    fn zxid(&self) -> u64 {
        let text = peer::word(self.ensemble.ports[&self.sid], "srvr");
        let zxid = text.lines().find_map(|line| line.strip_prefix("Zxid: 0x"));
        u64::from_str_radix(zxid.expect("it serves"), 16).expect("it is a number")
    }

    /// Writes down what was seen, how many txns it took, and how many sessions of each kind there
    /// are now.
    fn note(&mut self, what: &str) {
        let zxid = self.zxid();
        let mntr = peer::word(self.ensemble.ports[&self.sid], "mntr");
        let count = |kind: &str| {
            mntr.lines().find_map(|line| line.strip_prefix(&format!("zk_{kind}_sessions\t")))
        };
        let (local, global) = (count("local"), count("global"));
        let mode = self.ensemble.mode(self.sid);
        let took = zxid - self.zxid;
        self.said.push(format!("{mode}: {what}; {took} txns; {local:?} local, {global:?} global"));
        self.zxid = zxid;
    }

    fn begin(&mut self, timeout_ms: i32) -> Client {
        let hello = Hello { timeout_ms, ..Hello::default() };
        let client = Client::attach(("127.0.0.1", self.ensemble.ports[&self.sid]), &hello);
        let client = client.expect("it serves");
        self.note(&format!("a session begins with {} ms", client.session.timeout_ms));
        client
    }

    fn renew(&mut self, of: &Client, sid: i64, what: &str) -> Client {
        let held = &of.session;
        let hello = Hello { session: held.session, password: held.password, ..Hello::default() };
        let client = Client::attach(("127.0.0.1", self.ensemble.ports[&sid]), &hello);
        let client = client.expect("it serves");
        let is_same = client.session.session == held.session;
        let timeout_ms = client.session.timeout_ms;
        self.note(&format!("{what}: timeout {timeout_ms}, the same session: {is_same}"));
        client
    }

    fn ask(&mut self, client: &mut Client, request: &Request, what: &str) {
        let mut reply = client.call(request).expect("it is answered");
        let rest = reply.body.remaining();
        // Of a create its path, of a multi its codes.
        let rest = match request {
            Request::Write(WriteRequest::Multi(_)) => reply.body.take("rest", rest).ok(),
            _ => None,
        };
        self.note(&format!("{what}: {:?} {rest:?}", reply.header.code));
    }

    /// What `dump` says, without numbers of sessions and times.
    fn dump(&mut self) {
        let text = peer::word(self.ensemble.ports[&self.sid], "dump");
        let lines = text.lines().take_while(|line| !line.starts_with("Connections"));
        let lines: Vec<String> = lines
            .filter(|line| !line.contains(" expire at "))
            .map(|line| match line.split_once(" Session Sets (") {
                // Empty sets are counted by some.
                Some((kind, counts)) => {
                    let count = counts.split_once('/').map(|(_, count)| count);
                    format!("{kind} Session Sets ./{}", count.unwrap_or_default())
                }
                None if line.starts_with("0x") || line.starts_with("\t0x") => line
                    .trim_start_matches(|c: char| c.is_ascii_hexdigit() || "\tx".contains(c))
                    .to_owned(),
                None => line.to_owned(),
            })
            .collect();
        let mut lines = lines;
        lines.sort_unstable();
        self.said.push(format!("dump: {lines:#?}"));
    }
}

fn multi(paths: [(&str, i32); 2]) -> Request {
    let ops = paths.map(|(path, flags)| match create(path, b"", flags) {
        Request::Write(write) => write,
        _ => unreachable!("it is a write"),
    });
    Request::Write(WriteRequest::Multi(ops.into()))
}

/// What is seen of sessions at one server.
fn transcript(ensemble: &Ensemble, sid: i64, other: i64) -> Vec<String> {
    let mut asking = Asking { ensemble, sid, other, said: Vec::new(), zxid: 0 };
    let port = ensemble.ports[&sid];
    let is_alone = || peer::word(port, "mntr").contains("zk_local_sessions\t0\n").then_some(());
    within("sessions of before to expire", is_alone);
    asking.zxid = asking.zxid();
    let path = |name: &str| format!("/{sid}-{name}");
    let close = Request::Write(WriteRequest::CloseSession);

    let mut client = asking.begin(10_000);
    asking.ask(&mut client, &create(&path("a"), b"a", 0), "create");
    asking.ask(&mut client, &set(&path("a"), b"b"), "set");
    asking.ask(&mut client, &get(&path("a"), false), "get");
    asking.ask(&mut client, &Request::Sync { path: "/".into() }, "sync");
    asking.dump();
    asking.renew(&client, asking.other, "renewed elsewhere");
    let mut client = asking.renew(&client, sid, "renewed here");
    asking.ask(&mut client, &close, "close");
    asking.renew(&client, sid, "renewed when closed");

    let mut client = asking.begin(10_000);
    asking.ask(&mut client, &create(&path("a"), b"", 1), "an ephemeral that exists");
    asking.ask(&mut client, &create(&path("e"), b"", 1), "an ephemeral");
    asking.ask(&mut client, &create(&path("s"), b"", 3), "another one");
    asking.ask(&mut client, &exists(&path("e"), false), "it exists");
    asking.dump();
    let moved = asking.renew(&client, asking.other, "renewed elsewhere");
    let mut client = asking.renew(&moved, sid, "renewed here");
    asking.ask(&mut client, &create(&path("f"), b"", 1), "an ephemeral of the renewed one");
    asking.ask(&mut client, &close, "close");

    let mut client = asking.begin(10_000);
    let both = multi([(&path("m"), 0), (&path("n"), 1)]);
    asking.ask(&mut client, &both, "a multi with an ephemeral");
    asking.ask(&mut client, &multi([(&path("o"), 0), (&path("p"), 2)]), "a multi without one");
    asking.ask(&mut client, &close, "close");

    let silent = asking.begin(4_000);
    within("the silent session to expire", is_alone);
    asking.renew(&silent, sid, "renewed when expired");
    asking.said
}

fn all(mixture: &Mixture, settings: &str) -> Vec<String> {
    let ensemble = start(mixture, settings);
    let mut said = Vec::new();
    for (sid, other) in [(LEADER, ASKED), (ASKED, LEADER), (4, ASKED)] {
        said.extend(transcript(&ensemble, sid, other));
    }
    said
}

fn compare(test: &str, settings: &str, apache_leads: bool) {
    let jars = apache::jars();
    let Some(jars) = jars else {
        let ours = [(); 3].map(|()| Program::Ours);
        let [leader, asked, third] = ours;
        all(&Mixture { name: "ours", leader, asked, third }, settings);
        return apache::skip(test, "no java or no Apache ZooKeeper to compare with");
    };
    let mixtures = mixtures(&jars, apache_leads);
    let said: Vec<Vec<String>> = thread::scope(|scope| {
        let threads = mixtures.each_ref().map(|mixture| scope.spawn(|| all(mixture, settings)));
        threads.into_iter().map(|thread| thread.join().expect("it does not panic")).collect()
    });
    let [theirs, others @ ..] = said.as_slice() else { panic!("there are several") };
    assert!(70 < theirs.len(), "{}", theirs.len());
    for (said, mixture) in others.iter().zip(&mixtures[1..]) {
        apache::assert_same(mixture.name, said, theirs);
    }
}

/// Apache's servers by themselves come first.
fn mixtures(jars: &Path, apache_leads: bool) -> [Mixture; 2] {
    let apache = || Program::Apache(Java::new(jars));
    let theirs = Mixture { name: "Apache", leader: apache(), asked: apache(), third: apache() };
    let ours = || Program::Ours;
    let other = match apache_leads {
        false => Mixture { name: "ours", leader: ours(), asked: ours(), third: ours() },
        true => Mixture {
            name: "ours below Apache's",
            leader: apache(),
            asked: ours(),
            third: apache(),
        },
    };
    [theirs, other]
}

const UPGRADED: &str = "localSessionsEnabled=true\nlocalSessionsUpgradingEnabled=true";

#[test]
fn they_are_what_they_are_at_apache() {
    compare("they_are_what_they_are_at_apache", UPGRADED, false);
}

#[test]
fn they_own_no_ephemerals_without_upgrading() {
    compare("they_own_no_ephemerals_without_upgrading", "localSessionsEnabled=true", false);
}

#[test]
fn ours_may_have_an_apache_leader() {
    compare("ours_may_have_an_apache_leader", UPGRADED, true);
}

#[test]
fn apaches_may_have_a_leader_of_ours() {
    let test = "apaches_may_have_a_leader_of_ours";
    let Some(jars) = apache::jars() else {
        return apache::skip(test, "no java or no Apache ZooKeeper");
    };
    let apache = || Program::Apache(Java::new(&jars));
    let mixture =
        Mixture { name: "below ours", leader: Program::Ours, asked: apache(), third: apache() };
    let ensemble = start(&mixture, UPGRADED);
    let below = transcript(&ensemble, ASKED, 1);
    let ours = transcript(&ensemble, LEADER, ASKED);
    // Followers of either kind see the same of each other's.
    let mut client = client::connect(ensemble.ports[&ASKED]).expect("it serves");
    assert_eq!(client.code(&create("/e", b"e", 1)), ErrorCode::OK);
    ensemble.all_show("/e", "e");
    let plain = |said: &[String]| {
        let lines = said.iter().filter(|line| !line.starts_with("dump"));
        let lines = lines.filter_map(|line| line.split_once(": "));
        // Of the paths their numbers.
        let plain = |rest: &str| rest.replace(|c: char| c.is_ascii_digit(), "");
        lines.map(|(_, rest)| plain(rest)).collect::<Vec<_>>()
    };
    assert_eq!(plain(&below), plain(&ours));
}
