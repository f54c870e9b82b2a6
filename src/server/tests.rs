//! The server on loopback, with an answerer whose queries say what is to become of them.

use super::*;
use crate::chain::{HttpAnswer, Peer, Timeouts};
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

impl Answerer for Toy {
    type Pending = ToyPending;

    fn address(&self) -> SocketAddr {
        self.address
    }
    fn timeouts(&self) -> Timeouts {
        self.timeouts
    }
    fn dispatch(self: &Arc<Self>, wire: &[u8], peer: &Peer, _now: Instant, out: &mut Vec<u8>) -> Verdict<ToyPending> {
        assert!(out.is_empty());
        out.push(self.version);
        out.extend_from_slice(wire);
        match wire.first() {
            Some(b'h') => Verdict::Reply,
            Some(b'a') => {
                out.extend_from_slice(format!(" {} {} {}", peer.client, peer.local, peer.transport.label()).as_bytes());
                Verdict::Reply
            }
            Some(b'b') => {
                out.resize(60_000, b'b');
                Verdict::Reply
            }
            Some(b'r') => Verdict::ReplyAndRefresh(ToyPending::Refresh(self.refreshed.clone())),
            Some(b'm') => Verdict::Pending(ToyPending::Answer(self.gate.clone(), std::mem::take(out))),
            Some(b'w') => {
                self.blocked.fetch_add(1, Ordering::Relaxed);
                while self.gate.try_acquire().map(tokio::sync::SemaphorePermit::forget).is_err() {
                    thread::sleep(Duration::from_millis(1));
                }
                Verdict::Reply
            }
            Some(b'p') => panic!("as the test asked"),
            _ => Verdict::Silence,
        }
    }
    async fn run(pending: ToyPending, out: &mut Vec<u8>) {
        match pending {
            ToyPending::Answer(gate, reply) => {
                gate.acquire().await.unwrap().forget();
                out.extend_from_slice(&reply);
            }
            ToyPending::Refresh(refreshed) => _ = refreshed.fetch_add(1, Ordering::Relaxed),
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
        let server = Server::start(workers, limits, runtime.handle().clone(), &registry).unwrap();
        let timeouts = Timeouts { read: SOON, write: SOON, idle: SOON };
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
            Arc::new(Toy { address: *address, version, timeouts: self.timeouts, gate, refreshed, blocked })
        };
        addresses.iter().map(toy).collect()
    }

    fn apply(&mut self, addresses: &[SocketAddr], version: u8) {
        let toys = self.toys(addresses, version);
        let sockets = Sockets::bind(addresses.iter().copied(), [], self.workers, self.server.sockets()).unwrap();
        self.server.apply(&toys, &[], sockets).unwrap();
    }

