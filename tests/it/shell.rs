//! The server where the machine is hostile: the disk is slow or full or has no direct I/O, there is
//! no root, no io_uring, hardly any locked memory.

use std::fs;
use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::os::unix::fs::{MetadataExt, PermissionsExt, chown};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::thread;
use std::time::{Duration, Instant};

use bytes::Bytes;
use ringkeeper::model::request::RawAcl;
use ringkeeper::model::{ErrorCode, Perms, Request, WriteRequest};

use super::client::{self, create, delete, get, set};
use super::peer::{self, Server};
use super::skip::skip_without_right;

/// The user that owns nothing.
const NOBODY: u32 = 65_534;
const MIB: u64 = 1024 * 1024;

fn is_root() -> bool {
    // SAFETY: the call has no preconditions.
    unsafe { libc::geteuid() == 0 }
}

fn end(server: Server) {
    let home = server.home.clone();
    drop(server);
    peer::clean(&home);
}

#[test]
fn a_port_that_another_server_left_in_time_wait_is_bound() {
    let other = TcpListener::bind("127.0.0.1:0").expect("loopback is there");
    let port = other.local_addr().expect("it is bound").port();
    let mut there = TcpStream::connect(("127.0.0.1", port)).expect("it listens");
    let (here, _) = other.accept().expect("somebody came");
    // The side that closes first is the one left in TIME_WAIT.
    drop(here);
    let _end = there.read(&mut [0; 1]);
    drop(there);
    drop(other);
    let home = peer::fresh_directory();
    peer::write_config(&home, port, "");
    end(Server::start_in(home, port));
}

/// A server that is given no address serves IPv6 and IPv4, and knows its clients by the addresses
/// that they know themselves by.
#[test]
fn without_an_address_clients_of_ipv4_and_ipv6_are_served() {
    const TEST: &str = "without_an_address_clients_of_ipv4_and_ipv6_are_served";
    if TcpListener::bind("[::1]:0").is_err() {
        return skip_without_right(TEST, "there is no IPv6 here");
    }
    let (home, port) = (peer::fresh_directory(), peer::free_port());
    let text = format!(
        "dataDir={}\nclientPort={port}\n4lw.commands.whitelist=*\nmaxClientCnxns=2\n",
        home.join("data").display()
    );
    fs::write(home.join("zoo.cfg"), text).expect("the directory is writable");
    let server = Server::start_in(home, port);
    let mut four = client::connect(port).expect("the server serves IPv4");
    let mut six = client::Client::connect(("::1", port)).expect("the server serves IPv6");
    let acl = RawAcl { perms: Perms::ALL, scheme: Some("ip".into()), id: Some("127.0.0.1".into()) };
    assert_eq!(four.code(&create("/a", b"", 0)), ErrorCode::OK);
    let set_acl = WriteRequest::SetAcl { path: "/a".into(), acl: Some(vec![acl]), version: -1 };
    assert_eq!(four.code(&Request::Write(set_acl)), ErrorCode::OK);
    assert_eq!(four.code(&get("/a", false)), ErrorCode::OK);
    assert_eq!(six.code(&get("/a", false)), ErrorCode::NO_AUTH);
    let _second = client::connect(port).expect("there may be two");
    assert!(client::connect(port).is_err());
    peer::within("the refusal", || {
        server.log().contains("Too many connections from /127.0.0.1 - max is 2").then_some(())
    });
    let cons = client::word(("::1", port), "cons").expect("the server serves");
    assert_eq!(cons.matches(" /127.0.0.1:").count(), 2, "{cons}");
    assert_eq!(cons.matches(" /[::1]:").count(), 2, "{cons}");
    end(server);
}

