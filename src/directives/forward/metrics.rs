//! The metrics of `forward`: CoreDNS' names, the names they had before CoreDNS 1.11 (dashboards still use those), and
//! our own.

use crate::chain::unix_seconds;
use crate::message::Rcode;
use crate::metrics::{Counter, Gauge, Histogram, Registry, TIME_BUCKETS, UPSTREAM_DURATION};
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

/// When an upstream last answered.
const LAST_ANSWER: &str = "nodelocaldns_forward_last_answer_timestamp_seconds";
/// Value of the label `proxy_name`.
const PROXY_NAME: &str = "forward";
/// Response codes whose series are looked up once: the 16 of the header, and those of EDNS that IANA has assigned.
const RCODES: usize = 24;

/// Counters of a `forward`, whatever the upstream.
#[derive(Clone)]
pub(super) struct ForwardMetrics {
    pub healthcheck_broken: Counter,
    pub max_concurrent_rejects: Counter,
    pub shared: Counter,
    /// Raised and lowered by [`Waiting`].
    sharing: Gauge,
}

/// A request that waits for the exchange of another; dropped when it does not any longer.
pub(super) struct Waiting<'a>(&'a Gauge);

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        self.0.add(-1.0);
    }
}

impl ForwardMetrics {
    pub(super) fn new(registry: &Registry) -> Self {
        Self {
            healthcheck_broken: registry.counter(
                "coredns_forward_healthcheck_broken_total",
                "Requests that met only upstreams that are down.",
                &[],
            ),
            max_concurrent_rejects: registry.counter(
                "coredns_forward_max_concurrent_rejects_total",
                "Requests refused because max_concurrent requests were being forwarded.",
                &[],
            ),
            shared: registry.counter(
                "nodelocaldns_forward_shared_total",
                "Requests answered by the upstream exchange of another identical request.",
                &[],
            ),
            sharing: registry.gauge(
                "nodelocaldns_forward_sharing",
                "Requests that wait for the upstream exchange of another identical request.",
                &[],
            ),
        }
    }

    /// Counts a request that waits for another's exchange, until this is dropped.
    pub(super) fn waiting(&self) -> Waiting<'_> {
        self.sharing.add(1.0);
        Waiting(&self.sharing)
    }
}

/// Gauges of the sockets to all upstreams.
pub(super) struct SocketMetrics {
    pub open: Gauge,
    pub limit: Gauge,
}

impl SocketMetrics {
    pub(super) fn new(registry: &Registry) -> Self {
        Self {
            open: registry.gauge(
                "nodelocaldns_forward_sockets",
                "Open UDP sockets and TCP connections to upstreams.",
                &[],
            ),
            limit: registry.gauge("nodelocaldns_forward_sockets_limit", "Sockets to upstreams that may be open.", &[]),
        }
    }
}

/// Counters of one upstream.
pub(super) struct UpstreamMetrics {
    registry: Registry,
    to: String,
    requests: Counter,
    by_rcode: [OnceLock<ByRcode>; RCODES],
    /// Unix time; 0: never.
    last_answer: Arc<AtomicU32>,
    /// Shows that at each scrape.
    _refresh: Arc<dyn Fn() + Send + Sync>,
    healthcheck_failures: Counter,
    healthcheck_failures_pre_1_11: Counter,
    pub udp_reused: Counter,
    pub udp_opened: Counter,
    pub tcp_reused: Counter,
    pub tcp_opened: Counter,
    pub retries: Counter,
    pub mismatched: Counter,
    pub sockets_exhausted: Counter,
    pub spoof_suspected: Counter,
}

/// The series of one upstream and response code.
struct ByRcode {
    responses: Counter,
    duration: Histogram,
    duration_pre_1_11: Histogram,
}

