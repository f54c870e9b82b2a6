//! The watchdog's question and what a server answers it with: TXT of `probe.nodelocaldns.` in class CH, which no
//! cluster's name can collide with, goes the whole way of a client's query but for the chains. The answer is the
//! server's generation number, so that nobody else's answer passes for it: neither that of another server on the same
//! address (SO_REUSEPORT, while a pod is replaced) nor that of cluster DNS behind a DNAT rule.

use crate::message::{Class, Query, Rcode, RecordType, Response, Section};
use hickory_proto::rr::rdata::TXT;
use hickory_proto::rr::{DNSClass, Name, RData, Record};

/// `probe.nodelocaldns.` in wire form.
const NAME: &[u8] = b"\x05probe\x0cnodelocaldns\x00";

/// The probe as it goes over UDP; over TCP its length stands in front.
pub fn question(id: u16) -> Vec<u8> {
    let mut message = Query::compose(id, NAME, RecordType::TXT, false);
    let class = message.len() - 2;
    message.splice(class.., Class::CH.0.to_be_bytes());
    message
}

/// The generation in an answer to the probe with this ID; `None` if it is not one.
pub fn read_answer(id: u16, wire: &[u8]) -> Option<u64> {
    if wire.get(..2)? != id.to_be_bytes() {
        return None;
    }
    let response =
        Response::read(wire).ok().filter(|response| response.question_matches(NAME, RecordType::TXT, Class::CH))?;
    if response.rcode() != Rcode::NOERROR {
        return None;
    }
    let record =
        response.records().find(|record| record.section == Section::Answer && record.rtype == RecordType::TXT)?;
    let (length, text) = record.rdata().split_first()?;
    std::str::from_utf8(text.get(..usize::from(*length))?).ok()?.parse().ok()
}

/// What a server of this generation answers if `query` is the probe.
pub fn answer(query: &Query, wire: &[u8], generation: u64) -> Option<Response> {
    if query.qtype != RecordType::TXT || query.name.as_wire() != NAME {
        return None;
    }
    let owner = Name::from_ascii("probe.nodelocaldns.").ok()?;
    let mut record = Record::from_rdata(owner, 0, RData::TXT(TXT::new(vec![generation.to_string()])));
    record.dns_class = DNSClass::CH;
    Response::from_records(query, wire, Rcode::NOERROR, &[(Section::Answer, record)]).ok()
}

#[cfg(test)]
mod tests {
    use super::{NAME, answer, question, read_answer};
    use crate::message::{Class, DEFAULT_UDP_SIZE, Query, RecordType, Reply, TtlRule};

    #[test]
    fn the_question_is_a_well_formed_query_for_the_probes_name() {
        let wire = question(0xabcd);
        let query = Query::read(&wire).unwrap();
        assert_eq!((query.header.id, query.qtype, query.qclass), (0xabcd, RecordType::TXT, Class::CH));
        assert_eq!(query.name.as_wire(), NAME);
    }

    #[test]
    fn an_answer_with_an_error_code_is_none_whatever_it_holds() {
        let wire = question(1);
        let query = Query::read(&wire).unwrap();
        let mut out = Vec::new();
        let reply = Reply { ttl: TtlRule::Keep, limit: 512, udp_size: DEFAULT_UDP_SIZE };
        answer(&query, &wire, 7).unwrap().write(&query, &wire, reply, &mut out);
        assert_eq!(read_answer(1, &out), Some(7));
        for rcode in [2, 5] {
            out[3] = out[3] & 0xf0 | rcode;
            assert_eq!(read_answer(1, &out), None);
        }
    }

    #[test]
    fn octets_that_are_no_answer_are_none() {
        for wire in [&b""[..], b"\x00", &question(0), &[0; 12], &[0xff; 600]] {
            assert_eq!(read_answer(0, wire), None);
        }
    }
}
