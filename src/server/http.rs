//! Scrapes and probes over HTTP/1.1, on the control runtime: a table of addresses and paths, swapped with the plan. Its sockets are its own
//! and nothing waits for them: DNS is served whether or not an address can be listened on, and that is tried again ([`Http::listen`]).

use super::sockets::{SocketError, bind_http};
use crate::chain::{Endpoint, HttpAnswer};
use arc_swap::ArcSwap;
use http_body_util::Full;
use hyper::body::{Bytes, Incoming};
use hyper::header::{ALLOW, CONTENT_TYPE, HeaderValue};
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper::{Method, Request, Response, StatusCode};
use hyper_util::rt::{TokioIo, TokioTimer};
use std::collections::{HashMap, VecDeque};
use std::convert::Infallible;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;
use tokio::net::{TcpListener, TcpStream};
use tokio::runtime::Handle;
use tokio::task::AbortHandle;

/// Connections to one address. A scraper and the kubelet need two; beyond this many the oldest is closed, so that nobody who opens
/// connections keeps a probe from being answered.
const CONNECTIONS: usize = 128;

/// For a request's header, and between requests on a connection.
const HEADER_TIMEOUT: Duration = Duration::from_secs(30);

type Answer = Arc<dyn Fn() -> HttpAnswer + Send + Sync>;
type Routes = HashMap<SocketAddr, HashMap<&'static str, Answer>>;

/// Serves endpoints over HTTP: a server's side of it, or all that a process without DNS serves.
pub struct Http {
    control: Handle,
    routes: Arc<ArcSwap<Routes>>,
    /// Addresses that are listened on.
    listening: HashMap<SocketAddr, Listening>,
}

/// Accepts connections until it is dropped.
struct Listening(AbortHandle);

impl Drop for Listening {
    fn drop(&mut self) {
        self.0.abort();
    }
}

impl Http {
    /// Nothing is served yet. Connections are served on `control`.
    pub fn new(control: Handle) -> Self {
        Self { control, routes: Arc::default(), listening: HashMap::new() }
    }

    /// From now on these endpoints are served and nothing else: where it is listened already at once, at other addresses from the next
    /// [`Http::listen`] on.
    pub fn serve(&mut self, endpoints: &[Endpoint]) {
        let mut routes = Routes::new();
        for endpoint in endpoints {
            routes.entry(endpoint.address).or_default().entry(endpoint.path).or_insert_with(|| endpoint.answer.clone());
        }
        self.listening.retain(|address, _| routes.contains_key(address));
        self.routes.store(Arc::new(routes));
    }

    /// Listens on every address that is served and not listened on. Returns why some of them could not be: worth another try.
    pub fn listen(&mut self) -> Vec<SocketError> {
        let mut errors = Vec::new();
        let mut lacking: Vec<SocketAddr> = self.routes.load().keys().copied().collect();
        lacking.retain(|address| !self.listening.contains_key(address));
        lacking.sort_unstable();
        for address in lacking {
            let _entered = self.control.enter();
            let register = |listener| TcpListener::from_std(listener).map_err(|cause| SocketError::Register { address, cause });
            match bind_http(address).and_then(register) {
                Ok(listener) => {
                    let task = self.control.spawn(accept(listener, address, self.routes.clone())).abort_handle();
                    self.listening.insert(address, Listening(task));
                }
                Err(error) => errors.push(error),
            }
        }
        errors
    }
}

async fn accept(listener: TcpListener, address: SocketAddr, routes: Arc<ArcSwap<Routes>>) {
    let mut connections: VecDeque<AbortHandle> = VecDeque::new();
    loop {
        match listener.accept().await {
            Ok((stream, _)) => {
                connections.retain(|connection| !connection.is_finished());
                if connections.len() >= CONNECTIONS
                    && let Some(oldest) = connections.pop_front()
                {
                    oldest.abort();
                }
                connections.push_back(tokio::spawn(converse(stream, address, routes.clone())).abort_handle());
            }
            Err(error) => {
                tracing::warn!("accepting HTTP on {address} failed: {error}");
                tokio::time::sleep(Duration::from_millis(100)).await;
            }
        }
    }
}