#[test]
fn without_root_and_with_8_mib_of_locked_memory_four_shards_serve() {
    const TEST: &str = "without_root_and_with_8_mib_of_locked_memory_four_shards_serve";
    if !is_root() {
        return skip_without_right(TEST, "only root can become another user");
    }
    // Everything the user touches is in a place of its own.
    let home = std::env::temp_dir().join(format!("ringkeeper-test-{}", std::process::id()));
    fs::create_dir_all(&home).expect("the temporary directory is writable");
    let program = home.join("ringkeeper");
    // By another process: one that another test forks from this one could still have a copy made
    // here open for writing, which then cannot be run.
    let copied = Command::new("cp").arg(env!("CARGO_BIN_EXE_ringkeeper")).arg(&program).status();
    assert!(copied.is_ok_and(|status| status.success()), "it fits");
    fs::set_permissions(&program, fs::Permissions::from_mode(0o755)).expect("it is ours");
    chown(&home, Some(NOBODY), Some(NOBODY)).expect("root may");
    let port = peer::free_port();
    peer::write_config(&home, port, "ringkeeper.shards=4");
    let mut command = peer::command(&program, &home.join("zoo.cfg"));
    command.uid(NOBODY).gid(NOBODY);
    limit_locked_memory(&mut command, 8 * MIB);
    let server = Server::adopt(command.spawn().expect("it starts"), home, port);
    // One client on each shard.
    for number in 0..4 {
        let mut client = client::connect(port).expect("the server serves");
        assert_eq!(client.code(&create(&format!("/a{number}"), b"x", 0)), ErrorCode::OK);
    }
    let owner = fs::metadata(format!("/proc/{}", server.pid())).expect("it runs").uid();
    assert_eq!(owner, NOBODY);
    end(server);
}

fn limit_locked_memory(command: &mut Command, bytes: u64) {
    let limit = libc::rlimit { rlim_cur: bytes, rlim_max: bytes };
    // SAFETY: setrlimit may be called between fork and exec.
    unsafe {
        command.pre_exec(move || match libc::setrlimit(libc::RLIMIT_MEMLOCK, &raw const limit) {
            0 => Ok(()),
            _ => Err(std::io::Error::last_os_error()),
        });
    }
}

/// Descriptors that a process may have: now, and as far as it may raise that.
fn limit_descriptors(command: &mut Command, now: u64, at_most: u64) {
    let limit = libc::rlimit { rlim_cur: now, rlim_max: at_most };
    // SAFETY: setrlimit may be called between fork and exec.
    unsafe {
        command.pre_exec(move || match libc::setrlimit(libc::RLIMIT_NOFILE, &raw const limit) {
            0 => Ok(()),
            _ => Err(std::io::Error::last_os_error()),
        });
    }
}

/// Lets a server have so many descriptors from now on, and returns how many it could have.
fn set_descriptors(server: &Server, count: u64) -> u64 {
    let pid = i32::try_from(server.pid()).expect("process ids are positive");
    let mut limit = libc::rlimit { rlim_cur: 0, rlim_max: 0 };
    let none = std::ptr::null();
    // SAFETY: the pointers are to a whole rlimit, or null.
    let known = unsafe { libc::prlimit(pid, libc::RLIMIT_NOFILE, none, &raw mut limit) };
    assert_eq!(known, 0, "the process is ours");
    let new = libc::rlimit { rlim_cur: count, ..limit };
    let old = std::ptr::null_mut();
    // SAFETY: as above.
    let done = unsafe { libc::prlimit(pid, libc::RLIMIT_NOFILE, &raw const new, old) };
    assert_eq!(done, 0, "no more than the hard limit");
    limit.rlim_cur
}

#[test]
fn clients_leave_descriptors_to_the_log() {
    const DESCRIPTORS: u64 = 256;
    let (home, port) = (peer::fresh_directory(), peer::free_port());
    peer::write_config(&home, port, "preAllocSize=4096");
    let program = Path::new(env!("CARGO_BIN_EXE_ringkeeper"));
    let mut command = peer::command(program, &home.join("zoo.cfg"));
    limit_descriptors(&mut command, DESCRIPTORS / 2, DESCRIPTORS);
    let server = Server::adopt(command.spawn().expect("it starts"), home, port);
    assert_eq!(set_descriptors(&server, DESCRIPTORS), DESCRIPTORS, "it has all it may have");
    let mut client = client::connect_for_long(port).expect("the server serves");
    assert_eq!(client.code(&create("/a", b"", 0)), ErrorCode::OK);
    let came: Vec<_> = (0..DESCRIPTORS + 20).map(|_| client::connect(port)).collect();
    let refused = came.iter().filter(|came| came.is_err()).count() as u64;
    assert!((100..DESCRIPTORS - 30).contains(&refused), "{refused} were refused");
    let told = server.log().matches("a client was refused: 128 descriptors are kept").count();
    assert!((1..10).contains(&told), "{told} lines for {refused} clients");
    // More than is prepared when the server starts.
    for _ in 0..300 {
        assert_eq!(client.code(&set("/a", &[b'x'; 100_000])), ErrorCode::OK, "{}", server.log());
    }
    drop(came);
    peer::within("a connection", || client::connect(port).ok());
    end(server);
}

