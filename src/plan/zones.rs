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
    /// Bit n is set if a zone's wire form has n octets (mod 256).
    lengths: [u64; 4],
}

impl ZoneTable {
    /// Adds a zone; one that is there already stays.
    pub(super) fn insert(&mut self, zone: &Name, site: ZoneBinding) {
        let lower = zone.to_lower();
        let wire = lower.as_wire();
        if self.at(wire).is_some() {
            return;
        }
        let index = self.sites.len();
        self.sites.push(site);
        if zone.is_root() {
            self.root = Some(index);
        } else {
            self.lengths[wire.len() / 64 % 4] |= 1 << (wire.len() % 64);
            self.below_root.insert(wire.into(), index);
        }
    }

    /// The site with this index.
    #[inline]
    pub(super) fn site(&self, index: usize) -> Option<&ZoneBinding> {
        self.sites.get(index)
    }

    fn at(&self, suffix: &[u8]) -> Option<usize> {
        if suffix.len() == 1 {
            return self.root;
        }
        if self.lengths[suffix.len() / 64 % 4] & (1 << (suffix.len() % 64)) == 0 {
            return None;
        }
        self.below_root.get(suffix).copied()
    }

    /// The index of the longest zone's site that holds `name`. A DS record belongs to the parent's side of a zone cut
    /// (RFC 4035 section 3.1.4.1), so for that type the shortest zone below the root is taken, as the reference does.
    pub(super) fn find(&self, name: &LowerName, qtype: RecordType) -> Option<usize> {
        if qtype != RecordType::DS {
            return name.suffixes().find_map(|suffix| self.at(suffix));
        }
        let mut found = None;
        for suffix in name.suffixes() {
            match self.at(suffix) {
                Some(site) if suffix.len() > 1 || found.is_none() => found = Some(site),
                _ => {}
            }
        }
        found
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::chain::Chain;
    use crate::plan::Block;
    use std::sync::Arc;

    fn table(zones: &[&str]) -> ZoneTable {
        let chain = Arc::new(Chain { handlers: Box::new([]) });
        let mut table = ZoneTable::default();
        for (index, zone) in zones.iter().enumerate() {
            let observers = Box::new([]);
            let chain = chain.clone();
            let block =
                Block { chain, observers, arranger: None, udp_cap: None, options: None, depends_on_client: false };
            let block = Arc::new(block);
            table.insert(&Name::parse(zone).unwrap(), ZoneBinding { block, server: 0, zone: index });
        }
        table
    }

    fn find(zones: &[&str], name: &str, qtype: RecordType) -> Option<String> {
        let table = table(zones);
        let name = Name::parse(name).unwrap().to_lower();
        table.find(&name, qtype).and_then(|site| table.site(site)).map(|site| zones[site.zone].to_owned())
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
