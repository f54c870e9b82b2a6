//! Addresses whose queries cannot be had: the others are served all the same, and whoever answers there is hardly asked
//! by us.

use crate::SERVED;
use crate::cluster::{CLUSTER_IPS, Cluster, METRICS, NAME, SOON, in_a_namespace, program, shell};
use crate::support::client::metric;
use crate::support::server::wait_until;
use std::time::Duration;

/// What the watchdog asks, one after the other.
const PROBES: [&str; 2] = ["probe.nodelocaldns.", "slow.probe.nodelocaldns."];

/// Takes queries for the ClusterIP of IPv4 before our rules see them, tracked or not, and brings the answers back, as
/// IPVS does: by way of an address that kube-proxy would send to KubeDNS.
pub fn take_cluster_ip() {
    let [cluster_ip, other] = [CLUSTER_IPS[0], "10.96.0.12"];
    let mut rules = String::new();
    for (chain, priority, from, to, end, port) in [
        ("prerouting", -310, cluster_ip, other, "daddr", "dport"),
        ("output", -310, cluster_ip, other, "daddr", "dport"),
        ("postrouting", 310, other, cluster_ip, "saddr", "sport"),
        ("input", 310, other, cluster_ip, "saddr", "sport"),
    ] {
        rules += &format!("chain {chain} {{ type filter hook {chain} priority {priority}\n");
        for protocol in ["udp", "tcp"] {
            rules += &format!("ip {end} {from} {protocol} {port} 53 ip {end} set {to}\n");
        }
        rules += "}\n";
    }
    shell(&format!("nft -f - <<'END'\ntable ip taken {{\n{rules}}}\nEND"));
    for protocol in ["udp", "tcp"] {
        shell(&format!("iptables-nft -t nat -I KUBE-SERVICES -d {other} -p {protocol} --dport 53 -j KUBE-SVC-DNS"));
    }
}

fn is_intercepted(address: &str) -> Option<bool> {
    metric(METRICS, &format!("nodelocaldns_watchdog_intercepted{{address=\"{address}\"}}")).map(|value| value == 1.0)
}

#[test]
fn an_address_that_somebody_else_answers_costs_no_other_one() {
    in_a_namespace("part::an_address_that_somebody_else_answers_costs_no_other_one", || {
        let cluster = Cluster::new();
        take_cluster_ip();
        cluster.everyone_asks(&CLUSTER_IPS, NAME);
        let agent = cluster.start("nftables", &[]);
        let rest = &SERVED.iter().copied().filter(|address| *address != CLUSTER_IPS[0]).collect::<Vec<_>>();
        let are_on = || rest.iter().all(|address| is_intercepted(address) == Some(true));
        assert!(wait_until(SOON, are_on), "{}", agent.watchdog.tail(30));
        let is_here = || {
            cluster.kube_dns_count(NAME);
            cluster.everyone_asks(rest, NAME);
            cluster.kube_dns_count(NAME) == 0
        };
        assert!(wait_until(SOON, is_here), "the others are served here\n{}", agent.watchdog.tail(30));
        let asked = cluster.everyone_asks(&CLUSTER_IPS[..1], NAME);
        assert_eq!(cluster.kube_dns_count(NAME) as usize, asked, "and it is answered by whom it belongs to");
        assert_eq!(
            (is_intercepted(CLUSTER_IPS[0]), metric(METRICS, "nodelocaldns_watchdog_interception")),
            (Some(false), Some(0.0))
        );
        let told = || agent.watchdog.output().matches("10.96.0.10 is not intercepted: somebody else answers").count();
        assert!(wait_until(SOON, || told() > 0), "{}", agent.watchdog.tail(30));
        assert_eq!(told(), 1);
        assert_eq!(
            metric(METRICS, "nodelocaldns_watchdog_server_restarts_total"),
            Some(0.0),
            "{}",
            agent.watchdog.tail(30)
        );
    });
}

#[test]
fn where_no_interception_can_be_had_kube_dns_is_hardly_asked_for_the_watchdogs_record() {
    in_a_namespace("part::where_no_interception_can_be_had_kube_dns_is_hardly_asked_for_the_watchdogs_record", || {
        let cluster = Cluster::new();
        let mut command = program();
        command.env("PATH", "/nonexistent");
        let agent = cluster.start_as(command, "iptables", METRICS, &[]);
        let told = || {
            CLUSTER_IPS.iter().all(|address| agent.watchdog.output().contains(&format!("{address} is not intercepted")))
        };
        assert!(wait_until(SOON, told), "{}", agent.watchdog.tail(30));
        cluster.kube_dns_count_of(&PROBES);
        // Two addresses over UDP and TCP, each asked once in ever more seconds, and once more at each try to set the
        // rules. It was 168 a second.
        std::thread::sleep(Duration::from_secs(10));
        let count = cluster.kube_dns_count_of(&PROBES);
        assert!(count <= 40, "{count} questions in ten seconds\n{}", agent.watchdog.tail(30));
        assert_eq!(
            metric(METRICS, "nodelocaldns_watchdog_server_restarts_total"),
            Some(0.0),
            "{}",
            agent.watchdog.tail(30)
        );
    });
}