#[test]
fn a_lack_of_descriptors_is_waited_out() {
    let server = Server::start("preAllocSize=4096");
    let mut client = client::connect_for_long(server.port).expect("the server serves");
    assert_eq!(client.code(&create("/a", b"", 0)), ErrorCode::OK);
    let before = set_descriptors(&server, 3);
    let writing = thread::spawn(move || {
        for number in 0..300 {
            let code = client.call(&set("/a", &[b'x'; 100_000])).map(|reply| reply.header.code);
            assert!(code.as_ref().is_ok_and(|code| *code == ErrorCode::OK), "{number}: {code:?}");
        }
    });
    peer::within("a try without a descriptor", || {
        server.log().contains("Too many open files (os error 24): it is tried again").then_some(())
    });
    thread::sleep(Duration::from_millis(500));
    assert!(!writing.is_finished(), "{}", server.log());
    set_descriptors(&server, before);
    writing.join().expect("everything is written in the end");
    end(server);
}

#[test]
fn too_little_locked_memory_is_said_with_what_to_do() {
    let home = peer::fresh_directory();
    peer::write_config(&home, peer::free_port(), "");
    let program = Path::new(env!("CARGO_BIN_EXE_ringkeeper"));
    let mut command = peer::command(program, &home.join("zoo.cfg"));
    limit_locked_memory(&mut command, 64 * 1024);
    let status = command.spawn().expect("it starts").wait().expect("the child is ours");
    let log = fs::read_to_string(home.join("log")).expect("it has a log");
    assert_eq!(status.code(), Some(1), "{log}");
    assert!(log.contains("only 64 KiB of memory may be locked"), "{log}");
    assert!(log.contains("ulimit -l"), "{log}");
    peer::clean(&home);
}

#[test]
fn refused_io_uring_is_said_with_what_to_do() {
    let home = peer::fresh_directory();
    peer::write_config(&home, peer::free_port(), "");
    let program = Path::new(env!("CARGO_BIN_EXE_ringkeeper"));
    let mut command = peer::command(program, &home.join("zoo.cfg"));
    // SAFETY: the calls are made between fork and exec, and allocate nothing.
    unsafe { command.pre_exec(forbid_io_uring) };
    let status = command.spawn().expect("it starts").wait().expect("the child is ours");
    let log = fs::read_to_string(home.join("log")).expect("it has a log");
    assert_eq!(status.code(), Some(1), "{log}");
    assert!(log.contains("io_uring cannot be used"), "{log}");
    assert!(log.contains("seccomp profile"), "{log}");
    peer::clean(&home);
}

/// As a container's seccomp profile does it: io_uring_setup answers EPERM.
fn forbid_io_uring() -> std::io::Result<()> {
    let call = u32::try_from(libc::SYS_io_uring_setup).expect("system calls are few");
    let step = |code: u32, k: u32, jt: u8, jf: u8| libc::sock_filter {
        code: u16::try_from(code).expect("instructions are 16 bits"),
        jt,
        jf,
        k,
    };
    let mut filter = [
        step(libc::BPF_LD | libc::BPF_W | libc::BPF_ABS, 0, 0, 0),
        step(libc::BPF_JMP | libc::BPF_JEQ | libc::BPF_K, call, 0, 1),
        step(libc::BPF_RET | libc::BPF_K, libc::SECCOMP_RET_ERRNO | libc::EPERM as u32, 0, 0),
        step(libc::BPF_RET | libc::BPF_K, libc::SECCOMP_RET_ALLOW, 0, 0),
    ];
    let program = libc::sock_fprog { len: 4, filter: filter.as_mut_ptr() };
    // SAFETY: the program is whole and outlives the calls.
    let done = unsafe {
        libc::prctl(libc::PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) == 0
            && libc::prctl(libc::PR_SET_SECCOMP, libc::SECCOMP_MODE_FILTER, &raw const program) == 0
    };
    if done { Ok(()) } else { Err(std::io::Error::last_os_error()) }
}

#[test]
fn without_direct_io_acknowledged_writes_survive_a_kill() {
    let server = Server::start("ringkeeper.directIo=false");
    let mut client = client::connect(server.port).expect("the server serves");
    for number in 0..100 {
        assert_eq!(client.code(&create(&format!("/n{number}"), b"x", 0)), ErrorCode::OK);
    }
    let (home, port) = server.kill();
    let server = Server::start_in(home, port);
    let mut client = client::connect(port).expect("the server serves");
    for number in 0..100 {
        assert_eq!(client.code(&get(&format!("/n{number}"), false)), ErrorCode::OK);
    }
    end(server);
}

