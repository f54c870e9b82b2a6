//! Builds the plan that serves from a checked configuration.

use super::configure::{BlockPlan, BlockZone};
use super::scheme::{ClientProtocol, Scheme};
use super::zones::ZoneTable;
use super::{Block, HeededOptions, Listener, Plan, PlanConfig, ZoneBinding};
use crate::chain::{
    AddressClasses, BlockConfig, BlockDirective, BlockMetadata, BuildContext, BuildError, Built, Chain, DirectiveRole,
    Enabled, Endpoint, Lookup, Networks, Observer, ProcessContext, Resolver, Timeouts,
};
use crate::directives::Keyword;
use crate::message::Name;
use crate::net::tls::ServerTls;
use futures_util::future::BoxFuture;
use parking_lot::Mutex;
use std::collections::{BTreeMap, HashSet};
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Weak};

/// The next listener's number.
static LISTENERS: AtomicU64 = AtomicU64::new(0);

impl PlanConfig {
    /// Makes every directive's running thing. State of a predecessor is adopted through
    /// [`ProcessContext::reload_state`].
    pub fn build(&self, process: &ProcessContext) -> Result<Plan, BuildError> {
        let mut draft = Draft::default();
        for block in &self.blocks {
            draft.add(block, process)?;
        }
        let listeners: Vec<_> = draft
            .listeners
            .into_iter()
            .map(|(address, listener)| listener.finish(address, &self.files, process))
            .collect();
        for (block, sockets) in draft.blocks {
            let at = |socket: &SocketAddr| listeners.iter().find(|listener| listener.address == *socket);
            let resolvers = sockets.iter().filter_map(at).map(|listener| {
                let listener: Weak<Listener> = Arc::downgrade(listener);
                listener as Weak<dyn Resolver>
            });
            let lookup = Lookup::new(resolvers);
            block.chain.handlers.iter().for_each(|handler| handler.set_lookup(&lookup));
        }
        let mut seen = HashSet::new();
        let new = draft.summary.iter().filter(|served| seen.insert(*served));
        let summary = new.map(|(zone, address)| summary(zone, *address, &listeners)).collect();
        Ok(Plan {
            listeners,
            endpoints: draft.endpoints,
            lameduck: self.blocks.iter().map(|block| block.config.lameduck).max().unwrap_or_default(),
            reload: self.blocks.iter().find_map(|block| block.config.reload),
            fairness: self
                .blocks
                .iter()
                .find_map(|block| block.config.fairness)
                .map(|(fairness, _)| fairness)
                .unwrap_or_default(),
            summary,
            enabled: draft.enabled,
            background: Mutex::new(draft.background),
        })
    }

    /// True if a block asks for debug logging (`debug`).
    pub fn is_debug(&self) -> bool {
        self.blocks.iter().any(|block| block.config.debug)
    }

    /// True if a block wants a backtrace with a panic's log line (`errors { stacktrace }`).
    pub fn wants_stacktrace(&self) -> bool {
        self.blocks.iter().any(|block| block.config.stacktrace)
    }
}

/// A plan under construction.
#[derive(Default)]
struct Draft {
    listeners: BTreeMap<SocketAddr, ListenerDraft>,
    endpoints: Vec<Endpoint>,
    background: Vec<BoxFuture<'static, ()>>,
    summary: Vec<(Name, SocketAddr)>,
    enabled: Vec<Enabled>,
    /// Each with the addresses that it serves on.
    blocks: Vec<(Arc<Block>, Vec<SocketAddr>)>,
}

#[derive(Default)]
struct ListenerDraft {
    scheme: Scheme,
    tls: Option<ServerTls>,
    https_connections: Option<usize>,
    timeouts: Timeouts,
    zones: ZoneTable,
    any_class: bool,
    unmatched: Option<Arc<dyn Observer>>,
    /// By what its blocks tell clients apart.
    networks: Vec<Networks>,
}

