//! Splits the text of a Corefile into words: quotes, comments and line continuations (facts: coredns/caddy
//! caddyfile/lexer.go).

use super::diagnostic::{Diagnostics, quote};
use super::tree::{FileId, Span};
use std::str::Chars;

/// A word as it stands in a file: quotes and their escapes are resolved, environment variables are not.
#[derive(Clone, Debug)]
pub(super) struct Lexeme {
    pub text: String,
    /// Of a quoted word that spans lines, the part on its first line.
    pub span: Span,
    /// Written in quotes, so never a brace or a keyword.
    pub quoted: bool,
    /// First word of its line; a line continued by a backslash counts as one.
    pub starts_line: bool,
}

/// Splits `text` into at most `limit` words; `None` if there are more.
pub(super) fn lex(file: FileId, text: &str, limit: usize, diagnostics: &mut Diagnostics) -> Option<Vec<Lexeme>> {
    let cursor = Cursor { rest: text.chars(), line: 1, column: 1 };
    let mut lexer = Lexer { file, cursor, starts_line: true, depth: 0, lexemes: Vec::new(), diagnostics };
    while let Some(character) = lexer.cursor.peek() {
        if lexer.lexemes.len() > limit {
            return None;
        }
        if lexer.diagnostics.is_full() {
            break;
        }
        match character {
            '\n' => {
                lexer.cursor.bump();
                lexer.starts_line = true;
            }
            _ if character.is_whitespace() => lexer.cursor.bump(),
            '#' => lexer.cursor.skip_until(|character| character == '\n'),
            '"' => lexer.quoted(),
            '\\' if lexer.cursor.is_at_continuation() => lexer.continuation(),
            _ => lexer.word(),
        }
    }
    Some(lexer.lexemes)
}

#[derive(Clone)]
struct Cursor<'a> {
    rest: Chars<'a>,
    line: u32,
    column: u32,
}

impl Cursor<'_> {
    fn peek(&self) -> Option<char> {
        self.rest.clone().next()
    }
    fn bump(&mut self) {
        match self.rest.next() {
            Some('\n') => {
                self.line = self.line.saturating_add(1);
                self.column = 1;
            }
            Some(_) => self.column = self.column.saturating_add(1),
            None => {}
        }
    }
    fn skip_until(&mut self, is_end: impl Fn(char) -> bool) {
        while self.peek().is_some_and(|character| !is_end(character)) {
            self.bump();
        }
    }
    /// A backslash right before the end of a line. (Not in the reference, where it is a word that no directive takes.)
    fn is_at_continuation(&self) -> bool {
        let rest = self.rest.as_str();
        rest.starts_with("\\\n") || rest.starts_with("\\\r\n")
    }
    fn skip_past_line_end(&mut self) {
        self.skip_until(|character| character == '\n');
        self.bump();
    }
    /// Nothing but blanks or a comment follows on this line.
    fn is_at_line_end(&self) -> bool {
        let rest =
            self.rest.as_str().trim_start_matches(|character: char| character.is_whitespace() && character != '\n');
        rest.is_empty() || rest.starts_with(['\n', '#'])
    }
}

struct Lexer<'a> {
    file: FileId,
    cursor: Cursor<'a>,
    starts_line: bool,
    /// Blocks around what is read.
    depth: usize,
    lexemes: Vec<Lexeme>,
    diagnostics: &'a mut Diagnostics,
}

