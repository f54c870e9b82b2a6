//! A TCP connection to one upstream, with a TLS session in it or without (RFC 7858), and the task that connects, writes
//! and reads it. Many queries are in flight on it at once, and their answers come in any order (RFC 7766 sections 6.2.1
//! and 7).

use super::attempt::Attempt;
use super::deadline_timer::DeadlineTimer;
use super::error::{Endpoints, SystemError, UpstreamError};
use super::in_flight::{Delivery, InFlightQueries, QueryStatus};
use super::letter_case::LetterCase;
use super::remote::Remote;
use super::socket_budget::SocketPermit;
use super::upstream_query::UpstreamQuery;
use super::upstream_socket::{FailOnDrop, UpstreamSocket};
use super::upstream_stream::{TlsSession, UpstreamStream};
use crate::chain::Transport;
use crate::message::framing::{self, Frame};
use crate::net::tls::{self, TlsClient, TlsError};
use parking_lot::Mutex;
use socket2::SockRef;
use std::cell::RefCell;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::task::Waker;
use std::time::{Duration, Instant};
use tokio::net::{TcpSocket, TcpStream};
use tokio::sync::Notify;

/// Queries in flight from which on a connection is busy.
const BUSY: usize = 32;
/// A connection with queries in flight that has brought nothing for this long is busy. Many servers, CoreDNS among
/// them, answer the queries of one connection one after another, so that a slow name holds up all behind it.
const STALLED: Duration = Duration::from_millis(50);
/// The same of one whose TLS session is being made, which takes two round trips or more.
const STALLED_OPENING: Duration = Duration::from_millis(200);
/// How many seconds a connection takes queries, unless `max_age` says otherwise. Random for each, so that they do not
/// all end at once.
const LIFETIME_SECONDS: std::ops::RangeInclusive<f64> = 30.0..=60.0;
/// Octets that are read at once.
const READ_SIZE: usize = 65536;

thread_local! {
    static READ_BUFFER: RefCell<Box<[u8]>> = RefCell::new(vec![0; READ_SIZE].into_boxed_slice());
}

/// How busy a connection is. The least is the best choice for a new query.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct ConnectionLoad {
    pub is_busy: bool,
    in_flight: usize,
}

/// A TCP connection to one upstream.
pub(super) struct TcpConnection {
    remote: Arc<Remote>,
    state: Mutex<ConnectionState>,
    in_flight: Mutex<InFlightQueries>,
    /// Tells the connection's task that there is something to write, or that the connection may close.
    changed: Notify,
    _permit: SocketPermit,
}

struct ConnectionState {
    /// Queries with their length prefixes that are not written yet. The task writes all of them at once, so that
    /// queries which come together leave together.
    outbox: Vec<u8>,
    /// Queries that were sent, less the messages that came. Some of their callers may no longer wait.
    unanswered: usize,
    /// When something came last, the session was made, or the first of the queries in flight was sent.
    waiting_since: Instant,
    /// When an answer came last.
    last_answer: Option<Instant>,
    /// Its TLS session is being made. Queries wait for that, and not behind each other.
    is_opening: bool,
    local: Option<SocketAddr>,
    is_retired: bool,
    /// When the connection takes no more queries.
    end: Instant,
}

impl TcpConnection {
    /// Starts the task that connects and then serves the connection.
    pub(super) fn open(remote: &Arc<Remote>, permit: SocketPermit, now: Instant) -> Arc<Self> {
        remote.metrics.tcp_opened.increment();
        let lifetime =
            remote.settings.max_age.unwrap_or_else(|| Duration::from_secs_f64(rand::random_range(LIFETIME_SECONDS)));
        let connection = Arc::new(Self {
            remote: remote.clone(),
            state: Mutex::new(ConnectionState {
                outbox: Vec::new(),
                unanswered: 0,
                waiting_since: now,
                last_answer: None,
                is_opening: remote.tls.is_some(),
                local: None,
                is_retired: false,
                end: now + lifetime,
            }),
            in_flight: Mutex::default(),
            changed: Notify::new(),
            _permit: permit,
        });
        tokio::spawn(run(connection.clone()));
        connection
    }

    fn endpoints(&self) -> Endpoints {
        Endpoints { transport: Transport::Tcp, local: self.state.lock().local, remote: self.remote.address }
    }

    /// How busy the connection is; `None` if it takes no more queries. Retires it if its lifetime is over.
    pub(super) fn load(&self, now: Instant) -> Option<ConnectionLoad> {
        let in_flight = self.in_flight.lock().len();
        let mut state = self.state.lock();
        if !state.is_retired && now >= state.end {
            state.is_retired = true;
            self.changed.notify_one();
        }
        let patience = if state.is_opening { STALLED_OPENING } else { STALLED };
        let is_stalled = in_flight > 0 && now.saturating_duration_since(state.waiting_since) > patience;
        (!state.is_retired).then_some(ConnectionLoad { is_busy: is_stalled || in_flight >= BUSY, in_flight })
    }

