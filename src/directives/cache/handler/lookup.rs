//! Looks a question up in the cache, on the fast path and on the slow one.

use super::super::entry::{Age, Entry, Key, Kind, Moment};
use super::super::metrics::StaleCause;
use super::super::parse::{Stale, StaleMode};
use super::super::store::View;
use super::Inner;
use super::policy::is_failure;
use crate::chain::{After, FastPath, FastRest, Purpose, Request};
use crate::message::{QuestionKey, Rcode, RecordType, Response, TtlRule};

/// An entry that may be served.
pub(super) struct Hit<'a> {
    pub entry: &'a Entry<Response>,
    pub age: Age,
}

/// What the slow path does with a request.
pub(super) enum LookupOutcome {
    /// Nothing is kept that may be served.
    Ask,
    Serve(Response),
    /// Serve this, and ask for a newer one meanwhile.
    ServeAndRefresh(Response),
    /// Ask, and serve this if that fails, which expired so many seconds ago.
    Verify(Response, u32),
}

impl Inner {
    /// The entry to serve. A denial goes before a positive answer, which it is newer than; but not a SERVFAIL, which
    /// says nothing about the name; nor any with `prefer_positive`.
    pub(super) fn select<'v>(&self, view: &'v View<'_, Response>, key: &Key<'_>, now: Moment) -> Option<Hit<'v>> {
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
            Some(denial) if is_failure(denial.entry.payload.rcode()) => Some(usable(Kind::Success).unwrap_or(denial)),
            Some(denial) => Some(denial),
            None => usable(Kind::Success),
        }
    }

    /// Seconds for every record of the reply.
    pub(super) fn reply_ttl(&self, hit: &Hit<'_>) -> u32 {
        let entry = hit.entry;
        match (hit.age, self.policy.stale) {
            (Age::Stale(_) | Age::Gone, Some(Stale { response_ttl: ttl @ 1.., .. })) => ttl,
            _ if self.policy.keep_ttl => entry.ttl(self.policy.lifetimes.cap(entry.kind(), entry.payload.rcode())),
            (Age::Fresh(remaining), _) => remaining,
            (Age::Stale(_) | Age::Gone, _) => 0,
        }
    }

    /// How many seconds ago this expired, if the upstreams must be asked before it is served.
    fn stale_to_verify(&self, hit: &Hit<'_>) -> Option<u32> {
        match hit.age {
            Age::Stale(seconds) if self.verifies() => Some(seconds),
            _ => None,
        }
    }

    /// Whether upstreams are asked before anything stale is served.
    pub(super) fn verifies(&self) -> bool {
        matches!(self.policy.stale, Some(Stale { mode: StaleMode::Verify { .. }, .. }))
    }

    pub(super) fn count_hit(&self, request: &Request<'_>, hit: &Hit<'_>) {
        if let Some(metrics) = self.metrics(request) {
            metrics.hit(hit.entry.kind());
            if let Age::Stale(seconds) = hit.age {
                // Those that are to be verified come here in the pause after that has failed.
                let cause = if self.verifies() { StaleCause::Failed } else { StaleCause::Immediate };
                metrics.stale(cause, seconds);
            }
        }
    }

    pub(super) fn serve_fast(&self, request: &Request<'_>, reply: &mut Vec<u8>) -> FastPath {
        if !self.covers(request.query) {
            return FastPath::Pass;
        }
        let key = self.key(request.query);
        let now = self.store().moment(request.received);
        let Some(view) = self.store().try_view(&key) else { return FastPath::Slow };
        let Some(hit) = self.select(&view, &key, now) else { return FastPath::Through };
        if self.stale_to_verify(&hit).is_some() {
            return FastPath::Slow;
        }
        hit.entry.touch();
        let shape = request.reply(TtlRule::Set(self.reply_ttl(&hit)));
        hit.entry.payload.write_to_its_question(request.query, request.wire, shape, reply);
        self.count_hit(request, &hit);
        FastPath::Answered(self.after(&hit, now))
    }

    /// See [`crate::chain::Handler::show_fast`].
    pub(super) fn show_fast(
        &self,
        request: &Request<'_>,
        qtype: RecordType,
        take: &mut dyn FnMut(&Response, u32) -> bool,
    ) -> Option<After> {
        if !self.covers(request.query) {
            return None;
        }
        let key = self.store().key(QuestionKey { qtype, ..request.query.question_key() });
        let now = self.store().moment(request.received);
        let view = self.store().try_view(&key)?;
        let hit = self.select(&view, &key, now).filter(|hit| self.stale_to_verify(hit).is_none())?;
        if !take(&hit.entry.payload, self.reply_ttl(&hit)) {
            return None;
        }
        hit.entry.touch();
        self.count_hit(request, &hit);
        Some(self.after(&hit, now))
    }

    /// Hands on a question to which nothing is kept: an answer that would not be kept either need not take the slow
    /// path. Any other, and one that needs it, comes by there.
    pub(super) fn hand_on_fast(
        &self,
        request: &Request<'_>,
        rest: FastRest<'_>,
        reply: &mut Vec<u8>,
    ) -> (FastPath, usize) {
        let start = reply.len();
        let (said, place) = rest.run(&Request { purpose: Purpose::BehindCache, ..*request }, reply);
        if let FastPath::Answered(_) = said {
            if is_never_kept(reply.get(start..).unwrap_or_default(), request.query.edns.is_some()) {
                if let Some(metrics) = self.metrics(request) {
                    metrics.miss();
                }
                return (said, place);
            }
            reply.truncate(start);
        }
        (FastPath::Slow, place)
    }

    /// What is to follow a hit of the fast path. A fresh answer may be repeated while its age in seconds is the same;
    /// but not where prefetch counts the queries for each, and not to its last millisecond, which `now` is exact to.
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

    pub(super) fn step(&self, request: &Request<'_>, key: &Key<'_>) -> LookupOutcome {
        let now = self.store().moment(request.received);
        let view = self.store().view(key);
        let Some(hit) = self.select(&view, key, now) else {
            if let Some(metrics) = self.metrics(request) {
                metrics.miss();
            }
            return LookupOutcome::Ask;
        };
        hit.entry.touch();
        let mut response = hit.entry.payload.clone();
        response.set_ttls(self.reply_ttl(&hit));
        let Some(seconds) = self.stale_to_verify(&hit) else {
            self.count_hit(request, &hit);
            return if self.wants_refresh(&hit, now) {
                LookupOutcome::ServeAndRefresh(response)
            } else {
                LookupOutcome::Serve(response)
            };
        };
        if hit.entry.refresh.is_pausing(now) {
            self.count_hit(request, &hit);
            return LookupOutcome::Serve(response);
        }
        if let Some(metrics) = self.metrics(request) {
            metrics.hit(hit.entry.kind());
        }
        LookupOutcome::Verify(response, seconds)
    }
}

/// True of a reply that is not kept whatever the configuration, and given on as it is: it has no record, but for that
/// of EDNS.
fn is_never_kept(reply: &[u8], has_opt: bool) -> bool {
    let Some([_, _, _, flags, _, _, counts @ ..]) = reply.first_chunk::<12>() else { return false };
    *counts == [0, 0, 0, 0, 0, has_opt.into()] && !Rcode(u16::from(flags & 0x0f)).is_cached_bare()
}

/// Note of a reply that may be repeated: the kind of the hit.
pub(super) fn note_of(kind: Kind) -> u32 {
    kind.index() as u32
}
