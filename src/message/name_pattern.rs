//! Names by a pattern with wildcards, as people write it: `*.internal`.

use super::{LowerName, NameText};
use regex::Regex;

/// Octets of a pattern: of a name whose octets all have an escape.
const LONGEST: usize = 1024;

/// Why a text is no pattern.
#[derive(Debug, thiserror::Error)]
pub(crate) enum NamePatternError {
    #[error("the pattern has {0} octets, more than any name ({LONGEST}): write a shorter one")]
    TooLong(usize),
    #[error("the pattern `{}` cannot be used: {}", .0.escape_debug(), .1)]
    Unusable(String, Box<regex::Error>),
}

/// Names that are told by their text: `*` stands for any octets, dots too, and `?` for one. The case and a final dot do
/// not matter. Work is linear in a name's octets.
#[derive(Clone, Debug)]
pub(crate) struct NamePattern(Regex);

impl NamePattern {
    /// Reads a pattern.
    ///
    /// # Errors
    /// It is too long.
    pub(crate) fn parse(text: &str) -> Result<Self, NamePatternError> {
        if text.len() > LONGEST {
            return Err(NamePatternError::TooLong(text.len()));
        }
        let lower = text.to_ascii_lowercase();
        let mut expression = "^".to_owned();
        for character in lower.strip_suffix('.').unwrap_or(&lower).chars() {
            match character {
                // A name's text is printable ASCII.
                '*' => expression.push_str("[ -~]*"),
                '?' => expression.push_str("[ -~]"),
                _ => expression.push_str(&regex::escape(character.encode_utf8(&mut [0; 4]))),
            }
        }
        // The text of a name is absolute, and the root is nothing but the dot.
        expression.push_str("\\.$");
        let unusable = |error| NamePatternError::Unusable(text.to_owned(), Box::new(error));
        Regex::new(&expression).map(Self).map_err(unusable)
    }

    /// Whether it stands for a name in wire form, in whichever case.
    pub(crate) fn has(&self, wire: &[u8]) -> bool {
        self.has_text(&LowerName::from_wire(wire).text())
    }

    fn has_text(&self, text: &NameText) -> bool {
        self.0.is_match(text.as_str())
    }
}

#[cfg(test)]
mod tests {
    use super::NamePattern;
    use crate::message::Name;

    fn has(pattern: &str, name: &str) -> bool {
        NamePattern::parse(pattern).unwrap().has(Name::parse(name).unwrap().as_wire())
    }

    #[test]
    fn wildcards_stand_for_any_octets_and_all_else_for_itself() {
        for (pattern, name) in [
            ("*.internal", "db.prod.Internal."),
            ("*.INTERNAL.", "a.internal"),
            ("*", "."),
            (".", "."),
            ("*", "a.example."),
            ("a?.example", "ab.example"),
            ("*sql*", "mysql-0.db.svc."),
            ("a.example", "A.example."),
            (r"do\\.t.example", r"do\\.t.example"),
        ] {
            assert!(has(pattern, name), "{pattern} {name}");
        }
        for (pattern, name) in [
            ("*.internal", "internal."),
            ("*.internal", "a.internal.example."),
            ("a.example", "aXexample."),
            ("a?.example", "a.example."),
            ("example", "a.example."),
            ("[ab].example", "a.example."),
        ] {
            assert!(!has(pattern, name), "{pattern} {name}");
        }
    }

    #[test]
    fn a_pattern_with_many_wildcards_costs_no_more_than_its_octets_and_a_longer_one_is_refused() {
        let pattern = "*a".repeat(500);
        assert!(!has(&pattern, &format!("{}b", "a.".repeat(126))));
        assert!(NamePattern::parse(&"*".repeat(1025)).is_err());
    }
}
