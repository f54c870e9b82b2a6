//! Handles one message: reads it, finds its zone, tries the fast path, and else hands it to the slow path.

use super::packet_cache::{CachedPacket, HitCounting, PacketCache, PacketHit, PacketKey};
use super::probe::{self, ProbePath};
use super::tap::Ending;
use super::{Block, Choice, HeededOptions, Listener, ZoneBinding};
use crate::chain::{
    AddressClasses, After, BatchClock, Exchange, Failure, FastPath, KeptSubnet, Observer, Outcome, OwnedRequest,
    PacketAnswer, PacketHits, Peer, Purpose, Received, Request, Tracer,
};
use crate::message::{Class, LowerName, Query, Rcode, Rejection, Response, TtlRule};
use crate::query_stats::{Asked, Miss, is_failure};
use futures_util::FutureExt;
use futures_util::future::BoxFuture;
use smallvec::SmallVec;
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

/// What becomes of a packet that the packet cache has found.
enum PacketUse {
    Send,
    /// Its query is traced, and takes the slow path.
    Trace,
    /// It cannot be had.
    No,
}

/// A request for the slow path. Small: it is moved from hand to hand, and a hit pays for the room of it.
pub struct Pending {
    listener: Arc<Listener>,
    block: Arc<Block>,
    pub(super) request: Box<OwnedRequest>,
}

impl Listener {
    /// Takes one message from a client. Synchronous; neither blocks nor, on a cache hit, allocates, but for the name of
    /// a hit that is recorded. `out` is empty and gets the reply (without TCP's length octets). `packets` is the
    /// worker's. A panic below costs this message a SERVFAIL and is counted.
    pub fn dispatch(
        self: &Arc<Self>,
        received: Received<'_>,
        packets: &mut PacketCache,
        out: &mut Vec<u8>,
    ) -> Dispatch {
        let wire = received.wire;
        let key = packets.key(wire, received.peer, self.number_for(received.peer));
        let mut is_sampled = false;
        if let Some((packet, hit)) = packets.find(&key, received.clock.received())
            && let Some(id) = wire.first_chunk::<2>()
        {
            out.extend_from_slice(id);
            out.extend_from_slice(packet.reply());
            match if packet.asks_block { self.ask_block(&packet.counting, out) } else { PacketUse::Send } {
                PacketUse::Send => return Dispatch::PacketHit(hit),
                PacketUse::Trace => is_sampled = true,
                PacketUse::No => {}
            }
        }
        let mut query = Query::EMPTY;
        if let Err(rejection) = query.read_from(wire) {
            return self.reject(&rejection, received, out);
        }
        let dispatch =
            self.guarded(&query, wire, out, |out| self.answer(&query, received, &key, &mut *packets, is_sampled, out));
        if !matches!(dispatch, Dispatch::Pending(_)) && (!is_answer(out) || packets.sampler.is_due()) {
            self.record_reply(&query, received, packets, out);
        }
        dispatch
    }

    /// Takes what is no query that we can answer.
    #[cold]
    fn reject(&self, rejection: &Rejection, received: Received<'_>, out: &mut Vec<u8>) -> Dispatch {
        let (client, at) = (received.peer.client.ip(), received.clock.received());
        let reason = rejection.to_string();
        self.stats.record(|recorder| recorder.malformed(client, at, rejection.rcode(), &reason));
        let is_answered = rejection.write(received.wire, out);
        if self.taps.is_on() {
            let (rcode, reason) = (rejection.rcode(), Some(&*reason));
            self.show_received(received, &Ending { rcode, reason, reply: out, ..Ending::default() });
        }
        match is_answered {
            true => Dispatch::Reply,
            false => Dispatch::Silence,
        }
    }

