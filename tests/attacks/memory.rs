//! Rows in which the program's container may have 64 MiB. They need root, as they make a cgroup.

use crate::cgroup::Cgroup;
use crate::connections::{BUSY, PIPELINED_MISSES, SLOW_READERS};
use crate::crowd::{Manners, crowd};
use crate::flood::{Flood, addresses, random_name};
use crate::outcome::Outcome;
use crate::row::row;
use crate::scene::{Scene, Setup, duration, strength};
use crate::target::Program;
use crate::wire::{A, TXT, query};
use std::sync::Arc;

/// Octets.
const LIMIT: u64 = 64 << 20;

fn limited(program: Program, setup: Setup, attack: impl FnOnce(&Scene) -> String + Send) -> Outcome {
    let cgroup = Arc::new(Cgroup::make());
    cgroup.set_limit(LIMIT);
    let inside = cgroup.clone();
    let around = Box::new(move |command| inside.command(command));
    let scene = Scene::start(program, Setup { around, ..setup });
    let (mut outcome, told) = scene.attack(attack);
    outcome.tell(told);
    outcome.at_most("kills for want of memory", cgroup.killed(), 0);
    scene.see_memory(&mut outcome);
    outcome
}

fn flooded(program: Program, forward: &str, rate: u32, make: fn(usize) -> Vec<u8>) -> Outcome {
    limited(program, Setup { forward: forward.to_owned(), ..Setup::default() }, |scene| {
        let flood = Flood::from(&addresses(16), scene.server);
        format!("{} queries", flood.send(strength(rate), 2 * duration(), make))
    })
}

fn crowded(program: Program, count: u32, manners: &Manners) -> Outcome {
    limited(program, Setup::default(), |scene| {
        crowd(&addresses(200), scene.server, strength(count), 2 * duration(), manners).to_string()
    })
}

#[test]
#[ignore = "a row of make attacks"]
fn silent_names() {
    row("memory::silent_names", "64 MiB: 20,000 random names a second, upstream silent, 16 addresses", |program| {
        flooded(program, "", 20_000, |_| query(&random_name("silent.example"), A))
    });
}

#[test]
#[ignore = "a row of make attacks"]
fn names_that_are_kept() {
    row("memory::names_that_are_kept", "64 MiB: 20,000 random names a second that exist, 16 addresses", |program| {
        flooded(program, "", 20_000, |_| query(&random_name("fill.example"), A))
    });
}

#[test]
#[ignore = "a row of make attacks"]
fn large_answers() {
    row("memory::large_answers", "64 MiB: 300 answers of 64 KiB a second, 16 addresses", |program| {
        flooded(program, "force_tcp", 300, |_| query(&random_name("big.example"), TXT))
    });
}

#[test]
#[ignore = "a row of make attacks"]
fn busy_connections() {
    row(
        "memory::busy_connections",
        "64 MiB: 4,200 TCP connections with a query for a silent name each, 200 addresses",
        |program| crowded(program, 4_200, &BUSY),
    );
}

#[test]
#[ignore = "a row of make attacks"]
fn pipelined_misses() {
    row(
        "memory::pipelined_misses",
        "64 MiB: 64 TCP connections with 200 queries for silent names each 100 ms, 64 addresses",
        |program| crowded(program, 64, &PIPELINED_MISSES),
    );
}

#[test]
#[ignore = "a row of make attacks"]
fn slow_readers() {
    row(
        "memory::slow_readers",
        "64 MiB: 1,000 TCP connections that read nothing of 100 answers of 64 KiB, 200 addresses",
        |program| crowded(program, 1_000, &SLOW_READERS),
    );
}

#[test]
#[ignore = "a row of make attacks"]
fn claims() {
    row(
        "memory::claims",
        "64 MiB: 4,000 TCP connections that announce 60,000 octets and send all but one, 200 addresses",
        |program| crowded(program, 4_000, &crate::connections::KEPT_CLAIMS),
    );
}

#[test]
#[ignore = "a row of make attacks"]
fn all_kinds() {
    row("memory::all_kinds", "64 MiB: all at once, as in the row of that", |program| {
        limited(program, crate::together::setup(), crate::together::all_of_them)
    });
}
