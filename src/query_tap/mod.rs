//! The live tap: queries with how they were answered, shown one by one to whoever asks at the admin socket
//! (`nodelocaldns queries`). docs/queries.md is what users read.
//!
//! # Cost
//! While nobody taps, a miss and whatever is refused or dropped costs the load of a flag ([`QueryTaps::is_on`]), a hit
//! of the packet cache nothing, and any other the writing of a number (which handler has answered): the count down that
//! chooses the hits that are recorded is at its end for each hit while somebody taps
//! ([`crate::query_stats::Sampler::set_every`]).
//!
//! A worker never waits. What a tap's filter lets through is copied into a channel of its own, which is bounded in
//! queries and octets ([`MOST_QUERIES`], [`MOST_OCTETS`]) and which nobody is woken for: the admin thread looks into it
//! again and again. What it has no room for is left out and counted.

mod filter;
mod pcap;
mod report;

pub(crate) use filter::{FilterError, FilterText, TapFilter};
pub(crate) use pcap::{PCAP_HEADER, Packet, write_packet};
pub(crate) use report::{QueryReport, WallClock, utc};

use crate::message::{Rcode, RecordType};
use crate::query_stats::Route;
use arc_swap::ArcSwap;
use parking_lot::Mutex;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::time::{Duration, Instant};
use tokio::sync::mpsc;

/// Taps at a time.
pub(crate) const MOST_TAPS: usize = 4;
/// Queries that wait to be shown, for each tap.
const MOST_QUERIES: usize = 4096;
/// Octets of memory that they take, for each tap.
const MOST_OCTETS: usize = 1 << 20;

/// How an answer was had.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum How {
    /// `cache` had it, or an old one that it is to give at once.
    Hit,
    /// `cache` had an old one, and no newer one came.
    Stale,
    /// An upstream was asked.
    Miss,
    /// Another directive answered by itself.
    Local,
    /// No directive did: nobody here has that name, the message cannot be read, or no place was left for it.
    Rejected,
    /// Nothing was said.
    Dropped,
}

impl How {
    /// Of a reply with this code that the directive with this keyword gave; `""`: none did.
    fn of(answered_by: &str, rcode: Option<Rcode>, route: &Route) -> Self {
        match (rcode, answered_by) {
            (None, _) => Self::Dropped,
            (Some(_), "cache") if route.is_stale => Self::Stale,
            (Some(_), "cache") => Self::Hit,
            (Some(_), "forward") => Self::Miss,
            _ if route.upstream.is_some() => Self::Miss,
            (Some(_), "") => Self::Rejected,
            (Some(_), _) => Self::Local,
        }
    }

    pub(crate) fn label(self) -> &'static str {
        match self {
            Self::Hit => "hit",
            Self::Stale => "stale",
            Self::Miss => "miss",
            Self::Local => "local",
            Self::Rejected => "rejected",
            Self::Dropped => "dropped",
        }
    }
}

/// What a worker knows of a query that has been answered, or has not been and will not be.
#[derive(Clone, Copy)]
pub(crate) struct AnsweredQuery<'a> {
    pub received: Instant,
    pub took: Duration,
    pub client: SocketAddr,
    /// Where it arrived.
    pub server: SocketAddr,
    /// `udp`, `tcp`, `tls`, `https`, or `http`.
    pub protocol: &'static str,
    /// Its name in wire form; `None` of a message that cannot be read.
    pub asked: Option<(&'a [u8], RecordType)>,
    /// `None`: nothing was said.
    pub rcode: Option<Rcode>,
    /// Keyword of the directive that answered or failed; empty if none did.
    pub answered_by: &'static str,
    pub route: Route,
    /// Why it failed, if somebody has said so.
    pub reason: Option<&'a str>,
    /// The client's message.
    pub query: &'a [u8],
    /// The reply, which may be cut to what was sent. Empty: nothing was said.
    pub reply: &'a [u8],
}

/// An [`AnsweredQuery`] that waits to be shown.
pub(crate) struct TappedQuery {
    received: Instant,
    took: Duration,
    client: SocketAddr,
    server: SocketAddr,
    protocol: &'static str,
    asked: Option<(Box<[u8]>, RecordType)>,
    rcode: Option<Rcode>,
    answered_by: &'static str,
    route: Route,
    reason: Option<Box<str>>,
    messages: Option<Messages>,
}

/// The client's message and the reply.
struct Messages {
    query: Box<[u8]>,
    reply: Box<[u8]>,
}

/// Characters of a reason.
const REASON: usize = 200;

impl TappedQuery {
    fn new(query: &AnsweredQuery<'_>, keeps_messages: bool) -> Self {
        let reason = |reason: &str| reason.chars().take(REASON).collect();
        Self {
            received: query.received,
            took: query.took,
            client: query.client,
            server: query.server,
            protocol: query.protocol,
            asked: query.asked.map(|(name, qtype)| (name.into(), qtype)),
            rcode: query.rcode,
            answered_by: query.answered_by,
            route: query.route,
            reason: query.reason.map(reason),
            messages: keeps_messages.then(|| Messages { query: query.query.into(), reply: query.reply.into() }),
        }
    }

