//! The watchdog's metrics. It serves them itself (`-metrics-listen-address`), so that they can be read while no server
//! lives.

use super::state::Cause;
use crate::chain::Transport;
use crate::metrics::process::ProcessCollector;
use crate::metrics::{Counter, Gauge, Histogram, Registry, TIME_BUCKETS};
use crate::node::{ClientReachability, Interception};
use std::collections::BTreeMap;
use std::net::IpAddr;
use std::time::Duration;

const SETUP_ERRORS: (&str, &str) = ("coredns_nodecache_setup_errors_total", "Errors while the node was set up.");

/// An address that HTTP is to be served on cannot be listened on.
pub const HTTP_LISTEN: &str = "http_listen";

/// The reference's error types, and ours last. Shown from the start, so that an alert can tell zero from unknown.
const ERROR_TYPES: [&str; 9] = [
    "iptables",
    "iptables_lock",
    "interface_add",
    "interface_check",
    "configmap",
    "nftables",
    "filter",
    "path",
    HTTP_LISTEN,
];

/// The watchdog's series.
pub struct WatchdogMetrics {
    registry: Registry,
    probe_duration: Histogram,
    interception: Gauge,
    intercepted: BTreeMap<IpAddr, Gauge>,
    _wanted: Gauge,
    blocked_clients: Gauge,
    without_service: Gauge,
    _process: ProcessCollector,
}

impl WatchdogMetrics {
    /// In a registry of their own, for a node with these addresses (`-localip`), for which there may be rules.
    pub fn new(addresses: &[IpAddr], has_rules: bool) -> Self {
        let registry = Registry::new(1);
        let wanted = registry.gauge(
            "nodelocaldns_watchdog_interception_wanted",
            "1 where queries are to be intercepted, 0 where there are to be no rules.",
            &[],
        );
        wanted.set(f64::from(u8::from(has_rules && !addresses.is_empty())));
        let intercepted = addresses.iter().map(|address| {
            let gauge = registry.gauge(
                "nodelocaldns_watchdog_intercepted",
                "1 while queries for this address are intercepted, else 0.",
                &[("address", &address.to_canonical().to_string())],
            );
            (address.to_canonical(), gauge)
        });
        let metrics = Self {
            probe_duration: registry.histogram(
                "nodelocaldns_watchdog_probe_duration_seconds",
                "How long the server took to answer the watchdog's questions.",
                TIME_BUCKETS,
                &[],
            ),
            interception: registry.gauge(
                "nodelocaldns_watchdog_interception",
                "1 while queries for all of the node's addresses are intercepted and any client's arrive, else 0.",
                &[],
            ),
            intercepted: intercepted.collect(),
            _wanted: wanted,
            blocked_clients: registry.gauge(
                "nodelocaldns_watchdog_blocked_clients",
                "Clients whose packets come in and do not arrive at the cache: cluster DNS answers them.",
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
    /// Whom the rules intercept, and whom they reach.
    pub(super) fn set_interception(&self, interception: &Interception, reach: ClientReachability) {
        let set = |gauge: &Gauge, is_on: bool| gauge.set(f64::from(u8::from(is_on)));
        for (address, gauge) in &self.intercepted {
            set(gauge, interception.contains(*address));
        }
        let is_whole = self.intercepted.keys().all(|address| interception.contains(*address));
        set(&self.interception, is_whole && !self.intercepted.is_empty() && !reach.is_nobody_served);
        self.blocked_clients.set(reach.blocked as f64);
    }
    pub(super) fn set_without_service(&self, time: Duration) {
        self.without_service.set(time.as_secs_f64());
    }
}

#[cfg(test)]
mod tests {
    use super::WatchdogMetrics;
    use crate::node::{ClientReachability, Interception};
    use crate::watchdog::state::Cause;
    use std::net::IpAddr;

    #[test]
    fn series_are_there_from_the_start_and_unknown_error_types_are_not_made() {
        let metrics = WatchdogMetrics::new(&[], true);
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

    #[test]
    fn the_interception_is_1_for_each_address_that_is_intercepted_and_for_all_only_if_each_is() {
        let [first, second]: [IpAddr; 2] = ["169.254.20.10", "10.96.0.10"].map(|text| text.parse().unwrap());
        let metrics = WatchdogMetrics::new(&[first, second], true);
        for (intercepted, expected) in [(vec![], [0, 0, 0]), (vec![first], [0, 1, 0]), (vec![first, second], [1, 1, 1])]
        {
            metrics.set_interception(&Interception::of(&intercepted), ClientReachability::default());
            let text = metrics.registry().encode();
            for (series, value) in [
                "nodelocaldns_watchdog_interception",
                "nodelocaldns_watchdog_intercepted{address=\"169.254.20.10\"}",
                "nodelocaldns_watchdog_intercepted{address=\"10.96.0.10\"}",
            ]
            .iter()
            .zip(expected)
            {
                assert!(text.contains(&format!("{series} {value}\n")), "{series} {value} in {text}");
            }
        }
    }

    #[test]
    fn an_interception_is_wanted_where_there_are_addresses_and_may_be_rules() {
        let address: IpAddr = "10.96.0.10".parse().unwrap();
        let cases: [(&[IpAddr], bool, u8); 3] = [(&[address], true, 1), (&[address], false, 0), (&[], true, 0)];
        for (addresses, has_rules, expected) in cases {
            let text = WatchdogMetrics::new(addresses, has_rules).registry().encode();
            assert!(text.contains(&format!("nodelocaldns_watchdog_interception_wanted {expected}\n")), "{text}");
        }
    }

    #[test]
    fn who_intercepts_and_reaches_nobody_does_not_intercept() {
        let address: IpAddr = "10.96.0.10".parse().unwrap();
        let metrics = WatchdogMetrics::new(&[address], true);
        for (blocked, is_nobody_served, expected) in [(1, false, 1), (2, true, 0)] {
            metrics.set_interception(&Interception::of(&[address]), ClientReachability { blocked, is_nobody_served });
            let text = metrics.registry().encode();
            assert!(text.contains(&format!("nodelocaldns_watchdog_interception {expected}\n")), "{text}");
            assert!(text.contains(&format!("nodelocaldns_watchdog_blocked_clients {blocked}\n")), "{text}");
        }
    }
}
