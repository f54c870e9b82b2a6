//! One kept answer: when it was stored, how long it lives, how often it is asked for, and whether a newer one is on its
//! way.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

/// Milliseconds on the store's clock ([`super::store::Store::moment`]).
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Moment(pub u64);

impl Moment {
    pub(super) fn millis_since(self, earlier: Self) -> u64 {
        self.0.saturating_sub(earlier.0)
    }
}

/// The two caches of the directive, each with its own capacity.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Kind {
    Success,
    Denial,
}

impl Kind {
    pub const ALL: [Self; 2] = [Self::Success, Self::Denial];

    /// The value of the metrics' `type` label, and the option's name.
    pub fn label(self) -> &'static str {
        match self {
            Self::Success => "success",
            Self::Denial => "denial",
        }
    }
    pub fn index(self) -> usize {
        match self {
            Self::Success => 0,
            Self::Denial => 1,
        }
    }
    pub fn other(self) -> Self {
        match self {
            Self::Success => Self::Denial,
            Self::Denial => Self::Success,
        }
    }
}

/// What an answer is kept under. The name is in lower-case wire form.
#[derive(Clone, Copy, Debug)]
pub(super) struct Key<'a> {
    pub hash: u64,
    pub name: &'a [u8],
    pub qtype: u16,
    pub qclass: u16,
    /// Bits of [`crate::message::KeyFlags`].
    pub flags: u8,
}

/// What the store keeps.
pub(super) trait Payload {
    /// True if this answers the key's question (its flags aside). The whole question is compared: hashes alone would
    /// let a collision serve a foreign answer.
    fn is_for(&self, key: &Key<'_>) -> bool;
    /// Octets on the heap.
    fn heap_size(&self) -> usize;
}

/// An answer to be kept.
#[derive(Clone, Copy, Debug)]
pub(super) struct Fresh<T> {
    pub payload: T,
    /// Seconds it lives.
    pub ttl: u32,
    /// False for an answer that does not hold what was asked for.
    pub answering: bool,
}

/// A kept answer.
pub(super) struct Entry<T> {
    pub payload: T,
    pub(super) hash: u64,
    stored: Moment,
    ttl: u32,
    /// Neighbours in the eviction queue.
    pub(super) newer: u32,
    pub(super) older: u32,
    flags: u8,
    pub(super) kind: Kind,
    pub answering: bool,
    visited: AtomicBool,
    pub frequency: Frequency,
    pub refresh: RefreshState,
}

/// What of an entry another process can go on with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Copied<T> {
    pub payload: T,
    pub kind: Kind,
    /// As in [`Key`].
    pub flags: u8,
    /// Seconds it lives.
    pub ttl: u32,
    pub answering: bool,
    pub stored: Moment,
    /// It was asked for since eviction last considered it.
    pub is_used: bool,
}

/// How old an entry is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Age {
    /// Whole seconds left, at least 1.
    Fresh(u32),
    /// Expired, and not longer ago than stale answers may be: whole seconds since.
    Stale(u32),
    /// Of no more use.
    Gone,
}

impl<T: Payload> Entry<T> {
    pub(super) fn new(key: &Key<'_>, kind: Kind, fresh: Fresh<T>, now: Moment) -> Self {
        Self {
            payload: fresh.payload,
            hash: key.hash,
            stored: now,
            ttl: fresh.ttl,
            newer: u32::MAX,
            older: u32::MAX,
            flags: key.flags,
            kind,
            answering: fresh.answering,
            visited: AtomicBool::new(false),
            frequency: Frequency::default(),
            refresh: RefreshState::default(),
        }
    }

    pub(super) fn kind(&self) -> Kind {
        self.kind
    }

    /// As in [`Key`].
    pub(super) fn flags(&self) -> u8 {
        self.flags
    }

    pub(super) fn is_for(&self, key: &Key<'_>) -> bool {
        self.hash == key.hash && self.flags == key.flags && self.payload.is_for(key)
    }

    /// Seconds it was to live when it was stored, or `cap` if the configuration now says less.
    pub(super) fn ttl(&self, cap: u32) -> u32 {
        self.ttl.min(cap)
    }

    /// Its age, given the longest TTL and the longest staleness (both in seconds) the configuration allows now. Elapsed
    /// time is cut to whole seconds, as the reference does.
    #[inline]
    pub(super) fn age(&self, now: Moment, cap: u32, stale_seconds: u32) -> Age {
        let elapsed = now.millis_since(self.stored) / 1000;
        let ttl = u64::from(self.ttl(cap));
        match ttl.checked_sub(elapsed) {
            Some(left) if left > 0 => Age::Fresh(u32::try_from(left).unwrap_or(u32::MAX)),
            _ if elapsed - ttl < u64::from(stale_seconds) => Age::Stale((elapsed - ttl) as u32),
            _ => Age::Gone,
        }
    }

