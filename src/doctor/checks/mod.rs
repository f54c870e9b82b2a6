//! Makes a diagnosis of the findings: one check for each thing that may be wrong. Pure.

mod agent;
mod connections;
mod filter;
mod link;
mod order;
mod privileges;
mod proxy;
mod queries;
mod rules;
mod sockets;

use super::diagnosis::Diagnosis;
use super::findings::{AgentProcess, Expectation, Findings};
use rules::RulesFound;

/// The program's name; others that take its flags are the reference.
const OURS: &str = "nodelocaldns";

/// Makes a diagnosis of what was seen.
pub fn diagnose(expected: &Expectation, findings: &Findings) -> Diagnosis {
    let rules_found = RulesFound::of(expected, findings);
    let queries = queries::host(expected, findings);
    let intercepted = match (queries::are_all_ours(findings), rules_found.lets_pods_in(expected)) {
        (Some(false), _) | (_, Some(false)) => Some(false),
        (Some(true), Some(true)) => Some(true),
        _ => None,
    };
    let mut checks = vec![
        agent::process(findings),
        link::link(expected, findings),
        link::addresses(expected, findings),
        rules::rules(expected, findings, &rules_found),
        order::order(expected, findings, &rules_found),
        filter::filter(expected, findings),
        sockets::sockets(expected, findings),
        queries,
        queries::name(expected, findings),
        rules::pod_path(expected, findings, &rules_found),
        proxy::kube_proxy(expected, findings),
        proxy::fallback(expected, findings),
        connections::connections(findings),
        agent::metrics(expected, findings),
        agent::health(expected, findings),
    ];
    let advice = privileges::advice(findings.privileges);
    let lacking = checks.iter_mut().flat_map(|check| &mut check.advice).filter(|advice| *advice == RUN_WITH_PRIVILEGES);
    lacking.for_each(|lacking| lacking.clone_from(&advice));
    Diagnosis::new(intercepted, checks)
}

/// Advice of checks that could not look: [`diagnose`] puts in its place what is to be done by whoever runs this.
const RUN_WITH_PRIVILEGES: &str = "get the rights";

/// The agents that are ours.
fn ours(findings: &Findings) -> impl Iterator<Item = &AgentProcess> {
    findings.agents.iter().filter(|agent| agent.program == OURS)
}

/// Whether any agent is at work here, seen or not.
fn is_any_at_work(findings: &Findings) -> bool {
    findings.node.has_agent || !findings.agents.is_empty()
}

/// `a, b and c`.
fn list<T: ToString>(items: impl IntoIterator<Item = T>) -> String {
    let items: Vec<String> = items.into_iter().map(|item| item.to_string()).collect();
    match items.split_last() {
        Some((last, [])) => last.clone(),
        Some((last, rest)) => format!("{} and {last}", rest.join(", ")),
        None => "none".to_owned(),
    }
}

#[cfg(test)]
mod tests;