impl UpstreamMetrics {
    /// The counters of the upstream `to`, whose connections are counted under this `proto`.
    pub(super) fn new(registry: &Registry, to: String, connection_label: &str) -> Self {
        let counter = |name, help| registry.counter(name, help, &[("to", &to)]);
        let connections = |name, help, proto| {
            registry.counter(name, help, &[("proxy_name", PROXY_NAME), ("to", &to), ("proto", proto)])
        };
        let reused = |proto| {
            connections(
                "coredns_proxy_conn_cache_hits_total",
                "Queries sent on a socket or connection that was open.",
                proto,
            )
        };
        let opened = |proto| {
            connections("coredns_proxy_conn_cache_misses_total", "Sockets and connections that were opened.", proto)
        };
        let last_answer = Arc::new(AtomicU32::new(0));
        let refresh: Arc<dyn Fn() + Send + Sync> = Arc::new({
            let (registry, to, last_answer) = (registry.clone(), to.clone(), last_answer.clone());
            move || show_last_answer(&registry, &to, last_answer.load(Ordering::Relaxed))
        });
        registry.before_scrape(Arc::downgrade(&refresh));
        Self {
            requests: counter("coredns_forward_requests_total", "Queries asked of each upstream."),
            by_rcode: std::array::from_fn(|_| OnceLock::new()),
            last_answer,
            _refresh: refresh,
            healthcheck_failures: registry.counter(
                "coredns_proxy_healthcheck_failures_total",
                "Failed health checks.",
                &[("proxy_name", PROXY_NAME), ("to", &to)],
            ),
            healthcheck_failures_pre_1_11: counter(
                "coredns_forward_healthcheck_failures_total",
                "Failed health checks.",
            ),
            udp_reused: reused("udp"),
            udp_opened: opened("udp"),
            tcp_reused: reused(connection_label),
            tcp_opened: opened(connection_label),
            retries: counter(
                "nodelocaldns_forward_retries_total",
                "Queries sent again: a datagram seemed lost, or a connection broke or hung.",
            ),
            mismatched: counter(
                "nodelocaldns_forward_mismatched_total",
                "Messages from an upstream that answer no question in flight: forged, late or repeated.",
            ),
            sockets_exhausted: counter(
                "nodelocaldns_forward_sockets_exhausted_total",
                "Queries for which no socket could be opened because as many were open as may be; they shared one.",
            ),
            spoof_suspected: counter(
                "nodelocaldns_forward_spoof_suspected_total",
                "Sockets that got several datagrams with a wrong ID or question and were given up, their queries asked over TCP.",
            ),
            registry: registry.clone(),
            to,
        }
    }

    /// Counts a query that is sent to the upstream.
    pub(super) fn count_request(&self) {
        self.requests.increment();
    }

    /// Counts an answer of the upstream.
    pub(super) fn count_response(&self, rcode: Rcode, elapsed: Duration) {
        let seconds = elapsed.as_secs_f64();
        let observe = |series: &ByRcode| {
            series.responses.increment();
            series.duration.observe(seconds);
            series.duration_pre_1_11.observe(seconds);
        };
        if matches!(rcode, Rcode::NOERROR | Rcode::NXDOMAIN) {
            self.note_answer(unix_seconds());
        }
        match self.by_rcode.get(usize::from(rcode.0)) {
            Some(cell) => observe(cell.get_or_init(|| self.series(rcode))),
            None => observe(&self.series(rcode)),
        }
    }

    /// The upstream has said what a name has, or that there is none.
    fn note_answer(&self, now: u32) {
        // Written once a second, since all workers share it.
        if self.last_answer.load(Ordering::Relaxed) != now {
            self.last_answer.store(now, Ordering::Relaxed);
        }
    }

    /// Counts a failed health check.
    pub(super) fn count_healthcheck_failure(&self) {
        self.healthcheck_failures.increment();
        self.healthcheck_failures_pre_1_11.increment();
    }

    fn series(&self, rcode: Rcode) -> ByRcode {
        let name = rcode.to_string();
        // CoreDNS labels codes without a mnemonic by their number.
        let name = name.strip_prefix("RCODE").unwrap_or(&name);
        let help = "Time from the query to the upstream's answer in seconds.";
        let labels = &[("to", self.to.as_str()), ("rcode", name)];
        ByRcode {
            responses: self.registry.counter(
                "coredns_forward_responses_total",
                "Answers of each upstream by response code.",
                labels,
            ),
            duration: self.registry.histogram(
                UPSTREAM_DURATION,
                help,
                TIME_BUCKETS,
                &[("proxy_name", PROXY_NAME), ("to", &self.to), ("rcode", name)],
            ),
            duration_pre_1_11: self.registry.histogram(
                "coredns_forward_request_duration_seconds",
                help,
                TIME_BUCKETS,
                labels,
            ),
        }
    }
}

impl Drop for UpstreamMetrics {
    /// Takes the gauge away, as nobody asks the upstream any longer; another plan that does sets it at the next scrape.
    fn drop(&mut self) {
        self.registry.retain(LAST_ANSWER, |labels| labels != [self.to.as_str()]);
    }
}

/// Sets the gauge to the latest of the times that several plans know of one upstream. There is none before it answers.
fn show_last_answer(registry: &Registry, to: &str, last: u32) {
    if last > 0 {
        let help = "When the upstream last answered NOERROR or NXDOMAIN, in seconds since the Unix epoch.";
        let gauge = registry.gauge(LAST_ANSWER, help, &[("to", to)]);
        gauge.set(gauge.value().max(f64::from(last)));
    }
}