async fn converse(stream: TcpStream, address: SocketAddr, routes: Arc<ArcSwap<Routes>>) {
    let service = service_fn(move |request: Request<Incoming>| {
        let response = respond(&routes.load(), address, request.method(), request.uri().path());
        async move { Ok::<_, Infallible>(response) }
    });
    let connection = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(HEADER_TIMEOUT)
        .max_buf_size(16 << 10)
        .serve_connection(TokioIo::new(stream), service);
    if let Err(error) = connection.await {
        tracing::debug!("HTTP connection to {address}: {error}");
    }
}

fn respond(routes: &Routes, address: SocketAddr, method: &Method, path: &str) -> Response<Full<Bytes>> {
    let plain = |status, text: &'static str| {
        let mut response = Response::new(Full::new(Bytes::from_static(text.as_bytes())));
        *response.status_mut() = status;
        response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("text/plain; charset=utf-8"));
        response
    };
    let Some(answer) = routes.get(&address).and_then(|paths| paths.get(path)) else {
        return plain(StatusCode::NOT_FOUND, "404 page not found\n");
    };
    if !matches!(*method, Method::GET | Method::HEAD) {
        let mut response = plain(StatusCode::METHOD_NOT_ALLOWED, "405 only GET and HEAD are answered here\n");
        response.headers_mut().insert(ALLOW, HeaderValue::from_static("GET, HEAD"));
        return response;
    }
    let HttpAnswer { status, content_type, body } = answer();
    let mut response = Response::new(Full::new(Bytes::from(body)));
    *response.status_mut() = StatusCode::from_u16(status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
    if let Ok(content_type) = HeaderValue::from_str(content_type) {
        response.headers_mut().insert(CONTENT_TYPE, content_type);
    }
    response
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_known_paths_of_the_address_are_answered_and_only_get_and_head() {
        let here: SocketAddr = "127.0.0.1:9253".parse().unwrap();
        let there: SocketAddr = "127.0.0.1:8080".parse().unwrap();
        let answer: Answer = Arc::new(|| HttpAnswer { status: 503, content_type: "text/plain", body: "not ready".to_owned() });
        let routes = Routes::from([(here, HashMap::from([("/ready", answer)]))]);
        let status = |address, method, path| respond(&routes, address, &method, path).status().as_u16();
        assert_eq!(status(here, Method::GET, "/ready"), 503);
        assert_eq!(status(here, Method::HEAD, "/ready"), 503);
        assert_eq!(status(here, Method::POST, "/ready"), 405);
        assert_eq!(status(here, Method::GET, "/ready/"), 404);
        assert_eq!(status(here, Method::POST, "/"), 404);
        assert_eq!(status(there, Method::GET, "/ready"), 404);
        let allowed = respond(&routes, here, &Method::DELETE, "/ready");
        assert_eq!(allowed.headers()[ALLOW], "GET, HEAD");
    }

    #[tokio::test]
    async fn an_address_that_another_has_is_listened_on_once_it_is_free_and_the_others_meanwhile() {
        let holder = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let busy = holder.local_addr().unwrap();
        let free = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
        let answer: Answer = Arc::new(|| HttpAnswer { status: 200, content_type: "text/plain", body: "OK".to_owned() });
        let endpoint = |address| Endpoint { address, path: "/health", answer: answer.clone() };
        let mut http = Http::new(Handle::current());
        http.serve(&[endpoint(busy), endpoint(free)]);
        let told = |errors: Vec<SocketError>| errors.iter().map(ToString::to_string).collect::<Vec<_>>();
        for _ in 0..2 {
            let told = told(http.listen());
            assert!(told.len() == 1 && told[0].contains(&format!("cannot listen on {busy} for HTTP")), "{told:?}");
            assert!(TcpStream::connect(free).await.is_ok());
        }
        drop(holder);
        assert_eq!(told(http.listen()), [""; 0]);
        assert!(TcpStream::connect(busy).await.is_ok());
    }
}
