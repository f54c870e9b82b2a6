//! Connections to our addresses that the kernel tracks.

use super::{RUN_WITH_RIGHTS, list};
use crate::doctor::diagnosis::Check;
use crate::doctor::findings::Findings;
use std::collections::BTreeSet;

/// Tracked ones are looked at by kube-proxy's rules; there are none while queries are intercepted.
pub fn connections(findings: &Findings) -> Check {
    let mut check = Check::new("connections");
    match &findings.node.connections {
        Err(error) => check.unknown(error.to_string(), RUN_WITH_RIGHTS),
        Ok(connections) if connections.is_empty() => check.ok("no query for these addresses is tracked"),
        Ok(connections) => {
            let elsewhere: BTreeSet<_> = connections
                .iter()
                .filter_map(|connection| connection.answered_by.filter(|by| *by != connection.to))
                .map(|by| by.to_string())
                .collect();
            let ends = if elsewhere.is_empty() { String::new() } else { format!(", and answered by {}", list(elsewhere)) };
            let clients: BTreeSet<_> = connections.iter().map(|connection| connection.from.ip()).collect();
            let examples = list(clients.iter().take(3));
            let more = if clients.len() > 3 { " and others" } else { "" };
            check.warning(
                format!("{} connections to these addresses are tracked, from {examples}{more}{ends}", connections.len()),
                "those from before the interception are gone within 2 minutes: run doctor again then. If there are new ones, see `rules` and \
                 `rule_order`",
            );
        }
    }
    check
}
