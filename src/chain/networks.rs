//! Sets of client addresses.

use std::collections::HashMap;
use std::net::IpAddr;

/// Addresses, as ranges that neither overlap nor touch, in order; IPv4 apart from IPv6.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Networks {
    ipv4: Vec<(u128, u128)>,
    ipv6: Vec<(u128, u128)>,
}

impl Networks {
    /// The addresses of all these networks: each an address and the bits of its prefix, what exceeds which is ignored.
    pub fn new(networks: impl IntoIterator<Item = (IpAddr, u8)>) -> Self {
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
    pub fn contains(&self, address: IpAddr) -> bool {
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

/// Classes of addresses: two of one class are in the same of some sets of networks.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct AddressClasses {
    /// Where a run of addresses of one class begins, in order, the first at the family's first address; its class.
    ipv4: Vec<(u32, u32)>,
    ipv6: Vec<(u128, u32)>,
    count: u32,
}

impl AddressClasses {
    /// Those of all these sets. `None` without any.
    pub(crate) fn new(sets: &[Networks]) -> Option<Self> {
        let mut known = HashMap::new();
        let ipv4 = runs(sets.iter().map(|set| &set.ipv4), u32::MAX.into(), &mut known);
        let ipv4 = ipv4.into_iter().map(|(first, class)| (first as u32, class)).collect();
        let ipv6 = runs(sets.iter().map(|set| &set.ipv6), u128::MAX, &mut known);
        (!sets.is_empty()).then_some(Self { ipv4, ipv6, count: known.len() as u32 })
    }

    /// How many there are.
    pub(crate) fn count(&self) -> u32 {
        self.count
    }

    /// The class of an address, below [`Self::count`]. Costs as many steps as the number of networks has bits.
    #[inline]
    pub(crate) fn of(&self, address: IpAddr) -> u32 {
        match address {
            IpAddr::V4(address) => class_of(&self.ipv4, address.into()),
            IpAddr::V6(address) => class_of(&self.ipv6, address.into()),
        }
    }
}

#[inline]
fn class_of<N: Ord + Copy>(runs: &[(N, u32)], number: N) -> u32 {
    let after = runs.partition_point(|(first, _)| *first <= number);
    after.checked_sub(1).and_then(|index| runs.get(index)).map_or(0, |(_, class)| *class)
}

/// By the sets that have an address, the class of it.
type Known = HashMap<Box<[u64]>, u32>;

/// Runs of addresses, up to the last that there is, that the same of these sets have.
fn runs<'s>(
    sets: impl Iterator<Item = &'s Vec<(u128, u128)>>,
    last_of_all: u128,
    known: &mut Known,
) -> Vec<(u128, u32)> {
    // Where a set begins to have addresses, or ends.
    let mut bounds = vec![(0, None)];
    let mut count = 0;
    for (index, ranges) in sets.enumerate() {
        count = index + 1;
        let after = |last: u128| (last < last_of_all).then(|| last + 1);
        let bounds_of = |(first, last): &(u128, u128)| [Some(*first), after(*last)];
        bounds.extend(ranges.iter().flat_map(bounds_of).flatten().map(|bound| (bound, Some(index))));
    }
    bounds.sort_unstable();
    let mut having: Box<[u64]> = vec![0; count.div_ceil(64)].into();
    let mut runs: Vec<(u128, u32)> = Vec::new();
    for bounds in bounds.chunk_by(|(one, _), (other, _)| one == other) {
        for index in bounds.iter().filter_map(|(_, index)| *index) {
            having[index / 64] ^= 1 << (index % 64);
        }
        let next = known.len() as u32;
        let class = *known.entry(having.clone()).or_insert(next);
        if runs.last().is_none_or(|(_, before)| *before != class) {
            runs.extend(bounds.first().map(|(first, _)| (*first, class)));
        }
    }
    runs
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
            Networks::new([(address("192.0.2.77"), 24), (address("10.0.0.1"), 32), (address("2001:db8::1"), 64)]);
        for inside in ["192.0.2.0", "192.0.2.255", "10.0.0.1", "2001:db8::", "2001:db8::ffff:ffff:ffff:ffff"] {
            assert!(sources.contains(address(inside)), "{inside}");
        }
        for outside in ["192.0.1.255", "192.0.3.0", "10.0.0.0", "10.0.0.2", "2001:db8:0:1::", "::c000:200"] {
            assert!(!sources.contains(address(outside)), "{outside}");
        }
        let all = Networks::new([(address("0.0.0.0"), 0)]);
        assert!(all.contains(address("255.255.255.255")) && !all.contains(address("::1")));
        assert!(Networks::new([(address("::"), 0)]).contains(address("ffff::")));
    }

