//! Rows in which clients hold TCP connections, and do whatever costs the server most.

use crate::crowd::{Manners, crowd};
use crate::flood::{addresses, addresses_of_networks, addresses_of_one_network, random_name};
use crate::hostile::{CHAINS, POINTERS, SECTIONS};
use crate::outcome::Outcome;
use crate::raw::Raw;
use crate::row::row;
use crate::scene::{SERVER_IPV6, Scene, Setup, duration, shell, strength};
use crate::target::Program;
use crate::wire::{A, Question, TXT, framed, query};
use std::net::{IpAddr, Ipv4Addr};

/// Connections from so many addresses.
pub fn held(program: Program, count: u32, from: usize, manners: &Manners) -> Outcome {
    held_from(program, Setup::default(), count, &addresses(from), manners)
}

fn held_from(program: Program, setup: Setup, count: u32, addresses: &[IpAddr], manners: &Manners) -> Outcome {
    let scene = Scene::start(program, setup);
    let (mut outcome, told) =
        scene.attack(|scene| crowd(addresses, scene.server, strength(count), duration(), manners));
    outcome.tell(told.to_string());
    scene.memory_goes_back(&mut outcome);
    outcome
}

fn silent_query() -> Vec<u8> {
    framed(&query(&random_name("silent.example"), A))
}

/// One query in flight each, and one more in one round of ten.
pub const BUSY: Manners = Manners {
    greeting: |_| silent_query(),
    then: |_| now_and_then(silent_query),
    is_deaf: false,
    is_fickle: false,
    ends: false,
};

fn now_and_then(make: fn() -> Vec<u8>) -> Vec<u8> {
    if fastrand::u8(..10) == 0 { make() } else { Vec::new() }
}

/// Two hundred queries in flight each, and as many more in each round.
pub const PIPELINED_MISSES: Manners = Manners {
    greeting: |_| many_silent_queries(),
    then: |_| many_silent_queries(),
    is_deaf: false,
    is_fickle: false,
    ends: false,
};

fn many_silent_queries() -> Vec<u8> {
    (0..strength(200)).flat_map(|_| silent_query()).collect()
}

/// A message of which one octet is yet to come.
pub const KEPT_CLAIMS: Manners = Manners {
    greeting: |_| [&60_000_u16.to_be_bytes()[..], &[b'a'; 59_999]].concat(),
    then: |_| Vec::new(),
    is_deaf: false,
    is_fickle: false,
    ends: false,
};

/// A hundred answers of 64 KiB each, of which nothing is read.
pub const SLOW_READERS: Manners = Manners {
    greeting: |_| framed(&query("hot.big.example", TXT)).repeat(100),
    then: |_| Vec::new(),
    is_deaf: true,
    is_fickle: false,
    ends: false,
};

#[test]
#[ignore = "a row of make attacks"]
fn idle() {
    row("connections::idle", "15,000 idle TCP connections from 200 addresses", |program| {
        held(program, 15_000, 200, &Manners::default())
    });
}

#[test]
#[ignore = "a row of make attacks"]
fn idle_from_one_address() {
    row("connections::idle_from_one_address", "15,000 idle TCP connections from 1 address", |program| {
        held(program, 15_000, 1, &Manners::default())
    });
}

#[test]
#[ignore = "a row of make attacks"]
fn half_sent() {
    row("connections::half_sent", "6,000 TCP connections that send one octet, 200 addresses", |program| {
        held(program, 6_000, 200, &Manners { greeting: |_| vec![0], ..Manners::default() })
    });
}

#[test]
#[ignore = "a row of make attacks"]
fn claims() {
    row(
        "connections::claims",
        "3,000 TCP connections that announce 65,535 octets and send one, 200 addresses",
        |program| held(program, 3_000, 200, &Manners { greeting: |_| vec![0xff, 0xff, b'x'], ..Manners::default() }),
    );
}

