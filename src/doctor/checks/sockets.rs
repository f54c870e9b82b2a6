//! Who listens on each address.

use super::{OURS, RUN_WITH_PRIVILEGES, list};
use crate::chain::Transport;
use crate::doctor::diagnosis::Check;
use crate::doctor::findings::{Expectation, Findings, ListeningSocket, QueryPath, QueryReply, TestQuery};
use std::collections::BTreeSet;
use std::net::IpAddr;

/// Whose a socket is.
#[derive(Debug, PartialEq, Eq)]
enum SocketOwner {
    Ours,
    Other(String),
    Unseen,
}

/// The check.
pub(super) fn sockets(expected: &Expectation, findings: &Findings) -> Check {
    let mut check = Check::new("sockets");
    let listeners = match &findings.listeners {
        Ok(listeners) => listeners,
        Err(error) => {
            check.unknown(format!("the sockets of this node cannot be listed: {error}"), RUN_WITH_PRIVILEGES);
            return check;
        }
    };
    let mut good = Vec::new();
    for address in &expected.spec.addresses {
        for transport in [Transport::Udp, Transport::Tcp] {
            if socket(&mut check, expected, findings, listeners, *address, transport) {
                good.push(format!("{address} ({})", transport.label()));
            }
        }
    }
    if !good.is_empty() {
        check.ok(format!("our server listens on port {} of {}", expected.spec.port, list(good)));
    }
    check
}

/// Whether the sockets of one address and transport are ours alone; else the check tells.
fn socket(
    check: &mut Check,
    expected: &Expectation,
    findings: &Findings,
    listeners: &[ListeningSocket],
    address: IpAddr,
    transport: Transport,
) -> bool {
    let port = expected.spec.port;
    let here = format!("port {port} of {address} over {}", transport.label());
    let of_port =
        || listeners.iter().filter(|listener| listener.transport == transport && listener.address.port() == port);
    let exact: Vec<SocketOwner> =
        of_port().filter(|listener| listener.address.ip() == address).map(|it| owner(findings, it)).collect();
    // `::` takes IPv4 too, unless it is told not to, which cannot be seen.
    let takes_all = |listener: &&ListeningSocket| {
        let ip = listener.address.ip();
        ip.is_unspecified() && (ip.is_ipv6() || address.is_ipv4())
    };
    let wildcard: Vec<SocketOwner> = of_port().filter(takes_all).map(|listener| owner(findings, listener)).collect();
    let others = |owners: &[SocketOwner]| {
        let named = owners
            .iter()
            .filter_map(|owner| if let SocketOwner::Other(name) = owner { Some(name.clone()) } else { None });
        named.collect::<BTreeSet<String>>()
    };
    let stop_it = "have that program not listen there: two on one address share the queries";
    if !others(&exact).is_empty() {
        check.problem(format!("{here}: {} listens there", list(others(&exact))), stop_it);
        return false;
    }
    if exact.contains(&SocketOwner::Ours) || wildcard.contains(&SocketOwner::Ours) {
        if !others(&wildcard).is_empty() {
            check.warning(
                format!(
                    "{here}: ours, but {} listens on every address and would answer if ours were gone",
                    list(others(&wildcard))
                ),
                "have that program listen on its own addresses only",
            );
        }
        if exact.contains(&SocketOwner::Unseen) {
            beside_ours(check, findings, &here, address, transport);
        }
        return true;
    }
    if !exact.is_empty() || wildcard.contains(&SocketOwner::Unseen) {
        match proof(findings, address, transport) {
            Proof::Ours(_) => check.ok(format!("{here}: our server, in a process that cannot be seen from here")),
            Proof::Shared | Proof::None => {
                check.unknown(format!("{here}: a process listens that cannot be seen from here"), RUN_WITH_PRIVILEGES)
            }
        }
        return false;
    }
    match others(&wildcard) {
        names if names.is_empty() => check.problem(
            format!("{here}: nobody listens"),
            "the agent starts a server and opens its sockets: see that it runs, that the Corefile binds this address (`bind`), and its log",
        ),
        names => check.problem(format!("{here}: only {} listens, on every address, and answers instead of us", list(names)), stop_it),
    }
    false
}

/// A socket beside ours, whose process cannot be seen: the agent of another pod, during an update, or anybody.
fn beside_ours(check: &mut Check, findings: &Findings, here: &str, address: IpAddr, transport: Transport) {
    let find_out = "find out on the node who it is: `ss -lunp 'sport = 53'`, `ss -ltnp 'sport = 53'`; two on one address share the queries";
    match proof(findings, address, transport) {
        Proof::Ours(servers) if servers > 1 => {
            check.ok(format!("{here}: {servers} servers of ours, as during an update"))
        }
        Proof::Ours(_) | Proof::None => {
            check.unknown(
                format!("{here}: beside our server a process listens that cannot be seen from here"),
                find_out,
            );
        }
        Proof::Shared => {
            check.problem(
                format!("{here}: beside our server a process listens that cannot be seen from here, and gets queries"),
                find_out,
            );
        }
    }
}

/// What test queries say about who listens.
enum Proof {
    /// So many servers, all of ours.
    Ours(usize),
    /// Some are ours.
    Shared,
    None,
}

fn proof(findings: &Findings, address: IpAddr, transport: Transport) -> Proof {
    let of_socket = |test_queries: &&TestQuery| {
        test_queries.address == address && test_queries.transport == transport && test_queries.way != QueryPath::Name
    };
    let replies: Vec<&QueryReply> =
        findings.test_queries.iter().filter(of_socket).flat_map(|test_queries| &test_queries.replies).collect();
    let could_ask = |reply: &&&QueryReply| !matches!(reply, QueryReply::Failed(_));
    let test_queries = replies.iter().filter(could_ask).count();
    let numbers: Vec<u64> = replies
        .iter()
        .filter_map(|reply| if let QueryReply::Ours(number) = reply { Some(*number) } else { None })
        .collect();
    match numbers.len() {
        0 => Proof::None,
        ours if ours == test_queries => Proof::Ours(numbers.into_iter().collect::<BTreeSet<u64>>().len()),
        _ => Proof::Shared,
    }
}

fn owner(findings: &Findings, listener: &ListeningSocket) -> SocketOwner {
    let is_ours = |pid: i32| findings.agents.iter().any(|agent| agent.pid == pid && agent.program == OURS);
    if listener.holders.iter().any(|holder| is_ours(holder.pid)) {
        return SocketOwner::Ours;
    }
    match listener.holders.first() {
        Some(holder) => SocketOwner::Other(format!("{} (process {})", holder.program, holder.pid)),
        None => SocketOwner::Unseen,
    }
}
