//! Changes of an ensemble's members: real processes that come, go, move and change their roles
//! under load, also together with Apache ZooKeeper's servers.

use std::collections::BTreeMap;
use std::fs;
use std::process::Command;

use ringkeeper::client::Client;
use ringkeeper::model::{ErrorCode, ReconfigRequest, Request, WriteRequest};

use super::apache::{self, Java};
use super::client::{self, get};
use super::clients;
use super::ensemble::{Ensemble, Program, Writer};
use super::peer::{self, within};

/// Nobody needs to be the super user.
const RECONFIG: &str = "reconfigEnabled=true\nskipACL=yes\nstandaloneEnabled=false\n";

/// Servers that can be added, with their lines.
struct Members {
    ensemble: Ensemble,
    lines: BTreeMap<i64, String>,
}

impl Members {
    /// So many with ports of their own; the first of them is started alone.
    fn new(count: i64, first: &Program) -> Self {
        let ensemble = Ensemble::new(count);
        let lines = ensemble.lines.lines().zip(1_i64..).map(|(line, sid)| {
            let port = ensemble.ports[&sid];
            (sid, format!("{line}:participant;127.0.0.1:{port}"))
        });
        let lines = lines.collect();
        let mut members = Self { ensemble, lines };
        members.start(1, first, &[1]);
        members
    }

    /// Starts a server that knows those others.
    fn start(&mut self, sid: i64, program: &Program, others: &[i64]) {
        let known = others.iter().chain((!others.contains(&sid)).then_some(&sid));
        let lines: String = known.map(|other| format!("{}\n", self.lines[other])).collect();
        self.ensemble.start_with(sid, program, &lines, RECONFIG);
    }

    fn client(&self, sid: i64) -> Client {
        within("a session", || client::connect_for_long(self.ensemble.ports[&sid]).ok())
    }

    /// The text that a server shows.
    fn config(&self, sid: i64) -> Option<String> {
        let mut client = client::connect(self.ensemble.ports[&sid]).ok()?;
        let mut reply = client.call(&get("/zookeeper/config", false)).ok()?;
        let data = reply.body.buffer("data").ok()??;
        Some(String::from_utf8_lossy(&data).into_owned())
    }

    /// Waits until every server that was started shows these members.
    fn all_show(&self, sids: &[i64]) {
        for sid in self.ensemble.servers.keys() {
            let what = format!("server {sid} to show {sids:?}: {}", self.ensemble.log(*sid));
            within(&what, || {
                let text = self.config(*sid)?;
                let lines = text.lines().filter_map(|line| line.strip_prefix("server."));
                let shown = lines.filter_map(|line| line.split('=').next()?.parse::<i64>().ok());
                (shown.collect::<Vec<_>>() == sids).then_some(())
            });
        }
    }

    /// Adds and removes, asking one server, until that has happened.
    fn change(&self, at: i64, joining: &[i64], leaving: &[i64]) {
        let joining: Vec<&str> = joining.iter().map(|sid| self.lines[sid].as_str()).collect();
        self.ask(at, &change(&joining.join(","), leaving));
    }

    /// Asks until it is done: servers that join must have the history first.
    fn ask(&self, at: i64, request: &Request) {
        within(&format!("a reconfiguration ({})", self.ensemble.log(at)), || {
            let reply = self.client(at).call(request).ok()?;
            let code = reply.header.code;
            assert!(
                matches!(code, ErrorCode::OK | ErrorCode::NEW_CONFIG_NO_QUORUM)
                    || code == ErrorCode::RECONFIG_IN_PROGRESS,
                "{code:?}"
            );
            (code == ErrorCode::OK).then_some(())
        });
    }

    /// Starts a server that was killed. One that was removed before that finds no line of its own
    /// and ends: it gets the first list again.
    fn restart(&mut self, sid: i64) {
        self.ensemble.run(sid, &Program::Ours);
        let ended = within("a start or a refusal", || {
            let ended = self.ensemble.has_ended(sid);
            (ended || !self.ensemble.mode(sid).is_empty()).then_some(ended)
        });
        if ended {
            self.ensemble.forget(sid);
            self.start(sid, &Program::Ours, &[1, 2, 3, 4, 5]);
        }
    }

