//! How a directive is configured and built. A directive's `parse` reads its lines into a [`BlockConfig`]: settings of
//! the block, and parts. A part, [`Configured`], is a plain value; [`Configured::build`] makes the running thing of it.

use super::{
    Arranger, AtStop, BlockMetadata, DataFiles, Handler, Observer, ReloadState, Tracer, UpstreamObserver, View,
};
use crate::corefile::{
    DataFile, Diagnostics, Directive, FileStamp, Loader, SocketRole, Span, read_data_file, unix_socket,
};
use crate::fairness::{Fairness, SharedFairness};
use crate::go_regex::Patterns;
use crate::message::{Name, PrefixLimits};
use crate::metrics::{CONTENT_TYPE, Counter, Registry, union};
use crate::net::tls::ServerTls;
use futures_util::future::BoxFuture;
use std::any::Any;
use std::io;
use std::net::{IpAddr, Ipv6Addr, SocketAddr, SocketAddrV6};
use std::num::NonZeroU32;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;
use tokio::sync::Notify;

/// The network interfaces of this machine, asked by `bind`.
pub trait Interfaces {
    /// Addresses of the interface; `None` if there is none of that name.
    fn addresses(&self, name: &str) -> Option<Vec<IpAddr>>;
    /// The interface's index, the zone of its link-local addresses (RFC 4007 section 6); `None` if there is none of
    /// that name.
    fn index(&self, name: &str) -> Option<u32> {
        let _ = name;
        None
    }
}

/// Files and interfaces a directive may ask while it is parsed.
#[derive(Clone, Copy)]
pub struct Loaders<'a> {
    /// Where files are read, `import` and data files alike.
    pub files: &'a dyn Loader,
    /// The machine's network interfaces.
    pub interfaces: &'a dyn Interfaces,
}

/// Reads one occurrence of a directive into its block, and reports everything that is wrong with it.
pub(crate) type Parse = fn(&Directive, &mut BlockConfig, &mut ParseContext<'_>);

/// What a directive's `parse` is given beside its lines.
pub struct ParseContext<'a> {
    pub diagnostics: &'a mut Diagnostics,
    pub loaders: Loaders<'a>,
    /// Zones of the server block, in the order of its keys.
    pub zones: &'a [Name],
    /// The patterns of the whole Corefile.
    pub patterns: &'a Patterns,
}

/// A server block as configured.
#[derive(Default)]
pub struct BlockConfig {
    /// Addresses of `bind`, interfaces resolved and exceptions taken out. `None`: no `bind`, so the unspecified
    /// address.
    pub bind: Option<Vec<IpAddr>>,
    /// Interface indices of the link-local addresses among `bind`; [`BlockConfig::listen_addresses`] joins the two.
    pub bind_scopes: Vec<(Ipv6Addr, u32)>,
    /// `root`: the folder in which directives look for files that are named without one.
    pub root: Option<PathBuf>,
    /// `metadata`: below these names directives set labels for each other; `None`: nowhere.
    pub metadata: Option<Vec<Name>>,
    /// `view`: which queries the block takes; `None`: every one.
    pub view: Option<View>,
    pub udp_cap: Option<u16>,
    /// `client_subnet`: how much of clients' subnets goes upstream; `None`: nothing.
    pub client_subnet: Option<PrefixLimits>,
    /// `nsid`: this server's name, for clients that ask for it; `None`: it is not told.
    pub nsid: Option<Arc<[u8]>>,
    pub timeouts: Timeouts,
    /// `tls`: how its listeners for `tls://` and `https://` speak TLS, and where that stands; `None`: not at all.
    pub tls: Option<(ServerTls, Span)>,
    /// `https`: connections at a time to each of its listeners for `https://`, 0 for no bound but that of all, and
    /// where that stands; `None` without the option.
    pub https_connections: Option<(usize, Span)>,
    pub reload: Option<ReloadConfig>,
    /// `fairness`, of the whole process, and where it stands.
    pub fairness: Option<(Fairness, Span)>,
    /// `health`'s lameduck: how long to serve on after SIGTERM.
    pub lameduck: Duration,
    /// `debug`: log at debug level.
    pub debug: bool,
    /// `errors`'s stacktrace: a panic's log line carries a backtrace.
    pub stacktrace: bool,
    /// In the order of the file; the plan sorts them into the fixed order.
    pub parts: Vec<Part>,
}

