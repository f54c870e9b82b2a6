//! The registers of nf_tables for a packet that is known only in part.

use super::Packet;
use crate::node::desired::{PacketEnd, TransportProtocol};
use crate::node::nftables::{NetfilterHook, SetElement};
use netlink_bindings::nftables::{CmpOps, CtKeys, FibFlags, MetaKeys, PayloadBase};
use std::cmp::Ordering;
use std::net::IpAddr;

/// Sixteen registers of four octets, behind the one for verdicts, which is not kept.
const LENGTH: usize = 64;
/// The first of the numbers by which registers of four octets go (`NFT_REG32_00`); those before it have sixteen.
const FIRST_SHORT: u32 = 8;
/// `NF_CT_STATE_UNTRACKED_BIT` (include/uapi/linux/netfilter/nf_conntrack_common.h).
const UNTRACKED: u32 = 1 << 6;
/// `RTN_LOCAL` (include/uapi/linux/rtnetlink.h).
const LOCAL: u32 = 2;
/// `NFT_FIB_RESULT_ADDRTYPE` (include/uapi/linux/netfilter/nf_tables.h); `netlink-bindings` has another number for it.
const FIB_ADDRESS_TYPE: u32 = 3;
/// Index and name of the loopback link, the same in every network namespace.
const LOOPBACK_INDEX: u32 = 1;
const LOOPBACK_NAME: &[u8] = b"lo\0";
/// `IFNAMSIZ`
const NAME_LENGTH: usize = 16;

/// Whether something is so.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(in crate::node) enum Certainty {
    No,
    Maybe,
    Yes,
}

impl Certainty {
    pub(in crate::node) fn of(is_so: bool) -> Self {
        if is_so { Self::Yes } else { Self::No }
    }

    /// The contrary, if `is_inverted`.
    pub(in crate::node) fn inverted(self, is_inverted: bool) -> Self {
        match (self, is_inverted) {
            (Self::No, true) => Self::Yes,
            (Self::Yes, true) => Self::No,
            _ => self,
        }
    }
}

/// What the registers hold; octets that are not known are none.
pub(super) struct Registers {
    octets: [Option<u8>; LENGTH],
    /// Where there is the name or the index of a link that is not `lo`, but not known else.
    foreign_link: Option<usize>,
}

impl Registers {
    pub(super) fn new() -> Self {
        Self { octets: [None; LENGTH], foreign_link: None }
    }

    /// What `meta` loads.
    pub(super) fn load_meta(&mut self, key: u32, register: u32, packet: &Packet) {
        let is_key = |wanted: MetaKeys| key == wanted as u32;
        let (is_ipv6, is_input) = (packet.address.is_ipv6(), packet.at == NetfilterHook::Input);
        if is_key(MetaKeys::Iifname) || is_key(MetaKeys::Oifname) || is_key(MetaKeys::Iif) || is_key(MetaKeys::Oif) {
            let has_link = is_input == (is_key(MetaKeys::Iifname) || is_key(MetaKeys::Iif));
            let is_name = is_key(MetaKeys::Iifname) || is_key(MetaKeys::Oifname);
            let length = if is_name { NAME_LENGTH } else { 4 };
            let loopback = if is_name { LOOPBACK_NAME.to_vec() } else { LOOPBACK_INDEX.to_ne_bytes().to_vec() };
            if has_link && !packet.is_loopback {
                self.write(register, vec![None; length]);
                self.foreign_link = offset(register);
            } else {
                // At a hook that has no such link, the kernel loads zeros.
                let mut octets = if has_link { loopback } else { Vec::new() };
                octets.resize(length, 0);
                self.write_known(register, &octets);
            }
        } else if is_key(MetaKeys::Nfproto) {
            self.write_known(register, &[if is_ipv6 { libc::NFPROTO_IPV6 } else { libc::NFPROTO_IPV4 } as u8]);
        } else if is_key(MetaKeys::L4Proto) {
            self.write_known(register, &[protocol_number(packet.protocol)]);
        } else if is_key(MetaKeys::Protocol) {
            let number = if is_ipv6 { libc::ETH_P_IPV6 } else { libc::ETH_P_IP };
            self.write_known(register, &(number as u16).to_be_bytes());
        } else if is_key(MetaKeys::Pkttype) && is_input {
            // `PACKET_HOST`: neither to many nor to somebody else.
            self.write_known(register, &[0]);
        } else {
            self.load_unknown(register);
        }
    }

