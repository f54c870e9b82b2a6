//! The fallback's rules as nf_tables messages. Pure.

use super::{
    Batch, FAMILY, SUBSYSTEM, address_offset, bitwise, comment, compare, finish, header, load_meta, match_bits,
    match_packets,
};
use crate::node::desired::PacketEnd;
use crate::node::fallback_rules::{FallbackRule, FallbackStage, Redirection};
use netlink_bindings::nftables::{
    Chained, CtKeys, MetaKeys, PayloadBase, PushChainAttrs, PushExprListAttrs, Registers, VerdictCode,
};
use netlink_bindings::traits::Pusher;
use std::ffi::CStr;
use std::net::IpAddr;

/// What `nft list ruleset` shows beside each rule.
const COMMENT: &[u8] = b"NodeLocal DNS Cache: fallback\0";
/// `NF_CT_STATE_UNTRACKED_BIT` (include/uapi/linux/netfilter/nf_conntrack_common.h).
const UNTRACKED: u32 = 1 << 6;
/// `NFT_TABLE_F_DORMANT` (include/uapi/linux/netfilter/nf_tables.h).
const DORMANT: u32 = 1;
/// `IPS_DST_NAT` of a connection's status (same header).
const SENT_ON: u32 = 1 << 5;
/// `NFT_PAYLOAD_CSUM_INET`, of the IPv4 header, and where it stands there.
const HEADER_CHECKSUM: (u32, u32) = (1, 10);
/// `NFT_PAYLOAD_L4CSUM_PSEUDOHDR`: UDP's and TCP's checksums cover the addresses.
const PSEUDO_HEADER: u32 = 1;

/// A batch after which `table` holds exactly `rules`, whatever it was before; nobody owns it.
///
/// It is deleted and made anew in one step, so that also a table of another shape, from another version of this
/// program, can be replaced. To be deleted it must be there, hence the first message.
///
/// With `is_dormant` its chains stand at no hook (`NFT_TABLE_F_DORMANT`): no packet sees them.
pub(crate) fn replace(table: &str, rules: &[FallbackRule], is_dormant: bool, first_sequence: u32) -> Batch {
    let mut batch = Chained::new(first_sequence);
    let (family, destination) = (header(FAMILY, 0), header(0, SUBSYSTEM));
    batch.request().op_batch_begin_do(&destination);
    batch.request().set_create().op_newtable_do(&family).encode().push_name_bytes(table.as_bytes());
    batch.request().op_deltable_do(&family).encode().push_name_bytes(table.as_bytes());
    let flags = if is_dormant { DORMANT } else { 0 };
    batch.request().set_create().op_newtable_do(&family).encode().push_name_bytes(table.as_bytes()).push_flags(flags);
    for chain in FallbackChain::all() {
        let mut request = batch.request().set_create().op_newchain_do(&family);
        chain.push(request.encode().push_table_bytes(table.as_bytes()));
    }
    for rule in rules {
        let mut request = batch.request().set_create().set_append().op_newrule_do(&family);
        let chain = FallbackChain::of(rule.stage).name;
        let attributes = request.encode().push_table_bytes(table.as_bytes()).push_chain_bytes(chain.as_bytes());
        expressions(attributes.nested_expressions(), rule).end_nested().push_userdata(&comment(COMMENT));
    }
    batch.request().op_batch_end_do(&destination);
    finish(batch, first_sequence)
}

/// A stage's chain.
struct FallbackChain {
    name: &'static str,
    kind: &'static CStr,
    /// `NF_INET_…`
    hook: libc::c_int,
    priority: i32,
}

impl FallbackChain {
    fn all() -> Vec<Self> {
        let mut chains = Vec::from(FallbackStage::ALL.map(Self::of));
        // Stages that share one follow each other.
        chains.dedup_by_key(|chain| chain.name);
        chains
    }

