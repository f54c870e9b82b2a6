//! Rules that accept DNS packets, in the chains of iptables-nft, which are nftables chains: put there without its
//! programs, in the form that these read.
//!
//! Only there can an accept outweigh what drops in the same chain. A chain that is not there drops nothing, and is not
//! made.

use super::accept_chain::{AcceptChain, AcceptChanges};
use super::chains::{BaseChain, ChainName, Chains};
use super::encode;
use super::expression::{Expression, NftVerdict};
use super::firewall::{ChainVerdict, Packet, chain_verdict};
use super::hooks::{NetfilterHook, TableFamily};
use super::lacks;
use super::socket::NetlinkSocket;
use crate::node::desired::{ALLOW_TRAFFIC, PacketEnd, Rule, TransportProtocol};
use crate::node::error::Error;
use netlink_bindings::nftables::{CmpOps, MetaKeys, PayloadBase};
use std::collections::HashSet;
use std::io;
use std::net::IpAddr;

/// The rules, in the kernel, and the socket by which they are put there.
pub(crate) struct AcceptRules {
    channel: NetlinkSocket,
}

/// What was done.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct AcceptCounts {
    /// Rules put in, again or for the first time.
    pub put: usize,
    pub removed: usize,
}

/// The chain in `chains`, if it is there and hooked in as iptables does, and may be changed.
fn find(chain: AcceptChain, chains: &Chains) -> Option<&BaseChain> {
    let name = ChainName {
        family: if chain.is_ipv6 { TableFamily::Ip6 } else { TableFamily::Ip },
        table: AcceptChain::TABLE.to_owned(),
        name: chain.name().to_owned(),
    };
    let at = if chain.is_input { NetfilterHook::Input } else { NetfilterHook::Output };
    let is_owned = chains.owned_tables.contains(&(name.family, name.table.clone()));
    chains.bases.iter().find(|base| base.name == name && base.base.at == at && !is_owned)
}

impl AcceptRules {
    /// Opens the socket; changes nothing.
    ///
    /// # Errors
    ///
    /// [`Error::Nftables`]: the kernel has no netfilter over netlink, or descriptors are short.
    pub(crate) fn open() -> Result<Self, Error> {
        let channel = NetlinkSocket::open().map_err(|source| refusal("open", source))?;
        Ok(Self { channel })
    }

    /// The sender of every change that is ours.
    pub(crate) fn port_id(&self) -> u32 {
        self.channel.port_id()
    }

    /// What stands at the hooks.
    ///
    /// # Errors
    ///
    /// [`Error::Listing`].
    pub(crate) fn chains(&mut self) -> Result<Chains, Error> {
        Chains::read(&mut self.channel).map_err(|source| Error::Listing { what: "the rules of the firewall", source })
    }

    /// Sees to it that those of `rules` that accept are in the chains of iptables-nft in `chains`, where packets reach
    /// them, and, if `is_alone`, no others with our comment: all at once. A rule that others have put theirs before is
    /// put to the front again only if those may drop its packets: else two who want to be first would never come to
    /// rest.
    ///
    /// # Errors
    ///
    /// [`Error::Nftables`]; the chains are as they were.
    pub(crate) fn apply(&mut self, rules: &[Rule], chains: &Chains, is_alone: bool) -> Result<AcceptCounts, Error> {
        let todo = due(rules, chains, is_alone);
        if todo.is_empty() {
            return Ok(AcceptCounts::default());
        }
        let committed = self.channel.commit(|sequence| encode::accept(&todo, sequence));
        committed.map_err(|source| refusal("put rules that accept DNS packets into", source))?;
        let put = todo.iter().map(|(_, changes)| changes.missing.len()).sum();
        let removed = todo.iter().map(|(_, changes)| changes.surplus.len()).sum();
        Ok(AcceptCounts { put, removed })
    }

    /// Removes all rules with our comment; returns how many there were.
    ///
    /// # Errors
    ///
    /// [`Error::Nftables`], [`Error::Listing`]. A kernel that can hold none has none.
    pub(crate) fn remove_all() -> Result<usize, Error> {
        let mut rules = match NetlinkSocket::open() {
            Ok(channel) => Self { channel },
            Err(source) if lacks(&source) => return Ok(0),
            Err(source) => return Err(refusal("open", source)),
        };
        match rules.chains() {
            Ok(chains) => rules.apply(&[], &chains, true).map(|done| done.removed),
            Err(Error::Listing { source, .. }) if lacks(&source) => Ok(0),
            Err(error) => Err(error),
        }
    }
}

