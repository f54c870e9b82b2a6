//! Finds the server block for a name: the longest zone that it is in.

use super::ZoneBinding;
use crate::message::{LowerName, Name, RecordType};
use hashbrown::HashMap;

/// Sites by zone. Only suffix lengths that some zone has are looked up, so that many zones cost no more than one.
#[derive(Default)]
pub(super) struct ZoneTable {
    sites: Vec<ZoneBinding>,
    /// Indices of `sites`, by the zone's lower-case wire form; that of the root has a place of its own.
    below_root: HashMap<Box<[u8]>, usize, foldhash::fast::RandomState>,
    root: Option<usize>,
    /// Whether a zone's wire form has so many octets.
    lengths: Lengths,
    /// The site of the same zone that is asked after this one; empty if no block has a view.
    following: HashMap<usize, usize, foldhash::fast::RandomState>,
    /// A block has a view.
    has_views: bool,
}

struct Lengths([bool; 256]);

impl Default for Lengths {
    fn default() -> Self {
        Self([false; 256])
    }
}

impl ZoneTable {
    /// Adds a zone. Where one is there already, that stays, and this one has what the blocks before it do not take.
    pub(super) fn insert(&mut self, zone: &Name, site: ZoneBinding) {
        let lower = zone.to_lower();
        let wire = lower.as_wire();
        let index = self.sites.len();
        if let Some(first) = self.at(wire) {
            let last = self.same_zone(first).last().unwrap_or(first);
            if self.sites.get(last).is_none_or(|site| site.block.filter.is_none()) {
                return;
            }
            self.following.insert(last, index);
        } else if zone.is_root() {
            self.root = Some(index);
        } else {
            self.lengths.0[usize::from(wire.len() as u8)] = true;
            self.below_root.insert(wire.into(), index);
        }
        self.has_views |= site.block.filter.is_some();
        self.sites.push(site);
    }

    /// The site with this index.
    #[inline]
    pub(super) fn site(&self, index: usize) -> Option<&ZoneBinding> {
        self.sites.get(index)
    }

    /// Each zone, and the index of its first site.
    pub(super) fn zones(&self) -> impl Iterator<Item = (Name, usize)> {
        let below = self.below_root.iter().filter_map(|(wire, index)| Some((Name::read(wire, 0).ok()?.0, *index)));
        below.chain(self.root.map(|index| (Name::root(), index)))
    }

    /// The zone of the site with this index.
    pub(super) fn zone_of(&self, index: usize) -> Option<Name> {
        self.zones().find(|(_, first)| self.same_zone(*first).any(|site| site == index)).map(|(zone, _)| zone)
    }

    /// True if a block has a view, so that not every block takes each query.
    #[inline]
    pub(super) fn has_views(&self) -> bool {
        self.has_views
    }

    fn at(&self, suffix: &[u8]) -> Option<usize> {
        if suffix.len() == 1 {
            return self.root;
        }
        self.has_length(suffix).then(|| self.below_root.get(suffix).copied())?
    }

    /// False if no zone below the root is as long as this.
    #[inline]
    fn has_length(&self, suffix: &[u8]) -> bool {
        // No name has more octets than the index has values.
        self.lengths.0[usize::from(suffix.len() as u8)]
    }

    /// That of the longest zone below the root that holds `name`. A loop of few steps: every query passes it, and most
    /// labels begin no suffix that is as long as a zone.
    #[inline]
    fn longest(&self, name: &LowerName) -> Option<usize> {
        let mut rest = name.as_wire();
        while let Some(length @ 1..) = rest.first() {
            if self.has_length(rest)
                && let Some(index) = self.below_root.get(rest)
            {
                return Some(*index);
            }
            rest = rest.get(usize::from(*length) + 1..).unwrap_or_default();
        }
        None
    }

    /// The sites of one zone, from its first one, in the order of the file.
    fn same_zone(&self, first: usize) -> impl Iterator<Item = usize> {
        std::iter::successors(Some(first), |index| self.following.get(index).copied())
    }

    /// The index of the longest zone's first site that holds `name`. A DS record belongs to the parent's side of a zone
    /// cut (RFC 4035 section 3.1.4.1), so for that type the shortest zone below the root is taken, as the reference
    /// does.
    #[inline]
    pub(super) fn find(&self, name: &LowerName, qtype: RecordType) -> Option<usize> {
        if qtype != RecordType::DS {
            return self.longest(name).or(self.root);
        }
        Self::find_by(name, qtype, |suffix| self.at(suffix))
    }

    /// [`ZoneTable::find`] among the sites that take the query: where none of a zone does, a shorter one is looked at.
    pub(super) fn find_taker(
        &self,
        name: &LowerName,
        qtype: RecordType,
        mut takes: impl FnMut(&ZoneBinding) -> bool,
    ) -> Option<usize> {
        Self::find_by(name, qtype, |suffix| {
            self.same_zone(self.at(suffix)?).find(|index| self.sites.get(*index).is_some_and(&mut takes))
        })
    }

    #[inline]
    fn find_by(name: &LowerName, qtype: RecordType, mut site_of: impl FnMut(&[u8]) -> Option<usize>) -> Option<usize> {
        if qtype != RecordType::DS {
            return name.suffixes().find_map(site_of);
        }
        let mut found = None;
        for suffix in name.suffixes() {
            if suffix.len() > 1 || found.is_none() {
                found = site_of(suffix).or(found);
            }
        }
        found
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::plan::Block;
    use std::sync::Arc;

    fn table(zones: &[&str]) -> ZoneTable {
        let mut table = ZoneTable::default();
        for (index, zone) in zones.iter().enumerate() {
            let block = Arc::new(Block::of(Box::default()));
            table.insert(&Name::parse(zone).unwrap(), ZoneBinding { block, server: 0, zone: index, place: None });
        }
        table
    }

    fn find(zones: &[&str], name: &str, qtype: RecordType) -> Option<String> {
        let table = table(zones);
        let name = Name::parse(name).unwrap().to_lower();
        let site = table.find(&name, qtype)?;
        let found = table.site(site).map(|site| zones[site.zone].to_owned());
        assert_eq!(table.zone_of(site).map(|zone| zone.to_string()), found);
        found
    }

    #[test]
    fn the_longest_zone_answers() {
        let zones = [".", "local.", "cluster.local."];
        assert_eq!(find(&zones, "a.CLUSTER.local.", RecordType::A).as_deref(), Some("cluster.local."));
        assert_eq!(find(&zones, "cluster.local.", RecordType::A).as_deref(), Some("cluster.local."));
        assert_eq!(find(&zones, "xcluster.local.", RecordType::A).as_deref(), Some("local."));
        assert_eq!(find(&zones, "example.", RecordType::A).as_deref(), Some("."));
        assert_eq!(find(&zones, ".", RecordType::NS).as_deref(), Some("."));
    }

    #[test]
    fn no_zone_holds_a_name_outside_all() {
        assert_eq!(find(&["cluster.local."], "example.", RecordType::A), None);
        assert_eq!(find(&["cluster.local."], ".", RecordType::NS), None);
    }

    #[test]
    fn a_ds_query_goes_to_the_shortest_zone_but_the_root() {
        let zones = [".", "local.", "cluster.local."];
        assert_eq!(find(&zones, "a.cluster.local.", RecordType::DS).as_deref(), Some("local."));
        assert_eq!(find(&zones, "example.", RecordType::DS).as_deref(), Some("."));
        assert_eq!(find(&["cluster.local."], "example.", RecordType::DS), None);
    }
}
