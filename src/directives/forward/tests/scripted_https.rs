//! An upstream over HTTPS that does as the test says.

use super::scripted::ReceivedQuery;
use crate::chain::Transport;
use data_encoding::BASE64URL_NOPAD;
use h2::server::SendResponse;
use h2::{Reason, RecvStream};
use hyper::body::Bytes;
use hyper::{HeaderMap, Method, Request, Response, Uri};
use parking_lot::Mutex;
use std::future::poll_fn;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{mpsc, watch};
use tokio_rustls::TlsAcceptor;
use tokio_rustls::rustls::{HandshakeKind, ServerConfig};

/// A request that reached the upstream.
#[derive(Clone, Debug)]
pub(crate) struct ReceivedRequest {
    pub query: ReceivedQuery,
    pub method: Method,
    pub uri: Uri,
    pub headers: HeaderMap,
}

/// What the upstream does when a request comes.
pub(crate) enum HttpsReaction {
    Silent,
    Answer(Vec<u8>),
    /// Answers once that is true.
    Held(watch::Receiver<bool>, Vec<u8>),
    /// A response with this status, these headers and this body.
    Respond(u16, Vec<(&'static str, String)>, Vec<u8>),
    /// Ends the stream (RST_STREAM).
    ResetStream,
    /// Takes no more requests, and answers those that it has (GOAWAY).
    AnswerAndGoAway(Vec<u8>),
    /// Takes no more requests, and answers none (GOAWAY, and the end).
    GoAway,
    /// Resets the TCP connection.
    ResetConnection,
}

/// How an upstream is to be.
pub(crate) struct HttpsBehaviour {
    pub tls: ServerConfig,
    /// Streams that may be open on a connection at a time.
    pub max_streams: u32,
    /// How long the session of the first connection takes.
    pub session_delay: Duration,
}

type Script = Arc<dyn Fn(&ReceivedRequest) -> HttpsReaction + Send + Sync>;

#[derive(Default)]
struct Seen {
    requests: Vec<ReceivedRequest>,
    sessions: Vec<HandshakeKind>,
    cancelled: usize,
    goodbyes: usize,
}

pub(crate) struct HttpsUpstream {
    pub address: SocketAddr,
    seen: Arc<Mutex<Seen>>,
    task: tokio::task::JoinHandle<()>,
}

impl HttpsUpstream {
    pub(crate) async fn start(
        behaviour: HttpsBehaviour,
        script: impl Fn(&ReceivedRequest) -> HttpsReaction + Send + Sync + 'static,
    ) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let seen = Arc::<Mutex<Seen>>::default();
        let task = tokio::spawn(serve(listener, behaviour, Arc::new(script), seen.clone()));
        Self { address, seen, task }
    }
    pub(crate) fn requests(&self) -> Vec<ReceivedRequest> {
        self.seen.lock().requests.clone()
    }
    /// How each session so far was made.
    pub(crate) fn sessions(&self) -> Vec<HandshakeKind> {
        self.seen.lock().sessions.clone()
    }
    /// Requests that the client has ended before they were answered.
    pub(crate) fn cancelled(&self) -> usize {
        self.seen.lock().cancelled
    }
    /// Connections that the client has ended, with GOAWAY and the end of the session.
    pub(crate) fn goodbyes(&self) -> usize {
        self.seen.lock().goodbyes
    }
}

impl Drop for HttpsUpstream {
    fn drop(&mut self) {
        self.task.abort();
    }
}

async fn serve(listener: TcpListener, behaviour: HttpsBehaviour, script: Script, seen: Arc<Mutex<Seen>>) {
    let tls = TlsAcceptor::from(Arc::new(behaviour.tls));
    let mut connections = tokio::task::JoinSet::new();
    for connection in 0.. {
        let (stream, client) = listener.accept().await.unwrap();
        let delay = if connection == 0 { behaviour.session_delay } else { Duration::ZERO };
        let (tls, script, seen) = (tls.clone(), script.clone(), seen.clone());
        let serving = serve_connection(stream, client, connection, tls, behaviour.max_streams, script, seen);
        connections.spawn(async move {
            tokio::time::sleep(delay).await;
            serving.await;
        });
    }
}

/// What a request does to its connection.
enum ToConnection {
    GoAway { abruptly: bool },
    Reset,
}

async fn serve_connection(
    stream: TcpStream,
    client: SocketAddr,
    connection: usize,
    tls: TlsAcceptor,
    max_streams: u32,
    script: Script,
    seen: Arc<Mutex<Seen>>,
) {
    let socket = socket2::SockRef::from(&stream).try_clone().unwrap();
    // A client that refuses the session has nothing to ask.
    let Ok(session) = tls.accept(stream).await else { return };
    seen.lock().sessions.push(session.get_ref().1.handshake_kind().unwrap());
    let mut builder = h2::server::Builder::new();
    let Ok(mut http) = builder.max_concurrent_streams(max_streams).handshake::<_, Bytes>(session).await else { return };
    let (commands, mut commanded) = mpsc::unbounded_channel();
    loop {
        tokio::select! {
            accepted = http.accept() => match accepted {
                Some(Ok((request, respond))) => {
                    let (script, seen, commands) = (script.clone(), seen.clone(), commands.clone());
                    tokio::spawn(answer(request, respond, client, connection, script, seen, commands));
                }
                Some(Err(_)) => return,
                None => {
                    seen.lock().goodbyes += 1;
                    return;
                }
            },
            Some(command) = commanded.recv() => match command {
                ToConnection::GoAway { abruptly: false } => http.graceful_shutdown(),
                ToConnection::GoAway { abruptly: true } => http.abrupt_shutdown(Reason::NO_ERROR),
                ToConnection::Reset => {
                    let _ = socket.set_linger(Some(Duration::ZERO));
                    return;
                }
            }
        }
    }
}

async fn answer(
    request: Request<RecvStream>,
    mut respond: SendResponse<Bytes>,
    client: SocketAddr,
    connection: usize,
    script: Script,
    seen: Arc<Mutex<Seen>>,
    commands: mpsc::UnboundedSender<ToConnection>,
) {
    let (head, mut body) = request.into_parts();
    let mut wire = Vec::new();
    while let Some(Ok(octets)) = body.data().await {
        wire.extend_from_slice(&octets);
        let _ = body.flow_control().release_capacity(octets.len());
    }
    if head.method == Method::GET {
        let text = head.uri.query().unwrap().strip_prefix("dns=").unwrap();
        wire = BASE64URL_NOPAD.decode(text.as_bytes()).unwrap();
    }
    let received = {
        let mut seen = seen.lock();
        let query = ReceivedQuery { transport: Transport::Tcp, wire, client, index: seen.requests.len(), connection };
        let received = ReceivedRequest { query, method: head.method, uri: head.uri, headers: head.headers };
        seen.requests.push(received.clone());
        received
    };
    let message = |message| (200, vec![("content-type", "application/dns-message".to_owned())], message);
    let (status, headers, body) = match script(&received) {
        HttpsReaction::Silent => {
            // It ends with the connection, or when the client ends the request.
            if let Ok(Reason::CANCEL) = poll_fn(|context| respond.poll_reset(context)).await {
                seen.lock().cancelled += 1;
            }
            return;
        }
        HttpsReaction::Answer(octets) => message(octets),
        HttpsReaction::Held(mut released, octets) => {
            // Fails where the test is over.
            let _ = released.wait_for(|is_released| *is_released).await;
            message(octets)
        }
        HttpsReaction::Respond(status, headers, body) => (status, headers, body),
        HttpsReaction::ResetStream => return respond.send_reset(Reason::REFUSED_STREAM),
        HttpsReaction::AnswerAndGoAway(octets) => {
            let _ = commands.send(ToConnection::GoAway { abruptly: false });
            tokio::time::sleep(Duration::from_millis(20)).await;
            message(octets)
        }
        HttpsReaction::GoAway => {
            let _ = commands.send(ToConnection::GoAway { abruptly: true });
            return std::future::pending().await;
        }
        HttpsReaction::ResetConnection => {
            let _ = commands.send(ToConnection::Reset);
            return std::future::pending().await;
        }
    };
    let mut response = Response::builder().status(status);
    for (name, value) in headers {
        response = response.header(name, value);
    }
    let Ok(mut stream) = respond.send_response(response.body(()).unwrap(), false) else { return };
    let _ = stream.send_data(body.into(), true);
}
