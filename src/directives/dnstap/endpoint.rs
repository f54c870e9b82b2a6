//! Where taps write to. An endpoint has a queue and a thread, outlives a reload that keeps it as it is, and writes what
//! it still holds when nobody taps for it any longer, or the process ends.

use super::frames;
use super::listener::Listener;
use super::queue::Queue;
use super::writer::Writer;
use crate::chain::{BuildError, Ending, Flush, ProcessContext, UnixSockets};
use crate::metrics::{Counter, Gauge, Registry};
use crate::net::HostLookup;
use crate::net::tls::{ClientTls, ServerTls};
use crate::threads;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

/// Octets that wait for a reader, for each of `QUEUE`. The reference counts 10,000 messages instead; one of a query and
/// its answer with their octets has 400 or less.
const QUEUE_OCTETS: usize = 4_000_000;

/// How often the same trouble is told.
const TELL_INTERVAL: Duration = Duration::from_secs(60);

/// A socket.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Address {
    Unix(PathBuf),
    /// An address or a host name. One without a host, at which is listened, stands for all addresses.
    Tcp {
        host: String,
        port: u16,
    },
}

/// Who connects to whom.
#[derive(Clone)]
pub enum Mode {
    Connect {
        tls: Option<ClientTls>,
        /// Of the socket's send buffer.
        buffer_octets: usize,
    },
    Listen {
        tls: Option<ServerTls>,
    },
}

/// Where a tap writes to, as configured.
#[derive(Clone)]
pub struct EndpointConfig {
    /// As the Corefile has it.
    pub text: String,
    pub address: Address,
    pub mode: Mode,
    /// `QUEUE`: parts of [`QUEUE_OCTETS`].
    pub queue: usize,
}

impl EndpointConfig {
    /// The same for two that are one endpoint.
    fn key(&self) -> String {
        let Self { text, mode, queue, .. } = self;
        match mode {
            Mode::Connect { tls, buffer_octets } => {
                let tls = tls.as_ref().map(ClientTls::key).unwrap_or_default();
                format!("dnstap {text} {queue} {buffer_octets} {tls}")
            }
            Mode::Listen { tls } => {
                let tls = tls.as_ref().map(ServerTls::key).unwrap_or_default();
                format!("dnstap listen {text} {queue} {tls}")
            }
        }
    }
}

/// What the taps of an endpoint and its thread share.
pub struct Shared {
    pub config: EndpointConfig,
    pub queue: Queue,
    pub lookup: HostLookup,
    pub unix_sockets: UnixSockets,
    /// One for each thread that waits for such a socket.
    pub unix_threads: Arc<()>,
    /// Frames that readers were sent.
    pub sent: Counter,
    /// Readers that are connected.
    pub readers: Gauge,
    pub ending: Ending,
}

/// A running endpoint.
pub struct Endpoint(Arc<Shared>);

impl Endpoint {
    /// That of the running plan if there is one as configured, else a new one.
    ///
    /// # Errors
    /// Its thread cannot be started.
    pub fn adopt_or_new(config: &EndpointConfig, process: &ProcessContext) -> Result<Arc<Self>, BuildError> {
        let key = config.key();
        if let Some(running) = process.reload_state.find::<Self>(&key) {
            return Ok(running);
        }
        let endpoint = Self::start(config, process)?;
        let endpoint = process.reload_state.adopt_or(&key, || endpoint);
        let held: Arc<dyn Flush> = endpoint.clone();
        process.at_stop.add(Arc::downgrade(&held));
        Ok(endpoint)
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

    /// Whether anybody reads what is written.
    pub fn is_wanted(&self) -> bool {
        self.0.queue.is_wanted()
    }

    /// Queues `count` whole frames, or drops and counts them. Does not block.
    pub fn write(&self, frames: &[u8], count: u64) {
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
            readers: registry.gauge("nodelocaldns_dnstap_readers", "Readers that are connected.", labels),
        }
    }
}

/// Tells of an endpoint's troubles, each kind once in [`TELL_INTERVAL`] at most.
pub struct Troubles<'a> {
    shared: &'a Shared,
    told_failure: Option<Instant>,
    told_drops: Option<Instant>,
}

impl<'a> Troubles<'a> {
    pub fn new(shared: &'a Shared) -> Self {
        Self { shared, told_failure: None, told_drops: None }
    }

    /// There is no reader, or no longer.
    pub fn failed(&mut self, why: &dyn std::fmt::Display) {
        let text = &self.shared.config.text;
        if is_due(&mut self.told_failure) {
            tracing::warn!("plugin/dnstap: {text}: {why}; it is tried again");
        } else {
            tracing::debug!("plugin/dnstap: {text}: {why}");
        }
    }

    /// All is well.
    pub fn connected(&mut self) {
        if self.told_failure.take().is_some() {
            tracing::info!("plugin/dnstap: {} has a reader again", self.shared.config.text);
        }
    }

    /// Tells of messages that were dropped, if there were some.
    pub fn tell_drops(&mut self) {
        if self.told_drops.is_some_and(|told| told.elapsed() < TELL_INTERVAL) {
            return;
        }
        match self.shared.queue.take_untold() {
            0 => {}
            dropped => {
                self.told_drops = Some(Instant::now());
                let text = &self.shared.config.text;
                tracing::warn!(
                    "plugin/dnstap: {text}: {dropped} messages were dropped since nobody reads them in time"
                );
            }
        }
    }
}

fn is_due(told: &mut Option<Instant>) -> bool {
    let is_due = told.is_none_or(|told| told.elapsed() >= TELL_INTERVAL);
    if is_due {
        *told = Some(Instant::now());
    }
    is_due
}

/// Frames that were taken from the queue, and how far they are written.
#[derive(Default)]
pub struct Taken {
    pub frames: Vec<u8>,
    pub written: usize,
}

impl Taken {
    /// What is not written yet.
    pub fn rest(&self) -> &[u8] {
        self.frames.get(self.written..).unwrap_or_default()
    }

    /// Counts what is written whole, and keeps the rest, from the beginning of a frame that is cut.
    pub fn settle(&mut self, sent: &Counter) {
        let whole = frames::first_unwritten(&self.frames, self.written);
        sent.add(frames::count(self.frames.get(..whole).unwrap_or_default()));
        if whole == self.frames.len() {
            self.frames.clear();
        } else {
            self.frames.drain(..whole);
        }
        self.written = 0;
    }
}
