//! One measurement: which operation, by how many sessions, how deep, how large, how fast.

use std::time::Duration;

use clap::{Args, ValueEnum};
use serde::Serialize;

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
    #[arg(long, default_value_t = 1)]
    pub(crate) pipeline: usize,
    /// Bytes of each value.
    #[arg(long, default_value_t = 100)]
    pub(crate) size: usize,
    /// Znodes that are read and written, shared out among the sessions.
    #[arg(long, default_value_t = 1000)]
    pub(crate) znodes: usize,
    /// Of `mix`: reads of 100 requests.
    #[arg(long, default_value_t = 90)]
    pub(crate) reads: u32,
    /// Of `multi`: writes in each.
    #[arg(long, default_value_t = 10)]
    pub(crate) ops: usize,
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
    pub(crate) fn warmup(&self) -> Duration {
        Duration::from_secs_f64(self.warmup)
    }

    pub(crate) fn counted(&self) -> Duration {
        Duration::from_secs_f64(self.seconds)
    }

    /// What a row of results is called.
    pub(crate) fn name(&self) -> String {
        let op = format!("{:?}", self.op).to_lowercase();
        let rate = self.rate.map(|rate| format!(" at {rate}/s")).unwrap_or_default();
        format!("{op} {}x{} {} B{rate}", self.sessions, self.pipeline, self.size)
    }

    /// Checks what the types leave open.
    pub(crate) fn check(&self) -> Result<(), String> {
        let positive = [
            ("--sessions", self.sessions),
            ("--pipeline", self.pipeline),
            ("--znodes", self.znodes),
            ("--ops", self.ops),
        ];
        for (name, value) in positive {
            if value == 0 {
                return Err(format!("{name} must not be 0"));
            }
        }
        if 100 < self.reads {
            return Err("--reads is at most 100".to_owned());
        }
        if self.rate == Some(0) {
            return Err("--rate must not be 0".to_owned());
        }
        Ok(())
    }
}
