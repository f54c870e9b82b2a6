//! The table of a hosts file: addresses by name, and names by address. Immutable; a changed file makes a new one.

use super::lines::{self, BadLines};
use crate::message::LowerName;
use hashbrown::hash_map::EntryRef;
use hashbrown::{HashMap, HashSet};
use smallvec::SmallVec;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::sync::Arc;

type Hasher = foldhash::fast::RandomState;

/// Which lines make entries, and of what kind.
#[derive(Clone)]
pub(super) struct EntryRules {
    /// Names in these zones alone.
    pub origins: Arc<[LowerName]>,
    /// Names are found by address too.
    pub has_reverse: bool,
    /// Entries of the Corefile, which come after those of the file.
    pub inline: Arc<[(IpAddr, LowerName)]>,
}

/// Addresses of a name, in the order of the lines.
#[derive(Default)]
pub(super) struct Addresses {
    pub v4: SmallVec<[[u8; 4]; 2]>,
    pub v6: Vec<[u8; 16]>,
}

/// Names in lower-case wire form.
#[derive(Default)]
pub(super) struct Table {
    /// Those that begin with the label `*` stand for each name with one label in its place.
    names: HashMap<Arc<[u8]>, Addresses, Hasher>,
    has_wildcards: bool,
    by_address: HashMap<IpAddr, Vec<Arc<[u8]>>, Hasher>,
    entries: usize,
}

const WILDCARD: &[u8] = b"\x01*";

/// Addresses of a name, and of its family, that are compared one by one; few names have more.
const FEW: usize = 8;

/// Those of the others, by name.
type KnownAddresses = HashSet<(IpAddr, Arc<[u8]>), Hasher>;

impl Table {
    /// The entries of a file with this text and of the Corefile, and what is wrong with the file.
    pub(super) fn new(text: &str, rules: &EntryRules) -> (Self, BadLines) {
        let mut table = Self::default();
        let mut known = KnownAddresses::default();
        let bad = lines::read(text, |address, name| table.add(address, name, rules, &mut known));
        for (address, name) in rules.inline.iter() {
            table.add(*address, name, rules, &mut known);
        }
        (table, bad)
    }

    fn add(&mut self, address: IpAddr, name: &LowerName, rules: &EntryRules, known: &mut KnownAddresses) {
        if !rules.origins.iter().any(|origin| name.is_within(origin.as_wire())) {
            return;
        }
        let is_wildcard = name.as_wire().starts_with(WILDCARD);
        let has_reverse = rules.has_reverse && !is_wildcard;
        self.entries += 1 + usize::from(has_reverse);
        // Hashed once, for a file may have half a million lines.
        let mut entry = match self.names.entry_ref(name.as_wire()) {
            EntryRef::Occupied(entry) => entry,
            EntryRef::Vacant(entry) => entry.insert_entry_with_key(name.as_wire().into(), Addresses::default()),
        };
        let name = entry.key().clone();
        let addresses = entry.get_mut();
        let mut is_new_among_many = || known.insert((address, name.clone()));
        match address {
            IpAddr::V4(v4) if is_new(&addresses.v4, &v4.octets(), &mut is_new_among_many) => {
                addresses.v4.push(v4.octets());
            }
            IpAddr::V6(v6) if is_new(&addresses.v6, &v6.octets(), &mut is_new_among_many) => {
                addresses.v6.push(v6.octets());
            }
            _ => return,
        }
        self.has_wildcards |= is_wildcard;
        if has_reverse {
            self.by_address.entry(address).or_default().push(name);
        }
    }

    /// As the reference counts: names by address as well, and what stands twice twice.
    pub(super) fn entries(&self) -> usize {
        self.entries
    }

    /// The IPv4 addresses of a name: its own, or else those of the wildcard in its place.
    pub(super) fn v4(&self, name: &LowerName) -> &[[u8; 4]] {
        self.of(name, |addresses| &addresses.v4)
    }

    /// The IPv6 addresses of a name, likewise.
    pub(super) fn v6(&self, name: &LowerName) -> &[[u8; 16]] {
        self.of(name, |addresses| &addresses.v6)
    }

