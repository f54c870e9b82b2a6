//! UDP to one upstream from one worker: a pool of connected sockets on random ports, each for a bounded number of queries and a
//! bounded time. README.md tells what the bounds buy and cost.

use super::error::{Path, TryError};
use super::line::{Asked, Delivery, FailOnDrop, InFlight, Line, Try};
use super::metrics::UpstreamMetrics;
use super::upstream::Settings;
use crate::chain::Transport;
use parking_lot::Mutex;
use smallvec::SmallVec;
use socket2::{Domain, Protocol, SockRef, Socket, Type};
use std::cell::RefCell;
use std::io;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::sync::{Arc, Weak};
use std::time::{Duration, Instant};
use tokio::io::{Interest, Ready};
use tokio::net::UdpSocket;
use tokio::sync::Notify;

/// Sockets per worker and upstream. A query takes one at random.
pub const SOCKETS: usize = 32;
/// Queries a socket is good for; each draws its own number, so that an observer cannot count a port's end.
const USES: std::ops::RangeInclusive<u32> = 64..=192;
/// A socket lives this long at most, or `expire` if that is less.
const LIFETIME: Duration = Duration::from_secs(10);

thread_local! {
    /// Where datagrams land, before their owners are found.
    static SCRATCH: RefCell<Box<[u8]>> = RefCell::new(vec![0; 65536].into_boxed_slice());
}

/// The sockets of one worker to one upstream. They are owned by the tasks that read them, so that a socket whose runtime is
/// gone is gone from here too.
#[derive(Default)]
pub struct UdpPool {
    sockets: Mutex<Vec<Weak<UdpLine>>>,
}

impl UdpPool {
    /// Sends `asked` from a random socket of the pool; from a new one if `fresh`.
    pub fn send(
        &self,
        remote: SocketAddr,
        settings: &Settings,
        metrics: &Arc<UpstreamMetrics>,
        asked: &Arc<Asked>,
        fresh: bool,
    ) -> Result<Try, TryError> {
        let now = Instant::now();
        let slot = rand::random_range(0..SOCKETS);
        if !fresh && let Some(line) = self.line_at(slot, now) {
            metrics.udp_reused.increment();
            match line.send(asked, now) {
                // The error belongs to an earlier datagram of this socket; the query itself is asked anew below.
                Err(TryError::Write(..)) => line.retire(),
                sent => return sent,
            }
        }
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

    fn any_line(&self) -> Option<Arc<UdpLine>> {
        self.sockets.lock().iter().find_map(Weak::upgrade)
    }

    fn line_at(&self, slot: usize, now: Instant) -> Option<Arc<UdpLine>> {
        let line = self.sockets.lock().get(slot).and_then(Weak::upgrade)?;
        line.take_use(now).then_some(line)
    }

    fn keep(&self, slot: usize, line: &Arc<UdpLine>) {
        let mut sockets = self.sockets.lock();
        let weak = Arc::downgrade(line);
        let replaced = match sockets.get_mut(slot) {
            Some(place) => std::mem::replace(place, weak),
            None => {
                sockets.push(weak);
                return;
            }
        };
        drop(sockets);
        if let Some(old) = replaced.upgrade() {
            old.retire();
        }
    }
}

/// A connected socket.
struct UdpLine {
    io: UdpSocket,
    path: Path,
    metrics: Arc<UpstreamMetrics>,
    in_flight: Mutex<InFlight>,
    uses: AtomicU32,
    ends: Instant,
    retired: AtomicBool,
    /// Tells the reader that the socket may be done.
    changed: Notify,
}

impl UdpLine {
    /// Opens a socket on a port of the kernel's choice (random, as RFC 6056 wants) and starts its reader.
    fn open(remote: SocketAddr, settings: &Settings, metrics: Arc<UpstreamMetrics>, now: Instant) -> Result<Arc<Self>, TryError> {
        let failed = |error: io::Error| TryError::Dial(Path { transport: Transport::Udp, local: None, remote }, error.into());
        let socket = Socket::new(Domain::for_address(remote), Type::DGRAM.nonblocking(), Some(Protocol::UDP)).map_err(failed)?;
        if let Some(source) = settings.source_address {
            socket.bind(&SocketAddr::new(source, 0).into()).map_err(failed)?;
        }
        socket.connect(&remote.into()).map_err(failed)?;
        let io = UdpSocket::from_std(socket.into()).map_err(failed)?;
        let lifetime = LIFETIME.min(settings.expire);
        let line = Arc::new(Self {
            path: Path { transport: Transport::Udp, local: io.local_addr().ok(), remote },
            io,
            metrics,
            in_flight: Mutex::default(),
            uses: AtomicU32::new(rand::random_range(USES)),
            ends: now + lifetime.mul_f64(rand::random_range(0.5..=1.0)),
            retired: AtomicBool::new(false),
            changed: Notify::new(),
        });
        tokio::spawn(read(line.clone()));
        Ok(line)
    }

