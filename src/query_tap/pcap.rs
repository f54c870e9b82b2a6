//! Messages as packets of a capture file, for Wireshark and tcpdump (draft-ietf-opsawg-pcap). IP and UDP headers are
//! made up: a query within TLS has none of its own, and one over TCP none that it does not share. Pure.

use std::net::{IpAddr, SocketAddr};

/// Packets that begin with an IPv4 or IPv6 header (<https://www.tcpdump.org/linktypes.html>).
const LINKTYPE_RAW: u32 = 101;
/// Octets of the longest packet: of one that an IPv4 header can tell the length of.
const LONGEST: usize = 65535;
const UDP: u8 = 17;
const UDP_HEADER: usize = 8;
const IPV4_HEADER: usize = 20;
const IPV6_HEADER: usize = 40;
const HOP_LIMIT: u8 = 64;

/// The beginning of a file, in little-endian order: times are in microseconds, packets are IP.
pub(crate) const PCAP_HEADER: [u8; 24] = {
    let [a, b, c, d] = 0xa1b2_c3d4_u32.to_le_bytes();
    let [e, f, g, h] = (LONGEST as u32).to_le_bytes();
    let [i, j, k, l] = LINKTYPE_RAW.to_le_bytes();
    // Version 2.4; then two fields that are 0.
    [a, b, c, d, 2, 0, 4, 0, 0, 0, 0, 0, 0, 0, 0, 0, e, f, g, h, i, j, k, l]
};

/// A DNS message on its way.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Packet<'a> {
    /// Microseconds since 1970.
    pub time_us: u64,
    pub from: SocketAddr,
    /// Of the same family as `from`.
    pub to: SocketAddr,
    /// What a UDP datagram cannot hold is cut.
    pub message: &'a [u8],
}

/// Appends a packet to a file. Of addresses of two families both are written as IPv6 ones (RFC 4291 section 2.5.5.2).
pub(crate) fn write_packet(packet: &Packet<'_>, out: &mut Vec<u8>) {
    let is_ipv4 = packet.from.is_ipv4() && packet.to.is_ipv4();
    let headers = UDP_HEADER + if is_ipv4 { IPV4_HEADER } else { IPV6_HEADER };
    let message = packet.message.get(..LONGEST - headers).unwrap_or(packet.message);
    let length = ((headers + message.len()) as u32).to_le_bytes();
    out.extend_from_slice(&((packet.time_us / 1_000_000) as u32).to_le_bytes());
    out.extend_from_slice(&((packet.time_us % 1_000_000) as u32).to_le_bytes());
    // As much is here as there was.
    out.extend_from_slice(&length);
    out.extend_from_slice(&length);
    let udp_length = ((UDP_HEADER + message.len()) as u16).to_be_bytes();
    let mut sum = Checksum::default();
    match (packet.from.ip(), packet.to.ip()) {
        (IpAddr::V4(from), IpAddr::V4(to)) => {
            let [high, low] = ((headers + message.len()) as u16).to_be_bytes();
            let mut header = [0x45, 0, high, low, 0, 0, 0, 0, HOP_LIMIT, UDP, 0, 0];
            let mut own = Checksum::default();
            [&header[..], &from.octets(), &to.octets()].iter().for_each(|part| own.add(part));
            header[10..].copy_from_slice(&own.value());
            [&header[..], &from.octets(), &to.octets()].iter().for_each(|part| out.extend_from_slice(part));
            sum.add(&from.octets());
            sum.add(&to.octets());
        }
        (from, to) => {
            let [from, to] = [from, to].map(|address| match address {
                IpAddr::V4(address) => address.to_ipv6_mapped().octets(),
                IpAddr::V6(address) => address.octets(),
            });
            out.extend_from_slice(&[0x60, 0, 0, 0]);
            out.extend_from_slice(&udp_length);
            out.extend_from_slice(&[UDP, HOP_LIMIT]);
            [from, to].iter().for_each(|address| out.extend_from_slice(address));
            sum.add(&from);
            sum.add(&to);
        }
    }
    let ports = [packet.from.port().to_be_bytes(), packet.to.port().to_be_bytes()].concat();
    // The pseudo-header (RFC 768, RFC 8200 section 8.1), the header, and the data.
    [&[0, UDP][..], &udp_length, &ports, &udp_length, message].iter().for_each(|part| sum.add(part));
    out.extend_from_slice(&ports);
    out.extend_from_slice(&udp_length);
    // None is told by 0.
    out.extend_from_slice(&match sum.value() {
        [0, 0] => [0xff, 0xff],
        sum => sum,
    });
    out.extend_from_slice(message);
}

