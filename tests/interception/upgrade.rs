//! One instance takes the place of another, in both orders, under load: nobody's answer is lost.

use crate::cluster::{
    Agent, Cluster, FRESH, METRICS, NAME, SOON, Transport, accept_rules, addresses, ask, assert_address,
    in_a_namespace, leaves_untracked, rules, shell,
};
use crate::fallback::BOTH;
use crate::load::{Load, Ports, QueryCounts};
use crate::steady::IN_HAND;
use crate::support::client::metric;
use crate::support::processes::server;
use crate::support::server::{scratch, wait_until};
use crate::support::tools::write;
use crate::{ACCEPT_RULES, SERVED, await_answers_of_the_node};
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::time::Duration;
use tempfile::TempDir;

/// How often one instance takes the place of another in a test.
const ROUNDS: usize = 10;

/// Before and after what is done.
const A_WHILE: Duration = Duration::from_millis(200);

/// Starts the agent number `round`, whose metrics can be told from those of the one before.
fn start(cluster: &Cluster, backend: &str, round: usize, socket: Option<&Path>, fallback: &[&str]) -> Agent {
    let port = METRICS + u16::try_from(round % 2).expect("0 or 1");
    let socket = socket.map(|path| path.to_str().expect("a path in UTF-8"));
    let mut more: Vec<&str> = socket.map_or_else(Vec::new, |path| vec!["--handover", path]);
    more.extend(fallback);
    cluster.start_with_metrics(backend, port, &more)
}

fn end(agent: &mut Agent) {
    agent.watchdog.signal(libc::SIGTERM);
    let status =
        agent.watchdog.wait_exit(SOON).unwrap_or_else(|| panic!("it does not end:\n{}", agent.watchdog.tail(20)));
    assert!(status.success(), "{status}:\n{}", agent.watchdog.tail(20));
}

/// Clients of both kinds that ask all the while.
struct Loads<'a> {
    cluster: &'a Cluster,
    overruns: usize,
    loads: Vec<(&'static str, Load)>,
}

/// What became of their queries, and how many datagrams were lost to the machine meanwhile.
struct Tallies {
    clients: Vec<(&'static str, QueryCounts)>,
    overruns: usize,
}

fn loads(cluster: &Cluster) -> Loads<'_> {
    let overruns = cluster.overruns();
    // The address that a socket on the host's network has is the ClusterIP itself, as long as the link has it.
    let ports = |who: &str| if who == "pod" { Ports::Kept } else { Ports::Fresh };
    let loads = cluster.clients().into_iter().map(|(who, place)| (who, Load::start(place, ports(who)))).collect();
    Loads { cluster, overruns, loads }
}

fn finish(loads: Loads<'_>) -> Tallies {
    let all_counts: Vec<_> = loads.loads.into_iter().map(|(who, load)| (who, load.finish())).collect();
    let overruns = loads.cluster.overruns() - loads.overruns;
    eprintln!("{overruns} datagrams lost to the machine");
    for (who, counts) in &all_counts {
        eprintln!("{who}: {counts}");
    }
    Tallies { clients: all_counts, overruns }
}

fn new_before_old(backend: &str, socket: Option<&Path>) -> Tallies {
    let cluster = Cluster::new();
    let mut old = start(&cluster, backend, 0, socket, &[]);
    old.await_interception();
    await_answers_of_the_node(&cluster, &old);
    let loads = loads(&cluster);
    std::thread::sleep(A_WHILE);
    for round in 1..=ROUNDS {
        let new = start(&cluster, backend, round, socket, &[]);
        new.await_interception();
        if socket.is_some() {
            old.watchdog.wait_output("a successor has taken over", SOON);
        }
        std::thread::sleep(A_WHILE);
        end(&mut old);
        old = new;
        std::thread::sleep(A_WHILE);
    }
    let all_counts = finish(loads);
    assert_eq!(addresses(), SERVED.map(str::to_owned).into(), "what the new one needs was taken down");
    old.await_interception();
    await_answers_of_the_node(&cluster, &old);
    end(&mut old);
    assert!(!leaves_untracked() && accept_rules() == 0, "the last one leaves no rules but the fallback's: {}", rules());
    assert_eq!(shell("nft list tables | grep nodelocaldns"), "table inet nodelocaldns-fallback\n");
    assert_eq!(addresses(), SERVED.map(str::to_owned).into(), "programs on the node have sockets connected from them");
    all_counts
}

