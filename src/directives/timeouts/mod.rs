//! The `timeouts` directive says how long a connection from a client may take, and how many queries it may have; see
//! README.md beside this file.

use crate::chain::{BlockConfig, ParseContext};
use crate::corefile::{Diagnostics, Directive, OptionLine, quote, value};
use std::num::NonZeroU32;
use std::ops::RangeInclusive;
use std::time::Duration;

const ALLOWED: RangeInclusive<Duration> = Duration::from_secs(1)..=Duration::from_secs(24 * 60 * 60);

/// Reads one `timeouts` of a server block.
pub(super) fn parse(directive: &Directive, block: &mut BlockConfig, context: &mut ParseContext<'_>) {
    let diagnostics = &mut *context.diagnostics;
    value::no_arguments(directive, diagnostics);
    if directive.options.is_empty() {
        diagnostics
            .error(directive.keyword.span, "timeouts sets no timeout")
            .help("write timeouts { read 3s } with one or more of read, write and idle, or leave the directive out");
    }
    for line in &directive.options {
        let (set, usage) = match line.name.text.as_str() {
            "read" => (&mut block.timeouts.read, "read DURATION"),
            "write" => (&mut block.timeouts.write, "write DURATION"),
            "idle" => (&mut block.timeouts.idle, "idle DURATION"),
            "maxtcpqueries" => {
                if let Some(most) = max_queries(line, diagnostics) {
                    block.timeouts.max_queries = most;
                }
                continue;
            }
            _ => {
                value::unknown_option(line, "timeouts", &["read", "write", "idle", "maxtcpqueries"], diagnostics);
                continue;
            }
        };
        let Some([duration]) = value::exactly(&line.name, &line.arguments, usage, diagnostics) else { continue };
        let what = format!("the {} timeout", line.name.text);
        if let Some(duration) = value::seconds_or_duration(duration, &what, ALLOWED, diagnostics) {
            *set = duration;
        }
    }
}

/// How many queries a connection may have; -1 is any number.
fn max_queries(line: &OptionLine, diagnostics: &mut Diagnostics) -> Option<Option<NonZeroU32>> {
    let [number] = value::exactly(&line.name, &line.arguments, "maxtcpqueries MAXIMUM", diagnostics)?;
    diagnostics
        .beyond_reference(line.name.span, "CoreDNS has the option `maxtcpqueries` from 1.14.7 on")
        .help("take it out before you go back to a node-cache that is older");
    match number.text.parse::<i64>() {
        Ok(-1) => Some(None),
        // More than fit are as good as any number.
        Ok(most @ 1..) => Some(NonZeroU32::new(u32::try_from(most).unwrap_or(u32::MAX))),
        _ => {
            diagnostics
                .error(number.span, format!("{} is not a number of queries", quote(&number.text)))
                .help("write -1 for any number, or how many queries a connection may have, from 1");
            None
        }
    }
}

#[cfg(test)]
mod tests {
    use super::parse;
    use crate::chain::Timeouts;
    use crate::chain::testing::configure;
    use std::time::Duration;

    #[test]
    fn what_is_not_written_keeps_its_default() {
        let (block, said) = configure(parse, "timeouts {\n read 20\n idle 1m30s\n}");
        assert_eq!(said, "");
        let expected = Timeouts { read: Duration::from_secs(20), idle: Duration::from_secs(90), ..Timeouts::default() };
        assert_eq!(block.timeouts, expected);
        assert_eq!(configure(parse, "timeouts {\n write 24h\n}").0.timeouts.write, Duration::from_secs(86_400));
    }

    #[test]
    fn a_number_of_queries_is_positive_or_minus_one() {
        let most = |text: &str| configure(parse, &format!("timeouts {{\n maxtcpqueries {text}\n}}"));
        assert_eq!(most("128").0.timeouts.max_queries.map(|most| most.get()), Some(128));
        assert_eq!(most("99999999999").0.timeouts.max_queries.map(|most| most.get()), Some(u32::MAX));
        assert_eq!(most("-1").0.timeouts, Timeouts::default());
        for text in ["0", "-2", "many", "", "1 2"] {
            assert!(most(text).1.contains("Corefile:3:"), "{text}: {}", most(text).1);
        }
    }

    #[test]
    fn timeouts_out_of_range_are_refused() {
        for text in ["read 0", "write 999ms", "idle 24h1s", "read -1s", "read soon", "read"] {
            let (block, said) = configure(parse, &format!("timeouts {{\n {text}\n}}"));
            assert!(said.contains("Corefile:3:"), "{text}: {said}");
            assert_eq!(block.timeouts, Timeouts::default(), "{text}");
        }
    }

    #[test]
    fn every_error_of_the_block_is_told_at_once() {
        let (_, said) = configure(parse, "timeouts 3s {\n raed 3s\n write 1s 2s\n}");
        for place in ["Corefile:2:", "Corefile:3:", "Corefile:4:"] {
            assert!(said.contains(place), "{place}: {said}");
        }
    }

    #[test]
    fn a_block_without_a_timeout_is_refused() {
        assert!(configure(parse, "timeouts").1.contains("sets no timeout"));
        assert!(configure(parse, "timeouts {\n}").1.contains("sets no timeout"));
    }
}
