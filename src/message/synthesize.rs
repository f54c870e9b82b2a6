//! Makes answers from records instead of receiving them, and converts answers to hickory-proto's types and back.

use super::compose::Composer;
use super::header::{CD, RD};
use super::record::{Record, Section};
use super::wire_reader::HEADER_LENGTH;
use super::{Query, Rcode, Response, WireError};
use hickory_proto::op::{Message, MessageType, OpCode, ResponseCode};

impl Response {
    /// An answer to `query` (whose octets are `wire`) with no records: rcode, RD and CD copied, RA clear.
    pub fn empty(query: &Query, wire: &[u8], rcode: Rcode) -> Self {
        Self::compose(query, wire, rcode, std::iter::empty()).0
    }
    /// From records made by a directive. The question is that of the query; RD and CD are copied, RA is clear.
    ///
    /// # Errors
    /// A record that has no wire form, or too many of them for one message.
    pub fn from_records(
        query: &Query,
        wire: &[u8],
        rcode: Rcode,
        records: &[(Section, hickory_proto::rr::Record)],
    ) -> Result<Self, WireError> {
        let made = Self::empty(query, wire, rcode);
        let mut message = made.to_message().map_err(|_| WireError::Unencodable)?;
        for (section, record) in records {
            let section = match section {
                Section::Answer => &mut message.answers,
                Section::Authority => &mut message.authorities,
                Section::Additional => &mut message.additionals,
            };
            section.push(record.clone());
        }
        Self::from_message(&message)
    }
    /// From records in wire form, names written out: owner, type, class, TTL, length and data. Otherwise as
    /// [`Response::from_records`].
    ///
    /// # Errors
    /// A record that is malformed, or too many of them for one message.
    pub fn from_wire_records(
        query: &Query,
        wire: &[u8],
        rcode: Rcode,
        records: &[(Section, Vec<u8>)],
    ) -> Result<Self, WireError> {
        let mut plain = vec![0, 0, 0x80, 0, 0, 1];
        for section in Section::ALL {
            let count = records.iter().filter(|(of, _)| *of == section).count();
            plain.extend_from_slice(&u16::try_from(count).map_err(|_| WireError::TooLong)?.to_be_bytes());
        }
        plain.extend_from_slice(query.question(wire));
        for section in Section::ALL {
            records.iter().filter(|(of, _)| *of == section).for_each(|(_, record)| plain.extend_from_slice(record));
        }
        let checked = Self::read(&plain)?;
        let (made, is_whole) = Self::compose(query, wire, rcode, checked.records());
        // One of them may hold more than one, or an OPT record.
        let is_whole = is_whole && checked.records().count() == records.len();
        if is_whole { Ok(made) } else { Err(WireError::TooLong) }
    }
    /// Takes over an answer that a directive has changed or made. An OPT record's flags are kept, its options are not.
    ///
    /// # Errors
    /// As [`Response::read`]; and a record that has no wire form, or too many of them for one message.
    pub fn from_message(message: &Message) -> Result<Self, WireError> {
        let mut response = Self::read(&message.to_vec().map_err(|_| WireError::Unencodable)?)?;
        let records = message.answers.len() + message.authorities.len() + message.additionals.len();
        if response.parts().ttl_offsets.len() != records {
            return Err(WireError::TooLong);
        }
        response.replace_rcode(Rcode(message.metadata.response_code.into()));
        Ok(response)
    }
    /// Decodes all of it, for directives that change records.
    pub fn to_message(&self) -> Result<Message, hickory_proto::ProtoError> {
        let mut message = Message::from_vec(self.wire())?;
        message.metadata.message_type = MessageType::Response;
        message.metadata.op_code = OpCode::Query;
        message.metadata.response_code = ResponseCode::from((self.rcode().0 >> 4) as u8, (self.rcode().0 & 0x0f) as u8);
        Ok(message)
    }

    /// An answer with the question of `query` and records from elsewhere, RD and CD of the query; false with it if
    /// not all of the
    /// records had room.
    pub(super) fn compose<'a>(
        query: &Query,
        wire: &[u8],
        rcode: Rcode,
        records: impl Iterator<Item = Record<'a>>,
    ) -> (Self, bool) {
        let spelt = query.question(wire);
        let lower: Vec<u8> =
            [query.name.as_wire(), &query.qtype.0.to_be_bytes()[..], &query.qclass.0.to_be_bytes()[..]].concat();
        let mut composer = Composer::new(&lower);
        composer.point_to_question(spelt);
        let whole = records.map(|record| composer.push(&record)).all(|result| result.is_ok());
        let mut response = Self::from_composed(rcode, HEADER_LENGTH + lower.len(), &composer.finish());
        response.replace_header_flags(query.header.flags & (RD | CD));
        (response, whole)
    }
}