impl Tallies {
    /// Nothing but to the machine, and a connection that is open at the very moment of a SIGTERM (docs/faults.md).
    fn assert_nothing_lost(&self) {
        self.assert_nothing_lost_over_udp();
        for (who, counts) in &self.clients {
            assert!(counts.tcp_lost <= ROUNDS, "{who}: {counts:?}");
        }
    }

    fn assert_nothing_lost_over_udp(&self) {
        let lost: usize = self.clients.iter().map(|(_, counts)| counts.lost.len()).sum();
        assert!(lost <= self.overruns, "{} to the machine: {:#?}", self.overruns, self.clients);
    }
}

#[test]
fn no_answer_is_lost_when_the_new_takes_over_from_the_old_with_nftables() {
    in_a_namespace("upgrade::no_answer_is_lost_when_the_new_takes_over_from_the_old_with_nftables", || {
        let folder = scratch();
        new_before_old("nftables", Some(&folder.path().join("handover.sock"))).assert_nothing_lost();
    });
}

#[test]
fn no_answer_is_lost_when_the_new_takes_over_from_the_old_with_iptables() {
    in_a_namespace("upgrade::no_answer_is_lost_when_the_new_takes_over_from_the_old_with_iptables", || {
        let folder = scratch();
        new_before_old("iptables", Some(&folder.path().join("handover.sock"))).assert_nothing_lost();
    });
}

#[test]
fn no_answer_is_lost_over_udp_when_new_and_old_share_the_port_alone() {
    in_a_namespace("upgrade::no_answer_is_lost_over_udp_when_new_and_old_share_the_port_alone", || {
        new_before_old("nftables", None).assert_nothing_lost_over_udp();
    });
}

#[test]
fn no_answer_is_lost_when_the_old_ends_before_the_new_begins_and_there_is_a_fallback() {
    in_a_namespace(
        "upgrade::no_answer_is_lost_when_the_old_ends_before_the_new_begins_and_there_is_a_fallback",
        || {
            let folder = scratch();
            let socket = folder.path().join("handover.sock");
            let cluster = Cluster::new();
            let mut agent = start(&cluster, "nftables", 0, Some(&socket), &BOTH);
            agent.await_interception();
            let loads = loads(&cluster);
            for round in 1..=ROUNDS {
                std::thread::sleep(A_WHILE);
                end(&mut agent);
                assert!(!socket.exists(), "nobody listens there");
                std::thread::sleep(A_WHILE);
                agent = start(&cluster, "nftables", round, Some(&socket), &BOTH);
                agent.await_interception();
            }
            std::thread::sleep(A_WHILE);
            let all_counts = finish(loads);
            all_counts.assert_nothing_lost_over_udp();
            // One that is open at the very moment of SIGTERM may be cut (docs/faults.md), and no other.
            for (who, counts) in &all_counts.clients {
                assert!(counts.tcp_lost <= ROUNDS, "{who}: {counts:?}");
            }
        },
    );
}

/// A firewall that drops what is not tracked lets pods' queries in by rules of ours, which only iptables can make: the
/// interception waits for them. (Of programs on the node a query may be lost while the kernel puts an address on the
/// link, before it has the route to it.)
#[test]
fn no_answer_of_a_pod_is_lost_at_the_first_start_however_long_iptables_takes() {
    in_a_namespace("upgrade::no_answer_of_a_pod_is_lost_at_the_first_start_however_long_iptables_takes", || {
        let cluster = Cluster::new();
        let slow = slow_iptables();
        let [(who, pod), _] = cluster.clients();
        let load = Load::start(pod, Ports::Kept);
        std::thread::sleep(A_WHILE);
        let mut command = cluster.program();
        command.env("PATH", format!("{}:{}", slow.path().display(), std::env::var("PATH").expect("there is one")));
        let agent = cluster.start_as(command, "nftables", METRICS, &[]);
        agent.await_interception();
        std::thread::sleep(A_WHILE);
        let counts = load.finish();
        assert!(counts.lost.is_empty() && counts.tcp_lost == 0, "{who}: {counts:?}");
        assert_eq!(accept_rules(), ACCEPT_RULES);
    });
}

