//! Answers queries for names and addresses of the table.

use super::KEYWORD;
use super::table::Table;
use crate::chain::{After, Answer, Course, Explanation, Failure, FastPath, Following, Handler, Next, Outcome, Request};
use crate::message::{Class, LowerName, OwnAnswer, Query, Rcode, RecordType, ReplyShape, Response, TtlRule, WireError};
use arc_swap::ArcSwap;
use futures_util::future::BoxFuture;
use std::sync::Arc;

/// How long a reply may be given again as it is: a changed file shows after that.
const REPEATED_MILLIS: u16 = 500;

/// The `hosts` of a server block.
pub(super) struct Hosts {
    pub table: Arc<ArcSwap<Table>>,
    pub origins: Arc<[LowerName]>,
    /// Seconds.
    pub ttl: u32,
    /// Names in these zones that are not there are handed on.
    pub falls_through: Box<[LowerName]>,
    /// So are questions of other types for names in those zones that are there.
    pub other_types_fall_through: bool,
}

/// What is said to a query.
enum Say<'t> {
    Nothing,
    V4(&'t [[u8; 4]]),
    V6(&'t [[u8; 16]]),
    Names(&'t [Arc<[u8]>]),
    /// The name is there, and has nothing of this type.
    NoData,
    /// There is no SOA record to deny a name with, so that is a failure.
    Failure,
}

impl Say<'_> {
    fn rcode(&self) -> Rcode {
        if matches!(self, Self::Failure) { Rcode::SERVFAIL } else { Rcode::NOERROR }
    }
}

impl Hosts {
    fn say<'t>(&self, table: &'t Table, query: &Query) -> Say<'t> {
        let name = &query.name;
        if query.qclass != Class::IN {
            return Say::Nothing;
        }
        if query.qtype == RecordType::PTR {
            // In whatever zone: addresses have names though the zones are forward ones alone.
            return match table.reverse(name) {
                [] => Say::Nothing,
                names => Say::Names(names),
            };
        }
        if !is_within_any(name, &self.origins) {
            return Say::Nothing;
        }
        match query.qtype {
            RecordType::A if !table.v4(name).is_empty() => return Say::V4(table.v4(name)),
            RecordType::AAAA if !table.v6(name).is_empty() => return Say::V6(table.v6(name)),
            _ => {}
        }
        let is_address = matches!(query.qtype, RecordType::A | RecordType::AAAA);
        let falls_through = || is_within_any(name, &self.falls_through);
        match table.has(name) {
            true if is_address || !(self.other_types_fall_through && falls_through()) => Say::NoData,
            true => Say::Nothing,
            false if falls_through() => Say::Nothing,
            false => Say::Failure,
        }
    }

    fn answer(&self, say: &Say<'_>, query: &Query) -> OwnAnswer {
        OwnAnswer { rcode: say.rcode(), rtype: query.qtype, ttl: self.ttl }
    }

    fn write(&self, say: &Say<'_>, query: &Query, wire: &[u8], reply: ReplyShape, out: &mut Vec<u8>) {
        let answer = self.answer(say, query);
        match say {
            Say::V4(addresses) => answer.write(query, wire, reply, addresses.iter().map(|address| &address[..]), out),
            Say::V6(addresses) => answer.write(query, wire, reply, addresses.iter().map(|address| &address[..]), out),
            Say::Names(names) => answer.write(query, wire, reply, names.iter().map(|name| &name[..]), out),
            Say::Nothing | Say::NoData | Say::Failure => answer.write(query, wire, reply, std::iter::empty(), out),
        }
    }

    fn response(&self, say: &Say<'_>, query: &Query, wire: &[u8]) -> Result<Response, WireError> {
        let answer = self.answer(say, query);
        match say {
            Say::V4(addresses) => answer.response(query, wire, addresses.iter().map(|address| &address[..])),
            Say::V6(addresses) => answer.response(query, wire, addresses.iter().map(|address| &address[..])),
            Say::Names(names) => answer.response(query, wire, names.iter().map(|name| &name[..])),
            Say::Nothing | Say::NoData | Say::Failure => answer.response(query, wire, std::iter::empty()),
        }
    }

    fn outcome(&self, say: &Say<'_>, request: &Request<'_>) -> Outcome {
        let response = self.response(say, request.query, request.wire);
        response
            .map(|response| Answer { response, from: KEYWORD })
            .map_err(|error| Failure::servfail(KEYWORD, format!("the answer cannot be composed: {error}")))
    }
}

fn is_within_any(name: &LowerName, zones: &[LowerName]) -> bool {
    zones.iter().any(|zone| name.is_within(zone.as_wire()))
}

impl Handler for Hosts {
    fn keyword(&self) -> &'static str {
        KEYWORD
    }

    fn explain(&self, request: &Request<'_>, rest: Following<'_>, explanation: &mut Explanation) -> Course {
        let table = self.table.load();
        let query = request.query;
        let say = self.say(&table, query);
        explanation.say(match &say {
            Say::Nothing if query.qclass != Class::IN => "is for class IN alone",
            Say::Nothing if query.qtype == RecordType::PTR => "no entry has the address",
            Say::Nothing if !is_within_any(&query.name, &self.origins) => "the name is in none of its zones",
            Say::Nothing if table.has(&query.name) => "an entry has the name, and not the type: falls through",
            Say::Nothing => "no entry has the name: falls through",
            Say::V4(_) | Say::V6(_) => "an entry has the name",
            Say::Names(_) => "an entry has the address",
            Say::NoData => "an entry has the name, and none an address of this type",
            Say::Failure => "no entry has the name, and it does not fall through",
        });
        if matches!(say, Say::Nothing) {
            return rest.explain(request, explanation);
        }
        explanation.end(self.outcome(&say, request), None)
    }

    fn serve_fast(&self, request: &Request<'_>, reply: &mut Vec<u8>) -> FastPath {
        let table = self.table.load();
        let say = self.say(&table, request.query);
        if matches!(say, Say::Nothing) {
            return FastPath::Pass;
        }
        self.write(&say, request.query, request.wire, request.reply(TtlRule::Keep), reply);
        FastPath::Answered(After::CachePacket { millis: REPEATED_MILLIS, note: 0 })
    }

    fn serve<'a>(&'a self, request: Request<'a>, next: Next<'a>) -> BoxFuture<'a, Outcome> {
        let table = self.table.load();
        let say = self.say(&table, request.query);
        if matches!(say, Say::Nothing) {
            return next.run(request);
        }
        let outcome = self.outcome(&say, &request);
        Box::pin(async { outcome })
    }
}