impl BlockConfig {
    /// The addresses of `bind` with `port`, link-local ones with their zone; `None` without `bind`.
    pub fn listen_addresses(&self, port: u16) -> Option<Vec<SocketAddr>> {
        let join = |address: &IpAddr| match *address {
            IpAddr::V4(address) => vec![SocketAddr::new(address.into(), port)],
            IpAddr::V6(address) => {
                // The same link-local address may stand on several interfaces.
                let scopes = self.bind_scopes.iter().filter(|(bound, _)| *bound == address).map(|(_, index)| *index);
                let mut scopes: Vec<u32> = scopes.collect();
                if scopes.is_empty() {
                    scopes.push(0);
                }
                scopes.into_iter().map(|index| SocketAddrV6::new(address, port, 0, index).into()).collect()
            }
        };
        self.bind.as_ref().map(|addresses| addresses.iter().flat_map(join).collect())
    }
}

/// Timeouts of TCP connections from clients (`timeouts`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Timeouts {
    /// For the rest of a message once its first octet is there.
    pub read: Duration,
    /// For an answer to be taken by the client.
    pub write: Duration,
    /// Between messages.
    pub idle: Duration,
    /// How many queries are answered before it is closed; `None`: any number.
    pub max_queries: Option<NonZeroU32>,
}

impl Default for Timeouts {
    /// The reference's: core/dnsserver of CoreDNS.
    fn default() -> Self {
        Self {
            read: Duration::from_secs(3),
            write: Duration::from_secs(5),
            idle: Duration::from_secs(10),
            max_queries: None,
        }
    }
}

/// `reload INTERVAL JITTER`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ReloadConfig {
    /// Zero: no polling.
    pub interval: Duration,
    pub jitter: Duration,
}

/// A configured directive and where it stands.
pub struct Part {
    pub keyword: &'static str,
    pub span: Span,
    pub configured: Box<dyn Configured>,
}

/// A directive as configured. `Any`, so that a directive that repeats can find and extend the part its first occurrence
/// made.
pub trait Configured: Any + Send + Sync {
    /// Makes the running thing, once for a server block: its keys share it, as in the reference. Must not touch the
    /// network; what runs on its own goes into [`Built::background`].
    fn build(&self, context: &BuildContext<'_>) -> Result<Built, BuildError>;
}

/// Why a directive could not be built: what failed, on what, and what to do.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub struct BuildError(pub String);

/// What a directive brings into a plan.
#[derive(Default)]
pub struct Built {
    pub handler: Option<Arc<dyn Handler>>,
    pub observer: Option<Arc<dyn Observer>>,
    pub arranger: Option<Arc<dyn Arranger>>,
    /// Who sees what the block's directives ask upstreams.
    pub upstream_observer: Option<Arc<dyn UpstreamObserver>>,
    /// Who chooses queries to be traced.
    pub tracer: Option<Arc<dyn Tracer>>,
    /// Who sees the exchanges that no block of a listener takes: one for each of [`BuildContext::servers`], or none.
    /// With them the block's plugins are shown as enabled.
    pub unmatched: Vec<Arc<dyn Observer>>,
    /// Runs on the control thread from the moment the plan serves until it is replaced.
    pub background: Vec<BoxFuture<'static, ()>>,
    pub endpoints: Vec<Endpoint>,
}

/// A directive that stands in a server block's chain, in a block whose queries are counted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Enabled {
    /// Label of the listen address.
    pub server: String,
    pub zone: String,
    /// Name of the block's view; empty without one.
    pub view: String,
    pub keyword: &'static str,
}

