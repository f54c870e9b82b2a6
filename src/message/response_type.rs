//! The types of responses that logs and caches tell apart (RFC 2308 section 2, CoreDNS' plugin/pkg/response).

use super::{Rcode, RecordType};

/// The type of a response, as CoreDNS' `response.Type`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum ResponseType {
    /// NOERROR, but for the types below.
    NoError,
    /// The name exists, the record type does not (RFC 2308 section 2.2).
    NoData,
    /// The name does not exist (RFC 2308 section 2.1).
    NameError,
    /// Other name servers have the answer.
    Referral,
    /// SERVFAIL or NOTIMP.
    ServerError,
    /// A response to a zone transfer.
    Meta,
    /// Another error code.
    OtherError,
}

impl ResponseType {
    /// The type of a response without an answer to its question. `has_authority` says whether its authority section has
    /// records of a type.
    pub(crate) fn without_answer(rcode: Rcode, has_authority: impl Fn(RecordType) -> bool) -> Self {
        match rcode {
            Rcode::NOERROR if has_authority(RecordType::SOA) => Self::NoData,
            Rcode::NOERROR if has_authority(RecordType::NS) => Self::Referral,
            Rcode::NOERROR => Self::NoError,
            Rcode::NXDOMAIN => Self::NameError,
            Rcode::SERVFAIL | Rcode::NOTIMP => Self::ServerError,
            _ => Self::OtherError,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::ResponseType;
    use crate::message::{Rcode, RecordType};

    #[test]
    fn the_code_and_the_authority_section_say_what_a_response_without_an_answer_is() {
        let (soa, ns) = (RecordType::SOA, RecordType::NS);
        for (rcode, authority, expected) in [
            (Rcode::NOERROR, vec![], ResponseType::NoError),
            (Rcode::NOERROR, vec![ns], ResponseType::Referral),
            (Rcode::NOERROR, vec![ns, soa], ResponseType::NoData),
            (Rcode::NXDOMAIN, vec![soa], ResponseType::NameError),
            (Rcode::NXDOMAIN, vec![], ResponseType::NameError),
            (Rcode::SERVFAIL, vec![soa], ResponseType::ServerError),
            (Rcode::NOTIMP, vec![], ResponseType::ServerError),
            (Rcode::REFUSED, vec![soa], ResponseType::OtherError),
        ] {
            assert_eq!(
                ResponseType::without_answer(rcode, |rtype| authority.contains(&rtype)),
                expected,
                "{rcode} {authority:?}"
            );
        }
    }
}
