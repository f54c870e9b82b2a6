//! One query and several upstreams: which one is asked next, and when the query fails.

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

/// The time limit of one query with all its upstreams, as in CoreDNS. The upstream that is being asked then has its read timeout nevertheless.
pub const OVERALL_TIMEOUT: Duration = Duration::from_secs(5);
/// The pause after a round in which every upstream failed. It doubles with each round: a refused connection fails at once, and CoreDNS then asks again
/// as fast as it can.
const FIRST_PAUSE: Duration = Duration::from_millis(50);
const LONGEST_PAUSE: Duration = Duration::from_millis(500);

/// Asks the upstreams of one `forward`.
pub struct Exchanger {
    pub options: ForwardOptions,
    pub upstreams: Arc<UpstreamSet>,
    selector: UpstreamSelector,
    metrics: ForwardMetrics,
}

impl Exchanger {
    pub fn new(options: ForwardOptions, upstreams: Arc<UpstreamSet>, metrics: ForwardMetrics) -> Self {
        Self { selector: UpstreamSelector::new(options.policy), options, upstreams, metrics }
    }

    /// Asks upstreams in the order of the policy until one answers.
    pub async fn exchange(&self, request: &Request<'_>) -> Result<Response, Failure> {
        let start = Instant::now();
        let deadline = start + OVERALL_TIMEOUT;
        // A client gets its failure after one read timeout, so that it has time left (5 s in most resolvers) to ask another server.
        let last_round = deadline.min(start + self.options.read_timeout);
        let upstreams = self.upstreams.usable(deadline).await.map_err(|error| Failure::servfail(KEYWORD, error))?;
        let order = self.selector.order(upstreams.len(), |bound| rand::random_range(0..bound));
        let query = Arc::new(UpstreamQuery::new(request));
        let options = &self.options;

        let mut failure: Option<UpstreamError> = None;
        let mut last_response = None;
        let mut failed_attempts = 0;
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
                match self.ask(upstream, &query, request).await {
                    Ok(response) if options.failover.contains(&response.rcode()) => {
                        // The answer of the last upstream stands.
                        last_response = Some(response);
                    }
                    Ok(response) => return Ok(response),
                    Err(UpstreamError::NoQuestion(_)) => {
                        return Ok(Response::empty(request.query, request.wire, Rcode::FORMERR));
                    }
                    Err(error) => {
                        tracing::debug!(upstream = %upstream.address, %error, "upstream failed");
                        failure = Some(error);
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
            let pause = backoff.next_pause();
            if Instant::now() + pause >= last_round {
                return Err(servfail(failure));
            }
            tokio::time::sleep(pause).await;
        }
    }

    /// Asks one upstream. If it does not understand EDNS it is asked once more without (RFC 6891 section 7), so that clients with and without EDNS get
    /// the same answer.
    async fn ask(
        &self,
        upstream: &Upstream,
        query: &Arc<UpstreamQuery>,
        request: &Request<'_>,
    ) -> Result<Response, UpstreamError> {
        let mut without_edns = None;
        // A loop with one await, because a second one would make the future of every query larger.
        loop {
            let query = without_edns.as_ref().unwrap_or(query);
            let outcome = self.ask_over_transport(upstream, query, request.peer.transport).await;
            let refuses_edns = match &outcome {
                // A response that repeats DO comes from a server that has understood the OPT record and refuses something else.
                Ok(response) => matches!(response.rcode(), Rcode::FORMERR | Rcode::NOTIMP) && !response.dnssec_ok(),
                Err(error) => matches!(error, UpstreamError::NoQuestion(_)),
            };
            if !refuses_edns || without_edns.is_some() || request.query.edns.is_none() {
                return outcome;
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
    ) -> Result<Response, UpstreamError> {
        let transport = match (self.options.force_tcp, self.options.prefer_udp) {
            (true, _) => Transport::Tcp,
            (false, true) => Transport::Udp,
            (false, false) => client,
        };
        let response = upstream.ask(query, transport).await?;
        if response.is_truncated() && transport == Transport::Udp && self.options.prefer_udp {
            return upstream.ask(query, Transport::Tcp).await;
        }
        Ok(response)
    }
}

fn servfail(failure: Option<UpstreamError>) -> Failure {
    match failure {
        Some(error) => Failure::servfail(KEYWORD, error),
        None => Failure::servfail(KEYWORD, "no healthy proxies"),
    }
}
