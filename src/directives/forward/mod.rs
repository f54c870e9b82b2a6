//! The `forward` directive; see README.md beside this file.
//!
//! A request joins the flight of its question ([`flight`]); the first of them runs the exchange ([`exchange`]) with one upstream
//! after another ([`upstream`]), each over this worker's own sockets ([`udp`]) or connections ([`tcp`]).

mod asked;
mod error;
mod exchange;
mod flight;
mod health;
mod in_flight;
mod letter_case;
mod line;
mod metrics;
mod parse;
mod policy;
mod resolve;
mod sockets;
mod suspects;
mod target;
mod tcp;
#[cfg(test)]
mod tests;
mod udp;
mod udp_socket;
mod upstream;

use crate::chain::{
    Answer, BlockConfig, BuildContext, BuildError, Built, Configured, Directive, Failure, Next, Outcome, ParseContext, Part,
    Request, Transport,
};
use crate::corefile;
use crate::fairness::{Entry, Gate, Policy};
use crate::message::{LowerName, Name, Rcode, Response};
use exchange::{KEYWORD, OVERALL_TIMEOUT};
use flight::{Flights, Landing, Seat};
use futures_util::future::BoxFuture;
use metrics::ForwardMetrics;
use parse::{Config, Options};
use policy::Selector;
use resolve::Roster;
use smallvec::SmallVec;
use std::sync::Arc;
use std::time::Duration;
use upstream::Settings;

/// Reads one `forward` of a server block.
pub fn parse(directive: &corefile::Directive, block: &mut BlockConfig, context: &mut ParseContext<'_>) {
    if let Some(config) = parse::read(directive, context) {
        block.parts.push(Part { keyword: KEYWORD, span: directive.keyword.span, configured: Box::new(config) });
    }
}

impl Configured for Config {
    fn build(&self, context: &BuildContext<'_>) -> Result<Built, BuildError> {
        let forward = Arc::new(Forward::new(self, context));
        let mut built = Built { link: Some(forward.clone()), ..Built::default() };
        if forward.roster.has_hosts() {
            built.background.push(Box::pin(forward.roster.clone().keep_resolved()));
        }
        Ok(built)
    }
}

/// A [`crate::message::RequestKey`]'s octets, and a [`Room`] where an answer was truncated.
type Key = SmallVec<[u8; 64]>;

/// How much of an answer can come from upstream for a request: without EDNS 512 octets, with it our payload size, by TCP all.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Room {
    Plain,
    Edns,
    Tcp,
}

/// What a flight brings.
#[derive(Clone)]
struct Flown {
    response: Response,
    /// What its leader had.
    room: Room,
}

/// The running directive.
pub struct Forward {
    from: LowerName,
    except: Vec<LowerName>,
    options: Options,
    roster: Arc<Roster>,
    selector: Selector,
    flights: Flights<Key, Result<Flown, Failure>>,
    /// Of `max_concurrent`.
    gate: Option<Arc<Gate>>,
    fairness: Arc<Policy>,
    metrics: ForwardMetrics,
}

impl Forward {
    fn new(config: &Config, context: &BuildContext<'_>) -> Self {
        let options = &config.options;
        let services = context.services;
        let settings = Settings {
            source_address: options.source_address,
            expire: options.expire,
            max_age: options.max_age,
            connections_per_worker: (options.max_idle_conns > 0)
                .then(|| (options.max_idle_conns / services.workers.max(1)).max(1)),
            read_timeout: options.read_timeout,
            use_caps_for_id: options.use_caps_for_id,
            probe_interval: options.probe_interval,
            probe_name: options.probe_name.clone(),
            probe_recursion_desired: options.probe_recursion_desired,
            probe_tcp: options.force_tcp,
        };
        Self {
            from: config.from.to_lower(),
            except: config.except.iter().map(Name::to_lower).collect(),
            options: options.clone(),
            roster: Arc::new(Roster::new(config, settings, context)),
            selector: Selector::new(options.policy),
            flights: Flights::default(),
            gate: (options.max_concurrent > 0).then(|| Arc::new(Gate::new(options.max_concurrent))),
            fairness: services.fairness.clone(),
            metrics: ForwardMetrics::new(&services.registry),
        }
    }

    /// True if `name` is to be forwarded. FROM itself always is, whatever `except` says, as in the reference.
    fn is_forwarded(&self, name: &LowerName) -> bool {
        name.is_within(self.from.as_wire())
            && (name.as_wire() == self.from.as_wire() || !self.except.iter().any(|zone| name.is_within(zone.as_wire())))
    }

