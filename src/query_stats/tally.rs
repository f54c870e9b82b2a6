//! What was asked in a stretch of time.

use super::heavy_hitters::{HeavyHitters, Room};
use crate::message::{Rcode, RecordType};
use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};
use std::time::{Duration, Instant};

/// Of each sketch of the stretch that is not over.
pub(super) const WRITTEN: Room = Room { keys: 512, octets: 48 << 10 };
/// Of each sketch of a stretch that is over.
pub(super) const KEPT: Room = Room { keys: 128, octets: 12 << 10 };
/// Of a sum of those, which lives as long as an answer is made.
pub(super) const SUM: Room = Room { keys: 4096, octets: 256 << 10 };

/// Slowest queries that are kept.
pub(super) const SLOWEST: usize = 32;
/// Upstreams that are told apart.
const MOST_UPSTREAMS: usize = 64;
/// Response codes that are told apart: those of the header, those of EDNS that IANA has assigned, and all others.
const RCODES: usize = 25;

/// Names and types as they are asked for, and who asked.
#[derive(Clone, Copy)]
pub(crate) struct Asked<'a> {
    /// In wire form.
    pub name: &'a [u8],
    pub qtype: RecordType,
    pub client: IpAddr,
}

/// How an answer was had that was not at hand.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Route {
    /// The one that answered, or else the one that was asked last; `None` if none was.
    pub upstream: Option<SocketAddr>,
    /// `udp`, `tcp`, `tls` or `https`; empty if another query's exchange was shared.
    pub transport: &'static str,
    /// Messages sent to upstreams.
    pub tries: u16,
    /// It is an old answer, because no new one came.
    pub is_stale: bool,
}

/// A query whose answer was not at hand.
#[derive(Clone, Debug)]
pub(super) struct SlowQuery {
    pub began: Instant,
    pub took: Duration,
    pub name: Box<[u8]>,
    pub qtype: RecordType,
    pub client: IpAddr,
    /// `None`: nothing was said.
    pub rcode: Option<Rcode>,
    pub answered_by: &'static str,
    pub route: Route,
}

/// What one upstream was the last to be asked for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct UpstreamTally {
    pub queries: u64,
    pub failures: u64,
    pub took: Duration,
    pub longest: Duration,
}

/// A client's address in octets.
enum Address {
    V4([u8; 4]),
    V6([u8; 16]),
}

impl Address {
    fn of(client: IpAddr) -> Self {
        match client {
            IpAddr::V4(client) => Self::V4(client.octets()),
            IpAddr::V6(client) => Self::V6(client.octets()),
        }
    }
    fn octets(&self) -> &[u8] {
        match self {
            Self::V4(octets) => octets,
            Self::V6(octets) => octets,
        }
    }
}

#[derive(Clone, Debug)]
pub(super) struct Tally {
    pub names: HeavyHitters,
    pub clients: HeavyHitters,
    /// Of names, each with a client's address behind its root.
    pub pairs: HeavyHitters,
    /// Those that were answered NXDOMAIN.
    pub missing: HeavyHitters,
    /// Those that were answered an error, or not.
    pub failed: HeavyHitters,
    /// Answered at once, as estimated by those that were recorded.
    pub hits: u64,
    /// Whose answers were not at hand; counted one by one.
    pub misses: u64,
    /// Refused or dropped at once, or malformed; counted one by one.
    pub rejected: u64,
    /// Of those, what is no query that can be answered.
    pub malformed: u64,
    /// Of all, what got an error or nothing.
    pub failures: u64,
    /// Records that were left out: somebody was just taking what had been recorded.
    pub not_recorded: u64,
    rcodes: [u64; RCODES],
    pub upstreams: BTreeMap<SocketAddr, UpstreamTally>,
    pub slow: Vec<SlowQuery>,
}

impl Default for Tally {
    fn default() -> Self {
        Self::with_room(WRITTEN)
    }
}

impl Tally {
    pub(super) fn with_room(room: Room) -> Self {
        let new = || HeavyHitters::new(room);
        Self {
            names: new(),
            clients: new(),
            pairs: new(),
            missing: new(),
            failed: new(),
            hits: 0,
            misses: 0,
            rejected: 0,
            malformed: 0,
            failures: 0,
            not_recorded: 0,
            rcodes: [0; RCODES],
            upstreams: BTreeMap::new(),
            slow: Vec::new(),
        }
    }

