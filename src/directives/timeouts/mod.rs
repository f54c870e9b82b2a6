//! The `timeouts` directive; see README.md beside this file.

use crate::chain::{BlockConfig, ParseContext};
use crate::corefile::{Directive, value};
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
            _ => {
                value::unknown_option(line, "timeouts", &["read", "write", "idle"], diagnostics);
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
