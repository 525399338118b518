//! The programs beside the server: what they print, and how they end.

use std::process::{Command, Output};

use super::peer::{self, Server};

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
                "0.2",
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
        &["run", "--server", &address, "--rate", "500", "--seconds", "0.3", "--warmup", "0.1"],
    );
    assert!(output.status.success(), "{}", text(&output));
    assert!(text(&output).contains("at 500/s"), "{}", text(&output));
    for scenario in [
        &["fanout", "--sessions", "5", "--changes", "3"][..],
        &["churn", "--sessions", "5"],
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
            "--op get --seconds 0.1 --warmup 0",
        ],
    );
    assert!(output.status.success(), "{}", text(&output));
    assert!(text(&output).contains("ratio"), "{}", text(&output));
    let home = server.home.clone();
    drop(server);
    peer::clean(&home);
}

#[test]
fn rk_bench_says_what_is_wrong() {
    let bench = env!("CARGO_BIN_EXE_rk-bench");
    let nobody = format!("127.0.0.1:{}", peer::free_port());
    for (arguments, expected) in [
        (&["run", "--server", &nobody][..], "Connection refused"),
        (&["run", "--sessions", "0"], "--sessions must not be 0"),
        (&["run", "--op", "nothing"], "invalid value 'nothing'"),
        (&["compare", "--ours", &nobody, "--theirs", &nobody, "--cell", "--op x"], "--cell"),
    ] {
        let output = run(bench, arguments);
        assert!(!output.status.success(), "{arguments:?}");
        assert!(text(&output).contains(expected), "{arguments:?}: {}", text(&output));
    }
}
