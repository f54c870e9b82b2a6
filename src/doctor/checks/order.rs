//! Finds rules of others that see DNS packets before ours do.
//!
//! An accept in one nftables chain does not keep a packet from the next chain, so beside a table of ours only what
//! drops, rewrites or has a packet tracked matters. Within iptables' own chains, whichever rule comes first decides.

use super::RUN_WITH_PRIVILEGES;
use super::rules::{RulesFound, RulesLocation as SocketHolder, is_ours};
use crate::doctor::diagnosis::Check;
use crate::doctor::findings::{Expectation, Findings};
use crate::node::{
    Backend, Effect, GUARD_TABLE_NAME, Interception, IptablesTable, ListedChain, Listing, PrecedingRule, Rule, Ruleset,
    TableFamily, desired, preceding_rules,
};

/// The check.
pub(super) fn order(expected: &Expectation, findings: &Findings, rules_found: &RulesFound) -> Check {
    let mut check = Check::new("rule_order");
    if expected.backend == Backend::None {
        check.ok("no rules are asked for");
        return check;
    }
    let has_iptables = matches!(rules_found.place, SocketHolder::Iptables(_));
    match &findings.node.nftables {
        Ok(ruleset) => {
            let foreign = ruleset
                .chains
                .iter()
                .filter(|chain| !is_ours(&chain.table) && chain.table != GUARD_TABLE_NAME && !is_of_iptables(chain));
            for chain in foreign.filter(|chain| concerns(expected, chain)) {
                beside(&mut check, chain);
            }
        }
        // Whoever holds rules through iptables may have no nftables at all.
        Err(_) if has_iptables => {}
        Err(error) => check.unknown(error.to_string(), RUN_WITH_PRIVILEGES),
    }
    match &findings.node.iptables {
        Ok(listings) => {
            for listing in listings.iter().filter(|listing| listing.table == IptablesTable::Raw) {
                first(&mut check, expected, listing, has_iptables);
            }
        }
        Err(_) if is_raw_empty(findings) => {}
        Err(error) => check.unknown(
            format!("iptables has rules in table raw that cannot be read here: {error}"),
            "look at them on the node: `iptables -t raw -S`; before ours, or beside them, nothing may drop or track DNS packets",
        ),
    }
    if check.seen.is_empty() {
        check.ok("nothing gets at DNS packets for these addresses before our rules, which stand ahead of connection tracking");
    }
    check
}

/// Somebody's nftables chain that packets go through before they are tracked.
fn beside(check: &mut Check, chain: &ListedChain) {
    let name = format!("nftables chain {} {} {}", chain.family.name(), chain.table, chain.name);
    let has = |effect| chain.rules.iter().any(|rule| rule.effects.contains(&effect));
    let look = || {
        format!("look whether it is about DNS: `nft list chain {} {} {}`", chain.family.name(), chain.table, chain.name)
    };
    if has(Effect::Drop) || chain.base.is_some_and(|base| base.drops) {
        check.warning(format!("{name}, at raw priority or before, drops packets"), look());
    }
    if has(Effect::Track) {
        check.warning(
            format!("{name} sets a connection tracking zone or helper, after which NOTRACK does nothing"),
            look(),
        );
    }
    if has(Effect::Rewrite) {
        check.warning(format!("{name} writes into packets before ours are looked at"), look());
    }
    if has(Effect::Jump) {
        check.warning(format!("{name} sends packets through chains that were not looked into"), look());
    }
}

/// What comes before our rules in an iptables chain, or, if ours are elsewhere, what is there.
fn first(check: &mut Check, expected: &Expectation, listing: &Listing, has_iptables: bool) {
    let is_query = |rule: &Rule| rule.hook.is_raw() && rule.mark.is_none() && rule.address.is_ipv6() == listing.is_ipv6;
    let rules = desired(&expected.spec, &Interception::of(&expected.spec.addresses)).rules;
    let matters = |preceding_rules: &PrecedingRule| match preceding_rules.target.as_str() {
        "ACCEPT" | "RETURN" => has_iptables && !listing.ours().is_empty(),
        _ => true,
    };
    let mut told: Vec<PrecedingRule> = Vec::new();
    for rule in rules.iter().filter(|rule| is_query(rule)) {
        for found in preceding_rules(IptablesTable::Raw, &listing.text, rule).into_iter().filter(|found| matters(found))
        {
            match told.iter_mut().find(|known| known.line == found.line) {
                Some(known) => known.is_certain |= found.is_certain,
                None => told.push(found),
            }
        }
    }
    for PrecedingRule { line, target, is_certain } in told {
        let what = match target.as_str() {
            "CT" => "has packets tracked",
            "DROP" | "REJECT" => "drops packets",
            _ => "lets packets past our rules",
        };
        let place = format!("{} -t raw: `{line}` comes first and", listing.program);
        let remedy = "find out whose rule it is; it must come after ours (restart the agent once it is gone from the front), or leave the \
                      cache's addresses out";
        match is_certain {
            true => check.problem(format!("{place} {what}"), remedy),
            false => check.warning(format!("{place} {what} that match it"), "look whether DNS queries match it"),
        }
    }
}

fn concerns(expected: &Expectation, chain: &ListedChain) -> bool {
    chain.sees_packets_untracked() && expected.spec.addresses.iter().any(|address| chain.family.sees(*address))
}

/// A chain that iptables programs of the nft kind keep; their listing says more.
fn is_of_iptables(chain: &ListedChain) -> bool {
    matches!(chain.family, TableFamily::Ip | TableFamily::Ip6)
        && chain.table == "raw"
        && ["PREROUTING", "OUTPUT"].contains(&&*chain.name)
}

/// Whether table raw can be told to hold nothing without a program to list it.
fn is_raw_empty(findings: &Findings) -> bool {
    let is_empty = |ruleset: &Ruleset| {
        ruleset.chains.iter().filter(|chain| is_of_iptables(chain)).all(|chain| chain.rules.is_empty())
    };
    findings.node.nftables.as_ref().is_ok_and(is_empty) && !findings.node.legacy_tables.iter().any(|name| name == "raw")
}