    /// Milliseconds until its age in whole seconds is another, at least 1.
    pub(super) fn millis_to_next_second(&self, now: Moment) -> u16 {
        1000 - (now.millis_since(self.stored) % 1000) as u16
    }

    /// Marks it as used, for eviction. Written only when clear, so that hits do not fight over its cache line.
    pub(super) fn touch(&self) {
        if !self.visited.load(Ordering::Relaxed) {
            self.visited.store(true, Ordering::Relaxed);
        }
    }

    /// Whether it was used since it was last asked.
    pub(super) fn take_visited(&self) -> bool {
        self.visited.swap(false, Ordering::Relaxed)
    }

    /// When it was stored.
    pub(super) fn stored(&self) -> Moment {
        self.stored
    }

    pub(super) fn copy(&self) -> Copied<T>
    where
        T: Clone,
    {
        let is_used = self.visited.load(Ordering::Relaxed);
        let payload = self.payload.clone();
        let Self { kind, flags, ttl, answering, stored, .. } = *self;
        Copied { payload, kind, flags, ttl, answering, stored, is_used }
    }

    /// Octets it takes: itself, its payload, its place in the index, and the allocator's headers.
    pub(super) fn octets(&self) -> usize {
        const INDEX_AND_HEADERS: usize = 8 + 16;
        size_of::<Option<Self>>() + INDEX_AND_HEADERS + self.payload.heap_size()
    }
}

/// How often an entry was asked for without a pause, for `prefetch`.
///
/// The time of the last query in milliseconds (40 bits: 34 years) and the count (24 bits) share one word, so that both
/// change at once.
#[derive(Default)]
pub(super) struct Frequency(AtomicU64);

impl Frequency {
    const COUNT_BITS: u32 = 24;
    /// Counting stops here.
    pub(super) const MAX: u32 = (1 << Self::COUNT_BITS) - 1;

    fn pack(last: Moment, count: u32) -> u64 {
        last.0 << Self::COUNT_BITS | u64::from(count.min(Self::MAX))
    }
    fn unpack(word: u64) -> (Moment, u32) {
        (Moment(word >> Self::COUNT_BITS), (word & u64::from(Self::MAX)) as u32)
    }

    /// Counts a query at `now`; begins again at 1 if the last one is more than `gap` ago. Returns the count.
    pub(super) fn count(&self, now: Moment, gap: Duration) -> u32 {
        let next = |word| {
            let (last, count) = Self::unpack(word);
            let goes_on = count > 0 && u128::from(now.millis_since(last)) <= gap.as_millis();
            if goes_on { count.saturating_add(1).min(Self::MAX) } else { 1 }
        };
        match self.0.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |word| Some(Self::pack(now, next(word)))) {
            Ok(before) => next(before),
            Err(before) => next(before),
        }
    }

    /// Takes over the count of the entry this one's replaces.
    pub(super) fn inherit(&self, from: &Self) {
        self.0.store(from.0.load(Ordering::Relaxed), Ordering::Relaxed);
    }
}

/// Whether a newer answer is being fetched, or an attempt has failed lately.
///
/// One word: a deadline in milliseconds, shifted left by one, and below it whether it is the end of a pause after a
/// failure or that of an attempt in flight. An attempt ends by itself after [`Self::LONGEST`], so that one that is lost
/// (its plan was replaced before it ran) does not keep the entry from being refreshed for ever.
#[derive(Default)]
pub(super) struct RefreshState(AtomicU64);

impl RefreshState {
    /// Longer than any chain waits for its upstreams.
    pub(super) const LONGEST: Duration = Duration::from_secs(30);

    fn deadline(word: u64) -> u64 {
        word >> 1
    }

    /// True for the one caller that shall refresh the entry now.
    pub(super) fn begin(&self, now: Moment) -> bool {
        let word = self.0.load(Ordering::Acquire);
        if Self::deadline(word) > now.0 {
            return false;
        }
        let in_flight = (now.0 + Self::LONGEST.as_millis() as u64) << 1;
        self.0.compare_exchange(word, in_flight, Ordering::AcqRel, Ordering::Relaxed).is_ok()
    }

    /// An attempt has ended: the next may be made after `pause`, which is zero unless it failed.
    pub(super) fn end(&self, now: Moment, pause: Duration) {
        let word = if pause.is_zero() { 0 } else { (now.0 + pause.as_millis() as u64) << 1 | 1 };
        self.0.store(word, Ordering::Release);
    }

    /// True while an attempt is in flight.
    pub(super) fn is_begun(&self, now: Moment) -> bool {
        let word = self.0.load(Ordering::Acquire);
        word & 1 == 0 && Self::deadline(word) > now.0
    }

