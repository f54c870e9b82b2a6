//! A connected UDP socket to one upstream, and the task that sends and receives on it.

use super::attempt::Attempt;
use super::deadline_timer::DeadlineTimer;
use super::error::{Endpoints, UpstreamError};
use super::in_flight::{Delivery, InFlightQueries, QueryStatus};
use super::letter_case::LetterCase;
use super::remote::Remote;
use super::socket_budget::SocketPermit;
use super::spoof_guard::{NEAR_MISS_LIMIT, SpoofReport};
use super::upstream_query::UpstreamQuery;
use super::upstream_socket::{FailOnDrop, UpstreamSocket};
use crate::chain::Transport;
use crate::datagrams::{self, BATCH, Inbox, MAX_ANSWER, Outbox};
use parking_lot::Mutex;
use socket2::{Domain, Protocol, Socket, Type};
use std::cell::RefCell;
use std::io;
use std::net::{self, SocketAddr};
use std::os::fd::AsFd;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::task::Waker;
use std::time::{Duration, Instant};
use tokio::io::unix::{AsyncFd, AsyncFdReadyGuard};
use tokio::io::{Interest, Ready};
use tokio::sync::Notify;

/// Queries that one socket sends. The number is random, so that an observer cannot count when a port changes.
const MAX_QUERIES: std::ops::RangeInclusive<u32> = 64..=192;
/// The longest time that a socket takes queries, unless `expire` is shorter.
const LIFETIME: Duration = Duration::from_secs(10);
/// Batches of datagrams that are read before other tasks get their turn.
const MAX_BATCHES: usize = 4;
/// Room for a query in the outbox; longer ones are rare.
const QUERY_CAPACITY: usize = 128;

thread_local! {
    /// Received datagrams, before they are matched to queries.
    static INBOX: RefCell<Inbox> = RefCell::new(Inbox::of_connected(MAX_ANSWER));
}

/// A connected UDP socket to one upstream.
pub(super) struct UdpSocket {
    socket: AsyncFd<net::UdpSocket>,
    endpoints: Endpoints,
    remote: Arc<Remote>,
    in_flight: Mutex<InFlightQueries>,
    /// The queries of this turn of the runtime. The socket's task sends them in one call after the tasks that ask have
    /// run.
    outbox: Mutex<Outbox>,
    queries_left: AtomicU32,
    /// When the socket takes no more queries.
    end: Instant,
    is_retired: AtomicBool,
    /// Responses with a wrong ID or question that came while queries were in flight.
    near_misses: AtomicU32,
    has_sent: AtomicBool,
    /// Tells the socket's task that there are queries to send, or that the socket may close.
    changed: Notify,
    _permit: SocketPermit,
}

impl UdpSocket {
    /// Opens a socket on a random port (RFC 6056: the kernel's choice) and starts its task.
    pub(super) fn open(remote: &Arc<Remote>, permit: SocketPermit, now: Instant) -> Result<Arc<Self>, UpstreamError> {
        let (address, settings) = (remote.address, &remote.settings);
        let failed = |error: io::Error| {
            UpstreamError::Dial(Endpoints { transport: Transport::Udp, local: None, remote: address }, error.into())
        };
        let socket = Socket::new(Domain::for_address(address), Type::DGRAM.nonblocking(), Some(Protocol::UDP))
            .map_err(failed)?;
        if let Some(source) = settings.source_address {
            socket.bind(&SocketAddr::new(source, 0).into()).map_err(failed)?;
        }
        socket.connect(&address.into()).map_err(failed)?;
        let local = socket.local_addr().ok().and_then(|address| address.as_socket());
        let socket = datagrams::register(socket.into()).map_err(failed)?;
        let lifetime = LIFETIME.min(settings.expire);
        let socket = Arc::new(Self {
            endpoints: Endpoints { transport: Transport::Udp, local, remote: address },
            socket,
            remote: remote.clone(),
            in_flight: Mutex::new(InFlightQueries::remembering_ids()),
            outbox: Mutex::new(Outbox::of_short(QUERY_CAPACITY)),
            queries_left: AtomicU32::new(rand::random_range(MAX_QUERIES)),
            end: now + lifetime.mul_f64(rand::random_range(0.5..=1.0)),
            is_retired: AtomicBool::new(false),
            near_misses: AtomicU32::new(0),
            has_sent: AtomicBool::new(false),
            changed: Notify::new(),
            _permit: permit,
        });
        tokio::spawn(run(socket.clone()));
        Ok(socket)
    }

