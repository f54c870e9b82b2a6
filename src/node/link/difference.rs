//! The steps that make a link what it should be. Pure.

use crate::node::desired::LinkSpec;
use std::net::IpAddr;

/// How the alias (`ip link` shows it) of each link begins that an agent made.
const ALIAS: &str = "made by nodelocaldns";
/// Kind of the links that we, and the reference, make.
const DUMMY: &str = "dummy";
/// Kind of those that we make where the kernel has no dummy links.
const BRIDGE: &str = "bridge";

/// A link as the kernel has it.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct LinkView {
    pub index: u32,
    pub name: String,
    /// Kind such as `dummy` or `bridge`; none for hardware.
    pub kind: Option<String>,
    pub alias: Option<String>,
    pub is_up: bool,
    /// Addresses with the lengths of their prefixes.
    pub addresses: Vec<(IpAddr, u8)>,
}

impl LinkView {
    /// Whether an agent made it; one that is there for another reason is adopted, and stays when the agent goes.
    pub fn is_made_by_an_agent(&self) -> bool {
        self.is_of_our_kinds() && self.alias.as_ref().is_some_and(|alias| alias.starts_with(ALIAS))
    }

    /// Whether an agent made it under this name, whatever it is called now.
    pub fn is_made_as(&self, name: &str) -> bool {
        self.is_of_our_kinds() && self.alias.as_ref().is_some_and(|present| *present == alias(name))
    }

    fn is_of_our_kinds(&self) -> bool {
        matches!(self.kind.as_deref(), Some(DUMMY | BRIDGE))
    }
}

/// Alias of a link that we made under this name, so that a later process knows it for ours, also when somebody has
/// renamed it.
pub(super) fn alias(name: &str) -> String {
    format!("{ALIAS} as {name}")
}

/// Which link to look after, and what there is beside it.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(super) struct LinkInventory {
    /// None if it is to be made.
    pub link: Option<LinkView>,
    /// Ours too: it goes, since no address is to be on two links.
    pub surplus: Vec<LinkView>,
    /// No link has the wanted name.
    pub is_name_free: bool,
}

impl LinkInventory {
    /// `named` has the wanted name; `made` are those that we made under it, with whatever name. `known` is the index of
    /// the one that we have looked after until now.
    pub(super) fn among(named: Option<LinkView>, made: Vec<LinkView>, known: Option<u32>) -> Self {
        let is_name_free = named.is_none();
        let index_of = |wanted: Option<u32>| made.iter().position(|link| Some(link.index) == wanted);
        let chosen = index_of(named.as_ref().map(|link| link.index)).or_else(|| index_of(known));
        let mut surplus = made;
        let link = match chosen.or((!surplus.is_empty()).then_some(0)) {
            Some(position) => Some(surplus.remove(position)),
            None => named,
        };
        Self { link, surplus, is_name_free }
    }
}

/// One thing to do.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum LinkStep {
    /// Make the link, with our alias.
    Create,
    /// Give it our alias.
    Mark,
    /// Give it back its name.
    Rename,
    /// Set it up.
    Raise,
    /// Add an address.
    Add(IpAddr),
}

/// What makes `view` what `spec` wants, in order. Name and alias are touched only if the link `is_ours`, the name only
/// if it `may_be_renamed`.
pub(super) fn steps(spec: &LinkSpec, view: Option<&LinkView>, is_ours: bool, may_be_renamed: bool) -> Vec<LinkStep> {
    let Some(view) = view else {
        let addresses = spec.addresses.iter().copied().map(LinkStep::Add);
        return [LinkStep::Create, LinkStep::Raise].into_iter().chain(addresses).collect();
    };
    let mark = (is_ours && view.alias.as_ref() != Some(&alias(&spec.name))).then_some(LinkStep::Mark);
    let rename = (is_ours && may_be_renamed && view.name != spec.name).then_some(LinkStep::Rename);
    let is_missing = |address: &&IpAddr| !view.addresses.iter().any(|(present, _)| present == *address);
    let missing = spec.addresses.iter().filter(is_missing).copied().map(LinkStep::Add);
    let naming = mark.into_iter().chain(rename);
    match view.is_up {
        // Queries wait for the addresses.
        true => missing.chain(naming).collect(),
        // Kernels before 6.2 rename no link that is up.
        false => naming.chain([LinkStep::Raise]).chain(missing).collect(),
    }
}

