//! A `forward` as the Corefile configures it.

use super::policy::UpstreamPolicy;
use super::target::UpstreamTarget;
use crate::message::{Name, Rcode};
use crate::net::doh::DohMethod;
use crate::net::tls::ClientTls;
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

/// The keyword of the directive, which also names it in failures.
pub(super) const KEYWORD: &str = "forward";

/// A `forward` as configured.
#[derive(Clone, Debug)]
pub(super) struct ForwardConfig {
    pub from: Name,
    pub except: Vec<Name>,
    pub targets: Vec<UpstreamTarget>,
    /// `None` where no upstream is asked over TLS.
    pub tls: Option<ClientTls>,
    pub options: ForwardOptions,
}

/// The options of the block. The defaults are those of CoreDNS.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct ForwardOptions {
    pub force_tcp: bool,
    pub prefer_udp: bool,
    pub expire: Duration,
    pub max_age: Option<Duration>,
    /// 0: no limit given.
    pub max_idle_conns: usize,
    pub read_timeout: Duration,
    pub max_fails: u32,
    /// 0: no limit.
    pub max_connect_attempts: u32,
    pub policy: UpstreamPolicy,
    pub probe_interval: Duration,
    pub probe_recursion_desired: bool,
    pub probe_name: Name,
    /// 0: no limit.
    pub max_concurrent: usize,
    pub next: Vec<Rcode>,
    pub next_on_nodata: bool,
    pub failover: Vec<Rcode>,
    pub failfast_all_unhealthy_upstreams: bool,
    pub source_address: Option<IpAddr>,
    pub doh_method: DohMethod,
    /// Names are sent in a random letter case (DNS 0x20).
    pub use_caps_for_id: bool,
    /// Empty: the nameservers of /etc/resolv.conf.
    pub resolvers: Vec<SocketAddr>,
}

impl Default for ForwardOptions {
    fn default() -> Self {
        Self {
            force_tcp: false,
            prefer_udp: false,
            expire: Duration::from_secs(10),
            max_age: None,
            max_idle_conns: 0,
            read_timeout: Duration::from_secs(2),
            max_fails: 2,
            max_connect_attempts: 0,
            policy: UpstreamPolicy::Random,
            probe_interval: Duration::from_millis(500),
            probe_recursion_desired: true,
            probe_name: Name::root(),
            max_concurrent: 0,
            next: Vec::new(),
            next_on_nodata: false,
            failover: Vec::new(),
            failfast_all_unhealthy_upstreams: false,
            source_address: None,
            doh_method: DohMethod::Post,
            use_caps_for_id: false,
            resolvers: Vec::new(),
        }
    }
}
