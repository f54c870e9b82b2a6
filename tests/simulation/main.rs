//! The whole as a model: the watchdog's real state machine and the node's real rules, with a model of everything around
//! them (processes, kernel, clients, KubeDNS) on a virtual clock, and faults drawn from a seed.
//!
//! Held in every run: no client is without an answer for longer than the fault table allows (`faults::Fault::allows`),
//! where nothing may be lost nothing is, and after the last fault the node answers everybody again.
//!
//! A failure names its seed and tells what happened; `SIMULATION_SEED=n cargo test --test simulation` runs that one
//! alone.

mod agent;
mod client;
mod faults;
mod inject;
mod kernel;
mod node_thread;
mod prober;
mod server;
mod world;

use nodelocaldns::node::{Hook, PacketEnd};
use nodelocaldns::watchdog::state::Timing;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;
use world::{Design, World};

/// Runs, each with a seed of its own. A design with a fault is caught within 2,000 ([`assert_caught`]).
const RUNS: u64 = 3_000;
/// Runs of `make simulation`.
const ALL_RUNS: u64 = 10_000;

/// Every run up to the first that fails, on all processors; its seed and why.
fn first_failure(design: Design, runs: u64) -> Option<(u64, String)> {
    let next = AtomicU64::new(0);
    let lowest = AtomicU64::new(u64::MAX);
    let work = || {
        let mut found = None;
        loop {
            let seed = next.fetch_add(1, Ordering::Relaxed);
            if seed >= runs.min(lowest.load(Ordering::Relaxed)) {
                return found;
            }
            if let Err(failure) = World::new(seed, design, false).run().0 {
                lowest.fetch_min(seed, Ordering::Relaxed);
                found = Some((seed, failure));
            }
        }
    };
    let threads = std::thread::available_parallelism().map_or(1, usize::from);
    std::thread::scope(|scope| {
        let workers: Vec<_> = (0..threads).map(|_| scope.spawn(work)).collect();
        workers.into_iter().filter_map(|worker| worker.join().expect("a run does not panic")).min()
    })
}

#[test]
fn in_thousands_of_runs_nobody_waits_longer_for_an_answer_than_the_fault_table_allows() {
    let seed = std::env::var("SIMULATION_SEED").map(|seed| seed.parse().expect("SIMULATION_SEED is a number"));
    let is_whole = std::env::var_os("SIMULATION").is_some_and(|value| value == "whole");
    let runs = if is_whole { ALL_RUNS } else { RUNS };
    let Some(seed) = seed.ok().or_else(|| first_failure(Design::default(), runs).map(|(seed, _)| seed)) else { return };
    let (outcome, trace) = World::new(seed, Design::default(), true).run();
    println!("{}", trace.join("\n"));
    if let Err(failure) = outcome {
        panic!("SIMULATION_SEED={seed}: {failure}\n{}", trace.join("\n"));
    }
}

/// What is wrong with `design` is seen in few runs.
fn assert_caught(design: Design) {
    assert!(first_failure(design, 2000).is_some());
}

#[test]
fn a_watchdog_that_never_withdraws_is_caught() {
    assert_caught(Design { withdraws: false, ..Design::default() });
}

#[test]
fn a_grace_that_is_too_long_is_caught() {
    let timing = Timing { restart_grace: Duration::from_millis(300), ..Timing::default() };
    assert_caught(Design { timing, ..Design::default() });
}

#[test]
fn patience_with_a_hanging_server_is_caught() {
    let timing = Timing { silence_of_all: Duration::from_millis(900), ..Timing::default() };
    assert_caught(Design { timing, ..Design::default() });
}

#[test]
fn replies_that_are_tracked_are_caught() {
    assert_caught(Design {
        is_set: |rule| rule.end == PacketEnd::Destination || !rule.hook.is_raw(),
        ..Design::default()
    });
}

/// Why the server holds them too: its late replies, tracked, keep clients' ports on a node where nobody answers.
#[test]
fn rules_that_go_before_the_server_are_caught() {
    assert_caught(Design { holds_rules: false, orphaned: Duration::from_millis(20), ..Design::default() });
}

/// The lease is renewed by probes: rules that match without it outlast a killed watchdog.
#[test]
fn rules_of_iptables_without_their_lease_are_caught() {
    assert_caught(Design { has_lease: false, ..Design::default() });
}

#[test]
fn a_host_network_that_is_not_intercepted_is_caught() {
    assert_caught(Design {
        is_set: |rule| rule.hook != Hook::RawOutput || rule.end == PacketEnd::Source,
        ..Design::default()
    });
}
