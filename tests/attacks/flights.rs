//! Rows about one question, however often and however it is asked: how often it goes upstream, and whether anybody
//! beside the path can answer it.

use crate::flood::{Flood, addresses};
use crate::outcome::Outcome;
use crate::polite::ask_once;
use crate::row::row;
use crate::scene::{EVIL, SERVER, Scene, Setup, UPSTREAM, duration, strength};
use crate::sockets::{connected_to, unconnected};
use crate::target::Program;
use crate::upstream::{Reply, SLOWLY, Script, Via, honest};
use crate::wire::{
    A, Answer, Ask, Edns, Make, Named, POISON, QUESTION_NAME, Question, Section, address_of, holds, name, query,
};
use std::net::{IpAddr, Ipv4Addr, SocketAddr, UdpSocket};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

/// Copies of the question a second.
const COPIES: u32 = 2_000;
/// Ports that the kernel gives out.
const PORTS: std::ops::Range<u16> = 32_768..61_000;

/// With answers after 1.5 s that may not be kept, so that one question is a few queries upstream in the course of an
/// attack, and each of them may be tried several times, for each of the bits that are legitimately a key (RD, CD, DO).
const MOST_UPSTREAM: u64 = 100;

/// What makes one copy unlike the other.
const DISGUISES: &[Named<Make>] = &[
    ("unknown options", || option(65_001, 8)),
    ("cookies", || option(10, 8)),
    ("client subnets", || {
        let subnet = [[0, 1, 24, 0].as_slice(), &[fastrand::u8(..), fastrand::u8(..), fastrand::u8(..)]].concat();
        Ask::with_option(8, &subnet).about(&name(NAME), A)
    }),
    ("padding", || Ask::with_option(12, &vec![0; fastrand::usize(..400)]).about(&name(NAME), A)),
    ("offers of size", || Ask::with_payload(fastrand::u16(512..)).about(&name(NAME), A)),
    ("capitals", || {
        let mixed: String =
            NAME.chars().map(|letter| if fastrand::bool() { letter.to_ascii_uppercase() } else { letter }).collect();
        Ask::default().about(&name(&mixed), A)
    }),
    ("flags", || {
        let edns = Edns { payload: 1232, dnssec: fastrand::bool(), options: Vec::new() };
        let (checking_disabled, authentic) = (fastrand::bool(), fastrand::bool());
        Ask { recursion: fastrand::bool(), checking_disabled, authentic, edns: Some(edns) }.about(&name(NAME), A)
    }),
    ("several options", || {
        let options = (0..4).map(|_| (fastrand::u16(..), fastrand::u64(..).to_be_bytes().to_vec())).collect();
        Ask { edns: Some(Edns { payload: 1232, dnssec: false, options }), ..Ask::default() }.about(&name(NAME), A)
    }),
];

const NAME: &str = "copied.flight.example";

fn option(code: u16, octets: usize) -> Vec<u8> {
    let data: Vec<u8> = (0..octets).map(|_| fastrand::u8(..)).collect();
    Ask::with_option(code, &data).about(&name(NAME), A)
}

/// Answers names of `flight.example` late, with a TTL of 0.
fn late() -> Script {
    let others = honest();
    Arc::new(move |query, question, via| match question.zone() {
        "flight.example" => {
            let mut answer = Answer::to(query, question);
            answer.push_with_ttl(Section::Answer, QUESTION_NAME, A, 0, &address_of(&question.name));
            Reply::Late(SLOWLY, answer.wire)
        }
        _ => others(query, question, via),
    })
}

#[test]
#[ignore = "a row of make attacks"]
fn copies_of_one_question() {
    row(
        "flights::copies_of_one_question",
        "2,000 copies of one question a second, unlike in EDNS options, flags, capitals; answered after 1.5 s",
        |program| copies(program, late()),
    );
}

#[test]
#[ignore = "a row of make attacks"]
fn copies_of_a_question_that_nobody_answers() {
    row(
        "flights::copies_of_a_question_that_nobody_answers",
        "2,000 copies of one question a second, unlike in EDNS options, flags, capitals; upstream silent",
        |program| {
            let others = honest();
            let silent: Script = Arc::new(move |query, question, via| match question.zone() {
                "flight.example" => Reply::Silence,
                _ => others(query, question, via),
            });
            copies(program, silent)
        },
    );
}

