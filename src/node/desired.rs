//! What the node should look like, and nothing about how it gets there. Pure.
//!
//! # Why these rules
//!
//! kube-proxy rewrites a packet for a ClusterIP in the nat hooks, and nat acts on tracked connections only. A packet
//! that a raw hook marks untracked therefore reaches the local socket that holds the ClusterIP: that is the whole
//! interception.
//!
//! **Replies are untracked as long as we run.** A tracked reply, `10.96.0.10:53 → pod:40000`, would make
//! a connection of its own. The pod's next query from port 40000 would belong to that connection (it looks like its
//! answer), so nat would never be asked, and the query would stay on the node even with the interception off: lost, if
//! it is off because the server is ill. Hence replies are untracked at addresses that are not intercepted too: the
//! server may still send some after the interception is off.
//!
//! **A probe** is a packet that the watchdog sends to a listening address with the mark of [`NodeSpec::probe_mark`].
//! Its way, for an address that kube-proxy rewrites in nat OUTPUT:
//!
//! 1. Routing finds the address on the node's own link: out through `lo`, source address equal to the destination.
//! 2. raw OUTPUT: marked, so untracked. nat OUTPUT passes it by.
//! 3. It comes back in through `lo` as the same packet, which is untracked already, so conntrack and nat PREROUTING
//!    leave it alone. No rule is needed in PREROUTING, and pods, whose marks do not survive the change of network
//!    namespace, cannot send such packets.
//! 4. The server's reply carries no mark (a mark belongs to a socket). raw OUTPUT knows it by its source address and
//!    port: untracked. Tracked, a TCP SYN-ACK whose SYN conntrack has not seen would be INVALID, and firewalls drop
//!    those.
//!
//! **On `lo` a packet meets the filter table twice**, in OUTPUT and in INPUT, whoever sent it: replies to programs on
//! the node, and to probes, come in by INPUT with our address as their source. A firewall that accepts tracked
//! connections and not everything on `lo` would drop them, and kubelet's questions to the health port. The rules for
//! those are for `lo` alone: from another link such a source is a lie, and the health port nobody's business.
//!
//! `tests/node_namespace` walks the way of a probe with kube-proxy's rules in place.

use super::fallback_rules::Fallback;
pub use super::protocol::TransportProtocol;
use std::collections::{BTreeSet, HashSet};
use std::fmt;
use std::net::IpAddr;

/// The comment of rules that accept: the reference's, ours too.
pub(super) const ALLOW_TRAFFIC: &str = "NodeLocal DNS Cache: allow DNS traffic";

/// What the user asks of the node.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NodeSpec {
    /// Listening addresses to intercept, IPv4 and IPv6 mixed (`-localip`).
    pub addresses: Vec<IpAddr>,
    /// DNS port (`-dns.port`).
    pub port: u16,
    /// TCP port of the health endpoint (`-health-port`).
    pub health_port: u16,
    /// Link that carries the addresses (`-interfacename`); none to leave links alone (`-setupinterface=false`).
    pub interface: Option<String>,
    /// Bits of the packet mark that tell a probe; all of them must be set in it. Not zero.
    pub probe_mark: u32,
    /// Who answers for addresses that are ours alone when we do not (`--fallback`).
    pub fallback: Fallback,
}

/// The listening addresses whose queries come here, whoever sends them. At every other one only the watchdog's probes
/// do, and every other query for a ClusterIP goes to cluster DNS. [`Interception::default`] is none.
#[derive(Debug, Clone, Default, PartialEq, Eq, Hash)]
pub struct Interception(BTreeSet<IpAddr>);

impl Interception {
    /// That of these addresses.
    pub fn of(addresses: &[IpAddr]) -> Self {
        addresses.iter().copied().collect()
    }

    /// Whether queries for no address come here.
    pub fn is_none(&self) -> bool {
        self.0.is_empty()
    }

    /// Whether queries for `address` come here.
    pub fn contains(&self, address: IpAddr) -> bool {
        self.0.contains(&address.to_canonical())
    }

    /// Whether `other` has all of these addresses, and perhaps more.
    pub fn is_within(&self, other: &Self) -> bool {
        self.0.is_subset(&other.0)
    }

    /// The addresses that are in both.
    pub fn in_both(&self, other: &Self) -> Self {
        self.0.intersection(&other.0).copied().collect()
    }

