//! Queries over HTTPS (RFC 8484): HTTP/2 or HTTP/1.1 inside TLS, or HTTP/1.1 without it. Paths, statuses and headers
//! are the reference's (core/dnsserver/server_https.go, plugin/pkg/doh of CoreDNS).

use super::buffers::{ConnectionMemory, Reservation};
use super::client_stream::{Duplex, with_write_timeout};
use super::connections::ConnectionPermit;
use super::dispatcher::Dispatcher;
use super::tcp::{Entered, MAX_QUERY};
use super::worker::{Binding, WorkerState};
use crate::chain::{BatchClock, Peer, Received, Timeouts};
use crate::message::freshness;
use crate::plan::{ClientProtocol, Dispatch, HttpsResponses};
use data_encoding::BASE64URL_NOPAD;
use http_body_util::{BodyExt, Full, Limited};
use hyper::body::{Body, Bytes};
use hyper::header::{CACHE_CONTROL, CONTENT_TYPE, HeaderName, HeaderValue};
use hyper::server::conn::{http1, http2};
use hyper::service::service_fn;
use hyper::{Method, Request, Response, StatusCode};
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use parking_lot::Mutex;
use std::convert::Infallible;
use std::future::{Future, pending};
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio::sync::oneshot;
use tokio::time::{sleep, timeout};

/// The path of all queries.
const PATH: &str = "/dns-query";
const MEDIA_TYPE: &str = "application/dns-message";

/// Octets of a request's header. The longest query in a URI takes a third of it.
const MAX_HEADER: usize = 16 << 10;
/// Octets that a client may send on a stream, and on a connection, before it hears that they were taken. Queries are
/// short, and a client that sends none of them by POST needs none.
const STREAM_WINDOW: u32 = 8 << 10;
const CONNECTION_WINDOW: u32 = 64 << 10;
/// Octets of replies that HTTP/2 keeps of a stream while the client does not take them.
const SEND_BUFFER: usize = 16 << 10;

/// Octets of a reply that is not counted among those that are kept for clients.
const ALWAYS_KEPT: usize = 512;

/// A client's connection before its first request.
pub(super) struct HttpsConnection<A> {
    pub entered: Entered,
    /// Its place among those of its listener, if they have a bound of their own.
    pub of_listener: Option<ConnectionPermit>,
    pub is_http2: bool,
    pub binding: Arc<Binding<A>>,
    pub state: Arc<WorkerState>,
}

/// Serves until the client ends it, is idle for too long, or has to make room.
pub(super) async fn serve<A: Dispatcher>(stream: impl Duplex + 'static, connection: HttpsConnection<A>) {
    let HttpsConnection { entered, of_listener, is_http2, binding, state } = connection;
    let Entered { peer, permit, memory, .. } = entered;
    let timeouts = binding.dispatcher.load().timeouts();
    let io = TokioIo::new(with_write_timeout(stream, timeouts.write));
    let streams = u32::try_from(state.limits.queries_per_connection).unwrap_or(u32::MAX);
    let usage = Arc::new(Usage { permit, of_listener, now: Mutex::new((0, Instant::now())) });
    let requests = Arc::new(Requests { binding, state, peer, memory: memory.clone(), usage: usage.clone(), timeouts });
    let stopped = requests.binding.stopped_for_connection();
    let answered = requests.clone();
    let service = service_fn(move |request| respond(answered.clone(), request));
    let ending = Ending { usage: &usage, memory: &memory, timeouts };
    let cut = match is_http2 {
        true => {
            let connection = http2::Builder::new(TokioExecutor::new())
                .timer(TokioTimer::new())
                .max_concurrent_streams(streams)
                .max_header_list_size(MAX_HEADER as u32)
                .initial_stream_window_size(STREAM_WINDOW)
                .initial_connection_window_size(CONNECTION_WINDOW)
                .max_send_buf_size(SEND_BUFFER)
                .serve_connection(io, service);
            ending.drive(connection, stopped, |connection| connection.graceful_shutdown()).await
        }
        false => {
            let connection = http1::Builder::new()
                .timer(TokioTimer::new())
                // Between requests too.
                .header_read_timeout(timeouts.idle.max(timeouts.read))
                .max_buf_size(MAX_HEADER)
                .serve_connection(io, service);
            ending.drive(connection, stopped, |connection| connection.graceful_shutdown()).await
        }
    };
    let counters = &requests.state.metrics().cut;
    match cut {
        Some(Cut::Crowded) => counters.crowded.increment(),
        Some(Cut::SlowReader) => counters.slow_reader.increment(),
        None => {}
    }
}

