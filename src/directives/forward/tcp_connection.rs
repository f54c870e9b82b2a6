//! A TCP connection to one upstream, with a TLS session in it or without, as those know it who put queries on it. Many
//! are in flight at once, and their answers come in any order: of plain DNS and DNS over TLS by their IDs (RFC 7766
//! sections 6.2.1 and 7), of DNS over HTTPS each on a stream of its own.

use super::attempt::Attempt;
use super::error::{Endpoints, SystemError, UpstreamError};
use super::in_flight::{InFlightQueries, QueryStatus};
use super::letter_case::LetterCase;
use super::remote::{Remote, UpstreamProtocol};
use super::socket_budget::SocketPermit;
use super::upstream_query::UpstreamQuery;
use super::upstream_socket::UpstreamSocket;
use crate::chain::Transport;
use crate::net::tls;
use parking_lot::Mutex;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::task::Waker;
use std::time::{Duration, Instant};
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

/// How busy a connection is. The least is the best choice for a new query.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct ConnectionLoad {
    pub is_busy: bool,
    in_flight: usize,
}

/// A TCP connection to one upstream.
pub(super) struct TcpConnection {
    pub remote: Arc<Remote>,
    pub state: Mutex<ConnectionState>,
    pub in_flight: Mutex<InFlightQueries>,
    /// Tells the connection's task that there is something to write or to end, or that the connection may close.
    pub changed: Notify,
    _permit: SocketPermit,
}

/// What the task of a connection shares with those who use it.
pub(super) struct ConnectionState {
    /// Queries with their length prefixes that are not written yet. The task writes all of them at once, so that
    /// queries which come together leave together.
    pub outbox: Vec<u8>,
    /// Queries on a stream each whose callers no longer wait. Their streams are ended.
    pub forgotten: Vec<u16>,
    /// Queries without streams that were sent, less the messages that came. Some of their callers may no longer wait.
    pub unanswered: usize,
    /// Queries in flight from which on the connection is busy.
    pub busy_from: usize,
    /// When something came last, the session was made, or the first of the queries in flight was sent.
    pub waiting_since: Instant,
    /// When an answer came last.
    pub last_answer: Option<Instant>,
    /// Its TLS session is being made. Queries wait for that, and not behind each other.
    pub is_opening: bool,
    pub local: Option<SocketAddr>,
    pub is_retired: bool,
    /// When the connection takes no more queries.
    end: Instant,
}

impl TcpConnection {
    /// One that is yet to be made, and counted.
    pub(super) fn new(remote: &Arc<Remote>, permit: SocketPermit, now: Instant) -> Self {
        remote.metrics.tcp_opened.increment();
        let busy_from = match remote.protocol {
            UpstreamProtocol::Https(..) => remote.streams.load(Ordering::Relaxed),
            UpstreamProtocol::Dns | UpstreamProtocol::Tls(_) => BUSY,
        };
        let lifetime =
            remote.settings.max_age.unwrap_or_else(|| Duration::from_secs_f64(rand::random_range(LIFETIME_SECONDS)));
        Self {
            remote: remote.clone(),
            state: Mutex::new(ConnectionState {
                outbox: Vec::new(),
                forgotten: Vec::new(),
                unanswered: 0,
                busy_from,
                waiting_since: now,
                last_answer: None,
                is_opening: remote.protocol.is_encrypted(),
                local: None,
                is_retired: false,
                end: now + lifetime,
            }),
            in_flight: Mutex::default(),
            changed: Notify::new(),
            _permit: permit,
        }
    }

    /// True if each query has a stream of its own, so that none waits behind another.
    fn has_streams(&self) -> bool {
        matches!(self.remote.protocol, UpstreamProtocol::Https(..))
    }

    pub(super) fn endpoints(&self) -> Endpoints {
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
        let waits = in_flight > 0 && (state.is_opening || !self.has_streams());
        let is_stalled = waits && now.saturating_duration_since(state.waiting_since) > patience;
        (!state.is_retired).then_some(ConnectionLoad { is_busy: is_stalled || in_flight >= state.busy_from, in_flight })
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
        let queued_behind = if state.is_opening || self.has_streams() { 0 } else { queued_behind };
        state.unanswered += usize::from(!self.has_streams());
        state.outbox.extend_from_slice(&length.to_be_bytes());
        query.write(id, LetterCase::default(), &mut state.outbox);
        drop(state);
        self.changed.notify_one();
        Ok(Attempt { socket: self.clone(), id, sent: now, since: now, queued_behind })
    }

    /// True if it takes no more queries and all are answered.
    pub(super) fn is_done(&self) -> bool {
        self.state.lock().is_retired && self.in_flight.lock().is_empty()
    }
}

impl UpstreamSocket for TcpConnection {
    fn poll(&self, id: u16, deadline: Instant, waker: &Waker) -> QueryStatus {
        self.in_flight.lock().poll(id, deadline, waker)
    }

    fn forget(&self, id: u16) {
        let is_open = self.in_flight.lock().forget(id);
        let mut state = self.state.lock();
        let has_stream = is_open && self.has_streams();
        if has_stream {
            state.forgotten.push(id);
        }
        if has_stream || state.is_retired {
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

    fn transport(&self) -> Transport {
        Transport::Tcp
    }

    fn remote(&self) -> &Remote {
        &self.remote
    }

    fn local_address(&self) -> Option<SocketAddr> {
        self.state.lock().local
    }
}

/// Why a connection has failed.
pub(super) enum ConnectionEnd {
    System(SystemError),
    /// The TLS session failed, or HTTP/2 in it, and why.
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

impl From<h2::Error> for ConnectionEnd {
    fn from(error: h2::Error) -> Self {
        match error.get_io() {
            // Of what the upstream has sent, not of the socket.
            Some(io) if io.kind() == io::ErrorKind::InvalidData => Self::Session(io.to_string().into()),
            Some(io) => Self::System(SystemError::from(io)),
            None => Self::Session(format!("http2: {error}").into()),
        }
    }
}

impl ConnectionEnd {
    /// What it means to the queries on a connection.
    pub(super) fn error(self, endpoints: Endpoints) -> UpstreamError {
        match self {
            Self::System(error) => UpstreamError::Broken(endpoints, error),
            Self::Session(why) => UpstreamError::Session(endpoints, why),
            Self::Unsolicited => UpstreamError::Unsolicited(endpoints),
        }
    }
}
