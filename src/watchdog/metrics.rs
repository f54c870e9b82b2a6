//! What the watchdog counts; served by itself on `-metrics-listen-address`, so that it can be read when no server lives.

use super::state::Cause;
use crate::chain::Transport;
use crate::metrics::process::ProcessCollector;
use crate::metrics::{Counter, Gauge, Histogram, Registry, TIME_BUCKETS};
use std::time::Duration;

const SETUP_ERRORS: (&str, &str) = ("coredns_nodecache_setup_errors_total", "Errors while the node was set up.");

/// The reference's error types, and ours last. Shown from the start, so that an alert can tell zero from unknown.
const ERROR_TYPES: [&str; 7] = ["iptables", "iptables_lock", "interface_add", "interface_check", "configmap", "nftables", "path"];

/// The watchdog's series.
pub struct Metrics {
    registry: Registry,
    probe_duration: Histogram,
    interception: Gauge,
    without_service: Gauge,
    _process: ProcessCollector,
}

impl Metrics {
    /// In a registry of their own.
    pub fn new() -> Self {
        let registry = Registry::new(1);
        let metrics = Self {
            probe_duration: registry.histogram(
                "nodelocaldns_watchdog_probe_duration_seconds",
                "How long the server took to answer the watchdog's questions.",
                TIME_BUCKETS,
                &[],
            ),
            interception: registry.gauge(
                "nodelocaldns_watchdog_interception",
                "1 while queries for the node's addresses are intercepted, else 0.",
                &[],
            ),
            without_service: registry.external_counter(
                "nodelocaldns_watchdog_seconds_without_service_total",
                "Seconds in which no server answered on every address.",
                &[],
            ),
            _process: ProcessCollector::register(&registry),
            registry,
        };
        for cause in Cause::ALL {
            metrics.restarts(cause);
        }
        for transport in [Transport::Udp, Transport::Tcp] {
            metrics.failures(transport);
        }
        for errortype in ERROR_TYPES {
            metrics.setup_errors(errortype);
        }
        metrics
    }

    /// Where they are.
    pub fn registry(&self) -> &Registry {
        &self.registry
    }
    fn restarts(&self, cause: Cause) -> Counter {
        let help = "Servers that were replaced, and why.";
        self.registry.counter("nodelocaldns_watchdog_server_restarts_total", help, &[("cause", cause.label())])
    }
    fn failures(&self, transport: Transport) -> Counter {
        let help = "Questions of the watchdog that the server did not answer, or not in time.";
        self.registry.counter("nodelocaldns_watchdog_probe_failures_total", help, &[("transport", transport.label())])
    }
    fn setup_errors(&self, errortype: &str) -> Counter {
        self.registry.counter(SETUP_ERRORS.0, SETUP_ERRORS.1, &[("errortype", errortype)])
    }
    pub(super) fn count_restart(&self, cause: Cause) {
        self.restarts(cause).increment();
    }
    pub(super) fn count_failure(&self, transport: Transport) {
        self.failures(transport).increment();
    }
    /// Of a type that is not known nothing is counted: the name may come from another process.
    pub(super) fn count_setup_error(&self, errortype: &str) {
        if ERROR_TYPES.contains(&errortype) {
            self.setup_errors(errortype).increment();
        }
    }
    pub(super) fn observe_probe(&self, elapsed: Duration) {
        self.probe_duration.observe(elapsed.as_secs_f64());
    }
    pub(super) fn set_interception(&self, is_on: bool) {
        self.interception.set(f64::from(u8::from(is_on)));
    }
    pub(super) fn set_without_service(&self, time: Duration) {
        self.without_service.set(time.as_secs_f64());
    }
}

impl Default for Metrics {
    fn default() -> Self {
        Self::new()
    }
}

#[cfg(test)]
mod tests {
    use super::Metrics;
    use crate::watchdog::state::Cause;

    #[test]
    fn series_are_there_from_the_start_and_unknown_error_types_are_not_made() {
        let metrics = Metrics::new();
        metrics.count_restart(Cause::Hang);
        metrics.count_setup_error("configmap");
        metrics.count_setup_error("anything\"");
        let text = metrics.registry().encode();
        for series in [
            "nodelocaldns_watchdog_server_restarts_total{cause=\"hang\"} 1\n",
            "nodelocaldns_watchdog_server_restarts_total{cause=\"configuration\"} 0\n",
            "nodelocaldns_watchdog_probe_failures_total{transport=\"tcp\"} 0\n",
            "nodelocaldns_watchdog_interception 0\n",
            "coredns_nodecache_setup_errors_total{errortype=\"configmap\"} 1\n",
            "coredns_nodecache_setup_errors_total{errortype=\"nftables\"} 0\n",
            "nodelocaldns_watchdog_seconds_without_service_total 0\n",
        ] {
            assert!(text.contains(series), "{series} in {text}");
        }
        assert!(!text.contains("anything"), "{text}");
    }
}
