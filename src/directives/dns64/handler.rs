//! Makes AAAA records of A records (RFC 6147 section 5).

use super::{Dns64Config, KEYWORD};
use crate::chain::{After, Answer, Failure, FastPath, FastRest, Handler, Next, Outcome, OwnedRequest, Request};
use crate::message::{Class, Rcode, RecordType, Response, Section, WireError, has_answer};
use crate::metrics::Counter;
use futures_util::future::BoxFuture;
use hickory_proto::ProtoError;
use hickory_proto::rr::{RData, RecordType as HickoryType, rdata::AAAA};

/// Seconds that a synthesized address is valid at most where no SOA record says how long its absence is (section
/// 5.1.7).
const LONGEST_TTL_WITHOUT_SOA: u32 = 600;
const AUTHORITATIVE: u16 = 0x0400;
const AUTHENTIC_DATA: u16 = 0x0020;
const RECURSION_AVAILABLE: u16 = 0x0080;

/// The `dns64` of a server block.
pub(super) struct Dns64 {
    pub config: Dns64Config,
    /// One for each listen address.
    pub translated: Box<[Counter]>,
}

impl Dns64 {
    /// Whether its answer may have to be made of IPv4 addresses. Where clients have those themselves, it is not.
    fn concerns(&self, request: &Request<'_>) -> bool {
        let query = request.query;
        query.qtype == RecordType::AAAA
            && query.qclass == Class::IN
            && (self.config.allow_ipv4 || request.peer.client.ip().to_canonical().is_ipv6())
    }

    /// Whether an answer to such a question is given as it is: the name does not exist, or has an IPv6 address
    /// (sections 5.1.1 and 5.1.2).
    fn is_final(&self, response: &Response) -> bool {
        let is_address =
            |record: crate::message::Record<'_>| record.section == Section::Answer && record.rtype == RecordType::AAAA;
        response.rcode() == Rcode::NXDOMAIN || !self.config.translate_all && response.records().any(is_address)
    }

    async fn answer(&self, request: Request<'_>, next: Next<'_>) -> Outcome {
        let of_v6 = next.run(request).await?;
        if self.is_final(&of_v6.response) {
            return Ok(of_v6);
        }
        let asked = for_v4(&request);
        let of_v4 = next.run(asked.borrow()).await?.response;
        if let Some(counter) = self.translated.get(request.server) {
            counter.increment();
        }
        let made = match of_v4.rcode() {
            // That the name has no IPv4 address does not say that it is not there.
            Rcode::NOERROR | Rcode::NXDOMAIN => self.synthesize(&of_v6.response, &of_v4),
            failed => Ok(Response::empty(request.query, request.wire, failed)),
        };
        let failed =
            |error| Failure::servfail(KEYWORD, format!("the answer with IPv6 addresses cannot be composed: {error}"));
        made.map(|response| Answer { response, from: KEYWORD }).map_err(failed)
    }

    fn synthesize(&self, of_v6: &Response, of_v4: &Response) -> Result<Response, SynthesisError> {
        let soa =
            of_v6.records().find(|record| record.section == Section::Authority && record.rtype == RecordType::SOA);
        let longest = soa.map_or(LONGEST_TTL_WITHOUT_SOA, |soa| soa.ttl);
        let mut message = of_v4.to_message()?;
        for query in &mut message.queries {
            query.set_query_type(HickoryType::AAAA);
        }
        for record in &mut message.answers {
            if let RData::A(address) = record.data {
                record.data = RData::AAAA(AAAA(self.config.prefix.map(address.0)));
                record.ttl = record.ttl.min(longest);
            }
        }
        message.metadata.response_code = hickory_proto::op::ResponseCode::NoError;
        let mut response = Response::from_message(&message)?;
        response.set_flag(AUTHORITATIVE, false);
        // Nobody has signed what is made here.
        response.set_flag(AUTHENTIC_DATA, false);
        // As the reference has it, but for an empty answer: without it, that looks like a lame referral to some.
        if response.answer_count() > 0 {
            response.set_flag(RECURSION_AVAILABLE, false);
        }
        Ok(response)
    }
}

#[derive(Debug, thiserror::Error)]
enum SynthesisError {
    #[error("{0}")]
    Read(#[from] ProtoError),
    #[error("{0}")]
    Write(#[from] WireError),
}

/// The question for the IPv4 addresses of the same name.
fn for_v4(request: &Request<'_>) -> OwnedRequest {
    let mut asked = request.to_owned();
    asked.query.qtype = RecordType::A;
    let end = usize::from(asked.query.question_end);
    if let Some(place) = asked.wire.get_mut(end - 4..end - 2) {
        place.copy_from_slice(&RecordType::A.0.to_be_bytes());
    }
    asked
}

impl Handler for Dns64 {
    fn keyword(&self) -> &'static str {
        KEYWORD
    }

    fn serve_fast(&self, request: &Request<'_>, _reply: &mut Vec<u8>) -> FastPath {
        match self.concerns(request) {
            false => FastPath::Pass,
            true if self.config.translate_all => FastPath::Slow,
            true => FastPath::Through,
        }
    }

    fn serve_fast_through(&self, request: &Request<'_>, rest: FastRest<'_>, reply: &mut Vec<u8>) -> (FastPath, usize) {
        let start = reply.len();
        let (said, place) = rest.run(request, reply);
        let FastPath::Answered(after) = said else { return (said, place) };
        let written = reply.get(start..).unwrap_or_default();
        let is_name_error = written.get(3).is_some_and(|octet| u16::from(octet & 0x0f) == Rcode::NXDOMAIN.0);
        if is_name_error || has_answer(written, RecordType::AAAA) {
            return (said, place);
        }
        reply.truncate(start);
        // The answer is made anew; what the cache wanted to be refreshed is refreshed all the same.
        (if after == After::Refresh { FastPath::SlowAndRefresh } else { FastPath::Slow }, place)
    }

    fn serve<'a>(&'a self, request: Request<'a>, next: Next<'a>) -> BoxFuture<'a, Outcome> {
        match self.concerns(&request) {
            true => Box::pin(self.answer(request, next)),
            false => next.run(request),
        }
    }
}