#[test]
#[ignore = "a row of make attacks"]
fn kept_claims() {
    row(
        "connections::kept_claims",
        "4,000 TCP connections that announce 60,000 octets and send all but one, 200 addresses",
        |program| held(program, 4_000, 200, &KEPT_CLAIMS),
    );
}

#[test]
#[ignore = "a row of make attacks"]
fn slow_senders() {
    row("connections::slow_senders", "3,000 TCP connections that send an octet in 100 ms, 200 addresses", |program| {
        held(program, 3_000, 200, &Manners { greeting: |_| vec![4, 0], then: |_| vec![b'a'], ..Manners::default() })
    });
}

#[test]
#[ignore = "a row of make attacks"]
fn busy_from_four_addresses() {
    row(
        "connections::busy_from_four_addresses",
        "4,200 TCP connections with a query for a silent name each, 4 addresses",
        |program| held(program, 4_200, 4, &BUSY),
    );
}

#[test]
#[ignore = "a row of make attacks"]
fn busy_from_two_hundred_addresses() {
    row(
        "connections::busy_from_two_hundred_addresses",
        "4,200 TCP connections with a query for a silent name each, 200 addresses",
        |program| held(program, 4_200, 200, &BUSY),
    );
}

#[test]
#[ignore = "a row of make attacks"]
fn pipelined_misses() {
    row(
        "connections::pipelined_misses",
        "64 TCP connections with 200 queries for silent names each 100 ms, 16 addresses",
        |program| held(program, 64, 16, &PIPELINED_MISSES),
    );
}

#[test]
#[ignore = "a row of make attacks"]
fn pipelined_hits() {
    row(
        "connections::pipelined_hits",
        "32 TCP connections with 500 queries for a cached name each 100 ms, 16 addresses",
        |program| {
            let many = |_: usize| framed(&query("hot1.polite.example", A)).repeat(500);
            held(program, 32, 16, &Manners { greeting: many, then: many, ..Manners::default() })
        },
    );
}

#[test]
#[ignore = "a row of make attacks"]
fn slow_readers() {
    row(
        "connections::slow_readers",
        "1,000 TCP connections that read nothing of 100 answers of 64 KiB, 200 addresses",
        |program| held(program, 1_000, 200, &SLOW_READERS),
    );
}

#[test]
#[ignore = "a row of make attacks"]
fn churn() {
    row("connections::churn", "3,000 TCP connections at a time that ask and reset, 200 addresses", |program| {
        held(program, 3_000, 200, &Manners { greeting: |_| silent_query(), is_fickle: true, ..Manners::default() })
    });
}

#[test]
#[ignore = "a row of make attacks"]
fn empty_messages() {
    row(
        "connections::empty_messages",
        "100 TCP connections that pour messages of no octets, 16 addresses",
        |program| {
            let many = |_: usize| vec![0; 65_536];
            held(program, 100, 16, &Manners { greeting: many, then: many, ..Manners::default() })
        },
    );
}

#[test]
#[ignore = "a row of make attacks"]
fn junk() {
    row("connections::junk", "500 TCP connections that pour junk, HTTP and TLS, 16 addresses", |program| {
        let many = |number: usize| match number % 3 {
            0 => b"GET / HTTP/1.1\r\nHost: x\r\n\r\n".repeat(500),
            1 => [0x16, 3, 1, 2, 0, 1, 0, 1, 0xfc, 3, 3].repeat(500),
            _ => [&[0, 12], &[0xff; 12][..]].concat().repeat(500),
        };
        held(program, 500, 16, &Manners { greeting: many, then: many, ..Manners::default() })
    });
}

#[test]
#[ignore = "a row of make attacks"]
fn busy_from_one_ipv6_network() {
    row(
        "connections::busy_from_one_ipv6_network",
        "4,200 TCP connections with a query for a silent name each, 200 addresses of one /64",
        |program| over_ipv6(program, &addresses_of_one_network(200)),
    );
}