/// What makes all chains what they should be.
pub(in crate::node) fn due(rules: &[Rule], chains: &Chains, is_alone: bool) -> Vec<(AcceptChain, AcceptChanges)> {
    let of_chain = |chain: AcceptChain| {
        let base = find(chain, chains)?;
        let wanted: Vec<Rule> = rules.iter().filter(|rule| chain.holds(rule)).copied().collect();
        let todo = changes(chain, &wanted, base, chains, is_alone);
        (todo != AcceptChanges::default()).then_some((chain, todo))
    };
    AcceptChain::ALL.into_iter().filter_map(of_chain).collect()
}

/// What makes `base` what it should be.
fn changes(chain: AcceptChain, wanted: &[Rule], base: &BaseChain, chains: &Chains, is_alone: bool) -> AcceptChanges {
    let mut changes = AcceptChanges::default();
    // Of a chain that was not read, since there are too many rules before it, nothing is known: what is there may be
    // ours.
    let Some(listed) = chains.rules.get(&base.name) else { return changes };
    let mut in_place = HashSet::new();
    let mut is_front = true;
    for listed in listed {
        let Some(rule) = ours(chain, &listed.expressions) else {
            is_front = false;
            continue;
        };
        let is_repeated = in_place.contains(&rule);
        let is_wanted = wanted.contains(&rule);
        let is_reached = || {
            is_front
                || Packet::of(&rule).is_none_or(|packet| chain_verdict(chains, base, &packet) == ChainVerdict::Accepts)
        };
        if is_repeated || (!is_wanted && is_alone) || (is_wanted && !is_reached()) {
            changes.surplus.push(listed.handle);
        } else {
            in_place.insert(rule);
        }
    }
    changes.missing = wanted.iter().filter(|rule| !in_place.contains(rule)).copied().collect();
    changes
}

/// The rule that `expressions` are, if it is one such as we or the reference put into `chain`, in whichever form the
/// programs write it.
fn ours(chain: AcceptChain, expressions: &[Expression]) -> Option<Rule> {
    let (mut address, mut protocol, mut port) = (None, None, None);
    let (mut is_loopback, mut has_comment, mut accepts) = (false, false, false);
    let mut rest = expressions.iter();
    while let Some(expression) = rest.next() {
        match expression {
            Expression::LoadMeta { key, register } => {
                let value = compared(rest.next()?, *register)?;
                let own_link = if chain.is_input { MetaKeys::Iifname } else { MetaKeys::Oifname };
                match *key {
                    key if key == MetaKeys::L4Proto as u32 => protocol = Some(protocol_of(value)?),
                    key if key == own_link as u32
                        && value.strip_prefix(b"lo\0").is_some_and(|rest| rest.iter().all(|octet| *octet == 0)) =>
                    {
                        is_loopback = true;
                    }
                    _ => return None,
                }
            }
            Expression::LoadPayload { base, offset, length, register } => {
                let value = compared(rest.next()?, *register)?;
                match (*base, *offset, *length) {
                    (base, 9, 1) if base == PayloadBase::NetworkHeader as u32 && !chain.is_ipv6 => {
                        protocol = Some(protocol_of(value)?);
                    }
                    (base, offset, _) if base == PayloadBase::NetworkHeader as u32 => {
                        address = Some(address_of(chain.is_ipv6, offset, value)?);
                    }
                    (base, 0, 2) if base == PayloadBase::TransportHeader as u32 => {
                        port = Some((PacketEnd::Source, u16::from_be_bytes(value.try_into().ok()?)));
                    }
                    (base, 2, 2) if base == PayloadBase::TransportHeader as u32 => {
                        port = Some((PacketEnd::Destination, u16::from_be_bytes(value.try_into().ok()?)));
                    }
                    _ => return None,
                }
            }
            Expression::Match { name, revision: 0, info } => match name.as_str() {
                "udp" | "tcp" => port = Some(port_of(info)?),
                "comment" => has_comment = info.split(|octet| *octet == 0).next() == Some(ALLOW_TRAFFIC.as_bytes()),
                _ => return None,
            },
            Expression::Pass => {}
            Expression::Decide(NftVerdict::Accept) => accepts = true,
            _ => return None,
        }
    }
    let ((end, address), (port_end, port)) = (address?, port?);
    let is_whole = has_comment && accepts && end == port_end;
    let hook = chain.hook(is_loopback);
    is_whole.then_some(Rule { hook, protocol: protocol?, end, address, port, mark: None })
}

