//! The rules of legacy iptables as the kernel gives them (`struct ipt_entry` and `struct ip6t_entry` of
//! include/uapi/linux/netfilter_ipv4/ip_tables.h and netfilter_ipv6/ip6_tables.h), followed with a packet. Pure.

use crate::node::desired::{PacketEnd, TransportProtocol};
use crate::node::nftables::NetfilterHook;
use crate::node::nftables::firewall::{Certainty, Packet, matches, target};
use std::collections::HashMap;
use std::net::IpAddr;

/// `hook_entry` and `underflow` of `struct ipt_getinfo`: where a hook's chain begins, and its policy. The places in
/// them of the hooks (`NF_INET_LOCAL_IN`, `NF_INET_LOCAL_OUT`).
const HOOK_ENTRIES: usize = 36;
const POLICIES: usize = 56;
const LOCAL_IN: usize = 1;
const LOCAL_OUT: usize = 3;
/// `IPT_INV_VIA_IN` and its like; those of IPv6 are the same.
const INVERT_IN: u8 = 0x01;
const INVERT_OUT: u8 = 0x02;
const INVERT_SOURCE: u8 = 0x08;
const INVERT_DESTINATION: u8 = 0x10;
const INVERT_PROTOCOL: u8 = 0x40;
/// What stands before the contents of a match or a target: its size, its name, and its revision.
const HEADER: usize = 32;
const NAME: std::ops::Range<usize> = 2..31;
const REVISION: usize = 31;
/// Verdicts of the standard target: minus one, less that of netfilter; `XT_RETURN`. Others are jumps.
const DROP: i32 = -1;
const ACCEPT: i32 = -2;
const RETURN: i32 = -5;
/// How deep chains are followed that jump to each other: more than people write.
const DEPTH: usize = 64;

/// Where things stand in an entry.
struct Layout {
    address: usize,
    interfaces: usize,
    protocol: usize,
    flags: usize,
    inverted: usize,
    target_offset: usize,
    matches: usize,
    /// Flags: first fragments only excepted; a type of service is asked for; goto.
    fragment: u8,
    service: u8,
    goto: u8,
}

const IPV4: Layout = Layout {
    address: 4,
    interfaces: 16,
    protocol: 80,
    flags: 82,
    inverted: 83,
    target_offset: 88,
    matches: 112,
    fragment: 1,
    service: 0,
    goto: 2,
};
const IPV6: Layout = Layout {
    address: 16,
    interfaces: 64,
    protocol: 128,
    flags: 131,
    inverted: 132,
    target_offset: 140,
    matches: 168,
    fragment: 0,
    service: 2,
    goto: 4,
};

/// The filter table of one family.
pub(super) struct FilterTable<'a> {
    /// `struct ipt_getinfo`
    info: &'a [u8],
    entries: &'a [u8],
    layout: &'static Layout,
}

/// What may become of a packet in a chain, other than being accepted.
#[derive(Clone, Copy, Default)]
struct Outcomes {
    drops: bool,
    /// It comes back to whoever jumped here.
    returns: bool,
}

impl<'a> FilterTable<'a> {
    pub(super) fn new(info: &'a [u8], entries: &'a [u8], is_ipv6: bool) -> Self {
        Self { info, entries, layout: if is_ipv6 { &IPV6 } else { &IPV4 } }
    }

    /// Whether a rule drops the packet, or may, which does not go through `lo`. So it is of a table that is not
    /// understood.
    pub(super) fn may_drop(&self, packet: &Packet) -> bool {
        let hook = match packet.at {
            NetfilterHook::Input => LOCAL_IN,
            NetfilterHook::Output => LOCAL_OUT,
            _ => return false,
        };
        // Each rule is looked at once, and a policy perhaps once more.
        let steps = self.entries.len() / self.layout.matches + 1;
        let mut walk = Walk { table: self, packet, known: HashMap::new(), steps };
        let mut follow = |field: usize| walk.follow(number(self.info, field + 4 * hook)? as usize, DEPTH);
        match follow(HOOK_ENTRIES) {
            // Where nobody has jumped, it comes back to the policy.
            Some(Outcomes { drops: false, returns: true }) => follow(POLICIES).is_none_or(|policy| policy.drops),
            outcomes => outcomes.is_none_or(|outcomes| outcomes.drops),
        }
    }
}