impl Draft {
    fn add(&mut self, block: &BlockPlan, process: &ProcessContext) -> Result<(), BuildError> {
        let sockets = sockets(block);
        let labels: Vec<String> = sockets.iter().map(|(scheme, address)| server_label(*scheme, address)).collect();
        let parts = build_parts(block, &labels, process)?;
        let (mut handlers, mut observers, mut unmatched) = (Vec::new(), Vec::new(), Vec::new());
        let (mut arranger, mut tracer) = (None, None);
        let directives = block_directives(block, &parts);
        for part in parts {
            handlers.extend(part.handler);
            observers.extend(part.observer);
            arranger = part.arranger.or(arranger);
            tracer = part.tracer.or(tracer);
            unmatched.extend(part.unmatched);
            self.background.extend(part.background);
            for endpoint in part.endpoints {
                if !self.endpoints.iter().any(|other| other.address == endpoint.address && other.path == endpoint.path)
                {
                    self.endpoints.push(endpoint);
                }
            }
        }
        // What stands last in the chain sees an answer first: the query is logged, then its error, then both are
        // counted.
        observers.reverse();
        let chain = Arc::new(Chain { handlers: handlers.into() });
        let BlockConfig { udp_cap, client_subnet, nsid, .. } = &block.config;
        let options = HeededOptions { client_subnet: *client_subnet, nsid: nsid.clone() };
        let options = (client_subnet.is_some() || nsid.is_some()).then(|| Box::new(options));
        let depends_on_client = chain.handlers.iter().any(|handler| handler.depends_on_client());
        let filter = block.config.view.as_ref().map(|view| view.filter.clone());
        let networks: Vec<Networks> = chain.handlers.iter().flat_map(|handler| handler.client_networks()).collect();
        let https_connections = block.config.https_connections.map(|(connections, _)| connections);
        for (scheme, address) in &sockets {
            let (scheme, timeouts) = (*scheme, block.config.timeouts);
            let first = || ListenerDraft { scheme, timeouts, https_connections, ..ListenerDraft::default() };
            self.listeners.entry(*address).or_insert_with(first).networks.extend_from_slice(&networks);
        }
        let running = Block {
            chain,
            observers: observers.into(),
            arranger,
            udp_cap: *udp_cap,
            options,
            depends_on_client,
            has_metadata: block.config.metadata.is_some(),
            tracer,
            filter,
            view: block.view_name().into(),
            directives,
        };
        let running = Arc::new(running);
        let any_class = block.keywords.iter().any(|keyword| keyword.any_class);
        for (zone_index, BlockZone { name: zone, port, place, .. }) in block.zones.iter().enumerate() {
            let on_port = |(_, (_, address)): &(usize, &(Scheme, SocketAddr))| address.port() == *port;
            for (server, (_, address)) in sockets.iter().enumerate().filter(on_port) {
                let listener = self.listeners.entry(*address).or_default();
                listener.tls = listener.tls.take().or_else(|| Some(block.config.tls.as_ref()?.0.clone()));
                listener.any_class |= any_class;
                let binding = ZoneBinding { block: running.clone(), server, zone: zone_index, place: Some(*place) };
                listener.zones.insert(zone, binding);
                self.summary.push((zone.clone(), *address));
                if let Some(observer) = unmatched.get(server) {
                    listener.unmatched = Some(observer.clone());
                    let plugins = block.keywords.iter().filter(|keyword| keyword.is_plugin);
                    let of = |keyword: &&Keyword| Enabled {
                        server: labels[server].clone(),
                        zone: zone.to_string(),
                        view: block.view_name().to_owned(),
                        keyword: keyword.name,
                    };
                    self.enabled.extend(plugins.map(of));
                }
            }
        }
        self.blocks.push((running, sockets.into_iter().map(|(_, address)| address).collect()));
        Ok(())
    }
}

impl ListenerDraft {
    fn finish(self, address: SocketAddr, files: &Arc<[PathBuf]>, process: &ProcessContext) -> Arc<Listener> {
        let Self { scheme, tls, https_connections, timeouts, zones, any_class, unmatched, networks } = self;
        let clients = AddressClasses::new(&networks);
        let numbers = clients.as_ref().map_or(1, AddressClasses::count);
        let server = server_label(scheme, &address);
        Arc::new(Listener {
            number: LISTENERS.fetch_add(numbers.into(), Ordering::Relaxed),
            clients,
            address,
            protocol: ClientProtocol::new(scheme, tls, https_connections, &process.registry, &server),
            timeouts,
            zones,
            files: files.clone(),
            any_class,
            unmatched: unmatched.into_iter().collect(),
            panics: process.panics.clone(),
            stats: process.query_stats.clone(),
            taps: process.query_taps.clone(),
            generation: process.generation,
        })
    }
}

