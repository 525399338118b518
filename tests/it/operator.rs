//! What the members of an ensemble tell their operator: the four-letter words of a leader, a
//! follower, an observer, and of servers without a quorum, beside Apache ZooKeeper's.

use std::collections::BTreeMap;
use std::thread;

use ringkeeper::model::ErrorCode;
use ringkeeper::wire::word::Word;

use super::apache::{self, Java};
use super::client::{self, Client, create, exists, list};
use super::ensemble::{Ensemble, Program};
use super::peer::{self, within};

/// Keys of `mntr` whose values the requests below determine.
const SAME: [&str; 16] = [
    "server_state",
    "peer_state",
    "quorum_size",
    "learners",
    "synced_followers",
    "synced_non_voting_followers",
    "synced_observers",
    "pending_syncs",
    "last_proposal_size",
    "min_proposal_size",
    "max_proposal_size",
    "znode_count",
    "watch_count",
    "ephemerals_count",
    "global_sessions",
    "local_sessions",
];

/// Keys that are there, with a number.
const THERE: [&str; 13] = [
    "avg_latency",
    "min_latency",
    "max_latency",
    "packets_received",
    "packets_sent",
    "num_alive_connections",
    "outstanding_requests",
    "approximate_data_size",
    "open_file_descriptor_count",
    "max_file_descriptor_count",
    "connection_drop_probability",
    "uptime",
    "leader_uptime",
];

/// Three voters and an observer.
fn start(program: &Program) -> Ensemble {
    let mut ensemble = Ensemble::new(4);
    ensemble.lines = format!("{}:observer\n", ensemble.lines.trim_end());
    for sid in 1..=4 {
        ensemble.start(sid, program, "");
    }
    ensemble.all_serve();
    ensemble
}

/// Numbers as N, hexadecimal ones as 0xN, the version as V.
fn normal(text: &str) -> String {
    let mut normal = String::new();
    let mut before = ' ';
    let mut is_hex = false;
    for next in text.chars() {
        is_hex = (is_hex && next.is_ascii_hexdigit()) || (before == '0' && next == 'x');
        match next {
            '0'..='9' | '.' if normal.ends_with('N') => {}
            _ if is_hex && next != 'x' && normal.ends_with("0xN") => {}
            _ if is_hex && next != 'x' => normal.push('N'),
            'x' if is_hex => {
                normal.pop();
                normal.push_str("0x");
            }
            '0'..='9' => normal.push('N'),
            _ => normal.push(next),
        }
        before = next;
    }
    let lines = normal.split('\n').map(|line| match line.split_once("version: ") {
        Some((front, _)) => format!("{front}version: V"),
        None => line.to_owned(),
    });
    lines.collect::<Vec<_>>().join("\n")
}

/// With its lines in order.
fn sorted(text: &str) -> String {
    let mut lines: Vec<&str> = text.split('\n').collect();
    lines.sort_unstable();
    lines.join("\n")
}

fn metrics(port: u16) -> BTreeMap<String, String> {
    let text = peer::word(port, "mntr");
    text.lines()
        .map(|line| {
            let (key, value) = line.split_once('\t').expect("a key, a tab and a value");
            let key = key.strip_prefix("zk_").expect("every key begins so");
            let is_word = |c: char| c.is_ascii_alphanumeric() || "_.-".contains(c);
            assert!(key.chars().all(is_word), "agents accept no other keys: {line}");
            (key.to_owned(), value.to_owned())
        })
        .collect()
}

