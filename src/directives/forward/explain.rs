//! What a `forward` would do with a request, in words.

use super::config::KEYWORD;
use super::upstream::Upstream;
use super::upstream_query::UpstreamQuery;
use super::upstream_set::NoUpstreams;
use super::{Forward, policy::UpstreamPolicy};
use crate::chain::{Course, Effect, Encryption, Explanation, Failure, Following, Request, Transport};
use crate::message::Rcode;
use std::sync::Arc;

/// Upstreams that are told of one by one.
const MOST_UPSTREAMS: usize = 16;

impl Forward {
    /// See [`crate::chain::Handler::explain`].
    pub(super) fn explain_asking(
        &self,
        request: &Request<'_>,
        rest: Following<'_>,
        explanation: &mut Explanation,
    ) -> Course {
        let name = &request.query.name;
        if !self.is_forwarded(name) {
            let excepted = self.except.iter().find(|zone| name.is_within(zone.as_wire()));
            match excepted.filter(|_| name.is_within(self.from.as_wire())) {
                Some(zone) => explanation.say(format!("forwards no names of {zone} (except)")),
                None => explanation.say(format!("forwards names of {} alone", self.from)),
            }
            return rest.explain(request, explanation);
        }
        let options = &self.exchanger.options;
        let (usable, looping) = match self.exchanger.upstreams.peek() {
            Ok(upstreams) => upstreams,
            Err(error @ NoUpstreams::Unresolved(_)) => {
                // The first queries wait for it.
                explanation.say(error.to_string());
                explanation.settle(Effect::Asks, "asks upstreams whose names are not resolved yet");
                return Course::Asks;
            }
            Err(error) => return explanation.end(Err(Failure::servfail(KEYWORD, error)), None),
        };
        let query = UpstreamQuery::new(request);
        let is_up = |upstream: &&Arc<Upstream>| !upstream.health.is_down(options.max_fails);
        let up: Vec<&Arc<Upstream>> = usable.iter().filter(is_up).collect();
        if up.is_empty() && options.failfast_all_unhealthy_upstreams {
            explanation.say("all upstreams are down, and it fails at once then (failfast_all_unhealthy_upstreams)");
            return explanation.end(Err(Failure::servfail(KEYWORD, "no healthy proxies")), None);
        }
        if usable.len() > 1 {
            explanation.say(self.order_words(usable.len()));
        }
        for upstream in usable.iter().take(MOST_UPSTREAMS) {
            let state = match (is_up(&upstream), upstream.health.failures()) {
                (true, 0) => "up".to_owned(),
                (true, failures) => format!("up, though {failures} health checks in a row have failed"),
                (false, failures) => format!("down: {failures} health checks in a row have failed"),
            };
            let way = self.way(upstream, request, &query);
            explanation.say(format!("{} over {way}: {state}", upstream.address));
        }
        if usable.len() > MOST_UPSTREAMS {
            explanation.say(format!("and {} more", usable.len() - MOST_UPSTREAMS));
        }
        if !looping.is_empty() {
            let looping: Vec<String> = looping.iter().map(ToString::to_string).collect();
            explanation.say(format!("left out, as they lead back to us: {}", looping.join(", ")));
        }
        let verdict = match up.as_slice() {
            [] => "asks an upstream, though all are down".to_owned(),
            [one] => format!("asks {} over {}", one.address, self.way(one, request, &query)),
            many => {
                let first = self.first_asked(&usable).filter(|first| is_up(first)).unwrap_or(many[0]);
                match options.policy {
                    UpstreamPolicy::Random => format!("asks one of {} upstreams", many.len()),
                    UpstreamPolicy::RoundRobin | UpstreamPolicy::Sequential => {
                        format!("asks {} over {}", first.address, self.way(first, request, &query))
                    }
                }
            }
        };
        self.explain_next(rest.keyword() == Some(KEYWORD), explanation);
        explanation.settle(Effect::Asks, verdict);
        Course::Asks
    }

    /// In which order upstreams are asked.
    fn order_words(&self, count: usize) -> String {
        let options = &self.exchanger.options;
        let order = match options.policy {
            UpstreamPolicy::Random => "in any order (policy random)",
            UpstreamPolicy::RoundRobin => "by turns (policy round_robin)",
            UpstreamPolicy::Sequential => "in this order (policy sequential)",
        };
        format!("asks its {count} upstreams until one answers, {order}:")
    }

    /// The upstream that would be the first.
    fn first_asked<'u>(&self, usable: &'u [Arc<Upstream>]) -> Option<&'u Arc<Upstream>> {
        let next = self.exchanger.next_in_turn();
        match self.exchanger.options.policy {
            UpstreamPolicy::RoundRobin => usable.get(next.checked_rem(usable.len())?),
            UpstreamPolicy::Random | UpstreamPolicy::Sequential => usable.first(),
        }
    }

    /// Over what an upstream is asked, and why if the client asks over another transport.
    fn way(&self, upstream: &Upstream, request: &Request<'_>, query: &UpstreamQuery) -> &'static str {
        match (upstream.protocol.encryption(), self.exchanger.transport_to(upstream, request)) {
            (Some(Encryption::Tls), _) => "TLS",
            (Some(Encryption::Https), _) => "HTTPS",
            (None, Transport::Tcp) => "TCP",
            (None, Transport::Udp) if upstream.spoof_guard.requires_tcp(query.question(), request.received) => {
                "TCP, as somebody seems to guess answers"
            }
            (None, Transport::Udp) => "UDP",
        }
    }

    /// What becomes of answers that the next `forward` is asked for.
    fn explain_next(&self, has_next: bool, explanation: &mut Explanation) {
        let options = &self.exchanger.options;
        let codes = |rcodes: &[Rcode]| rcodes.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ");
        if !options.failover.is_empty() {
            explanation.say(format!("after {} the next upstream is asked (failover)", codes(&options.failover)));
        }
        let mut next = codes(&options.next);
        if options.next_on_nodata {
            next.push_str(if next.is_empty() { "an answer without records" } else { " or an answer without records" });
        }
        if !next.is_empty() && has_next {
            explanation.say(format!("after {next} the next forward is asked (next)"));
        }
    }
}
