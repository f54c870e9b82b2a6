//! The upstreams there are right now: fixed ones, and those that host names stand for, kept resolved in the background.

use super::asked::Asked;
use super::error::TryError;
use super::parse::Config;
use super::sockets::SocketBudget;
use super::target::Target;
use super::upstream::{Settings, Upstream};
use crate::chain::{Ask, BuildContext, Listing, ReadFile, Transport, Upstreams};
use crate::deadline;
use crate::message::Name;
use crate::metrics::Registry;
use arc_swap::ArcSwap;
use hickory_resolver::config::{ConnectionConfig, NameServerConfig, ResolveHosts, ResolverConfig, ResolverOpts};
use hickory_resolver::net::NetError;
use hickory_resolver::net::runtime::TokioRuntimeProvider;
use hickory_resolver::system_conf::parse_resolv_conf;
use hickory_resolver::{Hosts, TokioResolver};
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};
use tokio::runtime::Handle;
use tokio::sync::watch;
use tokio::time::timeout;

/// A host name is resolved again when its TTL is over, but within these bounds.
const SHORTEST_REFRESH: Duration = Duration::from_secs(5);
const LONGEST_REFRESH: Duration = Duration::from_secs(300);
/// After a failure, the pause doubles from here to [`LONGEST_RETRY`].
const FIRST_RETRY: Duration = Duration::from_secs(1);
const LONGEST_RETRY: Duration = Duration::from_secs(30);
/// What tells whom to ask, and what is known without asking.
const RESOLV_CONF: &str = "/etc/resolv.conf";
const HOSTS: &str = "/etc/hosts";
/// How long /etc/resolv.conf and /etc/hosts may take, and threads that may hang over them.
const FILES_LIMIT: Duration = Duration::from_secs(5);
const MOST_READERS: usize = 4;
static READERS: AtomicUsize = AtomicUsize::new(0);
/// Most addresses of one host that are used.
const ADDRESS_LIMIT: usize = 32;

/// Why there is nobody to ask.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum RosterError {
    #[error("no upstream: {0} has no usable nameserver; add one and reload")]
    EmptyFile(String),
    #[error("no upstream: {0} could not be resolved yet; check the name and the resolver")]
    Unresolved(String),
    #[error("no forwarder defined")]
    Empty,
    #[error("every upstream leads back to us; see the log lines of `loop` for what to change")]
    Looping,
}

/// What a host name stands for at the moment. Lives on over a reload.
pub struct Host {
    name: Name,
    port: u16,
    upstreams: ArcSwap<Vec<Arc<Upstream>>>,
}

enum Source {
    Fixed(Arc<Upstream>),
    Host(Arc<Host>),
}

/// The list of upstreams of one `forward`.
pub struct Roster {
    sources: Vec<Source>,
    current: ArcSwap<Vec<Arc<Upstream>>>,
    /// The same list for `loop`, which probes it and marks those that lead back to us.
    listing: Listing,
    settings: Settings,
    registry: Registry,
    sockets: Arc<SocketBudget>,
    resolvers: Vec<SocketAddr>,
    files: ReadFile,
    /// True once every host name was looked up, with success or without.
    is_settled: watch::Sender<bool>,
    why_empty: RosterError,
}

impl Roster {
    pub fn new(config: &Config, settings: Settings, context: &BuildContext<'_>) -> Self {
        let (registry, carry) = (&context.services.registry, &context.services.carry);
        let sockets = SocketBudget::shared(carry, registry);
        let adopt = |address: &SocketAddr| Upstream::adopt_or_new(*address, &settings, registry, carry, &sockets);
        let resolvers = config.options.resolvers.clone();
        let mut sources = Vec::new();
        let mut why_empty = RosterError::Empty;
        for target in &config.targets {
            match target {
                Target::Address(address) => sources.push(Source::Fixed(adopt(address))),
                Target::File { path, addresses } => {
                    why_empty = RosterError::EmptyFile(path.clone());
                    sources.extend(addresses.iter().map(adopt).map(Source::Fixed));
                }
                Target::Host { name, port } => {
                    why_empty = RosterError::Unresolved(name.to_string());
                    let key = format!("forward host {name}:{port} {resolvers:?} {settings:?}");
                    let new = || Host { name: name.clone(), port: *port, upstreams: ArcSwap::default() };
                    sources.push(Source::Host(carry.adopt_or(&key, new)));
                }
            }
        }
        let has_hosts = sources.iter().any(|source| matches!(source, Source::Host(_)));
        let roster = Self {
            sources,
            current: ArcSwap::default(),
            listing: Listing::new(Upstreams::of(context), config.from.clone()),
            registry: registry.clone(),
            sockets: sockets.clone(),
            settings,
            resolvers,
            files: context.services.files.clone(),
            is_settled: watch::Sender::new(!has_hosts),
            why_empty,
        };
        roster.compile();
        roster
    }

