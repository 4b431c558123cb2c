//! What Prometheus reads (text format 0.0.4).

use std::{
    fmt::Write as _,
    sync::atomic::{AtomicU64, Ordering::Relaxed},
    time::Duration,
};

/// Upper bounds of the duration histogram, in microseconds.
const BOUNDS: [u64; 9] = [
    250, 1_000, 5_000, 25_000, 100_000, 500_000, 2_500_000, 10_000_000, 60_000_000,
];

/// The kinds of requests that are counted apart.
pub const KINDS: [&str; 8] = [
    "version",
    "catalog",
    "tags",
    "blob",
    "upload",
    "manifest",
    "referrers",
    "other",
];

/// Classes of answers: `1xx` is never sent.
const CLASSES: [&str; 4] = ["2xx", "3xx", "4xx", "5xx"];

/// Counters of one server.
#[derive(Default)]
pub struct Metrics {
    requests: [[AtomicU64; CLASSES.len()]; KINDS.len()],
    buckets: [AtomicU64; BOUNDS.len() + 1],
    micros: AtomicU64,
    /// Requests that are being answered.
    pub in_flight: AtomicU64,
    /// Open connections.
    pub connections: AtomicU64,
    /// Refusals for want of a right or a login.
    pub denied: AtomicU64,
    /// Wrong passwords and tokens.
    pub failed_logins: AtomicU64,
    /// Requests over the rate limit.
    pub limited: AtomicU64,
    /// Artifacts that went into quarantine.
    pub quarantined: AtomicU64,
    /// Artifacts that a policy refused.
    pub refused: AtomicU64,
    /// Changes of the configuration, of a policy or a list that were not taken.
    pub misconfigured: AtomicU64,
    /// Blobs that garbage collection removed, and their bytes.
    pub collected: AtomicU64,
    /// Their bytes.
    pub collected_bytes: AtomicU64,
}

impl Metrics {
    /// Counts an answered request.
    pub fn answered(&self, kind: usize, status: u16, took: Duration) {
        let class = usize::from(status / 100)
            .saturating_sub(2)
            .min(CLASSES.len() - 1);
        if let Some(counter) = self.requests.get(kind).and_then(|kind| kind.get(class)) {
            counter.fetch_add(1, Relaxed);
        }
        let micros = u64::try_from(took.as_micros()).unwrap_or(u64::MAX);
        let bucket = BOUNDS.iter().take_while(|bound| micros > **bound).count();
        self.buckets[bucket].fetch_add(1, Relaxed);
        self.micros.fetch_add(micros, Relaxed);
    }

    /// The text. `gauges` are further values: name, help, value.
    pub fn text(&self, gauges: &[(&str, &str, u64)]) -> String {
        let mut out = String::new();
        // Writing to a string cannot fail.
        let _ = self.write(&mut out, gauges);
        out
    }

    fn write(&self, out: &mut String, gauges: &[(&str, &str, u64)]) -> std::fmt::Result {
        let name = "bpfseal_registry_requests_total";
        writeln!(
            out,
            "# HELP {name} Answered requests.\n# TYPE {name} counter"
        )?;
        for (kind, counters) in KINDS.iter().zip(&self.requests) {
            for (class, counter) in CLASSES.iter().zip(counters) {
                let count = counter.load(Relaxed);
                writeln!(
                    out,
                    "{name}{{endpoint=\"{kind}\",status=\"{class}\"}} {count}"
                )?;
            }
        }
        let name = "bpfseal_registry_request_duration_seconds";
        writeln!(
            out,
            "# HELP {name} From a request's head to the head of its answer."
        )?;
        writeln!(out, "# TYPE {name} histogram")?;
        let mut total = 0;
        for (at, bucket) in self.buckets.iter().enumerate() {
            total += bucket.load(Relaxed);
            match BOUNDS.get(at) {
                Some(bound) => {
                    let bound = *bound as f64 / 1e6;
                    writeln!(out, "{name}_bucket{{le=\"{bound}\"}} {total}")?;
                }
                None => writeln!(out, "{name}_bucket{{le=\"+Inf\"}} {total}")?,
            }
        }
        let sum = self.micros.load(Relaxed) as f64 / 1e6;
        writeln!(out, "{name}_sum {sum}\n{name}_count {total}")?;
        for (name, help, counter) in [
            (
                "denied_total",
                "Requests refused for want of a right.",
                &self.denied,
            ),
            (
                "failed_logins_total",
                "Wrong passwords and tokens.",
                &self.failed_logins,
            ),
            (
                "rate_limited_total",
                "Requests over the rate limit.",
                &self.limited,
            ),
            (
                "quarantined_total",
                "Artifacts put into quarantine.",
                &self.quarantined,
            ),
            (
                "policy_refused_total",
                "Artifacts refused by a policy.",
                &self.refused,
            ),
            (
                "configuration_errors_total",
                "Changes of the configuration that were not taken.",
                &self.misconfigured,
            ),
            (
                "collected_blobs_total",
                "Blobs removed by garbage collection.",
                &self.collected,
            ),
            (
                "collected_bytes_total",
                "Bytes of removed blobs.",
                &self.collected_bytes,
            ),
        ] {
            let value = counter.load(Relaxed);
            writeln!(out, "# HELP bpfseal_registry_{name} {help}")?;
            writeln!(out, "# TYPE bpfseal_registry_{name} counter")?;
            writeln!(out, "bpfseal_registry_{name} {value}")?;
        }
        let own = [
            (
                "in_flight",
                "Requests being answered.",
                self.in_flight.load(Relaxed),
            ),
            (
                "connections",
                "Open connections.",
                self.connections.load(Relaxed),
            ),
        ];
        for (name, help, value) in own.iter().chain(gauges) {
            writeln!(out, "# HELP bpfseal_registry_{name} {help}")?;
            writeln!(out, "# TYPE bpfseal_registry_{name} gauge")?;
            writeln!(out, "bpfseal_registry_{name} {value}")?;
        }
        Ok(())
    }
}

/// Counts up while it lives.
pub struct Gauge<'a>(&'a AtomicU64);

impl<'a> Gauge<'a> {
    /// One more.
    pub fn up(counter: &'a AtomicU64) -> Self {
        counter.fetch_add(1, Relaxed);
        Self(counter)
    }
}

impl Drop for Gauge<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_request_is_counted_once_everywhere() {
        let metrics = Metrics::default();
        metrics.answered(3, 200, Duration::from_micros(300));
        metrics.answered(3, 503, Duration::from_secs(100));
        let text = metrics.text(&[("uploads", "Uploads under way.", 7)]);
        for line in [
            "bpfseal_registry_requests_total{endpoint=\"blob\",status=\"2xx\"} 1",
            "bpfseal_registry_requests_total{endpoint=\"blob\",status=\"5xx\"} 1",
            "bpfseal_registry_request_duration_seconds_bucket{le=\"0.00025\"} 0",
            "bpfseal_registry_request_duration_seconds_bucket{le=\"0.001\"} 1",
            "bpfseal_registry_request_duration_seconds_bucket{le=\"+Inf\"} 2",
            "bpfseal_registry_request_duration_seconds_count 2",
            "bpfseal_registry_uploads 7",
        ] {
            assert!(text.lines().any(|got| got == line), "{line}\n{text}");
        }
    }
}