    /// Gives a server another line.
    fn set_line(&mut self, sid: i64, change: impl Fn(&str) -> String) {
        let line = change(&self.lines[&sid]);
        self.lines.insert(sid, line);
    }

    fn mode_is(&self, sid: i64, mode: &str) {
        let what = format!("server {sid} to be {mode}: {}", self.ensemble.log(sid));
        within(&what, || (self.ensemble.mode(sid) == mode).then_some(()));
    }

    fn file(&self, sid: i64, name: &str) -> String {
        let path = self.ensemble.home.join(sid.to_string()).join(name);
        fs::read_to_string(path).unwrap_or_default()
    }
}

fn change(joining: &str, leaving: &[i64]) -> Request {
    let leaving: Vec<String> = leaving.iter().map(i64::to_string).collect();
    let text = |text: &str| (!text.is_empty()).then(|| text.into());
    Request::Write(WriteRequest::Reconfig(ReconfigRequest {
        joining: text(joining),
        leaving: text(&leaving.join(",")),
        new_members: None,
        from_config: -1,
    }))
}

/// From one server to five, to three others, to one, each with whatever program it has.
fn grows_and_shrinks(program: impl Fn(i64) -> Program) {
    let mut members = Members::new(5, &program(1));
    members.ensemble.all_serve();
    let writer = Writer::start("/w", (1..=5).map(|sid| members.ensemble.ports[&sid]).collect());
    writer.goes_on();
    members.all_show(&[1]);
    for sid in [2, 3] {
        members.start(sid, &program(sid), &[1]);
    }
    members.ensemble.all_serve();
    members.change(1, &[2, 3], &[]);
    members.all_show(&[1, 2, 3]);
    writer.goes_on();
    for sid in [4, 5] {
        members.start(sid, &program(sid), &[1, 2, 3]);
    }
    members.ensemble.all_serve();
    members.change(2, &[4, 5], &[]);
    members.all_show(&[1, 2, 3, 4, 5]);
    writer.goes_on();
    // Two of five may go, the leader among them.
    let leader = members.ensemble.leader();
    members.ensemble.kill(leader);
    writer.goes_on();
    members.ensemble.run(leader, &program(leader));
    members.ensemble.all_serve();
    members.all_show(&[1, 2, 3, 4, 5]);
    // The leader is removed while it leads.
    let leader = members.ensemble.leader();
    members.change(leader, &[], &[leader]);
    let rest: Vec<i64> = (1..=5).filter(|sid| *sid != leader).collect();
    members.all_show(&rest);
    within("another leader", || (members.ensemble.leader() != leader).then_some(()));
    writer.goes_on();
    members.ensemble.kill(leader);
    // Three of four are left, and whoever leads goes last.
    let mut rest = rest;
    while 1 < rest.len() {
        let leader = members.ensemble.leader();
        let gone = rest.iter().copied().find(|sid| *sid != leader).expect("there are others");
        rest.retain(|sid| *sid != gone);
        members.change(leader, &[], &[gone]);
        members.all_show(&rest);
        members.ensemble.kill(gone);
        writer.goes_on();
    }
    // What is left is an ensemble of one, also after a restart.
    let last = rest[0];
    members.ensemble.kill(last);
    members.ensemble.run(last, &program(last));
    members.ensemble.all_serve();
    members.all_show(&[last]);
    writer.goes_on();
    writer.end(&members.ensemble);
}

#[test]
fn an_ensemble_grows_and_shrinks_under_load() {
    grows_and_shrinks(|_| Program::Ours);
}

/// Apache's server of the version that is compared with.
fn apache(test: &str) -> Option<Program> {
    let jars = apache::jars();
    if jars.is_none() {
        apache::skip(test, "Apache ZooKeeper's jars or Java are missing");
    }
    jars.map(|jars| Program::Apache(Java::new(&jars)))
}

