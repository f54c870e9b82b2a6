//! Handles one message: reads it, finds its zone, tries the fast path, and else hands it to the slow path.

use super::packet_cache::{CachedPacket, HitCounting, PacketCache, PacketHit, PacketKey};
use super::{Block, HeededOptions, Listener, ZoneBinding, probe};
use crate::chain::{
    After, BatchClock, Exchange, Failure, FastPath, Handler, KeptSubnet, Observer, Outcome, OwnedRequest, PacketHits,
    Purpose, Received, Request,
};
use crate::message::{Class, Query, Rcode, Rejection, Response, TtlRule};
use futures_util::FutureExt;
use futures_util::future::BoxFuture;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::time::Duration;

/// What became of a message; `P` is what is left to run, a [`Pending`] but in tests of the sockets.
pub enum Dispatch<P = Pending> {
    /// `out` holds the reply.
    Reply,
    /// `out` holds a reply from the packet cache. To be sent first, as its client waits, and then to be counted with
    /// [`Listener::count`].
    PacketHit(PacketHit),
    /// `out` holds the reply; the refresh runs in the background and answers nobody.
    ReplyAndRefresh(P),
    /// The slow path must run; it writes the reply.
    Pending(P),
    /// Say nothing.
    Silence,
}

/// A request for the slow path. Small: it is moved from hand to hand, and a hit pays for the room of it.
pub struct Pending {
    listener: Arc<Listener>,
    block: Arc<Block>,
    request: Box<OwnedRequest>,
}

impl Listener {
    /// Takes one message from a client. Synchronous; neither blocks nor, on a cache hit, allocates. `out` is empty and
    /// gets the reply (without TCP's length octets). `packets` is the worker's. A panic below costs this message a
    /// SERVFAIL and is counted.
    pub fn dispatch(
        self: &Arc<Self>,
        received: Received<'_>,
        packets: &mut PacketCache,
        out: &mut Vec<u8>,
    ) -> Dispatch {
        let wire = received.wire;
        let key = packets.key(wire, received.peer, self.number);
        if let Some((packet, hit)) = packets.find(&key, received.clock.received()) {
            out.extend_from_slice(wire.get(..2).unwrap_or_default());
            out.extend_from_slice(packet.reply());
            if !packet.is_arranged || self.arrange_again(packet.counting.site, out) {
                return Dispatch::PacketHit(hit);
            }
        }
        let query = match Query::read(wire) {
            Ok(query) => query,
            Err(rejection) => return reject(&rejection, wire, out),
        };
        self.guarded(&query, wire, out, |out| self.answer(&query, received, &key, packets, out))
    }

    /// What a panic could leave half done is `out`, which is cleared.
    #[inline]
    fn guarded(
        &self,
        query: &Query,
        wire: &[u8],
        out: &mut Vec<u8>,
        work: impl FnOnce(&mut Vec<u8>) -> Dispatch,
    ) -> Dispatch {
        catch_unwind(AssertUnwindSafe(|| work(&mut *out))).unwrap_or_else(|_| {
            self.panics.increment();
            out.clear();
            write_empty(query, wire, Rcode::SERVFAIL, out);
            Dispatch::Reply
        })
    }

    /// Puts the records of a packet into order once more. False if that panicked, with `out` empty again.
    #[inline(never)]
    fn arrange_again(&self, site: usize, out: &mut Vec<u8>) -> bool {
        let Some(arranger) = self.zones.site(site).and_then(|site| site.block.arranger.as_ref()) else { return true };
        let is_arranged = catch_unwind(AssertUnwindSafe(|| arranger.arrange(&mut *out, 0))).is_ok();
        if !is_arranged {
            self.panics.increment();
            out.clear();
        }
        is_arranged
    }

