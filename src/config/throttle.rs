//! The keys of the throttles.

use super::values::Values;
use super::{ConfigError, Throttle};

impl Values<'_> {
    pub(super) fn throttle(&self) -> Result<Throttle, ConfigError> {
        let defaults = Throttle::default();
        let local = self.weight("connection_throttle_local_session_weight", 1)?;
        Ok(Throttle {
            tokens: self.count("connection_throttle_tokens", defaults.tokens)?,
            fill_time_ms: self
                .count("connection_throttle_fill_time", defaults.fill_time_ms)?
                .max(1),
            fill_count: self.count("connection_throttle_fill_count", defaults.fill_count)?,
            freeze_time_ms: self
                .number("connection_throttle_freeze_time", defaults.freeze_time_ms)?
                .max(-1),
            drop_increase: self
                .part("connection_throttle_drop_increase", defaults.drop_increase)?,
            drop_decrease: self
                .part("connection_throttle_drop_decrease", defaults.drop_decrease)?,
            decrease_ratio: self
                .part("connection_throttle_decrease_ratio", defaults.decrease_ratio)?,
            weight_enabled: self.lenient_true("connection_throttle_weight_enabled", false),
            // None weighs less than a local session.
            global_session_weight: self
                .weight("connection_throttle_global_session_weight", 3)?
                .max(local),
            renew_session_weight: self
                .weight("connection_throttle_renew_session_weight", 2)?
                .max(local),
            local_session_weight: local,
            max_requests: usize::try_from(self.count("request_throttle_max_requests", 0)?)
                .unwrap_or(usize::MAX),
            drop_stale: self.lenient_true("request_throttle_drop_stale", defaults.drop_stale),
            stale_latency_check: self.lenient_true("request_stale_latency_check", false),
            throttled_op_wait_time_ms: self.count("throttled_op_wait_time", 0)?,
        })
    }

    /// Negative is none.
    fn count(&self, name: &str, default: u64) -> Result<u64, ConfigError> {
        let number: i64 = self.number(name, default.cast_signed())?;
        Ok(u64::try_from(number).unwrap_or(0))
    }

    fn weight(&self, name: &str, default: u64) -> Result<u64, ConfigError> {
        match self.count(name, default)? {
            0 => Err(self.wrong(name, "must be above 0")),
            weight => Ok(weight),
        }
    }

    fn part(&self, name: &str, default: f64) -> Result<f64, ConfigError> {
        let number = self.number(name, default)?;
        if (0.0..=1.0).contains(&number) {
            Ok(number)
        } else {
            Err(self.wrong(name, "must be from 0 to 1"))
        }
    }
}
