//! The contract between the server, the directives and the plan: what a request is, how a directive answers it or hands
//! it to the next, who sees the exchange afterwards, and what a directive is given when it is built.
//!
//! A block serves on two paths. The **fast path** is synchronous: every handler is asked in order through
//! [`Handler::serve_fast`], and the first that answers writes the reply's octets. The **slow path** starts from the top
//! through [`Handler::serve`], async, once a handler said [`FastPath::Slow`] or all of them passed. Whoever only
//! watches (metrics, log, errors) is an [`Observer`] and costs a block that does not have it nothing.

mod answer;
mod at_stop;
mod clock;
mod config;
mod data_file;
mod endpoint;
mod explanation;
mod format;
mod host_name;
mod line_sink;
mod log_format;
mod lookup;
mod metadata;
mod networks;
mod next;
mod process;
mod reload_state;
mod request;
mod spans;
mod trail;
mod upstream_exchange;
mod upstreams;
mod view;

#[cfg(test)]
pub(crate) mod testing;

pub(crate) use answer::{Answer, Failure, Outcome};
pub(crate) use at_stop::{AtStop, Ending, Flush};
pub use clock::BatchClock;
pub(crate) use clock::unix_seconds;
pub(crate) use config::{
    BlockConfig, BuildContext, BuildError, Built, Configured, Enabled, Parse, ParseContext, Part, ReloadConfig,
    Timeouts,
};
pub use config::{Interfaces, Loaders};
pub(crate) use data_file::{DataFilePoll, DataFiles};
pub(crate) use endpoint::{AnswerAll, AnswerEach, AskMetrics, AskStatus, Document, HttpAnswers, NoStatus};
pub use endpoint::{Endpoint, HttpAnswer};
pub(crate) use explanation::{BlockDirective, Course, DirectiveRole, Effect, Explanation, Following, Step};
pub(crate) use format::{COMMON, Differing, Format, PacketFormat, placeholders};
pub(crate) use host_name::host_name;
pub(crate) use line_sink::LineSink;
pub use log_format::Level;
pub(crate) use log_format::LogFormat;
pub(crate) use lookup::{Lookup, Resolver};
pub(crate) use metadata::Metadata;
pub(crate) use networks::{AddressClasses, Networks};
pub(crate) use next::{Chain, FastRest, Next};
pub use process::ProcessContext;
pub(crate) use process::{Lifecycle, MemoryBudget, UnixSockets};
pub(crate) use reload_state::ReloadState;
pub(crate) use request::{KeptSubnet, OwnedRequest, Purpose, Request};
pub use request::{Peer, Received, Transport};
pub use spans::Span;
pub(crate) use spans::{OpenSpan, Spans, Tracer};
pub use trail::Trail;
pub(crate) use upstream_exchange::{Encryption, UpstreamExchange, UpstreamObserver};
pub(crate) use upstreams::{ChainUpstreams, ExchangeFn, ForwardUpstreams, ListedUpstream, ProberGuard};
pub(crate) use view::{BlockMetadata, QueryFilter, View};

use crate::message::{AddressRun, RecordType, Response};
use crate::metrics::Counter;
use futures_util::future::BoxFuture;
use smallvec::SmallVec;
use std::sync::Arc;
use std::time::Duration;

/// What a handler says on the fast path.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FastPath {
    /// Nothing to say; the next handler is asked.
    Pass,
    /// The reply has been written.
    Answered(After),
    /// The slow path must take this request, from the first handler on.
    Slow,
    /// As [`FastPath::Slow`], and a [`Purpose::Refresh`] is to run beside it: who would have answered here wanted one.
    SlowAndRefresh,
    /// Nothing is to be said to this client.
    Silent,
    /// The handler changes requests, or replies: [`Handler::serve_fast_through`] is to be asked, which is given the
    /// rest of the chain.
    Through,
}