/// Every address and port of a block, each once.
fn sockets(block: &BlockPlan) -> Vec<(Scheme, SocketAddr)> {
    let mut sockets = Vec::new();
    for zone in &block.zones {
        for address in block.sockets_on(zone.port) {
            if !sockets.contains(&(zone.scheme, address)) {
                sockets.push((zone.scheme, address));
            }
        }
    }
    sockets
}

/// `ZONE on ADDRESS (PROTOCOL)`
fn summary(zone: &Name, address: SocketAddr, listeners: &[Arc<Listener>]) -> String {
    let listener = listeners.iter().find(|listener| listener.address == address);
    let protocol = listener.map_or("", |listener| listener.protocol.name());
    format!("{zone} on {} ({protocol})", display(&address))
}

fn build_parts(block: &BlockPlan, servers: &[String], process: &ProcessContext) -> Result<Vec<Built>, BuildError> {
    let zones: Vec<Name> = block.zones.iter().map(|zone| zone.name.clone()).collect();
    if zones.is_empty() {
        return Err(BuildError("a server block without a zone; write at least one, such as `.`".to_owned()));
    }
    let BlockConfig { metadata, view, .. } = &block.config;
    let name = view.as_ref().map(|view| view.name.clone());
    let metadata = BlockMetadata::new(metadata.as_deref().unwrap_or_default(), name);
    let (mut built, mut upstream_observers) = (Vec::new(), Vec::new());
    for part in &block.config.parts {
        let context = BuildContext {
            answer_sources: &block.answer_sources,
            upstream_observers: &upstream_observers,
            view: view.as_ref(),
            metadata: metadata.clone(),
            ..BuildContext::new(&zones, servers, process)
        };
        let part = part.configured.build(&context)?;
        upstream_observers.extend(part.upstream_observer.clone());
        built.push(part);
    }
    Ok(built)
}

/// The directives of a block that have to do with questions, in the order of the chain: what is built of their parts,
/// and settings that say what they do.
fn block_directives(block: &BlockPlan, built: &[Built]) -> Box<[BlockDirective]> {
    let mut directives = Vec::new();
    let mut handlers = 0..;
    let mut parts = block.config.parts.iter().zip(built).peekable();
    for (keyword, place) in block.keywords.iter().zip(&block.places) {
        while let Some((part, built)) = parts.next_if(|(part, _)| part.keyword == keyword.name) {
            let role = match (&built.handler, &built.observer, &built.arranger) {
                (Some(_), ..) => handlers.next().map(DirectiveRole::Handler),
                (None, Some(observer), _) => Some(DirectiveRole::Observer(observer.clone())),
                (None, None, Some(arranger)) => Some(DirectiveRole::Arranger(arranger.clone())),
                (None, None, None) => None,
            };
            let directive = |role| BlockDirective { keyword: part.keyword, place: Some(part.span), role };
            directives.extend(role.map(directive));
        }
        let words = (keyword.explain)(&block.config);
        let role = words.map(|words| DirectiveRole::Setting(words.into()));
        directives.extend(role.map(|role| BlockDirective { keyword: keyword.name, place: Some(*place), role }));
    }
    directives.into()
}

/// The `server` label of metrics, as the reference writes it: `dns://127.0.0.1:53`, or `dns://:53` for the unspecified
/// address.
fn server_label(scheme: Scheme, address: &SocketAddr) -> String {
    format!("{}{}", scheme.prefix(), display(address))
}

fn display(address: &SocketAddr) -> String {
    match address {
        SocketAddr::V6(v6) if v6.ip().is_unspecified() => format!(":{}", address.port()),
        _ => address.to_string(),
    }
}