/// A folder of programs that change rules as those of their names do, and take their time.
fn slow_iptables() -> TempDir {
    let folder = scratch();
    for name in ["iptables-nft-restore", "ip6tables-nft-restore"] {
        let real = shell(&format!("command -v {name}"));
        let path = write(folder.path(), name, &format!("#!/bin/sh\nsleep 0.5\nexec {} \"$@\"\n", real.trim()));
        std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o755)).expect("the file is ours");
    }
    folder
}

#[test]
fn what_the_old_had_cached_the_new_answers_though_kube_dns_is_dead() {
    in_a_namespace("upgrade::what_the_old_had_cached_the_new_answers_though_kube_dns_is_dead", || {
        let folder = scratch();
        let socket = folder.path().join("handover.sock");
        let mut cluster = Cluster::new();
        let mut old = start(&cluster, "nftables", 0, Some(&socket), &[]);
        old.await_interception();
        await_answers_of_the_node(&cluster, &old);
        for name in FRESH {
            cluster.everyone_asks(&SERVED, name);
        }
        cluster.end_kube_dns();
        let new = start(&cluster, "nftables", 1, Some(&socket), &[]);
        old.watchdog.wait_output("a successor has taken over", SOON);
        end(&mut old);
        for name in FRESH.iter().chain([&NAME]) {
            for (who, place) in cluster.clients() {
                let answer = place.visit(|| ask(SERVED[1], Transport::Udp, name));
                assert_address(answer.as_ref(), &format!("{who}, {name}\n{}", new.watchdog.tail(20)));
            }
        }
    });
}

#[test]
fn an_old_instance_that_is_killed_while_it_stands_by_leaves_no_table() {
    in_a_namespace("upgrade::an_old_instance_that_is_killed_while_it_stands_by_leaves_no_table", || {
        let folder = scratch();
        let socket = folder.path().join("handover.sock");
        let cluster = Cluster::new();
        let mut old = start(&cluster, "nftables", 0, Some(&socket), &[]);
        old.await_interception();
        let new = start(&cluster, "nftables", 1, Some(&socket), &[]);
        old.watchdog.wait_output("a successor has taken over", SOON);
        let server_is_gone = || server(old.watchdog.pid()).is_none();
        assert!(wait_until(SOON, server_is_gone), "{}", old.watchdog.tail(20));
        let is_owned = |line: &&str| line.contains("inet nodelocaldns") && !line.ends_with("-fallback");
        let tables = || shell("nft list tables inet").lines().filter(is_owned).count();
        assert_eq!(tables(), 2);
        old.watchdog.signal(libc::SIGKILL);
        old.watchdog.wait_exit(SOON).expect("a killed process ends");
        assert_eq!(tables(), 1);
        new.await_interception();
    });
}

#[test]
fn a_successor_that_dies_gives_everything_back() {
    in_a_namespace("upgrade::a_successor_that_dies_gives_everything_back", || {
        let folder = scratch();
        let socket = folder.path().join("handover.sock");
        let cluster = Cluster::new();
        let mut old = start(&cluster, "nftables", 0, Some(&socket), &[]);
        old.await_interception();
        let loads = loads(&cluster);
        let mut new = start(&cluster, "nftables", 1, Some(&socket), &[]);
        old.watchdog.wait_output("a successor has taken over", SOON);
        let withdrawn = || metric(old.metrics, "nodelocaldns_watchdog_interception") == Some(0.0);
        assert!(wait_until(SOON, withdrawn), "two intercept:\n{}", old.watchdog.tail(20));
        new.watchdog.signal(libc::SIGKILL);
        new.watchdog.wait_exit(SOON).expect("a killed process ends");
        old.await_interception();
        await_answers_of_the_node(&cluster, &old);
        let all_counts = finish(loads);
        for (who, counts) in all_counts.clients {
            // What lay in the hands of a server that was killed.
            assert!(counts.lost.len() <= IN_HAND + all_counts.overruns, "{who}: {counts:?}");
        }
        let next = start(&cluster, "nftables", 1, Some(&socket), &[]);
        old.watchdog.wait_output("the successor is gone", SOON);
        next.await_interception();
        end(&mut old);
        await_answers_of_the_node(&cluster, &next);
    });
}
