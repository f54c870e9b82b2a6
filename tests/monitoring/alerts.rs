//! Each alert in its fault.

use crate::support::alerts::{FAULTY, Recording};
use crate::support::client::{ask, loopback, metric, query, read_tcp, send_tcp};
use crate::support::ports::free_port;
use crate::support::processes::{server, signal};
use crate::support::server::{wait_until, write_corefile};
use crate::support::tools::{run, tool};
use crate::support::upstream::{Reply, Upstream};
use crate::{CACHED, Scene, corefile};
use std::cell::RefCell;
use std::net::{TcpListener, UdpSocket};
use std::sync::mpsc::{self, RecvTimeoutError};
use std::time::Duration;

const PATIENCE: Duration = Duration::from_secs(20);

/// Records a scene whose load goes on while `fault` does its work.
fn record(scene: Scene, fault: impl FnOnce(&mut Scene), mut load_then: impl FnMut(&mut Scene)) -> Recording {
    let mut recording = Recording::of(scene.metrics);
    let scene = RefCell::new(scene);
    recording.record(
        || scene.borrow_mut().ask(),
        || fault(&mut scene.borrow_mut()),
        || load_then(&mut scene.borrow_mut()),
    );
    recording
}

#[test]
fn nothing_fires_while_nothing_is_wrong() {
    record(Scene::new(), |_| {}, Scene::ask).assert_fires(&[]);
}

#[test]
fn a_cache_that_is_gone() {
    record(Scene::new(), |scene| signal(scene.server.pid().cast_signed(), libc::SIGKILL), |_| {})
        .assert_fires(&["NodeLocalDNSDown"]);
}

/// The alert fires as long as the cache is down, however long ago Prometheus saw whose target it is.
#[test]
fn a_cache_that_is_gone_for_hours() {
    let mut recording = record(Scene::new(), |scene| signal(scene.server.pid().cast_signed(), libc::SIGKILL), |_| {});
    recording.last(150);
    recording.assert_fires(&["NodeLocalDNSDown"]);
}

/// Somebody deletes the DaemonSet, or the ServiceMonitor: no target is down, for there is none.
#[test]
fn all_caches_are_gone() {
    let mut recording = record(Scene::new(), |_| {}, Scene::ask);
    recording.lose_target();
    recording.assert_fires(&["NodeLocalDNSAbsent"]);
}

#[test]
fn a_configuration_that_is_refused() {
    let fault = |scene: &mut Scene| {
        std::fs::write(scene.template(), "nonsense {").expect("the scratch folder can be written");
        scene.server.wait_output("nonsense", PATIENCE);
    };
    record(Scene::new(), fault, Scene::ask).assert_fires(&["NodeLocalDNSConfigurationRefused"]);
}

#[test]
fn a_server_that_is_killed_again_and_again() {
    let mut minute = 0;
    let load = |scene: &mut Scene| {
        minute += 1;
        // The alert looks back 15 minutes.
        if minute > FAULTY - 8 && minute % 2 == 0 {
            let pid = |scene: &Scene| server(scene.server.pid());
            let killed = pid(scene).expect("a server");
            signal(killed, libc::SIGKILL);
            let is_replaced = || pid(scene).is_some_and(|next| next != killed);
            assert!(wait_until(PATIENCE, is_replaced), "{}", scene.server.tail(20));
        }
        scene.ask();
    };
    record(Scene::new(), |_| {}, load).assert_fires(&["NodeLocalDNSServerRestarts"]);
}

/// An upstream that is gone: the port is closed.
#[test]
fn an_upstream_that_does_not_answer() {
    let scene = Scene::new();
    let gone = free_port();
    let fault = |scene: &mut Scene| {
        write_corefile(scene.folder.path(), &corefile(scene.port, gone, ""));
        let asks_it = || scene.server.output().contains(&format!("127.0.0.1:{gone}")) || failures(scene, gone) > 0.0;
        assert!(
            wait_until(PATIENCE, || {
                let _it_fails = ask(loopback(scene.port), "first.example.", "A");
                asks_it()
            }),
            "{}",
            scene.server.tail(20)
        );
    };
    let load = |scene: &mut Scene| {
        let before = failures(scene, gone);
        scene.ask();
        assert!(
            wait_until(PATIENCE, || failures(scene, gone) > before + 3.0),
            "no health checks:\n{}",
            scene.server.tail(20)
        );
    };
    record(scene, fault, load).assert_fires(&["NodeLocalDNSServfail", "NodeLocalDNSUpstreamFails"]);
}