/// An HTTP path served on an address. The same address and path asked by several blocks is one endpoint.
#[derive(Clone)]
pub struct Endpoint {
    /// Where it listens.
    pub address: SocketAddr,
    /// The path of the URL, such as `/health`.
    pub path: &'static str,
    /// Who makes the answers.
    pub answers: HttpAnswers,
    /// With it the address is served over TLS, whatever else stands there.
    pub tls: Option<ServerTls>,
}

impl Endpoint {
    /// One whose answers are [`HttpAnswers::Shared`] and made at once.
    pub fn shared(
        address: SocketAddr,
        path: &'static str,
        answer: impl Fn() -> HttpAnswer + Send + Sync + 'static,
    ) -> Self {
        let at_once = move || -> BoxFuture<'static, HttpAnswer> { Box::pin(std::future::ready(answer())) };
        Self { address, path, answers: HttpAnswers::Shared(Arc::new(at_once)), tls: None }
    }
    /// `/metrics`: what `registry` has, and what the other process of this program counts if it says so.
    pub fn metrics(address: SocketAddr, registry: Registry, other: Option<AskMetrics>) -> Self {
        let answer = move || -> BoxFuture<'static, HttpAnswer> {
            let (registry, asked) = (registry.clone(), other.as_ref().map(|ask| ask()));
            Box::pin(async move {
                let theirs = match asked {
                    Some(asked) => asked.await,
                    None => None,
                };
                let own = registry.encode();
                let body = theirs.and_then(|theirs| union(&own, &theirs)).unwrap_or(own).into_bytes();
                HttpAnswer { status: 200, content_type: CONTENT_TYPE, body }
            })
        };
        Self { address, path: "/metrics", answers: HttpAnswers::Shared(Arc::new(answer)), tls: None }
    }
    /// One whose answers are [`HttpAnswers::ForEach`].
    pub fn for_each(
        address: SocketAddr,
        path: &'static str,
        answer: impl Fn(&str) -> BoxFuture<'static, HttpAnswer> + Send + Sync + 'static,
    ) -> Self {
        Self { address, path, answers: HttpAnswers::ForEach(Arc::new(answer)), tls: None }
    }
    /// The same over TLS, if that is given.
    pub fn over(self, tls: Option<ServerTls>) -> Self {
        Self { tls, ..self }
    }
}

/// How an endpoint's answers are made.
#[derive(Clone)]
pub enum HttpAnswers {
    /// One for all who ask while it may not be made yet. It is compressed for those who take that. It may wait for
    /// somebody for a bounded time, in which none is made for others.
    Shared(AnswerAll),
    /// One for each request, from the query of its URI (RFC 3986 section 3.4; empty if there is none). It may take
    /// time, and is dropped when its client goes. Whoever gives it bounds how much is made for all who ask.
    ForEach(AnswerEach),
}

/// Makes an answer for all who ask.
pub(crate) type AnswerAll = Arc<dyn Fn() -> BoxFuture<'static, HttpAnswer> + Send + Sync>;

/// Makes an answer from a request's query.
pub(crate) type AnswerEach = Arc<dyn Fn(&str) -> BoxFuture<'static, HttpAnswer> + Send + Sync>;

/// An HTTP answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HttpAnswer {
    /// The HTTP status code.
    pub status: u16,
    /// The value of Content-Type.
    pub content_type: &'static str,
    /// What follows the headers.
    pub body: Vec<u8>,
}

impl HttpAnswer {
    /// Plain text.
    pub fn text(status: u16, text: impl Into<Vec<u8>>) -> Self {
        Self { status, content_type: "text/plain; charset=utf-8", body: text.into() }
    }
}

