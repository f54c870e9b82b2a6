//! Zones of server blocks that a name is nearly in: one of the two is misspelt, perhaps.

use crate::message::{LowerName, Name};

/// How many letters may be other ones, too many or too few, or have changed places.
const MOST_DIFFERENCES: usize = 2;

/// Octets of a name and of a zone that are compared: what two of them cost grows with their product.
const LONGEST: usize = 64;

/// Zones that are told of.
const MOST: usize = 3;

/// A zone, and the end of the name that it nearly is.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct NearZone {
    /// As in the name.
    pub written: String,
    /// As in the Corefile.
    pub zone: String,
    /// Its first site.
    pub site: usize,
}

/// The zones, with their first sites, that `name` is nearly in, and that would be longer than the one that it is in, by
/// how little they differ.
pub(super) fn near_zones(
    name: &LowerName,
    taken_by: Option<&Name>,
    zones: impl Iterator<Item = (Name, usize)>,
) -> Vec<NearZone> {
    let least = taken_by.map_or(0, |zone| zone.as_wire().len());
    let suffixes: Vec<(String, usize)> = name
        .suffixes()
        .filter(|suffix| (2.max(least + 1)..=LONGEST).contains(&suffix.len()))
        .filter_map(|suffix| Some((Name::read(suffix, 0).ok()?.0.to_string(), suffix.len())))
        .collect();
    let mut near = Vec::new();
    for (zone, site) in zones {
        let octets = zone.as_wire().len();
        let has_name = name.is_within(zone.to_lower().as_wire());
        if has_name || !(2.max(least)..=LONGEST).contains(&octets) {
            continue;
        }
        let text = zone.to_string();
        let nearest = suffixes
            .iter()
            .filter(|(_, length)| length.abs_diff(octets) <= MOST_DIFFERENCES)
            .map(|(written, _)| (strsim::damerau_levenshtein(written, &text), written))
            .min_by_key(|(distance, _)| *distance);
        // Of a short zone two other letters make another word.
        let most = MOST_DIFFERENCES.min((octets / 3).max(1));
        if let Some((distance, written)) = nearest.filter(|(distance, _)| (1..=most).contains(distance)) {
            near.push((distance, NearZone { written: written.clone(), zone: text, site }));
        }
    }
    near.sort_by(|(one, first), (other, second)| (one, &first.zone).cmp(&(other, &second.zone)));
    near.into_iter().map(|(_, near)| near).take(MOST).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn found(name: &str, taken_by: Option<&str>, zones: &[&str]) -> Vec<(String, String)> {
        let parse = |text: &str| Name::parse(text).unwrap();
        let zones = zones.iter().enumerate().map(|(site, zone)| (parse(zone), site));
        let near = near_zones(&parse(name).to_lower(), taken_by.map(parse).as_ref(), zones);
        near.into_iter().map(|near| (near.written, near.zone)).collect()
    }

    #[test]
    fn a_zone_that_one_or_two_letters_make_another_is_near_and_one_that_the_name_is_in_is_not() {
        let near = |written: &str, zone: &str| vec![(written.to_owned(), zone.to_owned())];
        let zones = [".", "consul.local.", "cluster.local.", "in-addr.arpa."];
        assert_eq!(found("web.consul.lcal.", Some("."), &zones), near("consul.lcal.", "consul.local."));
        assert_eq!(found("web.cosnul.local.", Some("."), &zones), near("cosnul.local.", "consul.local."));
        assert_eq!(found("a.CLUSTER.lokal.", None, &zones), near("cluster.lokal.", "cluster.local."));
        assert_eq!(found("web.consul.local.", Some("consul.local."), &zones), []);
        assert_eq!(found("web.consul.internal.", Some("."), &zones), []);
        assert_eq!(found("a.com.", Some("."), &["b.", "net."]), [], "short words are other words");
        assert_eq!(found(".", None, &zones), []);
    }

    #[test]
    fn zones_above_the_one_that_takes_the_name_are_no_mistake() {
        assert_eq!(found("a.b.local.", Some("b.local."), &["locol.", "b.local."]), []);
    }

    #[test]
    fn the_nearest_are_told_first_and_no_more_than_three() {
        let zones = ["aaaaaa.", "aaaaab.", "aaaabb.", "aaabbb.", "aabbbb."];
        let near: Vec<String> = found("x.aaaaac.", None, &zones).into_iter().map(|(_, zone)| zone).collect();
        assert_eq!(near, ["aaaaaa.", "aaaaab.", "aaaabb."]);
    }

    proptest! {
        #![proptest_config(ProptestConfig { cases: 64, ..ProptestConfig::default() })]

        #[test]
        fn any_name_is_compared_without_a_panic(labels in proptest::collection::vec(
            proptest::collection::vec(any::<u8>(), 1..=20), 0..10)) {
            let mut wire: Vec<u8> = Vec::new();
            for label in &labels {
                wire.push(label.len() as u8);
                wire.extend(label);
            }
            wire.push(0);
            if let Ok((name, _)) = Name::read(&wire, 0) {
                let zones = [(Name::parse("consul.local.").unwrap(), 0)];
                let near = near_zones(&name.to_lower(), None, zones.into_iter());
                prop_assert!(near.len() <= 1);
            }
        }
    }
}
