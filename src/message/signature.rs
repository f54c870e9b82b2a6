//! The validity period of DNSSEC signatures (RFC 4034 section 3.1.5). The signatures themselves are not checked: that
//! is the resolver's or client's part.

use super::{RecordType, Response};

/// Offsets of the two times in the data of an RRSIG record (RFC 4034 section 3.1).
const EXPIRATION: usize = 8;
const INCEPTION: usize = 12;

impl Response {
    /// True if a signature of the response is not valid at `unix_seconds`, which are seconds since 1970 modulo 2³².
    pub fn has_signature_out_of_period(&self, unix_seconds: u32) -> bool {
        let is_valid = |rdata: &[u8]| is_valid_at(rdata, unix_seconds);
        self.records().any(|record| record.rtype == RecordType::RRSIG && !is_valid(record.rdata()))
    }
}

/// Compares in serial number arithmetic, so that times after 2106 are right too. Data that is too short is never valid.
fn is_valid_at(rdata: &[u8], now: u32) -> bool {
    let time = |at: usize| rdata.get(at..at + 4).and_then(|octets| octets.try_into().ok()).map(u32::from_be_bytes);
    match (time(EXPIRATION), time(INCEPTION)) {
        (Some(expiration), Some(inception)) => {
            now.wrapping_sub(inception).cast_signed() >= 0 && expiration.wrapping_sub(now).cast_signed() >= 0
        }
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::is_valid_at;

    #[test]
    fn a_signature_is_valid_from_its_inception_to_its_expiration_also_where_the_clock_wraps() {
        for (inception, expiration) in [(1000_u32, 2000_u32), (u32::MAX - 500, 499)] {
            let rdata = [&[0; 8][..], &expiration.to_be_bytes(), &inception.to_be_bytes()].concat();
            for now in [inception, inception.wrapping_add(1), expiration.wrapping_sub(1), expiration] {
                assert!(is_valid_at(&rdata, now), "{inception} {now}");
            }
            for now in [inception.wrapping_sub(1), expiration.wrapping_add(1)] {
                assert!(!is_valid_at(&rdata, now), "{inception} {now}");
            }
            assert!(!is_valid_at(&rdata[..15], inception));
        }
    }
}
