//! A UDP socket to one upstream, and the task that sends and reads on it.

use super::asked::Asked;
use super::error::{Path, TryError};
use super::in_flight::{Delivery, InFlight, Look};
use super::letter_case::LetterCase;
use super::line::{Bell, FailOnDrop, Line, Try};
use super::sockets::Room;
use super::suspects::{NEAR_MISSES, Notice};
use super::upstream::Remote;
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

/// Queries a socket is good for; each draws its own number, so that an observer cannot count a port's end.
const USES: std::ops::RangeInclusive<u32> = 64..=192;
/// A socket lives this long at most, or `expire` if that is less.
const LIFETIME: Duration = Duration::from_secs(10);
/// Batches of datagrams that are read in one turn.
const BATCHES: usize = 4;
/// Octets that most queries take at most.
const QUERY_ROOM: usize = 128;

thread_local! {
    /// Where datagrams land, before their owners are found.
    static INBOX: RefCell<Inbox> = RefCell::new(Inbox::of_connected(MAX_ANSWER));
}

/// A connected socket to an upstream.
pub struct UdpSocket {
    socket: AsyncFd<net::UdpSocket>,
    path: Path,
    remote: Arc<Remote>,
    in_flight: Mutex<InFlight>,
    /// Queries of this turn; the socket's task sends them, which has its turn after those that ask.
    outbox: Mutex<Outbox>,
    uses: AtomicU32,
    ends: Instant,
    retired: AtomicBool,
    /// Datagrams with a wrong ID or question that came while queries were in flight.
    near_misses: AtomicU32,
    /// Something has been sent.
    used: AtomicBool,
    /// Tells the socket's task that something is to be sent, or that the socket may be done.
    changed: Notify,
    _room: Room,
}

impl UdpSocket {
    /// Opens a socket on a port of the kernel's choice (random, as RFC 6056 wants) and starts its task.
    pub fn open(remote: &Arc<Remote>, room: Room, now: Instant) -> Result<Arc<Self>, TryError> {
        let (address, settings) = (remote.address, &remote.settings);
        let failed =
            |error: io::Error| TryError::Dial(Path { transport: Transport::Udp, local: None, remote: address }, error.into());
        let socket = Socket::new(Domain::for_address(address), Type::DGRAM.nonblocking(), Some(Protocol::UDP)).map_err(failed)?;
        if let Some(source) = settings.source_address {
            socket.bind(&SocketAddr::new(source, 0).into()).map_err(failed)?;
        }
        socket.connect(&address.into()).map_err(failed)?;
        let local = socket.local_addr().ok().and_then(|address| address.as_socket());
        let socket = datagrams::register(socket.into()).map_err(failed)?;
        let lifetime = LIFETIME.min(settings.expire);
        let line = Arc::new(Self {
            path: Path { transport: Transport::Udp, local, remote: address },
            socket,
            remote: remote.clone(),
            in_flight: Mutex::new(InFlight::remembering()),
            outbox: Mutex::new(Outbox::of_short(QUERY_ROOM)),
            uses: AtomicU32::new(rand::random_range(USES)),
            ends: now + lifetime.mul_f64(rand::random_range(0.5..=1.0)),
            retired: AtomicBool::new(false),
            near_misses: AtomicU32::new(0),
            used: AtomicBool::new(false),
            changed: Notify::new(),
            _room: room,
        });
        tokio::spawn(run(line.clone()));
        Ok(line)
    }

