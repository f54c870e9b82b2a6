//! Who answers at an address that is ours alone when we do not. Pure.
//!
//! A ClusterIP means cluster DNS again the moment its interception ends. The link-local address means nothing to anybody but us; so a table
//! of ordinary rules, which outlives this program, sends queries for it to the ClusterIP of the upstream Service. While we serve, the
//! interception marks them untracked first, and the table leaves those alone: it is *shadowed*. That holds for each packet by itself.
//!
//! # The way of a query, and of its answer
//!
//! 1. [`Stage::QueryPrerouting`], [`Stage::QueryOutput`]: just after the raw hooks. A query that is tracked gets a bit of the packet mark and the
//!    upstream's address in place of ours. This is no DNAT, of which there is one for each connection: kube-proxy's, from the ClusterIP to a
//!    pod, is still to come. Conntrack has not seen the packet yet, and never learns of our address.
//! 2. [`Stage::MarkPrerouting`], [`Stage::MarkOutput`]: after conntrack. The bit moves to the connection's mark, and leaves the packet's before anybody
//!    routes by it.
//! 3. kube-proxy, by whatever means, sends the query to a pod. It also reroutes what a program on the node sends, since routing had taken it
//!    for us.
//! 4. [`Stage::SourcePostrouting`]: a program on the node that talks to an address of the node does so from that very address, to which no pod
//!    can answer. kube-proxy masquerades such packets only where it knows which addresses are the pods'; so we do.
//! 5. [`Stage::AnswerPostrouting`], [`Stage::AnswerInput`]: after every NAT, the answer bears the ClusterIP; it gets the address that was asked.
//!
//! With one bit there is one address of ours for each family. `tests/interception` walks this way.

use super::desired::Protocol;
use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// Where queries go that we do not answer. Without any redirection there is no fallback.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Fallback {
    /// The bit of packet and connection marks that is ours; one bit.
    pub mark: u32,
    pub ipv4: Option<Redirection<Ipv4Addr>>,
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
pub enum Stage {
    /// Queries that came in.
    QueryPrerouting,
    /// Queries made here.
    QueryOutput,
    /// Redirected queries that came in.
    MarkPrerouting,
    /// Redirected queries made here.
    MarkOutput,
    /// Redirected queries that leave with our address as their source.
    SourcePostrouting,
    /// Answers that go out.
    AnswerPostrouting,
    /// Answers to a program on the node.
    AnswerInput,
}

impl Stage {
    /// In the order of a packet's way.
    pub const ALL: [Self; 7] = [
        Self::QueryPrerouting,
        Self::QueryOutput,
        Self::MarkPrerouting,
        Self::MarkOutput,
        Self::SourcePostrouting,
        Self::AnswerPostrouting,
        Self::AnswerInput,
    ];
}

/// What happens at one stage to packets of one protocol for one redirection.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Rule {
    pub stage: Stage,
    pub protocol: Protocol,
    pub redirection: Redirection<IpAddr>,
    /// DNS port, ours and the upstream's.
    pub port: u16,
    pub mark: u32,
}

impl Fallback {
    /// Of either family.
    pub fn redirections(&self) -> impl Iterator<Item = Redirection<IpAddr>> {
        let ipv4 =
            self.ipv4.map(|Redirection { local, upstream }| Redirection { local: local.into(), upstream: upstream.into() });
        let ipv6 =
            self.ipv6.map(|Redirection { local, upstream }| Redirection { local: local.into(), upstream: upstream.into() });
        ipv4.into_iter().chain(ipv6)
    }

    /// The rules for queries to `port`; none without a redirection. Their order does not matter.
    pub fn rules(&self, port: u16) -> Vec<Rule> {
        let rule = |stage, protocol, redirection| Rule { stage, protocol, redirection, port, mark: self.mark };
        let of = |redirection| {
            let protocols = [Protocol::Udp, Protocol::Tcp];
            protocols.into_iter().flat_map(move |protocol| Stage::ALL.map(|stage| rule(stage, protocol, redirection)))
        };
        self.redirections().flat_map(of).collect()
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

impl fmt::Display for Rule {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { stage, protocol, redirection: Redirection { local, upstream }, port, mark } = self;
        match stage {
            Stage::QueryPrerouting | Stage::QueryOutput => {
                write!(f, "{stage:?}: tracked {protocol} to {local} port {port}: mark {mark:#x}, destination {upstream}")
            }
            Stage::MarkPrerouting | Stage::MarkOutput => {
                write!(f, "{stage:?}: {protocol} to {upstream} port {port} with mark {mark:#x}: the connection's mark instead")
            }
            Stage::SourcePostrouting => {
                write!(f, "{stage:?}: {protocol} from {local} of a connection with mark {mark:#x}: masquerade")
            }
            Stage::AnswerPostrouting | Stage::AnswerInput => {
                write!(f, "{stage:?}: {protocol} from {upstream} port {port} of a connection with mark {mark:#x}: source {local}")
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn fallback() -> Fallback {
        let ipv4 = Redirection { local: [169, 254, 20, 10].into(), upstream: [10, 96, 0, 11].into() };
        let ipv6 = Redirection { local: "fd00:53::10".parse().unwrap(), upstream: "fd00::11".parse().unwrap() };
        Fallback { mark: 0x1000, ipv4: Some(ipv4), ipv6: Some(ipv6) }
    }

    #[test]
    fn queries_and_answers_of_both_families_and_protocols_are_rewritten_at_every_hook() {
        let lines: Vec<String> = fallback().rules(53).iter().map(Rule::to_string).collect();
        for (local, upstream) in [("169.254.20.10", "10.96.0.11"), ("fd00:53::10", "fd00::11")] {
            for protocol in ["udp", "tcp"] {
                for rule in [
                    format!("QueryPrerouting: tracked {protocol} to {local} port 53: mark 0x1000, destination {upstream}"),
                    format!("QueryOutput: tracked {protocol} to {local} port 53: mark 0x1000, destination {upstream}"),
                    format!("MarkPrerouting: {protocol} to {upstream} port 53 with mark 0x1000: the connection's mark instead"),
                    format!("MarkOutput: {protocol} to {upstream} port 53 with mark 0x1000: the connection's mark instead"),
                    format!("SourcePostrouting: {protocol} from {local} of a connection with mark 0x1000: masquerade"),
                    format!(
                        "AnswerPostrouting: {protocol} from {upstream} port 53 of a connection with mark 0x1000: source {local}"
                    ),
                    format!("AnswerInput: {protocol} from {upstream} port 53 of a connection with mark 0x1000: source {local}"),
                ] {
                    assert_eq!(lines.iter().filter(|line| **line == rule).count(), 1, "{rule}");
                }
            }
        }
        assert_eq!(lines.len(), 28, "{lines:#?}");
    }

    #[test]
    fn one_family_is_enough_and_none_is_no_fallback() {
        let ipv4 = Fallback { ipv6: None, ..fallback() };
        assert_eq!(ipv4.rules(53).len(), 14);
        assert_eq!(ipv4.to_string(), "169.254.20.10 -> 10.96.0.11");
        assert_eq!(fallback().to_string(), "169.254.20.10 -> 10.96.0.11, fd00:53::10 -> fd00::11");
        assert_eq!(Fallback::default().rules(53), []);
    }
}
