//! Serves the watchdog's metrics over HTTP.

use crate::chain::{Endpoint, HttpAnswer};
use crate::metrics::CONTENT_TYPE;
use crate::server::{Http, Retries};
use crate::watchdog::metrics::{HTTP_LISTEN, WatchdogMetrics};
use std::net::SocketAddr;
use std::time::Instant;
use tokio::runtime::Handle;

/// The watchdog's metrics over HTTP.
pub(super) struct MetricsServer {
    http: Http,
    address: Option<SocketAddr>,
    retries: Retries,
}

impl MetricsServer {
    /// Nothing is listened on yet.
    pub(super) fn new(address: Option<SocketAddr>, metrics: &WatchdogMetrics) -> Self {
        let registry = metrics.registry().clone();
        let mut http = Http::new(Handle::current(), &registry);
        let answer =
            move || HttpAnswer { status: 200, content_type: CONTENT_TYPE, body: registry.encode().into_bytes() };
        let endpoint = |address| Endpoint::shared(address, "/metrics", answer);
        http.serve(&address.map(endpoint).into_iter().collect::<Vec<_>>());
        Self { http, address, retries: Retries::default() }
    }

    /// When to call [`MetricsServer::listen`] again.
    pub(super) fn listen_due(&self) -> Option<Instant> {
        self.retries.due()
    }

    /// Serves them if it can, else later: DNS goes before metrics.
    pub(super) fn listen(&mut self, metrics: &WatchdogMetrics) {
        let is_retry = self.retries.due().is_some();
        let errors = self.http.listen();
        errors.iter().for_each(|_| metrics.count_setup_error(HTTP_LISTEN));
        for error in self.retries.take(&errors, Instant::now()) {
            tracing::error!(
                "watchdog: its metrics are not served: {error} (told once; tried again at least every minute)"
            );
        }
        if is_retry && errors.is_empty() {
            tracing::info!("watchdog: its metrics are served after all");
        }
    }

    /// Leaves the address to the server if its Corefile names the same: half of the scrapes would get the one, half the
    /// other.
    pub(super) fn yield_address_to(&mut self, http: &[SocketAddr]) {
        if let Some(address) = self.address.take_if(|own| http.iter().any(|other| is_shared(*own, *other))) {
            tracing::warn!(
                "watchdog: the Corefile serves HTTP on {address}, so the watchdog's own metrics are not served; choose another \
                 -metrics-listen-address"
            );
            self.http.serve(&[]);
            self.retries = Retries::default();
        }
    }
}

/// Whether clients of the one listener may reach the other instead: both have the same address, or both all, of
/// whichever family.
fn is_shared(one: SocketAddr, other: SocketAddr) -> bool {
    let (ip, other_ip) = (one.ip().to_canonical(), other.ip().to_canonical());
    one.port() == other.port() && (ip == other_ip || ip.is_unspecified() && other_ip.is_unspecified())
}

#[cfg(test)]
mod tests {
    use super::is_shared;

    #[test]
    fn all_addresses_of_one_family_are_shared_with_all_of_the_other() {
        let is_shared = |one: &str, other: &str| is_shared(one.parse().unwrap(), other.parse().unwrap());
        assert!(is_shared("0.0.0.0:9353", "[::]:9353"));
        assert!(is_shared("127.0.0.1:9353", "127.0.0.1:9353"));
        assert!(is_shared("[::ffff:127.0.0.1]:9353", "127.0.0.1:9353"));
        assert!(!is_shared("0.0.0.0:9353", "[::]:9253"));
        assert!(!is_shared("0.0.0.0:9353", "127.0.0.1:9353"), "the kernel prefers the one that names the address");
    }
}
