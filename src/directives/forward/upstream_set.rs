//! The upstreams of one `forward`: those with fixed addresses, and those whose host names are resolved in the
//! background.

use super::config::ForwardConfig;
use super::remote::{UpstreamProtocol, UpstreamSettings};
use super::socket_budget::SocketBudget;
use super::target::{Protocol, UpstreamTarget};
use super::upstream::Upstream;
use super::upstream_query::UpstreamQuery;
use crate::chain::{BuildContext, ChainUpstreams, ExchangeFn, ForwardUpstreams, Transport};
use crate::message::Name;
use crate::metrics::Registry;
use crate::net::doh::{DohMethod, DohResource};
use crate::net::tls::ClientTls;
use crate::net::{HostLookup, RefreshTimer};
use arc_swap::ArcSwap;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio::sync::watch;

/// Why there is no upstream to ask.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(super) enum NoUpstreams {
    #[error("no upstream: {0} has no usable nameserver; add one and reload")]
    EmptyFile(String),
    #[error("no upstream: {0} could not be resolved yet; check the name and the resolver")]
    Unresolved(String),
    #[error("no forwarder defined")]
    Empty,
    #[error("every upstream leads back to us; see the log lines of `loop` for what to change")]
    Looping,
}

/// A host name of a TO argument, and the upstreams at its addresses. It outlives a reload.
struct Host {
    name: Name,
    port: u16,
    protocol: Protocol,
    upstreams: ArcSwap<Vec<Arc<Upstream>>>,
}

enum UpstreamSource {
    Fixed(Arc<Upstream>),
    Host(Arc<Host>),
}

/// The upstreams of one `forward`.
pub(super) struct UpstreamSet {
    sources: Vec<UpstreamSource>,
    current: ArcSwap<Vec<Arc<Upstream>>>,
    /// The same list for `loop`, which probes it and marks the upstreams that lead back to us.
    listing: ForwardUpstreams,
    settings: UpstreamSettings,
    speaking: Speaking,
    registry: Registry,
    sockets: Arc<SocketBudget>,
    lookup: HostLookup,
    /// True once every host name has been looked up, with success or without.
    is_settled: watch::Sender<bool>,
    why_empty: NoUpstreams,
}

/// How the upstreams of one `forward` are spoken with.
struct Speaking {
    tls: Option<ClientTls>,
    /// The same with HTTP/2 in it.
    https: Option<ClientTls>,
    doh_method: DohMethod,
}

impl Speaking {
    fn new(config: &ForwardConfig) -> Self {
        let has_https = config.targets.iter().any(UpstreamTarget::is_https);
        Self {
            tls: config.tls.clone(),
            https: config.tls.as_ref().filter(|_| has_https).map(ClientTls::for_http2),
            doh_method: config.options.doh_method,
        }
    }

    /// How an upstream of `protocol` is spoken with. Its certificate must be for `name`, unless the Corefile names
    /// another.
    fn with(&self, protocol: &Protocol, name: &str, port: u16) -> UpstreamProtocol {
        match (protocol, &self.tls, &self.https) {
            (Protocol::Tls { server_name }, Some(tls), _) => {
                UpstreamProtocol::Tls(tls.client_of(server_name.as_deref().unwrap_or(name)))
            }
            (Protocol::Https { server_name, path }, _, Some(tls)) => {
                let name = server_name.as_deref().unwrap_or(name);
                let resource = DohResource::new(name, port, path, self.doh_method);
                UpstreamProtocol::Https(tls.client_of(name), resource)
            }
            _ => UpstreamProtocol::Dns,
        }
    }

    /// What of it two `forward` have to have in common to share the upstreams of a host name.
    fn key(&self, protocol: &Protocol) -> String {
        match protocol {
            Protocol::Dns => String::new(),
            _ => format!("{protocol:?} {:?} {:?}", self.tls, self.doh_method),
        }
    }
}

