//! Which hits are counted: of what a plain block has cached, and of what passes through a directive on its way.

use crate::message::{A, AAAA, Expected, query};
use clap::ValueEnum;
use std::fmt::Write;

/// What is hit. `…Answer` has a name of its own for each hit and passes through the whole chain; `…Packet` is of one
/// popular name, which the packet cache answers.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, ValueEnum, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Kind {
    /// Two A records of a site outside the cluster.
    Answer,
    /// The same, asked for with EDNS.
    AnswerEdns,
    /// A name of a search path that does not exist.
    Denial,
    /// AAAA of a service that has an IPv4 address only.
    NoData,
    /// As the first, asked for so often within a second that the packet cache answers.
    PacketHit,
    /// As the first, with allowed networks.
    AclAnswer,
    AclPacket,
    /// AAAA of a service that has an IPv4 address only, made of that.
    Dns64Answer,
    Dns64Packet,
    /// One A record from a table of [`HITS`] names.
    HostsAnswer,
    HostsPacket,
    /// As the first, its addresses put into order.
    LoadbalanceAnswer,
    LoadbalancePacket,
    /// As the first, with a line in the log.
    LogAnswer,
    LogPacket,
    /// As the first, asked for by another name, which all records get back.
    RewriteAnswer,
    RewritePacket,
    /// AAAA of a site, which a constant template denies.
    TemplateAnswer,
    TemplatePacket,
}

/// Hits that are counted.
pub const HITS: u64 = 2_000;

impl Kind {
    /// The plain hit that it is held against, and how many times the instructions of that it may take.
    pub fn bound(self) -> Option<(Self, f64)> {
        let plain = if self.is_packet_hit() { Self::PacketHit } else { Self::Answer };
        match self {
            Self::Answer | Self::AnswerEdns | Self::Denial | Self::NoData | Self::PacketHit => None,
            Self::LogAnswer | Self::LogPacket => Some((plain, 3.0)),
            _ => Some((plain, 1.5)),
        }
    }

    /// It is of one popular name.
    pub fn is_packet_hit(self) -> bool {
        matches!(
            self,
            Self::PacketHit
                | Self::AclPacket
                | Self::Dns64Packet
                | Self::HostsPacket
                | Self::LoadbalancePacket
                | Self::LogPacket
                | Self::RewritePacket
                | Self::TemplatePacket
        )
    }

    /// The directive that each block of the stock Corefile has beside its own; empty for none.
    pub fn directive(self) -> String {
        let written = match self {
            Self::Answer | Self::AnswerEdns | Self::Denial | Self::NoData | Self::PacketHit => "",
            Self::AclAnswer | Self::AclPacket => "acl {\n allow net 10.0.0.0/8 127.0.0.0/8 2001:db8::/32\n block\n}",
            Self::Dns64Answer | Self::Dns64Packet => "dns64 {\n allow_ipv4\n}",
            Self::HostsAnswer | Self::HostsPacket => return hosts(),
            Self::LoadbalanceAnswer | Self::LoadbalancePacket => "loadbalance",
            Self::LogAnswer | Self::LogPacket => "log",
            Self::RewriteAnswer | Self::RewritePacket => {
                "rewrite name suffix .renamed.example .test-site.com answer auto"
            }
            Self::TemplateAnswer | Self::TemplatePacket => "template IN AAAA {\n rcode NXDOMAIN\n}",
        };
        written.to_owned()
    }

    pub fn query(self, number: usize) -> Vec<u8> {
        let site = site(number);
        let service = format!("svc-{number}.ns-1.svc.cluster.local");
        match self {
            Self::AnswerEdns => {
                let mut query = query(7, &site, A);
                query[11] = 1;
                query.extend_from_slice(&[0, 0, 41, 0x04, 0xd0, 0, 0, 0, 0, 0, 0]);
                query
            }
            Self::Denial => query(7, &format!("{site}.ns-1.svc.cluster.local"), A),
            Self::NoData | Self::Dns64Answer | Self::Dns64Packet => query(7, &service, AAAA),
            Self::RewriteAnswer | Self::RewritePacket => query(7, &format!("api-{number}.renamed.example"), A),
            Self::TemplateAnswer | Self::TemplatePacket => query(7, &site, AAAA),
            _ => query(7, &site, A),
        }
    }

    /// What a right answer to such a query looks like.
    pub fn expected(self, query: &[u8]) -> Expected {
        match self {
            Self::RewriteAnswer | Self::RewritePacket | Self::Dns64Answer | Self::Dns64Packet => Expected::Records,
            Self::TemplateAnswer | Self::TemplatePacket => Expected::NoName,
            _ => crate::zone::expected(query),
        }
    }
}

fn site(number: usize) -> String {
    format!("api-{number}.test-site.com")
}

/// A table of its own: this machine's file is not read.
fn hosts() -> String {
    let mut text = "hosts /dev/null {\n".to_owned();
    for number in 0..HITS as usize {
        // Writing to a String does not fail.
        _ = writeln!(text, " 192.0.2.1 {}", site(number));
    }
    text + " fallthrough\n}"
}
