//! Which clients and questions a policy is for.

use crate::message::{LowerName, RecordType};
use std::net::IpAddr;

/// What becomes of a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum AclAction {
    Allow,
    /// REFUSED.
    Block,
    /// NOERROR without records.
    Filter,
    /// Nothing is said.
    Drop,
}

/// One `acl`: its zones, and its policies in order.
#[derive(Clone, Debug)]
pub(super) struct AclRule {
    pub zones: Vec<LowerName>,
    pub policies: Vec<AclPolicy>,
}

/// One line of an `acl`.
#[derive(Clone, Debug)]
pub(super) struct AclPolicy {
    pub action: AclAction,
    /// `None`: all.
    pub qtypes: Option<Vec<RecordType>>,
    /// `None`: all.
    pub sources: Option<AddressRanges>,
}

/// Addresses, as ranges that neither overlap nor touch, in order; IPv4 apart from IPv6.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct AddressRanges {
    ipv4: Vec<(u128, u128)>,
    ipv6: Vec<(u128, u128)>,
}

impl AddressRanges {
    /// Those of all these networks.
    pub(super) fn new(networks: impl IntoIterator<Item = (IpAddr, u8)>) -> Self {
        let mut sources = Self::default();
        for (address, prefix) in networks {
            let (bits, ranges) = match address {
                IpAddr::V4(_) => (32, &mut sources.ipv4),
                IpAddr::V6(_) => (128, &mut sources.ipv6),
            };
            let rest = bits - u32::from(prefix).min(bits);
            let beyond = u128::MAX.checked_shr(128 - rest).unwrap_or_default();
            let number = number_of(address);
            ranges.push((number & !beyond, number | beyond));
        }
        merge(&mut sources.ipv4);
        merge(&mut sources.ipv6);
        sources
    }

    /// True if the address is in one of the networks. Costs as many steps as the number of networks has bits.
    pub(super) fn contains(&self, address: IpAddr) -> bool {
        let ranges = if address.is_ipv4() { &self.ipv4 } else { &self.ipv6 };
        let number = number_of(address);
        let after = ranges.partition_point(|(first, _)| *first <= number);
        after.checked_sub(1).and_then(|index| ranges.get(index)).is_some_and(|(_, last)| number <= *last)
    }
}

fn number_of(address: IpAddr) -> u128 {
    match address {
        IpAddr::V4(address) => u32::from(address).into(),
        IpAddr::V6(address) => address.into(),
    }
}

fn merge(ranges: &mut Vec<(u128, u128)>) {
    ranges.sort_unstable();
    let mut merged: Vec<(u128, u128)> = Vec::with_capacity(ranges.len());
    for (first, last) in ranges.drain(..) {
        match merged.last_mut() {
            Some((_, end)) if first <= end.saturating_add(1) => *end = last.max(*end),
            _ => merged.push((first, last)),
        }
    }
    *ranges = merged;
}

impl AclRule {
    /// The longest of the rule's zones that has the name, by its place; `None` if none has.
    pub(super) fn zone_of(&self, name: &LowerName) -> Option<usize> {
        let within = self.zones.iter().enumerate().filter(|(_, zone)| name.is_within(zone.as_wire()));
        within.max_by_key(|(_, zone)| zone.as_wire().len()).map(|(index, _)| index)
    }

    /// What the first policy that is for this client and type says.
    pub(super) fn decide(&self, client: IpAddr, qtype: RecordType) -> Option<AclAction> {
        let is_for = |policy: &&AclPolicy| {
            policy.qtypes.as_ref().is_none_or(|qtypes| qtypes.contains(&qtype))
                && policy.sources.as_ref().is_none_or(|sources| sources.contains(client))
        };
        self.policies.iter().find(is_for).map(|policy| policy.action)
    }

    /// True if a policy looks at the client.
    pub(super) fn depends_on_client(&self) -> bool {
        self.policies.iter().any(|policy| policy.sources.is_some())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn address(text: &str) -> IpAddr {
        text.parse().unwrap()
    }

    #[test]
    fn a_network_has_its_first_and_its_last_address_and_none_beside() {
        let sources =
            AddressRanges::new([(address("192.0.2.77"), 24), (address("10.0.0.1"), 32), (address("2001:db8::1"), 64)]);
        for inside in ["192.0.2.0", "192.0.2.255", "10.0.0.1", "2001:db8::", "2001:db8::ffff:ffff:ffff:ffff"] {
            assert!(sources.contains(address(inside)), "{inside}");
        }
        for outside in ["192.0.1.255", "192.0.3.0", "10.0.0.0", "10.0.0.2", "2001:db8:0:1::", "::c000:200"] {
            assert!(!sources.contains(address(outside)), "{outside}");
        }
        let all = AddressRanges::new([(address("0.0.0.0"), 0)]);
        assert!(all.contains(address("255.255.255.255")) && !all.contains(address("::1")));
        assert!(AddressRanges::new([(address("::"), 0)]).contains(address("ffff::")));
    }

    proptest! {
        #[test]
        fn merged_networks_have_the_addresses_that_one_of_them_has(
            networks in prop::collection::vec((any::<[u8; 2]>(), 16_u8..=32), 0..20),
            client in any::<[u8; 2]>(),
        ) {
            let of = |[third, fourth]: [u8; 2]| IpAddr::from([10, 1, third, fourth]);
            let sources = AddressRanges::new(networks.iter().map(|(octets, prefix)| (of(*octets), *prefix)));
            let mask = |prefix: u8| u32::MAX.checked_shl(32 - u32::from(prefix)).unwrap_or_default();
            let number = |octets| number_of(of(octets)) as u32;
            let expected =
                networks.iter().any(|(octets, prefix)| (number(*octets) ^ number(client)) & mask(*prefix) == 0);
            prop_assert_eq!(sources.contains(of(client)), expected);
        }
    }
}
