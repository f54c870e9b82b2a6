//! The cache in a block's chain: answers what it keeps, keeps what the rest of the chain answers.

mod explain;
mod insertion;
mod lookup;
mod policy;
mod refresh;
mod subnets;
#[cfg(test)]
mod tests;

pub(super) use policy::Policy;

use super::classify::classify;
use super::entry::{Key, Kind, Payload};
use super::metrics::{Gauges, Labels, Metrics};
use super::store::{QueryCount, Store};
use super::subnet_answers::SubnetAnswers;
use crate::chain::{
    After, Answer, Course, Explanation, FastPath, FastRest, Following, Handler, HitCounter, HitCounters, MemoryBudget,
    Next, Outcome, PacketAnswer, ProcessContext, Purpose, Request, unix_seconds,
};
use crate::message::{LowerName, Query, RecordType, Response};
use futures_util::future::BoxFuture;
use lookup::LookupOutcome;
use parking_lot::Mutex;
use std::sync::{Arc, OnceLock, Weak};
use std::time::Instant;

/// Header flag AA (RFC 1035 section 4.1.1).
pub(super) const AUTHORITATIVE: u16 = 0x0400;
/// Header flag CD (RFC 4035 section 3.2.2).
pub(super) const CHECKING_DISABLED: u16 = 0x0010;

impl Payload for Response {
    fn is_for(&self, key: &Key<'_>) -> bool {
        self.question_matches(key.name, RecordType(key.qtype), crate::message::Class(key.qclass))
    }
    fn heap_size(&self) -> usize {
        Self::heap_size(self)
    }
}

/// The `cache` of a server block.
pub(super) struct Cache(pub Arc<Inner>);

pub(super) struct Inner {
    /// Lower-case wire form; `None`: every name that gets here.
    pub zones: Option<Box<[LowerName]>>,
    /// Zones of which each kind is not kept.
    pub disabled: [Box<[LowerName]>; 2],
    pub policy: Policy,
    pub kept: Arc<Kept>,
    /// One for each listen address.
    pub metrics: Box<[Metrics]>,
}

/// What a reload keeps: the answers, and what tells of them.
pub(super) struct Kept {
    pub store: Arc<Store<Response>>,
    /// Answers for some clients only. Made when there is one, which is never without `client_subnet`.
    pub tailored: OnceLock<SubnetAnswers>,
    /// Whose answers these are: listen addresses, zones, and the view.
    pub of: CacheIdentity,
    /// The cache of the plan that serves.
    pub serving: Mutex<Weak<Inner>>,
    budget: Arc<MemoryBudget>,
    /// Held for the registry, which holds it weakly.
    _before_scrape: Arc<dyn Fn() + Send + Sync>,
}

/// What tells one cache of a process from the others, as its metrics do.
#[derive(Clone, Debug, Default)]
pub(super) struct CacheIdentity {
    pub servers: Vec<String>,
    pub zones: String,
    /// Empty without one.
    pub view: String,
}

impl Kept {
    /// A store with these capacities, and its gauges for each server.
    pub(super) fn new(
        [success, denial]: [usize; 2],
        process: &ProcessContext,
        servers: &[String],
        labels: Labels<'_>,
    ) -> Self {
        let store = Arc::new(Store::new(success, denial, process.cache_memory.clone()));
        let gauges = Gauges::new(store.clone(), &process.registry, servers, labels);
        let before_scrape: Arc<dyn Fn() + Send + Sync> = Arc::new(move || gauges.refresh());
        process.registry.before_scrape(Arc::downgrade(&before_scrape));
        let budget = process.cache_memory.clone();
        let of =
            CacheIdentity { servers: servers.to_vec(), zones: labels.zones.to_owned(), view: labels.view.to_owned() };
        let (tailored, serving) = (OnceLock::new(), Mutex::default());
        Self { store, tailored, of, serving, budget, _before_scrape: before_scrape }
    }
}

impl Inner {
    fn store(&self) -> &Store<Response> {
        &self.kept.store
    }

    fn covers(&self, query: &Query) -> bool {
        self.zones.as_ref().is_none_or(|zones| is_within_any(&query.name, zones))
    }

