//! One query and several upstreams: which one is asked next, and when the query fails.

use super::attempt::{AttemptEvent, Attempts, NoAnswer};
use super::config::{ForwardOptions, KEYWORD};
use super::error::{Endpoints, UpstreamError};
use super::metrics::ForwardMetrics;
use super::policy::UpstreamSelector;
use super::upstream::Upstream;
use super::upstream_query::UpstreamQuery;
use super::upstream_set::UpstreamSet;
use crate::backoff::Backoff;
use crate::chain::{Encryption, Failure, OpenSpan, Request, Spans, Transport, UpstreamExchange, UpstreamObserver};
use crate::message::{Rcode, Response};
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

/// How long a slow upstream is waited for where the query has got no other answer, and the time limit of one query with
/// all its upstreams: so many halves of the read timeout. With its default of 2 s they are 5 s, CoreDNS' limit and as
/// long as a resolver waits (`timeout` of resolv.conf(5)). The upstream that is being asked at the end has its read
/// timeout nevertheless.
const HALVES_OF_READ_TIMEOUT: u32 = 5;
/// How often it is looked whether the upstreams that are waited for are still up.
const HEALTH_INTERVAL: Duration = Duration::from_millis(100);
/// The pause after a round in which every upstream failed. It doubles with each round: a refused connection fails at
/// once, and CoreDNS then asks again as fast as it can.
const FIRST_PAUSE: Duration = Duration::from_millis(50);
const LONGEST_PAUSE: Duration = Duration::from_millis(500);

/// Asks the upstreams of one `forward`.
pub(super) struct Exchanger {
    pub options: ForwardOptions,
    pub upstreams: Arc<UpstreamSet>,
    selector: UpstreamSelector,
    metrics: ForwardMetrics,
    /// Who sees what is asked.
    observers: Box<[Arc<dyn UpstreamObserver>]>,
}

/// What is needed to make an answer of what comes from an upstream after it was given up.
#[derive(Clone, Copy)]
pub(super) struct Late<'a> {
    pub request: &'a Request<'a>,
    pub query: &'a Arc<UpstreamQuery>,
    pub upstreams: &'a [Arc<Upstream>],
    /// Until when it is waited for.
    pub deadline: Instant,
}

impl<'a> Late<'a> {
    pub(super) fn new(
        request: &'a Request<'a>,
        query: &'a Arc<UpstreamQuery>,
        upstreams: &'a [Arc<Upstream>],
        deadline: Instant,
    ) -> Self {
        Self { request, query, upstreams, deadline }
    }
}

impl Exchanger {
    pub(super) fn new(
        options: ForwardOptions,
        upstreams: Arc<UpstreamSet>,
        metrics: ForwardMetrics,
        observers: &[Arc<dyn UpstreamObserver>],
    ) -> Self {
        let selector = UpstreamSelector::new(options.policy);
        Self { selector, options, upstreams, metrics, observers: observers.into() }
    }

