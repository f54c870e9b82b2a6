//! Numbers of the protocol with their mnemonics (IANA DNS parameters), spelt as the reference's logs and metrics spell
//! them. hickory-proto's tables lack about half of the types, hence these. Unknown numbers print as `TYPE65400` (RFC
//! 3597 section 5).

use std::fmt;

/// A record type, such as A (1).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct RecordType(pub u16);

#[allow(missing_docs, reason = "mnemonics of the IANA registry")]
impl RecordType {
    pub const A: Self = Self(1);
    pub const NS: Self = Self(2);
    pub const CNAME: Self = Self(5);
    pub const SOA: Self = Self(6);
    pub const PTR: Self = Self(12);
    pub const HINFO: Self = Self(13);
    pub const MX: Self = Self(15);
    pub const TXT: Self = Self(16);
    pub const AAAA: Self = Self(28);
    pub const SRV: Self = Self(33);
    pub const OPT: Self = Self(41);
    pub const DS: Self = Self(43);
    pub const RRSIG: Self = Self(46);
    pub const IXFR: Self = Self(251);
    pub const AXFR: Self = Self(252);
    pub const ANY: Self = Self(255);

    /// The mnemonic of an assigned type.
    pub fn mnemonic(self) -> Option<&'static str> {
        record_type_mnemonic(self.0)
    }
    /// The type of a mnemonic such as `AAAA`, in any case; `None` for an unknown one. For configuration: it looks
    /// through all numbers.
    pub fn from_mnemonic(text: &str) -> Option<Self> {
        (0..=u16::MAX)
            .map(Self)
            .find(|rtype| rtype.mnemonic().is_some_and(|mnemonic| mnemonic.eq_ignore_ascii_case(text)))
    }
    /// The type of a mnemonic, or of `TYPE` and its number (RFC 3597 section 5), in any case.
    pub(crate) fn parse(text: &str) -> Option<Self> {
        Self::from_mnemonic(text).or_else(|| numbered(text, "TYPE").map(Self))
    }
}

impl fmt::Display for RecordType {
    /// The mnemonic, or `TYPE` and the number.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.mnemonic() {
            Some(mnemonic) => f.write_str(mnemonic),
            None => write!(f, "TYPE{}", self.0),
        }
    }
}

/// A class, such as IN (1).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Class(pub u16);

impl Class {
    pub const IN: Self = Self(1);
    pub const CH: Self = Self(3);
    /// Of questions only (RFC 1035 section 3.2.5).
    pub const ANY: Self = Self(255);

    /// The class of a mnemonic such as `CH`, in any case; `None` for an unknown one.
    pub fn from_mnemonic(text: &str) -> Option<Self> {
        const ASSIGNED: [(u16, &str); 6] = [(1, "IN"), (2, "CS"), (3, "CH"), (4, "HS"), (254, "NONE"), (255, "ANY")];
        ASSIGNED.iter().find(|(_, mnemonic)| mnemonic.eq_ignore_ascii_case(text)).map(|(number, _)| Self(*number))
    }
}

impl fmt::Display for Class {
    /// The mnemonic, or `CLASS` and the number.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mnemonic = match self.0 {
            1 => "IN",
            2 => "CS",
            3 => "CH",
            4 => "HS",
            254 => "NONE",
            255 => "ANY",
            number => return write!(f, "CLASS{number}"),
        };
        f.write_str(mnemonic)
    }
}

/// A response code, extended ones (RFC 6891 section 6.1.3) included.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Rcode(pub u16);

