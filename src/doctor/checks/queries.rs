//! Judges what came of the doctor's test queries: to the cache, to cluster DNS, by each transport.

use super::{is_any_at_work, list};
use crate::chain::Transport;
use crate::doctor::diagnosis::Check;
use crate::doctor::findings::{Expectation, Findings, QueryPath, QueryReply, TestQuery};
use crate::message::Rcode;
use std::collections::BTreeSet;
use std::net::IpAddr;

/// Whether every query of a program on the host's network is answered by our server. None if none could be sent.
pub(super) fn are_all_ours(findings: &Findings) -> Option<bool> {
    let replies: Vec<&QueryReply> =
        of(findings, QueryPath::Client).flat_map(|test_queries| &test_queries.replies).collect();
    let could_ask = !replies.is_empty() && !replies.iter().any(|reply| matches!(reply, QueryReply::Failed(_)));
    could_ask.then(|| replies.iter().all(|reply| matches!(reply, QueryReply::Ours(_))))
}

fn of(findings: &Findings, way: QueryPath) -> impl Iterator<Item = &TestQuery> {
    findings.test_queries.iter().filter(move |test_queries| test_queries.way == way)
}

/// The question that only our server can answer, asked as a program on the host's network asks.
pub(super) fn host(expected: &Expectation, findings: &Findings) -> Check {
    let mut check = Check::new("queries");
    let (mut good, mut servers) = (Vec::new(), BTreeSet::<u64>::new());
    for test_queries in of(findings, QueryPath::Client) {
        let TestQuery { address, transport, .. } = test_queries;
        let here = format!("{address} over {}", transport.label());
        let count = test_queries.replies.len();
        let ours = test_queries
            .replies
            .iter()
            .filter_map(|reply| if let QueryReply::Ours(number) = reply { Some(*number) } else { None });
        let ours: Vec<u64> = ours.collect();
        servers.extend(ours.iter().copied());
        let Some(other) = test_queries.replies.iter().find(|reply| !matches!(reply, QueryReply::Ours(_))) else {
            good.push(here);
            continue;
        };
        let is_serving = is_serving(findings, *address, *transport);
        let share = if ours.is_empty() {
            String::new()
        } else {
            format!(" ({} of {count} were answered by our server)", ours.len())
        };
        let (seen, advice) = match other {
            QueryReply::Other(rcode) => {
                let seen = format!("{here}: answered by somebody else than our server ({}){share}", code(*rcode));
                let is_held = super::proxy::is_held_by_ipvs(findings, *address);
                (seen, if is_held { HELD_BY_IPVS.to_owned() } else { elsewhere(expected, is_serving) })
            }
            QueryReply::Refused => (format!("{here}: nobody listens{share}"), nobody(findings)),
            QueryReply::Silent => (format!("{here}: no answer{share}"), silence(is_serving)),
            QueryReply::Failed(error) => {
                check.unknown(format!("{here}: cannot ask: {error}"), "see `link` and `addresses`");
                continue;
            }
            QueryReply::Ours(_) => continue,
        };
        check.problem(seen, advice);
    }
    if !good.is_empty() {
        let who = if servers.len() > 1 {
            format!("{} servers of ours (an update?)", servers.len())
        } else {
            "our server".to_owned()
        };
        check.ok(format!("asked as programs on the host's network ask, {who} answered at {}", list(good)));
    }
    if check.seen.is_empty() {
        check.unknown("nothing was asked", "");
    }
    check
}

/// Whether our server answers what goes to the sockets whatever the rules say. None if that could not be asked (no
/// NET_ADMIN).
fn is_serving(findings: &Findings, address: IpAddr, transport: Transport) -> Option<bool> {
    let test_queries = of(findings, QueryPath::Marked)
        .find(|test_queries| test_queries.address == address && test_queries.transport == transport)?;
    match test_queries.replies.first()? {
        QueryReply::Failed(_) => None,
        reply => Some(matches!(reply, QueryReply::Ours(_))),
    }
}

const HELD_BY_IPVS: &str =
    "kube-proxy holds the address (kube-ipvs0) and takes its packets whatever the rules say: see `kube_proxy`";

fn elsewhere(expected: &Expectation, is_serving: Option<bool>) -> String {
    match is_serving {
        Some(true) => format!(
            "our server does answer there: only the way to it is not taken. See `rules` and `rule_order`; if both are good, something \
             redirects queries before packets are made (Cilium's socket load balancing does; it needs a CiliumLocalRedirectPolicy), or another \
             program shares port {} (`sockets`)",
            expected.spec.port
        ),
        _ => "see `rules`, `rule_order`, `sockets` and `agent`, in that order".to_owned(),
    }
}

fn silence(is_serving: Option<bool>) -> String {
    match is_serving {
        Some(true) => "our server does answer there what the watchdog asks: something drops packets on the way. See `filter` and `rule_order`",
        Some(false) => "our server does not answer: see `agent` and `sockets`; the watchdog replaces a server that hangs within a second",
        None => "see `agent`, `sockets` and `filter`, in that order",
    }
    .to_owned()
}

fn nobody(findings: &Findings) -> String {
    match is_any_at_work(findings) {
        true => "see `sockets`, and in the agent's log why its server does not serve",
        false => "start the agent",
    }
    .to_owned()
}

/// An ordinary name, as any program asks.
pub(super) fn name(expected: &Expectation, findings: &Findings) -> Check {
    let mut check = Check::new("name");
    let (name, mut good) = (&expected.name, Vec::new());
    for test_queries in of(findings, QueryPath::Name) {
        let TestQuery { address, transport, .. } = test_queries;
        let here = format!("{name} at {address} over {}", transport.label());
        match test_queries.replies.first() {
            Some(QueryReply::Other(Rcode::NOERROR)) => good.push(format!("{address} over {}", transport.label())),
            Some(QueryReply::Other(Rcode::NXDOMAIN)) => check.warning(
                format!("{here}: does not exist (NXDOMAIN)"),
                "is the cluster's domain another one? Ask for a name that is there: `--name kubernetes.default.svc.DOMAIN.`",
            ),
            Some(QueryReply::Other(rcode)) => check.problem(
                format!("{here}: {}", code(*rcode)),
                "the cache could not get it: see that KubeDNS runs, and that network policies let this node's addresses in, UDP and TCP port 53",
            ),
            Some(QueryReply::Silent) => check.problem(
                format!("{here}: no answer"),
                "if `queries` is good, the cache waits for KubeDNS: see that it runs and that this node reaches it, UDP and TCP port 53",
            ),
            Some(QueryReply::Refused) => check.problem(format!("{here}: nobody listens"), "see `queries`"),
            Some(QueryReply::Failed(error)) => check.unknown(format!("{here}: cannot ask: {error}"), "see `link` and `addresses`"),
            Some(QueryReply::Ours(_)) | None => {}
        }
    }
    if !good.is_empty() {
        check.ok(format!("{name} is answered at {}", list(good)));
    }
    if check.seen.is_empty() {
        check.unknown("nothing was asked", "");
    }
    check
}

fn code(rcode: Rcode) -> String {
    rcode.to_string()
}
