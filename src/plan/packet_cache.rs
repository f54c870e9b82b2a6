//! Each worker caches whole reply packets until their TTLs next change, so a hot name needs no reading, no zone and no
//! look-up in a cache.
//!
//! A handler says of a reply how long it is right for every request with the same octets: at most for the rest of the
//! second that its TTLs are right for. A name takes room only once it is asked for twice within that time, and the
//! third query gets what is cached. In later seconds the second query does already, as long as no other name has taken
//! the slot. benches/README.md has what that gives.

use crate::chain::{HitCounters, HitObserver, Peer, Transport};
use crate::message::AddressRun;
use crate::query_stats::Sampler;
use foldhash::fast::RandomState;
use smallvec::SmallVec;
use std::cell::Cell;
use std::hash::{BuildHasher, Hasher};
use std::sync::Arc;
use std::time::Instant;

/// Slots for requests, in sets. Each takes its part of the memory, half a KiB, when it is first used: 0.53 MiB a worker
/// at most.
const SLOTS: usize = SETS * WAYS;
/// A power of two.
const SETS: usize = 512;
/// Slots that a request may take. Of 1,000 names by Zipf's law, 93 % of the queries find their reply in one; with four
/// 95 %.
const WAYS: usize = 2;
/// Octets of a request and its reply, both without their IDs, that are cached. Longer ones are rare.
const MAX_OCTETS: usize = 360;

/// A worker's cached packets.
#[derive(Default)]
pub struct PacketCache {
    hasher: RandomState,
    /// Empty until there is something to cache.
    sets: Box<[[Slot; WAYS]]>,
    packets: Vec<CachedPacket>,
    /// Chooses the worker's hits that are recorded.
    pub(super) sampler: Sampler,
    /// For taps.
    pub(super) last_handler: LastHandler,
}

/// The place in its chain of the handler that has answered last on the fast path, or said nothing: noted for each
/// query, as that costs less than to ask who wants to know.
pub(super) struct LastHandler(Cell<u32>);

/// No handler. Not an `Option`, which is two instructions to write.
const NO_HANDLER: u32 = u32::MAX;

impl Default for LastHandler {
    fn default() -> Self {
        Self(Cell::new(NO_HANDLER))
    }
}

impl LastHandler {
    #[inline]
    pub(super) fn note(&self, position: usize) {
        self.0.set(position as u32);
    }
    /// `None` if none has since this was asked last.
    pub(super) fn take(&self) -> Option<usize> {
        Some(self.0.replace(NO_HANDLER)).filter(|position| *position != NO_HANDLER).map(|position| position as usize)
    }
}

/// What is known of a request.
#[derive(Clone, Copy)]
struct Slot {
    /// Bits of its hash that the set does not tell.
    tag: u32,
    /// Index in [`PacketCache::packets`]; `u32::MAX` if this slot has none yet.
    packet: u32,
    /// The request was seen before this, and its reply is right until then.
    until: Option<Instant>,
    /// The slot's packet is that reply.
    is_cached: bool,
}

/// All that a reply may depend on, and the hash of it.
#[derive(Clone, Copy)]
pub(super) struct PacketKey<'a> {
    /// The request's octets after its ID.
    request: &'a [u8],
    source: PacketSource,
    hash: u64,
}

/// Where a request came from, in one number: the listener's number, and below it whether it came over TCP, and whether
/// the client's address is an IPv4 one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct PacketSource(u64);

impl PacketSource {
    /// `listener` is its number, for a class of clients. No other listener has it, and a new plan has new ones, so
    /// nothing is invalidated.
    #[inline]
    fn new(listener: u64, peer: &Peer) -> Self {
        let is_tcp = peer.transport == Transport::Tcp;
        Self(listener << 2 | u64::from(is_tcp) << 1 | u64::from(peer.client.is_ipv4()))
    }
}

/// A reply from the packet cache that is still to be counted ([`super::Listener::count`]).
#[must_use]
#[derive(Clone, Copy, Debug)]
pub struct PacketHit(u32);

