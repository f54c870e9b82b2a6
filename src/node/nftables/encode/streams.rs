//! The part of our table, and of the one that guards rules of iptables, that lets TCP connections end where they began.
//!
//! When an address is no longer intercepted, packets of its open connections would be kube-proxy's, or the fallback's:
//! taken for the middle of a connection that nobody knows (`nf_conntrack_tcp_loose`), they are sent on to a server that
//! answers with a reset. When it is intercepted again, those of connections to cluster DNS would be ours, and reset by
//! the kernel.
//!
//! Each packet that our server sends on an open connection puts its two addresses and the client's port into a set,
//! [`StreamSets::ours`], for [`KNOWN_FOR`]; what accepts one does so for [`BEGUN_FOR`] only, or a flood of SYNs would
//! fill the set, and what refuses one does not. What belongs to one that is there and acknowledges something (RFC 9293
//! section 3.1) is left untracked, intercepted or not. A SYN begins another connection, perhaps to another server: it
//! takes out the one before.
//!
//! What a client sends on a connection, and is left to others, puts the same and the interface by which it came into
//! [`StreamSets::passed`]: or who sends packets in another's name by an interface of its own would have the other's
//! connections left to others. A SYN does so for [`BEGUN_FOR`], data (which senders mark with PSH) for [`KNOWN_FOR`].
//! What belongs to one that is there is left to others, intercepted or not, unless our server knows it. So no SYN needs
//! to take it out.
//!
//! UDP passes these rules by: they cost it up to three comparisons each. The end of a connection takes nothing out:
//! before Linux 6.5 what a packet deletes keeps its place in the set.

use super::arrival::{
    ArrivalRule, LOOPBACK_INDEX, SetOperation, TYPE_BITS, TYPE_INTERFACE, accept, add_for, change, leave, look_up,
    push_set, written,
};
use super::{
    PREROUTING, TablePurpose, bitwise, chain, compare, load_constant, load_meta, load_payload, match_packets, notrack,
};
use crate::node::desired::{Hook, PacketEnd, Rule, TransportProtocol};
use netlink_bindings::nftables::{Chained, MetaKeys, PayloadBase, PushExprListAttrs, Registers};
use netlink_bindings::traits::Pusher;
use std::time::Duration;

/// Longer than a server takes to end: connections that have been silent for so long may be cut.
const KNOWN_FOR: Duration = Duration::from_secs(30);
/// Within this the client acknowledges that its connection is accepted, and more.
const BEGUN_FOR: Duration = Duration::from_secs(1);
/// Of each set: four times what the server holds at once, or 546 new ones a second. The kernel makes room for all of it
/// when the set is made. Where it is full, further connections are as they would be without this: answered, but perhaps
/// cut when their address is withdrawn or intercepted again; after [`KNOWN_FOR`] there is room again.
const SIZE: u32 = 16384;
/// `TYPE_INET_SERVICE` of nft's src/datatype.h, which stands between the addresses.
const TYPE_PORT: u32 = 13;
/// Where the flags stand in a TCP header, and three of them.
const FLAGS_OFFSET: u32 = 13;
const SYN: u8 = 0x02;
const RST: u8 = 0x04;
const PSH: u8 = 0x08;
const ACK: u8 = 0x10;

/// The sets of a family, with the type and length of its addresses.
struct StreamSets {
    /// Connections with our server.
    ours: &'static str,
    /// Connections with others.
    passed: &'static str,
    address_type: u32,
    address_length: u32,
    /// Where a key of `ours` and, behind the interface, one of `passed` is put together.
    key: KeyRegisters,
    key_behind_interface: KeyRegisters,
    /// Where the source and the destination stand in the network header.
    source_offset: u32,
    destination_offset: u32,
}

/// Where the parts of a key go: side by side, each in so many registers of four octets as it needs.
struct KeyRegisters {
    client: Registers,
    port: Registers,
    own: Registers,
}

const SETS: [StreamSets; 2] = [
    StreamSets {
        ours: "streams-ip",
        passed: "passed-ip",
        address_type: 7,
        address_length: 4,
        key: KeyRegisters { client: Registers::Reg1, port: Registers::Reg3201, own: Registers::Reg3202 },
        key_behind_interface: KeyRegisters {
            client: Registers::Reg3201,
            port: Registers::Reg3202,
            own: Registers::Reg3203,
        },
        source_offset: 12,
        destination_offset: 16,
    },
    StreamSets {
        ours: "streams-ip6",
        passed: "passed-ip6",
        address_type: 8,
        address_length: 16,
        key: KeyRegisters { client: Registers::Reg1, port: Registers::Reg3204, own: Registers::Reg3205 },
        key_behind_interface: KeyRegisters {
            client: Registers::Reg3201,
            port: Registers::Reg3205,
            own: Registers::Reg3206,
        },
        source_offset: 8,
        destination_offset: 24,
    },
];

