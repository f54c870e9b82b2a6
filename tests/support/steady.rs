//! Clients that ask all the while something happens to the server.

use super::client::{PATIENCE, exchange_tcp, loopback, query};
use super::server::wait_until;
use std::collections::HashSet;
use std::net::{Ipv4Addr, UdpSocket};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

/// Between two UDP queries of the steady client: 500 a second.
const UDP_INTERVAL: Duration = Duration::from_millis(2);
/// Between two TCP queries, each on a connection of its own.
const TCP_INTERVAL: Duration = Duration::from_millis(20);

/// What became of the queries.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct QueryCounts {
    pub asked: usize,
    pub lost: usize,
    /// Answered SERVFAIL or REFUSED.
    pub failed: usize,
}

/// Asks on a steady rate until told to stop, over UDP from one socket and over TCP; half of the queries for a name
/// asked before (so that a cache answers), half for names never asked. Every query is sent once.
pub struct SteadyClient {
    stop: Arc<AtomicBool>,
    /// Queries asked so far over UDP, and over TCP.
    asked: Arc<[AtomicUsize; 2]>,
    udp: JoinHandle<QueryCounts>,
    tcp: JoinHandle<QueryCounts>,
}

impl SteadyClient {
    pub fn start(port: u16) -> Self {
        let stop = Arc::new(AtomicBool::new(false));
        let asked = Arc::new([AtomicUsize::new(0), AtomicUsize::new(0)]);
        let (udp_stop, tcp_stop) = (stop.clone(), stop.clone());
        let (udp_asked, tcp_asked) = (asked.clone(), asked.clone());
        let udp = std::thread::spawn(move || ask_udp(port, &udp_stop, &udp_asked[0]));
        let tcp = std::thread::spawn(move || ask_tcp(port, &tcp_stop, &tcp_asked[1]));
        Self { stop, asked, udp, tcp }
    }

    /// Waits until it has asked some twenty more queries over either transport: 400 ms on a machine that has the time.
    pub fn await_queries(&self) {
        let before = [0, 1].map(|transport: usize| self.asked[transport].load(Ordering::Relaxed));
        let has_asked = || self.asked.iter().zip(before).all(|(now, before)| now.load(Ordering::Relaxed) > before + 20);
        assert!(wait_until(Duration::from_secs(60), has_asked), "the client asks no more: {:?}", self.asked);
    }

    /// Stops asking, waits for what is on the way, and fails if any query got no answer, or SERVFAIL or REFUSED.
    pub fn finish(self) {
        let (udp, tcp) = self.hit_counter();
        for (transport, counts) in [("UDP", udp), ("TCP", tcp)] {
            assert_eq!((counts.lost, counts.failed), (0, 0), "queries lost or failed over {transport}: {counts:?}");
        }
    }

    /// Stops asking, waits for what is on the way, and tells what became of the queries over UDP and over TCP.
    pub fn hit_counter(self) -> (QueryCounts, QueryCounts) {
        self.stop.store(true, Ordering::Relaxed);
        let [udp, tcp] = [self.udp, self.tcp].map(|client| client.join().expect("the client does not panic"));
        assert!(udp.asked > 20 && tcp.asked > 20, "too few queries to tell anything: {udp:?}, {tcp:?}");
        (udp, tcp)
    }
}

/// A query as number `n` of a client, with its ID set to it.
fn numbered(n: u16, transport: &str) -> Vec<u8> {
    let name =
        if n.is_multiple_of(2) { "steady.example.".to_owned() } else { format!("{transport}{n}.steady.example.") };
    let mut message = query(&name, "A");
    message.metadata.id = n;
    message.to_vec().expect("a query of ours encodes")
}

/// True for SERVFAIL and REFUSED.
fn is_failure(answer: &[u8]) -> bool {
    answer.get(3).is_some_and(|octet| matches!(octet & 0x0f, 2 | 5))
}

fn ask_udp(port: u16, stop: &AtomicBool, count: &AtomicUsize) -> QueryCounts {
    let socket = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).expect("a socket");
    socket.connect(loopback(port)).expect("loopback");
    let mut open: HashSet<u16> = HashSet::new();
    let (mut asked, mut failed) = (0_u16, 0);
    let mut buffer = [0; 4096];
    let mut next = Instant::now();
    let mut last_asked = next;
    loop {
        let now = Instant::now();
        let stopping = stop.load(Ordering::Relaxed);
        if !stopping && now >= next {
            // An error here is ICMP's word on an earlier query, which stays open and is counted as lost.
            let _earlier = socket.send(&numbered(asked, "udp"));
            open.insert(asked);
            asked = asked.checked_add(1).expect("fewer queries than IDs");
            count.fetch_add(1, Ordering::Relaxed);
            (next, last_asked) = (next + UDP_INTERVAL, now);
        }
        if stopping && (open.is_empty() || now.duration_since(last_asked) > PATIENCE) {
            return QueryCounts { asked: usize::from(asked), lost: open.len(), failed };
        }
        let left = next.saturating_duration_since(now).clamp(Duration::from_micros(100), UDP_INTERVAL);
        socket.set_read_timeout(Some(left)).expect("a timeout above zero");
        if let Ok(length) = socket.recv(&mut buffer)
            && let Some([high, low]) = buffer[..length].first_chunk()
        {
            open.remove(&u16::from_be_bytes([*high, *low]));
            failed += usize::from(is_failure(&buffer));
        }
    }
}

fn ask_tcp(port: u16, stop: &AtomicBool, count: &AtomicUsize) -> QueryCounts {
    let mut counts = QueryCounts::default();
    while !stop.load(Ordering::Relaxed) {
        let number = u16::try_from(counts.asked).expect("fewer queries than IDs");
        let answer = exchange_tcp(loopback(port), &numbered(number, "tcp"), PATIENCE);
        counts.asked += 1;
        count.fetch_add(1, Ordering::Relaxed);
        counts.lost += usize::from(answer.is_err());
        counts.failed += usize::from(answer.is_ok_and(|answer| is_failure(&answer)));
        std::thread::sleep(TCP_INTERVAL);
    }
    counts
}