    /// Octets of memory, as they are counted before it is made: what the allocator adds is not.
    fn octets(query: &AnsweredQuery<'_>, keeps_messages: bool) -> usize {
        let messages = if keeps_messages { query.query.len() + query.reply.len() } else { 0 };
        let name = query.asked.map_or(0, |(name, _)| name.len());
        size_of::<Self>() + name + query.reason.map_or(0, |reason| reason.len().min(4 * REASON)) + messages
    }
}

/// All taps of a process.
#[derive(Default)]
pub(crate) struct QueryTaps {
    is_on: AtomicBool,
    taps: ArcSwap<Vec<Arc<Tap>>>,
    /// Held while `taps` is changed.
    changing: Mutex<()>,
}

struct Tap {
    filter: TapFilter,
    keeps_messages: bool,
    /// With the octets that each takes.
    queries: mpsc::Sender<(TappedQuery, usize)>,
    /// Octets of memory of what waits.
    waiting: AtomicUsize,
    /// Queries that there was no room for since this was asked last.
    lost: AtomicU64,
}

impl Tap {
    fn offer(&self, query: &AnsweredQuery<'_>) {
        if !self.filter.takes(query) {
            return;
        }
        let octets = TappedQuery::octets(query, self.keeps_messages);
        let has_room = self.waiting.fetch_add(octets, Ordering::Relaxed).saturating_add(octets) <= MOST_OCTETS;
        let is_taken = has_room
            && match self.queries.try_reserve() {
                Ok(place) => {
                    place.send((TappedQuery::new(query, self.keeps_messages), octets));
                    true
                }
                Err(_) => false,
            };
        if !is_taken {
            self.waiting.fetch_sub(octets, Ordering::Relaxed);
            self.lost.fetch_add(1, Ordering::Relaxed);
        }
    }
}

impl QueryTaps {
    /// Whether there is a tap that queries are to be shown to.
    #[inline]
    pub(crate) fn is_on(&self) -> bool {
        self.is_on.load(Ordering::Relaxed)
    }

    /// Shows a query to the taps whose filter takes it. Waits for nobody.
    pub(crate) fn show(&self, query: &AnsweredQuery<'_>) {
        self.taps.load().iter().for_each(|tap| tap.offer(query));
    }

    /// Begins a tap; `None` if there are [`MOST_TAPS`]. It ends when it is dropped.
    pub(crate) fn open(self: &Arc<Self>, filter: TapFilter, keeps_messages: bool) -> Option<TapReader> {
        let (sender, queries) = mpsc::channel(MOST_QUERIES);
        let tap =
            Tap { filter, keeps_messages, queries: sender, waiting: AtomicUsize::new(0), lost: AtomicU64::new(0) };
        let tap = Arc::new(tap);
        self.change(|taps| {
            let has_room = taps.len() < MOST_TAPS;
            if has_room {
                taps.push(tap.clone());
            }
            has_room
        })
        .then(|| TapReader { taps: self.clone(), tap, queries })
    }

    fn change<T>(&self, change: impl FnOnce(&mut Vec<Arc<Tap>>) -> T) -> T {
        let _changing = self.changing.lock();
        let mut taps = (**self.taps.load()).clone();
        let outcome = change(&mut taps);
        self.is_on.store(!taps.is_empty(), Ordering::Relaxed);
        self.taps.store(Arc::new(taps));
        outcome
    }
}

/// The end of a tap that reads.
pub(crate) struct TapReader {
    taps: Arc<QueryTaps>,
    tap: Arc<Tap>,
    queries: mpsc::Receiver<(TappedQuery, usize)>,
}

impl TapReader {
    /// The query that has waited longest, if one waits.
    pub(crate) fn next(&mut self) -> Option<TappedQuery> {
        let (query, octets) = self.queries.try_recv().ok()?;
        self.tap.waiting.fetch_sub(octets, Ordering::Relaxed);
        Some(query)
    }

    /// How many were left out since this was asked last.
    pub(crate) fn take_lost(&self) -> u64 {
        self.tap.lost.swap(0, Ordering::Relaxed)
    }

    /// Takes no more queries from now on; those that wait are still to be read.
    pub(crate) fn close(&self) {
        self.taps.change(|taps| taps.retain(|tap| !Arc::ptr_eq(tap, &self.tap)));
    }
}

