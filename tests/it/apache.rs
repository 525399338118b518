//! Apache ZooKeeper servers as child processes, of several versions, in directories that stay.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};
use std::{env, thread};

use super::peer;

/// A server of Apache's.
pub(crate) struct Apache {
    child: Child,
    /// Its client port.
    pub(crate) port: u16,
}

/// The jars of one version, if they and java are there. `name` is the directory in
/// `RINGKEEPER_TEST_DEPS`.
pub(crate) fn jars(name: &str) -> Option<PathBuf> {
    let jars = PathBuf::from(env::var_os("RINGKEEPER_TEST_DEPS")?).join(name);
    let mut java = Command::new("java");
    java.arg("-version").stdout(Stdio::null()).stderr(Stdio::null());
    (jars.is_dir() && java.status().is_ok_and(|status| status.success())).then_some(jars)
}

/// Says what is missing; a failure where nothing may be.
pub(crate) fn skip(test: &str, why: &str) {
    assert!(env::var_os("CI").is_none(), "{test}: {why}, and CI must have it");
    eprintln!("SKIPPED {test}: {why}; .ci/run installs it");
}

impl Apache {
    /// Starts a server on `home/zoo.cfg`. `flags` are names and values without `zookeeper.`.
    pub(crate) fn start(jars: &Path, home: &Path, port: u16, flags: &[(&str, &str)]) -> Self {
        let child = spawn(jars, home, flags);
        let mut apache = Self { child, port };
        let deadline = Instant::now() + Duration::from_secs(120);
        // It answers `ruok` before it serves sessions.
        while !peer::word(port, "srvr").contains("Mode: ") {
            let ended = apache.child.try_wait().expect("the child is ours");
            assert!(ended.is_none(), "Apache ended: {}", log(home));
            assert!(Instant::now() < deadline, "Apache does not answer: {}", log(home));
            thread::sleep(Duration::from_millis(50));
        }
        apache
    }

    /// SIGKILL.
    pub(crate) fn kill(mut self) {
        self.child.kill().expect("the child is ours");
        self.child.wait().expect("the child is ours");
    }

    /// The value of a line of `mntr`.
    pub(crate) fn metric(&self, name: &str) -> Option<String> {
        let text = peer::word(self.port, "mntr");
        let line = text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix('\t'));
        line.map(str::to_owned)
    }
}

impl Drop for Apache {
    fn drop(&mut self) {
        let _ended = self.child.kill();
        let _status = self.child.wait();
    }
}

/// Waits until a server of Apache's has ended by itself, with a failure, on `home/zoo.cfg`.
pub(crate) fn assert_refuses(jars: &Path, home: &Path) {
    let mut apache = Apache { child: spawn(jars, home, &[]), port: 0 };
    let deadline = Instant::now() + Duration::from_secs(120);
    while Instant::now() < deadline {
        if let Some(status) = apache.child.try_wait().expect("the child is ours") {
            assert!(!status.success(), "Apache ended well");
            return;
        }
        thread::sleep(Duration::from_millis(50));
    }
    panic!("Apache goes on: {}", log(home));
}

fn spawn(jars: &Path, home: &Path, flags: &[(&str, &str)]) -> Child {
    let log = fs::File::create(home.join("apache.log")).expect("the directory is writable");
    Command::new("java")
        .args(["-Xmx256m", "-Dzookeeper.admin.enableServer=false"])
        .args(flags.iter().map(|(name, value)| format!("-Dzookeeper.{name}={value}")))
        .arg("-cp")
        .arg(jars.join("*"))
        .arg("org.apache.zookeeper.server.quorum.QuorumPeerMain")
        .arg(home.join("zoo.cfg"))
        .stdin(Stdio::null())
        .stdout(log.try_clone().expect("descriptors are left"))
        .stderr(log)
        .spawn()
        .expect("java was found before")
}

fn log(home: &Path) -> String {
    fs::read_to_string(home.join("apache.log")).unwrap_or_default()
}
