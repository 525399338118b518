//! Results as text for people and as JSON for programs.

use hdrhistogram::Histogram;
use serde::Serialize;

use crate::cell::Cell;

/// What one measurement found.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct Report {
    /// What was measured.
    pub(crate) cell: Cell,
    /// Answered requests that count.
    pub(crate) requests: u64,
    /// Of these, answered with an error.
    pub(crate) errors: u64,
    /// Of an open loop, requests without an answer at its end; their waits are among the latencies.
    pub(crate) unanswered: u64,
    /// Seconds in which they were answered.
    pub(crate) seconds: f64,
    /// Requests a second.
    pub(crate) rate: f64,
    /// Latencies, microseconds.
    pub(crate) latency_us: Percentiles,
    /// Processor time of the server for each request, microseconds.
    pub(crate) server_cpu_us: Option<f64>,
    /// Resident memory of the server at the end, bytes.
    pub(crate) server_resident: Option<u64>,
    /// Processor time of the generator for each request, microseconds.
    pub(crate) generator_cpu_us: f64,
}

/// A distribution of latencies, microseconds.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct Percentiles {
    /// Smallest.
    pub(crate) min: f64,
    /// Half are at most this.
    pub(crate) p50: f64,
    /// 90 %.
    pub(crate) p90: f64,
    /// 99 %.
    pub(crate) p99: f64,
    /// 99.9 %.
    pub(crate) p999: f64,
    /// Largest.
    pub(crate) max: f64,
    /// Mean.
    pub(crate) mean: f64,
}

impl Percentiles {
    /// Of a histogram of nanoseconds.
    #[expect(clippy::cast_precision_loss, reason = "figures for people")]
    pub(crate) fn of(histogram: &Histogram<u64>) -> Self {
        let at = |quantile| histogram.value_at_quantile(quantile) as f64 / 1000.0;
        Self {
            min: histogram.min() as f64 / 1000.0,
            p50: at(0.5),
            p90: at(0.9),
            p99: at(0.99),
            p999: at(0.999),
            max: histogram.max() as f64 / 1000.0,
            mean: histogram.mean() / 1000.0,
        }
    }
}

/// Prints a result.
pub(crate) fn print(report: &Report, json: bool) {
    if json {
        println!("{}", serde_json::to_string(report).expect("numbers and names serialize"));
        return;
    }
    let Percentiles { min, p50, p90, p99, p999, max, mean } = &report.latency_us;
    println!(
        "{}: {:.0}/s ({} in {:.1} s, {} errors, {} unanswered)",
        report.cell.name(),
        report.rate,
        report.requests,
        report.seconds,
        report.errors,
        report.unanswered
    );
    println!(
        "  latency us: min {min:.0} p50 {p50:.0} p90 {p90:.0} p99 {p99:.0} p99.9 {p999:.0} \
         max {max:.0} mean {mean:.0}"
    );
    if let (Some(cpu), Some(resident)) = (report.server_cpu_us, report.server_resident) {
        println!("  server: {cpu:.2} us of processor a request, {} KiB", resident / 1024);
    }
    println!("  generator: {:.2} us of processor a request", report.generator_cpu_us);
}
