//! Whether a firewall on the node lets untracked DNS packets in.

use super::{RUN_WITH_PRIVILEGES, list};
use crate::doctor::diagnosis::Check;
use crate::doctor::findings::{Expectation, Findings};
use crate::node::{
    Chains, Error, Hook, Interception, IptablesTable, Listing, NetfilterHook, Packet, PacketVerdict, Rule, desired,
    packet_verdict, preceding_rules,
};
use std::collections::{BTreeMap, BTreeSet};

/// What accepts DNS packets where legacy iptables drops the rest.
const ACCEPT: &str = "let the agent have iptables programs (docs/kubernetes.md, \"iptables\"), so that it adds its ACCEPT rules, or accept UDP \
                      and TCP packets to and from the cache's addresses and port there yourself";

/// The check.
pub(super) fn filter(expected: &Expectation, findings: &Findings) -> Check {
    let mut check = Check::new("filter");
    let rules = desired(&expected.spec, &Interception::of(&expected.spec.addresses)).rules;
    match &findings.node.firewall {
        Ok(chains) => nftables(&mut check, &rules, chains),
        // The programs tell what counts.
        Err(_) if findings.node.iptables.is_ok() => {}
        Err(error) => check.unknown(error.to_string(), RUN_WITH_PRIVILEGES),
    }
    // What the programs of the nft kind list is among the chains.
    let is_new_to_us = |listing: &&Listing| {
        listing.table == IptablesTable::Filter
            && (findings.node.firewall.is_err() || !listing.program.ends_with("-nft"))
    };
    match &findings.node.iptables {
        Ok(listings) => listings.iter().filter(is_new_to_us).for_each(|listing| table(&mut check, &rules, listing)),
        Err(_) => legacy(&mut check, &findings.node.legacy_filter),
    }
    if check.seen.is_empty() {
        check.ok("no firewall on the node drops DNS packets for these addresses");
    }
    check
}

/// What the kernel tells of a legacy table that no program lists.
fn legacy(check: &mut Check, read: &Result<(), Error>) {
    match read {
        Ok(()) => {}
        Err(Error::LegacyFilter) => check.warning(
            "the rules in the filter table of legacy iptables may drop DNS packets for these addresses",
            ACCEPT,
        ),
        Err(error) => check.unknown(
            error.to_string(),
            "look on the node: `iptables-legacy -S INPUT`; if it begins with `-P INPUT DROP`, DNS packets need ACCEPT rules",
        ),
    }
}

/// What stands at the kernel's hooks, iptables-nft's chains among it.
fn nftables(check: &mut Check, rules: &[Rule], chains: &Chains) {
    let (mut dropped, mut doubtful) =
        (BTreeMap::<String, BTreeSet<String>>::new(), BTreeMap::<String, BTreeSet<String>>::new());
    for packet in rules.iter().filter_map(Packet::of) {
        let (kind, by) = match packet_verdict(chains, &packet) {
            PacketVerdict::Accepted => continue,
            PacketVerdict::Dropped { by } => (&mut dropped, by),
            PacketVerdict::Unknown { by } => (&mut doubtful, by),
        };
        kind.entry(by.to_string()).or_default().insert(shown(&packet));
    }
    for (by, packets) in dropped {
        check.problem(
            format!("{by} drops {}", list(packets)),
            "accept UDP and TCP packets to and from the cache's addresses there, untracked ones too (`nft -a list ruleset`); into iptables-nft's chains \
             (table filter, INPUT and OUTPUT) the agent puts such rules itself",
        );
    }
    for (by, packets) in doubtful {
        check.warning(
            format!("{by} may drop {}: that depends on what cannot be told from here, such as the interface", list(packets)),
            "the agent leaves clients to cluster DNS whose packets do not arrive (see pod_path); accept UDP and TCP packets to and from the cache's \
             addresses there (`nft -a list ruleset`)",
        );
    }
}

/// The packets that `packet` stands for, over either protocol.
fn shown(packet: &Packet) -> String {
    let Packet { address, port, .. } = packet;
    match (packet.is_loopback, packet.at) {
        (false, NetfilterHook::Input) => format!("queries to {address} port {port}"),
        (false, _) => format!("answers from {address} port {port}"),
        (true, _) => format!("what programs on the node and {address} port {port} send each other"),
    }
}

/// What a program lists.
fn table(check: &mut Check, rules: &[Rule], listing: &Listing) {
    let ours = listing.ours();
    let mut lacking = None;
    let mut covered = 0;
    for rule in rules.iter().filter(|rule| !rule.hook.is_raw() && rule.address.is_ipv6() == listing.is_ipv6) {
        let is_there = ours.iter().any(|present| present.rule == *rule);
        let found = preceding_rules(IptablesTable::Filter, &listing.text, rule);
        // The first that is sure to take the packet decides; what may take it before is not held against the node.
        let first = found.iter().find(|preceding_rules| preceding_rules.is_certain);
        if let Some(first) = first.filter(|first| is_refusal(&first.target)) {
            check.problem(
                format!("{} -t filter: `{}` drops {}", listing.program, first.line, packets(rule)),
                "it must come after our ACCEPT rules, or leave the cache's addresses out; the agent puts its rules to the front when it starts",
            );
        } else if is_there {
            covered += 1;
        } else if first.is_none() && is_dropped_by_policy(listing, rule.hook) {
            lacking = lacking.or(Some(rule));
        }
    }
    if let Some(rule) = lacking {
        check.problem(
            format!("{} -t filter: the policy is DROP, and nothing accepts {}", listing.program, packets(rule)),
            ACCEPT,
        );
    }
    if covered > 0 {
        check.ok(format!("{} -t filter: {covered} ACCEPT rules of an agent", listing.program));
    }
}

fn packets(rule: &Rule) -> String {
    let direction = if rule.hook == Hook::FilterInput { "queries to" } else { "answers from" };
    format!("{direction} {}", rule.address)
}

fn is_refusal(target: &str) -> bool {
    ["DROP", "REJECT"].contains(&target)
}

fn is_dropped_by_policy(listing: &Listing, hook: Hook) -> bool {
    let chain = if hook == Hook::FilterInput { "INPUT" } else { "OUTPUT" };
    listing.text.lines().any(|line| line.strip_prefix("-P ").is_some_and(|rest| rest == format!("{chain} DROP")))
}
