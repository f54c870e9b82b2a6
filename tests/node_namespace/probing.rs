//! The way of a query on a node whose kube-proxy rewrites the ClusterIP, as `src/node/desired.rs` tells it.

use super::scene::{ADDRESSES, PROBE_MARK, bridge, in_a_namespace, off, on, raw_rules_of, run, runtime, spec};
use nodelocaldns::node::{Backend, Node};
use socket2::{Domain, Protocol, Socket, Type};
use std::io::{Read, Write};
use std::net::{IpAddr, SocketAddr, TcpListener, UdpSocket};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

/// Addresses of the pod that stands for cluster DNS.
const CLUSTER_DNS: [&str; 2] = ["10.244.0.2", "fd00:1::2"];

#[test]
fn probes_reach_the_node_and_queries_do_when_the_interception_is_on_with_nftables() {
    in_a_namespace(|| {
        walk(Backend::Nftables, "nft");
    });
}

#[test]
fn probes_reach_the_node_and_queries_do_when_the_interception_is_on_with_iptables() {
    in_a_namespace(|| {
        walk(Backend::Iptables, "nft");
    });
}

#[test]
fn probes_reach_the_node_and_queries_do_when_the_interception_is_on_with_legacy_iptables() {
    in_a_namespace(|| {
        walk(Backend::Iptables, "legacy");
    });
}

#[test]
fn queries_reach_the_node_only_while_probes_renew_the_lease_of_iptables_rules() {
    in_a_namespace(|| {
        lapse("nft");
    });
}

#[test]
fn queries_reach_the_node_only_while_probes_renew_the_lease_of_legacy_iptables_rules() {
    in_a_namespace(|| {
        lapse("legacy");
    });
}

/// As when everything is killed at once, and when the rules and with them the lease are flushed.
fn lapse(kind: &str) {
    kube_proxy(kind);
    // The guard has a lease of its own.
    let remove_guard = || run("nft delete table inet nodelocaldns-guard");
    let list = std::path::Path::new("/proc/self/net/xt_recent/nodelocaldns");
    // Rules that are put in match at once. Nothing but probes keeps them so.
    let lapses = || {
        let noted = std::fs::read_to_string(list).unwrap();
        assert!(noted.contains(&format!("src={} ", ADDRESSES[0])), "{noted}");
        await_everyone("cluster DNS");
    };
    runtime().block_on(async {
        let mut node = Node::open(spec(), Backend::Iptables, Duration::from_secs(60)).await.unwrap();
        node.ensure_link().await.unwrap();
        serve_everywhere();
        node.ensure(&on()).await.unwrap();
        remove_guard();
        lapses();
        let watchdog = Watchdog::start();
        await_everyone("node");
        drop(watchdog);
        await_everyone("cluster DNS");
        assert!(raw_rules_of(kind).iter().any(|rule| rule.contains("--rcheck")), "they are still there");
        for family in ["ip", "ip6"] {
            run(&format!("{family}tables-{kind} -t raw -F"));
        }
        assert!(!list.exists(), "the list goes with the rules");
        // Of no concern to us.
        run(&format!("iptables-{kind} -t raw -A OUTPUT -d 192.0.2.1 -m recent --set --name others --rdest"));
        node.ensure(&on()).await.unwrap();
        remove_guard();
        lapses();
        let watchdog = Watchdog::start();
        await_everyone("node");
        drop(watchdog);
        assert!(node.teardown().await.is_empty());
        let rules = raw_rules_of(kind);
        assert!(matches!(&rules[..], [rule] if rule.contains("others")), "{rules:#?}");
        assert!(!list.exists());
    });
}

/// Waits until every query goes where `wanted` says, and will go on to do so.
fn await_everyone(wanted: &str) {
    for address in ADDRESSES {
        // Over UDP: a connection that is open when the lease begins or ends is cut.
        while ask(&udp(address, None)) != wanted {}
    }
    everyone_gets_unprobed(wanted);
}

/// As [`everyone_gets`] without the probes, which would renew the lease.
fn everyone_gets_unprobed(wanted: &str) {
    for address in ADDRESSES {
        assert_eq!(ask(&udp(address, None)), wanted, "udp {address}");
        assert_eq!(ask_tcp(address, None), wanted, "tcp {address}");
    }
}