/// What the register must be equal to.
fn compared(expression: &Expression, loaded: u32) -> Option<&[u8]> {
    match expression {
        Expression::Compare { register, operator, value } if *register == loaded && *operator == CmpOps::Eq as u32 => {
            Some(value)
        }
        _ => None,
    }
}

fn protocol_of(value: &[u8]) -> Option<TransportProtocol> {
    match libc::c_int::from(*value.first()?) {
        libc::IPPROTO_UDP => Some(TransportProtocol::Udp),
        libc::IPPROTO_TCP => Some(TransportProtocol::Tcp),
        _ => None,
    }
}

fn address_of(is_ipv6: bool, offset: u32, value: &[u8]) -> Option<(PacketEnd, IpAddr)> {
    let address: IpAddr = match is_ipv6 {
        false => <[u8; 4]>::try_from(value).ok()?.into(),
        true => <[u8; 16]>::try_from(value).ok()?.into(),
    };
    let end = [PacketEnd::Source, PacketEnd::Destination]
        .into_iter()
        .find(|end| encode::address_offset(address, *end) == offset)?;
    Some((end, address))
}

/// Of `xt_udp` or `xt_tcp` that ask for one port and nothing else.
fn port_of(info: &[u8]) -> Option<(PacketEnd, u16)> {
    let mut numbers = info.chunks_exact(2).map(|octets| u16::from_ne_bytes([octets[0], octets[1]]));
    let ports = [numbers.next()?, numbers.next()?, numbers.next()?, numbers.next()?];
    let asks_more = numbers.any(|number| number != 0);
    match ports {
        _ if asks_more => None,
        [first, last, 0, u16::MAX] if first == last => Some((PacketEnd::Source, first)),
        [0, u16::MAX, first, last] if first == last => Some((PacketEnd::Destination, first)),
        _ => None,
    }
}

