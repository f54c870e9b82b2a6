//! What the sockets, connections and health checks of one upstream have in common: its address and protocol, settings,
//! counters and limits.

use super::metrics::UpstreamMetrics;
use super::socket_budget::SocketBudget;
use super::spoof_guard::SpoofGuard;
use crate::chain::Encryption;
use crate::message::Name;
use crate::net::doh::DohResource;
use crate::net::tls::TlsClient;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::AtomicUsize;
use std::time::Duration;

/// The options that two upstreams of one address must share to be the same upstream.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct UpstreamSettings {
    /// `source_address`.
    pub source_address: Option<IpAddr>,
    /// `expire`.
    pub expire: Duration,
    /// `max_age`.
    pub max_age: Option<Duration>,
    /// `max_idle_conns`, divided by the number of workers.
    pub connections_per_worker: Option<usize>,
    /// `read_timeout`.
    pub read_timeout: Duration,
    /// `use_caps_for_id`.
    pub use_caps_for_id: bool,
    /// `health_check`.
    pub probe_interval: Duration,
    pub probe_name: Name,
    pub probe_recursion_desired: bool,
    /// Health checks and loop probes use TCP (`force_tcp`).
    pub probe_tcp: bool,
}

/// Streams on a connection that every server over HTTPS should take (RFC 9113 section 6.5.2). We ask no more of any.
pub(super) const MAX_STREAMS: usize = 100;

/// How an upstream is spoken with.
pub(super) enum UpstreamProtocol {
    /// By plain UDP and TCP.
    Dns,
    /// Over TLS (RFC 7858).
    Tls(TlsClient),
    /// Over HTTPS (RFC 8484), with a session that speaks HTTP/2.
    Https(TlsClient, DohResource),
}

impl UpstreamProtocol {
    /// True if it has connections alone, whatever the client's transport.
    pub(super) fn is_encrypted(&self) -> bool {
        !matches!(self, Self::Dns)
    }

    /// What hides the queries.
    pub(super) fn encryption(&self) -> Option<Encryption> {
        match self {
            Self::Dns => None,
            Self::Tls(_) => Some(Encryption::Tls),
            Self::Https(..) => Some(Encryption::Https),
        }
    }

    /// How metrics call its connections: CoreDNS' value of `proto`.
    pub(super) fn connection_label(&self) -> &'static str {
        match self {
            Self::Dns => "tcp",
            Self::Tls(_) => "tcp-tls",
            Self::Https(..) => "https",
        }
    }

    /// The same for two protocols that speak alike and expect the same server.
    pub(super) fn key(&self) -> String {
        match self {
            Self::Dns => String::new(),
            Self::Tls(tls) => tls.key(),
            Self::Https(tls, resource) => format!("{} {resource:?}", tls.key()),
        }
    }
}

/// An upstream server as its sockets, connections and health checks know it.
pub(super) struct Remote {
    pub address: SocketAddr,
    pub protocol: UpstreamProtocol,
    /// Streams that it takes on a connection over HTTPS, as it has said last; up to then what every server should take.
    pub streams: AtomicUsize,
    pub settings: UpstreamSettings,
    pub metrics: UpstreamMetrics,
    /// The budget of all upstreams together.
    pub sockets: Arc<SocketBudget>,
    pub spoof_guard: SpoofGuard,
}