    /// Asks upstreams in the order of the policy until one answers. Sets `asked` to the one that answered, or else to
    /// the one that was asked last.
    pub(super) async fn exchange(
        &self,
        request: &Request<'_>,
        asked: &mut Option<SocketAddr>,
    ) -> Result<Response, Failure> {
        let deadline = Instant::now() + overall_timeout(self.options.read_timeout);
        let upstreams = self.upstreams.usable(deadline).await.map_err(|error| Failure::servfail(KEYWORD, error))?;
        let order = self.selector.order(upstreams.len(), |bound| rand::random_range(0..bound));
        let query = Arc::new(UpstreamQuery::new(request));
        let options = &self.options;

        let mut failure: Option<UpstreamError> = None;
        let mut last_response = None;
        let mut failed_attempts = 0;
        let mut unanswered: Option<Box<Attempts>> = None;
        let mut backoff = Backoff::new(FIRST_PAUSE, LONGEST_PAUSE);
        loop {
            let mut skipped = 0;
            for index in &order {
                let Some(mut upstream) = upstreams.get(usize::from(*index)) else { continue };
                let mut is_last_resort = false;
                if upstream.health.is_down(options.max_fails) {
                    skipped += 1;
                    if skipped < upstreams.len() {
                        continue;
                    }
                    self.metrics.healthcheck_broken.increment();
                    if options.failfast_all_unhealthy_upstreams {
                        return Err(servfail(failure));
                    }
                    // All are down. One is asked nevertheless, because the health checks themselves may be what fails.
                    is_last_resort = true;
                    if let Some(any) = upstreams.get(rand::random_range(0..upstreams.len())) {
                        upstream = any;
                    }
                }
                *asked = Some(upstream.address);
                let outcome = match &mut unanswered {
                    None => self.ask(upstream, &query, request).await,
                    // Boxed: it is rare, and the future of every query would have room for it.
                    Some(earlier) => {
                        Box::pin(self.ask_beside(
                            earlier,
                            upstream,
                            Late::new(request, &query, &upstreams, deadline),
                            asked,
                        ))
                        .await
                    }
                };
                match outcome {
                    Ok(response) if options.failover.contains(&response.rcode()) => {
                        // The answer of the last upstream stands.
                        last_response = Some(response);
                    }
                    Ok(response) => return Ok(response),
                    Err(no_answer) => {
                        tracing::debug!(upstream = %upstream.address, error = %no_answer.error, "upstream failed");
                        failure = Some(no_answer.error);
                        match (&mut unanswered, no_answer.unanswered) {
                            (Some(earlier), Some(attempts)) => earlier.join(*attempts),
                            (None, attempts) => unanswered = attempts,
                            (Some(_), None) => (),
                        }
                        if options.max_fails != 0 {
                            upstream.health.start_probing();
                        }
                        failed_attempts += 1;
                        let is_limit_reached =
                            options.max_connect_attempts != 0 && failed_attempts >= options.max_connect_attempts;
                        if is_last_resort || is_limit_reached {
                            return last_response.ok_or_else(|| servfail(failure));
                        }
                    }
                }
                if Instant::now() >= deadline {
                    return last_response.ok_or_else(|| servfail(failure));
                }
            }
            if let Some(response) = last_response {
                return Ok(response);
            }
            if let Some(unanswered) = unanswered {
                let response =
                    Box::pin(self.wait_for_late(unanswered, Late::new(request, &query, &upstreams, deadline), asked))
                        .await;
                return response.ok_or_else(|| servfail(failure));
            }
            let pause = backoff.next_pause();
            // A client gets its failure after one read timeout, so that it has time left to ask another server.
            let time_left = overall_timeout(options.read_timeout) - options.read_timeout;
            if Instant::now() + pause + time_left >= deadline {
                return Err(servfail(failure));
            }
            tokio::time::sleep(pause).await;
        }
    }

    /// The answer to an attempt that has got none within the read timeout, if one comes before the deadline. It is not
    /// waited for once the health checks say that all upstreams are down: they are silent, and not slow.
    pub(super) async fn wait_for_late(
        &self,
        mut attempts: Box<Attempts>,
        late: Late<'_>,
        asked: &mut Option<SocketAddr>,
    ) -> Option<Response> {
        while !attempts.waiting().is_empty()
            && Instant::now() < late.deadline
            && !late.upstreams.iter().all(|upstream| upstream.health.is_down(self.options.max_fails))
        {
            let event = attempts.next_event(late.deadline.min(Instant::now() + HEALTH_INTERVAL)).await;
            self.observe_late(&event, &attempts, late);
            if let Some(response) = self.settle_late(event, late, asked).await {
                return Some(response);
            }
        }
        None
    }

    /// Asks one upstream while attempts at others may still be answered; whichever answers first.
    async fn ask_beside(
        &self,
        earlier: &mut Attempts,
        upstream: &Upstream,
        late: Late<'_>,
        asked: &mut Option<SocketAddr>,
    ) -> Result<Response, NoAnswer> {
        let asking = self.ask(upstream, late.query, late.request);
        let settling = async {
            let event = earlier.next_event(late.deadline).await;
            self.observe_late(&event, earlier, late);
            self.settle_late(event, late, asked).await
        };
        tokio::select! {
            biased;
            Some(response) = settling => Ok(response),
            outcome = asking => outcome,
        }
    }

