//! The whole program on a node with pods, KubeDNS and kube-proxy's rules: who answers whom, in health and when a
//! process is killed.
//!
//! Each test runs itself again in a user and network namespace (`unshare`), so it needs no root, and leaves nothing
//! when it ends. To look inside one, put a `sleep` before the assertion and `nsenter --target PID --user --net
//! --preserve-credentials`.

mod alerts;
mod cluster;
mod doctor;
mod eaten;
mod fallback;
mod fragments;
mod load;
mod part;
mod steady;
mod upgrade;

#[path = "../support/mod.rs"]
mod support;

use cluster::{
    Agent, CLUSTER_IPS, Cluster, FRESH, LOCAL, LOCALS, METRICS, NAME, SOON, accept_rules, addresses, ask_on,
    assert_address, connected, drop_untracked_on_lo, in_a_namespace, kill, leaves_untracked, rules, shell, signal,
    tracked_dns,
};
use load::{Load, Ports};
use std::net::UdpSocket;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::time::{Duration, Instant};
use steady::{IN_HAND, Steady};
use support::client::metric;
use support::server::{scratch, wait_until};
use support::tools::{run, write};

/// Every address that the program serves.
const SERVED: [&str; 4] = [LOCALS[0], LOCALS[1], CLUSTER_IPS[0], CLUSTER_IPS[1]];
/// For each address: queries in, replies out, and both through `lo` the other way round, over UDP and TCP; the health
/// port's four.
const ACCEPT_RULES: usize = SERVED.len() * (4 * 2 + 4);

#[test]
fn answers_come_from_the_node_and_no_connection_is_tracked_with_nftables() {
    in_a_namespace("answers_come_from_the_node_and_no_connection_is_tracked_with_nftables", || {
        answers_come_from_the_node("nftables")
    });
}

#[test]
fn answers_come_from_the_node_and_no_connection_is_tracked_with_iptables() {
    in_a_namespace("answers_come_from_the_node_and_no_connection_is_tracked_with_iptables", || {
        answers_come_from_the_node("iptables")
    });
}

fn answers_come_from_the_node(backend: &str) {
    let cluster = Cluster::new();
    let asked = cluster.everyone_asks(&CLUSTER_IPS, NAME);
    assert_eq!(cluster.kube_dns_count(NAME) as usize, asked, "without the program KubeDNS answers everyone");
    assert!(tracked_dns().len() >= asked, "and conntrack knows of it: {:#?}", tracked_dns());

    let agent = cluster.start(backend, &[]);
    agent.await_interception();
    await_answers_of_the_node(&cluster, &agent);
}

/// Waits until everybody gets cached answers without KubeDNS being asked, and no connection is tracked meanwhile. On a
/// busy machine the watchdog may take the interception back for a while.
fn await_answers_of_the_node(cluster: &Cluster, agent: &Agent) {
    let mut last = String::new();
    let is_here = || {
        cluster.kube_dns_count(NAME);
        let before = tracked_dns();
        cluster.everyone_asks(&SERVED, NAME);
        let (count, after) = (cluster.kube_dns_count(NAME), tracked_dns());
        let new: Vec<&String> = after.difference(&before).collect();
        last = format!("KubeDNS was asked {count} times; new connections: {new:#?}");
        count == 0 && new.is_empty()
    };
    assert!(wait_until(SOON, is_here), "{last}\n{}", agent.watchdog.tail(20));
}

#[test]
fn a_firewall_that_lets_in_only_tracked_connections_even_on_lo_lets_ours_pass_with_nftables() {
    in_a_namespace("a_firewall_that_lets_in_only_tracked_connections_even_on_lo_lets_ours_pass_with_nftables", || {
        strict_firewall("nftables")
    });
}

#[test]
fn a_firewall_that_lets_in_only_tracked_connections_even_on_lo_lets_ours_pass_with_iptables() {
    in_a_namespace("a_firewall_that_lets_in_only_tracked_connections_even_on_lo_lets_ours_pass_with_iptables", || {
        strict_firewall("iptables")
    });
}

