//! An answer that is the same whatever name is asked for: written for each client without being made for its name
//! first.

use super::header::AA;
use super::record::Section;
use super::{ExtendedError, Query, Rcode, ReplyOptions, ReplyShape};

/// An authoritative answer to any question.
#[derive(Clone, Debug)]
pub(crate) struct FixedAnswer {
    rcode: Rcode,
    counts: [u16; 3],
    records: Box<[u8]>,
    options: ReplyOptions,
}

impl FixedAnswer {
    /// From records in wire form, names written out. `None` if it needs an OPT record for its rcode, or is longer
    /// than any client takes over UDP.
    pub(crate) fn new(rcode: Rcode, records: &[(Section, Vec<u8>)], error: Option<&ExtendedError>) -> Option<Self> {
        let (mut counts, mut octets) = ([0_u16; 3], Vec::new());
        for section in Section::ALL {
            for (_, record) in records.iter().filter(|(of, _)| *of == section) {
                counts[section as usize] = counts[section as usize].checked_add(1)?;
                octets.extend_from_slice(record);
            }
        }
        let mut options = ReplyOptions::default();
        if let Some(error) = error {
            options.push_extended_error(error);
        }
        let is_short = octets.len() <= usize::from(u16::MAX) / 2;
        (rcode.0 <= 0x0f && is_short).then(|| Self { rcode, counts, records: octets.into(), options })
    }

    /// Whether a cache keeps it.
    pub(crate) fn is_cached(&self) -> bool {
        !self.records.is_empty() || self.rcode.is_cached_bare()
    }

    /// Appends the reply for one client: ID, RD, CD and question are its own; an OPT record if it sent one. False,
    /// and nothing appended, if that is more than it may get. Allocates nothing when `out` has room.
    pub(crate) fn write(&self, query: &Query, wire: &[u8], reply: ReplyShape, out: &mut Vec<u8>) -> bool {
        let options = self.options.octets();
        let length = usize::from(query.question_end) + self.records.len() + query.opt_length(options);
        if length > reply.limit {
            return false;
        }
        query.write_head(wire, AA | self.rcode.0, self.counts, out);
        out.extend_from_slice(&self.records);
        query.write_opt(reply.udp_size, options, out);
        true
    }
}

#[cfg(test)]
mod tests {
    use super::super::TtlRule;
    use super::super::fixtures::{listing, query};
    use super::super::header::{CD, QR, RD};
    use super::*;

    const ADDRESS: &[u8] = b"\x01a\x07Example\0\0\x01\0\x01\0\0\0\x1e\0\x04\xc0\0\x02\x01";

    fn reply(limit: usize) -> ReplyShape {
        ReplyShape { ttl: TtlRule::Keep, limit, udp_size: 1232 }
    }

    #[test]
    fn every_name_gets_it_with_its_own_question() {
        let records = [(Section::Additional, ADDRESS.to_vec()), (Section::Authority, ADDRESS.to_vec())];
        let answer = FixedAnswer::new(Rcode::NXDOMAIN, &records, None).unwrap();
        for name in ["Example.", "other.test.", "."] {
            for opt in [None, Some(true)] {
                let (query, wire) = query(name, RD | CD, opt);
                let mut out = Vec::new();
                assert!(answer.write(&query, &wire, reply(512), &mut out));
                assert_eq!(out[..2], wire[..2]);
                assert_eq!(out[2..4], (QR | AA | RD | CD | 3).to_be_bytes());
                assert!(out[12..].starts_with(query.question(&wire)));
                assert_eq!(listing(&out)[..2], ["Authority a.Example. 30 A 4", "Additional a.Example. 30 A 4"]);
                assert_eq!(out[11], 1 + u8::from(opt.is_some()));
            }
        }
    }

    #[test]
    fn the_extended_error_is_for_clients_that_know_edns() {
        let error = ExtendedError { code: 15, text: "blocked".to_owned() };
        let answer = FixedAnswer::new(Rcode::NOERROR, &[], Some(&error)).unwrap();
        for (opt, ends) in [(Some(false), true), (None, false)] {
            let (query, wire) = query("example.", 0, opt);
            let mut out = Vec::new();
            assert!(answer.write(&query, &wire, reply(512), &mut out));
            assert_eq!(out.ends_with(b"\0\0\0\0\x0d\0\x0f\0\x09\0\x0fblocked"), ends);
        }
    }

    #[test]
    fn what_does_not_fit_is_not_written() {
        let answer = FixedAnswer::new(Rcode::NOERROR, &[(Section::Answer, ADDRESS.to_vec())], None).unwrap();
        let (query, wire) = query("example.", 0, Some(false));
        let mut out = b"before".to_vec();
        let length = wire.len() + ADDRESS.len();
        assert!(!answer.write(&query, &wire, reply(length - 1), &mut out));
        assert_eq!(out, b"before");
        assert!(answer.write(&query, &wire, reply(length), &mut out));
        assert_eq!(out.len(), 6 + length);
        assert!(FixedAnswer::new(Rcode::BADVERS, &[], None).is_none());
        assert!(FixedAnswer::new(Rcode::NOERROR, &vec![(Section::Answer, ADDRESS.to_vec()); 2000], None).is_none());
    }
}
