//! The `rewrite` directive changes a query before others answer it, and what they answered before the client gets it;
//! see README.md beside this file.
//!
//! The rules are looked at in their order ([`rule`]). What they make of a request and of its answer is a
//! [`change::RewrittenRequest`]. On both paths the rest of the chain is asked for the rewritten request, and what it
//! says is changed back.

mod change;
mod cname;
mod edns;
mod expansion;
mod explain;
mod name_match;
mod name_rule;
mod parse;
mod rule;
#[cfg(test)]
mod tests;

pub(super) use parse::parse;

use crate::chain::{
    After, Answer, BuildContext, BuildError, Built, Configured, Course, Explanation, Failure, FastPath, FastRest,
    Following, Handler, HitCounters, Lookup, Next, Outcome, OwnedRequest, PacketAnswer, Purpose, Request,
};
use crate::message::{Edit, edit_reply};
use crate::metrics::Counter;
use change::RewrittenRequest;
use futures_util::future::BoxFuture;
use rule::{RewriteOutcome, RewriteRule, judge};
use smallvec::SmallVec;
use std::sync::{Arc, OnceLock};

const KEYWORD: &str = "rewrite";

/// The rules of a server block, all its `rewrite` lines.
pub(super) struct RewriteConfig {
    rules: Arc<Vec<RewriteRule>>,
}

impl Configured for RewriteConfig {
    fn build(&self, context: &BuildContext<'_>) -> Result<Built, BuildError> {
        let counter = |server: &String| {
            Arc::new(context.process.registry.counter(
                "nodelocaldns_rewrite_requests_total",
                "Requests answered that a rule has changed, or their answers.",
                &[("server", server), ("view", context.view_name())],
            ))
        };
        let rewritten = context.servers.iter().map(counter).collect();
        let rewrite = Rewrite { rules: self.rules.clone(), lookup: OnceLock::new(), rewritten };
        Ok(Built { handler: Some(Arc::new(rewrite)), ..Built::default() })
    }
}

/// The running directive.
struct Rewrite {
    rules: Arc<Vec<RewriteRule>>,
    /// For targets of CNAME records.
    lookup: OnceLock<Lookup>,
    /// For each listen address.
    rewritten: Vec<Arc<Counter>>,
}

/// Octets of a rewritten query that are kept on the stack; with longer ones the slow path is taken.
const QUICK_LENGTH: usize = 320;
const USUAL_LENGTH: usize = 128;

impl Rewrite {
    /// Counts a request that is answered, if a rule has changed it or its answer.
    fn count(&self, request: &Request<'_>, is_rewritten: bool) {
        if is_rewritten
            && request.purpose == Purpose::Answer
            && let Some(rewritten) = self.rewritten.get(request.server_index)
        {
            rewritten.increment();
        }
    }

    async fn answer(&self, request: Request<'_>, change: Box<RewrittenRequest<'_>>, next: Next<'_>) -> Outcome {
        let rewritten = Box::new(rewritten(&request, &change));
        let outcome = next.run(rewritten.borrow()).await;
        let mut is_rewritten = change.is_rewritten && !outcome.as_ref().is_err_and(Failure::is_silence);
        let answer = match outcome {
            Ok(answer) => answer,
            Err(failure) => {
                self.count(&request, is_rewritten);
                return Err(Failure { rcode: change.rcode(failure.rcode), ..failure });
            }
        };
        let Answer { mut response, from } = answer;
        // A refresh is for the cache, which stands behind: what the rules make of it is thrown away.
        for rule in change.cname_rules().filter(|_| request.purpose == Purpose::Answer) {
            if let Some(lookup) = self.lookup.get()
                && let Some(replaced) = rule.follow(&response, &rewritten, lookup).await
            {
                response = replaced;
                is_rewritten = true;
            }
        }
        self.count(&request, is_rewritten);
        if change.leaves_records() {
            return Ok(Answer { response, from });
        }
        let edited = response.edited(request.query, request.wire, &*change);
        let response =
            edited.map_err(|error| Failure::servfail(KEYWORD, format!("the answer cannot be rewritten: {error}")))?;
        Ok(Answer { response, from })
    }
}

