//! The `acl` directive decides by a client's address, and by what it asks, who is answered; see README.md beside this
//! file.

mod parse;
mod policy;

pub(super) use parse::parse;

use crate::chain::{
    Answer, BuildContext, BuildError, Built, Configured, Failure, FastPath, FastRest, Handler, HitCounters, Networks,
    Next, Outcome, PacketAnswer, Purpose, Request,
};
use crate::message::{ExtendedError, LowerName, Rcode, ReplyOptions, Response};
use crate::metrics::Counter;
use futures_util::future::BoxFuture;
use policy::{AclAction, AclRule};
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

/// The running directive.
struct Acl {
    rules: Vec<AclRule>,
    /// By listen address.
    metrics: Vec<AclMetrics>,
}

impl Acl {
    /// What is to be done with the request. All but what is allowed is counted.
    fn decide(&self, request: &Request<'_>) -> AclAction {
        let client = request.peer.client.ip().to_canonical();
        for (index, rule) in self.rules.iter().enumerate() {
            let Some(zone) = rule.zone_of(&request.query.name) else { continue };
            let Some(action) = rule.decide(client, request.query.qtype) else { continue };
            let metrics = self.metrics.get(request.server_index);
            if let Some([blocked, filtered, dropped]) =
                metrics.and_then(|metrics| metrics.refused.get(index)?.get(zone))
            {
                match action {
                    AclAction::Allow => {}
                    AclAction::Block => blocked.increment(),
                    AclAction::Filter => filtered.increment(),
                    AclAction::Drop => dropped.increment(),
                }
            }
            return action;
        }
        AclAction::Allow
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
        let (rcode, why) = match self.decide(request) {
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
        let rcode = match self.decide(&request) {
            AclAction::Allow => {
                if request.purpose == Purpose::Answer {
                    self.count_allowed(&request);
                }
                return next.run(request);
            }
            AclAction::Drop => return Box::pin(async { Err(Failure::silence(KEYWORD)) }),
            AclAction::Block => Rcode::REFUSED,
            AclAction::Filter => Rcode::NOERROR,
        };
        let response = Response::empty(request.query, request.wire, rcode);
        Box::pin(async move { Ok(Answer { response, from: KEYWORD }) })
    }
}

#[cfg(test)]
mod tests;
