//! Request latencies as the admin words report them.

/// Smallest, mean and largest of what was recorded, in milliseconds.
#[derive(Clone, Debug, Default)]
pub(crate) struct Latency {
    count: u64,
    sum_ms: u64,
    min_ms: u64,
    max_ms: u64,
}

impl Latency {
    /// Takes note of one request.
    pub(crate) fn record(&mut self, latency_ms: u64) {
        self.min_ms = if self.count == 0 { latency_ms } else { self.min_ms.min(latency_ms) };
        self.max_ms = self.max_ms.max(latency_ms);
        self.sum_ms += latency_ms;
        self.count += 1;
    }

    /// Takes in what another shard recorded.
    pub(crate) fn add(&mut self, other: &Self) {
        if other.count == 0 {
            return;
        }
        self.min_ms = if self.count == 0 { other.min_ms } else { self.min_ms.min(other.min_ms) };
        self.max_ms = self.max_ms.max(other.max_ms);
        self.sum_ms += other.sum_ms;
        self.count += other.count;
    }

    /// Smallest, ms; 0 before the first.
    #[must_use]
    pub(crate) const fn min_ms(&self) -> u64 {
        self.min_ms
    }

    /// Largest, ms.
    #[must_use]
    pub(crate) const fn max_ms(&self) -> u64 {
        self.max_ms
    }

    /// Mean, ms.
    #[must_use]
    #[expect(clippy::cast_precision_loss, reason = "a mean for people")]
    pub(crate) fn mean_ms(&self) -> f64 {
        if self.count == 0 { 0.0 } else { self.sum_ms as f64 / self.count as f64 }
    }
}
