//! What the node's firewall does to a DNS packet of ours, as far as its rules tell. Pure.
//!
//! A packet passes the chains at its hook in the order of their priorities; each must let it through, so no accept of ours outweighs another table's drop. What
//! a rule asks for that we cannot know of a packet (its interface, a mark, a rate) may hold or not, and so the answer may be [`Fate::Unknown`]. Each chain is
//! followed once, so the work is linear in the rules.

mod matches;
mod registers;
mod walk;

pub use walk::{Ruling, ruling_of};

use super::desired::{End, Hook, Protocol, Rule};
use super::nftables::{Chains, Name, Place};
use std::fmt;
use std::net::IpAddr;

/// Packets of one kind, which are untracked.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Packet {
    /// Where it meets the firewall: at [`Place::Input`] or [`Place::Output`].
    pub at: Place,
    /// Whether it goes through `lo`; else through any other link.
    pub is_loopback: bool,
    pub protocol: Protocol,
    /// Which end of it has `address` and `port`; the other end's are not known.
    pub end: End,
    pub address: IpAddr,
    pub port: u16,
}

impl Packet {
    /// The packets that `rule` is for; none for a rule that stands elsewhere.
    pub fn of(rule: &Rule) -> Option<Self> {
        let (at, is_loopback) = match rule.hook {
            Hook::FilterInput => (Place::Input, false),
            Hook::FilterInputLoopback => (Place::Input, true),
            Hook::FilterOutput => (Place::Output, false),
            Hook::FilterOutputLoopback => (Place::Output, true),
            Hook::RawPrerouting | Hook::RawOutput => return None,
        };
        let Rule { protocol, end, address, port, .. } = *rule;
        Some(Self { at, is_loopback, protocol, end, address, port })
    }
}

/// What drops packets: a rule, or else the policy of a chain.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Eater {
    pub chain: Name,
    /// Handle of the rule.
    pub rule: Option<u64>,
}

impl fmt::Display for Eater {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Name { family, table, name } = &self.chain;
        match self.rule {
            Some(handle) => write!(f, "the rule with handle {handle} of nftables chain {} {table} {name}", family.name()),
            None => write!(f, "the policy of nftables chain {} {table} {name}", family.name()),
        }
    }
}

/// What becomes of a packet.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Fate {
    Accepted,
    Dropped {
        by: Eater,
    },
    /// It depends on what cannot be known here; the first that may drop it.
    Unknown {
        by: Eater,
    },
}

/// What becomes of `packet` at its hook.
pub fn fate(chains: &Chains, packet: &Packet) -> Fate {
    let mut doubt = None;
    let concerned = chains.bases.iter().filter(|chain| chain.base.at == packet.at && chain.name.family.sees(packet.address));
    for chain in concerned {
        match ruling_of(chains, chain, packet) {
            Ruling::Accepts => {}
            Ruling::Drops(by) => return Fate::Dropped { by },
            Ruling::MayDrop(by) => doubt = doubt.or(Some(by)),
        }
    }
    doubt.map_or(Fate::Accepted, |by| Fate::Unknown { by })
}

#[cfg(test)]
mod tests;