    /// Counts a hit of the packet cache, which `reply` came from. Takes what [`Listener::dispatch`] took; before the
    /// next message that came at another time. A panic below is counted.
    pub fn count(&self, hit: PacketHit, received: Received<'_>, packets: &PacketCache, reply: &[u8]) {
        let Some(CachedPacket { counting, .. }) = packets.packet(hit) else { return };
        let work = AssertUnwindSafe(|| {
            if !counting.counters.is_empty() {
                let elapsed = received.clock.elapsed();
                counting.counters.iter().for_each(|counter| counter.count(received.wire.len(), reply.len(), elapsed));
            }
            if !counting.observers.is_empty() {
                self.observe_hit(counting, received, reply);
            }
        });
        if catch_unwind(work).is_err() {
            self.panics.increment();
        }
    }

    /// Shows a hit of the packet cache to the observers that want to see each.
    fn observe_hit(&self, counting: &HitCounting, received: Received<'_>, reply: &[u8]) {
        if let Some(site) = self.zones.site(counting.site)
            && let Some(handler) = site.block.chain.handlers.get(counting.handler)
            && let Ok(query) = Query::read(received.wire)
        {
            let request = request(&query, received, Some(site));
            let exchange = fast_exchange(request, reply, handler.keyword(), received.clock.elapsed());
            let observers = counting.observers.iter().filter_map(|index| site.block.observers.get(usize::from(*index)));
            observers.for_each(|observer| observer.observe(&exchange));
        }
    }

    fn answer(
        self: &Arc<Self>,
        query: &Query,
        received: Received<'_>,
        key: &PacketKey<'_>,
        packets: &mut PacketCache,
        out: &mut Vec<u8>,
    ) -> Dispatch {
        let Received { wire, clock, .. } = received;
        if query.qclass == Class::CH
            && let Some(generation) = self.generation
            && let Some(response) = probe::answer(query, wire, generation)
        {
            write(&response, query, wire, out);
            return Dispatch::Reply;
        }
        let index = self.zones.find(&query.name, query.qtype).filter(|_| self.any_class || query.qclass == Class::IN);
        let Some((index, site)) = index.and_then(|index| Some((index, self.zones.site(index)?))) else {
            let request = request(query, received, None);
            write_empty(query, wire, Rcode::REFUSED, out);
            observe(&self.unmatched, request, out, Rcode::REFUSED, "", None, || clock.elapsed());
            return Dispatch::Reply;
        };
        let block = &site.block;
        let request = request(query, received, Some(site));
        if let Some(options) = &block.options
            && query.edns.is_some()
            && let Some(dispatch) = self.take_with_options(block, &request, options, clock, out)
        {
            return dispatch;
        }
        let (said, handler_index) = block.chain.serve_fast(&request, out);
        match (said, block.chain.handlers.get(handler_index)) {
            (FastPath::Silent, _) => Dispatch::Silence,
            (FastPath::SlowAndRefresh, _) => {
                let mut pending = self.pending(block, &request, Purpose::Answer);
                pending.request.wants_refresh = true;
                Dispatch::Pending(pending)
            }
            (FastPath::Answered(after), Some(handler)) => {
                if let Some(arranger) = &block.arranger {
                    arranger.arrange(out, 0);
                }
                observe(&block.observers, request, out, rcode_of(out), handler.keyword(), None, || clock.elapsed());
                match after {
                    After::Nothing => {}
                    After::Refresh => {
                        return Dispatch::ReplyAndRefresh(self.pending(block, &request, Purpose::Refresh));
                    }
                    After::CachePacket { .. } if block.depends_on_client => {}
                    After::CachePacket { millis, note } => {
                        let now = clock.received();
                        let until = now + Duration::from_millis(millis.into());
                        let counting = || {
                            let exchange = fast_exchange(request, out, handler.keyword(), Duration::ZERO);
                            let counting = hit_counting(&exchange, &**handler, note, &block.observers);
                            let is_arranged = block.arranger.is_some();
                            HitCounting { site: index, handler: handler_index, is_arranged, ..counting }
                        };
                        packets.insert(key, out, now, until, counting);
                    }
                }
                Dispatch::Reply
            }
            _ => Dispatch::Pending(self.pending(block, &request, Purpose::Answer)),
        }
    }