pub fn copies(program: Program, upstream: Script) -> Outcome {
    let scene = Scene::start(program, Setup { upstream, ..Setup::default() });
    let flood = Flood::from(&addresses(4), scene.server);
    let (mut outcome, sent) =
        scene.attack(|_| flood.send(strength(COPIES), duration(), |number| DISGUISES[number % DISGUISES.len()].1()));
    outcome.tell(format!("{sent} copies"));
    outcome.at_most("queries upstream", scene.upstream.asked("flight.example"), MOST_UPSTREAM);
    scene.memory_goes_back(&mut outcome);
    outcome
}

#[test]
#[ignore = "a row of make attacks"]
fn spoofer_who_guesses() {
    row("flights::spoofer_who_guesses", "100,000 forged answers a second to a question, to all ports", |program| {
        let mut ports: Vec<u16> = PORTS.collect();
        fastrand::shuffle(&mut ports);
        spoofed(program, |_| ports.clone())
    });
}

#[test]
#[ignore = "a row of make attacks"]
fn spoofer_who_knows_the_program() {
    row(
        "flights::spoofer_who_knows_the_program",
        "100,000 forged answers a second to a question, to all ports that the program has open to its upstream",
        |program| {
            let before = unconnected(&[]);
            spoofed(program, |_| [connected_to(UPSTREAM.port()), unconnected(&before)].concat())
        },
    );
}

#[test]
#[ignore = "a row of make attacks"]
fn spoofer_who_knows_the_port() {
    row(
        "flights::spoofer_who_knows_the_port",
        "100,000 forged answers a second to a question, to the port from which it was asked",
        knowing_spoofer,
    );
}

/// As an attacker on the node can find out, or by a side channel.
pub fn knowing_spoofer(program: Program) -> Outcome {
    spoofed(program, |scene| scene.upstream.last_port("flight.example").into_iter().collect())
}

/// Answers that nobody asked the spoofer for, from the upstream's address and port: as a raw socket beside the path
/// would send them.
fn spoofed(program: Program, ports: impl Fn(&Scene) -> Vec<u16> + Sync) -> Outcome {
    let scene = Scene::start(program, Setup { upstream: late(), ..Setup::default() });
    let flood = Flood::from(&addresses(4), scene.server);
    let (stop, spoofs) = (AtomicBool::new(false), AtomicU64::new(0));
    let (mut outcome, wrong) = scene.attack(|scene| {
        std::thread::scope(|scope| {
            scope.spawn(|| {
                let (mut number, mut forged) = (0_usize, forged());
                while !stop.load(Ordering::Relaxed) {
                    let (started, ports) = (Instant::now(), ports(scene));
                    for burst in 0..10 {
                        for _ in 0..strength(1_000).max(400) {
                            let Some(port) = ports.get(number % ports.len().max(1)) else { break };
                            let id = u16::try_from(number / ports.len() % 65_536).expect("16 bits");
                            forged[..2].copy_from_slice(&id.to_be_bytes());
                            let client = SocketAddr::new(Ipv4Addr::LOCALHOST.into(), *port);
                            _ = scene.upstream.socket.send_to(&forged, client);
                            number += 1;
                        }
                        let due = started + Duration::from_millis(10) * (burst + 1);
                        std::thread::sleep(due.saturating_duration_since(Instant::now()));
                    }
                }
                spoofs.store(number as u64, Ordering::Relaxed);
            });
            // Flags make a question of its own, and capitals would have to be guessed, too.
            scope.spawn(|| flood.send(strength(COPIES) / 4, 2 * duration(), |number| DISGUISES[number % 5].1()));
            let wrong = watch(scene.server, 2 * duration());
            stop.store(true, Ordering::Relaxed);
            wrong
        })
    });
    outcome.tell(format!("{} forged answers", spoofs.load(Ordering::Relaxed)));
    outcome.tell(format!("{} queries upstream", scene.upstream.asked("flight.example")));
    outcome.tell(format!("{} over TCP", scene.upstream.asked_over_tcp("flight.example")));
    outcome.at_most("poisoned answers", wrong, 0);
    let mismatched = crate::support::client::metric(crate::scene::METRICS, "nodelocaldns_forward_mismatched_total")
        .unwrap_or_default();
    outcome.tell(format!("{mismatched} mismatches counted"));
    scene.memory_goes_back(&mut outcome);
    outcome
}

