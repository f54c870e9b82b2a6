//! Rows in which a client or an upstream says something, and others get the answer: what they get must be theirs.

use crate::outcome::Outcome;
use crate::polite::ask_once;
use crate::row::row;
use crate::scene::{Scene, Setup};
use crate::target::Program;
use crate::upstream::{Reply, Script, Via, addressed};
use crate::wire::{
    A, AAAA, Answer, Ask, CNAME, Edns, NS, Named, OPT, POISON, QUESTION_NAME, REFUSED, SERVFAIL, Section, address_of,
    holds, name, query, rcode,
};
use std::sync::{Arc, Mutex};
use std::time::Duration;

const PATIENCE: Duration = Duration::from_secs(4);

/// Names of each kind that are asked about.
const TIMES: usize = 5;

/// What an attacker asks before others do.
const ASKED: &[Named<fn() -> Ask>] = &[
    ("no recursion", || Ask { recursion: false, ..Ask::default() }),
    ("no recursion, EDNS", || Ask { recursion: false, ..Ask::with_payload(1232) }),
    ("checking disabled", || Ask { checking_disabled: true, ..Ask::default() }),
    ("checking disabled, DNSSEC", || Ask { checking_disabled: true, edns: Some(dnssec()), ..Ask::default() }),
    ("authentic", || Ask { authentic: true, ..Ask::default() }),
    ("DNSSEC", || Ask { edns: Some(dnssec()), ..Ask::default() }),
    ("client subnet", || Ask::with_option(8, &[0, 1, 24, 0, 198, 51, 100])),
    ("client subnet by IPv6", || Ask::with_option(8, &[0, 2, 48, 0, 0x20, 1, 0xd, 0xb8, 0, 1])),
    ("unknown option", || Ask::with_option(65_001, b"tailored")),
    ("cookie", || Ask::with_option(10, &[7; 8])),
    ("name server ID", || Ask::with_option(3, &[])),
    ("keepalive", || Ask::with_option(11, &[0, 1])),
    ("chain", || Ask::with_option(13, &[0])),
    ("small offer", || Ask::with_payload(512)),
    ("large offer", || Ask::with_payload(65_535)),
];

fn dnssec() -> Edns {
    Edns { payload: 1232, dnssec: true, options: Vec::new() }
}

/// What is said to those who ask otherwise than a stub does.
#[derive(Clone, Copy)]
enum Tailored {
    Address,
    Referral,
    Failure,
    Refusal,
    Nothing,
    NoName,
}

const TAILORED: &[(&str, Tailored)] = &[
    ("address", Tailored::Address),
    ("referral", Tailored::Referral),
    ("failure", Tailored::Failure),
    ("refusal", Tailored::Refusal),
    ("nothing", Tailored::Nothing),
    ("no such name", Tailored::NoName),
];

/// Answers every query that says what is never said on behalf of stubs in the way that its name tells
/// (`t2-5.tailored.example`), and stubs as they should be. How stubs are asked for is learned from
/// `stub.tailored.example`: a program may set what it likes, if it does for everybody.
fn tailors() -> Script {
    let honest = crate::upstream::honest();
    let of_stubs = Mutex::new(Vec::new());
    Arc::new(move |query, question, via| {
        if question.zone() != "tailored.example" {
            return honest(query, question, via);
        }
        let number = question.host().strip_prefix('t').and_then(|rest| rest.split('-').next()?.parse::<usize>().ok());
        let answer = Answer::to(query, question);
        let said = Said::of(query, question.end);
        let mut of_stubs = of_stubs.lock().expect("no test panics with this lock held");
        let Some(number) = number else {
            of_stubs.push(said);
            return Reply::Message(addressed(answer, question));
        };
        if of_stubs.contains(&said) {
            return Reply::Message(addressed(answer, question));
        }
        Reply::Message(match TAILORED[number % TAILORED.len()].1 {
            Tailored::Address => answer.with(Section::Answer, QUESTION_NAME, A, &POISON).wire,
            Tailored::Referral => answer.with(Section::Authority, &name("example"), NS, &name("ns.evil.example")).wire,
            Tailored::Failure => answer.rcode(SERVFAIL).wire,
            Tailored::Refusal => answer.rcode(REFUSED).wire,
            Tailored::Nothing => answer.with_soa(300).wire,
            Tailored::NoName => answer.rcode(crate::wire::NXDOMAIN).with_soa(300).wire,
        })
    })
}

/// What a query says that may shape an answer.
#[derive(Debug, PartialEq, Eq)]
struct Said {
    /// RD, AD and CD.
    flags: [u8; 2],
    dnssec: bool,
    options: Vec<u8>,
}