    /// The upstreams to ask, never none, and none that leads back to us. Right after the start it waits, until `deadline` at most, for
    /// host names to be resolved.
    pub async fn upstreams(&self, deadline: Instant) -> Result<Arc<Vec<Arc<Upstream>>>, RosterError> {
        let mut upstreams = self.current.load_full();
        if upstreams.is_empty() {
            let mut settled = self.is_settled.subscribe();
            if !*settled.borrow_and_update() {
                let _ = tokio::time::timeout_at(deadline.into(), settled.changed()).await;
                upstreams = self.current.load_full();
            }
        }
        if upstreams.is_empty() {
            return Err(self.why_empty.clone());
        }
        let looping = self.listing.looping();
        if !looping.is_empty() {
            let is_usable = |upstream: &&Arc<Upstream>| !looping.contains(&upstream.address);
            upstreams = Arc::new(upstreams.iter().filter(is_usable).cloned().collect());
        }
        if upstreams.is_empty() { Err(RosterError::Looping) } else { Ok(upstreams) }
    }

    pub fn has_hosts(&self) -> bool {
        self.sources.iter().any(|source| matches!(source, Source::Host(_)))
    }

    /// Puts the sources together in the order of the Corefile, each address once.
    fn compile(&self) {
        let mut list: Vec<Arc<Upstream>> = Vec::new();
        let mut push = |upstream: &Arc<Upstream>| {
            if list.iter().all(|present| present.address != upstream.address) {
                list.push(upstream.clone());
            }
        };
        for source in &self.sources {
            match source {
                Source::Fixed(upstream) => push(upstream),
                Source::Host(host) => host.upstreams.load().iter().for_each(&mut push),
            }
        }
        let transport = if self.settings.probe_tcp { Transport::Tcp } else { Transport::Udp };
        self.listing.set(list.iter().map(|upstream| (upstream.address, ask_of(upstream.clone(), transport))));
        self.current.store(Arc::new(list));
    }

    /// Keeps the host names resolved; never ends. A name that cannot be resolved keeps the addresses it had.
    pub async fn keep_resolved(self: Arc<Self>) {
        let lookups = self.sources.iter().filter_map(|source| match source {
            Source::Fixed(_) => None,
            Source::Host(host) => Some(host),
        });
        let hosts: Vec<_> = lookups.cloned().collect();
        let first = hosts.iter().map(|host| self.refresh(host));
        let mut schedule: Vec<_> =
            futures_util::future::join_all(first).await.into_iter().map(|valid| Schedule::new(valid, Instant::now())).collect();
        self.is_settled.send_replace(true);
        while let Some(next) = schedule.iter().map(|schedule| schedule.due).min() {
            tokio::time::sleep_until(next.into()).await;
            for (host, schedule) in hosts.iter().zip(&mut schedule) {
                if schedule.due <= Instant::now() {
                    let valid = self.refresh(host).await;
                    schedule.advance(valid, Instant::now());
                }
            }
        }
    }

    /// Looks one host up; returns how long its addresses are valid, `None` if that failed.
    async fn refresh(&self, host: &Host) -> Option<Duration> {
        let (addresses, valid) = match look_up(&host.name, &self.resolvers, &self.files).await {
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
                None => Arc::new(Upstream::new(address, self.settings.clone(), &self.registry, self.sockets.clone())),
            })
            .collect();
        host.upstreams.store(Arc::new(upstreams));
        self.compile();
        Some(valid)
    }
}

/// How `loop` asks an upstream: alone, whatever else is in flight and however healthy it is.
fn ask_of(upstream: Arc<Upstream>, transport: Transport) -> Ask {
    Box::new(move |query| {
        let upstream = upstream.clone();
        Box::pin(async move {
            let Some(asked) = Asked::from_wire(query) else { return false };
            matches!(upstream.ask(&Arc::new(asked), transport).await, Ok(_) | Err(TryError::NoQuestion(_)))
        })
    })
}

/// When a host is looked up next.
#[derive(Debug, PartialEq, Eq)]
struct Schedule {
    due: Instant,
    retry: Duration,
}

impl Schedule {
    fn new(valid: Option<Duration>, now: Instant) -> Self {
        let mut schedule = Self { due: now, retry: FIRST_RETRY };
        schedule.advance(valid, now);
        schedule
    }

    fn advance(&mut self, valid: Option<Duration>, now: Instant) {
        match valid {
            Some(valid) => {
                self.due = now + valid.clamp(SHORTEST_REFRESH, LONGEST_REFRESH);
                self.retry = FIRST_RETRY;
            }
            None => {
                self.due = now + self.retry;
                self.retry = (self.retry * 2).min(LONGEST_RETRY);
            }
        }
    }
}

