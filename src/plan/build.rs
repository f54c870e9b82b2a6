//! Builds the plan that serves from a checked configuration.

use super::configure::BlockPlan;
use super::zones::ZoneTable;
use super::{Block, HeededOptions, Listener, Plan, PlanConfig, ZoneBinding};
use crate::chain::{
    BlockConfig, BuildContext, BuildError, Built, Chain, Enabled, Endpoint, Lookup, Observer, ProcessContext, Resolver,
    Timeouts,
};
use crate::directives::Keyword;
use crate::message::Name;
use futures_util::future::BoxFuture;
use parking_lot::Mutex;
use std::collections::BTreeMap;
use std::net::SocketAddr;
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
        let listeners: Vec<_> =
            draft.listeners.into_iter().map(|(address, listener)| listener.finish(address, process)).collect();
        for (block, sockets) in draft.blocks {
            let at = |socket: &SocketAddr| listeners.iter().find(|listener| listener.address == *socket);
            let resolvers = sockets.iter().filter_map(at).map(|listener| {
                let listener: Weak<Listener> = Arc::downgrade(listener);
                listener as Weak<dyn Resolver>
            });
            let lookup = Lookup::new(resolvers);
            block.chain.handlers.iter().for_each(|handler| handler.set_lookup(&lookup));
        }
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
            summary: draft.summary,
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
    summary: Vec<String>,
    enabled: Vec<Enabled>,
    /// Each with the addresses that it serves on.
    blocks: Vec<(Arc<Block>, Vec<SocketAddr>)>,
}

#[derive(Default)]
struct ListenerDraft {
    timeouts: Timeouts,
    zones: ZoneTable,
    any_class: bool,
    unmatched: Option<Arc<dyn Observer>>,
}

impl Draft {
    fn add(&mut self, block: &BlockPlan, process: &ProcessContext) -> Result<(), BuildError> {
        let sockets = sockets(block);
        let labels: Vec<String> = sockets.iter().map(server_label).collect();
        let parts = build_parts(block, &labels, process)?;
        let (mut handlers, mut observers, mut unmatched, mut arranger) = (Vec::new(), Vec::new(), Vec::new(), None);
        for part in parts {
            handlers.extend(part.handler);
            observers.extend(part.observer);
            arranger = part.arranger.or(arranger);
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
        let udp_cap = *udp_cap;
        let running = Block { chain, observers: observers.into(), arranger, udp_cap, options, depends_on_client };
        let running = Arc::new(running);
        let any_class = block.keywords.iter().any(|keyword| keyword.any_class);
        for (zone_index, (zone, port)) in block.zones.iter().enumerate() {
            for (server, address) in sockets.iter().enumerate().filter(|(_, address)| address.port() == *port) {
                let first = || ListenerDraft { timeouts: block.config.timeouts, ..ListenerDraft::default() };
                let listener = self.listeners.entry(*address).or_insert_with(first);
                listener.any_class |= any_class;
                listener.zones.insert(zone, ZoneBinding { block: running.clone(), server, zone: zone_index });
                self.summary.push(format!("{zone} on {}", display(address)));
                if let Some(observer) = unmatched.get(server) {
                    listener.unmatched = Some(observer.clone());
                    let plugins = block.keywords.iter().filter(|keyword| keyword.is_plugin);
                    let of = |keyword: &&Keyword| Enabled {
                        server: labels[server].clone(),
                        zone: zone.to_string(),
                        keyword: keyword.name,
                    };
                    self.enabled.extend(plugins.map(of));
                }
            }
        }
        self.blocks.push((running, sockets));
        Ok(())
    }
}

impl ListenerDraft {
    fn finish(self, address: SocketAddr, process: &ProcessContext) -> Arc<Listener> {
        let Self { timeouts, zones, any_class, unmatched } = self;
        Arc::new(Listener {
            number: LISTENERS.fetch_add(1, Ordering::Relaxed),
            address,
            timeouts,
            zones,
            any_class,
            unmatched: unmatched.into_iter().collect(),
            panics: process.panics.clone(),
            generation: process.generation,
        })
    }
}

/// Every address and port of a block, each once.
fn sockets(block: &BlockPlan) -> Vec<SocketAddr> {
    let mut sockets = Vec::new();
    for (_, port) in &block.zones {
        for socket in block.sockets_on(*port) {
            if !sockets.contains(&socket) {
                sockets.push(socket);
            }
        }
    }
    sockets
}

fn build_parts(block: &BlockPlan, servers: &[String], process: &ProcessContext) -> Result<Vec<Built>, BuildError> {
    let zones: Vec<Name> = block.zones.iter().map(|(zone, _)| zone.clone()).collect();
    if zones.is_empty() {
        return Err(BuildError("a server block without a zone; write at least one, such as `.`".to_owned()));
    }
    let context = BuildContext { answer_sources: &block.answer_sources, ..BuildContext::new(&zones, servers, process) };
    block.config.parts.iter().map(|part| part.configured.build(&context)).collect()
}

/// The `server` label of metrics, as the reference writes it: `dns://127.0.0.1:53`, or `dns://:53` for the unspecified
/// address.
fn server_label(address: &SocketAddr) -> String {
    format!("dns://{}", display(address))
}

fn display(address: &SocketAddr) -> String {
    match address {
        SocketAddr::V6(v6) if v6.ip().is_unspecified() => format!(":{}", address.port()),
        _ => address.to_string(),
    }
}
