//! Apache ZooKeeper's servers as child processes, of several versions.
//!
//! What is needed is found in `RINGKEEPER_TEST_DEPS` (`.ci/run` puts it there). What is missing is
//! said loudly; with `CI` set it is a failure.

use std::ffi::OsString;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};
use std::{env, thread};

use super::peer;
pub(crate) use super::skip::skip;

/// A server of Apache's.
pub(crate) struct Apache {
    child: Child,
    java: Java,
    /// Its client port.
    pub(crate) port: u16,
    /// Where its configuration, directories and log are.
    pub(crate) home: PathBuf,
    /// Whether `home` goes with it.
    cleans: bool,
}

/// How Java runs a server.
#[derive(Clone)]
pub(crate) struct Java {
    classpath: OsString,
    arguments: Vec<String>,
}

/// Where test dependencies are.
pub(crate) fn deps() -> Option<PathBuf> {
    env::var_os("RINGKEEPER_TEST_DEPS").map(PathBuf::from)
}

/// Whether a command ends well.
pub(crate) fn runs(command: &mut Command) -> bool {
    let status = command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()).status();
    status.is_ok_and(|status| status.success())
}

/// The jars of the version that is compared with, if they and Java are there.
pub(crate) fn jars() -> Option<PathBuf> {
    jars_of("zookeeper")
}

/// The jars of one version; `name` is their directory.
pub(crate) fn jars_of(name: &str) -> Option<PathBuf> {
    let jars = deps()?.join(name);
    (jars.is_dir() && runs(Command::new("java").arg("-version"))).then_some(jars)
}

/// Fails with the lines in which a transcript differs from that of Apache's server.
pub(crate) fn assert_same(who: &str, said: &[String], apache: &[String]) {
    let differing: String = said
        .iter()
        .zip(apache)
        .filter(|(said, apache)| said != apache)
        .map(|(said, apache)| format!("{who}: {said}\nApache: {apache}\n"))
        .collect();
    assert!(differing.is_empty(), "\n{differing}");
    assert_eq!(said.len(), apache.len(), "{who}: lines\n{}", said.join("\n"));
}

impl Java {
    /// With the jars of one version.
    pub(crate) fn new(jars: &Path) -> Self {
        let arguments =
            vec!["-Xmx512m".to_owned(), "-Dzookeeper.admin.enableServer=false".to_owned()];
        Self { classpath: jars.join("*").into_os_string(), arguments }
    }

    /// And with classes of our own.
    pub(crate) fn with_classes(mut self, directory: &Path) -> Self {
        self.classpath.push(":");
        self.classpath.push(directory);
        self
    }

    /// And with a property.
    pub(crate) fn with(mut self, name: &str, value: &str) -> Self {
        self.arguments.push(format!("-D{name}={value}"));
        self
    }

    /// Starts a server on `home/zoo.cfg`.
    pub(crate) fn spawn(&self, home: &Path) -> Child {
        let log = fs::File::create(home.join("apache.log")).expect("the directory is writable");
        Command::new("java")
            .args(&self.arguments)
            .arg("-cp")
            .arg(&self.classpath)
            .arg("org.apache.zookeeper.server.quorum.QuorumPeerMain")
            .arg(home.join("zoo.cfg"))
            .stdin(Stdio::null())
            .stdout(log.try_clone().expect("descriptors are left"))
            .stderr(log)
            .spawn()
            .expect("java was found before")
    }
}

impl Apache {
    /// Starts a server in a fresh directory, which goes with it, with additional lines of
    /// configuration.
    pub(crate) fn start(jars: &Path, settings: &str) -> Self {
        Self::start_as(Java::new(jars), settings)
    }

    /// The same, run in a way of its own.
    pub(crate) fn start_as(mut java: Java, settings: &str) -> Self {
        let home = peer::fresh_directory();
        let port = peer::free_port();
        peer::write_config(&home, port, settings);
        // What Apache reads from the command line only.
        for line in settings.lines().filter(|line| line.starts_with("znode.container.")) {
            java.arguments.push(format!("-D{line}"));
        }
        let mut apache = Self::start_in(&java, &home, port);
        apache.cleans = true;
        apache
    }

    /// Starts a server in a directory that stays, on the configuration that is there.
    pub(crate) fn start_in(java: &Java, home: &Path, port: u16) -> Self {
        let (child, java, home) = (java.spawn(home), java.clone(), home.to_path_buf());
        let mut apache = Self { child, java, port, home, cleans: false };
        apache.wait_until_serving();
        apache
    }

    fn wait_until_serving(&mut self) {
        let deadline = Instant::now() + peer::WITHIN;
        // It answers `ruok` before it serves sessions.
        while !peer::word(self.port, "srvr").contains("Mode: ") {
            let ended = self.child.try_wait().expect("the child is ours");
            assert!(ended.is_none(), "Apache ended: {}", self.log());
            assert!(Instant::now() < deadline, "Apache does not answer: {}", self.log());
            thread::sleep(Duration::from_millis(50));
        }
    }

    /// SIGKILL, and a new process in the same directory.
    pub(crate) fn restart(&mut self) {
        self.end();
        self.child = self.java.spawn(&self.home);
        self.wait_until_serving();
    }

    /// SIGKILL.
    pub(crate) fn kill(mut self) {
        self.end();
    }

    /// SIGTERM, and its end.
    pub(crate) fn stop(&mut self) {
        peer::signal(&self.child, libc::SIGTERM);
        self.child.wait().expect("the child is ours");
    }

    /// The value of a line of `mntr`.
    pub(crate) fn metric(&self, name: &str) -> Option<String> {
        let text = peer::word(self.port, "mntr");
        let line = text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix('\t'));
        line.map(str::to_owned)
    }

    fn end(&mut self) {
        let _ended = self.child.kill();
        let _status = self.child.wait();
    }

    fn log(&self) -> String {
        fs::read_to_string(self.home.join("apache.log")).unwrap_or_default()
    }
}

impl Drop for Apache {
    fn drop(&mut self) {
        self.end();
        if self.cleans {
            peer::clean(&self.home);
        }
    }
}

/// Waits until a server of Apache's has ended by itself, with a failure, on `home/zoo.cfg`.
pub(crate) fn assert_refuses(jars: &Path, home: &Path) {
    let java = Java::new(jars);
    let (child, home) = (java.spawn(home), home.to_path_buf());
    let mut apache = Apache { child, java, port: 0, home, cleans: false };
    let deadline = Instant::now() + peer::WITHIN;
    while Instant::now() < deadline {
        if let Some(status) = apache.child.try_wait().expect("the child is ours") {
            assert!(!status.success(), "Apache ended well");
            return;
        }
        thread::sleep(Duration::from_millis(50));
    }
    panic!("Apache goes on: {}", apache.log());
}
