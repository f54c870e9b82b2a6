//! Rows in which somebody asks for more than anybody can answer: names that no cache has, names that fill the cache,
//! one name without end.

use crate::flood::{Flood, addresses, addresses_of_networks, addresses_of_one_network, random_name};
use crate::neighbour::Neighbour;
use crate::outcome::Outcome;
use crate::polite::{PATIENCE, exchange};
use crate::row::row;
use crate::scene::{SERVER_IPV6, Scene, Setup, duration, shell, strength};
use crate::target::Program;
use crate::upstream::Reply;
use crate::wire::{A, Answer, Ask, Question, name, query};
use std::net::IpAddr;
use std::sync::Arc;

/// Names a second.
const RATE: u32 = 20_000;
/// Descriptors that a flood over UDP may come to: a seventh of the ports that a node has for all its programs.
const MOST_FILES: u64 = 4_096;

/// Twenty thousand names a second.
struct Names {
    addresses: Vec<IpAddr>,
    zone: &'static str,
    rate: u32,
    setup: Setup,
    /// Whether nothing of it is worth being kept.
    is_forgotten: bool,
}

impl Names {
    fn of(zone: &'static str, count: usize) -> Self {
        Self { addresses: addresses(count), zone, rate: RATE, setup: Setup::default(), is_forgotten: true }
    }
}

fn flooded(program: Program, names: Names) -> Outcome {
    let scene = Scene::start(program, names.setup);
    let flood = Flood::from(&names.addresses, scene.server);
    let neighbour = Neighbour::start();
    let (mut outcome, sent) = scene.attack(|_| {
        let asked = |_: usize| query(&random_name(names.zone), A);
        flood.send(strength(names.rate), duration(), asked)
    });
    tell(&scene, &mut outcome, names.zone, sent, neighbour.finish());
    if names.is_forgotten {
        scene.memory_goes_back(&mut outcome);
    } else {
        scene.see_memory(&mut outcome);
    }
    outcome
}

/// What each query cost the upstream, and the node's other programs.
fn tell(scene: &Scene, outcome: &mut Outcome, zone: &str, sent: usize, (wanted, failed): (u64, u64)) {
    let upstream = if zone == "evil.example" { scene.evil.as_ref() } else { Some(&scene.upstream) };
    let asked = upstream.map_or(0, |upstream| upstream.asked(zone));
    let each = asked as f64 / sent.max(1) as f64;
    outcome.tell(format!("{sent} queries, {each:.2} upstream for each"));
    outcome.hold(each <= 4.0, "one query is at most four upstream");
    outcome.tell(format!("{failed} of {wanted} sockets of others failed"));
    outcome.hold(failed == 0, "other programs have ports");
    let files = outcome.files as u64;
    outcome.hold(files <= MOST_FILES, &format!("descriptors at most {MOST_FILES}, not {files}"));
}

pub fn silent(program: Program, count: usize) -> Outcome {
    flooded(program, Names::of("silent.example", count))
}

#[test]
#[ignore = "a row of make attacks"]
fn silent_from_one_address() {
    row("misses::silent_from_one_address", "20,000 random names a second, upstream silent, 1 address", |program| {
        silent(program, 1)
    });
}

#[test]
#[ignore = "a row of make attacks"]
fn silent_from_four_addresses() {
    row(
        "misses::silent_from_four_addresses",
        "20,000 random names a second, upstream silent, 4 addresses",
        |program| silent(program, 4),
    );
}

#[test]
#[ignore = "a row of make attacks"]
fn silent_from_sixteen_addresses() {
    row(
        "misses::silent_from_sixteen_addresses",
        "20,000 random names a second, upstream silent, 16 addresses",
        |program| silent(program, 16),
    );
}

#[test]
#[ignore = "a row of make attacks"]
fn silent_from_two_hundred_addresses() {
    row(
        "misses::silent_from_two_hundred_addresses",
        "20,000 random names a second, upstream silent, 200 addresses",
        |program| silent(program, 200),
    );
}

#[test]
#[ignore = "a row of make attacks"]
fn silent_from_one_ipv6_network() {
    row(
        "misses::silent_from_one_ipv6_network",
        "20,000 random names a second, upstream silent, 200 addresses of one /64",
        |program| silent_over_ipv6(program, addresses_of_one_network(200)),
    );
}

#[test]
#[ignore = "a row of make attacks"]
fn silent_from_many_ipv6_networks() {
    row(
        "misses::silent_from_many_ipv6_networks",
        "20,000 random names a second, upstream silent, 200 /64s",
        |program| silent_over_ipv6(program, addresses_of_networks(200)),
    );
}

