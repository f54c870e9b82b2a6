//! Replies that are given again as they are. A link allows that for the rest of the second that the TTLs in its reply are right for; until
//! then a request with the same octets needs no reading, no zone and no look-up in a cache.
//!
//! What that gives is in benches/README.md. A name takes room only once it is asked for twice within a second, and the third time gets what is kept;
//! in a later second, if no other has taken its room by then, the second time does.

use crate::chain::{Tally, Transport};
use foldhash::fast::RandomState;
use smallvec::SmallVec;
use std::hash::{BuildHasher, Hasher};
use std::sync::Arc;
use std::time::Instant;

/// Places for requests, in sets. Each takes its part of the memory, half a KiB, when it is first used: 0.53 MiB a worker at most.
const PLACES: usize = SETS * WAYS;
/// A power of two.
const SETS: usize = 512;
/// Places that a request may take. Of 1,000 names by Zipf's law, 93 % of the queries find their reply in one; with four 95 %.
const WAYS: usize = 2;
/// Octets of a request and its reply, both without their IDs, that are kept. Longer ones are rare.
const ROOM: usize = 360;

/// Those of a worker. What a reply depends on is the listener, which a swap of plans replaces, the transport and the request's octets.
#[derive(Default)]
pub struct Repeats {
    hasher: RandomState,
    /// None until there is something to keep.
    sets: Box<[[Place; WAYS]]>,
    kept: Vec<Kept>,
}

/// What is known of a request.
#[derive(Clone, Copy)]
struct Place {
    /// Bits of its hash that the set does not tell.
    mark: u32,
    /// Index of [`Repeats::kept`]; `u32::MAX` if this place has none yet.
    kept: u32,
    /// The request was seen before this, and its reply is right until then.
    until: Option<Instant>,
    /// What is kept is that reply.
    is_kept: bool,
}

/// Where a request that is not known belongs: its hash.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Unknown(u64);

/// How a request came.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Way {
    /// The listener's number, which no other has.
    pub listener: u64,
    pub transport: Transport,
    /// The client's address is an IPv4 one.
    pub is_ipv4: bool,
}

/// A reply that was given again and is still to be counted ([`super::Listener::count`]).
#[must_use]
#[derive(Clone, Copy, Debug)]
pub struct Repeated(u32);

/// How a reply is counted when it is given again.
#[derive(Default)]
pub(super) struct Counting {
    /// What counts it.
    pub tallies: SmallVec<[Arc<dyn Tally>; 2]>,
    /// The block's observers that observe it, by index.
    pub observers: SmallVec<[u8; 8]>,
    /// Whose block that is: the site's index on its listener.
    pub site: usize,
    /// Who answered: the link's index in the block's chain.
    pub link: usize,
}

/// A request and its reply. What is needed to give it again comes first, so that it shares as few cache lines as may be.
#[repr(C, align(64))]
pub(super) struct Kept {
    way: Way,
    /// Where the request ends and the reply begins, and where the reply ends.
    request_end: u16,
    reply_end: u16,
    octets: [u8; ROOM],
    pub counting: Counting,
}

impl Kept {
    /// `None` for too many octets.
    fn new(way: Way, request: &[u8], reply: &[u8], counting: impl FnOnce() -> Counting) -> Option<Self> {
        let mut octets = [0; ROOM];
        let (request_end, reply_end) = (request.len(), request.len() + reply.len());
        octets.get_mut(..request_end)?.copy_from_slice(request);
        octets.get_mut(request_end..reply_end)?.copy_from_slice(reply);
        Some(Self { way, request_end: request_end as u16, reply_end: reply_end as u16, octets, counting: counting() })
    }
    #[inline]
    fn request(&self) -> &[u8] {
        self.octets.get(..usize::from(self.request_end)).unwrap_or_default()
    }
    /// The reply but for its ID.
    #[inline]
    pub fn reply(&self) -> &[u8] {
        self.octets.get(self.request_end.into()..self.reply_end.into()).unwrap_or_default()
    }
}

impl Place {
    const EMPTY: Self = Self { mark: 0, kept: u32::MAX, until: None, is_kept: false };

    fn is_over(&self, now: Instant) -> bool {
        self.until.is_none_or(|until| until <= now)
    }
}

impl Repeats {
    /// What is kept of a request that came at `now`, or else where it belongs.
    #[inline]
    pub(super) fn find(&self, request: &[u8], way: Way, now: Instant) -> Result<(&Kept, Repeated), Unknown> {
        let request = request.get(2..).unwrap_or_default();
        let mut hasher = self.hasher.build_hasher();
        hasher.write(request);
        hasher.write_u64(way.listener << 2 | u64::from(way.transport == Transport::Tcp) << 1 | u64::from(way.is_ipv4));
        let unknown = Unknown(hasher.finish());
        let Some(set) = self.sets.get(unknown.set()) else { return Err(unknown) };
        let place =
            set.iter().find(|place| place.mark == unknown.mark() && place.is_kept && !place.is_over(now)).ok_or(unknown)?;
        let kept = self.kept.get(place.kept as usize).ok_or(unknown)?;
        if kept.request() == request && kept.way == way { Ok((kept, Repeated(place.kept))) } else { Err(unknown) }
    }

