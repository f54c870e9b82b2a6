//! The `prometheus` directive; see README.md beside this file.

mod parse;
mod process;
mod report;
#[cfg(test)]
mod tests;

pub use parse::parse;
pub use process::{Enabled, ProcessMetrics, publish_enabled};
pub use report::count_unserved;

use crate::chain::{BuildContext, BuildError, Built, Configured, Endpoint, HttpAnswer};
use crate::metrics::CONTENT_TYPE;
use report::Report;
use std::net::SocketAddr;
use std::sync::Arc;

/// `prometheus ADDRESS`.
#[derive(Debug, PartialEq, Eq)]
struct Prometheus {
    address: SocketAddr,
}

impl Configured for Prometheus {
    fn build(&self, context: &BuildContext<'_>) -> Result<Built, BuildError> {
        let registry = context.services.registry.clone();
        let zones: Vec<String> = context.block_zones.iter().map(ToString::to_string).collect();
        let report = Report::new(&registry, &zones, context.servers);
        let answer = Arc::new(move || HttpAnswer { status: 200, content_type: CONTENT_TYPE, body: registry.encode() });
        Ok(Built {
            observer: Some(Arc::new(report)),
            endpoints: vec![Endpoint { address: self.address, path: "/metrics", answer }],
            ..Built::default()
        })
    }
}
