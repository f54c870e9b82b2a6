//! Zones as a Corefile writes them: `scheme://zone:port`, and CIDR for reverse zones (facts: CoreDNS
//! plugin/normalize.go, plugin/pkg/cidr, plugin/pkg/parse).

use super::diagnostic::{Diagnostics, quote};
use super::nearest;
use super::tree::Span;
use crate::message::Name;
use ipnet::IpNet;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

const SCHEMES: [&str; 7] = ["dns", "tls", "quic", "grpc", "https", "https3", "unix"];

/// A key, or a zone among a directive's arguments.
pub(super) struct ZoneText {
    pub scheme: String,
    /// In lower case. Several if a CIDR does not end at a label of the reverse tree.
    pub zones: Vec<Name>,
    pub port: Option<u16>,
    /// See [`super::tree::BlockKey::is_mistaken`].
    pub is_mistaken: bool,
}

/// Reads `[scheme://]zone[:port]` as the reference does: what is neither a scheme, nor a port, nor a CIDR belongs to
/// the name. Such a name hardly anybody asks for, which a warning tells.
pub(super) fn read_zones(text: &str, span: Span, diagnostics: &mut Diagnostics) -> Option<ZoneText> {
    let (scheme, rest) = split_scheme(text, span, diagnostics);
    let (zone, port) = split_port(rest, span, diagnostics)?;
    let zones = match zone.parse::<IpNet>() {
        Ok(network) => reverse_zones(network.trunc()),
        Err(_) => vec![zone.to_ascii_lowercase()],
    };
    let mut names = Vec::with_capacity(zones.len());
    for zone in &zones {
        match Name::parse(zone) {
            Ok(name) => names.push(name),
            Err(error) => {
                let help = match zone.strip_suffix('{') {
                    Some(word) => format!("put a space before the brace: `{word} {{`"),
                    None => {
                        "a zone is a name such as `cluster.local`, `.` for all names, or a CIDR such as `10.0.0.0/8`"
                            .to_owned()
                    }
                };
                diagnostics.error(span, format!("{} is not a domain name: {error}", quote(zone))).help(help);
                return None;
            }
        }
    }
    let is_mistaken = zone.parse::<IpNet>().is_err() && tell_odd_name(text, zone, port, span, diagnostics);
    Some(ZoneText { scheme: scheme.to_owned(), zones: names, port, is_mistaken })
}

/// The scheme, and what follows it; a word that is no scheme is left where it is.
fn split_scheme<'a>(text: &'a str, span: Span, diagnostics: &mut Diagnostics) -> (&'a str, &'a str) {
    let Some((scheme, rest)) = text.split_once("://") else { return ("dns", text) };
    if SCHEMES.contains(&scheme) {
        return (scheme, rest);
    }
    let help = match nearest(scheme, SCHEMES) {
        Some(near) => format!("did you mean `{near}://`?"),
        None => format!("a scheme is one of {}; without one it is dns", SCHEMES.join(", ")),
    };
    diagnostics
        .warning(span, format!("{} is no scheme and is read as part of the zone's name", quote(scheme)))
        .help(help);
    ("dns", text)
}

fn split_port<'a>(text: &'a str, span: Span, diagnostics: &mut Diagnostics) -> Option<(&'a str, Option<u16>)> {
    if text.is_empty() {
        diagnostics.error(span, "a zone is missing").help("write a zone such as `cluster.local`, or `.` for all names");
        return None;
    }
    let Some((zone, port)) = text.rsplit_once(':') else { return Some((text, None)) };
    if port.is_empty() {
        diagnostics
            .error(span, format!("a port is missing after the colon of {}", quote(text)))
            .help(format!("write `{zone}`, or `{zone}:53`"));
        return None;
    }
    let digits = port.strip_prefix(['-', '+']).unwrap_or(port);
    if digits.is_empty() || !digits.bytes().all(|octet| octet.is_ascii_digit()) {
        return Some((text, None));
    }
    let number = port.parse::<u16>();
    if number.is_err() {
        diagnostics
            .error(span, format!("{} is not a port: it must be a number between 0 and 65535", quote(port)))
            .help("a key is written `zone:port`, for example `.:53`");
        return None;
    }
    if zone.is_empty() {
        diagnostics
            .error(span, format!("a zone is missing before {}", quote(text)))
            .help(format!("write `.{text}` for all names"));
        return None;
    }
    Some((zone, number.ok()))
}

