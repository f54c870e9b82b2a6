//! Rows in which something on the node takes pods' packets before they arrive at the cache, and one in which nobody is
//! left to withdraw the rules.

use crate::cluster::{kill, shell, signal};
use crate::processes::assert_none_lost;
use crate::records::Who;
use crate::row::row;
use crate::scene::{RATES, Scene, cached, rates};
use crate::support::server::{binary, wait_until};
use crate::wire::Answer;
use std::process::Command;
use std::time::Duration;

/// Nominal: 200 ms of a client's queries, and a try of 20 ms.
const LOST: Duration = Duration::from_millis(400);
/// How long a watchdog that asks nothing is waited for, and a little.
const UNWATCHED: Duration = Duration::from_millis(2500);
const SOON: Duration = Duration::from_secs(20);

/// A table of somebody else's, as firewalld's, that goes by the interface: no accept of ours overrides it.
const FIREWALL: [&str; 2] = [
    "nft 'table inet eater { chain input { type filter hook input priority filter + 10; \
     iifname \"veth-pod\" meta l4proto { udp, tcp } th dport 53 drop; }; }'",
    "nft delete table inet eater",
];
/// As RHEL's and Oracle's images have it: what nothing accepts is rejected, at the end of a chain that accepts by
/// policy.
const REJECT_LAST: [&str; 2] = [
    "for program in iptables-nft ip6tables-nft; do $program -P INPUT ACCEPT; $program -A INPUT -j REJECT; done",
    "for program in iptables-nft ip6tables-nft; do $program -D INPUT -j REJECT; $program -P INPUT DROP; done",
];
/// As amazon-vpc-cni's strict mode: what a pod sends is routed before the table `local` is asked.
const ROUTED: [&str; 2] = [
    "for address in 10.96.0.10 169.254.20.10; do ip route add $address via 192.168.9.254 dev uplink table 101; done
    for address in fd00::10 fd00:53::10; do ip -6 route add $address via fd00:9::fe dev uplink table 101; done
    for family in -4 -6; do
        ip $family rule add pref 20 lookup local
        ip $family rule add pref 10 iif veth-pod lookup 101
        ip $family rule del pref 0
    done",
    "for family in -4 -6; do
        ip $family rule add pref 0 lookup local
        ip $family rule del pref 10
        ip $family rule del pref 20
    done
    ip route flush table 101; ip -6 route flush table 101",
];

#[test]
fn a_firewall_that_takes_pods_packets_costs_200_ms_of_them() {
    row(
        "eaten::a_firewall_that_takes_pods_packets_costs_200_ms_of_them",
        "firewall's own nftables table drops pods' packets",
        "–",
        |backend| comes_and_goes(backend, FIREWALL),
    );
}

#[test]
fn pods_whose_packets_are_routed_past_the_node_lose_200_ms_of_them() {
    row(
        "eaten::pods_whose_packets_are_routed_past_the_node_lose_200_ms_of_them",
        "policy routing takes pods' packets past the node",
        "–",
        |backend| comes_and_goes(backend, ROUTED),
    );
}

/// Something takes pods' packets from now on, and then does not any longer; the doctor says what pods see, each time.
fn comes_and_goes(backend: &str, [come, go]: [&str; 2]) -> Vec<String> {
    let mut scene = Scene::start(backend);
    let measure = |rate| {
        await_doctor(&scene, 0);
        let records = scene.ask_during(cached(rate), |_| {
            shell(come);
            std::thread::sleep(Duration::from_secs(1));
        });
        let [pods, host] = [Who::Pod, Who::HostNetwork].map(|who| records.of(|record| record.kind.who == who));
        assert_none_lost(&scene, &host);
        let settled = pods.after(Duration::from_millis(1000));
        if pods.lost() > (f64::from(rate) * LOST.as_secs_f64()) as usize
            || settled.from(Answer::KubeDns) != settled.asked()
        {
            scene.fail(&pods, "KubeDNS does not answer pods");
        }
        await_doctor(&scene, 1);
        shell(go);
        scene.await_service();
        await_doctor(&scene, 0);
        format!("pods {pods}")
    };
    rates(backend).map(measure).collect()
}

#[test]
fn a_firewall_that_rejects_at_the_end_takes_nothing() {
    row(
        "eaten::a_firewall_that_rejects_at_the_end_takes_nothing",
        "iptables rejects what nothing accepts",
        "0",
        |backend| {
            let mut scene = Scene::start(backend);
            let measure = |rate| {
                let records = scene.ask_during(cached(rate), |_| {
                    shell(REJECT_LAST[0]);
                    std::thread::sleep(Duration::from_secs(1));
                });
                assert_none_lost(&scene, &records);
                await_doctor(&scene, 0);
                shell(REJECT_LAST[1]);
                scene.await_service();
                records.to_string()
            };
            rates(backend).map(measure).collect()
        },
    );
}

#[test]
fn nobody_answers_for_2_s_when_the_watchdog_hangs_and_the_server_is_killed() {
    row(
        "eaten::nobody_answers_for_2_s_when_the_watchdog_hangs_and_the_server_is_killed",
        "watchdog SIGSTOP, server SIGKILL",
        "–",
        |backend| {
            let mut scene = Scene::start(backend);
            let mut measure = |rate| {
                let server = scene.agent.server();
                let records = scene.ask_during(cached(rate), |scene| {
                    signal(scene.agent.watchdog.pid().cast_signed(), libc::SIGSTOP);
                    kill(server);
                    std::thread::sleep(UNWATCHED + Duration::from_secs(1));
                });
                let settled = records.after(UNWATCHED + Duration::from_millis(500));
                if settled.from(Answer::KubeDns) != settled.asked() {
                    scene.fail(&records, "KubeDNS does not answer though nobody watches");
                }
                scene.agent.watchdog.signal(libc::SIGCONT);
                scene.await_service();
                records.to_string()
            };
            vec![measure(RATES[0])]
        },
    );
}

/// Waits until `doctor` ends with this status: what a pod sees.
fn await_doctor(scene: &Scene, status: i32) {
    let mut said = String::new();
    let agrees = || {
        let output = Command::new(binary())
            .args(["doctor", "-localip", &crate::scene::ADDRESSES.join(",")])
            .output()
            .expect("it runs");
        said = String::from_utf8_lossy(&output.stdout).into_owned();
        output.status.code() == Some(status)
    };
    assert!(wait_until(SOON, agrees), "doctor does not say {status}:\n{said}\n{}", scene.agent.watchdog.tail(20));
}
