//! The alerts (monitoring/rules.yaml) for whose fault it takes a node. The others are in `tests/monitoring`.

use crate::await_answers_of_the_node;
use crate::cluster::{
    CLUSTER_IPS, Cluster, METRICS, NAME, SOON, Transport, ask, assert_address, in_a_namespace, shell,
};
use crate::eaten::APPEAR;
use crate::part::take_cluster_ip;
use crate::support::alerts::Recording;
use crate::support::client::metric;
use crate::support::server::wait_until;

/// An agent that intercepts, what happens then, and what is seen of it.
fn record(fault: impl FnOnce(), is_seen: impl Fn() -> bool) -> Recording {
    let cluster = Cluster::new();
    let agent = cluster.start("nftables", &[]);
    agent.await_interception();
    await_answers_of_the_node(&cluster, &agent);
    let [(_, pod), _] = cluster.clients();
    let asks = || pod.visit(|| ask(CLUSTER_IPS[0], Transport::Udp, NAME));
    let is_answered = || assert_address(asks().as_ref(), "a pod");
    let mut recording = Recording::of(METRICS);
    let happens = || {
        fault();
        // A client whose packets are taken is found by those that it sends.
        let is_seen_soon = wait_until(SOON, || {
            let _it_may_be_lost = asks();
            is_seen()
        });
        assert!(is_seen_soon, "{}", agent.watchdog.tail(20));
    };
    // Some are lost: now and then one packet of a client that is blocked is tried.
    recording.record(is_answered, happens, || _ = asks());
    recording
}

#[test]
fn an_address_that_somebody_else_takes() {
    in_a_namespace("alerts::an_address_that_somebody_else_takes", || {
        let is_seen = || metric(METRICS, "nodelocaldns_watchdog_interception") == Some(0.0);
        record(take_cluster_ip, is_seen).assert_fires(&["NodeLocalDNSNotIntercepting"]);
    });
}

#[test]
fn pods_whose_packets_do_not_arrive() {
    in_a_namespace("alerts::pods_whose_packets_do_not_arrive", || {
        let is_seen = || metric(METRICS, "nodelocaldns_watchdog_blocked_clients").is_some_and(|count| count > 0.0);
        // It is counted when it is found, and tried again and counted when ten seconds have passed. Once the pod's
        // other packets are found to be taken too, there is nobody left whose do arrive.
        let possible = ["NodeLocalDNSSetupErrors", "NodeLocalDNSNotIntercepting"];
        record(|| _ = shell(APPEAR), is_seen).assert_fires_beside(&["NodeLocalDNSClientsBlocked"], &possible);
    });
}
