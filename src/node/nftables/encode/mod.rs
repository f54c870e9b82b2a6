//! Rules as nf_tables messages, with `netlink-bindings`. Pure.

mod accept;
pub(super) mod arrival;
mod fallback_chains;
mod streams;

pub(super) use accept::accept;
pub(super) use fallback_chains::replace as replace_fallback;

use super::header::header;
use crate::node::desired::{Hook, PacketEnd, Rule, TransportProtocol};
use netlink_bindings::nftables::{
    Chained, CmpOps, CtKeys, MetaKeys, PayloadBase, PushExprListAttrs, Registers, TableFlags, VerdictCode,
};
use netlink_bindings::traits::Pusher;
use std::net::IpAddr;
use std::ops::RangeInclusive;

/// `NFPROTO_INET`: one table for both families.
pub(super) const FAMILY: u8 = libc::NFPROTO_INET as u8;
/// `NFNL_SUBSYS_NFTABLES`, which a batch names as its destination.
const SUBSYSTEM: u16 = libc::NFNL_SUBSYS_NFTABLES as u16;
/// Before connection tracking (-200), after its defragmentation (-400).
pub(super) const RAW_PRIORITY: i32 = libc::NF_IP_PRI_RAW;
/// What `nft list ruleset` shows beside each rule; the reference's rules carry the same words.
const COMMENT: &[u8] = b"NodeLocal DNS Cache: skip conntrack\0";
/// `NFTNL_UDATA_RULE_COMMENT` of libnftnl.
const COMMENT_TYPE: u8 = 0;

/// The chain of packets that come in.
const PREROUTING: &str = "prerouting";

/// Messages that the kernel applies together or not at all.
pub struct Batch {
    /// As they go to the socket.
    pub octets: Vec<u8>,
    /// Sequence numbers of those that are answered.
    pub sequence: RangeInclusive<u32>,
}

/// What a table with rules at raw priority is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum TablePurpose {
    /// It leaves packets untracked, and the kernel removes it with its owner, us.
    Untrack,
    /// Rules of iptables leave packets untracked, and stay when we are gone; this table, which stays too, keeps them
    /// from it where [`arrival`] says so. It stands just before them, and gives a packet a template of connection
    /// tracking's own zone: NOTRACK leaves packets alone that have one, and connection tracking takes them as any
    /// other. Only open connections it leaves untracked itself ([`streams`]): iptables has nothing that knows them.
    GuardIptables,
}

impl TablePurpose {
    fn flags(self) -> u32 {
        match self {
            Self::Untrack => TableFlags::Owner as u32,
            Self::GuardIptables => 0,
        }
    }

    fn priority(self) -> i32 {
        match self {
            Self::Untrack => RAW_PRIORITY,
            Self::GuardIptables => RAW_PRIORITY - 1,
        }
    }
}

/// A batch after which `table` holds exactly `rules`, of which only those at raw priority count.
///
/// The same messages do for a table that is not there and for one that is: creating what exists is no error, and a
/// flush empties what was there before.
pub(super) fn replace(table: &str, purpose: TablePurpose, rules: &[Rule], first_sequence: u32) -> Batch {
    let mut batch = Chained::new(first_sequence);
    let (family, destination) = (header(FAMILY, 0), header(0, SUBSYSTEM));
    batch.request().op_batch_begin_do(&destination);
    let name = table.as_bytes();
    batch.request().set_create().op_newtable_do(&family).encode().push_name_bytes(name).push_flags(purpose.flags());
    for hook in [Hook::RawPrerouting, Hook::RawOutput] {
        let Some((chain, number)) = chain(hook) else { continue };
        let mut request = batch.request().set_create().op_newchain_do(&family);
        let attributes = request.encode().push_table_bytes(table.as_bytes()).push_name_bytes(chain.as_bytes());
        let attributes = attributes.nested_hook().push_num(number).push_priority(purpose.priority()).end_nested();
        attributes.push_policy(VerdictCode::Accept as u32).push_type(c"filter");
    }
    arrival::push_frame(&mut batch, table);
    streams::push_sets(&mut batch, table);
    batch.request().op_delrule_do(&family).encode().push_table_bytes(table.as_bytes());
    let written = rules.iter().filter_map(|rule| Some((chain(rule.hook)?.0, expressions(rule, purpose)?)));
    let first = streams::rules(rules, purpose).into_iter().chain(arrival::rules(rules, purpose));
    let last = rules_for_what_is_left(rules, purpose).into_iter().chain(streams::rules_for_what_is_left(rules));
    for (chain, octets) in first.chain(written).chain(last) {
        let mut request = batch.request().set_create().set_append().op_newrule_do(&family);
        let attributes = request.encode().push_table_bytes(table.as_bytes()).push_chain_bytes(chain.as_bytes());
        let mut list = attributes.nested_expressions();
        list.as_vec_mut().extend_from_slice(&octets);
        list.end_nested().push_userdata(&comment(COMMENT));
    }
    batch.request().op_batch_end_do(&destination);
    finish(batch, first_sequence)
}

