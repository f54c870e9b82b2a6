//! Rows in which somebody else takes away what makes the node intercept.

use crate::cluster::{LOCALS, accept_rules, addresses, leaves_untracked, rules, shell};
use crate::processes::{assert_few_connections_cut, assert_none_lost};
use crate::records::Record;
use crate::row::row;
use crate::scene::{KINDS_OF_CONNECTIONS, Scene, cached, rates};
use crate::support::server::wait_until;
use std::time::{Duration, Instant};

/// Nominal: 100 ms, of which looking takes a good part here.
const MENDED: Duration = Duration::from_secs(1);

const FLUSH_RAW: &str = "iptables-nft -t raw -F; ip6tables-nft -t raw -F";

#[test]
fn a_flushed_ruleset_is_mended() {
    row("node::a_flushed_ruleset_is_mended", "`nft flush ruleset`", "–", |backend| {
        measure(backend, |scene, rate| {
            let accepting = accept_rules();
            let (mut flushed, mut took) = (Duration::ZERO, Duration::ZERO);
            let began = Instant::now();
            let records = scene.ask_during(cached(rate), |_| {
                shell("nft flush ruleset");
                flushed = began.elapsed();
                // Rules that accept are put back where there is a table that may drop; the programs make one, and this
                // node's is gone.
                let accepts = || accept_rules() == accepting || !rules().contains("table ip filter");
                took = mended(|| accepts() && leaves_untracked());
            });
            // The kernel takes tables away one after the other. A query meanwhile may meet the fallback and no longer
            // iptables' rules that shadow it, and is sent where kube-proxy no longer leads it on. The table that is
            // ours is not taken away.
            let may_be_lost = |record: &Record| {
                scene.backend == "iptables" && LOCALS.contains(&record.kind.address) && record.sent < flushed
            };
            assert_none_lost(scene, &records.of(|record| !may_be_lost(record)));
            // Nominal: what came in within microseconds.
            if records.lost() > rate as usize / 10 {
                scene.fail(&records, "more is lost than in 100 ms");
            }
            // kube-proxy's rules went too, and do not come back here.
            format!("{records}; mended in {} ms", took.as_millis())
        })
    });
}

#[test]
fn a_flushed_raw_table_is_mended() {
    row("node::a_flushed_raw_table_is_mended", "`iptables -t raw -F`", "–", |backend| {
        measure(backend, |scene, rate| {
            let before = rules().matches("notrack").count();
            let mut took = Duration::ZERO;
            let records = scene.ask_during(cached(rate), |_| {
                shell(FLUSH_RAW);
                took = mended(|| rules().matches("notrack").count() == before);
            });
            // kube-proxy picks up a pod's connection that is open when the rules go, and loses one that is open when
            // they come back.
            assert_few_connections_cut(
                scene,
                &records,
                if scene.backend == "iptables" { 2 * KINDS_OF_CONNECTIONS } else { 0 },
            );
            format!("{records}; mended in {} ms", took.as_millis())
        })
    });
}

#[test]
fn a_deleted_link_is_made_again() {
    row("node::a_deleted_link_is_made_again", "`ip link del nodelocaldns`", "–", |backend| {
        measure(backend, |scene, rate| {
            let before = addresses();
            let mut took = Duration::ZERO;
            let records = scene.ask_during(cached(rate), |_| {
                shell("ip link del nodelocaldns");
                took = mended(|| shell("ip -oneline address show").contains("nodelocaldns") && addresses() == before);
            });
            // Nominal: what came in within 100 ms.
            if records.lost() > rate as usize / 2 {
                scene.fail(&records, "more is lost than in half a second");
            }
            format!("{records}; mended in {} ms", took.as_millis())
        })
    });
}

fn measure(backend: &str, measure: impl Fn(&mut Scene, u32) -> String) -> Vec<String> {
    let mut scene = Scene::start(backend);
    let measure = |rate| {
        let cell = measure(&mut scene, rate);
        scene.await_service();
        cell
    };
    rates(backend).map(measure).collect()
}

/// Waits until the harm that was done is mended, and a little for what comes of it. How long that took, the looking
/// included.
fn mended(is_mended: impl Fn() -> bool) -> Duration {
    let harmed = Instant::now();
    assert!(wait_until(MENDED, &is_mended), "not mended after {:?}:\n{}", harmed.elapsed(), rules());
    let took = harmed.elapsed();
    std::thread::sleep(Duration::from_millis(400));
    took
}
