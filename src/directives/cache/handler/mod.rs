//! The cache in a block's chain: answers what it keeps, keeps what the rest of the chain answers.

use super::classify::{Classification, Lifetimes, ResponseClass, classify};
use super::entry::{Age, Entry, Fresh, Key, Kind, Moment, Payload};
use super::metrics::{Gauges, Metrics};
use super::parse::{Prefetch, Stale, StaleMode};
use super::store::{Store, View};
use super::subnet_answers::SubnetAnswers;
use crate::chain::{
    After, Answer, Failure, FastPath, Handler, HitCounter, MemoryBudget, Next, Outcome, Peer, ProcessContext, Purpose, Request,
    Transport, unix_seconds,
};
use crate::message::{LowerName, Query, Rcode, RecordType, Response, TtlRule};
use futures_util::future::BoxFuture;
use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant};

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

/// What decides how long answers are served.
pub(super) struct Policy {
    pub lifetimes: Lifetimes,
    pub prefetch: Option<Prefetch>,
    pub stale: Option<Stale>,
    pub keep_ttl: bool,
}

impl Policy {
    fn stale_seconds(&self) -> u32 {
        self.stale.map_or(0, |stale| stale.up_to)
    }

    pub fn age(&self, entry: &Entry<Response>, now: Moment) -> Age {
        entry.age(now, self.lifetimes.cap(entry.kind(), entry.payload.rcode()), self.stale_seconds())
    }

    fn prefers_positive(&self) -> bool {
        self.stale.is_some_and(|stale| stale.prefer_positive && stale.up_to > 0)
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
    budget: Arc<MemoryBudget>,
    /// Held for the registry, which holds it weakly.
    _before_scrape: Arc<dyn Fn() + Send + Sync>,
}

impl Kept {
    /// A store with these capacities, and its gauges for each server.
    pub fn new([success, denial]: [usize; 2], process: &ProcessContext, servers: &[String], zones: &str) -> Self {
        let store = Arc::new(Store::new(success, denial, process.cache_memory.clone()));
        let gauges = Gauges::new(store.clone(), &process.registry, servers, zones);
        let before_scrape: Arc<dyn Fn() + Send + Sync> = Arc::new(move || gauges.refresh());
        process.registry.before_scrape(Arc::downgrade(&before_scrape));
        let budget = process.cache_memory.clone();
        Self { store, tailored: OnceLock::new(), budget, _before_scrape: before_scrape }
    }
}

/// An entry that may be served.
struct Hit<'a> {
    entry: &'a Entry<Response>,
    age: Age,
}