/// Sends probes, as the watchdog does, until it is dropped.
struct Watchdog(Arc<AtomicBool>, Option<std::thread::JoinHandle<()>>);

impl Watchdog {
    fn start() -> Self {
        let ends = Arc::new(AtomicBool::new(false));
        let told = ends.clone();
        let probes = std::thread::spawn(move || {
            while !told.load(Ordering::Relaxed) {
                for address in ADDRESSES {
                    assert_eq!(ask(&udp(address, Some(PROBE_MARK))), "node", "udp {address}, a probe");
                }
                std::thread::sleep(Duration::from_millis(20));
            }
        });
        Self(ends, Some(probes))
    }
}

impl Drop for Watchdog {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
        let ended = self.1.take().map(std::thread::JoinHandle::join);
        assert!(std::thread::panicking() || ended.is_some_and(|ended| ended.is_ok()), "a probe went elsewhere");
    }
}

/// Rules of kube-proxy's in iptables of this kind, and a pod that stands for cluster DNS.
fn kube_proxy(kind: &str) {
    bridge("nodelocaldns");
    bridge("pods");
    run("ip address add 10.244.0.2/32 dev pods && ip address add fd00:1::2/128 dev pods nodad");
    for (program, cluster_ip, pod) in [
        (format!("iptables-{kind}"), "10.96.0.10/32", "10.244.0.2:5353"),
        (format!("ip6tables-{kind}"), "fd00::10/128", "[fd00:1::2]:5353"),
    ] {
        // kube-proxy's chains; a firewall that drops what conntrack cannot place, and lets in only what belongs to a
        // connection.
        run(&format!("{program} -t nat -N KUBE-SERVICES && {program} -t nat -N KUBE-SEP-DNS"));
        run(&format!("{program} -t nat -A OUTPUT -j KUBE-SERVICES && {program} -t nat -A PREROUTING -j KUBE-SERVICES"));
        for protocol in ["udp", "tcp"] {
            run(&format!("{program} -t nat -A KUBE-SERVICES -d {cluster_ip} -p {protocol} --dport 53 -j KUBE-SEP-DNS"));
            run(&format!("{program} -t nat -A KUBE-SEP-DNS -p {protocol} -j DNAT --to-destination {pod}"));
        }
        run(&format!(
            "{program} -A INPUT -m conntrack --ctstate INVALID -j DROP && {program} -A OUTPUT -m conntrack --ctstate INVALID -j DROP"
        ));
    }
}

fn serve_everywhere() {
    for (index, address) in ADDRESSES.iter().enumerate() {
        serve(SocketAddr::new(address.parse().unwrap(), 53), "node");
        serve(SocketAddr::new(CLUSTER_DNS[index].parse().unwrap(), 5353), "cluster DNS");
    }
    while !run("ip -6 route get fd00:1::2").starts_with("local") {}
}

fn walk(backend: Backend, kind: &str) {
    kube_proxy(kind);
    runtime().block_on(async {
        let mut node = Node::open(spec(), backend, Duration::from_secs(60)).await.unwrap();
        node.ensure_link().await.unwrap();
        serve_everywhere();
        let watchdog = Watchdog::start();
        everyone_gets("cluster DNS");
        let before = tracked_dns();
        assert!(before > 0, "conntrack is at work here");
        node.ensure(&on()).await.unwrap();
        everyone_gets("node");
        assert_eq!(tracked_dns(), before, "an intercepted query makes no connection:\n{}", connections());
        node.ensure(&off()).await.unwrap();
        everyone_gets("cluster DNS");
        // A connected socket changes sides with the interception, although its port stays the same.
        for address in ADDRESSES {
            let socket = udp(address, None);
            assert_eq!(ask(&socket), "cluster DNS");
            node.ensure(&on()).await.unwrap();
            assert_eq!(ask(&socket), "node");
            node.ensure(&off()).await.unwrap();
            assert_eq!(ask(&socket), "cluster DNS");
        }
        // A reply that the server sends when the interception is off already makes no connection that keeps its client
        // here.
        for address in ADDRESSES {
            node.ensure(&on()).await.unwrap();
            let socket = udp(address, None);
            HOLDS_LATE_REPLIES.store(true, Ordering::SeqCst);
            socket.send(b"late").unwrap();
            node.ensure(&off()).await.unwrap();
            HOLDS_LATE_REPLIES.store(false, Ordering::SeqCst);
            assert_eq!(answer(&socket), "node");
            assert_eq!(ask(&socket), "cluster DNS", "{}", connections());
        }
        drop(watchdog);
        assert!(node.teardown().await.is_empty());
    });
}

