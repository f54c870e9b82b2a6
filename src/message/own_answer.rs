//! Answers from local data: records of one type that the name asked for owns.

use super::header::{AA, TC};
use super::opt::DEFAULT_UDP_SIZE;
use super::reply::MIN_LIMIT;
use super::wire_reader::{HEADER_LENGTH, MAX_MESSAGE_LENGTH};
use super::{Query, Rcode, RecordType, ReplyShape, Response, WireError};

/// The owner of each record: a pointer to the question's name, which every client spells as it likes.
const OWNER: [u8; 2] = [0xc0, HEADER_LENGTH as u8];
/// TC in the third octet of the header.
const TC_OCTET: u8 = TC.to_be_bytes()[0];
/// Octets of a record before its data.
const RECORD_HEAD: usize = 12;

/// What is said of the name asked for. The data of its records comes apart.
#[derive(Clone, Copy, Debug)]
pub(crate) struct OwnAnswer {
    /// The lower four bits count.
    pub rcode: Rcode,
    pub rtype: RecordType,
    /// Seconds.
    pub ttl: u32,
}

impl OwnAnswer {
    /// Appends the reply for one client: an authoritative answer, RD and CD copied, RA clear, an OPT record if the
    /// client sent one, cut to the limit with TC. The TTL is this answer's. `data` is in wire form and has no
    /// compressed names. Allocates nothing when `out` has room.
    pub(crate) fn write<'d>(
        self,
        query: &Query,
        wire: &[u8],
        reply: ReplyShape,
        data: impl Iterator<Item = &'d [u8]>,
        out: &mut Vec<u8>,
    ) {
        let limit = reply.limit.clamp(MIN_LIMIT, MAX_MESSAGE_LENGTH) - query.opt_length(&[]);
        let (start, mut count) = (out.len(), 0_u16);
        query.write_head(wire, AA | self.rcode.0 & 0x0f, [0; 3], out);
        for data in data {
            if out.len() - start + RECORD_HEAD + data.len() > limit {
                out[start + 2] |= TC_OCTET;
                break;
            }
            out.extend_from_slice(&OWNER);
            out.extend_from_slice(&self.rtype.0.to_be_bytes());
            out.extend_from_slice(&query.qclass.0.to_be_bytes());
            out.extend_from_slice(&self.ttl.to_be_bytes());
            out.extend_from_slice(&(data.len() as u16).to_be_bytes());
            out.extend_from_slice(data);
            count += 1;
        }
        out[start + 6..start + 8].copy_from_slice(&count.to_be_bytes());
        query.write_opt(reply.udp_size, &[], out);
    }

    /// The same as an answer for whoever asks this, for the slow path.
    ///
    /// # Errors
    /// Data that does not fit the type.
    pub(crate) fn response<'d>(
        self,
        query: &Query,
        wire: &[u8],
        data: impl Iterator<Item = &'d [u8]>,
    ) -> Result<Response, WireError> {
        let whole = ReplyShape { ttl: super::TtlRule::Keep, limit: MAX_MESSAGE_LENGTH, udp_size: DEFAULT_UDP_SIZE };
        let mut message = Vec::new();
        self.write(query, wire, whole, data, &mut message);
        Response::read(&message)
    }
}

#[cfg(test)]
mod tests {
    use super::super::TtlRule;
    use super::super::fixtures::{listing, query};
    use super::super::header::{CD, RD};
    use super::*;

    const ADDRESSES: OwnAnswer = OwnAnswer { rcode: Rcode::NOERROR, rtype: RecordType::A, ttl: 60 };

    fn addresses(count: u8) -> Vec<[u8; 4]> {
        (0..count).map(|last| [192, 0, 2, last]).collect()
    }

    #[test]
    fn both_paths_say_the_same_with_the_clients_spelling_flags_and_opt() {
        for edns in [None, Some(false), Some(true)] {
            for flags in [0, RD, RD | CD] {
                let (query, wire) = query("EXample.", flags, edns);
                let reply = ReplyShape { ttl: TtlRule::Keep, limit: 512, udp_size: 1232 };
                let (mut fast, mut slow) = (Vec::new(), Vec::new());
                let data = addresses(2);
                let data = || data.iter().map(|address| &address[..]);
                ADDRESSES.write(&query, &wire, reply, data(), &mut fast);
                ADDRESSES.response(&query, &wire, data()).unwrap().write(&query, &wire, reply, &mut slow);
                assert_eq!(fast, slow);
                assert_eq!(listing(&fast), ["Answer example. 60 A 4"; 2]);
                assert_eq!(fast[12..20], *b"\x07EXample");
            }
        }
    }

    #[test]
    fn what_does_not_fit_is_left_out_and_tc_is_set() {
        let (query, wire) = query("example.", 0, Some(false));
        let data = addresses(60);
        let mut out = b"before".to_vec();
        let reply = ReplyShape { ttl: TtlRule::Keep, limit: 512, udp_size: 1232 };
        ADDRESSES.write(&query, &wire, reply, data.iter().map(|address| &address[..]), &mut out);
        let reply = out.split_off(6);
        assert!(reply.len() <= 512 && reply[2] & 2 != 0);
        assert_eq!(listing(&reply).len(), (512 - 11 - 25) / 16);
    }
}
