//! Messages as octets: attackers write what no DNS library would, and some write it a hundred thousand times a second.

/// One of a list, and what it is called.
pub type Named<T> = (&'static str, T);

/// Makes a message.
pub type Make = fn() -> Vec<u8>;

/// Record and query types by number.
pub const A: u16 = 1;
pub const NS: u16 = 2;
pub const CNAME: u16 = 5;
pub const SOA: u16 = 6;
pub const TXT: u16 = 16;
pub const AAAA: u16 = 28;
pub const DNAME: u16 = 39;
pub const OPT: u16 = 41;
pub const ANY: u16 = 255;

pub const NXDOMAIN: u8 = 3;
pub const SERVFAIL: u8 = 2;
pub const REFUSED: u8 = 5;

/// Of what an answer should not be: a cache that tells it has believed somebody it should not.
pub const POISON: [u8; 4] = [6, 6, 6, 6];

/// The pointer to a message's first question name.
pub const QUESTION_NAME: &[u8] = &[0xc0, 12];

/// Seconds.
const TTL: u32 = 3600;

/// A name on the wire from its presentation without escapes.
pub fn name(text: &str) -> Vec<u8> {
    let labels: Vec<&[u8]> = text.split('.').filter(|label| !label.is_empty()).map(str::as_bytes).collect();
    name_of(&labels)
}

/// A name of labels of any octets.
pub fn name_of(labels: &[&[u8]]) -> Vec<u8> {
    let mut octets = Vec::new();
    for label in labels {
        octets.push(u8::try_from(label.len()).expect("a label of at most 63 octets"));
        octets.extend_from_slice(label);
    }
    octets.push(0);
    octets
}

/// What a query says besides its question.
#[derive(Clone, Debug)]
pub struct Ask {
    pub recursion: bool,
    pub checking_disabled: bool,
    pub authentic: bool,
    pub edns: Option<Edns>,
}

#[derive(Clone, Debug, Default)]
pub struct Edns {
    pub payload: u16,
    pub dnssec: bool,
    /// Code and data.
    pub options: Vec<(u16, Vec<u8>)>,
}

impl Default for Ask {
    /// As a stub resolver asks.
    fn default() -> Self {
        Self { recursion: true, checking_disabled: false, authentic: false, edns: None }
    }
}

impl Ask {
    /// With EDNS of this payload.
    pub fn with_payload(payload: u16) -> Self {
        Self { edns: Some(Edns { payload, ..Edns::default() }), ..Self::default() }
    }
    /// With one option.
    pub fn with_option(code: u16, data: &[u8]) -> Self {
        Self {
            edns: Some(Edns { payload: 1232, dnssec: false, options: vec![(code, data.to_vec())] }),
            ..Self::default()
        }
    }

    /// The query, with a random ID.
    pub fn about(&self, name: &[u8], rtype: u16) -> Vec<u8> {
        let [high, low] = fastrand::u16(..).to_be_bytes();
        let flags = [u8::from(self.recursion), u8::from(self.authentic) << 5 | u8::from(self.checking_disabled) << 4];
        let mut wire = vec![high, low, flags[0], flags[1], 0, 1, 0, 0, 0, 0, 0, u8::from(self.edns.is_some())];
        wire.extend_from_slice(name);
        wire.extend_from_slice(&rtype.to_be_bytes());
        wire.extend_from_slice(&[0, 1]);
        if let Some(Edns { payload, dnssec, options }) = &self.edns {
            let data: Vec<u8> = options.iter().flat_map(|(code, data)| option(*code, data)).collect();
            wire.push(0);
            wire.extend_from_slice(&OPT.to_be_bytes());
            wire.extend_from_slice(&payload.to_be_bytes());
            wire.extend_from_slice(&[0, 0, u8::from(*dnssec) << 7, 0]);
            wire.extend_from_slice(&length(&data));
            wire.extend_from_slice(&data);
        }
        wire
    }
}

fn option(code: u16, data: &[u8]) -> Vec<u8> {
    [&code.to_be_bytes(), &length(data), data].concat()
}

fn length(octets: &[u8]) -> [u8; 2] {
    u16::try_from(octets.len()).expect("at most 65,535 octets").to_be_bytes()
}

/// A stub resolver's query with a random ID.
pub fn query(text: &str, rtype: u16) -> Vec<u8> {
    Ask::default().about(&name(text), rtype)
}

/// A message as it goes over TCP.
pub fn framed(message: &[u8]) -> Vec<u8> {
    [&length(message), message].concat()
}

/// The question of a query.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Question {
    /// In lower case, without the last dot.
    pub name: String,
    pub rtype: u16,
    /// Octets of the message up to the question's end.
    pub end: usize,
}

impl Question {
    /// Of a query whose name has no pointers.
    pub fn of(query: &[u8]) -> Option<Self> {
        let mut at = 12;
        let mut name = String::new();
        while *query.get(at)? != 0 {
            let label = query.get(at + 1..at + 1 + usize::from(query[at]))?;
            if !name.is_empty() {
                name.push('.');
            }
            name.extend(label.iter().map(|octet| char::from(octet.to_ascii_lowercase())));
            at += 1 + label.len();
        }
        let rtype = u16::from_be_bytes(query.get(at + 1..at + 3)?.try_into().ok()?);
        (query.len() >= at + 5).then_some(Self { name, rtype, end: at + 5 })
    }

