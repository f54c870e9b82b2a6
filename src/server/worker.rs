//! A worker: one thread, one single-threaded runtime, its share of the sockets. And what the tasks on it have in common.

use super::answerer::Answerer;
use super::connections::Connections;
use super::meters::Meters;
use super::{Limits, ServerError};
use crate::metrics;
use arc_swap::ArcSwap;
use std::convert::Infallible;
use std::future::Future;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread::{Builder, JoinHandle};
use tokio::runtime;
use tokio::sync::{mpsc, oneshot, watch};

/// A running worker. Dropping it ends its tasks where they stand.
pub(super) struct Worker {
    pub runtime: runtime::Handle,
    pub share: Arc<Share>,
    end: oneshot::Sender<Infallible>,
    thread: JoinHandle<()>,
}

impl Worker {
    /// Starts the worker with number `index`, counted from zero.
    pub fn start(index: usize, share: Share) -> Result<Self, ServerError> {
        let start = |cause| ServerError::Worker { index, cause };
        let runtime = runtime::Builder::new_current_thread().enable_io().enable_time().build().map_err(start)?;
        let handle = runtime.handle().clone();
        let (end, ended) = oneshot::channel::<Infallible>();
        let thread = Builder::new().name(format!("worker-{index}")).spawn(move || {
            metrics::enter_lane(index + 1);
            _ = runtime.block_on(ended);
            // Without waiting for what a directive may have put on a blocking thread.
            runtime.shutdown_background();
        });
        Ok(Self { runtime: handle, share: Arc::new(share), end, thread: thread.map_err(start)? })
    }

    /// Ends the tasks where they stand and waits for the thread.
    pub fn end(self) {
        drop(self.end);
        _ = self.thread.join();
    }
}

/// What all tasks of a worker share.
pub(super) struct Share {
    in_flight: AtomicUsize,
    pub limits: Limits,
    pub meters: Arc<Meters>,
    pub connections: Arc<Connections>,
}

impl Share {
    pub fn new(limits: Limits, meters: Arc<Meters>, connections: Arc<Connections>) -> Self {
        Self { in_flight: AtomicUsize::new(0), limits, meters, connections }
    }

    /// Room for one more query in flight; `None`, counted, if there is none.
    pub fn admit(self: &Arc<Self>) -> Option<Permit> {
        if self.in_flight.fetch_add(1, Ordering::Relaxed) < self.limits.queries_per_worker {
            return Some(Permit(self.clone()));
        }
        self.in_flight.fetch_sub(1, Ordering::Relaxed);
        self.meters.dropped.overload.increment();
        None
    }

    pub fn in_flight(&self) -> usize {
        self.in_flight.load(Ordering::Relaxed)
    }

    /// Runs what nobody waits for.
    pub fn refresh<A: Answerer>(self: &Arc<Self>, pending: A::Pending) {
        if let Some(permit) = self.admit() {
            tokio::spawn(async move {
                A::run(pending, &mut Vec::new()).await;
                drop(permit);
            });
        }
    }
}

/// A place among the queries in flight of a worker.
pub(super) struct Permit(Arc<Share>);

impl Drop for Permit {
    fn drop(&mut self) {
        self.0.in_flight.fetch_sub(1, Ordering::Relaxed);
    }
}

/// A listen address as it is served: the same for all workers and over every swap that keeps its sockets. Each task that has
/// something left to answer holds it.
pub(super) struct Binding<A> {
    pub address: SocketAddr,
    /// Who answers now.
    pub answerer: ArcSwap<A>,
    stop: watch::Sender<bool>,
    /// Closes when the last one is gone.
    _alive: mpsc::Sender<Infallible>,
}

impl<A: Answerer> Binding<A> {
    pub fn new(answerer: Arc<A>, alive: mpsc::Sender<Infallible>) -> Self {
        let address = answerer.address();
        Self { address, answerer: ArcSwap::new(answerer), stop: watch::Sender::new(false), _alive: alive }
    }

    /// No more is taken from the sockets than what is there now.
    pub fn stop(&self) {
        self.stop.send_replace(true);
    }

    /// Resolves once it is to stop.
    pub fn stopped(&self) -> impl Future<Output = ()> + Send + use<A> {
        let mut stop = self.stop.subscribe();
        async move { _ = stop.wait_for(|stop| *stop).await }
    }
}
