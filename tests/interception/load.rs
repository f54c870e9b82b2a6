//! A client that asks at a fixed rate from many source ports, over UDP and TCP, each query once, and counts the answers
//! that never came.

use crate::cluster::{CLUSTER_IPS, NAME, Place, Transport, ask, connected};
use crate::support::client::query;
use hickory_proto::op::Message;
use std::collections::{HashMap, VecDeque};
use std::fmt;
use std::net::UdpSocket;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

/// Source ports for each address.
const PORTS: usize = 64;

/// Between two UDP queries of one client: two clients ask 2,000 times a second.
const INTERVAL: Duration = Duration::from_millis(1);

/// Between two TCP queries, each on a connection of its own.
const TCP_INTERVAL: Duration = Duration::from_millis(20);

/// Queries below which a counts tells nothing: what is tested may be over sooner than they are asked.
const ENOUGH: usize = 500;
const ENOUGH_OVER_TCP: usize = 20;

/// For an answer to come, as resolver libraries wait at least.
const PATIENCE: Duration = Duration::from_secs(3);

/// What became of the queries of one client.
#[derive(Debug, Default)]
pub struct QueryCounts {
    pub asked: usize,
    /// Got no answer with an address; when they were sent, counted from the first query.
    pub lost: Vec<Duration>,
    pub tcp_asked: usize,
    pub tcp_lost: usize,
}

impl fmt::Display for QueryCounts {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{} of {} lost over UDP, {} of {} over TCP",
            self.lost.len(),
            self.asked,
            self.tcp_lost,
            self.tcp_asked
        )
    }
}

/// How a client takes its sockets.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ports {
    /// The same ones all the while.
    Kept,
    /// A new one for each query, as resolver libraries do.
    Fresh,
}

pub struct Load {
    stop: Arc<AtomicBool>,
    udp: JoinHandle<QueryCounts>,
    tcp: JoinHandle<(usize, usize)>,
}

impl Load {
    pub fn start(place: &Place, ports: Ports) -> Self {
        let stop = Arc::new(AtomicBool::new(false));
        let (udp_stop, tcp_stop) = (stop.clone(), stop.clone());
        let (udp_place, tcp_place) = (place.clone(), place.clone());
        let udp = std::thread::spawn(move || udp_place.visit(|| ask_udp(ports, &udp_stop)));
        let tcp = std::thread::spawn(move || tcp_place.visit(|| ask_tcp(&tcp_stop)));
        Self { stop, udp, tcp }
    }

    /// Stops asking, once enough has been asked to tell anything, and waits for what is on the way.
    pub fn finish(self) -> QueryCounts {
        self.stop.store(true, Ordering::Relaxed);
        let mut counts = self.udp.join().expect("the client does not panic");
        (counts.tcp_asked, counts.tcp_lost) = self.tcp.join().expect("the client does not panic");
        counts
    }
}

struct Asker {
    socket: UdpSocket,
    open: HashMap<u16, Instant>,
    asked: usize,
}

impl Asker {
    fn new(address: &str) -> Self {
        let socket = connected(address);
        socket.set_nonblocking(true).expect("a socket can be told not to wait");
        Self { socket, open: HashMap::new(), asked: 0 }
    }

    fn receive(&mut self) {
        let mut buffer = [0; 4096];
        // An error is ICMP's word on an earlier query, which stays open.
        for _ in 0..1000 {
            match self.socket.recv(&mut buffer) {
                Ok(length) => {
                    if let Ok(answer) = Message::from_vec(&buffer[..length])
                        && !answer.answers.is_empty()
                    {
                        self.open.remove(&answer.metadata.id);
                    }
                }
                Err(error) if error.kind() == std::io::ErrorKind::WouldBlock => return,
                Err(_) => {}
            }
        }
    }
}

fn ask_udp(ports: Ports, stop: &AtomicBool) -> QueryCounts {
    let mut question = query(NAME, "A");
    let place = |index: usize| CLUSTER_IPS[index % CLUSTER_IPS.len()];
    let mut askers: VecDeque<Asker> = (0..PORTS * CLUSTER_IPS.len()).map(|index| Asker::new(place(index))).collect();
    let start = Instant::now();
    let (mut asked, mut next) = (0_usize, start);
    let mut lost = Vec::new();
    while asked < ENOUGH || !stop.load(Ordering::Relaxed) {
        // The one that has rested longest.
        let mut asker = askers.pop_front().expect("there are some");
        asker.receive();
        if ports == Ports::Fresh {
            if asker.open.values().all(|sent| sent.elapsed() > PATIENCE) {
                lost.extend(asker.open.values().map(|sent| *sent - start));
            } else {
                askers.push_back(asker);
            }
            asker = Asker::new(place(asked));
        }
        let id = u16::try_from(asker.asked).expect("fewer queries of a socket than IDs");
        question.metadata.id = id;
        let _earlier = asker.socket.send(&question.to_vec().expect("a query of ours encodes"));
        asker.open.insert(id, Instant::now());
        asker.asked += 1;
        askers.push_back(asker);
        asked += 1;
        // What a busy machine has kept us from asking is not asked all at once.
        next = Instant::now().max(next + INTERVAL);
        std::thread::sleep(next.saturating_duration_since(Instant::now()));
    }
    let until = Instant::now() + PATIENCE;
    while Instant::now() < until && askers.iter().any(|asker| !asker.open.is_empty()) {
        askers.iter_mut().for_each(Asker::receive);
        std::thread::sleep(Duration::from_millis(5));
    }
    lost.extend(askers.iter().flat_map(|asker| asker.open.values()).map(|sent| *sent - start));
    lost.sort();
    QueryCounts { asked, lost, ..QueryCounts::default() }
}

fn ask_tcp(stop: &AtomicBool) -> (usize, usize) {
    let (mut asked, mut lost) = (0, 0);
    while asked < ENOUGH_OVER_TCP || !stop.load(Ordering::Relaxed) {
        let answer = ask(CLUSTER_IPS[asked % CLUSTER_IPS.len()], Transport::Tcp, NAME);
        asked += 1;
        lost += usize::from(answer.is_none_or(|answer| answer.answers.is_empty()));
        std::thread::sleep(TCP_INTERVAL);
    }
    (asked, lost)
}