    /// Counts one use; false if the socket has had its share.
    pub fn take_use(&self, now: Instant) -> bool {
        if self.retired.load(Ordering::Relaxed) || now >= self.ends {
            return false;
        }
        self.uses.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |uses| uses.checked_sub(1)).is_ok()
    }

    /// Something is gathered that has not been sent yet, and there is room for more.
    pub fn is_gathering(&self) -> bool {
        (1..BATCH).contains(&self.outbox.lock().kept().len())
    }

    /// Nothing has left it yet.
    pub fn is_unused(&self) -> bool {
        !self.used.load(Ordering::Relaxed)
    }

    /// True if it takes queries when no other socket can be opened, though it has had its share.
    pub fn is_shareable(&self) -> bool {
        if !self.in_flight.lock().has_room() {
            self.retire();
        }
        !self.retired.load(Ordering::Relaxed)
    }

    /// True if it takes no queries and lives because somebody waits for an answer.
    pub fn is_waiting(&self) -> bool {
        self.retired.load(Ordering::Relaxed) && !self.in_flight.lock().is_empty()
    }

    /// True if so many datagrams with a wrong ID or question have come that no datagram counts.
    pub fn is_guessed_at(&self) -> bool {
        self.near_misses.load(Ordering::Relaxed) >= NEAR_MISSES
    }

    /// True if one of `tries` is on it.
    pub fn is_among(self: &Arc<Self>, tries: &[Try]) -> bool {
        tries.iter().any(|attempt| std::ptr::addr_eq(Arc::as_ptr(&attempt.line), Arc::as_ptr(self)))
    }

    /// Nobody is to wait for answers that come to it.
    pub fn give_up(&self) {
        self.in_flight.lock().end(&TryError::GivenUp(self.path));
        self.retire();
    }

    /// Has it refuse to send, as one does whose local address is taken from the machine.
    #[cfg(test)]
    pub fn shut_down(&self) {
        socket2::SockRef::from(&self.socket).shutdown(std::net::Shutdown::Write).unwrap();
    }

    pub fn send(self: &Arc<Self>, asked: &Arc<Asked>, now: Instant) -> Result<Try, TryError> {
        let case = if self.remote.settings.use_caps_for_id { LetterCase::draw() } else { LetterCase::default() };
        let (ahead, registered) = {
            let mut in_flight = self.in_flight.lock();
            (in_flight.len(), in_flight.register(asked, case))
        };
        let id = registered.ok_or(TryError::TooMany(self.path))?;
        let mut outbox = self.outbox.lock();
        asked.write(id, case, outbox.buffer());
        outbox.keep(None);
        drop(outbox);
        self.changed.notify_one();
        Ok(Try { line: self.clone(), id, sent: now, ahead })
    }

    /// Sends what was gathered.
    fn flush(&self) {
        self.used.store(true, Ordering::Relaxed);
        let mut outbox = self.outbox.lock();
        let queries = outbox.kept();
        let mut done = 0;
        // The socket reports the errors of earlier datagrams (ICMP) first, once each.
        let mut is_reported = false;
        while let Some(rest) = queries.get(done..).filter(|rest| !rest.is_empty()) {
            match datagrams::send(self.socket.as_fd(), rest) {
                Ok(sent) => (done, is_reported) = (done + sent.max(1), false),
                // A full send buffer is a lost datagram; it is sent again in time.
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => break,
                Err(_) if !std::mem::replace(&mut is_reported, true) => self.retired.store(true, Ordering::Release),
                Err(error) => {
                    if let Some(id) = rest[0].octets.first_chunk() {
                        let error = TryError::Write(self.path, error.into());
                        self.in_flight.lock().fail(u16::from_be_bytes(*id), error);
                    }
                    (done, is_reported) = (done + 1, false);
                }
            }
        }
        outbox.clear(usize::MAX);
        if self.retired.load(Ordering::Relaxed) {
            *outbox = Outbox::of_short(QUERY_ROOM);
        }
    }

    pub fn is_done(&self) -> bool {
        self.retired.load(Ordering::Acquire) && self.in_flight.lock().is_empty()
    }

    /// A datagram with a wrong ID or question has come. After a few of them no datagram to this socket counts: each guess more could be the right one.
    fn note_near_miss(&self, in_flight: &mut InFlight, now: Instant) {
        if in_flight.is_empty() || self.near_misses.fetch_add(1, Ordering::Relaxed) + 1 != NEAR_MISSES {
            return;
        }
        self.retired.store(true, Ordering::Release);
        let Remote { address, suspects, metrics, .. } = &*self.remote;
        let queries = in_flight.end_as_spoofed(self.path, |asked| suspects.add(asked.question(), now));
        metrics.spoof_suspected.increment();
        if let Some(Notice { sockets, queries }) = suspects.note(queries, now) {
            tracing::warn!(
                "plugin/forward: somebody seems to guess answers of {address} (spoofing): {NEAR_MISSES} datagrams with a wrong ID or question came to \
                 each of {sockets} sockets, which were given up; the {queries} queries in flight on them are asked over TCP"
            );
        }
    }

    /// Takes what has arrived, [`BATCHES`] at most; true if there may be more. An ICMP error alone does not make a socket readable; it is an event
    /// of its own.
    fn drain(&self, mut ready: AsyncFdReadyGuard<'_, net::UdpSocket>) -> io::Result<bool> {
        if ready.ready().is_error() {
            ready.clear_ready_matching(Ready::ERROR);
            if let Some(error) = self.socket.get_ref().take_error()? {
                return Err(error);
            }
        }
        let now = Instant::now();
        INBOX.with_borrow_mut(|inbox| {
            for _ in 0..BATCHES {
                let count = match inbox.receive(self.socket.as_fd()) {
                    Ok(count) => count,
                    Err(error) if error.kind() == io::ErrorKind::WouldBlock => 0,
                    Err(error) => return Err(error),
                };
                let mut in_flight = self.in_flight.lock();
                for datagram in inbox.datagrams() {
                    let is_suspected = |asked: &Asked| self.remote.suspects.holds(asked.question(), now);
                    match in_flight.deliver(datagram.octets, self.path, now, is_suspected) {
                        Delivery::Taken => continue,
                        Delivery::Late => (),
                        Delivery::Unasked | Delivery::Mismatched => self.note_near_miss(&mut in_flight, now),
                    }
                    self.remote.metrics.mismatched.increment();
                }
                if count < BATCH {
                    // The socket was empty; what comes from now on is an event of its own.
                    ready.clear_ready_matching(Ready::READABLE);
                    return Ok(false);
                }
            }
            Ok(true)
        })
    }
}

