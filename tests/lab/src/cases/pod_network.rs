//! Pods on two nodes and KubeDNS on one of them: the other one's clients are answered by their own node, and across the
//! pod network when that does not answer.

use crate::case::{CASE, Case, Kernel};
use crate::cluster::{connected, kill, leaves_untracked, rules};
use crate::node::{ADDRESSES, Interception, LONG, Node, PodNetwork, SOON, Services, TwoNodes};
use crate::records::{Records, Who};
use crate::support::client::{exchange_tcp, query};
use crate::wire::Answer;
use hickory_proto::op::{Edns, Message};
use std::net::SocketAddr;
use std::time::Duration;

/// The family's.
pub const CASES: &[Case] = &[
    network("pod_network/routed", || run(PodNetwork::Routed, Interception::Nftables, Services::Nftables)),
    network("pod_network/routed_with_iptables_legacy", || {
        run(PodNetwork::Routed, Interception::IptablesLegacy, Services::Iptables)
    }),
    network("pod_network/routed_with_ipvs", || run(PodNetwork::Routed, Interception::Nftables, Services::Ipvs)),
    network("pod_network/vxlan", || run(PodNetwork::Vxlan, Interception::Nftables, Services::Nftables)),
    network("pod_network/vxlan_with_iptables_nft", || {
        run(PodNetwork::Vxlan, Interception::IptablesNft, Services::Iptables)
    }),
    network("pod_network/vxlan_with_ipvs", || run(PodNetwork::Vxlan, Interception::IptablesNft, Services::Ipvs)),
];

/// For an answer.
const PATIENCE: Duration = Duration::from_secs(5);

/// Queries that a server which ends may have had in hand, and that waited in its sockets.
const IN_HAND: usize = 64;

const fn network(name: &'static str, body: fn()) -> Case {
    Case { name, body, kernels: &[Kernel::NewestCloud], limit: Duration::from_secs(300), ..CASE }
}

fn run(pods: PodNetwork, interception: Interception, services: Services) {
    let mut two = TwoNodes::start(pods, interception, services);
    let [first, second] = two.ask_during("in health", |_, _| std::thread::sleep(Duration::from_millis(700)));
    assert_served(&two.nodes[0], &first);
    assert_served(&two.nodes[1], &second);
    long_answers(&two, "in health");

    let mut gone = Duration::ZERO;
    let [first, second] = two.ask_during("both SIGKILL at once", |two, began| {
        let agent = &mut two.nodes[0].agent;
        let server = agent.server();
        agent.watchdog.signal(libc::SIGKILL);
        kill(server);
        agent.watchdog.wait_exit(SOON).expect("a killed process ends");
        gone = began.elapsed();
        std::thread::sleep(Duration::from_millis(500));
    });
    // Rules of iptables stay; they match pods' packets only while a socket is there to take them.
    let served = first.of(|record| interception == Interception::Nftables || record.kind.who == Who::Pod);
    assert_from_kube_dns(&served.after(gone + Duration::from_millis(100)));
    assert!(served.lost_by_us() <= IN_HAND, "{}", served.detail());
    assert_served(&two.nodes[1], &second);
    two.nodes[0].await_kube_dns();
    long_answers(&two, "from KubeDNS");

    two.nodes[0].start_again();
    let [first, second] = two.ask_during("SIGTERM", |two, _| {
        let watchdog = &mut two.nodes[0].agent.watchdog;
        watchdog.signal(libc::SIGTERM);
        let status = watchdog.wait_exit(SOON).expect("it ends");
        assert!(status.success(), "{status}\n{}", watchdog.tail(30));
    });
    assert_eq!(first.lost_by_us(), 0, "{}", first.detail());
    assert_served(&two.nodes[1], &second);
    assert!(!two.nodes[0].network.host.visit(leaves_untracked), "{}", rules());
    two.nodes[0].await_kube_dns();
    long_answers(&two, "after SIGTERM");
    two.nodes[0].start_again();
}

fn assert_served(node: &Node, records: &Records) {
    assert!(node.is_served(records), "an answer comes from elsewhere\n{}", records.detail());
}

fn assert_from_kube_dns(records: &Records) {
    assert_eq!(records.from(Answer::KubeDns), records.asked(), "not all from KubeDNS\n{}", records.detail());
}

/// Clients of both nodes get answers whole that are longer than a packet, or almost: by TCP when a truncated answer
/// tells them so, in one packet, and in several.
fn long_answers(two: &TwoNodes, when: &str) {
    for (node, who) in two.nodes.iter().zip(["the first node", "the node of KubeDNS"]) {
        for (client, place) in [("pod", &node.network.pod), ("host network", &node.network.host)] {
            for &address in ADDRESSES {
                for (name, count) in LONG {
                    for payload in [None, Some(1232), Some(4096)] {
                        let found = place.visit(|| resolve(address, name, payload));
                        let asked = format!("{when}, {client} of {who}, {address}, {name}, EDNS {payload:?}");
                        assert_eq!(found, usize::from(count), "{asked}");
                    }
                }
            }
        }
    }
}

/// How many records a stub resolver gets that takes datagrams of this size.
fn resolve(address: &str, name: &str, payload: Option<u16>) -> usize {
    let mut question = query(name, "A");
    question.edns = payload.map(|payload| {
        let mut edns = Edns::new();
        edns.set_max_payload(payload);
        edns
    });
    let wire = question.to_vec().expect("a query of ours encodes");
    let socket = connected(address);
    socket.send(&wire).expect("the socket can send");
    socket.set_read_timeout(Some(PATIENCE)).expect("a timeout above zero");
    let mut buffer = [0; 8192];
    let Ok(length) = socket.recv(&mut buffer) else { return 0 };
    let parsed = |octets: &[u8]| Message::from_vec(octets).expect("the answer is well-formed");
    let answer = parsed(&buffer[..length]);
    if !answer.metadata.truncation {
        return answer.answers.len();
    }
    let server = SocketAddr::new(address.parse().expect("an address"), 53);
    exchange_tcp(server, &wire, PATIENCE).map_or(0, |octets| parsed(&octets).answers.len())
}
