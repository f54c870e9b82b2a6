//! The TCP connections of all workers: how many there are, and which one makes room when there are too many.

use super::buffers::Buffers;
use crate::fairness::{Admission, Client, Evicted, Occupant, Place, Places};
use parking_lot::Mutex;
use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Instant;
use tokio::sync::Notify;

/// Stands for a connection with queries in flight.
const BUSY: u64 = u64::MAX;

/// Places beside those of clients, for connections from the very address that they come to, as the watchdog's probes
/// do. No other machine's and no pod's packets have such an address, only those of programs on the node's own network;
/// and one of these has its place for one reply, or until so many more have come. A probe asks at once when it is
/// connected, so it has been answered long before, also where a whole turn of accepts (128 in tokio) comes before it is
/// served.
const RESERVED: usize = 256;

/// Open connections, bounded.
pub(super) struct Connections {
    /// What is kept for their clients.
    pub buffers: Arc<Buffers>,
    /// Times are counted from here.
    epoch: Instant,
    open: Mutex<OpenConnections>,
}

struct OpenConnections {
    places: Places<Arc<Activity>>,
    reserved: VecDeque<Arc<Activity>>,
}

struct Activity {
    /// Microseconds after the epoch, or [`BUSY`].
    idle_since: AtomicU64,
    evicted: Notify,
}

impl Activity {
    fn is_idle(&self) -> bool {
        self.idle_since.load(Ordering::Relaxed) != BUSY
    }
}

impl Occupant for Arc<Activity> {
    const IDLES: bool = true;

    fn idle_since(&self) -> Option<u64> {
        Some(self.idle_since.load(Ordering::Relaxed)).filter(|since| *since != BUSY)
    }
}

/// Who asks for a connection.
#[derive(Clone, Copy)]
pub(super) struct Caller {
    pub client: Client,
    /// From the very address that it comes to.
    pub is_own: bool,
}

/// How a connection was let in.
pub(super) enum ConnectionAdmission {
    Granted(ConnectionPermit),
    /// Another one has been told to close.
    Evicting(ConnectionPermit, Closed),
    /// No client has more than this one, and none of its own is idle.
    Full,
}

/// A connection that has been told to close.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Closed {
    pub client: Client,
    /// Connections that the client had, with this one.
    pub held: usize,
    pub was_idle: bool,
}

impl Connections {
    /// At most `limit` connections, for whose clients `buffer_limit` octets are kept.
    pub(super) fn new(limit: usize, buffer_limit: usize, now: Instant) -> Self {
        let open = Mutex::new(OpenConnections { places: Places::new(limit), reserved: VecDeque::new() });
        Self { buffers: Arc::new(Buffers::new(buffer_limit)), epoch: now, open }
    }

    /// From now on so many connections, and octets for their clients. Those that are closed for the former.
    pub(super) fn set_limits(&self, limit: usize, buffer_limit: usize) -> Vec<Closed> {
        self.buffers.set_limit(buffer_limit);
        let evicted = self.open.lock().places.set_limit(limit);
        evicted.into_iter().map(close).collect()
    }

    pub(super) fn reply_octets(&self) -> usize {
        self.buffers.replies.load(Ordering::Relaxed)
    }

    pub(super) fn count(&self) -> usize {
        let open = self.open.lock();
        open.places.len() + open.reserved.len()
    }

    /// Lets a connection in, at the cost of one of the client that has most if there are as many as allowed.
    pub(super) fn admit(self: &Arc<Self>, caller: Caller, is_fair: bool, now: Instant) -> ConnectionAdmission {
        let activity = Arc::new(Activity { idle_since: AtomicU64::new(self.time(now)), evicted: Notify::new() });
        let mut open = self.open.lock();
        let admission = open.places.admit(caller.client, activity.clone(), is_fair);
        if matches!(admission, Admission::Full) && caller.is_own {
            open.reserved.push_back(activity.clone());
            let oldest = if open.reserved.len() > RESERVED { open.reserved.pop_front() } else { None };
            drop(open);
            oldest.inspect(|oldest| oldest.evicted.notify_one());
            return ConnectionAdmission::Granted(ConnectionPermit { connections: self.clone(), place: None, activity });
        }
        drop(open);
        let permit = |place| ConnectionPermit { connections: self.clone(), place: Some(place), activity };
        match admission {
            Admission::Granted(place) => ConnectionAdmission::Granted(permit(place)),
            Admission::Evicting(place, evicted) => ConnectionAdmission::Evicting(permit(place), close(evicted)),
            Admission::Full => ConnectionAdmission::Full,
        }
    }

    /// Closes a connection of the client that has most, if it is idle or that client has more than a few: for want of
    /// something else than places.
    pub(super) fn evict(&self) -> Option<Closed> {
        let evicted = self.open.lock().places.evict_spare_one();
        evicted.map(close)
    }

    fn time(&self, at: Instant) -> u64 {
        u64::try_from(at.saturating_duration_since(self.epoch).as_micros()).unwrap_or(BUSY - 1)
    }
}

fn close(evicted: Evicted<Arc<Activity>>) -> Closed {
    let Evicted { occupant, client, held } = evicted;
    occupant.evicted.notify_one();
    Closed { client, held, was_idle: occupant.is_idle() }
}

/// A connection's place among the open ones.
pub(super) struct ConnectionPermit {
    connections: Arc<Connections>,
    /// `None` for one of the reserved.
    place: Option<Place>,
    activity: Arc<Activity>,
}

