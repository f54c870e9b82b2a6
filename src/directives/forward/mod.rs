//! The `forward` directive sends queries to other DNS servers, the upstreams, and hands their answers on; see README.md
//! beside this file.
//!
//! A request joins the flight of its question ([`single_flight`]). The leader of the flight asks one upstream after
//! another ([`exchange`]), each of them ([`upstream`]) over the worker's own UDP sockets ([`udp_pool`]) or TCP
//! connections ([`tcp_pool`]). A query to one upstream takes one attempt or more ([`attempt`], [`retry_schedule`]),
//! each on one socket, where it is in flight until its response is matched to it ([`in_flight`]).
//!
//! The files import each other in one direction: [`remote`] and [`in_flight`] know no sockets, sockets no pools, pools
//! no upstream, and the upstream not the set that it is in.

mod attempt;
mod config;
mod connection_task;
mod deadline_timer;
mod error;
mod exchange;
mod explain;
mod health;
mod https_streams;
mod idle_timer;
mod in_flight;
mod letter_case;
mod metrics;
mod parse;
mod policy;
mod remote;
mod retry_schedule;
mod single_flight;
mod socket_budget;
mod spoof_guard;
mod target;
mod tcp_connection;
mod tcp_messages;
mod tcp_pool;
#[cfg(test)]
mod tests;
mod tls_options;
mod udp_pool;
mod udp_socket;
mod upstream;
mod upstream_query;
mod upstream_set;
mod upstream_socket;
mod upstream_stream;

use crate::chain::{
    Answer, BlockConfig, BuildContext, BuildError, Built, Configured, Course, Explanation, Failure, Following, Handler,
    Next, Outcome, ParseContext, Part, Request, Transport,
};
use crate::corefile;
use crate::fairness::{ConcurrencyLimiter, PermitOutcome, SharedFairness};
use crate::message::{LowerName, Name, Rcode, Response};
use config::{ForwardConfig, KEYWORD};
use exchange::{Exchanger, overall_timeout};
use futures_util::future::BoxFuture;
use metrics::ForwardMetrics;
use remote::UpstreamSettings;
use single_flight::{FlightEvent, FlightRole, SingleFlight};
use smallvec::SmallVec;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;
use upstream_set::UpstreamSet;

/// The label of metadata that names the upstream.
const UPSTREAM_LABEL: &str = "forward/upstream";

/// Reads one `forward` of a server block.
pub(super) fn parse(directive: &corefile::Directive, block: &mut BlockConfig, context: &mut ParseContext<'_>) {
    if let Some(config) = parse::read(directive, block.root.as_deref(), context) {
        block.parts.push(Part { keyword: KEYWORD, span: directive.keyword.span, configured: Box::new(config) });
    }
}

/// Options that say how upstreams are asked. Which answers they give does not depend on them.
const WAYS_OF_ASKING: [&str; 13] = [
    "doh_method",
    "expire",
    "failfast_all_unhealthy_upstreams",
    "force_tcp",
    "health_check",
    "max_age",
    "max_concurrent",
    "max_connect_attempts",
    "max_fails",
    "max_idle_conns",
    "policy",
    "prefer_udp",
    "read_timeout",
];

/// What of a `forward` its answers depend on: which names it asks for, and whom.
pub(super) fn answer_source(directive: &corefile::Directive) -> String {
    let mut source = directive.clone();
    source.options.retain(|line| !WAYS_OF_ASKING.contains(&line.name.text.as_str()));
    source.to_string()
}

impl Configured for ForwardConfig {
    fn build(&self, context: &BuildContext<'_>) -> Result<Built, BuildError> {
        let forward = Arc::new(Forward::new(self, context));
        let mut built = Built { handler: Some(forward.clone()), ..Built::default() };
        let upstreams = &forward.exchanger.upstreams;
        if upstreams.has_hosts() {
            built.background.push(Box::pin(upstreams.clone().keep_resolved()));
        }
        Ok(built)
    }
}

/// The octets of a [`crate::message::RequestKey`], and a [`SizeLimit`] where the answer was truncated.
type FlightKey = SmallVec<[u8; 64]>;

