//! Requests with a client subnet (RFC 7871), or with options that a directive has put there for the upstream: what they
//! are given, and for whom their answers are kept.

use super::super::classify::{Classification, classify};
use super::super::entry::{Age, Entry, Moment};
use super::super::store::QueryCount;
use super::super::subnet_answers::{Audience, SubnetAnswers};
use super::lookup::Hit;
use super::{Clock, Inner, KEYWORD};
use crate::chain::{Answer, KeptSubnet, Next, Outcome, Request, unix_seconds};
use crate::message::{ClientSubnet, RequestKey, Response, Scope};
use smallvec::SmallVec;

impl Inner {
    /// Answers a request with a client subnet from what was made for a network that has it, or for everybody, and keeps
    /// what the rest of the chain answers for those for whom it is. Neither prefetches nor serves what is stale.
    pub(super) async fn answer_for_subnet(&self, request: Request<'_>, subnet: &KeptSubnet, next: Next<'_>) -> Outcome {
        if let Some(response) = self.find_for_subnet(&request, subnet) {
            return Ok(Answer { response, from: KEYWORD });
        }
        if let Some(metrics) = self.metrics(&request) {
            metrics.miss();
        }
        let clock = Clock::start(&request);
        let mut answer = next.run(request).await?;
        let verdict = classify(&answer.response, unix_seconds);
        let asked = subnet.asked;
        match answer.response.scope() {
            Some(Scope::Stated(0)) if !asked.is_untailored() && request.options.is_none() => {
                return Ok(self.take(&request, answer, verdict, clock.now(), QueryCount::Restarted).0);
            }
            scope => {
                // Without a scope it is not from an upstream that was told of the subnet, and nobody knows for whom it
                // is.
                let audience = scope.map(|scope| match scope {
                    // For everybody whose request has these options, which is not told by the subnet.
                    Scope::Stated(0) if !asked.is_untailored() => Audience::Subnet(asked),
                    Scope::Stated(bits) if bits <= asked.prefix() => Audience::Network(asked.cut_to(bits)),
                    Scope::Stated(_) | Scope::Unstated => Audience::Subnet(asked),
                });
                self.keep_for(audience, &request, &mut answer, verdict, &clock);
            }
        }
        Ok(answer)
    }

    /// The most closely fitting answer that is fresh: one for a network around the subnet, else one for everybody that
    /// was found to be so by a query with a subnet. What those without one are given may have been made for this node.
    fn find_for_subnet(&self, request: &Request<'_>, subnet: &KeptSubnet) -> Option<Response> {
        let now = self.store().moment(request.received);
        let give = |entry: &Entry<Response>| {
            let hit = Hit { entry, age: self.policy.age(entry, now) };
            self.count_hit(request, &hit);
            let mut response = entry.payload.clone();
            response.set_ttls(self.reply_ttl(&hit));
            response
        };
        if let Some(tailored) = self.kept.tailored.get() {
            let question = question_of(request);
            if let Some(entry) = tailored.find(&question, &subnet.asked, |entry| self.is_fresh(entry, now)) {
                return Some(give(&entry));
            }
        }
        if request.options.is_some() {
            return None;
        }
        let key = self.key(request.query);
        let view = self.store().view(&key);
        let hit = self.select(&view, &key, now)?;
        if hit.entry.payload.scope() != Some(Scope::Stated(0)) || !self.is_fresh(hit.entry, now) {
            return None;
        }
        hit.entry.touch();
        Some(give(hit.entry))
    }

    /// Answers a request with options for the upstream from what was answered to one with the same, and keeps what the
    /// rest of the chain answers for those. Neither prefetches nor serves what is stale.
    pub(super) async fn answer_with_options(&self, request: Request<'_>, next: Next<'_>) -> Outcome {
        let nobody = ClientSubnet::UNTAILORED;
        if let Some(response) = self.find_for_subnet(&request, &KeptSubnet { sent: nobody, asked: nobody }) {
            return Ok(Answer { response, from: KEYWORD });
        }
        if let Some(metrics) = self.metrics(&request) {
            metrics.miss();
        }
        let clock = Clock::start(&request);
        let mut answer = next.run(request).await?;
        let verdict = classify(&answer.response, unix_seconds);
        self.keep_for(Some(Audience::Subnet(nobody)), &request, &mut answer, verdict, &clock);
        Ok(answer)
    }

    /// Gives the answer the TTL that it has here, and keeps it for those for whom it is, if that is known and there is
    /// room for its kind.
    fn keep_for(
        &self,
        audience: Option<Audience>,
        request: &Request<'_>,
        answer: &mut Answer,
        verdict: Classification,
        clock: &Clock,
    ) {
        if let Some((kind, fresh)) = self.fresh_of(request, answer, verdict)
            && self.store().capacity(kind) > 0
            && let Some(audience) = audience
        {
            let now = self.store().moment(clock.now());
            let ttl = fresh.ttl;
            let entry = Entry::new(&self.key(request.query), kind, fresh, now);
            let is_usable = |entry: &Entry<Response>| self.is_fresh(entry, now);
            self.tailored().keep(&question_of(request), audience, entry, ttl, is_usable);
        }
    }

    fn is_fresh(&self, entry: &Entry<Response>, now: Moment) -> bool {
        matches!(self.policy.age(entry, now), Age::Fresh(_))
    }

    fn tailored(&self) -> &SubnetAnswers {
        self.kept.tailored.get_or_init(|| SubnetAnswers::new(self.kept.budget.clone()))
    }
}

/// What an answer for some is kept under: everything that it may depend on but the subnet.
fn question_of(request: &Request<'_>) -> SmallVec<[u8; 64]> {
    RequestKey { client_subnet: None, ..request.key() }.octets()
}