impl Line for UdpSocket {
    fn look(&self, id: u16, until: Instant, waker: &Waker) -> Look {
        self.in_flight.lock().look(id, until, waker)
    }

    fn forget(&self, id: u16) {
        self.in_flight.lock().forget(id);
        if self.retired.load(Ordering::Relaxed) {
            self.changed.notify_one();
        }
    }

    fn retire(&self) {
        self.retired.store(true, Ordering::Release);
        self.changed.notify_one();
    }

    fn is_heard_since(&self, _instant: Instant) -> bool {
        // Each datagram goes its own way: that others arrived says nothing of this one.
        false
    }

    fn retire_if_silent_since(&self, instant: Instant) {
        if !self.in_flight.lock().is_heard_since(instant) {
            self.retire();
        }
    }

    fn local(&self) -> Option<SocketAddr> {
        self.path.local
    }
}

/// Sends and reads until the socket is worn out and nobody waits on it.
async fn run(line: Arc<UdpSocket>) {
    let _ended = FailOnDrop { in_flight: &line.in_flight, error: TryError::Closed(line.path) };
    let mut bell = Bell::new();
    let end = tokio::time::sleep_until(line.ends.into());
    tokio::pin!(end);
    while !line.is_done() {
        tokio::select! {
            biased;
            () = line.changed.notified() => line.flush(),
            ready = line.socket.ready(Interest::READABLE | Interest::ERROR) => {
                match ready.and_then(|ready| line.drain(ready)) {
                    Ok(false) => (),
                    // Others on this worker have their turn before what may be a flood.
                    Ok(true) => tokio::task::yield_now().await,
                    Err(error) => {
                        line.retired.store(true, Ordering::Release);
                        line.in_flight.lock().fail_all(&TryError::Read(line.path, error.into()));
                    }
                }
            }
            never = bell.ring(&line.in_flight) => match never {},
            () = &mut end, if !line.retired.load(Ordering::Relaxed) => line.retired.store(true, Ordering::Release),
        }
    }
}
