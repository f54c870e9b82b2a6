//! A replacement with groups of a regular expression in it, written `{1}`.

use crate::go_regex::Regex;
use crate::message::{LowerName, NameText};

/// What stands in the place of a name that a pattern matches: text, with the pattern's groups in it.
#[derive(Debug)]
pub(super) struct Expansion {
    pieces: Vec<ExpansionPart>,
}

#[derive(Debug, PartialEq, Eq)]
enum ExpansionPart {
    Text(String),
    Group(usize),
}

/// The greatest number that counts as a group's when they are counted, as in the reference.
const MOST_COUNTED: usize = 100;

impl Expansion {
    /// Reads a replacement for a pattern of `groups` groups, the whole match counted as one. `{n}` with a number that
    /// no group has is text.
    pub(super) fn read(text: &str, groups: usize) -> Self {
        let mut pieces = Vec::new();
        let mut before = String::new();
        let mut rest = text;
        while let Some(at) = rest.find('{') {
            let (head, tail) = rest.split_at(at);
            before.push_str(head);
            match reference(tail) {
                Some((group, after)) if group < groups => {
                    pieces.push(ExpansionPart::Text(std::mem::take(&mut before)));
                    pieces.push(ExpansionPart::Group(group));
                    rest = after;
                }
                _ => {
                    before.push('{');
                    rest = tail.get(1..).unwrap_or_default();
                }
            }
        }
        before.push_str(rest);
        pieces.push(ExpansionPart::Text(before));
        pieces.retain(|piece| *piece != ExpansionPart::Text(String::new()));
        Self { pieces }
    }

    /// What `name` becomes: `None` if the pattern does not match, else a name or the text that is none.
    pub(super) fn apply(&self, regex: &Regex, name: &str) -> Option<Result<LowerName, String>> {
        let text = regex.with_groups(name, |group| {
            let mut text = NameText::default();
            for piece in &self.pieces {
                match piece {
                    ExpansionPart::Text(piece) => text.push_str(piece),
                    ExpansionPart::Group(index) => text.push_str(group(*index)),
                }
            }
            text
        })?;
        Some(name_of(text.as_str()))
    }
}

/// The name that a text is, in lower case; the text itself if it is none.
pub(super) fn name_of(text: &str) -> Result<LowerName, String> {
    LowerName::parse(text).map_err(|_| text.to_owned())
}

/// The number between the braces that `text` begins with, and what follows. Only the shortest way to write a number is
/// one.
fn reference(text: &str) -> Option<(usize, &str)> {
    let (digits, after) = text.strip_prefix('{')?.split_once('}')?;
    let number = digits.parse::<usize>().ok().filter(|number| number.to_string() == digits)?;
    Some((number, after))
}

/// The numbers up to 100 that a replacement refers to, each once.
pub(super) fn references(text: &str) -> Vec<usize> {
    (0..=MOST_COUNTED).filter(|number| text.contains(&format!("{{{number}}}"))).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::go_regex::compile;

    fn expand(pattern: &str, replacement: &str, name: &str) -> Option<Result<String, String>> {
        let regex = compile(pattern).unwrap();
        let name = Expansion::read(replacement, regex.group_count()).apply(&regex, name)?;
        Some(name.map(|name| name.to_string()))
    }

    #[test]
    fn groups_stand_where_their_numbers_do() {
        let name = |text: &str| Some(Ok(text.to_owned()));
        assert_eq!(expand(r"(.*)-(us-west-1)\.c\.", "{1}.s.{2}.d.", "ftp-us-west-1.c."), name("ftp.s.us-west-1.d."));
        assert_eq!(expand("a", "x.{0}.{0}.", "a.b."), name("x.a.a."));
        assert_eq!(expand("(a)|(b)", "{1}{2}.", "b."), name("b."));
        assert_eq!(expand("z", "x.", "a."), None);
    }

    #[test]
    fn a_number_without_a_group_is_text_and_what_is_no_name_is_told() {
        assert_eq!(expand(r"(.*)\.a\.", "{2}.b.{x}.{01}.", "n.a."), Some(Ok("{2}.b.{x}.{01}.".to_owned())));
        assert_eq!(expand("(.*)b", "{1}.c.", "b."), Some(Err(".c.".to_owned())));
        assert_eq!(references("{2}.{0}.{2}.{101}.{1"), [0, 2]);
    }
}
