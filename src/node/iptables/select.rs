//! Which of the iptables programs to use: rules are seen only by programs of the same kind (legacy or nft), so ours should be of the kind that
//! kube-proxy uses. How that is found follows kubernetes-sigs/iptables-wrappers.

/// A kind of iptables.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Kind {
    /// Rules in nf_tables.
    Nft,
    /// Rules in the kernel's own iptables.
    Legacy,
    /// Whatever `iptables` is here.
    Default,
}

impl Kind {
    /// The program for a family.
    pub fn program(self, is_ipv6: bool) -> &'static str {
        match (self, is_ipv6) {
            (Self::Nft, false) => "iptables-nft",
            (Self::Nft, true) => "ip6tables-nft",
            (Self::Legacy, false) => "iptables-legacy",
            (Self::Legacy, true) => "ip6tables-legacy",
            (Self::Default, false) => "iptables",
            (Self::Default, true) => "ip6tables",
        }
    }

    /// The program that changes many rules at once.
    pub fn restore_program(self, is_ipv6: bool) -> &'static str {
        match (self, is_ipv6) {
            (Self::Nft, false) => "iptables-nft-restore",
            (Self::Nft, true) => "ip6tables-nft-restore",
            (Self::Legacy, false) => "iptables-legacy-restore",
            (Self::Legacy, true) => "ip6tables-legacy-restore",
            (Self::Default, false) => "iptables-restore",
            (Self::Default, true) => "ip6tables-restore",
        }
    }
}

/// What was found out about one kind: none if there is no such program.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Finding {
    /// The kubelet or kube-proxy has chains there.
    Chains,
    /// Neither has.
    NoChains,
    /// It has tables, which could not be listed.
    Unlisted {
        /// For lack of rights.
        is_denied: bool,
    },
}

impl Finding {
    /// Of what listing each table came to: whether it has chains, or [`Finding::Unlisted`].
    pub fn among(tables: impl IntoIterator<Item = Finding>) -> Self {
        let found: Vec<Self> = tables.into_iter().collect();
        if found.contains(&Self::Chains) {
            return Self::Chains;
        }
        let unlisted = found.into_iter().filter(|finding| *finding != Self::NoChains).reduce(|one, other| match one {
            Self::Unlisted { is_denied: true } => one,
            _ => other,
        });
        unlisted.unwrap_or(Self::NoChains)
    }
}

/// The kind to use and why, if there is any.
pub fn select(nft: Option<Finding>, legacy: Option<Finding>, has_default: bool) -> Option<(Kind, &'static str)> {
    let has_chains = |finding: Option<Finding>| finding == Some(Finding::Chains);
    if has_chains(nft) {
        Some((Kind::Nft, "Kubernetes' chains are there"))
    } else if has_chains(legacy) {
        Some((Kind::Legacy, "Kubernetes' chains are there"))
    } else if let (Some(_), Some(Finding::Unlisted { is_denied })) = (nft, legacy) {
        let reason = match is_denied {
            true => {
                "it has no chains of Kubernetes; whether iptables-legacy has some, as where kube-proxy uses it, cannot be seen without the \
                 capability NET_RAW: add it, or rules may be put where kube-proxy's are not"
            }
            false => {
                "it has no chains of Kubernetes; iptables-legacy has tables that could not be listed: see what `iptables-legacy -t nat -S` says"
            }
        };
        Some((Kind::Nft, reason))
    } else if nft.is_some() {
        Some((Kind::Nft, "neither kind has chains of Kubernetes, and this one is the newer"))
    } else if has_default {
        Some((Kind::Default, "there is no other to choose from"))
    } else {
        legacy.map(|_| (Kind::Legacy, "there is no other to choose from"))
    }
}

/// Whether a listing (`-S`) holds chains of the kubelet or kube-proxy.
pub fn has_kubernetes_chains(listing: &str) -> bool {
    listing.lines().any(|line| line.starts_with("-N KUBE-"))
}

#[cfg(test)]
mod tests {
    use super::*;

    const EMPTY: Option<Finding> = Some(Finding::NoChains);
    const USED: Option<Finding> = Some(Finding::Chains);

    #[test]
    fn the_kind_that_kube_proxy_uses_is_chosen() {
        let kind = |nft, legacy| select(nft, legacy, true).map(|(kind, _)| kind);
        assert_eq!(kind(USED, EMPTY), Some(Kind::Nft));
        assert_eq!(kind(EMPTY, USED), Some(Kind::Legacy));
        assert_eq!(kind(USED, USED), Some(Kind::Nft));
        assert_eq!(kind(EMPTY, EMPTY), Some(Kind::Nft));
        assert_eq!(kind(None, USED), Some(Kind::Legacy));
        assert_eq!(kind(None, None), Some(Kind::Default));
        assert_eq!(select(None, EMPTY, false).map(|(kind, _)| kind), Some(Kind::Legacy));
        assert_eq!(select(None, None, false), None);
    }

    #[test]
    fn legacy_tables_that_cannot_be_listed_are_not_said_to_be_without_chains() {
        let reason = |is_denied| select(EMPTY, Some(Finding::Unlisted { is_denied }), true).unwrap();
        let (kind, text) = reason(true);
        assert!(kind == Kind::Nft && text.contains("NET_RAW") && !text.contains("neither"), "{text}");
        assert!(!reason(false).1.contains("NET_RAW"));
        assert!(!select(USED, Some(Finding::Unlisted { is_denied: true }), true).unwrap().1.contains("NET_RAW"));
    }

    #[test]
    fn chains_in_one_table_are_enough_and_one_that_cannot_be_listed_leaves_it_open() {
        let denied = Finding::Unlisted { is_denied: true };
        assert_eq!(Finding::among([]), Finding::NoChains);
        assert_eq!(Finding::among([denied, Finding::Chains]), Finding::Chains);
        assert_eq!(Finding::among([Finding::NoChains, denied, Finding::Unlisted { is_denied: false }]), denied);
        assert_eq!(Finding::among([Finding::Unlisted { is_denied: false }, denied]), denied);
    }

    #[test]
    fn chains_are_told_by_their_prefix() {
        assert!(has_kubernetes_chains("-P INPUT ACCEPT\n-N KUBE-KUBELET-CANARY\n"));
        assert!(!has_kubernetes_chains("-P INPUT ACCEPT\n-N DOCKER\n-A INPUT -j MY-KUBE-CHAIN\n"));
    }
}