    /// What the packet cache knows this listener by for the clients that are like this one.
    #[inline]
    fn number_for(&self, peer: &Peer) -> u64 {
        match &self.clients {
            None => self.number,
            Some(classes) => self.number + class_of(classes, peer),
        }
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

    /// What the block of a packet says to its use, with its records put into order once more. `out` is empty again
    /// where it is not to be sent.
    #[inline(never)]
    fn ask_block(&self, counting: &HitCounting, out: &mut Vec<u8>) -> PacketUse {
        let Some(block) = self.zones.site(counting.site as usize).map(|site| &site.block) else {
            return PacketUse::Send;
        };
        if block.tracer.as_ref().is_some_and(|tracer| tracer.is_sampled()) {
            out.clear();
            return PacketUse::Trace;
        }
        let Some(arranger) = &block.arranger else { return PacketUse::Send };
        let work = AssertUnwindSafe(|| match counting.addresses {
            Some(addresses) => arranger.arrange_copy(out, addresses),
            None => arranger.arrange(out, 0),
        });
        if catch_unwind(work).is_ok() {
            return PacketUse::Send;
        }
        self.panics.increment();
        out.clear();
        PacketUse::No
    }

    /// Counts a hit of the packet cache, which `reply` came from. Takes what [`Listener::dispatch`] took; before the
    /// next message that came at another time. A panic below is counted.
    pub fn count(&self, hit: PacketHit, received: Received<'_>, packets: &PacketCache, reply: &[u8]) {
        if packets.sampler.is_due() {
            self.record_packet_hit(hit, received, packets, reply);
        }
        let Some(CachedPacket { counting, .. }) = packets.packet(hit) else { return };
        let work = AssertUnwindSafe(|| {
            if !counting.counters.is_empty() {
                let elapsed = received.clock.elapsed();
                counting.counters.iter().for_each(|counter| counter.count(received.wire.len(), reply.len(), elapsed));
            }
            if counting.is_observed {
                self.observe_hit(counting, received, reply);
            }
        });
        if catch_unwind(work).is_err() {
            self.panics.increment();
        }
    }

    /// Records a hit of the packet cache, for all that it stands for, and shows it.
    #[cold]
    #[inline(never)]
    fn record_packet_hit(&self, hit: PacketHit, received: Received<'_>, packets: &PacketCache, reply: &[u8]) {
        let (is_recorded, rcode) = (packets.sampler.take(), rcode_of(reply));
        let Some((name, qtype)) = LowerName::of_question(received.wire) else { return };
        if is_recorded {
            let asked = Asked { name, qtype, client: received.peer.client.ip() };
            self.stats.record(|recorder| recorder.sample(&asked, rcode));
        }
        if self.taps.is_on() {
            let site = packets.packet(hit).and_then(|packet| {
                Some((self.zones.site(packet.counting.site as usize)?, packet.counting.handler as usize))
            });
            let answered_by = site.map_or("", |(site, handler)| site.block.keyword(handler));
            let (asked, rcode) = (Some((name, qtype)), Some(rcode));
            self.show_received(received, &Ending { asked, rcode, answered_by, reply, ..Ending::default() });
        }
    }

    /// Records what was said at once: a hit for all that it stands for, and whatever was refused or dropped. Shows it,
    /// too.
    #[cold]
    #[inline(never)]
    fn record_reply(&self, query: &Query, received: Received<'_>, packets: &PacketCache, reply: &[u8]) {
        let rcode = (!reply.is_empty()).then(|| rcode_of(reply));
        let is_failure = is_failure(rcode);
        let is_sampled = !is_failure && packets.sampler.take();
        let last_handler = packets.last_handler.take();
        if query.qclass == Class::CH && probe::path(query).is_some() {
            return;
        }
        let asked = Asked { name: query.name.as_wire(), qtype: query.qtype, client: received.peer.client.ip() };
        if let Some(rcode) = rcode.filter(|_| is_sampled) {
            self.stats.record(|recorder| recorder.sample(&asked, rcode));
        }
        let is_shown = self.taps.is_on();
        if !is_failure && !is_shown {
            return;
        }
        // It may be what has panicked.
        let choose = AssertUnwindSafe(|| self.choose(query, received.wire, received.peer));
        let choice = catch_unwind(choose);
        let reason = is_failure.then(|| match (&choice, rcode) {
            (Ok(None), _) => "no server block has this name".to_owned(),
            (_, Some(rcode)) => format!("answered {rcode} at once, from a cache or as its server block says"),
            (_, None) => "dropped, as its server block says".to_owned(),
        });
        if let Some(reason) = &reason {
            let at = received.clock.received();
            self.stats.record(|recorder| recorder.failure(&asked, at, rcode, reason));
        }
        if is_shown {
            let block = choice.ok().flatten().map(|choice| &choice.site.block);
            let answered_by = block.zip(last_handler).map_or("", |(block, handler)| block.keyword(handler));
            let (asked, reason) = (Some((asked.name, asked.qtype)), reason.as_deref());
            self.show_received(received, &Ending { asked, rcode, answered_by, reason, reply, ..Ending::default() });
        }
    }

    /// Shows a hit of the packet cache to the observers that want to see each.
    #[inline(never)]
    fn observe_hit(&self, counting: &HitCounting, received: Received<'_>, reply: &[u8]) {
        for observer in &counting.hit_observers {
            observer.observe_hit(received, received.clock.elapsed());
        }
        if counting.observers.is_empty() {
            return;
        }
        if let Some(site) = self.zones.site(counting.site as usize)
            && let Some(handler) = site.block.chain.handlers.get(counting.handler as usize)
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
        is_sampled: bool,
        out: &mut Vec<u8>,
    ) -> Dispatch {
        let Received { wire, clock, .. } = received;
        if query.qclass == Class::CH
            && let Some(generation) = self.generation
            && let Some(path) = probe::path(query)
        {
            return self.take_probe(path, generation, query, received, out);
        }
        let choice = match self.any_class || query.qclass == Class::IN {
            true => self.choose(query, wire, received.peer),
            false => None,
        };
        let Some(Choice { index, site, depends_on_client }) = choice else {
            let request = request(query, received, None);
            write_empty(query, wire, Rcode::REFUSED, out);
            observe(&self.unmatched, request, out, Rcode::REFUSED, "", None, || clock.elapsed());
            return Dispatch::Reply;
        };
        let block = &site.block;
        // What observers are shown, made here at once: a request is large to be handed on.
        let mut exchange = fast_exchange(request(query, received, Some(site)), &[], "", Duration::ZERO);
        let request = &exchange.request;
        if let Some(tracer) = &block.tracer
            && (is_sampled || tracer.is_sampled())
        {
            return self.take_traced(block, &**tracer, request, clock, out);
        }
        if let Some(options) = &block.options
            && query.edns.is_some()
            && let Some(dispatch) = self.take_with_options(block, request, options, clock, out)
        {
            return dispatch;
        }
        let (said, handler_index) = block.chain.serve_fast(request, out);
        match (said, block.chain.handlers.get(handler_index)) {
            (FastPath::Silent, _) => {
                packets.last_handler.note(handler_index);
                Dispatch::Silence
            }
            (FastPath::SlowAndRefresh, _) => {
                let mut pending = self.pending(block, request, Purpose::Answer);
                pending.request.wants_refresh = true;
                Dispatch::Pending(pending)
            }
            (FastPath::Answered(after), Some(handler)) => {
                packets.last_handler.note(handler_index);
                if let Some(arranger) = &block.arranger {
                    arranger.arrange(out, 0);
                }
                if !block.observers.is_empty() {
                    (exchange.reply, exchange.rcode) = (&*out, rcode_of(out));
                    (exchange.answered_by, exchange.elapsed) = (handler.keyword(), clock.elapsed());
                    block.observers.iter().for_each(|observer| observer.observe(&exchange));
                }
                match after {
                    After::Nothing => {}
                    After::Refresh => {
                        return Dispatch::ReplyAndRefresh(self.pending(block, request, Purpose::Refresh));
                    }
                    After::CachePacket { .. } if block.depends_on_client || depends_on_client => {}
                    After::CachePacket { millis, note } => {
                        let now = clock.received();
                        let until = now + Duration::from_millis(millis.into());
                        if !packets.is_asked_again(key, now, until) {
                            return Dispatch::Reply;
                        }
                        let answered = PacketAnswer { position: handler_index, note };
                        let counting = || hit_counting(&Exchange { reply: out, ..exchange }, block, index, answered);
                        packets.cache(key, out, now, until, counting);
                    }
                }
                Dispatch::Reply
            }
            _ => Dispatch::Pending(self.pending(block, request, Purpose::Answer)),
        }
    }

    /// Takes the watchdog's question.
    #[cold]
    fn take_probe(
        self: &Arc<Self>,
        path: ProbePath,
        generation: u64,
        query: &Query,
        received: Received<'_>,
        out: &mut Vec<u8>,
    ) -> Dispatch {
        match path {
            ProbePath::Fast => {
                write_probe_answer(query, received.wire, generation, out);
                Dispatch::Reply
            }
            ProbePath::Slow => {
                let block = Arc::new(probe::block(generation));
                Dispatch::Pending(self.pending(&block, &request(query, received, None), Purpose::Answer))
            }
        }
    }

    /// The block that takes a query: of the longest zone that holds its name and of whose blocks one takes it, the
    /// first that does.
    #[inline]
    pub(super) fn choose(&self, query: &Query, wire: &[u8], peer: &Peer) -> Option<Choice<'_>> {
        let (name, qtype) = (&query.name, query.qtype);
        let mut depends_on_client = false;
        let index = match self.zones.has_views() {
            false => self.zones.find(name, qtype),
            true => self.zones.find_taker(name, qtype, |site| {
                site.block.filter.as_ref().is_none_or(|filter| {
                    depends_on_client |= filter.depends_on_client();
                    filter.takes(query, wire, peer)
                })
            }),
        }?;
        Some(Choice { index, site: self.zones.site(index)?, depends_on_client })
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

    /// Takes a request that is traced, which is for the slow path, where spans are.
    #[cold]
    fn take_traced(
        self: &Arc<Self>,
        block: &Arc<Block>,
        tracer: &dyn Tracer,
        request: &Request<'_>,
        clock: &BatchClock,
        out: &mut Vec<u8>,
    ) -> Dispatch {
        let options = block.options.as_ref().filter(|_| request.query.edns.is_some());
        let taken = options.and_then(|options| self.take_with_options(block, request, options, clock, out));
        let mut dispatch = taken.unwrap_or_else(|| Dispatch::Pending(self.pending(block, request, Purpose::Answer)));
        if let Dispatch::Pending(pending) = &mut dispatch {
            pending.request.spans = Some(tracer.begin());
        }
        dispatch
    }

    fn pending(self: &Arc<Self>, block: &Arc<Block>, request: &Request<'_>, purpose: Purpose) -> Pending {
        let mut request = Box::new(Request { purpose, ..*request }.to_owned());
        request.metadata = block.has_metadata.then(Arc::default);
        request.trail = (purpose == Purpose::Answer).then(Arc::default);
        Pending { listener: self.clone(), block: block.clone(), request }
    }
}

impl Pending {
    /// Runs the slow path and appends the reply to `out`; nothing for a refresh, and where a directive says nothing to
    /// this client. A panic below costs this request a SERVFAIL and is counted: one task runs many of these. The future
    /// is Send; run it on the worker. Dropped halfway, it has appended nothing.
    pub async fn run(&self, out: &mut Vec<u8>) {
        match &self.request.spans {
            None => self.serve(out).await,
            // Boxed: it is rare, and the future of every query would have room for it.
            Some(spans) => Box::pin(spans.clone().scope(self.serve(out))).await,
        }
    }

