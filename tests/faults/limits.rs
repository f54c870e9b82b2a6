//! Rows in which something runs out.

use crate::cgroup::Cgroup;
use crate::cluster::{CLUSTER_IPS, Transport, connected, program};
use crate::processes::{assert_none_lost, replaced};
use crate::row::row;
use crate::scene::{Scene, cached, corefile, rates};
use crate::support::client::metric;
use crate::support::server::wait_until;
use crate::wire::question;
use rustix::process::{Pid, Resource, Rlimit, prlimit};
use std::net::{SocketAddr, TcpStream, UdpSocket};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

/// Connections that clients open and hold.
const CONNECTIONS: usize = 300;
/// Files that the server may open beyond those it has.
const SPARE_FILES: u64 = 20;

#[test]
fn tcp_clients_that_take_all_files_cost_udp_nothing() {
    row(
        "limits::tcp_clients_that_take_all_files_cost_udp_nothing",
        "file descriptors exhausted by TCP clients",
        "–",
        |backend| {
            let mut scene = Scene::start(backend);
            let measure = |rate| {
                let began = Instant::now();
                let mut released = Duration::ZERO;
                let server = scene.agent.server();
                let records = scene.ask_during(cached(rate), |scene| {
                    let before = limit_files(server, open_files(server) + SPARE_FILES);
                    let held = open_connections(scene);
                    std::thread::sleep(Duration::from_millis(500));
                    limit_files(server, before);
                    drop(held);
                    released = began.elapsed();
                    std::thread::sleep(Duration::from_millis(700));
                });
                let udp = records.of(|record| record.kind.transport == Transport::Udp);
                assert_none_lost(&scene, &udp);
                assert_none_lost(&scene, &records.after(released + Duration::from_millis(300)));
                assert_eq!(
                    (replaced(), scene.agent.server()),
                    (0.0, server),
                    "the server is replaced, and its cache lost"
                );
                records.to_string()
            };
            rates(backend).map(measure).collect()
        },
    );
}

/// Idle ones.
fn open_connections(scene: &Scene) -> Vec<TcpStream> {
    let server = SocketAddr::new(CLUSTER_IPS[0].parse().expect("an address"), 53);
    let connect = || TcpStream::connect_timeout(&server, Duration::from_millis(200)).ok();
    scene.network.pod.visit(|| (0..CONNECTIONS).filter_map(|_| connect()).collect())
}

fn open_files(pid: i32) -> u64 {
    let files = std::fs::read_dir(format!("/proc/{pid}/fd")).expect("the server lives and is ours");
    files.count() as u64
}

/// Sets how many files a process may have open; what it was before.
fn limit_files(pid: i32, limit: u64) -> u64 {
    let limits = std::fs::read_to_string(format!("/proc/{pid}/limits")).expect("the server lives");
    let files = limits.lines().find_map(|line| line.strip_prefix("Max open files")).expect("the kernel tells it");
    // The hard limit may not be raised.
    let [before, most] = [0, 1].map(|column| files.split_whitespace().nth(column).and_then(|word| word.parse().ok()));
    let pid = Pid::from_raw(pid).expect("a process ID");
    let limited = prlimit(Some(pid), Resource::Nofile, Rlimit { current: Some(limit), maximum: most });
    limited.unwrap_or_else(|e| panic!("limiting the server's files: {e}"));
    before.expect("files are never without limit")
}

/// Of one listen address; all three share the cache.
const CACHED_OCTETS: &str = "nodelocaldns_cache_bytes{server=\"dns://10.96.0.10:53\"}";

/// What the container may hold beyond what it has at the start.
const ROOM: u64 = 64 << 20;
/// Octets in the cache that are enough to see some of them given up.
const FILLED: f64 = 16e6;
/// Until so much has been asked for and given up, on a machine that others use too.
const PATIENCE: Duration = Duration::from_secs(60);

/// Answers of 6 KiB for names that nobody has asked for, and `--cache-memory` promises more than there is; then there
/// is less.
#[test]
fn a_full_container_costs_the_cache_room_and_nobody_an_answer() {
    row(
        "limits::a_full_container_costs_the_cache_room_and_nobody_an_answer",
        "memory limit of the cgroup reached by load",
        "–",
        |backend| {
            let cgroup = Cgroup::make();
            let template = corefile("cache 3600 {\n  success 1000000\n }");
            let mut scene = Scene::with(backend, &template, cgroup.command(program()), &["--cache-memory", "1Gi"]);
            let measure = |rate| {
                cgroup.set_limit(cgroup.held() + ROOM);
                let (server, killed) = (scene.agent.server(), cgroup.killed());
                let caches_hold = |is_enough: fn(f64) -> bool| metric(9253, CACHED_OCTETS).is_some_and(is_enough);
                let mut came = (false, false);
                let records = scene.ask_during(cached(rate), |scene| {
                    let stop = AtomicBool::new(false);
                    std::thread::scope(|scope| {
                        scope.spawn(|| flood(scene, &stop));
                        let is_filled = wait_until(PATIENCE, || caches_hold(|octets| octets > FILLED));
                        // Above the seven eighths at which caches give up some.
                        cgroup.set_limit(cgroup.held() / 9 * 10);
                        let is_less = wait_until(PATIENCE, || caches_hold(|octets| octets < FILLED * 0.9));
                        std::thread::sleep(Duration::from_millis(500));
                        stop.store(true, Ordering::Relaxed);
                        came = (is_filled, is_less);
                    });
                });
                if came != (true, true) {
                    scene.fail(&records, &format!("the caches are full, then hold less: {came:?}"));
                }
                let is_same = scene.agent.server() == server && cgroup.killed() == killed;
                if !is_same {
                    scene.fail(&records, "the server is killed");
                }
                assert_none_lost(&scene, &records);
                records.to_string()
            };
            let cells = rates(backend).map(measure).collect();
            assert!(
                scene.agent.watchdog.output().contains("the caches give up some"),
                "{}",
                scene.agent.watchdog.tail(20)
            );
            // Killed all the same, it is replaced as in the first row.
            let server = scene.agent.server();
            cgroup.kill_by_exhaustion(server);
            scene.await_service();
            assert!(scene.agent.server() != server && replaced() == 1.0, "{}", scene.agent.watchdog.tail(20));
            cells
        },
    );
}

/// Asks for big answers under new names until told to stop: some 1,000 a second, which a debug build can, and no more
/// than it does answer: it is memory that is to run out.
fn flood(scene: &Scene, stop: &AtomicBool) {
    let sockets = scene.network.pod.visit(|| CLUSTER_IPS.map(connected));
    for socket in &sockets {
        socket.set_read_timeout(Some(Duration::from_millis(200))).expect("a timeout above zero");
    }
    let ask = |socket: &UdpSocket| {
        let mut wire = question(&format!("n{}.big.example", fastrand::u64(..)));
        wire[..2].copy_from_slice(&fastrand::u16(..).to_be_bytes());
        _ = socket.send(&wire);
    };
    while !stop.load(Ordering::Relaxed) {
        for socket in &sockets {
            ask(socket);
            ask(socket);
        }
        std::thread::sleep(Duration::from_millis(4));
        // Whatever comes back is of no interest.
        for socket in &sockets {
            _ = socket.recv(&mut []);
            _ = socket.recv(&mut []);
        }
    }
}
