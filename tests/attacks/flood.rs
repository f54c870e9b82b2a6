//! Datagrams by the thousand, from many addresses. Whatever is answered nobody reads.

use crate::polite::udp_from;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, UdpSocket};
use std::time::{Duration, Instant};

/// Sockets of each address, so that each datagram has one of several ports; fewer where there are many addresses.
const PORTS: usize = 16;

/// Addresses that attack: 127.1.x.y.
pub fn addresses(count: usize) -> Vec<IpAddr> {
    let address = |number: usize| {
        let [.., high, low] = (number + 1).to_be_bytes();
        IpAddr::from(Ipv4Addr::new(127, 1, high, low))
    };
    (0..count).map(address).collect()
}

/// Addresses of one /64.
pub fn addresses_of_one_network(count: usize) -> Vec<IpAddr> {
    (0..count).map(|_| Ipv6Addr::from_bits(0xfd00_0066_u128 << 96 | u128::from(fastrand::u64(..))).into()).collect()
}

/// Addresses of as many /64s of one site.
pub fn addresses_of_networks(count: usize) -> Vec<IpAddr> {
    let address = |number: usize| {
        let network = u16::try_from(number).expect("fewer networks than a site has");
        Ipv6Addr::new(0xfd00, 0x67, 0, network, 0, 0, 0, 1).into()
    };
    (0..count).map(address).collect()
}

pub struct Flood {
    sockets: Vec<UdpSocket>,
}

impl Flood {
    pub fn from(addresses: &[IpAddr], server: SocketAddr) -> Self {
        let ports = if addresses.len() > 16 { 2 } else { PORTS };
        let sockets = addresses.iter().flat_map(|address| (0..ports).map(move |_| udp_from(*address, server)));
        let sockets: Vec<UdpSocket> = sockets.collect();
        for socket in &sockets {
            socket.set_nonblocking(true).expect("a socket can be told not to wait");
            _ = socket2::SockRef::from(socket).set_recv_buffer_size(4096);
        }
        Self { sockets }
    }

    /// Sends `rate` a second for so long, as `make` makes them by their number; how many went out. From one thread:
    /// what it cannot send in time is not sent later.
    pub fn send(&self, rate: u32, during: Duration, mut make: impl FnMut(usize) -> Vec<u8>) -> usize {
        let (started, mut number, mut sent) = (Instant::now(), 0, 0);
        crate::scene::be_a_pod();
        while started.elapsed() < during {
            let due = (started.elapsed().as_secs_f64() * f64::from(rate)) as usize;
            // A machine that gave us no time is not made up for.
            number = number.max(due.saturating_sub(rate as usize / 20));
            while number < due {
                // Sixty-four at a time go through one socket, as from a program that has many questions.
                let socket = &self.sockets[number / 64 % self.sockets.len()];
                sent += usize::from(socket.send(&make(number)).is_ok());
                number += 1;
            }
            std::thread::sleep(Duration::from_micros(500));
        }
        sent
    }
}

/// Names that nobody has asked for, in a zone.
pub fn random_name(zone: &str) -> String {
    format!("{:x}.{zone}", fastrand::u64(..))
}
