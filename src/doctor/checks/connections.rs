//! Connections to our addresses that the kernel tracks.

use super::{RUN_WITH_PRIVILEGES, list};
use crate::doctor::diagnosis::Check;
use crate::doctor::findings::Findings;
use crate::node::ConnectionTable;
use std::collections::BTreeSet;

/// Tracked ones are looked at by kube-proxy's rules; while queries are intercepted there are only those that were begun
/// before.
pub(super) fn connections(findings: &Findings) -> Check {
    let mut check = Check::new("connections");
    if let Some(table) = findings.node.connection_table {
        room(&mut check, table);
    }
    match &findings.node.connections {
        Err(error) => check.unknown(error.to_string(), RUN_WITH_PRIVILEGES),
        Ok(connections) if connections.is_empty() => check.ok("no query for these addresses is tracked"),
        Ok(connections) => {
            let elsewhere: BTreeSet<_> = connections
                .iter()
                .filter_map(|connection| connection.answered_by.filter(|by| *by != connection.to))
                .map(|by| by.to_string())
                .collect();
            let ends =
                if elsewhere.is_empty() { String::new() } else { format!(", and answered by {}", list(elsewhere)) };
            let clients: BTreeSet<_> = connections.iter().map(|connection| connection.from.ip()).collect();
            let examples = list(clients.iter().take(3));
            let more = if clients.len() > 3 { " and others" } else { "" };
            check.warning(
                format!("{} connections to these addresses are tracked, from {examples}{more}{ends}", connections.len()),
                "those from before the interception are gone within 2 minutes, TCP connections that are in use when they end: run doctor again then. If \
                 there are new ones, see `rules` and `rule_order`",
            );
        }
    }
    check
}

/// Whether there is room for the cache's own queries to cluster DNS, which are tracked.
fn room(check: &mut Check, table: ConnectionTable) {
    let ConnectionTable { count, max, dropped } = table;
    let share = count.saturating_mul(100).checked_div(max).unwrap_or_default();
    let seen = format!("the kernel's table of connections (nf_conntrack) holds {count} of at most {max}");
    let drops = format!("{dropped} packets have been dropped for want of room in it since the machine started");
    let raise = format!(
        "raise it: `sysctl -w net.netfilter.nf_conntrack_max={}` (kube-proxy sets it, --conntrack-max-per-core), and find out who makes so many: \
         `conntrack -L`",
        max.saturating_mul(2).max(1)
    );
    match (share, dropped) {
        // 0 is without limit.
        _ if max == 0 => {}
        (FULL.., _) => check.problem(
            format!("{seen}: it is full, and packets of new connections are dropped, the cache's queries to cluster DNS among them; {drops}"),
            raise,
        ),
        (NEARLY_FULL.., _) => check.warning(format!("{seen}: it is nearly full; {drops}"), raise),
        (_, 1..) => check.warning(format!("{seen}, but {drops}: it was full at times, and names cannot be looked up then"), raise),
        _ => {}
    }
}

/// Parts of a hundred. The kernel begins to drop at all of it, and the number goes up and down all the time.
const FULL: u64 = 98;
const NEARLY_FULL: u64 = 85;
