//! The metrics of `reload`.

use super::Fingerprint;
use crate::metrics::{Counter, Gauge, Registry};

const VERSION: &str = "coredns_reload_version_info";

/// `coredns_reload_failed_total` and `coredns_reload_version_info`, and `nodelocaldns_configuration_refused` of ours:
/// the counter does not say whether what was refused has been mended since.
pub(crate) struct ReloadMetrics {
    registry: Registry,
    failed: Counter,
    refused: Gauge,
}

impl ReloadMetrics {
    /// In `registry`, with `served` as the version.
    pub(crate) fn new(registry: &Registry, served: Fingerprint) -> Self {
        let failed = registry.counter("coredns_reload_failed_total", "Changed Corefiles that were refused.", &[]);
        let help = "1 while what is configured is refused, or cannot be read, and what was before serves.";
        let refused = registry.gauge("nodelocaldns_configuration_refused", help, &[]);
        let series = Self { registry: registry.clone(), failed, refused };
        series.set_version(served);
        series
    }
    /// A changed Corefile was refused.
    pub(crate) fn count_failure(&self) {
        self.failed.increment();
    }
    /// Whether what is configured is something else than what serves, and refused.
    pub(crate) fn set_refused(&self, is_refused: bool) {
        self.refused.set(f64::from(u8::from(is_refused)));
    }
    /// The last version seen, refused or not, as in the reference. The one before goes.
    pub(crate) fn set_version(&self, version: Fingerprint) {
        let value = version.to_string();
        self.registry.retain(VERSION, |labels| labels.get(1) == Some(&value.as_str()));
        let help = "Always 1; its labels tell which hash of the Corefile and its imports was last loaded.";
        self.registry.gauge(VERSION, help, &[("hash", Fingerprint::HASH), ("value", &value)]).set(1.0);
    }
}

#[cfg(test)]
mod tests {
    use super::ReloadMetrics;
    use crate::corefile::Sources;
    use crate::directives::reload::Fingerprint;
    use crate::metrics::Registry;

    #[test]
    fn only_the_last_version_is_shown() {
        let registry = Registry::new(2);
        let of = |text: &str| Fingerprint::of(&Sources { files: vec![("Corefile".into(), text.into())] }, &[]);
        let series = ReloadMetrics::new(&registry, of("first"));
        let shown = |version: Fingerprint| {
            registry
                .encode()
                .contains(&format!("coredns_reload_version_info{{hash=\"sha512\",value=\"{version}\"}} 1\n"))
        };
        assert!(shown(of("first")));
        series.set_version(of("second"));
        assert!(shown(of("second")) && !shown(of("first")));
        series.count_failure();
        series.set_refused(true);
        let text = registry.encode();
        assert!(text.contains("coredns_reload_failed_total 1\n"), "{text}");
        assert!(text.contains("nodelocaldns_configuration_refused 1\n"), "{text}");
    }
}
