//! The real link, and what others do to it. What pods see is that the node answers again; what is left is nothing.

use crate::case::{CASE, Case, Kernel};
use crate::cluster::{CLUSTER_IPS, LOCALS, shell, signal};
use crate::guest::case::note;
use crate::node::{SOON, START, Scene, addresses, ours, settled};
use crate::wire::Answer;

const BOTH: &[Kernel] = &[Kernel::OldestCloud, Kernel::NewestCloud];

/// The addresses of the program, all of which are on the link.
const COUNT: usize = LOCALS.len() + CLUSTER_IPS.len();

/// The family's.
pub const CASES: &[Case] = &[
    Case { name: "link/is_a_dummy_and_goes_at_the_end", body: made, kernels: BOTH, is_quick: true, ..CASE },
    Case { name: "link/adopted_keeps_what_is_not_ours", body: adopted, ..CASE },
    Case { name: "link/set_down_is_set_up", body: || harmed("ip link set nodelocaldns down"), ..CASE },
    Case { name: "link/flushed_has_its_addresses_again", body: || harmed("ip address flush dev nodelocaldns"), ..CASE },
    Case { name: "link/deleted_is_made_again", body: || harmed("ip link delete nodelocaldns"), kernels: BOTH, ..CASE },
    Case { name: "link/renamed_is_found_and_named_again", body: renamed, kernels: BOTH, ..CASE },
    Case { name: "link/renamed_while_up_is_named_again_once_it_is_down", body: renamed_and_raised, ..CASE },
    Case { name: "link/moved_to_another_namespace_is_made_again", body: moved, ..CASE },
    Case { name: "link/without_the_dummy_driver_is_a_bridge", body: bridged, without: &["dummy"], ..CASE },
    Case { name: "link/without_any_driver_nothing_is_harmed", body: impossible, without: &["dummy", "bridge"], ..CASE },
    Case { name: "link/without_ipv6_at_the_start_kube_dns_answers", body: started_without_ipv6, ..CASE },
    Case { name: "link/without_ipv6_for_a_while_serves_ipv4", body: without_ipv6, ..CASE },
    Case { name: "link/with_duplicate_address_detection_serves", body: with_dad, ..CASE },
];

fn details() -> String {
    shell("ip -details link show; ip address")
}

/// Everybody is answered by the node, and the link has all addresses.
fn assert_served(scene: &Scene) {
    let is_whole = || ours().iter().filter(|line| line.starts_with("nodelocaldns ")).count() == COUNT;
    settled("all addresses are on the link", is_whole, || format!("{}{}", details(), scene.agent.watchdog.tail(30)));
    scene.await_service();
    assert_eq!(ours().len(), COUNT, "an address is on two links: {}", details());
}

fn made() {
    let scene = Scene::start(&START);
    assert_served(&scene);
    let link = shell("ip -details link show nodelocaldns");
    assert!(link.contains("dummy") && link.contains("made by nodelocaldns"), "{link}");
    scene.end();
}

fn adopted() {
    shell(
        "ip link add nodelocaldns type dummy
        ip address add 192.0.2.1/24 dev nodelocaldns",
    );
    let scene = Scene::start(&START);
    assert_served(&scene);
    scene.end();
    let left: Vec<String> = addresses().into_iter().filter(|line| line.starts_with("nodelocaldns ")).collect();
    assert!(left.contains(&"nodelocaldns 192.0.2.1/24".to_owned()), "{left:?}");
}

fn harmed(harm: &str) {
    mended(harm, |_| _ = shell(harm));
}

/// Somebody does harm while clients ask.
fn mended(what: &str, harm: impl FnOnce(&Scene)) {
    let mut scene = Scene::start(&START);
    scene.ask_during(what, |scene| {
        harm(scene);
        assert_served(scene);
    });
    scene.end();
}

fn renamed() {
    mended("ip link set nodelocaldns name dns0", |scene| rename(scene, ""));
    assert!(!details().contains("dns0"), "{}", details());
}

/// The kernel lets nobody name it again. It serves under any name, and what the log advises helps.
fn renamed_and_raised() {
    let told = shell(
        "ip link add any type veth peer name other
        ip link set any up
        ip link set any name some 2>/dev/null && echo renamed || :
        ip link delete other",
    );
    if told.contains("renamed") {
        note("not done: this kernel renames links that are up, as all do from 6.2 on");
        return;
    }
    mended("ip link set dns0 down", |scene| {
        rename(scene, "ip link set dns0 up");
        let said = || scene.agent.watchdog.output();
        settled("it says what to do", || said().contains("`ip link set dns0 down` has it renamed"), said);
        scene.await_service();
        shell("ip link set dns0 down");
    });
    assert!(!details().contains("dns0"), "{}", details());
}

