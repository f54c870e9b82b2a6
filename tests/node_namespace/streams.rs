//! TCP connections that are open when an address is intercepted, or no longer.

use crate::SYNC;
use crate::scene::{in_a_namespace, run, runtime, spec};
use nodelocaldns::node::{Backend, Interception, Node, NodeSpec};
use socket2::{Domain, Protocol, Socket, Type};
use std::io::{Read, Write};
use std::net::{IpAddr, Ipv4Addr, SocketAddr, SocketAddrV4, TcpListener, TcpStream};
use std::time::{Duration, Instant};

const OWN: [Ipv4Addr; 2] = [Ipv4Addr::new(10, 96, 0, 10), Ipv4Addr::new(10, 96, 0, 11)];
const CLIENT: Ipv4Addr = Ipv4Addr::new(192, 0, 2, 1);
const KUBE_DNS: Ipv4Addr = Ipv4Addr::new(192, 0, 2, 2);
const PORT: u16 = 4000;
const SYN: u8 = 0x02;
const PSH: u8 = 0x08;
const ACK: u8 = 0x10;
/// Connections that a set takes.
const SIZE: u16 = 16384;

/// A node with two addresses, of which the first is intercepted, and a client's.
async fn start() -> Node {
    run("ip link set lo up");
    run(&format!("ip address add {CLIENT}/32 dev lo"));
    for address in OWN {
        run(&format!("ip address add {address}/32 dev lo"));
    }
    let spec = NodeSpec { addresses: OWN.map(IpAddr::from).to_vec(), interface: None, ..spec() };
    let mut node = Node::open(spec, Backend::Nftables, SYNC).await.unwrap();
    node.ensure(&Interception::of(&[OWN[0].into()])).await.unwrap();
    node
}

/// A connection of the client, from one port to the first address, and the end of whoever has accepted it.
struct Connection {
    client: TcpStream,
    server: TcpStream,
}

impl Connection {
    fn open(port: u16, accepted_by: &TcpListener) -> Self {
        let socket = Socket::new(Domain::IPV4, Type::STREAM, Some(Protocol::TCP)).unwrap();
        socket.set_reuse_address(true).unwrap();
        socket.bind(&SocketAddr::from((CLIENT, port)).into()).unwrap();
        socket.connect(&SocketAddr::from((OWN[0], 53)).into()).unwrap();
        Self { client: socket.into(), server: accepted_by.accept().unwrap().0 }
    }

    /// Question and answer.
    fn exchange(&mut self) {
        self.client.write_all(b"question").unwrap();
        self.server.read_exact(&mut [0; 8]).unwrap();
        self.server.write_all(b"answer").unwrap();
        self.client.read_exact(&mut [0; 6]).unwrap();
    }
}

#[test]
fn an_open_connection_to_one_address_does_not_make_that_to_another_ours() {
    in_a_namespace(|| {
        runtime().block_on(async {
            let node = start().await;
            // What of the client's packets to the address that is not intercepted is untracked all the same.
            run(&format!(
                "nft 'add table inet look {{ chain out {{ type filter hook output priority 0; \
                 ip daddr {0} tcp dport 53 counter; ip daddr {0} tcp dport 53 ct state untracked counter; }}; }}'",
                OWN[1]
            ));
            let server = TcpListener::bind((OWN[0], 53)).unwrap();
            Connection::open(PORT, &server).exchange();
            // As of a connection that cluster DNS has accepted.
            let raw = raw_socket(CLIENT);
            raw.send_to(&acknowledgement(PORT, 53), &SocketAddrV4::new(OWN[1], 0).into()).unwrap();
            let seen = run("nft list table inet look");
            // The segment is seen, and not as untracked.
            assert!(
                seen.contains("untracked counter packets 0 ") && seen.contains("counter packets 1 "),
                "{seen}\n{}",
                run("nft list table inet nodelocaldns")
            );
            drop(node);
        });
    });
}

/// Its client's next packet comes after the withdrawal, perhaps.
#[test]
fn a_connection_that_has_just_been_accepted_is_ours() {
    in_a_namespace(|| {
        runtime().block_on(async {
            let _node = start().await;
            let server = TcpListener::bind((OWN[0], 53)).unwrap();
            let _connection = Connection::open(PORT, &server);
            let known = run("nft list set inet nodelocaldns streams-ip");
            assert!(known.contains(&format!("{CLIENT} . {PORT} . {}", OWN[0])), "{known}");
        });
    });
}

#[test]
fn where_more_connections_are_open_than_are_remembered_further_ones_are_answered() {
    in_a_namespace(|| {
        runtime().block_on(async {
            let mut node = start().await;
            // Answers to nobody, as of connections that were open once.
            let raw = raw_socket(OWN[0]);
            for port in 10_000..10_000 + SIZE {
                raw.send_to(&acknowledgement(53, port), &SocketAddrV4::new(CLIENT, 0).into()).unwrap();
            }
            let remembered = || run("nft list set inet nodelocaldns streams-ip").matches(" expires ").count();
            let server = TcpListener::bind((OWN[0], 53)).unwrap();
            assert_eq!(remembered(), usize::from(SIZE));
            let mut connection = Connection::open(PORT, &server);
            connection.exchange();
            node.ensure(&Interception::default()).await.unwrap();
            connection.exchange();
            Connection::open(PORT + 1, &server).exchange();
            assert_eq!(remembered(), usize::from(SIZE));
        });
    });
}

