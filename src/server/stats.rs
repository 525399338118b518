//! Request latencies and sizes of proposals as the admin words report them.

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

/// Sizes of what a leader has proposed: txns with header and digest, bytes.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct ProposalSizes(Option<Sizes>);

#[derive(Clone, Copy, Debug)]
struct Sizes {
    last: usize,
    min: usize,
    max: usize,
}

impl ProposalSizes {
    /// Takes note of one proposal.
    pub(crate) fn record(&mut self, size: usize) {
        let Sizes { min, max, .. } = self.0.unwrap_or(Sizes { last: size, min: size, max: size });
        self.0 = Some(Sizes { last: size, min: min.min(size), max: max.max(size) });
    }

    /// Last, smallest, largest; -1 before the first, as Apache says it.
    #[must_use]
    pub(crate) fn last_min_max(&self) -> [i64; 3] {
        let of = |size: usize| i64::try_from(size).unwrap_or(i64::MAX);
        self.0.map_or([-1; 3], |sizes| [of(sizes.last), of(sizes.min), of(sizes.max)])
    }
}