/// What is to follow a reply of the fast path.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[allow(missing_docs, reason = "the variant says what its fields are")]
pub enum After {
    /// The reply is all.
    Nothing,
    /// The slow path runs once more in the background with [`Purpose::Refresh`], and its answer is thrown away
    /// (prefetch, stale answers).
    Refresh,
    /// The packet cache may keep the reply. For so many milliseconds from the request's arrival it is right, but for
    /// its ID, for each request with the same octets to the same listen address over the same transport; the handlers
    /// before this one pass such a request. Hits of the packet are counted by what [`Handler::hit_counters`] gives for
    /// this note.
    CachePacket { millis: u16, note: u32 },
}

/// A directive in a block's chain: one instance for a server block, shared by its zones, listen addresses and all
/// workers.
pub trait Handler: Send + Sync {
    /// The Corefile keyword.
    fn keyword(&self) -> &'static str;

    /// The synchronous attempt. Must not block or allocate; appends a whole reply to `reply` or leaves it as it was.
    fn serve_fast(&self, request: &Request<'_>, reply: &mut Vec<u8>) -> FastPath {
        let _ = (request, reply);
        FastPath::Slow
    }

    /// The synchronous attempt of a handler whose [`Handler::serve_fast`] says [`FastPath::Through`]: it asks the
    /// handlers after it with [`FastRest::run`], for this request or another, and may change what they wrote. Beside
    /// what it says stands the place in the chain of the handler that answered. Must not block or allocate; appends a
    /// whole reply to `reply` or leaves it as it was.
    fn serve_fast_through(&self, request: &Request<'_>, rest: FastRest<'_>, reply: &mut Vec<u8>) -> (FastPath, usize) {
        rest.run(request, reply)
    }

    /// Shows what [`Handler::serve_fast`] would answer this request if it asked for `qtype`, and the seconds that each
    /// record would have: for a handler before it that makes another answer of it. If `take` gives true it has answered
    /// the request, counts it, and says what is to follow. `None`: it is to be asked as always. Must not block or
    /// allocate.
    fn show_fast(
        &self,
        request: &Request<'_>,
        qtype: RecordType,
        take: &mut dyn FnMut(&Response, u32) -> bool,
    ) -> Option<After> {
        let _ = (request, qtype, take);
        None
    }

    /// True if it answers the same question otherwise to another client, for more than
    /// [`Handler::client_networks`] tells. Then no reply of its block goes into the packet cache.
    fn depends_on_client(&self) -> bool {
        false
    }

    /// By what it tells clients apart: those that the same of these sets have get the same answers. The packet cache
    /// keeps them for each class of clients.
    fn client_networks(&self) -> Vec<Networks> {
        Vec::new()
    }

    /// How this server is asked itself, once all of the plan is built. For a handler that asks questions of its own.
    fn set_lookup(&self, lookup: &Lookup) {
        let _ = lookup;
    }

    /// What counts the packet cache's hits with the reply that this handler gave to this request. Must not block or
    /// allocate.
    fn hit_counter(&self, request: &Request<'_>, note: u32) -> Option<Arc<dyn HitCounter>> {
        let _ = (request, note);
        None
    }

    /// Adds all that counts the packet cache's hits with a reply to this request which this handler gave, or had from
    /// those after it, `rest`. Must not block.
    fn hit_counters(
        &self,
        request: &Request<'_>,
        answered: PacketAnswer,
        rest: FastRest<'_>,
        counters: &mut HitCounters,
    ) {
        match answered.position < rest.position() {
            true => counters.extend(self.hit_counter(request, answered.note)),
            false => rest.hit_counters(request, answered, counters),
        }
    }

    /// Says what [`Handler::serve`] would do with this request, and why, in `explanation`; where it would hand it on,
    /// has `rest` say the same of the request as it goes on. Gives what becomes of it. Asks nobody, counts nothing, and
    /// marks nothing as used. May take as long as the slow path does on the processor.
    fn explain(&self, request: &Request<'_>, rest: Following<'_>, explanation: &mut Explanation) -> Course;

