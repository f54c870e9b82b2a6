//! Identical questions in flight are asked once: the first asker leads, everyone who comes while it asks waits for its outcome,
//! on whichever worker. No I/O here; waiting is a channel.

use foldhash::fast::RandomState;
use hashbrown::HashTable;
use parking_lot::Mutex;
use std::hash::{BuildHasher, Hash};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use tokio::sync::oneshot;

/// Enough that two workers seldom meet on one lock.
const SHARDS: usize = 32;

/// Flights that a shard keeps room for when it is empty.
const KEPT: usize = 64;

/// By the hash of the key, which is computed once.
type Shard<K, V> = Mutex<HashTable<Flight<K, V>>>;

struct Flight<K, V> {
    key: K,
    hash: u64,
    number: u64,
    /// The latest last.
    waiters: Vec<oneshot::Sender<Landing<K, V>>>,
}

/// What a waiter gets.
pub enum Landing<K, V> {
    Outcome(V),
    /// The leader is gone without an outcome, and the flight goes on: whoever gets this leads now.
    Succession(Lead<K, V>),
}

/// Questions in flight, and who waits for each. Cloning shares it.
pub struct Flights<K, V> {
    table: Arc<Table<K, V>>,
}

struct Table<K, V> {
    hasher: RandomState,
    /// Flights so far, so that each has a number of its own.
    count: AtomicU64,
    shards: [Shard<K, V>; SHARDS],
}

/// What an asker is to do.
pub enum Seat<K, V> {
    /// Ask, then [`Lead::finish`].
    Lead(Lead<K, V>),
    /// Somebody asks already.
    Wait(oneshot::Receiver<Landing<K, V>>),
}

/// The right, and the duty, to ask. Dropped without [`Lead::finish`] (a panic, a cancelled future), it goes to one of the waiters: the
/// latest, since where leaders have to give way, the oldest do first, and the question shall not be asked anew for each of them.
pub struct Lead<K, V> {
    /// `None` once somebody else leads.
    table: Option<Arc<Table<K, V>>>,
    hash: u64,
    number: u64,
}

impl<K, V> Default for Flights<K, V> {
    fn default() -> Self {
        Self {
            table: Arc::new(Table {
                hasher: RandomState::default(),
                count: AtomicU64::new(0),
                shards: std::array::from_fn(|_| Shard::default()),
            }),
        }
    }
}

impl<K: Hash + Eq, V> Flights<K, V> {
    /// Leads the flight for `key` if there is none, else waits for the one there is.
    pub fn join(&self, key: K) -> Seat<K, V> {
        let hash = self.table.hasher.hash_one(&key);
        let mut shard = self.table.shard(hash).lock();
        match shard.find_mut(hash, |flight| flight.hash == hash && flight.key == key) {
            Some(flight) => {
                let (sender, receiver) = oneshot::channel();
                if flight.waiters.len() == flight.waiters.capacity() {
                    // Those that have left take no room from those to come.
                    flight.waiters.retain(|waiter| !waiter.is_closed());
                    // Else one that comes and one that leaves would have all the others looked at each time.
                    if flight.waiters.len() > flight.waiters.capacity() / 2 {
                        flight.waiters.reserve(flight.waiters.capacity());
                    }
                }
                flight.waiters.push(sender);
                Seat::Wait(receiver)
            }
            None => {
                let number = self.table.count.fetch_add(1, Ordering::Relaxed);
                shard.insert_unique(hash, Flight { key, hash, number, waiters: Vec::new() }, |flight| flight.hash);
                Seat::Lead(Lead { table: Some(self.table.clone()), hash, number })
            }
        }
    }
}

impl<K, V> Table<K, V> {
    fn shard(&self, hash: u64) -> &Shard<K, V> {
        // The index inside a shard uses the lowest and the highest bits.
        &self.shards[(hash >> 32) as usize % SHARDS]
    }
}

impl<K, V: Clone> Lead<K, V> {
    /// Ends the flight and gives `outcome` to everyone who waits; returns how many those are.
    pub fn finish(mut self, outcome: &V) -> usize {
        let waiters = self.table.take().map(|table| table.land(self.hash, self.number)).unwrap_or_default();
        waiters.into_iter().filter_map(|waiter| waiter.send(Landing::Outcome(outcome.clone())).ok()).count()
    }
}

impl<K, V> Table<K, V> {
    fn land(&self, hash: u64, number: u64) -> Vec<oneshot::Sender<Landing<K, V>>> {
        let mut shard = self.shard(hash).lock();
        let landed = shard.find_entry(hash, |flight| flight.number == number);
        let waiters = landed.map(|entry| entry.remove().0.waiters).unwrap_or_default();
        if shard.is_empty() && shard.capacity() > KEPT {
            *shard = HashTable::new();
        }
        waiters
    }

    /// The latest waiter; without one the flight is over.
    fn successor(&self, hash: u64, number: u64) -> Option<oneshot::Sender<Landing<K, V>>> {
        let mut shard = self.shard(hash).lock();
        let mut flight = shard.find_entry(hash, |flight| flight.number == number).ok()?;
        let successor = flight.get_mut().waiters.pop();
        if successor.is_none() {
            flight.remove();
        }
        successor
    }
}

