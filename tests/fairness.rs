//! Who gives way when something that clients take places in is full, in the program as it runs.

mod support;

use hickory_proto::op::{Message, ResponseCode};
use std::net::{Ipv4Addr, UdpSocket};
use std::process::Command;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;
use support::client::{PATIENCE, ask, exchange_tcp, loopback, metric, query};
use support::ports::free_port;
use support::server::{Server, binary, scratch, wait_until};
use support::tools::{everything, write};
use support::upstream::{Reply, Upstream, address_rule};

/// Of the forward.
const MAX_CONCURRENT: usize = 64;
/// Addresses that ask for what the upstream says nothing to.
const GREEDY: u8 = 16;

const REJECTS: &str = "coredns_forward_max_concurrent_rejects_total";

struct Scene {
    server: Server,
    port: u16,
    metrics: u16,
    _upstream: Upstream,
}

/// Without a cache, so that each query is a miss.
fn scene(fairness: &str) -> Scene {
    let upstream = Upstream::start(
        vec![address_rule("polite.example.", 60, "192.0.2.1")],
        Some(Reply { drop: true, ..Reply::default() }),
    );
    let (port, metrics) = (free_port(), free_port());
    let corefile = format!(
        ".:{port} {{\n bind 127.0.0.1\n {fairness}\n prometheus 127.0.0.1:{metrics}\n forward . 127.0.0.1:{} {{\n  \
         max_concurrent {MAX_CONCURRENT}\n }}\n}}\n",
        upstream.port
    );
    Scene { server: Server::start(&corefile, port), port, metrics, _upstream: upstream }
}

/// Has many addresses ask for ever more names until `work` is done, which begins when requests are refused.
fn under_flood(scene: &Scene, work: impl FnOnce()) {
    let stop = AtomicBool::new(false);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            let bind = |last| {
                UdpSocket::bind((Ipv4Addr::new(127, 0, 7, last), 0)).expect("any address of 127.0.0.0/8 is ours")
            };
            let sockets: Vec<UdpSocket> = (1..=GREEDY).map(bind).collect();
            while !stop.load(Ordering::Relaxed) {
                for socket in &sockets {
                    let name = format!("n{}.silent.example.", fastrand::u64(..));
                    let wire = query(&name, "A").to_vec().expect("a query of ours encodes");
                    _ = socket.send_to(&wire, loopback(scene.port));
                }
                std::thread::sleep(Duration::from_millis(5));
            }
        });
        let is_full = wait_until(PATIENCE * 4, || metric(scene.metrics, REJECTS).is_some_and(|rejects| rejects > 0.0));
        if is_full {
            work();
        }
        stop.store(true, Ordering::Relaxed);
        assert!(is_full, "nothing was ever refused:\n{}", scene.server.tail(12));
    });
}

#[test]
fn a_client_that_asks_little_loses_nothing_to_many_that_fill_max_concurrent() {
    let scene = scene("");
    under_flood(&scene, || {
        for number in 0..50 {
            let answer = ask(loopback(scene.port), "polite.example.", "A").expect("an answer over UDP");
            assert_eq!(
                (answer.metadata.response_code, answer.answers.len()),
                (ResponseCode::NoError, 1),
                "{number}: {answer}"
            );
            let wire = query("polite.example.", "A").to_vec().expect("a query of ours encodes");
            let answer = exchange_tcp(loopback(scene.port), &wire, PATIENCE).expect("an answer over TCP");
            let answer = Message::from_vec(&answer).expect("a well-formed answer");
            assert_eq!(
                (answer.metadata.response_code, answer.answers.len()),
                (ResponseCode::NoError, 1),
                "{number}: {answer}"
            );
        }
    });
}

#[test]
fn with_fairness_off_it_is_refused_as_everybody_else() {
    let scene = scene("fairness off");
    under_flood(&scene, || {
        let is_refused = wait_until(PATIENCE * 4, || {
            let answer = ask(loopback(scene.port), "polite.example.", "A");
            answer.is_some_and(|answer| answer.metadata.response_code == ResponseCode::Refused)
        });
        assert!(is_refused, "nothing was full");
    });
}

#[test]
fn blocks_that_say_otherwise_of_fairness_are_refused_with_both_places() {
    let folder = scratch();
    let blocks = |first: &str, second: &str| {
        let text =
            format!("a:1053 {{\n whoami\n {first}\n}}\nb:1053 {{\n whoami\n {second}\n}}\nc:1053 {{\n whoami\n}}\n");
        let corefile = write(folder.path(), "Corefile", &text);
        let output = Command::new(binary()).arg("check").arg(&corefile).output().expect("the program runs");
        (output.status.success(), everything(&output))
    };
    let (is_good, said) = blocks("fairness off", "fairness {\n ipv6_prefix 56\n }");
    assert!(!is_good && said.contains("Corefile:7:2") && said.contains("line 3"), "{said}");
    let same = "fairness {\n ipv6_prefix 56\n }";
    let (is_good, said) = blocks(same, same);
    assert!(is_good, "{said}");
    let (is_good, said) = blocks("", "fairness off");
    assert!(is_good, "{said}");
}
