//! The OPT pseudo-record of EDNS(0) (RFC 6891 section 6.1).

use super::wire_reader::u16_at;
use super::work;

/// The UDP payload size that we state and ask for: a datagram of this size crosses every path unfragmented (DNS flag
/// day 2020).
pub(crate) const DEFAULT_UDP_SIZE: u16 = 1232;

/// Octets of an OPT record without options.
pub(super) const OPT_LENGTH: usize = 11;

/// The DO bit in the lower half of an OPT record's TTL field (RFC 3225 section 3).
pub(super) const DNSSEC_OK: u16 = 0x8000;

/// An OPT record of version 0 without options. `extended_rcode` is the upper eight bits of the 12-bit code.
pub(super) fn encode(udp_size: u16, extended_rcode: u8, dnssec_ok: bool) -> [u8; OPT_LENGTH] {
    let [size_high, size_low] = udp_size.to_be_bytes();
    let flags = if dnssec_ok { 0x80 } else { 0 };
    [0, 0, 41, size_high, size_low, extended_rcode, 0, flags, 0, 0, 0]
}

/// Appends an OPT record as [`encode`] makes it, with these options.
pub(super) fn append(
    udp_size: u16,
    extended_rcode: u8,
    dnssec_ok: bool,
    options: &[u8],
    message: &mut impl Extend<u8>,
) {
    let [fixed @ .., _, _] = encode(udp_size, extended_rcode, dnssec_ok);
    message.extend(fixed);
    message.extend((options.len() as u16).to_be_bytes());
    message.extend(options.iter().copied());
}

/// True if these octets are an OPT record and no more.
pub(super) fn is_one(octets: &[u8]) -> bool {
    octets.starts_with(&[0, 0, 41])
        && u16_at(octets, OPT_LENGTH - 2).is_ok_and(|length| octets.len() == OPT_LENGTH + usize::from(length))
}

/// The options of an OPT record's data: code and the whole option, header included. Ends early where the framing
/// breaks; [`are_well_framed`] tells.
pub(super) struct Options<'a>(pub &'a [u8]);

impl<'a> Iterator for Options<'a> {
    type Item = (u16, &'a [u8]);

    fn next(&mut self) -> Option<Self::Item> {
        work::count();
        let code = u16_at(self.0, 0).ok()?;
        let length = usize::from(u16_at(self.0, 2).ok()?);
        let (option, rest) = self.0.split_at_checked(4 + length)?;
        self.0 = rest;
        Some((code, option))
    }
}

/// True if the data of an OPT record is a sequence of whole options.
pub(super) fn are_well_framed(data: &[u8]) -> bool {
    let mut options = Options(data);
    options.by_ref().for_each(drop);
    options.0.is_empty()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn options_are_split_whole() {
        let data = [0, 8, 0, 1, 7, 0, 10, 0, 0];
        let options: Vec<_> = Options(&data).collect();
        assert_eq!(options, [(8, &data[..5]), (10, &data[5..])]);
        assert!(are_well_framed(&data));
        assert!(are_well_framed(&[]));
    }

    #[test]
    fn an_option_longer_than_its_record_is_badly_framed() {
        assert!(!are_well_framed(&[0, 8, 0, 2, 7]));
        assert!(!are_well_framed(&[0, 8, 0]));
    }
}
