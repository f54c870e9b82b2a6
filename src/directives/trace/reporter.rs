//! The way of traces to their collector: a bounded backlog, and a thread that sends it in batches. It outlives a reload
//! that keeps it as it is. Nobody waits for it: what finds no room takes that of the oldest.

use super::zipkin::{self, LocalEndpoint, QueryTrace};
use crate::backoff::Backoff;
use crate::chain::{BuildError, Ending, Flush, ProcessContext};
use crate::message::Name;
use crate::metrics::Counter;
use crate::net::HostLookup;
use crate::net::http_client;
use crate::net::tls::ClientTls;
use crate::threads;
use hyper::StatusCode;
use parking_lot::Mutex;
use std::collections::VecDeque;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio::net::TcpStream;
use tokio::sync::Notify;
use tokio::time::{sleep, timeout};

/// How long a collector may take for a batch (the default of zipkin-go's reporter).
const PATIENCE: Duration = Duration::from_secs(5);
/// The pause after a batch that could not be sent doubles from here to there.
const FIRST_PAUSE: Duration = Duration::from_millis(250);
const LONGEST_PAUSE: Duration = Duration::from_secs(30);
/// How often the same trouble is told.
const TELL_INTERVAL: Duration = Duration::from_secs(60);

/// Where traces are sent, and how many at once.
#[derive(Clone)]
pub(super) struct ReporterConfig {
    /// As it is shown.
    pub url: String,
    pub host: String,
    pub port: u16,
    /// With its query.
    pub path: String,
    pub tls: Option<ClientTls>,
    pub local: LocalEndpoint,
    /// Spans that may wait (`zipkin_max_backlog_size`).
    pub backlog: usize,
    /// Spans that are sent at once (`zipkin_max_batch_size`).
    pub batch: usize,
    /// How long spans wait for others (`zipkin_max_batch_interval`).
    pub interval: Duration,
}

impl ReporterConfig {
    /// The same for two that are one reporter.
    fn key(&self) -> String {
        let Self { url, local, backlog, batch, interval, .. } = self;
        let tls = self.tls.as_ref().map(ClientTls::key).unwrap_or_default();
        format!("trace {url} {local:?} {backlog} {batch} {interval:?} {tls}")
    }

    /// The `Host` of requests.
    fn authority(&self) -> String {
        let host = if self.host.contains(':') { format!("[{}]", self.host) } else { self.host.clone() };
        format!("{host}:{}", self.port)
    }
}

/// Why a batch was not taken.
#[derive(Debug, thiserror::Error)]
enum ReportError {
    #[error("the name {0} cannot be resolved: {1}")]
    Resolve(String, String),
    #[error("no connection: {0}")]
    Connect(io::Error),
    #[error("{0}")]
    Http(http_client::HttpError),
    #[error("it does not answer within {PATIENCE:?}")]
    Late,
    #[error("it answers {0}")]
    Status(StatusCode),
}

impl ReportError {
    /// The same batch would be refused again.
    fn is_of_batch(&self) -> bool {
        matches!(self, Self::Status(status) if status.is_client_error() && *status != StatusCode::TOO_MANY_REQUESTS)
    }
}

/// Traces that wait, the oldest first.
#[derive(Default)]
struct Backlog {
    traces: VecDeque<QueryTrace>,
    spans: usize,
}

impl Backlog {
    /// Throws the oldest away until there are `most` spans or fewer; how many spans those had.
    fn shorten(&mut self, most: usize) -> usize {
        let mut dropped = 0;
        while self.spans > most
            && let Some(oldest) = self.traces.pop_front()
        {
            self.spans -= oldest.span_count();
            dropped += oldest.span_count();
        }
        dropped
    }
}

struct Shared {
    config: ReporterConfig,
    lookup: HostLookup,
    backlog: Mutex<Backlog>,
    filled: Notify,
    batch_full: Notify,
    ending: Ending,
    sent: Counter,
    dropped: Counter,
}

/// A running reporter.
pub(super) struct Reporter(Arc<Shared>);

impl Reporter {
    /// That of the running plan if there is one as configured, else a new one.
    ///
    /// # Errors
    /// Its thread cannot be started.
    pub(super) fn adopt_or_new(config: &ReporterConfig, process: &ProcessContext) -> Result<Arc<Self>, BuildError> {
        process.adopt_or_start(&config.key(), || Self::start(config, process))
    }

    fn start(config: &ReporterConfig, process: &ProcessContext) -> Result<Self, BuildError> {
        let labels = &[("endpoint", config.url.as_str())];
        let counter = |name, help| process.registry.counter(name, help, labels);
        let shared = Arc::new(Shared {
            config: config.clone(),
            lookup: HostLookup { resolvers: Vec::new(), files: process.files.clone() },
            backlog: Mutex::default(),
            filled: Notify::new(),
            batch_full: Notify::new(),
            ending: Ending::default(),
            sent: counter("nodelocaldns_trace_spans_total", "Spans that the collector has taken."),
            dropped: counter(
                "nodelocaldns_trace_dropped_total",
                "Spans that were dropped because the collector was not there, was too slow, or refused them.",
            ),
        });
        if !process.reaches_out {
            shared.ending.set_come();
            return Ok(Self(shared));
        }
        let make = || tokio::runtime::Builder::new_current_thread().enable_all().build();
        let of_thread = shared.clone();
        let body = move |runtime: tokio::runtime::Runtime| {
            runtime.block_on(of_thread.run());
            runtime.shutdown_background();
            of_thread.ending.set_come();
        };
        threads::spawn_with_runtime("trace", None, make, body)
            .map_err(|error| BuildError(format!("trace cannot report to {}: {error}", config.url)))?;
        Ok(Self(shared))
    }

