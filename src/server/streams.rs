//! Clients that come within TLS or HTTP. They have a thread and a runtime of their own, which is started with the first
//! listener of that kind: a handshake takes as much of a processor as some hundred answers from the cache, and no query
//! over UDP or TCP waits for it.
//!
//! Connections are places ([`Connections`]) of their own too, from before the handshake on, and so are handshakes: the
//! client that has most of either gives way.

use super::Limits;
use super::client_stream::ClientStream;
use super::connections::{Closed, ConnectionAdmission, ConnectionPermit, Connections};
use super::dispatcher::Dispatcher;
use super::https::{self, HttpsConnection};
use super::tcp::{self, Entered};
use super::worker::{Binding, Shared, WorkerState};
use crate::net::tls::ServerTls;
use crate::plan::{ClientProtocol, Https};
use parking_lot::Mutex;
use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant};
use tokio::net::TcpStream;
use tokio::runtime::Handle;
use tokio::time::{sleep, timeout};
use tokio_rustls::server::TlsStream;

/// For so many connections without TLS there may be one of these: measured when idle, one takes 15 KiB of this process
/// with TLS and 34 with HTTP/2 in it, and 3 without.
const CONNECTION_PART: usize = 8;
/// Connections at least, however little memory there is.
const LEAST_CONNECTIONS: usize = 32;
/// One part in so many of the octets that are kept for clients is for these.
const BUFFER_PART: usize = 4;

/// Handshakes at a time. Each is a matter of milliseconds for a client that means it, so one that gives way to another
/// of its own client has mostly been silent for long. Twice as many as are accepted in one turn of the runtime (128 in
/// tokio), so that who has just come is heard before others take its place.
const HANDSHAKES: usize = 256;

/// How often it is said that the thread has its turns.
const ALIVE_INTERVAL: Duration = Duration::from_millis(500);

/// For a handshake once its listener has stopped, so that who says nothing does not hold up the end.
const HANDSHAKE_AT_END: Duration = Duration::from_millis(500);

/// What clients of this kind may take.
pub(super) struct Streams {
    shared: Arc<Shared>,
    limits: Mutex<Limits>,
    state: OnceLock<Arc<WorkerState>>,
    /// Idle since they began, or since their clients have begun to speak: of the client that has most the one gives way
    /// that is so for longest.
    handshakes: Arc<Connections>,
    alive_report: OnceLock<Arc<dyn Fn() + Send + Sync>>,
}

impl Streams {
    /// Nobody is served yet. `limits` are those of clients without TLS.
    pub(super) fn new(limits: Limits, shared: Arc<Shared>) -> Self {
        let handshakes = Arc::new(Connections::new(HANDSHAKES, 0, Instant::now()));
        let (limits, state, alive_report) = (Mutex::new(share(limits)), OnceLock::new(), OnceLock::new());
        Self { shared, limits, state, handshakes, alive_report }
    }

    /// What their worker has, once there is one.
    pub(super) fn state(&self) -> Option<&Arc<WorkerState>> {
        self.state.get()
    }

    /// What a worker for them begins with.
    pub(super) fn new_state(&self) -> WorkerState {
        let limits = *self.limits.lock();
        let connections = Connections::new(limits.tcp_connections, limits.buffer_octets, Instant::now());
        WorkerState::new(limits, self.shared.clone(), Arc::new(connections))
    }

    /// This one serves them from now on.
    pub(super) fn set_state(&self, state: Arc<WorkerState>) {
        // The only one that there ever is.
        _ = self.state.set(state);
    }

    /// What is called at the turns of their thread.
    pub(super) fn set_alive_report(&self, report: Arc<dyn Fn() + Send + Sync>) {
        // Of one process there is one watchdog.
        _ = self.alive_report.set(report);
    }

    /// Has the runtime of their thread do so.
    pub(super) fn report_alive_on(&self, runtime: &Handle) {
        let Some(report) = self.alive_report.get().cloned() else { return };
        runtime.spawn(async move {
            loop {
                report();
                sleep(ALIVE_INTERVAL).await;
            }
        });
    }

    /// Sets other limits: those of clients without TLS, of which these have a part.
    pub(super) fn set_limits(&self, limits: Limits) {
        let limits = share(limits);
        *self.limits.lock() = limits;
        let Some(state) = self.state() else { return };
        state.set_queries(limits.queries_per_worker);
        let closed = state.connections.set_limits(limits.tcp_connections, limits.buffer_octets);
        closed.iter().for_each(|closed| state.count_closed(closed));
    }

    /// What lets connections to one listener in.
    pub(super) fn admitter<A: Dispatcher>(
        &self,
    ) -> impl Fn(TcpStream, &Arc<Binding<A>>, &Arc<WorkerState>) + Send + use<A> {
        let of_listener = Arc::new(Connections::new(1, 0, Instant::now()));
        let handshakes = self.handshakes.clone();
        move |stream, binding, state| admit(stream, binding, state, &of_listener, &handshakes)
    }
}

/// The part of the limits that is for these clients.
fn share(limits: Limits) -> Limits {
    Limits {
        tcp_connections: (limits.tcp_connections / CONNECTION_PART).max(LEAST_CONNECTIONS),
        buffer_octets: limits.buffer_octets / BUFFER_PART,
        ..limits
    }
}

