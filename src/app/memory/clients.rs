//! The share of the memory that clients may take. Pure.

use super::CgroupLevel;
use crate::server::Limits;

/// Octets that a query in flight takes, with all that waits for its answer upstream: measured with a silent upstream,
/// where each had up to two sockets to it (16 MiB for 1,365 queries, 54 for 5,096).
const QUERY_OCTETS: u64 = 12 << 10;
/// Octets that a TCP connection takes at most, in the kernel too (measured: 2.7 KiB of this process when idle, 6.7 with
/// a query in flight).
const CONNECTION_OCTETS: u64 = 8 << 10;

/// Of the memory, one part in so many is for queries in flight.
const QUERY_PART: u64 = 4;
/// … and for connections.
const CONNECTION_PART: u64 = 8;
/// One part in so many is for replies that clients have yet to take and queries that they have not finished.
const BUFFER_PART: u64 = 16;

/// Queries on a worker, connections, and octets of buffers that clients have at least: enough for the everyday work of
/// a node with little memory.
const LEAST_QUERIES: u64 = 128;
const LEAST_CONNECTIONS: u64 = 128;
const LEAST_BUFFERS: u64 = 512 << 10;

/// Below this memory limit a connection's buffers in the kernel are as small as may be: an everyday answer fits, a
/// longer one is written piece by piece. The kernel takes twice of it, in each direction. What clients do not read and
/// we have yet to read is of the container's memory too.
const SMALL_MEMORY: u64 = 1 << 30;
const SMALL_SOCKET_BUFFER: usize = 8 << 10;

/// How much of their places clients have, in parts of [`ALL`].
pub(super) type LoadParts = u64;
/// All of them.
pub(super) const ALL: LoadParts = 8;

/// What clients may take in a cgroup with this limit: at most what they may without one, and half of the open files, so
/// that upstreams are still asked and probes answered; of that, so many `parts`.
pub(super) fn limits_for(memory: Option<u64>, workers: usize, open_files: u64, parts: LoadParts) -> Limits {
    let most = Limits::default();
    let bound = |affordable: u64, least: u64, most: usize| {
        usize::try_from((affordable * parts / ALL).max(least)).unwrap_or(usize::MAX).min(most)
    };
    let memory = memory.unwrap_or(u64::MAX / 2);
    let queries = memory / QUERY_PART / QUERY_OCTETS / workers.max(1) as u64;
    let half_of_files = usize::try_from(open_files / 2).unwrap_or(usize::MAX);
    Limits {
        queries_per_worker: bound(queries.min(most.queries_per_worker as u64), LEAST_QUERIES, most.queries_per_worker),
        tcp_connections: bound(
            (memory / CONNECTION_PART / CONNECTION_OCTETS).min(most.tcp_connections as u64),
            LEAST_CONNECTIONS,
            most.tcp_connections.min(half_of_files),
        ),
        socket_buffer: (memory < SMALL_MEMORY).then_some(SMALL_SOCKET_BUFFER),
        buffer_octets: bound((memory / BUFFER_PART).min(most.buffer_octets as u64), LEAST_BUFFERS, most.buffer_octets),
        ..most
    }
}

/// How much of their places clients have in a cgroup that holds so much: all while three eighths of the limit are free
/// (1.5 GiB of a limit of 4 GiB or more), and one part from three sixteenths on (768 MiB), where the caches have not
/// begun to give up anything.
pub(super) fn client_share(level: &CgroupLevel) -> LoadParts {
    let (from, to) = (level.limit - level.reckoned() / 8 * 3, level.limit - level.reckoned() / 16 * 3);
    let step = ((to - from) / (ALL - 1)).max(1);
    ALL - (level.held.saturating_sub(from).div_ceil(step)).min(ALL - 1)
}

/// Looks in a row at which there is little left of a peak, until it counts as over: queries to a silent upstream take
/// seconds.
const CALM_LOOKS: u32 = 8;
/// Looks from one peak that is over to the next, 30 s: to give memory back takes a worker's allocations a while, and
/// who makes one peak after another shall not cause that each time.
const LOOKS_BETWEEN: u32 = 120;
/// A peak has so many queries and connections at least: less takes little memory.
const LEAST_PEAK: usize = 512;

/// When a peak of what clients have is over.
#[derive(Debug, Default)]
pub(super) struct Peak {
    highest: usize,
    calm_looks: u32,
    /// Looks until one may be over again.
    pause: u32,
}