/// How the hits of a cached packet are counted.
#[derive(Default)]
pub(super) struct HitCounting {
    pub counters: HitCounters,
    /// What of the block's observers sees each hit.
    pub hit_observers: SmallVec<[Arc<dyn HitObserver>; 1]>,
    /// The block's observers that want to see each hit as an exchange, by index.
    pub observers: SmallVec<[u8; 8]>,
    /// The block: the site's index on its listener. Not the block itself, which would live on with the packet after its
    /// plan has gone.
    pub site: u32,
    /// Who answered: the handler's index in the block's chain.
    pub handler: u32,
    /// Where the block's arranger finds what it puts into order; `None` if it is to look for it, or there is none.
    pub addresses: Option<AddressRun>,
    /// The block has an arranger or a tracer.
    pub asks_block: bool,
    /// There are [`HitCounting::hit_observers`] or [`HitCounting::observers`].
    pub is_observed: bool,
}

/// A request and its reply. What a hit needs comes first, so that it shares as few cache lines as may be.
#[repr(C, align(64))]
pub(super) struct CachedPacket {
    source: PacketSource,
    /// Where the request ends and the reply begins, and where the reply ends.
    request_end: u16,
    reply_end: u16,
    /// The block has an arranger, which is to see each copy of the reply, or a tracer, which chooses among the queries.
    pub asks_block: bool,
    octets: [u8; MAX_OCTETS],
    pub counting: HitCounting,
}

impl CachedPacket {
    /// `None` for too many octets.
    fn new(key: &PacketKey<'_>, reply: &[u8], counting: impl FnOnce() -> HitCounting) -> Option<Self> {
        let reply = reply.get(2..).unwrap_or_default();
        let mut octets = [0; MAX_OCTETS];
        let (request_end, reply_end) = (key.request.len(), key.request.len() + reply.len());
        octets.get_mut(..request_end)?.copy_from_slice(key.request);
        octets.get_mut(request_end..reply_end)?.copy_from_slice(reply);
        let (request_end, reply_end, counting) = (request_end as u16, reply_end as u16, counting());
        Some(Self { source: key.source, request_end, reply_end, asks_block: counting.asks_block, octets, counting })
    }
    #[inline]
    fn request(&self) -> &[u8] {
        self.octets.get(..usize::from(self.request_end)).unwrap_or_default()
    }
    /// The reply but for its ID.
    #[inline]
    pub(super) fn reply(&self) -> &[u8] {
        self.octets.get(self.request_end.into()..self.reply_end.into()).unwrap_or_default()
    }
}

impl Slot {
    const EMPTY: Self = Self { tag: 0, packet: u32::MAX, until: None, is_cached: false };

    /// It was taken for requests of this key, and no other has it yet.
    #[inline]
    fn is_of(&self, key: &PacketKey<'_>, now: Instant) -> bool {
        self.tag == key.tag() && (self.is_cached || !self.is_over(now))
    }

    #[inline]
    fn is_over(&self, now: Instant) -> bool {
        self.until.is_none_or(|until| until <= now)
    }
}

