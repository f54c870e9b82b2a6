//! Sockets: UDP and TCP from clients, HTTP for scrapes and probes; draining and the swap of plans. Holds no decisions.
//!
//! Each worker is a thread with a runtime of its own and one UDP socket of every listen address; a datagram is
//! received, answered and sent, or waits for its answer, on one thread. TCP connections stay with the worker that
//! accepted them. Those of clients within TLS or HTTPS have a thread of their own ([`streams`]). HTTP runs on the
//! control runtime, so that a scrape does not keep a query waiting.
//!
//! [`Sockets::bind`] opens what a plan needs, or [`Sockets::from_fds`] takes it over; [`Server::apply`] swaps a plan
//! in; [`Server::listen_http`] opens what HTTP needs, [`Server::drain`] ends it all.

mod buffers;
mod capacity;
mod client_stream;
mod closing;
mod connections;
mod decrypted;
mod dispatcher;
mod http;
mod https;
mod listen_addresses;
mod metrics;
mod retries;
mod sockets;
mod streams;
mod tcp;
#[cfg(test)]
mod tests;
mod udp;
mod worker;
mod yielding;

pub(crate) use capacity::Capacity;
#[doc(hidden)]
pub use decrypted::{SessionProtocol, serve_decrypted};
pub(crate) use dispatcher::Dispatcher;
pub(crate) use http::Http;
#[doc(hidden)]
pub use http::serve_connection;
pub(crate) use listen_addresses::ListenAddresses;
pub(crate) use retries::Retries;
pub(crate) use sockets::SocketError;
pub use sockets::Sockets;

use crate::chain::Endpoint;
use crate::datagrams;
use crate::fairness::SharedFairness;
use crate::metrics::Registry;
use crate::plan::{Listener, PacketCache};
use crate::platform;
use crate::threads::ThreadError;
use connections::Connections;
use metrics::ServerMetrics;
use socket2::SockRef;
use sockets::DnsSockets;
use std::collections::HashMap;
use std::convert::Infallible;
use std::io;
use std::net::SocketAddr;
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::time::{Duration, Instant};
use streams::Streams;
use tokio::io::unix::AsyncFd;
use tokio::runtime::Handle;
use tokio::sync::mpsc;
use worker::{Binding, Shared, Worker, WorkerState};

/// What clients may take of us.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// TCP connections of clients in all. One more closes one of the client that has most: its longest idle one, if one
    /// is idle.
    pub tcp_connections: usize,
    /// Queries in flight on a TCP connection. At this many no more are read from it.
    pub queries_per_connection: usize,
    /// Queries in flight on a worker. One more takes the place of one of the client that has most, or is refused if
    /// that is its own client: either is answered SERVFAIL.
    pub queries_per_worker: usize,
    /// Octets of replies that TCP clients have yet to take, and of queries that they have not finished, over all
    /// connections. Beyond it, a connection that has more than a small reply waiting, or more than a usual query begun,
    /// is cut off.
    pub buffer_octets: usize,
    /// Octets of a TCP connection's buffers in the kernel, in each direction; `None` leaves them as they are.
    pub socket_buffer: Option<usize>,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            tcp_connections: 4096,
            queries_per_connection: 128,
            // About what unbound and PowerDNS have for a thread, and what 10,000 queries a second leave in a worker's
            // sockets until a server that hangs is replaced. With 10,000 a worker that is short of processor time was
            // seen to be taken for hanging, when all of them ended or were sent again together.
            queries_per_worker: 4_096,
            buffer_octets: 16 << 20,
            socket_buffer: None,
        }
    }
}