impl Said {
    fn of(query: &[u8], end: usize) -> Self {
        let edns = query.get(end..).unwrap_or_default();
        let dnssec = edns.get(7).is_some_and(|flags| flags & 0x80 != 0);
        Self { flags: [query[2] & 1, query[3] & 0x30], dnssec, options: edns.get(11..).unwrap_or_default().to_vec() }
    }
}

#[test]
#[ignore = "a row of make attacks"]
fn what_a_client_says() {
    row(
        "others::what_a_client_says",
        "a client asks first, with fifteen things that stubs do not say; the upstream tailors its answers to them in six ways",
        what_a_client_says_shapes_no_other_answer,
    );
}

pub fn what_a_client_says_shapes_no_other_answer(program: Program) -> Outcome {
    let scene = Scene::start(program, Setup { upstream: tailors(), ..Setup::default() });
    let (mut outcome, (wrong, asked, tailored)) = scene.attack(|scene| {
        let (mut wrong, mut asked, mut tailored) = (Vec::new(), 0, 0);
        for stub in [Ask::default(), Ask::with_payload(1232)] {
            ask_once(
                scene.server,
                &stub.about(&name(&format!("stub{:x}.tailored.example", fastrand::u64(..))), A),
                PATIENCE,
            );
        }
        for (what, ask) in ASKED {
            for (number, (how, _)) in TAILORED.iter().enumerate() {
                let text = format!("t{number}-{:x}.tailored.example", fastrand::u64(..));
                let own = ask_once(scene.server, &ask().about(&name(&text), A), PATIENCE);
                tailored += usize::from(own.is_none_or(|own| !holds(&own, &address_of(&text))));
                // With and without EDNS, and once more from what is cached by then.
                for stub in [Ask::default(), Ask::with_payload(1232), Ask::default()] {
                    asked += 1;
                    let answer = ask_once(scene.server, &stub.about(&name(&text), A), PATIENCE);
                    // That there is an answer at all is the polite client's business.
                    let is_right =
                        answer.is_none_or(|answer| rcode(&answer) == Some(0) && holds(&answer, &address_of(&text)));
                    if !is_right {
                        wrong.push(format!("{what}: {how}"));
                    }
                }
            }
        }
        (wrong, asked, tailored)
    });
    outcome.tell(format!("{tailored} tailored answers drawn"));
    tell(&mut outcome, &wrong, asked);
    outcome
}

fn tell(outcome: &mut Outcome, wrong: &[String], asked: usize) {
    outcome.tell(format!("{} of {asked} answers not the asker's", wrong.len()));
    let mut kinds = wrong.to_vec();
    kinds.dedup();
    kinds.truncate(20);
    outcome.hold(wrong.is_empty(), &format!("others get their own answers: {}", kinds.join(", ")));
}

/// Who is to be harmed.
const VICTIM: &str = "www.victim.example";

/// Messages in answer to a query.
type Say = fn(&[u8], &crate::wire::Question) -> Vec<Vec<u8>>;