/// The sets, before any rule that names them.
pub(super) fn push_sets(batch: &mut Chained<'_>, table: &str) {
    for (number, StreamSets { ours, passed, address_type, address_length, .. }) in (100..).step_by(2).zip(SETS) {
        let (key_type, length) =
            (address_type << (2 * TYPE_BITS) | TYPE_PORT << TYPE_BITS | address_type, 2 * address_length + 4);
        push_set(batch, table, number, ours, (key_type, length), KNOWN_FOR, SIZE);
        let (key_type, length) = (TYPE_INTERFACE << (3 * TYPE_BITS) | key_type, 4 + length);
        push_set(batch, table, number + 1, passed, (key_type, length), KNOWN_FOR, SIZE);
    }
}

/// Those before all others: for each address from which the server answers over TCP.
pub(super) fn rules(rules: &[Rule], purpose: TablePurpose) -> Vec<ArrivalRule> {
    let Some((output, _)) = chain(Hook::RawOutput) else { return Vec::new() };
    let rules = served(rules).flat_map(|rule| {
        let sets = sets_of(rule);
        let comes = |list, flag| {
            let list = match_flags(comes(list, rule), SYN | ACK, flag);
            load_connection(list, &sets, &sets.key, PacketEnd::Source)
        };
        let begins = || written(|list| change(comes(list, SYN), sets.ours, SetOperation::Delete));
        let goes_on = || written(|list| accept(notrack(look_up(comes(list, ACK), sets.ours))));
        let passed = |list, chain, mask, flags| {
            look_up(load_passed(match_flags(self::comes(list, rule), mask, flags), &sets, chain), sets.passed)
        };
        // Not what merely goes on, such as a reset: whoever begins connections and asks nothing would fill the set.
        let asks_elsewhere =
            |chain| written(|list| change(passed(list, chain, SYN | PSH, PSH), sets.passed, SetOperation::Update));
        // A reset acknowledges nothing, perhaps.
        let goes_on_elsewhere = |chain| written(|list| accept(leave(passed(list, chain, SYN, 0), purpose)));
        let answers = written(|list| {
            let list = match_packets(list, rule.protocol, PacketEnd::Source, rule.address, Some(rule.port));
            let list = match_flags(list, SYN | ACK | RST, ACK);
            change(load_connection(list, &sets, &sets.key, PacketEnd::Destination), sets.ours, SetOperation::Update)
        });
        let accepts = written(|list| {
            let list = match_packets(list, rule.protocol, PacketEnd::Source, rule.address, Some(rule.port));
            let list = match_flags(list, SYN | ACK, SYN | ACK);
            add_for(load_connection(list, &sets, &sets.key, PacketEnd::Destination), sets.ours, BEGUN_FOR)
        });
        let comes = [PREROUTING, output].into_iter().flat_map(|chain| {
            let rules = [begins(), goes_on(), asks_elsewhere(chain), goes_on_elsewhere(chain)];
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
        let notes = |chain| {
            let comes = |list, mask, flags| load_passed(match_flags(comes(list, rule), mask, flags), &sets, chain);
            let begins = written(|list| add_for(comes(list, SYN | ACK, SYN), sets.passed, BEGUN_FOR));
            let asks = written(|list| change(comes(list, SYN | PSH, PSH), sets.passed, SetOperation::Update));
            [(chain, begins), (chain, asks)]
        };
        [PREROUTING, output].into_iter().flat_map(notes).collect::<Vec<_>>()
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
fn load_connection<P: Pusher>(
    list: PushExprListAttrs<P>,
    sets: &StreamSets,
    key: &KeyRegisters,
    end: PacketEnd,
) -> PushExprListAttrs<P> {
    let (client, own, port) = match end {
        PacketEnd::Source => (sets.source_offset, sets.destination_offset, 0),
        PacketEnd::Destination => (sets.destination_offset, sets.source_offset, 2),
    };
    let list = load_payload(list, PayloadBase::NetworkHeader, client, sets.address_length, key.client);
    let list = load_payload(list, PayloadBase::TransportHeader, port, 2, key.port);
    load_payload(list, PayloadBase::NetworkHeader, own, sets.address_length, key.own)
}

/// The key of a client's connection with others, which begins with the interface. What programs on the node send comes
/// by `lo`.
fn load_passed<P: Pusher>(list: PushExprListAttrs<P>, sets: &StreamSets, chain: &str) -> PushExprListAttrs<P> {
    let list = match chain {
        PREROUTING => load_meta(list, MetaKeys::Iif),
        _ => load_constant(list, &LOOPBACK_INDEX.to_ne_bytes()),
    };
    load_connection(list, sets, &sets.key_behind_interface, PacketEnd::Source)
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
            assert_eq!(chains(&last), ["prerouting", "prerouting", "output", "output"]);
            let naming = |rules: &[ArrivalRule], set: &str| {
                let names = |octets: &[u8]| octets.windows(set.len()).any(|window| window == set.as_bytes());
                rules.iter().filter(|(_, octets)| names(octets)).count()
            };
            assert_eq!((naming(&first, ours), naming(&first, passed)), (6, 4));
            assert_eq!((naming(&last, ours), naming(&last, passed)), (0, 4));
        }
    }
}
