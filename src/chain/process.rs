//! What is there once in a process, whatever the plan: its registry, its memory, and how it reaches what is outside.

use super::{AskMetrics, AtStop, DataFiles, Flush, ReloadState};
use crate::corefile::{SocketRole, read_data_file, unix_socket};
use crate::fairness::SharedFairness;
use crate::metrics::{Counter, Registry};
use crate::net::ReadFile;
use crate::query_stats::QueryStats;
use crate::query_tap::QueryTaps;
use std::io;
use std::os::fd::OwnedFd;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use tokio::sync::Notify;

/// What all plans of a process share.
pub struct ProcessContext {
    /// Where counters, gauges and histograms come from.
    pub registry: Registry,
    /// Panics that were caught while a query was answered.
    pub panics: Counter,
    /// What is asked, by whom, and what fails.
    pub(crate) query_stats: Arc<QueryStats>,
    /// To whom queries are shown one by one.
    pub(crate) query_taps: Arc<QueryTaps>,
    /// What a directive keeps over a reload.
    pub reload_state: Arc<ReloadState>,
    /// Whether the process starts, serves or ends.
    pub lifecycle: Lifecycle,
    /// How many octets all caches may take together.
    pub cache_memory: Arc<MemoryBudget>,
    /// Whether what directives have beside queries, such as readers of `dnstap`, is connected to. A plan that is only
    /// looked at does not.
    pub reaches_out: bool,
    /// Workers that serve.
    pub workers: usize,
    /// Who counts as one client where something is full.
    pub fairness: Arc<SharedFairness>,
    /// What this process answers the watchdog's probes with; `None` where no watchdog asks.
    pub generation: Option<u64>,
    /// How `/etc/resolv.conf` and `/etc/hosts` are read, which may take as long as a file system does.
    pub files: ReadFile,
    /// How files of data are read that directives have asked their [`super::Loaders`] for and read again while they
    /// serve.
    pub data_files: DataFiles,
    /// How sockets with a path are had that directives have named to their [`super::Loaders`].
    pub unix_sockets: UnixSockets,
    /// What is still to be written when the process ends.
    pub at_stop: AtStop,
    /// How the other process of this program is asked for its metrics; `None` where there is no other.
    pub other_metrics: Option<AskMetrics>,
}

/// Gives a stream socket that is connected to one with this path, or that listens there. It may take as long as a file
/// system does.
pub(crate) type UnixSockets = Arc<dyn Fn(&Path, SocketRole) -> io::Result<OwnedFd> + Send + Sync>;

impl ProcessContext {
    /// For a process with this many workers, whose caches may together hold this many octets.
    pub fn new(workers: usize, cache_octets: usize) -> Self {
        let registry = Registry::new(workers + 1);
        Self {
            panics: registry.counter(
                "coredns_panics_total",
                "Panics that were caught while a query was answered.",
                &[],
            ),
            query_stats: Arc::new(QueryStats::new(workers + 1, registry.clone())),
            query_taps: Arc::default(),
            registry,
            reload_state: Arc::default(),
            lifecycle: Lifecycle::default(),
            cache_memory: Arc::new(MemoryBudget::new(cache_octets)),
            reaches_out: true,
            workers,
            fairness: Arc::default(),
            generation: None,
            files: Arc::new(|path: &Path| std::fs::read_to_string(path)),
            data_files: DataFiles::new(Arc::new(read_data_file)),
            unix_sockets: Arc::new(unix_socket),
            at_stop: AtStop::default(),
            other_metrics: None,
        }
    }

    /// What has run under this key since an earlier plan, else what `start` makes. It is flushed when the process ends.
    ///
    /// # Errors
    /// Those of `start`.
    pub(crate) fn adopt_or_start<T: Flush + 'static, E>(
        &self,
        key: &str,
        start: impl FnOnce() -> Result<T, E>,
    ) -> Result<Arc<T>, E> {
        if let Some(running) = self.reload_state.find::<T>(key) {
            return Ok(running);
        }
        let started = start()?;
        let running = self.reload_state.adopt_or(key, || started);
        let held: Arc<dyn Flush> = running.clone();
        self.at_stop.add(Arc::downgrade(&held));
        Ok(running)
    }
}

/// Where the process stands. Cloning shares it.
#[derive(Clone, Default)]
pub struct Lifecycle(Arc<Stages>);

#[derive(Default)]
struct Stages {
    serving: AtomicBool,
    stopping: AtomicBool,
}

impl Lifecycle {
    /// All sockets of a plan are served.
    pub fn set_serving(&self) {
        self.0.serving.store(true, Ordering::Release);
    }
    /// SIGTERM has come.
    pub fn set_stopping(&self) {
        self.0.stopping.store(true, Ordering::Release);
    }
    pub fn is_serving(&self) -> bool {
        self.0.serving.load(Ordering::Acquire) && !self.is_stopping()
    }
    pub fn is_stopping(&self) -> bool {
        self.0.stopping.load(Ordering::Acquire)
    }
}

/// Octets that all caches together may hold.
pub struct MemoryBudget {
    limit: AtomicUsize,
    largest_limit: usize,
    used: AtomicUsize,
    /// Of `used`, what [`MemoryBudget::take_part`] has taken.
    in_part: AtomicUsize,
    lowered: Notify,
}

impl MemoryBudget {
    pub fn new(limit: usize) -> Self {
        let (used, in_part) = (AtomicUsize::new(0), AtomicUsize::new(0));
        Self { limit: AtomicUsize::new(limit), largest_limit: limit, used, in_part, lowered: Notify::new() }
    }
    pub fn limit(&self) -> usize {
        self.limit.load(Ordering::Relaxed)
    }
    /// The limit that it was made with, whatever it is now.
    pub fn largest_limit(&self) -> usize {
        self.largest_limit
    }
    pub fn used(&self) -> usize {
        self.used.load(Ordering::Relaxed)
    }
    /// Sets another limit. If more is used than that, whoever waits in [`MemoryBudget::exceeded`] is told.
    pub fn set_limit(&self, limit: usize) {
        self.limit.store(limit, Ordering::Relaxed);
        if self.used() > limit {
            self.lowered.notify_waiters();
        }
    }
    /// Resolves when the limit was lowered below what is used.
    pub async fn exceeded(&self) {
        self.lowered.notified().await;
    }
    /// Takes `octets` if they are free.
    pub fn take(&self, octets: usize) -> bool {
        let limit = self.limit();
        self.used
            .fetch_update(Ordering::Relaxed, Ordering::Relaxed, |used| {
                used.checked_add(octets).filter(|sum| *sum <= limit)
            })
            .is_ok()
    }
    pub fn release(&self, octets: usize) {
        self.used.fetch_sub(octets, Ordering::Relaxed);
    }
    /// Takes `octets` if they are free and all that is taken this way stays below one part in `parts` of the limit.
    pub fn take_part(&self, octets: usize, parts: usize) -> bool {
        let most = self.limit() / parts;
        let fits = |taken: usize| taken.checked_add(octets).filter(|sum| *sum <= most);
        if self.in_part.fetch_update(Ordering::Relaxed, Ordering::Relaxed, fits).is_err() {
            return false;
        }
        let is_taken = self.take(octets);
        if !is_taken {
            self.in_part.fetch_sub(octets, Ordering::Relaxed);
        }
        is_taken
    }
    /// Gives back what [`MemoryBudget::take_part`] took.
    pub fn release_part(&self, octets: usize) {
        self.in_part.fetch_sub(octets, Ordering::Relaxed);
        self.release(octets);
    }
}
