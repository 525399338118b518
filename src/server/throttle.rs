//! The connection throttle: a bucket of tokens that handshakes take from, with a chance of being
//! refused that grows while the bucket is empty (BLUE). Keys `connection_throttle_*`.

use crate::base::{Duration, Instant, Prng};

/// Settings of the throttle; the keys' names without `connection_throttle_`.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct ConnectionThrottleConfig {
    /// Size of the bucket; 0 switches the throttle off.
    pub tokens: u64,
    /// Every so many ms the bucket gets `fill_count` tokens.
    pub fill_time_ms: u64,
    /// Tokens of one filling.
    pub fill_count: u64,
    /// How often the chance of being refused may change, ms; -1: there is no such chance.
    pub freeze_time_ms: i64,
    /// What an empty bucket adds to it.
    pub drop_increase: f64,
    /// What a full enough bucket takes from it.
    pub drop_decrease: f64,
    /// Which part of the bucket may be missing for that.
    pub decrease_ratio: f64,
    /// What each kind of handshake takes; `None`: one token each.
    pub weights: Option<SessionWeights>,
}

/// Tokens that a handshake takes. The bucket and its fillings are counted in global sessions.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SessionWeights {
    /// For a new session.
    pub global: u64,
    /// For a session that is renewed.
    pub renew: u64,
    /// For a new session that is local.
    pub local: u64,
}

/// What a handshake asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Handshake {
    New,
    NewLocal,
    Renewal,
}

/// The bucket.
#[derive(Debug)]
pub(crate) struct ConnectionThrottle {
    config: ConnectionThrottleConfig,
    size: u64,
    tokens: u64,
    filled: Instant,
    frozen: Instant,
    drop: f64,
}

impl Default for ConnectionThrottleConfig {
    fn default() -> Self {
        Self {
            tokens: 0,
            fill_time_ms: 1,
            fill_count: 1,
            freeze_time_ms: -1,
            drop_increase: 0.02,
            drop_decrease: 0.002,
            decrease_ratio: 0.0,
            weights: None,
        }
    }
}

impl ConnectionThrottle {
    pub(crate) fn new(config: ConnectionThrottleConfig, now: Instant) -> Self {
        let unit = config.weights.map_or(1, |weights| weights.global);
        let size = config.tokens.saturating_mul(unit);
        Self { config, size, tokens: size, filled: now, frozen: now, drop: 0.0 }
    }

    /// The chance of being refused whatever the bucket holds.
    pub(crate) const fn drop_probability(&self) -> f64 {
        self.drop
    }

    /// Takes a handshake's tokens; `false`: it is refused.
    pub(crate) fn admit(&mut self, handshake: Handshake, now: Instant, prng: &mut Prng) -> bool {
        if self.size == 0 {
            return true;
        }
        self.fill(now);
        if self.config.freeze_time_ms != -1 {
            self.adapt(now);
            if chance(prng) < self.drop {
                return false;
            }
        }
        let need = self.config.weights.map_or(1, |weights| match handshake {
            Handshake::New => weights.global,
            Handshake::NewLocal => weights.local,
            Handshake::Renewal => weights.renew,
        });
        let granted = need <= self.tokens;
        if granted {
            self.tokens -= need;
        }
        granted
    }

    fn fill(&mut self, now: Instant) {
        let unit = self.config.weights.map_or(1, |weights| weights.global);
        let (time, waited) = (self.config.fill_time_ms.max(1), now.since(self.filled).as_millis());
        if time < waited {
            let count = self.config.fill_count.saturating_mul(unit);
            self.tokens = self.tokens.saturating_add(waited.saturating_mul(count) / time);
            self.tokens = self.tokens.min(self.size);
            self.filled = now;
        }
    }

    #[expect(clippy::cast_precision_loss, reason = "a chance, not a count")]
    fn adapt(&mut self, now: Instant) {
        let freeze = u64::try_from(self.config.freeze_time_ms).unwrap_or_default();
        if now.since(self.frozen) <= Duration::from_millis(freeze) {
            return;
        }
        let missing = self.size - self.tokens;
        if self.tokens == 0 {
            self.drop = (self.drop + self.config.drop_increase).min(1.0);
        } else if missing as f64 <= (self.size as f64 * self.config.decrease_ratio).round() {
            self.drop = (self.drop - self.config.drop_decrease).max(0.0);
        }
        self.frozen = now;
    }
}

/// Uniform in 0..1.
#[expect(clippy::cast_precision_loss, reason = "a chance, not a count")]
fn chance(prng: &mut Prng) -> f64 {
    (prng.next_u64() >> 11) as f64 / (1_u64 << 53) as f64
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(ms: u64) -> Instant {
        Instant::default() + Duration::from_millis(ms)
    }

    #[test]
    fn an_empty_bucket_refuses_until_it_is_filled() {
        let config = ConnectionThrottleConfig {
            tokens: 3,
            fill_time_ms: 100,
            ..ConnectionThrottleConfig::default()
        };
        let mut throttle = ConnectionThrottle::new(config, at(0));
        let mut prng = Prng::new(1);
        let mut admit = |ms| throttle.admit(Handshake::New, at(ms), &mut prng);
        assert_eq!([0, 0, 0, 0, 50].map(&mut admit), [true, true, true, false, false]);
        assert_eq!([250, 250, 250].map(&mut admit), [true, true, false]);
        assert!((0..4).filter(|_| admit(10_000)).count() == 3, "never more than its size");
    }

    #[test]
    fn weights_count_in_global_sessions() {
        let weights = SessionWeights { global: 3, renew: 2, local: 1 };
        let config = ConnectionThrottleConfig {
            tokens: 2,
            fill_time_ms: 1_000,
            weights: Some(weights),
            ..ConnectionThrottleConfig::default()
        };
        let mut throttle = ConnectionThrottle::new(config, at(0));
        let mut prng = Prng::new(1);
        for (handshake, admitted) in [
            (Handshake::New, true),
            (Handshake::Renewal, true),
            (Handshake::Renewal, false),
            (Handshake::NewLocal, true),
            (Handshake::NewLocal, false),
        ] {
            assert_eq!(throttle.admit(handshake, at(0), &mut prng), admitted, "{handshake:?}");
        }
    }

    #[test]
    fn the_chance_of_refusal_grows_while_the_bucket_is_empty() {
        let config = ConnectionThrottleConfig {
            tokens: 1,
            fill_time_ms: 1_000_000,
            freeze_time_ms: 10,
            drop_increase: 0.5,
            ..ConnectionThrottleConfig::default()
        };
        let mut throttle = ConnectionThrottle::new(config, at(0));
        let mut prng = Prng::new(1);
        let mut drops = Vec::new();
        for ms in [1, 12, 24, 36] {
            throttle.admit(Handshake::New, at(ms), &mut prng);
            drops.push(throttle.drop_probability());
        }
        assert_eq!(drops, [0.0, 0.5, 1.0, 1.0]);
        // Full again: it falls.
        throttle.admit(Handshake::New, at(5_000_000_000), &mut prng);
        assert_eq!(throttle.drop_probability(), 0.998);
    }

    #[test]
    fn without_tokens_it_is_off() {
        let mut throttle = ConnectionThrottle::new(ConnectionThrottleConfig::default(), at(0));
        assert!((0..1000).all(|_| throttle.admit(Handshake::Renewal, at(0), &mut Prng::new(1))));
    }
}