/// A kernel before 6.2 renames no link that is up, and the program would set it up again in between.
fn rename(scene: &Scene, then: &str) {
    let watchdog = scene.agent.watchdog.pid().cast_signed();
    signal(watchdog, libc::SIGSTOP);
    shell(&format!(
        "ip link set nodelocaldns name dns0 2>/dev/null || {{
            ip link set nodelocaldns down
            ip link set nodelocaldns name dns0
        }}
        {then}"
    ));
    signal(watchdog, libc::SIGCONT);
}

fn moved() {
    let mut scene = Scene::start(&START);
    shell(
        "unshare --net sh -c 'echo $$ >/tmp/away; exec sleep infinity' >/dev/null 2>&1 & while [ ! -s /tmp/away ]; do sleep 0.1; done",
    );
    scene.ask_during("ip link set nodelocaldns netns …", |scene| {
        shell("ip link set nodelocaldns netns $(cat /tmp/away)");
        assert_served(scene);
    });
    scene.end();
    // The kernel takes a link's addresses off when it moves. The link is no longer on this node.
    let there = shell("nsenter --net --target $(cat /tmp/away) ip -oneline address show");
    assert!(!there.contains(LOCALS[0]) && !there.contains(CLUSTER_IPS[0]), "{there}");
}

fn bridged() {
    let scene = Scene::start(&START);
    assert_served(&scene);
    let link = shell("ip -details link show nodelocaldns");
    assert!(link.contains("bridge") && link.contains("made by nodelocaldns"), "{link}");
    scene.end();
}

/// No link can be made, and so nothing be served: it says so and ends, as with whatever its first server cannot listen
/// on, and pods are answered by KubeDNS all the while.
fn impossible() {
    shell("for driver in dummy bridge; do modprobe $driver && exit 1 || :; done");
    let mut scene = Scene::prepare(&START);
    let mut status = None;
    let records = scene.ask_during("no link", |scene| status = scene.agent.watchdog.wait_exit(SOON));
    let said = scene.agent.watchdog.output();
    assert!(status.is_some_and(|status| !status.success()), "its end: {status:?}\n{said}");
    assert!(said.contains("cannot create link nodelocaldns"), "it does not say that no link can be made:\n{said}");
    let of_cluster = records.of(|record| CLUSTER_IPS.contains(&record.kind.address));
    assert_eq!(of_cluster.from(Answer::KubeDns), of_cluster.asked(), "{}", records.detail());
    scene.tear_down();
}

const OFF: &str = "echo 1 >/proc/sys/net/ipv6/conf/all/disable_ipv6";
const ON: &str = "echo 0 >/proc/sys/net/ipv6/conf/all/disable_ipv6";

/// It is asked to serve addresses of IPv6 that no link takes: it says why it cannot, and pods are answered by KubeDNS.
fn started_without_ipv6() {
    let mut scene = Scene::prepare_on(&START, || _ = shell(OFF));
    let status = scene.agent.watchdog.wait_exit(SOON);
    let said = scene.agent.watchdog.output();
    assert!(status.is_some_and(|status| !status.success()), "{said}");
    assert!(said.contains("IPv6 is disabled there (net.ipv6.conf.all.disable_ipv6 = 1"), "{said}");
    // The addresses of IPv6 are nobody's.
    shell(ON);
    let records = scene.ask_during("IPv6 is off", |_| _ = shell(OFF));
    let of_ipv4 = records.of(|record| !record.kind.address.contains(':'));
    assert_eq!(of_ipv4.from(Answer::KubeDns), of_ipv4.asked(), "{}", records.detail());
    scene.tear_down();
}

/// On the link alone, as on the node it would take the pods' own routes. Clients of IPv4 do not notice, and those of
/// IPv6 are answered when it is there again.
fn without_ipv6() {
    let switch = |value| shell(&format!("echo {value} >/proc/sys/net/ipv6/conf/nodelocaldns/disable_ipv6"));
    let mut scene = Scene::start(&START);
    let records = scene.ask_during("IPv6 is off for a while", |scene| {
        switch(1);
        let said = || scene.agent.watchdog.output();
        settled("it says so", || said().contains("net.ipv6.conf.nodelocaldns.disable_ipv6 = 1"), said);
        assert_eq!(ours().len(), COUNT / 2, "{}", details());
        switch(0);
    });
    let of_ipv4 = records.of(|record| !record.kind.address.contains(':'));
    assert_eq!(of_ipv4.from(Answer::Node), of_ipv4.asked(), "{}", records.detail());
    assert_served(&scene);
    scene.end();
}

fn with_dad() {
    let script = "for which in all default; do echo 1 >/proc/sys/net/ipv6/conf/$which/accept_dad; done";
    let scene = Scene::prepare_on(&START, || _ = shell(script));
    scene.await_service();
    assert_served(&scene);
    let tentative = shell("ip -6 address show dev nodelocaldns tentative");
    assert_eq!(tentative.trim(), "", "an address waits for nobody");
    scene.end();
}
