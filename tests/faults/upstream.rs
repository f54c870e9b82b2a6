//! Rows in which KubeDNS, which the program asks, is away or breaks connections.

use crate::cluster::{CLUSTER_IPS, SOON, ask_on, connected};
use crate::load::Plan;
use crate::processes::assert_none_lost;
use crate::row::{row, row_at_once};
use crate::scene::{RATES, Scene, cached, corefile, is_whole, rates};
use hickory_proto::op::ResponseCode;
use std::time::{Duration, Instant};

/// `read_timeout` of the Corefile's `forward`.
const READ_TIMEOUT: Duration = Duration::from_secs(2);
/// How long `forward` waits for an upstream that is not known to be down yet.
const PATIENCE: Duration = Duration::from_secs(5);
/// What is cached for 5 s is stale for most of it.
fn outage() -> Duration {
    Duration::from_secs(if is_whole() { 60 } else { 15 })
}

#[test]
fn an_outage_of_the_upstream_costs_no_cached_name_an_answer() {
    row_at_once(
        "upstream::an_outage_of_the_upstream_costs_no_cached_name_an_answer",
        "upstream dead for 60 s, `serve_stale`",
        "–",
        |backend| {
            let template = corefile("cache 5 {\n  serve_stale 1h\n }");
            let mut scene = Scene::with(backend, &template, crate::cluster::program(), &[]);
            let records = scene.ask_during(cached(RATES[0]), |scene| {
                scene.kube_dns.set_dead(true);
                let ends = Instant::now() + outage();
                for number in 0.. {
                    if Instant::now() > ends {
                        break;
                    }
                    let (took, code) = ask_fresh(scene, &format!("fresh{number}.outage.example."));
                    assert_eq!(code, Some(ResponseCode::ServFail), "name {number}, after {took:?}");
                    // Nominal: the read timeout, once the health checks have failed.
                    let limit = if number == 0 { PATIENCE } else { READ_TIMEOUT } + Duration::from_millis(700);
                    assert!(took < limit, "name {number} took {took:?}");
                    std::thread::sleep(Duration::from_secs(1));
                }
                scene.kube_dns.set_dead(false);
                let (took, code) = ask_fresh(scene, "first.after.example.");
                assert_eq!(code, Some(ResponseCode::NoError), "the first query after the outage, after {took:?}");
                println!("the first query after the outage took {took:?}");
            });
            assert_none_lost(&scene, &records);
            vec![records.to_string()]
        },
    );
}

/// A pod asks for a name: how long that took, and the answer's code.
fn ask_fresh(scene: &Scene, name: &str) -> (Duration, Option<ResponseCode>) {
    let started = Instant::now();
    let socket = scene.network.pod.visit(|| connected(CLUSTER_IPS[0]));
    let answer = ask_on(&socket, name, SOON);
    (started.elapsed(), answer.map(|answer| answer.metadata.response_code))
}

#[test]
fn reset_connections_to_the_upstream_cost_nothing() {
    row(
        "upstream::reset_connections_to_the_upstream_cost_nothing",
        "upstream resets TCP each second",
        "–",
        |backend| {
            let mut scene = Scene::start(backend);
            let measure = |rate| {
                let plan = Plan { fresh_every: Some(20), ..cached(rate) };
                let records = scene.ask_during(plan, |scene| {
                    for _ in 0..2 {
                        scene.kube_dns.reset_connections();
                        std::thread::sleep(Duration::from_secs(1));
                    }
                });
                assert_none_lost(&scene, &records);
                records.to_string()
            };
            rates(backend).map(measure).collect()
        },
    );
}
