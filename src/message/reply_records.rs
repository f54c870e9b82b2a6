//! Records of a reply, found in its octets without reading all of it.

use super::wire_reader::{u16_at, u32_at, walk_name};
use super::{RecordType, WireError, query};

/// Octets of a record between its owner and its data.
const FIXED: usize = 10;

/// Type of the question of a reply.
pub(crate) fn question_type_of(reply: &[u8]) -> Option<RecordType> {
    let end = query::question_name_end(reply).ok()?;
    u16_at(reply, end).ok().map(RecordType)
}

/// Whether a reply has a record of a type in its answer section.
pub(crate) fn has_answer(reply: &[u8], rtype: RecordType) -> bool {
    let find = || -> Result<bool, WireError> {
        let answers = u16_at(reply, 6)?;
        if answers == 0 {
            return Ok(false);
        }
        let mut at = query::question_name_end(reply)? + 4;
        for _ in 0..answers {
            let record = LocatedRecord::at(reply, at)?;
            if record.rtype == rtype {
                return Ok(true);
            }
            at = record.end;
        }
        Ok(false)
    };
    find().unwrap_or(false)
}

/// How long a name's or a type's absence is valid: seconds of the SOA record in a reply's authority section (RFC 2308
/// section 5); `None` without one.
///
/// # Errors
/// The reply is malformed.
pub(crate) fn absence_ttl(reply: &[u8]) -> Result<Option<u32>, WireError> {
    let (answers, authorities) = (u16_at(reply, 6)?, u16_at(reply, 8)?);
    let mut at = query::question_name_end(reply)? + 4;
    for index in 0..u32::from(answers) + u32::from(authorities) {
        let record = LocatedRecord::at(reply, at)?;
        if record.rtype == RecordType::SOA && index >= u32::from(answers) {
            return u32_at(reply, record.data - FIXED + 4).map(Some);
        }
        at = record.end;
    }
    Ok(None)
}

/// Offsets of a record.
pub(super) struct LocatedRecord {
    pub owner: usize,
    pub rtype: RecordType,
    pub data: usize,
    pub end: usize,
}

impl LocatedRecord {
    #[inline]
    pub(super) fn at(message: &[u8], owner: usize) -> Result<Self, WireError> {
        let fixed = match message.get(owner) {
            Some(0xc0..) => owner + 2,
            Some(0) => owner + 1,
            _ => walk_name(message, owner, |_| ())?,
        };
        let Some([type_high, type_low, .., length_high, length_low]) =
            message.get(fixed..).and_then(<[u8]>::first_chunk::<FIXED>)
        else {
            return Err(WireError::Short(fixed));
        };
        let data = fixed + FIXED;
        let end = data + usize::from(u16::from_be_bytes([*length_high, *length_low]));
        if end > message.len() {
            return Err(WireError::Short(data));
        }
        Ok(Self { owner, rtype: RecordType(u16::from_be_bytes([*type_high, *type_low])), data, end })
    }
    pub(super) fn owner<'m>(&self, message: &'m [u8]) -> &'m [u8] {
        message.get(self.owner..self.data - FIXED).unwrap_or_default()
    }
}

/// The OPT record that ends a reply; nothing if it has none.
pub(super) fn opt_of(message: &[u8], question_end: usize) -> Result<&[u8], WireError> {
    let records: u32 =
        [6, 8, 10].into_iter().map(|offset| u16_at(message, offset).map(u32::from)).sum::<Result<_, _>>()?;
    let (mut at, mut opt) = (question_end, &[][..]);
    for _ in 0..records {
        let record = LocatedRecord::at(message, at)?;
        if record.rtype == RecordType::OPT {
            opt = message.get(record.owner..record.end).unwrap_or_default();
        }
        at = record.end;
    }
    Ok(opt)
}

#[cfg(test)]
mod tests {
    use super::super::Section::{Answer, Authority};
    use super::super::fixtures::{TO_QUESTION, address, answer, opt, record};
    use super::super::header::QR;
    use super::*;

    #[test]
    fn an_absence_is_as_long_as_the_soa_record_of_the_authority_section() {
        let soa = |section, ttl| record(section, TO_QUESTION, RecordType::SOA.0, ttl, &[0; 22]);
        let reply = answer(QR, &[soa(Answer, 9), address(Authority, 60, 1), soa(Authority, 70_000), opt(0)]);
        assert_eq!(absence_ttl(&reply), Ok(Some(70_000)));
        assert_eq!(absence_ttl(&answer(QR, &[soa(Answer, 9), address(Authority, 60, 1)])), Ok(None));
        assert!(absence_ttl(&reply[..reply.len() - 40]).is_err());
        assert_eq!(absence_ttl(&[]), Err(WireError::Short(6)));
    }

    #[test]
    fn answers_of_a_type_are_found_and_what_is_elsewhere_or_cut_off_is_not() {
        let alias = record(Answer, TO_QUESTION, 5, 30, b"\x01a\xc0\x0c");
        let reply = answer(QR, &[alias.clone(), address(Answer, 60, 1), address(Authority, 60, 2), opt(0)]);
        assert_eq!(question_type_of(&reply), Some(RecordType::A));
        assert!(has_answer(&reply, RecordType::A) && has_answer(&reply, RecordType::CNAME));
        assert!(!has_answer(&reply, RecordType::AAAA) && !has_answer(&reply, RecordType::OPT));
        assert!(!has_answer(&answer(QR, &[alias, address(Authority, 60, 2)]), RecordType::A));
        for end in 0..25 + 13 {
            assert!(!has_answer(&reply[..end], RecordType::A), "{end}");
        }
    }
}
