//! TCP connections that are open when an address is no longer intercepted.

use crate::SYNC;
use crate::scene::{in_a_namespace, run, runtime, spec};
use nodelocaldns::node::{Backend, Interception, Node, NodeSpec};
use socket2::{Domain, Protocol, Socket, Type};
use std::io::{Read, Write};
use std::net::{IpAddr, Ipv4Addr, SocketAddr, SocketAddrV4, TcpListener, TcpStream};

const OWN: [Ipv4Addr; 2] = [Ipv4Addr::new(10, 96, 0, 10), Ipv4Addr::new(10, 96, 0, 11)];
const CLIENT: Ipv4Addr = Ipv4Addr::new(192, 0, 2, 1);
const PORT: u16 = 4000;
/// Connections that the set takes.
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

/// A connection of the client, from one port, and the server's end of it.
struct Connection {
    client: TcpStream,
    server: TcpStream,
}

impl Connection {
    fn open(port: u16, to: &TcpListener) -> Self {
        let socket = Socket::new(Domain::IPV4, Type::STREAM, Some(Protocol::TCP)).unwrap();
        socket.set_reuse_address(true).unwrap();
        socket.bind(&SocketAddr::from((CLIENT, port)).into()).unwrap();
        socket.connect(&to.local_addr().unwrap().into()).unwrap();
        Self { client: socket.into(), server: to.accept().unwrap().0 }
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

/// For TCP segments from an address.
fn raw_socket(from: Ipv4Addr) -> Socket {
    let socket = Socket::new(Domain::IPV4, Type::RAW, Some(Protocol::TCP)).unwrap();
    socket.bind(&SocketAddr::from((from, 0)).into()).unwrap();
    socket
}

/// A TCP segment without octets: the flag ACK, five words of header.
fn acknowledgement(from: u16, to: u16) -> [u8; 20] {
    let mut segment = [0; 20];
    segment[..2].copy_from_slice(&from.to_be_bytes());
    segment[2..4].copy_from_slice(&to.to_be_bytes());
    segment[12..14].copy_from_slice(&[5 << 4, 0x10]);
    segment
}
