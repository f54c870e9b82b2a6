//! Pods' packets that come in and do not arrive, because something on the node takes them: they are left to cluster
//! DNS.

use crate::cluster::{
    Agent, CLUSTER_IPS, Cluster, LOCAL, NAME, SOON, Transport, ask, ask_on, ask_on_stream, assert_address, connect,
    connected, in_a_namespace, kill, leaves_untracked, rules, shell, signal,
};
use crate::steady::Steady;
use crate::support::client::metric;
use crate::support::server::wait_until;
use crate::support::story::story;
use crate::{await_answers_of_the_node, stop};
use std::time::Duration;

/// Addresses at which somebody answers when the cache does not.
const SHARED: [&str; 3] = [CLUSTER_IPS[0], CLUSTER_IPS[1], LOCAL];

/// A table of somebody else's that takes what pods send to port 53; no accept of ours overrides it. It goes by the
/// interface, so that its rules do not tell what becomes of a pod's packets.
pub const APPEAR: &str = "nft 'table inet eater { chain input { type filter hook input priority filter + 10; \
                      iif \"lo\" accept; iifname \"veth-pod\" meta l4proto { udp, tcp } th dport 53 drop; }; }'";
const DISAPPEAR: &str = "nft delete table inet eater";

/// Whether KubeDNS is who answers a pod, at each of the addresses.
fn kube_dns_answers_pods(cluster: &Cluster) -> bool {
    let [(_, pod), _] = cluster.clients();
    SHARED.iter().all(|address| {
        cluster.kube_dns_count(NAME);
        let answer = pod.visit(|| ask_on(&connected(address), NAME, Duration::from_secs(1)));
        answer.is_some() && cluster.kube_dns_count(NAME) == 1
    })
}

fn path_errors(agent: &Agent) -> f64 {
    metric(agent.metrics, "coredns_nodecache_setup_errors_total{errortype=\"path\"}").unwrap_or_default()
}

#[test]
fn pods_whose_packets_a_firewall_takes_from_now_on_are_answered_by_kube_dns_with_nftables() {
    in_a_namespace(
        "eaten::pods_whose_packets_a_firewall_takes_from_now_on_are_answered_by_kube_dns_with_nftables",
        || firewall_appears("nftables"),
    );
}

#[test]
fn pods_whose_packets_a_firewall_takes_from_now_on_are_answered_by_kube_dns_with_iptables() {
    in_a_namespace(
        "eaten::pods_whose_packets_a_firewall_takes_from_now_on_are_answered_by_kube_dns_with_iptables",
        || firewall_appears("iptables"),
    );
}

fn firewall_appears(backend: &str) {
    let cluster = Cluster::new();
    let agent = cluster.start(backend, &[]);
    agent.await_interception();
    await_answers_of_the_node(&cluster, &agent);
    let steady = Steady::start(&cluster, &SHARED);
    std::thread::sleep(Duration::from_millis(200));
    shell(APPEAR);
    std::thread::sleep(Duration::from_secs(1));
    let all_counts = steady.finish();
    for (who, counts) in &all_counts.clients {
        // A query each 2 ms: 200 ms of them, and 20 ms for a try.
        let most = if who.starts_with("pod") { 110 } else { 0 };
        assert!(
            counts.lost.len() <= most + all_counts.overruns,
            "{who}: {} of {} lost",
            counts.lost.len(),
            counts.asked
        );
    }
    assert!(
        all_counts.clients.iter().any(|(who, counts)| who.starts_with("pod") && !counts.lost.is_empty()),
        "the firewall takes nothing"
    );
    assert!(wait_until(SOON, || kube_dns_answers_pods(&cluster)), "{}", agent.watchdog.tail(20));
    assert!(wait_until(SOON, || path_errors(&agent) >= 1.0), "nobody counts it:\n{}", agent.watchdog.tail(20));
    let told = |text: &str| agent.watchdog.tail(50).contains(text);
    assert!(wait_until(SOON, || told("do not arrive at the cache") && told("veth-pod")), "{}", agent.watchdog.tail(20));
    shell(DISAPPEAR);
    await_answers_of_the_node(&cluster, &agent);
    let blocked = || metric(agent.metrics, "nodelocaldns_watchdog_blocked_clients");
    assert!(wait_until(SOON, || blocked() == Some(0.0)), "{:?}\n{}", blocked(), agent.watchdog.tail(20));
}