/// A thread that reads the machine's files.
struct Reader;

impl Reader {
    /// None if too many of them hang.
    fn new() -> Option<Self> {
        let may_read = |readers: usize| (readers < MOST_READERS).then_some(readers + 1);
        READERS.fetch_update(Ordering::Relaxed, Ordering::Relaxed, may_read).is_ok().then_some(Self)
    }
}

impl Drop for Reader {
    fn drop(&mut self) {
        READERS.fetch_sub(1, Ordering::Relaxed);
    }
}

/// Who asks `resolvers`, or those of /etc/resolv.conf if there are none, and looks into /etc/hosts. Read on a thread of its own, since their file system
/// may hang.
async fn resolver(resolvers: &[SocketAddr], files: &ReadFile) -> Result<TokioResolver, NetError> {
    let late = || deadline::late(FILES_LIMIT);
    let reader = Reader::new().ok_or_else(late)?;
    let (resolvers, files, runtime) = (resolvers.to_vec(), files.clone(), Handle::current());
    let made = deadline::begin(move || {
        let _entered = runtime.enter();
        let made = make_resolver(&resolvers, &files);
        drop(reader);
        made
    })?;
    match timeout(FILES_LIMIT, made).await {
        Ok(made) => made.unwrap_or_else(|_panicked| Err(io::Error::other("it ended before its time: please report this").into())),
        Err(_) => Err(late().into()),
    }
}

fn make_resolver(resolvers: &[SocketAddr], files: &ReadFile) -> Result<TokioResolver, NetError> {
    let (config, mut options) = if resolvers.is_empty() {
        // Read each time, since the file may have changed.
        parse_resolv_conf(files(Path::new(RESOLV_CONF))?)?
    } else {
        let servers = resolvers.iter().map(|address| {
            let connections = [ConnectionConfig::udp(), ConnectionConfig::tcp()].map(|mut connection| {
                connection.port = address.port();
                connection
            });
            NameServerConfig::new(address.ip(), true, connections.into())
        });
        (ResolverConfig::from_parts(None, Vec::new(), servers.collect()), ResolverOpts::default())
    };
    options.ip_strategy = hickory_resolver::config::LookupIpStrategy::Ipv4AndIpv6;
    // Each lookup is to see what is so now.
    options.cache_size = 0;
    options.use_hosts_file = ResolveHosts::Never;
    let mut resolver =
        TokioResolver::builder_with_config(config, TokioRuntimeProvider::default()).with_options(options).build()?;
    let mut hosts = Hosts::default();
    // Without it names are asked for all the same, as resolvers do.
    if let Ok(text) = files(Path::new(HOSTS)) {
        hosts.read_hosts_conf(text.as_bytes())?;
    }
    resolver.set_hosts(Arc::new(hosts));
    Ok(resolver)
}

/// Addresses of a host and how long they are valid. Asks `resolvers`, or those of /etc/resolv.conf if there are none.
async fn look_up(name: &Name, resolvers: &[SocketAddr], files: &ReadFile) -> Result<(Vec<IpAddr>, Duration), NetError> {
    let resolver = resolver(resolvers, files).await?;
    let text = name.to_string();
    // With resolv.conf its search list applies, unless the name is written with its final dot there; ours always prints one.
    let text = if resolvers.is_empty() { text.trim_end_matches('.') } else { &text };
    let found = resolver.lookup_ip(text).await?;
    let valid = found.valid_until().saturating_duration_since(Instant::now());
    let mut addresses: Vec<IpAddr> = found.iter().take(ADDRESS_LIMIT).collect();
    addresses.sort_unstable();
    addresses.dedup();
    Ok((addresses, valid))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_host_is_looked_up_again_when_its_ttl_is_over_but_neither_at_once_nor_never() {
        let now = Instant::now();
        let due = |valid| Schedule::new(Some(Duration::from_secs(valid)), now).due - now;
        assert_eq!(due(0), SHORTEST_REFRESH);
        assert_eq!(due(60), Duration::from_secs(60));
        assert_eq!(due(86400), LONGEST_REFRESH);
    }

    #[test]
    fn a_host_that_cannot_be_resolved_is_tried_less_and_less_often() {
        let now = Instant::now();
        let mut schedule = Schedule::new(None, now);
        let mut pauses = vec![schedule.due - now];
        for _ in 0..6 {
            schedule.advance(None, now);
            pauses.push(schedule.due - now);
        }
        assert_eq!(pauses.iter().map(Duration::as_secs).collect::<Vec<_>>(), [1, 2, 4, 8, 16, 30, 30]);
        schedule.advance(Some(Duration::from_secs(60)), now);
        schedule.advance(None, now);
        assert_eq!(schedule.due - now, FIRST_RETRY);
    }
}
