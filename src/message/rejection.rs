//! What to say to octets that are not a query we can answer.

use super::header::{CD, OPCODE, QR, RD};
use super::opt;
use super::wire_reader::HEADER_LENGTH;
use super::{Header, Rcode, WireError};
use std::fmt;

/// What to do with octets that are not a query we can answer.
#[derive(Clone, Debug)]
#[allow(missing_docs, reason = "the variant says what its fields are")]
pub enum Rejection {
    /// Say nothing: shorter than a header, or the response bit is set.
    Drop,
    /// Answer with this code and no question (malformed: FORMERR; an opcode other than QUERY: NOTIMP), header only.
    Answer { id: u16, flags: u16, rcode: Rcode, why: WireError },
    /// Answer BADVERS with an OPT record and the question (RFC 6891 section 6.1.3).
    BadVersion {
        header: Header,
        /// Offset just after the question section.
        question_end: u16,
        dnssec_ok: bool,
    },
}

impl fmt::Display for Rejection {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Drop => formatter.write_str("shorter than a header, or a response"),
            Self::Answer { why, .. } => write!(formatter, "{why}"),
            Self::BadVersion { .. } => formatter.write_str("asks for a version of EDNS other than 0"),
        }
    }
}

impl Rejection {
    /// What is answered; `None` if nothing is said.
    pub(crate) fn rcode(&self) -> Option<Rcode> {
        match self {
            Self::Drop => None,
            Self::Answer { rcode, .. } => Some(*rcode),
            Self::BadVersion { .. } => Some(Rcode::BADVERS),
        }
    }

    /// Appends the reply to `out`; false if there is nothing to say. `wire` is the message that was rejected.
    pub fn write(&self, wire: &[u8], out: &mut Vec<u8>) -> bool {
        let (id, flags, rcode, bad_version) = match self {
            Self::Drop => return false,
            Self::Answer { id, flags, rcode, .. } => (*id, *flags, *rcode, None),
            Self::BadVersion { header, question_end, dnssec_ok } => {
                (header.id, header.flags, Rcode::NOERROR, Some((*question_end, *dnssec_ok)))
            }
        };
        let flags = QR | flags & (OPCODE | RD | CD) | rcode.0 & 0x0f;
        let count = bad_version.is_some().into();
        out.extend_from_slice(&id.to_be_bytes());
        out.extend_from_slice(&flags.to_be_bytes());
        out.extend_from_slice(&[0, count, 0, 0, 0, 0, 0, count]);
        if let Some((question_end, dnssec_ok)) = bad_version {
            out.extend_from_slice(wire.get(HEADER_LENGTH..usize::from(question_end)).unwrap_or_default());
            // The server block, and with it its `bufsize`, is not known yet.
            out.extend_from_slice(&opt::encode(opt::DEFAULT_UDP_SIZE, (Rcode::BADVERS.0 >> 4) as u8, dnssec_ok));
        }
        true
    }
}
