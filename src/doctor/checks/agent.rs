//! The agent itself: its processes, its metrics, its health.

use super::{OURS, list, ours};
use crate::doctor::diagnosis::Check;
use crate::doctor::findings::{Expectation, Findings, HttpPage};
use std::net::SocketAddr;

const GAUGE: &str = "nodelocaldns_watchdog_interception";
/// The same for each address.
const GAUGE_OF_ADDRESS: &str = "nodelocaldns_watchdog_intercepted";
const LOOK_AT_LOG: &str =
    "the agent's log says since when and why: `kubectl logs -n kube-system -l k8s-app=node-local-dns`";

/// Whether an agent runs, and whether it may.
pub(super) fn process(findings: &Findings) -> Check {
    let mut check = Check::new("agent");
    for agent in &findings.agents {
        let role = if agent.is_server { "server" } else { "watchdog" };
        let who = match agent.program.as_str() {
            OURS => format!("{role}, process {}", agent.pid),
            other => format!("{other}, process {}, which is another program than {OURS}", agent.pid),
        };
        match (agent.is_stopped, agent.is_server) {
            (false, _) => check.ok(format!("{who}, runs")),
            (true, false) => check.problem(
                format!("{who}, is stopped (by SIGSTOP or a debugger): nobody mends what breaks, and its server is not watched"),
                format!("`kill -CONT {}`, or restart the pod", agent.pid),
            ),
            (true, true) => {
                check.problem(
                    format!("{who}, is stopped (by SIGSTOP or a debugger): it answers nobody"),
                    format!("`kill -CONT {}`; a watchdog that runs replaces it within a second", agent.pid),
                );
            }
        }
    }
    let watchdogs = ours(findings).filter(|agent| !agent.is_server).count();
    if findings.agents.is_empty() {
        match findings.node.has_agent {
            true => check.ok("one runs on this node, in a process namespace that cannot be seen into from here"),
            false if !findings.elsewhere.is_empty() => check.problem(
                format!(
                    "none runs in this network namespace; process {} is an agent of another one, so nothing of what follows is about it",
                    list(&findings.elsewhere)
                ),
                format!(
                    "look where it is: `nsenter --target {} --net nodelocaldns doctor`; if that is not this node's, see why its own pod is not there: \
                     `kubectl get pods -n kube-system -l k8s-app=node-local-dns -o wide`",
                    list(findings.elsewhere.first())
                ),
            ),
            false => check.problem(
                "none runs on this node",
                "see why its pod is not there: `kubectl get pods -n kube-system -l k8s-app=node-local-dns -o wide`",
            ),
        }
    } else if watchdogs > 1 {
        check.ok(format!("{watchdogs} agents at once, as during an update"));
    }
    check
}

/// What the watchdog itself says about the interception.
pub(super) fn metrics(expected: &Expectation, findings: &Findings) -> Check {
    let mut check = Check::new("metrics");
    let Some((address, page)) = &findings.metrics else {
        check.ok("no metrics endpoint is configured");
        return check;
    };
    let body = text(page);
    let gauge = body.as_ref().map(|body| gauge(body));
    let wants_rules = expected.backend != crate::node::Backend::None;
    match gauge {
        Ok(Some(1.0)) => check.ok(format!("http://{address}/metrics: {GAUGE} is 1")),
        Ok(Some(_)) if !wants_rules => check.ok(format!("http://{address}/metrics: {GAUGE} is 0, as without rules")),
        Ok(Some(value)) => {
            let of = match body.as_deref().map(not_intercepted).unwrap_or_default() {
                addresses if addresses.is_empty() => String::new(),
                addresses => format!(" queries for {}", list(addresses)),
            };
            check.problem(
                format!("http://{address}/metrics: {GAUGE} is {value}: the agent does not intercept{of}"),
                LOOK_AT_LOG,
            );
        }
        Ok(None) => check.warning(
            format!("http://{address}/metrics has no {GAUGE}: it is another program's"),
            "give the agent a `-metrics-listen-address` of its own, and the same to doctor",
        ),
        Err(error) => check.problem(
            format!("http://{address}/metrics: {error}"),
            "see that the agent runs, and that doctor was given its `-metrics-listen-address`",
        ),
    }
    check
}

/// What kubelet asks.
pub(super) fn health(expected: &Expectation, findings: &Findings) -> Check {
    let mut check = Check::new("health");
    let port = expected.spec.health_port;
    if findings.listeners.is_err() {
        check.unknown(
            format!("whether anybody listens on TCP port {port} could not be seen"),
            super::RUN_WITH_PRIVILEGES,
        );
        return check;
    }
    let (mut good, mut any) = (Vec::new(), false);
    for (address, page) in &findings.health {
        any = true;
        match text(page) {
            Ok(_) => good.push(*address),
            Err(error) => check.problem(
                format!("http://{address}/health: {error}"),
                "kubelet will restart the pod when its probe sees the same; `nodelocaldns` answers there only while a server lives",
            ),
        }
    }
    if !good.is_empty() {
        check.ok(format!(
            "{} says OK",
            list(good.iter().map(|address: &SocketAddr| format!("http://{address}/health")))
        ));
    }
    if !any {
        check.warning(
            format!("nobody listens on TCP port {port} of {}", list(&expected.spec.addresses)),
            "if the Corefile has `health`, the server is not running; if it has another port, give it to doctor with -health-port",
        );
    }
    check
}

/// The page's body, if its status is 200.
fn text(page: &HttpPage) -> Result<String, String> {
    match page {
        Ok((200, body)) => Ok(body.clone()),
        Ok((status, _)) => Err(format!("status {status}")),
        Err(error) => Err(error.clone()),
    }
}

/// The gauge's value in an exposition.
fn gauge(exposition: &str) -> Option<f64> {
    exposition.lines().find_map(|line| line.strip_prefix(GAUGE)?.strip_prefix(' ')?.trim().parse().ok())
}

/// The addresses that are not intercepted, as an exposition has them.
fn not_intercepted(exposition: &str) -> Vec<&str> {
    exposition
        .lines()
        .filter_map(|line| line.strip_prefix(GAUGE_OF_ADDRESS)?.strip_prefix("{address=\"")?.strip_suffix("\"} 0"))
        .collect()
}
