//! The metrics of `reload`.

use super::Fingerprint;
use crate::metrics::{Counter, Gauge, Registry};

const VERSION: &str = "coredns_reload_version_info";

/// `coredns_reload_failed_total` and `coredns_reload_version_info`, and `nodelocaldns_configuration_refused` of ours: the
/// counter does not say whether what was refused has been mended since.
pub(crate) struct ReloadMetrics {
    registry: Registry,
    failed: Counter,
    refused: Gauge,
    unreadable: Gauge,
}

/// Why what is configured is not what serves.
#[derive(Clone, Copy)]
pub(crate) enum RefusalReason {
    /// It is bad, or its sockets are not to be had.
    Bad,
    /// It cannot be read.
    Unreadable,
}

impl ReloadMetrics {
    /// In `registry`, with `served` as the version.
    pub(crate) fn new(registry: &Registry, served: Fingerprint) -> Self {
        let failed = registry.counter("coredns_reload_failed_total", "Changed Corefiles that were refused.", &[]);
        let gauge = |reason| {
            let help = "1 while what is configured is refused, or cannot be read, and what was before serves.";
            registry.gauge("nodelocaldns_configuration_refused", help, &[("reason", reason)])
        };
        let (refused, unreadable) = (gauge("bad"), gauge("unreadable"));
        let series = Self { registry: registry.clone(), failed, refused, unreadable };
        series.set_version(served);
        series
    }
    /// A changed Corefile was refused.
    pub(crate) fn count_failure(&self, reason: RefusalReason) {
        self.failed.increment();
        self.show(reason, true);
    }
    /// Whether there is this reason now.
    pub(crate) fn show(&self, reason: RefusalReason, is_so: bool) {
        let gauge = match reason {
            RefusalReason::Bad => &self.refused,
            RefusalReason::Unreadable => &self.unreadable,
        };
        gauge.set(f64::from(u8::from(is_so)));
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
    use super::{RefusalReason, ReloadMetrics};
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
        series.count_failure(RefusalReason::Bad);
        assert!(registry.encode().contains("coredns_reload_failed_total 1\n"));
    }

    #[test]
    fn a_refusal_is_shown_for_as_long_as_it_lasts() {
        let registry = Registry::new(2);
        let text = &Sources { files: vec![("Corefile".into(), "text".into())] };
        let series = ReloadMetrics::new(&registry, Fingerprint::of(text, &[]));
        let shows = |reason: &str, value: u8| {
            registry.encode().contains(&format!("nodelocaldns_configuration_refused{{reason=\"{reason}\"}} {value}\n"))
        };
        assert!(shows("bad", 0) && shows("unreadable", 0));
        series.count_failure(RefusalReason::Bad);
        assert!(shows("bad", 1) && shows("unreadable", 0));
        series.count_failure(RefusalReason::Unreadable);
        series.show(RefusalReason::Bad, false);
        assert!(shows("bad", 0) && shows("unreadable", 1));
    }
}
