//! Everything of a query that its answer may depend on, in one place: what a cache keeps an answer under, what those in
//! flight are shared by, and what is asked upstream. The three cannot drift apart, for the third is made of nothing
//! else.

use super::header::{AD, CD, RD};
use super::opt::{self, OPT_LENGTH};
use super::wire_reader::HEADER_LENGTH;
use super::{Class, ClientSubnet, Query, RecordType, UpstreamOptions};
use smallvec::SmallVec;

/// Bits of a query that answers differ by.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct KeyFlags(u8);

impl KeyFlags {
    /// DO (RFC 3225): signatures are wanted.
    pub const DNSSEC_OK: Self = Self(1);
    /// CD (RFC 4035 section 3.2.2): what fails validation is wanted too.
    pub const CHECKING_DISABLED: Self = Self(2);
    /// RD is clear (RFC 1035 section 4.1.1): a referral or a refusal is right where anybody else is to have an answer.
    pub const NON_RECURSIVE: Self = Self(4);
    const ALL: u8 = 7;

    pub fn bits(self) -> u8 {
        self.0
    }
    /// `None` if a bit is set that has no meaning.
    pub fn from_bits(bits: u8) -> Option<Self> {
        (bits & !Self::ALL == 0).then_some(Self(bits))
    }
    pub fn contains(self, other: Self) -> bool {
        self.0 & other.0 == other.0
    }
    /// All that there are.
    pub fn every() -> impl Iterator<Item = Self> {
        (0..=Self::ALL).map(Self)
    }
    /// `do`, `cd`, `norec`, as `dig` calls them: those that are set.
    pub fn labels(self) -> Vec<&'static str> {
        let all = [(Self::DNSSEC_OK, "do"), (Self::CHECKING_DISABLED, "cd"), (Self::NON_RECURSIVE, "norec")];
        all.into_iter().filter(|(flag, _)| self.contains(*flag)).map(|(_, label)| label).collect()
    }
}

/// What an answer for everybody is kept under: all of a [`RequestKey`] but the client's subnet.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct QuestionKey<'a> {
    /// Lower-case wire form.
    pub name: &'a [u8],
    pub qtype: RecordType,
    pub qclass: Class,
    pub flags: KeyFlags,
}

/// Two queries with the same key draw the same answer, but for what a client has room for: over UDP, without EDNS, an
/// answer may come truncated that others get whole. All else that a client can say is answered here, or is not passed
/// on: other header bits, EDNS options of its own, its payload size, records after the question, letter case.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct RequestKey<'a> {
    pub question: QuestionKey<'a>,
    /// As it goes upstream; `None` where subnets are not kept, and for a client that names none.
    pub client_subnet: Option<&'a ClientSubnet>,
    /// What a directive has put there for the upstream; `None` if nothing.
    pub options: Option<&'a UpstreamOptions>,
}

impl Query {
    /// The key with the subnet that is to go upstream for this query.
    pub fn key<'a>(&'a self, client_subnet: Option<&'a ClientSubnet>) -> RequestKey<'a> {
        RequestKey { question: self.question_key(), client_subnet, options: None }
    }

    /// What an answer to this query that is for everybody is kept under.
    #[inline]
    pub fn question_key(&self) -> QuestionKey<'_> {
        let flags = u8::from(self.dnssec_ok())
            | u8::from(self.header.checking_disabled()) << 1
            | u8::from(!self.header.recursion_desired()) << 2;
        QuestionKey { name: self.name.as_wire(), qtype: self.qtype, qclass: self.qclass, flags: KeyFlags(flags) }
    }
}

/// In the octet of the flags: a client subnet follows.
const HAS_SUBNET: u8 = 0x80;
/// In the octet of the flags: options follow, after the subnet.
const HAS_OPTIONS: u8 = 0x40;

impl QuestionKey<'_> {
    /// The key as octets, which no other key has; nor does any begin with them, or end what these begin.
    pub fn octets(&self) -> SmallVec<[u8; 64]> {
        RequestKey { question: *self, client_subnet: None, options: None }.octets()
    }
}

