//! Rules that accept, in the chains of iptables-nft. Every version of its programs reads a table whole or not at all,
//! so they have the form that the oldest ones write: the protocol from the IPv4 header, ports by the matches `udp` and
//! `tcp`, a comment by the match `comment`.

use super::{
    Batch, SUBSYSTEM, address_offset, compare, compare_meta, compare_payload, finish, header, load_meta,
    protocol_number,
};
use crate::node::desired::{ALLOW_TRAFFIC, Hook, PacketEnd, Rule, TransportProtocol};
use crate::node::nftables::accept_chain::{AcceptChain, AcceptChanges};
use netlink_bindings::nftables::{Chained, MetaKeys, PayloadBase, PushExprListAttrs, Registers, VerdictCode};
use netlink_bindings::traits::Pusher;

/// Where the protocol stands in an IPv4 header (RFC 791 section 3.1).
const IPV4_PROTOCOL_OFFSET: u32 = 9;
/// Length of `xt_comment_info` (include/uapi/linux/netfilter/xt_comment.h).
const COMMENT_LENGTH: usize = 256;
/// Lengths of `xt_udp` and `xt_tcp` (include/uapi/linux/netfilter/xt_tcpudp.h), up to a multiple of eight octets
/// (`XT_ALIGN`).
const PORTS_LENGTH: usize = 16;

/// A batch that makes `changes`: deletes rules, and puts new ones to the front of their chains, all at once.
pub(crate) fn accept(changes: &[(AcceptChain, AcceptChanges)], first_sequence: u32) -> Batch {
    let mut batch = Chained::new(first_sequence);
    batch.request().op_batch_begin_do(&header(0, SUBSYSTEM));
    for (chain, changes) in changes {
        let family = header(chain.family(), 0);
        for handle in &changes.surplus {
            let mut request = batch.request().op_delrule_do(&family);
            let attributes = request.encode().push_table_bytes(AcceptChain::TABLE.as_bytes());
            attributes.push_chain_bytes(chain.name().as_bytes()).push_handle(*handle);
        }
        // Each goes before the one before.
        for rule in changes.missing.iter().rev() {
            let mut request = batch.request().set_create().op_newrule_do(&family);
            let attributes = request.encode().push_table_bytes(AcceptChain::TABLE.as_bytes());
            let attributes = attributes.push_chain_bytes(chain.name().as_bytes());
            let attributes = expressions(attributes.nested_expressions(), *chain, rule).end_nested();
            attributes.nested_compat().push_proto(protocol_number(rule.protocol).into()).push_flags(0);
        }
    }
    batch.request().op_batch_end_do(&header(0, SUBSYSTEM));
    finish(batch, first_sequence)
}

fn expressions<P: Pusher>(list: PushExprListAttrs<P>, chain: AcceptChain, rule: &Rule) -> PushExprListAttrs<P> {
    let mut list = list;
    if matches!(rule.hook, Hook::FilterInputLoopback | Hook::FilterOutputLoopback) {
        let key = if chain.is_input { MetaKeys::Iifname } else { MetaKeys::Oifname };
        // With its zero octet: the whole name.
        list = compare(load_meta(list, key), b"lo\0");
    }
    let protocol = [protocol_number(rule.protocol)];
    list = if chain.is_ipv6 {
        compare_meta(list, MetaKeys::L4Proto, &protocol)
    } else {
        compare_payload(list, PayloadBase::NetworkHeader, IPV4_PROTOCOL_OFFSET, &protocol)
    };
    let octets = match rule.address {
        std::net::IpAddr::V4(address) => address.octets().to_vec(),
        std::net::IpAddr::V6(address) => address.octets().to_vec(),
    };
    list = compare_payload(list, PayloadBase::NetworkHeader, address_offset(rule.address, rule.end), &octets);
    let name = match rule.protocol {
        TransportProtocol::Udp => c"udp",
        TransportProtocol::Tcp => c"tcp",
    };
    let ports = list.nested_elem().nested_data_match().push_name(name).push_rev(0).push_info(&ports(rule));
    let list = ports.end_nested().end_nested();
    let mut text = ALLOW_TRAFFIC.as_bytes().to_vec();
    text.resize(COMMENT_LENGTH, 0);
    let comment = list.nested_elem().nested_data_match().push_name(c"comment").push_rev(0).push_info(&text);
    let counter = comment.end_nested().end_nested().nested_elem().nested_data_counter().push_bytes(0).push_packets(0);
    let verdict = counter.end_nested().end_nested().nested_elem().nested_data_immediate();
    let verdict = verdict.push_dreg(Registers::RegVerdict as u32).nested_data().nested_verdict();
    verdict.push_code(VerdictCode::Accept as u32).end_nested().end_nested().end_nested().end_nested()
}

/// Both begin with the first and last source port and the first and last destination port, in the host's order; what
/// follows asks for nothing when it is zero.
fn ports(rule: &Rule) -> [u8; PORTS_LENGTH] {
    let (only, any) = ([rule.port; 2], [0, u16::MAX]);
    let [source, destination] = match rule.end {
        PacketEnd::Source => [only, any],
        PacketEnd::Destination => [any, only],
    };
    let mut info = [0; PORTS_LENGTH];
    for (place, port) in info.chunks_exact_mut(2).zip(source.into_iter().chain(destination)) {
        place.copy_from_slice(&port.to_ne_bytes());
    }
    info
}
