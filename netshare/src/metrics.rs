//! Figures for Prometheus, as its text format (version 0.0.4) has them.

use crate::machines::Machine;
use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::SystemTime;

/// What is counted while the server runs.
#[derive(Debug, Default)]
pub(crate) struct Metrics {
    in_flight: AtomicU64,
    connections: AtomicU64,
    received_bytes: AtomicU64,
    sent_bytes: AtomicU64,
    counts: Mutex<Counts>,
}

#[derive(Debug, Default)]
struct Counts {
    requests: BTreeMap<(&'static str, u16), u64>,
    /// Connections that never came to a request.
    refused: BTreeMap<&'static str, u64>,
    /// By repository and machine.
    errors: BTreeMap<(String, String), u64>,
}

impl Metrics {
    pub(crate) fn begin(&self) {
        self.in_flight.fetch_add(1, Ordering::Relaxed);
    }

    pub(crate) fn received(&self, bytes: u64) {
        self.received_bytes.fetch_add(bytes, Ordering::Relaxed);
    }

    pub(crate) fn sent(&self, bytes: u64) {
        self.sent_bytes.fetch_add(bytes, Ordering::Relaxed);
    }

    pub(crate) fn connected(&self) {
        self.connections.fetch_add(1, Ordering::Relaxed);
    }

    pub(crate) fn disconnected(&self) {
        self.connections.fetch_sub(1, Ordering::Relaxed);
    }

    /// A connection that was turned away.
    pub(crate) fn refuse(&self, why: &'static str) {
        *self.lock().refused.entry(why).or_default() += 1;
    }

    /// A request that is over; `failed` is the machine that had no use of it.
    pub(crate) fn end(&self, method: &'static str, status: u16, repository: &str, failed: Option<&str>) {
        self.in_flight.fetch_sub(1, Ordering::Relaxed);
        let mut counts = self.lock();
        *counts.requests.entry((method, status)).or_default() += 1;
        if let Some(machine) = failed {
            *counts.errors.entry((repository.to_owned(), machine.to_owned())).or_default() += 1;
        }
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Counts> {
        self.counts.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Everything, as text.
    pub(crate) fn text(&self, machines: &[Machine], now: SystemTime) -> String {
        let mut text = Text::default();
        let load = |value: &AtomicU64| value.load(Ordering::Relaxed);
        text.family("netshare_in_flight", "gauge", "Requests under way");
        text.sample("netshare_in_flight", "", load(&self.in_flight));
        text.family("netshare_connections", "gauge", "Connections that are open");
        text.sample("netshare_connections", "", load(&self.connections));
        text.family("netshare_received_bytes_total", "counter", "Bytes of bodies received");
        text.sample("netshare_received_bytes_total", "", load(&self.received_bytes));
        text.family("netshare_sent_bytes_total", "counter", "Bytes of bodies sent");
        text.sample("netshare_sent_bytes_total", "", load(&self.sent_bytes));
        let counts = self.lock();
        text.family("netshare_requests_total", "counter", "Requests by method and status (0: cut off)");
        for ((method, status), count) in &counts.requests {
            text.sample(
                "netshare_requests_total",
                &format!("method=\"{method}\",status=\"{status}\""),
                *count,
            );
        }
        text.family("netshare_refused_total", "counter", "Connections turned away before a request");
        for (why, count) in &counts.refused {
            text.sample("netshare_refused_total", &format!("reason=\"{why}\""), *count);
        }
        text.family("netshare_errors_total", "counter", "Requests of a machine that failed");
        for ((repository, machine), count) in &counts.errors {
            text.sample("netshare_errors_total", &labels(repository, machine), *count);
        }
        drop(counts);
        text.machines(machines, now);
        text.0
    }
}

/// Names of repositories and machines are of `[a-z0-9-]`: nothing in them needs escaping.
fn labels(repository: &str, machine: &str) -> String {
    format!("repository=\"{repository}\",machine=\"{machine}\"")
}

#[derive(Default)]
struct Text(String);

impl Text {
    fn family(&mut self, name: &str, kind: &str, help: &str) {
        // Writing to a string does not fail.
        let _never = writeln!(self.0, "# HELP {name} {help}.\n# TYPE {name} {kind}");
    }

    fn sample(&mut self, name: &str, labels: &str, value: u64) {
        let labels = if labels.is_empty() { String::new() } else { format!("{{{labels}}}") };
        let _never = writeln!(self.0, "{name}{labels} {value}");
    }

    fn machines(&mut self, machines: &[Machine], now: SystemTime) {
        let age = |then: SystemTime| now.duration_since(then).map_or(0, |age| age.as_secs());
        let families = [
            ("netshare_seconds_since_capture", "Seconds since the machine's last manifest came"),
            ("netshare_seconds_since_check", "Seconds since one of the machine's captures was last verified"),
        ];
        for (number, (name, help)) in families.into_iter().enumerate() {
            self.family(name, "gauge", help);
            for machine in machines {
                let when = if number == 0 { machine.captured } else { machine.checked };
                if let Some(when) = when {
                    self.sample(name, &labels(&machine.repository, &machine.machine), age(when));
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::Metrics;
    use crate::machines::Machine;
    use std::time::{Duration, SystemTime};

    #[test]
    fn figures_are_told_in_prometheus_words() {
        let metrics = Metrics::default();
        metrics.begin();
        metrics.begin();
        metrics.received(5);
        metrics.refuse("handshake");
        metrics.end("PUT", 403, "default", Some("web"));
        let now = SystemTime::now();
        let captured = now.checked_sub(Duration::from_secs(90));
        let machine =
            Machine { repository: "default".into(), machine: "web".into(), captured, checked: None };
        let text = metrics.text(&[machine], now);
        for line in [
            "netshare_in_flight 1",
            "netshare_received_bytes_total 5",
            "netshare_requests_total{method=\"PUT\",status=\"403\"} 1",
            "netshare_refused_total{reason=\"handshake\"} 1",
            "netshare_errors_total{repository=\"default\",machine=\"web\"} 1",
            "netshare_seconds_since_capture{repository=\"default\",machine=\"web\"} 90",
        ] {
            assert!(text.lines().any(|found| found == line), "{line}\n{text}");
        }
        assert!(!text.contains("netshare_seconds_since_check{"));
    }
}