impl ConnectionPermit {
    /// Resolves when the connection is to make room.
    pub(super) async fn evicted(&self) {
        self.activity.evicted.notified().await;
    }
    pub(super) fn set_idle(&self, since: Instant) {
        self.activity.idle_since.store(self.connections.time(since), Ordering::Relaxed);
    }
    pub(super) fn set_busy(&self) {
        self.activity.idle_since.store(BUSY, Ordering::Relaxed);
    }
    /// It is good for one reply.
    pub(super) fn is_reserved(&self) -> bool {
        self.place.is_none()
    }
}

impl Drop for ConnectionPermit {
    fn drop(&mut self) {
        let mut open = self.connections.open.lock();
        match self.place {
            Some(place) => _ = open.places.release(place),
            None => open.reserved.retain(|activity| !Arc::ptr_eq(activity, &self.activity)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fairness::Fairness;
    use futures_util::FutureExt;
    use std::time::Duration;

    fn caller(last: u8) -> Caller {
        Caller { client: Fairness::default().client([192, 0, 2, last].into()), is_own: false }
    }

    fn room(entry: ConnectionAdmission) -> ConnectionPermit {
        match entry {
            ConnectionAdmission::Granted(permit) | ConnectionAdmission::Evicting(permit, _) => permit,
            ConnectionAdmission::Full => panic!("full"),
        }
    }

    #[test]
    fn the_longest_idle_connection_makes_room_for_another_of_its_client() {
        let start = Instant::now();
        let at = |seconds| start + Duration::from_secs(seconds);
        let connections = Arc::new(Connections::new(3, 0, start));
        let admit = |seconds| connections.admit(caller(1), true, at(seconds));
        let busy = room(admit(0));
        busy.set_busy();
        let older = room(admit(1));
        let newer = room(admit(2));
        older.set_idle(at(5));
        let ConnectionAdmission::Evicting(latest, closed) = admit(6) else { panic!("not full") };
        assert_eq!(closed, Closed { client: caller(1).client, held: 3, was_idle: true });
        assert!(newer.evicted().now_or_never().is_some());
        assert!(older.evicted().now_or_never().is_none());
        assert_eq!(connections.count(), 3);
        drop(newer);
        assert_eq!(connections.count(), 3, "an evicted connection has given its place away already");
        older.set_busy();
        latest.set_busy();
        assert!(matches!(admit(7), ConnectionAdmission::Full));
        drop(busy);
        assert!(matches!(admit(8), ConnectionAdmission::Granted(_)));
    }

    #[test]
    fn busy_connections_of_the_client_that_has_most_make_room_for_others() {
        let start = Instant::now();
        let connections = Arc::new(Connections::new(3, 0, start));
        let theirs: Vec<ConnectionPermit> = (0..3).map(|_| room(connections.admit(caller(1), true, start))).collect();
        theirs.iter().for_each(ConnectionPermit::set_busy);
        let ConnectionAdmission::Evicting(modest, closed) = connections.admit(caller(2), true, start) else {
            panic!("refused")
        };
        assert_eq!((closed.client, closed.was_idle), (caller(1).client, false));
        modest.set_busy();
        assert!(matches!(connections.admit(caller(1), true, start), ConnectionAdmission::Full), "it has most still");
        assert!(
            matches!(connections.admit(caller(3), false, start), ConnectionAdmission::Full),
            "without fairness all alike"
        );
    }

    #[test]
    fn connections_from_the_nodes_own_address_have_places_that_no_client_takes() {
        let start = Instant::now();
        let connections = Arc::new(Connections::new(2, 0, start));
        let own = Caller { is_own: true, ..caller(1) };
        let held: Vec<ConnectionPermit> = (0..2).map(|_| room(connections.admit(own, true, start))).collect();
        held.iter().for_each(ConnectionPermit::set_busy);
        let reserved: Vec<ConnectionPermit> =
            (0..=RESERVED).map(|_| room(connections.admit(own, true, start))).collect();
        assert!(reserved.iter().all(ConnectionPermit::is_reserved) && !held.iter().any(ConnectionPermit::is_reserved));
        assert_eq!(connections.count(), 2 + RESERVED);
        assert!(reserved[0].evicted().now_or_never().is_some(), "the oldest");
        assert!(reserved[1..].iter().chain(&held).all(|permit| permit.evicted().now_or_never().is_none()));
        drop(reserved);
        assert_eq!(connections.count(), 2);
    }

    #[test]
    fn a_reserved_connection_outlasts_a_turn_of_accepts() {
        // What tokio accepts until other tasks have their turn.
        const TURN: usize = 128;
        let start = Instant::now();
        let connections = Arc::new(Connections::new(1, 0, start));
        let own = Caller { is_own: true, ..caller(1) };
        let tickets: Vec<ConnectionPermit> = (0..2 + TURN)
            .map(|_| room(connections.admit(own, true, start)))
            .inspect(ConnectionPermit::set_busy)
            .collect();
        assert!(tickets.iter().all(|permit| permit.evicted().now_or_never().is_none()));
    }

    #[test]
    fn a_lower_limit_closes_connections_of_those_who_have_most() {
        let start = Instant::now();
        let connections = Arc::new(Connections::new(40, 0, start));
        let tickets: Vec<ConnectionPermit> =
            (0..40).map(|number| room(connections.admit(caller(u8::from(number % 4 == 0)), true, start))).collect();
        let closed = connections.set_limits(20, 0);
        assert_eq!((closed.len(), connections.count()), (20, 20));
        assert!(closed.iter().all(|closed| closed.client == caller(0).client));
        drop(tickets);
        assert_eq!(connections.count(), 0);
    }
}
