//! UDP to one upstream from one worker: a pool of connected sockets on random ports, each for a bounded number of queries and a
//! bounded time. README.md tells what the bounds buy and cost.
//!
//! Queries of one turn of the runtime leave by one socket, drawn at random, in one call, and their answers come in in one: to whoever
//! guesses ports and IDs it is the same, and a system call for each query would be a quarter of a miss's cost.

use super::asked::Asked;
use super::error::{Path, TryError};
use super::in_flight::{Delivery, InFlight, Look};
use super::line::{Bell, FailOnDrop, Line, Try};
use super::metrics::UpstreamMetrics;
use super::upstream::Settings;
use crate::chain::Transport;
use crate::datagrams::{self, BATCH, Inbox, MAX_ANSWER, Outbox};
use parking_lot::Mutex;
use socket2::{Domain, Protocol, Socket, Type};
use std::cell::RefCell;
use std::io;
use std::net::{SocketAddr, UdpSocket};
use std::os::fd::AsFd;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::sync::{Arc, Weak};
use std::task::Waker;
use std::time::{Duration, Instant};
use tokio::io::unix::{AsyncFd, AsyncFdReadyGuard};
use tokio::io::{Interest, Ready};
use tokio::sync::Notify;

/// Sockets per worker and upstream. The queries of one turn take one at random.
pub const SOCKETS: usize = 32;
/// Queries a socket is good for; each draws its own number, so that an observer cannot count a port's end.
const USES: std::ops::RangeInclusive<u32> = 64..=192;
/// A socket lives this long at most, or `expire` if that is less.
const LIFETIME: Duration = Duration::from_secs(10);

thread_local! {
    /// Where datagrams land, before their owners are found.
    static INBOX: RefCell<Inbox> = RefCell::new(Inbox::of_connected(MAX_ANSWER));
}

/// The sockets of one worker to one upstream. They are owned by the tasks that read them, so that a socket whose runtime is
/// gone is gone from here too.
#[derive(Default)]
pub struct UdpPool {
    sockets: Mutex<Sockets>,
}

#[derive(Default)]
struct Sockets {
    lines: Vec<Weak<UdpLine>>,
    /// The one that was drawn last.
    drawn: usize,
}

impl UdpPool {
    /// Sends `asked` from the socket drawn for this turn; from a new one if `fresh`.
    pub fn send(
        &self,
        remote: SocketAddr,
        settings: &Settings,
        metrics: &Arc<UpstreamMetrics>,
        asked: &Arc<Asked>,
        fresh: bool,
        now: Instant,
    ) -> Result<Try, TryError> {
        let slot = match self.draw(fresh, now) {
            Ok(line) => {
                metrics.udp_reused.increment();
                return line.send(asked, now);
            }
            Err(slot) => slot,
        };
        metrics.udp_opened.increment();
        match UdpLine::open(remote, settings, metrics.clone(), now) {
            Ok(line) => {
                self.keep(slot, &line);
                line.send(asked, now)
            }
            // Out of file descriptors or ports: an open socket, worn or not, is better than none.
            Err(error) => match self.any_line() {
                Some(line) => line.send(asked, now),
                None => Err(error),
            },
        }
    }

    /// A socket whose task goes on. One that is done lives on as long as somebody holds his answered try.
    fn any_line(&self) -> Option<Arc<UdpLine>> {
        self.sockets.lock().lines.iter().find_map(|line| line.upgrade().filter(|line| !line.is_done()))
    }

    /// Has the sockets of now refuse to send, as those do whose local address is taken from the machine.
    #[cfg(test)]
    pub fn shut_down(&self) {
        for line in self.sockets.lock().lines.iter().filter_map(Weak::upgrade) {
            socket2::SockRef::from(&line.socket).shutdown(std::net::Shutdown::Write).unwrap();
        }
    }

    /// The socket to send from, or the place for a new one.
    fn draw(&self, fresh: bool, now: Instant) -> Result<Arc<UdpLine>, usize> {
        let mut sockets = self.sockets.lock();
        let line_at = |slot: usize| sockets.lines.get(slot).and_then(Weak::upgrade);
        if !fresh && let Some(line) = line_at(sockets.drawn).filter(|line| line.is_gathering() && line.take_use(now)) {
            return Ok(line);
        }
        let slot = rand::random_range(0..SOCKETS);
        let line = line_at(slot).filter(|line| !fresh && line.take_use(now));
        sockets.drawn = slot;
        line.ok_or(slot)
    }

    fn keep(&self, slot: usize, line: &Arc<UdpLine>) {
        let mut sockets = self.sockets.lock();
        let weak = Arc::downgrade(line);
        if slot >= sockets.lines.len() {
            // Places are drawn before there are so many.
            sockets.drawn = sockets.lines.len();
            sockets.lines.push(weak);
            return;
        }
        let replaced = std::mem::replace(&mut sockets.lines[slot], weak);
        drop(sockets);
        if let Some(old) = replaced.upgrade() {
            old.retire();
        }
    }
}

