//! What an endpoint's taps and its thread share: where it is, its queue, and its troubles.

use super::frames;
use super::queue::Queue;
use crate::chain::{Ending, UnixSockets};
use crate::metrics::{Counter, Gauge};
use crate::net::HostLookup;
use crate::net::tls::{ClientTls, ServerTls};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

/// How often the same trouble is told.
const TELL_INTERVAL: Duration = Duration::from_secs(60);

/// A socket.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Address {
    Unix(PathBuf),
    /// An address or a host name. One without a host, at which is listened, stands for all addresses.
    Tcp {
        host: String,
        port: u16,
    },
}

/// Who connects to whom.
#[derive(Clone)]
pub(super) enum Mode {
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
pub(super) struct EndpointConfig {
    /// As the Corefile has it.
    pub text: String,
    pub address: Address,
    pub mode: Mode,
    /// `QUEUE`: parts of 4,000,000 octets.
    pub queue: usize,
}

impl EndpointConfig {
    /// The same for two that are one endpoint.
    pub(super) fn key(&self) -> String {
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
pub(super) struct Shared {
    pub config: EndpointConfig,
    pub queue: Queue,
    pub lookup: HostLookup,
    pub unix_sockets: UnixSockets,
    /// One for each thread that waits for such a socket.
    pub unix_threads: Arc<()>,
    /// Frames that readers were sent.
    pub sent: Counter,
    /// Readers that are connected and take dnstap.
    pub readers: Gauge,
    pub ending: Ending,
}

/// Tells of an endpoint's troubles, each kind once in [`TELL_INTERVAL`] at most.
pub(super) struct Troubles<'a> {
    shared: &'a Shared,
    last_failure_warning: Option<Instant>,
    last_drops_warning: Option<Instant>,
}

impl<'a> Troubles<'a> {
    pub(super) fn new(shared: &'a Shared) -> Self {
        Self { shared, last_failure_warning: None, last_drops_warning: None }
    }

    /// There is no reader, or no longer.
    pub(super) fn failed(&mut self, why: &dyn std::fmt::Display) {
        let text = &self.shared.config.text;
        if is_due(&mut self.last_failure_warning) {
            tracing::warn!("plugin/dnstap: {text}: {why}; it is tried again");
        } else {
            tracing::debug!("plugin/dnstap: {text}: {why}");
        }
    }

    /// All is well.
    pub(super) fn connected(&mut self) {
        if self.last_failure_warning.take().is_some() {
            tracing::info!("plugin/dnstap: {} has a reader again", self.shared.config.text);
        }
    }

    /// Tells of messages that were dropped, if there were some.
    pub(super) fn tell_drops(&mut self) {
        if self.last_drops_warning.is_some_and(|last| last.elapsed() < TELL_INTERVAL) {
            return;
        }
        match self.shared.queue.take_untold() {
            0 => {}
            dropped => {
                self.last_drops_warning = Some(Instant::now());
                let text = &self.shared.config.text;
                tracing::warn!(
                    "plugin/dnstap: {text}: {dropped} messages were dropped since nobody reads them in time"
                );
            }
        }
    }
}

fn is_due(last_warning: &mut Option<Instant>) -> bool {
    let is_due = last_warning.is_none_or(|last| last.elapsed() >= TELL_INTERVAL);
    if is_due {
        *last_warning = Some(Instant::now());
    }
    is_due
}

/// Frames that were taken from the queue, and how far they are written.
#[derive(Default)]
pub(super) struct Taken {
    pub frames: Vec<u8>,
    pub written: usize,
}

impl Taken {
    /// What is not written yet.
    pub(super) fn rest(&self) -> &[u8] {
        self.frames.get(self.written..).unwrap_or_default()
    }

    /// Counts what is written whole, and keeps the rest, from the beginning of a frame that is cut.
    pub(super) fn settle(&mut self, sent: &Counter) {
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

#[cfg(test)]
impl Shared {
    /// Octets of the queue of [`Shared::of_test`].
    pub(super) const QUEUE_OF_TEST: usize = 100;

    /// An endpoint without a thread.
    pub(super) fn of_test(address: Address, mode: Mode) -> Self {
        let process = crate::chain::ProcessContext::new(1, 1 << 20);
        let counter = |name| process.registry.counter(name, "", &[]);
        Self {
            config: EndpointConfig { text: String::new(), address, mode, queue: 1 },
            queue: Queue::new(Self::QUEUE_OF_TEST, 1, true, counter("dropped")),
            lookup: HostLookup { resolvers: Vec::new(), files: process.files.clone() },
            unix_sockets: process.unix_sockets.clone(),
            unix_threads: Arc::default(),
            sent: counter("sent"),
            readers: process.registry.gauge("readers", "", &[]),
            ending: Ending::default(),
        }
    }
}
