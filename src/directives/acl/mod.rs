//! The `acl` directive decides by a client's address, and by what it asks, who is answered; see README.md beside this
//! file.

mod parse;
mod policy;

pub(super) use parse::parse;

use crate::chain::{
    Answer, BuildContext, BuildError, Built, Configured, Course, Explanation, Failure, FastPath, FastRest, Following,
    Handler, HitCounters, Networks, Next, Outcome, PacketAnswer, Purpose, Request,
};
use crate::message::{ExtendedError, LowerName, Rcode, ReplyOptions, Response};
use crate::metrics::Counter;
use futures_util::future::BoxFuture;
use policy::{AclAction, AclPolicy, AclRule};
use std::sync::Arc;

const KEYWORD: &str = "acl";

/// Codes that say why an answer is what it is (RFC 8914 sections 4.16 and 4.18).
const BLOCKED: u16 = 15;
const FILTERED: u16 = 17;

/// All `acl` of a server block.
pub(super) struct AclConfig {
    rules: Vec<AclRule>,
}

impl Configured for AclConfig {
    fn build(&self, context: &BuildContext<'_>) -> Result<Built, BuildError> {
        let metrics = context.servers.iter().map(|server| AclMetrics::new(&self.rules, server, context)).collect();
        let acl = Acl { rules: self.rules.clone(), metrics };
        Ok(Built { handler: Some(Arc::new(acl)), ..Built::default() })
    }
}

/// Counters of one listen address.
struct AclMetrics {
    allowed: Arc<Counter>,
    /// By rule and zone: blocked, filtered, dropped.
    refused: Vec<Vec<[Counter; 3]>>,
}

impl AclMetrics {
    fn new(rules: &[AclRule], server: &str, context: &BuildContext<'_>) -> Self {
        let (registry, view) = (&context.process.registry, context.view_name());
        let of_zone = |zone: &LowerName| {
            let zone = zone.to_string();
            let labels = [("server", server), ("zone", zone.as_str()), ("view", view)];
            [
                registry.counter("coredns_acl_blocked_requests_total", "Requests answered REFUSED.", &labels),
                registry.counter("coredns_acl_filtered_requests_total", "Requests answered without records.", &labels),
                registry.counter("coredns_acl_dropped_requests_total", "Requests not answered.", &labels),
            ]
        };
        Self {
            allowed: Arc::new(registry.counter(
                "coredns_acl_allowed_requests_total",
                "Requests handed on.",
                &[("server", server), ("view", view)],
            )),
            refused: rules.iter().map(|rule| rule.zones.iter().map(of_zone).collect()).collect(),
        }
    }
}

/// What a policy says of a request, and which.
#[derive(Clone, Copy)]
struct Decision {
    rule: usize,
    zone: usize,
    policy: usize,
    action: AclAction,
}

/// The code of an answer without records.
fn rcode_of(action: AclAction) -> Rcode {
    if action == AclAction::Block { Rcode::REFUSED } else { Rcode::NOERROR }
}

/// The running directive.
struct Acl {
    rules: Vec<AclRule>,
    /// By listen address.
    metrics: Vec<AclMetrics>,
}

impl Acl {
    /// What the first policy that is for the request says; `None` if none is.
    fn decide(&self, request: &Request<'_>) -> Option<Decision> {
        let client = request.peer.client.ip().to_canonical();
        self.rules.iter().enumerate().find_map(|(rule, acl)| {
            let zone = acl.zone_of(&request.query.name)?;
            let (policy, action) = acl.decide(client, request.query.qtype)?;
            Some(Decision { rule, zone, policy, action })
        })
    }

    fn policy(&self, Decision { rule, policy, .. }: Decision) -> Option<&AclPolicy> {
        self.rules.get(rule)?.policies.get(policy)
    }

    /// What is to be done with the request. All but what is allowed is counted.
    fn act(&self, request: &Request<'_>) -> AclAction {
        let Some(Decision { rule, zone, action, .. }) = self.decide(request) else { return AclAction::Allow };
        let metrics = self.metrics.get(request.server_index);
        if let Some([blocked, filtered, dropped]) = metrics.and_then(|metrics| metrics.refused.get(rule)?.get(zone)) {
            match action {
                AclAction::Allow => {}
                AclAction::Block => blocked.increment(),
                AclAction::Filter => filtered.increment(),
                AclAction::Drop => dropped.increment(),
            }
        }
        action
    }