    /// Takes a request with an option that the block heeds, which is for the slow path alone: what it is given is for
    /// no other request, and so is nothing to be given again. `None` if it has none.
    #[cold]
    fn take_with_options(
        self: &Arc<Self>,
        block: &Arc<Block>,
        request: &Request<'_>,
        options: &HeededOptions,
        clock: &BatchClock,
        out: &mut Vec<u8>,
    ) -> Option<Dispatch> {
        let of_limits = |limits| KeptSubnet::of(request.query, request.wire, limits);
        let nsid = options.nsid.as_ref().filter(|_| request.query.asks_for_nsid(request.wire));
        match options.client_subnet.map(of_limits).transpose() {
            Ok(subnet) => {
                let subnet = subnet.flatten();
                let request = Request { client_subnet: subnet.as_ref(), nsid, ..*request };
                let is_heeded = subnet.is_some() || nsid.is_some();
                is_heeded.then(|| Dispatch::Pending(self.pending(block, &request, Purpose::Answer)))
            }
            Err(_) => {
                write_empty(request.query, request.wire, Rcode::FORMERR, out);
                observe(&block.observers, *request, out, Rcode::FORMERR, "", None, || clock.elapsed());
                Some(Dispatch::Reply)
            }
        }
    }

    fn pending(self: &Arc<Self>, block: &Arc<Block>, request: &Request<'_>, purpose: Purpose) -> Pending {
        let request = Box::new(Request { purpose, ..*request }.to_owned());
        Pending { listener: self.clone(), block: block.clone(), request }
    }
}

impl Pending {
    /// Runs the slow path and appends the reply to `out`; nothing for a refresh, and where a directive says nothing to
    /// this client. A panic below costs this request a SERVFAIL and is counted: one task runs many of these. The future
    /// is Send; run it on the worker. Dropped halfway, it has appended nothing.
    pub async fn run(&self, out: &mut Vec<u8>) {
        let request = self.request.borrow();
        if self.request.wants_refresh {
            let refresh = self.listener.pending(&self.block, &request, Purpose::Refresh);
            tokio::spawn(async move { refresh.run_refresh().await });
        }
        // A handler may do its work, and panic, before it has a future to give.
        let handlers = AssertUnwindSafe(async { self.block.chain.start().run(request).await });
        let outcome = handlers.catch_unwind().await.unwrap_or_else(|_| {
            self.listener.panics.increment();
            Err(Failure::servfail("", "a directive panicked; this is a fault of nodelocaldns, please report it"))
        });
        if request.purpose == Purpose::Refresh {
            return;
        }
        let start = out.len();
        // What a panic could leave half done is what was appended to `out`.
        if catch_unwind(AssertUnwindSafe(|| self.finish(request, outcome, &mut *out))).is_err() {
            self.listener.panics.increment();
            out.truncate(start);
            write_empty(request.query, request.wire, Rcode::SERVFAIL, out);
        }
    }

    /// [`Pending::run`] for a refresh, which gives nobody a reply.
    fn run_refresh(self) -> BoxFuture<'static, ()> {
        Box::pin(async move { self.run(&mut Vec::new()).await })
    }

    /// Appends the reply to a request that is not run, or not to its end, because others have a better right to its
    /// place: SERVFAIL, upon which a stub resolver asks elsewhere or again at once. Nothing for a refresh.
    pub fn refuse(&self, out: &mut Vec<u8>) {
        let request = self.request.borrow();
        if request.purpose == Purpose::Refresh {
            return;
        }
        let start = out.len();
        let work = AssertUnwindSafe(|| {
            request.write(&Response::empty(request.query, request.wire, Rcode::SERVFAIL), out);
            observe(&self.block.observers, request, &out[start..], Rcode::SERVFAIL, "", None, || {
                request.received.elapsed()
            });
        });
        if catch_unwind(work).is_err() {
            self.listener.panics.increment();
        }
    }

    fn finish(&self, request: Request<'_>, outcome: Outcome, out: &mut Vec<u8>) {
        let Request { query, wire, .. } = request;
        let observers = &self.block.observers;
        match outcome {
            Ok(answer) => {
                let start = out.len();
                request.write(&answer.response, out);
                if let Some(arranger) = &self.block.arranger {
                    arranger.arrange(out, start);
                }
                observe(observers, request, out, answer.response.rcode(), answer.from, None, || {
                    request.received.elapsed()
                });
            }
            Err(failure) if failure.is_silence() => {}
            Err(failure) => {
                request.write(&Response::empty(query, wire, failure.rcode), out);
                observe(observers, request, out, failure.rcode, "", Some(&failure), || request.received.elapsed());
            }
        }
    }
}

