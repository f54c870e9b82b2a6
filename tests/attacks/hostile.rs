//! Answers of up to 64 KiB whose judging costs as much as it can: many aliases, names that are walked by many pointers,
//! sections full of something. Each is made for one query, and no longer than `limit` octets.

use crate::wire::{A, Answer, CNAME, DNAME, NS, Named, OPT, POISON, QUESTION_NAME, Question, SOA, Section, TXT};

/// What a pointer can reach.
const REACH: usize = 0x3fff;

/// Makes an answer to a query.
pub type Kind = fn(&[u8], &Question, usize) -> Vec<u8>;

/// Aliases: the question's name, then one name after the other, and an address at last.
pub const CHAINS: &[Named<Kind>] = &[
    ("in order", in_order),
    ("reversed", reversed),
    ("shuffled", shuffled),
    ("looped", looped),
    ("fanned out", fanned_out),
];

/// Names of many pointers.
pub const POINTERS: &[Named<Kind>] = &[
    ("ladder", ladder),
    ("staircase", staircase),
    ("long names", long_names),
    ("ladder in data", ladder_in_data),
    ("self", to_itself),
];

/// Everything else.
pub const SECTIONS: &[Named<Kind>] = &[
    ("DNAME", renamed),
    ("SOA and NS", authorities),
    ("tiny records", tiny),
    ("two OPT", two_options),
    ("OPT without end", only_options),
    ("counts that lie", lies),
];

/// The name of one label that a chain's link has; unlike each other in five octets.
fn link(number: usize) -> [u8; 5] {
    let letter = |place: usize| b'a' + u8::try_from(number / 26_usize.pow(place as u32) % 26).expect("a letter");
    [3, letter(0), letter(1), letter(2), 0]
}

/// How many records of an owner and an alias of five octets each fit, beside the first and the last.
fn links(answer: &Answer, limit: usize) -> usize {
    limit.saturating_sub(answer.len() + 64) / 20
}

fn chain(query: &[u8], question: &Question, limit: usize, order: impl FnOnce(&mut Vec<usize>)) -> Vec<u8> {
    let mut answer = Answer::to(query, question);
    let mut numbers: Vec<usize> = (0..links(&answer, limit)).collect();
    let last = numbers.len();
    order(&mut numbers);
    answer.push(Section::Answer, QUESTION_NAME, CNAME, &link(0));
    for number in numbers {
        answer.push(Section::Answer, &link(number), CNAME, &link(number + 1));
    }
    answer.push(Section::Answer, &link(last), A, &POISON);
    answer.wire
}

fn in_order(query: &[u8], question: &Question, limit: usize) -> Vec<u8> {
    chain(query, question, limit, |_| {})
}

fn reversed(query: &[u8], question: &Question, limit: usize) -> Vec<u8> {
    chain(query, question, limit, |numbers| numbers.reverse())
}

fn shuffled(query: &[u8], question: &Question, limit: usize) -> Vec<u8> {
    chain(query, question, limit, |numbers| fastrand::shuffle(numbers))
}

/// A thousand aliases in a circle, three times.
fn looped(query: &[u8], question: &Question, limit: usize) -> Vec<u8> {
    let mut answer = Answer::to(query, question);
    let round = links(&answer, limit) / 3;
    answer.push(Section::Answer, QUESTION_NAME, CNAME, &link(0));
    for number in 0..3 * round {
        answer.push(Section::Answer, &link(number % round), CNAME, &link((number + 1) % round));
    }
    answer.wire
}

/// The question's name has thousands of aliases, and each of them the question's name.
fn fanned_out(query: &[u8], question: &Question, limit: usize) -> Vec<u8> {
    let mut answer = Answer::to(query, question);
    let mut number = 0;
    while answer.len() + 34 <= limit {
        answer.push(Section::Answer, QUESTION_NAME, CNAME, &link(number));
        answer.push(Section::Answer, &link(number), CNAME, QUESTION_NAME);
        number += 1;
    }
    answer.wire
}

/// Pointers to pointers in the data of a TXT record, and the offset of the last.
fn with_rungs(answer: &mut Answer) -> u16 {
    let mut at = answer.len() + 13;
    let mut rungs = vec![1, b'a', 0];
    let mut last = at;
    at += rungs.len();
    while rungs.len() + 2 <= 255 {
        rungs.extend_from_slice(&pointer(last));
        last = at;
        at += 2;
    }
    let data = [&[u8::try_from(rungs.len()).expect("a string of at most 255 octets")], &rungs[..]].concat();
    answer.push(Section::Answer, QUESTION_NAME, TXT, &data);
    u16::try_from(last).expect("within a pointer's reach")
}

fn pointer(to: usize) -> [u8; 2] {
    (0xc000 | u16::try_from(to).expect("a short message")).to_be_bytes()
}

/// Each owner and alias is a label, and then more than a hundred pointers to pointers.
fn ladder(query: &[u8], question: &Question, limit: usize) -> Vec<u8> {
    let mut answer = Answer::to(query, question);
    let top = pointer(usize::from(with_rungs(&mut answer)));
    let name = |number: usize| [&link(number)[..4], &top].concat();
    answer.push(Section::Answer, QUESTION_NAME, CNAME, &name(0));
    let mut number = 0;
    while answer.len() + 60 < limit {
        answer.push(Section::Answer, &name(number), CNAME, &name(number + 1));
        number += 1;
    }
    answer.push(Section::Answer, &name(number), A, &POISON);
    answer.wire
}

