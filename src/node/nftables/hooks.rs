//! Families of tables, and the netfilter hooks of chains.

use std::net::IpAddr;

/// Family of a table, under the name that `nft` gives it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum TableFamily {
    Inet,
    Ip,
    Ip6,
    /// arp, bridge, netdev: packets that are no concern of ours.
    Other,
}

impl TableFamily {
    pub(in crate::node) fn of(number: u8) -> Self {
        match libc::c_int::from(number) {
            libc::NFPROTO_INET => Self::Inet,
            libc::NFPROTO_IPV4 => Self::Ip,
            libc::NFPROTO_IPV6 => Self::Ip6,
            _ => Self::Other,
        }
    }

    /// `NFPROTO_…`
    pub(super) fn number(self) -> u8 {
        let number = match self {
            Self::Inet => libc::NFPROTO_INET,
            Self::Ip => libc::NFPROTO_IPV4,
            Self::Ip6 => libc::NFPROTO_IPV6,
            Self::Other => libc::NFPROTO_UNSPEC,
        };
        number as u8
    }

    /// As `nft` writes it.
    pub fn name(self) -> &'static str {
        match self {
            Self::Inet => "inet",
            Self::Ip => "ip",
            Self::Ip6 => "ip6",
            Self::Other => "other",
        }
    }

    /// Whether tables of this family see packets for `address`.
    pub fn sees(self, address: IpAddr) -> bool {
        match self {
            Self::Inet => true,
            Self::Ip => address.is_ipv4(),
            Self::Ip6 => address.is_ipv6(),
            Self::Other => false,
        }
    }
}

/// Where a base chain is hooked in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct BaseHook {
    pub at: NetfilterHook,
    pub priority: i32,
    /// Whether packets that no rule decides on are dropped.
    pub drops: bool,
}

/// The hooks (`NF_INET_…`) that queries and answers of this node pass.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum NetfilterHook {
    /// `NF_INET_PRE_ROUTING`.
    Prerouting,
    /// `NF_INET_LOCAL_IN`.
    Input,
    /// `NF_INET_LOCAL_OUT`.
    Output,
    /// `NF_INET_POST_ROUTING`.
    Postrouting,
    /// Any other, which no DNS packet of ours passes.
    Other,
}

impl NetfilterHook {
    /// From `NF_INET_…`.
    pub(super) fn of(hook: u32) -> Self {
        match libc::c_int::try_from(hook) {
            Ok(libc::NF_INET_PRE_ROUTING) => Self::Prerouting,
            Ok(libc::NF_INET_LOCAL_IN) => Self::Input,
            Ok(libc::NF_INET_LOCAL_OUT) => Self::Output,
            Ok(libc::NF_INET_POST_ROUTING) => Self::Postrouting,
            _ => Self::Other,
        }
    }
}