    fn of(stage: FallbackStage) -> Self {
        let (name, kind, hook, priority) = match stage {
            // After those who keep packets from being tracked, before conntrack.
            FallbackStage::QueryPrerouting => {
                ("query-prerouting", c"filter", libc::NF_INET_PRE_ROUTING, libc::NF_IP_PRI_RAW + 1)
            }
            FallbackStage::QueryOutput => ("query-output", c"filter", libc::NF_INET_LOCAL_OUT, libc::NF_IP_PRI_RAW + 1),
            // After conntrack, before NAT. Not of type `route`, which would look for a way to a ClusterIP.
            FallbackStage::UnmarkPrerouting | FallbackStage::MarkPrerouting => {
                ("mark-prerouting", c"filter", libc::NF_INET_PRE_ROUTING, libc::NF_IP_PRI_MANGLE)
            }
            FallbackStage::UnmarkOutput | FallbackStage::MarkOutput => {
                ("mark-output", c"filter", libc::NF_INET_LOCAL_OUT, libc::NF_IP_PRI_MANGLE)
            }
            // Just before kube-proxy's, which then has nothing left to do.
            FallbackStage::SourcePostrouting | FallbackStage::ClusterSourcePostrouting => {
                ("source-postrouting", c"nat", libc::NF_INET_POST_ROUTING, libc::NF_IP_PRI_NAT_SRC - 1)
            }
            // After NAT, which has put the ClusterIP back.
            FallbackStage::AnswerPostrouting => {
                ("answer-postrouting", c"filter", libc::NF_INET_POST_ROUTING, libc::NF_IP_PRI_CONNTRACK_HELPER)
            }
            FallbackStage::AnswerInput => {
                ("answer-input", c"filter", libc::NF_INET_LOCAL_IN, libc::NF_IP_PRI_CONNTRACK_HELPER)
            }
        };
        Self { name, kind, hook, priority }
    }

    fn push<P: Pusher>(&self, attributes: PushChainAttrs<P>) {
        let hook = attributes.push_name_bytes(self.name.as_bytes()).nested_hook();
        let attributes = hook.push_num(self.hook as u32).push_priority(self.priority).end_nested();
        attributes.push_policy(VerdictCode::Accept as u32).push_type(self.kind);
    }
}

/// `rule` as the expressions that nf_tables evaluates from first to last, until one does not match. They hold nothing
/// that changes by itself, such as a counter: whoever lists them sees whether they are ours.
fn expressions<P: Pusher>(list: PushExprListAttrs<P>, rule: &FallbackRule) -> PushExprListAttrs<P> {
    let FallbackRule { stage, protocol, redirection: Redirection { local, upstream }, port, mark } = *rule;
    match stage {
        FallbackStage::QueryPrerouting | FallbackStage::QueryOutput => {
            let list = match_packets(list, protocol, PacketEnd::Destination, local, Some(port));
            let list = compare(bitwise(load_ct(list, CtKeys::State), UNTRACKED, 0), &[0; 4]);
            let list = set_meta_mark(bitwise(load_meta(list, MetaKeys::Mark), !mark, mark));
            write_address(list, PacketEnd::Destination, upstream)
        }
        FallbackStage::UnmarkPrerouting | FallbackStage::UnmarkOutput => {
            let list = match_packets(list, protocol, PacketEnd::Destination, upstream, Some(port));
            let list = compare(bitwise(load_meta(list, MetaKeys::Mark), mark, 0), &[0; 4]);
            let list = match_bits(load_ct(list, CtKeys::Mark), mark);
            set_ct_mark(bitwise(load_ct(list, CtKeys::Mark), !mark, 0))
        }
        FallbackStage::MarkPrerouting | FallbackStage::MarkOutput => {
            let list = match_packets(list, protocol, PacketEnd::Destination, upstream, Some(port));
            let list = match_bits(load_meta(list, MetaKeys::Mark), mark);
            let list = set_ct_mark(bitwise(load_ct(list, CtKeys::Mark), !mark, mark));
            set_meta_mark(bitwise(load_meta(list, MetaKeys::Mark), !mark, 0))
        }
        FallbackStage::SourcePostrouting => {
            let list = match_packets(list, protocol, PacketEnd::Source, local, None);
            let list = match_bits(load_ct(list, CtKeys::Mark), mark);
            list.nested_elem().push_name(c"masq").end_nested()
        }
        FallbackStage::ClusterSourcePostrouting => {
            let list = match_packets(list, protocol, PacketEnd::Source, local, None);
            let list = match_bits(load_ct(list, CtKeys::Status), SENT_ON);
            list.nested_elem().push_name(c"masq").end_nested()
        }
        FallbackStage::AnswerPostrouting | FallbackStage::AnswerInput => {
            let list = match_packets(list, protocol, PacketEnd::Source, upstream, Some(port));
            let list = match_bits(load_ct(list, CtKeys::Mark), mark);
            write_address(list, PacketEnd::Source, local)
        }
    }
}