    /// The answer that comes of what an upstream has said after it was given up, as if it had said that in time: one
    /// that does not understand EDNS is asked without, and what anybody may have sent is asked over TCP.
    async fn settle_late(
        &self,
        event: AttemptEvent,
        late: Late<'_>,
        asked: &mut Option<SocketAddr>,
    ) -> Option<Response> {
        let (from, said) = match event {
            AttemptEvent::Answered(response, from) => (from, Ok(response)),
            AttemptEvent::Failed(error) => (error.sender()?.remote, Err(error)),
            AttemptEvent::DeadlinePassed => return None,
        };
        let upstream = late.upstreams.iter().find(|upstream| upstream.address == from)?;
        let mut said = match said {
            // The one thing that is believed of anybody is that the upstream does not understand EDNS.
            Err(error) if error.may_be_forged() && !(error.is_code_alone() && late.query.has_edns()) => {
                self.ask_watched(upstream, late.query, late.request, Transport::Tcp).await
            }
            said => said.map_err(NoAnswer::from),
        };
        if late.query.has_edns() && refuses_edns(&said) {
            let query = Arc::new(UpstreamQuery::without_edns(late.request));
            said = self.ask_over_transport(upstream, &query, late.request).await;
        }
        if self.options.prefer_udp && said.as_ref().is_ok_and(Response::is_truncated) {
            said = self.ask_watched(upstream, late.query, late.request, Transport::Tcp).await;
        }
        let response = answer_of(said, late.request).ok()?;
        *asked = Some(from);
        Some(response)
    }

    /// Asks one upstream. If it does not understand EDNS it is asked once more without (RFC 6891 section 7), so that
    /// clients with and without EDNS get the same answer.
    async fn ask(
        &self,
        upstream: &Upstream,
        query: &Arc<UpstreamQuery>,
        request: &Request<'_>,
    ) -> Result<Response, NoAnswer> {
        let mut without_edns = None;
        // A loop with one await, because a second one would make the future of every query larger.
        loop {
            let query = without_edns.as_ref().unwrap_or(query);
            let outcome = self.ask_over_transport(upstream, query, request).await;
            if without_edns.is_some() || !query.has_edns() || !refuses_edns(&outcome) {
                return answer_of(outcome, request);
            }
            without_edns = Some(Arc::new(UpstreamQuery::without_edns(request)));
        }
    }

    /// Which upstream is asked first by turns ([`UpstreamSelector::next_in_turn`]).
    pub(super) fn next_in_turn(&self) -> usize {
        self.selector.next_in_turn()
    }

    /// The transport that an upstream is asked over first.
    pub(super) fn transport_to(&self, upstream: &Upstream, request: &Request<'_>) -> Transport {
        upstream.transport_for(match (self.options.force_tcp, self.options.prefer_udp) {
            (true, _) => Transport::Tcp,
            (false, true) => Transport::Udp,
            (false, false) => request.peer.transport,
        })
    }

    /// Asks one upstream over the transport that the options say, or else over that of the client.
    async fn ask_over_transport(
        &self,
        upstream: &Upstream,
        query: &Arc<UpstreamQuery>,
        request: &Request<'_>,
    ) -> Result<Response, NoAnswer> {
        let mut transport = self.transport_to(upstream, request);
        loop {
            let outcome = match self.observers.is_empty() && !Spans::are_recorded() {
                true => upstream.ask(query, transport).await,
                // Boxed: the future of every query would have room for it.
                false => Box::pin(self.ask_watched(upstream, query, request, transport)).await,
            };
            note_asked(request, upstream, query, transport);
            let response = outcome?;
            if !response.is_truncated() || transport != Transport::Udp || !self.options.prefer_udp {
                return Ok(response);
            }
            transport = Transport::Tcp;
        }
    }