impl PacketCache {
    /// The key of a request to the listener with this number.
    #[inline]
    pub(super) fn key<'a>(&self, wire: &'a [u8], peer: &Peer, listener: u64) -> PacketKey<'a> {
        let request = wire.get(2..).unwrap_or_default();
        let source = PacketSource::new(listener, peer);
        let mut hasher = self.hasher.build_hasher();
        hasher.write(request);
        hasher.write_u64(source.0);
        PacketKey { request, source, hash: hasher.finish() }
    }

    /// The packet that is right at `now`.
    #[inline]
    pub(super) fn find(&self, key: &PacketKey<'_>, now: Instant) -> Option<(&CachedPacket, PacketHit)> {
        let set = self.sets.get(key.set())?;
        let slot = set.iter().find(|slot| slot.tag == key.tag() && slot.is_cached && !slot.is_over(now))?;
        let packet = self.packets.get(slot.packet as usize)?;
        (packet.request() == key.request && packet.source == key.source).then_some((packet, PacketHit(slot.packet)))
    }

    /// The packet of a hit, until a request is inserted that came when the packet's time was over.
    pub(super) fn packet(&self, hit: PacketHit) -> Option<&CachedPacket> {
        self.packets.get(hit.0 as usize)
    }

    /// Notes that a request which came at `now` got a reply that is right until `until`. True if both are to be cached:
    /// it is the second time, or it was cached before and its slot is still its own. What is cached has its slot until
    /// its time is over: that is soon, and what is popular comes first then.
    #[inline(always)]
    pub(super) fn is_asked_again(&mut self, key: &PacketKey<'_>, now: Instant, until: Instant) -> bool {
        if self.sets.is_empty() {
            self.make_room();
        }
        let Some(set) = self.sets.get_mut(key.set()) else { return false };
        // Not `any`, which is not inlined here.
        for slot in &*set {
            if slot.is_of(key, now) {
                return true;
            }
        }
        let free =
            set.iter().position(|slot| slot.is_over(now)).or_else(|| set.iter().position(|slot| !slot.is_cached));
        if let Some(free) = free.and_then(|free| set.get_mut(free)) {
            *free = Slot { tag: key.tag(), until: Some(until), is_cached: false, ..*free };
        }
        false
    }

    /// Lets go of every reply: what the handlers keep has been flushed.
    pub(crate) fn flush(&mut self) {
        for slot in self.sets.iter_mut().flatten() {
            (slot.until, slot.is_cached) = (None, false);
        }
    }

    /// Whether all that this worker answers at once is to be shown to taps.
    pub(crate) fn set_tapped(&self, is_tapped: bool) {
        self.last_handler.take();
        self.sampler.set_every(is_tapped);
    }

    #[cold]
    fn make_room(&mut self) {
        self.sets = vec![[Slot::EMPTY; WAYS]; SETS].into();
        self.packets.reserve_exact(SLOTS);
    }

    /// Caches what [`PacketCache::is_asked_again`] has just said is to be cached, with the same times.
    #[inline(never)]
    pub(super) fn cache(
        &mut self,
        key: &PacketKey<'_>,
        reply: &[u8],
        now: Instant,
        until: Instant,
        counting: impl FnOnce() -> HitCounting,
    ) {
        let Some(set) = self.sets.get_mut(key.set()) else { return };
        let Some(slot) = set.iter_mut().find(|slot| slot.is_of(key, now)) else { return };
        let Some(packet) = CachedPacket::new(key, reply, counting) else { return };
        match self.packets.get_mut(slot.packet as usize) {
            Some(old) => *old = packet,
            None => {
                slot.packet = self.packets.len() as u32;
                self.packets.push(packet);
            }
        }
        (slot.until, slot.is_cached) = (Some(until), true);
    }
}