    /// These addresses but for those of `other`.
    pub fn without(&self, other: &Self) -> Self {
        self.0.difference(&other.0).copied().collect()
    }

    /// The addresses that are in either.
    pub fn in_either(&self, other: &Self) -> Self {
        self.0.union(&other.0).copied().collect()
    }

    /// The addresses, in their order.
    pub fn addresses(&self) -> impl Iterator<Item = IpAddr> {
        self.0.iter().copied()
    }
}

impl FromIterator<IpAddr> for Interception {
    fn from_iter<T: IntoIterator<Item = IpAddr>>(addresses: T) -> Self {
        Self(addresses.into_iter().map(|address| address.to_canonical()).collect())
    }
}

impl fmt::Display for Interception {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.is_none() {
            return f.write_str("no address");
        }
        let addresses: Vec<String> = self.addresses().map(|address| address.to_string()).collect();
        f.write_str(&addresses.join(", "))
    }
}

/// What the node should look like.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Desired {
    /// Link with the addresses.
    pub link: Option<LinkSpec>,
    /// Rules; their order does not matter.
    pub rules: Vec<Rule>,
}

/// A link and the addresses that it should carry, each with its whole length as prefix.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LinkSpec {
    /// Name of the link.
    pub name: String,
    /// Addresses, none twice.
    pub addresses: Vec<IpAddr>,
}

/// Where in a packet's way a rule stands, and with that what it does.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Hook {
    /// Raw priority, packets that came in: not tracked.
    RawPrerouting,
    /// Raw priority, packets made here: not tracked.
    RawOutput,
    /// The filter table, packets for this node: accepted.
    FilterInput,
    /// The filter table, packets made here: accepted.
    FilterOutput,
    /// As [`Hook::FilterInput`], of programs on this node (`lo`).
    FilterInputLoopback,
    /// As [`Hook::FilterOutput`], for programs on this node (`lo`).
    FilterOutputLoopback,
}

/// Which end of the packet has the rule's address and port.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum PacketEnd {
    /// Where the packet comes from.
    Source,
    /// Where the packet goes to.
    Destination,
}

/// One rule: packets of `protocol` whose `end` is `address` and `port` (and which carry `mark`, if given) get what
/// `hook` does.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Rule {
    /// The chain it stands in.
    pub hook: Hook,
    /// UDP or TCP.
    pub protocol: TransportProtocol,
    /// Which end of the packet is ours.
    pub end: PacketEnd,
    /// The address of that end.
    pub address: IpAddr,
    /// The port of that end.
    pub port: u16,
    /// Bits that must be set in the packet's mark.
    pub mark: Option<u32>,
}

impl Hook {
    /// Whether packets are left untracked here; else they are accepted.
    pub fn is_raw(self) -> bool {
        matches!(self, Self::RawPrerouting | Self::RawOutput)
    }
}

impl fmt::Display for Rule {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (place, verdict) = match self.hook {
            Hook::RawPrerouting => ("raw PREROUTING", "NOTRACK"),
            Hook::RawOutput => ("raw OUTPUT", "NOTRACK"),
            Hook::FilterInput => ("filter INPUT", "ACCEPT"),
            Hook::FilterOutput => ("filter OUTPUT", "ACCEPT"),
            Hook::FilterInputLoopback => ("filter INPUT on lo", "ACCEPT"),
            Hook::FilterOutputLoopback => ("filter OUTPUT on lo", "ACCEPT"),
        };
        let end = match self.end {
            PacketEnd::Source => "from",
            PacketEnd::Destination => "to",
        };
        write!(f, "{place}: {} {end} {} port {}", self.protocol, self.address, self.port)?;
        if let Some(mark) = self.mark {
            write!(f, " with mark {mark:#x}")?;
        }
        write!(f, " {verdict}")
    }
}