    /// [`Upstream::ask`], which whoever traces or observes the query sees.
    async fn ask_watched(
        &self,
        upstream: &Upstream,
        query: &Arc<UpstreamQuery>,
        request: &Request<'_>,
        transport: Transport,
    ) -> Result<Response, NoAnswer> {
        let span = OpenSpan::enter("connect");
        if let Some(span) = &span {
            span.set_peer(upstream.address);
        }
        let started = Instant::now();
        let outcome = upstream.ask(query, transport).await;
        drop(span);
        note_asked(request, upstream, query, transport);
        let unknown = Endpoints { transport, local: None, remote: upstream.address };
        let endpoints = query.take_answered().unwrap_or(unknown);
        self.observe(&UpstreamExchange {
            reply: outcome.as_ref().ok().map(Response::wire),
            ..exchange_with(request, query, started, (endpoints, upstream.protocol.encryption()))
        });
        outcome
    }

    fn observe(&self, exchange: &UpstreamExchange<'_>) {
        self.observers.iter().for_each(|observer| observer.observe_upstream(exchange));
    }

    /// An answer to an attempt whose query has been observed without one.
    fn observe_late(&self, event: &AttemptEvent, attempts: &Attempts, late: Late<'_>) {
        let AttemptEvent::Answered(response, _) = event else { return };
        if let (false, Some(answered)) = (self.observers.is_empty(), attempts.answered()) {
            let socket = (answered.endpoints, answered.encryption);
            self.observe(&UpstreamExchange {
                is_late: true,
                reply: Some(response.wire()),
                ..exchange_with(late.request, late.query, answered.since, socket)
            });
        }
    }
}

/// Leaves a note of what an upstream was asked since the last one.
fn note_asked(request: &Request<'_>, upstream: &Upstream, query: &UpstreamQuery, transport: Transport) {
    let messages = query.take_sent();
    if let (Some(trail), 1..) = (request.trail, messages) {
        let transport = match upstream.protocol.encryption() {
            Some(Encryption::Tls) => "tls",
            Some(Encryption::Https) => "https",
            None => query.answered_over().unwrap_or(transport).label(),
        };
        trail.note_asked(upstream.address, transport, messages);
    }
}

/// True if this comes of an upstream that does not understand EDNS.
fn refuses_edns(outcome: &Result<Response, NoAnswer>) -> bool {
    match outcome {
        // A response that repeats DO comes from a server that has understood the OPT record and refuses something else.
        Ok(response) => matches!(response.rcode(), Rcode::FORMERR | Rcode::NOTIMP) && !response.dnssec_ok(),
        Err(failure) => failure.error.is_code_alone(),
    }
}

/// An error code without a question is an answer with that code: the upstream could not read the query, or did not try.
fn answer_of(outcome: Result<Response, NoAnswer>, request: &Request<'_>) -> Result<Response, NoAnswer> {
    match outcome {
        Err(NoAnswer { error: UpstreamError::NoQuestion(_, rcode), .. }) => {
            Ok(Response::empty(request.query, request.wire, rcode))
        }
        outcome => outcome,
    }
}

/// A query that has got no answer.
fn exchange_with<'a>(
    request: &'a Request<'a>,
    query: &'a UpstreamQuery,
    started: Instant,
    (endpoints, encryption): (Endpoints, Option<Encryption>),
) -> UpstreamExchange<'a> {
    UpstreamExchange {
        request,
        query: query.wire(),
        reply: None,
        upstream: endpoints.remote,
        local: endpoints.local,
        transport: endpoints.transport,
        encryption,
        is_late: false,
        started,
    }
}

/// See [`HALVES_OF_READ_TIMEOUT`].
pub(super) fn overall_timeout(read_timeout: Duration) -> Duration {
    read_timeout * HALVES_OF_READ_TIMEOUT / 2
}

fn servfail(failure: Option<UpstreamError>) -> Failure {
    match failure {
        Some(error) => Failure::servfail(KEYWORD, error),
        None => Failure::servfail(KEYWORD, "no healthy proxies"),
    }
}