/// A batch that removes `table`.
pub(super) fn delete(table: &str, first_sequence: u32) -> Batch {
    let mut batch = Chained::new(first_sequence);
    batch.request().op_batch_begin_do(&header(0, SUBSYSTEM));
    batch.request().op_deltable_do(&header(FAMILY, 0)).encode().push_name_bytes(table.as_bytes());
    batch.request().op_batch_end_do(&header(0, SUBSYSTEM));
    finish(batch, first_sequence)
}

/// Name and hook number (`NF_INET_…`) of the chain that stands for `hook`. The filter table is not ours: an accept in a
/// table of ours could not override a drop there.
fn chain(hook: Hook) -> Option<(&'static str, u32)> {
    match hook {
        Hook::RawPrerouting => Some((PREROUTING, libc::NF_INET_PRE_ROUTING as u32)),
        Hook::RawOutput => Some(("output", libc::NF_INET_LOCAL_OUT as u32)),
        Hook::FilterInput | Hook::FilterOutput | Hook::FilterInputLoopback | Hook::FilterOutputLoopback => None,
    }
}

/// The batch's octets. Kernels before 6.10 do not answer the two messages that bracket it, so nobody should wait for
/// that.
fn finish(batch: Chained<'static>, first_sequence: u32) -> Batch {
    let octets = batch.finalize().into_chained().into_buf();
    let messages = super::message::messages(&octets).count();
    let last = u32::try_from(messages).unwrap_or(u32::MAX).saturating_sub(2);
    Batch { octets, sequence: first_sequence.saturating_add(1)..=first_sequence.saturating_add(last) }
}

/// `rule` as the expressions that nf_tables evaluates from first to last, until one does not match; none where the role
/// asks for nothing.
fn expressions(rule: &Rule, purpose: TablePurpose) -> Option<Vec<u8>> {
    let packets = |list| match_packets(list, rule.protocol, rule.end, rule.address, Some(rule.port));
    let marked = |list, mark| match_bits(load_meta(packets(list), MetaKeys::Mark), mark);
    let written = match (rule.hook, rule.end, rule.mark, purpose) {
        (Hook::RawPrerouting, ..) => arrival::written(|list| arrival::enter(count(packets(list)), rule.address)),
        (_, PacketEnd::Destination, None, _) => {
            arrival::written(|list| arrival::let_in(count(arrival::match_lease(packets(list))), purpose))
        }
        (_, PacketEnd::Destination, Some(mark), _) => {
            arrival::written(|list| arrival::let_in(count(arrival::renew_lease(marked(list, mark))), purpose))
        }
        // Replies as long as we run: desired.rs says why.
        (_, PacketEnd::Source, _, TablePurpose::Untrack) => arrival::written(|list| notrack(count(packets(list)))),
        (_, PacketEnd::Source, _, TablePurpose::GuardIptables) => return None,
    };
    Some(written)
}

/// Those behind all others, which what is let in does not come to: iptables' rules do not count for the rest.
fn rules_for_what_is_left(rules: &[Rule], purpose: TablePurpose) -> Vec<arrival::ArrivalRule> {
    let is_query = |rule: &&Rule| rule.end == PacketEnd::Destination && rule.mark.is_none();
    let queries = rules.iter().filter(|rule| purpose == TablePurpose::GuardIptables && is_query(rule));
    let rules = queries.filter_map(|rule| {
        let packets = |list| match_packets(list, rule.protocol, rule.end, rule.address, Some(rule.port));
        Some((chain(rule.hook)?.0, arrival::written(|list| track(packets(list)))))
    });
    rules.collect()
}

fn count<P: Pusher>(list: PushExprListAttrs<P>) -> PushExprListAttrs<P> {
    list.nested_elem().nested_data_counter().push_bytes(0).push_packets(0).end_nested().end_nested()
}

