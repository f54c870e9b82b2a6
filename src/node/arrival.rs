//! Finds clients whose packets come in and do not reach the cache, from what the kernel has noted. Pure.
//!
//! The kernel decides on each packet by itself (`nftables/encode/arrival.rs`). This makes a client that stays blocked
//! be tried ever more seldom, and keeps count for the log and the metrics.

use crate::backoff::pause_after;
use std::collections::{BTreeMap, HashSet};
use std::net::IpAddr;
use std::time::{Duration, Instant};

/// How long the kernel leaves a client alone after the first packet that did not arrive.
pub(super) const FIRST_PAUSE: Duration = Duration::from_secs(10);
/// The longest pause: each try may cost a query.
const LONGEST_PAUSE: Duration = Duration::from_secs(300);
/// A packet that was let in less than this ago may be on its way.
const ON_THE_WAY: Duration = Duration::from_millis(100);
/// The kernel's clock and ours read the same pause a little differently.
const SLACK: Duration = Duration::from_secs(1);
/// How long a client that asks no more is remembered after its pause.
const REMEMBERED_FOR: Duration = Duration::from_secs(60);
/// How long an arrival says that this node's path is open to some.
const ARRIVAL_COUNTS_FOR: Duration = Duration::from_secs(30);

/// A client, as a packet shows it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ArrivingClient {
    /// Index of the link by which its packets come in.
    pub interface: u32,
    /// Its address.
    pub address: IpAddr,
}

/// What the kernel has noted.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct ArrivalSnapshot {
    /// Clients whose last packet that was let in has not arrived (yet), and how long they are left alone from now on.
    pub blocked: Vec<(ArrivingClient, Duration)>,
    /// Clients whose packets have arrived just now.
    pub arriving: Vec<ArrivingClient>,
}

impl ArrivalSnapshot {
    /// The blocked ones without those whose packet may be on its way.
    pub(super) fn surely_blocked(&self) -> impl Iterator<Item = ArrivingClient> {
        let is_on_the_way = |pause: Duration| pause > FIRST_PAUSE - ON_THE_WAY && pause <= FIRST_PAUSE;
        self.blocked.iter().filter(move |(_, pause)| !is_on_the_way(*pause)).map(|(client, _)| *client)
    }
}

/// What is new.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct ArrivalChanges {
    /// Their packets do not arrive.
    pub blocked: Vec<ArrivingClient>,
    /// Their packets arrive again.
    pub freed: Vec<ArrivingClient>,
    /// They are to be left alone for so long, having been tried in vain again.
    pub lengthened: Vec<(ArrivingClient, Duration)>,
}

/// How many clients are served, as far as the kernel could tell.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct ClientReachability {
    /// Clients whose packets do not arrive; they are left to cluster DNS.
    pub blocked: usize,
    /// There are such clients, and lately no other's packets have arrived either.
    pub is_nobody_served: bool,
}

/// Everybody who is blocked.
#[derive(Debug, Default)]
pub(super) struct ArrivalTracker {
    blocked: BTreeMap<ArrivingClient, BlockedClient>,
    /// How many of them the kernel left alone at the last look.
    left_alone: usize,
    last_arrival: Option<Instant>,
}

#[derive(Debug)]
struct BlockedClient {
    tries: u32,
    until: Instant,
}

impl ArrivalTracker {
    /// Takes what was seen at `now`.
    pub(super) fn take(&mut self, snapshot: &ArrivalSnapshot, now: Instant) -> ArrivalChanges {
        let mut changes = ArrivalChanges::default();
        if !snapshot.arriving.is_empty() {
            self.last_arrival = Some(now);
        }
        for (client, pause) in &snapshot.blocked {
            let until = now + *pause;
            let known = self.blocked.get_mut(client);
            if known.as_ref().is_some_and(|known| until <= known.until + SLACK) || *pause > FIRST_PAUSE - ON_THE_WAY {
                continue;
            }
            match known {
                None => {
                    self.blocked.insert(*client, BlockedClient { tries: 1, until });
                    changes.blocked.push(*client);
                }
                Some(known) => {
                    let tries = known.tries.saturating_add(1);
                    let pause = pause_after(tries, FIRST_PAUSE, LONGEST_PAUSE);
                    *known = BlockedClient { tries, until: now + pause };
                    changes.lengthened.push((*client, pause));
                }
            }
        }
        let noted: HashSet<&ArrivingClient> = snapshot.blocked.iter().map(|(client, _)| client).collect();
        let arriving: HashSet<&ArrivingClient> = snapshot.arriving.iter().collect();
        self.blocked.retain(|client, blocked| {
            // The kernel takes out whose packet has arrived, before its pause is over.
            let is_freed = !noted.contains(client) && (arriving.contains(client) || now + SLACK < blocked.until);
            if is_freed {
                changes.freed.push(*client);
            }
            !is_freed && (noted.contains(client) || now < blocked.until + REMEMBERED_FOR)
        });
        self.left_alone = self.blocked.keys().filter(|client| noted.contains(client)).count();
        changes
    }

    /// Everybody will be tried again, as if each pause was over at `now`.
    pub(super) fn end_pauses(&mut self, now: Instant) {
        self.blocked.values_mut().for_each(|blocked| blocked.until = now);
    }

