//! One upstream: its address, its health, and each worker's sockets and connections to it. It outlives a reload that leaves it
//! as it was.

use super::asked::Asked;
use super::error::{Path, TryError};
use super::health::Health;
use super::line::{Race, Step, Try};
use super::metrics::UpstreamMetrics;
use super::sockets::SocketBudget;
use super::suspects::Suspects;
use super::tcp::{Choice, TcpPool};
use super::udp::UdpPool;
use crate::chain::{Carry, Transport};
use crate::message::{Name, Response};
use crate::metrics::Registry;
use smallvec::smallvec;
use std::net::{IpAddr, SocketAddr};
use std::ops::Deref;
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
    /// `use_caps_for_id`.
    pub use_caps_for_id: bool,
    /// `health_check`.
    pub probe_interval: Duration,
    pub probe_name: Name,
    pub probe_recursion_desired: bool,
    /// Probe by TCP (`force_tcp`), for health and for loops.
    pub probe_tcp: bool,
}

/// An upstream server as each of its sockets and connections knows it.
pub struct Remote {
    pub address: SocketAddr,
    pub settings: Settings,
    pub metrics: UpstreamMetrics,
    /// Those of all upstreams.
    pub sockets: Arc<SocketBudget>,
    pub suspects: Suspects,
}

/// An upstream server.
pub struct Upstream {
    remote: Arc<Remote>,
    pub health: Health,
    pools: ThreadLocal<Pools>,
}

impl Deref for Upstream {
    type Target = Remote;

    fn deref(&self) -> &Remote {
        &self.remote
    }
}

#[derive(Default)]
struct Pools {
    udp: UdpPool,
    tcp: TcpPool,
}

impl Upstream {
    pub fn new(address: SocketAddr, settings: Settings, registry: &Registry, sockets: Arc<SocketBudget>) -> Self {
        let metrics = UpstreamMetrics::new(registry, address.to_string());
        let remote = Arc::new(Remote { address, settings, metrics, sockets, suspects: Suspects::default() });
        Self { remote, health: Health::default(), pools: ThreadLocal::new() }
    }

    /// The upstream of the running plan if it has the same settings, else a new one.
    pub fn adopt_or_new(
        address: SocketAddr,
        settings: &Settings,
        registry: &Registry,
        carry: &Carry,
        sockets: &Arc<SocketBudget>,
    ) -> Arc<Self> {
        let new = || Self::new(address, settings.clone(), registry, sockets.clone());
        carry.adopt_or(&format!("forward upstream {address} {settings:?}"), new)
    }

    /// Asks and waits for the answer for at most the read timeout. Within it, a datagram that seems lost is sent again from
    /// another port, and a query whose connection breaks or hangs, or whose socket does not send it, is asked again on another.
    ///
    /// A datagram that anybody may have sent ends no query: over TCP it is asked again, and given the read timeout again, when one was malformed or
    /// had no question, or when somebody seems to guess the answers. Only an error code without a question to a query with EDNS is handed on:
    /// whoever asks without EDNS next believes nothing of it.
    pub async fn ask(&self, asked: &Arc<Asked>, transport: Transport) -> Result<Response, TryError> {
        let start = Instant::now();
        if transport == Transport::Udp && !self.suspects.holds(asked.question(), start) {
            match self.ask_over(asked, Transport::Udp, start).await {
                Err(TryError::NoQuestion(path)) if asked.has_edns() => return Err(TryError::NoQuestion(path)),
                Err(error) if error.is_unproven() => {
                    tracing::debug!(upstream = %self.address, %error, "asked over TCP");
                }
                outcome => return outcome,
            }
        }
        self.ask_over(asked, Transport::Tcp, Instant::now()).await
    }

    async fn ask_over(&self, asked: &Arc<Asked>, transport: Transport, start: Instant) -> Result<Response, TryError> {
        self.metrics.count_request();
        let path = Path { transport, local: None, remote: self.address };
        let mut race = Race { tries: smallvec![self.send(asked, transport, Choice::Any, None, start)?], path };
        let part = self.settings.read_timeout / SENDINGS;
        let until = start + part * SENDINGS;
        let mut resend_at = start + part;
        let mut patience = (transport == Transport::Tcp && race.tries.iter().any(|attempt| attempt.ahead > 0))
            .then(|| start + PATIENCE_IN_LINE.min(part));
        let mut broken = 0;
        let lines_tried = if transport == Transport::Udp { SOCKETS_TRIED } else { CONNECTIONS_TRIED };
        loop {
            let step = match race.wait(patience.unwrap_or(until).min(resend_at).min(until)).await {
                // As good as a lost datagram, and sent again when one is: at once, it would ask for a socket that there is no room for.
                Step::Failed(TryError::GivenUp(_)) => {
                    tokio::time::sleep_until(resend_at.min(until).into()).await;
                    Step::Due
                }
                step => step,
            };
            match step {
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
                    race.tries.push(self.send(asked, transport, choice, Some(&[]), Instant::now())?);
                }
                Step::Failed(error) => return Err(error),
                Step::Due => {
                    let now = Instant::now();
                    if now >= until {
                        race.retire_silent_lines();
                        return Err(TryError::Timeout(race.newest_path()));
                    }
                    let in_line = patience.take_if(|patience| now >= *patience).is_some();
                    if now >= resend_at {
                        resend_at = (resend_at + part).max(now);
                        // A connection that brings other answers brings this one too, when the upstream has it.
                        if race.tries.iter().any(|attempt| attempt.line.is_heard_since(attempt.sent)) {
                            continue;
                        }
                        race.retire_silent_lines();
                    } else if !in_line || race.tries.iter().any(|attempt| attempt.line.is_heard_since(attempt.sent)) {
                        continue;
                    }
                    self.metrics.retries.increment();
                    match self.send(asked, transport, Choice::Any, Some(&race.tries), now) {
                        Ok(attempt) => race.tries.push(attempt),
                        // A second try that cannot be sent leaves the first one waiting.
                        Err(_) if !race.tries.is_empty() => (),
                        Err(error) => return Err(error),
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

    /// Sends `asked` once; `again`, beside these tries, on another line than theirs if that can be.
    fn send(
        &self,
        asked: &Arc<Asked>,
        transport: Transport,
        choice: Choice,
        again: Option<&[Try]>,
        now: Instant,
    ) -> Result<Try, TryError> {
        let pools = self.pools.get_or_default();
        match transport {
            Transport::Udp => pools.udp.send(&self.remote, asked, again, now),
            Transport::Tcp => pools.tcp.send(&self.remote, asked, choice, now),
        }
    }
}
