//! Rows about datagrams that are no proper queries, and names that are text for somebody else.

use crate::flood::{Flood, addresses};
use crate::outcome::Outcome;
use crate::raw::Raw;
use crate::row::row;
use crate::scene::{METRICS, Scene, Setup, duration, strength};
use crate::support::client::http;
use crate::target::Program;
use crate::wire::{A, Answer, Ask, CNAME, Make, Named, OPT, QUESTION_NAME, Question, Section, name_of, query};
use std::collections::BTreeSet;
use std::net::Ipv4Addr;
use std::time::Duration;

/// Datagrams that no resolver sends.
const MALFORMED: &[Named<Make>] = &[
    ("noise", || (0..fastrand::usize(0..1500)).map(|_| fastrand::u8(..)).collect()),
    ("noise after a header", || {
        [&query("a.example", A)[..12], &(0..200).map(|_| fastrand::u8(..)).collect::<Vec<_>>()].concat()
    }),
    ("name that points to itself", || with_name(&[0xc0, 12])),
    ("name that points ahead", || with_name(&[0xc0, 200])),
    ("label of 64 octets", || with_name(&[&[64][..], &[b'a'; 64], &[0]].concat())),
    ("name of 300 octets", || with_name(&[[1, b'a'].repeat(150), vec![0]].concat())),
    ("false counts", || {
        let mut wire = query("a.example", A);
        wire[4..12].fill(0xff);
        wire
    }),
    ("no question", || query("a.example", A)[..12].to_vec()),
    ("many OPT", || {
        let mut wire = query("a.example", A);
        wire[10..12].copy_from_slice(&[0, 50]);
        wire.extend_from_slice(&[&[0][..], &OPT.to_be_bytes(), &[4, 208, 0, 0, 0, 0, 0, 0]].concat().repeat(50));
        wire
    }),
    ("options that end too late", || {
        let mut wire = Ask::with_option(10, &[1; 8]).about(&name_of(&[b"a", b"example"]), A);
        let at = wire.len() - 10;
        wire[at..at + 2].copy_from_slice(&[0xff, 0xff]);
        wire
    }),
    ("an answer", || {
        let mut wire = query("hot1.polite.example", A);
        wire[2] |= 0x80;
        wire
    }),
    ("other operations", || {
        let mut wire = query("a.example", A);
        wire[2] = fastrand::u8(..) & 0x7f;
        wire
    }),
    ("64 KiB", || {
        let wire = query("a.example", A);
        let question = Question::of(&wire).expect("it is ours");
        let mut long = Answer::to(&wire, &question);
        while long.len() < 60_000 {
            long.push(Section::Additional, QUESTION_NAME, CNAME, QUESTION_NAME);
        }
        long.wire[2] &= 0x7f;
        long.wire
    }),
    ("one octet less than it should be", || {
        let mut wire = query("a.example", A);
        wire.pop();
        wire
    }),
];

fn with_name(name: &[u8]) -> Vec<u8> {
    Ask::default().about(name, A)
}

#[test]
#[ignore = "a row of make attacks"]
fn malformed() {
    row(
        "queries::malformed",
        "20,000 datagrams a second that are no queries, of fourteen kinds, 16 addresses",
        no_queries,
    );
}

pub fn no_queries(program: Program) -> Outcome {
    let scene = Scene::start(program, Setup::default());
    let flood = Flood::from(&addresses(16), scene.server);
    let (mut outcome, sent) =
        scene.attack(|_| flood.send(strength(20_000), duration(), |number| MALFORMED[number % MALFORMED.len()].1()));
    outcome.tell(format!("{sent} datagrams"));
    scene.memory_goes_back(&mut outcome);
    outcome
}

/// The server is made to talk to itself, and to services that answer everything: echo, character generator.
#[test]
#[ignore = "a row of make attacks"]
fn reflected() {
    row("queries::reflected", "20,000 datagrams a second that say they come from the server itself", |program| {
        let scene = Scene::start(program, Setup::default());
        let raw = Raw::open();
        let (mut outcome, sent) = scene.attack(|scene| {
            let (started, mut sent) = (std::time::Instant::now(), 0_u32);
            while started.elapsed() < duration() {
                while f64::from(sent) < started.elapsed().as_secs_f64() * f64::from(strength(20_000)) {
                    let port = [scene.server.port(), 7, 19, 0, 123][sent as usize % 5];
                    let mut wire = query("hot1.polite.example", A);
                    // Some of them malformed, which are answered, too.
                    wire[5] = u8::from(!sent.is_multiple_of(3));
                    raw.send_udp((Ipv4Addr::LOCALHOST, port), (Ipv4Addr::LOCALHOST, scene.server.port()), &wire);
                    sent += 1;
                }
                std::thread::sleep(Duration::from_millis(1));
            }
            sent
        });
        outcome.tell(format!("{sent} datagrams"));
        outcome
    });
}