/// A node whose first address is KubeDNS' as long as it is not intercepted, and KubeDNS.
async fn start_with_kube_dns() -> (Node, TcpListener) {
    let mut node = start().await;
    node.ensure(&Interception::default()).await.unwrap();
    // As kube-proxy does it. What connection tracking has not seen the beginning of is not rewritten.
    run(&format!(
        "nft 'table ip proxy {{ chain out {{ type nat hook output priority -100; \
         ip daddr {} tcp dport 53 dnat to {KUBE_DNS}; }}; }}'",
        OWN[0]
    ));
    run(&format!("ip address add {KUBE_DNS}/32 dev lo"));
    let kube_dns = TcpListener::bind((KUBE_DNS, 53)).unwrap();
    (node, kube_dns)
}

#[test]
fn a_connection_that_was_begun_with_kube_dns_ends_there_and_the_next_is_ours() {
    in_a_namespace(|| {
        runtime().block_on(async {
            let (mut node, kube_dns) = start_with_kube_dns().await;
            let server = TcpListener::bind((OWN[0], 53)).unwrap();
            let mut connection = Connection::open(PORT, &kube_dns);
            connection.exchange();
            let mut silent = Connection::open(PORT + 1, &kube_dns);
            node.ensure(&Interception::of(&[OWN[0].into()])).await.unwrap();
            for _ in 0..3 {
                connection.exchange();
            }
            silent.exchange();
            Connection::open(PORT + 2, &server).exchange();
            // The same port once more.
            drop((connection.server, connection.client));
            Connection::open(PORT, &server).exchange();
            node.ensure(&Interception::default()).await.unwrap();
            silent.exchange();
            Connection::open(PORT + 3, &kube_dns).exchange();
        });
    });
}

/// A client that begins connections and asks nothing keeps no others from being known for longer than a second.
#[test]
fn what_is_begun_elsewhere_and_asks_nothing_is_soon_forgotten() {
    in_a_namespace(|| {
        runtime().block_on(async {
            let (_node, kube_dns) = start_with_kube_dns().await;
            let raw = raw_socket(CLIENT);
            for port in 10_000..10_100 {
                raw.send_to(&segment(port, 53, SYN), &SocketAddrV4::new(OWN[0], 0).into()).unwrap();
            }
            let mut connection = Connection::open(PORT, &kube_dns);
            let known = || run("nft list set inet nodelocaldns passed-ip").matches(" expires ").count();
            assert_eq!(known(), 101);
            connection.exchange();
            let started = Instant::now();
            while known() > 1 {
                assert!(started.elapsed() < Duration::from_secs(20), "{} are known", known());
                std::thread::sleep(Duration::from_millis(100));
            }
            // By an interface: others cannot take part by one of their own.
            let passed = run("nft list set inet nodelocaldns passed-ip");
            assert!(passed.contains(&format!("\"lo\" . {CLIENT} . {PORT} . {}", OWN[0])), "{passed}");
        });
    });
}

#[test]
fn where_more_connections_with_others_are_open_than_are_remembered_further_ones_are_answered() {
    in_a_namespace(|| {
        runtime().block_on(async {
            let (mut node, kube_dns) = start_with_kube_dns().await;
            let raw = raw_socket(CLIENT);
            for port in 10_000..10_000 + SIZE {
                raw.send_to(&segment(port, 53, ACK | PSH), &SocketAddrV4::new(OWN[0], 0).into()).unwrap();
            }
            let remembered = run("nft list set inet nodelocaldns passed-ip").matches(" expires ").count();
            assert_eq!(remembered, usize::from(SIZE));
            let mut connection = Connection::open(PORT, &kube_dns);
            connection.exchange();
            node.ensure(&Interception::of(&[OWN[0].into()])).await.unwrap();
            let server = TcpListener::bind((OWN[0], 53)).unwrap();
            Connection::open(PORT + 1, &server).exchange();
        });
    });
}

/// The table is sent in one message.
#[test]
fn many_addresses_are_intercepted() {
    in_a_namespace(|| {
        runtime().block_on(async {
            let addresses: Vec<IpAddr> = (1..=16)
                .flat_map(|last| [[10, 96, 1, last].into(), IpAddr::from([0xfd00, 0, 0, 0, 0, 0, 1, last.into()])])
                .collect();
            let spec = NodeSpec { addresses: addresses.clone(), interface: None, ..spec() };
            let mut node = Node::open(spec, Backend::Nftables, SYNC).await.unwrap();
            node.ensure(&Interception::of(&addresses)).await.unwrap();
            let chain = run("nft list chain inet nodelocaldns prerouting");
            // Queries over UDP and TCP.
            assert_eq!(chain.matches("jump enter-").count(), addresses.len() * 2, "{chain}");
        });
    });
}

/// For TCP segments from an address.
fn raw_socket(from: Ipv4Addr) -> Socket {
    let socket = Socket::new(Domain::IPV4, Type::RAW, Some(Protocol::TCP)).unwrap();
    socket.bind(&SocketAddr::from((from, 0)).into()).unwrap();
    socket
}

fn acknowledgement(from: u16, to: u16) -> [u8; 20] {
    segment(from, to, ACK)
}

/// A TCP segment without octets, five words of header.
fn segment(from: u16, to: u16, flags: u8) -> [u8; 20] {
    let mut segment = [0; 20];
    segment[..2].copy_from_slice(&from.to_be_bytes());
    segment[2..4].copy_from_slice(&to.to_be_bytes());
    segment[12..14].copy_from_slice(&[5 << 4, flags]);
    segment
}
