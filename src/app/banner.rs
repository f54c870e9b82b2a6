//! What a person reads at start: where it listens, and a line to try.

use crate::plan::Plan;
use std::fmt::Write;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

/// A few readable lines about what is served.
pub fn banner(plan: &Plan) -> String {
    let mut text = format!("nodelocaldns {} serves\n", env!("CARGO_PKG_VERSION"));
    for line in &plan.summary {
        // Writing to a String cannot fail.
        let _ = writeln!(text, "  {line} (UDP and TCP)");
    }
    for endpoint in &plan.endpoints {
        let _ = writeln!(text, "  http://{}{}", reachable(endpoint.address), endpoint.path);
    }
    if let Some(listener) = plan.listeners.first() {
        let address = reachable(listener.address);
        let _ = writeln!(text, "try: dig @{} -p {} example.org", address.ip(), address.port());
    }
    text
}

/// An address a client on this machine can use: the loopback one for the unspecified.
fn reachable(address: SocketAddr) -> SocketAddr {
    let ip = match address.ip() {
        ip if !ip.is_unspecified() => ip,
        IpAddr::V4(_) => Ipv4Addr::LOCALHOST.into(),
        IpAddr::V6(_) => Ipv6Addr::LOCALHOST.into(),
    };
    SocketAddr::new(ip, address.port())
}
