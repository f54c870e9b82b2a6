//! The kernel's nftables, whoever made them, as far as a DNS packet meets them. Reading needs NET_ADMIN too, and
//! changes nothing.

use super::FALLBACK_TABLE_NAME;
use super::encode::arrival;
use super::header::header;
use super::hooks::{BaseHook, NetfilterHook, TableFamily};
use super::socket::NetlinkSocket;
use crate::node::desired::{Hook, PacketEnd, Rule, TransportProtocol};
use netlink_bindings::nftables::{
    CtKeys, ExprOps, IterableExprListAttrs, MetaKeys, OpGetchainDump, OpGetruleDump, OpGettableDump, PayloadBase,
    Request, VerdictCode,
};
use netlink_bindings::traits::NetlinkRequest;
use std::collections::HashSet;
use std::ffi::CStr;
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// All tables and chains, and the rules of the fallback and of those chains that see DNS packets before connection
/// tracking does.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Ruleset {
    pub tables: Vec<RulesetTable>,
    pub chains: Vec<ListedChain>,
}

/// A table.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RulesetTable {
    pub family: TableFamily,
    pub name: String,
    /// Port ID of the netlink socket that owns it; the table lives no longer than that.
    pub owner: Option<u32>,
}

/// A chain.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ListedChain {
    pub family: TableFamily,
    pub table: String,
    pub name: String,
    /// None for a chain that is only jumped to.
    pub base: Option<BaseHook>,
    /// In their order; read only in the fallback's table and where [`ListedChain::sees_packets_untracked`].
    pub rules: Vec<ListedRule>,
}

/// A rule.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ListedRule {
    /// What it is, if it is one such as we make.
    pub rule: Option<Rule>,
    /// Packets it has been applied to, if it counts.
    pub packets: Option<u64>,
    /// What may keep a packet from us, or from being left untracked.
    pub effects: Vec<Effect>,
    /// The address that it writes into packets, if it is one such as the fallback has.
    pub rewrite: Option<AddressRewrite>,
}

/// DNS packets with address `from` at `end` get `to` there.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct AddressRewrite {
    pub end: PacketEnd,
    pub protocol: TransportProtocol,
    pub from: IpAddr,
    pub to: IpAddr,
    pub port: u16,
}

/// What a rule may do to a packet.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Effect {
    Drop,
    /// Gives the packet a connection tracking template (zone or helper), after which NOTRACK does nothing.
    Track,
    /// Writes into the packet, its addresses perhaps.
    Rewrite,
    /// Hands it to another chain, which was not read.
    Jump,
}

impl Ruleset {
    /// The address to which the fallback's table sends queries for `local`, over UDP and TCP, from pods and from
    /// programs on the node, and from which it takes the answers back. None if it does not do all of that.
    pub fn fallback_of(&self, local: IpAddr, port: u16) -> Option<IpAddr> {
        let chains =
            self.chains.iter().filter(|chain| chain.family == TableFamily::Inet && chain.table == FALLBACK_TABLE_NAME);
        let rewrites: HashSet<(NetfilterHook, AddressRewrite)> = chains
            .filter_map(|chain| chain.base.map(|base| (base.at, &chain.rules)))
            .flat_map(|(at, rules)| rules.iter().filter_map(move |seen| Some((at, seen.rewrite?))))
            .collect();
        let is_whole = |upstream: &IpAddr| {
            let stages = [
                (NetfilterHook::Prerouting, PacketEnd::Destination, local, *upstream),
                (NetfilterHook::Output, PacketEnd::Destination, local, *upstream),
                (NetfilterHook::Postrouting, PacketEnd::Source, *upstream, local),
                (NetfilterHook::Input, PacketEnd::Source, *upstream, local),
            ];
            stages.into_iter().all(|(at, end, from, to)| {
                let has = |protocol| rewrites.contains(&(at, AddressRewrite { end, protocol, from, to, port }));
                has(TransportProtocol::Udp) && has(TransportProtocol::Tcp)
            })
        };
        let queries =
            rewrites.iter().filter(|(_, rewrite)| rewrite.end == PacketEnd::Destination && rewrite.from == local);
        queries.map(|(_, rewrite)| rewrite.to).find(is_whole)
    }
}

