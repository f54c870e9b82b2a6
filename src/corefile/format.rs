//! The layout of a Corefile: words as they are written, comments kept, one blank between words, four for each block
//! around a line.

use super::lexer::glued_brace;
use std::borrow::Cow;

/// Blanks for each block.
const INDENT: usize = 4;

/// Why a text cannot be laid out.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum FormatError {
    /// Counted from 1.
    #[error("the quote on line {line} is never closed: end the word with `\"`")]
    OpenQuote { line: usize },
}

/// Lays a Corefile out. What it means stays the same: every word is on the line where it was, and a text that is laid
/// out already comes back as it is.
///
/// # Errors
/// What follows an open quote cannot be told from the word in it.
pub fn format(text: &str) -> Result<String, FormatError> {
    let mut scanner = Scanner { rest: text.strip_prefix('\u{feff}').unwrap_or(text), line: 1 };
    let mut out = String::with_capacity(text.len());
    let (mut depth, mut is_continued, mut blanks) = (0_usize, false, 0);
    while !scanner.rest.is_empty() {
        let FormattedLine { pieces, continues } = scanner.line()?;
        if pieces.is_empty() && !continues {
            // Of several empty lines one is kept, between others.
            blanks += 1;
            is_continued = false;
            continue;
        }
        if blanks > 0 && !out.is_empty() {
            out.push('\n');
        }
        blanks = 0;
        let closing = pieces.iter().take_while(|piece| *piece == "}").count();
        let levels = depth.saturating_sub(closing) + usize::from(is_continued);
        out.extend(std::iter::repeat_n(' ', levels * INDENT));
        out.push_str(&pieces.join(" "));
        if continues {
            out.push_str(if pieces.is_empty() { "\\" } else { " \\" });
        } else if pieces.last().is_some_and(|last| last.ends_with('\\') && !last.starts_with('#')) {
            // Right before the end of the line it would continue it.
            out.push(' ');
        }
        out.push('\n');
        depth = depth_after(&pieces, depth);
        is_continued = continues;
    }
    if out.starts_with('\u{feff}') {
        // A second byte order mark is a word, and would be the first one now.
        out.insert(0, '\u{feff}');
    }
    Ok(out)
}

fn depth_after(pieces: &[Cow<'_, str>], depth: usize) -> usize {
    let last = pieces.iter().rposition(|piece| !piece.starts_with('#'));
    pieces.iter().enumerate().fold(depth, |depth, (index, piece)| {
        let glued = if Some(index) == last && !piece.starts_with('"') { glued_brace(piece) } else { None };
        match glued.unwrap_or(piece.as_ref()) {
            "{" => depth + 1,
            "}" => depth.saturating_sub(1),
            _ => depth,
        }
    })
}

/// The words of a line as they are written, quotes included, and its comment.
struct FormattedLine<'a> {
    pieces: Vec<Cow<'a, str>>,
    /// A backslash ends it.
    continues: bool,
}

struct Scanner<'a> {
    rest: &'a str,
    line: usize,
}