    /// Counts one query against the socket's share. False if the socket takes no more.
    pub(super) fn reserve(&self, now: Instant) -> bool {
        if self.is_retired.load(Ordering::Relaxed) || now >= self.end {
            return false;
        }
        self.queries_left.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |left| left.checked_sub(1)).is_ok()
    }

    /// True if the outbox has queries that are not sent yet, and room for more.
    pub(super) fn is_gathering(&self) -> bool {
        (1..BATCH).contains(&self.outbox.lock().kept().len())
    }

    /// True if the socket has sent nothing yet.
    pub(super) fn is_unused(&self) -> bool {
        !self.has_sent.load(Ordering::Relaxed)
    }

    /// True if the socket may send queries beyond its share when no other socket can be opened.
    pub(super) fn is_shareable(&self) -> bool {
        if !self.in_flight.lock().has_room() {
            self.retire();
        }
        !self.is_retired.load(Ordering::Relaxed)
    }

    /// True if the socket takes no queries and only waits for answers.
    pub(super) fn is_draining(&self) -> bool {
        self.is_retired.load(Ordering::Relaxed) && !self.in_flight.lock().is_empty()
    }

    /// True if so many responses had a wrong ID or question that no datagram to this socket counts.
    pub(super) fn is_spoofed(&self) -> bool {
        self.near_misses.load(Ordering::Relaxed) >= NEAR_MISS_LIMIT
    }

    /// True if one of `attempts` was sent on this socket.
    pub(super) fn carries_any(self: &Arc<Self>, attempts: &[Attempt]) -> bool {
        attempts.iter().any(|attempt| std::ptr::addr_eq(Arc::as_ptr(&attempt.socket), Arc::as_ptr(self)))
    }

    /// Closes the socket although queries are in flight on it. They are sent again.
    pub(super) fn evict(&self) {
        self.in_flight.lock().close(&UpstreamError::Evicted(self.endpoints));
        self.retire();
    }

    /// Makes every send fail, as it does when the local address is removed from the machine.
    #[cfg(test)]
    pub(super) fn shut_down(&self) {
        socket2::SockRef::from(&self.socket).shutdown(std::net::Shutdown::Write).unwrap();
    }

    pub(super) fn send(self: &Arc<Self>, query: &Arc<UpstreamQuery>, now: Instant) -> Result<Attempt, UpstreamError> {
        let case = if self.remote.settings.use_caps_for_id { LetterCase::random() } else { LetterCase::default() };
        let (queued_behind, registered) = {
            let mut in_flight = self.in_flight.lock();
            (in_flight.len(), in_flight.register(query, case))
        };
        let id = registered.ok_or(UpstreamError::TooManyInFlight(self.endpoints))?;
        let mut outbox = self.outbox.lock();
        query.write(id, case, outbox.buffer());
        outbox.keep(None);
        drop(outbox);
        self.changed.notify_one();
        Ok(Attempt { socket: self.clone(), id, sent: now, since: now, queued_behind })
    }

    /// Sends what is in the outbox.
    fn flush(&self) {
        self.has_sent.store(true, Ordering::Relaxed);
        let mut outbox = self.outbox.lock();
        let queries = outbox.kept();
        let mut done = 0;
        // The first error of a call may be that of an earlier datagram (ICMP), which the kernel reports once. Only the
        // second one counts.
        let mut has_failed = false;
        while let Some(rest) = queries.get(done..).filter(|rest| !rest.is_empty()) {
            match datagrams::send(self.socket.as_fd(), rest) {
                Ok(sent) => (done, has_failed) = (done + sent.max(1), false),
                // A full send buffer loses the datagram; the query is sent again after a third of the read timeout.
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => break,
                Err(_) if !std::mem::replace(&mut has_failed, true) => self.is_retired.store(true, Ordering::Release),
                Err(error) => {
                    if let Some(id) = rest[0].octets.first_chunk() {
                        let error = UpstreamError::Write(self.endpoints, error.into());
                        self.in_flight.lock().fail(u16::from_be_bytes(*id), error);
                    }
                    (done, has_failed) = (done + 1, false);
                }
            }
        }
        outbox.clear(usize::MAX);
        if self.is_retired.load(Ordering::Relaxed) {
            *outbox = Outbox::of_short(QUERY_CAPACITY);
        }
    }

    /// True if the socket takes no queries and waits for no answer.
    pub(super) fn is_done(&self) -> bool {
        self.is_retired.load(Ordering::Acquire) && self.in_flight.lock().is_empty()
    }

    /// Counts a response with a wrong ID or question. At the limit the socket is given up, because each further guess
    /// may be the right one.
    fn count_near_miss(&self, in_flight: &mut InFlightQueries, now: Instant) {
        if in_flight.is_empty() || self.near_misses.fetch_add(1, Ordering::Relaxed) + 1 != NEAR_MISS_LIMIT {
            return;
        }
        self.is_retired.store(true, Ordering::Release);
        let Remote { address, spoof_guard, metrics, .. } = &*self.remote;
        let queries = in_flight.end_as_spoofed(self.endpoints, |query| spoof_guard.require_tcp(query.question(), now));
        metrics.spoof_suspected.increment();
        if let Some(SpoofReport { sockets, queries }) = spoof_guard.report(queries, now) {
            tracing::warn!(
                "plugin/forward: somebody seems to guess answers of {address} (spoofing): {NEAR_MISS_LIMIT} datagrams with a wrong ID or question came to \
                 each of {sockets} sockets, which were given up; the {queries} queries in flight on them are asked over TCP"
            );
        }
    }

    /// Receives [`MAX_BATCHES`] batches at most. True if there may be more. An ICMP error alone does not make a socket
    /// readable; it is an event of its own.
    fn receive(&self, mut ready: AsyncFdReadyGuard<'_, net::UdpSocket>) -> io::Result<bool> {
        if ready.ready().is_error() {
            ready.clear_ready_matching(Ready::ERROR);
            if let Some(error) = self.socket.get_ref().take_error()? {
                return Err(error);
            }
        }
        let now = Instant::now();
        INBOX.with_borrow_mut(|inbox| {
            for _ in 0..MAX_BATCHES {
                let count = match inbox.receive(self.socket.as_fd()) {
                    Ok(count) => count,
                    Err(error) if error.kind() == io::ErrorKind::WouldBlock => 0,
                    Err(error) => return Err(error),
                };
                let mut in_flight = self.in_flight.lock();
                for datagram in inbox.datagrams() {
                    let requires_tcp =
                        |query: &UpstreamQuery| self.remote.spoof_guard.requires_tcp(query.question(), now);
                    match in_flight.deliver(datagram.octets, self.endpoints, now, requires_tcp) {
                        Delivery::Accepted => continue,
                        Delivery::Late => (),
                        Delivery::UnknownId | Delivery::Mismatched => self.count_near_miss(&mut in_flight, now),
                    }
                    self.remote.metrics.mismatched.increment();
                }
                if count < BATCH {
                    // The socket was empty. What comes from now on is a new event.
                    ready.clear_ready_matching(Ready::READABLE);
                    return Ok(false);
                }
            }
            Ok(true)
        })
    }
}

