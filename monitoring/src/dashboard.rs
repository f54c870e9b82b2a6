//! The Grafana dashboard: rows of panels, each a few queries. `$job` and `$instance` are the dashboard's variables;
//! `$__rate_interval` is Grafana's. What begins with `coredns_` or `process_` is shown of node-cache too.

use serde_json::{Value, json};

/// How a panel shows its figures.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Shown {
    /// One figure.
    Stat,
    /// Lines over time.
    Lines,
    /// The present figures, highest first.
    Table,
}

struct Panel {
    title: &'static str,
    shown: Shown,
    /// Grafana's name of the unit.
    unit: &'static str,
    /// Query and legend.
    queries: &'static [(&'static str, &'static str)],
}

/// The grid is 24 wide.
const WIDTH: u64 = 24;

const ROWS: &[(&str, &[Panel])] = &[
    (
        "All nodes",
        &[
            stat("Caches", "short", &[("count(coredns_build_info{JOB})", "")]),
            stat("Queries a second", "reqps", &[("sum(rate(coredns_dns_requests_total{JOB}[$__rate_interval]))", "")]),
            stat(
                "Answered from the cache",
                "percentunit",
                &[(
                    "sum(rate(coredns_cache_hits_total{JOB}[$__rate_interval])) / sum(rate(coredns_cache_requests_total{JOB}[$__rate_interval]))",
                    "",
                )],
            ),
            stat(
                "SERVFAIL",
                "percentunit",
                &[(
                    "(sum(rate(coredns_dns_responses_total{JOB, rcode=\"SERVFAIL\"}[$__rate_interval])) or vector(0)) / sum(rate(coredns_dns_responses_total{JOB}[$__rate_interval]))",
                    "",
                )],
            ),
            stat(
                "99 of 100 answers within",
                "s",
                &[(
                    "histogram_quantile(0.99, sum by (le) (rate(coredns_dns_request_duration_seconds_bucket{JOB}[$__rate_interval])))",
                    "",
                )],
            ),
            stat(
                "Nodes that intercept (nodelocaldns)",
                "short",
                &[("sum(nodelocaldns_watchdog_interception{JOB})", "")],
            ),
        ],
    ),
    (
        "Queries",
        &[
            lines(
                "Queries by type",
                "reqps",
                &[("sum by (type) (rate(coredns_dns_requests_total{JOB}[$__rate_interval]))", "{{type}}")],
            ),
            lines(
                "Queries by transport",
                "reqps",
                &[(
                    "sum by (proto, family) (rate(coredns_dns_requests_total{JOB}[$__rate_interval]))",
                    "{{proto}}, IPv{{family}}",
                )],
            ),
            lines(
                "Answers by code",
                "reqps",
                &[("sum by (rcode) (rate(coredns_dns_responses_total{JOB}[$__rate_interval]))", "{{rcode}}")],
            ),
            lines(
                "Latency",
                "s",
                &[
                    (
                        "histogram_quantile(0.99, sum by (le) (rate(coredns_dns_request_duration_seconds_bucket{JOB}[$__rate_interval])))",
                        "99 of 100",
                    ),
                    (
                        "histogram_quantile(0.9, sum by (le) (rate(coredns_dns_request_duration_seconds_bucket{JOB}[$__rate_interval])))",
                        "9 of 10",
                    ),
                    (
                        "histogram_quantile(0.5, sum by (le) (rate(coredns_dns_request_duration_seconds_bucket{JOB}[$__rate_interval])))",
                        "half",
                    ),
                ],
            ),
            lines(
                "Queries by zone",
                "reqps",
                &[("sum by (zone) (rate(coredns_dns_requests_total{JOB}[$__rate_interval]))", "{{zone}}")],
            ),
            table(
                "Busiest nodes",
                "reqps",
                &[(
                    "topk(10, sum by (instance) (rate(coredns_dns_requests_total{JOB}[$__rate_interval])))",
                    "{{instance}}",
                )],
            ),
        ],
    ),
    (
        "Cache",
        &[
            lines(
                "Hits by kind, misses",
                "reqps",
                &[
                    ("sum by (type) (rate(coredns_cache_hits_total{JOB}[$__rate_interval]))", "hit, {{type}}"),
                    ("sum(rate(coredns_cache_misses_total{JOB}[$__rate_interval]))", "miss"),
                ],
            ),
            lines("Entries", "short", &[("sum by (type) (coredns_cache_entries{JOB})", "{{type}}")]),
            lines(
                "Evicted, prefetched, served stale",
                "reqps",
                &[
                    ("sum(rate(coredns_cache_evictions_total{JOB}[$__rate_interval]))", "evicted"),
                    ("sum(rate(coredns_cache_prefetch_total{JOB}[$__rate_interval]))", "prefetched"),
                    ("sum(rate(coredns_cache_served_stale_total{JOB}[$__rate_interval]))", "stale"),
                ],
            ),
            lines(
                "Memory of the caches (nodelocaldns)",
                "bytes",
                &[("topk(10, sum by (instance) (nodelocaldns_cache_bytes{JOB}))", "{{instance}}")],
            ),
        ],
    ),
    (
        "Upstreams",
        &[
            lines(
                "Queries",
                "reqps",
                &[(
                    "sum by (to) (rate(coredns_proxy_request_duration_seconds_count{JOB}[$__rate_interval]))",
                    "{{to}}",
                )],
            ),
            lines(
                "99 of 100 answers within",
                "s",
                &[(
                    "histogram_quantile(0.99, sum by (to, le) (rate(coredns_proxy_request_duration_seconds_bucket{JOB}[$__rate_interval])))",
                    "{{to}}",
                )],
            ),
            lines(
                "Answers by code",
                "reqps",
                &[(
                    "sum by (rcode) (rate(coredns_proxy_request_duration_seconds_count{JOB}[$__rate_interval]))",
                    "{{rcode}}",
                )],
            ),
            lines(
                "Failed health checks",
                "short",
                &[("sum by (to) (rate(coredns_proxy_healthcheck_failures_total{JOB}[$__rate_interval]))", "{{to}}")],
            ),
            lines(
                "Asked again, shared, suspected spoofing (nodelocaldns)",
                "reqps",
                &[
                    ("sum(rate(nodelocaldns_forward_retries_total{JOB}[$__rate_interval]))", "asked again"),
                    (
                        "sum(rate(nodelocaldns_forward_shared_total{JOB}[$__rate_interval]))",
                        "one answer for several queries",
                    ),
                    ("sum(rate(nodelocaldns_forward_spoof_suspected_total{JOB}[$__rate_interval]))", "spoofing"),
                ],
            ),
        ],
    ),
    (
        "Nodes",
        &[
            lines(
                "Errors while a node was set up",
                "short",
                &[(
                    "sum by (errortype) (increase(coredns_nodecache_setup_errors_total{JOB}[$__rate_interval]))",
                    "{{errortype}}",
                )],
            ),
            lines(
                "Addresses intercepted (nodelocaldns)",
                "short",
                &[("sum by (address) (nodelocaldns_watchdog_intercepted{JOB})", "{{address}}")],
            ),
            lines(
                "Servers replaced (nodelocaldns)",
                "short",
                &[(
                    "sum by (cause) (increase(nodelocaldns_watchdog_server_restarts_total{JOB}[$__rate_interval]))",
                    "{{cause}}",
                )],
            ),
            lines(
                "Seconds without service (nodelocaldns)",
                "s",
                &[(
                    "topk(10, increase(nodelocaldns_watchdog_seconds_without_service_total{JOB}[$__rate_interval]))",
                    "{{instance}}",
                )],
            ),
            lines(
                "Queries dropped, in flight (nodelocaldns)",
                "short",
                &[
                    (
                        "sum by (reason) (rate(nodelocaldns_queries_dropped_total{JOB}[$__rate_interval]))",
                        "dropped a second, {{reason}}",
                    ),
                    ("sum(nodelocaldns_queries_in_flight{JOB})", "in flight"),
                ],
            ),
            lines(
                "Refused reloads, panics",
                "short",
                &[
                    ("sum(increase(coredns_reload_failed_total{JOB}[$__rate_interval]))", "reloads"),
                    ("sum(increase(coredns_panics_total{JOB}[$__rate_interval]))", "panics"),
                ],
            ),
        ],
    ),
    (
        "Processes",
        &[
            lines("Memory", "bytes", &[("topk(10, process_resident_memory_bytes{JOB})", "{{instance}}")]),
            lines(
                "Processors",
                "short",
                &[("topk(10, rate(process_cpu_seconds_total{JOB}[$__rate_interval]))", "{{instance}}")],
            ),
            lines("Open files", "short", &[("topk(10, process_open_fds{JOB})", "{{instance}}")]),
            table("Versions", "short", &[("count by (version) (coredns_build_info{JOB})", "{{version}}")]),
        ],
    ),
];

