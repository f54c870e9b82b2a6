//! One upstream: its health, and each worker's sockets and connections to it. It outlives a reload that leaves its
//! address and settings unchanged.

use super::attempt::{Attempt, AttemptEvent, AttemptKind, Attempts, NoAnswer};
use super::error::UpstreamError;
use super::health::UpstreamHealth;
use super::metrics::UpstreamMetrics;
use super::remote::{MAX_STREAMS, Remote, UpstreamProtocol, UpstreamSettings};
use super::retry_schedule::{AfterFailure, NextStep, RetrySchedule};
use super::socket_budget::SocketBudget;
use super::spoof_guard::SpoofGuard;
use super::tcp_pool::TcpPool;
use super::udp_pool::UdpPool;
use super::upstream_query::UpstreamQuery;
use crate::chain::{ReloadState, Transport};
use crate::message::Response;
use crate::metrics::Registry;
use std::net::SocketAddr;
use std::ops::Deref;
use std::sync::Arc;
use std::sync::atomic::AtomicUsize;
use std::time::Instant;
use thread_local::ThreadLocal;

/// An upstream server.
pub(super) struct Upstream {
    remote: Arc<Remote>,
    pub health: Arc<UpstreamHealth>,
    pools: ThreadLocal<Pools>,
}

impl Deref for Upstream {
    type Target = Remote;

    fn deref(&self) -> &Remote {
        &self.remote
    }
}

/// The sockets and connections of one worker.
struct Pools {
    udp: UdpPool,
    tcp: TcpPool,
}

impl Upstream {
    pub(super) fn new(
        address: SocketAddr,
        protocol: UpstreamProtocol,
        settings: UpstreamSettings,
        registry: &Registry,
        sockets: Arc<SocketBudget>,
    ) -> Self {
        let metrics = UpstreamMetrics::new(registry, address.to_string(), protocol.connection_label());
        let (spoof_guard, streams) = (SpoofGuard::default(), AtomicUsize::new(MAX_STREAMS));
        let remote = Arc::new(Remote { address, protocol, streams, settings, metrics, sockets, spoof_guard });
        Self { health: Arc::new(UpstreamHealth::new(remote.clone())), remote, pools: ThreadLocal::new() }
    }

    /// The upstream of the running plan if it has the same address, protocol and settings, else a new one.
    pub(super) fn adopt_or_new(
        address: SocketAddr,
        protocol: UpstreamProtocol,
        settings: &UpstreamSettings,
        registry: &Registry,
        reload_state: &ReloadState,
        sockets: &Arc<SocketBudget>,
    ) -> Arc<Self> {
        let key = format!("forward upstream {address} {} {settings:?}", protocol.key());
        reload_state.adopt_or(&key, || Self::new(address, protocol, settings.clone(), registry, sockets.clone()))
    }

    /// The transport that a query is sent over where `wanted` is what the options or the client say.
    pub(super) fn transport_for(&self, wanted: Transport) -> Transport {
        if self.protocol.is_encrypted() { Transport::Tcp } else { wanted }
    }

    /// Sends `query` and waits for the answer for at most the read timeout. Within it, the query is sent again as
    /// [`RetrySchedule`] says: when it seems lost, and when its socket or connection fails.
    ///
    /// A datagram that may be forged ends no query. It is sent again over TCP, with a read timeout of its own, when a
    /// response was malformed or had no question, and when somebody seems to guess the answers. The exception is an
    /// error code without a question to a query with EDNS: the caller then asks without EDNS and believes nothing else
    /// of that response.
    pub(super) async fn ask(&self, query: &Arc<UpstreamQuery>, transport: Transport) -> Result<Response, NoAnswer> {
        let start = Instant::now();
        if self.transport_for(transport) == Transport::Udp && !self.spoof_guard.requires_tcp(query.question(), start) {
            match self.ask_over(query, Transport::Udp, start).await {
                Err(NoAnswer { error: error @ UpstreamError::NoQuestion(..), .. }) if query.has_edns() => {
                    return Err(error.into());
                }
                Err(NoAnswer { error, .. }) if error.may_be_forged() => {
                    tracing::debug!(upstream = %self.address, %error, "asked over TCP");
                }
                outcome => return outcome,
            }
        }
        self.ask_over(query, Transport::Tcp, Instant::now()).await
    }

    async fn ask_over(
        &self,
        query: &Arc<UpstreamQuery>,
        transport: Transport,
        start: Instant,
    ) -> Result<Response, NoAnswer> {
        self.metrics.count_request();
        let first = self.send(query, transport, AttemptKind::First, start)?;
        let mut schedule = RetrySchedule::new(transport, self.settings.read_timeout, first.queued_behind > 0, start);
        let mut attempts = Attempts::new(first, transport, self.address);
        loop {
            let event = match attempts.next_event(schedule.deadline()).await {
                // Sent again when a lost query would be: at once, it would take another socket where there are too
                // many.
                AttemptEvent::Failed(UpstreamError::Evicted(_)) => {
                    tokio::time::sleep_until(schedule.resend_deadline().into()).await;
                    AttemptEvent::DeadlinePassed
                }
                event => event,
            };
            match event {
                AttemptEvent::Answered(response, _) => {
                    query.set_answered(attempts.answered().map(|answered| answered.endpoints));
                    return Ok(response);
                }
                AttemptEvent::Failed(error) => {
                    let now = Instant::now();
                    let kind = match error.is_socket_failure().then(|| schedule.after_socket_failure(now)) {
                        Some(AfterFailure::Resend) => AttemptKind::Again(attempts.waiting()),
                        Some(AfterFailure::LastResort) => AttemptKind::LastResort,
                        Some(AfterFailure::Fail) | None => return Err(error.into()),
                    };
                    self.metrics.retries.increment();
                    let attempt = self.send(query, transport, kind, now)?;
                    attempts.add(attempt);
                }
                AttemptEvent::DeadlinePassed => {
                    let now = Instant::now();
                    match schedule.next_step(now, attempts.have_progress()) {
                        NextStep::Wait => continue,
                        NextStep::Resend => (),
                        NextStep::ResendAndRetire => attempts.retire_silent_sockets(),
                        NextStep::Fail => {
                            attempts.retire_silent_sockets();
                            let error = UpstreamError::Timeout(attempts.latest_endpoints());
                            return Err(NoAnswer { error, unanswered: Some(Box::new(attempts)) });
                        }
                    }
                    self.metrics.retries.increment();
                    match self.send(query, transport, AttemptKind::Again(attempts.waiting()), now) {
                        Ok(attempt) => attempts.add(attempt),
                        // The earlier attempts may still be answered.
                        Err(_) if !attempts.waiting().is_empty() => (),
                        Err(error) => return Err(error.into()),
                    }
                }
            }
        }
    }

    /// Sends `query` once, on a socket or connection of this worker.
    fn send(
        &self,
        query: &Arc<UpstreamQuery>,
        transport: Transport,
        kind: AttemptKind<'_>,
        now: Instant,
    ) -> Result<Attempt, UpstreamError> {
        query.count_sent();
        let pools = self.pools();
        match transport {
            Transport::Udp => pools.udp.send(query, kind, now),
            Transport::Tcp => pools.tcp.send(query, kind, now),
        }
    }

    fn pools(&self) -> &Pools {
        self.pools.get_or(|| Pools { udp: UdpPool::new(self.remote.clone()), tcp: TcpPool::new(self.remote.clone()) })
    }

    /// This thread's sockets.
    #[cfg(test)]
    pub(super) fn udp_pool(&self) -> &UdpPool {
        &self.pools().udp
    }
}
