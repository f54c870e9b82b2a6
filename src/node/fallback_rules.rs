//! The fallback: cluster DNS answers at the link-local address when this program is gone. Pure.
//!
//! A ClusterIP means cluster DNS again the moment its interception ends. The link-local address means nothing to
//! anybody but us; so a table of ordinary rules, which outlives this program, sends queries for it to the ClusterIP of
//! the upstream Service. While we serve, the interception marks them untracked first, and the table leaves those alone:
//! it is *shadowed*. That holds for each packet by itself.
//!
//! # The way of a query, and of its answer
//!
//! 1. [`FallbackStage::QueryPrerouting`], [`FallbackStage::QueryOutput`]: just after the raw hooks. A query that is
//!    tracked gets a bit of the packet mark and the upstream's address in place of ours. This is no DNAT, of which
//!    there is one for each connection: kube-proxy's, from the ClusterIP to a pod, is still to come. Conntrack has not
//!    seen the packet yet, and never learns of our address.
//! 2. [`FallbackStage::UnmarkPrerouting`], [`FallbackStage::UnmarkOutput`], then [`FallbackStage::MarkPrerouting`],
//!    [`FallbackStage::MarkOutput`]: after conntrack. The bit moves to the connection's mark, and leaves the packet's
//!    before anybody routes by it. A query that was sent to the upstream itself takes the bit away from the connection,
//!    which to conntrack is the same if its client's port is.
//! 3. kube-proxy, by whatever means, sends the query to a pod. It also reroutes what a program on the node sends, since
//!    routing had taken it for us.
//! 4. [`FallbackStage::SourcePostrouting`]: a program on the node that talks to an address of the node does so from
//!    that very address, to which no pod can answer. kube-proxy masquerades such packets only where it knows which
//!    addresses are the pods'; so we do. Where it stays at an orderly stop, so do the ClusterIPs on the link, of which
//!    the same is true ([`FallbackStage::ClusterSourcePostrouting`]).
//! 5. [`FallbackStage::AnswerPostrouting`], [`FallbackStage::AnswerInput`]: after every NAT, the answer bears the
//!    ClusterIP; it gets the address that was asked.
//!
//! With one bit there is one address of ours for each family. `tests/interception` walks this way.

use super::protocol::TransportProtocol;
use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// Where queries go that we do not answer. Without any redirection there is no fallback.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Fallback {
    /// The bit of packet and connection marks that is ours; one bit.
    pub mark: u32,
    /// For queries over IPv4.
    pub ipv4: Option<Redirection<Ipv4Addr>>,
    /// For queries over IPv6.
    pub ipv6: Option<Redirection<Ipv6Addr>>,
}

/// From an address that is ours alone to one that is not ours.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Redirection<A> {
    /// The address that clients ask.
    pub local: A,
    /// The address that answers for it, on the same port.
    pub upstream: A,
}

/// Where in a packet's way a rule stands, and with that what it does.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum FallbackStage {
    /// Queries that came in.
    QueryPrerouting,
    /// Queries made here.
    QueryOutput,
    /// Queries for the upstream itself that came in.
    UnmarkPrerouting,
    /// Redirected queries that came in.
    MarkPrerouting,
    /// Queries for the upstream itself made here.
    UnmarkOutput,
    /// Redirected queries made here.
    MarkOutput,
    /// Redirected queries that leave with our address as their source.
    SourcePostrouting,
    /// Queries to a ClusterIP that were sent on to a pod and leave with the ClusterIP as their source.
    ClusterSourcePostrouting,
    /// Answers that go out.
    AnswerPostrouting,
    /// Answers to a program on the node.
    AnswerInput,
}

impl FallbackStage {
    /// Those for a redirection, in the order of a packet's way. What takes the connection's mark away comes before what
    /// sets it, and then takes the packet's.
    pub const ALL: [Self; 9] = [
        Self::QueryPrerouting,
        Self::QueryOutput,
        Self::UnmarkPrerouting,
        Self::MarkPrerouting,
        Self::UnmarkOutput,
        Self::MarkOutput,
        Self::SourcePostrouting,
        Self::AnswerPostrouting,
        Self::AnswerInput,
    ];
}

