//! Records as text, as a zone file has them (RFC 1035 section 5.1), for people. What is not known is in the form for
//! unknown types (RFC 3597 section 5). Nothing is left in it that a terminal would obey.

use super::{Data, Record, RecordType};
use std::fmt::{self, Write as _};
use std::net::{Ipv4Addr, Ipv6Addr};

impl Record<'_> {
    /// Owner, TTL, class, type and data. The TTL is what the reader is to see, in place of the one that stands there.
    pub fn to_text(self, ttl: u32) -> String {
        let mut text = format!("{} {ttl} {} {} ", self.owner(), self.class, self.rtype);
        let start = text.len();
        if self.write_data(&mut text).is_none() {
            text.truncate(start);
            _ = write_unknown(self.rdata(), &mut text);
        }
        text
    }

    /// `None`, and something is written, for data that is not known or not laid out as its type says.
    fn write_data(&self, text: &mut String) -> Option<()> {
        let Data { head, names, rest } = self.data().ok()?;
        let written = match (self.rtype, names.as_slice()) {
            (RecordType::A, []) => write!(text, "{}", Ipv4Addr::from(<[u8; 4]>::try_from(head).ok()?)),
            (RecordType::AAAA, []) => write!(text, "{}", Ipv6Addr::from(<[u8; 16]>::try_from(head).ok()?)),
            (RecordType::NS | RecordType::CNAME | RecordType::PTR, [target]) => write!(text, "{target}"),
            (RecordType::SOA, [primary, mailbox]) => {
                let numbers = rest.as_chunks::<4>().0.iter().map(|number| u32::from_be_bytes(*number));
                write!(text, "{primary} {mailbox}").ok()?;
                numbers.into_iter().try_for_each(|number| write!(text, " {number}"))
            }
            (RecordType::MX | RecordType::SRV, [target]) => {
                let mut numbers = head.as_chunks::<2>().0.iter().map(|number| u16::from_be_bytes(*number));
                numbers.try_for_each(|number| write!(text, "{number} ")).ok()?;
                write!(text, "{target}")
            }
            (RecordType::TXT, []) => return write_strings(head, text),
            _ => return None,
        };
        written.ok()
    }
}

/// Character strings in quotes. `None` if they are not whole.
fn write_strings(mut data: &[u8], text: &mut String) -> Option<()> {
    let mut blank = "";
    while let Some((length, rest)) = data.split_first() {
        let (string, after) = rest.split_at_checked(usize::from(*length))?;
        write!(text, "{blank}\"").ok()?;
        for octet in string {
            match octet {
                b'"' | b'\\' => write!(text, "\\{}", char::from(*octet)),
                b' '..=b'~' => write!(text, "{}", char::from(*octet)),
                _ => write!(text, "\\{octet:03}"),
            }
            .ok()?;
        }
        text.push('"');
        (data, blank) = (after, " ");
    }
    Some(())
}

fn write_unknown(data: &[u8], text: &mut String) -> fmt::Result {
    write!(text, "\\# {}", data.len())?;
    if !data.is_empty() {
        text.push(' ');
    }
    data.iter().try_for_each(|octet| write!(text, "{octet:02x}"))
}

#[cfg(test)]
mod tests {
    use crate::message::Response;

    /// The text of one record of this type and data, after the question's name.
    fn text(rtype: u16, data: &[u8]) -> String {
        let length = u16::try_from(data.len()).unwrap().to_be_bytes();
        let head = [0, 1, 0x81, 0x80, 0, 1, 0, 1, 0, 0, 0, 0];
        let question = [&b"\x01a\x02\x1b[\0"[..], &rtype.to_be_bytes(), &[0, 1]].concat();
        let record = [&[0xc0, 12][..], &rtype.to_be_bytes(), &[0, 1, 0, 0, 1, 44], &length, data].concat();
        let response = Response::read(&[&head[..], &question, &record].concat()).unwrap();
        response.records().next().unwrap().to_text(7)
    }

    #[test]
    fn known_data_is_as_in_a_zone_file_with_the_ttl_that_is_left() {
        let soa =
            [&b"\x02ns\xc0\x0c\x01h\0"[..], &[0, 0, 0, 1, 0, 0, 0, 2, 0, 0, 0, 3, 0, 0, 0, 4, 0, 0, 0, 5]].concat();
        for (rtype, data, expected) in [
            (1, &[192, 0, 2, 1][..], "A 192.0.2.1"),
            (28, &[0x20, 1, 0xd, 0xb8, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1], "AAAA 2001:db8::1"),
            (5, b"\x01b\xc0\x0c", "CNAME b.a.\\027[."),
            (6, &soa, "SOA ns.a.\\027[. h. 1 2 3 4 5"),
            (15, b"\0\x0a\x01m\0", "MX 10 m."),
            (33, b"\0\x01\0\x02\0\x35\x01s\0", "SRV 1 2 53 s."),
            (16, b"\x05a\"\\\x1b\xff\0\x01b", "TXT \"a\\\"\\\\\\027\\255\" \"\" \"b\""),
        ] {
            assert_eq!(text(rtype, data), format!("a.\\027[. 7 IN {expected}"));
        }
    }

    #[test]
    fn what_is_unknown_or_not_laid_out_as_its_type_says_is_written_in_octets() {
        assert_eq!(text(65400, b"\x1b[31m"), "a.\\027[. 7 IN TYPE65400 \\# 5 1b5b33316d");
        assert_eq!(text(65400, b""), "a.\\027[. 7 IN TYPE65400 \\# 0");
        assert_eq!(text(16, b"\x05a"), "a.\\027[. 7 IN TXT \\# 2 0561");
    }
}
