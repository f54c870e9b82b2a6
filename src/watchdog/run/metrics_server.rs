//! Serves the watchdog's metrics over HTTP, and the server's status.

use crate::chain::{AskMetrics, AskStatus, Endpoint, NoStatus};
use crate::server::{Http, Retries};
use crate::watchdog::channel::Channel;
use crate::watchdog::metrics::{HTTP_LISTEN, WatchdogMetrics};
use crate::watchdog::metrics_exchange::MetricsExchange;
use crate::watchdog::status::{PAGE, WatchdogStatus};
use arc_swap::ArcSwapOption;
use std::io;
use std::net::SocketAddr;
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::time::Instant;
use tokio::runtime::Handle;

/// How the server that there is is asked for its metrics. Cloning shares it.
#[derive(Clone, Default)]
pub(super) struct ServerMetrics(Arc<ArcSwapOption<MetricsExchange>>);

impl ServerMetrics {
    /// From now on the server that gets this end is asked, and told what is in `metrics`.
    pub(super) fn connect(&self, metrics: &WatchdogMetrics) -> io::Result<OwnedFd> {
        let (here, there) = Channel::pair()?;
        let exchange = MetricsExchange::start(here, metrics.registry().clone(), None)?;
        self.0.store(Some(Arc::new(exchange)));
        Ok(there.into_fd())
    }

    pub(super) fn as_ask(&self) -> AskMetrics {
        let server = self.0.clone();
        Arc::new(move || {
            let exchange = server.load_full();
            Box::pin(async move { exchange?.ask().await })
        })
    }

    /// With what the watchdog tells of itself.
    pub(super) fn as_ask_status(&self, own: WatchdogStatus) -> AskStatus {
        let server = self.0.clone();
        Arc::new(move |shows_names| {
            let (exchange, own) = (server.load_full(), own.clone());
            Box::pin(async move {
                let told = match exchange {
                    Some(exchange) => exchange.ask_status(shows_names).await,
                    None => Err(NoStatus::NotRunning),
                };
                own.complete(told)
            })
        })
    }
}

/// Whether `/status.json` is served and the page that shows it, and what of it to whom.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum StatusPage {
    Off,
    /// Names and clients are shown to who asks from this machine.
    NamesHere,
    /// They are shown to everybody.
    NamesEverywhere,
}

/// The watchdog's metrics over HTTP.
pub(super) struct MetricsServer {
    http: Http,
    address: Option<SocketAddr>,
    retries: Retries,
}

impl MetricsServer {
    /// Nothing is listened on yet.
    pub(super) fn new(
        address: Option<SocketAddr>,
        status: StatusPage,
        metrics: &WatchdogMetrics,
        ask_metrics: AskMetrics,
        ask_status: AskStatus,
    ) -> Self {
        let registry = metrics.registry();
        let mut http = Http::new(Handle::current(), registry);
        let endpoints = address.map(|address| {
            let metrics = Endpoint::metrics(address, registry.clone(), Some(ask_metrics));
            let shows_all = status == StatusPage::NamesEverywhere;
            let pages = [Endpoint::status(address, ask_status, shows_all), Endpoint::document(address, "/", &PAGE)];
            std::iter::once(metrics).chain(pages.into_iter().filter(|_| status != StatusPage::Off)).collect::<Vec<_>>()
        });
        http.serve(&endpoints.unwrap_or_default());
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
