//! What a team is told of, and by what. Each alert has a runbook, `docs/runbooks/NAME.md`, and `tests/monitoring` shows
//! it to fire in its fault and to be silent otherwise.

/// An alerting rule of Prometheus.
pub struct Alert {
    /// `alert`, and the name of the runbook.
    pub name: &'static str,
    /// `expr`, with OURS for what selects the caches ([`crate::OURS`]).
    pub expression: &'static str,
    /// How long it must hold, as Prometheus writes durations.
    pub holds_for: &'static str,
    /// Who is to look, and when.
    pub severity: Severity,
    /// One line, with the labels of the series that fires.
    pub summary: &'static str,
}

/// How soon somebody must look.
pub enum Severity {
    /// Pods lose answers, or will when the next thing fails. Somebody is woken.
    Critical,
    /// Answers come, but not as they should. Somebody looks within a day.
    Warning,
}

impl Severity {
    /// The label's value, as kube-prometheus has it.
    pub fn label(&self) -> &'static str {
        match self {
            Self::Critical => "critical",
            Self::Warning => "warning",
        }
    }
}

/// All of them.
pub const ALERTS: &[Alert] = &[
    Alert {
        name: "NodeLocalDNSDown",
        // Once it fires, it does as long as the target is down: what showed whose target it is grows old.
        expression: "up == 0 and on (job, instance) (max_over_time(nodelocaldns_watchdog_interception_wanted[1h]) or ALERTS{alertname=\"NodeLocalDNSDown\"})",
        holds_for: "5m",
        severity: Severity::Critical,
        summary: "The DNS cache at {{ $labels.instance }} cannot be scraped.",
    },
    Alert {
        name: "NodeLocalDNSAbsent",
        // Where targets are down, the alert above names each.
        expression: "absent(nodelocaldns_watchdog_interception_wanted) unless on () ALERTS{alertname=\"NodeLocalDNSDown\"}",
        holds_for: "15m",
        severity: Severity::Critical,
        summary: "No DNS cache of any node is scraped.",
    },
    Alert {
        name: "NodeLocalDNSNotIntercepting",
        expression: "nodelocaldns_watchdog_interception < nodelocaldns_watchdog_interception_wanted",
        holds_for: "5m",
        severity: Severity::Critical,
        summary: "Pods at {{ $labels.instance }} are answered by cluster DNS and not by their node's cache.",
    },
    Alert {
        name: "NodeLocalDNSClientsBlocked",
        expression: "nodelocaldns_watchdog_blocked_clients > 0",
        holds_for: "10m",
        severity: Severity::Warning,
        summary: "Packets of {{ $value }} clients at {{ $labels.instance }} do not arrive at the cache; cluster DNS answers them.",
    },
    Alert {
        name: "NodeLocalDNSServerRestarts",
        expression: "sum without (cause) (increase(nodelocaldns_watchdog_server_restarts_total{cause!=\"configuration\"}[15m])) > 2",
        holds_for: "0m",
        severity: Severity::Warning,
        summary: "The server at {{ $labels.instance }} was replaced {{ $value | humanize }} times within 15 minutes.",
    },
    Alert {
        name: "NodeLocalDNSConfigurationRefused",
        expression: "nodelocaldns_configuration_refused > 0",
        holds_for: "0m",
        severity: Severity::Warning,
        summary: "{{ $labels.instance }} refuses its new configuration and serves with the one before it.",
    },
    Alert {
        name: "NodeLocalDNSSetupErrors",
        expression: "sum by (job, instance, errortype) (increase(coredns_nodecache_setup_errors_total{errortype!=\"configmap\"}[5m])) > 0 OURS",
        holds_for: "10m",
        severity: Severity::Warning,
        summary: "{{ $labels.instance }} cannot set its node up: {{ $labels.errortype }}.",
    },
    Alert {
        name: "NodeLocalDNSServfail",
        expression: "sum by (job, instance) (rate(coredns_dns_responses_total{rcode=\"SERVFAIL\"}[5m])) / sum by (job, instance) (rate(coredns_dns_responses_total[5m])) > 0.03 and sum by (job, instance) (rate(coredns_dns_responses_total{rcode=\"SERVFAIL\"}[5m])) > 0.05 OURS",
        holds_for: "10m",
        severity: Severity::Critical,
        summary: "{{ $value | humanizePercentage }} of the answers of {{ $labels.instance }} are SERVFAIL.",
    },
    Alert {
        name: "NodeLocalDNSSlow",
        expression: "histogram_quantile(0.99, sum by (job, instance, le) (rate(coredns_dns_request_duration_seconds_bucket[5m]))) > 1 OURS",
        holds_for: "10m",
        severity: Severity::Warning,
        summary: "One answer in a hundred of {{ $labels.instance }} takes more than {{ $value | humanizeDuration }}.",
    },
    Alert {
        name: "NodeLocalDNSUpstreamFails",
        expression: "sum by (job, instance, to) (increase(coredns_proxy_healthcheck_failures_total[2m])) > 3 OURS",
        holds_for: "5m",
        severity: Severity::Warning,
        summary: "{{ $labels.instance }} has no answer from the upstream {{ $labels.to }}.",
    },
    Alert {
        name: "NodeLocalDNSQueriesDropped",
        expression: "sum by (job, instance) (rate(nodelocaldns_queries_dropped_total{reason=~\"evicted|overload\"}[2m])) > 0",
        holds_for: "10m",
        severity: Severity::Warning,
        summary: "{{ $labels.instance }} gives queries up for want of room: {{ $value | humanize }} a second.",
    },
    Alert {
        name: "NodeLocalDNSSpoofSuspected",
        expression: "sum by (job, instance, to) (increase(nodelocaldns_forward_spoof_suspected_total[15m])) > 0",
        holds_for: "0m",
        severity: Severity::Warning,
        summary: "Somebody guesses answers of {{ $labels.to }} to {{ $labels.instance }}.",
    },
    Alert {
        name: "NodeLocalDNSForwardingLoop",
        expression: "max by (job, instance, zone, to) (nodelocaldns_loop_detected) > 0",
        holds_for: "1m",
        severity: Severity::Critical,
        summary: "Queries of {{ $labels.instance }} for {{ $labels.zone }} come back from {{ $labels.to }}, which is no longer asked.",
    },
    Alert {
        name: "NodeLocalDNSPanics",
        expression: "increase(coredns_panics_total[15m]) > 0 OURS",
        holds_for: "0m",
        severity: Severity::Warning,
        summary: "{{ $labels.instance }} met a defect of the program: a query had SERVFAIL for it.",
    },
    Alert {
        name: "NodeLocalDNSFileDescriptors",
        expression: "process_open_fds / process_max_fds > 0.9 OURS",
        holds_for: "10m",
        severity: Severity::Warning,
        summary: "{{ $labels.instance }} has {{ $value | humanizePercentage }} of its open files.",
    },
];

/// A recording rule: its name and expression.
pub type Recording = (&'static str, &'static str);

/// Figures of each cache over five minutes, named `LEVEL:METRIC:OPERATION`.
pub const RECORDINGS: &[Recording] = &[
    ("instance:coredns_dns_requests:rate5m", "sum by (job, instance) (rate(coredns_dns_requests_total[5m])) OURS"),
    (
        "instance:coredns_cache_hits:ratio_rate5m",
        "sum by (job, instance) (rate(coredns_cache_hits_total[5m])) / sum by (job, instance) (rate(coredns_cache_requests_total[5m])) OURS",
    ),
    (
        "instance:coredns_dns_responses_servfail:ratio_rate5m",
        "sum by (job, instance) (rate(coredns_dns_responses_total{rcode=\"SERVFAIL\"}[5m])) / sum by (job, instance) (rate(coredns_dns_responses_total[5m])) OURS",
    ),
    (
        "instance:coredns_dns_request_duration_seconds:p99_rate5m",
        "histogram_quantile(0.99, sum by (job, instance, le) (rate(coredns_dns_request_duration_seconds_bucket[5m]))) OURS",
    ),
];