impl<K, V> Drop for Lead<K, V> {
    fn drop(&mut self) {
        let Some(mut table) = self.table.take() else { return };
        while let Some(waiter) = table.successor(self.hash, self.number) {
            let lead = Self { table: Some(table), hash: self.hash, number: self.number };
            // One that has left gives it back. It is not dropped here: there would be as many calls in one another as waiters that have left.
            let Err(Landing::Succession(mut lead)) = waiter.send(Landing::Succession(lead)) else { return };
            let Some(back) = lead.table.take() else { return };
            table = back;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn lead(seat: Seat<&'static str, u32>) -> Lead<&'static str, u32> {
        match seat {
            Seat::Lead(lead) => lead,
            Seat::Wait(_) => panic!("somebody leads already"),
        }
    }

    /// What a waiter has got by now; `None` if it waits still.
    fn outcome(waiter: &mut oneshot::Receiver<Landing<&'static str, u32>>) -> Option<u32> {
        match waiter.try_recv() {
            Ok(Landing::Outcome(outcome)) => Some(outcome),
            Ok(Landing::Succession(_)) => panic!("it leads"),
            Err(_) => None,
        }
    }

    fn succession(waiter: &mut oneshot::Receiver<Landing<&'static str, u32>>) -> Lead<&'static str, u32> {
        match waiter.try_recv() {
            Ok(Landing::Succession(lead)) => lead,
            _ => panic!("it does not lead"),
        }
    }

    fn wait(seat: Seat<&'static str, u32>) -> oneshot::Receiver<Landing<&'static str, u32>> {
        match seat {
            Seat::Wait(receiver) => receiver,
            Seat::Lead(_) => panic!("nobody leads"),
        }
    }

    #[test]
    fn everyone_who_came_while_the_leader_asked_gets_its_outcome() {
        let flights = Flights::default();
        let leader = lead(flights.join("a"));
        let mut waiters = [wait(flights.join("a")), wait(flights.join("a"))];
        assert_eq!(leader.finish(&7), 2);
        assert_eq!(waiters.each_mut().map(outcome), [Some(7), Some(7)]);
    }

    #[test]
    fn questions_that_differ_do_not_wait_for_each_other() {
        let flights: Flights<&str, u32> = Flights::default();
        let _a = lead(flights.join("a"));
        let _b = lead(flights.join("b"));
    }

    #[test]
    fn a_flight_that_is_over_is_not_joined() {
        let flights = Flights::default();
        lead(flights.join("a")).finish(&1);
        lead(flights.join("a")).finish(&2);
    }

    #[test]
    fn the_latest_waiter_leads_when_the_leader_is_dropped_and_the_others_wait_on() {
        let flights = Flights::default();
        let leader = lead(flights.join("a"));
        let mut waiters: Vec<_> = (0..4).map(|_| wait(flights.join("a"))).collect();
        drop(waiters.pop());
        drop(leader);
        let leader = succession(&mut waiters[2]);
        assert_eq!(waiters[..2].iter_mut().map(outcome).collect::<Vec<_>>(), [None, None]);
        let mut late = wait(flights.join("a"));
        drop(leader);
        let leader = succession(&mut late);
        assert_eq!(leader.finish(&3), 2);
        assert_eq!(waiters[..2].iter_mut().map(outcome).collect::<Vec<_>>(), [Some(3), Some(3)]);
        drop(lead(flights.join("a")));
    }

    #[test]
    fn a_successor_that_never_looks_hands_the_lead_on() {
        let flights = Flights::default();
        let leader = lead(flights.join("a"));
        let mut first = wait(flights.join("a"));
        let second = wait(flights.join("a"));
        drop(leader);
        drop(second);
        drop(succession(&mut first));
        drop(lead(flights.join("a")));
    }

    #[test]
    fn waiters_that_have_left_take_no_room_however_many_they_are() {
        let flights = Flights::default();
        let leader = lead(flights.join("a"));
        for _ in 0..10_000 {
            drop(wait(flights.join("a")));
        }
        let hash = flights.table.hasher.hash_one("a");
        let waiters =
            flights.table.shard(hash).lock().find(hash, |flight| flight.key == "a").map(|flight| flight.waiters.capacity());
        assert!(waiters.is_some_and(|room| room < 16), "{waiters:?}");
        // Without as many calls in one another.
        let waiting: Vec<_> = (0..100_000).map(|_| wait(flights.join("a"))).collect();
        drop(waiting);
        drop(leader);
        drop(lead(flights.join("a")));
    }

    #[test]
    fn waiters_that_come_and_go_at_the_edge_of_room_cost_a_few_looks_each() {
        let flights = Flights::default();
        let _leader = lead(flights.join("a"));
        let hash = flights.table.hasher.hash_one("a");
        // When there is no room, each waiter is looked at.
        let looks_of_next = || {
            let shard = flights.table.shard(hash).lock();
            let waiters =
                shard.find(hash, |flight| flight.key == "a").map(|flight| (flight.waiters.len(), flight.waiters.capacity()));
            waiters.map_or(0, |(count, room)| if count == room { count } else { 0 })
        };
        let mut waiting = Vec::new();
        while waiting.len() < 1000 || looks_of_next() == 0 {
            waiting.push(wait(flights.join("a")));
        }
        drop(waiting.pop());
        let looks: usize = (0..10_000)
            .map(|_| {
                let looks = looks_of_next();
                drop(wait(flights.join("a")));
                looks
            })
            .sum();
        assert!(looks <= 4 * 10_000, "{looks}");
    }

    #[test]
    fn a_waiter_that_left_is_not_counted() {
        let flights = Flights::default();
        let leader = lead(flights.join("a"));
        drop(wait(flights.join("a")));
        assert_eq!(leader.finish(&1), 0);
    }
}
