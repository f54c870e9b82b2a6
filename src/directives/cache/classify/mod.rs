//! What an answer is, and how long it is kept (RFC 2308, pkg/response and pkg/dnsutil of CoreDNS).

use super::entry::Kind;
use crate::message::{Class as QueryClass, Name, Rcode, Record, RecordType, Response, ResponseType, Section};
use smallvec::SmallVec;

/// QCLASS `*` (RFC 1035 section 3.2.5).
const ANY_CLASS: QueryClass = QueryClass(255);
/// CNAME records that an answer may have. unbound and BIND begin anew 11 times at most for one query
/// (`max-query-restarts`), so neither gives an answer with more. One with more is given on as it is, since whoever asks
/// may make something of it, but is not kept: judging it would cost the square of their number.
const MAX_ALIASES: usize = 12;
/// Seconds an answer lives that has no TTL of its own to go by.
const WITHOUT_TTL: u32 = 5;

/// What an answer is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ResponseClass {
    /// NOERROR that is not one of the below.
    Positive,
    /// NOERROR whose answer section does not lead to the asked type, without an SOA record: an incomplete recursion. Or
    /// one with more than [`MAX_ALIASES`].
    Incomplete,
    /// NOERROR that points to other name servers.
    Referral,
    /// NOERROR that says with an SOA record that there is no such type (RFC 2308 section 2.2).
    NoData,
    /// NXDOMAIN with an SOA record (RFC 2308 section 2.1).
    NameError,
    /// SERVFAIL, NOTIMP.
    ServerError,
    /// Any other: other codes, zone transfers, NXDOMAIN without an SOA record, expired signatures.
    Other,
}

impl ResponseClass {
    /// In which cache it is kept; `None`: in neither.
    pub fn kind(self) -> Option<Kind> {
        match self {
            Self::Positive | Self::Referral => Some(Kind::Success),
            Self::NoData | Self::NameError | Self::ServerError => Some(Kind::Denial),
            Self::Incomplete | Self::Other => None,
        }
    }
}

/// An answer judged.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Classification {
    pub class: ResponseClass,
    /// True if it holds what was asked for: NOERROR, and the type at the end of the CNAME chain that begins with the
    /// question's name.
    pub answering: bool,
}

/// Judges an answer by its own question. With DO set, a signature that is not valid at `unix_seconds` (asked for only
/// then) makes it [`ResponseClass::Other`].
pub fn classify(response: &Response, unix_seconds: impl FnOnce() -> u32) -> Classification {
    let lead = if response.rcode() == Rcode::NOERROR { lead(response) } else { Lead::Nowhere };
    Classification { class: class(response, unix_seconds, lead), answering: lead == Lead::Answer }
}

fn class(response: &Response, unix_seconds: impl FnOnce() -> u32, lead: Lead) -> ResponseClass {
    if matches!(response.question_type(), RecordType::AXFR | RecordType::IXFR) {
        return ResponseClass::Other;
    }
    if response.dnssec_ok() && response.has_signature_out_of_period(unix_seconds()) {
        return ResponseClass::Other;
    }
    match lead {
        Lead::Answer => return ResponseClass::Positive,
        Lead::TooFar => return ResponseClass::Incomplete,
        Lead::Nowhere => (),
    }
    let has_authority =
        |rtype| response.records().any(|record| record.section == Section::Authority && record.rtype == rtype);
    match ResponseType::without_answer(response.rcode(), has_authority) {
        ResponseType::NoData => ResponseClass::NoData,
        ResponseType::NoError | ResponseType::Referral if response.answer_count() > 0 => ResponseClass::Incomplete,
        ResponseType::Referral => ResponseClass::Referral,
        ResponseType::NoError => ResponseClass::Positive,
        // How long it may be kept, the SOA record says (RFC 2308 section 5).
        ResponseType::NameError if has_authority(RecordType::SOA) => ResponseClass::NameError,
        ResponseType::ServerError => ResponseClass::ServerError,
        ResponseType::NameError | ResponseType::Meta | ResponseType::OtherError => ResponseClass::Other,
    }
}

/// Where the CNAME chain that begins with the question's name leads (RFC 1034 section 3.6.2).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Lead {
    /// To a record of the asked type.
    Answer,
    /// To none: the chain ends, goes in a circle, or a name has two targets (RFC 2181 section 10.1).
    Nowhere,
    /// There are more than [`MAX_ALIASES`].
    TooFar,
}

