//! The probes in flight: which name was sent to which upstream, and whether it has come back.

use crate::chain::ListedUpstream;
use crate::message::{LowerName, Name, NameError};
use std::sync::Arc;

/// One for each upstream that is being probed.
#[derive(Default)]
pub(super) struct Probes(Vec<Probe>);

struct Probe {
    name: LowerName,
    upstream: Arc<ListedUpstream>,
    returned: bool,
}

impl Probes {
    pub(super) fn begin(&mut self, name: &Name, upstream: Arc<ListedUpstream>) {
        self.0.push(Probe { name: name.to_lower(), upstream, returned: false });
    }
    /// A query for `name` has come in: the upstream it was sent to, if it is one of ours.
    pub(super) fn sight(&mut self, name: &LowerName) -> Option<Arc<ListedUpstream>> {
        let probe = self.0.iter_mut().find(|probe| probe.name.as_wire() == name.as_wire())?;
        probe.returned = true;
        Some(probe.upstream.clone())
    }
    pub(super) fn has(&self, name: &LowerName) -> bool {
        self.0.iter().any(|probe| probe.name.as_wire() == name.as_wire())
    }
    pub(super) fn has_returned(&self, name: &Name) -> bool {
        let name = name.to_lower();
        self.0.iter().any(|probe| probe.returned && probe.name.as_wire() == name.as_wire())
    }
    /// From here on the name means nothing, so that nobody who saw it can take the upstream out with it.
    pub(super) fn end(&mut self, name: &Name) {
        let name = name.to_lower();
        self.0.retain(|probe| probe.name.as_wire() != name.as_wire());
    }
}

/// The zone in which names reach an upstream: the chain's zone and the zone of its `forward`, whichever is further
/// down; `None` if they have no name in common.
pub(super) fn probed_zone<'a>(zone: &'a Name, from: &'a Name) -> Option<&'a Name> {
    if from.is_within(zone) { Some(from) } else { zone.is_within(from).then_some(zone) }
}

/// `NUMBER.NUMBER.ZONE`, as the reference writes it. An error if the zone leaves no room for it.
pub(super) fn probe_name(zone: &Name, random: [u64; 2]) -> Result<Name, NameError> {
    let [first, second] = random;
    if zone.is_root() {
        Name::parse(&format!("{first}.{second}."))
    } else {
        Name::parse(&format!("{first}.{second}.{zone}"))
    }
}

#[cfg(test)]
mod tests {
    use super::{Probes, probe_name, probed_zone};
    use crate::chain::{ChainUpstreams, ExchangeFn, ForwardUpstreams};
    use crate::message::Name;
    use std::sync::Arc;

    fn name(text: &str) -> Name {
        Name::parse(text).unwrap()
    }

    #[test]
    fn a_probe_is_known_from_its_beginning_to_its_end() {
        let upstreams = Arc::new(ChainUpstreams::default());
        let listing = ForwardUpstreams::new(upstreams.clone(), Name::root());
        let ask: ExchangeFn = Box::new(|_| Box::pin(async { false }));
        listing.set([("127.0.0.1:53".parse().unwrap(), ask)]);
        let [upstream] = upstreams.current().try_into().ok().unwrap();
        let mut probes = Probes::default();
        let sent = name("1.2.Example.");
        assert!(probes.sight(&sent.to_lower()).is_none());
        probes.begin(&sent, upstream);
        assert!(!probes.has_returned(&sent));
        assert!(probes.sight(&name("1.3.example.").to_lower()).is_none());
        assert!(!probes.has_returned(&sent));
        assert!(probes.sight(&name("1.2.eXample.").to_lower()).is_some());
        assert!(probes.has_returned(&sent));
        probes.end(&sent);
        assert!(probes.sight(&sent.to_lower()).is_none());
    }

    #[test]
    fn the_narrower_zone_is_probed() {
        let (root, org, example, net) = (Name::root(), name("org."), name("example.org."), name("net."));
        assert_eq!(probed_zone(&root, &example), Some(&example));
        assert_eq!(probed_zone(&example, &org), Some(&example));
        assert_eq!(probed_zone(&example, &example), Some(&example));
        assert_eq!(probed_zone(&example, &net), None);
    }

    #[test]
    fn names_are_two_numbers_below_the_zone() {
        assert_eq!(probe_name(&Name::root(), [7, u64::MAX]).unwrap(), name("7.18446744073709551615."));
        assert_eq!(probe_name(&name("cluster.local."), [1, 2]).unwrap(), name("1.2.cluster.local."));
        let label = "a".repeat(63);
        assert!(probe_name(&name(&format!("{label}.{label}.{label}.{}.", "b".repeat(61))), [1, 2]).is_err());
    }
}
