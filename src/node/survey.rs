//! Reads the state of the node without changing anything.

use super::arrival::ArrivingClient;
use super::conntrack::{self, ConnectionTable};
use super::desired::{Interception, NodeSpec, desired};
use super::error::{self, Error};
use super::iptables::{self, Listing};
use super::ipv6;
use super::legacy_filter;
use super::link::{self, LinkView};
use super::nftables::arrival;
use super::nftables::connections::{self, TrackedConnection};
use super::nftables::ruleset::{self, Ruleset, RulesetTable};
use super::nftables::{AcceptRules, Chains};
use super::{GUARD_TABLE_NAME, TABLE_NAME, on_own_thread, presence};
use std::time::Duration;

/// The link by which kube-proxy holds ClusterIPs in IPVS mode.
const IPVS_LINK: &str = "kube-ipvs0";
/// A link of Cilium's on every node.
const CILIUM_LINK: &str = "cilium_host";

/// What is there. What could not be looked at says why.
#[derive(Debug)]
pub struct Survey {
    /// The link of [`NodeSpec::interface`], or the one that an agent made under this name, or none; none in any case if
    /// none is wished for.
    pub link: Result<Option<LinkView>, Error>,
    /// Sysctls that switch IPv6 off on the link.
    pub ipv6_disabled_by: Vec<String>,
    /// The link of kube-proxy in IPVS mode, if there is one.
    pub ipvs_link: Option<LinkView>,
    /// Cilium is at work on this node.
    pub has_cilium: bool,
    /// All tables that a DNS packet meets.
    pub nftables: Result<Ruleset, Error>,
    /// What stands at the hooks `input` and `output`.
    pub firewall: Result<Chains, Error>,
    /// The tables `raw` and `filter` as iptables programs list them.
    pub iptables: Result<Vec<Listing>, Error>,
    /// Names of legacy tables that the kernel has, of both families.
    pub legacy_tables: Vec<String>,
    /// Whether the legacy filter table lets DNS packets pass, where programs do not list it.
    pub legacy_filter: Result<(), Error>,
    /// None where no program can tell.
    pub has_legacy_kubernetes_chains: Option<bool>,
    /// Clients whose packets come in and do not arrive, as the agents' tables have it.
    pub blocked_clients: Vec<ArrivingClient>,
    /// Tracked connections to the DNS port of the addresses.
    pub connections: Result<Vec<TrackedConnection>, Error>,
    /// None where nothing is tracked.
    pub connection_table: Option<ConnectionTable>,
    /// Whether an agent's presence is seen (it may be in another process namespace).
    pub has_agent: bool,
}

/// Looks at everything that concerns `spec`, none of which takes longer than `patience`. Needs a tokio runtime, and
/// NET_ADMIN for the rules.
pub(crate) async fn survey(spec: &NodeSpec, patience: Duration) -> Survey {
    let name = spec.interface.as_deref().unwrap_or_default();
    let links = link::look([name, IPVS_LINK, CILIUM_LINK]);
    let with_ipv6 = spec.addresses.iter().any(std::net::IpAddr::is_ipv6);
    let (addresses, port) = (spec.addresses.clone(), spec.port);
    let nftables = within(patience, "lists nftables", || {
        ruleset::read().map_err(|source| Error::Listing { what: error::NFTABLES, source })
    });
    let firewall = within(patience, "lists the firewall", || AcceptRules::open()?.chains());
    let listings = within(patience, "lists iptables", move || iptables::listings(with_ipv6));
    let chains = within(patience, "looks for kube-proxy", || Ok(iptables::has_legacy_kubernetes_chains()));
    let connections = within(patience, "lists connections", move || {
        connections::read(&addresses, port).map_err(|source| Error::Listing { what: "tracked connections", source })
    });
    let (links, nftables, firewall, iptables, chains, connections) =
        tokio::join!(links, nftables, firewall, listings, chains, connections);
    let legacy_tables: Vec<String> = [false, true].into_iter().flat_map(iptables::legacy_tables).collect();
    let legacy_filter = if iptables.is_err() && legacy_tables.iter().any(|name| name == "filter") {
        let rules = desired(spec, &Interception::of(&spec.addresses)).rules;
        within(patience, "reads legacy iptables", move || legacy_filter::check(&rules)).await
    } else {
        Ok(())
    };
    let tables = nftables.iter().flat_map(|ruleset| &ruleset.tables);
    let is_an_agents = |table: &&RulesetTable| table.owner.is_some() && table.name.starts_with(TABLE_NAME);
    let of_agents = tables.filter(|table| is_an_agents(table) || table.name == GUARD_TABLE_NAME);
    // What cannot be read blocks nobody that we know of; why not, the listing says.
    let looks = of_agents.filter_map(|table| arrival::read(&table.name).ok());
    let blocked_clients = looks.flat_map(|look| look.surely_blocked().collect::<Vec<_>>()).collect();
    let (link, ipvs_link, has_cilium) = match links {
        Ok([link, ipvs, cilium]) => (Ok(link), ipvs, cilium.is_some()),
        Err(error) => (Err(error), None, false),
    };
    let link_name =
        link.as_ref().ok().and_then(|link| Some(link.as_ref()?.name.clone())).unwrap_or_else(|| name.to_owned());
    Survey {
        link,
        ipv6_disabled_by: ipv6::disabled_by(&link_name),
        ipvs_link,
        has_cilium,
        nftables,
        firewall,
        iptables,
        legacy_tables,
        legacy_filter,
        has_legacy_kubernetes_chains: chains.unwrap_or_default(),
        blocked_clients,
        connections,
        connection_table: conntrack::read(),
        has_agent: presence::is_any(),
    }
}

/// `work`, given up on after `patience`; it then goes on by itself.
async fn within<T: Send + 'static>(
    patience: Duration,
    task: &'static str,
    work: impl FnOnce() -> Result<T, Error> + Send + 'static,
) -> Result<T, Error> {
    match tokio::time::timeout(patience, on_own_thread(task, work)).await {
        Ok(done) => done?,
        Err(_) => Err(Error::TaskSlow { task, waited: patience }),
    }
}
