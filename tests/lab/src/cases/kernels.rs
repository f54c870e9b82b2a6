//! Other kernels, and ones that lack something: what `--interception auto` chooses and says, and that it serves.
//!
//! Every kernel that Debian's packages offer has tables with an owner (Linux 5.12), as they are part of nf_tables.
//! Without that module there are none.

use crate::case::{CASE, Case, Kernel};
use crate::cluster::{CLUSTER_IPS, shell};
use crate::node::{Proxy, SOON, START, Scene, Start, settled};
use crate::wire::Answer;

const EVERY: &[Kernel] = &[Kernel::OldestCloud, Kernel::NewestCloud, Kernel::Oldest, Kernel::Newest];
const BOTH: &[Kernel] = &[Kernel::OldestCloud, Kernel::NewestCloud];

/// On a kernel without nf_tables kube-proxy's rules are of the old kind, and reading those takes NET_RAW.
const LEGACY: Start<'static> = Start { proxy: Proxy::IptablesLegacy, has_net_raw: true, ..START };

/// The family's.
pub const CASES: &[Case] = &[
    Case { name: "kernels/nftables_has_an_owner", body: owner, kernels: EVERY, ..CASE },
    Case { name: "kernels/nftables_beside_kube_proxy_s", body: beside_nftables, kernels: BOTH, ..CASE },
    Case {
        name: "kernels/without_nf_tables_iptables_legacy_serves",
        body: legacy,
        kernels: BOTH,
        without: &["nf_tables"],
        ..CASE
    },
    Case {
        name: "kernels/without_nf_tables_and_net_raw_it_says_what_is_lacking",
        body: legacy_without_rights,
        without: &["nf_tables"],
        ..CASE
    },
    Case {
        name: "kernels/without_netfilter_it_says_so",
        body: nothing,
        without: &["nf_tables", "ip_tables", "ip6_tables"],
        ..CASE
    },
];

fn served(start: &Start, says: &[&str]) -> Scene {
    let mut scene = Scene::start(start);
    let said = scene.agent.watchdog.output();
    for line in says {
        assert!(said.contains(line), "{line:?} is not in\n{said}");
    }
    let records = scene.ask_during("nothing done", |_| {});
    assert_eq!(records.from(Answer::Node), records.asked(), "{}", records.detail());
    scene
}

fn owner() {
    let scene = served(&START, &["interception: nftables table inet nodelocaldns"]);
    let listing = shell("nft list table inet nodelocaldns");
    assert!(listing.contains("flags owner"), "{listing}");
    scene.end();
}

fn beside_nftables() {
    let start = Start { proxy: Proxy::Nftables, ..START };
    served(&start, &["interception: nftables table inet nodelocaldns"]).end();
}

fn legacy() {
    let lacking = "interception: iptables, since this kernel has no nf_tables";
    let mut scene = served(&LEGACY, &[lacking, "iptables-legacy"]);
    let rules = shell("iptables-legacy-save -t raw; ip6tables-legacy-save -t raw");
    for address in CLUSTER_IPS {
        assert!(rules.contains(address), "no rule for {address} in\n{rules}");
    }
    // There is no fallback for the link-local address where no table can hold it.
    let said = scene.stop();
    assert_eq!(said.matches(lacking).count(), 1, "the choice is told again and again:\n{said}");
    assert!(!said.contains("[ERROR]"), "what a kernel lacks is no error:\n{said}");
    scene.tear_down();
}

fn legacy_without_rights() {
    let scene = Scene::prepare(&Start { has_net_raw: false, ..LEGACY });
    let said = || scene.agent.watchdog.output();
    settled("it says that NET_RAW is lacking", || said().contains("NET_RAW"), said);
    let of_cluster = scene.ask_for(SOON / 60).of(|record| CLUSTER_IPS.contains(&record.kind.address));
    let answered = of_cluster.of(|record| record.is_answered());
    assert_eq!(answered.asked(), of_cluster.asked(), "{}", of_cluster.detail());
}

fn nothing() {
    let scene = Scene::prepare(&Start { proxy: Proxy::None, ..START });
    let said = || scene.agent.watchdog.output();
    settled("it says that there is no nf_tables", || said().contains("this kernel has no nf_tables"), said);
}