/// Why a connection ends before its client wants it to.
enum Cut {
    Crowded,
    SlowReader,
}

/// When a connection is to end.
struct Ending<'a> {
    usage: &'a Usage,
    memory: &'a ConnectionMemory,
    timeouts: Timeouts,
}

impl Ending<'_> {
    /// Runs a connection until it is over. `finish` has it take no more requests.
    async fn drive<C: Future<Output = hyper::Result<()>>>(
        &self,
        connection: C,
        stopped: impl Future<Output = ()>,
        finish: impl Fn(Pin<&mut C>),
    ) -> Option<Cut> {
        let (mut connection, mut stopped) = (pin!(connection), pin!(stopped));
        let mut alarm = pin!(sleep(self.timeouts.idle));
        let mut is_finishing = false;
        loop {
            let again = tokio::select! {
                biased;
                // Counted by whoever takes its place.
                () = self.usage.evicted() => return None,
                () = self.memory.cut() => return Some(Cut::Crowded),
                () = &mut stopped, if !is_finishing => {
                    finish(connection.as_mut());
                    is_finishing = true;
                    self.timeouts.write
                }
                () = &mut alarm => match self.usage.idle_for() {
                    None => self.timeouts.idle,
                    Some(idle) if is_finishing && idle >= self.timeouts.write => return Some(Cut::SlowReader),
                    Some(_) if is_finishing => self.timeouts.write,
                    Some(idle) if idle < self.timeouts.idle => self.timeouts.idle - idle,
                    Some(_) => {
                        finish(connection.as_mut());
                        is_finishing = true;
                        self.timeouts.write
                    }
                },
                // After the others, so that what the client sends cannot put them off.
                outcome = connection.as_mut() => {
                    let error = outcome.err()?;
                    tracing::debug!("HTTPS connection: {error}");
                    return None;
                }
            };
            alarm.set(sleep(again.max(Duration::from_millis(1))));
        }
    }
}

/// What a connection is in use for.
struct Usage {
    permit: ConnectionPermit,
    of_listener: Option<ConnectionPermit>,
    /// Requests that wait for their response, and since when there are so many.
    now: Mutex<(usize, Instant)>,
}

impl Usage {
    fn permits(&self) -> impl Iterator<Item = &ConnectionPermit> {
        [&self.permit].into_iter().chain(&self.of_listener)
    }

    /// Resolves when the connection is to make room.
    async fn evicted(&self) {
        let of_listener = async {
            match &self.of_listener {
                Some(permit) => permit.evicted().await,
                None => pending().await,
            }
        };
        tokio::select! {
            () = self.permit.evicted() => {}
            () = of_listener => {}
        }
    }

    /// For how long there has been no request; `None` if there is one.
    fn idle_for(&self) -> Option<Duration> {
        let (requests, since) = *self.now.lock();
        (requests == 0).then(|| since.elapsed())
    }

    fn begin(self: &Arc<Self>) -> Busy {
        let mut now = self.now.lock();
        now.0 += 1;
        if now.0 == 1 {
            self.permits().for_each(ConnectionPermit::set_busy);
        }
        Busy(self.clone())
    }
}

/// A request that waits for its response.
struct Busy(Arc<Usage>);

impl Drop for Busy {
    fn drop(&mut self) {
        let mut now = self.0.now.lock();
        *now = (now.0 - 1, Instant::now());
        if now.0 == 0 {
            self.0.permits().for_each(|permit| permit.set_idle(now.1));
        }
    }
}

/// What the requests of a connection have in common.
struct Requests<A> {
    binding: Arc<Binding<A>>,
    state: Arc<WorkerState>,
    peer: Peer,
    memory: Arc<ConnectionMemory>,
    usage: Arc<Usage>,
    timeouts: Timeouts,
}

type Reply = Response<Full<Bytes>>;

async fn respond<A: Dispatcher, B: Body<Data = Bytes>>(
    requests: Arc<Requests<A>>,
    request: Request<B>,
) -> Result<Reply, Infallible>
where
    B::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
{
    let _busy = requests.usage.begin();
    let dispatcher = requests.binding.dispatcher.load_full();
    let count = |which: fn(&HttpsResponses) -> &crate::metrics::Counter| {
        if let ClientProtocol::Https(https) = dispatcher.protocol() {
            which(&https.responses).increment();
        }
    };
    if request.uri().path() != PATH {
        count(|responses| &responses.not_found);
        return Ok(refusal(StatusCode::NOT_FOUND, "\n"));
    }
    let query = match timeout(requests.timeouts.read, read_query(request)).await {
        Ok(Some(query)) if is_request(&query) => query,
        _ => {
            count(|responses| &responses.bad_request);
            return Ok(refusal(StatusCode::BAD_REQUEST, "invalid request\n"));
        }
    };
    let reply = requests.answer(&dispatcher, &query).await;
    if reply.is_empty() {
        count(|responses| &responses.no_response);
        return Ok(refusal(StatusCode::INTERNAL_SERVER_ERROR, "No response\n"));
    }
    count(|responses| &responses.ok);
    Ok(requests.response(reply))
}

