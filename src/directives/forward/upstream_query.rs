//! A query as it is sent to an upstream, and whether a response repeats its question.

use super::error::Endpoints;
use super::letter_case::LetterCase;
use crate::chain::{Request, Transport};
use crate::message::{ClientSubnet, Query, RequestKey, Response, WireError};
use parking_lot::Mutex;
use smallvec::SmallVec;
use std::sync::atomic::{AtomicU16, Ordering};

/// Octets of a message before its question (RFC 1035 section 4.1.1).
const HEADER: usize = 12;
/// Octets of a question after its name (RFC 1035 section 4.1.2).
const TYPE_AND_CLASS: usize = 4;

/// A query as it is sent to an upstream. Every attempt sets its own ID.
pub(super) struct UpstreamQuery {
    wire: SmallVec<[u8; 128]>,
    /// Offset of the question's type. The name before it is not compressed.
    name_end: u16,
    /// The client's subnet, for which the answer may be made (RFC 7871).
    client_subnet: Option<ClientSubnet>,
    /// Of the attempt that was answered last.
    answered: Mutex<Option<Endpoints>>,
    /// How often it was sent and nobody has asked since.
    sent: AtomicU16,
}

impl UpstreamQuery {
    /// The query of `request`, with an OPT record if the client sent one.
    pub(super) fn new(request: &Request<'_>) -> Self {
        let udp_size = request.query.edns.map(|_| request.udp_size());
        Self::with(&request.key(), udp_size)
    }

    /// The same query without an OPT record, for an upstream that does not understand EDNS. Such an upstream does not
    /// know client subnets either, so its answer is taken for one without that option.
    pub(super) fn without_edns(request: &Request<'_>) -> Self {
        Self::with(&request.key(), None)
    }

    fn with(key: &RequestKey<'_>, udp_size: Option<u16>) -> Self {
        let name_end = (HEADER + key.question.name.len()) as u16;
        let client_subnet = key.client_subnet.copied();
        let wire = key.to_upstream(udp_size);
        Self { wire, name_end, client_subnet, answered: Mutex::default(), sent: AtomicU16::default() }
    }

    /// A query that we composed ourselves. `None` if `wire` is not a query.
    pub(super) fn from_wire(wire: Vec<u8>) -> Option<Self> {
        let name_end = HEADER + Query::read(&wire).ok()?.name.as_wire().len();
        Some(Self {
            wire: wire.into(),
            name_end: name_end as u16,
            client_subnet: None,
            answered: Mutex::default(),
            sent: AtomicU16::default(),
        })
    }

    /// Notes on which socket the answer has come.
    pub(super) fn set_answered(&self, endpoints: Option<Endpoints>) {
        *self.answered.lock() = endpoints;
    }

    /// On which socket the last answer has come, once.
    pub(super) fn take_answered(&self) -> Option<Endpoints> {
        self.answered.lock().take()
    }

    /// Over what the last answer has come.
    pub(super) fn answered_over(&self) -> Option<Transport> {
        self.answered.lock().as_ref().map(|endpoints| endpoints.transport)
    }

    /// Counts a message that is sent.
    pub(super) fn count_sent(&self) {
        self.sent.fetch_add(1, Ordering::Relaxed);
    }

    /// How often it was sent since this was asked last.
    pub(super) fn take_sent(&self) -> u16 {
        self.sent.swap(0, Ordering::Relaxed)
    }

    /// Length of the message in octets.
    pub(super) fn len(&self) -> usize {
        self.wire.len()
    }

    /// The message, with ID 0.
    pub(super) fn wire(&self) -> &[u8] {
        &self.wire
    }

    /// Name, type and class in wire form.
    pub(super) fn question(&self) -> &[u8] {
        self.wire.get(HEADER..usize::from(self.name_end) + TYPE_AND_CLASS).unwrap_or_default()
    }

    /// True if the query has an OPT record, the only record that our queries ever have.
    pub(super) fn has_edns(&self) -> bool {
        self.wire.get(10..HEADER) != Some(&[0, 0])
    }