    fn count_allowed(&self, request: &Request<'_>) {
        if let Some(metrics) = self.metrics.get(request.server_index) {
            metrics.allowed.increment();
        }
    }
}

impl Handler for Acl {
    fn keyword(&self) -> &'static str {
        KEYWORD
    }

    fn explain(&self, request: &Request<'_>, rest: Following<'_>, explanation: &mut Explanation) -> Course {
        let decision = self.decide(request);
        if let Some(policy) = decision.and_then(|decision| self.policy(decision)) {
            explanation.set_place(policy.place);
        }
        let client = request.peer.client.ip().to_canonical();
        let action = decision.map_or(AclAction::Allow, |decision| decision.action);
        match action {
            AclAction::Allow => {
                let why = if decision.is_some() { "as this policy says" } else { "as no policy is for it" };
                explanation.say(format!("allows {client}, {why}"));
                return rest.explain(request, explanation);
            }
            AclAction::Drop => {
                explanation.say(format!("{client} gets no answer, as this policy says"));
                return explanation.end(Err(Failure::silence(KEYWORD)), Some("dropped by acl".to_owned()));
            }
            AclAction::Block => explanation.say(format!("{client} is refused, as this policy says")),
            AclAction::Filter => explanation.say(format!("{client} gets no records, as this policy says")),
        }
        let verdict = if action == AclAction::Block { "refused by acl" } else { "answered without records by acl" };
        let response = Response::empty(request.query, request.wire, rcode_of(action));
        explanation.end(Ok(Answer { response, from: KEYWORD }), Some(verdict.to_owned()))
    }

    fn client_networks(&self) -> Vec<Networks> {
        self.rules.iter().flat_map(AclRule::networks).cloned().collect()
    }

    fn hit_counters(
        &self,
        request: &Request<'_>,
        answered: PacketAnswer,
        rest: FastRest<'_>,
        counters: &mut HitCounters,
    ) {
        // What it answers itself goes into no packet.
        if let Some(metrics) = self.metrics.get(request.server_index) {
            counters.push(metrics.allowed.clone());
        }
        rest.hit_counters(request, answered, counters);
    }

    fn serve_fast(&self, _request: &Request<'_>, _reply: &mut Vec<u8>) -> FastPath {
        FastPath::Through
    }

    fn serve_fast_through(&self, request: &Request<'_>, rest: FastRest<'_>, reply: &mut Vec<u8>) -> (FastPath, usize) {
        let (rcode, why) = match self.act(request) {
            AclAction::Allow => {
                let (said, place) = rest.run(request, reply);
                // What takes the slow path is decided, and counted, there.
                return match said {
                    FastPath::Answered(_) | FastPath::Silent => {
                        self.count_allowed(request);
                        (said, place)
                    }
                    FastPath::SlowAndRefresh => (said, place),
                    FastPath::Pass | FastPath::Slow | FastPath::Through => (FastPath::Slow, place),
                };
            }
            AclAction::Drop => return (FastPath::Silent, rest.position() - 1),
            AclAction::Block => (Rcode::REFUSED, BLOCKED),
            AclAction::Filter => (Rcode::NOERROR, FILTERED),
        };
        let mut options = ReplyOptions::default();
        options.push_extended_error(&ExtendedError { code: why, text: String::new() });
        request.query.write_empty(request.wire, rcode, request.udp_size(), &options, reply);
        (FastPath::Answered(crate::chain::After::Nothing), rest.position() - 1)
    }

    fn serve<'a>(&'a self, request: Request<'a>, next: Next<'a>) -> BoxFuture<'a, Outcome> {
        let action = self.act(&request);
        match action {
            AclAction::Allow => {
                if request.purpose == Purpose::Answer {
                    self.count_allowed(&request);
                }
                return next.run(request);
            }
            AclAction::Drop => return Box::pin(async { Err(Failure::silence(KEYWORD)) }),
            AclAction::Block | AclAction::Filter => {}
        }
        let response = Response::empty(request.query, request.wire, rcode_of(action));
        Box::pin(async move { Ok(Answer { response, from: KEYWORD }) })
    }
}

#[cfg(test)]
mod tests;
