//! Layer 5: an ensemble on one machine, for trying out: `ringkeeper trial`.
//!
//! Each server is a process of its own with a directory `N` that holds its configuration, data and
//! log, so that one may be killed or paused, and started again by hand. The configurations are
//! written anew at each start; what was in the data directories stays.

use std::fs::{self, File};
use std::io::{self, Write};
use std::net::TcpListener;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM};

use crate::client;

/// More voters make writes slower and nothing safer that one machine could show.
pub const SERVERS_MAX: u16 = 9;

/// What to try out.
#[derive(Clone, Debug)]
pub struct Trial {
    /// How many servers: 1 to [`SERVERS_MAX`].
    pub servers: u16,
    /// Where their directories are.
    pub data_dir: PathBuf,
    /// The first server's client port; the others' follow. The quorum ports begin 707 later and the
    /// election ports 1707, as 2888 and 3888 do behind 2181.
    pub port: u16,
    /// The server program.
    pub program: PathBuf,
}

/// Why it ended.
#[derive(Debug, thiserror::Error)]
pub enum TrialError {
    /// The number of servers or the ports cannot be used.
    #[error("{0}")]
    Arguments(String),
    /// A file cannot be written, or a program not be started.
    #[error("{what}: {error}")]
    Io {
        /// Which.
        what: String,
        /// Why.
        error: io::Error,
    },
    /// A server ended before all of them served.
    #[error("server {number} ended ({status}); see {log}")]
    Ended {
        /// Which.
        number: u16,
        /// How.
        status: ExitStatus,
        /// Where it says why.
        log: String,
    },
    /// They did not serve in time.
    #[error("not all servers serve within {SERVE_WITHIN:?}; see their logs in {0}")]
    NotServing(String),
    /// Servers did not end well when they were told to stop.
    #[error("not every server stopped as planned")]
    NotStopped,
}

const SERVE_WITHIN: Duration = Duration::from_secs(60);
/// A server that stops as planned waits for clients less than that.
const STOP_WITHIN: Duration = Duration::from_secs(30);
const LOOK_EVERY: Duration = Duration::from_millis(20);

const QUORUM_PORTS_BEHIND: u16 = 707;
const ELECTION_PORTS_BEHIND: u16 = 1707;

/// The servers. They end with it.
struct Servers {
    trial: Trial,
    /// By number from 1; `None` once it has ended.
    running: Vec<Option<Child>>,
}

/// Starts the servers, says where they are, and waits until a signal ends them all, or until all
/// have ended.
///
/// # Errors
/// See [`TrialError`]. No server is left behind.
pub fn run(trial: Trial, out: &mut dyn Write) -> Result<(), TrialError> {
    let stop = Arc::new(AtomicBool::new(false));
    for signal in [SIGINT, SIGTERM, SIGHUP] {
        let registered = signal_hook::flag::register(signal, Arc::clone(&stop));
        registered.map_err(|error| failed("signals", error))?;
    }
    check(&trial)?;
    trial.check_ports()?;
    let mut servers = Servers { trial, running: Vec::new() };
    for number in 1..=servers.trial.servers {
        let child = servers.trial.start(number)?;
        servers.running.push(Some(child));
    }
    if servers.wait_until_all_serve(&stop)? {
        servers.tell(out).map_err(|error| failed("standard output", error))?;
    }
    while !stop.load(Ordering::Relaxed) {
        for (number, status) in servers.ended() {
            let again = [&servers.trial.program, &servers.trial.config(number)];
            let [program, config] = again.map(|path| quoted(path));
            writeln!(out, "server {number} ended ({status}); again: {program} {config}")
                .map_err(|error| failed("standard output", error))?;
        }
        if servers.running.iter().all(Option::is_none) {
            return Ok(());
        }
        thread::sleep(LOOK_EVERY);
    }
    servers.stop()
}

fn failed(what: &str, error: io::Error) -> TrialError {
    TrialError::Io { what: what.to_owned(), error }
}

/// A path as a shell takes it.
fn quoted(path: &Path) -> String {
    let path = path.display().to_string();
    shlex::try_quote(&path).map(Into::into).unwrap_or(path)
}

fn check(trial: &Trial) -> Result<(), TrialError> {
    if trial.servers == 0 || SERVERS_MAX < trial.servers {
        let text = format!("a trial has 1 to {SERVERS_MAX} servers, not {}", trial.servers);
        return Err(TrialError::Arguments(text));
    }
    let last = trial.port.checked_add(ELECTION_PORTS_BEHIND + trial.servers - 1);
    if trial.port == 0 || last.is_none() {
        let text = format!("there are no ports behind {} for all servers", trial.port);
        return Err(TrialError::Arguments(text));
    }
    Ok(())
}

impl Trial {
    fn home(&self, number: u16) -> PathBuf {
        self.data_dir.join(number.to_string())
    }

    fn config(&self, number: u16) -> PathBuf {
        self.home(number).join("zoo.cfg")
    }

    fn log(&self, number: u16) -> PathBuf {
        self.home(number).join("log")
    }

    fn client_port(&self, number: u16) -> u16 {
        self.port + number - 1
    }

    /// Another's server behind a port would be taken for one of these.
    fn check_ports(&self) -> Result<(), TrialError> {
        for first in [0, QUORUM_PORTS_BEHIND, ELECTION_PORTS_BEHIND] {
            for port in (self.port + first..).take(usize::from(self.servers)) {
                TcpListener::bind(("127.0.0.1", port))
                    .map_err(|error| failed(&format!("port {port}"), error))?;
            }
        }
        Ok(())
    }

