//! The little of DNS on the wire that a generator and a scripted upstream need (RFC 1035 section 4.1): one question,
//! and answers whose names point to it.

/// Types of records.
pub const A: u16 = 1;
pub const PTR: u16 = 12;
pub const AAAA: u16 = 28;

/// Octets of the header.
const HEADER: usize = 12;

/// What a right answer looks like.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Expected {
    /// NOERROR with records.
    Records,
    /// NOERROR without.
    NoData,
    /// NXDOMAIN.
    NoName,
    /// Anything with the query's ID: the floor's constant.
    Anything,
}

/// A query for `name`, written with dots and without the last, RD set, with `id`.
pub fn query(id: u16, name: &str, rtype: u16) -> Vec<u8> {
    let mut out = Vec::with_capacity(HEADER + name.len() + 6);
    out.extend_from_slice(&id.to_be_bytes());
    out.extend_from_slice(&[1, 0, 0, 1, 0, 0, 0, 0, 0, 0]);
    for label in name.split('.') {
        out.push(u8::try_from(label.len()).expect("a label has at most 63 octets"));
        out.extend_from_slice(label.as_bytes());
    }
    out.push(0);
    out.extend_from_slice(&rtype.to_be_bytes());
    out.extend_from_slice(&[0, 1]);
    out
}

/// The ID of a message.
pub fn id(message: &[u8]) -> Option<u16> {
    message.first_chunk().map(|id| u16::from_be_bytes(*id))
}

/// Whether `reply` is what was expected, to this query: QR set, the same question, rcode and records as expected, not
/// truncated.
pub fn is_right(query: &[u8], reply: &[u8], expected: Expected) -> bool {
    if expected == Expected::Anything {
        return reply.len() > HEADER && id(query) == id(reply);
    }
    let Some([_, _, flags, rcode, _, questions, high, low, ..]) = reply.first_chunk::<HEADER>() else { return false };
    let has_answers = [*high, *low] != [0, 0];
    let (wanted_rcode, wants_answers) = match expected {
        Expected::Records => (0, true),
        Expected::NoData => (0, false),
        Expected::NoName | Expected::Anything => (3, false),
    };
    let end = question_end(query).unwrap_or(query.len());
    let same_question =
        query.get(HEADER..end).zip(reply.get(HEADER..end)).is_some_and(|(a, b)| a.eq_ignore_ascii_case(b));
    id(query) == id(reply)
        && flags & 0x82 == 0x80
        && rcode & 0xf == wanted_rcode
        && *questions == 1
        && has_answers == wants_answers
        && same_question
}

/// What a reply says, for who reads that it is wrong.
pub fn describe(reply: &[u8]) -> String {
    match reply.first_chunk::<HEADER>() {
        Some([_, _, flags, rcode, _, _, high, low, ..]) => {
            let truncated = if flags & 2 == 0 { "" } else { ", truncated" };
            format!("RCODE {}, {} answers{truncated}", rcode & 0xf, u16::from_be_bytes([*high, *low]))
        }
        None => format!("{} octets", reply.len()),
    }
}

/// Where the first question ends: after its class.
pub fn question_end(message: &[u8]) -> Option<usize> {
    let mut at = HEADER;
    loop {
        match usize::from(*message.get(at)?) {
            0 => break,
            length if length < 64 => at += 1 + length,
            _ => return None,
        }
    }
    (at + 5 <= message.len()).then_some(at + 5)
}

/// The labels of the first question's name, and its type.
pub fn question(message: &[u8]) -> Option<(Vec<&[u8]>, u16)> {
    let end = question_end(message)?;
    let (mut labels, mut at) = (Vec::new(), HEADER);
    while message[at] != 0 {
        let next = at + 1 + usize::from(message[at]);
        labels.push(&message[at + 1..next]);
        at = next;
    }
    Some((labels, u16::from_be_bytes([message[end - 4], message[end - 3]])))
}

/// What the scripted upstream says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Content {
    /// So many A, AAAA or PTR records, each with this TTL in seconds.
    Records { count: u16, ttl: u32 },
    /// No such type, with an SOA record for its TTL and minimum (RFC 2308).
    NoData { ttl: u32 },
    /// No such name, likewise.
    NoName { ttl: u32 },
}