/// The request as it goes on.
fn rewritten(request: &Request<'_>, change: &RewrittenRequest<'_>) -> OwnedRequest {
    let mut wire = SmallVec::new();
    let question = (change.name(), change.qtype, change.qclass);
    let mut query = request.query.with_question(request.wire, question, &mut wire);
    let (mut options, mut client_subnet) = (request.options.cloned(), request.client_subnet.copied());
    if let Some(changes) = &change.options {
        options = changes.for_upstream();
        client_subnet = changes.subnet(request.client_subnet);
        if options.is_some() || client_subnet.is_some() {
            query.offer_edns(&mut wire, request.udp_size());
        }
    }
    OwnedRequest {
        wire,
        query,
        peer: *request.peer,
        server_index: request.server_index,
        zone: request.zone,
        udp_cap: request.udp_cap,
        client_subnet,
        nsid: request.nsid.cloned(),
        options,
        metadata: request.metadata.cloned(),
        trail: request.trail.cloned(),
        received: request.received,
        purpose: request.purpose,
        wants_refresh: false,
        spans: None,
    }
}

impl Handler for Rewrite {
    fn keyword(&self) -> &'static str {
        KEYWORD
    }

    fn explain(&self, request: &Request<'_>, rest: Following<'_>, explanation: &mut Explanation) -> Course {
        self.explain_rules(request, rest, explanation)
    }

    fn set_lookup(&self, lookup: &Lookup) {
        // It is set once, when the plan is built.
        _ = self.lookup.set(lookup.clone());
    }

    fn serve_fast(&self, _request: &Request<'_>, _reply: &mut Vec<u8>) -> FastPath {
        FastPath::Through
    }

    fn serve_fast_through(&self, request: &Request<'_>, rest: FastRest<'_>, reply: &mut Vec<u8>) -> (FastPath, usize) {
        let mut change = RewrittenRequest::new(request.query);
        match judge(&self.rules, request, true, &mut change) {
            RewriteOutcome::Untouched => return rest.run(request, reply),
            RewriteOutcome::Changed => {}
            RewriteOutcome::NoName(_) | RewriteOutcome::Slow => return (FastPath::Slow, 0),
        }
        // Most queries are short, and room that is not used is zeroed too.
        let (mut usual, mut long);
        let buffer = match change.length(request.wire) {
            ..=USUAL_LENGTH => {
                usual = [0; USUAL_LENGTH];
                &mut usual[..]
            }
            _ => {
                long = [0; QUICK_LENGTH];
                &mut long[..]
            }
        };
        let Some(wire) = change.write(request.wire, buffer) else { return (FastPath::Slow, 0) };
        let start = reply.len();
        // Under its own name, which may be a shorter one, the client takes more records.
        let is_cut_later = !change.leaves_records();
        let (said, place) = rest.run(&Request { wire, query: change.query(), is_cut_later, ..*request }, reply);
        match said {
            FastPath::Answered(_) => {}
            FastPath::Silent | FastPath::SlowAndRefresh => return (said, place),
            FastPath::Pass | FastPath::Slow | FastPath::Through => return (FastPath::Slow, place),
        }
        let asked = request.query.question(request.wire);
        if change.leaves_records() {
            if let Some(place) = reply.get_mut(start + 12..start + 12 + asked.len()) {
                place.copy_from_slice(asked);
            }
        } else if edit_reply((request.query, request.wire), change.name(), &change, request.limit(), reply, start)
            .is_err()
        {
            reply.truncate(start);
            let wants_refresh = said == FastPath::Answered(After::Refresh);
            return (if wants_refresh { FastPath::SlowAndRefresh } else { FastPath::Slow }, place);
        }
        self.count(request, true);
        (said, place)
    }

    fn hit_counters(
        &self,
        request: &Request<'_>,
        answered: PacketAnswer,
        rest: FastRest<'_>,
        counters: &mut HitCounters,
    ) {
        let mut change = RewrittenRequest::new(request.query);
        match judge(&self.rules, request, true, &mut change) {
            RewriteOutcome::Changed => {
                if let Some(rewritten) = self.rewritten.get(request.server_index) {
                    counters.push(rewritten.clone());
                }
                rest.hit_counters(&rewritten(request, &change).borrow(), answered, counters);
            }
            RewriteOutcome::Untouched | RewriteOutcome::NoName(_) | RewriteOutcome::Slow => {
                rest.hit_counters(request, answered, counters)
            }
        }
    }

    fn serve<'a>(&'a self, request: Request<'a>, next: Next<'a>) -> BoxFuture<'a, Outcome> {
        let mut change = Box::new(RewrittenRequest::new(request.query));
        match judge(&self.rules, &request, false, &mut change) {
            RewriteOutcome::Untouched | RewriteOutcome::Slow => next.run(request),
            RewriteOutcome::Changed => Box::pin(self.answer(request, change, next)),
            RewriteOutcome::NoName(text) => {
                let failure = Failure::servfail(KEYWORD, format!("invalid name after rewrite: {text}"));
                Box::pin(async { Err(failure) })
            }
        }
    }
}
