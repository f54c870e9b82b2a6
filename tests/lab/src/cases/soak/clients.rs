//! Clients as pods' resolvers are: names by their popularity, A and AAAA at once, the search path before a name of the
//! world, some over TCP. They ask by the clock and not by the answers. Nothing is sent twice, and each query's fate is
//! written down.

use super::names::{Name, picker};
use crate::cluster::{Network, Place};
use crate::node::ADDRESSES;
use crate::records::Who;
use crate::support::client::exchange_tcp;
use crate::wire::question;
use rustix::buffer::spare_capacity;
use rustix::event::Timespec;
use rustix::event::epoll::{self, CreateFlags, Event, EventData, EventFlags};
use std::collections::{HashMap, VecDeque};
use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, UdpSocket};
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

/// A query without an answer for so long is lost, as for resolver libraries.
pub const PATIENCE: Duration = Duration::from_secs(5);

/// Queries a second over UDP of each of both clients.
pub const RATE: u32 = 100;

/// Between two queries over TCP of each client, on connections of their own.
const TCP_PAUSE: Duration = Duration::from_millis(500);

/// UDP sockets, each with a port of its own, of one client for one address.
const PORTS: usize = 8;

/// A query. Times are since the clients' start.
#[derive(Clone, Copy, Debug)]
pub struct Asked {
    pub sent: Duration,
    pub who: Who,
    pub address: &'static str,
    pub is_tcp: bool,
    /// The answer's code; none: lost.
    pub rcode: Option<u8>,
    pub expected: u8,
}

impl Asked {
    pub fn is_lost(&self) -> bool {
        self.rcode != Some(self.expected)
    }
}

impl fmt::Display for Asked {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { sent, who, address, is_tcp, rcode, expected } = self;
        let transport = if *is_tcp { "TCP" } else { "UDP" };
        write!(f, "{who:?} {address} {transport} sent at {sent:.1?}: {rcode:?} instead of {expected}")
    }
}

/// Clients that ask until they are stopped.
pub struct Clients {
    started: Instant,
    stop: Arc<AtomicBool>,
    threads: Vec<JoinHandle<Vec<Asked>>>,
}

impl Clients {
    pub fn start(network: &Network, seed: u64) -> Self {
        let (started, stop) = (Instant::now(), Arc::new(AtomicBool::new(false)));
        let mut threads = Vec::new();
        for (number, (who, place)) in
            [(Who::Pod, network.pod.clone()), (Who::HostNetwork, network.host.clone())].into_iter().enumerate()
        {
            let names = picker(seed + number as u64);
            let (udp_place, udp_stop) = (place.clone(), stop.clone());
            threads.push(std::thread::spawn(move || Client::new(who, &udp_place, names, started).run(&udp_stop)));
            let (names, stop) = (picker(seed + 10 + number as u64), stop.clone());
            threads.push(std::thread::spawn(move || ask_over_tcp(who, &place, names, started, &stop)));
        }
        Self { started, stop, threads }
    }

    /// How long they have asked.
    pub fn elapsed(&self) -> Duration {
        self.started.elapsed()
    }

    /// Stops asking and waits for what is on the way.
    pub fn finish(self) -> Vec<Asked> {
        self.stop.store(true, Ordering::Relaxed);
        self.threads.into_iter().flat_map(|thread| thread.join().expect("a client does not panic")).collect()
    }
}

/// One after the other, each on a connection of its own.
fn ask_over_tcp(
    who: Who,
    place: &Place,
    mut picker: impl FnMut() -> Vec<Name>,
    started: Instant,
    stop: &AtomicBool,
) -> Vec<Asked> {
    place.enter();
    let mut asked = Vec::new();
    let mut names = VecDeque::new();
    while !stop.load(Ordering::Relaxed) {
        if names.is_empty() {
            names.extend(picker());
        }
        let Some(Name { name, is_ipv6, expected }) = names.pop_front() else { continue };
        let address = ADDRESSES[asked.len() % ADDRESSES.len()];
        let server = SocketAddr::new(address.parse().expect("an address"), 53);
        let sent = started.elapsed();
        let answer = exchange_tcp(server, &wire(&name, is_ipv6), PATIENCE);
        let rcode = answer.ok().and_then(|answer| answer.get(3).map(|flags| flags & 0x0f));
        asked.push(Asked { sent, who, address, is_tcp: true, rcode, expected });
        std::thread::sleep(TCP_PAUSE);
    }
    asked
}

fn wire(name: &str, is_ipv6: bool) -> Vec<u8> {
    let mut wire = question(name);
    if is_ipv6 {
        let at = wire.len() - 3;
        wire[at] = 28;
    }
    wire
}

