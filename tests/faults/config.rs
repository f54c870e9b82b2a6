//! Rows in which the Corefile changes.

use crate::cluster::{KUBE_DNS, SOON, UPSTREAM};
use crate::load::Plan;
use crate::processes::assert_none_lost;
use crate::row::row;
use crate::scene::{Scene, cached, corefile, rates};
use crate::support::client::metric;
use crate::support::server::wait_until;
use std::time::Duration;

const RELOADS: usize = 20;

#[test]
fn reloads_cost_nothing() {
    row("config::reloads_cost_nothing", "reload with a changed upstream, 20 times", "–", |backend| {
        let mut scene = Scene::start(backend);
        let measure = |rate| {
            let plan = Plan { fresh_every: Some(20), ..cached(rate) };
            let records = scene.ask_during(plan, |scene| {
                for number in 0..RELOADS {
                    let upstream = [KUBE_DNS[0], UPSTREAM[0]][number % 2];
                    swap(scene, &corefile("cache 3600").replace("__PILLAR__CLUSTER__DNS__", upstream));
                    std::thread::sleep(Duration::from_millis(20));
                }
            });
            assert_none_lost(&scene, &records);
            records.to_string()
        };
        rates(backend).map(measure).collect()
    });
}

/// Swaps a template in and waits until it serves.
fn swap(scene: &Scene, template: &str) {
    let said = || scene.agent.watchdog.output().matches("the changed Corefile serves").count();
    let before = said();
    write(scene, template);
    assert!(wait_until(SOON, || said() > before), "it is not swapped in:\n{}", scene.agent.watchdog.tail(20));
}

fn write(scene: &Scene, template: &str) {
    std::fs::write(scene.agent.watchdog.folder.path().join("Corefile.base"), template)
        .expect("the folder can be written");
}

#[test]
fn a_bad_corefile_is_refused_and_costs_nothing() {
    row("config::a_bad_corefile_is_refused_and_costs_nothing", "bad Corefile swapped in", "–", |backend| {
        let mut scene = Scene::start(backend);
        let failed = || metric(9253, "coredns_reload_failed_total").expect("the server's metrics are served");
        let measure = |rate| {
            let before = failed();
            let records = scene.ask_during(cached(rate), |scene| {
                write(scene, &corefile("cahce 3600"));
                let is_counted = wait_until(SOON, || failed() > before);
                assert!(is_counted, "the metric says nothing:\n{}", scene.agent.watchdog.tail(20));
                std::thread::sleep(Duration::from_millis(300));
            });
            assert_none_lost(&scene, &records);
            assert!(scene.agent.watchdog.output().contains("the changed Corefile is refused"), "nor does the log");
            swap(&scene, &corefile(&format!("cache {rate}")));
            scene.await_service();
            records.to_string()
        };
        rates(backend).map(measure).collect()
    });
}
