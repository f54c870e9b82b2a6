//! The TCP connections of all workers: how many there are, and which one makes room when there are too many.

use parking_lot::Mutex;
use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::time::Instant;
use tokio::sync::Notify;

/// Stands for a connection with queries in flight.
const BUSY: u64 = u64::MAX;

/// Open connections, bounded.
pub(super) struct Connections {
    limit: usize,
    reply_limit: usize,
    /// Octets of replies that have yet to be taken, of all connections.
    reply_octets: AtomicUsize,
    /// Times are counted from here.
    epoch: Instant,
    open: Mutex<Open>,
}

#[derive(Default)]
struct Open {
    by_number: HashMap<u64, Arc<Activity>>,
    next: u64,
}

struct Activity {
    /// Microseconds after the epoch, or [`BUSY`].
    idle_since: AtomicU64,
    evicted: Notify,
}

/// How a connection was let in.
pub(super) enum Admission {
    Room(Ticket),
    /// The longest idle one has been told to close.
    Evicting(Ticket),
    /// None is idle.
    Full,
}

impl Connections {
    pub fn new(limit: usize, reply_limit: usize, now: Instant) -> Self {
        let limit = limit.max(1);
        Self { limit, reply_limit, reply_octets: AtomicUsize::new(0), epoch: now, open: Mutex::default() }
    }

    /// Counts octets of replies that are kept for a client; tells whether there is room for them.
    pub fn keep_reply(&self, octets: usize) -> bool {
        self.reply_octets.fetch_add(octets, Ordering::Relaxed).saturating_add(octets) <= self.reply_limit
    }

    /// Takes back what [`Connections::keep_reply`] counted.
    pub fn release_replies(&self, octets: usize) {
        self.reply_octets.fetch_sub(octets, Ordering::Relaxed);
    }

    pub fn reply_octets(&self) -> usize {
        self.reply_octets.load(Ordering::Relaxed)
    }

    pub fn count(&self) -> usize {
        self.open.lock().by_number.len()
    }

    /// Lets a connection in, at the cost of the longest idle one if there are as many as allowed.
    pub fn admit(self: &Arc<Self>, now: Instant) -> Admission {
        let mut open = self.open.lock();
        let is_full = open.by_number.len() >= self.limit;
        if is_full && !open.evict() {
            return Admission::Full;
        }
        let number = open.next;
        open.next += 1;
        let activity = Arc::new(Activity { idle_since: AtomicU64::new(self.time(now)), evicted: Notify::new() });
        open.by_number.insert(number, activity.clone());
        let ticket = Ticket { connections: self.clone(), number, activity };
        if is_full { Admission::Evicting(ticket) } else { Admission::Room(ticket) }
    }

    /// Closes the longest idle connection; tells whether there was one.
    pub fn evict(&self) -> bool {
        self.open.lock().evict()
    }

    fn time(&self, at: Instant) -> u64 {
        u64::try_from(at.saturating_duration_since(self.epoch).as_micros()).unwrap_or(BUSY - 1)
    }
}

impl Open {
    fn evict(&mut self) -> bool {
        let idle = self.by_number.iter().map(|(number, activity)| (activity.idle_since.load(Ordering::Relaxed), *number));
        // Only reached at the limit, so that walking through all of them costs no one who behaves.
        let Some((_, number)) = idle.filter(|(since, _)| *since != BUSY).min() else { return false };
        if let Some(activity) = self.by_number.remove(&number) {
            activity.evicted.notify_one();
        }
        true
    }
}

/// A connection's place among the open ones.
pub(super) struct Ticket {
    connections: Arc<Connections>,
    number: u64,
    activity: Arc<Activity>,
}

impl Ticket {
    /// Resolves when the connection is to make room.
    pub async fn evicted(&self) {
        self.activity.evicted.notified().await;
    }
    pub fn set_idle(&self, since: Instant) {
        self.activity.idle_since.store(self.connections.time(since), Ordering::Relaxed);
    }
    pub fn set_busy(&self) {
        self.activity.idle_since.store(BUSY, Ordering::Relaxed);
    }
}

impl Drop for Ticket {
    fn drop(&mut self) {
        self.connections.open.lock().by_number.remove(&self.number);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use futures_util::FutureExt;
    use std::time::Duration;

    fn room(admission: Admission) -> Ticket {
        match admission {
            Admission::Room(ticket) | Admission::Evicting(ticket) => ticket,
            Admission::Full => panic!("full"),
        }
    }

    #[test]
    fn the_longest_idle_connection_makes_room_and_busy_ones_never_do() {
        let start = Instant::now();
        let at = |seconds| start + Duration::from_secs(seconds);
        let connections = Arc::new(Connections::new(3, 0, start));
        let busy = room(connections.admit(at(0)));
        busy.set_busy();
        let older = room(connections.admit(at(1)));
        let newer = room(connections.admit(at(2)));
        older.set_idle(at(5));
        let Admission::Evicting(latest) = connections.admit(at(6)) else { panic!("not full") };
        assert!(newer.evicted().now_or_never().is_some());
        assert!(older.evicted().now_or_never().is_none());
        assert_eq!(connections.count(), 3);
        drop(newer);
        assert_eq!(connections.count(), 3, "an evicted connection has given its place away already");
        older.set_busy();
        latest.set_busy();
        assert!(matches!(connections.admit(at(7)), Admission::Full));
        drop(busy);
        assert!(matches!(connections.admit(at(8)), Admission::Room(_)));
    }
}
