//! One query and several upstreams: which one is asked next, and when the query fails.

use super::attempt::{AttemptEvent, Attempts, NoAnswer};
use super::config::{ForwardOptions, KEYWORD};
use super::error::UpstreamError;
use super::metrics::ForwardMetrics;
use super::policy::UpstreamSelector;
use super::upstream::Upstream;
use super::upstream_query::UpstreamQuery;
use super::upstream_set::UpstreamSet;
use crate::backoff::Backoff;
use crate::chain::{Failure, Request, Transport};
use crate::message::{Rcode, Response};
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
}

impl Exchanger {
    pub(super) fn new(options: ForwardOptions, upstreams: Arc<UpstreamSet>, metrics: ForwardMetrics) -> Self {
        Self { selector: UpstreamSelector::new(options.policy), options, upstreams, metrics }
    }

    /// Asks upstreams in the order of the policy until one answers.
    pub(super) async fn exchange(&self, request: &Request<'_>) -> Result<Response, Failure> {
        let start = Instant::now();
        let deadline = start + overall_timeout(self.options.read_timeout);
        // A client gets its failure after one read timeout, so that it has time left to ask another server.
        let last_round = deadline.min(start + self.options.read_timeout);
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
                let outcome = match &mut unanswered {
                    None => self.ask(upstream, &query, request).await,
                    // Boxed: it is rare, and the future of every query would have room for it.
                    Some(earlier) => Box::pin(self.ask_beside(earlier, upstream, &query, request, deadline)).await,
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
                let late = Box::pin(self.wait_for_late(unanswered, &upstreams, deadline)).await;
                return late.ok_or_else(|| servfail(failure));
            }
            let pause = backoff.next_pause();
            if Instant::now() + pause >= last_round {
                return Err(servfail(failure));
            }
            tokio::time::sleep(pause).await;
        }
    }

    /// The answer to an attempt that has got none within the read timeout, if one comes before `deadline`. It is not
    /// waited for once the health checks say that all upstreams are down: they are silent, and not slow.
    pub(super) async fn wait_for_late(
        &self,
        mut attempts: Box<Attempts>,
        upstreams: &[Arc<Upstream>],
        deadline: Instant,
    ) -> Option<Response> {
        while !attempts.waiting().is_empty()
            && Instant::now() < deadline
            && !upstreams.iter().all(|upstream| upstream.health.is_down(self.options.max_fails))
        {
            match attempts.next_event(deadline.min(Instant::now() + HEALTH_INTERVAL)).await {
                AttemptEvent::Answered(response) => return Some(response),
                AttemptEvent::Failed(_) => return None,
                AttemptEvent::DeadlinePassed => (),
            }
        }
        None
    }

    /// Asks one upstream while attempts at others may still be answered; whichever answers first.
    async fn ask_beside(
        &self,
        earlier: &mut Attempts,
        upstream: &Upstream,
        query: &Arc<UpstreamQuery>,
        request: &Request<'_>,
        deadline: Instant,
    ) -> Result<Response, NoAnswer> {
        let asking = self.ask(upstream, query, request);
        tokio::pin!(asking);
        tokio::select! {
            biased;
            event = earlier.next_event(deadline) => match event {
                AttemptEvent::Answered(response) => Ok(response),
                AttemptEvent::Failed(_) | AttemptEvent::DeadlinePassed => asking.await,
            },
            outcome = &mut asking => outcome,
        }
    }

    /// Asks one upstream. If it does not understand EDNS it is asked once more without (RFC 6891 section 7), so that
    /// clients with and without EDNS get the same answer. An error code without a question is an answer with that code:
    /// the upstream could not read the query, or did not try.
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
            let outcome = self.ask_over_transport(upstream, query, request.peer.transport).await;
            let refuses_edns = match &outcome {
                // A response that repeats DO comes from a server that has understood the OPT record and refuses
                // something else.
                Ok(response) => matches!(response.rcode(), Rcode::FORMERR | Rcode::NOTIMP) && !response.dnssec_ok(),
                Err(failure) => matches!(failure.error, UpstreamError::NoQuestion(..)),
            };
            if !refuses_edns || without_edns.is_some() || request.query.edns.is_none() {
                return match outcome {
                    Err(NoAnswer { error: UpstreamError::NoQuestion(_, rcode), .. }) => {
                        Ok(Response::empty(request.query, request.wire, rcode))
                    }
                    outcome => outcome,
                };
            }
            without_edns = Some(Arc::new(UpstreamQuery::without_edns(request)));
        }
    }

    /// Asks one upstream over the transport that the options say, or else over that of the client.
    async fn ask_over_transport(
        &self,
        upstream: &Upstream,
        query: &Arc<UpstreamQuery>,
        client: Transport,
    ) -> Result<Response, NoAnswer> {
        let transport = upstream.transport_for(match (self.options.force_tcp, self.options.prefer_udp) {
            (true, _) => Transport::Tcp,
            (false, true) => Transport::Udp,
            (false, false) => client,
        });
        let response = upstream.ask(query, transport).await?;
        if response.is_truncated() && transport == Transport::Udp && self.options.prefer_udp {
            return upstream.ask(query, Transport::Tcp).await;
        }
        Ok(response)
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
