//! The `prometheus` directive; see README.md beside this file.

mod parse;
mod process;
mod report;
#[cfg(test)]
mod tests;

pub(crate) use parse::parse;
pub(crate) use process::{ProcessMetrics, publish_enabled};

use crate::chain::{BuildContext, BuildError, Built, Configured, Endpoint, HttpAnswer, Observer};
use crate::metrics::CONTENT_TYPE;
use report::{Report, UNSERVED_ZONE};
use std::net::SocketAddr;
use std::sync::Arc;

/// `prometheus ADDRESS`.
#[derive(Debug, PartialEq, Eq)]
struct Prometheus {
    /// `None`: queries are counted, and nothing is served here.
    address: Option<SocketAddr>,
}

impl Configured for Prometheus {
    fn build(&self, context: &BuildContext<'_>) -> Result<Built, BuildError> {
        let registry = context.process.registry.clone();
        let zones: Vec<String> = context.block_zones.iter().map(ToString::to_string).collect();
        let report = Report::new(&registry, &zones, context.servers);
        let unserved = |server: &String| -> Arc<dyn Observer> {
            Arc::new(Report::new(&registry, &[UNSERVED_ZONE.to_owned()], std::slice::from_ref(server)))
        };
        let unmatched = context.servers.iter().map(unserved).collect();
        let answer =
            move || HttpAnswer { status: 200, content_type: CONTENT_TYPE, body: registry.encode().into_bytes() };
        Ok(Built {
            observer: Some(Arc::new(report)),
            unmatched,
            endpoints: self.address.map(|address| Endpoint::shared(address, "/metrics", answer)).into_iter().collect(),
            ..Built::default()
        })
    }
}
