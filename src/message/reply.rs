//! A stored answer's copy for one client.

use super::octets::{HEADER_LENGTH, MAX_MESSAGE_LENGTH};
use super::opt::{self, OPT_LENGTH};
use super::query::{AD, CD, OPCODE, RD, TC};
use super::response::{Parts, Response};
use super::{Query, Rcode};

/// What TTLs the copy for a client carries.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TtlRule {
    /// As stored.
    Keep,
    /// Every record (but OPT, which is not stored) gets this many seconds.
    Set(u32),
}

/// How a reply is shaped for one client.
#[derive(Clone, Copy, Debug)]
pub struct Reply {
    pub ttl: TtlRule,
    /// Octets the reply may have; records that do not fit are left out and TC is set (RFC 2181 section 9). Below 512 counts as 512
    /// (RFC 6891 section 6.2.3).
    pub limit: usize,
    /// The UDP payload size we state in our OPT record.
    pub udp_size: u16,
}

/// The least limit there is (RFC 1035 section 4.2.1): a header, any question and an OPT record fit.
const MIN_LIMIT: usize = 512;

impl Response {
    /// Appends the reply for one client: the octets copied; ID, RD, CD, question case and TTLs patched; AD kept only if the
    /// client set DO or AD (RFC 6840 section 5.7); an OPT record if, and only if, the client sent one; cut to the limit.
    /// Allocates nothing when `out` has room and the question is the one the answer was stored for.
    ///
    /// Cut means: the records that fit, up to the first that does not, and TC. An rcode that needs an OPT record (BADVERS,
    /// BADCOOKIE) becomes SERVFAIL for a client that sent none; its low four bits alone would say something else. Another
    /// question than the stored one, as a rewriting directive leaves it, is put in with all names written anew.
    #[inline]
    pub fn write(&self, query: &Query, wire: &[u8], reply: Reply, out: &mut Vec<u8>) {
        let parts = self.parts();
        if parts.question_name() == query.name.as_wire() {
            append(parts, false, query, wire, reply, out);
        } else {
            self.write_under_another_name(query, wire, reply, out);
        }
    }

    #[cold]
    fn write_under_another_name(&self, query: &Query, wire: &[u8], reply: Reply, out: &mut Vec<u8>) {
        let (mut renamed, whole) = Self::compose(query, wire, self.rcode(), self.records());
        renamed.copy_flags(self);
        append(renamed.parts(), !whole, query, wire, reply, out);
    }
}

#[inline]
fn append(parts: Parts<'_>, mut truncated: bool, query: &Query, wire: &[u8], reply: Reply, out: &mut Vec<u8>) {
    let Parts { rcode, message, .. } = parts;
    let opt_length = if query.edns.is_some() { OPT_LENGTH } else { 0 };
    let budget = reply.limit.clamp(MIN_LIMIT, MAX_MESSAGE_LENGTH) - opt_length;
    let (mut end, mut ttl_offsets) = (message.len(), parts.ttl_offsets);
    let mut counts = [parts.header(3), parts.header(4), parts.header(5)];
    if end > budget {
        (end, ttl_offsets) = cut(&parts, budget, &mut counts);
        truncated = true;
    }

    let start = out.len();
    out.reserve(end + opt_length);
    out.extend_from_slice(&message[..end]);
    let copy = &mut out[start..];

    let mut kept = !(RD | CD);
    if !query.dnssec_ok() && !query.header.authentic_data() {
        kept &= !AD;
    }
    let mut flags = parts.header(1) & kept | query.header.flags & (OPCODE | RD | CD);
    if truncated {
        flags |= TC;
    }
    if rcode.0 > 0x0f && query.edns.is_none() {
        flags = flags & !0x0f | Rcode::SERVFAIL.0;
    }
    let additionals = counts[2] + u16::from(query.edns.is_some());
    if let Some(header) = copy.first_chunk_mut::<HEADER_LENGTH>() {
        header[0..2].copy_from_slice(&query.header.id.to_be_bytes());
        header[2..4].copy_from_slice(&flags.to_be_bytes());
        header[6..8].copy_from_slice(&counts[0].to_be_bytes());
        header[8..10].copy_from_slice(&counts[1].to_be_bytes());
        header[10..12].copy_from_slice(&additionals.to_be_bytes());
    }
    let question = query.question(wire);
    if let Some(place) = copy.get_mut(HEADER_LENGTH..HEADER_LENGTH + question.len()) {
        place.copy_from_slice(question);
    }
    if let TtlRule::Set(seconds) = reply.ttl {
        let seconds = seconds.to_be_bytes();
        for offset in ttl_offsets {
            let offset = usize::from(u16::from_be_bytes(*offset));
            if let Some(ttl) = copy.get_mut(offset..offset + 4) {
                ttl.copy_from_slice(&seconds);
            }
        }
    }
    if let Some(edns) = query.edns {
        out.extend_from_slice(&opt::encode(reply.udp_size, (rcode.0 >> 4) as u8, edns.dnssec_ok));
    }
}

/// What of a message fits: its end, and the TTL offsets of the records kept. Like miekg/dns's Truncate, the first record that does
/// not fit ends the message, even if a later one would.
#[cold]
fn cut<'a>(parts: &Parts<'a>, budget: usize, counts: &mut [u16; 3]) -> (usize, &'a [[u8; 2]]) {
    let kept = parts.ttl_offsets.partition_point(|offset| parts.record_end(*offset) <= budget);
    let (ttl_offsets, _) = parts.ttl_offsets.split_at(kept);
    let end = ttl_offsets.last().map_or(parts.question_end, |offset| parts.record_end(*offset));
    let mut left = kept as u16;
    for count in counts {
        *count = left.min(*count);
        left -= *count;
    }
    (end, ttl_offsets)
}
