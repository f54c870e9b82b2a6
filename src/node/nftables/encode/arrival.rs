//! The part of the owned table by which the kernel itself keeps to two rules: a client's packets are only kept from
//! kube-proxy while they arrive behind the node's packet filter, and anybody's only while the watchdog asks its
//! questions.
//!
//! # Arrival
//!
//! What is between raw priority and the socket may eat a pod's packet: a firewall, policy routing, rp_filter, an eBPF
//! program. So the kernel notes, by interface and source address, whose packets come through:
//!
//! - `arriving`: clients of which a packet has passed the last chain of the input hook within [`ARRIVING_FOR`].
//! - `noted`: those of which that was written down within half that time, so that a packet costs one look-up at either
//!   end and hardly ever more (0.4 µs a query more than rules without sets, where a write for each packet took 0.9; a
//!   flood over veth on Linux 6.18, sender and softirq together 5.2 µs).
//! - `blocked`: clients of which a packet was let in and has not arrived. Their other packets take the way that they
//!   would take without this program, for [`FIRST_PAUSE`]; then one is tried again. Arrival takes a client out at once.
//! - `trying`: clients of which a packet was let in less than [`TRYING_FOR`] ago, so that a second packet, which
//!   another processor handles at the same moment, goes the same way.
//!
//! A client that asks is thus `arriving`, or one packet in [`FIRST_PAUSE`] is at stake, and fewer once
//! [`ArrivalTracker`](crate::node::arrival::ArrivalTracker) lengthens the pause. No process takes part in it, so it
//! holds when none of ours runs. Where a set is full the packet goes on as without this program.
//!
//! # The lease
//!
//! Each probe of the watchdog puts its family into `watched` for [`WATCHED_FOR`]. Without that no client's arrival is
//! noted and none is tried: a watchdog that is stopped or hangs, and could not withdraw the rules, intercepts nothing.

use super::{
    Batch, FAMILY, PREROUTING, SUBSYSTEM, TablePurpose, compare_meta, finish, header, load_meta, match_packets,
    notrack, track,
};
use crate::node::arrival::{ArrivingClient, FIRST_PAUSE};
use crate::node::desired::{Hook, Rule};
use netlink_bindings::nftables::{
    Chained, MetaKeys, PayloadBase, PushExprListAttrs, PushSetAttrs, Registers, SetFlags, VerdictCode,
};
use netlink_bindings::traits::Pusher;
use netlink_bindings::utils::{finalize_nested_header, push_header, push_nested_header};
use std::ffi::CStr;
use std::net::IpAddr;
use std::time::Duration;

/// How long a packet's arrival stands for those that follow, and with that how long a firewall that appears can eat
/// them. Twice the time would lose twice as many; with half of it, more clients that ask now and then would be tried
/// anew.
const ARRIVING_FOR: Duration = Duration::from_millis(150);
const NOTED_FOR: Duration = Duration::from_millis(75);
/// Longer than the way from one hook to the other takes, on a machine that is not stuck. Two ticks of a kernel with 100
/// a second: what is less than one was no limit at all before Linux 6.12 (`nf_msecs_to_jiffies64`).
const TRYING_FOR: Duration = Duration::from_millis(20);
/// Twenty probes over UDP.
const WATCHED_FOR: Duration = Duration::from_secs(2);
/// Before Linux 6.5 and its stable branches of summer 2023 an element that a packet deletes keeps its place in the set:
/// after so many tries that went well nobody is tried any more, and cluster DNS answers, until the table is made anew.
///
/// A node has some hundred pods. What a pod that makes up source addresses can take of the kernel's memory is about 1
/// MiB a set.
const SET_SIZE: u32 = 8192;
/// Behind every filter: connections are confirmed at the very last place (`NF_IP_PRI_CONNTRACK_CONFIRM`), which leaves
/// untracked packets alone.
const LAST_PRIORITY: i32 = i32::MAX - 1;