fn failures(scene: &Scene, upstream: u16) -> f64 {
    let series = format!("coredns_proxy_healthcheck_failures_total{{to=\"127.0.0.1:{upstream}\"}}");
    metric(scene.metrics, &series).unwrap_or_default()
}

#[test]
fn an_upstream_that_answers_late() {
    let late = Upstream::start(Vec::new(), Some(Reply { delay: 1.5, ..Reply::default() }));
    let (_until_the_end, stopped) = mpsc::channel::<()>();
    let fault = |scene: &mut Scene| {
        write_corefile(scene.folder.path(), &corefile(scene.port, late.port, ""));
        let asked = || {
            let _it_is_late = ask(loopback(scene.port), "first.example.", "A");
            !late.take_seen().is_empty()
        };
        assert!(wait_until(PATIENCE, asked), "{}", scene.server.tail(20));
        // Names that nobody has asked for, one after the other, so that some are answered in each minute of the
        // recording.
        let port = scene.port;
        std::thread::spawn(move || {
            let client = UdpSocket::bind(loopback(0)).expect("a socket");
            for number in 0u64.. {
                let message = query(&format!("late-{number}.example."), "A").to_vec().expect("a query");
                client.send_to(&message, loopback(port)).expect("it is sent");
                if stopped.recv_timeout(Duration::from_millis(10)) != Err(RecvTimeoutError::Timeout) {
                    break;
                }
            }
        });
    };
    let answered =
        |scene: &Scene| metric(scene.metrics, "coredns_dns_request_duration_seconds_count").unwrap_or_default();
    let load = |scene: &mut Scene| {
        let before = answered(scene);
        assert!(wait_until(PATIENCE, || answered(scene) > before), "{}", scene.server.tail(20));
    };
    record(Scene::new(), fault, load).assert_fires(&["NodeLocalDNSSlow"]);
}

/// One client asks for more names that nobody answers than there are places.
#[test]
fn queries_without_room() {
    let client = UdpSocket::bind(loopback(0)).expect("a socket");
    let mut asked = 0;
    let mut load = |scene: &mut Scene| {
        let dropped = || metric(scene.metrics, "nodelocaldns_queries_dropped_total").unwrap_or(0.0);
        let before = dropped();
        let is_dropped = wait_until(PATIENCE, || {
            for _ in 0..500 {
                asked += 1;
                // A query has a place of its own, also where it waits for the same answer as others.
                let message = query("silent.example.", TYPES[asked % TYPES.len()]).to_vec().expect("a query");
                client.send_to(&message, loopback(scene.port)).expect("it is sent");
            }
            dropped() > before
        });
        assert!(is_dropped, "{asked} queries, none dropped: {}", scene.server.tail(20));
    };
    // Those that give way are answered SERVFAIL.
    record(Scene::new(), |_| {}, &mut load).assert_fires(&["NodeLocalDNSQueriesDropped", "NodeLocalDNSServfail"]);
}

const TYPES: [&str; 4] = ["A", "AAAA", "TXT", "MX"];