impl Peak {
    /// Takes what clients have now; true once when a peak is over, and not again for a while.
    pub(super) fn is_over(&mut self, now: usize) -> bool {
        self.highest = self.highest.max(now);
        let is_calm = self.highest >= LEAST_PEAK && now <= self.highest / 4;
        self.calm_looks = if is_calm { self.calm_looks + 1 } else { 0 };
        self.pause = self.pause.saturating_sub(1);
        let is_over = self.calm_looks >= CALM_LOOKS && self.pause == 0;
        if is_over {
            *self = Self { highest: now, calm_looks: 0, pause: LOOKS_BETWEEN };
        }
        is_over
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MIB: u64 = 1 << 20;

    #[test]
    fn without_a_memory_limit_clients_have_what_they_always_had() {
        assert_eq!(limits_for(None, 4, 1 << 20, ALL), Limits::default());
        assert_eq!(limits_for(Some(64 << 30), 64, 1 << 20, ALL), Limits::default());
    }

    #[test]
    fn tcp_clients_leave_half_of_the_open_files_to_upstreams_and_probes() {
        assert_eq!(limits_for(None, 1, 1024, ALL).tcp_connections, 512);
        assert_eq!(limits_for(None, 1, 100, ALL).tcp_connections, 50);
    }

    #[test]
    fn what_clients_may_take_is_a_part_of_the_memory_limit() {
        for (memory, workers) in [(32, 1), (64, 2), (128, 4), (256, 8)] {
            let limits = limits_for(Some(memory * MIB), workers, 1 << 20, ALL);
            let taken = (limits.queries_per_worker * workers) as u64 * QUERY_OCTETS
                + limits.tcp_connections as u64 * CONNECTION_OCTETS
                + limits.buffer_octets as u64;
            assert!(taken <= memory * MIB / 16 * 7, "{memory} MiB: {taken}");
            assert!(taken >= memory * MIB / 8, "{memory} MiB: {taken}");
        }
        let least = limits_for(Some(MIB), 8, 1 << 20, ALL);
        assert_eq!((least.queries_per_worker, least.tcp_connections, least.buffer_octets), (128, 128, 512 << 10));
    }

    #[test]
    fn places_are_given_up_before_the_caches_give_up_anything() {
        let left = |held: u64| client_share(&CgroupLevel { limit: 64 * MIB, held: held * MIB });
        assert_eq!([0, 40, 41, 46, 50, 52, 56, 64, 100].map(left), [8, 8, 7, 4, 2, 1, 1, 1, 1]);
        let limits = |parts| limits_for(Some(64 * MIB), 2, 1 << 20, parts);
        assert!(limits(4).queries_per_worker * 2 <= limits(8).queries_per_worker + 1);
        assert_eq!(limits(1).tcp_connections, 128);
        assert_eq!(client_share(&CgroupLevel { limit: 0, held: 0 }), ALL);
    }

    #[test]
    fn a_large_cgroup_that_others_fill_costs_clients_no_places() {
        let left = |held: u64| client_share(&CgroupLevel { limit: 64 << 30, held });
        assert_eq!([52 << 30, 55 << 30, (62 << 30) + (512 << 20)].map(left), [ALL; 3]);
        assert_eq!(left((63 << 30) + (256 << 20)), 1, "three quarters of a GiB are free");
    }

    #[test]
    fn a_peak_is_over_once_when_little_is_left_for_a_while() {
        let mut peak = Peak::default();
        let mut over = |loads: &[usize]| loads.iter().filter(|load| peak.is_over(**load)).count();
        assert_eq!(over(&[100; 20]), 0, "no peak");
        assert_eq!(over(&[9000, 5000, 100, 100, 3000]), 0, "it comes again");
        assert_eq!(over(&[100; 7]), 0);
        assert_eq!(over(&[100; 50]), 1);
        assert_eq!(over(&[0; 200]), 0);
        assert_eq!(over(&[600, 0, 0, 0, 0, 0, 0, 0, 0]), 1, "the next one");
    }

    #[test]
    fn peaks_that_come_time_and_again_are_over_once_in_thirty_seconds() {
        let mut peak = Peak::default();
        let pulse = [600, 0, 0, 0, 0, 0, 0, 0, 0];
        let looks: Vec<usize> = pulse.iter().copied().cycle().take(1200).collect();
        let over = looks.iter().filter(|load| peak.is_over(**load)).count();
        assert!((9..=10).contains(&over), "{over} in 300 s");
    }
}
