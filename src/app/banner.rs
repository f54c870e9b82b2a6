//! The banner that is printed at start: the addresses that are served, and a `dig` command to try.

use crate::net::reachable_address;
use crate::plan::Plan;
use std::fmt::Write;

/// A few readable lines about what is served.
pub(super) fn banner(plan: &Plan) -> String {
    let mut text = format!("nodelocaldns {} serves\n", env!("CARGO_PKG_VERSION"));
    for line in &plan.summary {
        // Writing to a String cannot fail.
        let _ = writeln!(text, "  {line}");
    }
    for endpoint in &plan.endpoints {
        let scheme = if plan.is_over_tls(endpoint.address) { "https" } else { "http" };
        let _ = writeln!(
            text,
            "  {scheme}://{}{}",
            reachable_address(endpoint.address, endpoint.address.is_ipv6()),
            endpoint.path
        );
    }
    if let Some(listener) = plan.listeners.iter().find(|listener| listener.protocol.is_plain()) {
        let address = reachable_address(listener.address, listener.address.is_ipv6());
        let _ = writeln!(text, "try: dig @{} -p {} example.org", address.ip(), address.port());
    }
    text
}
