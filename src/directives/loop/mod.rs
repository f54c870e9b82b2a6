//! The `loop` directive finds upstreams that lead back to us and leaves them out; see README.md beside this file.

mod probes;
mod watch;

use crate::chain::{
    Answer, BlockConfig, BuildContext, BuildError, Built, ChainUpstreams, Configured, Course, Explanation, FastPath,
    Following, Handler, Next, Outcome, ParseContext, Part, Request,
};
use crate::corefile::{Directive, value};
use crate::message::{Rcode, RecordType, Response};
use crate::metrics::Registry;
use futures_util::future::BoxFuture;
use std::sync::Arc;
use watch::Watch;

const KEYWORD: &str = "loop";
const DETECTED: &str = "nodelocaldns_loop_detected";

/// Reads one `loop` of a server block.
pub(super) fn parse(directive: &Directive, block: &mut BlockConfig, context: &mut ParseContext<'_>) {
    value::no_arguments(directive, context.diagnostics);
    value::no_options(directive, context.diagnostics);
    block.parts.push(Part { keyword: KEYWORD, span: directive.keyword.span, configured: Box::new(LoopConfig) });
}

struct LoopConfig;

impl Configured for LoopConfig {
    fn build(&self, context: &BuildContext<'_>) -> Result<Built, BuildError> {
        let watch = Arc::new(Watch::new(context.zone(), ChainUpstreams::of(context)));
        let registry = &context.process.registry;
        let handler = Loop::new(watch.clone(), context.servers.into(), registry.clone());
        Ok(Built { handler: Some(Arc::new(handler)), background: vec![Box::pin(watch.run())], ..Built::default() })
    }
}

/// Sees the probes that come back.
struct Loop {
    watch: Arc<Watch>,
    servers: Arc<[String]>,
    registry: Registry,
    // Held for the registry, which calls it while it lives.
    _refresh: Arc<dyn Fn() + Send + Sync>,
}

impl Loop {
    fn new(watch: Arc<Watch>, servers: Arc<[String]>, registry: Registry) -> Self {
        let refresh: Arc<dyn Fn() + Send + Sync> = Arc::new({
            let (watch, servers, registry) = (watch.clone(), servers.clone(), registry.clone());
            move || show(&watch, &servers, &registry)
        });
        registry.before_scrape(Arc::downgrade(&refresh));
        Self { watch, servers, registry, _refresh: refresh }
    }
}

/// Sets the gauges of a chain's upstreams from their marks.
fn show(watch: &Watch, servers: &[String], registry: &Registry) {
    let help = "1 while an upstream is left out because queries sent to it come back to us.";
    let zone = watch.zone().to_string();
    for (address, is_looping) in watch.marks() {
        for server in servers {
            let labels = [("server", server.as_str()), ("zone", &zone), ("to", &address.to_string())];
            registry.gauge(DETECTED, help, &labels).set(f64::from(u8::from(is_looping)));
        }
    }
}

impl Drop for Loop {
    /// Takes the chain's gauges away; a successor sets its own at the next scrape.
    fn drop(&mut self) {
        let zone = self.watch.zone().to_string();
        self.registry.retain(DETECTED, |labels| match labels {
            [server, of, ..] => *of != zone || !self.servers.iter().any(|own| own == server),
            _ => true,
        });
    }
}

impl Handler for Loop {
    fn keyword(&self) -> &'static str {
        KEYWORD
    }

    fn explain(&self, request: &Request<'_>, rest: Following<'_>, explanation: &mut Explanation) -> Course {
        let query = request.query;
        if query.qtype == RecordType::HINFO && self.watch.awaits(&query.name) {
            explanation.say("this is a probe of ours, under way: if it comes back, its upstream is left out");
            let response = Response::empty(query, request.wire, Rcode::NXDOMAIN);
            return explanation.end(Ok(Answer { response, from: KEYWORD }), None);
        }
        let looping = self.watch.marks().into_iter().filter(|(_, is_looping)| *is_looping);
        let looping: Vec<String> = looping.map(|(address, _)| address.to_string()).collect();
        match looping.as_slice() {
            [] => explanation.say("no upstream leads back to us"),
            some => explanation.say(format!("left out, as they lead back to us: {}", some.join(", "))),
        }
        rest.explain(request, explanation)
    }

    fn serve_fast(&self, request: &Request<'_>, _reply: &mut Vec<u8>) -> FastPath {
        if request.query.qtype == RecordType::HINFO { FastPath::Slow } else { FastPath::Pass }
    }

    fn serve<'a>(&'a self, request: Request<'a>, next: Next<'a>) -> BoxFuture<'a, Outcome> {
        let query = request.query;
        if query.qtype == RecordType::HINFO && self.watch.sight(&query.name, request.peer.client) {
            // Not handed on, so that no probe goes round twice. Whoever sent it to us has no reason to ask again.
            let response = Response::empty(query, request.wire, Rcode::NXDOMAIN);
            return Box::pin(async move { Ok(Answer { response, from: KEYWORD }) });
        }
        next.run(request)
    }
}

#[cfg(test)]
mod tests;
