//! An ensemble of processes, each in a network namespace and with a disk of its own.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::{self, File, OpenOptions};
use std::io::{self, Read, Write};
use std::net::TcpStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

use crate::clients::within;
use crate::disk::Disk;
use crate::net::{Net, address, at, enter, run};

pub(crate) const CLIENT_PORT: u16 = 2181;
pub(crate) const QUORUM_PORT: u16 = 2888;
pub(crate) const ELECTION_PORT: u16 = 3888;

/// Where the drives have what they have flushed.
const PLATTERS: &str = "platters";
/// A server that is told to stop has ended within this, also where it sees nobody.
const STOPPED_WITHIN: Duration = Duration::from_secs(20);
/// How long a server may take for a word.
const PATIENCE: Duration = Duration::from_secs(5);

/// The servers by sid.
pub(crate) struct Servers {
    home: PathBuf,
    pub(crate) net: Net,
    pub(crate) disks: BTreeMap<i64, Disk>,
    children: BTreeMap<i64, Child>,
    /// SIGSTOP was sent.
    paused: BTreeSet<i64>,
}

impl Servers {
    /// Namespaces and disks for so many servers, and all of them started.
    ///
    /// # Errors
    /// The machine does not let us, or lacks a program.
    pub(crate) fn new(home: &Path, count: i64) -> io::Result<Self> {
        let net = Net::new(count)?;
        // In memory: other work on the machine's disk must not delay flushes.
        let platters = home.join(PLATTERS);
        fs::create_dir_all(&platters)?;
        run("mount", &["-t", "tmpfs", "none", &platters.display().to_string()])?;
        let (disks, children, paused) = Default::default();
        let mut servers = Self { home: home.to_owned(), net, disks, children, paused };
        let lines: String = (1..=count)
            .map(|sid| {
                let address = address(sid);
                format!("server.{sid}={address}:{QUORUM_PORT}:{ELECTION_PORT}\n")
            })
            .collect();
        for sid in 1..=count {
            let own = servers.own(sid);
            fs::create_dir_all(&own)?;
            let disk = Disk::new(&own, &platters.join(sid.to_string()))?;
            let data = disk.mount.join("data");
            fs::create_dir_all(&data)?;
            let mut myid = File::create(data.join("myid"))?;
            myid.write_all(sid.to_string().as_bytes())?;
            myid.sync_all()?;
            File::open(&data)?.sync_all()?;
            File::open(&disk.mount)?.sync_all()?;
            let text = format!(
                "dataDir={}\nclientPort={CLIENT_PORT}\nclientPortAddress={}\ntickTime=500\n\
                 initLimit=20\nsyncLimit=10\n4lw.commands.whitelist=*\nmaxClientCnxns=0\n\
                 maxSessionTimeout=60000\nsnapCount=1000\npreAllocSize=1024\n{lines}",
                data.display(),
                address(sid),
            );
            fs::write(own.join("zoo.cfg"), text)?;
            servers.disks.insert(sid, disk);
            servers.start(sid);
        }
        Ok(servers)
    }

    fn own(&self, sid: i64) -> PathBuf {
        self.home.join(sid.to_string())
    }

    pub(crate) fn sids(&self) -> Vec<i64> {
        self.disks.keys().copied().collect()
    }

    /// Those whose process runs and is not paused.
    pub(crate) fn awake(&self) -> Vec<i64> {
        self.children.keys().copied().filter(|sid| !self.paused.contains(sid)).collect()
    }

    pub(crate) fn start(&mut self, sid: i64) {
        let own = self.own(sid);
        let log = OpenOptions::new().append(true).create(true).open(own.join("log"));
        let mut command = Command::new(env!("CARGO_BIN_EXE_ringkeeper"));
        command.arg(own.join("zoo.cfg")).stdin(Stdio::null()).stdout(Stdio::null());
        command.stderr(log.expect("the directory is writable"));
        enter(&mut command, self.net.namespace(sid));
        self.children.insert(sid, command.spawn().expect("the program was built"));
    }

    pub(crate) fn runs(&self, sid: i64) -> bool {
        self.children.contains_key(&sid)
    }

