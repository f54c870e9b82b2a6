//! A worker: one thread, one single-threaded runtime, its share of the sockets. And what the tasks on it have in
//! common.

use super::closing::FIRST_QUERY;
use super::connections::{Closed, Connections};
use super::dispatcher::Dispatcher;
use super::metrics::ServerMetrics;
use super::yielding::Yielding;
use super::{Limits, ServerError};
use crate::fairness::{ConcurrencyLimiter, LogThrottle, Permit, PermitOutcome, SharedFairness};
use crate::metrics;
use crate::plan::PacketCache;
use crate::threads;
use arc_swap::ArcSwap;
use parking_lot::{Mutex, MutexGuard};
use std::convert::Infallible;
use std::future::Future;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::Instant;
use tokio::runtime;
use tokio::sync::{mpsc, oneshot, watch};
use tokio::time::sleep_until;

/// Octets of the scratch buffer that a worker keeps.
const KEPT_SCRATCH: usize = 4096;

/// A running worker. Dropping it ends its tasks where they stand.
pub(super) struct Worker {
    pub runtime: runtime::Handle,
    pub state: Arc<WorkerState>,
    end: oneshot::Sender<Infallible>,
    thread: JoinHandle<()>,
}

impl Worker {
    /// Starts the worker with number `index`, counted from zero.
    pub(super) fn start(index: usize, state: WorkerState) -> Result<Self, ServerError> {
        Self::start_as(&format!("worker-{index}"), Some(index + 1), state)
    }

    /// Starts one under a name. Without a slot of its own it counts in that of all other threads, which costs it a
    /// locked instruction for each.
    pub(super) fn start_as(name: &str, slot: Option<usize>, state: WorkerState) -> Result<Self, ServerError> {
        let (end, ended) = oneshot::channel::<Infallible>();
        let make = || runtime::Builder::new_current_thread().enable_io().enable_time().build();
        let work = move |runtime: runtime::Runtime| {
            slot.into_iter().for_each(metrics::enter_worker_slot);
            _ = runtime.block_on(ended);
            // Without waiting for what a directive may have put on a blocking thread.
            runtime.shutdown_background();
        };
        let (runtime, thread) = threads::spawn_with_runtime(name, None, make, work)?;
        Ok(Self { runtime, state: Arc::new(state), end, thread })
    }

    /// Ends the tasks where they stand and waits for the thread.
    pub(super) fn end(self) {
        drop(self.end);
        _ = self.thread.join();
    }
}

/// What all tasks of a worker share.
pub(super) struct WorkerState {
    /// The queries in flight.
    flight: Arc<ConcurrencyLimiter>,
    scratch: Mutex<Vec<u8>>,
    packets: Mutex<PacketCache>,
    pub limits: Limits,
    pub shared: Arc<Shared>,
    pub connections: Arc<Connections>,
}

/// What all workers have in common.
pub(super) struct Shared {
    pub metrics: ServerMetrics,
    pub fairness: Arc<SharedFairness>,
    pub yielding: Yielding,
    /// Told when queries give way, and when connections do.
    pub queries: LogThrottle,
    pub connections: LogThrottle,
}

impl Shared {
    pub(super) fn new(metrics: ServerMetrics, fairness: Arc<SharedFairness>) -> Self {
        let now = Instant::now();
        let yielding = Yielding::new(now);
        Self { metrics, fairness, yielding, queries: LogThrottle::new(now), connections: LogThrottle::new(now) }
    }
}

impl WorkerState {
    pub(super) fn new(limits: Limits, shared: Arc<Shared>, connections: Arc<Connections>) -> Self {
        let flight = Arc::new(ConcurrencyLimiter::new(limits.queries_per_worker));
        Self { flight, scratch: Mutex::default(), packets: Mutex::default(), limits, shared, connections }
    }

    pub(super) fn metrics(&self) -> &ServerMetrics {
        &self.shared.metrics
    }

