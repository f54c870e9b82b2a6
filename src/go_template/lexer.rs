//! Splits a template's text into tokens. Text between actions is one word, trimmed as `{{-` and `-}}` ask.

use super::error::{Problem, TemplateError, wrong};
use std::sync::Arc;

/// What may stand in an action.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum TemplateTokenKind {
    /// Text outside actions.
    Text(String),
    Open,
    Close,
    /// A name without a dot: keywords, functions, `true`.
    Word(String),
    /// `.Name`
    Field(Arc<str>),
    Dot,
    /// `$` or `$name`
    Variable(Arc<str>),
    /// Digits and what belongs to them; checked by [`super::number`].
    Number(String),
    /// With the code point.
    Character(char),
    Quoted(String),
    Declare,
    Assign,
    Comma,
    Pipe,
    OpenParenthesis,
    CloseParenthesis,
    End,
}

#[derive(Clone, Debug)]
pub(super) struct TemplateToken {
    pub at: usize,
    /// White space stands before it.
    pub is_apart: bool,
    pub kind: TemplateTokenKind,
}

const SPACE: [char; 4] = [' ', '\t', '\r', '\n'];

/// All words of a template; the last is [`TemplateTokenKind::End`].
pub(super) fn lex(text: &str) -> Result<Vec<TemplateToken>, TemplateError> {
    let mut tokens = Vec::new();
    let mut at = 0;
    let mut trims_next = false;
    loop {
        let rest = &text[at..];
        let found = rest.find("{{");
        let mut literal = &rest[..found.unwrap_or(rest.len())];
        let start = at;
        at += literal.len();
        if trims_next {
            literal = literal.trim_start_matches(SPACE);
        }
        let after = found.map(|_| &text[at + 2..]);
        let trims = after.is_some_and(|after| after.starts_with('-') && after[1..].starts_with(SPACE));
        if trims {
            literal = literal.trim_end_matches(SPACE);
        }
        if !literal.is_empty() {
            tokens.push(TemplateToken {
                at: start,
                is_apart: false,
                kind: TemplateTokenKind::Text(literal.to_owned()),
            });
        }
        let Some(_) = after else {
            tokens.push(TemplateToken { at, is_apart: false, kind: TemplateTokenKind::End });
            return Ok(tokens);
        };
        let open = at;
        at += if trims { 2 + 2 } else { 2 };
        (at, trims_next) = if text[at..].starts_with("/*") {
            comment(text, open, at)?
        } else {
            tokens.push(TemplateToken { at: open, is_apart: false, kind: TemplateTokenKind::Open });
            ActionLexer { text, open, at, tokens: &mut tokens }.lex()?
        };
    }
}

/// Where the text goes on after a comment, and whether it is trimmed.
fn comment(text: &str, open: usize, at: usize) -> Result<(usize, bool), TemplateError> {
    let Some(length) = text[at..].find("*/") else { return wrong(open, Problem::Unclosed("/*", "*/}}")) };
    let end = at + length + 2;
    match closing(&text[end..]) {
        Some((length, trims)) => Ok((end + length, trims)),
        None => wrong(end, Problem::Unclosed("{{", "}} right after the comment")),
    }
}

/// The octets of a closing delimiter, and whether the text after it is trimmed.
fn closing(rest: &str) -> Option<(usize, bool)> {
    if rest.starts_with("}}") {
        return Some((2, false));
    }
    (rest.starts_with(SPACE) && rest[1..].starts_with("-}}")).then_some((4, true))
}

struct ActionLexer<'t, 'o> {
    text: &'t str,
    open: usize,
    at: usize,
    tokens: &'o mut Vec<TemplateToken>,
}