    /// True while the pause after a failed attempt lasts.
    pub(super) fn is_pausing(&self, now: Moment) -> bool {
        let word = self.0.load(Ordering::Acquire);
        word & 1 == 1 && Self::deadline(word) > now.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    struct AnyPayload;
    impl Payload for AnyPayload {
        fn is_for(&self, _key: &Key<'_>) -> bool {
            true
        }
        fn heap_size(&self) -> usize {
            0
        }
    }

    fn entry(ttl: u32, stored: u64) -> Entry<AnyPayload> {
        let key = Key { hash: 1, name: &[0], qtype: 1, qclass: 1, flags: 0 };
        Entry::new(&key, Kind::Success, Fresh { payload: AnyPayload, ttl, answering: true }, Moment(stored))
    }

    #[test]
    fn an_entry_lives_for_exactly_its_ttl() {
        let entry = entry(2, 10_000);
        let age = |millis| entry.age(Moment(millis), u32::MAX, 0);
        assert_eq!(age(10_000), Age::Fresh(2));
        assert_eq!(age(10_999), Age::Fresh(2));
        assert_eq!(age(11_000), Age::Fresh(1));
        assert_eq!(age(11_999), Age::Fresh(1));
        assert_eq!(age(12_000), Age::Gone);
    }

    #[test]
    fn an_expired_entry_is_stale_until_the_stale_time_is_over() {
        let entry = entry(2, 0);
        assert_eq!(entry.age(Moment(2_000), u32::MAX, 3), Age::Stale(0));
        assert_eq!(entry.age(Moment(4_999), u32::MAX, 3), Age::Stale(2));
        assert_eq!(entry.age(Moment(5_000), u32::MAX, 3), Age::Gone);
    }

    #[test]
    fn a_lower_cap_shortens_the_life_of_an_entry_already_stored() {
        let entry = entry(3600, 0);
        assert_eq!(entry.age(Moment(4_000), 10, 0), Age::Fresh(6));
        assert_eq!(entry.age(Moment(10_000), 10, 0), Age::Gone);
        assert_eq!(entry.age(Moment(10_000), 10, 5), Age::Stale(0));
        assert_eq!(entry.age(Moment(0), 0, 0), Age::Gone);
    }

    #[test]
    fn a_clock_before_the_time_of_storing_counts_as_that_time() {
        assert_eq!(entry(2, 10_000).age(Moment(0), u32::MAX, 0), Age::Fresh(2));
    }

    #[test]
    fn queries_count_up_until_a_gap_that_is_too_long() {
        let frequency = Frequency::default();
        let gap = Duration::from_secs(1);
        assert_eq!(frequency.count(Moment(0), gap), 1);
        assert_eq!(frequency.count(Moment(500), gap), 2);
        assert_eq!(frequency.count(Moment(1_500), gap), 3, "a gap of exactly the duration goes on");
        assert_eq!(frequency.count(Moment(2_501), gap), 1);
        assert_eq!(frequency.count(Moment(2_502), gap), 2);
    }

    #[test]
    fn the_count_stops_at_its_maximum() {
        let frequency = Frequency::default();
        frequency.0.store(Frequency::pack(Moment(5), Frequency::MAX), Ordering::Relaxed);
        assert_eq!(frequency.count(Moment(6), Duration::from_secs(1)), Frequency::MAX);
        assert_eq!(Frequency::unpack(frequency.0.load(Ordering::Relaxed)), (Moment(6), Frequency::MAX));
    }

    #[test]
    fn one_refresh_is_in_flight_at_a_time() {
        let state = RefreshState::default();
        assert!(!state.is_begun(Moment(0)));
        assert!(state.begin(Moment(0)));
        assert!(state.is_begun(Moment(29_999)) && !state.begin(Moment(29_999)));
        state.end(Moment(100), Duration::ZERO);
        assert!(state.begin(Moment(100)));
    }

    #[test]
    fn a_lost_refresh_does_not_last_for_ever() {
        let state = RefreshState::default();
        assert!(state.begin(Moment(0)));
        assert!(state.begin(Moment(30_000)));
    }

    #[test]
    fn a_failed_refresh_is_not_tried_again_before_the_pause_is_over() {
        let state = RefreshState::default();
        assert!(state.begin(Moment(0)));
        assert!(!state.is_pausing(Moment(0)), "in flight is not pausing");
        state.end(Moment(1_000), Duration::from_secs(5));
        assert!(state.is_pausing(Moment(5_999)));
        assert!(!state.begin(Moment(5_999)) && !state.is_begun(Moment(5_999)));
        assert!(!state.is_pausing(Moment(6_000)));
        assert!(state.begin(Moment(6_000)));
    }
}