/// How long an answer the upstream can give a request: 512 octets without EDNS, our UDP payload size with it, and any
/// length over TCP.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum SizeLimit {
    WithoutEdns,
    Edns,
    Tcp,
}

/// What the requests of one flight share.
#[derive(Clone)]
struct SharedExchange {
    outcome: Result<Response, Failure>,
    /// The one that answered, or else the one that was asked last.
    upstream: Option<SocketAddr>,
    /// The limit that the leader's request had.
    size_limit: SizeLimit,
}

/// The running directive.
pub(super) struct Forward {
    from: LowerName,
    except: Vec<LowerName>,
    exchanger: Exchanger,
    flights: SingleFlight<FlightKey, SharedExchange>,
    /// Enforces `max_concurrent`.
    limiter: Option<Arc<ConcurrencyLimiter>>,
    fairness: Arc<SharedFairness>,
    metrics: ForwardMetrics,
}

impl Forward {
    fn new(config: &ForwardConfig, context: &BuildContext<'_>) -> Self {
        let options = &config.options;
        let process = context.process;
        let settings = UpstreamSettings {
            source_address: options.source_address,
            expire: options.expire,
            max_age: options.max_age,
            connections_per_worker: (options.max_idle_conns > 0)
                .then(|| (options.max_idle_conns / process.workers.max(1)).max(1)),
            read_timeout: options.read_timeout,
            use_caps_for_id: options.use_caps_for_id,
            probe_interval: options.probe_interval,
            probe_name: options.probe_name.clone(),
            probe_recursion_desired: options.probe_recursion_desired,
            probe_tcp: options.force_tcp,
        };
        let metrics = ForwardMetrics::new(&process.registry);
        let upstreams = Arc::new(UpstreamSet::new(config, settings, context));
        Self {
            from: config.from.to_lower(),
            except: config.except.iter().map(Name::to_lower).collect(),
            exchanger: Exchanger::new(options.clone(), upstreams, metrics.clone(), context.upstream_observers),
            flights: SingleFlight::default(),
            limiter: (options.max_concurrent > 0).then(|| Arc::new(ConcurrencyLimiter::new(options.max_concurrent))),
            fairness: process.fairness.clone(),
            metrics,
        }
    }

    /// True if `name` is forwarded. As in CoreDNS, FROM itself always is, whatever `except` says.
    fn is_forwarded(&self, name: &LowerName) -> bool {
        name.is_within(self.from.as_wire())
            && (name.as_wire() == self.from.as_wire() || !self.except.iter().any(|zone| name.is_within(zone.as_wire())))
    }

    async fn answer(&self, request: Request<'_>, next: Next<'_>) -> Outcome {
        let response = match &self.limiter {
            Some(limiter) => Box::pin(self.limited_exchange(limiter, &request)).await?,
            None => self.shared_exchange(&request).await?,
        };
        if next.keyword() == Some(KEYWORD) && self.is_for_next_forward(&response) {
            return next.run(request).await;
        }
        Ok(Answer { response, from: KEYWORD })
    }

    /// As [`Forward::shared_exchange`], but for at most `max_concurrent` requests at a time. At that limit, a request
    /// of the client that has most is refused, be it one that is being answered.
    async fn limited_exchange(
        &self,
        limiter: &Arc<ConcurrencyLimiter>,
        request: &Request<'_>,
    ) -> Result<Response, Failure> {
        let fairness = self.fairness.get();
        let permit = match limiter.admit(fairness.client(request.peer.client.ip()), fairness.is_on) {
            PermitOutcome::Granted(permit) | PermitOutcome::Evicting { permit, .. } => Some(permit),
            PermitOutcome::Full => None,
        };
        if let Some(permit) = permit
            && let Some(outcome) = permit.hold(self.shared_exchange(request)).await
        {
            return outcome;
        }
        self.metrics.max_concurrent_rejects.increment();
        let cause = format!("concurrent queries exceeded maximum {}", self.exchanger.options.max_concurrent);
        Err(Failure { rcode: Rcode::REFUSED, directive: KEYWORD, cause })
    }

