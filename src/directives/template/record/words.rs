//! The words of a record: quotes, parentheses and comments of zone files.

use super::RecordError;

/// A word. Its quotes are gone, its escapes are not.
#[derive(Debug, PartialEq)]
pub(super) struct Word {
    pub text: String,
    pub is_quoted: bool,
}

impl Word {
    /// The octets that it stands for (RFC 1035 section 5.1): `\DDD` is an octet, `\X` the character. `None` for an
    /// escape that is neither.
    pub(super) fn octets(&self) -> Option<Vec<u8>> {
        let mut octets = Vec::with_capacity(self.text.len());
        let mut rest = self.text.as_bytes();
        while let Some((first, after)) = rest.split_first() {
            rest = after;
            if *first != b'\\' {
                octets.push(*first);
                continue;
            }
            match rest {
                [first, second, third, after @ ..] if first.is_ascii_digit() => {
                    let digits = [*first, *second, *third];
                    octets.push(std::str::from_utf8(&digits).ok()?.parse().ok()?);
                    rest = after;
                }
                [first, after @ ..] if !first.is_ascii_digit() => {
                    octets.push(*first);
                    rest = after;
                }
                _ => return None,
            }
        }
        Some(octets)
    }
}

/// The words of the first line that has any; a line goes on within parentheses.
pub(super) fn split(text: &str) -> Result<Vec<Word>, RecordError> {
    let mut words = Vec::new();
    let mut word: Option<Word> = None;
    let (mut depth, mut is_quoted, mut is_comment) = (0_usize, false, false);
    let mut characters = text.chars();
    while let Some(character) = characters.next() {
        if is_comment && character != '\n' {
            continue;
        }
        match character {
            '\\' => {
                let word = word.get_or_insert_with(|| Word { text: String::new(), is_quoted });
                word.text.push('\\');
                word.text.extend(characters.next());
            }
            '"' => {
                word.get_or_insert_with(|| Word { text: String::new(), is_quoted: true });
                is_quoted = !is_quoted;
            }
            other if is_quoted => {
                word.get_or_insert_with(|| Word { text: String::new(), is_quoted }).text.push(other);
            }
            '\n' if depth == 0 && (word.is_some() || !words.is_empty()) => break,
            ' ' | '\t' | '\r' | '\n' | ';' | '(' | ')' => {
                words.extend(word.take());
                match character {
                    '\n' => is_comment = false,
                    ';' => is_comment = true,
                    '(' => depth += 1,
                    ')' => depth = depth.checked_sub(1).ok_or(RecordError::Unclosed)?,
                    _ => {}
                }
            }
            other => word.get_or_insert_with(|| Word { text: String::new(), is_quoted }).text.push(other),
        }
    }
    words.extend(word);
    if depth > 0 || is_quoted { Err(RecordError::Unclosed) } else { Ok(words) }
}
