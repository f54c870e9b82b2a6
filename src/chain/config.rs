//! How a directive is configured and built. A directive's `parse` reads its lines into a [`BlockConfig`]: settings of
//! the block, and parts. A part, [`Configured`], is a plain value; [`Configured::build`] makes the running thing of it.

use super::{Arranger, BlockMetadata, Endpoint, Handler, Observer, ProcessContext, Tracer, UpstreamObserver, View};
use crate::corefile::{Diagnostics, Directive, Loader, Span};
use crate::fairness::Fairness;
use crate::go_regex::Patterns;
use crate::message::{Name, PrefixLimits};
use crate::net::tls::ServerTls;
use futures_util::future::BoxFuture;
use std::any::Any;
use std::net::{IpAddr, Ipv6Addr, SocketAddr, SocketAddrV6};
use std::num::NonZeroU32;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

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

/// What a directive is built with.
pub struct BuildContext<'a> {
    /// All zones of the server block, lower-cased; [`super::Request::zone`] indexes it.
    pub block_zones: &'a [Name],
    /// Labels of the listen addresses the block serves on, such as `dns://127.0.0.1:53`;
    /// [`super::Request::server_index`] indexes it.
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
