//! Matches and targets of iptables, in the structures of include/uapi/linux/netfilter/xt_*.h.

use super::Packet;
use super::registers::Certainty;
use crate::node::desired::{PacketEnd, TransportProtocol};

/// `XT_CONNTRACK_STATE` and `XT_CONNTRACK_STATE_UNTRACKED` (xt_conntrack.h), `XT_STATE_UNTRACKED` (xt_state.h).
const CONNTRACK_STATE: u16 = 1;
const CONNTRACK_UNTRACKED: u16 = 1 << 8;
const STATE_UNTRACKED: u32 = 1 << 6;
/// Where `match_flags` stands in `xt_conntrack_mtinfo2` and its successor: behind eight addresses of sixteen octets,
/// two times and five short numbers.
const CONNTRACK_FLAGS: usize = 8 * 16 + 2 * 4 + 5 * 2;
/// `RTN_LOCAL` as a bit, and `XT_ADDRTYPE_INVERT_DEST` (xt_addrtype.h).
const LOCAL: u16 = 1 << 2;
const INVERT_DESTINATION: u32 = 2;
/// Values of `xt_multiport_v1.flags`.
const MULTIPORT_SOURCE: u8 = 0;
const MULTIPORT_DESTINATION: u8 = 1;
/// Targets after which the packet goes on.
const PASSING: [&str; 19] = [
    "LOG",
    "NFLOG",
    "ULOG",
    "MARK",
    "CONNMARK",
    "CT",
    "NOTRACK",
    "SET",
    "TRACE",
    "AUDIT",
    "SECMARK",
    "CONNSECMARK",
    "CLASSIFY",
    "TOS",
    "DSCP",
    "TTL",
    "HL",
    "TCPMSS",
    "RATEEST",
];

/// Whether a packet that is untracked fulfils a match; what is not known here, it may.
pub(in crate::node) fn matches(name: &str, revision: u32, info: &[u8], packet: &Packet) -> Certainty {
    let known = match (name, revision) {
        ("comment", _) => Some(Certainty::Yes),
        ("udp", 0) => ports(info, packet, TransportProtocol::Udp),
        ("tcp", 0) => ports(info, packet, TransportProtocol::Tcp),
        ("multiport", 1) => multiport(info, packet),
        ("state", 0) => number(info, 0).map(|mask| Certainty::of(mask & STATE_UNTRACKED != 0)),
        ("conntrack" | "state", 2 | 3) => conntrack(info),
        // Its mask of eight bits has none for untracked packets, which fulfil nothing else either.
        ("conntrack", 1) => short(info, CONNTRACK_FLAGS + 2)
            .zip(short(info, CONNTRACK_FLAGS))
            .map(|(inverted, flags)| Certainty::of(flags & inverted & CONNTRACK_STATE != 0)),
        ("addrtype", 1) => address_type(info, packet),
        _ => None,
    };
    known.unwrap_or(Certainty::Maybe)
}

/// What a target does: drop the packet, let it go on, or none if that is not known.
pub(in crate::node) fn target(name: &str) -> Option<bool> {
    match name {
        "DROP" | "REJECT" | "TARPIT" => Some(true),
        passing if PASSING.contains(&passing) => Some(false),
        _ => None,
    }
}

/// `xt_udp` and `xt_tcp`
fn ports(info: &[u8], packet: &Packet, protocol: TransportProtocol) -> Option<Certainty> {
    if packet.protocol != protocol {
        return Some(Certainty::No);
    }
    let range = |at: usize| Some(short(info, at)?..=short(info, at + 2)?);
    let [source, destination] = [range(0)?, range(4)?];
    let (inverted, asks_more) = match protocol {
        TransportProtocol::Udp => (*info.get(8)?, false),
        // An option, flags.
        TransportProtocol::Tcp => {
            (*info.get(11)?, *info.get(8)? != 0 || *info.get(9)? != 0 || *info.get(11)? & !3 != 0)
        }
    };
    let one = |range: &std::ops::RangeInclusive<u16>, end: PacketEnd| {
        if packet.end == end {
            Certainty::of(range.contains(&packet.port))
        } else if *range == (0..=u16::MAX) {
            Certainty::Yes
        } else {
            Certainty::Maybe
        }
    };
    let source = one(&source, PacketEnd::Source).inverted(inverted & 1 != 0);
    let destination = one(&destination, PacketEnd::Destination).inverted(inverted & 2 != 0);
    let more = if asks_more { Certainty::Maybe } else { Certainty::Yes };
    Some(source.min(destination).min(more))
}

/// `xt_multiport_v1`
fn multiport(info: &[u8], packet: &Packet) -> Option<Certainty> {
    let (flags, count) = (*info.first()?, usize::from(*info.get(1)?));
    let is_inverted = *info.get(2 + 15 * 2 + 15)? != 0;
    let mut contains = false;
    let mut index = 0;
    while index < count {
        let first = short(info, 2 + 2 * index)?;
        // It begins a range, of which the next is the end.
        let is_range = *info.get(2 + 15 * 2 + index)? != 0;
        index += usize::from(is_range);
        let last = short(info, 2 + 2 * index)?;
        contains |= (first..=last).contains(&packet.port);
        index += 1;
    }
    let is_known = match flags {
        MULTIPORT_SOURCE => packet.end == PacketEnd::Source,
        MULTIPORT_DESTINATION => packet.end == PacketEnd::Destination,
        // Either end: the known one is enough if it is in.
        _ => contains,
    };
    is_known.then_some(Certainty::of(contains).inverted(is_inverted))
}

/// `xt_conntrack_mtinfo2` and its successor: without a connection, only the state can be asked for.
fn conntrack(info: &[u8]) -> Option<Certainty> {
    let (flags, inverted) = (short(info, CONNTRACK_FLAGS)?, short(info, CONNTRACK_FLAGS + 2)?);
    let has_state = short(info, CONNTRACK_FLAGS + 4)? & CONNTRACK_UNTRACKED != 0;
    let is_inverted = inverted & CONNTRACK_STATE != 0;
    Some(Certainty::of(flags & CONNTRACK_STATE != 0 && has_state != is_inverted))
}

/// `xt_addrtype_info_v1`; our address is the node's own.
fn address_type(info: &[u8], packet: &Packet) -> Option<Certainty> {
    let (source, destination, flags) = (short(info, 0)?, short(info, 2)?, number(info, 4)?);
    if source != 0 || destination == 0 || packet.end == PacketEnd::Source || flags & !INVERT_DESTINATION != 0 {
        return None;
    }
    Some(Certainty::of(destination & LOCAL != 0).inverted(flags & INVERT_DESTINATION != 0))
}

fn short(info: &[u8], at: usize) -> Option<u16> {
    Some(u16::from_ne_bytes(info.get(at..at + 2)?.try_into().ok()?))
}

fn number(info: &[u8], at: usize) -> Option<u32> {
    Some(u32::from_ne_bytes(info.get(at..at + 4)?.try_into().ok()?))
}
