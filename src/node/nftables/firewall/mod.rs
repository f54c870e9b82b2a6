//! Whether the node's firewall drops our DNS packets, as far as its rules tell. Pure.
//!
//! A packet passes the chains at its hook in the order of their priorities; each must let it through, so no accept of
//! ours outweighs another table's drop. What a rule asks for that we cannot know of a packet (its interface, a mark, a
//! rate) may hold or not, and so the answer may be [`PacketVerdict::Unknown`]. Each chain is followed once, so the work
//! is linear in the rules.

mod matches;
mod registers;
mod walk;

pub(in crate::node) use matches::{matches, target};
pub(in crate::node) use registers::Certainty;
pub(crate) use walk::{ChainVerdict, chain_verdict};

use super::{ChainName, Chains, NetfilterHook};
use crate::node::desired::{Hook, PacketEnd, Rule, TransportProtocol};
use std::fmt;
use std::net::IpAddr;

/// Packets of one kind, which are untracked.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Packet {
    /// Where it meets the firewall: at [`NetfilterHook::Input`] or [`NetfilterHook::Output`].
    pub at: NetfilterHook,
    /// Whether it goes through `lo`; else through any other link.
    pub is_loopback: bool,
    /// UDP or TCP.
    pub protocol: TransportProtocol,
    /// Which end of it has `address` and `port`; the other end's are not known.
    pub end: PacketEnd,
    /// The address of that end.
    pub address: IpAddr,
    /// The port of that end.
    pub port: u16,
}

impl Packet {
    /// The packets that `rule` is for; none for a rule that stands elsewhere.
    pub fn of(rule: &Rule) -> Option<Self> {
        let (at, is_loopback) = match rule.hook {
            Hook::FilterInput => (NetfilterHook::Input, false),
            Hook::FilterInputLoopback => (NetfilterHook::Input, true),
            Hook::FilterOutput => (NetfilterHook::Output, false),
            Hook::FilterOutputLoopback => (NetfilterHook::Output, true),
            Hook::RawPrerouting | Hook::RawOutput => return None,
        };
        let Rule { protocol, end, address, port, .. } = *rule;
        Some(Self { at, is_loopback, protocol, end, address, port })
    }
}

/// What drops packets: a rule, or else the policy of a chain.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct DropSource {
    /// The chain whose rule, or policy, it is.
    pub chain: ChainName,
    /// Handle of the rule.
    pub rule: Option<u64>,
}

impl fmt::Display for DropSource {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let ChainName { family, table, name } = &self.chain;
        match self.rule {
            Some(handle) => {
                write!(f, "the rule with handle {handle} of nftables chain {} {table} {name}", family.name())
            }
            None => write!(f, "the policy of nftables chain {} {table} {name}", family.name()),
        }
    }
}

/// What becomes of a packet.
#[derive(Debug, Clone, PartialEq, Eq)]
#[allow(missing_docs, reason = "the variant says what its fields are")]
pub enum PacketVerdict {
    /// Every rule lets it pass.
    Accepted,
    /// A rule drops it.
    Dropped { by: DropSource },
    /// It depends on what cannot be known here; the first that may drop it.
    Unknown { by: DropSource },
}

/// What becomes of `packet` at its hook.
pub fn packet_verdict(chains: &Chains, packet: &Packet) -> PacketVerdict {
    let mut doubt = None;
    let concerned =
        chains.bases.iter().filter(|chain| chain.base.at == packet.at && chain.name.family.sees(packet.address));
    for chain in concerned {
        match chain_verdict(chains, chain, packet) {
            ChainVerdict::Accepts => {}
            ChainVerdict::Drops(by) => return PacketVerdict::Dropped { by },
            ChainVerdict::MayDrop(by) => doubt = doubt.or(Some(by)),
        }
    }
    doubt.map_or(PacketVerdict::Accepted, |by| PacketVerdict::Unknown { by })
}

#[cfg(test)]
mod tests;