impl UpstreamSocket for UdpSocket {
    fn poll(&self, id: u16, deadline: Instant, waker: &Waker) -> QueryStatus {
        self.in_flight.lock().poll(id, deadline, waker)
    }

    fn forget(&self, id: u16) {
        self.in_flight.lock().forget(id);
        if self.is_retired.load(Ordering::Relaxed) {
            self.changed.notify_one();
        }
    }

    fn retire(&self) {
        self.is_retired.store(true, Ordering::Release);
        self.changed.notify_one();
    }

    fn has_progress_since(&self, _sent: Instant) -> bool {
        // Datagrams are independent: that others arrived says nothing of this one.
        false
    }

    fn retire_if_silent_since(&self, sent: Instant) {
        if !self.in_flight.lock().has_response_since(sent) {
            self.retire();
        }
    }

    fn transport(&self) -> Transport {
        Transport::Udp
    }

    fn remote(&self) -> &Remote {
        &self.remote
    }

    fn local_address(&self) -> Option<SocketAddr> {
        self.endpoints.local
    }
}

/// Sends and receives until the socket is retired and waits for no answer.
async fn run(socket: Arc<UdpSocket>) {
    let _fail_on_drop = FailOnDrop { in_flight: &socket.in_flight, error: UpstreamError::Closed(socket.endpoints) };
    let mut timer = DeadlineTimer::new();
    let end = tokio::time::sleep_until(socket.end.into());
    tokio::pin!(end);
    while !socket.is_done() {
        tokio::select! {
            biased;
            () = socket.changed.notified() => socket.flush(),
            ready = socket.socket.ready(Interest::READABLE | Interest::ERROR) => {
                match ready.and_then(|ready| socket.receive(ready)) {
                    Ok(false) => (),
                    // Other tasks of this worker get their turn before what may be a flood.
                    Ok(true) => tokio::task::yield_now().await,
                    Err(error) => {
                        socket.is_retired.store(true, Ordering::Release);
                        socket.in_flight.lock().fail_all(&UpstreamError::Read(socket.endpoints, error.into()));
                    }
                }
            }
            never = timer.run(&socket.in_flight) => match never {},
            () = &mut end, if !socket.is_retired.load(Ordering::Relaxed) => {
                socket.is_retired.store(true, Ordering::Release);
            }
        }
    }
}
