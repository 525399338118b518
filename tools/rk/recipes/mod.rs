//! What coordination is for: locks, elections, queues, barriers.
//!
//! They hold when connections break and sessions expire. A create whose outcome is unknown is
//! settled by looking for a part of the name that nobody else uses; a txn whose outcome is unknown,
//! by an ephemeral marker that was created with it. Both are looked for in the same session, whose
//! requests the servers keep in order, so what is not found was not done and is sent again.

pub(crate) mod barrier;
pub(crate) mod elect;
pub(crate) mod lock;
pub(crate) mod member;
pub(crate) mod queue;

use std::collections::hash_map::RandomState;
use std::hash::{BuildHasher, Hasher};
use std::time::{Duration, Instant};

use clap::Args;
use ringkeeper::client::session::SessionEvent;

use crate::failure::{Failure, Outcome};
use crate::inputs::{Input, Inputs};
use crate::time::parse_duration;

/// How long to wait.
#[derive(Args)]
pub(crate) struct Wait {
    /// Longest wait, 0s for none; for ever by default
    #[arg(long, value_parser = parse_duration)]
    wait: Option<Duration>,
}

impl Wait {
    /// When to give up.
    pub(crate) fn deadline(&self) -> Option<Instant> {
        self.wait.map(|wait| Instant::now() + wait)
    }
}

/// A name that nobody else uses, written as a UUID.
pub(crate) fn unique() -> String {
    let mut words = [0_u64; 2];
    for (at, word) in words.iter_mut().enumerate() {
        // Seeded by the system for every process, and different for every instance.
        let mut hasher = RandomState::new().build_hasher();
        hasher.write_u32(std::process::id());
        hasher.write_usize(at);
        *word = hasher.finish();
    }
    let [high, low] = words;
    format!(
        "{:08x}-{:04x}-4{:03x}-a{:03x}-{:012x}",
        high >> 32,
        (high >> 16) & 0xffff,
        high & 0xfff,
        low >> 52,
        low & 0xffff_ffff_ffff
    )
}

/// The number that the server has put behind a sequential znode's name.
pub(crate) fn sequence(name: &str) -> Option<i64> {
    let digits = name.len().checked_sub(10)?;
    let number = name.get(digits..)?;
    // Numbers that have run over are negative and have eleven characters.
    match name.get(..digits)?.strip_suffix("--") {
        Some(_) => number.parse::<i64>().ok().map(|number| -number),
        None => number.parse().ok(),
    }
}

/// What could not be looked for may have been done.
pub(crate) fn still_unknown(failure: Failure) -> Failure {
    match failure {
        Failure::NoConnection(_) | Failure::Expired => {
            Failure::Unknown(format!("outcome unknown: {failure}"))
        }
        failure => failure,
    }
}

/// Waits until something may have changed; an error when there is nothing to wait for any more.
pub(crate) fn wait_for_change(inputs: &Inputs, until: Option<Instant>) -> Outcome {
    loop {
        match inputs.next(until) {
            None => return Err(Failure::TimedOut("it took longer than --wait".to_owned())),
            Some(Input::Signal(signal)) => {
                return Err(Failure::Exit(u8::try_from(128 + signal).unwrap_or(u8::MAX)));
            }
            Some(Input::Session(event)) => match event {
                SessionEvent::Expired => return Err(Failure::Expired),
                SessionEvent::AuthFailed => return Err(Failure::AuthFailed),
                SessionEvent::Watch { .. }
                | SessionEvent::Missed(_)
                | SessionEvent::Connected { .. } => return Ok(()),
                SessionEvent::Disconnected { .. } => {}
            },
            Some(Input::Exited(_)) => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sequence_numbers_are_found() {
        assert_eq!(sequence("_c_x-lock-0000000012"), Some(12));
        assert_eq!(sequence("lock-2147483647"), Some(2_147_483_647));
        assert_eq!(sequence("lock--2147483648"), Some(-2_147_483_648));
        assert_eq!(sequence("short"), None);
        assert_eq!(sequence("no number here"), None);
    }

    #[test]
    fn unique_names_differ() {
        let (one, other) = (unique(), unique());
        assert_ne!(one, other);
        assert_eq!(one.len(), 36);
        assert_eq!(one.matches('-').count(), 4);
    }
}
