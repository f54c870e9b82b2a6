//! Newer answers to what is kept: asked for in the background (prefetch, a stale answer that was served at once), or
//! before a stale one is served (`serve_stale verify`). All come in through [`Inner::renew`].

use super::super::classify::{Classification, ResponseClass, classify};
use super::super::entry::{Age, Key, Kind, Moment, Payload};
use super::super::metrics::StaleCause;
use super::super::parse::{Prefetch, Stale, StaleMode};
use super::super::store::QueryCount;
use super::lookup::Hit;
use super::{Clock, Inner, KEYWORD};
use crate::chain::{Answer, Failure, Next, Outcome, OwnedRequest, Peer, Purpose, Request, Transport, unix_seconds};
use crate::message::Rcode;
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio::task::JoinHandle;

/// How long a stale answer that is to be verified is held back, where `verify` has no time of its own. An upstream that
/// is down is waited for no longer than for one try, and clients, who wait for 5 s, have their answer.
const VERIFY_TIMEOUT: Duration = Duration::from_secs(2);

impl Inner {
    /// Counts the query towards prefetch; true for the one that shall refresh the entry.
    pub(super) fn wants_refresh(&self, hit: &Hit<'_>, now: Moment) -> bool {
        match hit.age {
            Age::Fresh(remaining) => self.policy.prefetch.is_some_and(|prefetch| {
                hit.entry.frequency.count(now, prefetch.gap) >= prefetch.amount
                    && self.is_prefetched_at(hit, prefetch, remaining)
                    && hit.entry.refresh.begin(now)
            }),
            Age::Stale(_) | Age::Gone => hit.entry.refresh.begin(now),
        }
    }

    /// Whether so few of a hit's seconds remain that it is prefetched if enough queries are for it.
    pub(super) fn is_prefetched_at(&self, hit: &Hit<'_>, prefetch: Prefetch, remaining: u32) -> bool {
        let cap = self.policy.lifetimes.cap(hit.entry.kind(), hit.entry.payload.rcode());
        let ttl = u64::from(hit.entry.ttl(cap));
        u64::from(remaining) <= (ttl * u64::from(prefetch.percentage)).div_ceil(100)
    }

    /// A newer answer than the stale one if it comes in time, else why the stale one is served. The question goes on in
    /// the background when it takes too long.
    pub(super) async fn verify(self: &Arc<Self>, request: Request<'_>, next: Next<'_>) -> Result<Answer, StaleCause> {
        let timeout = match self.policy.stale {
            Some(Stale { mode: StaleMode::Verify { timeout: Some(timeout) }, .. }) => timeout,
            _ => VERIFY_TIMEOUT,
        };
        let renewal = self.renew_in_background(&request, next, request.purpose);
        match tokio::time::timeout(timeout, renewal).await {
            Ok(Ok(Ok(answer))) => Ok(answer),
            Ok(Ok(Err(_)) | Err(_)) => Err(StaleCause::Failed),
            Err(_) => Err(StaleCause::Late),
        }
    }

    /// Has the rest of the chain asked in the background for a newer answer to what is served now.
    pub(super) fn refresh_later(self: &Arc<Self>, request: &Request<'_>, next: Next<'_>) {
        self.count_prefetch(request);
        self.renew_in_background(request, next, Purpose::Refresh);
    }

    /// Has [`Inner::renew`] run to its end, whoever waits for it.
    fn renew_in_background(
        self: &Arc<Self>,
        request: &Request<'_>,
        next: Next<'_>,
        purpose: Purpose,
    ) -> JoinHandle<Outcome> {
        let (inner, rest) = (Arc::clone(self), next.to_rest());
        let trail = request.trail.filter(|_| purpose == Purpose::Answer).cloned();
        let owned = OwnedRequest { purpose, trail, ..request.to_owned() };
        tokio::spawn(async move { inner.renew(owned.borrow(), rest.next()).await })
    }

    fn count_prefetch(&self, request: &Request<'_>) {
        if let Some(metrics) = self.metrics(request) {
            metrics.prefetches.increment();
        }
    }

    /// The run of the chain that nobody waits for.
    pub(super) async fn refresh(&self, request: Request<'_>, next: Next<'_>) -> Outcome {
        self.count_prefetch(&request);
        self.renew(request, next).await
    }

    /// What the rest of the chain answers. Where UDP has no room for it, it is asked over TCP: whoever asks over UDP
    /// would otherwise have nothing newer than what is kept, until somebody asks over TCP.
    async fn ask_for_whole(&self, request: Request<'_>, next: Next<'_>) -> Outcome {
        let answer = next.run(request).await?;
        if request.peer.transport == Transport::Tcp || !answer.response.is_truncated() {
            return Ok(answer);
        }
        let peer = Peer { transport: Transport::Tcp, ..*request.peer };
        next.run(Request { peer: &peer, ..request }).await
    }

    /// Asks for a newer answer to what is kept. One that says something about the name takes its place; any other
    /// leaves it there (RFC 8767 section 5) and is an error here.
    async fn renew(&self, request: Request<'_>, next: Next<'_>) -> Outcome {
        let clock = Clock::start(&request);
        let outcome = self.ask_for_whole(request, next).await;
        let now = clock.now();
        let key = self.key(request.query);
        let outcome = outcome.and_then(|answer| self.consider(&request, &key, answer, now));
        let pause = match (&outcome, self.policy.stale) {
            (Err(_), Some(stale)) => stale.failure_recheck,
            _ => Duration::ZERO,
        };
        let moment = self.store().moment(now);
        let view = self.store().view(&key);
        Kind::ALL
            .into_iter()
            .filter_map(|kind| view.find(kind, &key))
            .for_each(|entry| entry.refresh.end(moment, pause));
        outcome
    }

    /// Puts a newer answer in the place of what is kept, or refuses it.
    fn consider(&self, request: &Request<'_>, key: &Key<'_>, answer: Answer, now: Instant) -> Outcome {
        let verdict = classify(&answer.response, unix_seconds);
        let fits = !answer.response.is_truncated() && answer.response.is_for(key);
        if fits && self.renews(verdict, answer.response.rcode()) {
            let (answer, is_kept) = self.take(request, answer, verdict, now, QueryCount::Continued);
            // What it contradicts may not be served any longer, though it has not found a place itself.
            if !is_kept {
                Kind::ALL.into_iter().for_each(|kind| self.store().remove(kind, key));
            }
            return Ok(answer);
        }
        if fits && self.policy.prefers_positive() {
            self.take(request, answer, verdict, now, QueryCount::Continued);
        }
        Err(Failure::servfail(KEYWORD, "the upstream's answer does not renew the one that is kept"))
    }

    /// Whether an answer may take the place of what is kept. It must say what the name has, or that there is nothing: a
    /// referral, or aliases without the records that they lead to, say that whoever answered did not get to the end.
    pub(super) fn renews(&self, verdict: Classification, rcode: Rcode) -> bool {
        if self.policy.prefers_positive() {
            return verdict.answering && verdict.class == ResponseClass::Positive;
        }
        match verdict.class {
            ResponseClass::Positive | ResponseClass::NoData | ResponseClass::NameError => {
                matches!(rcode, Rcode::NOERROR | Rcode::NXDOMAIN)
            }
            ResponseClass::Incomplete | ResponseClass::Referral | ResponseClass::ServerError | ResponseClass::Other => {
                false
            }
        }
    }
}
