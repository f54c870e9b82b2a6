//! Replies that no packet of the pod's network takes whole.

use super::cluster::{ADDRESS, CLUSTER_IPS, Cluster, LONG, LONG_ADDRESSES, NAME, connected, in_a_namespace};
use super::support::client::query;
use hickory_proto::op::{Edns, Message};
use std::collections::BTreeMap;
use std::net::UdpSocket;
use std::time::Duration;

#[test]
fn a_reply_that_is_longer_than_a_packet_reaches_the_pod_as_do_those_beside_it() {
    in_a_namespace("fragments::a_reply_that_is_longer_than_a_packet_reaches_the_pod_as_do_those_beside_it", || {
        let cluster = Cluster::new();
        let agent = cluster.start("nftables", &[]);
        agent.await_interception();
        for (who, place) in cluster.clients() {
            for address in CLUSTER_IPS {
                let socket = place.visit(|| connected(address));
                // Forwarded, then from the cache, then given again as it is.
                for time in 1..=4 {
                    assert_eq!(ask_at_once(&socket), [1, LONG_ADDRESSES, 1, LONG_ADDRESSES, 1], "{who}, {address}, time {time}");
                }
            }
        }
    });
}

/// How many addresses each of several queries that are sent one after the other gets; 0: no answer.
fn ask_at_once(socket: &UdpSocket) -> [usize; 5] {
    let queries = [NAME, LONG, NAME, LONG, NAME].map(|name| {
        let mut query = query(name, "A");
        let mut edns = Edns::new();
        edns.set_max_payload(4096);
        query.edns = Some(edns);
        query
    });
    for query in &queries {
        socket.send(&query.to_vec().expect("a query of ours encodes")).expect("the socket can send");
    }
    socket.set_read_timeout(Some(Duration::from_secs(3))).expect("a timeout above zero");
    let mut counts = BTreeMap::new();
    let mut buffer = [0; 4096];
    while counts.len() < queries.len()
        && let Ok(length) = socket.recv(&mut buffer)
    {
        let answer = Message::from_vec(&buffer[..length]).expect("the answer is well-formed");
        assert!(!answer.metadata.truncation, "{answer:?}");
        assert!(answer.answers.iter().all(|record| record.data.to_string().starts_with(&ADDRESS[..3])), "{answer:?}");
        counts.insert(answer.metadata.id, answer.answers.len());
    }
    queries.map(|query| counts.get(&query.metadata.id).copied().unwrap_or_default())
}