fn admit<A: Dispatcher>(
    stream: TcpStream,
    binding: &Arc<Binding<A>>,
    state: &Arc<WorkerState>,
    of_listener: &Arc<Connections>,
    handshakes: &Arc<Connections>,
) {
    let Some(entered) = tcp::enter(&stream, binding, state) else { return };
    let mut permit = None;
    if let ClientProtocol::Https(Https { connections: Some(connections), .. }) = binding.dispatcher.load().protocol() {
        match admit_to_listener(*connections, &entered, state, of_listener) {
            Some(admitted) => permit = Some(admitted),
            None => return state.metrics().cut.refused.increment(),
        }
    }
    tokio::spawn(serve(stream, entered, permit, binding.clone(), state.clone(), handshakes.clone()));
}

/// A place among the connections of one listener (`https { max_connections }`); `None` if its client has most of them,
/// all in use.
fn admit_to_listener(
    connections: usize,
    entered: &Entered,
    state: &WorkerState,
    of_listener: &Arc<Connections>,
) -> Option<ConnectionPermit> {
    let count = |closed: &Closed| state.count_closed(closed);
    // A reload may have changed it.
    of_listener.set_limits(connections, 0).iter().for_each(count);
    match of_listener.admit(entered.caller, entered.is_fair, Instant::now()) {
        ConnectionAdmission::Granted(permit) => Some(permit),
        ConnectionAdmission::Evicting(permit, closed) => {
            count(&closed);
            Some(permit)
        }
        ConnectionAdmission::Full => None,
    }
}

async fn serve<A: Dispatcher>(
    stream: TcpStream,
    entered: Entered,
    of_listener: Option<ConnectionPermit>,
    binding: Arc<Binding<A>>,
    state: Arc<WorkerState>,
    handshakes: Arc<Connections>,
) {
    let dispatcher = binding.dispatcher.load_full();
    let patience = dispatcher.timeouts().read;
    let (tls, is_https) = match dispatcher.protocol() {
        // The address has become one of another kind while the connection waited.
        ClientProtocol::Plain => return,
        ClientProtocol::Tls(tls) => (tls.clone(), false),
        ClientProtocol::Https(https) => (https.tls.clone(), true),
    };
    drop(dispatcher);
    let serve_https = |entered, is_http2| HttpsConnection {
        entered,
        of_listener,
        is_http2,
        binding: binding.clone(),
        state: state.clone(),
    };
    match tls {
        None if is_https => https::serve(stream, serve_https(entered, false)).await,
        None => serve_dns(stream, entered, &binding, &state).await,
        Some(tls) => {
            let is_over = async {
                binding.stopped().await;
                sleep(HANDSHAKE_AT_END).await;
            };
            let session = handshake(stream, &tls, &entered, &state, &handshakes, patience);
            let session = async {
                tokio::select! {
                    session = session => session,
                    () = is_over => None,
                }
            };
            // Its memory is not that of the session that follows.
            let Some(session) = Box::pin(session).await else { return };
            drop((tls, handshakes));
            if is_https {
                let is_http2 = session.get_ref().1.alpn_protocol() == Some(b"h2");
                https::serve(session, serve_https(entered, is_http2)).await;
            } else {
                serve_dns(session, entered, &binding, &state).await;
            }
        }
    }
}

async fn serve_dns<A: Dispatcher>(
    stream: impl ClientStream,
    entered: Entered,
    binding: &Arc<Binding<A>>,
    state: &Arc<WorkerState>,
) {
    let (connection, permit, memory) = tcp::connection(entered, binding, state);
    tcp::serve(stream, connection, permit, memory).await;
}

/// The session that a client begins with; `None`, counted, if it does not within `patience`, cannot agree with us, or
/// has to give way.
async fn handshake(
    stream: TcpStream,
    tls: &ServerTls,
    entered: &Entered,
    state: &WorkerState,
    handshakes: &Arc<Connections>,
    patience: Duration,
) -> Option<TlsStream<TcpStream>> {
    let client = entered.peer.client;
    let permit = match handshakes.admit(entered.caller, entered.is_fair, Instant::now()) {
        ConnectionAdmission::Granted(permit) | ConnectionAdmission::Evicting(permit, _) => permit,
        // Without fairness, where all are other clients'.
        ConnectionAdmission::Full => {
            state.metrics().cut.refused.increment();
            return None;
        }
    };
    let outcome = tokio::select! {
        biased;
        // Counted by whoever takes its place.
        () = entered.permit.evicted() => return None,
        () = permit.evicted() => None,
        outcome = timeout(patience, tls.accept_and(stream, || permit.set_idle(Instant::now()))) => Some(outcome),
    };
    match outcome {
        Some(Ok(Ok(session))) => return Some(session),
        Some(Ok(Err(error))) => tracing::debug!("TLS with {client}: {error}"),
        None => tracing::debug!("TLS with {client}: its handshake gives way to another one"),
        Some(Err(_)) => tracing::debug!("TLS with {client}: no session within {patience:?}"),
    }
    state.metrics().cut.handshake.increment();
    None
}