fn strict_firewall(backend: &str) {
    let cluster = Cluster::new();
    drop_untracked_on_lo();
    let agent = cluster.start(backend, &[]);
    agent.await_interception();
    await_answers_of_the_node(&cluster, &agent);
    let status =
        || minreq::get(format!("http://{LOCAL}:8080/health")).with_timeout(5).send().map(|answer| answer.status_code);
    assert!(wait_until(SOON, || status().is_ok_and(|status| status == 200)), "kubelet: {:?}\n{}", status(), rules());
    // Nobody else is let in by that: what comes from another link with our address as its source.
    let way = shell("iptables-nft -S; ip6tables-nft -S");
    let from_us = way.lines().filter(|line| line.contains("INPUT") && line.contains("--sport"));
    assert!(from_us.clone().count() > 0 && from_us.clone().all(|line| line.contains("-i lo")), "{way}");
}

#[test]
fn after_the_server_is_killed_the_node_answers_again_with_nftables() {
    in_a_namespace("after_the_server_is_killed_the_node_answers_again_with_nftables", || server_is_killed("nftables"));
}

#[test]
fn after_the_server_is_killed_the_node_answers_again_with_iptables() {
    in_a_namespace("after_the_server_is_killed_the_node_answers_again_with_iptables", || server_is_killed("iptables"));
}

fn server_is_killed(backend: &str) {
    let cluster = Cluster::new();
    let agent = cluster.start(backend, &[]);
    agent.await_interception();
    let clients = connected_clients(&cluster, &CLUSTER_IPS);
    let before = agent.server();
    // So that it has read none of the queries, which wait in its sockets for the next one.
    stop(before);
    std::thread::scope(|scope| {
        for ((who, client), name) in clients.iter().zip(FRESH) {
            scope.spawn(move || assert_address(ask_on(client, name, SOON).as_ref(), who));
        }
        std::thread::sleep(Duration::from_millis(50));
        kill(before);
    });
    assert_ne!(agent.server(), before);
    await_answers_of_the_node(&cluster, &agent);
}

/// `-upstreamsvc` is kube-dns by default, whose address is intercepted where kube-proxy does not use IPVS.
#[test]
fn cluster_names_are_answered_where_the_upstream_service_is_the_intercepted_one_with_nftables() {
    in_a_namespace(
        "cluster_names_are_answered_where_the_upstream_service_is_the_intercepted_one_with_nftables",
        || upstream_is_intercepted("nftables"),
    );
}

#[test]
fn cluster_names_are_answered_where_the_upstream_service_is_the_intercepted_one_with_iptables() {
    in_a_namespace(
        "cluster_names_are_answered_where_the_upstream_service_is_the_intercepted_one_with_iptables",
        || upstream_is_intercepted("iptables"),
    );
}

fn upstream_is_intercepted(backend: &str) {
    let cluster = Cluster::new();
    let agent = cluster.start(backend, &["-upstreamsvc", "kube-dns"]);
    let is_on = |address: &str| {
        metric(agent.metrics, &format!("nodelocaldns_watchdog_intercepted{{address=\"{address}\"}}")) == Some(1.0)
    };
    let others = [LOCALS[0], LOCALS[1], CLUSTER_IPS[1]];
    assert!(wait_until(SOON, || others.iter().all(|other| is_on(other))), "{}", agent.watchdog.tail(20));
    for name in FRESH {
        cluster.everyone_asks(&SERVED, name);
    }
    assert!(leaves_untracked(), "the other addresses are intercepted:\n{}", rules());
    for (addresses, is_here) in [(&CLUSTER_IPS[..1], false), (&others, true)] {
        cluster.everyone_asks(addresses, NAME);
        cluster.kube_dns_count(NAME);
        cluster.everyone_asks(addresses, NAME);
        assert_eq!(cluster.kube_dns_count(NAME) == 0, is_here, "{addresses:?}\n{}", agent.watchdog.tail(20));
    }
    assert!(!is_on(CLUSTER_IPS[0]), "nor does it say so of itself");
    agent.watchdog.wait_output("queries for 10.96.0.10 are not intercepted", SOON);
    assert!(!agent.watchdog.output().contains("come back to us"), "{}", agent.watchdog.tail(20));
}

