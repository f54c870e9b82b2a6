//! Who answers at the addresses that are the program's alone when it is gone.

use super::cluster::{
    Agent, CLUSTER_IPS, Cluster, FRESH, LOCALS, NAME, SOON, addresses, ask_on, assert_address, in_a_namespace,
    leaves_untracked, rules, shell,
};
use super::steady::Steady;
use super::support::processes::ServerKiller;
use super::support::server::wait_until;
use super::support::tools::run;
use super::{SERVED, await_answers_of_the_node, connected_clients, hardly_any_lost_at_the_end};
use std::net::{SocketAddr, UdpSocket};
use std::time::Duration;

/// kube-dns-upstream at both families.
pub const BOTH: [&str; 2] = ["--fallback", "10.96.0.11,fd00::11"];

#[test]
fn from_the_next_packet_after_the_watchdog_is_killed_kube_dns_answers_at_the_link_local_address() {
    in_a_namespace(
        "fallback::from_the_next_packet_after_the_watchdog_is_killed_kube_dns_answers_at_the_link_local_address",
        || {
            let cluster = Cluster::new();
            let mut agent = cluster.start("nftables", &BOTH);
            agent.await_interception();
            await_answers_of_the_node(&cluster, &agent);
            let clients = connected_clients(&cluster, &LOCALS);
            assert!(cluster.kube_dns_count(NAME) <= 1, "the node answers");
            agent.kill();
            assert!(!leaves_untracked(), "{}", rules());
            for (who, client) in &clients {
                // A connected socket takes answers from the address that it asked only.
                assert_address(ask_on(client, NAME, SOON).as_ref(), who);
                assert_eq!(cluster.kube_dns_count(NAME), 1, "{who}: answered by somebody else");
            }
            let asked = cluster.everyone_asks(&LOCALS, NAME);
            assert_eq!(cluster.kube_dns_count(NAME) as usize, asked);

            let next = cluster.start("nftables", &BOTH);
            next.await_interception();
            await_answers_of_the_node(&cluster, &next);
            for (who, client) in &clients {
                assert_address(ask_on(client, NAME, SOON).as_ref(), who);
            }
            assert_eq!(cluster.kube_dns_count(NAME), 0, "the node answers again, on the same sockets too");
        },
    );
}

#[test]
fn kube_dns_answers_at_the_link_local_address_also_where_kube_proxy_masquerades_nothing_and_without_the_link() {
    in_a_namespace(
        "fallback::kube_dns_answers_at_the_link_local_address_also_where_kube_proxy_masquerades_nothing_and_without_the_link",
        || {
            let cluster = Cluster::new();
            let mut agent = cluster.start("nftables", &BOTH);
            agent.await_interception();
            agent.kill();
            // As without --cluster-cidr.
            shell("iptables-nft -t nat -F KUBE-MARK-MASQ && ip6tables-nft -t nat -F KUBE-MARK-MASQ");
            cluster.everyone_asks(&LOCALS, NAME);
            shell("ip link delete nodelocaldns");
            cluster.everyone_asks(&LOCALS, NAME);
        },
    );
}

#[test]
fn who_asks_the_upstream_itself_is_answered_by_it_also_on_a_port_that_asked_the_link_local_address() {
    in_a_namespace(
        "fallback::who_asks_the_upstream_itself_is_answered_by_it_also_on_a_port_that_asked_the_link_local_address",
        || {
            let cluster = Cluster::new();
            let mut agent = cluster.start("nftables", &BOTH);
            agent.await_interception();
            agent.kill();
            for (any, local, upstream) in [("0.0.0.0:0", LOCALS[0], "10.96.0.11"), ("[::]:0", LOCALS[1], "fd00::11")] {
                let pod = cluster.clients()[0].1;
                let socket = pod.visit(|| UdpSocket::bind(any).expect("a socket"));
                for asked in [local, upstream, local, upstream] {
                    let asked = SocketAddr::new(asked.parse().expect("an address"), 53);
                    socket.connect(asked).expect("there is a route");
                    assert_address(ask_on(&socket, NAME, SOON).as_ref(), &asked.to_string());
                }
            }
        },
    );
}

#[test]
fn hardly_a_query_to_the_link_local_address_is_lost_when_the_watchdog_is_killed() {
    in_a_namespace("fallback::hardly_a_query_to_the_link_local_address_is_lost_when_the_watchdog_is_killed", || {
        let cluster = Cluster::new();
        for is_server_too in [false, true] {
            let mut agent = cluster.start("nftables", &BOTH);
            agent.await_interception();
            hardly_any_lost_at_the_end(&cluster, &mut agent, &LOCALS, is_server_too);
        }
    });
}

#[test]
fn no_query_is_lost_at_sigterm_nor_at_the_next_start_with_nftables() {
    in_a_namespace("fallback::no_query_is_lost_at_sigterm_nor_at_the_next_start_with_nftables", || {
        loses_nothing("nftables")
    });
}

#[test]
fn no_query_is_lost_at_sigterm_nor_at_the_next_start_with_iptables() {
    in_a_namespace("fallback::no_query_is_lost_at_sigterm_nor_at_the_next_start_with_iptables", || {
        loses_nothing("iptables")
    });
}

