//! Servers as child processes, each with a directory and a port of its own, ended by process id.

use std::fs;
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

use crate::client;

/// A server process.
pub(crate) struct Server {
    child: Child,
    /// Its client port.
    pub(crate) port: u16,
    /// Where its directories and configuration are.
    pub(crate) home: PathBuf,
}

impl Server {
    /// Starts a server in a fresh directory with additional lines of configuration.
    pub(crate) fn start(extra: &str) -> Self {
        let home = fresh_directory();
        let port = free_port();
        write_config(&home, port, extra);
        Self::start_in(home, port)
    }

    /// Starts a server where one was.
    pub(crate) fn start_in(home: PathBuf, port: u16) -> Self {
        let child = spawn(&home.join("zoo.cfg"));
        Self::adopt(child, home, port)
    }

    /// Waits until a server started by `spawn` or otherwise serves.
    pub(crate) fn adopt(child: Child, home: PathBuf, port: u16) -> Self {
        let mut server = Self { child, port, home };
        server.wait_until_serving();
        server
    }

    fn wait_until_serving(&mut self) {
        let deadline = Instant::now() + WITHIN;
        while Instant::now() < deadline {
            if let Some(status) = self.child.try_wait().expect("the child is ours") {
                panic!("the server ended with {status}: {}", self.log());
            }
            if self.word("ruok") == "imok" {
                return;
            }
            std::thread::sleep(Duration::from_millis(5));
        }
        panic!("the server does not answer: {}", self.log());
    }

    /// The answer to a four-letter word; empty if there is none.
    pub(crate) fn word(&self, word: &str) -> String {
        self::word(self.port, word)
    }

    /// SIGKILL.
    pub(crate) fn kill(mut self) -> (PathBuf, u16) {
        self.child.kill().expect("the child is ours");
        self.child.wait().expect("the child is ours");
        (self.home.clone(), self.port)
    }

    /// SIGTERM, and how the process ended.
    pub(crate) fn stop(mut self) -> (ExitStatus, PathBuf, u16) {
        signal(&self.child, libc::SIGTERM);
        let status = self.child.wait().expect("the child is ours");
        (status, self.home.clone(), self.port)
    }

    /// Sends it a signal.
    pub(crate) fn signal(&self, number: i32) {
        signal(&self.child, number);
    }

    /// Its process id.
    pub(crate) fn pid(&self) -> u32 {
        self.child.id()
    }

    /// What it wrote to its log.
    pub(crate) fn log(&self) -> String {
        fs::read_to_string(self.home.join("log")).unwrap_or_default()
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ended = self.child.kill();
        let _status = self.child.wait();
    }
}

/// The answer of whoever listens on `port` to a four-letter word; empty if there is none.
pub(crate) fn word(port: u16, word: &str) -> String {
    client::word(("127.0.0.1", port), word).unwrap_or_default()
}

/// Sends a process a signal, as `kill -N` does.
pub(crate) fn signal(child: &Child, number: i32) {
    let pid = i32::try_from(child.id()).expect("process ids are positive");
    // SAFETY: signals a child that has not been waited for.
    assert_eq!(unsafe { libc::kill(pid, number) }, 0);
}

/// Starts the server program on a configuration file.
pub(crate) fn spawn(config: &Path) -> Child {
    command(Path::new(env!("CARGO_BIN_EXE_ringkeeper")), config)
        .spawn()
        .expect("the program was built")
}

/// The command that `spawn` runs, for `program`.
pub(crate) fn command(program: &Path, config: &Path) -> Command {
    let home = config.parent().expect("the file is in a directory");
    let log = fs::OpenOptions::new().append(true).create(true).open(home.join("log"));
    let log = log.expect("the directory is writable");
    let mut command = Command::new(program);
    command.arg(config).stdin(Stdio::null()).stdout(Stdio::null()).stderr(log);
    command
}

/// Writes a configuration for `home`.
pub(crate) fn write_config(home: &Path, port: u16, extra: &str) {
    let data = home.join("data");
    let text = format!(
        "dataDir={}\nclientPort={port}\nclientPortAddress=127.0.0.1\ntickTime=2000\n\
         maxSessionTimeout=600000\n4lw.commands.whitelist=*\nmaxClientCnxns=0\n{extra}\n",
        data.display()
    );
    fs::write(home.join("zoo.cfg"), text).expect("the directory is writable");
}

/// A directory that nobody else uses.
pub(crate) fn fresh_directory() -> PathBuf {
    static COUNT: AtomicU32 = AtomicU32::new(0);
    let count = COUNT.fetch_add(1, Ordering::Relaxed);
    let name = format!("{}-{count}", std::process::id());
    let path = Path::new(env!("CARGO_TARGET_TMPDIR")).join(name);
    let _old = fs::remove_dir_all(&path);
    fs::create_dir_all(&path).expect("the build directory is writable");
    path
}

/// A port that is free now, that no other test of this process is given, and that the system does
/// not give to connections on their way out: those have higher ones.
pub(crate) fn free_port() -> u16 {
    static COUNT: AtomicU32 = AtomicU32::new(0);
    loop {
        let count = COUNT.fetch_add(1, Ordering::Relaxed);
        let port = 10_000 + (std::process::id().wrapping_mul(101).wrapping_add(count) % 20_000);
        let port = u16::try_from(port).expect("it is below 30,000");
        if TcpListener::bind(("127.0.0.1", port)).is_ok() {
            return port;
        }
    }
}

/// Removes a directory made by `fresh_directory`.
pub(crate) fn clean(home: &Path) {
    let _gone = fs::remove_dir_all(home);
}

/// Nothing takes longer, also where Java shares two cores with other tests.
pub(crate) const WITHIN: Duration = Duration::from_secs(300);

/// Waits until something has come true.
pub(crate) fn within<T>(what: &str, mut attempt: impl FnMut() -> Option<T>) -> T {
    let deadline = Instant::now() + WITHIN;
    loop {
        if let Some(found) = attempt() {
            return found;
        }
        assert!(Instant::now() < deadline, "waited for {what}");
        std::thread::sleep(Duration::from_millis(20));
    }
}