impl RequestKey<'_> {
    /// The key as octets, which no other key has; nor does any begin with them, or end what these begin.
    pub fn octets(&self) -> SmallVec<[u8; 64]> {
        let QuestionKey { name, qtype, qclass, flags } = self.question;
        let mut octets = SmallVec::with_capacity(name.len() + 5);
        octets.extend_from_slice(name);
        octets.extend_from_slice(&qtype.0.to_be_bytes());
        octets.extend_from_slice(&qclass.0.to_be_bytes());
        let has = |is_there: bool, bit: u8| if is_there { bit } else { 0 };
        octets.push(
            flags.bits() | has(self.client_subnet.is_some(), HAS_SUBNET) | has(self.options.is_some(), HAS_OPTIONS),
        );
        if let Some(subnet) = self.client_subnet {
            octets.extend_from_slice(&subnet.octets());
        }
        if let Some(options) = self.options {
            octets.extend_from_slice(&(options.octets().len() as u16).to_be_bytes());
            octets.extend_from_slice(options.octets());
        }
        octets
    }

    /// The query to send upstream, with ID 0 for the sender to set: the key's RD, CD and question; AD, since whoever
    /// keeps an answer wants to know (RFC 6840 section 5.7); and an OPT record where a UDP payload size is offered,
    /// with the key's DO, the client's subnet if there is one, and what a directive has put there.
    #[allow(clippy::wrong_self_convention, reason = "a copy is larger than the reference")]
    pub fn to_upstream(&self, udp_size: Option<u16>) -> SmallVec<[u8; 128]> {
        let question = &self.question;
        let mut message = SmallVec::with_capacity(HEADER_LENGTH + question.name.len() + 4 + OPT_LENGTH);
        let mut flags = AD;
        if !question.flags.contains(KeyFlags::NON_RECURSIVE) {
            flags |= RD;
        }
        if question.flags.contains(KeyFlags::CHECKING_DISABLED) {
            flags |= CD;
        }
        let [high, low] = flags.to_be_bytes();
        message.extend_from_slice(&[0, 0, high, low, 0, 1, 0, 0, 0, 0, 0, udp_size.is_some().into()]);
        message.extend_from_slice(question.name);
        message.extend_from_slice(&question.qtype.0.to_be_bytes());
        message.extend_from_slice(&question.qclass.0.to_be_bytes());
        if let Some(udp_size) = udp_size {
            let dnssec_ok = question.flags.contains(KeyFlags::DNSSEC_OK);
            let mut options = self.client_subnet.map(|subnet| subnet.option(0)).unwrap_or_default();
            options.extend_from_slice(self.options.map(UpstreamOptions::octets).unwrap_or_default());
            opt::append(udp_size, 0, dnssec_ok, &options, &mut message);
        }
        message
    }
}

#[cfg(test)]
mod tests {
    use super::super::fixtures::query;
    use super::*;

    /// The query that goes upstream for a client's with these header flags and, with EDNS, this DO.
    fn upstream(flags: u16, dnssec_ok: Option<bool>) -> Vec<u8> {
        let (query, _) = query("A.eXample.", flags, dnssec_ok);
        query.key(None).to_upstream(dnssec_ok.map(|_| 1232)).to_vec()
    }

    #[test]
    fn the_upstream_gets_rd_cd_do_and_the_question_and_the_rest_is_ours() {
        let question = b"\x01a\x07example\0\0\x01\0\x01";
        let expected = |flags: u8, low_flags: u8, opt: &[u8]| {
            [&[0, 0, flags, low_flags, 0, 1, 0, 0, 0, 0, 0, u8::from(!opt.is_empty())][..], question, opt].concat()
        };
        // Every bit but QR and the opcode, which no query to be forwarded has.
        assert_eq!(upstream(0x07ff, Some(true)), expected(1, 0x30, &[0, 0, 41, 4, 208, 0, 0, 0x80, 0, 0, 0]));
        assert_eq!(upstream(0x0100, Some(false)), expected(1, 0x20, &[0, 0, 41, 4, 208, 0, 0, 0, 0, 0, 0]));
        assert_eq!(upstream(0, None), expected(0, 0x20, &[]));
    }

    #[test]
    fn the_upstream_gets_the_clients_subnet_where_it_gets_an_opt_record() {
        let (query, _) = query("a.example.", 0x0100, Some(true));
        let key = query.key(Some(&ClientSubnet::UNTAILORED));
        let end = [0, 0, 41, 4, 208, 0, 0, 0x80, 0, 0, 8, 0, 8, 0, 4, 0, 1, 0, 0];
        assert!(key.to_upstream(Some(1232)).ends_with(&end));
        assert_eq!(key.to_upstream(None), query.key(None).to_upstream(None));
        assert!(key.octets() != query.key(None).octets() && query.question_key().octets() == query.key(None).octets());
    }

    #[test]
    fn options_that_a_directive_has_put_there_go_upstream_after_the_subnet_and_make_another_key() {
        let (query, _) = query("a.example.", 0x0100, Some(true));
        let (mut one, mut other) = (UpstreamOptions::default(), UpstreamOptions::default());
        assert!(one.push(65518, b"ab") && other.push(65518, b"ac"));
        let key = RequestKey { options: Some(&one), ..query.key(Some(&ClientSubnet::UNTAILORED)) };
        let end = [0, 14, 0, 8, 0, 4, 0, 1, 0, 0, 0xff, 0xee, 0, 2, b'a', b'b'];
        assert!(key.to_upstream(Some(1232)).ends_with(&end));
        assert_eq!(key.to_upstream(None), query.key(None).to_upstream(None));
        let keys = [key, RequestKey { options: Some(&other), ..key }, RequestKey { options: None, ..key }];
        let octets: std::collections::HashSet<_> = keys.iter().map(RequestKey::octets).collect();
        assert_eq!(octets.len(), keys.len());
    }

    #[test]
    fn flags_without_a_meaning_are_none() {
        for bits in 0..=u8::MAX {
            assert_eq!(KeyFlags::from_bits(bits).map(KeyFlags::bits), (bits < 8).then_some(bits));
        }
    }
}