/// `NFTA_DYNSET_SET_NAME` and `NFTA_LOOKUP_SET`, `NFTA_LOOKUP_SREG`, `NFTA_DYNSET_OP`, `NFTA_DYNSET_SREG_KEY`
/// (include/uapi/linux/netfilter/nf_tables.h).
const SET_NAME: u16 = 1;
const LOOKUP_REGISTER: u16 = 2;
const DYNSET_OPERATION: u16 = 3;
const DYNSET_KEY_REGISTER: u16 = 4;
/// `NFTA_DYNSET_TIMEOUT`, of 64 bits.
const DYNSET_TIMEOUT: u16 = 6;
/// `NFTA_EXPR_DATA`.
const EXPRESSION_DATA: u16 = 2;
/// Data types by which `nft` shows a key (its src/datatype.h); two of them side by side are one key.
const TYPE_NF_PROTO: u32 = 2;
const TYPE_IPV4_ADDRESS: u32 = 7;
const TYPE_IPV6_ADDRESS: u32 = 8;
pub(super) const TYPE_INTERFACE: u32 = 20;
pub(super) const TYPE_BITS: u32 = 6;

/// The index of `lo`, in every network namespace (`LOOPBACK_IFINDEX`).
pub(super) const LOOPBACK_INDEX: u32 = 1;

type List = PushExprListAttrs<Vec<u8>>;

/// What is done to a set by a packet (`NFT_DYNSET_OP_*`).
#[derive(Clone, Copy)]
pub(super) enum SetOperation {
    /// The key is there, and if it was, its time goes on.
    Add = 0,
    /// The key is there, and its time begins anew.
    Update = 1,
    /// The key is not there. Linux 5.6.
    Delete = 2,
}

/// The sets and chains of one family.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct FamilyChains {
    /// Clients whose packets arrive.
    pub arriving: &'static str,
    noted: &'static str,
    trying: &'static str,
    /// Clients whose packets were let in and did not arrive.
    pub blocked: &'static str,
    /// Where a packet for a listen address goes at raw priority,
    enter: &'static str,
    /// and at the end of the input hook.
    arrive: &'static str,
    address_type: u32,
    /// Octets of an address, and where a source address stands in the header (RFC 791 section 3.1, RFC 8200 section 3).
    address_length: u32,
    source_offset: u32,
}

/// Both.
pub(crate) const FAMILIES: [FamilyChains; 2] = [
    FamilyChains {
        arriving: "arriving-ip",
        noted: "noted-ip",
        trying: "trying-ip",
        blocked: "blocked-ip",
        enter: "enter-ip",
        arrive: "arrive-ip",
        address_type: TYPE_IPV4_ADDRESS,
        address_length: 4,
        source_offset: 12,
    },
    FamilyChains {
        arriving: "arriving-ip6",
        noted: "noted-ip6",
        trying: "trying-ip6",
        blocked: "blocked-ip6",
        enter: "enter-ip6",
        arrive: "arrive-ip6",
        address_type: TYPE_IPV6_ADDRESS,
        address_length: 16,
        source_offset: 8,
    },
];

/// Families of which the watchdog has asked a question.
const WATCHED: &str = "watched";
/// The base chain at the end of the input hook.
const ARRIVED: &str = "arrived";

/// Whether a packet that is handed to `chain` of the owned table may be left untracked there.
pub(crate) fn is_entrance(chain: &[u8]) -> bool {
    FAMILIES.iter().any(|family| family.enter.as_bytes() == chain)
}

/// Whether `set` is that of the lease.
pub(crate) fn is_lease(set: &[u8]) -> bool {
    set == WATCHED.as_bytes()
}

fn family_of(address: IpAddr) -> FamilyChains {
    let [ipv4, ipv6] = FAMILIES;
    if address.is_ipv4() { ipv4 } else { ipv6 }
}

