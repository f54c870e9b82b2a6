//! Whether an upstream is to be asked. It is probed only after a query to it has failed, until a probe succeeds.

use super::upstream::{Remote, Settings, Upstream};
use crate::message::{Query, RecordType};
use socket2::{Domain, Protocol, Socket, Type};
use std::io;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::sync::{Arc, Weak};
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpSocket, UdpSocket};

/// For one probe, as in the reference.
const PROBE_TIMEOUT: Duration = Duration::from_secs(1);
/// `health_check 0s` shall not probe without a pause.
const SHORTEST_PAUSE: Duration = Duration::from_millis(10);

/// An upstream's health, shared by all workers.
#[derive(Debug, Default)]
pub struct Health {
    /// Failed probes in a row.
    fails: AtomicU32,
    is_probed: AtomicBool,
}

impl Health {
    /// True if more than `max_fails` probes failed in a row; never if `max_fails` is 0.
    pub fn is_down(&self, max_fails: u32) -> bool {
        max_fails != 0 && self.fails.load(Ordering::Relaxed) > max_fails
    }

    fn record_failure(&self) {
        let _ = self.fails.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |fails| fails.checked_add(1));
    }

    fn record_success(&self) {
        self.fails.store(0, Ordering::Relaxed);
    }

    /// True for the one caller that is to start the probing.
    fn start_probing(&self) -> bool {
        !self.is_probed.swap(true, Ordering::AcqRel)
    }
}

/// Ends the claim of [`Health::start_probing`], also when the runtime that probes goes.
struct Probing(Weak<Upstream>);

impl Drop for Probing {
    fn drop(&mut self) {
        if let Some(upstream) = self.0.upgrade() {
            upstream.health.is_probed.store(false, Ordering::Release);
        }
    }
}

/// Probes `upstream` in the background until it answers, unless that goes on already. The upstream may be dropped meanwhile.
pub fn start_probing(upstream: &Arc<Upstream>) {
    if !upstream.health.start_probing() {
        return;
    }
    let probing = Probing(Arc::downgrade(upstream));
    tokio::spawn(async move {
        while let Some(upstream) = probing.0.upgrade() {
            match probe(&upstream).await {
                Ok(()) => {
                    upstream.health.record_success();
                    return;
                }
                Err(error) => {
                    tracing::debug!(upstream = %upstream.address, %error, "health check failed");
                    upstream.metrics.count_healthcheck_failure();
                    upstream.health.record_failure();
                }
            }
            let pause = upstream.settings.probe_interval.max(SHORTEST_PAUSE);
            drop(upstream);
            tokio::time::sleep(pause).await;
        }
    });
}

/// Asks once. Any DNS message in response is health, whatever its code.
async fn probe(remote: &Remote) -> io::Result<()> {
    // One at a time for an upstream, and never refused: without it, nobody learns that the upstream is back.
    let _room = remote.sockets.take_beyond();
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

async fn probe_udp(remote: SocketAddr, settings: &Settings, id: u16, query: &[u8]) -> io::Result<()> {
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

async fn probe_tcp(remote: SocketAddr, settings: &Settings, id: u16, query: &[u8]) -> io::Result<()> {
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
    use super::*;

    #[test]
    fn an_upstream_is_down_after_more_failures_than_max_fails_and_up_after_one_success() {
        let health = Health::default();
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
    fn only_one_caller_starts_the_probing() {
        let health = Health::default();
        assert!(health.start_probing());
        assert!(!health.start_probing());
    }

    #[test]
    fn any_response_with_the_probes_id_is_health() {
        let refused = [0x12, 0x34, 0x81, 0x05, 0, 0, 0, 0, 0, 0, 0, 0];
        assert!(is_response(&refused, 0x1234));
        assert!(!is_response(&refused, 0x1235));
        assert!(!is_response(&refused[..11], 0x1234));
        let query = [0x12, 0x34, 0x01, 0x00, 0, 0, 0, 0, 0, 0, 0, 0];
        assert!(!is_response(&query, 0x1234));
    }
}
