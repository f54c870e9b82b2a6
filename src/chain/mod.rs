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
pub use clock::Clock;
pub use config::{
    BlockConfig, BuildContext, BuildError, Built, Configured, Endpoint, HttpAnswer, Interfaces, Lifecycle, Loaders, MemoryBudget,
    ParseContext, Part, ReloadConfig, Services, Timeouts,
};
pub use line_sink::{Level, LineSink};
pub use next::{Chain, Next, Rest};
pub use request::{OWN_UDP_SIZE, OwnedRequest, Peer, Purpose, Request, Transport};
pub use upstreams::{Ask, Listing, Upstream, Upstreams, Watching};

use futures_util::future::BoxFuture;
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
    /// asking the chain, but [`Directive::repeated`] of this link is told, with this note.
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

    /// A reply that it said may be given again was given again, to this request. Must not block or allocate.
    fn repeated(&self, request: &Request<'_>, note: u8) {
        let _ = (request, note);
    }

    /// Answers, or hands on with [`Next::run`]. Runs on the worker that received the request; never dropped halfway but on
    /// shutdown.
    fn serve<'a>(&'a self, request: Request<'a>, next: Next<'a>) -> BoxFuture<'a, Outcome>;
}

/// Sees every finished exchange of a block, from either gear.
pub trait Observer: Send + Sync {
    /// Must not block. Called on the worker's thread, right after the reply's octets are ready.
    fn observe(&self, exchange: &Exchange<'_>);
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
