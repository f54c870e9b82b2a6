//! The `prometheus` directive serves the metrics of the whole program over HTTP at `/metrics`, and counts the queries
//! of the server block it stands in; see README.md beside this file.

mod parse;
mod process;
mod report;
#[cfg(test)]
mod tests;
mod web_config;

pub(crate) use parse::parse;
pub(crate) use process::{ProcessMetrics, publish_enabled};

use crate::chain::{BuildContext, BuildError, Built, Configured, Endpoint, Observer};
use crate::metrics::UNSERVED_ZONE;
use crate::net::tls::ServerTls;
use report::Report;
use std::net::SocketAddr;
use std::sync::Arc;

/// `prometheus ADDRESS { tls FILE }`.
#[derive(Debug, PartialEq, Eq)]
struct Prometheus {
    /// `None`: queries are counted, and nothing is served here.
    address: Option<SocketAddr>,
    /// `None`: metrics are served without TLS.
    tls: Option<ServerTls>,
}

impl Configured for Prometheus {
    fn build(&self, context: &BuildContext<'_>) -> Result<Built, BuildError> {
        let registry = context.process.registry.clone();
        let zones: Vec<String> = context.block_zones.iter().map(ToString::to_string).collect();
        let report = Report::new(&registry, &zones, context.servers, context.view_name());
        let unserved = |server: &String| -> Arc<dyn Observer> {
            Arc::new(Report::new(&registry, &[UNSERVED_ZONE.to_owned()], std::slice::from_ref(server), ""))
        };
        let unmatched = context.servers.iter().map(unserved).collect();
        let other = &context.process.other_metrics;
        let endpoint = |address| Endpoint::metrics(address, registry.clone(), other.clone()).over(self.tls.clone());
        Ok(Built {
            observer: Some(Arc::new(report)),
            unmatched,
            endpoints: self.address.map(endpoint).into_iter().collect(),
            ..Built::default()
        })
    }
}