/// Why a server could not be started.
#[derive(Debug, thiserror::Error)]
#[allow(missing_docs, reason = "each message says it")]
pub enum ServerError {
    #[error(transparent)]
    Worker(#[from] ThreadError),
}

/// Serves what it was last given by [`Server::apply`]. Dropping it ends everything where it stands.
pub struct Server<A: Dispatcher = Listener> {
    workers: Vec<Worker>,
    shared: Arc<Shared>,
    connections: Arc<Connections>,
    streams: Arc<Streams>,
    /// There is none before a plan has listeners for TLS or HTTPS.
    stream_worker: Option<Worker>,
    /// All that is answered is shown to taps.
    is_tapped: bool,
    bindings: HashMap<SocketAddr, Arc<Binding<A>>>,
    sockets: Sockets,
    http: Http,
    /// Every binding has a clone; the receiver closes when the last task that has something to answer is done.
    alive: mpsc::Sender<Infallible>,
    all_done: mpsc::Receiver<Infallible>,
    _gauges: Arc<dyn Fn() + Send + Sync>,
}

impl<A: Dispatcher> Server<A> {
    /// Starts as many workers as told, with nothing to serve yet, or as many as can be: one at least, which then reads
    /// the other ones' sockets too. HTTP is served on `control`. `fairness` says who counts as one client.
    pub fn start(
        workers: usize,
        limits: Limits,
        fairness: Arc<SharedFairness>,
        control: Handle,
        registry: &Registry,
    ) -> Result<Self, ServerError> {
        let shared = Arc::new(Shared::new(ServerMetrics::new(registry), fairness));
        let connections = Arc::new(Connections::new(limits.tcp_connections, limits.buffer_octets, Instant::now()));
        let streams = Arc::new(Streams::new(limits, shared.clone()));
        let start = |index| Worker::start(index, WorkerState::new(limits, shared.clone(), connections.clone()));
        let workers = as_many_as_can_be(workers.max(1), start)?;

        let open = registry.gauge("nodelocaldns_tcp_connections", "TCP connections of clients that are open.", &[]);
        let replies =
            registry.gauge("nodelocaldns_tcp_reply_bytes", "Octets of replies that TCP clients have yet to take.", &[]);
        let in_flight = registry.gauge("nodelocaldns_queries_in_flight", "Queries that wait for their answer.", &[]);
        let states: Vec<_> = workers.iter().map(|worker| worker.state.clone()).collect();
        let capacity = Capacity::new(states, connections.clone(), streams.clone());
        let clients = connections.clone();
        let gauges: Arc<dyn Fn() + Send + Sync> = Arc::new(move || {
            let load = capacity.load();
            open.set(load.connections as f64);
            replies.set(clients.reply_octets() as f64);
            in_flight.set(load.queries as f64);
        });
        registry.before_scrape(Arc::downgrade(&gauges));

        let (alive, all_done) = mpsc::channel(1);
        let (bindings, sockets) = (HashMap::new(), Sockets::default());
        let http = Http::new(control, registry);
        let stream_worker = None;
        Ok(Self {
            workers,
            shared,
            connections,
            streams,
            stream_worker,
            is_tapped: false,
            bindings,
            sockets,
            http,
            alive,
            all_done,
            _gauges: gauges,
        })
    }

    /// From the next listener for TLS or HTTPS on, the thread of those calls this at every of its turns, twice a second
    /// at most.
    pub fn set_alive_report(&self, report: Arc<dyn Fn() + Send + Sync>) {
        self.streams.set_alive_report(report);
    }

    /// Whether another server reads the sockets too and is to have its share, though this one may be woken first.
    pub fn yield_to_successor(&self, is_there: bool) {
        self.shared.yielding.set(is_there);
    }

    /// Has each worker let go of the replies in its packet cache. What is returned closes when the last one has.
    pub(crate) fn flush_packets(&self) -> mpsc::Receiver<Infallible> {
        self.on_each_worker(PacketCache::flush)
    }

    /// Whether each worker shows all that it answers to taps from now on. What is returned closes when the last one
    /// does so.
    pub(crate) fn set_tapped(&mut self, is_tapped: bool) -> mpsc::Receiver<Infallible> {
        self.is_tapped = is_tapped;
        self.on_each_worker(move |packets| packets.set_tapped(is_tapped))
    }

    /// Has each worker do something with its packet cache, in a task between two others, so that none waits for it.
    /// What is returned closes when the last one has.
    fn on_each_worker(&self, work: impl Fn(&mut PacketCache) + Clone + Send + 'static) -> mpsc::Receiver<Infallible> {
        let (working, done) = mpsc::channel(1);
        for worker in self.workers.iter().chain(&self.stream_worker) {
            let (state, work, working) = (worker.state.clone(), work.clone(), working.clone());
            worker.runtime.spawn(async move {
                work(&mut state.packets());
                drop(working);
            });
        }
        done
    }