/// A small file system of its own, gone with this value.
struct SmallDisk(PathBuf);

impl SmallDisk {
    fn mount(path: &Path, bytes: u64) -> Option<Self> {
        fs::create_dir_all(path).ok()?;
        let options = format!("size={bytes}");
        let status =
            Command::new("mount").args(["-t", "tmpfs", "-o", &options, "tmpfs"]).arg(path).status();
        status.is_ok_and(|status| status.success()).then(|| Self(path.to_owned()))
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        let _gone = Command::new("umount").arg("-l").arg(&self.0).status();
    }
}

#[test]
fn a_full_disk_refuses_growth_and_goes_on_with_the_rest() {
    const TEST: &str = "a_full_disk_refuses_growth_and_goes_on_with_the_rest";
    let home = peer::fresh_directory();
    let Some(disk) = SmallDisk::mount(&home.join("data"), 24 * MIB) else {
        return skip_without_right(TEST, "no right to mount a tmpfs");
    };
    let port = peer::free_port();
    peer::write_config(&home, port, "preAllocSize=4096");
    let server = Server::start_in(home.clone(), port);
    let mut client = client::connect(port).expect("the server serves");
    let value = vec![b'x'; 100_000];
    let mut made = 0;
    let refused = loop {
        match client.code(&create(&format!("/n{made}"), &value, 0)) {
            ErrorCode::OK => made += 1,
            code => break code,
        }
    };
    assert_eq!(refused, ErrorCode::SYSTEM_ERROR, "growth is refused: {}", server.log());
    let deadline = Instant::now() + Duration::from_secs(60);
    while !server.log().contains("No space left on device") {
        assert!(Instant::now() < deadline, "{}", server.log());
        thread::sleep(Duration::from_millis(10));
    }
    // Reads, shorter values, deletes and sessions go on.
    assert_eq!(client.code(&get("/n0", false)), ErrorCode::OK);
    assert_eq!(client.code(&set("/n0", b"short")), ErrorCode::OK);
    assert_eq!(client.code(&delete("/n1")), ErrorCode::OK);
    assert_eq!(client.code(&set("/n0", &value)), ErrorCode::SYSTEM_ERROR);
    client::connect(port).expect("a session can be made");
    // Whatever grows by another name is refused as well.
    let open = |id: String| RawAcl {
        perms: Perms::ALL,
        scheme: Some("digest".into()),
        id: Some(id.into()),
    };
    let acl = (0..200).map(|number| open(format!("u{number}:h"))).collect();
    let set_acl = WriteRequest::SetAcl { path: "/n0".into(), acl: Some(acl), version: -1 };
    assert_eq!(client.code(&Request::Write(set_acl)), ErrorCode::SYSTEM_ERROR);
    assert_eq!(client.code(&create("/s-", b"", 2)), ErrorCode::SYSTEM_ERROR);
    let writes =
        [delete("/n2"), create("/m", b"", 0)].into_iter().filter_map(|request| match request {
            Request::Write(write) => Some(write),
            _ => None,
        });
    let multi = Request::Write(WriteRequest::Multi(writes.collect()));
    assert_eq!(client.code(&multi), ErrorCode::SYSTEM_ERROR);
    let shorten = |ops| {
        let path = "/n0".into();
        let set = WriteRequest::SetData { path, data: Some(Bytes::new()), version: -1 };
        Request::Write(WriteRequest::Multi(vec![set; ops]))
    };
    assert_eq!(client.code(&shorten(3)), ErrorCode::OK);
    assert_eq!(client.code(&shorten(300)), ErrorCode::SYSTEM_ERROR, "too long to be looked into");
    // The operator makes room, and it goes on by itself.
    let more = Command::new("mount")
        .args(["-o", &format!("remount,size={}", 256 * MIB)])
        .arg(&disk.0)
        .status();
    assert!(more.expect("mount is there").success());
    let deadline = Instant::now() + Duration::from_secs(60);
    while client.code(&create("/more", b"", 0)) != ErrorCode::OK {
        assert!(Instant::now() < deadline, "{}", server.log());
        thread::sleep(Duration::from_millis(50));
    }
    let (_, port) = server.kill();
    let server = Server::start_in(home.clone(), port);
    let mut client = client::connect(port).expect("the server serves");
    for number in 2..made {
        assert_eq!(client.code(&get(&format!("/n{number}"), false)), ErrorCode::OK, "{number}");
    }
    drop(server);
    drop(disk);
    peer::clean(&home);
}