    /// What `ct` loads of a packet that is untracked; false if the rule ends there, since there is no connection to
    /// ask.
    pub(super) fn load_ct(&mut self, key: u32, register: u32) -> bool {
        let is_state = key == CtKeys::State as u32;
        if is_state {
            self.write_known(register, &UNTRACKED.to_ne_bytes());
        }
        is_state
    }

    /// What `fib` loads.
    pub(super) fn load_fib(&mut self, flags: u32, result: u32, register: u32, packet: &Packet) {
        let is_ours = packet.end == PacketEnd::Destination && flags == FibFlags::Daddr as u32;
        if is_ours && result == FIB_ADDRESS_TYPE {
            self.write_known(register, &LOCAL.to_ne_bytes());
        } else {
            self.load_unknown(register);
        }
    }

    /// What `payload` loads.
    pub(super) fn load_payload(&mut self, base: u32, offset: u32, length: u32, register: u32, packet: &Packet) {
        let (offset, length) = (offset as usize, (length as usize).min(LENGTH));
        let mut header = vec![None; offset.saturating_add(length).min(256)];
        let mut put = |place: usize, octets: &[u8]| {
            for (index, octet) in octets.iter().enumerate() {
                if let Some(known) = header.get_mut(place + index) {
                    *known = Some(*octet);
                }
            }
        };
        let is_source = packet.end == PacketEnd::Source;
        if base == PayloadBase::NetworkHeader as u32 {
            match packet.address {
                IpAddr::V4(address) => {
                    put(9, &[protocol_number(packet.protocol)]);
                    put(if is_source { 12 } else { 16 }, &address.octets());
                }
                IpAddr::V6(address) => put(if is_source { 8 } else { 24 }, &address.octets()),
            }
        } else if base == PayloadBase::TransportHeader as u32 {
            put(if is_source { 0 } else { 2 }, &packet.port.to_be_bytes());
        }
        self.write(register, header.get(offset..).unwrap_or_default().to_vec());
    }

    /// Something that is not known.
    pub(super) fn load_unknown(&mut self, register: u32) {
        self.write(register, vec![None; NAME_LENGTH]);
    }

    pub(super) fn write_known(&mut self, register: u32, octets: &[u8]) {
        self.write(register, octets.iter().copied().map(Some).collect());
    }

    /// `(source & mask) ^ xor`
    pub(super) fn bitwise(&mut self, source: u32, register: u32, mask: &[u8], xor: &[u8]) {
        let octets = self.read(source, mask.len());
        let changed = octets.iter().zip(mask).zip(xor.iter().chain(std::iter::repeat(&0)));
        let changed = changed.map(|((octet, mask), xor)| match (octet, mask) {
            (_, 0) => Some(*xor),
            (octet, mask) => octet.map(|octet| (octet & mask) ^ xor),
        });
        self.write(register, changed.collect());
    }

    /// Whether `operator` (`NFT_CMP_…`) holds of the register and `value`.
    pub(super) fn compares(&self, register: u32, operator: u32, value: &[u8]) -> Certainty {
        let is_operator = |wanted: CmpOps| operator == wanted as u32;
        if is_operator(CmpOps::Eq) || is_operator(CmpOps::Neq) {
            return self.equals(register, value).inverted(is_operator(CmpOps::Neq));
        }
        let Some(order) = self.order(register, value) else { return Certainty::Maybe };
        match operator {
            _ if is_operator(CmpOps::Lt) => Certainty::of(order == Ordering::Less),
            _ if is_operator(CmpOps::Lte) => Certainty::of(order != Ordering::Greater),
            _ if is_operator(CmpOps::Gt) => Certainty::of(order == Ordering::Greater),
            _ if is_operator(CmpOps::Gte) => Certainty::of(order != Ordering::Less),
            _ => Certainty::Maybe,
        }
    }

    /// Whether it is neither less than `from` nor greater than `to`.
    pub(super) fn is_between(&self, register: u32, from: &[u8], to: &[u8]) -> Certainty {
        match (self.order(register, from), self.order(register, to)) {
            (Some(from), Some(to)) => Certainty::of(from != Ordering::Less && to != Ordering::Greater),
            _ => Certainty::Maybe,
        }
    }

