//! rk, the client for people and scripts, on real servers: what it prints and how it ends.

use std::io::{BufRead, BufReader, Write};
use std::process::{Child, ChildStdin, Command, Output, Stdio};
use std::sync::mpsc::{self, Receiver};
use std::time::Duration;

use serde_json::Value;

use super::peer::{self, Server};

/// Nothing that a test waits for takes longer.
const PATIENCE: Duration = peer::WITHIN;

/// A command with the server's address.
pub(crate) fn rk(port: u16, arguments: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_rk"));
    command.arg("--server").arg(format!("127.0.0.1:{port}"));
    command.args(arguments).env_remove("RK_AUTH").env_remove("RK_SERVER");
    command.stdin(Stdio::null());
    command
}

fn output(port: u16, arguments: &[&str]) -> Output {
    rk(port, arguments).output().expect("the program was built")
}

/// What a command prints that must succeed.
pub(crate) fn ok(port: u16, arguments: &[&str]) -> String {
    let output = output(port, arguments);
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{arguments:?}: {}: {errors}", output.status);
    String::from_utf8(output.stdout).expect("text")
}

/// What a command says that must end with `code`.
pub(crate) fn fails(port: u16, code: i32, arguments: &[&str]) -> String {
    let output = output(port, arguments);
    let errors = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!(output.status.code(), Some(code), "{arguments:?}: {errors}");
    errors
}

fn json(port: u16, arguments: &[&str]) -> Value {
    let text = ok(port, arguments);
    serde_json::from_str(&text).unwrap_or_else(|error| panic!("{arguments:?}: {error}: {text}"))
}

/// A command with data on its standard input.
fn fed(port: u16, arguments: &[&str], input: &[u8]) -> Output {
    let mut command = rk(port, arguments);
    command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn().expect("the program was built");
    let written = child.stdin.take().expect("it is piped").write_all(input);
    let output = child.wait_with_output().expect("the child is ours");
    written.expect("the program reads its input");
    output
}

/// A command that goes on, and its lines.
pub(crate) struct Running {
    pub(crate) child: Child,
    pub(crate) stdin: Option<ChildStdin>,
    lines: Receiver<String>,
}

impl Running {
    pub(crate) fn start(command: &mut Command) -> Self {
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = command.spawn().expect("the program was built");
        let (to, lines) = mpsc::channel();
        let stdout = child.stdout.take().expect("it is piped");
        let stderr = child.stderr.take().expect("it is piped");
        let errors = to.clone();
        std::thread::spawn(move || {
            BufReader::new(stdout).lines().map_while(Result::ok).try_for_each(|line| to.send(line))
        });
        std::thread::spawn(move || {
            let lines = BufReader::new(stderr).lines().map_while(Result::ok);
            lines.map(|line| format!("! {line}")).try_for_each(|line| errors.send(line))
        });
        let stdin = child.stdin.take();
        Self { child, stdin, lines }
    }

    /// The next line; those of standard error begin with an exclamation mark.
    pub(crate) fn line(&self) -> String {
        self.lines.recv_timeout(PATIENCE).expect("a line comes in time")
    }

    /// Lines up to one that has `text` in it.
    pub(crate) fn until(&self, text: &str) -> String {
        loop {
            let line = self.line();
            if line.contains(text) {
                return line;
            }
        }
    }

    /// Gives it a line.
    pub(crate) fn say(&mut self, line: &str) {
        let stdin = self.stdin.as_mut().expect("it is piped");
        stdin.write_all(format!("{line}\n").as_bytes()).expect("the program reads");
    }

    /// SIGINT to the program alone.
    pub(crate) fn interrupt(&self) {
        self.signal(libc::SIGINT);
    }

    /// A signal to the program alone.
    pub(crate) fn signal(&self, signal: i32) {
        peer::signal(&self.child, signal);
    }

    /// Its exit code.
    pub(crate) fn end(mut self) -> Option<i32> {
        drop(self.stdin.take());
        let deadline = std::time::Instant::now() + PATIENCE;
        loop {
            if let Some(status) = self.child.try_wait().expect("the child is ours") {
                return status.code();
            }
            assert!(std::time::Instant::now() < deadline, "the program ends in time");
            std::thread::sleep(Duration::from_millis(10));
        }
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        let _ended = self.child.kill();
        let _status = self.child.wait();
    }
}

