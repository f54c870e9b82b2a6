//! What there is to do to a link. Pure.

use crate::node::desired::LinkWish;
use std::net::IpAddr;

/// Alias (`ip link` shows it) of links that we made, so that a later process knows them for ours.
pub const ALIAS: &str = "made by nodelocaldns";
/// Kind of the links that we, and the reference, make.
const DUMMY: &str = "dummy";
/// Kind of those that we make where the kernel has no dummy links.
const BRIDGE: &str = "bridge";

/// A link as the kernel has it.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct LinkView {
    pub index: u32,
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
        matches!(self.kind.as_deref(), Some(DUMMY | BRIDGE)) && self.alias.as_deref() == Some(ALIAS)
    }
}

/// One thing to do.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Step {
    /// Make the link, with our alias.
    Create,
    /// Set it up.
    Raise,
    /// Add an address.
    Add(IpAddr),
}

/// What makes `view` what `wish` wants, in order.
pub fn steps(wish: &LinkWish, view: Option<&LinkView>) -> Vec<Step> {
    let Some(view) = view else {
        let addresses = wish.addresses.iter().copied().map(Step::Add);
        return [Step::Create, Step::Raise].into_iter().chain(addresses).collect();
    };
    let raise = (!view.is_up).then_some(Step::Raise);
    let is_missing = |address: &&IpAddr| !view.addresses.iter().any(|(present, _)| present == *address);
    raise.into_iter().chain(wish.addresses.iter().filter(is_missing).copied().map(Step::Add)).collect()
}

/// Whether the link is ours to delete: one that we made, or the leftover of a reference that crashed, which is a dummy link with the wanted name and
/// none but addresses of ours. A dummy link that somebody prepared for us carries no address or others too, and stays; asked before ours
/// are added to it, that is.
pub fn is_ours(wish: &LinkWish, view: &LinkView) -> bool {
    if view.is_made_by_an_agent() {
        return true;
    }
    if view.kind.as_deref() != Some(DUMMY) {
        return false;
    }
    let mut given = view.addresses.iter().map(|(address, _)| address).filter(|address| !is_automatic(address)).peekable();
    given.peek().is_some() && given.all(|address| wish.addresses.contains(address))
}

/// Addresses to take off a link that stays: ours, as we put them there.
pub fn addresses_to_remove(wish: &LinkWish, view: &LinkView) -> Vec<(IpAddr, u8)> {
    let is_ours = |(address, prefix): &&(IpAddr, u8)| wish.addresses.contains(address) && *prefix == prefix_length(address);
    view.addresses.iter().filter(is_ours).copied().collect()
}

/// The prefix that holds one address.
pub fn prefix_length(address: &IpAddr) -> u8 {
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

    fn wish() -> LinkWish {
        LinkWish { name: "nodelocaldns".to_owned(), addresses: vec![ip("169.254.20.10"), ip("fd00::10")] }
    }

    fn dummy(addresses: &[(&str, u8)]) -> LinkView {
        let addresses = addresses.iter().map(|(address, prefix)| (ip(address), *prefix)).collect();
        LinkView { index: 3, kind: Some("dummy".to_owned()), alias: None, is_up: true, addresses }
    }

    #[test]
    fn a_link_that_is_missing_is_made_raised_and_addressed() {
        assert_eq!(steps(&wish(), None), [Step::Create, Step::Raise, Step::Add(ip("169.254.20.10")), Step::Add(ip("fd00::10"))]);
    }

    #[test]
    fn only_what_is_missing_is_done() {
        let mut view = dummy(&[("169.254.20.10", 32), ("fd00::10", 128), ("192.0.2.1", 24)]);
        assert_eq!(steps(&wish(), Some(&view)), []);
        view.is_up = false;
        view.addresses.remove(0);
        assert_eq!(steps(&wish(), Some(&view)), [Step::Raise, Step::Add(ip("169.254.20.10"))]);
    }

    #[test]
    fn a_link_that_we_made_is_ours_whatever_it_carries() {
        let mut view = dummy(&[("192.0.2.1", 24)]);
        assert!(!is_ours(&wish(), &view));
        view.alias = Some(ALIAS.to_owned());
        assert!(is_ours(&wish(), &view));
        view.kind = Some("bridge".to_owned());
        assert!(is_ours(&wish(), &view), "made where the kernel has no dummy links");
        view.kind = Some("veth".to_owned());
        assert!(!is_ours(&wish(), &view), "we make no such links");
    }

    #[test]
    fn a_bridge_of_an_agent_is_known_for_one() {
        let bridge = |alias: &str| LinkView { kind: Some("bridge".to_owned()), alias: Some(alias.to_owned()), ..dummy(&[]) };
        assert!(bridge(ALIAS).is_made_by_an_agent());
        assert!(!bridge("of the virtual machines").is_made_by_an_agent());
    }

    #[test]
    fn a_bridge_with_none_but_our_addresses_is_not_ours() {
        let view = LinkView { kind: Some("bridge".to_owned()), ..dummy(&[("169.254.20.10", 32)]) };
        assert!(!is_ours(&wish(), &view));
    }

    #[test]
    fn the_leftover_of_a_crashed_reference_is_ours() {
        assert!(is_ours(&wish(), &dummy(&[("169.254.20.10", 32), ("fe80::1", 64)])));
    }

    #[test]
    fn a_dummy_link_prepared_by_somebody_is_not_ours() {
        assert!(!is_ours(&wish(), &dummy(&[("fe80::1", 64)])));
        assert!(!is_ours(&wish(), &dummy(&[("169.254.20.10", 32), ("192.0.2.1", 24)])));
    }

    #[test]
    fn only_our_addresses_leave_a_link_that_stays() {
        let view = dummy(&[("169.254.20.10", 32), ("fd00::10", 64), ("192.0.2.1", 24)]);
        assert_eq!(addresses_to_remove(&wish(), &view), [(ip("169.254.20.10"), 32)]);
    }
}