    fn connect_string(&self) -> String {
        let all = (1..=self.servers).map(|it| format!("127.0.0.1:{}", self.client_port(it)));
        all.collect::<Vec<_>>().join(",")
    }

    fn config_text(&self, number: u16, data: &Path) -> String {
        let members = (1..=self.servers).map(|it| {
            let port = self.client_port(it);
            let (quorum, election) = (port + QUORUM_PORTS_BEHIND, port + ELECTION_PORTS_BEHIND);
            format!("server.{it}=127.0.0.1:{quorum}:{election}\n")
        });
        format!(
            "# Written by ringkeeper trial at each start.\n\
             tickTime=2000\ninitLimit=10\nsyncLimit=5\ndataDir={}\nclientPort={}\n\
             clientPortAddress=127.0.0.1\n4lw.commands.whitelist=*\n{}",
            // A backslash is an escape there.
            data.display().to_string().replace('\\', "\\\\"),
            self.client_port(number),
            members.collect::<String>()
        )
    }

    fn start(&self, number: u16) -> Result<Child, TrialError> {
        let home = self.home(number);
        let io = |error| failed(&home.display().to_string(), error);
        fs::create_dir_all(home.join("data")).map_err(io)?;
        let data = std::path::absolute(home.join("data")).map_err(io)?;
        fs::write(data.join("myid"), format!("{number}\n")).map_err(io)?;
        fs::write(self.config(number), self.config_text(number, &data)).map_err(io)?;
        let log = File::options().append(true).create(true).open(self.log(number)).map_err(io)?;
        let mut command = Command::new(&self.program);
        command.arg(self.config(number)).stdin(Stdio::null()).stdout(Stdio::null()).stderr(log);
        // The terminal's Ctrl-C is for this process, which passes it on once.
        command.process_group(0);
        // SAFETY: `prctl` is safe to call between fork and exec.
        unsafe {
            command.pre_exec(|| match libc::prctl(libc::PR_SET_PDEATHSIG, libc::SIGTERM) {
                0 => Ok(()),
                _ => Err(io::Error::last_os_error()),
            });
        }
        command.spawn().map_err(|error| failed(&self.program.display().to_string(), error))
    }
}

impl Servers {
    /// Those that have ended since it was last asked for.
    fn ended(&mut self) -> Vec<(u16, ExitStatus)> {
        let mut ended = Vec::new();
        for (number, running) in (1..).zip(&mut self.running) {
            if let Some(Ok(Some(status))) = running.as_mut().map(Child::try_wait) {
                *running = None;
                ended.push((number, status));
            }
        }
        ended
    }

    /// Whether they do; not if the trial was stopped before.
    fn wait_until_all_serve(&mut self, stop: &AtomicBool) -> Result<bool, TrialError> {
        let deadline = Instant::now() + SERVE_WITHIN;
        while !(1..=self.trial.servers).all(|number| self.mode(number).is_some()) {
            if let Some((number, status)) = self.ended().into_iter().next() {
                let log = self.trial.log(number).display().to_string();
                return Err(TrialError::Ended { number, status, log });
            }
            if stop.load(Ordering::Relaxed) {
                return Ok(false);
            }
            if deadline < Instant::now() {
                return Err(TrialError::NotServing(self.trial.data_dir.display().to_string()));
            }
            thread::sleep(LOOK_EVERY);
        }
        Ok(true)
    }

    /// What a server says it is, while it serves.
    fn mode(&self, number: u16) -> Option<String> {
        let text = client::word(("127.0.0.1", self.trial.client_port(number)), "srvr").ok()?;
        let mode = text.lines().find_map(|line| line.strip_prefix("Mode: "));
        mode.filter(|mode| !mode.is_empty()).map(str::to_owned)
    }

    fn tell(&self, out: &mut dyn Write) -> io::Result<()> {
        for (number, running) in (1..).zip(&self.running) {
            let port = self.trial.client_port(number);
            let mode = self.mode(number).unwrap_or_default();
            let process = running.as_ref().map_or(0, Child::id);
            let log = self.trial.log(number);
            let log = log.display();
            writeln!(out, "server {number}: 127.0.0.1:{port}, {mode}, process {process}, {log}")?;
        }
        writeln!(out, "servers: {}", self.trial.connect_string())?;
        writeln!(out, "Ctrl-C stops them all.")
    }

    /// Tells all to stop as planned, and waits.
    fn stop(&mut self) -> Result<(), TrialError> {
        for child in self.running.iter().flatten() {
            if let Ok(pid) = i32::try_from(child.id()) {
                // One that was paused answers only once it goes on.
                // SAFETY: signals a child that has not been waited for.
                unsafe {
                    libc::kill(pid, libc::SIGTERM);
                    libc::kill(pid, libc::SIGCONT);
                }
            }
        }
        let deadline = Instant::now() + STOP_WITHIN;
        let mut well = true;
        while self.running.iter().any(Option::is_some) {
            well &= self.ended().iter().all(|(_, status)| status.success());
            if deadline < Instant::now() {
                return Err(TrialError::NotStopped);
            }
            thread::sleep(LOOK_EVERY);
        }
        if well { Ok(()) } else { Err(TrialError::NotStopped) }
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