#[test]
#[ignore = "a row of make attacks"]
fn busy_from_many_ipv6_networks() {
    row(
        "connections::busy_from_many_ipv6_networks",
        "4,200 TCP connections with a query for a silent name each, 200 /64s",
        |program| over_ipv6(program, &addresses_of_networks(200)),
    );
}

fn over_ipv6(program: Program, addresses: &[IpAddr]) -> Outcome {
    held_from(program, Setup { server: SERVER_IPV6, ..Setup::default() }, 4_200, addresses, &BUSY)
}

#[test]
#[ignore = "a row of make attacks"]
fn large_queries() {
    row(
        "connections::large_queries",
        "32 TCP connections with two queries of 64 KiB each 100 ms, full of aliases, pointers, options",
        |program| {
            let many = |number: usize| -> Vec<u8> {
                let plain = query(&random_name("polite.example"), A);
                let question = Question::of(&plain).expect("it is ours");
                let kinds: Vec<_> = CHAINS.iter().chain(POINTERS).chain(SECTIONS).collect();
                let large = |offset: usize| {
                    let (_, make) = kinds[(number + offset) % kinds.len()];
                    let mut wire = make(&plain, &question, 65_535);
                    // What was an answer is a query; every other one with all of it among the additional records.
                    wire[2] = 1;
                    if offset.is_multiple_of(2) && wire[6..8] != [0, 0] {
                        wire.copy_within(6..8, 10);
                        wire[6..10].fill(0);
                    }
                    framed(&wire)
                };
                (0..2).flat_map(|offset| large(offset + fastrand::usize(..16))).collect()
            };
            held(program, 32, 16, &Manners { greeting: many, then: many, ..Manners::default() })
        },
    );
}

/// What the watchdog asks its server for.
#[test]
#[ignore = "a row of make attacks"]
fn the_watchdogs_question() {
    row(
        "connections::the_watchdogs_question",
        "500 TCP connections that ask for the watchdog's own record 20 times each 100 ms, 16 addresses",
        |program| {
            let many = |_: usize| {
                let mut asked = query("probe.nodelocaldns", TXT);
                let class = asked.len() - 1;
                asked[class] = 3;
                framed(&asked).repeat(20)
            };
            held(program, 500, 16, &Manners { greeting: many, then: many, ..Manners::default() })
        },
    );
}

#[test]
#[ignore = "a row of make attacks"]
fn half_open() {
    row("connections::half_open", "4,000 SYN a second from addresses that never answer", |program| {
        let scene = Scene::start(program, Setup::default());
        let port = scene.server.port();
        // What the addresses would say to the server's answers.
        shell(&format!(
            "nft 'add table ip silence {{ chain out {{ type filter hook output priority 0; ip daddr 127.65.0.0/16 tcp sport {port} drop; }}; }}'"
        ));
        let raw = Raw::open();
        let (mut outcome, sent) = scene.attack(|_| {
            let (started, mut sent) = (std::time::Instant::now(), 0_u32);
            while started.elapsed() < duration() {
                while f64::from(sent) < started.elapsed().as_secs_f64() * f64::from(strength(4_000)) {
                    let [_, _, high, low] = sent.to_be_bytes();
                    raw.send_syn(
                        (Ipv4Addr::new(127, 65, high, low), fastrand::u16(1024..)),
                        (Ipv4Addr::LOCALHOST, port),
                    );
                    sent += 1;
                }
                std::thread::sleep(std::time::Duration::from_millis(1));
            }
            sent
        });
        outcome.tell(format!("{sent} SYN"));
        scene.memory_goes_back(&mut outcome);
        outcome
    });
}

#[test]
#[ignore = "a row of make attacks"]
fn half_closed() {
    row(
        "connections::half_closed",
        "2,000 TCP connections that ask for 20 silent names, and say that no more will come, 200 addresses",
        |program| {
            let greeting = |_: usize| (0..20).flat_map(|_| silent_query()).collect();
            held(program, 2_000, 200, &Manners { greeting, ends: true, ..Manners::default() })
        },
    );
}
