//! Whether an upstream is up. It is probed only after a query to it has failed, until a probe succeeds.

use super::remote::{Remote, UpstreamProtocol};
use crate::backoff::Backoff;
use crate::message::{Query, RecordType};
use crate::net::dns_client::{DnsClient, FLOODED};
use std::io;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::sync::{Arc, Weak};
use std::time::Duration;

/// The time limit of one probe, as in CoreDNS.
const PROBE_TIMEOUT: Duration = Duration::from_secs(1);
/// That of one over TLS: CoreDNS gives the session 2 s more.
const TLS_PROBE_TIMEOUT: Duration = Duration::from_secs(3);
/// `health_check 0s` must not probe in a tight loop.
const MIN_INTERVAL: Duration = Duration::from_millis(10);
/// The pause after a probe that was flooded doubles up to this: each costs a connection and all that is read of it.
const LONGEST_FLOODED_PAUSE: Duration = Duration::from_secs(10);

/// The health of one upstream, shared by all workers.
pub(super) struct UpstreamHealth {
    remote: Arc<Remote>,
    /// Failed probes in a row.
    failures: AtomicU32,
    is_probing: AtomicBool,
}

impl UpstreamHealth {
    pub(super) fn new(remote: Arc<Remote>) -> Self {
        Self { remote, failures: AtomicU32::new(0), is_probing: AtomicBool::new(false) }
    }

    /// True if more than `max_fails` probes failed in a row. Never true if `max_fails` is 0.
    pub(super) fn is_down(&self, max_fails: u32) -> bool {
        max_fails != 0 && self.failures.load(Ordering::Relaxed) > max_fails
    }

    /// Failed probes in a row.
    pub(super) fn failures(&self) -> u32 {
        self.failures.load(Ordering::Relaxed)
    }

    /// Probes the upstream in the background until it answers, unless that is done already. Probing ends when the
    /// upstream is dropped.
    pub(super) fn start_probing(self: &Arc<Self>) {
        if let Some(guard) = self.claim_probing() {
            tokio::spawn(probe_until_success(guard));
        }
    }

    /// `None` if another caller probes.
    fn claim_probing(self: &Arc<Self>) -> Option<ProbingGuard> {
        (!self.is_probing.swap(true, Ordering::AcqRel)).then(|| ProbingGuard(Arc::downgrade(self)))
    }

    fn record_failure(&self) {
        let _ = self.failures.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |failures| failures.checked_add(1));
    }

    fn record_success(&self) {
        self.failures.store(0, Ordering::Relaxed);
    }
}

/// The right to probe. It ends when this is dropped, also when the runtime that probes ends.
struct ProbingGuard(Weak<UpstreamHealth>);

impl Drop for ProbingGuard {
    fn drop(&mut self) {
        if let Some(health) = self.0.upgrade() {
            health.is_probing.store(false, Ordering::Release);
        }
    }
}

/// The pauses between probes.
struct ProbePauses {
    interval: Duration,
    flooded: Backoff,
}

impl ProbePauses {
    fn new(interval: Duration) -> Self {
        let interval = interval.max(MIN_INTERVAL);
        Self { interval, flooded: Backoff::new(interval, LONGEST_FLOODED_PAUSE.max(interval)) }
    }

    /// The pause after a probe that has failed with this.
    fn after(&mut self, error: &io::Error) -> Duration {
        if error.kind() == FLOODED { self.flooded.next_pause() } else { self.interval }
    }
}

async fn probe_until_success(guard: ProbingGuard) {
    let Some(mut pauses) = guard.0.upgrade().map(|health| ProbePauses::new(health.remote.settings.probe_interval))
    else {
        return;
    };
    while let Some(health) = guard.0.upgrade() {
        let pause = match probe(&health.remote).await {
            Ok(()) => {
                health.record_success();
                return;
            }
            Err(error) => {
                tracing::debug!(upstream = %health.remote.address, %error, "health check failed");
                health.remote.metrics.count_healthcheck_failure();
                health.record_failure();
                pauses.after(&error)
            }
        };
        drop(health);
        tokio::time::sleep(pause).await;
    }
}

/// Sends one probe. Any response means that the upstream is up, whatever its code.
pub(super) async fn probe(remote: &Remote) -> io::Result<()> {
    // There is one probe at a time for an upstream, and it must not fail for lack of sockets: nothing else finds out
    // that the upstream is back.
    let _permit = remote.sockets.acquire_over_limit();
    let settings = &remote.settings;
    let query =
        Query::compose(rand::random(), settings.probe_name.as_wire(), RecordType::NS, settings.probe_recursion_desired);
    let client = DnsClient { source: settings.source_address, ..DnsClient::new(remote.address) };
    let limit = if remote.protocol.is_encrypted() { TLS_PROBE_TIMEOUT } else { PROBE_TIMEOUT };
    let probing = async {
        match &remote.protocol {
            // Boxed: it is large and rare.
            UpstreamProtocol::Https(tls, resource) => Box::pin(client.query_https(&query, tls, resource)).await,
            UpstreamProtocol::Tls(tls) => client.query_tls(&query, tls).await,
            UpstreamProtocol::Dns if settings.probe_tcp => client.query_tcp(&query).await,
            UpstreamProtocol::Dns => client.query_udp(&query, None).await,
        }
    };
    let response = tokio::time::timeout(limit, probing).await;
    response.map_err(|_| io::Error::from(io::ErrorKind::TimedOut))?.map(drop)
}

#[cfg(test)]
mod tests {
    use super::super::tests::{remote, upstream_settings};
    use super::*;

    fn health() -> Arc<UpstreamHealth> {
        Arc::new(UpstreamHealth::new(remote("127.0.0.1:53".parse().unwrap(), upstream_settings())))
    }

    #[test]
    fn an_upstream_is_down_after_more_failures_than_max_fails_and_up_after_one_success() {
        let health = health();
        health.record_failure();
        health.record_failure();
        assert!(!health.is_down(2));
        health.record_failure();
        assert!(health.is_down(2));
        assert!(!health.is_down(3));
        assert!(!health.is_down(0), "max_fails 0 never marks an upstream down");
        health.record_success();
        assert!(!health.is_down(1));
    }

    #[test]
    fn an_upstream_that_floods_is_probed_ever_more_seldom_and_one_that_only_fails_is_not() {
        let mut pauses = ProbePauses::new(Duration::from_millis(500));
        let mut after = |kind: io::ErrorKind| pauses.after(&kind.into()).as_millis();
        assert_eq!([(); 3].map(|()| after(io::ErrorKind::ConnectionRefused)), [500; 3]);
        assert_eq!([(); 6].map(|()| after(FLOODED)), [500, 1000, 2000, 4000, 8000, 10_000]);
        assert_eq!([io::ErrorKind::TimedOut, FLOODED].map(after), [500, 10_000]);
        assert_eq!(ProbePauses::new(Duration::from_secs(60)).after(&FLOODED.into()), Duration::from_secs(60));
    }

    #[test]
    fn one_caller_at_a_time_probes() {
        let health = health();
        let guard = health.claim_probing().unwrap();
        assert!(health.claim_probing().is_none());
        drop(guard);
        assert!(health.claim_probing().is_some());
    }
}