#[test]
fn a_connection_to_kube_dns_outlives_that_its_pods_packets_arrive_again_with_nftables() {
    in_a_namespace("eaten::a_connection_to_kube_dns_outlives_that_its_pods_packets_arrive_again_with_nftables", || {
        connection_of_a_blocked_pod("nftables")
    });
}

#[test]
fn a_connection_to_kube_dns_outlives_that_its_pods_packets_arrive_again_with_iptables() {
    in_a_namespace("eaten::a_connection_to_kube_dns_outlives_that_its_pods_packets_arrive_again_with_iptables", || {
        connection_of_a_blocked_pod("iptables")
    });
}

fn connection_of_a_blocked_pod(backend: &str) {
    let cluster = Cluster::new();
    shell(APPEAR);
    let agent = cluster.start(backend, &[]);
    agent.await_interception();
    assert!(wait_until(SOON, || kube_dns_answers_pods(&cluster)), "{}", agent.watchdog.tail(20));
    let [(_, pod), _] = cluster.clients();
    let mut connections = pod.visit(|| CLUSTER_IPS.map(connect));
    let mut everybody_is_answered = |when: &str| {
        for (connection, address) in connections.iter_mut().zip(CLUSTER_IPS) {
            let answer = ask_on_stream(connection, NAME);
            assert!(answer.is_ok(), "{when}, {address}: {answer:?}\n{}\n{}", rules(), agent.watchdog.tail(20));
        }
    };
    everybody_is_answered("while it is blocked");
    shell(DISAPPEAR);
    // Longer than the kernel leaves a client alone, and shorter than servers wait for the next query.
    std::thread::sleep(Duration::from_secs(6));
    everybody_is_answered("while it is left alone");
    std::thread::sleep(Duration::from_secs(6));
    everybody_is_answered("when it is tried again");
    await_answers_of_the_node(&cluster, &agent);
    everybody_is_answered("when the node answers it");
}

/// As amazon-vpc-cni's strict mode for security groups: what a pod sends is routed before the table `local` is asked.
#[test]
fn pods_whose_packets_are_routed_past_the_node_are_answered_by_kube_dns_with_nftables() {
    in_a_namespace("eaten::pods_whose_packets_are_routed_past_the_node_are_answered_by_kube_dns_with_nftables", || {
        routed_past("nftables")
    });
}

#[test]
fn pods_whose_packets_are_routed_past_the_node_are_answered_by_kube_dns_with_iptables() {
    in_a_namespace("eaten::pods_whose_packets_are_routed_past_the_node_are_answered_by_kube_dns_with_iptables", || {
        routed_past("iptables")
    });
}

fn routed_past(backend: &str) {
    let cluster = Cluster::new();
    shell(
        "for address in 10.96.0.10 169.254.20.10; do ip route add $address via 192.168.9.254 dev uplink table 101; done
        ip -6 route add fd00::10 via fd00:9::fe dev uplink table 101
        for family in -4 -6; do
            ip $family rule add pref 20 lookup local
            ip $family rule add pref 10 iif veth-pod lookup 101
            ip $family rule del pref 0
        done",
    );
    let agent = cluster.start(backend, &[]);
    agent.await_interception();
    assert!(wait_until(SOON, || kube_dns_answers_pods(&cluster)), "{}", agent.watchdog.tail(20));
    let [(_, pod), (_, host)] = cluster.clients();
    for address in SHARED {
        assert_address(pod.visit(|| ask(address, Transport::Tcp, NAME)).as_ref(), address);
    }
    // Others are served by the node all the same.
    cluster.kube_dns_count(NAME);
    for address in SHARED {
        assert_address(host.visit(|| ask(address, Transport::Udp, NAME)).as_ref(), address);
    }
    assert!(wait_until(SOON, || {
        cluster.kube_dns_count(NAME);
        let answer = host.visit(|| ask(CLUSTER_IPS[0], Transport::Udp, NAME));
        answer.is_some() && cluster.kube_dns_count(NAME) == 0
    }));
}