/// Sets and chains, before any rule that names them. Sets that are there keep what they hold, and the lease is there.
pub(super) fn push_frame(batch: &mut Chained<'_>, table: &str) {
    let family = header(FAMILY, 0);
    let mut id = 0;
    let mut set = |name: &str, key_type: u32, key_length: u32, timeout: Duration, size: u32| {
        id += 1;
        push_set(batch, table, id, name, (key_type, key_length), timeout, size);
    };
    set(WATCHED, TYPE_NF_PROTO, 1, WATCHED_FOR, 8);
    for FamilyChains { arriving, noted, trying, blocked, address_type, address_length, .. } in FAMILIES {
        let (key_type, key_length) = (TYPE_INTERFACE << TYPE_BITS | address_type, 4 + address_length);
        set(arriving, key_type, key_length, ARRIVING_FOR, SET_SIZE);
        set(noted, key_type, key_length, NOTED_FOR, SET_SIZE);
        set(trying, key_type, key_length, TRYING_FOR, SET_SIZE);
        set(blocked, key_type, key_length, FIRST_PAUSE, SET_SIZE);
    }
    // Who writes this is told by the watchdog: a table that somebody took away need not wait for its next probe.
    for number in [libc::NFPROTO_IPV4, libc::NFPROTO_IPV6] {
        let mut request = batch.request().set_create().op_newsetelem_do(&family);
        let elements =
            request.encode().push_table_bytes(table.as_bytes()).push_set_bytes(WATCHED.as_bytes()).nested_elements();
        elements.nested_elem().nested_key().push_value(&[number as u8]).end_nested().end_nested().end_nested();
    }
    for name in FAMILIES.iter().flat_map(|family| [family.enter, family.arrive]) {
        let mut request = batch.request().set_create().op_newchain_do(&family);
        request.encode().push_table_bytes(table.as_bytes()).push_name_bytes(name.as_bytes());
    }
    let mut request = batch.request().set_create().op_newchain_do(&family);
    let chain = request.encode().push_table_bytes(table.as_bytes()).push_name_bytes(ARRIVED.as_bytes());
    let hook = chain.nested_hook().push_num(libc::NF_INET_LOCAL_IN as u32).push_priority(LAST_PRIORITY);
    hook.end_nested().push_policy(VerdictCode::Accept as u32).push_type(c"filter");
}

/// A set of at most `size` keys, of which each goes after its time; of a key its type and length. No other set of the
/// batch has this `id`.
pub(super) fn push_set(
    batch: &mut Chained<'_>,
    table: &str,
    id: u32,
    name: &str,
    (key_type, key_length): (u32, u32),
    timeout: Duration,
    size: u32,
) {
    let family = header(FAMILY, 0);
    let mut request = batch.request().set_create().op_newset_do(&family);
    let set: PushSetAttrs<_> = request.encode().push_table_bytes(table.as_bytes()).push_name_bytes(name.as_bytes());
    let flags = SetFlags::Timeout as u32 | SetFlags::Eval as u32;
    let set = set.push_flags(flags).push_key_type(key_type).push_key_len(key_length);
    let set = set.nested_desc().push_size(size).end_nested();
    set.push_id(id).push_timeout(milliseconds(timeout));
}

/// As the kernel wants them; `netlink-bindings` leaves the order of the octets as it is.
fn milliseconds(time: Duration) -> u64 {
    u64::try_from(time.as_millis()).unwrap_or(u64::MAX).to_be()
}

/// A batch after which each of `clients` is left alone for so long from now on.
///
/// # Errors
///
/// The kernel's: one of them has been freed meanwhile.
pub(crate) fn lengthen(table: &str, clients: &[(ArrivingClient, Duration)], first_sequence: u32) -> Batch {
    let mut batch = Chained::new(first_sequence);
    let (family, destination) = (header(FAMILY, 0), header(0, SUBSYSTEM));
    batch.request().op_batch_begin_do(&destination);
    for (client, pause) in clients {
        let set = family_of(client.address).blocked.as_bytes();
        // Kernels before 6.12 keep the time of an element that is there.
        let mut request = batch.request().op_delsetelem_do(&family);
        let elements = request.encode().push_table_bytes(table.as_bytes()).push_set_bytes(set).nested_elements();
        elements.nested_elem().nested_key().push_value(&key(client)).end_nested().end_nested().end_nested();
        drop(request);
        let mut request = batch.request().set_create().op_newsetelem_do(&family);
        let elements = request.encode().push_table_bytes(table.as_bytes()).push_set_bytes(set).nested_elements();
        let element = elements.nested_elem().nested_key().push_value(&key(client)).end_nested();
        element.push_timeout(milliseconds(*pause)).end_nested().end_nested();
    }
    batch.request().op_batch_end_do(&destination);
    finish(batch, first_sequence)
}

