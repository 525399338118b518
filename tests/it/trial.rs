//! `ringkeeper trial`: an ensemble on one machine, for trying out.

use std::io::{BufRead, BufReader, Lines};
use std::net::{TcpListener, TcpStream};
use std::path::Path;
use std::process::{Child, ChildStdout, Command, Stdio};

use ringkeeper::model::{ErrorCode, Request};

use super::client::{self, create, exists};
use super::peer::{self, within};

/// One that runs.
struct Trial {
    child: Child,
    lines: Lines<BufReader<ChildStdout>>,
    /// Port, mode and process of each server.
    servers: Vec<(u16, String, i32)>,
    /// What it says clients connect with.
    connect: String,
}

fn command(home: &Path, port: u16, servers: &str) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_ringkeeper"));
    command.args(["trial", "--servers", servers, "--port", &port.to_string(), "--data-dir"]);
    command.arg(home).stdin(Stdio::null()).stdout(Stdio::piped());
    command
}

impl Trial {
    fn start(home: &Path, port: u16) -> Self {
        let mut child = command(home, port, "3").spawn().expect("the program was built");
        let lines = BufReader::new(child.stdout.take().expect("it is piped")).lines();
        let mut trial = Self { child, lines, servers: Vec::new(), connect: String::new() };
        while trial.connect.is_empty() {
            let line = trial.lines.next().expect("it says more").expect("text");
            if let Some(connect) = line.strip_prefix("servers: ") {
                connect.clone_into(&mut trial.connect);
                break;
            }
            let (_, rest) = line.split_once(": 127.0.0.1:").expect("a server's line");
            let fields: Vec<&str> = rest.split(", ").collect();
            let pid = fields[2].strip_prefix("process ").expect("a process");
            let pid = pid.parse().expect("a process");
            trial.servers.push((fields[0].parse().expect("a port"), fields[1].to_owned(), pid));
        }
        trial
    }

    fn signal(pid: i32, signal: i32) {
        // SAFETY: signals a process that this test has started.
        unsafe { libc::kill(pid, signal) };
    }

    fn pid(&self) -> i32 {
        i32::try_from(self.child.id()).expect("process ids are positive")
    }

    /// The first one that leads.
    fn leader(&self) -> (u16, i32) {
        let leader = self.servers.iter().find(|(_, mode, _)| mode == "leader");
        let (port, _, pid) = leader.unwrap_or_else(|| panic!("{:?}", self.servers));
        (*port, *pid)
    }
}

/// Its servers go with it.
impl Drop for Trial {
    fn drop(&mut self) {
        let _ended = self.child.kill();
        let _status = self.child.wait();
    }
}

/// A first port with everything behind it that three servers need.
fn port() -> u16 {
    within("free ports", || {
        let first = peer::free_port();
        let mut needed = [0, 707, 1707].into_iter().flat_map(|behind| behind..behind + 3);
        let free = |port: u16| TcpListener::bind(("127.0.0.1", port)).is_ok();
        needed.all(|behind| free(first + behind)).then_some(first)
    })
}

fn all_gone(ports: &[u16]) {
    within("all servers to end", || {
        let gone = ports.iter().all(|port| TcpStream::connect(("127.0.0.1", *port)).is_err());
        gone.then_some(())
    });
}

/// A server shows a znode.
fn shows(port: u16, path: &str) -> Option<()> {
    let mut client = client::connect(port).ok()?;
    client.call(&Request::Sync { path: "/".into() }).ok()?;
    let reply = client.call(&exists(path, false)).ok()?;
    (reply.header.code == ErrorCode::OK).then_some(())
}

#[test]
fn a_trial_runs_until_it_is_interrupted() {
    let (home, port) = (peer::fresh_directory(), port());
    let mut trial = Trial::start(&home, port);
    let ports: Vec<u16> = trial.servers.iter().map(|(port, ..)| *port).collect();
    assert_eq!(ports, [port, port + 1, port + 2]);
    let expected: Vec<String> = ports.iter().map(|port| format!("127.0.0.1:{port}")).collect();
    assert_eq!(trial.connect, expected.join(","));
    let (leader, pid) = trial.leader();
    // Servers of a trial that a slow machine does not run for a while elect anew.
    within("a write", || {
        let mut client = client::connect(leader).ok()?;
        let reply = client.call(&create("/a", b"", 0)).ok()?;
        let code = reply.header.code;
        assert!(matches!(code, ErrorCode::OK | ErrorCode::NODE_EXISTS), "{code:?}");
        Some(())
    });
    for port in &ports {
        within("every server to show it", || shows(*port, "/a"));
    }
    // Without its leader it goes on, and tells of it.
    Trial::signal(pid, libc::SIGKILL);
    let other = ports.iter().copied().find(|port| *port != leader).expect("there are three");
    within("the others to go on", || {
        let mut client = client::connect(other).ok()?;
        client.call(&create("/b", b"", 0)).ok()
    });
    let told = trial.lines.by_ref().map_while(Result::ok).find(|line| line.contains(" ended "));
    let told = told.expect("it is told of");
    let config = home.join((leader - port + 1).to_string()).join("zoo.cfg");
    assert!(told.ends_with(&config.display().to_string()), "{told}");
    Trial::signal(trial.pid(), libc::SIGINT);
    let status = trial.child.wait().expect("the child is ours");
    assert!(status.success(), "{status}");
    all_gone(&ports);
    // What was there is there again; and no server outlives a trial that is killed.
    let mut trial = Trial::start(&home, port);
    within("it to be there", || shows(port, "/b"));
    Trial::signal(trial.pid(), libc::SIGKILL);
    trial.child.wait().expect("the child is ours");
    all_gone(&ports);
    peer::clean(&home);
}

#[test]
fn a_trial_that_cannot_be_says_why() {
    let home = peer::fresh_directory();
    let holder = TcpListener::bind(("127.0.0.1", 0)).expect("ports are left");
    let held = holder.local_addr().expect("it is bound").port();
    let in_use = format!("port {held}: Address already in use");
    for (port, servers, code, text) in [
        (2181, "0", 2, "1 to 9 servers, not 0"),
        (2181, "10", 2, "1 to 9 servers, not 10"),
        (65_000, "3", 2, "no ports behind 65000"),
        (0, "3", 2, "no ports behind 0"),
        (held, "1", 1, in_use.as_str()),
    ] {
        let mut command = command(&home, port, servers);
        let output = command.stderr(Stdio::piped()).output().expect("the program was built");
        let said = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(code), "{said}");
        assert!(said.contains(text), "{said}");
    }
    peer::clean(&home);
}

#[test]
fn a_paused_server_stops_with_the_others() {
    let (parent, port) = (peer::fresh_directory(), port());
    let home = parent.join("a b");
    let mut trial = Trial::start(&home, port);
    let pids: Vec<i32> = trial.servers.iter().map(|(.., pid)| *pid).collect();
    Trial::signal(pids[0], libc::SIGKILL);
    let told = trial.lines.by_ref().map_while(Result::ok).find(|line| line.contains(" ended "));
    let told = told.expect("it is told of");
    let config = home.join("1").join("zoo.cfg");
    assert!(told.ends_with(&format!(" '{}'", config.display())), "{told}");
    Trial::signal(pids[1], libc::SIGSTOP);
    Trial::signal(trial.pid(), libc::SIGINT);
    let status = trial.child.wait().expect("the child is ours");
    assert!(status.success(), "{status}");
    peer::clean(&parent);
}
