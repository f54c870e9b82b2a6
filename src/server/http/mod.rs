//! Scrapes and probes over HTTP/1.1, on the control runtime: a table of addresses and paths, swapped with the plan. Its
//! sockets are its own and nothing waits for them: DNS is served whether or not an address can be listened on, and that
//! is tried again ([`Http::listen`]).
//!
//! Anybody may come here, as in the reference, so whoever comes is bounded: connections ([`admission`]), the octets of
//! a request and of what the kernel holds for a connection, the time for either direction, and how much is made for all
//! who ask ([`page`]).

mod admission;
mod content_coding;
mod host;
mod page;
mod text;

use super::client_stream::{Duplex, with_write_timeout};
use super::sockets::{SocketError, bind_http};
use crate::chain::{AnswerEach, Document, Endpoint, HttpAnswer, HttpAnswers};
use crate::metrics::{Counter, Registry};
use crate::net::tls::ServerTls;
use admission::HttpConnections;
use arc_swap::ArcSwap;
use content_coding::Coding;
use hyper::body::Incoming;
use hyper::header::{ALLOW, CONTENT_ENCODING, CONTENT_TYPE, HeaderName, HeaderValue, VARY};
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper::{Method, Request, Response, StatusCode};
use hyper_util::rt::{TokioIo, TokioTimer};
use page::{Page, not_before};
use parking_lot::Mutex;
use socket2::SockRef;
use std::collections::HashMap;
use std::convert::Infallible;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;
use text::{SharedText, Text};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, TcpStream};
use tokio::runtime::Handle;
use tokio::task::{AbortHandle, yield_now};
use tokio::time::Instant;

/// Connections to one address. A scraper and the kubelet need two; one more has the client that holds most lose its
/// oldest.
const CONNECTIONS: usize = 64;

/// For a request's header, and between requests on a connection.
const HEADER_TIMEOUT: Duration = Duration::from_secs(10);

/// How long a client may take nothing of an answer that waits for it.
const WRITE_TIMEOUT: Duration = Duration::from_secs(10);

/// From one answer on a connection to the next. Requests that come sooner wait, and what comes after them stays in the
/// socket.
const SPACING: Duration = Duration::from_millis(50);

/// Octets of a request's header.
const MAX_HEADER: usize = 16 << 10;

/// Octets that the kernel keeps of a connection's requests, and of its answers; it takes twice as many. They count
/// against the container's limit of memory, and would be up to 4 MiB each way.
const RECEIVE_BUFFER: usize = 16 << 10;
const SEND_BUFFER: usize = 32 << 10;

type Routes = HashMap<SocketAddr, Site>;

/// What stands at one address.
#[derive(Default)]
struct Site {
    pages: HashMap<&'static str, PathHandler>,
    /// Without it clients come without TLS.
    tls: Option<ServerTls>,
}

/// What stands at one path.
#[derive(Clone)]
enum PathHandler {
    Shared(Arc<Page>),
    ByPlace { here: Arc<Page>, elsewhere: Arc<Page> },
    Document(&'static Document, Arc<SharedText>),
    ForEach(AnswerEach),
}

impl From<&HttpAnswers> for PathHandler {
    fn from(answers: &HttpAnswers) -> Self {
        match answers {
            HttpAnswers::Shared(answer) => Self::Shared(Arc::new(Page::new(answer.clone()))),
            HttpAnswers::ByPlace { here, elsewhere } => Self::ByPlace {
                here: Arc::new(Page::new(here.clone())),
                elsewhere: Arc::new(Page::new(elsewhere.clone())),
            },
            HttpAnswers::Document(document) => Self::Document(document, SharedText::new(document.body.into())),
            HttpAnswers::ForEach(answer) => Self::ForEach(answer.clone()),
        }
    }
}

/// Serves endpoints over HTTP: a server's side of it, or all that a process without DNS serves.
pub(crate) struct Http {
    control: Handle,
    evictions: Arc<Evictions>,
    routes: Arc<ArcSwap<Routes>>,
    /// Addresses that are listened on.
    listening: HashMap<SocketAddr, Listening>,
}

/// `nodelocaldns_http_connections_cut_total{reason}`: connections that made room for new ones.
struct Evictions {
    /// Had its first answer, or had asked nothing.
    idle: Counter,
    /// Waited for its first answer.
    busy: Counter,
}

impl Evictions {
    fn new(registry: &Registry) -> Self {
        let evictions = |reason| {
            let help = "Connections to HTTP addresses closed by the server to make room for new ones, by reason.";
            registry.counter("nodelocaldns_http_connections_cut_total", help, &[("reason", reason)])
        };
        Self { idle: evictions("evicted"), busy: evictions("evicted_busy") }
    }
}

/// Accepts connections until it is dropped.
struct Listening(AbortHandle);

impl Drop for Listening {
    fn drop(&mut self) {
        self.0.abort();
    }
}

impl Http {
    /// Nothing is served yet. Connections are served on `control`; `registry` counts those that are evicted.
    pub(crate) fn new(control: Handle, registry: &Registry) -> Self {
        Self {
            control,
            evictions: Arc::new(Evictions::new(registry)),
            routes: Arc::default(),
            listening: HashMap::new(),
        }
    }

