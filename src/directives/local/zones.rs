//! Which names are local, and what is said of them. Names are in lower-case wire form.

use crate::message::{LowerName, Query, Rcode, RecordType, Response, Section, WireError};
use hickory_proto::ProtoError;
use hickory_proto::rr::rdata::{A, AAAA, NS, PTR, SOA};
use hickory_proto::rr::{Name, RData, Record};
use hickory_proto::serialize::binary::{BinDecodable, DecodeError};
use std::net::{Ipv4Addr, Ipv6Addr};

pub(super) const LOCALHOST: &[u8] = b"\x09localhost\0";
pub(super) const LOOPBACK_V4: &[u8] = b"\x011\x010\x010\x03127\x07in-addr\x04arpa\0";
/// A zone of its own, as in RFC 6303 section 4.6.
pub(super) const LOOPBACK_V6: &[u8] =
    b"\x011\x010\x010\x010\x010\x010\x010\x010\x010\x010\x010\x010\x010\x010\x010\x010\x010\x010\x010\x010\x010\x010\x010\x010\x010\x010\x010\x010\x010\x010\x010\x010\x03ip6\x04arpa\0";
const REVERSE_ZONES: [&[u8]; 4] =
    [b"\x010\x07in-addr\x04arpa\0", b"\x03127\x07in-addr\x04arpa\0", b"\x03255\x07in-addr\x04arpa\0", LOOPBACK_V6];

/// Seconds, both TTL and negative TTL: the reference's week.
const TTL: u32 = 604_800;

/// Where a local name stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum LocalName {
    /// `localhost.` itself.
    Localhost,
    /// Below `localhost.`
    BelowLocalhost,
    /// `localhost.DOMAIN`: a resolver's search list at work.
    LocalhostOfDomain,
    /// One of the two loopback addresses, in this reverse zone.
    Loopback(&'static [u8]),
    /// The apex of this reverse zone.
    Apex(&'static [u8]),
    /// Elsewhere in this reverse zone.
    Reverse(&'static [u8]),
}

/// Where `name` stands, if it is local.
pub(super) fn place(name: &LowerName) -> Option<LocalName> {
    let wire = name.as_wire();
    // Most names end here: three comparisons of a few octets.
    if !wire.ends_with(b"localhost\0") && !wire.ends_with(b"\x04arpa\0") && !wire.starts_with(b"\x09localhost") {
        return None;
    }
    if wire == LOCALHOST {
        return Some(LocalName::Localhost);
    }
    if name.is_within(LOCALHOST) {
        return Some(LocalName::BelowLocalhost);
    }
    if wire.starts_with(b"\x09localhost") {
        return Some(LocalName::LocalhostOfDomain);
    }
    let zone = REVERSE_ZONES.into_iter().find(|zone| name.is_within(zone))?;
    Some(match wire {
        LOOPBACK_V4 | LOOPBACK_V6 => LocalName::Loopback(zone),
        apex if apex == zone => LocalName::Apex(zone),
        _ => LocalName::Reverse(zone),
    })
}

/// Why an answer could not be made, which a name that was read from a query should never cause.
#[derive(Debug, thiserror::Error)]
pub(super) enum RespondError {
    #[error("the name asked for cannot be read: {0}")]
    Name(#[from] DecodeError),
    #[error("the answer's names cannot be composed: {0}")]
    Composition(#[from] ProtoError),
    #[error("the answer cannot be written: {0}")]
    Answer(#[from] WireError),
}

/// The answer to a query for a name at `place`.
pub(super) fn respond(place: LocalName, query: &Query, wire: &[u8]) -> Result<Response, RespondError> {
    // In lower case it compresses to a pointer to the question, which has the client's case.
    let name = Name::from_bytes(query.name.as_wire())?;
    let localhost = Name::from_bytes(LOCALHOST)?;
    let rname = localhost.prepend_label(b"root".as_slice())?;
    let answer = |data: RData| (Rcode::NOERROR, Section::Answer, Record::from_rdata(name.clone(), TTL, data));
    let start = RData::SOA(SOA::new(localhost.clone(), rname, 1, 0, 0, 0, TTL));
    let nothing = |rcode, zone: Name| (rcode, Section::Authority, Record::from_rdata(zone, TTL, start.clone()));
    let zone = match place {
        LocalName::Localhost | LocalName::BelowLocalhost => localhost.clone(),
        LocalName::LocalhostOfDomain => name.clone(),
        LocalName::Loopback(zone) | LocalName::Apex(zone) | LocalName::Reverse(zone) => Name::from_bytes(zone)?,
    };
    let apex = matches!(place, LocalName::Localhost | LocalName::Apex(_) | LocalName::Loopback(LOOPBACK_V6));
    let (rcode, section, record) = match (place, query.qtype) {
        (LocalName::Localhost | LocalName::BelowLocalhost | LocalName::LocalhostOfDomain, RecordType::A) => {
            answer(RData::A(A(Ipv4Addr::LOCALHOST)))
        }
        (LocalName::Localhost | LocalName::BelowLocalhost | LocalName::LocalhostOfDomain, RecordType::AAAA) => {
            answer(RData::AAAA(AAAA(Ipv6Addr::LOCALHOST)))
        }
        (LocalName::Loopback(_), RecordType::PTR) => answer(RData::PTR(PTR(localhost))),
        (_, RecordType::NS) if apex => answer(RData::NS(NS(localhost))),
        (_, RecordType::SOA) if apex => answer(start.clone()),
        (LocalName::Reverse(_), _) => nothing(Rcode::NXDOMAIN, zone),
        _ => nothing(Rcode::NOERROR, zone),
    };
    Ok(Response::from_records(query, wire, rcode, &[(section, record)])?)
}