fn modes(ensemble: &Ensemble) -> [(i64, &'static str); 3] {
    let leader = ensemble.leader();
    let follower = (1..=3).find(|sid| *sid != leader).expect("there are three");
    [(leader, "leader"), (follower, "follower"), (4, "observer")]
}

/// What words say on each kind of member, when each has a client.
fn transcript(ensemble: &Ensemble) -> Vec<String> {
    let members = modes(ensemble);
    let mut clients: Vec<Client> = Vec::new();
    for (number, (sid, _)) in members.iter().enumerate() {
        let mut client = client::connect_for_long(ensemble.ports[sid]).expect("it serves");
        let path = format!("/e{number}");
        assert_eq!(client.code(&create(&path, &vec![b'x'; 50 * number], 1)), ErrorCode::OK);
        assert_eq!(client.code(&create(&path, b"", 1)), ErrorCode::NODE_EXISTS);
        assert_eq!(client.code(&exists(&path, true)), ErrorCode::OK);
        assert_eq!(client.code(&list("/", true)), ErrorCode::OK);
        clients.push(client);
    }
    let mut said = Vec::new();
    for (sid, mode) in members {
        let port = ensemble.ports[&sid];
        within("everything to be applied", || {
            let all = metrics(port).get("ephemerals_count").is_some_and(|count| count == "3");
            all.then_some(())
        });
        for word in ["ruok", "isro", "dirs", "hash", "crst", "wchs", "gtmk"] {
            said.push(format!("{mode} {word}: {}", normal(&peer::word(port, word))));
        }
        for word in ["stat", "cons", "wchc", "wchp"] {
            said.push(format!("{mode} {word}: {}", sorted(&normal(&peer::word(port, word)))));
        }
        // Buckets differ in number, and empty ones are shown by some.
        // While they change their buckets, Apache's dump may lack sessions.
        let dump = within("sessions in the dump", || {
            let dump = normal(&peer::word(port, "dump"));
            (mode != "leader" || dump.contains("\n\t0xN\n")).then_some(dump)
        });
        let dump: Vec<&str> = dump.lines().filter(|line| !line.contains("expire at")).collect();
        let mut dump = dump;
        dump.sort_unstable();
        dump.dedup();
        said.push(format!("{mode} dump: {dump:#?}"));
        let conf = peer::word(port, "conf");
        for line in conf.split('\n') {
            let shown = normal(line).replace(&ensemble.home.display().to_string(), "HOME");
            let shown = shown.split_once("/version").map_or(shown.as_str(), |(front, _)| front);
            let is_path = shown.starts_with("dataDir=") || shown.starts_with("dataLogDir=");
            let front = shown.split_once('=').map_or(shown, |(key, _)| key);
            said.push(format!("{mode} conf: {}", if is_path { front } else { shown }));
        }
        let metrics = metrics(port);
        for key in SAME {
            said.push(format!("{mode} mntr {key}: {:?}", metrics.get(key)));
        }
        for key in THERE {
            let number = metrics.get(key).map(|value| value.parse::<f64>().is_ok());
            said.push(format!("{mode} mntr {key}: {number:?}"));
        }
        let master = metrics.get("observer_master_id");
        let leads = master.map(|master| *master == members[0].0.to_string());
        said.push(format!("{mode} mntr observer_master_id is the leader's: {leads:?}"));
        let text = peer::word(port, "mntr");
        let first: Vec<&str> = text.lines().take(if mode == "observer" { 4 } else { 3 }).collect();
        let first = first.iter().map(|line| line.split('\t').next().unwrap_or_default());
        said.push(format!("{mode} mntr begins with {:?}", first.collect::<Vec<_>>()));
        let srvr = peer::word(port, "srvr");
        let sizes = srvr.lines().find(|line| line.starts_with("Proposal sizes"));
        said.push(format!("{mode} srvr: {} {sizes:?}", normal(&srvr)));
        said.push(format!("{mode} srst: {}", peer::word(port, "srst")));
        let srvr = peer::word(port, "srvr");
        said.push(format!("{mode} srvr behind it: {:?}", srvr.lines().skip(1).collect::<Vec<_>>()));
    }
    drop(clients);
    said
}

/// What every word says on a follower that is left alone.
fn without_quorum(ensemble: &mut Ensemble) -> Vec<String> {
    let [_, (left, _), _] = modes(ensemble);
    for sid in (1..=4).filter(|sid| *sid != left) {
        ensemble.kill(sid);
    }
    within("the follower to give up", || ensemble.mode(left).is_empty().then_some(()));
    let port = ensemble.ports[&left];
    let words = Word::ALL.iter().filter(|word| **word != Word::Envi);
    let mut said: Vec<String> =
        words.map(|word| format!("{}: {:?}", word.name(), peer::word(port, word.name()))).collect();
    let envi = peer::word(port, "envi");
    said.push(format!("envi: {:?}", envi.lines().next()));
    said
}

#[test]
fn words_of_an_ensemble_are_apaches() {
    let test = "words_of_an_ensemble_are_apaches";
    let jars = apache::jars();
    let all = |program: &Program| {
        let mut ensemble = start(program);
        let mut said = transcript(&ensemble);
        said.extend(without_quorum(&mut ensemble));
        said
    };
    let (ours, theirs) = thread::scope(|scope| {
        let theirs = jars.map(|jars| {
            let apache = Program::Apache(Java::new(&jars));
            scope.spawn(move || all(&apache))
        });
        let joined = |thread: thread::ScopedJoinHandle<'_, Vec<String>>| match thread.join() {
            Ok(said) => said,
            Err(failed) => std::panic::resume_unwind(failed),
        };
        (all(&Program::Ours), theirs.map(joined))
    });
    assert!(180 < ours.len(), "{}", ours.len());
    let Some(theirs) = theirs else {
        return apache::skip(test, "no java or no Apache ZooKeeper to compare with");
    };
    apache::assert_same("ours", &ours, &theirs);
}

#[test]
fn a_leader_tells_how_far_its_followers_are_behind() {
    let mut ensemble = Ensemble::ours(3, "ringkeeper.detectMillis=60000");
    ensemble.all_serve();
    let leader = ensemble.leader();
    let slow = (1..=3).find(|sid| *sid != leader).expect("there are three");
    let lag = |ensemble: &Ensemble| {
        let metrics = metrics(ensemble.ports[&leader]);
        metrics.get(&format!("ringkeeper_lag_txns_{slow}")).cloned()
    };
    within("the follower to be up to date", || (lag(&ensemble)? == "0").then_some(()));
    ensemble.signal(slow, libc::SIGSTOP);
    let mut client = client::connect_for_long(ensemble.ports[&leader]).expect("it serves");
    for number in 0..50 {
        assert_eq!(client.code(&create(&format!("/n{number}"), b"", 0)), ErrorCode::OK);
    }
    // And the session's beginning.
    assert_eq!(lag(&ensemble).as_deref(), Some("51"));
    ensemble.signal(slow, libc::SIGCONT);
    within("the follower to catch up", || (lag(&ensemble)? == "0").then_some(()));
    ensemble.kill(slow);
    within("the follower to be gone", || lag(&ensemble).is_none().then_some(()));
}
