//! Whether an upstream is up. It is probed only after a query to it has failed, until a probe succeeds.

use super::remote::{Remote, UpstreamSettings};
use crate::message::{Query, RecordType};
use socket2::{Domain, Protocol, Socket, Type};
use std::io;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::sync::{Arc, Weak};
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpSocket, UdpSocket};

/// The time limit of one probe, as in CoreDNS.
const PROBE_TIMEOUT: Duration = Duration::from_secs(1);
/// `health_check 0s` must not probe in a tight loop.
const MIN_INTERVAL: Duration = Duration::from_millis(10);

/// The health of one upstream, shared by all workers.
pub struct Health {
    remote: Arc<Remote>,
    /// Failed probes in a row.
    failures: AtomicU32,
    is_probing: AtomicBool,
}

impl Health {
    pub fn new(remote: Arc<Remote>) -> Self {
        Self { remote, failures: AtomicU32::new(0), is_probing: AtomicBool::new(false) }
    }

    /// True if more than `max_fails` probes failed in a row. Never true if `max_fails` is 0.
    pub fn is_down(&self, max_fails: u32) -> bool {
        max_fails != 0 && self.failures.load(Ordering::Relaxed) > max_fails
    }

    /// Probes the upstream in the background until it answers, unless that is done already. Probing ends when the upstream is dropped.
    pub fn start_probing(self: &Arc<Self>) {
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
struct ProbingGuard(Weak<Health>);

impl Drop for ProbingGuard {
    fn drop(&mut self) {
        if let Some(health) = self.0.upgrade() {
            health.is_probing.store(false, Ordering::Release);
        }
    }
}

async fn probe_until_success(guard: ProbingGuard) {
    while let Some(health) = guard.0.upgrade() {
        match probe(&health.remote).await {
            Ok(()) => {
                health.record_success();
                return;
            }
            Err(error) => {
                tracing::debug!(upstream = %health.remote.address, %error, "health check failed");
                health.remote.metrics.count_healthcheck_failure();
                health.record_failure();
            }
        }
        let pause = health.remote.settings.probe_interval.max(MIN_INTERVAL);
        drop(health);
        tokio::time::sleep(pause).await;
    }
}

/// Sends one probe. Any response means that the upstream is up, whatever its code.
async fn probe(remote: &Remote) -> io::Result<()> {
    // There is one probe at a time for an upstream, and it must not fail for lack of sockets: nothing else finds out that the upstream is back.
    let _permit = remote.sockets.acquire_over_limit();
    let (remote, settings) = (remote.address, &remote.settings);
    let id = rand::random::<u16>();
    let query = Query::compose(id, settings.probe_name.as_wire(), RecordType::NS, settings.probe_recursion_desired);
    let asking = async {
        if settings.probe_tcp {
            probe_tcp(remote, settings, id, &query).await
        } else {
            probe_udp(remote, settings, id, &query).await
        }
    };
    tokio::time::timeout(PROBE_TIMEOUT, asking).await.map_err(|_| io::Error::from(io::ErrorKind::TimedOut))?
}

async fn probe_udp(remote: SocketAddr, settings: &UpstreamSettings, id: u16, query: &[u8]) -> io::Result<()> {
    let socket = Socket::new(Domain::for_address(remote), Type::DGRAM.nonblocking(), Some(Protocol::UDP))?;
    if let Some(source) = settings.source_address {
        socket.bind(&SocketAddr::new(source, 0).into())?;
    }
    socket.connect(&remote.into())?;
    let socket = UdpSocket::from_std(socket.into())?;
    socket.send(query).await?;
    let mut answer = [0; 4096];
    loop {
        let length = socket.recv(&mut answer).await?;
        if is_response(answer.get(..length).unwrap_or_default(), id) {
            return Ok(());
        }
    }
}

async fn probe_tcp(remote: SocketAddr, settings: &UpstreamSettings, id: u16, query: &[u8]) -> io::Result<()> {
    let socket = if remote.is_ipv4() { TcpSocket::new_v4()? } else { TcpSocket::new_v6()? };
    if let Some(source) = settings.source_address {
        socket.bind(SocketAddr::new(source, 0))?;
    }
    let mut stream = socket.connect(remote).await?;
    let mut message = u16::try_from(query.len()).unwrap_or(u16::MAX).to_be_bytes().to_vec();
    message.extend_from_slice(query);
    stream.write_all(&message).await?;
    let length = stream.read_u16().await?;
    let mut answer = vec![0; usize::from(length)];
    stream.read_exact(&mut answer).await?;
    if is_response(&answer, id) { Ok(()) } else { Err(io::ErrorKind::InvalidData.into()) }
}

fn is_response(message: &[u8], id: u16) -> bool {
    matches!(message.split_first_chunk(), Some((&[high, low, flags], rest))
        if u16::from_be_bytes([high, low]) == id && flags & 0x80 != 0 && rest.len() >= 9)
}

#[cfg(test)]
mod tests {
    use super::super::metrics::UpstreamMetrics;
    use super::super::socket_budget::SocketBudget;
    use super::super::spoof_guard::SpoofGuard;
    use super::*;
    use crate::message::Name;
    use crate::metrics::Registry;

    fn health() -> Arc<Health> {
        let settings = UpstreamSettings {
            source_address: None,
            expire: Duration::ZERO,
            max_age: None,
            connections_per_worker: None,
            read_timeout: Duration::ZERO,
            use_caps_for_id: false,
            probe_interval: Duration::ZERO,
            probe_name: Name::root(),
            probe_recursion_desired: true,
            probe_tcp: false,
        };
        let metrics = UpstreamMetrics::new(&Registry::new(1), String::new());
        let (sockets, spoof_guard) = (Arc::new(SocketBudget::new(1)), SpoofGuard::default());
        let address = "127.0.0.1:53".parse().unwrap();
        Arc::new(Health::new(Arc::new(Remote { address, settings, metrics, sockets, spoof_guard })))
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
    fn one_caller_at_a_time_probes() {
        let health = health();
        let guard = health.claim_probing().unwrap();
        assert!(health.claim_probing().is_none());
        drop(guard);
        assert!(health.claim_probing().is_some());
    }

    #[test]
    fn any_response_with_the_probes_id_means_up() {
        let refused = [0x12, 0x34, 0x81, 0x05, 0, 0, 0, 0, 0, 0, 0, 0];
        assert!(is_response(&refused, 0x1234));
        assert!(!is_response(&refused, 0x1235));
        assert!(!is_response(&refused[..11], 0x1234));
        let query = [0x12, 0x34, 0x01, 0x00, 0, 0, 0, 0, 0, 0, 0, 0];
        assert!(!is_response(&query, 0x1234));
    }
}
