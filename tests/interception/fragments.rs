//! Replies that no packet of the pod's network takes whole.

use super::cluster::{
    ADDRESS, Agent, CLUSTER_IPS, Cluster, LONG, LONG_ADDRESSES, METRICS, NAME, Transport, ask, assert_address,
    connected, corefile_template, in_a_namespace, shell,
};
use super::support::client::query;
use hickory_proto::op::{Edns, Message};
use std::collections::BTreeMap;
use std::net::UdpSocket;
use std::time::Duration;

#[test]
fn a_reply_that_is_longer_than_a_packet_reaches_the_pod_as_do_those_beside_it() {
    in_a_namespace("fragments::a_reply_that_is_longer_than_a_packet_reaches_the_pod_as_do_those_beside_it", || {
        let cluster = Cluster::new();
        let agent = Agent::start(cluster.program(), &corefile_template("bufsize 4096"), "nftables", METRICS, &[]);
        agent.await_interception();
        for (who, place) in cluster.clients() {
            for address in CLUSTER_IPS {
                let socket = place.visit(|| connected(address));
                // Forwarded, then from the cache; those beside it are then given again as they are.
                for time in 1..=4 {
                    assert_eq!(
                        ask_at_once(&socket),
                        [1, LONG_ADDRESSES, 1, LONG_ADDRESSES, 1],
                        "{who}, {address}, time {time}"
                    );
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

#[test]
fn replies_are_not_to_be_fragmented_on_their_way() {
    in_a_namespace("fragments::replies_are_not_to_be_fragmented_on_their_way", || {
        assert_eq!(replies_that_forbid_fragments("0"), 1)
    });
}

#[test]
fn replies_may_be_fragmented_on_their_way_where_the_node_does_no_path_mtu_discovery() {
    // What routers say of packets that were too long is ignored, so that a reply which must not be fragmented would be
    // lost time and again.
    in_a_namespace(
        "fragments::replies_may_be_fragmented_on_their_way_where_the_node_does_no_path_mtu_discovery",
        || {
            assert_eq!(replies_that_forbid_fragments("2"), 0);
        },
    );
}

/// Whether the reply to a pod has DF set, 1 or 0, under this `ip_no_pmtu_disc`.
fn replies_that_forbid_fragments(discovery: &str) -> u32 {
    std::fs::write("/proc/sys/net/ipv4/ip_no_pmtu_disc", discovery).expect("the namespace is ours");
    let cluster = Cluster::new();
    let agent = cluster.start("nftables", &[]);
    agent.await_interception();
    let [(_, pod), _] = cluster.clients();
    pod.visit(|| {
        shell(
            "nft add table ip seen
            nft add chain ip seen input '{ type filter hook input priority 0; }'
            nft add rule ip seen input udp sport 53 ip frag-off '&' 0x4000 == 0x4000 counter",
        );
        assert_address(ask(CLUSTER_IPS[0], Transport::Udp, NAME).as_ref(), "pod");
        let seen = shell("nft list table ip seen");
        let packets = seen.split("counter packets ").nth(1).and_then(|rest| rest.split(' ').next()?.parse().ok());
        packets.unwrap_or_else(|| panic!("no counter in:\n{seen}"))
    })
}
