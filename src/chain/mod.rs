//! The contract between the server, the directives and the plan: what a request is, how a directive answers it or hands it
//! to the next, who sees the exchange afterwards, and what a directive is given when it is built.
//!
//! A block serves in two gears. The **quick** one is synchronous: every link is asked in order through [`Directive::quick`] and
//! the first that answers writes the reply's octets. The **slow** one starts from the top through [`Directive::serve`], async,
//! once a link said [`Quick::Slow`]. Whoever only watches (metrics, log, errors) is an [`Observer`] and costs a block that does
//! not have it nothing.

mod answer;
mod carry;
mod clock;
mod config;
mod line_sink;
mod next;
mod request;
mod upstreams;

#[cfg(test)]
pub mod testing;

pub use answer::{Answer, Failure, Outcome};
pub use carry::Carry;
pub use clock::{BatchClock, unix_seconds};
pub use config::{
    BlockConfig, BuildContext, BuildError, Built, Configured, Enabled, Endpoint, HttpAnswer, Interfaces, Lifecycle, Loaders,
    MemoryBudget, ParseContext, Part, ReadFile, ReloadConfig, Services, Timeouts,
};
pub use line_sink::{Level, LineSink};
pub use next::{Chain, Next, Rest};
pub use request::{KeptSubnet, OwnedRequest, Peer, Purpose, Received, Request, Transport};
pub use upstreams::{Ask, Listing, Upstream, Upstreams, Watching};

use futures_util::future::BoxFuture;
use std::sync::Arc;
use std::time::Duration;

/// What a link says in the quick gear.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Quick {
    /// Nothing to say; the next link is asked.
    Pass,
    /// The reply has been written.
    Answered(After),
    /// The slow gear must take this request, from the first link on.
    Slow,
}

/// What is to follow a reply of the quick gear.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum After {
    Nothing,
    /// The slow gear runs once more in the background with [`Purpose::Refresh`], and its answer is thrown away (prefetch, stale answers).
    Refresh,
    /// For so many milliseconds from the request's arrival the reply is right, but for its ID, for each request with the same octets to the
    /// same listen address over the same transport; the links before this one pass such a request. It may be given again without
    /// asking the chain, and is then counted by what [`Directive::tally`] of this link gives for this note.
    Repeat {
        millis: u16,
        note: u8,
    },
}

/// A link of a block's chain: one instance for a server block, shared by its zones, listen addresses and all workers.
pub trait Directive: Send + Sync {
    /// The Corefile keyword.
    fn keyword(&self) -> &'static str;

    /// The synchronous attempt. Must not block or allocate; appends a whole reply to `reply` or leaves it as it was.
    fn quick(&self, request: &Request<'_>, reply: &mut Vec<u8>) -> Quick {
        let _ = (request, reply);
        Quick::Slow
    }

    /// What counts the reply to this request, which it said may be given again, whenever it is. Must not block or allocate.
    fn tally(&self, request: &Request<'_>, note: u8) -> Option<Arc<dyn Tally>> {
        let _ = (request, note);
        None
    }

    /// Answers, or hands on with [`Next::run`]. Runs on the worker that received the request. Dropped halfway where the request
    /// loses its place to another client's, so whatever it has begun ends or goes on without it.
    fn serve<'a>(&'a self, request: Request<'a>, next: Next<'a>) -> BoxFuture<'a, Outcome>;
}

/// Sees every finished exchange of a block, from either gear.
pub trait Observer: Send + Sync {
    /// Must not block. Called on the worker's thread, right after the reply's octets are ready.
    fn observe(&self, exchange: &Exchange<'_>);

    /// What is to be done when the reply of this exchange, which it has observed, is given again ([`After::Repeat`]). Must not block or allocate.
    fn again(&self, exchange: &Exchange<'_>) -> Again {
        let _ = exchange;
        Again::Observe
    }
}

/// What an observer does when a reply is given again: to a request with the same octets, to the same listen address over the same
/// transport, from a client of the same address family.
pub enum Again {
    /// Nothing.
    Ignore,
    /// It is counted by this.
    Count(Arc<dyn Tally>),
    /// It is observed as any other.
    Observe,
}

/// Counts replies that are given again, all that count alike. Found once, so that nothing is looked up for each.
/// It may outlive its plan, with the reply that is kept, so it holds counters and nothing else.
pub trait Tally: Send + Sync {
    /// Counts one more: the octets of request and reply, and the time from the request's arrival. Must not block or allocate.
    fn count(&self, request: usize, reply: usize, elapsed: Duration);
}

/// A finished exchange.
#[derive(Clone, Copy)]
pub struct Exchange<'a> {
    pub request: Request<'a>,
    /// The reply as it goes to the client.
    pub reply: &'a [u8],
    pub rcode: crate::message::Rcode,
    /// Keyword of the directive that answered; empty if none did.
    pub answered_by: &'static str,
    pub failure: Option<&'a Failure>,
    /// From the datagram's arrival to the reply.
    pub elapsed: Duration,
}