struct Walk<'t> {
    table: &'t FilterTable<'t>,
    packet: &'t Packet,
    /// What was found out about chains, by where they begin.
    known: HashMap<usize, Outcomes>,
    /// Rules that may be looked at yet.
    steps: usize,
}

impl Walk<'_> {
    /// Follows the rules from `at` on to the end of their chain, which is a rule that always returns, or the policy.
    /// `None` if they are not understood.
    fn follow(&mut self, at: usize, depth: usize) -> Option<Outcomes> {
        if let Some(known) = self.known.get(&at) {
            return Some(*known);
        }
        let depth = depth.checked_sub(1)?;
        let Layout { flags, target_offset, goto, .. } = *self.table.layout;
        let (mut outcomes, mut next) = (Outcomes::default(), at);
        loop {
            self.steps = self.steps.checked_sub(1)?;
            let entry = self.table.entries.get(next..)?;
            let target_at = usize::from(short(entry, target_offset)?);
            let length = usize::from(short(entry, target_offset + 2)?);
            if target_at < self.table.layout.matches || length < target_at + HEADER {
                return None;
            }
            let entry = entry.get(..length)?;
            next += length;
            let certainty = self.fulfils(entry, target_at)?;
            if certainty == Certainty::No {
                continue;
            }
            let goes_on = match name(entry.get(target_at..)?)? {
                "" => match i32::from_ne_bytes(entry.get(target_at + HEADER..)?.first_chunk().copied()?) {
                    ACCEPT => false,
                    DROP => {
                        outcomes.drops = true;
                        false
                    }
                    RETURN => {
                        outcomes.returns = true;
                        false
                    }
                    // A rule without a target, which only counts.
                    chain if usize::try_from(chain) == Ok(next) && *entry.get(flags)? & goto == 0 => true,
                    chain => {
                        let there = self.follow(usize::try_from(chain).ok()?, depth)?;
                        outcomes.drops |= there.drops;
                        let is_goto = *entry.get(flags)? & goto != 0;
                        outcomes.returns |= is_goto && there.returns;
                        there.returns && !is_goto
                    }
                },
                extension => {
                    // What is not known may drop it.
                    let drops = target(extension);
                    outcomes.drops |= drops.unwrap_or(true);
                    drops != Some(true)
                }
            };
            if certainty == Certainty::Yes && !goes_on {
                self.known.insert(at, outcomes);
                return Some(outcomes);
            }
        }
    }

    /// Whether the packet fulfils all that a rule asks for.
    fn fulfils(&self, entry: &[u8], target_at: usize) -> Option<Certainty> {
        let layout = self.table.layout;
        let (flags, inverted) = (*entry.get(layout.flags)?, *entry.get(layout.inverted)?);
        let is_inverted = |flag: u8| inverted & flag != 0;
        let width = layout.address;
        let part = |index: usize| entry.get(index * width..(index + 1) * width);
        let source = self.address(part(0)?, part(2)?, PacketEnd::Source).inverted(is_inverted(INVERT_SOURCE));
        let destination =
            self.address(part(1)?, part(3)?, PacketEnd::Destination).inverted(is_inverted(INVERT_DESTINATION));
        let interface = |index: usize| {
            let name = |index: usize| entry.get(layout.interfaces + 16 * index..layout.interfaces + 16 * (index + 1));
            Some(interface(name(index)?, name(index + 2)?))
        };
        let arrives = interface(0)?.inverted(is_inverted(INVERT_IN));
        let leaves = interface(1)?.inverted(is_inverted(INVERT_OUT));
        let wanted = short(entry, layout.protocol)?;
        let own = match self.packet.protocol {
            TransportProtocol::Udp => libc::IPPROTO_UDP,
            TransportProtocol::Tcp => libc::IPPROTO_TCP,
        };
        let protocol = Certainty::of(wanted == 0 || i32::from(wanted) == own)
            .inverted(wanted != 0 && is_inverted(INVERT_PROTOCOL));
        // None of ours is a fragment behind the first.
        let fragment = if flags & layout.fragment != 0 { Certainty::Maybe } else { Certainty::Yes };
        let service = if flags & layout.service != 0 { Certainty::Maybe } else { Certainty::Yes };
        let mut certainty = [source, destination, arrives, leaves, protocol, fragment, service].into_iter().min()?;
        let mut rest = entry.get(layout.matches..target_at)?;
        while !rest.is_empty() {
            let length = usize::from(short(rest, 0)?);
            let (this, after) = rest.split_at_checked(length)?;
            let info = this.get(HEADER..)?;
            certainty = certainty.min(matches(name(this)?, u32::from(this[REVISION]), info, self.packet));
            rest = after;
        }
        Some(certainty)
    }

    /// Whether the packet's `end` is in a network. Of the other end it is known that it is not this machine's loopback
    /// network, since the packet does not go through `lo`.
    fn address(&self, network: &[u8], mask: &[u8], end: PacketEnd) -> Certainty {
        if mask.iter().all(|octet| *octet == 0) {
            return Certainty::Yes;
        }
        if self.packet.end == end {
            let is_in = |own: &[u8]| own.iter().zip(mask).zip(network).all(|((own, mask), octet)| own & mask == *octet);
            return Certainty::of(match self.packet.address {
                IpAddr::V4(address) => is_in(&address.octets()),
                IpAddr::V6(address) => is_in(&address.octets()),
            });
        }
        let is_loopback = match network {
            [127, ..] => mask.first() == Some(&0xff) && network.len() == 4,
            [zeros @ .., 1] => zeros.len() == 15 && zeros.iter().all(|octet| *octet == 0) && mask == [0xff; 16],
            _ => false,
        };
        if is_loopback { Certainty::No } else { Certainty::Maybe }
    }
}

