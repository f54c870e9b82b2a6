//! How long a reply may be kept by whoever caches what came over HTTP (RFC 8484 section 5.1).

use super::reply_records::LocatedRecord;
use super::wire_reader::{u16_at, u32_at};
use super::{Rcode, RecordType, WireError, query};

/// Seconds for a reply without a record, or with an error (CoreDNS plugin/pkg/dnsutil, MinimalDefaultTTL).
const LEAST: u32 = 5;
/// Seconds that no reply is fresh beyond (MaximumDefaultTTL).
const MOST: u32 = 60 * 60;

/// Seconds for which a reply is fresh: the smallest TTL of its records, an hour at most; 5 for one that has none, or
/// whose rcode is neither NOERROR nor NXDOMAIN.
pub(crate) fn freshness(reply: &[u8]) -> u32 {
    smallest_ttl(reply).ok().flatten().unwrap_or(LEAST)
}

fn smallest_ttl(reply: &[u8]) -> Result<Option<u32>, WireError> {
    let rcode = Rcode(u16_at(reply, 2)? & 0x0f);
    if rcode != Rcode::NOERROR && rcode != Rcode::NXDOMAIN {
        return Ok(None);
    }
    let questions = u16_at(reply, 4)?;
    let mut at = if questions == 0 { 12 } else { query::question_name_end(reply)? + 4 };
    let counts = [6, 8, 10].map(|offset| u16_at(reply, offset).map(u32::from));
    let mut smallest = None;
    for _ in 0..counts.into_iter().sum::<Result<u32, _>>()? {
        let record = LocatedRecord::at(reply, at)?;
        if record.rtype != RecordType::OPT {
            // Six octets before its data: TTL and length.
            let ttl = u32_at(reply, record.data - 6)?;
            smallest = Some(smallest.unwrap_or(MOST).min(ttl));
        }
        at = record.end;
    }
    Ok(smallest)
}

#[cfg(test)]
mod tests {
    use super::super::Section::{Answer, Authority};
    use super::super::fixtures::{address, answer, opt};
    use super::super::header::QR;
    use super::*;

    #[test]
    fn a_reply_is_fresh_for_the_smallest_ttl_of_its_records_and_an_hour_at_most() {
        let fresh = |flags, records: &[_]| freshness(&answer(flags, records));
        assert_eq!(fresh(QR, &[address(Answer, 300, 1), address(Authority, 60, 2), opt(0)]), 60);
        assert_eq!(fresh(QR, &[address(Answer, 0, 1), address(Answer, 60, 2)]), 0);
        assert_eq!(fresh(QR, &[address(Answer, 86_400, 1)]), MOST);
        assert_eq!(fresh(QR, &[opt(0)]), LEAST, "no record");
        assert_eq!(fresh(QR | 3, &[address(Authority, 60, 2)]), 60, "NXDOMAIN");
        assert_eq!(fresh(QR | 2, &[address(Authority, 60, 2)]), LEAST, "SERVFAIL");
    }

    #[test]
    fn what_is_cut_off_is_fresh_for_as_long_as_an_error() {
        let reply = answer(QR, &[address(Answer, 300, 1)]);
        (0..reply.len()).for_each(|end| assert_eq!(freshness(&reply[..end]), LEAST, "{end}"));
    }
}
