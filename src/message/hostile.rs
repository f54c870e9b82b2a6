//! Answers of up to 65,535 octets made to cost as much as they can, for tests that count the work.

use super::fixtures::record;
use super::wire_reader::MAX_MESSAGE_LENGTH;
use super::{Name, Section};

const A: u16 = 1;
const NS: u16 = 2;
const CNAME: u16 = 5;
const MINFO: u16 = 14;
const TXT: u16 = 16;
const RP: u16 = 17;
const TO_QUESTION: [u8; 2] = [0xc0, 12];

/// What an answer of a kind is made of: records, which are added until there is no room.
pub(crate) struct Hostile {
    pub kind: &'static str,
    pub wire: Vec<u8>,
}

impl Hostile {
    /// An answer to a question of type A for this name in wire form.
    fn new(kind: &'static str, question: &[u8]) -> Self {
        let header = [0, 0, 0x81, 0x80, 0, 1, 0, 0, 0, 0, 0, 0];
        Self { kind, wire: [&header, question, &[0, 1, 0, 1]].concat() }
    }

    /// Adds a record to the answer section; false if there is no room.
    fn push(&mut self, owner: &[u8], rtype: u16, data: &[u8]) -> bool {
        let (_, octets) = record(Section::Answer, owner, rtype, 3600, data);
        let count = u16::from_be_bytes([self.wire[6], self.wire[7]]);
        let has_room = self.wire.len() + octets.len() <= MAX_MESSAGE_LENGTH && count < 4096;
        if has_room {
            self.wire.extend_from_slice(&octets);
            self.wire[6..8].copy_from_slice(&(count + 1).to_be_bytes());
        }
        has_room
    }

    /// Adds the same record until there is no room.
    fn fill(mut self, owner: &[u8], rtype: u16, data: &[u8]) -> Self {
        while self.push(owner, rtype, data) {}
        self
    }
}

/// A label of three letters that no other number has.
fn label(number: usize) -> [u8; 4] {
    let letter = |part: usize| b'a' + (part % 26) as u8;
    [3, letter(number), letter(number / 26), letter(number / 676)]
}

fn pointer(offset: usize) -> [u8; 2] {
    (0xc000 | offset as u16).to_be_bytes()
}

/// A name of so many labels of one octet.
fn of_labels(count: usize) -> Vec<u8> {
    Name::parse(&"x.".repeat(count)).expect("a good name").as_wire().to_vec()
}

/// Aliases one after another, or the last one first; each name written out, or below the question's.
fn chain(kind: &'static str, tail: &[u8], is_backwards: bool, ends_in_circle: bool) -> Hostile {
    let name = |number: usize| if number == 0 { TO_QUESTION.to_vec() } else { [&label(number), tail].concat() };
    let mut answer = Hostile::new(kind, b"\x07example\0");
    let count = (MAX_MESSAGE_LENGTH - 200) / (10 + 2 * (4 + tail.len()));
    let mut numbers: Vec<usize> = (0..count).collect();
    if is_backwards {
        numbers.reverse();
    }
    for number in numbers {
        let target = if ends_in_circle && number + 1 == count { 0 } else { number + 1 };
        assert!(answer.push(&name(number), CNAME, &name(target)));
    }
    answer.push(&name(count), A, &[192, 0, 2, 1]);
    answer
}

/// Aliases whose names all lead over so many pointers to pointers.
fn deep(kind: &'static str, pointers: usize) -> Hostile {
    let mut answer = Hostile::new(kind, b"\x07example\0");
    let ladder = answer.wire.len() + 2 + 10 + 1;
    let mut rungs = b"\x01a\0".to_vec();
    let mut top = ladder;
    for rung in 0..pointers {
        rungs.extend(pointer(top));
        top = ladder + 3 + 2 * rung;
    }
    assert!(answer.push(&TO_QUESTION, TXT, &[&[rungs.len() as u8][..], &rungs].concat()));
    let name = |number: usize| [&label(number)[..], &pointer(top)].concat();
    answer.push(&TO_QUESTION, CNAME, &name(0));
    let mut number = 0;
    while answer.push(&name(number), CNAME, &name(number + 1)) {
        number += 1;
    }
    answer
}

/// As many records as fit, each owned by another name and leading to a third.
fn strangers(kind: &'static str, rtype: u16) -> Hostile {
    let mut answer = Hostile::new(kind, b"\x07example\0");
    let mut number = 0;
    let name = |number: usize| [&label(number)[..], &TO_QUESTION].concat();
    while answer.push(&name(number), rtype, &name(number + 8000)) {
        number += 1;
    }
    answer
}

/// One of each kind, all of about 64 KiB.
pub(crate) fn answers() -> Vec<Hostile> {
    let long = of_labels(127);
    let mut named_twice = Hostile::new("long names written out, then pointed to", b"\x07example\0");
    let first = named_twice.wire.len();
    for number in 0..100 {
        named_twice.push(&[&label(number)[..], &of_labels(124)[2..]].concat(), NS, &pointer(first));
    }
    vec![
        chain("a chain of names written out", b"\0", false, false),
        chain("a chain below the question", &TO_QUESTION, false, false),
        chain("a chain with its end first", &TO_QUESTION, true, false),
        chain("a circle", &TO_QUESTION, false, true),
        deep("122 pointers for each name", 122),
        deep("4 pointers for each name", 4),
        deep("3 pointers for each name", 3),
        Hostile::new("one alias over and over", b"\x07example\0").fill(&TO_QUESTION, CNAME, b"\x01a\xc0\x0c"),
        Hostile::new("a name with an alias to itself", b"\x07example\0").fill(&TO_QUESTION, CNAME, &TO_QUESTION),
        Hostile::new("addresses of a name of 127 labels", &long).fill(&TO_QUESTION, A, &[192, 0, 2, 1]),
        Hostile::new("addresses of a name of 54 labels", &of_labels(54)).fill(&TO_QUESTION, A, &[192, 0, 2, 1]),
        Hostile::new("addresses of the name above", b"\x01a\x07example\0").fill(&pointer(14), A, &[192, 0, 2, 1]),
        Hostile::new("two long names for each record", &long).fill(
            &TO_QUESTION,
            MINFO,
            &[TO_QUESTION, TO_QUESTION].concat(),
        ),
        Hostile::new("names that grow when written out", &long).fill(
            &TO_QUESTION,
            RP,
            &[TO_QUESTION, TO_QUESTION].concat(),
        ),
        Hostile::new("long names written out", b"\x07example\0").fill(&long, NS, &long),
        named_twice.fill(&pointer(first), NS, &pointer(first)),
        strangers("aliases of strangers", CNAME),
        strangers("servers of strangers", NS),
    ]
}