/// A batch after which nobody is left alone.
pub(crate) fn free_all(table: &str, first_sequence: u32) -> Batch {
    let mut batch = Chained::new(first_sequence);
    batch.request().op_batch_begin_do(&header(0, SUBSYSTEM));
    for family in FAMILIES {
        let header = header(FAMILY, 0);
        let mut request = batch.request().op_delsetelem_do(&header);
        request.encode().push_table_bytes(table.as_bytes()).push_set_bytes(family.blocked.as_bytes());
    }
    batch.request().op_batch_end_do(&header(0, SUBSYSTEM));
    finish(batch, first_sequence)
}

/// A client as the sets hold it.
fn key(client: &ArrivingClient) -> Vec<u8> {
    let mut key = client.interface.to_ne_bytes().to_vec();
    match client.address {
        IpAddr::V4(address) => key.extend(address.octets()),
        IpAddr::V6(address) => key.extend(address.octets()),
    }
    key
}

/// The inverse: none for a key of another length.
pub(crate) fn client(key: &[u8]) -> Option<ArrivingClient> {
    let (interface, address) = key.split_first_chunk::<4>()?;
    let address = match address.len() {
        4 => IpAddr::from(<[u8; 4]>::try_from(address).ok()?),
        _ => IpAddr::from(<[u8; 16]>::try_from(address).ok()?),
    };
    Some(ArrivingClient { interface: u32::from_ne_bytes(*interface), address })
}

