//! Who asks: one stream of queries for each place, address and protocol, and how long each has been without an answer.

use crate::kernel::{DNS, Place};
use nodelocaldns::node::TransportProtocol;
use std::net::{IpAddr, SocketAddr};
use std::time::{Duration, Instant};

/// After a query that is not answered the client asks again, from the same port.
pub const RETRY: Duration = Duration::from_millis(10);

/// Answers after this are not waited for.
const PATIENCE: Duration = Duration::from_secs(5);

/// Few, so that conntrack has seen each before.
const FIRST_PORT: u16 = 40_000;
const PORTS: u16 = 3;

/// Who gave an answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Answerer {
    Node,
    KubeDns,
}

/// One question on its way.
#[derive(Clone, Copy, Debug)]
pub struct Query {
    pub stream: usize,
    pub source: SocketAddr,
    pub asked: SocketAddr,
    pub protocol: TransportProtocol,
    pub at: Instant,
    /// The node's server can answer it at once.
    pub is_cached: bool,
}

/// Clients of one kind.
#[derive(Clone, Debug)]
pub struct Stream {
    pub place: Place,
    pub address: IpAddr,
    pub protocol: TransportProtocol,
    next_port: u16,
    /// When the first question was asked after the last answer came.
    pub silent_since: Option<Instant>,
    pub last_answer: Option<(Instant, Answerer)>,
    /// Questions that can be answered at once, and how many of them were.
    pub asked: u32,
    pub answered: u32,
}

impl Stream {
    pub fn new(place: Place, address: IpAddr, protocol: TransportProtocol) -> Self {
        Self { place, address, protocol, next_port: 0, silent_since: None, last_answer: None, asked: 0, answered: 0 }
    }

    /// Whatever a socket of a client does: the port stays until it has been answered.
    pub fn port(&self) -> u16 {
        FIRST_PORT + self.next_port
    }

    pub fn ask(&mut self, stream: usize, source: SocketAddr, is_cached: bool, now: Instant) -> Query {
        self.silent_since.get_or_insert(now);
        self.asked += u32::from(is_cached);
        let asked = SocketAddr::new(self.address, DNS);
        Query { stream, source, asked, protocol: self.protocol, at: now, is_cached }
    }

    /// An answer has come; for how long there was none, if the client still waited for it.
    pub fn take_answer(&mut self, query: &Query, answerer: Answerer, now: Instant) -> Option<Duration> {
        if now - query.at > PATIENCE {
            return None;
        }
        self.answered += u32::from(query.is_cached);
        self.last_answer = Some((now, answerer));
        if query.source.port() == self.port() {
            self.next_port = (self.next_port + 1) % PORTS;
        }
        Some(self.silence(now)).inspect(|_| self.silent_since = None)
    }

    /// For how long nobody has answered, though asked.
    pub fn silence(&self, now: Instant) -> Duration {
        self.silent_since.map_or(Duration::ZERO, |since| now - since)
    }

    pub fn name(&self) -> String {
        format!("{:?} to {} over {:?}", self.place, self.address, self.protocol)
    }
}
