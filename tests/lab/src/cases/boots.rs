//! That the machine is what cases count on, and that the program serves on it.

use crate::case::{CASE, Case, Kernel, Place};
use crate::cluster::shell;
use crate::guest::case::note;
use crate::node::{START, Scene};
use crate::wire::Answer;
use std::time::Duration;

const CLOUD: &[Kernel] = &[Kernel::OldestCloud, Kernel::NewestCloud];
const FULL: &[Kernel] = &[Kernel::Oldest, Kernel::Newest];

/// The family's.
pub const CASES: &[Case] = &[
    Case { name: "boots/tools_and_drivers_are_there", body: tools, kernels: CLOUD, is_quick: true, ..CASE },
    Case { name: "boots/tools_and_drivers_are_there_on_full_kernels", body: tools, kernels: FULL, ..CASE },
    Case { name: "boots/a_machine_of_its_own", body: machine, place: Place::Machine, ..CASE },
    Case { name: "boots/a_pod_is_answered_by_the_node", body: served, kernels: CLOUD, is_quick: true, ..CASE },
    Case { name: "boots/a_pod_is_answered_by_the_node_on_full_kernels", body: served, kernels: FULL, ..CASE },
];

/// Each tool runs, and the kernel makes what cases ask of it.
fn tools() {
    shell(
        "for tool in 'nft --version' 'ip -V' 'ipset --version' 'ipvsadm --version' 'crun --version' \
             'iptables-legacy -V' 'iptables-nft -V' 'iptables -V' 'ip6tables -V' 'conntrack --version' 'nfacct list'; do
            $tool >/dev/null || { echo \"$tool does not run\"; exit 1; }
        done
        ip link add d0 type dummy
        ip link add v0 type veth peer name v1
        ip link add x0 type vxlan id 7 dev d0 dstport 4789
        ip link add b0 type bridge
        nft add table inet t
        iptables-legacy -t raw -A PREROUTING -p udp --dport 53 -j NOTRACK
        ip6tables-legacy -t raw -A PREROUTING -p udp --dport 53 -j NOTRACK
        ipset create s hash:ip timeout 1
        ipvsadm -A -t 10.0.0.1:53 -s rr
        iptables-nft -A INPUT -m conntrack --ctstate NEW -j ACCEPT",
    );
}

/// The case has the whole machine: its first process is the machine's.
fn machine() {
    let first = std::fs::read_link("/proc/1/exe").expect("the first process has a program");
    assert_eq!(first.to_str(), Some("/lab/lab"));
    assert_ne!(std::process::id(), 1);
    assert_eq!(shell("ls -d /proc/sys/kernel/random").trim(), "/proc/sys/kernel/random");
}

/// Pod and host network, IPv4 and IPv6, UDP and TCP: the node's cache answers.
fn served() {
    let mut scene = Scene::start(&START);
    let records = scene.ask_during("nothing done", |_| std::thread::sleep(Duration::from_secs(2)));
    assert_eq!(records.from(Answer::Node), records.asked(), "{}", records.detail());
    note(format_args!("{} answers from the node", records.asked()));
}
