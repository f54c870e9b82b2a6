//! An expression's text into words.

use super::error::{ExpressionError, Problem, wrong};

#[derive(Clone, Debug, PartialEq)]
pub(super) enum Kind {
    /// A name or one of the operators that are words.
    Word(String),
    /// Digits and what belongs to them; checked by the parser.
    Number(String),
    Text(String),
    Symbol(&'static str),
    End,
}

#[derive(Clone, Debug)]
pub(super) struct Token {
    pub at: usize,
    pub kind: Kind,
}

impl Token {
    /// As it is told of.
    pub(super) fn told(&self) -> String {
        match &self.kind {
            Kind::Word(word) | Kind::Number(word) => format!("`{word}`"),
            Kind::Text(text) => format!("the text {text:?}"),
            Kind::Symbol(symbol) => format!("`{symbol}`"),
            Kind::End => "the end".to_owned(),
        }
    }
}

/// The longer ones first.
const SYMBOLS: [&str; 34] = [
    "..", "**", "==", "!=", "<=", ">=", "&&", "||", "??", "?.", "::", "(", ")", "[", "]", "{", "}", ",", ";", ":", "?",
    ".", "+", "-", "*", "/", "%", "^", "!", "<", ">", "=", "|", "#",
];

/// All words of an expression; the last is [`Kind::End`].
pub(super) fn lex(text: &str) -> Result<Vec<Token>, ExpressionError> {
    let mut tokens = Vec::new();
    let mut at = 0;
    while let Some(first) = text[at..].chars().next() {
        let rest = &text[at..];
        let (length, kind) = if first.is_whitespace() {
            (first.len_utf8(), None)
        } else if rest.starts_with("//") {
            (rest.find('\n').unwrap_or(rest.len()), None)
        } else if let Some(comment) = rest.strip_prefix("/*") {
            match comment.find("*/") {
                Some(length) => (length + 4, None),
                None => return wrong(at, Problem::Comment),
            }
        } else if first == '\'' || first == '"' {
            let (length, value) = quoted(rest, first, at)?;
            (length, Some(Kind::Text(value)))
        } else if first == '`' {
            let (length, value) = raw(rest, at)?;
            (length, Some(Kind::Text(value)))
        } else if is_number(rest) {
            let length = number_length(rest);
            (length, Some(Kind::Number(rest[..length].to_owned())))
        } else if is_of_word(first) {
            let length = rest.find(|character: char| !is_of_word(character)).unwrap_or(rest.len());
            (length, Some(Kind::Word(rest[..length].to_owned())))
        } else {
            match SYMBOLS.iter().find(|symbol| rest.starts_with(**symbol)) {
                Some(symbol) => (symbol.len(), Some(Kind::Symbol(symbol))),
                None => return wrong(at, Problem::Character(first)),
            }
        };
        tokens.extend(kind.map(|kind| Token { at, kind }));
        at += length;
    }
    tokens.push(Token { at, kind: Kind::End });
    Ok(tokens)
}

fn is_of_word(character: char) -> bool {
    character.is_alphanumeric() || matches!(character, '_' | '$')
}

fn is_number(rest: &str) -> bool {
    let digits = rest.strip_prefix('.').unwrap_or(rest);
    digits.starts_with(|character: char| character.is_ascii_digit())
}

/// Octets of a number: digits, letters and underscores, one dot that is not the first of `..`, and a sign after an
/// exponent.
fn number_length(rest: &str) -> usize {
    let is_hexadecimal = rest.starts_with("0x") || rest.starts_with("0X");
    let mut has_dot = false;
    let octets = rest.as_bytes();
    let mut length = 0;
    while let Some(octet) = octets.get(length) {
        let belongs = match octet {
            b'.' if !has_dot && octets.get(length + 1) != Some(&b'.') => {
                has_dot = true;
                true
            }
            b'+' | b'-' => !is_hexadecimal && matches!(octets.get(length.wrapping_sub(1)), Some(b'e' | b'E')),
            octet => octet.is_ascii_alphanumeric() || *octet == b'_',
        };
        if !belongs {
            break;
        }
        length += 1;
    }
    length
}

/// The octets and the value of a text within backticks, of which two stand for one.
fn raw(rest: &str, at: usize) -> Result<(usize, String), ExpressionError> {
    let mut end = 1;
    loop {
        let Some(length) = rest[end..].find('`') else { return wrong(at, Problem::Unclosed("`")) };
        end += length + 1;
        if !rest[end..].starts_with('`') {
            return Ok((end, rest[1..end - 1].replace("``", "`")));
        }
        end += 1;
    }
}

/// The octets and the value of a text within quotes.
fn quoted(rest: &str, quote: char, at: usize) -> Result<(usize, String), ExpressionError> {
    let unclosed = Problem::Unclosed(if quote == '\'' { "'" } else { "\"" });
    let mut value = String::new();
    let mut end = 1;
    while let Some(character) = rest[end..].chars().next() {
        match character {
            '\n' => break,
            character if character == quote => return Ok((end + 1, value)),
            '\\' => {
                let (length, character) = escape(&rest[end + 1..], quote)
                    .ok_or(ExpressionError { at: at + end, problem: Problem::Escape })?;
                value.push(character);
                end += 1 + length;
            }
            character => {
                value.push(character);
                end += character.len_utf8();
            }
        }
    }
    wrong(at, unclosed)
}

/// The octets after a backslash and the character that they stand for.
fn escape(rest: &str, quote: char) -> Option<(usize, char)> {
    let first = rest.chars().next()?;
    let digits = |start: usize, count: usize, radix: u32| {
        let digits = rest.get(start..start + count)?;
        let is_digits = digits.chars().all(|digit| digit.is_digit(radix));
        let value = is_digits.then(|| u32::from_str_radix(digits, radix).ok())??;
        Some((start + count, char::from_u32(value)?))
    };
    let plain = |character| Some((1, character));
    match first {
        'a' => plain('\u{7}'),
        'b' => plain('\u{8}'),
        'f' => plain('\u{c}'),
        'n' => plain('\n'),
        'r' => plain('\r'),
        't' => plain('\t'),
        'v' => plain('\u{b}'),
        '\\' => plain('\\'),
        '0'..='7' => digits(0, 3, 8),
        'x' => digits(1, 2, 16),
        'u' if rest[1..].starts_with('{') => {
            let length = rest[2..].find('}').filter(|length| (1..=6).contains(length))?;
            digits(2, length, 16).map(|(end, character)| (end + 1, character))
        }
        'u' => digits(1, 4, 16),
        'U' => digits(1, 8, 16),
        character if character == quote => plain(quote),
        _ => None,
    }
}
