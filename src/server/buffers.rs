//! Bounds the memory for TCP clients over all connections: queries that they have not finished, and replies that they
//! have yet to take. It is counted in pieces, which are places as queries and connections are: when there are no more,
//! a connection of the client that has most of them makes room.

use crate::fairness::{Admission, Client, Occupant, Place, Places};
use parking_lot::Mutex;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use tokio::sync::Notify;

/// Octets of a piece.
const PIECE: usize = 4 << 10;

/// The pieces of all connections.
pub(super) struct Buffers {
    pieces: Mutex<Places<Arc<ConnectionMemory>>>,
    /// Octets of replies that clients have yet to take, those that need no piece included.
    pub replies: AtomicUsize,
}

/// A connection that may have pieces.
pub(super) struct ConnectionMemory {
    buffers: Arc<Buffers>,
    client: Client,
    is_fair: bool,
    is_cut: AtomicBool,
    cut: Notify,
}

/// The pieces that one of a connection's buffers has.
pub(super) struct Reservation {
    memory: Arc<ConnectionMemory>,
    pieces: Vec<Place>,
}

impl Occupant for Arc<ConnectionMemory> {
    const IDLES: bool = false;

    fn idle_since(&self) -> Option<u64> {
        None
    }
}

impl Buffers {
    /// For so many octets, at least those of one piece.
    pub(super) fn new(octets: usize) -> Self {
        Self { pieces: Mutex::new(Places::new(octets / PIECE)), replies: AtomicUsize::new(0) }
    }

    /// From now on for so many octets. Connections that have too much are told to make room.
    pub(super) fn set_limit(&self, octets: usize) {
        let evicted = self.pieces.lock().set_limit(octets / PIECE);
        evicted.iter().for_each(|evicted| evicted.occupant.close());
    }

    /// The memory of a connection of `client`, which takes from others what they have more than it, if that `is_fair`.
    pub(super) fn memory(self: &Arc<Self>, client: Client, is_fair: bool) -> Arc<ConnectionMemory> {
        Arc::new(ConnectionMemory {
            buffers: self.clone(),
            client,
            is_fair,
            is_cut: AtomicBool::new(false),
            cut: Notify::new(),
        })
    }
}

impl ConnectionMemory {
    /// Its connection ends, and the other pieces that it has are free with that.
    fn close(&self) {
        self.is_cut.store(true, Ordering::Release);
        self.cut.notify_one();
    }

    /// Resolves when the connection is to end for want of room.
    pub(super) async fn cut(&self) {
        self.cut.notified().await;
    }

    /// Of all connections.
    pub(super) fn buffers(&self) -> &Buffers {
        &self.buffers
    }
}

impl Reservation {
    /// None yet.
    pub(super) fn new(memory: Arc<ConnectionMemory>) -> Self {
        Self { memory, pieces: Vec::new() }
    }

    /// Has what so many octets need, no more and no less. Where there is no room for them the connection is to end;
    /// false then, or if it was to already.
    pub(super) fn fit(&mut self, octets: usize) -> bool {
        let Self { memory, pieces } = self;
        let wanted = octets.div_ceil(PIECE);
        let mut evicted = Vec::new();
        if wanted != pieces.len() {
            let mut places = memory.buffers.pieces.lock();
            while pieces.len() > wanted {
                pieces.pop().map(|piece| places.release(piece));
            }
            while pieces.len() < wanted {
                match places.admit(memory.client, memory.clone(), memory.is_fair) {
                    Admission::Granted(piece) => pieces.push(piece),
                    Admission::Evicting(piece, other) => {
                        pieces.push(piece);
                        evicted.push(other);
                    }
                    Admission::Full => break,
                }
            }
        }
        evicted.iter().for_each(|evicted| evicted.occupant.close());
        if pieces.len() < wanted {
            memory.close();
        }
        !memory.is_cut.load(Ordering::Acquire)
    }
}

impl Drop for Reservation {
    fn drop(&mut self) {
        self.fit(0);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fairness::Fairness;
    use futures_util::FutureExt;

    fn client(last: u8) -> Client {
        Fairness::default().client([192, 0, 2, last].into())
    }

    fn is_cut(reservation: &Reservation) -> bool {
        reservation.memory.cut().now_or_never().is_some()
    }

    #[test]
    fn a_connection_of_the_client_that_has_most_makes_room_for_another_clients() {
        let buffers = Arc::new(Buffers::new(8 * PIECE));
        let reservation = |last, is_fair| Reservation::new(buffers.memory(client(last), is_fair));
        let (mut first, mut second, mut third) = (reservation(1, true), reservation(1, true), reservation(1, true));
        assert!(first.fit(4 * PIECE) && second.fit(3 * PIECE + 1));
        assert!(!third.fit(1) && is_cut(&third), "its client has most itself");
        assert!(!reservation(2, false).fit(1), "without fairness all alike");
        let mut modest = reservation(2, true);
        assert!(modest.fit(3 * PIECE));
        assert_eq!((is_cut(&first), is_cut(&second)), (true, false), "the one that has had its pieces longest");
        assert!(!first.fit(4 * PIECE) && !first.fit(0), "it is over");
        assert!(!is_cut(&modest));
    }

    #[test]
    fn pieces_are_given_back_and_fewer_of_them_cut_who_has_most() {
        let buffers = Arc::new(Buffers::new(8 * PIECE));
        let reservation = |last| Reservation::new(buffers.memory(client(last), true));
        let (mut one, mut other) = (reservation(1), reservation(2));
        assert!(one.fit(8 * PIECE) && one.fit(5 * PIECE) && other.fit(3 * PIECE));
        buffers.set_limit(6 * PIECE);
        assert!(is_cut(&one) && !is_cut(&other));
        drop((one, other));
        assert_eq!(buffers.pieces.lock().len(), 0);
    }
}
