//! The `https` directive says how many connections zones with `https://` have (RFC 8484); see README.md beside this
//! file.

use crate::chain::{BlockConfig, ParseContext};
use crate::corefile::{Directive, value};

const USAGE: &str = "max_connections NUMBER";

/// Reads the `https` of a server block.
pub fn parse(directive: &Directive, block: &mut BlockConfig, context: &mut ParseContext<'_>) {
    let diagnostics = &mut *context.diagnostics;
    value::no_arguments(directive, diagnostics);
    for line in &directive.options {
        if line.name.text != "max_connections" {
            value::unknown_option(line, "https", &["max_connections"], diagnostics);
            continue;
        }
        let Some([number]) = value::exactly(&line.name, &line.arguments, USAGE, diagnostics) else { continue };
        if block.https_connections.is_some() {
            diagnostics
                .error(line.name.span, "max_connections stands twice in one server block")
                .help("keep one of them");
            continue;
        }
        let number = value::number(number, "max_connections", 0..=u64::from(u32::MAX), diagnostics);
        if let Some(number) = number.and_then(|number| usize::try_from(number).ok()) {
            block.https_connections = Some((number, directive.keyword.span));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::parse;
    use crate::chain::testing::configure;

    fn connections(text: &str) -> (Option<usize>, String) {
        let (block, said) = configure(parse, text);
        (block.https_connections.map(|(number, _)| number), said)
    }

    #[test]
    fn max_connections_is_a_number_or_zero_for_none() {
        assert_eq!(connections("https"), (None, String::new()));
        assert_eq!(connections("https {\n max_connections 100\n}"), (Some(100), String::new()));
        assert_eq!(connections("https {\n max_connections 0\n}"), (Some(0), String::new()));
    }

    #[test]
    fn what_is_not_so_is_refused_where_it_stands() {
        for (text, place) in [
            ("https 100", "Corefile:2:"),
            ("https {\n max_connections\n}", "Corefile:3:"),
            ("https {\n max_connections -1\n}", "Corefile:3:"),
            ("https {\n max_connections many\n}", "Corefile:3:"),
            ("https {\n max_connections 1\n max_connections 1\n}", "Corefile:4:"),
            ("https {\n max_conections 1\n}", "Corefile:3:"),
        ] {
            let said = connections(text).1;
            assert!(said.contains(place) && said.contains("error"), "{text}: {said}");
        }
    }
}