    /// What clients take, and how much of it they may.
    pub fn capacity(&self) -> Capacity {
        let states = self.workers.iter().map(|worker| worker.state.clone()).collect();
        Capacity::new(states, self.connections.clone(), self.streams.clone())
    }

    /// The sockets that are served, for [`Sockets::bind`] to keep.
    pub fn sockets(&self) -> &Sockets {
        &self.sockets
    }

    /// Serves `listeners` and `endpoints` on `sockets`, and nothing else: whole, or on an error not at all. Does not
    /// wait for anything.
    ///
    /// Where an address keeps its sockets, the next query is answered by the new listener: nothing is lost, and
    /// established TCP connections go on. Sockets that are left out take nothing new from now on; what they have
    /// received is still answered as before. They cannot be applied again. Endpoints on addresses that no plan before
    /// had wait for [`Server::listen_http`].
    pub fn apply(
        &mut self,
        listeners: &[Arc<A>],
        endpoints: &[Endpoint],
        mut sockets: Sockets,
    ) -> Result<(), SocketError> {
        let mut bindings = HashMap::new();
        let mut kept = Vec::new();
        let mut registered = Vec::new();
        for listener in listeners {
            let address = listener.address();
            let is_plain = listener.protocol().is_plain();
            let bound = sockets.get(&address, is_plain).ok_or(SocketError::NotBound(address))?;
            let current = self.sockets.get(&address, is_plain).filter(|current| Arc::ptr_eq(current, bound));
            let binding = match current.and_then(|_| self.bindings.get(&address)) {
                Some(binding) => {
                    kept.push((binding.clone(), listener.clone()));
                    binding.clone()
                }
                None => {
                    let sockets = match is_plain {
                        true => self.register(bound),
                        false => self.register_stream(bound),
                    };
                    let sockets = sockets.map_err(|cause| SocketError::Register { address, cause })?;
                    let binding = Arc::new(Binding::new(listener.clone(), self.alive.clone()));
                    registered.push((binding.clone(), sockets));
                    binding
                }
            };
            bindings.insert(address, binding);
        }

        // Nothing below can fail.
        for (binding, listener) in kept {
            binding.dispatcher.store(listener);
        }
        for (binding, sockets) in registered {
            let Registered { udp, tcp, stream } = sockets;
            for ((worker, tcp), udp) in self.workers.iter().zip(tcp).zip(udp) {
                for socket in udp {
                    worker.runtime.spawn(udp::serve(socket, binding.clone(), worker.state.clone()));
                }
                worker.runtime.spawn(tcp::accept(tcp, binding.clone(), worker.state.clone(), tcp::admit));
            }
            if let (Some(worker), Some(stream)) = (&self.stream_worker, stream) {
                let admit = self.streams.admitter();
                worker.runtime.spawn(tcp::accept(stream, binding, worker.state.clone(), admit));
            }
        }
        self.http.serve(endpoints);
        let is_served = |address: &SocketAddr, is_plain| {
            bindings.get(address).is_some_and(|binding| binding.dispatcher.load().protocol().is_plain() == is_plain)
        };
        sockets.dns.retain(|address, _| is_served(address, true));
        sockets.streams.retain(|address, _| is_served(address, false));
        let old_sockets = std::mem::replace(&mut self.sockets, sockets);
        let old_bindings = std::mem::replace(&mut self.bindings, bindings);
        for (address, binding) in old_bindings {
            if self.bindings.get(&address).is_none_or(|binding_now| !Arc::ptr_eq(binding_now, &binding)) {
                let held = [true, false].into_iter().filter_map(|is_plain| old_sockets.get(&address, is_plain));
                // Those of all IPv4 addresses serve on for all addresses where the kernel has no IPv6.
                for left in held.filter(|held| !self.sockets.has(held)) {
                    // Whoever passed them lets go of them too once it hears what is served: from now on what comes to
                    // the address is for sockets that still serve it (those of all addresses), not for a queue that
                    // nobody reads.
                    left.claim();
                    left.stop_receiving();
                }
                binding.stop();
            }
        }
        Ok(())
    }