/// Upstreams that may be asked, and addresses of those that may not.
type UsableUpstreams = (Arc<Vec<Arc<Upstream>>>, Vec<SocketAddr>);

impl UpstreamSet {
    pub(super) fn new(config: &ForwardConfig, settings: UpstreamSettings, context: &BuildContext<'_>) -> Self {
        let (registry, reload_state) = (&context.process.registry, &context.process.reload_state);
        let sockets = SocketBudget::shared(reload_state, registry);
        let speaking = Speaking::new(config);
        let adopt = |address: SocketAddr, protocol: &Protocol| {
            let protocol = speaking.with(protocol, &address.ip().to_string(), address.port());
            let upstream = Upstream::adopt_or_new(address, protocol, &settings, registry, reload_state, &sockets);
            UpstreamSource::Fixed(upstream)
        };
        let resolvers = &config.options.resolvers;
        let mut sources = Vec::new();
        let mut why_empty = NoUpstreams::Empty;
        for target in &config.targets {
            match target {
                UpstreamTarget::Address { address, protocol } => sources.push(adopt(*address, protocol)),
                UpstreamTarget::File { path, addresses } => {
                    why_empty = NoUpstreams::EmptyFile(path.clone());
                    sources.extend(addresses.iter().map(|address| adopt(*address, &Protocol::Dns)));
                }
                UpstreamTarget::Host { name, port, protocol } => {
                    why_empty = NoUpstreams::Unresolved(name.to_string());
                    let key =
                        format!("forward host {name}:{port} {} {resolvers:?} {settings:?}", speaking.key(protocol));
                    let (name, port, protocol) = (name.clone(), *port, protocol.clone());
                    let new = || Host { name, port, protocol, upstreams: ArcSwap::default() };
                    sources.push(UpstreamSource::Host(reload_state.adopt_or(&key, new)));
                }
            }
        }
        let has_hosts = sources.iter().any(|source| matches!(source, UpstreamSource::Host(_)));
        let set = Self {
            sources,
            current: ArcSwap::default(),
            listing: ForwardUpstreams::new(ChainUpstreams::of(context), config.from.clone()),
            registry: registry.clone(),
            sockets: sockets.clone(),
            settings,
            speaking,
            lookup: HostLookup { resolvers: resolvers.clone(), files: context.process.files.clone() },
            is_settled: watch::Sender::new(!has_hosts),
            why_empty,
        };
        set.update_current();
        set
    }

    /// The upstreams that may be asked: at least one, and none that leads back to us. Right after the start it waits,
    /// until `deadline` at most, for host names to be resolved.
    pub(super) async fn usable(&self, deadline: Instant) -> Result<Arc<Vec<Arc<Upstream>>>, NoUpstreams> {
        let mut upstreams = self.current.load_full();
        if upstreams.is_empty() {
            let mut settled = self.is_settled.subscribe();
            if !*settled.borrow_and_update() {
                let _ = tokio::time::timeout_at(deadline.into(), settled.changed()).await;
                upstreams = self.current.load_full();
            }
        }
        self.usable_of(upstreams).map(|(usable, _)| usable)
    }

    /// The upstreams that may be asked, as [`UpstreamSet::usable`] has them, without waiting, and the addresses of
    /// those that are left out as they lead back to us.
    pub(super) fn peek(&self) -> Result<UsableUpstreams, NoUpstreams> {
        self.usable_of(self.current.load_full())
    }

    fn usable_of(&self, mut upstreams: Arc<Vec<Arc<Upstream>>>) -> Result<UsableUpstreams, NoUpstreams> {
        if upstreams.is_empty() {
            return Err(self.why_empty.clone());
        }
        let looping = self.listing.looping();
        if !looping.is_empty() {
            let is_usable = |upstream: &&Arc<Upstream>| !looping.contains(&upstream.address);
            upstreams = Arc::new(upstreams.iter().filter(is_usable).cloned().collect());
        }
        if upstreams.is_empty() { Err(NoUpstreams::Looping) } else { Ok((upstreams, looping)) }
    }