pub(crate) fn clean(server: Server) {
    let home = server.home.clone();
    drop(server);
    peer::clean(&home);
}

#[test]
fn znodes_are_created_read_set_and_deleted() {
    let server = Server::start("");
    let port = server.port;
    assert_eq!(ok(port, &["create", "/a", "hello"]), "/a\n");
    assert_eq!(ok(port, &["get", "/a"]), "hello");
    assert_eq!(json(port, &["get", "/a", "--json"])["data"], "hello");
    assert_eq!(ok(port, &["get", "/a", "--base64"]), "aGVsbG8=\n");
    assert_eq!(ok(port, &["get", "/a", "--hex"]), "68656c6c6f\n");
    let text = ok(port, &["get", "-s", "/a"]);
    assert!(text.starts_with("hello\ncZxid = 0x"), "{text}");
    assert_eq!(text.lines().count(), 12);

    // Bytes that are no text go through unchanged, both ways.
    let bytes: Vec<u8> = (0..=255).collect();
    assert!(fed(port, &["set", "/a", "-"], &bytes).status.success());
    assert_eq!(output(port, &["get", "/a"]).stdout, bytes);
    assert!(json(port, &["get", "--json", "/a"])["data_base64"].is_string());
    ok(port, &["set", "/a", "00ff", "--hex"]);
    assert_eq!(output(port, &["get", "/a"]).stdout, [0, 255]);
    let file = server.home.join("file");
    std::fs::write(&file, b"from a file").expect("the directory is writable");
    ok(port, &["set", "/a", &format!("@{}", file.display())]);
    assert_eq!(ok(port, &["get", "/a"]), "from a file");

    let stat = json(port, &["--json", "stat", "/a"]);
    assert_eq!(stat["stat"]["version"], 3);
    assert_eq!(ok(port, &["stat", "/a"]).lines().count(), 11);
    assert_eq!(ok(port, &["set", "/a", "x", "--version", "3"]), "");
    assert_eq!(json(port, &["set", "/a", "y", "--json"])["stat"]["version"], 5);

    assert_eq!(ok(port, &["create", "-p", "/deep/er/znode"]), "/deep/er/znode\n");
    assert_eq!(ok(port, &["create", "-s", "/deep/s-", "1"]), "/deep/s-0000000001\n");
    assert_eq!(ok(port, &["create", "-s", "/deep/"]), "/deep/0000000002\n");
    assert_eq!(ok(port, &["create", "-c", "/container"]), "/container\n");
    assert_eq!(json(port, &["create", "/j", "--json"])["path"], "/j");
    assert_eq!(ok(port, &["ls", "/deep"]), "0000000002\ner\ns-0000000001\n");
    assert_eq!(ok(port, &["ls"]), "a\ncontainer\ndeep\nj\nzookeeper\n");
    let all = "/deep\n/deep/0000000002\n/deep/er\n/deep/s-0000000001\n/deep/er/znode\n";
    assert_eq!(ok(port, &["ls", "-R", "/deep"]), all);
    assert_eq!(ok(port, &["count", "/deep"]), "4\n");
    assert_eq!(json(port, &["count", "/deep", "--json"])["descendants"], 4);
    assert_eq!(json(port, &["ls", "/deep", "--json"])["children"][1], "er");
    assert_eq!(ok(port, &["ls", "-s", "/deep"]).lines().count(), 14);

    let errors = fails(port, 2, &["rm", "-r", "/deep"]);
    assert!(errors.contains("5 znodes: say --yes"), "{errors}");
    assert_eq!(json(port, &["rm", "-r", "--yes", "/deep", "--json"])["deleted"], 5);
    assert_eq!(ok(port, &["rm", "/a"]), "");
    clean(server);
}

