//! Rows in which an upstream's answers cost as much to judge as they can.

use crate::crowd::{Manners, crowd};
use crate::flood::{Flood, addresses};
use crate::hostile::{CHAINS, Kind, POINTERS, SECTIONS};
use crate::outcome::Outcome;
use crate::polite::{ask_on_a_connection, udp_from};
use crate::row::row;
use crate::scene::{Scene, Setup, duration, strength};
use crate::target::Program;
use crate::upstream::{Reply, Script, Via};
use crate::wire::{A, AAAA, ANY, Ask, CNAME, Named, TXT, framed, name, query};
use std::net::Ipv4Addr;
use std::sync::Arc;
use std::time::{Duration, Instant};

const TYPES: [u16; 6] = [A, AAAA, CNAME, TXT, ANY, 65];

/// Between two hostile answers.
const INTERVAL: Duration = Duration::from_millis(100);
/// Processor time that one may cost, in milliseconds, with the polite client's queries meanwhile: a hundredth of what
/// judging by squares takes.
const MOST_MILLISECONDS: f64 = if cfg!(debug_assertions) { 100.0 } else { 30.0 };

#[test]
#[ignore = "a row of make attacks"]
fn chains_over_tcp() {
    measure("answers::chains_over_tcp", "64 KiB of aliases over TCP, in five orders", CHAINS, Via::Tcp);
}

#[test]
#[ignore = "a row of make attacks"]
fn chains_over_udp() {
    measure("answers::chains_over_udp", "64 KiB of aliases over UDP, in five orders", CHAINS, Via::Udp);
}

#[test]
#[ignore = "a row of make attacks"]
fn pointers_over_tcp() {
    measure(
        "answers::pointers_over_tcp",
        "64 KiB of names of a hundred pointers or labels each, over TCP",
        POINTERS,
        Via::Tcp,
    );
}

#[test]
#[ignore = "a row of make attacks"]
fn pointers_over_udp() {
    measure(
        "answers::pointers_over_udp",
        "64 KiB of names of a hundred pointers or labels each, over UDP",
        POINTERS,
        Via::Udp,
    );
}

#[test]
#[ignore = "a row of make attacks"]
fn sections_over_tcp() {
    let attack = "64 KiB of DNAME, SOA and NS, empty records, OPT, false counts over TCP";
    measure("answers::sections_over_tcp", attack, SECTIONS, Via::Tcp);
}

#[test]
#[ignore = "a row of make attacks"]
fn sections_over_udp() {
    let attack = "64 KiB of DNAME, SOA and NS, empty records, OPT, false counts over UDP";
    measure("answers::sections_over_udp", attack, SECTIONS, Via::Udp);
}

fn measure(name: &str, attack: &str, kinds: &'static [Named<Kind>], via: Via) {
    row(name, attack, |program| hostile_answers(program, kinds, via));
}

/// Ten a second, of each kind in turn.
pub fn hostile_answers(program: Program, kinds: &'static [Named<Kind>], via: Via) -> Outcome {
    let options = if via == Via::Tcp { "force_tcp" } else { "" };
    let scene = Scene::start(program, Setup::with_evil(options, of_kinds(kinds)));
    let socket = udp_from(Ipv4Addr::new(127, 1, 0, 1).into(), scene.server);
    let (mut outcome, answers) = scene.attack(|scene| {
        let ends = Instant::now() + 2 * duration();
        let mut number = 0;
        while Instant::now() < ends {
            let name = format!("k{}-{:x}.evil.example", number % kinds.len(), fastrand::u32(..));
            // The type decides where aliases may lead.
            let rtype = TYPES[number / kinds.len() % TYPES.len()];
            socket.send(&query(&name, rtype)).expect("the server listens");
            number += 1;
            std::thread::sleep(INTERVAL);
        }
        let evil = scene.evil.as_ref().expect("it was set up");
        evil.asked("evil.example").max(1)
    });
    let milliseconds = outcome.processor * 2.0 * duration().as_secs_f64() * 1e3 / answers as f64;
    outcome.tell(format!("{milliseconds:.1} ms of a processor for each of {answers}"));
    outcome.hold(milliseconds < MOST_MILLISECONDS, "an answer of 64 KiB is judged in time that grows with its octets");
    scene.memory_goes_back(&mut outcome);
    outcome
}

/// The kind's number is in the name that is asked for.
fn of_kinds(kinds: &'static [Named<Kind>]) -> Script {
    Arc::new(move |query, question, via| {
        let number = question.host().strip_prefix('k').and_then(|rest| rest.split('-').next()?.parse::<usize>().ok());
        // Over UDP IP and UDP have their headers.
        let limit = if via == Via::Tcp { 65_535 } else { 65_507 };
        match number {
            Some(number) => Reply::Message(kinds[number % kinds.len()].1(query, question, limit)),
            None => Reply::Silence,
        }
    })
}

#[test]
#[ignore = "a row of make attacks"]
fn large_answers_from_the_cache() {
    let attack = "5,000 queries a second with an offer of 65,535 octets, and 50 TCP connections with 10 each 100 ms, for a cached answer of 64 KiB";
    row("answers::large_answers_from_the_cache", attack, |program| {
        let scene = Scene::start(program, Setup::default());
        _ = ask_on_a_connection(scene.server, &query("hot.big.example", TXT));
        let (flood, addresses) = (Flood::from(&addresses(16), scene.server), addresses(16));
        let asked = Ask::with_payload(65_535).about(&name("hot.big.example"), TXT);
        let many = |_: usize| framed(&query("hot.big.example", TXT)).repeat(10);
        let (mut outcome, (sent, told)) = scene.attack(|scene| {
            std::thread::scope(|scope| {
                let manners = Manners { greeting: many, then: many, ..Manners::default() };
                let connected = scope.spawn(|| crowd(&addresses, scene.server, strength(50), duration(), &{ manners }));
                let sent = flood.send(strength(5_000), duration(), |_| asked.clone());
                (sent, connected.join().expect("it does not panic"))
            })
        });
        outcome.tell(format!("{sent} queries; {told}"));
        scene.see_memory(&mut outcome);
        outcome
    });
}