/// Labels that would be something else in a log, on a terminal, in an exposition of metrics, or in a format.
const TEXTS: &[&[u8]] = &[
    b"x\n[ERROR] forged line",
    b"x\r[FATAL] forged line",
    b"\x1b[31mred\x1b[0m",
    b"\x1b]0;title\x07",
    b"\x9b31mred",
    b"\"} 1\nforged_metric{a=\"b",
    b"a\\\"b{c}'d`$(id)",
    b"%s%n%x{}{name}",
    b"\0\x01\x7f\xff\xfe",
    b"\xe2\x80\xaetxt.exe",
    b"\xc2\x85next line",
    b". IN A 6.6.6.6 ;",
];

#[test]
#[ignore = "a row of make attacks"]
fn texts() {
    row("queries::texts", "names with line feeds, quotes, escapes; then metrics and log are read", texts_stay_texts);
}

/// As names, as types and operations by the thousand, and from upstreams in what is logged as wrong.
pub fn texts_stay_texts(program: Program) -> Outcome {
    let evil: crate::upstream::Script = std::sync::Arc::new(|query, question, _| {
        let answer =
            Answer::to(query, question).with(Section::Answer, &name_of(TEXTS.get(..3).expect("texts")), A, &[0; 3]);
        crate::upstream::Reply::Message(
            answer.with(Section::Answer, QUESTION_NAME, CNAME, &name_of(&[TEXTS[0]])).rcode(11).wire,
        )
    });
    let setup = Setup { directives: "log".to_owned(), ..Setup::with_evil("", evil) };
    let scene = Scene::start(program, setup);
    let flood = Flood::from(&addresses(2), scene.server);
    let before = series();
    let (mut outcome, sent) = scene.attack(|_| {
        let zones: [&[&[u8]]; 3] = [&[b"texts", b"example"], &[b"silent", b"example"], &[b"evil", b"example"]];
        flood.send(500, duration(), |number| {
            let labels = [&[TEXTS[number % TEXTS.len()]], zones[number / TEXTS.len() % 3]].concat();
            let mut wire = Ask::default().about(&name_of(&labels), fastrand::u16(..));
            let class = wire.len() - 2;
            wire[class] = if number.is_multiple_of(7) { fastrand::u8(..) } else { 0 };
            wire[2] |= if number.is_multiple_of(11) { fastrand::u8(..16) << 3 } else { 0 };
            wire
        })
    });
    let log = scene.target.server.output();
    let odd: BTreeSet<char> =
        log.chars().filter(|letter| letter.is_control() && *letter != '\n' || *letter == '\u{202e}').collect();
    let forged = log.lines().filter(|line| line.starts_with("[ERROR] forged") || line.starts_with("[FATAL]")).count();
    let after = series();
    let (malformed, grown) = (after.1, after.0.saturating_sub(before.0));
    outcome.tell(format!("{sent} names"));
    outcome.tell(format!("{} control characters and {forged} forged lines in the log", odd.len()));
    outcome.hold(odd.is_empty() && forged == 0, &format!("the log has no control characters of others: {odd:?}"));
    outcome.tell(format!("{malformed} malformed series, {grown} more"));
    outcome.hold(malformed == 0 && grown < 1_000, "metrics are well-formed, and few");
    outcome
}

/// How many series there are on the server's port, and lines that are none.
fn series() -> (usize, usize) {
    let (_, text) = http(&format!("{METRICS}/metrics")).expect("the metrics are served");
    let pattern =
        regex::Regex::new(r#"^[a-zA-Z_:][\w:]*(\{([a-zA-Z_]\w*="([^"\\\n]|\\.)*",?)*\})? [-+.\deEINanf]+( \d+)?$"#);
    let pattern = pattern.expect("a valid pattern");
    let lines = text.lines().filter(|line| !line.is_empty() && !line.starts_with('#'));
    let is_odd = |line: &&str| {
        !pattern.is_match(line) || line.starts_with("forged") || line.contains(|letter: char| letter.is_control())
    };
    (lines.clone().count(), lines.filter(is_odd).count())
}
