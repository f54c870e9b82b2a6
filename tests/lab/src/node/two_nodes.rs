//! Two nodes with the program on each, pods on each, and KubeDNS's pod on the second.

use super::cell::{Interception, Services, start_agent};
use super::scene::{ADDRESSES, SOON};
use crate::cluster::{Agent, KUBE_DNS, Network, Place, rules, shell};
use crate::guest::case::note;
use crate::load::{CACHED, Load, Plan};
use crate::records::Records;
use crate::support::server::wait_until;
use crate::support::upstream::{Reply, Rule, Upstream, address_rule};
use crate::wire::Answer;
use std::net::SocketAddr;
use std::time::{Duration, Instant};

/// Names with as many addresses as their answers' octets want: in one packet of a pod network with a header of its own,
/// and in several of any.
pub const LONG: [(&str, u8); 2] = [("whole.cluster.local.", 84), ("fragments.cluster.local.", 240)];

/// What KubeDNS says of all other names that it knows.
const ADDRESS: &str = "10.96.0.1";

/// KubeDNS is one of the tests' own here, which takes its time with each answer.
const PLAN: Plan = Plan { rate: 200, addresses: ADDRESSES, fresh_every: None };

/// Before and after what is done while clients ask.
const LEAD: Duration = Duration::from_millis(300);

/// How packets get from a node to the other one's pods.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PodNetwork {
    /// By routes alone, as flannel's host-gw, kube-router and Calico make them.
    Routed,
    /// Within packets of the nodes, as flannel's vxlan makes them: 50 octets of each are the tunnel's.
    Vxlan,
}

