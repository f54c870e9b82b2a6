//! The wire: names, client queries read in place, and whole answers kept in wire form. Pure: bytes in, values out; no
//! I/O and no clock (RFC 1035 section 4, RFC 6891).

mod name;
mod query;
mod response;
mod types;

pub use name::{LowerName, Name, NameError};
pub use query::{Edns, Header, Query, Rejection};
pub use response::{Record, Reply, Response, Section, TtlRule};
pub use types::{Class, Rcode, RecordType};

/// Why bytes could not be read as (part of) a DNS message. Every variant names the octet offset where reading stopped.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum WireError {
    /// The message ends inside a field.
    #[error("message ends at octet {0}, inside a field")]
    Short(usize),
    /// A name is malformed: a label type other than 00 and 11, over 255 octets, or a pointer that does not go strictly back.
    #[error("malformed name at octet {0}")]
    BadName(usize),
    /// A record is malformed, for example a second OPT record (RFC 6891 section 6.1.1).
    #[error("malformed record at octet {0}")]
    BadRecord(usize),
    /// The question section does not hold exactly one question.
    #[error("{0} questions where exactly one is allowed")]
    QuestionCount(u16),
}
