//! Reads netlink messages from bytes instead of a socket, several one behind the other as in a datagram. Tests and fuzz
//! targets use it. Pure.

use super::arrival::ArrivingClient;
use super::desired::Rule;
use super::link::{LinkView, address_of, of};
use super::nftables::connections::TrackedConnection;
use super::nftables::firewall::DropSource;
use super::nftables::ruleset::{ListedChain, Ruleset, RulesetTable};
use super::nftables::{
    Chains, ChangeScope, NEW_CHAIN, NEW_RULE, NEW_TABLE, OwnTables, RuleView, TableView, arrival, due, messages,
    take_answers,
};
use super::{filter_tables, nftables};
use rtnetlink::packet_core::{NetlinkMessage, NetlinkPayload};
use rtnetlink::packet_route::RouteNetlinkMessage;
use std::io;
use std::net::IpAddr;
use std::ops::RangeInclusive;
use std::time::Duration;

/// The parts of a list that answer requests of these sequence numbers, and whether the last request is answered.
///
/// # Errors
///
/// The kernel's refusal of one of them.
pub fn answers(datagram: &[u8], sequence: &RangeInclusive<u32>) -> io::Result<(Vec<Vec<u8>>, bool)> {
    let mut parts = Vec::new();
    let is_over = take_answers(datagram, sequence, |part| parts.push(part.to_vec()))?;
    Ok((parts, is_over))
}

/// Tables, chains and the rules of all chains that were told of before them.
pub fn ruleset(octets: &[u8]) -> Ruleset {
    let mut ruleset = Ruleset::default();
    for message in messages(octets) {
        let payload = message.payload();
        match message.message_type() {
            NEW_TABLE => ruleset.tables.extend(RulesetTable::of(payload)),
            NEW_CHAIN => ruleset.chains.extend(ListedChain::of(payload)),
            NEW_RULE => {
                let rule = ListedChain::of_rule(payload);
                let is_there = |chain: &&mut ListedChain| {
                    rule.as_ref().is_some_and(|(family, table, name)| {
                        (chain.family, &chain.table, &chain.name) == (*family, table, name)
                    })
                };
                if let Some(chain) = ruleset.chains.iter_mut().find(is_there) {
                    chain.take_rule(payload);
                }
            }
            _ => {}
        }
    }
    ruleset
}

/// A table's name, and the port ID of the socket that owns it.
pub type OwnedTable = (String, Option<u32>);

/// Chain and handle of a rule.
pub type Handle = (String, u64);

/// Tables of family inet with their owners, and chain and handle of each rule of the table `name`.
pub fn owned(octets: &[u8], name: &str) -> (Vec<OwnedTable>, Vec<Handle>) {
    let of_kind = |kind: u16| messages(octets).filter(move |message| message.message_type() == kind);
    let tables = of_kind(NEW_TABLE).filter_map(|message| TableView::of(message.payload()));
    let rules = of_kind(NEW_RULE).filter_map(|message| RuleView::of(message.payload(), name));
    (tables.map(|table| (table.name, table.owner)).collect(), rules.map(|rule| (rule.chain, rule.handle)).collect())
}

/// The chains at the hooks `input` and `output`, and what they lead to.
pub fn chains(octets: &[u8]) -> Chains {
    Chains::listed(octets)
}

/// The addresses of `rules` for which packets are sure to be dropped, and by what.
pub fn refused(rules: &[Rule], chains: &Chains) -> Vec<(IpAddr, DropSource)> {
    filter_tables::refused(rules, chains).into_iter().collect()
}

/// Rules to be put into the chains of iptables-nft so that they accept what `rules` are for, and handles of those that
/// are to go.
pub fn accepting(rules: &[Rule], chains: &Chains, is_alone: bool) -> (Vec<Rule>, Vec<u64>) {
    let due = due(rules, chains, is_alone);
    let missing = due.iter().flat_map(|(_, changes)| changes.missing.clone()).collect();
    (missing, due.into_iter().flat_map(|(_, changes)| changes.surplus).collect())
}

/// What the changes in a notification concern that others have made.
pub fn change_scope(datagram: &[u8], own: &OwnTables) -> ChangeScope {
    nftables::change_scope(datagram, own)
}

/// Clients that the elements of sets tell of, each with what is left of its time.
pub fn clients(octets: &[u8]) -> Vec<(ArrivingClient, Duration)> {
    messages(octets).flat_map(|message| arrival::clients(message.payload())).collect()
}

/// Tracked connections.
pub fn connections(octets: &[u8]) -> Vec<TrackedConnection> {
    messages(octets).filter_map(|message| TrackedConnection::of(message.payload())).collect()
}

/// Links with the addresses that were told of after them.
pub fn links(octets: &[u8]) -> Vec<LinkView> {
    let mut links: Vec<LinkView> = Vec::new();
    for message in messages(octets) {
        let Ok(message) = NetlinkMessage::<RouteNetlinkMessage>::deserialize(message.into_inner()) else { continue };
        match message.payload {
            NetlinkPayload::InnerMessage(RouteNetlinkMessage::NewLink(link)) => links.push(of(&link)),
            NetlinkPayload::InnerMessage(RouteNetlinkMessage::NewAddress(address)) => {
                let link = links.iter_mut().find(|link| link.index == address.header.index);
                link.into_iter().for_each(|link| link.addresses.extend(address_of(&address)));
            }
            _ => {}
        }
    }
    links
}
