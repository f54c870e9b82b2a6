//! The `fairness` directive says who gives way when something that clients take places in is full; see README.md beside
//! this file.

use crate::chain::{BlockConfig, ParseContext};
use crate::corefile::{Directive, value};
use crate::fairness::Fairness;

/// Reads one `fairness` of a server block.
pub(super) fn parse(directive: &Directive, block: &mut BlockConfig, context: &mut ParseContext<'_>) {
    let diagnostics = &mut *context.diagnostics;
    let mut fairness = Fairness::default();
    match directive.arguments.as_slice() {
        [] => {}
        [off] if off.text == "off" => fairness.is_on = false,
        [other, ..] => {
            diagnostics
                .error(other.span, "fairness takes no argument but `off`")
                .help("write fairness { ipv4_prefix 32 } or fairness { ipv6_prefix 64 }, or fairness off");
            return;
        }
    }
    if fairness.is_on == directive.options.is_empty() {
        let (what, help) = if fairness.is_on {
            (
                "fairness sets nothing",
                "it is on without being written: write ipv4_prefix or ipv6_prefix in its block, or fairness off",
            )
        } else {
            ("fairness off takes no block", "take the braces and what is between them away, or `off`")
        };
        diagnostics.error(directive.keyword.span, what).help(help);
        return;
    }
    for line in &directive.options {
        let (set, most, usage) = match line.name.text.as_str() {
            "ipv4_prefix" => (&mut fairness.ipv4_prefix, 32, "ipv4_prefix BITS"),
            "ipv6_prefix" => (&mut fairness.ipv6_prefix, 128, "ipv6_prefix BITS"),
            _ => {
                value::unknown_option(line, "fairness", &["ipv4_prefix", "ipv6_prefix"], diagnostics);
                continue;
            }
        };
        let Some([bits]) = value::exactly(&line.name, &line.arguments, usage, diagnostics) else { continue };
        let what = format!("the length of {}", line.name.text);
        let bits = value::number(bits, &what, 8..=most, diagnostics).and_then(|bits| u8::try_from(bits).ok());
        if let Some(bits) = bits {
            *set = bits;
        }
    }
    block.fairness = Some((fairness, directive.keyword.span));
}

#[cfg(test)]
mod tests {
    use super::parse;
    use crate::chain::testing::configure;
    use crate::fairness::Fairness;

    fn read(text: &str) -> (Option<Fairness>, String) {
        let (block, said) = configure(parse, text);
        (block.fairness.map(|(fairness, _)| fairness), said)
    }

    #[test]
    fn what_is_not_written_keeps_its_default() {
        let expected = Fairness { ipv6_prefix: 56, ..Fairness::default() };
        assert_eq!(read("fairness {\n ipv6_prefix 56\n}"), (Some(expected), String::new()));
        let expected = Fairness { ipv4_prefix: 24, ipv6_prefix: 128, is_on: true };
        assert_eq!(read("fairness {\n ipv4_prefix 24\n ipv6_prefix 128\n}"), (Some(expected), String::new()));
        assert_eq!(read("fairness off"), (Some(Fairness { is_on: false, ..Fairness::default() }), String::new()));
    }

    #[test]
    fn lengths_out_of_range_and_other_words_are_refused() {
        for text in
            ["ipv4_prefix 33", "ipv4_prefix 0", "ipv6_prefix 129", "ipv6_prefix many", "ipv4_prefix", "ipv4_prefx 24"]
        {
            let (fairness, said) = read(&format!("fairness {{\n {text}\n}}"));
            assert!(said.contains("Corefile:3:"), "{text}: {said}");
            assert_eq!(fairness, Some(Fairness::default()), "{text}");
        }
        for text in ["fairness", "fairness on", "fairness off off", "fairness off {\n ipv4_prefix 24\n}"] {
            let (fairness, said) = read(text);
            assert!(fairness.is_none() && said.contains("Corefile:2:"), "{text}: {said}");
        }
    }
}