impl ActionLexer<'_, '_> {
    /// Reads up to the closing delimiter: where the text goes on, and whether it is trimmed.
    fn lex(mut self) -> Result<(usize, bool), TemplateError> {
        let mut depth = 0_usize;
        let mut is_apart = false;
        loop {
            let text = self.text;
            let rest = &text[self.at..];
            if let Some((length, trims)) = closing(rest) {
                if depth > 0 {
                    return wrong(self.at, Problem::Unclosed("(", ")"));
                }
                self.tokens.push(TemplateToken { at: self.at, is_apart: true, kind: TemplateTokenKind::Close });
                return Ok((self.at + length, trims));
            }
            let word = rest.trim_start_matches(SPACE);
            if word.len() < rest.len() {
                // A closing delimiter may want the last of the white space.
                let spaces = rest.len() - word.len();
                self.at += if word.starts_with("-}}") { spaces - 1 } else { spaces };
                is_apart = true;
                continue;
            }
            let at = self.at;
            let Some(first) = word.chars().next() else { return wrong(self.open, Problem::Unclosed("{{", "}}")) };
            let (kind, length) = match first {
                '(' => {
                    depth += 1;
                    (TemplateTokenKind::OpenParenthesis, 1)
                }
                ')' => {
                    if depth == 0 {
                        return unexpected(at, "`)`", "the end of the action, or a word");
                    }
                    depth -= 1;
                    (TemplateTokenKind::CloseParenthesis, 1)
                }
                '|' => (TemplateTokenKind::Pipe, 1),
                ',' => (TemplateTokenKind::Comma, 1),
                '=' => (TemplateTokenKind::Assign, 1),
                ':' if word.starts_with(":=") => (TemplateTokenKind::Declare, 2),
                '"' => quoted(word, at)?,
                '`' => match word[1..].find('`') {
                    Some(end) => (TemplateTokenKind::Quoted(word[1..=end].replace('\r', "")), end + 2),
                    None => return wrong(at, Problem::Text(clip(word))),
                },
                '\'' => character(word, at)?,
                '.' if !word[1..].starts_with(|next: char| next.is_ascii_digit()) => {
                    let name = name(&word[1..]);
                    match name {
                        "" => (TemplateTokenKind::Dot, 1),
                        name => (TemplateTokenKind::Field(name.into()), 1 + name.len()),
                    }
                }
                '$' => {
                    let name = name(&word[1..]);
                    (TemplateTokenKind::Variable(word[..=name.len()].into()), 1 + name.len())
                }
                '+' | '-' | '.' | '0'..='9' => {
                    let digits = number(word);
                    (TemplateTokenKind::Number(digits.to_owned()), digits.len())
                }
                letter if letter.is_alphanumeric() || letter == '_' => {
                    let name = name(word);
                    (TemplateTokenKind::Word(name.to_owned()), name.len())
                }
                other => return unexpected(at, &format!("`{other}`"), "a word, or the end of the action"),
            };
            self.at += length;
            if ends_with_a_word(&kind) && !ends_a_word(&self.text[self.at..]) {
                let next: String = self.text[self.at..].chars().take(1).collect();
                return unexpected(self.at, &format!("`{next}`"), "white space after a word");
            }
            self.tokens.push(TemplateToken { at, is_apart, kind });
            is_apart = false;
        }
    }
}

fn ends_with_a_word(kind: &TemplateTokenKind) -> bool {
    matches!(
        kind,
        TemplateTokenKind::Word(_)
            | TemplateTokenKind::Field(_)
            | TemplateTokenKind::Variable(_)
            | TemplateTokenKind::Number(_)
    )
}

/// Whether a name may end before `rest` (atTerminator of text/template/parse/lex.go).
fn ends_a_word(rest: &str) -> bool {
    rest.is_empty()
        || rest.starts_with(SPACE)
        || rest.starts_with(['.', ',', '|', ':', '=', '(', ')'])
        || rest.starts_with("}}")
}

fn name(text: &str) -> &str {
    let end = text.find(|letter: char| !letter.is_alphanumeric() && letter != '_');
    &text[..end.unwrap_or(text.len())]
}

/// What may belong to a number: checked later.
fn number(text: &str) -> &str {
    let mut previous = ' ';
    let end = text.char_indices().find(|(index, letter)| {
        let is_sign = matches!(letter, '+' | '-') && (*index == 0 || matches!(previous, 'e' | 'E' | 'p' | 'P'));
        previous = *letter;
        !(is_sign || letter.is_ascii_alphanumeric() || matches!(letter, '.' | '_'))
    });
    &text[..end.map_or(text.len(), |(index, _)| index)]
}