fn silent_over_ipv6(program: Program, addresses: Vec<IpAddr>) -> Outcome {
    let setup = Setup { server: SERVER_IPV6, ..Setup::default() };
    flooded(program, Names { addresses, setup, ..Names::of("silent.example", 0) })
}

#[test]
#[ignore = "a row of make attacks"]
fn few_ports() {
    row(
        "misses::few_ports",
        "20,000 random names a second, upstream silent, 16 addresses; the node has 2,048 ports to give out",
        |program| {
            shell("echo 40000 42047 >/proc/sys/net/ipv4/ip_local_port_range");
            silent(program, 16)
        },
    );
}

#[test]
#[ignore = "a row of make attacks"]
fn few_descriptors() {
    row(
        "misses::few_descriptors",
        "20,000 random names a second, upstream silent, 16 addresses; the program may have 1,024 descriptors",
        |program| {
            let around = |command: std::process::Command| {
                let mut limited = crate::support::tools::tool("prlimit");
                limited.arg("--nofile=1024:1024").arg(command.get_program()).args(command.get_args());
                limited
            };
            flooded(
                program,
                Names {
                    setup: Setup { around: Box::new(around), ..Setup::default() },
                    ..Names::of("silent.example", 16)
                },
            )
        },
    );
}

#[test]
#[ignore = "a row of make attacks"]
fn slow_upstream() {
    row("misses::slow_upstream", "20,000 random names a second, answered after 1.5 s, 16 addresses", |program| {
        flooded(program, Names { is_forgotten: false, ..Names::of("slow.example", 16) })
    });
}

#[test]
#[ignore = "a row of make attacks"]
fn no_places() {
    row(
        "misses::no_places",
        "2,000 random names a second, upstream silent, `max_concurrent 100`, 16 addresses",
        no_places_left,
    );
}

/// The polite client's names need places among a hundred.
pub fn no_places_left(program: Program) -> Outcome {
    let setup = Setup { forward: "max_concurrent 100".to_owned(), ..Setup::default() };
    flooded(program, Names { rate: RATE / 10, setup, ..Names::of("silent.example", 16) })
}

#[test]
#[ignore = "a row of make attacks"]
fn silent_over_tcp() {
    row(
        "misses::silent_over_tcp",
        "5,000 random names a second, upstream over TCP accepts and is silent, 16 addresses",
        |program| {
            let setup = Setup::with_evil("force_tcp", Arc::new(|_, _, _| Reply::Silence));
            flooded(program, Names { rate: RATE / 4, setup, ..Names::of("evil.example", 16) })
        },
    );
}

#[test]
#[ignore = "a row of make attacks"]
fn truncated_everywhere() {
    row(
        "misses::truncated_everywhere",
        "2,000 random names a second, upstream says TC over UDP and over TCP, 16 addresses",
        |program| {
            let truncated =
                |query: &[u8], question: &Question, _| Reply::Message(Answer::to(query, question).truncated().wire);
            let setup = Setup::with_evil("", Arc::new(truncated));
            flooded(program, Names { rate: RATE / 10, setup, ..Names::of("evil.example", 16) })
        },
    );
}

/// A client that asks for more than it can have still gets what needs no upstream.
#[test]
#[ignore = "a row of make attacks"]
fn its_own_hits() {
    row(
        "misses::its_own_hits",
        "one client: 5,000 random names a second, upstream silent, and 100 cached names a second",
        |program| {
            let scene = Scene::start(program, Setup::default());
            let flood = Flood::from(&addresses(1), scene.server);
            let (mut outcome, (sent, hits, lost)) = scene.attack(|scene| {
                std::thread::scope(|scope| {
                    let hits = scope.spawn(|| {
                        let socket = crate::polite::udp_from(addresses(1)[0], scene.server);
                        let (started, mut hits, mut lost) = (std::time::Instant::now(), 0, 0);
                        while started.elapsed() < duration() {
                            hits += 1;
                            let asked = query(&format!("hot{}.polite.example", hits % 50), A);
                            lost += usize::from(exchange(&socket, &asked, PATIENCE).is_none());
                            std::thread::sleep(std::time::Duration::from_millis(10));
                        }
                        (hits, lost)
                    });
                    let sent = flood.send(strength(RATE / 4), duration(), |_| query(&random_name("silent.example"), A));
                    let (hits, lost) = hits.join().expect("it does not panic");
                    (sent, hits, lost)
                })
            });
            outcome.tell(format!("{sent} names"));
            outcome.tell(format!("{lost} of {hits} own hits lost"));
            outcome.hold_unless_starved(lost == 0, "a client's hits are not limited by its misses");
            scene.memory_goes_back(&mut outcome);
            outcome
        },
    );
}

