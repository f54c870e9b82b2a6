//! What sort of answer a response is (CoreDNS plugin/pkg/response).

use crate::chain::Exchange;
use crate::message::{Rcode, RecordType, Response, Section};
use std::fmt;

pub(super) use crate::message::ResponseType;

/// The classes of `class CLASSES`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum LoggedClass {
    Success,
    /// A name or a type that does not exist, proved by an SOA record (RFC 2308).
    Denial,
    Error,
}

impl LoggedClass {
    pub(super) fn label(self) -> &'static str {
        match self {
            Self::Success => "success",
            Self::Denial => "denial",
            Self::Error => "error",
        }
    }
}

/// Classes that are logged.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct ClassSet {
    success: bool,
    denial: bool,
    error: bool,
}

impl fmt::Display for ClassSet {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let classes = [LoggedClass::Success, LoggedClass::Denial, LoggedClass::Error];
        let words: Vec<_> = classes.into_iter().filter(|class| self.contains(*class)).map(LoggedClass::label).collect();
        f.write_str(&words.join(" or "))
    }
}

impl ClassSet {
    /// What `class` may name.
    pub(super) const WORDS: [&str; 4] = ["success", "denial", "error", "all"];
    pub(super) const NONE: Self = Self { success: false, denial: false, error: false };
    pub(super) const ALL: Self = Self { success: true, denial: true, error: true };

    /// Adds a class by its word; false if there is none of that word.
    pub(super) fn add(&mut self, word: &str) -> bool {
        match word {
            "success" => self.success = true,
            "denial" => self.denial = true,
            "error" => self.error = true,
            "all" => *self = Self::ALL,
            _ => return false,
        }
        true
    }
    pub(super) fn contains(self, class: LoggedClass) -> bool {
        match class {
            LoggedClass::Success => self.success,
            LoggedClass::Denial => self.denial,
            LoggedClass::Error => self.error,
        }
    }
}

impl ResponseType {
    /// The type of the reply to a client. `unix_now` tells whether signatures have expired, which makes the answer to a
    /// client that asked for them an error.
    pub(super) fn of(exchange: &Exchange<'_>, unix_now: u32) -> Self {
        let query = exchange.request.query;
        if exchange.failure.is_some() {
            return Self::OtherError;
        }
        if matches!(query.qtype, RecordType::AXFR | RecordType::IXFR) {
            return Self::Meta;
        }
        let is_success = exchange.rcode == Rcode::NOERROR;
        let has_answers = is_success && count(exchange.reply, ANSWER_COUNT) > 0;
        if has_answers && !query.dnssec_ok() {
            return Self::NoError;
        }
        let records = match query.dnssec_ok() || count(exchange.reply, AUTHORITY_COUNT) > 0 {
            true => Response::read(exchange.reply).ok(),
            false => None,
        };
        if query.dnssec_ok() && records.as_ref().is_some_and(|response| response.has_signature_out_of_period(unix_now))
        {
            return Self::OtherError;
        }
        if has_answers {
            return Self::NoError;
        }
        let records = || records.iter().flat_map(Response::records);
        let has_authority =
            |rtype| records().any(|record| record.section == Section::Authority && record.rtype == rtype);
        Self::without_answer(exchange.rcode, has_authority)
    }

    pub(super) fn class(self) -> LoggedClass {
        match self {
            Self::NoError | Self::Referral => LoggedClass::Success,
            Self::NameError | Self::NoData => LoggedClass::Denial,
            Self::ServerError | Self::Meta | Self::OtherError => LoggedClass::Error,
        }
    }

    pub(super) fn label(self) -> &'static str {
        match self {
            Self::NoError => "NOERROR",
            Self::NameError => "NXDOMAIN",
            Self::ServerError => "SERVERERROR",
            Self::NoData => "NODATA",
            Self::Referral => "DELEGATION",
            Self::Meta => "META",
            Self::OtherError => "OTHERERROR",
        }
    }
}

/// Offsets of counts in the header (RFC 1035 section 4.1.1).
const ANSWER_COUNT: usize = 6;
const AUTHORITY_COUNT: usize = 8;

fn count(reply: &[u8], offset: usize) -> u16 {
    reply.get(offset..offset + 2).map_or(0, |octets| u16::from_be_bytes([octets[0], octets[1]]))
}
