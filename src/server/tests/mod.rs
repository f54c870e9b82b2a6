//! The server on loopback, with a dispatcher whose queries say what is to become of them.

mod streams;
mod swap;
mod tcp;
mod udp;
mod workers;

use super::*;
use crate::chain::{HttpAnswer, Received, Timeouts};
use crate::plan::{ClientProtocol, Dispatch, PacketCache, PacketHit};
use crate::ports::free_port;
use futures_util::FutureExt;
use socket2::{Domain, Socket, Type};
use std::collections::HashSet;
use std::io::{Read, Write};
use std::net::{TcpStream, UdpSocket};
use std::os::fd::AsFd;
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread;
use tokio::runtime::Runtime;
use tokio::sync::Semaphore;

/// Long enough for anything that is to happen on a machine under load.
const SOON: Duration = Duration::from_secs(20);

/// Answers what it is asked, its own version in front. The first octet of a query says how.
struct Toy {
    address: SocketAddr,
    version: u8,
    timeouts: Timeouts,
    protocol: ClientProtocol,
    /// What the queries in flight wait for.
    gate: Arc<Semaphore>,
    refreshed: Arc<AtomicUsize>,
    /// Times that a query has blocked its worker.
    blocked: Arc<AtomicUsize>,
}

enum ToyPending {
    Answer(Arc<Semaphore>, Vec<u8>),
    Refresh(Arc<AtomicUsize>),
}

impl Dispatcher for Toy {
    type Pending = ToyPending;

    fn address(&self) -> SocketAddr {
        self.address
    }
    fn timeouts(&self) -> Timeouts {
        self.timeouts
    }
    fn protocol(&self) -> &ClientProtocol {
        &self.protocol
    }
    fn dispatch(
        self: &Arc<Self>,
        received: Received<'_>,
        _packets: &mut PacketCache,
        out: &mut Vec<u8>,
    ) -> Dispatch<ToyPending> {
        let Received { wire, peer, .. } = received;
        assert!(out.is_empty());
        out.push(self.version);
        out.extend_from_slice(wire);
        match wire.first() {
            Some(b'h') => Dispatch::Reply,
            Some(b'a') => {
                out.extend_from_slice(format!(" {} {} {}", peer.client, peer.local, peer.transport.label()).as_bytes());
                Dispatch::Reply
            }
            Some(b'b') => {
                out.resize(60_000, b'b');
                Dispatch::Reply
            }
            Some(b'r') => Dispatch::ReplyAndRefresh(ToyPending::Refresh(self.refreshed.clone())),
            Some(b'm') => Dispatch::Pending(ToyPending::Answer(self.gate.clone(), std::mem::take(out))),
            Some(b'M') => {
                out.resize(60_000, b'M');
                Dispatch::Pending(ToyPending::Answer(self.gate.clone(), std::mem::take(out)))
            }
            Some(b'w') => {
                self.blocked.fetch_add(1, Ordering::Relaxed);
                while self.gate.try_acquire().map(tokio::sync::SemaphorePermit::forget).is_err() {
                    thread::sleep(Duration::from_millis(1));
                }
                Dispatch::Reply
            }
            _ => Dispatch::Silence,
        }
    }
    fn count(&self, _hit: PacketHit, _received: Received<'_>, _packets: &PacketCache, _reply: &[u8]) {}
    async fn run(pending: &ToyPending, out: &mut Vec<u8>) {
        match pending {
            ToyPending::Answer(gate, reply) => {
                gate.acquire().await.unwrap().forget();
                out.extend_from_slice(reply);
            }
            ToyPending::Refresh(refreshed) => _ = refreshed.fetch_add(1, Ordering::Relaxed),
        }
    }
    fn refuse(pending: &ToyPending, out: &mut Vec<u8>) {
        if let ToyPending::Answer(_, reply) = pending {
            out.push(b'!');
            out.extend(reply.iter().take(8));
        }
    }
}

/// A server and the toy's controls.
struct Rig {
    server: Server<Toy>,
    runtime: Runtime,
    registry: Registry,
    workers: usize,
    timeouts: Timeouts,
    gate: Arc<Semaphore>,
    refreshed: Arc<AtomicUsize>,
    blocked: Arc<AtomicUsize>,
}

impl Rig {
    fn new(workers: usize, limits: Limits) -> Self {
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
        let registry = Registry::new(workers + 1);
        let server = Server::start(workers, limits, Arc::default(), runtime.handle().clone(), &registry).unwrap();
        let timeouts = Timeouts { read: SOON, write: SOON, idle: SOON, max_queries: None };
        Self {
            server,
            runtime,
            registry,
            workers,
            timeouts,
            gate: Arc::new(Semaphore::new(0)),
            refreshed: Arc::default(),
            blocked: Arc::default(),
        }
    }

