//! What a directive asks an upstream, for those who watch that.

use super::{Request, Transport};
use std::net::SocketAddr;
use std::time::Instant;

/// Sees what the directives of a block ask upstreams, and what they are answered.
pub trait UpstreamObserver: Send + Sync {
    /// Called on the worker's thread, when the upstream has answered or was given up. Must not block.
    fn observe_upstream(&self, exchange: &UpstreamExchange<'_>);
}

/// How messages are encrypted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Encryption {
    /// DNS over TLS (RFC 7858).
    Tls,
    /// DNS over HTTPS (RFC 8484).
    Https,
}

/// A query to one upstream, however often it was sent.
#[derive(Clone, Copy)]
pub struct UpstreamExchange<'a> {
    /// The request that it was asked for; the first of several that it answers.
    pub request: &'a Request<'a>,
    /// As it was sent, but for its ID and the case of letters.
    pub query: &'a [u8],
    /// The answer as it is kept: with ID 0 and without its OPT record. `None` if there is none.
    pub reply: Option<&'a [u8]>,
    pub upstream: SocketAddr,
    /// Where it was sent from, if that is known.
    pub local: Option<SocketAddr>,
    pub transport: Transport,
    /// What hid it on the way.
    pub encryption: Option<Encryption>,
    /// The query has been observed before, when no answer had come in time.
    pub is_late: bool,
    /// When it was first sent.
    pub started: Instant,
}