    /// Answers, or hands on with [`Next::run`]. Runs on the worker that received the request. Dropped halfway where the
    /// request loses its place to another client's, so whatever it has begun ends or goes on without it.
    fn serve<'a>(&'a self, request: Request<'a>, next: Next<'a>) -> BoxFuture<'a, Outcome>;
}

/// Who gave a reply that the packet cache may keep.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PacketAnswer {
    /// The handler's position in the chain.
    pub position: usize,
    /// The note of its [`After::CachePacket`].
    pub note: u32,
}

/// What counts the hits of one packet.
pub type HitCounters = SmallVec<[Arc<dyn HitCounter>; 3]>;

/// Puts the records of a block's replies into order, whoever of its handlers answered, each time that a client gets
/// one: also those that are given again from a cache. The block's observers see a reply as it goes to the
/// client.
pub trait Arranger: Send + Sync {
    /// What it does with replies, in a line.
    fn explain(&self) -> String;

    /// `reply[start..]` is a whole reply. May not make it longer. Must not block.
    fn arrange(&self, reply: &mut Vec<u8>, start: usize);

    /// Where copies of a reply, which the packet cache gives, have what is put into order. `None`: each is to be looked
    /// at ([`Arranger::arrange`]).
    fn prepare(&self, reply: &[u8]) -> Option<AddressRun> {
        let _ = reply;
        None
    }

    /// [`Arranger::arrange`] of such a copy, `reply`. Must not block.
    fn arrange_copy(&self, reply: &mut [u8], addresses: AddressRun) {
        let _ = (reply, addresses);
    }
}

/// Sees every finished exchange of a block, of either path.
pub trait Observer: Send + Sync {
    /// What it would do once this request is answered, in a line. Counts nothing.
    fn explain(&self, request: &Request<'_>) -> String;

    /// Must not block. Called on the worker's thread, right after the reply's octets are ready.
    fn observe(&self, exchange: &Exchange<'_>);

    /// What is to be done with the packet cache's hits after this exchange, which it has observed. Asked once for a
    /// packet. Must not block.
    fn packet_hits(&self, exchange: &Exchange<'_>) -> PacketHits {
        let _ = exchange;
        PacketHits::Observe
    }
}

/// What an observer does with a hit of the packet cache: a request with the same octets, to the same listen address
/// over the same transport, from a client of the same address family.
pub enum PacketHits {
    /// Nothing.
    Ignore,
    /// This counts it.
    Count(Arc<dyn HitCounter>),
    /// This sees it.
    Show(Arc<dyn HitObserver>),
    /// It is observed as any other exchange.
    Observe,
}

/// Sees the packet cache's hits with one packet, and has prepared for all that they have in common: request, but for
/// its ID, and reply. It may outlive its plan, with the packet.
pub trait HitObserver: Send + Sync {
    /// As [`Observer::observe`]; the time is that from the request's arrival.
    fn observe_hit(&self, received: Received<'_>, elapsed: Duration);
}

/// Counts the packet cache's hits that all count alike. Found once for a packet, so that nothing is looked up for a
/// hit. It may outlive its plan, with the packet, so it holds counters and nothing else.
pub trait HitCounter: Send + Sync {
    /// Counts one more: the octets of request and reply, and the time from the request's arrival. Must not block or
    /// allocate.
    fn count(&self, request: usize, reply: usize, elapsed: Duration);
}

impl HitCounter for Counter {
    fn count(&self, _request: usize, _reply: usize, _elapsed: Duration) {
        self.increment();
    }
}

/// A finished exchange.
#[derive(Clone, Copy)]
pub struct Exchange<'a> {
    /// As the client sent it.
    pub request: Request<'a>,
    /// The reply as it goes to the client.
    pub reply: &'a [u8],
    /// The reply's code, all 12 bits.
    pub rcode: crate::message::Rcode,
    /// Keyword of the handler that answered; empty if none did.
    pub answered_by: &'static str,
    /// Why no handler could answer, if that is so.
    pub failure: Option<&'a Failure>,
    /// From the datagram's arrival to the reply.
    pub elapsed: Duration,
}
