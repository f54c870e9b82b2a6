//! The client: asks by the clock and not by the answers, from many ports, a pod and a program on the host network at
//! once, over UDP and TCP, every address. Nothing is sent twice; each query's fate is written down.

use crate::cluster::{Network, Place, Transport};
use crate::records::{Fate, Kind, Record, Records, Who};
use crate::wire::{Answer, judge, question};
use rustix::buffer::spare_capacity;
use rustix::event::epoll::{self, CreateFlags, Event, EventData, EventFlags};
use socket2::{Domain, Protocol, Socket, Type};
use std::collections::HashMap;
use std::io::{ErrorKind, Read, Write};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpStream, UdpSocket};
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

/// A query without an answer for so long is lost: resolver libraries wait for 5 s, and a busy machine takes its time.
pub const PATIENCE: Duration = Duration::from_secs(3);
/// UDP sockets, each with a port of its own, of one client for one address.
const PORTS: usize = 16;
/// One query in so many goes over TCP, on a connection of its own.
const TCP_EVERY: usize = 20;
/// Names that a cache has once each was asked for.
pub const CACHED: [&str; 4] =
    ["kubernetes.default.svc.cluster.local", "api.shop.svc.cluster.local", "db.shop.svc.cluster.local", "example.org"];
/// For a UDP socket's number in what epoll tells; below are connections.
const UDP: u64 = 1 << 32;

/// What to ask.
#[derive(Clone, Copy, Debug)]
pub struct Plan {
    /// Queries a second of all clients together.
    pub rate: u32,
    pub addresses: &'static [&'static str],
    /// One query in so many asks for a name that nobody has asked for before.
    pub fresh_every: Option<usize>,
}

/// Clients that ask until they are stopped.
pub struct Load {
    stop: Arc<AtomicBool>,
    clients: Vec<JoinHandle<Vec<Record>>>,
}

impl Load {
    pub fn start(network: &Network, plan: Plan) -> Self {
        let (stop, started) = (Arc::new(AtomicBool::new(false)), Instant::now());
        let places = [(Who::Pod, network.pod.clone()), (Who::HostNetwork, network.host.clone())];
        let clients = places.map(|(who, place)| {
            let stop = stop.clone();
            std::thread::spawn(move || Client::new(who, &place, plan, started).run(&stop))
        });
        Self { stop, clients: clients.into() }
    }

    /// Stops asking and waits for what is on the way.
    pub fn finish(self) -> Records {
        self.stop.store(true, Ordering::Relaxed);
        let records = self.clients.into_iter().flat_map(|client| client.join().expect("the client does not panic"));
        Records::new(records.collect())
    }
}

/// One client, on a thread in its network.
struct Client {
    who: Who,
    plan: Plan,
    started: Instant,
    epoll: OwnedFd,
    ports: Vec<Port>,
    connections: Vec<Option<Connection>>,
    records: Vec<Record>,
    questions: Vec<Vec<u8>>,
    open: usize,
}

struct Port {
    socket: UdpSocket,
    server: SocketAddr,
    /// A pod's every second one; the kernel gives it answers of that address alone. On the host network a connected
    /// socket's own address would be the server's, and go with the link.
    is_connected: bool,
    next_id: u16,
    /// By ID.
    asked: HashMap<u16, Asked>,
}

struct Asked {
    record: usize,
    question: Vec<u8>,
}

struct Connection {
    stream: TcpStream,
    asked: Asked,
    is_sent: bool,
    received: Vec<u8>,
}

