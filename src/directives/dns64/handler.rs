//! Makes AAAA records of A records (RFC 6147 section 5).

use super::{Dns64Config, KEYWORD};
use crate::chain::{
    After, Answer, Course, Effect, Explanation, Failure, FastPath, FastRest, Following, Handler, HitCounter,
    HitCounters, Next, Outcome, OwnedRequest, PacketAnswer, Request,
};
use crate::message::{
    Class, Edit, LowerName, Query, Rcode, RecordType, ReplyOptions, Response, Section, TtlRule, WireError, absence_ttl,
    edit_reply, has_answer,
};
use crate::metrics::Counter;
use futures_util::future::BoxFuture;
use hickory_proto::ProtoError;
use hickory_proto::rr::{RData, RecordType as HickoryType, rdata::AAAA};
use std::sync::Arc;

/// Seconds that a synthesized address is valid at most where no SOA record says how long its absence is (section
/// 5.1.7).
const LONGEST_TTL_WITHOUT_SOA: u32 = 600;
const AUTHORITATIVE: u16 = 0x0400;
const AUTHENTIC_DATA: u16 = 0x0020;
const RECURSION_AVAILABLE: u16 = 0x0080;
const TRUNCATED: u16 = 0x0200;

/// Octets of a query that are kept on the stack for the second question; with longer ones the slow path is taken.
const QUICK_LENGTH: usize = 256;

/// The `dns64` of a server block.
pub(super) struct Dns64 {
    pub config: Dns64Config,
    /// One for each listen address.
    pub translated: Box<[Arc<Counter>]>,
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
        if let Some(counter) = self.translated.get(request.server_index) {
            counter.increment();
        }
        self.answer_of(&request, &of_v6.response, &of_v4)
    }

    /// The answer that is made of the two.
    fn answer_of(&self, request: &Request<'_>, of_v6: &Response, of_v4: &Response) -> Outcome {
        let synthesized = match of_v4.rcode() {
            // That the name has no IPv4 address does not say that it is not there.
            Rcode::NOERROR | Rcode::NXDOMAIN => self.synthesize(of_v6, of_v4),
            failed => Ok(Response::empty(request.query, request.wire, failed)),
        };
        let failed =
            |error| Failure::servfail(KEYWORD, format!("the answer with IPv6 addresses cannot be composed: {error}"));
        synthesized.map(|response| Answer { response, from: KEYWORD }).map_err(failed)
    }

    /// Asks the rest of the chain for the IPv4 addresses, and makes of its reply the one with IPv6 addresses, valid for
    /// so many seconds at most: what the rest said, and whose place that is. Nothing is written unless it answered.
    fn synthesize_fast(
        &self,
        request: &Request<'_>,
        longest: u32,
        rest: FastRest<'_>,
        reply: &mut Vec<u8>,
    ) -> (FastPath, usize) {
        let start = reply.len();
        let mut octets = [0; QUICK_LENGTH];
        let Some(wire) = octets.get_mut(..request.wire.len()) else { return (FastPath::Slow, rest.position()) };
        wire.copy_from_slice(request.wire);
        let mut query = request.query.clone();
        ask_for_v4(&mut query, wire);
        let (said, place) = rest.run(&Request { wire, query: &query, ..*request }, reply);
        let FastPath::Answered(after) = said else {
            let is_whole = matches!(said, FastPath::Silent | FastPath::SlowAndRefresh);
            return (if is_whole { said } else { FastPath::Slow }, place);
        };
        let failed = match rcode_of(reply.get(start..).unwrap_or_default()) {
            // That the name has no IPv4 address does not say that it is not there.
            Rcode::NOERROR | Rcode::NXDOMAIN => None,
            failed => Some(failed),
        };
        if let Some(failed) = failed {
            reply.truncate(start);
            request.query.write_empty(request.wire, failed, request.udp_size(), &ReplyOptions::default(), reply);
            return (said, place);
        }
        let synthesis = Synthesis { config: &self.config, longest };
        if edit_reply((request.query, request.wire), &query.name, &synthesis, request.limit(), reply, start).is_err() {
            reply.truncate(start);
            return (if after == After::Refresh { FastPath::SlowAndRefresh } else { FastPath::Slow }, place);
        }
        if let Some([_, _, high, low, _, _, answers @ .., _, _, _, _]) =
            reply.get_mut(start..).and_then(<[u8]>::first_chunk_mut::<12>)
        {
            let flags = u16::from_be_bytes([*high, *low]) & !cleared(answers != &[0, 0]);
            [*high, *low] = flags.to_be_bytes();
        }
        (said, place)
    }

    /// [`Dns64::synthesize_fast`] once the question for IPv6 addresses was answered with none: what is to follow that
    /// answer, and whose it is.
    fn translate_fast(
        &self,
        request: &Request<'_>,
        (of_v6, v6_position): (After, usize),
        longest: u32,
        rest: FastRest<'_>,
        reply: &mut Vec<u8>,
    ) -> (FastPath, usize) {
        let shown = rest.show(request, RecordType::A, &mut |of_v4, ttl| {
            let shape = request.reply(TtlRule::Set(ttl.min(longest)));
            let map = |address: [u8; 4]| self.config.prefix.map(address.into()).octets();
            of_v4.write_translated((request.query, request.wire), shape, cleared(true), map, reply)
        });
        let (said, v4_position) = match shown {
            Some(of_v4) => (FastPath::Answered(of_v4), rest.position()),
            None => self.synthesize_fast(request, longest, rest, reply),
        };
        match said {
            FastPath::Answered(of_v4) => {
                if let Some(counter) = self.translated.get(request.server_index) {
                    counter.increment();
                }
                (FastPath::Answered(after_both([(of_v6, v6_position), (of_v4, v4_position)])), rest.position() - 1)
            }
            FastPath::Slow => (slow_after(of_v6), v4_position),
            said => (said, v4_position),
        }
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
        let cleared = cleared(response.answer_count() > 0);
        for flag in [AUTHORITATIVE, AUTHENTIC_DATA, RECURSION_AVAILABLE].into_iter().filter(|flag| cleared & flag != 0)
        {
            response.set_flag(flag, false);
        }
        Ok(response)
    }
}

