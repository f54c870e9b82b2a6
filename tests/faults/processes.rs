//! Rows in which a process ends, hangs, or cannot start.

use crate::cluster::{Transport, is_alive, kill, leaves_untracked, rules, signal};
use crate::records::{Records, Who};
use crate::row::row;
use crate::scene::{KINDS_OF_CONNECTIONS, LEAD, RATES, Scene, cached, rates};
use crate::support::client::metric;
use crate::support::processes::ServerKiller;
use crate::support::server::wait_until;
use crate::wire::Answer;
use std::time::Duration;

/// Queries that a worker may have read and not answered when it ends.
const IN_HAND: usize = 64;

/// After this the fault's effect on queries must be over; on a machine that is not busy it takes a tenth of it.
const SETTLED: Duration = Duration::from_secs(1);

/// Nominal: 700 ms, in which a server that hangs is replaced.
const HANGS: Duration = Duration::from_secs(2);

/// How long rules of iptables bring queries here after the last probe, and a little.
const LEASE: Duration = Duration::from_secs(1);

fn in_hand() -> usize {
    IN_HAND * std::thread::available_parallelism().map_or(1, usize::from)
}

fn pause(milliseconds: u64) {
    std::thread::sleep(Duration::from_millis(milliseconds));
}

#[test]
fn a_killed_server_costs_what_it_had_in_hand() {
    row(
        "processes::a_killed_server_costs_what_it_had_in_hand",
        "server SIGKILL",
        "3,985 of 6,000 and on, until a restart",
        |backend| {
            let mut scene = Scene::start(backend);
            let measure = |rate| {
                let records = scene.ask_during(cached(rate), |scene| {
                    kill(scene.agent.server());
                    pause(700);
                });
                if records.lost_by_us() > in_hand() || records.longest_gap() > SETTLED {
                    scene.fail(&records, "more is lost than it had in hand");
                }
                scene.await_service();
                records.to_string()
            };
            rates(backend).map(measure).collect()
        },
    );
}

#[test]
fn a_hanging_server_is_replaced_and_what_waits_is_answered() {
    row(
        "processes::a_hanging_server_is_replaced_and_what_waits_is_answered",
        "server SIGSTOP",
        "6,004 of 8,000 and on, without end",
        |backend| {
            let mut scene = Scene::start(backend);
            let measure = |rate| {
                let hung = scene.agent.server();
                let records = scene.ask_during(cached(rate), |scene| {
                    signal(scene.agent.server(), libc::SIGSTOP);
                    pause(1200);
                });
                // A batch is seldom in hand between two instructions; at 2,000 a second next to never.
                let allowed = if rate == RATES[0] { 4 } else { in_hand() };
                if records.lost_by_us() > allowed || records.longest_gap() > HANGS || is_alive(hung) {
                    scene.fail(&records, "a server that hangs is not replaced in time");
                }
                scene.await_service();
                records.to_string()
            };
            rates(backend).map(measure).collect()
        },
    );
}

#[test]
fn kube_dns_answers_while_no_server_can_start() {
    row("processes::kube_dns_answers_while_no_server_can_start", "server fails at every start", "–", |backend| {
        let mut scene = Scene::start(backend);
        let measure = |rate| {
            let mut killer = None;
            let records = scene.ask_during(cached(rate), |scene| {
                killer = Some(ServerKiller::start(scene.agent.watchdog.pid()));
                pause(1500);
            });
            drop(killer);
            scene.agent.watchdog.signal(libc::SIGHUP);
            // Nominal: what came in within 100 ms.
            let settled = records.after(SETTLED);
            let is_lossy = records.lost() > rate as usize / 2;
            if is_lossy || settled.from(Answer::KubeDns) != settled.asked() {
                scene.fail(&records, "KubeDNS does not answer");
            }
            scene.await_service();
            records.to_string()
        };
        rates(backend).map(measure).collect()
    });
}

#[test]
fn from_a_killed_watchdog_on_kube_dns_answers() {
    row("processes::from_a_killed_watchdog_on_kube_dns_answers", "watchdog SIGKILL", "–", |backend| {
        measure_end(backend, |scene| {
            let server = scene.agent.server();
            scene.agent.watchdog.signal(libc::SIGKILL);
            assert!(wait_until(SETTLED, || !is_alive(server)), "the orphaned server goes on");
        })
    });
}

#[test]
fn from_the_end_of_both_on_kube_dns_answers() {
    row(
        "processes::from_the_end_of_both_on_kube_dns_answers",
        "both SIGKILL at once",
        "as server SIGKILL, and its rules stay",
        |backend| {
            measure_end(backend, |scene| {
                let server = scene.agent.server();
                scene.agent.watchdog.signal(libc::SIGKILL);
                kill(server);
            })
        },
    );
}