    fn drain(self, within: Duration) -> usize {
        self.runtime.block_on(self.server.drain(within))
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
    loop {
        let address = std::net::TcpListener::bind((ip, 0)).unwrap().local_addr().unwrap();
        if UdpSocket::bind(address).is_ok() {
            return address;
        }
    }
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
        let stream = TcpStream::connect(address).unwrap();
        stream.set_read_timeout(Some(SOON)).unwrap();
        stream.set_write_timeout(Some(SOON)).unwrap();
        Self(stream)
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

#[test]
fn every_datagram_of_a_burst_is_answered() {
    let (rig, address) = rig(Limits::default());
    let client = client("127.0.0.1");
    for number in 0..200_u8 {
        client.send_to(&[b'h', number], address).unwrap();
    }
    let answers: HashSet<_> = (0..200).map(|_| receive(&client)).collect();
    assert_eq!(answers, (0..200_u8).map(|number| (vec![1, b'h', number], address)).collect());
    assert_eq!(rig.drain(SOON), 0);
}

#[test]
fn a_reply_comes_from_the_address_that_was_asked() {
    for (listen, asked) in [("0.0.0.0", "127.0.0.2"), ("::", "::1"), ("::", "127.0.0.3")] {
        let mut rig = Rig::new(2, Limits::default());
        let listen = free(listen);
        rig.apply(&[listen], 1);
        let asked = SocketAddr::new(asked.parse().unwrap(), listen.port());
        let client = client(if asked.is_ipv6() { "::1" } else { "127.0.0.1" });
        client.send_to(b"a", asked).unwrap();
        let expected = format!("\u{1}a {} {asked} udp", client.local_addr().unwrap());
        assert_eq!(receive(&client), (expected.into_bytes(), asked));
        // The slow gear answers from there too.
        rig.gate.add_permits(1);
        client.send_to(b"m", asked).unwrap();
        assert_eq!(receive(&client), (b"\x01m".to_vec(), asked));
        let mut talk = Talk::to(asked);
        talk.say(&[b"a"]);
        let expected = format!("\u{1}a {} {asked} tcp", talk.0.local_addr().unwrap());
        assert_eq!(talk.hear(), expected.into_bytes());
    }
}

#[test]
fn a_query_that_cannot_be_answered_costs_the_others_nothing() {
    let (rig, address) = rig(Limits::default());
    let client = client("127.0.0.1");
    for query in [&b"h1"[..], b"p", b"silence", b"", &[b'h'; 5000], b"h2"] {
        client.send_to(query, address).unwrap();
    }
    assert_eq!(receive(&client).0, b"\x01h1");
    assert_eq!(receive(&client).0, b"\x01h2");
    assert_eq!(rig.metric("nodelocaldns_queries_dropped_total{reason=\"panic\"}"), 1.0);
    assert_eq!(rig.metric("nodelocaldns_queries_dropped_total{reason=\"oversize\"}"), 1.0);
}

#[test]
fn a_refresh_runs_behind_its_reply_and_says_nothing() {
    let (rig, address) = rig(Limits::default());
    let client = client("127.0.0.1");
    client.send_to(b"r", address).unwrap();
    assert_eq!(receive(&client).0, b"\x01r");
    let mut talk = Talk::to(address);
    talk.say(&[b"r", b"h"]);
    assert_eq!((talk.hear(), talk.hear()), (b"\x01r".to_vec(), b"\x01h".to_vec()));
    rig.wait_for("both refreshes", |rig| rig.refreshed.load(Ordering::Relaxed) == 2);
}

#[test]
fn queries_in_flight_on_a_worker_are_bounded() {
    let (rig, address) = rig(Limits { queries_per_worker: 3, ..Limits::default() });
    let client = client("127.0.0.1");
    for _ in 0..5 {
        client.send_to(b"m", address).unwrap();
    }
    client.send_to(b"h", address).unwrap();
    assert_eq!(receive(&client).0, b"\x01h", "what needs no flight is answered all the same");
    assert_eq!(rig.metric("nodelocaldns_queries_dropped_total{reason=\"overload\"}"), 2.0);
    assert_eq!(rig.metric("nodelocaldns_queries_in_flight"), 3.0);
    rig.gate.add_permits(3);
    for _ in 0..3 {
        assert_eq!(receive(&client).0, b"\x01m");
    }
    rig.wait_for("an empty flight", |rig| rig.metric("nodelocaldns_queries_in_flight") == 0.0);
}

#[test]
fn tcp_answers_come_as_they_are_ready() {
    let (rig, address) = rig(Limits::default());
    let mut talk = Talk::to(address);
    talk.say(&[b"m slow", b"h quick"]);
    assert_eq!(talk.hear(), b"\x01h quick");
    rig.gate.add_permits(1);
    assert_eq!(talk.hear(), b"\x01m slow");
    assert_eq!(rig.drain(SOON), 0);
}

#[test]
fn pipelined_queries_in_odd_pieces_are_all_answered() {
    let (_rig, address) = rig(Limits::default());
    let mut talk = Talk::to(address);
    let stream: Vec<u8> = (0..1000_u16).flat_map(|number| [&[0, 3, b'h'][..], &number.to_be_bytes()].concat()).collect();
    for piece in stream.chunks(773) {
        talk.0.write_all(piece).unwrap();
        talk.0.flush().unwrap();
    }
    for number in 0..1000_u16 {
        assert_eq!(talk.hear(), [&[1, b'h'][..], &number.to_be_bytes()].concat());
    }
}

#[test]
fn queries_in_flight_on_a_connection_are_bounded_and_the_rest_waits() {
    let (rig, address) = rig(Limits { queries_per_connection: 4, ..Limits::default() });
    let mut talk = Talk::to(address);
    talk.say(&[&b"m"[..]; 10]);
    rig.wait_for("a full connection", |rig| rig.metric("nodelocaldns_queries_in_flight") == 4.0);
    rig.gate.add_permits(10);
    for _ in 0..10 {
        assert_eq!(talk.hear(), b"\x01m");
    }
}

#[test]
fn a_client_that_closes_its_side_still_gets_its_answers() {
    let (rig, address) = rig(Limits::default());
    let mut talk = Talk::to(address);
    talk.say(&[b"m1", b"h2", b"m3"]);
    talk.0.shutdown(std::net::Shutdown::Write).unwrap();
    assert_eq!(talk.hear(), b"\x01h2");
    rig.gate.add_permits(2);
    assert_eq!(HashSet::from([talk.hear(), talk.hear()]), HashSet::from([b"\x01m1".to_vec(), b"\x01m3".to_vec()]));
    assert!(talk.is_closed());
}

#[test]
fn a_reader_that_does_not_read_is_cut_off() {
    let (mut rig, address) = rig(Limits::default());
    rig.timeouts.write = Duration::from_millis(50);
    rig.apply(&[address], 1);
    let mut talk = Talk::to(address);
    // Far more than the kernel's buffers of both sides hold.
    for _ in 0..4 {
        talk.say(&[&b"b"[..]; 64]);
    }
    rig.wait_for("a cut", |rig| rig.metric("nodelocaldns_tcp_connections_cut_total{reason=\"slow_reader\"}") == 1.0);
    rig.wait_for("the end of it", |rig| rig.metric("nodelocaldns_tcp_connections") == 0.0);
    assert!(talk.is_closed());
}

#[test]
fn idle_and_unfinished_connections_are_closed_in_time() {
    let (mut rig, address) = rig(Limits::default());
    rig.timeouts = Timeouts { idle: Duration::from_millis(50), ..rig.timeouts };
    rig.apply(&[address], 1);
    let mut idle = Talk::to(address);
    let mut served = Talk::to(address);
    let mut waiting = Talk::to(address);
    waiting.say(&[b"m"]);
    served.say(&[b"h"]);
    assert_eq!(served.hear(), b"\x01h");
    assert!(idle.is_closed());
    assert!(served.is_closed());
    rig.gate.add_permits(1);
    assert_eq!(waiting.hear(), b"\x01m", "a query in flight is not idleness");
    assert!(waiting.is_closed());

    rig.timeouts = Timeouts { read: Duration::from_millis(50), idle: SOON * 10, ..rig.timeouts };
    rig.apply(&[address], 1);
    let mut unfinished = Talk::to(address);
    unfinished.0.write_all(&[0, 9, b'h']).unwrap();
    assert!(unfinished.is_closed());
    assert_eq!(rig.metric("nodelocaldns_tcp_connections_cut_total{reason=\"slow_sender\"}"), 1.0);
}

#[test]
fn what_is_no_message_ends_the_connection() {
    let (rig, address) = rig(Limits::default());
    for garbage in [&b"GET / HTTP/1.1\r\n\r\n"[..], &[0, 0]] {
        let mut talk = Talk::to(address);
        talk.0.write_all(garbage).unwrap();
        assert!(talk.is_closed());
    }
    assert_eq!(rig.metric("nodelocaldns_tcp_connections_cut_total{reason=\"malformed\"}"), 2.0);
}

#[test]
fn one_connection_too_many_closes_the_longest_idle_one() {
    let (rig, address) = rig(Limits { tcp_connections: 2, ..Limits::default() });
    let ask = |talk: &mut Talk| {
        talk.say(&[b"h"]);
        talk.hear()
    };
    let (mut first, mut second) = (Talk::to(address), Talk::to(address));
    assert_eq!((ask(&mut first), ask(&mut second)), (b"\x01h".to_vec(), b"\x01h".to_vec()));
    ask(&mut first);
    let mut third = Talk::to(address);
    assert_eq!(ask(&mut third), b"\x01h");
    assert!(second.is_closed());
    assert_eq!(ask(&mut first), b"\x01h");
    // With queries in flight on all, the newcomer goes.
    first.say(&[b"m"]);
    third.say(&[b"m"]);
    rig.wait_for("two queries in flight", |rig| rig.metric("nodelocaldns_queries_in_flight") == 2.0);
    assert!(Talk::to(address).is_closed());
    rig.gate.add_permits(2);
    assert_eq!((first.hear(), third.hear()), (b"\x01m".to_vec(), b"\x01m".to_vec()));
}

#[test]
fn udp_and_new_connections_are_served_when_descriptors_run_out() {
    let address = free("127.0.0.1");
    // The limit is a process's, so the server has one of its own.
    let mut server = Command::new("sh")
        .args(["-c", "ulimit -n 40; exec \"$0\" --ignored --exact server::tests::serve_with_few_descriptors"])
        .arg(std::env::current_exe().unwrap())
        .env("NODELOCALDNS_TEST_ADDRESS", address.to_string())
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .spawn()
        .unwrap();
    let client = client("127.0.0.1");
    client.set_read_timeout(Some(Duration::from_millis(50))).unwrap();
    let ask = || {
        let end = Instant::now() + SOON;
        while client.send_to(b"h", address).is_err() || client.recv(&mut [0; 8]).is_err() {
            assert!(Instant::now() < end, "no answer over UDP");
        }
    };
    ask();
    let mut talks = Vec::new();
    for _ in 0..60 {
        let mut talk = Talk::to(address);
        talk.say(&[b"h"]);
        assert_eq!(talk.hear(), b"\x01h");
        talks.push(talk);
        ask();
    }
    assert!(talks[0].is_closed(), "the limit was never reached");
    drop(server.stdin.take());
    assert!(server.wait().unwrap().success());
}

#[test]
#[ignore = "run by the test above, in a process with few descriptors"]
fn serve_with_few_descriptors() {
    let mut rig = Rig::new(1, Limits::default());
    rig.apply(&[std::env::var("NODELOCALDNS_TEST_ADDRESS").unwrap().parse().unwrap()], 1);
    io::stdin().read_to_end(&mut Vec::new()).unwrap();
}

#[test]
fn swaps_under_load_lose_nothing() {
    let mut rig = Rig::new(2, Limits::default());
    let (lasting, coming) = (free("127.0.0.1"), free("127.0.0.1"));
    rig.apply(&[lasting], 0);
    rig.gate.add_permits(1 << 20);
    let is_over = AtomicBool::new(false);
    thread::scope(|scope| {
        let udp = |kind: u8| {
            let is_over = &is_over;
            move || {
                // Of several ports, so that both workers' sockets have their share.
                let clients: Vec<_> = (0..8).map(|_| client("127.0.0.1")).collect();
                let mut asked = 0_u32;
                while !is_over.load(Ordering::Relaxed) {
                    for client in &clients {
                        client.send_to(&[&[kind][..], &asked.to_be_bytes()].concat(), lasting).unwrap();
                    }
                    for client in &clients {
                        assert_eq!(receive(client).0[1..], [&[kind][..], &asked.to_be_bytes()].concat());
                    }
                    asked += 1;
                }
                asked
            }
        };
        let quick = scope.spawn(udp(b'h'));
        let slow = scope.spawn(udp(b'm'));
        let tcp = scope.spawn(|| {
            let mut talk = Talk::to(lasting);
            while !is_over.load(Ordering::Relaxed) {
                talk.say(&[b"m", b"h"]);
                let (first, second) = (talk.hear(), talk.hear());
                assert_eq!(HashSet::from([first[1], second[1]]), HashSet::from([b'm', b'h']));
            }
        });
        let mut steady = Talk::to(lasting);
        for version in 1..=20_u8 {
            let addresses = [lasting, coming];
            rig.apply(&addresses[..1 + usize::from(version % 2)], version);
            steady.say(&[b"h"]);
            assert_eq!(steady.hear(), [version, b'h'], "an established connection is served by the new plan");
            // Every other plan serves one address more.
            if version % 2 == 1 {
                let client = client("127.0.0.1");
                client.send_to(b"h", coming).unwrap();
                assert_eq!(receive(&client).0, [version, b'h']);
            }
            thread::sleep(Duration::from_millis(10));
        }
        is_over.store(true, Ordering::Relaxed);
        assert!(quick.join().unwrap() > 1);
        assert!(slow.join().unwrap() > 1);
        tcp.join().unwrap();
    });
    for reason in ["overload", "unsendable", "panic", "oversize"] {
        assert_eq!(rig.metric(&format!("nodelocaldns_queries_dropped_total{{reason=\"{reason}\"}}")), 0.0);
    }
}

#[test]
fn a_swap_that_cannot_be_made_changes_nothing() {
    let (mut rig, address) = rig(Limits::default());
    let other = free("127.0.0.1");
    let sockets = Sockets::bind([address], [], 1, rig.server.sockets()).unwrap();
    let toys = rig.toys(&[address, other], 2);
    assert!(matches!(rig.server.apply(&toys, &[], sockets), Err(SocketError::NotBound(missing)) if missing == other));
    let client = client("127.0.0.1");
    client.send_to(b"h", address).unwrap();
    assert_eq!(receive(&client).0, b"\x01h");
}

#[test]
fn a_removed_address_answers_what_it_has_received_and_is_free_again() {
    let (mut rig, address) = rig(Limits::default());
    let client = client("127.0.0.1");
    let mut talk = Talk::to(address);
    client.send_to(b"m udp", address).unwrap();
    talk.say(&[b"m tcp"]);
    rig.wait_for("two queries in flight", |rig| rig.metric("nodelocaldns_queries_in_flight") == 2.0);
    rig.apply(&[], 2);
    // While the old sockets still have answers to send, new ones have the address.
    rig.apply(&[address], 3);
    client.send_to(b"h", address).unwrap();
    assert_eq!(receive(&client).0, b"\x03h");
    rig.gate.add_permits(2);
    assert_eq!(receive(&client).0, b"\x01m udp");
    assert_eq!(talk.hear(), b"\x01m tcp");
    assert!(talk.is_closed());
}

#[test]
fn draining_answers_what_was_received_and_nothing_after() {
    let (rig, address) = rig(Limits::default());
    let (udp, late) = (client("127.0.0.1"), client("127.0.0.1"));
    let mut talk = Talk::to(address);
    let idle = Talk::to(address);
    for number in 0..50_u8 {
        udp.send_to(&[b'm', number], address).unwrap();
    }
    talk.say(&[b"m", b"h"]);
    assert_eq!(talk.hear(), b"\x01h");
    let gate = rig.gate.clone();
    let draining = thread::spawn(move || rig.drain(SOON));
    let mut idle = idle;
    assert!(idle.is_closed(), "an idle connection does not hold the drain up");
    late.send_to(b"h", address).unwrap();
    gate.add_permits(51);
    let answers: HashSet<_> = (0..50).map(|_| receive(&udp).0).collect();
    assert_eq!(answers, (0..50_u8).map(|number| vec![1, b'm', number]).collect());
    assert_eq!(talk.hear(), b"\x01m");
    assert!(talk.is_closed());
    assert_eq!(draining.join().unwrap(), 0);
    late.set_nonblocking(true).unwrap();
    assert!(late.recv(&mut [0; 8]).is_err());
    assert!(TcpStream::connect(address).is_err());
}

#[test]
fn draining_answers_what_waits_in_the_sockets() {
    let (rig, address) = rig(Limits::default());
    let udp = client("127.0.0.1");
    let mut established = Talk::to(address);
    established.say(&[b"h"]);
    established.hear();
    // While the worker is held up, everything stays in the kernel; when it goes on it is to stop first of all.
    udp.send_to(b"w", address).unwrap();
    rig.wait_for("a blocked worker", |rig| rig.blocked.load(Ordering::Relaxed) == 1);
    for number in 0..100_u8 {
        udp.send_to(&[b'h', number], address).unwrap();
    }
    established.say(&[&b"h"[..]; 3]);
    let mut unaccepted = Talk::to(address);
    unaccepted.say(&[b"h"]);
    let gate = rig.gate.clone();
    let draining = thread::spawn(move || rig.drain(SOON));
    thread::sleep(Duration::from_millis(50));
    gate.add_permits(1);
    let answers: HashSet<_> = (0..=100).map(|_| receive(&udp).0).collect();
    assert_eq!(answers.len(), 101);
    for _ in 0..3 {
        assert_eq!(established.hear(), b"\x01h");
    }
    assert_eq!(unaccepted.hear(), b"\x01h");
    assert!(established.is_closed() && unaccepted.is_closed());
    assert_eq!(draining.join().unwrap(), 0);
}

#[test]
fn draining_ends_in_time_and_tells_what_is_left() {
    let (rig, address) = rig(Limits::default());
    let client = client("127.0.0.1");
    client.send_to(b"m", address).unwrap();
    client.send_to(b"m", address).unwrap();
    rig.wait_for("two queries in flight", |rig| rig.metric("nodelocaldns_queries_in_flight") == 2.0);
    assert_eq!(rig.drain(Duration::from_millis(20)), 2);
}

#[test]
fn sockets_passed_by_another_process_are_served_and_outlive_the_server() {
    let address = free("127.0.0.1");
    let held = Sockets::bind([address], [], 3, &Sockets::default()).unwrap();
    let pass = || Sockets::from_fds(held.fds().map(|fd| fd.as_fd().try_clone_to_owned().unwrap())).unwrap();
    let clients: Vec<_> = (0..32).map(|_| client("127.0.0.1")).collect();
    for version in 1..=2 {
        // Sent while nobody serves. Two workers, three sockets: each has to be read by someone.
        for client in &clients {
            client.send_to(b"h", address).unwrap();
        }
        let mut talk = Talk::to(address);
        talk.say(&[b"h"]);
        let mut rig = Rig::new(2, Limits::default());
        let toys = rig.toys(&[address], version);
        let sockets = Sockets::bind([address], [], 2, &pass()).unwrap();
        rig.server.apply(&toys, &[], sockets).unwrap();
        for client in &clients {
            assert_eq!(receive(client).0, [version, b'h']);
        }
        assert_eq!(talk.hear(), [version, b'h']);
        assert_eq!(rig.drain(SOON), 0);
    }
}

#[test]
fn http_endpoints_are_swapped_with_the_plan_and_keep_their_address() {
    let mut rig = Rig::new(1, Limits::default());
    let address = free("127.0.0.1");
    let endpoint = |path: &'static str, body: &'static str| Endpoint {
        address,
        path,
        answer: Arc::new(move || HttpAnswer { status: 200, content_type: "text/plain", body: body.to_owned() }),
    };
    let request = |stream: &mut TcpStream, request: &str| {
        write!(stream, "{request} HTTP/1.1\r\nHost: here\r\n\r\n").unwrap();
        let mut text = Vec::new();
        let mut octet = [0];
        while !text.ends_with(b"\r\n\r\n") {
            stream.read_exact(&mut octet).unwrap();
            text.push(octet[0]);
        }
        let head = String::from_utf8(text).unwrap().to_lowercase();
        let length = head.lines().find_map(|line| line.strip_prefix("content-length: ")).unwrap().parse().unwrap();
        let mut body = vec![0; if request.starts_with("HEAD") { 0 } else { length }];
        stream.read_exact(&mut body).unwrap();
        format!("{} {}", &head[9..12], String::from_utf8(body).unwrap())
    };
    let serve = |rig: &mut Rig, endpoints: &[Endpoint]| {
        let sockets = Sockets::bind([], endpoints.iter().map(|endpoint| endpoint.address), 1, rig.server.sockets()).unwrap();
        rig.server.apply(&[], endpoints, sockets).unwrap();
    };
    serve(&mut rig, &[endpoint("/health", "OK"), endpoint("/metrics", "one")]);
    let mut stream = TcpStream::connect(address).unwrap();
    stream.set_read_timeout(Some(SOON)).unwrap();
    assert_eq!(request(&mut stream, "GET /health?x=1"), "200 OK");
    assert_eq!(request(&mut stream, "HEAD /metrics"), "200 ");
    assert_eq!(request(&mut stream, "POST /metrics").split(' ').next(), Some("405"));
    assert_eq!(request(&mut stream, "GET /").split(' ').next(), Some("404"));
    serve(&mut rig, &[endpoint("/metrics", "two")]);
    assert_eq!(request(&mut stream, "GET /metrics"), "200 two");
    assert_eq!(request(&mut stream, "GET /health").split(' ').next(), Some("404"));
    serve(&mut rig, &[]);
    rig.wait_for("the address is free", |_| TcpStream::connect(address).is_err());
}
