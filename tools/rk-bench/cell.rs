//! One measurement: which operation, by how many sessions, how deep, how large, how fast.

use std::time::Duration;

use clap::{Args, ValueEnum};
use serde::Serialize;

const READS: u32 = 90;
const OPS: usize = 10;

/// The parameters of one measurement.
#[derive(Args, Clone, Debug, Serialize)]
pub(crate) struct Cell {
    /// What is measured.
    #[arg(long, value_enum, default_value_t = Op::Set)]
    pub(crate) op: Op,
    /// Sessions, each on a connection of its own.
    #[arg(long, default_value_t = 1)]
    pub(crate) sessions: usize,
    /// Requests that each session keeps in flight.
    #[arg(long, default_value_t = 1, conflicts_with = "rate")]
    pub(crate) pipeline: usize,
    /// Bytes of each value.
    #[arg(long, default_value_t = 100)]
    pub(crate) size: usize,
    /// Znodes that are read and written, shared out among the sessions.
    #[arg(long, default_value_t = 1000)]
    pub(crate) znodes: usize,
    /// Of `mix`: reads of 100 requests [default: 90].
    #[arg(long)]
    #[serde(skip_serializing_if = "Option::is_none")]
    reads: Option<u32>,
    /// Of `multi`: writes in each [default: 10].
    #[arg(long)]
    #[serde(skip_serializing_if = "Option::is_none")]
    ops: Option<usize>,
    /// Requests a second in all, sent on schedule whether answered or not; latencies count from
    /// the scheduled time. Without it each answer starts the next request.
    #[arg(long)]
    pub(crate) rate: Option<u64>,
    /// Seconds that count.
    #[arg(long, default_value_t = 5.0)]
    pub(crate) seconds: f64,
    /// Seconds before them that do not.
    #[arg(long, default_value_t = 1.0)]
    pub(crate) warmup: f64,
}

/// An operation.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum, Serialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Op {
    /// setData.
    Set,
    /// getData.
    Get,
    /// exists.
    Exists,
    /// getChildren of the parent of all znodes.
    List,
    /// getData and setData.
    Mix,
    /// create and delete of the same path by turns.
    Create,
    /// A multi of setData.
    Multi,
}

impl Cell {
    /// setData without a schedule, among 1000 znodes.
    pub(crate) const fn of_set(
        sessions: usize,
        pipeline: usize,
        size: usize,
        seconds: f64,
    ) -> Self {
        Self {
            op: Op::Set,
            sessions,
            pipeline,
            size,
            znodes: 1000,
            reads: None,
            ops: None,
            rate: None,
            seconds,
            warmup: 1.0,
        }
    }

    /// Of a mix: reads of 100 requests.
    pub(crate) fn reads(&self) -> u32 {
        self.reads.unwrap_or(READS)
    }

    /// Of a multi: writes in each.
    pub(crate) fn ops(&self) -> usize {
        self.ops.unwrap_or(OPS)
    }

    pub(crate) fn warmup(&self) -> Duration {
        Duration::from_secs_f64(self.warmup)
    }

    pub(crate) fn counted(&self) -> Duration {
        Duration::from_secs_f64(self.seconds)
    }

    /// What a row of results is called: all that is measured, but not how long.
    pub(crate) fn name(&self) -> String {
        let Self { sessions, pipeline, size, znodes, .. } = self;
        let op = match self.op {
            Op::Mix => format!("mix of {}% reads", self.reads()),
            Op::Multi => format!("multi of {}", self.ops()),
            op => format!("{op:?}").to_lowercase(),
        };
        let (load, rate) = match self.rate {
            Some(rate) => (format!("{sessions}x"), format!(" at {rate}/s")),
            None => (format!("{sessions}x{pipeline}"), String::new()),
        };
        // Each session creates and deletes paths of its own.
        let among = match self.op {
            Op::Create => String::new(),
            _ => format!(" {znodes} znodes"),
        };
        format!("{op} {load} {size} B{among}{rate}")
    }

    /// Checks what the types leave open.
    pub(crate) fn check(&self) -> Result<(), String> {
        let positive = [
            ("--sessions", self.sessions),
            ("--pipeline", self.pipeline),
            ("--znodes", self.znodes),
            ("--ops", self.ops()),
        ];
        for (name, value) in positive {
            if value == 0 {
                return Err(format!("{name} must not be 0"));
            }
        }
        for (name, seconds) in [("--seconds", self.seconds), ("--warmup", self.warmup)] {
            if Duration::try_from_secs_f64(seconds).is_err() {
                return Err(format!("{name} must be a number of seconds, not {seconds}"));
            }
        }
        if 100 < self.reads() {
            return Err("--reads is at most 100".to_owned());
        }
        if self.reads.is_some() && self.op != Op::Mix {
            return Err("--reads is for --op mix".to_owned());
        }
        if self.ops.is_some() && self.op != Op::Multi {
            return Err("--ops is for --op multi".to_owned());
        }
        if self.rate == Some(0) {
            return Err("--rate must not be 0".to_owned());
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;

    #[derive(Parser)]
    #[command(no_binary_name = true)]
    struct Line {
        #[command(flatten)]
        cell: Cell,
    }

    fn name(line: &str) -> Result<String, clap::error::ErrorKind> {
        let parsed = Line::try_parse_from(line.split_whitespace());
        parsed.map(|line| line.cell.name()).map_err(|error| error.kind())
    }

    #[test]
    fn cells_that_differ_have_other_names() {
        let lines = [
            "--op set",
            "--op get",
            "--op set --sessions 2",
            "--op set --pipeline 2",
            "--op set --size 5",
            "--op set --znodes 5",
            "--op set --rate 5",
            "--op set --rate 6",
            "--op set --rate 6 --sessions 2",
            "--op mix",
            "--op mix --reads 50",
            "--op multi",
            "--op multi --ops 3",
            "--op create",
            "--op create --pipeline 2",
        ];
        let names: Vec<String> = lines.iter().map(|line| name(line).unwrap()).collect();
        let different: std::collections::BTreeSet<&String> = names.iter().collect();
        assert_eq!(different.len(), lines.len(), "{names:?}");
        assert_eq!(name("--op mix --reads 50").unwrap(), "mix of 50% reads 1x1 100 B 1000 znodes");
        let rate = name("--op multi --rate 7 --sessions 3").unwrap();
        assert_eq!(rate, "multi of 10 3x 100 B 1000 znodes at 7/s");
    }

    #[test]
    fn what_an_operation_does_not_take_is_refused() {
        let check =
            |line: &str| Line::try_parse_from(line.split_whitespace()).unwrap().cell.check();
        assert_eq!(check("--op mix --reads 50"), Ok(()));
        assert_eq!(check("--op multi --ops 3"), Ok(()));
        assert_eq!(check("--op set --reads 50"), Err("--reads is for --op mix".to_owned()));
        assert_eq!(check("--op mix --ops 3"), Err("--ops is for --op multi".to_owned()));
        assert_eq!(check("--op mix --reads 101"), Err("--reads is at most 100".to_owned()));
        assert_eq!(check("--op multi --ops 0"), Err("--ops must not be 0".to_owned()));
        for line in ["--seconds=-1", "--seconds nan", "--warmup inf", "--warmup=-0.5"] {
            let refused = check(line).unwrap_err();
            assert!(refused.contains("must be a number of seconds"), "{line}: {refused}");
        }
    }

    #[test]
    fn a_schedule_has_no_pipeline() {
        let both = name("--rate 100 --pipeline 4");
        assert_eq!(both, Err(clap::error::ErrorKind::ArgumentConflict));
    }
}
