//! Nodes with a firewall of the distribution's: rules that the real ufw and the real firewalld have made as they come,
//! recorded (tests/lab/firewalls). Pods are answered by the node or, where their packets do not arrive, by KubeDNS.

use crate::case::{CASE, Case, Kernel};
use crate::cluster::shell;
use crate::node::{Proxy, START, Scene, Start, settled};
use crate::records::{Records, Who};
use crate::support::server::scratch;
use crate::support::tools::write;
use crate::wire::Answer;
use std::time::Duration;

const BOTH: &[Kernel] = &[Kernel::OldestCloud, Kernel::NewestCloud];

/// The family's.
pub const CASES: &[Case] = &[
    Case { name: "firewalls/ufw_lets_pods_in", body: || ufw("nft", Proxy::IptablesNft, "auto"), kernels: BOTH, ..CASE },
    Case {
        name: "firewalls/ufw_lets_pods_in_by_programs",
        body: || ufw("nft", Proxy::IptablesNft, "iptables"),
        ..CASE
    },
    Case {
        name: "firewalls/ufw_of_iptables_legacy_lets_pods_in",
        body: || ufw("legacy", Proxy::IptablesLegacy, "auto"),
        ..CASE
    },
    Case { name: "firewalls/firewalld_leaves_pods_to_kube_dns", body: firewalld, kernels: BOTH, ..CASE },
];

/// ufw 0.36.2: `default deny incoming`, `default allow routed`, `allow 22/tcp`.
const UFW: [(&str, &str); 2] = [
    ("iptables", include_str!("../../firewalls/ufw.iptables")),
    ("ip6tables", include_str!("../../firewalls/ufw.ip6tables")),
];

/// firewalld 1.3.3, zone `public`.
const FIREWALLD: &str = include_str!("../../firewalls/firewalld.nft");

fn load(command: &str, rules: &str) {
    let folder = scratch();
    let path = write(folder.path(), "rules", rules);
    shell(&format!("{command} {}", path.display()));
}

/// Beside what others have in the same chains, as ufw does.
fn load_ufw(variant: &str) {
    for (program, rules) in UFW {
        load(&format!("{program}-{variant}-restore --noflush"), rules);
    }
}

/// A client is answered by whoever it is that answers; from now on none is left without.
fn await_answers(scene: &Scene) -> Records {
    let mut last = Records::new(Vec::new());
    let is_answered = || {
        last = scene.ask_for(Duration::from_secs(1));
        last.lost() == 0
    };
    settled("everybody is answered", is_answered, || scene.agent.watchdog.tail(30));
    last
}

/// Enabled while the node serves, and there before the program.
fn ufw(variant: &str, proxy: Proxy, backend: &str) {
    // It lets pods in by rules beside ufw's, which are of the same variant.
    let start = Start { proxy, backend, has_net_raw: variant == "legacy", ..START };
    let mut scene = Scene::start(&start);
    scene.ask_during("ufw is enabled", |scene| {
        load_ufw(variant);
        await_answers(scene);
    });
    scene.await_service();
    scene.restart(&start);
    scene.await_service();
    scene.doctor(0);
    scene.end();
}

/// Its own table rejects what comes in from links in no zone, as pods' are, whatever other tables accept.
fn firewalld() {
    let mut scene = Scene::start(&START);
    for again in [false, true] {
        scene.ask_during(if again { "the program starts behind firewalld" } else { "firewalld starts" }, |scene| {
            if again {
                scene.restart(&START);
            } else {
                load("nft -f", FIREWALLD);
            }
            await_answers(scene);
        });
        let records = await_answers(&scene);
        let of = |who| records.of(move |record| record.kind.who == who);
        assert_eq!(of(Who::Pod).from(Answer::KubeDns), of(Who::Pod).asked(), "{}", records.detail());
        let told = scene.doctor(1);
        assert!(told.contains("firewalld"), "{told}");
    }
    let said = scene.agent.watchdog.output();
    assert!(said.contains("firewalld"), "the log does not name the firewall: {said}");
    scene.ask_during("firewalld stops", |scene| {
        shell("nft delete table inet firewalld");
        scene.await_service();
    });
    scene.end();
}