fn load_constant<P: Pusher>(list: PushExprListAttrs<P>, value: &[u8]) -> PushExprListAttrs<P> {
    let immediate = list.nested_elem().nested_data_immediate().push_dreg(Registers::Reg1 as u32);
    immediate.nested_data().push_value(value).end_nested().end_nested().end_nested()
}

/// The packet is tracked, in connection tracking's own zone (`NF_CT_DEFAULT_ZONE_ID`), whatever NOTRACK says later.
fn track<P: Pusher>(list: PushExprListAttrs<P>) -> PushExprListAttrs<P> {
    let list = load_constant(list, &0_u16.to_ne_bytes());
    let ct = list.nested_elem().nested_data_ct();
    ct.push_key(CtKeys::Zone as u32).push_sreg(Registers::Reg1 as u32).end_nested().end_nested()
}

fn notrack<P: Pusher>(list: PushExprListAttrs<P>) -> PushExprListAttrs<P> {
    list.nested_elem().push_name(c"notrack").end_nested()
}

/// Packets of `protocol` whose `end` is `address` and, if given, `port`.
fn match_packets<P: Pusher>(
    list: PushExprListAttrs<P>,
    protocol: TransportProtocol,
    end: PacketEnd,
    address: IpAddr,
    port: Option<u16>,
) -> PushExprListAttrs<P> {
    let (family, octets) = match address {
        IpAddr::V4(address) => (libc::NFPROTO_IPV4, address.octets().to_vec()),
        IpAddr::V6(address) => (libc::NFPROTO_IPV6, address.octets().to_vec()),
    };
    let mut list = compare_meta(list, MetaKeys::Nfproto, &[family as u8]);
    list = compare_payload(list, PayloadBase::NetworkHeader, address_offset(address, end), &octets);
    list = compare_meta(list, MetaKeys::L4Proto, &[protocol_number(protocol)]);
    match port {
        Some(port) => {
            let offset = if end == PacketEnd::Source { 0 } else { 2 };
            compare_payload(list, PayloadBase::TransportHeader, offset, &port.to_be_bytes())
        }
        None => list,
    }
}

/// `IPPROTO_…`
fn protocol_number(protocol: TransportProtocol) -> u8 {
    match protocol {
        TransportProtocol::Udp => libc::IPPROTO_UDP as u8,
        TransportProtocol::Tcp => libc::IPPROTO_TCP as u8,
    }
}

/// Where an address stands in the network header (RFC 791 section 3.1, RFC 8200 section 3).
pub(super) fn address_offset(address: IpAddr, end: PacketEnd) -> u32 {
    match (address, end) {
        (IpAddr::V4(_), PacketEnd::Source) => 12,
        (IpAddr::V4(_), PacketEnd::Destination) => 16,
        (IpAddr::V6(_), PacketEnd::Source) => 8,
        (IpAddr::V6(_), PacketEnd::Destination) => 24,
    }
}

/// Goes on if all of `bits` are set in what was loaded.
fn match_bits<P: Pusher>(list: PushExprListAttrs<P>, bits: u32) -> PushExprListAttrs<P> {
    compare(bitwise(list, bits, 0), &bits.to_ne_bytes())
}

fn compare_meta<P: Pusher>(list: PushExprListAttrs<P>, key: MetaKeys, value: &[u8]) -> PushExprListAttrs<P> {
    compare(load_meta(list, key), value)
}

fn load_meta<P: Pusher>(list: PushExprListAttrs<P>, key: MetaKeys) -> PushExprListAttrs<P> {
    let meta = list.nested_elem().nested_data_meta();
    meta.push_key(key as u32).push_dreg(Registers::Reg1 as u32).end_nested().end_nested()
}

fn compare_payload<P: Pusher>(
    list: PushExprListAttrs<P>,
    base: PayloadBase,
    offset: u32,
    value: &[u8],
) -> PushExprListAttrs<P> {
    compare(load_payload(list, base, offset, value.len() as u32, Registers::Reg1), value)
}

/// Loads `length` octets of a header.
fn load_payload<P: Pusher>(
    list: PushExprListAttrs<P>,
    base: PayloadBase,
    offset: u32,
    length: u32,
    register: Registers,
) -> PushExprListAttrs<P> {
    let payload = list.nested_elem().nested_data_payload().push_dreg(register as u32);
    payload.push_base(base as u32).push_offset(offset).push_len(length).end_nested().end_nested()
}