impl<A: Dispatcher> Requests<A> {
    /// Empty if nothing is to be said.
    async fn answer(&self, dispatcher: &Arc<A>, query: &[u8]) -> Vec<u8> {
        let client = self.peer.client.ip();
        let mut reply = Vec::new();
        let pending = {
            let clock = BatchClock::start(Instant::now());
            let received = Received { wire: query, peer: &self.peer, clock: &clock };
            let mut packets = self.state.packets();
            match dispatcher.dispatch(received, &mut packets, &mut reply) {
                Dispatch::Reply => return reply,
                Dispatch::PacketHit(hit) => {
                    dispatcher.count(hit, received, &packets, &reply);
                    return reply;
                }
                Dispatch::ReplyAndRefresh(pending) => {
                    self.state.refresh::<A>(pending, client);
                    return reply;
                }
                Dispatch::Silence => return Vec::new(),
                Dispatch::Pending(pending) => pending,
            }
        };
        let Some(pass) = self.state.admit(client) else {
            A::refuse(&pending, &mut reply);
            return reply;
        };
        // A task of its own, as for TCP: others may wait for the same answer.
        let (give, given) = oneshot::channel();
        let binding = self.binding.clone();
        tokio::spawn(async move {
            let mut reply = Vec::new();
            if pass.hold(A::run(&pending, &mut reply)).await.is_none() {
                A::refuse(&pending, &mut reply);
            }
            drop((pass, binding));
            // Its client may be gone.
            _ = give.send(reply);
        });
        given.await.unwrap_or_default()
    }

    fn response(&self, reply: Vec<u8>) -> Reply {
        let max_age = format!("max-age={}", freshness(&reply));
        let mut reservation = Reservation::new(self.memory.clone());
        // Where there is no room the connection ends.
        reservation.fit(if reply.len() > ALWAYS_KEPT { reply.len() } else { 0 });
        let body = Bytes::from_owner(KeptReply { octets: reply, _reservation: reservation });
        let mut response = Response::new(Full::new(body));
        let headers = response.headers_mut();
        headers.insert(CONTENT_TYPE, HeaderValue::from_static(MEDIA_TYPE));
        headers.extend(HeaderValue::from_str(&max_age).ok().map(|value| (CACHE_CONTROL, value)));
        response
    }
}

/// A reply that its client has yet to take.
struct KeptReply {
    octets: Vec<u8>,
    _reservation: Reservation,
}

impl AsRef<[u8]> for KeptReply {
    fn as_ref(&self) -> &[u8] {
        &self.octets
    }
}

fn refusal(status: StatusCode, text: &'static str) -> Reply {
    let mut response = Response::new(Full::new(Bytes::from_static(text.as_bytes())));
    *response.status_mut() = status;
    let headers = response.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static("text/plain; charset=utf-8"));
    headers.insert(HeaderName::from_static("x-content-type-options"), HeaderValue::from_static("nosniff"));
    response
}

/// The message of a request; `None` if it has none that could be one.
async fn read_query<B: Body<Data = Bytes>>(request: Request<B>) -> Option<Vec<u8>>
where
    B::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
{
    match *request.method() {
        Method::GET => query_of_uri(request.uri().query()?),
        Method::POST => {
            let body = pin!(Limited::new(request.into_body(), MAX_QUERY));
            Some(body.collect().await.ok()?.to_bytes().to_vec())
        }
        _ => None,
    }
}

/// The message in a URI's query: the one value of `dns`, in base64url without padding (RFC 8484 section 6).
fn query_of_uri(query: &str) -> Option<Vec<u8>> {
    let mut values = query.split('&').filter_map(|pair| pair.strip_prefix("dns="));
    let value = values.next()?;
    if values.next().is_some() || value.len() > MAX_QUERY.div_ceil(3) * 4 {
        return None;
    }
    BASE64URL_NOPAD.decode(value.as_bytes()).ok()
}

/// Whether a message has a header and asks for something.
fn is_request(message: &[u8]) -> bool {
    message.len() >= 12 && message.get(2).is_some_and(|flags| flags & 0x80 == 0)
}

#[cfg(test)]
mod tests;
