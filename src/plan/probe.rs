//! The watchdog's questions and what a server answers them with: TXT in class CH of names that no cluster's name can
//! collide with. The answer is the server's generation number, so that nobody else's answer passes for it: neither that
//! of another server on the same address (SO_REUSEPORT, while a pod is replaced) nor that of cluster DNS behind a DNAT
//! rule.
//!
//! One question goes the way of a cache hit, the other one that of a miss: it takes a place, and is answered by a
//! handler of a chain, in the task that all misses of its socket share. No upstream is asked, and nothing is counted or
//! logged.

use super::Block;
use crate::chain::{Answer, Course, Explanation, Failure, Following, Handler, Next, Outcome, Request};
use crate::message::{Class, Query, Rcode, RecordType, Response, Section};
use futures_util::future::BoxFuture;
use hickory_proto::rr::rdata::TXT;
use hickory_proto::rr::{DNSClass, Name, RData, Record};
use std::sync::Arc;

/// Which way a probe takes through the server.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ProbePath {
    /// That of a query whose answer is at hand.
    Fast,
    /// That of a query whose answer is not.
    Slow,
}

impl ProbePath {
    /// The other one.
    pub fn other(self) -> Self {
        match self {
            Self::Fast => Self::Slow,
            Self::Slow => Self::Fast,
        }
    }

    /// The name that is asked for, in wire form.
    fn name(self) -> &'static [u8] {
        match self {
            Self::Fast => b"\x05probe\x0cnodelocaldns\x00",
            Self::Slow => b"\x04slow\x05probe\x0cnodelocaldns\x00",
        }
    }
}

/// The probe as it goes over UDP; over TCP its length stands in front.
pub fn question(id: u16, path: ProbePath) -> Vec<u8> {
    let mut message = Query::compose(id, path.name(), RecordType::TXT, false);
    let class = message.len() - 2;
    message.splice(class.., Class::CH.0.to_be_bytes());
    message
}

/// The generation in an answer to the probe with this ID; `None` if it is not one.
pub fn read_answer(id: u16, path: ProbePath, wire: &[u8]) -> Option<u64> {
    if wire.get(..2)? != id.to_be_bytes() {
        return None;
    }
    let response = Response::read(wire)
        .ok()
        .filter(|response| response.question_matches(path.name(), RecordType::TXT, Class::CH))?;
    if response.rcode() != Rcode::NOERROR {
        return None;
    }
    let record =
        response.records().find(|record| record.section == Section::Answer && record.rtype == RecordType::TXT)?;
    let (length, text) = record.rdata().split_first()?;
    std::str::from_utf8(text.get(..usize::from(*length))?).ok()?.parse().ok()
}

/// The way that `query` is to take if it is a probe.
pub fn path(query: &Query) -> Option<ProbePath> {
    let is_asked = |path: &ProbePath| query.name.as_wire() == path.name();
    let is_probe = query.qclass == Class::CH && query.qtype == RecordType::TXT;
    [ProbePath::Fast, ProbePath::Slow].into_iter().find(|path| is_probe && is_asked(path))
}

/// What a server of this generation answers to a probe.
pub fn answer(query: &Query, wire: &[u8], generation: u64) -> Option<Response> {
    let owner = Name::from_ascii("probe.nodelocaldns.").ok()?;
    let mut record = Record::from_rdata(owner, 0, RData::TXT(TXT::new(vec![generation.to_string()])));
    record.dns_class = DNSClass::CH;
    Response::from_records(query, wire, Rcode::NOERROR, &[(Section::Answer, record)]).ok()
}

/// A block that answers probes alone.
pub(super) fn block(generation: u64) -> Block {
    Block::of(Box::new([Arc::new(ProbeHandler { generation })]))
}

struct ProbeHandler {
    generation: u64,
}

impl ProbeHandler {
    fn answer(&self, request: &Request<'_>) -> Outcome {
        let response = answer(request.query, request.wire, self.generation);
        let response = response.ok_or_else(|| Failure::servfail("", "the probe's answer cannot be written"))?;
        Ok(Answer { response, from: "" })
    }
}

impl Handler for ProbeHandler {
    fn keyword(&self) -> &'static str {
        ""
    }

    fn explain(&self, request: &Request<'_>, _rest: Following<'_>, explanation: &mut Explanation) -> Course {
        explanation.end(self.answer(request), None)
    }

    fn serve<'a>(&'a self, request: Request<'a>, _next: Next<'a>) -> BoxFuture<'a, Outcome> {
        Box::pin(async move {
            // As what waits for an upstream: it is gone on with when the worker is told to.
            tokio::task::yield_now().await;
            self.answer(&request)
        })
    }
}

#[cfg(test)]
mod tests {
    use super::{ProbePath, answer, path, question, read_answer};
    use crate::message::{Class, DEFAULT_UDP_SIZE, Query, RecordType, ReplyShape, TtlRule};

    #[test]
    fn the_question_is_a_well_formed_query_for_the_probes_name() {
        for way in [ProbePath::Fast, ProbePath::Slow] {
            let wire = question(0xabcd, way);
            let query = Query::read(&wire).unwrap();
            assert_eq!((query.header.id, query.qtype, query.qclass), (0xabcd, RecordType::TXT, Class::CH));
            assert_eq!((query.name.as_wire(), path(&query)), (way.name(), Some(way)));
        }
        let other = Query::compose(1, ProbePath::Slow.name(), RecordType::TXT, false);
        assert_eq!(path(&Query::read(&other).unwrap()), None, "of class IN");
    }

    #[test]
    fn an_answer_with_an_error_code_is_none_whatever_it_holds() {
        let wire = question(1, ProbePath::Fast);
        let query = Query::read(&wire).unwrap();
        let mut out = Vec::new();
        let reply = ReplyShape { ttl: TtlRule::Keep, limit: 512, udp_size: DEFAULT_UDP_SIZE };
        answer(&query, &wire, 7).unwrap().write(&query, &wire, reply, &mut out);
        assert_eq!(read_answer(1, ProbePath::Fast, &out), Some(7));
        assert_eq!(read_answer(1, ProbePath::Slow, &out), None);
        for rcode in [2, 5] {
            out[3] = out[3] & 0xf0 | rcode;
            assert_eq!(read_answer(1, ProbePath::Fast, &out), None);
        }
    }

    #[test]
    fn octets_that_are_no_answer_are_none() {
        for wire in [&b""[..], b"\x00", &question(0, ProbePath::Fast), &[0; 12], &[0xff; 600]] {
            assert_eq!(read_answer(0, ProbePath::Fast, wire), None);
        }
    }
}