/// Flags that an answer which was made here does not have. Nobody has signed it. RA is cleared as the reference has it,
/// but for an empty answer: without it, that looks like a lame referral to some.
fn cleared(has_answers: bool) -> u16 {
    AUTHORITATIVE | AUTHENTIC_DATA | if has_answers { RECURSION_AVAILABLE } else { 0 }
}

/// Whether a reply's header has a flag set.
fn has_flag(reply: &[u8], flag: u16) -> bool {
    reply.get(2..4).is_some_and(|flags| u16::from_be_bytes([flags[0], flags[1]]) & flag != 0)
}

fn rcode_of(reply: &[u8]) -> Rcode {
    Rcode(reply.get(3).map_or(0, |octet| u16::from(octet & 0x0f)))
}

/// What becomes of a reply with IPv4 addresses.
struct Synthesis<'a> {
    config: &'a Dns64Config,
    /// Seconds that an address is valid at most.
    longest: u32,
}

impl Edit for Synthesis<'_> {
    fn owner(&self, _name: &LowerName) -> Option<LowerName> {
        None
    }
    fn restores(&self, _asked: &LowerName, _client: &LowerName) -> bool {
        // The other question is for the same name.
        true
    }
    fn value(&self, _name: &LowerName) -> Option<LowerName> {
        None
    }
    fn ttl(&self, seconds: u32) -> u32 {
        seconds
    }
    fn address(&self, seconds: u32, address: [u8; 4]) -> Option<(u32, [u8; 16])> {
        Some((seconds.min(self.longest), self.config.prefix.map(address.into()).octets()))
    }
    fn rcode(&self, _rcode: Rcode) -> Rcode {
        Rcode::NOERROR
    }
}

/// Who gave the two replies that one is made of, in 32 bits. `None` if that is not enough.
fn note_of([v6, v4]: [PacketAnswer; 2]) -> Option<u32> {
    let numbers = [v6.position as u32, v6.note, v4.position as u32, v4.note];
    let fits = numbers.into_iter().fold(0, |all, number| all | number) <= u8::MAX.into();
    fits.then(|| u32::from_be_bytes(numbers.map(|number| number as u8)))
}

fn answers_of(note: u32) -> [PacketAnswer; 2] {
    let [v6_position, v6_note, v4_position, v4_note] = note.to_be_bytes();
    let answer = |position: u8, note: u8| PacketAnswer { position: position.into(), note: note.into() };
    [answer(v6_position, v6_note), answer(v4_position, v4_note)]
}

/// The slow path makes the answer; what the cache wanted to be refreshed is refreshed all the same.
fn slow_after(of_v6: After) -> FastPath {
    if of_v6 == After::Refresh { FastPath::SlowAndRefresh } else { FastPath::Slow }
}

/// What follows a reply that is made of two.
fn after_both([(v6, v6_position), (v4, v4_position)]: [(After, usize); 2]) -> After {
    match (v6, v4) {
        (After::Refresh, _) | (_, After::Refresh) => After::Refresh,
        (After::CachePacket { millis: v6_millis, note: v6 }, After::CachePacket { millis: v4_millis, note: v4 }) => {
            let answers =
                [PacketAnswer { position: v6_position, note: v6 }, PacketAnswer { position: v4_position, note: v4 }];
            let millis = v6_millis.min(v4_millis);
            note_of(answers).map_or(After::Nothing, |note| After::CachePacket { millis, note })
        }
        _ => After::Nothing,
    }
}