/// Mnemonics by code. 16 is BADVERS in an OPT record and BADSIG in a TSIG record; the former is what an answer's code
/// means.
const RCODES: &[(u16, &str)] = &[
    (0, "NOERROR"),
    (1, "FORMERR"),
    (2, "SERVFAIL"),
    (3, "NXDOMAIN"),
    (4, "NOTIMP"),
    (5, "REFUSED"),
    (6, "YXDOMAIN"),
    (7, "YXRRSET"),
    (8, "NXRRSET"),
    (9, "NOTAUTH"),
    (10, "NOTZONE"),
    (11, "DSOTYPENI"),
    (16, "BADVERS"),
    (17, "BADKEY"),
    (18, "BADTIME"),
    (19, "BADMODE"),
    (20, "BADNAME"),
    (21, "BADALG"),
    (22, "BADTRUNC"),
    (23, "BADCOOKIE"),
    // Read only: other spellings the reference's parser takes.
    (4, "NOTIMPL"),
    (16, "BADSIG"),
];

#[allow(missing_docs, reason = "mnemonics of the IANA registry")]
impl Rcode {
    pub const NOERROR: Self = Self(0);
    pub const FORMERR: Self = Self(1);
    pub const SERVFAIL: Self = Self(2);
    pub const NXDOMAIN: Self = Self(3);
    pub const NOTIMP: Self = Self(4);
    pub const REFUSED: Self = Self(5);
    pub const BADVERS: Self = Self(16);

    /// The code of a mnemonic such as `SERVFAIL`, in any case; `None` for an unknown one.
    pub fn from_mnemonic(text: &str) -> Option<Self> {
        RCODES.iter().find(|(_, mnemonic)| mnemonic.eq_ignore_ascii_case(text)).map(|(code, _)| Self(*code))
    }
    /// The code of a mnemonic, or of `RCODE` and its number, in any case.
    pub(crate) fn parse(text: &str) -> Option<Self> {
        Self::from_mnemonic(text).or_else(|| numbered(text, "RCODE").map(Self))
    }
    /// Whether caches keep an answer with this code that has no record: it says that the type is not there, or that
    /// the server fails (RFC 2308 section 7.1). NXDOMAIN is kept only with the SOA record that says how long.
    pub fn is_cached_bare(self) -> bool {
        matches!(self, Self::NOERROR | Self::SERVFAIL | Self::NOTIMP)
    }
    /// The mnemonic of an assigned code.
    pub fn mnemonic(self) -> Option<&'static str> {
        RCODES.iter().find(|(code, _)| *code == self.0).map(|(_, mnemonic)| *mnemonic)
    }
}

impl fmt::Display for Rcode {
    /// The mnemonic in capitals, as the reference writes it in logs and metrics (`NXDOMAIN`, `BADVERS`); `RCODE` and
    /// the number for an unassigned one.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.mnemonic() {
            Some(mnemonic) => f.write_str(mnemonic),
            None => write!(f, "RCODE{}", self.0),
        }
    }
}

/// The number after a word, which is in any case.
fn numbered(text: &str, word: &str) -> Option<u16> {
    let (start, number) = text.split_at_checked(word.len())?;
    start.eq_ignore_ascii_case(word).then(|| number.parse().ok())?
}

