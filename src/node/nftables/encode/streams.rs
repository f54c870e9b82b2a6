//! The part of our table, and of the one that guards rules of iptables, that lets TCP connections end where they began.
//!
//! When an address is no longer intercepted, packets of its open connections would be kube-proxy's, or the fallback's:
//! taken for the middle of a connection that nobody knows (`nf_conntrack_tcp_loose`), they are sent on to a server that
//! answers with a reset. When it is intercepted again, those of connections to cluster DNS would be ours, and reset by
//! the kernel.
//!
//! Each packet that our server sends on an open connection puts its two addresses and the client's port into the set
//! `streams`, for [`KNOWN_FOR`]; what accepts one does so for [`BEGUN_FOR`] only, or a flood of SYNs would fill the
//! set, and what refuses one does not. What belongs to one that is there and acknowledges something (RFC 9293 section
//! 3.1) is left untracked, intercepted or not. Each packet of a client that is left to others puts the same into the
//! set `passed`, and what belongs to one that is there is left to them, intercepted or not. A SYN begins another
//! connection, perhaps to another server: it takes out the one before. UDP passes these rules by: they cost it up to
//! three comparisons each.
//!
//! The end of a connection takes nothing out: before Linux 6.5 what a packet deletes keeps its place in the set.

use super::arrival::{
    ArrivalRule, SetOperation, TYPE_BITS, accept, add_for, change, leave, look_up, push_set, written,
};
use super::{PREROUTING, TablePurpose, bitwise, chain, compare, load_payload, match_packets, notrack};
use crate::node::desired::{Hook, PacketEnd, Rule, TransportProtocol};
use netlink_bindings::nftables::{Chained, PayloadBase, PushExprListAttrs, Registers};
use netlink_bindings::traits::Pusher;
use std::time::Duration;

/// Longer than a server takes to end: connections that have been silent for so long may be cut.
const KNOWN_FOR: Duration = Duration::from_secs(30);
/// Within this the client acknowledges that its connection is accepted, and more.
const BEGUN_FOR: Duration = Duration::from_secs(1);
/// Four times what the server holds at once, or 546 new ones a second. The kernel makes room for all of it when the set
/// is made. Where it is full, further connections are as they would be without this: answered, but perhaps cut when
/// their address is withdrawn; after [`KNOWN_FOR`] there is room again.
const SIZE: u32 = 16384;
/// `TYPE_INET_SERVICE` of nft's src/datatype.h, which stands between the addresses.
const TYPE_PORT: u32 = 13;
/// Where the flags stand in a TCP header, and three of them.
const FLAGS_OFFSET: u32 = 13;
const SYN: u8 = 0x02;
const RST: u8 = 0x04;
const ACK: u8 = 0x10;

/// The sets of a family: their names, the type and length of addresses, and the registers behind the client's address.
struct StreamSets {
    /// Connections with our server.
    ours: &'static str,
    /// Connections with others.
    passed: &'static str,
    address_type: u32,
    address_length: u32,
    port_register: Registers,
    own_register: Registers,
    /// Where the source and the destination stand in the network header.
    source_offset: u32,
    destination_offset: u32,
}

const SETS: [StreamSets; 2] = [
    StreamSets {
        ours: "streams-ip",
        passed: "passed-ip",
        address_type: 7,
        address_length: 4,
        port_register: Registers::Reg3201,
        own_register: Registers::Reg3202,
        source_offset: 12,
        destination_offset: 16,
    },
    StreamSets {
        ours: "streams-ip6",
        passed: "passed-ip6",
        address_type: 8,
        address_length: 16,
        port_register: Registers::Reg3204,
        own_register: Registers::Reg3205,
        source_offset: 8,
        destination_offset: 24,
    },
];

/// The sets, before any rule that names them.
pub(super) fn push_sets(batch: &mut Chained<'_>, table: &str) {
    let names = SETS.iter().flat_map(|sets| [(sets.ours, sets), (sets.passed, sets)]);
    for (number, (name, StreamSets { address_type, address_length, .. })) in (100..).zip(names) {
        let key_type = address_type << (2 * TYPE_BITS) | TYPE_PORT << TYPE_BITS | address_type;
        push_set(batch, table, number, name, (key_type, 2 * address_length + 4), KNOWN_FOR, SIZE);
    }
}

/// Those before all others: for each address from which the server answers over TCP.
pub(super) fn rules(rules: &[Rule], purpose: TablePurpose) -> Vec<ArrivalRule> {
    let Some((output, _)) = chain(Hook::RawOutput) else { return Vec::new() };
    let rules = served(rules).flat_map(|rule| {
        let sets = sets_of(rule);
        let comes =
            |list, flag| load_connection(match_flags(comes(list, rule), SYN | ACK, flag), &sets, PacketEnd::Source);
        let begins = |set| written(|list| change(comes(list, SYN), set, SetOperation::Delete));
        let goes_on = || written(|list| accept(notrack(look_up(comes(list, ACK), sets.ours))));
        let goes_on_elsewhere = || {
            written(|list| {
                let known = look_up(comes(list, ACK), sets.passed);
                accept(leave(change(known, sets.passed, SetOperation::Update), purpose))
            })
        };
        let answers = written(|list| {
            let list = match_packets(list, rule.protocol, PacketEnd::Source, rule.address, Some(rule.port));
            let list = match_flags(list, SYN | ACK | RST, ACK);
            change(load_connection(list, &sets, PacketEnd::Destination), sets.ours, SetOperation::Update)
        });
        let accepts = written(|list| {
            let list = match_packets(list, rule.protocol, PacketEnd::Source, rule.address, Some(rule.port));
            let list = match_flags(list, SYN | ACK, SYN | ACK);
            add_for(load_connection(list, &sets, PacketEnd::Destination), sets.ours, BEGUN_FOR)
        });
        let comes = [PREROUTING, output].into_iter().flat_map(|chain| {
            // One rule for each set: where there is nothing to delete, a rule ends.
            let rules = [begins(sets.ours), begins(sets.passed), goes_on(), goes_on_elsewhere()];
            rules.map(|octets| (chain, octets))
        });
        comes.chain([(output, answers), (output, accepts)]).collect::<Vec<_>>()
    });
    rules.collect()
}

