//! A query as it goes upstream.

use super::letter_case::LetterCase;
use crate::chain::{Request, Transport};
use crate::message::{ClientSubnet, Query, RequestKey, Response, WireError};
use smallvec::SmallVec;

/// Octets of a message before its question.
const HEADER: usize = 12;
/// Octets of a question after its name.
const TYPE_AND_CLASS: usize = 4;

/// A query as it goes upstream; its ID is set for each try.
pub struct Asked {
    wire: SmallVec<[u8; 128]>,
    /// Offset of its type and class; the name is written out before them.
    name_end: u16,
    /// The client's, for which the answer may be made.
    client_subnet: Option<ClientSubnet>,
}

impl Asked {
    /// With an OPT record if the client sent one.
    pub fn new(request: &Request<'_>) -> Self {
        let udp_size = request.query.edns.map(|_| request.udp_size());
        Self::with(&request.key(), udp_size)
    }

    /// The same question without an OPT record, for an upstream that does not understand one. It makes no answers for client subnets either,
    /// so what it says counts as what another says without that option.
    pub fn without_edns(request: &Request<'_>) -> Self {
        Self::with(&request.key(), None)
    }

    fn with(key: &RequestKey<'_>, udp_size: Option<u16>) -> Self {
        let name_end = (HEADER + key.question.name.len()) as u16;
        Self { wire: key.to_upstream(udp_size), name_end, client_subnet: key.client_subnet.copied() }
    }

    /// A query of our own; `None` if `wire` is none.
    pub fn from_wire(wire: Vec<u8>) -> Option<Self> {
        let name_end = HEADER + Query::read(&wire).ok()?.name.as_wire().len();
        Some(Self { wire: wire.into(), name_end: name_end as u16, client_subnet: None })
    }

    /// Octets of the message.
    pub fn len(&self) -> usize {
        self.wire.len()
    }

    /// Name, type and class, as they go upstream.
    pub fn question(&self) -> &[u8] {
        self.wire.get(HEADER..usize::from(self.name_end) + TYPE_AND_CLASS).unwrap_or_default()
    }

    /// True if it has an OPT record, the only one that a query of ours may have after its question.
    pub fn has_edns(&self) -> bool {
        self.wire.get(10..HEADER) != Some(&[0, 0])
    }

    /// Appends the message with `id` in its place and the name in the case given.
    pub fn write(&self, id: u16, case: LetterCase, out: &mut Vec<u8>) {
        let start = out.len();
        out.extend_from_slice(&id.to_be_bytes());
        out.extend_from_slice(self.wire.get(2..).unwrap_or_default());
        case.apply(out.get_mut(start + HEADER..start + usize::from(self.name_end)).unwrap_or_default());
    }

    /// Reads an answer to it that came by this transport.
    pub fn read_answer(&self, message: &[u8], transport: Transport) -> Result<Response, WireError> {
        match &self.client_subnet {
            Some(subnet) => Response::read_for(message, subnet, transport == Transport::Tcp),
            None => Response::read(message),
        }
    }

    /// How the question of `message` compares to this one, sent in this case (RFC 5452 section 9.1). Looks at header and question only.
    pub fn compare(&self, message: &[u8], case: LetterCase) -> Comparison {
        let name_end = usize::from(self.name_end);
        let end = name_end + TYPE_AND_CLASS;
        let (Some(own), Some(theirs)) = (self.wire.get(..end), message.get(..end)) else { return Comparison::Other };
        let ((own, own_type), (theirs, their_type)) = (own.split_at(name_end), theirs.split_at(name_end));
        let (own_name, name) = (&own[HEADER..], &theirs[HEADER..]);
        // Length octets are at most 63, below the letters, so the whole name can be compared without looking at labels.
        if theirs[4..6] != [0, 1] || own_type != their_type || !own_name.eq_ignore_ascii_case(name) {
            Comparison::Other
        } else if case.is_of(name) {
            Comparison::Same
        } else {
            Comparison::OtherCase
        }
    }
}

/// How the question of a message compares to one that was asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Comparison {
    Same,
    /// The same but for the case of letters, which was drawn.
    OtherCase,
    Other,
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::message::RecordType;

    fn query(name: &[u8]) -> Vec<u8> {
        Query::compose(0, name, RecordType(0x4142), true)
    }

    #[test]
    fn a_question_is_the_same_in_any_case_of_its_name_and_no_other() {
        let wire = query(b"\x01a\x02bc\0");
        let asked = Asked::from_wire(wire.clone()).unwrap();
        let changed = |at: usize, octet: u8| {
            let mut message = wire.clone();
            message[at] = octet;
            message
        };
        let same = |message: &[u8]| asked.compare(message, LetterCase::default()) == Comparison::Same;
        assert!(same(&wire));
        assert!(same(&changed(13, b'A')) && same(&changed(16, b'C')));
        for (at, octet) in [(5, 2), (5, 0), (4, 1), (13, b'b'), (12, 2), (18, 0x61), (19, 0x62), (21, 3)] {
            assert!(!same(&changed(at, octet)), "octet {at} is {octet}");
        }
        for length in 0..wire.len() {
            assert!(!same(&wire[..length]), "{length} octets");
        }
        assert!(same(&[&wire[..], b"more"].concat()));
    }

    #[test]
    fn a_name_sent_in_a_drawn_case_must_come_back_in_it() {
        let wire = query(b"\x10abcdefghijklmnop\x02qr\0");
        let asked = Asked::from_wire(wire.clone()).unwrap();
        let case = LetterCase::draw();
        let mut sent = vec![9];
        asked.write(0x1234, case, &mut sent);
        assert_eq!(sent[1..3], [0x12, 0x34]);
        assert!(sent[3..].eq_ignore_ascii_case(&wire[2..]));
        let mut other = sent[1..].to_vec();
        assert_eq!(asked.compare(&other, case), Comparison::Same);
        other[13] ^= 0x20;
        assert_eq!(asked.compare(&other, case), Comparison::OtherCase);
        assert_eq!(asked.compare(&other, LetterCase::default()), Comparison::Same);
        other[13] = b'z';
        assert_eq!(asked.compare(&other, case), Comparison::Other);
    }
}