    pub(super) fn send(self: &Arc<Self>, query: &Arc<UpstreamQuery>, now: Instant) -> Result<Attempt, UpstreamError> {
        let (queued_behind, registered) = {
            let mut in_flight = self.in_flight.lock();
            (in_flight.len(), in_flight.register(query, LetterCase::default()))
        };
        let id = registered.ok_or_else(|| UpstreamError::TooManyInFlight(self.endpoints()))?;
        let length = u16::try_from(query.len()).unwrap_or(u16::MAX);
        let mut state = self.state.lock();
        if queued_behind == 0 {
            state.waiting_since = now;
        }
        let queued_behind = if state.is_opening { 0 } else { queued_behind };
        state.unanswered += 1;
        state.outbox.extend_from_slice(&length.to_be_bytes());
        query.write(id, LetterCase::default(), &mut state.outbox);
        drop(state);
        self.changed.notify_one();
        Ok(Attempt { socket: self.clone(), id, sent: now, queued_behind })
    }

    fn is_done(&self) -> bool {
        self.state.lock().is_retired && self.in_flight.lock().is_empty()
    }

    /// Takes the complete messages off the front of `inbox`, but no more than there can be answers.
    fn deliver(&self, inbox: &mut Vec<u8>) -> Result<(), ConnectionEnd> {
        let endpoints = self.endpoints();
        let unanswered = self.state.lock().unanswered;
        let mut messages = 0;
        let mut rest = inbox.as_slice();
        let now = Instant::now();
        let mut in_flight = self.in_flight.lock();
        while let Frame::Message { octets: message, rest: after } = framing::first(rest, 0..=usize::from(u16::MAX)) {
            if messages == unanswered {
                self.remote.metrics.mismatched.increment();
                return Err(ConnectionEnd::Unsolicited);
            }
            messages += 1;
            // A response whose ID is unknown is no sign of forgery on a connection: its caller has stopped waiting.
            if in_flight.deliver(message, endpoints, now, |_| false) == Delivery::Mismatched {
                self.remote.metrics.mismatched.increment();
            }
            rest = after;
        }
        drop(in_flight);
        let taken = inbox.len() - rest.len();
        if taken > 0 {
            inbox.drain(..taken);
            let mut state = self.state.lock();
            state.waiting_since = now;
            state.last_answer = Some(now);
            state.unanswered -= messages;
        }
        Ok(())
    }
}

impl UpstreamSocket for TcpConnection {
    fn poll(&self, id: u16, deadline: Instant, waker: &Waker) -> QueryStatus {
        self.in_flight.lock().poll(id, deadline, waker)
    }

    fn forget(&self, id: u16) {
        self.in_flight.lock().forget(id);
        if self.state.lock().is_retired {
            self.changed.notify_one();
        }
    }

    fn retire(&self) {
        self.state.lock().is_retired = true;
        self.changed.notify_one();
    }

    fn has_progress_since(&self, sent: Instant) -> bool {
        self.state.lock().last_answer.is_some_and(|last| last > sent)
    }

    fn retire_if_silent_since(&self, _sent: Instant) {
        // The caller has found no progress since then, or its query has had the whole read timeout.
        self.retire();
    }

    fn remote(&self) -> &Remote {
        &self.remote
    }

    fn local_address(&self) -> Option<SocketAddr> {
        self.state.lock().local
    }
}

/// Why a connection has failed.
enum ConnectionEnd {
    System(SystemError),
    /// The TLS session failed, and why.
    Session(Arc<str>),
    /// It brought more messages than it carried queries.
    Unsolicited,
}

impl From<io::Error> for ConnectionEnd {
    fn from(error: io::Error) -> Self {
        match tls::cause(&error) {
            Some(cause) => Self::Session(tls::explain(cause).into()),
            None => Self::System(error.into()),
        }
    }
}

/// The task of a connection: connects, writes and reads until the connection fails, is idle for long or is retired and
/// done.
async fn run(connection: Arc<TcpConnection>) {
    let mut fail_on_drop =
        FailOnDrop { in_flight: &connection.in_flight, error: UpstreamError::Closed(connection.endpoints()) };
    let mut timer = DeadlineTimer::new();
    fail_on_drop.error = tokio::select! {
        biased;
        error = connect_and_serve(&connection) => error,
        never = timer.run(&connection.in_flight) => match never {},
    };
    // Before `fail_on_drop` fails the queries in flight, so that none is sent on this connection after that.
    connection.state.lock().is_retired = true;
}