/// What a directive is built with.
pub struct BuildContext<'a> {
    /// All zones of the server block, lower-cased; [`super::Request::zone`] indexes it.
    pub block_zones: &'a [Name],
    /// Labels of the listen addresses the block serves on, such as `dns://127.0.0.1:53`; [`super::Request::server`]
    /// indexes it.
    pub servers: &'a [String],
    /// What the block's answers come from: the text of the directives that stand behind `cache`. A cache is kept over a
    /// reload only while this is the same.
    pub answer_sources: &'a str,
    /// Who sees what is asked upstreams: those of the directives before.
    pub upstream_observers: &'a [Arc<dyn UpstreamObserver>],
    /// The block's view, if it has one.
    pub view: Option<&'a View>,
    /// The labels that the block's directives set.
    pub metadata: BlockMetadata,
    pub process: &'a ProcessContext,
}

impl<'a> BuildContext<'a> {
    /// For a server block whose answers come from nowhere.
    pub fn new(block_zones: &'a [Name], servers: &'a [String], process: &'a ProcessContext) -> Self {
        Self {
            block_zones,
            servers,
            answer_sources: "",
            upstream_observers: &[],
            view: None,
            metadata: BlockMetadata::default(),
            process,
        }
    }
    /// The `view` label of metrics: empty for a block without one.
    pub fn view_name(&self) -> &'a str {
        self.view.map_or("", |view| &*view.name)
    }
    /// The zone of the block's first key.
    pub fn zone(&self) -> Name {
        self.block_zones.first().cloned().unwrap_or_else(Name::root)
    }
}

/// What all plans of a process share.
pub struct ProcessContext {
    /// Where counters, gauges and histograms come from.
    pub registry: Registry,
    /// Panics that were caught while a query was answered.
    pub panics: Counter,
    /// What a directive keeps over a reload.
    pub reload_state: Arc<ReloadState>,
    /// Whether the process starts, serves or ends.
    pub lifecycle: Lifecycle,
    /// How many octets all caches may take together.
    pub cache_memory: Arc<MemoryBudget>,
    /// Workers that serve.
    pub workers: usize,
    /// Who counts as one client where something is full.
    pub fairness: Arc<SharedFairness>,
    /// What this process answers the watchdog's probes with; `None` where no watchdog asks.
    pub generation: Option<u64>,
    /// How `/etc/resolv.conf` and `/etc/hosts` are read, which may take as long as a file system does.
    pub files: ReadFile,
    /// How files of data are read that directives have asked their [`Loaders`] for and read again while they serve.
    pub data_files: DataFiles,
    /// How sockets with a path are had that directives have named to their [`Loaders`].
    pub unix_sockets: UnixSockets,
    /// What is still to be written when the process ends.
    pub at_stop: AtStop,
    /// How the other process of this program is asked for its metrics; `None` where there is no other.
    pub other_metrics: Option<AskMetrics>,
}

/// Asks the other process of this program for its metrics in text format; `None` if it does not say, or not in time.
pub(crate) type AskMetrics = Arc<dyn Fn() -> BoxFuture<'static, Option<String>> + Send + Sync>;

pub(crate) use crate::net::ReadFile;

/// Gives a stream socket that is connected to one with this path, or that listens there. It may take as long as a file
/// system does.
pub(crate) type UnixSockets = Arc<dyn Fn(&Path, SocketRole) -> io::Result<OwnedFd> + Send + Sync>;

/// Gives what a file of data holds, unless it still has this stamp. It may take as long as a file system does.
pub(crate) type ReadDataFile = Arc<dyn Fn(&Path, Option<FileStamp>) -> io::Result<Option<DataFile>> + Send + Sync>;