impl Lexer<'_> {
    fn push(&mut self, text: String, span: Span, quoted: bool) {
        self.lexemes.push(Lexeme { text, span, quoted, starts_line: self.starts_line });
        self.starts_line = false;
    }

    fn continuation(&mut self) {
        let start = self.cursor.clone();
        self.cursor.bump();
        let span = self.span_from(&start);
        self.diagnostics
            .beyond_reference(span, "CoreDNS does not know that a backslash continues a line: it reads a word")
            .help("write it on one line");
        self.cursor.skip_past_line_end();
    }

    fn span_from(&self, start: &Cursor<'_>) -> Span {
        let length = self.cursor.column.saturating_sub(start.column);
        Span { file: self.file, line: start.line, column: start.column, length }
    }

    fn word(&mut self) {
        let start = self.cursor.clone();
        let mut text = String::new();
        let mut span = self.span_from(&start);
        while let Some(character) = self.cursor.peek() {
            match character {
                // The reference drops carriage returns wherever they stand outside quotes.
                '\r' => self.cursor.bump(),
                '#' => self.dropped_rest_of_word(),
                _ if character.is_whitespace() || self.cursor.is_at_continuation() => break,
                _ => {
                    text.push(character);
                    self.cursor.bump();
                    span = self.span_from(&start);
                }
            }
        }
        match text.as_str() {
            "{" => self.depth += 1,
            "}" => self.depth = self.depth.saturating_sub(1),
            _ => {}
        }
        match glued_brace(&text).filter(|_| self.cursor.is_at_line_end()) {
            // Of a key, as CoreDNS reads it: a part of the name, and the block is one without braces that its `}` ends.
            Some("{") if self.depth == 0 => {
                self.depth = 1;
                self.push(text, span, false);
            }
            Some(brace) => {
                self.depth = if brace == "{" { self.depth + 1 } else { self.depth.saturating_sub(1) };
                self.diagnostics
                    .error(span, format!("a space is missing before the brace in {}", quote(&text)))
                    .help("a brace stands as a word of its own; write it in quotes if it belongs to the word");
                text.pop();
                let column = span.column.saturating_add(span.length).saturating_sub(1);
                self.push(text, Span { length: span.length.saturating_sub(1), ..span }, false);
                self.push(brace.to_owned(), Span { column, length: 1, ..span }, false);
            }
            None => self.push(text, span, false),
        }
    }

    /// A `#` inside a word: the reference drops it and what follows up to the next blank, and reads on after that.
    fn dropped_rest_of_word(&mut self) {
        let start = self.cursor.clone();
        self.cursor.skip_until(|character| character.is_whitespace());
        let span = self.span_from(&start);
        self.diagnostics
            .warning(span, "`#` inside a word: it and the rest of the word are ignored, what follows is not")
            .help("put a space before `#` to begin a comment, or put the word in quotes to keep the `#`");
    }

    fn quoted(&mut self) {
        let start = self.cursor.clone();
        self.cursor.bump();
        let mut text = String::new();
        // Where the first line of the word ends, and how much of the text was read by then.
        let mut first_line: Option<(Cursor<'_>, Span, usize)> = None;
        loop {
            let Some(character) = self.cursor.peek() else {
                let (after, span, length) =
                    first_line.unwrap_or_else(|| (self.cursor.clone(), self.span_from(&start), text.len()));
                self.diagnostics
                    .error(span, "this quote is never closed")
                    .help("end the word with `\"`; write `\\\"` for a quote inside it");
                // Reading on after the line finds what else is wrong.
                self.cursor = after;
                text.truncate(length);
                return self.push(text, span, true);
            };
            if character == '\n' && first_line.is_none() {
                first_line = Some((self.cursor.clone(), self.span_from(&start), text.len()));
            }
            match character {
                '"' => {
                    self.cursor.bump();
                    let span = first_line.map_or_else(|| self.span_from(&start), |(_, span, _)| span);
                    return self.push(text, span, true);
                }
                '\\' => {
                    self.cursor.bump();
                    // Only a quote can be escaped; any other character keeps its backslash.
                    match self.cursor.peek() {
                        Some('"') => text.push('"'),
                        Some('\n') => {
                            text.push('\\');
                            continue;
                        }
                        Some(escaped) => text.extend(['\\', escaped]),
                        None => continue,
                    }
                    self.cursor.bump();
                }
                _ => {
                    text.push(character);
                    self.cursor.bump();
                }
            }
        }
    }
}

/// A brace that was written without a space before it: `.:53{`, `max_fails 3}`. Not `{{`, nor the end of a
/// `{placeholder}`.
pub(super) fn glued_brace(text: &str) -> Option<&'static str> {
    if let Some(word) = text.strip_suffix('{') {
        return (!word.is_empty() && !word.contains(['{', '}'])).then_some("{");
    }
    let word = text.strip_suffix('}')?;
    (!word.is_empty() && !word.contains(['{', '}'])).then_some("}")
}
