//! Packets with a source of the sender's choice, as an attacker on the node's network has them.

use socket2::{Domain, SockAddr, Socket, Type};
use std::net::{Ipv4Addr, SocketAddr};

const UDP: u8 = 17;
const TCP: u8 = 6;
const SYN: u8 = 2;

/// Root in a network namespace may have one.
pub struct Raw(Socket);

impl Raw {
    pub fn open() -> Self {
        let socket = Socket::new(Domain::IPV4, Type::RAW, Some(libc::IPPROTO_RAW.into()));
        Self(socket.expect("root in its namespace may make raw sockets"))
    }

    /// What is not sent is lost, as anywhere.
    fn send(&self, protocol: u8, from: Ipv4Addr, to: Ipv4Addr, payload: &[u8]) {
        let mut packet = vec![0x45, 0];
        packet.extend_from_slice(&length(20 + payload.len()));
        packet.extend_from_slice(&[0, 1, 0, 0, 64, protocol, 0, 0]);
        packet.extend_from_slice(&[from.octets(), to.octets()].concat());
        packet.extend_from_slice(payload);
        _ = self.0.send_to(&packet, &SockAddr::from(SocketAddr::from((to, 0))));
    }

    /// A datagram without a checksum.
    pub fn send_udp(&self, from: (Ipv4Addr, u16), to: (Ipv4Addr, u16), payload: &[u8]) {
        let header = [from.1.to_be_bytes(), to.1.to_be_bytes(), length(8 + payload.len()), [0, 0]].concat();
        self.send(UDP, from.0, to.0, &[&header, payload].concat());
    }

    /// A segment that opens a connection.
    pub fn send_syn(&self, from: (Ipv4Addr, u16), to: (Ipv4Addr, u16)) {
        let mut segment = [from.1.to_be_bytes(), to.1.to_be_bytes()].concat();
        segment.extend_from_slice(&[0, 0, 0, 1, 0, 0, 0, 0, 0x50, SYN, 0xff, 0xff, 0, 0, 0, 0]);
        let pseudo = [&from.0.octets()[..], &to.0.octets(), &[0, TCP], &length(segment.len()), &segment].concat();
        segment[16..18].copy_from_slice(&checksum(&pseudo).to_be_bytes());
        self.send(TCP, from.0, to.0, &segment);
    }
}

fn length(octets: usize) -> [u8; 2] {
    u16::try_from(octets).expect("a short packet").to_be_bytes()
}

/// RFC 1071, of an even number of octets.
fn checksum(octets: &[u8]) -> u16 {
    let sum: u32 = octets.chunks_exact(2).map(|pair| u32::from(u16::from_be_bytes([pair[0], pair[1]]))).sum();
    let folded = (sum & 0xffff) + (sum >> 16);
    !u16::try_from((folded & 0xffff) + (folded >> 16)).expect("16 bits")
}

#[test]
fn a_checksum_is_the_standards() {
    // The example of RFC 1071 section 3.
    assert_eq!(checksum(&[0x00, 0x01, 0xf2, 0x03, 0xf4, 0xf5, 0xf6, 0xf7]), !0xddf2);
}
