//! Clients that ask for a cached name every few milliseconds, each on a socket of its own and each query once, while
//! something ends.

use crate::cluster::{Cluster, NAME};
use crate::connected_clients;
use crate::support::client::query;
use hickory_proto::op::Message;
use std::collections::HashMap;
use std::net::UdpSocket;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

/// Between two queries.
const INTERVAL: Duration = Duration::from_millis(2);

/// For the last answers to come.
const PATIENCE: Duration = Duration::from_secs(3);

/// What a server that is killed may have read and not answered, or may wait in its socket: of one client, hardly as
/// much as of all.
pub const IN_HAND: usize = 64;

/// A client for each pair of who can ask and address.
pub struct Steady<'a> {
    cluster: &'a Cluster,
    overruns: usize,
    stop: Arc<AtomicBool>,
    clients: Vec<(String, JoinHandle<QueryCounts>)>,
}

/// What became of the queries of one client.
#[derive(Debug)]
pub struct QueryCounts {
    pub asked: usize,
    /// When those were sent that got no answer.
    pub lost: Vec<Instant>,
}

/// Of all clients.
pub struct Tallies {
    pub clients: Vec<(String, QueryCounts)>,
    /// Datagrams that were lost to the machine meanwhile.
    pub overruns: usize,
}

impl<'a> Steady<'a> {
    /// Starts when the node has answered everyone once.
    pub fn start(cluster: &'a Cluster, addresses: &[&str]) -> Self {
        let stop = Arc::new(AtomicBool::new(false));
        let sockets = connected_clients(cluster, addresses);
        let start = |(who, socket): (String, UdpSocket)| {
            let stop = stop.clone();
            (who, std::thread::spawn(move || ask_until(&socket, &stop)))
        };
        let overruns = cluster.overruns();
        Self { cluster, overruns, clients: sockets.into_iter().map(start).collect(), stop }
    }

    /// Stops asking and waits for what is on the way.
    pub fn finish(self) -> Tallies {
        self.stop.store(true, Ordering::Relaxed);
        let finish =
            |(who, client): (String, JoinHandle<QueryCounts>)| (who, client.join().expect("the client does not panic"));
        let clients: Vec<(String, QueryCounts)> = self.clients.into_iter().map(finish).collect();
        for (who, counts) in &clients {
            assert!(counts.asked > 20, "{who}: too few to tell anything");
        }
        Tallies { clients, overruns: self.cluster.overruns() - self.overruns }
    }
}

impl Tallies {
    /// Nothing is lost but to the machine.
    pub fn assert_none_lost(&self, when: &str) {
        self.assert_none_lost_of(when, |_| true);
    }

    /// Nothing that was sent from `gone` on is lost but to the machine, and before that hardly anything.
    pub fn assert_hardly_any_lost(&self, gone: Instant) {
        for (who, QueryCounts { asked, lost }) in &self.clients {
            assert!(
                lost.len() <= IN_HAND + self.overruns,
                "{who}: {} of {asked} lost, {} to the machine",
                lost.len(),
                self.overruns
            );
        }
        self.assert_none_lost_of("after the end", |sent| sent >= gone);
    }

    fn assert_none_lost_of(&self, when: &str, is_of: impl Fn(Instant) -> bool) {
        let lost = |counts: &QueryCounts| counts.lost.iter().filter(|sent| is_of(**sent)).count();
        let told: Vec<String> =
            self.clients.iter().map(|(who, counts)| format!("{who}: {} of {}", lost(counts), counts.asked)).collect();
        let all: usize = self.clients.iter().map(|(_, counts)| lost(counts)).sum();
        assert!(all <= self.overruns, "lost {when}, {} to the machine: {told:#?}", self.overruns);
    }
}

fn ask_until(socket: &UdpSocket, stop: &AtomicBool) -> QueryCounts {
    socket.set_nonblocking(true).expect("a socket can be told not to wait");
    let mut question = query(NAME, "A");
    let (mut asked, mut open) = (0_u16, HashMap::new());
    let mut buffer = [0; 4096];
    let mut stopped = None;
    loop {
        if !stop.load(Ordering::Relaxed) {
            question.metadata.id = asked;
            open.insert(asked, Instant::now());
            // An error is ICMP's word on an earlier query, which stays open and is counted as lost.
            let _earlier = socket.send(&question.to_vec().expect("a query of ours encodes"));
            asked = asked.checked_add(1).expect("fewer queries than IDs");
        } else if open.is_empty() || stopped.get_or_insert_with(Instant::now).elapsed() > PATIENCE {
            return QueryCounts { asked: asked.into(), lost: open.into_values().collect() };
        }
        // Not a read timeout: the kernel counts those in ticks of up to 10 ms.
        std::thread::sleep(INTERVAL);
        while let Ok(length) = socket.recv(&mut buffer) {
            if let Ok(answer) = Message::from_vec(&buffer[..length])
                && !answer.answers.is_empty()
            {
                open.remove(&answer.metadata.id);
            }
        }
    }
}