    /// Counts what was asked so many times; `rcode` is `None` where nothing was said.
    pub(super) fn count(&mut self, asked: &Asked<'_>, rcode: Option<Rcode>, times: u64) {
        // The name and the client's address behind it, built once for all that is looked up.
        let mut key = [0; 255 + 16];
        let address = Address::of(asked.client);
        let address = address.octets();
        let length = asked.name.len() + address.len();
        let Some(pair) = key.get_mut(..length) else { return };
        let Some((name, of_address)) = pair.split_at_mut_checked(asked.name.len()) else { return };
        name.copy_from_slice(asked.name);
        // Length octets are at most 63, below the letters.
        name.make_ascii_lowercase();
        of_address.copy_from_slice(address);
        let name = &*name;
        self.names.add(name, times);
        self.clients.add(address, times);
        match rcode {
            Some(Rcode::NOERROR) => {}
            Some(Rcode::NXDOMAIN) => self.missing.add(name, times),
            _ => {
                self.failures += times;
                self.failed.add(name, times);
            }
        }
        self.pairs.add(pair, times);
        self.count_rcode(rcode, times);
    }

    /// Counts a message that cannot be read.
    pub(super) fn count_unread(&mut self, client: IpAddr, rcode: Option<Rcode>) {
        self.clients.add(Address::of(client).octets(), 1);
        self.failures += 1;
        self.count_rcode(rcode, 1);
    }

    fn count_rcode(&mut self, rcode: Option<Rcode>, times: u64) {
        if let Some(rcode) = rcode
            && let Some(count) = self.rcodes.get_mut(usize::from(rcode.0).min(RCODES - 1))
        {
            *count += times;
        }
    }

    /// Counts a query that an upstream was asked for.
    pub(super) fn count_upstream(&mut self, upstream: SocketAddr, took: Duration, is_failure: bool) {
        if self.upstreams.len() >= MOST_UPSTREAMS && !self.upstreams.contains_key(&upstream) {
            return;
        }
        let tally = self.upstreams.entry(upstream).or_default();
        tally.queries += 1;
        tally.failures += u64::from(is_failure);
        tally.took += took;
        tally.longest = tally.longest.max(took);
    }

    /// Whether a query that took so long is one of the slowest.
    pub(super) fn is_slow(&self, took: Duration) -> bool {
        self.slow.len() < SLOWEST || self.slow.iter().any(|slow| slow.took < took)
    }

    pub(super) fn take_slow(&mut self, query: SlowQuery) {
        if self.slow.len() >= SLOWEST
            && let Some((fastest, _)) = self.slow.iter().enumerate().min_by_key(|(_, slow)| slow.took)
        {
            self.slow.swap_remove(fastest);
        }
        self.slow.push(query);
    }

    /// Response codes that were given, and how often; `None` stands for those above all that are told apart.
    pub(super) fn rcodes(&self) -> impl Iterator<Item = (Option<Rcode>, u64)> {
        let named = |code: usize| (code < RCODES - 1).then_some(Rcode(code as u16));
        self.rcodes.iter().enumerate().filter(|(_, count)| **count > 0).map(move |(code, count)| (named(code), *count))
    }

    /// Adds another stretch.
    pub(super) fn merge(&mut self, other: &Self) {
        for (own, theirs) in self.sketches_mut().into_iter().zip(other.sketches()) {
            own.merge(theirs);
        }
        self.hits += other.hits;
        self.misses += other.misses;
        self.rejected += other.rejected;
        self.malformed += other.malformed;
        self.failures += other.failures;
        self.not_recorded += other.not_recorded;
        self.rcodes.iter_mut().zip(&other.rcodes).for_each(|(own, theirs)| *own += theirs);
        for (address, theirs) in &other.upstreams {
            if self.upstreams.len() >= MOST_UPSTREAMS && !self.upstreams.contains_key(address) {
                continue;
            }
            let own = self.upstreams.entry(*address).or_default();
            own.queries += theirs.queries;
            own.failures += theirs.failures;
            own.took += theirs.took;
            own.longest = own.longest.max(theirs.longest);
        }
        for slow in &other.slow {
            if self.is_slow(slow.took) {
                self.take_slow(slow.clone());
            }
        }
    }

    /// Nothing more is added to it.
    pub(super) fn finish(&mut self) {
        self.sketches_mut().into_iter().for_each(|sketch| sketch.set_room(KEPT));
    }

    fn sketches(&self) -> [&HeavyHitters; 5] {
        [&self.names, &self.clients, &self.pairs, &self.missing, &self.failed]
    }

    fn sketches_mut(&mut self) -> [&mut HeavyHitters; 5] {
        [&mut self.names, &mut self.clients, &mut self.pairs, &mut self.missing, &mut self.failed]
    }

    /// Octets of memory.
    #[cfg(test)]
    pub(super) fn memory(&self) -> usize {
        let sketches: usize = self.sketches().into_iter().map(HeavyHitters::memory).sum();
        let slow = self.slow.capacity() * size_of::<SlowQuery>();
        let names: usize = self.slow.iter().map(|slow| slow.name.len() + 16).sum();
        let upstreams = self.upstreams.len() * 2 * size_of::<(SocketAddr, UpstreamTally)>();
        size_of::<Self>() + sketches + slow + names + upstreams
    }
}
