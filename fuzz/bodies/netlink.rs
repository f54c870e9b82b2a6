//! Netlink messages as a kernel might send them. The first octet says what is made of the rest.

use nodelocaldns::node::{
    Chains, ChangeScope, DropSource, Fallback, Interception, NetfilterHook, NodeSpec, OwnTables, Packet, PacketEnd,
    PacketVerdict, Rule, desired, dumps, packet_verdict,
};
use std::collections::HashSet;
use std::net::IpAddr;

/// Octets of a message's header; there are no messages without one.
const HEADER: usize = 16;

/// Panics if anything that the node relies on does not hold.
pub fn run(octets: &[u8]) {
    let Some((kind, messages)) = octets.split_first() else { return };
    match kind {
        b'f' => check_firewall(messages),
        b'r' => check_ruleset(messages),
        b'c' => check_changes(messages),
        b's' => check_sets(messages),
        b't' => check_connections(messages),
        b'l' => check_links(messages),
        b'a' => check_answers(messages),
        _ => {}
    }
}

fn spec() -> NodeSpec {
    let addresses: Vec<IpAddr> =
        ["169.254.20.10", "10.96.0.10", "fd00::10"].iter().flat_map(|text| text.parse()).collect();
    let (probe_mark, fallback) = (0x10_0000, Fallback::default());
    NodeSpec { addresses, port: 53, health_port: 8080, interface: None, probe_mark, fallback }
}

fn rules() -> Vec<Rule> {
    let spec = spec();
    desired(&spec, &Interception::of(&spec.addresses)).rules
}

/// A firewall decides on every packet the same each time, and who drops it is there.
fn check_firewall(messages: &[u8]) {
    let chains = dumps::chains(messages);
    assert!(chains.bases.is_sorted_by_key(|chain| chain.base.priority), "in the order in which packets meet them");
    assert!(chains.bases.iter().all(|chain| matches!(chain.base.at, NetfilterHook::Input | NetfilterHook::Output)));
    let rules = rules();
    let packets: Vec<Packet> = rules.iter().filter_map(Packet::of).collect();
    let mut dropped = HashSet::new();
    for packet in &packets {
        let found = packet_verdict(&chains, packet);
        assert_eq!(found, packet_verdict(&chains, packet));
        match found {
            PacketVerdict::Dropped { by } => {
                check_eater(&chains, packet, &by);
                assert!(by.rule.is_some() || is_policy(&chains, &by), "{by}");
                if !packet.is_loopback {
                    dropped.insert(packet.address);
                }
            }
            PacketVerdict::Unknown { by } => check_eater(&chains, packet, &by),
            PacketVerdict::Accepted => {}
        }
    }
    let refused: HashSet<IpAddr> = dumps::refused(&rules, &chains).into_iter().map(|(address, _)| address).collect();
    assert_eq!(refused, dropped);

    let handles: HashSet<u64> = chains.rules.values().flatten().map(|rule| rule.handle).collect();
    for is_alone in [false, true] {
        let (missing, surplus) = dumps::accepting(&rules, &chains, is_alone);
        assert!(
            missing.iter().all(|rule| rules.contains(rule)) && surplus.iter().all(|handle| handles.contains(handle))
        );
        assert_eq!(dumps::accepting(&[], &chains, is_alone).0, []);
    }
}

fn check_eater(chains: &Chains, packet: &Packet, by: &DropSource) {
    assert!(by.chain.family.sees(packet.address));
    // Without a rule it is a policy, or a chain that cannot be followed: it was not read, or chains jump deeper than
    // the kernel lets them.
    if let Some(handle) = by.rule {
        let there = chains.rules.get(&by.chain);
        assert!(there.is_some_and(|rules| rules.iter().any(|rule| rule.handle == handle)), "{by}");
    }
}

fn is_policy(chains: &Chains, by: &DropSource) -> bool {
    chains.bases.iter().any(|base| base.name == by.chain && base.base.drops)
}

/// What is read of tables and rules is of the messages that were there.
fn check_ruleset(messages: &[u8]) {
    let ruleset = dumps::ruleset(messages);
    let count = ruleset.tables.len() + ruleset.chains.iter().map(|chain| 1 + chain.rules.len()).sum::<usize>();
    assert!(count * HEADER <= messages.len());
    let mut targets = HashSet::new();
    for chain in &ruleset.chains {
        let at = chain.base.map(|base| base.at);
        for seen in &chain.rules {
            if let Some(rule) = seen.rule {
                assert!(
                    rule.hook.is_raw() && matches!(at, Some(NetfilterHook::Prerouting | NetfilterHook::Output)),
                    "{rule}"
                );
            }
            if let Some(rewrite) = seen.rewrite {
                assert!(
                    !seen.effects.is_empty() && rewrite.from.is_ipv4() == rewrite.to.is_ipv4()
                        || rewrite.from.is_ipv6()
                );
                if rewrite.end == PacketEnd::Destination {
                    targets.insert(rewrite.to);
                }
            }
        }
    }
    for address in spec().addresses {
        assert!(ruleset.fallback_of(address, 53).is_none_or(|upstream| targets.contains(&upstream)));
    }
    let (tables, rules) = dumps::owned(messages, "nodelocaldns");
    assert!((tables.len() + rules.len()) * HEADER <= messages.len());
}

/// What others change is seen, and our own changes are not others'.
fn check_changes(messages: &[u8]) {
    let own = |port_ids| OwnTables { tables: vec!["nodelocaldns".to_owned()], port_ids };
    let all = dumps::change_scope(messages, &own(Vec::new()));
    let ports = messages.chunks_exact(4).map(|word| u32::from_ne_bytes([word[0], word[1], word[2], word[3]]));
    assert_eq!(dumps::change_scope(messages, &own(ports.collect())), ChangeScope::default(), "they are all our own");
    let some = dumps::change_scope(&messages[..messages.len() / 2], &own(Vec::new()));
    let is_among = |some: bool, all: bool| !some || all;
    assert!(is_among(some.own_table, all.own_table) && is_among(some.iptables, all.iptables));
    assert!(is_among(some.firewall, all.firewall), "half of it says no more than all of it");
}

/// Each client of a set takes at least the octets of its key.
fn check_sets(messages: &[u8]) {
    assert!(dumps::clients(messages).len() * 8 <= messages.len());
}

fn check_connections(messages: &[u8]) {
    let connections = dumps::connections(messages);
    assert!(connections.len() * HEADER <= messages.len());
    assert!(connections.iter().all(|connection| connection.from.is_ipv4() == connection.to.is_ipv4()));
}

fn check_links(messages: &[u8]) {
    let links = dumps::links(messages);
    let count = links.iter().map(|link| 1 + link.addresses.len()).sum::<usize>();
    assert!(count * HEADER <= messages.len());
    assert!(links.iter().all(|link| !link.is_made_as("nodelocaldns") || link.is_made_by_an_agent()));
}

/// Parts of a list are octets of the datagram, and none of them is taken for another request's.
fn check_answers(messages: &[u8]) {
    let Ok((parts, is_over)) = dumps::answers(messages, &(1..=2)) else { return };
    assert!(parts.iter().map(|part| part.len() + HEADER).sum::<usize>() <= messages.len());
    assert!(parts.iter().all(|part| part.is_empty() || messages.windows(part.len()).any(|octets| octets == part)));
    let other = dumps::answers(messages, &(3..=3)).map_or(0, |(parts, _)| parts.len());
    assert!((parts.len() + other) * HEADER <= messages.len() && (!is_over || !messages.is_empty()));
}
