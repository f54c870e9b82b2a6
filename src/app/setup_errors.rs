//! Has the watchdog count what goes wrong in the server while it sets things up
//! (`coredns_nodecache_setup_errors_total`).

use crate::watchdog::ControlClient;
use std::sync::Arc;

/// Tells the watchdog.
#[derive(Clone)]
pub(super) struct SetupErrors(Arc<ControlClient>);

impl SetupErrors {
    pub(super) fn new(watchdog: Arc<ControlClient>) -> Self {
        Self(watchdog)
    }
    /// A template or ConfigMap was refused, or the Corefile made of them, or it could not be written.
    pub(super) fn count_configmap(&self) {
        self.0.report_setup_error("configmap");
    }
}
