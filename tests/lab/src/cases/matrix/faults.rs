//! What is done to a cell, as in the table of docs/faults.md.

use crate::cluster::{
    LOCALS, METRICS, Transport, ask_on, connected, is_alive, kill, leaves_untracked, rules, shell, signal,
};
use crate::node::{Cell, Interception, SOON};
use crate::records::{Records, Who};
use crate::support::client::metric;
use crate::support::server::wait_until;
use crate::wire::Answer;
use hickory_proto::op::ResponseCode;
use std::collections::BTreeSet;
use std::time::Duration;

/// Each in turn: the cell serves before it, and after it again.
pub const ALL: &[fn(&mut Cell)] = &[
    server_killed,
    server_hung,
    server_answers_wrongly,
    watchdog_hung,
    kube_dns_dead,
    link_deleted,
    watchdog_killed,
    both_killed,
    terminated,
    flushed,
];

/// Queries that a server which ends, or hangs, may have had in hand: a batch that it has read, and on a busy machine
/// what waited in its sockets. Next to none at the rate of the cases where it gets to run.
const IN_HAND: usize = 64;

/// One connection may be open of each kind: from pod and host network to each address.
const KINDS_OF_CONNECTIONS: usize = 8;

/// How long rules of iptables bring the host network's queries to the node after the watchdog's last probe.
const LEASE: Duration = Duration::from_secs(1);

/// How long a dead KubeDNS is watched: longer than its connections and health checks take to be given up.
const OUTAGE: Duration = Duration::from_secs(3);

/// For an answer that says that none can be had.
const PATIENCE: Duration = Duration::from_secs(10);

/// Answers of the node's own sockets are changed on their way out, so that octets 2 and 3 say REFUSED: over UDP they
/// begin the payload, over TCP they come after a header of 32 octets and the length. KubeDNS's pass other hooks.
const WRONG: &str = "table inet faulty {
    chain out {
        type filter hook output priority 0;
        udp sport 53 @th,80,16 set 0x8185
        tcp sport 53 @th,288,16 set 0x8185
    }
}";

fn server_killed(cell: &mut Cell) {
    let records = cell.ask_during("server SIGKILL", |cell| {
        let server = cell.agent.server();
        kill(server);
        assert!(wait_until(SOON, || !is_alive(server) && is_replaced(cell, server)), "no other server comes");
    });
    assert_lost_within(cell, &records, IN_HAND, "more is lost than the server had in hand");
    cell.await_service();
}

fn server_hung(cell: &mut Cell) {
    let records = cell.ask_during("server SIGSTOP", |cell| {
        let server = cell.agent.server();
        signal(server, libc::SIGSTOP);
        assert!(wait_until(SOON, || !is_alive(server) && is_replaced(cell, server)), "no other server comes");
    });
    assert_lost_within(cell, &records, IN_HAND, "more is lost than the server had in hand");
    cell.await_service();
}

/// The server is found out, and KubeDNS answers at all that was its.
fn server_answers_wrongly(cell: &mut Cell) {
    let mut found = Duration::ZERO;
    let records = cell.ask_during("server answers wrongly", |cell| {
        shell(&format!("nft '{WRONG}'"));
        let is_withdrawn = |address: &&str| {
            metric(METRICS, &format!("nodelocaldns_watchdog_intercepted{{address=\"{address}\"}}")) == Some(0.0)
        };
        assert!(wait_until(SOON, || cell.services.ours().iter().all(is_withdrawn)), "it is not found");
        found = cell.asked_for();
        std::thread::sleep(Duration::from_millis(500));
    });
    // What was asked a moment before may have been answered wrongly yet.
    let settled = records.after(found + Duration::from_millis(100));
    if settled.from(Answer::KubeDns) != settled.asked() {
        cell.fail(&records, &format!("KubeDNS does not answer from {found:?} on"));
    }
    shell("nft delete table inet faulty");
    cell.await_service();
}

/// The server serves on. iptables' rules end after a while; they are back with the watchdog.
fn watchdog_hung(cell: &mut Cell) {
    let server = cell.agent.server();
    let records = cell.ask_during("watchdog SIGSTOP, then SIGCONT", |cell| {
        cell.agent.watchdog.signal(libc::SIGSTOP);
        std::thread::sleep(LEASE + Duration::from_millis(500));
        cell.agent.watchdog.signal(libc::SIGCONT);
        std::thread::sleep(Duration::from_millis(500));
    });
    match cell.interception {
        Interception::Nftables => assert_lost_within(cell, &records, 0, "something is lost"),
        _ => assert_few_connections_cut(cell, &records),
    }
    assert_eq!(cell.agent.server(), server, "it is replaced:\n{}", cell.agent.watchdog.tail(20));
    cell.await_service();
}

/// What the cache has it answers; for all else its clients are told that there is no answer, until there is one.
fn kube_dns_dead(cell: &mut Cell) {
    let records = cell.ask_during("KubeDNS dead", |cell| {
        cell.kube_dns.set_dead(true);
        std::thread::sleep(OUTAGE);
        assert_eq!(ask_fresh(cell, "during"), Some(ResponseCode::ServFail), "a name that no cache has");
        cell.kube_dns.set_dead(false);
    });
    // A ClusterIP that is IPVS's is KubeDNS's alone.
    let ours = records.of(|record| cell.is_ours(record));
    assert_lost_within(cell, &ours, 0, "a name is lost that the cache has");
    cell.await_service();
    assert_eq!(ask_fresh(cell, "after"), Some(ResponseCode::NoError), "once KubeDNS is back");
}