    fn is_for_next_forward(&self, response: &Response) -> bool {
        let options = &self.exchanger.options;
        let rcode = response.rcode();
        options.next.contains(&rcode)
            || (options.next_on_nodata && rcode == Rcode::NOERROR && response.answer_count() == 0)
    }

    /// Asks once for all requests in flight that one cache entry would answer.
    async fn shared_exchange(&self, request: &Request<'_>) -> Result<Response, Failure> {
        let size_limit = self.size_limit_of(request);
        let mut key = request.key().octets();
        let mut shared = self.join_flight(request, size_limit, &key).await;
        // The answer may be truncated because the leader's limit was lower. Those with a higher one ask again,
        // together.
        if shared.size_limit < size_limit && shared.outcome.as_ref().is_ok_and(Response::is_truncated) {
            key.push(size_limit as u8);
            shared = self.join_flight(request, size_limit, &key).await;
        }
        if let (Some(trail), Some(upstream)) = (request.trail, shared.upstream) {
            trail.note_upstream(upstream);
        }
        if let (Some(metadata), Some(upstream)) = (request.metadata, shared.upstream) {
            metadata.set(UPSTREAM_LABEL, upstream.to_string());
        }
        shared.outcome
    }

    fn size_limit_of(&self, request: &Request<'_>) -> SizeLimit {
        // With either option the client's transport does not matter, and a truncated answer is asked for over TCP.
        let ignores_client = self.exchanger.options.force_tcp || self.exchanger.options.prefer_udp;
        match request.peer.transport {
            Transport::Udp if ignores_client => SizeLimit::Tcp,
            Transport::Udp if request.query.edns.is_some() => SizeLimit::Edns,
            Transport::Udp => SizeLimit::WithoutEdns,
            Transport::Tcp => SizeLimit::Tcp,
        }
    }

    /// Leads the flight of `key`, or waits for its outcome.
    async fn join_flight(&self, request: &Request<'_>, size_limit: SizeLimit, key: &FlightKey) -> SharedExchange {
        let leader = match self.flights.join(key.clone()) {
            FlightRole::Leader(leader) => leader,
            FlightRole::Follower(receiver) => {
                // A leader ends by itself within this time, without the addition. Only one that is stuck does not.
                let read_timeout = self.exchanger.options.read_timeout;
                let limit = overall_timeout(read_timeout) + read_timeout + Duration::from_millis(500);
                let waiting = self.metrics.waiting();
                let event = tokio::time::timeout(limit, receiver).await;
                drop(waiting);
                match event {
                    Ok(Ok(FlightEvent::Outcome(outcome))) => return outcome,
                    Ok(Ok(FlightEvent::Promoted(leader))) => leader,
                    // The channel closes without an event only when the process ends.
                    Ok(Err(_)) | Err(_) => {
                        let outcome = Err(Failure::servfail(KEYWORD, format!("no answer within {limit:?}")));
                        return SharedExchange { outcome, upstream: None, size_limit };
                    }
                }
            }
        };
        // Boxed apart from this future: together they would be larger than what the allocator serves fast (1 KiB).
        let mut upstream = None;
        let outcome = Box::pin(self.exchanger.exchange(request, &mut upstream)).await;
        let shared = SharedExchange { outcome, upstream, size_limit };
        let followers = leader.complete(&shared);
        self.metrics.shared.add(followers as u64);
        shared
    }
}

impl Handler for Forward {
    fn keyword(&self) -> &'static str {
        KEYWORD
    }

    fn explain(&self, request: &Request<'_>, rest: Following<'_>, explanation: &mut Explanation) -> Course {
        self.explain_asking(request, rest, explanation)
    }

    fn serve<'a>(&'a self, request: Request<'a>, next: Next<'a>) -> BoxFuture<'a, Outcome> {
        if !self.is_forwarded(&request.query.name) {
            return next.run(request);
        }
        Box::pin(self.answer(request, next))
    }
}