    /// The first label.
    pub fn host(&self) -> &str {
        self.name.split('.').next().unwrap_or_default()
    }

    /// Everything after the first label.
    pub fn zone(&self) -> &str {
        self.name.split_once('.').map_or("", |(_, zone)| zone)
    }
}

/// The header's response code.
pub fn rcode(answer: &[u8]) -> Option<u8> {
    answer.get(3).map(|octet| octet & 0x0f)
}

/// True when the answer says TC.
pub fn is_truncated(answer: &[u8]) -> bool {
    answer.get(2).is_some_and(|octet| octet & 2 != 0)
}

/// Whether the answer's records hold these octets anywhere.
pub fn holds(answer: &[u8], octets: &[u8]) -> bool {
    answer.get(12..).is_some_and(|body| body.windows(octets.len()).any(|window| window == octets))
}

/// The address that the stand-in gives a name (FNV-1a), so that each answer can be judged.
pub fn address_of(name: &str) -> [u8; 4] {
    let hash = name.bytes().fold(0x811c_9dc5_u32, |hash, octet| (hash ^ u32::from(octet)).wrapping_mul(0x0100_0193));
    let [_, b, c, d] = hash.to_be_bytes();
    [10, b, c, d]
}

/// A section of a message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Section {
    Answer,
    Authority,
    Additional,
}

/// An answer that is being written, of whatever records in whatever order.
#[derive(Clone, Debug)]
pub struct Answer {
    pub wire: Vec<u8>,
}

impl Answer {
    /// An empty answer to a query: its ID and question, RD as there, RA.
    pub fn to(query: &[u8], question: &Question) -> Self {
        let mut wire = query[..question.end].to_vec();
        wire[2] = 0x80 | query[2] & 1;
        wire[3] = 0x80;
        wire[4..12].copy_from_slice(&[0, 1, 0, 0, 0, 0, 0, 0]);
        Self { wire }
    }

    pub fn rcode(mut self, rcode: u8) -> Self {
        self.wire[3] = self.wire[3] & 0xf0 | rcode;
        self
    }

    pub fn truncated(mut self) -> Self {
        self.wire[2] |= 2;
        self
    }

    /// Appends a record whose owner is any octets.
    pub fn push(&mut self, section: Section, owner: &[u8], rtype: u16, data: &[u8]) {
        self.push_with_ttl(section, owner, rtype, TTL, data);
    }

    pub fn push_with_ttl(&mut self, section: Section, owner: &[u8], rtype: u16, ttl: u32, data: &[u8]) {
        self.wire.extend_from_slice(owner);
        self.wire.extend_from_slice(&rtype.to_be_bytes());
        self.wire.extend_from_slice(&[0, 1]);
        self.wire.extend_from_slice(&ttl.to_be_bytes());
        self.wire.extend_from_slice(&length(data));
        self.wire.extend_from_slice(data);
        let at = 6 + 2 * section as usize;
        let count = u16::from_be_bytes([self.wire[at], self.wire[at + 1]]).wrapping_add(1);
        self.wire[at..at + 2].copy_from_slice(&count.to_be_bytes());
    }

    pub fn with(mut self, section: Section, owner: &[u8], rtype: u16, data: &[u8]) -> Self {
        self.push(section, owner, rtype, data);
        self
    }

    /// An SOA record in the authority section: the answer says that there is nothing.
    pub fn with_soa(mut self, ttl: u32) -> Self {
        let data = [QUESTION_NAME, QUESTION_NAME, &[0, 0, 0, 1].repeat(4), &ttl.to_be_bytes()].concat();
        self.push_with_ttl(Section::Authority, QUESTION_NAME, SOA, ttl, &data);
        self
    }

    /// Octets so far.
    pub fn len(&self) -> usize {
        self.wire.len()
    }
}

#[test]
fn a_question_is_read_back() {
    let wire = Ask::with_option(10, &[1; 8]).about(&name("Host.zone.Example."), AAAA);
    let question = Question::of(&wire).expect("it is well-formed");
    assert_eq!((question.host(), question.zone(), question.rtype), ("host", "zone.example", AAAA));
    assert_eq!(Question::of(&wire[..question.end - 1]), None);
}

#[test]
fn an_answer_is_what_a_library_reads() {
    let wire = query("a.example", A);
    let question = Question::of(&wire).expect("it is well-formed");
    let answer = Answer::to(&wire, &question)
        .with(Section::Answer, QUESTION_NAME, A, &[10, 1, 2, 3])
        .with_soa(5)
        .rcode(NXDOMAIN);
    let read = hickory_proto::op::Message::from_vec(&answer.wire).expect("it is well-formed");
    assert_eq!((read.answers.len(), read.authorities.len()), (1, 1));
    assert_eq!(rcode(&answer.wire), Some(NXDOMAIN));
    assert!(holds(&answer.wire, &[10, 1, 2, 3]) && !is_truncated(&answer.wire));
}