    pub(super) fn has(&self, name: &LowerName) -> bool {
        self.exact(name).is_some() || self.wildcard(name).is_some()
    }

    fn of<'t, A>(&'t self, name: &LowerName, family: impl Fn(&'t Addresses) -> &'t [A]) -> &'t [A] {
        let own = self.exact(name).map(&family).filter(|own| !own.is_empty());
        own.or_else(|| self.wildcard(name).map(family)).unwrap_or_default()
    }

    fn exact(&self, name: &LowerName) -> Option<&Addresses> {
        self.names.get(name.as_wire())
    }

    fn wildcard(&self, name: &LowerName) -> Option<&Addresses> {
        if !self.has_wildcards {
            return None;
        }
        // The root has no label that a `*` could stand for.
        let parent = name.suffixes().nth(1)?;
        let mut pattern: SmallVec<[u8; 256]> = SmallVec::from_slice(WILDCARD);
        pattern.extend_from_slice(parent);
        self.names.get(&*pattern)
    }

    /// The names of the address that this name of a reverse zone is for.
    pub(super) fn reverse(&self, name: &LowerName) -> &[Arc<[u8]>] {
        let names = address_of(name).and_then(|address| self.by_address.get(&address));
        names.map(Vec::as_slice).unwrap_or_default()
    }
}

/// Whether an address is not in a list yet. Of those beyond the first few `among_many` tells, so that each costs the
/// same however many there are.
fn is_new<A: PartialEq>(list: &[A], address: &A, among_many: impl FnOnce() -> bool) -> bool {
    let (first, _) = list.split_at(list.len().min(FEW));
    !first.contains(address) && (list.len() < FEW || among_many())
}

/// The address that a name of `in-addr.arpa.` or `ip6.arpa.` is for; `None` for one above those of addresses.
fn address_of(name: &LowerName) -> Option<IpAddr> {
    const IPV4_LABELS: usize = 4;
    const IPV6_LABELS: usize = 32;
    let wire = name.as_wire();
    let labels = || name.suffixes().map(|suffix| suffix.get(1..=usize::from(suffix[0])).unwrap_or_default());
    if wire.ends_with(b"\x07in-addr\x04arpa\0") {
        let mut octets = [0; IPV4_LABELS];
        let mut labels = labels();
        for octet in octets.iter_mut().rev() {
            *octet = decimal(labels.next()?)?;
        }
        return (labels.next()? == b"in-addr").then(|| Ipv4Addr::from(octets).into());
    }
    if wire.ends_with(b"\x03ip6\x04arpa\0") {
        let mut octets = [0_u8; IPV6_LABELS / 2];
        let mut labels = labels();
        for index in (0..IPV6_LABELS).rev() {
            let [digit] = labels.next()? else { return None };
            let nibble = char::from(*digit).to_digit(16)? as u8;
            octets[index / 2] |= nibble << (4 * (1 - index % 2));
        }
        return (labels.next()? == b"ip6").then(|| IpAddr::from(Ipv6Addr::from(octets)).to_canonical());
    }
    None
}

