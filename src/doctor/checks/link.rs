//! The link and its addresses.

use super::{RUN_WITH_PRIVILEGES, is_any_at_work, list};
use crate::doctor::diagnosis::Check;
use crate::doctor::findings::{Expectation, Findings};
use std::net::IpAddr;

/// Whether the link exists and is up, and whose it is.
pub(super) fn link(expected: &Expectation, findings: &Findings) -> Check {
    let mut check = Check::new("link");
    let Some(name) = &expected.spec.interface else {
        check.ok("none is asked for (-setupinterface=false)");
        return check;
    };
    match &findings.node.link {
        Err(error) => check.unknown(error.to_string(), RUN_WITH_PRIVILEGES),
        Ok(None) => check.problem(format!("there is no link {name}"), advice(findings, name)),
        Ok(Some(link)) => {
            let kind = link.kind.as_deref().unwrap_or("a network card");
            let origin = if link.is_made_by_an_agent() { "made by an agent" } else { "there before, adopted" };
            if link.name != *name {
                check.warning(
                    format!("it is called {} by now, since somebody has renamed it; it is used all the same", link.name),
                    format!(
                        "find out who renames links (udev, systemd-networkd, NetworkManager) and have that leave {name} alone; the agent gives \
                         it back its name once no other link has that"
                    ),
                );
            }
            match link.is_up {
                true => check.ok(format!("{name} exists ({kind}, {origin}) and is up")),
                false => check.problem(
                    format!("{name} exists ({kind}, {origin}) but is down: its addresses take no queries"),
                    if is_any_at_work(findings) {
                        advice(findings, name)
                    } else {
                        format!("`ip link set {name} up`, or start the agent, which does it")
                    },
                ),
            }
        }
    }
    check
}

/// Whether the link carries every address.
pub(super) fn addresses(expected: &Expectation, findings: &Findings) -> Check {
    let mut check = Check::new("addresses");
    let wanted = crate::node::desired(&expected.spec, &crate::node::Interception::default()).link;
    let (Some(wanted), Ok(view)) = (wanted, &findings.node.link) else {
        match &findings.node.link {
            Err(error) => check.unknown(error.to_string(), RUN_WITH_PRIVILEGES),
            Ok(_) => check.ok("none is asked for (-setupinterface=false)"),
        }
        return check;
    };
    let carried = view.iter().flat_map(|link| &link.addresses).map(|(address, _)| address).collect::<Vec<_>>();
    let (there, missing): (Vec<&IpAddr>, Vec<&IpAddr>) =
        wanted.addresses.iter().partition(|address| carried.contains(address));
    if !there.is_empty() {
        check.ok(format!("{} on {}", list(there), wanted.name));
    }
    if !missing.is_empty() {
        let off = &findings.node.ipv6_disabled_by;
        let (disabled, missing): (Vec<&IpAddr>, Vec<&IpAddr>) =
            missing.into_iter().partition(|address| address.is_ipv6() && !off.is_empty());
        if !disabled.is_empty() {
            check.problem(
                format!(
                    "{} not on {}: IPv6 is disabled there ({} = 1)",
                    list(disabled),
                    wanted.name,
                    off.join(" = 1, ")
                ),
                format!("`sysctl -w {}=0`, or leave the IPv6 addresses out of -localip", off.join("=0 ")),
            );
        }
        if !missing.is_empty() {
            check.problem(format!("{} not on {}", list(missing), wanted.name), advice(findings, &wanted.name));
        }
    }
    check
}

/// The agent does this by itself, at once; so if it has not, it cannot.
fn advice(findings: &Findings, name: &str) -> String {
    match is_any_at_work(findings) {
        true => format!(
            "the agent mends {name} the moment it changes: see why it does not (is it stopped? `interface_add` and `interface_check` in \
             coredns_nodecache_setup_errors_total, and its log)"
        ),
        false => "start the agent, which makes it".to_owned(),
    }
}
