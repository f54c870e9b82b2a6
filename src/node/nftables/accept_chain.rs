//! The chains of iptables-nft that must accept the pods' queries, and what there is to do to one.

use crate::node::desired::{Hook, Rule};

/// A chain of iptables-nft.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct AcceptChain {
    pub is_ipv6: bool,
    /// INPUT, else OUTPUT.
    pub is_input: bool,
}

/// What there is to do to a chain.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct AcceptChanges {
    /// To be put to the front.
    pub missing: Vec<Rule>,
    /// Handles.
    pub surplus: Vec<u64>,
}

impl AcceptChain {
    pub(crate) const TABLE: &str = "filter";
    pub(super) const ALL: [Self; 4] = [
        Self { is_ipv6: false, is_input: true },
        Self { is_ipv6: false, is_input: false },
        Self { is_ipv6: true, is_input: true },
        Self { is_ipv6: true, is_input: false },
    ];

    pub(crate) fn name(self) -> &'static str {
        if self.is_input { "INPUT" } else { "OUTPUT" }
    }

    /// `NFPROTO_…`
    pub(crate) fn family(self) -> u8 {
        (if self.is_ipv6 { libc::NFPROTO_IPV6 } else { libc::NFPROTO_IPV4 }) as u8
    }

    pub(super) fn hook(self, is_loopback: bool) -> Hook {
        match (self.is_input, is_loopback) {
            (true, false) => Hook::FilterInput,
            (true, true) => Hook::FilterInputLoopback,
            (false, false) => Hook::FilterOutput,
            (false, true) => Hook::FilterOutputLoopback,
        }
    }

    pub(super) fn holds(self, rule: &Rule) -> bool {
        rule.address.is_ipv6() == self.is_ipv6
            && [false, true].map(|is_loopback| self.hook(is_loopback)).contains(&rule.hook)
    }
}
