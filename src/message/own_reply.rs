//! What every reply has that is made here and not copied from a response: its header, its question and its OPT record.
//! And the reply that has nothing more.

use super::header::{CD, OPCODE, QR, RD};
use super::opt::{self, OPT_LENGTH};
use super::{Query, Rcode, ReplyOptions};

impl Query {
    /// Appends an answer without records, as [`super::Response::empty`] makes it, and takes nothing from the heap
    /// beside what `out` needs. `wire` is what the query was read from; the code has four bits; the OPT record, if the
    /// client sent one, states this UDP payload size and has these options.
    pub fn write_empty(&self, wire: &[u8], rcode: Rcode, udp_size: u16, options: &ReplyOptions, out: &mut Vec<u8>) {
        self.write_head(wire, rcode.0 & 0x0f, [0; 3], out);
        self.write_opt(udp_size, options.octets(), out);
    }

    /// Appends header and question of a reply. ID, opcode, RD and CD are the query's, `flags` are set beside them.
    /// `counts` are the records of each section; an OPT record, which comes if the client sent one, is not among them.
    pub(super) fn write_head(&self, wire: &[u8], flags: u16, counts: [u16; 3], out: &mut Vec<u8>) {
        let [answers, authorities, additionals] = counts;
        let flags = QR | self.header.flags & (OPCODE | RD | CD) | flags;
        let additionals = additionals + u16::from(self.edns.is_some());
        for word in [self.header.id, flags, 1, answers, authorities, additionals] {
            out.extend_from_slice(&word.to_be_bytes());
        }
        out.extend_from_slice(self.question(wire));
    }

    /// Octets that [`Query::write_opt`] appends.
    pub(super) fn opt_length(&self, options: &[u8]) -> usize {
        if self.edns.is_some() { OPT_LENGTH + options.len() } else { 0 }
    }

    /// Appends the OPT record of a reply, with DO as the client has it; nothing if the client sent none.
    pub(super) fn write_opt(&self, udp_size: u16, options: &[u8], out: &mut Vec<u8>) {
        if let Some(edns) = self.edns {
            opt::append(udp_size, 0, edns.dnssec_ok, options, out);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::fixtures::query;
    use super::super::header::{AD, RD};
    use super::super::{ExtendedError, Rcode, ReplyOptions, ReplyShape, Response, TtlRule};

    #[test]
    fn an_answer_without_records_is_the_one_that_is_composed_octet_for_octet() {
        let mut options = ReplyOptions::default();
        options.push_extended_error(&ExtendedError { code: 15, text: String::new() });
        for edns in [None, Some(false), Some(true)] {
            let (query, wire) = query("eXample.", RD | AD, edns);
            let shape = ReplyShape { ttl: TtlRule::Keep, limit: 512, udp_size: 1232 };
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