#[test]
#[ignore = "a row of make attacks"]
fn nobody_there() {
    row(
        "misses::nobody_there",
        "20,000 random names a second, nobody at the upstream's port, 16 addresses",
        |program| {
            let setup = Setup { evil: Some((String::new(), None)), ..Setup::default() };
            flooded(program, Names { setup, ..Names::of("evil.example", 16) })
        },
    );
}

#[test]
#[ignore = "a row of make attacks"]
fn no_such_names() {
    row("misses::no_such_names", "20,000 random names a second that do not exist, 16 addresses", |program| {
        flooded(program, Names { is_forgotten: false, ..Names::of("nx.example", 16) })
    });
}

#[test]
#[ignore = "a row of make attacks"]
fn failures() {
    row("misses::failures", "20,000 random names a second that fail in five ways, 16 addresses", |program| {
        flooded(program, Names { is_forgotten: false, ..Names::of("broken.example", 16) })
    });
}

#[test]
#[ignore = "a row of make attacks"]
fn the_cache_is_filled() {
    row("misses::the_cache_is_filled", "20,000 random names a second that exist, 16 addresses", |program| {
        flooded(program, Names { is_forgotten: false, ..Names::of("fill.example", 16) })
    });
}

#[test]
#[ignore = "a row of make attacks"]
fn the_cache_is_filled_with_much() {
    row(
        "misses::the_cache_is_filled_with_much",
        "300 answers of 64 KiB a second, by way of TCP, 16 addresses",
        |program| big_answers(program, strength(300)),
    );
}

/// Asked over UDP, and over TCP upstream, as the answer is too long.
pub fn big_answers(program: Program, rate: u32) -> Outcome {
    let setup = Setup { forward: "force_tcp".to_owned(), ..Setup::default() };
    let scene = Scene::start(program, setup);
    let flood = Flood::from(&addresses(16), scene.server);
    let neighbour = Neighbour::start();
    let (mut outcome, sent) = scene.attack(|_| {
        flood.send(rate, duration(), |number| {
            query(&random_name(["big.example", "many.example"][number % 2]), [16, A][number % 2])
        })
    });
    tell(&scene, &mut outcome, "big.example", sent, neighbour.finish());
    scene.see_memory(&mut outcome);
    outcome
}

#[test]
#[ignore = "a row of make attacks"]
fn types_and_classes() {
    row(
        "misses::types_and_classes",
        "20,000 questions a second of all types and flags about one silent name, 16 addresses",
        |program| {
            let scene = Scene::start(program, Setup::default());
            let flood = Flood::from(&addresses(16), scene.server);
            let neighbour = Neighbour::start();
            let asked = name("one.silent.example");
            let (mut outcome, sent) = scene.attack(|_| {
                flood.send(strength(RATE), duration(), |_| {
                    let ask = Ask {
                        recursion: fastrand::bool(),
                        checking_disabled: fastrand::bool(),
                        ..Ask::with_payload(1232)
                    };
                    ask.about(&asked, fastrand::u16(..))
                })
            });
            tell(&scene, &mut outcome, "silent.example", sent, neighbour.finish());
            scene.memory_goes_back(&mut outcome);
            outcome
        },
    );
}

#[test]
#[ignore = "a row of make attacks"]
fn one_name_from_one_address() {
    row("misses::one_name_from_one_address", "50,000 queries a second for one cached name, 1 address", |program| {
        hot_name(program, 1)
    });
}

#[test]
#[ignore = "a row of make attacks"]
fn one_name_from_two_hundred_addresses() {
    row(
        "misses::one_name_from_two_hundred_addresses",
        "50,000 queries a second for one cached name, 200 addresses",
        |program| hot_name(program, 200),
    );
}

fn hot_name(program: Program, count: usize) -> Outcome {
    let scene = Scene::start(program, Setup::default());
    let flood = Flood::from(&addresses(count), scene.server);
    let mut asked = query("hot1.polite.example", A);
    let (mut outcome, sent) = scene.attack(|_| {
        flood.send(strength(50_000), duration(), |number| {
            let [.., high, low] = number.to_be_bytes();
            asked[..2].copy_from_slice(&[high, low]);
            asked.clone()
        })
    });
    outcome.tell(format!("{sent} queries"));
    scene.memory_goes_back(&mut outcome);
    outcome
}
