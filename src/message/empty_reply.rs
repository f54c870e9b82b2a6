//! An answer without records, written straight from its query.

use super::header::{CD, OPCODE, QR, RD};
use super::{Query, Rcode, ReplyOptions, opt};

impl Query {
    /// Appends an answer without records, as [`super::Response::empty`] makes it, and takes nothing from the heap
    /// beside what `out` needs. `wire` is what the query was read from; the code has four bits; the OPT record, if the
    /// client sent one, states this UDP payload size and has these options.
    pub fn write_empty(&self, wire: &[u8], rcode: Rcode, udp_size: u16, options: &ReplyOptions, out: &mut Vec<u8>) {
        let flags = QR | self.header.flags & (OPCODE | RD | CD) | rcode.0 & 0x0f;
        let additionals = u8::from(self.edns.is_some());
        out.extend_from_slice(&self.header.id.to_be_bytes());
        out.extend_from_slice(&flags.to_be_bytes());
        out.extend_from_slice(&[0, 1, 0, 0, 0, 0, 0, additionals]);
        out.extend_from_slice(self.question(wire));
        if let Some(edns) = self.edns {
            opt::append(udp_size, 0, edns.dnssec_ok, options.octets(), out);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::fixtures::query;
    use super::super::header::{AD, RD};
    use super::super::{ExtendedError, Rcode, Reply, ReplyOptions, Response, TtlRule};

    #[test]
    fn an_answer_without_records_is_the_one_that_is_composed_octet_for_octet() {
        let mut options = ReplyOptions::default();
        options.push_extended_error(&ExtendedError { code: 15, text: String::new() });
        for edns in [None, Some(false), Some(true)] {
            let (query, wire) = query("eXample.", RD | AD, edns);
            let shape = Reply { ttl: TtlRule::Keep, limit: 512, udp_size: 1232 };
            let (mut composed, mut written) = (Vec::new(), Vec::new());
            Response::empty(&query, &wire, Rcode::REFUSED).write_with_options(
                &query,
                &wire,
                shape,
                &options,
                &mut composed,
            );
            query.write_empty(&wire, Rcode::REFUSED, 1232, &options, &mut written);
            assert_eq!(written, composed, "{edns:?}");
        }
    }
}