impl PacketKey<'_> {
    #[inline]
    fn set(&self) -> usize {
        self.hash as usize % SETS
    }
    #[inline]
    fn tag(&self) -> u32 {
        (self.hash >> 32) as u32
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::message::{Name, Query, RecordType};
    use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
    use std::time::Duration;

    const SECOND: Duration = Duration::from_secs(1);

    /// A request to listener 1 over UDP from an IPv4 address.
    const HERE: (u64, Peer) = (1, Peer { client: ANY, local: ANY, transport: Transport::Udp });
    const ANY: SocketAddr = SocketAddr::new(IpAddr::V4(Ipv4Addr::UNSPECIFIED), 0);

    fn request(id: u16, name: &str) -> Vec<u8> {
        Query::compose(id, Name::parse(name).unwrap().as_wire(), RecordType::A, true)
    }

    fn key<'a>(cache: &PacketCache, request: &'a [u8], (listener, peer): (u64, Peer)) -> PacketKey<'a> {
        cache.key(request, &peer, listener)
    }

    fn insert(cache: &mut PacketCache, key: &PacketKey<'_>, reply: &[u8], now: Instant, until: Instant) {
        if cache.is_asked_again(key, now, until) {
            cache.cache(key, reply, now, until, HitCounting::default);
        }
    }

    fn is_cached(cache: &PacketCache, request: &[u8], from: (u64, Peer), now: Instant) -> bool {
        cache.find(&key(cache, request, from), now).is_some()
    }

    /// Answers, as a listener does, with `reply` after an ID if nothing is cached; the reply's octets after the ID, and
    /// whether they were cached.
    fn answer(cache: &mut PacketCache, request: &[u8], now: Instant, until: Instant, reply: &str) -> (String, bool) {
        let key = key(cache, request, HERE);
        if let Some((packet, _)) = cache.find(&key, now) {
            return (String::from_utf8(packet.reply().to_vec()).unwrap(), true);
        }
        let octets = [&request[..2], reply.as_bytes()].concat();
        insert(cache, &key, &octets, now, until);
        (reply.to_owned(), false)
    }

    #[test]
    fn the_third_of_the_same_requests_within_the_time_gets_the_second_ones_reply() {
        let (mut cache, now) = (PacketCache::default(), Instant::now());
        for (id, reply, expected) in
            [(1, "a", ("a", false)), (2, "b", ("b", false)), (3, "c", ("b", true)), (4, "d", ("b", true))]
        {
            let (reply, is_hit) = answer(&mut cache, &request(id, "a.example."), now, now + SECOND, reply);
            assert_eq!((&*reply, is_hit), expected, "{id}");
        }
    }

    #[test]
    fn nothing_is_cached_from_its_end_on() {
        let (mut cache, start) = (PacketCache::default(), Instant::now());
        let request = request(1, "a.example.");
        for _ in 0..2 {
            answer(&mut cache, &request, start, start + SECOND, "old");
        }
        let late = start + SECOND - Duration::from_nanos(1);
        assert!(answer(&mut cache, &request, late, start + SECOND, "new").1);
        let after = start + SECOND;
        // It was cached, so it need not be seen twice again.
        for expected in [false, true, true] {
            let (reply, is_hit) = answer(&mut cache, &request, after, after + SECOND, "new");
            assert_eq!((&*reply, is_hit), ("new", expected));
        }
    }

    #[test]
    fn a_name_that_is_asked_for_once_in_a_while_is_never_cached() {
        let (mut cache, mut now) = (PacketCache::default(), Instant::now());
        for _ in 0..10 {
            assert!(!answer(&mut cache, &request(1, "a.example."), now, now + SECOND, "a").1);
            now += SECOND;
        }
        assert!(cache.packets.is_empty());
    }

    #[test]
    fn another_request_listener_or_transport_gets_nothing_of_it() {
        let (mut cache, now) = (PacketCache::default(), Instant::now());
        let known = request(1, "a.example.");
        for _ in 0..2 {
            answer(&mut cache, &known, now, now + SECOND, "a");
        }
        assert!(is_cached(&cache, &known, HERE, now));
        let tcp = Peer { transport: Transport::Tcp, ..HERE.1 };
        let ipv6 = Peer { client: (Ipv6Addr::LOCALHOST, 1).into(), ..HERE.1 };
        assert!(!is_cached(&cache, &known, (2, HERE.1), now), "another plan's");
        assert!(!is_cached(&cache, &known, (1, tcp), now));
        assert!(!is_cached(&cache, &known, (1, ipv6), now));
        let mut octet_by_octet = (2..known.len()).map(|at| {
            let mut other = known.clone();
            other[at] ^= 1;
            is_cached(&cache, &other, HERE, now)
        });
        assert!(!octet_by_octet.any(|is_cached| is_cached));
        let lengths = [&known[..known.len() - 1], &[&known[..], b"\0"].concat(), b"", b"\0"];
        assert!(!lengths.into_iter().any(|other| is_cached(&cache, other, HERE, now)));
    }

    #[test]
    fn a_request_whose_hash_is_anothers_gets_nothing_of_it() {
        let (mut cache, now) = (PacketCache::default(), Instant::now());
        let (one, other) = (request(1, "a.example."), request(1, "b.example."));
        let tcp = Peer { transport: Transport::Tcp, ..HERE.1 };
        for (cached, from) in [(&other, HERE), (&one, (1, tcp))] {
            let hash = key(&cache, &one, HERE).hash;
            let key = PacketKey { hash, ..key(&cache, cached, from) };
            for _ in 0..2 {
                insert(&mut cache, &key, b"\0\0reply", now, now + SECOND);
            }
            assert_eq!(cache.packets[0].source, key.source, "it is cached");
            assert!(!is_cached(&cache, &one, HERE, now));
        }
    }

    #[test]
    fn nothing_that_was_cached_before_a_flush_is_given_after_it() {
        let (mut cache, now) = (PacketCache::default(), Instant::now());
        cache.flush();
        let requests: Vec<_> = (0..3 * SLOTS).map(|number| request(1, &format!("n{number}.example."))).collect();
        let ask_all = |cache: &mut PacketCache, reply: &str| -> usize {
            requests.iter().filter(|request| answer(cache, request, now, now + SECOND, reply).1).count()
        };
        assert_eq!((ask_all(&mut cache, "old"), ask_all(&mut cache, "old") < SLOTS), (0, true));
        assert!(ask_all(&mut cache, "old") > SLOTS / 2, "they are cached");
        cache.flush();
        assert_eq!(ask_all(&mut cache, "new"), 0);
        for expected in ["new", "new", "new"] {
            assert_eq!(answer(&mut cache, &requests[0], now, now + SECOND, "new").0, expected);
        }
        assert!(cache.packets.len() <= SLOTS);
    }

    #[test]
    fn names_that_were_seen_once_give_way() {
        let (mut cache, now) = (PacketCache::default(), Instant::now());
        for number in 0..10 * SLOTS {
            assert!(!answer(&mut cache, &request(1, &format!("n{number}.example.")), now, now + SECOND, "a").1);
        }
        for expected in [false, false, true] {
            assert_eq!(answer(&mut cache, &request(1, "a.example."), now, now + SECOND, "a").1, expected);
        }
    }

    #[test]
    fn what_is_too_long_is_not_cached() {
        let (mut cache, now) = (PacketCache::default(), Instant::now());
        let fits = "x".repeat(MAX_OCTETS - (request(1, "a.example.").len() - 2));
        for _ in 0..3 {
            assert!(!answer(&mut cache, &request(1, "a.example."), now, now + SECOND, &format!("{fits}x")).1);
        }
        for expected in [false, true] {
            // The slot was seen, so it is cached at once.
            assert_eq!(answer(&mut cache, &request(1, "a.example."), now, now + SECOND, &fits).1, expected);
        }
    }

    #[test]
    fn what_is_cached_is_bounded_and_has_its_slot_until_its_time_is_over() {
        let (mut cache, now) = (PacketCache::default(), Instant::now());
        let requests: Vec<_> = (0..10 * SLOTS).map(|number| request(1, &format!("n{number}.example."))).collect();
        let mut hits = |now: Instant| -> Vec<bool> {
            let mut ask = |request: &Vec<u8>| answer(&mut cache, request, now, now + SECOND, "a").1;
            // Each twice in a row, for it to be cached if there is room.
            requests.iter().for_each(|request| _ = (ask(request), ask(request)));
            requests.iter().map(ask).collect()
        };
        let first = hits(now);
        assert_eq!(first.iter().filter(|is_hit| **is_hit).count(), SLOTS, "with ten names for each slot");
        assert_eq!(hits(now + SECOND / 2), first, "no other takes their slots");
        let after = hits(now + SECOND);
        assert_eq!(after, first, "who comes first has them from then on");
        assert_eq!(cache.packets.len(), SLOTS);
        assert_eq!(size_of::<CachedPacket>(), 512);
    }

    #[test]
    fn a_slot_whose_time_is_over_is_anothers() {
        let (mut cache, mut now) = (PacketCache::default(), Instant::now());
        for number in 0..10 * SLOTS {
            let request = request(1, &format!("n{number}.example."));
            for expected in [false, false, true] {
                assert_eq!(answer(&mut cache, &request, now, now + SECOND, "a").1, expected);
            }
            now += SECOND;
        }
        assert!(cache.packets.len() <= SLOTS);
    }
}