    /// Counts one use; false if the socket has had its share.
    fn take_use(&self, now: Instant) -> bool {
        if self.retired.load(Ordering::Relaxed) || now >= self.ends {
            return false;
        }
        self.uses.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |uses| uses.checked_sub(1)).is_ok()
    }

    fn send(self: &Arc<Self>, asked: &Arc<Asked>, now: Instant) -> Result<Try, TryError> {
        let (ahead, registered) = {
            let mut in_flight = self.in_flight.lock();
            (in_flight.len(), in_flight.register(asked))
        };
        let (id, receiver) = registered.ok_or(TryError::TooMany(self.path))?;
        let attempt = Try { line: self.clone(), id, receiver, sent: now, ahead };
        let mut datagram: SmallVec<[u8; 512]> = SmallVec::new();
        asked.write(id, &mut datagram);
        // Straight to the system call: a new socket's readiness is not known to the runtime before its next turn.
        match SockRef::from(&self.io).send(&datagram) {
            Ok(_) => Ok(attempt),
            // A full send buffer is a lost datagram; it is sent again in time.
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => Ok(attempt),
            Err(error) => Err(TryError::Write(self.path, error.into())),
        }
    }

    fn is_done(&self) -> bool {
        self.retired.load(Ordering::Acquire) && self.in_flight.lock().is_empty()
    }

    /// Takes what has arrived. An ICMP error alone does not make a socket readable; it is an event of its own.
    fn drain(&self, ready: Ready) -> io::Result<()> {
        if ready.is_error() {
            self.forget_readiness(Interest::ERROR);
            if let Some(error) = self.io.take_error()? {
                return Err(error);
            }
        }
        SCRATCH.with_borrow_mut(|scratch| {
            loop {
                let length = match self.io.try_recv(scratch) {
                    Ok(length) => length,
                    Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(()),
                    Err(error) => return Err(error),
                };
                let mut in_flight = self.in_flight.lock();
                if in_flight.deliver(scratch.get(..length).unwrap_or_default(), self.path) != Delivery::Taken {
                    self.metrics.mismatched.increment();
                }
                if in_flight.is_empty() {
                    drop(in_flight);
                    // Nothing more is expected. What is there nevertheless is read with the next datagram, whose arrival is an
                    // event of its own.
                    self.forget_readiness(Interest::READABLE);
                    return Ok(());
                }
            }
        })
    }

    /// Waits for the next event from here on, without the system call that would say that nothing is there.
    fn forget_readiness(&self, interest: Interest) {
        let _ = self.io.try_io(interest, || Err::<(), _>(io::ErrorKind::WouldBlock.into()));
    }
}

impl Line for UdpLine {
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

/// Reads a socket until it is worn out and nobody waits on it.
async fn read(line: Arc<UdpLine>) {
    let _ended = FailOnDrop { in_flight: &line.in_flight, error: TryError::Closed(line.path) };
    let end = tokio::time::sleep_until(line.ends.into());
    tokio::pin!(end);
    while !line.is_done() {
        tokio::select! {
            biased;
            ready = line.io.ready(Interest::READABLE | Interest::ERROR) => {
                if let Err(error) = ready.and_then(|ready| line.drain(ready)) {
                    line.retired.store(true, Ordering::Release);
                    line.in_flight.lock().fail_all(&TryError::Read(line.path, error.into()));
                }
            }
            () = line.changed.notified() => {}
            () = &mut end, if !line.retired.load(Ordering::Relaxed) => line.retired.store(true, Ordering::Release),
        }
    }
}