/// For [`NAME`], with poison.
fn forged() -> Vec<u8> {
    let wire = query(NAME, A);
    let question = Question::of(&wire).expect("it is ours");
    Answer::to(&wire, &question).with(Section::Answer, QUESTION_NAME, A, &POISON).wire
}

/// How often the name has the spoofer's address.
fn watch(server: SocketAddr, during: Duration) -> u64 {
    let (started, mut wrong) = (Instant::now(), 0);
    while started.elapsed() < during {
        let answer = ask_once(server, &query(NAME, A), Duration::from_secs(3));
        wrong += u64::from(answer.is_some_and(|answer| holds(&answer, &POISON)));
        std::thread::sleep(Duration::from_millis(50));
    }
    wrong
}

#[test]
#[ignore = "a row of make attacks"]
fn answers_before_the_answer() {
    row(
        "flights::answers_before_the_answer",
        "upstream sends 3,000 answers with wrong IDs, questions, or junk before each answer",
        |program| {
            let scene = Scene::start(program, Setup::with_evil("", wrong_first()));
            let flood = Flood::from(&[IpAddr::from(Ipv4Addr::new(127, 1, 0, 1))], SERVER);
            let (mut outcome, sent) = scene
                .attack(|_| flood.send(20, 2 * duration(), |_| query(&crate::flood::random_name("evil.example"), A)));
            let mut poisoned = 0;
            for number in 0..20 {
                let answer = ask_once(SERVER, &query(&format!("p{number}.evil.example"), A), Duration::from_secs(3));
                poisoned += u64::from(answer.is_some_and(|answer| holds(&answer, &POISON)));
            }
            outcome.tell(format!("{sent} queries"));
            outcome.at_most("poisoned answers", poisoned, 0);
            scene.memory_goes_back(&mut outcome);
            outcome
        },
    );
}

fn wrong_first() -> Script {
    Arc::new(|query, question, via| {
        let good = crate::upstream::addressed(Answer::to(query, question), question);
        let bad = Answer::to(query, question).with(Section::Answer, QUESTION_NAME, A, &POISON).wire;
        if via == Via::Tcp {
            return Reply::Message(good);
        }
        let mut messages: Vec<Vec<u8>> = (0..3_000_u16)
            .map(|number| {
                let mut message = bad.clone();
                match number % 3 {
                    0 => message[1] ^= (number % 255 + 1) as u8,
                    1 => message[13] ^= 1,
                    _ => message = (0..40).map(|_| fastrand::u8(..)).collect(),
                }
                message
            })
            .collect();
        messages.push(good);
        Reply::Messages(messages)
    })
}

#[test]
#[ignore = "a row of make attacks"]
fn upstream_asks_back() {
    row(
        "flights::upstream_asks_back",
        "an upstream that forwards each question back, ten times and in disguise, 20 questions a second",
        |program| {
            let back = UdpSocket::bind((EVIL.ip(), 0)).expect("the address is ours");
            _ = socket2::SockRef::from(&back).set_recv_buffer_size(4096);
            let asks: Script = Arc::new(move |query, question, _| {
                for number in 0..10 {
                    let ask = Ask::with_option(65_001 + number, &fastrand::u64(..).to_be_bytes());
                    _ = back.send_to(&ask.about(&name(&question.name), A), SERVER);
                }
                Reply::Late(SLOWLY, Answer::to(query, question).rcode(crate::wire::SERVFAIL).wire)
            });
            let scene = Scene::start(program, Setup::with_evil("", asks));
            let flood = Flood::from(&addresses(1), scene.server);
            let (mut outcome, sent) =
                scene.attack(|_| flood.send(20, duration(), |_| query(&crate::flood::random_name("evil.example"), A)));
            let asked = scene.evil.as_ref().expect("it was set up").asked("evil.example");
            outcome.tell(format!("{sent} questions"));
            outcome.at_most("queries upstream", asked, 10 * sent as u64);
            scene.memory_goes_back(&mut outcome);
            outcome
        },
    );
}