const fn stat(title: &'static str, unit: &'static str, queries: &'static [(&'static str, &'static str)]) -> Panel {
    Panel { title, shown: Shown::Stat, unit, queries }
}

const fn lines(title: &'static str, unit: &'static str, queries: &'static [(&'static str, &'static str)]) -> Panel {
    Panel { title, shown: Shown::Lines, unit, queries }
}

const fn table(title: &'static str, unit: &'static str, queries: &'static [(&'static str, &'static str)]) -> Panel {
    Panel { title, shown: Shown::Table, unit, queries }
}

/// The dashboard as Grafana imports it.
pub fn dashboard() -> Value {
    let mut panels = Vec::new();
    let mut y = 0;
    for (title, row) in ROWS {
        panels.push(json!({
            "type": "row", "title": title, "collapsed": false, "panels": [],
            "gridPos": {"x": 0, "y": y, "w": WIDTH, "h": 1},
        }));
        y += 1;
        let (mut x, mut height) = (0, 0);
        for panel in *row {
            let (width, tall) = if panel.shown == Shown::Stat { (4, 4) } else { (8, 8) };
            if x + width > WIDTH {
                (x, y) = (0, y + height);
            }
            height = tall;
            panels.push(panel.json(json!({"x": x, "y": y, "w": width, "h": tall})));
            x += width;
        }
        y += height;
    }
    for (id, panel) in (1u32..).zip(&mut panels) {
        panel["id"] = id.into();
    }
    json!({
        "uid": "nodelocaldns",
        "title": "Node-local DNS caches",
        "tags": ["dns", "nodelocaldns"],
        "schemaVersion": 39,
        "version": 1,
        "editable": true,
        "timezone": "browser",
        "refresh": "30s",
        "time": {"from": "now-1h", "to": "now"},
        "templating": {"list": [
            {
                "name": "datasource", "label": "Prometheus", "type": "datasource", "query": "prometheus",
                "current": {}, "hide": 0, "refresh": 1,
            },
            // Without cluster DNS, which has the same series.
            variable("job", "Job", "label_values(coredns_build_info, job)", "/^(?!(.*[-\\/])?(coredns|kube-dns)$).*$/"),
            variable("instance", "Node", "label_values(coredns_build_info{job=~\"$job\"}, instance)", ""),
        ]},
        "panels": panels,
    })
}