/// A control group whose members' writes to one disk are slow, gone with this value.
struct SlowDisk(PathBuf);

impl SlowDisk {
    const WRITES_PER_SECOND: u32 = 40;

    /// The disk that `path` is on. Control groups are of version 1 or 2.
    fn of(path: &Path) -> Option<Self> {
        let (old, new) = (Path::new("/sys/fs/cgroup/blkio"), Path::new("/sys/fs/cgroup"));
        let old_file = "blkio.throttle.write_iops_device";
        let (root, file, unit) = if old.join(old_file).exists() {
            (old, old_file, "")
        } else {
            fs::write(new.join("cgroup.subtree_control"), "+io").ok()?;
            (new, "io.max", "wiops=")
        };
        let group = root.join(format!("ringkeeper-test-{}", std::process::id()));
        fs::create_dir_all(&group).ok()?;
        let slow = Self(group);
        let disk = disk_of(path)?;
        let limit = format!("{disk} {unit}{}", Self::WRITES_PER_SECOND);
        fs::write(slow.0.join(file), limit).ok()?;
        Some(slow)
    }

    fn take(&self, pid: u32) {
        let mut tasks = fs::OpenOptions::new()
            .write(true)
            .open(self.0.join("cgroup.procs"))
            .expect("the group is ours");
        tasks.write_all(pid.to_string().as_bytes()).expect("the process runs");
    }
}

/// The numbers of the disk that `path` is on, of the whole disk if it is on a partition.
fn disk_of(path: &Path) -> Option<String> {
    let device = fs::metadata(path).ok()?.dev();
    let numbers = format!("{}:{}", libc::major(device), libc::minor(device));
    let place = fs::canonicalize(format!("/sys/dev/block/{numbers}")).ok()?;
    if !place.join("partition").exists() {
        return Some(numbers);
    }
    let numbers = fs::read_to_string(place.parent()?.join("dev")).ok()?;
    Some(numbers.trim().to_owned())
}

impl Drop for SlowDisk {
    fn drop(&mut self) {
        let deadline = Instant::now() + Duration::from_secs(60);
        while fs::remove_dir(&self.0).is_err() && Instant::now() < deadline {
            thread::sleep(Duration::from_millis(50));
        }
    }
}

#[test]
fn a_restart_while_slow_writes_are_in_flight_loses_nothing_acknowledged() {
    const TEST: &str = "a_restart_while_slow_writes_are_in_flight_loses_nothing_acknowledged";
    let mut server = Server::start("");
    let Some(slow) = SlowDisk::of(&server.home) else {
        end(server);
        return skip_without_right(TEST, "no blkio control group to slow a disk with");
    };
    let mut client = client::connect(server.port).expect("the server serves");
    assert_eq!(client.code(&create("/a", b"0", 0)), ErrorCode::OK);
    let mut acknowledged = 0_u32;
    let mut sent = 0_u32;
    for round in 0..6 {
        slow.take(server.pid());
        let mut client = client::connect(server.port).expect("the server serves");
        let until = Instant::now() + Duration::from_millis(400 + 70 * round);
        while Instant::now() < until {
            for _ in 0..4 {
                sent += 1;
                client.send(&set("/a", sent.to_string().as_bytes())).expect("it is sent");
            }
            for _ in 0..4 {
                let reply = client.receive().expect("slow writes end");
                assert_eq!(reply.header.code, ErrorCode::OK);
            }
            acknowledged = sent;
        }
        // Leave some in flight, and start again at once.
        for _ in 0..8 {
            sent += 1;
            client.send(&set("/a", sent.to_string().as_bytes())).expect("it is sent");
        }
        thread::sleep(Duration::from_millis(5));
        let (home, port) = server.kill();
        server = Server::start_in(home, port);
        let mut client = client::connect(port).expect("the server serves");
        let mut reply = client.call(&get("/a", false)).expect("the server serves");
        let data = reply.body.buffer("data").expect("it decodes").expect("it has data");
        let value: u32 = std::str::from_utf8(&data).expect("text").parse().expect("a number");
        assert!((acknowledged..=sent).contains(&value), "{value} of {acknowledged}..={sent}");
        sent = sent.max(value);
        acknowledged = value;
    }
    end(server);
    drop(slow);
}
