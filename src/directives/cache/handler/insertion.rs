//! Puts answers into the cache, and removes those that they contradict.

use super::super::classify::Classification;
use super::super::entry::{Age, Entry, Fresh, Key, Kind, Moment, Payload};
use super::super::store::QueryCount;
use super::policy::is_failure;
use super::{AUTHORITATIVE, CHECKING_DISABLED, Inner, is_within_any};
use crate::chain::{Answer, Request};
use crate::message::Response;
use std::time::Instant;

impl Inner {
    /// Gives the answer the TTL it is kept for, and keeps it if it may be; tells whether it is.
    pub(super) fn take(
        &self,
        request: &Request<'_>,
        mut answer: Answer,
        verdict: Classification,
        now: Instant,
        count: QueryCount,
    ) -> (Answer, bool) {
        let Some((kind, fresh)) = self.fresh_of(request, &mut answer, verdict) else { return (answer, false) };
        let is_kept = self.keep(request, &self.key(request.query), kind, fresh, self.store().moment(now), count);
        (answer, is_kept)
    }

    /// Gives the answer the TTL it is kept for; what is to be kept of it, if it may be.
    pub(super) fn fresh_of(
        &self,
        request: &Request<'_>,
        answer: &mut Answer,
        verdict: Classification,
    ) -> Option<(Kind, Fresh<Response>)> {
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
        // A kept answer repeats the client's CD, as a resolver's must (RFC 4035 section 3.2.2) and the reference's do;
        // one handed on is the upstream's word.
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
        count: QueryCount,
    ) -> bool {
        let prefers_positive = self.policy.prefers_positive();
        // With it, the last positive answer stays until another takes its place or it has been stale for too long.
        if prefers_positive && kind == Kind::Success && !fresh.answering && self.has_usable_answer(key, now) {
            return false;
        }
        let is_failure = is_failure(fresh.payload.rcode());
        // The newest word holds: an older one of the other kind must not come back when this expires.
        let supersedes = match kind {
            Kind::Success => !prefers_positive || fresh.answering,
            Kind::Denial => !prefers_positive && !is_failure,
        };
        let useless = |entry: &Entry<Response>| self.policy.age(entry, now) == Age::Gone;
        let insertion = self.store().insert(key, kind, fresh, now, count, &useless);
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
