//! The client beside every attack: asks by the clock, half for names that are cached and half for names that nobody has
//! asked for, over UDP and TCP. Sends each query once and waits for as long as a resolver library does. Judges every
//! answer by its address.

use crate::wire::{A, address_of, holds, query, rcode};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use socket2::{Domain, Socket, Type};
use std::collections::HashMap;
use std::fmt;
use std::hash::Hash;
use std::io::{self, Read, Write};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpStream, UdpSocket};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

/// As resolver libraries have by default.
pub const PATIENCE: Duration = Duration::from_secs(5);
/// Between two queries over UDP: 200 a second.
const UDP_INTERVAL: Duration = Duration::from_millis(5);
/// Between two queries over TCP; every second one on a connection of its own, the others on one that stays open.
const TCP_INTERVAL: Duration = Duration::from_millis(25);
const UDP_SOCKETS: usize = 16;
/// Names that are cached after [`warm`].
const CACHED: usize = 50;

/// What became of the queries of one transport.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct QueryCounts {
    pub sent: usize,
    /// No answer, for whatever cause, names cached and not.
    pub lost: [usize; 2],
    /// An error.
    pub failed: usize,
    /// Another address than the name has.
    pub wrong: usize,
}

impl QueryCounts {
    /// What was of no use.
    pub fn missed(&self) -> usize {
        self.lost[0] + self.lost[1] + self.failed + self.wrong
    }

    /// Counts as lost what nobody waits for any longer.
    fn give_up_late<K: Eq + Hash>(&mut self, open: &mut HashMap<K, (Name, Instant)>) {
        for (_, (name, _)) in open.extract_if(|_, (_, sent)| sent.elapsed() > PATIENCE) {
            self.note(&name, None);
        }
    }

    pub fn note(&mut self, name: &Name, answer: Option<&[u8]>) {
        self.sent += 1;
        match answer {
            None => self.lost[usize::from(!name.is_cached)] += 1,
            Some(answer) if rcode(answer) != Some(0) => self.failed += 1,
            Some(answer) if !holds(answer, &address_of(&name.text)) => self.wrong += 1,
            Some(_) => {}
        }
    }

    pub fn add(&mut self, other: Self) {
        self.sent += other.sent;
        self.failed += other.failed;
        self.wrong += other.wrong;
        self.lost = [self.lost[0] + other.lost[0], self.lost[1] + other.lost[1]];
    }
}

/// As it stands in the table: missed of sent, and what kind of miss, if there are any.
impl fmt::Display for QueryCounts {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} of {}", self.missed(), self.sent)?;
        if self.missed() > 0 {
            let Self { lost: [cached, fresh], failed, wrong, .. } = self;
            write!(f, " (cached {cached}, fresh {fresh}, failed {failed}, wrong {wrong})")?;
        }
        Ok(())
    }
}

pub struct Name {
    pub text: String,
    is_cached: bool,
}

impl Name {
    /// Every second one is cached.
    pub fn of(number: usize) -> Self {
        let is_cached = number.is_multiple_of(2);
        let text = if is_cached {
            cached_name(number / 2 % CACHED)
        } else {
            format!("u{number}-{:x}.polite.example", fastrand::u64(..))
        };
        Self { text, is_cached }
    }
}

fn cached_name(number: usize) -> String {
    format!("hot{number}.polite.example")
}

/// A polite client that asks until it is stopped.
pub struct Polite {
    stop: Arc<AtomicBool>,
    udp: JoinHandle<QueryCounts>,
    fresh_connections: JoinHandle<QueryCounts>,
    one_connection: JoinHandle<QueryCounts>,
}

impl Polite {
    /// Has the names cached, each from an address of its own.
    pub fn warm(server: SocketAddr) {
        for number in 0..CACHED {
            let text = cached_name(number);
            let name = Name { text, is_cached: false };
            // An answer may have been lost on a machine that does something else.
            let is_there = (0..3).any(|_| {
                let mut counts = QueryCounts::default();
                let answer = ask_once(server, &query(&name.text, A), Duration::from_secs(2));
                counts.note(&name, answer.as_deref());
                counts.missed() == 0
            });
            assert!(is_there, "no answer for {} before the attack", name.text);
        }
    }

    pub fn start(server: SocketAddr) -> Self {
        let stop = Arc::new(AtomicBool::new(false));
        let [of_udp, of_fresh, of_one] = [(); 3].map(|()| stop.clone());
        Self {
            stop,
            udp: std::thread::spawn(move || ask_udp(server, &of_udp)),
            fresh_connections: std::thread::spawn(move || ask_on_fresh_connections(server, &of_fresh)),
            one_connection: std::thread::spawn(move || ask_on_one_connection(server, &of_one)),
        }
    }