    async fn serve(&self, out: &mut Vec<u8>) {
        let request = self.request.borrow();
        if self.request.wants_refresh {
            let refresh = self.listener.pending(&self.block, &request, Purpose::Refresh);
            tokio::spawn(async move { refresh.run_refresh().await });
        }
        let outcome = self.outcome(request).await;
        if request.purpose != Purpose::Refresh {
            self.finish_guarded(request, outcome, out);
        }
    }

    /// What the block's handlers say. A panic of theirs is a failure, and counted.
    pub(super) async fn outcome(&self, request: Request<'_>) -> Outcome {
        // A handler may do its work, and panic, before it has a future to give.
        let handlers = AssertUnwindSafe(async { self.block.chain.start().run(request).await });
        handlers.catch_unwind().await.unwrap_or_else(|_| {
            self.listener.panics.increment();
            Err(Failure::servfail("", "a directive panicked; this is a fault of nodelocaldns, please report it"))
        })
    }

    /// Appends the reply, and shows it to those who watch. A panic of theirs is counted.
    pub(super) fn finish_guarded(&self, request: Request<'_>, outcome: Outcome, out: &mut Vec<u8>) {
        let start = out.len();
        // What a panic could leave half done is what was appended to `out`.
        if catch_unwind(AssertUnwindSafe(|| self.finish(request, outcome, &mut *out))).is_err() {
            self.listener.panics.increment();
            out.truncate(start);
            write_empty(request.query, request.wire, Rcode::SERVFAIL, out);
            let cause = Some("what watches its reply panicked; please report it");
            self.record(&request, Some(Rcode::SERVFAIL), "", cause, out.get(start..).unwrap_or_default());
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
        if let Some(generation) = self.listener.generation
            && probe::path(request.query).is_some()
        {
            // A server that has no place left is no worse for it.
            return write_probe_answer(request.query, request.wire, generation, out);
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
        let cause = Some("no place is left for it: others have a better right");
        self.record(&request, Some(Rcode::SERVFAIL), "", cause, out.get(start..).unwrap_or_default());
    }

    fn finish(&self, request: Request<'_>, outcome: Outcome, out: &mut Vec<u8>) {
        let Request { query, wire, .. } = request;
        let observers = &self.block.observers;
        let start = out.len();
        match outcome {
            Ok(answer) => {
                request.write(&answer.response, out);
                if let Some(arranger) = &self.block.arranger {
                    arranger.arrange(out, start);
                }
                observe(observers, request, out, answer.response.rcode(), answer.from, None, || {
                    request.received.elapsed()
                });
                let reply = out.get(start..).unwrap_or_default();
                self.record(&request, Some(answer.response.rcode()), answer.from, None, reply);
            }
            Err(failure) if failure.is_silence() => {
                self.record(&request, None, failure.directive, Some(&failure.cause), &[]);
            }
            Err(failure) => {
                request.write(&Response::empty(query, wire, failure.rcode), out);
                observe(observers, request, out, failure.rcode, "", Some(&failure), || request.received.elapsed());
                let reply = out.get(start..).unwrap_or_default();
                self.record(&request, Some(failure.rcode), failure.directive, Some(&failure.cause), reply);
            }
        }
    }

    /// Records a query that was not answered at once, and shows it; the watchdog's are none.
    fn record(
        &self,
        request: &Request<'_>,
        rcode: Option<Rcode>,
        answered_by: &'static str,
        cause: Option<&str>,
        reply: &[u8],
    ) {
        if request.query.qclass == Class::CH && probe::path(request.query).is_some() {
            return;
        }
        let (began, took) = (request.received, request.received.elapsed());
        let route = request.trail.map(|trail| trail.route()).unwrap_or_default();
        let query = Miss { asked: asked(request), began, took, rcode, answered_by, cause, route };
        self.listener.stats.record(|recorder| recorder.miss(&query));
        if self.listener.taps.is_on() {
            let asked = Some((query.asked.name, query.asked.qtype));
            let ending = Ending { asked, rcode, answered_by, route, reason: cause, reply };
            self.listener.show(request.wire, request.peer, began, &ending);
        }
    }
}

/// Who asks for what.
fn asked<'a>(request: &Request<'a>) -> Asked<'a> {
    let Request { query, peer, .. } = *request;
    Asked { name: query.name.as_wire(), qtype: query.qtype, client: peer.client.ip() }
}

/// The class of a client. Not inlined: most listeners have none, and pay nothing for the room that it takes.
#[inline(never)]
fn class_of(classes: &AddressClasses, peer: &Peer) -> u64 {
    classes.of(peer.client.ip()).into()
}

/// The request as the site's block sees it; `None` where no zone matches.
fn request<'a>(query: &'a Query, received: Received<'a>, site: Option<&ZoneBinding>) -> Request<'a> {
    let Received { wire, peer, clock } = received;
    let (server_index, zone, udp_cap) = site.map_or((0, 0, None), |site| (site.server, site.zone, site.block.udp_cap));
    Request {
        wire,
        query,
        peer,
        server_index,
        zone,
        udp_cap,
        client_subnet: None,
        nsid: None,
        options: None,
        metadata: None,
        trail: None,
        received: clock.received(),
        purpose: Purpose::Answer,
        is_cut_later: false,
    }
}

fn write_probe_answer(query: &Query, wire: &[u8], generation: u64, out: &mut Vec<u8>) {
    match probe::answer(query, wire, generation) {
        Some(response) => write(&response, query, wire, out),
        None => write_empty(query, wire, Rcode::SERVFAIL, out),
    }
}

fn write_empty(query: &Query, wire: &[u8], rcode: Rcode, out: &mut Vec<u8>) {
    write(&Response::empty(query, wire, rcode), query, wire, out);
}

fn write(response: &Response, query: &Query, wire: &[u8], out: &mut Vec<u8>) {
    let limit = usize::from(query.udp_limit());
    let reply = crate::message::ReplyShape { ttl: TtlRule::Keep, limit, udp_size: crate::message::DEFAULT_UDP_SIZE };
    response.write(query, wire, reply, out);
}

/// The rcode in a reply's header; the fast path gives no extended ones.
fn rcode_of(reply: &[u8]) -> Rcode {
    Rcode(reply.get(3).map_or(0, |octet| u16::from(octet & 0x0f)))
}

/// Whether a reply is one that [`is_failure`] takes for an answer.
#[inline]
fn is_answer(reply: &[u8]) -> bool {
    reply.get(3).is_some_and(|octet| matches!(octet & 0x0f, 0 | 3))
}

/// How the packet hits after an exchange of this site are counted.
fn hit_counting(exchange: &Exchange<'_>, block: &Block, site: usize, answered: PacketAnswer) -> HitCounting {
    let mut counting = HitCounting {
        counters: block.chain.hit_counters(&exchange.request, answered),
        hit_observers: SmallVec::new(),
        observers: SmallVec::new(),
        site: site as u32,
        handler: answered.position as u32,
        addresses: block.arranger.as_ref().and_then(|arranger| arranger.prepare(exchange.reply)),
        asks_block: block.arranger.is_some() || block.tracer.is_some(),
        is_observed: false,
    };
    for (index, observer) in (0..).zip(&block.observers) {
        match observer.packet_hits(exchange) {
            PacketHits::Ignore => {}
            PacketHits::Count(counter) => counting.counters.push(counter),
            PacketHits::Show(observer) => counting.hit_observers.push(observer),
            PacketHits::Observe => counting.observers.push(index),
        }
    }
    counting.is_observed = !counting.hit_observers.is_empty() || !counting.observers.is_empty();
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