/// Returns why the connection ended.
async fn connect_and_serve(connection: &TcpConnection) -> UpstreamError {
    let stream = match connect(connection).await {
        Ok(stream) => stream,
        Err(error) => return UpstreamError::Dial(connection.endpoints(), error),
    };
    connection.state.lock().local = stream.local_addr().ok();
    let end = match &connection.remote.tls {
        None => serve(connection, stream).await,
        // Boxed: the future of a plain connection need not have room for it.
        Some(tls) => match Box::pin(make_session(connection, tls, stream)).await {
            Ok(session) => Box::pin(serve(connection, session)).await,
            Err(error) => return error,
        },
    };
    match end {
        Ok(()) => UpstreamError::Closed(connection.endpoints()),
        Err(ConnectionEnd::System(error)) => UpstreamError::Broken(connection.endpoints(), error),
        Err(ConnectionEnd::Session(why)) => UpstreamError::Session(connection.endpoints(), why),
        Err(ConnectionEnd::Unsolicited) => UpstreamError::Unsolicited(connection.endpoints()),
    }
}

/// Makes the TLS session of a connection, which may take as long as the connection itself.
async fn make_session(
    connection: &TcpConnection,
    tls: &TlsClient,
    stream: TcpStream,
) -> Result<TlsSession, UpstreamError> {
    let limit = connection.remote.settings.read_timeout;
    let outcome = tokio::time::timeout(limit, tls.connect(stream)).await;
    let cut = |error: io::Error| UpstreamError::HandshakeCut(connection.endpoints(), error.into());
    match outcome {
        Ok(Ok(session)) => {
            let mut state = connection.state.lock();
            state.is_opening = false;
            state.waiting_since = Instant::now();
            Ok(session.into())
        }
        Ok(Err(TlsError::Connection(error))) => Err(cut(error)),
        Ok(Err(refused)) => Err(UpstreamError::Handshake(connection.endpoints(), refused.to_string().into())),
        Err(_) => Err(cut(io::ErrorKind::TimedOut.into())),
    }
}

async fn connect(connection: &TcpConnection) -> Result<TcpStream, SystemError> {
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

/// Writes queries and reads answers. Ends well when the upstream closes the connection, or when it is retired and done.
async fn serve<S: UpstreamStream>(connection: &TcpConnection, mut stream: S) -> Result<(), ConnectionEnd> {
    let settings = &connection.remote.settings;
    let mut inbox = Vec::new();
    let mut outbox = Vec::new();
    let mut written = 0;
    let idle_check_interval = settings.expire.clamp(Duration::from_millis(10), Duration::from_secs(10));
    let mut idle_since = Instant::now();
    let idle_check = tokio::time::sleep(idle_check_interval);
    tokio::pin!(idle_check);
    loop {
        let mut is_blocked = false;
        while !is_blocked {
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
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => is_blocked = true,
                Err(error) => return Err(error.into()),
            }
        }
        if !is_blocked {
            match stream.try_flush() {
                Ok(()) => (),
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => is_blocked = true,
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
                match read(connection, &mut stream, &mut inbox)? {
                    ReadOutcome::EndOfStream => return Ok(()),
                    // Other tasks of this worker get their turn before what may be an endless stream.
                    ReadOutcome::MayHaveMore => tokio::task::yield_now().await,
                    ReadOutcome::ReadAll => (),
                }
                idle_since = Instant::now();
            }
            ready = stream.writable(), if is_blocked => ready?,
            () = connection.changed.notified() => {}
            () = &mut idle_check => {
                let now = Instant::now();
                // Retires the connection if its lifetime is over.
                connection.load(now);
                let is_old = now.saturating_duration_since(idle_since) >= settings.expire;
                if is_old && connection.in_flight.lock().is_empty() {
                    connection.state.lock().is_retired = true;
                    continue;
                }
                idle_check.as_mut().reset((now + idle_check_interval).into());
            }
        }
    }
}

enum ReadOutcome {
    /// The buffer was filled.
    MayHaveMore,
    ReadAll,
    EndOfStream,
}

/// Reads what has arrived, [`READ_SIZE`] octets at most, and delivers the messages in it.
fn read(
    connection: &TcpConnection,
    stream: &mut impl UpstreamStream,
    inbox: &mut Vec<u8>,
) -> Result<ReadOutcome, ConnectionEnd> {
    READ_BUFFER.with_borrow_mut(|buffer| match stream.try_read(buffer) {
        Ok(0) => Ok(ReadOutcome::EndOfStream),
        Ok(length) => {
            inbox.extend_from_slice(buffer.get(..length).unwrap_or_default());
            connection.deliver(inbox)?;
            Ok(if length < READ_SIZE { ReadOutcome::ReadAll } else { ReadOutcome::MayHaveMore })
        }
        Err(error) if error.kind() == io::ErrorKind::WouldBlock => Ok(ReadOutcome::ReadAll),
        Err(error) => Err(error.into()),
    })
}