fn refusal(action: &'static str, source: io::Error) -> Error {
    Error::Nftables { action, table: AcceptChain::TABLE.to_owned(), source }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::node::desired::{Interception, NodeSpec, desired};
    use crate::node::fallback_rules::Fallback;
    use crate::node::nftables::chains::{ChainName, ChainRule};
    use crate::node::nftables::expression::decode;
    use crate::node::nftables::hooks::{BaseHook, NetfilterHook, TableFamily};
    use crate::node::nftables::message::messages;
    use netlink_bindings::nftables::OpGetruleDump;
    use netlink_bindings::traits::NetlinkRequest;

    const INPUT: AcceptChain = AcceptChain { is_ipv6: false, is_input: true };

    fn rules() -> Vec<Rule> {
        let addresses = ["169.254.20.10", "fd00::10"].map(|text| text.parse().unwrap()).to_vec();
        let fallback = Fallback::default();
        let spec =
            NodeSpec { addresses, port: 53, health_port: 8080, interface: None, probe_mark: 0x10_0000, fallback };
        desired(&spec, &Interception::default()).rules
    }

    /// `rules` as the kernel would list them once they are written.
    fn written(chain: AcceptChain, rules: &[Rule]) -> Vec<ChainRule> {
        let changes = AcceptChanges { missing: rules.to_vec(), surplus: vec![] };
        let batch = encode::accept(&[(chain, changes)], 1);
        let of_rules = messages(&batch.octets).filter(|message| message.message_type() == 0xa06);
        let mut written: Vec<ChainRule> = of_rules
            .map(|message| {
                let (_, attributes) = OpGetruleDump::decode_reply(message.payload());
                ChainRule { handle: 0, expressions: decode(&attributes.get_expressions().unwrap()) }
            })
            .collect();
        // Each goes before the one before.
        written.reverse();
        for (handle, rule) in (1..).zip(&mut written) {
            rule.handle = handle;
        }
        written
    }

    fn chains(rules: Vec<ChainRule>) -> Chains {
        let name = ChainName { family: TableFamily::Ip, table: "filter".to_owned(), name: "INPUT".to_owned() };
        let base = BaseHook { at: NetfilterHook::Input, priority: 0, drops: true };
        let mut chains = Chains::default();
        chains.bases.push(BaseChain { name: name.clone(), base });
        chains.rules.insert(name, rules);
        chains
    }

    fn drop_rule() -> ChainRule {
        ChainRule { handle: 99, expressions: vec![Expression::Decide(NftVerdict::Drop)] }
    }

    #[test]
    fn every_rule_that_we_write_is_read_back_from_its_own_chain() {
        let mut count = 0;
        for chain in AcceptChain::ALL {
            let wanted: Vec<Rule> = rules().into_iter().filter(|rule| chain.holds(rule)).collect();
            let read: Vec<Option<Rule>> =
                written(chain, &wanted).iter().map(|rule| ours(chain, &rule.expressions)).collect();
            count += read.len();
            assert_eq!(read, wanted.into_iter().map(Some).collect::<Vec<_>>());
        }
        assert_eq!(count, 24);
    }

    #[test]
    fn a_rule_that_says_more_or_something_else_is_somebody_else_s() {
        let rule = rules().into_iter().find(|rule| INPUT.holds(rule)).unwrap();
        let expressions = written(INPUT, &[rule]).remove(0).expressions;
        assert_eq!(ours(INPUT, &expressions), Some(rule));
        for index in 0..expressions.len() {
            let mut fewer = expressions.clone();
            let gone = fewer.remove(index);
            let is_needed = gone != Expression::Pass;
            assert_eq!(ours(INPUT, &fewer).is_none(), is_needed, "{gone:?}");
        }
        let mut more = expressions.clone();
        more.insert(0, Expression::May { name: "limit".to_owned() });
        assert_eq!(ours(INPUT, &more), None);
        let mut drops = expressions;
        drops.pop();
        drops.push(Expression::Decide(NftVerdict::Drop));
        assert_eq!(ours(INPUT, &drops), None);
    }

    #[test]
    fn what_is_missing_or_behind_what_drops_is_put_to_the_front_and_nothing_else() {
        let wanted: Vec<Rule> = rules().into_iter().filter(|rule| INPUT.holds(rule)).collect();
        let todo = |rules: Vec<ChainRule>, is_alone| {
            let chains = chains(rules);
            changes(INPUT, &wanted, &chains.bases[0], &chains, is_alone)
        };
        assert_eq!(todo(vec![drop_rule()], true), AcceptChanges { missing: wanted.clone(), surplus: vec![] });
        let in_place = written(INPUT, &wanted);
        assert_eq!(todo([in_place.clone(), vec![drop_rule()]].concat(), true), AcceptChanges::default());
        let behind = todo([vec![drop_rule()], in_place.clone()].concat(), true);
        assert_eq!(behind, AcceptChanges { missing: wanted.clone(), surplus: (1..=6).collect() });
        let harmless = ChainRule { handle: 98, expressions: vec![Expression::Pass] };
        assert_eq!(todo([vec![harmless], in_place.clone()].concat(), true), AcceptChanges::default());
        let twice = todo([in_place.clone(), in_place].concat(), false);
        assert_eq!(twice, AcceptChanges { missing: vec![], surplus: (1..=6).collect() }, "also beside another agent");
    }

    #[test]
    fn another_agent_s_rules_go_only_when_it_is_gone() {
        let wanted: Vec<Rule> = rules().into_iter().filter(|rule| INPUT.holds(rule)).collect();
        let chains = chains(written(INPUT, &wanted));
        let todo = |is_alone| changes(INPUT, &wanted[1..], &chains.bases[0], &chains, is_alone);
        assert_eq!(todo(false), AcceptChanges::default());
        assert_eq!(todo(true), AcceptChanges { missing: vec![], surplus: vec![1] });
    }
}