    /// What was found, until a request is noted that came when its time was over.
    pub(super) fn found(&self, repeated: Repeated) -> Option<&Kept> {
        self.kept.get(repeated.0 as usize)
    }

    /// Notes that a request was answered at `now` with a reply that is right until `until`, and keeps both if it is the second time, or if it
    /// was kept before and its place is still its own. What is kept has its place until its time is over: that is soon, and what is popular comes first
    /// then.
    pub(super) fn note(
        &mut self,
        (unknown, way): (Unknown, Way),
        (now, until): (Instant, Instant),
        (request, reply): (&[u8], &[u8]),
        counting: impl FnOnce() -> Counting,
    ) {
        if self.sets.is_empty() {
            self.sets = vec![[Place::EMPTY; WAYS]; SETS].into();
            self.kept.reserve_exact(PLACES);
        }
        let Some(set) = self.sets.get_mut(unknown.set()) else { return };
        let own = set.iter().position(|place| place.mark == unknown.mark() && (place.is_kept || !place.is_over(now)));
        let Some(place) = own.and_then(|own| set.get_mut(own)) else {
            let free = set.iter().position(|place| place.is_over(now)).or_else(|| set.iter().position(|place| !place.is_kept));
            if let Some(free) = free.and_then(|free| set.get_mut(free)) {
                *free = Place { mark: unknown.mark(), until: Some(until), is_kept: false, ..*free };
            }
            return;
        };
        let (request, reply) = (request.get(2..).unwrap_or_default(), reply.get(2..).unwrap_or_default());
        let Some(kept) = Kept::new(way, request, reply, counting) else { return };
        match self.kept.get_mut(place.kept as usize) {
            Some(old) => *old = kept,
            None => {
                place.kept = self.kept.len() as u32;
                self.kept.push(kept);
            }
        }
        (place.until, place.is_kept) = (Some(until), true);
    }
}

