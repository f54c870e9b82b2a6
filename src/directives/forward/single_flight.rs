//! Identical queries in flight are asked once (Go's `singleflight`): the first caller leads and asks, and those who
//! come meanwhile follow and get its outcome, on whichever worker. No I/O here; followers wait on a channel.

use foldhash::fast::RandomState;
use hashbrown::HashTable;
use parking_lot::Mutex;
use std::hash::{BuildHasher, Hash};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use tokio::sync::oneshot;

/// So many that two workers seldom wait for one lock.
const SHARDS: usize = 32;

/// The capacity that an empty shard keeps.
const KEPT_CAPACITY: usize = 64;

/// By the hash of the key, which is computed once.
type FlightShard<K, V> = Mutex<HashTable<Flight<K, V>>>;

/// One query in flight.
struct Flight<K, V> {
    key: K,
    hash: u64,
    number: u64,
    /// Latest last.
    followers: Vec<oneshot::Sender<FlightEvent<K, V>>>,
}

/// What a follower gets.
pub(super) enum FlightEvent<K, V> {
    Outcome(V),
    /// The leader is gone without an outcome, and the follower leads in its place.
    Promoted(Leader<K, V>),
}

/// The queries in flight, and who waits for each.
pub(super) struct SingleFlight<K, V> {
    table: Arc<FlightTable<K, V>>,
}

struct FlightTable<K, V> {
    hasher: RandomState,
    /// Flights so far, so that each has a number of its own.
    count: AtomicU64,
    shards: [FlightShard<K, V>; SHARDS],
}

/// What a caller has to do.
pub(super) enum FlightRole<K, V> {
    /// Ask, then call [`Leader::complete`].
    Leader(Leader<K, V>),
    /// Wait: somebody asks already.
    Follower(oneshot::Receiver<FlightEvent<K, V>>),
}

/// The duty to ask. If it is dropped without [`Leader::complete`] (a panic, a cancelled future), the latest follower
/// leads: where leaders have to give way to other clients, the oldest do so first, and the query should not be asked
/// anew for each of them.
pub(super) struct Leader<K, V> {
    /// `None` once the flight is complete or another caller leads.
    table: Option<Arc<FlightTable<K, V>>>,
    hash: u64,
    number: u64,
}

impl<K, V> Default for SingleFlight<K, V> {
    fn default() -> Self {
        Self {
            table: Arc::new(FlightTable {
                hasher: RandomState::default(),
                count: AtomicU64::new(0),
                shards: std::array::from_fn(|_| FlightShard::default()),
            }),
        }
    }
}

impl<K: Hash + Eq, V> SingleFlight<K, V> {
    /// Joins the flight of `key`, or leads a new one if there is none.
    pub(super) fn join(&self, key: K) -> FlightRole<K, V> {
        let hash = self.table.hasher.hash_one(&key);
        let mut shard = self.table.shard(hash).lock();
        match shard.find_mut(hash, |flight| flight.hash == hash && flight.key == key) {
            Some(flight) => {
                let (sender, receiver) = oneshot::channel();
                if flight.followers.len() == flight.followers.capacity() {
                    // Followers that no longer wait make room for new ones.
                    flight.followers.retain(|follower| !follower.is_closed());
                    // Without spare room, each follower that comes after one has left would check all the others.
                    if flight.followers.len() > flight.followers.capacity() / 2 {
                        flight.followers.reserve(flight.followers.capacity());
                    }
                }
                flight.followers.push(sender);
                FlightRole::Follower(receiver)
            }
            None => {
                let number = self.table.count.fetch_add(1, Ordering::Relaxed);
                shard.insert_unique(hash, Flight { key, hash, number, followers: Vec::new() }, |flight| flight.hash);
                FlightRole::Leader(Leader { table: Some(self.table.clone()), hash, number })
            }
        }
    }
}

impl<K, V> FlightTable<K, V> {
    fn shard(&self, hash: u64) -> &FlightShard<K, V> {
        // The hash table itself uses the lowest and the highest bits.
        &self.shards[(hash >> 32) as usize % SHARDS]
    }
}

impl<K, V: Clone> Leader<K, V> {
    /// Ends the flight and gives `outcome` to all followers. Returns how many got it.
    pub(super) fn complete(mut self, outcome: &V) -> usize {
        let followers = self.table.take().map(|table| table.remove(self.hash, self.number)).unwrap_or_default();
        followers.into_iter().filter_map(|follower| follower.send(FlightEvent::Outcome(outcome.clone())).ok()).count()
    }
}

impl<K, V> FlightTable<K, V> {
    /// Removes a flight and returns its followers.
    fn remove(&self, hash: u64, number: u64) -> Vec<oneshot::Sender<FlightEvent<K, V>>> {
        let mut shard = self.shard(hash).lock();
        let found = shard.find_entry(hash, |flight| flight.number == number);
        let followers = found.map(|entry| entry.remove().0.followers).unwrap_or_default();
        if shard.is_empty() && shard.capacity() > KEPT_CAPACITY {
            *shard = HashTable::new();
        }
        followers
    }

    /// Takes the latest follower out of a flight. A flight without followers is removed.
    fn successor(&self, hash: u64, number: u64) -> Option<oneshot::Sender<FlightEvent<K, V>>> {
        let mut shard = self.shard(hash).lock();
        let mut flight = shard.find_entry(hash, |flight| flight.number == number).ok()?;
        let successor = flight.get_mut().followers.pop();
        if successor.is_none() {
            flight.remove();
        }
        successor
    }
}

