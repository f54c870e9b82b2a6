//! UDP to one upstream from one worker: a pool of connected sockets on random ports, each for a bounded number of queries and a
//! bounded time. README.md tells what the bounds buy and cost.
//!
//! Queries of one turn of the runtime leave by one socket, drawn at random, in one call, and their answers come in in one: to whoever
//! guesses ports and IDs it is the same, and a system call for each query would be a quarter of a miss's cost.

use super::asked::Asked;
use super::error::TryError;
use super::line::{Line, Try};
use super::sockets::Room;
use super::udp_socket::UdpSocket;
use super::upstream::Remote;
use parking_lot::Mutex;
use smallvec::SmallVec;
use std::sync::{Arc, Weak};
use std::time::Instant;

/// Sockets per worker and upstream that take queries. The queries of one turn take one at random.
pub const SOCKETS: usize = 32;
/// Sockets per worker and upstream that live: as many again as take queries may still wait for answers to theirs. At 64 to 192
/// queries each that is room for some 8,000 queries in flight before sockets are used beyond their share.
pub const LIVE_SOCKETS: usize = 2 * SOCKETS;
/// When as many live as may, queries share those that are left. Below this number, the upstream being silent on all others, the oldest one that
/// waits is given up for a new one, so that which port a query leaves from stays hard to guess.
pub const FEWEST_SHARED: usize = 8;

/// The sockets of one worker to one upstream. They are owned by the tasks that read them, so that a socket whose runtime is
/// gone is gone from here too.
#[derive(Default)]
pub struct UdpPool {
    sockets: Mutex<Sockets>,
}

#[derive(Default)]
struct Sockets {
    /// Those that take queries.
    places: [Weak<UdpSocket>; SOCKETS],
    /// The place that was drawn last.
    drawn: usize,
    /// Its socket is shared beyond its uses: no other one could be opened.
    is_shared: bool,
    /// All that live and have not been given up, oldest first.
    live: Vec<Weak<UdpSocket>>,
}

/// How a query gets a socket.
enum Draw {
    Use(Arc<UdpSocket>),
    /// A new one, to be put in this place.
    Open(usize),
}

impl UdpPool {
    /// Sends `asked` from the socket drawn for this turn. One that is sent `again`, beside these tries, leaves by a new one, or if there is no
    /// room for that by another one than theirs.
    pub fn send(&self, remote: &Arc<Remote>, asked: &Arc<Asked>, again: Option<&[Try]>, now: Instant) -> Result<Try, TryError> {
        let place = match self.draw(again, now) {
            Draw::Use(socket) => {
                remote.metrics.udp_reused.increment();
                return socket.send(asked, now);
            }
            Draw::Open(place) => place,
        };
        let room = match self.room(remote, again.unwrap_or_default()) {
            Ok(room) => room,
            Err(shared) => {
                remote.metrics.udp_reused.increment();
                return shared.send(asked, now);
            }
        };
        remote.metrics.udp_opened.increment();
        match UdpSocket::open(remote, room, now) {
            Ok(socket) => {
                self.keep(place, &socket);
                socket.send(asked, now)
            }
            // Out of file descriptors or ports: an open socket, worn or not, is better than none.
            Err(error) => match self.any() {
                Some(socket) => socket.send(asked, now),
                None => Err(error),
            },
        }
    }

    /// A socket whose task goes on, and whose answers nobody guesses. One that is done lives on as long as somebody holds his answered try.
    fn any(&self) -> Option<Arc<UdpSocket>> {
        self.sockets.lock().live.iter().filter_map(Weak::upgrade).find(|socket| !socket.is_done() && !socket.is_guessed_at())
    }

    /// Has the sockets of now refuse to send, as those do whose local address is taken from the machine.
    #[cfg(test)]
    pub fn shut_down(&self) {
        for socket in self.sockets.lock().places.iter().filter_map(Weak::upgrade) {
            socket.shut_down();
        }
    }

    /// Gives up the sockets of now, as for newer ones.
    #[cfg(test)]
    pub fn give_up(&self) {
        self.sockets.lock().live.iter().filter_map(Weak::upgrade).for_each(|socket| socket.give_up());
    }

    fn draw(&self, again: Option<&[Try]>, now: Instant) -> Draw {
        let mut sockets = self.sockets.lock();
        let is_shared = sockets.is_shared;
        // What is asked again in one turn leaves by one new socket, as what is asked first leaves by one of any age.
        let gathers = |socket: &Arc<UdpSocket>| {
            socket.is_gathering()
                && again.is_none_or(|tries| (is_shared || socket.is_unused()) && !socket.is_among(tries))
                && (socket.take_use(now) || is_shared && socket.is_shareable())
        };
        if let Some(socket) = sockets.places[sockets.drawn].upgrade().filter(gathers) {
            return Draw::Use(socket);
        }
        sockets.is_shared = false;
        let drawn = rand::random_range(0..SOCKETS);
        if again.is_some() {
            // Sockets that bring answers are left where they are, while there are others.
            let mut places = (drawn..SOCKETS).chain(0..drawn);
            let vacant = |place: &usize| sockets.places[*place].upgrade().is_none_or(|socket| !socket.is_shareable());
            return Draw::Open(places.find(vacant).unwrap_or(drawn));
        }
        sockets.drawn = drawn;
        match sockets.places[drawn].upgrade().filter(|socket| socket.take_use(now)) {
            Some(socket) => Draw::Use(socket),
            None => Draw::Open(drawn),
        }
    }

    /// Room for a new socket; where there is none, the socket to share.
    fn room(&self, remote: &Remote, avoid: &[Try]) -> Result<Room, Arc<UdpSocket>> {
        let mut sockets = self.sockets.lock();
        sockets.live.retain(|socket| socket.strong_count() > 0);
        if sockets.live.len() < LIVE_SOCKETS
            && let Some(room) = remote.sockets.take()
        {
            return Ok(room);
        }
        let upgrade = |(place, socket): (usize, &Weak<UdpSocket>)| Some((place, socket.upgrade()?));
        let mut shared: SmallVec<[(usize, Arc<UdpSocket>); SOCKETS]> =
            sockets.places.iter().enumerate().filter_map(upgrade).collect();
        shared.retain(|(_, socket)| socket.is_shareable());
        if shared.iter().any(|(_, socket)| !socket.is_among(avoid)) {
            shared.retain(|(_, socket)| !socket.is_among(avoid));
        }
        if shared.len() < FEWEST_SHARED {
            let oldest = sockets.live.iter().position(|socket| socket.upgrade().is_some_and(|socket| socket.is_waiting()));
            if let Some(oldest) = oldest.and_then(|index| sockets.live.remove(index).upgrade()) {
                drop(sockets);
                oldest.give_up();
                return Ok(remote.sockets.take_beyond());
            }
        }
        remote.metrics.sockets_exhausted.increment();
        if shared.is_empty() {
            // Each worker can have one.
            return Ok(remote.sockets.take_beyond());
        }
        let (place, socket) = shared.swap_remove(rand::random_range(0..shared.len()));
        (sockets.drawn, sockets.is_shared) = (place, true);
        Err(socket)
    }

    fn keep(&self, place: usize, socket: &Arc<UdpSocket>) {
        let mut sockets = self.sockets.lock();
        let replaced = std::mem::replace(&mut sockets.places[place], Arc::downgrade(socket));
        // Where queries of this turn go on to.
        sockets.drawn = place;
        sockets.live.push(Arc::downgrade(socket));
        drop(sockets);
        if let Some(old) = replaced.upgrade() {
            old.retire();
        }
    }
}