#[cfg(test)]
mod tests {
    use super::super::fixtures::{QUESTION_END, answer, listing, query};
    use super::super::header::{AD, QR};
    use super::super::{Class, Name};
    use super::*;
    use Section::{Answer, Authority};
    use hickory_proto::rr::rdata::{A, TXT};
    use hickory_proto::rr::{DNSClass, RData};

    #[test]
    fn an_empty_answer_has_the_question_and_the_clients_rd_and_cd() {
        let (query, wire) = query("Example.", RD | CD | AD, Some(true));
        let response = Response::empty(&query, &wire, Rcode::SERVFAIL);
        let mut expected = answer(QR | RD | CD | 2, &[]);
        expected[..2].fill(0);
        assert_eq!((response.wire(), response.rcode()), (&expected[..], Rcode::SERVFAIL));
    }

    #[test]
    fn records_made_by_a_directive_become_an_answer() {
        let (query, wire) = query("Example.", RD, None);
        let name = Name::parse("example.").unwrap().to_hickory().unwrap();
        let address = hickory_proto::rr::Record::from_rdata(name, 30, RData::A(A::new(192, 0, 2, 1)));
        let response =
            Response::from_records(&query, &wire, Rcode::NXDOMAIN, &[(Authority, address.clone()), (Answer, address)]);
        let response = response.unwrap();
        assert_eq!(listing(response.wire()), ["Answer example. 30 A 4", "Authority example. 30 A 4"]);
        assert_eq!((response.rcode(), response.wire().len()), (Rcode::NXDOMAIN, QUESTION_END + 32));
    }

    #[test]
    fn records_in_wire_form_become_an_answer_with_names_compressed() {
        let (query, wire) = query("Example.", RD, None);
        let record = |last: u8| [&b"\x07example\0\0\x01\0\x01\0\0\0\x1e\0\x04"[..], &[192, 0, 2, last]].concat();
        let records = [(Authority, record(1)), (Answer, record(2))];
        let response = Response::from_wire_records(&query, &wire, Rcode::NXDOMAIN, &records).unwrap();
        assert_eq!(listing(response.wire()), ["Answer example. 30 A 4", "Authority example. 30 A 4"]);
        assert_eq!((response.rcode(), response.wire().len()), (Rcode::NXDOMAIN, QUESTION_END + 32));
        let cut = record(1)[..20].to_vec();
        assert!(Response::from_wire_records(&query, &wire, Rcode::NOERROR, &[(Answer, cut)]).is_err());
        let many = vec![(Answer, record(1)); 5000];
        assert!(Response::from_wire_records(&query, &wire, Rcode::NOERROR, &many).is_err());
    }

    #[test]
    fn records_of_another_class_keep_it() {
        let (query, wire) = query("example.", RD, None);
        let name = Name::parse("example.").unwrap().to_hickory().unwrap();
        let mut text = hickory_proto::rr::Record::from_rdata(name, 0, RData::TXT(TXT::new(vec!["1".to_owned()])));
        text.dns_class = DNSClass::CH;
        let response = Response::from_records(&query, &wire, Rcode::NOERROR, &[(Answer, text)]).unwrap();
        assert_eq!(response.records().next().unwrap().class, Class::CH);
    }

    #[test]
    fn records_that_have_no_room_in_one_message_are_an_error() {
        let (query, wire) = query("example.", RD, None);
        let name = Name::parse("example.").unwrap().to_hickory().unwrap();
        let text = RData::TXT(TXT::new(vec!["x".repeat(255); 200]));
        let record = hickory_proto::rr::Record::from_rdata(name, 0, text);
        let made = Response::from_records(&query, &wire, Rcode::NOERROR, &[(Answer, record.clone()), (Answer, record)]);
        assert_eq!(made, Err(WireError::TooLong));
    }

    #[test]
    fn a_record_that_cannot_be_encoded_is_an_error() {
        let (query, wire) = query("example.", RD, None);
        let name = Name::parse("example.").unwrap().to_hickory().unwrap();
        let record = hickory_proto::rr::Record::from_rdata(name, 0, RData::TXT(TXT::new(vec!["x".repeat(256)])));
        let made = Response::from_records(&query, &wire, Rcode::NOERROR, &[(Answer, record)]);
        assert_eq!(made, Err(WireError::Unencodable));
    }
}
