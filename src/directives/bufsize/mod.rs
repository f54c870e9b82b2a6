//! The `bufsize` directive sets the largest UDP payload size (EDNS(0), RFC 6891); see README.md beside this file.

use crate::chain::{BlockConfig, ParseContext};
use crate::corefile::{Directive, value};
use crate::message::DEFAULT_UDP_SIZE;

/// Reads one `bufsize` of a server block.
pub(super) fn parse(directive: &Directive, block: &mut BlockConfig, context: &mut ParseContext<'_>) {
    value::ignored_options(directive, context.diagnostics);
    let size = match directive.arguments.as_slice() {
        [] => Some(DEFAULT_UDP_SIZE),
        // RFC 6891 section 6.2.3 is why nothing below 512 is of use; above 4096 the reference goes along with section
        // 6.2.5.
        [size] => value::number(size, "the size of bufsize in octets", 512..=4096, context.diagnostics)
            .and_then(|octets| u16::try_from(octets).ok()),
        [_, extra, ..] => {
            context
                .diagnostics
                .error(extra.span, "bufsize takes one size")
                .help("write bufsize [SIZE], SIZE from 512 to 4096 octets");
            None
        }
    };
    if let Some(octets) = size {
        block.udp_cap = Some(octets);
    }
}

/// What it does with a query, in a line.
pub(super) fn explain(block: &BlockConfig) -> Option<String> {
    block.udp_cap.map(|octets| format!("replies over UDP have {octets} octets at most"))
}

#[cfg(test)]
mod tests {
    use super::parse;
    use crate::chain::testing::configure;

    #[test]
    fn the_size_is_1232_octets_unless_written() {
        for (text, expected) in [("bufsize", 1232), ("bufsize 512", 512), ("bufsize 4096", 4096)] {
            let (block, said) = configure(parse, text);
            assert_eq!((block.udp_cap, said.as_str()), (Some(expected), ""), "{text}");
        }
    }

    #[test]
    fn sizes_out_of_range_and_other_words_are_refused() {
        for text in ["bufsize 511", "bufsize 4097", "bufsize 99999999999999999999", "bufsize -1", "bufsize big"] {
            let (block, said) = configure(parse, text);
            assert_eq!(block.udp_cap, None, "{text}");
            assert!(said.contains("bufsize") && said.contains("512"), "{text}: {said}");
        }
        assert!(configure(parse, "bufsize 1232 1232").1.contains("Corefile:2:14"));
        let (block, said) = configure(parse, "bufsize {\n size 5\n}");
        assert_eq!(block.udp_cap, Some(1232));
        assert!(said.starts_with("Corefile:3:2: warning: "), "{said}");
    }
}