    /// From now on these endpoints are served and nothing else: where it is listened already at once, at other
    /// addresses from the next [`Http::listen`] on.
    pub(crate) fn serve(&mut self, endpoints: &[Endpoint]) {
        let routes = routes_of(endpoints);
        self.listening.retain(|address, _| routes.contains_key(address));
        self.routes.store(Arc::new(routes));
    }

    /// Listens on every address that is served and not listened on. Returns why some of them could not be: worth
    /// another try.
    pub(crate) fn listen(&mut self) -> Vec<SocketError> {
        let mut errors = Vec::new();
        let mut lacking: Vec<SocketAddr> = self.routes.load().keys().copied().collect();
        lacking.retain(|address| !self.listening.contains_key(address));
        lacking.sort_unstable();
        for address in lacking {
            let _entered = self.control.enter();
            let register =
                |listener| TcpListener::from_std(listener).map_err(|cause| SocketError::Register { address, cause });
            match bind_http(address).inspect(bound_buffers).and_then(register) {
                Ok(listener) => {
                    let accepting = accept(listener, address, self.routes.clone(), self.evictions.clone());
                    let task = self.control.spawn(accepting).abort_handle();
                    self.listening.insert(address, Listening(task));
                }
                Err(error) => errors.push(error),
            }
        }
        errors
    }
}

/// The first of several endpoints at one address and path has it.
fn routes_of(endpoints: &[Endpoint]) -> Routes {
    let mut routes = Routes::new();
    for endpoint in endpoints {
        let site = routes.entry(endpoint.address).or_default();
        site.pages.entry(endpoint.path).or_insert_with(|| PathHandler::from(&endpoint.answers));
        site.tls = site.tls.take().or_else(|| endpoint.tls.clone());
    }
    routes
}

/// What is accepted there has the same.
fn bound_buffers(listener: &std::net::TcpListener) {
    let socket = SockRef::from(listener);
    // It works with larger ones too.
    _ = socket.set_recv_buffer_size(RECEIVE_BUFFER);
    _ = socket.set_send_buffer_size(SEND_BUFFER);
}

struct Connection {
    task: AbortHandle,
    /// Has asked, and waits for its first answer.
    waits: Arc<AtomicBool>,
}

async fn accept(listener: TcpListener, address: SocketAddr, routes: Arc<ArcSwap<Routes>>, evictions: Arc<Evictions>) {
    let mut connections: HttpConnections<Connection> = HttpConnections::new(CONNECTIONS);
    loop {
        match listener.accept().await {
            Ok((stream, client)) => {
                connections.retain(|connection| !connection.task.is_finished());
                let waits = Arc::new(AtomicBool::new(false));
                let task =
                    tokio::spawn(serve(stream, (address, client.ip()), routes.clone(), waits.clone())).abort_handle();
                if admit(&mut connections, client.ip(), Connection { task, waits }, &evictions) {
                    // Each that comes has a turn before the next one may cost it its place.
                    yield_now().await;
                }
            }
            Err(error) => {
                tracing::warn!("accepting HTTP on {address} failed: {error}");
                tokio::time::sleep(Duration::from_millis(100)).await;
            }
        }
    }
}

/// HttpConnections a client's connection; true if another one had to end for it.
fn admit(
    connections: &mut HttpConnections<Connection>,
    client: IpAddr,
    connection: Connection,
    evictions: &Evictions,
) -> bool {
    let waits = |connection: &Connection| connection.waits.load(Ordering::Relaxed);
    let Some(evicted) = connections.take(client, connection, waits) else { return false };
    if waits(&evicted) { &evictions.busy } else { &evictions.idle }.increment();
    evicted.task.abort();
    true
}

/// One connection to `address` where `endpoints` are served, as each that [`Http`] accepts but over any stream, until
/// it ends. For tests with bytes and a clock of their own.
#[doc(hidden)]
pub async fn serve_connection(
    endpoints: &[Endpoint],
    address: SocketAddr,
    stream: impl AsyncRead + AsyncWrite + Send + 'static,
) {
    converse(stream, (address, address.ip()), Arc::new(ArcSwap::from_pointee(routes_of(endpoints))), Arc::default())
        .await;
}

/// A client's connection, with TLS where that is wanted now.
async fn serve(
    stream: TcpStream,
    (address, client): (SocketAddr, IpAddr),
    routes: Arc<ArcSwap<Routes>>,
    waits: Arc<AtomicBool>,
) {
    let Some(tls) = routes.load().get(&address).and_then(|site| site.tls.clone()) else {
        return converse(stream, (address, client), routes, waits).await;
    };
    match tokio::time::timeout(HEADER_TIMEOUT, tls.accept(stream)).await {
        Ok(Ok(session)) => converse(session, (address, client), routes, waits).await,
        Ok(Err(error)) => tracing::debug!("TLS of a connection to {address}: {error}"),
        Err(_) => tracing::debug!("TLS of a connection to {address}: no session within {HEADER_TIMEOUT:?}"),
    }
}

async fn converse(
    stream: impl Duplex + 'static,
    (address, client): (SocketAddr, IpAddr),
    routes: Arc<ArcSwap<Routes>>,
    waits: Arc<AtomicBool>,
) {
    let next = Mutex::new(None);
    let (next, routes, waits) = (&next, &*routes, &*waits);
    let service = service_fn(|request: Request<Incoming>| async move {
        let due = *next.lock();
        waits.store(due.is_none(), Ordering::Relaxed);
        if let Some(due) = due {
            not_before(due).await;
        }
        let response = respond(routes, (address, client), &request).await;
        waits.store(false, Ordering::Relaxed);
        *next.lock() = Some(Instant::now() + SPACING);
        Ok::<_, Infallible>(response)
    });
    let connection = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(HEADER_TIMEOUT)
        .max_buf_size(MAX_HEADER)
        .serve_connection(TokioIo::new(with_write_timeout(stream, WRITE_TIMEOUT)), service);
    if let Err(error) = connection.await {
        tracing::debug!("HTTP connection to {address}: {error}");
    }
}

async fn respond<B>(
    routes: &ArcSwap<Routes>,
    (address, client): (SocketAddr, IpAddr),
    request: &Request<B>,
) -> Response<Text> {
    let (path, query) = (request.uri().path(), request.uri().query().unwrap_or_default());
    let route = routes.load().get(&address).and_then(|site| site.pages.get(path)).cloned();
    let Some(route) = route else {
        return for_one(HttpAnswer::text(404, "404 page not found\n"));
    };
    if !matches!(*request.method(), Method::GET | Method::HEAD) {
        let mut response = for_one(HttpAnswer::text(405, "405 only GET and HEAD are answered here\n"));
        response.headers_mut().insert(ALLOW, HeaderValue::from_static("GET, HEAD"));
        return response;
    }
    if matches!(route, PathHandler::ByPlace { .. } | PathHandler::Document(..)) && !host::is_plain(request) {
        return for_one(HttpAnswer::text(421, host::WRONG_HOST));
    }
    let page = match route {
        PathHandler::Shared(page) => page,
        PathHandler::ByPlace { here, .. } if client.to_canonical().is_loopback() => here,
        PathHandler::ByPlace { elsewhere, .. } => elsewhere,
        PathHandler::Document(document, text) => return whole(document, text.text()),
        PathHandler::ForEach(answer) => return for_one(answer(query).await),
    };
    let accepted = Coding::accepted(request.headers());
    let made = page.answer(accepted).await;
    let coding = made.coding(accepted);
    let mut response = response(made.status, made.content_type, made.text(coding));
    if coding == Coding::Gzip {
        response.headers_mut().insert(CONTENT_ENCODING, HeaderValue::from_static("gzip"));
    }
    response.headers_mut().insert(VARY, HeaderValue::from_static("Accept-Encoding"));
    response
}

fn whole(document: &Document, text: Text) -> Response<Text> {
    let mut response = Response::new(text);
    for (name, value) in document.headers {
        response.headers_mut().insert(HeaderName::from_static(name), HeaderValue::from_static(value));
    }
    response
}

fn for_one(answer: HttpAnswer) -> Response<Text> {
    response(answer.status, answer.content_type, Text::from(answer.body))
}

fn response(status: u16, content_type: &'static str, text: Text) -> Response<Text> {
    let mut response = Response::new(text);
    *response.status_mut() = StatusCode::from_u16(status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static(content_type));
    response
}

#[cfg(test)]
mod tests;
