//! Real clients drive this server and Apache ZooKeeper, and print the same transcript on both.
//!
//! What is needed is found in `RINGKEEPER_TEST_DEPS` (`.ci/run` puts it there): `venv` with kazoo,
//! and `zookeeper/*.jar`. What is missing is said loudly; with `CI` set it is a failure.

use std::io::{BufRead, BufReader, Read, Write};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::thread;
use std::time::Duration;

use super::apache::{Apache, assert_same, deps, jars, runs, skip};
use super::peer::{self, Server};

/// No script runs longer.
const SCRIPT_SECONDS_MAX: u64 = 300;

/// What a client prints to have its server killed and started again.
const RESTART: &str = "RESTART";

pub(crate) fn python() -> Option<PathBuf> {
    let own = deps().map(|deps| deps.join("venv/bin/python")).filter(|path| path.exists());
    let found = own.unwrap_or_else(|| PathBuf::from("python3"));
    runs(Command::new(&found).args(["-c", "import kazoo"])).then_some(found)
}

/// What a command prints; it must end well and in time. A client that prints `RESTART` has its
/// server killed and started again, and goes on when it reads a line.
pub(crate) fn transcript(command: &mut Command, port: u16, mut restart: impl FnMut()) -> String {
    let mut child = command
        .arg(port.to_string())
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("the program was found before");
    let pid = i32::try_from(child.id()).expect("process ids are positive");
    let (done, ended) = std::sync::mpsc::channel::<()>();
    let watchdog = thread::spawn(move || {
        if ended.recv_timeout(Duration::from_secs(SCRIPT_SECONDS_MAX)).is_err() {
            // SAFETY: the child is waited for only after this thread has been told.
            unsafe { libc::kill(pid, libc::SIGKILL) };
        }
    });
    let mut errors = child.stderr.take().expect("it is piped");
    let complaints = thread::spawn(move || {
        let mut bytes = Vec::new();
        let _ended = errors.read_to_end(&mut bytes);
        String::from_utf8_lossy(&bytes).into_owned()
    });
    let mut answers = child.stdin.take().expect("it is piped");
    let mut text = String::new();
    for line in BufReader::new(child.stdout.take().expect("it is piped")).lines() {
        let line = line.expect("transcripts are text");
        if line == RESTART {
            restart();
            // A client that has gone shows it by its status.
            let _read = answers.write_all(b"restarted\n");
        }
        text.push_str(&line);
        text.push('\n');
    }
    let _told = done.send(());
    watchdog.join().expect("the watchdog does not panic");
    let status = child.wait().expect("the child is ours");
    let complaints = complaints.join().expect("reading does not panic");
    assert!(status.success(), "{command:?}: {status}\n{text}{complaints}");
    text
}

/// Shards of the servers that a client is run on.
const SHARDS: [u16; 2] = [1, 3];

/// Runs a client on this server with one shard and with several, and on Apache ZooKeeper, all at
/// once.
fn compare(test: &str, settings: &str, lines_min: usize, client: impl Fn() -> Command + Sync) {
    let jars = jars();
    let (ours, theirs) = thread::scope(|scope| {
        let client = &client;
        let ours = SHARDS.map(|shards| {
            let settings = format!("ringkeeper.shards={shards}\n{settings}");
            (shards, scope.spawn(move || on_ringkeeper(&settings, client)))
        });
        let theirs = jars.map(|jars| scope.spawn(move || on_apache(&jars, settings, client)));
        let joined = |thread: thread::ScopedJoinHandle<'_, String>| match thread.join() {
            Ok(text) => text,
            Err(failed) => std::panic::resume_unwind(failed),
        };
        (ours.map(|(shards, thread)| (shards, joined(thread))), theirs.map(joined))
    });
    for (_, ours) in &ours {
        assert!(lines_min <= ours.lines().count(), "{test}: the transcript is whole\n{ours}");
    }
    let Some(theirs) = theirs else {
        return skip(test, "no java or no Apache ZooKeeper to compare with");
    };
    for (shards, ours) in ours {
        let lines = |text: &str| text.lines().map(str::to_owned).collect::<Vec<_>>();
        assert_same(&format!("{test}, {shards} shards"), &lines(&ours), &lines(&theirs));
    }
}

/// A client's transcript on a fresh Apache ZooKeeper.
fn on_apache(jars: &Path, settings: &str, client: impl Fn() -> Command) -> String {
    let mut apache = Apache::start(jars, settings);
    let port = apache.port;
    transcript(&mut client(), port, || apache.restart())
}

/// A client's transcript on a fresh server of ours.
fn on_ringkeeper(settings: &str, client: impl Fn() -> Command) -> String {
    let server = Server::start(settings);
    let (home, port) = (server.home.clone(), server.port);
    let mut server = Some(server);
    let text = transcript(&mut client(), port, || {
        let (home, port) = server.take().expect("it runs").kill();
        server = Some(Server::start_in(home, port));
    });
    drop(server);
    peer::clean(&home);
    text
}

/// A program in `tests/clients`.
pub(crate) fn script(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/clients").join(name)
}

