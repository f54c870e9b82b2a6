//! TCP to one upstream from one worker: few connections, each kept, filled with many queries, answered in any order
//! (RFC 7766 sections 6.2.1 and 7). README.md tells when another one is opened and when one is left.

use super::asked::Asked;
use super::error::{Path, SystemError, TryError};
use super::in_flight::{Delivery, InFlight, Look};
use super::letter_case::LetterCase;
use super::line::{Bell, FailOnDrop, Line, Try};
use super::sockets::Room;
use super::upstream::Remote;
use crate::chain::Transport;
use crate::message::framing::{self, Frame};
use parking_lot::Mutex;
use smallvec::SmallVec;
use socket2::SockRef;
use std::cell::RefCell;
use std::io;
use std::net::SocketAddr;
use std::sync::{Arc, Weak};
use std::task::Waker;
use std::time::{Duration, Instant};
use tokio::net::{TcpSocket, TcpStream};
use tokio::sync::Notify;

/// Queries in flight on a connection from which on another is opened.
const CROWDED: usize = 32;
/// A connection with queries in flight that has said nothing for this long is passed by: many servers, CoreDNS among them, answer
/// the queries of one connection one after another, so that a slow name holds up all behind it.
const STALLED: Duration = Duration::from_millis(50);
/// Connections per worker and upstream unless `max_idle_conns` says otherwise.
const CONNECTIONS: usize = 8;
/// Connections per worker and upstream that live, or twice those that take queries if that is more: some may still wait for answers, some are for one
/// query alone.
const LIVE_CONNECTIONS: usize = 64;
/// A connection takes queries for this long, drawn for each, unless `max_age` says otherwise.
const AGE_SECONDS: std::ops::RangeInclusive<f64> = 30.0..=60.0;
/// How much is read at once.
const READ_SIZE: usize = 65536;

thread_local! {
    static SCRATCH: RefCell<Box<[u8]>> = RefCell::new(vec![0; READ_SIZE].into_boxed_slice());
}

/// The connections of one worker to one upstream. They are owned by their tasks.
#[derive(Default)]
pub struct TcpPool {
    connections: Mutex<Vec<Weak<Connection>>>,
}

/// Which connection a query may take.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Choice {
    /// The least busy one, a new one if all are busy and another is allowed.
    Any,
    /// A new one of its own, closed after it: the last resort with servers that answer one query and close.
    Own,
}

impl TcpPool {
    /// Sends `asked` on a connection.
    pub fn send(&self, remote: &Arc<Remote>, asked: &Arc<Asked>, choice: Choice, now: Instant) -> Result<Try, TryError> {
        let (connection, is_own) = self.pick(remote, choice, now)?;
        let attempt = connection.begin(asked, now);
        if is_own {
            connection.retire();
        }
        attempt
    }

    /// The connection to send on, and whether it is for this query alone.
    fn pick(&self, remote: &Arc<Remote>, choice: Choice, now: Instant) -> Result<(Arc<Connection>, bool), TryError> {
        let mut usable: SmallVec<[(Load, Arc<Connection>); CONNECTIONS]> = SmallVec::new();
        let mut connections = self.connections.lock();
        connections.retain(|weak| {
            let Some(connection) = weak.upgrade() else { return false };
            if let Some(load) = connection.load(now) {
                usable.push((load, connection));
            }
            true
        });
        let limit = remote.settings.connections_per_worker.unwrap_or(CONNECTIONS);
        let least_busy = usable.iter().min_by_key(|(load, _)| *load);
        let is_wanted = choice == Choice::Own || (usable.len() < limit && least_busy.is_none_or(|(load, _)| load.busy));
        let reused = |connection: &Arc<Connection>| {
            remote.metrics.tcp_reused.increment();
            Ok((connection.clone(), false))
        };
        match least_busy {
            Some((_, connection)) if !is_wanted => return reused(connection),
            _ => (),
        }
        let has_room = connections.len() < LIVE_CONNECTIONS.max(limit.saturating_mul(2));
        let room = match has_room.then(|| remote.sockets.take()).flatten() {
            Some(room) => room,
            None => {
                remote.metrics.sockets_exhausted.increment();
                match least_busy {
                    Some((_, connection)) => return reused(connection),
                    // Each worker can have one that takes queries, beside those that are about to end.
                    None if connections.len() < limit => remote.sockets.take_beyond(),
                    None => {
                        return Err(TryError::NoSocket(Path { transport: Transport::Tcp, local: None, remote: remote.address }));
                    }
                }
            }
        };
        let connection = Connection::open(remote, room, now);
        connections.push(Arc::downgrade(&connection));
        Ok((connection, choice == Choice::Own))
    }
}

/// How much a connection has to do; the least is chosen.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
struct Load {
    busy: bool,
    in_flight: usize,
}

struct Connection {
    remote: Arc<Remote>,
    state: Mutex<State>,
    in_flight: Mutex<InFlight>,
    /// Tells the task that there is something to write, or that the connection may be done.
    wake: Notify,
    _room: Room,
}