/// Writes the reply to `query`, whose question is well-formed, to `out`.
pub fn write_reply(query: &[u8], content: Content, out: &mut Vec<u8>) {
    let Some(end) = question_end(query) else { return };
    let rtype = &query[end - 4..end - 2];
    let (rcode, answers, authority) = match content {
        Content::Records { count, .. } => (0, count, 0_u16),
        Content::NoData { .. } => (0, 0, 1),
        Content::NoName { .. } => (3, 0, 1),
    };
    // QR and AA, with the query's opcode and RD; RA.
    out.extend_from_slice(&[query[0], query[1], 0x84 | query[2] & 0x79, 0x80 | rcode, 0, 1]);
    out.extend_from_slice(&answers.to_be_bytes());
    out.extend_from_slice(&authority.to_be_bytes());
    out.extend_from_slice(&[0, 0]);
    out.extend_from_slice(&query[HEADER..end]);
    match content {
        Content::Records { count, ttl } => {
            for number in 1..=count {
                let low = number.to_be_bytes();
                out.extend_from_slice(&[0xc0, 0x0c, rtype[0], rtype[1], 0, 1]);
                out.extend_from_slice(&ttl.to_be_bytes());
                if rtype == PTR.to_be_bytes() {
                    // `host` below the last label.
                    let pointer = last_label(query).to_be_bytes();
                    out.extend_from_slice(&[0, 7, 4, b'h', b'o', b's', b't', 0xc0 | pointer[0], pointer[1]]);
                } else if rtype == AAAA.to_be_bytes() {
                    out.extend_from_slice(&[0, 16, 0x20, 1, 0x0d, 0xb8, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, low[0], low[1]]);
                } else {
                    out.extend_from_slice(&[0, 4, 198, 18, low[0], low[1]]);
                }
            }
        }
        Content::NoData { ttl } | Content::NoName { ttl } => {
            // Of the last label alone, so that it holds for every name below it.
            let pointer = last_label(query).to_be_bytes();
            out.extend_from_slice(&[0xc0 | pointer[0], pointer[1], 0, 6, 0, 1]);
            out.extend_from_slice(&ttl.to_be_bytes());
            let names = b"\x02ns\xc0\x0c\x04host\xc0\x0c";
            let mut names = *names;
            (names[3], names[4]) = (0xc0 | pointer[0], pointer[1]);
            (names[10], names[11]) = (0xc0 | pointer[0], pointer[1]);
            out.extend_from_slice(&u16::try_from(names.len() + 20).unwrap_or(0).to_be_bytes());
            out.extend_from_slice(&names);
            for number in [1, 7200, 900, 1_209_600, ttl] {
                out.extend_from_slice(&u32::to_be_bytes(number));
            }
        }
    }
}

/// Where the last label of the question's name begins.
fn last_label(message: &[u8]) -> u16 {
    let (mut at, mut last) = (HEADER, HEADER);
    while message[at] != 0 {
        last = at;
        at += 1 + usize::from(message[at]);
    }
    u16::try_from(last).unwrap_or(HEADER as u16)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn reply(name: &str, rtype: u16, content: Content) -> (Vec<u8>, Vec<u8>) {
        let (query, mut out) = (query(7, name, rtype), Vec::new());
        write_reply(&query, content, &mut out);
        (query, out)
    }

    #[test]
    fn what_the_upstream_says_is_what_is_expected() {
        let cases = [
            (Content::Records { count: 2, ttl: 30 }, Expected::Records),
            (Content::NoData { ttl: 5 }, Expected::NoData),
            (Content::NoName { ttl: 5 }, Expected::NoName),
        ];
        for (content, right) in cases {
            let (query, out) = reply("web.shop.svc.cluster.local", A, content);
            for expected in [Expected::Records, Expected::NoData, Expected::NoName] {
                assert_eq!(is_right(&query, &out, expected), expected == right, "{content:?} as {expected:?}");
            }
        }
    }

    #[test]
    fn an_answer_to_another_question_or_id_or_a_truncated_one_is_wrong() {
        let (query, out) = reply("a.example", A, Content::Records { count: 1, ttl: 30 });
        assert!(is_right(&query, &out, Expected::Records));
        assert!(!is_right(&super::query(7, "b.example", A), &out, Expected::Records));
        assert!(!is_right(&super::query(8, "a.example", A), &out, Expected::Records));
        let mut truncated = out.clone();
        truncated[2] |= 2;
        assert!(!is_right(&query, &truncated, Expected::Records));
        assert!(!is_right(&query, &out[..11], Expected::Records));
    }

    #[test]
    fn labels_and_type_are_read_back() {
        let query = query(7, "web.shop.svc", AAAA);
        assert_eq!(question(&query), Some((vec![&b"web"[..], b"shop", b"svc"], AAAA)));
        assert_eq!(question(&query[..query.len() - 1]), None);
    }
}