/// Those behind all others, which what is let in does not come to: connections with others become known.
pub(super) fn rules_for_what_is_left(rules: &[Rule]) -> Vec<ArrivalRule> {
    let Some((output, _)) = chain(Hook::RawOutput) else { return Vec::new() };
    let rules = served(rules).flat_map(|rule| {
        let sets = sets_of(rule);
        [PREROUTING, output].map(|chain| {
            let note = |list| load_connection(comes(list, rule), &sets, PacketEnd::Source);
            (chain, written(|list| change(note(list), sets.passed, SetOperation::Update)))
        })
    });
    rules.collect()
}

/// Of `rules` those of answers over TCP.
fn served(rules: &[Rule]) -> impl Iterator<Item = &Rule> {
    let answers = |protocol: TransportProtocol| {
        let is_answer = move |rule: &&Rule| {
            rule.hook == Hook::RawOutput && rule.end == PacketEnd::Source && rule.protocol == protocol
        };
        rules.iter().filter(is_answer)
    };
    // DNS is spoken over UDP too, what else there is (health checks) is not.
    let is_dns = move |tcp: &&Rule| {
        answers(TransportProtocol::Udp).any(|udp| (udp.address, udp.port) == (tcp.address, tcp.port))
    };
    answers(TransportProtocol::Tcp).filter(is_dns)
}

fn sets_of(rule: &Rule) -> StreamSets {
    let [ipv4, ipv6] = SETS;
    if rule.address.is_ipv4() { ipv4 } else { ipv6 }
}

/// Goes on with a client's packet.
fn comes<P: Pusher>(list: PushExprListAttrs<P>, answer: &Rule) -> PushExprListAttrs<P> {
    match_packets(list, answer.protocol, PacketEnd::Destination, answer.address, Some(answer.port))
}

/// Goes on if of the flags in `mask` these are set and no others.
fn match_flags<P: Pusher>(list: PushExprListAttrs<P>, mask: u8, set: u8) -> PushExprListAttrs<P> {
    let flags = load_payload(list, PayloadBase::TransportHeader, FLAGS_OFFSET, 1, Registers::Reg1);
    compare(bitwise(flags, u32::from_ne_bytes([mask, 0, 0, 0]), 0), &[set, 0, 0, 0])
}

/// The key of a connection whose client is at the packet's `end`: its address and port, and the address at the other
/// end.
fn load_connection<P: Pusher>(list: PushExprListAttrs<P>, set: &StreamSets, end: PacketEnd) -> PushExprListAttrs<P> {
    let (client, own, port) = match end {
        PacketEnd::Source => (set.source_offset, set.destination_offset, 0),
        PacketEnd::Destination => (set.destination_offset, set.source_offset, 2),
    };
    let list = load_payload(list, PayloadBase::NetworkHeader, client, set.address_length, Registers::Reg1);
    let list = load_payload(list, PayloadBase::TransportHeader, port, 2, set.port_register);
    load_payload(list, PayloadBase::NetworkHeader, own, set.address_length, set.own_register)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_answers_over_tcp_make_connections_known_and_each_family_has_its_sets() {
        let answer = |address: &str, protocol| Rule {
            hook: Hook::RawOutput,
            protocol,
            end: PacketEnd::Source,
            address: address.parse().unwrap(),
            port: 53,
            mark: None,
        };
        let udp = answer("10.96.0.10", TransportProtocol::Udp);
        let [ipv4, ipv6] = ["10.96.0.10", "fd00::10"].map(|address| answer(address, TransportProtocol::Tcp));
        let query = Rule { end: PacketEnd::Destination, ..ipv4 };
        let health = Rule { port: 8080, ..ipv4 };
        let first = |rules: &[Rule]| super::rules(rules, TablePurpose::Untrack);
        assert_eq!((first(&[udp, query, health]), rules_for_what_is_left(&[udp, query, health])), (vec![], vec![]));
        for (rule, ours, passed) in [(ipv4, "streams-ip\0", "passed-ip\0"), (ipv6, "streams-ip6\0", "passed-ip6\0")] {
            let with_udp = [rule, Rule { protocol: TransportProtocol::Udp, ..rule }];
            let [first, last] = [first(&with_udp), rules_for_what_is_left(&with_udp)];
            let chains = |rules: &[ArrivalRule]| rules.iter().map(|(chain, _)| *chain).collect::<Vec<_>>();
            assert_eq!(chains(&first), [&["prerouting"; 4][..], &["output"; 6]].concat());
            assert_eq!(chains(&last), ["prerouting", "output"]);
            let naming = |rules: &[ArrivalRule], set: &str| {
                let names = |octets: &[u8]| octets.windows(set.len()).any(|window| window == set.as_bytes());
                rules.iter().filter(|(_, octets)| names(octets)).count()
            };
            assert_eq!((naming(&first, ours), naming(&first, passed)), (6, 4));
            assert_eq!((naming(&last, ours), naming(&last, passed)), (0, 2));
        }
    }
}