#[test]
fn ours_come_to_an_ensemble_of_apaches_and_go() {
    let Some(apache) = apache("ours_come_to_an_ensemble_of_apaches_and_go") else { return };
    grows_and_shrinks(|sid| if sid % 2 == 1 { apache.clone() } else { Program::Ours });
}

#[test]
fn apaches_come_to_an_ensemble_of_ours_and_go() {
    let Some(apache) = apache("apaches_come_to_an_ensemble_of_ours_and_go") else { return };
    grows_and_shrinks(|sid| if sid % 2 == 0 { apache.clone() } else { Program::Ours });
}

/// Three servers that vote, and a fourth that is given every role.
fn changes_roles(program: impl Fn(i64) -> Program) {
    let mut members = Members::new(4, &program(1));
    for sid in [2, 3, 4] {
        members.start(sid, &program(sid), &[1]);
    }
    members.ensemble.all_serve();
    members.change(1, &[2, 3], &[]);
    let writer = Writer::start("/w", (1..=4).map(|sid| members.ensemble.ports[&sid]).collect());
    // It follows without being a member at all.
    members.mode_is(4, "follower");
    members.set_line(4, |line| line.replace(":participant", ":observer"));
    members.change(1, &[4], &[]);
    members.mode_is(4, "observer");
    members.all_show(&[1, 2, 3, 4]);
    writer.goes_on();
    members.set_line(4, |line| line.replace(":observer", ":participant"));
    members.change(4, &[4], &[]);
    members.mode_is(4, "follower");
    writer.goes_on();
    // One that leads becomes an observer.
    let leader = members.ensemble.leader();
    members.set_line(leader, |line| line.replace(":participant", ":observer"));
    members.change(leader, &[leader], &[]);
    members.mode_is(leader, "observer");
    members.ensemble.leader();
    writer.goes_on();
    // Roles and members are what they are after restarts of everybody.
    for sid in 1..=4 {
        members.ensemble.kill(sid);
        members.ensemble.run(sid, &program(sid));
        members.ensemble.all_serve();
        writer.goes_on();
    }
    members.mode_is(leader, "observer");
    members.all_show(&[1, 2, 3, 4]);
    writer.end(&members.ensemble);
}

#[test]
fn servers_change_their_roles() {
    changes_roles(|_| Program::Ours);
}

#[test]
fn servers_change_their_roles_among_apaches() {
    let Some(apache) = apache("servers_change_their_roles_among_apaches") else { return };
    changes_roles(|sid| if sid == 4 || sid == 1 { Program::Ours } else { apache.clone() });
}

/// Three members, changed by a whole list.
fn three(program: &impl Fn(i64) -> Program) -> Members {
    let mut members = Members::new(3, &program(1));
    for sid in [2, 3] {
        members.start(sid, &program(sid), &[1]);
    }
    members.ensemble.all_serve();
    members.change(1, &[2, 3], &[]);
    members.all_show(&[1, 2, 3]);
    members
}

fn whole(members: &Members) -> Request {
    let list: Vec<&str> = members.lines.values().map(String::as_str).collect();
    Request::Write(WriteRequest::Reconfig(ReconfigRequest {
        new_members: Some(list.join("\n").as_str().into()),
        from_config: -1,
        ..ReconfigRequest::default()
    }))
}

/// Every server moves to other ports, one after the other, while it runs.
fn moves(program: impl Fn(i64) -> Program) {
    let mut members = three(&program);
    let places: BTreeMap<i64, [u16; 3]> =
        [2, 3, 1].into_iter().map(|sid| (sid, [(); 3].map(|()| peer::free_port()))).collect();
    let old = members.ensemble.ports.values();
    let ports = old.copied().chain(places.values().map(|[_, _, client]| *client));
    let writer = Writer::start("/w", ports.collect());
    for (sid, [quorum, election, client]) in places {
        let line = format!("server.{sid}=127.0.0.1:{quorum}:{election};127.0.0.1:{client}");
        members.lines.insert(sid, line);
        let leader = members.ensemble.leader();
        members.ask(leader, &whole(&members));
        members.ensemble.ports.insert(sid, client);
        members.ensemble.all_serve();
        assert!(peer::word(client, "conf").starts_with(&format!("clientPort={client}\n")));
        members.all_show(&[1, 2, 3]);
        writer.goes_on();
    }
    for _ in 0..3 {
        let leader = members.ensemble.leader();
        members.ensemble.kill(leader);
        writer.goes_on();
        members.ensemble.run(leader, &program(leader));
        members.ensemble.all_serve();
    }
    writer.end(&members.ensemble);
}