impl<'a> Scanner<'a> {
    /// Through the end of the line; of a quoted word that spans lines, through the end of its last.
    fn line(&mut self) -> Result<FormattedLine<'a>, FormatError> {
        let mut pieces = Vec::new();
        loop {
            let blanks = self.rest.find(|character: char| !character.is_whitespace() || character == '\n');
            self.rest = self.rest.get(blanks.unwrap_or(self.rest.len())..).unwrap_or_default();
            if let Some(end) = ["\\\n", "\\\r\n"].into_iter().find(|end| self.rest.starts_with(*end)) {
                self.skip_line_end(end.len());
                return Ok(FormattedLine { pieces, continues: true });
            }
            match self.rest.chars().next() {
                None => return Ok(FormattedLine { pieces, continues: false }),
                Some('\n') => {
                    self.skip_line_end(1);
                    return Ok(FormattedLine { pieces, continues: false });
                }
                Some('#') => pieces.push(self.comment().into()),
                Some('"') => pieces.push(self.quoted()?.into()),
                Some(_) => pieces.push(self.word()),
            }
        }
    }

    fn skip_line_end(&mut self, octets: usize) {
        self.take(octets);
        self.line += 1;
    }

    fn take(&mut self, octets: usize) -> &'a str {
        let (taken, rest) = self.rest.split_at_checked(octets).unwrap_or((self.rest, ""));
        self.rest = rest;
        taken
    }

    fn comment(&mut self) -> &'a str {
        let end = self.rest.find('\n').unwrap_or(self.rest.len());
        self.take(end).trim_end()
    }

    fn quoted(&mut self) -> Result<&'a str, FormatError> {
        let mut is_escaped = false;
        for (at, character) in self.rest.char_indices().skip(1) {
            match character {
                '"' if !is_escaped => {
                    let taken = self.take(at + 1);
                    self.line += taken.matches('\n').count();
                    return Ok(taken);
                }
                '\\' => is_escaped = !is_escaped,
                _ => is_escaped = false,
            }
        }
        Err(FormatError::OpenQuote { line: self.line })
    }

    /// Without its carriage returns, which are no part of it.
    fn word(&mut self) -> Cow<'a, str> {
        // After a `#` inside a word all is dropped up to the next blank, a backslash too.
        let hash = self.rest.find('#').unwrap_or(self.rest.len());
        let ends_here = |(at, character): &(usize, char)| {
            let rest = self.rest.get(*at..).unwrap_or_default();
            let continues = || *at < hash && (rest.starts_with("\\\n") || rest.starts_with("\\\r\n"));
            (character.is_whitespace() && *character != '\r') || continues()
        };
        let end = self.rest.char_indices().find(ends_here).map_or(self.rest.len(), |(at, _)| at);
        let word = self.take(end);
        if word.contains('\r') { word.replace('\r', "").into() } else { word.into() }
    }
}

#[cfg(test)]
mod tests {
    use super::{FormatError, format};
    use crate::corefile::lexer::lex;
    use crate::corefile::{Diagnostics, FileId};
    use proptest::prelude::*;

    /// Words, whether they are quoted, and whether each begins a line.
    fn words(text: &str) -> Vec<(String, bool, bool)> {
        let text = text.strip_prefix('\u{feff}').unwrap_or(text);
        let lexemes = lex(FileId(0), text, usize::MAX, &mut Diagnostics::default()).expect("there is no limit");
        lexemes.into_iter().map(|lexeme| (lexeme.text, lexeme.quoted, lexeme.starts_line)).collect()
    }

    #[test]
    fn blocks_are_indented_and_comments_kept() {
        let text = "# head\n\n\n.:53   {   # of all\n errors\n\tcache 30 {\n success  1 # few\n\n\n   }\n forward . \\\n 192.0.2.1\n   # last\n\n}\n\n";
        let expected = "# head\n\n.:53 { # of all\n    errors\n    cache 30 {\n        success 1 # few\n\n    }\n    forward . \\\n        192.0.2.1\n    # last\n\n}\n";
        assert_eq!(format(text).as_deref(), Ok(expected));
    }

    #[test]
    fn quotes_stay_as_they_are_and_glued_braces_count() {
        let text = "a{\n log . \"x  y\n  z\"  \"\\\"\"\n }\nb { whoami }\n";
        assert_eq!(format(text).as_deref(), Ok("a{\n    log . \"x  y\n  z\" \"\\\"\"\n}\nb { whoami }\n"));
    }

    #[test]
    fn windows_line_ends_become_plain_and_an_open_quote_is_told() {
        assert_eq!(format("\u{feff}a {\r\n whoami\r\n}\r\n").as_deref(), Ok("a {\n    whoami\n}\n"));
        assert_eq!(format("a {\n log \"x\n}\n"), Err(FormatError::OpenQuote { line: 2 }));
        assert_eq!(format("").as_deref(), Ok(""));
    }

    proptest! {
        #[test]
        fn the_words_stay_and_what_is_laid_out_stays_as_it_is(
            pieces in prop::collection::vec(prop_oneof![
                prop::sample::select(vec!["{", "}", "\n", "\n", " ", "\t", "\"", "\\", "\\\n", "#", "\r\n", ",", "a", "x{", "y}", "\"q\"", "\\\"", "日本", "\u{feff}", "\u{a0}"]).prop_map(str::to_owned),
                "\\PC{0,3}",
            ], 0..40),
        ) {
            let text = pieces.concat();
            if let Ok(once) = format(&text) {
                prop_assert_eq!(words(&once), words(&text));
                prop_assert_eq!(format(&once), Ok(once));
            }
        }
    }
}
