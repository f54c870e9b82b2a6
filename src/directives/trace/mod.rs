//! The `trace` directive sends spans of queries to a collector of Zipkin's; see README.md beside this file.
//!
//! The chain asks the [`Tracer`] of each query, and records the [`Spans`] of those that it chooses. When such a query
//! is over, the [`Observer`] makes a [`zipkin::QueryTrace`] of them, which the [`reporter`] sends.

mod parse;
mod reporter;
#[cfg(test)]
mod tests;
mod zipkin;

pub use parse::parse;

use crate::chain::{
    BuildContext, BuildError, Built, Configured, Exchange, Observer, PacketHits, Request, Spans, Tracer,
};
use parse::Endpoint;
use reporter::{Reporter, ReporterConfig};
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant, SystemTime};
use zipkin::{LocalEndpoint, QueryTrace};

const KEYWORD: &str = "trace";

/// `trace` of a server block.
struct TraceConfig {
    /// `None` after a diagnostic.
    endpoint: Option<Endpoint>,
    /// Of so many queries one is traced; 0: none.
    every: u64,
    service: String,
    /// Spans that wait.
    backlog: usize,
    /// Spans that are sent at once.
    batch: usize,
    interval: Duration,
}

impl Default for TraceConfig {
    /// CoreDNS' plugin/trace, and zipkin-go's reporter.
    fn default() -> Self {
        Self {
            endpoint: None,
            every: 1,
            service: "coredns".to_owned(),
            backlog: 1000,
            batch: 100,
            interval: Duration::from_secs(1),
        }
    }
}

impl Configured for TraceConfig {
    fn build(&self, context: &BuildContext<'_>) -> Result<Built, BuildError> {
        let Some(Endpoint { url, host, port, path, tls }) = self.endpoint.as_ref().filter(|_| self.every > 0) else {
            return Ok(Built::default());
        };
        let listens =
            context.servers.first().and_then(|label| label.strip_prefix("dns://")?.parse::<SocketAddr>().ok());
        let config = ReporterConfig {
            url: url.clone(),
            host: host.clone(),
            port: *port,
            path: path.clone(),
            tls: tls.clone(),
            local: LocalEndpoint::new(&self.service, listens.filter(|listens| !listens.ip().is_unspecified())),
            backlog: self.backlog,
            batch: self.batch,
            interval: self.interval,
        };
        let reporter = Reporter::adopt_or_new(&config, context.process)?;
        let tracer = Arc::new(QueryTracer { every: self.every, count: AtomicU64::new(0), reporter });
        Ok(Built { tracer: Some(tracer.clone()), observer: Some(tracer), ..Built::default() })
    }
}

/// Traces one of so many queries.
struct QueryTracer {
    every: u64,
    count: AtomicU64,
    reporter: Arc<Reporter>,
}

impl Tracer for QueryTracer {
    fn is_sampled(&self) -> bool {
        self.every == 1 || (self.count.fetch_add(1, Ordering::Relaxed) + 1).is_multiple_of(self.every)
    }

    fn begin(&self) -> Arc<Spans> {
        Arc::new(Spans::new(rand::random_range(1..=u64::MAX), Instant::now()))
    }
}

impl Observer for QueryTracer {
    fn explain(&self, _request: &Request<'_>) -> String {
        match self.every {
            1 => "is traced".to_owned(),
            every => format!("one of {every} is traced"),
        }
    }

    fn observe(&self, exchange: &Exchange<'_>) {
        let Some(spans) = Spans::current() else { return };
        let (request, query) = (&exchange.request, exchange.request.query);
        let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
        self.reporter.report(QueryTrace {
            trace_id: spans.trace_id,
            start: now.saturating_sub(exchange.elapsed),
            duration: exchange.elapsed,
            spans: spans.recorded(),
            spans_start: now.saturating_sub(spans.begun.elapsed()),
            name: query.name.to_name().to_string(),
            qtype: query.qtype.to_string(),
            rcode: exchange.rcode.to_string(),
            proto: request.peer.transport.label(),
            remote: request.peer.client.ip(),
            error: exchange.failure.map(ToString::to_string),
        });
    }

    fn packet_hits(&self, _exchange: &Exchange<'_>) -> PacketHits {
        // Those that are traced are no hits of the packet cache.
        PacketHits::Ignore
    }
}