fn load_ct<P: Pusher>(list: PushExprListAttrs<P>, key: CtKeys) -> PushExprListAttrs<P> {
    let ct = list.nested_elem().nested_data_ct();
    ct.push_key(key as u32).push_dreg(Registers::Reg1 as u32).end_nested().end_nested()
}

fn set_ct_mark<P: Pusher>(list: PushExprListAttrs<P>) -> PushExprListAttrs<P> {
    let ct = list.nested_elem().nested_data_ct();
    ct.push_key(CtKeys::Mark as u32).push_sreg(Registers::Reg1 as u32).end_nested().end_nested()
}

fn set_meta_mark<P: Pusher>(list: PushExprListAttrs<P>) -> PushExprListAttrs<P> {
    let meta = list.nested_elem().nested_data_meta();
    meta.push_key(MetaKeys::Mark as u32).push_sreg(Registers::Reg1 as u32).end_nested().end_nested()
}

/// Puts `address` into the packet, and mends the checksums.
fn write_address<P: Pusher>(list: PushExprListAttrs<P>, end: PacketEnd, address: IpAddr) -> PushExprListAttrs<P> {
    let (octets, (checksum, checksum_offset)) = match address {
        IpAddr::V4(address) => (address.octets().to_vec(), HEADER_CHECKSUM),
        IpAddr::V6(address) => (address.octets().to_vec(), (0, 0)),
    };
    let immediate = list.nested_elem().nested_data_immediate().push_dreg(Registers::Reg1 as u32);
    let list = immediate.nested_data().push_value(&octets).end_nested().end_nested().end_nested();
    let payload = list.nested_elem().nested_data_payload().push_sreg(Registers::Reg1 as u32);
    let payload = payload.push_base(PayloadBase::NetworkHeader as u32).push_offset(address_offset(address, end));
    let payload = payload.push_len(octets.len() as u32).push_csum_type(checksum).push_csum_offset(checksum_offset);
    payload.push_csum_flags(PSEUDO_HEADER).end_nested().end_nested()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::node::fallback_rules::Fallback;
    use crate::node::nftables::message::messages;

    #[test]
    fn the_table_is_deleted_and_made_anew_in_one_batch() {
        let batch = replace("fallback", &Fallback::sample().rules(53, &[]), false, 7);
        let types: Vec<u16> = messages(&batch.octets).map(|message| message.message_type()).collect();
        // begin, table made and deleted and made, its chains and rules, end (include/uapi/linux/netfilter/nf_tables.h).
        assert_eq!(types[..4], [16, 0xa00, 0xa02, 0xa00]);
        assert_eq!(types[4..11], [0xa03; 7]);
        assert_eq!(types[11..47], [0xa06; 36]);
        assert_eq!(types[47..], [17]);
        assert_eq!(batch.sequence, 8..=53);
    }

    #[test]
    fn queries_go_by_the_untracked_before_conntrack_and_answers_come_after_nat() {
        let priorities: Vec<i32> = FallbackChain::all().iter().map(|chain| chain.priority).collect();
        assert_eq!(priorities, [-299, -299, -150, -150, 99, 300, 300]);
        let names: std::collections::HashSet<&str> = FallbackChain::all().iter().map(|chain| chain.name).collect();
        assert_eq!(names.len(), priorities.len());
    }

    #[test]
    fn both_addresses_of_each_redirection_are_in_the_rules() {
        let octets = replace("fallback", &Fallback::sample().rules(53, &[]), false, 1).octets;
        let count = |wanted: &[u8]| octets.windows(wanted.len()).filter(|window| *window == wanted).count();
        // Local in queries (2), source (1), answers (2); upstream in queries (2), marks (4), answers (2); over UDP and
        // TCP.
        assert_eq!((count(&[169, 254, 20, 10]), count(&[10, 96, 0, 11])), (10, 16));
        assert_eq!(count(b"masq\0"), 4);
    }
}