/// What a node's addresses and routes are made of.
struct Site {
    host: [&'static str; 2],
    /// The node's end of each pod's link.
    gateway: [&'static str; 2],
    pod: [&'static str; 2],
    /// Of the tunnel.
    tunnel: [&'static str; 2],
    mac: &'static str,
    /// Where its pods are.
    pods: &'static [&'static str],
}

const SITES: [Site; 2] = [
    Site {
        host: ["192.168.9.1", "fd00:9::1"],
        gateway: ["10.244.0.1", "fd00:1::1"],
        pod: ["10.244.0.3", "fd00:1::3"],
        tunnel: ["10.244.0.0", "fd00:1::100"],
        mac: "02:00:00:00:09:01",
        pods: &["10.244.0.0/24", "fd00:1::3/128"],
    },
    Site {
        host: ["192.168.9.2", "fd00:9::2"],
        gateway: ["10.244.2.1", "fd00:1::21"],
        pod: ["10.244.2.3", "fd00:1::23"],
        tunnel: ["10.244.2.0", "fd00:1::120"],
        mac: "02:00:00:00:09:02",
        pods: &["10.244.2.0/24", "fd00:1::2/128", "fd00:1::23/128"],
    },
];

/// A node, and the program on it.
pub struct Node {
    /// KubeDNS's pod is in both nodes'.
    pub network: Network,
    pub agent: Agent,
    interception: Interception,
    services: Services,
}

/// Both. What is in them ends with them.
pub struct TwoNodes {
    pub nodes: [Node; 2],
    _kube_dns: Vec<Upstream>,
}

impl TwoNodes {
    /// Everything in service.
    pub fn start(pods: PodNetwork, interception: Interception, services: Services) -> Self {
        let (hosts, kube_dns) = ([Place::here(), Place::new()], Place::new());
        hosts[0].visit(|| shell(&format!("ip link add uplink type veth peer name uplink netns {}", hosts[1].path())));
        let mtu = if pods == PodNetwork::Vxlan { 1450 } else { 1500 };
        let places = [0, 1].map(|index| {
            let (here, there) = (&SITES[index], &SITES[1 - index]);
            hosts[index].visit(|| {
                here.raise();
                match pods {
                    PodNetwork::Routed => here.route(there),
                    PodNetwork::Vxlan => here.tunnel(there, mtu),
                }
                services.install(interception);
            });
            let pod = Place::new();
            attach(&pod, &hosts[index], "pod", here.pod, here.gateway, mtu);
            pod
        });
        attach(&kube_dns, &hosts[1], "kubedns", KUBE_DNS, SITES[1].gateway, mtu);
        let served = kube_dns.visit(serve);
        let mut all = hosts.into_iter().zip(places).map(|(host, pod)| {
            let network = Network { host, pod, kube_dns: kube_dns.clone() };
            let agent = network.host.visit(|| start_agent(interception, services));
            Node { network, agent, interception, services }
        });
        let nodes = [all.next(), all.next()].map(|node| node.expect("there are two"));
        let two = Self { nodes, _kube_dns: served };
        two.nodes.iter().for_each(Node::await_service);
        two
    }

    /// What becomes of queries of the first node's clients, and of the second's, before, while and after something is
    /// done. The user sees the figures.
    pub fn ask_during(&mut self, what: &str, work: impl FnOnce(&mut Self, Instant)) -> [Records; 2] {
        let overruns = self.nodes.each_ref().map(|node| node.network.overruns());
        let began = Instant::now();
        let loads = self.nodes.each_ref().map(|node| Load::start(&node.network, PLAN));
        std::thread::sleep(LEAD);
        work(self, began);
        std::thread::sleep(LEAD);
        let mut records = loads.map(Load::finish);
        for ((records, node), before) in records.iter_mut().zip(&self.nodes).zip(overruns) {
            records.overruns = node.network.overruns() - before;
        }
        let [first, second] = &records;
        note(format_args!("{what}: lost {first} at the longest; on the other node {second}"));
        records
    }
}

impl Node {
    /// Starts the program again, after its end.
    pub fn start_again(&mut self) {
        self.agent = self.network.host.visit(|| start_agent(self.interception, self.services));
        self.await_service();
    }

    /// Whether its cache answered all that is the program's, and KubeDNS all that is not.
    pub fn is_served(&self, records: &Records) -> bool {
        let ours = records.of(|record| self.services.ours().contains(&record.kind.address));
        ours.from(Answer::Node) == ours.asked()
            && records.from(Answer::Node) + records.from(Answer::KubeDns) == records.asked()
    }

    /// Waits until all answers come from where they should.
    pub fn await_service(&self) {
        self.network.host.visit(|| self.agent.await_interception());
        self.await_answers("not in service", |records| self.is_served(records));
    }

    /// Waits until KubeDNS answers every client of the node.
    pub fn await_kube_dns(&self) {
        self.await_answers("KubeDNS does not answer", |records| records.from(Answer::KubeDns) == records.asked());
    }

    fn await_answers(&self, otherwise: &str, are_good: impl Fn(&Records) -> bool) {
        let mut last = Records::new(Vec::new());
        let are_there = wait_until(SOON, || {
            let load = Load::start(&self.network, PLAN);
            std::thread::sleep(LEAD);
            last = load.finish();
            are_good(&last)
        });
        let rules = self.network.host.visit(rules);
        assert!(are_there, "{otherwise}:\n{}\n{}\n{rules}", last.detail(), self.agent.watchdog.tail(30));
    }
}

impl Site {
    /// The node's own network, on the calling thread's.
    fn raise(&self) {
        let [ipv4, ipv6] = self.host;
        shell(&format!(
            "ip link set lo up
            for family in ipv4 ipv6; do echo 1 >/proc/sys/net/$family/conf/all/forwarding; done
            for which in all default; do echo 0 >/proc/sys/net/ipv6/conf/$which/accept_dad; done
            ip address add {ipv4}/24 dev uplink
            ip address add {ipv6}/64 dev uplink nodad
            ip link set uplink up
            ip route add default via 192.168.9.254 dev uplink
            ip -6 route add default via fd00:9::fe dev uplink"
        ));
    }

    /// Leads to the pods of the other node by routes.
    fn route(&self, there: &Self) {
        for pods in there.pods {
            let via = there.host[usize::from(pods.contains(':'))];
            shell(&format!("ip route add {pods} via {via} dev uplink"));
        }
    }

    /// Leads to the pods of the other node through a tunnel of which each end knows the other.
    fn tunnel(&self, there: &Self, mtu: u32) {
        let [ipv4, ipv6] = self.tunnel;
        shell(&format!(
            "ip link add flannel.1 address {mac} mtu {mtu} type vxlan id 1 local {local} dev uplink dstport 8472 \
                nolearning
            ip address add {ipv4}/32 dev flannel.1
            ip address add {ipv6}/128 dev flannel.1 nodad
            ip link set flannel.1 up
            ip -6 route add {peer}/128 dev flannel.1
            bridge fdb append {peer_mac} dev flannel.1 dst {remote}",
            mac = self.mac,
            local = self.host[0],
            peer = there.tunnel[1],
            peer_mac = there.mac,
            remote = there.host[0],
        ));
        for via in there.tunnel {
            shell(&format!("ip neighbour add {via} lladdr {} dev flannel.1 nud permanent", there.mac));
        }
        for pods in there.pods {
            let via = there.tunnel[usize::from(pods.contains(':'))];
            shell(&format!("ip route add {pods} via {via} dev flannel.1 onlink"));
        }
    }
}

/// Connects a pod's network with its node's.
fn attach(pod: &Place, node: &Place, name: &str, [ipv4, ipv6]: [&str; 2], gateway: [&str; 2], mtu: u32) {
    let [gateway_ipv4, gateway_ipv6] = gateway;
    pod.visit(|| {
        shell(&format!(
            "ip link set lo up
            for which in all default; do echo 0 >/proc/sys/net/ipv6/conf/$which/accept_dad; done
            ip link add eth0 mtu {mtu} type veth peer name veth-{name} mtu {mtu} netns {}
            ip link set eth0 up
            ip address add {ipv4}/32 dev eth0
            ip address add {ipv6}/128 dev eth0 nodad
            ip route add {gateway_ipv4} dev eth0
            ip -6 route add {gateway_ipv6} dev eth0
            ip route add default via {gateway_ipv4} dev eth0
            ip -6 route add default via {gateway_ipv6} dev eth0",
            node.path()
        ))
    });
    node.visit(|| {
        shell(&format!(
            "ip address add {gateway_ipv4}/32 dev veth-{name}
            ip address add {gateway_ipv6}/128 dev veth-{name} nodad
            ip link set veth-{name} up
            ip route add {ipv4} dev veth-{name}
            ip -6 route add {ipv6} dev veth-{name}"
        ))
    });
}

/// KubeDNS, on the calling thread's network. It says AA, as the `kubernetes` directive of CoreDNS does.
fn serve() -> Vec<Upstream> {
    let mut known: Vec<Rule> = CACHED.iter().map(|name| address_rule(&format!("{name}."), 3600, ADDRESS)).collect();
    for (name, count) in LONG {
        let answer = (0..count).map(|host| format!("{name} 3600 IN A 10.0.0.{host}")).collect();
        known.push(Rule { reply: Reply { answer, ..Reply::default() }, ..address_rule(name, 3600, ADDRESS) });
    }
    known.iter_mut().for_each(|rule| rule.reply.flags = vec!["AA".to_owned()]);
    let served = KUBE_DNS.map(|address| SocketAddr::new(address.parse().expect("an address"), 53));
    served.map(|address| Upstream::serving(address, &known, None).expect("the pod has the address")).into()
}