    /// How things stand at `now`.
    pub(super) fn reach(&self, now: Instant) -> ClientReachability {
        let is_any_served = self.last_arrival.is_some_and(|at| now < at + ARRIVAL_COUNTS_FOR);
        ClientReachability { blocked: self.left_alone, is_nobody_served: self.left_alone > 0 && !is_any_served }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const POD: ArrivingClient =
        ArrivingClient { interface: 7, address: IpAddr::V4(std::net::Ipv4Addr::new(10, 244, 1, 2)) };
    const OTHER: ArrivingClient =
        ArrivingClient { interface: 8, address: IpAddr::V4(std::net::Ipv4Addr::new(10, 244, 1, 3)) };
    const SECOND: Duration = Duration::from_secs(1);

    fn blocked(client: ArrivingClient, pause: Duration) -> ArrivalSnapshot {
        ArrivalSnapshot { blocked: vec![(client, pause)], arriving: Vec::new() }
    }

    fn arriving(client: ArrivingClient) -> ArrivalSnapshot {
        ArrivalSnapshot { blocked: Vec::new(), arriving: vec![client] }
    }

    #[test]
    fn a_packet_that_is_on_its_way_blocks_nobody() {
        let (mut arrivals, now) = (ArrivalTracker::default(), Instant::now());
        assert_eq!(arrivals.take(&blocked(POD, FIRST_PAUSE - ON_THE_WAY / 2), now), ArrivalChanges::default());
        assert_eq!(arrivals.reach(now), ClientReachability::default());
    }

    #[test]
    fn who_is_blocked_is_told_once_and_freed_when_a_packet_arrives() {
        let (mut arrivals, now) = (ArrivalTracker::default(), Instant::now());
        let changes = arrivals.take(&blocked(POD, 9 * SECOND), now);
        assert_eq!(changes.blocked, [POD]);
        assert_eq!(arrivals.take(&blocked(POD, 8 * SECOND), now + SECOND), ArrivalChanges::default());
        assert_eq!(arrivals.reach(now + SECOND).blocked, 1);
        assert_eq!(
            arrivals.take(&ArrivalSnapshot::default(), now + 11 * SECOND),
            ArrivalChanges::default(),
            "it may only have asked no more"
        );
        let changes = arrivals.take(&arriving(POD), now + 12 * SECOND);
        assert_eq!((changes.freed, changes.blocked), (vec![POD], vec![]));
        assert_eq!(arrivals.reach(now + 12 * SECOND), ClientReachability::default());
    }

    #[test]
    fn who_is_taken_out_before_its_pause_is_over_is_freed_unless_all_pauses_were_ended() {
        for is_ended in [false, true] {
            let (mut arrivals, now) = (ArrivalTracker::default(), Instant::now());
            arrivals.take(&blocked(POD, 9 * SECOND), now);
            if is_ended {
                arrivals.end_pauses(now);
            }
            let freed = arrivals.take(&ArrivalSnapshot::default(), now + SECOND).freed;
            assert_eq!(freed, if is_ended { vec![] } else { vec![POD] });
            assert_eq!(arrivals.reach(now + SECOND), ClientReachability::default());
        }
    }

    #[test]
    fn who_is_tried_in_vain_is_tried_ever_more_seldom() {
        let (mut arrivals, mut now) = (ArrivalTracker::default(), Instant::now());
        arrivals.take(&blocked(POD, 9 * SECOND), now);
        let mut pauses = Vec::new();
        for _ in 0..7 {
            // Each time the kernel begins with its own pause again, once the last one is over.
            now += pauses.last().map_or(FIRST_PAUSE, |(_, pause)| *pause) + SECOND;
            let changes = arrivals.take(&blocked(POD, 9 * SECOND + SECOND / 2), now);
            assert!(changes.blocked.is_empty());
            pauses.extend(changes.lengthened);
        }
        let seconds: Vec<u64> = pauses.iter().map(|(_, pause)| pause.as_secs()).collect();
        assert_eq!(seconds, [20, 40, 80, 160, 300, 300, 300]);
        // What the kernel then shows is what it was told.
        assert_eq!(arrivals.take(&blocked(POD, 299 * SECOND), now + SECOND), ArrivalChanges::default());
    }

    #[test]
    fn who_was_let_in_just_now_is_not_surely_blocked() {
        let snapshot = |pause| blocked(POD, pause).surely_blocked().count();
        assert_eq!([FIRST_PAUSE, FIRST_PAUSE - 2 * ON_THE_WAY, 30 * SECOND].map(snapshot), [0, 1, 1]);
    }

    #[test]
    fn who_asks_no_more_is_forgotten() {
        let (mut arrivals, now) = (ArrivalTracker::default(), Instant::now());
        arrivals.take(&blocked(POD, 9 * SECOND), now);
        arrivals.take(&ArrivalSnapshot::default(), now + 9 * SECOND + REMEMBERED_FOR);
        let changes = arrivals.take(&blocked(POD, 9 * SECOND), now + 2 * REMEMBERED_FOR);
        assert_eq!(changes.blocked, [POD], "as if for the first time");
    }

    #[test]
    fn nobody_is_served_when_some_are_blocked_and_no_packet_has_arrived_lately() {
        let (mut arrivals, now) = (ArrivalTracker::default(), Instant::now());
        arrivals.take(&arriving(OTHER), now);
        arrivals.take(&blocked(POD, 9 * SECOND), now + SECOND);
        assert_eq!(arrivals.reach(now + SECOND), ClientReachability { blocked: 1, is_nobody_served: false });
        arrivals.take(&blocked(POD, 8 * SECOND), now + ARRIVAL_COUNTS_FOR);
        assert_eq!(arrivals.reach(now + ARRIVAL_COUNTS_FOR), ClientReachability { blocked: 1, is_nobody_served: true });
    }
}