/// Whether the link is ours to delete: one that we made, or the leftover of a reference that crashed, which is a dummy
/// link with the wanted name and none but addresses of ours. A dummy link that somebody prepared for us carries no
/// address or others too, and stays; asked before ours are added to it, that is.
pub(super) fn is_ours(spec: &LinkSpec, view: &LinkView) -> bool {
    if view.is_made_by_an_agent() {
        return true;
    }
    if view.kind.as_deref() != Some(DUMMY) {
        return false;
    }
    let mut given =
        view.addresses.iter().map(|(address, _)| address).filter(|address| !is_automatic(address)).peekable();
    given.peek().is_some() && given.all(|address| spec.addresses.contains(address))
}

/// Addresses to take off a link that stays: ours, as we put them there.
pub(super) fn addresses_to_remove(spec: &LinkSpec, view: &LinkView) -> Vec<(IpAddr, u8)> {
    let is_ours =
        |(address, prefix): &&(IpAddr, u8)| spec.addresses.contains(address) && *prefix == prefix_length(address);
    view.addresses.iter().filter(is_ours).copied().collect()
}

/// The prefix that holds one address.
pub(super) fn prefix_length(address: &IpAddr) -> u8 {
    if address.is_ipv4() { 32 } else { 128 }
}

/// The kernel gives each link an IPv6 address of its own.
fn is_automatic(address: &IpAddr) -> bool {
    matches!(address, IpAddr::V6(address) if address.is_unicast_link_local())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ip(text: &str) -> IpAddr {
        text.parse().unwrap()
    }

    fn spec() -> LinkSpec {
        LinkSpec { name: "nodelocaldns".to_owned(), addresses: vec![ip("169.254.20.10"), ip("fd00::10")] }
    }

    fn dummy(addresses: &[(&str, u8)]) -> LinkView {
        let addresses = addresses.iter().map(|(address, prefix)| (ip(address), *prefix)).collect();
        LinkView {
            index: 3,
            name: "nodelocaldns".to_owned(),
            kind: Some("dummy".to_owned()),
            alias: None,
            is_up: true,
            addresses,
        }
    }

    #[test]
    fn a_link_that_is_missing_is_made_raised_and_addressed() {
        assert_eq!(
            steps(&spec(), None, true, true),
            [LinkStep::Create, LinkStep::Raise, LinkStep::Add(ip("169.254.20.10")), LinkStep::Add(ip("fd00::10"))]
        );
    }

    #[test]
    fn only_what_is_missing_is_done() {
        let mut view = dummy(&[("169.254.20.10", 32), ("fd00::10", 128), ("192.0.2.1", 24)]);
        assert_eq!(steps(&spec(), Some(&view), false, true), []);
        view.is_up = false;
        view.addresses.remove(0);
        assert_eq!(steps(&spec(), Some(&view), false, true), [LinkStep::Raise, LinkStep::Add(ip("169.254.20.10"))]);
    }

    #[test]
    fn name_and_alias_are_given_back_to_a_link_of_ours_only() {
        let mut view = LinkView { name: "dns0".to_owned(), ..dummy(&[("169.254.20.10", 32), ("fd00::10", 128)]) };
        assert_eq!(steps(&spec(), Some(&view), true, true), [LinkStep::Mark, LinkStep::Rename]);
        assert_eq!(steps(&spec(), Some(&view), false, true), []);
        view.alias = Some(alias("nodelocaldns"));
        assert_eq!(steps(&spec(), Some(&view), true, false), [], "the name is somebody else's");
        assert_eq!(steps(&spec(), Some(&view), true, true), [LinkStep::Rename]);
    }

    #[test]
    fn a_link_that_is_down_gets_its_name_before_it_is_raised() {
        let mut view = LinkView { name: "dns0".to_owned(), is_up: false, ..dummy(&[("169.254.20.10", 32)]) };
        view.alias = Some(alias("nodelocaldns"));
        let wanted = [LinkStep::Rename, LinkStep::Raise, LinkStep::Add(ip("fd00::10"))];
        assert_eq!(steps(&spec(), Some(&view), true, true), wanted, "kernels before 6.2 rename no link that is up");
    }

    #[test]
    fn the_link_that_we_made_is_looked_after_whatever_its_name_and_another_one_of_ours_goes() {
        let link = |index: u32, name: &str| LinkView { index, name: name.to_owned(), ..dummy(&[]) };
        let found = |named: Option<u32>, made: &[u32], known| {
            let made = made.iter().map(|index| link(*index, "any")).collect();
            let found = LinkInventory::among(named.map(|index| link(index, "nodelocaldns")), made, known);
            let surplus: Vec<u32> = found.surplus.iter().map(|link| link.index).collect();
            (found.link.map(|link| link.index), surplus, found.is_name_free)
        };
        assert_eq!(found(None, &[], None), (None, vec![], true));
        assert_eq!(found(Some(3), &[], None), (Some(3), vec![], false), "somebody's");
        assert_eq!(found(Some(3), &[3], None), (Some(3), vec![], false));
        assert_eq!(found(None, &[5], None), (Some(5), vec![], true), "renamed");
        assert_eq!(
            found(Some(3), &[5], None),
            (Some(5), vec![], false),
            "renamed, and the name is somebody else's now"
        );
        assert_eq!(found(Some(3), &[5, 3], Some(5)), (Some(3), vec![5], false));
        assert_eq!(found(None, &[5, 6], Some(6)), (Some(6), vec![5], true));
    }

    #[test]
    fn a_link_is_known_by_the_name_it_was_made_under() {
        let view = LinkView { alias: Some(alias("nodelocaldns")), name: "dns0".to_owned(), ..dummy(&[]) };
        assert!(view.is_made_by_an_agent() && view.is_made_as("nodelocaldns"));
        assert!(!view.is_made_as("nodelocaldns2") && !view.is_made_as("dns0"));
        assert!(
            !LinkView { kind: Some("veth".to_owned()), ..view }.is_made_as("nodelocaldns"),
            "we make no such links"
        );
    }

    #[test]
    fn a_link_that_we_made_is_ours_whatever_it_carries() {
        let mut view = dummy(&[("192.0.2.1", 24)]);
        assert!(!is_ours(&spec(), &view));
        view.alias = Some(alias("nodelocaldns"));
        assert!(is_ours(&spec(), &view));
        view.kind = Some("bridge".to_owned());
        assert!(is_ours(&spec(), &view), "made where the kernel has no dummy links");
        view.kind = Some("veth".to_owned());
        assert!(!is_ours(&spec(), &view), "we make no such links");
    }

    #[test]
    fn a_bridge_of_an_agent_is_known_for_one() {
        let bridge =
            |alias: &str| LinkView { kind: Some("bridge".to_owned()), alias: Some(alias.to_owned()), ..dummy(&[]) };
        assert!(bridge(&alias("nodelocaldns")).is_made_by_an_agent());
        assert!(!bridge("of the virtual machines").is_made_by_an_agent());
    }

    #[test]
    fn a_bridge_with_none_but_our_addresses_is_not_ours() {
        let view = LinkView { kind: Some("bridge".to_owned()), ..dummy(&[("169.254.20.10", 32)]) };
        assert!(!is_ours(&spec(), &view));
    }

    #[test]
    fn the_leftover_of_a_crashed_reference_is_ours() {
        assert!(is_ours(&spec(), &dummy(&[("169.254.20.10", 32), ("fe80::1", 64)])));
    }

    #[test]
    fn a_dummy_link_prepared_by_somebody_is_not_ours() {
        assert!(!is_ours(&spec(), &dummy(&[("fe80::1", 64)])));
        assert!(!is_ours(&spec(), &dummy(&[("169.254.20.10", 32), ("192.0.2.1", 24)])));
    }

    #[test]
    fn only_our_addresses_leave_a_link_that_stays() {
        let view = dummy(&[("169.254.20.10", 32), ("fd00::10", 64), ("192.0.2.1", 24)]);
        assert_eq!(addresses_to_remove(&spec(), &view), [(ip("169.254.20.10"), 32)]);
    }
}