impl RulesetTable {
    /// What a message tells of a table.
    pub(in crate::node) fn of(payload: &[u8]) -> Option<Self> {
        let (header, attributes) = OpGettableDump::decode_reply(payload);
        let name = text(attributes.get_name().ok()?);
        Some(Self { family: TableFamily::of(header.nfgen_family), name, owner: attributes.get_owner().ok() })
    }
}

impl ListedChain {
    /// What a message tells of a chain, none of its rules among it.
    pub(in crate::node) fn of(payload: &[u8]) -> Option<Self> {
        let (header, attributes) = OpGetchainDump::decode_reply(payload);
        let (table, name) = (text(attributes.get_table().ok()?), text(attributes.get_name().ok()?));
        let base = attributes.get_hook().ok().and_then(|hook| {
            let at = NetfilterHook::of(hook.get_num().ok()?);
            let drops = attributes.get_policy().ok() == Some(VerdictCode::Drop as u32);
            Some(BaseHook { at, priority: hook.get_priority().ok()?, drops })
        });
        Some(Self { family: TableFamily::of(header.nfgen_family), table, name, base, rules: Vec::new() })
    }

    /// Family, table and name of the chain of the rule that a message tells of.
    pub(in crate::node) fn of_rule(payload: &[u8]) -> Option<(TableFamily, String, String)> {
        let (header, attributes) = OpGetruleDump::decode_reply(payload);
        Some((
            TableFamily::of(header.nfgen_family),
            text(attributes.get_table().ok()?),
            text(attributes.get_chain().ok()?),
        ))
    }

    /// Adds the rule that a message tells of.
    pub(in crate::node) fn take_rule(&mut self, payload: &[u8]) {
        let (_, attributes) = OpGetruleDump::decode_reply(payload);
        if let Ok(expressions) = attributes.get_expressions() {
            self.rules.push(interpret(self.base.map(|base| base.at), &expressions));
        }
    }

    /// Whether packets come here that are not tracked yet: at raw priority or before.
    pub fn sees_packets_untracked(&self) -> bool {
        self.base.is_some_and(|base| {
            base.priority <= super::encode::RAW_PRIORITY
                && matches!(base.at, NetfilterHook::Prerouting | NetfilterHook::Output)
        })
    }
}

/// Reads all of it.
///
/// # Errors
///
/// The kernel has no nf_tables, or refuses for lack of NET_ADMIN.
pub(crate) fn read() -> io::Result<Ruleset> {
    let mut channel = NetlinkSocket::open()?;
    let mut ruleset = Ruleset::default();
    channel.dump(&Request::new().op_gettable_dump(&header(0, 0)), |payload| {
        ruleset.tables.extend(RulesetTable::of(payload))
    })?;
    channel.dump(&Request::new().op_getchain_dump(&header(0, 0)), |payload| {
        ruleset.chains.extend(ListedChain::of(payload))
    })?;
    for chain in &mut ruleset.chains {
        let is_read = chain.sees_packets_untracked() || chain.table == FALLBACK_TABLE_NAME;
        if !is_read || chain.family == TableFamily::Other {
            continue;
        }
        let mut request = Request::new().op_getrule_dump(&header(chain.family.number(), 0));
        request.encode().push_table_bytes(chain.table.as_bytes()).push_chain_bytes(chain.name.as_bytes());
        channel.dump(&request, |payload| chain.take_rule(payload))?;
    }
    Ok(ruleset)
}

/// Whether any rule of a table says `comment`, in whichever form.
///
/// # Errors
///
/// The kernel has no nf_tables, or refuses for lack of NET_ADMIN.
pub(crate) fn holds(family: TableFamily, table: &str, comment: &str) -> io::Result<bool> {
    let mut request = Request::new().op_getrule_dump(&header(family.number(), 0));
    request.encode().push_table_bytes(table.as_bytes());
    let mut is_found = false;
    NetlinkSocket::open()?.dump(&request, |payload| {
        is_found |= payload.windows(comment.len()).any(|octets| octets == comment.as_bytes());
    })?;
    Ok(is_found)
}