    /// Queues a trace. Does not block.
    pub(super) fn report(&self, trace: QueryTrace) {
        let mut backlog = self.0.backlog.lock();
        let was_empty = backlog.spans == 0;
        backlog.spans += trace.span_count();
        backlog.traces.push_back(trace);
        let dropped = backlog.shorten(self.0.config.backlog);
        let is_batch = backlog.spans >= self.0.config.batch;
        drop(backlog);
        self.0.dropped.add(dropped as u64);
        if was_empty {
            self.0.filled.notify_one();
        }
        if is_batch {
            self.0.batch_full.notify_one();
        }
    }
}

impl Drop for Reporter {
    fn drop(&mut self) {
        self.0.ending.ask();
    }
}

impl Flush for Reporter {
    fn begin_flush(&self) {
        self.0.ending.ask();
    }

    fn wait_flushed(&self, deadline: Instant) {
        self.0.ending.wait(deadline);
    }
}

impl Shared {
    /// Sends batches until the end is asked for, and what there is then.
    async fn run(&self) {
        let mut backoff = Backoff::new(FIRST_PAUSE, LONGEST_PAUSE);
        let mut last_warning: Option<Instant> = None;
        loop {
            if self.backlog.lock().spans == 0 {
                tokio::select! {
                    () = self.filled.notified() => {}
                    () = self.ending.asked() => {}
                }
            }
            tokio::select! {
                () = sleep(self.config.interval) => {}
                () = self.batch_full.notified() => {}
                () = self.ending.asked() => {}
            }
            let batch = std::mem::take(&mut *self.backlog.lock());
            let outcome = if batch.spans == 0 { Ok(()) } else { self.send(&batch).await };
            match outcome {
                Ok(()) => {
                    backoff.reset();
                    self.sent.add(batch.spans as u64);
                    if batch.spans > 0 && last_warning.take().is_some() {
                        tracing::info!("plugin/trace: {} takes spans again", self.config.url);
                    }
                    // What has come while that was sent is sent too.
                    if self.ending.is_asked() && self.backlog.lock().spans == 0 {
                        return;
                    }
                }
                Err(error) => {
                    if last_warning.is_none_or(|last| last.elapsed() >= TELL_INTERVAL) {
                        last_warning = Some(Instant::now());
                        tracing::warn!("plugin/trace: spans are not taken by {}: {error}", self.config.url);
                    }
                    if error.is_of_batch() || self.ending.is_asked() {
                        self.dropped.add(batch.spans as u64);
                    } else {
                        self.put_back(batch);
                    }
                    if self.ending.is_asked() {
                        return;
                    }
                    tokio::select! {
                        () = sleep(backoff.next_pause()) => {}
                        () = self.ending.asked() => {}
                    }
                }
            }
        }
    }

    /// Before what has come since.
    fn put_back(&self, mut batch: Backlog) {
        let mut backlog = self.backlog.lock();
        batch.traces.append(&mut backlog.traces);
        batch.spans += backlog.spans;
        let dropped = batch.shorten(self.config.backlog);
        *backlog = batch;
        drop(backlog);
        self.dropped.add(dropped as u64);
    }

    async fn send(&self, batch: &Backlog) -> Result<(), ReportError> {
        let body = zipkin::encode(&batch.traces, &self.config.local, || rand::random_range(1..=u64::MAX));
        match timeout(PATIENCE, self.post(body)).await {
            Ok(Ok(status)) if status.is_success() => Ok(()),
            Ok(Ok(status)) => Err(ReportError::Status(status)),
            Ok(Err(error)) => Err(error),
            Err(_) => Err(ReportError::Late),
        }
    }

    async fn post(&self, body: Vec<u8>) -> Result<StatusCode, ReportError> {
        let ReporterConfig { host, path, tls, .. } = &self.config;
        let stream = self.connect().await?;
        let authority = self.config.authority();
        let to = (authority.as_str(), path.as_str());
        let answered = match tls {
            None => http_client::post(stream, to, "application/json", body).await,
            Some(tls) => {
                let session = tls.client_of(host).connect(stream).await;
                let session = session.map_err(|error| ReportError::Http(error.into()))?;
                http_client::post(session, to, "application/json", body).await
            }
        };
        answered.map_err(ReportError::Http)
    }

    async fn connect(&self) -> Result<TcpStream, ReportError> {
        let ReporterConfig { host, port, .. } = &self.config;
        let addresses = match host.parse() {
            Ok(address) => vec![address],
            Err(_) => {
                let failed = |error: &dyn std::fmt::Display| ReportError::Resolve(host.clone(), error.to_string());
                let name = Name::parse(host).map_err(|error| failed(&error))?;
                self.lookup.addresses_of(&name).await.map_err(|error| failed(&error))?.0
            }
        };
        let mut last = io::Error::new(io::ErrorKind::NotFound, "its name has no address");
        for address in addresses {
            match TcpStream::connect(SocketAddr::new(address, *port)).await {
                Ok(stream) => return Ok(stream),
                Err(error) => last = error,
            }
        }
        Err(ReportError::Connect(last))
    }
}