    /// Waits for what is on the way; over UDP, and over TCP.
    pub fn finish(self) -> [QueryCounts; 2] {
        self.stop.store(true, Ordering::Relaxed);
        let [udp, mut tcp, one] = [self.udp, self.fresh_connections, self.one_connection]
            .map(|client| client.join().expect("it does not panic"));
        tcp.add(one);
        [udp, tcp]
    }
}

/// One datagram there and one back, from any address.
pub fn ask_once(server: SocketAddr, wire: &[u8], patience: Duration) -> Option<Vec<u8>> {
    exchange(&udp_from(source(server, 8), server), wire, patience)
}

/// The answer to a query of the same ID on a connected socket.
pub fn exchange(socket: &UdpSocket, wire: &[u8], patience: Duration) -> Option<Vec<u8>> {
    socket.send(wire).ok()?;
    let deadline = Instant::now() + patience;
    let mut buffer = vec![0; 65_535];
    loop {
        let left = deadline.saturating_duration_since(Instant::now()).max(Duration::from_millis(1));
        socket.set_read_timeout(Some(left)).expect("a timeout above zero");
        match socket.recv(&mut buffer) {
            Ok(length) if buffer.get(..2) == wire.get(..2) => {
                buffer.truncate(length);
                return Some(buffer);
            }
            Err(_) if Instant::now() >= deadline => return None,
            _ => {}
        }
    }
}

/// One of the addresses from which nobody attacks.
fn source(server: SocketAddr, number: u8) -> IpAddr {
    if server.is_ipv4() {
        Ipv4Addr::new(127, 0, 0, number).into()
    } else {
        Ipv6Addr::new(0xfd00, 0x99, 0, 0, 0, 0, 0, number.into()).into()
    }
}

/// A socket of this address that knows the server only.
pub fn udp_from(source: IpAddr, server: SocketAddr) -> UdpSocket {
    let socket = UdpSocket::bind((source, 0)).unwrap_or_else(|e| panic!("a socket of {source}: {e}"));
    socket.connect(server).unwrap_or_else(|e| panic!("{server} from {source}: {e}"));
    socket
}

/// A connection from this address.
pub fn tcp_from(source: IpAddr, server: SocketAddr, patience: Duration) -> io::Result<TcpStream> {
    let socket = Socket::new(Domain::for_address(server), Type::STREAM, None)?;
    socket.bind(&SocketAddr::new(source, 0).into())?;
    socket.connect_timeout(&server.into(), patience)?;
    Ok(socket.into())
}

fn ask_udp(server: SocketAddr, stop: &AtomicBool) -> QueryCounts {
    let sockets: Vec<UdpSocket> = (0..UDP_SOCKETS).map(|_| udp_from(source(server, 9), server)).collect();
    for socket in &sockets {
        socket.set_nonblocking(true).expect("a socket can be told not to wait");
    }
    let mut open: HashMap<(usize, u16), (Name, Instant)> = HashMap::new();
    let (mut counts, mut number, mut next) = (QueryCounts::default(), 0, Instant::now());
    let mut buffer = [0; 4096];
    loop {
        let stopping = stop.load(Ordering::Relaxed);
        counts.give_up_late(&mut open);
        if stopping && open.is_empty() {
            return counts;
        }
        while !stopping && Instant::now() >= next {
            let name = Name::of(number);
            let mut wire = query(&name.text, A);
            let id = u16::try_from(number / UDP_SOCKETS).expect("fewer queries than IDs");
            wire[..2].copy_from_slice(&id.to_be_bytes());
            let place = number % UDP_SOCKETS;
            // The first error may be ICMP's word on an earlier query; nothing was sent then.
            if sockets[place].send(&wire).is_err() {
                _ = sockets[place].send(&wire);
            }
            open.insert((place, id), (name, Instant::now()));
            (number, next) = (number + 1, after(next, UDP_INTERVAL));
        }
        wait(&sockets);
        for (place, socket) in sockets.iter().enumerate() {
            while let Ok(length) = socket.recv(&mut buffer) {
                let Some(id) = buffer[..length].first_chunk().map(|id| u16::from_be_bytes(*id)) else { continue };
                if let Some((name, _)) = open.remove(&(place, id)) {
                    counts.note(&name, Some(&buffer[..length]));
                }
            }
        }
    }
}

/// When to ask again. What the machine gave no time for is not made up for: a burst would be an attack of its own.
fn after(last: Instant, interval: Duration) -> Instant {
    (last + interval).max(Instant::now() - interval)
}