    async fn answer(&self, request: Request<'_>, next: Next<'_>) -> Outcome {
        let response = match &self.gate {
            Some(gate) => Box::pin(self.gated_exchange(gate, &request)).await?,
            None => self.shared_exchange(&request).await?,
        };
        // Another forward is asked only if there is one right after this one.
        if next.keyword() == Some(KEYWORD) && self.is_for_next(&response) {
            return next.run(request).await;
        }
        Ok(Answer { response, from: KEYWORD })
    }

    /// As [`Forward::shared_exchange`], for at most `max_concurrent` at a time. Those of the client that has most are refused, also halfway.
    async fn gated_exchange(&self, gate: &Arc<Gate>, request: &Request<'_>) -> Result<Response, Failure> {
        let fairness = self.fairness.get();
        let pass = match gate.admit(fairness.client(request.peer.client.ip()), fairness.is_on) {
            Entry::Room(pass) | Entry::Instead { pass, .. } => Some(pass),
            Entry::Full => None,
        };
        if let Some(pass) = pass
            && let Some(outcome) = pass.hold(self.shared_exchange(request)).await
        {
            return outcome;
        }
        self.metrics.max_concurrent_rejects.increment();
        let cause = format!("concurrent queries exceeded maximum {}", self.options.max_concurrent);
        Err(Failure { rcode: Rcode::REFUSED, directive: KEYWORD, cause })
    }

    fn is_for_next(&self, response: &Response) -> bool {
        let rcode = response.rcode();
        self.options.next.contains(&rcode)
            || (self.options.next_on_nodata && rcode == Rcode::NOERROR && response.answer_count() == 0)
    }

    /// The answer to the request's question, asked once for all who want it now: those who would be answered from one entry of a cache.
    async fn shared_exchange(&self, request: &Request<'_>) -> Result<Response, Failure> {
        let room = self.room_of(request);
        let mut key = request.key().octets();
        let flown = self.fly(request, room, &key).await?;
        // What came for one who had room for less may be cut; whoever has more asks for that.
        if flown.response.is_truncated() && flown.room < room {
            key.push(room as u8);
            return Ok(self.fly(request, room, &key).await?.response);
        }
        Ok(flown.response)
    }

    fn room_of(&self, request: &Request<'_>) -> Room {
        // With either option all are asked for alike, in the end by TCP.
        let is_alike = self.options.force_tcp || self.options.prefer_udp;
        match request.peer.transport {
            Transport::Udp if is_alike => Room::Tcp,
            Transport::Udp if request.query.edns.is_some() => Room::Edns,
            Transport::Udp => Room::Plain,
            Transport::Tcp => Room::Tcp,
        }
    }

    /// Leads the flight of `key` or waits for it.
    async fn fly(&self, request: &Request<'_>, room: Room, key: &Key) -> Result<Flown, Failure> {
        let lead = match self.flights.join(key.clone()) {
            Seat::Lead(lead) => lead,
            Seat::Wait(receiver) => {
                // A leader ends within these bounds of its own; the rest is for one that is stuck.
                let patience = OVERALL_TIMEOUT.max(self.options.read_timeout) + Duration::from_millis(500);
                match tokio::time::timeout(patience, receiver).await {
                    Ok(Ok(Landing::Outcome(outcome))) => return outcome,
                    // The leader is gone, and this request leads in its place.
                    Ok(Ok(Landing::Succession(lead))) => lead,
                    // Not for longer than the process lives.
                    Ok(Err(_)) | Err(_) => return Err(Failure::servfail(KEYWORD, format!("no answer within {patience:?}"))),
                }
            }
        };
        // A future of its own: together with this one it would be beyond what the allocator keeps at hand (1 KiB).
        let outcome = Box::pin(self.exchange(request)).await.map(|response| Flown { response, room });
        let waited = lead.finish(&outcome);
        self.metrics.shared.add(waited as u64);
        outcome
    }
}

impl Directive for Forward {
    fn keyword(&self) -> &'static str {
        KEYWORD
    }

    fn serve<'a>(&'a self, request: Request<'a>, next: Next<'a>) -> BoxFuture<'a, Outcome> {
        if !self.is_forwarded(&request.query.name) {
            return next.run(request);
        }
        Box::pin(self.answer(request, next))
    }
}
