//! The rules that leave packets untracked.

use super::{RUN_WITH_PRIVILEGES, is_any_at_work, list, ours};
use crate::doctor::diagnosis::Check;
use crate::doctor::findings::{Expectation, Findings};
use crate::node::{
    Backend, Hook, Interception, IptablesTable, LeaseUse, PacketEnd, PresentRule, Rule, RulesetTable, TABLE_NAME,
    describe_clients, desired,
};
use std::collections::HashSet;
use std::net::IpAddr;

/// How the rules stand.
pub(super) struct RulesFound {
    /// Where the best of them were found.
    pub place: RulesLocation,
    /// Those of the whole interception that are not there.
    pub missing: Vec<Rule>,
    /// Why they could not all be looked at.
    pub unseen: Vec<String>,
    /// Packets that came in and were left untracked; none where nobody counts.
    packets: Option<u64>,
    /// What is there while only probes are let through.
    has_probe_rules_only: bool,
    /// Iptables has the whole interception.
    is_in_iptables: bool,
    /// The rules for queries in iptables match only while the watchdog's probes renew their lease.
    has_lease: bool,
}

/// What holds the rules.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum RulesLocation {
    Nftables(RulesetTable),
    Iptables(&'static str),
    Nowhere,
}

impl RulesFound {
    pub(super) fn of(expected: &Expectation, findings: &Findings) -> Self {
        let raw = |interception: &Interception| {
            let rules = desired(&expected.spec, interception).rules;
            rules.into_iter().filter(|rule| rule.hook.is_raw()).collect::<Vec<Rule>>()
        };
        let (on, probing) = (raw(&Interception::of(&expected.spec.addresses)), raw(&Interception::default()));
        let lacking =
            |held: &HashSet<Rule>| on.iter().filter(|rule| !held.contains(rule)).copied().collect::<Vec<Rule>>();
        let mut best = Self {
            place: RulesLocation::Nowhere,
            missing: on.clone(),
            unseen: Vec::new(),
            packets: None,
            has_probe_rules_only: false,
            is_in_iptables: false,
            has_lease: false,
        };
        match &findings.node.iptables {
            Ok(listings) => {
                let of_raw = || listings.iter().filter(|listing| listing.table == IptablesTable::Raw);
                let present: Vec<PresentRule> = of_raw().flat_map(|listing| listing.ours()).collect();
                let held: HashSet<Rule> = present.iter().map(|present| present.rule).collect();
                let program = of_raw().find(|listing| !listing.ours().is_empty()).map(|listing| listing.program);
                if let Some(program) = program {
                    best.has_probe_rules_only = probing.iter().all(|rule| held.contains(rule));
                    best.missing = lacking(&held);
                    best.is_in_iptables = best.missing.is_empty();
                    let of_queries = |present: &&PresentRule| {
                        present.rule.end == PacketEnd::Destination && present.rule.mark.is_none()
                    };
                    let is_leased = |present: &PresentRule| matches!(present.narrowing.lease, LeaseUse::Needs { .. });
                    best.has_lease = present.iter().filter(of_queries).all(is_leased);
                    best.place = RulesLocation::Iptables(program);
                }
            }
            Err(error) => best.unseen.push(error.to_string()),
        }
        match &findings.node.nftables {
            Ok(ruleset) => {
                for table in ruleset.tables.iter().filter(|table| is_ours(&table.name)) {
                    let chains =
                        ruleset.chains.iter().filter(|chain| chain.table == table.name && chain.family == table.family);
                    let rules: Vec<_> = chains.flat_map(|chain| &chain.rules).collect();
                    let held: HashSet<Rule> = rules.iter().filter_map(|seen| seen.rule).collect();
                    let missing = lacking(&held);
                    if best.place == RulesLocation::Nowhere || missing.len() < best.missing.len() || missing.is_empty()
                    {
                        let incoming =
                            rules.iter().filter(|seen| seen.rule.is_some_and(|rule| rule.hook == Hook::RawPrerouting));
                        best.packets = incoming.filter_map(|seen| seen.packets).reduce(|sum, packets| sum + packets);
                        best.has_probe_rules_only = probing.iter().all(|rule| held.contains(rule));
                        best.missing = missing;
                        best.place = RulesLocation::Nftables(table.clone());
                    }
                }
            }
            Err(error) => best.unseen.push(error.to_string()),
        }
        best
    }