#[test]
fn servers_move_to_other_ports() {
    moves(|_| Program::Ours);
}

#[test]
fn a_server_takes_up_the_files_of_the_other_kind() {
    let test = "a_server_takes_up_the_files_of_the_other_kind";
    let Some(apache) = apache(test) else { return };
    let mut members = three(&|_| apache.clone());
    let version = members.config(1).expect("it serves");
    let version = version.rsplit_once("version=").expect("it has one").1.to_owned();
    let dynamic = |members: &Members, sid| members.file(sid, &format!("zoo.cfg.dynamic.{version}"));
    let of_apache = dynamic(&members, 1);
    for sid in [1, 2, 3] {
        members.ensemble.kill(sid);
        members.ensemble.run(sid, &Program::Ours);
        members.ensemble.all_serve();
    }
    members.all_show(&[1, 2, 3]);
    // Out and in again: what is written now is ours.
    members.change(1, &[], &[3]);
    members.change(1, &[3], &[]);
    members.all_show(&[1, 2, 3]);
    let version = members.config(1).expect("it serves");
    let version = version.rsplit_once("version=").expect("it has one").1.to_owned();
    let dynamic = |members: &Members, sid| members.file(sid, &format!("zoo.cfg.dynamic.{version}"));
    within("the file to be written", || (dynamic(&members, 1) == of_apache).then_some(()));
    within("the next one to go", || {
        members.file(1, "zoo.cfg.dynamic.next").is_empty().then_some(())
    });
    for sid in [1, 2, 3] {
        members.ensemble.kill(sid);
        let data = members.ensemble.home.join(sid.to_string()).join("data");
        fs::remove_dir_all(&data).expect("it is ours");
        fs::create_dir(&data).expect("the directory is writable");
        fs::write(data.join("myid"), sid.to_string()).expect("the directory is writable");
        members.ensemble.run(sid, &apache);
        members.ensemble.all_serve();
    }
    members.all_show(&[1, 2, 3]);
}

#[test]
fn a_reconfiguration_whose_leader_dies_is_made_by_all_or_by_none() {
    let mut members = Members::new(5, &Program::Ours);
    for sid in [2, 3, 4, 5] {
        members.start(sid, &Program::Ours, &[1]);
    }
    members.ensemble.all_serve();
    members.change(1, &[2, 3], &[]);
    let writer = Writer::start("/w", (1..=5).map(|sid| members.ensemble.ports[&sid]).collect());
    let mut made = 0;
    for round in 0..8 {
        let before = members.config(1).expect("it serves");
        let has_five = before.contains("server.5=");
        let (joining, leaving): (&[i64], &[i64]) =
            if has_five { (&[], &[4, 5]) } else { (&[4, 5], &[]) };
        let lines: Vec<&str> = joining.iter().map(|sid| members.lines[sid].as_str()).collect();
        let request = change(&lines.join(","), leaving);
        let leader = members.ensemble.leader();
        // Some do not hear of it, so that it has no quorum; in the other rounds it may have one.
        let deaf: Vec<i64> = [1, 2, 3].into_iter().filter(|sid| *sid != leader).collect();
        let deaf = &deaf[..round % 3];
        let mut client = members.client(leader);
        deaf.iter().for_each(|sid| members.ensemble.signal(*sid, libc::SIGSTOP));
        client.send(&request).expect("it is sent");
        std::thread::sleep(std::time::Duration::from_millis(20 * (round as u64 % 4)));
        members.ensemble.kill(leader);
        deaf.iter().for_each(|sid| members.ensemble.signal(*sid, libc::SIGCONT));
        members.restart(leader);
        members.ensemble.all_serve();
        writer.goes_on();
        let after = within("all to have one configuration", || {
            let all: Option<Vec<String>> = (1..=5).map(|sid| members.config(sid)).collect();
            let all = all?;
            all.iter().all(|text| *text == all[0]).then(|| all[0].clone())
        });
        made += u64::from(after.contains("server.5=") != has_five);
        // It can be changed again.
        within("a reconfiguration that changes nothing", || {
            let leader = members.ensemble.leader();
            let reply = members.client(leader).call(&change("", &[])).ok()?;
            (reply.header.code == ErrorCode::OK).then_some(())
        });
    }
    println!("{made} of 8 were made");
    writer.end(&members.ensemble);
}