/// The node as `spec` wants it with this interception. What is there without one is there with any, so that going from
/// less to more only adds rules, and from more to less only removes them.
pub fn desired(spec: &NodeSpec, interception: &Interception) -> Desired {
    let addresses = distinct(&spec.addresses);
    let mut rules = Vec::new();
    let mut add =
        |hook, end, protocol, address, port, mark| rules.push(Rule { hook, protocol, end, address, port, mark });
    let each = || {
        addresses
            .iter()
            .flat_map(|address| [TransportProtocol::Udp, TransportProtocol::Tcp].map(|protocol| (*address, protocol)))
    };
    for (address, protocol) in each() {
        // Where the filter table lets only tracked connections through, untracked packets need a rule of their own.
        add(Hook::FilterInput, PacketEnd::Destination, protocol, address, spec.port, None);
        add(Hook::FilterOutput, PacketEnd::Source, protocol, address, spec.port, None);
        add(Hook::FilterInputLoopback, PacketEnd::Source, protocol, address, spec.port, None);
        add(Hook::FilterOutputLoopback, PacketEnd::Destination, protocol, address, spec.port, None);
    }
    for address in &addresses {
        for hook in [Hook::FilterInputLoopback, Hook::FilterOutputLoopback] {
            for end in [PacketEnd::Source, PacketEnd::Destination] {
                add(hook, end, TransportProtocol::Tcp, *address, spec.health_port, None);
            }
        }
    }
    for (address, protocol) in each() {
        add(Hook::RawOutput, PacketEnd::Source, protocol, address, spec.port, None);
    }
    for (address, protocol) in each() {
        add(Hook::RawOutput, PacketEnd::Destination, protocol, address, spec.port, Some(spec.probe_mark));
    }
    let is_intercepted = |address: &IpAddr| interception.contains(*address);
    for address in addresses.iter().copied().filter(is_intercepted) {
        add(Hook::RawOutput, PacketEnd::Source, TransportProtocol::Tcp, address, spec.health_port, None);
        add(Hook::RawOutput, PacketEnd::Destination, TransportProtocol::Tcp, address, spec.health_port, None);
    }
    for (address, protocol) in each().filter(|(address, _)| is_intercepted(address)) {
        add(Hook::RawOutput, PacketEnd::Destination, protocol, address, spec.port, None);
    }
    for (address, protocol) in each().filter(|(address, _)| is_intercepted(address)) {
        add(Hook::RawPrerouting, PacketEnd::Destination, protocol, address, spec.port, None);
    }
    let link = spec.interface.clone().map(|name| LinkSpec { name, addresses });
    Desired { link, rules }
}