/// What holds the rules is chosen anew at each try.
#[test]
fn a_choice_is_told_once_however_often_it_cannot_be_set_up() {
    in_a_namespace("a_choice_is_told_once_however_often_it_cannot_be_set_up", || {
        let cluster = Cluster::new();
        let refusing = scratch();
        for name in ["iptables-nft-restore", "ip6tables-nft-restore"] {
            let path = write(refusing.path(), name, "#!/bin/sh\necho 'not now' >&2\nexit 1\n");
            std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o755)).expect("the file is ours");
        }
        let mut command = cluster.program();
        command.env("PATH", format!("{}:{}", refusing.path().display(), std::env::var("PATH").expect("there is one")));
        let agent = cluster.start_as(command, "iptables", METRICS, &[]);
        let failures = || metric(agent.metrics, r#"coredns_nodecache_setup_errors_total{errortype="iptables"}"#);
        let has_tried = wait_until(SOON, || failures().is_some_and(|count| count >= 3.0));
        let said = agent.watchdog.output();
        assert!(has_tried, "{:?} failures:\n{said}", failures());
        assert_eq!(said.matches("interception: iptables, as asked for").count(), 1, "{said}");
    });
}

/// Stops a process with SIGSTOP, and waits until each of its threads has.
fn stop(pid: i32) {
    signal(pid, libc::SIGSTOP);
    let is_stopped = |thread: std::io::Result<std::fs::DirEntry>| {
        let stat = thread.and_then(|thread| std::fs::read_to_string(thread.path().join("stat")));
        stat.is_ok_and(|stat| stat.rsplit(") ").next().is_some_and(|rest| rest.starts_with('T')))
    };
    let are_stopped =
        || std::fs::read_dir(format!("/proc/{pid}/task")).is_ok_and(|mut threads| threads.all(is_stopped));
    assert!(wait_until(SOON, are_stopped), "it runs on");
}

/// A socket of each client for each of `addresses`, on which the node has answered.
fn connected_clients(cluster: &Cluster, addresses: &[&str]) -> Vec<(String, UdpSocket)> {
    let mut clients = Vec::new();
    for (who, place) in cluster.clients() {
        for address in addresses {
            let socket = place.visit(|| connected(address));
            assert_address(ask_on(&socket, NAME, SOON).as_ref(), who);
            clients.push((format!("{who} to {address}"), socket));
        }
    }
    clients
}

#[test]
fn from_the_next_packet_after_the_watchdog_is_killed_kube_dns_answers() {
    in_a_namespace("from_the_next_packet_after_the_watchdog_is_killed_kube_dns_answers", || {
        let cluster = Cluster::new();
        let mut agent = cluster.start("nftables", &[]);
        agent.await_interception();
        let clients = connected_clients(&cluster, &CLUSTER_IPS);
        assert!(cluster.kube_dns_count(NAME) <= 1, "the node answers");
        agent.kill();
        assert!(!leaves_untracked(), "{}", rules());
        for (who, client) in &clients {
            assert_address(ask_on(client, NAME, SOON).as_ref(), who);
            assert_eq!(cluster.kube_dns_count(NAME), 1, "{who}: answered by somebody else");
        }
        cluster.everyone_asks(&CLUSTER_IPS, NAME);
        assert_ne!(cluster.kube_dns_count(NAME), 0);

        let next = cluster.start("nftables", &[]);
        next.await_interception();
        await_answers_of_the_node(&cluster, &next);
    });
}

#[test]
fn hardly_a_query_is_lost_when_the_watchdog_is_killed() {
    in_a_namespace("hardly_a_query_is_lost_when_the_watchdog_is_killed", || lose_hardly_a_query(false));
}

/// As when its container runs out of memory.
#[test]
fn hardly_a_query_is_lost_when_watchdog_and_server_are_killed_at_once() {
    in_a_namespace("hardly_a_query_is_lost_when_watchdog_and_server_are_killed_at_once", || lose_hardly_a_query(true));
}

fn lose_hardly_a_query(is_server_too: bool) {
    let cluster = Cluster::new();
    for address in CLUSTER_IPS {
        let mut agent = cluster.start("nftables", &[]);
        agent.await_interception();
        hardly_any_lost_at_the_end(&cluster, &mut agent, &[address], is_server_too);
    }
}

/// The watchdog is killed, and its server with it by the kernel, or by us too.
fn hardly_any_lost_at_the_end(cluster: &Cluster, agent: &mut Agent, addresses: &[&str], is_server_too: bool) {
    let steady = Steady::start(cluster, addresses);
    std::thread::sleep(Duration::from_millis(150));
    let server = agent.server();
    agent.watchdog.signal(libc::SIGKILL);
    if is_server_too {
        kill(server);
    }
    agent.await_end(server);
    let gone = Instant::now();
    std::thread::sleep(Duration::from_millis(150));
    steady.finish().assert_hardly_any_lost(gone);
}