#[test]
fn raw_requests_are_answered_as_apache_answers_them() {
    if !runs(Command::new("python3").arg("--version")) {
        return skip("raw requests", "no python3");
    }
    compare("raw requests", "", 400, || {
        let mut command = Command::new("python3");
        command.arg(script("raw_surface.py"));
        command
    });
}

#[test]
fn containers_ttls_and_quotas_are_as_apaches() {
    if !runs(Command::new("python3").arg("--version")) {
        return skip("containers, TTLs and quotas", "no python3");
    }
    let settings = "enforceQuota=true\nextendedTypesEnabled=true\n\
                    znode.container.checkIntervalMs=200";
    compare("containers, TTLs and quotas", settings, 105, || {
        let mut command = Command::new("python3");
        command.arg(script("kinds_surface.py"));
        command
    });
}

#[test]
fn authentication_keys_do_what_they_do_at_apache() {
    if !runs(Command::new("python3").arg("--version")) {
        return skip("authentication keys", "no python3");
    }
    let provider = "org.apache.zookeeper.server.auth.EnsembleAuthenticationProvider";
    let settings = format!(
        "enforce.auth.enabled=true\nenforce.auth.schemes=digest\nauthProvider.1={provider}\n\
         ensembleAuthName=red, blue\nDigestAuthenticationProvider.digestAlg=SHA-256\n\
         DigestAuthenticationProvider.superDigest=\
         super:WTA5ucCHTdJq645xIMibj8HviTPeB5mMuJ4/+v1dIEw=\nreconfigEnabled=true"
    );
    compare("authentication keys", &settings, 130, || {
        let mut command = Command::new("python3");
        command.arg(script("auth_surface.py"));
        command
    });
}

#[test]
fn words_are_apaches() {
    if !runs(Command::new("python3").arg("--version")) {
        return skip("words", "no python3");
    }
    // Standalone, every session is global all the same.
    let settings = "localSessionsEnabled=true\nlocalSessionsUpgradingEnabled=false";
    compare("words", settings, 140, || {
        let mut command = Command::new("python3");
        command.arg(script("words_surface.py"));
        command
    });
}

#[test]
fn kazoo_sees_what_apache_shows() {
    let Some(python) = python() else {
        return skip("kazoo", "no python3 with kazoo");
    };
    compare("kazoo", "", 70, || {
        let mut command = Command::new(&python);
        command.arg(script("kazoo_surface.py"));
        command
    });
}

#[test]
fn kazoos_recipes_work_as_on_apache() {
    let Some(python) = python() else {
        return skip("kazoo's recipes", "no python3 with kazoo");
    };
    compare("kazoo's recipes", "", 60, || {
        let mut command = Command::new(&python);
        command.arg(script("kazoo_recipes.py"));
        command
    });
}

#[test]
fn the_node_client_sees_what_apache_shows() {
    let modules = deps().map(|deps| deps.join("node/node_modules"));
    let Some(modules) =
        modules.filter(|modules| modules.is_dir() && runs(Command::new("node").arg("--version")))
    else {
        return skip("the node client", "no node or no node-zookeeper-client");
    };
    compare("the node client", "", 65, || {
        let mut command = Command::new("node");
        command.arg(script("node_surface.js")).env("NODE_PATH", &modules);
        command
    });
}

#[test]
fn the_rust_client_sees_what_apache_shows() {
    let built = deps().map(|deps| deps.join("rust"));
    let built = built.filter(|built| {
        let mut cargo = Command::new(env!("CARGO"));
        cargo.args(["build", "--quiet", "--locked", "--offline", "--manifest-path"]);
        cargo.arg(script("rust_surface/Cargo.toml")).arg("--target-dir").arg(built);
        runs(&mut cargo)
    });
    let Some(built) = built else {
        return skip("the Rust client", "no crates of zookeeper-client");
    };
    compare("the Rust client", EVERYTHING, 60, || Command::new(built.join("debug/rust_surface")));
}

#[test]
fn the_go_client_sees_what_apache_shows() {
    let home = peer::fresh_directory();
    let program = home.join("go_surface");
    let mut go = Command::new("go");
    go.args(["build", "-o"]).arg(&program).current_dir(script("go_surface"));
    go.env("GOPROXY", "off").env("GOFLAGS", "-mod=mod");
    if !runs(&mut go) {
        return skip("the Go client", "no go or no module of the client");
    }
    compare("the Go client", EVERYTHING, 45, || Command::new(&program));
    peer::clean(&home);
}

#[test]
fn the_c_client_sees_what_apache_shows() {
    let program = peer::fresh_directory().join("c_surface");
    let compiled = Command::new("cc")
        .args(["-DTHREADED", "-o"])
        .arg(&program)
        .arg(script("c_surface.c"))
        .arg("-lzookeeper_mt")
        .stderr(Stdio::null())
        .status();
    if !compiled.is_ok_and(|status| status.success()) {
        return skip("the C client", "no cc or no libzookeeper_mt");
    }
    compare("the C client", EVERYTHING, 75, || Command::new(&program));
    peer::clean(program.parent().expect("it is in a directory"));
}

