//! Whether a firewall on the node lets untracked DNS packets in.

use super::RUN_WITH_RIGHTS;
use crate::doctor::diagnosis::Check;
use crate::doctor::findings::{Findings, Question};
use crate::node::{Family, Hook, Interception, IptablesTable, Listing, Place, Rule, ahead, desired};

/// What accepts DNS packets where the rest is dropped.
const ACCEPT: &str = "let the agent have iptables programs (docs/kubernetes.md, \"iptables\"), so that it adds its ACCEPT rules, or accept UDP \
                      and TCP packets to and from the cache's addresses and port there yourself";

/// The check.
pub fn filter(question: &Question, findings: &Findings) -> Check {
    let mut check = Check::new("filter");
    match &findings.node.iptables {
        Ok(listings) => {
            for listing in listings.iter().filter(|listing| listing.table == IptablesTable::Filter) {
                table(&mut check, question, listing);
            }
        }
        Err(error) => unlisted(&mut check, findings, error),
    }
    match &findings.node.nftables {
        Ok(ruleset) => {
            let dropping = ruleset.chains.iter().filter(|chain| {
                let drops = chain.base.is_some_and(|base| base.drops && base.at == Place::Input);
                drops && !is_of_iptables(chain.family, &chain.table)
            });
            for chain in dropping {
                let name = format!("{} {} {}", chain.family.name(), chain.table, chain.name);
                check.warning(
                    format!("nftables chain {name} drops what no rule of its own accepts, and no rule of ours can change that"),
                    format!(
                        "see that it accepts UDP and TCP port {} without connection tracking: `nft list chain {name}`",
                        question.wish.port
                    ),
                );
            }
        }
        // The programs have told what counts.
        Err(_) if findings.node.iptables.is_ok() => {}
        Err(error) => check.unknown(error.to_string(), RUN_WITH_RIGHTS),
    }
    if check.seen.is_empty() {
        check.ok("no firewall on the node drops DNS packets for these addresses");
    }
    check
}

fn table(check: &mut Check, question: &Question, listing: &Listing) {
    let ours = listing.ours();
    let rules = desired(&question.wish, &Interception::of(&question.wish.addresses)).rules;
    let mut lacking = None;
    let mut covered = 0;
    for rule in rules.iter().filter(|rule| !rule.hook.is_raw() && rule.address.is_ipv6() == listing.is_ipv6) {
        let is_there = ours.iter().any(|present| present.rule == *rule);
        let found = ahead(IptablesTable::Filter, &listing.text, rule);
        // The first that is sure to take the packet decides; what may take it before is not held against the node.
        let first = found.iter().find(|ahead| ahead.is_certain);
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
        check
            .problem(format!("{} -t filter: the policy is DROP, and nothing accepts {}", listing.program, packets(rule)), ACCEPT);
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

/// No program can list the table; what the kernel says without one may be enough.
fn unlisted(check: &mut Check, findings: &Findings, error: &crate::node::Error) {
    let drops = findings.node.nftables.as_ref().map(|ruleset| {
        let mut chains = ruleset.chains.iter().filter(|chain| is_of_iptables(chain.family, &chain.table));
        chains.any(|chain| chain.base.is_some_and(|base| base.drops && base.at == Place::Input))
    });
    let has_legacy = findings.node.legacy_tables.iter().any(|name| name == "filter");
    match drops {
        Ok(true) => check.problem(
            format!("iptables drops by default what comes in (INPUT), and no program is here to say or see to it that DNS is accepted: {error}"),
            ACCEPT,
        ),
        Ok(false) if !has_legacy => check.ok("iptables does not drop by default what comes in (INPUT)"),
        Ok(false) => check.unknown(
            format!("legacy iptables has a filter table that cannot be read here: {error}"),
            "look on the node: `iptables-legacy -S INPUT`; if it begins with `-P INPUT DROP`, DNS packets need ACCEPT rules",
        ),
        Err(_) => check.unknown(error.to_string(), RUN_WITH_RIGHTS),
    }
}

fn is_of_iptables(family: Family, table: &str) -> bool {
    matches!(family, Family::Ip | Family::Ip6) && table == "filter"
}