/// What the slow path does with a request.
enum Step {
    /// Nothing is kept that may be served.
    Ask,
    /// Serve this.
    Serve { response: Response, refresh: bool },
    /// Ask, and serve this if that fails.
    Verify { stale: Response },
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
        self.metrics.get(request.server)
    }

    /// The entry to serve. A denial goes before a positive answer, which it is newer than; but not a SERVFAIL, which says nothing
    /// about the name; nor any with `prefer_positive`.
    fn select<'v>(&self, view: &'v View<'_, Response>, key: &Key<'_>, now: Moment) -> Option<Hit<'v>> {
        let kept = view.find_kinds(key);
        let usable = |kind: Kind| {
            let entry = kept[kind.index()]?;
            let age = self.policy.age(entry, now);
            (age != Age::Gone).then_some(Hit { entry, age })
        };
        if self.policy.prefers_positive()
            && let Some(hit) = usable(Kind::Success).filter(|hit| hit.entry.answering)
        {
            return Some(hit);
        }
        match usable(Kind::Denial) {
            Some(denial) if denial.entry.payload.rcode() == Rcode::SERVFAIL => Some(usable(Kind::Success).unwrap_or(denial)),
            Some(denial) => Some(denial),
            None => usable(Kind::Success),
        }
    }

    /// Seconds for every record of the reply.
    fn reply_ttl(&self, hit: &Hit<'_>) -> u32 {
        let entry = hit.entry;
        match (hit.age, self.policy.stale) {
            (Age::Stale | Age::Gone, Some(Stale { response_ttl: ttl @ 1.., .. })) => ttl,
            _ if self.policy.keep_ttl => entry.ttl(self.policy.lifetimes.cap(entry.kind(), entry.payload.rcode())),
            (Age::Fresh(remaining), _) => remaining,
            (Age::Stale | Age::Gone, _) => 0,
        }
    }

    /// Counts the query towards prefetch; true for the one that shall refresh the entry.
    fn wants_refresh(&self, hit: &Hit<'_>, now: Moment) -> bool {
        match hit.age {
            Age::Fresh(remaining) => self.policy.prefetch.is_some_and(|prefetch| {
                let ttl = u64::from(hit.entry.ttl(self.policy.lifetimes.cap(hit.entry.kind(), hit.entry.payload.rcode())));
                let threshold = (ttl * u64::from(prefetch.percentage)).div_ceil(100);
                hit.entry.frequency.count(now, prefetch.gap) >= prefetch.amount
                    && u64::from(remaining) <= threshold
                    && hit.entry.refresh.begin(now)
            }),
            Age::Stale | Age::Gone => hit.entry.refresh.begin(now),
        }
    }

    /// Whether the upstreams must be asked before this is served.
    fn must_verify(&self, hit: &Hit<'_>) -> bool {
        hit.age == Age::Stale && matches!(self.policy.stale, Some(Stale { mode: StaleMode::Verify { .. }, .. }))
    }

    fn count_hit(&self, request: &Request<'_>, hit: &Hit<'_>) {
        if let Some(metrics) = self.metrics(request) {
            metrics.hit(hit.entry.kind());
            if hit.age == Age::Stale {
                metrics.served_stale.increment();
            }
        }
    }

    fn serve_fast(&self, request: &Request<'_>, reply: &mut Vec<u8>) -> FastPath {
        if !self.covers(request.query) {
            return FastPath::Pass;
        }
        let key = self.key(request.query);
        let now = self.store().moment(request.received);
        let Some(view) = self.store().try_view(&key) else { return FastPath::Slow };
        let Some(hit) = self.select(&view, &key, now).filter(|hit| !self.must_verify(hit)) else { return FastPath::Slow };
        hit.entry.touch();
        let shape = request.reply(TtlRule::Set(self.reply_ttl(&hit)));
        hit.entry.payload.write(request.query, request.wire, shape, reply);
        self.count_hit(request, &hit);
        FastPath::Answered(self.after(&hit, now))
    }

    /// What is to follow a hit of the fast path. A fresh answer may be repeated while its age in seconds is the same; but not where prefetch
    /// counts the queries for each, and not to its last millisecond, which `now` is exact to.
    fn after(&self, hit: &Hit<'_>, now: Moment) -> After {
        if self.wants_refresh(hit, now) {
            return After::Refresh;
        }
        let millis = hit.entry.millis_to_next_second(now).saturating_sub(1);
        match hit.age {
            Age::Fresh(_) if millis > 0 && self.policy.prefetch.is_none() => {
                After::CachePacket { millis, note: note_of(hit.entry.kind()) }
            }
            _ => After::Nothing,
        }
    }

    fn step(&self, request: &Request<'_>, key: &Key<'_>) -> Step {
        let now = self.store().moment(request.received);
        let view = self.store().view(key);
        let Some(hit) = self.select(&view, key, now) else {
            if let Some(metrics) = self.metrics(request) {
                metrics.miss();
            }
            return Step::Ask;
        };
        hit.entry.touch();
        let mut response = hit.entry.payload.clone();
        response.set_ttls(self.reply_ttl(&hit));
        if !self.must_verify(&hit) {
            self.count_hit(request, &hit);
            return Step::Serve { response, refresh: self.wants_refresh(&hit, now) };
        }
        if hit.entry.refresh.is_pausing(now) {
            self.count_hit(request, &hit);
            return Step::Serve { response, refresh: false };
        }
        if let Some(metrics) = self.metrics(request) {
            metrics.hit(hit.entry.kind());
        }
        Step::Verify { stale: response }
    }

    async fn answer(self: &Arc<Self>, request: Request<'_>, next: Next<'_>) -> Outcome {
        let key = self.key(request.query);
        match self.step(&request, &key) {
            Step::Ask => {
                let clock = Clock::start(&request);
                let answer = next.run(request).await?;
                let verdict = classify(&answer.response, unix_seconds);
                Ok(self.take(&request, answer, verdict, clock.now(), false).0)
            }
            Step::Serve { response, refresh } => {
                if refresh {
                    let (inner, rest) = (Arc::clone(self), next.to_rest());
                    let mut owned = request.to_owned();
                    owned.purpose = Purpose::Refresh;
                    tokio::spawn(async move { inner.refresh(owned.borrow(), rest.next()).await });
                }
                Ok(Answer { response, from: KEYWORD })
            }
            Step::Verify { stale } => {
                if let Some(answer) = self.verify(request, next).await {
                    return Ok(answer);
                }
                if let Some(metrics) = self.metrics(&request) {
                    metrics.served_stale.increment();
                }
                Ok(Answer { response: stale, from: KEYWORD })
            }
        }
    }

    /// A newer answer than the stale one, if it comes in time. The question goes on in the background if it does not.
    async fn verify(self: &Arc<Self>, request: Request<'_>, next: Next<'_>) -> Option<Answer> {
        let Some(Stale { mode: StaleMode::Verify { timeout: Some(timeout) }, .. }) = self.policy.stale else {
            return self.renew(request, next).await.ok();
        };
        let (inner, owned, rest) = (Arc::clone(self), request.to_owned(), next.to_rest());
        let asking = tokio::spawn(async move { inner.renew(owned.borrow(), rest.next()).await.ok() });
        tokio::time::timeout(timeout, asking).await.ok()?.ok()?
    }

    /// The run of the chain that nobody waits for.
    async fn refresh(&self, request: Request<'_>, next: Next<'_>) -> Outcome {
        if let Some(metrics) = self.metrics(&request) {
            metrics.prefetches.increment();
        }
        let peer = self.refresh_peer(&request);
        self.renew(Request { peer: &peer, ..request }, next).await
    }

    /// A client on UDP may refresh an answer that only TCP can carry; asked over UDP it would come truncated, and never be renewed.
    fn refresh_peer(&self, request: &Request<'_>) -> Peer {
        let key = self.key(request.query);
        let view = self.store().view(&key);
        let limit = request.udp_limit();
        let is_large = |kind| view.find(kind, &key).is_some_and(|entry| entry.payload.wire().len() > limit);
        match Kind::ALL.into_iter().any(is_large) {
            true => Peer { transport: Transport::Tcp, ..*request.peer },
            false => *request.peer,
        }
    }

    /// Asks for a newer answer to what is kept. One that says something about the name takes its place; any other leaves it there
    /// (RFC 8767 section 5) and is an error here.
    async fn renew(&self, request: Request<'_>, next: Next<'_>) -> Outcome {
        let clock = Clock::start(&request);
        let outcome = next.run(request).await;
        let now = clock.now();
        let key = self.key(request.query);
        let outcome = outcome.and_then(|answer| self.consider(&request, &key, answer, now));
        let pause = match (&outcome, self.policy.stale) {
            (Err(_), Some(stale)) => stale.failure_recheck,
            _ => Duration::ZERO,
        };
        let moment = self.store().moment(now);
        let view = self.store().view(&key);
        Kind::ALL.into_iter().filter_map(|kind| view.find(kind, &key)).for_each(|entry| entry.refresh.end(moment, pause));
        outcome
    }

    /// Puts a newer answer in the place of what is kept, or refuses it.
    fn consider(&self, request: &Request<'_>, key: &Key<'_>, answer: Answer, now: Instant) -> Outcome {
        let verdict = classify(&answer.response, unix_seconds);
        let fits = !answer.response.is_truncated() && answer.response.is_for(key);
        if fits && self.renews(verdict, answer.response.rcode()) {
            let (answer, is_kept) = self.take(request, answer, verdict, now, true);
            // What it contradicts may not be served any longer, though it has not found a place itself.
            if !is_kept {
                Kind::ALL.into_iter().for_each(|kind| self.store().remove(kind, key));
            }
            return Ok(answer);
        }
        if fits && self.policy.prefers_positive() {
            self.take(request, answer, verdict, now, true);
        }
        Err(Failure::servfail(KEYWORD, "the upstream's answer does not renew the one that is kept"))
    }

    fn renews(&self, verdict: Classification, rcode: Rcode) -> bool {
        if self.policy.prefers_positive() {
            return verdict.answering && verdict.class == ResponseClass::Positive;
        }
        verdict.class != ResponseClass::Other && matches!(rcode, Rcode::NOERROR | Rcode::NXDOMAIN)
    }

    /// Gives the answer the TTL it is kept for, and keeps it if it may be; tells whether it is.
    fn take(
        &self,
        request: &Request<'_>,
        mut answer: Answer,
        verdict: Classification,
        now: Instant,
        is_refresh: bool,
    ) -> (Answer, bool) {
        let Some((kind, fresh)) = self.fresh_of(request, &mut answer, verdict) else { return (answer, false) };
        let is_kept = self.keep(request, &self.key(request.query), kind, fresh, self.store().moment(now), is_refresh);
        (answer, is_kept)
    }

    /// Gives the answer the TTL it is kept for; what is to be kept of it, if it may be.
    fn fresh_of(&self, request: &Request<'_>, answer: &mut Answer, verdict: Classification) -> Option<(Kind, Fresh<Response>)> {
        let ttl = self.policy.lifetimes.of(verdict.class, &answer.response);
        answer.response.set_ttls(ttl);
        let kind = verdict.class.kind().filter(|_| ttl > 0 && !answer.response.is_truncated())?;
        if !answer.response.is_for(&self.key(request.query)) {
            self.metrics(request).inspect(|metrics| metrics.drops.increment());
            return None;
        }
        if is_within_any(&request.query.name, &self.disabled[kind.index()]) {
            return None;
        }
        let mut payload = answer.response.clone();
        // What is kept is no longer the authority's own word.
        payload.set_flag(AUTHORITATIVE, false);
        // A kept answer repeats the client's CD, as a resolver's must (RFC 4035 section 3.2.2) and the reference's do; one handed on is the
        // upstream's word.
        payload.set_flag(CHECKING_DISABLED, request.query.header.checking_disabled());
        Some((kind, Fresh { payload, ttl, answering: verdict.answering }))
    }

    fn keep(
        &self,
        request: &Request<'_>,
        key: &Key<'_>,
        kind: Kind,
        fresh: Fresh<Response>,
        now: Moment,
        is_refresh: bool,
    ) -> bool {
        let prefers_positive = self.policy.prefers_positive();
        // With it, the last positive answer stays until another takes its place or it has been stale for too long.
        if prefers_positive && kind == Kind::Success && !fresh.answering && self.has_usable_answer(key, now) {
            return false;
        }
        let is_failure = matches!(fresh.payload.rcode(), Rcode::SERVFAIL | Rcode::NOTIMP);
        // The newest word holds: an older one of the other kind must not come back when this expires.
        let supersedes = match kind {
            Kind::Success => !prefers_positive || fresh.answering,
            Kind::Denial => !prefers_positive && !is_failure,
        };
        let useless = |entry: &Entry<Response>| self.policy.age(entry, now) == Age::Gone;
        let insertion = self.store().insert(key, kind, fresh, now, is_refresh, &useless);
        self.metrics(request).inspect(|metrics| metrics.evicted(insertion.evicted));
        if insertion.is_kept && supersedes && self.has(kind.other(), key) {
            self.store().remove(kind.other(), key);
        }
        insertion.is_kept
    }

    fn has(&self, kind: Kind, key: &Key<'_>) -> bool {
        self.store().view(key).find(kind, key).is_some()
    }

    fn has_usable_answer(&self, key: &Key<'_>, now: Moment) -> bool {
        let view = self.store().view(key);
        view.find(Kind::Success, key).is_some_and(|entry| entry.answering && self.policy.age(entry, now) != Age::Gone)
    }
}

/// Note of a reply that may be repeated: the kind of the hit.
fn note_of(kind: Kind) -> u8 {
    kind.index() as u8
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

    fn serve_fast(&self, request: &Request<'_>, reply: &mut Vec<u8>) -> FastPath {
        self.0.serve_fast(request, reply)
    }

    fn hit_counter(&self, request: &Request<'_>, note: u8) -> Option<Arc<dyn HitCounter>> {
        let (metrics, kind) = (self.0.metrics(request)?, Kind::ALL.get(usize::from(note))?);
        Some(metrics.hits(*kind).clone())
    }

    fn serve<'a>(&'a self, request: Request<'a>, next: Next<'a>) -> BoxFuture<'a, Outcome> {
        if !self.0.covers(request.query) {
            return next.run(request);
        }
        if let Some(subnet) = request.client_subnet {
            return Box::pin(self.0.answer_for_subnet(request, subnet, next));
        }
        match request.purpose {
            Purpose::Answer => Box::pin(self.0.answer(request, next)),
            Purpose::Refresh => Box::pin(self.0.refresh(request, next)),
        }
    }
}

mod subnets;
#[cfg(test)]
mod tests;