/// Each address once; the unspecified ones stand for every address of the node, none of which we may take over.
fn distinct(addresses: &[IpAddr]) -> Vec<IpAddr> {
    let mut seen = HashSet::new();
    let canonical = addresses.iter().map(IpAddr::to_canonical);
    canonical.filter(|address| !address.is_unspecified() && seen.insert(*address)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn spec() -> NodeSpec {
        NodeSpec {
            addresses: vec!["169.254.20.10".parse().unwrap(), "fd00::10".parse().unwrap()],
            port: 53,
            health_port: 8080,
            interface: Some("nodelocaldns".to_owned()),
            probe_mark: 0x10_0000,
            fallback: Fallback::default(),
        }
    }

    fn on() -> Interception {
        Interception::of(&spec().addresses)
    }

    fn lines(interception: &Interception) -> Vec<String> {
        desired(&spec(), interception).rules.iter().map(Rule::to_string).collect()
    }

    #[test]
    fn interception_has_the_reference_s_rules_for_each_address() {
        let lines = lines(&on());
        for address in ["169.254.20.10", "fd00::10"] {
            for protocol in ["udp", "tcp"] {
                for rule in [
                    format!("raw PREROUTING: {protocol} to {address} port 53 NOTRACK"),
                    format!("raw OUTPUT: {protocol} to {address} port 53 NOTRACK"),
                    format!("raw OUTPUT: {protocol} from {address} port 53 NOTRACK"),
                    format!("filter INPUT: {protocol} to {address} port 53 ACCEPT"),
                    format!("filter OUTPUT: {protocol} from {address} port 53 ACCEPT"),
                    // Beyond the reference's.
                    format!("filter INPUT on lo: {protocol} from {address} port 53 ACCEPT"),
                    format!("filter OUTPUT on lo: {protocol} to {address} port 53 ACCEPT"),
                ] {
                    assert_eq!(lines.iter().filter(|line| **line == rule).count(), 1, "{rule}");
                }
            }
            assert!(lines.contains(&format!("raw OUTPUT: tcp to {address} port 8080 NOTRACK")));
            assert!(lines.contains(&format!("raw OUTPUT: tcp from {address} port 8080 NOTRACK")));
            for (chain, end) in [("INPUT", "to"), ("INPUT", "from"), ("OUTPUT", "to"), ("OUTPUT", "from")] {
                assert!(lines.contains(&format!("filter {chain} on lo: tcp {end} {address} port 8080 ACCEPT")));
            }
        }
        assert_eq!(lines.len(), 44, "and the eight for probes: {lines:#?}");
    }

    #[test]
    fn while_probing_only_probes_and_replies_are_untracked() {
        let rules = desired(&spec(), &Interception::default()).rules;
        let raw: Vec<&Rule> = rules.iter().filter(|rule| rule.hook.is_raw()).collect();
        assert_eq!(raw.len(), 8);
        assert!(raw.iter().all(
            |rule| rule.hook == Hook::RawOutput && (rule.end == PacketEnd::Source || rule.mark == Some(0x10_0000))
        ));
    }

    #[test]
    fn turning_the_interception_on_only_adds() {
        let probing = desired(&spec(), &Interception::default()).rules;
        let on = desired(&spec(), &on()).rules;
        assert_eq!(on[..probing.len()], probing);
    }

    #[test]
    fn each_address_is_intercepted_for_itself() {
        let probing = lines(&Interception::default());
        let [first, second] = [0, 1].map(|index| Interception::of(&spec().addresses[index..=index]));
        let added = |interception: &Interception| -> Vec<String> {
            lines(interception).into_iter().filter(|line| !probing.contains(line)).collect()
        };
        assert!(probing.iter().all(|rule| lines(&first).contains(rule)), "nothing is taken away");
        assert_eq!(
            added(&first).len(),
            6,
            "queries in and out over UDP and TCP, and the health port's: {:?}",
            added(&first)
        );
        assert!(added(&first).iter().all(|rule| rule.contains(" 169.254.20.10 ")), "{:?}", added(&first));
        assert_eq!(added(&first).len() + added(&second).len(), added(&on()).len());
        let elsewhere = Interception::of(&["127.0.0.1".parse().unwrap()]);
        assert_eq!(lines(&elsewhere), probing, "an address that is not ours is no business of the rules");
    }

    #[test]
    fn interceptions_are_compared_address_by_address() {
        let [both, one, none] = [on(), Interception::of(&spec().addresses[..1]), Interception::default()];
        assert!(none.is_within(&one) && one.is_within(&both) && !both.is_within(&one));
        assert_eq!((one.in_both(&both), one.in_either(&both)), (one.clone(), both.clone()));
        assert_eq!((both.without(&one), one.without(&both)), (Interception::of(&spec().addresses[1..]), none.clone()));
        assert!(
            Interception::of(&["::ffff:169.254.20.10".parse().unwrap()]).contains("169.254.20.10".parse().unwrap())
        );
        assert_eq!(
            (none.to_string(), both.to_string()),
            ("no address".to_owned(), "169.254.20.10, fd00::10".to_owned())
        );
    }

    #[test]
    fn no_query_is_untracked_without_its_reply() {
        for interception in [Interception::default(), Interception::of(&spec().addresses[..1]), on()] {
            let rules = desired(&spec(), &interception).rules;
            for rule in rules.iter().filter(|rule| rule.hook.is_raw() && rule.end == PacketEnd::Destination) {
                let reply = Rule { hook: Hook::RawOutput, end: PacketEnd::Source, mark: None, ..*rule };
                assert!(rules.contains(&reply), "{rule} without its replies");
            }
        }
    }

    #[test]
    fn an_address_given_twice_counts_once_and_the_unspecified_one_not_at_all() {
        let addresses = ["10.96.0.10", "::ffff:10.96.0.10", "0.0.0.0", "::"].map(|text| text.parse().unwrap()).to_vec();
        let on = Interception::of(&addresses);
        let desired = desired(&NodeSpec { addresses, ..spec() }, &on);
        assert_eq!(desired.link.unwrap().addresses, ["10.96.0.10".parse::<IpAddr>().unwrap()]);
        assert_eq!(desired.rules.len(), 22);
    }

    #[test]
    fn no_link_is_wanted_without_a_name() {
        assert_eq!(desired(&NodeSpec { interface: None, ..spec() }, &on()).link, None);
    }
}
