//! What the program has on a node, so that nothing of it is there once it has ended.

use crate::cluster::{CLUSTER_IPS, LOCALS, shell};

/// Whose address is on which link, both families, one a line: `nodelocaldns 10.96.0.10/32`.
pub fn addresses() -> Vec<String> {
    let listing = shell("ip -oneline address show");
    let words = listing.lines().map(|line| line.split_whitespace().collect::<Vec<_>>());
    words.filter_map(|words| Some(format!("{} {}", words.get(1)?, words.get(3)?))).collect()
}

/// Those of the program on this network, by their links.
pub fn ours() -> Vec<String> {
    let is_ours = |line: &String| {
        let address = line.split([' ', '/']).nth(1).unwrap_or_default();
        LOCALS.contains(&address) || CLUSTER_IPS.contains(&address)
    };
    addresses().into_iter().filter(is_ours).collect()
}

/// Everything of the program on this network: links that it made, addresses, tables, rules of both variants of
/// iptables, and routing.
pub fn leftovers() -> Vec<String> {
    let mut found = ours();
    let listed = |script: &str, marks: &[&str]| {
        let listing = shell(script);
        let lines = listing.lines().filter(|line| marks.iter().any(|mark| line.contains(mark)));
        lines.map(|line| line.trim().to_owned()).collect::<Vec<_>>()
    };
    found.extend(listed("ip -details link show", &["made by nodelocaldns"]));
    // A kernel without nftables has no tables.
    found.extend(listed("nft list tables 2>/dev/null || :", &["nodelocaldns"]));
    let marks = ["NOTRACK", "NodeLocal DNS Cache", "nodelocaldns"];
    for family in ["ip", "ip6"] {
        found.extend(listed(&format!("{family}tables-nft-save 2>/dev/null || :"), &marks));
        // A table of the legacy variant is made by being listed.
        found.extend(listed(
            &format!(
                "for table in $(cat /proc/self/net/{family}_tables_names 2>/dev/null || :); do \
                 {family}tables-legacy-save -t $table; done"
            ),
            &marks,
        ));
    }
    found.extend(listed("ip rule show; ip -6 rule show", &["0x1000", "0x100000"]));
    found
}
