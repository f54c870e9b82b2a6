//! An upstream that does as the test says, on UDP and TCP of one loopback port, TCP with TLS or without.

use crate::chain::Transport;
use parking_lot::Mutex;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::{TcpListener, UdpSocket};
use tokio_rustls::TlsAcceptor;
use tokio_rustls::rustls::{HandshakeKind, ServerConfig};

/// A query that reached the upstream.
#[derive(Clone, Debug)]
pub(super) struct ReceivedQuery {
    pub transport: Transport,
    pub wire: Vec<u8>,
    pub client: SocketAddr,
    /// Position among all queries that this upstream has seen, from 0.
    pub index: usize,
    /// Position of its TCP connection, from 0; 0 for UDP.
    pub connection: usize,
}

impl ReceivedQuery {
    /// An answer with one A record `192.0.2.last`.
    pub(super) fn answer(&self, last: u8) -> Vec<u8> {
        let mut message = self.header(0, 1);
        message.extend_from_slice(&[0xc0, 12, 0, 1, 0, 1, 0, 0, 0, 60, 0, 4, 192, 0, 2, last]);
        message
    }
    /// An answer with so many A records.
    pub(super) fn long_answer(&self, records: u16) -> Vec<u8> {
        let mut message = self.header(0, 0);
        message[6..8].copy_from_slice(&records.to_be_bytes());
        for record in 0..records {
            let [high, low] = record.to_be_bytes();
            message.extend_from_slice(&[0xc0, 12, 0, 1, 0, 1, 0, 0, 0, 60, 0, 4, 192, 0, high, low]);
        }
        message
    }
    /// An answer without records.
    pub(super) fn empty(&self, rcode: u8) -> Vec<u8> {
        self.header(rcode, 0)
    }
    /// An empty answer with TC.
    pub(super) fn truncated(&self) -> Vec<u8> {
        let mut message = self.header(0, 0);
        message[2] |= 0x02;
        message
    }
    pub(super) fn has_edns(&self) -> bool {
        self.wire[11] == 1
    }
    /// The first label of the question's name.
    pub(super) fn label(&self) -> String {
        let length = usize::from(self.wire[12]);
        String::from_utf8(self.wire[13..13 + length].to_vec()).unwrap()
    }

    fn header(&self, rcode: u8, answers: u8) -> Vec<u8> {
        let mut message = self.wire[..2].to_vec();
        message.extend_from_slice(&[0x80 | self.wire[2], 0x80 | rcode, 0, 1, 0, answers, 0, 0, 0, 0]);
        let mut end = 12;
        while self.wire[end] != 0 {
            end += 1 + usize::from(self.wire[end]);
        }
        message.extend_from_slice(&self.wire[12..end + 5]);
        message
    }
}

/// What the upstream does when a query comes.
pub(super) enum Reaction {
    Silent,
    Send(Vec<u8>),
    /// Several messages, one after another.
    SendAll(Vec<Vec<u8>>),
    Later(Duration, Vec<u8>),
    /// Resets the TCP connection.
    Reset,
    /// Answers, then closes the TCP connection.
    SendAndClose(Vec<u8>),
}

type Script = Arc<dyn Fn(&ReceivedQuery) -> Reaction + Send + Sync>;

pub(super) struct ScriptedUpstream {
    pub address: SocketAddr,
    udp: Arc<UdpSocket>,
    seen: Arc<Mutex<Vec<ReceivedQuery>>>,
    connections: Arc<Mutex<usize>>,
    sessions: Arc<Mutex<Vec<HandshakeKind>>>,
    tasks: Vec<tokio::task::JoinHandle<()>>,
}

impl ScriptedUpstream {
    pub(super) async fn start(script: impl Fn(&ReceivedQuery) -> Reaction + Send + Sync + 'static) -> Self {
        let (udp, tcp) = bind().await;
        Self::serve(udp, tcp, None, Arc::new(script))
    }
    /// One whose TCP connections have TLS sessions.
    pub(super) async fn start_tls(
        config: ServerConfig,
        script: impl Fn(&ReceivedQuery) -> Reaction + Send + Sync + 'static,
    ) -> Self {
        let (udp, tcp) = bind().await;
        Self::serve(udp, tcp, Some(TlsAcceptor::from(Arc::new(config))), Arc::new(script))
    }
    pub(super) async fn start_at(
        address: SocketAddr,
        script: impl Fn(&ReceivedQuery) -> Reaction + Send + Sync + 'static,
    ) -> Self {
        let (udp, tcp) = (UdpSocket::bind(address).await.unwrap(), TcpListener::bind(address).await.unwrap());
        Self::serve(udp, tcp, None, Arc::new(script))
    }

    fn serve(udp: UdpSocket, tcp: TcpListener, tls: Option<TlsAcceptor>, script: Script) -> Self {
        let address = tcp.local_addr().unwrap();
        let seen = Arc::new(Mutex::new(Vec::new()));
        let connections = Arc::new(Mutex::new(0));
        let sessions = Arc::new(Mutex::new(Vec::new()));
        let udp = Arc::new(udp);
        let on_udp = tokio::spawn(serve_udp(udp.clone(), script.clone(), seen.clone()));
        let accepted = Accepted { tls, script, seen: seen.clone(), sessions: sessions.clone() };
        let on_tcp = tokio::spawn(serve_tcp(tcp, accepted, connections.clone()));
        Self { address, udp, seen, connections, sessions, tasks: vec![on_udp, on_tcp] }
    }