    /// The worker's packet cache. No other thread asks for it, and no task keeps it while it waits.
    pub(super) fn packets(&self) -> MutexGuard<'_, PacketCache> {
        self.packets.lock()
    }

    /// An empty buffer that keeps its size from use to use, for what does not wait. Not the connections' own: most of
    /// them are idle.
    pub(super) fn take_scratch(&self) -> Vec<u8> {
        std::mem::take(&mut *self.scratch.lock())
    }

    /// Gives the buffer back; one that has grown large is freed.
    pub(super) fn give_back_scratch(&self, mut buffer: Vec<u8>) {
        if buffer.capacity() <= KEPT_SCRATCH {
            buffer.clear();
            *self.scratch.lock() = buffer;
        }
    }

    /// A place for one more query in flight of `client`, who waits for it or has caused it. `None`, counted, if all are
    /// taken and no other client has more.
    pub(super) fn admit(&self, client: IpAddr) -> Option<Permit> {
        let fairness = self.shared.fairness.get();
        match self.flight.admit(fairness.client(client), fairness.is_on) {
            PermitOutcome::Granted(permit) => Some(permit),
            PermitOutcome::Evicting { permit, client, held } => {
                self.metrics().dropped.evicted.increment();
                if self.shared.queries.is_due(Instant::now()) {
                    tracing::warn!(
                        "a worker has as many queries in flight as it may: {client}, which has most of them ({held}), gives way to others \
                         (told once a minute at most; nodelocaldns_queries_dropped_total counts)"
                    );
                }
                Some(permit)
            }
            PermitOutcome::Full => {
                self.metrics().dropped.overload.increment();
                None
            }
        }
    }

    /// Counts a connection that was told to close.
    pub(super) fn count_closed(&self, closed: &Closed) {
        let cut = &self.metrics().cut;
        if closed.was_idle { &cut.evicted } else { &cut.evicted_busy }.increment();
    }

    pub(super) fn in_flight(&self) -> usize {
        self.flight.running()
    }

    /// From now on so many queries may be in flight.
    pub(super) fn set_queries(&self, limit: usize) {
        self.metrics().dropped.evicted.add(self.flight.set_limit(limit) as u64);
    }

    /// Runs what nobody waits for, and `client` has caused.
    pub(super) fn refresh<A: Dispatcher>(&self, pending: A::Pending, client: IpAddr) {
        if let Some(permit) = self.admit(client) {
            tokio::spawn(async move { permit.hold(A::run(&pending, &mut Vec::new())).await });
        }
    }
}

/// A listen address as it is served: the same for all workers and over every swap that keeps its sockets. Each task
/// that has something left to answer holds it.
pub(super) struct Binding<A> {
    pub address: SocketAddr,
    /// Who answers now.
    pub dispatcher: ArcSwap<A>,
    stop: watch::Sender<bool>,
    /// Closes when the last one is gone.
    _alive: mpsc::Sender<Infallible>,
}

impl<A: Dispatcher> Binding<A> {
    pub(super) fn new(dispatcher: Arc<A>, alive: mpsc::Sender<Infallible>) -> Self {
        let address = dispatcher.address();
        Self { address, dispatcher: ArcSwap::new(dispatcher), stop: watch::Sender::new(false), _alive: alive }
    }

    /// No more is taken from the sockets than what is there now.
    pub(super) fn stop(&self) {
        self.stop.send_replace(true);
    }

    /// Whether it is to stop.
    pub(super) fn is_stopped(&self) -> bool {
        *self.stop.borrow()
    }

    /// Resolves once it is to stop.
    pub(super) fn stopped(&self) -> impl Future<Output = ()> + Send + use<A> {
        let mut stop = self.stop.subscribe();
        async move { _ = stop.wait_for(|stop| *stop).await }
    }

    /// The same for a connection that begins now: not before its client has had the time to ask.
    pub(super) fn stopped_for_connection(&self) -> impl Future<Output = ()> + Send + use<A> {
        let (stopped, asked) = (self.stopped(), Instant::now() + FIRST_QUERY);
        async move {
            stopped.await;
            sleep_until(asked.into()).await;
        }
    }
}