struct State {
    /// Messages with their length octets, to be written. The task writes all of them at once, so that queries which come
    /// together leave together.
    outbox: Vec<u8>,
    /// Queries that were put on it, less the messages that came. Nobody may wait for some of their answers any longer.
    unanswered: usize,
    /// When something came last, or when the first of the queries in flight was asked.
    progress: Instant,
    local: Option<SocketAddr>,
    retired: bool,
    retires: Instant,
}

impl Connection {
    /// Starts the task that connects and then serves it.
    fn open(remote: &Arc<Remote>, room: Room, now: Instant) -> Arc<Self> {
        remote.metrics.tcp_opened.increment();
        let age = remote.settings.max_age.unwrap_or_else(|| Duration::from_secs_f64(rand::random_range(AGE_SECONDS)));
        let connection = Arc::new(Self {
            remote: remote.clone(),
            state: Mutex::new(State {
                outbox: Vec::new(),
                unanswered: 0,
                progress: now,
                local: None,
                retired: false,
                retires: now + age,
            }),
            in_flight: Mutex::default(),
            wake: Notify::new(),
            _room: room,
        });
        tokio::spawn(run(connection.clone()));
        connection
    }

    fn path(&self) -> Path {
        Path { transport: Transport::Tcp, local: self.state.lock().local, remote: self.remote.address }
    }

    /// `None` if it takes no new queries.
    fn load(&self, now: Instant) -> Option<Load> {
        let in_flight = self.in_flight.lock().len();
        let mut state = self.state.lock();
        if !state.retired && now >= state.retires {
            state.retired = true;
            self.wake.notify_one();
        }
        let stalled = in_flight > 0 && now.saturating_duration_since(state.progress) > STALLED;
        (!state.retired).then_some(Load { busy: stalled || in_flight >= CROWDED, in_flight })
    }

    fn begin(self: &Arc<Self>, asked: &Arc<Asked>, now: Instant) -> Result<Try, TryError> {
        let (ahead, registered) = {
            let mut in_flight = self.in_flight.lock();
            (in_flight.len(), in_flight.register(asked, LetterCase::default()))
        };
        let id = registered.ok_or_else(|| TryError::TooMany(self.path()))?;
        let attempt = Try { line: self.clone(), id, sent: now, ahead };
        let length = u16::try_from(asked.len()).unwrap_or(u16::MAX);
        let mut state = self.state.lock();
        if ahead == 0 {
            state.progress = now;
        }
        state.unanswered += 1;
        state.outbox.extend_from_slice(&length.to_be_bytes());
        asked.write(id, LetterCase::default(), &mut state.outbox);
        drop(state);
        self.wake.notify_one();
        Ok(attempt)
    }

    fn is_done(&self) -> bool {
        self.state.lock().retired && self.in_flight.lock().is_empty()
    }
}

impl Line for Connection {
    fn look(&self, id: u16, until: Instant, waker: &Waker) -> Look {
        self.in_flight.lock().look(id, until, waker)
    }

    fn forget(&self, id: u16) {
        self.in_flight.lock().forget(id);
        if self.state.lock().retired {
            self.wake.notify_one();
        }
    }

    fn retire(&self) {
        self.state.lock().retired = true;
        self.wake.notify_one();
    }

    fn is_heard_since(&self, instant: Instant) -> bool {
        self.state.lock().progress > instant
    }

    fn retire_if_silent_since(&self, _instant: Instant) {
        // Who asks has looked whether it is heard, or a query on it has had its whole time.
        self.retire();
    }

    fn local(&self) -> Option<SocketAddr> {
        self.state.lock().local
    }
}

/// The life of a connection: connects, writes and reads until it breaks, is idle for long or is retired and done.
async fn run(connection: Arc<Connection>) {
    let mut ended = FailOnDrop { in_flight: &connection.in_flight, error: TryError::Closed(connection.path()) };
    let mut bell = Bell::new();
    ended.error = tokio::select! {
        biased;
        error = live(&connection) => error,
        never = bell.ring(&connection.in_flight) => match never {},
    };
    // From here on no query may be put on it; those that were are failed when `ended` goes.
    connection.state.lock().retired = true;
}

/// Gives the reason of the end.
async fn live(connection: &Connection) -> TryError {
    match connect(connection).await {
        Ok(stream) => {
            connection.state.lock().local = stream.local_addr().ok();
            match exchange(connection, &stream).await {
                Ok(()) => TryError::Closed(connection.path()),
                Err(Break::System(error)) => TryError::Broken(connection.path(), error),
                Err(Break::Unasked) => TryError::Unasked(connection.path()),
            }
        }
        Err(error) => TryError::Dial(connection.path(), error),
    }
}