/// `regex` is what values must match.
fn variable(name: &str, label: &str, query: &str, regex: &str) -> Value {
    json!({
        "name": name, "label": label, "type": "query", "datasource": datasource(),
        "query": {"query": query, "refId": name}, "definition": query,
        "includeAll": true, "multi": true, "regex": regex, "current": {"text": "All", "value": "$__all"},
        "refresh": 2, "sort": 1, "hide": 0,
    })
}

fn datasource() -> Value {
    json!({"type": "prometheus", "uid": "${datasource}"})
}

impl Panel {
    fn json(&self, place: Value) -> Value {
        let (kind, is_instant) = match self.shown {
            Shown::Stat => ("stat", true),
            Shown::Lines => ("timeseries", false),
            Shown::Table => ("bargauge", true),
        };
        let target = |(letter, (query, legend)): (char, &(&str, &str))| {
            json!({
                "refId": letter.to_string(), "datasource": datasource(), "instant": is_instant, "range": !is_instant,
                "expr": query.replace("JOB", "job=~\"$job\", instance=~\"$instance\""), "legendFormat": legend,
            })
        };
        let options = match self.shown {
            Shown::Stat => {
                json!({"reduceOptions": {"calcs": ["lastNotNull"]}, "colorMode": "none", "graphMode": "none"})
            }
            Shown::Lines => {
                json!({"legend": {"displayMode": "list", "placement": "bottom"}, "tooltip": {"mode": "multi"}})
            }
            Shown::Table => json!({"reduceOptions": {"calcs": ["lastNotNull"]}, "orientation": "horizontal"}),
        };
        json!({
            "type": kind, "title": self.title, "gridPos": place, "datasource": datasource(), "options": options,
            "fieldConfig": {"defaults": {"unit": self.unit, "min": 0}, "overrides": []},
            "targets": ('A'..).zip(self.queries).map(target).collect::<Vec<_>>(),
        })
    }
}