/// Until something may be received, or a millisecond or two.
fn wait(sockets: &[UdpSocket]) {
    let mut polled: Vec<PollFd<'_>> = sockets.iter().map(|socket| PollFd::new(socket, PollFlags::IN)).collect();
    _ = poll(&mut polled, Some(&Timespec { tv_sec: 0, tv_nsec: 2_000_000 }));
}

fn ask_on_fresh_connections(server: SocketAddr, stop: &AtomicBool) -> QueryCounts {
    let (mut asked, mut number) = (Vec::new(), 0);
    let mut next = Instant::now();
    while !stop.load(Ordering::Relaxed) {
        number += 1;
        asked.push(std::thread::spawn(move || {
            let name = Name::of(number);
            let mut counts = QueryCounts::default();
            counts.note(&name, ask_on_a_connection(server, &query(&name.text, A)).ok().as_deref());
            counts
        }));
        next = after(next, 2 * TCP_INTERVAL);
        std::thread::sleep(next.saturating_duration_since(Instant::now()));
    }
    let mut counts = QueryCounts::default();
    for one in asked {
        counts.add(one.join().expect("it does not panic"));
    }
    counts
}

/// The answer to one query on a connection of its own.
pub fn ask_on_a_connection(server: SocketAddr, wire: &[u8]) -> io::Result<Vec<u8>> {
    let deadline = Instant::now() + PATIENCE;
    let mut stream = tcp_from(source(server, 10), server, PATIENCE)?;
    stream.write_all(&crate::wire::framed(wire))?;
    let mut received = Vec::new();
    let mut buffer = vec![0; 65_537];
    loop {
        let left = deadline.saturating_duration_since(Instant::now());
        if left.is_zero() {
            return Err(io::ErrorKind::TimedOut.into());
        }
        stream.set_read_timeout(Some(left))?;
        let length = stream.read(&mut buffer)?;
        if length == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        received.extend_from_slice(&buffer[..length]);
        if let Some(answer) = take_message(&mut received) {
            return Ok(answer);
        }
    }
}

/// The first whole message of what a connection gave, without its length.
pub fn take_message(received: &mut Vec<u8>) -> Option<Vec<u8>> {
    let length = usize::from(u16::from_be_bytes(*received.first_chunk()?));
    if received.len() < 2 + length {
        return None;
    }
    let message = received[2..2 + length].to_vec();
    received.drain(..2 + length);
    Some(message)
}

/// A client with a connection that it keeps, and opens anew when the server has closed it; what was asked on it is lost
/// then.
fn ask_on_one_connection(server: SocketAddr, stop: &AtomicBool) -> QueryCounts {
    let mut counts = QueryCounts::default();
    let mut open: HashMap<u16, (Name, Instant)> = HashMap::new();
    let mut connection: Option<(TcpStream, Vec<u8>)> = None;
    let (mut number, mut next) = (0_u16, Instant::now());
    let mut buffer = vec![0; 65_537];
    loop {
        let stopping = stop.load(Ordering::Relaxed);
        counts.give_up_late(&mut open);
        if stopping && open.is_empty() {
            return counts;
        }
        if !stopping && Instant::now() >= next {
            let name = Name::of(usize::from(number));
            let mut wire = query(&name.text, A);
            wire[..2].copy_from_slice(&number.to_be_bytes());
            if connection.is_none() {
                connection = tcp_from(source(server, 10), server, PATIENCE).ok().map(|stream| (stream, Vec::new()));
            }
            let written =
                connection.as_mut().is_some_and(|(stream, _)| stream.write_all(&crate::wire::framed(&wire)).is_ok());
            match written {
                true => _ = open.insert(number, (name, Instant::now())),
                false => {
                    counts.note(&name, None);
                    connection = None;
                }
            }
            number = number.checked_add(1).expect("fewer queries than IDs");
            next = after(next, 2 * TCP_INTERVAL);
        }
        let Some((stream, received)) = &mut connection else {
            std::thread::sleep(Duration::from_millis(2));
            continue;
        };
        _ = stream.set_read_timeout(Some(Duration::from_millis(5)));
        match stream.read(&mut buffer) {
            Ok(length) if length > 0 => received.extend_from_slice(&buffer[..length]),
            Err(error) if matches!(error.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut) => {}
            _ => {
                open.drain().for_each(|(_, (name, _))| counts.note(&name, None));
                connection = None;
                continue;
            }
        }
        while let Some(answer) = take_message(received) {
            let id = answer.first_chunk().map(|id| u16::from_be_bytes(*id));
            if let Some((name, _)) = id.and_then(|id| open.remove(&id)) {
                counts.note(&name, Some(&answer));
            }
        }
    }
}