/// Tells of a zone that is a name only because it is nothing else, and whether it is one. Names such as
/// `0/25.2.0.192.in-addr.arpa` hold slashes (RFC 2317).
fn tell_odd_name(text: &str, zone: &str, port: Option<u16>, span: Span, diagnostics: &mut Diagnostics) -> bool {
    let is_address = zone.rsplit_once('/').is_some_and(|(address, _)| address.parse::<IpAddr>().is_ok());
    let read_as = match port {
        Some(port) => format!("{} is read as the name {} and the port {port}", quote(text), quote(zone)),
        None => format!("{} is read as a domain name", quote(zone)),
    };
    let help = if let Some(word) = zone.strip_suffix('{') {
        diagnostics
            .warning(span, format!("the brace is read as part of the zone's name: {} serves no query", quote(zone)))
            .help(format!("put a space before it: `{word} {{`"));
        return true;
    } else if let Ok(address) = text.parse::<Ipv6Addr>() {
        format!("write `{address}/128` for its reverse zone")
    } else if let Ok(address) = zone.parse::<Ipv4Addr>() {
        format!("write `{address}/32` for its reverse zone")
    } else if is_address {
        "a CIDR is an address and a prefix length up to 32 (IPv4) or 128 (IPv6): `10.0.0.0/8`, `2001:db8::/32`"
            .to_owned()
    } else if zone.contains(':') && !zone.contains("://") {
        "a port is a number after the colon: `example.org:53`".to_owned()
    } else {
        return false;
    };
    diagnostics.warning(span, read_as).help(help);
    true
}

/// The reverse zones that together cover `network`, whose host bits are zero.
fn reverse_zones(network: IpNet) -> Vec<String> {
    match network {
        IpNet::V4(network) => {
            let octets_kept = usize::from(network.prefix_len().div_ceil(8));
            let subnets = network.subnets(network.prefix_len().next_multiple_of(8)).into_iter().flatten();
            subnets
                .map(|subnet| {
                    reverse_name(subnet.network().octets().iter().take(octets_kept).map(u8::to_string), "in-addr.arpa.")
                })
                .collect()
        }
        IpNet::V6(network) => {
            let nibbles_kept = usize::from(network.prefix_len().div_ceil(4));
            let subnets = network.subnets(network.prefix_len().next_multiple_of(4)).into_iter().flatten();
            subnets
                .map(|subnet| {
                    let octets = subnet.network().octets();
                    let nibbles = octets.iter().flat_map(|octet| [octet >> 4, octet & 15]).take(nibbles_kept);
                    reverse_name(nibbles.map(|nibble| format!("{nibble:x}")), "ip6.arpa.")
                })
                .collect()
        }
    }
}

fn reverse_name(labels: impl Iterator<Item = String>, suffix: &str) -> String {
    let mut labels: Vec<String> = labels.collect();
    labels.reverse();
    labels.push(suffix.to_owned());
    labels.join(".")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn reverse(cidr: &str) -> Vec<String> {
        reverse_zones(cidr.parse::<IpNet>().unwrap().trunc())
    }

    #[test]
    fn a_cidr_on_a_label_boundary_is_one_reverse_zone() {
        assert_eq!(reverse("10.0.0.0/8"), ["10.in-addr.arpa."]);
        assert_eq!(reverse("192.0.2.0/24"), ["2.0.192.in-addr.arpa."]);
        assert_eq!(reverse("192.0.2.7/32"), ["7.2.0.192.in-addr.arpa."]);
        assert_eq!(reverse("2001:db8::/32"), ["8.b.d.0.1.0.0.2.ip6.arpa."]);
        assert_eq!(reverse("fd00::/8"), ["d.f.ip6.arpa."]);
    }

    #[test]
    fn all_addresses_are_the_whole_reverse_tree() {
        assert_eq!(reverse("0.0.0.0/0"), ["in-addr.arpa."]);
        assert_eq!(reverse("::/0"), ["ip6.arpa."]);
    }

    #[test]
    fn host_bits_do_not_matter() {
        assert_eq!(reverse("10.1.2.3/8"), ["10.in-addr.arpa."]);
    }

    #[test]
    fn a_cidr_off_a_boundary_is_several_reverse_zones() {
        assert_eq!(reverse("10.4.0.0/15"), ["4.10.in-addr.arpa.", "5.10.in-addr.arpa."]);
        assert_eq!(reverse("10.128.0.0/9").len(), 128);
        assert_eq!(reverse("192.0.2.128/25").first().unwrap(), "128.2.0.192.in-addr.arpa.");
        assert_eq!(reverse("2001:db8::/30").len(), 4);
        assert_eq!(reverse("2001:db8::/30").last().unwrap(), "b.b.d.0.1.0.0.2.ip6.arpa.");
    }
}