/// What was loaded becomes `(it & mask) ^ xor`.
fn bitwise<P: Pusher>(list: PushExprListAttrs<P>, mask: u32, xor: u32) -> PushExprListAttrs<P> {
    let bitwise = list.nested_elem().nested_data_bitwise();
    let bitwise = bitwise.push_sreg(Registers::Reg1 as u32).push_dreg(Registers::Reg1 as u32).push_len(4);
    let bitwise = bitwise.nested_mask().push_value(&mask.to_ne_bytes()).end_nested();
    bitwise.nested_xor().push_value(&xor.to_ne_bytes()).end_nested().end_nested().end_nested()
}

fn compare<P: Pusher>(list: PushExprListAttrs<P>, value: &[u8]) -> PushExprListAttrs<P> {
    let comparison = list.nested_elem().nested_data_cmp().push_sreg(Registers::Reg1 as u32).push_op(CmpOps::Eq as u32);
    comparison.nested_data().push_value(value).end_nested().end_nested().end_nested()
}

/// `text` ends with a zero octet and has less than 256 of them.
fn comment(text: &[u8]) -> Vec<u8> {
    let mut field = vec![COMMENT_TYPE, text.len() as u8];
    field.extend_from_slice(text);
    field
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::node::nftables::message::messages;

    fn rule(hook: Hook) -> Rule {
        Rule {
            hook,
            protocol: TransportProtocol::Udp,
            end: PacketEnd::Destination,
            address: [10, 96, 0, 10].into(),
            port: 53,
            mark: None,
        }
    }

    #[test]
    fn a_batch_is_bracketed_and_numbered() {
        let batch =
            replace("nodelocaldns", TablePurpose::Untrack, &[rule(Hook::RawOutput), rule(Hook::FilterInput)], 100);
        let types: Vec<u16> = messages(&batch.octets).map(|message| message.message_type()).collect();
        // begin, table, two chains; nine sets, two elements and five chains; four sets; flush, rules, end
        // (include/uapi/linux/netfilter/nf_tables.h).
        assert_eq!(types[..4], [16, 0xa00, 0xa03, 0xa03]);
        assert_eq!(
            (&types[4..13], &types[13..15], &types[15..20], &types[20..24]),
            (&[0xa09; 9][..], &[0xa0c; 2][..], &[0xa03; 5][..], &[0xa09; 4][..])
        );
        let (flush, rules) = (types[24], &types[25..types.len() - 1]);
        assert!(flush == 0xa08 && rules.iter().all(|kind| *kind == 0xa06) && types.last() == Some(&17), "{types:x?}");
        let numbers: Vec<u32> = messages(&batch.octets).map(|message| message.sequence_number()).collect();
        assert_eq!(numbers, (100..100 + types.len() as u32).collect::<Vec<u32>>());
        assert_eq!(batch.sequence, 101..=98 + types.len() as u32, "the brackets are not waited for");
    }

    #[test]
    fn a_rule_compares_address_protocol_and_port_and_skips_tracking() {
        let batch = replace(
            "nodelocaldns",
            TablePurpose::Untrack,
            &[Rule { mark: Some(0x10_0000), ..rule(Hook::RawOutput) }],
            1,
        );
        let octets = batch.octets;
        let has = |wanted: &[u8]| octets.windows(wanted.len()).any(|window| window == wanted);
        assert!(has(&[10, 96, 0, 10]) && has(&[0, 53]) && has(b"notrack\0") && has(b"counter\0"));
        assert!(has(&0x10_0000_u32.to_ne_bytes()) && has(b"bitwise\0"));
        assert!(has(COMMENT));
    }

    #[test]
    fn a_guard_untracks_no_query_has_no_owner_and_stands_before_iptables() {
        let rules = [
            rule(Hook::RawPrerouting),
            rule(Hook::RawOutput),
            Rule { end: PacketEnd::Source, ..rule(Hook::RawOutput) },
        ];
        let [owned, guard] = [TablePurpose::Untrack, TablePurpose::GuardIptables]
            .map(|purpose| replace("nodelocaldns", purpose, &rules, 1).octets);
        let has = |octets: &[u8], wanted: &[u8]| octets.windows(wanted.len()).any(|window| window == wanted);
        assert!(has(&owned, b"notrack\0") && !has(&guard, b"notrack\0"));
        assert!(has(&owned, &RAW_PRIORITY.to_be_bytes()) && has(&guard, &(RAW_PRIORITY - 1).to_be_bytes()));
        assert!(!has(&guard, &RAW_PRIORITY.to_be_bytes()));
    }
}
