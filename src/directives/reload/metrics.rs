//! The metrics of `reload`.

use super::Fingerprint;
use crate::metrics::{Counter, Registry};

const VERSION: &str = "coredns_reload_version_info";

/// `coredns_reload_failed_total` and `coredns_reload_version_info`.
pub(crate) struct ReloadMetrics {
    registry: Registry,
    failed: Counter,
}

impl ReloadMetrics {
    /// In `registry`, with `served` as the version.
    pub(crate) fn new(registry: &Registry, served: Fingerprint) -> Self {
        let failed = registry.counter("coredns_reload_failed_total", "Changed Corefiles that were refused.", &[]);
        let series = Self { registry: registry.clone(), failed };
        series.set_version(served);
        series
    }
    /// A changed Corefile was refused.
    pub(crate) fn count_failure(&self) {
        self.failed.increment();
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
        assert!(registry.encode().contains("coredns_reload_failed_total 1\n"));
    }
}