fn text(name: &CStr) -> String {
    name.to_string_lossy().into_owned()
}

/// What a register holds when it is compared.
#[derive(Clone, Copy)]
enum RegisterContent {
    Nothing,
    Meta(u32),
    Payload {
        base: u32,
        offset: u32,
    },
    /// Bits of the mark.
    Mark(u32),
}

/// Puts together what the expressions of one rule say, the inverse of what `encode` writes.
#[allow(clippy::too_many_lines, reason = "one arm an expression of the kernel")]
fn interpret(at: Option<NetfilterHook>, expressions: &IterableExprListAttrs<'_>) -> ListedRule {
    let mut seen = ListedRule::default();
    let (mut address, mut protocol, mut port, mut mark) = (None, None, None, None);
    let (mut is_notrack, mut is_ours) = (false, true);
    let (mut loaded, mut to_write, mut written) = (RegisterContent::Nothing, None, None);
    for expression in expressions.get_elem() {
        let name = expression.get_name().unwrap_or_default().to_bytes();
        match (name, expression.get_data().ok()) {
            (b"notrack", _) => is_notrack = true,
            (_, Some(ExprOps::Counter(counter))) => seen.packets = counter.get_packets().ok(),
            (_, Some(ExprOps::Meta(meta))) => {
                loaded = meta.get_key().map_or(RegisterContent::Nothing, RegisterContent::Meta)
            }
            (_, Some(ExprOps::Payload(payload))) if payload.get_sreg().is_ok() => {
                seen.effects.push(Effect::Rewrite);
                if let (Ok(base), Ok(offset)) = (payload.get_base(), payload.get_offset())
                    && base == PayloadBase::NetworkHeader as u32
                {
                    written = to_write.and_then(|value| address_of(offset, value));
                }
            }
            (_, Some(ExprOps::Payload(payload))) => {
                loaded = match (payload.get_base(), payload.get_offset()) {
                    (Ok(base), Ok(offset)) => RegisterContent::Payload { base, offset },
                    _ => RegisterContent::Nothing,
                }
            }
            (_, Some(ExprOps::Bitwise(bitwise))) => {
                let mask = bitwise.get_mask().ok().and_then(|mask| mask.get_value().ok()?.try_into().ok());
                loaded = match (loaded, mask) {
                    (RegisterContent::Meta(key), Some(mask)) if key == MetaKeys::Mark as u32 => {
                        RegisterContent::Mark(u32::from_ne_bytes(mask))
                    }
                    _ => RegisterContent::Nothing,
                };
            }
            (_, Some(ExprOps::Cmp(comparison))) => {
                let data = comparison.get_data().ok();
                let value = data.as_ref().and_then(|data| data.get_value().ok()).unwrap_or_default();
                match std::mem::replace(&mut loaded, RegisterContent::Nothing) {
                    RegisterContent::Meta(key) if key == MetaKeys::Nfproto as u32 => {}
                    RegisterContent::Meta(key) if key == MetaKeys::L4Proto as u32 => protocol = protocol_of(value),
                    RegisterContent::Mark(mask) => {
                        let value = value.try_into().ok().map(u32::from_ne_bytes);
                        (mark, is_ours) = (Some(mask), is_ours && value == Some(mask));
                    }
                    RegisterContent::Payload { base, offset } if base == PayloadBase::NetworkHeader as u32 => {
                        address = address_of(offset, value);
                    }
                    RegisterContent::Payload { base, offset } if base == PayloadBase::TransportHeader as u32 => {
                        port = port_of(offset, value);
                    }
                    _ => is_ours = false,
                }
            }
            (_, Some(ExprOps::Ct(ct))) if ct.get_sreg().is_ok() => {
                if ct.get_key().ok() == Some(CtKeys::Zone as u32) {
                    seen.effects.push(Effect::Track);
                }
            }
            (_, Some(ExprOps::Objref(_))) => seen.effects.push(Effect::Track),
            (_, Some(ExprOps::Reject(_))) => seen.effects.push(Effect::Drop),
            (_, Some(ExprOps::Immediate(immediate))) => {
                let data = immediate.get_data();
                to_write = data.as_ref().ok().and_then(|data| data.get_value().ok());
                let verdict = data.and_then(|data| data.get_verdict());
                let chain = verdict.as_ref().ok().and_then(|verdict| verdict.get_chain().ok());
                if chain.is_some_and(|chain| arrival::is_entrance(chain.to_bytes())) {
                    is_notrack = true;
                } else {
                    let code = verdict.and_then(|verdict| verdict.get_code());
                    seen.effects.extend(code.as_ref().ok().copied().and_then(effect_of));
                    is_ours &= code.is_ok_and(|code| code == VerdictCode::Accept as u32);
                }
            }
            (_, Some(ExprOps::Lookup(lookup))) => {
                is_ours &= lookup.get_set().is_ok_and(|set| arrival::is_lease(set.to_bytes()));
            }
            // Has no data that the crate knows; what it does to a set makes no other rule of this one.
            (b"dynset", _) => {}
            _ => is_ours = false,
        }
    }
    let hook = match at {
        Some(NetfilterHook::Prerouting) => Some(Hook::RawPrerouting),
        Some(NetfilterHook::Output) => Some(Hook::RawOutput),
        _ => None,
    };
    if let (true, true, Some(hook), Some((address_end, address)), Some(protocol), Some((port_end, port))) =
        (is_ours, is_notrack, hook, address, protocol, port)
        && address_end == port_end
    {
        seen.rule = Some(Rule { hook, protocol, end: port_end, address, port, mark });
    }
    if let (Some((end, to)), Some((address_end, from)), Some(protocol), Some((port_end, port))) =
        (written, address, protocol, port)
        && end == address_end
        && end == port_end
    {
        seen.rewrite = Some(AddressRewrite { end, protocol, from, to, port });
    }
    seen
}