    fn signal(&self, sid: i64, signal: i32) {
        let Some(child) = self.children.get(&sid) else { return };
        let pid = i32::try_from(child.id()).expect("process ids are positive");
        // SAFETY: signals a child that has not been waited for.
        unsafe { libc::kill(pid, signal) };
    }

    /// SIGKILL.
    pub(crate) fn kill(&mut self, sid: i64) {
        self.paused.remove(&sid);
        if let Some(mut child) = self.children.remove(&sid) {
            child.kill().expect("the child is ours");
            child.wait().expect("the child is ours");
        }
    }

    /// SIGTERM, and how it ended; nothing if it was not running.
    pub(crate) fn stop(&mut self, sid: i64) -> Option<ExitStatus> {
        self.resume(sid);
        self.signal(sid, libc::SIGTERM);
        let mut child = self.children.remove(&sid)?;
        let mut status = None;
        within(STOPPED_WITHIN, || {
            status = child.try_wait().expect("the child is ours");
            status.is_some()
        });
        if status.is_none() {
            child.kill().expect("the child is ours");
            child.wait().expect("the child is ours");
            panic!("server {sid} does not stop: {}", self.logs());
        }
        status
    }

    /// SIGSTOP.
    pub(crate) fn pause(&mut self, sid: i64) {
        if self.runs(sid) {
            self.signal(sid, libc::SIGSTOP);
            self.paused.insert(sid);
        }
    }

    /// SIGCONT.
    pub(crate) fn resume(&mut self, sid: i64) {
        if self.paused.remove(&sid) {
            self.signal(sid, libc::SIGCONT);
        }
    }

    /// Takes note of processes that have ended by themselves: which, and how.
    pub(crate) fn ended(&mut self) -> Vec<(i64, ExitStatus)> {
        let mut ended = Vec::new();
        for (sid, child) in &mut self.children {
            if let Some(status) = child.try_wait().expect("the child is ours") {
                ended.push((*sid, status));
            }
        }
        for (sid, _) in &ended {
            self.children.remove(sid);
        }
        ended
    }

    /// What a server says it is; empty if it does not serve.
    pub(crate) fn mode(&self, sid: i64) -> String {
        let text = word(sid, "srvr").unwrap_or_default();
        let mode = text.lines().find_map(|line| line.strip_prefix("Mode: "));
        mode.unwrap_or_default().to_owned()
    }

    /// The server that leads, of those that are awake.
    pub(crate) fn leader(&self) -> Option<i64> {
        self.awake().into_iter().find(|sid| self.mode(*sid) == "leader")
    }

    /// The same, waited for.
    pub(crate) fn leader_within(&self, limit: Duration) -> Option<i64> {
        let deadline = Instant::now() + limit;
        loop {
            let leader = self.leader();
            if leader.is_some() || deadline < Instant::now() {
                return leader;
            }
            std::thread::sleep(Duration::from_millis(10));
        }
    }

    /// The last lines of every server's log.
    pub(crate) fn logs(&self) -> String {
        let tail = |sid: i64| {
            let text = self.log(sid);
            let lines: Vec<&str> = text.lines().collect();
            let tail = lines[lines.len().saturating_sub(40)..].join("\n");
            format!("---- server {sid}\n{tail}\n")
        };
        self.sids().into_iter().map(tail).collect()
    }

    /// All that a server has said.
    pub(crate) fn log(&self, sid: i64) -> String {
        fs::read_to_string(self.own(sid).join("log")).unwrap_or_default()
    }
}

impl Drop for Servers {
    fn drop(&mut self) {
        for sid in self.sids() {
            self.kill(sid);
        }
        let _gone = run("umount", &["-l", &self.home.join(PLATTERS).display().to_string()]);
    }
}

/// The answer to a four-letter word.
fn word(sid: i64, word: &str) -> io::Result<String> {
    let mut stream = TcpStream::connect_timeout(&at(sid, CLIENT_PORT), PATIENCE)?;
    stream.set_read_timeout(Some(PATIENCE))?;
    stream.write_all(word.as_bytes())?;
    let mut text = String::new();
    stream.read_to_string(&mut text)?;
    Ok(text)
}
