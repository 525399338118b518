//! The programs beside the server: what they print, and how they end.

use std::net::TcpStream;
use std::process::{Command, Output, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use super::apache;
use super::ensemble::{Ensemble, QUICK};
use super::peer::{self, Server};
use super::rk::{clean, ok};
use ringkeeper::model::ErrorCode;

fn run(program: &str, arguments: &[&str]) -> Output {
    let output = Command::new(program).args(arguments).output();
    output.expect("the program was built")
}

fn text(output: &Output) -> String {
    format!(
        "{}{}",
        String::from_utf8_lossy(&output.stdout),
        String::from_utf8_lossy(&output.stderr)
    )
}

#[test]
fn rk_bench_measures_every_operation() {
    let bench = env!("CARGO_BIN_EXE_rk-bench");
    let server = Server::start("");
    let address = format!("127.0.0.1:{}", server.port);
    let pid = server.pid().to_string();
    for op in ["set", "get", "exists", "list", "mix", "create", "multi"] {
        let output = run(
            bench,
            &[
                "run",
                "--json",
                "--server",
                &address,
                "--pid",
                &pid,
                "--op",
                op,
                "--sessions",
                "3",
                "--pipeline",
                "4",
                "--znodes",
                "20",
                "--seconds",
                "2",
                "--warmup",
                "0.1",
            ],
        );
        assert!(output.status.success(), "{op}: {}", text(&output));
        let report: serde_json::Value =
            serde_json::from_slice(&output.stdout).expect("a line of JSON");
        assert_eq!(report["cell"]["op"], op);
        assert_eq!(report["errors"], 0, "{op}: {report}");
        assert!(0 < report["requests"].as_u64().expect("a count"), "{op}: {report}");
        assert!(0.0 < report["latency_us"]["p50"].as_f64().expect("a time"), "{op}: {report}");
    }
    // An open loop, where latencies count from the schedule.
    let output = run(
        bench,
        &["run", "--server", &address, "--rate", "500", "--seconds", "2", "--warmup", "0.1"],
    );
    assert!(output.status.success(), "{}", text(&output));
    assert!(text(&output).contains("at 500/s"), "{}", text(&output));
    for scenario in [
        &["fanout", "--sessions", "5", "--changes", "3", "--pid", &pid][..],
        &["churn", "--sessions", "5", "--pid", &pid],
        &["fill", "--znodes", "50", "--children", "7", "--pid", &pid],
    ] {
        let mut arguments = scenario.to_vec();
        arguments.extend(["--server", &address]);
        let output = run(bench, &arguments);
        assert!(output.status.success(), "{scenario:?}: {}", text(&output));
    }
    let output = run(
        bench,
        &[
            "compare",
            "--ours",
            &address,
            "--theirs",
            &address,
            "--pairs",
            "1",
            "--cell",
            "--op get --seconds 2 --warmup 0",
        ],
    );
    assert!(output.status.success(), "{}", text(&output));
    assert!(text(&output).contains("ratio"), "{}", text(&output));
    let home = server.home.clone();
    drop(server);
    peer::clean(&home);
}

/// The generator's own cost: a server that answers at once leaves nothing else.
#[test]
fn rk_bench_measures_itself_against_a_server_that_keeps_nothing() {
    let bench = env!("CARGO_BIN_EXE_rk-bench");
    let address = format!("127.0.0.1:{}", peer::free_port());
    let mut null = Command::new(bench)
        .args(["null", "--listen", &address])
        .stderr(Stdio::null())
        .spawn()
        .expect("the program was built");
    let deadline = Instant::now() + Duration::from_secs(60);
    while TcpStream::connect(&address).is_err() {
        assert!(Instant::now() < deadline, "it listens");
        thread::sleep(Duration::from_millis(10));
    }
    for op in ["set", "get"] {
        let mut arguments = vec!["run", "--json", "--server", &address, "--op", op];
        arguments.extend(["--sessions", "8", "--pipeline", "8", "--seconds", "2"]);
        arguments.extend(["--warmup", "0.1"]);
        let output = run(bench, &arguments);
        assert!(output.status.success(), "{op}: {}", text(&output));
        let report: serde_json::Value =
            serde_json::from_slice(&output.stdout).expect("a line of JSON");
        assert_eq!(report["errors"], 0, "{report}");
        assert!(0.0 < report["generator_cpu_us"].as_f64().expect("a time"), "{report}");
    }
    null.kill().expect("the child is ours");
    null.wait().expect("the child is ours");
}

#[test]
fn rk_bench_restarts_a_server_that_it_killed() {
    let bench = env!("CARGO_BIN_EXE_rk-bench");
    let server = Server::start("");
    let mut client = super::client::connect(server.port).expect("the server serves");
    assert_eq!(client.code(&super::client::create("/a", b"", 0)), ErrorCode::OK);
    let (address, pid) = (format!("127.0.0.1:{}", server.port), server.pid().to_string());
    let config = server.home.join("zoo.cfg").display().to_string();
    let program = env!("CARGO_BIN_EXE_ringkeeper");
    let arguments = ["restart", "--json", "--server", &address, "--pid", &pid, "--"];
    let output = Command::new(bench).args(arguments).args([program, &config]).output();
    let output = output.expect("the program was built");
    assert!(output.status.success(), "{}", text(&output));
    let report: serde_json::Value = serde_json::from_slice(&output.stdout).expect("a line of JSON");
    // The built-in ones and `/a`; the root counts twice, as Apache's servers count it.
    assert_eq!(report["znodes"], 6, "{report}");
    assert!(0.0 < report["seconds"].as_f64().expect("a time"), "{report}");
    let pid = report["pid"].as_u64().expect("a number").to_string();
    assert_ne!(pid, server.pid().to_string());
    let killed = Command::new("kill").args(["-9", &pid]).status().expect("there is a kill");
    assert!(killed.success());
    let home = server.home.clone();
    drop(server);
    peer::clean(&home);
}

/// Runs failovers of three servers, each started by `command` with the path of its configuration.
/// The lines of JSON.
fn failovers(command: &str, faults: &str) -> Vec<serde_json::Value> {
    let ensemble = Ensemble::new(3);
    let mut bench = Command::new(env!("CARGO_BIN_EXE_rk-bench"));
    bench.args(["failover", "--json", "--rounds", "1", "--faults", faults]);
    for (sid, port) in &ensemble.ports {
        let config = ensemble.configure(*sid, QUICK).join("zoo.cfg");
        bench.arg("--start").arg(format!("127.0.0.1:{port}={command} {}", config.display()));
    }
    let output = bench.output().expect("the program was built");
    assert!(output.status.success(), "{}", text(&output));
    let lines = String::from_utf8_lossy(&output.stdout).into_owned();
    lines.lines().map(|line| serde_json::from_str(line).expect("a line of JSON")).collect()
}

/// One line for each fault, with a gap, and nothing lost.
fn assert_failovers(lines: &[serde_json::Value], faults: &str) {
    let faults: Vec<&str> = faults.split(',').collect();
    assert_eq!(lines.len(), faults.len() + 1, "{lines:?}");
    for (line, fault) in lines.iter().zip(faults) {
        assert_eq!((&line["fault"], &line["rounds"]), (&fault.into(), &1.into()), "{line}");
        let gap = line["p50_ms"].as_f64().expect("a time");
        assert!(0.0 < gap && line["max_ms"] == gap, "{line}");
    }
    let last = lines.last().expect("there is one");
    assert_eq!(last["lost"], 0, "{last}");
    assert!(20 < last["acknowledged"].as_u64().expect("a count"), "{last}");
}

#[test]
fn rk_bench_measures_failovers() {
    let faults = "kill,pause,terminate";
    assert_failovers(&failovers(env!("CARGO_BIN_EXE_ringkeeper"), faults), faults);
}

#[test]
fn rk_bench_measures_failovers_of_apaches_servers() {
    let Some(jars) = apache::jars() else {
        return apache::skip("failovers of Apache's servers", "no java or no Apache ZooKeeper");
    };
    let command = format!(
        "java -Xmx512m -Dzookeeper.admin.enableServer=false -cp {}/* \
         org.apache.zookeeper.server.quorum.QuorumPeerMain",
        jars.display()
    );
    assert_failovers(&failovers(&command, "kill"), "kill");
}

#[test]
fn rk_bench_says_what_is_wrong() {
    let bench = env!("CARGO_BIN_EXE_rk-bench");
    let nobody = format!("127.0.0.1:{}", peer::free_port());
    for (arguments, expected) in [
        (&["run", "--server", &nobody][..], "Connection refused"),
        (&["run", "--sessions", "0"], "--sessions must not be 0"),
        (&["run", "--rate", "9", "--pipeline", "2"], "--pipeline"),
        (&["run", "--op", "nothing"], "invalid value 'nothing'"),
        (&["failover", "--start", "127.0.0.1:1"], "write ADDRESS=COMMAND"),
        (&["failover", "--start", "127.0.0.1:1=x"], "at least three"),
        (&["compare", "--ours", &nobody, "--theirs", &nobody, "--cell", "--op x"], "--cell"),
    ] {
        let output = run(bench, arguments);
        assert!(!output.status.success(), "{arguments:?}");
        assert!(text(&output).contains(expected), "{arguments:?}: {}", text(&output));
    }
}

#[test]
fn rk_bench_and_rk_sim_refuse_what_they_would_not_do() {
    let bench = env!("CARGO_BIN_EXE_rk-bench");
    let start = |port: u16| format!("127.0.0.1:{port}=false");
    let catchup = [&start(1), &start(2), &start(3)].map(|start| format!("--start={start}"));
    let [a, b, c] = catchup.each_ref().map(String::as_str);
    for (program, arguments, expected) in [
        (bench, &["run", "--seconds=-1"][..], "--seconds must be"),
        (bench, &["run", "--seconds", "nan"], "--seconds must be"),
        (bench, &["run", "--warmup", "inf"], "--warmup must be"),
        (bench, &["catchup", a, b, c, "--seconds", "nan"], "--seconds must be"),
        (bench, &["catchup", a, b, c, "--cases", "new"], "--data 127.0.0.1:1=DIRECTORY is missing"),
        (
            env!("CARGO_BIN_EXE_rk-sim"),
            &["--seeds", "1", "--requests", "5", "--plant", "FlushSkipped"],
            "--plant has no effect",
        ),
    ] {
        let output = run(program, arguments);
        assert!(!output.status.success(), "{arguments:?}");
        assert!(text(&output).contains(expected), "{arguments:?}: {}", text(&output));
    }
}

#[test]
fn rk_bench_measures_values_of_the_size_that_it_says() {
    let server = Server::start("");
    let address = format!("127.0.0.1:{}", server.port);
    ok(server.port, &["create", "-p", "/rk-bench/n0", "other"]);
    let mut bench = Command::new(env!("CARGO_BIN_EXE_rk-bench"));
    bench.args(["run", "--server", &address, "--op", "get", "--znodes", "1", "--size", "50"]);
    bench.args(["--seconds", "60"]).stdout(Stdio::null());
    let mut bench = bench.spawn().expect("the program was built");
    peer::within("values of that size", || {
        (ok(server.port, &["get", "/rk-bench/n0"]).len() == 50).then_some(())
    });
    bench.kill().expect("it runs");
    bench.wait().expect("the child is ours");
    // What is in the way is named.
    let fill = ["fill", "--server", &address, "--znodes", "3"];
    assert!(run(env!("CARGO_BIN_EXE_rk-bench"), &fill).status.success());
    let again = text(&run(env!("CARGO_BIN_EXE_rk-bench"), &fill));
    assert!(again.contains("/fill: answered with NODE_EXISTS"), "{again}");
    clean(server);
}
