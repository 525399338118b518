//! Network namespaces: one for the test and its clients, one for each server, joined by a bridge.
//!
//! Servers do not see each other where a pair is cut: the receiver's nft drops what comes, so that
//! neither side is told. The clients of the test see every server always.

use std::collections::BTreeSet;
use std::fs::{self, File};
use std::io::{self, Write};
use std::net::{Ipv4Addr, SocketAddr};
use std::os::fd::{AsRawFd, RawFd};
use std::os::unix::process::CommandExt;
use std::process::{Command, Stdio};

/// Runs a program to its end.
///
/// # Errors
/// It is not there, or what it says when it fails.
pub(crate) fn run(program: &str, args: &[&str]) -> io::Result<String> {
    finish(Command::new(program).args(args), "")
}

fn finish(command: &mut Command, input: &str) -> io::Result<String> {
    command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn().map_err(|error| {
        io::Error::other(format!("{}: {error}", command.get_program().display()))
    })?;
    if let Some(mut stdin) = child.stdin.take() {
        stdin.write_all(input.as_bytes())?;
    }
    let output = child.wait_with_output()?;
    if output.status.success() {
        return Ok(String::from_utf8_lossy(&output.stdout).into_owned());
    }
    let said = String::from_utf8_lossy(&output.stderr);
    Err(io::Error::other(format!("{command:?}: {}", said.trim())))
}

/// Has a command run in the network namespace of an open descriptor, and end with the test.
pub(crate) fn enter(command: &mut Command, namespace: RawFd) {
    let enter = move || {
        // SAFETY: both calls only change the new process.
        let entered = unsafe {
            libc::prctl(libc::PR_SET_PDEATHSIG, libc::SIGKILL);
            libc::setns(namespace, libc::CLONE_NEWNET)
        };
        if entered == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
    };
    // SAFETY: the closure makes system calls only.
    unsafe { command.pre_exec(enter) };
}

/// The network of one ensemble.
pub(crate) struct Net {
    namespaces: Vec<File>,
    /// From whom to whom nothing comes.
    cuts: BTreeSet<(i64, i64)>,
    /// Of what servers send each other, so many of 100 packets are lost.
    loss: u32,
}

impl Net {
    /// Moves this thread into a network namespace and a mount namespace of its own, which end with
    /// the threads and processes in them, and makes namespaces for so many servers.
    ///
    /// # Errors
    /// The machine does not let us, or lacks a program.
    pub(crate) fn new(count: i64) -> io::Result<Self> {
        // SAFETY: it changes this thread and those that it will start.
        if unsafe { libc::unshare(libc::CLONE_NEWNS | libc::CLONE_NEWNET) } != 0 {
            return Err(io::Error::last_os_error());
        }
        run("mount", &["--make-rprivate", "/"])?;
        fs::create_dir_all("/run/netns")?;
        run("mount", &["-t", "tmpfs", "none", "/run/netns"])?;
        for args in ["link set lo up", "link add bridge type bridge", "link set bridge up"] {
            ip(args)?;
        }
        ip(&format!("addr add {}/24 dev bridge", Ipv4Addr::new(10, 77, 0, 254)))?;
        let mut net = Self { namespaces: Vec::new(), cuts: BTreeSet::new(), loss: 0 };
        for sid in 1..=count {
            ip(&format!("netns add s{sid}"))?;
            ip(&format!("link add v{sid} type veth peer name eth0 netns s{sid}"))?;
            ip(&format!("link set v{sid} master bridge up"))?;
            ip(&format!("-n s{sid} addr add {}/24 dev eth0", address(sid)))?;
            ip(&format!("-n s{sid} link set eth0 up"))?;
            ip(&format!("-n s{sid} link set lo up"))?;
            net.namespaces.push(File::open(format!("/run/netns/s{sid}"))?);
            net.tell(sid)?;
        }
        Ok(net)
    }

    /// For [`enter`].
    pub(crate) fn namespace(&self, sid: i64) -> RawFd {
        self.namespaces[usize::try_from(sid - 1).expect("sids begin at 1")].as_raw_fd()
    }

    /// From now on exactly these are cut, each from a server to another.
    pub(crate) fn cut(&mut self, cuts: BTreeSet<(i64, i64)>) {
        let before = std::mem::replace(&mut self.cuts, cuts);
        let changed: BTreeSet<i64> = before.symmetric_difference(&self.cuts).map(|c| c.1).collect();
        for sid in changed {
            self.tell(sid).expect("nft took such rules before");
        }
    }

    /// The same, beside what is cut already.
    pub(crate) fn cut_also(&mut self, more: impl IntoIterator<Item = (i64, i64)>) {
        let mut cuts = self.cuts.clone();
        cuts.extend(more);
        self.cut(cuts);
    }

    /// Everybody sees everybody, at full speed.
    pub(crate) fn heal(&mut self) {
        self.cut(BTreeSet::new());
        self.lose(0);
    }

    /// So many of 100 packets between servers are lost.
    pub(crate) fn lose(&mut self, percent: u32) {
        if std::mem::replace(&mut self.loss, percent) != percent {
            for sid in 1..=self.namespaces.len() {
                self.tell(sid as i64).expect("nft took such rules before");
            }
        }
    }

    /// What a server sends waits in a queue that is emptied slowly.
    pub(crate) fn slow(&self, sid: i64) {
        self.inside(
            sid,
            "tc qdisc replace dev eth0 root tbf rate 400kbit burst 4kb latency 300ms",
            "",
        )
        .expect("the machine has the token bucket filter");
    }

    /// It is sent at once again.
    pub(crate) fn hasten(&self, sid: i64) {
        self.inside(sid, "tc qdisc del dev eth0 root", "").expect("there was one");
    }

    fn tell(&self, sid: i64) -> io::Result<()> {
        let mut rules = String::new();
        for (from, _) in self.cuts.iter().filter(|(_, to)| *to == sid) {
            rules += &format!("ip saddr {} drop\n", address(*from));
        }
        if self.loss != 0 {
            let loss = self.loss;
            rules += &format!("ip saddr 10.77.0.0/28 numgen random mod 100 < {loss} drop\n");
        }
        let text = format!(
            "table inet cut\ndelete table inet cut\ntable inet cut {{ chain input {{\n\
             type filter hook input priority 0; policy accept;\n{rules}}}\n}}\n"
        );
        self.inside(sid, "nft -f -", &text).map(drop)
    }

    fn inside(&self, sid: i64, line: &str, input: &str) -> io::Result<String> {
        let mut words = line.split(' ');
        let mut command = Command::new(words.next().expect("a program"));
        command.args(words);
        enter(&mut command, self.namespace(sid));
        finish(&mut command, input)
    }
}

fn ip(line: &str) -> io::Result<String> {
    run("ip", &line.split(' ').collect::<Vec<_>>())
}

/// Where a server is.
pub(crate) fn address(sid: i64) -> Ipv4Addr {
    Ipv4Addr::new(10, 77, 0, u8::try_from(sid).expect("there are few"))
}

/// A port of a server.
pub(crate) fn at(sid: i64, port: u16) -> SocketAddr {
    SocketAddr::from((address(sid), port))
}