/// What the upstream of `evil.example` says, beside or instead of an answer.
const SAID: &[Named<Say>] = &[
    ("glue", |query, question| {
        let answer =
            good(query, question).with(Section::Authority, &name("victim.example"), NS, &name("ns.evil.example"));
        let answer = answer.with(Section::Additional, &name(VICTIM), A, &POISON);
        vec![answer.with(Section::Additional, &name("ns.evil.example"), A, &POISON).wire]
    }),
    ("alias of the victim", |query, question| {
        let answer = Answer::to(query, question).with(Section::Answer, QUESTION_NAME, CNAME, &name(VICTIM));
        vec![answer.with(Section::Answer, &name(VICTIM), A, &POISON).wire]
    }),
    ("the victim's record only", |query, question| {
        vec![Answer::to(query, question).with(Section::Answer, &name(VICTIM), A, &POISON).wire]
    }),
    ("the victim's record too", |query, question| {
        vec![good(query, question).with(Section::Answer, &name(VICTIM), A, &POISON).wire]
    }),
    ("the victim's record first", |query, question| {
        let answer = Answer::to(query, question).with(Section::Answer, &name(VICTIM), A, &POISON);
        vec![answer.with(Section::Answer, QUESTION_NAME, A, &address_of(&question.name)).wire]
    }),
    ("referral", |query, question| {
        let answer =
            Answer::to(query, question).with(Section::Authority, &name("victim.example"), NS, &name("ns.evil.example"));
        vec![answer.with(Section::Additional, &name("ns.evil.example"), A, &POISON).wire]
    }),
    ("wrong ID first", |query, question| {
        let mut wrong = bad(query, question);
        wrong[1] ^= 1;
        vec![wrong, good(query, question).wire]
    }),
    ("the victim's question first", |query, question| {
        let asked = crate::wire::query(VICTIM, A);
        let mut wrong = [&query[..2], &[0x81, 0x80, 0, 1, 0, 1, 0, 0, 0, 0], &asked[12..]].concat();
        wrong.extend_from_slice(&[&[0xc0, 12, 0, 1, 0, 1, 0, 0, 14, 16, 0, 4][..], &POISON].concat());
        vec![wrong, good(query, question).wire]
    }),
    ("another type first", |query, question| {
        let mut wrong = bad(query, question);
        wrong[question.end - 3] = AAAA as u8;
        vec![wrong, good(query, question).wire]
    }),
    ("another class first", |query, question| {
        let mut wrong = bad(query, question);
        wrong[question.end - 1] = 3;
        vec![wrong, good(query, question).wire]
    }),
    ("two questions first", |query, question| {
        let mut wrong = bad(query, question);
        wrong[5] = 2;
        vec![wrong, good(query, question).wire]
    }),
    ("a query first", |query, question| {
        let mut wrong = bad(query, question);
        wrong[2] &= 0x7f;
        vec![wrong, good(query, question).wire]
    }),
    ("malformed first", |query, question| {
        let wrong = [&query[..2], &[0x81, 0x80, 0, 1, 0, 5, 0, 0, 0, 0], &query[12..question.end], &[0xc0, 0xc0, 0xff]]
            .concat();
        vec![wrong, good(query, question).wire]
    }),
    ("short first", |query, question| vec![query[..3].to_vec(), good(query, question).wire]),
    ("two OPT first", |query, question| {
        let mut wrong = Answer::to(query, question).with(Section::Answer, QUESTION_NAME, A, &POISON);
        wrong.push(Section::Additional, &[0], OPT, &[]);
        wrong.push(Section::Additional, &[0], OPT, &[]);
        vec![wrong.wire, good(query, question).wire]
    }),
];

fn good(query: &[u8], question: &crate::wire::Question) -> Answer {
    Answer::to(query, question).with(Section::Answer, QUESTION_NAME, A, &address_of(&question.name))
}

fn bad(query: &[u8], question: &crate::wire::Question) -> Vec<u8> {
    Answer::to(query, question).with(Section::Answer, QUESTION_NAME, A, &POISON).wire
}

/// The kind's number is in the name that is asked for; the last kind comes from another socket.
fn liar() -> Script {
    Arc::new(|query, question, via| {
        let number = question.host().strip_prefix('s').and_then(|rest| rest.split('-').next()?.parse::<usize>().ok());
        match number.and_then(|number| SAID.get(number)) {
            Some((_, _)) if via == Via::Tcp => Reply::Message(good(query, question).wire),
            Some((_, say)) => Reply::Messages(say(query, question)),
            None => Reply::FromElsewhere(bad(query, question), good(query, question).wire),
        }
    })
}

#[test]
#[ignore = "a row of make attacks"]
fn what_an_upstream_says() {
    row(
        "others::what_an_upstream_says",
        "an upstream says sixteen things about a victim's name or before its answer: wrong ID, question, type, socket; glue, aliases, referrals",
        what_an_upstream_says_is_believed_of_its_own_names_only,
    );
}

pub fn what_an_upstream_says_is_believed_of_its_own_names_only(program: Program) -> Outcome {
    let scene = Scene::start(program, Setup::with_evil("", liar()));
    let (mut outcome, (wrong, asked)) = scene.attack(|scene| {
        let (mut wrong, mut asked) = (Vec::new(), 0);
        for number in 0..=SAID.len() {
            let what = SAID.get(number).map_or("another socket first", |(what, _)| what);
            for time in 0..TIMES {
                let text = format!("s{number}-{:x}.evil.example", fastrand::u64(..));
                let answer = ask_once(scene.server, &query(&text, A), PATIENCE);
                // About its own names an upstream may say what it likes, once it has the right ID and question.
                if what.ends_with("first") && number > 5 && answer.is_some_and(|answer| holds(&answer, &POISON)) {
                    wrong.push(format!("{what}: {time}"));
                }
                asked += 2;
                let victim = ask_once(scene.server, &query(VICTIM, A), PATIENCE);
                if victim.is_some_and(|victim| !holds(&victim, &address_of(VICTIM))) {
                    wrong.push(format!("{what}: the victim's answer"));
                }
            }
        }
        (wrong, asked)
    });
    tell(&mut outcome, &wrong, asked);
    outcome
}