/// The request as the site's block sees it; `None` where no zone matches.
fn request<'a>(query: &'a Query, received: Received<'a>, site: Option<&ZoneBinding>) -> Request<'a> {
    let Received { wire, peer, clock } = received;
    let (server, zone, udp_cap) = site.map_or((0, 0, None), |site| (site.server, site.zone, site.block.udp_cap));
    Request {
        wire,
        query,
        peer,
        server,
        zone,
        udp_cap,
        client_subnet: None,
        nsid: None,
        options: None,
        received: clock.received(),
        purpose: Purpose::Answer,
    }
}

fn reject(rejection: &Rejection, wire: &[u8], out: &mut Vec<u8>) -> Dispatch {
    match rejection.write(wire, out) {
        true => Dispatch::Reply,
        false => Dispatch::Silence,
    }
}

fn write_empty(query: &Query, wire: &[u8], rcode: Rcode, out: &mut Vec<u8>) {
    write(&Response::empty(query, wire, rcode), query, wire, out);
}

fn write(response: &Response, query: &Query, wire: &[u8], out: &mut Vec<u8>) {
    let limit = usize::from(query.udp_limit());
    let reply = crate::message::Reply { ttl: TtlRule::Keep, limit, udp_size: crate::message::DEFAULT_UDP_SIZE };
    response.write(query, wire, reply, out);
}

/// The rcode in a reply's header; the fast path gives no extended ones.
fn rcode_of(reply: &[u8]) -> Rcode {
    Rcode(reply.get(3).map_or(0, |octet| u16::from(octet & 0x0f)))
}

/// How the packet hits after an exchange that `handler` has answered are counted; whose block it is, is for the caller
/// to say.
fn hit_counting(
    exchange: &Exchange<'_>,
    handler: &dyn Handler,
    note: u8,
    observers: &[Arc<dyn Observer>],
) -> HitCounting {
    let mut counting = HitCounting {
        counters: handler.hit_counter(&exchange.request, note).into_iter().collect(),
        ..HitCounting::default()
    };
    for (index, observer) in (0..).zip(observers) {
        match observer.packet_hits(exchange) {
            PacketHits::Ignore => {}
            PacketHits::Count(counter) => counting.counters.push(counter),
            PacketHits::Observe => counting.observers.push(index),
        }
    }
    counting
}

/// An exchange of the fast path.
fn fast_exchange<'a>(
    request: Request<'a>,
    reply: &'a [u8],
    answered_by: &'static str,
    elapsed: Duration,
) -> Exchange<'a> {
    Exchange { request, reply, rcode: rcode_of(reply), answered_by, failure: None, elapsed }
}

fn observe(
    observers: &[Arc<dyn Observer>],
    request: Request<'_>,
    reply: &[u8],
    rcode: Rcode,
    answered_by: &'static str,
    failure: Option<&Failure>,
    elapsed: impl FnOnce() -> Duration,
) {
    if observers.is_empty() {
        return;
    }
    let exchange = Exchange { request, reply, rcode, answered_by, failure, elapsed: elapsed() };
    for observer in observers {
        observer.observe(&exchange);
    }
}
