//! One question, several upstreams: whom to ask next, and when to give up.

use super::Forward;
use super::asked::Asked;
use super::error::TryError;
use super::health;
use super::upstream::Upstream;
use crate::chain::{Failure, Request, Transport};
use crate::message::{Rcode, Response};
use std::sync::Arc;
use std::time::{Duration, Instant};

/// For one question with all its upstreams, as in the reference. A read timeout longer than this is granted once.
pub const OVERALL_TIMEOUT: Duration = Duration::from_secs(5);
/// After a round in which every upstream failed, the next one waits this long, then twice as long each time: a refused
/// connection fails at once, and the reference asks again as fast as it can.
const FIRST_PAUSE: Duration = Duration::from_millis(50);
const LONGEST_PAUSE: Duration = Duration::from_millis(500);

/// Keyword and name of the directive in failures.
pub const KEYWORD: &str = "forward";

impl Forward {
    /// Asks upstreams in the order of the policy until one answers.
    pub(super) async fn exchange(&self, request: &Request<'_>) -> Result<Response, Failure> {
        let start = Instant::now();
        let deadline = start + OVERALL_TIMEOUT;
        // Whoever asks knows by then that there is no answer, and may still ask elsewhere before his own patience (5 s, most often) ends.
        let last_round = deadline.min(start + self.options.read_timeout);
        let upstreams = self.roster.upstreams(deadline).await.map_err(|error| Failure::servfail(KEYWORD, error))?;
        let order = self.selector.order(upstreams.len(), |bound| rand::random_range(0..bound));
        let asked = Arc::new(Asked::new(request));
        let options = &self.options;

        let mut failure: Option<TryError> = None;
        let mut last_response = None;
        let mut attempts = 0;
        let mut pause = FIRST_PAUSE;
        loop {
            let mut skipped = 0;
            for position in &order {
                let Some(mut upstream) = upstreams.get(usize::from(*position)) else { continue };
                let mut is_last_resort = false;
                if upstream.health.is_down(options.max_fails) {
                    skipped += 1;
                    if skipped < upstreams.len() {
                        continue;
                    }
                    self.metrics.healthcheck_broken.increment();
                    if options.failfast_all_unhealthy_upstreams {
                        return Err(Self::fail(failure));
                    }
                    // Every one is down: health checking itself may be broken, so one is asked nevertheless.
                    is_last_resort = true;
                    if let Some(any) = upstreams.get(rand::random_range(0..upstreams.len())) {
                        upstream = any;
                    }
                }
                match self.ask(upstream, &asked, request).await {
                    Ok(response) if options.failover.contains(&response.rcode()) => {
                        // The answer of the last upstream stands.
                        last_response = Some(response);
                    }
                    Ok(response) => return Ok(response),
                    Err(TryError::NoQuestion(_)) => return Ok(Response::empty(request.query, request.wire, Rcode::FORMERR)),
                    Err(error) => {
                        tracing::debug!(upstream = %upstream.address, %error, "try failed");
                        failure = Some(error);
                        if options.max_fails != 0 {
                            health::start_probing(upstream);
                        }
                        attempts += 1;
                        if is_last_resort || (options.max_connect_attempts != 0 && attempts >= options.max_connect_attempts) {
                            return last_response.ok_or_else(|| Self::fail(failure));
                        }
                    }
                }
                if Instant::now() >= deadline {
                    return last_response.ok_or_else(|| Self::fail(failure));
                }
            }
            if let Some(response) = last_response {
                return Ok(response);
            }
            if Instant::now() + pause >= last_round {
                return Err(Self::fail(failure));
            }
            tokio::time::sleep(pause).await;
            pause = (pause * 2).min(LONGEST_PAUSE);
        }
    }

    /// Asks one upstream, and again without EDNS if it does not understand that (RFC 6891 section 7): so what it answers is not the one thing with
    /// EDNS and another without.
    async fn ask(&self, upstream: &Arc<Upstream>, asked: &Arc<Asked>, request: &Request<'_>) -> Result<Response, TryError> {
        let mut plain = None;
        loop {
            let outcome = self.ask_once(upstream, plain.as_ref().unwrap_or(asked), request.peer.transport).await;
            let is_refusal = match &outcome {
                // One that repeats DO has understood the OPT record, and refuses something else.
                Ok(response) => matches!(response.rcode(), Rcode::FORMERR | Rcode::NOTIMP) && !response.dnssec_ok(),
                Err(error) => matches!(error, TryError::NoQuestion(_)),
            };
            if !is_refusal || plain.is_some() || request.query.edns.is_none() {
                return outcome;
            }
            plain = Some(Arc::new(Asked::without_edns(request)));
        }
    }

    /// Asks one upstream by the transport that the options and the client's own give.
    async fn ask_once(&self, upstream: &Arc<Upstream>, asked: &Arc<Asked>, client: Transport) -> Result<Response, TryError> {
        let transport = match (self.options.force_tcp, self.options.prefer_udp) {
            (true, _) => Transport::Tcp,
            (false, true) => Transport::Udp,
            (false, false) => client,
        };
        let response = upstream.ask(asked, transport).await?;
        if response.is_truncated() && transport == Transport::Udp && self.options.prefer_udp {
            return upstream.ask(asked, Transport::Tcp).await;
        }
        Ok(response)
    }

    fn fail(failure: Option<TryError>) -> Failure {
        match failure {
            Some(error) => Failure::servfail(KEYWORD, error),
            None => Failure::servfail(KEYWORD, "no healthy proxies"),
        }
    }
}