/// Mnemonics of record types, the query-only ones included.
fn record_type_mnemonic(number: u16) -> Option<&'static str> {
    Some(match number {
        0 => "None",
        1 => "A",
        2 => "NS",
        3 => "MD",
        4 => "MF",
        5 => "CNAME",
        6 => "SOA",
        7 => "MB",
        8 => "MG",
        9 => "MR",
        10 => "NULL",
        12 => "PTR",
        13 => "HINFO",
        14 => "MINFO",
        15 => "MX",
        16 => "TXT",
        17 => "RP",
        18 => "AFSDB",
        19 => "X25",
        20 => "ISDN",
        21 => "RT",
        23 => "NSAP-PTR",
        24 => "SIG",
        25 => "KEY",
        26 => "PX",
        27 => "GPOS",
        28 => "AAAA",
        29 => "LOC",
        30 => "NXT",
        31 => "EID",
        32 => "NIMLOC",
        33 => "SRV",
        34 => "ATMA",
        35 => "NAPTR",
        36 => "KX",
        37 => "CERT",
        39 => "DNAME",
        41 => "OPT",
        42 => "APL",
        43 => "DS",
        44 => "SSHFP",
        45 => "IPSECKEY",
        46 => "RRSIG",
        47 => "NSEC",
        48 => "DNSKEY",
        49 => "DHCID",
        50 => "NSEC3",
        51 => "NSEC3PARAM",
        52 => "TLSA",
        53 => "SMIMEA",
        55 => "HIP",
        56 => "NINFO",
        57 => "RKEY",
        58 => "TALINK",
        59 => "CDS",
        60 => "CDNSKEY",
        61 => "OPENPGPKEY",
        62 => "CSYNC",
        63 => "ZONEMD",
        64 => "SVCB",
        65 => "HTTPS",
        99 => "SPF",
        100 => "UINFO",
        101 => "UID",
        102 => "GID",
        103 => "UNSPEC",
        104 => "NID",
        105 => "L32",
        106 => "L64",
        107 => "LP",
        108 => "EUI48",
        109 => "EUI64",
        128 => "NXNAME",
        249 => "TKEY",
        250 => "TSIG",
        251 => "IXFR",
        252 => "AXFR",
        253 => "MAILB",
        254 => "MAILA",
        255 => "ANY",
        256 => "URI",
        257 => "CAA",
        258 => "AVC",
        260 => "AMTRELAY",
        261 => "RESINFO",
        32768 => "TA",
        32769 => "DLV",
        65535 => "Reserved",
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn types_print_as_in_the_reference() {
        for (number, text) in [
            (1, "A"),
            (23, "NSAP-PTR"),
            (29, "LOC"),
            (65, "HTTPS"),
            (255, "ANY"),
            (257, "CAA"),
            (65400, "TYPE65400"),
            (0, "None"),
            (65535, "Reserved"),
        ] {
            assert_eq!(RecordType(number).to_string(), text);
        }
    }

    #[test]
    fn mnemonics_agree_with_hickory_where_it_has_one() {
        for number in 0..=u16::MAX {
            let theirs = hickory_proto::rr::RecordType::from(number);
            if !matches!(theirs, hickory_proto::rr::RecordType::Unknown(_) | hickory_proto::rr::RecordType::ZERO)
                && let Some(ours) = RecordType(number).mnemonic()
            {
                assert_eq!(ours, theirs.to_string(), "{number}");
            }
        }
    }

    #[test]
    fn mnemonics_of_types_and_classes_read_back_in_any_case() {
        for number in [1, 28, 65, 255, 257] {
            assert_eq!(
                RecordType::from_mnemonic(&RecordType(number).to_string().to_lowercase()),
                Some(RecordType(number))
            );
        }
        for number in [1, 2, 3, 4, 254, 255] {
            assert_eq!(Class::from_mnemonic(&Class(number).to_string().to_lowercase()), Some(Class(number)));
        }
        assert_eq!((RecordType::from_mnemonic("TYPE1"), Class::from_mnemonic("CLASS1")), (None, None));
    }

    #[test]
    fn classes_print_as_in_the_reference() {
        for (number, text) in [(1, "IN"), (2, "CS"), (3, "CH"), (4, "HS"), (5, "CLASS5"), (254, "NONE"), (255, "ANY")] {
            assert_eq!(Class(number).to_string(), text);
        }
    }

    #[test]
    fn rcodes_print_as_in_the_reference_and_read_back_in_any_case() {
        for (code, text) in [(0, "NOERROR"), (3, "NXDOMAIN"), (11, "DSOTYPENI"), (16, "BADVERS"), (23, "BADCOOKIE")] {
            assert_eq!(Rcode(code).to_string(), text);
            assert_eq!(Rcode::from_mnemonic(&text.to_lowercase()), Some(Rcode(code)));
        }
        assert_eq!(Rcode(12).to_string(), "RCODE12");
        assert_eq!(Rcode(4095).to_string(), "RCODE4095");
        assert_eq!(Rcode::from_mnemonic("NOTIMPL"), Some(Rcode::NOTIMP));
        assert_eq!(Rcode::from_mnemonic("RCODE12"), None);
    }
}
