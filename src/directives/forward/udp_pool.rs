//! The UDP sockets of one worker to one upstream: a pool of connected sockets on random ports, each for a bounded
//! number of queries and a bounded time. README.md tells what the bounds buy and cost.
//!
//! The queries of one turn of the runtime leave by one random socket in one system call, and their answers arrive in
//! one. Who guesses ports and IDs gains nothing by that, and a system call for each query would be a quarter of a
//! miss's cost.

use super::attempt::{Attempt, AttemptKind};
use super::error::UpstreamError;
use super::remote::Remote;
use super::socket_budget::SocketPermit;
use super::udp_socket::UdpSocket;
use super::upstream_query::UpstreamQuery;
use super::upstream_socket::UpstreamSocket;
use parking_lot::Mutex;
use smallvec::SmallVec;
use std::sync::{Arc, Weak};
use std::time::Instant;

/// PoolSockets that take queries, for each worker and upstream.
pub(super) const POOL_SIZE: usize = 32;
/// PoolSockets that are open, for each worker and upstream: as many again as take queries may still wait for answers.
/// At 64 to 192 queries each that is room for some 8,000 queries in flight before sockets send more than their share.
pub(super) const MAX_OPEN: usize = 2 * POOL_SIZE;
/// When [`MAX_OPEN`] sockets are open, queries share those that take queries. If fewer than this many do, the socket
/// that has waited longest for answers is closed for a new one, so that the port of a query stays hard to guess.
pub(super) const MIN_SHARED: usize = 8;

/// The UDP sockets of one worker to one upstream. Each is owned by its task, so that it closes with the runtime that
/// the task runs on.
pub(super) struct UdpPool {
    remote: Arc<Remote>,
    sockets: Mutex<PoolSockets>,
}

#[derive(Default)]
struct PoolSockets {
    /// The sockets that take queries.
    slots: [Weak<UdpSocket>; POOL_SIZE],
    /// The slot that was chosen last.
    current: usize,
    /// The current socket sends more than its share, because no other one could be opened.
    is_shared: bool,
    /// All open sockets but the evicted ones, oldest first.
    open: Vec<Weak<UdpSocket>>,
}

/// Which socket a query is sent on.
enum SocketChoice {
    Use(Arc<UdpSocket>),
    /// A new one, to be put into this slot.
    Open(usize),
}

impl UdpPool {
    pub(super) fn new(remote: Arc<Remote>) -> Self {
        Self { remote, sockets: Mutex::default() }
    }

    /// Sends `query` on the socket of this turn. A query that is sent again leaves by a new socket or, where none may
    /// be opened, by another one than before.
    pub(super) fn send(
        &self,
        query: &Arc<UpstreamQuery>,
        kind: AttemptKind<'_>,
        now: Instant,
    ) -> Result<Attempt, UpstreamError> {
        let metrics = &self.remote.metrics;
        let slot = match self.choose(kind, now) {
            SocketChoice::Use(socket) => {
                metrics.udp_reused.increment();
                return socket.send(query, now);
            }
            SocketChoice::Open(slot) => slot,
        };
        let permit = match self.permit_or_shared(kind.earlier().unwrap_or_default()) {
            Ok(permit) => permit,
            Err(shared) => {
                metrics.udp_reused.increment();
                return shared.send(query, now);
            }
        };
        metrics.udp_opened.increment();
        match UdpSocket::open(&self.remote, permit, now) {
            Ok(socket) => {
                self.insert(slot, &socket);
                socket.send(query, now)
            }
            // There are no descriptors or ports left: any open socket is better than none.
            Err(error) => match self.any_usable() {
                Some(socket) => socket.send(query, now),
                None => Err(error),
            },
        }
    }

    /// An open socket whose task still runs. A socket that is done may still be in memory, held by an answered attempt.
    fn any_usable(&self) -> Option<Arc<UdpSocket>> {
        self.sockets
            .lock()
            .open
            .iter()
            .filter_map(Weak::upgrade)
            .find(|socket| !socket.is_done() && !socket.is_spoofed())
    }

    /// Makes the sockets that take queries now refuse to send, as they do when their local address is removed from the
    /// machine.
    #[cfg(test)]
    pub(super) fn shut_down(&self) {
        for socket in self.sockets.lock().slots.iter().filter_map(Weak::upgrade) {
            socket.shut_down();
        }
    }

    /// Closes all sockets as if to make room for others.
    #[cfg(test)]
    pub(super) fn evict_all(&self) {
        self.sockets.lock().open.iter().filter_map(Weak::upgrade).for_each(|socket| socket.evict());
    }