    pub(super) fn has_hosts(&self) -> bool {
        self.sources.iter().any(|source| matches!(source, UpstreamSource::Host(_)))
    }

    /// Lists the upstreams in the order of the Corefile, each address once.
    fn update_current(&self) {
        let mut list: Vec<Arc<Upstream>> = Vec::new();
        let mut push = |upstream: &Arc<Upstream>| {
            if list.iter().all(|present| present.address != upstream.address) {
                list.push(upstream.clone());
            }
        };
        for source in &self.sources {
            match source {
                UpstreamSource::Fixed(upstream) => push(upstream),
                UpstreamSource::Host(host) => host.upstreams.load().iter().for_each(&mut push),
            }
        }
        let transport = if self.settings.probe_tcp { Transport::Tcp } else { Transport::Udp };
        self.listing.set(list.iter().map(|upstream| (upstream.address, loop_probe(upstream.clone(), transport))));
        self.current.store(Arc::new(list));
    }

    /// Keeps the host names resolved. Never ends.
    pub(super) async fn keep_resolved(self: Arc<Self>) {
        let hosts = self.sources.iter().filter_map(|source| match source {
            UpstreamSource::Fixed(_) => None,
            UpstreamSource::Host(host) => Some(host.clone()),
        });
        let hosts: Vec<_> = hosts.collect();
        let first_lookups = futures_util::future::join_all(hosts.iter().map(|host| self.refresh(host))).await;
        let mut timers: Vec<_> =
            first_lookups.into_iter().map(|valid| RefreshTimer::new(valid, Instant::now())).collect();
        self.is_settled.send_replace(true);
        while let Some(next) = timers.iter().map(RefreshTimer::due).min() {
            tokio::time::sleep_until(next.into()).await;
            for (host, timer) in hosts.iter().zip(&mut timers) {
                if timer.due() <= Instant::now() {
                    let valid = self.refresh(host).await;
                    timer.restart(valid, Instant::now());
                }
            }
        }
    }

    /// Looks up one host. Returns how long its addresses are valid, or `None` if the lookup failed. Then the host keeps
    /// the addresses that it had.
    async fn refresh(&self, host: &Host) -> Option<Duration> {
        let (addresses, valid) = match self.lookup.addresses_of(&host.name).await {
            Ok(found) => found,
            Err(error) => {
                let has_former = !host.upstreams.load().is_empty();
                tracing::warn!(host = %host.name, %error, has_former, "plugin/forward: upstream's name could not be resolved");
                return None;
            }
        };
        let former = host.upstreams.load_full();
        let upstreams: Vec<_> = addresses
            .into_iter()
            .map(|ip| SocketAddr::new(ip, host.port))
            .map(|address| match former.iter().find(|upstream| upstream.address == address) {
                Some(upstream) => upstream.clone(),
                None => {
                    let protocol = self.speaking.with(&host.protocol, &host.name.to_string(), host.port);
                    let (settings, sockets) = (self.settings.clone(), self.sockets.clone());
                    Arc::new(Upstream::new(address, protocol, settings, &self.registry, sockets))
                }
            })
            .collect();
        host.upstreams.store(Arc::new(upstreams));
        self.update_current();
        Some(valid)
    }
}

/// How `loop` asks an upstream: directly, whatever else is in flight and however healthy it is.
fn loop_probe(upstream: Arc<Upstream>, transport: Transport) -> ExchangeFn {
    Box::new(move |query| {
        let upstream = upstream.clone();
        Box::pin(async move {
            let Some(query) = UpstreamQuery::from_wire(query) else { return false };
            match upstream.ask(&Arc::new(query), transport).await {
                Ok(_) => true,
                Err(failure) => failure.error.is_code_alone(),
            }
        })
    })
}