/// What happens at one stage to packets of one protocol for one redirection.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct FallbackRule {
    pub stage: FallbackStage,
    pub protocol: TransportProtocol,
    pub redirection: Redirection<IpAddr>,
    /// DNS port, ours and the upstream's.
    pub port: u16,
    pub mark: u32,
}

impl Fallback {
    /// Of either family.
    pub fn redirections(&self) -> impl Iterator<Item = Redirection<IpAddr>> {
        let ipv4 = self
            .ipv4
            .map(|Redirection { local, upstream }| Redirection { local: local.into(), upstream: upstream.into() });
        let ipv6 = self
            .ipv6
            .map(|Redirection { local, upstream }| Redirection { local: local.into(), upstream: upstream.into() });
        ipv4.into_iter().chain(ipv6)
    }

    /// The rules for queries to `port` on a link that carries `addresses`; none without a redirection. Those for one
    /// protocol and redirection are in the order of [`FallbackStage::ALL`]. An address without one is a ClusterIP,
    /// which leads to cluster DNS by itself.
    pub fn rules(&self, port: u16, addresses: &[IpAddr]) -> Vec<FallbackRule> {
        let rule = |stage, protocol, redirection| FallbackRule { stage, protocol, redirection, port, mark: self.mark };
        let of = |redirection| {
            let protocols = [TransportProtocol::Udp, TransportProtocol::Tcp];
            protocols
                .into_iter()
                .flat_map(move |protocol| FallbackStage::ALL.map(|stage| rule(stage, protocol, redirection)))
        };
        let mut rules: Vec<FallbackRule> = self.redirections().flat_map(of).collect();
        let is_redirected = |address: &IpAddr| self.redirections().any(|redirection| redirection.local == *address);
        let is_cluster_ip = |address: &&IpAddr| !address.is_loopback() && !is_redirected(address);
        let cluster_ips = addresses.iter().filter(|address| !rules.is_empty() && is_cluster_ip(address));
        let of_cluster_ip = |address: &IpAddr| {
            let itself = Redirection { local: *address, upstream: *address };
            [TransportProtocol::Udp, TransportProtocol::Tcp]
                .map(|protocol| rule(FallbackStage::ClusterSourcePostrouting, protocol, itself))
        };
        let more: Vec<FallbackRule> = cluster_ips.flat_map(of_cluster_ip).collect();
        rules.extend(more);
        rules
    }
}

impl fmt::Display for Fallback {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, Redirection { local, upstream }) in self.redirections().enumerate() {
            let comma = if index == 0 { "" } else { ", " };
            write!(f, "{comma}{local} -> {upstream}")?;
        }
        Ok(())
    }
}

impl fmt::Display for FallbackRule {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { stage, protocol, redirection: Redirection { local, upstream }, port, mark } = self;
        match stage {
            FallbackStage::QueryPrerouting | FallbackStage::QueryOutput => {
                write!(
                    f,
                    "{stage:?}: tracked {protocol} to {local} port {port}: mark {mark:#x}, destination {upstream}"
                )
            }
            FallbackStage::UnmarkPrerouting | FallbackStage::UnmarkOutput => {
                write!(
                    f,
                    "{stage:?}: {protocol} to {upstream} port {port} without mark {mark:#x}: off the connection's mark"
                )
            }
            FallbackStage::MarkPrerouting | FallbackStage::MarkOutput => {
                write!(
                    f,
                    "{stage:?}: {protocol} to {upstream} port {port} with mark {mark:#x}: the connection's mark instead"
                )
            }
            FallbackStage::SourcePostrouting => {
                write!(f, "{stage:?}: {protocol} from {local} of a connection with mark {mark:#x}: masquerade")
            }
            FallbackStage::ClusterSourcePostrouting => {
                write!(f, "{stage:?}: {protocol} from {local} that was sent on: masquerade")
            }
            FallbackStage::AnswerPostrouting | FallbackStage::AnswerInput => {
                write!(
                    f,
                    "{stage:?}: {protocol} from {upstream} port {port} of a connection with mark {mark:#x}: source {local}"
                )
            }
        }
    }
}