    fn choose(&self, kind: AttemptKind<'_>, now: Instant) -> SocketChoice {
        let mut sockets = self.sockets.lock();
        let is_shared = sockets.is_shared;
        // Queries that are sent again in one turn share one new socket. Those that are sent first share one of any age.
        let gathers = |socket: &Arc<UdpSocket>| {
            socket.is_gathering()
                && kind
                    .earlier()
                    .is_none_or(|earlier| (is_shared || socket.is_unused()) && !socket.carries_any(earlier))
                && (socket.reserve(now) || is_shared && socket.is_shareable())
        };
        if let Some(socket) = sockets.slots[sockets.current].upgrade().filter(gathers) {
            return SocketChoice::Use(socket);
        }
        sockets.is_shared = false;
        let random = rand::random_range(0..POOL_SIZE);
        if kind.earlier().is_some() {
            // A new socket takes a vacant slot if there is one, so that sockets which bring answers stay in use.
            let mut slots = (random..POOL_SIZE).chain(0..random);
            let is_vacant = |slot: &usize| sockets.slots[*slot].upgrade().is_none_or(|socket| !socket.is_shareable());
            return SocketChoice::Open(slots.find(is_vacant).unwrap_or(random));
        }
        sockets.current = random;
        match sockets.slots[random].upgrade().filter(|socket| socket.reserve(now)) {
            Some(socket) => SocketChoice::Use(socket),
            None => SocketChoice::Open(random),
        }
    }

    /// Permission to open a socket or, where no more may be opened, an open socket that does not carry one of `earlier`
    /// if there is one.
    fn permit_or_shared(&self, earlier: &[Attempt]) -> Result<SocketPermit, Arc<UdpSocket>> {
        let budget = &self.remote.sockets;
        let mut sockets = self.sockets.lock();
        sockets.open.retain(|socket| socket.strong_count() > 0);
        if sockets.open.len() < MAX_OPEN
            && let Some(permit) = budget.try_acquire()
        {
            return Ok(permit);
        }
        let upgrade = |(slot, socket): (usize, &Weak<UdpSocket>)| Some((slot, socket.upgrade()?));
        let mut shared: SmallVec<[(usize, Arc<UdpSocket>); POOL_SIZE]> =
            sockets.slots.iter().enumerate().filter_map(upgrade).collect();
        shared.retain(|(_, socket)| socket.is_shareable());
        if shared.iter().any(|(_, socket)| !socket.carries_any(earlier)) {
            shared.retain(|(_, socket)| !socket.carries_any(earlier));
        }
        if shared.len() < MIN_SHARED {
            let oldest =
                sockets.open.iter().position(|socket| socket.upgrade().is_some_and(|socket| socket.is_draining()));
            if let Some(oldest) = oldest.and_then(|index| sockets.open.remove(index).upgrade()) {
                drop(sockets);
                oldest.evict();
                return Ok(budget.acquire_over_limit());
            }
        }
        self.remote.metrics.sockets_exhausted.increment();
        if shared.is_empty() {
            // Each worker can always have one socket.
            return Ok(budget.acquire_over_limit());
        }
        let (slot, socket) = shared.swap_remove(rand::random_range(0..shared.len()));
        (sockets.current, sockets.is_shared) = (slot, true);
        Err(socket)
    }

    fn insert(&self, slot: usize, socket: &Arc<UdpSocket>) {
        let mut sockets = self.sockets.lock();
        let replaced = std::mem::replace(&mut sockets.slots[slot], Arc::downgrade(socket));
        // Later queries of this turn use it too.
        sockets.current = slot;
        sockets.open.push(Arc::downgrade(socket));
        drop(sockets);
        if let Some(old) = replaced.upgrade() {
            old.retire();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::attempt::{AttemptEvent, Attempts};
    use super::super::remote::UpstreamSettings;
    use super::super::tests::{remote, upstream_settings};
    use super::*;
    use crate::chain::Transport;
    use crate::message::{Query, RecordType};
    use std::time::Duration;

    #[tokio::test]
    async fn a_socket_whose_task_has_ended_is_not_used_even_if_no_other_can_be_opened() {
        let upstream = tokio::net::UdpSocket::bind("127.0.0.1:0").await.unwrap();
        let address = upstream.local_addr().unwrap();
        let mut pool = UdpPool::new(remote(address, upstream_settings()));
        let query = Arc::new(UpstreamQuery::from_wire(Query::compose(0, b"\x01a\0", RecordType::A, true)).unwrap());
        let attempt = pool.send(&query, AttemptKind::First, Instant::now()).unwrap_or_else(|error| panic!("{error}"));
        let socket = attempt.socket.clone();

        let answer = async {
            let mut message = [0; 512];
            let (length, client) = upstream.recv_from(&mut message).await.unwrap();
            message[2] |= 0x80;
            upstream.send_to(&message[..length], client).await.unwrap();
        };
        let mut attempts = Attempts::new(attempt, Transport::Udp, address);
        let (event, ()) = tokio::join!(attempts.next_event(Instant::now() + Duration::from_secs(5)), answer);
        assert!(matches!(event, AttemptEvent::Answered(..)));
        socket.retire();
        tokio::task::yield_now().await;

        // An address that is not this machine's, so that no socket can be opened.
        let settings = UpstreamSettings { source_address: Some("192.0.2.1".parse().unwrap()), ..upstream_settings() };
        pool.remote = remote(address, settings);
        let outcome = pool.send(&query, AttemptKind::Again(&[]), Instant::now());
        assert!(matches!(outcome, Err(UpstreamError::Dial(..))), "sent by a socket that no task serves");
    }
}