/// A number up to 255 without leading zeros.
fn decimal(label: &[u8]) -> Option<u8> {
    let text = std::str::from_utf8(label).ok().filter(|text| text.bytes().all(|octet| octet.is_ascii_digit()))?;
    text.parse().ok().filter(|_| text == "0" || !text.starts_with('0'))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::message::Name;

    fn lower(name: &str) -> LowerName {
        Name::parse(name).unwrap().to_lower()
    }

    fn rules(has_reverse: bool, inline: &[(&str, &str)]) -> EntryRules {
        let inline = inline.iter().map(|(address, name)| (address.parse().unwrap(), lower(name)));
        EntryRules { origins: [lower("example."), lower("test.")].into(), has_reverse, inline: inline.collect() }
    }

    fn table(text: &str) -> Table {
        Table::new(text, &rules(true, &[])).0
    }

    fn v4(table: &Table, name: &str) -> Vec<String> {
        table.v4(&lower(name)).iter().map(|octets| Ipv4Addr::from(*octets).to_string()).collect()
    }

    fn reverse(table: &Table, name: &str) -> Vec<String> {
        let text = |wire: &Arc<[u8]>| Name::read(wire, 0).unwrap().0.to_string();
        table.reverse(&lower(name)).iter().map(text).collect()
    }

    #[test]
    fn the_file_comes_before_the_corefile_and_what_stands_twice_is_said_once() {
        let rules =
            rules(true, &[("192.0.2.3", "a.example"), ("192.0.2.1", "a.example"), ("2001:db8::1", "a.example")]);
        let (table, _) = Table::new("192.0.2.2 a.example\n192.0.2.1 a.example b.test elsewhere.\n", &rules);
        assert_eq!(v4(&table, "a.example."), ["192.0.2.2", "192.0.2.1", "192.0.2.3"]);
        assert_eq!(table.v6(&lower("a.example.")).len(), 1);
        assert_eq!(reverse(&table, "1.2.0.192.in-addr.arpa."), ["a.example.", "b.test."]);
        assert!(!table.has(&lower("elsewhere.")), "it is in no zone of these");
        assert_eq!(table.entries(), 12);
    }

    #[test]
    fn a_wildcard_stands_for_one_label_where_the_name_has_no_address_of_its_own() {
        let table = table("192.0.2.10 *.example\n192.0.2.11 a.example\n");
        assert_eq!(v4(&table, "apps.example."), ["192.0.2.10"]);
        assert_eq!(v4(&table, "a.example."), ["192.0.2.11"]);
        for other in ["deep.apps.example.", "example.", ".", "apps.test."] {
            assert!(!table.has(&lower(other)), "{other}");
        }
        assert_eq!(reverse(&table, "10.2.0.192.in-addr.arpa."), [""; 0]);
        assert_eq!(table.entries(), 3);
    }

    #[test]
    fn names_are_found_by_address_unless_that_is_not_wanted() {
        let text = "192.0.2.40 one.example\n2001:db8::4b six.example\n::ffff:192.0.2.41 mapped.example\n";
        let here = table(text);
        let v6 = format!("b.4.{}8.b.d.0.1.0.0.2.ip6.arpa.", "0.".repeat(22));
        let mapped = format!("9.2.2.0.0.0.0.c.f.f.f.f.{}ip6.arpa.", "0.".repeat(20));
        for (name, expected) in [
            ("40.2.0.192.in-addr.arpa.", Some("one.example.")),
            (&v6, Some("six.example.")),
            ("41.2.0.192.in-addr.arpa.", Some("mapped.example.")),
            (&mapped, Some("mapped.example.")),
            ("040.2.0.192.in-addr.arpa.", None),
            ("2.0.192.in-addr.arpa.", None),
            ("x.40.2.0.192.in-addr.arpa.", None),
            ("40.2.0.192.in-addr.arpa.example.", None),
            ("in-addr.arpa.", None),
            ("ip6.arpa.", None),
            ("xx.4.0.0.ip6.arpa.", None),
        ] {
            assert_eq!(reverse(&here, name).first().map(String::as_str), expected, "{name}");
        }
        let (without, _) = Table::new(text, &rules(false, &[]));
        assert_eq!((reverse(&without, &v6).len(), without.entries()), (0, 3));
    }

    #[test]
    fn a_name_of_ever_more_addresses_and_an_address_of_ever_more_names_cost_no_more_each() {
        use std::fmt::Write;
        let mut text = String::new();
        for number in 0..20_000_u32 {
            let address = Ipv4Addr::from(number);
            _ = writeln!(text, "{address} one.example\n0.0.0.0 n{number}.example\n0.0.0.0 n{number}.example");
        }
        for number in 0..20_000_u32 {
            _ = writeln!(text, "{} one.example", Ipv4Addr::from(number));
        }
        let table = table(&text);
        let v4: Vec<u32> = table.v4(&lower("one.example.")).iter().map(|octets| u32::from_be_bytes(*octets)).collect();
        assert_eq!(v4, (0..20_000).collect::<Vec<_>>(), "each is there once, in the order of the lines");
        assert_eq!(reverse(&table, "0.0.0.0.in-addr.arpa.").len(), 20_001);
    }
}