impl<K, V> Drop for Leader<K, V> {
    fn drop(&mut self) {
        let Some(mut table) = self.table.take() else { return };
        while let Some(follower) = table.successor(self.hash, self.number) {
            let leader = Self { table: Some(table), hash: self.hash, number: self.number };
            // A follower that no longer waits gives it back. It must not be dropped here, or the calls would nest as
            // deep as there are such followers.
            let Err(FlightEvent::Promoted(mut leader)) = follower.send(FlightEvent::Promoted(leader)) else { return };
            let Some(back) = leader.table.take() else { return };
            table = back;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn lead(role: FlightRole<&'static str, u32>) -> Leader<&'static str, u32> {
        match role {
            FlightRole::Leader(leader) => leader,
            FlightRole::Follower(_) => panic!("somebody leads already"),
        }
    }

    /// What a follower has got by now; `None` if it waits still.
    fn outcome(follower: &mut oneshot::Receiver<FlightEvent<&'static str, u32>>) -> Option<u32> {
        match follower.try_recv() {
            Ok(FlightEvent::Outcome(outcome)) => Some(outcome),
            Ok(FlightEvent::Promoted(_)) => panic!("it leads"),
            Err(_) => None,
        }
    }

    fn promotion(follower: &mut oneshot::Receiver<FlightEvent<&'static str, u32>>) -> Leader<&'static str, u32> {
        match follower.try_recv() {
            Ok(FlightEvent::Promoted(lead)) => lead,
            _ => panic!("it does not lead"),
        }
    }

    fn follow(role: FlightRole<&'static str, u32>) -> oneshot::Receiver<FlightEvent<&'static str, u32>> {
        match role {
            FlightRole::Follower(receiver) => receiver,
            FlightRole::Leader(_) => panic!("nobody leads"),
        }
    }

    #[test]
    fn followers_get_the_outcome_of_the_leader() {
        let flights = SingleFlight::default();
        let leader = lead(flights.join("a"));
        let mut followers = [follow(flights.join("a")), follow(flights.join("a"))];
        assert_eq!(leader.complete(&7), 2);
        assert_eq!(followers.each_mut().map(outcome), [Some(7), Some(7)]);
    }

    #[test]
    fn different_keys_do_not_wait_for_each_other() {
        let flights: SingleFlight<&str, u32> = SingleFlight::default();
        let _a = lead(flights.join("a"));
        let _b = lead(flights.join("b"));
    }

    #[test]
    fn a_complete_flight_is_not_joined() {
        let flights = SingleFlight::default();
        lead(flights.join("a")).complete(&1);
        lead(flights.join("a")).complete(&2);
    }

    #[test]
    fn the_latest_follower_leads_when_the_leader_is_dropped_and_the_others_wait_on() {
        let flights = SingleFlight::default();
        let leader = lead(flights.join("a"));
        let mut followers: Vec<_> = (0..4).map(|_| follow(flights.join("a"))).collect();
        drop(followers.pop());
        drop(leader);
        let leader = promotion(&mut followers[2]);
        assert_eq!(followers[..2].iter_mut().map(outcome).collect::<Vec<_>>(), [None, None]);
        let mut late = follow(flights.join("a"));
        drop(leader);
        let leader = promotion(&mut late);
        assert_eq!(leader.complete(&3), 2);
        assert_eq!(followers[..2].iter_mut().map(outcome).collect::<Vec<_>>(), [Some(3), Some(3)]);
        drop(lead(flights.join("a")));
    }

    #[test]
    fn a_promoted_follower_that_never_looks_promotes_the_next() {
        let flights = SingleFlight::default();
        let leader = lead(flights.join("a"));
        let mut first = follow(flights.join("a"));
        let second = follow(flights.join("a"));
        drop(leader);
        drop(second);
        drop(promotion(&mut first));
        drop(lead(flights.join("a")));
    }

    #[test]
    fn followers_that_have_left_take_no_room_however_many_they_are() {
        let flights = SingleFlight::default();
        let leader = lead(flights.join("a"));
        for _ in 0..10_000 {
            drop(follow(flights.join("a")));
        }
        let hash = flights.table.hasher.hash_one("a");
        let followers = flights
            .table
            .shard(hash)
            .lock()
            .find(hash, |flight| flight.key == "a")
            .map(|flight| flight.followers.capacity());
        assert!(followers.is_some_and(|room| room < 16), "{followers:?}");
        // Without as many calls in one another.
        let waiting: Vec<_> = (0..100_000).map(|_| follow(flights.join("a"))).collect();
        drop(waiting);
        drop(leader);
        drop(lead(flights.join("a")));
    }

    #[test]
    fn followers_that_come_and_go_at_full_capacity_cost_a_few_checks_each() {
        let flights = SingleFlight::default();
        let _leader = lead(flights.join("a"));
        let hash = flights.table.hasher.hash_one("a");
        // When there is no room, each follower is checked.
        let checks_of_next = || {
            let shard = flights.table.shard(hash).lock();
            let followers = shard
                .find(hash, |flight| flight.key == "a")
                .map(|flight| (flight.followers.len(), flight.followers.capacity()));
            followers.map_or(0, |(count, room)| if count == room { count } else { 0 })
        };
        let mut waiting = Vec::new();
        while waiting.len() < 1000 || checks_of_next() == 0 {
            waiting.push(follow(flights.join("a")));
        }
        drop(waiting.pop());
        let checks: usize = (0..10_000)
            .map(|_| {
                let checks = checks_of_next();
                drop(follow(flights.join("a")));
                checks
            })
            .sum();
        assert!(checks <= 4 * 10_000, "{checks}");
    }

    #[test]
    fn a_follower_that_has_left_is_not_counted() {
        let flights = SingleFlight::default();
        let leader = lead(flights.join("a"));
        drop(follow(flights.join("a")));
        assert_eq!(leader.complete(&1), 0);
    }
}