impl Drop for TapReader {
    fn drop(&mut self) {
        self.close();
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use crate::message::{Name, Query};
    use std::net::{Ipv4Addr, Ipv6Addr};

    /// A query for an address of `a.example.` that was answered from the cache.
    pub(crate) fn with_sample<T>(work: impl FnOnce(AnsweredQuery<'_>) -> T) -> T {
        let name = Name::parse("a.example.").unwrap();
        let query = Query::compose(7, name.as_wire(), RecordType::A, true);
        let mut reply = query.clone();
        reply[2] |= 0x80;
        work(AnsweredQuery {
            received: Instant::now(),
            took: Duration::from_micros(12),
            client: (Ipv4Addr::new(10, 244, 0, 5), 41234).into(),
            server: (Ipv4Addr::new(169, 254, 20, 10), 53).into(),
            protocol: "udp",
            asked: Some((name.as_wire(), RecordType::A)),
            rcode: Some(Rcode::NOERROR),
            answered_by: "cache",
            route: Route::default(),
            reason: None,
            query: &query,
            reply: &reply,
        })
    }

    fn everything() -> TapFilter {
        TapFilter::read(&FilterText::default()).unwrap()
    }

    fn drain(reader: &mut TapReader) -> usize {
        std::iter::from_fn(|| reader.next()).count()
    }

    #[test]
    fn each_tap_gets_what_its_filter_takes_until_it_is_dropped() {
        with_sample(|sample| {
            let taps = Arc::new(QueryTaps::default());
            taps.show(&sample);
            assert!(!taps.is_on());
            let mut all = taps.open(everything(), false).unwrap();
            let text = FilterText { rcodes: vec!["NXDOMAIN".to_owned()], ..FilterText::default() };
            let mut missing = taps.open(TapFilter::read(&text).unwrap(), false).unwrap();
            assert!(taps.is_on());
            taps.show(&sample);
            taps.show(&AnsweredQuery { rcode: Some(Rcode::NXDOMAIN), ..sample });
            assert_eq!((drain(&mut all), drain(&mut missing)), (2, 1));
            drop(all);
            assert!(taps.is_on());
            taps.show(&AnsweredQuery { rcode: Some(Rcode::NXDOMAIN), ..sample });
            missing.close();
            taps.show(&AnsweredQuery { rcode: Some(Rcode::NXDOMAIN), ..sample });
            assert!(!taps.is_on());
            assert_eq!((drain(&mut missing), missing.take_lost()), (1, 0), "what came before its end");
        });
    }

    #[test]
    fn there_are_no_more_than_a_few_and_the_place_of_one_that_ends_is_free() {
        let taps = Arc::new(QueryTaps::default());
        let mut open: Vec<_> = (0..MOST_TAPS).map(|_| taps.open(everything(), false).unwrap()).collect();
        assert!(taps.open(everything(), false).is_none());
        open.pop();
        assert!(taps.open(everything(), false).is_some());
        drop(open);
        assert!(!taps.is_on());
    }

    #[test]
    fn what_nobody_reads_is_bounded_in_queries_and_octets_and_the_rest_is_counted() {
        with_sample(|sample| {
            let taps = Arc::new(QueryTaps::default());
            let (mut short, mut long) =
                (taps.open(everything(), false).unwrap(), taps.open(everything(), true).unwrap());
            let reply = vec![0; 64 << 10];
            let many = MOST_QUERIES + 5;
            (0..many).for_each(|_| taps.show(&AnsweredQuery { reply: &reply, ..sample }));
            assert!(short.tap.waiting.load(Ordering::Relaxed) <= MOST_OCTETS);
            let kept = drain(&mut short);
            assert!((MOST_QUERIES / 2..=MOST_QUERIES).contains(&kept), "{kept}");
            assert_eq!(kept as u64 + short.take_lost(), many as u64);
            assert_eq!((short.take_lost(), short.tap.waiting.load(Ordering::Relaxed)), (0, 0));
            let kept = drain(&mut long);
            assert!((10..16).contains(&kept), "{kept}");
            assert_eq!(kept as u64 + long.take_lost(), many as u64);
            taps.show(&sample);
            assert_eq!((drain(&mut short), drain(&mut long)), (1, 1), "there is room again");
        });
    }

    #[test]
    fn how_an_answer_was_had_is_told_by_who_gave_it() {
        let asked = Route { upstream: Some((Ipv6Addr::LOCALHOST, 53).into()), ..Route::default() };
        let stale = Route { is_stale: true, ..asked };
        let ok = Some(Rcode::NOERROR);
        for (answered_by, rcode, route, expected) in [
            ("cache", ok, Route::default(), How::Hit),
            ("cache", ok, stale, How::Stale),
            ("forward", ok, asked, How::Miss),
            ("forward", Some(Rcode::SERVFAIL), Route::default(), How::Miss),
            ("rewrite", ok, asked, How::Miss),
            ("hosts", ok, Route::default(), How::Local),
            ("", Some(Rcode::REFUSED), Route::default(), How::Rejected),
            ("acl", None, Route::default(), How::Dropped),
        ] {
            assert_eq!(How::of(answered_by, rcode, &route), expected, "{answered_by} {rcode:?}");
        }
    }
}