    /// Whether it could be that they are all there, only not seen.
    fn may_be_unseen(&self) -> bool {
        !self.missing.is_empty() && !self.unseen.is_empty()
    }

    /// Whether all queries are left untracked, or no rules are asked for. None if that could not be seen.
    pub(super) fn lets_pods_in(&self, expected: &Expectation) -> Option<bool> {
        let is_so = expected.backend == Backend::None || self.missing.is_empty();
        (is_so || !self.may_be_unseen()).then_some(is_so)
    }

    /// The addresses that only the watchdog's own questions are let through to.
    fn withdrawn(&self, expected: &Expectation) -> Vec<IpAddr> {
        let raw = |interception: &Interception| {
            let rules = desired(&expected.spec, interception).rules;
            rules.into_iter().filter(|rule| rule.hook.is_raw()).collect::<HashSet<Rule>>()
        };
        let probing = raw(&Interception::default());
        let is_withdrawn = |address: &IpAddr| {
            let own = raw(&Interception::of(&[*address]));
            let mut own = own.difference(&probing).peekable();
            own.peek().is_some() && own.all(|rule| self.missing.contains(rule))
        };
        let addresses = expected.spec.addresses.iter().filter(|_| self.has_probe_rules_only);
        addresses.copied().filter(is_withdrawn).collect()
    }

    fn is_incoming_missing(&self) -> bool {
        self.missing.iter().any(|rule| rule.hook == Hook::RawPrerouting)
    }
}

/// Whether a table of this name is an agent's: the second of two has its owner's number behind the name.
pub(super) fn is_ours(table: &str) -> bool {
    let number = table.strip_prefix(TABLE_NAME).map(|rest| rest.strip_prefix('-').unwrap_or(rest));
    number.is_some_and(|number| number.bytes().all(|octet| octet.is_ascii_digit()))
}

/// Whether the rules are there, and live.
pub(super) fn rules(expected: &Expectation, findings: &Findings, rules_found: &RulesFound) -> Check {
    let mut check = Check::new("rules");
    if expected.backend == Backend::None {
        check.ok("none are asked for (--interception none)");
        return check;
    }
    match &rules_found.place {
        RulesLocation::Nftables(table) => owner(&mut check, findings, table),
        RulesLocation::Iptables(program) => {
            check.ok(format!("{program}, table raw, holds rules of an agent"));
            let start_or_remove = "start the agent, or remove what is left: `nodelocaldns teardown -localip ADDRESSES`";
            match (rules_found.is_in_iptables, is_any_at_work(findings), rules_found.has_lease) {
                (true, false, false) => check.problem(
                    "no agent runs, and its iptables rules are still there: queries stay on a node where nobody answers",
                    start_or_remove,
                ),
                (true, false, true) => check.warning(
                    "no agent runs, and its iptables rules are still there; their lease (`-m recent`) is over, so cluster DNS answers",
                    start_or_remove,
                ),
                (true, true, false) => check.warning(
                    "the iptables rules have no lease: should the agent be killed, programs on the host network get no answer until it runs \
                     again, or for 2 s where the table nodelocaldns-guard is there",
                    "load the kernel module xt_recent (`modprobe xt_recent`), see that iptables knows `-m recent`, and restart the agent",
                ),
                _ => {}
            }
        }
        RulesLocation::Nowhere => {}
    }
    if rules_found.missing.is_empty() {
        check.ok(format!("NOTRACK for queries and answers of {} is in place", list(&expected.spec.addresses)));
    } else if rules_found.may_be_unseen() {
        for reason in &rules_found.unseen {
            check.unknown(reason.clone(), RUN_WITH_PRIVILEGES);
        }
    } else {
        say_what_is_missing(&mut check, expected, findings, rules_found);
    }
    check
}