    /// Its socket, for messages that are no answer.
    pub(super) fn udp(&self) -> &UdpSocket {
        &self.udp
    }
    pub(super) fn seen(&self) -> Vec<ReceivedQuery> {
        self.seen.lock().clone()
    }
    pub(super) fn count(&self, transport: Transport) -> usize {
        self.seen.lock().iter().filter(|seen| seen.transport == transport).count()
    }
    /// How each TLS session so far was made.
    pub(super) fn sessions(&self) -> Vec<HandshakeKind> {
        self.sessions.lock().clone()
    }
    /// TCP connections accepted so far.
    pub(super) fn connections(&self) -> usize {
        *self.connections.lock()
    }
}

impl Drop for ScriptedUpstream {
    fn drop(&mut self) {
        self.tasks.iter().for_each(tokio::task::JoinHandle::abort);
    }
}

fn note(
    all: &Mutex<Vec<ReceivedQuery>>,
    transport: Transport,
    wire: &[u8],
    client: SocketAddr,
    connection: usize,
) -> ReceivedQuery {
    let mut all = all.lock();
    let seen = ReceivedQuery { transport, wire: wire.to_vec(), client, index: all.len(), connection };
    all.push(seen.clone());
    seen
}

async fn serve_udp(socket: Arc<UdpSocket>, script: Script, all: Arc<Mutex<Vec<ReceivedQuery>>>) {
    let mut buffer = [0; 4096];
    loop {
        let (length, client) = socket.recv_from(&mut buffer).await.unwrap();
        let seen = note(&all, Transport::Udp, &buffer[..length], client, 0);
        match script(&seen) {
            Reaction::Silent | Reaction::Reset => {}
            Reaction::Send(message) | Reaction::SendAndClose(message) => drop(socket.send_to(&message, client).await),
            Reaction::SendAll(messages) => {
                for message in messages {
                    let _ = socket.send_to(&message, client).await;
                }
            }
            Reaction::Later(delay, message) => {
                let socket = socket.clone();
                tokio::spawn(async move {
                    tokio::time::sleep(delay).await;
                    let _ = socket.send_to(&message, client).await;
                });
            }
        }
    }
}

/// What is done with TCP connections.
#[derive(Clone)]
struct Accepted {
    tls: Option<TlsAcceptor>,
    script: Script,
    seen: Arc<Mutex<Vec<ReceivedQuery>>>,
    sessions: Arc<Mutex<Vec<HandshakeKind>>>,
}

/// UDP and TCP of one free port.
async fn bind() -> (UdpSocket, TcpListener) {
    loop {
        let udp = UdpSocket::bind("127.0.0.1:0").await.unwrap();
        if let Ok(tcp) = TcpListener::bind(udp.local_addr().unwrap()).await {
            return (udp, tcp);
        }
    }
}

async fn serve_tcp(listener: TcpListener, accepted: Accepted, connections: Arc<Mutex<usize>>) {
    loop {
        let (stream, client) = listener.accept().await.unwrap();
        let connection = {
            let mut count = connections.lock();
            *count += 1;
            *count - 1
        };
        let accepted = accepted.clone();
        tokio::spawn(async move {
            let socket = socket2::SockRef::from(&stream).try_clone().unwrap();
            let Some(tls) = &accepted.tls else {
                return serve_connection(stream, socket, client, connection, accepted.script, accepted.seen).await;
            };
            // A client that refuses the session has nothing to ask.
            let Ok(session) = tls.accept(stream).await else { return };
            accepted.sessions.lock().push(session.get_ref().1.handshake_kind().unwrap());
            serve_connection(session, socket, client, connection, accepted.script, accepted.seen).await;
        });
    }
}

/// `socket` is that of the stream.
async fn serve_connection(
    stream: impl AsyncRead + AsyncWrite + Send + 'static,
    socket: socket2::Socket,
    client: SocketAddr,
    connection: usize,
    script: Script,
    all: Arc<Mutex<Vec<ReceivedQuery>>>,
) {
    let (mut reading, writing) = tokio::io::split(stream);
    let writing = Arc::new(tokio::sync::Mutex::new(writing));
    while let Ok(length) = reading.read_u16().await {
        let mut wire = vec![0; usize::from(length)];
        if reading.read_exact(&mut wire).await.is_err() {
            return;
        }
        let seen = note(&all, Transport::Tcp, &wire, client, connection);
        let send = async |message: Vec<u8>| {
            let mut framed = u16::try_from(message.len()).unwrap().to_be_bytes().to_vec();
            framed.extend_from_slice(&message);
            let _ = writing.lock().await.write_all(&framed).await;
        };
        match script(&seen) {
            Reaction::Silent => {}
            Reaction::Send(message) => send(message).await,
            Reaction::SendAll(messages) => {
                for message in messages {
                    send(message).await;
                }
            }
            Reaction::Later(delay, message) => {
                let writing = writing.clone();
                tokio::spawn(async move {
                    tokio::time::sleep(delay).await;
                    let mut framed = u16::try_from(message.len()).unwrap().to_be_bytes().to_vec();
                    framed.extend_from_slice(&message);
                    let _ = writing.lock().await.write_all(&framed).await;
                });
            }
            Reaction::Reset => {
                let _ = socket.set_linger(Some(Duration::ZERO));
                return;
            }
            Reaction::SendAndClose(message) => {
                send(message).await;
                return;
            }
        }
    }
}