    fn toys(&self, addresses: &[SocketAddr], version: u8) -> Vec<Arc<Toy>> {
        let toy = |address: &SocketAddr| {
            let (gate, refreshed, blocked) = (self.gate.clone(), self.refreshed.clone(), self.blocked.clone());
            let (timeouts, protocol) = (self.timeouts, ClientProtocol::Plain);
            Arc::new(Toy { address: *address, version, timeouts, protocol, gate, refreshed, blocked })
        };
        addresses.iter().map(toy).collect()
    }

    fn apply(&mut self, addresses: &[SocketAddr], version: u8) {
        let toys = self.toys(addresses, version);
        let sockets = Sockets::bind(&addresses.iter().copied().collect(), self.workers, self.server.sockets()).unwrap();
        self.server.apply(&toys, &[], sockets).unwrap();
    }

    fn drain(self, within: Duration) -> usize {
        self.drain_and(within, || {})
    }

    /// Drains, and does `begun` as soon as all bindings are told to stop.
    fn drain_and(self, within: Duration, begun: impl FnOnce()) -> usize {
        self.runtime.block_on(async {
            let mut draining = std::pin::pin!(self.server.drain(within));
            if let Some(unanswered) = draining.as_mut().now_or_never() {
                return unanswered;
            }
            begun();
            draining.await
        })
    }

    fn metric(&self, series: &str) -> f64 {
        let text = self.registry.encode();
        let line = text.lines().find(|line| line.strip_prefix(series).is_some_and(|rest| rest.starts_with(' ')));
        line.unwrap_or_else(|| panic!("no {series} in\n{text}")).rsplit(' ').next().unwrap().parse().unwrap()
    }

    fn wait_for(&self, what: &str, is_so: impl Fn(&Self) -> bool) {
        let end = Instant::now() + SOON;
        while !is_so(self) {
            assert!(Instant::now() < end, "{what} never came to be");
            thread::sleep(Duration::from_millis(5));
        }
    }
}

/// One worker serving one address as version 1.
fn rig(limits: Limits) -> (Rig, SocketAddr) {
    let (mut rig, address) = (Rig::new(1, limits), free("127.0.0.1"));
    rig.apply(&[address], 1);
    (rig, address)
}

/// An address with a port that nobody has, over UDP or TCP.
fn free(ip: &str) -> SocketAddr {
    SocketAddr::new(ip.parse().unwrap(), free_port())
}

fn client(ip: &str) -> UdpSocket {
    let socket = UdpSocket::bind((ip, 0)).unwrap();
    socket.set_read_timeout(Some(SOON)).unwrap();
    socket
}

fn receive(socket: &UdpSocket) -> (Vec<u8>, SocketAddr) {
    let mut buffer = vec![0; 65_536];
    let (length, from) = socket.recv_from(&mut buffer).unwrap();
    buffer.truncate(length);
    (buffer, from)
}

/// A TCP client.
struct Talk(TcpStream);

impl Talk {
    fn to(address: SocketAddr) -> Self {
        Self::of(TcpStream::connect(address).unwrap())
    }
    fn from(ip: &str, address: SocketAddr) -> Self {
        let socket = Socket::new(Domain::for_address(address), Type::STREAM, None).unwrap();
        socket.bind(&SocketAddr::new(ip.parse().unwrap(), 0).into()).unwrap();
        socket.connect(&address.into()).unwrap();
        Self::of(socket.into())
    }
    fn of(stream: TcpStream) -> Self {
        stream.set_read_timeout(Some(SOON)).unwrap();
        stream.set_write_timeout(Some(SOON)).unwrap();
        Self(stream)
    }
    /// Of a client whose kernel takes little that it does not read: by itself it takes up to `net.ipv4.tcp_rmem`, tens
    /// of megabytes on some machines.
    fn with_little_room(ip: &str, address: SocketAddr) -> Self {
        let socket = Socket::new(Domain::for_address(address), Type::STREAM, None).unwrap();
        socket.bind(&SocketAddr::new(ip.parse().unwrap(), 0).into()).unwrap();
        socket.set_recv_buffer_size(64 << 10).unwrap();
        socket.connect(&address.into()).unwrap();
        Self::of(socket.into())
    }
    fn say(&mut self, messages: &[&[u8]]) {
        let framed = messages.iter().flat_map(|message| [&(message.len() as u16).to_be_bytes()[..], message].concat());
        self.0.write_all(&framed.collect::<Vec<_>>()).unwrap();
    }
    fn hear(&mut self) -> Vec<u8> {
        let mut length = [0; 2];
        self.0.read_exact(&mut length).unwrap();
        let mut message = vec![0; usize::from(u16::from_be_bytes(length))];
        self.0.read_exact(&mut message).unwrap();
        message
    }
    /// The server has closed the connection, be it with a reset.
    fn is_closed(&mut self) -> bool {
        let mut rest = [0; 4096];
        loop {
            match self.0.read(&mut rest) {
                Ok(0) => return true,
                Ok(_) => {}
                Err(error) => return error.kind() == io::ErrorKind::ConnectionReset,
            }
        }
    }
}