async fn connect(connection: &Connection) -> Result<TcpStream, SystemError> {
    let Remote { address, settings, .. } = &*connection.remote;
    let socket = if address.is_ipv4() { TcpSocket::new_v4()? } else { TcpSocket::new_v6()? };
    if let Some(source) = settings.source_address {
        socket.bind(SocketAddr::new(source, 0))?;
    }
    let connecting = tokio::time::timeout(settings.read_timeout, socket.connect(*address)).await;
    let stream = connecting.map_err(|_| io::Error::from(io::ErrorKind::TimedOut))??;
    stream.set_nodelay(true)?;
    // Without it the kernel sends for a quarter of an hour to a pod that is gone.
    SockRef::from(&stream).set_tcp_user_timeout(Some(settings.read_timeout))?;
    Ok(stream)
}

/// Why a connection is given up.
enum Break {
    System(SystemError),
    /// It brought more messages than queries were put on it.
    Unasked,
}

impl From<io::Error> for Break {
    fn from(error: io::Error) -> Self {
        Self::System(error.into())
    }
}

async fn exchange(connection: &Connection, stream: &TcpStream) -> Result<(), Break> {
    let settings = &connection.remote.settings;
    let mut inbox = Vec::new();
    let mut outbox = Vec::new();
    let mut written = 0;
    let tick = settings.expire.clamp(Duration::from_millis(10), Duration::from_secs(10));
    let mut idle_since = Instant::now();
    let idle_check = tokio::time::sleep(tick);
    tokio::pin!(idle_check);
    loop {
        let mut blocked = false;
        while !blocked {
            if written == outbox.len() {
                written = 0;
                outbox.clear();
                std::mem::swap(&mut outbox, &mut connection.state.lock().outbox);
                if outbox.is_empty() {
                    break;
                }
                idle_since = Instant::now();
            }
            match stream.try_write(outbox.get(written..).unwrap_or_default()) {
                Ok(count) => written += count,
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => blocked = true,
                Err(error) => return Err(error.into()),
            }
        }
        if connection.is_done() {
            return Ok(());
        }
        tokio::select! {
            biased;
            ready = stream.readable() => {
                ready?;
                match read(connection, stream, &mut inbox)? {
                    Got::End => return Ok(()),
                    // Others on this worker have their turn before what may be an endless stream.
                    Got::AllThatFits => tokio::task::yield_now().await,
                    Got::Rest => (),
                }
                idle_since = Instant::now();
            }
            ready = stream.writable(), if blocked => ready?,
            () = connection.wake.notified() => {}
            () = &mut idle_check => {
                let now = Instant::now();
                // Retires it if its age has come.
                connection.load(now);
                if connection.in_flight.lock().is_empty() && now.saturating_duration_since(idle_since) >= settings.expire {
                    connection.state.lock().retired = true;
                    continue;
                }
                idle_check.as_mut().reset((now + tick).into());
            }
        }
    }
}

/// What a turn of reading got.
enum Got {
    /// As much as is read at once: there may be more.
    AllThatFits,
    /// What had arrived.
    Rest,
    /// The end of the stream.
    End,
}

/// Reads what has arrived, [`READ_SIZE`] at most, and hands out the messages in it.
fn read(connection: &Connection, stream: &TcpStream, inbox: &mut Vec<u8>) -> Result<Got, Break> {
    SCRATCH.with_borrow_mut(|scratch| match stream.try_read(scratch) {
        Ok(0) => Ok(Got::End),
        Ok(length) => {
            inbox.extend_from_slice(scratch.get(..length).unwrap_or_default());
            deliver(connection, inbox)?;
            Ok(if length < READ_SIZE { Got::Rest } else { Got::AllThatFits })
        }
        Err(error) if error.kind() == io::ErrorKind::WouldBlock => Ok(Got::Rest),
        Err(error) => Err(error.into()),
    })
}

/// Takes the whole messages off the front of `inbox`, as many as there can be answers.
fn deliver(connection: &Connection, inbox: &mut Vec<u8>) -> Result<(), Break> {
    let path = connection.path();
    let unanswered = connection.state.lock().unanswered;
    let mut messages = 0;
    let mut rest = inbox.as_slice();
    let now = Instant::now();
    let mut in_flight = connection.in_flight.lock();
    while let Frame::Message { octets: message, rest: after } = framing::first(rest, 0..=usize::from(u16::MAX)) {
        if messages == unanswered {
            connection.remote.metrics.mismatched.increment();
            return Err(Break::Unasked);
        }
        messages += 1;
        // An answer nobody waits for any longer is no sign of forgery on a connection.
        if in_flight.deliver(message, path, now, |_| false) == Delivery::Mismatched {
            connection.remote.metrics.mismatched.increment();
        }
        rest = after;
    }
    drop(in_flight);
    let taken = inbox.len() - rest.len();
    if taken > 0 {
        inbox.drain(..taken);
        let mut state = connection.state.lock();
        state.progress = now;
        state.unanswered -= messages;
    }
    Ok(())
}