#[cfg(test)]
impl Fallback {
    /// For one address of each family.
    pub(super) fn sample() -> Self {
        let ipv4 = Redirection { local: [169, 254, 20, 10].into(), upstream: [10, 96, 0, 11].into() };
        let ipv6 = Redirection { local: "fd00:53::10".parse().unwrap(), upstream: "fd00::11".parse().unwrap() };
        Self { mark: 0x1000, ipv4: Some(ipv4), ipv6: Some(ipv6) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn queries_and_answers_of_both_families_and_protocols_are_rewritten_at_every_hook() {
        let lines: Vec<String> = Fallback::sample().rules(53, &[]).iter().map(FallbackRule::to_string).collect();
        for (local, upstream) in [("169.254.20.10", "10.96.0.11"), ("fd00:53::10", "fd00::11")] {
            for protocol in ["udp", "tcp"] {
                for rule in [
                    format!(
                        "QueryPrerouting: tracked {protocol} to {local} port 53: mark 0x1000, destination {upstream}"
                    ),
                    format!("QueryOutput: tracked {protocol} to {local} port 53: mark 0x1000, destination {upstream}"),
                    format!(
                        "UnmarkPrerouting: {protocol} to {upstream} port 53 without mark 0x1000: off the connection's mark"
                    ),
                    format!(
                        "UnmarkOutput: {protocol} to {upstream} port 53 without mark 0x1000: off the connection's mark"
                    ),
                    format!(
                        "MarkPrerouting: {protocol} to {upstream} port 53 with mark 0x1000: the connection's mark instead"
                    ),
                    format!(
                        "MarkOutput: {protocol} to {upstream} port 53 with mark 0x1000: the connection's mark instead"
                    ),
                    format!("SourcePostrouting: {protocol} from {local} of a connection with mark 0x1000: masquerade"),
                    format!(
                        "AnswerPostrouting: {protocol} from {upstream} port 53 of a connection with mark 0x1000: source {local}"
                    ),
                    format!(
                        "AnswerInput: {protocol} from {upstream} port 53 of a connection with mark 0x1000: source {local}"
                    ),
                ] {
                    assert_eq!(lines.iter().filter(|line| **line == rule).count(), 1, "{rule}");
                }
            }
        }
        assert_eq!(lines.len(), 36, "{lines:#?}");
    }

    #[test]
    fn one_family_is_enough_and_none_is_no_fallback() {
        let ipv4 = Fallback { ipv6: None, ..Fallback::sample() };
        assert_eq!(ipv4.rules(53, &[]).len(), 18);
        assert_eq!(ipv4.to_string(), "169.254.20.10 -> 10.96.0.11");
        assert_eq!(Fallback::sample().to_string(), "169.254.20.10 -> 10.96.0.11, fd00:53::10 -> fd00::11");
        assert_eq!(Fallback::default().rules(53, &[[10, 96, 0, 10].into()]), []);
    }

    #[test]
    fn what_a_program_on_the_node_asks_a_cluster_ip_of_the_link_is_masqueraded() {
        let addresses = ["169.254.20.10", "127.0.0.1", "10.96.0.10"].map(|address| address.parse().unwrap());
        let lines: Vec<String> = Fallback::sample().rules(53, &addresses).iter().map(FallbackRule::to_string).collect();
        let expected = ["udp", "tcp"].map(|protocol| {
            format!("ClusterSourcePostrouting: {protocol} from 10.96.0.10 that was sent on: masquerade")
        });
        assert_eq!(lines[36..], expected);
    }
}
