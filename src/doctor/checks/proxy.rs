//! How kube-proxy works here, and what answers should the agent be killed.

use super::{RUN_WITH_PRIVILEGES, list};
use crate::doctor::diagnosis::Check;
use crate::doctor::findings::{Expectation, Findings};
use crate::node::{FALLBACK_TABLE_NAME, Ruleset, TableFamily};
use std::net::IpAddr;

/// How kube-proxy, or what stands for it, sends ClusterIPs on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum ProxyMode {
    Ipvs,
    Nftables,
    Iptables,
    Cilium,
    Unseen,
    NoneSeen,
}

fn mode(findings: &Findings) -> ProxyMode {
    let node = &findings.node;
    let is_ip = |family: TableFamily| matches!(family, TableFamily::Ip | TableFamily::Ip6);
    let has_table =
        |ruleset: &Ruleset| ruleset.tables.iter().any(|table| is_ip(table.family) && table.name == "kube-proxy");
    let has_chains =
        |ruleset: &Ruleset| ruleset.chains.iter().any(|chain| is_ip(chain.family) && chain.name == "KUBE-SERVICES");
    let nftables = node.nftables.as_ref().ok();
    if node.ipvs_link.is_some() {
        ProxyMode::Ipvs
    } else if nftables.is_some_and(has_table) {
        ProxyMode::Nftables
    } else if nftables.is_some_and(has_chains) || node.has_legacy_kubernetes_chains == Some(true) {
        ProxyMode::Iptables
    } else if node.has_cilium {
        ProxyMode::Cilium
    } else if nftables.is_none()
        || (node.has_legacy_kubernetes_chains.is_none() && node.legacy_tables.iter().any(|name| name == "nat"))
    {
        ProxyMode::Unseen
    } else {
        ProxyMode::NoneSeen
    }
}

/// kube-proxy's mode, and whether the addresses suit it.
pub(super) fn kube_proxy(expected: &Expectation, findings: &Findings) -> Check {
    let mut check = Check::new("kube_proxy");
    match mode(findings) {
        ProxyMode::Ipvs => {
            check.ok("IPVS (link kube-ipvs0)");
            let addresses = expected.spec.addresses.iter();
            let taken: Vec<&IpAddr> = addresses.filter(|address| is_held_by_ipvs(findings, **address)).collect();
            if !taken.is_empty() {
                check.problem(
                    format!("{} is held by IPVS (kube-ipvs0), which takes its packets whether they are tracked or not", list(taken)),
                    "give the agent the link-local address alone (-localip) and point kubelet's --cluster-dns to it (docs/kubernetes.md, \
                     \"Install\")",
                );
            }
        }
        ProxyMode::Nftables => check.ok("nftables (table kube-proxy)"),
        ProxyMode::Iptables => check.ok("iptables (chain KUBE-SERVICES)"),
        ProxyMode::Cilium => check.warning(
            "none seen; Cilium is here (link cilium_host) and may send ClusterIPs on before any rule sees them",
            "with Cilium's kube-proxy replacement, have a CiliumLocalRedirectPolicy send DNS to the cache, or point kubelet's --cluster-dns \
             to the link-local address",
        ),
        ProxyMode::Unseen => check.unknown("its mode could not be seen", RUN_WITH_PRIVILEGES),
        ProxyMode::NoneSeen => check.ok("none seen: ClusterIPs are not rewritten on this node"),
    }
    check
}

/// IPVS holds every ClusterIP.
pub(super) fn is_held_by_ipvs(findings: &Findings, address: IpAddr) -> bool {
    findings.node.ipvs_link.iter().flat_map(|link| &link.addresses).any(|(held, _)| *held == address)
}

/// What sends queries for addresses that are ours alone to cluster DNS when the agent is gone.
pub(super) fn fallback(expected: &Expectation, findings: &Findings) -> Check {
    let mut check = Check::new("fallback");
    let is_ipvs = mode(findings) == ProxyMode::Ipvs;
    let is_ours_alone = |address: &&IpAddr| {
        let is_link_local = match address {
            IpAddr::V4(v4) => v4.is_link_local(),
            IpAddr::V6(v6) => v6.is_unicast_link_local(),
        };
        let is_no_cluster_ip = is_ipvs && !is_held_by_ipvs(findings, **address);
        is_no_cluster_ip
            || is_link_local
            || expected.spec.fallback.redirections().any(|wanted| wanted.local == **address)
    };
    let alone: Vec<IpAddr> = expected.spec.addresses.iter().filter(is_ours_alone).copied().collect();
    if alone.is_empty() {
        check.ok("not needed: without the agent every address is cluster DNS's again");
        return check;
    }
    let ruleset = match &findings.node.nftables {
        Ok(ruleset) => ruleset,
        Err(error) => {
            check.unknown(error.to_string(), RUN_WITH_PRIVILEGES);
            return check;
        }
    };
    let mut without = Vec::new();
    for local in alone {
        match ruleset.fallback_of(local, expected.spec.port) {
            Some(upstream) => check.ok(format!(
                "nftables table inet {FALLBACK_TABLE_NAME} is in place: should the agent be killed, cluster DNS ({upstream}) answers at {local}"
            )),
            None => without.push(local),
        }
    }
    if !without.is_empty() {
        let is_there =
            ruleset.tables.iter().any(|table| table.family == TableFamily::Inet && table.name == FALLBACK_TABLE_NAME);
        let seen = if is_there { "lacks rules for that" } else { "is not there" };
        check.warning(
            format!(
                "should the agent be killed, nobody answers at {} until it is back: nftables table inet {FALLBACK_TABLE_NAME} {seen}",
                list(without)
            ),
            "where pods ask the ClusterIP this concerns nobody; else the agent's log says at its start why there is none, and --fallback names \
             who is to answer (docs/kubernetes.md, \"The fallback\")",
        );
    }
    check
}
