//! What the cache would do with a request, in words. Nothing is marked as used, counted or refreshed.

use super::super::classify::classify;
use super::super::entry::{Age, Key, Moment, Payload};
use super::lookup::Hit;
use super::{Inner, KEYWORD};
use crate::chain::{Answer, Course, Explanation, Following, Request, unix_seconds};
use crate::message::{KeyFlags, QuestionKey, Response};

/// What is kept for a request, and may be served.
struct KeptAnswer {
    response: Response,
    /// How long it is kept, in words.
    says: String,
    /// What a client that is given it gets, in words.
    verdict: String,
    /// The upstreams are asked first.
    is_verified: bool,
    /// They are asked meanwhile.
    is_refreshed: bool,
}

impl Inner {
    /// See [`crate::chain::Handler::explain`].
    pub(super) fn explain(&self, request: &Request<'_>, rest: Following<'_>, explanation: &mut Explanation) -> Course {
        if !self.covers(request.query) {
            explanation.say("the name is in none of its zones");
            return rest.explain(request, explanation);
        }
        if request.client_subnet.is_some() || request.options.is_some() {
            explanation.say("answers to queries with EDNS options are kept apart, and not looked for here");
            return rest.explain(request, explanation);
        }
        let key = self.key(request.query);
        let step = explanation.step();
        let kept = self.kept_for(&key, request);
        if let Some(KeptAnswer { says, .. }) = &kept {
            explanation.say(says);
        }
        match kept {
            Some(KeptAnswer { response, verdict, is_verified: false, is_refreshed, .. }) => {
                if is_refreshed {
                    explanation.refresh(request, rest);
                }
                explanation.end(Ok(Answer { response, from: KEYWORD }), Some(verdict))
            }
            Some(KeptAnswer { response: stale, verdict, .. }) => match rest.explain(request, explanation) {
                Course::Known(Ok(answer)) if self.is_newer(&answer, &key) => Course::Known(Ok(answer)),
                Course::Known(_) => {
                    explanation.again(step);
                    explanation.say("serves the stale answer, as that is none that renews it");
                    explanation.end(Ok(Answer { response: stale, from: KEYWORD }), Some(verdict))
                }
                Course::Asks => {
                    explanation
                        .add_to_verdict("; if no newer answer comes in time, the stale one of the cache is served");
                    Course::Asks
                }
            },
            None => {
                explanation.say(self.other_flags(request));
                match rest.explain(request, explanation) {
                    Course::Known(Ok(Answer { mut response, from })) => {
                        let class = classify(&response, unix_seconds).class;
                        response.set_ttls(self.policy.lifetimes.of(class, &response));
                        Course::Known(Ok(Answer { response, from }))
                    }
                    course => course,
                }
            }
        }
    }

    fn kept_for(&self, key: &Key<'_>, request: &Request<'_>) -> Option<KeptAnswer> {
        let now = self.store().moment(request.received);
        let view = self.store().view(key);
        let hit = self.select(&view, key, now)?;
        let mut response = hit.entry.payload.clone();
        response.set_ttls(self.reply_ttl(&hit));
        let age = now.millis_since(hit.entry.stored()) / 1000;
        let rcode = response.rcode();
        Some(match hit.age {
            Age::Fresh(left) => KeptAnswer {
                response,
                says: format!("keeps {rcode} since {age} s, for {left} s more{}", self.prefetch_words(&hit, left)),
                verdict: format!("answered from the cache, {left} s left"),
                is_verified: false,
                is_refreshed: false,
            },
            Age::Stale(seconds) => {
                let (is_verified, is_refreshed, how) = self.stale_words(&hit, now);
                let says = format!("keeps {rcode} since {age} s, and serves it stale: {how}");
                let verdict = format!("answered from the cache, stale: it has expired {seconds} s ago");
                KeptAnswer { response, says, verdict, is_verified, is_refreshed }
            }
            Age::Gone => return None,
        })
    }

    /// Whether the upstreams are asked before a stale answer is served, whether they are meanwhile, and how that is
    /// said.
    fn stale_words(&self, hit: &Hit<'_>, now: Moment) -> (bool, bool, &'static str) {
        let refresh = &hit.entry.refresh;
        if refresh.is_pausing(now) {
            return (false, false, "at once, as no newer one came a moment ago");
        }
        match (self.verifies(), refresh.is_begun(now)) {
            (true, _) => (true, false, "if no newer one comes in time"),
            (false, true) => (false, false, "at once, while a newer one is on its way"),
            (false, false) => (false, true, "at once, and a newer one is asked for meanwhile"),
        }
    }

    fn prefetch_words(&self, hit: &Hit<'_>, left: u32) -> &'static str {
        match self.policy.prefetch.is_some_and(|prefetch| self.is_prefetched_at(hit, prefetch, left)) {
            true => "; a newer one is asked for meanwhile if enough clients want it (prefetch)",
            false => "",
        }
    }

    /// Whether an answer to a question that is kept already takes its place.
    fn is_newer(&self, answer: &Answer, key: &Key<'_>) -> bool {
        let response = &answer.response;
        !response.is_truncated()
            && response.is_for(key)
            && self.renews(classify(response, unix_seconds), response.rcode())
    }

    /// That nothing is kept, but perhaps for queries with other bits of the header or of EDNS.
    fn other_flags(&self, request: &Request<'_>) -> String {
        let now = self.store().moment(request.received);
        let asked = request.query.question_key();
        let is_kept = |flags: &KeyFlags| {
            let key = self.store().key(QuestionKey { flags: *flags, ..asked });
            let view = self.store().view(&key);
            self.select(&view, &key, now).is_some()
        };
        let others = KeyFlags::every().filter(|flags| *flags != asked.flags);
        let words = |flags: KeyFlags| match flags.labels() {
            none if none.is_empty() => "no such bit".to_owned(),
            labels => labels.join("+"),
        };
        let kept: Vec<String> = others.filter(is_kept).map(words).collect();
        match kept.is_empty() {
            true => "keeps no answer to it".to_owned(),
            false => format!("keeps no answer to it, but for queries with {}", kept.join(", ")),
        }
    }
}
