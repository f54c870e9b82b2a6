//! Where taps write to. An endpoint has a queue and a thread, outlives a reload that keeps it as it is, and writes what
//! it still holds when nobody taps for it any longer, or the process ends.

use super::listener::Listener;
use super::queue::Queue;
use super::shared::{EndpointConfig, Mode, Shared};
use super::writer::Writer;
use crate::chain::{BuildError, Ending, Flush, ProcessContext};
use crate::metrics::{Counter, Gauge, Registry};
use crate::net::HostLookup;
use crate::threads;
use std::sync::Arc;
use std::time::Instant;

/// Octets that wait for a reader, for each of `QUEUE`. The reference counts 10,000 messages instead; one of a query and
/// its answer with their octets has 400 or less.
const QUEUE_OCTETS: usize = 4_000_000;

/// A running endpoint.
pub(super) struct Endpoint(Arc<Shared>);

impl Endpoint {
    /// That of the running plan if there is one as configured, else a new one.
    ///
    /// # Errors
    /// Its thread cannot be started.
    pub(super) fn adopt_or_new(config: &EndpointConfig, process: &ProcessContext) -> Result<Arc<Self>, BuildError> {
        process.adopt_or_start(&config.key(), || Self::start(config, process))
    }

    fn start(config: &EndpointConfig, process: &ProcessContext) -> Result<Self, BuildError> {
        let Series { sent, dropped, readers } = Series::new(&process.registry, &config.text);
        let is_wanted = matches!(config.mode, Mode::Connect { .. });
        let shared = Arc::new(Shared {
            queue: Queue::new(config.queue * QUEUE_OCTETS, process.workers, is_wanted, dropped),
            config: config.clone(),
            lookup: HostLookup { resolvers: Vec::new(), files: process.files.clone() },
            unix_sockets: process.unix_sockets.clone(),
            unix_threads: Arc::default(),
            sent,
            readers,
            ending: Ending::default(),
        });
        if !process.reaches_out {
            shared.ending.set_come();
            return Ok(Self(shared));
        }
        let make = || tokio::runtime::Builder::new_current_thread().enable_all().build();
        let of_thread = shared.clone();
        let body = move |runtime: tokio::runtime::Runtime| {
            runtime.block_on(async {
                match &of_thread.config.mode {
                    Mode::Connect { .. } => Writer::new(&of_thread).run().await,
                    Mode::Listen { .. } => Listener::new(&of_thread).run().await,
                }
            });
            runtime.shutdown_background();
            of_thread.ending.set_come();
        };
        threads::spawn_with_runtime("dnstap", None, make, body)
            .map_err(|error| BuildError(format!("dnstap cannot write to {}: {error}", config.text)))?;
        Ok(Self(shared))
    }

    /// Where it is, as the Corefile has it.
    pub(super) fn text(&self) -> &str {
        &self.0.config.text
    }

    /// Whether anybody reads what is written.
    pub(super) fn is_wanted(&self) -> bool {
        self.0.queue.is_wanted()
    }

    /// Queues `count` whole frames, or drops and counts them. Does not block.
    pub(super) fn write(&self, frames: &[u8], count: u64) {
        self.0.queue.push(frames, count);
    }
}

impl Drop for Endpoint {
    fn drop(&mut self) {
        self.0.ending.ask();
    }
}

impl Flush for Endpoint {
    fn begin_flush(&self) {
        self.0.ending.ask();
    }

    fn wait_flushed(&self, deadline: Instant) {
        self.0.ending.wait(deadline);
    }
}

/// Counters of an endpoint.
struct Series {
    sent: Counter,
    dropped: Counter,
    readers: Gauge,
}

impl Series {
    fn new(registry: &Registry, endpoint: &str) -> Self {
        let labels = &[("endpoint", endpoint)];
        Self {
            sent: registry.counter("nodelocaldns_dnstap_messages_total", "Messages that a reader was sent.", labels),
            dropped: registry.counter(
                "nodelocaldns_dnstap_dropped_total",
                "Messages that were dropped because their reader was not there or read too slowly.",
                labels,
            ),
            readers: registry.gauge(
                "nodelocaldns_dnstap_readers",
                "Readers that are connected and take dnstap.",
                labels,
            ),
        }
    }
}