    /// The elements that the register may be in, and how sure that is of each. The catch-all element is among them
    /// unless another one is sure.
    pub(super) fn elements<'a>(&self, register: u32, elements: &'a [SetElement]) -> Vec<(Certainty, &'a SetElement)> {
        let mut found = if elements.iter().any(|element| element.ends_interval) {
            self.intervals(register, elements)
        } else {
            let keyed = elements.iter().filter_map(|element| {
                let key = element.key.as_ref()?;
                let holds = match &element.last {
                    Some(last) if last != key => Certainty::Maybe,
                    _ => self.equals(register, key),
                };
                (holds != Certainty::No).then_some((holds, element))
            });
            keyed.collect()
        };
        if found.iter().all(|(holds, _)| *holds != Certainty::Yes) {
            let certainty = if found.is_empty() { Certainty::Yes } else { Certainty::Maybe };
            found.extend(elements.iter().filter(|element| element.key.is_none()).map(|element| (certainty, element)));
        }
        found
    }

    /// Each interval reaches from its element to the next greater one.
    fn intervals<'a>(&self, register: u32, elements: &'a [SetElement]) -> Vec<(Certainty, &'a SetElement)> {
        let keyed = || elements.iter().filter_map(|element| Some((element.key.as_ref()?, element)));
        let orders: Option<Vec<_>> =
            keyed().map(|(key, element)| Some((self.order(register, key)?, key, element))).collect();
        let Some(orders) = orders else {
            let starts = keyed().filter(|(_, element)| !element.ends_interval);
            return starts.map(|(_, element)| (Certainty::Maybe, element)).collect();
        };
        let reached = orders.into_iter().filter(|(order, _, _)| *order != Ordering::Less);
        let nearest = reached.max_by_key(|(_, key, element)| (*key, !element.ends_interval));
        nearest
            .into_iter()
            .filter(|(_, _, element)| !element.ends_interval)
            .map(|(_, _, element)| (Certainty::Yes, element))
            .collect()
    }

    fn equals(&self, register: u32, value: &[u8]) -> Certainty {
        if self.foreign_link.is_some() && self.foreign_link == offset(register) {
            let is_loopback = value.starts_with(LOOPBACK_NAME) || value == LOOPBACK_INDEX.to_ne_bytes();
            return if is_loopback { Certainty::No } else { Certainty::Maybe };
        }
        let octets = self.read(register, value.len());
        if octets.iter().zip(value).any(|(octet, value)| octet.is_some_and(|octet| octet != *value)) {
            Certainty::No
        } else if octets.iter().all(Option::is_some) {
            Certainty::Yes
        } else {
            Certainty::Maybe
        }
    }

    /// As the kernel compares: octet by octet.
    fn order(&self, register: u32, value: &[u8]) -> Option<Ordering> {
        let octets: Option<Vec<u8>> = self.read(register, value.len()).into_iter().collect();
        Some(octets?.as_slice().cmp(value))
    }

    fn read(&self, register: u32, length: usize) -> Vec<Option<u8>> {
        let start = offset(register).unwrap_or(LENGTH);
        (start..start.saturating_add(length)).map(|place| self.octets.get(place).copied().flatten()).collect()
    }

    /// Fills the last register with zeros, as the kernel does.
    fn write(&mut self, register: u32, mut octets: Vec<Option<u8>>) {
        let Some(start) = offset(register) else { return };
        octets.resize(octets.len().next_multiple_of(4), Some(0));
        let end = start + octets.len();
        if self.foreign_link.is_some_and(|place| (start..end).contains(&place)) {
            self.foreign_link = None;
        }
        for (place, octet) in self.octets.iter_mut().skip(start).zip(octets) {
            *place = octet;
        }
    }
}

/// Where a register begins.
fn offset(register: u32) -> Option<usize> {
    let place = match register {
        0 => return None,
        long if long < FIRST_SHORT => (long as usize - 1) * 16,
        short => (short - FIRST_SHORT) as usize * 4,
    };
    (place < LENGTH).then_some(place)
}

/// `IPPROTO_…`
pub(super) fn protocol_number(protocol: TransportProtocol) -> u8 {
    match protocol {
        TransportProtocol::Udp => libc::IPPROTO_UDP as u8,
        TransportProtocol::Tcp => libc::IPPROTO_TCP as u8,
    }
}
