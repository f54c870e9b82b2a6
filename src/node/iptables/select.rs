//! Chooses among the iptables programs. Rules are seen only by programs of the same variant (legacy or nft), so ours
//! must be of the one that kube-proxy uses. How that is found follows kubernetes-sigs/iptables-wrappers.

/// A kind of iptables.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) enum IptablesVariant {
    /// Rules in nf_tables.
    Nft,
    /// Rules in the kernel's own iptables.
    Legacy,
    /// Whatever `iptables` is here.
    Default,
}

impl IptablesVariant {
    /// The program for a family.
    pub(super) fn program(self, is_ipv6: bool) -> &'static str {
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
    pub(super) fn restore_program(self, is_ipv6: bool) -> &'static str {
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
pub(super) enum VariantEvidence {
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

impl VariantEvidence {
    /// Of what listing each table came to: whether it has chains, or [`VariantEvidence::Unlisted`].
    pub(super) fn among(tables: impl IntoIterator<Item = VariantEvidence>) -> Self {
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
pub(super) fn select(
    nft: Option<VariantEvidence>,
    legacy: Option<VariantEvidence>,
    has_default: bool,
) -> Option<(IptablesVariant, &'static str)> {
    let has_chains = |finding: Option<VariantEvidence>| finding == Some(VariantEvidence::Chains);
    if has_chains(nft) {
        Some((IptablesVariant::Nft, "Kubernetes' chains are there"))
    } else if has_chains(legacy) {
        Some((IptablesVariant::Legacy, "Kubernetes' chains are there"))
    } else if let (Some(_), Some(VariantEvidence::Unlisted { is_denied })) = (nft, legacy) {
        let reason = match is_denied {
            true => {
                "it has no chains of Kubernetes; whether iptables-legacy has some, as where kube-proxy uses it, cannot be seen without the \
                 capability NET_RAW: add it, or rules may be put where kube-proxy's are not"
            }
            false => {
                "it has no chains of Kubernetes; iptables-legacy has tables that could not be listed: see what `iptables-legacy -t nat -S` says"
            }
        };
        Some((IptablesVariant::Nft, reason))
    } else if nft.is_some() {
        Some((IptablesVariant::Nft, "neither kind has chains of Kubernetes, and this one is the newer"))
    } else if legacy.is_some() {
        // Where the kernel has no nf_tables, the program of the plain name may be the one that needs it.
        Some((IptablesVariant::Legacy, "there is no other to choose from"))
    } else {
        has_default.then_some((IptablesVariant::Default, "there is no other to choose from"))
    }
}

/// Whether a listing (`-S`) holds chains of the kubelet or kube-proxy.
pub(super) fn has_kubernetes_chains(listing: &str) -> bool {
    listing.lines().any(|line| line.starts_with("-N KUBE-"))
}

/// Whether a program that failed with `message` needs nf_tables, which this kernel has not: then there is nothing that
/// it could show or change.
pub(super) fn lacks_nf_tables(message: &str) -> bool {
    // The second is also what it says for lack of rights, with another reason.
    ["Failed to initialize nft", "Could not fetch rule set generation id: Invalid argument"]
        .iter()
        .any(|said| message.contains(said))
}

#[cfg(test)]
mod tests {
    use super::*;

    const EMPTY: Option<VariantEvidence> = Some(VariantEvidence::NoChains);
    const USED: Option<VariantEvidence> = Some(VariantEvidence::Chains);

    #[test]
    fn the_kind_that_kube_proxy_uses_is_chosen() {
        let variant = |nft, legacy| select(nft, legacy, true).map(|(variant, _)| variant);
        assert_eq!(variant(USED, EMPTY), Some(IptablesVariant::Nft));
        assert_eq!(variant(EMPTY, USED), Some(IptablesVariant::Legacy));
        assert_eq!(variant(USED, USED), Some(IptablesVariant::Nft));
        assert_eq!(variant(EMPTY, EMPTY), Some(IptablesVariant::Nft));
        assert_eq!(variant(None, USED), Some(IptablesVariant::Legacy));
        assert_eq!(variant(None, None), Some(IptablesVariant::Default));
        assert_eq!(select(None, EMPTY, false).map(|(variant, _)| variant), Some(IptablesVariant::Legacy));
        assert_eq!(select(None, None, false), None);
    }

    #[test]
    fn on_a_kernel_without_nf_tables_legacy_is_chosen_whatever_the_plain_name_is() {
        let denied = Some(VariantEvidence::Unlisted { is_denied: true });
        for legacy in [EMPTY, USED, denied] {
            for has_default in [false, true] {
                let variant = select(None, legacy, has_default).map(|(variant, _)| variant);
                assert_eq!(variant, Some(IptablesVariant::Legacy), "{legacy:?}, {has_default}");
            }
        }
    }

    #[test]
    fn legacy_tables_that_cannot_be_listed_are_not_said_to_be_without_chains() {
        let reason = |is_denied| select(EMPTY, Some(VariantEvidence::Unlisted { is_denied }), true).unwrap();
        let (variant, text) = reason(true);
        assert!(variant == IptablesVariant::Nft && text.contains("NET_RAW") && !text.contains("neither"), "{text}");
        assert!(!reason(false).1.contains("NET_RAW"));
        assert!(
            !select(USED, Some(VariantEvidence::Unlisted { is_denied: true }), true).unwrap().1.contains("NET_RAW")
        );
    }

    #[test]
    fn chains_in_one_table_are_enough_and_one_that_cannot_be_listed_leaves_it_open() {
        let denied = VariantEvidence::Unlisted { is_denied: true };
        assert_eq!(VariantEvidence::among([]), VariantEvidence::NoChains);
        assert_eq!(VariantEvidence::among([denied, VariantEvidence::Chains]), VariantEvidence::Chains);
        assert_eq!(
            VariantEvidence::among([VariantEvidence::NoChains, denied, VariantEvidence::Unlisted { is_denied: false }]),
            denied
        );
        assert_eq!(VariantEvidence::among([VariantEvidence::Unlisted { is_denied: false }, denied]), denied);
    }

    /// What iptables 1.8.9 says.
    #[test]
    fn a_kernel_without_nf_tables_is_no_lack_of_rights() {
        let told = |reason| {
            format!(
                "# Warning: iptables-legacy tables present, use iptables-legacy to see them\n\
                 iptables v1.8.9 (nf_tables): Could not fetch rule set generation id: {reason}"
            )
        };
        assert!(lacks_nf_tables(&told("Invalid argument")));
        assert!(!lacks_nf_tables(&told("Permission denied (you must be root)")));
        assert!(lacks_nf_tables("iptables: Failed to initialize nft: Protocol not supported"));
    }

    #[test]
    fn chains_are_told_by_their_prefix() {
        assert!(has_kubernetes_chains("-P INPUT ACCEPT\n-N KUBE-KUBELET-CANARY\n"));
        assert!(!has_kubernetes_chains("-P INPUT ACCEPT\n-N DOCKER\n-A INPUT -j MY-KUBE-CHAIN\n"));
    }
}