/// Settings that make everything reachable, and containers and TTLs quick.
const EVERYTHING: &str = "enforceQuota=true\nextendedTypesEnabled=true\n\
                          znode.container.checkIntervalMs=200";

/// Compiles a Java client and runs it on a server with one shard and on one with several.
fn compare_java(test: &str, class: &str, lines_min: usize) {
    let Some(jars) = jars().filter(|jars| jars.join("curator-recipes-5.9.0.jar").exists()) else {
        return skip(test, "no java or no jars of ZooKeeper and Curator");
    };
    let classes = peer::fresh_directory();
    let classpath = format!("{}/*:{}", jars.display(), classes.display());
    let mut compiler = Command::new("javac");
    compiler.args(["-nowarn", "-cp", &classpath, "-d"]).arg(&classes);
    compiler.arg(script(&format!("{class}.java")));
    let Ok(output) = compiler.stdin(Stdio::null()).output() else {
        return skip(test, "no javac");
    };
    assert!(output.status.success(), "{test}: {}", String::from_utf8_lossy(&output.stderr));
    compare(test, EVERYTHING, lines_min, || {
        let mut command = Command::new("java");
        command.args(["-cp", &classpath, class]);
        command
    });
    peer::clean(&classes);
}

#[test]
fn the_java_client_sees_what_apache_shows() {
    compare_java("the Java client", "JavaSurface", 140);
}

#[test]
fn curators_recipes_work_as_on_apache() {
    compare_java("Curator", "CuratorSurface", 110);
}

/// Apache's command line on a server.
fn zkcli(jars: &Path, port: u16) -> Command {
    let mut command = Command::new("java");
    command.arg("-cp").arg(jars.join("*"));
    command.args(["org.apache.zookeeper.ZooKeeperMain", "-server"]);
    command.arg(format!("127.0.0.1:{port}")).stdin(Stdio::null());
    command
}

/// What it prints for one command.
fn zkcli_says(jars: &Path, port: u16, words: &[&str]) -> String {
    let output = zkcli(jars, port).args(words).output().expect("java was found before");
    let text = [output.stdout, output.stderr].concat();
    String::from_utf8_lossy(&text).into_owned()
}

#[test]
fn zkcli_works() {
    let Some(jars) = jars() else {
        return skip("zkCli", "no java or no Apache ZooKeeper");
    };
    let server = Server::start("");
    let port = server.port;
    let run = |words: &[&str]| zkcli_says(&jars, port, words);
    assert!(run(&["create", "/z", "hello"]).contains("Created /z"));
    assert!(run(&["get", "/z"]).contains("hello"));
    assert!(run(&["ls", "/"]).contains("[z, zookeeper]"));
    assert!(run(&["set", "/z", "again"]).lines().count() < 20);
    assert!(run(&["stat", "/z"]).contains("dataVersion = 1"));
    // One that stays sees its session go on when the server comes back.
    let mut shell = zkcli(&jars, port)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .expect("java was found before");
    let mut typed = shell.stdin.take().expect("it is piped");
    let mut shown = BufReader::new(shell.stdout.take().expect("it is piped")).lines();
    typed.write_all(b"create -e /mine here\nget /mine\n").expect("it reads");
    shown.by_ref().map_while(Result::ok).find(|line| line == "here").expect("it is shown");
    let (home, port) = server.kill();
    let server = Server::start_in(home, port);
    assert!(run(&["get", "/z"]).contains("again"));
    let told = thread::spawn(move || {
        // Until it has connected again, it shows an error for each.
        while typed.write_all(b"get /mine\n").is_ok() {
            thread::sleep(Duration::from_millis(200));
        }
    });
    let again = shown.by_ref().map_while(Result::ok).find(|line| line == "here");
    shell.kill().expect("the child is ours");
    shell.wait().expect("the child is ours");
    drop(shown);
    told.join().expect("writing does not panic");
    assert!(again.is_some(), "the session goes on");
    run(&["delete", "/z"]);
    assert!(run(&["get", "/z"]).contains("Node does not exist: /z"));
    let home = server.home.clone();
    drop(server);
    peer::clean(&home);
}

#[test]
fn clients_understand_that_a_request_is_too_long() {
    let server = Server::start("jute.maxbuffer=2000");
    let Some(jars) = jars() else {
        return skip("requests that are too long", "no java or no Apache ZooKeeper");
    };
    let said = zkcli_says(&jars, server.port, &["create", "/long", &"x".repeat(3000)]);
    assert!(said.contains("Arguments are not valid : /long"), "{said}");
    let Some(python) = python() else {
        return skip("requests that are too long", "no python3 with kazoo");
    };
    let mut command = Command::new(python);
    command.arg(script("too_long.py"));
    let said = transcript(&mut command, server.port, || ());
    assert_eq!(said, "too long: BadArgumentsError\nthe same connection: True\nshort: /short\n");
    let home = server.home.clone();
    drop(server);
    peer::clean(&home);
}
