//! The `dns64` directive gives names that have no IPv6 address one that leads to their IPv4 address through a NAT64
//! (RFC 6147), for clients that have IPv6 alone; see README.md beside this file.

mod handler;
mod parse;
mod prefix;
#[cfg(test)]
mod tests;

pub(super) use parse::parse;

use crate::chain::{BuildContext, BuildError, Built, Configured};
use crate::metrics::Counter;
use handler::Dns64;
use prefix::Prefix;
use std::sync::Arc;

const KEYWORD: &str = "dns64";

/// A `dns64` as configured.
#[derive(Clone, Debug, Default, PartialEq)]
struct Dns64Config {
    prefix: Prefix,
    translate_all: bool,
    allow_ipv4: bool,
}

impl Configured for Dns64Config {
    fn build(&self, context: &BuildContext<'_>) -> Result<Built, BuildError> {
        let counter = |server: &String| -> Arc<Counter> {
            Arc::new(context.process.registry.counter(
                "coredns_dns64_requests_translated_total",
                "Counter of DNS requests translated by dns64.",
                &[("server", server)],
            ))
        };
        let translated = context.servers.iter().map(counter).collect();
        Ok(Built { handler: Some(Arc::new(Dns64 { config: self.clone(), translated })), ..Built::default() })
    }
}
