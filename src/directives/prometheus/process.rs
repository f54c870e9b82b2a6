//! Metrics of the process as a whole and of the plan it serves.

use crate::message::Name;
use crate::metrics::process::ProcessCollector;
use crate::metrics::{Counter, Registry};
use std::collections::BTreeSet;

const ENABLED: &str = "coredns_plugin_enabled";

/// Metrics that every process has: `coredns_build_info`, `coredns_panics_total` and `process_*`. To be held as long as it runs.
pub struct ProcessMetrics {
    /// Panics that were caught.
    pub panics: Counter,
    _collector: ProcessCollector,
}

impl ProcessMetrics {
    /// Puts them into `registry`.
    pub fn register(registry: &Registry) -> Self {
        let labels = [
            ("version", env!("CARGO_PKG_VERSION")),
            ("revision", option_env!("NODELOCALDNS_REVISION").unwrap_or_default()),
            // Dashboards join on this label; there is no Go here to tell the version of.
            ("goversion", ""),
        ];
        registry.gauge("coredns_build_info", "Always 1; the labels tell what was built.", &labels).set(1.0);
        let panics = registry.counter("coredns_panics_total", "Panics that were caught while a query was answered.", &[]);
        Self { panics, _collector: ProcessCollector::register(registry) }
    }
}

/// The directives of one key of a server block that has `prometheus`.
pub struct Enabled<'a> {
    /// Labels of its listen addresses.
    pub servers: &'a [String],
    pub zone: &'a Name,
    /// Keywords of the directives that see queries: those that brought a link or an observer.
    pub keywords: &'a [&'static str],
}

/// Sets `coredns_plugin_enabled` to 1 for the directives of a plan that begins to serve, and drops its series for all others.
pub fn publish_enabled<'a>(registry: &Registry, keys: impl IntoIterator<Item = Enabled<'a>>) {
    let mut published = BTreeSet::new();
    for key in keys {
        let zone = key.zone.to_lower().to_name().to_string();
        for (server, keyword) in key.servers.iter().flat_map(|server| key.keywords.iter().map(move |keyword| (server, *keyword)))
        {
            let labels = [("server", server.as_str()), ("zone", zone.as_str()), ("view", ""), ("name", keyword)];
            registry.gauge(ENABLED, "1 for every directive that is enabled in a server block.", &labels).set(1.0);
            published.insert(labels.map(|(_, value)| value.to_owned()).to_vec());
        }
    }
    registry.retain(ENABLED, |values| published.contains(values));
}
