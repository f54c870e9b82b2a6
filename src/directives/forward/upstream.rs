//! One upstream: its address, its health, and each worker's sockets and connections to it. It outlives a reload that leaves it
//! as it was.

use super::asked::Asked;
use super::error::{Path, TryError};
use super::health::Health;
use super::line::{Race, Step, Try};
use super::metrics::UpstreamMetrics;
use super::tcp::{Choice, TcpPool};
use super::udp::UdpPool;
use crate::chain::{Carry, Transport};
use crate::message::{Name, Response};
use crate::metrics::Registry;
use smallvec::smallvec;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::{Duration, Instant};
use thread_local::ThreadLocal;

/// Into so many parts the read timeout is divided; after each but the last, what seems lost is sent again.
const SENDINGS: u32 = 3;
/// Connections that may break under one query before its try has failed.
const CONNECTIONS_TRIED: u32 = 4;
/// Sockets that may refuse to send it: what one of them has against it (its local address is gone, most likely), a new one often has not.
const SOCKETS_TRIED: u32 = 2;
/// A query behind others on a connection that says nothing does not wait longer than this for its turn.
const PATIENCE_IN_LINE: Duration = Duration::from_millis(100);

/// What makes one upstream unlike another of the same address.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Settings {
    /// `source_address`.
    pub source_address: Option<IpAddr>,
    /// `expire`.
    pub expire: Duration,
    /// `max_age`.
    pub max_age: Option<Duration>,
    /// `max_idle_conns`, shared out to the workers.
    pub connections_per_worker: Option<usize>,
    /// `read_timeout`.
    pub read_timeout: Duration,
    /// `health_check`.
    pub probe_interval: Duration,
    pub probe_name: Name,
    pub probe_recursion_desired: bool,
    /// Probe by TCP (`force_tcp`), for health and for loops.
    pub probe_tcp: bool,
}

/// An upstream server.
pub struct Upstream {
    pub address: SocketAddr,
    pub settings: Settings,
    pub health: Health,
    pub metrics: Arc<UpstreamMetrics>,
    pools: ThreadLocal<Pools>,
}

#[derive(Default)]
struct Pools {
    udp: UdpPool,
    tcp: TcpPool,
}

impl Upstream {
    pub fn new(address: SocketAddr, settings: Settings, registry: &Registry) -> Self {
        Self {
            metrics: Arc::new(UpstreamMetrics::new(registry, address.to_string())),
            health: Health::default(),
            pools: ThreadLocal::new(),
            address,
            settings,
        }
    }

    /// The upstream of the running plan if it has the same settings, else a new one.
    pub fn adopt_or_new(address: SocketAddr, settings: &Settings, registry: &Registry, carry: &Carry) -> Arc<Self> {
        carry.adopt_or(&format!("forward upstream {address} {settings:?}"), || Self::new(address, settings.clone(), registry))
    }

    /// Asks and waits for the answer for at most the read timeout. Within it, a datagram that seems lost is sent again from
    /// another port, and a query whose connection breaks or hangs, or whose socket does not send it, is asked again on another.
    pub async fn ask(&self, asked: &Arc<Asked>, transport: Transport) -> Result<Response, TryError> {
        let start = Instant::now();
        self.metrics.count_request();
        let path = Path { transport, local: None, remote: self.address };
        let mut race = Race { tries: smallvec![self.send(asked, transport, Choice::Any, false, start)?], path };
        let part = self.settings.read_timeout / SENDINGS;
        let until = start + part * SENDINGS;
        let mut resend_at = start + part;
        let mut patience = (transport == Transport::Tcp && race.tries.iter().any(|attempt| attempt.ahead > 0))
            .then(|| start + PATIENCE_IN_LINE.min(part));
        let mut broken = 0;
        let lines_tried = if transport == Transport::Udp { SOCKETS_TRIED } else { CONNECTIONS_TRIED };
        loop {
            match race.wait(patience.unwrap_or(until).min(resend_at).min(until)).await {
                Step::Answered(response) => {
                    self.metrics.count_response(response.rcode(), start.elapsed());
                    return Ok(response);
                }
                Step::Failed(error) if error.is_broken_line() && Instant::now() < until => {
                    broken += 1;
                    if broken >= lines_tried {
                        return Err(error);
                    }
                    self.metrics.retries.increment();
                    let choice = if broken + 1 == lines_tried { Choice::Own } else { Choice::Any };
                    race.tries.push(self.send(asked, transport, choice, true, Instant::now())?);
                }
                Step::Failed(error) => return Err(error),
                Step::Due => {
                    let now = Instant::now();
                    if now >= until {
                        race.retire_lines();
                        return Err(TryError::Timeout(race.newest_path()));
                    }
                    let in_line = patience.take_if(|patience| now >= *patience).is_some();
                    if now >= resend_at {
                        resend_at = (resend_at + part).max(now);
                        // A connection that brings other answers brings this one too, when the upstream has it.
                        if race.tries.iter().any(|attempt| attempt.line.is_heard_since(attempt.sent)) {
                            continue;
                        }
                        race.retire_lines();
                    } else if !in_line || race.tries.iter().any(|attempt| attempt.line.is_heard_since(attempt.sent)) {
                        continue;
                    }
                    self.metrics.retries.increment();
                    // A second try that cannot be sent leaves the first one waiting.
                    if let Ok(attempt) = self.send(asked, transport, Choice::Any, true, now) {
                        race.tries.push(attempt);
                    }
                }
            }
        }
    }

    /// This thread's sockets.
    #[cfg(test)]
    pub fn udp_pool(&self) -> &UdpPool {
        &self.pools.get_or_default().udp
    }

    fn send(&self, asked: &Arc<Asked>, transport: Transport, choice: Choice, fresh: bool, now: Instant) -> Result<Try, TryError> {
        let pools = self.pools.get_or_default();
        match transport {
            Transport::Udp => pools.udp.send(self.address, &self.settings, &self.metrics, asked, fresh, now),
            Transport::Tcp => pools.tcp.send(self.address, &self.settings, &self.metrics, asked, choice, now),
        }
    }
}