#[test]
fn refusals_have_names_and_exit_codes() {
    let server = Server::start("");
    let port = server.port;
    ok(port, &["create", "-p", "/a/b"]);
    for (arguments, expected) in [
        (&["get", "/no"][..], "no znode /no (NO_NODE)"),
        (&["stat", "/no"], "no znode /no (NO_NODE)"),
        (&["ls", "/no"], "no znode /no (NO_NODE)"),
        (&["ls", "-R", "/no"], "no znode /no (NO_NODE)"),
        (&["rm", "/no"], "no znode /no (NO_NODE)"),
        (&["rm", "-r", "/no"], "no znode /no (NO_NODE)"),
        (&["create", "/no/a"], "no znode /no/a (NO_NODE)"),
        (&["create", "/a"], "/a exists already (NODE_EXISTS)"),
        (&["rm", "/a"], "/a has children (NOT_EMPTY)"),
        (&["set", "/a", "x", "--version", "7"], "/a has another version (BAD_VERSION)"),
        (&["setacl", "/a", "digest:nocolon:r"], "the ACL for /a is not valid (INVALID_ACL)"),
        (&["quota", "list", "/a"], "(no quota)"),
        (&["--auth", "kerberos:x", "whoami"], "(AUTH_FAILED)"),
    ] {
        let errors = fails(port, 1, arguments);
        assert!(errors.contains(expected), "{arguments:?}: {errors}");
    }
    let errors = fails(port, 1, &["get", "/no", "--json"]);
    let value: Value = serde_json::from_str(&errors).expect("a line of JSON");
    assert_eq!((&value["error"], &value["path"]), (&"NO_NODE".into(), &"/no".into()));
    for (arguments, expected) in [
        (&["get"][..], "required"),
        (&["get", "no"], "a path is absolute"),
        (&["get", "/a/"], "a path is absolute"),
        (&["frobnicate"], "frobnicate"),
        (&["set", "/a", "@/no/such/file"], "/no/such/file"),
        (&["set", "/a", "xyz", "--hex"], "not hexadecimal"),
        (&["setacl", "/a", "world"], "ACL entry"),
        (&["create", "/c", "--ttl", "x"], "--ttl"),
        (&["word", "toolong"], "four letters"),
    ] {
        let errors = fails(port, 2, arguments);
        assert!(errors.contains(expected), "{arguments:?}: {errors}");
    }
    let nobody = peer::free_port();
    assert!(fails(nobody, 3, &["get", "/a"]).contains("no connection"), "a connection");
    assert!(fails(nobody, 3, &["word", "ruok"]).contains("no connection"), "a connection");
    // Secrets are not repeated.
    let errors = fails(port, 2, &["--auth", "secret", "ls"]);
    assert!(!errors.contains("secret"), "{errors}");
    clean(server);
}

#[test]
fn acls_identities_and_quotas() {
    let server = Server::start("enforceQuota=true");
    let port = server.port;
    let auth = ["--auth", "digest:ann:pw"];
    ok(port, &["create", "/open"]);
    assert_eq!(ok(port, &["getacl", "/open"]), "world:anyone:cdrwa\n");
    ok(port, &[auth[0], auth[1], "create", "/own", "x", "--acl", "auth::cdrwa,world:anyone:c"]);
    let acl = ok(port, &[auth[0], auth[1], "getacl", "/own"]);
    assert!(acl.starts_with("digest:ann:") && acl.ends_with(":cdrwa,world:anyone:c\n"), "{acl}");
    assert!(fails(port, 1, &["get", "/own"]).contains("no permission for /own (NO_AUTH)"), "no");
    assert_eq!(ok(port, &[auth[0], auth[1], "get", "/own"]), "x");
    let with_variable = rk(port, &["get", "/own"]).env("RK_AUTH", "digest:ann:pw").output();
    assert_eq!(with_variable.expect("the program was built").stdout, b"x");
    let identities = ok(port, &[auth[0], auth[1], "whoami"]);
    assert_eq!(identities, "digest: ann\nip: 127.0.0.1\n");

    ok(port, &["create", "-p", "/tree/a/b"]);
    // What getacl prints, setacl reads.
    ok(port, &["setacl", "-R", "/tree", acl.trim()]);
    for path in ["/tree", "/tree/a", "/tree/a/b"] {
        assert_eq!(ok(port, &[auth[0], auth[1], "getacl", path]), acl);
    }
    let json = json(port, &[auth[0], auth[1], "getacl", "/tree", "--json"]);
    assert_eq!(json["acl"][1]["perms"], "c");
    assert_eq!(json["stat"]["aversion"], 1);

    ok(port, &["create", "/q", "1234"]);
    ok(port, &["quota", "set", "/q", "--hard-count", "2", "--bytes", "100"]);
    assert_eq!(
        ok(port, &["quota", "list", "/q"]),
        "/q: bytes 100, hard-count 2; used: count 1, bytes 4\n"
    );
    ok(port, &["quota", "set", "/q", "--bytes", "50"]);
    ok(port, &["create", "/q/1"]);
    assert!(fails(port, 1, &["create", "/q/2"]).contains("QUOTA_EXCEEDED"), "a hard limit");
    assert!(ok(port, &["quota", "list"]).starts_with("/q: bytes 50, hard-count 2; used: count 2"));
    assert!(fails(port, 2, &["quota", "set", "/q/1", "--count", "1"]).contains("/q above"), "one");
    let listed = self::json(port, &["quota", "list", "/q", "--json"]);
    assert_eq!(
        (&listed["limits"]["hard_count"], &listed["usage"]["count"]),
        (&2.into(), &2.into())
    );
    assert_eq!(self::json(port, &["quota", "delete", "/q", "--json"])["path"], "/q");
    assert_eq!(ok(port, &["quota", "list"]), "");
    ok(port, &["create", "/q/2"]);
    clean(server);
}