#[test]
fn nothing_is_lost_when_servers_die_while_members_change() {
    let mut members = Members::new(5, &Program::Ours);
    for sid in 2..=5 {
        members.start(sid, &Program::Ours, &[1]);
    }
    members.ensemble.all_serve();
    members.change(1, &[2, 3, 4, 5], &[]);
    let writer = Writer::start("/w", (1..=5).map(|sid| members.ensemble.ports[&sid]).collect());
    for round in 0..10 {
        let leader = members.ensemble.leader();
        let gone = 1 + (round * 2 + 1) % 5;
        let victim = 1 + (round * 3) % 5;
        let mut client = members.client(leader);
        client.send(&change("", &[gone])).expect("it is sent");
        std::thread::sleep(std::time::Duration::from_millis(7 * (round as u64 % 5)));
        members.ensemble.kill(victim);
        writer.goes_on();
        members.restart(victim);
        members.ensemble.all_serve();
        let leader = members.ensemble.leader();
        let joining = members.lines[&gone].clone();
        members.ask(leader, &change(&joining, &[]));
        members.all_show(&[1, 2, 3, 4, 5]);
    }
    writer.end(&members.ensemble);
}

/// What a request comes to: the code, or the configuration's lines without ports.
fn answers(program: &Program, settings: &str, requests: &[(&str, Request)]) -> Vec<String> {
    let mut ensemble = Ensemble::new(1);
    let port = ensemble.ports[&1];
    let line = format!("{};127.0.0.1:{port}\n", ensemble.lines.trim_end());
    ensemble.start_with(1, program, &line, settings);
    ensemble.all_serve();
    let mut told = Vec::new();
    let mut client = within("a session", || client::connect_for_long(port).ok());
    let own = |text: &str| text.replace(line.trim_end().split_once('=').expect("it has").1, "OWN");
    for (what, request) in requests {
        let mut reply = client.call(request).expect("it is answered");
        let mut answer = format!("{what}: {:?}", reply.header.code);
        let has_data =
            matches!(request, Request::Write(WriteRequest::Reconfig(_)) | Request::Read(_));
        if reply.header.code == ErrorCode::OK && has_data {
            let data = reply.body.buffer("data").expect("it decodes").unwrap_or_default();
            let stat = reply.body.stat().expect("it decodes");
            let text = String::from_utf8_lossy(&data).into_owned();
            answer += &format!(" {} ", own(&text.replace(":participant;", ";")));
            answer += &format!("{} {} {:?}", stat.version, stat.aversion, stat.mzxid);
        }
        told.push(answer);
    }
    told
}

fn list(text: &str) -> Request {
    Request::Write(WriteRequest::Reconfig(ReconfigRequest {
        new_members: Some(text.into()),
        from_config: -1,
        ..ReconfigRequest::default()
    }))
}

fn from(version: i64) -> Request {
    let from_config = version;
    Request::Write(WriteRequest::Reconfig(ReconfigRequest { from_config, ..Default::default() }))
}