    fn key<'q>(&self, query: &'q Query) -> Key<'q> {
        self.store().key(query.question_key())
    }

    fn metrics(&self, request: &Request<'_>) -> Option<&Metrics> {
        self.metrics.get(request.server_index)
    }

    async fn answer(self: &Arc<Self>, request: Request<'_>, next: Next<'_>) -> Outcome {
        let key = self.key(request.query);
        match self.step(&request, &key) {
            LookupOutcome::Ask => {
                let clock = Clock::start(&request);
                let answer = next.run(request).await?;
                let verdict = classify(&answer.response, unix_seconds);
                Ok(self.take(&request, answer, verdict, clock.now(), QueryCount::Restarted).0)
            }
            LookupOutcome::Serve(response) => Ok(Answer { response, from: KEYWORD }),
            LookupOutcome::ServeAndRefresh(response) => {
                self.refresh_later(&request, next);
                Ok(Answer { response, from: KEYWORD })
            }
            LookupOutcome::Verify(stale, seconds) => {
                let cause = match self.verify(request, next).await {
                    Ok(answer) => return Ok(answer),
                    Err(cause) => cause,
                };
                if let Some(metrics) = self.metrics(&request) {
                    metrics.stale(cause, seconds);
                }
                if let Some(trail) = request.trail {
                    trail.note_stale();
                }
                Ok(Answer { response: stale, from: KEYWORD })
            }
        }
    }
}

fn is_within_any(name: &LowerName, zones: &[LowerName]) -> bool {
    zones.iter().any(|zone| name.is_within(zone.as_wire()))
}

/// Goes on from the time a request was received, so that a test's clock is followed.
struct Clock {
    received: Instant,
    started: tokio::time::Instant,
}

impl Clock {
    fn start(request: &Request<'_>) -> Self {
        Self { received: request.received, started: tokio::time::Instant::now() }
    }
    fn now(&self) -> Instant {
        self.received + self.started.elapsed()
    }
}

pub(super) const KEYWORD: &str = "cache";

impl Handler for Cache {
    fn keyword(&self) -> &'static str {
        KEYWORD
    }

    fn explain(&self, request: &Request<'_>, rest: Following<'_>, explanation: &mut Explanation) -> Course {
        self.0.explain(request, rest, explanation)
    }

    fn serve_fast(&self, request: &Request<'_>, reply: &mut Vec<u8>) -> FastPath {
        self.0.serve_fast(request, reply)
    }

    fn serve_fast_through(&self, request: &Request<'_>, rest: FastRest<'_>, reply: &mut Vec<u8>) -> (FastPath, usize) {
        self.0.hand_on_fast(request, rest, reply)
    }

    fn show_fast(
        &self,
        request: &Request<'_>,
        qtype: RecordType,
        take: &mut dyn FnMut(&Response, u32) -> bool,
    ) -> Option<After> {
        self.0.show_fast(request, qtype, take)
    }

    fn hit_counters(
        &self,
        request: &Request<'_>,
        answered: PacketAnswer,
        rest: FastRest<'_>,
        counters: &mut HitCounters,
    ) {
        if answered.position < rest.position() {
            return counters.extend(self.hit_counter(request, answered.note));
        }
        if let Some(metrics) = self.0.metrics(request).filter(|_| self.0.covers(request.query)) {
            counters.push(metrics.misses().clone());
        }
        rest.hit_counters(request, answered, counters);
    }

    fn hit_counter(&self, request: &Request<'_>, note: u32) -> Option<Arc<dyn HitCounter>> {
        let (metrics, kind) = (self.0.metrics(request)?, Kind::ALL.get(note as usize)?);
        Some(metrics.hits(*kind).clone())
    }

    fn serve<'a>(&'a self, request: Request<'a>, next: Next<'a>) -> BoxFuture<'a, Outcome> {
        if !self.0.covers(request.query) {
            return next.run(request);
        }
        if let Some(subnet) = request.client_subnet {
            return Box::pin(self.0.answer_for_subnet(request, subnet, next));
        }
        if request.options.is_some() {
            return Box::pin(self.0.answer_with_options(request, next));
        }
        match request.purpose {
            Purpose::Answer | Purpose::BehindCache => Box::pin(self.0.answer(request, next)),
            Purpose::Refresh => Box::pin(self.0.refresh(request, next)),
        }
    }
}