    /// Appends the message to `out` with this ID and letter case.
    pub(super) fn write(&self, id: u16, case: LetterCase, out: &mut Vec<u8>) {
        let start = out.len();
        out.extend_from_slice(&id.to_be_bytes());
        out.extend_from_slice(self.wire.get(2..).unwrap_or_default());
        case.apply(out.get_mut(start + HEADER..start + usize::from(self.name_end)).unwrap_or_default());
    }

    /// Reads a response to this query that came over `transport`.
    pub(super) fn read_response(&self, message: &[u8], transport: Transport) -> Result<Response, WireError> {
        match &self.client_subnet {
            Some(subnet) => Response::read_for(message, subnet, transport == Transport::Tcp),
            None => Response::read(message),
        }
    }

    /// Compares the question of `response` to this one, which was sent in `case` (RFC 5452 section 9.1). Reads header
    /// and question only.
    pub(super) fn compare(&self, response: &[u8], case: LetterCase) -> QuestionMatch {
        let name_end = usize::from(self.name_end);
        let end = name_end + TYPE_AND_CLASS;
        let (Some(own), Some(theirs)) = (self.wire.get(..end), response.get(..end)) else {
            return QuestionMatch::Different;
        };
        let ((own, own_type), (theirs, their_type)) = (own.split_at(name_end), theirs.split_at(name_end));
        let (own_name, name) = (&own[HEADER..], &theirs[HEADER..]);
        // Length octets are at most 63, below the letters, so the whole name can be compared without looking at labels.
        if theirs[4..6] != [0, 1] || own_type != their_type || !own_name.eq_ignore_ascii_case(name) {
            QuestionMatch::Different
        } else if case.matches(name) {
            QuestionMatch::Exact
        } else {
            QuestionMatch::OtherCase
        }
    }
}

/// How a response's question compares to the one that was sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum QuestionMatch {
    Exact,
    /// Equal but for letter case, and the case was random.
    OtherCase,
    Different,
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::message::RecordType;

    fn wire_of(name: &[u8]) -> Vec<u8> {
        Query::compose(0, name, RecordType(0x4142), true)
    }

    #[test]
    fn a_question_matches_in_any_letter_case_and_no_other_question_does() {
        let wire = wire_of(b"\x01a\x02bc\0");
        let query = UpstreamQuery::from_wire(wire.clone()).unwrap();
        let changed = |at: usize, octet: u8| {
            let mut message = wire.clone();
            message[at] = octet;
            message
        };
        let matches = |message: &[u8]| query.compare(message, LetterCase::default()) == QuestionMatch::Exact;
        assert!(matches(&wire));
        assert!(matches(&changed(13, b'A')) && matches(&changed(16, b'C')));
        for (at, octet) in [(5, 2), (5, 0), (4, 1), (13, b'b'), (12, 2), (18, 0x61), (19, 0x62), (21, 3)] {
            assert!(!matches(&changed(at, octet)), "octet {at} is {octet}");
        }
        for length in 0..wire.len() {
            assert!(!matches(&wire[..length]), "{length} octets");
        }
        assert!(matches(&[&wire[..], b"more"].concat()));
    }

    #[test]
    fn a_name_sent_in_a_random_case_must_come_back_in_it() {
        let wire = wire_of(b"\x10abcdefghijklmnop\x02qr\0");
        let query = UpstreamQuery::from_wire(wire.clone()).unwrap();
        let case = LetterCase::random();
        let mut sent = vec![9];
        query.write(0x1234, case, &mut sent);
        assert_eq!(sent[1..3], [0x12, 0x34]);
        assert!(sent[3..].eq_ignore_ascii_case(&wire[2..]));
        let mut other = sent[1..].to_vec();
        assert_eq!(query.compare(&other, case), QuestionMatch::Exact);
        other[13] ^= 0x20;
        assert_eq!(query.compare(&other, case), QuestionMatch::OtherCase);
        assert_eq!(query.compare(&other, LetterCase::default()), QuestionMatch::Exact);
        other[13] = b'z';
        assert_eq!(query.compare(&other, case), QuestionMatch::Different);
    }
}
