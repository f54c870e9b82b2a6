//! Explains which other program may answer a probe at one of our addresses.

use nix::ifaddrs::getifaddrs;
use std::net::{IpAddr, SocketAddr};

/// The link by which kube-proxy holds ClusterIPs in IPVS mode.
const IPVS_LINK: &str = "kube-ipvs0";

/// Why questions to `address` may be answered by somebody else, and what to do; `lacks_rules` if our own rules could
/// not be set.
pub(super) fn cause(address: SocketAddr, lacks_rules: bool) -> String {
    explain(address.ip(), lacks_rules, is_held_by_ipvs(address.ip()))
}

fn explain(address: IpAddr, lacks_rules: bool, is_held_by_ipvs: bool) -> String {
    if is_held_by_ipvs {
        format!(
            "kube-proxy in IPVS mode holds {address} ({IPVS_LINK}) and takes its packets whatever the rules say: give the agent the link-local \
             address alone (-localip) and point kubelet's --cluster-dns to it"
        )
    } else if lacks_rules {
        "our own rules could not be set, so kube-proxy sends the question on to cluster DNS: the error about them above says why"
            .to_owned()
    } else {
        "another DNS server on the same address, or a rule that redirects the question".to_owned()
    }
}

fn is_held_by_ipvs(address: IpAddr) -> bool {
    let of_ipvs = getifaddrs().into_iter().flatten().filter(|entry| entry.interface_name == IPVS_LINK);
    let addresses = of_ipvs.filter_map(|entry| {
        let address = entry.address?;
        let v4 = address.as_sockaddr_in().map(|address| IpAddr::V4(address.ip()));
        v4.or(address.as_sockaddr_in6().map(|address| IpAddr::V6(address.ip())))
    });
    addresses.into_iter().any(|held| held == address)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn whose_answer_it_is_is_told() {
        let text = |lacks_rules, is_held| explain([10, 96, 0, 10].into(), lacks_rules, is_held);
        assert!(text(true, true).contains("kube-ipvs0") && text(false, true).contains("10.96.0.10"));
        assert!(text(true, false).contains("our own rules could not be set"));
        assert!(text(false, false).contains("another DNS server"));
    }

    #[test]
    fn without_the_link_of_ipvs_no_address_is_held_by_it() {
        assert!(!is_held_by_ipvs([127, 0, 0, 1].into()));
    }
}
