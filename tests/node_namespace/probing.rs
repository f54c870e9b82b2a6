//! The way of a query on a node whose kube-proxy rewrites the ClusterIP, as `src/node/desired.rs` tells it.

use super::scene::{ADDRESSES, PROBE_MARK, bridge, in_a_namespace, off, on, run, runtime, spec};
use nodelocaldns::node::{Backend, Node};
use socket2::{Domain, Protocol, Socket, Type};
use std::io::{Read, Write};
use std::net::{IpAddr, SocketAddr, TcpListener, UdpSocket};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

/// Addresses of the pod that stands for cluster DNS.
const CLUSTER_DNS: [&str; 2] = ["10.244.0.2", "fd00:1::2"];

#[test]
fn probes_reach_the_node_and_queries_do_when_the_interception_is_on_with_nftables() {
    in_a_namespace(|| {
        walk(Backend::Nftables);
    });
}

#[test]
fn probes_reach_the_node_and_queries_do_when_the_interception_is_on_with_iptables() {
    in_a_namespace(|| {
        walk(Backend::Iptables);
    });
}

fn walk(backend: Backend) {
    bridge("nodelocaldns");
    bridge("pods");
    run("ip address add 10.244.0.2/32 dev pods && ip address add fd00:1::2/128 dev pods nodad");
    for (program, cluster_ip, pod) in
        [("iptables-nft", "10.96.0.10/32", "10.244.0.2:5353"), ("ip6tables-nft", "fd00::10/128", "[fd00:1::2]:5353")]
    {
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
    runtime().block_on(async {
        let mut node = Node::open(spec(), backend, Duration::from_secs(60)).await.unwrap();
        node.ensure_link().await.unwrap();
        for (index, address) in ADDRESSES.iter().enumerate() {
            serve(SocketAddr::new(address.parse().unwrap(), 53), "node");
            serve(SocketAddr::new(CLUSTER_DNS[index].parse().unwrap(), 5353), "cluster DNS");
        }
        while !run("ip -6 route get fd00:1::2").starts_with("local") {}
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
