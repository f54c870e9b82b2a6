//! Metrics of the process as a whole and of the plan it serves.

use crate::chain::Enabled;
use crate::metrics::Registry;
use crate::metrics::process::ProcessCollector;
use std::collections::BTreeSet;

const ENABLED: &str = "coredns_plugin_enabled";

/// Metrics that every process has: `coredns_build_info` and `process_*`. To be held as long as it runs.
pub(crate) struct ProcessMetrics {
    _collector: ProcessCollector,
}

impl ProcessMetrics {
    /// Puts them into `registry`.
    pub(crate) fn register(registry: &Registry) -> Self {
        let labels = [
            ("version", env!("CARGO_PKG_VERSION")),
            ("revision", option_env!("NODELOCALDNS_REVISION").unwrap_or_default()),
            // Dashboards join on this label; there is no Go here to tell the version of.
            ("goversion", ""),
        ];
        registry.gauge("coredns_build_info", "Always 1; the labels tell what was built.", &labels).set(1.0);
        Self { _collector: ProcessCollector::register(registry) }
    }
}

/// Sets `coredns_plugin_enabled` to 1 for the directives of a plan that begins to serve, and drops its series for all
/// others.
pub(crate) fn publish_enabled(registry: &Registry, enabled: &[Enabled]) {
    let mut published = BTreeSet::new();
    for Enabled { server, zone, view, keyword } in enabled {
        let labels = [("server", server.as_str()), ("zone", zone.as_str()), ("view", view.as_str()), ("name", keyword)];
        registry.gauge(ENABLED, "1 for every directive that is enabled in a server block.", &labels).set(1.0);
        published.insert(labels.map(|(_, value)| value));
    }
    registry.retain(ENABLED, |values| published.contains(values));
}