/// Nobody is left to withdraw the rules.
#[test]
fn a_watchdog_that_is_stopped_intercepts_nothing_soon_with_nftables() {
    in_a_namespace("eaten::a_watchdog_that_is_stopped_intercepts_nothing_soon_with_nftables", || {
        watchdog_is_stopped("nftables")
    });
}

#[test]
fn a_watchdog_that_is_stopped_intercepts_nothing_soon_with_iptables() {
    in_a_namespace("eaten::a_watchdog_that_is_stopped_intercepts_nothing_soon_with_iptables", || {
        watchdog_is_stopped("iptables")
    });
}

fn watchdog_is_stopped(backend: &str) {
    let cluster = Cluster::new();
    let agent = cluster.start(backend, &[]);
    agent.await_interception();
    await_answers_of_the_node(&cluster, &agent);
    let watchdog = agent.watchdog.pid().cast_signed();
    stop(watchdog);
    let killed = agent.server();
    kill(killed);
    assert!(wait_until(SOON, || kube_dns_answers_pods(&cluster)), "{}", rules());
    let [_, (_, host)] = cluster.clients();
    assert_address(host.visit(|| ask(CLUSTER_IPS[0], Transport::Udp, NAME)).as_ref(), "a program on the node");
    signal(watchdog, libc::SIGCONT);
    assert!(wait_until(SOON, || agent.server() != killed), "no next server:\n{}", agent.watchdog.tail(30));
    agent.await_interception();
    await_answers_of_the_node(&cluster, &agent);
}

/// Rules of iptables stay when both processes are killed. Those for programs on the node match whether or not somebody
/// listens.
#[test]
fn what_iptables_holds_keeps_no_program_on_the_node_from_kube_dns_for_long_after_both_are_killed() {
    let name = "eaten::what_iptables_holds_keeps_no_program_on_the_node_from_kube_dns_for_long_after_both_are_killed";
    in_a_namespace(name, || {
        let cluster = Cluster::new();
        let mut agent = cluster.start("iptables", &[]);
        agent.await_interception();
        await_answers_of_the_node(&cluster, &agent);
        agent.kill();
        assert!(leaves_untracked(), "nobody is left to remove the rules");
        let [_, (_, host)] = cluster.clients();
        for address in CLUSTER_IPS {
            let asks = || host.visit(|| ask_on(&connected(address), NAME, Duration::from_secs(1)));
            assert!(wait_until(SOON, || asks().is_some()), "{address}: {}", rules());
        }
        let next = cluster.start("iptables", &[]);
        next.await_interception();
        await_answers_of_the_node(&cluster, &next);
    });
}

/// docs/troubleshooting.md: it is named by the second command.
#[test]
fn a_firewall_that_takes_pods_packets_is_named_by_the_second_command() {
    in_a_namespace("eaten::a_firewall_that_takes_pods_packets_is_named_by_the_second_command", || {
        let cluster = Cluster::new();
        let agent = cluster.start("nftables", &[]);
        agent.await_interception();
        shell(APPEAR);
        assert!(wait_until(SOON, || kube_dns_answers_pods(&cluster)), "{}", agent.watchdog.tail(20));
        for told in story("A pod's queries do not come here") {
            let output = cluster.program().args(&told.arguments).output().expect("the program runs");
            told.assert_printed(&String::from_utf8_lossy(&output.stdout));
        }
    });
}
