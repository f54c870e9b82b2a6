//! What went wrong while the node was set up, counted as the reference counts it.

use crate::metrics::{Counter, Registry};

const NAME: &str = "coredns_nodecache_setup_errors_total";
const HELP: &str = "Errors while the node's interface, rules and Corefile were set up.";
/// Error types of the reference that are counted elsewhere; dashboards want to see their zero.
const OTHERS: [&str; 4] = ["interface_add", "interface_check", "iptables", "iptables_lock"];

/// `coredns_nodecache_setup_errors_total`
pub struct SetupErrors {
    configmap: Counter,
}

impl SetupErrors {
    /// In `registry`, every error type at 0.
    pub fn register(registry: &Registry) -> Self {
        let counter = |error_type| registry.counter(NAME, HELP, &[("errortype", error_type)]);
        for error_type in OTHERS {
            counter(error_type);
        }
        Self { configmap: counter("configmap") }
    }
    /// A template or ConfigMap was refused, or the Corefile made of them, or it could not be written.
    pub fn count_configmap(&self) {
        self.configmap.increment();
    }
}

#[cfg(test)]
mod tests {
    use super::SetupErrors;
    use crate::metrics::Registry;

    #[test]
    fn every_error_type_of_the_reference_is_there_from_the_start() {
        let registry = Registry::new(1);
        let errors = SetupErrors::register(&registry);
        errors.count_configmap();
        let text = registry.encode();
        for error_type in ["configmap", "interface_add", "interface_check", "iptables", "iptables_lock"] {
            let count = u8::from(error_type == "configmap");
            let line = format!("coredns_nodecache_setup_errors_total{{errortype=\"{error_type}\"}} {count}\n");
            assert!(text.contains(&line), "{line} is not in:\n{text}");
        }
    }
}