/// An address whose interception the agent has withdrawn is told apart from rules that somebody has taken away.
fn say_what_is_missing(check: &mut Check, expected: &Expectation, findings: &Findings, rules_found: &RulesFound) {
    let withdrawn = rules_found.withdrawn(expected);
    let missing: Vec<&Rule> = rules_found.missing.iter().filter(|rule| !withdrawn.contains(&rule.address)).collect();
    if !withdrawn.is_empty() {
        check.problem(
            format!(
                "only the watchdog's own questions are let through to {}: the agent has withdrawn the interception there, or has not begun it, \
                 since its server does not answer them, or somebody else does",
                list(&withdrawn)
            ),
            "see `sockets`, `queries` and the agent's log; it intercepts again after a second in which every question is answered",
        );
    }
    if missing.is_empty() {
        return;
    }
    let count = missing.len();
    let examples = list(missing.iter().take(2));
    let advice = if is_any_at_work(findings) {
        "the agent puts them back the moment they are changed: see why it does not (is it stopped? `nftables` and `iptables` in \
         coredns_nodecache_setup_errors_total, and its log)"
    } else {
        "start the agent"
    };
    check.problem(format!("{count} rules are missing, such as {examples}"), advice);
}

fn owner(check: &mut Check, findings: &Findings, table: &RulesetTable) {
    let name = format!("nftables table {} {}", table.family.name(), table.name);
    let Some(port_id) = table.owner else {
        check.warning(
            format!("{name} has no owner: it stays when the agent ends, and queries with it"),
            format!("if no agent made it, remove it: `nft delete table {} {}`", table.family.name(), table.name),
        );
        return;
    };
    match ours(findings).find(|agent| agent.port_ids.contains(&port_id)) {
        Some(agent) if agent.is_stopped => {
            check.ok(format!("{name} belongs to process {}, which is stopped", agent.pid))
        }
        Some(agent) => check.ok(format!("{name} belongs to process {}, and goes with it", agent.pid)),
        None => check.ok(format!("{name} has a living owner (netlink port {port_id}, whose process cannot be seen)")),
    }
}

/// What can be told from the node about the way of pods' queries.
pub(super) fn pod_path(expected: &Expectation, findings: &Findings, rules_found: &RulesFound) -> Check {
    let mut check = Check::new("pod_path");
    let not_seen = "not seen from here: whether a pod's packets come through this node's PREROUTING at all (a network plugin with a datapath \
                    of its own, such as Cilium's, may take another way), and whether network policies let them";
    let from_a_pod = "to be sure, ask from a pod of this node: `kubectl exec POD -- nslookup kubernetes.default.svc.cluster.local`, and see \
                      that coredns_dns_requests_total of this node grows";
    let blocked = &findings.node.blocked_clients;
    if expected.backend == Backend::None {
        check.ok(format!("no rules are asked for; {not_seen}"));
    } else if !blocked.is_empty() {
        check.problem(
            format!("packets from {} come in and do not arrive at the cache: cluster DNS answers these clients", describe_clients(blocked)),
            "find what takes them between PREROUTING and the socket, and let UDP and TCP packets to the cache's addresses and port pass: the node's \
             firewall (see `filter`), policy routing ahead of the table `local` (`ip rule`), rp_filter (`sysctl net.ipv4.conf.all.rp_filter`), an \
             eBPF program (`bpftool net`)",
        );
    } else if !rules_found.is_incoming_missing() {
        match rules_found.packets {
            Some(0) => check.ok("rules for pods' queries are in place; no packet has met them yet"),
            Some(count) => check.ok(format!("rules for pods' queries are in place; {count} packets have met them (those of programs on the host's network too)")),
            None => check.ok("rules for pods' queries are in place"),
        }
        check.ok(format!("{not_seen}; {from_a_pod}"));
    } else if rules_found.may_be_unseen() {
        check.unknown(
            "whether rules for pods' queries are in place could not be seen (see `rules`)",
            RUN_WITH_PRIVILEGES,
        );
    } else {
        let incoming = |rule: &&Rule| rule.hook == Hook::RawPrerouting && rule.end == PacketEnd::Destination;
        let missing: HashSet<_> = rules_found.missing.iter().filter(incoming).map(|rule| rule.address).collect();
        check.problem(
            format!("no rules for pods' queries to {}: kube-proxy sends them to cluster DNS", list(missing)),
            "see `rules`",
        );
    }
    check
}