#[test]
fn several_writes_are_one() {
    let server = Server::start("");
    let port = server.port;
    let script = "create /a 'some data'\ncreate /a/s- -s\nset /a other --version 0\n";
    assert_eq!(ok(port, &["multi", script]), "create /a\ncreate /a/s-0000000000\nset /a\n");
    assert_eq!(ok(port, &["get", "/a"]), "other");
    let failing = "set /a third\ncheck /a --version 9\nrm /a/s-0000000000";
    let errors = fails(port, 1, &["multi", failing]);
    assert!(errors.contains("op 2 (check /a) was refused (BAD_VERSION)"), "{errors}");
    assert_eq!(ok(port, &["get", "/a"]), "other");
    let json = br#"[{"op":"rm","path":"/a/s-0000000000"},
        {"op":"set","path":"/a","data_base64":"AAE="}]"#;
    let done = fed(port, &["multi", "--json"], json);
    let value: Value = serde_json::from_slice(&done.stdout).expect("a line of JSON");
    assert_eq!(value[1]["stat"]["version"], 2);
    assert_eq!(output(port, &["get", "/a"]).stdout, [0, 1]);
    assert!(fails(port, 2, &["multi", "get /a"]).contains("line 1"), "a line");
    clean(server);
}

#[test]
fn subtrees_are_dumped_and_loaded() {
    let server = Server::start("");
    let port = server.port;
    ok(port, &["create", "-p", "/d/a/b", "text"]);
    ok(port, &["create", "/d/bin", "00ff", "--hex", "--acl", "world:anyone:r,ip:1.2.3.4:cd"]);
    let dump = ok(port, &["dump", "/d"]);
    assert_eq!(dump.lines().count(), 4, "{dump}");
    let loaded = fed(port, &["load", "--at", "/copy"], dump.as_bytes());
    let text = String::from_utf8_lossy(&loaded.stdout);
    assert!(text.starts_with("4 created, 0 overwritten, 0 kept"), "{text}");
    assert_eq!(ok(port, &["get", "/copy/d/a/b"]), "text");
    assert_eq!(output(port, &["get", "/copy/d/bin"]).stdout, [0, 255]);
    assert_eq!(ok(port, &["getacl", "/copy/d/bin"]), "world:anyone:r,ip:1.2.3.4:cd\n");
    assert_eq!(fed(port, &["load"], dump.as_bytes()).status.code(), Some(1));
    let kept = fed(port, &["load", "--keep", "--json"], dump.as_bytes());
    let value: Value = serde_json::from_slice(&kept.stdout).expect("a line of JSON");
    assert_eq!(value["kept"], 4);
    assert_eq!(fed(port, &["load"], b"{}").status.code(), Some(2));
    // Missing parents of the first znode are made.
    ok(port, &["rm", "-r", "--yes", "/copy"]);
    let part = ok(port, &["dump", "/d/a"]);
    ok(port, &["rm", "-r", "--yes", "/d"]);
    assert!(fed(port, &["load"], part.as_bytes()).status.success());
    assert_eq!(ok(port, &["get", "/d/a/b"]), "text");
    // More than is sent at once.
    let many: String = (0..300).map(|n| format!("{{\"path\":\"/d/{n:03}\"}}\n")).collect();
    let loaded = fed(port, &["load"], many.as_bytes());
    assert!(loaded.stdout.starts_with(b"300 created"), "all of them");
    assert_eq!(ok(port, &["count", "/d"]), "302\n");
    assert_eq!(ok(port, &["ls", "-R", "/d"]).lines().count(), 303);
    assert_eq!(ok(port, &["dump", "/d"]).lines().count(), 303);
    // The whole tree, without what the server keeps for itself.
    assert!(!ok(port, &["dump"]).contains("/zookeeper"));
    clean(server);
}