fn effect_of(verdict: u32) -> Option<Effect> {
    match verdict {
        code if code == VerdictCode::Drop as u32 => Some(Effect::Drop),
        code if code == VerdictCode::Jump as u32 || code == VerdictCode::Goto as u32 => Some(Effect::Jump),
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

/// Offsets are those of the addresses in an IPv4 header (RFC 791) and an IPv6 one (RFC 8200).
fn address_of(offset: u32, value: &[u8]) -> Option<(PacketEnd, IpAddr)> {
    let v4 = || <[u8; 4]>::try_from(value).ok().map(|octets| IpAddr::from(Ipv4Addr::from(octets)));
    let v6 = || <[u8; 16]>::try_from(value).ok().map(|octets| IpAddr::from(Ipv6Addr::from(octets)));
    match offset {
        12 => Some((PacketEnd::Source, v4()?)),
        16 => Some((PacketEnd::Destination, v4()?)),
        8 => Some((PacketEnd::Source, v6()?)),
        24 => Some((PacketEnd::Destination, v6()?)),
        _ => None,
    }
}

fn port_of(offset: u32, value: &[u8]) -> Option<(PacketEnd, u16)> {
    let port = u16::from_be_bytes(value.try_into().ok()?);
    match offset {
        0 => Some((PacketEnd::Source, port)),
        2 => Some((PacketEnd::Destination, port)),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::node::desired::{Interception, NodeSpec, desired};
    use crate::node::fallback_rules::{Fallback, Redirection};
    use crate::node::nftables::encode::{TablePurpose, replace, replace_fallback};
    use crate::node::nftables::message::messages;

    fn read_back(rules: &[Rule]) -> Vec<ListedRule> {
        let batch = replace("nodelocaldns", TablePurpose::Untrack, rules, 1);
        let of_rules = messages(&batch.octets).filter(|message| message.message_type() == 0xa06);
        let read = of_rules.filter_map(|message| {
            let (_, attributes) = OpGetruleDump::decode_reply(message.payload());
            let at = match attributes.get_chain().unwrap().to_bytes() {
                b"prerouting" => NetfilterHook::Prerouting,
                b"output" => NetfilterHook::Output,
                _ => return None,
            };
            Some(interpret(Some(at), &attributes.get_expressions().unwrap()))
        });
        read.collect()
    }

    #[test]
    fn every_rule_that_we_write_is_read_back() {
        let addresses = ["169.254.20.10", "fd00::10"].map(|text| text.parse().unwrap()).to_vec();
        let spec = NodeSpec {
            addresses,
            port: 53,
            health_port: 8080,
            interface: None,
            probe_mark: 0x10_0000,
            fallback: Fallback::default(),
        };
        let rules = desired(&spec, &Interception::of(&spec.addresses)).rules;
        let raw: Vec<Rule> = rules.iter().filter(|rule| rule.hook.is_raw()).copied().collect();
        let (read, beside): (Vec<ListedRule>, Vec<ListedRule>) =
            read_back(&rules).into_iter().partition(|seen| seen.rule.is_some());
        // What comes in by lo is passed by; fourteen rules for each address let connections end where they began.
        assert_eq!(beside, vec![ListedRule::default(); 1 + 14 * spec.addresses.len()]);
        assert_eq!(
            read.iter().map(|seen| seen.rule).collect::<Vec<_>>(),
            raw.iter().copied().map(Some).collect::<Vec<_>>()
        );
        assert!(read.iter().all(|seen| seen.packets == Some(0) && seen.effects.is_empty()));
    }

    #[test]
    fn the_fallback_that_we_write_is_read_back() {
        let fallback = Fallback::sample();
        let batch = replace_fallback(FALLBACK_TABLE_NAME, &fallback.rules(53, &[[10, 96, 0, 10].into()]), false, 1);
        let mut ruleset = Ruleset::default();
        for message in messages(&batch.octets).filter(|message| message.message_type() == 0xa06) {
            let (_, attributes) = OpGetruleDump::decode_reply(message.payload());
            let name = text(attributes.get_chain().unwrap());
            let at = match &*name {
                "query-prerouting" | "mark-prerouting" => NetfilterHook::Prerouting,
                "query-output" | "mark-output" => NetfilterHook::Output,
                "answer-input" => NetfilterHook::Input,
                _ => NetfilterHook::Postrouting,
            };
            let rules = vec![interpret(Some(at), &attributes.get_expressions().unwrap())];
            let base = Some(BaseHook { at, priority: 0, drops: false });
            ruleset.chains.push(ListedChain {
                family: TableFamily::Inet,
                table: FALLBACK_TABLE_NAME.to_owned(),
                name,
                base,
                rules,
            });
        }
        for Redirection { local, upstream } in fallback.redirections() {
            assert_eq!(ruleset.fallback_of(local, 53), Some(upstream));
            assert_eq!((ruleset.fallback_of(local, 54), ruleset.fallback_of(upstream, 53)), (None, None));
        }
        assert!(ruleset.chains.iter().flat_map(|chain| &chain.rules).all(|seen| seen.rule.is_none()));
    }

    #[test]
    fn octets_that_are_no_rule_do_not_panic() {
        let rule = Rule {
            hook: Hook::RawOutput,
            protocol: TransportProtocol::Udp,
            end: PacketEnd::Source,
            address: [10, 96, 0, 10].into(),
            port: 53,
            mark: Some(1),
        };
        let batch = replace("nodelocaldns", TablePurpose::Untrack, &[rule], 1);
        let message = messages(&batch.octets).find(|message| message.message_type() == 0xa06).unwrap();
        let payload = message.payload().to_vec();
        for index in 0..payload.len() {
            for value in [0, 1, 0x7f, 0xff] {
                let mut octets = payload.clone();
                octets[index] = value;
                for octets in [&octets[..], &octets[..index]] {
                    let (_, attributes) = OpGetruleDump::decode_reply(octets);
                    let _nothing_panics =
                        attributes.get_expressions().map(|list| interpret(Some(NetfilterHook::Output), &list));
                }
            }
        }
    }
}