#[derive(Debug, thiserror::Error)]
enum SynthesisError {
    #[error("{0}")]
    Read(#[from] ProtoError),
    #[error("{0}")]
    Write(#[from] WireError),
}

/// Makes of a query, whose octets are `wire`, the one for the IPv4 addresses of the same name.
#[inline]
fn ask_for_v4(query: &mut Query, wire: &mut [u8]) {
    query.qtype = RecordType::A;
    let end = usize::from(query.question_end);
    if let Some(place) = wire.get_mut(end - 4..end - 2) {
        place.copy_from_slice(&RecordType::A.0.to_be_bytes());
    }
}

fn for_v4(request: &Request<'_>) -> OwnedRequest {
    let mut asked = request.to_owned();
    ask_for_v4(&mut asked.query, &mut asked.wire);
    asked
}

impl Handler for Dns64 {
    fn keyword(&self) -> &'static str {
        KEYWORD
    }

    fn explain(&self, request: &Request<'_>, rest: Following<'_>, explanation: &mut Explanation) -> Course {
        if !self.concerns(request) {
            explanation.say(match request.query.qtype {
                RecordType::AAAA => "the client has IPv4",
                _ => "is for questions of type AAAA alone",
            });
            return rest.explain(request, explanation);
        }
        explanation.say(if self.config.translate_all {
            "asks for IPv4 addresses too, and makes IPv6 addresses of them"
        } else {
            "if the answer has no IPv6 address, asks for IPv4 addresses, and makes IPv6 addresses of them"
        });
        let step = explanation.step();
        let of_v6 = match rest.explain(request, explanation) {
            Course::Known(Ok(answer)) if !self.is_final(&answer.response) => answer,
            course => return course,
        };
        explanation.again(step);
        explanation.set_effect(Effect::Changes);
        explanation.say("asks for type A, as that answer has no IPv6 address that is to be given");
        let of_v4 = match rest.explain(&for_v4(request).borrow(), explanation) {
            Course::Known(Ok(answer)) => answer,
            course => return course,
        };
        explanation.again(step);
        explanation.say("makes the answer of that one");
        explanation.end(self.answer_of(request, &of_v6.response, &of_v4.response), None)
    }

    fn serve_fast(&self, request: &Request<'_>, _reply: &mut Vec<u8>) -> FastPath {
        if self.concerns(request) { FastPath::Through } else { FastPath::Pass }
    }

    fn serve_fast_through(&self, request: &Request<'_>, rest: FastRest<'_>, reply: &mut Vec<u8>) -> (FastPath, usize) {
        let mut longest = LONGEST_TTL_WITHOUT_SOA;
        let absent = rest.show(request, RecordType::AAAA, &mut |of_v6, ttl| {
            let absence = of_v6.absence();
            if absence == Some(true) {
                longest = ttl;
            }
            absence.is_some()
        });
        if let Some(of_v6) = absent {
            return self.translate_fast(request, (of_v6, rest.position()), longest, rest, reply);
        }
        let start = reply.len();
        let (said, v6_position) = rest.run(request, reply);
        let FastPath::Answered(of_v6) = said else { return (said, v6_position) };
        let written = reply.get(start..).unwrap_or_default();
        let has_address = || !self.config.translate_all && has_answer(written, RecordType::AAAA);
        if rcode_of(written) == Rcode::NXDOMAIN || has_address() {
            return (said, v6_position);
        }
        let longest = absence_ttl(written).map(|ttl| ttl.unwrap_or(LONGEST_TTL_WITHOUT_SOA));
        let longest = longest.ok().filter(|_| !has_flag(written, TRUNCATED));
        reply.truncate(start);
        match longest {
            Some(longest) => self.translate_fast(request, (of_v6, v6_position), longest, rest, reply),
            None => (slow_after(of_v6), v6_position),
        }
    }

    fn hit_counters(
        &self,
        request: &Request<'_>,
        answered: PacketAnswer,
        rest: FastRest<'_>,
        counters: &mut HitCounters,
    ) {
        if answered.position >= rest.position() {
            return rest.hit_counters(request, answered, counters);
        }
        let [v6, v4] = answers_of(answered.note);
        rest.hit_counters(request, v6, counters);
        rest.hit_counters(&for_v4(request).borrow(), v4, counters);
        counters
            .extend(self.translated.get(request.server_index).map(|counter| counter.clone() as Arc<dyn HitCounter>));
    }

    fn serve<'a>(&'a self, request: Request<'a>, next: Next<'a>) -> BoxFuture<'a, Outcome> {
        match self.concerns(&request) {
            true => Box::pin(self.answer(request, next)),
            false => next.run(request),
        }
    }
}