impl ProcessContext {
    /// For a process with this many workers, whose caches may together hold this many octets.
    pub fn new(workers: usize, cache_octets: usize) -> Self {
        let registry = Registry::new(workers + 1);
        Self {
            panics: registry.counter(
                "coredns_panics_total",
                "Panics that were caught while a query was answered.",
                &[],
            ),
            registry,
            reload_state: Arc::default(),
            lifecycle: Lifecycle::default(),
            cache_memory: Arc::new(MemoryBudget::new(cache_octets)),
            workers,
            fairness: Arc::default(),
            generation: None,
            files: Arc::new(|path: &Path| std::fs::read_to_string(path)),
            data_files: DataFiles::new(Arc::new(read_data_file)),
            unix_sockets: Arc::new(unix_socket),
            at_stop: AtStop::default(),
            other_metrics: None,
        }
    }
}

/// Where the process stands. Cloning shares it.
#[derive(Clone, Default)]
pub struct Lifecycle(Arc<Stages>);

#[derive(Default)]
struct Stages {
    serving: AtomicBool,
    stopping: AtomicBool,
}

impl Lifecycle {
    /// All sockets of a plan are served.
    pub fn set_serving(&self) {
        self.0.serving.store(true, Ordering::Release);
    }
    /// SIGTERM has come.
    pub fn set_stopping(&self) {
        self.0.stopping.store(true, Ordering::Release);
    }
    pub fn is_serving(&self) -> bool {
        self.0.serving.load(Ordering::Acquire) && !self.is_stopping()
    }
    pub fn is_stopping(&self) -> bool {
        self.0.stopping.load(Ordering::Acquire)
    }
}

/// Octets that all caches together may hold.
pub struct MemoryBudget {
    limit: AtomicUsize,
    largest_limit: usize,
    used: AtomicUsize,
    /// Of `used`, what [`MemoryBudget::take_part`] has taken.
    in_part: AtomicUsize,
    lowered: Notify,
}

impl MemoryBudget {
    pub fn new(limit: usize) -> Self {
        let (used, in_part) = (AtomicUsize::new(0), AtomicUsize::new(0));
        Self { limit: AtomicUsize::new(limit), largest_limit: limit, used, in_part, lowered: Notify::new() }
    }
    pub fn limit(&self) -> usize {
        self.limit.load(Ordering::Relaxed)
    }
    /// The limit that it was made with, whatever it is now.
    pub fn largest_limit(&self) -> usize {
        self.largest_limit
    }
    pub fn used(&self) -> usize {
        self.used.load(Ordering::Relaxed)
    }
    /// Sets another limit. If more is used than that, whoever waits in [`MemoryBudget::exceeded`] is told.
    pub fn set_limit(&self, limit: usize) {
        self.limit.store(limit, Ordering::Relaxed);
        if self.used() > limit {
            self.lowered.notify_waiters();
        }
    }
    /// Resolves when the limit was lowered below what is used.
    pub async fn exceeded(&self) {
        self.lowered.notified().await;
    }
    /// Takes `octets` if they are free.
    pub fn take(&self, octets: usize) -> bool {
        let limit = self.limit();
        self.used
            .fetch_update(Ordering::Relaxed, Ordering::Relaxed, |used| {
                used.checked_add(octets).filter(|sum| *sum <= limit)
            })
            .is_ok()
    }
    pub fn release(&self, octets: usize) {
        self.used.fetch_sub(octets, Ordering::Relaxed);
    }
    /// Takes `octets` if they are free and all that is taken this way stays below one part in `parts` of the limit.
    pub fn take_part(&self, octets: usize, parts: usize) -> bool {
        let most = self.limit() / parts;
        let fits = |taken: usize| taken.checked_add(octets).filter(|sum| *sum <= most);
        if self.in_part.fetch_update(Ordering::Relaxed, Ordering::Relaxed, fits).is_err() {
            return false;
        }
        let is_taken = self.take(octets);
        if !is_taken {
            self.in_part.fetch_sub(octets, Ordering::Relaxed);
        }
        is_taken
    }
    /// Gives back what [`MemoryBudget::take_part`] took.
    pub fn release_part(&self, octets: usize) {
        self.in_part.fetch_sub(octets, Ordering::Relaxed);
        self.release(octets);
    }
}
