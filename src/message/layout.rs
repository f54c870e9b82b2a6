//! Where the data of a record holds domain names. Needed to check compressed names, and to write a message anew, since
//! a pointer in the data is an offset of the message it stands in.

use super::{Class, RecordType};

/// The parts of a record's data, in this order: fixed octets, character strings, domain names, the rest.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Layout {
    pub fixed: u8,
    pub strings: u8,
    pub names: u8,
    /// Octets after the names; `None` for any number.
    pub rest: Option<u8>,
    /// Names may be written compressed: only for the types of RFC 1035 (RFC 3597 section 4).
    pub compressible: bool,
}

const fn names(fixed: u8, names: u8, rest: Option<u8>) -> Layout {
    Layout { fixed, strings: 0, names, rest, compressible: false }
}

const fn compressible(fixed: u8, names: u8, rest: u8) -> Layout {
    Layout { fixed, strings: 0, names, rest: Some(rest), compressible: true }
}

/// How the data of a type is laid out; opaque for a type without names.
pub(super) fn of(rtype: RecordType, class: Class) -> Layout {
    match rtype.0 {
        // NS MD MF CNAME MB MG MR PTR
        2 | 3 | 4 | 5 | 7 | 8 | 9 | 12 => compressible(0, 1, 0),
        // SOA
        6 => compressible(0, 2, 20),
        // MINFO
        14 => compressible(0, 2, 0),
        // MX
        15 => compressible(2, 1, 0),
        // RP TALINK
        17 | 58 => names(0, 2, Some(0)),
        // AFSDB RT KX LP
        18 | 21 | 36 | 107 => names(2, 1, Some(0)),
        // NSAP-PTR DNAME
        23 | 39 => names(0, 1, Some(0)),
        // SIG RRSIG
        24 | 46 => names(18, 1, None),
        // PX
        26 => names(2, 2, Some(0)),
        // NXT NSEC
        30 | 47 => names(0, 1, None),
        // SRV
        33 => names(6, 1, Some(0)),
        // NAPTR
        35 => Layout { fixed: 4, strings: 3, names: 1, rest: Some(0), compressible: false },
        // SVCB HTTPS
        64 | 65 => names(2, 1, None),
        // TKEY TSIG
        249 | 250 => names(0, 1, None),
        // A and AAAA of class IN; other classes lay A out otherwise (RFC 1035 section 3.4 speaks of IN only)
        1 if class == Class::IN => names(4, 0, Some(0)),
        28 if class == Class::IN => names(16, 0, Some(0)),
        _ => names(0, 0, None),
    }
}