/// Looks at each record once, but for the aliases, of which there may be few: each of them once for each.
fn lead(response: &Response) -> Lead {
    let (qtype, qclass) = (response.question_type(), response.question_class());
    let is_asked_class = |record: &Record<'_>| qclass == ANY_CLASS || record.class == qclass;
    let records = || response.records().filter(|record| record.section == Section::Answer).filter(is_asked_class);
    let lead_to = |is_there: bool| if is_there { Lead::Answer } else { Lead::Nowhere };
    let mut aliases: SmallVec<[Record<'_>; MAX_ALIASES]> = SmallVec::new();
    if qtype != RecordType::ANY {
        aliases.extend(records().filter(|record| record.rtype == RecordType::CNAME).take(MAX_ALIASES + 1));
    }
    if aliases.is_empty() {
        // Most answers, and most of their owners are written as a pointer to the question.
        let mut question = None;
        let mut is_at_question = |record: &Record<'_>| {
            record.points_to_question() || record.is_owned_by(question.get_or_insert_with(|| response.question_name()))
        };
        let is_asked = |record: &Record<'_>| qtype == RecordType::ANY || record.rtype == qtype;
        return lead_to(records().any(|record| is_asked(&record) && is_at_question(&record)));
    }
    if aliases.len() > MAX_ALIASES {
        return Lead::TooFar;
    }
    let mut name = response.question_name();
    if qtype == RecordType::CNAME {
        return lead_to(matches!(alias(&aliases, &name), Ok(Some(_))));
    }
    // A chain longer than the aliases there are goes in a circle.
    for _ in 0..=aliases.len() {
        match alias(&aliases, &name) {
            Ok(Some(target)) => name = target,
            Ok(None) => return lead_to(records().any(|record| record.rtype == qtype && record.is_owned_by(&name))),
            Err(Ambiguous) => return Lead::Nowhere,
        }
    }
    Lead::Nowhere
}

/// A name with two different CNAME targets.
struct Ambiguous;

/// What `name` is an alias of.
fn alias(aliases: &[Record<'_>], name: &Name) -> Result<Option<Name>, Ambiguous> {
    let mut target: Option<Name> = None;
    for record in aliases.iter().filter(|record| record.is_owned_by(name)) {
        let (found, _) = Name::read(record.message, record.rdata.0).map_err(|_| Ambiguous)?;
        match &target {
            Some(first) if *first != found => return Err(Ambiguous),
            _ => target = Some(found),
        }
    }
    Ok(target)
}

/// The longest and shortest lives the configuration allows, in seconds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct TtlBounds {
    pub longest: u32,
    pub shortest: u32,
}

impl TtlBounds {
    /// The longest wins over the shortest.
    fn apply(self, seconds: u32) -> u32 {
        seconds.max(self.shortest).min(self.longest)
    }
}

/// How long answers live, by what they are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Lifetimes {
    pub success: TtlBounds,
    pub denial: TtlBounds,
    /// Of SERVFAIL and NOTIMP, in seconds.
    pub server_error: u32,
}

impl Default for Lifetimes {
    /// The reference's.
    fn default() -> Self {
        Self {
            success: TtlBounds { longest: 3600, shortest: 5 },
            denial: TtlBounds { longest: 1800, shortest: 5 },
            server_error: 5,
        }
    }
}

impl Lifetimes {
    /// Seconds this answer lives, which all its records get as their TTL. 0: it is not kept.
    pub(super) fn of(&self, class: ResponseClass, response: &Response) -> u32 {
        match class {
            ResponseClass::ServerError => self.server_error,
            ResponseClass::NoData | ResponseClass::NameError => self.denial.apply(smallest_ttl(response, true)),
            ResponseClass::Positive | ResponseClass::Incomplete => self.success.apply(smallest_ttl(response, false)),
            ResponseClass::Referral | ResponseClass::Other => self.success.apply(WITHOUT_TTL),
        }
    }

    /// The longest life of an answer of this kind and code, in seconds, however long it was given when it was stored.
    pub(super) fn cap(&self, kind: Kind, rcode: Rcode) -> u32 {
        match (kind, rcode) {
            (Kind::Success, _) => self.success.longest,
            (Kind::Denial, Rcode::SERVFAIL | Rcode::NOTIMP) => self.server_error,
            (Kind::Denial, _) => self.denial.longest,
        }
    }
}

/// The smallest TTL of all records; for a denial also the SOA record's MINIMUM (RFC 2308 section 5).
fn smallest_ttl(response: &Response, is_denial: bool) -> u32 {
    let minimum =
        |record: &Record<'_>| record.soa_minimum().filter(|_| is_denial && record.section == Section::Authority);
    let lives = response.records().map(|record| record.ttl.min(minimum(&record).unwrap_or(u32::MAX)));
    lives.min().unwrap_or(WITHOUT_TTL)
}

#[cfg(test)]
mod tests;