/// What a pod is told of a name that nobody has asked for.
fn ask_fresh(cell: &Cell, when: &str) -> Option<ResponseCode> {
    let socket = cell.network.pod.visit(|| connected(LOCALS[0]));
    let answer = ask_on(&socket, &format!("fresh.{when}.example."), PATIENCE);
    answer.map(|answer| answer.metadata.response_code)
}

/// Whether the watchdog has another server.
fn is_replaced(cell: &Cell, server: i32) -> bool {
    let pid = cell.agent.watchdog.pid();
    crate::support::processes::server(pid).is_some_and(|now| now != server)
}

fn link_deleted(cell: &mut Cell) {
    let ours: BTreeSet<String> = cell.services.ours().iter().map(|&address| address.to_owned()).collect();
    let (mut lost_from, mut lost_until) = (Duration::ZERO, Duration::ZERO);
    let records = cell.ask_during("link deleted", |cell| {
        lost_from = cell.asked_for();
        shell("ip link del nodelocaldns");
        let is_there = || shell("ip -oneline address show").contains("nodelocaldns");
        assert!(wait_until(SOON, || is_there() && crate::cluster::addresses() == ours), "the link is not made again");
        lost_until = cell.asked_for();
    });
    // What comes in between.
    let others = records.of(|record| record.sent < lost_from || record.sent > lost_until);
    assert_lost_within(cell, &others, 0, "something is lost before the link is deleted or after it is there again");
    cell.await_service();
}

fn watchdog_killed(cell: &mut Cell) {
    ended(cell, "watchdog SIGKILL", |cell| {
        cell.agent.watchdog.signal(libc::SIGKILL);
    });
}

fn both_killed(cell: &mut Cell) {
    ended(cell, "both SIGKILL at once", |cell| {
        let server = cell.agent.server();
        cell.agent.watchdog.signal(libc::SIGKILL);
        kill(server);
    });
}

/// The program ends and takes nothing down itself.
fn ended(cell: &mut Cell, what: &str, end: impl FnOnce(&mut Cell)) {
    let (mut harmed, mut gone) = (Duration::ZERO, Duration::ZERO);
    let records = cell.ask_during(what, |cell| {
        let server = cell.agent.server();
        harmed = cell.asked_for();
        end(cell);
        cell.agent.watchdog.wait_exit(SOON).expect("a killed process ends");
        assert!(wait_until(SOON, || !is_alive(server)), "the orphaned server goes on");
        gone = cell.asked_for();
        std::thread::sleep(LEASE + Duration::from_millis(500));
    });
    let leased = records.after(gone + LEASE);
    if leased.from(Answer::KubeDns) != leased.asked() {
        cell.fail(&records, "KubeDNS does not answer everybody when the lease is over");
    }
    // Rules of nftables are removed by the kernel. Those of iptables stay; they match pods' packets only while a socket
    // is there to take them, and the host network's until their lease is over.
    let served = match cell.interception {
        Interception::Nftables => {
            assert!(!leaves_untracked(), "{}", rules());
            records
        }
        _ => records.of(|record| record.kind.who == Who::Pod || !cell.is_ours(record)),
    };
    // What comes in meanwhile waits in sockets that nobody reads any longer.
    let before = served.of(|record| record.sent < harmed);
    assert_lost_within(cell, &before, IN_HAND, "more is lost than the server had in hand");
    let after = served.after(gone);
    if after.from(Answer::KubeDns) != after.asked() {
        cell.fail(&served, "KubeDNS does not answer from the end on");
    }
    cell.await_kube_dns();
    cell.start_again();
}

fn terminated(cell: &mut Cell) {
    let records = cell.ask_during("SIGTERM", |cell| {
        cell.agent.watchdog.signal(libc::SIGTERM);
        let status = cell.agent.watchdog.wait_exit(SOON).expect("it ends");
        assert!(status.success(), "{status}\n{}", cell.agent.watchdog.tail(30));
    });
    assert_few_connections_cut(cell, &records);
    assert!(!leaves_untracked(), "{}", rules());
    cell.await_kube_dns();
    cell.start_again();
}

/// Where that takes away kube-proxy's rules too, only what is the program's is looked at.
fn flushed(cell: &mut Cell) {
    let records = cell.ask_during("rules flushed", |cell| {
        cell.interception.flush();
        assert!(wait_until(SOON, leaves_untracked), "the rules do not come back:\n{}", rules());
    });
    let ours = records.of(|record| cell.is_ours(record));
    match cell.interception {
        Interception::Nftables => assert_lost_within(cell, &ours, 0, "something is lost"),
        // kube-proxy picks up a connection that is open when the rules go, and loses one that is open when they are
        // back.
        _ => assert_few_connections_cut(cell, &ours),
    }
    let is_served = |cell: &Cell| {
        let records = cell.ask();
        let ours = records.of(|record| cell.is_ours(record));
        ours.from(Answer::Node) == ours.asked()
    };
    assert!(wait_until(SOON, || is_served(cell)), "not in service:\n{}", rules());
}

fn assert_lost_within(cell: &Cell, records: &Records, allowed: usize, otherwise: &str) {
    if records.lost_by_us() > allowed {
        cell.fail(records, otherwise);
    }
}

/// Nothing over UDP; over TCP what was open when rules changed.
fn assert_few_connections_cut(cell: &Cell, records: &Records) {
    let udp = records.of(|record| record.kind.transport == Transport::Udp);
    assert_lost_within(cell, &udp, 0, "something is lost over UDP");
    assert_lost_within(cell, records, 2 * KINDS_OF_CONNECTIONS, "more connections are cut than were open");
}
