//! What the sockets, connections and health checks of one upstream have in common: its address and protocol, settings,
//! counters and limits.

use super::metrics::UpstreamMetrics;
use super::socket_budget::SocketBudget;
use super::spoof_guard::SpoofGuard;
use crate::message::Name;
use crate::net::tls::TlsClient;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
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

/// An upstream server as its sockets, connections and health checks know it.
pub(super) struct Remote {
    pub address: SocketAddr,
    /// How it is spoken with over TLS; `None`: it is asked by plain UDP and TCP.
    pub tls: Option<TlsClient>,
    pub settings: UpstreamSettings,
    pub metrics: UpstreamMetrics,
    /// The budget of all upstreams together.
    pub sockets: Arc<SocketBudget>,
    pub spoof_guard: SpoofGuard,
}
