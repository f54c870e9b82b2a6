//! The `client_subnet` directive passes on to the upstreams in which networks clients are (EDNS Client Subnet, RFC
//! 7871), for answers that are made for those; see README.md beside this file.

use crate::chain::{BlockConfig, ParseContext};
use crate::corefile::{Directive, Token, value};
use crate::message::PrefixLimits;

/// Reads one `client_subnet` of a server block.
pub(super) fn parse(directive: &Directive, block: &mut BlockConfig, context: &mut ParseContext<'_>) {
    value::no_options(directive, context.diagnostics);
    let mut limit = |token: &Token, what: &str, longest: u8| {
        value::number(token, what, 0..=u64::from(longest), context.diagnostics).and_then(|bits| u8::try_from(bits).ok())
    };
    let default = PrefixLimits::default();
    let limits = match directive.arguments.as_slice() {
        [] => Some(default),
        [ipv4] => limit(ipv4, IPV4, 32).map(|ipv4| PrefixLimits { ipv4, ..default }),
        [ipv4, ipv6] => {
            limit(ipv4, IPV4, 32).zip(limit(ipv6, IPV6, 128)).map(|(ipv4, ipv6)| PrefixLimits { ipv4, ipv6 })
        }
        [_, _, extra, ..] => {
            context
                .diagnostics
                .error(extra.span, "client_subnet takes two lengths of prefixes at most")
                .help("write client_subnet [IPV4_BITS [IPV6_BITS]], such as `client_subnet 24 56`");
            None
        }
    };
    if limits.is_some() {
        block.client_subnet = limits;
    }
}

const IPV4: &str = "the length of client_subnet's IPv4 prefixes in bits";
const IPV6: &str = "the length of client_subnet's IPv6 prefixes in bits";

/// What it does with a query, in a line.
pub(super) fn explain(block: &BlockConfig) -> Option<String> {
    let limits = block.client_subnet?;
    Some(format!(
        "a client subnet in the query goes upstream, {} bits of IPv4 and {} of IPv6 at most",
        limits.ipv4, limits.ipv6
    ))
}

#[cfg(test)]
mod tests {
    use super::parse;
    use crate::chain::testing::configure;
    use crate::message::PrefixLimits;

    #[test]
    fn prefixes_are_of_24_and_56_bits_unless_written() {
        for (text, ipv4, ipv6) in [
            ("client_subnet", 24, 56),
            ("client_subnet 16", 16, 56),
            ("client_subnet 32 128", 32, 128),
            ("client_subnet 0 0", 0, 0),
        ] {
            let (block, said) = configure(parse, text);
            assert_eq!((block.client_subnet, said.as_str()), (Some(PrefixLimits { ipv4, ipv6 }), ""), "{text}");
        }
    }

    #[test]
    fn lengths_out_of_range_and_other_words_are_refused() {
        for text in [
            "client_subnet 33",
            "client_subnet 24 129",
            "client_subnet -1",
            "client_subnet all",
            "client_subnet 24 56 7",
            "client_subnet {\n prefix 5\n}",
        ] {
            let (_, said) = configure(parse, text);
            assert!(said.contains("client_subnet"), "{text}: {said}");
        }
        assert_eq!(configure(parse, "client_subnet 33").0.client_subnet, None);
    }
}
