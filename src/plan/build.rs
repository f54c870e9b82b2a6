//! A configuration to the plan that serves.

use super::configure::BlockPlan;
use super::zones::ZoneTable;
use super::{Block, Listener, Plan, PlanConfig, Site};
use crate::chain::{BuildContext, BuildError, Built, Chain, Endpoint, Observer, Services, Timeouts};
use crate::directives::prometheus;
use crate::message::Name;
use futures_util::future::BoxFuture;
use parking_lot::Mutex;
use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::Arc;

/// A listener under construction.
struct Draft {
    timeouts: Timeouts,
    zones: ZoneTable,
    any_class: bool,
    observed: bool,
}

/// Directives with which the reference answers classes other than IN (`EnableChaos` of its core/dnsserver).
const ANY_CLASS: [&str; 3] = ["chaos", "forward", "proxy"];

impl PlanConfig {
    /// Makes every directive's running thing. State of a predecessor is adopted through [`Services::carry`].
    pub fn build(&self, services: &Services) -> Result<Plan, BuildError> {
        let mut drafts: BTreeMap<SocketAddr, Draft> = BTreeMap::new();
        let mut endpoints: Vec<Endpoint> = Vec::new();
        let mut background: Vec<BoxFuture<'static, ()>> = Vec::new();
        let mut summary = Vec::new();
        for block in &self.blocks {
            let sockets = sockets(block);
            let labels: Vec<String> = sockets.iter().map(server_label).collect();
            let (built, parts) = build_block(block, &labels, services)?;
            for part in parts {
                background.extend(part.background);
                for endpoint in part.endpoints {
                    if !endpoints.iter().any(|other| other.address == endpoint.address && other.path == endpoint.path) {
                        endpoints.push(endpoint);
                    }
                }
            }
            for (zone_index, (zone, port)) in block.zones.iter().enumerate() {
                for (server, address) in sockets.iter().enumerate().filter(|(_, address)| address.port() == *port) {
                    let draft = drafts.entry(*address).or_insert_with(|| Draft {
                        timeouts: block.config.timeouts,
                        zones: ZoneTable::default(),
                        any_class: false,
                        observed: false,
                    });
                    draft.any_class |= block.keywords.iter().any(|keyword| ANY_CLASS.contains(keyword));
                    draft.observed |= block.keywords.contains(&"prometheus");
                    draft.zones.insert(zone, Site { block: built.clone(), server, zone: zone_index });
                    summary.push(format!("{zone} on {}", display(address)));
                }
            }
        }
        let panics = prometheus::panics(&services.registry);
        let listeners = drafts
            .into_iter()
            .map(|(address, draft)| {
                let unmatched: Arc<[Arc<dyn Observer>]> = if draft.observed {
                    [prometheus::unmatched(&services.registry, &server_label(&address))].into()
                } else {
                    [].into()
                };
                Arc::new(Listener {
                    address,
                    timeouts: draft.timeouts,
                    zones: draft.zones,
                    any_class: draft.any_class,
                    unmatched,
                    panics: panics.clone(),
                })
            })
            .collect();
        Ok(Plan {
            listeners,
            endpoints,
            lameduck: self.blocks.iter().map(|block| block.config.lameduck).max().unwrap_or_default(),
            reload: self.blocks.iter().find_map(|block| block.config.reload),
            summary,
            background: Mutex::new(background),
        })
    }

    /// True if a block asks for debug logging (`debug`).
    pub fn is_debug(&self) -> bool {
        self.blocks.iter().any(|block| block.config.debug)
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

fn build_block(block: &BlockPlan, servers: &[String], services: &Services) -> Result<(Arc<Block>, Vec<Built>), BuildError> {
    let zones: Vec<Name> = block.zones.iter().map(|(zone, _)| zone.clone()).collect();
    let Some(zone) = zones.first() else {
        return Err(BuildError("a server block without a zone".to_owned()));
    };
    let context = BuildContext { zone, block_zones: &zones, servers, keywords: &block.keywords, services };
    let mut parts = Vec::new();
    for part in &block.config.parts {
        parts.push(part.configured.build(&context)?);
    }
    let links = parts.iter_mut().filter_map(|part| part.link.take()).collect();
    let observers = parts.iter_mut().filter_map(|part| part.observer.take()).collect();
    let built = Block { chain: Arc::new(Chain { links }), observers, udp_cap: block.config.udp_cap };
    Ok((Arc::new(built), parts))
}

/// The `server` label of metrics, as the reference writes it: `dns://127.0.0.1:53`, or `dns://:53` for the unspecified address.
fn server_label(address: &SocketAddr) -> String {
    format!("dns://{}", display(address))
}

fn display(address: &SocketAddr) -> String {
    match address {
        SocketAddr::V6(v6) if v6.ip().is_unspecified() => format!(":{}", address.port()),
        _ => address.to_string(),
    }
}
