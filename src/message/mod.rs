//! The wire: names, client queries read in place, and whole answers kept in wire form. Pure: bytes in, values out; no
//! I/O and no clock (RFC 1035 section 4, RFC 6891).

mod arrange;
mod case_folding;
mod client_subnet;
mod compose;
mod edit;
mod edit_plain;
mod editor;
mod fixed_answer;
#[cfg(test)]
mod fixtures;
pub mod framing;
mod freshness;
mod header;
#[cfg(test)]
pub(crate) mod hostile;
mod layout;
mod name;
mod name_pattern;
mod opt;
mod own_answer;
mod own_reply;
mod presentation;
mod query;
mod question_key;
mod record;
mod record_text;
mod rejection;
mod reply;
mod reply_options;
mod reply_records;
mod response;
mod response_type;
mod signature;
mod synthesize;
mod translate;
mod types;
mod upstream_options;
mod validate;
mod wire_reader;
pub mod work;

pub use arrange::AddressRun;
pub(crate) use arrange::{AddressSet, arrange_addresses};
pub(crate) use case_folding::lower_case_echoes;
pub use client_subnet::PrefixLimits;
pub(crate) use client_subnet::{ClientSubnet, Scope};
pub use edit::edit_reply;
pub use editor::Edit;
pub(crate) use fixed_answer::FixedAnswer;
pub(crate) use freshness::freshness;
pub(crate) use header::Header;
pub use name::{LowerName, Name};
pub(crate) use name_pattern::{NamePattern, NamePatternError};
pub(crate) use opt::DEFAULT_UDP_SIZE;
pub(crate) use own_answer::OwnAnswer;
pub use presentation::NameError;
pub(crate) use presentation::NameText;
pub(crate) use query::Edns;
pub use query::Query;
pub(crate) use question_key::{KeyFlags, QuestionKey, RequestKey};
pub use record::{Data, Record, Section};
pub use rejection::Rejection;
pub use reply::{ReplyShape, TtlRule};
pub(crate) use reply_options::{ExtendedError, ReplyOptions};
pub(crate) use reply_records::absence_ttl;
pub(crate) use reply_records::{has_answer, question_type_of};
pub use response::Response;
pub(crate) use response_type::ResponseType;
pub(crate) use types::Class;
pub use types::{Rcode, RecordType};
pub(crate) use upstream_options::UpstreamOptions;

/// Why bytes could not be read as (part of) a DNS message, or a message could not be made. Offsets are octets from the
/// start of the message, where reading stopped.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum WireError {
    /// The message ends inside a field.
    #[error("message ends at octet {0}, inside a field")]
    Short(usize),
    /// A name is malformed: a label type other than 00 and 11, over 255 octets, or a pointer that does not go strictly
    /// back.
    #[error("malformed name at octet {0}")]
    BadName(usize),
    /// The names up to the one at this octet take more steps to follow than a message of this length may cost.
    #[error("too many labels and compression pointers up to the name at octet {0}")]
    TooManySteps(usize),
    /// A record is malformed, for example a second OPT record (RFC 6891 section 6.1.1).
    #[error("malformed record at octet {0}")]
    BadRecord(usize),
    /// A Client Subnet option is malformed (RFC 7871 section 6).
    #[error("malformed Client Subnet option")]
    BadClientSubnet,
    /// The answer is for another client subnet than was asked for (RFC 7871 section 7.3).
    #[error("the answer's Client Subnet option has another family, prefix or address than was sent")]
    OtherClientSubnet,
    /// The question section does not hold exactly one question.
    #[error("{0} questions where exactly one is allowed")]
    QuestionCount(u16),
    /// More records than a message of this kind may hold.
    #[error("{0} records, more than a message of this kind may hold")]
    RecordCount(u32),
    /// The opcode is not QUERY.
    #[error("opcode {0} where only QUERY (0) is served")]
    Opcode(u8),
    /// The response bit is clear in what should be an answer.
    #[error("the message is a query where an answer is expected")]
    NotAResponse,
    /// The message is longer than 65,535 octets.
    #[error("the message is longer than 65535 octets")]
    TooLong,
    /// A record made here has no wire form: a text over 255 octets, for example.
    #[error("a record of the answer has no wire form")]
    Unencodable,
}