#[test]
fn events_are_streamed_across_a_restart() {
    let server = Server::start("");
    let port = server.port;
    ok(port, &["create", "/w"]);
    let watch = Running::start(&mut rk(port, &["watch", "-R", "/w", "-n", "3"]));
    assert_eq!(watch.line(), "! watching /w");
    ok(port, &["create", "/w/a"]);
    assert_eq!(watch.line(), "NodeCreated /w/a");
    ok(port, &["set", "/w/a", "x"]);
    assert_eq!(watch.line(), "NodeDataChanged /w/a");
    let (home, port) = server.kill();
    assert!(watch.line().starts_with("! connection lost"), "it is said");
    let server = Server::start_in(home, port);
    assert!(watch.line().contains("connected again"), "the same session goes on");
    ok(port, &["rm", "/w/a"]);
    assert_eq!(watch.line(), "NodeDeleted /w/a");
    assert_eq!(watch.end(), Some(0));

    // One-shot watches, as JSON, below a chroot.
    let chroot = format!("127.0.0.1:{port}/w");
    let mut command = rk(port, &["--server", &chroot, "--json", "stat", "-w", "/new"]);
    let stat = Running::start(&mut command);
    stat.until("NO_NODE");
    ok(port, &["create", "/w/new"]);
    let value: Value = serde_json::from_str(&stat.line()).expect("a line of JSON");
    assert_eq!((&value["event"], &value["path"]), (&"NodeCreated".into(), &"/new".into()));
    assert_eq!(stat.end(), Some(0));
    let ls = Running::start(&mut rk(port, &["ls", "-w", "/w"]));
    assert_eq!(ls.line(), "new");
    ok(port, &["rm", "/w/new"]);
    assert_eq!(ls.line(), "NodeChildrenChanged /w");
    assert_eq!(ls.end(), Some(0));

    let watch = Running::start(&mut rk(port, &["watch", "/w"]));
    watch.until("watching");
    watch.interrupt();
    assert_eq!(watch.end(), Some(0));
    clean(server);
}

#[test]
fn ephemerals_live_with_their_command() {
    let server = Server::start("");
    let port = server.port;
    let held = Running::start(&mut rk(port, &["create", "-e", "-s", "/e-", "x"]));
    assert_eq!(held.line(), "/e-0000000000");
    assert_eq!(ok(port, &["get", "/e-0000000000"]), "x");
    held.interrupt();
    assert_eq!(held.end(), Some(0));
    fails(port, 1, &["get", "/e-0000000000"]);

    let with_command = ["create", "-e", "/e", "--", "sh", "-c", "echo at $RK_ZNODE; exit 7"];
    let output = output(port, &with_command);
    assert_eq!(String::from_utf8_lossy(&output.stdout), "/e\nat /e\n");
    assert_eq!(output.status.code(), Some(7));
    fails(port, 1, &["get", "/e"]);

    // Somebody deletes it: the command ends, too.
    let held = Running::start(&mut rk(port, &["create", "-e", "/e", "--", "sleep", "60"]));
    assert_eq!(held.line(), "/e");
    ok(port, &["rm", "/e"]);
    held.until("somebody has deleted /e");
    assert_eq!(held.end(), Some(4));
    clean(server);
}