/// The internet checksum (RFC 1071), of parts of which all but the last have an even number of octets.
#[derive(Default)]
struct Checksum(u64);

impl Checksum {
    fn add(&mut self, part: &[u8]) {
        let (words, last) = part.as_chunks::<2>();
        self.0 += words.iter().map(|word| u64::from(u16::from_be_bytes(*word))).sum::<u64>();
        self.0 += last.first().map_or(0, |octet| u64::from(*octet) << 8);
    }

    fn value(&self) -> [u8; 2] {
        let mut sum = self.0;
        while sum > 0xffff {
            sum = (sum & 0xffff) + (sum >> 16);
        }
        (!(sum as u16)).to_be_bytes()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn written(from: &str, to: &str, message: &[u8]) -> Vec<u8> {
        let mut out = Vec::new();
        let (from, to) = (from.parse().unwrap(), to.parse().unwrap());
        write_packet(&Packet { time_us: 1_700_000_000_000_007, from, to, message }, &mut out);
        out
    }

    /// What a receiver adds up, which is 0xffff of a packet that is whole.
    fn sum(parts: &[&[u8]]) -> [u8; 2] {
        let mut sum = Checksum::default();
        parts.iter().for_each(|part| sum.add(part));
        sum.value()
    }

    #[test]
    fn the_header_says_microseconds_and_packets_that_begin_with_ip() {
        assert_eq!(PCAP_HEADER[..8], [0xd4, 0xc3, 0xb2, 0xa1, 2, 0, 4, 0]);
        assert_eq!(PCAP_HEADER[16..], [0xff, 0xff, 0, 0, 101, 0, 0, 0]);
    }

    #[test]
    fn a_packet_of_ipv4_has_lengths_addresses_ports_and_sums() {
        let packet = written("10.244.0.5:41234", "169.254.20.10:53", b"abc");
        assert_eq!(packet[..4], 1_700_000_000_u32.to_le_bytes());
        assert_eq!(packet[4..16], [7, 0, 0, 0, 31, 0, 0, 0, 31, 0, 0, 0]);
        let packet = &packet[16..];
        assert_eq!(packet[..10], [0x45, 0, 0, 31, 0, 0, 0, 0, 64, 17]);
        assert_eq!(packet[12..20], [10, 244, 0, 5, 169, 254, 20, 10]);
        assert_eq!(packet[20..26], [0xa1, 0x12, 0, 53, 0, 11]);
        assert_eq!(&packet[28..], b"abc");
        assert_eq!(sum(&[&packet[..20]]), [0, 0]);
        assert_eq!(sum(&[&packet[12..20], &[0, 17, 0, 11], &packet[20..]]), [0, 0]);
    }

    #[test]
    fn a_packet_of_ipv6_too_and_what_is_too_long_is_cut() {
        let packet = written("[fd00::5]:41234", "[fd00::10]:53", b"");
        assert_eq!(packet[8..16], [48, 0, 0, 0, 48, 0, 0, 0]);
        let packet = &packet[16..];
        assert_eq!(packet[..8], [0x60, 0, 0, 0, 0, 8, 17, 64]);
        assert_eq!(sum(&[&packet[8..40], &[0, 17, 0, 8], &packet[40..]]), [0, 0]);
        assert_eq!(written("[fd00::5]:1", "[fd00::10]:53", &vec![1; 70_000]).len(), 16 + LONGEST);
        let long = written("10.0.0.1:1", "10.0.0.2:53", &vec![0xff; 70_000]);
        assert_eq!((long.len(), &long[18..20]), (16 + LONGEST, &[0xff, 0xff][..]));
        assert_eq!(sum(&[&long[28..36], &[0, 17], &long[40..42], &long[36..]]), [0, 0]);
    }

    #[test]
    fn a_sum_that_comes_to_0_is_written_as_its_other_form() {
        // The data makes up for all the rest.
        let rest = written("0.0.0.0:0", "0.0.0.0:0", &[0, 0]);
        let packet = written("0.0.0.0:0", "0.0.0.0:0", &rest[16 + 26..16 + 28]);
        assert_eq!(packet[16 + 26..16 + 28], [0xff, 0xff]);
    }
}
