//! The matrix: each way of intercepting beside each way of making Services. In every cell a pod and a program on the
//! host network ask addresses of both families over UDP and TCP, in health and through the faults of docs/faults.md.

use crate::case::{CASE, Case, Kernel};
use crate::cluster::{Transport, is_alive, kill, leaves_untracked, rules, shell, signal, tracked_dns};
use crate::node::{ADDRESSES, Cell, Interception, SOON, Services};
use crate::records::{Record, Records, Who};
use crate::support::server::wait_until;
use crate::wire::Answer;
use std::collections::BTreeSet;
use std::time::Duration;

/// The family's.
pub const CASES: &[Case] = &[
    cell("matrix/nftables_beside_iptables", || run(Interception::Nftables, Services::Iptables)),
    cell("matrix/nftables_beside_nftables", || run(Interception::Nftables, Services::Nftables)),
    cell("matrix/nftables_beside_ipvs", || run(Interception::Nftables, Services::Ipvs)),
    cell("matrix/iptables_nft_beside_iptables", || run(Interception::IptablesNft, Services::Iptables)),
    cell("matrix/iptables_nft_beside_nftables", || run(Interception::IptablesNft, Services::Nftables)),
    cell("matrix/iptables_nft_beside_ipvs", || run(Interception::IptablesNft, Services::Ipvs)),
    cell("matrix/iptables_legacy_beside_iptables", || run(Interception::IptablesLegacy, Services::Iptables)),
    cell("matrix/iptables_legacy_beside_nftables", || run(Interception::IptablesLegacy, Services::Nftables)),
    cell("matrix/iptables_legacy_beside_ipvs", || run(Interception::IptablesLegacy, Services::Ipvs)),
];

/// Queries that a server which ends, or hangs, may have had in hand: a batch that it has read, and on a busy machine
/// what waited in its sockets. Next to none at the rate of the cases where it gets to run.
const IN_HAND: usize = 64;

/// One connection may be open of each kind: from pod and host network to each address.
const KINDS_OF_CONNECTIONS: usize = 8;

const fn cell(name: &'static str, body: fn()) -> Case {
    Case { name, body, kernels: &[Kernel::OldestCloud], limit: Duration::from_secs(300), ..CASE }
}

/// One cell, from its start to the end of the program.
fn run(interception: Interception, services: Services) {
    let mut cell = Cell::start(interception, services);
    in_health(&mut cell);
    server_killed(&mut cell);
    server_hung(&mut cell);
    link_deleted(&mut cell);
    ended(&mut cell, "watchdog SIGKILL", |cell| {
        cell.agent.watchdog.signal(libc::SIGKILL);
    });
    ended(&mut cell, "both SIGKILL at once", |cell| {
        let server = cell.agent.server();
        cell.agent.watchdog.signal(libc::SIGKILL);
        kill(server);
    });
    terminated(&mut cell);
    flushed(&mut cell);
}

/// The node answers at every address that is the program's, and conntrack knows of none of it.
fn in_health(cell: &mut Cell) {
    let before = tracked_to(cell.services.ours());
    let records = cell.ask_during("in health", |_| std::thread::sleep(Duration::from_millis(700)));
    let is_of = |who, address: &'static str, transport| {
        move |record: &Record| {
            (record.kind.who, record.kind.address, record.kind.transport) == (who, address, transport)
        }
    };
    for who in [Who::Pod, Who::HostNetwork] {
        for &address in ADDRESSES {
            for transport in [Transport::Udp, Transport::Tcp] {
                let asked = records.of(is_of(who, address, transport)).asked();
                assert!(asked > 0, "{who:?} asks {address} over {transport:?}\n{}", records.detail());
            }
        }
    }
    if !cell.is_served(&records) {
        cell.fail(&records, "an answer comes from elsewhere");
    }
    let after = tracked_to(cell.services.ours());
    let tracked: Vec<&String> = after.difference(&before).collect();
    assert!(tracked.is_empty(), "tracked: {tracked:#?}\n{}", rules());
}

/// What conntrack knows of queries to these addresses.
fn tracked_to(addresses: &[&str]) -> BTreeSet<String> {
    // The kernel writes every digit of an address of IPv6.
    let written = addresses.iter().map(|address| match address.parse::<std::net::Ipv6Addr>() {
        Ok(address) => address.segments().map(|segment| format!("{segment:04x}")).join(":"),
        Err(_) => (*address).to_owned(),
    });
    let destinations: Vec<String> = written.map(|address| format!("dst={address}")).collect();
    let is_one = |entry: &String| {
        entry
            .split(' ')
            .find(|word| word.starts_with("dst="))
            .is_some_and(|word| destinations.iter().any(|to| to == word))
    };
    tracked_dns().into_iter().filter(is_one).collect()
}

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
        std::thread::sleep(Duration::from_millis(500));
    });
    // Rules of nftables are removed by the kernel. Those of iptables stay; they match pods' packets only while a socket
    // is there to take them, and the host network's until the table that guards them keeps it from them.
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