/// Answers with wrong IDs over UDP, and as it should over TCP.
#[test]
fn answers_that_somebody_guesses() {
    let honest = TcpListener::bind(loopback(0)).expect("a port");
    let upstream = honest.local_addr().expect("an address");
    let guesses = UdpSocket::bind(upstream).expect("the same port");
    std::thread::spawn(move || {
        let mut buffer = [0; 512];
        while let Ok((length, client)) = guesses.recv_from(&mut buffer) {
            for wrong in 1..=12u8 {
                let mut answer = buffer[..length].to_vec();
                answer[1] = answer[1].wrapping_add(wrong);
                answer[2] |= 0x80;
                let _it_may_be_gone = guesses.send_to(&answer, client);
            }
        }
    });
    std::thread::spawn(move || {
        for mut client in honest.incoming().flatten() {
            std::thread::spawn(move || {
                while let Ok(mut message) = read_tcp(&mut client) {
                    message[2] |= 0x80;
                    if send_tcp(&mut client, &message).is_err() {
                        break;
                    }
                }
            });
        }
    });
    let fault = |scene: &mut Scene| {
        write_corefile(scene.folder.path(), &corefile(scene.port, upstream.port(), ""));
        let suspected = || metric(scene.metrics, "nodelocaldns_forward_spoof_suspected_total");
        assert!(
            wait_until(PATIENCE, || {
                let _it_may_be_the_old_upstream_s = ask(loopback(scene.port), "guessed.example.", "A");
                suspected().is_some_and(|count| count > 0.0)
            }),
            "{}",
            scene.server.tail(20)
        );
    };
    record(Scene::new(), fault, Scene::ask).assert_fires(&["NodeLocalDNSSpoofSuspected"]);
}

#[test]
fn a_forwarding_loop() {
    let fault = |scene: &mut Scene| {
        write_corefile(scene.folder.path(), &corefile(scene.port, scene.port, "loop"));
        let found = || metric(scene.metrics, "nodelocaldns_loop_detected") == Some(1.0);
        assert!(wait_until(PATIENCE, found), "{}", scene.server.tail(20));
    };
    record(Scene::new(), fault, |_| {}).assert_fires(&["NodeLocalDNSForwardingLoop"]);
}

/// Nothing that can be sent makes the program panic, so its counter is made to grow.
#[test]
fn a_defect_of_the_program() {
    let mut recording = record(Scene::new(), |_| {}, Scene::ask);
    recording.grow("coredns_panics_total", 1);
    recording.assert_fires(&["NodeLocalDNSPanics"]);
}

/// The limit comes down to what is open.
#[test]
fn open_files_that_run_out() {
    let fault = |scene: &mut Scene| {
        let open = metric(scene.metrics, "process_open_fds").expect("it is shown");
        let limit = format!("--nofile={}", open.ceil() + 1.0);
        run(tool("prlimit").args(["--pid", &scene.server.pid().to_string(), &limit]));
    };
    record(Scene::new(), fault, |scene| {
        let _it_may_lack_a_file = ask(loopback(scene.port), CACHED, "A");
    })
    .assert_fires(&["NodeLocalDNSFileDescriptors"]);
}

/// Another program has the port that the new configuration wants for HTTP.
#[test]
fn a_node_that_cannot_be_set_up() {
    let taken = TcpListener::bind(loopback(0)).expect("a port");
    let taken = (taken.local_addr().expect("an address").port(), taken);
    let errors = |scene: &Scene| {
        let series = "coredns_nodecache_setup_errors_total{errortype=\"http_listen\"}";
        metric(scene.metrics, series).unwrap_or_default()
    };
    let fault = |scene: &mut Scene| {
        let health = format!("health 127.0.0.1:{}", taken.0);
        write_corefile(scene.folder.path(), &corefile(scene.port, scene.upstream.port, &health));
        assert!(wait_until(PATIENCE, || errors(scene) > 0.0), "{}", scene.server.tail(20));
    };
    let mut minutes = 0;
    let load = |scene: &mut Scene| {
        // It is tried again, ever more seldom: here once within what the alert looks back, five minutes, for the ten
        // that it waits.
        minutes += 1;
        if minutes > 11 && minutes % 4 == 0 {
            let before = errors(scene);
            assert!(wait_until(PATIENCE, || errors(scene) > before), "{}", scene.server.tail(20));
        }
        scene.ask();
    };
    record(Scene::new(), fault, load).assert_fires(&["NodeLocalDNSSetupErrors"]);
}