impl Client {
    fn new(who: Who, place: &Place, plan: Plan, started: Instant) -> Self {
        place.enter();
        let epoll = epoll::create(CreateFlags::CLOEXEC).expect("epoll");
        let mut ports = Vec::new();
        for address in plan.addresses {
            let server = SocketAddr::new(address.parse().expect("an address"), 53);
            for number in 0..PORTS {
                let any: IpAddr =
                    if server.is_ipv4() { Ipv4Addr::UNSPECIFIED.into() } else { Ipv6Addr::UNSPECIFIED.into() };
                let socket = UdpSocket::bind((any, 0)).expect("a socket");
                socket.set_nonblocking(true).expect("a socket can be told not to wait");
                let is_connected = who == Who::Pod && number % 2 == 0;
                if is_connected {
                    socket.connect(server).unwrap_or_else(|e| panic!("no route to {server}: {e}"));
                }
                let data = EventData::new_u64(UDP | ports.len() as u64);
                epoll::add(&epoll, &socket, data, EventFlags::IN).expect("epoll takes a socket");
                ports.push(Port { socket, server, is_connected, next_id: fastrand::u16(..), asked: HashMap::new() });
            }
        }
        let questions = CACHED.map(question).into();
        Self { who, plan, started, epoll, ports, connections: Vec::new(), records: Vec::new(), questions, open: 0 }
    }

    fn run(mut self, stop: &AtomicBool) -> Vec<Record> {
        // Both clients share the rate.
        let interval = Duration::from_secs(2) / self.plan.rate;
        let mut next = self.started;
        let mut stopped = None;
        let mut events: Vec<Event> = Vec::with_capacity(256);
        loop {
            if stop.load(Ordering::Relaxed) {
                let since = *stopped.get_or_insert_with(Instant::now);
                if self.open == 0 || since.elapsed() > PATIENCE {
                    return self.records;
                }
            }
            while stopped.is_none() && Instant::now() >= next {
                self.ask();
                next += interval;
            }
            events.clear();
            let pause = rustix::event::Timespec { tv_sec: 0, tv_nsec: 1_000_000 };
            _ = epoll::wait(&self.epoll, spare_capacity(&mut events), Some(&pause));
            for event in &events {
                let number = event.data.u64();
                if number & UDP == 0 {
                    self.serve_connection(number as usize);
                } else {
                    self.receive((number & !UDP) as usize);
                }
            }
            self.give_up();
        }
    }

    fn ask(&mut self) {
        let number = self.records.len();
        let (address, round) = (number % self.plan.addresses.len(), number / self.plan.addresses.len());
        let is_fresh = self.plan.fresh_every.is_some_and(|every| round % every == every / 2);
        let transport = if round.is_multiple_of(TCP_EVERY) { Transport::Tcp } else { Transport::Udp };
        let question = match is_fresh {
            true => question(&format!("fresh-{}-{number}.example.org", fastrand::u64(..))),
            false => self.questions[round % self.questions.len()].clone(),
        };
        let kind = Kind { who: self.who, address: self.plan.addresses[address], transport };
        self.records.push(Record { kind, is_fresh, sent: self.started.elapsed(), fate: None });
        self.open += 1;
        let asked = Asked { record: number, question };
        match transport {
            Transport::Udp => self.ports[address * PORTS + round % PORTS].ask(asked),
            Transport::Tcp => self.connect(asked),
        }
    }

    fn connect(&mut self, asked: Asked) {
        let server = SocketAddr::new(self.records[asked.record].kind.address.parse().expect("an address"), 53);
        let socket = Socket::new(Domain::for_address(server), Type::STREAM, Some(Protocol::TCP)).expect("a socket");
        socket.set_nonblocking(true).expect("a socket can be told not to wait");
        // Nothing lingers in TIME_WAIT.
        socket.set_linger(Some(Duration::ZERO)).expect("a socket can be told to reset");
        // In progress; or it fails at once, which the first event tells.
        _ = socket.connect(&server.into());
        let place = self.connections.iter().position(Option::is_none).unwrap_or_else(|| {
            self.connections.push(None);
            self.connections.len() - 1
        });
        let data = EventData::new_u64(place as u64);
        epoll::add(&self.epoll, &socket, data, EventFlags::IN | EventFlags::OUT).expect("epoll takes a socket");
        self.connections[place] =
            Some(Connection { stream: socket.into(), asked, is_sent: false, received: Vec::new() });
    }