/// Each owner is a label before the owner of the record before, to a hundred labels and as many pointers; beyond a
/// pointer's reach, before the last that can be reached.
fn staircase(query: &[u8], question: &Question, limit: usize) -> Vec<u8> {
    let mut answer = Answer::to(query, question);
    let (mut before, mut depth) = (12, 0);
    while answer.len() + 20 < limit {
        let at = answer.len();
        let owner = [&[1, b'a' + (depth % 26) as u8][..], &pointer(before)].concat();
        answer.push(Section::Answer, &owner, A, &POISON);
        if at <= REACH && depth < 100 {
            (before, depth) = (at, depth + 1);
        } else if at <= REACH {
            (before, depth) = (12, 0);
        }
    }
    answer.wire
}

/// Aliases of 126 labels of one letter.
fn long_names(query: &[u8], question: &Question, limit: usize) -> Vec<u8> {
    let mut answer = Answer::to(query, question);
    let name = |number: usize| -> Vec<u8> {
        let labels = (0..126).flat_map(|place| [1, b'a' + u8::try_from((number + place) % 26).expect("a letter")]);
        labels.chain([0]).collect()
    };
    answer.push(Section::Answer, QUESTION_NAME, CNAME, &name(0));
    let mut number = 0;
    while answer.len() + 2 * 253 + 10 <= limit {
        answer.push(Section::Answer, &name(number), CNAME, &name(number + 1));
        number += 1;
    }
    answer.wire
}

/// SOA records, each of whose two names is a hundred pointers long.
fn ladder_in_data(query: &[u8], question: &Question, limit: usize) -> Vec<u8> {
    let mut answer = Answer::to(query, question);
    let top = pointer(usize::from(with_rungs(&mut answer)));
    let data = [&top[..], &top, &[0; 20]].concat();
    while answer.len() + 12 + data.len() <= limit {
        answer.push(Section::Authority, &top, SOA, &data);
    }
    answer.wire
}

/// Owners that point to themselves and forward.
fn to_itself(query: &[u8], question: &Question, limit: usize) -> Vec<u8> {
    let mut answer = Answer::to(query, question);
    while answer.len() + 16 <= limit {
        let at = answer.len();
        answer.push(Section::Answer, &pointer(at.min(REACH)), A, &POISON);
    }
    answer.wire
}

/// A DNAME record and the CNAME record that follows from it, by turns.
fn renamed(query: &[u8], question: &Question, limit: usize) -> Vec<u8> {
    let mut answer = Answer::to(query, question);
    answer.push(Section::Answer, QUESTION_NAME, CNAME, &[&[1, b'h'][..], &link(0)].concat());
    let mut number = 0;
    while answer.len() + 20 + 24 <= limit {
        let below = |number: usize| [&[1, b'h'][..], &link(number)].concat();
        answer.push(Section::Answer, &link(number), DNAME, &link(number + 1));
        answer.push(Section::Answer, &below(number), CNAME, &below(number + 1));
        number += 1;
    }
    answer.wire
}

fn authorities(query: &[u8], question: &Question, limit: usize) -> Vec<u8> {
    let mut answer = Answer::to(query, question);
    let soa = [QUESTION_NAME, QUESTION_NAME, &[0; 20]].concat();
    let mut number = 0;
    while answer.len() + 12 + 36 + 20 <= limit {
        answer.push(Section::Authority, QUESTION_NAME, SOA, &soa);
        answer.push(Section::Additional, &link(number), NS, &link(number + 1));
        number += 1;
    }
    answer.wire
}

/// Records of the root without data: eleven octets each.
fn tiny(query: &[u8], question: &Question, limit: usize) -> Vec<u8> {
    let mut answer = Answer::to(query, question);
    while answer.len() + 11 <= limit {
        let rtype = 0xff00 | u16::try_from(answer.len() % 250).expect("a small number");
        answer.push(Section::Answer, &[0], rtype, &[]);
    }
    answer.wire
}

/// Beside an answer that would be good.
fn two_options(query: &[u8], question: &Question, _: usize) -> Vec<u8> {
    let answer = Answer::to(query, question).with(Section::Answer, QUESTION_NAME, A, &POISON);
    answer.with(Section::Additional, &[0], OPT, &[]).with(Section::Additional, &[0], OPT, &[]).wire
}

/// One OPT record with thousands of empty options, and thousands of OPT records.
fn only_options(query: &[u8], question: &Question, limit: usize) -> Vec<u8> {
    let mut answer = Answer::to(query, question);
    let options = [0xfd, 0xe9, 0, 0].repeat(limit / 8);
    answer.push(Section::Additional, &[0], OPT, &options);
    while answer.len() + 11 <= limit {
        answer.push(Section::Additional, &[0], OPT, &[]);
    }
    answer.wire
}

/// As many records as counts can promise, and few that are there.
fn lies(query: &[u8], question: &Question, _: usize) -> Vec<u8> {
    let mut answer = Answer::to(query, question).with(Section::Answer, QUESTION_NAME, CNAME, &link(0));
    answer.wire[6..12].fill(0xff);
    answer.wire
}

#[test]
fn hostile_answers_are_as_large_as_they_may_be() {
    let wire = crate::wire::query("x.evil.example", A);
    let question = Question::of(&wire).expect("it is well-formed");
    for (kind, make) in CHAINS.iter().chain(POINTERS).chain(SECTIONS) {
        for limit in [1232, 65_507, 65_535] {
            let answer = make(&wire, &question, limit);
            assert!(answer.len() <= limit, "{kind}: {} of {limit}", answer.len());
            let is_small = ["two OPT", "counts that lie"].contains(kind);
            assert!(is_small || answer.len() + 600 > limit, "{kind}: {} of {limit}", answer.len());
        }
    }
}