/// A connected socket.
struct UdpLine {
    socket: AsyncFd<UdpSocket>,
    path: Path,
    metrics: Arc<UpstreamMetrics>,
    in_flight: Mutex<InFlight>,
    /// Queries of this turn; the socket's task sends them, which has its turn after those that ask.
    outbox: Mutex<Outbox>,
    uses: AtomicU32,
    ends: Instant,
    retired: AtomicBool,
    /// Tells the socket's task that something is to be sent, or that the socket may be done.
    changed: Notify,
}

impl UdpLine {
    /// Opens a socket on a port of the kernel's choice (random, as RFC 6056 wants) and starts its task.
    fn open(remote: SocketAddr, settings: &Settings, metrics: Arc<UpstreamMetrics>, now: Instant) -> Result<Arc<Self>, TryError> {
        let failed = |error: io::Error| TryError::Dial(Path { transport: Transport::Udp, local: None, remote }, error.into());
        let socket = Socket::new(Domain::for_address(remote), Type::DGRAM.nonblocking(), Some(Protocol::UDP)).map_err(failed)?;
        if let Some(source) = settings.source_address {
            socket.bind(&SocketAddr::new(source, 0).into()).map_err(failed)?;
        }
        socket.connect(&remote.into()).map_err(failed)?;
        let local = socket.local_addr().ok().and_then(|address| address.as_socket());
        let socket = datagrams::register(socket.into()).map_err(failed)?;
        let lifetime = LIFETIME.min(settings.expire);
        let line = Arc::new(Self {
            path: Path { transport: Transport::Udp, local, remote },
            socket,
            metrics,
            in_flight: Mutex::default(),
            outbox: Mutex::default(),
            uses: AtomicU32::new(rand::random_range(USES)),
            ends: now + lifetime.mul_f64(rand::random_range(0.5..=1.0)),
            retired: AtomicBool::new(false),
            changed: Notify::new(),
        });
        tokio::spawn(run(line.clone()));
        Ok(line)
    }

    /// Counts one use; false if the socket has had its share.
    fn take_use(&self, now: Instant) -> bool {
        if self.retired.load(Ordering::Relaxed) || now >= self.ends {
            return false;
        }
        self.uses.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |uses| uses.checked_sub(1)).is_ok()
    }

    /// Something is gathered that has not been sent yet, and there is room for more.
    fn is_gathering(&self) -> bool {
        (1..BATCH).contains(&self.outbox.lock().kept().len())
    }

    fn send(self: &Arc<Self>, asked: &Arc<Asked>, now: Instant) -> Result<Try, TryError> {
        let (ahead, registered) = {
            let mut in_flight = self.in_flight.lock();
            (in_flight.len(), in_flight.register(asked))
        };
        let id = registered.ok_or(TryError::TooMany(self.path))?;
        let mut outbox = self.outbox.lock();
        asked.write(id, outbox.buffer());
        outbox.keep(None);
        drop(outbox);
        self.changed.notify_one();
        Ok(Try { line: self.clone(), id, sent: now, ahead })
    }

    /// Sends what was gathered.
    fn flush(&self) {
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
    }

    fn is_done(&self) -> bool {
        self.retired.load(Ordering::Acquire) && self.in_flight.lock().is_empty()
    }

    /// Takes what has arrived. An ICMP error alone does not make a socket readable; it is an event of its own.
    fn drain(&self, mut ready: AsyncFdReadyGuard<'_, UdpSocket>) -> io::Result<()> {
        if ready.ready().is_error() {
            ready.clear_ready_matching(Ready::ERROR);
            if let Some(error) = self.socket.get_ref().take_error()? {
                return Err(error);
            }
        }
        INBOX.with_borrow_mut(|inbox| {
            loop {
                let count = match inbox.receive(self.socket.as_fd()) {
                    Ok(count) => count,
                    Err(error) if error.kind() == io::ErrorKind::WouldBlock => 0,
                    Err(error) => return Err(error),
                };
                let mut in_flight = self.in_flight.lock();
                for datagram in inbox.datagrams() {
                    if in_flight.deliver(datagram.octets, self.path) != Delivery::Taken {
                        self.metrics.mismatched.increment();
                    }
                }
                if count < BATCH {
                    // The socket was empty; what comes from now on is an event of its own.
                    ready.clear_ready_matching(Ready::READABLE);
                    return Ok(());
                }
            }
        })
    }
}

impl Line for UdpLine {
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

    fn local(&self) -> Option<SocketAddr> {
        self.path.local
    }
}

/// Sends and reads until the socket is worn out and nobody waits on it.
async fn run(line: Arc<UdpLine>) {
    let _ended = FailOnDrop { in_flight: &line.in_flight, error: TryError::Closed(line.path) };
    let mut bell = Bell::new();
    let end = tokio::time::sleep_until(line.ends.into());
    tokio::pin!(end);
    while !line.is_done() {
        tokio::select! {
            biased;
            () = line.changed.notified() => line.flush(),
            ready = line.socket.ready(Interest::READABLE | Interest::ERROR) => {
                if let Err(error) = ready.and_then(|ready| line.drain(ready)) {
                    line.retired.store(true, Ordering::Release);
                    line.in_flight.lock().fail_all(&TryError::Read(line.path, error.into()));
                }
            }
            never = bell.ring(&line.in_flight) => match never {},
            () = &mut end, if !line.retired.load(Ordering::Relaxed) => line.retired.store(true, Ordering::Release),
        }
    }
}
