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

/// By the hash of the key, which is computed once.
type Shard<K, V> = Mutex<HashTable<Flight<K, V>>>;

struct Flight<K, V> {
    key: K,
    hash: u64,
    number: u64,
    waiters: Vec<oneshot::Sender<V>>,
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
    /// Somebody asks already. An error from the receiver means that the leader is gone without an outcome: join again.
    Wait(oneshot::Receiver<V>),
}

/// The right, and the duty, to ask. Dropped without [`Lead::finish`] (a panic, a cancelled future), it sends its waiters back
/// to [`Flights::join`], where one of them leads.
pub struct Lead<K, V> {
    table: Arc<Table<K, V>>,
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
                flight.waiters.push(sender);
                Seat::Wait(receiver)
            }
            None => {
                let number = self.table.count.fetch_add(1, Ordering::Relaxed);
                shard.insert_unique(hash, Flight { key, hash, number, waiters: Vec::new() }, |flight| flight.hash);
                Seat::Lead(Lead { table: self.table.clone(), hash, number })
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
    pub fn finish(self, outcome: &V) -> usize {
        let waiters = self.land();
        waiters.into_iter().filter_map(|waiter| waiter.send(outcome.clone()).ok()).count()
    }
}

impl<K, V> Lead<K, V> {
    /// Nothing the second time.
    fn land(&self) -> Vec<oneshot::Sender<V>> {
        let mut shard = self.table.shard(self.hash).lock();
        let landed = shard.find_entry(self.hash, |flight| flight.number == self.number);
        landed.map(|entry| entry.remove().0.waiters).unwrap_or_default()
    }
}

impl<K, V> Drop for Lead<K, V> {
    fn drop(&mut self) {
        drop(self.land());
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

    fn wait(seat: Seat<&'static str, u32>) -> oneshot::Receiver<u32> {
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
        assert_eq!(waiters.each_mut().map(|waiter| waiter.try_recv()), [Ok(7), Ok(7)]);
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
    fn a_waiter_leads_when_the_leader_is_dropped() {
        let flights = Flights::default();
        let leader = lead(flights.join("a"));
        let mut first = wait(flights.join("a"));
        let mut second = wait(flights.join("a"));
        drop(leader);
        assert!(first.try_recv().is_err() && second.try_recv().is_err());
        let leader = lead(flights.join("a"));
        let mut second = wait(flights.join("a"));
        leader.finish(&3);
        assert_eq!(second.try_recv(), Ok(3));
    }

    #[test]
    fn a_waiter_that_left_is_not_counted() {
        let flights = Flights::default();
        let leader = lead(flights.join("a"));
        drop(wait(flights.join("a")));
        assert_eq!(leader.finish(&1), 0);
    }
}