fn loses_nothing(backend: &str) {
    let cluster = Cluster::new();
    let agent = cluster.start(backend, &BOTH);
    agent.await_interception();
    await_answers_of_the_node(&cluster, &agent);
    let steady = Steady::start(&cluster, &SERVED);
    std::thread::sleep(Duration::from_millis(200));
    stop(agent);
    assert!(!leaves_untracked(), "{}", rules());
    assert_eq!(addresses(), SERVED.map(str::to_owned).into(), "programs on the node have sockets connected from them");
    cluster.kube_dns_count(NAME);
    let asked = cluster.everyone_asks(&SERVED, NAME);
    assert!(cluster.kube_dns_count(NAME) as usize >= asked, "KubeDNS answers everyone");
    steady.finish().assert_none_lost("at the stop");
    let steady = Steady::start(&cluster, &SERVED);
    std::thread::sleep(Duration::from_millis(200));
    let next = cluster.start(backend, &BOTH);
    next.await_interception();
    std::thread::sleep(Duration::from_millis(200));
    steady.finish().assert_none_lost("at the next start");
    await_answers_of_the_node(&cluster, &next);

    stop(next);
    run(cluster.program().args(["teardown", "-localip", &SERVED.join(",")]));
    assert!(!rules().contains("nodelocaldns"), "{}", rules());
    assert_eq!(addresses().len(), 0);
    cluster.everyone_asks(&CLUSTER_IPS, NAME);
}

#[test]
fn with_iptables_kube_dns_answers_at_the_link_local_address_when_the_orphaned_server_has_ended() {
    in_a_namespace(
        "fallback::with_iptables_kube_dns_answers_at_the_link_local_address_when_the_orphaned_server_has_ended",
        || {
            let cluster = Cluster::new();
            let mut agent = cluster.start("iptables", &BOTH);
            agent.await_interception();
            let clients = connected_clients(&cluster, &LOCALS);
            agent.kill();
            cluster.kube_dns_count(NAME);
            // Rules for pods match only while a socket is bound (-m socket), those for programs on the host network for
            // as long as the lease lasts (-m recent).
            for (who, client) in &clients {
                if who.starts_with("pod") {
                    assert_address(ask_on(client, NAME, SOON).as_ref(), who);
                    assert_eq!(cluster.kube_dns_count(NAME), 1, "{who}");
                } else {
                    let is_answered = || ask_on(client, NAME, Duration::from_millis(100)).is_some();
                    assert!(wait_until(SOON, is_answered), "{who}: the lease does not end\n{}", rules());
                }
            }
            let next = cluster.start("iptables", &BOTH);
            next.await_interception();
            await_answers_of_the_node(&cluster, &next);
        },
    );
}

/// Also before the first start has proved itself, and while the server is given up.
#[test]
fn while_the_interception_is_off_kube_dns_answers_at_the_link_local_address() {
    in_a_namespace("fallback::while_the_interception_is_off_kube_dns_answers_at_the_link_local_address", || {
        let cluster = Cluster::new();
        let agent = cluster.start("nftables", &BOTH);
        agent.await_interception();
        let _killer = ServerKiller::start(agent.watchdog.pid());
        assert!(wait_until(SOON, || !leaves_queries_untracked()), "{}", rules());
        for name in FRESH {
            cluster.everyone_asks(&LOCALS, name);
            assert_ne!(cluster.kube_dns_count(name), 0);
        }
    });
}

/// Whether more than replies, probes and connections that are open are.
fn leaves_queries_untracked() -> bool {
    let is_exempt = |line: &str| line.contains("mark") || line.contains("@streams-");
    rules().lines().any(|line| line.contains("notrack") && line.contains("dport 53") && !is_exempt(line))
}

fn stop(mut agent: Agent) {
    agent.watchdog.signal(libc::SIGTERM);
    let status =
        agent.watchdog.wait_exit(SOON).unwrap_or_else(|| panic!("it does not end:\n{}", agent.watchdog.tail(20)));
    assert!(status.success(), "{status}:\n{}", agent.watchdog.tail(20));
}

#[test]
fn after_an_orderly_stop_cluster_ips_are_answered_also_where_kube_proxy_masquerades_nothing() {
    in_a_namespace(
        "fallback::after_an_orderly_stop_cluster_ips_are_answered_also_where_kube_proxy_masquerades_nothing",
        || {
            let cluster = Cluster::new();
            // As without --cluster-cidr, and KubeDNS on another node that has the addresses too.
            shell("iptables-nft -t nat -F KUBE-MARK-MASQ && ip6tables-nft -t nat -F KUBE-MARK-MASQ");
            cluster.kube_dns().visit(|| CLUSTER_IPS.map(|address| shell(&format!("ip route add blackhole {address}"))));
            cluster.everyone_asks(&CLUSTER_IPS, NAME);
            let mut agent = cluster.start("nftables", &BOTH);
            agent.await_interception();
            agent.watchdog.signal(libc::SIGTERM);
            agent.watchdog.wait_exit(SOON).expect("it ends");
            cluster.everyone_asks(&LOCALS, NAME);
            cluster.everyone_asks(&CLUSTER_IPS, NAME);
        },
    );
}
