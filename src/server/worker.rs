//! A worker: one thread, one single-threaded runtime, its share of the sockets. And what the tasks on it have in common.

use super::answerer::Answerer;
use super::connections::Connections;
use super::meters::Meters;
use super::{Limits, ServerError};
use crate::metrics;
use crate::plan::Repeats;
use crate::threads;
use arc_swap::ArcSwap;
use foldhash::fast::RandomState;
use parking_lot::{Mutex, MutexGuard};
use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::convert::Infallible;
use std::future::Future;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::thread::JoinHandle;
use tokio::runtime;
use tokio::sync::{mpsc, oneshot, watch};

/// Octets of the scratch buffer that a worker keeps.
const KEPT_SCRATCH: usize = 4096;

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
        let (end, ended) = oneshot::channel::<Infallible>();
        let make = || runtime::Builder::new_current_thread().enable_io().enable_time().build();
        let work = move |runtime: runtime::Runtime| {
            metrics::enter_lane(index + 1);
            _ = runtime.block_on(ended);
            // Without waiting for what a directive may have put on a blocking thread.
            runtime.shutdown_background();
        };
        let (runtime, thread) = threads::spawn_with_runtime(&format!("worker-{index}"), None, make, work)?;
        Ok(Self { runtime, share: Arc::new(share), end, thread })
    }

    /// Ends the tasks where they stand and waits for the thread.
    pub fn end(self) {
        drop(self.end);
        _ = self.thread.join();
    }
}

/// What all tasks of a worker share.
pub(super) struct Share {
    flight: Mutex<Flight>,
    scratch: Mutex<Vec<u8>>,
    repeats: Mutex<Repeats>,
    pub limits: Limits,
    pub meters: Arc<Meters>,
    pub connections: Arc<Connections>,
}

/// The queries in flight of a worker.
#[derive(Default)]
struct Flight {
    count: usize,
    /// Those of each client's address that has any.
    by_client: HashMap<IpAddr, usize, RandomState>,
}

impl Share {
    pub fn new(limits: Limits, meters: Arc<Meters>, connections: Arc<Connections>) -> Self {
        Self { flight: Mutex::default(), scratch: Mutex::default(), repeats: Mutex::default(), limits, meters, connections }
    }

    /// The replies to give again. No other thread asks for them, and no task keeps them while it waits.
    pub fn repeats(&self) -> MutexGuard<'_, Repeats> {
        self.repeats.lock()
    }

    /// An empty buffer that keeps its size from use to use, for what does not wait. Not the connections' own: most of them are idle.
    pub fn take_scratch(&self) -> Vec<u8> {
        std::mem::take(&mut *self.scratch.lock())
    }

    /// Gives the buffer back; one that has grown large is freed.
    pub fn give_back_scratch(&self, mut buffer: Vec<u8>) {
        if buffer.capacity() <= KEPT_SCRATCH {
            buffer.clear();
            *self.scratch.lock() = buffer;
        }
    }

    /// Room for one more query in flight; `None`, counted, if there is none. `client`: who waits for it.
    pub fn admit(self: &Arc<Self>, client: Option<IpAddr>) -> Option<Permit> {
        let mut flight = self.flight.lock();
        let has_room = flight.count < self.limits.queries_per_worker
            && client.is_none_or(|client| {
                let own = flight.by_client.entry(client).or_default();
                // An entry that was just made has room, as the limit is not 0.
                let has_room = *own < self.limits.queries_per_client.max(1);
                *own += usize::from(has_room);
                has_room
            });
        flight.count += usize::from(has_room);
        drop(flight);
        if !has_room {
            self.meters.dropped.overload.increment();
        }
        has_room.then(|| Permit { share: self.clone(), client })
    }

    pub fn in_flight(&self) -> usize {
        self.flight.lock().count
    }

    /// Runs what nobody waits for.
    pub fn refresh<A: Answerer>(self: &Arc<Self>, pending: A::Pending) {
        if let Some(permit) = self.admit(None) {
            tokio::spawn(async move {
                A::run(pending, &mut Vec::new()).await;
                drop(permit);
            });
        }
    }
}

/// A place among the queries in flight of a worker.
pub(super) struct Permit {
    share: Arc<Share>,
    client: Option<IpAddr>,
}

impl Drop for Permit {
    fn drop(&mut self) {
        let mut flight = self.share.flight.lock();
        flight.count -= 1;
        if let Some(client) = self.client
            && let Entry::Occupied(mut own) = flight.by_client.entry(client)
        {
            *own.get_mut() -= 1;
            if *own.get() == 0 {
                own.remove();
            }
        }
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

    /// Whether it is to stop.
    pub fn is_stopped(&self) -> bool {
        *self.stop.borrow()
    }

    /// Resolves once it is to stop.
    pub fn stopped(&self) -> impl Future<Output = ()> + Send + use<A> {
        let mut stop = self.stop.subscribe();
        async move { _ = stop.wait_for(|stop| *stop).await }
    }
}
