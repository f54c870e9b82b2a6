//! What was seen, and what it means. Pure.

mod agent;
mod connections;
mod filter;
mod link;
mod order;
mod proxy;
mod queries;
mod rights;
mod rules;
mod sockets;

use super::diagnosis::Diagnosis;
use super::findings::{Agent, Findings, Question};
use rules::Standing;

/// The program's name; others that take its flags are the reference.
const OURS: &str = "nodelocaldns";

/// Makes a diagnosis of what was seen.
pub fn judge(question: &Question, findings: &Findings) -> Diagnosis {
    let standing = Standing::of(question, findings);
    let queries = queries::host(question, findings);
    let intercepted = match (queries::are_all_ours(findings), standing.lets_pods_in(question)) {
        (Some(false), _) | (_, Some(false)) => Some(false),
        (Some(true), Some(true)) => Some(true),
        _ => None,
    };
    let mut checks = vec![
        agent::process(findings),
        link::link(question, findings),
        link::addresses(question, findings),
        rules::rules(question, findings, &standing),
        order::order(question, findings, &standing),
        filter::filter(question, findings),
        sockets::sockets(question, findings),
        queries,
        queries::name(question, findings),
        rules::pod_path(question, findings, &standing),
        proxy::kube_proxy(question, findings),
        proxy::fallback(question, findings),
        connections::connections(findings),
        agent::metrics(question, findings),
        agent::health(question, findings),
    ];
    let advice = rights::advice(findings.rights);
    let lacking = checks.iter_mut().flat_map(|check| &mut check.advice).filter(|advice| *advice == RUN_WITH_RIGHTS);
    lacking.for_each(|lacking| lacking.clone_from(&advice));
    Diagnosis::new(intercepted, checks)
}

/// Advice of checks that could not look: [`judge`] puts in its place what is to be done by whoever runs this.
const RUN_WITH_RIGHTS: &str = "get the rights";

/// The agents that are ours.
fn ours(findings: &Findings) -> impl Iterator<Item = &Agent> {
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
