//! Looks up host names that a configuration names, and says when to do so again.

use crate::backoff::Backoff;
use crate::deadline;
use crate::message::Name;
use hickory_resolver::config::{
    ConnectionConfig, LookupIpStrategy, NameServerConfig, ResolveHosts, ResolverConfig, ResolverOpts,
};
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
use tokio::time::timeout;

/// A host name is looked up again when its TTL is over, but within these bounds.
const SHORTEST_REFRESH: Duration = Duration::from_secs(5);
const LONGEST_REFRESH: Duration = Duration::from_secs(300);
/// The pause after a failed lookup doubles from here to [`LONGEST_RETRY`].
const FIRST_RETRY: Duration = Duration::from_secs(1);
const LONGEST_RETRY: Duration = Duration::from_secs(30);
const RESOLV_CONF: &str = "/etc/resolv.conf";
const HOSTS: &str = "/etc/hosts";
/// How long reading these two files may take.
const FILES_TIMEOUT: Duration = Duration::from_secs(5);
/// Threads that may hang in reading them.
const MAX_READER_THREADS: usize = 4;
static READER_THREADS: AtomicUsize = AtomicUsize::new(0);
/// Addresses of one host that are used.
const MAX_ADDRESSES: usize = 32;

/// Gives the text of a file.
pub(crate) type ReadFile = Arc<dyn Fn(&Path) -> io::Result<String> + Send + Sync>;

/// How host names are looked up.
pub(crate) struct HostLookup {
    /// The servers to ask. If there are none, the nameservers and the search list of /etc/resolv.conf are used.
    pub resolvers: Vec<SocketAddr>,
    pub files: ReadFile,
}

impl HostLookup {
    /// The addresses of a host and how long they are valid.
    pub(crate) async fn addresses_of(&self, name: &Name) -> Result<(Vec<IpAddr>, Duration), NetError> {
        let resolver = self.resolver().await?;
        let text = name.to_string();
        // The search list of resolv.conf applies to names without a final dot, and a printed name always has one.
        let text = if self.resolvers.is_empty() { text.trim_end_matches('.') } else { &text };
        let found = resolver.lookup_ip(text).await?;
        let valid = found.valid_until().saturating_duration_since(Instant::now());
        let mut addresses: Vec<IpAddr> = found.iter().take(MAX_ADDRESSES).collect();
        addresses.sort_unstable();
        addresses.dedup();
        Ok((addresses, valid))
    }

    /// Reads the files on a thread of its own, because their file system may hang.
    async fn resolver(&self) -> Result<TokioResolver, NetError> {
        let late = || deadline::late(FILES_TIMEOUT);
        let slot = ReaderSlot::acquire().ok_or_else(late)?;
        let (resolvers, files, runtime) = (self.resolvers.clone(), self.files.clone(), Handle::current());
        let built = deadline::begin(move || {
            let _entered = runtime.enter();
            let built = build_resolver(&resolvers, &files);
            drop(slot);
            built
        })?;
        match timeout(FILES_TIMEOUT, built).await {
            Ok(built) => built.unwrap_or_else(|_panicked| {
                Err(io::Error::other("it ended before its time: please report this").into())
            }),
            Err(_) => Err(late().into()),
        }
    }
}

/// One of [`MAX_READER_THREADS`].
struct ReaderSlot;

impl ReaderSlot {
    fn acquire() -> Option<Self> {
        let may_start = |threads: usize| (threads < MAX_READER_THREADS).then_some(threads + 1);
        READER_THREADS.fetch_update(Ordering::Relaxed, Ordering::Relaxed, may_start).is_ok().then_some(Self)
    }
}

impl Drop for ReaderSlot {
    fn drop(&mut self) {
        READER_THREADS.fetch_sub(1, Ordering::Relaxed);
    }
}

fn build_resolver(resolvers: &[SocketAddr], files: &ReadFile) -> Result<TokioResolver, NetError> {
    let (config, mut options) = if resolvers.is_empty() {
        // Read each time, because the file may have changed.
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
    options.ip_strategy = LookupIpStrategy::Ipv4AndIpv6;
    // A lookup asks for the addresses of now.
    options.cache_size = 0;
    options.use_hosts_file = ResolveHosts::Never;
    let mut resolver =
        TokioResolver::builder_with_config(config, TokioRuntimeProvider::default()).with_options(options).build()?;
    let mut hosts = Hosts::default();
    // As in other resolvers, names are looked up even if the file cannot be read.
    if let Ok(text) = files(Path::new(HOSTS)) {
        hosts.read_hosts_conf(text.as_bytes())?;
    }
    resolver.set_hosts(Arc::new(hosts));
    Ok(resolver)
}

/// When a host is looked up next.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct RefreshTimer {
    due: Instant,
    /// The pauses after failed lookups.
    retry: Backoff,
}

impl RefreshTimer {
    /// After a lookup whose addresses are valid for this time, or that failed.
    pub(crate) fn new(valid: Option<Duration>, now: Instant) -> Self {
        let mut timer = Self { due: now, retry: Backoff::new(FIRST_RETRY, LONGEST_RETRY) };
        timer.restart(valid, now);
        timer
    }

    pub(crate) fn due(&self) -> Instant {
        self.due
    }

    /// As [`RefreshTimer::new`], but repeated failures double the pause.
    pub(crate) fn restart(&mut self, valid: Option<Duration>, now: Instant) {
        match valid {
            Some(valid) => {
                self.due = now + valid.clamp(SHORTEST_REFRESH, LONGEST_REFRESH);
                self.retry.reset();
            }
            None => self.due = now + self.retry.next_pause(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_host_is_looked_up_again_when_its_ttl_is_over_but_neither_at_once_nor_never() {
        let now = Instant::now();
        let pause = |valid| RefreshTimer::new(Some(Duration::from_secs(valid)), now).due() - now;
        assert_eq!(pause(0), SHORTEST_REFRESH);
        assert_eq!(pause(60), Duration::from_secs(60));
        assert_eq!(pause(86400), LONGEST_REFRESH);
    }

    #[test]
    fn a_host_that_cannot_be_resolved_is_tried_less_and_less_often() {
        let now = Instant::now();
        let mut timer = RefreshTimer::new(None, now);
        let mut pauses = vec![timer.due() - now];
        for _ in 0..6 {
            timer.restart(None, now);
            pauses.push(timer.due() - now);
        }
        assert_eq!(pauses.iter().map(Duration::as_secs).collect::<Vec<_>>(), [1, 2, 4, 8, 16, 30, 30]);
        timer.restart(Some(Duration::from_secs(60)), now);
        timer.restart(None, now);
        assert_eq!(timer.due() - now, FIRST_RETRY);
    }
}