/// The program is gone and takes nothing down itself.
fn measure_end(backend: &str, end: impl Fn(&mut Scene)) -> Vec<String> {
    let mut scene = Scene::start(backend);
    let measure = |rate| {
        let records = scene.ask_during(cached(rate), |scene| {
            end(scene);
            pause(if backend == "iptables" { 1700 } else { 700 });
        });
        scene.agent.watchdog.wait_exit(SETTLED).expect("a killed process ends");
        let [pods, host] = [Who::Pod, Who::HostNetwork].map(|who| records.of(|record| record.kind.who == who));
        // With nftables the kernel removes the rules. Those of iptables stay; they match pods' packets only while a
        // socket is there to take them, and the host network's until their lease is over.
        let (served, told) = match backend {
            "nftables" => {
                assert!(!leaves_untracked(), "{}", rules());
                (&records, records.to_string())
            }
            _ => (&pods, format!("pods {pods}; host network {host}")),
        };
        let settled = served.after(SETTLED.mul_f64(0.7));
        let is_elsewhere = settled.from(Answer::KubeDns) == settled.asked();
        // Twice: what the server had in hand, and what waited in its sockets.
        if served.lost_by_us() > in_hand() * 2 || !is_elsewhere {
            scene.fail(&records, "KubeDNS does not answer from the next packet on");
        }
        if backend == "iptables" {
            let settled = host.after(LEAD + LEASE + Duration::from_millis(200));
            if settled.asked() == 0 || settled.from(Answer::KubeDns) != settled.asked() {
                scene.fail(&host, "KubeDNS does not answer the host network when the lease is over");
            }
        }
        scene.start_again();
        told
    };
    rates(backend).map(measure).collect()
}

#[test]
fn a_server_serves_on_while_its_watchdog_hangs() {
    row("processes::a_server_serves_on_while_its_watchdog_hangs", "watchdog SIGSTOP, then SIGCONT", "–", |backend| {
        let mut scene = Scene::start(backend);
        let measure = |rate| {
            let server = scene.agent.server();
            let records = scene.ask_during(cached(rate), |scene| {
                scene.agent.watchdog.signal(libc::SIGSTOP);
                pause(1000);
                scene.agent.watchdog.signal(libc::SIGCONT);
                pause(600);
            });
            // The lease of iptables' rules ends and comes back: connections that are open then are cut.
            let may_be_cut = if backend == "iptables" { 2 * KINDS_OF_CONNECTIONS } else { 0 };
            assert_few_connections_cut(&scene, &records, may_be_cut);
            assert_eq!(scene.agent.server(), server, "it is replaced:\n{}", scene.agent.watchdog.tail(20));
            scene.await_service();
            records.to_string()
        };
        let cells = rates(backend).map(measure).collect();
        // One that does not come back is killed sooner or later, and the next one picks up.
        scene.agent.watchdog.signal(libc::SIGSTOP);
        scene.agent.watchdog.signal(libc::SIGKILL);
        scene.agent.watchdog.wait_exit(SETTLED).expect("a killed process ends");
        scene.start_again();
        cells
    });
}

#[test]
fn sigterm_costs_nothing() {
    row("processes::sigterm_costs_nothing", "SIGTERM", "0", |backend| {
        let mut scene = Scene::start(backend);
        let measure = |rate| {
            let records = scene.ask_during(cached(rate), |scene| {
                scene.agent.watchdog.signal(libc::SIGTERM);
                scene.agent.watchdog.wait_exit(crate::cluster::SOON).expect("it ends");
                pause(400);
            });
            // A connection that is open when the rules go is picked up by kube-proxy halfway.
            assert_few_connections_cut(&scene, &records, KINDS_OF_CONNECTIONS);
            scene.start_again();
            records.to_string()
        };
        rates(backend).map(measure).collect()
    });
}

/// Or only what the machine lost: it took away the processors for so long that buffers were full, and no longer than a
/// server may hang.
pub fn assert_none_lost(scene: &Scene, records: &Records) {
    if records.lost_by_us() > 0 || records.lost() > 0 && records.longest_gap() > HANGS {
        scene.fail(records, "something is lost");
    }
}

/// The same over UDP; over TCP no more than `may_be_cut`, which were open when the rules changed.
pub fn assert_few_connections_cut(scene: &Scene, records: &Records, may_be_cut: usize) {
    assert_none_lost(scene, &records.of(|record| record.kind.transport == Transport::Udp));
    if records.lost_by_us() > may_be_cut {
        scene.fail(records, &format!("more than {may_be_cut} connections are cut"));
    }
}

/// How many servers were replaced, for whatever cause.
pub fn replaced() -> f64 {
    metric(9353, "nodelocaldns_watchdog_server_restarts_total").expect("the watchdog's metrics are served")
}