impl Unknown {
    fn set(self) -> usize {
        self.0 as usize % SETS
    }
    fn mark(self) -> u32 {
        (self.0 >> 32) as u32
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::message::{Name, Query, RecordType};
    use std::time::Duration;

    const SECOND: Duration = Duration::from_secs(1);
    const HERE: Way = Way { listener: 1, transport: Transport::Udp, is_ipv4: true };

    fn request(id: u16, name: &str) -> Vec<u8> {
        Query::compose(id, Name::parse(name).unwrap().as_wire(), RecordType::A, true)
    }

    /// Answers, as a listener does, with `reply` after an ID if it is not repeated; the reply's octets after the ID, and whether they were.
    fn answer(repeats: &mut Repeats, request: &[u8], way: Way, now: Instant, until: Instant, reply: &str) -> (String, bool) {
        let unknown = match repeats.find(request, way, now) {
            Ok((kept, _)) => return (String::from_utf8(kept.reply().to_vec()).unwrap(), true),
            Err(unknown) => unknown,
        };
        let octets = [&request[..2], reply.as_bytes()].concat();
        repeats.note((unknown, way), (now, until), (request, &octets), Counting::default);
        (reply.to_owned(), false)
    }

    #[test]
    fn the_third_of_the_same_requests_within_the_time_gets_the_second_ones_reply() {
        let (mut repeats, now) = (Repeats::default(), Instant::now());
        for (id, reply, expected) in
            [(1, "a", ("a", false)), (2, "b", ("b", false)), (3, "c", ("b", true)), (4, "d", ("b", true))]
        {
            let (reply, repeated) = answer(&mut repeats, &request(id, "a.example."), HERE, now, now + SECOND, reply);
            assert_eq!((&*reply, repeated), expected, "{id}");
        }
    }

    #[test]
    fn nothing_is_repeated_from_its_end_on() {
        let (mut repeats, start) = (Repeats::default(), Instant::now());
        let request = request(1, "a.example.");
        for _ in 0..2 {
            answer(&mut repeats, &request, HERE, start, start + SECOND, "old");
        }
        let late = start + SECOND - Duration::from_nanos(1);
        assert!(answer(&mut repeats, &request, HERE, late, start + SECOND, "new").1);
        let after = start + SECOND;
        // It was kept, so it need not be seen twice again.
        for expected in [false, true, true] {
            let (reply, repeated) = answer(&mut repeats, &request, HERE, after, after + SECOND, "new");
            assert_eq!((&*reply, repeated), ("new", expected));
        }
    }

    #[test]
    fn a_name_that_is_asked_for_once_in_a_while_is_never_kept() {
        let (mut repeats, mut now) = (Repeats::default(), Instant::now());
        for _ in 0..10 {
            assert!(!answer(&mut repeats, &request(1, "a.example."), HERE, now, now + SECOND, "a").1);
            now += SECOND;
        }
        assert!(repeats.kept.is_empty());
    }

    #[test]
    fn another_request_listener_or_transport_gets_nothing_of_it() {
        let (mut repeats, now) = (Repeats::default(), Instant::now());
        let known = request(1, "a.example.");
        for _ in 0..2 {
            answer(&mut repeats, &known, HERE, now, now + SECOND, "a");
        }
        assert!(repeats.find(&known, HERE, now).is_ok());
        assert!(repeats.find(&known, Way { listener: 2, ..HERE }, now).is_err(), "another plan's");
        assert!(repeats.find(&known, Way { transport: Transport::Tcp, ..HERE }, now).is_err());
        assert!(repeats.find(&known, Way { is_ipv4: false, ..HERE }, now).is_err());
        let mut octet_by_octet = (2..known.len()).map(|at| {
            let mut other = known.clone();
            other[at] ^= 1;
            repeats.find(&other, HERE, now).is_err()
        });
        assert!(octet_by_octet.all(|is_unknown| is_unknown));
        let lengths = [&known[..known.len() - 1], &[&known[..], b"\0"].concat(), b"", b"\0"];
        assert!(lengths.into_iter().all(|other| repeats.find(other, HERE, now).is_err()));
    }

    #[test]
    fn a_request_whose_hash_is_anothers_gets_nothing_of_it() {
        let (mut repeats, now) = (Repeats::default(), Instant::now());
        let (one, other) = (request(1, "a.example."), request(1, "b.example."));
        let tcp = Way { transport: Transport::Tcp, ..HERE };
        for (kept, way) in [(&other, HERE), (&one, tcp)] {
            // As if both had the same hash.
            let unknown = repeats.find(&one, HERE, now).err().unwrap();
            for _ in 0..2 {
                repeats.note((unknown, way), (now, now + SECOND), (kept, b"\0\0reply"), Counting::default);
            }
            assert_eq!(repeats.kept[0].way, way, "it is kept");
            assert!(repeats.find(&one, HERE, now).is_err());
        }
    }

    #[test]
    fn names_that_were_seen_once_give_way() {
        let (mut repeats, now) = (Repeats::default(), Instant::now());
        for number in 0..10 * PLACES {
            assert!(!answer(&mut repeats, &request(1, &format!("n{number}.example.")), HERE, now, now + SECOND, "a").1);
        }
        for expected in [false, false, true] {
            assert_eq!(answer(&mut repeats, &request(1, "a.example."), HERE, now, now + SECOND, "a").1, expected);
        }
    }

    #[test]
    fn what_is_too_long_is_not_kept() {
        let (mut repeats, now) = (Repeats::default(), Instant::now());
        let fits = "x".repeat(ROOM - (request(1, "a.example.").len() - 2));
        for _ in 0..3 {
            assert!(!answer(&mut repeats, &request(1, "a.example."), HERE, now, now + SECOND, &format!("{fits}x")).1);
        }
        for expected in [false, true] {
            // The place was seen, so it is kept at once.
            assert_eq!(answer(&mut repeats, &request(1, "a.example."), HERE, now, now + SECOND, &fits).1, expected);
        }
    }

    #[test]
    fn what_is_kept_is_bounded_and_has_its_place_until_its_time_is_over() {
        let (mut repeats, now) = (Repeats::default(), Instant::now());
        let requests: Vec<_> = (0..10 * PLACES).map(|number| request(1, &format!("n{number}.example."))).collect();
        let mut repeated = |now: Instant| -> Vec<bool> {
            let mut ask = |request: &Vec<u8>| answer(&mut repeats, request, HERE, now, now + SECOND, "a").1;
            // Each twice in a row, for it to be kept if there is room.
            requests.iter().for_each(|request| _ = (ask(request), ask(request)));
            requests.iter().map(ask).collect()
        };
        let first = repeated(now);
        assert_eq!(first.iter().filter(|is_repeated| **is_repeated).count(), PLACES, "with ten names for each place");
        assert_eq!(repeated(now + SECOND / 2), first, "no other takes their places");
        let after = repeated(now + SECOND);
        assert_eq!(after, first, "who comes first has them from then on");
        assert_eq!(repeats.kept.len(), PLACES);
        assert_eq!(size_of::<Kept>(), 512);
    }

    #[test]
    fn a_place_whose_time_is_over_is_anothers() {
        let (mut repeats, mut now) = (Repeats::default(), Instant::now());
        for number in 0..10 * PLACES {
            let request = request(1, &format!("n{number}.example."));
            for expected in [false, false, true] {
                assert_eq!(answer(&mut repeats, &request, HERE, now, now + SECOND, "a").1, expected);
            }
            now += SECOND;
        }
        assert!(repeats.kept.len() <= PLACES);
    }
}
