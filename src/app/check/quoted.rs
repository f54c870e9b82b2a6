//! Where the characters of a text in double quotes stand in its file: a string of JSON, or one of YAML in one line.

use crate::corefile::Span;

/// The columns of a text that has one line in its file, and perhaps several of its own.
pub(super) struct QuotedColumns {
    /// The line in the file, from 1.
    line: u32,
    /// Of each line of the text, where each of its characters begins, and where its last one ends, from 1.
    columns: Vec<Vec<u32>>,
}

impl QuotedColumns {
    /// Of `value`, which stands in quotes in the file's line `number` (from 1), `line`, the first quote at `start`
    /// (from 0). `None` if it does not stand there in one line.
    pub(super) fn of(line: &str, number: u32, start: usize, value: &str) -> Option<Self> {
        let mut written = line.chars().zip(1_u32..).skip(start);
        written.next().filter(|(quote, _)| *quote == '"')?;
        let mut columns = vec![Vec::new()];
        for character in value.chars() {
            let (first, column) = written.next()?;
            let read = if first == '\\' { escaped(&mut written.by_ref().map(|(next, _)| next))? } else { first };
            if read != character || (first == '"') {
                return None;
            }
            columns.last_mut()?.push(column);
            if character == '\n' {
                columns.push(Vec::new());
            }
        }
        let (_, end) = written.next().filter(|(quote, _)| *quote == '"')?;
        columns.last_mut()?.push(end);
        Some(Self { line: number, columns })
    }

    /// The place in the file of one in the text, whose lines are counted from 1.
    pub(super) fn in_file(&self, span: Span) -> Span {
        let line = self.columns.get((span.line as usize).saturating_sub(1)).or(self.columns.last());
        let at = |column: u32| {
            let known = line.and_then(|line| line.get((column as usize).saturating_sub(1)).or(line.last()));
            known.copied().unwrap_or(1)
        };
        let column = at(span.column);
        let length = at(span.column.saturating_add(span.length)).saturating_sub(column).max(1);
        Span { line: self.line, column, length, ..span }
    }
}

/// The character that an escape stands for, after its backslash (RFC 8259 section 7, YAML 1.2 section 5.7).
fn escaped(written: &mut impl Iterator<Item = char>) -> Option<char> {
    Some(match written.next()? {
        '0' => '\0',
        'a' => '\u{7}',
        'b' => '\u{8}',
        't' | '\t' => '\t',
        'n' => '\n',
        'v' => '\u{b}',
        'f' => '\u{c}',
        'r' => '\r',
        'e' => '\u{1b}',
        'N' => '\u{85}',
        '_' => '\u{a0}',
        'L' => '\u{2028}',
        'P' => '\u{2029}',
        'x' => char::from_u32(number(written, 2)?)?,
        'U' => char::from_u32(number(written, 8)?)?,
        'u' => match number(written, 4)? {
            // The first half of a pair (RFC 8259 section 7).
            high @ 0xd800..0xdc00 => {
                (written.next()? == '\\' && written.next()? == 'u').then_some(())?;
                let low = number(written, 4)?.checked_sub(0xdc00).filter(|low| *low < 0x400)?;
                char::from_u32(0x10000 + ((high - 0xd800) << 10) + low)?
            }
            other => char::from_u32(other)?,
        },
        other => other,
    })
}

/// A number of so many hexadecimal digits.
fn number(written: &mut impl Iterator<Item = char>, digits: u32) -> Option<u32> {
    (0..digits).try_fold(0, |number, _| Some((number << 4) | written.next()?.to_digit(16)?))
}

#[cfg(test)]
mod tests {
    use super::QuotedColumns;
    use crate::corefile::{FileId, Span};

    /// Line, column and length in the file of what has these in the text.
    fn placed(line: &str, value: &str, [of_line, column, length]: [u32; 3]) -> Option<[u32; 3]> {
        let start = line.chars().position(|character| character == '"')?;
        let columns = QuotedColumns::of(line, 7, start, value)?;
        let Span { line, column, length, .. } =
            columns.in_file(Span { file: FileId(0), line: of_line, column, length });
        Some([line, column, length])
    }

    #[test]
    fn what_follows_escapes_is_found() {
        let line = r#"  {"a\tb\n \"c\"\\ \u00fc\ud83d\ude00x\n\/ü","d"}"#;
        let value = "a\tb\n \"c\"\\ ü😀x\n/ü";
        for (in_text, in_file) in [
            ([1, 1, 3], [7, 5, 4]),
            ([1, 3, 1], [7, 8, 1]),
            ([2, 2, 3], [7, 12, 5]),
            ([2, 5, 1], [7, 17, 2]),
            ([2, 7, 1], [7, 20, 6]),
            ([2, 8, 2], [7, 26, 13]),
            ([3, 1, 2], [7, 41, 3]),
            // Behind the end of a line, and of the text.
            ([1, 9, 1], [7, 9, 1]),
            ([9, 9, 9], [7, 44, 1]),
        ] {
            assert_eq!(placed(line, value, in_text), Some(in_file), "{in_text:?}");
        }
    }

    #[test]
    fn a_text_that_does_not_stand_there_in_one_line_has_no_columns() {
        for (line, value) in [
            ("\"a", "a"),
            ("\"a b\"", "a"),
            ("\"a\"", "a b"),
            ("\"a  \\", "a b"),
            ("\"\\ud83dx\"", "x"),
            ("\"\\u12\"", "\u{12}"),
            ("'a'", "a"),
        ] {
            assert_eq!(placed(line, value, [1, 1, 1]), None, "{line}");
        }
    }
}
