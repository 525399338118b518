//! Random sequences of requests, valid and malformed, over several sessions: what this server
//! answers is compared byte by byte with what Apache ZooKeeper answers.
//!
//! `RINGKEEPER_DIFF=CONFIGURATION:FIRST_SEED:REQUESTS` makes a long run of one configuration, with
//! a line of progress now and then; `RINGKEEPER_DIFF_SEED=CONFIGURATION:SEED` runs one sequence on
//! fresh servers. A difference is printed with both answers and the shortest sequence found that
//! still shows it.

mod answers;
mod explained;
mod generate;
mod pair;
mod requests;
mod script;
mod shrink;
mod side;
mod values;

use std::env;
use std::time::{Duration, Instant};

pub(crate) use values::{put_buffer, put_i32};

use explained::Used;
use pair::Pair;

use crate::apache::{jars, skip};

/// Requests of one sequence, cleaning up not counted.
const SEQUENCE: usize = 1000;
/// Requests of each configuration in every test run.
const REQUESTS: usize = 20_000;
/// The seed of the first sequence of every test run.
const FIRST_SEED: u64 = 1;

/// A run ends after so many differences.
const DIFFERENCES_MAX: usize = 12;

/// How a pair of servers is configured.
struct Configuration {
    name: &'static str,
    /// Settings that change answers, for both servers.
    settings: &'static str,
    shards: u32,
    /// The longest run of requests sent without waiting.
    burst_max: u64,
}

const CONFIGURATIONS: &[Configuration] = &[
    Configuration { name: "plain", settings: "", shards: 1, burst_max: 64 },
    Configuration { name: "plain-sharded", settings: "", shards: 3, burst_max: 64 },
    Configuration { name: "extended", settings: EXTENDED, shards: 1, burst_max: 64 },
    Configuration { name: "extended-sharded", settings: EXTENDED, shards: 3, burst_max: 64 },
    // Apache holds a quota against what happens to be applied already: one request at a time.
    Configuration { name: "quota", settings: QUOTA, shards: 3, burst_max: 1 },
];

const EXTENDED: &str = "extendedTypesEnabled=true";
const QUOTA: &str = "extendedTypesEnabled=true\nenforceQuota=true";

/// For every configuration: nothing expires, nothing is reaped, Apache does not wait for the disk.
const COMMON: &str = "minSessionTimeout=60000\nmaxSessionTimeout=3600000\nforceSync=no\n\
                      DigestAuthenticationProvider.superDigest=super:lK75jTNcA+U9vtVEw5vB51mj/w4=\n\
                      znode.container.checkIntervalMs=2000000000";

fn start(name: &str) -> Option<Pair> {
    let Some(jars) = jars() else {
        skip("differential", "no java or no Apache ZooKeeper to compare with");
        return None;
    };
    let configuration = CONFIGURATIONS
        .iter()
        .find(|configuration| configuration.name == name)
        .unwrap_or_else(|| panic!("no configuration has the name {name}"));
    let Configuration { settings, shards, burst_max, .. } = configuration;
    let ours = format!("ringkeeper.shards={shards}");
    Some(Pair::start(&jars, &format!("{COMMON}\n{settings}"), &ours, *burst_max))
}

/// Runs sequences until so many requests were compared, or too many differ.
fn compare(name: &str, first_seed: u64, requests: usize, shortens: bool) {
    let Some(mut pair) = start(name) else { return };
    let (mut done, mut seed, mut used) = (0, first_seed, Used::default());
    let (started, mut told) = (Instant::now(), Instant::now());
    let mut differences = 0;
    while done < requests && differences < DIFFERENCES_MAX {
        let run = pair.random(seed, SEQUENCE);
        done += run.requests;
        for (rule, times) in &run.used {
            *used.entry(rule).or_default() += times;
        }
        if let Some(difference) = &run.difference {
            differences += 1;
            eprintln!("{name}, seed {seed}, after {done} requests: {}", difference.describe());
            eprintln!("RINGKEEPER_DIFF_SEED={name}:{seed} runs it again and shortens it.");
            if shortens {
                let shortest = shrink::shrink(&mut pair, run.steps);
                eprintln!("The shortest sequence found:\n{shortest}");
            }
            pair.restart();
        }
        seed += 1;
        if Duration::from_secs(20) < told.elapsed() {
            told = Instant::now();
            let seconds = started.elapsed().as_secs();
            eprintln!("{name}: {done} requests, seeds {first_seed}..{seed}, {seconds} s");
        }
    }
    let seconds = started.elapsed().as_secs();
    eprintln!(
        "{name}: {done} requests, seeds {first_seed}..{seed}, {seconds} s, {differences} \
         unexplained differences; explained ones: {used:?}"
    );
    assert_eq!(differences, 0, "{name}: unexplained differences from Apache, printed above");
}

#[test]
fn random_requests_are_answered_as_apache_answers_them() {
    for Configuration { name, .. } in CONFIGURATIONS {
        compare(name, FIRST_SEED, REQUESTS, true);
    }
}

#[test]
fn a_long_run_is_made_when_asked_for() {
    if let Ok(run) = env::var("RINGKEEPER_DIFF") {
        let parts: Vec<&str> = run.split(':').collect();
        let [name, seed, requests] = parts[..] else { panic!("NAME:SEED:REQUESTS, not {run}") };
        let number = |text: &str| text.parse().unwrap_or_else(|_| panic!("{text} is no number"));
        let requests = usize::try_from(number(requests)).expect("a number of requests");
        compare(name, number(seed), requests, false);
    }
    if let Ok(run) = env::var("RINGKEEPER_DIFF_SEED") {
        let (name, seed) = run.split_once(':').unwrap_or_else(|| panic!("NAME:SEED, not {run}"));
        compare(name, seed.parse().expect("a seed is a number"), 1, true);
    }
}