/// Whether the link of a packet that does not go through `lo` has this name; of which the mask tells how much counts.
fn interface(name: &[u8], mask: &[u8]) -> Certainty {
    let counted = mask.iter().take_while(|octet| **octet != 0).count();
    match name.get(..counted) {
        Some(b"") => Certainty::Yes,
        Some(b"lo\0") => Certainty::No,
        _ => Certainty::Maybe,
    }
}

/// Of a match or a target.
fn name(octets: &[u8]) -> Option<&str> {
    let name = octets.get(NAME)?;
    std::str::from_utf8(name.split(|octet| *octet == 0).next()?).ok()
}

fn short(octets: &[u8], at: usize) -> Option<u16> {
    Some(u16::from_ne_bytes(*octets.get(at..)?.first_chunk()?))
}

fn number(octets: &[u8], at: usize) -> Option<u32> {
    Some(u32::from_ne_bytes(*octets.get(at..)?.first_chunk()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    const INFO: usize = 84;

    /// Queries for an address and answers from it, over both protocols.
    fn packets(address: &str) -> Vec<Packet> {
        let ends = [(NetfilterHook::Input, PacketEnd::Destination), (NetfilterHook::Output, PacketEnd::Source)];
        let of = |protocol| ends.map(|(at, end)| (protocol, at, end));
        let each = [TransportProtocol::Udp, TransportProtocol::Tcp].into_iter().flat_map(of);
        let address = address.parse().unwrap();
        each.map(|(protocol, at, end)| Packet { at, is_loopback: false, protocol, end, address, port: 53 }).collect()
    }

    /// For each of [`packets`], whether it may be dropped.
    fn dropped(recorded: &[u8], address: &str) -> Vec<bool> {
        let (info, entries) = recorded.split_at(INFO);
        let table = FilterTable::new(info, entries, address.contains(':'));
        packets(address).iter().map(|packet| table.may_drop(packet)).collect()
    }

    const PASSES: [bool; 4] = [false; 4];

    #[test]
    fn the_rules_of_a_kubelet_and_of_kube_proxy_drop_none_of_our_packets() {
        let kubelet = include_bytes!("recorded/kubelet.xt");
        assert!(kubelet.windows(13).any(|octets| octets == b"KUBE-FIREWALL"));
        for address in ["10.96.0.10", "169.254.20.10"] {
            assert_eq!(dropped(kubelet, address), PASSES, "{address}");
        }
        assert_eq!(dropped(include_bytes!("recorded/kubelet6.xt"), "fd00::10"), PASSES);
        assert!(dropped(kubelet, "127.0.0.53")[0], "what KUBE-FIREWALL is for");
    }

    #[test]
    fn a_policy_that_drops_and_a_last_rule_that_rejects_may_drop_them() {
        assert_eq!(dropped(include_bytes!("recorded/ufw.xt"), "10.96.0.10"), [true, false, true, false]);
        assert_eq!(dropped(include_bytes!("recorded/rejecting6.xt"), "fd00::10"), [true, false, true, false]);
    }

    #[test]
    fn rules_that_accept_them_by_address_port_and_protocol_let_them_in() {
        let accepted = include_bytes!("recorded/accepted.xt");
        for address in ["10.96.0.10", "169.254.20.10"] {
            assert_eq!(dropped(accepted, address), PASSES, "{address}");
        }
        assert_eq!(dropped(accepted, "10.112.0.10"), [true, false, true, false], "another network");
    }

    #[test]
    fn what_depends_on_the_interface_may_drop_them_unless_it_is_lo() {
        assert_eq!(dropped(include_bytes!("recorded/interface.xt"), "10.96.0.10"), [true, false, false, false]);
    }

    /// A table for IPv4 whose hooks all begin at its first rule, and whose last rule is their policy. Each has no
    /// condition, and its verdict; one that is the place of the next rule says nothing (`iptables -A INPUT`).
    fn table(verdicts: &[i32]) -> Vec<u8> {
        let length = (IPV4.matches + HEADER + 8) as u16;
        let mut octets = vec![0; INFO];
        let policy = u32::from(length) * (verdicts.len() as u32 - 1);
        for hook in 0..5 {
            octets[POLICIES + 4 * hook..][..4].copy_from_slice(&policy.to_ne_bytes());
        }
        for verdict in verdicts {
            let mut entry = vec![0; length.into()];
            entry[IPV4.target_offset..][..2].copy_from_slice(&(IPV4.matches as u16).to_ne_bytes());
            entry[IPV4.target_offset + 2..][..2].copy_from_slice(&length.to_ne_bytes());
            entry[IPV4.matches..][..2].copy_from_slice(&(length - IPV4.matches as u16).to_ne_bytes());
            entry[IPV4.matches + HEADER..][..4].copy_from_slice(&verdict.to_ne_bytes());
            octets.extend(entry);
        }
        octets
    }

    #[test]
    fn rules_without_a_target_only_count_and_the_next_one_decides() {
        let length = (IPV4.matches + HEADER + 8) as i32;
        let counting: Vec<i32> = (1..=2 * DEPTH as i32).map(|number| number * length).collect();
        for (policy, is_dropped) in [(ACCEPT, false), (DROP, true)] {
            let verdicts = [&counting[..], &[policy]].concat();
            assert_eq!(dropped(&table(&verdicts), "10.96.0.10"), [is_dropped; 4], "{policy}");
        }
    }

    #[test]
    fn octets_that_are_no_table_do_not_panic_and_may_drop_anything() {
        for recorded in [&include_bytes!("recorded/accepted.xt")[..], include_bytes!("recorded/rejecting6.xt")] {
            for index in 0..recorded.len() {
                for value in [0, 0x70, 0xff] {
                    let mut octets = recorded.to_vec();
                    octets[index] = value;
                    let _nothing_panics = dropped(&octets, "10.96.0.10");
                }
            }
            assert!(dropped(&recorded[..INFO], "10.96.0.10")[0]);
            assert!(dropped(&recorded[..INFO + 200], "10.96.0.10")[0]);
        }
    }
}
