//! Texts to records, as miekg/dns reads them, and what is refused.

use super::*;
use crate::message::{Query, Rcode, Response, Section};
use proptest::prelude::*;

/// What a text becomes: owner, TTL, class, type, and the data in hexadecimal digits.
fn shown(text: &str) -> Result<String, String> {
    let (_, wire) = read(text).map_err(|error| error.to_string())?;
    let question = Query::compose(1, b"\x01q\0", RecordType::A, true);
    let query = Query::read(&question).unwrap_or_else(|_| panic!("a query"));
    let response = Response::from_wire_records(&query, &question, Rcode::NOERROR, &[(Section::Answer, wire.clone())]);
    let response = response.map_err(|error| error.to_string())?;
    let record = response.records().next().unwrap();
    let length = record.owner().as_wire().len();
    let data: String = wire[length + 10..].iter().map(|octet| format!("{octet:02x}")).collect();
    Ok(format!("{} {} {} {} {data}", record.owner(), record.ttl, record.class, record.rtype))
}

#[test]
fn records_of_all_forms_are_read() {
    for (text, expected) in [
        ("a.example. 60 IN A 192.0.2.1", "a.example. 60 IN A c0000201"),
        ("a.example IN 60 A 192.0.2.1", "a.example. 60 IN A c0000201"),
        ("a.example a 192.0.2.1", "a.example. 3600 IN A c0000201"),
        ("a 1h30m CH A 192.0.2.1 ; a comment (", "a. 5400 CH A c0000201"),
        ("\n  \n. 1 AAAA 2001:db8::1\nb. 1 A 192.0.2.2", ". 1 IN AAAA 20010db8000000000000000000000001"),
        ("@ 1 NS @", ". 1 IN NS 00"),
        (r"a\.b\032c 1 CNAME B.example", r"a\.b\ c. 1 IN CNAME 0142076578616d706c6500"),
        ("x 1 MX 10 m", "x. 1 IN MX 000a016d00"),
        ("x 1 SRV 1 2 53 m.", "x. 1 IN SRV 000100020035016d00"),
        ("x 1 SOA n h (1 2 ; serial\n 1m 4 5)", "x. 1 IN SOA 016e0001680000000001000000020000003c0000000400000005"),
        (r#"x 1 TXT a "b c" \100\"d "" "#, "x. 1 IN TXT 01610362206303642264"),
        ("x 1 HINFO a b", "x. 1 IN HINFO 01610162"),
        ("x 1 RP a b", "x. 1 IN RP 016100016200"),
        (r#"x 1 NAPTR 1 2 "S" "SIP+D2U" "" a"#, "x. 1 IN NAPTR 00010002015307534950"),
        (r#"x 1 CAA 0 issue "ca.example""#, "x. 1 IN CAA 0005697373756563612e6578616d706c65"),
        (r#"x 1 URI 1 2 "u:x""#, "x. 1 IN URI 00010002753a78"),
        ("x 1 SSHFP 1 2 ab CD", "x. 1 IN SSHFP 0102abcd"),
        ("x 1 TLSA 3 1 1 0a0b", "x. 1 IN TLSA 0301010a0b"),
        ("x 1 DNSKEY 257 3 8 AQI=", "x. 1 IN DNSKEY 010103080102"),
        (
            "x 1 HTTPS 1 . alpn=h2,h3 port=443 ipv4hint=192.0.2.1",
            "x. 1 IN HTTPS 000100000100060268320268330003000201bb00040004c0000201",
        ),
        (
            r#"x 1 SVCB 1 a key65000="b c" no-default-alpn alpn="h2""#,
            "x. 1 IN SVCB 00010161000001000302683200020000fde80003622063",
        ),
        (r"x 1 TYPE65280 \# 3 01 02ff", "x. 1 IN TYPE65280 0102ff"),
        (r"x 1 CLASS5 TYPE1 \# 4 c0000201", "x. 1 CLASS5 A c0000201"),
        (r"x 1 TYPE65281 \# 0", "x. 1 IN TYPE65281 "),
    ] {
        let read = shown(text);
        assert!(read.as_ref().is_ok_and(|read| read.starts_with(expected)), "{text}: {read:?}");
    }
    let long = shown(&format!("x 1 TXT {}", "y".repeat(300))).unwrap();
    assert_eq!(
        (long.matches("ff79").count(), long.matches("2d79").count()),
        (1, 1),
        "a text of 300 octets becomes two"
    );
}

#[test]
fn what_is_no_record_is_refused_with_the_reason() {
    for (text, says) in [
        ("", "no record in it"),
        (" ; only a comment", "no record in it"),
        ("nonsense", "ends before the record's type"),
        ("a 60 IN", "ends before the record's type"),
        ("a b c d", "`b` is no record type, class or TTL"),
        ("a..b 60 IN A 192.0.2.1", "`a..b` is no domain name: an empty label"),
        ("a 60 IN A not-an-address", "`not-an-address` is not an IPv4 address of a record of type A"),
        ("a 60 IN A", "the an IPv4 address of a record of type A is missing"),
        ("a 60 IN A 192.0.2.1 192.0.2.2", "`192.0.2.2` stands after the data"),
        ("a 60 IN MX 70000 b", "`70000` is not a number up to 65535"),
        ("a 60 IN MX +1 b", "`+1` is not a number up to 65535"),
        ("a 60 IN TXT", "missing"),
        ("a 60 IN TXT \"b", "not closed"),
        ("a 60 IN SOA b c (1 2 3 4 5", "not closed"),
        ("a 60 IN A 192.0.2.1)", "not closed"),
        (r"a 60 IN TXT \25", "is not a text"),
        ("a 60 IN LOC 1 N 2 E", r"data of type LOC is read in the generic form alone"),
        (r"a 60 IN A \# 5 c0000201", "`5` is not the length that it has"),
        ("a 60 IN SSHFP 1 2 abc", "whole number of octets"),
        ("a 60 IN HTTPS 1 . port=x", "`port=x` is not a parameter with a value"),
        ("a 60 IN HTTPS 1 . nonsense", "`nonsense` is not a parameter"),
        ("a 60 IN HTTPS 1 . port=1 port=2", "stands there once"),
        ("a 60 IN HTTPS 1 . alpn=\"", "not closed"),
        ("a 99999999999 IN A 192.0.2.1", "`99999999999` is no record type"),
        (&format!("a 60 IN HINFO {} b", "x".repeat(256)), "at most 255 octets"),
    ] {
        let error = read(text).map(|_| ()).expect_err(text).to_string();
        assert!(error.contains(says), "{text}: {error}");
    }
}

proptest! {
    #[test]
    fn no_text_panics_and_what_is_read_is_a_record(text in "[a-z0-9.@ \\\\\"()#;=,\n]{0,60}", rtype in prop::sample::select(vec![
        "A", "TXT", "SOA", "HTTPS", "SVCB", "CAA", "NAPTR", "TYPE1", "TYPE65", "DS", "DNSKEY", "MX",
    ])) {
        for text in [text.clone(), format!("a 1 IN {rtype} {text}")] {
            if let Ok((rtype, wire)) = read(&text) {
                prop_assert!(wire.len() >= 11);
                prop_assert!(RecordType(rtype.0) == rtype);
            }
        }
    }
}