fn unexpected<T>(at: usize, found: &str, wanted: &'static str) -> Result<T, TemplateError> {
    wrong(at, Problem::Unexpected { found: found.to_owned(), wanted })
}

/// Enough of a text to recognise it.
pub(super) fn clip(text: &str) -> String {
    match text.char_indices().nth(32) {
        Some((end, _)) => format!("{}…", &text[..end]),
        None => text.to_owned(),
    }
}

/// A text in double quotes, with Go's escapes.
fn quoted(word: &str, at: usize) -> Result<(TemplateTokenKind, usize), TemplateError> {
    let mut octets = Vec::new();
    let mut index = 1;
    loop {
        let rest = &word[index..];
        match rest.chars().next() {
            Some('"') => break,
            None | Some('\n') => return wrong(at, Problem::Text(clip(word))),
            Some('\\') => {
                let Some((value, length)) = escape(rest, '"') else { return wrong(at, Problem::Text(clip(word))) };
                match value {
                    Escaped::Octet(octet) => octets.push(octet),
                    Escaped::Character(character) => {
                        octets.extend_from_slice(character.encode_utf8(&mut [0; 4]).as_bytes())
                    }
                }
                index += length;
            }
            Some(character) => {
                octets.extend_from_slice(character.encode_utf8(&mut [0; 4]).as_bytes());
                index += character.len_utf8();
            }
        }
    }
    // Octets that are no UTF-8 have no place in a record's text either; Go keeps them as they are.
    Ok((TemplateTokenKind::Quoted(String::from_utf8_lossy(&octets).into_owned()), index + 1))
}

/// A character in single quotes.
fn character(word: &str, at: usize) -> Result<(TemplateTokenKind, usize), TemplateError> {
    let refuse = || TemplateError { at, problem: Problem::Text(clip(word)) };
    let rest = &word[1..];
    let (value, length) = match rest.chars().next().ok_or_else(refuse)? {
        '\'' | '\n' => return Err(refuse()),
        '\\' => match escape(rest, '\'').ok_or_else(refuse)? {
            (Escaped::Octet(octet), length) => (char::from(octet), length),
            (Escaped::Character(character), length) => (character, length),
        },
        character => (character, character.len_utf8()),
    };
    if !rest[length..].starts_with('\'') {
        return Err(refuse());
    }
    Ok((TemplateTokenKind::Character(value), length + 2))
}

enum Escaped {
    Octet(u8),
    Character(char),
}

/// An escape sequence of Go at the beginning of `text`, and its octets.
fn escape(text: &str, quote: char) -> Option<(Escaped, usize)> {
    let kind = text.chars().nth(1)?;
    let number = |start: usize, length: usize, base: u32| {
        let digits = text.get(start..start + length)?;
        let is_number = digits.bytes().all(|octet| char::from(octet).is_digit(base));
        u32::from_str_radix(digits, base).ok().filter(|_| is_number)
    };
    let plain = |octet: u8| Some((Escaped::Octet(octet), 2));
    match kind {
        'a' => plain(0x07),
        'b' => plain(0x08),
        'f' => plain(0x0c),
        'n' => plain(b'\n'),
        'r' => plain(b'\r'),
        't' => plain(b'\t'),
        'v' => plain(0x0b),
        '\\' => plain(b'\\'),
        _ if kind == quote => plain(quote as u8),
        'x' => Some((Escaped::Octet(u8::try_from(number(2, 2, 16)?).ok()?), 4)),
        '0'..='7' => Some((Escaped::Octet(u8::try_from(number(1, 3, 8)?).ok()?), 4)),
        'u' => Some((Escaped::Character(char::from_u32(number(2, 4, 16)?)?), 6)),
        'U' => Some((Escaped::Character(char::from_u32(number(2, 8, 16)?)?), 10)),
        _ => None,
    }
}