#[test]
fn answers_are_apaches() {
    let Some(apache) = apache("answers_are_apaches") else { return };
    let auth = |auth: &'static str| Request::Auth {
        scheme: Some("digest".into()),
        auth: Some(auth.as_bytes().into()),
    };
    let show = || get("/zookeeper/config", false);
    let leaving = |text: &str| {
        let leaving = Some(text.into());
        Request::Write(WriteRequest::Reconfig(ReconfigRequest {
            leaving,
            from_config: -1,
            ..ReconfigRequest::default()
        }))
    };
    let requests = [
        ("show", show()),
        ("nobody", change("server.2=127.0.0.1:1:2:observer;3", &[])),
        ("nobody, nonsense", change("server.2", &[])),
        ("super", auth("super:test")),
        ("no client port", change("server.2=127.0.0.1:1:2", &[])),
        ("one port", change("server.2=127.0.0.1:1;3", &[])),
        ("same ports", change("server.2=127.0.0.1:1:1;3", &[])),
        ("no number", change("server.x=127.0.0.1:1:2;3", &[])),
        ("no value", change("server.2", &[])),
        ("two values", change("server.2=a=b", &[])),
        ("a role", change("server.2=127.0.0.1:1:2:leader;3", &[])),
        ("port no number", change("server.2=127.0.0.1:a:2;3", &[])),
        ("client no number", change("server.2=127.0.0.1:1:2;x", &[])),
        ("two client parts", change("server.2=127.0.0.1:1:2;3;4", &[])),
        ("not synced", change("server.2=127.0.0.1:1:2;3", &[])),
        ("leaves nobody", change("", &[1])),
        ("leaves a stranger", change("", &[9])),
        ("leaves nonsense", leaving("x")),
        ("leaves nothing", leaving(",, ,")),
        ("version", from(7)),
        ("observer", change("server.2=127.0.0.1:1:2:observer;3", &[])),
        ("show 2", show()),
        ("collides", change("server.3=10.0.0.1:1:2:observer;10.0.0.1:3", &[])),
        ("collides 2", change("server.4=10.0.0.1:5:2:observer;10.0.0.1:6", &[])),
        (
            "many",
            change("server.5=10.0.0.2:1:2:observer;3 , server.6=10.0.0.3:1:2:observer;3", &[2]),
        ),
        ("show 3", show()),
        ("list: nothing", list("")),
        ("list: only observers", list("server.2=127.0.0.1:1:2:observer;3")),
        ("list: not synced", list("server.2=127.0.0.1:1:2;3")),
        ("list: no number", list("server.x=127.0.0.1:1:2;3")),
        ("list: one port", list("server.2=127.0.0.1:1;3")),
        ("list: key", list("clientPort=3")),
        ("list: version", list("version=x")),
        ("show 4", show()),
        ("set", client::set("/zookeeper/config", b"mine")),
        ("show 5", show()),
        ("again", change("", &[5])),
        ("show 6", show()),
    ];
    let settings = "reconfigEnabled=true\nstandaloneEnabled=false\n";
    let digest = "super:D/InIHSb7yEEbrWz8b9l71RjZJU=";
    let Program::Apache(java) = &apache else { return };
    let property = "zookeeper.DigestAuthenticationProvider.superDigest";
    let apache = Program::Apache(java.clone().with(property, digest));
    let ours = format!("DigestAuthenticationProvider.superDigest={digest}\n{settings}");
    let (theirs, ours) =
        (answers(&apache, settings, &requests), answers(&Program::Ours, &ours, &requests));
    assert_eq!(ours.join("\n"), theirs.join("\n"));
    // Where it is switched off, and where two voters are needed.
    let off = "standaloneEnabled=false\nskipACL=yes\n";
    let requests = [("show", show()), ("off", change("", &[1])), ("show 2", show())];
    assert_eq!(answers(&Program::Ours, off, &requests), answers(&apache, off, &requests));
}

#[test]
fn kazoo_changes_members_as_at_apache() {
    let test = "kazoo_changes_members_as_at_apache";
    let Some(python) = clients::python() else {
        return apache::skip(test, "no python3 with kazoo");
    };
    let said = |program: &Program| {
        let members = Members::new(1, program);
        members.ensemble.all_serve();
        let mut command = Command::new(&python);
        command.arg(clients::script("kazoo_reconfig.py"));
        clients::transcript(&mut command, members.ensemble.ports[&1], || ())
    };
    let ours = said(&Program::Ours);
    assert!(28 <= ours.lines().count(), "the transcript is whole\n{ours}");
    let Some(apache) = apache(test) else { return };
    assert_eq!(ours, said(&apache));
}
