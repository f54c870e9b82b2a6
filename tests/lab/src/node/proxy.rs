//! Services as a real kube-proxy makes them: its own rules, recorded (tests/lab/kube-proxy), or those of IPVS.
//!
//! The recorded node has Services of IPv4 alone. Those of IPv6 are the same rules with other addresses.

use crate::cluster::{CLUSTER_IPS, KUBE_DNS, UPSTREAM, shell};

/// What `iptables-save` and `nft list ruleset` printed.
const IPTABLES: &str = include_str!("../../kube-proxy/iptables.txt");
const NFTABLES: &str = include_str!("../../kube-proxy/nftables.txt");

/// How the node makes Services.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Proxy {
    /// Not at all: its Services are nobody's.
    None,
    /// By the variant of iptables that writes nftables.
    IptablesNft,
    /// By the variant that writes what kernels had before nftables.
    IptablesLegacy,
    Nftables,
    #[allow(dead_code, reason = "for cases about IPVS")]
    /// By the kernel's load balancer. It accepts packets for the ClusterIPs on a link, `kube-ipvs0`.
    Ipvs,
}

/// Addresses as they were recorded, and those of IPv6 in their place. None is the beginning of a later one.
const FAMILIES: &[(&str, &str)] = &[
    ("10.96.0.10", "fd00::10"),
    ("10.96.0.11", "fd00::11"),
    ("10.96.0.0/16", "fd00::/112"),
    ("10.96.0.1", "fd00::1"),
    ("10.96.5.5", "fd00::505"),
    ("10.244.0.0/16", "fd00:1::/64"),
    ("10.244.2.2", "fd00:1::2"),
    ("10.244.1.2", "fd00:1:1::2"),
    ("192.168.77.1", "fd00:9::1"),
    ("127.0.0.0/8", "::1/128"),
];

impl Proxy {
    /// Makes the Services of both families on the calling thread's network.
    pub fn install(self) {
        match self {
            Self::None => {}
            Self::IptablesNft => install_iptables("nft"),
            Self::IptablesLegacy => install_iptables("legacy"),
            Self::Nftables => {
                load("nft -f", nftables_ipv4(NFTABLES));
                load("nft -f", &nftables_ipv6(NFTABLES));
                kubelet();
            }
            Self::Ipvs => install_ipvs(),
        }
    }
}

fn install_iptables(variant: &str) {
    // An object of its own kind, which kube-proxy makes for its rule that counts what it drops.
    shell("nfacct add ct_state_invalid_dropped_pkts");
    load(&format!("iptables-{variant}-restore"), IPTABLES);
    load(&format!("ip6tables-{variant}-restore"), &iptables_ipv6(IPTABLES));
}

/// What `iptables-save` wrote of IPv4, for IPv6.
fn iptables_ipv6(recorded: &str) -> String {
    let mut rules = recorded.to_owned();
    for (ipv4, ipv6) in FAMILIES {
        rules = rules.replace(&format!("{ipv4}/32"), &format!("{ipv6}/128"));
        rules = rules.replace(&format!("--to-destination {ipv4}:"), &format!("--to-destination [{ipv6}]:"));
        rules = rules.replace(ipv4, ipv6);
    }
    rules
}

/// Of `nft list ruleset` kube-proxy's table of IPv4. The others are of the iptables program, and what nft prints of
/// those is not what they are.
fn nftables_ipv4(recorded: &str) -> &str {
    let start = recorded.find("table ip kube-proxy").expect("it is recorded");
    let end = recorded.find("table ip6 kube-proxy").expect("it is recorded");
    &recorded[start..end]
}

/// The rule of the kubelet, which is there whoever makes Services.
fn kubelet() {
    shell(
        "iptables-nft -N KUBE-FIREWALL
        iptables-nft -A INPUT -j KUBE-FIREWALL
        iptables-nft -A OUTPUT -j KUBE-FIREWALL
        iptables-nft -A KUBE-FIREWALL ! -s 127.0.0.0/8 -d 127.0.0.0/8 \
            -m conntrack ! --ctstate RELATED,ESTABLISHED,DNAT -j DROP",
    );
}

/// The same for IPv6.
fn nftables_ipv6(recorded: &str) -> String {
    let mut rules = nftables_ipv4(recorded).to_owned();
    for (ipv4, ipv6) in FAMILIES.iter().chain(&[
        ("table ip ", "table ip6 "),
        ("ipv4_addr", "ipv6_addr"),
        ("ip daddr", "ip6 daddr"),
        ("ip saddr", "ip6 saddr"),
        ("dnat ip to", "dnat ip6 to"),
    ]) {
        rules = rules.replace(ipv4, ipv6);
    }
    rules
}

fn install_ipvs() {
    shell(
        "ip link add kube-ipvs0 type dummy
        echo 1 >/proc/sys/net/ipv4/vs/conntrack",
    );
    let bracketed = |address: &str| if address.contains(':') { format!("[{address}]") } else { address.to_owned() };
    for (index, pod) in KUBE_DNS.iter().enumerate() {
        for service in [CLUSTER_IPS[index], UPSTREAM[index]] {
            let prefix = if index == 0 { 32 } else { 128 };
            shell(&format!("ip address add {service}/{prefix} dev kube-ipvs0"));
            let (service, pod) = (bracketed(service), bracketed(pod));
            for protocol in ["-t", "-u"] {
                shell(&format!(
                    "ipvsadm -A {protocol} {service}:53 -s rr
                    ipvsadm -a {protocol} {service}:53 -r {pod}:53 -m"
                ));
            }
        }
    }
    // What kube-proxy has beside: clients that are no pods are masqueraded.
    for (program, pods) in [("iptables", "10.244.0.0/16"), ("ip6tables", "fd00:1::/64")] {
        shell(&format!("{program} -t nat -A POSTROUTING ! -s {pods} -m ipvs --ipvs -j MASQUERADE"));
    }
}

/// Has a program read rules.
fn load(program: &str, rules: &str) {
    let folder = crate::support::server::scratch();
    let path = crate::support::tools::write(folder.path(), "rules", rules);
    shell(&format!("{program} {}", path.display()));
}

#[cfg(test)]
mod tests {
    use super::{IPTABLES, NFTABLES, iptables_ipv6, nftables_ipv6};

    #[test]
    fn services_of_the_other_family_have_no_address_of_the_first() {
        let iptables = iptables_ipv6(IPTABLES);
        let nftables = nftables_ipv6(NFTABLES);
        for rules in [&iptables, &nftables] {
            let words = rules.split(|character: char| !character.is_ascii_digit() && character != '.');
            let dotted: Vec<&str> = words.filter(|word| word.matches('.').count() == 3).collect();
            assert_eq!(dotted, Vec::<&str>::new(), "{rules}");
        }
        assert!(iptables.contains(
            "-p udp -m comment --comment \"kube-system/kube-dns:dns\" -m udp -j DNAT --to-destination [fd00:1::2]:53"
        ));
        assert!(nftables.contains("fd00::10 . udp . 53 : goto service-FY5PMXPG-kube-system/kube-dns/udp/dns"));
        assert!(nftables.contains("dnat ip6 to numgen random mod 1 map { 0 : fd00:1::2 . 53 }"));
    }
}
