//! The immutable plan that serves: listeners, the zones on each, their chains. [`configure()`] reads a tree into a
//! [`PlanConfig`] and collects every error; [`PlanConfig::build`] makes the [`Plan`]; [`Listener::dispatch`] is the way
//! of a message through it.

mod ask;
mod build;
mod configure;
mod dispatch;
mod explain;
mod explain_report;
mod lookup;
mod near_zones;
mod packet_cache;
pub mod probe;
mod scheme;
mod tap;
#[cfg(test)]
mod tests;
mod zones;

pub(crate) use ask::ask;
pub(crate) use configure::PlanConfig;
pub use configure::configure;
pub use dispatch::Dispatch;
pub(crate) use dispatch::Pending;
pub(crate) use explain::{Asked, ExplainError, explain};
#[cfg(test)]
pub(crate) use explain_report::TimedStep;
pub(crate) use explain_report::{AskReport, ExplainReport, OutcomeKind, QuestionReport, StepReport};
pub use packet_cache::PacketCache;
pub(crate) use packet_cache::PacketHit;
pub(crate) use scheme::{ClientProtocol, Https, HttpsResponses};

use crate::chain::{
    AddressClasses, Arranger, BlockDirective, Chain, DirectiveRole, Enabled, Endpoint, Handler, Observer, QueryFilter,
    ReloadConfig, Timeouts, Tracer,
};
use crate::corefile::Span;
use crate::fairness::Fairness;
use crate::message::PrefixLimits;
use crate::metrics::Counter;
use crate::query_stats::QueryStats;
use crate::query_tap::QueryTaps;
use futures_util::future::BoxFuture;
use parking_lot::Mutex;
use std::fmt;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

/// The port of a key that names none (`-dns.port`).
pub const DEFAULT_PORT: u16 = 53;

/// Everything a Corefile asks for, ready to serve. Immutable: a changed Corefile makes a new one.
pub struct Plan {
    /// One for each distinct address and port.
    pub listeners: Vec<Arc<Listener>>,
    /// What is served over HTTP.
    pub endpoints: Vec<Endpoint>,
    /// How long to serve on after SIGTERM: the longest of the blocks' lameducks.
    pub lameduck: Duration,
    /// Whether and how often to look for a changed Corefile.
    pub reload: Option<ReloadConfig>,
    /// Who gives way when something is full.
    pub fairness: Fairness,
    /// One line for each zone and address, and what is spoken there.
    pub summary: Vec<String>,
    /// What `coredns_plugin_enabled` tells while this plan serves.
    pub enabled: Vec<Enabled>,
    background: Mutex<Vec<BoxFuture<'static, ()>>>,
}

impl Plan {
    /// Whether HTTP is served over TLS at an address: for all paths, where one of them asks for it.
    pub fn is_over_tls(&self, address: SocketAddr) -> bool {
        self.endpoints.iter().any(|endpoint| endpoint.address == address && endpoint.tls.is_some())
    }

    /// What the plan's directives do on their own; to be spawned when the plan starts to serve and stopped when it is
    /// replaced. Empty when called again.
    pub fn take_background(&self) -> Vec<BoxFuture<'static, ()>> {
        std::mem::take(&mut self.background.lock())
    }
}

/// An address and port, and the zones served there.
pub struct Listener {
    /// No other of this process has it, nor one of those after it, as many as there are classes of clients.
    number: u64,
    /// How the handlers tell clients apart; `None` if they do not.
    clients: Option<AddressClasses>,
    /// Where it listens.
    pub address: SocketAddr,
    /// What clients speak there.
    pub protocol: ClientProtocol,
    /// Of connections.
    pub timeouts: Timeouts,
    zones: zones::ZoneTable,
    /// Those of the Corefile, by [`crate::corefile::FileId`].
    files: Arc<[PathBuf]>,
    /// Classes other than IN are answered: a directive that knows about them is on this listener.
    any_class: bool,
    /// See requests that no zone matched.
    unmatched: Box<[Arc<dyn Observer>]>,
    panics: Counter,
    stats: Arc<QueryStats>,
    taps: Arc<QueryTaps>,
    /// What the watchdog's probes are answered with, if there is a watchdog.
    generation: Option<u64>,
}

/// A server block that serves.
struct Block {
    chain: Arc<Chain>,
    observers: Box<[Arc<dyn Observer>]>,
    /// Has the last word on the order of records.
    arranger: Option<Arc<dyn Arranger>>,
    udp_cap: Option<u16>,
    /// `None` where nothing of a client's EDNS options is heeded.
    options: Option<Box<HeededOptions>>,
    /// A handler answers the same question otherwise to another client, so replies are not for the packet cache, which
    /// knows no more of clients than their class.
    depends_on_client: bool,
    /// Directives say what they know of each request (`metadata`).
    has_metadata: bool,
    /// Chooses queries to be traced.
    tracer: Option<Arc<dyn Tracer>>,
    /// Which of its zones' queries the block takes; `None`: every one.
    filter: Option<Arc<dyn QueryFilter>>,
    /// Name of its view; empty without one.
    view: Box<str>,
    /// What is told of it in explanations.
    directives: Box<[BlockDirective]>,
}

impl fmt::Debug for Listener {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.address)
    }
}

impl Block {
    /// Of the handler at a place in its chain; empty if there is none.
    fn keyword(&self, handler: usize) -> &'static str {
        self.chain.handlers.get(handler).map_or("", |handler| handler.keyword())
    }

    /// One that has handlers and nothing else.
    fn of(handlers: Box<[Arc<dyn Handler>]>) -> Self {
        let directive = |(position, handler): (usize, &Arc<dyn Handler>)| BlockDirective {
            keyword: handler.keyword(),
            place: None,
            role: DirectiveRole::Handler(position),
        };
        let directives = handlers.iter().enumerate().map(directive).collect();
        Self {
            chain: Arc::new(Chain { handlers }),
            observers: Box::default(),
            arranger: None,
            udp_cap: None,
            options: None,
            depends_on_client: false,
            has_metadata: false,
            tracer: None,
            filter: None,
            view: Box::default(),
            directives,
        }
    }
}

/// What of clients' EDNS options a block heeds. Whoever sends one of them takes the slow path.
struct HeededOptions {
    client_subnet: Option<PrefixLimits>,
    /// This server's name.
    nsid: Option<Arc<[u8]>>,
}

/// A zone on a listener.
struct ZoneBinding {
    block: Arc<Block>,
    server: usize,
    zone: usize,
    /// Where the block's key stands; `None` in no Corefile.
    place: Option<Span>,
}

/// The block that takes a query.
#[derive(Clone, Copy)]
struct Choice<'l> {
    /// The site's place on its listener.
    index: usize,
    site: &'l ZoneBinding,
    /// Another client with the same query may be another block's.
    depends_on_client: bool,
}