    #[test]
    fn classes_are_as_few_as_there_are_combinations_of_sets() {
        let pods = Networks::new([(address("10.0.0.0"), 8), (address("255.255.255.255"), 32), (address("fd00::"), 8)]);
        let some = Networks::new([(address("10.1.0.0"), 16), (address("10.3.0.0"), 16)]);
        let classes = AddressClasses::new(&[pods, some]).unwrap();
        let class = |text: &str| classes.of(address(text));
        assert_eq!(classes.count(), 3);
        let same = [
            &["10.0.0.0", "10.2.0.1", "10.255.255.255", "255.255.255.255", "fd12::1"][..],
            &["10.1.0.0", "10.1.255.255", "10.3.2.1"],
            &["0.0.0.0", "9.255.255.255", "11.0.0.0", "255.255.255.254", "::", "ffff::"],
        ];
        for (number, addresses) in same.iter().enumerate() {
            assert!(addresses.iter().all(|address| class(address) == class(addresses[0])), "{number}");
        }
        assert!(same.iter().all(|addresses| class(addresses[0]) < 3));
        assert_eq!(AddressClasses::new(&[]), None);
        assert_eq!(
            AddressClasses::new(&[Networks::new([(address("0.0.0.0"), 0), (address("::"), 0)])]).unwrap().count(),
            1
        );
    }

    fn of([third, fourth]: [u8; 2]) -> IpAddr {
        IpAddr::from([10, 1, third, fourth])
    }

    proptest! {
        #[test]
        fn merged_networks_have_the_addresses_that_one_of_them_has(
            networks in prop::collection::vec((any::<[u8; 2]>(), 16_u8..=32), 0..20),
            client in any::<[u8; 2]>(),
        ) {
            let sources = Networks::new(networks.iter().map(|(octets, prefix)| (of(*octets), *prefix)));
            let mask = |prefix: u8| u32::MAX.checked_shl(32 - u32::from(prefix)).unwrap_or_default();
            let number = |octets| number_of(of(octets)) as u32;
            let has = |(octets, prefix): &([u8; 2], u8)| (number(*octets) ^ number(client)) & mask(*prefix) == 0;
            let expected = networks.iter().any(has);
            prop_assert_eq!(sources.contains(of(client)), expected);
        }

        #[test]
        fn addresses_are_of_one_class_if_the_same_sets_have_them_and_only_then(
            sets in prop::collection::vec(prop::collection::vec((any::<[u8; 2]>(), 16_u8..=32), 0..4), 1..70),
            clients in any::<[[u8; 2]; 2]>(),
        ) {
            let network = |(octets, prefix): &([u8; 2], u8)| (of(*octets), *prefix);
            let sets: Vec<_> = sets.iter().map(|networks| Networks::new(networks.iter().map(network))).collect();
            let classes = AddressClasses::new(&sets).unwrap();
            let [one, other] = clients.map(of);
            let are_alike = sets.iter().all(|set| set.contains(one) == set.contains(other));
            prop_assert_eq!(classes.of(one) == classes.of(other), are_alike);
            prop_assert!(classes.of(one) < classes.count());
        }
    }
}