/// A chain of the table, and the expressions of a rule in it.
pub(super) type ArrivalRule = (&'static str, Vec<u8>);

/// What decides on packets, family by family, and notes their arrival; `rules` say which packets.
pub(super) fn rules(rules: &[Rule], purpose: TablePurpose) -> Vec<ArrivalRule> {
    let mut all = Vec::new();
    let let_in = |list| let_in(list, purpose);
    for family in FAMILIES {
        let FamilyChains { arriving, noted, trying, blocked, enter, arrive, .. } = family;
        let is_in = |list, set| look_up(load_client(list, family), set);
        let change_in = |list, set, operation| change(load_client(list, family), set, operation);
        all.push((enter, written(|list| let_in(is_in(list, arriving)))));
        all.push((enter, written(|list| let_in(is_in(list, trying)))));
        all.push((enter, written(|list| go_back(is_in(list, blocked)))));
        let tried =
            |list| change_in(change_in(match_lease(list), blocked, SetOperation::Add), trying, SetOperation::Update);
        // If a set is full, or nobody watches, it goes back too.
        all.push((enter, written(|list| let_in(tried(list)))));
        all.push((arrive, written(|list| accept(is_in(list, noted)))));
        // Not in one rule with what follows: where there is nothing to delete, it ends there.
        all.push((arrive, written(|list| change_in(list, blocked, SetOperation::Delete))));
        let note =
            |list| change_in(change_in(match_lease(list), arriving, SetOperation::Update), noted, SetOperation::Update);
        all.push((arrive, written(note)));
    }
    for chain in [PREROUTING, ARRIVED] {
        all.push((chain, written(|list| accept(match_loopback(list)))));
    }
    for rule in rules.iter().filter(|rule| rule.hook == Hook::RawPrerouting) {
        let packets = |list| match_packets(list, rule.protocol, rule.end, rule.address, Some(rule.port));
        all.push((ARRIVED, written(|list| jump(packets(list), family_of(rule.address).arrive))));
    }
    all
}

/// The octets of the expressions that `write` adds to an empty list.
pub(super) fn written(write: impl FnOnce(List) -> List) -> Vec<u8> {
    write(PushExprListAttrs::new(Vec::new())).end_nested()
}

/// Packets of programs on the node: OUTPUT has decided on them.
fn match_loopback<P: Pusher>(list: PushExprListAttrs<P>) -> PushExprListAttrs<P> {
    compare_meta(list, MetaKeys::Iif, &LOOPBACK_INDEX.to_ne_bytes())
}

/// Hands the packet to where `address`' family is decided on.
pub(super) fn enter<P: Pusher>(list: PushExprListAttrs<P>, address: IpAddr) -> PushExprListAttrs<P> {
    jump(list, family_of(address).enter)
}

/// The watchdog has asked a question.
pub(super) fn renew_lease<P: Pusher>(list: PushExprListAttrs<P>) -> PushExprListAttrs<P> {
    change(load_meta(list, MetaKeys::Nfproto), WATCHED, SetOperation::Update)
}

/// Goes on if the watchdog has asked lately.
pub(super) fn match_lease<P: Pusher>(list: PushExprListAttrs<P>) -> PushExprListAttrs<P> {
    look_up(load_meta(list, MetaKeys::Nfproto), WATCHED)
}

/// The key of a client: the interface by which its packet came in, and its address.
fn load_client<P: Pusher>(list: PushExprListAttrs<P>, family: FamilyChains) -> PushExprListAttrs<P> {
    let list = load_meta(list, MetaKeys::Iif);
    let payload = list.nested_elem().nested_data_payload().push_dreg(Registers::Reg3201 as u32);
    let payload = payload.push_base(PayloadBase::NetworkHeader as u32).push_offset(family.source_offset);
    payload.push_len(family.address_length).end_nested().end_nested()
}

/// Goes on if what was loaded is in `set`.
pub(super) fn look_up<P: Pusher>(list: PushExprListAttrs<P>, set: &str) -> PushExprListAttrs<P> {
    about_set(list, c"lookup", set, &[(LOOKUP_REGISTER, Registers::Reg1 as u32)], None)
}

/// Goes on if it could be done to what was loaded.
pub(super) fn change<P: Pusher>(
    list: PushExprListAttrs<P>,
    set: &str,
    operation: SetOperation,
) -> PushExprListAttrs<P> {
    let key = (DYNSET_KEY_REGISTER, Registers::Reg1 as u32);
    about_set(list, c"dynset", set, &[(DYNSET_OPERATION, operation as u32), key], None)
}

/// Goes on if what was loaded could be put into `set`, for so long instead of the set's time, or was there.
pub(super) fn add_for<P: Pusher>(list: PushExprListAttrs<P>, set: &str, timeout: Duration) -> PushExprListAttrs<P> {
    let numbers = [(DYNSET_OPERATION, SetOperation::Add as u32), (DYNSET_KEY_REGISTER, Registers::Reg1 as u32)];
    about_set(list, c"dynset", set, &numbers, Some(timeout))
}

/// An expression whose first attribute is the name of a set. `netlink-bindings` 0.3.5 has no `dynset`, and numbers the
/// attributes of `lookup` otherwise than the kernel.
fn about_set<P: Pusher>(
    list: PushExprListAttrs<P>,
    name: &CStr,
    set: &str,
    numbers: &[(u16, u32)],
    timeout: Option<Duration>,
) -> PushExprListAttrs<P> {
    let mut expression = list.nested_elem().push_name(name);
    let octets = expression.as_vec_mut();
    let data = push_nested_header(octets, EXPRESSION_DATA);
    push_header(octets, SET_NAME, set.len() as u16 + 1);
    octets.extend_from_slice(set.as_bytes());
    octets.push(0);
    for (attribute, value) in numbers {
        push_header(octets, *attribute, 4);
        octets.extend_from_slice(&value.to_be_bytes());
    }
    if let Some(timeout) = timeout {
        push_header(octets, DYNSET_TIMEOUT, 8);
        octets.extend_from_slice(&milliseconds(timeout).to_ne_bytes());
    }
    finalize_nested_header(octets, data);
    expression.end_nested()
}

/// The packet is the cache's, by this table or by iptables, which comes next.
pub(super) fn let_in<P: Pusher>(list: PushExprListAttrs<P>, purpose: TablePurpose) -> PushExprListAttrs<P> {
    accept(if purpose == TablePurpose::Untrack { notrack(list) } else { list })
}

/// The packet is left to others, whatever iptables says next.
pub(super) fn leave<P: Pusher>(list: PushExprListAttrs<P>, purpose: TablePurpose) -> PushExprListAttrs<P> {
    if purpose == TablePurpose::GuardIptables { track(list) } else { list }
}

/// Ends the packet's way through this table's chain, not through others' at the same hook.
pub(super) fn accept<P: Pusher>(list: PushExprListAttrs<P>) -> PushExprListAttrs<P> {
    decide(list, VerdictCode::Accept)
}

/// Sends the packet back to the chain from which it came here.
fn go_back<P: Pusher>(list: PushExprListAttrs<P>) -> PushExprListAttrs<P> {
    decide(list, VerdictCode::Return)
}

fn decide<P: Pusher>(list: PushExprListAttrs<P>, verdict: VerdictCode) -> PushExprListAttrs<P> {
    let immediate = list.nested_elem().nested_data_immediate().push_dreg(Registers::RegVerdict as u32);
    let verdict = immediate.nested_data().nested_verdict().push_code(verdict as u32);
    verdict.end_nested().end_nested().end_nested().end_nested()
}

fn jump<P: Pusher>(list: PushExprListAttrs<P>, chain: &str) -> PushExprListAttrs<P> {
    let immediate = list.nested_elem().nested_data_immediate().push_dreg(Registers::RegVerdict as u32);
    let verdict = immediate.nested_data().nested_verdict().push_code(VerdictCode::Jump as u32);
    verdict.push_chain_bytes(chain.as_bytes()).end_nested().end_nested().end_nested().end_nested()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::node::desired::{PacketEnd, TransportProtocol};
    use crate::node::nftables::message::messages;

    #[test]
    fn a_client_comes_out_of_its_key_as_it_went_in() {
        for address in ["10.244.1.2", "fd00:1::3"] {
            let expected = ArrivingClient { interface: 77, address: address.parse().unwrap() };
            assert_eq!(client(&key(&expected)), Some(expected));
        }
        assert_eq!(client(&[]), None);
        assert_eq!(client(&[0; 9]), None);
    }

    #[test]
    fn arrival_is_noted_for_what_may_come_in_and_nothing_else() {
        let entering = Rule {
            hook: Hook::RawPrerouting,
            protocol: TransportProtocol::Udp,
            end: PacketEnd::Destination,
            address: [10, 96, 0, 10].into(),
            port: 53,
            mark: None,
        };
        let noted = |rules: &[Rule]| {
            super::rules(rules, TablePurpose::Untrack).iter().filter(|(chain, _)| *chain == ARRIVED).count()
        };
        assert_eq!(noted(&[]), 1, "what comes by lo is passed by");
        assert_eq!(noted(&[entering, Rule { hook: Hook::RawOutput, ..entering }]), 2);
    }

    #[test]
    fn a_longer_pause_takes_the_place_of_the_one_before_in_one_step() {
        let client = ArrivingClient { interface: 7, address: [10, 244, 1, 2].into() };
        let batch = lengthen("nodelocaldns", &[(client, Duration::from_secs(20))], 1);
        let types: Vec<u16> = messages(&batch.octets).map(|message| message.message_type()).collect();
        assert_eq!(types, [16, 0xa0e, 0xa0c, 17]);
        assert!(batch.octets.windows(8).any(|window| window == 20_000_u64.to_be_bytes()));
    }
}