#[test]
fn servers_are_asked() {
    let server = Server::start("");
    let port = server.port;
    assert_eq!(ok(port, &["word", "ruok"]), "imok\n");
    let zxid =
        || ok(port, &["word", "srvr"]).lines().find(|l| l.starts_with("Zxid")).map(str::to_owned);
    assert_eq!(zxid(), zxid(), "asking begins no session");
    assert_eq!(json(port, &["word", "ruok", "--json"])["answer"], "imok");
    assert_eq!(ok(port, &["sync", "/"]), "");
    assert_eq!(ok(port, &["ephemerals"]), "");
    assert_eq!(ok(port, &["config"]), "");
    assert_eq!(json(port, &["sync", "/", "--json"])["path"], "/");
    assert_eq!(json(port, &["config", "--json"])["config"], "");
    assert_eq!(json(port, &["whoami", "--json"])["scheme"], "ip");
    assert_eq!(json(port, &["ephemerals", "--json"])["ephemerals"], Value::Array(Vec::new()));
    // The next server of the list takes over from one that is not there.
    let list = format!("127.0.0.1:{},127.0.0.1:{port}", peer::free_port());
    for _ in 0..4 {
        assert_eq!(ok(port, &["--server", &list, "ls", "/zookeeper"]), "config\nquota\n");
    }
    // Nobody reads any more: silence.
    ok(port, &["create", "/big", &"x".repeat(100_000)]);
    let mut child = rk(port, &["get", "/big"]);
    let mut child = child.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().expect("built");
    drop(child.stdout.take());
    let output = child.wait_with_output().expect("the child is ours");
    assert_eq!((output.status.code(), output.stderr.as_slice()), (Some(0), &b""[..]));
    // Nobody is there, but comes.
    let (home, port) = server.kill();
    let late = Running::start(&mut rk(port, &["--patient", "--timeout", "60s", "ls", "/"]));
    let server = Server::start_in(home, port);
    assert_eq!(late.line(), "big");
    assert_eq!(late.until("zookeeper"), "zookeeper");
    assert_eq!(late.end(), Some(0));
    clean(server);
}

#[test]
fn a_command_of_the_shell_reads_what_follows_its_line() {
    let server = Server::start("");
    let port = server.port;
    for (line, follows) in [
        ("create /a -", "data"),
        ("multi", "create /b x"),
        ("load -", "{\"path\":\"/c\",\"data\":\"y\",\"acl\":[]}"),
    ] {
        let mut shell = Running::start(&mut rk(port, &[]));
        shell.say(line);
        shell.say(follows);
        shell.say("");
        let code = shell.end();
        assert_eq!(code, Some(0), "{line}");
    }
    assert_eq!(ok(port, &["get", "/a"]), "data\n\n");
    assert_eq!(ok(port, &["ls"]), "a\nb\nc\nzookeeper\n");
    clean(server);
}

#[test]
fn numbers_below_zero_are_data() {
    let server = Server::start("");
    ok(server.port, &["create", "/a", "-5", "-s"]);
    assert_eq!(ok(server.port, &["get", "/a0000000000"]), "-5");
    clean(server);
}

#[test]
fn a_word_that_is_refused_is_a_failure() {
    let server = Server::start("4lw.commands.whitelist=ruok,srvr");
    let port = server.port;
    fails(port, 1, &["word", "mntr"]);
    fails(port, 1, &["word", "mntr", "--all"]);
    ok(port, &["word", "srvr", "--all"]);
    let nobody = format!("127.0.0.1:{port},127.0.0.1:{}", peer::free_port());
    let mut both = Command::new(env!("CARGO_BIN_EXE_rk"));
    both.args(["--server", &nobody, "word", "srvr", "--all"]).env_remove("RK_AUTH");
    let output = both.output().expect("the program was built");
    let said = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(3), "{said}");
    assert_eq!(said.lines().count(), 1, "it is said once: {said}");
    clean(server);
}