    /// [`Http::listen`]
    pub fn listen_http(&mut self) -> Vec<SocketError> {
        self.http.listen()
    }

    /// Registers the sockets of an address with the workers' runtimes, UDP sockets in turn.
    fn register(&self, sockets: &DnsSockets) -> io::Result<Registered> {
        let mut registered = Registered::default();
        for (index, worker) in self.workers.iter().enumerate() {
            let _entered = worker.runtime.enter();
            bound_buffers(&sockets.tcp, worker);
            let own = sockets.udp.iter().skip(index).step_by(self.workers.len());
            registered.udp.push(own.map(|socket| datagrams::register(socket.try_clone()?)).collect::<io::Result<_>>()?);
            registered.tcp.push(platform::register_readable(sockets.tcp.try_clone()?.into())?);
        }
        Ok(registered)
    }

    /// Registers the listener of an address for TLS or HTTPS with the worker of those, which is started if there is
    /// none.
    fn register_stream(&mut self, sockets: &DnsSockets) -> io::Result<Registered> {
        let worker = match self.stream_worker.take() {
            Some(worker) => worker,
            None => {
                let worker = Worker::start_as("streams", None, self.streams.new_state()).map_err(io::Error::other)?;
                worker.state.packets().set_tapped(self.is_tapped);
                self.streams.report_alive_on(&worker.runtime);
                worker
            }
        };
        self.streams.set_state(worker.state.clone());
        let worker = self.stream_worker.insert(worker);
        let _entered = worker.runtime.enter();
        bound_buffers(&sockets.tcp, worker);
        let stream = Some(platform::register_readable(sockets.tcp.try_clone()?.into())?);
        Ok(Registered { stream, ..Registered::default() })
    }

    /// Takes nothing new from now on, answers what has been received, and ends when that is done or `within` is over.
    /// HTTP is served until then. Returns how many queries were left without an answer.
    pub async fn drain(mut self, within: Duration) -> usize {
        self.sockets.all().for_each(|sockets| sockets.stop_receiving());
        self.bindings.drain().for_each(|(_, binding)| binding.stop());
        self.sockets = Sockets::default();
        drop(self.alive);
        let is_done = tokio::time::timeout(within, self.all_done.recv()).await.is_ok();
        let workers = self.workers.into_iter().chain(self.stream_worker);
        let workers: Vec<Worker> = workers.collect();
        let unanswered = if is_done { 0 } else { workers.iter().map(|worker| worker.state.in_flight()).sum() };
        for worker in workers {
            worker.end();
        }
        unanswered
    }
}

/// As many of `count` workers as can be started.
fn as_many_as_can_be<T, E: std::fmt::Display>(
    count: usize,
    mut start: impl FnMut(usize) -> Result<T, E>,
) -> Result<Vec<T>, E> {
    let mut started = Vec::with_capacity(count);
    for index in 0..count {
        match start(index) {
            Ok(worker) => started.push(worker),
            Err(error) if index > 0 => {
                tracing::warn!("{index} workers of {count} serve, more cannot be started: {error}");
                break;
            }
            Err(error) => return Err(error),
        }
    }
    Ok(started)
}

/// As small in the kernel as the worker's limits say. Connections inherit that. Best effort: larger ones serve as well.
fn bound_buffers(listener: &std::net::TcpListener, worker: &Worker) {
    if let Some(octets) = worker.state.limits.socket_buffer {
        let listener = SockRef::from(listener);
        _ = listener.set_send_buffer_size(octets);
        _ = listener.set_recv_buffer_size(octets);
    }
}

/// Sockets of an address, registered.
#[derive(Default)]
struct Registered {
    /// One entry for each worker.
    udp: Vec<Vec<AsyncFd<std::net::UdpSocket>>>,
    tcp: Vec<AsyncFd<OwnedFd>>,
    /// For the worker of clients within TLS or HTTPS.
    stream: Option<AsyncFd<OwnedFd>>,
}