/// A table that went a little before the server would let a late reply through to conntrack, and that client's port
/// would lead here for good.
#[test]
fn no_client_is_kept_from_cluster_dns_however_often_the_watchdog_is_killed() {
    in_a_namespace("no_client_is_kept_from_cluster_dns_however_often_the_watchdog_is_killed", || {
        const TIMES: usize = 5;
        let cluster = Cluster::new();
        let mut agent = cluster.start("nftables", &[]);
        agent.await_interception();
        await_answers_of_the_node(&cluster, &agent);
        let loads: Vec<_> =
            cluster.clients().into_iter().map(|(who, place)| (who, Load::start(place, Ports::Kept))).collect();
        for _ in 0..TIMES {
            std::thread::sleep(Duration::from_millis(150));
            agent.kill();
            std::thread::sleep(Duration::from_millis(150));
            agent = cluster.start("nftables", &[]);
            agent.await_interception();
        }
        for (who, load) in loads {
            let counts = load.finish();
            eprintln!("{who}: {counts}");
            assert!(counts.lost.len() <= IN_HAND * TIMES && counts.tcp_lost <= TIMES, "{who}: {counts:?}");
        }
    });
}

#[test]
fn the_server_too_holds_the_rules_under_a_number_above_its_sockets() {
    in_a_namespace("the_server_too_holds_the_rules_under_a_number_above_its_sockets", || {
        let cluster = Cluster::new();
        let agent = cluster.start("nftables", &[]);
        agent.await_interception();
        let mut server = agent.server();
        for _ in 0..2 {
            let highest = |protocol| sockets_of(server, protocol).into_iter().max();
            // It gets the sockets one after the other, and what holds the rules a number above them at the end.
            let is_above = || {
                let udp = highest("udp").max(highest("udp6"));
                udp.is_some() && highest("netlink") > udp
            };
            assert!(wait_until(SOON, is_above), "{:?}, {:?}", highest("netlink"), highest("udp"));
            kill(server);
            assert!(wait_until(SOON, || agent.server() != server), "no other server:\n{}", agent.watchdog.tail(20));
            agent.await_interception();
            server = agent.server();
        }
    });
}

/// Descriptors of a process that are sockets of this protocol (a file in /proc/net).
fn sockets_of(pid: i32, protocol: &str) -> Vec<u32> {
    let table = std::fs::read_to_string(format!("/proc/self/net/{protocol}")).expect("the kernel has it");
    let inodes: Vec<String> = table
        .lines()
        .filter_map(|line| line.split_whitespace().nth(9).map(|inode| format!("socket:[{inode}]")))
        .collect();
    let files = std::fs::read_dir(format!("/proc/{pid}/fd")).expect("the process lives");
    let is_one =
        |path: &Path| std::fs::read_link(path).is_ok_and(|link| inodes.iter().any(|inode| link == Path::new(inode)));
    let paths = files.filter_map(|file| Some(file.ok()?.path()));
    paths.filter(|path| is_one(path)).filter_map(|path| path.file_name()?.to_str()?.parse().ok()).collect()
}

#[test]
fn with_iptables_kube_dns_answers_when_the_orphaned_server_has_ended() {
    in_a_namespace("with_iptables_kube_dns_answers_when_the_orphaned_server_has_ended", || {
        let cluster = Cluster::new();
        let mut agent = cluster.start("iptables", &[]);
        agent.await_interception();
        let clients = connected_clients(&cluster, &CLUSTER_IPS);
        agent.kill();
        assert!(leaves_untracked(), "nobody is left to remove the rules");
        cluster.kube_dns_count(NAME);
        // Rules for pods match only while a socket is bound (-m socket), those for programs on the host network for as
        // long as the lease lasts (-m recent).
        for (who, client) in &clients {
            if who.starts_with("pod") {
                assert_address(ask_on(client, NAME, SOON).as_ref(), who);
                assert_eq!(cluster.kube_dns_count(NAME), 1, "{who}");
            } else {
                let is_answered = || ask_on(client, NAME, Duration::from_millis(100)).is_some();
                assert!(wait_until(SOON, is_answered), "{who}: the lease does not end\n{}", rules());
            }
        }
        let next = cluster.start("iptables", &[]);
        next.await_interception();
        await_answers_of_the_node(&cluster, &next);
    });
}