/// While set, servers keep back their replies to the query "late".
static HOLDS_LATE_REPLIES: AtomicBool = AtomicBool::new(false);

/// Queries without the mark go where `wanted` says, probes to the node always, over UDP and TCP, IPv4 and IPv6.
fn everyone_gets(wanted: &str) {
    for address in ADDRESSES {
        assert_eq!(ask(&udp(address, None)), wanted, "udp {address}");
        assert_eq!(ask_tcp(address, None), wanted, "tcp {address}");
        assert_eq!(ask(&udp(address, Some(PROBE_MARK))), "node", "udp {address}, a probe");
        assert_eq!(
            ask_tcp(address, Some(PROBE_MARK | 1)),
            "node",
            "tcp {address}, a probe whose mark has other bits too"
        );
    }
}

fn udp(address: &str, mark: Option<u32>) -> UdpSocket {
    connected(address, Type::DGRAM, Protocol::UDP, mark).into()
}

fn ask(socket: &UdpSocket) -> String {
    socket.send(b"who?").unwrap();
    answer(socket)
}

fn answer(socket: &UdpSocket) -> String {
    let mut buffer = [0; 64];
    let length = socket.recv(&mut buffer).unwrap_or_else(|e| panic!("no answer to {socket:?}: {e}\n{}", connections()));
    String::from_utf8_lossy(&buffer[..length]).into_owned()
}

fn ask_tcp(address: &str, mark: Option<u32>) -> String {
    let mut stream: std::net::TcpStream = connected(address, Type::STREAM, Protocol::TCP, mark).into();
    stream.write_all(b"who?").unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).expect("an answer comes");
    answer
}

fn connected(address: &str, kind: Type, protocol: Protocol, mark: Option<u32>) -> Socket {
    let address = SocketAddr::new(address.parse::<IpAddr>().unwrap(), 53);
    let socket = Socket::new(Domain::for_address(address), kind, Some(protocol)).unwrap();
    if let Some(mark) = mark {
        socket.set_mark(mark).unwrap();
    }
    socket.set_read_timeout(Some(Duration::from_secs(5))).unwrap();
    socket.connect_timeout(&address.into(), Duration::from_secs(5)).unwrap();
    socket
}

/// Answers everything with `name`, over UDP and TCP, until the test's process ends.
fn serve(address: SocketAddr, name: &'static str) {
    let udp = UdpSocket::bind(address).unwrap();
    let tcp = TcpListener::bind(address).unwrap();
    std::thread::spawn(move || {
        let mut buffer = [0; 64];
        while let Ok((length, client)) = udp.recv_from(&mut buffer) {
            while &buffer[..length] == b"late" && HOLDS_LATE_REPLIES.load(Ordering::SeqCst) {
                std::thread::sleep(Duration::from_millis(1));
            }
            let _the_client_may_be_gone = udp.send_to(name.as_bytes(), client);
        }
    });
    std::thread::spawn(move || {
        for stream in tcp.incoming() {
            let _the_client_may_be_gone = stream.and_then(|mut stream| {
                stream.read_exact(&mut [0; 4])?;
                stream.write_all(name.as_bytes())
            });
        }
    });
}

/// Connections that conntrack knows of to port 53.
fn tracked_dns() -> usize {
    connections().lines().filter(|line| line.contains("dport=53 ")).count()
}

fn connections() -> String {
    std::fs::read_to_string("/proc/self/net/nf_conntrack").expect("connections can be listed")
}