/// One client over UDP, on a thread in its network.
struct Client<P> {
    who: Who,
    picker: P,
    started: Instant,
    epoll: OwnedFd,
    ports: Vec<Port>,
    names: VecDeque<Name>,
    asked: Vec<Asked>,
}

struct Port {
    socket: UdpSocket,
    server: SocketAddr,
    is_connected: bool,
    next_id: u16,
    /// By ID the query's number and its question.
    open: HashMap<u16, (usize, Vec<u8>)>,
}

impl<P: FnMut() -> Vec<Name>> Client<P> {
    fn new(who: Who, place: &Place, picker: P, started: Instant) -> Self {
        place.enter();
        let epoll = epoll::create(CreateFlags::CLOEXEC).expect("epoll");
        let mut ports = Vec::new();
        for address in ADDRESSES {
            let server = SocketAddr::new(address.parse().expect("an address"), 53);
            for number in 0..PORTS {
                let any: IpAddr =
                    if server.is_ipv4() { Ipv4Addr::UNSPECIFIED.into() } else { Ipv6Addr::UNSPECIFIED.into() };
                let socket = UdpSocket::bind((any, 0)).expect("a socket");
                socket.set_nonblocking(true).expect("a socket can be told not to wait");
                // On the host network a connected socket's own address would be the server's, and go with the link.
                let is_connected = who == Who::Pod && number % 2 == 0;
                if is_connected {
                    socket.connect(server).unwrap_or_else(|e| panic!("no route to {server}: {e}"));
                }
                let data = EventData::new_u64(ports.len() as u64);
                epoll::add(&epoll, &socket, data, EventFlags::IN).expect("epoll takes a socket");
                ports.push(Port { socket, server, is_connected, next_id: 0, open: HashMap::new() });
            }
        }
        Self { who, picker, started, epoll, ports, names: VecDeque::new(), asked: Vec::new() }
    }

    fn run(mut self, stop: &AtomicBool) -> Vec<Asked> {
        let interval = Duration::from_secs(1) / RATE;
        let mut next = self.started;
        let mut stopped: Option<Instant> = None;
        let mut events: Vec<Event> = Vec::with_capacity(64);
        loop {
            if stop.load(Ordering::Relaxed) && stopped.get_or_insert_with(Instant::now).elapsed() > PATIENCE {
                return self.asked;
            }
            // What was not asked while this machine stood still is not made up for.
            next = next.max(Instant::now().checked_sub(Duration::from_secs(1)).unwrap_or(next));
            while stopped.is_none() && Instant::now() >= next {
                self.ask();
                next += interval;
            }
            events.clear();
            let pause = Timespec { tv_sec: 0, tv_nsec: 5_000_000 };
            _ = epoll::wait(&self.epoll, spare_capacity(&mut events), Some(&pause));
            for event in &events {
                self.receive(event.data.u64() as usize);
            }
        }
    }

    fn ask(&mut self) {
        if self.names.is_empty() {
            self.names.extend((self.picker)());
        }
        let Some(Name { name, is_ipv6, expected }) = self.names.pop_front() else { return };
        let number = self.asked.len();
        // Both of a pair go to one address, as they do from one resolver.
        let which = (number / 2) % self.ports.len();
        let address = ADDRESSES[which / PORTS];
        let sent = self.started.elapsed();
        self.asked.push(Asked { sent, who: self.who, address, is_tcp: false, rcode: None, expected });
        let port = &mut self.ports[which];
        port.next_id = port.next_id.wrapping_add(1);
        let mut wire = wire(&name, is_ipv6);
        wire[..2].copy_from_slice(&port.next_id.to_be_bytes());
        let send = || if port.is_connected { port.socket.send(&wire) } else { port.socket.send_to(&wire, port.server) };
        if send().is_err() {
            // That may have been ICMP's word on an earlier query, with which nothing was sent. A second error counts:
            // it is lost.
            _ = send();
        }
        port.open.insert(port.next_id, (number, wire));
    }

    fn receive(&mut self, which: usize) {
        let mut buffer = [0; 1500];
        let port = &mut self.ports[which];
        loop {
            let (length, from) = match port.socket.recv_from(&mut buffer) {
                Ok(received) => received,
                Err(error) if error.kind() == std::io::ErrorKind::WouldBlock => return,
                // ICMP's word on a query that is lost then.
                Err(_) => continue,
            };
            let answer = &buffer[..length];
            let Some(id) = answer.first_chunk().map(|id| u16::from_be_bytes(*id)) else { continue };
            let Some((number, question)) = port.open.remove(&id) else { continue };
            let asked = &mut self.asked[number];
            let is_for_it = from == port.server && answer.get(12..question.len()) == question.get(12..);
            if is_for_it && self.started.elapsed() - asked.sent <= PATIENCE {
                asked.rcode = answer.get(3).map(|flags| flags & 0x0f);
            }
        }
    }
}