#[test]
fn teardown_by_hand_removes_what_a_killed_agent_has_left() {
    in_a_namespace("teardown_by_hand_removes_what_a_killed_agent_has_left", || {
        let cluster = Cluster::new();
        let mut agent = cluster.start("iptables", &[]);
        agent.await_interception();
        agent.kill();
        assert!(leaves_untracked() && accept_rules() > 0 && !addresses().is_empty());
        assert!(rules().contains("table inet nodelocaldns-fallback"), "{}", rules());
        run(cluster.program().args(["teardown", "-localip", &SERVED.join(",")]));
        assert!(!leaves_untracked(), "{}", rules());
        assert_eq!((accept_rules(), addresses().len()), (0, 0), "{}\n{:?}", rules(), addresses());
        assert!(!rules().contains("nodelocaldns"), "{}", rules());
        cluster.everyone_asks(&CLUSTER_IPS, NAME);
    });
}

#[test]
fn without_a_fallback_sigterm_takes_everything_down_with_nftables() {
    in_a_namespace("without_a_fallback_sigterm_takes_everything_down_with_nftables", || {
        takes_everything_down("nftables")
    });
}

#[test]
fn without_a_fallback_sigterm_takes_everything_down_with_iptables() {
    in_a_namespace("without_a_fallback_sigterm_takes_everything_down_with_iptables", || {
        takes_everything_down("iptables")
    });
}

fn takes_everything_down(backend: &str) {
    let cluster = Cluster::new();
    let mut agent = cluster.start(backend, &["--fallback", "none"]);
    agent.await_interception();
    // On the host network a connected socket's own address is the ClusterIP, which goes with the link.
    let of_pods: Vec<_> =
        connected_clients(&cluster, &CLUSTER_IPS).into_iter().filter(|(who, _)| who.starts_with("pod")).collect();
    assert!(leaves_untracked());
    assert_eq!(accept_rules(), ACCEPT_RULES);
    assert_eq!(addresses(), SERVED.map(str::to_owned).into());
    agent.watchdog.signal(libc::SIGTERM);
    let status =
        agent.watchdog.wait_exit(SOON).unwrap_or_else(|| panic!("it does not end:\n{}", agent.watchdog.tail(20)));
    assert!(status.success(), "{status}:\n{}", agent.watchdog.tail(20));
    assert!(!leaves_untracked(), "{}", rules());
    assert_eq!((accept_rules(), addresses().len()), (0, 0), "{}\n{:?}", rules(), addresses());
    assert!(!rules().contains("nodelocaldns"), "{}", rules());
    cluster.kube_dns_count(NAME);
    for (who, client) in &of_pods {
        assert_address(ask_on(client, NAME, SOON).as_ref(), who);
    }
    let asked = cluster.everyone_asks(&CLUSTER_IPS, NAME) + of_pods.len();
    assert_eq!(cluster.kube_dns_count(NAME) as usize, asked, "KubeDNS answers everyone");
}

#[test]
fn with_skipteardown_the_link_and_what_iptables_holds_stay() {
    in_a_namespace("with_skipteardown_the_link_and_what_iptables_holds_stay", || {
        let cluster = Cluster::new();
        for backend in ["nftables", "iptables"] {
            let mut agent = cluster.start(backend, &["-skipteardown"]);
            agent.await_interception();
            agent.watchdog.signal(libc::SIGTERM);
            let status = agent
                .watchdog
                .wait_exit(SOON)
                .unwrap_or_else(|| panic!("it does not end:\n{}", agent.watchdog.tail(20)));
            assert!(status.success(), "{status}:\n{}", agent.watchdog.tail(20));
            assert_eq!(addresses(), SERVED.map(str::to_owned).into(), "{backend}");
            assert_eq!(accept_rules(), ACCEPT_RULES, "{backend}");
            // The kernel removes its table with the program, whatever the flag says.
            assert_eq!(leaves_untracked(), backend == "iptables", "{backend}:\n{}", rules());
        }
    });
}
