//! Messages for the tests of this folder, put together octet by octet.

use crate::message::{Name, Query, Response};

pub(super) const A: u16 = 1;
pub(super) const NS: u16 = 2;
pub(super) const CNAME: u16 = 5;
pub(super) const SOA: u16 = 6;
pub(super) const TXT: u16 = 16;
pub(super) const AAAA: u16 = 28;
pub(super) const RRSIG: u16 = 46;
pub(super) const ANY: u16 = 255;

pub(super) const TC: u16 = 0x0200;
pub(super) const AA: u16 = 0x0400;
pub(super) const AD: u16 = 0x0020;

pub(super) const NOERROR: u16 = 0;
pub(super) const SERVFAIL: u16 = 2;
pub(super) const NXDOMAIN: u16 = 3;
pub(super) const NOTIMP: u16 = 4;
pub(super) const REFUSED: u16 = 5;

pub(super) fn name(text: &str) -> Vec<u8> {
    Name::parse(text).expect("a good name").as_wire().to_vec()
}

/// A record: owner, type, TTL, data.
pub(super) fn record(owner: &str, rtype: u16, ttl: u32, rdata: &[u8]) -> Vec<u8> {
    let length = u16::try_from(rdata.len()).expect("short data");
    let fixed = [&rtype.to_be_bytes()[..], &1_u16.to_be_bytes(), &ttl.to_be_bytes(), &length.to_be_bytes()].concat();
    [name(owner), fixed, rdata.to_vec()].concat()
}

pub(super) fn a(owner: &str, ttl: u32, last: u8) -> Vec<u8> {
    record(owner, A, ttl, &[192, 0, 2, last])
}

pub(super) fn cname(owner: &str, ttl: u32, target: &str) -> Vec<u8> {
    record(owner, CNAME, ttl, &name(target))
}

/// An SOA record with this TTL and MINIMUM.
pub(super) fn soa(zone: &str, ttl: u32, minimum: u32) -> Vec<u8> {
    let numbers: Vec<u8> =
        [7, 7200, 900, 1_209_600, minimum].iter().flat_map(|number: &u32| number.to_be_bytes()).collect();
    record(zone, SOA, ttl, &[name("ns.example."), name("host.example."), numbers].concat())
}

/// Sections of an answer.
#[derive(Clone, Default)]
pub(super) struct Sections {
    pub answer: Vec<Vec<u8>>,
    pub authority: Vec<Vec<u8>>,
    pub additional: Vec<Vec<u8>>,
}

impl Sections {
    pub(super) fn answer(records: &[Vec<u8>]) -> Self {
        Self { answer: records.to_vec(), ..Self::default() }
    }
    pub(super) fn authority(records: &[Vec<u8>]) -> Self {
        Self { authority: records.to_vec(), ..Self::default() }
    }
}

pub(super) fn response(qname: &str, qtype: u16, rcode: u16, flags: u16, sections: &Sections) -> Response {
    let Sections { answer, authority, additional } = sections;
    let counts = [1, answer.len(), authority.len(), additional.len()];
    let mut wire: Vec<u8> = [0, 0x8180 | flags | rcode].iter().flat_map(|word: &u16| word.to_be_bytes()).collect();
    wire.extend(counts.iter().flat_map(|count| u16::try_from(*count).expect("few records").to_be_bytes()));
    wire.extend(name(qname));
    wire.extend([qtype.to_be_bytes(), 1_u16.to_be_bytes()].concat());
    wire.extend([answer, authority, additional].into_iter().flatten().flatten());
    Response::read(&wire).expect("a good answer")
}

/// An OPT record with or without DO.
pub(super) fn opt(dnssec_ok: bool) -> Vec<u8> {
    vec![0, 0, 41, 0x10, 0, 0, 0, if dnssec_ok { 0x80 } else { 0 }, 0, 0, 0]
}

/// A client's query with RD.
pub(super) fn query(qname: &str, qtype: u16, flags: u16, edns: Option<bool>) -> (Vec<u8>, Query) {
    let mut wire: Vec<u8> = [0x1234, 0x0100 | flags, 1, 0, 0, u16::from(edns.is_some())]
        .iter()
        .flat_map(|word| word.to_be_bytes())
        .collect();
    wire.extend(name(qname));
    wire.extend([qtype.to_be_bytes(), 1_u16.to_be_bytes()].concat());
    wire.extend(edns.map(opt).unwrap_or_default());
    let Ok(query) = Query::read(&wire) else { panic!("a good query") };
    (wire, query)
}
