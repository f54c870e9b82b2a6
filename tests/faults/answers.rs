//! Rows in which the server lives and answers, but not as it should. What it says is changed or dropped on its way out,
//! by rules of the node's output hook that know its addresses: the probe and the clients see what they would see of a
//! faulty server.

use crate::cluster::{CLUSTER_IPS, SOON, shell};
use crate::processes::replaced;
use crate::row::{row, row_at_once};
use crate::scene::{ADDRESSES, Scene, cached, rates};
use crate::support::client::metric;
use crate::support::server::wait_until;
use crate::wire::Answer;
use std::time::{Duration, Instant};

/// No watchdog may need longer to find the fault and to have KubeDNS answer; nominal: 400 ms, of TCP 800 ms, and a step.
const FOUND: Duration = Duration::from_secs(4);

/// Octets 2 and 3 of each answer say REFUSED: over UDP at the start of the payload, over TCP after the 32 octets that
/// its header has, and the length.
const WRONG: &str = "udp sport 53 @th,80,16 set 0x8185; tcp sport 53 @th,288,16 set 0x8185";
/// `meta cpu` is true always. The program cannot know that: it would find the rule and blame the firewall, not the
/// server.
const SOME: &str = "ip saddr 10.96.0.10 meta l4proto { tcp, udp } th sport 53 meta cpu >= 0 drop";
const UDP_ONLY: &str = "tcp sport 53 meta cpu >= 0 drop";

#[test]
fn a_server_that_answers_wrongly_is_found() {
    row("answers::a_server_that_answers_wrongly_is_found", "server answers wrongly", "–", |backend| {
        measure(backend, rates(backend), WRONG, ADDRESSES)
    });
}

#[test]
fn a_server_that_answers_on_some_addresses_only_is_found() {
    row(
        "answers::a_server_that_answers_on_some_addresses_only_is_found",
        "server answers on some addresses",
        "–",
        |backend| measure(backend, rates(backend).take(1), SOME, &CLUSTER_IPS[..1]),
    );
}

#[test]
fn a_server_that_answers_over_udp_only_is_found() {
    row_at_once(
        "answers::a_server_that_answers_over_udp_only_is_found",
        "server answers over UDP only",
        "–",
        |backend| measure(backend, rates(backend).take(1), UDP_ONLY, ADDRESSES),
    );
}

/// Waits until queries for these addresses are no longer the cache's.
fn await_withdrawal(scene: &Scene, addresses: &[&str]) {
    let gauge = |address| format!("nodelocaldns_watchdog_intercepted{{address=\"{address}\"}}");
    let is_withdrawn = || addresses.iter().all(|address| metric(9353, &gauge(address)) == Some(0.0));
    assert!(wait_until(SOON, is_withdrawn), "not found:\n{}", scene.agent.watchdog.tail(20));
}

/// `change` are rules for what leaves the node's own sockets from `faulty` addresses. KubeDNS's answers pass through
/// other hooks.
fn measure(backend: &str, rates: impl Iterator<Item = u32>, change: &str, faulty: &[&str]) -> Vec<String> {
    let mut scene = Scene::start(backend);
    let measure = |rate: u32| {
        let began = Instant::now();
        let mut found = Duration::ZERO;
        let records = scene.ask_during(cached(rate), |scene| {
            shell(&format!(
                "nft 'add table inet faulty {{ chain out {{ type filter hook output priority 0; {change}; }}; }}'"
            ));
            await_withdrawal(scene, faulty);
            found = began.elapsed();
            // The programs of iptables may take longer than it is given, on a machine that is busy.
            let is_replaced = backend == "nftables" && replaced() > 0.0;
            assert!(!is_replaced, "killed for it so soon:\n{}", scene.agent.watchdog.tail(20));
            std::thread::sleep(Duration::from_millis(500));
        });
        // What was asked a moment before may have been answered wrongly yet.
        let settled = records.after(found + Duration::from_millis(100));
        let moved = settled.of(|record| faulty.contains(&record.kind.address));
        // Other addresses are served here as before.
        if found > FOUND || moved.from(Answer::KubeDns) != moved.asked() || settled.lost() > 0 {
            scene.fail(&records, &format!("found after {found:?}, and then not all is answered by KubeDNS"));
        }
        shell("nft delete table inet faulty");
        scene.await_service();
        records.to_string()
    };
    rates.map(measure).collect()
}