    fn serve_connection(&mut self, place: usize) {
        let Some(connection) = &mut self.connections[place] else { return };
        match connection.progress() {
            Ok(None) => {
                if connection.is_sent {
                    let data = EventData::new_u64(place as u64);
                    epoll::modify(&self.epoll, &connection.stream, data, EventFlags::IN).expect("epoll knows it");
                }
            }
            Ok(Some(answer)) => {
                let record = connection.asked.record;
                self.connections[place] = None;
                self.settle(record, answer);
            }
            // Reset, refused or unreachable: it is lost, as the deadline will tell.
            Err(_) => self.connections[place] = None,
        }
    }

    fn receive(&mut self, number: usize) {
        let mut buffer = [0; 1500];
        loop {
            let port = &mut self.ports[number];
            let (length, from) = match port.socket.recv_from(&mut buffer) {
                Ok(received) => received,
                Err(error) if error.kind() == ErrorKind::WouldBlock => return,
                // ICMP's word on a query that is lost then.
                Err(_) => continue,
            };
            let answer = &buffer[..length];
            let Some(id) = answer.first_chunk().map(|id| u16::from_be_bytes(*id)) else { continue };
            if let Some(Asked { record, question }) = port.asked.remove(&id) {
                let is_asked = from == port.server;
                let answer = if is_asked { judge(&question, answer) } else { Answer::Wrong };
                self.settle(record, answer);
            }
        }
    }

    fn settle(&mut self, record: usize, answer: Answer) {
        let record = &mut self.records[record];
        let at = self.started.elapsed();
        if at - record.sent <= PATIENCE && record.fate.is_none() {
            record.fate = Some(Fate { at, answer });
            self.open -= 1;
        }
    }

    /// Connections that nothing came of.
    fn give_up(&mut self) {
        let now = self.started.elapsed();
        for place in &mut self.connections {
            if place.as_ref().is_some_and(|open| now - self.records[open.asked.record].sent > PATIENCE) {
                *place = None;
            }
        }
    }
}

impl Port {
    fn ask(&mut self, asked: Asked) {
        self.next_id = self.next_id.wrapping_add(1);
        let mut wire = asked.question.clone();
        wire[..2].copy_from_slice(&self.next_id.to_be_bytes());
        self.asked.insert(self.next_id, asked);
        let send = || if self.is_connected { self.socket.send(&wire) } else { self.socket.send_to(&wire, self.server) };
        if send().is_err() {
            // That may have been ICMP's word on an earlier query, with which nothing was sent. A second error counts:
            // it is lost.
            _ = send();
        }
    }
}

impl Connection {
    /// Sends and receives what can be; the answer, once it is there.
    fn progress(&mut self) -> std::io::Result<Option<Answer>> {
        if !self.is_sent {
            let length = u16::try_from(self.asked.question.len()).expect("a short question").to_be_bytes();
            match self.stream.write(&[&length[..], &self.asked.question].concat()) {
                Ok(_) => self.is_sent = true,
                Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::NotConnected) => {
                    return Ok(None);
                }
                Err(error) => return Err(error),
            }
        }
        let mut buffer = [0; 2048];
        match self.stream.read(&mut buffer) {
            Ok(0) => Err(ErrorKind::UnexpectedEof.into()),
            Ok(length) => {
                self.received.extend_from_slice(&buffer[..length]);
                let Some((length, answer)) = self.received.split_first_chunk() else { return Ok(None) };
                let is_whole = answer.len() >= usize::from(u16::from_be_bytes(*length));
                Ok(is_whole.then(|| judge(&self.asked.question, answer)))
            }
            Err(error) if error.kind() == ErrorKind::WouldBlock => Ok(None),
            Err(error) => Err(error),
        }
    }
}
